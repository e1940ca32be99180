"""The range coder: what it ends with, and what it decodes."""

from __future__ import annotations

from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
from hypothesis import assume, example, given

from onnx_analog.coding.probabilities import fit_tables
from onnx_analog.coding.range_coder import _ending, coder_tables, decoder, encoded_runs, patient_decoder

RUNS = st.tuples(st.sampled_from([0, 1, 2**31, 2**32 - 1]), st.integers(1, 6))


@given(st.lists(RUNS, min_size=1, max_size=3), st.integers(0, 2), st.integers(0, 2**64), st.integers(2**32, 2**64 - 1))
@example([(1, 1), (0, 6)], 0, 3 * 2**61, 2**63 - 1)
@example([(1, 1), (2**32 - 1, 8)], 2, 0, 2**63 - 1)
def test_the_bits_of_a_segment_end_inside_the_interval_of_its_coder(runs, more, back, size):
    """Of any interval, carries and borrows included, it is a whole part, and no longer one would do."""
    point = np.array([word for word, times in runs for _ in range(times)], np.uint32)
    words = max(point.size - more, 0)
    width = 32 * words + 64
    inside = int.from_bytes(point.astype(">u4").tobytes(), "big") << (width - 32 * point.size)
    start = max(inside - back % size, 0)
    assume(start + size <= 2**width)
    bits = _ending(SimpleNamespace(pos=lambda: (words, (start % 2**64, size)), get_compressed=lambda: point))
    number, dropped = int("0" + "".join(map(str, bits.tolist())), 2), width - bits.size
    assert start <= number << dropped
    assert (number + 1) << dropped <= start + size
    longer = dropped + 1
    assert ((-(-start >> longer) + 1) << longer) > start + size


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_both_decoders_return_what_was_encoded(symbols):
    ranks = np.array(symbols, np.int32)
    tables = coder_tables(fit_tables(np.array([[4, 3, 2, 1]])).tables)
    digits = encoded_runs(tables, [(0, ranks)])
    for decode in (decoder(digits), patient_decoder(digits)):
        assert decode(tables[0], ranks.size).tolist() == symbols


def all_or_none(digits, table, count):
    """Return the ranks of the fast decoder, which raises where bits hold no symbol; then None."""
    try:
        return decoder(digits)(table, count).tolist()
    except AssertionError:
        return None


@given(st.lists(st.integers(0, 1), max_size=200), st.integers(1, 60))
@example([1] * 200, 60)
def test_the_patient_decoder_stops_at_the_first_symbol_that_cannot_be(bits, count):
    """Of any bits, also such as no encoder writes: the same as the other decoder, up to where that has no symbol."""
    digits = np.array(bits, np.uint8)
    (table,) = coder_tables(fit_tables(np.array([[4, 3, 2, 1]])).tables)
    ranks = patient_decoder(digits)(table, count).tolist()
    assert all_or_none(digits, table, count) == (ranks if len(ranks) == count else None)
    assert all_or_none(digits, table, len(ranks)) == ranks
    if len(ranks) < count:
        assert all_or_none(digits, table, len(ranks) + 1) is None


def test_there_are_bits_that_hold_no_symbol():
    (table,) = coder_tables(fit_tables(np.array([[4, 3, 2, 1]])).tables)
    assert all_or_none(np.ones(200, np.uint8), table, 60) is None


def test_one_symbol_takes_no_bits():
    tables = coder_tables(fit_tables(np.array([[7]])).tables)
    assert encoded_runs(tables, [(0, np.zeros(7, np.int32))]).size == 0
