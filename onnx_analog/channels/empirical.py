"""Noise as it was measured, where it is not normal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles, Floats, Source, Span
from onnx_analog.channels.cellwise import CellwiseChannel, State
from onnx_analog.channels.measured import TableChannel
from onnx_analog.errors import ChannelError


@dataclass(frozen=True, kw_only=True)
class EmpiricalChannel(CellwiseChannel):
    """A measured channel whose residuals are drawn from those that were measured, in place of a normal law.

    A read is μ + σ·z, with z one of the standardised residuals at the measured input nearest to f(level). Reads of r
    cells are r draws: skew and kurtosis of their average fade with r as they do in the array.

    Parameters
    ----------
    table : TableChannel
        Mean, standard deviation and residuals.
    """

    family: ClassVar[str] = "empirical"

    table: TableChannel

    def __post_init__(self) -> None:
        if not isinstance(self.table, TableChannel):
            raise ChannelError(f"empirical needs a measured channel, not {self.table!r}")
        if not self.table.residuals:
            raise ChannelError(
                f"channel {self.table.name!r} keeps no residuals: name the measured channel again, or use gaussian ones"
            )
        if self.table.cells_on == "same":
            raise ChannelError("empirical residuals mix all devices, so cells cannot share one: use gaussian residuals")

    @property
    def span(self) -> Span:
        """The table's span."""
        return self.table.span

    @property
    def source(self) -> Source:
        """Where the measurements come from."""
        return self.table.source

    @cached_property
    def _residuals(self) -> Doubles:
        return np.array(self.table.residuals)

    def program(self, level: Floats, rng: np.random.Generator) -> State:  # noqa: ARG002 - cells share nothing
        """Return level, σ and the nearest measured input of each weight."""
        inputs = np.array(self.table.inputs)
        middles = (inputs[1:] + inputs[:-1]) / 2
        nearest = np.searchsorted(middles, self.table.inverse.input(level))
        return level.astype(np.float64), self.table.std(level), nearest

    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return level + σ·z, z drawn from the residuals at the nearest input."""
        level, std, nearest = state
        draw = rng.integers(self._residuals.shape[1], size=level.size)
        read: Doubles = level + std * self._residuals[nearest, draw]
        return read

    def __str__(self) -> str:
        return f"{self.table} (residuals as measured)"
