"""Totals of a cost report, in two countings.

As the paper counts, side information, mask and codebook are free of error at `side_bits_per_cell` bits in a cell.
Honestly, each digital stream is stored through the tensor's own channel with the code that it needs: see
`onnx_analog.coding.streams`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from onnx_analog.channels import Channel
from onnx_analog.coding.numbers import cells_of_numbers, paper_cells_of_numbers
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import Line, Payload, Stream, decodings_of, hardest, honest_lines, honest_split
from onnx_analog.errors import OptionError
from onnx_analog.graph._cells import cells_of, plane_bits

logger = logging.getLogger(__name__)


class Counted(NamedTuple):
    """What is counted of one tensor."""

    scheme: Scheme
    original: int  # n, weights
    stored: int  # N, weights
    bitmap_bits: int  # n if some weights are pruned, 0 otherwise
    cells: Mapping[str, int]  # of each plane, as the paper counts
    streams: Sequence[Stream]

    @property
    def payload(self) -> Payload:
        """What it takes in the memory as it is."""
        side = self.cells["side"] if self.scheme.side_channel is not None else 0
        return Payload(self.scheme, self.cells["level"], side, self.streams)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over the tensors, and what a weight costs.

    Attributes
    ----------
    honest_cells : int or None
        All cells in the memory as it is; None if a channel is too noisy for the code of a scheme.
    decoding : str
        What decoding takes in the honest counting: "none", "table", "hard" or "soft".
    """

    original_weights: int
    stored_weights: int
    analog_cells: int
    side_cells: int
    mask_cells: int
    mask_bitmap_bits: int
    codebook_cells: int
    honest_cells: int | None
    decoding: str

    @staticmethod
    def of(tensors: Iterable[Counted]) -> Totals:
        """Return the totals of tensors."""
        listed = list(tensors)
        lines = lines_of(listed)
        cells = {plane: sum(each.cells[plane] for each in listed) for plane in ("level", "side", "mask", "codebook")}
        return Totals(
            original_weights=sum(each.original for each in listed),
            stored_weights=sum(each.stored for each in listed),
            analog_cells=cells["level"],
            side_cells=cells["side"],
            mask_cells=cells["mask"],
            mask_bitmap_bits=sum(each.bitmap_bits for each in listed),
            codebook_cells=cells["codebook"],
            honest_cells=None if lines is None else sum(line.cells for line in lines),
            decoding=hardest(decoding for each in listed for decoding in decodings_of(each.payload)),
        )

    @property
    def all_in_cells(self) -> int:
        """All cells as the paper counts: level, side information, mask and codebook."""
        return self.analog_cells + self.side_cells + self.mask_cells + self.codebook_cells

    def ratios(self) -> dict[str, float | None]:
        """Return cells per weight: the paper's r_avg, and those that count more."""
        honest = self.honest_cells
        return {
            "r_avg": self.analog_cells / self.stored_weights,
            "stored_cells_per_stored_weight": (self.analog_cells + self.side_cells) / self.stored_weights,
            "all_in_cells_per_stored_weight": self.all_in_cells / self.stored_weights,
            "all_in_cells_per_original_weight": self.all_in_cells / self.original_weights,
            "honest_cells_per_original_weight": None if honest is None else honest / self.original_weights,
        }

    def paper_per_weight(self, numbers: int, schemes: Iterable[Scheme]) -> float:
        """Return cells per original weight as the paper counts, with those of the numbers of a correction.

        Numbers are stored as the side information of `schemes`.
        """
        return (self.all_in_cells + paper_cells_of_numbers(numbers, schemes)) / self.original_weights

    def honest_per_weight(self, numbers: int, channel: Channel) -> float | None:
        """Return the same in the memory as it is, which holds the numbers in cells of a channel.

        None if a channel is too noisy for the code of a scheme, or for all codes.
        """
        if self.honest_cells is None:
            return None
        try:
            cells = self.honest_cells + cells_of_numbers(numbers, channel, self.decoding, "memory")
        except OptionError:
            return None
        return cells / self.original_weights

    def to_dict(self) -> dict[str, Any]:
        """Return counts and ratios, ready for JSON."""
        return {**asdict(self), "all_in_cells": self.all_in_cells, **self.ratios()}


def paper_cells(scheme: Scheme, size: int, counts: Sequence[int], streams: Iterable[Stream]) -> int:
    """Return the cells of a tensor of `size` weights as the paper counts: level, side information, mask and codebook.

    Parameters
    ----------
    scheme : Scheme
    size : int
    counts : sequence of int, (K,)
        Stored weights of each class.
    streams : iterable of Stream
    """
    return sum(cells_of(scheme, counts, plane_bits(streams, size, sum(counts))).values())


def reason_against(tensors: Iterable[Counted]) -> str | None:
    """Return why cells are not counted honestly; None if they are."""
    try:
        honest_lines(each.payload for each in tensors)
    except OptionError as error:
        return str(error)
    return None


def split_of(tensors: Iterable[Counted]) -> tuple[dict[str, int], ...] | None:
    """Return the cells of each tensor in the honest counting, by line; None where `lines_of` has none."""
    listed = list(tensors)
    return None if lines_of(listed) is None else honest_split(each.payload for each in listed)


def lines_of(tensors: Iterable[Counted]) -> tuple[Line, ...] | None:
    """Return the lines of the honest counting; None if a channel is too noisy for the code of a scheme."""
    try:
        return honest_lines(each.payload for each in tensors)
    except OptionError as error:
        logger.warning("as the memory allows, cells are not counted: %s", error)
        return None
