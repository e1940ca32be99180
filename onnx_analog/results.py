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
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import filelock

from onnx_analog import files
from onnx_analog.errors import OutputError

Row = dict[str, Any]

TRIALS, PARQUET, POINTS, CONSTANTS, LOCK = "trials.csv", "trials.parquet", "points.csv", "sweep.json", ".lock"
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
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._lock.release()

    def _check(self) -> None:
        path = self._path / CONSTANTS
        if not path.exists():
            if (self._path / TRIALS).exists():
                raise OutputError(f"{str(self._path / TRIALS)!r} is of no sweep: name another folder with --out")
            text = json.dumps(self._constants, indent=2, ensure_ascii=False) + "\n"
            files.write_all({path: files.write_text(text)})
            return
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read {str(path)!r}: {error}") from error
        mine = json.loads(json.dumps(self._constants))
        for name in {**mine, **there}:
            if mine.get(name) != there.get(name):
                raise OutputError(
                    f"{str(self._path)!r} holds a sweep with {name} {there.get(name)!r}, and this one has "
                    f"{mine.get(name)!r}: name another folder with --out"
                )

    def read(self) -> list[Row]:
        """Return the rows that are there, as text, without their constants; half a row at the end is cut off."""
        path = self._path / TRIALS
        if not path.exists():
            return []
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        reader = csv.DictReader(io.StringIO(whole.decode("utf-8"), newline=""))
        self._columns = list(reader.fieldnames or [])
        return [{name: value for name, value in row.items() if name not in self._constants} for row in reader]

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
            self._columns = [*rows[0], *self._constants]
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

    def finish(self, rows: Sequence[Row], points: Sequence[Row]) -> None:
        """Write all rows in their order, in place of those that came as they ended, and the points."""
        writers: dict[Path, files.Writer] = {}
        if rows:
            whole = [{**row, **self._constants} for row in rows]
            writers[self._path / TRIALS] = _csv_writer(whole)
            if can_parquet():
                writers[self._path / PARQUET] = _parquet_writer(whole)
        if points:
            writers[self._path / POINTS] = _csv_writer(points)
        files.write_all(writers, force=True)


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
    """Return what stands in a CSV: lists as JSON, no value as nothing."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value


def _csv_writer(rows: Sequence[Row]) -> files.Writer:
    text = _line(rows[0]) + "".join(_line(_word(value) for value in row.values()) for row in rows)
    return files.write_text(text)


def _parquet_writer(rows: Sequence[Row]) -> files.Writer:
    def write(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        columns = {name: [_word(row[name]) for row in rows] for name in rows[0]}
        parquet.write_table(pyarrow.table(columns), path)

    return write
