"""Symbols in cells: their places, thresholds, error rates and information, against closed forms and against reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog import channels
from onnx_analog.channels import symbols
from onnx_analog.channels.capacity import blahut_arimoto, transition
from onnx_analog.channels.gaussian import GaussianNoise
from onnx_analog.channels.symbols import Packing, Symbols, crossings, information, interval_chances, symbols_of
from onnx_analog.errors import OptionError
from onnx_analog.randomness import stream

WIDE = GaussianNoise(sigma=0.1, low=-1.0, high=1.0)


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_with_one_standard_deviation_symbols_are_equally_spaced_and_pam_errors_follow(count):
    made = Symbols(WIDE, count)
    np.testing.assert_allclose(made.levels, np.linspace(-1, 1, count), atol=2e-6)
    step = 2 / (count - 1)
    np.testing.assert_allclose(made.thresholds, np.linspace(-1 + step / 2, 1 - step / 2, count - 1), atol=4e-6)
    # Pulse amplitude modulation with m symbols at distance d: an error has the chance 2(m - 1)/m·Q(d/2σ).
    expected = 2 * (count - 1) / count * scipy.stats.norm.sf(step / 0.2)
    assert made.error == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset"])
def test_neighbours_are_equally_far_apart_in_standard_deviations(name):
    channel = channels.resolve(name)
    made = Symbols(channel, 5)
    level = np.linspace(*channel.span, 20_001).astype(np.float32)[1:-1]
    _, std = channel.moments(level)
    passed = np.concatenate([[0.0], np.cumsum(np.diff(level) / ((std[1:] + std[:-1]) / 2))])
    at = np.interp(made.levels, level, passed)
    # Two rules of integration: σ of a table is piecewise linear, so both are within the square of a knot's share.
    np.testing.assert_allclose(np.diff(at), passed[-1] / 4, rtol=2e-3)
    assert (made.levels[0], made.levels[-1]) == pytest.approx(channel.span, abs=1e-6)


@pytest.mark.parametrize(("name", "count"), [("pcm", 2), ("pcm", 4), ("pcm-partial-reset", 6)])
def test_reads_are_misread_as_often_as_the_confusion_says(name, count):
    channel, reads = channels.resolve(name), 100_000
    made = symbols_of(channel, count)
    for number, level in enumerate(made.levels):
        read = channel.read(np.full(reads, level), cells=1, rng=stream(1, 0, "test", block=number))
        decided = np.bincount(np.searchsorted(made.thresholds, read), minlength=count) / reads
        std = np.sqrt(made.confusion[number] * (1 - made.confusion[number]) / reads)
        # 5 standard deviations of a binomial share, and one count, for what is too rare to be normal.
        assert (np.abs(decided - made.confusion[number]) <= 5 * std + 2 / reads).all()


def test_counted_errors_are_never_rarer_than_normal_ones():
    channel = channels.resolve("pcm-drift")
    assert not channel.normal
    made = Symbols(channel, 4)
    edges = np.concatenate([[-np.inf], made.thresholds, [np.inf]])
    of_normal = interval_chances(edges, *made.moments)
    off = ~np.eye(4, dtype=bool)
    assert (made.confusion[off] >= of_normal[off]).all()
    np.testing.assert_allclose(made.confusion.sum(axis=1), 1, atol=1e-12)


def test_chances_in_a_tail_keep_their_digits():
    (row,) = interval_chances(np.array([-np.inf, 12.0, np.inf]), np.array([0.0]), np.array([1.0]))
    assert row[1] == pytest.approx(scipy.stats.norm.sf(12), rel=1e-12)


@pytest.mark.parametrize(("s1", "s2"), [(1.0, 1.0), (1.0, 1.0 + 1e-12), (0.2, 1.0), (1.0, 0.2), (1e-9, 1.0)])
def test_likelihoods_are_equal_at_a_crossing(s1, s2):
    (at,) = crossings(np.array([0.0, 5.0]), np.array([s1, s2]))
    assert 0 < at < 5
    first, second = scipy.stats.norm.logpdf(at, 0, s1), scipy.stats.norm.logpdf(at, 5, s2)
    # The slope of each is at most at/s², which multiplies the rounding of `at`.
    assert first == pytest.approx(second, rel=1e-6, abs=1e-9 + 5 * 2.0**-52 * at / min(s1, s2) ** 2)


@given(st.lists(st.tuples(st.floats(0.5, 2), st.floats(0.05, 0.3)), min_size=2, max_size=16))
def test_likelihoods_of_neighbours_are_equal_at_the_crossings(laws):
    steps, std = np.array(laws).T
    mean = np.cumsum(steps)  # more than one standard deviation apart, so that likelihoods cross between the means
    edges = crossings(mean, std)
    lower, upper = (scipy.stats.norm.logpdf(edges, mean[part], std[part]) for part in (slice(-1), slice(1, None)))
    # A crossing is rounded, and the slope of a likelihood there is below 4000.
    np.testing.assert_allclose(lower, upper, rtol=1e-9, atol=1e-9)


def test_information_of_known_channels():
    flip = 0.11
    binary = np.array([[1 - flip, flip], [flip, 1 - flip]])
    expected = 1 + flip * math.log2(flip) + (1 - flip) * math.log2(1 - flip)
    assert information(binary) == pytest.approx(expected, abs=1e-12)
    assert information(np.full((4, 4), 0.25)) == pytest.approx(0, abs=1e-12)
    erasure = np.array([[0.7, 0.0, 0.3], [0.0, 0.7, 0.3]])
    assert information(erasure) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_what_is_decided_tells_no_more_than_the_read_and_neither_more_than_log2_m(count):
    made = symbols_of(channels.resolve("pcm"), count)
    fine = 1e-3  # `transition` has 400 bins
    assert made.hard_bits <= made.soft_bits + fine
    assert made.soft_bits <= blahut_arimoto(transition(*made.moments)).bits + fine  # the best shares of the symbols
    assert made.soft_bits <= math.log2(count) + fine


# ------------------------------------------------------------------------------------------------------ groups


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8, 10, 12, 64])
def test_groups_hold_their_bits_and_larger_ones_more_for_each_cell(count):
    groups = Packing.of(count)
    assert groups
    for group in groups:
        assert 2**group.bits <= count**group.cells < 2 ** (group.bits + 1)
        words = {tuple(word) for word in group.words.tolist()}
        assert len(words) == 2**group.bits
        assert {symbol for word in words for symbol in word} <= set(range(count))
    rates = [group.bits_per_cell for group in groups]
    assert rates == sorted(set(rates))
    if count & (count - 1) == 0:
        assert groups == [Packing(count, 1, count.bit_length() - 1)]


@pytest.mark.parametrize("group", [Packing(3, 2, 3), Packing(4, 1, 2), Packing(6, 2, 5)])
def test_neighbouring_numbers_differ_by_one_step_in_one_cell(group):
    steps = np.abs(np.diff(group.words, axis=0))
    assert (steps.sum(axis=1) == 1).all()


def test_the_bit_error_of_a_gray_code_is_that_of_its_neighbours():
    p = 1e-3
    confusion = np.array([[1 - p, p, 0, 0], [p, 1 - 2 * p, p, 0], [0, p, 1 - 2 * p, p], [0, 0, p, 1 - p]])
    assert Packing(4, 1, 2).bit_error(confusion) == pytest.approx(6 * p / 4 / 2, rel=1e-12)
    assert Packing(4, 1, 2).bit_error(np.eye(4)) == 0
    assert Packing(3, 2, 3).bit_error(np.eye(3)) == 0


def test_the_bit_error_of_a_group_is_what_is_counted():
    """A second way: write random numbers, read each cell, look the number up, and count wrong bits."""
    confusion = np.array([[0.9, 0.08, 0.02], [0.1, 0.8, 0.1], [0.02, 0.08, 0.9]])
    group, rng, count = Packing(3, 2, 3), stream(0, 0, "test"), 200_000
    number = {tuple(word): index for index, word in enumerate(group.words.tolist())}
    (missing,) = {(a, b) for a in range(3) for b in range(3)} - set(number)
    steps = {word: abs(word[0] - missing[0]) + abs(word[1] - missing[1]) for word in number}
    number[missing] = min((distance, number[word]) for word, distance in steps.items())[1]
    stored = rng.integers(8, size=count)
    cells = group.words[stored]
    read = (rng.random((count, 2, 1)) >= np.cumsum(confusion, axis=1)[cells][..., :-1]).sum(axis=-1)
    table = np.array([[number[a, b] for b in range(3)] for a in range(3)])
    decided = table[read[:, 0], read[:, 1]]
    flipped = np.bitwise_count((stored ^ (stored >> 1)) ^ (decided ^ (decided >> 1)))
    # Bits of a group fail together: the standard error is that of the mean of flipped/3.
    error = flipped.std() / 3 / math.sqrt(count)
    assert flipped.mean() / 3 == pytest.approx(group.bit_error(confusion), abs=5 * error)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(1e-3, 1)), min_size=2, max_size=6))
def test_thresholds_never_fall_whatever_the_means(laws):
    """Drift can turn the order of two means around."""
    mean, std = np.array(laws).T
    assert (np.diff(crossings(mean, std)) >= 0).all()


@pytest.mark.parametrize("count", [1, 65, 2.5, True])
def test_a_number_of_symbols_out_of_range_is_refused(count):
    with pytest.raises(OptionError, match="symbols is"):
        Symbols(WIDE, count)
    assert symbols.MOST_SYMBOLS == 64
