"""Puts planes and the calls that decode them into a model, under names that nothing else has."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_analog.coding.codebook import Codebook
from onnx_analog.coding.planes import Axis
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OR_DECODE
from onnx_analog.graph.decoder import function_of
from onnx_analog.graph.files import name_of, vouch
from onnx_analog.graph.layout import DOMAIN, IR_VERSION, OLDEST_OPSET, VERSION, Layout, inputs_of, layout_of
from onnx_analog.graph.stored import (
    FORMAT,
    FORMAT_KEY,
    NAME_KEY,
    READBACK_KEY,
    SCHEMES_KEY,
    Names,
    StoredTensor,
    to_json,
)
from onnx_analog.graph.weights import Weight, bodies_of, scopes, taken_names

logger = logging.getLogger(__name__)

Tensors = dict[str, ir.TensorProtocol]  # planes by name


class Stored(NamedTuple):
    """One weight as it is stored."""

    scheme: Scheme
    layout: Layout
    axis: Axis | None
    codebook: Codebook
    planes: Tensors
    compensated: bool = False


def reason_against(model: ir.Model) -> str | None:
    """Return why `model` as a whole cannot be protected, and what to do; None if it can."""
    name = name_of(model)
    ours = {node.op_type for _, graph, _ in scopes(model) for node in graph if node.domain == DOMAIN}
    if FORMAT_KEY in model.metadata_props or any(map(layout_of, ours)):
        return f"{name} is protected already. Protect the original{OR_DECODE}."
    if ours or any(domain == DOMAIN for domain, _, _ in model.functions):
        return f"{name} has operators of the domain {DOMAIN!r}, which protected models need: rename it"
    opset = opset_of(model)
    if opset is None and any(node.domain == "" for node in model.graph.all_nodes()):
        return f"{name} imports no ONNX opset, though it has operators of it. Export it again."
    if opset is not None and opset < OLDEST_OPSET:
        return (
            f"{name} has opset {opset}, and weights cannot be decoded below opset {OLDEST_OPSET}. "
            f"Convert it: onnx.version_converter.convert_version(model, {OLDEST_OPSET})."
        )
    return None


def opset_of(model: ir.Model) -> int | None:
    """Return the version of the standard operators that `model` imports, if it does."""
    return model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx"))


def prepare(model: ir.Model) -> None:
    """Make room for local functions."""
    if model.ir_version < 4:  # all initializers had to be inputs, and from IR 4 on that would make them variable
        for name in [value.name for value in model.graph.inputs if value.name in model.graph.initializers]:
            _remove_input(model.graph, model.graph.initializers[str(name)])
    model.ir_version = max(model.ir_version or 0, IR_VERSION)


def _remove_input(graph: ir.Graph, value: ir.Value) -> None:
    for index, given in enumerate(graph.inputs):
        if given is value:
            graph.inputs.pop(index)  # not del, after which onnx_ir still takes it for an input
            return


class Builder:
    """Puts planes and calls into graphs, under names that nothing else has."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._taken = taken_names(graph for _, graph, _ in scopes(model))
        self._outer = dict(_outer_names(model))
        self._last: dict[int, ir.Node] = {}  # by graph: what was inserted last, so that the order of tensors is kept
        self._schemes: dict[Scheme, int] = {}
        self._layouts: dict[Layout, None] = {}

    def replace(self, weight: Weight, stored: Stored) -> None:
        """Put the planes, and the call that decodes them, in the place of `weight`."""
        tensors = {**stored.planes, **_codebook(stored, weight.shape)}
        inputs = [self._constant(weight, f"{weight.name}.{name}", tensors[name]) for name in inputs_of(stored.layout)]
        self._layouts[stored.layout] = None
        number = self._schemes.setdefault(stored.scheme, len(self._schemes))
        call = ir.node(stored.layout.name, inputs, _attributes(weight, number), domain=DOMAIN)
        call.name = f"{DOMAIN}/{weight.key}"
        if weight.node is not None:
            call.doc_string = weight.node.doc_string
            call.metadata_props.update(weight.node.metadata_props)
        call.doc_string = weight.tensor.doc_string or call.doc_string
        call.metadata_props.update(weight.tensor.metadata_props)
        self._insert(weight.graph, call)
        _take_over(weight, call.outputs[0], self._name(weight))

    def finish(self) -> None:
        """Add the functions that the calls need, and the metadata that says how the model was protected."""
        model, opset = self._model, opset_of(self._model)
        if opset is None:  # all operators are of other domains, and those of the decode may be of any opset
            opset = model.graph.opset_imports[""] = OLDEST_OPSET
        for layout in self._layouts:
            function = function_of(layout, opset)
            model.functions[function.identifier()] = function
        for graph in [model.graph, *(function.graph for function in model.functions.values())]:
            graph.opset_imports[DOMAIN] = VERSION
        model.metadata_props.pop(READBACK_KEY, None)  # of weights that were read from other cells, before
        model.metadata_props[FORMAT_KEY] = FORMAT
        vouch(model)
        model.metadata_props[SCHEMES_KEY] = to_json(tuple(self._schemes))

    def _name(self, weight: Weight) -> str:
        """Return what the decoded weight is called: a node's output may have no outer value's name, as tensors may."""
        return self._free(weight.name) if weight.name in self._outer[id(weight.graph)] else weight.name

    def _constant(self, weight: Weight, proposed: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Return an initializer, or the output of a Constant node where a function allows no other."""
        tensor.name = name = self._free(proposed)
        if not weight.in_function:
            value = ir.Value(name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype))
            value.const_value = tensor
            weight.graph.register_initializer(value)
            return value
        node = ir.node("Constant", [], {"value": ir.AttrTensor("value", tensor)})
        node.outputs[0].name = name
        self._insert(weight.graph, node)
        return node.outputs[0]

    def _insert(self, graph: ir.Graph, node: ir.Node) -> None:
        if id(graph) in self._last:
            graph.insert_after(self._last[id(graph)], node)
        elif len(graph):
            graph.insert_before(graph[0], node)
        else:
            graph.append(node)
        self._last[id(graph)] = node

    def _free(self, proposed: str) -> str:
        name, number = proposed, 0
        while name in self._taken:
            number += 1
            name = f"{proposed}_{number}"
        self._taken.add(name)
        return name


def detached(model: ir.Model, coded: Sequence[tuple[Weight, Stored]]) -> list[StoredTensor]:
    """Return the tensors that `Builder` would put into `model`, in no graph: to read them, and no more."""
    schemes: dict[Scheme, int] = {}
    names, tensors = Names(model), []
    for weight, stored in coded:
        number = schemes.setdefault(stored.scheme, len(schemes))
        planes = {**stored.planes, **_codebook(stored, weight.shape)}
        inputs = {name: ir.Value(name=name, const_value=planes[name]) for name in inputs_of(stored.layout)}
        node = ir.node(stored.layout.name, list(inputs.values()), _attributes(weight, number), domain=DOMAIN)
        tensors.append(
            StoredTensor(
                key=weight.key,
                scheme=stored.scheme,
                number=number,
                layout=stored.layout,
                node=node,
                graph=weight.graph,
                in_function=weight.in_function,
                inputs=inputs,
                names=names,
            )
        )
    return tensors


def _attributes(weight: Weight, number: int) -> dict[str, int | str]:
    return {"dtype": int(weight.tensor.dtype), "key": weight.key, "scheme": number}


def _codebook(stored: Stored, shape: tuple[int, ...]) -> Tensors:
    codebook, grouped = stored.codebook, stored.layout.grouped
    return {
        "alpha": ir.Tensor(codebook.alpha if grouped else codebook.alpha[0]),
        "beta": ir.Tensor(codebook.beta if grouped else codebook.beta[0]),
        "analog": ir.Tensor((np.array(stored.scheme.cells_of_class) > 0).astype(np.uint8)),
        "stride": ir.Tensor(np.array([0 if stored.axis is None else stored.axis.stride], np.int64)),
        "shape": ir.Tensor(np.array(shape, np.int64)),
    }


def _outer_names(model: ir.Model) -> Iterator[tuple[int, frozenset[str]]]:
    """Yield each graph of `model`, by id, and the names in all graphs around it."""
    waiting = [(graph, frozenset[str]()) for graph in (model.graph, *(f.graph for f in model.functions.values()))]
    while waiting:
        graph, names = waiting.pop()
        yield id(graph), names
        bodies = [body for node in graph for _, body in bodies_of(node)]
        if bodies:
            inner = names | taken_names([graph])
            waiting += [(body, inner) for body in bodies]


def _take_over(weight: Weight, output: ir.Value, name: str) -> None:
    """Give the decoded weight its `name`, and the uses of the weight that it stands for."""
    old = weight.value
    output.type = ir.TensorType(weight.tensor.dtype)
    output.shape = ir.Shape(weight.shape)
    output.doc_string = old.doc_string
    output.metadata_props.update(old.metadata_props)
    if name != weight.name:  # an initializer may hide an outer value; what a node computes may not
        output.metadata_props[NAME_KEY] = weight.name
    output.meta.update(old.meta)  # annotations of quantisation are there
    if old.is_graph_input():
        logger.warning("%s was an input with a default; protected, it is a constant", weight.key)
        _remove_input(weight.graph, old)
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    if weight.node is not None:
        weight.graph.remove(weight.node, safe=True)
    else:
        del weight.graph.initializers[weight.name]
    output.name = name
