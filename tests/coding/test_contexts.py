"""Contexts against kernels that are looked up one by one, and the decoder's against the encoder's."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding.contexts import CONTEXTS, MOST_AREA, Grid, Known, contexts_of, row_of

SYMBOLS = hnp.arrays(np.uint8, st.integers(0, 60))
KERNELS = st.tuples(st.integers(1, 4), st.integers(1, 4))


def by_hand(symbols, middle, kernel, start):
    """Return the context of each symbol, from a grid of each kernel."""
    height, width = kernel
    contexts = []
    for number in range(symbols.size):
        which, place = divmod(number + start, height * width)

        def near(up, left, which=which, place=place):
            row, column = place // width - up, place % width - left
            at = which * height * width + row * width + column - start
            return int(symbols[at]) - middle if row >= 0 and 0 <= column < width and at >= 0 else 0

        left, above, corner, right = near(0, 1), near(1, 0), near(1, 1), near(1, -1)
        value = 2 * left + 2 * above - corner
        size = 2 * abs(left) + 2 * abs(above) + abs(corner) + abs(right)
        digits = min(len(f"{abs(value):b}") if value else 0, 4) * (1 if value > 0 else -1)
        contexts.append((digits + 4) * 6 + min(len(f"{size:b}") if size else 0, 5))
    return contexts


def order_of(grid):
    """Return the symbols of the segment in the order in which they are coded."""
    return np.concatenate([grid.order_at(place) for place in range(grid.area)])


@given(SYMBOLS, KERNELS, st.integers(0, 30))
def test_symbols_are_coded_place_by_place_and_those_of_a_place_by_kernel(symbols, kernel, start):
    grid, area = Grid(kernel, start, symbols.size), kernel[0] * kernel[1]
    flat = range(start, start + symbols.size)
    expected = sorted(flat, key=lambda number: (number % area, number))
    assert (order_of(grid) + start).tolist() == expected
    assert grid.places.tolist() == [number % area for number in expected]
    laid = grid.laid(symbols.astype(np.int32), -1)
    assert laid.shape[:2] == kernel
    assert grid.coded(laid).tolist() == symbols[order_of(grid)].tolist()
    assert np.count_nonzero(laid >= 0) == symbols.size


@given(SYMBOLS, st.integers(0, 255), KERNELS, st.integers(0, 30))
def test_contexts_are_those_of_the_kernel(symbols, middle, kernel, start):
    grid = Grid(kernel, start, symbols.size)
    contexts = grid.coded(contexts_of(grid.laid(symbols, middle), middle))
    assert contexts.tolist() == np.array(by_hand(symbols, middle, kernel, start), int)[order_of(grid)].tolist()
    assert all(context < CONTEXTS for context in contexts)


@pytest.mark.parametrize("most", [20, 21, 22, 127, 255])
@pytest.mark.parametrize("middle", [0, 100, 255])
def test_sums_do_not_overflow(most, middle):
    """21 is the farthest whose sums fit in 8 bits: six times that is 126."""
    rng = np.random.default_rng(most)
    distance = rng.choice([-most, -1, 0, 1, most], 900)
    symbols = np.clip(middle + distance, 0, 255).astype(np.uint8)
    grid = Grid((3, 3), 0, symbols.size)
    contexts = grid.coded(contexts_of(grid.laid(symbols, middle), middle))
    assert contexts.tolist() == np.array(by_hand(symbols, middle, (3, 3), 0), int)[order_of(grid)].tolist()


@given(SYMBOLS, st.integers(0, 255), KERNELS, st.integers(0, 30))
def test_the_decoder_has_the_same_contexts(symbols, middle, kernel, start):
    grid, contexts = Grid(kernel, start, symbols.size), []
    known = Known(middle, kernel, grid)
    for place in range(grid.area):
        contexts += known.contexts(place).tolist()
        known.put(place, symbols[grid.order_at(place)])
    assert contexts == grid.coded(contexts_of(grid.laid(symbols, middle), middle)).tolist()


def test_in_a_row_the_symbol_before_counts():
    # The first row is 0, 0, 2 and -7 from the middle; twice 2 is 100 in binary.
    symbols = np.array([[7, 7, 9, 0], [9, 9, 9, 9]], np.uint8)
    grid = Grid((1, 4), 0, symbols.size)
    contexts = contexts_of(grid.laid(symbols.reshape(-1), 7), 7)
    after_2 = (3 + 4) * 6 + 3
    assert contexts[0].T.tolist() == [[24, 24, 24, after_2], [24, after_2, after_2, after_2]]


@given(st.integers(1, 2**40))
def test_rows_are_about_half_as_long_as_there_are_rows(count):
    height, width = row_of(count)
    assert height == 1
    assert width in (2, MOST_AREA) or count <= 4 * width**2 < 4 * count
    assert 2 <= width <= MOST_AREA
