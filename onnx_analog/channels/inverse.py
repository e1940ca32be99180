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
        """Return what the choice goes by: least σ, then the smaller input."""
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
        lines = _lines(inputs, means, stds)
        starts: list[float] = []
        pieces: list[list[float]] = []
        for low, high in pairwise(np.unique(means).tolist()):
            for start, place, spanning in _envelope(lines, low, high):
                starts.append(start)
                pieces.append([column[place] for column in spanning])
        self._starts = np.array(starts)
        self._low, _, self._s0, self._s1, self._x0, self._x1 = np.array(pieces).T
        self._knots = np.union1d(means, self._starts)  # where branches meet, ties count
        at_knots = [_best_at(knot, lines, inputs, means, stds) for knot in self._knots]
        self._knot_std, self._knot_input = np.array(at_knots).T

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return σ(f(level)), of the shape of `level`."""
        return self._evaluate(level, self._s0, self._s1, self._knot_std)

    def input(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return f(level), of the shape of `level`."""
        return self._evaluate(level, self._x0, self._x1, self._knot_input)

    def _evaluate(self, level: NDArray[np.floating[Any]], c0: Doubles, c1: Doubles, at_knots: Doubles) -> Doubles:
        y = level.astype(np.float64)
        place = np.searchsorted(self._starts, y, side="right") - 1
        found: Doubles = c0[place] + c1[place] * (y - self._low[place])
        knot = np.minimum(np.searchsorted(self._knots, y), self._knots.size - 1)
        return np.where(self._knots[knot] == y, at_knots[knot], found)


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
    """Yield (start, place, spanning): along low..high, the lowest of the lines that span it, by its place in these."""
    spanning = lines.where((lines.low <= low) & (lines.high >= high))
    start = low
    while start < high:
        std, x = spanning.at(start)
        lowest = np.flatnonzero(std <= std.min() + _ROUNDING)
        place = int(lowest[np.lexsort((x[lowest], spanning.s1[lowest]))[0]])
        yield start, place, spanning
        # A line that falls more steeply is met further right; the nearest meeting is where it takes over.
        steeper = np.flatnonzero(spanning.s1 < spanning.s1[place])
        gap = np.maximum(std[steeper] - std[place], 0)
        meetings = start + gap / (spanning.s1[place] - spanning.s1[steeper])
        start = float(np.min(meetings[meetings > start], initial=high))


def _best_at(level: float, lines: _Lines, inputs: Doubles, means: Doubles, stds: Doubles) -> tuple[float, float]:
    """Return (σ, input) of the best preimage of a level that some input has for its mean, plateaus among them."""
    exact = means == level
    std, x = lines.where((lines.low < level) & (level < lines.high)).at(level)
    stds, inputs = np.concatenate([stds[exact], std]), np.concatenate([inputs[exact], x])
    best = np.lexsort((inputs, stds))[0]
    return float(stds[best]), float(inputs[best])
