"""Channels that tell programming from reading: both ways of reading them follow one law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from onnx_analog.channels.base import Channel
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.testing import FALSE_ALARM, assert_std, check_channel
from tests.channels.separate import Separate

N = 20_000
DRIFT = StatisticalPcm(fit="hermes", read_after_s=3600.0)
PAIR = replace(DRIFT, differential=True)


def cells_of(channel: Channel):
    cells = channel.separated
    assert cells is not None
    return cells


def test_a_channel_needs_only_two_methods():
    check_channel(Separate(programming=0.1, reading=0.05), draws=5_000)


@pytest.mark.parametrize(
    "channel",
    [
        Separate(programming=0.1, reading=0.2),
        StatisticalPcm(),
        DRIFT,
        replace(PAIR, compensated=True),
        LimitedPrecision(inner=DRIFT, write_bits=3, read_bits=4),
    ],
    ids=str,
)
@pytest.mark.parametrize("level", [0.1, 0.7])
def test_a_cell_that_is_programmed_and_then_read_is_read_as_ever(channel, level):
    levels, cells, rng = np.full(N, level, np.float32), cells_of(channel), np.random.default_rng(0)
    apart = cells.read_programmed(cells.program_cell(levels, rng), rng)
    together = channel.read(levels, cells=1, rng=rng)
    assert scipy.stats.ks_2samp(apart.round(5), together.round(5), method="asymp").pvalue > FALSE_ALARM


def test_what_was_programmed_stays_from_read_to_read():
    cells, rng = cells_of(Separate(programming=0.3, reading=0.1)), np.random.default_rng(0)
    held = cells.program_cell(np.zeros(N, np.float32), rng)
    first, second = cells.verify(held, rng), cells.read_programmed(held, rng)
    assert_std(first - second, 0.1 * np.sqrt(2))
    assert_std(first + second, np.hypot(2 * 0.3, 0.1 * np.sqrt(2)))


@pytest.mark.parametrize("late", [DRIFT, PAIR], ids=str)
def test_phase_change_memory_is_verified_before_it_drifts(late):
    levels, cells, rng = np.full(N, 0.5, np.float32), cells_of(late), np.random.default_rng(0)
    verified = cells.verify(cells.program_cell(levels, rng), rng)
    read = replace(late, read_after_s=0.0).read(levels, cells=1, rng=rng)
    assert scipy.stats.ks_2samp(verified, read, method="asymp").pvalue > FALSE_ALARM


def test_each_device_keeps_its_own_drift():
    """Without ν that stays, the reads of one cell would share only what was programmed."""
    channel = StatisticalPcm(read_after_s=1e9)
    cells, rng = cells_of(channel), np.random.default_rng(0)
    held = cells.program_cell(np.full(N, 0.3, np.float32), rng)
    first, second = (cells.read_programmed(held, rng) for _ in range(2))
    conductance, nu = held[1:]
    drifted = conductance * (1 + 1e9 / 20) ** -nu.astype(np.float64)
    # Reads share the drifted conductance and nothing else, up to the noise of a covariance of N pairs.
    shared = np.cov(first, second)[0, 1]
    assert shared == pytest.approx(drifted.var(), abs=4 * first.var() / np.sqrt(N))
    assert drifted.std() / drifted.mean() > 1.05 * conductance.std() / conductance.mean()


def test_a_limit_of_precision_keeps_what_is_separate():
    limited = LimitedPrecision(inner=Separate(), write_bits=2, read_bits=1)
    cells, rng = cells_of(limited), np.random.default_rng(0)
    held = cells.program_cell(np.array([-0.9, -0.2, 0.5], np.float32), rng)
    np.testing.assert_allclose(held[0], [-1, -1 / 3, 1 / 3], rtol=1e-6)
    assert np.isin(cells.verify(held, rng), limited.range).all()
    assert np.isin(cells.read_programmed(held, rng), limited.range).all()
