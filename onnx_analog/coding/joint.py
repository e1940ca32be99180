"""Class index and mask of a tensor as entropy-coded streams: one of both, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from onnx_analog.coding.contexts import Kernel
from onnx_analog.coding.entropy import SEGMENT, EncodedStream, decoded, histogram, ways_to_encode
from onnx_analog.coding.masks import PatternStream, decoded_pattern, pattern_stream
from onnx_analog.coding.partition import Bits, Bytes
from onnx_analog.coding.ways import Way, shortest
from onnx_analog.errors import OptionError

_MOST_CLASSES = 256
_MANY = 2**19  # weights of a mask of which a sample is looked at first
_SAMPLE = 2**16  # weights of a sample, or up to twice as many: tables are a small part of them
_PIECE = 2**11  # weights of each piece of the sample, or as many as fill whole kernels
_STRIDE = 3  # how much further on the next piece is taken, so that no pattern has the same period
_FAR = 1.01  # times as long on the sample: not worth a look at the rest


class Named(NamedTuple):
    """A stream and what it holds: "mask", "class", or "mask and class"."""

    name: str
    stream: EncodedStream | PatternStream


def index_and_mask(
    class_index: Bytes | None,
    mask: Bits | None,
    classes: int,
    *,
    zero: int = 0,
    model: str = "static",
    segment: int = SEGMENT,
    kernel: Kernel | None = None,
) -> tuple[Named, ...]:
    """Return the shortest streams that hold the class of each stored weight, and which weights are stored.

    With contexts, one stream and two are tried on 2^16 to 2^17 weights of 2^19 or more: the way that is more than 1 %
    longer there is not looked at further.

    In one stream for both, a weight that is not stored is one more symbol. A mask apart that keeps N of each M weights
    is a stream of patterns where that is shorter.

    Parameters
    ----------
    class_index : uint8 array (N,) or None
        Of the stored weights, below `classes`; None if there is one class.
    mask : bool array (n,) or None
        Which weights are stored, N of them; None if all are.
    classes : int, 1 to 256
        K.
    zero : int, 0 to K
        In one stream, the symbol of a weight that is not stored; the classes from `zero` on are one higher. Contexts
        take near symbols for near values, so it belongs between the classes below and above 0.
    model, segment, kernel
        As of `encoded`. The stored weights alone have no kernel.
    """
    whole = partial(ways_to_encode, model=model, segment=segment, kernel=kernel)
    if mask is None:
        return () if class_index is None else (Named("class", shortest(whole(class_index, classes))),)
    by_pattern = pattern_stream(mask, segment)
    patterns: list[Way[Any]] = [] if by_pattern is None else [Way(by_pattern.bits, 0, lambda: by_pattern)]
    if class_index is None:
        return (Named("mask", shortest([*whole(mask.view(np.uint8), 2), *patterns])),)
    if class_index.size != np.count_nonzero(mask):
        raise OptionError(f"class_index has {class_index.size:,} entries, but mask has {np.count_nonzero(mask):,}")
    ways = _Streams(classes, zero, model, segment, kernel).ways(class_index, mask, patterns)
    return shortest(ways, lambda streams: sum(named.stream.bits for named in streams))


class _Streams(NamedTuple):
    """How class index and mask are encoded; the fields are parameters of `index_and_mask`."""

    classes: int
    zero: int
    model: str
    segment: int
    kernel: Kernel | None

    def ways(self, index: Bytes, mask: Bits, patterns: Sequence[Way[Any]]) -> list[Way[tuple[Named, ...]]]:
        """Return the ways to encode both, without one that is far longer on a sample."""
        if self.classes >= _MOST_CLASSES:
            return [self._apart(index, mask, patterns)]
        apart = together = False
        if self.model == "context" and not patterns and mask.size >= _MANY:
            apart, together = self._far(*self._sample(index, mask))
        ways = [] if apart else [self._apart(index, mask, patterns)]
        return ways if together else [*ways, self._together(index, mask)]

    def _far(self, index: Bytes, mask: Bits) -> tuple[bool, bool]:
        """Return whether streams apart are far longer than one of both, and the other way round."""
        apart, together = self._apart(index, mask, []).bits, self._together(index, mask).bits
        return apart > _FAR * together, together > _FAR * apart

    def _sample(self, index: Bytes, mask: Bits) -> tuple[Bytes, Bits]:
        """Return pieces of whole kernels, from all over the tensor."""
        one_in = 1 << (mask.size // _SAMPLE).bit_length() - 1
        area = 1 if self.kernel is None else self.kernel[0] * self.kernel[1]
        length = max(_PIECE // area, 1) * area
        places = range(mask.size // length)
        pieces = [
            slice(place * length, (place + 1) * length)
            for place in places
            if place % one_in == place // one_in * _STRIDE % one_in
        ]
        ends = [0, *(end for piece in pieces for end in (piece.start, piece.stop))]
        stored = list(accumulate(np.count_nonzero(mask[start:end]) for start, end in pairwise(ends)))
        of_index = [index[start:end] for start, end in zip(stored[::2], stored[1::2], strict=True)]
        return np.concatenate(of_index), np.concatenate([mask[piece] for piece in pieces])

    def _apart(self, index: Bytes, mask: Bits, patterns: Sequence[Way[Any]]) -> Way[tuple[Named, ...]]:
        encode = partial(ways_to_encode, model=self.model, segment=self.segment)
        of_mask = [*encode(mask.view(np.uint8), 2, kernel=self.kernel), *patterns]
        return _both({"mask": of_mask, "class": encode(index, self.classes)})

    def _together(self, index: Bytes, mask: Bits) -> Way[tuple[Named, ...]]:
        counts = np.insert(histogram(index, self.classes), self.zero, mask.size - index.size)
        whole = ways_to_encode(
            _joined(index, mask, self.zero),
            self.classes + 1,
            model=self.model,
            segment=self.segment,
            kernel=self.kernel,
            counts=counts,
        )
        return _both({"mask and class": whole})


def _both(ways: Mapping[str, Sequence[Way[Any]]]) -> Way[tuple[Named, ...]]:
    """Return the way to encode all of several streams, each in its shortest way."""
    least = [min(each, key=attrgetter("bits")) for each in ways.values()]
    bits, margin = (sum(getattr(way, name) for way in least) for name in ("bits", "margin"))
    return Way(bits, margin, lambda: tuple(Named(name, shortest(each)) for name, each in ways.items()))


def index_and_mask_of(streams: Iterable[Named], zero: int = 0) -> tuple[Bytes | None, Bits | None]:
    """Return the class index and the mask that streams hold: the inverse of `index_and_mask`."""
    symbols = {name: _symbols_of(stream) for name, stream in streams}
    if "mask and class" in symbols:
        joined = symbols["mask and class"]
        mask = joined != zero
        return joined[mask] - (joined[mask] > zero), mask
    return symbols.get("class"), symbols["mask"].view(np.bool_) if "mask" in symbols else None


def _symbols_of(stream: EncodedStream | PatternStream) -> Bytes:
    return decoded_pattern(stream).view(np.uint8) if isinstance(stream, PatternStream) else decoded(stream)


def _joined(class_index: Bytes, mask: Bits, zero: int) -> Bytes:
    """Return one symbol for each weight (n,), `zero` for those that are not stored."""
    joined = np.full(mask.size, zero, np.uint8)
    joined[np.flatnonzero(mask)] = class_index + (class_index >= zero)  # faster than with a mask
    return joined
