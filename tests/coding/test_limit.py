"""The rate-distortion function against closed forms, and as a bound of quantisers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from onnx_analog.coding import limit
from onnx_analog.errors import OptionError

QUANTILES = (np.arange(100_000) + 0.5) / 100_000
NORMAL = scipy.stats.norm.ppf(QUANTILES)


@pytest.mark.parametrize("db", [1, 3, 6, 12, 18, 30, 50, 80])  # the last are below what the histogram resolves
def test_a_gaussian_source_needs_half_a_bit_for_3_db(db):
    mse = 10 ** (-db / 10)
    # The histogram's bins are range/256 = 0.033 σ wide: its variance is less by up to width²/12 = 1e-4.
    assert limit.rate(NORMAL, mse) == pytest.approx(0.5 * math.log2(1 / mse), abs=0.01)


def test_a_fair_coin_needs_one_bit_and_less_where_errors_are_allowed():
    """±1 with squared error: a flip costs 4, and reproductions between cost less; by symmetry R(D) <= 1 - H(D/4)."""
    coin = np.array([-1.0, 1.0] * 500)
    assert limit.rate(coin, 1e-3) == pytest.approx(1, abs=0.01)
    for mse in (0.1, 0.4):
        p = mse / 4
        assert limit.rate(coin, mse) <= 1 + p * math.log2(p) + (1 - p) * math.log2(1 - p) + 1e-3


@pytest.mark.parametrize("q", [0.02, 0.15, 0.3])
def test_of_two_values_the_best_reproductions_lie_between(q):
    """Equal values ±1, told wrongly with the chance q, are best taken for ±(1 - 2q): D = 4q(1 - q), R = 1 - h(q)."""
    entropy = -q * np.log2(q) - (1 - q) * np.log2(1 - q)
    found = limit.rate(np.array([-1.0, 1.0] * 500), 4 * q * (1 - q))
    assert found == pytest.approx(1 - entropy, abs=0.003)


@pytest.mark.parametrize("source", ["normal", "laplace", "uniform"])
def test_no_quantiser_with_an_entropy_coder_is_below_the_limit(source):
    weights = {"normal": NORMAL, "laplace": scipy.stats.laplace.ppf(QUANTILES), "uniform": 2 * QUANTILES - 1}[source]
    for step in (0.5, 1.0, 2.0):
        step = step * weights.std()
        index = np.round(weights / step)
        _, count = np.unique(index, return_counts=True)
        share = count / count.sum()
        bits = -(share * np.log2(share)).sum()
        mse = np.square(weights - step * index).mean()
        if mse < weights.var():
            assert limit.rate(weights, mse) <= bits + 1e-3


def test_at_high_rate_uniform_steps_are_a_quarter_of_a_bit_above_the_limit():
    """½·log2(2πe/12) = 0.2546 bits (Gish and Pierce 1968)."""
    step = 0.25
    index = np.round(NORMAL / step)
    _, count = np.unique(index, return_counts=True)
    share = count / count.sum()
    bits = -(share * np.log2(share)).sum()
    above = bits - limit.rate(NORMAL, np.square(NORMAL - step * index).mean())
    assert above == pytest.approx(0.5 * math.log2(2 * math.pi * math.e / 12), abs=0.015)


def test_the_curve_falls_and_is_convex():
    values, shares = limit.histogram(scipy.stats.laplace.ppf(QUANTILES))
    points = [limit.point(values, shares, slope) for slope in (1, 2, 4, 8, 16, 32)]
    mse, bits = np.array([p.mse for p in points]), np.array([p.bits for p in points])
    assert (np.diff(mse) < 0).all()
    assert (np.diff(bits) > 0).all()
    slopes = np.diff(bits) / np.diff(mse)
    assert (np.diff(slopes) < 1e-3).all()
    # dR/dD = -λ/ln 2 at each point, between those of its neighbours.
    for (below, above), slope in zip([(1, 2), (2, 4), (4, 8), (8, 16), (16, 32)], -slopes * math.log(2), strict=True):
        assert below - 0.05 <= slope <= above + 0.05


def test_the_rate_does_not_depend_on_scale_and_offset():
    assert limit.rate(NORMAL * 1e-3 + 5, 1e-6 / 16) == pytest.approx(limit.rate(NORMAL, 1 / 16), abs=2e-3)


def test_cells_are_bits_over_capacity():
    bits = limit.rate(NORMAL, 1 / 16)
    tensor = limit.TensorLimit(key="w", weights=1000, mse=1 / 16, bits=bits, capacity_bits=1.6)
    assert tensor.cells == pytest.approx(1000 * 2 / 1.6, rel=0.01)


def test_constant_weights_and_errors_above_the_variance_take_no_bits():
    assert limit.rate(NORMAL, 1.5) == 0
    assert limit.rate(np.full(9, 0.3), 1e-9) == 0


def test_what_cannot_be_told_is_refused():
    with pytest.raises(OptionError, match="mse is 0"):
        limit.rate(NORMAL, 0)


def test_zeros_are_a_value_of_their_own_and_their_places_must_be_told():
    """At high rate R(D) = H(p) + p·½·log2(p/D) of a share p of normal weights among zeros: only those have an error."""
    share = 0.2
    pruned = np.where(np.arange(NORMAL.size) % 5 == 0, np.random.default_rng(0).permutation(NORMAL), 0.0)
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    for mse in (1e-5, 1e-7):
        expected = entropy + share / 2 * math.log2(share / mse)
        # A lower bound. Where the histogram ends, errors have a σ of 0.82 bins, 0.027. Of all weights, a share of
        # 0.2·0.4·6·0.027 = 1.3 % is within three of these of zero, and need not be told from zeros: at most
        # 1.3 %·log2(1/1.3 %) = 0.08 bits, and as many as rounding leaves.
        assert expected - 0.1 < limit.rate(pruned, mse) < expected + 0.002
    values, shares = limit.histogram(pruned)
    assert shares[values == 0.0] == pytest.approx([0.8])
    assert float(shares.sum()) == pytest.approx(1)


@pytest.mark.parametrize("source", ["normal", "pruned", "laplace"])
def test_the_rate_falls_as_the_error_grows_also_where_the_histogram_ends(source):
    sources = {"normal": NORMAL, "laplace": scipy.stats.laplace.ppf(QUANTILES)}
    weights = sources.get(source, np.where(np.arange(NORMAL.size) % 4 == 0, np.roll(NORMAL, 50_001), 0.0))
    errors = np.geomspace(1e-6, 0.99, 13) * weights.var()
    rates = [limit.rate(weights, error) for error in errors]
    assert (np.diff(rates) < 2e-3).all()  # what a rate is known to
    assert rates[0] > rates[-1] >= 0


def test_the_limit_of_a_model_adds_its_tensors():
    of_tensor = {"mse": 0.1, "bits": 2.0, "capacity_bits": 1.6}
    tensors = tuple(limit.TensorLimit(key=key, weights=weights, **of_tensor) for key, weights in (("a", 80), ("b", 20)))
    found = limit.Limit(tensors=tensors, honest_cells=250)
    assert (found.cells, found.cells_per_original_weight, found.factor) == (125.0, 1.25, 2.0)
    assert str(found) == "at least 1.250 cells per original weight at these errors; the model takes 2.00 times as many"
    assert limit.Limit(tensors=tensors, honest_cells=None).factor is None
    assert [each["cells"] for each in found.to_dict()["tensors"]] == [100.0, 25.0]
