from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_analog import channels
from onnx_analog.channels import GaussianNoise, TableChannel
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.pcm import pcm_partial_reset
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.ranges import rounded
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.errors import ChannelError
from onnx_analog.testing import assert_mean

LINE = TableChannel(name="line", inputs=(-1.0, 1.0), means=(-1.0, 1.0), stds=(1e-6, 1e-6))


def read(channel, level, cells=1, count=20_000):
    return channel.read(np.full(count, level, np.float32), cells=cells, rng=np.random.default_rng(0)).astype(np.float64)


def test_rounding_by_hand():
    # two bits on -1 to 1: codes -1, -1/3, 1/3, 1
    found = rounded(np.array([-5.0, -0.7, -0.6, 0.0001, 0.99]), (-1.0, 1.0), 2)
    np.testing.assert_allclose(found, [-1, -1, -1 / 3, 1 / 3, 1])


def test_few_inputs_give_few_means():
    levels = np.linspace(-1, 1, 101).astype(np.float32)
    found = LimitedPrecision(inner=LINE, write_bits=2).read(levels, cells=1, rng=np.random.default_rng(0))
    np.testing.assert_allclose(np.unique(found.round(3)), [-1, -0.333, 0.333, 1])
    # the nearest of them: no level is further than half a step from what it reads as, but for 7 σ of noise
    assert np.abs(found - levels).max() <= 1 / 3 + 7e-6


def test_nearest_mean_not_nearest_input():
    bent = TableChannel(name="bent", inputs=(-1.0, 0.0, 1.0), means=(0.0, 0.9, 1.0), stds=(1e-6,) * 3)
    # One bit: the inputs are -1 and 1, whose means are 0 and 1. Level 0.6 is nearer to 1, though f(0.6) = -0.33.
    assert read(LimitedPrecision(inner=bent, write_bits=1), 0.6).mean() == pytest.approx(1, abs=1e-6)


def test_codes_of_a_converter():
    found = read(LimitedPrecision(inner=GaussianNoise(sigma=0.3), read_bits=3), 0.0)
    low, high = -0.65 - 0.9, 0.75 + 0.9  # span and three standard deviations
    codes = low + np.arange(8) * (high - low) / 7
    assert np.abs(found[:, None] - codes).min(axis=1).max() < 1e-6


def test_noise_dithers_the_converter():
    """With σ of about a step, the mean of many quantised reads is the level: the error of rounding is averaged away."""
    step = (1.65 + 1.55) / 15
    channel = LimitedPrecision(inner=GaussianNoise(sigma=step, low=-0.65, high=0.75), read_bits=4)
    # Of Gaussian dither with σ = step, the mean error is at most 2·step·exp(-2π²)/(2π), which is 1e-9 of a step; the
    # converter's range is 3 σ wider than the span, so that clipping costs less than 4e-4·σ in the middle of it.
    assert_mean(read(channel, 0.05, cells=16), 0.05, systematic=4e-4 * step)


def test_without_noise_nothing_dithers():
    quiet = LimitedPrecision(inner=LINE, read_bits=2)
    assert read(quiet, 0.1, cells=64).mean() == pytest.approx(1 / 3, abs=1e-6)


def test_no_limit_reads_as_the_channel_inside():
    pcm = channels.resolve("pcm")
    free, plain = LimitedPrecision(inner=pcm), pcm
    level = np.linspace(*pcm.span, 7)[1:-1].astype(np.float32)
    std = pcm.std(level)
    for value, expected in zip(level, std, strict=True):
        found = read(free, value)
        assert_mean(found, float(value))
        assert found.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * found.size))
    assert free.span == plain.span


def test_cells_on_one_device_still_share_it():
    pcm = replace(channels.resolve("pcm"), cells_on="same")
    level = np.float32(0.3)
    shared = float(pcm.shared_std(np.array([level]))[0])
    found = read(LimitedPrecision(inner=pcm, read_bits=12), level, cells=400)
    own = float(pcm.std(np.array([level]))[0] ** 2 - shared**2) / 400
    clipped = 0.01  # the converter ends at the largest output, half a σ or more above this level's reads
    assert found.std() == pytest.approx(np.sqrt(shared**2 + own), rel=clipped + 4 / np.sqrt(2 * found.size))


@pytest.mark.parametrize("inner", [StatisticalPcm(), EmpiricalChannel(table=pcm_partial_reset())])
def test_any_channel_can_be_inside(inner):
    channel = LimitedPrecision(inner=inner, write_bits=6, read_bits=6)
    low, high = channel.span
    level = np.float32(0.25 * low + 0.75 * high)
    full = channel.range[1] - channel.range[0]
    steps = (high - low) / 63 / 2 + full / 63 / 2  # half a step of either side
    assert_mean(read(channel, level), float(level), systematic=steps)


@pytest.mark.parametrize("bits", [-1, 17])
def test_bits_out_of_range(bits):
    with pytest.raises(ChannelError, match=f"read_bits is {bits}"):
        LimitedPrecision(inner=LINE, read_bits=bits)


def test_limits_are_not_nested():
    with pytest.raises(ChannelError, match="limited precision already"):
        LimitedPrecision(inner=LimitedPrecision(inner=LINE, read_bits=2), read_bits=3)
