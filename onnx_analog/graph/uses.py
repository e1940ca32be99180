"""What the tensors of a model are for: whether anything uses them, and whether as weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import onnx_ir as ir
from numpy.typing import NDArray

UNUSED = "nothing uses it"
BIAS = "a bias"
MASK = "a mask"

_HUGE = 8192.0  # exporters mask with -1e4 and beyond, even in half precision
_TAKE_BIAS = frozenset(  # and as which input; peepholes and scales are weights
    {
        *((kind, 3) for kind in ("LSTM", "GRU", "RNN", "com.microsoft.DynamicQuantizeLSTM")),
        *((kind, 2) for kind in ("Conv", "ConvTranspose", "LayerNormalization")),
    }
)
_ADD = frozenset({("Add", 0), ("Add", 1), ("Gemm", 2), *(("Sum", index) for index in range(8))})  # tables, too
_TAKE_MASK = frozenset(  # or a table of relative positions, which is a weight
    {
        ("Attention", 3),
        ("com.microsoft.Attention", 5),
        ("com.microsoft.MultiHeadAttention", 5),
        ("com.microsoft.GroupQueryAttention", 10),
        ("com.microsoft.BiasSoftmax", 1),
    }
)
ARRANGING = ("Cast", "Identity", "Transpose")  # what a weight may pass on its way to a product
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Einsum"})
# What may lie between a tensor and what it is for, and leaves its numbers as they are.
_SEEN_THROUGH = frozenset(
    {"Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice", "Tile"}
)
_JOINED = _SEEN_THROUGH | {"Concat"}
_SUMMED = _JOINED | {"Gather", "Add", "Sub", "Sum", "Clip"}  # what a mask is part of is masked by it
_ANY_INPUT = frozenset({"Concat", "Add", "Sub", "Sum"})  # others pass their first input on
_ARRANGED = _SEEN_THROUGH - {"Expand", "Slice", "Tile"} | {"DequantizeLinear"}
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Min", "Max", "Pow", "Sum"})
_COMPARED = {0: "a limit", 1: "a limit"}
_NO_WEIGHTS: Mapping[str, Mapping[int, str]] = {  # by operator: inputs that are never trained
    "OneHot": {0: "indices", 1: "the depth", 2: "values"},
    "BitCast": {0: "bits"},
    "Range": {0: "a limit", 1: "a limit", 2: "a step"},
    "Clip": {1: "a limit", 2: "a limit"},
    "Pad": {2: "a filling"},
    "Resize": {1: "a region", 2: "scales"},
    "Upsample": {1: "scales"},
    "GridSample": {1: "a grid"},
    "AffineGrid": {0: "a transformation"},
    "RoiAlign": {1: "regions"},
    "MaxRoiPool": {1: "regions"},
    "NonMaxSuppression": {0: "boxes", 1: "scores", 3: "a limit", 4: "a limit"},
    "QuantizeLinear": {1: "scales"},
    "DequantizeLinear": {1: "scales"},
    "RotaryEmbedding": {1: "angles", 2: "angles"},
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _COMPARED),
    "Not": {0: "a condition"},
    "IsInf": {0: "a condition"},
    "IsNaN": {0: "a condition"},
    "com.microsoft.MatMulNBits": {2: "scales"},
    "com.microsoft.RotaryEmbedding": {2: "angles", 3: "angles"},
    "com.microsoft.GroupQueryAttention": {7: "angles", 8: "angles"},
    "com.microsoft.QuantizeLinear": {1: "scales"},
    "com.microsoft.DequantizeLinear": {1: "scales"},
    "com.microsoft.GatherBlockQuantized": {2: "scales"},
    "com.microsoft.DynamicQuantizeLSTM": {8: "scales", 10: "scales"},
}


def used_values(model: ir.Model) -> set[int]:
    """Return the ids of the values that an output of `model` depends on, in bodies and in functions too."""
    return _Walk(model).used


class _Walk:
    """Goes from the outputs of a model to all that they are made of."""

    def __init__(self, model: ir.Model) -> None:
        self._functions, self._seen, self.used = model.functions, set[int](), set[int]()
        waiting = list(self._outputs(model.graph))
        while waiting:
            value = waiting.pop()
            if id(value) in self.used:
                continue
            self.used.add(id(value))
            node = value.producer()
            if node is not None and id(node) not in self._seen:
                self._seen.add(id(node))
                waiting += self._needed(node)

    def _needed(self, node: ir.Node) -> Iterator[ir.Value]:
        yield from (value for value in node.inputs if value is not None)
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                yield from self._outputs(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    yield from self._outputs(body)
        function = self._functions.get(node.op_identifier())
        if function is not None and id(function) not in self._seen:
            self._seen.add(id(function))
            yield from self._outputs(function)

    @staticmethod
    def _outputs(graph: ir.Graph | ir.Function) -> Iterator[ir.Value]:
        return (value for value in graph.outputs if value is not None)


class Use(NamedTuple):
    """Where a value ends up: an input of a node, or an output of the graph (node None), where all else is possible."""

    node: ir.Node | None
    input_index: int

    @property
    def kind(self) -> str:
        """The operator; "" for an output."""
        return "" if self.node is None else _kind(self.node)


def consumers(value: ir.Value) -> Iterator[str]:
    """Yield the operators that use `value` in the end, one for each use, seen through casts and transpositions."""
    return (use.node.op_type for use in ends(value, _ARRANGED) if use.node is not None)


def ends(value: ir.Value, through: frozenset[str]) -> list[Use]:
    """Return where `value` is used in the end, seen `through` some operators.

    Each use is there once, by however many ways the value comes to it.
    """
    uses, seen, waiting = list[Use](), {id(value)}, [value]
    for here in waiting:  # what is passed on is added on the way
        uses += [Use(None, 0)] * here.is_graph_output()
        for node, index in here.uses():
            if not _passes_on(node, index, through):
                uses.append(Use(node, index))
            elif id(node.outputs[0]) not in seen:
                seen.add(id(node.outputs[0]))
                waiting.append(node.outputs[0])
    return uses


def _passes_on(node: ir.Node, index: int, through: frozenset[str]) -> bool:
    kind = _kind(node)
    if kind not in through or (index and kind not in _ANY_INPUT) or len(node.outputs) != 1:
        return False
    return kind != "Cast" or _stays_float(node)


def _stays_float(cast: ir.Node) -> bool:
    to = cast.attributes.get("to")
    return to is None or to.is_ref() or ir.DataType(to.as_int()).is_floating_point()


def _kind(node: ir.Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


_OUTPUT_AXIS = {  # by operator and input
    ("Conv", 1): 0,
    ("DeformConv", 1): 0,
    ("com.microsoft.FusedConv", 1): 0,
    ("com.microsoft.Attention", 1): -1,
    ("com.microsoft.GemmFastGelu", 1): -1,
    **{(kind, index): 1 for kind in ("LSTM", "GRU", "RNN") for index in (1, 2)},
}
_PRODUCTS_OF_TWO = frozenset(  # of rows and columns, either of which may be given transposed
    {"MatMul", "Gemm", "com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul", "com.microsoft.FusedGemm"}
)


def output_axis(value: ir.Value, shape: Sequence[int]) -> int:
    """Return the axis of a weight of this shape along which output channels lie, by the operator that uses it.

    Where operators differ, are unknown, or take the weight rearranged, it is the first axis: any axis gives scales that
    fit, and this one those of most layouts. Where several axes hold output channels, as in Einsum, it is the longest.
    Of a ConvTranspose in groups, channels of the same place in each group share a scale, unless groups have one each:
    then each input channel has its own.
    """
    axes = {_output_axis(use, shape) % len(shape) for use in ends(value, frozenset({"Cast", "Identity"}))}
    return axes.pop() if len(axes) == 1 else 0


def _output_axis(use: Use, shape: Sequence[int]) -> int:
    node, kind = use.node, use.kind
    if node is None:
        return 0
    if kind in _PRODUCTS_OF_TWO and use.input_index in (0, 1):
        transposed = bool(number_of(node, "transB" if use.input_index else "transA"))
        return -1 if transposed != bool(use.input_index) else -2
    if (kind, use.input_index) == ("ConvTranspose", 1):
        return 1 if shape[1] > 1 else 0
    if (kind, use.input_index) == ("Gather", 0):
        return number_of(node, "axis")
    if kind == "Einsum":
        return _einsum_axis(node, use.input_index, shape)
    return _OUTPUT_AXIS.get((kind, use.input_index), 0)


def number_of(node: ir.Node, name: str, default: int = 0) -> int:
    """Return an attribute that is a whole number; the default if it is not there, or is that of a function."""
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else attribute.as_int()


def transposed(node: ir.Node, sides: tuple[int, ...]) -> tuple[int, ...]:
    """Return sides, or whatever else belongs to each axis, in the order that a node of `ARRANGING` gives them."""
    if node.op_type != "Transpose":
        return sides
    order = node.attributes.get("perm")
    return sides[::-1] if order is None or order.is_ref() else tuple(sides[axis] for axis in order.as_ints())


def _einsum_axis(node: ir.Node, index: int, shape: Sequence[int]) -> int:
    """Return the longest axis of an operand that is one of the output, and of no other operand; else the first."""
    attribute = node.attributes.get("equation")
    equation = "" if attribute is None or attribute.is_ref() else attribute.as_string().replace(" ", "")
    operands, arrow, output = equation.partition("->")
    terms = operands.split(",")
    if index >= len(terms) or len(terms[index]) != len(shape) or "." in terms[index]:
        return 0
    others = "".join(terms[:index] + terms[index + 1 :])
    axes = [axis for axis, label in enumerate(terms[index]) if label not in others and (label in output or not arrow)]
    return max(axes, key=lambda axis: shape[axis], default=0)


def role(value: ir.Value) -> str | None:
    """Return what a tensor is if nothing uses it as numbers that were trained: indices, limits, scales; else None."""
    uses = ends(value, _ARRANGED)
    roles = [_role(use) for use in uses]
    return f"used as {roles[0]} of {uses[0].kind.rpartition('.')[2]}" if roles and None not in roles else None


def _role(use: Use) -> str | None:
    return "numbers" if use.kind == "Cast" else _NO_WEIGHTS.get(use.kind, {}).get(use.input_index)


def other_use(value: ir.Value, shape: tuple[int, ...], numbers: Callable[[], NDArray[Any]]) -> str | None:
    """Return what a tensor is if it is no weight: a bias or a mask; else None.

    A bias is what operators take as such, or what has one side above 1 and is only added. A mask holds huge numbers
    and is only added to what a Softmax or an attention takes, or only chosen from by Where; or it holds zeros and one
    other number, and is used so, or that number is huge and the tensor is a factor of no product; or it holds 0 and 1,
    and is used element by element. Of 0 and 1 are weights of one bit, too: they get a scale, and are a factor of a
    product. A table of relative positions, which is added before a Softmax too, holds no huge numbers and is a weight.
    """
    if _is_bias(value, shape):
        return BIAS
    return MASK if _is_mask(value, numbers) else None


def _is_bias(value: ir.Value, shape: tuple[int, ...]) -> bool:
    line = sum(side > 1 for side in shape) <= 1
    added = _ADD if line else set()
    return _taken(value, _JOINED) <= _TAKE_BIAS or _taken(value, _SEEN_THROUGH) <= _TAKE_BIAS | added


def _taken(value: ir.Value, through: frozenset[str]) -> set[tuple[str, int]]:
    return {(use.kind, use.input_index) for use in ends(value, through)}


def _is_mask(value: ir.Value, numbers: Callable[[], NDArray[Any]]) -> bool:
    kinds = {use.kind for use in ends(value, _JOINED)}
    masks = all(_masks(use) for use in ends(value, _SUMMED))
    if kinds & _PRODUCTS and not masks:
        return False  # and the numbers are not looked at
    array = numbers()
    low, high = (float(end) for end in (array.min(initial=0), array.max(initial=0)))  # 0 is where nothing is masked
    huge = max(-low, high) >= _HUGE
    single = 0 in (low, high) and bool(((array == 0) | (array == (low or high))).all())
    if masks:
        return huge or single
    if not single or (huge and "" not in kinds):
        return single
    return high == 1 and kinds <= _ELEMENTWISE and not any(_scales(use, array.size) for use in ends(value, _JOINED))


def _scales(use: Use, size: int) -> bool:
    """Return whether a tensor of `size` numbers is given a scale that is known, and is a factor of a product then."""
    other = None if use.node is None or use.kind not in ("Mul", "Div") else use.node.inputs[1 - use.input_index]
    scale = None if other is None else ir.convenience.get_const_tensor(other)
    if (
        use.node is None or scale is None or scale.size >= size
    ):  # of as many numbers, the other is the weight, and this chooses from it
        return False
    return any(then.kind in _PRODUCTS for then in ends(use.node.outputs[0], _JOINED))


def _masks(use: Use) -> bool:
    return use.kind in ("Softmax", "Where") or (use.kind, use.input_index) in _TAKE_MASK
