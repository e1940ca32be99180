"""Contexts of entropy-coded symbols: what a symbol's neighbours in its kernel say about it.

Neighbours are known by their distances from the most frequent symbol, 0 where they are not in the same kernel and
segment. With L, U, UL and UR for the left, upper, upper left and upper right one, a context is the numbers of binary
digits of two sums, and the sign of the first:

    2L + 2U - UL      the distance to be expected      2|L| + 2|U| + |UL| + |UR|      how far it may be from that

In trained convolutions, neighbours in a kernel resemble each other; weights of other kernels say next to nothing.

Symbols are coded place by place: first those of all kernels at the first place, then all at the second, and so on.
The neighbours of all symbols of a place are then known before the first of them, so a decoder finds their contexts at
once. Symbols without a kernel are cut into rows, each a kernel of height 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bytes

Kernel = tuple[int, int]
Signed = TypeVar("Signed", bound=np.signedinteger[Any])

MOST_AREA = 2**12  # of a kernel: times the groups of contexts, it is below 2^16
_MOST_VALUE, _MOST_SIZE = 4, 5  # binary digits that are told apart
CONTEXTS = (2 * _MOST_VALUE + 1) * (_MOST_SIZE + 1)
_NEIGHBOURS = ((0, 1, 2, 2), (1, 0, 2, 2), (1, 1, -1, 1), (1, -1, 0, 1))  # rows up, columns left, factors of the sums
_SIZE_ENDS = tuple(2**digits - 1 for digits in range(_MOST_SIZE))  # above which a sum has more binary digits
_VALUE_ENDS = tuple(sorted(end for digits in range(_MOST_VALUE) for end in (2**digits - 1, -(2**digits))))


def row_of(count: int) -> Kernel:
    """Return rows for `count` symbols of a segment without a kernel: about half as long as there are rows.

    The first symbol of a row has no neighbour, so longer rows take slightly fewer bits; but coding takes longer the
    more places there are.
    """
    return 1, min(max(1 << -(-max(count - 1, 0).bit_length() // 2) >> 1, 2), MOST_AREA)


class Grid:
    """The places of the symbols of one segment, and the order in which they are coded.

    Parameters
    ----------
    kernel : (height, width)
    start : int
        The first symbol's place in the tensor.
    count : int
        N, the symbols of the segment. The first and the last kernel may have only some of theirs.

    Attributes
    ----------
    area : int
        Places of a kernel.
    kernels, count : int
    """

    def __init__(self, kernel: Kernel, start: int, count: int) -> None:
        self.area = kernel[0] * kernel[1]
        self._before, self.count = start % self.area, count
        self.kernels = -(-(self._before + count) // self.area)
        self._kernel = kernel
        self._last = self._before + count - self.area * (self.kernels - 1)  # places of the last kernel that are used

    def laid(self, symbols: NDArray[Any], outside: int, kernels: NDArray[np.intp] | None = None) -> NDArray[Any]:
        """Return symbols (N,) by place and kernel, (height, width, kernels), and `outside` where there is none.

        Of all kernels, or of those that are named.
        """
        padded = np.full(self.kernels * self.area, outside, symbols.dtype)
        padded[self._before : self._before + self.count] = symbols
        by_kernel = padded.reshape(self.kernels, self.area)
        chosen = by_kernel if kernels is None else by_kernel[kernels]
        return np.ascontiguousarray(chosen.T).reshape(*self._kernel, -1)

    def kernels_of(self, symbols: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the kernels, ascending, that hold any of some symbols of the segment."""
        held = np.zeros(self.kernels, np.bool_)
        held[(symbols + self._before) // self.area] = True
        return np.flatnonzero(held)

    def coded(self, laid: NDArray[Any]) -> NDArray[Any]:
        """Return values (height, width, kernels) of the symbols in the order in which they are coded, (N,)."""
        if self.count == laid.size:
            return laid.reshape(-1)
        by_place = laid.reshape(self.area, self.kernels)
        return np.concatenate([by_place[place, self.kernels_at(place)] for place in range(self.area)])

    @property
    def places(self) -> NDArray[np.uint16]:
        """The places in the kernel of the symbols in the order in which they are coded, (N,)."""
        counts = [kernels.stop - kernels.start for kernels in map(self.kernels_at, range(self.area))]
        return np.repeat(np.arange(self.area, dtype=np.uint16), counts)

    def missing(self) -> Iterator[tuple[slice, int]]:
        """Yield which places of which kernel have no symbol: the first kernel and the last one may lack some."""
        if self._before:
            yield slice(0, self._before), 0
        if self._last < self.area:
            yield slice(self._last, None), self.kernels - 1

    def kernels_at(self, place: int) -> slice:
        """Return which kernels have a symbol at a place."""
        return slice(int(place < self._before), self.kernels - int(place >= self._last))

    def order_at(self, place: int) -> NDArray[np.intp]:
        """Return which symbols of the segment are at a place."""
        kernels = self.kernels_at(place)
        return np.arange(kernels.start, kernels.stop) * self.area + (place - self._before)


def contexts_of(laid: Bytes, middle: int) -> Bytes:
    """Return the context of each symbol, below `CONTEXTS`.

    Parameters
    ----------
    laid : uint8 array (height, width, kernels)
        Symbols of one segment, `middle` where there is none.
    middle : int
        The most frequent symbol.
    """
    value, size = _sums(_distance(laid, middle))
    return _number(value, size)


def _distance(laid: Bytes, middle: int) -> NDArray[np.signedinteger[Any]]:
    """Return symbols less the most frequent one, in the narrowest numbers that hold the sums over their neighbours."""
    least, most = int(laid.min(initial=middle)) - middle, int(laid.max(initial=middle)) - middle
    if max(-least, most) * sum(size for *_, size in _NEIGHBOURS) < 2**7:
        return (laid - np.uint8(middle)).view(np.int8)
    return laid.astype(np.int16) - np.int16(middle)


def _number(value: NDArray[np.signedinteger[Any]], size: NDArray[np.signedinteger[Any]]) -> Bytes:
    """Return the contexts of both sums."""
    return _count_above(value, _VALUE_ENDS) * np.uint8(_MOST_SIZE + 1) + _count_above(size, _SIZE_ENDS)


def _sums(distance: NDArray[Signed]) -> tuple[NDArray[Signed], NDArray[Signed]]:
    """Return both sums over the neighbours, from the distances (height, width, kernels)."""
    height, width, _ = distance.shape
    value, size, far = np.zeros_like(distance), np.zeros_like(distance), np.abs(distance)
    for up, left, in_value, in_size in _NEIGHBOURS:
        if up < height and abs(left) < width:
            here = slice(up, None), slice(max(left, 0), width + min(left, 0))
            there = slice(None, height - up), slice(max(-left, 0), width - max(left, 0))
            _add(value[here], in_value, distance[there])
            _add(size[here], in_size, far[there])
    return value, size


def _add(sums: NDArray[Signed], factor: int, numbers: NDArray[Signed]) -> None:
    """Add numbers times a factor of -1 to 2, in place; a product takes longer."""
    if factor < 0:
        np.subtract(sums, numbers, out=sums)
    for _ in range(factor):
        np.add(sums, numbers, out=sums)


def _count_above(sums: NDArray[np.signedinteger[Any]], ends: tuple[int, ...]) -> Bytes:
    """Return how many of ascending `ends` each sum is above."""
    near = sums if sums.dtype == np.int8 else np.clip(sums, ends[0], ends[-1] + 1).astype(np.int8)
    return looked_up(near.view(np.uint8), _tables()[ends])


@cache
def _tables() -> dict[tuple[int, ...], bytes]:
    """Return, for each sum in 8 bits, how many of the ends it is above."""
    sums = np.arange(256).astype(np.uint8).view(np.int8)
    return {ends: table_of(np.searchsorted(ends, sums)) for ends in (_VALUE_ENDS, _SIZE_ENDS)}


def table_of(entries: Sequence[int] | NDArray[np.integer[Any]]) -> bytes:
    """Return a table for `looked_up` with up to 256 entries, which are below 256; the others are 0."""
    return np.asarray(entries).astype(np.uint8).tobytes().ljust(256, b"\0")


def looked_up(keys: Bytes, table: bytes) -> Bytes:
    """Return the entries of a table for keys; `take` needs longer."""
    return np.frombuffer(keys.tobytes().translate(table), np.uint8).reshape(keys.shape)


QUIET = int(_number(*np.zeros((2, 1), np.int8))[0])  # the context where no neighbour is another symbol


class Known:
    """Symbols of one segment that are decoded place by place, and the contexts of the next place.

    Parameters
    ----------
    middle : int
        The most frequent symbol.
    kernel : (height, width)
    grid : Grid
    """

    def __init__(self, middle: int, kernel: Kernel, grid: Grid) -> None:
        self._middle, self._width, self._grid = middle, kernel[1], grid
        self._distance = np.zeros((*kernel, grid.kernels), np.int16)

    def contexts(self, place: int) -> Bytes:
        """Return the context of each symbol of a place, where all places before are known: as `_sums`, at one place."""
        row, column = divmod(place, self._width)
        kernels = self._grid.kernels_at(place)
        value, size = np.zeros((2, kernels.stop - kernels.start), np.int16)
        for up, left, in_value, in_size in _NEIGHBOURS:
            if up <= row and left <= column < self._width + left:
                distance = self._distance[row - up, column - left, kernels]
                value += in_value * distance
                size += in_size * np.abs(distance)
        return _number(value, size)

    def put(self, place: int, symbols: Bytes) -> None:
        """Take the symbols of a place."""
        row, column = divmod(place, self._width)
        self._distance[row, column, self._grid.kernels_at(place)] = symbols.astype(np.int16) - self._middle
