"""Entropy-coded streams of class indices and masks: real bits, which decode again.

A stream is a header and segments. Each segment starts the range coder afresh, so that a lost segment
loses no other one, and ends with the fewest bits that need nothing after them: at most 2 more than the information in
its symbols. The header holds all else that a decoder needs beyond the number of symbols, the alphabet and the segment:
the model, the symbols in use, the probability tables, and the lengths of all segments but the last.

The model "static" has one table of probabilities, and codes symbols one after the other. The model "context" has one
for each group of contexts. It codes symbols by their place in a kernel, and those of a place by group: then many are
encoded and decoded with one table at once. See `onnx_analog.coding.contexts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.contexts import CONTEXTS, MOST_AREA, Grid, Kernel, Known, row_of
from onnx_analog.coding.partition import Bytes
from onnx_analog.coding.probabilities import (
    Fit,
    Grouped,
    Ints,
    Reader,
    Tables,
    damaged,
    fit_several,
    fit_tables,
    fixed,
    gamma,
    group_contexts,
    read_groups,
    read_used,
    rice,
    write_groups,
    write_used,
)
from onnx_analog.coding.range_coder import Decode, coder_tables, decoder, encoded_runs, patient_decoder
from onnx_analog.coding.runs import Placed, Run, Sparse, placed_of, runs_in_groups, runs_of_all
from onnx_analog.coding.scheme import SEGMENT_WEIGHTS
from onnx_analog.coding.ways import Way, shortest
from onnx_analog.errors import OptionError

MODELS = ("static", "context")
SEGMENT = SEGMENT_WEIGHTS  # symbols
_LENGTH_BITS = 10  # of the length of a segment in a header, about
_MANY = 2**18  # symbols, of which pairs are counted
_MARGIN = 12  # bits, about, by which a segment may be longer or shorter than its tables say


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
    kernel: Kernel = (1, 1)


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
        The last two dimensions of the tensor, for contexts; without it, a row is one, which has only left neighbours.

    Raises
    ------
    OptionError
        If there is no such model, or a number is out of its range.
    """
    return shortest(ways_to_encode(symbols, alphabet, model=model, segment=segment, kernel=kernel))


def ways_to_encode(
    symbols: Bytes,
    alphabet: int,
    *,
    model: str = "static",
    segment: int = SEGMENT,
    kernel: Kernel | None = None,
    counts: Ints | None = None,
) -> list[Way[EncodedStream]]:
    """Return the ways to encode symbols; `encoded` returns the shortest. The parameters are those of `encoded`.

    `counts` (alphabet,) says how often each symbol occurs, where that is known.
    """
    _check(symbols, alphabet, model, segment, kernel)
    if not symbols.size:
        return [Way(0, 0, lambda: EncodedStream(0, alphabet, segment, b"", 0))]
    counts = histogram(symbols, alphabet) if counts is None else counts
    used = np.flatnonzero(counts).astype(np.uint8)
    ranks = np.cumsum(counts > 0, dtype=np.int32) - 1
    parts, placed, grouped = _parts(symbols.size, segment), list[Placed | Sparse](), list[Grouped]()
    if model == "context":
        middle, shape = int(counts.argmax()), kernel or row_of(min(symbols.size, segment))
        in_context = np.zeros((CONTEXTS, used.size), np.int64)
        for part in parts:  # counted at once, while it is in the processor's cache
            placed.append(placed_of(symbols[part], middle, shape, part.start))
            in_context += placed[-1].counts(ranks)
        grouped = group_contexts(in_context)
    static, *fits = fit_several([counts[used][None], *(each.counts for each in grouped)])
    of_stream = partial(_written, alphabet=alphabet, segment=segment, count=symbols.size)
    ways = [_way(static, Model(used, static.tables), partial(runs_of_all, symbols, ranks, parts), of_stream)]
    for each, fit in zip(grouped, fits, strict=True):
        groups = tuple(each.groups.tolist())
        runs = partial(runs_in_groups, placed, ranks, groups)
        ways.append(_way(fit, Model(used, fit.tables, groups, middle, shape), runs, of_stream))
    return ways


def histogram(symbols: Bytes, alphabet: int) -> Ints:
    """Return how often each symbol occurs, (alphabet,)."""
    if alphabet == 2:
        ones = np.count_nonzero(symbols)
        return np.array([symbols.size - ones, ones])
    if symbols.size < _MANY:
        return np.bincount(symbols, minlength=alphabet)
    # Two symbols are counted in the time of one.
    pairs = np.ascontiguousarray(symbols[: symbols.size & ~1]).view(np.uint16)
    counts = np.bincount(pairs, minlength=2**16).reshape(256, 256)
    both: Ints = counts.sum(axis=0) + counts.sum(axis=1) + np.bincount(symbols[pairs.size * 2 :], minlength=256)
    return both[:alphabet]


def _way(
    fit: Fit, model: Model, runs: Callable[[], Iterable[Iterable[Run]]], of_stream: partial[EncodedStream]
) -> Way[EncodedStream]:
    """Return the way to encode `runs`, which are found only when it is encoded."""
    alphabet, segment, count = (of_stream.keywords[name] for name in ("alphabet", "segment", "count"))
    head, segments = _write_head(model, alphabet), -(-count // segment)
    return Way(fit.bits + len(head) + _ends(segments), _MARGIN * segments, partial(of_stream, model, head, runs))


def _ends(segments: int) -> int:
    """Return about how many bits segments add: 1 at each end, and in the header each length but the last."""
    return segments + _LENGTH_BITS * (segments - 1)


def _check(symbols: Bytes, alphabet: int, model: str, segment: int, kernel: Kernel | None) -> None:
    if model not in MODELS:
        raise OptionError(f"model is {model!r}; it must be one of {', '.join(MODELS)}")
    if not 1 <= alphabet <= 256:
        raise OptionError(f"alphabet is {alphabet}; it must be from 1 to 256")
    if segment < 1:
        raise OptionError(f"segment is {segment}; it must be at least 1")
    if kernel is not None and not (min(kernel) >= 1 and kernel[0] * kernel[1] <= MOST_AREA):
        raise OptionError(f"kernel is {kernel}; it must have from 1 to {MOST_AREA:,} places")
    if symbols.max(initial=0) >= alphabet:
        raise OptionError(f"symbols go up to {symbols.max()}; they must be below alphabet, {alphabet}")


def _written(
    model: Model, head: str, runs: Callable[[], Iterable[Iterable[Run]]], *, alphabet: int, segment: int, count: int
) -> EncodedStream:
    """Return the stream of `count` symbols from the runs of each segment; `head` is the header up to the tables."""
    tables = coder_tables(model.tables)
    payloads = [encoded_runs(tables, of_segment) for of_segment in runs()]
    header = head + model.tables.write() + _write_lengths([payload.size for payload in payloads[:-1]])
    digits = np.concatenate([np.frombuffer(header.encode(), np.uint8) - ord("0"), *payloads])
    return EncodedStream(count, alphabet, segment, np.packbits(digits).tobytes(), digits.size)


# ----------------------------------------------------------------------------------------------------- header


def _write_head(model: Model, alphabet: int) -> str:
    """Return the start of a header: whether there are contexts, the symbols in use, and the groups of contexts."""
    contexts = ""
    if model.groups:
        rank = int(np.searchsorted(model.used, model.middle))
        height, width = model.kernel
        middle = fixed(rank, int(model.used.size).bit_length())
        contexts = gamma(height) + gamma(width) + middle + write_groups(model.groups)
    return fixed(bool(model.groups), 1) + write_used(model.used, alphabet) + contexts


def _read_model(reader: Reader, alphabet: int) -> Model:
    with_contexts = reader.fixed(1)
    used = read_used(reader, alphabet)
    if not with_contexts:
        return Model(used, Tables.read(reader, 1, used.size))
    kernel = reader.gamma(), reader.gamma()
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
        known, places = decode_segment(stream, number, digits_of(stream, number))
        symbols[part.start + places] = known
    return symbols


def digits_of(stream: EncodedStream, number: int) -> Bytes:
    """Return the bits of a segment."""
    first, last = stream.header.starts[number : number + 2].tolist()
    return stream.digits(first, last)


class Part(NamedTuple):
    """Symbols of a segment in the order in which they are coded, (n,), and their places in the segment."""

    symbols: Bytes
    places: NDArray[np.intp]


def decode_segment(stream: EncodedStream, number: int, digits: Bytes) -> Part:
    """Return the symbols of a segment with the bits `digits`, up to the first that cannot be."""
    model, part = stream.header.model, stream.parts[number]
    count = part.stop - part.start
    if model.used.size == 1:
        return Part(np.full(count, model.used[0]), np.arange(count))
    try:
        return _decode_part(decoder(digits), model, part)
    except AssertionError:  # no encoder writes such bits
        return _decode_part(patient_decoder(digits), model, part)


def _decode_part(decode: Decode, model: Model, part: slice) -> Part:
    tables, count = coder_tables(model.tables), part.stop - part.start
    if model.groups:
        return _decode_placed(decode, tables, model, Grid(model.kernel, part.start, count))
    symbols = model.used.take(decode(tables[0], count))
    return Part(symbols, np.arange(symbols.size))


def _decode_placed(decode: Decode, tables: list[Any], model: Model, grid: Grid) -> Part:
    known, group_of = Known(model.middle, model.kernel, grid), np.array(model.groups, np.uint8)
    symbols, places = list[Bytes](), list[NDArray[np.intp]]()
    for place in range(grid.area):
        groups = group_of.take(known.contexts(place))
        by_group = np.argsort(groups, kind="stable")
        ranks, whole = _decode_groups(decode, tables, np.bincount(groups, minlength=len(tables)).tolist())
        symbols.append(model.used.take(ranks))
        places.append(grid.order_at(place)[by_group[: ranks.size]])
        if not whole:
            break
        known.put(place, symbols[-1][np.argsort(by_group)])
    return Part(np.concatenate(symbols), np.concatenate(places))


def _decode_groups(decode: Decode, tables: list[Any], counts: list[int]) -> tuple[NDArray[np.int32], bool]:
    """Return the ranks of so many symbols with each table, and whether these are all."""
    ranks = [np.zeros(0, np.int32)]
    for table, count in zip(tables, counts, strict=True):
        if count:
            ranks.append(decode(table, count))
            if ranks[-1].size < count:
                return np.concatenate(ranks), False
    return np.concatenate(ranks), True


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
    header = 1 + len(write_used(used.astype(np.uint8), counts.size))
    return header + fit_tables(counts[used][None])[1] + _ends(-(-int(counts.sum()) // segment))
