"""The digital streams of a protected model, as an array holds them: which bits, in which order, of which tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.bch import code_of_block
from onnx_analog.coding.codebook import numbers_of
from onnx_analog.coding.codes import SOFT_SHARE
from onnx_analog.coding.digital import DigitalCells
from onnx_analog.coding.estimators import bits_of, estimator
from onnx_analog.coding.masks import PatternStream
from onnx_analog.coding.partition import Bits, Bytes
from onnx_analog.coding.streams import NAMES, Kind, Stream, codebook_bits, kind_of
from onnx_analog.display import percent
from onnx_analog.errors import OptionError
from onnx_analog.graph.stored import StoredTensor


class Share(NamedTuple):
    """The bits of a stream that are of one tensor: from `first` on, before `end`."""

    key: str
    first: int
    end: int


class Absent(NamedTuple):
    """A stream that is not in an image: its name, bits, cells if they are counted, and why."""

    name: str
    bits: int
    cells: int | None
    reason: str

    def __str__(self) -> str:
        size = f"{self.bits:,} bits" if self.cells is None else f"{self.cells:,} cells"
        return f"{self.name}, {size} ({self.reason})"


@dataclass(frozen=True, eq=False)
class DigitalStream:
    """Streams of one kind, one after the other.

    Attributes
    ----------
    kind : Kind
    shares : tuple of Share
    bits : bool array of shape (B,)
        Data.
    """

    kind: Kind
    shares: tuple[Share, ...]
    bits: Bits

    @property
    def cells(self) -> DigitalCells:
        """How they lie in cells."""
        return DigitalCells(self.kind.channel, self.kind.code, self.bits.size)

    @property
    def devices(self) -> int:
        """Memory elements that they take."""
        return self.kind.channel.devices_per_cell * self.kind.code.copies * self.cells.count

    def symbols(self) -> Bytes:
        """Return the symbol of each of these cells, without copies."""
        return self.cells.write(self.bits)

    def to_dict(self) -> dict[str, Any]:
        """Return what a reader of the array needs to decode them, ready for JSON."""
        code, packing = self.kind.code, self.cells.packing
        block = code.block
        of_block = None if block is None else code_of_block(block)
        return {
            "code": code.name,
            "data_bits": self.bits.size,
            "stored_bits": self.cells.stored,
            "symbols": code.symbols,
            "copies": code.copies,
            "word_cells": packing.cells,
            "word_bits": packing.bits,
            "thresholds": self.cells.symbols.thresholds.tolist(),
            "block_data": None if block is None else block.data,
            "block_length": None if block is None else block.length,
            "corrects": None if block is None else block.corrects,
            "degree": None if of_block is None else of_block.degree,
            "tensors": [[share.key, share.end - share.first] for share in self.shares],
        }


def streams_of(
    tensors: Iterable[tuple[StoredTensor, Sequence[Stream]]],
) -> tuple[tuple[DigitalStream, ...], tuple[Absent, ...]]:
    """Return the digital streams of tensors in the order of the honest counting, and those that cannot be laid out.

    Parameters
    ----------
    tensors : iterable of (StoredTensor, streams)
        As `onnx_analog.graph.accounting.with_streams` gives them.
    """
    parts: dict[Kind, list[tuple[str, Bits]]] = {}
    left_out: dict[tuple[str, Kind | None, str], int] = {}
    for tensor, streams in tensors:
        for stream in streams:
            if stream.bits:
                kind, reason = _kind(tensor, stream)
                bits = None if reason else _bits(tensor, stream)
                if kind is not None and bits is not None:
                    assert bits.size == stream.bits, f"{stream.name} has {bits.size} bits, and {stream.bits} counted"
                    parts.setdefault(kind, []).append((tensor.key, bits))
                elif kind is not None or reason:
                    key = (stream.name, kind, reason or _UNKNOWN)
                    left_out[key] = left_out.get(key, 0) + stream.bits
    unknown = {kind for _, kind, reason in left_out if kind is not None and reason == _UNKNOWN}
    for kind in unknown & parts.keys():  # a block of which some bits are not known has no parity
        left_out[kind.name, kind, _UNKNOWN] += sum(bits.size for _, bits in parts.pop(kind))
    kinds = [kind for name in NAMES for kind in parts if kind.name == name]
    return tuple(_joined(kind, parts[kind]) for kind in kinds), tuple(_absent(left_out))


_UNKNOWN = "the bits of an estimator's tables, or the step that α and β follow from, are not known"
_SOFT = f"a code with soft decisions is assumed to reach {percent(SOFT_SHARE)} of the bound, and is not built"


def _kind(tensor: StoredTensor, stream: Stream) -> tuple[Kind | None, str]:
    """Return how a stream is stored, and why it cannot be laid out; both empty of analog side information."""
    try:
        kind = kind_of(tensor.scheme, stream)
    except OptionError as error:
        return None, str(error)
    return kind, _SOFT if kind is not None and kind.code.packing is None else ""


def _joined(kind: Kind, parts: Sequence[tuple[str, Bits]]) -> DigitalStream:
    ends = np.cumsum([bits.size for _, bits in parts]).tolist()
    shares = [Share(key, end - bits.size, end) for (key, bits), end in zip(parts, ends, strict=True)]
    return DigitalStream(kind, tuple(shares), np.concatenate([bits for _, bits in parts]))


def _absent(left_out: Mapping[tuple[str, Kind | None, str], int]) -> Iterable[Absent]:
    for (name, kind, reason), bits in left_out.items():
        cells = None if kind is None else kind.channel.devices_per_cell * kind.code.cells(bits)
        yield Absent(name, bits, cells, reason)


# -------------------------------------------------------------------------------------------------------- contents


def _bits(tensor: StoredTensor, stream: Stream) -> Bits | None:
    """Return the bits of a tensor's stream; None if they are not known."""
    if stream.entropy_coded:
        (coded,) = (coded for name, coded in tensor.encoded(tensor.scheme) if name == stream.name)
        digits = coded.digits if isinstance(coded, PatternStream) else coded.digits(0, coded.bits)
        return digits.astype(np.bool_)
    if stream.name == "codebook":
        return _codebook(tensor, stream.bits)
    if stream.name == "mask seed":
        assert tensor.scheme.mask_seed is not None
        return bits_of(np.array([tensor.scheme.mask_seed, tensor.count]), ">u4")
    if stream.name == "class":
        assert tensor.class_index is not None
        width = tensor.scheme.index_bits
        return np.unpackbits(tensor.class_index[:, None], axis=1)[:, 8 - width :].reshape(-1).view(np.bool_)
    return tensor.mask if stream.name == "mask" else tensor.sign


def _codebook(tensor: StoredTensor, bits: int) -> Bits | None:
    """Return the numbers of a codebook, unless another tensor has them, and the tables of its estimator."""
    scheme, parts = tensor.scheme, []
    if bits > scheme.table_bits:
        numbers = numbers_of(tensor.alpha, tensor.beta, scheme, _counts(tensor))
        if numbers is None:
            return None
        assert 32 * numbers.size == codebook_bits(scheme, len(tensor.alpha))
        parts.append(bits_of(numbers, ">f4"))
    if scheme.table_bits:
        tables = estimator(scheme.estimator).stored_tables(tensor.written(scheme))
        if tables is None or tables.size != scheme.table_bits:
            return None
        parts.append(tables)
    return np.concatenate(parts)


def _counts(tensor: StoredTensor) -> NDArray[np.int64]:
    """Return how many weights each class of each group has, (G, K)."""
    groups, classes = len(tensor.alpha), tensor.scheme.classes
    if tensor.group is None:
        return np.broadcast_to(tensor.class_counts, (groups, classes))
    place = tensor.group * classes + (0 if tensor.class_index is None else tensor.class_index)
    return np.bincount(place, minlength=groups * classes).reshape(groups, classes)
