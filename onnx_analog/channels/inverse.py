"""The inverse f = μ⁻¹ of a mean curve that need not be monotone.

The mean μ and the standard deviation σ are linear between the inputs of a table. So on each piece of the curve the
input, and with it σ(f), is a linear function of the level; where several pieces reach a level, f takes the one of least
σ. That is the lower envelope of line segments, which is computed once and exactly: no search, no step error.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_ROUNDING = 1e-12  # σ on the scale of -1 to 1 that differ by less are equal


class _Line(NamedTuple):
    """One piece of the curve, as functions of the level y: σ = s0 + s1·(y - low), input = x0 + x1·(y - low)."""

    low: float
    high: float
    s0: float
    s1: float
    x0: float
    x1: float

    def at(self, level: float) -> tuple[float, float]:
        """Return what the choice goes by: least σ, then the smaller input."""
        return self.s0 + self.s1 * (level - self.low), self.x0 + self.x1 * (level - self.low)


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
        bends = np.unique(means)
        pieces = [
            piece
            for low, high in pairwise(bends)
            for piece in _envelope([line for line in lines if line.low <= low and line.high >= high], low, high)
        ]
        self._starts = np.array([start for start, _ in pieces])
        self._low, self._s0, self._s1, self._x0, self._x1 = (
            np.array([getattr(line, name) for _, line in pieces]) for name in ("low", "s0", "s1", "x0", "x1")
        )
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


def _lines(inputs: Doubles, means: Doubles, stds: Doubles) -> list[_Line]:
    """Return the pieces of the curve that rise or fall."""
    lines = []
    for i in np.flatnonzero(np.diff(means)):
        per_level = 1 / (means[i + 1] - means[i])
        s1, x1 = (stds[i + 1] - stds[i]) * per_level, (inputs[i + 1] - inputs[i]) * per_level
        low, high = sorted((means[i], means[i + 1]))
        end = i if means[i] == low else i + 1
        lines.append(_Line(low, high, stds[end], s1, inputs[end], x1))
    return lines


def _envelope(lines: Sequence[_Line], low: float, high: float) -> list[tuple[float, _Line]]:
    """Return (start, line) of the lowest line along low..high; all `lines` span it."""
    pieces: list[tuple[float, _Line]] = []
    start = low
    while True:
        least = min(line.at(start)[0] for line in lines) + _ROUNDING
        lowest = [line for line in lines if line.at(start)[0] <= least]
        line = min(lowest, key=lambda line: (line.s1, line.at(start)[1]))
        pieces.append((start, line))
        # A line that falls more steeply is met further right; the nearest meeting is where it takes over.
        here = line.at(start)[0]
        steeper = [other for other in lines if other.s1 < line.s1]
        meetings = [start + max(other.at(start)[0] - here, 0.0) / (line.s1 - other.s1) for other in steeper]
        start = min((meeting for meeting in meetings if start < meeting < high), default=high)
        if start == high:
            return pieces


def _best_at(
    level: float, lines: Sequence[_Line], inputs: Doubles, means: Doubles, stds: Doubles
) -> tuple[float, float]:
    """Return (σ, input) of the best preimage of a level that some input has for its mean, plateaus among them."""
    exact = [(float(stds[i]), float(inputs[i])) for i in np.flatnonzero(means == level)]
    return min([*exact, *(line.at(level) for line in lines if line.low < level < line.high)])
