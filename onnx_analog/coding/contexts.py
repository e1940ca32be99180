"""Contexts of entropy-coded symbols: what a symbol's neighbours in its kernel say about it.

Neighbours are known by their distances from the most frequent symbol, 0 where they are not in the same kernel and
segment. With L, U, UL and UR for the left, upper, upper left and upper right one, a context is the numbers of binary
digits of two sums, and the sign of the first:

    2L + 2U - UL      the distance to be expected      2|L| + 2|U| + |UL| + |UR|      how far it may be from that

In trained convolutions, neighbours in a kernel resemble each other; weights of other kernels say next to nothing.
"""

from __future__ import annotations

import numpy as np

from onnx_analog.coding.partition import Bits, Bytes

Kernel = tuple[int, int]

LINE: Kernel = (1, 0)  # no kernel: the only neighbour is the symbol before
MOST_AREA = 2**12  # of a kernel
_MOST_VALUE, _MOST_SIZE = 4, 5  # binary digits that are told apart
CONTEXTS = (2 * _MOST_VALUE + 1) * (_MOST_SIZE + 1)
_NEIGHBOURS = ((0, 1, 2, 2), (1, 0, 2, 2), (1, 1, -1, 1), (1, -1, 0, 1))  # rows up, columns left, factors of the sums
_DIGITS = np.array([number.bit_length() for number in range(6 * 255 + 1)], np.int8)


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
    distance = symbols.astype(np.int16) - np.int16(middle)
    value, size = np.zeros_like(distance), np.zeros_like(distance)
    for back, valid, in_value, in_size in _neighbours(kernel):
        known = np.roll(valid, -start).astype(np.int16)
        known = np.tile(known, -(-symbols.size // known.size))[back : symbols.size]
        known *= distance[: known.size]
        if in_value:
            value[back:] += np.int16(in_value) * known
        size[back:] += np.int16(in_size) * np.abs(known)
    digits = np.sign(value) * np.minimum(_DIGITS[np.abs(value)], _MOST_VALUE)
    contexts: Bytes = ((digits + _MOST_VALUE) * (_MOST_SIZE + 1) + np.minimum(_DIGITS[size], _MOST_SIZE)).astype(
        np.uint8
    )
    return contexts


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
