"""Runs of symbols: what a range coder codes with one probability table after the other.

Without contexts, each segment is one run. With contexts, the symbols of a segment are coded by their place in a kernel,
and those of a place by the group of their contexts, so that many symbols make one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.contexts import CONTEXTS, Grid, Kernel, contexts_of, looked_up, table_of
from onnx_analog.coding.partition import Bytes
from onnx_analog.coding.probabilities import Ints

_LANES = 4  # _LANES * CONTEXTS * 256 is below 2^16


class Run(NamedTuple):
    """Consecutive symbols coded with the same table: its number, and their ranks (n,) among the symbols in use."""

    table: int
    ranks: NDArray[np.int32]


class Placed(NamedTuple):
    """The symbols (n,) of a segment and their contexts (n,), both in the order of their places."""

    grid: Grid
    symbols: Bytes
    contexts: Bytes

    @staticmethod
    def of(symbols: Bytes, middle: int, kernel: Kernel, start: int) -> Placed:
        """Return the symbols (n,) by place; the first has the place `start` in the tensor."""
        grid = Grid(kernel, start, symbols.size)
        laid = grid.laid(symbols, middle)
        return Placed(grid, grid.coded(laid), grid.coded(contexts_of(laid, middle)))

    def counts(self, ranks: NDArray[np.int32]) -> Ints:
        """Return the counts of the symbols in use in each context, (CONTEXTS, U), by their `ranks` (alphabet,)."""
        used = int(ranks[-1]) + 1
        keys = self.contexts.astype(np.uint16) * np.uint16(used)
        keys += looked_up(self.symbols, table_of(ranks))
        for lane in range(1, _LANES):  # to count the same key again and again, one waits for the last sum
            keys[lane::_LANES] += np.uint16(lane * CONTEXTS * used)
        lanes = np.bincount(keys, minlength=_LANES * CONTEXTS * used)
        counts: Ints = lanes.reshape(_LANES, CONTEXTS, used).sum(axis=0)
        return counts

    def runs(self, ranks: NDArray[np.int32], groups: Sequence[int]) -> Iterator[Run]:
        """Yield the runs place by place, and those of a place in the order of their groups of contexts."""
        tables = max(groups) + 1
        keys = self.grid.places * np.uint16(tables)
        keys += looked_up(self.contexts, table_of(groups))
        order, ends = sorted_by(keys, tables * self.grid.area)
        in_order = ranks.take(self.symbols[order])
        for key, (start, stop) in enumerate(pairwise([0, *ends.tolist()])):
            if start < stop:
                yield Run(key % tables, in_order[start:stop])


def sorted_by(keys: NDArray[np.uint16], most: int) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Return the order (n,) of keys (n,) below `most`, the same keys as they come, and where each key ends, (most,)."""
    if keys.size > 2**16:
        return np.argsort(keys, kind="stable"), np.cumsum(np.bincount(keys, minlength=most))
    both = keys.astype(np.uint32)  # key and position, which are sorted in a third of the time
    both <<= 16
    both |= np.arange(keys.size, dtype=np.uint32)
    both.sort()
    ends = np.searchsorted(both, np.arange(1, most, dtype=np.uint32) << 16)
    both &= np.uint32(2**16 - 1)
    return both, np.append(ends, keys.size)


def runs_of_all(symbols: Bytes, ranks: NDArray[np.int32], parts: Sequence[slice]) -> Iterator[Iterable[Run]]:
    """Yield the runs of each segment, where one table serves all symbols."""
    for part in parts:
        yield [Run(0, ranks.take(symbols[part]))]


def runs_in_groups(
    placed: Sequence[Placed], ranks: NDArray[np.int32], groups: Sequence[int]
) -> Iterator[Iterable[Run]]:
    """Yield the runs of each segment, where each group of contexts has its own table."""
    for each in placed:
        yield each.runs(ranks, groups)
