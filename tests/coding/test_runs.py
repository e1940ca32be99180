"""Runs of symbols: they are counted and put in order as one by one."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from onnx_analog.coding.contexts import CONTEXTS, contexts_of
from onnx_analog.coding.runs import Placed, sorted_by

SYMBOLS = arrays(np.uint8, st.integers(1, 300), elements=st.integers(0, 255))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255)), max_size=100), st.integers(13, 20))
def test_values_are_sorted_by_key_and_those_of_a_key_stay_in_order(pairs, most):
    keys, values = (
        np.array([pair[place] for pair in pairs], dtype) for place, dtype in ((0, np.uint16), (1, np.uint8))
    )
    in_order, ends = sorted_by(keys, most, values)
    assert in_order.tolist() == [value for _, value in sorted(pairs, key=lambda pair: pair[0])]
    assert ends.tolist() == [np.count_nonzero(keys <= key) for key in range(most)]


@pytest.mark.parametrize("count", [2**15 - 1, 2**15, 2**16 - 1, 2**16])
@pytest.mark.parametrize("alphabet", [1, 2, 255, 256])
@pytest.mark.parametrize("most", [1, 2, 2**8, 2**8 + 1, 2**16])
def test_all_ways_to_sort_agree(count, alphabet, most):
    """Key, place and value fit in 32 bits, or not; in some cases they fill all 32."""
    rng = np.random.default_rng(0)
    keys, values = rng.integers(most, size=count).astype(np.uint16), rng.integers(alphabet, size=count).astype(np.uint8)
    keys[-1], values[-1] = most - 1, alphabet - 1
    in_order, ends = sorted_by(keys, most, values)
    assert np.array_equal(in_order, values[np.argsort(keys, kind="stable")])
    assert np.array_equal(ends, np.cumsum(np.bincount(keys, minlength=most)))


@given(SYMBOLS, st.sampled_from([(1, 4), (3, 3), (5, 1)]), st.integers(0, 20))
def test_symbols_are_counted_in_each_context(symbols, kernel, start):
    placed = Placed.of(symbols, int(symbols[0]), kernel, start)
    used = np.unique(symbols)
    ranks = np.searchsorted(used, np.arange(256), side="right").astype(np.int32) - 1
    expected = np.zeros((CONTEXTS, used.size), int)
    np.add.at(expected, (placed.contexts, ranks[placed.symbols]), 1)
    assert placed.counts(ranks).tolist() == expected.tolist()


@pytest.mark.parametrize("kernel", [(3, 3), (1, 4), (2, 5)])
@pytest.mark.parametrize("start", [0, 4, 7])
@pytest.mark.parametrize("others", [[], [0], [399], [0, 3, 399], [150, 151, 152, 200]])
def test_kernels_of_one_symbol_are_left_out_and_counted_all_the_same(kernel, start, others):
    """The first and the last kernel are cut off, and hold other symbols or not."""
    symbols = np.full(400, 5, np.uint8)
    symbols[others] = np.arange(len(others)) * 60
    placed = Placed.of(symbols, 5, kernel, start)
    laid = placed.grid.laid(symbols, 5)
    assert placed.told[0].size < 100
    assert np.array_equal(placed.contexts, placed.grid.coded(contexts_of(laid, 5)))
    assert np.array_equal(placed.symbols, placed.grid.coded(laid))
    expected = np.zeros((CONTEXTS, 256), int)
    np.add.at(expected, (placed.contexts, placed.symbols), 1)
    assert np.array_equal(placed.counts(np.arange(256, dtype=np.int32)), expected)


def test_all_256_symbols_are_counted_in_the_last_context():
    """The highest key that counting meets: the last symbol in the last context, in the last lane."""
    last = np.full(8, 255, np.uint8), np.full(8, CONTEXTS - 1, np.uint8)
    counts = Placed(None, *last, 0, last).counts(np.arange(256, dtype=np.int32))
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
    assert [(table, run.tolist()) for table, run in runs] == [(group, run) for group, run in expected if run]
