"""Weights that lie on a grid."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.coding.grid import Grid, channel_reach, grid_of

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


@pytest.mark.parametrize("most", [31, 63, 127])
@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_large_multiples_are_rounded_and_their_grid_is_found(kind, most):
    """A step of float16 is off by 2^-12 of it at most, so that 127 steps are still told apart; of bfloat16, by 2^-9."""
    rng = np.random.default_rng(most)
    for step in rng.uniform(0.001, 0.1, 50):
        multiples = np.append(rng.integers(-most, most + 1, 300), [1, most])
        found = grid_of((multiples * step).astype(kind), 127)
        assert found is not None
        assert found.reach == most
        assert found.step == pytest.approx(step, rel=float(ml_dtypes.finfo(kind).eps) / 2)


# ---------------------------------------------------------------------------------------------- of output channels


def per_channel(reach, axis, kind=np.float32, shape=(6, 5, 3)):
    """Return weights in steps of their output channels, the largest of each as many steps; one channel is all zero."""
    rng = np.random.default_rng(reach)
    multiples = rng.integers(-reach, reach + 1, shape)
    channels = np.moveaxis(multiples, axis, 0)
    for channel in channels:
        channel[(0,) * channel.ndim] = rng.choice([-reach, reach])
    channels[1] = 0
    steps = rng.uniform(0.1, 3, shape[axis])
    sides = [-1 if number == axis % len(shape) else 1 for number in range(len(shape))]
    return (multiples * steps.reshape(sides)).astype(kind)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("reach", [1, 3, 7, 31, 127])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_reach_of_output_channels_is_found(kind, reach, axis):
    weight = per_channel(reach, axis, kind)
    assert channel_reach(weight, axis, 127) == reach
    assert grid_of(weight, 127) is None


def test_channels_that_reach_otherwise_have_steps_of_which_theirs_are_multiples():
    weight = np.array([[7, -2, 1], [0.5, 0.3, -0.4]], np.float32)
    assert channel_reach(weight, 0, 127) == 35
    assert channel_reach(weight, 0, 34) is None


def test_channels_along_another_axis_or_not_on_a_grid_are_not_found():
    weight = per_channel(7, 0)
    assert channel_reach(weight, 1, 127) is None
    off = weight.copy()
    off[3, 1, 1] += 1e-4 * np.abs(off[3]).max()
    assert channel_reach(off, 0, 127) is None
    assert channel_reach(weight, 0, 6) is None


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_channels_of_nothing_are_on_none(value):
    assert channel_reach(np.full((3, 4), value, np.float32), 0, 127) is None
