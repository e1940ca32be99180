"""Means over reads, and the gain that weights keep in the mean: arrays only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_NODES = 65


def over_reads(function: Callable[[Doubles], Doubles], mean: Doubles, std: Doubles, *, nodes: int = _NODES) -> Doubles:
    """Return the mean of a function of reads of each level (n,), by Gauss-Hermite quadrature.

    Parameters
    ----------
    function : function
        Of one read of each level (n,); it returns (..., n).
    mean, std : float64 arrays of shape (n,)
        Of a read of each level, which is taken to be normal.
    nodes : int
        How often the function is called.

    Examples
    --------
    >>> over_reads(np.square, np.array([1.0]), np.array([2.0])).round(9).tolist()
    [5.0]
    """
    node, share = np.polynomial.hermite_e.hermegauss(nodes)
    each = (chance * function(mean + z * std) for z, chance in zip(node, share / share.sum(), strict=True))
    total: Doubles = sum(each, np.zeros(()))
    return total


def gain_factor(size: Doubles, expected: Doubles, digital: float = 0.0) -> float:
    """Return c = Σw² / Σw·E[ŵ]: multiplied by c, weights keep their gain in the mean over reads.

    It is 1 where c is no positive number.

    Parameters
    ----------
    size, expected : float64 arrays of shape (n,)
        w and E[ŵ] of the weights with cells.
    digital : float, >= 0
        Σw² of weights without cells, which are read as they are.
    """
    both = float(size @ expected) + digital
    factor = (float(size @ size) + digital) / both if both > 0 else 1.0
    return factor if np.isfinite(factor) and factor > 0 else 1.0
