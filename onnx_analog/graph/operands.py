"""What stored weights are multiplied by: the inputs of convolutions and matrix products, as models that return them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_analog.graph.stored import Names
from onnx_analog.graph.uses import ARRANGING, number_of, transposed
from onnx_analog.graph.weights import Weight

_OF_CONV = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")


@dataclass(frozen=True, eq=False, kw_only=True)
class Operand:
    """The input that a product with a weight takes.

    Attributes
    ----------
    key : str
        Storage key of the weight.
    name : str
        Of the value in the main graph.
    axes : tuple of int
        The order of the weight's axes in which it can be reshaped to (groups, outputs of a group, inputs of an output).
    groups : int
        Of outputs that have inputs of their own.
    inputs : int
        Of an output.
    transposed : bool
        Whether the input's first axis, of two, is that of the inputs.
    window : mapping of str to attribute, optional
        Of a convolution: each output then has a patch of the input for its inputs.
    kernel : tuple of int, optional
        Sides of the patch.
    """

    key: str
    name: str
    axes: tuple[int, ...]
    groups: int
    inputs: int
    transposed: bool = False
    window: Mapping[str, Any] | None = None
    kernel: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Operands:
    """The operands of weights; and, by storage key, why those of others are not known."""

    known: tuple[Operand, ...]
    left: Mapping[str, str]


def operands_of(model: ir.Model, weights: Sequence[Weight]) -> Operands:
    """Return what the weights of a plain model are multiplied by.

    A weight is left if one of its uses is not known, or its uses arrange it differently.
    """
    known: list[Operand] = []
    left: dict[str, str] = {}
    for weight in weights:
        found = list(_operands(model, weight))
        reason = next((each for each in found if isinstance(each, str)), None)
        own = [each for each in found if isinstance(each, Operand)]
        if reason is None and len({(each.axes, each.groups) for each in own}) != 1:
            reason = "its uses arrange it differently" if own else "nothing uses it"
        if reason is None:
            known += own
        else:
            left[weight.key] = reason
    return Operands(known=tuple(known), left=left)


def _operands(model: ir.Model, weight: Weight) -> Iterator[Operand | str]:
    """Yield the operand of each use of a weight, or why it is not known."""
    if weight.in_function:
        yield "in a function"
        return
    waiting = [(weight.value, tuple(range(len(weight.shape))))]
    for value, axes in waiting:  # what is passed on is added on the way
        if value.is_graph_output():
            yield "an output of the graph"
        for node, place in value.uses():
            known = node.domain in ("", "ai.onnx")
            if known and node.op_type in ARRANGING:
                waiting.append((node.outputs[0], transposed(node, axes)))
            elif node.graph is not model.graph:
                yield "in a branch or in the body of a loop"
            else:
                found = _operand(node, place, axes, weight) if known else None
                yield f"used by {node.op_type}" if found is None else found


def _operand(node: ir.Node, place: int, axes: tuple[int, ...], weight: Weight) -> Operand | None:
    """Return the operand of a node's product with its input `place`, whose axes are those of the weight in an order."""
    kind, other = node.op_type, node.inputs[1 - place] if place in (0, 1) else None
    if other is None or not other.name or any(attribute.is_ref() for attribute in node.attributes.values()):
        return None
    shape = [weight.shape[axis] for axis in axes]
    if (kind, place) == ("Conv", 1):
        window = {name: node.attributes[name] for name in _OF_CONV if name in node.attributes}
        groups, inputs = number_of(node, "group", 1), int(np.prod(shape[1:]))
        return Operand(
            key=weight.key,
            name=other.name,
            axes=axes,
            groups=groups,
            inputs=inputs,
            window=window,
            kernel=tuple(shape[2:]),
        )
    if (kind, place) == ("MatMul", 1) and len(shape) == 2:
        return Operand(key=weight.key, name=other.name, axes=axes[::-1], groups=1, inputs=shape[0])
    if (kind, place) == ("Gemm", 1):
        turned = bool(number_of(node, "transB", 0))
        return Operand(
            key=weight.key,
            name=other.name,
            axes=axes if turned else axes[::-1],
            groups=1,
            inputs=shape[1] if turned else shape[0],
            transposed=bool(number_of(node, "transA", 0)),
        )
    return None


# ----------------------------------------------------------------------------------------------------- graph


def with_operands(model: ir.Model, operands: Sequence[Operand]) -> ir.Model:
    """Return a copy of a model whose outputs are the operands, in their order.

    Of a convolution they are patches (N, C·k, ...): of each input channel the k numbers under the kernel, computed by
    a convolution of its own, so that padding, strides and dilations are those of the model.
    """
    copy = model.clone()
    names = Names(copy)
    values: dict[str | None, ir.Value] = {value.name: value for value in copy.graph.inputs}
    values |= {value.name: value for node in copy.graph for value in node.outputs}
    values.update(copy.graph.initializers)
    outputs = [_output(copy, names, values[operand.name], operand) for operand in operands]
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(outputs)
    return copy


def _output(model: ir.Model, names: Names, value: ir.Value, operand: Operand) -> ir.Value:
    """Add what returns an operand in float32, behind the value that it is taken from."""
    nodes = [ir.node("Cast", [value], {"to": ir.DataType.FLOAT.value})]
    if operand.window is not None:
        nodes.append(_patches(model, names, nodes[0].outputs[0], operand))
    for node in nodes:
        node.outputs[0].name = names.free(f"operand_{node.op_type}")
    model.graph.extend(nodes)
    output = nodes[-1].outputs[0]
    output.type = ir.TensorType(ir.DataType.FLOAT)
    return output


def _patches(model: ir.Model, names: Names, value: ir.Value, operand: Operand) -> ir.Node:
    """Return a convolution whose output channels are the numbers under each place of the kernel."""
    assert operand.window is not None
    assert operand.kernel is not None
    size = int(np.prod(operand.kernel))
    channels = operand.groups * operand.inputs // size
    one_hot = np.tile(np.eye(size, dtype=np.float32), (channels, 1)).reshape(channels * size, 1, *operand.kernel)
    name = names.free("operand_kernel")
    kernel = ir.Value(name=name, shape=ir.Shape(one_hot.shape), type=ir.TensorType(ir.DataType.FLOAT))
    kernel.const_value = ir.Tensor(one_hot, name=name)
    model.graph.register_initializer(kernel)
    return ir.node("Conv", [value, kernel], {**operand.window, "group": channels})
