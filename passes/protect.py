"""Protect: a weight becomes mask, sign, class and level, and a call that puts it together again.

    W  =  Decode(W.level, W.sign, W.class, W.alpha, W.beta, W.shape)

Sign and class are kept apart from the level, each class is scaled to the channel's span, and large weights may get
more cells than small ones (Isik et al. 2020, section 2). The model computes what it computed before: a tensor whose
decode would be off by more than `onnx_analog.coding.fidelity` allows stays digital, with a warning. The call keeps W's
name, but in a body, where an outer value may have it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.channels import Channel
from onnx_analog.channels.base import Span
from onnx_analog.channels.pcm import pcm
from onnx_analog.coding import strategies
from onnx_analog.coding.fidelity import Deviation, excess
from onnx_analog.coding.planes import (
    Code,
    Cut,
    Fitted,
    Part,
    Planes,
    WeightClass,
    fit,
    pack,
    planes_of,
    split,
    take_apart,
)
from onnx_analog.coding.side import Header
from onnx_analog.errors import ModelError, NothingToStore, OptionError, whole
from onnx_analog.graph.decoder import (
    DENSE_INPUTS,
    DOMAIN,
    INPUTS,
    IR_VERSION,
    MASKED_INPUTS,
    OLDEST_OPSET,
    VERSION,
    functions,
)
from onnx_analog.graph.files import name_of
from onnx_analog.graph.kept import forget_training, trained_names
from onnx_analog.graph.stored import FORMAT, FORMAT_KEY, NAME_KEY, PROTECTION_KEY, READBACK_KEY, Protection
from onnx_analog.graph.weights import UNFIT, Found, Selection, Weight, bodies_of, find, scopes, taken_names

__all__ = ["ProtectPass"]

logger = logging.getLogger(__name__)

AT_ONCE = 128 * 2**20  # bytes; larger models are encoded again when they are written, for they may not fit in memory


@dataclass(frozen=True, kw_only=True)
class ProtectPass(ir.passes.InPlacePass):
    """Replace every selected weight by its planes.

    Parameters
    ----------
    strategy : {"redundancy", "mapping", "sign", "raw"}
        The rows of the paper's Table 1; see `onnx_analog.coding.strategies`.
    cells_small, cells_large : int, >= 1
        Cells per weight of either class; a read averages over them. Strategies other than `redundancy` use
        `cells_small` for all.
    scope : {"tensor", "model"}
        Whether each tensor has its own bounds, α and β, or all share one set (the paper). Exporters fold BatchNorm into
        Conv, so that tensors differ in scale by orders of magnitude: `tensor` is the better choice then.
    large_fraction : float, 0 <= large_fraction <= 1
        Share of a scope's stored weights, the largest, that are large; ties by flat index.
    threshold : float, > 0, optional
        Magnitudes above it are large, in all tensors; replaces `large_fraction`.
    channel : Channel
        What the cells do; it gives the span.
    bits_per_cell : int, 1 to 8
        Digital bits that one cell of the header holds.
    header_channel : Channel, optional
        What the header's cells do; without it sign and class bits are free of error, as in the paper.
    header_reads, header_copies : int, >= 1, the latter odd
        Cells that are averaged for one symbol of the header, and copies of it that vote; see `onnx_analog.coding.side`.
    selection : Selection
        Which tensors.

    Raises
    ------
    OptionError
        If an option is out of its range.
    ModelError
        If the model is protected already, older than opset 11, or has operators of the decode's domain.
    NothingToStore
        If no tensor is selected, or none of those can be stored.
    """

    strategy: str = "redundancy"
    cells_small: int = 1
    cells_large: int = 20
    scope: str = "tensor"
    large_fraction: float = strategies.LARGE_FRACTION
    threshold: float | None = None
    channel: Channel = field(default_factory=pcm)
    bits_per_cell: int = 2
    header_channel: Channel | None = None
    header_reads: int = 1
    header_copies: int = 1
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        if self.scope not in strategies.SCOPES:
            raise OptionError(f"scope is {self.scope!r}; choose from {', '.join(strategies.SCOPES)}")
        if not 1 <= whole("bits_per_cell", self.bits_per_cell) <= 8:
            raise OptionError(f"bits_per_cell is {self.bits_per_cell}; it must be from 1 to 8")
        self._protection()  # and with it code and header

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Protect `model` in place; nothing is changed unless all can be."""
        against = reason_against(model)
        if against is not None:
            raise ModelError(against)
        found = find(model, self.selection)
        for weight, reason in found.skipped:
            if reason in UNFIT:  # it was asked for
                logger.warning("%s stays digital: %s", weight.key, reason)
        large = sum(weight.tensor.nbytes for weight in found.weights) > AT_ONCE
        later = _Later(self.code, self.channel.span) if large else None
        coded = [pair for group in self._groups(found.weights) for pair in self._encode(group, later)]
        if not coded:
            raise NothingToStore(_nothing(found, name_of(model)))
        protection = self._protection().to_json()  # while nothing is changed yet
        _forget_training(model, [weight for weight, _ in coded])
        _prepare(model)
        builder = _Builder(model)
        for weight, stored in coded:
            builder.replace(weight, stored)
        _finish(model, protection)
        return ir.passes.PassResult(model, modified=True)

    @property
    def code(self) -> Code:
        """How the weights of one scope become planes."""
        names = ("strategy", "cells_small", "cells_large", "large_fraction", "threshold")
        return Code(**{name: getattr(self, name) for name in names})

    def _protection(self) -> Protection:
        return Protection(
            strategy=self.strategy,
            scope=self.scope,
            cells=self.code.cells,
            bits_per_cell=int(self.bits_per_cell),
            channel=self.channel,
            header=self._header(),
        )

    def _header(self) -> Header | None:
        if self.header_channel is None:
            if (self.header_reads, self.header_copies) != (1, 1):
                raise OptionError("header_reads and header_copies need a header_channel: the header is free of error")
            return None
        return Header(
            channel=self.header_channel,
            bits_per_cell=int(self.bits_per_cell),
            reads=whole("header_reads", self.header_reads),
            copies=whole("header_copies", self.header_copies),
        )

    # ------------------------------------------------------------------------------------------ numbers

    def unfit(self, weights: Sequence[Weight]) -> dict[str, str]:
        """Return why some of the selected `weights`, by key, would stay digital, as their magnitudes are."""
        scopes = [self._settled(group, _Parts(self.code, keep=True)) for group in self._groups(weights)]
        return {weight.key: reason for scope in scopes for weight, reason in scope.unfit}

    def _groups(self, weights: Sequence[Weight]) -> list[list[Weight]]:
        return [list(weights)] if self.scope == "model" and weights else [[weight] for weight in weights]

    def _encode(self, group: list[Weight], later: _Later | None) -> Iterator[tuple[Weight, Stored]]:
        """Yield each weight of one scope that can be stored, and how it is."""
        parts = _Parts(self.code, keep=later is None)
        weights, fitted, unfit = self._settled(group, parts)
        for weight, reason in unfit:
            logger.warning("%s stays digital: %s", weight.key, reason)
        if fitted is None:
            return
        for place in (place for place, found in enumerate(fitted.classes) if found.low == found.high):
            where = "the model" if self.scope == "model" else weights[0].key
            logger.warning("%s: no weight is %s, so that class is empty", where, ("small", "large")[place])
        if later is not None:
            yield from zip(weights, later.stored(weights, fitted), strict=True)
            return
        for weight, cut in zip(weights, fitted.cuts, strict=True):
            planes = planes_of(parts.of(weight), fitted.classes, cut, span=self.channel.span)
            yield weight, Stored(fitted.classes, _packed(planes))

    def _settled(self, group: list[Weight], parts: _Parts) -> _Settled:
        """Return the weights of one scope that can share its classes, those classes, and why the others stay digital.

        Where they cannot share them all, those leave first that have no place in classes of their own either; then
        those whose largest magnitude is the furthest, as a factor, from the middle one: as few as will do.
        """
        fitted, reason = self._tried(group, parts)
        if reason is None:
            return _Settled(group, fitted, [])
        if len(group) == 1:
            return _Settled([], None, [(group[0], reason)])
        alone = {id(weight): self._tried([weight], parts)[1] for weight in group}
        unfit = [(weight, why) for weight in group if (why := alone[id(weight)]) is not None]
        left = [weight for weight in group if alone[id(weight)] is None]
        fitted, reason = self._tried(left, parts) if left else (None, None)
        if reason is None:
            return _Settled(left, fitted, unfit)
        left, gone = self._parted(left, parts)
        unfit += [(weight, f"{reason}; this tensor is furthest from the others") for weight in gone]
        return _Settled(left, self._tried(left, parts)[0], unfit)

    def _parted(self, group: list[Weight], parts: _Parts) -> tuple[list[Weight], list[Weight]]:
        """Return those that can share classes, and the others: as few as will do, by halving, the furthest first."""
        far = _furthest_first(group)

        def without(count: int) -> list[Weight]:
            gone = {id(weight) for weight in far[:count]}
            return [weight for weight in group if id(weight) not in gone]

        few, enough = 0, len(group) - 1  # one that has a place alone has one
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (few, middle) if self._tried(without(middle), parts)[1] is None else (middle, enough)
        return without(enough), far[:enough]

    def _tried(self, group: Sequence[Weight], parts: _Parts) -> tuple[Fitted | None, str | None]:
        """Return the classes that the weights of `group` share, and why they cannot, or None."""
        try:
            fitted = fit(_Sizes(group, parts), self.code, span=self.channel.span)
        except ModelError as error:
            return None, str(error)
        for weight, cut, count in zip(group, fitted.cuts, fitted.counts, strict=True):
            found = excess(weight.array(), count, self.code, fitted.classes, cut, span=self.channel.span)
            if found is not None:
                return None, _told(fitted.classes, weight if len(group) > 1 else None, found)
        return fitted, None


def _told(classes: Sequence[WeightClass], whose: Weight | None, found: Deviation) -> str:
    high = max(abs(end) for one in classes for end in (one.low, one.high))
    if whose is None:
        return f"its weights, up to {high:.3g}, lie too far apart: small ones decode {found}"
    return f"one scale for all tensors, up to {high:.3g}, makes small weights of {whose.key} decode {found}"


def _furthest_first(weights: Sequence[Weight]) -> list[Weight]:
    sizes = [float(np.log2(np.abs(weight.array().astype(np.float64)).max())) for weight in weights]
    middle = float(np.median(sizes))
    order = sorted(range(len(weights)), key=lambda place: (-abs(sizes[place] - middle), -sizes[place]))
    return [weights[place] for place in order]


class _Settled(NamedTuple):
    """What becomes of the weights of one scope."""

    weights: list[Weight]  # that are stored
    fitted: Fitted | None  # None if there are none
    unfit: list[tuple[Weight, str]]


def _nothing(found: Found, name: str) -> str:
    """Say that nothing is stored, and why not the largest tensor."""
    if found.weights:
        return f"no tensor of {name} can be stored, so there is nothing to store"
    said = f"no tensor of {name} is selected, so there is nothing to store"
    if not found.skipped:
        return f"{said}: it has none. Weights that are attributes of nodes are not taken."
    largest, reason = max(found.skipped, key=lambda skipped: skipped[0].size)
    return f"{said}. The largest, {largest.key!r}, stays digital: {reason}."


# ----------------------------------------------------------------------------------------------- the planes


Tensors = dict[str, ir.TensorProtocol | None]  # planes by name; None for those that the strategy does not have


class Stored(NamedTuple):
    """One weight as it is stored: the classes of its scope, and its planes."""

    classes: tuple[WeightClass, ...]
    planes: Tensors


def _packed(planes: Planes) -> Tensors:
    """Return planes as they stand in a model: bits in bytes."""
    bits = {"mask": planes.mask, "sign": planes.sign, "class": planes.class_index}
    packed = {name: None if found is None else ir.Tensor(pack(found)) for name, found in bits.items()}
    return {"level": ir.Tensor(planes.level), **packed}


class _Parts:
    """What is stored of weights: with `keep`, computed once; else anew each time, as large models need it."""

    def __init__(self, code: Code, *, keep: bool) -> None:
        self._code = code
        self._kept: dict[int, Part] | None = {} if keep else None

    def of(self, weight: Weight) -> Part:
        """Return what of one weight is stored."""
        if self._kept is None:
            return split(weight.array(), sign_in_header=self._code.sign_in_header)
        if id(weight) not in self._kept:
            self._kept[id(weight)] = split(weight.array(), sign_in_header=self._code.sign_in_header)
        return self._kept[id(weight)]


class _Sizes:
    """The sizes of a group of weights; one may go through them several times."""

    def __init__(self, group: Sequence[Weight], parts: _Parts) -> None:
        self._group, self._parts = group, parts

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for weight in self._group:
            yield self._parts.of(weight).size


class _Later:
    """Planes that are computed when they are asked for: memory then holds those of one tensor at a time."""

    def __init__(self, code: Code, span: Span) -> None:
        self._code, self._span = code, span
        self._last: tuple[ir.TensorProtocol, Tensors] | None = None  # planes of one tensor are asked for in a row

    def stored(self, group: list[Weight], fitted: Fitted) -> list[Stored]:
        """Return the weights of one scope, and its classes, as they are stored."""
        return [
            Stored(fitted.classes, self._planes(weight.tensor, fitted.classes, cut, count))
            for weight, cut, count in zip(group, fitted.cuts, fitted.counts, strict=True)
        ]

    def _planes(
        self, tensor: ir.TensorProtocol, classes: tuple[WeightClass, ...], cut: Cut | None, count: int
    ) -> Tensors:
        def plane(name: str) -> Callable[[], Any]:
            return lambda: self._computed(tensor, classes, cut)[name]

        bits = {
            "mask": tensor.size if count < tensor.size else 0,
            "sign": count * self._code.sign_in_header,
            "class": count * (cut is not None),
        }
        found: Tensors = {"level": ir.LazyTensor(plane("level"), ir.DataType.FLOAT, ir.Shape([count]))}
        for name, number in bits.items():
            shape = ir.Shape([-(-number // 8)])
            found[name] = ir.LazyTensor(plane(name), ir.DataType.UINT8, shape) if number else None
        return found

    def _computed(self, tensor: ir.TensorProtocol, classes: tuple[WeightClass, ...], cut: Cut | None) -> Tensors:
        if self._last is None or self._last[0] is not tensor:
            self._last = None  # before the next ones take their place in memory
            planes = take_apart(tensor.numpy(), self._code, classes, cut, span=self._span)
            self._last = (tensor, _packed(planes))
        return self._last[1]


# ---------------------------------------------------------------------------------------------- the graph


def reason_against(model: ir.Model) -> str | None:
    """Return why `model` as a whole cannot be protected, and what to do; None if it can."""
    name = name_of(model)
    ours = {node.op_type for _, graph, _ in scopes(model) for node in graph if node.domain == DOMAIN}
    if FORMAT_KEY in model.metadata_props or not ours.isdisjoint(INPUTS):
        return f"{name} is protected already. Protect the original, or run DecodePass on this one first."
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


def _forget_training(model: ir.Model, weights: Sequence[Weight]) -> None:
    """Drop what says how to train the model if it is about weights that are initializers no more."""
    names = trained_names(model).intersection(weight.name for weight in weights if weight.graph is model.graph)
    if names:
        logger.warning("the model's training information is dropped: it refers to %s, which is stored", min(names))
        forget_training(model)


def _prepare(model: ir.Model) -> None:
    """Make room for local functions."""
    if model.ir_version < 4:  # all initializers had to be inputs, and from IR 4 on that would make them variable
        for name in [value.name for value in model.graph.inputs if value.name in model.graph.initializers]:
            _remove_input(model.graph, model.graph.initializers[str(name)])
    model.ir_version = max(model.ir_version or 0, IR_VERSION)


def _remove_input(graph: ir.Graph, value: ir.Value) -> None:
    for place, found in enumerate(graph.inputs):
        if found is value:
            graph.inputs.pop(place)  # not del, after which onnx_ir still takes it for an input
            return


def _finish(model: ir.Model, protection: str) -> None:
    opset = opset_of(model)
    if opset is None:  # all operators are of other domains, and those of the decode may be of any opset
        opset = model.graph.opset_imports[""] = OLDEST_OPSET
    for function in functions(opset):
        model.functions[function.identifier()] = function
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        graph.opset_imports[DOMAIN] = VERSION
    model.metadata_props.pop(READBACK_KEY, None)  # of weights that were read from other cells, before
    model.metadata_props[FORMAT_KEY] = FORMAT
    model.metadata_props[PROTECTION_KEY] = protection


class _Builder:
    """Puts planes and calls into graphs, under names that nothing else has."""

    def __init__(self, model: ir.Model) -> None:
        self._taken = taken_names(graph for _, graph, _ in scopes(model))
        self._outer = dict(_outer_names(model))
        self._empty: dict[int, ir.Value] = {}  # by graph
        self._last: dict[int, ir.Node] = {}  # by graph: what was inserted last, so that the order of tensors is kept

    def replace(self, weight: Weight, stored: Stored) -> None:
        """Put the planes, and the call that decodes them, in the place of `weight`."""
        tensors = {**stored.planes, **_codebook(stored.classes, weight.shape)}
        masked = stored.planes["mask"] is not None
        inputs = [self._plane(weight, name, tensors[name]) for name in (MASKED_INPUTS if masked else DENSE_INPUTS)]
        attributes: dict[str, int | str] = {"dtype": int(weight.tensor.dtype), "key": weight.key}
        call = ir.node("DecodeMasked" if masked else "Decode", inputs, attributes, domain=DOMAIN)
        call.name = f"{DOMAIN}/{weight.key}"
        if weight.node is not None:
            call.doc_string = weight.node.doc_string
            call.metadata_props.update(weight.node.metadata_props)
        call.doc_string = weight.tensor.doc_string or call.doc_string
        call.metadata_props.update(weight.tensor.metadata_props)
        self._insert(weight.graph, call)
        _take_over(weight, call.outputs[0], self._name(weight))

    def _name(self, weight: Weight) -> str:
        """Return what the decoded weight is called: a node's output may have no outer value's name, as tensors may."""
        return self._free(weight.name) if weight.name in self._outer[id(weight.graph)] else weight.name

    def _plane(self, weight: Weight, name: str, tensor: ir.TensorProtocol | None) -> ir.Value:
        if tensor is not None:
            return self._constant(weight, f"{weight.name}.{name}", tensor)
        if id(weight.graph) not in self._empty:  # one stands for all planes that the strategy does not have
            self._empty[id(weight.graph)] = self._constant(weight, f"{DOMAIN}.none", ir.Tensor(np.zeros(0, np.uint8)))
        return self._empty[id(weight.graph)]

    def _constant(self, weight: Weight, wanted: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Return an initializer, or the output of a Constant node where a function allows no other."""
        tensor.name = name = self._free(wanted)
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

    def _free(self, wanted: str) -> str:
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def _codebook(classes: Sequence[WeightClass], shape: tuple[int, ...]) -> dict[str, ir.TensorProtocol]:
    return {
        "alpha": ir.Tensor(np.array([c.alpha for c in classes], np.float32)),
        "beta": ir.Tensor(np.array([c.beta for c in classes], np.float32)),
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
    """Give the decoded weight its `name`, and the uses of the one that it stands for."""
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
