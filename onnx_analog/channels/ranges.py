"""Numbers in an output range: equally spaced, rounded, and clipped to float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Span = tuple[float, float]


def codes(span: Span, bits: int) -> Doubles:
    """Return the 2^bits equally spaced numbers of `span`, its ends included, of shape (2^bits,)."""
    numbers: Doubles = np.linspace(*span, 2**bits)
    return numbers


def rounded(value: NDArray[np.floating[Any]], span: Span, bits: int) -> Doubles:
    """Return `value` clipped to `span` and rounded to the nearest of 2^bits equally spaced numbers, its ends included.

    Examples
    --------
    >>> rounded(np.array([-2.0, 0.1, 0.6]), (-1.0, 1.0), 1)
    array([-1.,  1.,  1.])
    """
    low, high = span
    step = (high - low) / (2**bits - 1)
    nearest: Doubles = np.clip(low + np.round((np.clip(value, low, high) - low) / step) * step, low, high)
    return nearest


def clip_to_range(level: Floats, span: Span) -> Floats:
    """Return `level` clipped to the float32 numbers inside `span`."""
    low, high = np.float32(span[0]), np.float32(span[1])
    # As Python floats, or numpy would compare in float32, where the two are always equal.
    low = low if float(low) >= span[0] else np.nextafter(low, np.float32(np.inf))
    high = high if float(high) <= span[1] else np.nextafter(high, np.float32(-np.inf))
    clipped: Floats = np.clip(level, low, high)
    return clipped
