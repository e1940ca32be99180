"""Counts what the same weights take digitally: as float32, float16, int8 and int4, dense and pruned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from onnx_analog.channels import Channel
from onnx_analog.coding.codes import CellCode
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import code_of, hardest
from onnx_analog.errors import OptionError
from onnx_analog.graph._cells import mask_bits

FORMATS = (("float32", 32), ("float16", 16), ("int8", 8), ("int4", 4))
INTEGERS = (  # said wherever they are shown
    "what rounding loses is not counted, and bits are held without errors; codes can take fewer cells: see `tune`"
)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The same weights held digitally.

    Attributes
    ----------
    name : str
        float32, float16, int8 or int4.
    pruned : bool
        Whether only the stored weights are held, with the same mask; else all are.
    bits_per_cell : int
        Of the paper's counting, free of error.
    cells, cells_per_original_weight
        As the paper counts.
    honest_cells : int or None
        In cells of the tensors' own channels with the codes of their schemes; None if a channel is too noisy for one.
    decoding : str
        What decoding takes then: one of `onnx_analog.coding.streams.DECODING`.
    """

    name: str
    pruned: bool
    bits_per_cell: int
    cells: int
    cells_per_original_weight: float
    honest_cells: int | None
    decoding: str


class Held(NamedTuple):
    """What a baseline holds of one tensor."""

    scheme: Scheme
    original: int  # n, weights
    stored: int  # N, weights
    mask_bits: int  # of its stream; 0 if all weights are stored
    mask_coded: bool  # entropy-coded


def baselines_of(tensors: Sequence[Held]) -> tuple[Baseline, ...]:
    """Return the baselines, as the paper counts at 1 and at the schemes' bits per cell, and as the memory allows."""
    per_cell = sorted({1, *(each.scheme.side_bits_per_cell for each in tensors)})
    honest = {
        (name, pruned): honest_cells(tensors, bits, pruned=pruned) for name, bits in FORMATS for pruned in (False, True)
    }
    return tuple(
        _baseline(tensors, name, bits, pruned, each, honest[name, pruned])
        for each in per_cell
        for pruned in (False, True)
        for name, bits in FORMATS
    )


def _baseline(
    tensors: Sequence[Held], name: str, bits: int, pruned: bool, per_cell: int, honest: tuple[int | None, str]
) -> Baseline:
    original = sum(each.original for each in tensors)
    cells = -(-sum(each.stored if pruned else each.original for each in tensors) * bits // per_cell)
    if pruned:
        cells += sum(-(-mask_bits(each.original, each.stored) // per_cell) for each in tensors)
    return Baseline(
        name=name,
        pruned=pruned,
        bits_per_cell=per_cell,
        cells=cells,
        cells_per_original_weight=cells / original,
        honest_cells=honest[0],
        decoding=honest[1],
    )


def honest_cells(tensors: Iterable[Held], bits: int, *, pruned: bool = False) -> tuple[int | None, str]:
    """Return the cells of weights of `bits` bits in the memory as it is, and what decoding takes.

    Each bit matters, so all go through a code that keeps errors below the scheme's chance of a failed block. Bits of
    one channel and code are stored one after the other.
    """
    streams: dict[tuple[Channel, CellCode], int] = {}
    decoding = ["none"]
    try:
        for each in tensors:
            key = each.scheme.channel, code_of(each.scheme, "mask", entropy_coded=False)
            weights, mask = (each.stored, each.mask_bits) if pruned else (each.original, 0)
            streams[key] = streams.get(key, 0) + weights * bits + mask
            decoding += [key[1].effort, "hard" if mask and each.mask_coded else "none"]
    except OptionError:
        return None, "none"
    cells = sum(channel.devices_per_cell * code.cells(length) for (channel, code), length in streams.items())
    return cells, hardest(decoding)
