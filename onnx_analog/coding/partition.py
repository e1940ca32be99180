"""Parts the weights of one group into classes: arrays only.

A weight's size is its magnitude, or, where the level carries the sign, the signed weight. A group is what shares a
codebook: a tensor, one output channel of it, or all tensors of a model. Class k of K holds the sizes above edge k - 1
and not above edge k.

| partition | edges                                                                                   |
|-----------|-----------------------------------------------------------------------------------------|
| share     | by magnitude, so that given shares of the weights, the largest, lie above (Isik et al. 2020) |
| bounds    | given                                                                                   |
| lloyd     | midway between the means of neighbouring classes (Lloyd 1982, Max 1960)                 |
| uniform   | midway between multiples of a step; signed and even in number, odd halves of it          |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import ModelError

if TYPE_CHECKING:
    from onnx_analog.coding.scheme import Scheme

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bits = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

CHUNK = 2**17  # elements that are looked at at once: few enough for a cache, and no second copy of a large tensor
_FEW_SIZES = 2**13  # up to so many, sorting is faster than two histograms
FEW_EDGES = 8  # up to so many, comparing with each is as fast as a binary search
_MANY_EDGES = 32  # beyond, it pays to leave out those that all keys are above, or none
_KEYS_OF_EDGE = 300  # if there are so many for each edge, it is faster
_MOST_ROUNDS = 200  # of Lloyd's method; it ends earlier once no edge moves

# ---------------------------------------------------------------------------------- the largest of many arrays


class Cut(NamedTuple):
    """A magnitude that parts the largest from the rest: all above it, and the first `ties` equal to it."""

    magnitude: float
    ties: int


def cut_largest(arrays: Iterable[NDArray[Any]], count: int) -> Cut:
    """Return the cut that leaves exactly `count` elements of largest magnitude, over all `arrays`.

    Parameters
    ----------
    arrays : iterable of float arrays of any shapes
        Finite numbers. It is iterated twice.
    count : int
        From 0 to the number of elements.

    Examples
    --------
    >>> cut_largest([np.array([1.0, -3.0, 2.0, 2.0])], 2)
    Cut(magnitude=2.0, ties=1)
    """
    return cuts_largest(arrays, [count])[0]


def cuts_largest(arrays: Iterable[NDArray[Any]], counts: Sequence[int]) -> list[Cut]:
    """Return the cut that leaves exactly that many elements of largest magnitude, for each of `counts`.

    Magnitudes are compared as float32. The bits of non-negative floats order as the floats do, so two histograms, of
    the upper and then of the lower 16 bits, find a cut exactly with no array copied or sorted.
    """
    if not any(counts):
        return [Cut(np.inf, 0) for _ in counts]
    upper = sum((_histogram(bits >> 16) for bits in _chunks(arrays)), np.zeros(2**16, np.int64))
    bins = [_bin_of(upper, count) for count in counts]
    lower = {high: np.zeros(2**16, np.int64) for high, _ in bins}
    for bits in _chunks(arrays):
        top = bits >> 16
        for high, histogram in lower.items():
            histogram += _histogram(bits[top == high] & 0xFFFF)
    cuts = []
    for count, (high, left) in zip(counts, bins, strict=True):
        low, ties = _bin_of(lower[high], left)
        cuts.append(Cut(float(np.uint32(high << 16 | low).view(np.float32)), ties) if count else Cut(np.inf, 0))
    return cuts


def cuts_of_few(arrays: Iterable[NDArray[Any]], counts: Sequence[int]) -> list[Cut]:
    """Return the same as `cuts_largest`; of few elements, a copy that is sorted is faster than two histograms."""
    size = np.sort(np.concatenate([np.zeros(0, np.float32), *(magnitude(array.reshape(-1)) for array in arrays)]))
    cuts = []
    for count in counts:
        edge = size[-count] if count else np.float32(np.inf)
        above = size.size - int(np.searchsorted(size, edge, side="right"))
        cuts.append(Cut(float(edge), count - above))
    return cuts


def _chunks(arrays: Iterable[NDArray[Any]]) -> Iterable[NDArray[np.uint32]]:
    for array in arrays:
        flat = array.reshape(-1)
        for part in parts(flat.size):
            yield magnitude(flat[part]).view(np.uint32)


def parts(count: int) -> Iterator[slice]:
    """Return the slices of `count` elements that are processed at once."""
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def _histogram(values: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    return np.bincount(values, minlength=2**16)


def _bin_of(histogram: NDArray[np.int64], count: int) -> tuple[int, int]:
    """Return the bin in which the `count`-th largest lies, and how many of that bin belong to the largest."""
    from_top = np.cumsum(histogram[::-1])
    index = int(np.searchsorted(from_top, count))
    before = int(from_top[index - 1]) if index else 0
    return histogram.size - 1 - index, count - before


def magnitude(array: NDArray[Any]) -> Floats:
    """Return absolute values as float32; nonzero values stay positive."""
    with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and refused where it matters
        size: Floats = np.abs(array.astype(np.float32, copy=False))
    if array.dtype == np.float64:
        size[(size == 0) & (array != 0)] = np.finfo(np.float32).smallest_subnormal
    return size


def mark_largest(array: NDArray[Any], cut: Cut) -> tuple[Bits, Cut]:
    """Mark the elements on the upper side of `cut`, ties in the order of the flat index.

    Returns
    -------
    marks : bool array of the shape of `array`
    cut : Cut
        What is left of it for the arrays that follow.

    Examples
    --------
    >>> mark_largest(np.array([1.0, -3.0, 2.0, 2.0]), Cut(2.0, 1))
    (array([False,  True,  True, False]), Cut(magnitude=2.0, ties=0))
    """
    size = magnitude(array.reshape(-1))  # in the order of the flat index, whatever that of the memory
    marks: Bits = size > cut.magnitude
    ties = np.flatnonzero(size == cut.magnitude)[: cut.ties]
    marks[ties] = True
    return marks.reshape(array.shape), Cut(cut.magnitude, cut.ties - ties.size)


# ---------------------------------------------------------------------------------------------------- edges


@dataclass(frozen=True)
class Edges:
    """The edges between the K classes of one group.

    Attributes
    ----------
    values : tuple of float, (K - 1,)
        Ascending float32 numbers.
    ties : tuple of int, (K - 1,)
        How many sizes equal to each edge, the first by flat index, lie above it.
    signed : bool
        Whether signed sizes are compared with the edges, or their magnitudes; as float32 numbers.
    points : tuple of float, (K,), optional
        Where a class without cells is reconstructed, in equal steps; the mean of the class unless given.
    midway : bool
        Whether the edges lie midway between the points, where there are points.
    """

    values: tuple[float, ...] = ()
    ties: tuple[int, ...] = ()
    signed: bool = False
    points: tuple[float, ...] | None = None
    midway: bool = True

    def index(self, size: NDArray[Any]) -> tuple[Bytes, Edges]:
        """Return the class of each size (N,), and the edges for the arrays of the same group that follow."""
        index, left = np.zeros(size.shape, np.uint8), list(self.ties)
        for part in parts(size.size):
            keys = keys_of(size[part], signed=self.signed)
            self._count_below(keys, index[part])
            for edge, ties in enumerate(left):
                if ties:
                    equal = np.flatnonzero(keys == np.float32(self.values[edge]))[:ties]
                    index[part][equal] += 1
                    left[edge] -= equal.size
        return index, replace(self, ties=tuple(left))

    @property
    def _steady(self) -> bool:
        return self.points is not None and self.midway and bool(are_found_by_step(self.points[1] - self.points[0]))

    def _count_below(self, keys: Floats, index: Bytes) -> None:
        """Put into `index` (n,), which is 0, how many edges lie below each of `keys` (n,)."""
        edges = np.array(self.values, np.float32)
        if edges.size > FEW_EDGES and self._steady:
            assert self.points is not None
            index[:] = nearest(keys, edges[None], np.array([self.points]))
        elif edges.size <= max(FEW_EDGES, keys.size // _KEYS_OF_EDGE):
            first, last = 0, edges.size
            if edges.size > _MANY_EDGES:
                # All keys are above the edges before `first`.
                first, last = np.searchsorted(edges, [keys.min(), keys.max()])
                index += np.uint8(first)
            above = np.empty(keys.shape, np.bool_)
            for edge in edges[first:last]:
                np.greater(keys, edge, out=above)
                np.add(index, above.view(np.uint8), out=index)
        else:
            index[:] = np.searchsorted(edges, keys, side="left")


_STEPS = (2.0**-100, 2.0**100)  # between which a step and its inverse are far from the ends of float32


def are_found_by_step(step: Any) -> Any:
    """Return whether `nearest` finds points that are a step apart; of steps (G,), whether it finds each."""
    return (step > _STEPS[0]) & (step < _STEPS[1])


def keys_of(size: NDArray[Any], *, signed: bool) -> Floats:
    """Return what of sizes is compared with edges, as float32: signed sizes, or magnitudes."""
    if not signed:
        return magnitude(size)
    return size if size.dtype == np.float32 else np.copysign(magnitude(size), size).astype(np.float32, copy=False)


def nearest(keys: Floats, edges: Floats, points: Doubles, row: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Return what a binary search in edges would: the step that is nearest in float32, moved by one if need be.

    Parameters
    ----------
    keys : float32 array (n,)
    edges : float32 array (G, K - 1)
        Midway between the points.
    points : float64 array (G, K)
        In equal steps, of which `are_found_by_step` is true.
    row : int array (n,), optional
        Row of edges and points, of each key; of all, the only one, unless it is given.
    """
    groups, last = edges.shape
    first, inverse = points[:, 0].astype(np.float32), (1 / (points[:, 1] - points[:, 0])).astype(np.float32)
    with np.errstate(over="ignore"):
        steps = (keys - first) * inverse if row is None else (keys - first[row]) * inverse[row]
    index: NDArray[np.intp] = np.rint(np.clip(steps, 0, last)).astype(np.intp)
    ends = np.full((groups, last + 2), np.inf, np.float32)  # above class k, of row g, at g·(K + 1) + k + 1
    ends[:, 0], ends[:, 1:-1] = np.nan, edges  # nothing is not above it, -inf included
    start: Any = 0 if row is None else row * (last + 2)
    index += keys > ends.reshape(-1)[index + start + 1]
    index -= keys <= ends.reshape(-1)[index + start]
    return index


def _below(edges: Doubles) -> Doubles:
    """Return the largest float32 number that is not above each edge: float32 keys lie on the same side of both."""
    with np.errstate(over="ignore"):
        narrow = edges.astype(np.float32)
    lower: Doubles = np.where(narrow > edges, np.nextafter(narrow, np.float32(-np.inf)), narrow).astype(np.float64)
    return lower


def edges_of(sizes: Iterable[NDArray[Any]], scheme: Scheme) -> Edges:
    """Return the edges between the classes of one group.

    Parameters
    ----------
    sizes : iterable of float arrays (N,)
        Of the group's tensors; it is iterated several times.
    scheme : Scheme
    """
    if scheme.classes == 1:
        return Edges(signed=scheme.sign == "level")
    return _PARTITIONS[scheme.partition](sizes, scheme)


def counts_above(scheme: Scheme, count: int) -> list[int]:
    """Return how many of `count` weights lie above each edge (K - 1,) between classes by share."""
    above = np.cumsum(scheme.shares[::-1])[::-1]
    return [min(round(float(share) * count), count) for share in above]


def _by_share(sizes: Iterable[NDArray[Any]], scheme: Scheme) -> Edges:
    count = sum(size.size for size in sizes)
    counts = counts_above(scheme, count)
    cuts = cuts_of_few(sizes, counts) if count <= _FEW_SIZES else cuts_largest(sizes, counts)
    return Edges(tuple(cut.magnitude for cut in cuts), tuple(cut.ties for cut in cuts))


def _by_bounds(_: Iterable[NDArray[Any]], scheme: Scheme) -> Edges:
    signed = scheme.sign == "level"
    values = keys_of(np.array(scheme.bounds, np.float64), signed=signed)
    return Edges(tuple(values.tolist()), (0,) * len(values), signed=signed)


def _uniform(sizes: Iterable[NDArray[Any]], scheme: Scheme) -> Edges:
    signed = scheme.sign == "level"
    step = step_of(sizes, scheme, 0.0 if scheme.relative_step else _largest(sizes))
    points, edges, fit = equal_steps(np.array([step]), scheme)
    if not fit[0]:
        most = _largest(sizes)
        raise ModelError(f"weights up to {most:.3g} cannot be divided into {scheme.classes} steps of {step:.3g}")
    values = edges[0]
    if scheme.rate_weight:
        worth = scheme.rate_weight * step**2
        values = _below(_rate_distortion_edges(*_binned(sizes, signed=signed), points[0], worth))
    return Edges(
        tuple(values.tolist()),
        (0,) * values.size,
        signed=signed,
        points=tuple(points[0].tolist()),
        midway=not scheme.rate_weight,
    )


def _largest(sizes: Iterable[NDArray[Any]]) -> float:
    return max((float(np.abs(size).max(initial=0)) for size in sizes), default=0.0)


def step_of(sizes: Iterable[NDArray[Any]], scheme: Scheme, largest: float) -> float:
    """Return the step of a group that a scheme gives, in the unit of the weights; else the one that fits `largest`.

    Where the sizes say nothing, as all are 0, it is 1.
    """
    if scheme.relative_step is None:
        return scheme.step or largest / (scheme.classes - 1 - middle_of(scheme)) or 1.0
    pieces = (size[piece] for size in sizes for piece in parts(size.size))
    power = [(float(np.square(piece, dtype=np.float64).sum()), piece.size) for piece in pieces]
    mean_square = sum(each for each, _ in power) / max(1, sum(count for _, count in power))
    return scheme.relative_step * mean_square**0.5 or 1.0


def equal_steps(step: Doubles, scheme: Scheme) -> tuple[Doubles, Doubles, Bits]:
    """Return points (G, K) and the edges midway (G, K - 1) of steps (G,), and whether float32 tells the edges apart.

    Points are multiples of the step; of an even number of signed classes, odd halves of it.
    """
    with np.errstate(over="ignore"):
        points = (np.arange(scheme.classes, dtype=np.float64) - middle_of(scheme)) * step[:, None]
        edges = _below((points[:, :-1] + points[:, 1:]) / 2)
    with np.errstate(invalid="ignore"):
        ascending = np.all(edges[:, 1:] > edges[:, :-1], axis=1)
    return points, edges, np.logical_and(ascending, np.isfinite(edges).all(axis=1))


def middle_of(scheme: Scheme) -> float:
    """Return the place of 0 among the points of equal steps."""
    return (scheme.classes - 1) / 2 if scheme.sign == "level" else 0.0


def _rate_distortion_edges(centre: Doubles, count: Doubles, points: Doubles, bit_worth: float) -> Doubles:
    """Return edges (K - 1,) that put each size w where (w - point)² + bit_worth · bits is least; bits = -log2 share.

    This is entropy-coded scalar quantisation (Chou, Lookabaugh and Gray 1989) with fixed points: shares follow from the
    edges, and edges from the shares, until none moves. A class that no size is worth has equal edges.

    Parameters
    ----------
    centre, count : float64 arrays of shape (m,)
        Of the bins of a histogram of the sizes, ascending.
    points : float64 array of shape (K,)
    bit_worth : float
        In the square of the unit of the weights.
    """
    ends = np.searchsorted(centre, (points[:-1] + points[1:]) / 2, side="right")
    cumulative = np.concatenate([[0.0], np.cumsum(count)])
    for _ in range(_MOST_ROUNDS):
        share = np.diff(cumulative[np.concatenate([[0], ends, [centre.size]])]) / max(1.0, cumulative[-1])
        edges = _cheapest(points, share, bit_worth)
        moved = np.searchsorted(centre, edges, side="right")
        if (moved == ends).all():
            break
        ends = moved
    return edges


def _cheapest(points: Doubles, share: Doubles, bit_worth: float) -> Doubles:
    """Return the edges (K - 1,) between the points of least (w - point)² - bit_worth · log2(share), over all w.

    Less w², each cost is a line in w: the edges are the corners of their lower envelope, found as a convex hull.
    """
    hull = np.flatnonzero(share)
    height = np.square(points[hull]) - bit_worth * np.log2(share[hull])
    corners = _corners(points[hull], height)
    while not (corners[1:] > corners[:-1]).all():
        # what lies on or above the line between two others is no corner of the hull, whether they are or not
        kept = np.ones(hull.size, np.bool_)
        kept[1:-1] = corners[1:] > corners[:-1]
        hull, height = hull[kept], height[kept]
        corners = _corners(points[hull], height)
    ends = np.concatenate([[-np.inf if hull.size else np.inf], corners, [np.inf]])
    edges: Doubles = ends[np.searchsorted(hull, np.arange(1, points.size))]
    return edges


def _corners(points: Doubles, height: Doubles) -> Doubles:
    """Return where the lines of neighbouring points cost the same."""
    corners: Doubles = np.diff(height) / (2 * np.diff(points))
    return corners


def _lloyd(sizes: Iterable[NDArray[Any]], scheme: Scheme) -> Edges:
    """Return the edges of Lloyd's method on a histogram whose bins are 2^-11 wide relative to their numbers.

    It starts from the classes that are best for very many of them: their number per width goes with the cube root of
    the density (Panter and Dite 1951). It ends when no bin changes class.
    """
    centre, count = _binned(sizes, signed=scheme.sign == "level")
    means = _lloyd_means(centre, count, min(scheme.classes, centre.size)) if centre.size else centre
    edges = _below((means[:-1] + means[1:]) / 2).tolist()
    edges += [np.inf] * (scheme.classes - 1 - len(edges))  # fewer numbers than classes: the last ones stay empty
    return Edges(tuple(edges), (0,) * len(edges), signed=scheme.sign == "level")


def _lloyd_means(centre: Doubles, count: Doubles, classes: int) -> Doubles:
    """Return the means of the classes (K,) of bins with the means `centre` (m,) and `count` (m,) numbers, K <= m."""
    weight, total = (np.concatenate([[0.0], np.cumsum(each)]) for each in (count, count * centre))
    least, most = np.arange(1, classes), centre.size - classes + np.arange(1, classes)  # no class is empty
    spread = np.cumsum(np.cbrt(count) * np.gradient(centre) ** (2 / 3)) if centre.size > 1 else count
    ends = np.clip(np.searchsorted(spread, spread[-1] * np.arange(1, classes) / classes) + 1, least, most)
    ends = np.maximum.accumulate(ends - least) + least
    for _ in range(_MOST_ROUNDS):
        means = _means(weight, total, ends)
        moved = np.searchsorted(centre, (means[:-1] + means[1:]) / 2, side="right")
        moved = np.maximum.accumulate(np.maximum(moved, least) - least) + least
        np.minimum(moved, most, out=moved)
        if moved.tobytes() == ends.tobytes():
            break
        ends = moved
    return _means(weight, total, ends)


def _means(weight: Doubles, total: Doubles, ends: NDArray[np.integer[Any]]) -> Doubles:
    """Return the mean of each run of bins, which ends before `ends` and with the last bin.

    `weight` and `total` (m + 1,) are sums over the bins before each, and over all.
    """
    bounds = np.empty(ends.size + 2, np.intp)
    bounds[0], bounds[1:-1], bounds[-1] = 0, ends, weight.size - 1
    weights, totals = weight[bounds], total[bounds]
    means: Doubles = (totals[1:] - totals[:-1]) / (weights[1:] - weights[:-1])
    return means


_DROPPED_BITS = 12  # of a float32 number; sign, exponent and 11 bits of the mantissa are left


def _binned(sizes: Iterable[NDArray[Any]], *, signed: bool) -> tuple[Doubles, Doubles]:
    """Return the mean and the count of each bin that holds a number, in ascending order.

    A bin is all float32 numbers that share their upper bits. `sizes` are signed, or magnitudes; it is iterated twice.
    """
    ends = np.array(list(_ends(sizes, signed=signed)), np.int64)
    first, bins = int(ends.min(initial=2**20)), int(np.ptp(ends)) + 1 if ends.size else 0
    sums, signs = None, 2 if signed else 1
    for size in sizes:
        for part in parts(size.size):
            value = magnitude(size[part])
            place = (value.view(np.uint32) >> _DROPPED_BITS).astype(np.int64)
            place -= first
            if signed:
                place += bins * (size[part] < 0)  # negative numbers are behind the others
            of_part = [np.bincount(place, weights, minlength=signs * bins) for weights in (None, value)]
            sums = of_part if sums is None else list(map(np.add, sums, of_part))
    count, total = sums or (np.zeros(0), np.zeros(0))
    filled = np.flatnonzero(count > 0)
    negative = np.searchsorted(filled, bins)
    order = np.concatenate([filled[negative:][::-1], filled[:negative]])
    in_order = count[order].astype(np.float64)
    means = total[order] / in_order
    means[: filled.size - negative] *= -1
    return means, in_order


def _ends(sizes: Iterable[NDArray[Any]], *, signed: bool) -> Iterator[int]:
    """Yield the upper bits of magnitudes, the least and the largest among them."""
    for size in sizes:
        for part in parts(size.size):
            value = magnitude(size[part]) if signed else size[part]
            yield from (magnitude(np.array([value.min(), value.max()])).view(np.uint32) >> _DROPPED_BITS).tolist()


_PARTITIONS = {"share": _by_share, "bounds": _by_bounds, "lloyd": _lloyd, "uniform": _uniform}
