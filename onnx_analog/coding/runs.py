"""Runs of symbols: what a range coder codes with one probability table after the other.

Without contexts, each segment is one run. With contexts, the symbols of a segment are coded by their place in a kernel,
and those of a place by the group of their contexts, so that many symbols make one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import cycle, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.contexts import CONTEXTS, QUIET, Grid, Kernel, contexts_of, looked_up, table_of
from onnx_analog.coding.partition import Bits, Bytes
from onnx_analog.coding.probabilities import Ints

_ROWS = CONTEXTS + 1  # of counts
_LANES = 4  # _LANES * _ROWS is below 2^8
_MOSTLY = 2  # if at most one in so many kernels has to be looked at, the others are left out
_SORTED = 32  # bits of a number that holds key, place and value


# Consecutive symbols coded with the same table: its number, and their ranks (n,) among the symbols in use.
Run = tuple[int, NDArray[np.int32]]  # there are many, and a plain tuple is made in a third of the time


class Placed(NamedTuple):
    """The symbols (n,) of a segment and their contexts (n,), both in the order of their places."""

    grid: Grid
    symbols: Bytes
    contexts: Bytes

    @staticmethod
    def of(symbols: Bytes, middle: int, grid: Grid) -> Placed:
        """Return the symbols (n,) by place; the contexts are those of the most frequent symbol, `middle`."""
        laid = grid.laid(symbols, middle)
        return Placed(grid, grid.coded(laid), grid.coded(contexts_of(laid, middle)))

    def counts(self, ranks: NDArray[np.int32]) -> Ints:
        """Return the counts of the symbols in use in each context, (CONTEXTS, U), by their `ranks` (alphabet,)."""
        return _counts(self.symbols, self.contexts, ranks)

    def runs(self, ranks: NDArray[np.int32], groups: Sequence[int]) -> Iterator[Run]:
        """Yield the runs place by place, and those of a place in the order of their groups of contexts."""
        tables = max(groups) + 1
        keys = self.grid.places * np.uint16(tables)
        keys += looked_up(self.contexts, table_of(groups))
        in_order, ends = sorted_by(keys, tables * self.grid.area, looked_up(self.symbols, table_of(ranks)))
        for table, (start, stop) in zip(cycle(range(tables)), pairwise([0, *ends.tolist()]), strict=False):
            if start < stop:
                yield table, in_order[start:stop]


class Sparse(NamedTuple):
    """The symbols of a segment most of whose kernels hold nothing but `middle`, as in some pruned tensors.

    Attributes
    ----------
    grid : Grid
    middle : int
        The most frequent symbol.
    kernels : integer array (m,)
        The other kernels, ascending.
    symbols, contexts : uint8 arrays (area, m)
        Theirs, by place; the context is CONTEXTS where a kernel has no symbol.
    """

    grid: Grid
    middle: int
    kernels: NDArray[np.intp]
    symbols: Bytes
    contexts: Bytes

    @staticmethod
    def of(symbols: Bytes, middle: int, grid: Grid, kernels: NDArray[np.intp]) -> Sparse:
        """Return the symbols (n,) by place, of those kernels that hold another symbol than `middle`."""
        laid = grid.laid(symbols, middle, kernels)
        contexts = contexts_of(laid, middle).reshape(grid.area, -1)
        for places, number in grid.missing():
            contexts[places, kernels == number] = CONTEXTS
        return Sparse(grid, middle, kernels, laid.reshape(grid.area, -1), contexts)

    def counts(self, ranks: NDArray[np.int32]) -> Ints:
        """Return the counts of the symbols in use in each context, (CONTEXTS, U), by their `ranks` (alphabet,)."""
        counts = _counts(self.symbols.reshape(-1), self.contexts.reshape(-1), ranks)
        counts[QUIET, ranks[self.middle]] += self.grid.count - counts.sum()
        return counts

    def runs(self, ranks: NDArray[np.int32], groups: Sequence[int]) -> Iterator[Run]:
        """Yield the runs place by place, and those of a place in the order of their groups of contexts."""
        quiet, tables = groups[QUIET], max(groups) + 1
        values, group = looked_up(self.symbols, table_of(ranks)), looked_up(self.contexts, table_of([*groups, tables]))
        inside = group == quiet
        elsewhere = (group < tables) & ~inside
        keys = np.arange(self.grid.area, dtype=np.uint16)[:, None] * np.uint16(tables) + group
        chosen = np.flatnonzero(elsewhere)
        in_order, ends = sorted_by(keys.take(chosen), tables * self.grid.area, values.take(chosen))
        of_quiet = iter(self._quiet_runs(values, inside, elsewhere, int(ranks[self.middle])))
        for table, (start, stop) in zip(cycle(range(tables)), pairwise([0, *ends.tolist()]), strict=False):
            run = next(of_quiet) if table == quiet else in_order[start:stop]
            if run.size:
                yield table, run

    def _quiet_runs(self, values: Bytes, inside: Bits, elsewhere: Bits, middle: int) -> list[NDArray[np.int32]]:
        """Return the run of each place in the group of QUIET, to which kernels without another symbol belong.

        `values` (area, m) are the ranks of the symbols of those that have one, and `middle` the most frequent rank;
        `inside` tells which are in that group, and `elsewhere` which are in another one.
        """
        kernels = [self.grid.kernels_at(place) for place in range(self.grid.area)]
        gone = np.cumsum(elsewhere, axis=1, dtype=np.int32)
        lengths = np.array([each.stop - each.start for each in kernels]) - gone[:, -1:].sum(axis=1)
        ends = np.cumsum(lengths)
        first = ends - lengths - [each.start for each in kernels]
        runs = np.full(ends[-1], middle, np.int32)
        others = np.flatnonzero(inside & (values != middle))
        place, number = np.divmod(others, max(self.kernels.size, 1))
        runs[first.take(place) + self.kernels.take(number) - gone.take(others)] = values.take(others)
        return [runs[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]


def placed_of(symbols: Bytes, middle: int, kernel: Kernel, start: int) -> Placed | Sparse:
    """Return the symbols (n,) of a segment by place; the first has the place `start` in the tensor."""
    grid, others = Grid(kernel, start, symbols.size), symbols != middle
    if np.count_nonzero(others) <= grid.kernels:  # else most kernels are likely to hold one
        kernels = grid.kernels_of(np.flatnonzero(others))
        if _MOSTLY * kernels.size <= grid.kernels:
            return Sparse.of(symbols, middle, grid, kernels)
    return Placed.of(symbols, middle, grid)


def _counts(symbols: Bytes, contexts: Bytes, ranks: NDArray[np.int32]) -> Ints:
    used = int(ranks[-1]) + 1
    keys = (contexts + _lanes(contexts.size)).astype(np.uint16)
    keys *= np.uint16(used)
    keys += looked_up(symbols, table_of(ranks))
    lanes = np.bincount(keys, minlength=_LANES * _ROWS * used)
    counts: Ints = lanes.reshape(_LANES, _ROWS, used).sum(axis=0)[:CONTEXTS]
    return counts


def _lanes(count: int) -> Bytes:
    """Return which of `_LANES` counts contexts (count,) add to, as adding to the same one waits for the last sum."""
    return _most_lanes(count.bit_length())[:count]


@cache
def _most_lanes(digits: int) -> Bytes:
    return np.resize(np.arange(_LANES, dtype=np.uint8) * np.uint8(_ROWS), 1 << digits)


def sorted_by(keys: NDArray[np.uint16], most: int, values: Bytes) -> tuple[NDArray[np.int32], NDArray[np.integer[Any]]]:
    """Return values (n,) in the order of their keys (n,), and where each key ends, (most,).

    Values of the same key stay in their order. All keys are below `most`.
    """
    of_place, of_value = keys.size.bit_length(), int(values.max(initial=0)).bit_length()
    shift = of_place + of_value
    if (most - 1).bit_length() + shift > _SORTED:
        order = np.argsort(keys, kind="stable")
        return values[order].astype(np.int32), np.cumsum(np.bincount(keys, minlength=most))
    packed = keys.astype(np.uint32)  # key, place and value in one number: sorted in a third of the time
    packed <<= of_place
    packed |= _places(of_place)[: keys.size]
    packed <<= of_value
    packed |= values
    packed.sort()
    ends = np.searchsorted(packed, np.arange(1, most, dtype=np.uint32) << shift)
    packed &= np.uint32(2**of_value - 1)
    return packed.view(np.int32), np.append(ends, keys.size)


@cache
def _places(digits: int) -> NDArray[np.uint32]:
    return np.arange(1 << digits, dtype=np.uint32)


def runs_of_all(symbols: Bytes, ranks: NDArray[np.int32], parts: Sequence[slice]) -> Iterator[Iterable[Run]]:
    """Yield the runs of each segment, where one table serves all symbols."""
    for part in parts:
        yield [(0, ranks.take(symbols[part]))]


def runs_in_groups(
    placed: Sequence[Placed | Sparse], ranks: NDArray[np.int32], groups: Sequence[int]
) -> Iterator[Iterable[Run]]:
    """Yield the runs of each segment, where each group of contexts has its own table."""
    for each in placed:
        yield each.runs(ranks, groups)
