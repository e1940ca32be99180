"""A model without its weights, for asking onnxruntime whether the graph agrees with itself.

With its default settings onnxruntime folds constants, and then infers all shapes a second time, more strictly than when
it looks at a file first. What it refuses only then is found here on a copy in which weights are inputs: for a few
milliseconds, whatever the weights take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir

_SMALL = 1024  # elements; a larger constant holds weights, and not a shape or axes

Names = Callable[[str], str]


def free_names(model: ir.Model) -> Names:
    """Return a function that makes names which no value of `model` has."""
    taken = {value.name for graph in model.graphs() for value in _values(graph)}

    def free(name: str) -> str:
        new = next(f"{name}_{number}" for number in count(1) if f"{name}_{number}" not in taken)
        taken.add(new)
        return new

    return free


def _values(graph: ir.Graph | ir.Function) -> Iterable[ir.Value]:
    yield from graph.inputs
    if isinstance(graph, ir.Graph):
        yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def weights_to_inputs(model: ir.Model) -> None:
    """Make inputs of all large float initializers of `model`, in place, and drop those that nothing uses."""
    free = free_names(model)
    for graph in list(model.graphs()):
        for name, value in list(graph.initializers.items()):
            if value.is_graph_input() or value.const_value is None or value.is_graph_output():
                continue
            tensor = value.const_value
            if not tuple(value.uses()):
                del graph.initializers[name]
            elif tensor.size > _SMALL and tensor.dtype.is_floating_point():
                value.replace_all_uses_with(_input(model, tensor.shape.numpy(), tensor.dtype, free))
                del graph.initializers[name]
            elif isinstance(tensor, ir.ExternalTensor):  # onnxruntime would look for its file
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)


def _input(model: ir.Model, shape: Sequence[int], dtype: ir.DataType, free: Names) -> ir.Value:
    """Return a new input of the model, which its bodies see too."""
    value = ir.Value(name=free("weight"), shape=ir.Shape([int(side) for side in shape]), type=ir.TensorType(dtype))
    model.graph.inputs.append(value)
    return value


def call_to_input(
    model: ir.Model, call: ir.Node, shape: Sequence[int], dtype: ir.DataType, *, in_function: bool, free: Names
) -> None:
    """Put an input in place of a node with one output, or zeros where a function sees no input of the model."""
    output, graph, name = call.outputs[0], call.graph, call.outputs[0].name
    assert graph is not None
    if in_function or output.is_graph_output():
        nodes = _zeros(shape, dtype, free)
        graph.insert_before(call, nodes)
        output.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
        graph.remove(call, safe=True)
        nodes[-1].outputs[0].name = name
    else:
        output.replace_all_uses_with(_input(model, shape, dtype, free))
        graph.remove(call, safe=True)


def _zeros(shape: Sequence[int], dtype: ir.DataType, free: Names) -> list[ir.Node]:
    axes = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(np.array(shape, np.int64)))])
    axes.outputs[0].name = free("shape")
    zero = ir.Tensor(np.zeros(1, dtype.numpy()), dtype=dtype)
    zeros = ir.Node("", "ConstantOfShape", [axes.outputs[0]], [ir.AttrTensor("value", zero)])
    zeros.outputs[0].name = free("zeros")
    return [axes, zeros]
