"""Noise as it was measured, where it is not normal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Doubles, Floats, Source, Span, State
from onnx_analog.channels.cellwise import CellwiseChannel
from onnx_analog.channels.table import TableChannel
from onnx_analog.errors import ChannelError


@dataclass(frozen=True, kw_only=True)
class EmpiricalChannel(CellwiseChannel):
    """A measured channel that draws its measured residuals.

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
        super().__post_init__()
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

    @property
    def independent(self) -> bool:
        """True: residuals mix all devices."""
        return True

    @property
    def measurements(self) -> TableChannel:
        """The table."""
        return self.table

    def changed(self, *, residuals: str | None = None, cells_on: str | None = None, **others: Any) -> Channel:
        """Return the table's noise with these changes; see `Channel.changed`."""
        table = self.table if cells_on is None else replace(self.table, cells_on=cells_on)
        if residuals == "gaussian":
            return table.changed(**others)
        return Channel.changed(replace(self, table=table), **others)

    def moments(self, level: NDArray[np.floating[Any]], *, cells: int = 1) -> tuple[Doubles, Doubles]:
        """Return the moments of level + σ·z, z a residual at the nearest input, which are exact."""
        self.check(level)
        _, std, nearest = self.at(self.table.inverse.input(level))
        mean, spread = self._residual_moments
        return level + std * mean[nearest], std * spread[nearest] / np.sqrt(cells)

    @cached_property
    def _residual_moments(self) -> tuple[Doubles, Doubles]:
        """Mean and standard deviation of the residuals at each input."""
        rows = [np.array(row) for row in self.table.residuals]
        return np.array([row.mean() for row in rows]), np.array([row.std() for row in rows])

    @cached_property
    def _residuals(self) -> tuple[Doubles, NDArray[np.intp], NDArray[np.intp]]:
        """All residuals, and where those of each input start and how many they are."""
        counts = np.array([len(row) for row in self.table.residuals])
        return np.concatenate([np.array(row) for row in self.table.residuals]), np.cumsum(counts) - counts, counts

    def program(self, level: Floats, rng: np.random.Generator) -> State:  # noqa: ARG002 - cells share nothing
        """Return level, σ and the nearest measured input of each weight."""
        _, std, nearest = self.at(self.table.inverse.input(level))
        return level, std, nearest.astype(np.int16)  # below 1,024

    def written(self, level: Floats, rng: np.random.Generator, *, bits: int = 0) -> State:  # noqa: ARG002 - likewise
        """Return mean, σ and the nearest measured input of each weight; see `Channel.written`."""
        return self.at(self.table.nearest_inputs(level, bits))

    def at(self, inputs: Doubles) -> tuple[Doubles, Doubles, NDArray[np.intp]]:
        """Return mean, σ and the nearest measured input of what is programmed to `inputs` (n,), scaled to -1 to 1."""
        known = np.array(self.table.inputs)
        nearest = np.searchsorted((known[1:] + known[:-1]) / 2, inputs)
        mean, std = (np.interp(inputs, known, column) for column in (self.table.means, self.table.stds))
        return mean, std, nearest

    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return mean + σ·z, z drawn from the residuals at the nearest input."""
        mean, std, nearest = state
        residuals, first, count = self._residuals
        index = first[nearest] + (rng.random(nearest.size) * count[nearest]).astype(np.intp)
        read: Doubles = mean + std * residuals[index]
        return read

    def __str__(self) -> str:
        return f"{self.table} (residuals as measured)"
