"""Layers whose outputs can be corrected after the array was programmed, and the arithmetic that corrects them.

A layer is one use of a stored weight by Conv, ConvTranspose, Gemm or MatMul in the main graph. What it computes is
multiplied by a gain and shifted, for each output channel. Three graphs are made of a model:

- `with_statistics` returns the mean and the standard deviation of each output channel of each layer.
- `with_calibration` gives the outputs of each layer the mean and the standard deviation that it is told, one layer
  after the other, and returns the gains and shifts that do so. What it computes, it computes with corrected layers.
- `with_correction` applies gains and shifts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.coding.numbers import NUMBER_BITS as NUMBER_BITS
from onnx_analog.display import counted
from onnx_analog.errors import ModelError
from onnx_analog.graph.build import opset_of
from onnx_analog.graph.stored import Names, StoredTensor, read_back
from onnx_analog.graph.uses import ARRANGING, number_of, transposed

Array = NDArray[Any]
Halves = NDArray[np.float16]

GAIN = "gain"  # stands for the law of the channel, in place of samples
LAW = "the law of the channel"  # the same in words
CORRECTED_KEY = "onnx_analog.correction"  # metadata entry of a model that was corrected
MOST_GAIN = 4.0  # of a channel; the least is its reciprocal
_LARGEST = float(np.finfo(np.float16).max)
_NO_SPREAD = 1e-4  # a standard deviation below this share of mean and deviation is rounding, and no signal


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """A node that multiplies by a stored weight.

    Attributes
    ----------
    name : str
        Of its output, which no other value of the main graph has.
    key : str
        Storage key of its weight.
    channels : int
        Output channels.
    after : int
        Axes of the output behind that of its channels.
    dtype : ir.DataType
        Of its output.
    numbers : int
        Numbers that the correction adds to those that the reader keeps anyway. A shift goes into a bias that the layer
        has, and all of it into a BatchNormalization that is all that follows.
    """

    name: str
    key: str
    channels: int
    after: int
    dtype: ir.DataType
    numbers: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a gain that broadcasts over the output."""
        return (self.channels, *(1,) * self.after)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layers:
    """The layers of a model that can be corrected; and, by storage key, why other uses of stored weights cannot be."""

    corrected: tuple[Layer, ...]
    left: Mapping[str, str]

    @property
    def cost(self) -> Cost:
        """What their correction costs."""
        return Cost(len(self.corrected), sum(layer.numbers for layer in self.corrected))


@dataclass(frozen=True, eq=False, kw_only=True)
class Correction:
    """Corrections of a model as it was read.

    Attributes
    ----------
    layers : mapping of str to (gain, shift)
        float16 arrays, one number for each output channel, by the name of the layer's output.
    factors : mapping of str to float
        Factors of whole tensors, by storage key.
    """

    layers: Mapping[str, tuple[Halves, Halves]] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)


class Cost(NamedTuple):
    """What the reader of the memory keeps for a correction.

    Attributes
    ----------
    layers : int
        Layers, or tensors, that are corrected.
    numbers : int
        float16 numbers that the reader keeps in addition to those of the model: a gain and a shift for each output
        channel, without the shift where the layer has a bias, and none where a BatchNormalization takes both; or a
        factor for each tensor.
    """

    layers: int
    numbers: int

    @property
    def bits(self) -> int:
        """Bits of the numbers."""
        return NUMBER_BITS * self.numbers

    def to_dict(self) -> dict[str, Any]:
        """Return what the correction costs, ready for JSON."""
        return {**self._asdict(), "bits": self.bits}


def read_as(model: ir.Model) -> str | None:
    """Say what a model was read back with, and how it was corrected then; None of a model that was not."""
    mark, corrected = read_back(model), model.metadata_props.get(CORRECTED_KEY)
    return mark if mark is None or corrected is None else f"{mark}, corrected: {corrected}"


def corrected_in_words(by: str | None, cost: Cost | None) -> str:
    """Say what was corrected, and by what."""
    if by != LAW:
        return f"by {by}" if cost is None else f"gain and shift of {counted(cost.layers, 'layer')}, by {by}"
    if cost is not None and not cost.layers:
        return f"nothing, as no tensor loses gain by {LAW}"
    return f"the gain of {'each tensor' if cost is None else counted(cost.layers, 'tensor')}, by {LAW}"


class HasCorrection:
    """A result of reads that may have been corrected."""

    corrected_by: str | None
    correction: Cost | None

    @property
    def corrected(self) -> str | None:
        """What was corrected, and by what, in words; None without a correction."""
        return None if self.corrected_by is None else corrected_in_words(self.corrected_by, self.correction)


class _Use(NamedTuple):
    """Where a weight is used: the node, the input, and shape and type of the weight there."""

    node: ir.Node | None
    place: int
    shape: tuple[int, ...]
    dtype: ir.DataType


# ---------------------------------------------------------------------------------------------------- layers


def layers_of(model: ir.Model, tensors: Sequence[StoredTensor]) -> Layers:
    """Return the layers of a protected model, whose stored tensors are `tensors`."""
    corrected: dict[str, Layer] = {}
    left: dict[str, str] = {}
    for tensor in tensors:
        for use in _uses(tensor):
            layer = _layer(model, tensor, use)
            if isinstance(layer, str):
                left.setdefault(tensor.key, layer)
            else:
                corrected.setdefault(layer.name, layer)
    order = {value.name: number for number, node in enumerate(model.graph) for value in node.outputs}
    return Layers(corrected=tuple(sorted(corrected.values(), key=lambda layer: order[layer.name])), left=left)


def _uses(tensor: StoredTensor) -> Iterator[_Use]:
    waiting = [(tensor.node.outputs[0], tensor.shape, tensor.dtype)]
    for value, shape, dtype in waiting:  # what is passed on is added on the way
        if value.is_graph_output():
            yield _Use(None, 0, shape, dtype)
        for node, place in value.uses():
            if node.domain in ("", "ai.onnx") and node.op_type in ARRANGING:
                waiting.append((node.outputs[0], transposed(node, shape), _cast(node, dtype)))
            else:
                yield _Use(node, place, shape, dtype)


def _cast(node: ir.Node, dtype: ir.DataType) -> ir.DataType:
    to = node.attributes.get("to")
    return dtype if node.op_type != "Cast" or to is None or to.is_ref() else ir.DataType(to.as_int())


def _layer(model: ir.Model, tensor: StoredTensor, use: _Use) -> Layer | str:
    """Return the layer that a use is, or why it cannot be corrected."""
    node = use.node
    if node is None:
        return "an output of the graph"
    if tensor.in_function:
        return "in a function"
    if node.graph is not model.graph:
        return "in a branch or in the body of a loop"
    axis = _channels(node, use) if node.domain in ("", "ai.onnx") else None
    if axis is None:
        return f"used by {node.op_type}"
    if isinstance(axis, str):
        return axis
    output = node.outputs[0]
    return Layer(
        name=str(output.name),
        key=tensor.key,
        channels=axis[0],
        after=axis[1],
        dtype=use.dtype,
        numbers=_numbers(node, axis[0]),
    )


def _channels(node: ir.Node, use: _Use) -> tuple[int, int] | str | None:
    """Return the number of output channels and of axes behind them; a reason or None if they are not known."""
    kind, place, shape = node.op_type, use.place, use.shape
    if (kind, place) == ("Conv", 1):
        return shape[0], len(shape) - 2
    if (kind, place) == ("ConvTranspose", 1):
        return shape[1] * number_of(node, "group", 1), len(shape) - 2
    if kind == "Gemm" and place in (0, 1):
        transposed = bool(number_of(node, "transB" if place else "transA", 0))
        return shape[transposed != bool(place)], 1 - place
    if (kind, place) == ("MatMul", 1):
        return shape[-1], 0
    if (kind, place) == ("MatMul", 0):
        other = node.inputs[1]
        known = None if other is None else other.shape
        if known is None:
            return "the left factor of MatMul, whose right one has no known shape"
        return shape[-2], int(len(known) > 1)
    return None


def _numbers(node: ir.Node, channels: int) -> int:
    users = [user for user, _ in node.outputs[0].uses()]
    if [user.op_type for user in users] == ["BatchNormalization"] and not node.outputs[0].is_graph_output():
        return 0
    biased = len(node.inputs) > 2 and node.inputs[2] is not None and node.inputs[2].const_value is not None
    return channels if biased else 2 * channels


# ---------------------------------------------------------------------------------------------------- graphs


def with_statistics(model: ir.Model, layers: Sequence[Layer]) -> ir.Model:
    """Return a copy of a model whose outputs are mean and standard deviation of each layer, float32 arrays (C,)."""
    extension = _Extension(model)
    outputs = [value for layer in layers for value in extension.measured(layer)]
    return extension.returning(outputs)


class Calibration(NamedTuple):
    """A model that finds corrections, and the initializers that it is told means and deviations by."""

    model: ir.Model
    targets: tuple[str, ...]


def with_calibration(model: ir.Model, layers: Sequence[Layer]) -> Calibration:
    """Return a copy of a model whose outputs are gain and shift of each layer, float16 arrays (C,).

    The gain gives the outputs of a channel the standard deviation that they are to have, and the shift then the mean.
    A gain is 1 where either deviation is next to nothing, and is limited to 1/4 to 4. A channel whose shift is no
    float16 number is left as it is.
    """
    extension = _Extension(model)
    outputs, targets = list[ir.Value](), list[str]()
    for layer in layers:
        mean, std = (extension.initializer(f"{layer.name}_{what}", (layer.channels,)) for what in ("mean", "std"))
        targets += [str(mean.name), str(std.name)]
        outputs += extension.calibrated(layer, mean, std)
    return Calibration(extension.returning(outputs), tuple(targets))


class Corrected(NamedTuple):
    """A model whose layers are corrected, and the initializers that hold gain and shift of each, of `Layer.shape`."""

    model: ir.Model
    numbers: tuple[str, ...]


def with_correction(model: ir.Model, layers: Sequence[Layer]) -> Corrected:
    """Return a copy of a model with a Mul and an Add after each layer; gains are 1 and shifts 0."""
    copy = model.clone()
    return Corrected(copy, correct_in_place(copy, layers))


def correct_in_place(
    model: ir.Model, layers: Sequence[Layer], numbers: Mapping[str, tuple[Array, Array]] | None = None
) -> tuple[str, ...]:
    """Put a Mul and an Add after each layer; return the names of the initializers with gain and shift of each."""
    extension = _Extension(model, copied=False)
    names = list[str]()
    for layer in layers:
        pair = None if numbers is None else numbers[layer.name]
        gain, shift = (
            extension.initializer(
                f"{layer.name}_{what}", layer.shape, layer.dtype, default if pair is None else pair[number]
            )
            for number, (what, default) in enumerate((("gain", 1.0), ("shift", 0.0)))
        )
        names += [str(gain.name), str(shift.name)]
        extension.correct(layer, gain, shift)
    return tuple(names)


def scale_in_place(tensors: Sequence[StoredTensor], factors: Mapping[str, float]) -> None:
    """Multiply stored weights by a factor each, behind the call that decodes them."""
    for tensor in tensors:
        factor = factors.get(tensor.key, 1.0)
        if factor != 1.0:
            _scale(tensor, factor)


def _scale(tensor: StoredTensor, factor: float) -> None:
    """Put a Mul behind the call that decodes a tensor; of bfloat16 numbers, which few kernels multiply, in float32."""
    output, widened = tensor.node.outputs[0], tensor.dtype is ir.DataType.BFLOAT16
    dtype = ir.DataType.FLOAT if widened else tensor.dtype
    uses = list(output.uses())
    number = ir.Tensor(np.array(factor).astype(dtype.numpy()), dtype=dtype)
    nodes = [ir.node("Constant", [], {"value": ir.AttrTensor("value", number)})]
    nodes += [ir.node("Cast", [output], {"to": dtype.value})] if widened else []
    nodes += [ir.node("Mul", [nodes[-1].outputs[0] if widened else output, nodes[0].outputs[0]])]
    nodes += [ir.node("Cast", [nodes[-1].outputs[0]], {"to": tensor.dtype.value})] if widened else []
    for node in nodes:
        node.outputs[0].name = tensor.names.free(f"{output.name}_{node.op_type}")
    tensor.graph.insert_after(tensor.node, nodes)
    _use_instead(tensor.graph, output, nodes[-1].outputs[0], uses)


def _use_instead(graph: ir.Graph, value: ir.Value, other: ir.Value, uses: Sequence[Any]) -> None:
    """Let uses of a value, and the outputs of its graph, take another in its place; an output keeps its name."""
    other.shape, other.type = value.shape, value.type
    for node, place in uses:
        node.replace_input_with(place, other)
    for number, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[number] = other
            other.name, value.name = value.name, other.name


class _Extension:
    """Adds nodes behind the layers of a model."""

    def __init__(self, model: ir.Model, *, copied: bool = True) -> None:
        self._model = model.clone() if copied else model
        self._names = Names(self._model)
        self._opset = opset_of(self._model) or 0
        self._values = {value.name: value for node in self._model.graph for value in node.outputs}
        self._added: list[ir.Node] = []

    def returning(self, outputs: Sequence[ir.Value]) -> ir.Model:
        """Return the model with these outputs, without what they do not need."""
        self._model.graph.outputs.clear()
        self._model.graph.outputs.extend(outputs)
        _drop_unused(self._model)
        return self._model

    def initializer(
        self, name: str, shape: Sequence[int], dtype: ir.DataType = ir.DataType.FLOAT, numbers: Any = 0.0
    ) -> ir.Value:
        """Return a new initializer."""
        array = np.broadcast_to(np.asarray(numbers).reshape(shape if np.ndim(numbers) else ()), shape)
        return self._constant(name, array.astype(dtype.numpy()), dtype)

    def _constant(self, name: str, array: Array, dtype: ir.DataType) -> ir.Value:
        name = self._names.free(name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(dtype))
        value.const_value = ir.Tensor(np.ascontiguousarray(array), dtype=dtype, name=name)
        self._model.graph.register_initializer(value)
        return value

    def measured(self, layer: Layer) -> tuple[ir.Value, ir.Value]:
        """Return mean and standard deviation of a layer's output channels."""
        value = self._values[layer.name]
        moments = self._moments(layer, value)
        self._insert_after(value)
        return moments

    def calibrated(self, layer: Layer, mean: ir.Value, std: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Correct a layer so that its channels have this mean and deviation; return gain and shift."""
        value = self._values[layer.name]
        uses = list(value.uses())
        gain, shift = self._gain_and_shift(self._moments(layer, value), mean, std)
        corrected = self._applied(value, *(self._shaped(layer, number) for number in (gain, shift)))
        self._insert_after(value)
        _use_instead(self._model.graph, value, corrected, uses)
        return gain, shift

    def correct(self, layer: Layer, gain: ir.Value, shift: ir.Value) -> None:
        """Multiply a layer's output, and shift it."""
        value = self._values[layer.name]
        uses = list(value.uses())
        corrected = self._applied(value, gain, shift)
        self._insert_after(value)
        _use_instead(self._model.graph, value, corrected, uses)

    def _applied(self, value: ir.Value, gain: ir.Value, shift: ir.Value) -> ir.Value:
        return self._node("Add", self._node("Mul", value, gain), shift)

    def _moments(self, layer: Layer, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return mean and standard deviation, each (C,), in float32."""
        wide = value if layer.dtype is ir.DataType.FLOAT else self._node("Cast", value, to=ir.DataType.FLOAT.value)
        mean = self._mean(layer, wide)
        centred = self._node("Sub", wide, self._reshaped(mean, layer.shape))
        return mean, self._node("Sqrt", self._mean(layer, self._node("Mul", centred, centred)))

    def _mean(self, layer: Layer, value: ir.Value) -> ir.Value:
        """Return the mean over all axes but that of the channels, (C,): over those behind it first, for short sums."""
        if layer.after:
            value = self._reduced(value, range(-layer.after, 0))
        return self._reduced(self._reshaped(value, (-1, layer.channels)), [0])

    def _reduced(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        if self._opset < 18:
            return self._node("ReduceMean", value, axes=list(axes), keepdims=0)
        return self._node("ReduceMean", value, self._integers(axes), keepdims=0)

    def _gain_and_shift(
        self, moments: tuple[ir.Value, ir.Value], target_mean: ir.Value, target_std: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        """Return gain and shift as float16 numbers; comparisons are false of NaN, and then nothing is changed."""
        mean, std = moments
        one, zero = self._number(1), self._number(0)
        size = self._node("Add", self._node("Abs", target_mean), target_std)
        least = self._node("Mul", size, self._number(_NO_SPREAD))
        spread = self._node("And", self._node("Greater", std, least), self._node("Greater", target_std, least))
        ratio = self._node("Div", target_std, self._node("Where", spread, std, one))
        limited = self._node("Max", self._node("Min", ratio, self._number(MOST_GAIN)), self._number(1 / MOST_GAIN))
        gain = self._rounded(self._node("Where", spread, limited, one))
        shift = self._node("Sub", target_mean, self._node("Mul", self._widened(gain), mean))
        fits = self._node("Less", self._node("Abs", shift), self._number(_LARGEST))
        gain, shift = self._node("Where", fits, self._widened(gain), one), self._node("Where", fits, shift, zero)
        return self._rounded(gain), self._rounded(shift)

    def _rounded(self, value: ir.Value) -> ir.Value:
        return self._node("Cast", value, to=ir.DataType.FLOAT16.value)

    def _widened(self, value: ir.Value) -> ir.Value:
        return self._node("Cast", value, to=ir.DataType.FLOAT.value)

    def _shaped(self, layer: Layer, number: ir.Value) -> ir.Value:
        """Return gain or shift in shape and type of a layer's output."""
        cast = number if layer.dtype is ir.DataType.FLOAT16 else self._node("Cast", number, to=layer.dtype.value)
        return self._reshaped(cast, layer.shape)

    def _reshaped(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self._node("Reshape", value, self._integers(shape))

    def _number(self, number: float) -> ir.Value:
        return self._constant("number", np.array(number, np.float32), ir.DataType.FLOAT)

    def _integers(self, numbers: Sequence[int]) -> ir.Value:
        return self._constant("integers", np.array(list(numbers), np.int64), ir.DataType.INT64)

    def _node(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(kind, list(inputs), attributes)
        node.outputs[0].name = self._names.free(f"correction_{kind}")
        self._added.append(node)
        return node.outputs[0]

    def _insert_after(self, value: ir.Value) -> None:
        """Put the nodes that were made behind the one that computes a value."""
        producer = value.producer()
        assert producer is not None
        self._model.graph.insert_after(producer, self._added)
        self._added = []


def _drop_unused(model: ir.Model) -> None:
    """Take out what no output of a model depends on."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def check_correction(correction: Correction, layers: Layers, tensors: Sequence[StoredTensor]) -> None:
    """Raise `ModelError` if a correction is of a layer or tensor that a model does not have, or of other channels."""
    strange = next((key for key in correction.factors if key not in {tensor.key for tensor in tensors}), None)
    if strange is not None:
        raise ModelError(f"the correction is of a tensor {strange!r}, which the model does not store")
    known = {layer.name: layer for layer in layers.corrected}
    for name, pair in correction.layers.items():
        if name not in known:
            raise ModelError(f"the correction is of a layer {name!r}, which the model does not have")
        sizes = [np.size(numbers) for numbers in pair]
        if sizes != [known[name].channels] * 2:
            raise ModelError(
                f"the correction of layer {name!r} has {sizes[0]:,} gains and {sizes[1]:,} shifts, and the layer has "
                f"{known[name].channels:,} channels"
            )
