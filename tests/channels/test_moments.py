"""`Channel.moments` against long samples, and against what each law must keep."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from onnx_analog.channels import GaussianNoise, resolve
from onnx_analog.channels.base import READS, Channel, _estimate
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.pcm import pcm
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.errors import LevelError
from onnx_analog.testing import FALSE_ALARM

PCM = pcm()
DRIFT = StatisticalPcm(read_after_s=3600.0)
CHANNELS = {
    "gaussian": GaussianNoise(),
    "pcm": PCM,
    "pcm, one device": PCM.changed(cells_on="same"),
    "empirical": PCM.changed(residuals="empirical"),
    "partial reset, empirical": resolve("pcm-partial-reset").changed(residuals="empirical"),
    "rram-wan": resolve("rram-wan"),
    "drift": DRIFT,
    "drift, differential": replace(DRIFT, differential=True, compensated=True),
    "5 bits to read": PCM.changed(read_bits=5),
    "one device, 5 bits to read": PCM.changed(read_bits=5, cells_on="same"),
    "drift, residual": DRIFT.changed(cells_hold="residual"),
    "4 bits to write, drift": DRIFT.changed(write_bits=4),
}
EXACT = ("gaussian", "pcm", "pcm, one device", "empirical", "partial reset, empirical", "rram-wan")
Z = float(scipy.stats.norm.isf(FALSE_ALARM / 2))


def levels(channel: Channel, count: int = 5) -> np.ndarray:
    return clip_to_range(np.linspace(*channel.span, count).astype(np.float32), channel.span)


@pytest.mark.parametrize("cells", [1, 7])
@pytest.mark.parametrize("name", CHANNELS)
def test_they_are_those_of_a_long_sample(name, cells):
    """Errors of the sample and, where the law has no closed form, of the estimate add in quadrature."""
    channel, draws = CHANNELS[name], 60_000
    reach = Z * math.sqrt(1 / draws + (0 if name in EXACT else 2 / READS))
    mean, std = channel.moments(levels(channel), cells=cells)
    for index, level in enumerate(levels(channel)):
        held = np.full(draws, level, np.float32)
        reads = channel.read(held, cells=cells, rng=np.random.default_rng(index)).astype(np.float64)
        assert abs(reads.mean() - mean[index]) <= reach * std[index] + 1e-6
        squares = (reads - reads.mean()) ** 2
        one_cell = squares.std() if cells == 1 else squares.std() + channel.moments(held[:1])[1][0] ** 2
        assert abs(squares.mean() - std[index] ** 2) <= reach * one_cell + 1e-9


@pytest.mark.parametrize("name", CHANNELS)
def test_they_are_the_same_each_time_and_whatever_the_other_levels(name):
    channel = CHANNELS[name]
    some = levels(channel)
    mean, std = channel.moments(some)
    again = [channel.moments(some[[index, 0, index]]) for index in range(some.size)]
    assert (mean.dtype, std.dtype, mean.shape, std.shape) == (np.float64, np.float64, some.shape, some.shape)
    assert [found[0][0] for found in again] == mean.tolist()
    assert [found[1][2] for found in again] == std.tolist()
    assert channel.moments(some[:0])[0].shape == (0,)


@pytest.mark.parametrize("name", CHANNELS)
def test_levels_outside_the_span_have_none(name):
    channel = CHANNELS[name]
    with pytest.raises(LevelError):
        channel.moments(np.array([channel.span[1] + 0.1]))


@pytest.mark.parametrize("name", [name for name, channel in CHANNELS.items() if channel.independent])
def test_cells_that_share_nothing_average_exactly(name):
    channel = CHANNELS[name]
    one, many = (channel.moments(levels(channel), cells=cells) for cells in (1, 400))
    assert many[0].tolist() == one[0].tolist()
    np.testing.assert_allclose(many[1], one[1] / 20, rtol=1e-12)


def test_what_cells_share_is_left_however_many_they_are():
    together = CHANNELS["one device, 5 bits to read"]
    level = levels(together)[1:-1]  # at the ends the converter clips
    shared = PCM.changed(cells_on="same").moments(level, cells=10**9)[1]
    _, std = together.moments(level, cells=10**9)
    step, alone = 2 / 31, together.moments(level)[1]
    reach = Z * math.sqrt(2 / READS) * alone**2  # of a covariance of normal reads, at most √2·V/√n
    assert (np.abs(std**2 - shared**2) <= reach + step**2 / 12).all()


@pytest.mark.parametrize(
    ("channel", "normal", "independent", "most"),
    [
        (PCM, True, True, None),
        (PCM.changed(cells_on="same"), True, False, None),
        (EmpiricalChannel(table=PCM), False, True, 10_000),
        (DRIFT, False, True, 10_000),
        (DRIFT.changed(cells_hold="residual"), False, False, 10_000),
        (LimitedPrecision(inner=PCM, read_bits=4), False, True, 10_000),
        (LimitedPrecision(inner=PCM.changed(cells_on="same"), read_bits=4), False, False, 10_000),
    ],
)
def test_what_a_channel_says_of_itself(channel, normal, independent, most):
    assert (channel.normal, channel.independent, channel.most_cells) == (normal, independent, most)


def test_only_what_reads_from_a_table_has_measurements():
    assert PCM.measurements is PCM
    assert EmpiricalChannel(table=PCM).measurements is PCM
    assert [channel.measurements for channel in (DRIFT, GaussianNoise(), PCM.changed(read_bits=3))] == [None] * 3
    assert PCM.programmed(levels(PCM)) is not None
    assert DRIFT.programmed(levels(DRIFT)) is None


@pytest.mark.parametrize("cells", [1, 3, np.array([1, 2, 9, 4, 4])])
@pytest.mark.parametrize("name", CHANNELS)
def test_prepared_levels_are_read_as_others_are(name, cells):
    channel = CHANNELS[name]
    level, block, out = levels(channel), slice(1, 4), np.full(3, np.nan, np.float32)
    channel.prepared(level, cells).read(block, np.random.default_rng(3), out)
    of_block = cells if isinstance(cells, int) else cells[block]
    expected = channel.read(level[block], cells=of_block, rng=np.random.default_rng(3))
    assert out.tobytes() == expected.tobytes()
    with pytest.raises(LevelError):
        channel.prepared(level + np.float32(9), cells)


def test_estimates_are_made_once_for_equal_levels_of_equal_channels(monkeypatch):
    _estimate.cache_clear()
    first = StatisticalPcm(read_after_s=7.0).moments(levels(DRIFT), cells=1)
    _estimate.cache_clear()
    again = StatisticalPcm(read_after_s=7.0).moments(levels(DRIFT)[::-1], cells=1)
    np.testing.assert_array_equal(first, np.array(again)[:, ::-1])
    monkeypatch.setattr(StatisticalPcm, "read_cell", None)  # so that nothing more can be read
    np.testing.assert_array_equal(StatisticalPcm(read_after_s=7.0).moments(levels(DRIFT), cells=1), first)
    assert (StatisticalPcm(read_after_s=7.0).moments(levels(DRIFT), cells=4)[1] < first[1]).all()
    for channel, level in ((StatisticalPcm(read_after_s=8.0), levels(DRIFT)), (DRIFT, levels(DRIFT, 6))):
        _estimate.cache_clear()
        with pytest.raises(TypeError):
            channel.moments(level)


def test_an_estimate_does_not_depend_on_which_zero_came_first():
    """Zero and minus zero have random streams of their own."""
    found = []
    for order in ([0.0, -0.0], [-0.0, 0.0]):
        _estimate.cache_clear()
        found.append({str(zero): DRIFT.moments(np.array([zero], np.float32)) for zero in order})
    for zero in ("0.0", "-0.0"):
        np.testing.assert_array_equal(found[0][zero], found[1][zero])
    assert found[0]["0.0"] != found[0]["-0.0"]
