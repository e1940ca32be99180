"""How cells are divided into stages, against closed forms and against what is read."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from onnx_analog.channels import stages
from onnx_analog.channels.base import Channel
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.stages import Law, Moments, division, law_of
from onnx_analog.channels.statistical import FITS, StatisticalPcm
from tests.channels.separate import Separate

CELLS = 64 * 2048  # of the law
N = 100_000
Z = 4.0  # standard errors: a false alarm in 16,000


def law(programming: float, reading: float, *, half: float = 1.0) -> Law:
    """Return the law of normal noise: e_v and e_y share what was programmed."""
    total, shared = Moments(0, programming**2 + reading**2), Moments(0, programming**2)
    return Law(verified=total, read=total, both=shared, middle=0.0, half=half, offset=0.0)


def clipped(c: float) -> float:
    """Return E[max(|z| - c, 0)²] of a standard normal z."""
    value, _ = scipy.integrate.quad(lambda z: 2 * (z - c) ** 2 * scipy.stats.norm.pdf(z), c, 40)
    return float(value)


def squared_errors(channel: Channel, cells: int) -> np.ndarray:
    level = np.linspace(*channel.span, N).astype(np.float32)
    read = channel.read(level, cells=cells, rng=np.random.default_rng(cells))
    squares: np.ndarray = (read.astype(np.float64) - level) ** 2
    return squares


@pytest.mark.parametrize("reads", [1, 4])
def test_the_law_of_normal_noise(reads):
    found = law_of(Separate(programming=0.1, reading=0.2), (-1.0, 1.0), reads)
    reach = Z * math.sqrt(2 / CELLS)  # of a variance; that of a covariance is smaller
    assert found.verified.alone == pytest.approx(0.1**2 + 0.2**2 / reads, rel=reach)
    assert found.read.alone == pytest.approx(0.1**2 + 0.2**2, rel=reach)
    assert found.both.alone == pytest.approx(0.1**2, abs=reach * 0.05)
    # Squared means of 64 levels, each of 2,048 errors of variance 0.05 at most.
    assert max(found.verified.shared, found.read.shared) <= 0.05 / 2048 * Z * math.sqrt(2 / 64)
    assert (found.middle, found.half) == (0.0, 1.0)
    assert found.offset == pytest.approx(0, abs=Z * math.sqrt(0.05 / CELLS))


@pytest.mark.parametrize(("programming", "reading"), [(0.1, 0.0), (0.1, 0.05), (0.1, 0.2), (0.0, 0.1)])
def test_what_verify_reads_tell_and_leave(programming, reading):
    found, p, n = law(programming, reading), programming**2, reading**2
    assert found.weight(1) == pytest.approx(p / (p + n))
    assert found.left(1) == pytest.approx(n * (1 + p / (p + n)))
    assert found.told(1) + found.left(1) == pytest.approx(p + n)
    assert found.left(10) == pytest.approx(found.left(1) / 10)


def test_what_all_cells_share_is_left_by_averages_and_told_by_verify_reads():
    shared = Moments(0.01, 0.0)  # as of levels that are rounded before they are written
    found = Law(verified=shared, read=shared, both=shared, middle=0, half=1, offset=0)
    assert found.read.of(100) == 0.01
    assert found.told(100) == pytest.approx(0.01)
    assert division(found, 3).error < 0.1 * math.sqrt(0.01)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_the_reach_of_two_cells_has_the_smallest_error(noise):
    first, second = division(law(noise, 0.0), 2).stages
    c = second.reach / noise
    density, tail = scipy.stats.norm.pdf(c), scipy.stats.norm.sf(c)
    step = 0.0025  # of the search: the derivative changes by no more than the second one times it
    slope = 2 * c * noise**2 - 4 * (density - c * tail)
    assert abs(slope) <= step * (2 * noise**2 + 4 * tail)
    assert division(law(noise, 0.0), 2).error == pytest.approx(
        noise * math.sqrt(c**2 * noise**2 + clipped(c)), rel=1e-4
    )
    assert (first.cells, second.cells, first.reach) == (1, 1, 0)


def test_without_read_noise_the_error_falls_geometrically():
    noise, fixed = 0.05, 6.0
    errors = [division(law(noise, 0.0), cells).error for cells in range(1, 7)]
    assert errors[0] == pytest.approx(noise)
    # The best stages are at least as good as those that reach six standard deviations.
    lost = noise * math.sqrt(clipped(fixed))
    assert all(after <= math.hypot(fixed * noise * before, lost) for before, after in pairwise(errors))
    assert errors[-1] < 2 * noise * (fixed * noise) ** 5


@pytest.mark.parametrize("cells", [2, 3, 4])
@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_what_is_read_has_the_error_that_is_expected(noise, cells):
    channel = ResidualCells(inner=Separate(programming=noise))
    squares, (_, *others) = squared_errors(channel, cells), channel.division(cells).stages
    reach = Z * (squares.std() / squares.mean() / math.sqrt(N) + math.sqrt(2 / CELLS) * cells)
    expected = channel.division(cells).error ** 2
    assert len(others) == cells - 1
    assert squares.mean() <= expected * (1 + reach)  # which takes all that is clipped for lost
    # The noise of the last cell is left in any case, and two cells have no other stage to mend what was clipped.
    least = (others[-1].reach * noise) ** 2 if cells > 2 else expected
    assert squares.mean() >= least * (1 - reach)


def test_a_reach_that_is_wrong_has_another_error(monkeypatch):
    """The same comparison notices stages that reach half as far as they should."""
    channel = ResidualCells(inner=Separate(programming=0.05))
    expected = channel.division(2).error
    monkeypatch.setattr(stages, "_C", stages._C / 2)
    stages.division.cache_clear()
    found = math.sqrt(squared_errors(channel, 2).mean())
    stages.division.cache_clear()
    assert found > 1.2 * expected


def test_noise_as_wide_as_the_output_range_leaves_averages():
    assert [stage.cells for stage in division(law(1.0, 0.0), 2).stages] == [2]


@pytest.mark.parametrize("cells", [2, 3, 10, 100])
def test_without_programming_noise_all_cells_hold_the_level(cells):
    inner = Separate(reading=0.1)
    channel, level = ResidualCells(inner=inner), np.linspace(-1, 1, 1000, dtype=np.float32)
    assert [stage.cells for stage in channel.division(cells).stages] == [cells]
    read, averaged = (held.read(level, cells=cells, rng=np.random.default_rng(0)) for held in (channel, inner))
    np.testing.assert_array_equal(read, averaged)


@pytest.mark.parametrize(("programming", "reading"), [(0.1, 0.01), (0.1, 0.05), (0.1, 0.1), (0.03, 0.1)])
@pytest.mark.parametrize("cells", [2, 3, 8])
def test_it_is_never_worse_than_an_average(programming, reading, cells):
    inner = Separate(programming=programming, reading=reading)
    squares = squared_errors(ResidualCells(inner=inner), cells)
    average = (programming**2 + reading**2) / cells
    reach = Z * squares.std() / squares.mean() / math.sqrt(N) + Z * math.sqrt(2 / CELLS)
    assert squares.mean() <= average * (1 + reach)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("time_s", [0.0, 3600.0, 86_400.0])
@pytest.mark.parametrize("cells", [3, 8])
def test_phase_change_cells_are_never_worse_than_their_average(fit, time_s, cells):
    """About the line that fits the reads best, as drift sinks them."""
    inner = StatisticalPcm(fit=fit, read_after_s=time_s)
    level, errors = np.linspace(0, 1, N), []
    for channel in (inner, ResidualCells(inner=inner)):
        read = channel.read(level.astype(np.float32), cells=cells, rng=np.random.default_rng(0)).astype(np.float64)
        slope, offset = np.polyfit(level, read, 1)
        errors.append(float(np.sqrt(np.mean(((read - offset) / slope - level) ** 2))))
    # Standard errors of both spreads, kurtosis up to 5, and of the law; noise near the middle differs from that over
    # the output range, of which 3 % of the error are left.
    reach = Z * (math.sqrt(2) * math.sqrt(4 / (4 * N)) + math.sqrt(4 / (4 * CELLS)))
    assert errors[1] <= errors[0] * (1 + reach)
    assert errors[1] == pytest.approx(ResidualCells(inner=inner).division(cells).error, rel=reach + 0.03)


def test_read_noise_is_the_limit():
    """However many cells: after a verify read, the error of the read to come is left."""
    found = law(0.1, 0.05)
    for cells in (2, 10, 1000):
        first = division(found, cells).stages[0].cells
        assert division(found, cells).error ** 2 >= found.left(first)
    ratio = division(found, 1000).error ** 2 / found.read.of(1000)
    assert ratio == pytest.approx(found.left(1) / found.read.of(1), rel=0.02)  # some cells leave the first stage


def test_more_verify_reads_tell_more():
    inner = Separate(programming=0.1, reading=0.1)
    errors = [ResidualCells(inner=inner, verify_reads=reads).division(3).error for reads in (1, 4, 100)]
    assert errors[0] > errors[1] > errors[2]


def test_drift_leaves_less_to_tell():
    """ρ² of the read to come falls with time, and with it what the division gains over averages."""
    gains = []
    for time_s in (0.0, 3600.0, 86_400.0):
        found = law_of(StatisticalPcm(read_after_s=time_s), (0.0, 1.0))
        gains.append(math.sqrt(found.read.of(8)) / division(found, 8).error)
    assert gains[0] > gains[1] > gains[2] > 1


def test_stages_take_no_more_than_sixteen_cells_from_the_average():
    found = division(law(0.1, 0.0), 1000).stages
    assert sum(stage.cells for stage in found) == 1000
    assert sum(stage.cells for stage in found[1:]) <= 16
