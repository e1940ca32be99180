"""How many bits one cell holds: the capacity of a conditional Gaussian channel, free and with few levels.

    C = max over p(x) of I(X; Y)        (Shannon 1948; by the iteration of Blahut and of Arimoto, both 1972)

Limited precision is w inputs that may be written, chosen for the most information, and an analog-to-digital converter
of v equal steps between the extreme means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_TOLERANCE_BITS = 1e-4  # between the bounds of the iteration
_ROUNDS = 20_000
_FINE = 400  # bins of an output that is read exactly
_UNUSED = 1e-4  # of the distribution over inputs


class Capacity(NamedTuple):
    """Capacity in bits per cell, and the distribution over inputs that reaches it, of shape (inputs,)."""

    bits: float
    inputs: Doubles


def transition(means: Doubles, stds: Doubles, *, steps: int | None = None) -> Doubles:
    """Return P(output | input) of normal reads, of shape (inputs, outputs).

    Parameters
    ----------
    means, stds : float arrays of shape (inputs,)
    steps : int, >= 1, optional
        Outputs are so many equal steps between the extreme means, the outermost open; without it, bins so fine and so
        far out that more would change nothing.
    """
    stds = np.maximum(stds, 1e-9)  # an input that is read without noise
    low, high = (means.min(), means.max()) if steps else ((means - 5 * stds).min(), (means + 5 * stds).max())
    edges = np.linspace(low, high, (steps or _FINE) + 1)
    edges[0], edges[-1] = -np.inf, np.inf
    cumulative = scipy.stats.norm.cdf((edges - means[:, None]) / stds[:, None])
    chances: Doubles = np.diff(cumulative, axis=1)
    return chances


def blahut_arimoto(chances: Doubles) -> Capacity:
    """Return the capacity of a discrete memoryless channel.

    Parameters
    ----------
    chances : float array of shape (inputs, outputs)
        P(output | input); each row sums to 1.

    Examples
    --------
    >>> flip = 0.11  # a binary symmetric channel holds 1 - H(0.11) = 0.5 bits
    >>> round(blahut_arimoto(np.array([[1 - flip, flip], [flip, 1 - flip]])).bits, 3)
    0.5
    """
    share = np.full(len(chances), 1 / len(chances))
    own = scipy.special.xlogy(chances, chances).sum(axis=1)
    for _ in range(_ROUNDS):
        output = share @ chances
        with np.errstate(divide="ignore"):
            divergence = own - chances @ np.where(output > 0, np.log(np.maximum(output, 1e-300)), 0)
        low, high = float(share @ divergence), float(divergence.max())
        if high - low < _TOLERANCE_BITS * np.log(2):
            break
        share = share * np.exp(divergence - high)
        share /= share.sum()
    return Capacity(low / np.log(2), share)


def limited(means: Doubles, stds: Doubles, *, write_levels: int, read_levels: int) -> Capacity:
    """Return the capacity with at most so many inputs, chosen well, and so many equal steps of what is read.

    Inputs are found by exchange: each in turn moves to where it adds something, until none does. That is a lower bound
    of the best choice.

    Parameters
    ----------
    means, stds : float arrays of shape (inputs,)
    write_levels, read_levels : int, >= 1

    Returns
    -------
    Capacity
        `inputs` is 0 where an input is not used.
    """
    chances = transition(means, stds, steps=read_levels)
    free = blahut_arimoto(chances)
    used = np.flatnonzero(free.inputs > _UNUSED)
    if write_levels >= len(used):
        return free
    chosen = np.sort(used[np.argsort(-free.inputs[used])[:write_levels]]).tolist()
    best = blahut_arimoto(chances[chosen])
    improved = True
    while improved:
        improved = False
        for place in range(len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            for candidate in used.tolist():
                if candidate in chosen:
                    continue
                tried = sorted([*others, candidate])
                found = blahut_arimoto(chances[tried])
                if found.bits > best.bits + 2 * _TOLERANCE_BITS:
                    best, chosen, improved = found, tried, True
                    break
    full = np.zeros(len(chances))
    full[chosen] = best.inputs
    return Capacity(best.bits, full)
