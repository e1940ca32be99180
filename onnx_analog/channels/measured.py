"""Channels from measurements: pairs of (programmed input, read output) of any device.

Inputs and outputs are scaled to [-1, 1] by their extremes (Isik et al. 2020, appendix A). At each distinct input, the
mean is that of all reads at its k nearest distinct inputs, weighted equally, and σ is the root mean square of those
reads about that mean; both are linear between inputs.
"""

from __future__ import annotations

import csv as csv_module
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles, GaussianChannel, Source, Span
from onnx_analog.channels.inverse import Inverse
from onnx_analog.errors import ChannelError

_UNKNOWN = Source(citation="a table whose origin is not said")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a device's own unit is scaled to [-1, 1]: linearly, or by the logarithm.

    Parameters
    ----------
    low, high : float
        What becomes -1 and 1, in `unit`.
    unit : str
        Name of the measured column, unit included.
    log : bool
        Scale log10 of the value.

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

    def apply(self, value: Doubles) -> Doubles:
        """Return `value`, given in `unit`, on the scale of -1 to 1."""
        low, high = self._ends()
        return 2 * ((np.log10(value) if self.log else value) - low) / (high - low) - 1

    def undo(self, scaled: Doubles) -> Doubles:
        """Return `scaled`, on the scale of -1 to 1, in `unit`."""
        low, high = self._ends()
        value: Doubles = low + (scaled + 1) / 2 * (high - low)
        return 10**value if self.log else value

    def _ends(self) -> tuple[float, float]:
        return (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class TableChannel(GaussianChannel):
    """A conditional Gaussian channel whose mean and standard deviation are tables over the input.

    Parameters
    ----------
    name : str
        What the channel is called.
    inputs : tuple of float, shape (n,), n >= 2, increasing
        Programmed inputs, scaled to -1 to 1.
    means, stds : tuples of float, shape (n,)
        Mean and standard deviation of a read, scaled to -1 to 1.
    input_scale, output_scale : Scale
        Device units of inputs and outputs.
    provenance : Source
        Where the measurements come from.
    neighbours, pairs : int
        k of the mean, and how many pairs were measured.

    Raises
    ------
    ChannelError
        If the table describes no channel.
    """

    family: ClassVar[str] = "table"

    name: str
    inputs: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    input_scale: Scale = Scale(low=-1.0, high=1.0)
    output_scale: Scale = Scale(low=-1.0, high=1.0)
    provenance: Source = _UNKNOWN
    neighbours: int = 1
    pairs: int = 0

    def __post_init__(self) -> None:
        columns = [np.array(column, np.float64) for column in (self.inputs, self.means, self.stds)]
        lengths = {column.size for column in columns}
        if len(lengths) > 1 or columns[0].size < 2:
            raise ChannelError(
                f"channel {self.name!r}: its columns have lengths {sorted(lengths)}; 2 or more, all equal"
            )
        if not all(np.isfinite(column).all() for column in columns):
            raise ChannelError(f"channel {self.name!r}: its table holds NaN or infinity")
        if (np.diff(columns[0]) <= 0).any() or (columns[2] < 0).any():
            raise ChannelError(f"channel {self.name!r}: inputs must increase and standard deviations not be negative")
        if np.ptp(columns[1]) == 0:
            raise ChannelError(f"channel {self.name!r} returns the same mean for every input: it can hold nothing")

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
        return Inverse(np.array(self.inputs), np.array(self.means), np.array(self.stds))

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return σ(f(level)); see `GaussianChannel.std`."""
        self.check(level)
        return self.inverse.std(level)

    def programmed(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return f(level) in the device's own unit: what is to be written to the cells."""
        self.check(level)
        return self.input_scale.undo(self.inverse.input(level))

    def __str__(self) -> str:
        return self.name


def from_pairs(
    inputs: Doubles,
    outputs: Doubles,
    *,
    neighbours: int = 1,
    name: str = "measured",
    units: tuple[str, str] = ("input", "output"),
    log: bool = False,
    source: Source | None = None,
) -> TableChannel:
    """Return the channel that (input, output) pairs describe. Their order does not matter.

    Parameters
    ----------
    inputs, outputs : float arrays of shape (pairs,)
        In the device's own units.
    neighbours : int, from 1 to the number of distinct inputs
        k: how many distinct inputs share their reads; ties in distance go to the smaller input.
    name : str
        What the channel is to be called.
    units : tuple of str
        Names of inputs and outputs, with their units.
    log : bool
        Scale log10 of the outputs, as for resistances.
    source : Source, optional
        Where the pairs come from.

    Raises
    ------
    ChannelError
        If the pairs describe no channel: what is wrong, and in which column.
    """
    inputs, outputs = np.asarray(inputs, np.float64), np.asarray(outputs, np.float64)
    _check_pairs(inputs, outputs, name=name, units=units, log=log)
    scales = [
        Scale(low=float(column.min()), high=float(column.max()), unit=unit, log=logarithmic)
        for column, unit, logarithmic in zip((inputs, outputs), units, (False, log), strict=True)
    ]
    order = np.lexsort((outputs, inputs))  # sums then do not depend on the order of rows
    x, y = scales[0].apply(inputs[order]), scales[1].apply(outputs[order])
    distinct, first = np.unique(x, return_index=True)
    if not 1 <= neighbours <= distinct.size:
        raise ChannelError(
            f"channel {name!r} has {distinct.size} distinct inputs: neighbours is {neighbours}, not within"
        )
    means, stds = _nearest(distinct, y, first, neighbours)
    return TableChannel(
        name=name,
        inputs=tuple(distinct.tolist()),
        means=tuple(means.tolist()),
        stds=tuple(stds.tolist()),
        input_scale=scales[0],
        output_scale=scales[1],
        provenance=source or Source(citation="measured pairs"),
        neighbours=neighbours,
        pairs=inputs.size,
    )


def _check_pairs(inputs: Doubles, outputs: Doubles, *, name: str, units: tuple[str, str], log: bool) -> None:
    if inputs.shape != outputs.shape or inputs.ndim != 1:
        raise ChannelError(f"channel {name!r}: inputs {inputs.shape} and outputs {outputs.shape} are not pairs")
    for column, unit in zip((inputs, outputs), units, strict=True):
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise ChannelError(f"channel {name!r}: column {unit!r} holds NaN or infinity, first in row {bad[0] + 1}")
        if np.unique(column).size < 2:
            raise ChannelError(f"channel {name!r}: column {unit!r} holds fewer than two distinct values")
    if log and outputs.min() <= 0:
        row = int(np.argmin(outputs)) + 1
        raise ChannelError(
            f"channel {name!r}: column {units[1]!r} holds {outputs.min():g} in row {row}, so has no logarithm"
        )


def _nearest(distinct: Doubles, y: Doubles, first: NDArray[np.intp], neighbours: int) -> tuple[Doubles, Doubles]:
    """Return mean and root-mean-square residual of the reads at each input's nearest distinct inputs."""
    ends = np.append(first, y.size)
    means, stds = np.empty(distinct.size), np.empty(distinct.size)
    left = 0
    for i, x in enumerate(distinct):
        # The nearest k are neighbours in order: move right while the newcomer is nearer than the one that drops out.
        while left + neighbours < distinct.size and distinct[left + neighbours] - x < x - distinct[left]:
            left += 1
        reads = y[ends[left] : ends[left + neighbours]]
        means[i] = reads.mean()
        stds[i] = np.sqrt(np.mean((reads - means[i]) ** 2))
    return means, stds


def measured(*, csv: str, input: str, output: str, log: bool = False, neighbours: int = 1) -> TableChannel:  # noqa: A002
    """Return the channel of a CSV file of pairs.

    Parameters
    ----------
    csv : str
        A file with a header line; lines that start with # are passed over.
    input, output : str
        Names of the two columns.
    log : bool
        Scale log10 of the output.
    neighbours : int
        k of the mean; see `from_pairs`.
    """
    inputs, outputs = read_columns(Path(csv), (input, output))
    source = Source(citation=f"{Path(csv).name}: {output} against {input}, {inputs.size} pairs")
    return from_pairs(
        inputs, outputs, neighbours=neighbours, name=Path(csv).stem, units=(input, output), log=log, source=source
    )


def read_columns(path: Path, names: tuple[str, ...]) -> list[Doubles]:
    """Return columns of a CSV file as float arrays.

    Raises
    ------
    ChannelError
        If the file or a column is missing, or a cell of it is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv_module.reader(line for line in file if not line.startswith("#"))
            header = [name.strip() for name in next(rows, [])]
            for name in names:
                if name not in header:
                    raise ChannelError(f"{str(path)!r} has no column {name!r}; its columns are {', '.join(header)}")
            places = [header.index(name) for name in names]
            return _numbers([[row[place] for place in places] for row in rows if row], path)
    except (OSError, UnicodeDecodeError) as error:
        raise ChannelError(f"cannot read {str(path)!r}: {error}") from error
    except (IndexError, csv_module.Error) as error:
        raise ChannelError(f"{str(path)!r} has a row that is too short or broken: {error}") from error


def _numbers(rows: list[list[str]], path: Path) -> list[Doubles]:
    if not rows:
        raise ChannelError(f"{str(path)!r} has a header and no rows")
    try:
        return list(np.array(rows, np.float64).T)
    except ValueError as error:
        raise ChannelError(f"{str(path)!r} holds text where a number is needed: {error}") from error
