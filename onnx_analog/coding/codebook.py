"""The α and β of classes, and where classes without cells are reconstructed: arrays only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.partition import Bits, Doubles, Edges, Floats, middle_of
from onnx_analog.coding.probabilities import Ints
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.sums import ClassSums, gain_of_points, means_of
from onnx_analog.errors import ModelError

_NORMAL = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))


@dataclass(frozen=True, eq=False)
class Codebook:
    """What the weights of G groups share; α and β are exact as float32.

    Attributes
    ----------
    low, high : float64 arrays of shape (G, K)
        The sizes that fill the channel's output range, in the unit of the weights; both 0 for an empty class. Those of
        a class of equal steps are the ends of its step, or the extremes where these lie further out; of a class without
        cells, the extremes, or where no class has cells, those of the group.
    alpha, beta : float32 arrays of shape (G, K)
        Scale and offset.
    """

    low: Doubles
    high: Doubles
    alpha: Floats
    beta: Floats

    @property
    def groups(self) -> int:
        """G, the number of groups."""
        return len(self.alpha)


def needs_totals(scheme: Scheme) -> bool:
    """Return whether codebooks need sums of sizes and of their squares: for points that are means, or keep a gain."""
    means = scheme.classes == 1 or scheme.partition != "uniform"
    return scheme.analog != "all" and (means or estimator(scheme.estimator).keeps_gain)


def needs_extremes(scheme: Scheme) -> bool:
    """Return whether codebooks need the extremes of each class: without cells, they only tell what is clipped."""
    return scheme.analog != "none"


def codebook_of(sums: ClassSums, edges: Edges, scheme: Scheme) -> Codebook:
    """Return the codebook of one group, (1, K), from its sums (K,).

    Raises
    ------
    ModelError
        If the sizes of a class cannot be scaled to the channel's output range in float32.
    """
    book, scaled = codebooks_of(sums.by_group(1), None if edges.points is None else np.array([edges.points]), scheme)
    for k in np.flatnonzero(~scaled[0]):
        low, high = book.low[0, k], book.high[0, k]
        raise ModelError(
            f"magnitudes from {low:.3g} to {high:.3g} cannot be scaled to {scheme.channel.span} in float32"
        )
    return book


def codebooks_of(sums: ClassSums, points: Doubles | None, scheme: Scheme) -> tuple[Codebook, Bits]:
    """Return the codebook of groups with the sums (G, K), and which classes (G, K) can be scaled in float32.

    `points` (G, K) are given of equal steps. A class of one value has no width: 0 is then included in it, so that α
    stays finite.
    """
    span = scheme.channel.span
    empty, analog = sums.count == 0, np.array(scheme.cells_of_class) > 0
    low, high = np.where(empty, 0.0, sums.low), np.where(empty, 0.0, sums.high)
    scaled = analog & ~empty
    if points is not None:
        low, high = _of_steps(low, high, points, scaled, scheme)
    single = (low == high) & analog
    low, high = np.where(single, np.minimum(low, 0), low), np.where(single, np.maximum(high, 0), high)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        alpha = ((span[1] - span[0]) / (high - low)).astype(np.float32)
        alpha = np.where(scaled, alpha, np.float32(1))
        beta = np.where(scaled, alpha.astype(np.float64) * low - span[0], 0.0)
        beta = np.where(analog, beta, _points(sums, points, scheme)).astype(np.float32)
    return Codebook(low, high, alpha, beta), (alpha >= _NORMAL[0]) & (alpha <= _NORMAL[1]) & np.isfinite(beta)


def _of_steps(low: Doubles, high: Doubles, points: Doubles, which: Bits, scheme: Scheme) -> tuple[Doubles, Doubles]:
    """Return the ends of the steps of the classes `which` (G, K); those of the others stay.

    So that the step and the two ends of the sizes tell all α and β.
    """
    half = (points[:, 1:2] - points[:, :1]) / 2
    least = 0.0 if scheme.sign == "bit" else -np.inf
    below = np.minimum(low, np.maximum(points - half, least))
    above = np.maximum(high, points + half)
    return np.where(which, below, low), np.where(which, above, high)


class Clipped(NamedTuple):
    """The weight that is clipped most: its magnitude, and the last step, both in the unit of the weights."""

    largest: float
    reach: float


def clipped_of(codebook: Codebook, edges: Sequence[Edges], scheme: Scheme) -> Clipped | None:
    """Return the weight that is clipped most, by more than half a step, to the last step; None if none is."""
    clipped = [
        Clipped(float(largest), reach)
        for number, of_group in enumerate(edges)
        if of_group.points is not None
        for largest, reach in _beyond(codebook, number, of_group.points, scheme)
        if largest - reach > (of_group.points[1] - of_group.points[0]) / 2
    ]
    return max(clipped, key=lambda each: each.largest / each.reach, default=None)


def _beyond(book: Codebook, group: int, points: Sequence[float], scheme: Scheme) -> list[tuple[float, float]]:
    """Return the largest size, and the last step, at each end that has no cells."""
    cells = scheme.cells_of_class
    ends = [(book.high[group, -1], points[-1], cells[-1])]
    if scheme.sign == "level":
        ends.append((-book.low[group, 0], -points[0], cells[0]))
    return [(size, reach) for size, reach, count in ends if not count]


def _points(sums: ClassSums, points: Doubles | None, scheme: Scheme) -> Doubles:
    """Return where each class (G, K) is reconstructed if it has no cells: the mean, unless points are given."""
    plain = means_of(sums) if points is None else points
    if sums.total is None or sums.square is None or not estimator(scheme.estimator).keeps_gain:
        return plain
    digital = np.array(scheme.cells_of_class) == 0
    sums_of = zip(sums.total[:, digital], sums.square[:, digital], plain[:, digital], strict=True)
    gains: Doubles = np.array([[gain_of_points(*of_group)] for of_group in sums_of])
    return plain * gains


# ------------------------------------------------------------------------------------------------- as it is stored

_CLOSE = 1e-6  # of the largest size: as far as α and β may be from those that stored numbers tell


def numbers_of(alpha: Floats, beta: Floats, scheme: Scheme, counts: Ints | None = None) -> Floats | None:
    """Return the numbers that a codebook is stored as: for each group, α and β of each class; of points, β alone.

    Of equal steps, they are the step of each group, or the one that the scheme gives, and then for each group, where
    classes have cells, the smallest size if the level holds the sign, and the largest.

    Parameters
    ----------
    alpha, beta : float32 arrays of shape (G, K)
    scheme : Scheme
    counts : int64 array of shape (G, K), optional
        Weights of each class, as far as they are known: an empty class has α = 1 and β = 0, which another may have too.

    Returns
    -------
    float32 array, or None
        None if α and β do not follow from a step and ends, but for rounding.
    """
    analog = np.array(scheme.cells_of_class) > 0
    if scheme.partition != "uniform" or scheme.classes == 1:
        kept = np.stack([np.broadcast_to(analog, beta.shape), np.ones(beta.shape, np.bool_)], axis=2)
        each: Floats = np.stack([alpha, beta], axis=2)[kept]
        return each
    low, high = (ends.astype(np.float64) for ends in _sizes(alpha, beta, scheme))
    there = (alpha != 1) | (beta != 0)  # an empty class has no size
    there = analog & (there if counts is None else there | (counts > 0))
    steps = np.array([_step_of(*of_group, scheme) for of_group in zip(beta, low, high, there, strict=True)])
    given = scheme.step is not None and not estimator(scheme.estimator).keeps_gain
    numbers = [np.array([scheme.step]) if given else steps]
    ends = np.zeros((len(alpha), 0))
    if analog.any():
        smallest, largest = np.where(there, low, np.inf).min(axis=1), np.where(there, high, -np.inf).max(axis=1)
        both = np.stack([smallest, largest], axis=1)
        ends = np.where(np.isfinite(both), both, 0.0)[:, (0 if scheme.sign == "level" else 1) :]
    stored: Floats = np.concatenate([*numbers, ends.reshape(-1)]).astype(np.float32)
    told = steps_of(stored, len(alpha), scheme)
    scale = np.abs(np.where(analog, np.where(there, np.maximum(-low, high), 0.0), beta)).max(axis=1)  # of each group
    apart = np.abs(np.stack([low, high]) - np.stack(_sizes(*told, scheme))).max(axis=0)
    off = np.where(analog, np.where(there, apart, 0.0), np.abs(beta - told[1])).max(axis=1)
    return stored if (off <= _CLOSE * scale).all() else None


def steps_of(numbers: Floats, groups: int, scheme: Scheme) -> tuple[Doubles, Doubles]:
    """Return the α and β (G, K) of equal steps that stored numbers tell, as if no class were empty."""
    ends = 0 if scheme.analog == "none" else groups * (2 if scheme.sign == "level" else 1)
    stored = numbers.astype(np.float64)
    step = np.broadcast_to(stored[: stored.size - ends], (groups,))[:, None]
    points = (np.arange(scheme.classes) - middle_of(scheme)) * step
    if not ends:
        return np.ones(points.shape), points
    low, high = points - step / 2, points + step / 2
    if scheme.sign == "bit":
        low[:, 0] = 0.0
    of_group = stored[stored.size - ends :].reshape(groups, -1)
    analog = np.array(scheme.cells_of_class) > 0
    first, last = int(analog.argmax()), int(np.flatnonzero(analog)[-1])
    high[:, last] = np.maximum(high[:, last], of_group[:, -1])
    if scheme.sign == "level":
        low[:, first] = np.minimum(low[:, first], of_group[:, 0])
    span = scheme.channel.span
    alpha = np.where(analog, (span[1] - span[0]) / (high - low), 1.0)
    return alpha, np.where(analog, alpha * low - span[0], points)


def _sizes(alpha: Floats | Doubles, beta: Floats | Doubles, scheme: Scheme) -> tuple[Doubles, Doubles]:
    """Return the sizes that stand at the ends of the output range, each (G, K)."""
    low, high = scheme.channel.span
    return (low + beta.astype(np.float64)) / alpha, (high + beta.astype(np.float64)) / alpha


def _step_of(beta: Floats, low: Doubles, high: Doubles, there: Bits, scheme: Scheme) -> float:
    """Return the step of one group: by the point or the edge between classes that is farthest from 0.

    If neither is known, as of two classes that meet at 0, it is the width of the narrowest, which cannot be too small.
    """
    place = np.arange(scheme.classes) - middle_of(scheme)
    points = np.where(np.array(scheme.cells_of_class) > 0, 0.0, place)
    farthest = int(np.abs(points).argmax())
    if points[farthest]:
        return float(beta[farthest]) / float(points[farthest])
    edges = np.stack([place - 0.5, place + 0.5])  # in steps
    known = np.stack([there, there])  # of these, those that are not widened
    analog = np.flatnonzero(np.array(scheme.cells_of_class) > 0)
    known[0, analog[0] if scheme.sign == "level" else 0] = False
    known[1, analog[-1]] = False
    farthest = int(np.where(known, np.abs(edges), 0.0).argmax())
    if known.reshape(-1)[farthest] and edges.reshape(-1)[farthest]:
        return float(np.stack([low, high]).reshape(-1)[farthest] / edges.reshape(-1)[farthest])
    width = np.where(there, high - low, np.inf)
    return float(width.min()) if np.isfinite(width.min()) else 1.0
