"""Runs of symbols: they are counted and put in order as one by one."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from onnx_analog.coding.contexts import CONTEXTS, Grid
from onnx_analog.coding.runs import Placed, Sparse, placed_of, sorted_by

SYMBOLS = arrays(np.uint8, st.integers(1, 300), elements=st.integers(0, 255))
RANKS = np.arange(256, dtype=np.int32)
GROUPS = st.lists(st.integers(0, 3), min_size=CONTEXTS - 4, max_size=CONTEXTS - 4).map(lambda last: [0, 1, 2, 3, *last])


def listed(runs):
    return [(table, ranks.tolist()) for table, ranks in runs]


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
    placed = Placed.of(symbols, int(symbols[0]), Grid(kernel, start, symbols.size))
    used = np.unique(symbols)
    ranks = np.searchsorted(used, np.arange(256), side="right").astype(np.int32) - 1
    expected = np.zeros((CONTEXTS, used.size), int)
    np.add.at(expected, (placed.contexts, ranks[placed.symbols]), 1)
    assert placed.counts(ranks).tolist() == expected.tolist()


def test_all_256_symbols_are_counted_in_the_last_context():
    """The highest key that counting meets: the last symbol in the last context, in the last lane."""
    counts = Placed(None, np.full(8, 255, np.uint8), np.full(8, CONTEXTS - 1, np.uint8)).counts(RANKS)
    assert counts[-1, -1] == counts.sum() == 8


@given(SYMBOLS, GROUPS)
def test_runs_hold_each_place_by_group(symbols, groups):
    placed = Placed.of(symbols, int(symbols[0]), Grid((3, 3), 4, symbols.size))
    places, of_symbol = placed.grid.places, np.array(groups)[placed.contexts]
    expected = [
        (group, placed.symbols[(places == place) & (of_symbol == group)].tolist())
        for place in range(9)
        for group in range(4)
    ]
    assert listed(placed.runs(RANKS, groups)) == [(group, run) for group, run in expected if run]


# ------------------------------------------------------------------------------- kernels that hold one symbol


@pytest.mark.parametrize("kernel", [(3, 3), (1, 4), (2, 5)])
@pytest.mark.parametrize("start", [0, 4, 7])
@pytest.mark.parametrize("others", [[], [0], [399], [0, 3, 399], [150, 151, 152, 200], range(40)])
@given(groups=GROUPS)
def test_kernels_of_one_symbol_are_left_out_and_counted_and_coded_all_the_same(kernel, start, others, groups):
    """The first and the last kernel are cut off, and hold other symbols or not."""
    symbols = np.full(400, 5, np.uint8)
    symbols[others] = np.arange(len(others)) * 60 % 251 + 1  # 5 is among them
    sparse, dense = placed_of(symbols, 5, kernel, start), Placed.of(symbols, 5, Grid(kernel, start, 400))
    assert isinstance(sparse, Sparse)
    assert np.array_equal(sparse.counts(RANKS), dense.counts(RANKS))
    assert listed(sparse.runs(RANKS, groups)) == listed(dense.runs(RANKS, groups))


@given(
    arrays(np.uint8, st.integers(100, 300), elements=st.sampled_from([*[7] * 60, 3, 8])),
    st.sampled_from([(1, 4), (3, 3), (5, 1)]),
    st.integers(0, 20),
    GROUPS,
)
def test_both_ways_to_place_symbols_agree(symbols, kernel, start, groups):
    placed, dense = placed_of(symbols, 7, kernel, start), Placed.of(symbols, 7, Grid(kernel, start, symbols.size))
    assert np.array_equal(placed.counts(RANKS), dense.counts(RANKS))
    assert listed(placed.runs(RANKS, groups)) == listed(dense.runs(RANKS, groups))


@pytest.mark.parametrize(("others", "way"), [(50, Sparse), (51, Placed)])
def test_kernels_are_left_out_where_at_least_half_hold_one_symbol(others, way):
    symbols = np.zeros((100, 9), np.uint8)
    symbols[:others, 4] = 1
    assert isinstance(placed_of(symbols.reshape(-1), 0, (3, 3), 0), way)
