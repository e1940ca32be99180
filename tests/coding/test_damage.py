"""Damaged streams are decoded: only what is said to be lost is wrong, and little more is said to be lost."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding.damage import lost
from onnx_analog.coding.entropy import MODELS, decode_segment, decoded, digits_of, encoded
from tests.coding.test_entropy import smooth, sources, weights


def damaged(stream, start, bits):
    """Return a stream with other bits from `start` on."""
    digits = stream.digits(0, stream.bits)
    digits[start : start + len(bits)] = bits
    return replace(stream, data=np.packbits(digits).tobytes())


def lost_part(stream, position):
    """Return the first symbol that is lost with a bit, and the first after it that is not; the lost ones are a run."""
    (gone,) = np.nonzero(lost(stream, [position], [1]))
    start, stop = int(gone[0]), int(gone[-1]) + 1
    assert gone.size == stop - start
    return start, stop


@given(sources(), st.data())
def test_only_lost_symbols_are_wrong(source, data):
    symbols, alphabet, settings = source
    stream = encoded(symbols, alphabet, **settings)
    if not symbols.size or stream.bits == stream.header.starts[0]:
        return
    start = data.draw(st.integers(int(stream.header.starts[0]), stream.bits - 1))
    bits = data.draw(st.lists(st.booleans(), min_size=1, max_size=stream.bits - start))
    wrong = decoded(damaged(stream, start, bits)) != symbols
    assert not (wrong & ~lost(stream, [start], [len(bits)])).any()


LONG = encoded(*weights(1000, 0.5), segment=300)


@given(
    st.lists(st.tuples(st.integers(int(LONG.header.starts[0]) - 1, LONG.bits + 5), st.integers(0, 1500)), max_size=5)
)
def test_runs_lose_what_each_of_them_loses(runs):
    stream = LONG
    expected = np.zeros(stream.count, np.bool_)
    for start, length in runs:
        stop = min(start + length, stream.bits)
        for position in (start, *stream.header.starts[:-1].tolist()):  # the first damaged bit of each segment
            if start <= position < stop:
                expected |= lost(stream, [position], [1])
    assert (lost(stream, [start for start, _ in runs], [length for _, length in runs]) == expected).all()


@pytest.mark.parametrize("model", MODELS)
def test_the_first_lost_symbol_depends_on_later_bits(model):
    """All later bits of the segment 0, or all 1, make it another, or none; at least where 64 of them are left."""
    symbols = smooth(300)
    stream = encoded(symbols, 21, model=model, segment=1000, kernel=(3, 3))
    assert bool(stream.header.model.groups) == (model == "context")
    starts = stream.header.starts
    for position in range(int(starts[1]), int(starts[2]) - 64, 37):
        gone = lost(stream, [position], [1])
        assert not gone[:1000].any()
        assert not gone[2000:].any()
        kept = 1000 - np.count_nonzero(gone)
        first = set()
        for bit in (0, 1):
            digits = digits_of(stream, 1)
            digits[position - int(starts[1]) :] = bit
            read, places = decode_segment(stream, 1, digits)
            assert not gone[1000 + places[:kept]].any()
            assert (read[:kept] == symbols[1000 + places[:kept]]).all()
            first.add(tuple(read[kept:][:1].tolist()))
        assert len(first) == 2


def test_hardly_more_is_lost_than_bits():
    """Before bit b, symbols of b bits of information are known; fewer only if the bits are near the end of an interval.

    They are within 2^-m of its width with probability 2·2^-m: 4 bits on average. The symbol that is then next has 5
    bits on average at most: 10 symbols are in use.
    """
    symbols, alphabet = weights(5000, 0.7)
    stream = encoded(symbols, alphabet, segment=10_000)
    table = stream.header.model.tables.weights[0].astype(np.float64)
    information = np.append(0, np.cumsum(-np.log2(table / table.sum())[symbols - symbols.min()]))
    first = int(stream.header.starts[0])
    known = [information[lost_part(stream, p)[0]] - (p - first) for p in range(first, stream.bits, 17)]
    assert max(known) <= 1  # rounding of the coder: 2^-8 a symbol at its worst, and less than 1e-3 on average
    assert -9 <= np.mean(known) <= 0


def test_the_header_loses_all():
    symbols, alphabet = weights(500, 0.7)
    stream = encoded(symbols, alphabet, segment=100)
    first = int(stream.header.starts[0])
    assert lost_part(stream, first - 1) == (0, 500)
    assert lost_part(stream, first) == (0, 100)


def test_nothing_is_lost_without_damage():
    symbols, alphabet = weights(500, 0.7)
    stream = encoded(symbols, alphabet)
    assert not lost(stream, [], []).any()
    assert not lost(stream, [3, stream.bits], [0, 100]).any()
    assert lost(encoded(symbols[:0], 5), [0], [100]).size == 0
