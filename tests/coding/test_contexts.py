"""Contexts against kernels that are looked up one by one, and the decoder's against the encoder's."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from onnx_analog.coding.contexts import CONTEXTS, LINE, Decoded, contexts_of

SYMBOLS = hnp.arrays(np.uint8, st.integers(0, 60))
KERNELS = st.one_of(st.just(LINE), st.tuples(st.integers(1, 4), st.integers(1, 4)))


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


@given(SYMBOLS, st.integers(0, 255), st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(0, 30))
def test_contexts_are_those_of_the_kernel(symbols, middle, kernel, start):
    assert contexts_of(symbols, middle, kernel, start).tolist() == by_hand(symbols, middle, kernel, start)


@given(SYMBOLS, st.integers(0, 255), KERNELS, st.integers(0, 30))
def test_the_decoder_has_the_same_contexts(symbols, middle, kernel, start):
    line, contexts = Decoded(middle, kernel, start), []
    for symbol in symbols.tolist():
        contexts.append(line.context())
        line.append(symbol)
    assert contexts == contexts_of(symbols, middle, kernel, start).tolist()
    assert (line.symbols == symbols).all()
    assert all(context < CONTEXTS for context in contexts)


def test_without_a_kernel_the_symbol_before_counts():
    symbols = np.array([7, 7, 9, 0], np.uint8)  # 0, 0, 2 and -7 from the middle; twice of it is 4 = 100 in binary
    assert contexts_of(symbols, 7, LINE, 5).tolist() == [24, 24, 24, (3 + 4) * 6 + 3]
