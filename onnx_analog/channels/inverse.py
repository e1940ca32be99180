"""The inverse f = μ⁻¹ of a mean curve that need not be monotone.

The mean μ and the standard deviation σ are linear between the inputs of a table. So on each piece of the curve the
input, and with it σ(f), is a linear function of the level; where several pieces reach a level, f takes the one of least
σ. That is the lower envelope of line segments, which is computed once and exactly: no search, no step error.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_BUCKETS = 2**12  # equal parts of the levels, of which most hold one knot at most
_TRIES = 4  # knots in a bucket at most; where there are more, knots are found by bisection
_CHUNK = 2**14  # levels at once: their intermediates stay in cache
_LEAST = 2.0**-149  # float32 levels are no closer to 0 than this
_ROUNDING = 1e-12  # σ on the scale of -1 to 1 that differ by less are equal


class _Lines(NamedTuple):
    """Pieces of the curve, as functions of the level y: σ = s0 + s1·(y - low), input = x0 + x1·(y - low); each (m,)."""

    low: Doubles
    high: Doubles
    s0: Doubles
    s1: Doubles
    x0: Doubles
    x1: Doubles

    def at(self, level: float) -> tuple[Doubles, Doubles]:
        """Return σ and input of each piece at `level`; the least σ is chosen, then the smaller input."""
        return self.s0 + self.s1 * (level - self.low), self.x0 + self.x1 * (level - self.low)

    def where(self, mask: NDArray[np.bool_]) -> _Lines:
        """Return some of the pieces."""
        return _Lines(*(column[mask] for column in self))


class Inverse:
    """f and σ∘f of a table.

    Parameters
    ----------
    inputs : float array of shape (n,), n >= 2, increasing
        Programmed inputs.
    means, stds : float arrays of shape (n,)
        μ and σ at those inputs. The means are not all equal.

    Examples
    --------
    >>> inverse = Inverse(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]), np.array([0.3, 0.2, 0.1]))
    >>> inverse.input(np.array([0.5])), inverse.std(np.array([0.5]))  # 0.5 has less noise
    (array([1.5]), array([0.15]))
    """

    def __init__(self, inputs: Doubles, means: Doubles, stds: Doubles) -> None:
        means = np.where(np.abs(means) < _LEAST, 0.0, means)  # a slope between two of those is beyond float64
        lines = _lines(inputs, means, stds)
        starts: list[float] = []
        pieces: list[list[float]] = []
        for low, high in pairwise(np.unique(means).tolist()):
            for start, lowest_line, spanning in _envelope(lines, low, high):
                starts.append(start)
                pieces.append([column[lowest_line] for column in spanning])
        self._knots = np.union1d(means, starts)  # where branches meet, ties count
        piece = np.searchsorted(np.array(starts), self._knots, side="right") - 1  # from each knot to the next
        self._low, _, *lines_of_pieces = np.array(pieces).T[:, piece]
        self._std_line, self._input_line = lines_of_pieces[:2], lines_of_pieces[2:]
        at_knots = [_best_at(knot, lines, inputs, means, stds) for knot in self._knots]
        self._knot_std, self._knot_input = np.array(at_knots).T
        self._scale = _BUCKETS / (self._knots[-1] - self._knots[0])
        buckets = self._bucket(self._knots)
        self._tries = int(np.bincount(buckets).max())
        self._first = np.searchsorted(buckets, np.arange(_BUCKETS + 1)) - 1  # the last knot of the buckets before
        self._next = np.append(self._knots[1:], np.inf)

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return σ(f(level)), of the shape of `level`."""
        return self._evaluate(level, self._std_line, self._knot_std)

    def input(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return f(level), of the shape of `level`."""
        return self._evaluate(level, self._input_line, self._knot_input)

    def _evaluate(self, level: NDArray[np.floating[Any]], line: list[Doubles], at_knots: Doubles) -> Doubles:
        values = np.empty(level.size)
        flat = level.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            y = flat[start : start + _CHUNK].astype(np.float64)
            knot = self._knot_below(y)
            part = line[0][knot] + line[1][knot] * (y - self._low[knot])
            values[start : start + _CHUNK] = np.where(self._knots[knot] == y, at_knots[knot], part)
        return values.reshape(level.shape)

    def _knot_below(self, y: Doubles) -> NDArray[np.intp]:
        """Return the last knot that is not above each level; the first one for levels below it."""
        if self._tries > _TRIES:
            return np.maximum(np.searchsorted(self._knots, y, side="right") - 1, 0)
        knot = np.maximum(self._first[self._bucket(y)], 0)
        for _ in range(self._tries):  # past those knots of its own bucket that a level has reached
            knot += self._next[knot] <= y
        return knot

    def _bucket(self, y: Doubles) -> NDArray[np.intp]:
        """Return the bucket of each level. It never falls as the level rises, which is all that counts."""
        bucket: NDArray[np.intp] = np.clip((y - self._knots[0]) * self._scale, 0, _BUCKETS).astype(np.intp)
        return bucket


def _lines(inputs: Doubles, means: Doubles, stds: Doubles) -> _Lines:
    """Return the pieces of the curve that rise or fall."""
    first = np.flatnonzero(np.diff(means))
    per_level = 1 / np.diff(means)[first]
    end = np.where(means[first] < means[first + 1], first, first + 1)  # the lower one
    low, high = np.sort([means[first], means[first + 1]], axis=0)
    return _Lines(
        low, high, stds[end], np.diff(stds)[first] * per_level, inputs[end], np.diff(inputs)[first] * per_level
    )


def _envelope(lines: _Lines, low: float, high: float) -> Iterator[tuple[float, int, _Lines]]:
    """Yield (start, index, lines): from `start` on, the line of that index is the lowest."""
    spanning = lines.where((lines.low <= low) & (lines.high >= high))
    start = low
    while start < high:
        std, x = spanning.at(start)
        lowest = np.flatnonzero(std <= std.min() + _ROUNDING)
        lowest_line = int(lowest[np.lexsort((x[lowest], spanning.s1[lowest]))[0]])
        yield start, lowest_line, spanning
        # A line that falls more steeply is met further right; the nearest meeting is where it takes over.
        steeper = np.flatnonzero(spanning.s1 < spanning.s1[lowest_line])
        gap = np.maximum(std[steeper] - std[lowest_line], 0)
        meetings = start + gap / (spanning.s1[lowest_line] - spanning.s1[steeper])
        start = float(np.min(meetings[meetings > start], initial=high))


def _best_at(level: float, lines: _Lines, inputs: Doubles, means: Doubles, stds: Doubles) -> tuple[float, float]:
    """Return (σ, input) of the best preimage of a level that some input has for its mean, plateaus among them."""
    exact = means == level
    std, x = lines.where((lines.low < level) & (level < lines.high)).at(level)
    stds, inputs = np.concatenate([stds[exact], std]), np.concatenate([inputs[exact], x])
    best = np.lexsort((inputs, stds))[0]
    return float(stds[best]), float(inputs[best])
