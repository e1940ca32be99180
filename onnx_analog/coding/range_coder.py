"""The range coder (Martin 1979): runs of symbols to the fewest bits that hold them, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bytes
from onnx_analog.coding.probabilities import Tables
from onnx_analog.coding.runs import Run

_WORD, STATE = 32, 64  # bits of the range coder
_TAIL = 4  # words at its end that are likely to take a carry


def coder_tables(tables: Tables) -> list[Any]:
    """Return the coder's tables; none where only one symbol is in use, which takes no bits."""
    from constriction import stream as coder

    if tables.steps.shape[1] == 1:
        return []
    return [coder.model.Categorical(weights, perfect=False) for weights in tables.weights]


# ----------------------------------------------------------------------------------------------------- encode


def encoded_runs(tables: list[Any], runs: Iterable[Run]) -> Bytes:
    """Return the bits of one segment."""
    from constriction import stream as coder

    if not tables:
        return np.zeros(0, np.uint8)
    encoder = coder.queue.RangeEncoder()
    encode = encoder.encode
    for table, ranks in runs:
        encode(ranks, tables[table])
    return _ending(encoder)


def _ending(encoder: Any) -> Bytes:
    """Return the fewest bits that decode to what was encoded, whatever follows them.

    A range coder ends with an interval. Its bits are those of a whole interval between two multiples of a power of two
    inside it.
    """
    words, (lower, size) = encoder.pos()
    padded = np.zeros(words + STATE // _WORD, ">u4")
    point = encoder.get_compressed()
    padded[: point.size] = point
    for kept in (max(words - _TAIL, 0), 0):  # words that stay, unless those after them borrow or carry
        inside = int.from_bytes(padded[kept:].tobytes(), "big")
        start = inside - (inside - lower) % 2**STATE  # of the interval; `lower` is its last 64 bits
        number, dropped = _between(start, start + size)
        count = _WORD * (words - kept) + STATE - dropped
        if start >= 0 and number.bit_length() <= count:
            break
    number <<= -count % 8
    tail = np.unpackbits(np.frombuffer(number.to_bytes(-(-count // 8), "big"), np.uint8), count=count)
    return np.concatenate([np.unpackbits(padded[:kept].view(np.uint8)), tail])


def _between(start: int, end: int) -> tuple[int, int]:
    """Return the largest whole interval inside another: its number, and log2 of its length."""
    dropped = (end - start).bit_length() - 1
    while ((-(-start >> dropped) + 1) << dropped) > end:
        dropped -= 1
    return -(-start >> dropped), dropped


# ----------------------------------------------------------------------------------------------------- decode

Decode = Callable[[Any, int], NDArray[np.int32]]  # from a table, and how many symbols: the ranks of these, or of fewer


def decoder(digits: Bytes) -> Decode:
    """Return a decoder of a segment with the bits `digits`; it raises `AssertionError` where they hold no symbol."""
    return partial(_many, _coder_of(digits))


def patient_decoder(digits: Bytes) -> Decode:
    """Return a slower decoder, which returns the symbols before the first that cannot be."""
    return partial(_one_by_one, _coder_of(digits))


def _coder_of(digits: Bytes) -> Any:
    from constriction import stream as coder

    packed = np.packbits(digits)
    return coder.queue.RangeDecoder(np.pad(packed, (0, -packed.size % 4)).view(">u4").astype(np.uint32))


def _many(coder: Any, table: Any, count: int) -> NDArray[np.int32]:
    return coder.decode(table, count)  # type: ignore[no-any-return]


def _one_by_one(coder: Any, table: Any, count: int) -> NDArray[np.int32]:
    """Return the ranks of `count` symbols, or of those before the first that cannot be."""
    ranks = np.empty(count, np.int32)
    for number in range(count):
        try:
            ranks[number] = coder.decode(table)
        except AssertionError:
            return ranks[:number]
    return ranks
