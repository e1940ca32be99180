"""Runs of symbols: they are counted and put in order as one by one."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from onnx_analog.coding.contexts import CONTEXTS
from onnx_analog.coding.runs import Placed, sorted_by

SYMBOLS = arrays(np.uint8, st.integers(1, 300), elements=st.integers(0, 255))


@given(arrays(np.uint16, st.integers(0, 100), elements=st.integers(0, 12)), st.integers(13, 20))
def test_keys_are_sorted_and_equal_ones_stay_in_order(keys, most):
    order, ends = sorted_by(keys, most)
    assert order.tolist() == sorted(range(keys.size), key=lambda place: keys[place])
    assert ends.tolist() == [np.count_nonzero(keys <= key) for key in range(most)]


@pytest.mark.parametrize("count", [2**16 - 1, 2**16, 2**16 + 1])
@pytest.mark.parametrize("most", [1, 2, 2**16])
def test_both_ways_to_sort_agree(count, most):
    """From 2^16 keys on, positions do not fit beside keys in 32 bits; below, the largest key and place do."""
    keys = np.random.default_rng(0).integers(most, size=count).astype(np.uint16)
    keys[-1] = most - 1
    order, ends = sorted_by(keys, most)
    assert np.array_equal(order, np.argsort(keys, kind="stable"))
    assert np.array_equal(ends, np.cumsum(np.bincount(keys, minlength=most)))


@given(SYMBOLS, st.sampled_from([(1, 4), (3, 3), (5, 1)]), st.integers(0, 20))
def test_symbols_are_counted_in_each_context(symbols, kernel, start):
    placed = Placed.of(symbols, int(symbols[0]), kernel, start)
    used = np.unique(symbols)
    ranks = np.searchsorted(used, np.arange(256), side="right").astype(np.int32) - 1
    expected = np.zeros((CONTEXTS, used.size), int)
    np.add.at(expected, (placed.contexts, ranks[placed.symbols]), 1)
    assert placed.counts(ranks).tolist() == expected.tolist()


def test_all_256_symbols_are_counted_in_the_last_context():
    """The highest key that counting meets: the last symbol in the last context, in the last lane."""
    symbols = np.full(8, 255, np.uint8)
    placed = Placed(None, symbols, np.full(8, CONTEXTS - 1, np.uint8))
    counts = placed.counts(np.arange(256, dtype=np.int32))
    assert counts[-1, -1] == counts.sum() == 8


@given(SYMBOLS, st.lists(st.integers(0, 3), min_size=CONTEXTS, max_size=CONTEXTS))
def test_runs_hold_each_place_by_group(symbols, groups):
    groups = [0, 1, 2, 3, *groups[4:]]
    placed = Placed.of(symbols, int(symbols[0]), (3, 3), 4)
    ranks = np.arange(256, dtype=np.int32)
    places, of_symbol = placed.grid.places, np.array(groups)[placed.contexts]
    runs = list(placed.runs(ranks, groups))
    expected = [
        (group, placed.symbols[(places == place) & (of_symbol == group)].tolist())
        for place in range(9)
        for group in range(4)
    ]
    assert [(run.table, run.ranks.tolist()) for run in runs] == [(group, run) for group, run in expected if run]
