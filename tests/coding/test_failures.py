"""Failures of digital streams: how many there are, and what they do."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.codes import best_code, repeated
from onnx_analog.coding.failures import failed_runs, flipped, most_frequent, wrong_bits
from onnx_analog.coding.scheme import Scheme
from onnx_analog.randomness import stream

NOISY = GaussianNoise(sigma=0.5, low=-1, high=1)
BCH = Scheme(channel=NOISY, code="bch", block_bits=64, block_failure=0.02)
RAW = BCH.changed(code="none")


def rng(trial=0):
    return stream(0, trial, "test")


def test_blocks_fail_as_often_as_the_code_says():
    """The number of failures is binomial; a sum over 2,000 draws of 500 blocks is within five standard deviations."""
    code, draws, blocks = best_code(NOISY, "bch", block_bits=64, block_failure=0.02), 2000, 500
    runs = [failed_runs(BCH, "class", 64 * blocks, rng(trial), entropy_coded=True) for trial in range(draws)]
    count, chance = sum(map(len, runs)), code.block.failure
    assert abs(count - draws * blocks * chance) < 5 * np.sqrt(draws * blocks * chance)
    assert all(run.length == 64 and run.start % 64 == 0 for each in runs for run in each)
    starts = np.concatenate([[run.start for run in each] for each in runs]) / (64 * blocks)
    assert abs(starts.mean() - 0.5) < 5 / np.sqrt(12 * starts.size)


def test_repeated_bits_fail_one_by_one():
    code, draws, bits = repeated(NOISY, 0.02 / 64), 2000, 1000
    runs = [failed_runs(RAW, "mask", bits, rng(trial), entropy_coded=False) for trial in range(draws)]
    count = sum(map(len, runs))
    assert abs(count - draws * bits * code.bit_error) < 5 * np.sqrt(draws * bits * code.bit_error)
    assert all(run.length == 1 for each in runs for run in each)


def test_bits_without_a_code_are_wrong_at_the_error_rate_of_two_symbols():
    error, bits = best_code(NOISY, "none").bit_error, 10**6
    wrong = wrong_bits(RAW, "sign", bits, rng())
    assert np.unique(wrong).size == wrong.size
    assert abs(wrong.size - bits * error) < 5 * np.sqrt(bits * error)
    assert wrong_bits(RAW, "sign", 0, rng()).size == 0


def test_a_block_that_fails_has_one_wrong_bit_more_than_its_code_corrects():
    code = best_code(NOISY, "bch", block_bits=64, block_failure=0.02)
    sizes = []
    for trial in range(3000):
        wrong = wrong_bits(BCH, "sign", 64, rng(trial))
        if wrong.size:
            sizes.append(wrong.size)
        assert ((wrong >= 0) & (wrong < 64)).all()
    assert max(sizes) <= code.block.corrects + 1  # some are parity bits
    share = np.array(sizes) / (code.block.corrects + 1)
    assert abs(share.mean() - code.block.rate) < 5 / np.sqrt(len(sizes)) + 1 / (code.block.corrects + 1)


@pytest.mark.parametrize("name", ["class", "mask", "codebook"])
def test_a_soft_decision_code_is_assumed_never_to_fail(name):
    soft = BCH.changed(code="soft", block_failure=1)
    assert failed_runs(soft, name, 10**6, rng(), entropy_coded=name == "class") == []


def test_no_code_is_chosen_where_nothing_fails(monkeypatch):
    """Choosing one takes half a second; with the default, a block in 10^9 fails."""

    def refused(*_, **__):
        raise AssertionError("a code was chosen")

    monkeypatch.setattr("onnx_analog.coding.failures.code_of", refused)
    assert failed_runs(Scheme(), "class", 10**6, rng(), entropy_coded=True) == []


@given(st.data(), st.integers(1, 8), st.integers(1, 40))
def test_flipping_twice_changes_nothing_and_once_the_bits_that_are_named(data, width, count):
    values = np.array(data.draw(st.lists(st.integers(0, 2**width - 1), min_size=count, max_size=count)), np.uint8)
    places = np.array(sorted(data.draw(st.sets(st.integers(0, count * width - 1)))), np.int64)
    once = flipped(values, width, places)
    assert flipped(once, width, places).tolist() == values.tolist()
    bits = [np.unpackbits(each[:, None], axis=1)[:, 8 - width :].reshape(-1) for each in (values, once)]
    assert np.flatnonzero(bits[0] != bits[1]).tolist() == places.tolist()


def test_lost_weights_are_read_as_of_the_most_frequent_class():
    assert most_frequent(np.array([3, 9, 5]), (1, 1, 2)).tolist() == [1, 1, 1]
    assert most_frequent(np.array([3, 9, 5]), (1, 0, 2)).tolist() == [2, 1, 2]
    assert most_frequent(np.array([3, 9, 5]), (0, 0, 1)).tolist() == [1, 1, 2]
