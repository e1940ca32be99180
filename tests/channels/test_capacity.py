from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnx_analog import channels
from onnx_analog.channels import GaussianNoise, from_pairs
from onnx_analog.channels.capacity import best_of, blahut_arimoto, limited, of_channel, transition
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
