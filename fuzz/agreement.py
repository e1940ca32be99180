"""Agreement with onnxruntime on the file as it is, and with numpy: each check yields findings.

How far outputs may be apart is not guessed. The weights that a protected model decodes to are read by `fuzz.account`;
each may be off by the encoding's bound, u·(4·|w| + 5·S/α), and no more. The original with these weights in their
places must then give what the protected model gives: to 1e-5 of the largest output, where fusions may round in another
order, or else to the bit with onnxruntime's optimisations off, when both run the same kernels on the same numbers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from fuzz import account
from fuzz.oracles import Finding
from fuzz.seeds import drawn

Array = np.ndarray[Any, Any]
CLOSE = 1e-5  # of the largest output: some hundred roundings of float32
_MOST = 10**6  # elements of an input that are drawn


def session(model: Path | bytes, *, optimised: bool = True) -> ort.InferenceSession:
    """Return an onnxruntime session of one thread that says nothing."""
    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
    )


@dataclass
class Reference:
    """What onnxruntime makes of the original file: its outputs on random inputs, or why there are none."""

    feeds: dict[str, Array] | None = None
    outputs: list[Any] | None = None
    refused: str | None = None  # no session
    failed: str | None = None  # a session, and no outputs

    @staticmethod
    def of(path: Path) -> Reference:
        """Load and run a model."""
        try:
            running = session(path)
        except Exception as error:
            return Reference(refused=str(error)[:300])
        try:
            feeds = feeds_for(running)
            return Reference(feeds, running.run(None, feeds))
        except Exception as error:
            return Reference(failed=str(error)[:300])


def feeds_for(
    running: ort.InferenceSession, seed: int = 1, side: int = 2, scalar: int | None = None
) -> dict[str, Array]:
    """Return random inputs, `side` where a side is open and `scalar` for single integers.

    Raises ValueError where an input is no tensor, or is very large.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in running.get_inputs():
        shape = [length if isinstance(length, int) and length >= 0 else side for length in value.shape]
        if not value.type.startswith("tensor(") or np.prod(shape, dtype=float) > _MOST:
            raise ValueError(f"input {value.name} of type {value.type} and shape {shape}")
        feeds[value.name] = drawn(_TYPES[value.type[7:-1]], shape, rng)
        if scalar is not None and feeds[value.name].size == 1 and feeds[value.name].dtype.kind == "i":
            feeds[value.name][...] = scalar
    return feeds


_TYPES = {
    "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "string": 8, "bool": 9,
    "float16": 10, "double": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}  # fmt: skip


def difference(actual: Any, expected: Any, close: float = CLOSE) -> str | None:
    """Return how outputs differ, or None: types, shapes, NaN and infinity alike, and numbers within `close`."""
    if isinstance(expected, list | dict):
        if type(actual) is not type(expected) or len(actual) != len(expected):
            return f"{type(actual).__name__} in place of {type(expected).__name__}"
        keys: Any = range(len(expected)) if isinstance(expected, list) else expected
        if not isinstance(expected, list) and set(actual) != set(expected):
            return "other keys"
        return next((text for key in keys if (text := difference(actual[key], expected[key], close))), None)
    if expected is None or actual is None:
        return None if actual is expected else "one is missing"
    actual, expected = np.asarray(actual), np.asarray(expected)
    if (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
        return f"{actual.dtype}{actual.shape} in place of {expected.dtype}{expected.shape}"
    if expected.dtype.kind not in "fV" or actual.tobytes() == expected.tobytes():
        same = np.array_equal(actual, expected) or actual.tobytes() == expected.tobytes()
        return None if same else f"other {expected.dtype}"
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return "NaN or infinity elsewhere"
    apart = np.abs(a[finite] - b[finite]).max(initial=0)
    unit = {2: 2.0**-8}.get(expected.dtype.itemsize, 0.0)  # half precision rounds each output
    bound = max(close, unit) * np.abs(b[finite]).max(initial=0)
    return None if apart <= bound else f"apart by {apart:.3g}, of {np.abs(b[finite]).max():.3g} at most"


# --------------------------------------------------------------------------------------------------- protect


def loaded(path: Path) -> onnx.ModelProto:
    """Return a model with the data of its external tensors in it."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        constants = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
        for tensor in [*(graph.initializer if isinstance(graph, onnx.GraphProto) else ()), *constants]:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _fill(tensor, path.parent)
        waiting += [
            body
            for node in graph.node
            for attribute in node.attribute
            for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        ]
    return model


def _fill(tensor: onnx.TensorProto, folder: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    data = (folder / entries["location"]).read_bytes()
    start = int(entries.get("offset", 0))
    tensor.raw_data = data[start : start + int(entries.get("length", _bytes_of(tensor)))]
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _bytes_of(tensor: onnx.TensorProto) -> int:
    """Return how many bytes the data of a tensor take: what onnxruntime reads where no length is given."""
    half = tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1)
    width = 4 if half else 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return (int(math.prod(tensor.dims)) * width + 7) // 8


def protected(
    original: Path, protected_file: Path, reference: Reference, *, largest: float = 0.75
) -> Iterator[Finding]:
    """The protected file loads, its weights are within the bound, and it computes what the original does with them."""
    if reference.refused is not None:
        return
    try:
        session(protected_file)
    except Exception as error:
        yield Finding("protected file does not load", "protect", str(error)[:200])
        return
    plain, tensors = loaded(original), account.stored(loaded(protected_file), largest=largest)
    locations = account.tensors(plain)
    if unknown := [key for key in tensors if key not in locations]:
        yield Finding("unknown key", "protect", unknown[0][:100])
        return
    originals = {key: account.value_of(locations[key]) for key in tensors}
    differ = (finding for key, tensor in tensors.items() for finding in _weights_differ(key, tensor, originals[key]))
    finding = next(differ, None) or next(_points_differ(tensors, originals), None)
    if finding is not None:
        yield finding
        return
    if reference.outputs is None or reference.feeds is None:
        return
    for key, tensor in tensors.items():
        account.put(locations[key], tensor.weights)
    text = outputs_differ(protected_file, plain.SerializeToString(), reference.feeds)
    if text:
        yield Finding("outputs", "protect", text)


def _weights_differ(key: str, tensor: account.StoredTensor, original: Array) -> Iterator[Finding]:
    """Weights that have cells, and those that are not stored, are within the bound of the encoding."""
    if tensor.weights.shape != original.shape or tensor.weights.dtype != original.dtype:
        yield Finding("weights", "protect", f"{key[:60]}: another shape or type")
        return
    exact = (tensor.per_level > 0) | (tensor.class_index < 0)
    with np.errstate(all="ignore"):
        apart = np.abs(tensor.weights.astype(np.float64) - original.astype(np.float64))
    if not (apart <= tensor.bound)[exact].all():
        yield Finding("weights", "protect", f"{key[:60]}: off by {apart[exact].max(initial=0):.3g}")
        return
    near: Array = np.abs(original.astype(np.float64))
    far = exact & np.greater(apart, near / 1000)
    if 2 * int(far.sum()) > max(1, int(np.count_nonzero(near))):
        yield Finding("weights lost", "protect", f"{key[:60]}: most are off by more than 0.1 %")


def _points_differ(tensors: Mapping[str, account.StoredTensor], originals: Mapping[str, Array]) -> Iterator[Finding]:
    """Weights without cells are read as a number within their class; with equal steps, half a step away at most."""
    classes: dict[tuple[Any, int], list[list[Array]]] = {}
    for key, tensor in tensors.items():
        shared = tensor.number if tensor.scheme["granularity"] == "model" else key
        signed = tensor.scheme["sign"] == "level"
        for number, count in enumerate(account.cells_of_class(tensor.scheme)):
            of_class = tensor.class_index == number
            if count or not of_class.any():
                continue
            numbers = [array[of_class].astype(np.float64) for array in (originals[key], tensor.weights)]
            sizes = numbers if signed else [np.abs(array) for array in numbers]
            classes.setdefault((shared, number), []).append([*sizes, tensor.bound[of_class]])
    for (shared, number), arrays in classes.items():
        original, point, slack = (np.concatenate(parts) for parts in zip(*arrays, strict=True))
        tensor = tensors[shared] if isinstance(shared, str) else next(t for t in tensors.values() if t.number == shared)
        if tensor.scheme["partition"] == "uniform":
            near = np.abs(original - point) <= _half_a_step(tensor) + slack
        else:
            slack = slack + 1e-6 * np.abs(original).max()
            near = (point >= original.min() - slack) & (point <= original.max() + slack)
        if not near.all():
            yield Finding("points", "protect", f"{str(shared)[:60]}, class {number}")


def _half_a_step(tensor: account.StoredTensor) -> float:
    """Return half of the step between points, and 1 %; infinite where it does not follow from the tensor alone."""
    classes = tensor.scheme["classes"]
    points = classes - 1 - classes // 2 if tensor.scheme["sign"] == "level" else classes - 1
    given = any(tensor.scheme.get(name) for name in ("step", "relative_step", "rate_weight"))
    if given or tensor.scheme["estimator"] == "unbiased" or tensor.scheme["granularity"] != "tensor" or not points:
        return np.inf
    largest = float(np.abs(tensor.weights.astype(np.float64)).max(initial=0))
    return 0.505 * largest / float(points)


def outputs_differ(actual: Path | bytes, expected: Path | bytes, feeds: Mapping[str, Array]) -> str | None:
    """Return how the outputs of two models differ, beyond the order in which fusions round."""
    text = difference(_outputs(session(actual), feeds), _outputs(session(expected), feeds))
    if text is None:
        return None
    plain = (_outputs(session(model, optimised=False), feeds) for model in (actual, expected))
    return difference(next(plain), next(plain), close=0) and text


def _outputs(running: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Any]:
    outputs: list[Any] = running.run(None, _taken(running, feeds))
    return outputs


def _taken(running: ort.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return those inputs that a model takes: a default that was stored is an input no longer."""
    return {value.name: feeds[value.name] for value in running.get_inputs()}


def same_outputs(path: Path, reference: Reference, command: str) -> Iterator[Finding]:
    """A model computes to the bit what the original does."""
    if reference.outputs is None or reference.feeds is None:
        return
    try:
        outputs = session(path).run(None, _taken(session(path), reference.feeds))
    except Exception as error:
        yield Finding("output does not run", command, str(error)[:200])
        return
    text = difference(outputs, reference.outputs, close=0)
    if text:
        yield Finding("outputs", command, text)


def read_back(protected_file: Path, read: Path, sigma: float) -> Iterator[Finding]:
    """The weights that were read with little noise are near those that the protected model decodes to."""
    try:
        session(read)
    except Exception as error:
        yield Finding("read model does not load", "readback", str(error)[:200])
        return
    locations = account.tensors(loaded(read))
    for key, tensor in account.stored(loaded(protected_file)).items():
        if key not in locations:
            yield Finding("unknown key", "readback", key[:100])
            return
        weights = account.value_of(locations[key]).astype(np.float64)
        noise = tensor.per_level * 8 * sigma  # 8 σ, for all weights of a small model
        if not (np.abs(weights - tensor.weights.astype(np.float64)) <= tensor.bound + noise).all():
            yield Finding("weights", "readback", key[:60])


def same_weights(path: Path, unmutated: Mapping[str, account.StoredTensor], command: str) -> Iterator[Finding]:
    """A protected model that is accepted decodes to the weights it was given, to the bit.

    Without its manifest there is nothing to compare planes with, and a warning says so.
    """
    try:
        model = loaded(path)
        if not any(entry.key == "onnx_analog.manifest" for entry in model.metadata_props):
            return
        tensors = account.stored(model)
    except Exception as error:
        yield Finding("damaged planes accepted", command, f"{type(error).__name__}: {error}"[:200])
        return
    if set(tensors) != set(unmutated):
        yield Finding("other tensors accepted", command, f"{sorted(tensors)} for {sorted(unmutated)}"[:200])
        return
    for key, expected in unmutated.items():
        if tensors[key].weights.tobytes() != expected.weights.tobytes() or tensors[key].counts != expected.counts:
            yield Finding("other weights accepted", command, key[:60])


# ------------------------------------------------------------------------------------------------ the numbers


def totals(path: Path, body: Mapping[str, Any], command: str = "protect") -> Iterator[Finding]:
    """The totals of a manifest are those of an independent account."""
    expected = account.cells(account.stored(loaded(path)))
    if {"side_cells", "mask_cells"} <= expected.keys():
        expected["all_in_cells"] = sum(number for name, number in expected.items() if name.endswith("_cells"))
    for name, number in expected.items():
        if body["totals"].get(name) != number:
            yield Finding("totals", command, f"{name} is {body['totals'].get(name)}, not {number}")


def feeds_of(npz: bytes, running: ort.InferenceSession) -> tuple[list[dict[str, Array]], Array | None] | None:
    """Return the calls that an npz file asks for, and its labels; None where this reader cannot tell."""
    arrays = dict(np.load(io.BytesIO(npz), allow_pickle=False))
    inputs = running.get_inputs()
    by_name = {value.name: arrays.get(value.name, arrays.get("x") if len(inputs) == 1 else None) for value in inputs}
    labels = None if "y" in {value.name for value in inputs} else arrays.get("y")
    if any(array is None or array.dtype.kind not in "biuf" for array in by_name.values()):
        return None
    cast: dict[str, Array] = {}
    for value in inputs:
        array: Any = by_name[value.name]
        kind = _TYPES.get(value.type.removeprefix("tensor(").removesuffix(")"))
        if kind is None or (array.dtype == np.uint8 and "float" in value.type):
            return None
        with np.errstate(all="ignore"):
            cast[value.name] = array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    ranks = {array.ndim - len(value.shape) for value, array in zip(inputs, cast.values(), strict=True)}
    if ranks == {0}:
        return [cast], labels
    count = {len(array) for array in cast.values()}
    if ranks != {1} or len(count) != 1:
        return None
    return [{name: array[sample, ...] for name, array in cast.items()} for sample in range(count.pop())], labels


def evaluated(model: Path, npz: Path, body: Mapping[str, Any]) -> Iterator[Finding]:
    """Top-1 without noise is what a few lines of onnxruntime and numpy give."""
    try:
        running = session(model)
    except Exception as error:
        yield Finding("accepts what onnxruntime refuses", "evaluate", str(error)[:200])
        return
    try:
        samples = feeds_of(npz.read_bytes(), running)
        if samples is None or body["metric"] != "top1":
            return
        calls, labels = samples
        each = [_measured(running, feeds, body)[0] for feeds in calls]
        first = each[0] if len(each) == 1 else np.stack(each)  # where each sample is a call, in front of its outputs
    except Exception:
        return
    scores = first.reshape(len(first), -1)
    if labels is None or len(labels) != len(scores):
        yield Finding("labels", "evaluate", f"{None if labels is None else len(labels)} for {len(scores)} samples")
        return
    expected = float(np.mean((scores.argmax(1) == labels) & ~np.isnan(scores.astype(np.float64)).any(1)))
    value = body["original"] if body["stored"] is None else body["stored"]
    if abs(value - expected) > 1e-12 or body["samples"] != len(scores):
        yield Finding("top-1", "evaluate", f"{value}, not {expected}")


def _measured(running: ort.InferenceSession, feeds: Mapping[str, Array], body: Mapping[str, Any]) -> list[Any]:
    """Return the output that an evaluation says it measured; all where it names none."""
    names = [body["output"]] if body.get("output") else None
    outputs: list[Any] = running.run(names, feeds)
    return outputs


def noisy(clean: Path, read: Path, npz: Path, body: Mapping[str, Any]) -> Iterator[Finding]:
    """The SQNR of trial 0 is that of the model that `readback --decoded` writes of it."""
    reported = (body.get("sqnr_db") or [None])[0]
    try:
        outputs = []
        for path in (clean, read):
            running = session(path)
            samples = feeds_of(npz.read_bytes(), running)
            if samples is None:
                return
            outputs.append([_measured(running, feeds, body) for feeds in samples[0]])
        pairs = [
            (np.asarray(a, np.float64), np.asarray(b, np.float64))
            for quiet_outputs, read_outputs in zip(*outputs, strict=True)
            for a, b in zip(quiet_outputs, read_outputs, strict=True)
            if isinstance(a, np.ndarray) and a.dtype.kind == "f"
        ]
        whole = all(isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in outputs[0][0])
    except Exception:
        return
    signal, noise = (
        sum(float(np.square(x).sum()) for x in parts) for parts in ([a for a, _ in pairs], [a - b for a, b in pairs])
    )
    if not whole or reported is None or not np.isfinite([signal, noise]).all() or min(signal, noise) <= 0:
        return
    expected = 10 * np.log10(signal / noise)
    if expected < 70 and abs(reported - expected) > 0.05:
        yield Finding("SQNR", "evaluate", f"{reported:.3f} dB, not {expected:.3f}")
