"""The limit: the fewest bits, and cells, that any code needs for weights at a given error.

The rate-distortion function of a memoryless source (Shannon 1959), by the iteration of Blahut (1972): for a slope -λ,

    q(y) <- q(y) · Σ_x p(x)·exp(-λ·(x - y)²) / Σ_y' q(y')·exp(-λ·(x - y')²)

converges to the reproductions of one point (D, R) of the curve. Over a channel of capacity C bits per cell, no code
needs fewer than R(D)/C cells per weight (the separation theorem). Weights are taken as independent draws from their
histogram: only a code that uses what they have in common can do better.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import per_weight
from onnx_analog.errors import OptionError

Doubles = NDArray[np.float64]

_BINS = 256
_FEW = 64
_ROUNDS = 500
_TOLERANCE_BITS = 1e-4
_HALVINGS = 40
_RESOLVED = 2 / 3  # of a bin's width²: the least error that a histogram tells apart from that of its bins
_FEW = 64  # values that are a source of their own
_CLOSE = 0.02  # of an error to the one that is sought; the curve's tangent leads from one to the other
_LONGEST = 60.0  # of the logarithm of λ, in units of the variance


class Rate(NamedTuple):
    """One point of the curve: bits for each weight, and the mean squared error."""

    bits: float
    mse: float


def histogram(weights: NDArray[np.floating], bins: int = _BINS) -> tuple[Doubles, Doubles]:
    """Return the mean weight of each bin that is not empty, and its share, each (up to `bins` + 1,).

    Zeros, which are the weights that are not stored, are a bin of their own.
    """
    flat = np.asarray(weights, np.float64).reshape(-1)
    zeros = int(flat.size - np.count_nonzero(flat))
    if zeros and zeros < flat.size:
        values, shares = histogram(flat[flat != 0], bins)
        where = int(np.searchsorted(values, 0.0))
        return np.insert(values, where, 0.0), np.insert(shares * (1 - zeros / flat.size), where, zeros / flat.size)
    low, high = flat.min(), flat.max()
    if low == high:
        return flat[:1], np.ones(1)
    bin_index = np.minimum(((flat - low) * (bins / (high - low))).astype(np.int64), bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    total = np.bincount(bin_index, weights=flat, minlength=bins)
    there = count > 0
    return total[there] / count[there], count[there] / flat.size


class _Curve:
    """The curve of a source of few values; each point begins where the last one ended.

    Parameters
    ----------
    values, shares : float64 arrays of shape (n,)
        Of the source; shares sum to 1. Reproductions are the same values, n - 1 between them, and for few values 257
        at equal distances.
    """

    def __init__(self, values: Doubles, shares: Doubles) -> None:
        self.shares = shares
        reproductions = np.sort(np.concatenate([values, (values[1:] + values[:-1]) / 2]))
        if values.size < _FEW:  # whose best reproductions may lie anywhere between
            reproductions = np.union1d(reproductions, np.linspace(values[0], values[-1], 4 * _FEW + 1))
        self.squared = np.square(values[:, None] - reproductions)
        self._excess = self.squared - self.squared.min(axis=1, keepdims=True)
        self._chance = np.full(reproductions.size, 1 / reproductions.size)

    def point(self, slope: float) -> Rate:
        """Return the point of the curve where dR/dD = -slope/ln 2 bits per unit of squared error."""
        kernel = np.exp(-slope * self._excess)
        chance = np.maximum(self._chance, 1e-12)  # what the last slope left out may be used at this one
        chance /= chance.sum()
        for _ in range(_ROUNDS):
            factor = (self.shares / (kernel @ chance)) @ kernel
            chance = chance * factor
            # Bounds on the rate at this slope (Blahut 1972, theorem 6): log of the largest factor, and its mean.
            gap = np.log(factor.max()) - float(chance @ np.log(np.maximum(factor, 1e-300))) / chance.sum()
            chance /= chance.sum()
            if gap < _TOLERANCE_BITS * math.log(2):
                break
        self._chance = chance
        given = kernel * chance
        given /= given.sum(axis=1, keepdims=True)
        used = self.shares[:, None] * given
        output = used.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = np.where(used > 0, used * np.log2(given / output), 0).sum()
        return Rate(max(0.0, float(bits)), float((used * self.squared).sum()))


def point(values: Doubles, shares: Doubles, slope: float) -> Rate:
    """Return the point of the curve where dR/dD = -slope/ln 2 bits per unit of squared error.

    Parameters
    ----------
    values, shares : float64 arrays of shape (n,)
        Of the source; shares sum to 1.
    slope : float, > 0
        λ.
    """
    return _Curve(values, shares).point(slope)


def rate(weights: NDArray[np.floating], mse: float) -> float:
    """Return R(D): the fewest bits for each weight with a mean squared error of at most `mse`, to 0.002 bits.

    A histogram of 256 bins does not resolve errors below two thirds of a bin's width². Below, the result is a lower
    bound: a factor of four in the error takes a bit for each weight that is not zero, as of any density, or less.

    Parameters
    ----------
    weights : float array of any shape
        At least one. Those that are exactly zero are a value of their own.
    mse : float, > 0
        In the square of the weights' unit.

    Raises
    ------
    OptionError
        If `mse` is not above 0.

    Examples
    --------
    >>> weights = np.random.default_rng(0).normal(size=100_000)
    >>> round(rate(weights, 1 / 16), 1)  # ½·log2(σ²/D) of a Gaussian source
    2.0
    """
    if not mse > 0:
        raise OptionError(f"mse is {mse}; it must be above 0")
    values, shares = histogram(weights)
    variance = float(shares @ np.square(values - shares @ values))
    if mse >= variance:
        return 0.0
    scale = math.sqrt(variance)
    values, target = values / scale, mse / variance
    stored = float(np.count_nonzero(weights) / np.size(weights))  # which have the errors, where those are small
    least = stored * (float(values[-1] - values[0]) / _BINS) ** 2 * _RESOLVED
    if len(values) < _FEW:  # they are values, and no histogram of others
        least = 0.0
    slope, reached = _reaching(_Curve(values, shares), max(target, least))
    tangent = slope / math.log(2)
    bits = reached.bits + tangent * (reached.mse - max(target, least))
    if target < least:
        bits += min(stored / (2 * math.log(2)), tangent * least) * math.log(least / target)
    return max(0.0, bits)


def _reaching(curve: _Curve, mse: float) -> tuple[float, Rate]:
    """Return a slope, and its point of the curve, whose error is within 2 % of `mse`."""
    low, high = -_LONGEST, _LONGEST  # of the logarithm of λ
    guess = math.log(0.5 / mse)  # of a Gaussian source
    for _ in range(_HALVINGS):
        reached = curve.point(math.exp(guess))
        ratio = reached.mse / mse
        if abs(ratio - 1) < _CLOSE:
            break
        low, high = (guess, high) if ratio > 1 else (low, guess)
        step = math.log(max(ratio, 1e-9))  # errors are about proportional to 1/λ
        guess = guess + step if low < guess + step < high else (max(low, -_LONGEST) + min(high, _LONGEST)) / 2
    return math.exp(guess), reached


# ---------------------------------------------------------------------------------------------- of a model


@dataclass(frozen=True, kw_only=True)
class TensorLimit:
    """The limit of one tensor.

    Attributes
    ----------
    key : str
    weights : int
        n, all of them: those that are not stored are zeros, and the mask is part of what a code must tell.
    mse : float
        D, of the weights as they are read.
    bits : float
        R(D), for each weight.
    capacity_bits : float
        C, of one cell as it is counted: half of that of a differential pair.
    """

    key: str
    weights: int
    mse: float
    bits: float
    capacity_bits: float

    @property
    def cells(self) -> float:
        """The fewest cells: n·R(D)/C."""
        return self.weights * self.bits / self.capacity_bits


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The fewest cells for the weights of a model at the errors with which they are read.

    Attributes
    ----------
    tensors : tuple of TensorLimit
    honest_cells : int or None
        Those that the model takes as the memory allows; None where they are not counted.
    """

    tensors: tuple[TensorLimit, ...]
    honest_cells: int | None

    @property
    def cells(self) -> float:
        """The fewest cells of all tensors."""
        return math.fsum(tensor.cells for tensor in self.tensors)

    @property
    def cells_per_original_weight(self) -> float:
        """The same for each weight."""
        return self.cells / sum(tensor.weights for tensor in self.tensors)

    @property
    def factor(self) -> float | None:
        """How many times as many cells the model takes; None if either is not known, or no cell is needed."""
        return self.honest_cells / self.cells if self.honest_cells is not None and self.cells > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the limit, ready for JSON."""
        return {
            "cells": self.cells,
            "cells_per_original_weight": self.cells_per_original_weight,
            "honest_cells": self.honest_cells,
            "factor": self.factor,
            "tensors": [{**asdict(tensor), "cells": tensor.cells} for tensor in self.tensors],
        }

    def __str__(self) -> str:
        above = "" if self.factor is None else f"; the model takes {self.factor:.2f} times as many"
        return f"at least {per_weight(self.cells_per_original_weight)} cells per original weight at these errors{above}"
