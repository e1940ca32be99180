"""Inputs that are models: plain ones, protected ones, and plain ones with a plan of how to store them."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx

from fuzz import account, agreement, mutate_bytes, mutate_proto, mutate_text, seeds
from fuzz.draws import pick
from fuzz.invoke import invoke
from fuzz.judge import Case, Judge, of
from fuzz.oracles import Finding

SIGMA = 0.01  # of the noise that models are protected against
CHANNEL = f"gaussian:sigma={SIGMA}"
VARIANTS: tuple[tuple[str, ...], ...] = (
    ("--strategy", "redundancy", "--cells-small", "1", "--cells-large", "3"),
    ("--strategy", "raw", "--cells-small", "2"),
    ("--strategy", "sign", "--granularity", "model", "--side-bits-per-cell", "3"),
    ("--strategy", "mapping", "--large-fraction", "0.2"),
    ("--strategy", "redundancy", "--granularity", "model", "--sparsity", "0.5"),
    ("--classes", "4", "--partition", "lloyd", "--cells", "0,1,2,3"),
    ("--classes", "3", "--partition", "share", "--shares", "0.2,0.05", "--cells", "1,2,5", "--granularity", "channel"),
    ("--classes", "3", "--partition", "bounds", "--bounds", "-0.1,0.1", "--sign", "level", "--cells", "1,0,1"),
    ("--classes", "5", "--partition", "uniform", "--sign", "level", "--cells", "0,1,2,1,0", "--granularity", "model"),
    ("--classes", "20", "--partition", "lloyd", "--cells", "0", "--granularity", "channel", "--sparsity", "0.3"),
    ("--integers", "4", "--granularity", "channel"),
    ("--integers", "8"),
    ("--side-channel", CHANNEL, "--side-cells", "2", "--side-copies", "3"),
)


def protecting(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options of `protect` with the channel, unless they leave no cells that it is about."""
    without_cells = "--integers" in options or ("--cells", "0") in pairwise(options)
    return ("--min-size", "16", *(() if without_cells else ("--channel", CHANNEL)), *options)


def mutate_model(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return a model with one change: of its messages, or of its bytes."""
    if rng.random() < 0.85:
        try:
            model = onnx.ModelProto.FromString(data)
            change = mutate_proto.mutate(model, rng)
            return model.SerializeToString(deterministic=True), change
        except Exception:  # noqa: S110 - what an earlier step left is no model, or holds texts that are none
            pass
    return mutate_bytes.mutate(data, rng)


def applied(
    data: bytes, change: Callable[[bytes, random.Random], tuple[bytes, str]], steps: list[random.Random]
) -> tuple[bytes, tuple[str, ...]]:
    """Return `data` after one change for each of `steps`, and what they were."""
    changes = []
    for rng in steps:
        data, description = change(data, rng)
        changes.append(description)
    return data, tuple(changes)


# ---------------------------------------------------------------------------------------------------- plain


def plain(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return a plain model and its data, one of them changed."""
    name, options = pick(rng, list(seeds.MODELS)), pick(rng, VARIANTS)
    seed_model = seeds.seed(name)
    files = {"m.onnx": seed_model.model, "d.npz": seed_model.data, **seed_model.files}
    target = "m.onnx.data" if seed_model.files and rng.random() < 0.3 else "m.onnx"
    files[target], changes = applied(files[target], mutate_bytes.mutate if target != "m.onnx" else mutate_model, steps)
    return Case(case.kind, case.seed, case.number, files, changes, name, options)


def judge_plain(judge: Judge) -> None:
    """Inspect, prune, evaluate and protect a plain model, and read what protect wrote."""
    folder, options = judge.folder, judge.case.options
    reference = judge.reference("m.onnx")
    judge.accepted(judge.run("inspect", "m.onnx", "--min-size", "16", "--json"), reference)
    pruned = judge.run(
        "prune", "m.onnx", "--sparsity", "0", "--min-size", "16", "-o", "q.onnx", outputs=("q.onnx", "q.onnx.data")
    )
    judge.accepted(pruned, reference)
    if pruned.code == 0:
        judge.add(agreement.same_outputs(folder / "q.onnx", reference, "prune"))
    evaluated = judge.run("evaluate", "m.onnx", "--data", "d.npz", "--trials", "0", "--threads", "1", "--json")
    if evaluated.code == 0:
        judge.add(of(agreement.evaluated, folder / "m.onnx", folder / "d.npz", evaluated))
    outputs = ("p.onnx", "p.onnx.data", "p.json")
    protect = judge.run(
        "protect", "m.onnx", *protecting(options), "-o", "p.onnx", "--manifest", "p.json", "--json", outputs=outputs
    )
    judge.accepted(protect, reference)
    if protect.code != 0:
        return
    if "--sparsity" not in options:
        judge.add(agreement.protected(folder / "m.onnx", folder / "p.onnx", reference))
    judge.add(of(agreement.totals, folder / "p.onnx", protect))
    if reference.refused is None:
        _read(judge, full=judge.case.number % 4 == 0)


def _read(judge: Judge, *, full: bool) -> None:
    """Run what takes the protected model p.onnx, made from this input: all of it must succeed."""
    folder = judge.folder
    commands = {
        "--check": ("manifest", "p.onnx", "--check", "p.json"),
        "readback": ("readback", "p.onnx", "--decoded", "-o", "r.onnx"),
    }
    quiet = ("readback", "p.onnx", "--decoded", "--channel", "gaussian:sigma=1e-7", "-o", "s.onnx")
    noisy = ("evaluate", "p.onnx", "--data", "d.npz", "--trials", "1", "--threads", "1", "--json")
    ran = {name: judge.run(*command, outputs=("r.onnx", "r.onnx.data")) for name, command in commands.items()}
    for name, result in ran.items():
        if result.code != 0:
            judge.add([Finding("own output refused", name, result.err.strip()[:200])])
    evaluated = judge.run(*noisy)
    if evaluated.code == 0 and ran["readback"].code == 0:
        paths = folder / "p.onnx", folder / "r.onnx", folder / "d.npz"
        judge.add(of(agreement.noisy, *paths, evaluated))
    if full and judge.run(*quiet, outputs=("s.onnx", "s.onnx.data")).code == 0:
        judge.add(agreement.read_back(folder / "p.onnx", folder / "s.onnx", 1e-7))
    if full:
        _sweep(judge)


def _sweep(judge: Judge) -> None:
    judge.run(
        "sweep", "m.onnx", "--data", "d.npz", "--strategy", "raw", "--cells", "1", "--trials", "1", "--engine",
        "serial", "--min-size", "16", "--channel", CHANNEL, "--out", "run", "--json",
        outputs=("run",),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ protected


@functools.cache
def protected(name: str, variant: int) -> dict[str, bytes]:
    """Return the files of a model that the program protected; of another model where it refuses this one."""
    from onnx_analog.cli import main

    seed_model = seeds.seed(name)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for file, data in {"m.onnx": seed_model.model, "d.npz": seed_model.data, **seed_model.files}.items():
            (folder / file).write_bytes(data)
        arguments = ["protect", "m.onnx", "-o", "p.onnx", *protecting(VARIANTS[variant])]
        if invoke([*arguments, "--manifest", "p.json"], folder, main).code:
            assert name != "mlp"
            return protected("mlp", variant)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def protected_case(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return a protected model that was changed."""
    name, variant = pick(rng, list(seeds.MODELS)), rng.randrange(len(VARIANTS))
    whole = protected(name, variant)
    files = {file: data for file, data in whole.items() if not file.startswith("m.")}
    files["p.onnx"], changes = applied(files["p.onnx"], mutate_model, steps)
    return Case(case.kind, case.seed, case.number, files, changes, name, VARIANTS[variant], whole)


def judge_protected(judge: Judge) -> None:
    """Run what takes a protected model: it is refused, or has the weights that it had."""
    folder, case = judge.folder, judge.case
    unmutated = _account(case.unmutated, folder)
    reference = judge.reference("p.onnx")
    commands: tuple[tuple[str, ...], ...] = (
        ("inspect", "p.onnx", "--json"),
        ("manifest", "p.onnx", "--json"),
        ("manifest", "p.onnx", "--check", "p.json"),
        ("readback", "p.onnx", "--decoded", "-o", "r.onnx"),
        ("evaluate", "p.onnx", "--data", "d.npz", "--trials", "1", "--threads", "1", "--json"),
    )
    totals = json.loads(case.unmutated["p.json"])["totals"]
    for command in commands:
        ran = judge.run(*command, outputs=("r.onnx", "r.onnx.data"))
        judge.accepted(ran, reference)
        if ran.code == 0 and command[0] != "inspect" and b"onnx_analog" in case.files["p.onnx"]:
            if ran.command == "evaluate" and not account.stored(agreement.loaded(folder / "p.onnx")):
                continue  # plain by now
            judge.add(agreement.same_weights(folder / "p.onnx", unmutated, ran.command))
            if command == commands[1]:
                judge.add(of(_same_totals, ran, totals))
        elif ran.code == 0 and ran.command == "evaluate":
            judge.add(of(agreement.evaluated, folder / "p.onnx", folder / "d.npz", ran))


def _account(files: Mapping[str, bytes], folder: Path) -> dict[str, account.StoredTensor]:
    """Return the stored tensors of the model before it was changed."""
    inner = folder / "unmutated"
    inner.mkdir()
    for name, data in files.items():
        (inner / name).write_bytes(data)
    try:
        return account.stored(agreement.loaded(inner / "p.onnx"))
    finally:
        for path in inner.iterdir():
            path.unlink()
        inner.rmdir()


def _same_totals(changed: Mapping[str, Any], original: Mapping[str, Any]) -> Iterator[Finding]:
    other = [name for name in original if changed["totals"].get(name) != original[name]]
    if other:
        yield Finding("other totals accepted", "manifest", f"{other[0]}: {changed['totals'].get(other[0])}")


# ---------------------------------------------------------------------------------------------------- plans

SCHEMES: dict[str, dict[str, Any]] = {
    "paper": {"sign": "bit", "classes": 2, "shares": [0.1], "cells": [1, 3]},
    "four": {"classes": 4, "partition": "lloyd", "shares": [], "cells": [0, 1, 2, 3], "granularity": "channel"},
    "int4": {"sign": "level", "classes": 15, "partition": "uniform", "shares": [], "step": 0.05, "cells": [0]},
    "bounds": {"classes": 3, "partition": "bounds", "shares": [], "bounds": [0.1, 0.2], "cells": [2]},
    "side": {"side_channel": CHANNEL, "side_cells": 2, "side_copies": 3, "granularity": "model"},
    "refined": {
        "sign": "level", "classes": 15, "partition": "uniform", "shares": [], "relative_step": 0.7, "cells": [1],
        "entropy": "context", "estimator": "unbiased",
    },
}  # fmt: skip
SETTINGS: dict[str, tuple[Any, ...]] = {  # values that are right for some schemes
    "sign": ("bit", "level"), "granularity": ("tensor", "channel", "model"), "side_bits_per_cell": (1, 3, 8),
    "side_cells": (1, 2), "side_copies": (1, 3), "cells": ([0], [1], [2], [1, 2], [0, 1, 2, 3]),
    "classes": (1, 2, 4, 17), "partition": ("lloyd", "uniform", "share"), "shares": ([0.3], [0.0], [1.0], []),
    "step": (0.05, 1e-3, 1e9, None),
    "relative_step": (0.5, 1e-6, 1e9, None), "rate_weight": (0.0, 0.1, 1e9), "entropy": ("none", "static", "context"),
    "code": ("none", "bch", "soft"), "block_bits": (8, 4096), "block_failure": (1e-9, 0.5, 1),
    "segment_weights": (1, 999),
    "estimator": ("affine", "posterior", "unbiased"),
    "bounds": ([0.01, 0.5], [0.1, 1e9], []), "side_channel": (CHANNEL, None), "channel": ("pcm", CHANNEL),
}  # fmt: skip
KEYS = ("w", "v", "k", "g", "bias", "h", "*", "t*", "no such tensor")


def mutate_plan(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return a plan with another setting, or another scheme of a tensor; now and then with any change of its JSON."""
    try:
        body = json.loads(text)
        scheme, name = pick(rng, list(body["schemes"])), pick(rng, list(SETTINGS))
        if rng.random() < 0.4:
            key = pick(rng, KEYS)
            body["tensors"][key] = pick(rng, (scheme, None))
            return json.dumps(body).encode(), f"scheme of {key!r}"
        if rng.random() < 0.75:
            body["schemes"][scheme][name] = pick(rng, SETTINGS[name])
            return json.dumps(body).encode(), f"{name} of {scheme}"
    except Exception:  # noqa: S110 - what an earlier step left is no plan
        pass
    return mutate_text.mutate_json(text, rng)


def plan(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    """Return a model and a plan of it that was changed."""
    name = pick(rng, ("mlp", "conv", "types", "if", "tied"))
    seed_model, chosen = seeds.seed(name), rng.sample(list(SCHEMES), 3)
    schemes = {scheme: {"channel": {"family": "gaussian", "sigma": SIGMA}, **SCHEMES[scheme]} for scheme in chosen}
    tensors = {key: pick(rng, (*chosen, None)) for key in rng.sample(KEYS, 3)}
    body = {"format": "onnx-analog-plan/1", "schemes": schemes, "default": pick(rng, chosen), "tensors": tensors}
    text = json.dumps(body).encode()
    changed, changes = applied(text, mutate_plan, steps)
    files = {"m.onnx": seed_model.model, "plan.json": changed}
    return Case(case.kind, case.seed, case.number, files, changes, name, (), {"plan.json": text})


def judge_plan(judge: Judge) -> None:
    """Show the plan, store the model as it says, and as the plan says that was saved then."""
    folder, reference = judge.folder, judge.reference("m.onnx")
    shown = judge.run("plan", "show", "plan.json", "--json")
    outputs = ("p.onnx", "p.json", "saved.json")
    arguments = ("--min-size", "16", "-o", "p.onnx", "--manifest", "p.json", "--save-plan", "saved.json", "--json")
    protect = judge.run("protect", "m.onnx", "--plan", "plan.json", *arguments, outputs=outputs)
    if protect.code == 0 and shown.code != 0:
        judge.add([Finding("own plan refused", "plan show", shown.err.strip()[:200])])
    if protect.code != 0:
        return
    judge.add(agreement.protected(folder / "m.onnx", folder / "p.onnx", reference, largest=1e3))
    judge.add(of(agreement.totals, folder / "p.onnx", protect))
    again = ("--min-size", "16", "-o", "again.onnx", "--manifest", "again.json", "--json")
    repeated = judge.run("protect", "m.onnx", "--plan", "saved.json", *again, outputs=("again.onnx", "again.json"))
    if repeated.code != 0:
        judge.add([Finding("own output refused", "protect --plan", repeated.err.strip()[:200])])
    else:
        judge.add(of(_same_storage, repeated, protect))


def _same_storage(repeated: Mapping[str, Any], first: Mapping[str, Any]) -> Iterator[Finding]:
    for name in ("schemes", "tensors", "totals"):
        if repeated[name] != first[name]:
            yield Finding("other storage", "protect --plan", name)
