"""Masks that take few bits: those that follow from a seed, and those that keep N of each M weights.

A mask from a seed keeps the weights with the `count` smallest of n random numbers of 64 bits, which the bit generator
of `onnx_analog.randomness.stream` gives for the seed and the tensor's storage key. Who reads it makes them anew.

A mask that keeps N of each M weights is a number for each group of M: the rank of its pattern among the C(M, N)
patterns with N ones, in the order of their binary numbers, the first weight lowest. The ranks of up to 4,096 groups are
the digits of one number to the base C(M, N), the first group highest; it takes ⌈log2 C(M, N)^groups⌉ bits. Before all
numbers come N and M, of 6 bits each, and the weights after the last whole group, a bit each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bits
from onnx_analog.randomness import stream

SEED_BITS = 64  # of a seed, and of how many weights it keeps: 32 each
GROUPS = (4, 8, 10, 16, 20)  # M that are tried
_FEWEST = 16  # groups of a mask that is taken for one of N of each M
_HEADER = 12  # bits
_MOST_DIGITS = 4096  # groups of a number

Ints = NDArray[np.int64]


def seeded_mask(seed: int, key: str, size: int, count: int) -> Bits:
    """Return the mask (size,) of the tensor with a storage key that follows from a seed and keeps `count` weights.

    Examples
    --------
    >>> seeded_mask(0, "conv.weight", 8, 3).astype(int)
    array([0, 1, 0, 1, 0, 1, 0, 0])
    """
    numbers = stream(seed, 0, key, plane="mask").bit_generator.random_raw(size)
    mask = np.zeros(size, np.bool_)
    mask[np.argsort(numbers, kind="stable")[:count]] = True
    return mask


def follows_from(seed: int, key: str, mask: Bits) -> bool:
    """Return whether a mask (n,) is the one that follows from a seed and keeps as many weights."""
    count = int(np.count_nonzero(mask))
    return mask.size < 2**32 and bool((_kept_mask(seed, key, mask.size, count) == mask).all())


_kept_mask = lru_cache(maxsize=2)(seeded_mask)  # one tensor is asked of under many schemes; nobody changes it


# ------------------------------------------------------------------------------------------------- N of each M


@dataclass(frozen=True)
class PatternStream:
    """A mask that keeps N of each M weights, as bits.

    Attributes
    ----------
    count : int
        n, the weights.
    segment : int
        Weights that decode on their own; the last ones may be fewer.
    digits : uint8 array (bits,)
        0 and 1.
    """

    count: int
    segment: int
    digits: NDArray[np.uint8]

    @property
    def bits(self) -> int:
        """Its length."""
        return self.digits.size


def pattern_stream(mask: Bits, segment: int) -> PatternStream | None:
    """Return the shortest stream of a mask (n,) that keeps N of each M weights; None if it does so for no M.

    Parameters
    ----------
    mask : bool array (n,)
        In the order of the tensor's flat index.
    segment : int, >= 1
        Weights that decode on their own.
    """
    streams = [_encoded(mask, group, segment) for group in GROUPS if _kept(mask, group)]
    return min(streams, key=lambda each: each.bits, default=None)


def pattern_bits(mask: Bits) -> float | None:
    """Return about how many bits a stream of patterns of a mask (n,) takes; None if it keeps N of each M for no M."""
    kept = {group: _kept(mask, group) for group in GROUPS}
    bits = [mask.size / group * math.log2(math.comb(group, number)) for group, number in kept.items() if number]
    return min(bits, default=None)


def decoded_pattern(stream: PatternStream) -> Bits:
    """Return the mask (n,) that a stream holds."""
    kept, group = (int(_number(stream.digits[start : start + 6])) for start in (0, 6))
    whole = stream.count - stream.count % group
    start, mask = _HEADER + stream.count - whole, np.zeros(stream.count, np.bool_)
    mask[whole:] = stream.digits[_HEADER:start]
    base = math.comb(group, kept)
    for part in _numbers(whole // group, group, stream.segment):
        length = _length(base, part)
        ranks = _digits(_number(stream.digits[start : start + length]), base, part.stop - part.start)
        mask[part.start * group : part.stop * group] = _patterns(ranks, kept, group).reshape(-1)
        start += length
    return mask


def lost_of_pattern(stream: PatternStream, starts: Iterable[int], lengths: Iterable[int]) -> Bits:
    """Return which entries (n,) of a mask are lost with some runs of bits; each loses the numbers that it touches."""
    kept, group = (int(_number(stream.digits[start : start + 6])) for start in (0, 6))
    whole, gone = stream.count - stream.count % group, np.zeros(stream.count, np.bool_)
    header = _HEADER + stream.count - whole
    parts = list(_numbers(whole // group, group, stream.segment))
    ends = header + np.cumsum([_length(math.comb(group, kept), part) for part in parts])
    for start, length in zip(starts, lengths, strict=True):
        if start >= stream.bits or not length:
            continue
        if start < header:
            gone[:] = True
            return gone
        low, high = np.searchsorted(ends, (start, min(start + length, stream.bits) - 1), side="right")
        gone[parts[low].start * group : parts[high].stop * group] = True
    return gone


def _kept(mask: Bits, group: int) -> int:
    """Return N if N of each `group` weights are stored, in whole groups and enough of them; else 0."""
    groups = mask.size // group
    if groups < _FEWEST:
        return 0
    for some in (_FEWEST, groups):  # most masks keep no N, and a few groups tell
        counts = np.count_nonzero(mask[: some * group].reshape(some, group), axis=1)
        if counts[0] in (0, group) or (counts != counts[0]).any():
            return 0
    return int(counts[0])


def _encoded(mask: Bits, group: int, segment: int) -> PatternStream:
    groups = mask.size // group
    marks = mask[: groups * group].reshape(groups, group)
    kept = int(marks[0].sum())
    places = np.nonzero(marks)[1].reshape(groups, kept)
    ranks = _binomials(group, kept)[places, np.arange(1, kept + 1)].sum(axis=1)
    base = math.comb(group, kept)
    header = [_bits_of(kept, 6), _bits_of(group, 6), mask[groups * group :].astype(np.uint8)]
    numbers = [
        _bits_of(_joined(ranks[part].tolist(), base), _length(base, part)) for part in _numbers(groups, group, segment)
    ]
    return PatternStream(mask.size, segment, np.concatenate([*header, *numbers]))


def _numbers(groups: int, group: int, segment: int) -> Iterator[slice]:
    """Yield the groups of each number."""
    step = min(max(segment // group, 1), _MOST_DIGITS)
    return (slice(start, min(start + step, groups)) for start in range(0, groups, step))


def _length(base: int, part: slice) -> int:
    return _length_of(base, part.stop - part.start)


@lru_cache(maxsize=256)
def _length_of(base: int, digits: int) -> int:
    """Return the bits of a number of some digits to a base."""
    return int(base**digits - 1).bit_length()


def _binomials(group: int, kept: int) -> Ints:
    """Return C(place, number) of each place and number, (group, kept + 1)."""
    return np.array([[math.comb(place, number) for number in range(kept + 1)] for place in range(group)], np.int64)


def _patterns(ranks: Ints, kept: int, group: int) -> Bits:
    """Return the groups (G, group) with the ranks (G,): from the highest mark down, the highest place that fits."""
    table, left = _binomials(group, kept), ranks.copy()
    marks = np.zeros((ranks.size, group), np.bool_)
    for number in range(kept, 0, -1):
        places = np.searchsorted(table[:, number], left, side="right") - 1
        marks[np.arange(ranks.size), places] = True
        left -= table[places, number]
    return marks


def _joined(digits: list[int], base: int) -> int:
    number = 0
    for digit in digits:
        number = number * base + digit
    return number


def _digits(number: int, base: int, count: int) -> Ints:
    digits = np.zeros(count, np.int64)
    for place in range(count - 1, -1, -1):
        number, digits[place] = divmod(number, base)
    return digits


def _bits_of(number: int, length: int) -> NDArray[np.uint8]:
    """Return a number as `length` bits, the highest first."""
    size = -(-length // 8)
    packed = np.frombuffer((number << (-length % 8)).to_bytes(size, "big"), np.uint8)
    return np.unpackbits(packed, count=length)


def _number(bits: NDArray[np.uint8]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big") >> (-bits.size % 8)
