"""CSV files of measured pairs, read column by column: UTF-8, a header line, and # before a comment."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles
from onnx_analog.disk import kinds
from onnx_analog.disk.reading import MIB, size_of
from onnx_analog.display import counted
from onnx_analog.errors import ChannelError, MeasurementError

_CSV_LIMIT = 64 * MIB
_MOST_ROWS = 1_000_000


MISSING = ("", "nan", "na", "n/a", "null")  # what stands in a cell without a value, in small letters


def read_columns(
    path: Path, names: Sequence[str], *, positive: str | None = None, unless: Sequence[str] = ()
) -> list[Doubles]:
    """Return columns of a CSV file as float arrays of shape (rows,); that called `positive` must be above 0.

    Rows without a value in one of the columns `unless` are left out.

    Raises
    ------
    MeasurementError
        If the file or a column is missing, a line has another number of cells than the header, a cell is no finite
        number or not positive, or there is more than 64 MiB, 1,000,000 rows, or 1 MiB in a line.
    """
    values = (
        _number(cell, name, f"{str(path)!r}, line {line}", positive=name == positive)
        for line, cells in _rows(path, names, unless)
        for name, cell in zip(names, cells, strict=True)
    )
    columns = np.fromiter(values, np.float64).reshape(-1, len(names)).T
    if not columns.size:
        raise MeasurementError(f"{str(path)!r} has no rows")
    return list(columns)


def read_labels(path: Path, name: str, *, unless: Sequence[str] = ()) -> NDArray[np.intp]:
    """Return one column of a CSV file, distinct texts numbered in their order (rows,); otherwise as `read_columns`."""
    numbers: dict[str, int] = {}
    labels = []
    for line, (label,) in _rows(path, [name], unless):
        if not label:
            raise MeasurementError(f"{str(path)!r}, line {line}: column {name!r} is empty. {_SKIP}")
        labels.append(numbers.setdefault(label, len(numbers)))
    ranks = {number: rank for rank, (_, number) in enumerate(sorted(numbers.items()))}
    return np.array([ranks[number] for number in labels], np.intp)  # the same, however the rows are ordered


_SKIP = "With skip_missing, such rows are left out"


def count_missing(path: Path, names: Sequence[str]) -> int:
    """Return the number of rows without a value in one of the columns."""
    return sum(_lacks(cells) for _, cells in _rows(path, names))


def _lacks(cells: Sequence[str]) -> bool:
    return any(cell.lower() in MISSING for cell in cells)


def _rows(path: Path, names: Sequence[str], unless: Sequence[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line below the header of a CSV file, and its cells in the columns `names`.

    Lines without a value in one of the columns `unless` are left out.
    """
    if len(set(names)) < len(names):
        raise ChannelError(f"{str(path)!r}: input and output are both column {names[0]!r}")
    lines = _lines(path)
    _, header = next(lines, (0, []))
    if not any(header):
        raise MeasurementError(f"{str(path)!r} names no columns: it needs a header line, and rows of numbers below it")
    _check_header(path, header, [*names, *unless])
    columns, needed = ([header.index(name) for name in each] for each in (names, unless))
    for count, (line, cells) in enumerate(lines):
        if count == _MOST_ROWS:
            raise MeasurementError(
                f"{str(path)!r} has more than {_MOST_ROWS:,} rows: fit a part of them, drawn at random"
            )
        if len(cells) != len(header):
            raise MeasurementError(
                f"{str(path)!r}, line {line} has {counted(len(cells), 'value')}, and the header names "
                f"{counted(len(header), 'column')}: mend or delete the line"
            )
        if not _lacks([cells[column] for column in needed]):
            yield line, [cells[column] for column in columns]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line, but for those that are empty or start with #."""
    size = size_of(path, error=ChannelError)
    kinds.check(path, kinds.CSV, MeasurementError)
    if size > _CSV_LIMIT:
        raise MeasurementError(f"{str(path)!r} has {size:,} bytes, more than the {_CSV_LIMIT:,} that are read")
    line = 0
    try:
        with path.open(encoding="utf-8-sig") as file:  # a byte order mark is passed over
            for line, text in enumerate(file, 1):
                if len(text) > MIB:
                    raise MeasurementError(f"{str(path)!r}, line {line} has more than {MIB:,} characters")
                if text.strip() and not text.startswith("#"):
                    (cells,) = csv.reader([text], skipinitialspace=True, strict=True)
                    yield line, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise MeasurementError(f"{str(path)!r}, line {line} is not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise MeasurementError(f"{str(path)!r} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise MeasurementError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _check_header(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if header.count(name) != 1:
            several = "more than one" if name in header else "no"
            known = ", ".join(header)
            hint = ". Part columns by commas." if ";" in known or "\t" in known else ""
            raise ChannelError(f"{str(path)!r} has {several} column {name!r}; its columns are {known}{hint}")


def _number(cell: str, name: str, where: str, *, positive: bool) -> float:
    try:
        plain = cell.isascii() and "_" not in cell  # Python takes 1_000 for a thousand, and digits of other scripts
        number = float(cell if plain else "no number")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = f"holds {cell[:40]!r}, which is not a finite number" if cell else "is empty"
        remedy = f". {_SKIP}" * (cell.lower() in MISSING)
        raise MeasurementError(f"{where}: column {name!r} {shown}{remedy}")
    if positive and number <= 0:
        raise MeasurementError(f"{where}: column {name!r} holds {cell[:40]}, which has no logarithm")
    return number
