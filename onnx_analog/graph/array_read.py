"""What an array returned, made into levels, signs and classes: the reads of a file take the place of a channel.

Rows are scaled, calibrated if there are reference cells, put in the order of addresses and averaged. Nothing irregular
is passed over in silence: each kind is counted in `ArrayRead.irregularities`. What cannot be known is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.arguments import Arguments
from onnx_analog.channels.symbols import crossings
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.side import SideInformation, to_gray
from onnx_analog.display import counted
from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph.image import Image, Plane, image_of
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import from_side_bits, side_bits
from onnx_analog.graph.reads import Reads
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.settings import settings_of

logger = logging.getLogger(__name__)

Array = NDArray[Any]

NO_UNIT = 'unit is not given: say unit="scaled" (the scale of levels) or unit="device"'
FAR = 6.0  # standard deviations from the written level, beyond which a cell is counted
_SHOWN = 6  # times that a message lists
_ROUNDING = 1e-9  # on the scale of levels: what is nearer to the output range lies in it


@dataclass(frozen=True)
class Irregularity:
    """Rows, cells or weights that are not as they should be.

    Attributes
    ----------
    what : str
    count : int
    of : int
        How many there are in all.
    handling : str
        What was done with them.
    """

    what: str
    count: int
    of: int
    handling: str


@dataclass(frozen=True)
class Calibration:
    """The line that a block of cells reads along: value = gain · level + offset, both on the scale of levels."""

    block: int
    gain: float
    offset: float
    references: int


@dataclass(frozen=True, eq=False)
class TensorRead:
    """What was read of one tensor.

    Attributes
    ----------
    raw : float32 array of shape (M,)
        Mean read of each weight's cells, before an estimator; NaN where there is none.
    level : float32 array of shape (M,)
        Levels, as they are decoded.
    sign, class_index : arrays of shape (N,), or None
        None where they are not analog, or there are none: those that were written count.
    """

    raw: Floats
    level: Floats
    sign: Bits | None = None
    class_index: Bytes | None = None


@dataclass(frozen=True, eq=False)
class ArrayRead:
    """What an array returned.

    Attributes
    ----------
    tensors : dict of str to TensorRead
        By storage key.
    irregularities : tuple of Irregularity
    calibration : tuple of Calibration
        One for each block; empty without reference cells.
    reads : int
        That were used.
    time_s : float or None
        When they were made, if the file says so.
    """

    tensors: dict[str, TensorRead]
    irregularities: tuple[Irregularity, ...]
    calibration: tuple[Calibration, ...]
    reads: int
    time_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return all but the levels, ready for JSON."""
        return {
            "reads": self.reads,
            "time_s": self.time_s,
            "irregularities": [asdict(each) for each in self.irregularities],
            "calibration": [asdict(each) for each in self.calibration],
        }

    def __str__(self) -> str:
        when = "" if self.time_s is None else f" at {self.time_s:g} s"
        return f"{counted(self.reads, 'read')} of an array{when}"


def read_array(
    protected: ProtectedModel, reads: Reads, *, unit: str | None, missing: str = "refuse", time_s: float | None = None
) -> ArrayRead:
    """Return what an array returned as levels, signs and classes.

    Parameters
    ----------
    protected : ProtectedModel
        What was written to the array.
    reads : Reads
    unit : {"scaled", "device"}
        Unit of values and references: the scale of levels, or the unit of the device's reads.
    missing : {"refuse", "zero", "written"}
        What a weight without any read becomes: nothing, so that reads are refused; zero; or what was written.
    time_s : float, optional
        Which reads count, where there are several times.

    Raises
    ------
    OptionError
        If the unit is not given, or one of the others is not one of these.
    DataError
        If the reads are of another image, an address is not one of the array, or something is not known: the time, the
        calibration of a block, a weight without a read.
    ChannelError
        If the device's unit is not known, or what single cells were programmed to.
    """
    _check_choices(unit, missing)
    image = image_of(protected)
    if reads.image not in (None, image.digest):
        raise DataError(
            f"{reads.name}: the reads are of image {str(reads.image)[:12]}, and this model's is {image.digest[:12]}: "
            "they do not belong together"
        )
    log = _Log()
    reads, time = _at_time(reads, time_s, log)
    if unit == "device":
        reads = _scaled(reads, image)
    reads, calibration = _calibrated(_usable(reads, log))
    cells = _Cells.of(reads, image, log)
    tensors = {
        key: _read_tensor(
            [plane for plane in image.planes if plane.tensor.key == key], key, protected, cells, missing, log
        )
        for key in image.tensors
    }
    log.check_known(missing)
    log.question_unit()
    return ArrayRead(tensors, log.irregularities(missing), calibration, cells.used, time)


def _check_choices(unit: str | None, missing: str) -> None:
    if unit is None:
        raise OptionError(NO_UNIT)
    for name, value in (("unit", unit), ("missing", missing)):
        declared, kind, _ = settings_of(Arguments)[name]
        declared.check(name, value, kind)


# -------------------------------------------------------------------------------------------------------- counts


class _Log:
    """Counts what is irregular: how many, of how many."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, what: str, count: Any, of: Any) -> None:
        before = self._counts.get(what, (0, 0))
        self._counts[what] = before[0] + int(count), before[1] + int(of)

    def check_known(self, missing: str) -> None:
        """Raise `DataError` if something was not read that has to be known."""
        weights, of = self._counts.get("weights", (0, 0))
        if weights and missing == "refuse":
            raise DataError(
                f'{weights:,} of {of:,} weights have no read: name what they become, with missing="zero" or '
                'missing="written"'
            )
        symbols, of = self._counts.get("symbols", (0, 0))
        if symbols and missing != "written":
            raise DataError(
                f"{symbols:,} of {of:,} symbols of sign and class bits have no read, and the model takes these bits "
                'from its cells: give missing="written" to take what was written'
            )

    def question_unit(self) -> None:
        """Warn where most cells read something else than what was written."""
        far, of = self._counts.get("far", (0, 0))
        if 2 * far > of:
            logger.warning(
                "%s of %s cells read more than %g σ from what was written: is the unit right, and are the reads of "
                "this model?",
                f"{far:,}",
                f"{of:,}",
                FAR,
            )

    def irregularities(self, missing: str) -> tuple[Irregularity, ...]:
        handling = {**_HANDLING, "weights": _OF_MISSING[missing]}
        return tuple(
            Irregularity(words, *self._counts[what], handling[what])
            for what, words in _WORDS.items()
            if self._counts.get(what, (0, 0))[1]
        )


_WORDS = {
    "time": "rows of other times",
    "stuck": "rows of cells that are marked as stuck",
    "empty": "rows without a number",
    "order": "rows that are not in the order of addresses",
    "absent": "rows of cells that the image does not hold",
    "repeated": "cells with more than one read",
    "unread": "cells without a read",
    "fewer": "weights with reads of some cells only",
    "weights": "weights without a read",
    "outside": "cells that read outside the output range",
    "far": f"cells that read more than {FAR:g} σ from what was written",
    "wrong": "symbols of error-free streams that are read wrongly",
    "errors": "symbols of sign and class bits that are read wrongly",
    "symbols": "symbols of sign and class bits without a read",
}
_HANDLING = {
    **dict.fromkeys(("time", "stuck", "empty", "absent"), "left out"),
    "order": "sorted",
    "repeated": "averaged",
    "unread": "left out",
    "fewer": "mean of the others",
    "outside": "used as read",
    "far": "used as read",
    "wrong": "taken as written",
    "errors": "used as read",
    "symbols": "taken as written",
}
_OF_MISSING = {"refuse": "refused", "zero": "read as zero", "written": "taken as written"}


# ---------------------------------------------------------------------------------------------------------- rows


def _taken(reads: Reads, rows: Array) -> Reads:
    """Return some of the rows."""
    names = ("address", "value", "count", "time_s", "stuck", "block", "reference")
    columns = {name: getattr(reads, name) for name in names}
    return replace(reads, **{name: values[rows] for name, values in columns.items() if values is not None})


def _at_time(reads: Reads, time_s: float | None, log: _Log) -> tuple[Reads, float | None]:
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


def _scaled(reads: Reads, image: Image) -> Reads:
    """Return reads on the scale of levels, of values in the device's unit."""
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
    return replace(reads, value=device.scaled(reads.value), reference=reference)


def _usable(reads: Reads, log: _Log) -> Reads:
    """Return the rows that hold a number and are not of stuck cells."""
    stuck = np.zeros(len(reads), np.bool_) if reads.stuck is None else reads.stuck.astype(np.bool_)
    with np.errstate(over="ignore"):
        empty = ~np.isfinite(reads.value.astype(np.float32)) & ~stuck  # in which levels are decoded
    log.add("stuck", stuck.sum(), len(reads))
    log.add("empty", empty.sum(), len(reads))
    return _taken(reads, ~(stuck | empty))


# --------------------------------------------------------------------------------------------------- calibration


def _calibrated(reads: Reads) -> tuple[Reads, tuple[Calibration, ...]]:
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
class _Cells:
    """The mean read of each address, NaN where there is none; and how many reads were used."""

    mean: Array
    used: int

    @staticmethod
    def of(reads: Reads, image: Image, log: _Log) -> _Cells:
        """Average the reads of each cell."""
        address = reads.address
        wrong = address[(address < 0) | (address >= image.total)]
        if wrong.size:
            raise DataError(
                f"{reads.name}: address {wrong[0]} is outside the array, whose addresses are 0 to "
                f"{image.total - 1:,}: are the reads of another image?"
            )
        log.add("order", np.count_nonzero(np.diff(address) < 0), len(reads))
        held = np.zeros(image.total, np.bool_)
        for plane in image.planes:
            held[plane.first : plane.end] = True
        log.add("absent", np.count_nonzero(~held[address]), len(reads))
        reads = _taken(reads, held[address])
        rows = np.bincount(reads.address, minlength=image.total)
        log.add("repeated", np.count_nonzero(rows > 1), image.cells)
        log.add("unread", np.count_nonzero(rows[held] == 0), image.cells)
        weight = np.ones(len(reads)) if reads.count is None else reads.count.astype(np.float64)
        total = np.bincount(reads.address, weight, image.total)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(reads.address, weight * reads.value, image.total) / total
        return _Cells(mean, int(weight.sum()))

    def of_plane(self, plane: Plane, log: _Log) -> Array:
        """Return the reads of a plane's cells; those that look wrong are counted."""
        mean = self.mean[plane.first : plane.end]
        low, high = plane.programming.channel.span
        log.add("outside", np.count_nonzero((mean < low - _ROUNDING) | (mean > high + _ROUNDING)), mean.size)
        std = np.repeat(plane.programming.std(plane.level), plane.cells)
        deviation = np.abs(mean - np.repeat(plane.level.astype(np.float64), plane.cells))
        log.add("far", np.count_nonzero(deviation > FAR * std + _ROUNDING), mean.size)
        return mean


def _averaged(reads: Array, starts: Array) -> tuple[Array, Array]:
    """Return the mean of the reads that are there, NaN if none is, and their number, of each level or symbol (m,)."""
    there = np.isfinite(reads)
    number = np.add.reduceat(there.astype(np.int64), starts)
    with np.errstate(invalid="ignore"):
        return np.add.reduceat(np.where(there, reads, 0.0), starts) / number, number


# -------------------------------------------------------------------------------------------------------- tensors


def _read_tensor(
    planes: Sequence[Plane], key: str, protected: ProtectedModel, cells: _Cells, missing: str, log: _Log
) -> TensorRead:
    tensor = next(tensor for tensor in protected.tensors if tensor.key == key)
    read = TensorRead(np.zeros(0, np.float32), np.zeros(0, np.float32))
    for plane in planes:
        if plane.name == "level":
            read = _read_levels(plane, cells, missing, log)
    for plane in planes:
        if plane.name != "level":
            sign, class_index = _read_symbols(plane, cells, log)
            if class_index is not None or sign is not None:
                read = replace(read, sign=sign, class_index=class_index)
    return _with_zeros(tensor, read)


def _read_levels(plane: Plane, cells: _Cells, missing: str, log: _Log) -> TensorRead:
    mean, number = _averaged(cells.of_plane(plane, log), plane.starts)
    log.add("fewer", np.count_nonzero((number > 0) & (number < plane.cells)), number.size)
    log.add("weights", np.count_nonzero(number == 0), number.size)
    raw = mean.astype(np.float32)
    level, unread = np.where(number > 0, raw, plane.level), number == 0
    correct = estimator(plane.tensor.scheme.estimator).fitted(plane.tensor.written(plane.tensor.scheme))
    if correct is not None:
        correct(level, slice(0, level.size))
    level[unread] = np.nan if missing == "zero" else plane.level[unread]
    return TensorRead(raw, level)


def _with_zeros(tensor: StoredTensor, read: TensorRead) -> TensorRead:
    """Return the tensor with levels that decode to 0 in its classes as they were read, where none was read."""
    unread = np.isnan(read.level)
    if not unread.any():
        return read
    written = tensor.written(tensor.scheme)
    if read.class_index is not None:
        written = replace(written, class_index=read.class_index)
    return replace(read, level=np.where(unread, -written.of_each(tensor.beta), read.level))


def _read_symbols(plane: Plane, cells: _Cells, log: _Log) -> tuple[Bits | None, Bytes | None]:
    """Return signs and classes as cells return them; None where the scheme takes them to be free of error."""
    tensor, side = plane.tensor, plane.side
    assert side is not None
    reads = cells.of_plane(plane, log).reshape(-1, side.copies, side.cells)
    bits, unread = _decided(reads, side)
    written = to_gray(plane.symbol.astype(np.int64), side.bits_per_cell)
    wrong = (bits != written).any(axis=1) & ~unread
    analog = tensor.scheme.side is not None
    log.add("errors" if analog else "wrong", wrong.sum(), np.count_nonzero(~unread))
    if not analog:
        return None, None
    log.add("symbols", unread.sum(), unread.size)
    bits = np.where(unread[:, None], written, bits)
    stored = side_bits(tensor, tensor.scheme)
    return from_side_bits(tensor, tensor.scheme, bits.reshape(-1)[: stored.size].reshape(stored.shape))


def _decided(reads: Array, side: SideInformation) -> tuple[Bits, Bits]:
    """Return the bits (m, b) of symbols by the majority of their copies, and which symbols (m,) have no read.

    Where as many copies say 1 as 0, which takes copies without a read, the mean read of all copies decides.
    """
    there = np.isfinite(reads)
    number = there.sum(axis=2)
    with np.errstate(invalid="ignore"):
        mean = np.where(there, reads, 0.0).sum(axis=2) / number
    order, thresholds = _thresholds(side)
    votes = np.zeros((len(reads), side.bits_per_cell), np.int64)
    for copy in range(side.copies):
        symbol = order[np.searchsorted(thresholds, np.nan_to_num(mean[:, copy]))]
        votes += np.where(number[:, copy, None] > 0, 2 * to_gray(symbol, side.bits_per_cell).astype(np.int64) - 1, 0)
    with np.errstate(invalid="ignore"):
        every = np.where(there, reads, 0.0).sum(axis=(1, 2)) / number.sum(axis=1)
    by_mean = to_gray(order[np.searchsorted(thresholds, np.nan_to_num(every))], side.bits_per_cell)
    return np.where(votes == 0, by_mean, votes > 0).astype(np.bool_), (number == 0).all(axis=1)


def _thresholds(side: SideInformation) -> tuple[Array, Array]:
    """Return symbols in the order of their mean reads, and the reads between which each is decided."""
    mean, std = side.channel.moments(side.levels, cells=side.cells)
    order = np.argsort(mean, kind="stable")
    return order, crossings(mean[order], np.maximum(std[order], 1e-12))
