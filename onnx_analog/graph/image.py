"""The image of an array: one row for each cell, which says what is to be written to it.

It covers the cells of levels, of sign and class bits, and of entropy-coded masks. Codebooks, and masks that are not
coded or follow from a seed, are counted in cells, but their bits are not laid out: a reader takes them from the model.
docs/real_array.md describes columns and files.
"""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.programming import Programming
from onnx_analog.coding.masks import PatternStream
from onnx_analog.coding.partition import Bits
from onnx_analog.coding.side import SideInformation, from_gray
from onnx_analog.display import Shown, counted
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.graph.manifest import Manifest, TensorEntry
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import side_bits
from onnx_analog.graph.stored import StoredTensor

FORMAT = "onnx-analog-image/1"
SUFFIXES = (".npz", ".csv")
PLANES = ("level", "side", "mask")  # that an image has, by number
NO_SYMBOL = -1  # of a cell that holds a level
MOST_CELLS = 2**25  # of an image: some 2 GiB
_ROWS = 2**16  # of a CSV file, written at once

Array = NDArray[Any]
_TYPES: Mapping[str, Any] = {
    "address": np.int64,
    "tensor": np.int32,  # number of the tensor, in the order of the manifest
    "plane": np.uint8,
    "index": np.int64,
    "replica": np.int32,
    "symbol": np.int16,
    "level": np.float32,
    "input": np.float64,
    "input_device": np.float64,
    "level_device": np.float64,
}


@dataclass(frozen=True, eq=False)
class Plane:
    """The cells of one plane of one tensor, at adjacent addresses.

    Attributes
    ----------
    first : int
        Address of the first cell.
    tensor : StoredTensor
    name : str
        Of `PLANES`.
    index : int64 array of shape (m,)
        Flat index of the weight of each level, or the number of each symbol.
    cells : int64 array of shape (m,), >= 1
        Cells of each level or symbol, which are adjacent.
    level : float32 array of shape (m,)
        Level that each of these cells is to hold.
    symbol : int16 array of shape (m,)
        Symbol that it stands for; `NO_SYMBOL` for levels.
    programming : Programming
    side : SideInformation or None
        How symbols are read.
    """

    first: int
    tensor: StoredTensor
    name: str
    index: Array
    cells: Array
    level: Array
    symbol: Array
    programming: Programming
    side: SideInformation | None = None

    @cached_property
    def starts(self) -> Array:
        """Number of the first cell of each level or symbol (m,), from 0."""
        return np.cumsum(self.cells) - self.cells

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(self.cells.sum())

    @property
    def end(self) -> int:
        """Address after the last cell."""
        return self.first + self.size

    def column(self, name: str, number: int) -> Array:
        """Return one column of its cells, of a tensor with this number."""
        if name in ("address", "replica"):
            cell = np.arange(self.size)
            column = self.first + cell if name == "address" else cell - np.repeat(self.starts, self.cells)
        elif name in ("tensor", "plane"):
            column = np.full(self.size, number if name == "tensor" else PLANES.index(self.name))
        else:
            column = np.repeat(self._of_each(name), self.cells)
        return column.astype(_TYPES[name], copy=False)

    def _of_each(self, name: str) -> Array:
        """Return a column of its levels or symbols (m,)."""
        if name == "input":
            return self.programming.input(self.level)
        if name == "input_device":
            return self.programming.input_in_device(self.programming.input(self.level))
        if name == "level_device":
            return self.programming.read_in_device(self.level)
        of_each: Array = getattr(self, name)
        return of_each


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
        In the order of their addresses.
    absent : mapping of str to int
        Cells that are counted and not in the image, by plane.
    total : int
        All cells that are counted.
    """

    digest: str
    tensors: tuple[str, ...]
    planes: tuple[Plane, ...]
    absent: Mapping[str, int]
    total: int

    @property
    def cells(self) -> int:
        """Cells in the image."""
        return sum(plane.size for plane in self.planes)

    def columns(self) -> dict[str, Array]:
        """Return all columns, (cells,) each: those of the file, as docs/real_array.md describes them."""
        return {name: self._column(name) for name in _TYPES}

    def _column(self, name: str) -> Array:
        return np.concatenate([plane.column(name, self.tensors.index(plane.tensor.key)) for plane in self.planes])

    def write(self, path: Path) -> None:
        """Write the image as .npz or .csv, whichever the name ends with.

        Raises
        ------
        OptionError
            If the name ends with neither.
        """
        check_suffix(path)
        if path.suffix == ".npz":
            self._write_npz(path)
        else:
            self._write_csv(path)

    def _write_npz(self, path: Path) -> None:
        """Write column by column: all at once would take a few times the memory."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in (*self._head(), *_TYPES):
                array = self._head()[name] if name not in _TYPES else self._column(name)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    def _head(self) -> dict[str, Array]:
        """Return what an npz file has beside the columns; of each plane of each tensor, channel and units."""
        texts = {name: np.full((len(self.tensors), len(PLANES)), "", object) for name in _HEAD}
        for plane in self.planes:
            place = self.tensors.index(plane.tensor.key), PLANES.index(plane.name)
            for name, of in _HEAD.items():
                texts[name][place] = of(plane.programming) or ""
        return {
            "format": np.array(FORMAT),
            "image": np.array(self.digest),
            "tensors": np.array(self.tensors, np.str_),
            "planes": np.array(PLANES),
            **{name: values.astype(np.str_) for name, values in texts.items()},
        }

    def _write_csv(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(f"# {FORMAT}\n# image {self.digest}\n")
            for plane in self.planes:
                units = ", ".join(f"{name} {of(plane.programming) or 'not known'}" for name, of in _HEAD.items())
                file.write(f"# {json.dumps(plane.tensor.key)}, {plane.name}: {' '.join(units.split())}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_TYPES)
            for plane in self.planes:
                rows = {name: plane.column(name, self.tensors.index(plane.tensor.key)) for name in _TYPES}
                for start in range(0, plane.size, _ROWS):
                    part = {name: values[start : start + _ROWS] for name, values in rows.items()}
                    writer.writerows(zip(*(self._texts(name, values) for name, values in part.items()), strict=True))

    def _texts(self, name: str, values: Array) -> list[Any]:
        """Return a column as text that reads back to the same numbers; what is not known is empty."""
        if name == "tensor":
            return [self.tensors[number] for number in values]
        if name == "plane":
            return [PLANES[number] for number in values]
        if name == "symbol":
            return ["" if symbol == NO_SYMBOL else symbol for symbol in values.tolist()]
        if values.dtype.kind == "f":
            digits = 9 if values.dtype == np.float32 else 17
            return ["" if np.isnan(value) else f"{value:.{digits}g}" for value in values.tolist()]
        whole: list[Any] = values.tolist()
        return whole

    def __str__(self) -> str:
        left = ", ".join(f"{count:,} of {plane}" for plane, count in self.absent.items() if count)
        rest = f"; not in it: cells {left}" if left else ""
        return f"{counted(self.cells, 'cell')} of {counted(len(self.tensors), 'tensor')}{rest}"


_HEAD: Mapping[str, Any] = {
    "channel": lambda programming: str(programming.channel),
    "input_unit": lambda programming: programming.input_unit,
    "read_unit": lambda programming: programming.read_unit,
}


def check_suffix(path: Path) -> None:
    """Raise `OptionError` unless a path ends with .npz or .csv."""
    if path.suffix not in SUFFIXES:
        raise OptionError(f"{str(path)!r} must end with {' or '.join(SUFFIXES)}")


def image_of(protected: ProtectedModel) -> Image:
    """Return the image of the array that stores a protected model.

    Raises
    ------
    ModelError
        If the model was read back already, or has more than 2^25 cells.
    ChannelError
        If what single cells are programmed to is not known; see `Programming`.
    """
    protected.check_readable()
    manifest = protected.manifest
    entries = {entry.key: entry for entry in manifest.tensors}
    cells = sum(entry.cells_for(plane) for entry in manifest.tensors for plane in PLANES)
    if cells > MOST_CELLS:
        raise ModelError(f"the model has {cells:,} cells, and an image at most {MOST_CELLS:,}: protect fewer tensors")
    tensors = {tensor.key: tensor for tensor in protected.tensors}
    planes, absent = [], dict.fromkeys(("mask", "codebook"), 0)
    for key, entry in entries.items():
        own = [_levels(tensors[key], entry), *_symbols(tensors[key], entry)]
        planes += [plane for plane in own if plane.index.size]
        held = {plane.name for plane in planes if plane.tensor is tensors[key]}
        for name in absent:
            absent[name] += 0 if name in held else entry.cells_for(name)
    total = max(end for entry in manifest.tensors for _, end in entry.cells.values())
    return Image(digest_of(manifest), tuple(entries), tuple(planes), absent, total)


def digest_of(manifest: Manifest) -> str:
    """Return the SHA-256 of what a manifest's tensors are called, where they lie, and what they hold, as hex."""
    identity = [[entry.key, dict(entry.cells), dict(entry.sha256)] for entry in manifest.tensors]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _levels(tensor: StoredTensor, entry: TensorEntry) -> Plane:
    """Return the cells that hold levels."""
    weights = np.arange(tensor.size) if tensor.mask is None else np.flatnonzero(tensor.mask)
    if tensor.analog is not None:
        weights = weights[tensor.analog]
    cells = np.array(tensor.scheme.cells_of_class, np.int64)
    return Plane(
        first=entry.cells["level"][0],
        tensor=tensor,
        name="level",
        index=weights,
        cells=np.broadcast_to(cells[0], weights.shape) if tensor.level_class is None else cells[tensor.level_class],
        level=np.ascontiguousarray(tensor.level, np.float32),
        symbol=np.full(weights.size, NO_SYMBOL, np.int16),
        programming=Programming(tensor.scheme.channel),
    )


def _symbols(tensor: StoredTensor, entry: TensorEntry) -> Iterator[Plane]:
    """Yield the cells of each plane that holds symbols."""
    scheme = tensor.scheme
    side = scheme.side or SideInformation(channel=scheme.channel, bits_per_cell=scheme.side_bits_per_cell)
    for name, bits in _digital(tensor).items():
        width = side.bits_per_cell
        symbols = from_gray(np.concatenate([bits, np.zeros(-bits.size % width, np.bool_)]).reshape(-1, width))
        yield Plane(
            first=entry.cells[name][0],
            tensor=tensor,
            name=name,
            index=np.arange(symbols.size),
            cells=np.broadcast_to(np.int64(side.devices_per_symbol), symbols.shape),
            level=side.levels[symbols],
            symbol=symbols.astype(np.int16),
            programming=Programming(side.channel),
            side=side,
        )


def _digital(tensor: StoredTensor) -> dict[str, Bits]:
    """Return the bits of the planes "side" and "mask": signs and classes, and an entropy-coded mask."""
    scheme, none = tensor.scheme, np.zeros(0, np.bool_)
    if scheme.entropy == "none":
        there = tensor.sign is not None or tensor.class_index is not None
        return {"side": side_bits(tensor, scheme).reshape(-1) if there else none, "mask": none}
    planes = {"side": [none if tensor.sign is None else tensor.sign], "mask": [none]}
    for name, coded in tensor.encoded(scheme):
        digits = coded.digits if isinstance(coded, PatternStream) else coded.digits(0, coded.bits)
        planes["mask" if name == "mask" else "side"].append(digits.astype(np.bool_))
    return {name: np.concatenate(parts) for name, parts in planes.items()}
