"""Fits the codebooks of the groups of one tensor, which are its output channels, many at once: arrays only.

What is found for a group is what would be found for it alone, to the bit. Weights are in the order of their groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.codebook import Codebook, codebooks_of, needs_extremes, needs_totals
from onnx_analog.coding.partition import (
    CHUNK,
    FEW_EDGES,
    Bits,
    Bytes,
    Doubles,
    Edges,
    are_found_by_step,
    counts_above,
    edges_of,
    equal_steps,
    keys_of,
    magnitude,
    nearest,
    step_of,
)
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.sums import ClassSums
from onnx_analog.errors import ModelError

Ints = NDArray[np.int64]

_ALONE = 2**11  # weights of a group beyond which it is faster alone

# ------------------------------------------------------------------------------------------------------- order


def order_of(group: NDArray[np.integer[Any]], groups: int) -> tuple[NDArray[np.intp] | None, Ints]:
    """Return the positions (N,) of the weights by group, None if they are in that order; and how many each has."""
    counts = np.bincount(group, minlength=groups)
    if (group[:-1] <= group[1:]).all():
        return None, counts
    if group.size % groups == 0 and (group.reshape(-1, groups) == np.arange(groups)).all():  # of a last axis
        return np.arange(group.size).reshape(-1, groups).T.reshape(-1), counts
    narrow = group.astype(np.uint16) if groups <= 2**16 else group  # which are sorted in linear time
    return np.argsort(narrow, kind="stable"), counts


class Batch(NamedTuple):
    """Neighbouring groups that are looked at at once, and their weights."""

    groups: slice
    weights: slice


def batches(counts: Ints, classes: int) -> Iterator[Batch]:
    """Yield groups with `counts` (G,) weights: as many as fill a cache, or a large one alone."""
    ends, large, start = np.cumsum(counts), np.append(np.flatnonzero(counts > _ALONE), counts.size), 0
    while start < counts.size:
        before = int(ends[start] - counts[start])
        stop = int(np.searchsorted(ends, before + CHUNK, side="right"))
        stop = min(stop, start + CHUNK // classes, int(large[np.searchsorted(large, start)]))
        stop = max(stop, start + 1)
        yield Batch(slice(start, stop), slice(before, int(ends[stop - 1])))
        start = stop


def _rows(counts: Ints) -> NDArray[np.intp]:
    """Return the group (N,) of each weight."""
    return np.repeat(np.arange(counts.size), counts)


def _split(size: NDArray[Any], counts: Ints) -> list[NDArray[Any]]:
    """Return the sizes of each group."""
    ends = [0, *np.cumsum(counts).tolist()]
    return [size[start:end] for start, end in pairwise(ends)]


# ------------------------------------------------------------------------------------------------------- edges


@dataclass(frozen=True, eq=False)
class GroupEdges(Sequence[Edges]):
    """The edges of G groups.

    Attributes
    ----------
    values, ties : float64 and int64 arrays of shape (G, K - 1)
    signed : bool
    points : float64 array of shape (G, K), optional
    midway : bool
        Each as of `Edges`.
    """

    values: Doubles
    ties: Ints
    signed: bool
    points: Doubles | None = None
    midway: bool = True

    @staticmethod
    def of(edges: Sequence[Edges]) -> GroupEdges:
        """Return the edges of groups, of one scheme, as arrays."""
        values = np.array([each.values for each in edges], np.float64)
        points = None if edges[0].points is None else np.array([each.points for each in edges], np.float64)
        ties = np.array([each.ties for each in edges], np.int64)
        return GroupEdges(values, ties, edges[0].signed, points, edges[0].midway)

    @staticmethod
    def joined(edges: Sequence[GroupEdges]) -> GroupEdges:
        """Return the edges of all groups of several."""
        values, ties = (np.concatenate([getattr(each, name) for each in edges]) for name in ("values", "ties"))
        points = [each.points for each in edges if each.points is not None]
        return GroupEdges(values, ties, edges[0].signed, np.concatenate(points) if points else None, edges[0].midway)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, number: Any) -> Any:
        """Return the edges of a group; of a slice or array, those of several."""
        points = None if self.points is None else self.points[number]
        if not isinstance(number, int):
            return GroupEdges(self.values[number], self.ties[number], self.signed, points, self.midway)
        values, ties = tuple(self.values[number].tolist()), tuple(self.ties[number].tolist())
        return Edges(values, ties, self.signed, None if points is None else tuple(points.tolist()), self.midway)

    def replaced(self, which: NDArray[np.intp], edges: Edges) -> GroupEdges:
        """Return these with other edges for some groups."""
        values, ties, points = self.values.copy(), self.ties.copy(), None if self.points is None else self.points.copy()
        values[which], ties[which] = edges.values, edges.ties
        if points is not None:
            points[which] = edges.points
        return GroupEdges(values, ties, self.signed, points, self.midway)

    def classes_of(self, size: NDArray[Any], counts: Ints) -> Bytes:
        """Return the class of each size (N,); `counts` (G,) are of each group."""
        found = [self[groups]._index(size[weights], counts[groups]) for groups, weights in self._batches(counts)]
        return np.concatenate([np.zeros(0, np.uint8), *found])

    def _batches(self, counts: Ints) -> Iterator[Batch]:
        return batches(counts, self.values.shape[1] + 1)

    def _index(self, size: NDArray[Any], counts: Ints) -> Bytes:
        if len(self) == 1:
            alone: Bytes = self[0].index(size)[0]
            return alone
        if self.values.shape[1] > FEW_EDGES and (self.points is None or not self.midway):
            return self._one_by_one(size, counts)
        row, keys = _rows(counts), keys_of(size, signed=self.signed)
        if self.values.shape[1] > FEW_EDGES:
            return self._nearest(size, keys, row, counts)
        index = np.zeros(size.shape, np.uint8)
        for edge, ties in zip(self.values.T.astype(np.float32), self.ties.T, strict=True):
            of_key = edge[row]
            index += keys > of_key
            if ties.any():
                equal = np.flatnonzero(keys == of_key)
                index[equal[_firsts(row[equal], ties)]] += 1
        return index

    def _nearest(self, size: NDArray[Any], keys: NDArray[np.float32], row: NDArray[np.intp], counts: Ints) -> Bytes:
        """Return the class of each size, of which there are no ties; the few groups of odd steps one by one."""
        assert self.points is not None
        found = are_found_by_step(self.points[:, 1] - self.points[:, 0])
        if found.all():
            return nearest(keys, self.values.astype(np.float32), self.points, row).astype(np.uint8)
        which, index = found[row], np.empty(size.shape, np.uint8)
        if found.any():
            number, some = np.cumsum(found) - 1, self[found]
            index[which] = nearest(keys[which], some.values.astype(np.float32), some.points, number[row[which]])
        index[~which] = self[~found]._one_by_one(size[~which], counts[~found])
        return index

    def _one_by_one(self, size: NDArray[Any], counts: Ints) -> Bytes:
        return np.concatenate([edges.index(each)[0] for edges, each in zip(self, _split(size, counts), strict=True)])


def _firsts(row: NDArray[np.intp], ties: Ints) -> Bits:
    """Return which of ascending rows (n,) are among the first `ties` (G,) of their row."""
    counts = np.bincount(row, minlength=ties.size)
    place = np.arange(row.size) - (np.cumsum(counts) - counts)[row]
    firsts: Bits = place < ties[row]
    return firsts


def edges_of_groups(size: NDArray[Any], counts: Ints, scheme: Scheme) -> tuple[GroupEdges, Bits]:
    """Return the edges of groups with `counts` (G,) of the sizes (N,), and for which groups there are such (G,)."""
    all_groups = np.ones(counts.size, np.bool_)
    if scheme.classes == 1 or scheme.partition == "bounds":
        alike = GroupEdges.of([edges_of([], scheme)])
        return alike[np.zeros(counts.size, np.intp)], all_groups
    if counts.size == 1:
        return _one_by_one(size, counts, scheme)
    if scheme.partition == "share":
        return _by_share(size, counts, scheme), all_groups
    if scheme.partition == "uniform" and not scheme.rate_weight:
        return _uniform(size, counts, scheme)
    return _one_by_one(size, counts, scheme)


def _by_share(size: NDArray[Any], counts: Ints, scheme: Scheme) -> GroupEdges:
    """Return edges as cuts of the magnitudes of each group, which are sorted as numbers below their group's."""
    wanted = np.array([counts_above(scheme, count) for count in counts.tolist()], np.int64)
    group = np.arange(counts.size, dtype=np.uint64)[:, None] << np.uint64(32)
    ends = np.cumsum(counts)[:, None]
    keys = np.sort(np.repeat(group[:, 0], counts) | magnitude(size).view(np.uint32))
    edges = np.append(keys, np.uint64(0))[ends - wanted]
    ties = wanted - (ends - np.searchsorted(keys, edges, side="right"))
    values = (edges - group).astype(np.uint32).view(np.float32)
    return GroupEdges(np.where(wanted, values, np.inf).astype(np.float64), np.where(wanted, ties, 0), signed=False)


def _uniform(size: NDArray[Any], counts: Ints, scheme: Scheme) -> tuple[GroupEdges, Bits]:
    largest = np.zeros(counts.size, size.dtype)
    np.maximum.at(largest, _rows(counts), np.abs(size))
    each = zip(_split(size, counts), largest.tolist(), strict=True)
    step = np.array([step_of([of_group], scheme, most) for of_group, most in each])
    points, values, fit = equal_steps(step, scheme)
    if not fit.all():
        points, values, _ = equal_steps(np.where(fit, step, 1.0), scheme)
    return GroupEdges(values, np.zeros(values.shape, np.int64), scheme.sign == "level", points), fit


def _one_by_one(size: NDArray[Any], counts: Ints, scheme: Scheme) -> tuple[GroupEdges, Bits]:
    edges = [_edges_or_none(each, scheme) for each in _split(size, counts)]
    some = next((each for each in edges if each is not None), None) or edges_of([size[:0]], scheme)
    return GroupEdges.of([each or some for each in edges]), np.array([each is not None for each in edges])


def _edges_or_none(size: NDArray[Any], scheme: Scheme) -> Edges | None:
    try:
        return edges_of([size], scheme)
    except ModelError:
        return None


# --------------------------------------------------------------------------------------------------- codebooks


class GroupFit(NamedTuple):
    """What was found for G groups of N weights.

    Attributes
    ----------
    codebook : Codebook
        Of shape (G, K).
    counts : int64 array of shape (G, K)
        Weights of each class.
    edges : GroupEdges
    class_index : uint8 array of shape (N,), or None
        None where there is one class.
    alone : bool array of shape (G,)
        Which groups can be scaled alone; of the others, nothing here counts.
    """

    codebook: Codebook
    counts: Ints
    edges: GroupEdges
    class_index: Bytes | None
    alone: Bits


def fit_groups(size: NDArray[Any], counts: Ints, scheme: Scheme) -> GroupFit:
    """Return the codebooks of groups.

    Parameters
    ----------
    size : float array of shape (N,)
        Of the weights, by group.
    counts : int64 array of shape (G,)
        Of the weights of each group; G is at least 1.
    scheme : Scheme
    """
    fits = [_fit_batch(size[weights], counts[groups], scheme) for groups, weights in batches(counts, scheme.classes)]
    indices = [each.class_index for each in fits if each.class_index is not None]
    books = [each.codebook for each in fits]
    return GroupFit(
        Codebook(
            **{name: np.concatenate([getattr(book, name) for book in books]) for name in Codebook.__annotations__}
        ),
        np.concatenate([each.counts for each in fits]),
        GroupEdges.joined([each.edges for each in fits]),
        np.concatenate(indices) if indices else None,
        np.concatenate([each.alone for each in fits]),
    )


def _fit_batch(size: NDArray[Any], counts: Ints, scheme: Scheme) -> GroupFit:
    edges, fit = edges_of_groups(size, counts, scheme)
    index = edges.classes_of(size, counts) if scheme.classes > 1 else None
    sums = _sums(size, counts, index, scheme)
    book, scaled = codebooks_of(sums, edges.points, scheme)
    return GroupFit(book, sums.count, edges, index, fit & scaled.all(axis=1))


def _sums(size: NDArray[Any], counts: Ints, index: Bytes | None, scheme: Scheme) -> ClassSums:
    """Return the sums of the classes of each group, (G, K)."""
    by_class = needs_extremes(scheme)
    sums = ClassSums.empty(counts.size * scheme.classes, totals=needs_totals(scheme), by_class=by_class)
    if counts.size == 1:
        sums.add(size, index)
    else:
        row = _rows(counts)
        sums.add(size, row if index is None else row * scheme.classes + index)
    of_groups = sums.by_group(counts.size)
    if not by_class and size.size:
        filled = counts > 0
        starts = (np.cumsum(counts) - counts)[filled]
        of_groups.low[filled] = np.minimum.reduceat(size, starts)[:, None]
        of_groups.high[filled] = np.maximum.reduceat(size, starts)[:, None]
    return of_groups


def with_shared(
    fitted: GroupFit, size: NDArray[Any], counts: Ints, edges: Edges, codebook: Codebook, scheme: Scheme
) -> GroupFit:
    """Return what was found, with edges and codebook (1, K) of the tensor for groups that cannot be scaled alone."""
    which, starts = np.flatnonzero(~fitted.alone), np.cumsum(counts) - counts
    of_class = fitted.counts.copy()
    for number, start in zip(which.tolist(), starts[which].tolist(), strict=True):
        weights = slice(start, start + counts[number])
        if fitted.class_index is not None:
            index, _ = edges.index(size[weights])
            fitted.class_index[weights] = index
            of_class[number] = np.bincount(index, minlength=scheme.classes)
    columns = {name: getattr(fitted.codebook, name).copy() for name in Codebook.__annotations__}
    for name, column in columns.items():
        column[which] = getattr(codebook, name)
    return fitted._replace(codebook=Codebook(**columns), counts=of_class, edges=fitted.edges.replaced(which, edges))
