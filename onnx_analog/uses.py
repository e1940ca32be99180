"""What the tensors of a model are for: whether anything uses them, and whether as weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

UNUSED = "nothing uses it"
BIAS = "a bias"
MASK = "a mask"

_HUGE = 8192.0  # exporters mask with -1e4 and beyond, even in half precision
_TAKE_BIAS = frozenset(  # and as which input; peepholes and scales are weights
    {("LSTM", 3), ("GRU", 3), ("RNN", 3), ("Gemm", 2), ("Conv", 2), ("ConvTranspose", 2), ("LayerNormalization", 2)}
)
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Einsum"})
# What may lie between a tensor and what it is for, and leaves its numbers as they are.
_SEEN_THROUGH = frozenset(
    {"Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice", "Tile"}
)
_JOINED = _SEEN_THROUGH | {"Concat"}
_SUMMED = _JOINED | {"Gather", "Add", "Sub", "Sum", "Clip"}  # what a mask is part of is masked by it


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


def other_use(value: ir.Value, shape: tuple[int, ...], numbers: Callable[[], NDArray[Any]]) -> str | None:
    """Return what a tensor is if it is no weight: a bias or a mask; else None.

    A bias is what operators take as such, or what has one side above 1 and is only added. A mask holds huge numbers
    and is only added to what a Softmax takes, or only chosen from by Where; or it holds zeros and one other number,
    and is used so, or that number is huge and the tensor is a factor of no product. A table of relative positions,
    which is added before a Softmax too, holds no huge numbers and is a weight.
    """
    if _is_bias(value, shape):
        return BIAS
    return MASK if _is_mask(value, numbers) else None


def _is_bias(value: ir.Value, shape: tuple[int, ...]) -> bool:
    line = sum(side > 1 for side in shape) <= 1
    added = {("Add", 0), ("Add", 1), *(("Sum", place) for place in range(8))} if line else set()
    return _ends(value, _JOINED) <= _TAKE_BIAS or _ends(value, _SEEN_THROUGH) <= _TAKE_BIAS | added


def _is_mask(value: ir.Value, numbers: Callable[[], NDArray[Any]]) -> bool:
    kinds, summed = ({kind for kind, _ in _ends(value, through)} for through in (_JOINED, _SUMMED))
    masks, product = summed <= {"Softmax", "Where"}, bool(kinds & _PRODUCTS)
    if product and not masks:
        return False  # and the numbers are not looked at
    array = numbers()
    low, high = (float(end) for end in (array.min(initial=0), array.max(initial=0)))  # 0 is where nothing is masked
    huge = max(-low, high) >= _HUGE
    single = 0 in (low, high) and bool(((array == 0) | (array == (low or high))).all())
    return (huge or single) if masks else (huge and single and "" not in kinds)


def _ends(value: ir.Value, through: frozenset[str]) -> set[tuple[str, int]]:
    """Return the operators that use `value` in the end, seen `through` others, and as which of their inputs.

    ("", 0) is an output of the graph, where all else is possible.
    """
    found, seen, waiting = set[tuple[str, int]](), {id(value)}, [value]
    while waiting:
        here = waiting.pop()
        if here.is_graph_output():
            found.add(("", 0))
        for node, place in here.uses():
            kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            if kind not in through:
                found.add((kind, place))
            elif id(node.outputs[0]) not in seen:
                seen.add(id(node.outputs[0]))
                waiting.append(node.outputs[0])
    return found
