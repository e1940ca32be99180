"""Measures what it takes onnxruntime to create a session of a protected model: memory, time, and time of a run.

    python benchmarks/session_memory.py [--weights 11.5 50] [--single 11.5] [--model FILE ...] > table.md
    python benchmarks/session_memory.py --zeros > zeros.md

Planes are random: what is measured depends on their sizes only. One thread; memory is the peak of anonymous memory that
creating the session adds, divided by the size of the weights as float32; times are of the processor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is a package of the checkout

from benchmarks.networks import chain
from onnx_analog.graph import files
from onnx_analog.graph.decoder import function_of
from onnx_analog.graph.layout import DOMAIN, IR_VERSION, Layout, inputs_of, stages

SIDE = 1024  # of the matrices that a model is made of
WIDTHS = {1: 0, 2: 1, 4: 2, 16: 4, 256: 8}
LEAST = 1024  # weights of a tensor that is stored in cells

_SESSION = """
import json, sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
print("ready", flush=True)
sys.stdin.readline()
start = time.process_time()
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
created = time.process_time() - start
given = session.get_inputs()[0]
feed = {given.name: np.ones([side if isinstance(side, int) else 1 for side in given.shape], np.float32)}
runs = []
for _ in range(15):
    start = time.process_time()
    session.run(None, feed)
    runs.append(time.process_time() - start)
print(json.dumps({"create_ms": 1e3 * created, "run_ms": 1e3 * min(runs)}), flush=True)
"""


class Cost(NamedTuple):
    """Memory and time of one session."""

    peak_mib: float
    create_ms: float
    run_ms: float


def cost(path: Path) -> Cost:
    """Create a session of the model at `path` in a process of its own, and watch its memory every millisecond."""
    command = [sys.executable, "-c", _SESSION, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before, peak = _anonymous_mib(process.pid), 0.0
        lines: list[str] = []
        waiting = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
        waiting.start()
        process.stdin.write("\n")
        process.stdin.flush()
        while waiting.is_alive():
            peak = max(peak, _anonymous_mib(process.pid))
            time.sleep(0.001)
        (line,) = lines
        return Cost(peak_mib=peak - before, **json.loads(line))


def _anonymous_mib(process: int) -> float:
    """Return the anonymous memory of a process now; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except ProcessLookupError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon"))


# ----------------------------------------------------------------------------------------------------- models


def protect(model: ir.Model, layout: Layout, *, classes: int, sparsity: float) -> int:
    """Put random planes and calls in the place of the large weights of `model`; return how many weights they are."""
    values = [v for v in model.graph.initializers.values() if v.shape is not None and _size(v) >= LEAST]
    sizes = [_size(value) for value in values]
    for value, (stage, split) in zip(values, stages(sizes), strict=True):
        _replace(model, value, replace(layout, stage=stage, split=split), classes, sparsity)
    model.ir_version = max(IR_VERSION, model.ir_version or 0)
    model.graph.opset_imports[DOMAIN] = 1
    return sum(sizes)


def _size(value: ir.Value) -> int:
    assert value.shape is not None
    return int(np.prod(value.shape.numpy()))


def _replace(model: ir.Model, weight: ir.Value, layout: Layout, classes: int, sparsity: float) -> None:
    assert weight.shape is not None
    layout = replace(layout, aligned=round(_size(weight) * (1 - sparsity)) % 8 == 0)
    planes = random_planes(weight.shape.numpy(), layout, classes=classes, sparsity=sparsity)
    inputs = []
    for name, array in planes.items():
        value = ir.Value(name=f"{weight.name}.{name}", const_value=ir.Tensor(array))
        model.graph.register_initializer(value)
        inputs.append(value)
    attributes: dict[str, int | str] = {"dtype": int(ir.DataType.FLOAT), "key": str(weight.name), "scheme": 0}
    call = ir.node(layout.name, inputs, attributes, domain=DOMAIN)
    model.graph.insert_before(model.graph[0], call)
    weight.replace_all_uses_with(call.outputs[0])
    del model.graph.initializers[str(weight.name)]
    call.outputs[0].name = weight.name
    function = function_of(layout, model.graph.opset_imports[""])
    model.functions[function.identifier()] = function


def random_planes(shape: Sequence[int], layout: Layout, *, classes: int, sparsity: float) -> dict[str, np.ndarray]:
    """Return planes for a weight of `shape`, the output channel being its last axis if a matrix, else its first."""
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    mask = np.zeros(size, np.uint8)
    mask[rng.permutation(size)[: round(size * (1 - sparsity))]] = 1
    count = int(mask.sum()) if layout.masked else size
    analog = np.ones(classes, np.uint8)
    analog[-1] = layout.analog == "all"  # else the last class is a point: 0 where the mask is 0
    code = np.where(mask == 1, rng.integers(0, max(classes - 1, 1), size), classes - 1)
    groups, stride = (shape[-1], 1) if len(shape) == 2 else (shape[0], size // shape[0])
    rows = (groups,) if layout.grouped else ()
    every: dict[str, Callable[[], np.ndarray]] = {
        "level": lambda: rng.random(int(mask.sum()) if layout.analog == "some" else count, dtype=np.float32),
        "mask": lambda: np.packbits(mask, bitorder="little"),
        "sign": lambda: _padded(rng, count, 1),
        "class": lambda: _packed(code, layout.width) if layout.analog == "some" else _padded(rng, count, layout.width),
        "analog": lambda: analog,
        "alpha": lambda: rng.uniform(5, 9, (*rows, classes)).astype(np.float32),
        "beta": lambda: rng.uniform(0, 1, (*rows, classes)).astype(np.float32),
        "stride": lambda: np.array([stride]),
        "shape": lambda: np.array(shape, np.int64),
    }
    return {name: every[name]() for name in inputs_of(layout)}


def _padded(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, -(-count * width // 8), np.uint8)


def _packed(numbers: np.ndarray, width: int) -> np.ndarray:
    bits = (numbers[:, None] >> np.arange(width) & 1).astype(np.uint8)
    return np.packbits(bits, bitorder="little")


# ------------------------------------------------------------------------------------------------------ table


def rows(make: Callable[[], ir.Model], folder: Path) -> Iterator[tuple[str, float, Cost]]:
    """Yield name, weights in MiB and cost: of the plain model, and of it with each number of classes."""
    path = folder / "model.onnx"
    plain = make()
    mib = sum(s for v in plain.graph.initializers.values() if (s := _size(v)) >= LEAST) * 4 / 2**20
    files.write_model(plain, path)
    yield "plain", mib, cost(path)
    for sparsity in (0.0, 0.8):
        for classes, width in WIDTHS.items():
            for grouped in (False, True):
                model = make()
                layout = Layout(masked=sparsity > 0, sign=True, width=width, grouped=grouped)
                protect(model, layout, classes=classes, sparsity=sparsity)
                files.write_model(model, path)
                name = f"{'pruned 80 %' if sparsity else 'dense'}, K = {classes}{', channel' * grouped}"
                yield name, mib, cost(path)


def zeros(folder: Path) -> Iterator[tuple[float, str, float, Cost]]:
    """Yield share of zeros, how they are stored, MiB of the file and cost: 11.5 M weights with signs."""
    path = folder / "model.onnx"
    for share in (0.0, 0.001, 0.01, 0.03, 0.1, 0.2, 0.5):
        layouts = {
            "mask": Layout(masked=True, sign=True),
            "a class without cells": Layout(sign=True, width=1, analog="some"),
        }
        for name, layout in layouts.items():
            model = chain(SIDE, 11)
            protect(model, layout, classes=1 if layout.masked else 2, sparsity=share)
            files.write_model(model, path)
            yield share, name, path.stat().st_size / 2**20, cost(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, nargs="*", default=[11.5, 50], help="millions, in square matrices")
    parser.add_argument("--single", type=float, nargs="*", default=[11.5], help="millions, in one matrix")
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="ONNX files of float32 weights")
    parser.add_argument("--zeros", action="store_true", help="compare the two ways to store zeros, and nothing else")
    options = parser.parse_args()
    if options.zeros:
        print("| zeros | stored as | file, MiB | peak / weights | create, ms |\n|---|---|---|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            for share, name, mib, taken in zeros(Path(folder)):
                print(f"| {share:.1%} | {name} | {mib:.1f} | {taken.peak_mib / 44:.2f} | {taken.create_ms:.0f} |")
        return
    models: dict[str, Callable[[], ir.Model]] = {}
    for millions in options.weights:
        layers = round(millions * 1e6 / SIDE**2)
        models[f"{millions:g} M weights"] = lambda layers=layers: chain(SIDE, layers)
    for millions in options.single:
        side = round((millions * 1e6) ** 0.5 / 8) * 8
        models[f"{millions:g} M weights in one matrix"] = lambda side=side: chain(side, 1)
    for model in options.model:
        models[model.stem] = lambda model=model: files.load(model)
    print("| model | planes | peak / weights | create, ms | run, ms |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for title, make in models.items():
            for name, mib, taken in rows(make, Path(folder)):
                print(f"| {title} | {name} | {taken.peak_mib / mib:.2f} | {taken.create_ms:.0f} | {taken.run_ms:.2f} |")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
