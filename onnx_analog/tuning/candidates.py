"""Candidates for the storage of one tensor: what each costs, and its error, computed from the weights and the channel.

What decoding takes decides which there are (see `onnx_analog.coding.streams`). Each level adds some to those before:

| decoding | candidates |
|---|---|
| none  | the paper's strategies, and equal steps with a raw index, with cells or none; no code |
| table | what has cells, with the unbiased posterior mean |
| hard  | equal steps with an entropy-coded index, and cells for the rest of a weight or none; BCH |
| soft  | the same with a soft-decision code, which is assumed, in the place of BCH where it holds more |

Of the levels before, what cannot be the best is not computed: see `onnx_analog.tuning.bounds`. If all weights of a
tensor are whole multiples of one step, that step is a candidate at all levels: it rounds none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.arguments import DEFAULTS
from onnx_analog.channels import Channel
from onnx_analog.coding import compensation
from onnx_analog.coding.codes import CellCode
from onnx_analog.coding.compensation import InputMoments, unfit
from onnx_analog.coding.distortion import distortion
from onnx_analog.coding.grid import channel_reach, grid_of
from onnx_analog.coding.masks import follows_from
from onnx_analog.coding.numbers import codes_for
from onnx_analog.coding.planes import Encoded, decode, encode, stored_count
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import DECODING, Stream, code_of, codebook_bits, index_streams
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.graph.totals import paper_cells
from onnx_analog.settings import settings_of
from onnx_analog.tuning.bounds import Found

STEPS = (0.0625, 0.125, *(round(0.25 * 2 ** (k / 3), 4) for k in range(18)))  # up to 13 root mean squares
RATE_WEIGHTS = (0.0, 0.08, 0.2)
CLASSES = 255
_NOT_OF_INDEX = {  # settings that classes do not depend on
    "cells", "channel", "estimator", "side_bits_per_cell", "side_channel", "side_cells", "side_copies", "code",
    "block_bits", "block_failure",
}  # fmt: skip
_RAW_CLASSES = (3, 7, 15, 31, 63, 127, 255)  # whose raw index fills its bits, but for one


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to store a tensor.

    Attributes
    ----------
    scheme : Scheme
    cells : float
        In the memory as it is; a share of the last block of a code, which tensors share.
    error : float
        Expected squared error over the power of the weights.
    """

    scheme: Scheme
    cells: float
    error: float


def takes(scheme: Scheme) -> str:
    """Return what decoding takes for a scheme, but for its code: "none", "table" or "hard"."""
    return "hard" if scheme.entropy != "none" else "table" if scheme.table_bits else "none"


def members(channel: Channel, decoding: str, *, compensated: bool = False) -> tuple[Scheme, ...]:
    """Return the schemes that are candidates for any tensor; those without analog cells are the rivals.

    Parameters
    ----------
    channel : Channel
    decoding : str
        Of `DECODING`: the most that decoding may take.
    compensated : bool
        Whether weights without cells make up for each other's errors: they then keep the gain of a layer by themselves.

    Raises
    ------
    OptionError
        If there is no such decoding, or the channel is too noisy to store anything.
    """
    if decoding not in DECODING:
        raise OptionError(f"decoding is {decoding!r}; it must be one of {', '.join(DECODING)}")
    codes, schemes = codes_for(channel, decoding), list[Scheme]()
    if decoding in ("hard", "soft"):
        schemes += _coded(channel, codes[0], compensated=compensated)
    if "none" in codes:
        for estimator in ("affine",) if decoding == "none" else ("affine", "unbiased"):
            schemes += _raw(channel, estimator)
    return tuple(dict.fromkeys(schemes))


def _coded(channel: Channel, code: str, *, compensated: bool) -> Iterable[Scheme]:
    common: dict[str, Any] = {
        "sign": "level", "classes": CLASSES, "partition": "uniform", "entropy": "context", "channel": channel,
        "code": code,
    }  # fmt: skip
    for number, step in enumerate(STEPS):
        digital = Scheme(**common, relative_step=step, cells=(0,), estimator="affine" if compensated else "unbiased")
        if compensated:
            yield digital
        elif step <= 2:
            yield from (digital.changed(rate_weight=weight) for weight in RATE_WEIGHTS)
        few = compensated and number % 2  # what has cells is then seldom the best
        for cells in (1, 2) if step >= 0.5 and not few else ():
            yield Scheme(**common, relative_step=step, cells=(cells,), estimator="unbiased")


def _raw(channel: Channel, estimator: str) -> Iterable[Scheme]:
    common: dict[str, Any] = {"channel": channel, "code": "none"}
    for cells in (1, 2, 3, 4, 6, 8, 12, 16):
        for strategy in ("raw", "sign", "mapping"):
            yield Scheme.paper(strategy, cells_small=cells, estimator=estimator, **common)
    for classes in _RAW_CLASSES:
        steps = {"sign": "level", "classes": classes, "partition": "uniform", **common}
        for reach in (2.0, 2.5, 3.0, 4.0):
            step = 2 * reach / classes
            yield Scheme(**steps, relative_step=step, cells=(0,))
            if classes <= 15:
                yield Scheme(**steps, relative_step=step, cells=(1,), estimator=estimator)


def on_grid(weight: NDArray[Any], channel: Channel, decoding: str, *, axis: int = 0) -> tuple[Scheme, ...]:
    """Return the schemes that round no weight of a tensor of whole multiples of one step; none of another tensor.

    The step may be that of each output channel, if the largest weight of each is as many steps or parts of steps.

    Parameters
    ----------
    weight : float array of any shape
    channel : Channel
    decoding : str
        Of `DECODING`: the most that decoding may take.
    axis : int
        Of the output channels.
    """
    grid = grid_of(weight, CLASSES // 2)
    reach = channel_reach(weight, axis, CLASSES // 2) if grid is None else grid.reach
    if reach is None:
        return ()
    steps: dict[str, Any] = {
        "sign": "level", "partition": "uniform", "rounding": "alone", "cells": (0,), "channel": channel,
        **({"granularity": "channel"} if grid is None else {"step": grid.step}),
    }  # fmt: skip
    classes = 2 * reach + 1
    codes, schemes = codes_for(channel, decoding), list[Scheme]()
    if decoding in ("hard", "soft"):
        coded = classes if grid is None else CLASSES
        schemes += [Scheme(**steps, classes=coded, entropy="context", code=codes[0])]
    if "none" in codes:
        schemes += [Scheme(**steps, classes=classes, code="none")]
    return tuple(schemes)


def seeded(schemes: Sequence[Scheme], weight: NDArray[Any], seed: int | None, key: str) -> tuple[Scheme, ...]:
    """Return schemes that store the seed of a mask in its place, if the zeros of a tensor follow from that; else as is.

    Parameters
    ----------
    schemes : sequence of Scheme
    weight : float array of any shape
    seed : int or None
        From 0 to `MOST_SEED`.
    key : str
        Storage key of the tensor, which the mask follows from too.
    """
    if seed is None or not _is_seeded(weight, seed, key):
        return tuple(schemes)
    return tuple(scheme.changed(mask_seed=seed) for scheme in schemes)


def _is_seeded(weight: NDArray[Any], seed: int, key: str) -> bool:
    """Return whether some weights are zero, and which ones follows from a seed."""
    stored = weight.reshape(-1) != 0
    return not stored.all() and follows_from(seed, key, stored)


def candidates(
    weight: NDArray[Any],
    schemes: Sequence[Scheme],
    moments: InputMoments | None = None,
    *,
    counting: str = DEFAULTS.counting,
    key: str | None = None,
    axis: int = 0,
    needed: Collection[Scheme] = (),
) -> list[Candidate]:
    """Return what a tensor takes, and its error, under each of some schemes.

    Those that cannot store it are left out, and of those without an entropy coder, those that cannot be the best.

    Parameters
    ----------
    weight : float array of any shape
    schemes : sequence of Scheme
        With a codebook for each tensor or each of its output channels.
    moments : InputMoments, optional
        With them, weights without cells make up for each other's errors unless they are rounded alone, and errors are
        those of white noise that does as much harm.
    counting : {"memory", "paper"}
        Cells as the memory allows, or as the paper counts.
    key : str, optional
        Storage key of the tensor: without it, no mask follows from a seed.
    axis : int
        Of the output channels.
    needed : collection of Scheme
        Those that are computed even if they cannot be the best.
    """
    lengths: dict[Any, tuple[Stream, ...]] = {}  # schemes with the same classes share the streams of their index
    found, computed = [], Found()
    for scheme in schemes:
        known = scheme.entropy == "none" and scheme not in needed
        if known and computed.has_better(scheme, least_cells(weight, scheme, counting)):
            continue
        try:
            stored, error = _stored(weight, scheme, moments, key, axis)
        except ModelError:
            continue
        compensated = moments is not None and unfit(scheme) is None
        # Where there are no cells, what is read as 0 may be pruned too.
        kind = (compensated and scheme.estimator, scheme.analog, *(getattr(scheme, name) for name in _of_index()))
        if kind not in lengths:
            lengths[kind] = _index_streams(weight, stored, key)
        found.append(Candidate(scheme=scheme, cells=cells_of(stored, lengths[kind], counting), error=error))
        computed.add(scheme, found[-1].cells, error)
    return found


@lru_cache(maxsize=1)
def _of_index() -> tuple[str, ...]:
    return tuple(name for name in settings_of(Scheme) if name not in _NOT_OF_INDEX)


def _stored(
    weight: NDArray[Any], scheme: Scheme, moments: InputMoments | None, key: str | None, axis: int
) -> tuple[Encoded, float]:
    """Return a tensor as it is stored, and its error."""
    if moments is not None and unfit(scheme) is None:
        stored, harm = compensation.encode(weight, scheme, moments, key=key)
        return stored, _relative(weight, stored, harm, moments)
    (stored,) = encode([weight], scheme, axis=axis, keys=[key])
    if moments is not None and scheme.is_compensable:  # beside others whose errors are measured in the outputs
        return stored, _relative(weight, stored, moments.error(_difference(weight, stored)), moments)
    return stored, distortion(weight, stored).relative


def _difference(weight: NDArray[Any], stored: Encoded) -> NDArray[np.float64]:
    """Return what a tensor without cells is off by if no bit is read wrongly, in its shape."""
    off: NDArray[np.float64] = np.subtract(decode(stored).reshape(weight.shape), weight, dtype=np.float64)
    return off


def _relative(weight: NDArray[Any], stored: Encoded, harm: float, moments: InputMoments) -> float:
    """Return the power of white noise, over that of the weights, that harms the outputs as a tensor's errors do.

    Errors of wrong bits are taken for white.
    """
    whole = distortion(weight, stored)
    rounding = float(np.square(_difference(weight, stored)).sum())
    white = harm / moments.power if moments.power else rounding
    return (white + max(whole.error - rounding, 0.0)) / whole.power if whole.power else 0.0


def _index_streams(weight: NDArray[Any], stored: Encoded, key: str | None) -> tuple[Stream, ...]:
    planes, seed = stored.planes, stored.scheme.mask_seed
    from_seed = seed is not None and key is not None and _is_seeded(weight, seed, key)
    return index_streams(
        stored.scheme, weight.shape, stored_count(planes), planes.class_index, planes.mask, seeded=from_seed
    )


def cells_of(stored: Encoded, index: Sequence[Stream], counting: str = DEFAULTS.counting) -> float:
    """Return the cells of a tensor, from the streams that hold its classes and mask.

    As the paper counts, bits are free of error, and a cell holds as many as the scheme's `side_bits_per_cell`.
    """
    planes, codebook, scheme = stored
    count = stored_count(planes)
    counts = (
        [count] if planes.class_index is None else np.bincount(planes.class_index, minlength=scheme.classes).tolist()
    )
    size = count if planes.mask is None else planes.mask.size
    return _cells(scheme, size, counts, index, counting, groups=codebook.groups)


def least_cells(weight: NDArray[Any], scheme: Scheme, counting: str = DEFAULTS.counting) -> float:
    """Return the cells that a tensor takes at least under a scheme without an entropy coder, whose classes take alike.

    If some weights are 0, those that are read as 0 may be left out too, and a seed may stand in place of the mask.
    """
    stored = int(np.count_nonzero(weight))
    pruned = stored < weight.size
    counts = [0 if pruned and scheme.analog == "none" else stored]
    mask = np.broadcast_to(np.True_, weight.size) if pruned and scheme.mask_seed is None else None
    streams = index_streams(scheme, weight.shape, counts[0], None, mask)
    return _cells(scheme, weight.size, [*counts, *[0] * (scheme.classes - 1)], streams, counting)


def _cells(
    scheme: Scheme, size: int, counts: Sequence[int], index: Sequence[Stream], counting: str, *, groups: int = 1
) -> float:
    """Return the cells of a tensor of `size` weights, from how many of each class (K,) are stored, and its streams."""
    count = sum(counts)
    levels = sum(number * cells for number, cells in zip(counts, scheme.cells_of_class, strict=True))
    book = Stream("codebook", codebook_bits(scheme, groups) + scheme.table_bits, entropy_coded=False)
    sign = (Stream("sign", count, entropy_coded=False),) if scheme.sign == "bit" else ()
    streams = (*sign, *index, book)
    if counting == "paper":
        return float(paper_cells(scheme, size, counts, streams))
    digital = sum(
        stream.bits / _code(scheme, stream.name, entropy_coded=stream.entropy_coded).bits_per_cell for stream in streams
    )
    return float(scheme.channel.devices_per_cell * (levels + digital))


@lru_cache(maxsize=1024)
def _code(scheme: Scheme, name: str, *, entropy_coded: bool) -> CellCode:
    return code_of(scheme, name, entropy_coded=entropy_coded)
