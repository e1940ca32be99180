"""Inputs that are texts and arrays: manifests, channels, evaluation data, measured pairs, sweeps, and their folders."""

from __future__ import annotations

import functools
import json
import math
import random
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fuzz import agreement, mutate_text, seeds
from fuzz.draws import generator, pick
from fuzz.invoke import invoke
from fuzz.judge import Case, Judge, of
from fuzz.of_models import CHANNEL, VARIANTS, applied, protected
from fuzz.oracles import Finding

# ------------------------------------------------------------------------------------------------- manifests


def manifest(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return a protected model and its manifest, which was changed."""
    name, variant = pick(rng, ("mlp", "types", "function", "if")), rng.randrange(len(VARIANTS))
    whole = protected(name, variant)
    text, changes = applied(whole["p.json"], mutate_text.mutate_json, steps)
    files = {"p.onnx": whole["p.onnx"], "p.json": text}
    return Case(case.kind, case.seed, case.number, files, changes, name, VARIANTS[variant], whole)


def judge_manifest(judge: Judge) -> None:
    """Show the manifest, and compare it with its model."""
    case = judge.case
    shown = judge.run("manifest", "p.json", "--json")
    if shown.code == 0:
        judge.add(of(consistent, shown))
    if judge.run("manifest", "p.onnx", "--check", "p.json").code == 0:
        judge.add(of(_passes, case.files["p.json"], case.unmutated["p.json"]))


def consistent(body: Mapping[str, Any]) -> Iterator[Finding]:
    """The addresses of a manifest follow each other from 0, and its totals are sums."""
    at = 0
    for tensor in body["tensors"]:
        for plane in ("level", "side", "mask", "codebook"):
            first, end = tensor["cells"][plane]
            if first != at or end < first:
                yield Finding("addresses", "manifest", f"{tensor['key'][:40]}: {plane} from {first}, not {at}")
                return
            at = end
    if at != body["totals"]["all_in_cells"]:
        yield Finding("totals", "manifest", f"{body['totals']['all_in_cells']} cells, of which {at} have an address")
    for name, part in (("original_weights", "original"), ("stored_weights", "stored")):
        if body["totals"][name] != sum(tensor[part] for tensor in body["tensors"]):
            yield Finding("totals", "manifest", name)
    if any(tensor["stored"] != sum(entry["count"] for entry in tensor["classes"]) for tensor in body["tensors"]):
        yield Finding("totals", "manifest", "counts of classes")


_DEFAULTS: dict[str, tuple[Any, ...]] = {  # of the settings of a scheme, and of its channel, that a file leaves out
    "low": (-0.65,), "high": (0.75,),
    "sign": ("bit",), "classes": (2,), "partition": ("share",), "shares": ([0.05], []), "bounds": ([],),
    "cells": ([1, 20],), "granularity": ("tensor",), "estimator": ("affine",), "side_bits_per_cell": (2,),
    "side_cells": (1,), "side_copies": (1,), "rate_weight": (0.0,), "entropy": ("none",), "segment_weights": (65_536,),
    "code": ("bch",), "block_bits": (4096,), "block_failure": (1e-9,),
}  # fmt: skip


def _passes(changed: bytes, original: bytes) -> Iterator[Finding]:
    yield from differs(json.loads(changed), json.loads(original))


def differs(changed: Any, original: Any, path: str = "") -> Iterator[Finding]:
    """A manifest that passes --check says what the right one says, beside fields that readers do not know.

    Where a channel family's numbers come from is known by the family, so readers do not take that from a file.
    """
    if isinstance(original, dict) and isinstance(changed, dict):
        for name in original:
            settings = _DEFAULTS if "schemes" in path else {"assumptions": ([],)}
            default = name not in changed and original[name] in settings.get(name, (None,) if "schemes" in path else ())
            if name not in ("command", "source") and not default:
                yield from differs(changed.get(name), original[name], f"{path}.{name}")
    elif isinstance(original, list) and isinstance(changed, list) and len(changed) == len(original):
        for index, (item, original_item) in enumerate(zip(changed, original, strict=True)):
            yield from differs(item, original_item, f"{path}.{index}")
    elif isinstance(changed, float) and isinstance(original, float) and math.isclose(changed, original, rel_tol=1e-9):
        return  # other programs may round ratios
    elif changed != original or isinstance(changed, bool) != isinstance(original, bool):
        yield Finding(
            "--check passes", "manifest", re.sub(r"\d+", "0", path) + f": {changed!r:.30} for {original!r:.30}"
        )


# -------------------------------------------------------------------------------------------------- channels

SOURCE = {"citation": "none", "figure": "", "licence": "", "left_out": "all"}


def _table(points: int, *, log: bool = False) -> dict[str, Any]:
    inputs = [-1 + 2 * i / (points - 1) for i in range(points)]
    return {
        "family": "table",
        "name": "made",
        "inputs": inputs,
        "means": [math.tanh(x) for x in inputs],
        "stds": [0.05 + 0.02 * x * x for x in inputs],
        "input_scale": {"low": 0.0, "high": 2.0, "unit": "volts", "log": False},
        "output_scale": {"low": 1e3, "high": 1e6, "unit": "ohms", "log": log},
        "provenance": SOURCE,
        "neighbours": 5,
        "pairs": 100,
        "between": [0.01] * points,
        "cells_on": "different",
        "residuals": [[-1.2, -0.5, 0.0, 0.5, 1.2]] * points,
    }


CHANNELS: dict[str, dict[str, Any]] = {
    "gaussian": {"family": "gaussian", "sigma": 0.05, "low": -0.5, "high": 0.75, "source": SOURCE},
    "table": _table(9),
    "log-table": _table(5, log=True),
    "empirical": {"family": "empirical", "table": _table(7)},
    "rram-wan": {"family": "rram-wan", "read_after_s": 1.0},
    "pcm-drift": {"family": "pcm-drift", "fit": "nandakumar2019", "read_after_s": 0.0, "compensated": False},
    "precision": {"family": "precision", "inner": {"family": "gaussian", "sigma": 0.05}, "write_bits": 4},
}  # fmt: skip


def channel(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return a channel that was changed, and a model to store in it."""
    name = pick(rng, list(CHANNELS))
    text = json.dumps(CHANNELS[name]).encode()
    changed, changes = applied(text, mutate_text.mutate_json, steps)
    seed_model = seeds.seed("mlp")
    return Case(
        case.kind,
        case.seed,
        case.number,
        {"m.onnx": seed_model.model, "c.json": changed},
        changes,
        name,
        (),
        {"c.json": text},
    )


def _junk(changed: bytes, original: bytes) -> Iterator[Finding]:
    yield from wrong_types(json.loads(changed), json.loads(original))


def wrong_types(changed: Any, original: Any, path: str = "") -> Iterator[Finding]:
    """No number of an accepted channel is now NaN, infinite, true, a text, a list or an object."""
    if isinstance(original, dict) and isinstance(changed, dict):
        for name in original.keys() & changed.keys():
            yield from wrong_types(changed[name], original[name], f"{path}.{name}")
    elif isinstance(original, list) and isinstance(changed, list) and len(original) == len(changed):
        for item, original_item in zip(changed, original, strict=True):
            yield from wrong_types(item, original_item, f"{path}.0")
    elif isinstance(original, int | float) and not isinstance(original, bool) and changed is not None:
        number = isinstance(changed, int | float) and not isinstance(changed, bool)
        if not number or not abs(changed) <= 1e300 or (path.endswith(("sigma", "stds.0", "between.0")) and changed < 0):
            yield Finding("junk accepted", "channel show", f"{path}: {changed!r:.40}")


def judge_channel(judge: Judge) -> None:
    """Show the channel, store a model in it and read that back."""
    shown = judge.run("channel", "show", "c.json", "--json")
    judge.run("channel", "show", "c.json")
    outputs = ("p.onnx", "p.json")
    protect = judge.run(
        "protect",
        "m.onnx",
        "--min-size",
        "16",
        "--channel",
        "c.json",
        "-o",
        "p.onnx",
        "--manifest",
        "p.json",
        outputs=outputs,
    )
    if shown.code == 0:
        judge.add(of(_junk, judge.case.files["c.json"], judge.case.unmutated["c.json"]))
        judge.add(of(_span, shown))
    if protect.code == 0:
        if shown.code != 0:
            judge.add([Finding("own channel refused", "channel show", shown.err.strip()[:200])])
        read = judge.run("readback", "p.onnx", "--decoded", "-o", "r.onnx", outputs=("r.onnx",))
        if read.code != 0:
            judge.add([Finding("own output refused", "readback", read.err.strip()[:200])])


def _span(body: Mapping[str, Any]) -> Iterator[Finding]:
    low, high = body["span"]
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        yield Finding("span", "channel show", f"{body['span']}")


# ------------------------------------------------------------------------------------- data, and measured pairs


def npz(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return evaluation data that were changed."""
    name = pick(rng, ("mlp", "conv", "if", "types", "map", "lstm", "tied"))
    seed_model = seeds.seed(name)
    data, changes = applied(seed_model.data, mutate_text.mutate_npz, steps)
    return Case(case.kind, case.seed, case.number, {"m.onnx": seed_model.model, "d.npz": data}, changes, name)


def judge_npz(judge: Judge) -> None:
    """Evaluate a model on the data."""
    for options in ((), ("--samples", "1")):
        ran = judge.run("evaluate", "m.onnx", "--data", "d.npz", "--trials", "0", "--threads", "1", "--json", *options)
        if ran.code == 0 and not options:
            paths = judge.folder / "m.onnx", judge.folder / "d.npz"
            judge.add(of(agreement.evaluated, *paths, ran))


def _pairs(rows: int) -> bytes:
    rng = generator("pairs", rows)
    lines = [
        f"{x:.4f},{10 ** (3 + x + rng.gauss(0, 0.1)):.1f},{row % 3}" for row in range(rows) for x in [rng.random()]
    ]
    return ("volts,ohms,device\n" + "\n".join(lines) + "\n").encode()


def csv(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return measured pairs that were changed."""
    data, changes = applied(_pairs(60), mutate_text.mutate_csv, steps)
    options = pick(rng, ((), ("--log", "output"), ("--group", "device"), ("--neighbours", "5")))
    return Case(case.kind, case.seed, case.number, {"pairs.csv": data}, changes, "pairs", options)


def judge_csv(judge: Judge) -> None:
    """Fit a channel to the pairs, and show it."""
    arguments = (
        "channel",
        "fit",
        "pairs.csv",
        "--input",
        "volts",
        "--output",
        "ohms",
        *judge.case.options,
        "-o",
        "c.json",
    )
    ran = judge.run(*arguments, "--json", outputs=("c.json",))
    if ran.code == 0:
        shown = judge.run("channel", "show", "c.json", "--json")
        if shown.code != 0:
            judge.add([Finding("own output refused", "channel show", shown.err.strip()[:200])])
        judge.add(of(_span, shown))


# --------------------------------------------------------------------------------------------------- sweeps

SWEEP = f"""strategy = "raw,redundancy"
cells = [1, 2]
large_factor = 3
scope = "tensor"
large_fraction = 0.1
preset = "default"
channel = ["{CHANNEL}"]
min_size = 16
include = ["w", "v"]
exclude = ["bias"]
sparsity = 0.25
prune_scope = "model"
trials = 1
seed = 3
samples = 3
batch = 2
mean = [0.5]
std = "0.5"
providers = "CPUExecutionProvider"
threads = 1
"""


def toml(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:  # noqa: ARG001 - all steps are called with the same
    """Return the configuration of a sweep, which was changed."""
    seed_model = seeds.seed("mlp")
    text, changes = applied(SWEEP.encode(), mutate_text.mutate_toml, steps)
    return Case(
        case.kind,
        case.seed,
        case.number,
        {"m.onnx": seed_model.model, "d.npz": seed_model.data, "c.toml": text},
        changes,
        "sweep",
    )


def judge_toml(judge: Judge) -> None:
    """Run the sweep that is asked for."""
    judge.run(
        "sweep",
        "m.onnx",
        "--data",
        "d.npz",
        "--config",
        "c.toml",
        "--engine",
        "serial",
        "--out",
        "run",
        "--json",
        outputs=("run",),
    )


def long_on_request(case: Case) -> bool:
    """Return whether a TOML file asks for so many trials that a long sweep is what it asked for."""
    try:
        body = tomllib.loads(case.files["c.toml"].decode())
        return any(float(body.get(name, 1)) > 1000 for name in ("trials", "max_trials", "max-trials"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


RUN = (
    "sweep", "m.onnx", "--data", "d.npz", "--strategy", "raw,sign", "--cells", "1,2", "--trials", "2",
    "--channel", CHANNEL, "--min-size", "16", "--engine", "serial", "--out", "run", "--json",
)  # fmt: skip


@functools.cache
def run_folder(seed: int) -> tuple[dict[str, bytes], str]:
    """Return the files of a finished sweep, and what it printed."""
    from onnx_analog.cli import main

    seed_model = seeds.seed("mlp")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for file, data in {"m.onnx": seed_model.model, "d.npz": seed_model.data}.items():
            (folder / file).write_bytes(data)
        ran = invoke([*RUN, "--seed", str(seed)], folder, main)
        assert ran.code == 0, ran.err
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}, ran.out


def run(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return the folder of a sweep, one file of which was changed."""
    files = dict(run_folder(0)[0])
    target = pick(rng, ("run/trials.csv", "run/sweep.json", "run/points.csv"), (6, 3, 1))
    changes = []
    for step in steps:
        if target == "run/sweep.json":
            files[target], change = mutate_text.mutate_json(files[target], step)
        elif target == "run/trials.csv" and step.random() < 0.25:
            files[target], change = _other_rows(files[target], step)
        else:
            files[target], change = mutate_text.mutate_csv(files[target], step)
        changes.append(f"{target}: {change}")
    return Case(case.kind, case.seed, case.number, files, tuple(changes), "run")


def _other_rows(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Put rows of another seed, or rows with another number, into trials.csv."""
    lines = text.decode("utf-8", "replace").splitlines()
    other = run_folder(5)[0]["run/trials.csv"].decode().splitlines()
    row = rng.randrange(1, max(2, len(lines)))
    lines[row : row + rng.randrange(2)] = [other[rng.randrange(1, len(other))]]
    return ("\n".join(lines) + "\n").encode(), f"another seed's row at {row}"


def judge_run(judge: Judge) -> None:
    """Go on with the sweep: it refuses, or ends as one that was never stopped."""
    expected = json.loads(run_folder(0)[1])
    ran = judge.run(*RUN, "--seed", "0", outputs=("run",))
    if ran.code == 0:
        judge.add(of(_same_points, ran, expected))


def _same_points(points: Any, expected: Any) -> Iterator[Finding]:
    if points != expected:
        yield Finding("other numbers", "sweep", "a sweep that goes on differs from one that was never stopped")
