"""What a model must be before anything is done with it.

The checks read the file's own message, before `onnx_ir` or onnxruntime make anything of it, and allocate nothing of
what the model asks for: their cost grows with the size of the file alone. Models may come from anybody.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import onnx

from onnx_analog.graph._external import External as External
from onnx_analog.graph._external import Folder
from onnx_analog.graph._model_tensors import TYPE_NAMES, Tensors
from onnx_analog.graph._model_tensors import Findings as Findings
from onnx_analog.graph._model_tensors import is_plain as is_plain
from onnx_analog.graph._model_text import Fault as Fault
from onnx_analog.graph._model_text import NotText as NotText
from onnx_analog.graph._model_text import check_text
from onnx_analog.graph._model_text import repair_text as repair_text

MOST_NESTED = 30  # graphs within graphs: protobuf reads 100 messages deep, and each graph takes three
MOST_INLINED = 100_000  # nodes that functions add where they are called: onnxruntime takes 0.1 ms and 3 kB for each

Identifier = tuple[str, str, str]  # domain, name, overload
_MAIN: Identifier = ("\0", "", "")  # stands for the main graph among functions


# --------------------------------------------------------------------------------------------------- the model


def check(model: onnx.ModelProto, path: Path | None) -> Findings:
    """Check a whole model, and return what is to be known of it.

    Parameters
    ----------
    model : onnx.ModelProto
        It is not changed.
    path : Path or None
        Where it was read, if it was: its external data lie in that folder.

    Raises
    ------
    Fault
        If something is wrong: the first that is found.
    NotText
        If a text is not UTF-8: see `repair_text`.
    """
    findings = Findings()
    check_text(model, model.producer_name, model.producer_version, model.domain)
    walk = _Walk(findings, Folder(path))
    for function in model.functions:
        check_text(function, function.name, function.domain, function.overload, *function.input, *function.output)
        if not function.name:
            raise Fault("a function has no name")
    functions = {_identifier(function): function for function in model.functions}
    if len(functions) < len(model.functions):
        twice = _first_twice(map(_identifier, model.functions))
        raise Fault(f"the function {_called(twice)} is there twice")
    _check_opsets(model.opset_import, "the model")
    _check_metadata(model.metadata_props)
    calls = {_MAIN: walk.graph(model.graph)}
    for identifier, function in functions.items():
        _check_opsets(function.opset_import, f"the function {_called(identifier)}")
        calls[identifier] = walk.function(function)
    _check_inlined(calls)
    for training in model.training_info:
        walk.training(training.initialization)
        walk.training(training.algorithm)
    findings.domains = {name[0] for called in calls.values() for name in called if name not in functions}
    return findings


def _identifier(function: onnx.FunctionProto) -> Identifier:
    return _domain(function.domain), function.name, function.overload


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _called(identifier: Identifier) -> str:
    return repr(".".join(part for part in identifier if part))


def _first_twice(items: Iterable[Identifier]) -> Identifier:
    return next(item for item, count in Counter(items).items() if count > 1)


def _check_opsets(imports: Iterable[onnx.OperatorSetIdProto], what: str) -> None:
    versions: dict[str, int] = {}
    for given in imports:
        domain = _domain(given.domain)
        if versions.setdefault(domain, given.version) != given.version:
            raise Fault(
                f"{what} imports opsets {versions[domain]} and {given.version} of the domain {domain or 'ai.onnx'!r}"
            )


def _check_metadata(entries: Iterable[onnx.StringStringEntryProto]) -> None:
    values: dict[str, str] = {}
    for entry in entries:
        if values.setdefault(entry.key, entry.value) != entry.value:
            raise Fault(f"the metadata entry {entry.key!r} is there twice, and not with the same value")


def _check_inlined(calls: Mapping[Identifier, Counter[Identifier]]) -> None:
    """Refuse functions that call themselves, or one another so often that onnxruntime would not end inlining them."""
    sizes: dict[Identifier, int] = {}
    opened = {_MAIN: iter(calls[_MAIN])}
    while opened:
        name, waiting = next(reversed(opened.items()))
        called = next((called for called in waiting if called in calls and called not in sizes), None)
        if called is None:
            size = sum(count * sizes.get(inner, 1) for inner, count in calls[name].items())
            sizes[name] = size if name is _MAIN else min(size, 2 * MOST_INLINED)  # enough is enough
            del opened[name]
        elif called in opened:
            raise Fault(f"the function {_called(called)} calls itself, which no runtime can inline")
        else:
            opened[called] = iter(calls[called])
    added = sizes[_MAIN] - calls[_MAIN].total()
    if added > MOST_INLINED:
        raise Fault(
            f"its functions call one another so often that they stand for more than {MOST_INLINED:,} nodes, which is "
            "the most that is run"
        )


# -------------------------------------------------------------------------------------------------- its graphs

_Graph = onnx.GraphProto | onnx.FunctionProto


@dataclass
class _Scope:
    """One graph: the values it knows, and which of its nodes need which."""

    graph: _Graph
    where: str  # " of the body 'then_branch'", or "" for the main graph
    attributes: frozenset[str] | None  # of the function that it is in
    parent: _Scope | None = None
    owner: int = 0  # the index of the parent's node that it belongs to
    depth: int = 0
    producers: dict[str, int] = field(default_factory=dict)  # the index of a node; -1 for an input or initializer
    needs: list[tuple[int, int]] = field(default_factory=list)  # (producer, consumer)

    def declare(self, name: str, producer: int, what: str) -> None:
        """Note who makes the value called `name`."""
        if name in self.producers:
            raise Fault(f"the {what} {name!r}{self.where} has the name of another value. Each needs one of its own.")
        self.producers[name] = producer

    def resolve(self, name: str, consumer: int) -> bool:
        """Note that a node needs the value called `name`; return whether there is such a value."""
        scope = self
        while name not in scope.producers:
            if scope.parent is None:
                return False
            scope, consumer = scope.parent, scope.owner
        if scope.producers[name] >= 0:
            scope.needs.append((scope.producers[name], consumer))
        return True

    def body(self, graph: onnx.GraphProto, attribute: str, index: int) -> _Scope:
        """Return the scope of a graph that a node of this one holds."""
        if self.depth == MOST_NESTED:
            raise Fault(f"it has graphs in graphs, more than {MOST_NESTED} deep")
        return _Scope(graph, f" of a body {attribute!r}", self.attributes, self, index, self.depth + 1)


class _Walk:
    """Goes through graphs and all that is in them, without recursion."""

    def __init__(self, findings: Findings, folder: Folder) -> None:
        self._findings, self._tensors = findings, Tensors(findings, folder)

    def graph(self, graph: onnx.GraphProto) -> Counter[Identifier]:
        """Check the main graph; return how often it uses each operator, in its bodies too."""
        return self._all(_Scope(graph, "", None))

    def function(self, function: onnx.FunctionProto) -> Counter[Identifier]:
        """Check a function, as `graph` does."""
        where = f" of the function {_called(_identifier(function))}"
        for attribute in function.attribute_proto:
            self._tensors.attribute(attribute, where, constant=False)
            if _bodies(attribute):
                raise Fault(f"the attribute {attribute.name!r}{where} holds a graph, which cannot be read")
        own = frozenset([*function.attribute, *(attribute.name for attribute in function.attribute_proto)])
        return self._all(_Scope(function, where, own))

    def training(self, graph: onnx.GraphProto) -> None:
        """Check the tensors of a graph of training, whose values are partly those of the main graph."""
        self._tensors.initializers(graph, " for training", mapped=False)
        for node in graph.node:
            for attribute in node.attribute:
                self._tensors.attribute(attribute, " for training", constant=False)

    def _all(self, outermost: _Scope) -> Counter[Identifier]:
        calls: Counter[Identifier] = Counter()
        scopes = [outermost]
        for scope in scopes:  # bodies are added on the way
            self._declare(scope)
            for index, node in enumerate(scope.graph.node):
                calls[_domain(node.domain), node.op_type, node.overload] += 1
                scopes += [scope.body(body, name, index) for name, body in self._node(node, scope)]
        for scope in scopes:
            _connect(scope)
        for scope in scopes:
            _check_acyclic(scope)
        return calls

    def _declare(self, scope: _Scope) -> None:
        graph = scope.graph
        check_text(graph, graph.name)
        if isinstance(graph, onnx.GraphProto):
            for given in graph.input:
                scope.declare(given.name, -1, "input")
            self._tensors.initializers(graph, scope.where, mapped=scope.attributes is None)
            given_too = set(scope.producers)
            for name in _initializers(graph, scope.where):
                if name not in given_too:
                    scope.producers[name] = -1
            self._types(graph.input, graph.output)
        else:
            for name in graph.input:
                scope.declare(name, -1, "input")
        self._types(graph.value_info)
        for index, node in enumerate(graph.node):
            for name in node.output:
                if name:
                    scope.declare(name, index, "output")

    def _types(self, *values: Iterable[onnx.ValueInfoProto]) -> None:
        for value in chain(*values):
            check_text(value, value.name, *(side.dim_param for side in value.type.tensor_type.shape.dim))
            if value.type.HasField("tensor_type"):
                if value.type.tensor_type.elem_type not in TYPE_NAMES and value.type.tensor_type.elem_type:
                    raise Fault(
                        f"the value {value.name!r} has type {value.type.tensor_type.elem_type}, unknown to ONNX"
                    )
            elif not is_plain(value.type):
                self._findings.types = True

    def _node(self, node: onnx.NodeProto, scope: _Scope) -> list[tuple[str, onnx.GraphProto]]:
        check_text(node, node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
        names: set[str] = set()
        bodies: list[tuple[str, onnx.GraphProto]] = []
        for attribute in node.attribute:
            where = f"{scope.where} of node {node.name or ', '.join(node.output)!r}"
            if attribute.name in names:
                raise Fault(f"the attribute {attribute.name!r}{where} is there twice")
            names.add(attribute.name)
            if attribute.ref_attr_name and attribute.ref_attr_name not in (scope.attributes or ()):
                raise Fault(
                    f"the attribute {attribute.name!r}{where} is that of a function, {attribute.ref_attr_name!r}, and "
                    "there is none"
                )
            constant = node.op_type == "Constant" and not _domain(node.domain)
            self._tensors.attribute(attribute, where, constant=constant)
            bodies += [(attribute.name, body) for body in _bodies(attribute)]
        if node.op_type == "Scan":
            for _, body in bodies:
                _check_returned(node, body)
        return bodies


def _check_returned(node: onnx.NodeProto, body: onnx.GraphProto) -> None:
    """Check that the body of a Scan returns no value twice, and no input: onnxruntime would leave it uncomputed."""
    count = Counter(output.name for output in body.output)
    wrong = {name: "twice" for name, times in count.items() if times > 1}
    wrong |= {given.name: "as it takes it" for given in body.input if given.name in count}
    for name, how in wrong.items():
        raise Fault(
            f"the body of node {_title(node)} returns {name!r} {how}, which onnxruntime computes wrong: return a copy "
            "of it, from Identity"
        )


def _bodies(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _initializers(graph: onnx.GraphProto, where: str) -> Iterator[str]:
    seen: set[str] = set()
    for name in chain(
        (tensor.name for tensor in graph.initializer), (tensor.values.name for tensor in graph.sparse_initializer)
    ):
        if not name:
            raise Fault(f"an initializer{where} has no name")
        if name in seen:
            raise Fault(
                f"the initializer {name!r}{where} is there twice, and tools differ in which they take. Rename one."
            )
        seen.add(name)
        yield name


def _connect(scope: _Scope) -> None:
    for index, node in enumerate(scope.graph.node):
        for name in node.input:
            if name and not scope.resolve(name, index):
                raise Fault(f"node {_title(node)}{scope.where} takes {name!r}, which is nowhere in the model")
    sparse = set(_sparse_values(scope.graph))
    for output in scope.graph.output:
        name = output if isinstance(output, str) else output.name
        if not scope.resolve(name, len(scope.graph.node)):
            raise Fault(f"the output {name!r}{scope.where} is nowhere in the model")
        if name in sparse:
            raise Fault(
                f"the output {name!r}{scope.where} is a sparse tensor, and tensors are made dense here: remove it from "
                "the outputs, or make it dense"
            )


def _sparse_values(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[str]:
    """Yield the names of a graph's sparse tensors."""
    if isinstance(graph, onnx.GraphProto):
        yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        if any(attribute.HasField("sparse_tensor") for attribute in node.attribute):
            yield from node.output


def _title(node: onnx.NodeProto) -> str:
    return repr(node.name or next(filter(None, node.output), "")) + f" ({node.op_type})"


def _check_acyclic(scope: _Scope) -> None:
    if all(producer < consumer for producer, consumer in scope.needs):
        return  # in the order that ONNX asks for
    followers: dict[int, list[int]] = defaultdict(list)
    missing: Counter[int] = Counter()
    for producer, consumer in scope.needs:
        followers[producer].append(consumer)
        missing[consumer] += 1
    ready = [index for index in range(len(scope.graph.node) + 1) if not missing[index]]
    for index in ready:  # those that become so are added on the way
        for consumer in followers[index]:
            missing[consumer] -= 1
            if not missing[consumer]:
                ready.append(consumer)
    if len(ready) <= len(scope.graph.node):
        index = next(index for index, count in missing.items() if count and index < len(scope.graph.node))
        raise Fault(f"node {_title(scope.graph.node[index])}{scope.where} needs what is computed from its own output")
