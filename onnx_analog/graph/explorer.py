"""The ids that nodes of an ONNX model have in Model Explorer.

Its ONNX adapter (model-explorer-onnx 0.4) gives nodes without a name, or with one that is taken, the names of onnx_ir's
`NameFixPass`. It shows the nodes of the branches of an If among those around it, under the If's id and the branch; the
bodies of loops and functions are graphs of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from onnx_analog.graph.weights import scopes

_NO_NAME = "<main>"  # of a graph without a name


class Users(NamedTuple):
    """The nodes of the main graph that take weights.

    Attributes
    ----------
    graph : str
        The id of the main graph.
    of : mapping of str to sequence of str
        Ids of nodes, by the storage key of a weight.
    """

    graph: str
    of: Mapping[str, Sequence[str]]


def users_of(model: ir.Model, keys: Iterable[str]) -> Users:
    """Return the nodes of the main graph that take weights, which are given by their storage keys.

    Of a weight in the body of a loop, or in a function, they are the loops, and what calls the function. In a protected
    model, the weight is what a decode call returns, and has the name of the original.
    """
    found: dict[str, list[str]] = {key: [] for key in keys}
    ids = _ids(model)
    for scope, graph, _ in scopes(model):
        for value in (*graph.initializers.values(), *(value for node in graph for value in node.outputs)):
            users = found.get(f"{scope}{value.name}")
            if users is not None:
                users += [one for node, _ in value.uses() for one in ids.get(node, ())]
    name = model.graph.name
    return Users(_NO_NAME if name is None else name, {key: tuple(dict.fromkeys(ids)) for key, ids in found.items()})


def _ids(model: ir.Model) -> dict[ir.Node, tuple[str, ...]]:
    """Return the ids of what shows each node in the main graph."""
    names, ids = _names(model), dict[ir.Node, tuple[str, ...]]()

    def show(graph: ir.Graph, path: str) -> None:
        for node in graph:
            own = f"{path}{names[node]}"
            ids[node] = (own,)
            for attribute, body in _bodies(node):
                if (node.domain, node.op_type) in (("", "If"), ("ai.onnx", "If")):
                    show(body, f"{own}/{attribute}/")
                else:
                    hide(body, (own,))

    def hide(graph: ir.Graph, shown: tuple[str, ...]) -> None:
        for node in graph:
            ids[node] = shown
            for _, body in _bodies(node):
                hide(body, shown)

    show(model.graph, "")
    for _ in model.functions:  # a function may be called in another one, at most as often as there are functions
        calls = _calls(ids, model.functions)
        for name, function in model.functions.items():
            hide(function.graph, calls[name])
    return ids


def _calls(
    ids: Mapping[ir.Node, tuple[str, ...]], functions: Iterable[ir.OperatorIdentifier]
) -> dict[ir.OperatorIdentifier, tuple[str, ...]]:
    """Return the ids of what shows the calls of each function."""
    calls: dict[ir.OperatorIdentifier, list[str]] = {name: [] for name in functions}
    for node, shown in ids.items():
        if node.op_identifier() in calls:
            calls[node.op_identifier()] += shown
    return {name: tuple(dict.fromkeys(shown)) for name, shown in calls.items()}


def _names(model: ir.Model) -> dict[ir.Node, str]:
    """Return the name of each node as `NameFixPass` would give it; the model is not changed."""
    fixed = model.clone()
    NameFixPass()(fixed)
    return {node: str(other.name) for node, other in zip(_nodes(model), _nodes(fixed), strict=True)}


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    for _, graph, _ in scopes(model):
        yield from graph


def _bodies(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from ((attribute.name, body) for body in attribute.as_graphs())
