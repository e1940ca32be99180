import dataclasses

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise, resolve
from onnx_analog.errors import ChannelError
from onnx_analog.testing import assert_law, assert_mean, assert_std, assert_uncorrelated
from tests.models import U, holding, numbers

SHAPE = (200, 100)


def test_the_defaults_are_the_span_of_the_paper():
    found = GaussianNoise()
    assert (found.sigma, found.span) == (0.1, (-0.65, 0.75))
    assert resolve("gaussian") == found
    assert "Table 7" in found.source.figure


@given(st.floats(1e-30, 1e18), st.floats(-100, 100), st.floats(1e-3, 100))
def test_the_noise_is_the_same_at_every_level(sigma, low, width):
    found = GaussianNoise(sigma=sigma, low=low, high=low + width)
    level = np.linspace(low, low + width, 6).clip(low, low + width).reshape(2, 3)
    assert found.std(level).tolist() == np.full((2, 3), sigma).tolist()
    assert found.span == (low, low + width)


@pytest.mark.parametrize("sigma", [5e-324, 1e-300, 1e18])
def test_any_finite_noise_is_taken(sigma):
    assert GaussianNoise(sigma=sigma).std(np.zeros(1)).tolist() == [sigma]


@pytest.mark.parametrize(
    "sigma", [0.0, -0.1, 1.1e18, float("nan"), float("inf"), -float("inf"), True, "0.1", None, 10**400, 1j]
)
def test_noise_that_is_none_is_refused(sigma):
    with pytest.raises(ChannelError, match=r"gaussian(: sigma is| has sigma) .*; it must be (a finite|above 0)"):
        GaussianNoise(sigma=sigma)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.5, 0.5), (0.5, 0.4), (np.nan, 1.0), (0.0, np.nan), (-np.inf, 0.0), (0.0, np.inf), (-1.7e308, 1.7e308)],
)
def test_spans_that_are_none_are_refused(low, high):
    with pytest.raises(
        ChannelError,
        match=r"gaussian( has output range .* to .*; low must be below high|"
        r": (low|high) is .*; it must be (a finite|at most))",
    ):
        GaussianNoise(low=low, high=high)


def test_the_narrowest_span_is_taken():
    high = float(np.nextafter(0.5, 1))
    assert GaussianNoise(low=0.5, high=high).span == (0.5, high)


def test_options_are_the_three():
    assert resolve("gaussian:sigma=0.25,low=-1,high=2") == GaussianNoise(sigma=0.25, low=-1.0, high=2.0)
    assert [field.name for field in dataclasses.fields(GaussianNoise) if field.init] == ["sigma", "low", "high"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        GaussianNoise().sigma = 1.0


def test_it_prints_its_noise_and_its_span():
    assert str(GaussianNoise(sigma=0.25, low=-1, high=2)) == "gaussian (σ 0.25, output range -1 to 2)"


# ----------------------------------------------------------------- Table 7 of the paper, the row without protection


def noise_on_weights(
    sigma: float, cells: int, *, low_off: float = 0.0, trial: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights, and what reading them added, where the span is that of the weights themselves."""
    weights = np.random.default_rng(3).normal(scale=0.3, size=SHAPE).astype(np.float32)
    channel = GaussianNoise(sigma=sigma, low=float(weights.min()) - low_off, high=float(weights.max()))
    protected = oa.protect(holding(w=weights), strategy="raw", cells_small=cells, channel=channel)
    read = oa.readback(protected.model, seed=1, trial=trial, decoded=True)
    return weights, numbers(read.model, "w").astype(np.float64) - weights


def test_numbers_beyond_1e150_are_refused():
    with pytest.raises(ChannelError, match=r"gaussian: sigma is 2e\+150; it must be at most 1e\+150 in magnitude"):
        GaussianNoise(sigma=2e150)


@pytest.mark.parametrize("granularity", ["tensor", "model"])
def test_with_the_span_of_the_weights_levels_are_the_weights(granularity):
    weights = np.random.default_rng(3).normal(scale=0.3, size=SHAPE).astype(np.float32)
    channel = GaussianNoise(low=float(weights.min()), high=float(weights.max()))
    found = oa.protect(holding(w=weights), strategy="raw", granularity=granularity, channel=channel).model
    (one,) = oa.account(found).to_dict()["tensors"][0]["classes"]
    assert (one["alpha"], one["beta"]) == (1, 0)
    assert (one["low"], one["high"]) == channel.span
    assert numbers(found, "w.level").tolist() == weights.ravel().tolist()


@pytest.mark.parametrize(("sigma", "cells"), [(0.01, 1), (0.5, 1), (0.5, 4), (0.1, 100)])
def test_the_noise_is_then_added_to_the_weights_themselves(sigma, cells):
    weights, noise = noise_on_weights(sigma, cells)
    std = sigma / np.sqrt(cells)
    # A level and a weight of at most 2 and their noise are rounded three times.
    assert_mean(noise, 0.0, systematic=3 * U * (2 + 6 * sigma))
    assert_std(noise, std)
    assert_law(noise, scipy.stats.norm(scale=std).cdf)
    assert_uncorrelated(noise, weights)


@pytest.mark.parametrize("wrong", [0.9, 1.1])
def test_noise_of_another_size_on_the_weights_is_rejected(wrong):
    _, noise = noise_on_weights(0.1, 1)
    with pytest.raises(AssertionError):
        assert_std(noise, wrong * 0.1)
    with pytest.raises(AssertionError):
        assert_law(noise, scipy.stats.norm(scale=wrong * 0.1).cdf)


def test_a_wider_span_makes_the_noise_on_the_weights_smaller():
    weights, noise = noise_on_weights(0.1, 1, low_off=1.0)
    width = float(np.ptp(weights))
    assert_std(noise, 0.1 * width / (width + 1))


def test_each_trial_adds_other_noise():
    (_, one), (_, other) = (noise_on_weights(0.1, 1, trial=trial) for trial in (0, 1))
    assert_uncorrelated(one, other)
    with pytest.raises(AssertionError, match="correlation"):
        assert_uncorrelated(one, noise_on_weights(0.1, 1)[1])
