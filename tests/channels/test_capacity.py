from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnx_analog import channels
from onnx_analog.channels import GaussianNoise, from_pairs
from onnx_analog.channels.capacity import best_of, blahut_arimoto, both, limited, of_channel, smoothed, transition
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.pairs_csv import read_columns
from onnx_analog.channels.precision import LimitedPrecision
from tests.conftest import data_folder, needed

# log10 ohm, devices 0 to 6, as Zarcone et al. add them before they pool the devices
ALIGNMENT = np.array([0.32, 0.40, 0.12, 0.115, 0.235, 0.0, 0.26])


def entropy(p):
    return float(-sum(x * np.log2(x) for x in np.atleast_1d(p) if x > 0))


@pytest.mark.parametrize("flip", [0.0, 0.11, 0.5])
def test_binary_symmetric_channel(flip):
    found = blahut_arimoto(np.array([[1 - flip, flip], [flip, 1 - flip]]))
    assert found.bits == pytest.approx(1 - entropy([flip, 1 - flip]), abs=1e-4)  # the iteration's own tolerance


def test_binary_erasure_channel():
    assert blahut_arimoto(np.array([[0.7, 0.3, 0.0], [0.0, 0.3, 0.7]])).bits == pytest.approx(0.7, abs=1e-4)


def test_z_channel_prefers_the_input_that_is_always_right():
    q = 0.5  # closed form: log2(1 + (1 - q)·q^(q/(1 - q)))
    found = blahut_arimoto(np.array([[1.0, 0.0], [q, 1 - q]]))
    assert found.bits == pytest.approx(np.log2(1 + (1 - q) * q ** (q / (1 - q))), abs=1e-4)
    assert found.inputs[0] == pytest.approx(0.6, abs=0.01)


def test_useless_input_is_not_used():
    found = blahut_arimoto(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    assert found.bits == pytest.approx(1, abs=1e-4)
    assert found.inputs[1] < 0.01


def test_inputs_without_noise_hold_log2_of_their_number():
    means = np.linspace(-1, 1, 8)
    assert blahut_arimoto(transition(means, np.zeros(8))).bits == pytest.approx(3, abs=1e-4)


def test_rows_of_a_transition_are_distributions():
    rows = transition(np.array([-0.3, 0.9]), np.array([0.2, 0.01]), steps=5)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize(("write", "read"), list(itertools.product([2, 4], [2, 4])))
def test_few_levels_hold_less_than_their_logarithm_and_than_the_free_channel(write, read):
    channel = channels.resolve("pcm")
    means, stds = np.array(channel.means), np.array(channel.stds)
    found = limited(means, stds, write_levels=write, read_levels=read)
    assert found.bits <= min(np.log2(min(write, read)), of_channel(channel).bits) + 1e-3
    assert np.count_nonzero(found.inputs) <= write


def test_chosen_inputs_beat_or_equal_every_pair():
    means, stds = np.linspace(-0.6, 0.6, 9), np.linspace(0.3, 0.1, 9)
    chances = transition(means, stds, steps=4)
    best = max(blahut_arimoto(chances[list(pair)]).bits for pair in itertools.combinations(range(9), 2))
    assert limited(means, stds, write_levels=2, read_levels=4).bits == pytest.approx(best, abs=1e-3)


@pytest.fixture(scope="module")
def aligned():
    folder = data_folder()
    path = needed(folder and folder / "pcm" / "pcm_array_2014.csv", "the 2014 PCM array")
    device, volts, ohms = read_columns(path, ("device", "input_volts", "resistance_ohm"))
    return from_pairs(volts, 10 ** (np.log10(ohms) + ALIGNMENT[device.astype(int)]), log=True)


def test_aligned_array_has_the_published_capacity(aligned):
    assert of_channel(aligned).bits == pytest.approx(2.08, abs=0.03)


def test_eight_by_eight_levels_of_the_aligned_array(aligned):
    channel = Modifiers(write_bits=3, read_bits=3).apply(aligned)
    assert isinstance(channel, LimitedPrecision)
    # Published: 1.82, with read levels that are chosen; a converter of equal steps can but come near.
    assert best_of(channel).bits == pytest.approx(1.82, abs=0.03)
    assert of_channel(channel).bits < best_of(channel).bits  # with equally spaced inputs, and codes beyond the means


def test_limited_precision_holds_what_its_own_inputs_and_codes_hold():
    """Against transition probabilities counted from reads of the channel itself."""
    channel = LimitedPrecision(inner=GaussianNoise(sigma=0.3, low=-1, high=1), write_bits=1, read_bits=2)
    ends = np.float32([-1, 1])
    rng = np.random.default_rng(0)
    reads = [channel.read(np.full(200_000, end), cells=1, rng=rng) for end in ends]
    values = np.unique(np.concatenate(reads).round(5))
    counted = np.array([[np.mean(row.round(5) == value) for value in values] for row in reads])
    assert of_channel(channel).bits == pytest.approx(blahut_arimoto(counted).bits, abs=0.005)  # 4·√(p/n) in each place


def test_pooled_and_partial_reset_arrays():
    # computed independently from the raw pairs, to two decimals
    assert of_channel(channels.resolve("pcm")).bits == pytest.approx(1.48, abs=0.01)
    assert of_channel(channels.resolve("pcm-partial-reset")).bits == pytest.approx(2.64, abs=0.01)


@pytest.mark.parametrize(("sigma", "bits"), [(0.05, 4.345), (0.01, 6.61)])
def test_a_quiet_cell_holds_more_than_its_levels_would_say(sigma, bits):
    """As found by the same iteration over 513 inputs and 8,000 bins; the span is 4."""
    found = of_channel(channels.GaussianNoise(sigma=sigma, low=-3.0, high=1.0)).bits
    assert found == pytest.approx(bits, abs=0.01)


def test_a_quiet_cell_holds_what_the_entropy_of_its_noise_leaves():
    found = of_channel(channels.GaussianNoise(sigma=1e-6, low=0.0, high=1.0)).bits
    assert found == pytest.approx(np.log2(1e6 / np.sqrt(2 * np.pi * np.e)), abs=1e-4)


def test_a_table_of_two_rows_holds_what_a_line_does():
    """Cells hold every level between the two rows, and not these alone."""
    table = channels.TableChannel(name="line", inputs=(-1.0, 1.0), means=(-1.0, 1.0), stds=(0.1, 0.1))
    line = channels.GaussianNoise(sigma=0.1, low=-1.0, high=1.0)
    assert of_channel(table).bits == pytest.approx(of_channel(line).bits, abs=1e-3)


# ------------------------------------------------------------------------------------------------ measured residuals


def made(draw, *, reads, sigma, inputs=17):
    """Return the channel of so many reads of each of some inputs, with noise of one law of variance 1."""
    x = np.repeat(np.linspace(-1, 1, inputs), reads)
    return from_pairs(x, x + sigma * draw(np.random.default_rng(reads), x.size))


def normal_noise(rng, count):
    return rng.standard_normal(count)


def two_points(rng, count):
    return rng.permutation(np.resize([-1.0, 1.0], count))


def explained(reads, inputs=17):
    """Return by how many bits n reads of each of m inputs may set measured noise apart from the normal law they follow.

    For any p(x), the gain in I(X; Y) is the divergence KL(f|normal) of the smoothed law f, which has the same variance,
    and a sampling error. With a kernel of width h, f has variance φ/(2√π·n·h) about φ, so that over the 2√(2·ln n) σ
    that n reads fill, the mean of KL = ½∫(f - φ)²/φ is √(2·ln n)/(2√π·n·h). The error is the mean of the information
    density over n·m reads, of which those at few inputs count most; its variance is at most that of ln φ and of the
    output's density, ½ nat² each.
    """
    width = 0.9 * reads**-0.2
    bias = np.sqrt(2 * np.log(reads)) / (2 * np.sqrt(np.pi) * reads * width)
    return (bias + 4 / np.sqrt(reads * inputs / 2)) / np.log(2)


@pytest.mark.parametrize("sigma", [0.001, 0.1, 0.4])  # the first has more than 100 standard deviations in its span
@pytest.mark.parametrize("reads", [50, 200, 1000])
def test_measured_noise_that_is_normal_holds_what_normal_noise_does(reads, sigma):
    found = both(made(normal_noise, reads=reads, sigma=sigma))
    assert found.measured == pytest.approx(found.normal, abs=explained(reads))


@pytest.mark.parametrize("sigma", [0.001, 0.05, 0.2])
def test_noise_of_two_points_leaves_more_than_normal_noise_of_the_same_variance(sigma):
    found = both(made(two_points, reads=400, sigma=sigma))
    # Normal noise is the worst of all with a given variance. n reads tell points to a kernel's width h, so noise has an
    # entropy of 1 bit and that of the kernel, in place of a normal law's; that is all where the span is many σ.
    gain = np.log2(1 / 0.9 * 400**0.2) - 1
    assert found.measured > found.normal + gain / 2
    if sigma == 0.001:
        assert found.measured == pytest.approx(found.normal + gain, abs=0.02)  # tails of the two kernels overlap


def test_more_reads_tell_more_of_noise_of_two_points():
    few, many = (both(made(two_points, reads=reads, sigma=0.1)).measured for reads in (50, 500))
    assert many > few + 0.2


def test_a_smoothed_law_keeps_mean_and_variance():
    residuals = np.random.default_rng(0).exponential(size=300)
    law = smoothed(residuals)
    assert law.centres.mean() == pytest.approx(residuals.mean())
    assert law.centres.var() + law.width**2 == pytest.approx(residuals.var())
    assert 0 < law.width < residuals.std()


@pytest.mark.parametrize("residuals", [[0.3], [0.3, 0.3, 0.3]])
def test_residuals_without_spread_are_noise_free(residuals):
    law = smoothed(np.array(residuals))
    assert law.width < 1e-6
    np.testing.assert_allclose(law.centres, 0.3)


@pytest.mark.parametrize(("write", "read"), [(1, 2), (3, 3)])
def test_limited_precision_holds_what_reads_of_its_residuals_hold(write, read):
    """Against transition probabilities counted from reads of the channel itself, which its codes make discrete."""
    table = made(two_points, reads=400, sigma=0.3)
    channel = Modifiers(write_bits=write, read_bits=read, residuals="empirical").apply(table)
    levels = np.interp(np.linspace(-1, 1, 2**write), table.inputs, table.means).astype(np.float32)
    rng = np.random.default_rng(0)
    reads = [channel.read(np.full(50_000, level), cells=1, rng=rng) for level in np.clip(levels, *table.span)]
    values = np.unique(np.concatenate(reads).round(5))
    counted = np.array([[np.mean(row.round(5) == value) for value in values] for row in reads])
    normal, measured = both(channel)
    exact = blahut_arimoto(counted).bits
    assert abs(measured - exact) < abs(normal - exact)
    assert best_of(channel).bits > best_of(channel.changed(residuals="gaussian")).bits  # normal noise is the worst


def test_a_channel_without_measurements_has_no_measured_capacity():
    assert both(GaussianNoise(sigma=0.1, low=-1, high=1)).measured is None
    assert both(channels.resolve("pcm-drift")).measured is None


@pytest.mark.parametrize("residuals", ["gaussian", "empirical"])
def test_both_capacities_are_the_same_whichever_noise_a_channel_draws(residuals):
    channel = channels.resolve("pcm-partial-reset")
    found = both(channel.changed(residuals=residuals))
    assert found == both(channel)
    drawn = of_channel(channel.changed(residuals=residuals)).bits
    assert drawn == (found.normal if residuals == "gaussian" else found.measured)
    assert found.measured > found.normal  # skewed, with heavy tails
    assert str(found) == "2.65 bits per cell for normal reads, 2.71 for residuals as measured"


def test_cells_that_share_a_device_have_no_measured_capacity():
    assert both(channels.resolve("pcm").changed(cells_on="same")).measured is None
