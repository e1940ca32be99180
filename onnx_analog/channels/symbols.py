"""Digital symbols in noisy cells: their levels, their error rates, and the bits that a cell holds.

A cell holds one of m symbols. Neighbouring symbols are placed at equal distance in standard deviations,

    ∫ dx/σ(x) between neighbours = (∫ dx/σ(x) over the output range)/(m - 1)

so that, as far as σ varies slowly, all neighbours are misread equally often. A read is taken for the symbol that makes
it most likely: the thresholds are where the likelihoods of neighbours cross. Reads are taken to be normal, with the
moments that the channel states; of a channel whose law is not normal, error rates are counted in reads instead.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.special
from numpy.typing import NDArray

from onnx_analog.channels.base import READS, Channel, Doubles, Floats, sampled
from onnx_analog.channels.capacity import transition
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.errors import OptionError, require_int
from onnx_analog.randomness import stream

MOST_SYMBOLS = 64  # per cell
MOST_BITS = 12  # of a group of cells: its 2^12 words are enumerated
_ROWS = 128  # words that are enumerated at once
_KNOTS = 4097  # of the integral over the output range
_SAMPLED_KNOTS = 65  # where each takes 20,000 reads
_LEAST_STD = 1e-12


@dataclass(frozen=True)
class Symbols:
    """The m symbols of one cell.

    Parameters
    ----------
    channel : Channel
    count : int, 2 to 64
        m, the symbols per cell.
    cells : int, >= 1
        Cells that hold the same symbol, whose reads are averaged.

    Raises
    ------
    OptionError
        If `count` is out of its range.
    """

    channel: Channel
    count: int
    cells: int = 1

    def __post_init__(self) -> None:
        if not 2 <= require_int("symbols", self.count) <= MOST_SYMBOLS:
            raise OptionError(f"symbols is {self.count}; it must be from 2 to {MOST_SYMBOLS}")

    @cached_property
    def levels(self) -> Floats:
        """Level of each symbol (m,), ascending; the first and the last are the ends of the output range."""
        x, passed = _distances(self.channel, self.cells)
        placed = np.interp(np.linspace(0, passed[-1], self.count), passed, x)
        return clip_to_range(placed.astype(np.float32), self.channel.span)

    @cached_property
    def moments(self) -> tuple[Doubles, Doubles]:
        """Mean and standard deviation of a read of each symbol, each (m,)."""
        mean, std = self.channel.moments(self.levels, cells=self.cells)
        return mean, np.maximum(std, _LEAST_STD)

    @cached_property
    def thresholds(self) -> Doubles:
        """Reads between which each symbol is decided, (m - 1,), increasing."""
        return crossings(*self.moments)

    @cached_property
    def confusion(self) -> Doubles:
        """P(symbol decided | symbol stored), (m, m).

        Exact where reads are normal. Else errors are counted in 20,000 reads of each symbol, which cannot show rates
        below 1e-4: no error is taken to be rarer than for normal reads with the same moments.
        """
        edges = np.concatenate([[-np.inf], self.thresholds, [np.inf]])
        of_normal = interval_chances(edges, *self.moments)
        if self.channel.normal:
            return of_normal
        rng = stream(0, 0, "symbols", plane=f"confusion {self.count}")
        reads = sampled(self.channel, self.levels, rng, cells=self.cells, count=READS)
        decided = np.searchsorted(self.thresholds, reads)
        counts = np.stack([np.bincount(row, minlength=self.count) for row in decided])
        wrong = np.maximum(counts / READS, of_normal) * (1 - np.eye(self.count))
        chances: Doubles = wrong + np.diag(1 - wrong.sum(axis=1))
        return chances

    @property
    def error(self) -> float:
        """Share of the cells that are misread, all symbols equally likely."""
        wrong = self.confusion * (1 - np.eye(self.count))  # not 1 - the trace, which would lose small chances
        return float(wrong.sum() / self.count)

    @cached_property
    def hard_bits(self) -> float:
        """Bits that a cell holds at most if a code sees decided symbols only, all equally likely."""
        return information(self.confusion)

    @cached_property
    def soft_bits(self) -> float:
        """Bits that a cell holds at most if a code sees the read itself, all symbols equally likely; reads normal."""
        return information(transition(*self.moments))


@lru_cache(maxsize=256)
def _distances(channel: Channel, cells: int) -> tuple[Doubles, Doubles]:
    """Return levels of the output range, and how many standard deviations each is from the first."""
    span = channel.span
    level = clip_to_range(np.linspace(*span, _KNOTS if channel.normal else _SAMPLED_KNOTS).astype(np.float32), span)
    _, std = channel.moments(level, cells=cells)
    density, x = 1 / np.maximum(std, _LEAST_STD), level.astype(np.float64)
    return x, np.concatenate([[0.0], np.cumsum(np.diff(x) * (density[1:] + density[:-1]) / 2)])


def interval_chances(edges: Doubles, mean: Doubles, std: Doubles) -> Doubles:
    """Return the chances that normal reads (m,) fall between neighbouring `edges` (k + 1,), as (m, k).

    Each is taken in the tail in which it is small, so that chances far below 1e-16 keep their digits.
    """
    z = (edges - mean[:, None]) / std[:, None]
    low, high = scipy.special.ndtr(z), scipy.special.ndtr(-z)
    chances: Doubles = np.where(z[:, :-1] > 0, high[:, :-1] - high[:, 1:], low[:, 1:] - low[:, :-1])
    return chances


def crossings(mean: Doubles, std: Doubles) -> Doubles:
    """Return where the likelihoods of neighbouring normal laws cross, between their means, (m - 1,), increasing.

    (y - m1)²/s1² + 2·ln s1 = (y - m2)²/s2² + 2·ln s2 is quadratic in y. Where no root lies between the means, this is
    the point at equal distance in standard deviations.
    """
    m1, m2, s1, s2 = mean[:-1], mean[1:], std[:-1], std[1:]
    a = s2**2 - s1**2
    b = m2 * s1**2 - m1 * s2**2
    c = m1**2 * s2**2 - m2**2 * s1**2 - 2 * (s1 * s2) ** 2 * np.log(s2 / s1)
    root = np.sqrt(np.maximum(b**2 - a * c, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # With the same s, a is 0, and the first form, which does not cancel, is -c/(2b).
        candidates = np.stack([-c / (b + np.copysign(root, b)), -(b + np.copysign(root, b)) / a])
    between = (candidates >= m1) & (candidates <= m2)
    middle = (m1 * s2 + m2 * s1) / (s1 + s2)
    chosen = np.where(between[0], candidates[0], np.where(between[1], candidates[1], middle))
    increasing: Doubles = np.maximum.accumulate(chosen)
    return increasing


def information(chances: Doubles) -> float:
    """Return I(X; Y) in bits of equiprobable inputs, from P(output | input) of shape (inputs, outputs).

    Examples
    --------
    >>> information(np.eye(4))
    2.0
    """
    output = chances.mean(axis=0)
    inside = scipy.special.xlogy(chances, chances).sum(axis=1).mean()
    return float(inside - scipy.special.xlogy(output, output).sum()) / math.log(2)


# ------------------------------------------------------------------------------------------- bits in groups of cells


@dataclass(frozen=True)
class Packing:
    """A mapping of groups of `bits` bits to groups of `cells` cells that hold one of `symbols` symbols each.

    Words of a group are numbered by a reflected Gray code of base m, in which neighbouring numbers differ by one step
    in one cell, and bits are the binary Gray code of the number. So the likeliest errors flip few bits.
    """

    symbols: int
    cells: int
    bits: int

    @staticmethod
    def of(symbols: int) -> list[Packing]:
        """Return the groups that may pay, the smallest first: each holds more bits per cell than all smaller ones.

        Larger groups waste less of the log2 m bits of each cell, and a misread cell flips more of their bits.
        """
        groups: list[Packing] = []
        for cells in range(1, MOST_BITS + 1):
            bits = int(cells * math.log2(symbols) + 1e-9)
            if bits <= MOST_BITS and (not groups or bits / cells > groups[-1].bits_per_cell + 1e-9):
                groups.append(Packing(symbols, cells, bits))
        return groups

    @property
    def bits_per_cell(self) -> float:
        """Bits per cell."""
        return self.bits / self.cells

    @property
    def used(self) -> float:
        """Share of the words of m symbols that have a number."""
        return 2.0**self.bits / float(self.symbols) ** self.cells

    @cached_property
    def words(self) -> NDArray[np.int64]:
        """Symbols of each of the 2^bits numbers, (2^bits, cells)."""
        numbers, words = np.arange(2**self.bits), np.empty((2**self.bits, self.cells), np.int64)
        for cell in reversed(range(self.cells)):
            numbers, digit = np.divmod(numbers, self.symbols)
            words[:, cell] = np.where(numbers % 2, self.symbols - 1 - digit, digit)
        return words

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """The number that each word of m symbols is taken for, (m^cells,), the first cell of a word highest.

        A word that no number has is taken for the number whose symbols differ by the fewest steps.
        """
        number = np.full((self.symbols,) * self.cells, -1)
        number[tuple(self.words.T)] = np.arange(len(self.words))
        every = np.array(list(itertools.product(range(self.symbols), repeat=self.cells)))
        flat: NDArray[np.int64] = number.reshape(-1)
        for word in np.flatnonzero(flat < 0):
            flat[word] = int(np.abs(self.words - every[word]).sum(axis=1).argmin())
        return flat

    def bit_error(self, confusion: Doubles) -> float:
        """Return the share of bits that are wrong, all words equally likely, exactly."""
        gray = self.numbers ^ (self.numbers >> 1)
        wrong = 0.0
        for start in range(0, len(self.words), _ROWS):  # few at once: all of them would take 100 MB
            words = self.words[start : start + _ROWS]
            stored = np.arange(start, start + len(words))
            flipped = np.bitwise_count((stored ^ (stored >> 1))[:, None] ^ gray[None, :])
            chances = np.ones((len(words), 1))
            for cell in range(self.cells):
                chances = (chances[:, :, None] * confusion[words[:, cell]][:, None, :]).reshape(len(words), -1)
            wrong += float((chances * flipped).sum())
        return wrong / (len(self.words) * self.bits)


@lru_cache(maxsize=256)
def symbols_of(channel: Channel, count: int, cells: int = 1) -> Symbols:
    """Return the symbols of a channel; what is computed of them is kept."""
    return Symbols(channel, count, cells)
