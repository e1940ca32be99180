"""Finite precision: a channel that is written with few inputs, and read through an analog-to-digital converter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Floats, Source, Span, State
from onnx_analog.channels.cellwise import CellwiseChannel
from onnx_analog.channels.ranges import clip_to_range, rounded
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.separation import Separated
from onnx_analog.errors import ChannelError

_HEADROOM = 3  # standard deviations beyond the span that the converter takes in, where the device sets no range


@dataclass(frozen=True, kw_only=True)
class LimitedPrecision(CellwiseChannel):
    """Another channel, with 2^w inputs and 2^v codes.

    Writing: of 2^w equally spaced inputs, the one whose mean read is nearest to the level (ties to the smaller input).
    Reading: every read of a cell is rounded to the nearest of 2^v equally spaced codes before reads are averaged, so
    the noise itself dithers: the average of many cells is finer than a step.

    Parameters
    ----------
    inner : Channel
        What is written and read.
    write_bits, read_bits : int, 0 to 16
        w and v; 0 leaves that side as fine as it is.
    """

    family: ClassVar[str] = "precision"

    inner: Channel
    write_bits: int = 0
    read_bits: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("write_bits", "read_bits"):
            if not 0 <= getattr(self, name) <= 16:
                raise ChannelError(f"{name} is {getattr(self, name)}; it must be from 0 (no limit) to 16")
        if isinstance(self.inner, LimitedPrecision):
            raise ChannelError(f"{self.inner} has limited precision already: name the channel inside it")
        if isinstance(self.inner, ResidualCells):
            raise ChannelError(
                f"{self.inner} reads several cells at once: limit the precision of the channel inside it"
            )

    @property
    def span(self) -> Span:
        """The inner channel's span."""
        return self.inner.span

    @property
    def source(self) -> Source:
        """The inner channel's source."""
        return self.inner.source

    @property
    def devices_per_cell(self) -> int:
        """The inner channel's."""
        return self.inner.devices_per_cell

    @property
    def polarity(self) -> tuple[int, ...] | None:
        """The inner channel's."""
        return self.inner.polarity

    @property
    def independent(self) -> bool:
        """The inner channel's."""
        return self.inner.independent

    @property
    def separated(self) -> Separated | None:
        """The inner channel's, with this precision."""
        cells = self.inner.separated
        return None if cells is None else _LimitedCells(self, cells)

    def changed(self, *, write_bits: int | None = None, read_bits: int | None = None, **others: Any) -> Channel:
        """Return the channel with these changes, those but bits made to the inner channel; see `Channel.changed`."""
        return self.inner.changed(
            write_bits=self.write_bits if write_bits is None else write_bits,
            read_bits=self.read_bits if read_bits is None else read_bits,
            **others,
        )

    @cached_property
    def range(self) -> Span:
        """Input range of the converter: that of the measured outputs, or the span and three σ at either end."""
        if self.inner.measurements is not None:
            return -1.0, 1.0
        low, high = self.inner.span
        _, std = self.inner.moments(clip_to_range(np.array(self.inner.span, np.float32), self.inner.span))
        below, above = std.tolist()
        return low - _HEADROOM * below, high + _HEADROOM * above

    def program(self, level: Floats, rng: np.random.Generator) -> State:
        """Return the inner channel's state of each weight."""
        return self.inner.written(level, rng, bits=self.write_bits)

    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read of one cell of each weight, as the converter gives it."""
        return self.coded(self.inner.read_cell(state, rng))

    def coded(self, read: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return reads as the converter gives them."""
        return rounded(read, self.range, self.read_bits) if self.read_bits else read

    def writable(self, level: Floats) -> Floats:
        """Return the levels nearest to `level` that can be written, where input and level are one."""
        return self._nearest_level(level, self.write_bits)

    def __str__(self) -> str:
        limits = [
            f"{bits} bit{'s' * (bits > 1)} to {what}"
            for bits, what in ((self.write_bits, "write"), (self.read_bits, "read"))
            if bits
        ]
        return f"{self.inner} ({', '.join(limits) or 'no limit'})"


@dataclass(frozen=True)
class _LimitedCells:
    """Cells that are programmed and read with limited precision."""

    channel: LimitedPrecision
    cells: Separated

    def program_cell(self, level: Floats, rng: np.random.Generator) -> State:
        return self.cells.program_cell(self.channel.writable(level), rng)

    def verify(self, held: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        return self.channel.coded(self.cells.verify(held, rng))

    def read_programmed(self, held: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        return self.channel.coded(self.cells.read_programmed(held, rng))
