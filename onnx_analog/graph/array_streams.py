"""Digital streams as an array returned them: cells decided by thresholds, blocks decoded by their code.

A block that is not corrected, or is decoded to other data than were written, is lost as in a trial
(`onnx_analog.coding.failures`); without a code, a wrong bit of a stream that cannot bear one is. What was written is
known here, so that no failure passes unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.symbols import crossings
from onnx_analog.coding.digital import Decoded
from onnx_analog.coding.failures import Run
from onnx_analog.coding.partition import Bits
from onnx_analog.coding.side import SideInformation, to_gray
from onnx_analog.graph.array_cells import Cells, averaged
from onnx_analog.graph.image import Plane
from onnx_analog.graph.image_streams import DigitalStream, Share
from onnx_analog.graph.irregular import Log
from onnx_analog.graph.reader import side_bits
from onnx_analog.graph.stored import StoredTensor

Array = NDArray[Any]


@dataclass(frozen=True)
class StreamRead:
    """How the symbols of a stream were read.

    Attributes
    ----------
    name : str
        Of the stream; "side" of analog side information.
    channel, code : str
        Code: "none", "bch", or "copies" of analog side information.
    symbols, misread : int
        That have a read, and that were taken for another; of analog side information, each copy.
    blocks, failed : int
        Of the code, and those that are lost; 0 without a code.
    """

    name: str
    channel: str
    code: str
    symbols: int
    misread: int
    blocks: int
    failed: int


@dataclass(frozen=True, eq=False)
class Found:
    """A stream as it was read: its data bits (B,) as decoded, and which blocks (or bits, without a code) failed."""

    stream: DigitalStream
    bits: Bits
    failed: Bits
    counts: StreamRead

    def runs(self, share: Share) -> list[Run]:
        """Return the bits of a tensor's share that are lost."""
        length = self.stream.cells.block
        blocks = np.flatnonzero(self.failed[share.first // length : -(-share.end // length)]) + share.first // length
        starts = np.maximum(blocks * length, share.first)
        ends = np.minimum((blocks + 1) * length, share.end)
        both = zip(starts.tolist(), ends.tolist(), strict=True)
        return [Run(start - share.first, end - start) for start, end in both]


def read_stream(plane: Plane, cells: Cells, missing: str, log: Log) -> Found:
    """Return a stream as it was read.

    A symbol without a read counts as the lowest, which its code may correct; with `missing` "written", as written.
    """
    stream = plane.stream
    assert stream is not None
    how, kind = stream.cells, stream.kind
    mean, number = averaged(cells.of_plane(plane, log), plane.starts)
    unread, symbols = number == 0, how.decided(mean)
    misread = int(np.count_nonzero((symbols != plane.symbol) & ~unread))
    log.add("misread", misread, np.count_nonzero(~unread))
    log.add("blank", unread.sum(), unread.size)
    filled = np.where(unread, plane.symbol, symbols)
    if missing == "written":
        symbols = filled
    decoded = how.decode(how.stored_bits(symbols))
    wrong = decoded.bits != stream.bits
    failed, other = _undecoded(decoded, stream)
    local = kind.name in ("sign", "class") and not kind.entropy_coded
    coded = kind.code.block is not None
    gaps = how.unread_blocks(unread) if unread.any() else np.zeros(failed.size, np.bool_)
    if coded:
        log.add("corrected", decoded.corrected, how.stored)
        log.add("failed", failed.sum(), failed.size)
        log.add("unnoticed", np.count_nonzero(other & ~failed), failed.size)
    if local and not coded:
        log.add("symbols", unread.sum(), unread.size)
    else:
        if coded and (gaps & (failed | other)).any():  # would they be decoded if all symbols had a read?
            gaps &= ~np.logical_or(*_undecoded(how.decode(how.stored_bits(filled)), stream))
        log.add("gaps", np.count_nonzero(gaps & (failed | other) if coded else gaps), failed.size)
    if local or not coded:
        log.add("errors" if local else "wrong", wrong.sum(), wrong.size)
    failed |= other if coded or missing == "written" else other | gaps  # a bit without a read is not known
    blocks, lost = (failed.size, int(failed.sum())) if coded else (0, 0)
    counts = StreamRead(kind.name, str(kind.channel), kind.code.name, int((~unread).sum()), misread, blocks, lost)
    return Found(stream, decoded.bits, failed, counts)


def _undecoded(decoded: Decoded, stream: DigitalStream) -> tuple[Bits, Bits]:
    """Return which blocks were not corrected, and which hold other data than were written."""
    other = np.zeros(decoded.good.size, np.bool_)
    other[np.flatnonzero(decoded.bits != stream.bits) // stream.cells.block] = True
    return ~decoded.good, other


def read_side_plane(plane: Plane, tensor: StoredTensor, cells: Cells, log: Log) -> tuple[Bits, StreamRead]:
    """Return the bits of analog side information (N, bits) as they were read."""
    side = tensor.scheme.side
    assert side is not None
    reads = cells.of_plane(plane, log).reshape(-1, side.copies, side.cells)
    bits, unread = _decided(reads, side)
    written = to_gray(plane.symbol.astype(np.int64), side.bits_per_cell)
    log.add("symbols", unread.sum(), unread.size)
    bits = np.where(unread[:, None], written, bits)
    stored = side_bits(tensor, tensor.scheme)
    log.add("errors", np.count_nonzero((bits != written).reshape(-1)[: stored.size]), stored.size)
    symbols, misread = _copies(reads, side, plane.symbol)
    log.add("misread", misread, symbols)
    counts = StreamRead("side", str(side.channel), "copies", symbols, misread, 0, 0)
    return bits.reshape(-1)[: stored.size].reshape(stored.shape), counts


def _copies(reads: Array, side: SideInformation, written: Array) -> tuple[int, int]:
    """Return how many copies of symbols have a read, and how many are read as another symbol."""
    order, thresholds = _thresholds(side)
    mean, number = averaged(reads.reshape(-1), np.arange(0, reads.size, side.cells))
    symbol = order[np.searchsorted(thresholds, np.nan_to_num(mean))]
    wrong = (symbol != np.repeat(written, side.copies)) & (number > 0)
    return int((number > 0).sum()), int(wrong.sum())


def _decided(reads: Array, side: SideInformation) -> tuple[Bits, Bits]:
    """Return the bits (m, b) of symbols by the majority of their copies, and which symbols (m,) have no read.

    Where as many copies say 1 as 0, which takes copies without a read, the mean read of all copies decides.
    """
    there = np.isfinite(reads)
    number = there.sum(axis=2)
    with np.errstate(invalid="ignore"):
        mean = np.where(there, reads, 0.0).sum(axis=2) / number
    order, thresholds = _thresholds(side)
    votes = np.zeros((len(reads), side.bits_per_cell), np.int64)
    for copy in range(side.copies):
        symbol = order[np.searchsorted(thresholds, np.nan_to_num(mean[:, copy]))]
        votes += np.where(number[:, copy, None] > 0, 2 * to_gray(symbol, side.bits_per_cell).astype(np.int64) - 1, 0)
    with np.errstate(invalid="ignore"):
        every = np.where(there, reads, 0.0).sum(axis=(1, 2)) / number.sum(axis=1)
    by_mean = to_gray(order[np.searchsorted(thresholds, np.nan_to_num(every))], side.bits_per_cell)
    return np.where(votes == 0, by_mean, votes > 0).astype(np.bool_), (number == 0).all(axis=1)


def _thresholds(side: SideInformation) -> tuple[Array, Array]:
    """Return symbols in the order of their mean reads, and the reads between which each is decided."""
    mean, std = side.channel.moments(side.levels, cells=side.cells)
    order = np.argsort(mean, kind="stable")
    return order, crossings(mean[order], np.maximum(std[order], 1e-12))
