"""Entropy-coded streams: what was encoded is decoded, at the length that information theory allows."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding import entropy as entropy_module
from onnx_analog.coding.contexts import CONTEXTS
from onnx_analog.coding.entropy import (
    MODELS,
    SEGMENT,
    EncodedStream,
    decoded,
    encoded,
    entropy_bits,
    ways_to_encode,
)
from onnx_analog.coding.probabilities import entropy, fixed, gamma, rice, write_groups
from onnx_analog.errors import ModelError, OptionError

PRECISION = 24  # bits of the coder's probabilities
LEAST_RANGE = 8  # bits by which the coder's range is wider than that: what it rounds off is below 2^-8 of it


@st.composite
def sources(draw):
    """Return symbols, their alphabet, and how they are to be encoded."""
    alphabet = draw(st.integers(1, 256))
    few = draw(st.lists(st.integers(0, alphabet - 1), min_size=1, max_size=8))
    symbols = draw(st.lists(st.one_of(st.sampled_from(few), st.integers(0, alphabet - 1)), max_size=300))
    kernel = draw(st.sampled_from([None, (1, 1), (3, 3), (1, 7), (2, 5)]))
    settings = {"model": draw(st.sampled_from(MODELS)), "segment": draw(st.integers(1, 400)), "kernel": kernel}
    return np.array(symbols, np.uint8), alphabet, settings


def weights(count, step, seed=0):
    """Return normal weights in steps, as symbols of an alphabet."""
    symbols = np.rint(np.random.default_rng(seed).normal(size=count) / step).astype(np.int64)
    symbols -= symbols.min(initial=0)
    return symbols.astype(np.uint8), int(symbols.max(initial=0)) + 1


def smooth(kernels, seed=0):
    """Return symbols below 21 that resemble their neighbours in a kernel of 3 x 3."""
    noise = np.random.default_rng(seed).normal(size=(kernels, 5, 5))
    mean = sum(noise[:, i : i + 3, j : j + 3] for i in range(3) for j in range(3)) / 3
    return np.clip(np.rint(mean / 0.3) + 10, 0, 20).astype(np.uint8).reshape(-1)


# ------------------------------------------------------------------------------------------------- round trip


@given(sources())
def test_what_was_encoded_is_decoded_from_count_alphabet_segment_and_bits(source):
    symbols, alphabet, settings = source
    stream = encoded(symbols, alphabet, **settings)
    assert len(stream.data) == -(-stream.bits // 8)
    again = EncodedStream(symbols.size, alphabet, settings["segment"], stream.data, stream.bits)
    assert decoded(again).tobytes() == symbols.tobytes()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("segment", [1000, SEGMENT, 10**6])
def test_large_tensors_are_decoded(model, segment):
    symbols = smooth(4000)
    assert (decoded(encoded(symbols, 21, model=model, segment=segment, kernel=(3, 3))) == symbols).all()


@given(sources(), st.binary(max_size=8))
def test_what_follows_a_stream_does_not_matter(source, following):
    """Its end is not known to a decoder, and need not be."""
    symbols, alphabet, settings = source
    stream = encoded(symbols, alphabet, **settings)
    digits = np.append(stream.digits(0, stream.bits), np.unpackbits(np.frombuffer(following, np.uint8)))
    longer = replace(stream, data=np.packbits(digits).tobytes(), bits=digits.size)
    assert (decoded(longer) == symbols).all()


def test_no_symbols_take_no_bits():
    stream = encoded(np.zeros(0, np.uint8), 5)
    assert (stream.bits, stream.data, decoded(stream).size) == (0, b"", 0)


def test_one_symbol_takes_a_header_only():
    stream = encoded(np.full(10**5, 3, np.uint8), 16, segment=10**6)
    assert stream.bits == stream.header.starts[0] < 30


def test_the_bytes_are_always_the_same():
    symbols = np.bitwise_count(np.arange(50_000))
    data = b"".join(encoded(symbols, 17, model=model, segment=2**14, kernel=(3, 3)).data for model in MODELS)
    assert hashlib.sha256(data).hexdigest() == DIGEST


DIGEST = "42c2b3a4de0e34019ceffc8df1d679902f4786e7a30c9d8cb14c5f1a9466b204"


# ----------------------------------------------------------------------------------------------------- length


@given(sources())
def test_a_static_stream_is_as_long_as_information_and_coder_make_it(source):
    """No shorter than N·H, and no longer than header, cross-entropy, 2 bits for each segment and what the coder rounds.

    It rounds probabilities: up to one unit of 2^-24 for each symbol before, and for itself. And its range, of which
    less than 2^-8 is lost with each symbol.
    """
    symbols, alphabet, settings = source
    stream = encoded(symbols, alphabet, **settings | {"model": "static"})
    counts = np.bincount(symbols, minlength=alphabet)
    assert stream.bits >= entropy(counts)
    if not symbols.size:
        return
    table = stream.header.model.tables.weights[0].astype(np.float64)
    units = table / table.sum() * 2**PRECISION
    least = np.maximum(units - 2 * table.size, 1) / 2**PRECISION if table.size > 1 else np.ones(1)
    information = -(counts[counts > 0] * np.log2(least)).sum() + symbols.size * np.log2(1 + 2.0**-LEAST_RANGE)
    assert stream.bits <= stream.header.starts[0] + information + 2 * len(stream.parts)


@pytest.mark.parametrize("step", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("count", [300, 3000, 100_000])
def test_weights_take_their_entropy_and_little_more(count, step):
    """With half of log2(N) bits for each probability, as any code that learns them takes (Rissanen 1984).

    Besides: log2 of the number of steps, about 4 bits for each, that a table spans beyond its precision; and at most 1
    in 1,000, which the coder's range loses on average (2^-8 at its narrowest, a 2^-r part r bits above).
    """
    symbols, alphabet = weights(count, step)
    counts = np.bincount(symbols)
    overhead = (0.5 * np.log2(count) + 4) * alphabet + 20 + 14 * -(-count // SEGMENT)
    assert encoded(symbols, alphabet).bits <= 1.001 * entropy(counts) + overhead


@given(sources())
def test_contexts_never_lengthen_a_stream(source):
    symbols, alphabet, settings = source
    streams = [encoded(symbols, alphabet, **settings | {"model": model}) for model in MODELS]
    assert streams[1].bits <= streams[0].bits


def test_contexts_are_not_used_where_the_ends_of_segments_cost_what_they_save():
    """Two equally frequent symbols fill their bits; with contexts, each segment of 10 ends with a part of a bit."""
    changes = np.random.default_rng(0).random(800) < 0.3
    symbols = (np.cumsum(changes) % 2).astype(np.uint8)
    whole, parted = ([encoded(symbols, 2, model=model, segment=n) for model in MODELS] for n in (800, 10))
    assert whole[1].bits < whole[0].bits
    assert parted[1] == parted[0]


def test_contexts_of_independent_symbols_are_not_used():
    """They would save what chance makes of them, less than half of log2(N) bits a probability, which a table costs."""
    symbols, alphabet = weights(9000, 0.5)
    assert encoded(symbols, alphabet, model="context", kernel=(3, 3)) == encoded(symbols, alphabet)


def test_a_markov_chain_takes_its_conditional_entropy():
    """Two states that change with probability 0.1: 0.469 bits a symbol, where one table takes 1.

    The first symbol of each row has no neighbour, and takes about 1 bit; a row has 1,024.
    """
    changes = np.random.default_rng(0).random(200_000) < 0.1
    symbols = np.cumsum(changes) % 2
    stream = encoded(symbols.astype(np.uint8), 2, model="context", segment=10**6)
    conditional = entropy(np.array([changes.sum(), (~changes).sum()]))
    rows = -(-symbols.size // stream.header.model.kernel[1])
    assert conditional - 100 <= stream.bits <= 1.001 * conditional + rows + 300


def test_neighbours_in_a_kernel_save_bits():
    """Sums of nine numbers, six of them shared with each neighbour: of correlation 2/3, ½·log2(1/(1 - 4/9)) bits less.

    That is 0.42 bits for the eight of nine that have a neighbour; the second one saves more, and steps save less.
    """
    symbols = smooth(20_000)
    static, context = (encoded(symbols, 21, model=model, kernel=(3, 3)).bits for model in MODELS)
    assert static - context > 0.42 * symbols.size * 8 / 9


@pytest.mark.parametrize("source", ["normal", "laplace", "uniform", "rare"])
@pytest.mark.parametrize("count", [50, 432, 2304, 36_864, 300_000])
def test_planners_know_the_length_without_encoding(source, count):
    """Up to 2 bits for each segment and 1 in 1,000; and up to 10 for each length but the last."""
    draws = {
        "normal": lambda rng: rng.normal(size=count) * 2 + 8,
        "laplace": lambda rng: rng.laplace(size=count) * 2 + 20,
        "uniform": lambda rng: rng.random(count) * 20,
        "rare": lambda rng: rng.random(count) < 0.01,
    }
    symbols = np.clip(np.rint(draws[source](np.random.default_rng(1))), 0, 60).astype(np.uint8)
    bits = encoded(symbols, 61).bits
    segments = -(-count // SEGMENT)
    assert entropy_bits(np.bincount(symbols, minlength=61)) == pytest.approx(bits, abs=12 * segments, rel=0.001)


def test_no_symbols_cost_planners_nothing():
    assert entropy_bits(np.zeros(5, np.int64)) == 0


# ------------------------------------------------------------------------------------------------- what is odd


@given(sources(), st.data())
def test_a_damaged_header_is_refused_or_read_as_another(source, data):
    symbols, alphabet, settings = source
    stream = encoded(symbols, alphabet, **settings)
    if not stream.bits:
        return
    digits = stream.digits(0, stream.bits)
    where = data.draw(st.lists(st.integers(0, int(stream.header.starts[0]) - 1), min_size=1))
    digits[where] ^= 1
    try:
        assert decoded(replace(stream, data=np.packbits(digits).tobytes())).shape == symbols.shape
    except ModelError as error:
        assert str(error) == "the header of an entropy-coded stream is damaged: write the stream again"  # noqa: PT017


TABLE = fixed(0, 8) + rice(0, 0) * 2  # of two symbols, equally probable
TWO = gamma(1) + gamma(2)  # which are in use
GROUPS = write_groups([0] * CONTEXTS)


@pytest.mark.parametrize(
    ("header", "refused"),
    [
        ("0" + TWO + TABLE + gamma(11) + fixed(0, 5) + rice(0, 0), False),  # 10 bits of the first segment
        ("0" + TWO + TABLE + gamma(101) + fixed(0, 5) + rice(0, 0), True),
        ("0" + TWO + TABLE + gamma(2**63) + fixed(0, 5) + rice(0, 0), True),
        ("1" + TWO + gamma(3) + gamma(4) + fixed(1, 2) + GROUPS + TABLE + gamma(11) + fixed(0, 5) + rice(0, 0), False),
        ("1" + TWO + gamma(3) + gamma(4) + fixed(2, 2) + GROUPS + TABLE + gamma(11) + fixed(0, 5) + rice(0, 0), True),
        ("1" + TWO + gamma(2**9) + gamma(2**9) + fixed(1, 2) + GROUPS + TABLE + gamma(11) + fixed(0, 5) + "0", True),
    ],
)
def test_a_header_that_says_what_cannot_be_is_refused(header, refused):
    digits = np.append(np.frombuffer(header.encode(), np.uint8) - ord("0"), np.zeros(20, np.uint8))
    stream = EncodedStream(20, 2, 10, np.packbits(digits).tobytes(), digits.size)
    with pytest.raises(ModelError, match="damaged") if refused else nullcontext():
        assert decoded(stream).tolist() == [0] * 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "huffman"}, "model is 'huffman'; it must be one of static, context"),
        ({"alphabet": 0}, "alphabet is 0; it must be from 1 to 256"),
        ({"alphabet": 257}, "alphabet is 257; it must be from 1 to 256"),
        ({"alphabet": 3}, "symbols go up to 3; they must be below alphabet, 3"),
        ({"segment": 0}, "segment is 0; it must be at least 1"),
        ({"kernel": (3, 0)}, r"kernel is \(3, 0\); it must have from 1 to 4,096 places"),
        ({"kernel": (64, 65)}, r"kernel is \(64, 65\); it must have from 1 to 4,096 places"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(OptionError, match=f"^{message}$"):
        encoded(np.arange(4, dtype=np.uint8), **{"alphabet": 4} | changes)


def test_the_coder_is_imported_when_it_is_needed():
    code = "import onnx_analog.coding.joint, onnx_analog.coding.damage, sys; print('constriction' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("segment", [50, 200, SEGMENT])
def test_the_shortest_way_is_taken(segment):
    """Also where contexts save next to nothing, though only estimates are known before."""
    for kernels in range(5, 150, 2):
        settings = {"model": "context", "kernel": (3, 3), "segment": segment}
        symbols = smooth(kernels, seed=kernels)
        every = [way.encode().bits for way in ways_to_encode(symbols, 21, **settings)]
        assert encoded(symbols, 21, **settings).bits == min(every)


@pytest.mark.parametrize("alphabet", [1, 2, 3, 255, 256])
@pytest.mark.parametrize("above", [-2, -1, 0, 1])
@pytest.mark.parametrize("step", [1, 2])
def test_pairs_are_counted_as_single_symbols_are(alphabet, above, step):
    """Around the size from which pairs are counted, of even and odd sizes, and of symbols that do not lie together."""
    rng = np.random.default_rng(alphabet)
    symbols = rng.integers(alphabet, size=step * (entropy_module._MANY + above), dtype=np.uint8)[::step]
    expected = [np.count_nonzero(symbols == symbol) for symbol in range(alphabet)]
    assert entropy_module.histogram(symbols, alphabet).tolist() == expected


def test_a_way_may_be_encoded_again():
    for way in ways_to_encode(smooth(500), 21, model="context", kernel=(3, 3)):
        assert way.encode().data == way.encode().data
