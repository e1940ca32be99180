"""Sums of the classes: those of each class alone, however many arrays, chunks and groups there are."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from onnx_analog.coding import partition
from onnx_analog.coding.sums import ClassSums, gain_of_points, means_of
from tests.coding.families import ordinary


@given(ordinary(), st.sampled_from([1, 2, 3, 8, 9, 256]), st.integers(0, 2**32), st.sampled_from([3, 50, 2**20]))
def test_sums_are_those_of_each_class_alone(weight, classes, seed, chunk):
    assume(np.isfinite(weight.astype(float)).all())
    index = np.random.default_rng(seed).integers(0, classes, weight.size).astype(np.uint8)
    sums = ClassSums.empty(classes, totals=classes > 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "CHUNK", chunk)
        sums.add(weight[:7], index[:7] if classes > 1 else None)
        sums.add(weight[7:], index[7:] if classes > 1 else None)
    for number in range(classes):
        values = weight[index == number].astype(np.float64)
        assert sums.count[number] == values.size
        assert (sums.low[number], sums.high[number]) == (values.min(initial=np.inf), values.max(initial=-np.inf))
        if sums.total is not None:
            assert sums.total[number] == pytest.approx(values.sum(), rel=1e-12, abs=1e-12 * np.abs(values).sum())


@pytest.mark.parametrize("classes", [1, 2, 3, 256])
def test_extremes_of_all_classes_are_no_less_than_those_of_each(classes):
    """Where they are not wanted by class: all else is the same."""
    rng = np.random.default_rng(0)
    size, index = rng.normal(size=100).astype(np.float32), rng.integers(0, classes, 100).astype(np.uint8)
    by_class, of_all = (ClassSums.empty(classes, totals=True, by_class=each) for each in (True, False))
    for sums in (by_class, of_all):
        sums.add(size, index if classes > 1 else None)
    assert np.array_equal(of_all.count, by_class.count)
    assert (of_all.low == size.min()).all()
    assert (of_all.high == size.max()).all()
    if classes > 1:
        assert np.array_equal(of_all.total, by_class.total)


def test_groups_are_rows():
    sums = ClassSums.empty(6, totals=True)
    sums.add(np.array([1.0, 2.0, 4.0]), np.array([0, 4, 4]))
    of_groups = sums.by_group(2)
    assert of_groups.count.tolist() == [[1, 0, 0], [0, 2, 0]]
    assert of_groups.high.tolist() == [[1, -np.inf, -np.inf], [-np.inf, 4, -np.inf]]
    assert means_of(of_groups).tolist() == [[1, 0, 0], [0, 3, 0]]


def test_means_of_sums_that_were_not_wanted_are_zero():
    sums = ClassSums.empty(2, totals=False)
    sums.add(np.array([1.0, 2.0]), np.array([0, 1], np.uint8))
    assert means_of(sums).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("sizes", "points", "gain"),
    [([1, 2, 3], [2, 2, 2], 14 / 12), ([1, -1], [0, 0], 1), ([1, 1], [-1, -1], 1), ([], [], 1)],
)
def test_points_that_are_scaled_keep_the_gain(sizes, points, gain):
    """Σw² / Σw·point; 1 where that is no positive number."""
    sizes, points = np.array(sizes, float), np.array(points, float)
    assert gain_of_points(sizes, sizes**2, points) == pytest.approx(gain)
