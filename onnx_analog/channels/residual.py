"""Cells that hold what the cells before them are short of, where a device can be read between writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Cells, Channel, Doubles, Floats, Source, Span
from onnx_analog.channels.cellwise import MOST_CELLS
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.channels.separation import Separated
from onnx_analog.channels.stages import Division, Law, Stage, division, law_of, verify
from onnx_analog.errors import ChannelError

_MOST_READS = 1000
_SHARED = "The noise of a verify read is independent of that of later reads."


@dataclass(frozen=True, kw_only=True)
class ResidualCells(Channel):
    """Another channel, whose cells hold what earlier ones lack.

    `onnx_analog.channels.stages` says what each cell holds, and how far the reader knows it. A weight of one cell is
    stored as in the other channel; so are all cells where verify reads tell too little.

    Parameters
    ----------
    inner : Channel
        What is written and read; it separates programming from reading.
    verify_reads : int, 1 to 1000
        Reads of each cell after programming that are averaged, their noise taken for independent.
    """

    family: ClassVar[str] = "residual"

    inner: Channel
    verify_reads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cells  # noqa: B018 - raises
        if not 1 <= self.verify_reads <= _MOST_READS:
            raise ChannelError(f"verify_reads is {self.verify_reads}; it must be from 1 to {_MOST_READS}")

    @property
    def cells(self) -> Separated:
        """The cells of the inner channel."""
        cells = self.inner.separated
        if cells is None:
            raise ChannelError(
                f"{self.inner} does not separate programming from reading, so no cell can hold what the cells before "
                "it are short of: choose a channel that does, such as pcm-drift"
            )
        return cells

    @property
    def span(self) -> Span:
        """The inner channel's span."""
        return self.inner.span

    @property
    def source(self) -> Source:
        """The inner channel's source; it leaves out what two reads of one cell share of their noise."""
        source = self.inner.source
        inner = f"{source.left_out.rstrip('.')}. " if source.left_out else ""
        return replace(source, left_out=inner + _SHARED)

    @property
    def devices_per_cell(self) -> int:
        """The inner channel's."""
        return self.inner.devices_per_cell

    @property
    def most_cells(self) -> int | None:
        """10,000."""
        return MOST_CELLS

    def changed(self, *, cells_hold: str | None = None, **others: Any) -> Channel:
        """Return the channel with these changes, made to the inner channel; see `Channel.changed`."""
        inner = self.inner.changed(**others)
        return inner if cells_hold == "level" else ResidualCells(inner=inner, verify_reads=self.verify_reads)

    @property
    def law(self) -> Law:
        """Errors of the inner channel's cells, from which the stages follow."""
        return _law(self)

    def division(self, cells: int) -> Division:
        """Return the stages of a weight of so many cells."""
        return division(self.law, cells)

    def moments(self, level: NDArray[np.floating[Any]], *, cells: int = 1) -> tuple[Doubles, Doubles]:
        """Return the inner channel's moments where all cells hold the level; else estimate; see `Channel.moments`."""
        if len(self.division(cells).stages) == 1:
            return self.inner.moments(level, cells=cells)
        return super().moments(level, cells=cells)

    def read(self, level: Floats, *, cells: Cells, rng: np.random.Generator) -> Floats:
        """Return the sum of the stages of each weight; see `Channel.read`."""
        self.check(level)
        read = np.empty(level.shape, np.float32)
        each = np.broadcast_to(cells, level.shape)
        for count in np.unique(each).tolist():
            chosen = np.flatnonzero(each == count)
            read[chosen] = self._read(level[chosen], count, rng)
        return read

    def _read(self, level: Floats, cells: int, rng: np.random.Generator) -> Floats:
        """Return the reads of levels that all have so many cells."""
        first, *others = self.division(cells).stages
        if not others:
            return self.inner.read(level, cells=cells, rng=rng)
        law = self.law
        verified, total = self._stage(level, first, rng)
        missing = first.weight * (level - verified)
        for stage in others:
            held = stage.reach * np.clip(missing / stage.reach, -1, 1)
            scale = stage.reach / law.half
            written = clip_to_range((law.middle + held / scale).astype(np.float32), self.span)
            verified, read = self._stage(written, stage, rng)
            total += scale * (read - law.offset)
            missing += stage.weight * scale * (written - verified) - held
        return total.astype(np.float32)

    def _stage(self, level: Floats, stage: Stage, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Return the averages of the verify reads and of the reads of a stage's cells, each (n,)."""
        cells = self.cells
        verified, read = np.zeros(level.shape), np.zeros(level.shape)
        for _ in range(stage.cells):
            held = cells.program_cell(level, rng)
            verified += verify(cells, held, self.verify_reads, rng)
            read += cells.read_programmed(held, rng)
        return verified / stage.cells, read / stage.cells

    def __str__(self) -> str:
        reads = f", {self.verify_reads} verify reads" if self.verify_reads > 1 else ""
        return f"{self.inner} (cells hold residuals{reads})"


@lru_cache(maxsize=64)
def _law(channel: ResidualCells) -> Law:
    """Return the law of the inner channel's cells: one for all channels that are equal, as those of a sweep."""
    return law_of(channel.cells, channel.span, channel.verify_reads)
