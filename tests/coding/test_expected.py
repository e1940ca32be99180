"""Means over reads against closed forms of the normal law."""

import numpy as np
import pytest
from scipy.special import ndtr

from onnx_analog.coding.expected import gain_factor, over_reads

MEAN, STD = np.array([-0.3, 0.0, 1.2]), np.array([0.2, 0.5, 1.0])


@pytest.mark.parametrize("nodes", [2, 33, 65])
def test_polynomials_up_to_twice_the_nodes_are_exact(nodes):
    moments = [over_reads(lambda read, power=power: read**power, MEAN, STD, nodes=nodes) for power in range(4)]
    expected = [MEAN**0, MEAN, MEAN**2 + STD**2, MEAN**3 + 3 * MEAN * STD**2]
    np.testing.assert_allclose(moments, expected, atol=1e-12)


def test_a_step_is_its_probability():
    """Each node has a share of its own, so a step is known to half of the largest: that in the middle, 0.0975."""
    found = over_reads(lambda read: (read > 0.1).astype(float), MEAN, STD)
    np.testing.assert_allclose(found, ndtr((MEAN - 0.1) / STD), atol=0.0975)


def test_without_noise_the_mean_is_the_function():
    assert over_reads(np.exp, MEAN, np.zeros(3)).tolist() == pytest.approx(np.exp(MEAN).tolist(), rel=1e-12)


def test_the_factor_restores_the_gain():
    size = np.array([1.0, -2.0, 3.0])
    assert gain_factor(size, 0.8 * size) == pytest.approx(1.25)
    assert gain_factor(size, 0.8 * size, digital=14.0) == pytest.approx(28 / (0.8 * 14 + 14))


@pytest.mark.parametrize("expected", [np.zeros(3), np.array([-1.0, 2.0, -3.0]), np.array([1e-320, 0.0, 0.0])])
def test_no_positive_factor_is_one(expected):
    assert gain_factor(np.array([1.0, -2.0, 3.0]), expected) == 1.0
