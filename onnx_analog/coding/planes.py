r"""Weights to planes and back: arrays only, no ONNX.

For a class that holds sizes low..high, and a channel that holds levels s0..s1 (Isik et al. 2020, section 2, with β
chosen so that the class fills the output range):

    α = (s1 - s0) / (high - low)     β = α·low - s0     level = α·size - β     size = (level + β) / α

Noise of standard deviation σ in a level is noise of σ/α in the weight. A class without cells has α = 1 and the
reconstruction point as β: with 0 in the place of a level, the same decode gives the point.

α and β are float32 numbers, levels are computed with them in float64 and rounded once. Decoding is one sum and one
quotient in float32, so the decoded size differs from the stored one by at most

    u·(4·|w| + 5·S/α)     with u = 2**-24 and S = max(|s0|, |s1|)

(level, sum and quotient round once each; clipping the level moves it by no more than α and β were rounded, and by one
unit more where an end of the output range is no float32 number). A float64 weight below the normal float32 numbers may
be off by 2**-150 more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.coding.codebook import Codebook, codebook_of, needs_extremes, needs_totals
from onnx_analog.coding.groups import GroupEdges, fit_groups, order_of, with_shared
from onnx_analog.coding.masks import follows_from, pattern_bits
from onnx_analog.coding.partition import (
    Bits,
    Bytes,
    Doubles,
    Edges,
    Floats,
    edges_of,
    parts,
)
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.sums import ClassSums

# ------------------------------------------------------------------------------------------------- planes


class Planes(NamedTuple):
    """The planes of one weight tensor: N of n weights are stored, in the order of the flat index; M of N have cells.

    Attributes
    ----------
    level : float32 array of shape (M,)
        What the cells are asked to return, in the channel's unit.
    mask : bool array of shape (n,), or None
        Which weights are stored; None if all are.
    sign : bool array of shape (N,), or None
        True where negative; None if the level carries the sign.
    class_index : uint8 array of shape (N,), or None
        Class; None if there is one only.
    group : int array of shape (N,), or None
        Group; None if there is one only.
    """

    level: Floats
    mask: Bits | None
    sign: Bits | None
    class_index: Bytes | None
    group: NDArray[np.int64] | None = None


class Part(NamedTuple):
    """The stored part of a weight tensor: sizes (N,), mask (n,), sign (N,) and group (N,), where there are such.

    `seeded` is whether the mask follows from the seed of the scheme.
    """

    size: NDArray[Any]
    mask: Bits | None
    sign: Bits | None
    group: NDArray[np.int64] | None = None
    seeded: bool = False


@dataclass(frozen=True)
class Axis:
    """Which output channel a flat index is of: (index // stride) % count."""

    count: int
    stride: int

    @staticmethod
    def of(shape: Sequence[int], axis: int) -> Axis:
        """Return the output channels that lie along an axis of a shape; a negative axis counts from the last."""
        axis %= len(shape)
        return Axis(int(shape[axis]), int(np.prod(shape[axis + 1 :], dtype=np.int64)))

    def groups(self, size: int, mask: Bits | None) -> NDArray[np.int64]:
        """Return the output channel of each stored weight (N,) of `size`."""
        shape = (size // (self.count * self.stride), self.count, self.stride) if size else (0, 1, 1)
        index = np.broadcast_to(np.arange(self.count)[:, None] if size else np.zeros((1, 1), int), shape).reshape(-1)
        return index if mask is None else index[mask]


def split(weight: NDArray[Any], scheme: Scheme, axis: Axis | None = None, *, key: str | None = None) -> Part:
    """Return what of `weight` is stored.

    Zeros are not stored. Sizes are magnitudes, or signed weights if the level holds the sign; of the type of `weight`
    or of float32, whichever is wider. `axis` is that of the output channels, where they have scales of their own, and
    `key` the tensor's storage key: without it, no mask follows from a seed.
    """
    flat = weight.reshape(-1)
    marks = flat != 0
    kept = flat if marks.all() else flat[marks]
    kept = kept.astype(np.result_type(kept.dtype, np.float32) if kept.dtype.kind == "f" else np.float32, copy=False)
    mask = None if kept.size == flat.size else marks
    signs = scheme.sign == "bit"
    seed = scheme.mask_seed
    return Part(
        np.abs(kept) if signs else kept,
        mask,
        kept < 0 if signs else None,
        None if axis is None else axis.groups(flat.size, mask),
        mask is not None and seed is not None and key is not None and follows_from(seed, key, mask),
    )


def of_each(values: NDArray[Any], class_index: Bytes | None, group: NDArray[np.int64] | None = None) -> Any:
    """Return the value of each weight (N,), or one number where all are alike, from `values` (G, K)."""
    if group is None and class_index is not None and values.shape[1] == 2:  # looking up takes three times as long
        return np.where(class_index.view(np.bool_), values[0, 1], values[0, 0])
    if group is None:
        return values[0, 0] if class_index is None else values[0][class_index]
    return values[:, 0][group] if class_index is None else values.reshape(-1)[group * values.shape[1] + class_index]


def levels(part: Part, class_index: Bytes | None, codebook: Codebook, scheme: Scheme) -> Floats:
    """Return the levels (M,): α·size - β in float64, clipped to the output range, rounded once to float32."""
    if scheme.analog == "none":
        return np.zeros(0, np.float32)
    level = np.empty(part.size.shape, np.float32)
    alpha, beta = codebook.alpha.astype(np.float64), codebook.beta.astype(np.float64)
    for piece in parts(part.size.size):
        size = part.size[piece].astype(np.float64)
        index = None if class_index is None else class_index[piece]
        group = None if part.group is None else part.group[piece]
        level[piece] = clip_to_range(_scaled(size, index, group, alpha, beta).astype(np.float32), scheme.channel.span)
    analog = analog_of(class_index, scheme.cells_of_class, part.size.size)
    return level if analog is None else level[analog]


def _scaled(
    size: Doubles, class_index: Bytes | None, group: NDArray[np.int64] | None, alpha: Doubles, beta: Doubles
) -> Doubles:
    if group is not None or alpha.shape[1] > 2:
        looked_up: Doubles = of_each(alpha, class_index, group) * size - of_each(beta, class_index, group)
        return looked_up
    exact: Doubles = alpha[0, 0] * size - beta[0, 0]
    if class_index is not None:  # of two classes: looking α and β up for each weight takes twice as long
        upper = np.flatnonzero(class_index)
        exact[upper] = alpha[0, 1] * size[upper] - beta[0, 1]
    return exact


def decode_levels(
    level: Floats,
    sign: Bits | None,
    class_index: Bytes | None,
    alpha: Floats,
    beta: Floats,
    *,
    group: NDArray[np.int64] | None = None,
    analog: Bits | None = None,
) -> Floats:
    """Return the stored weights (N,) as float32: (level + β)/α, and the sign. The graph computes the same bits.

    Parameters
    ----------
    level : float32 array of shape (M,)
    sign, class_index, group : arrays of shape (N,), or None
    alpha, beta : float32 arrays of shape (G, K)
    analog : bool array of shape (N,), or None
        Which weights have cells; None if all have.
    """
    if analog is not None:
        full = np.zeros(analog.shape, np.float32)
        full[analog] = level
        level = full
    size: Floats = (level + of_each(beta, class_index, group)) / of_each(alpha, class_index, group)
    if sign is not None:
        np.subtract(0, size, out=size, where=sign)  # not np.negative, which would make -0 of a zero
        np.add(size, 0, out=size, where=~sign)  # -0, of a quotient that underflows, becomes +0, as in the graph
    return size


def join(stored: Floats, mask: Bits | None) -> Floats:
    """Return all weights (n,): `stored` (N,) where `mask` says so, 0 elsewhere."""
    if mask is None:
        return stored
    dense = np.zeros(mask.size, np.float32)
    dense[mask] = stored
    return dense


# --------------------------------------------------------------------------------- tensors that share a codebook


class Encoded(NamedTuple):
    """One weight tensor as it is stored, and the codebook that it may share."""

    planes: Planes
    codebook: Codebook
    scheme: Scheme


class Fitted(NamedTuple):
    """A shared codebook, and what each of its tensors needs to be encoded.

    Attributes
    ----------
    codebook : Codebook
    counts : int64 array of shape (tensors, K)
        Stored weights of each tensor and class.
    edges : sequence of sequence of Edges, (tensors, G)
        Between the classes, with the ties that are left for the tensor.
    class_index : sequence of (uint8 array of shape (N,), or None)
        Class of each weight, of each tensor; None where there is one class. Empty unless `fit` was asked to keep it.
    compensated : frozenset of int
        Tensors whose classes are not the nearest: their weights make up for each other's errors.
    pruned : frozenset of int
        Tensors whose weights that are read as 0 are not stored.
    """

    codebook: Codebook
    counts: NDArray[np.int64]
    edges: Sequence[Sequence[Edges]]
    class_index: Sequence[Bytes | None] = ()
    compensated: frozenset[int] = frozenset()
    pruned: frozenset[int] = frozenset()


def encode(
    weights: Sequence[NDArray[Any]], scheme: Scheme, *, axis: int = 0, keys: Sequence[str | None] | None = None
) -> list[Encoded]:
    """Return weight tensors that share a codebook, each as it is stored.

    Parameters
    ----------
    weights : sequence of float arrays of any shapes
        Finite numbers; one array, unless the scheme's granularity is the model.
    scheme : Scheme
    axis : int
        Of the output channels, where the scheme's granularity is the channel.
    keys : sequence of str or None, optional
        Storage key of each tensor: without it, no mask follows from a seed.

    Raises
    ------
    ModelError
        If the sizes of a class cannot be scaled to the channel's output range in float32.

    Examples
    --------
    >>> (stored,) = encode([np.array([0.5, 0.0, -1.0])], Scheme.paper("sign", channel="gaussian:low=0,high=1"))
    >>> stored.planes.level, stored.planes.sign, stored.planes.mask
    (array([0., 1.], dtype=float32), array([False,  True]), array([ True, False,  True]))
    >>> decode(stored)
    array([ 0.5,  0. , -1. ], dtype=float32)
    """
    axes = [Axis.of(weight.shape, axis) if scheme.granularity == "channel" else None for weight in weights]
    named = zip(weights, axes, keys or [None] * len(weights), strict=True)
    given = [split(weight, scheme, each, key=key) for weight, each, key in named]
    fitted = fit(given, scheme, groups=axes[0].count if axes and axes[0] else 1, keep=True)
    return [
        Encoded(planes_of(part, fitted, number, scheme), fitted.codebook, scheme) for number, part in enumerate(given)
    ]


def fit(given: Iterable[Part], scheme: Scheme, *, groups: int = 1, keep: bool = False) -> Fitted:
    """Return the codebook that tensors share: with it, `planes_of` encodes them one at a time.

    Parameters
    ----------
    given : iterable of Part
        What `split` gives of each tensor. It is iterated several times, and may make them anew each time.
    scheme : Scheme
    groups : int
        Output channels of the one tensor, where each has a scale of its own.
    keep : bool
        Keep the class of each weight, a byte for each, so that `planes_of` need not find it again.

    Raises
    ------
    ModelError
        If the sizes of a class cannot be scaled to the channel's output range in float32.
    """
    if groups > 1:
        (part,) = given
        fitted = _fit_groups(part, scheme, groups)
    else:
        fitted = _fit(_Sizes(given), scheme, keep=keep)
    fitted = fitted._replace(pruned=_pruned(given, fitted, scheme))
    return fitted if keep else fitted._replace(class_index=())


def _fit_groups(part: Part, scheme: Scheme, groups: int) -> Fitted:
    """Return the codebook of one tensor whose output channels have scales of their own.

    A channel whose weights cannot be scaled alone, as one that training left dead, has the scale of the whole tensor.
    """
    assert part.group is not None
    order, counts = order_of(part.group, groups)
    size = part.size if order is None else part.size[order]
    fitted = fit_groups(size, counts, scheme)
    if not fitted.alone.all():
        of_all = _fit([part.size], scheme, keep=False)
        fitted = with_shared(fitted, size, counts, of_all.edges[0][0], of_all.codebook, scheme)
    index = None if fitted.class_index is None else _in_order(fitted.class_index, order)
    return Fitted(fitted.codebook, fitted.counts.sum(axis=0, keepdims=True), [fitted.edges], [index])


def _in_order(joined: Bytes, order: NDArray[np.intp] | None) -> Bytes:
    """Return the classes (N,) of the weights of all groups, one after the other, in the order of the flat index."""
    if order is None:
        return joined
    index = np.empty_like(joined)
    index[order] = joined
    return index


class _Sizes:
    """The sizes of several parts; they can be iterated as often as the parts."""

    def __init__(self, given: Iterable[Part]) -> None:
        self._given = given

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (part.size for part in self._given)


def _fit(sizes: Iterable[NDArray[Any]], scheme: Scheme, *, keep: bool) -> Fitted:
    """Return what arrays of sizes share that are one group."""
    edges = first = edges_of(sizes, scheme)
    sums = ClassSums.empty(scheme.classes, totals=needs_totals(scheme), by_class=needs_extremes(scheme))
    before: list[list[Edges]] = []
    counts, indices = [], list[Bytes | None]()
    for size in sizes:
        before.append([edges])
        counted, index = sums.count.copy(), None
        if scheme.classes > 1:
            index, edges = edges.index(size)
        sums.add(size, index)
        counts.append(sums.count - counted)
        if keep:
            indices.append(index)
    return Fitted(codebook_of(sums, first, scheme), np.array(counts), before, indices)


def planes_of(part: Part, fitted: Fitted, number: int, scheme: Scheme) -> Planes:
    """Return tensor `number` of those that `fit` has seen, `part`, as it is stored."""
    index = fitted.class_index[number] if fitted.class_index else _index_of(part, fitted.edges[number], scheme)
    level = levels(part, index, fitted.codebook, scheme)
    planes = Planes(level, part.mask, part.sign, index, part.group)
    return _without_zeros(planes, fitted.codebook, scheme) if number in fitted.pruned else planes


def stored_counts(fitted: Fitted, number: int, scheme: Scheme) -> NDArray[np.int64]:
    """Return how many weights of each class are stored, (K,), of tensor `number`."""
    counts: NDArray[np.int64] = fitted.counts[number]
    kept = np.where(_zero_classes(fitted.codebook, scheme), 0, counts)
    return kept if number in fitted.pruned and kept.any() else counts


def _zero_classes(codebook: Codebook, scheme: Scheme) -> Bits:
    """Return which classes have no cells and are read as 0, (K,); none if other classes have cells."""
    zero: Bits = (codebook.beta == 0).all(axis=0) & (scheme.analog == "none")
    return zero


def _pruned(given: Iterable[Part], fitted: Fitted, scheme: Scheme) -> frozenset[int]:
    """Return the tensors whose weights that are read as 0 need not be stored, as others are not: the mask has all.

    To tell them from the others takes bits, unless the mask takes few: if it follows from a seed, or keeps N of each M.
    """
    zero = _zero_classes(fitted.codebook, scheme)
    if not zero.any():
        return frozenset()
    return frozenset(
        number
        for number, part in enumerate(given)
        if part.mask is not None
        and not part.seeded
        and _is_shorter_without(part.mask, fitted.counts[number], zero, scheme)
    )


def _is_shorter_without(mask: Bits, counts: NDArray[np.int64], zero: Bits, scheme: Scheme) -> bool:
    """Return whether a tensor takes fewer bits if its weights that are read as 0 are not stored.

    Without entropy coding it does, as a mask takes a bit for each weight. Else bits are those of an ideal coder without
    contexts.
    """
    patterns = None if scheme.entropy == "none" else pattern_bits(mask)
    if patterns is None:
        return True
    rest = np.append(counts[~zero], mask.size - counts[~zero].sum())
    return bool(_ideal_bits(rest) < patterns + _ideal_bits(counts))


def _ideal_bits(counts: NDArray[np.int64]) -> float:
    """Return the bits of symbols that occur so often, by their entropy."""
    filled = counts[counts > 0].astype(np.float64)
    return float(-(filled * np.log2(filled / filled.sum())).sum())


def _without_zeros(planes: Planes, codebook: Codebook, scheme: Scheme) -> Planes:
    """Return planes whose mask leaves out all weights that are read as 0, unless there are no others."""
    assert planes.mask is not None
    assert planes.class_index is not None
    kept = (~_zero_classes(codebook, scheme)).take(planes.class_index)
    if not kept.any():
        return planes
    mask = planes.mask.copy()
    mask[np.flatnonzero(mask)] = kept  # faster than with a mask
    index, sign, group = (
        None if plane is None else plane.compress(kept) for plane in (planes.class_index, planes.sign, planes.group)
    )
    return Planes(planes.level, mask, sign, index, group)


def _index_of(part: Part, edges: Sequence[Edges], scheme: Scheme) -> Bytes | None:
    if scheme.classes == 1:
        return None
    if part.group is None or not isinstance(edges, GroupEdges):
        return edges[0].index(part.size)[0]
    order, counts = order_of(part.group, len(edges))
    return _in_order(edges.classes_of(part.size if order is None else part.size[order], counts), order)


def decode(stored: Encoded, level: Floats | None = None) -> Floats:
    """Return the weights (n,) as float32 that `level` (M,), or the stored levels, stand for."""
    planes, codebook, scheme = stored
    weights = decode_levels(
        planes.level if level is None else level,
        planes.sign,
        planes.class_index,
        codebook.alpha,
        codebook.beta,
        group=planes.group,
        analog=analog_of(planes.class_index, scheme.cells_of_class, stored_count(planes)),
    )
    return join(weights, planes.mask)


def stored_count(planes: Planes) -> int:
    """Return N, the number of stored weights."""
    for plane in (planes.class_index, planes.sign, planes.group):
        if plane is not None:
            return plane.size
    return planes.level.size


def analog_of(class_index: Bytes | None, cells: Sequence[int], count: int) -> Bits | None:
    """Return which of `count` stored weights have cells; None if all have."""
    if all(cells):
        return None
    return np.zeros(count, np.bool_) if class_index is None else (np.array(cells) > 0)[class_index]
