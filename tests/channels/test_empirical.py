from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from onnx_analog import channels
from onnx_analog.channels import from_pairs
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.errors import ChannelError
from onnx_analog.testing import assert_mean


def skewed(reads=400):
    """Pairs whose reads are exponential about a line: skew 2, excess kurtosis 6."""
    rng = np.random.default_rng(0)
    inputs = np.repeat(np.linspace(0, 1, 11), reads)
    return from_pairs(inputs, inputs + 0.1 * rng.exponential(size=inputs.size))


def read(channel, level, cells=1, count=50_000):
    return channel.read(np.full(count, level, np.float32), cells=cells, rng=np.random.default_rng(1)).astype(np.float64)


def test_residuals_are_standardised():
    """By mean and σ of all reads: where there are more reads than bins, what bins even out is missing."""
    for name, least in (("pcm", 0.99), ("pcm-partial-reset", 1 - 1e-4)):
        residuals = np.array(channels.resolve(name).residuals)
        np.testing.assert_allclose(residuals.mean(axis=1), 0, atol=5e-5)  # they are kept to four decimals
        assert least <= residuals.std(axis=1).min() <= residuals.std(axis=1).max() <= 1 + 1e-4


def test_a_rare_event_keeps_its_size_and_the_others_theirs():
    rng = np.random.default_rng(0)
    reads = 0.01 * rng.standard_normal(4000)
    reads[::1000] = 1.0  # one in a thousand is stuck
    inputs = np.repeat([-1.0, 1.0], 2000)
    table = from_pairs(inputs, inputs + reads)
    middle = np.float32(np.mean(table.span))
    found = read(EmpiricalChannel(table=table), middle) - float(middle)
    scale = 2 / np.ptp(inputs + reads)
    assert np.mean(found > 0.5 * scale) == pytest.approx(1e-3, abs=4 * np.sqrt(1e-3 / found.size))
    spread = np.diff(np.percentile(found, [25, 75]))[0]
    assert spread == pytest.approx(0.01 * scale * 2 * scipy.stats.norm.ppf(0.75), rel=0.1)


@pytest.mark.parametrize("cells", [1, 4])
def test_moments_are_those_of_the_table(cells):
    table = skewed()
    level = np.float32(np.mean(table.span))
    found = read(EmpiricalChannel(table=table), level, cells)
    assert_mean(found, float(level), systematic=5e-5 * float(table.std(np.array([level]))[0]))
    kurtosis = scipy.stats.kurtosis(found)
    error = np.sqrt((kurtosis + 2) / (4 * found.size))  # relative, of a sample standard deviation
    assert found.std() * np.sqrt(cells) == pytest.approx(float(table.std(np.array([level]))[0]), rel=4 * error + 1e-4)


def test_skew_fades_with_the_root_of_the_cells():
    channel = EmpiricalChannel(table=skewed())
    level = np.float32(np.mean(channel.span))
    one, nine = (scipy.stats.skew(read(channel, level, cells)) for cells in (1, 9))
    assert one > 1
    # σ of a sample skew is √(6/n) for normal samples and some times that here
    assert nine == pytest.approx(one / 3, abs=5 * np.sqrt(6 / 50_000) * 3)


def test_reads_are_the_measured_ones_not_normal():
    table = skewed()
    level = np.float32(np.mean(table.span))
    found = read(EmpiricalChannel(table=table), level)
    std = float(table.std(np.array([level]))[0])
    assert scipy.stats.kstest(found, scipy.stats.norm(float(level), std).cdf).pvalue < 1e-10
    kept = np.unique(table.residuals[np.argmin(np.abs(np.array(table.inputs) - table.inverse.input(level)))])
    assert np.unique(found).size == kept.size  # one read for each residual that is kept


def test_the_nearest_measured_input_lends_its_residuals():
    inputs = np.repeat([0.0, 1.0], 200)
    rng = np.random.default_rng(0)
    noise = np.where(inputs == 0, rng.choice([-0.1, 0.1], 400), rng.uniform(-0.1, 0.1, 400))
    channel = EmpiricalChannel(table=from_pairs(inputs, inputs + noise))
    low, high = channel.span
    two_points, uniform = (
        scipy.stats.kurtosis(read(channel, np.float32(low + share * (high - low)))) for share in (0.4, 0.6)
    )
    assert two_points == pytest.approx(-2, abs=0.1)  # of two equally likely points
    assert uniform == pytest.approx(-1.2, abs=0.2)


def test_partial_reset_is_far_from_normal():
    channel = EmpiricalChannel(table=channels.resolve("pcm-partial-reset"))
    kurtosis = [scipy.stats.kurtosis(part) for part in channel.table.residuals]
    assert max(kurtosis) > 25  # 43 before they were reduced to 256 quantiles


def test_a_table_without_residuals():
    table = channels.TableChannel(name="bare", inputs=(0.0, 1.0), means=(0.0, 1.0), stds=(0.1, 0.1))
    with pytest.raises(ChannelError, match="'bare' keeps no residuals"):
        EmpiricalChannel(table=table)
