"""Contexts of entropy-coded symbols: what a symbol's neighbours in its kernel say about it.

Neighbours are known by their distances from the most frequent symbol, 0 where they are not in the same kernel and
segment. With L, U, UL and UR for the left, upper, upper left and upper right one, a context is the numbers of binary
digits of two sums, and the sign of the first:

    2L + 2U - UL      the distance to be expected      2|L| + 2|U| + |UL| + |UR|      how far it may be from that

In trained convolutions, neighbours in a kernel resemble each other; weights of other kernels say next to nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bits, Bytes

Kernel = tuple[int, int]

LINE: Kernel = (1, 0)  # no kernel: the only neighbour is the symbol before
MOST_AREA = 2**12  # of a kernel
_MOST_VALUE, _MOST_SIZE = 4, 5  # binary digits that are told apart
CONTEXTS = (2 * _MOST_VALUE + 1) * (_MOST_SIZE + 1)
_NEIGHBOURS = ((0, 1, 2, 2), (1, 0, 2, 2), (1, 1, -1, 1), (1, -1, 0, 1))  # rows up, columns left, factors of the sums
_SIZE_ENDS = tuple(2**digits - 1 for digits in range(_MOST_SIZE))  # above which a sum has more binary digits
_VALUE_ENDS = tuple(sorted(end for digits in range(_MOST_VALUE) for end in (2**digits - 1, -(2**digits))))


def contexts_of(symbols: Bytes, middle: int, kernel: Kernel, start: int) -> Bytes:
    """Return the context of each symbol, (n,) below `CONTEXTS`.

    Parameters
    ----------
    symbols : uint8 array (n,)
        Of one segment.
    middle : int
        The most frequent symbol.
    kernel : (height, width)
    start : int
        The first symbol's place in the tensor.
    """
    height, width = (1, max(symbols.size, 1)) if kernel == LINE else kernel
    before = start % _area(kernel)
    padded = np.full(-(-(before + symbols.size) // (height * width)) * height * width, middle, np.uint8)
    padded[before : before + symbols.size] = symbols  # what is outside has distance 0, as what is unknown
    kernels = padded.reshape(-1, height, width).transpose(1, 2, 0)  # neighbours in all kernels lie in two slices
    value, size = _sums(kernels.astype(np.int16, order="C") - np.int16(middle))
    contexts = _count_above(value, _VALUE_ENDS) * np.uint8(_MOST_SIZE + 1) + _count_above(size, _SIZE_ENDS)
    return contexts.transpose(2, 0, 1).reshape(-1)[before : before + symbols.size]


def _sums(distance: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return both sums over the neighbours, from the distances (height, width, kernels)."""
    height, width, _ = distance.shape
    value, size, far = np.zeros_like(distance), np.zeros_like(distance), np.abs(distance)
    for up, left, in_value, in_size in _NEIGHBOURS:
        if up < height and abs(left) < width:
            here = slice(up, None), slice(max(left, 0), width + min(left, 0))
            there = slice(None, height - up), slice(max(-left, 0), width - max(left, 0))
            if in_value:
                value[here] += np.int16(in_value) * distance[there]
            size[here] += np.int16(in_size) * far[there]
    return value, size


def _count_above(sums: NDArray[np.int16], ends: tuple[int, ...]) -> Bytes:
    """Return how many of `ends` each sum is above."""
    count = np.zeros(sums.shape, np.uint8)
    for end in ends:
        count += sums > np.int16(end)
    return count


class Decoded:
    """Symbols of one segment that are decoded one after the other, and the context of the next.

    Parameters
    ----------
    middle, kernel, start
        As of `contexts_of`.
    """

    def __init__(self, middle: int, kernel: Kernel, start: int) -> None:
        self._middle = middle
        self._distance: list[int] = []
        self._start, self._area = start, _area(kernel)
        neighbours = [(back, valid.tolist(), *factors) for back, valid, *factors in _neighbours(kernel)]
        self._at = [
            [(back, *factors) for back, valid, *factors in neighbours if valid[place]] for place in range(self._area)
        ]

    def context(self) -> int:
        """Return the context of the next symbol."""
        value = size = 0
        count = len(self._distance)
        for back, in_value, in_size in self._at[(self._start + count) % self._area]:
            if back <= count:
                distance = self._distance[-back]
                value += in_value * distance
                size += in_size * abs(distance)
        digits = min(value.bit_length(), _MOST_VALUE)
        return ((digits if value > 0 else -digits) + _MOST_VALUE) * (_MOST_SIZE + 1) + min(
            size.bit_length(), _MOST_SIZE
        )

    @property
    def symbols(self) -> Bytes:
        """The symbols so far."""
        return (np.array(self._distance, np.int16) + self._middle).astype(np.uint8)

    def append(self, symbol: int) -> None:
        """Take the next symbol."""
        self._distance.append(symbol - self._middle)


def _area(kernel: Kernel) -> int:
    return kernel[0] * kernel[1] or 1


def _neighbours(kernel: Kernel) -> list[tuple[int, Bits, int, int]]:
    """Return how many symbols back each neighbour is, where in a kernel (h·w,) there is one, and its factors."""
    height, width = kernel
    if not width:
        return [(1, np.ones(1, np.bool_), *_NEIGHBOURS[0][2:])]
    row, column = np.divmod(np.arange(height * width), width)
    neighbours: list[tuple[int, Bits, int, int]] = []
    for up, left, *factors in _NEIGHBOURS:
        valid = (row >= up) & (column >= left) & (column - left < width)
        if valid.any():
            neighbours.append((up * width + left, valid, factors[0], factors[1]))
    return neighbours
