"""Speed as ratios, each measured in one run against a bound or a peer: `make benchmark`.

Absolute times are those of the machine; ratios carry over. Each ratio is the median over pairs of measurements taken in
turn, so a machine that slows down slows both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnx_analog import api, demo, files
from onnx_analog.evaluation import Decoder
from onnx_analog.network import Network
from onnx_analog.stored import Protection, stored_tensors

PAIRS = 7
SIDE, LAYERS = 1024, 11  # a chain of 11 matrices: 11.5 million weights, as ResNet-18


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def ratio(action: Callable[[], object], bound: Callable[[], object], pairs: int = PAIRS) -> dict[str, float]:
    """Return the median of action over bound, and both medians in milliseconds."""
    action(), bound()  # warm up
    times = [(seconds(action), seconds(bound)) for _ in range(pairs)]
    ours, theirs = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    return {"ratio": statistics.median(a / b for a, b in times), "ms": ours, "bound_ms": theirs}


def chain() -> ir.Model:
    """Return a model of LAYERS square matrices with normal weights."""
    rng = np.random.default_rng(0)
    x = ir.Value(name="x", shape=ir.Shape(["n", SIDE]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, weights, last = [], [], x
    for layer in range(LAYERS):
        array = rng.standard_normal((SIDE, SIDE), dtype=np.float32) / np.float32(SIDE**0.5)
        weight = ir.Value(name=f"w{layer}", shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
        weight.const_value = ir.Tensor(array, name=weight.name)
        nodes.append(ir.node("MatMul", [last, weight]))
        weights.append(weight)
        last = nodes[-1].outputs[0]
    last.name = "y"
    graph = ir.Graph([x], [last], nodes=nodes, initializers=weights, opset_imports={"": 18}, name="chain")
    return ir.Model(graph, ir_version=8)


def trial_against_inference() -> dict[str, float]:
    """Return a trial on LeNet × 1,000 images against clean inference of the same images."""
    story = demo.begin()
    network = Network(story.protected.model)
    protection = Protection.of(story.protected.model)
    decoders = {name: Decoder(tensor, protection) for name, tensor in network.tensors.items()}

    def trial() -> None:
        network.run(story.data, {name: decoder.weights(seed=0, trial=0) for name, decoder in decoders.items()})

    return ratio(trial, lambda: network.run(story.data))


def sampling_against_normals(protected: ir.Model) -> dict[str, float]:
    """Return reading and decoding all weights against one standard_normal over the stored ones."""
    tensors, protection = stored_tensors(protected), Protection.of(protected)
    decoders = [Decoder(tensor, protection) for tensor in tensors]
    noise = [np.empty(tensor.count, np.float32) for tensor in tensors]
    rng = np.random.Generator(np.random.SFC64(0))
    return ratio(
        lambda: [decoder.weights(seed=0, trial=0) for decoder in decoders],
        lambda: [rng.standard_normal(dtype=np.float32, out=out) for out in noise],
    )


def protecting_against_partition(path: Path, folder: Path) -> dict[str, float]:
    """Return load + protect + save against load + save + five np.partition of the weights."""
    out = folder / "out.onnx"

    def bound() -> None:
        model = files.load(path)
        for value in model.graph.initializers.values():
            assert value.const_value is not None
            flat = np.abs(value.const_value.numpy().reshape(-1))
            for _ in range(5):
                np.partition(flat, flat.size // 2)
        files.write_all({out: lambda target: files.write_model(model, target)}, force=True)

    return ratio(lambda: api.protect(path).save(out, force=True), bound, pairs=3)


def inference_against_plain(protected: ir.Model, plain: ir.Model) -> dict[str, float]:
    """Return inference of the protected model, as a file gives it to onnxruntime, against the plain one."""
    import onnxruntime as ort

    x = np.random.default_rng(0).standard_normal((64, SIDE), dtype=np.float32)
    sessions = [
        ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
        for model in (protected, plain)
    ]
    ours, theirs = (lambda s=session: s.run(None, {"x": x}) for session in sessions)
    return ratio(ours, theirs, pairs=15)


SESSION = """
import re, sys
import onnxruntime as ort
if sys.argv[1:]:
    session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
"""


def memory_against_weights(path: Path) -> dict[str, float]:
    """Return the most memory that creating a session of a model takes, beyond onnxruntime's own, against its weights.

    In MiB; the weights are those of `chain`, as float32.
    """

    def peak(*arguments: str) -> float:
        command = [sys.executable, "-c", SESSION, *arguments]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    taken, weights = peak(str(path)) - peak(), LAYERS * SIDE**2 * 4 / 2**20
    return {"ratio": taken / weights, "mib": taken, "bound_mib": weights}


def help_against_numpy() -> dict[str, float]:
    """Return `onnx-analog --help` against `python -c 'import numpy'`."""

    def run(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    return ratio(run("-c", "from onnx_analog.cli import main; main(['--help'])"), run("-c", "import numpy"))


def main() -> None:
    plain = chain()
    dense = api.protect(plain).model
    pruned = api.protect(plain, sparsity=0.8).model
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, file in ((plain, "chain.onnx"), (dense, "dense.onnx"), (pruned, "pruned.onnx")):
            files.write_model(model, folder / file)
        rows = {
            "trial / clean inference, LeNet × 1,000 (goal 1.25)": trial_against_inference(),
            "sampling + decoding / standard_normal, 2.3 M stored of 11.5 M (goal 2)": sampling_against_normals(pruned),
            "sampling + decoding / standard_normal, 11.5 M of 11.5 M (goal 2)": sampling_against_normals(dense),
            "protect + save / load + save + 5 partitions, 46 MB (goal 1)": protecting_against_partition(
                folder / "chain.onnx", folder
            ),
            "protected inference / plain inference": inference_against_plain(dense, plain),
            "onnx-analog --help / import numpy": help_against_numpy(),
            "memory to create a session, plain / its weights": memory_against_weights(folder / "chain.onnx"),
            "memory to create a session, protected / its weights": memory_against_weights(folder / "dense.onnx"),
            "memory to create a session, 80 % pruned / its weights": memory_against_weights(folder / "pruned.onnx"),
        }
    for row, found in rows.items():
        ours, bound = (value for name, value in found.items() if name != "ratio")
        unit = "ms" if "ms" in found else "MiB"
        print(f"{found['ratio']:6.2f}  {row}: {ours:.1f} {unit} / {bound:.1f} {unit}", file=sys.stderr)
    print(json.dumps(rows, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
