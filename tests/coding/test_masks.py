"""Masks from a seed, and masks that keep N of each M weights: what they take, and that they come back."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding.damage import lost
from onnx_analog.coding.joint import index_and_mask, index_and_mask_of
from onnx_analog.coding.masks import GROUPS, PatternStream, decoded_pattern, pattern_stream, seeded_mask


def patterned(kept, group, groups, *, rest=(), seed=0):
    """Return a mask that keeps `kept` of each `group` weights, and then has a rest."""
    rng = np.random.default_rng(seed)
    marks = np.zeros((groups, group), np.bool_)
    marks[:, :kept] = True
    return np.concatenate([rng.permuted(marks, axis=1).reshape(-1), np.array(rest, np.bool_)])


def by_definition(mask, kept, group):
    """Return the rank of each group: of all patterns with `kept` ones, how many have a smaller binary number."""
    patterns = sorted(number for number in range(2**group) if number.bit_count() == kept)
    numbers = [sum(1 << place for place in np.flatnonzero(part)) for part in mask.reshape(-1, group)]
    return [patterns.index(number) for number in numbers]


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (4, 8), (1, 10), (3, 10)])
def test_ranks_are_the_digits_of_one_number(kept, group):
    mask = patterned(kept, group, 20)
    stream = pattern_stream(mask, 2**16)
    number = 0
    for rank in by_definition(mask, kept, group):
        number = number * math.comb(group, kept) + rank
    length = (math.comb(group, kept) ** 20 - 1).bit_length()
    assert "".join(map(str, stream.digits)) == f"{kept:06b}{group:06b}{number:0{length}b}"


@given(
    st.sampled_from(GROUPS).flatmap(lambda group: st.tuples(st.integers(1, group - 1), st.just(group))),
    st.integers(16, 200),
    st.lists(st.booleans(), max_size=3),
    st.integers(1, 500),
    st.integers(0, 99),
)
def test_masks_come_back(of_group, groups, rest, segment, seed):
    mask = patterned(*of_group, groups, rest=rest, seed=seed)
    stream = pattern_stream(mask, segment)
    assert stream is not None
    np.testing.assert_array_equal(decoded_pattern(stream), mask)


def test_a_long_mask_takes_the_logarithm_of_the_number_of_patterns():
    """Each number of 4,096 groups ends with less than one bit to spare."""
    groups = 30_000
    stream = pattern_stream(patterned(2, 20, groups), 2**40)
    least = groups * math.log2(math.comb(20, 2)) + 12
    assert least <= stream.bits <= least + -(-groups // 4096)
    np.testing.assert_array_equal(decoded_pattern(stream), patterned(2, 20, groups))


def test_the_smallest_group_that_holds_is_taken():
    """Of 2:4, 4:8 and 8:16 hold too, but there are more patterns of these."""
    mask = patterned(2, 4, 100)
    assert pattern_stream(mask, 2**16).bits == 12 + (6**100 - 1).bit_length()


@pytest.mark.parametrize(
    "mask",
    [np.random.default_rng(0).random(400) < 0.5, patterned(2, 4, 15), np.ones(400, np.bool_), np.zeros(400, np.bool_),
     patterned(2, 7, 100), np.append(patterned(2, 4, 99), [True, True, True, False])],
    ids=["random", "too few groups", "all", "none", "another group", "one group of others"],
)  # fmt: skip
def test_other_masks_have_no_patterns(mask):
    assert pattern_stream(mask, 2**16) is None


@pytest.mark.parametrize("segment", [50, 2**16])
def test_a_mask_of_patterns_is_stored_so_where_it_is_shorter(segment):
    rng = np.random.default_rng(0)
    mask = patterned(2, 20, 1000)
    index = rng.integers(200, size=2000, dtype=np.uint8)
    streams = index_and_mask(index, mask, 256, model="context", segment=segment)
    assert [name for name, _ in streams] == ["mask", "class"]
    assert isinstance(streams[0].stream, PatternStream)
    again = index_and_mask_of(streams)
    np.testing.assert_array_equal(again[0], index)
    np.testing.assert_array_equal(again[1], mask)


def test_a_mask_of_patterns_that_contexts_tell_better_is_stored_with_contexts():
    mask = np.tile(np.repeat([True, False], 10), 200)
    (named,) = index_and_mask(None, mask, 1, model="context")
    assert not isinstance(named.stream, PatternStream)
    assert named.stream.bits < pattern_stream(mask, 2**16).bits


def test_bits_that_are_lost_lose_the_groups_of_their_number():
    mask = patterned(2, 4, 100, rest=[True, False])
    stream = pattern_stream(mask, 40)  # ten groups a number, of 26 bits
    length, header = (6**10 - 1).bit_length(), 12 + 2
    assert length == 26

    def of(start, count):
        return np.flatnonzero(lost(stream, [start], [count])).tolist()

    assert of(header, 1) == list(range(40))
    assert of(header + length - 1, 2) == list(range(80))
    assert of(header + 9 * length, 5000) == list(range(360, 400))
    assert of(header - 1, 1) == of(0, 1) == list(range(402))
    assert of(stream.bits, 10) == of(5, 0) == []


def test_a_wrong_bit_changes_no_other_number():
    mask = patterned(2, 4, 100)
    stream = pattern_stream(mask, 40)
    digits = stream.digits.copy()
    digits[12 + 26 + 20] ^= 1
    wrong = decoded_pattern(PatternStream(stream.count, stream.segment, digits)) != mask
    assert wrong.any()
    assert not np.delete(wrong, np.arange(40, 80)).any()


def test_a_mask_from_a_seed_differs_between_tensors_and_seeds():
    masks = [seeded_mask(seed, name, 1200, 120) for seed, name in ((3, "a"), (3, "b"), (4, "a"))]
    assert [int(mask.sum()) for mask in masks] == [120] * 3
    for number, mask in enumerate(masks):
        for another in masks[:number]:
            # Two masks of 120 of 1,200 share 12 on average, with a standard deviation of 3.1.
            assert abs(int((mask & another).sum()) - 12) < 6 * math.sqrt(120 * 0.1 * 0.9 * 0.9)


def test_a_mask_from_a_seed_is_uniform():
    """Of 1,000 masks, each place is kept in 100 ± 9.5."""
    counts = sum(seeded_mask(seed, "w", 50, 5).astype(int) for seed in range(1000))
    assert np.abs(counts - 100).max() < 6 * math.sqrt(1000 * 0.1 * 0.9)


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 0), (1, 1), (100, 0), (100, 100)])
def test_a_mask_from_a_seed_may_keep_none_or_all(size, count):
    mask = seeded_mask(0, "w", size, count)
    assert (mask.size, int(mask.sum())) == (size, count)
