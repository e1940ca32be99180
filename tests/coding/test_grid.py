"""Weights that lie on a grid."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.coding.grid import Grid, grid_of

TYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


@given(st.sets(st.integers(-127, 127), min_size=2, max_size=40), st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_whole_multiples_of_a_step_are_on_its_grid(multiples, step, seed):
    """But for multiples without neighbours near enough to tell the step: then a multiple of it is found, or none."""
    weight = np.random.default_rng(seed).choice(list(multiples), size=(20, 20)) * np.float32(step)
    found = grid_of(weight, 127)
    sizes = np.unique(np.abs(np.rint(weight / step)))
    gap = np.diff(np.union1d([0], sizes)).min(initial=128)
    if found is None:
        assert gap > 4
    else:
        exact = np.rint(weight / found.step)
        np.testing.assert_allclose(exact * found.step, weight, rtol=2**-22)
        assert found.reach == np.abs(exact).max()


@pytest.mark.parametrize("kind", TYPES)
def test_the_step_is_found_in_any_type(kind):
    step = 0.3
    weight = (step * np.array([[3, -7, 0], [1, 2, -4]])).astype(kind)
    found = grid_of(weight, 127)
    assert found is not None
    assert found.step == pytest.approx(step, rel=float(ml_dtypes.finfo(kind).eps))
    assert found.reach == 7


def test_a_step_of_which_no_weight_is_one_multiple_is_found():
    assert grid_of(np.array([0.5, -0.75, 1.25], np.float32), 127) == Grid(0.25, 5)


@pytest.mark.parametrize(
    "weight",
    [
        np.random.default_rng(0).normal(size=(30, 30)),
        np.array([1.0, np.pi, math.e]),
        np.zeros((4, 4)),
        np.array([1.0, np.inf]),
        np.array([1.0, np.nan]),
        np.arange(200) * 0.5,  # too many steps
        np.array([1.0, 2.0, 3.0 + 1e-5]),
    ],
    ids=["normal", "incommensurable", "zeros", "infinite", "no numbers", "too far", "off by a little"],
)
def test_other_weights_are_on_none(weight):
    assert grid_of(weight.astype(np.float32), 127) is None


def test_a_constant_is_on_a_grid_of_its_own():
    assert grid_of(np.full((3, 3), -0.7), 127) == Grid(0.7, 1)
