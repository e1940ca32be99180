"""What is left of a network: onnxruntime over a data set, once clean and once for each trial.

The model becomes a skeleton whose weights are handed over when a session is made, through external initializers:
onnxruntime then replaces them before any optimisation, so every fusion sees the weights of that trial.
(`SessionOptions.add_initializer` looks the same and is silently ignored where weights were repacked, as in Conv.)
Levels are read and decoded outside the graph, into buffers that are used again from trial to trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import scipy.stats
from numpy.typing import NDArray

from onnx_analog import metrics
from onnx_analog.data import Dataset, Input
from onnx_analog.decoding import DOMAIN
from onnx_analog.encoding import Bits, Bytes, of_each
from onnx_analog.errors import DataError, ModelError, OptionError
from onnx_analog.files import root_cause
from onnx_analog.stored import Protection, Reader, StoredTensor, is_protected, read_header, stored_tensors

Array = NDArray[Any]
Progress = Callable[[], None]

BATCH = 64  # samples; a call costs little, and a new session soon has the memory for its activations
_HANDED_OVER = 1024  # bytes; smaller initializers stay in the skeleton
_NUMPY = {"float": "float32", "double": "float64"}  # where ONNX says it otherwise
_PLACE = "place"  # of an input among those of its function
_RUNTIME = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


# --------------------------------------------------------------------------------------------------- network


class Network:
    """A model in onnxruntime, protected or not, whose weights can be exchanged.

    Parameters
    ----------
    model : ir.Model
        It is not changed.
    providers : sequence of str
        Execution providers of onnxruntime, in order of preference.
    threads : int
        Threads within an operator; 0 leaves it to onnxruntime.

    Raises
    ------
    ModelError
        If onnxruntime cannot run the model.
    OptionError
        If there is no such provider.
    """

    def __init__(
        self, model: ir.Model, *, providers: Sequence[str] = ("CPUExecutionProvider",), threads: int = 0
    ) -> None:
        missing = [name for name in providers if name not in ort.get_available_providers()]
        if missing:
            raise OptionError(f"no provider {missing[0]!r} here: there are {', '.join(ort.get_available_providers())}")
        self._providers, self._threads = list(providers), threads
        skeleton = model.clone()
        self.tensors = _open(skeleton) if is_protected(skeleton) else {}
        self._constants = _hand_over(skeleton, set(self.tensors))
        self._skeleton = ir.to_proto(skeleton).SerializeToString()
        self._clean = self.session({name: tensor.decode() for name, tensor in self.tensors.items()})

    @property
    def inputs(self) -> list[Input]:
        """What the model takes."""
        return [Input(node.name, _numpy_type(node.type), tuple(node.shape)) for node in self._clean.get_inputs()]

    def session(self, weights: Mapping[str, Array]) -> ort.InferenceSession:
        """Return a session with these weights; they must not change while it lives."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        values = {name: _ort_value(array) for name, array in {**self._constants, **weights}.items()}
        options.add_external_initializers(list(values), list(values.values()))
        try:
            session = ort.InferenceSession(self._skeleton, options, providers=self._providers)
        except Exception as error:  # onnxruntime has a dozen types, none of which is exported
            raise ModelError(f"onnxruntime cannot run the model: {root_cause(error)}") from error
        session._weights = values  # onnxruntime reads them where they lie
        return session

    def run(self, data: Dataset, weights: Mapping[str, Array] | None = None, *, batch: int = BATCH) -> list[Array]:
        """Return the outputs for all samples of `data`: with `weights`, or without noise."""
        session = self._clean if weights is None else self.session(weights)
        fixed = {wanted.shape[0] for wanted in self.inputs if wanted.shape and isinstance(wanted.shape[0], int)}
        size = int(min(fixed)) if fixed else batch
        parts: list[list[Array]] = []
        for inputs, count in data.batches(size, fixed=bool(fixed)):
            try:
                parts.append([output[:count] for output in session.run(None, inputs)])
            except Exception as error:  # as above
                raise DataError(f"onnxruntime failed on the data: {root_cause(error)}") from error
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _open(model: ir.Model) -> dict[str, StoredTensor]:
    """Put a main-graph initializer in the place of every decode call; return the tensors by its name.

    A function owns no initializers, so it takes its weights as inputs, and whoever calls it hands them on. It is not
    inlined, for it may have an opset of its own.
    """
    stored = {tensor.key: tensor for tensor in stored_tensors(model)}  # one, if a tool inlined what is called twice
    opened = {key: _opened(model, tensor) for key, tensor in stored.items()}
    for identifier in [identifier for identifier in model.functions if identifier[0] == DOMAIN]:
        del model.functions[identifier]
    inputs = {
        identifier: {key: _input(model.functions[identifier], opened[key]) for key in keys}
        for identifier, keys in _keys_of_functions(model).items()
    }
    owners: list[tuple[ir.Graph | ir.Function, Mapping[str, ir.Value]]] = [(model.graph, opened)]
    owners += [(function, inputs[name]) for name, function in model.functions.items()]
    for owner, values in owners:
        for node in list(owner.all_nodes()):
            if node.domain == DOMAIN:
                _stand_in(node, values[node.attributes["key"].as_string()])
            elif node.op_identifier() in inputs:
                _hand_on(node, inputs[node.op_identifier()], values)
    for value in [value for value in model.graph.initializers.values() if not tuple(value.uses())]:
        if not (value.is_graph_output() or value.is_graph_input() or value in opened.values()):
            del model.graph.initializers[str(value.name)]
    return {str(opened[key].name): tensor for key, tensor in stored.items()}


def _opened(model: ir.Model, tensor: StoredTensor) -> ir.Value:
    name = f"{DOMAIN}:{tensor.key}"
    value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype))
    value.const_value = _absent(name, tensor.dtype, tensor.shape)
    model.graph.register_initializer(value)
    return value


def _keys_of_functions(model: ir.Model) -> dict[ir.OperatorIdentifier, list[str]]:
    """Return the storage keys of what each function stores, itself or in functions that it calls."""
    keys: dict[ir.OperatorIdentifier, set[str]] = {identifier: set() for identifier in model.functions}
    known = -1
    while sum(map(len, keys.values())) > known:  # ONNX has no recursion, so this ends
        known = sum(map(len, keys.values()))
        for identifier, function in model.functions.items():
            for node in function.all_nodes():
                own = {node.attributes["key"].as_string()} if node.domain == DOMAIN else set()
                keys[identifier] |= own | keys.get(node.op_identifier(), set())
    return {identifier: sorted(found) for identifier, found in keys.items()}


def _input(function: ir.Function, weight: ir.Value) -> ir.Value:
    value = ir.Value(name=weight.name, shape=weight.shape, type=weight.type)
    value.meta[_PLACE] = len(function.inputs)  # a call may leave the last of the others out
    function.inputs.append(value)
    return value


def _hand_on(call: ir.Node, inputs: Mapping[str, ir.Value], values: Mapping[str, ir.Value]) -> None:
    """Give a function the weights that it takes as inputs."""
    for key, wanted in inputs.items():
        place = wanted.meta[_PLACE]
        call.resize_inputs(place + 1)
        call.replace_input_with(place, values[key])


def _stand_in(decode: ir.Node, value: ir.Value) -> None:
    """Put `value` in the place of the call that decodes it."""
    output, graph = decode.outputs[0], decode.graph
    assert graph is not None
    name = output.name
    if output.is_graph_output() and value.graph is not graph:  # a body can return only what it computes
        copy = ir.node("Identity", [value])
        graph.insert_before(decode, copy)
        value = copy.outputs[0]
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(decode, safe=True)
    if value.producer() is not None:
        value.name = name


def _absent(name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.ExternalTensor:
    """Return a tensor that says its data lie in a file; there is none, for they are handed over."""
    length = math.ceil(math.prod(shape) * dtype.bitwidth / 8)
    return ir.ExternalTensor("onnx_analog", 0, length, dtype, shape=ir.Shape(shape), name=name)


def _hand_over(model: ir.Model, stored: set[str]) -> dict[str, Array]:
    """Take the large constants out of `model` and return them: no copy of them in the file, and no limit of 2 GiB."""
    taken: dict[str, Array] = {}
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or name in stored:
                continue
            main = graph is model.graph and not value.is_graph_input()
            if main and tensor.dtype in _RUNTIME and tensor.nbytes >= _HANDED_OVER:
                taken[name] = tensor.numpy()
                value.const_value = _absent(name, tensor.dtype, taken[name].shape)
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    return taken


def _ort_value(array: Array) -> ort.OrtValue:
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, int(ir.DataType.BFLOAT16))
    return ort.OrtValue.ortvalue_from_numpy(array)


def _numpy_type(kind: str) -> np.dtype[Any]:
    """Return the numpy type of what onnxruntime calls "tensor(float)"."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(_NUMPY.get(name, name))
    except TypeError:
        raise ModelError(f"the model has an input of type {kind}, which cannot be fed from an npz file") from None


# ---------------------------------------------------------------------------------------------------- trials


class Decoder:
    """Weights of one tensor as trials read them: the same bits as `ReadbackPass` and the graph give.

    What does not depend on the trial (σ/√r, β, signed α, positions) and the dense buffer are kept, so a trial costs
    one draw, four passes over the stored weights, and one scatter. The array that is returned is used again by the
    next call.
    """

    def __init__(self, tensor: StoredTensor, protection: Protection) -> None:
        self._reader = Reader(tensor, protection)
        self._tensor, self._protection = tensor, protection
        self._set_header(tensor.sign, tensor.class_index)
        self._dense = np.zeros(tensor.size, np.float32)
        self._places = None if tensor.mask is None else np.flatnonzero(tensor.mask)
        self._level = self._dense if self._places is None else np.empty(tensor.count, np.float32)
        self._shape, self._dtype = tensor.shape, tensor.dtype.numpy()

    def _set_header(self, sign: Bits | None, class_index: Bytes | None) -> None:
        self._beta = of_each(self._tensor.beta, class_index)
        alpha = of_each(self._tensor.alpha, class_index)
        self._alpha = alpha if sign is None else np.where(sign, -alpha, alpha)

    def weights(self, *, seed: int, trial: int) -> Array:
        """Return the weight of one trial, in its own shape and type."""
        if self._protection.header is not None:
            self._set_header(*read_header(self._tensor, self._protection, seed=seed, trial=trial))
        level = self._reader.read(seed=seed, trial=trial, out=self._level)
        level += self._beta
        level /= self._alpha
        level += 0  # -0 becomes +0, as in onnxruntime
        if self._places is not None:
            self._dense[self._places] = level
        dense: Array = self._dense.reshape(self._shape).astype(self._dtype, copy=False)
        return dense


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A metric without noise and in each trial.

    Attributes
    ----------
    metric : str
    samples : int
    clean : float or None
        The model without noise; None where the metric compares with it and so says nothing.
    values : tuple of float
        One for each trial.
    reference : float or None
        The original model, before pruning and protection.
    sqnr_db : tuple of float
        Signal-to-noise ratio of the outputs in each trial, in dB.
    seed : int
    """

    metric: str
    samples: int
    clean: float | None
    values: tuple[float, ...]
    reference: float | None = None
    sqnr_db: tuple[float, ...] = ()
    seed: int = 0

    @property
    def mean(self) -> float | None:
        """Mean over trials; None without trials."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over trials, ddof = 1; None for fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval of the mean, Student's t over trials; the error of a finite test set is not in it."""
        return interval(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation, ready for JSON; numbers that JSON does not have are null."""
        return {
            "metric": self.metric,
            "samples": self.samples,
            "clean": _finite(self.clean),
            "trials": len(self.values),
            "mean": _finite(self.mean),
            "std": _finite(self.std),
            "ci95": list(self.ci95) if self.ci95 is not None and all(map(math.isfinite, self.ci95)) else None,
            "values": [_finite(value) for value in self.values],
            "reference": _finite(self.reference),
            "sqnr_db": [_finite(value) for value in self.sqnr_db],
            "seed": self.seed,
        }

    def __str__(self) -> str:
        parts = [f"{self.metric} on {self.samples:,} samples:"]
        parts += [] if self.reference is None else [f"original {self.reference:.4f},"]
        parts += [] if self.clean is None else [f"without noise {self.clean:.4f}"]
        if self.mean is not None:
            parts.append(f"with noise {self.mean:.4f}")
        if self.ci95 is not None:
            parts.append(f"(95 % interval {self.ci95[0]:.4f} to {self.ci95[1]:.4f}, {len(self.values)} trials)")
        return " ".join(parts)


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float] | None:
    """Return Student's t interval of the mean of `values`; None for fewer than two.

    Examples
    --------
    >>> [round(end, 4) for end in interval([1.0, 2.0, 3.0])]  # 2 ± 4.3027 · 1/√3
    [-0.4841, 4.4841]
    """
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(scipy.stats.t.ppf((1 + share) / 2, len(values) - 1)) * error
    return float(np.mean(values)) - reach, float(np.mean(values)) + reach


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def evaluate(
    network: Network,
    data: Dataset,
    protection: Protection | None,
    *,
    trials: int,
    seed: int = 0,
    metric: tuple[str, metrics.Metric] | None = None,
    batch: int = BATCH,
    clean: list[Array] | None = None,
    progress: Progress = lambda: None,
) -> Evaluation:
    """Return `metric` of `network` on `data`: without noise, and in `trials` trials of its memory.

    Parameters
    ----------
    network : Network
    data : Dataset
    protection : Protection or None
        How the model was protected, and with which channel; None for a plain model, which has no trials.
    trials : int, >= 0
    seed : int, >= 0
    metric : (name, function), optional
        The default is the one that fits the data; see `onnx_analog.metrics`.
    batch : int, >= 1
        Samples a call, unless the model fixes it.
    clean : list of arrays, optional
        What `network.run(data)` returns without noise, where it is known already: it is one trial's work.
    progress : function
        Called after each trial.
    """
    if trials < 0 or seed < 0 or batch < 1:
        raise OptionError(f"trials {trials}, seed {seed} and batch {batch}: 0 or more, 0 or more, and 1 or more")
    clean = network.run(data, batch=batch) if clean is None else clean
    name, function = metric or metrics.default(clean, data.labels)
    decoders = {n: Decoder(t, protection) for n, t in network.tensors.items()} if protection and trials else {}
    values, ratios = [], []
    for trial in range(trials if protection else 0):
        weights = {n: decoder.weights(seed=seed, trial=trial) for n, decoder in decoders.items()}
        outputs = network.run(data, weights, batch=batch)
        values.append(float(function(outputs, labels=data.labels, clean=clean)))
        ratios.append(metrics.sqnr_db(outputs, clean=clean))
        progress()
    alone = None if function is metrics.sqnr_db else float(function(clean, labels=data.labels, clean=clean))
    return Evaluation(
        metric=name, samples=len(data), clean=alone, values=tuple(values), sqnr_db=tuple(ratios), seed=seed
    )
