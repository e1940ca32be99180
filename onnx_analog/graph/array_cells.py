"""Rows of reads become the mean read of each cell: of one time, scaled, calibrated, in the order of addresses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import counted
from onnx_analog.errors import DataError
from onnx_analog.graph.image import Image, Plane
from onnx_analog.graph.irregular import FAR, Log
from onnx_analog.graph.reads import Reads

Array = NDArray[Any]

_SHOWN = 6  # times that a message lists
_ROUNDING = 1e-9  # on the scale of levels: what is nearer to the output range lies in it


@dataclass(frozen=True)
class Calibration:
    """The line that a block of cells reads along: value = gain · level + offset, both on the scale of levels."""

    block: int
    gain: float
    offset: float
    references: int


# ---------------------------------------------------------------------------------------------------------- rows


def _taken(reads: Reads, rows: Array) -> Reads:
    """Return some of the rows."""
    names = ("address", "value", "count", "time_s", "stuck", "block", "reference")
    columns = {name: getattr(reads, name) for name in names}
    return replace(reads, **{name: values[rows] for name, values in columns.items() if values is not None})


def at_time(reads: Reads, time_s: float | None, log: Log) -> tuple[Reads, float | None]:
    """Return the reads of one time, and that time."""
    if reads.time_s is None:
        if time_s is not None:
            raise DataError(f"{reads.name} says no times, and time_s is {time_s:g}: leave it out")
        log.add("time", 0, len(reads))
        return reads, None
    times = np.unique(reads.time_s)
    if time_s is None and times.size > 1:
        raise DataError(
            f"{reads.name} has reads of {times.size:,} times ({_listed(times)} s): say which count, with time_s"
        )
    time = float(times[0] if time_s is None else time_s)
    if time not in times:
        raise DataError(f"{reads.name} has no reads at time_s {time:g}; its times are {_listed(times)} s")
    rows = reads.time_s == time
    log.add("time", np.count_nonzero(~rows), rows.size)
    return _taken(reads, rows), time


def _listed(values: Array) -> str:
    shown = [f"{value:g}" for value in values[:_SHOWN]]
    return ", ".join([*shown, *(["..."] if values.size > _SHOWN else [])])


def scaled(reads: Reads, image: Image, log: Log) -> Reads:
    """Return reads on the scale of levels, of values in the device's unit; those without a logarithm are left out."""
    devices = {plane.programming for plane in image.planes}
    scales = {(device.table.output_scale if device.table else None) for device in devices}
    if len(scales) > 1:
        raise DataError(
            f"the cells of the model are of devices with {len(scales)} scales, so that a value may mean several "
            "things: give scaled values"
        )
    device = next(iter(devices))
    reference = None if reads.reference is None else device.scaled(reads.reference)
    if (
        reference is not None
        and reads.reference is not None
        and (np.isnan(reference) > np.isnan(reads.reference)).any()
    ):
        raise DataError(f"{reads.name}: a reference has no logarithm, and the device's scale is logarithmic")
    value = device.scaled(reads.value)
    stuck = np.zeros(len(reads), np.bool_) if reads.stuck is None else reads.stuck.astype(np.bool_)
    without = np.isnan(value) & np.isfinite(reads.value) & ~stuck
    log.add("logless", without.sum(), len(reads))
    return _taken(replace(reads, value=value, reference=reference), ~without)


def usable(reads: Reads, log: Log) -> Reads:
    """Return the rows that hold a number and are not of stuck cells."""
    stuck = np.zeros(len(reads), np.bool_) if reads.stuck is None else reads.stuck.astype(np.bool_)
    with np.errstate(over="ignore"):
        empty = ~np.isfinite(reads.value.astype(np.float32)) & ~stuck  # in which levels are decoded
    log.add("stuck", stuck.sum(), len(reads))
    log.add("empty", empty.sum(), len(reads))
    return _taken(reads, ~(stuck | empty))


# --------------------------------------------------------------------------------------------------- calibration


def calibrated(reads: Reads) -> tuple[Reads, tuple[Calibration, ...]]:
    """Return the reads that are no references, corrected by the line that the references of their block read along."""
    if reads.reference is None:
        return reads, ()
    known = np.isfinite(reads.reference)
    block = np.zeros(len(reads), np.int64) if reads.block is None else reads.block
    lines = {number: _line(reads, known & (block == number), number) for number in np.unique(block).tolist()}
    data = _taken(reads, ~known)
    numbers, which = np.unique(block[~known], return_inverse=True)
    gain, offset = (np.array([getattr(lines[n], name) for n in numbers.tolist()]) for name in ("gain", "offset"))
    value = (data.value - offset[which]) / gain[which] if numbers.size else data.value
    return replace(data, value=value), tuple(lines.values())


def _line(reads: Reads, rows: Array, block: int) -> Calibration:
    assert reads.reference is not None
    x, y = reads.reference[rows], reads.value[rows]
    if np.unique(x).size < 2:
        raise DataError(
            f"{reads.name}: block {block} has references of {counted(np.unique(x).size, 'level')}, and two are needed "
            "for its offset and gain"
        )
    weight = np.ones(x.size) if reads.count is None else reads.count[rows].astype(np.float64)
    x_mean, y_mean = np.average(x, weights=weight), np.average(y, weights=weight)
    gain = float((weight * (x - x_mean) * (y - y_mean)).sum() / (weight * (x - x_mean) ** 2).sum())
    if not gain > 0:
        raise DataError(f"{reads.name}: block {block} has a gain of {gain:.3g} by its references; it must be above 0")
    return Calibration(block, gain, float(y_mean - gain * x_mean), int(x.size))


# --------------------------------------------------------------------------------------------------------- cells


@dataclass(frozen=True, eq=False)
class Cells:
    """The mean read of each address, NaN where there is none; and how many reads were used."""

    mean: Array
    used: int

    @staticmethod
    def of(reads: Reads, image: Image, log: Log) -> Cells:
        """Average the reads of each cell."""
        address = reads.address
        wrong = address[(address < 0) | (address >= image.cells)]
        if wrong.size:
            raise DataError(
                f"{reads.name}: address {wrong[0]} is outside the array, whose addresses are 0 to "
                f"{image.cells - 1:,}: are the reads of another image?"
            )
        log.add("order", np.count_nonzero(np.diff(address) < 0), len(reads))
        rows = np.bincount(address, minlength=image.cells)
        log.add("repeated", np.count_nonzero(rows > 1), image.cells)
        log.add("unread", np.count_nonzero(rows == 0), image.cells)
        weight = np.ones(len(reads)) if reads.count is None else reads.count.astype(np.float64)
        total = np.bincount(address, weight, image.cells)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(address, weight * reads.value, image.cells) / total
        return Cells(mean, int(weight.sum()))

    def of_plane(self, plane: Plane, log: Log) -> Array:
        """Return the reads of a plane's cells, differences of pairs; reads that look wrong are counted."""
        mean = plane.programming.of_cells(self.mean[plane.first : plane.end])
        reads = np.count_nonzero(np.isfinite(mean))
        low, high = plane.programming.channel.span
        log.add("outside", np.count_nonzero((mean < low - _ROUNDING) | (mean > high + _ROUNDING)), reads)
        std = np.repeat(plane.programming.std(plane.level), plane.cells)
        deviation = np.abs(mean - np.repeat(plane.level.astype(np.float64), plane.cells))
        log.add("far", np.count_nonzero(deviation > FAR * std + _ROUNDING), reads)
        return mean


def averaged(reads: Array, starts: Array) -> tuple[Array, Array]:
    """Return the mean of the reads that are there, NaN if none is, and their number, of each level or symbol (m,)."""
    there = np.isfinite(reads)
    number = np.add.reduceat(there.astype(np.int64), starts)
    with np.errstate(invalid="ignore"):
        return np.add.reduceat(np.where(there, reads, 0.0), starts) / number, number
