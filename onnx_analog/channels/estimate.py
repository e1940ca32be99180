"""Estimates from measurements: pairs of (programmed input, read output) of any device.

Inputs and outputs are scaled to [-1, 1] by their extremes (Isik et al. 2020, appendix A). At each distinct input, the
mean is that of all reads at its k nearest distinct inputs, weighted equally, and σ is the root mean square of those
reads about that mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles, Source
from onnx_analog.channels.table import KNOTS, Scale, TableChannel
from onnx_analog.errors import ChannelError, MeasurementError
from onnx_analog.serialise import as_int

RESIDUALS = 1024  # kept at each input at most
_TIE = 1e-9  # distances on the scale of -1 to 1 that differ by less are equal
_LARGEST = 1e150  # of measured numbers: their squares are numbers too
_ROUNDING = 1e-14  # variances below it are rounding


def from_pairs(
    inputs: Doubles,
    outputs: Doubles,
    *,
    devices: NDArray[Any] | None = None,
    neighbours: int = 1,
    name: str = "measured",
    units: tuple[str, str] = ("input", "output"),
    log: bool = False,
    source: Source | None = None,
    residuals: int = RESIDUALS,
) -> TableChannel:
    """Return the channel that (input, output) pairs describe. Their order does not matter.

    Parameters
    ----------
    inputs, outputs : float arrays of shape (pairs,)
        In the device's own units.
    devices : array of shape (pairs,), optional
        Which device each pair was measured on; splits the variance into what is between devices and what is within.
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
    residuals : int, >= 1
        How many are kept at each input at most, for `EmpiricalChannel`.

    Returns
    -------
    TableChannel
        Of all distinct inputs, or of 1,024 of them, equally spread, where there are more.

    Raises
    ------
    ChannelError
        If the pairs describe no channel: what is wrong, and in which column.
    """
    pairs = Pairs.of(inputs, outputs, devices=devices, name=name, units=units, log=log)
    return pairs.channel(neighbours, source=source, residuals=residuals)


class Pairs(NamedTuple):
    """Measured pairs on the scale of -1 to 1, sorted, so that no sum depends on the order of rows.

    Attributes
    ----------
    inputs, outputs : float arrays of shape (pairs,)
    labels : int array of shape (pairs,), or None
        Number of the device that a pair was measured on.
    scales : (Scale, Scale)
        Of inputs and outputs.
    name : str
    """

    inputs: Doubles
    outputs: Doubles
    labels: NDArray[np.intp] | None
    scales: tuple[Scale, Scale]
    name: str

    @staticmethod
    def of(
        inputs: Doubles,
        outputs: Doubles,
        *,
        devices: NDArray[Any] | None,
        name: str,
        units: tuple[str, str],
        log: bool,
    ) -> Pairs:
        """Check, scale and sort pairs in a device's own units; see `from_pairs`."""
        inputs, outputs = (_floats(column, unit, name) for column, unit in zip((inputs, outputs), units, strict=True))
        _check_pairs(inputs, outputs, name=name, units=units, log=log)
        ends = [(float(column.min()), float(column.max())) for column in (inputs, outputs)]
        try:
            scales = (
                Scale(low=ends[0][0], high=ends[0][1], unit=units[0]),
                Scale(low=ends[1][0], high=ends[1][1], unit=units[1], log=log),
            )
        except ChannelError as error:
            raise MeasurementError(f"channel {name!r}: {error}") from error
        labels = None if devices is None else np.unique(np.asarray(devices), return_inverse=True)[1]
        if labels is not None and labels.shape != inputs.shape:
            raise MeasurementError(f"channel {name!r}: devices have the shape {labels.shape}, and pairs {inputs.shape}")
        order = np.lexsort((outputs, inputs) if labels is None else (labels, outputs, inputs))
        ordered = None if labels is None else labels[order]
        return Pairs(scales[0].apply(inputs[order]), scales[1].apply(outputs[order]), ordered, scales, name)

    def channel(self, neighbours: int, *, source: Source | None, residuals: int = RESIDUALS) -> TableChannel:
        """Return the channel that the pairs describe; see `from_pairs`."""
        try:
            neighbours, residuals = as_int(neighbours, "neighbours"), as_int(residuals, "residuals")
        except TypeError as error:
            raise ChannelError(f"channel {self.name!r}: {error}") from error
        if residuals < 1:
            raise ChannelError(f"channel {self.name!r}: residuals is {residuals}; at least one is kept at each input")
        reads = Reads.of(self.inputs, self.outputs)
        if not 1 <= neighbours <= reads.distinct.size:
            raise ChannelError(
                f"neighbours is {neighbours}, and channel {self.name!r} has {reads.distinct.size} distinct inputs: "
                f"give 1 to {reads.distinct.size}"
            )
        knots = knots_of(reads.distinct)
        means, stds = reads.moments(knots, neighbours)
        windows = [reads.window(knot, neighbours) for knot in knots]
        return TableChannel(
            name=self.name,
            inputs=tuple(knots.tolist()),
            means=tuple(means.tolist()),
            stds=tuple(stds.tolist()),
            input_scale=self.scales[0],
            output_scale=self.scales[1],
            provenance=source or Source(citation="measured pairs"),
            neighbours=neighbours,
            pairs=self.inputs.size,
            between=self._between(windows, stds),
            residuals=tuple(
                _residuals(self.outputs[window], float(std), residuals)
                for window, std in zip(windows, stds, strict=True)
            ),
        )

    def _between(self, windows: Sequence[slice], stds: Doubles) -> tuple[float, ...]:
        """Return the standard deviation between devices at each input: the whole variance less that within them.

        Within is the sum of squares about each device's own mean over reads less devices, which has no bias; where each
        device was read once, that of all inputs together.
        """
        if self.labels is None:
            return ()
        parts = [_within(self.outputs[window], self.labels[window]) for window in windows]
        squares, freedom = (np.array(column) for column in zip(*parts, strict=True))
        if not freedom.any():
            raise MeasurementError(
                f"channel {self.name!r}: each device was read once at each input, so the device-to-device part of σ is "
                "not known"
            )
        pooled = squares.sum() / freedom.sum()
        within = np.where(freedom > 0, squares / np.maximum(freedom, 1), pooled)
        return tuple(np.sqrt(np.maximum(stds**2 - within, 0)).tolist())


class Reads(NamedTuple):
    """Pairs on the scale of -1 to 1, in the order of the inputs."""

    distinct: Doubles  # inputs (d,)
    outputs: Doubles  # (pairs,)
    starts: NDArray[np.intp]  # of each distinct input's reads, and the end of the last (d + 1,)

    @staticmethod
    def of(inputs: Doubles, outputs: Doubles) -> Reads:
        """Return the reads of sorted `inputs`."""
        distinct, first = np.unique(inputs, return_index=True)
        return Reads(distinct, outputs, np.append(first, inputs.size))

    def window(self, knot: float, neighbours: int) -> slice:
        """Return where the reads of the `neighbours` distinct inputs nearest to `knot` are."""
        left = int(self._left(np.array([knot]), neighbours)[0])
        return slice(int(self.starts[left]), int(self.starts[left + neighbours]))

    def moments(self, knots: Doubles, neighbours: int) -> tuple[Doubles, Doubles]:
        """Return mean, and root mean square about it, of the reads near each of `knots`."""
        left = self._left(knots, neighbours)
        first, end = self.starts[left], self.starts[left + neighbours]
        sums = [np.append(0, np.cumsum(self.outputs**power)) for power in (1, 2)]
        mean, square = ((total[end] - total[first]) / (end - first) for total in sums)
        variance = square - mean**2
        return mean, np.sqrt(np.where(variance > _ROUNDING, variance, 0))

    def _left(self, knots: Doubles, neighbours: int) -> NDArray[np.intp]:
        """Return the first of the nearest distinct inputs: these stand side by side, so one border is enough."""
        borders = (self.distinct[:-neighbours] + self.distinct[neighbours:]) / 2
        tie = min(_TIE, float(np.diff(self.distinct).min(initial=4 * _TIE)) / 4)
        return np.searchsorted(borders, knots - tie)


def knots_of(distinct: Doubles) -> Doubles:
    """Return the inputs that a table is made for: all of them, or as many as a table holds."""
    if distinct.size <= KNOTS:
        return distinct
    return distinct[np.linspace(0, distinct.size - 1, KNOTS).round().astype(np.intp)]


def _within(reads: Doubles, labels: NDArray[np.intp]) -> tuple[float, int]:
    """Return the sum of squares of reads about the mean of their device, and reads less devices."""
    count = np.bincount(labels)
    mean = np.bincount(labels, reads) / np.maximum(count, 1)
    return float(np.sum((reads - mean[labels]) ** 2)), int(reads.size - np.count_nonzero(count))


def _residuals(reads: Doubles, std: float, most: int) -> tuple[float, ...]:
    """Return equally likely standardised residuals: of all reads, or the means of `most` equally full bins of them.

    They are standardised by the reads' own mean and `std`, so a rare event keeps its size and all others theirs.
    """
    if std == 0:
        return (0.0,)
    residuals = (np.sort(reads) - reads.mean()) / std
    if residuals.size > most:  # means of the distribution's inverse over `most` equal shares, which may part a read
        sums = np.append(0, np.cumsum(residuals))
        borders = np.linspace(0, residuals.size, most + 1)
        residuals = np.diff(np.interp(borders, np.arange(sums.size), sums)) * most / residuals.size
    return tuple(residuals.round(4).tolist())


def _floats(column: Any, unit: str, name: str) -> Doubles:
    numbers = np.asarray(column)
    if numbers.dtype.kind not in "iuf":
        raise MeasurementError(f"channel {name!r}: column {unit!r} does not hold numbers ({numbers.dtype})")
    return numbers.astype(np.float64)


def _check_pairs(inputs: Doubles, outputs: Doubles, *, name: str, units: tuple[str, str], log: bool) -> None:
    if inputs.shape != outputs.shape or inputs.ndim != 1:
        raise MeasurementError(f"channel {name!r}: inputs {inputs.shape} and outputs {outputs.shape} are not pairs")
    for column, unit in zip((inputs, outputs), units, strict=True):
        bad = np.flatnonzero(~(np.abs(column) <= _LARGEST))
        if bad.size:
            what = f"{column[bad[0]]:g}, which is not a number up to {_LARGEST:g}"
            raise MeasurementError(f"channel {name!r}: column {unit!r} holds {what}, first in data row {bad[0] + 1}")
        if np.unique(column).size < 2:
            raise MeasurementError(f"channel {name!r}: column {unit!r} holds fewer than two distinct values")
    if log and outputs.min() <= 0:
        row = int(np.argmin(outputs)) + 1
        raise MeasurementError(
            f"channel {name!r}: column {units[1]!r} holds {outputs.min():g} in data row {row}, which has no logarithm"
        )
