"""The image of an array: one row for each cell, which says what is to be written to it.

It holds all that the manifest counts "as the memory allows": levels and analog side information, tensor by tensor, and
then the digital streams with their codes. docs/real_array.md describes columns and files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.programming import Programming
from onnx_analog.coding.side import symbols_of
from onnx_analog.coding.streams import NAMES
from onnx_analog.display import Shown, counted
from onnx_analog.errors import ModelError
from onnx_analog.graph.accounting import with_streams
from onnx_analog.graph.image_streams import Absent, DigitalStream, streams_of
from onnx_analog.graph.manifest import Manifest
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import side_bits
from onnx_analog.graph.stored import StoredTensor

FORMAT = "onnx-analog-image/2"
PLANES = ("level", "side", *NAMES)  # that an image may have, by number
NONE = -1  # symbol of a level, and tensor of a stream
MOST_CELLS = 2**26  # of an image: some 4 GiB
PIECE = 2**18  # cells whose columns are made at once

Array = NDArray[Any]
TYPES: Mapping[str, Any] = {
    "address": np.int64,
    "tensor": np.int32,  # number of the tensor, in the order of the manifest
    "plane": np.uint8,
    "index": np.int64,
    "replica": np.int32,
    "polarity": np.int8,
    "symbol": np.int16,
    "level": np.float32,
    "input": np.float64,
    "input_device": np.float64,
    "level_device": np.float64,
}


@dataclass(frozen=True, eq=False)
class Plane:
    """Cells of one kind at adjacent addresses: a plane of one tensor, or streams of all.

    Attributes
    ----------
    first : int
        Address of the first cell.
    tensor : StoredTensor or None
        None of streams, which are of many.
    name : str
        Of `PLANES`.
    index : integer array of shape (m,)
        Flat index of the weight of each level, or the number of each symbol.
    cells : integer array of shape (m,), >= 1
        Cells of each level or symbol, which are adjacent; each has the devices of `programming`.
    level : float32 array of shape (m,)
        Level that each of these cells is to hold.
    symbol : integer array of shape (m,)
        Symbol that it stands for; `NONE` for levels.
    programming : Programming
    stream : DigitalStream or None
        What its symbols say; None of levels, and of analog side information.
    """

    first: int
    tensor: StoredTensor | None
    name: str
    index: Array
    cells: Array
    level: Array
    symbol: Array
    programming: Programming
    stream: DigitalStream | None = None

    @cached_property
    def starts(self) -> Array:
        """Number of the first cell of each level or symbol (m,), from 0."""
        return np.cumsum(self.cells, dtype=np.int64) - self.cells

    @cached_property
    def polarity(self) -> Array:
        """Sign with which each device of a cell counts."""
        return np.array(self.programming.polarity, np.int8)

    @cached_property
    def size(self) -> int:
        """Number of devices: of addresses."""
        return int(self.cells.sum()) * self.polarity.size

    @property
    def end(self) -> int:
        """Address after the last cell."""
        return self.first + self.size

    def pieces(self) -> Iterator[Plane]:
        """Yield it in pieces of some 2^18 cells."""
        most = PIECE // self.polarity.size
        cuts = np.searchsorted(self.starts, np.arange(0, self.size // self.polarity.size + most, most))
        cuts = np.unique(np.append(cuts, self.index.size)).tolist()
        for first, last in pairwise(cuts):
            names = ("index", "cells", "level", "symbol")
            part = {name: getattr(self, name)[first:last] for name in names}
            yield replace(self, first=self.first + int(self.starts[first]) * self.polarity.size, **part)

    def column(self, name: str, number: int) -> Array:
        """Return one column of its cells, of a tensor with this number."""
        devices = self.polarity.size
        if name == "address":
            column = self.first + np.arange(self.size)
        elif name == "replica":
            cell = np.arange(self.size // devices) - np.repeat(self.starts, self.cells)
            column = np.repeat(cell, devices)
        elif name in ("tensor", "plane"):
            column = np.full(self.size, number if name == "tensor" else PLANES.index(self.name))
        elif name == "polarity":
            column = np.tile(self.polarity, self.size // devices)
        else:
            column = np.repeat(self.of_each(name), self.cells, axis=0).reshape(-1)
        return column.astype(TYPES[name], copy=False)

    def of_each(self, name: str) -> Array:
        """Return a column of the devices of one cell of each level or symbol (m, devices)."""
        how = self.programming
        if name in ("input", "input_device"):
            given = how.of_devices(how.input(self.level))
            return given if name == "input" else how.input_in_device(given)
        if name in ("level", "level_device"):
            level = how.of_devices(self.level)
            return level if name == "level" else how.read_in_device(level)
        return np.repeat(getattr(self, name)[:, None], self.polarity.size, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return where it is, its units and, of streams, how they are decoded: ready for JSON."""
        return {
            "first": self.first,
            "end": self.end,
            "tensor": None if self.tensor is None else self.tensor.key,
            "plane": self.name,
            "channel": str(self.programming.channel),
            "input_unit": self.programming.input_unit,
            "read_unit": self.programming.read_unit,
            "polarity": self.polarity.tolist(),
            "stream": None if self.stream is None else self.stream.to_dict(),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Image(Shown):
    """What is to be written to each cell of an array.

    Attributes
    ----------
    digest : str
        SHA-256 of what the model stores, by which reads can be matched with it.
    tensors : tuple of str
        Storage keys.
    planes : tuple of Plane
        In the order of their addresses, which have no gaps.
    absent : tuple of Absent
        Streams that are not in the image, and why.
    """

    digest: str
    tensors: tuple[str, ...]
    planes: tuple[Plane, ...]
    absent: tuple[Absent, ...]

    @property
    def cells(self) -> int:
        """Cells in the image."""
        return sum(plane.size for plane in self.planes)

    def columns(self) -> dict[str, Array]:
        """Return all columns, (cells,) each: those of the file, as docs/real_array.md describes them."""
        return {name: np.concatenate(list(self.column(name))) for name in TYPES}

    def column(self, name: str) -> Iterator[Array]:
        """Yield one column, piece by piece."""
        for plane in self.planes:
            for piece in plane.pieces():
                yield piece.column(name, self.number(plane))

    def number(self, plane: Plane) -> int:
        """Return the number of a plane's tensor."""
        return NONE if plane.tensor is None else self.tensors.index(plane.tensor.key)

    def to_dict(self) -> dict[str, Any]:
        """Return what is in the image, ready for JSON, without its cells."""
        return {
            "digest": self.digest,
            "cells": self.cells,
            "tensors": list(self.tensors),
            "absent": [each._asdict() for each in self.absent],
        }

    def __str__(self) -> str:
        left = "; ".join(map(str, self.absent))
        rest = f"; not in it: {left}" if left else ""
        return f"{counted(self.cells, 'cell')} of {counted(len(self.tensors), 'tensor')}{rest}"


def image_of(protected: ProtectedModel) -> Image:
    """Return the image of the array that stores a protected model.

    Raises
    ------
    ModelError
        If the model was read back already, or has more than 2^26 cells.
    ChannelError
        If what single cells are programmed to is not known; see `Programming`.
    """
    protected.check_readable()
    manifest = protected.manifest
    tensors = list(protected.by_key.values())
    counts = [entry.cells_for("level") for entry in manifest.tensors]
    counts += [entry.cells_for("side") for entry in manifest.tensors if manifest.schemes[entry.scheme].side_channel]
    _check_size(sum(counts))  # before the streams are encoded, which takes time
    streams, absent = streams_of(with_streams(tensors))
    counts += [stream.devices for stream in streams]
    _check_size(sum(counts))
    if not sum(counts):
        raise ModelError(f"no cell of the model can be laid out: {'; '.join(map(str, absent)) or 'it stores nothing'}")
    parts = [part for tensor in tensors for part in (_levels(tensor), *_side(tensor))]
    parts += [_digital(stream) for stream in streams]
    planes, address = [], 0
    for part in parts:
        if part.index.size:
            planes.append(replace(part, first=address))
            address = planes[-1].end
    return Image(digest_of(manifest), tuple(tensor.key for tensor in tensors), tuple(planes), absent)


def _check_size(cells: int) -> None:
    if cells > MOST_CELLS:
        raise ModelError(
            f"the model has {cells:,} cells or more, an image at most {MOST_CELLS:,}: protect fewer tensors"
        )


def digest_of(manifest: Manifest) -> str:
    """Return the SHA-256 of what a manifest's tensors are called, how they are stored, and what they hold, as hex."""
    names = ("key", "scheme", "classes", "streams", "cells", "sha256")
    entries = [{name: value for name, value in asdict(entry).items() if name in names} for entry in manifest.tensors]
    identity = [FORMAT, [scheme.to_dict() for scheme in manifest.schemes], entries]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _levels(tensor: StoredTensor) -> Plane:
    """Return the cells that hold levels."""
    weights = np.arange(tensor.size) if tensor.mask is None else np.flatnonzero(tensor.mask)
    if tensor.analog is not None:
        weights = weights[tensor.analog]
    cells = np.array(tensor.scheme.cells_of_class, np.int64)
    return Plane(
        first=0,
        tensor=tensor,
        name="level",
        index=weights,
        cells=np.broadcast_to(cells[0], weights.shape) if tensor.level_class is None else cells[tensor.level_class],
        level=np.ascontiguousarray(tensor.level, np.float32),
        symbol=np.broadcast_to(np.int16(NONE), weights.shape),
        programming=Programming(tensor.scheme.channel),
    )


def _side(tensor: StoredTensor) -> Iterator[Plane]:
    """Yield the cells of analog side information, if the scheme has any."""
    side, width = tensor.scheme.side, tensor.scheme.side_bits_per_cell
    if side is None or (tensor.sign is None and tensor.class_index is None):
        return
    bits = side_bits(tensor, tensor.scheme).reshape(-1)
    symbols = symbols_of(bits, width)
    yield Plane(
        first=0,
        tensor=tensor,
        name="side",
        index=np.arange(symbols.size, dtype=np.int32),
        cells=np.broadcast_to(np.int64(side.cells_per_symbol), symbols.shape),
        level=side.levels[symbols],
        symbol=symbols.astype(np.int16),
        programming=Programming(side.channel),
    )


def _digital(stream: DigitalStream) -> Plane:
    """Return the cells of streams."""
    symbols = stream.symbols()
    return Plane(
        first=0,
        tensor=None,
        name=stream.kind.name,
        index=np.arange(symbols.size, dtype=np.int32),
        cells=np.broadcast_to(np.int64(stream.kind.code.copies), symbols.shape),
        level=stream.cells.levels(symbols),
        symbol=symbols,
        programming=Programming(stream.kind.channel),
        stream=stream,
    )
