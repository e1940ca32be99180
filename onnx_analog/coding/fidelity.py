"""How far decoded weights may be from the stored ones, and how far they are: arrays only, no ONNX.

The decode of a class is off by up to u·(4·|w| + 5·S/α), see `onnx_analog.coding.planes`. The second term is the same
for all weights of the class, so where magnitudes are far apart in it, the small weights drown in it. A weight drowns if
its decode is off by more than `TOLERANCE` of it. In most tensors a few do, near zero, and no harm is done; a tensor is
stored only if none of those that drown is off by more than

1. `TOLERANCE` of the tensor's median magnitude;
2. `NEGLIGIBLE`, or `TOLERANCE` of the magnitude that all but one weight in `RARE` exceed, if that is more;
3. `NEGLIGIBLE`, or `TOLERANCE` of the median magnitude of any slice that holds the weight, if that is more. Slices are
   all that one index of one axis selects (an output channel, an input channel, a row of an embedding).

Zeros are not stored and do not count; of an even number of magnitudes the lower middle one is the median; slices of
fewer than `FEWEST` stored weights have none. 2. is for small weights beside very many huge ones; 3. for channels whose
scales differ, as where BatchNorm is folded in. `NEGLIGIBLE` is for channels that training has left dead, with weights
down to the subnormal numbers: real networks are full of them. It makes 2. and 3., but not 1., depend on the unit of the
weights.

The networks that the tests know need at most 0.25 of what is allowed, with any strategy and preset, and 0.06 with those
that are defaults (`tests/test_fidelity.py`); so do, with the defaults, the networks for speech and text of other people
that were tried. With sign protection alone and one scale for a whole model, single tensors of those are beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Span
from onnx_analog.coding.codebook import Codebook
from onnx_analog.coding.partition import Bits, Doubles, Floats, magnitude, parts
from onnx_analog.coding.planes import Encoded, Fitted, Planes, analog_of, decode, join
from onnx_analog.coding.scheme import Scheme

TOLERANCE = 2.0**-7  # half a step of bfloat16
NEGLIGIBLE = 2.0**-20  # a millionth: activations are of order 1, and a float32 sum of them is off by about as much
RARE = 64
FEWEST = 4

_U = 2.0**-24
_SLACK = 1.01  # over the bound, which leaves out the second order of u
_LEAST = 2.0**-149  # float32 numbers are no closer than this


class Deviation(NamedTuple):
    """How far decoded weights are off, where that is the most in proportion to what is allowed."""

    error: float
    allowed: float

    @property
    def share(self) -> float:
        """The error over what is allowed; more than 1 is too much."""
        if not self.error:
            return 0.0
        return self.error / self.allowed if self.allowed else np.inf

    def __str__(self) -> str:
        return f"off by up to {self.error:.2g}, and {self.allowed:.2g} is allowed"


def excess(
    weight: NDArray[Any], planes: Callable[[], Planes], fitted: Fitted, number: int, scheme: Scheme
) -> Deviation | None:
    """Return how far one tensor would be off once decoded, or None if that is within what is allowed.

    Weights of classes without cells do not count: they are read as their reconstruction point, as was asked.

    Parameters
    ----------
    weight : float array
    planes : function
        It returns what `onnx_analog.coding.planes.planes_of` gives of the weight; called only if it is needed.
    fitted, number, scheme
        As `planes_of` takes them.
    """
    count = int(fitted.counts[number].sum())
    if scheme.analog == "none" or _proven(weight, count, fitted.codebook, scheme):
        return None
    stored = planes()
    decoded = decode(Encoded(stored, fitted.codebook, scheme)).reshape(weight.shape)
    exempt = None
    if scheme.analog == "some":
        analog = analog_of(stored.class_index, scheme.cells_of_class, count)
        assert analog is not None
        exempt = join((~analog).astype(np.float32), stored.mask).reshape(weight.shape) > 0
    measured = deviation(weight, decoded, exempt)
    return measured if measured.share > 1 else None


def _proven(weight: NDArray[Any], count: int, codebook: Codebook, scheme: Scheme) -> bool:
    """Return whether the bound shows that all is well; that takes a look at the weights or two, and no planes."""
    filled = (codebook.low != codebook.high) & (np.array(scheme.cells_of_class) > 0)
    bounds = _bounds(codebook.alpha, scheme.channel.span)
    error = float(np.where(filled & (codebook.low < bounds / TOLERANCE), bounds, 0).max())
    if not error:  # no class holds weights that may drown
        return True
    small = _below(weight, error / TOLERANCE) - (weight.size - count)  # those that may drown
    if error <= NEGLIGIBLE:
        return 2 * small < count
    return small == 0 or (RARE * small < count and _scattered(weight, count, error / TOLERANCE))


def _scattered(weight: NDArray[Any], count: int, limit: float) -> bool:
    """Return whether fewer than half of the weights of each slice are below `limit`."""
    flat = weight.reshape(-1)
    below = [part.start + np.flatnonzero(_is_below(flat[part], limit)) for part in parts(flat.size)]
    positions = np.unravel_index(np.concatenate(below), weight.shape)
    for axis, side in enumerate(weight.shape):
        others = tuple(other for other in range(weight.ndim) if other != axis)
        stored = np.count_nonzero(weight, axis=others) if count < weight.size else np.array(weight.size // side)
        small = np.bincount(positions[axis], minlength=side)
        if ((2 * small >= stored) & (small > 0) & (stored >= FEWEST) & (side > 1)).any():
            return False
    return True


def _bounds(alpha: Floats, span: Span) -> Doubles:
    bounds: Doubles = _SLACK * 5 * _U * max(abs(level) for level in span) / alpha.astype(np.float64) + _LEAST
    return bounds


def _below(weight: NDArray[Any], limit: float) -> int:
    """Return how many magnitudes are below `limit`, zeros among them."""
    flat = weight.reshape(-1)
    return sum(int(np.count_nonzero(magnitude(flat[part]) < limit)) for part in parts(flat.size))


def _is_below(part: NDArray[Any], limit: float) -> NDArray[np.bool_]:
    size = magnitude(part)
    return (size < limit) & (size > 0)


def deviation(weight: NDArray[Any], decoded: Floats, exempt: Bits | None = None) -> Deviation:
    """Return how far `decoded` is from `weight`, an array of the same shape, as this module measures it.

    Weights that `exempt`, of that shape too, marks are not compared.
    """
    size, error = magnitude(weight), _drowned(weight, decoded)
    if exempt is not None:
        error[exempt] = 0
    worst = float(error.max(initial=0))
    stored = size[size > 0]
    if not worst or not stored.size:
        return Deviation(worst, 0.0)
    ranks = [(stored.size - 1) // 2, stored.size // RARE]
    median, low = (TOLERANCE * float(quantile) for quantile in np.partition(stored, ranks)[ranks])
    of_all = [Deviation(worst, median), Deviation(worst, max(low, NEGLIGIBLE))]
    return max([*of_all, *_of_slices(size, error)], key=lambda deviation: deviation.share)


def _drowned(weight: NDArray[Any], decoded: Floats) -> Floats:
    """Return how far each weight that drowns is off, and 0 for the others."""
    stored, read, error = weight.reshape(-1), decoded.reshape(-1), np.empty(weight.size, np.float32)
    for part in parts(weight.size):
        exact = stored[part].astype(np.float64)
        off = np.abs(read[part] - exact)
        error[part] = np.where(off <= TOLERANCE * np.abs(exact), 0, np.nan_to_num(off, nan=np.inf, posinf=np.inf))
    return error.reshape(weight.shape)


def _of_slices(size: Floats, error: Floats) -> Iterator[Deviation]:
    for axis, count in enumerate(size.shape):
        if count == 1:
            continue
        rows, off = (np.moveaxis(array, axis, 0).reshape(count, -1) for array in (size, error))
        worst = off.max(axis=1)
        odd = (worst > NEGLIGIBLE) & (np.count_nonzero(rows, axis=1) >= FEWEST)
        rows = np.sort(rows[odd], axis=1)  # what is not stored, 0, comes first
        pruned = rows.shape[1] - np.count_nonzero(rows, axis=1)
        middle = pruned + (rows.shape[1] - pruned - 1) // 2
        allowed = np.maximum(TOLERANCE * rows[np.arange(len(rows)), middle], NEGLIGIBLE)
        yield from (Deviation(float(f), float(a)) for f, a in zip(worst[odd], allowed, strict=True))
