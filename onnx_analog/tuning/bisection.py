"""Finds the cheapest of many plans that keeps a loss, by looking at few of them.

Plans are given by their cells, the cheapest first, and are taken for the better the more cells they take. A look may be
slow, so a quick one, which is less sure, may first tell where to begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Holds = Callable[[int], bool]

ROUNDS = 9  # of bisection
_LAST_ROUNDS = 2  # of bisection between plans that a quick look has found
_GROWTH = 1.06  # of the cells, from one look to the next


def cheapest(cells: Sequence[float], holds: Holds, quick: Holds | None = None) -> int:
    """Return the place of the cheapest plan that was found to hold; the last place if none was.

    The last plan is not looked at.

    Parameters
    ----------
    cells : sequence of float, > 0, in ascending order
    holds : function
        Whether the plan of a place holds.
    quick : function, optional
        The same, less surely.
    """
    last = len(cells) - 1
    if quick is None:
        return _bisected(cells, holds, 0, last, ROUNDS)
    low, high = _bracket(cells, holds, _bisected(cells, quick, 0, last, ROUNDS))
    return _bisected(cells, holds, low, high, _LAST_ROUNDS)


def after(cells: Sequence[float], place: int, growth: float = _GROWTH) -> int:
    """Return the first place with so many times the cells, or the last."""
    more = growth * cells[place]
    return next((i for i in range(place + 1, len(cells)) if cells[i] >= more), len(cells) - 1)


def _before(cells: Sequence[float], place: int, growth: float) -> int:
    less = cells[place] / growth
    return next((i for i in range(place - 1, -1, -1) if cells[i] <= less), 0)


def _bracket(cells: Sequence[float], holds: Holds, start: int) -> tuple[int, int]:
    """Return a place that does not hold and one that does, in steps that grow; places at the ends may do neither."""
    low = high = start
    growth = _GROWTH
    if start < len(cells) - 1 and not holds(start):
        while high < len(cells) - 1:
            low, high = high, after(cells, high, growth)
            if high == len(cells) - 1 or holds(high):
                break
            growth *= _GROWTH
        return low, high
    while low > 0:
        high, low = low, _before(cells, low, growth)
        if low == 0 or not holds(low):
            break
        growth *= _GROWTH
    return low, high


def _bisected(cells: Sequence[float], holds: Holds, low: int, high: int, rounds: int) -> int:
    for _ in range(rounds):
        if high - low <= 1:
            break
        middle = _between(cells, low, high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return 0 if high == 1 and holds(0) else high


def _between(cells: Sequence[float], low: int, high: int) -> int:
    """Return the place between two others whose cells are nearest to the geometric mean of theirs."""
    target = math.sqrt(cells[low] * cells[high])
    return min(range(low + 1, high), key=lambda place: abs(cells[place] - target))
