"""Cells that hold residuals, as a channel like others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from onnx_analog import channels
from onnx_analog.channels.base import Channel, Source
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.errors import ChannelError
from onnx_analog.testing import assert_mean, check_channel
from tests.channels.separate import Separate

QUIET = Separate(programming=0.1, reading=0.01)
RESIDUAL = Modifiers(cells_hold="residual")
DAY_S = 86_400.0


def read(channel: Channel, cells: int, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    level = np.linspace(*channel.span, count).astype(np.float32)
    return level.astype(np.float64), channel.read(level, cells=cells, rng=np.random.default_rng(0)).astype(np.float64)


@pytest.mark.parametrize("cells", [2, 5])
def test_it_keeps_what_every_channel_promises(cells):
    check_channel(ResidualCells(inner=QUIET), independent=False, draws=5_000, cells=cells)


def test_one_cell_is_read_as_in_the_other_channel():
    found, expected = (read(channel, 1)[1] for channel in (ResidualCells(inner=QUIET), QUIET))
    np.testing.assert_array_equal(found, expected)
    levels = np.array([-1.0, 0.3])
    assert [m.tolist() for m in ResidualCells(inner=QUIET).moments(levels)] == [
        m.tolist() for m in QUIET.moments(levels)
    ]


@pytest.mark.parametrize("bits", [0, 4])
def test_cells_without_noise_lose_nothing_that_can_be_written(bits):
    inner = Modifiers(write_bits=bits).apply(Separate())
    level, found = read(ResidualCells(inner=inner), 3)
    # Without a limit, nothing is missing. With one, each cell divides it by 2^bits/4 at least: its reach is below four
    # standard deviations, √12 of which are a step.
    assert np.abs(found - level).max() <= (2 / 15 * (4 / 15) ** 2 if bits else 1e-7)


def test_its_moments_are_those_that_the_stages_expect():
    level, channel = np.array([-1.0, 0.0, 0.9]), ResidualCells(inner=QUIET)
    mean, std = channel.moments(level, cells=3)
    expected = channel.division(3).error
    np.testing.assert_allclose(mean, level, atol=4 * std.max() / math.sqrt(20_000))
    # Three cells hold √2 times the read noise of the first, or a little more; their average, 0.058.
    assert math.sqrt(2) * QUIET.reading * 0.97 < std.min() < std.max() < expected * 1.03
    assert expected < 0.3 * 0.1 / math.sqrt(3)


def test_reads_are_unbiased_at_every_level():
    level, found = read(ResidualCells(inner=QUIET), 3, 70_000)
    for part in np.array_split(found - level, 7):
        assert_mean(part, 0.0)


@pytest.mark.parametrize("differential", [False, True])
def test_drift_sinks_residuals_as_it_sinks_levels(differential):
    inner = StatisticalPcm(fit="hermes", read_after_s=DAY_S, differential=differential)
    channel = ResidualCells(inner=inner, verify_reads=100)
    assert len(channel.division(4).stages) > 1
    slopes = [np.polyfit(*read(each, 4, 50_000), 1)[0] for each in (channel, inner)]
    error = 0.05 / math.sqrt(50_000) / math.sqrt(1 / 12)  # of a slope over a range of 1, σ of four cells below 0.05
    # A cell that holds little drifts more than one that holds much: residuals, near the middle, know one drift only.
    assert slopes[0] == pytest.approx(slopes[1], abs=4 * math.sqrt(2) * error + 0.02)
    assert slopes[1] < 0.9


def test_what_is_written_coarsely_is_refined_by_the_next_cell():
    """Averages keep the rounding of what is written; the residual of rounding fits a fraction of the output range."""
    inner = LimitedPrecision(inner=Separate(programming=1e-4), write_bits=3)
    rounding = 2 / (2**3 - 1) / math.sqrt(12)
    level, averaged = read(inner, 2)
    assert np.sqrt(np.mean((averaged - level) ** 2)) == pytest.approx(rounding, rel=0.02)
    _, refined = read(ResidualCells(inner=inner), 2)
    # The residual, at most √3 rounding, is held with a reach of at most 4 rounding, and rounded once more.
    assert np.sqrt(np.mean((refined - level) ** 2)) < 4 * rounding * rounding


def test_weights_of_different_numbers_of_cells_have_stages_of_their_own():
    channel, level = ResidualCells(inner=QUIET), np.zeros(40_000, np.float32)
    found = channel.read(level, cells=np.tile([1, 2, 3, 1], 10_000), rng=np.random.default_rng(0)).reshape(-1, 4)
    expected = [channel.moments(level[:1], cells=cells)[1][0] for cells in (1, 2, 3, 1)]
    # σ of 10,000 and of 20,000 reads; fourth moments of what was clipped are up to ten times those of a normal law
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=4 * math.sqrt(10 / 10_000))


# ------------------------------------------------------------------------------------------------------ as a change


@pytest.mark.parametrize(
    "name", ["pcm", "pcm-partial-reset", "gaussian", "rram-wan", "rram-milo", "pcm, empirical", "table", "residual"]
)
def test_channels_that_pool_programming_and_reading_are_refused(name):
    others = {
        "pcm, empirical": lambda: channels.resolve("pcm").changed(residuals="empirical"),
        "table": lambda: channels.from_pairs(np.repeat([0.0, 1.0], 4), np.arange(8.0)),
        "residual": lambda: LimitedPrecision(inner=channels.resolve("pcm"), read_bits=3),
    }
    channel = others.get(name, lambda: channels.resolve(name))()
    with pytest.raises(ChannelError) as caught:
        RESIDUAL.apply(channel)
    assert str(caught.value) == (
        f"{channel} does not separate programming from reading, so no cell can hold what the cells before it are short "
        "of: choose a channel that does, such as pcm-drift"
    )
    assert RESIDUAL.apply_where_possible(channel) == channel
    assert Modifiers(cells_hold="level").apply(channel) == channel


def test_changes_reach_the_channel_inside():
    drift = StatisticalPcm()
    found = RESIDUAL.apply(drift)
    assert found == ResidualCells(inner=drift)
    assert Modifiers(read_after_s=60.0).apply(found) == ResidualCells(inner=StatisticalPcm(read_after_s=60.0))
    limited = Modifiers(read_bits=5, read_after_s=60.0).apply(found)
    assert limited == ResidualCells(inner=LimitedPrecision(inner=StatisticalPcm(read_after_s=60.0), read_bits=5))
    assert limited == Modifiers(cells_hold="residual", read_bits=5, read_after_s=60.0).apply(drift)
    assert Modifiers(cells_hold="level", read_bits=0, read_after_s=0.0).apply(limited) == drift
    twice = ResidualCells(inner=drift, verify_reads=7)
    assert RESIDUAL.apply(twice) == twice
    with pytest.raises(ChannelError, match="does not tell devices apart"):
        Modifiers(cells_on="same").apply(found)


def test_its_name_says_what_cells_hold():
    assert str(ResidualCells(inner=StatisticalPcm())) == (
        "pcm-drift (nandakumar2019, read after 0 s) (cells hold residuals)"
    )
    assert str(ResidualCells(inner=StatisticalPcm(), verify_reads=4)).endswith("(cells hold residuals, 4 verify reads)")


@dataclass(frozen=True, kw_only=True)
class Own(Separate):
    """A channel whose source is not a sentence."""

    source: ClassVar[Source] = Source(citation="a", left_out="drift")


def test_its_source_says_what_it_leaves_out_beside():
    shared = "The noise of a verify read is independent of that of later reads."
    assert ResidualCells(inner=QUIET).source.left_out == shared
    drift = StatisticalPcm()
    found = ResidualCells(inner=drift).source
    assert found.left_out == f"{drift.source.left_out} {shared}"
    assert ResidualCells(inner=Own()).source.left_out == f"drift. {shared}"
    assert str(found) == str(drift.source)


@pytest.mark.parametrize("reads", [0, 1001])
def test_verify_reads_have_a_range(reads):
    with pytest.raises(ChannelError, match=f"verify_reads is {reads}; it must be from 1 to 1000"):
        ResidualCells(inner=QUIET, verify_reads=reads)


def test_residuals_of_residuals_and_precision_outside_are_refused():
    residual = ResidualCells(inner=QUIET)
    with pytest.raises(ChannelError, match="does not separate programming from reading"):
        ResidualCells(inner=residual)
    with pytest.raises(ChannelError, match="limit the precision of the channel inside it"):
        LimitedPrecision(inner=residual, read_bits=4)
