from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given

from onnx_analog.coding import partition
from onnx_analog.coding.partition import (
    Cut,
    Edges,
    cut_largest,
    cuts_largest,
    cuts_of_few,
    edges_of,
    magnitude,
    mark_largest,
)
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.sums import ClassSums, means_of
from onnx_analog.errors import ModelError
from tests.coding.families import EXPONENTS, LARGEST, LEAST, TINY, ordinary, schemes
from tests.models import f32, same_bits

# ------------------------------------------------------------------------------------------- the largest

SMALL_NUMBERS = st.integers(-4, 4)  # many ties
ANY_NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MANY = st.lists(st.lists(SMALL_NUMBERS | ANY_NUMBERS, max_size=12).map(f32), min_size=1, max_size=5)


def marked(arrays, count):
    """Return the marks of all `arrays`, one after another, and what is left of the cut."""
    cut, found = cut_largest(arrays, count), []
    for array in arrays:
        marks, cut = mark_largest(array, cut)
        assert (marks.dtype, marks.shape) == (np.bool_, array.shape)
        found.append(marks.ravel())
    return np.concatenate(found), cut


def sorted_marks(arrays, count):
    """Return the same by a plain stable sort, in which ties keep the order of the flat index."""
    size = np.concatenate([np.abs(array.astype(np.float32)).ravel() for array in arrays])
    marks = np.zeros(size.size, bool)
    marks[np.argsort(-size, kind="stable")[:count]] = True
    return marks


@given(MANY, st.integers(0, 60), st.sampled_from([1, 2, 3, 2**20]))
@example([f32([2, 2]), f32([-2]), f32([]), f32([2, 1])], 3, 2)
def test_the_largest_are_those_of_a_plain_sort(arrays, count, chunk):
    count = min(count, sum(array.size for array in arrays))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "CHUNK", chunk)
        found, left = marked(arrays, count)
    assert found.tolist() == sorted_marks(arrays, count).tolist()
    assert left.ties == 0


@pytest.mark.parametrize("dtype", EXPONENTS)
def test_the_largest_of_every_type_and_count(dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-20, 21, shape).astype(dtype) / 8 for shape in [(5, 4), (7,), (2, 3, 2)]]
    arrays = [array.astype(dtype) for array in arrays]
    for count in range(40):
        found, _ = marked(arrays, count)
        assert found.sum() == count
        assert found.tolist() == sorted_marks(arrays, count).tolist()


def test_the_largest_across_the_borders_of_real_chunks():
    array = np.random.default_rng(0).integers(-1000, 1001, 2 * partition.CHUNK + 3).astype(np.float32)
    count = array.size // 3
    found, _ = marked([array], count)
    assert np.array_equal(found, sorted_marks([array], count))


@pytest.mark.parametrize("dtype", EXPONENTS)
def test_the_largest_of_an_array_in_any_memory_order(dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 3).astype(dtype)
    for view in (array.T, array[:, ::2], array[::-1], np.asfortranarray(array), array.transpose(1, 2, 0)):
        for count in range(view.size + 1):
            found, left = marked([view], count)
            assert found.tolist() == sorted_marks([view], count).tolist()
            assert left.ties == 0


@pytest.mark.parametrize("dtype", EXPONENTS)
def test_the_largest_of_a_scalar(dtype):
    for count in (0, 1):
        found, left = marked([np.array(-2, dtype)], count)
        assert (found.tolist(), left.ties) == ([bool(count)], 0)


def test_a_cut_by_hand():
    assert cut_largest([f32([1, -3]), f32([[3, 3], [0, 2]])], 2) == Cut(3.0, 2)
    assert mark_largest(f32([1, -3]), Cut(3.0, 2))[1] == Cut(3.0, 1)
    assert cut_largest([f32([1, -3])], 0) == Cut(np.inf, 0)
    assert cut_largest([f32([1, 0, -3])], 3) == Cut(0.0, 1)


def test_neighbouring_floats_are_told_apart():
    numbers = f32([LEAST, 2 * LEAST, TINY, 1, LARGEST])
    ladder = np.concatenate([numbers, np.nextafter(numbers[:-1], f32(np.inf))])
    for count in range(ladder.size + 1):
        assert marked([ladder], count)[0].tolist() == sorted_marks([ladder], count).tolist()


def test_float64_that_is_zero_as_float32_is_above_zero():
    array = np.array([0.0, 1e-50, -1e-300, 5e-324, 1.0, -0.0])
    assert same_bits([magnitude(array)], [f32([0, LEAST, LEAST, LEAST, 1, 0])])
    found, _ = marked([array], 4)
    assert found.tolist() == [False, True, True, True, True, False]


def test_magnitudes_are_of_a_new_array():
    array = f32([1, -2])
    assert not np.shares_memory(magnitude(array), array)
    assert array.tolist() == [1, -2]


@given(MANY, st.lists(st.integers(0, 60), min_size=1, max_size=5))
def test_many_cuts_are_those_that_are_made_alone(arrays, counts):
    size = sum(array.size for array in arrays)
    counts = [min(count, size) for count in counts]
    assert cuts_largest(arrays, counts) == [cut_largest(arrays, count) for count in counts]
    assert cuts_of_few(arrays, counts) == cuts_largest(arrays, counts)


# ---------------------------------------------------------------------------------------------- the four partitions


def sizes_of(weight, scheme):
    stored = weight[weight != 0]
    return np.abs(stored) if scheme.sign == "bit" else stored


def indices(arrays, edges):
    """Return the classes of the sizes of all `arrays`, which are one group, one after another."""
    classes = []
    for array in arrays:
        index, edges = edges.index(array)
        classes.append(index)
    return np.concatenate(classes)


def keys_of(sizes, scheme):
    """Return what is compared with edges: float32 numbers, where a float64 number that is not 0 does not become 0."""
    signed = scheme.sign == "level" and scheme.partition != "share"
    return np.copysign(magnitude(sizes), sizes).astype(np.float32) if signed else magnitude(sizes)


@given(ordinary(), schemes(), st.integers(0, 400))
def test_each_class_holds_what_lies_between_its_edges(weight, scheme, middle):
    """Above its lower edge and not above its upper one: a binary search in the edges, but for ties of shares."""
    sizes = sizes_of(weight, scheme)
    edges = edges_of([sizes], scheme)
    index = indices([sizes[:middle], sizes[middle:]], edges)
    keys, values = keys_of(sizes, scheme), np.array(edges.values)
    assert (values[:-1] <= values[1:]).all()  # some of them infinite
    assert index.max(initial=0) < scheme.classes
    least, most = np.searchsorted(values, keys, side="left"), np.searchsorted(values, keys, side="right")
    assert (least <= index).all()
    assert (index <= most).all()
    if scheme.partition != "share":
        assert index.tolist() == least.tolist()


@given(
    st.lists(st.lists(st.integers(-3, 3) | st.floats(-9, 9, width=32), max_size=9).map(f32), min_size=1, max_size=4),
    schemes(partition="share"),
)
def test_shares_are_exact_counts_with_ties_by_flat_index_over_all_tensors(arrays, scheme):
    sizes = [sizes_of(array, scheme) for array in arrays]
    edges = edges_of(sizes, scheme)
    if scheme.classes == 1:
        assert edges.values == ()
        return
    every = np.concatenate(sizes)
    above = np.cumsum(scheme.shares[::-1])[::-1]
    expected = sum((sorted_marks([every], round(share * every.size)) for share in above), np.zeros(every.size, int))
    assert indices(sizes, edges).tolist() == expected.tolist()


def test_shares_by_hand():
    scheme = Scheme(classes=3, shares=(0.25, 0.25), cells=1)
    edges = edges_of([f32([1, 2, 2, 2, 2, 1, 9, 3])], scheme)
    assert edges == Edges((2.0, 3.0), (2, 1))
    assert indices([f32([1, 2, 2, 2, 2, 1, 9, 3])], edges).tolist() == [0, 1, 1, 0, 0, 0, 2, 2]


def test_a_weight_at_a_bound_is_below_it():
    above = np.nextafter(f32(1), f32(2))
    edges = edges_of([], Scheme(classes=3, partition="bounds", bounds=(1.0, 4.0), cells=1))
    assert indices([f32([1, above, 4, 5])], edges).tolist() == [0, 1, 1, 2]
    signed = Scheme(classes=3, partition="bounds", bounds=(-0.1, 0.1), cells=1, sign="level")
    tenth = f32(0.1)  # more than a tenth, and a bound is compared as a float32 number too
    assert indices([f32([-tenth, -0.09, tenth, 0.2])], edges_of([], signed)).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("classes", [3, 15, 255, 8, 256])
@pytest.mark.parametrize("sign", ["bit", "level"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_classes_are_those_of_a_search(sign, classes, dtype):
    rng = np.random.default_rng(0)
    for step in (None, 0.01, 1e-30, 1e-38, 3e37 / classes, 1.0):
        scheme = Scheme(sign=sign, classes=classes, partition="uniform", cells=0, step=step)
        weight = (rng.normal(size=3000) * (step or 1) * rng.choice([1, classes / 4, classes])).astype(dtype)
        edges = edges_of([sizes_of(weight, scheme)], scheme)
        near = np.concatenate([np.array(edges.values, dtype), np.nextafter(np.array(edges.values, dtype), dtype(9e37))])
        huge = np.array([3e38, -3e38, LEAST, -LEAST], dtype)
        sizes = sizes_of(np.concatenate([weight, near, huge]), scheme)
        searched = np.searchsorted(np.array(edges.values), keys_of(sizes, scheme), side="left")
        assert edges.index(sizes)[0].tolist() == searched.tolist()


@pytest.mark.parametrize("sign", ["bit", "level"])
def test_uniform_points_are_multiples_of_the_step(sign):
    weight = f32(np.random.default_rng(0).normal(size=500))
    scheme = Scheme(sign=sign, classes=15, partition="uniform", cells=0)
    edges = edges_of([sizes_of(weight, scheme)], scheme)
    step = np.abs(weight).max() / (7 if sign == "level" else 14)
    np.testing.assert_allclose(edges.points, step * np.arange(*((-7, 8) if sign == "level" else (0, 15))), rtol=1e-15)
    np.testing.assert_allclose(edges.values, np.convolve(edges.points, [0.5, 0.5], "valid"), rtol=2.0**-23)


@pytest.mark.parametrize("sign", ["bit", "level"])
def test_a_relative_step_is_in_units_of_the_root_mean_square(sign):
    arrays = [f32(np.random.default_rng(seed).normal(0.1, 0.02, size=300 + seed)) for seed in range(3)]
    scheme = Scheme(sign=sign, classes=15, partition="uniform", relative_step=0.3, cells=1)
    step = 0.3 * np.sqrt(np.mean(np.square(np.concatenate(arrays), dtype=np.float64)))
    given = scheme.changed(step=step)
    assert given.relative_step is None
    sizes = [sizes_of(array, scheme) for array in arrays]
    np.testing.assert_allclose(edges_of(sizes, scheme).points, edges_of(sizes, given).points, rtol=1e-12)


# ------------------------------------------------------------------------------------------ rate and distortion


def cost(sizes, edges, bit_worth):
    """Return the mean of (w - point)² + bit_worth · bits, in float64."""
    index = edges.index(sizes)[0]
    share = np.bincount(index, minlength=len(edges.points)) / index.size
    bits = -np.sum(share[share > 0] * np.log2(share[share > 0]))
    return np.mean((sizes - np.array(edges.points)[index]) ** 2) + bit_worth * bits, bits


@pytest.mark.parametrize("sign", ["bit", "level"])
@pytest.mark.parametrize("classes", [2, 15, 255])
@pytest.mark.parametrize("worth", [0.05, 0.2, 1.0, 30.0])
def test_with_a_rate_weight_no_weight_would_be_cheaper_in_another_class(sign, classes, worth):
    """Classes are those of least cost under the shares that they have; a bin of the histogram is in one class.

    Bins are 2^-11 wide relative to their numbers, so an edge is off by a bin at most. Where a weight of that bin would
    be cheaper elsewhere, it is by the slope of the difference of two costs, 2·|point - point'|, times the bin.
    """
    weight = f32(np.random.default_rng(classes).laplace(size=30_000))
    scheme = Scheme(sign=sign, classes=classes, partition="uniform", relative_step=0.5, rate_weight=worth, cells=0)
    sizes = sizes_of(weight, scheme)
    edges = edges_of([sizes], scheme)
    points, index = np.array(edges.points), edges.index(sizes)[0]
    step = points[1] - points[0]
    with np.errstate(divide="ignore"):
        bits = -np.log2(np.bincount(index, minlength=classes) / index.size)
    costs = (sizes[:, None].astype(np.float64) - points) ** 2 + worth * step**2 * bits
    slack = 2 * np.abs(points - points[index][:, None]) * (np.abs(sizes) * 2.0**-11)[:, None] + 1e-9
    assert (costs[np.arange(sizes.size), index][:, None] <= costs + slack).all()


@pytest.mark.parametrize("sign", ["bit", "level"])
def test_a_rate_weight_saves_bits_and_the_cost_falls(sign):
    """Each half of the iteration lowers the cost (Chou, Lookabaugh and Gray 1989): it ends no higher than it began."""
    weight = f32(np.random.default_rng(3).normal(size=50_000))
    plain = Scheme(sign=sign, classes=63, partition="uniform", relative_step=0.7, cells=0)
    sizes = sizes_of(weight, plain)
    before = edges_of([sizes], plain)
    step, last = before.points[1] - before.points[0], np.inf
    for worth in (0.02, 0.1, 0.3):
        chosen = edges_of([sizes], plain.changed(rate_weight=worth))
        (with_weight, bits), (without, _) = (cost(sizes, edges, worth * step**2) for edges in (chosen, before))
        assert with_weight <= without
        assert bits < last
        last = bits


def test_a_rate_weight_of_nothing_moves_no_edge():
    weight = f32(np.random.default_rng(4).normal(size=2000))
    points = np.arange(-4.0, 5)
    centre, count = np.sort(weight).astype(np.float64), np.ones(weight.size)
    edges = partition._rate_distortion_edges(centre, count, points, 0.0)
    index = np.searchsorted(edges, weight, side="left")
    assert index.tolist() == np.abs(weight[:, None] - points).argmin(axis=1).tolist()


def test_steps_that_float32_cannot_tell_apart_are_refused():
    scheme = Scheme(classes=16, partition="uniform", cells=0, step=1e-46)
    with pytest.raises(ModelError, match=r"weights up to 1 cannot be divided into 16 steps of 1e-46"):
        edges_of([f32([1])], scheme)


# ------------------------------------------------------------------------------------------------------ Lloyd

LAWS = {"normal": scipy.stats.norm, "Laplace": scipy.stats.laplace}


def distortion(sizes, edges, points):
    return float(np.mean((sizes - np.array(points)[edges.index(sizes)[0]]) ** 2))


def means(sizes, edges):
    sums = ClassSums.empty(len(edges.values) + 1, totals=True)
    sums.add(sizes, edges.index(sizes)[0])
    return means_of(sums) if edges.points is None else np.array(edges.points)


@pytest.mark.parametrize("classes", [2, 3, 5, 16, 256])
@pytest.mark.parametrize("sign", ["bit", "level"])
@pytest.mark.parametrize("law", LAWS)
def test_lloyds_conditions_hold(law, sign, classes):
    """Edges lie midway between the means of neighbouring classes.

    Bins are 2^-11 wide relative to their numbers. A bin goes to one class as a whole, so an edge may be off by a bin
    and a class's mean by its share of the weights of two bins.
    """
    weight = f32(LAWS[law].rvs(size=100_000, random_state=np.random.default_rng(0)))
    scheme = Scheme(sign=sign, classes=classes, partition="lloyd", cells=0)
    sizes = sizes_of(weight, scheme)
    edges = edges_of([sizes], scheme)
    centre = means(sizes, edges)
    count = np.bincount(edges.index(sizes)[0], minlength=classes)
    assert (count > 0).all()
    middle, reach = (centre[:-1] + centre[1:]) / 2, np.abs(edges.values)
    moved = np.array([np.count_nonzero(np.abs(sizes - edge) <= abs(edge) * 2.0**-11) for edge in edges.values])
    width = np.abs(np.diff(centre))
    share = np.maximum(moved / count[:-1], moved / count[1:])
    beside = np.maximum(np.append(share[1:], 0), np.insert(share[:-1], 0, 0))
    assert (np.abs(edges.values - middle) <= reach * 2.0**-11 + width * (share + beside)).all()


@pytest.mark.parametrize("classes", [2, 3, 4, 16, 64])
@pytest.mark.parametrize("sign", ["bit", "level"])
@pytest.mark.parametrize("law", LAWS)
def test_lloyds_distortion_is_no_worse_than_that_of_equal_steps(law, sign, classes):
    weight = f32(LAWS[law].rvs(size=20_000, random_state=np.random.default_rng(1)))
    lloyd = Scheme(sign=sign, classes=classes, partition="lloyd", cells=0)
    sizes = sizes_of(weight, lloyd)
    best = edges_of([sizes], lloyd)
    found = distortion(sizes, best, means(sizes, best))
    steps = [None, *(np.abs(weight).max() / classes * np.array([0.25, 0.5, 1, 1.5]))]
    for step in steps:
        uniform = edges_of([sizes], lloyd.changed(partition="uniform", step=step))
        assert found <= distortion(sizes, uniform, uniform.points)


def test_lloyds_distortion_of_a_normal_law_is_that_of_the_literature():
    """Max 1960, table I: four levels of a normal law leave 0.1175 of its variance, sixteen 0.009497."""
    weight = f32(np.random.default_rng(2).normal(size=400_000))
    for classes, expected in {2: 0.3634, 4: 0.1175, 16: 0.009497}.items():
        scheme = Scheme(sign="level", classes=classes, partition="lloyd", cells=0)
        edges = edges_of([weight], scheme)
        squares = (weight - means(weight, edges)[edges.index(weight)[0]]) ** 2
        error = 5 * squares.std() / np.sqrt(squares.size)
        assert abs(squares.mean() - expected) < error


@pytest.mark.parametrize("sign", ["bit", "level"])
def test_lloyd_with_fewer_numbers_than_classes_gives_each_its_own(sign):
    weight = f32([1, 1, -2, 3, 3, 3])
    scheme = Scheme(sign=sign, classes=5, partition="lloyd", cells=0)
    sizes = sizes_of(weight, scheme)
    edges = edges_of([sizes], scheme)
    assert distortion(sizes, edges, means(sizes, edges)) == 0
    assert edges_of([f32([])], scheme).values == (np.inf,) * 4


def test_lloyd_sees_the_tensors_of_a_group_as_one():
    rng = np.random.default_rng(0)
    arrays = [f32(rng.normal(size=size)) for size in (300, 1, 0, 50)]
    scheme = Scheme(sign="level", classes=5, partition="lloyd", cells=0)
    assert edges_of(arrays, scheme) == edges_of([np.concatenate(arrays)], scheme)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=9))
def test_a_float32_number_lies_on_the_same_side_of_an_edge_and_of_its_rounding(edges):
    """Of no edge, rounded down to a float32 number, a size can come to lie on the other side."""
    exact = np.array(edges)
    lower = partition._below(exact)
    assert (lower.astype(np.float32) == lower).all()
    assert (lower <= exact).all()
    assert (np.nextafter(f32(lower), f32(np.inf)).astype(np.float64) > exact).all()
