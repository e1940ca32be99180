"""Losses of damaged entropy-coded streams: which symbols can no longer be told.

A range decoder that met a wrong bit goes on with wrong symbols: all that are coded later in the segment are lost. The
header has no segment: without it, all symbols are lost.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnx_analog.coding.entropy import EncodedStream, decode_segment, digits_of
from onnx_analog.coding.masks import PatternStream, lost_of_pattern
from onnx_analog.coding.partition import Bits
from onnx_analog.coding.probabilities import Ints
from onnx_analog.coding.range_coder import STATE


def _known_before(stream: EncodedStream, number: int, offset: int) -> Ints:
    """Return the symbols of a segment, by their places in it, that the bits before `offset` tell.

    A range decoder is monotone: where all bits that follow are 0 and where all are 1 it decodes to the same symbols if
    it does whatever they are. The last of them that can matter is 64 bits further.
    """
    if not offset:
        return np.zeros(0, np.int64)
    digits = digits_of(stream, number)[:offset]
    least = decode_segment(stream, number, digits)
    most = decode_segment(stream, number, np.append(digits, np.ones(STATE, np.uint8)))
    common = min(least.symbols.size, most.symbols.size)
    apart = np.flatnonzero(least.symbols[:common] != most.symbols[:common])
    return least.places[: int(apart[0]) if apart.size else common]


def lost(stream: EncodedStream | PatternStream, starts: Iterable[int], lengths: Iterable[int]) -> Bits:
    """Return which symbols (N,) are lost with some runs of bits; each loses the rest of its segment.

    Parameters
    ----------
    stream : EncodedStream or PatternStream
    starts, lengths : ints (F,)
        Of the runs, which may reach beyond the stream.
    """
    if isinstance(stream, PatternStream):
        return lost_of_pattern(stream, starts, lengths)
    gone = np.zeros(stream.count, np.bool_)
    first: dict[int, int] = {}  # damaged bit of each segment
    for start, length in zip(starts, lengths, strict=True):
        stop = min(start + length, stream.bits)
        if start >= stop:
            continue
        segments = stream.header.starts[:-1]
        if start < segments[0]:
            gone[:] = True
            return gone
        low, high = np.searchsorted(segments, (start, stop - 1), side="right") - 1
        for number in range(low, high + 1):
            first[number] = min(first.get(number, stop), max(start - int(segments[number]), 0))
    for number, offset in first.items():
        of_segment = gone[stream.parts[number]]
        of_segment[:] = True
        of_segment[_known_before(stream, number, offset)] = False
    return gone
