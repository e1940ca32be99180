"""Codes of whole numbers, symbols in use, probability tables, and groups of contexts, as they stand in a header."""

from __future__ import annotations

from itertools import combinations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding.probabilities import (
    Reader,
    Tables,
    entropy,
    fit_several,
    fit_tables,
    fixed,
    gamma,
    group_contexts,
    read_groups,
    read_used,
    rice,
    write_groups,
    write_used,
)
from onnx_analog.errors import ModelError

COUNTS = hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 20)), elements=st.integers(0, 10**6)).map(
    lambda counts: counts + (counts.sum(axis=1, keepdims=True) == 0)
)


def read(text, method, *arguments):
    """Return what a reader finds, which must end where the text does."""
    reader = Reader(text.encode())
    value = getattr(reader, method)(*arguments)
    assert reader.position == len(text)
    return value


@given(st.integers(1, 2**40), st.integers(0, 2**12), st.integers(0, 15))
def test_numbers_are_read_as_they_were_written(number, small, parameter):
    assert read(gamma(number), "gamma") == number
    assert read(rice(small, parameter), "rice", parameter) == small
    assert read(fixed(small, 13), "fixed", 13) == small
    assert len(gamma(number)) == 2 * number.bit_length() - 1
    assert len(rice(small, parameter)) == (small >> parameter) + 1 + parameter


@pytest.mark.parametrize("text", ["", "0", "00", "001"])
def test_a_code_that_does_not_end_is_refused(text):
    with pytest.raises(ModelError, match="header of an entropy-coded stream is damaged"):
        read(text, "gamma")


@pytest.mark.parametrize("runs", [(0, 6), (0, 2, 4), (5,)])
def test_runs_beyond_the_alphabet_or_of_no_symbol_are_refused(runs):
    text = gamma(runs[0] + 1) + "".join(gamma(run) for run in runs[1:])
    with pytest.raises(ModelError, match="damaged"):
        read_used(Reader(text.encode()), 5)


@pytest.mark.parametrize("codes", [(2, 3), (1, 2), (2, 1, 1, 4)])
def test_a_group_that_there_is_not_is_refused(codes):
    with pytest.raises(ModelError, match="damaged"):
        read_groups(Reader("".join(map(gamma, codes)).encode()), 3)


@given(st.integers(1, 256).flatmap(lambda k: st.tuples(st.just(k), st.sets(st.integers(0, k - 1), min_size=1))))
def test_symbols_in_use(drawn):
    """A run of 1 takes 1 bit, one of 2 takes 3, longer ones less for each symbol; the first is one longer."""
    alphabet, symbols = drawn
    used = np.array(sorted(symbols), np.uint8)
    text = write_used(used, alphabet)
    reader = Reader(text.encode())
    assert (read_used(reader, alphabet) == used).all()
    assert reader.position == len(text) <= 1.5 * alphabet + 2


def test_few_symbols_of_a_large_alphabet_cost_little():
    assert len(write_used(np.arange(121, 133, dtype=np.uint8), 255)) == 13 + 7 + 13  # runs of 121 + 1, 12 and 122
    assert len(write_used(np.arange(15, dtype=np.uint8), 15)) == 1 + 7


@given(COUNTS)
def test_tables_are_read_as_they_were_written(counts):
    tables, _ = fit_tables(counts)
    text = tables.write()
    reader = Reader(text.encode())
    again = Tables.read(reader, *counts.shape)
    assert reader.position == len(text)
    assert (again.steps == tables.steps).all()
    assert again.weights.tobytes() == tables.weights.tobytes()


@given(COUNTS)
def test_the_bits_of_tables_and_symbols_are_what_they_are_said_to_be(counts):
    tables, bits = fit_tables(counts)
    exact = np.exp2(-tables.steps / 2.0**tables.fineness)
    coded = -(counts * np.log2(exact / exact.sum(axis=1, keepdims=True))).sum()
    rounding = 2.0**-50 * counts.sum() * counts.size  # of the logarithms of sums, for each symbol
    assert bits == pytest.approx(coded + len(tables.write()), rel=1e-12, abs=rounding)


@given(COUNTS)
def test_rounding_loses_no_more_than_its_step(counts):
    """Rounded by up to half a step, each probability and their sum are off by up to a factor 2^(1/2s): 1/s in all.

    A symbol that does not occur counts as half a one: log2(1 + U/2N) a symbol, and less than 0.75·U in all. What is
    rarer than 2^-20 of the most frequent symbol gets more than it should, which costs the others 2^-20 for each.
    """
    _, bits = fit_tables(counts)
    total, symbols = counts.sum(), counts.shape[1]
    for fineness in range(8):
        s = 2**fineness
        octaves = np.log2(counts.max(axis=1, keepdims=True) / np.maximum(counts, 0.5))
        steps = np.rint(np.minimum(octaves, 20) * s).astype(np.int64)
        loss = total / s + 0.75 * counts.size + total * symbols * 2.0**-20 / np.log(2)
        written = min(len(Tables(fineness, steps, 1, parameter).write()) for parameter in range(12))
        assert bits <= entropy(counts).sum() + loss + written


def test_weights_are_powers_of_two():
    for fineness in range(8):
        steps = np.arange(20 << fineness)[None]
        weights = Tables(fineness, steps, 1, 0).weights
        assert weights == pytest.approx(np.exp2(-steps / 2.0**fineness), rel=2.0**-23)


def test_more_symbols_pay_for_finer_steps():
    shape = np.array([[1, 5, 20, 47, 70, 47, 20, 5, 1]])
    fineness = [fit_tables(shape * 10**power)[0].fineness for power in range(6)]
    assert fineness == sorted(fineness)
    assert fineness[0] < fineness[-1]


def test_entropy_of_known_sources():
    assert entropy(np.array([[8, 8, 0], [5, 0, 0], [0, 0, 0]])).tolist() == [16, 0, 0]


def test_contexts_with_the_same_table_share_it():
    counts = np.array([[90, 10], [10, 90], [0, 0], [900, 100], [11, 89], [50, 50]]) * 10
    three, two = (next(each for each in group_contexts(counts, tries=9) if len(each.counts) == size) for size in (3, 2))
    assert three.groups.tolist() == [0, 1, 1, 0, 1, 2]
    assert three.counts.tolist() == [[9900, 1100], [210, 1790], [500, 500]]
    assert two.groups.tolist() == [0, 1, 1, 0, 1, 1]


def fewest_bits(counts, size):
    """Return the fewest bits in so many groups of neighbours, when contexts are sorted by their mean symbol."""
    filled = counts[counts.any(axis=1)]
    means = filled @ np.arange(counts.shape[1]) / filled.sum(axis=1)
    rows = filled[np.argsort(means, kind="stable")]
    cuts = combinations(range(1, len(rows)), size - 1)
    return min(sum(float(entropy(part.sum(axis=0))) for part in np.split(rows, list(cut))) for cut in cuts)


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(2, 6), st.sampled_from([2, 100, 10**6]))
def test_no_other_neighbours_take_fewer_bits(seed, contexts, symbols, most):
    counts = np.random.default_rng(seed).integers(0, most, (contexts, symbols))
    counts[0, 0] += 1
    filled = np.count_nonzero(counts.any(axis=1))
    found = group_contexts(counts, tries=contexts)
    assert sorted(len(each.counts) for each in found) == list(range(2, filled + 1))
    for each in found:
        least = fewest_bits(counts, len(each.counts))
        assert float(entropy(each.counts).sum()) == pytest.approx(least, rel=1e-12, abs=1e-9)


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(2, 9))
def test_groups_have_the_symbols_of_their_contexts(seed, contexts, symbols):
    counts = np.random.default_rng(seed).integers(0, 3, (contexts, symbols))
    counts[0, 0] += 1
    for each in group_contexts(counts, tries=2):
        firsts = [int(np.argmax(each.groups == group)) for group in range(len(each.counts))]
        assert firsts == sorted(firsts)  # groups are numbered in the order of their first contexts
        for group, of_group in enumerate(each.counts):
            assert of_group.tolist() == counts[each.groups == group].sum(axis=0).tolist()
        empty = np.flatnonzero(~counts.any(axis=1))
        assert (each.groups[empty] == each.groups[empty - 1]).all()


def test_one_context_alone_has_no_groups():
    assert group_contexts(np.array([[0, 0], [3, 4], [0, 0]])) == []


@pytest.mark.parametrize(("count", "groups"), [(10_000, 4), (2, 2)])
def test_groups_that_pay_for_their_tables_are_tried_first(count, groups):
    """Each of four contexts has a symbol of its own: few symbols do not pay for four tables."""
    (first,) = group_contexts(np.eye(4, dtype=np.int64) * count)
    assert len(first.counts) == groups


def test_more_groups_than_a_header_should_hold_are_not_tried():
    counts = np.eye(30, dtype=np.int64) * 10**6
    assert max(len(each.counts) for each in group_contexts(counts, tries=30)) == 12


@given(st.lists(COUNTS, min_size=1, max_size=5))
def test_tables_of_several_are_those_of_each(several):
    symbols = min(counts.shape[1] for counts in several)
    several = [counts[:, :symbols] + (counts[:, :symbols].sum(axis=1, keepdims=True) == 0) for counts in several]
    for counts, (tables, bits) in zip(several, fit_several(several), strict=True):
        alone, least = fit_tables(counts)
        assert tables.write() == alone.write()
        assert (tables.steps == alone.steps).all()
        assert bits == pytest.approx(least, rel=1e-12)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60).map(lambda groups: np.unique(groups, return_inverse=True)[1])
)
def test_groups_are_read_as_they_were_written(groups):
    text = write_groups(groups.tolist())
    reader = Reader(text.encode())
    assert read_groups(reader, groups.size) == groups.tolist()
    assert reader.position == len(text)
