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
from onnx_analog.coding.partition import Bytes
from onnx_analog.coding.probabilities import Ints

_ROWS = CONTEXTS + 1  # of counts
_LANES = 4  # _LANES * _ROWS is below 2^8
_MOSTLY = 2  # if at most one in so many kernels has to be looked at, the others are left out
_SORTED = 32  # bits of a number that holds key, place and value


# Consecutive symbols coded with the same table: its number, and their ranks (n,) among the symbols in use.
Run = tuple[int, NDArray[np.int32]]  # there are many, and a plain tuple is made in a third of the time


class Placed(NamedTuple):
    """The symbols (n,) of a segment and their contexts (n,), both in the order of their places.

    In some pruned tensors, most kernels hold nothing but `middle`, the most frequent symbol. `told` are the symbols
    (m,) and contexts (m,) of the other kernels, in any order; the context is CONTEXTS where a kernel has no symbol.
    """

    grid: Grid
    symbols: Bytes
    contexts: Bytes
    middle: int
    told: tuple[Bytes, Bytes]

    @staticmethod
    def of(symbols: Bytes, middle: int, kernel: Kernel, start: int) -> Placed:
        """Return the symbols (n,) by place; the first has the place `start` in the tensor."""
        grid = Grid(kernel, start, symbols.size)
        laid = grid.laid(symbols, middle)
        busy = np.flatnonzero((laid != middle).any(axis=(0, 1)))
        if _MOSTLY * busy.size > grid.kernels:
            coded = grid.coded(laid), grid.coded(contexts_of(laid, middle))
            return Placed(grid, *coded, middle, coded)
        told, contexts = laid.take(busy, axis=2), np.full(laid.shape, QUIET, np.uint8)
        of_told = contexts_of(told, middle)
        contexts[..., busy] = of_told
        for places, number in grid.missing():
            of_told.reshape(grid.area, -1)[places, busy == number] = CONTEXTS
        return Placed(grid, grid.coded(laid), grid.coded(contexts), middle, (told.reshape(-1), of_told.reshape(-1)))

    def counts(self, ranks: NDArray[np.int32]) -> Ints:
        """Return the counts of the symbols in use in each context, (CONTEXTS, U), by their `ranks` (alphabet,)."""
        used, (symbols, contexts) = int(ranks[-1]) + 1, self.told
        keys = (contexts + _lanes(contexts.size)).astype(np.uint16)
        keys *= np.uint16(used)
        keys += looked_up(symbols, table_of(ranks))
        lanes = np.bincount(keys, minlength=_LANES * _ROWS * used)
        counts: Ints = lanes.reshape(_LANES, _ROWS, used).sum(axis=0)[:CONTEXTS]
        counts[QUIET, ranks[self.middle]] += self.symbols.size - counts.sum()
        return counts

    def runs(self, ranks: NDArray[np.int32], groups: Sequence[int]) -> Iterator[Run]:
        """Yield the runs place by place, and those of a place in the order of their groups of contexts."""
        tables = max(groups) + 1
        keys = self.grid.places * np.uint16(tables)
        keys += looked_up(self.contexts, table_of(groups))
        in_order, ends = sorted_by(keys, tables * self.grid.area, looked_up(self.symbols, table_of(ranks)))
        for table, (start, stop) in zip(cycle(range(tables)), pairwise([0, *ends.tolist()]), strict=False):
            if start < stop:
                yield table, in_order[start:stop]


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
    placed: Sequence[Placed], ranks: NDArray[np.int32], groups: Sequence[int]
) -> Iterator[Iterable[Run]]:
    """Yield the runs of each segment, where each group of contexts has its own table."""
    for each in placed:
        yield each.runs(ranks, groups)
