"""A channel whose mean and standard deviation are tables over the programmed input.

Both are linear between the inputs of the table; inputs and outputs are scaled to -1 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Doubles, Floats, GaussianChannel, Source, Span, State, common
from onnx_analog.channels.inverse import Inverse
from onnx_analog.errors import ChannelError
from onnx_analog.serialise import conform

KNOTS = 1024  # rows of a table at most
_MOST = 1e6  # of what is scaled to -1 to 1; beyond it, slopes lose their digits
_ROUNDED = 1e-9
_CLOSEST = 1e-100  # inputs that are closer have no slope between them that is a number
_NOTHING = 1e-9  # means that differ by less are equal

_UNKNOWN = Source(citation="a table whose origin is not said")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A scale from a device's own unit to [-1, 1], linear or logarithmic.

    Parameters
    ----------
    low, high : float
        The values that become -1 and 1, in `unit`.
    unit : str
        Name of the measured column, unit included.
    log : bool
        Scale log10 of the value.

    Raises
    ------
    ChannelError
        If low is not below high, the two are too far apart for a float, or the logarithm of one does not exist.

    Examples
    --------
    >>> resistance = Scale(low=1e4, high=1e6, unit="resistance_ohm", log=True)
    >>> resistance.apply(np.array([1e4, 1e5, 1e6]))
    array([-1.,  0.,  1.])
    >>> float(resistance.undo(np.array([0.0]))[0])
    100000.0
    """

    low: float
    high: float
    unit: str = ""
    log: bool = False

    def __post_init__(self) -> None:
        try:
            conform(self)
        except TypeError as error:
            raise ChannelError(f"scale of {str(self.unit)!r}: {error}") from error
        if self.log and not self.low > 0:
            raise ChannelError(
                f"scale of {self.unit!r}: low is {self.low:g}, which has no logarithm; it must be above 0"
            )
        low, high = self._ends()
        if not (low < high and math.isfinite(high - low)):
            raise ChannelError(f"scale of {self.unit!r} is {self.low:g} to {self.high:g}; low must be below high")

    def apply(self, value: Doubles) -> Doubles:
        """Return `value`, given in `unit`, on the scale of -1 to 1."""
        low, high = self._ends()
        return 2 * ((np.log10(value) if self.log else value) - low) / (high - low) - 1

    def undo(self, scaled: Doubles) -> Doubles:
        """Return `scaled`, on the scale of -1 to 1, in `unit`."""
        low, high = self._ends()
        value: Doubles = low + (scaled + 1) / 2 * (high - low)
        return 10**value if self.log else value

    def spread(self, std: Doubles) -> Doubles:
        """Return a standard deviation, on the scale of -1 to 1, in `unit`; of a logarithmic scale, as a factor.

        Examples
        --------
        >>> Scale(low=1e4, high=1e6, unit="resistance_ohm", log=True).spread(np.array([0.3])).round(2)
        array([2.])
        """
        low, high = self._ends()
        value: Doubles = std / 2 * (high - low)
        return 10**value if self.log else value

    def named(self, what: str) -> str:
        """Return the name of a column or an axis: what it shows, and the unit."""
        return f"{what}, {self.unit}" if self.unit else what

    def _ends(self) -> tuple[float, float]:
        return (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class TableChannel(GaussianChannel):
    """A Gaussian channel, its mean and σ tables over the input.

    Parameters
    ----------
    name : str
        Name of the channel.
    inputs : tuple of float, shape (n,), n from 2 to 1,024, increasing
        Programmed inputs, scaled to -1 to 1.
    means, stds : tuples of float, shape (n,)
        Mean and standard deviation of a read, scaled to -1 to 1.
    input_scale, output_scale : Scale
        Device units of inputs and outputs.
    provenance : Source
        Where the measurements come from.
    neighbours, pairs : int
        k of the mean, and how many pairs were measured.
    between : tuple of float, shape (n,), from 0 to `stds`, or empty
        The part of `stds` that is between devices, so that the reads of one device share it; empty if not known.
    cells_on : {"different", "same"}
        Whether the cells of one weight are on independently drawn devices, or on one, where averaging leaves `between`.
    residuals : tuple of n tuples of float, none of them empty, or empty
        Equally likely standardised residuals at each input, for `EmpiricalChannel`; empty if not known.

    Raises
    ------
    ChannelError
        If the table describes no channel.
    """

    family: ClassVar[str] = "table"

    name: str
    inputs: tuple[float, ...] = field(repr=False)
    means: tuple[float, ...] = field(repr=False)
    stds: tuple[float, ...] = field(repr=False)
    input_scale: Scale = Scale(low=-1.0, high=1.0)
    output_scale: Scale = Scale(low=-1.0, high=1.0)
    provenance: Source = field(default=_UNKNOWN, repr=False)
    neighbours: int = 1
    pairs: int = 0
    between: tuple[float, ...] = field(default=(), repr=False)
    cells_on: str = "different"
    residuals: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_columns()
        self._check_options()
        self._check_residuals()

    def _check_columns(self) -> None:
        inputs, means, stds = (np.array(column, np.float64) for column in (self.inputs, self.means, self.stds))
        lengths = {inputs.size, means.size, stds.size}
        if len(lengths) > 1 or not 2 <= inputs.size <= KNOTS:
            raise ChannelError(
                f"channel {self.name!r}: its columns have lengths {sorted(lengths)}; 2 to {KNOTS:,}, all equal"
            )
        if max(np.abs(column).max() for column in (inputs, means, stds)) > _MOST:
            raise ChannelError(
                f"channel {self.name!r}: its table holds numbers beyond {_MOST:g}; they are scaled to -1 to 1"
            )
        if (np.diff(inputs) <= 0).any() or (stds < 0).any():
            raise ChannelError(f"channel {self.name!r}: inputs must increase and standard deviations not be negative")
        if np.diff(inputs).min() < _CLOSEST:
            raise ChannelError(f"channel {self.name!r}: two inputs are too close to each other to tell them apart")
        if np.ptp(means) <= _NOTHING:
            raise ChannelError(f"channel {self.name!r} returns the same mean for every input: it can hold nothing")

    def _check_options(self) -> None:
        if self.neighbours < 1 or self.pairs < 0:
            raise ChannelError(
                f"channel {self.name!r}: neighbours is {self.neighbours} and pairs {self.pairs}; 1 and 0 are the least"
            )
        if self.cells_on not in ("different", "same"):
            raise ChannelError(f"channel {self.name!r}: cells_on is {self.cells_on!r}; it must be different or same")
        if self.cells_on == "same" and not self.between:
            raise ChannelError(
                f"channel {self.name!r} has no device-to-device part, so cells cannot share a device: fit it with a "
                "column of devices"
            )
        for name in ("between", "residuals"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.inputs):
                raise ChannelError(
                    f"channel {self.name!r}: {name} has {len(getattr(self, name))} entries, not one for each input"
                )

    def _check_residuals(self) -> None:
        between, stds = np.array(self.between), np.array(self.stds)
        if between.size and not ((between >= 0) & (between <= stds * (1 + _ROUNDED) + _ROUNDED)).all():
            raise ChannelError(f"channel {self.name!r}: between must be from 0 to the standard deviation")
        for index, row in enumerate(self.residuals):
            if not row or max(map(abs, row)) > _MOST:
                raise ChannelError(
                    f"channel {self.name!r}: residuals[{index}] {'is empty' if not row else f'goes beyond {_MOST:g}'}; "
                    "there must be one or more, standardised, at each input"
                )

    @property
    def source(self) -> Source:
        """Where the measurements come from."""
        return self.provenance

    @property
    def span(self) -> Span:
        """The lowest and the highest mean read."""
        return min(self.means), max(self.means)

    @cached_property
    def inverse(self) -> Inverse:
        """F = μ⁻¹: of several preimages the one of least σ, ties to the smaller input."""
        return _inverse(self.inputs, self.means, self.stds)

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return σ(f(level)); see `GaussianChannel.std`."""
        self.check(level)
        return self.inverse.std(level)

    def shared_std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return the σ that cells on the same device share; see `GaussianChannel.shared_std`."""
        if self.cells_on == "different":
            return np.zeros(level.shape)
        return np.minimum(np.interp(self.inverse.input(level), self.inputs, self.between), self.std(level))

    @property
    def independent(self) -> bool:
        """Return whether the cells of one weight are on different devices."""
        return self.cells_on == "different"

    @property
    def measurements(self) -> TableChannel:
        """The channel itself."""
        return self

    def changed(self, *, residuals: str | None = None, cells_on: str | None = None, **others: Any) -> Channel:
        """Return the channel with these changes; see `Channel.changed`."""
        table = self if cells_on is None else replace(self, cells_on=cells_on)
        if residuals != "empirical":
            return Channel.changed(table, **others)
        from onnx_analog.channels.empirical import EmpiricalChannel  # which is made from a table

        return EmpiricalChannel(table=table).changed(**others)

    def written(self, level: Floats, rng: np.random.Generator, *, bits: int = 0) -> State:
        """Return mean and σ of each weight's cells; see `Channel.written`."""
        inputs = self.nearest_inputs(level, bits)
        mean, std = (np.interp(inputs, self.inputs, column) for column in (self.means, self.stds))
        shared = np.zeros(inputs.shape) if self.independent else np.interp(inputs, self.inputs, self.between)
        return common(mean, std, np.minimum(shared, std), rng)

    def nearest_inputs(self, level: NDArray[np.floating[Any]], bits: int) -> Doubles:
        """Return f(level), or the best of 2^bits equally spaced inputs: the one whose mean read is nearest to `level`.

        Ties go to the smaller input; `bits` is 0 where all inputs can be written.
        """
        if not bits:
            return self.inverse.input(level)
        grid = np.linspace(self.inputs[0], self.inputs[-1], 2**bits)
        means = np.interp(grid, self.inputs, self.means)
        order = np.argsort(means, kind="stable")
        middles = (means[order][1:] + means[order][:-1]) / 2
        chosen: Doubles = grid[order][np.searchsorted(middles, level)]
        return chosen

    def programmed(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return f(level) in the device's own unit, `input_scale.unit`: what is to be written to the cells."""
        self.check(level)
        return self.input_scale.undo(self.inverse.input(level))

    def __str__(self) -> str:
        return self.name if self.cells_on == "different" else f"{self.name} (cells of a weight on one device)"


@lru_cache(maxsize=16)
def _inverse(inputs: tuple[float, ...], means: tuple[float, ...], stds: tuple[float, ...]) -> Inverse:
    """Return the inverse of a table: the same for all channels that are equal, as those of each point of a sweep."""
    return Inverse(np.array(inputs), np.array(means), np.array(stds))
