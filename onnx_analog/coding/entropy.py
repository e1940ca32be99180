"""Entropy-coded streams of class indices and masks: real bits, which decode again.

A stream is a header and segments. Each segment starts the range coder (Martin 1979) afresh, so that a lost segment
loses no other one, and ends with the fewest bits that need nothing after them: at most 2 more than the information in
its symbols. The header holds all else that a decoder needs beyond the number of symbols, the alphabet and the segment:
the model, the symbols in use, the probability tables, and the lengths of all segments but the last.

The model "static" has one table of probabilities. The model "context" has one for each group of contexts: see
`onnx_analog.coding.contexts`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.contexts import CONTEXTS, LINE, MOST_AREA, Decoded, Kernel, contexts_of
from onnx_analog.coding.partition import Bytes, Floats
from onnx_analog.coding.probabilities import (
    Fit,
    Ints,
    Merged,
    Reader,
    Tables,
    damaged,
    fit_several,
    fit_tables,
    fixed,
    gamma,
    merge_contexts,
    read_groups,
    read_used,
    rice,
    write_groups,
    write_used,
)
from onnx_analog.coding.scheme import SEGMENT_WEIGHTS
from onnx_analog.errors import OptionError

MODELS = ("static", "context")
SEGMENT = SEGMENT_WEIGHTS  # symbols
_GROUPS = (2, 3, 4, 6, 8, 12, 16, 24)  # of contexts, that are tried
_MOST_NUMBERS = 2**20  # in the tables of symbols that are encoded at once
_PRECISION = 24  # bits of the coder's probabilities
_WORD, STATE = 32, 64  # bits of the range coder
_ROUNDED = 0.01  # share of its bits by which a stream may be shorter than its tables say; probabilities have 24 bits
_LENGTH_BITS = 10  # of the length of a segment in a header, about


@dataclass(frozen=True, eq=False)
class Model:
    """How probable the symbols in use are.

    Attributes
    ----------
    used : uint8 array (U,)
        These symbols, ascending.
    tables : Tables
        Of their probabilities; one, or one for each group of contexts.
    groups : tuple of int, optional
        Of the contexts; none with the model "static".
    middle : int
        The most frequent symbol, if there are contexts.
    kernel : (height, width)
        Of the tensor, if there are contexts.
    """

    used: Bytes
    tables: Tables
    groups: tuple[int, ...] = ()
    middle: int = 0
    kernel: Kernel = LINE


class Header(NamedTuple):
    """What a header says: the model, and where each segment starts and the last one ends, (S + 1,)."""

    model: Model
    starts: Ints


@dataclass(frozen=True)
class EncodedStream:
    """An entropy-coded stream.

    Attributes
    ----------
    count : int
        N, the symbols.
    alphabet : int
        All symbols are below it.
    segment : int
        Symbols of a segment; the last one may have fewer.
    data : bytes
        Header and segments, the first bit highest.
    bits : int
        Of them; what is left of the last byte is 0.
    """

    count: int
    alphabet: int
    segment: int
    data: bytes
    bits: int

    @cached_property
    def header(self) -> Header:
        """What the header says; `ModelError` if it is damaged."""
        reader = Reader((self.digits(0, self.bits) + ord("0")).tobytes())
        model = _read_model(reader, self.alphabet)
        lengths = _read_lengths(reader, len(self.parts) - 1)
        starts = reader.position + np.cumsum([0, *lengths, 0])
        if starts[-1] > self.bits:
            raise damaged()
        starts[-1] = self.bits
        return Header(model, starts)

    @property
    def parts(self) -> list[slice]:
        """The symbols of each segment."""
        return _parts(self.count, self.segment)

    def digits(self, first: int, last: int) -> Bytes:
        """Return some of the bits, as numbers 0 and 1."""
        packed = np.frombuffer(self.data[first // 8 : -(-last // 8)], np.uint8)
        return np.unpackbits(packed)[first % 8 : first % 8 + last - first]


def _parts(count: int, segment: int) -> list[slice]:
    return [slice(start, min(start + segment, count)) for start in range(0, count, segment)]


# ----------------------------------------------------------------------------------------------------- encode


def encoded(
    symbols: Bytes, alphabet: int, *, model: str = "static", segment: int = SEGMENT, kernel: Kernel | None = None
) -> EncodedStream:
    """Return symbols as an entropy-coded stream.

    Parameters
    ----------
    symbols : uint8 array (N,)
        In the order of the tensor's flat index.
    alphabet : int, 1 to 256
        Above all symbols.
    model : str
        "static"; or "context", which is "static" where contexts save nothing.
    segment : int, >= 1
        Symbols that decode on their own.
    kernel : (height, width), optional
        The last two dimensions of the tensor, for contexts; without it, the symbol before is the only neighbour.

    Raises
    ------
    OptionError
        If there is no such model, or a number is out of its range.
    """
    _check(symbols, alphabet, model, segment, kernel or LINE)
    if not symbols.size:
        return EncodedStream(0, alphabet, segment, b"", 0)
    counts = np.bincount(symbols, minlength=alphabet)
    used = np.flatnonzero(counts).astype(np.uint8)
    ranks = (np.cumsum(counts > 0, dtype=np.int32) - 1).take(symbols)
    of_all, stages = counts[used][None], list[Merged]()
    if model == "context":
        middle, shape = int(counts.argmax()), kernel or LINE
        contexts = _contexts(symbols, middle, shape, segment)
        stages = merge_contexts(_counts_of(contexts, ranks, used.size), _GROUPS)
    static, *fits = fit_several([of_all, *(stage.counts for stage in stages)])
    streams = []
    if stages:
        number, bits = _shortest(stages, fits)
        if bits < static.bits:
            groups = tuple(stages[number].groups.tolist())
            richer = Model(used, fits[number].tables, groups, middle, shape)
            streams.append(_written(richer, ranks, contexts, alphabet, segment))
    if not streams or streams[0].bits > static.bits * (1 - _ROUNDED):
        streams.insert(0, _written(Model(used, static.tables), ranks, None, alphabet, segment))
    return min(streams, key=lambda stream: stream.bits)


def _check(symbols: Bytes, alphabet: int, model: str, segment: int, kernel: Kernel) -> None:
    if model not in MODELS:
        raise OptionError(f"model is {model!r}; it must be one of {', '.join(MODELS)}")
    if not 1 <= alphabet <= 256:
        raise OptionError(f"alphabet is {alphabet}; it must be from 1 to 256")
    if segment < 1:
        raise OptionError(f"segment is {segment}; it must be at least 1")
    if kernel != LINE and not (min(kernel) >= 1 and kernel[0] * kernel[1] <= MOST_AREA):
        raise OptionError(f"kernel is {kernel}; it must have from 1 to {MOST_AREA:,} places")
    if symbols.max(initial=0) >= alphabet:
        raise OptionError(f"symbols go up to {symbols.max()}; they must be below alphabet, {alphabet}")


def _contexts(symbols: Bytes, middle: int, kernel: Kernel, segment: int) -> Bytes:
    """Return the context of each symbol (N,), each segment on its own."""
    parts = _parts(symbols.size, segment)
    return np.concatenate([contexts_of(symbols[part], middle, kernel, part.start) for part in parts])


def _counts_of(contexts: Bytes, ranks: NDArray[np.int32], used: int) -> Ints:
    """Return how often each symbol in use occurs in each context, (CONTEXTS, U)."""
    counts: Ints = np.bincount(contexts.astype(np.int32) * used + ranks, minlength=CONTEXTS * used)
    return counts.reshape(CONTEXTS, used)


def _shortest(stages: list[Merged], fits: list[Fit]) -> tuple[int, float]:
    """Return which groups of contexts take the fewest bits, groups and tables included, and these bits."""
    best, least = 0, np.inf
    for number in sorted(range(len(stages)), key=lambda number: fits[number].bits):
        groups, bits = stages[number].groups, fits[number].bits
        if bits + groups.size >= least:  # to write the group of a context takes a bit at least
            break
        bits += len(write_groups(groups.tolist()))
        if bits < least:
            best, least = number, bits
    return best, least


def _written(
    model: Model, ranks: NDArray[np.int32], contexts: Bytes | None, alphabet: int, segment: int
) -> EncodedStream:
    """Return the stream of symbols with the `ranks` (N,) among those in use."""
    groups = None if contexts is None else np.array(model.groups, np.uint8).take(contexts)
    parts = _parts(ranks.size, segment)
    payloads = [_payload(model, ranks[part], None if groups is None else groups[part]) for part in parts]
    header = _write_model(model, alphabet) + _write_lengths([payload.size for payload in payloads[:-1]])
    digits = np.concatenate([np.frombuffer(header.encode(), np.uint8) - ord("0"), *payloads])
    return EncodedStream(ranks.size, alphabet, segment, np.packbits(digits).tobytes(), digits.size)


def _payload(model: Model, ranks: NDArray[np.int32], groups: Bytes | None) -> Bytes:
    """Return the bits of one segment."""
    from constriction import stream as coder

    weights = model.tables.weights
    if model.used.size == 1:
        return np.zeros(0, np.uint8)
    encoder = coder.queue.RangeEncoder()
    if groups is None:
        encoder.encode(ranks, coder.model.Categorical(weights[0], perfect=False))
        return _ending(encoder)
    bins, places = _three_bins(weights)
    for part in _parts(ranks.size, _MOST_NUMBERS // 3):
        row = groups[part].astype(np.int32) * model.used.size + ranks[part]
        encoder.encode(places.take(row), coder.model.Categorical(perfect=False), bins.take(row, axis=0))
    return _ending(encoder)


def _three_bins(weights: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return a table of three symbols for each one of each table, (C·U, 3), that codes it alike, and its place there.

    A coder turns a table of U weights, in float32, into whole numbers of 2^24: bin k begins at the sum of the weights
    before, times (2^24 - U) / (their sum), rounded down, plus k. All that a symbol's code depends on is where its bin
    begins and ends, so a table of this bin, and what is before and after, codes it in less time. Its weights are whole
    numbers below 2^24, which float32 holds exactly, and their sum is 2^24 - 3.
    """
    total, (tables, used) = 2**_PRECISION, weights.shape
    sums = np.cumsum(weights, axis=1, dtype=np.float32)
    ends = np.zeros((tables, used + 1), np.int64)
    ends[:, 1:-1] = sums[:, :-1] * (np.float32(total - used) / sums[:, -1:])
    ends += np.arange(used + 1)
    ends[:, -1] = total
    before, after = ends[:, :-1], total - ends[:, 1:]
    bins = np.empty((tables, used, 3), np.float32)
    bins[..., 0], bins[..., 1], bins[..., 2] = before - 1, np.diff(ends) - 1, after - 1
    bins[:, 0] = np.stack([bins[:, 0, 1], after[:, 0] - 2, np.zeros(tables)], axis=1)  # a first bin has none before it
    bins[:, -1] = np.stack([np.zeros(tables), before[:, -1] - 2, bins[:, -1, 1]], axis=1)  # nor a last one any after it
    places = np.ones((tables, used), np.int32)
    places[:, 0], places[:, -1] = 0, 2
    return bins.reshape(-1, 3), places.reshape(-1)


def _ending(encoder: Any) -> Bytes:
    """Return the fewest bits that decode to what was encoded, whatever follows them.

    A range coder ends with an interval. Its bits are those of a whole interval between two multiples of a power of two
    inside it.
    """
    words, (lower, size) = encoder.pos()
    padded = np.zeros(words + STATE // _WORD, ">u4")
    point = encoder.get_compressed()
    padded[: point.size] = point
    inside = int.from_bytes(padded.tobytes(), "big")
    start = inside - (inside - lower) % 2**STATE  # of the interval; `lower` is its last 64 bits
    dropped = size.bit_length() - 1
    while ((-(-start >> dropped) + 1) << dropped) > start + size:
        dropped -= 1
    count = _WORD * words + STATE - dropped
    number = -(-start >> dropped) << (-count % 8)
    return np.unpackbits(np.frombuffer(number.to_bytes(-(-count // 8), "big"), np.uint8), count=count)


# ----------------------------------------------------------------------------------------------------- header


def _write_model(model: Model, alphabet: int) -> str:
    contexts = ""
    if model.groups:
        rank = int(np.searchsorted(model.used, model.middle))
        height, width = model.kernel
        middle = fixed(rank, int(model.used.size).bit_length())
        contexts = gamma(height) + gamma(width + 1) + middle + write_groups(model.groups)
    return fixed(bool(model.groups), 1) + write_used(model.used, alphabet) + contexts + model.tables.write()


def _read_model(reader: Reader, alphabet: int) -> Model:
    with_contexts = reader.fixed(1)
    used = read_used(reader, alphabet)
    if not with_contexts:
        return Model(used, Tables.read(reader, 1, used.size))
    kernel = reader.gamma(), reader.gamma() - 1
    rank = reader.fixed(int(used.size).bit_length())
    groups = tuple(read_groups(reader, CONTEXTS))
    if rank >= used.size or kernel[0] * kernel[1] > MOST_AREA:
        raise damaged()
    return Model(used, Tables.read(reader, max(groups) + 1, used.size), groups, int(used[rank]), kernel)


def _write_lengths(lengths: list[int]) -> str:
    """Return the lengths of segments in a header: the least one, and how much longer each is."""
    if not lengths:
        return ""
    least = min(lengths)
    above = np.array(lengths) - least
    parameter = min(range(32), key=lambda k: int((above >> k).sum()) + k * above.size)
    return gamma(least + 1) + fixed(parameter, 5) + "".join(rice(number, parameter) for number in above.tolist())


def _read_lengths(reader: Reader, count: int) -> list[int]:
    if count < 1:
        return []
    least, parameter = reader.gamma() - 1, reader.fixed(5)
    if least > len(reader.text):
        raise damaged()
    return [least + reader.rice(parameter) for _ in range(count)]


# ----------------------------------------------------------------------------------------------------- decode


def decoded(stream: EncodedStream) -> Bytes:
    """Return the symbols (N,) of a stream.

    Where the bits of a segment are damaged, its symbols are wrong from some place on.

    Raises
    ------
    ModelError
        If the header is damaged.
    """
    symbols = np.zeros(stream.count, np.uint8)
    for number, part in enumerate(stream.parts):
        of_segment = decode_segment(stream, number, digits_of(stream, number))
        symbols[part.start : part.start + of_segment.size] = of_segment
    return symbols


def digits_of(stream: EncodedStream, number: int) -> Bytes:
    """Return the bits of a segment."""
    first, last = stream.header.starts[number : number + 2].tolist()
    return stream.digits(first, last)


def decode_segment(stream: EncodedStream, number: int, digits: Bytes) -> Bytes:
    """Return the symbols of a segment with the bits `digits`, up to the first that cannot be."""
    from constriction import stream as coder

    model, part = stream.header.model, stream.parts[number]
    count = part.stop - part.start
    if model.used.size == 1:
        return np.full(count, model.used[0])
    packed = np.packbits(digits)
    words = np.pad(packed, (0, -packed.size % 4)).view(">u4").astype(np.uint32)
    if model.groups:
        return _decode_contexts(coder.queue.RangeDecoder(words), model, part)
    return model.used[_decode_static(coder.queue.RangeDecoder(words), model, count)]


def _decode_static(decoder: Any, model: Model, count: int) -> NDArray[np.int32]:
    """Return the ranks of `count` symbols, or of those before the first that cannot be."""
    from constriction import stream as coder

    table, ranks = coder.model.Categorical(model.tables.weights[0], perfect=False), []
    try:
        return decoder.clone().decode(table, count)  # type: ignore[no-any-return]
    except AssertionError:  # no encoder writes such bits
        with suppress(AssertionError):
            while True:
                ranks.append(decoder.decode(table))
        return np.array(ranks, np.int32)


def _decode_contexts(decoder: Any, model: Model, part: slice) -> Bytes:
    """Return the symbols of a part, or those before the first that cannot be."""
    from constriction import stream as coder

    tables = [coder.model.Categorical(weights, perfect=False) for weights in model.tables.weights]
    by_context, used = [tables[group] for group in model.groups], model.used.tolist()
    line = Decoded(model.middle, model.kernel, part.start)
    with suppress(AssertionError):
        for _ in range(part.stop - part.start):
            line.append(used[decoder.decode(by_context[line.context()])])
    return line.symbols


# ------------------------------------------------------------------------------------------------ for planners


def entropy_bits(counts: NDArray[np.integer[Any]], segment: int = SEGMENT) -> float:
    """Return about how many bits a static stream takes, without encoding it.

    Parameters
    ----------
    counts : integer array (K,)
        Of the symbols of the alphabet.
    segment : int, >= 1
    """
    return _entropy_bits(tuple(counts.tolist()), segment)


@lru_cache(maxsize=4096)  # of each tensor, for each of its trials
def _entropy_bits(by_symbol: tuple[int, ...], segment: int) -> float:
    counts = np.array(by_symbol)
    used = np.flatnonzero(counts)
    if not used.size:
        return 0.0
    ends = -(-int(counts.sum()) // segment)  # a bit, and a length
    header = 1 + len(write_used(used.astype(np.uint8), counts.size))
    return header + fit_tables(counts[used][None])[1] + ends + _LENGTH_BITS * (ends - 1)
