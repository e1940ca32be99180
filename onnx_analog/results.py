"""The folder of a sweep: one row for each trial, written as it ends, and all that is needed to go on or to repeat it.

    sweep.json      what is the same for all rows: models, data, seed, versions
    trials.csv      one row for each trial; sorted when the sweep ends, so that it is the same file however it was made
    trials.parquet  the same, where pyarrow is installed
    points.csv      one row for each point: mean, interval, cost
    .lock           held while a sweep writes

A process that is killed may leave half a row; it is cut off by the next one.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Self

import filelock

from onnx_analog import writing
from onnx_analog.errors import OutputError

Row = dict[str, Any]

TRIALS, PARQUET, POINTS, CONSTANTS, LOCK = "trials.csv", "trials.parquet", "points.csv", "sweep.json", ".lock"
_PIECE = 2**16  # bytes that are looked at at once for the end of a line
_GROUP = 2**16  # rows that Parquet keeps together
NO_PARQUET = "no Parquet: pyarrow is not installed (pip install 'onnx-analog[parquet]')"


class Folder:
    """The results of one sweep, held by one process; a context manager.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    constants : mapping
        What all rows share; they are the last columns of each.

    Raises
    ------
    OutputError
        If another sweep writes there, what is there is of another sweep, or nothing can be written.
    """

    def __init__(self, path: Path, constants: Mapping[str, Any]) -> None:
        self._path, self._constants = path, dict(constants)
        self._columns: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self._path / LOCK, timeout=0)
            self._lock.acquire()
        except filelock.Timeout:
            raise OutputError(
                f"another sweep writes to {str(self._path)!r}: wait for it, or name another folder with --out"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot write to {str(self._path)!r}: {error.strerror or error}") from error
        try:
            self._check()
            self._columns = _columns(self._path / TRIALS)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.release()

    def _check(self) -> None:
        path = self._path / CONSTANTS
        if not path.exists():
            for mine in (self._path / name for name in (TRIALS, PARQUET, POINTS)):
                if mine.exists():
                    raise OutputError(f"{str(mine)!r} is of no sweep: name another folder with --out")
            text = json.dumps(self._constants, indent=2, ensure_ascii=False) + "\n"
            writing.write_all({path: writing.write_text(text)})
            return
        try:
            there = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise OutputError(f"cannot read {str(path)!r}: {error}") from error
        mine = json.loads(json.dumps(self._constants))
        for name in {**mine, **there}:
            if mine.get(name) != there.get(name):
                raise OutputError(
                    f"{str(self._path)!r} holds a sweep with {name} {there.get(name)!r}, and this one has "
                    f"{mine.get(name)!r}: name another folder with --out"
                )

    def read(self) -> list[Row]:
        """Return what `stream` yields."""
        return list(self.stream())

    def stream(self) -> Iterator[Row]:
        """Yield the rows that are there, as text, without their constants."""
        path = self._path / TRIALS
        if not path.exists():
            return
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file, strict=True)
                for row in reader:
                    if None in row or None in row.values():
                        raise ValueError(f"line {reader.line_num} has not as many entries as there are columns")
                    yield {name: value for name, value in row.items() if name not in self._constants}
        except OSError as error:
            raise OutputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        except (ValueError, csv.Error) as error:
            raise OutputError(f"{str(path)!r} is damaged: {error}. Name another folder with --out") from error

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; all of them are on their way to the disk when this returns.

        Raises
        ------
        OutputError
            If they cannot be written: the disk is full, for example. Half a row may be there then.
        """
        path = self._path / TRIALS
        text = ""
        if not self._columns:
            self._columns = list({**rows[0], **self._constants})
            text = _line(self._columns)
        text += "".join(self._text(row) for row in rows)
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _write(file, text.encode("utf-8"))
            finally:
                os.close(file)
        except OSError as error:
            raise OutputError(
                f"cannot write {str(path)!r}: {error.strerror or error}. What is there is kept: make room and run the "
                "same command again"
            ) from error

    def _text(self, row: Row) -> str:
        whole = {**row, **self._constants}
        return _line([_word(whole[name]) for name in self._columns])

    def finish(self, rows: Iterable[Row], points: Sequence[Row]) -> None:
        """Write all rows in their order, in place of those that came as they ended, and the points.

        `rows` is gone through once for each file; it may make them anew each time.
        """
        writers: dict[Path, writing.Writer] = {}
        if any(True for _ in rows):
            whole = _Whole(rows, self._constants)
            writers[self._path / TRIALS] = _csv_writer(whole)
            if can_parquet():
                writers[self._path / PARQUET] = _parquet_writer(whole)
            else:
                (self._path / PARQUET).unlink(missing_ok=True)  # it is of fewer rows
        if points:
            writers[self._path / POINTS] = _csv_writer(points)
        writing.write_all(writers, force=True)


class _Whole:
    """Rows with their constants."""

    def __init__(self, rows: Iterable[Row], constants: Row) -> None:
        self._rows, self._constants = rows, constants

    def __iter__(self) -> Iterator[Row]:
        return ({**row, **self._constants} for row in self._rows)


def can_parquet() -> bool:
    """Return whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _line(words: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(words)
    return text.getvalue()


def _word(value: Any) -> Any:
    """Return what stands in a CSV: lists as JSON, text as one line, for a line is how half a row is told."""
    if isinstance(value, str):
        return " ".join(value.splitlines())
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value


def _columns(path: Path) -> list[str]:
    """Return the columns of a file of rows, after half a row at its end was cut off; none if it is not there."""
    if not path.exists():
        return []
    try:
        _cut(path)
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file, strict=True), [])
    except (OSError, csv.Error, ValueError) as error:
        raise OutputError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _cut(path: Path) -> None:
    """Cut off what stands after the last end of a line."""
    with path.open("r+b") as file:
        end = place = file.seek(0, os.SEEK_END)
        while place:
            start = max(place - _PIECE, 0)
            file.seek(start)
            found = file.read(place - start).rfind(b"\n")
            if found >= 0:
                place = start + found + 1
                break
            place = start
        if place < end:
            file.truncate(place)


def _csv_writer(rows: Iterable[Row]) -> writing.Writer:
    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            for number, row in enumerate(rows):
                if not number:
                    file.write(_line(row))
                file.write(_line(_word(value) for value in row.values()))

    return write


def _parquet_writer(rows: Iterable[Row]) -> writing.Writer:
    def write(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        made, left = None, iter(rows)
        while part := list(islice(left, _GROUP)):
            columns = {name: [_word(row[name]) for row in part] for name in part[0]}
            table = pyarrow.table(columns, schema=None if made is None else made.schema)
            made = made or parquet.ParquetWriter(path, table.schema)
            made.write_table(table)
        if made is not None:
            made.close()

    return write
