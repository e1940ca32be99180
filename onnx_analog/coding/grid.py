"""Weights that lie on a grid: each is a whole multiple of one step, as quantisation-aware training leaves them."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_SURE = 8  # times as large as sizes whose multiples are known: the multiples of these are certain then
_MOST_GAP = 4  # steps between the two nearest values: wider gaps are not recognised


class Grid(NamedTuple):
    """A step, in the unit of the weights, and the multiple that the largest weight is."""

    step: float
    reach: int


def grid_of(weight: NDArray[Any], most: int) -> Grid | None:
    """Return the grid on which all weights lie, but for rounding in their own type; None if there is none.

    Parameters
    ----------
    weight : float array of any shape
    most : int, >= 1
        Largest multiple of the step.

    Examples
    --------
    >>> grid_of(np.array([0.5, -0.25, 0.0, 1.0]), 127)
    Grid(step=0.25, reach=4)
    >>> grid_of(np.array([0.5, -0.3, 0.11]), 127) is None
    True
    """
    sizes = np.unique(np.abs(weight.reshape(-1).astype(np.float64)))
    if not np.isfinite(sizes).all():
        return None
    sizes = sizes[sizes > 0]
    if not 0 < sizes.size <= most:
        return None
    unit = float(ml_dtypes.finfo(weight.dtype).eps)  # type: ignore[no-untyped-call]
    gaps = float(np.diff(sizes, prepend=0.0).min()), float(sizes[0])  # large sizes are rounded most, and their gaps
    fitted = (_fitted(sizes, gap / parts, unit) for parts in range(1, _MOST_GAP + 1) for gap in gaps)
    return next((grid for grid in fitted if grid is not None and grid.reach <= most), None)


def channel_reach(weight: NDArray[Any], axis: int, most: int) -> int | None:
    """Return the least n such that weights are whole multiples of an n-th of the largest in their output channel.

    But for rounding in their own type; None if there is no such n up to `most`. Each channel has a step of its own
    then. Channels of zeros lie on any grid.

    Parameters
    ----------
    weight : float array of any shape
    axis : int
        Of the output channels.
    most : int, >= 1
        Largest multiple of a step.

    Examples
    --------
    >>> channel_reach(np.array([[0.5, -0.25, 0.75], [0.1, 0.3, 0.2]]), 0, 127)
    3
    """
    channels = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    largest = np.abs(channels).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all() or not largest.any():
        return None
    shares = channels[largest > 0] / largest[largest > 0, None]
    unit = float(ml_dtypes.finfo(weight.dtype).eps)  # type: ignore[no-untyped-call]
    fitting = (reach for reach in range(1, most + 1) if _are_multiples(shares[:1] * reach, unit))
    return next((reach for reach in fitting if _are_multiples(shares * reach, unit)), None)


def _are_multiples(quotients: NDArray[np.float64], unit: float) -> bool:
    """Return whether quotients of numbers that were rounded are whole."""
    nearest = np.rint(quotients)
    return bool((np.abs(quotients - nearest) <= 2 * unit * np.abs(nearest)).all())


def _fitted(sizes: NDArray[np.float64], step: float, unit: float) -> Grid | None:
    """Return the grid of about a step on which sizes (S,) lie, ascending and above 0; None if they do not.

    The step is found from the smallest sizes, whose multiples are certain, and made more exact by larger ones. A
    multiple that was rounded in a type of this `unit`, and its step before, are off by half a unit each at most; as
    much is left for what is computed here.
    """
    known = 0
    while known < sizes.size:
        known = max(int(np.searchsorted(sizes, _SURE * sizes[max(known - 1, 0)], side="right")), known + 1)
        multiples = np.rint(sizes[:known] / step)
        if not multiples.all():
            return None
        step = float(sizes[:known] @ multiples / (multiples @ multiples))
    if not (np.abs(sizes - step * multiples) <= 2 * unit * sizes).all():
        return None
    return Grid(step, int(multiples[-1]))
