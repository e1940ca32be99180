"""Class index and mask in one stream or in two: the shorter is taken, and both come back."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding import joint
from onnx_analog.coding.entropy import MODELS, encoded, ways_to_encode
from onnx_analog.coding.joint import index_and_mask, index_and_mask_of
from onnx_analog.errors import OptionError


def names(streams):
    return [name for name, _ in streams]


def bits(streams):
    return sum(named.stream.bits for named in streams)


@given(
    st.lists(st.booleans(), max_size=200),
    st.integers(1, 256),
    st.sampled_from(MODELS),
    st.sampled_from([None, (3, 3)]),
    st.data(),
)
def test_both_come_back(marks, classes, model, kernel, data):
    mask = np.array(marks, np.bool_)
    zero = data.draw(st.integers(0, classes))
    stored = int(mask.sum())
    index = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=stored, max_size=stored)), np.uint8)
    for given_index, given_mask in ((index, mask), (index, None), (None, mask), (None, None)):
        streams = index_and_mask(given_index, given_mask, classes, zero=zero, model=model, segment=50, kernel=kernel)
        again = index_and_mask_of(streams, zero)
        assert [None if part is None else part.tolist() for part in again] == [
            None if part is None else part.tolist() for part in (given_index, given_mask)
        ]


def test_one_class_leaves_a_mask():
    mask = np.random.default_rng(0).random(1000) < 0.2
    assert names(index_and_mask(None, mask, 1)) == ["mask"]
    assert names(index_and_mask(np.zeros(5, np.uint8), None, 1)) == ["class"]
    assert index_and_mask(None, None, 1) == ()


@pytest.mark.parametrize(("count", "share"), [(10_000, 0.2), (1_000_000, 0.2), (1_000_000, 0.05), (1_000_000, 0.5)])
def test_a_mask_takes_the_logarithm_of_the_number_of_masks(count, share):
    """Of n marks, N set: log2 C(n, N), which half of log2(2πn·p(1 - p)) makes n·H(p).

    Two probabilities take less than 40 bits, each segment at most 2 and up to 10 for its length, the coder 1 in 1,000.
    """
    mask = np.random.default_rng(0).random(count) < share
    stored = int(mask.sum())
    least = (math.lgamma(count + 1) - math.lgamma(stored + 1) - math.lgamma(count - stored + 1)) / math.log(2)
    taken = bits(index_and_mask(None, mask, 1))
    assert least <= taken <= 1.001 * least + 40 + 0.5 * math.log2(count) + 12 * -(-count // 2**14)


def test_one_stream_is_taken_where_it_is_shorter():
    """A table of its own for the mask is then more than it saves: few weights, nothing to learn from the place."""
    rng = np.random.default_rng(0)
    mask = rng.random(50) < 0.5
    index = rng.integers(0, 2, int(mask.sum())).astype(np.uint8)
    streams = index_and_mask(index, mask, 2, zero=1)
    assert names(streams) == ["mask and class"]
    assert bits(streams) < bits(index_and_mask(None, mask, 1)) + encoded(index, 2).bits


def test_two_streams_are_taken_where_they_are_shorter():
    """Stored weights that follow one another closely, and that a mask which has no pattern would part."""
    mask = np.random.default_rng(0).random(20_000) < 0.5
    index = (np.arange(mask.sum()) // 100 % 2 * 5).astype(np.uint8)
    assert names(index_and_mask(index, mask, 6, zero=3, model="context")) == ["mask", "class"]


def smooth(count, rng):
    """Class of nine weights, alike within a kernel, and a mask that keeps large ones: contexts of both tell more."""
    value = np.repeat(rng.normal(size=-(-count // 9)), 9)[:count] + 0.3 * rng.normal(size=count)
    mask = abs(value) > 0.7
    return np.clip(np.rint(value[mask]) + 4, 0, 8).astype(np.uint8), mask


def in_rows(count, rng):
    """Stored weights that follow one another closely, and a mask that has no pattern."""
    mask = rng.random(count) < 0.5
    return (np.arange(mask.sum()) // 100 % 2 * 5).astype(np.uint8), mask


@pytest.mark.parametrize("count", [joint._MANY - 1, joint._MANY, joint._MANY + 5, 1_000_000])
@pytest.mark.parametrize(("make", "taken"), [(smooth, ["mask and class"]), (in_rows, ["mask", "class"])])
@pytest.mark.parametrize("kernel", [None, (3, 3)])
def test_large_masks_are_looked_at_in_part_and_encoded_in_the_shorter_way(count, make, taken, kernel, monkeypatch):
    index, mask = make(count, np.random.default_rng(0))
    settings = {"zero": 4, "model": "context", "kernel": kernel}
    streams = index_and_mask(index, mask, 9, **settings)
    monkeypatch.setattr(joint, "_MANY", 2**40)
    assert [named.stream.data for named in streams] == [
        named.stream.data for named in index_and_mask(index, mask, 9, **settings)
    ]
    if kernel is not None:
        assert names(streams) == taken


@pytest.mark.parametrize(
    "which",
    [*(lambda part, period=period: part % period == 0 for period in (2, 8, 12, 16, 24)), lambda part: part < 12],
    ids=[*(f"one in {period}" for period in (2, 8, 12, 16, 24)), "the first eighth"],
)
@pytest.mark.parametrize("size", [2**13, 2**16])
@pytest.mark.parametrize("rare", [smooth, in_rows])
def test_no_order_of_parts_hides_the_shorter_way(which, size, rare, monkeypatch):
    """Some parts, of four pieces or more, are smooth, the others in rows, or the other way round: a sample has both."""
    rng = np.random.default_rng(0)
    kinds = [(in_rows if rare is smooth else smooth)(size, rng), rare(size, rng)]
    parts = [kinds[int(which(part))] for part in range(max(96, 2**19 // size + 1))]
    index, mask = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
    assert mask.size >= joint._MANY
    settings = {"zero": 4, "model": "context", "kernel": (3, 3)}
    found = bits(index_and_mask(index, mask, 9, **settings))
    monkeypatch.setattr(joint, "_MANY", 2**40)
    assert found <= joint._FAR * bits(index_and_mask(index, mask, 9, **settings))


@pytest.mark.parametrize("rare", [smooth, in_rows])
def test_pieces_that_differ_every_eighth_time_are_not_all_that_is_sampled(rare):
    """Nor are they left out: of pieces that lie in the same place of each eight, a sample has one in eight."""
    rng, length = np.random.default_rng(0), joint._PIECE // 9 * 9
    kinds = [rare(length, rng), (in_rows if rare is smooth else smooth)(length, rng)]
    parts = [kinds[int(piece % 8 > 0)] for piece in range(joint._MANY // length + 1)]
    index, mask = (np.concatenate([part[which] for part in parts]) for which in (0, 1))
    sample, _ = joint._Streams(9, 4, "context", 65536, (3, 3))._sample(index, mask)
    assert sample.size / index.size == pytest.approx(1 / 8, rel=0.1)
    assert np.mean(np.isin(sample, (0, 5))) == pytest.approx(np.mean(np.isin(index, (0, 5))), abs=0.05)


def test_a_mask_of_patterns_is_not_sampled(monkeypatch):
    """Its stream of patterns is known at once, and a sample would compare without it."""
    mask = np.tile(np.array([True, False, False, True]), joint._MANY // 4)
    index = np.zeros(mask.sum(), np.uint8)
    monkeypatch.setattr(joint._Streams, "_sample", None)
    assert names(index_and_mask(index, mask, 3, zero=1, model="context")) == ["mask", "class"]


def test_of_a_large_mask_only_one_way_is_looked_at_whole(monkeypatch):
    sizes = []

    def noted(symbols, *arguments, **settings):
        sizes.append(symbols.size)
        return ways_to_encode(symbols, *arguments, **settings)

    monkeypatch.setattr(joint, "ways_to_encode", noted)
    index, mask = smooth(2**20, np.random.default_rng(0))
    index_and_mask(index, mask, 9, zero=4, model="context", kernel=(3, 3))
    assert sizes.count(mask.size) == 1
    assert sum(sizes) < 1.5 * mask.size


def test_contexts_see_the_place_of_classes_in_the_kernel():
    """Classes of a whole kernel, or of none of it: nine marks take hardly more than one."""
    rng = np.random.default_rng(0)
    mask = np.repeat(rng.random(5000) < 0.3, 9)
    index = np.repeat(rng.integers(0, 3, 5000), 9)[mask].astype(np.uint8)
    static, context = (bits(index_and_mask(index, mask, 3, zero=1, model=model, kernel=(3, 3))) for model in MODELS)
    assert context < static / 4


def test_a_mask_of_other_weights_is_refused():
    with pytest.raises(OptionError, match=r"^class_index has 3 entries, but mask has 2$"):
        index_and_mask(np.zeros(3, np.uint8), np.array([True, False, True]), 2)
