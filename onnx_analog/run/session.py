"""A model in onnxruntime whose weights can be exchanged.

The model becomes a skeleton whose weights are handed over when a session is made, through external initializers:
onnxruntime then replaces them before any optimisation, so every fusion sees the weights of that trial.
(`SessionOptions.add_initializer` looks the same and is silently ignored where weights were repacked, as in Conv.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_analog.arguments import DEFAULTS
from onnx_analog.errors import DataError, ModelError, OptionError, one_line
from onnx_analog.graph.files import root_cause, to_proto
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.normalisation import Normalisation, remembered
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.stored import StoredTensor, is_protected
from onnx_analog.run.data import LARGEST, Dataset, Input
from onnx_analog.run.metrics import Field, Output

Array = NDArray[Any]
Batch = tuple[Mapping[str, Any], int]  # what a call is fed, and how many of its samples count

_HANDED_OVER = 1024  # bytes; smaller initializers stay in the skeleton
_NUMPY = {"float": "float32", "double": "float64"}  # where ONNX says it otherwise
# Inputs are copied there once. What is not here is fed from the CPU at every call.
_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "ROCMExecutionProvider": "cuda"}
_NOISE = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ",
        r"Load model from .*? failed: ?",
        r"/\S+\.(?:cc|h|cpp):\d+ [^\n]{0,300}?\) ?(?=[A-Z\[])",
        r"Exception during initialization: ",
    )
)
_POSITION = "place"  # of an input among those of its function
_RUNTIME = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class Network:
    """A model in onnxruntime, protected or not, whose weights can be exchanged.

    Parameters
    ----------
    model : ir.Model or ProtectedModel
        It is not changed. A protected model that is open is not scanned again.
    providers : sequence of str
        Execution providers of onnxruntime, in order of preference.
    threads : int
        Threads within an operator; 0 leaves it to onnxruntime.
    role : str, optional
        What errors of a run call the model, where there are two: "the reference".
    exchanged : sequence of str
        Further initializers of the main graph that each session is given, as it is given weights.

    Raises
    ------
    ModelError
        If onnxruntime cannot run the model.
    OptionError
        If there is no such provider.
    """

    def __init__(
        self,
        model: ir.Model | ProtectedModel,
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
        role: str | None = None,
        exchanged: Sequence[str] = (),
    ) -> None:
        check_providers(providers)
        self._role = role
        self._providers, self.threads = list(providers), threads
        self._device = _DEVICES.get(self._providers[0])
        self._copied: tuple[Dataset, int, list[Batch]] | None = None
        if isinstance(model, ir.Model) and is_protected(model):
            model = open_protected(model)
        skeleton = (model.model if isinstance(model, ProtectedModel) else model).clone()
        self._normalisation = remembered(skeleton)
        stored = _stand_ins(skeleton, model.tensors) if isinstance(model, ProtectedModel) else {}
        _drop_unused(skeleton)
        _widen_outputs(skeleton)
        self.tensors = {name: tensor for name, tensor in stored.items() if name in skeleton.graph.initializers}
        for name in exchanged:
            value = skeleton.graph.initializers[name]
            assert value.const_value is not None
            value.const_value = _absent(name, value.const_value.dtype, value.const_value.shape.numpy())
        self._exchanged = frozenset({*self.tensors, *exchanged})
        self._constants = _hand_over(skeleton, set(self._exchanged))
        self._skeleton = to_proto(skeleton).SerializeToString()

    @cached_property
    def _clean(self) -> ort.InferenceSession:
        return self.session({name: tensor.decode() for name, tensor in self.tensors.items()})

    @property
    def inputs(self) -> list[Input]:
        """What the model takes."""
        return _inputs(self._clean, self._normalisation)

    @property
    def outputs(self) -> list[Field]:
        """What the model returns."""
        return _fields(self._clean)

    def session(self, weights: Mapping[str, Array]) -> ort.InferenceSession:
        """Return a session with these weights; they must not change while it lives."""
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what it logs as an error it raises too
        options.intra_op_num_threads = self.threads
        values = {name: _ort_value(array) for name, array in {**self._constants, **weights}.items()}
        options.add_external_initializers(list(values), list(values.values()))
        try:
            # Without a fallback from the CPU to the CPU, which onnxruntime prints about on stdout.
            alone = {"enable_fallback": 0} if self._providers == ["CPUExecutionProvider"] else {}
            session = ort.InferenceSession(self._skeleton, options, providers=self._providers, **alone)
        except Exception as error:  # onnxruntime has a dozen types, none of which is exported
            raise ModelError(f"onnxruntime cannot run the model: {_reason(error)}") from error
        if session.get_providers()[0] != self._providers[0]:  # onnxruntime falls back without an error
            raise OptionError(
                f"provider {self._providers[0]!r} cannot start here, and {', '.join(session.get_providers())} can"
            )
        session._weights = values  # onnxruntime reads them where they lie
        return session

    def run(
        self,
        data: Dataset,
        weights: Mapping[str, Array] | None = None,
        *,
        batch: int = DEFAULTS.batch,
        indices: Sequence[int] | None = None,
    ) -> list[Output]:
        """Return the outputs for all samples of `data`: with `weights`, or without noise.

        Parts of the samples are joined: arrays along the axis of the samples, maps and texts one after the other. What
        cannot be joined, as an output whose shape changes from call to call, is a list of what each call returned.

        On another device than the CPU, inputs are copied there once and used again by the next call with the same data.

        Parameters
        ----------
        data : Dataset
        weights : mapping of name to array, optional
        batch : int, >= 1
            Samples a call, unless the model fixes it.
        indices : sequence of int, optional
            Numbers of the outputs that are wanted; the others are not fetched.

        Raises
        ------
        DataError
            If onnxruntime fails on the data.
        """
        with self._named():
            return self._outputs(self._clean if weights is None else self.session(weights), data, batch, indices)

    def call(self, data: Dataset, weights: Mapping[str, Array]) -> list[Array]:
        """Return all outputs for the samples of `data` in one call; weights that the model does not use are left out.

        Raises
        ------
        DataError
            If onnxruntime fails on the data.
        """
        session = self.session({name: array for name, array in weights.items() if name in self._exchanged})
        return self._call(session, [output.name for output in session.get_outputs()], data.inputs)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Put the role of the model before errors."""
        try:
            yield
        except (ModelError, DataError) as error:
            if self._role is None:
                raise
            raise type(error)(f"{self._role}: {error}") from error

    def _outputs(
        self, session: ort.InferenceSession, data: Dataset, batch: int, indices: Sequence[int] | None
    ) -> list[Output]:
        fixed = _fixed_batch(session)
        fields = _fields(session)
        fields = fields if indices is None else [fields[number] for number in indices]
        parts: list[list[Any]] = []
        counts: list[int] = []
        for inputs, count in self._batches(data, fixed, batch):
            parts.append(self._call(session, [field.name for field in fields], inputs))
            counts.append(count)
        if data.one_by_one:
            return [_stacked(list(outputs)) for outputs in zip(*parts, strict=True)]
        axes = [_sample_axis(field, _inputs(session)) for field in fields]
        joined = zip(zip(*parts, strict=True), fields, axes, strict=True)
        return [_joined(list(outputs), counts, fixed, axis, field.shape) for outputs, field, axis in joined]

    def _call(self, session: ort.InferenceSession, names: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        try:
            if self._device is None or not all(isinstance(value, ort.OrtValue) for value in inputs.values()):
                return list(session.run(names, inputs))
            return _run_bound(session, names, inputs)
        except Exception as error:  # as in `session`
            raise DataError(f"onnxruntime cannot compute the outputs from the data: {_reason(error)}") from error

    def _batches(self, data: Dataset, fixed: int | None, batch: int) -> Iterable[Batch]:
        size = fixed or batch
        row = sum(array[:1].nbytes for array in data.inputs.values())
        if fixed is not None and not data.one_by_one and fixed > len(data) and fixed * row > LARGEST:
            raise DataError(
                f"the model takes {fixed:,} samples in each call, and the data have {len(data):,}: to fill them up "
                f"takes {fixed * row:,} bytes, more than {LARGEST:,}. Export the model with a free batch size"
            )
        if self._device is None:
            return data.batches(size, fixed=fixed is not None)
        if self._copied is None or self._copied[0] is not data or self._copied[1] != size:
            copied: list[Batch] = [
                ({name: ort.OrtValue.ortvalue_from_numpy(array, self._device) for name, array in inputs.items()}, count)
                for inputs, count in data.batches(size, fixed=fixed is not None)
            ]
            self._copied = (data, size, copied)
        return self._copied[2]


def _fixed_batch(session: ort.InferenceSession) -> int | None:
    """Return how many samples a call must have; None if any number will do."""
    fixed = {field.shape[0]: field.name for field in _inputs(session) if field.shape}
    sizes = sorted(size for size in fixed if isinstance(size, int))
    if not sizes:
        return None
    if sizes[0] < 1:
        raise ModelError(f"input {fixed[sizes[0]]!r} of the model takes {sizes[0]} samples, so there is no output")
    return sizes[0]


def _sample_axis(field: Field, inputs: Sequence[Input]) -> int | None:
    """Return the axis of an output that has the name of the inputs' axis of samples; None where names do not tell."""
    shapes = [entry.shape for entry in inputs if entry.shape]
    names = {shape[0] for shape in shapes if isinstance(shape[0], str)}
    sample_axes = [axis for axis, side in enumerate(field.shape or ()) if isinstance(side, str) and side in names]
    return sample_axes[0] if len(sample_axes) == 1 else None


def _stacked(values: list[Any]) -> Output:
    """Return what calls of one sample each returned, with an axis for the samples in front."""
    if all(isinstance(value, np.ndarray) for value in values) and len({value.shape for value in values}) == 1:
        return np.stack(values)
    if all(isinstance(value, list) and len(value) == 1 for value in values):  # a sequence for each sample
        return [array for value in values for array in value]
    return values


def _joined(
    values: list[Any],
    counts: Sequence[int],
    fixed: int | None,
    axis: int | None,
    declared: Sequence[int | str | None] | None = None,
) -> Output:
    """Return one output for all samples; as what each call returned, where that cannot be joined."""
    sizes = [fixed or count for count in counts]
    if all(isinstance(value, np.ndarray) for value in values):
        joined = _joined_arrays(values, counts, sizes, axis, () if fixed else declared or ())
        return values if joined is None else joined
    if not all(isinstance(value, list) for value in values):
        return values
    lengths = {len(value) for value in values}
    if len(lengths) == 1 and all(isinstance(array, np.ndarray) and array.ndim for value in values for array in value):
        pieces = [_joined_arrays(list(pair), counts, sizes, None) for pair in zip(*values, strict=True)]
        if all(array is not None and len(array) == sum(counts) for array in pieces):
            return pieces
    if [len(value) for value in values] == sizes:  # one for each sample, as ZipMap has it
        return [array for value, count in zip(values, counts, strict=True) for array in value[:count]]
    return values


def _joined_arrays(
    values: Sequence[Array],
    counts: Sequence[int],
    sizes: Sequence[int],
    axis: int | None,
    declared: Sequence[int | str | None] = (),
) -> Array | None:
    """Return arrays joined along the axis of samples; None if there is no such axis, or other sides differ.

    A side that the model declares as a number, and that is this number, does not count samples, though a batch may be
    as large. Where the first side is a multiple of the batch, as of rows for each place of each sample, it is joined.
    Single numbers, one for each call, become an array. What a single call returned is left as it is, unless one of its
    sides might be taken for that of the samples.
    """
    if len({value.ndim for value in values}) > 1:
        return None
    if values[0].ndim == 0:
        return np.stack(values)
    free = [a for a in range(values[0].ndim) if not _is_declared(values, a, declared)]
    fitting = [a for a in free if [value.shape[a] for value in values] == list(sizes)]
    if axis is None or axis not in fitting:
        axis = 0 if 0 in fitting else fitting[0] if len(fitting) == 1 else None
    times = 1
    if axis is None:
        axis, times = 0, values[0].shape[0] // sizes[0]
        if not times or [value.shape[0] for value in values] != [times * size for size in sizes] or 0 not in free:
            alone = len(values) == 1 and not {sizes[0], counts[0]} & set(values[0].shape)
            return values[0] if alone else None
    ends = [times * count for count in counts]
    values = [np.take(v, range(end), axis) if end < v.shape[axis] else v for v, end in zip(values, ends, strict=True)]
    sides = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in values}
    return np.concatenate(values, axis) if len(sides) == 1 else None


def _is_declared(values: Sequence[Array], axis: int, declared: Sequence[int | str | None]) -> bool:
    """Return whether the model fixes a side, to more than one, and tells the truth."""
    if len(declared) != values[0].ndim or not isinstance(declared[axis], int) or declared[axis] == 1:
        return False
    return all(value.shape[axis] == declared[axis] for value in values)


def check_providers(providers: Sequence[str]) -> None:
    """Raise `OptionError` unless this onnxruntime was built with all of them."""
    there = ort.get_available_providers()
    for name in providers:
        if name not in there:
            raise OptionError(f"no provider {name!r} here: there are {', '.join(there)}")
    if len(set(providers)) < len(providers):
        raise OptionError(f"a provider is named twice: {', '.join(providers)}")
    if not providers:
        raise OptionError(f"no provider is named: there are {', '.join(there)}")


def _inputs(session: ort.InferenceSession, normalisation: Normalisation | None = None) -> list[Input]:
    return [Input(node.name, _numpy_type(node.type), tuple(node.shape), normalisation) for node in session.get_inputs()]


def _fields(session: ort.InferenceSession) -> list[Field]:
    """Return the outputs as the model declares them."""
    nodes = session.get_outputs()
    return [
        Field(node.name, node.type, tuple(node.shape) if node.type.startswith("tensor(") else None) for node in nodes
    ]


def _run_bound(session: ort.InferenceSession, names: Sequence[str], inputs: Mapping[str, ort.OrtValue]) -> list[Array]:
    """Return the outputs for inputs that lie on the session's device."""
    types = {node.name: node.type for node in session.get_outputs()}
    if not all(types[name].startswith("tensor(") for name in names):  # maps and sequences cannot be bound
        return list(session.run(names, {name: value.numpy() for name, value in inputs.items()}))
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name in names:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    outputs: list[Array] = binding.copy_outputs_to_cpu()
    return outputs


def _reason(error: BaseException) -> str:
    """Return onnxruntime's reason without its codes and the places in its source."""
    text = str(root_cause(error))
    for pattern in _NOISE:
        text = pattern.sub("", text)
    return one_line(text, longest=200)


def _stand_ins(model: ir.Model, tensors: Iterable[StoredTensor]) -> dict[str, StoredTensor]:
    """Put a main-graph initializer in the place of every decode call of a copy; return the tensors by its name.

    A function owns no initializers, so it takes its weights as inputs, and whoever calls it hands them on. It is not
    inlined, for it may have an opset of its own.
    """
    # One, if a tool inlined what is called twice.
    stored = {tensor.key: tensor for tensor in tensors}
    values = {key: _initializer_of(model, tensor) for key, tensor in stored.items()}
    for identifier in [identifier for identifier in model.functions if identifier[0] == DOMAIN]:
        del model.functions[identifier]
    inputs = {
        identifier: {key: _input(model.functions[identifier], values[key]) for key in keys}
        for identifier, keys in _keys_of_functions(model).items()
    }
    owners: list[tuple[ir.Graph | ir.Function, Mapping[str, ir.Value]]] = [(model.graph, values)]
    owners += [(function, inputs[name]) for name, function in model.functions.items()]
    for owner, known in owners:
        for node in list(owner.all_nodes()):
            if node.domain == DOMAIN:
                _stand_in(node, known[node.attributes["key"].as_string()])
            elif node.op_identifier() in inputs:
                _hand_on(node, inputs[node.op_identifier()], known)
    return {str(values[key].name): tensor for key, tensor in stored.items()}


def weight_name(key: str) -> str:
    """Return the name of a stored weight in a network, by its storage key."""
    return f"{DOMAIN}:{key}"


def _drop_unused(model: ir.Model) -> None:
    """Take out the initializers that nothing uses: onnxruntime drops them, and fails when they are handed over."""
    for value in list(model.graph.initializers.values()):
        if not (tuple(value.uses()) or value.is_graph_output() or value.is_graph_input()):
            del model.graph.initializers[str(value.name)]


def _widen_outputs(model: ir.Model) -> None:
    """Return outputs of bfloat16 as float32, which holds the same numbers: numpy has no bfloat16 in onnxruntime."""
    for number, value in enumerate(model.graph.outputs):
        if value.dtype is ir.DataType.BFLOAT16 and value.producer() is not None:
            cast = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT.value})
            model.graph.append(cast)
            (wide,) = cast.outputs
            wide.name, value.name = value.name, f"{DOMAIN}:bfloat16:{value.name}"
            wide.dtype, wide.shape = ir.DataType.FLOAT, value.shape
            model.graph.outputs[number] = wide


def _initializer_of(model: ir.Model, tensor: StoredTensor) -> ir.Value:
    name = weight_name(tensor.key)
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
    return {identifier: sorted(uses) for identifier, uses in keys.items()}


def _input(function: ir.Function, weight: ir.Value) -> ir.Value:
    value = ir.Value(name=weight.name, shape=weight.shape, type=weight.type)
    value.meta[_POSITION] = len(function.inputs)  # a call may leave the last of the others out
    function.inputs.append(value)
    return value


def _hand_on(call: ir.Node, inputs: Mapping[str, ir.Value], values: Mapping[str, ir.Value]) -> None:
    """Give a function the weights that it takes as inputs."""
    for key, weight in inputs.items():
        position = weight.meta[_POSITION]
        call.resize_inputs(position + 1)
        call.replace_input_with(position, values[key])


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
    planes = [plane for plane in decode.inputs if plane is not None]
    graph.remove(decode, safe=True)
    for plane in planes:
        _take_out(plane)
    if value.producer() is not None:
        value.name = name


def _take_out(plane: ir.Value) -> None:
    """Take a plane that nothing uses any more out of its graph: it is not read there, and takes memory."""
    producer, graph = plane.producer(), plane.graph
    if tuple(plane.uses()) or plane.is_graph_output() or graph is None:
        return
    if producer is not None and producer.op_type == "Constant":
        graph.remove(producer, safe=True)
    elif plane.is_initializer():
        del graph.initializers[str(plane.name)]


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
            main = graph is model.graph and not value.is_graph_input() and bool(tuple(value.uses()))
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
