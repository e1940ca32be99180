"""The folder of a sweep: one row for each trial, written as it ends, and all that is needed to go on or to repeat it.

    sweep.json      what is the same for all rows: models, data, seed, versions
    trials.csv      one row for each trial; sorted when the sweep ends, so that it is the same file however it was made
    trials.parquet  the same, where pyarrow is installed
    points.csv      one row for each point: mean, interval, cost
    .lock           held while a sweep writes

A process that is killed may leave half a row; it is cut off by the next one.

What is there is trusted no more than it deserves: links and what else is no regular file are refused, each row must say
what its sweep.json says and match its own checksum, and lines have a longest length, so that a file of anything costs
little.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Self, TextIO

import filelock

from onnx_analog.disk import reading, transactions, writing
from onnx_analog.errors import OutputError

Row = dict[str, Any]

TRIALS, PARQUET, POINTS, CONSTANTS, LOCK = "trials.csv", "trials.parquet", "points.csv", "sweep.json", ".lock"
CONFIG, PLOT = "sweep.toml", "points.png"  # which the command line adds
CHECKSUM = "row_sha256"  # the last column of trials.csv
_HEX_DIGITS = 16  # of a checksum: 64 bits tell damage, and are not meant to stop forgery
LONGEST = 2**20  # characters of a line of trials.csv
_LARGEST = 16 * reading.MIB  # bytes of sweep.json
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
        self._cut = False  # whether half a row at the end was cut off: not before there is another to add

    def __enter__(self) -> Self:
        if not is_text(json.dumps(self._constants, ensure_ascii=False)):
            raise OutputError(f"a name is not UTF-8, and {CONSTANTS} cannot hold it: rename the file")
        with ExitStack() as undo:
            undo.enter_context(writing.new_folder(self._path))
            for name in (LOCK, CONSTANTS, TRIALS, PARQUET, POINTS, CONFIG, PLOT):
                _check_regular(self._path / name)
            undo.callback(self._release, self._acquire())
            transactions.recover([self._path])  # before an earlier sweep's rows are read
            self._check()
            self._columns = _columns(self._path / TRIALS)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._undo.__exit__(*error)

    def _acquire(self) -> filelock.BaseFileLock:
        lock = filelock.FileLock(self._path / LOCK, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise OutputError(
                f"another sweep writes to {str(self._path)!r}: wait until it ends, or choose another folder with --out"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot write to {str(self._path)!r}: {error.strerror or error}") from error
        return lock

    def _release(self, lock: filelock.BaseFileLock) -> None:
        if not (self._path / CONSTANTS).exists():  # nothing was computed, so nothing is left
            with suppress(OSError):
                (self._path / LOCK).unlink()
        lock.release()

    def _check(self) -> None:
        path = self._path / CONSTANTS
        if not path.exists():
            for mine in (self._path / name for name in (TRIALS, PARQUET, POINTS, CONFIG, PLOT)):
                if mine.exists():
                    raise OutputError(f"{str(mine)!r} was not written by a sweep: choose another folder with --out")
            return
        text = reading.read_text(path, limit=_LARGEST, error=OutputError)
        try:
            there = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise OutputError(f"cannot read {str(path)!r}: {why}. Choose another folder with --out") from error
        mine = json.loads(json.dumps(self._constants))
        for name in {**mine, **there}:
            if json.dumps(mine.get(name)) != json.dumps(there.get(name)):  # false is not 0
                raise OutputError(
                    f"{str(self._path)!r} holds a sweep with {name} {there.get(name)!r}, and this one has "
                    f"{mine.get(name)!r}: choose another folder with --out"
                )

    def _write_constants(self) -> None:
        """Say whose folder it is, before anything else is in it."""
        path = self._path / CONSTANTS
        if not path.exists():
            text = json.dumps(self._constants, indent=2, ensure_ascii=False) + "\n"
            writing.write_all({path: writing.write_text(text)})

    def read(self) -> list[Row]:
        """Return what `stream` yields."""
        return list(self.stream())

    def stream(self) -> Iterator[Row]:
        """Yield the rows that are there, as text, without their constants and checksums."""
        yield from (row for _, row in self._numbered())

    def each(self, take: Callable[[Row], None]) -> None:
        """Call a function with each row; where it raises ValueError, the row is damaged.

        Raises
        ------
        OutputError
            If a row is damaged: it says which, and why.
        """
        for line, row in self._numbered():
            try:
                take(row)
            except ValueError as error:
                raise self._damaged(line, error) from error

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        path = self._path / TRIALS
        if not path.exists():
            return
        same = dict(zip(self._constants, next(csv.reader([_line(map(_word, self._constants.values()))])), strict=True))
        lines = _Lines()
        try:
            with open(_descriptor(path, os.O_RDONLY), newline="", encoding="utf-8") as file:
                reader = csv.reader(lines.of(file), strict=True)
                columns = next(reader, [])
                _check_columns(columns, same)
                checksum = Checksum(columns[:-1])
                for words in reader:
                    yield lines.number, _row(columns, words, same, checksum)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        except (ValueError, csv.Error) as error:
            raise self._damaged(lines.number, error) from error

    def _damaged(self, line: int, error: Exception) -> OutputError:
        path = self._path / TRIALS
        remedy = "Delete the line" if line > 1 else "Restore it"  # the first has the names of all columns
        return OutputError(
            f"line {line:,} of {str(path)!r} is not a row of this sweep: {error}. {remedy}, or choose another "
            "folder with --out"
        )

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; all of them are on their way to the disk when this returns.

        Raises
        ------
        OutputError
            If they cannot be written: the disk is full, for example. Half a row may be there then.
        """
        path = self._path / TRIALS
        text = ""
        self._write_constants()
        if not self._columns:
            self._columns = [*{**rows[0], **self._constants}, CHECKSUM]
            text = _line(self._columns)
        if set(self._columns) != {*rows[0], *self._constants, CHECKSUM} or self._columns[-1] != CHECKSUM:
            raise OutputError(f"{str(path)!r} has other columns than this sweep: choose another folder with --out")
        checksum = Checksum(self._columns[:-1])
        text += "".join(_line(checksum.with_it(self._words(row))) for row in rows)
        try:
            if not self._cut and path.exists():
                _cut(path)
            self._cut = True
            file = _descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                _write(file, text.encode("utf-8"))
            finally:
                os.close(file)
        except OSError as error:
            raise OutputError(
                f"cannot write {str(path)!r}: {error.strerror or error}. Completed trials are kept: free some "
                "space, then run the same command again"
            ) from error

    def _words(self, row: Row) -> list[Any]:
        whole = {**row, **self._constants}
        return [_word(whole[name]) for name in self._columns[:-1]]

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
        self._write_constants()
        writing.write_all(writers, force=True)


class _Whole:
    """Rows with their constants and checksums."""

    def __init__(self, rows: Iterable[Row], constants: Row) -> None:
        self._rows, self._constants = rows, constants

    def __iter__(self) -> Iterator[Row]:
        checksum = None
        for row in self._rows:
            whole = {**row, **self._constants}
            checksum = checksum or Checksum(list(whole))
            yield {**whole, CHECKSUM: checksum.of([_word(value) for value in whole.values()])}


class Checksum:
    """The checksum of rows: of the names of their columns and what stands in them, so that no digit changes unseen."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._names = hashlib.sha256(_line(columns).encode())

    def of(self, words: Iterable[Any]) -> str:
        """Return the checksum of a row."""
        digest = self._names.copy()
        digest.update(_line(words).encode())
        return digest.hexdigest()[:_HEX_DIGITS]

    def with_it(self, words: Sequence[Any]) -> list[Any]:
        """Return a row and, last, its checksum."""
        return [*words, self.of(words)]


def is_text(text: str) -> bool:
    """Return whether UTF-8 has `text`: names of files may hold bytes that are no text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_regular(path: Path) -> None:
    """Raise `OutputError` if what is at `path` is a link, or otherwise no regular file."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OutputError(
                f"{str(path)!r} is a link, a folder or a device, and a sweep writes to regular files only: choose "
                "another folder with --out"
            )


def _descriptor(path: Path, flags: int) -> int:
    """Open a regular file; a link is not followed."""
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OutputError(f"{str(path)!r} is not a regular file: choose another folder with --out")
    return file


class _Lines:
    """The lines of a file, and the number of the last one that was read."""

    number = 0

    def of(self, file: TextIO) -> Iterator[str]:
        """Yield the lines but for half a row at the end; one that is too long is a ValueError."""
        while line := file.readline(LONGEST + 1):
            self.number += 1
            if len(line) > LONGEST:
                raise ValueError(f"it is longer than {LONGEST:,} characters")
            if line.endswith("\n"):
                yield line


def _check_columns(columns: Sequence[str], same: Mapping[str, str]) -> None:
    again = next((name for name, times in Counter(columns).items() if times > 1), None)
    if again is not None:
        raise ValueError(f"there are two columns {again!r}")
    missing = next((name for name in same if name not in columns), None)
    if columns and missing is not None:
        raise ValueError(f"there is no column {missing!r}")
    if columns and columns[-1] != CHECKSUM:
        raise ValueError(f"the last column is {columns[-1][:60]!r}, not {CHECKSUM!r}")


def _row(columns: Sequence[str], words: Sequence[str], same: Mapping[str, str], checksum: Checksum) -> Row:
    """Return a row without what all share and its checksum, which are checked."""
    if len(words) != len(columns):
        raise ValueError(f"it has {len(words)} entries, and there are {len(columns)} columns")
    row = dict(zip(columns, words, strict=True))
    other = next((name for name, word in same.items() if row[name] != word), None)
    if other is not None:
        raise ValueError(f"{other} is {row[other][:60]!r}, and in {CONSTANTS} {same[other][:60]!r}")
    if row.pop(CHECKSUM) != checksum.of(words[:-1]):
        raise ValueError(f"it was changed after it was written: it does not match its {CHECKSUM}")
    return {name: word for name, word in row.items() if name not in same}


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
    """Return the columns of a file of rows; none if it is not there, or has not even a first line."""
    if not path.exists():
        return []
    try:
        with open(_descriptor(path, os.O_RDONLY), newline="", encoding="utf-8") as file:
            return next(csv.reader(_Lines().of(file), strict=True), [])
    except (OSError, csv.Error, ValueError) as error:
        raise OutputError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _cut(path: Path) -> None:
    """Cut off what stands after the last end of a line."""
    with open(_descriptor(path, os.O_RDWR), "r+b") as file:
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
