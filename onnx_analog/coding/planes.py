r"""Weights to planes and back: arrays only, no ONNX.

For a class that holds magnitudes low..high, and a channel that holds levels s0..s1 (Isik et al. 2020, section 2, with
β chosen so that the class fills the span):

    α = (s1 - s0) / (high - low)     β = α·low - s0     level = α·|w| - β     |w| = (level + β) / α

Noise of standard deviation σ in a level is noise of σ/α in the weight.

α and β are float32 numbers, levels are computed with them in float64 and rounded once. Decoding is one sum and one
quotient in float32, so the decoded magnitude differs from the stored one by at most

    u·(4·|w| + 5·S/α)     with u = 2**-24 and S = max(|s0|, |s1|)

(level, sum and quotient round once each; clipping the level moves it by no more than α and β were rounded, and by one
unit more where an end of the span is no float32 number). A float64 weight below the normal float32 numbers may be off
by 2**-150 more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import inside
from onnx_analog.coding import strategies
from onnx_analog.errors import ModelError, OptionError, whole

Floats = NDArray[np.float32]
Bits = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Span = tuple[float, float]

_CHUNK = 2**17  # elements that are looked at at once: few enough for a cache, and no second copy of a large tensor
_NORMAL = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))

# ---------------------------------------------------------------------------------- the largest of many arrays


class Cut(NamedTuple):
    """A magnitude that parts the largest from the rest: all above it, and the first `ties` equal to it."""

    magnitude: float
    ties: int


def cut_largest(arrays: Iterable[NDArray[Any]], count: int) -> Cut:
    """Return the cut that leaves exactly `count` elements of largest magnitude, over all `arrays`.

    Magnitudes are compared as float32. The bits of non-negative floats order as the floats do, so two histograms, of
    the upper and then of the lower 16 bits, find the cut exactly with no array copied or sorted.

    Parameters
    ----------
    arrays : iterable of float arrays of any shapes
        Finite numbers. It is gone through twice.
    count : int
        From 0 to the number of elements.

    Examples
    --------
    >>> cut_largest([np.array([1.0, -3.0, 2.0, 2.0])], 2)
    Cut(magnitude=2.0, ties=1)
    """
    if count == 0:
        return Cut(np.inf, 0)
    upper = sum((_histogram(bits >> 16) for bits in _chunks(arrays)), np.zeros(2**16, np.int64))
    high, left = _bin_of(upper, count)
    lower = sum((_histogram(bits[bits >> 16 == high] & 0xFFFF) for bits in _chunks(arrays)), np.zeros(2**16, np.int64))
    low, ties = _bin_of(lower, left)
    return Cut(float(np.uint32(high << 16 | low).view(np.float32)), ties)


def _chunks(arrays: Iterable[NDArray[Any]]) -> Iterable[NDArray[np.uint32]]:
    for array in arrays:
        flat = array.reshape(-1)
        for part in parts(flat.size):
            yield magnitude(flat[part]).view(np.uint32)


def parts(count: int) -> Iterator[slice]:
    """Return the slices of `count` elements that are looked at at once."""
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _histogram(values: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    return np.bincount(values, minlength=2**16)


def _bin_of(histogram: NDArray[np.int64], count: int) -> tuple[int, int]:
    """Return the bin in which the `count`-th largest lies, and how many of that bin belong to the largest."""
    from_top = np.cumsum(histogram[::-1])
    place = int(np.searchsorted(from_top, count))
    before = int(from_top[place - 1]) if place else 0
    return histogram.size - 1 - place, count - before


def magnitude(array: NDArray[Any]) -> Floats:
    """Return absolute values as float32; what is not zero stays above zero."""
    with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and refused where it matters
        size: Floats = np.abs(array.astype(np.float32, copy=False))
    if array.dtype == np.float64:
        size[(size == 0) & (array != 0)] = np.finfo(np.float32).smallest_subnormal
    return size


def mark_largest(array: NDArray[Any], cut: Cut) -> tuple[Bits, Cut]:
    """Mark the elements on the upper side of `cut`, ties in the order of the flat index.

    Returns
    -------
    marks : bool array of the shape of `array`
    cut : Cut
        What is left of it for the arrays that follow.

    Examples
    --------
    >>> mark_largest(np.array([1.0, -3.0, 2.0, 2.0]), Cut(2.0, 1))
    (array([False,  True,  True, False]), Cut(magnitude=2.0, ties=0))
    """
    size = magnitude(array.reshape(-1))  # in the order of the flat index, whatever that of the memory
    marks: Bits = size > cut.magnitude
    ties = np.flatnonzero(size == cut.magnitude)[: cut.ties]
    marks[ties] = True
    return marks.reshape(array.shape), Cut(cut.magnitude, cut.ties - ties.size)


# ------------------------------------------------------------------------------------------------ classes


@dataclass(frozen=True, kw_only=True)
class WeightClass:
    """Magnitudes (of the code `raw`: signed weights) that share one scale and one number of cells.

    Parameters
    ----------
    low, high : float
        The interval that fills the channel's span, in the unit of the weights; both 0 for an empty class.
    alpha, beta : float
        Scale and shift, exactly representable as float32.
    cells : int, >= 1
        Cells that are averaged for one level.
    """

    low: float
    high: float
    alpha: float
    beta: float
    cells: int


def fit_class(low: float, high: float, *, span: Span, cells: int) -> WeightClass:
    """Return the class whose magnitudes `low` to `high` fill `span`.

    A class of one value has no width: 0 is then included in it, so that α stays finite.

    Raises
    ------
    ModelError
        If α is no normal float32 number: the magnitudes are too close to the ends of its range.

    Examples
    --------
    >>> fit_class(0.5, 2.5, span=(0.0, 1.0), cells=1)
    WeightClass(low=0.5, high=2.5, alpha=0.5, beta=0.25, cells=1)
    """
    if low == high:
        low, high = min(low, 0.0), max(high, 0.0)
    with np.errstate(over="ignore", under="ignore"):
        alpha = float(np.float32((span[1] - span[0]) / (high - low)))
        beta = float(np.float32(alpha * low - span[0]))
    if not _NORMAL[0] <= alpha <= _NORMAL[1]:
        raise ModelError(f"magnitudes from {low:.3g} to {high:.3g} cannot be scaled to {span} in float32")
    return WeightClass(low=low, high=high, alpha=alpha, beta=beta, cells=cells)


def empty_class(cells: int) -> WeightClass:
    """Return a class that holds nothing."""
    return WeightClass(low=0.0, high=0.0, alpha=1.0, beta=0.0, cells=cells)


# ------------------------------------------------------------------------------------------------- planes


class Planes(NamedTuple):
    """One weight tensor, taken apart. N weights of n are stored, in the order of the flat index.

    Attributes
    ----------
    level : float32 array of shape (N,)
        What the cells are asked to return, in the channel's unit.
    mask : bool array of shape (n,), or None
        Which weights are stored; None if all are.
    sign : bool array of shape (N,), or None
        True where negative; None if the level carries the sign.
    class_index : uint8 array of shape (N,), or None
        Class; None if there is one only.
    """

    level: Floats
    mask: Bits | None
    sign: Bits | None
    class_index: Bytes | None


class Part(NamedTuple):
    """What of a weight tensor is stored: sizes (N,), mask (n,) and sign (N,), the latter two where there are such."""

    size: NDArray[Any]
    mask: Bits | None
    sign: Bits | None


def split(weight: NDArray[Any], *, sign_in_header: bool) -> Part:
    """Return what of `weight` is stored.

    Zeros are not stored. Sizes are magnitudes, or signed weights if the sign is not in the header; of the type of
    `weight` or of float32, whichever is wider.
    """
    flat = weight.reshape(-1)
    mask = flat != 0
    kept = flat if mask.all() else flat[mask]
    kept = kept.astype(np.result_type(kept.dtype, np.float32) if kept.dtype.kind == "f" else np.float32, copy=False)
    return Part(
        np.abs(kept) if sign_in_header else kept,
        None if kept.size == flat.size else mask,
        kept < 0 if sign_in_header else None,
    )


def of_each(values: NDArray[Any], class_index: Bytes | None) -> Any:
    """Return the value of each weight's class: (N,), or one number where there is one class, from `values` (K,)."""
    return values[0] if class_index is None else values[class_index]


def levels(size: NDArray[Any], class_index: Bytes | None, classes: Sequence[WeightClass], *, span: Span) -> Floats:
    """Return the levels (N,) of `size` (N,): α·size - β in float64, clipped to `span`, rounded once to float32."""
    alpha, beta = (np.array([getattr(c, name) for c in classes]) for name in ("alpha", "beta"))
    found = np.empty(size.shape, np.float32)
    for part in parts(size.size):
        given = size[part].astype(np.float64)
        exact = alpha[0] * given - beta[0]
        for place in range(1, len(classes)):  # they are few, and looking α and β up for each weight takes twice as long
            assert class_index is not None
            here = np.flatnonzero(class_index[part] == place)
            exact[here] = alpha[place] * given[here] - beta[place]
        found[part] = inside(exact.astype(np.float32), span)
    return found


def unlevel(level: Floats, sign: Bits | None, class_index: Bytes | None, alpha: Floats, beta: Floats) -> Floats:
    """Return the stored weights (N,) as float32: (level + β)/α, and the sign. The graph computes the same bits."""
    size: Floats = (level + of_each(beta, class_index)) / of_each(alpha, class_index)
    if sign is not None:
        np.subtract(0, size, out=size, where=sign)  # and not negative: a zero stays +0, as in onnxruntime
    return size


def join(stored: Floats, mask: Bits | None) -> Floats:
    """Return all weights (n,): `stored` (N,) where `mask` says so, 0 elsewhere."""
    if mask is None:
        return stored
    dense = np.zeros(mask.size, np.float32)
    dense[mask] = stored
    return dense


def pack(bits: NDArray[Any]) -> Bytes:
    """Return bits (n,) as bytes (⌈n/8⌉,), the first bit lowest."""
    return np.packbits(bits.astype(bool, copy=False), bitorder="little")


def unpack(packed: Bytes, count: int) -> Bits:
    """Return the first `count` bits of `packed`: the inverse of `pack`."""
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)


# ------------------------------------------------------------------------------------------------- one scope


@dataclass(frozen=True, kw_only=True)
class Code:
    """How the weights of one scope become planes: a row of the paper's Table 1, and its numbers.

    Parameters
    ----------
    strategy : {"redundancy", "mapping", "sign", "raw"}
        See `onnx_analog.coding.strategies`.
    cells_small, cells_large : int, >= 1
        Cells per weight of either class. Strategies other than `redundancy` use `cells_small` for all.
    large_fraction : float, 0 <= large_fraction <= 1
        Share of the scope's stored weights, the largest, that are large; ties by flat index.
    threshold : float, > 0, optional
        Magnitudes above it, as float32 numbers, are large; replaces `large_fraction`.

    Raises
    ------
    OptionError
        If one of them is out of its range.
    """

    strategy: str = "redundancy"
    cells_small: int = 1
    cells_large: int = 20
    large_fraction: float = strategies.LARGE_FRACTION
    threshold: float | None = None

    def __post_init__(self) -> None:
        strategies.strategy(self.strategy)
        for name in ("cells_small", "cells_large"):
            if not 1 <= whole(name, getattr(self, name)) <= strategies.MOST_CELLS:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be from 1 to {strategies.MOST_CELLS:,}")
        if not 0 <= self.large_fraction <= 1:
            raise OptionError(f"large_fraction is {self.large_fraction}; it must be from 0 to 1")
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise OptionError(f"threshold is {self.threshold}; it must be above 0 and finite")

    @property
    def cells(self) -> tuple[int, ...]:
        """Cells per weight of each class (K,)."""
        return strategies.strategy(self.strategy).cells(int(self.cells_small), int(self.cells_large))

    @property
    def sign_in_header(self) -> bool:
        """Whether the sign is a bit of the header, and not the level's."""
        return strategies.strategy(self.strategy).sign_in_header

    def cut(self, sizes: Iterable[NDArray[Any]], count: int) -> Cut | None:
        """Return what parts large from small among the `count` weights of a scope; None where there is one class."""
        if len(self.cells) == 1:
            return None
        if self.threshold is not None:
            return Cut(float(magnitude(np.array([self.threshold]))[0]), 0)
        return cut_largest(sizes, round(self.large_fraction * count))


class Encoded(NamedTuple):
    """One weight tensor as it is stored; `classes` (K,) are those of its scope."""

    planes: Planes
    classes: tuple[WeightClass, ...]


def encode(weights: Sequence[NDArray[Any]], code: Code, *, span: Span) -> list[Encoded]:
    """Return the weight tensors of one scope, which share classes, each as it is stored.

    Parameters
    ----------
    weights : sequence of float arrays of any shapes
        Finite numbers.
    code : Code
    span : (float, float)
        Levels that the channel holds.

    Raises
    ------
    ModelError
        If the magnitudes of a class cannot be scaled to the span in float32.

    Examples
    --------
    >>> (found,) = encode([np.array([0.5, 0.0, -1.0])], Code(strategy="sign"), span=(0.0, 1.0))
    >>> found.planes.level, found.planes.sign, found.planes.mask
    (array([0., 1.], dtype=float32), array([False,  True]), array([ True, False,  True]))
    >>> decode(found)
    array([ 0.5,  0. , -1. ], dtype=float32)
    """
    given = [split(weight, sign_in_header=code.sign_in_header) for weight in weights]
    fitted = fit([part.size for part in given], code, span=span)
    return [
        Encoded(planes_of(part, fitted.classes, cut, span=span), fitted.classes)
        for part, cut in zip(given, fitted.cuts, strict=True)
    ]


class Fitted(NamedTuple):
    """What the weights of one scope share, and what of it each of its tensors needs."""

    classes: tuple[WeightClass, ...]
    cuts: tuple[Cut | None, ...]  # for each tensor: which of its weights are large; None where there is one class
    counts: tuple[int, ...]  # stored weights of each tensor


def fit(sizes: Iterable[NDArray[Any]], code: Code, *, span: Span) -> Fitted:
    """Return the classes of one scope: with them, `take_apart` encodes its tensors one at a time.

    Parameters
    ----------
    sizes : iterable of arrays
        What `split` gives of each tensor. It is gone through several times, and may make them anew each time.
    code : Code
    span : (float, float)
        Levels that the channel holds.

    Raises
    ------
    ModelError
        If the magnitudes of a class cannot be scaled to the span in float32.
    """
    counts = tuple(size.size for size in sizes)
    cut, cuts = code.cut(sizes, sum(counts)), []
    ends = [(np.inf, -np.inf) for _ in code.cells]
    for size in sizes:
        cuts.append(cut)
        if cut is None:
            ends = [_wider(ends[0], size)]
            continue
        large, cut = mark_largest(size, cut)
        for part in parts(size.size):
            sizes_of = size[part][~large[part]], size[part][large[part]]
            ends = [_wider(end, found) for end, found in zip(ends, sizes_of, strict=True)]
    classes = [
        empty_class(cells) if low > high else fit_class(low, high, span=span, cells=cells)
        for (low, high), cells in zip(ends, code.cells, strict=True)
    ]
    return Fitted(tuple(classes), tuple(cuts), counts)


def _wider(ends: tuple[float, float], values: NDArray[Any]) -> tuple[float, float]:
    return (min(ends[0], float(values.min())), max(ends[1], float(values.max()))) if values.size else ends


def take_apart(
    weight: NDArray[Any], code: Code, classes: Sequence[WeightClass], cut: Cut | None, *, span: Span
) -> Planes:
    """Return one tensor of a scope that `fit` has seen, as it is stored."""
    return planes_of(split(weight, sign_in_header=code.sign_in_header), classes, cut, span=span)


def planes_of(part: Part, classes: Sequence[WeightClass], cut: Cut | None, *, span: Span) -> Planes:
    """Return as it is stored what `split` gave of a tensor of a scope that `fit` has seen."""
    index = None if cut is None else mark_largest(part.size, cut)[0].view(np.uint8)
    return Planes(levels(part.size, index, classes, span=span), part.mask, part.sign, index)


def decode(stored: Encoded, level: Floats | None = None) -> Floats:
    """Return the weights (n,) as float32 that `level` (N,), or the stored levels, stand for."""
    planes, classes = stored
    alpha, beta = (np.array([getattr(c, name) for c in classes], np.float32) for name in ("alpha", "beta"))
    level = planes.level if level is None else level
    return join(unlevel(level, planes.sign, planes.class_index, alpha, beta), planes.mask)
