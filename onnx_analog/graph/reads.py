"""Reads of an array outside this program: files of addresses and values.

A file is CSV or npz. Columns (docs/real_array.md describes them):

    address    of the cell                            value      what was read
    count      reads that the value is the mean of    time_s     when it was read
    stuck      1 if the cell is known to be stuck     block      what is calibrated together
    reference  what a reference cell should read, in the unit of the value; empty or NaN for cells of the image
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.disk import kinds
from onnx_analog.disk.reading import MIB, incomplete, size_of
from onnx_analog.display import Progress, counted, silent
from onnx_analog.errors import DataError, brief, require_path

Array = NDArray[Any]

LARGEST = 2048 * MIB  # of a file, and of its arrays
MOST_ROWS = 2**27
_NEEDED = ("address", "value")
COLUMNS = (*_NEEDED, "count", "time_s", "stuck", "block", "reference")
_WHOLE = ("address", "count", "stuck", "block")
_OF_IMAGES = (  # other columns of an image, which a file may keep: they say nothing of what was read
    "tensor", "plane", "index", "replica", "polarity", "symbol", "level", "input", "input_device", "level_device",
)  # fmt: skip
_OF_TEXT = ("tensor", "plane")
_HEAD = ("format", "tensors", "planes", "parts")  # likewise
_CHUNK = 2**14  # rows that are made numbers at once
_BREAK = re.compile("\r\n|\r|\n")


@dataclass(frozen=True, eq=False)
class Reads:
    """Rows of reads, in the order of the file.

    Attributes
    ----------
    address : int64 array of shape (n,)
    value : float64 array of shape (n,)
        NaN where nothing was read.
    count, stuck, block : int64 arrays of shape (n,), or None
    time_s, reference : float64 arrays of shape (n,), or None
    image : str or None
        The digest of the image that was written, if the file has it.
    name : str
        Of the file, for messages.

    Raises
    ------
    DataError
        If columns differ in length, there is no row, a count is below 1, stuck is neither 0 nor 1, a time is not
        finite, or a reference is infinite.
    """

    address: Array
    value: Array
    count: Array | None = None
    time_s: Array | None = None
    stuck: Array | None = None
    block: Array | None = None
    reference: Array | None = None
    image: str | None = None
    name: str = "reads"

    def __post_init__(self) -> None:
        rows = len(self.address)
        for name in COLUMNS:
            column = getattr(self, name)
            if column is not None and column.shape != (rows,):
                raise DataError(
                    f"{self.name}: {name!r} has shape {column.shape}, and address {self.address.shape}: one entry for "
                    "each row is needed"
                )
        if not rows:
            raise DataError(f"{self.name} has no rows")
        if self.count is not None and self.count.min() < 1:
            raise DataError(f"{self.name}: a count is {self.count.min()}; it must be 1 or more")
        if self.stuck is not None and not np.isin(self.stuck, (0, 1)).all():
            raise DataError(f"{self.name}: stuck holds numbers other than 0 and 1")
        if self.time_s is not None and not np.isfinite(self.time_s).all():
            raise DataError(f"{self.name}: a time is not finite")
        if self.reference is not None and np.isinf(self.reference).any():
            raise DataError(f"{self.name}: a reference is infinite; leave it empty for cells of the image")

    def __len__(self) -> int:
        return len(self.address)


def reads_of(given: object, progress: Progress = silent) -> Reads:
    """Return reads: as they are, of a file, or of a mapping of the columns' names to arrays.

    `progress` is told which share of a CSV file is read.

    Raises
    ------
    DataError
        If the file or a column is missing, is not known, or holds something else.
    OptionError
        If `given` is none of these.
    """
    if isinstance(given, Reads):
        return given
    if isinstance(given, Mapping):
        return _from_arrays({str(name): np.asarray(values) for name, values in given.items()}, "measured")
    path = require_path("measured", given)
    size = size_of(path, error=DataError)
    if size > LARGEST:
        raise DataError(f"{str(path)!r} has {size:,} bytes, more than the {LARGEST:,} that are read")
    if path.suffix not in (".npz", ".csv"):
        raise DataError(f"{str(path)!r} must end with .npz or .csv, which tells how it is read")
    kinds.check(path, kinds.NPZ if path.suffix == ".npz" else kinds.CSV, DataError)
    try:
        return _load_npz(path) if path.suffix == ".npz" else _load_csv(path, size, progress)
    except MemoryError:
        raise DataError(f"{str(path)!r}: there is not enough memory to read it") from None


# ------------------------------------------------------------------------------------------------------- arrays


def _from_arrays(arrays: Mapping[str, Array], name: str) -> Reads:
    _check_columns(arrays, (*_HEAD, "image"), name)
    columns = {column: _column(column, values, name) for column, values in arrays.items() if column in COLUMNS}
    value = columns["value"]
    if value.ndim == 2:  # several reads of each cell
        columns = {
            column: np.repeat(values, value.shape[1]) if values.ndim == 1 else values.reshape(-1)
            for column, values in columns.items()
        }
    image = arrays.get("image")
    return Reads(**columns, image=None if image is None else str(image), name=name)


def _check_columns(names: Mapping[str, Any] | list[str], others: tuple[str, ...], where: str) -> None:
    for name in _NEEDED:
        if name not in names:
            raise DataError(f"{where} has no column {name!r}: it needs address and value")
    for name in names:
        if name not in (*COLUMNS, *_OF_IMAGES, *others):
            raise DataError(f"{where}: column {name[:60]!r} is not known: choose from {', '.join(COLUMNS)}")


def _column(name: str, values: Array, where: str) -> Array:
    axes = (1, 2) if name == "value" else (1,)
    whole = name in _WHOLE
    if values.ndim not in axes or values.dtype.kind not in ("iub" if whole else "iuf"):
        kind = "whole numbers" if whole else "numbers"
        raise DataError(f"{where}: {name!r} is {values.dtype} of {values.ndim} axes; it must be {kind} of one axis")
    if values.size > MOST_ROWS:
        raise DataError(f"{where}: {name!r} has {values.size:,} values, more than the {MOST_ROWS:,} that are read")
    if whole and values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where}: {name!r} holds {values.max()}, which is too large")
    return values.astype(np.int64 if whole else np.float64)


def _load_npz(path: Path) -> Reads:
    where = repr(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if sum(member.file_size for member in members) > LARGEST:
                raise DataError(f"{where}: its arrays take more than the {LARGEST:,} bytes that are read")
            arrays = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    arrays[name] = _array(file, member.file_size)
    except zipfile.BadZipFile as error:
        raise DataError(incomplete(path) or f"{where} cannot be read as npz: {error}") from error
    except (zlib.error, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{where} cannot be read as npz: {error}") from error
    return _from_arrays(arrays, where)


def _array(file: IO[bytes], size: int) -> Array:
    """Return one array; nothing is allocated beyond the bytes that the archive has for it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    count = math.prod(shape)
    if dtype.hasobject or count * dtype.itemsize > size:
        raise ValueError("an array holds objects, or is longer than the file says")
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    if flat.size != count:
        raise ValueError("an array is cut off")
    return flat.reshape(shape, order="F" if fortran else "C")


# ---------------------------------------------------------------------------------------------------------- CSV


def _load_csv(path: Path, size: int, progress: Progress) -> Reads:
    where = repr(str(path))
    try:
        with path.open("rb") as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
            return _from_lines(file, where, lambda: progress("CSV file", binary.tell() / size))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} cannot be read as CSV: {error}") from error


def _from_lines(file: IO[str], where: str, advance: Callable[[], None]) -> Reads:
    image, line = None, 0
    for text in file:
        line += 1
        if not text.startswith("#") and text.strip():
            break
        if text.startswith("# image "):
            image = text.removeprefix("# image ").strip()
    else:
        raise DataError(f"{where} has no header line")
    header = [name.strip() for name in next(csv.reader([text]))]
    if len(set(header)) != len(header):
        raise DataError(f"{where}: two columns have the same name")
    _check_columns(header, (), where)
    positions = {name: header.index(name) for name in COLUMNS if name in header}
    parts: dict[str, list[Array]] = {name: [] for name in positions}
    for lines, rows in _chunks(file, header, line, where):
        for name, position in positions.items():
            parts[name].append(_numbers(name, [cells[position] for cells in rows], lines, where))
        advance()
        if sum(map(len, parts["address"])) > MOST_ROWS:
            raise DataError(f"{where} has more than the {MOST_ROWS:,} rows that are read")
    if not any(map(len, parts["address"])):
        raise DataError(f"{where} has no rows")
    return Reads(**{name: np.concatenate(part) for name, part in parts.items()}, image=image, name=where)


def _chunks(
    file: IO[str], header: list[str], before: int, where: str
) -> Iterator[tuple[Sequence[int], list[list[str]]]]:
    """Yield the cells of some rows, all of the header's length, and the line on which each row ends."""
    reader, named = csv.reader(file), header[0] in _OF_TEXT  # a name may begin like a remark
    line = before
    while rows := list(islice(reader, _CHUNK)):
        lines: Sequence[int] = range(line + 1, line + 1 + len(rows))
        line = before + reader.line_num
        if line != lines[-1]:  # cells have line breaks
            breaks = (sum(len(_BREAK.findall(cell)) for cell in cells) for cells in rows)
            lines = [first + more for first, more in zip(lines, accumulate(breaks), strict=True)]
        remarks = not named and any(cells and cells[0].startswith("#") for cells in rows)
        if remarks or set(map(len, rows)) != {len(header)}:
            kept = [index for index, cells in enumerate(rows) if cells and (named or not cells[0].startswith("#"))]
            lines, rows = [lines[index] for index in kept], [rows[index] for index in kept]
            _check_lengths(lines, rows, header, where)
        yield lines, rows


def _check_lengths(lines: Sequence[int], rows: list[list[str]], header: list[str], where: str) -> None:
    for line, cells in zip(lines, rows, strict=True):
        if len(cells) != len(header):
            raise DataError(
                f"{where}, line {line} has {counted(len(cells), 'value')}, and the header names "
                f"{counted(len(header), 'column')}: mend or delete the line"
            )


def _numbers(name: str, texts: list[str], lines: Sequence[int], where: str) -> Array:
    """Return a column; all texts are made numbers at once, and looked at one by one only if that fails."""
    whole = name in _WHOLE
    try:
        return np.array(_as_numbers(texts, whole), np.int64 if whole else np.float64)
    except (ValueError, OverflowError):
        line, text = next(each for each in zip(lines, texts, strict=True) if not _is_number(each[1], whole))
        kind = "a whole number" if whole else "a number, or empty"
        raise DataError(f"{where}, line {line}: {name!r} is {brief(text[:40])}; it must be {kind}") from None


def _as_numbers(texts: list[str], whole: bool) -> list[float]:
    together = "".join(texts)
    if "_" in together or not together.isascii():  # Python takes 1_000 for a thousand, and digits of other scripts
        raise ValueError
    if whole:
        return list(map(int, texts))
    return [float(text.strip() or math.nan) for text in texts]


def _is_number(text: str, whole: bool) -> bool:
    try:
        (number,) = _as_numbers([text], whole)
        return abs(number) < 2**63 or not whole
    except (ValueError, OverflowError):
        return False
