"""The checks of random outputs: what they accept, and wrong answers that each must reject.

Samples are of fixed seeds. A right answer is rejected with a chance of 1e-4 for each check and seed; what is wrong is
so far off that the chance to accept it is smaller than that, as each test derives.
"""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from onnx_analog.testing import FALSE_ALARM, assert_law, assert_mean, assert_std, assert_uncorrelated

N = 20_000
REACH = float(scipy.stats.norm.isf(FALSE_ALARM / 2))  # standard errors that are let through: 3.9
FAR = REACH + float(scipy.stats.norm.isf(FALSE_ALARM))  # that are rejected but for the same chance: 7.6


def normal(seed: int, size: int = N) -> Any:
    return np.random.default_rng(seed).standard_normal(size)


def exactly(mean: float, std: float, size: int = 1000) -> Any:
    """Return numbers of exactly this mean and standard deviation (ddof = 1), up to rounding."""
    numbers = normal(0, size)
    return mean + std * (numbers - numbers.mean()) / numbers.std(ddof=1)


# --------------------------------------------------------------------------------------------------- law


@pytest.mark.parametrize("law", [scipy.stats.norm(2, 0.3), scipy.stats.uniform(-1, 3), scipy.stats.t(4)])
def test_samples_of_a_law_are_accepted(law):
    assert_law(law.rvs(N, random_state=np.random.default_rng(0)), law.cdf)


@pytest.mark.parametrize(
    "wrong",
    [
        scipy.stats.norm(0, 1.1),
        scipy.stats.norm(0, 0.9),
        scipy.stats.norm(0.1, 1),
        scipy.stats.norm(-0.1, 1),
        scipy.stats.t(4),
        scipy.stats.t(4, scale=math.sqrt(0.5)),
        scipy.stats.logistic(scale=math.sqrt(3) / math.pi),
        scipy.stats.uniform(-math.sqrt(3), 2 * math.sqrt(3)),
    ],
    ids=["wide", "narrow", "right", "left", "heavy", "heavy of variance 1", "logistic of variance 1", "uniform"],
)
def test_another_law_is_rejected(wrong):
    size = 100_000
    # Where the two cdfs differ most, as many samples lie below as are binomial: the distance that is found falls short
    # of the true one by 0.5/√size times the normal quantile at most, but for a chance of 1e-4.
    grid = np.linspace(-5, 5, 100_001)
    distance = np.abs(wrong.cdf(grid) - scipy.stats.norm.cdf(grid)).max()
    short = (FAR - REACH) * 0.5 / math.sqrt(size)
    assert distance > float(scipy.stats.kstwo.isf(FALSE_ALARM, size)) + short
    with pytest.raises(AssertionError, match=r"KS distance .*, p = "):
        assert_law(normal(0, size), wrong.cdf)


def test_a_law_is_judged_by_its_number_of_samples():
    assert_law(normal(0, 100), scipy.stats.norm(0.1, 1).cdf)  # 0.04 away, of 0.22 that chance reaches
    with pytest.raises(AssertionError):
        assert_law(normal(0, 100), scipy.stats.norm(1, 1).cdf)


def test_a_law_is_rejected_from_the_distance_on_that_chance_does_not_reach():
    size = 1000
    even = (np.arange(size) + 0.5) / size  # is 0.5/size from uniform, and that and the shift from uniform shifted
    threshold = float(scipy.stats.kstwo.isf(FALSE_ALARM, size))
    for factor, accepted in [(0.999, True), (1.001, False)]:
        law = scipy.stats.uniform(factor * threshold - 0.5 / size, 1)
        if accepted:
            assert_law(even, law.cdf)
        else:
            with pytest.raises(AssertionError):
                assert_law(even, law.cdf)


# -------------------------------------------------------------------------------------------------- mean


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_accepted(seed):
    assert_mean(0.5 + 2 * normal(seed), 0.5)
    assert_mean(np.random.default_rng(seed).standard_exponential(N), 1.0)


@pytest.mark.parametrize("shift", [FAR / math.sqrt(N), -FAR / math.sqrt(N)])
def test_a_shifted_mean_is_rejected(shift):
    with pytest.raises(AssertionError, match=r"mean .* is not 0\.5"):
        assert_mean(0.5 + normal(0) + shift, 0.5)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("systematic", [0.0, 0.25])
def test_the_mean_may_be_off_by_its_standard_error_and_what_is_systematic(side, systematic):
    reach = REACH * 2 / math.sqrt(1000) + systematic
    assert_mean(exactly(0, 2) + side * 0.999 * reach, 0, systematic=systematic)
    with pytest.raises(AssertionError):
        assert_mean(exactly(0, 2) + side * 1.001 * reach, 0, systematic=systematic)


def test_a_mean_of_no_number_is_rejected():
    with pytest.raises(AssertionError):
        assert_mean(np.array([1.0, np.nan, 2.0]), 1.5)


# ---------------------------------------------------------------------------------------- standard deviation


@pytest.mark.parametrize("seed", range(3))
def test_the_standard_deviation_is_accepted(seed):
    assert_std(5 + 0.3 * normal(seed), 0.3)


@pytest.mark.parametrize("factor", [1 + FAR / math.sqrt(2 * N), 1 - FAR / math.sqrt(2 * N), 2.0, 0.5])
def test_another_standard_deviation_is_rejected(factor):
    with pytest.raises(AssertionError, match=r"standard deviation .* is not 0\.3"):
        assert_std(0.3 * factor * normal(0), 0.3)


def test_the_standard_deviation_may_be_off_by_its_chi_square():
    share = scipy.stats.chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], 999) / 999
    for end, outwards in zip(np.sqrt(share), (-1e-3, 1e-3), strict=True):
        assert_std(exactly(3, float(end) * (1 - outwards)), 1)
        with pytest.raises(AssertionError):
            assert_std(exactly(3, float(end) * (1 + outwards)), 1)


def test_a_standard_deviation_of_no_number_is_rejected():
    with pytest.raises(AssertionError):
        assert_std(np.array([1.0, np.nan, 2.0]), 0.5)


def test_constant_samples_are_rejected():
    with pytest.raises(AssertionError):
        assert_std(np.ones(10), 1.0)


# -------------------------------------------------------------------------------------------- correlation


@pytest.mark.parametrize("seed", range(3))
def test_independent_samples_are_accepted(seed):
    assert_uncorrelated(normal(seed), normal(seed + 100) ** 3)


@pytest.mark.parametrize("share", [math.tanh(FAR / math.sqrt(N)), -math.tanh(FAR / math.sqrt(N)), 1.0, -1.0])
def test_correlated_samples_are_rejected(share):
    one, other = normal(0), normal(1)
    with pytest.raises(AssertionError, match="correlation"):
        assert_uncorrelated(one, share * one + math.sqrt(1 - share**2) * other)


@pytest.mark.parametrize("side", [-1, 1])
def test_samples_may_be_correlated_by_fishers_z(side):
    one, other = exactly(0, 1), normal(1, 1000)
    other = other - other.mean()
    other -= (other @ one) / (one @ one) * one  # exactly uncorrelated
    other /= other.std(ddof=1)
    for factor, accepted in [(0.999, True), (1.001, False)]:
        share = side * math.tanh(factor * REACH / math.sqrt(1000 - 3))
        mixed = share * one + math.sqrt(1 - share**2) * other
        if accepted:
            assert_uncorrelated(one, mixed)
        else:
            with pytest.raises(AssertionError):
                assert_uncorrelated(one, mixed)


# ------------------------------------------------------------------------------------------------- shapes


def test_samples_may_have_any_shape():
    numbers = normal(0).reshape(100, -1)
    assert_law(numbers, scipy.stats.norm.cdf)
    assert_mean(numbers, 0)
    assert_std(numbers, 1)
    assert_uncorrelated(numbers, normal(1).reshape(-1, 100))
    with pytest.raises(AssertionError):
        assert_uncorrelated(numbers, numbers.reshape(-1, 100))


def test_all_checks_allow_the_same_chance_of_a_false_alarm():
    assert FALSE_ALARM == 1e-4
