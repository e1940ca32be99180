"""The limit: the fewest bits, and cells, that any code needs for weights at a given error.

The rate-distortion function of a memoryless source (Shannon 1959), by the iteration of Blahut (1972): for a slope -λ,

    q(y) <- q(y) · Σ_x p(x)·exp(-λ·(x - y)²) / Σ_y' q(y')·exp(-λ·(x - y')²)

converges to the reproductions of one point (D, R) of the curve. Over a channel of capacity C bits per cell, no code
needs fewer than R(D)/C cells per weight (the separation theorem). Weights are taken as independent draws from their
histogram: only a code that uses what they have in common can do better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import OptionError

Doubles = NDArray[np.float64]

_BINS = 256
_ROUNDS = 500
_TOLERANCE_BITS = 1e-4
_HALVINGS = 40


class Rate(NamedTuple):
    """One point of the curve: bits for each weight, and the mean squared error."""

    bits: float
    mse: float


def histogram(weights: NDArray[np.floating], bins: int = _BINS) -> tuple[Doubles, Doubles]:
    """Return the mean weight of each bin that is not empty, and its share, each (up to `bins`,)."""
    flat = np.asarray(weights, np.float64).reshape(-1)
    low, high = flat.min(), flat.max()
    if low == high:
        return flat[:1], np.ones(1)
    bin_index = np.minimum(((flat - low) * (bins / (high - low))).astype(np.int64), bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    total = np.bincount(bin_index, weights=flat, minlength=bins)
    there = count > 0
    return total[there] / count[there], count[there] / flat.size


def point(values: Doubles, shares: Doubles, slope: float) -> Rate:
    """Return the point of the curve where dR/dD = -slope/ln 2 bits per unit of squared error.

    Parameters
    ----------
    values, shares : float64 arrays of shape (n,)
        Of the source; shares sum to 1. Reproductions are the same values, and n - 1 between them.
    slope : float, > 0
        λ.
    """
    reproductions = np.sort(np.concatenate([values, (values[1:] + values[:-1]) / 2]))
    squared = np.square(values[:, None] - reproductions)
    kernel = np.exp(-slope * (squared - squared.min(axis=1, keepdims=True)))
    chance = np.full(reproductions.size, 1 / reproductions.size)
    for _ in range(_ROUNDS):
        factor = (shares / (kernel @ chance)) @ kernel
        chance = chance * factor
        # Bounds on the rate at this slope (Blahut 1972, theorem 6): log of the largest factor, and its mean.
        gap = np.log(factor.max()) - float(chance @ np.log(np.maximum(factor, 1e-300))) / chance.sum()
        chance /= chance.sum()
        if gap < _TOLERANCE_BITS * math.log(2):
            break
    given = kernel * chance
    given /= given.sum(axis=1, keepdims=True)
    used = shares[:, None] * given
    output = used.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(used > 0, used * np.log2(given / output), 0).sum()
    return Rate(max(0.0, float(bits)), float((used * squared).sum()))


def rate(weights: NDArray[np.floating], mse: float) -> float:
    """Return R(D): the fewest bits for each weight with a mean squared error of at most `mse`.

    Parameters
    ----------
    weights : float array of any shape
        At least one.
    mse : float, > 0
        In the square of the weights' unit; at least width²/12, where width is the range of the weights over 256: the
        histogram does not resolve less.

    Raises
    ------
    OptionError
        If `mse` is not above 0, or below what the histogram tells.

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
    least = (float(values[-1] - values[0]) / _BINS) ** 2 / 12
    if mse < least:
        raise OptionError(f"mse is {mse:.3g}; a histogram of {_BINS} bins resolves errors of {least:.3g} or more")
    low, high = math.log(0.5 / variance) - 3, math.log(0.5 / mse) + 3  # of λ: 1/(2D) for a Gaussian source
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = point(values, shares, math.exp(middle))
        low, high = (middle, high) if reached.mse > mse else (low, middle)
        if abs(reached.mse / mse - 1) < 1e-3:
            break
    return reached.bits


def cells(weights: NDArray[np.floating], mse: float, capacity_bits: float) -> float:
    """Return the fewest cells for each weight, R(D)/C, over a channel that holds `capacity_bits` in each cell."""
    if not capacity_bits > 0:
        raise OptionError(f"capacity_bits is {capacity_bits}; it must be above 0")
    return rate(weights, mse) / capacity_bits
