"""The kinds of input: number i of a kind, of a seed, is always the same files."""

from __future__ import annotations

import functools
import json
import math
import random
import tempfile
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from fuzz import mutate_bytes, mutate_proto, mutate_text, seeds
from fuzz.draws import generator, pick
from fuzz.invoke import invoke

SIGMA = 0.01  # of the noise that models are protected against
CHANNEL = f"gaussian:sigma={SIGMA}"
VARIANTS: tuple[tuple[str, ...], ...] = (
    ("--strategy", "redundancy", "--cells-small", "1", "--cells-large", "3"),
    ("--strategy", "raw", "--cells-small", "2"),
    ("--strategy", "sign", "--scope", "model", "--bits-per-cell", "3"),
    ("--strategy", "mapping", "--large-fraction", "0.2"),
    ("--strategy", "redundancy", "--scope", "model", "--sparsity", "0.5"),
)


@dataclass(frozen=True)
class Case:
    """One input: files by name, and what is known of them."""

    kind: str
    seed: int
    number: int
    files: dict[str, bytes]
    steps: tuple[str, ...]  # what was done to them
    origin: str
    options: tuple[str, ...] = ()  # of the commands
    unmutated: dict[str, bytes] = field(default_factory=dict)


def make(kind: str, seed: int, number: int, keep: Collection[int] | None = None) -> Case:
    """Return mutation `number` of a kind; with `keep`, only those of its steps."""
    if kind == "corpus":
        return of_corpus(number)
    if kind == "backend":
        from fuzz import backend

        return backend.case(number)
    rng = generator(seed, kind, number)
    count = pick(rng, (1, 1, 1, 2, 2, 3, 6))
    steps = [generator(seed, kind, number, step) for step in range(count) if keep is None or step in keep]
    return KINDS[kind](Case(kind, seed, number, {}, (), ""), rng, steps)


def mutate_model(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return a model with one change: of its messages, or of its bytes."""
    if rng.random() < 0.85:
        try:
            model = onnx.ModelProto.FromString(data)
            what = mutate_proto.mutate(model, rng)
            return model.SerializeToString(deterministic=True), what
        except Exception:  # noqa: S110 - what an earlier step left is no model, or holds texts that are none
            pass
    return mutate_bytes.mutate(data, rng)


def _applied(
    data: bytes, change: Callable[[bytes, random.Random], tuple[bytes, str]], steps: list[random.Random]
) -> tuple[bytes, tuple[str, ...]]:
    done = []
    for rng in steps:
        data, what = change(data, rng)
        done.append(what)
    return data, tuple(done)


def _plain(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    name, options = pick(rng, list(seeds.MODELS)), pick(rng, VARIANTS)
    made = seeds.seed(name)
    files = {"m.onnx": made.model, "d.npz": made.data, **made.files}
    target = "m.onnx.data" if made.files and rng.random() < 0.3 else "m.onnx"
    files[target], done = _applied(files[target], mutate_bytes.mutate if target != "m.onnx" else mutate_model, steps)
    return Case(case.kind, case.seed, case.number, files, done, name, options)


@functools.cache
def protected(name: str, variant: int) -> dict[str, bytes]:
    """Return a model, protected by the program, and its files; of another model where this one is refused."""
    from onnx_analog.cli import main

    made = seeds.seed(name)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for file, data in {"m.onnx": made.model, "d.npz": made.data, **made.files}.items():
            (folder / file).write_bytes(data)
        arguments = ["protect", "m.onnx", "--min-size", "16", "--channel", CHANNEL, "-o", "p.onnx", *VARIANTS[variant]]
        if invoke([*arguments, "--manifest", "p.json"], folder, main).code:
            assert name != "mlp"
            return protected("mlp", variant)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _protected(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    name, variant = pick(rng, list(seeds.MODELS)), rng.randrange(len(VARIANTS))
    whole = protected(name, variant)
    files = {file: data for file, data in whole.items() if not file.startswith("m.")}
    files["p.onnx"], done = _applied(files["p.onnx"], mutate_model, steps)
    return Case(case.kind, case.seed, case.number, files, done, name, VARIANTS[variant], whole)


def _manifest(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    name, variant = pick(rng, ("mlp", "types", "function", "if")), rng.randrange(len(VARIANTS))
    whole = protected(name, variant)
    text, done = _applied(whole["p.json"], mutate_text.mutate_json, steps)
    files = {"p.onnx": whole["p.onnx"], "p.json": text}
    return Case(case.kind, case.seed, case.number, files, done, name, VARIANTS[variant], whole)


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


def _channel(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    name = pick(rng, list(CHANNELS))
    text = json.dumps(CHANNELS[name]).encode()
    changed, done = _applied(text, mutate_text.mutate_json, steps)
    made = seeds.seed("mlp")
    return Case(
        case.kind, case.seed, case.number, {"m.onnx": made.model, "c.json": changed}, done, name, (), {"c.json": text}
    )


def _npz(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    name = pick(rng, ("mlp", "conv", "if", "types", "map", "lstm", "tied"))
    made = seeds.seed(name)
    data, done = _applied(made.data, mutate_text.mutate_npz, steps)
    return Case(case.kind, case.seed, case.number, {"m.onnx": made.model, "d.npz": data}, done, name)


def _pairs(rows: int) -> bytes:
    rng = generator("pairs", rows)
    lines = [
        f"{x:.4f},{10 ** (3 + x + rng.gauss(0, 0.1)):.1f},{row % 3}" for row in range(rows) for x in [rng.random()]
    ]
    return ("volts,ohms,device\n" + "\n".join(lines) + "\n").encode()


def _csv(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    data, done = _applied(_pairs(60), mutate_text.mutate_csv, steps)
    options = pick(rng, ((), ("--log", "output"), ("--group", "device"), ("--neighbours", "5")))
    return Case(case.kind, case.seed, case.number, {"pairs.csv": data}, done, "pairs", options)


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


def _toml(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:  # noqa: ARG001 - as the others
    made = seeds.seed("mlp")
    text, done = _applied(SWEEP.encode(), mutate_text.mutate_toml, steps)
    return Case(
        case.kind, case.seed, case.number, {"m.onnx": made.model, "d.npz": made.data, "c.toml": text}, done, "sweep"
    )


RUN = (
    "sweep", "m.onnx", "--data", "d.npz", "--strategy", "raw,sign", "--cells", "1,2", "--trials", "2",
    "--channel", CHANNEL, "--min-size", "16", "--engine", "serial", "--out", "run", "--json",
)  # fmt: skip


@functools.cache
def run_folder(seed: int) -> tuple[dict[str, bytes], str]:
    """Return the files of a finished sweep, and what it printed."""
    from onnx_analog.cli import main

    made = seeds.seed("mlp")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for file, data in {"m.onnx": made.model, "d.npz": made.data}.items():
            (folder / file).write_bytes(data)
        ran = invoke([*RUN, "--seed", str(seed)], folder, main)
        assert ran.code == 0, ran.err
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}, ran.out


def _run(case: Case, rng: random.Random, steps: list[random.Random]) -> Case:
    files = dict(run_folder(0)[0])
    target = pick(rng, ("run/trials.csv", "run/sweep.json", "run/points.csv"), (6, 3, 1))
    done = []
    for step in steps:
        if target == "run/sweep.json":
            files[target], what = mutate_text.mutate_json(files[target], step)
        elif target == "run/trials.csv" and step.random() < 0.25:
            files[target], what = _other_rows(files[target], step)
        else:
            files[target], what = mutate_text.mutate_csv(files[target], step)
        done.append(f"{target}: {what}")
    return Case(case.kind, case.seed, case.number, files, tuple(done), "run")


def _other_rows(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Put rows of another seed, or rows with another number, into trials.csv."""
    lines = text.decode("utf-8", "replace").splitlines()
    other = run_folder(5)[0]["run/trials.csv"].decode().splitlines()
    place = rng.randrange(1, max(2, len(lines)))
    lines[place : place + rng.randrange(2)] = [other[rng.randrange(1, len(other))]]
    return ("\n".join(lines) + "\n").encode(), f"another seed's row at {place}"


CORPUS = Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus"


@functools.cache
def rows() -> list[dict[str, Any]]:
    """Return the table of the corpus: files, a command, and what must come of it."""
    found: list[dict[str, Any]] = tomllib.loads((CORPUS / "table.toml").read_text(encoding="utf-8"))["case"]
    return found


def of_corpus(number: int) -> Case:
    """Return a row of the corpus as an input."""
    row = rows()[number]
    files = {name: (CORPUS / name).read_bytes() for name in row["files"]}
    return Case("corpus", 0, number, files, (), row["command"])


KINDS: dict[str, Callable[[Case, random.Random, list[random.Random]], Case]] = {
    "plain": _plain,
    "protected": _protected,
    "manifest": _manifest,
    "channel": _channel,
    "npz": _npz,
    "csv": _csv,
    "toml": _toml,
    "run": _run,
}
