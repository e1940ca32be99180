"""Streams of bits as symbols of cells, with their code, and back.

Data bits are divided into the blocks of the code; each block is its data, then its parity, and the last one has what is
left of the data. With w bits in a word of g cells, stored bit j is in word j mod W, at place j div W, with
W = ⌈stored/w⌉: bits of one word are of different blocks where there are several, so that errors of a block are
independent. Places that are left hold 0. The bits of a word are the Gray code of its number, the first place highest,
and `onnx_analog.channels.symbols.Packing` says which symbols its cells hold. All copies of a symbol are adjacent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels import Channel
from onnx_analog.channels.symbols import Packing, Symbols, symbols_of
from onnx_analog.coding.bch import code_of_block
from onnx_analog.coding.codes import CellCode
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.side import from_gray, to_gray


class Decoded(NamedTuple):
    """A stream as it is decoded.

    Attributes
    ----------
    bits : bool array of shape (B,)
        Data; those of a block that the code could not correct are as they were read.
    good : bool array of shape (blocks,)
        Which blocks the decoder takes for correct; all, without a code.
    corrected : int
        Stored bits that it changed.
    """

    bits: Bits
    good: Bits
    corrected: int


@dataclass(frozen=True)
class DigitalCells:
    """How the bits of a stream lie in cells.

    Parameters
    ----------
    channel : Channel
    code : CellCode
        Other than "soft", which is an assumption and has no symbols.
    bits : int, >= 1
        B, data bits.
    """

    channel: Channel
    code: CellCode
    bits: int

    @property
    def packing(self) -> Packing:
        """Bits in words of cells."""
        assert self.code.packing is not None
        return self.code.packing

    @property
    def symbols(self) -> Symbols:
        """Levels of symbols, and the thresholds between them."""
        return symbols_of(self.channel, self.code.symbols, self.code.copies)

    @property
    def block(self) -> int:
        """Data bits of a block; 1 without a code."""
        return 1 if self.code.block is None else self.code.block.data

    @property
    def stored(self) -> int:
        """Bits of data and parity."""
        if self.code.block is None:
            return self.bits
        parity = self.code.block.length - self.code.block.data
        return self.bits + parity * -(-self.bits // self.block)

    @property
    def count(self) -> int:
        """Symbols; each has `code.copies` cells."""
        return self.packing.cells * self._words

    @property
    def _words(self) -> int:
        return -(-self.stored // self.packing.bits)

    def write(self, bits: Bits) -> Bytes:
        """Return the symbols (count,) of data bits (B,)."""
        words = np.zeros(self._words * self.packing.bits, np.bool_)
        words[: self.stored] = self._encoded(bits)
        numbers = from_gray(words.reshape(self.packing.bits, -1).T)
        symbols: Bytes = self.packing.words[numbers].astype(np.uint8).reshape(-1)
        return symbols

    def decided(self, read: NDArray[np.floating[Any]]) -> Bytes:
        """Return the symbols (count,) that mean reads (count,) of their cells are taken for; 0 where there is none."""
        symbols: Bytes = np.searchsorted(self.symbols.thresholds, np.nan_to_num(read, nan=-np.inf)).astype(np.uint8)
        return symbols

    def stored_bits(self, symbols: Bytes) -> Bits:
        """Return data and parity (stored,) of symbols (count,)."""
        word = symbols.reshape(-1, self.packing.cells).astype(np.int64)
        places = self.packing.symbols ** np.arange(self.packing.cells - 1, -1, -1)
        bits = to_gray(self.packing.numbers[word @ places], self.packing.bits)
        return np.ascontiguousarray(bits.T).reshape(-1)[: self.stored]

    def unread_blocks(self, unread: Bits) -> Bits:
        """Return which blocks (blocks,) have a bit in a word with a symbol (count,) that was not read."""
        words = unread.reshape(-1, self.packing.cells).any(axis=1)
        number = np.flatnonzero(np.tile(words, self.packing.bits)[: self.stored])
        blocks = np.zeros(-(-self.bits // self.block), np.bool_)
        blocks[number // (1 if self.code.block is None else self.code.block.length)] = True
        return blocks

    def decode(self, stored: Bits) -> Decoded:
        """Return the data that data and parity (stored,) decode to."""
        if self.code.block is None:
            return Decoded(stored, np.ones(self.bits, np.bool_), 0)
        code, length = code_of_block(self.code.block), self.code.block.length
        whole = self.bits // self.block * length
        parts, good, corrected = [], [], 0
        for words in (stored[:whole].reshape(-1, length), stored[whole:].reshape(1, -1)):
            if words.size:
                decoded, found = code.decode(words)
                parts.append(decoded[:, : words.shape[1] - code.parity].reshape(-1))
                good.append(found)
                corrected += int(np.count_nonzero(decoded != words))
        return Decoded(np.concatenate(parts), np.concatenate(good), corrected)

    def _encoded(self, bits: Bits) -> Bits:
        """Return data and parity (stored,)."""
        if self.code.block is None:
            return bits
        code, whole = code_of_block(self.code.block), self.bits // self.block * self.block
        parts = [bits[:whole].reshape(-1, self.block)]
        if whole < self.bits:
            parts.append(bits[None, whole:])
        return np.concatenate([np.concatenate([data, code.encode(data)], axis=1).reshape(-1) for data in parts])

    def levels(self, symbols: Bytes) -> Floats:
        """Return the level of each symbol."""
        levels: Floats = self.symbols.levels[symbols]
        return levels
