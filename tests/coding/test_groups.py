"""Codebooks of groups, fitted many at once: those of each group alone, to the bit."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from onnx_analog.coding import groups as module
from onnx_analog.coding.codebook import Codebook
from onnx_analog.coding.groups import GroupEdges, batches, fit_groups, order_of
from onnx_analog.coding.partition import Edges, edges_of
from onnx_analog.coding.planes import Axis, Part, encode, fit, planes_of, split
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ModelError
from tests.coding.families import schemes
from tests.models import f32, same_bits

COLUMNS = tuple(Codebook.__annotations__)


@st.composite
def channels(draw):
    """Return weights (channels, most in one) of few or many channels, some of them dead, alike, empty or tiny."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(2, 12), st.integers(1, 60)))
    weight = rng.normal(size=shape) if draw(st.booleans()) else rng.integers(-3, 4, shape) / 4  # ties
    for number in range(shape[0]):
        weight[number] *= draw(st.sampled_from([1, 1, 1, 0.01, 30, 0, 1e-44, 1e-38, 1e30]))
    weight[draw(st.integers(0, shape[0] - 1))] = draw(st.sampled_from([0.25, -1, 0]))
    weight[rng.random(shape) < draw(st.sampled_from([0.0, 0.5]))] = 0
    return weight.astype(draw(st.sampled_from([np.float32, np.float64])))


def alone(size, scheme):
    """Return what is fitted to the sizes (N,) of one group; None if they cannot be scaled."""
    try:
        return fit([Part(size, None, None)], scheme, keep=True)
    except ModelError:
        return None


def assert_as_alone(found, each, scheme):
    """Fail unless what was found is, to the bit, what is fitted to each group of sizes alone."""
    ends = np.cumsum([0, *(size.size for size in each)])
    for number, size in enumerate(each):
        expected = alone(size, scheme)
        assert found.alone[number] == (expected is not None)
        if expected is None:
            continue
        of_group = [getattr(found.codebook, name)[number] for name in COLUMNS]
        assert same_bits(of_group, [getattr(expected.codebook, name)[0] for name in COLUMNS])
        assert found.counts[number].tolist() == expected.counts[0].tolist()
        assert found.edges[number] == expected.edges[0][0]
        if scheme.classes > 1:
            index = found.class_index[ends[number] : ends[number + 1]]
            assert index.tolist() == expected.class_index[0].tolist()


@given(channels(), schemes(granularity="channel"), st.sampled_from(["affine", "unbiased"]), st.sampled_from([9, 2**17]))
def test_each_group_is_fitted_as_it_would_be_alone(weight, scheme, estimator, at_once):
    scheme = scheme.changed(estimator=estimator)
    each = [split(row, scheme).size for row in weight]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", at_once)
        found = fit_groups(np.concatenate(each), np.array([size.size for size in each]), scheme)
    assert_as_alone(found, each, scheme)


@pytest.mark.parametrize("fault", ["codebook", "counts", "edges", "class_index", "alone"])
def test_a_group_that_is_fitted_otherwise_is_seen(fault):
    scheme = Scheme.paper("redundancy", granularity="channel")
    each = list(np.abs(np.random.default_rng(0).normal(size=(3, 40))).astype(np.float32))
    found = fit_groups(np.concatenate(each), np.full(3, 40), scheme)
    assert_as_alone(found, each, scheme)
    books = {name: getattr(found.codebook, name).copy() for name in COLUMNS}
    books["beta"][1, 0] = np.nextafter(books["beta"][1, 0], np.float32(9))
    wrong = {
        "codebook": Codebook(**books),
        "counts": np.add(found.counts, [[0, 0], [0, 1], [0, 0]]),
        "edges": found.edges.replaced(np.array([2]), Edges((1.0,), (0,))),
        "class_index": 1 - found.class_index,
        "alone": ~found.alone,
    }
    with pytest.raises(AssertionError):
        assert_as_alone(found._replace(**{fault: wrong[fault]}), each, scheme)


@given(channels(), schemes(granularity="channel"))
def test_groups_that_cannot_be_scaled_alone_have_the_edges_and_the_codebook_of_all(weight, scheme):
    whole = split(weight, scheme)
    of_all = alone(whole.size, scheme)
    assume(of_all is not None)
    (stored,) = encode([weight], scheme)
    group = stored.planes.group
    for number, row in enumerate(weight):
        size = split(row, scheme).size
        own = alone(size, scheme)
        book, edges = (of_all if own is None else own).codebook, (of_all if own is None else own).edges[0][0]
        assert same_bits([stored.codebook.alpha[number]], [book.alpha[0]])
        if stored.planes.class_index is not None and stored.planes.class_index.size == whole.size.size:
            assert stored.planes.class_index[group == number].tolist() == edges.index(size)[0].tolist()


@given(channels(), schemes(granularity="channel"), st.sampled_from([0, 1]))
def test_classes_that_were_not_kept_are_found_again(weight, scheme, axis):
    along = Axis.of(weight.shape, axis)
    part = split(weight, scheme, along)
    try:
        kept, found = (fit([part], scheme, groups=along.count, keep=keep) for keep in (True, False))
    except ModelError:
        return
    planes = [planes_of(part, fitted, 0, scheme) for fitted in (kept, found)]
    assert same_bits([planes[0].level], [planes[1].level])
    assert (planes[0].class_index is None) == (planes[1].class_index is None)
    if planes[0].class_index is not None:
        assert planes[0].class_index.tolist() == planes[1].class_index.tolist()
    index = np.zeros(part.size.size, int) if kept.class_index[0] is None else kept.class_index[0]
    assert kept.counts.tolist() == [np.bincount(index, minlength=scheme.classes).tolist()]


@pytest.mark.parametrize("sign", ["bit", "level"])
@pytest.mark.parametrize("classes", [3, 15, 255])
def test_steps_at_the_ends_of_float32_are_those_of_the_group_alone(sign, classes):
    """Some are too small for the quotient that finds a class, some for edges between them, and some too large."""
    weight = np.random.default_rng(0).normal(size=(8, 50)) * [[1e-36], [1], [1e-45], [1e-33], [30], [1e39], [1e30], [0]]
    scheme = Scheme(sign=sign, classes=classes, partition="uniform", cells=0, granularity="channel")
    each = [split(row, scheme).size for row in weight]
    found = fit_groups(np.concatenate(each), np.array([size.size for size in each]), scheme)
    assert found.alone[[0, 1, 3, 4, 6, 7]].all()
    assert not found.alone[[2, 5]].any() or classes == 3
    assert_as_alone(found, each, scheme)


def test_a_group_beyond_a_batch_is_fitted_too():
    rng = np.random.default_rng(0)
    each = [f32(np.abs(rng.normal(size=size))) for size in (10, 3 * 2**17 + 5, 0, 700)]
    scheme = Scheme(classes=3, partition="lloyd", cells=(0,), granularity="channel")
    found = fit_groups(np.concatenate(each), np.array([size.size for size in each]), scheme)
    assert_as_alone(found, each, scheme)


# ------------------------------------------------------------------------------------------------------ batches


SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=30)


@given(SIZES, st.integers(1, 9), st.integers(9, 60), st.sampled_from([15, 100]))
def test_batches_are_all_groups_and_large_ones_are_alone(counts, classes, at_once, alone):
    counts, ends = np.array(counts), np.cumsum([0, *counts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", at_once)
        patch.setattr(module, "_ALONE", alone)
        found = list(batches(counts, classes))
    assert [number for batch in found for number in range(counts.size)[batch.groups]] == list(range(counts.size))
    for groups, weights in found:
        number = groups.stop - groups.start
        assert (weights.start, weights.stop) == (ends[groups.start], ends[groups.stop])
        assert number == 1 or (weights.stop - weights.start <= at_once and number * classes <= at_once)
        assert number == 1 or counts[groups].max() <= alone


def test_edges_of_groups_are_those_of_one_another_in_arrays():
    scheme = Scheme(classes=5, partition="uniform", cells=0, sign="level")
    each = [edges_of([f32([-size, 0.3 * size])], scheme) for size in (1, 2, 7)]
    edges = GroupEdges.of(each)
    assert list(edges) == each
    assert list(edges[1:]) == each[1:]
    assert list(GroupEdges.joined([edges[:1], edges[1:]])) == each
    assert list(edges.replaced(np.array([0, 2]), each[1])) == [each[1]] * 3
    assert list(edges) == each


# -------------------------------------------------------------------------------------------------------- order


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 2**32), st.booleans())
def test_groups_keep_the_order_of_the_flat_index(size, groups, seed, ascending):
    group = np.random.default_rng(seed).integers(0, groups, size)
    group = np.sort(group) if ascending else group
    order, counts = order_of(group, groups)
    assert (order is None) == bool((np.diff(group) >= 0).all())
    positions_of = np.split(np.arange(size) if order is None else order, np.cumsum(counts)[:-1])
    for number, positions in enumerate(positions_of):
        assert positions.tolist() == np.flatnonzero(group == number).tolist()


@pytest.mark.parametrize("groups", [2**16, 2**16 + 3])
def test_groups_that_16_bits_cannot_count_are_ordered_too(groups):
    group = np.arange(groups)[::-1]
    order, counts = order_of(group, groups)
    assert order.tolist() == list(range(groups))[::-1]
    assert (counts == 1).all()
