"""BCH codes: their words are those of another library, and as many errors as promised are corrected."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from onnx_analog.coding.bch import Code, code_of_block, field
from onnx_analog.coding.codes import bch

# Degree, errors, data bits, and the beginning of the SHA-256 of the parity of three random blocks: by galois 0.4.11,
# with the primitive polynomials x^4 + x + 1, x^8 + x^4 + x^3 + x^2 + 1, x^10 + x^3 + 1 and x^13 + x^4 + x^3 + x + 1.
OF_GALOIS = [
    (4, 2, 7, "9bc9d6804c14086b"),
    (8, 5, 100, "71aa828e8d178488"),
    (10, 3, 900, "d2034ac7fd0ead13"),
    (13, 7, 4096, "0240dbacff089953"),
    (13, 40, 4096, "afc2b91bc53d6b86"),
]


def drawn(count: int, bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, bits)) < 0.5


def with_errors(words: np.ndarray, errors: list[int], seed: int = 1) -> np.ndarray:
    rng, wrong = np.random.default_rng(seed), words.copy()
    for row, count in zip(wrong, errors, strict=True):
        row[rng.choice(row.size, count, replace=False)] ^= True
    return wrong


def words_of(code: Code, data: np.ndarray) -> np.ndarray:
    return np.concatenate([data, code.encode(data)], axis=1)


@pytest.mark.parametrize(("degree", "corrects", "bits", "digest"), OF_GALOIS)
def test_words_are_those_of_galois(degree, corrects, bits, digest):
    parity = Code(degree, corrects).encode(drawn(3, bits, seed=degree))
    assert hashlib.sha256(np.packbits(parity).tobytes()).hexdigest()[:16] == digest
    parity[0, 0] ^= True
    assert hashlib.sha256(np.packbits(parity).tobytes()).hexdigest()[:16] != digest


def test_generators_are_those_of_text_books():
    """Lin and Costello, Error Control Coding, for length 15: 1, 2 and 3 errors."""
    found = [Code(4, corrects).generator for corrects in (1, 2, 3)]
    assert found == [0b10011, 0b111010001, 0b10100110111]


@pytest.mark.parametrize("degree", [2, 3, 5, 8, 11, 13])
def test_a_field_is_one(degree):
    of, rng = field(degree), np.random.default_rng(0)
    a, b, c = rng.integers(0, of.order + 1, (3, 1000))
    assert sorted(of.power[: of.order].tolist()) == list(range(1, of.order + 1))
    assert np.array_equal(of.times(a, b ^ c), of.times(a, b) ^ of.times(a, c))
    assert np.array_equal(of.times(of.times(a, b), c), of.times(a, of.times(b, c)))
    assert np.array_equal(of.times(a, np.ones_like(a)), a)
    assert not of.times(a, np.zeros_like(a)).any()


@pytest.mark.parametrize(
    ("degree", "corrects", "bits"), [(4, 2, 7), (5, 3, 4), (8, 5, 150), (13, 7, 4096), (13, 60, 500)]
)
def test_up_to_t_errors_are_corrected(degree, corrects, bits):
    code, data = Code(degree, corrects), drawn(30, bits)
    words = words_of(code, data)
    errors = [number % (corrects + 1) for number in range(30)]
    decoded, good = code.decode(with_errors(words, errors))
    assert good.all()
    assert np.array_equal(decoded, words)


@pytest.mark.parametrize("corrects", [7, 60])
def test_a_word_with_more_errors_is_left_as_it_is(corrects):
    """Of words of a long code, one in t! looks like another word with t errors (McEliece and Swanson 1986)."""
    code = Code(13, corrects)
    wrong = with_errors(words_of(code, drawn(20, 4096)), [corrects + 1 + number % 3 for number in range(20)])
    decoded, good = code.decode(wrong)
    assert not good.any()
    assert np.array_equal(decoded, wrong)


def test_a_short_code_may_take_a_word_for_another():
    """All words of the Hamming code of length 7 are within one error of a code word, so two errors go unnoticed."""
    code = Code(3, 1)
    words = words_of(code, drawn(50, 4))
    decoded, good = code.decode(with_errors(words, [2] * 50))
    assert good.all()
    assert (decoded != words).any(axis=1).all()


def test_without_errors_to_correct_there_is_no_parity():
    code, data = Code(8, 0), drawn(3, 20)
    assert code.encode(data).shape == (3, 0)
    decoded, good = code.decode(data)
    assert good.all()
    assert np.array_equal(decoded, data)


def test_every_block_has_a_code_that_corrects_as_many_errors():
    for data, error in ((1, 0.05), (10, 0.05), (100, 1e-3), (4096, 5e-5), (4096, 0.01), (2**15, 1e-3)):
        block = bch(data, error, 1e-6)
        code = code_of_block(block)
        words = words_of(code, drawn(1, data))
        assert words.shape == (1, block.length)
        assert np.array_equal(code.decode(with_errors(words, [block.corrects]))[0], words)
