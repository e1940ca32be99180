"""What a model must be before anything is done with it.

The checks read the file's own message, before `onnx_ir` or onnxruntime make anything of it, and allocate nothing of
what the model asks for: their cost grows with the size of the file alone. Models may come from anybody.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_analog.disk import reading
from onnx_analog.errors import ModelError

MOST_NESTED = 30  # graphs within graphs: protobuf reads 100 messages deep, and each graph takes three
MOST_INLINED = 100_000  # nodes that functions add where they are called: onnxruntime takes 0.1 ms and 3 kB for each
MOST_DENSE = 2**30  # bytes of all sparse tensors together, once dense: 119 bytes of file can ask for any number
MOST_LOADED = 1536 * 2**20  # bytes of constants that lie in other files: they are read, and written into the model
_MOST_ELEMENTS = 2**48  # of a tensor, zeros among its sides left out: numpy and onnxruntime count in 64 bits
_MOST_AXES = 64  # numpy's

_NAMES: dict[int, str] = {kind.value: kind.name for kind in ir.DataType if kind != ir.DataType.UNDEFINED}
_BITS: dict[int, int] = {kind.value: kind.bitwidth for kind in ir.DataType if kind.name not in ("UNDEFINED", "STRING")}
_FIELDS: dict[int, str] = {
    **dict.fromkeys(_NAMES, "int32_data"),
    **dict.fromkeys((onnx.TensorProto.FLOAT, onnx.TensorProto.COMPLEX64), "float_data"),
    **dict.fromkeys((onnx.TensorProto.DOUBLE, onnx.TensorProto.COMPLEX128), "double_data"),
    **dict.fromkeys((onnx.TensorProto.UINT32, onnx.TensorProto.UINT64), "uint64_data"),
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.STRING: "string_data",
}
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_RANGES: dict[int, tuple[int, int]] = {  # of what int32_data may hold: the bits of a float16 among it
    kind: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if _NAMES[kind].startswith("INT") else (0, 2**bits - 1)
    for kind, bits in _BITS.items()
    if bits in (8, 16) and _NAMES[kind] != "BOOL"
}

Identifier = tuple[str, str, str]  # domain, name, overload
_MAIN: Identifier = ("\0", "", "")  # stands for the main graph among functions


class Fault(ValueError):  # noqa: N818 - of the model, and not of the program
    """What is wrong with a model, without its name."""


class NotText(Exception):  # noqa: N818 - it may be repaired
    """Some text in a model is not UTF-8."""


@dataclass(frozen=True)
class External:
    """Where the data of a tensor lie, all of it checked."""

    file: Path
    offset: int
    length: int


@dataclass
class Findings:
    """What the checks came across."""

    initializers: list[tuple[onnx.TensorProto, External]] = field(default_factory=list)
    others: list[tuple[onnx.TensorProto, External]] = field(default_factory=list)  # attributes and parts of sparse ones
    sparse: bool = False
    types: bool = False  # types that `onnx_ir` cannot hold
    domains: set[str] = field(default_factory=set)  # of the operators that are no functions of the model
    most_initializers: int = 0  # of one graph


class Folder:
    """The files beside a model that its tensors may lie in."""

    def __init__(self, model: Path | None) -> None:
        self._model = model
        self._sizes: dict[str, tuple[Path, int]] = {}
        if model is not None:
            real = model.resolve()  # a link in a hub's cache, whose data lie beside what it leads to
            self._roots = (model.parent.resolve(), real.parent)

    def external(self, tensor: onnx.TensorProto, needed: int) -> External:
        """Return where the data of `tensor` lie, of which `needed` bytes must be there."""
        said = _entries(tensor)
        location, name = said.get("location", ""), tensor.name
        if self._model is None:
            raise Fault(f"tensor {name!r} is in another file: give the model's path, or load its data first")
        if location not in self._sizes:
            self._sizes[location] = self._find(location, name)
        file, size = self._sizes[location]
        offset = _whole(said.get("offset", "0"), "offset", name)
        length = _whole(said.get("length", "0"), "length", name) or needed
        if length != needed:
            raise Fault(f"tensor {name!r} takes {needed:,} bytes, and its length is given as {length:,}. Export again.")
        if size < offset + length:
            raise Fault(self._kept(name, location, "which is too short for it. Copy or download it again."))
        return External(file, offset, length)

    def _find(self, location: str, name: str) -> tuple[Path, int]:
        assert self._model is not None
        if not location or "\0" in location:
            raise Fault(f"tensor {name!r} lies in another file that is not named. Export the model again.")
        beside = self._model.parent / location
        inside = os.path.normpath(location)
        if Path(location).is_absolute() or inside == os.pardir or inside.startswith(os.pardir + os.sep):
            raise Fault(
                f"tensor {name!r} lies outside the model's folder, in {location!r}. Export the model again, with its "
                "data beside it."
            )
        real = Path(os.path.realpath(beside))
        if not any(real.is_relative_to(root) for root in self._roots):
            raise Fault(
                f"tensor {name!r} lies outside the model's folder: {location!r} is a link, and onnxruntime does not "
                "follow it. Copy the folder first: cp -rL."
            )
        if not os.path.lexists(beside):
            raise Fault(self._kept(name, location, "which is not there. Put it beside the model."))
        return real, reading.size_of(real, error=ModelError)

    def _kept(self, name: str, location: str, what: str) -> str:
        return f"keeps tensor {name!r} in {Path(location).name!r}, {what}"


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in found:
            raise Fault(f"tensor {tensor.name!r} says twice what the {entry.key} of its data is. Export again.")
        found[entry.key] = entry.value
    return found


def _whole(text: str, what: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Fault(f"tensor {name!r} lies in another file, and its {what} is {text!r}, no number of bytes")
    return int(text)


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
    found = Findings()
    _check_text(model, model.producer_name, model.producer_version, model.domain)
    walk = _Walk(found, Folder(path))
    for function in model.functions:
        _check_text(function, function.name, function.domain, function.overload, *function.input, *function.output)
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
    found.domains = {name[0] for called in calls.values() for name in called if name not in functions}
    return found


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
    owner: int = 0  # the place of the parent's node that it belongs to
    depth: int = 0
    producers: dict[str, int] = field(default_factory=dict)  # the place of a node; -1 for an input or initializer
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

    def body(self, graph: onnx.GraphProto, attribute: str, place: int) -> _Scope:
        """Return the scope of a graph that a node of this one holds."""
        if self.depth == MOST_NESTED:
            raise Fault(f"it has graphs in graphs, more than {MOST_NESTED} deep")
        return _Scope(graph, f" of a body {attribute!r}", self.attributes, self, place, self.depth + 1)


class _Walk:
    """Goes through graphs and all that is in them, without recursion."""

    def __init__(self, found: Findings, folder: Folder) -> None:
        self._found, self._tensors = found, _Tensors(found, folder)

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
            for place, node in enumerate(scope.graph.node):
                calls[_domain(node.domain), node.op_type, node.overload] += 1
                scopes += [scope.body(body, name, place) for name, body in self._node(node, scope)]
        for scope in scopes:
            _connect(scope)
        for scope in scopes:
            _check_acyclic(scope)
        return calls

    def _declare(self, scope: _Scope) -> None:
        graph = scope.graph
        _check_text(graph, graph.name)
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
        for place, node in enumerate(graph.node):
            for name in node.output:
                if name:
                    scope.declare(name, place, "output")

    def _types(self, *values: Iterable[onnx.ValueInfoProto]) -> None:
        for value in chain(*values):
            _check_text(value, value.name, *(side.dim_param for side in value.type.tensor_type.shape.dim))
            if value.type.HasField("tensor_type"):
                if value.type.tensor_type.elem_type not in _NAMES and value.type.tensor_type.elem_type:
                    raise Fault(
                        f"the value {value.name!r} has type {value.type.tensor_type.elem_type}, unknown to ONNX"
                    )
            elif not is_plain(value.type):
                self._found.types = True

    def _node(self, node: onnx.NodeProto, scope: _Scope) -> list[tuple[str, onnx.GraphProto]]:
        _check_text(node, node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
        names: set[str] = set()
        found: list[tuple[str, onnx.GraphProto]] = []
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
            found += [(attribute.name, body) for body in _bodies(attribute)]
        if node.op_type == "Scan":
            for _, body in found:
                _check_returned(node, body)
        return found


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


def is_plain(kind: onnx.TypeProto) -> bool:
    """Return whether `onnx_ir` can hold a type: tensors, and sequences and optionals of them."""
    while True:
        which = kind.WhichOneof("value")
        if which in ("sequence_type", "optional_type"):
            kind = getattr(kind, which).elem_type
            if kind.WhichOneof("value") is None:
                return False
            continue
        if which in ("tensor_type", "sparse_tensor_type"):
            return getattr(kind, which).elem_type in _NAMES
        return which is None


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
    for place, node in enumerate(scope.graph.node):
        for name in node.input:
            if name and not scope.resolve(name, place):
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
    ready = [place for place in range(len(scope.graph.node) + 1) if not missing[place]]
    for place in ready:  # those that become so are added on the way
        for consumer in followers[place]:
            missing[consumer] -= 1
            if not missing[consumer]:
                ready.append(consumer)
    if len(ready) <= len(scope.graph.node):
        place = next(place for place, count in missing.items() if count and place < len(scope.graph.node))
        raise Fault(f"node {_title(scope.graph.node[place])}{scope.where} needs what is computed from its own output")


# ------------------------------------------------------------------------------------------------- its tensors


class _Tensors:
    """Checks tensors: what each says of itself, and that its data are there."""

    def __init__(self, found: Findings, folder: Folder) -> None:
        self._found, self._folder = found, folder
        self._dense = self._loaded = 0  # bytes

    def initializers(self, graph: onnx.GraphProto, where: str, *, mapped: bool) -> None:
        """Check the initializers of a graph; `mapped` if those in other files may stay there."""
        self._found.most_initializers = max(self._found.most_initializers, len(graph.initializer))
        for tensor in graph.initializer:
            external = self._check(tensor, f"tensor {tensor.name!r}{where}")
            if external is not None and mapped:
                self._found.initializers.append((tensor, external))
            elif external is not None:
                self._load(tensor, external)
        for sparse in graph.sparse_initializer:
            self._sparse(sparse, f"the sparse tensor {sparse.values.name!r}{where}")

    def attribute(self, attribute: onnx.AttributeProto, where: str, *, constant: bool) -> None:
        """Check the tensors of an attribute."""
        _check_text(attribute, attribute.name, attribute.ref_attr_name)
        what = f"the attribute {attribute.name!r}{where}"
        if attribute.type == onnx.AttributeProto.TENSOR and not (attribute.HasField("t") or attribute.ref_attr_name):
            raise Fault(f"{what} is to be a tensor, and holds none. Export the model again.")
        for tensor in [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]:
            external = self._check(tensor, what)
            if external is not None:
                self._load(tensor, external)
        if attribute.HasField("sparse_tensor") and constant:
            self._sparse(attribute.sparse_tensor, what)
        elif attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise Fault(f"{what} is a sparse tensor, which only a Constant may hold here")
        for kind in [*([attribute.tp] if attribute.HasField("tp") else []), *attribute.type_protos]:
            if not is_plain(kind):
                raise Fault(f"{what} is a type that cannot be read: maps and opaque types are not")

    def _load(self, tensor: onnx.TensorProto, external: External) -> None:
        self._loaded += external.length
        if self._loaded > MOST_LOADED:
            raise Fault(
                f"its constants in other files have more than the {MOST_LOADED:,} bytes that are read. Make them "
                "initializers."
            )
        self._found.others.append((tensor, external))

    def _sparse(self, sparse: onnx.SparseTensorProto, what: str) -> None:
        self._found.sparse = True
        size = _elements(sparse.dims, what)
        for part, name in ((sparse.values, "values"), (sparse.indices, "indices")):
            external = self._check(part, f"{what}: its {name}")
            if external is not None:
                self._load(part, external)
        bits = _BITS.get(sparse.values.data_type)
        if bits is None or bits < 8:
            raise Fault(f"{what} has values of type {_NAMES[sparse.values.data_type]}, which cannot be sparse here")
        count = math.prod(sparse.values.dims)
        shapes = ([count], [count, len(sparse.dims)])
        if sparse.indices.data_type != onnx.TensorProto.INT64 or list(sparse.indices.dims) not in shapes:
            raise Fault(
                f"{what} has {count:,} values, and its indices are not INT64 of shape {shapes[0]} or {shapes[1]}"
            )
        self._dense += size * bits // 8
        if self._dense > MOST_DENSE:
            raise Fault(f"{what} takes {size * bits // 8:,} bytes once dense, and all may take {MOST_DENSE:,} together")

    def _check(self, tensor: onnx.TensorProto, what: str) -> External | None:
        """Check a tensor; return where its data lie if it is in another file."""
        _check_text(tensor, tensor.name)
        kind = tensor.data_type
        if kind not in _NAMES:
            raise Fault(f"{what} has type {kind}, which ONNX does not know. Export the model again.")
        if tensor.HasField("segment"):
            raise Fault(f"{what} is a segment of a tensor, which no runtime reads. Export the model again.")
        size = _elements(tensor.dims, what)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if kind not in _BITS or tensor.HasField("raw_data"):
                raise Fault(
                    f"{what} has its data in another file and in the model, or is text. Export the model again."
                )
            return self._folder.external(tensor, _bytes(kind, size))
        if tensor.HasField("raw_data") and kind in _BITS:
            found, needed, unit = len(tensor.raw_data), _bytes(kind, size), "bytes"
            own = None
        else:
            own = _FIELDS[kind]
            found, needed, unit = len(getattr(tensor, own)), _numbers(kind, size), "numbers"
        if found != needed:
            shape = "x".join(map(str, tensor.dims)) or "one number"
            raise Fault(f"{what} has {found:,} {unit} of data; {_NAMES[kind]} of shape {shape} needs {needed:,}")
        if any(len(getattr(tensor, name)) for name in _TYPED if name != own) or (own and tensor.raw_data):
            raise Fault(f"{what} has data of two kinds, and tools differ in which they take. Export the model again.")
        if own == "int32_data" and kind in _RANGES and size:
            _check_range(tensor, what)
        return None


def _elements(dims: Sequence[int], what: str) -> int:
    if any(side < 0 for side in dims):
        raise Fault(f"{what} has a negative side: {list(dims)[:8]}")
    if math.prod(side or 1 for side in dims) > _MOST_ELEMENTS or len(dims) > _MOST_AXES:
        raise Fault(f"{what} has a shape beyond all bounds: {list(dims)[:8]}")
    return math.prod(dims)


def _bytes(kind: int, size: int) -> int:
    return -(-size * _BITS[kind] // 8)


def _numbers(kind: int, size: int) -> int:
    """Return how many numbers a typed field of TensorProto needs: complex ones are two, and small ones share one."""
    if _NAMES[kind].startswith("COMPLEX"):
        return 2 * size
    return -(-size * _BITS[kind] // 8) if _BITS.get(kind) in (2, 4) else size


def _check_range(tensor: onnx.TensorProto, what: str) -> None:
    least, most = _RANGES[tensor.data_type]
    held = np.array(tensor.int32_data, np.int32)
    if held.min() < least or held.max() > most:
        raise Fault(f"{what} is {_NAMES[tensor.data_type]}, and holds {held.min()} to {held.max()}")


# ---------------------------------------------------------------------------------------------------- its text


def _check_text(message: Any, *names: object) -> None:
    """Raise `NotText` if a name of `message`, or what describes it, is not UTF-8: protobuf gives it as bytes then."""
    if isinstance(message.doc_string, bytes) or any(isinstance(name, bytes) for name in names):
        raise NotText
    for entry in getattr(message, "metadata_props", ()):
        if isinstance(entry.key, bytes) or isinstance(entry.value, bytes):
            raise NotText


def repair_text(model: onnx.ModelProto) -> None:
    """Replace what is not UTF-8 in descriptions, as onnxruntime does not read them; refuse it in anything else.

    Raises
    ------
    Fault
        If a name, or another text that has a meaning, is not UTF-8.
    """
    waiting: list[tuple[str, Any]] = [("the model", model)]
    while waiting:
        where, message = waiting.pop()
        for part in message.DESCRIPTOR.fields:
            if part.message_type is None:
                _repair_field(message, part, where)
                continue
            held = getattr(message, part.name)
            if part.is_repeated:
                waiting += [(f"{where}, {part.name} {place}", inner) for place, inner in enumerate(held)]
            elif message.HasField(part.name):
                waiting.append((f"{where}, {part.name}", held))


def _repair_field(message: Any, part: Any, where: str) -> None:
    if part.type not in (part.TYPE_STRING, part.TYPE_BYTES) or part.name in ("raw_data", "string_data", "s"):
        return
    held = getattr(message, part.name)
    for text in held if part.is_repeated else [held]:
        if isinstance(text, bytes) and not _is_utf8(text):
            if part.name != "doc_string":
                raise Fault(f"{where}: its {part.name} is not UTF-8 text: {text[:40]!r}. Rename it.")
            message.doc_string = text.decode(errors="replace")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
