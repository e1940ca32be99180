"""Which points of a grid are worth their cells: judged by 95 % intervals, and never by bare means."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx_analog.sweeps import Point


def marked(points: Sequence[Point], *, higher_is_better: bool = True) -> list[Point]:
    """Return the points that are better than all that is cheaper, their 95 % intervals apart.

    So the cheapest point is never one of them, however bad or good, nor is a point that noise may have lifted over a
    cheaper one, nor one that a point of the same cost is better than. A point of fewer than two trials has no
    interval; nothing is said of it, nor of what costs more.

    Parameters
    ----------
    points : sequence of Point
        Of one model and channel.
    higher_is_better : bool
        False for a metric whose lower values are better, as perplexity.
    """
    with_trials = [point for point in points if point.evaluation.values]

    def pays(one: Point) -> bool:
        cheaper = [other for other in with_trials if other.cost < one.cost]
        alike = [other for other in with_trials if other.cost == one.cost]
        return (
            bool(cheaper)
            and all(_above(one, other, higher_is_better) for other in cheaper)
            and not any(_above(other, one, higher_is_better) for other in alike)
        )

    return [point for point in with_trials if pays(point)]


def as_good_as_the_best(points: Sequence[Point], *, higher_is_better: bool = True) -> list[Point]:
    """Return the point of the best mean, and those whose 95 % interval reaches into its own."""
    known = [point for point in points if point.evaluation.mean is not None and not math.isnan(point.evaluation.mean)]
    if not known:
        return []
    best = max(known, key=lambda point: (1 if higher_is_better else -1) * (point.evaluation.mean or 0.0))
    return [
        point
        for point in known
        if point is best or (_interval(point) is not None and not _above(best, point, higher_is_better))
    ]


def cheapest(points: Sequence[Point], *, higher_is_better: bool = True) -> Point | None:
    """Return the cheapest of the points that are as good as the best; None if no point has a trial."""
    return min(as_good_as_the_best(points, higher_is_better=higher_is_better), key=lambda p: p.cost, default=None)


def _interval(point: Point) -> tuple[float, float] | None:
    """Return the 95 % interval, if there is one and it ends somewhere."""
    return point.ci95 if point.ci95 is not None and all(map(math.isfinite, point.ci95)) else None


def _above(one: Point, other: Point, higher_is_better: bool) -> bool:
    """Return whether the interval of `one` is wholly on the better side of that of `other`."""
    mine, its = _interval(one), _interval(other)
    if mine is None or its is None:
        return False
    return mine[0] > its[1] if higher_is_better else mine[1] < its[0]
