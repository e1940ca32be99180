"""Which points of a grid are worth their cells: judged by 95 % intervals, and never by bare means.

Intervals are over trials. Where all trials of a point are alike, as those of a digital plan are, its interval has no
width, although other samples would give other values. Then shares differ only if it is by more than the choice of
samples explains (see `onnx_analog.run.statistics.sampling_reach`). For other metrics, that error is not known.

Cells are counted as the memory allows ("memory"), or as the paper counts ("paper"). As the memory allows, points are
compared with those whose decoding takes as much (see `onnx_analog.coding.streams.DECODING`), and with no others. The
paper's counting knows of no decoding, so all points are compared.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_analog.run.statistics import sampling_reach
from onnx_analog.study.sweeps import Point

_RISK = 0.025  # of a wrong "no" by losses alone, beside the 2.5 % of the interval's end
_MOST_TRIALS = 10_000  # that are thought of


def counting_of(points: Sequence[Point], counting: str = "memory") -> str:
    """Return the counting in which points are compared: the paper's where a point has no other.

    Some channels are too noisy for the code of a scheme.
    """
    return "paper" if any(point.cost_in(counting) is None for point in points) else counting


def marked(points: Sequence[Point], *, higher_is_better: bool = True, counting: str = "memory") -> list[Point]:
    """Return the points that are better than all that is cheaper and decoded alike, their 95 % intervals apart.

    So the cheapest point is never one of them, however bad or good, nor is a point that noise may have lifted over a
    cheaper one, nor one that a point of the same cost is better than. Of a point without an interval nothing is said,
    nor of what costs more; trials that are all alike count as an interval of no width if there are as many as
    `_alike_that_tell` asks for. Where no read has noise, one trial is enough.

    Parameters
    ----------
    points : sequence of Point
        Of one model and channel.
    higher_is_better : bool
        False for a metric whose lower values are better, as perplexity.
    counting : {"memory", "paper"}
        If a point has no count as the memory allows, the paper's is taken for all.
    """
    counting = counting_of(points, counting)
    costs = {id(point): point.cost_in(counting) or 0.0 for point in points}
    with_trials = [point for point in points if point.evaluation.values]

    def pays(point: Point) -> bool:
        alike = [other for other in with_trials if counting == "paper" or other.decoding == point.decoding]
        cheaper = [other for other in alike if costs[id(other)] < costs[id(point)]]
        level = [other for other in alike if costs[id(other)] == costs[id(point)]]
        return (
            bool(cheaper)
            and all(_above(point, other, higher_is_better) for other in cheaper)
            and not any(_above(other, point, higher_is_better) for other in level)
        )

    return [point for point in with_trials if pays(point)]


def as_good_as_the_best(points: Sequence[Point], *, higher_is_better: bool = True) -> list[Point]:
    """Return the point of the best mean, and those that the trials do not tell from the best.

    A point is worse if the 95 % interval of any other lies wholly on the better side of its own, where its own is taken
    to reach no further than the other's; where trials are alike, by more than the choice of samples explains. As good
    as the best are the points whose mean is better than the means of all worse points. So no point counts because its
    interval is wide enough to reach the best. And one noisy point does not decide: whatever point is added, no other
    becomes as good as the best by it.

    A mean without an interval stands for itself, but for the choice of samples: of single trials, only those of the
    best value are as good, and those that the samples do not tell from it.
    """
    sign = 1 if higher_is_better else -1
    known = [point for point in points if not math.isnan(_mean(point))]
    worse = [point for point in known if any(_is_worse(point, other, higher_is_better) for other in known)]
    bound = max((sign * _mean(point) for point in worse), default=-math.inf)
    return [point for point in known if sign * _mean(point) > bound]


def cheapest(points: Sequence[Point], *, higher_is_better: bool = True, counting: str = "memory") -> Point | None:
    """Return the cheapest of the points that are as good as the best; None if no point has a trial."""
    counting = counting_of(points, counting)
    best = as_good_as_the_best(points, higher_is_better=higher_is_better)
    return min(best, key=lambda point: point.cost_in(counting) or 0.0, default=None)


def loss_of(point: Point) -> float | None:
    """Return how much worse the mean is than the value without noise; None if either is unknown."""
    return _worse(point, _mean(point)) if point.evaluation.values else None


def loss_ends(point: Point) -> tuple[float, float] | None:
    """Return the 95 % interval of the loss, from that of `interval_of`; None if there is none."""
    ends = interval_of(point)
    losses = [] if ends is None else [loss for end in ends if (loss := _worse(point, end)) is not None]
    return (min(losses), max(losses)) if losses else None


def _worse(point: Point, value: float) -> float | None:
    evaluation = point.evaluation
    base, higher = evaluation.baseline, evaluation.higher_is_better
    return None if base is None or higher is None else base - value if higher else value - base


def keeps(point: Point, limit: float) -> bool | None:
    """Return whether a point surely loses at most `limit`: False if it surely loses more, None if that is unknown.

    It keeps the limit if the upper end of its interval does. It loses more if the lower end does, or if its trials are
    too bad for a mean within the limit, however they scatter. Either "no" is wrong with a chance of 2.5 % at most.
    """
    if _too_bad(point, limit):
        return False
    ends = loss_ends(point)
    if ends is None:
        return None
    low, high = ends
    if high <= limit or math.isclose(high, limit):  # a share is a quotient, and the limit a decimal number
        return True
    return False if low > limit and not math.isclose(low, limit) else None


def _too_bad(point: Point, limit: float) -> bool:
    """Return whether values are so far from the best possible one that their mean cannot keep a limit.

    Let each trial be off by y ≥ 0 from the best value, as 1 - accuracy, and m be the mean of y that just keeps the
    limit. Trials are independent, so the product of all y/m has a mean of at most 1 where the limit is kept. By
    Markov's inequality it reaches 1/risk with a chance of at most the risk, whatever the law of y.
    """
    ratios = _log_ratios(point, limit)
    return ratios is not None and float(ratios.sum()) >= -math.log(_RISK)


def _log_ratios(point: Point, limit: float) -> NDArray[np.float64] | None:
    """Return log(y/m) of each trial; None where no value is the best possible, or there is nothing to compare."""
    evaluation = point.evaluation
    base, higher = evaluation.baseline, evaluation.higher_is_better
    if base is None or higher is None or not evaluation.values or any(map(math.isnan, evaluation.values)):
        return None
    best = evaluation.bounds[1 if higher else 0]
    if not math.isfinite(best) or not math.isfinite(base):
        return None
    off, most = np.abs(best - np.asarray(evaluation.values)), abs(best - base) + limit
    with np.errstate(divide="ignore", invalid="ignore"):  # of 0/0, which is 1 here: such a trial keeps the limit
        return np.where(off == most, 0.0, np.log(off) - np.log(most))


def trials_needed(point: Point, limit: float) -> int | None:
    """Return how many trials in all would tell whether a point keeps a limit, if they lose and scatter as these do.

    None if no number up to 10,000 would, or these do not show how they scatter. The further trials are judged by an
    interval of the same confidence as these.
    """
    values, loss = point.evaluation.values, loss_of(point)
    if loss is None or not math.isfinite(loss) or len(values) < 2:
        return None
    if len(set(values)) == 1:
        return max(_alike_that_tell(point.confidence), len(values) + 1)
    import scipy.stats  # takes longer than all else that is imported here

    std, ratios = float(np.std(values, ddof=1)), _log_ratios(point, limit)
    growth = -math.inf if ratios is None or loss <= limit else float(ratios.mean())

    def decide(count: int) -> bool:
        reach = float(scipy.stats.t.isf((1 - point.confidence) / 2, count - 1)) * std / math.sqrt(count)
        return abs(loss - limit) > reach or count * growth >= -math.log(_RISK)

    found = bisect.bisect_left(range(_MOST_TRIALS + 1), True, lo=len(values) + 1, key=decide)
    return found if found <= _MOST_TRIALS else None


def cheapest_within(
    points: Sequence[Point], limit: float, *, counting: str = "memory"
) -> tuple[Point | None, list[Point]]:
    """Return the cheapest point that surely loses no more than a limit, and the cheaper ones that may, in their order.

    Of points of the same cost, the one with the least loss is the first. Without a point that surely keeps the limit,
    all that may are returned.
    """
    counting = counting_of(points, counting)
    ordered = sorted(points, key=lambda point: (point.cost_in(counting) or 0.0, loss_of(point) or 0.0))
    answers = [keeps(point, limit) for point in ordered]
    end = answers.index(True) if True in answers else len(ordered)
    undecided = [point for point, answer in zip(ordered[:end], answers, strict=False) if answer is None]
    return (ordered[end] if end < len(ordered) else None), undecided


def _mean(point: Point) -> float:
    return math.nan if point.evaluation.mean is None else point.evaluation.mean


def interval_of(point: Point) -> tuple[float, float] | None:
    """Return the finite 95 % interval of a point, or None. It has no width if all trials are known to be alike."""
    if point.ci95 is not None and all(map(math.isfinite, point.ci95)):
        return point.ci95
    values = point.evaluation.values
    enough = len(values) >= (1 if point.alike else _alike_that_tell(point.confidence))
    return (values[0], values[0]) if enough and len(set(values)) == 1 else None


def _alike_that_tell(confidence: float) -> int:
    """Return how many trials of one value tell it from another.

    That all n of them lie on one side of the other value has a chance of 2·2⁻ⁿ if either side is as likely.
    """
    return math.ceil(math.log2(2 / (1 - confidence)))


def _ends(point: Point) -> tuple[float, float]:
    """Return the interval, widened to hold the mean, which rounding may put outside; without one, the mean twice."""
    mean = _mean(point)
    low, high = interval_of(point) or (mean, mean)
    return min(low, mean), max(high, mean)


def _above(point: Point, other: Point, higher_is_better: bool) -> bool:
    """Return whether both have an interval, and that of `point` is wholly on the better side."""
    mine, its = interval_of(point), interval_of(other)
    if mine is None or its is None or not _apart(mine, its, higher_is_better):
        return False
    return _better(point, other, higher_is_better)


def _better(point: Point, other: Point, higher_is_better: bool) -> bool:
    """Return whether the interval of `point`, or its mean without one, is on the better side by more than errors."""
    mine, its = _ends(point), _ends(other)
    gap = mine[0] - its[1] if higher_is_better else its[0] - mine[1]
    return gap > 0 and gap > _of_samples(point, other)


def _is_worse(point: Point, other: Point, higher_is_better: bool) -> bool:
    """Return whether another point is better than `point`, were the interval of this no wider than that of the other.

    Where trials are alike, the choice of samples tells how far a share may be off; for other metrics, nothing does.
    """
    sign = 1 if higher_is_better else -1
    gap, of_samples = sign * (_mean(other) - _mean(point)), _of_samples(point, other)
    up = abs(_ends(point)[1 if higher_is_better else 0] - _mean(point))
    down = abs(_ends(other)[0 if higher_is_better else 1] - _mean(other))
    narrow = up if down == of_samples == 0 else min(up, down)
    return gap > down + narrow and gap > of_samples


def _apart(mine: tuple[float, float], its: tuple[float, float], higher_is_better: bool) -> bool:
    return mine[0] > its[1] if higher_is_better else mine[1] < its[0]


def samples_count(points: Sequence[Point]) -> bool:
    """Return whether the choice of samples counts, beside the trials: for shares, where trials of a point are alike."""
    return any(point.evaluation.share and point.evaluation.values and _is_alike(point) for point in points)


def _is_alike(point: Point) -> bool:
    """Return whether trials do not tell how far the value may be off."""
    ends = interval_of(point)
    return ends is None or ends[0] == ends[1]


def _of_samples(point: Point, other: Point) -> float:
    """Return how far the difference of two means may be off by the choice of samples, where that counts."""
    worse, better = sorted((_mean(point), _mean(other)))
    shares = bool(point.evaluation.share and other.evaluation.share) and 0 <= worse <= better <= 1
    if not shares or not (_is_alike(point) or _is_alike(other)):
        return 0.0
    return sampling_reach(better, worse, min(point.evaluation.samples, other.evaluation.samples))
