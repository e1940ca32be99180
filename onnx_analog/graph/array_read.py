"""What an array returned, made into levels, signs and classes: the reads of a file take the place of a channel.

Rows are scaled, calibrated if there are reference cells, put in the order of addresses and averaged. Digital streams
are decided by the thresholds of the channel and decoded by their codes; what then fails is lost as in a trial. Nothing
irregular is passed over in silence: each kind is counted in `ArrayRead.irregularities`. What cannot be known is
refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.arguments import Arguments
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.failures import Run
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.streams import codebook_bits
from onnx_analog.display import counted
from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph.array_cells import Calibration, Cells, at_time, averaged, calibrated, scaled, usable
from onnx_analog.graph.array_streams import Found, StreamRead, read_side_plane, read_stream
from onnx_analog.graph.image import Plane, image_of
from onnx_analog.graph.irregular import Irregularity, Log
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import from_side_bits, lost_with, without_lost
from onnx_analog.graph.reads import Reads
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.settings import settings_of

Array = NDArray[Any]

NO_UNIT = 'unit is not given: say unit="scaled" (the scale of levels) or unit="device"'


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
        As they were read; None where they are those that were written, or there are none.
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
    streams : tuple of StreamRead
        How digital streams, and analog side information, were read.
    calibration : tuple of Calibration
        One for each block; empty without reference cells.
    reads : int
        That were used.
    time_s : float or None
        When they were made, if the file says so.
    """

    tensors: dict[str, TensorRead]
    irregularities: tuple[Irregularity, ...]
    streams: tuple[StreamRead, ...]
    calibration: tuple[Calibration, ...]
    reads: int
    time_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return all but the levels, ready for JSON."""
        return {
            "reads": self.reads,
            "time_s": self.time_s,
            "irregularities": [asdict(each) for each in self.irregularities],
            "streams": [asdict(each) for each in self.streams],
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
    log = Log()
    reads, time = at_time(reads, time_s, log)
    if unit == "device":
        reads = scaled(reads, image, log)
    reads, calibration = calibrated(usable(reads, log))
    cells = Cells.of(reads, image, log)
    found = {id(plane): read_stream(plane, cells, missing, log) for plane in image.planes if plane.stream is not None}
    of_tensors = _by_tensor(protected, found.values())
    tensors, streams = {}, [each.counts for each in found.values()]
    for tensor in protected.by_key.values():
        planes = [plane for plane in image.planes if plane.tensor is not None and plane.tensor.key == tensor.key]
        tensors[tensor.key], side = _read_tensor(tensor, planes, of_tensors[tensor.key], cells, missing, log)
        streams += side
    absent = sum(each.bits for each in image.absent)
    log.add("absent", absent, absent + sum(each.bits.size for each in found.values()))
    log.check_known(missing, unit)
    log.question_unit(unit)
    log.warn_of_lost()
    return ArrayRead(tensors, log.irregularities(missing), tuple(streams), calibration, cells.used, time)


def _check_choices(unit: str | None, missing: str) -> None:
    if unit is None:
        raise OptionError(NO_UNIT)
    for name, value in (("unit", unit), ("missing", missing)):
        declared, kind, _ = settings_of(Arguments)[name]
        declared.check(name, value, kind)


@dataclass(frozen=True)
class _OfTensor:
    """What the digital streams say of one tensor: by name, its bits as decoded, and the runs that are lost."""

    bits: dict[str, Bits]
    lost: dict[str, list[Run]]


def _by_tensor(protected: ProtectedModel, found: Iterable[Found]) -> dict[str, _OfTensor]:
    """Return what was found of each tensor; a codebook is that of all tensors that share it."""
    result = {tensor.key: _OfTensor({}, {}) for tensor in protected.tensors}
    for each in found:
        for share in each.stream.shares:
            of_tensor = result[share.key]
            of_tensor.bits[each.stream.kind.name] = each.bits[share.first : share.end]
            of_tensor.lost[each.stream.kind.name] = each.runs(share)
    owners = dict[int, list[Run]]()  # what is lost of α and β, with the first tensor that shares them
    for tensor in (tensor for tensor in protected.tensors if tensor.scheme.granularity == "model"):
        length, own = codebook_bits(tensor.scheme, len(tensor.alpha)), result[tensor.key].lost.get("codebook", [])
        of_owner = owners.setdefault(tensor.number, [run for run in own if run.start < length])
        result[tensor.key].lost["codebook"] = [*own, *(run for run in of_owner if run not in own)]
    return result


def _read_tensor(
    tensor: StoredTensor, planes: Sequence[Plane], digital: _OfTensor, cells: Cells, missing: str, log: Log
) -> tuple[TensorRead, list[StreamRead]]:
    """Return what was read of one tensor, and how its analog side information was."""
    read, counts = TensorRead(np.zeros(0, np.float32), np.zeros(0, np.float32)), []
    sign, class_index = _decoded(tensor, digital.bits)
    for plane in planes:
        if plane.name == "level":
            read = _read_levels(plane, tensor, cells, missing, log)
        else:
            bits, of_side = read_side_plane(plane, tensor, cells, log)
            sign, class_index = from_side_bits(tensor, tensor.scheme, bits)
            counts.append(of_side)
    gone = lost_with(tensor, tensor.scheme, digital.lost)
    number = np.count_nonzero(np.logical_or.reduce(list(gone.values()))) if gone else 0
    log.add("lost", number, tensor.count if digital.bits else 0)
    sign, class_index = without_lost(tensor, sign, class_index, gone.values())
    read = replace(read, sign=_unless(sign, tensor.sign), class_index=_unless(class_index, tensor.class_index))
    return _with_zeros(tensor, read), counts


def _decoded(tensor: StoredTensor, bits: Mapping[str, Bits]) -> tuple[Bits | None, Bytes | None]:
    """Return signs and classes by their own bits; what is entropy-coded is as written, or lost."""
    sign, index, width = tensor.sign, tensor.class_index, tensor.scheme.index_bits
    if sign is not None and "sign" in bits:
        sign = bits["sign"]
    if index is not None and "class" in bits and tensor.scheme.entropy == "none":
        packed = np.packbits(bits["class"].reshape(-1, width), axis=1)[:, 0] >> np.uint8(8 - width)
        index = np.minimum(packed, np.uint8(tensor.scheme.classes - 1))
    return sign, index


def _unless(read: Any, written: Any) -> Any:
    """Return an array, or None if it is the one that was written."""
    return None if read is None or np.array_equal(read, written) else read


def _read_levels(plane: Plane, tensor: StoredTensor, cells: Cells, missing: str, log: Log) -> TensorRead:
    mean, number = averaged(cells.of_plane(plane, log), plane.starts)
    log.add("fewer", np.count_nonzero((number > 0) & (number < plane.cells)), number.size)
    log.add("weights", np.count_nonzero(number == 0), number.size)
    raw = mean.astype(np.float32)
    level, unread = np.where(number > 0, raw, plane.level), number == 0
    correct = estimator(tensor.scheme.estimator).fitted(tensor.written(tensor.scheme))
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
        index = read.class_index if tensor.analog is None else read.class_index[tensor.analog]
        written = replace(written, class_index=index)
    return replace(read, level=np.where(unread, -written.of_each(tensor.beta), read.level))
