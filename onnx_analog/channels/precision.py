"""Finite precision: a channel that is written with few inputs, and read through an analog-to-digital converter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Doubles, Floats, GaussianChannel, Source, Span, inside
from onnx_analog.channels.cellwise import CellwiseChannel, State
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.measured import TableChannel
from onnx_analog.errors import ChannelError
from onnx_analog.randomness import stream

_READS = 4_000  # that tell σ where no formula does
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
    def range(self) -> Span:
        """What the converter takes in: the measured outputs' range, or the span and some noise at either end."""
        if isinstance(self.inner, TableChannel | EmpiricalChannel):
            return -1.0, 1.0
        low, high = self.inner.span
        below, above = self._stds_at_ends
        return low - _HEADROOM * below, high + _HEADROOM * above

    @cached_property
    def _stds_at_ends(self) -> tuple[float, float]:
        """Return σ of one cell at both ends of the span: known, or that of some reads."""
        ends = inside(np.array(self.inner.span, np.float32), self.inner.span)
        if isinstance(self.inner, GaussianChannel):
            below, above = self.inner.std(ends)
            return float(below), float(above)
        rng = stream(0, 0, "precision", plane="range")
        reads = [self.inner.read(np.full(_READS, end, np.float32), cells=1, rng=rng) for end in ends]
        return float(reads[0].std()), float(reads[1].std())

    def program(self, level: Floats, rng: np.random.Generator) -> State:
        """Return what of the inner channel the cells of each weight have in common."""
        if isinstance(self.inner, TableChannel):
            mean, std, shared = _at(self.inner, self._inputs(self.inner, level))
        elif isinstance(self.inner, GaussianChannel):
            mean = self._written(level)
            std, shared = self.inner.std(mean), self.inner.shared_std(mean)
        elif isinstance(self.inner, EmpiricalChannel):
            return self.inner.at(self._inputs(self.inner.table, level))
        elif isinstance(self.inner, CellwiseChannel):
            return self.inner.program(self._held(level), rng)
        else:
            return (self._held(level),)
        if shared.any():
            mean = mean + shared * rng.standard_normal(mean.size)
        return mean, np.sqrt(np.maximum(std**2 - shared**2, 0))

    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read of one cell of each weight, as the converter gives it."""
        if isinstance(self.inner, CellwiseChannel):
            read: NDArray[np.floating[Any]] = self.inner.read_cell(state, rng)
        elif isinstance(self.inner, GaussianChannel):
            mean, std = state
            read = mean + std * rng.standard_normal(mean.size)
        else:
            read = self.inner.read(state[0].astype(np.float32), cells=1, rng=rng)
        return rounded(read, self.range, self.read_bits) if self.read_bits else read

    def _written(self, level: Floats) -> Doubles:
        """Return the levels that can be written, nearest to `level`, where input and level are one."""
        exact = level.astype(np.float64)
        return rounded(exact, self.inner.span, self.write_bits) if self.write_bits else exact

    def _held(self, level: Floats) -> Floats:
        """Return the levels that are written, as the inner channel takes them."""
        return inside(self._written(level).astype(np.float32), self.inner.span)

    def _inputs(self, table: TableChannel, level: Floats) -> Doubles:
        """Return the programmed inputs, on the scale of -1 to 1."""
        if not self.write_bits:
            return table.inverse.input(level)
        grid = np.linspace(table.inputs[0], table.inputs[-1], 2**self.write_bits)
        means = np.interp(grid, table.inputs, table.means)
        order = np.argsort(means, kind="stable")
        middles = (means[order][1:] + means[order][:-1]) / 2
        chosen: Doubles = grid[order][np.searchsorted(middles, level)]
        return chosen

    def __str__(self) -> str:
        limits = [
            f"{bits} bit{'s' * (bits > 1)} to {what}"
            for bits, what in ((self.write_bits, "write"), (self.read_bits, "read"))
            if bits
        ]
        return f"{self.inner} ({', '.join(limits) or 'no limit'})"


def codes(span: Span, bits: int) -> Doubles:
    """Return the 2^bits equally spaced numbers of `span`, its ends included, of shape (2^bits,)."""
    found: Doubles = np.linspace(*span, 2**bits)
    return found


def rounded(value: NDArray[np.floating[Any]], span: Span, bits: int) -> Doubles:
    """Return `value` clipped to `span` and rounded to the nearest of 2^bits equally spaced numbers, its ends included.

    Examples
    --------
    >>> rounded(np.array([-2.0, 0.1, 0.6]), (-1.0, 1.0), 1)
    array([-1.,  1.,  1.])
    """
    low, high = span
    step = (high - low) / (2**bits - 1)
    found: Doubles = np.clip(low + np.round((np.clip(value, low, high) - low) / step) * step, low, high)
    return found


def _at(table: TableChannel, inputs: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Return mean, σ and shared σ of a read at these inputs."""
    mean = np.interp(inputs, table.inputs, table.means)
    std = np.interp(inputs, table.inputs, table.stds)
    shared = np.interp(inputs, table.inputs, table.between) if table.cells_on == "same" else np.zeros(inputs.shape)
    return mean, std, np.minimum(shared, std)
