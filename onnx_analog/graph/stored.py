"""Protected tensors, found again in a protected model.

A protected tensor is one call of a decode function. Its planes are what the call is given, its storage key is an
attribute of the call, and what all tensors share is in the model's metadata: so other tools may rename values or lift
them out of a branch, and a tensor keeps its planes, its key and its random stream.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import channels, serialise
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding import planes
from onnx_analog.coding.side import Header
from onnx_analog.coding.strategies import MOST_CELLS, SCOPES, strategy
from onnx_analog.errors import ChannelError, ModelError, OptionError, whole
from onnx_analog.graph.decoder import DOMAIN, INPUTS
from onnx_analog.graph.weights import FLOATS, scopes, taken_names
from onnx_analog.randomness import blocks, stream

FORMAT = "1"
FORMAT_KEY = "onnx_analog.format"
PROTECTION_KEY = "onnx_analog.protection"
SOURCE_KEY = "onnx_analog.source_sha256"
COMMAND_KEY = "onnx_analog.command"
MANIFEST_KEY = "onnx_analog.manifest"
NAME_KEY = "onnx_analog.name"  # of a decoded weight: what it was called, if a value outside had that name
READBACK_KEY = "onnx_analog.readback"  # not among KEYS: plain weights tell it as well
READ_DIGESTS_KEY = "onnx_analog.readback_sha256"  # of the planes as they were read
KEYS = (FORMAT_KEY, PROTECTION_KEY, SOURCE_KEY, COMMAND_KEY, MANIFEST_KEY, READ_DIGESTS_KEY)

AGAIN = "Protect the original again."

Floats = NDArray[np.float32]

# -------------------------------------------------------------------------------------- what all tensors share


@dataclass(frozen=True, kw_only=True)
class Protection:
    """How a model was protected: what its metadata keep of it."""

    strategy: str
    scope: str
    cells: tuple[int, ...]  # per class
    bits_per_cell: int
    channel: Channel
    header: Header | None = None  # None: sign and class bits are free of error

    def __post_init__(self) -> None:
        most = self.channel.most_cells
        if most is not None and max(self.cells, default=0) > most:
            raise ChannelError(
                f"{self.channel} is read cell by cell, so a weight can have at most {most:,} cells; "
                f"here it has {max(self.cells):,}"
            )

    def to_json(self) -> str:
        """Return the metadata entry."""
        body = {
            "strategy": self.strategy,
            "scope": self.scope,
            "cells": self.cells,
            "bits_per_cell": self.bits_per_cell,
            "channel": lean(self.channel.to_dict()),
            "header": None if self.header is None else self.header_dict(),
        }
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"))

    def header_dict(self) -> dict[str, Any]:
        """Return how the header is stored, ready for JSON."""
        assert self.header is not None
        return {
            "channel": lean(self.header.channel.to_dict()),
            "reads": self.header.reads,
            "copies": self.header.copies,
        }

    @staticmethod
    def of(model: ir.Model) -> Protection:
        """Return how `model` was protected.

        Raises
        ------
        ModelError
            If it is not protected, or not in a way that this version can read.
        """
        found = model.metadata_props.get(FORMAT_KEY)
        if found is None and is_protected(model):
            raise ModelError(f"the model lost its metadata entry {FORMAT_KEY!r} to another tool. {AGAIN}")
        if found is None:
            raise ModelError("the model is not protected: run `onnx-analog protect` on it first")
        if found != FORMAT:
            raise ModelError(f"the model is protected in format {found}, and this version reads format {FORMAT}")
        try:
            return _protection(serialise.parse(model.metadata_props[PROTECTION_KEY]))
        except ChannelError:
            raise
        except Exception as error:  # a channel of another package may raise anything
            told = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise ModelError(f"metadata entry {PROTECTION_KEY!r} is damaged: {told}. {AGAIN}") from error


def _protection(body: Any) -> Protection:
    """Return what JSON says; raises `ChannelError`, or an error that is no `ModelError`, if it cannot be so."""
    if not isinstance(body, Mapping):
        raise TypeError("it is no object")
    bits = whole("bits_per_cell", body["bits_per_cell"])
    found = Protection(
        strategy=_field(body, "strategy", str),
        scope=_field(body, "scope", str),
        cells=tuple(whole("cells", cells) for cells in _field(body, "cells", list)),
        bits_per_cell=bits,
        channel=channels.from_dict(_field(body, "channel", dict)),
        header=None if body["header"] is None else _header(_field(body, "header", dict), bits),
    )
    if found.scope not in SCOPES:
        raise OptionError(f"no scope is called {found.scope!r}")
    if not 1 <= found.bits_per_cell <= 8:
        raise OptionError(f"bits_per_cell is {found.bits_per_cell}; it must be from 1 to 8")
    if not found.cells or found.cells != strategy(found.strategy).cells(found.cells[0], found.cells[-1]):
        raise OptionError(f"cells are {found.cells}, which strategy {found.strategy!r} cannot have")
    if not all(1 <= cells <= MOST_CELLS for cells in found.cells):
        raise OptionError(f"cells are {found.cells}; they must be from 1 to {MOST_CELLS:,}")
    return found


def _field(body: Mapping[str, Any], name: str, kind: type) -> Any:
    if not isinstance(body[name], kind):
        raise TypeError(f"{name} is {json.dumps(body[name])[:40]}, which is not a valid value")
    return body[name]


def readable(model: ir.Model) -> Protection:
    """Return how `model` was protected, if what it holds are the levels that were written.

    Raises
    ------
    ModelError
        If it is not protected, or was read from noisy cells already: read again, it would have their noise twice.
    """
    protection, read = Protection.of(model), read_back(model)
    if read is not None:
        raise ModelError(
            f"the model was read from noisy cells already ({read}). Name the protected model, which has every trial; "
            "readback --decoded makes a plain one of a single trial."
        )
    return protection


def read_back(model: ir.Model) -> str | None:
    """Return the metadata entry that `ReadbackPass` leaves: "seed 0, trial 0, channel pcm"; None if there is none."""
    return model.metadata_props.get(READBACK_KEY)


def lean(body: Mapping[str, Any], *, samples: bool = True) -> dict[str, Any]:
    """Return a channel's fields without samples of noise that it does not draw from.

    With `samples` False, without any: a manifest says where noise comes from, and has no use for it.
    """
    keep = samples and body.get("family") == "empirical"
    left = {name: value for name, value in body.items() if name != "residuals"}
    inner = {name: value for name, value in left.items() if isinstance(value, Mapping)}
    return {**left, **{name: dict(value) if keep else lean(value, samples=samples) for name, value in inner.items()}}


def _header(body: Mapping[str, Any], bits_per_cell: int) -> Header:
    channel = channels.from_dict(_field(body, "channel", dict))
    return Header(channel=channel, bits_per_cell=bits_per_cell, reads=body["reads"], copies=body["copies"])


def is_protected(model: ir.Model) -> bool:
    """Return whether `model` holds protected tensors."""
    return FORMAT_KEY in model.metadata_props or any(True for _ in _calls(model))


# ------------------------------------------------------------------------------------------------ one tensor


class _Names:
    """The names of all values of a model, looked up once, when one is asked for."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model

    @cached_property
    def _taken(self) -> set[str]:
        return taken_names(graph for _, graph, _ in scopes(self._model))

    def free(self, name: str) -> str:
        """Return `name` with a number that makes it new in every graph: in a body it could shadow an outer one."""
        found = next(f"{name}_{number}" for number in count(1) if f"{name}_{number}" not in self._taken)
        self._taken.add(found)
        return found


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One protected tensor: N weights of n are stored, in K classes.

    What it says is what the model says: `onnx_analog.graph.protected.opened` checks that it can be so.
    """

    key: str
    node: ir.Node  # the call that decodes it
    graph: ir.Graph
    in_function: bool
    inputs: dict[str, ir.Value]
    names: _Names

    @property
    def name(self) -> str:
        """The weight's name in its own graph."""
        return self.node.outputs[0].name or ""

    @property
    def uses(self) -> int:
        """How many inputs of nodes, and graph outputs, the weight feeds."""
        output = self.node.outputs[0]
        return len(tuple(output.uses())) + output.is_graph_output()

    @property
    def dtype(self) -> ir.DataType:
        """The weight's element type."""
        return ir.DataType(self.node.attributes["dtype"].as_int())

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return tuple(int(side) for side in self.plane("shape"))

    def plane(self, name: str) -> NDArray[Any]:
        """Return one input of the call; empty if the strategy has no such plane.

        Raises
        ------
        ModelError
            If the model does not hold it.
        """
        if name not in self.inputs:
            return np.zeros(0, np.uint8)
        try:
            return self.held(name).numpy()
        except (ValueError, TypeError, OSError) as error:
            raise self.damaged(f"its {name} cannot be read ({error})") from error

    def held(self, name: str) -> ir.TensorProtocol:
        """Return one input of the call as the model holds it: of an initializer, or of a Constant node.

        Raises
        ------
        ModelError
            If the model does not hold it.
        """
        value = self.inputs[name]
        tensor, producer = value.const_value, value.producer()
        if producer is not None:
            attribute = producer.attributes.get("value") if _is_constant(producer) else None
            tensor = attribute.as_tensor() if attribute is not None and attribute.type == _TENSOR else None
        if tensor is None:
            raise self.damaged(f"its {name} is not in the model")
        return tensor

    def damaged(self, what: str) -> ModelError:
        """Return the error that says what is wrong with this tensor."""
        return ModelError(f"tensor {self.key!r}: {what}. {AGAIN}")

    @cached_property
    def level(self) -> Floats:
        """Levels (N,), float32."""
        return self.plane("level")

    @cached_property
    def alpha(self) -> Floats:
        """α of each class (K,), float32."""
        return self.plane("alpha")

    @cached_property
    def beta(self) -> Floats:
        """β of each class (K,), float32."""
        return self.plane("beta")

    @cached_property
    def mask(self) -> planes.Bits | None:
        """Which weights are stored (n,), or None if all are."""
        packed = self.plane("mask")
        return planes.unpack(packed, self.size) if packed.size else None

    @cached_property
    def sign(self) -> planes.Bits | None:
        """True where negative (N,), or None if the level carries the sign."""
        packed = self.plane("sign")
        return planes.unpack(packed, self.count) if packed.size else None

    @cached_property
    def class_index(self) -> planes.Bytes | None:
        """Class (N,), or None if there is one only."""
        packed = self.plane("class")
        return planes.unpack(packed, self.count).view(np.uint8) if packed.size else None

    @property
    def size(self) -> int:
        """n, the number of weights."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """N, the number of weights that are stored."""
        return int(self.held("level").size)

    def has(self, name: str) -> bool:
        """Return whether the strategy, or the tensor, has a plane; none is computed for that."""
        return name in self.inputs and self.held(name).size > 0

    def class_counts(self) -> NDArray[np.int64]:
        """Return how many weights each class holds (K,)."""
        packed = self.plane("class")
        if not packed.size:
            return np.array([self.count])
        large = int(np.bitwise_count(packed).sum(dtype=np.int64))
        return np.array([self.count - large, large])

    @property
    def header_bits(self) -> int:
        """Bits of sign and class for each stored weight."""
        return self.has("sign") + (self.alpha.size - 1).bit_length()

    def decode(self, level: Floats | None = None) -> NDArray[Any]:
        """Return the weight that `level` (N,), or the stored levels, stand for: in its own shape and type."""
        stored = planes.unlevel(
            self.level if level is None else level, self.sign, self.class_index, self.alpha, self.beta
        )
        dense: NDArray[Any] = planes.join(stored, self.mask).reshape(self.shape).astype(self.dtype.numpy(), copy=False)
        return dense

    def replace_level(self, level: Floats) -> None:
        """Put other levels (N,) in place of the stored ones."""
        self._replace("level", level)

    def replace_header(self, sign: planes.Bits | None, class_index: planes.Bytes | None) -> None:
        """Put other signs and classes (N,) in place of the stored ones."""
        for name, bits in (("sign", sign), ("class", class_index)):
            if bits is not None:
                self._replace(name, planes.pack(bits))

    def _replace(self, name: str, plane: NDArray[Any]) -> None:
        value = self.inputs[name]
        if len(tuple(value.uses())) > 1 or value.is_graph_output():  # another tool merged planes that were equal
            value = self._own(name, value)
        tensor = ir.Tensor(plane, name=value.name)
        producer = value.producer()
        if producer is not None:
            producer.attributes["value"] = ir.AttrTensor("value", tensor)
        if producer is None or value.const_value is not None:
            value.const_value = tensor

    def _own(self, name: str, shared: ir.Value) -> ir.Value:
        """Return a copy of a plane that this call alone uses, under a name that no graph of the model has."""
        wanted = self.names.free(str(shared.name))
        if self.in_function:
            node = ir.node("Constant", [], {"value": ir.AttrTensor("value", ir.tensor(self.plane(name)))})
            self.graph.insert_before(self.node, node)
            own = node.outputs[0]
            own.name = wanted
        else:
            own = ir.Value(name=wanted, shape=shared.shape, type=shared.type, const_value=self.held(name))
            self.graph.register_initializer(own)
        self.node.replace_input_with(INPUTS[self.node.op_type].index(name), own)
        self.inputs[name] = own
        return own

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each plane's bytes, as hex."""
        names = [name for name in ("level", "mask", "sign", "class") if name in self.inputs]
        planes = {name: np.ascontiguousarray(self.plane(name)) for name in names}
        return {name: hashlib.sha256(plane.data).hexdigest() for name, plane in planes.items() if plane.size}


_TENSOR = ir.AttributeType.TENSOR


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def stored_tensors(model: ir.Model) -> list[StoredTensor]:
    """Return the protected tensors of `model`, in the order in which they stand in it: one for each call.

    Raises
    ------
    ModelError
        If there is none, or a call has not the inputs and attributes that it must have.
    """
    names = _Names(model)
    found = [_stored(*call, names) for call in _calls(model)]
    if not found:
        raise ModelError(f"the model holds no protected tensor: another tool decoded it. {AGAIN}")
    return found


def _calls(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Graph, bool]]:
    """Yield the nodes that are of our domain, but for those inside its functions."""
    own = {id(function.graph) for name, function in model.functions.items() if name[0] == DOMAIN}
    for _, graph, in_function in scopes(model):
        if id(graph) not in own:
            yield from ((node, graph, in_function) for node in graph if node.domain == DOMAIN)


def _stored(node: ir.Node, graph: ir.Graph, in_function: bool, names: _Names) -> StoredTensor:
    name = node.outputs[0].name if node.outputs else node.name
    if node.op_type not in INPUTS or node.overload:
        called = f"{node.op_type}:{node.overload}" if node.overload else node.op_type
        raise ModelError(f"another tool changed the call that decodes {name!r}: it calls {called!r} now. {AGAIN}")
    key, dtype = node.attributes.get("key"), node.attributes.get("dtype")
    if key is None or key.is_ref() or key.type != ir.AttributeType.STRING:
        raise ModelError(f"the call that decodes {name!r} is damaged: it has no storage key. {AGAIN}")
    given = dict(zip(INPUTS[node.op_type], node.inputs, strict=False))
    inputs = {plane: value for plane, value in given.items() if value is not None}
    found = StoredTensor(key.as_string(), node, graph, in_function, inputs, names)
    if len(inputs) != len(INPUTS[node.op_type]) or len(node.inputs) != len(inputs) or len(node.outputs) != 1:
        raise found.damaged("the call that decodes it is damaged, for it lacks inputs or has too many")
    if dtype is None or dtype.is_ref() or dtype.type != ir.AttributeType.INT or dtype.as_int() not in FLOATS:
        raise found.damaged("the call that decodes it is damaged, for its dtype is no float type")
    return found


# --------------------------------------------------------------------------------------------------- reading


def cells_of(tensor: StoredTensor, cells: tuple[int, ...]) -> int | NDArray[np.int64]:
    """Return the cells of each stored weight: one number, or one for each (N,)."""
    return cells[0] if tensor.class_index is None else np.array(cells)[tensor.class_index]


class Reader:
    """Reads one tensor's levels, as often as asked.

    What does not depend on the trial, such as σ/√r of each level, is computed once.
    """

    def __init__(self, tensor: StoredTensor, protection: Protection) -> None:
        self._key = tensor.key
        level = np.ascontiguousarray(tensor.level, np.float32)
        self._size = level.size
        self._prepared = protection.channel.prepared(level, cells_of(tensor, protection.cells))

    def read(self, *, seed: int, trial: int, out: Floats | None = None) -> Floats:
        """Return levels (N,) as one programming and one read of the array give them, in `out` if given."""
        read = np.empty(self._size, np.float32) if out is None else out
        for number, block in enumerate(blocks(self._size)):
            self.read_block(number, block, seed=seed, trial=trial, out=read[block])
        return read

    def read_block(self, number: int, block: slice, *, seed: int, trial: int, out: Floats) -> None:
        """Read one of the `blocks` of the levels into `out`; blocks may be read in any order, and by many threads."""
        rng = stream(seed, trial, self._key, plane="level", block=number)
        self._prepared.read(block, rng, out)


def read_header(
    tensor: StoredTensor, protection: Protection, *, seed: int, trial: int
) -> tuple[planes.Bits | None, planes.Bytes | None]:
    """Return signs and classes (N,) as they are read: as stored, unless the header is analog too."""
    if protection.header is None or not tensor.header_bits:
        return tensor.sign, tensor.class_index
    stored = np.stack([plane for plane in (tensor.sign, tensor.class_index) if plane is not None], axis=1)
    bits, width = stored.astype(np.bool_).reshape(-1), protection.header.bits_per_cell
    read = np.empty_like(bits)
    for number, block in enumerate(blocks(-(-bits.size // width))):
        part = slice(block.start * width, block.stop * width)
        rng = stream(seed, trial, tensor.key, plane="header", block=number)
        read[part] = protection.header.read(bits[part], rng)
    columns = list(read.reshape(stored.shape).T)
    sign = columns.pop(0) if tensor.sign is not None else None
    return sign, np.ascontiguousarray(columns[0]).view(np.uint8) if columns else None


def with_channel(protection: Protection, channel: str | Channel | None, modifiers: Modifiers = NONE) -> Protection:
    """Return `protection` with another channel in place of its own, or with its own changed.

    Raises
    ------
    ChannelError
        If the span of the other does not cover the stored one.
    """
    if channel is None and modifiers == NONE:
        return protection
    other = modifiers.apply(protection.channel if channel is None else channels.resolve(channel))
    (low, high), (other_low, other_high) = protection.channel.span, other.span
    if other_low > low or other_high < high:
        raise ChannelError(
            f"the model is protected for levels from {low:.4g} to {high:.4g}, but {other} holds {other_low:.4g} to "
            f"{other_high:.4g}. Protect the original for this channel instead."
        )
    header = protection.header
    if header is not None:
        header = replace(header, channel=modifiers.apply_where_possible(header.channel))
    return replace(protection, channel=other, header=header)
