"""BCH codes: parity against tables and a library, failures against the binomial law, cells against counting."""

from __future__ import annotations

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from onnx_analog import channels
from onnx_analog.channels.gaussian import GaussianNoise
from onnx_analog.channels.symbols import Packing, symbols_of
from onnx_analog.coding.codes import Block, bch, best_code, parity_bits, repeated
from onnx_analog.coding.scheme import CODES
from onnx_analog.errors import OptionError

# (n, k, t) of primitive binary BCH codes: Lin and Costello, Error Control Coding, 2nd edition, table 6.1.
TABLE = [
    (7, 4, 1), (15, 11, 1), (15, 7, 2), (15, 5, 3), (31, 26, 1), (31, 21, 2), (31, 16, 3), (31, 11, 5), (31, 6, 7),
    (63, 57, 1), (63, 51, 2), (63, 45, 3), (63, 39, 4), (63, 36, 5), (63, 30, 6), (63, 24, 7), (63, 18, 10),
    (63, 16, 11), (63, 10, 13), (63, 7, 15), (127, 64, 10), (127, 8, 31), (255, 131, 18), (255, 9, 63), (1023, 11, 255),
    (511, 304, 25), (1023, 648, 40),  # by galois 0.4.11, from generator polynomials
]  # fmt: skip


@pytest.mark.parametrize(("length", "data", "corrects"), TABLE)
def test_parity_is_that_of_published_tables(length, data, corrects):
    assert parity_bits(length.bit_length())[corrects] == length - data


@pytest.mark.parametrize("degree", range(2, 15))
def test_each_error_costs_at_most_its_degree_in_parity(degree):
    parity = parity_bits(degree)
    assert parity[0] == 0
    assert all(0 <= more - less <= degree for less, more in pairwise(parity))
    assert parity[1] == degree


@pytest.mark.parametrize("bit_error", [0.0, 1e-6, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("data", [1, 11, 100, 4096])
def test_a_block_fails_no_more_than_asked_and_one_error_less_would_fail_more(data, bit_error):
    block = bch(data, bit_error, 1e-9)
    assert block.data == data
    expected = scipy.stats.binom.sf(block.corrects, block.length, bit_error)
    assert block.failure == pytest.approx(expected, rel=1e-9, abs=0)
    assert block.failure <= 1e-9
    if block.corrects:
        parity = parity_bits(next(m for m in range(2, 17) if data + block.length - data <= 2**m - 1))
        fewer = data + parity[block.corrects - 1]
        assert scipy.stats.binom.sf(block.corrects - 1, fewer, bit_error) > 1e-9
    else:
        assert block.length == data


def test_overheads_at_raw_error_rates():
    """As measured in a sketch that used the bound of m·t parity bits: 1.3, 2.5, 7.0, 13 and 33 %."""
    overheads = [100 * (1 / bch(4096, p, 1e-9).rate - 1) for p in (1e-5, 1e-4, 1e-3, 3e-3, 1e-2)]
    assert overheads == pytest.approx([1.3, 2.5, 7.0, 13.0, 33.0], rel=0.05)


def test_failures_are_what_is_counted():
    """Draw blocks of independent errors: with more than t, a bounded-distance decoder fails."""
    block = bch(100, 0.01, 1e-2)
    rng, count = np.random.default_rng(0), 100_000
    failed = (rng.binomial(block.length, 0.01, size=count) > block.corrects).mean()
    assert failed == pytest.approx(block.failure, abs=5 * math.sqrt(block.failure / count))


@pytest.mark.parametrize("data", [11, 500, 4096])
@pytest.mark.parametrize("error", [1e-12, 1e-6, 1e-4, 3e-3, 0.01, 0.03, 0.05, 0.1])
@pytest.mark.parametrize("failure", [1e-3, 1e-9])
def test_the_shortest_block_is_that_of_all_numbers_of_errors(data, error, failure):
    lengths = []
    first = max(2, (data + 1).bit_length())
    for degree in range(first, max(first + 2, 11)):
        parity = np.array(parity_bits(degree))
        parity = parity[parity + data <= 2**degree - 1]
        chances = scipy.stats.binom.sf(np.arange(parity.size), data + parity, error)
        enough = np.flatnonzero(chances <= failure)
        lengths += [data + int(parity[enough[0]])] if enough.size else []
    block = bch(data, error, failure)
    assert (block.length if block else None) == min(lengths, default=None)


def test_no_code_corrects_noise():
    assert bch(4096, 0.4, 1e-9) is None


# ------------------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset", "gaussian"])
def test_a_code_holds_less_than_the_bound_of_its_decisions(name):
    channel = channels.resolve(name)
    raw, hard, soft = (best_code(channel, code) for code in ("none", "bch", "soft"))
    assert (raw.effort, hard.effort, soft.effort) == ("none", "hard", "soft")
    assert raw.bits_per_cell == 1
    assert hard.bits_per_cell <= symbols_of(channel, hard.symbols).hard_bits
    assert soft.bits_per_cell == 0.95 * symbols_of(channel, soft.symbols).soft_bits


@given(bits=st.integers(0, 10**6), name=st.sampled_from(CODES))
def test_cells_hold_the_bits_and_one_block_more_at_most(bits, name):
    code = best_code(channels.resolve("pcm-partial-reset"), name)
    cells = code.cells(bits)
    assert cells >= bits / code.bits_per_cell - 1e-6 or name == "bch"
    block = code.block or Block(1, 1, 0, 0.0)
    most = (bits + block.data) / code.bits_per_cell + (code.packing.cells if code.packing else 1)
    assert cells <= most
    assert code.cells(0) == 0
    assert cells <= code.cells(bits + 1)


def test_the_last_block_is_shortened():
    code = best_code(channels.resolve("pcm"), "bch")
    parity = code.block.length - code.block.data
    assert code.cells(1) == 1 + parity
    assert code.cells(code.block.data) == code.block.length
    assert code.cells(code.block.data + 1) == code.block.length + 1 + parity


def test_smaller_failures_cost_more_cells():
    channel = channels.resolve("pcm-partial-reset")
    rates = [best_code(channel, "bch", block_failure=failure).bits_per_cell for failure in (1e-3, 1e-6, 1e-9, 1e-12)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset", "rram-wan"])
def test_the_search_finds_the_best_of_all_codes(name):
    """It leaves codes out that a bound rules out; here every one is computed."""
    channel, best = channels.resolve(name), 0.0
    for m in (2, 3, 4, 5, 6, 7, 8, 10, 12):
        for packing in Packing.of(m):
            block = bch(4096, packing.bit_error(symbols_of(channel, m).confusion), 1e-9)
            best = max(best, packing.bits_per_cell * block.rate if block else 0.0)
    assert best_code(channel, "bch").bits_per_cell == best


def test_where_single_cells_are_too_noisy_several_hold_a_symbol():
    """With 4^k as many cells, the noise of an average is 2^k times smaller."""
    quiet, noisy = GaussianNoise(sigma=0.2, low=-1, high=1), GaussianNoise(sigma=1.6, low=-1, high=1)
    single, several = best_code(quiet, "bch"), best_code(noisy, "bch")
    assert single.copies == 1 < several.copies <= 64
    assert several.bits_per_cell >= single.bits_per_cell / 64
    assert several.cells(4096) == several.copies * several.packing.cells * -(
        -several.block.length // several.packing.bits
    )


@pytest.mark.parametrize("failure", [1e-3, 1e-9, 1e-13])
def test_a_bit_is_repeated_as_often_as_needed_and_not_more(failure):
    """Two levels 2·s·z apart, read with noise s/√r, are told apart with an error of Φ(-z·√r)."""
    code = repeated(GaussianNoise(sigma=0.5, low=-1, high=1), failure)
    needed = (scipy.stats.norm.isf(failure) / 2) ** 2
    assert code.copies == math.ceil(needed)
    assert code.bit_error <= failure
    assert code.effort == "none"
    assert code.cells(10) == 10 * code.copies


def test_what_cannot_be_coded_is_refused():
    noise = GaussianNoise(sigma=1000.0)
    with pytest.raises(OptionError, match="no BCH code of 4,096 data bits fails with at most 1e-09 in gaussian"):
        best_code(noise, "bch")
    with pytest.raises(OptionError, match="code is 'ldpc'; it must be one of none, bch, soft"):
        best_code(noise, "ldpc")
    with pytest.raises(OptionError, match="no number of cells, averaged, reads a bit of gaussian"):
        repeated(noise, 1e-12)
