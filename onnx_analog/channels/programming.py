"""What is written to single cells, and the units of a device: for arrays outside this program.

A channel that was measured knows its device: inputs and reads have units, and f(level) is the input that is programmed.
Any other channel takes the level itself for the input, and knows no unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Doubles
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.table import TableChannel
from onnx_analog.errors import ChannelError

_GRID = 65  # levels at which σ is known, and between which it is interpolated


@dataclass(frozen=True)
class Programming:
    """How the cells of a channel are programmed one by one.

    Parameters
    ----------
    channel : Channel

    Raises
    ------
    ChannelError
        If what a cell is programmed to is not known before the array is written: where cells hold residuals, or several
        devices share what a cell holds.
    """

    channel: Channel

    def __post_init__(self) -> None:
        if isinstance(self.channel, ResidualCells):
            raise ChannelError(
                f"{self.channel}: what a cell holds follows from reads of the cells before it, so it is not known "
                'before they are written. Protect the original with cells_hold="level"'
            )
        if self.channel.polarity is None:
            raise ChannelError(
                f"{self.channel} holds a level in {self.channel.devices_per_cell} devices, and does not tell what each "
                "of them is programmed to: use a channel with one device in a cell, or a differential pair"
            )

    @property
    def polarity(self) -> tuple[int, ...]:
        """Sign with which each device of a cell counts: (1,), or (1, -1) of a differential pair."""
        assert self.channel.polarity is not None
        return self.channel.polarity

    def of_devices(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return what each device of a cell is to hold, (m, devices), for levels or inputs of cells (m,).

        >>> from onnx_analog import channels
        >>> pair = Programming(channels.resolve("pcm-drift:differential=true"))
        >>> pair.of_devices(np.array([0.5, -0.25])).tolist()
        [[0.5, 0.0], [0.0, 0.25]]
        """
        polarity = np.array(self.polarity, value.dtype)
        if polarity.size == 1:
            return value[:, None]
        held: NDArray[Any] = np.maximum(value[:, None] * polarity, 0) + 0  # not -0
        return held

    def of_cells(self, reads: NDArray[Any]) -> NDArray[Any]:
        """Return the reads of cells (m,) from those of their devices (m · devices,): NaN where one has none."""
        polarity = np.array(self.polarity, np.float64)
        if polarity.size == 1:
            return reads
        difference: NDArray[Any] = reads.reshape(-1, polarity.size) @ polarity
        return difference

    @property
    def table(self) -> TableChannel | None:
        """The measured table over inputs; None if the channel has none."""
        channel = self.channel
        return channel.inner.measurements if isinstance(channel, LimitedPrecision) else channel.measurements

    @property
    def input_unit(self) -> str | None:
        """Unit of programmed inputs; None if it is not known."""
        return (self.table.input_scale.unit or None) if self.table is not None else None

    @property
    def read_unit(self) -> str | None:
        """Unit of reads; None if it is not known."""
        return (self.table.output_scale.unit or None) if self.table is not None else None

    def input(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return what is programmed for each level, scaled: f(level), or the nearest that can be written."""
        bits = self.channel.write_bits if isinstance(self.channel, LimitedPrecision) else 0
        if self.table is not None:
            return self.table.nearest_inputs(level, bits)
        if isinstance(self.channel, LimitedPrecision):
            return self.channel.writable(level.astype(np.float32)).astype(np.float64)
        return level.astype(np.float64)

    def input_in_device(self, scaled: Doubles) -> Doubles:
        """Return scaled inputs in `input_unit`; NaN if it is not known."""
        if self.table is None or self.input_unit is None:
            return np.full(scaled.shape, np.nan)
        return self.table.input_scale.undo(scaled)

    def read_in_device(self, scaled: NDArray[np.floating[Any]]) -> Doubles:
        """Return scaled reads, such as levels, in `read_unit`; NaN if it is not known."""
        if self.table is None or self.read_unit is None:
            return np.full(scaled.shape, np.nan)
        return self.table.output_scale.undo(scaled.astype(np.float64))

    def scaled(self, value: Doubles) -> Doubles:
        """Return reads that are given in `read_unit` on the scale of levels; NaN where a value has no logarithm.

        Raises
        ------
        ChannelError
            If the unit is not known.
        """
        if self.table is None or self.read_unit is None:
            raise ChannelError(f"{self.channel} knows no unit of reads: give scaled values")
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = self.table.output_scale.apply(value)
        return np.where(np.isfinite(scaled), scaled, np.nan)

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return the standard deviation of one read of one cell at each level, interpolated."""
        span = self.channel.span
        grid = clip_to_range(np.linspace(*span, _GRID).astype(np.float32), span)
        _, std = self.channel.moments(grid)
        interpolated: Doubles = np.interp(level, grid, std)
        return interpolated
