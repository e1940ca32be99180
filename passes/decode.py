"""Decode: a protected model becomes a plain one, with the weights as its levels have them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnx_analog.display import counted
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.stored import KEYS, NAME_KEY, StoredTensor

__all__ = ["DecodePass"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DecodePass(ir.passes.InPlacePass):
    """Fold each decode call into a plain tensor of the weight's name, type and shape, for any other tool.

    Raises
    ------
    ModelError
        If the model is not protected, or damaged.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Decode `model` in place."""
        decode_in_place(open_protected(model))
        return ir.passes.PassResult(model, modified=True)


def decode_in_place(protected: ProtectedModel) -> ir.Model:
    """Return the model that is open, with plain weights from now on."""
    weights = [(tensor, tensor.decode()) for tensor in protected.tensors]
    for tensor, weight in weights:
        _fold(tensor, weight)
    _clean(protected.model)
    logger.info("decoded %s", counted(len(weights), "tensor"))
    return protected.model


def _fold(tensor: StoredTensor, weight: np.ndarray) -> None:
    call, output = tensor.node, tensor.node.outputs[0]
    before = output.metadata_props.pop(NAME_KEY, tensor.name)
    name = tensor.name if tensor.in_function else before  # a Constant's output may not hide an outer value either
    plain = ir.Tensor(
        np.ascontiguousarray(weight),
        dtype=tensor.dtype,
        name=name,
        doc_string=call.doc_string,
        metadata_props=dict(call.metadata_props),
    )
    value = _plain(tensor, plain)
    value.doc_string = output.doc_string
    value.metadata_props.update(output.metadata_props)
    value.meta.update(output.meta)
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    planes = [plane for plane in call.inputs if plane is not None]
    tensor.graph.remove(call, safe=True)
    value.name = name
    if not tensor.in_function:
        tensor.graph.register_initializer(value)
    for plane in planes:
        _drop(plane)


def _plain(tensor: StoredTensor, plain: ir.TensorProtocol) -> ir.Value:
    """Return the value that holds the weight; functions own no initializers, so there it is a Constant's."""
    if not tensor.in_function:
        return ir.Value(shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=plain)
    node = ir.node("Constant", [], {"value": ir.AttrTensor("value", plain)})
    tensor.graph.insert_before(tensor.node, node)
    return node.outputs[0]


def _drop(plane: ir.Value) -> None:
    """Take a plane out of its graph once nothing uses it."""
    if tuple(plane.uses()):
        return
    producer = plane.producer()
    if producer is not None and producer.graph is not None:
        producer.graph.remove(producer, safe=True)
    elif plane.graph is not None and plane.is_initializer():
        del plane.graph.initializers[str(plane.name)]


def _clean(model: ir.Model) -> None:
    for identifier in [identifier for identifier in model.functions if identifier[0] == DOMAIN]:
        del model.functions[identifier]
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        graph.opset_imports.pop(DOMAIN, None)
    for key in KEYS:
        model.metadata_props.pop(key, None)
