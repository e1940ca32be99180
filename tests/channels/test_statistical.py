from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from numpy.polynomial import Polynomial

from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.rram import RramMilo, RramWan
from onnx_analog.channels.statistical import FITS, StatisticalPcm
from onnx_analog.errors import ChannelError, LevelError
from onnx_analog.testing import assert_law, assert_mean, assert_std

N = 20_000


def read(level, cells=1, seed=1, **options):
    held = np.full(N, level, np.float32)
    return StatisticalPcm(**options).read(held, cells=cells, rng=np.random.default_rng(seed)).astype(np.float64)


def read_std(g, fit="nandakumar2019", time_s=20.0):
    """Q·√ln((t + t_read)/(2·t_read)), by hand for the Nandakumar fit: t_read = 250 ns."""
    q = min(0.2, 0.0088 / max(1e-3, g**0.65))
    return g * q * np.sqrt(np.log((time_s + 250e-9) / 500e-9))


@pytest.mark.parametrize("level", [0.25, 0.5, 1.0])
def test_programming_and_read_noise_add_up_at_first(level):
    programming = (0.26348 + 1.9650 * level - 1.1731 * level**2) / 25
    expected = np.hypot(programming, read_std(level))
    found = read(level)
    assert_mean(found, level)
    # The read noise depends on the programmed conductance, so the product is not quite normal: to first order the
    # variance is the sum, and the next term is the product of the two relative variances.
    assert found.std() == pytest.approx(expected, rel=0.02 + (programming / level) ** 2)


def test_cells_programmed_to_nothing_mostly_read_nothing():
    sigma = 0.26348 / 25

    def reads_nothing(g):  # and so does a cell that was programmed to a little, if its read noise is below -1
        return scipy.stats.norm.pdf(g, scale=sigma) * scipy.stats.norm.cdf(-g / read_std(g))

    expected = 0.5 + scipy.integrate.quad(reads_nothing, 1e-9, 10 * sigma)[0]
    assert_mean((read(0.0) == 0).astype(float), expected)


def test_cells_drift_by_a_power_of_time():
    early, late = (read(1.0, read_after_s=t, cells=1) for t in (1e-9, 1980.0))
    # At u = 1: ν = |N(0.049, 0.008²)|; t/t_0 = 100 at 1980 s after programming. Mean of 100^-ν for normal ν:
    expected = np.exp(-0.049 * np.log(100) + (0.008 * np.log(100)) ** 2 / 2)
    ratio_error = np.hypot(early.std() / early.mean(), late.std() / late.mean()) / np.sqrt(N)
    assert late.mean() / early.mean() == pytest.approx(expected, rel=4 * ratio_error)


def test_small_conductances_drift_more():
    kept = [read(u, read_after_s=86_400.0).mean() / read(u).mean() for u in (0.1, 1.0)]
    assert kept[0] < kept[1] < 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("time_s", [3600.0, 86_400.0])
def test_compensation_restores_what_reference_cells_have_lost(fit, time_s):
    levels = np.linspace(0.01, 1, 100, dtype=np.float32).repeat(2000)
    rng = np.random.default_rng(0)
    found = FITS[fit]
    nu = np.abs(found.drift_mean(levels) + found.drift_std(levels) * rng.standard_normal(levels.size))
    left = levels * (1 + time_s / found.t_0_s) ** -nu
    channel = StatisticalPcm(fit=fit, read_after_s=time_s)
    error = left.std() / np.sqrt(left.size) / levels.mean()
    assert channel.sunk == pytest.approx(left.mean() / levels.mean(), abs=5 * error)
    assert StatisticalPcm(fit=fit).sunk == 1


def test_compensation_is_one_factor():
    drifted, restored = (read(0.5, read_after_s=86_400.0, compensated=flag) for flag in (False, True))
    sunk = StatisticalPcm(read_after_s=86_400.0).sunk
    np.testing.assert_allclose(restored * sunk, drifted, rtol=1e-6)
    assert drifted.mean() < 0.4
    assert restored.mean() == pytest.approx(0.5, rel=0.03)


def test_a_converter_does_not_undo_compensation():
    channel = StatisticalPcm(read_after_s=86_400.0, compensated=True)
    level = np.full(N, 0.5, np.float32)
    plain = channel.read(level, cells=1, rng=np.random.default_rng(1))
    coded = LimitedPrecision(inner=channel, read_bits=12).read(level, cells=1, rng=np.random.default_rng(1))
    assert_mean(coded - plain, 0, systematic=1 / 2**12)


def test_a_pair_is_the_difference_of_two_devices():
    positive, negative = (read(level, differential=True) for level in (0.6, -0.6))
    assert scipy.stats.ks_2samp(positive, -negative).pvalue > 1e-4
    # The device of the other sign is programmed to nothing: |N(0, s²)| with half its mass at 0 has mean s/√(2π).
    idle = 0.26348 / 25 / np.sqrt(2 * np.pi)
    assert_mean(positive, 0.6 - idle, systematic=1e-4)


def test_pairs_take_two_devices():
    pairs = {
        (fit, differential): StatisticalPcm(fit=fit, differential=differential).devices_per_cell
        for fit in FITS
        for differential in (False, True)
    }
    assert pairs == {
        ("nandakumar2019", False): 1, ("nandakumar2019", True): 2, ("hermes", False): 1, ("hermes", True): 2,
        ("hermes-2", False): 2, ("hermes-2", True): 4,
    }  # fmt: skip


@pytest.mark.parametrize("fit", FITS)
def test_averages_shrink_with_the_root_of_the_cells(fit):
    one, many = (read(0.5, cells=cells, fit=fit) for cells in (1, 16))
    # σ of a sample standard deviation is σ·√((κ + 2)/(4n)), κ near 0 here
    assert many.std() * 4 == pytest.approx(one.std(), rel=4 * np.sqrt(2 * 2 / (4 * N)))


def test_programming_noise_agrees_with_a_second_transcription():
    """CrossSim's fit to Joshi et al. (2020), Fig. 3b: probably the same group's cells, so it catches slips of units."""
    joshi_us = Polynomial([0.28638599, 0.07585724, -0.00178767])  # of microsiemens
    g_us = np.linspace(2.5, 25, 10)
    ours_us = FITS["nandakumar2019"].programming(g_us / 25) * 25
    np.testing.assert_allclose(ours_us, joshi_us(g_us), rtol=0.05)  # 3.7 % at 2.5 µS when it was transcribed


@pytest.mark.parametrize(
    ("u", "mean", "std"), [(1e-9, 0.1, 0.045), (1.0, 0.049, 0.008), (0.1, -0.0155 * np.log(0.1) + 0.0244, None)]
)
def test_drift_exponents_are_clipped_as_published(u, mean, std):
    fit = FITS["nandakumar2019"]
    assert fit.drift_mean(np.array([u]))[0] == pytest.approx(mean)
    if std is not None:
        assert fit.drift_std(np.array([u]))[0] == pytest.approx(std)


def test_hermes_curves_at_hand_computed_points():
    fit = FITS["hermes"]
    one = np.array([1.0])
    assert fit.programming(one)[0] * 10.35 == pytest.approx(0.15781817 + 2.32443916 - 2.16310839 + 0.68841818)
    assert fit.drift_mean(one)[0] == pytest.approx(0.0736 - 0.0126 - 0.0436)
    assert fit.drift_std(one)[0] == pytest.approx(0.0104 + 0.0116 - 0.0165)
    assert fit.read(one)[0] == pytest.approx(0.0088 + 0.0768 - 0.1352 + 0.0664)
    small = np.array([0.05])
    assert fit.drift_mean(small)[0] == pytest.approx(np.clip(-0.0387 * np.log(0.05) - 0.0182, 0.0720, 0.13))


def test_curves_of_two_hermes_devices_at_hand_computed_points():
    fit = FITS["hermes-2"]
    one = np.array([1.0])
    assert fit.programming(one)[0] * 20.7 == pytest.approx(0.16603222 + 4.71806468 - 8.48101252 + 4.68961419)
    assert fit.drift_mean(one)[0] == pytest.approx(0.0736 - 0.0126 - 0.0436)
    assert fit.drift_std(one)[0] == pytest.approx(-0.0118 + 0.0093 + 0.0073)
    assert fit.read(one)[0] == pytest.approx(0.0069 - 0.0280 + 0.0211 + 0.0123)
    small = np.array([0.05])
    assert fit.drift_std(small)[0] == pytest.approx(np.clip(-0.0117 * np.log(0.05) - 0.0057, 0.0091, 0.04))
    assert fit.read(small)[0] == pytest.approx(np.clip(-0.0117 * np.log(0.05) - 0.0069, 0.015, 0.04))


# ------------------------------------------------------------------------------------------ float32 against float64


def device(channel, target, normals):
    """Return what the published law makes of these normal numbers in float64, and how large its terms are."""
    fit, target = FITS[channel.fit], target.astype(np.float64)
    programmed, drifting, reading = (row.astype(np.float64) for row in normals)
    time_s = channel.read_after_s + fit.t_0_s
    spread = fit.programming(target) * programmed
    g = np.maximum(0, target + spread)
    nu = np.abs(fit.drift_mean(target) + fit.drift_std(target) * drifting)
    growth = np.sqrt(np.log((time_s + fit.t_read_s) / (2 * fit.t_read_s)))
    noise = fit.read(g) * growth * reading
    return np.maximum(0, g * (time_s / fit.t_0_s) ** -nu * (1 + noise)), (target + np.abs(spread)) * (1 + np.abs(noise))


@pytest.mark.parametrize("differential", [False, True])
@pytest.mark.parametrize("time_s", [1.0, 3600.0, 3e7])
@pytest.mark.parametrize("fit", FITS)
def test_rounding_is_far_below_the_noise(fit, time_s, differential):
    """In float32 each of some 20 operations rounds by u; the exponent of drift, at most 2, and logarithms add 40 u."""
    channel, count = StatisticalPcm(fit=fit, read_after_s=time_s, differential=differential), 1000  # one block in cache
    level = np.linspace(*channel.span, count).astype(np.float32)
    found = channel.read(level, cells=1, rng=np.random.default_rng(5))
    rng = np.random.default_rng(5)
    normals = rng.standard_normal((2, 3, count), np.float32)
    expected, size = device(channel, np.abs(level), normals[0])
    if differential:
        idle, idle_size = device(channel, np.zeros(count), normals[1])
        expected, size = np.copysign(1, level) * (expected - idle), size + idle_size
    assert (np.abs(found - expected) <= 60 * 2**-24 * size).all()
    assert found.dtype == np.float32


def test_curves_keep_float32():
    target = np.linspace(0, 1, 9, dtype=np.float32)
    for fit in FITS.values():
        curves = (fit.programming, fit.drift_mean, fit.drift_std, fit.read)
        assert {curve(target).dtype for curve in curves} == {np.dtype(np.float32)}


def test_noise_of_a_read_is_the_published_power_law():
    g = np.geomspace(1e-9, 1, 500)
    published = np.minimum(0.2, 0.0088 / np.maximum(1e-3, g**0.65))
    np.testing.assert_allclose(FITS["nandakumar2019"].read(g), published, rtol=1e-13)


@pytest.mark.parametrize("options", [{"fit": "nobody1999"}, {"read_after_s": -1.0}, {"read_after_s": np.inf}])
def test_options_out_of_range(options):
    with pytest.raises(ChannelError, match="pcm-drift"):
        StatisticalPcm(**options)


def test_negative_levels_need_pairs():
    with pytest.raises(LevelError, match="holds 0 to 1"):
        read(-0.1)


# ------------------------------------------------------------------------------------------------------ RRAM


@pytest.mark.parametrize(
    ("time_s", "sigma_us"),
    [
        (1.0, 0.348 + 16.030 / 2 - 43.853 / 4 + 45.393 / 8 - 16.815 / 16),
        (86_400.0, 0.701 + 22.086 / 2 - 50.773 / 4 + 47.095 / 8 - 16.458 / 16),
        (172_800.0, 0.782 + 20.274 / 2 - 43.507 / 4 + 37.062 / 8 - 11.934 / 16),
    ],
)
def test_wan_at_half_scale(time_s, sigma_us):
    channel = RramWan(read_after_s=time_s)
    assert channel.std(np.array([0.5]))[0] == pytest.approx(sigma_us / 40)
    held = np.full(N, 0.5, np.float32)
    found = channel.read(held, cells=4, rng=np.random.default_rng(0)).astype(np.float64)
    assert_std(found, sigma_us / 40 / 2)
    assert_law(found, scipy.stats.norm(0.5, sigma_us / 40 / 2).cdf)


def test_wan_brackets_a_second_fit_of_the_same_chip():
    """CrossSim's cubic for the same RRAM lies between one second and one day in the middle of the range."""
    crosssim_us = Polynomial([1.053, 2.374e-1, -1.167e-2, 1.536e-4])
    u = np.linspace(0.3, 0.7, 9)
    early, late = (RramWan(read_after_s=t).std(u) * 40 for t in (1.0, 86_400.0))
    assert (early <= crosssim_us(40 * u)).all()
    assert (crosssim_us(40 * u) <= late).all()


def test_wan_has_three_times():
    with pytest.raises(ChannelError, match="1, 86400, 172800 s after programming, not 60 s"):
        RramWan(read_after_s=60.0)


def test_milo_at_both_ends():
    found = RramMilo().std(np.array([0.0, 1.0])) * 175
    np.testing.assert_allclose(found, [4.782321 - 0.009107 * 50, 4.782321 - 0.009107 * 225], rtol=1e-12)
