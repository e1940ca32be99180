"""Asks onnxruntime whether the graph around decoded weights agrees with their shapes.

onnxruntime learns the shape of a decoded weight only when it folds the decode function, which its default settings do
and the quick look at a file does not. Zeros of the same shapes in place of the weights tell it at once, for a few
milliseconds whatever the weights take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ModelError
from onnx_analog.graph import files, runtime
from onnx_analog.graph.stored import Names, StoredTensor, stored_tensors

_AGREES = "onnx_analog.shapes_agree"  # in the graph's meta: no need to ask
_SMALL = 1024  # elements; larger constants hold weights, not shapes or axes


def check_shapes(model: ir.Model, schemes: Sequence[Scheme], tensors: Iterable[StoredTensor]) -> None:
    """Check that declared shapes, and the graph around the weights, agree with the shapes of protected tensors.

    Raises
    ------
    ModelError
        If a shape that the model declares is another, or onnxruntime refuses the graph.
    """
    for tensor in tensors:
        declared = tensor.node.outputs[0].shape
        if declared is not None and not _agree(declared, tensor.shape):
            raise tensor.damaged(f"the model declares its shape as {declared}, and it is {list(tensor.shape)}")
    if files.was_asked(model) and _AGREES not in model.graph.meta:
        refused = runtime.refusal(skeleton_of(model, schemes), warn=False)
        if refused is not None:
            raise ModelError(f"{files.name_of(model)}: onnxruntime refuses it: {refused}")
    vouch(model)


def vouch(model: ir.Model) -> None:
    """Note that the shapes agree: those of a model that was plain when onnxruntime took it."""
    model.graph.meta[_AGREES] = True


def _agree(declared: ir.Shape, shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(
        not isinstance(side, int) or side == length for side, length in zip(declared, shape, strict=True)
    )


def skeleton_of(model: ir.Model, schemes: Sequence[Scheme]) -> bytes:
    """Return a protected model, as ONNX bytes, with zeros in place of its weights; `model` is not changed."""
    skeleton = model.clone()
    skeleton.graph.meta.update(model.graph.meta)
    for tensor in stored_tensors(skeleton, schemes):
        _replace_call(tensor)
    names = Names(skeleton)
    for graph in skeleton.graphs():
        _drop_data(graph, names)
    proto: bytes = files.to_proto(skeleton).SerializeToString()
    return proto


def _replace_call(tensor: StoredTensor) -> None:
    call, output = tensor.node, tensor.node.outputs[0]
    zeros = _zeros(tensor.shape, tensor.dtype, tensor.names)
    tensor.graph.insert_before(call, zeros)
    output.replace_all_uses_with(zeros[-1].outputs[0], replace_graph_outputs=True)
    name = output.name
    tensor.graph.remove(call, safe=True)
    zeros[-1].outputs[0].name = name


def _zeros(shape: Sequence[int], dtype: ir.DataType, names: Names) -> list[ir.Node]:
    """Return the nodes that make zeros of a shape; the value of the last is to be named."""
    axes = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.tensor(np.array(shape, np.int64)))])
    axes.outputs[0].name = names.free("shape")
    zero = ir.Tensor(np.zeros(1, dtype.numpy()), dtype=dtype)
    zeros = ir.Node("", "ConstantOfShape", [axes.outputs[0]], [ir.AttrTensor("value", zero)])
    zeros.outputs[0].name = names.free("zeros")
    return [axes, zeros]


def _drop_data(graph: ir.Graph, names: Names) -> None:
    """Drop initializers that nothing uses, and put zeros in place of those that hold many numbers."""
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        unused = not tuple(value.uses()) and not value.is_graph_output()
        if value.is_graph_input() or tensor is None or (value.is_graph_output() and not unused):
            continue
        if unused:
            del graph.initializers[name]
        elif tensor.size > _SMALL and tensor.dtype.is_floating_point():
            zeros = _zeros(tuple(map(int, tensor.shape.numpy())), tensor.dtype, names)
            value.replace_all_uses_with(zeros[-1].outputs[0])
            del graph.initializers[name]
            for node in reversed(zeros):
                _insert_first(graph, node)


def _insert_first(graph: ir.Graph, node: ir.Node) -> None:
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)
