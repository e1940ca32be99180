"""Side information that is analog too: sign and class bits as levels of cells, and the errors of reading them.

b bits are one of 2^b symbols, in the order of a Gray code, so that the likeliest errors flip one bit. Symbols are
equally spaced levels of the output range, and a read is taken for the symbol that makes it most likely, as
`onnx_analog.channels.symbols` finds it. The paper takes these bits to be free of error; here that is one case of
two.

Where classes have different numbers of cells, levels are read as if their addresses were known: see
`onnx_analog.coding.assumptions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels import Channel
from onnx_analog.channels.base import sampled
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.channels.symbols import crossings, interval_chances
from onnx_analog.coding.partition import Bits
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.randomness import stream
from onnx_analog.settings import same, settings_of

Doubles = NDArray[np.float64]

_TRAINING_READS = 20_000  # for each symbol, where a channel's law is not known in closed form
_MOST_DRAWS = 2**28  # to learn such a law, where each cell is a draw: some ten seconds
_CHUNK = 2**14  # symbols that are compared with all 2^b thresholds at once


@dataclass(frozen=True, kw_only=True)
class SideInformation:
    """How sign and class bits are stored in cells.

    Parameters
    ----------
    channel : Channel
        Of these cells.
    bits_per_cell : int, 1 to 8
    cells : int, 1 to 1,000
        Cells that are averaged for each symbol.
    copies : int, 1 to 999, odd
        Copies of each symbol, read on their own; bits are decided by majority.

    Raises
    ------
    OptionError
        If one of them is out of its range, or the channel is read cell by cell and learning its errors would take more
        than 2^28 reads: 2^bits_per_cell · cells may be up to 13,421 there.
    """

    channel: Channel
    bits_per_cell: int = same(Scheme, "side_bits_per_cell")
    cells: int = same(Scheme, "side_cells")
    copies: int = same(Scheme, "side_copies")

    def __post_init__(self) -> None:
        for name, (declared, kind, _) in settings_of(SideInformation).items():
            object.__setattr__(self, name, declared.check(f"side_{name}", getattr(self, name), kind))
        draws = 2**self.bits_per_cell * self.cells * _TRAINING_READS
        if self.channel.most_cells is not None and draws > _MOST_DRAWS:
            raise OptionError(
                f"side_cells is {self.cells} with {self.bits_per_cell} bits in a cell; {self.channel} is read cell "
                f"by cell, so at most {_MOST_DRAWS // _TRAINING_READS // 2**self.bits_per_cell:,} can be averaged"
            )

    @property
    def cells_per_symbol(self) -> int:
        """Cells that one symbol takes."""
        return self.cells * self.copies

    @property
    def devices_per_symbol(self) -> int:
        """Memory elements that one symbol takes: more than its cells where a cell is a pair."""
        return self.cells_per_symbol * self.channel.devices_per_cell

    @cached_property
    def levels(self) -> NDArray[np.float32]:
        """Return the level of each symbol (2^b,)."""
        levels = np.linspace(*self.channel.span, 2**self.bits_per_cell).astype(np.float32)
        return clip_to_range(levels, self.channel.span)

    @cached_property
    def confusion(self) -> Doubles:
        """Return P(symbol read | symbol stored), of shape (2^b, 2^b), for one copy."""
        if self.channel.normal:
            _, exact = self.channel.moments(self.levels, cells=self.cells)
            std = exact.astype(np.float32).astype(np.float64)  # as levels are read
            return _confusion(self.levels.astype(np.float64), np.maximum(std, 1e-12))
        return self._sampled_confusion()

    def _sampled_confusion(self) -> Doubles:
        """Return the same from reads, with thresholds as if they were normal."""
        rng = stream(0, 0, "header", plane="confusion")
        reads = sampled(self.channel, self.levels, rng, cells=self.cells, count=_TRAINING_READS)
        mean, std = reads.mean(axis=1), np.maximum(reads.std(axis=1), 1e-12)
        order = np.argsort(mean, kind="stable")
        symbols = order[np.searchsorted(crossings(mean[order], std[order]), reads)]
        counts = np.stack([np.bincount(row, minlength=self.levels.size) for row in symbols])
        chances: Doubles = counts / _TRAINING_READS
        return chances

    def read(self, bits: Bits, rng: np.random.Generator) -> Bits:
        """Return bits as they are read.

        Parameters
        ----------
        bits : bool array of shape (n,)
            Filled up with zeros to whole symbols.
        rng : numpy Generator
            One uniform draw for each copy of each symbol.

        Returns
        -------
        bool array of shape (n,)
        """
        width = self.bits_per_cell
        symbols = symbols_of(bits, width)
        cumulative = np.cumsum(self.confusion, axis=1)[:, :-1]
        votes = np.zeros((symbols.size, width), np.int64)
        for _ in range(self.copies):
            votes += to_gray(_drawn(symbols, cumulative, rng), width)
        decided: Bits = (2 * votes > self.copies).reshape(-1)[: bits.size]
        return decided


def _drawn(symbols: NDArray[np.int64], cumulative: Doubles, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the symbols (m,) read for the stored ones (m,), from the cumulative chances (2^b, 2^b - 1) of each."""
    draw, read = rng.random(symbols.size), np.empty(symbols.size, np.int64)
    for start in range(0, symbols.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        read[part] = (draw[part, None] >= cumulative[symbols[part]]).sum(axis=1)
    return read


def to_gray(symbols: NDArray[np.integer[Any]], width: int) -> Bits:
    """Return the Gray code of each symbol (m,) as bits (m, width).

    Examples
    --------
    >>> to_gray(np.arange(4), 2).astype(int).tolist()
    [[0, 0], [0, 1], [1, 1], [1, 0]]
    """
    gray = symbols ^ (symbols >> 1)
    bits: Bits = (gray[:, None] >> np.arange(width - 1, -1, -1) & 1).astype(np.bool_)
    return bits


def symbols_of(bits: Bits, width: int) -> NDArray[np.int64]:
    """Return the symbols of bits (n,), filled up with zeros to whole symbols of `width` Gray code bits."""
    return from_gray(np.concatenate([bits, np.zeros(-bits.size % width, np.bool_)]).reshape(-1, width))


def from_gray(bits: Bits) -> NDArray[np.int64]:
    """Return the symbols (m,) of Gray code bits (m, width): the inverse of `to_gray`."""
    binary = np.bitwise_xor.accumulate(bits.astype(np.int64), axis=1)
    symbols: NDArray[np.int64] = binary @ (1 << np.arange(bits.shape[1] - 1, -1, -1))
    return symbols


def _confusion(mean: Doubles, std: Doubles) -> Doubles:
    return interval_chances(np.concatenate([[-np.inf], crossings(mean, std), [np.inf]]), mean, std)
