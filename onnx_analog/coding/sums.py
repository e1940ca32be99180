"""Sums over the weights of each class, from which codebooks are made: arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Doubles, parts


@dataclass(eq=False)
class ClassSums:
    """Extremes, count and, if they are wanted, sums of the sizes and their squares of each class (K,), over arrays.

    Of several groups, their classes are one after the other, (G·K,), or in a row for each group, (G, K). Unless they
    are wanted `by_class`, extremes are those of all classes.
    """

    low: Doubles
    high: Doubles
    count: NDArray[np.int64]
    total: Doubles | None
    square: Doubles | None
    by_class: bool = True

    @staticmethod
    def empty(classes: int, *, totals: bool, by_class: bool = True) -> ClassSums:
        """Return the sums of nothing."""
        low, high = np.full(classes, np.inf), np.full(classes, -np.inf)
        total, square = (np.zeros(classes), np.zeros(classes)) if totals else (None, None)
        return ClassSums(low, high, np.zeros(classes, np.int64), total, square, by_class)

    def add(self, size: NDArray[Any], index: NDArray[np.integer[Any]] | None) -> None:
        """Add sizes (N,) whose classes are `index` (N,); None where there is one class."""
        for part in parts(size.size):
            values = size[part]
            if index is None:
                self._add(slice(None), values.min(), values.max(), values.size)
                continue
            place: NDArray[Any] = index[part]
            if self.total is not None or self.count.size > 2:
                place = place.astype(np.intp)  # as each of the counts below would do
            if not self.by_class:
                counts = np.bincount(place, minlength=self.count.size)
                self._add(slice(None), values.min(), values.max(), counts)
            elif self.count.size <= 2:  # going through all, one by one, takes longer
                self._add_few(values, place)
            else:
                self._add_many(values, place)
            if self.total is not None and self.square is not None:
                wide = values.astype(np.float64)
                self.total += np.bincount(place, weights=wide, minlength=self.total.size)
                self.square += np.bincount(place, weights=np.square(wide), minlength=self.square.size)

    def _add_few(self, values: NDArray[Any], index: NDArray[np.integer[Any]]) -> None:
        for number in range(self.count.size):
            of_class = values[index == number]
            if of_class.size:
                self._add(number, of_class.min(), of_class.max(), of_class.size)

    def _add_many(self, values: NDArray[Any], index: NDArray[np.intp]) -> None:
        low, high = (np.full(self.count.size, end, values.dtype) for end in (np.inf, -np.inf))
        np.minimum.at(low, index, values)
        np.maximum.at(high, index, values)
        self._add(slice(None), low, high, np.bincount(index, minlength=self.count.size))

    def _add(self, where: Any, low: Any, high: Any, count: Any) -> None:
        self.low[where] = np.minimum(self.low[where], low)
        self.high[where] = np.maximum(self.high[where], high)
        self.count[where] += count

    def by_group(self, groups: int) -> ClassSums:
        """Return the same with a row for each group, (G, K)."""
        low, high = (each.reshape(groups, -1) for each in (self.low, self.high))
        total, square = (None if each is None else each.reshape(groups, -1) for each in (self.total, self.square))
        return ClassSums(low, high, self.count.reshape(groups, -1), total, square, self.by_class)


def means_of(sums: ClassSums) -> Doubles:
    """Return the mean of each class; 0 of an empty one, and where no sums were wanted."""
    if sums.total is None:
        return np.zeros(sums.count.shape)
    means: Doubles = sums.total / np.maximum(sums.count, 1)
    return means


def gain_of_points(total: Doubles, square: Doubles, points: Doubles) -> float:
    """Return Σw² / Σw·point of classes with these sums of sizes and of squares; 1 where that is no positive number.

    Points scaled by it keep the gain of a layer, which quantisation lowers.
    """
    both = float(total @ points)
    gain = float(square.sum()) / both if both > 0 else 1.0
    return gain if 0 < gain < np.inf else 1.0
