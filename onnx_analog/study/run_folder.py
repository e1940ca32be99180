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
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import filelock

from onnx_analog.disk import reading, transactions, writing
from onnx_analog.errors import OutputError
from onnx_analog.study._lines import CHECKSUM as CHECKSUM
from onnx_analog.study._lines import LONGEST as LONGEST
from onnx_analog.study._lines import AddTrial, Groups, Parse, Written, line_of, whole_lines
from onnx_analog.study._lines import Checksum as Checksum
from onnx_analog.study._lines import Row as Row
from onnx_analog.study._writers import NO_PARQUET as NO_PARQUET
from onnx_analog.study._writers import can_parquet as can_parquet
from onnx_analog.study._writers import csv_writer, parquet_writer, rows_of, trials_writer

Take = Callable[[Row], AddTrial]

TRIALS, PARQUET, POINTS, CONSTANTS, LOCK = "trials.csv", "trials.parquet", "points.csv", "sweep.json", ".lock"
CONFIG, PLOT = "sweep.toml", "points.png"  # which the command line adds
_LARGEST = 16 * reading.MIB  # bytes of sweep.json
_ARGUMENTS = {"input_mean": "mean", "input_std": "std", "models": "model"}  # of constants with other names
_OTHER = {  # what the constants that say nothing to a reader are of
    "data_sha256": "other data",
    "inputs_sha256": "other inputs of the model",
    "models_sha256": "the file of another model",
    "weights_sha256": "other weights",
    "metric_sha256": "another function as metric",
    "correct_sha256": "other samples that correct",
    "compensate_sha256": "other samples that compensate",
}
_COUNTS = ("correct_samples", "compensate_samples")
_PIECE = 2**16  # bytes that are looked at at once for the end of a line


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
        self._written: Written | None = None
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
                f"another sweep writes to {str(self._path)!r}: wait until it ends, or choose another folder"
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
                    raise OutputError(f"{str(mine)!r} was not written by a sweep: choose another folder")
            return
        text = reading.read_text(path, limit=_LARGEST, error=OutputError)
        try:
            there = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise OutputError(f"cannot read {str(path)!r}: {why}. Choose another folder") from error
        mine = json.loads(json.dumps(self._constants))
        for name in {**mine, **there}:
            if json.dumps(mine.get(name)) != json.dumps(there.get(name)):  # false is not 0
                raise OutputError(_apart(name, mine.get(name), there.get(name), repr(str(self._path))))

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
        yield from self._rows()

    def each(self, take: Take, *, varying: Sequence[str]) -> None:
        """Take all rows, those that differ in the columns `varying` only together.

        Parameters
        ----------
        take : function
            Called with a row; returns the function that takes the words of `varying` of that row, and of all that are
            like it otherwise. Where either raises ValueError, the row is damaged.
        varying : sequence of str
            Names of columns.

        Raises
        ------
        OutputError
            If a row is damaged: it says which, and why.
        """
        groups: Groups | None = None
        for line, text, parse in self._lines():
            groups = groups or Groups(parse.columns, varying)
            try:
                if not groups.took(text):
                    words = parse.words(text)
                    row = parse.row(words)
                    words_taken = take(row)
                    groups.add(text, words, words_taken)
                    words_taken([row[name] for name in varying])
            except (ValueError, csv.Error) as error:
                raise self._damaged(line, error) from error

    def _rows(self) -> Iterator[Row]:
        for line, text, parse in self._lines():
            try:
                yield parse.row(parse.words(text))
            except (ValueError, csv.Error) as error:
                raise self._damaged(line, error) from error

    def _lines(self) -> Iterator[tuple[int, bytes, Parse]]:
        """Yield number and text of each line with a row, and what parses it; not half a row at the end."""
        path, number, parse = self._path / TRIALS, 0, None
        if not path.exists():
            return
        try:
            with open(_descriptor(path, os.O_RDONLY), "rb") as file:
                for number, text in enumerate(whole_lines(file), start=1):
                    if parse is None:
                        parse = Parse(text, self._constants)
                    else:
                        yield number, text, parse
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        except (ValueError, csv.Error) as error:
            raise self._damaged(number + (parse is not None or not number), error) from error

    def _damaged(self, line: int, error: Exception) -> OutputError:
        path = self._path / TRIALS
        remedy = "Delete the line" if line > 1 else "Restore it"  # the first has the names of all columns
        return OutputError(
            f"line {line:,} of {str(path)!r} is not a row of this sweep: {error}. {remedy}, or choose another folder"
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
            text = line_of(self._columns)
        if set(self._columns) != {*rows[0], *self._constants, CHECKSUM} or self._columns[-1] != CHECKSUM:
            raise OutputError(f"{str(path)!r} has other columns than this sweep: choose another folder")
        self._written = self._written or Written(self._columns[:-1], self._constants)
        text += "".join(map(self._written.line, rows))
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

    def _has(self, count: int) -> bool:
        """Return whether a sweep ended here with so many rows."""
        parquet = self._path / PARQUET
        if not (self._path / POINTS).exists() or parquet.exists() != can_parquet():
            return False
        return not can_parquet() or rows_of(parquet) == count

    def finish(self, rows: Iterable[Row], points: Sequence[Row], *, known: int | None = None) -> None:
        """Write all rows in their order, in place of those that came as they ended, and the points.

        Parameters
        ----------
        rows : iterable
            It is gone through once for each file, and may make the rows anew each time.
        points : sequence
        known : int, optional
            How many rows there are, if they are in the file already, in this order: they are not written again.
        """
        writers: dict[Path, writing.Writer] = {}
        if known and self._has(known):
            _cut(self._path / TRIALS)
        elif any(True for _ in rows):
            writers[self._path / TRIALS] = trials_writer(rows, self._constants)
            if can_parquet():
                writers[self._path / PARQUET] = parquet_writer(rows, self._constants)
            else:
                (self._path / PARQUET).unlink(missing_ok=True)  # it is of fewer rows
        if points:
            writers[self._path / POINTS] = csv_writer(points)
        self._write_constants()
        writing.write_all(writers, force=True)


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
                "another folder"
            )


def _descriptor(path: Path, flags: int) -> int:
    """Open a regular file; a link is not followed."""
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OutputError(f"{str(path)!r} is not a regular file: choose another folder")
    return file


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _columns(path: Path) -> list[str]:
    """Return the columns of a file of rows; none if it is not there, or has not even a first line."""
    if not path.exists():
        return []
    try:
        with open(_descriptor(path, os.O_RDONLY), "rb") as file:
            header = next(whole_lines(file), b"")
        return next(csv.reader([header.decode("utf-8")], strict=True), [])
    except (OSError, csv.Error, ValueError) as error:
        raise OutputError(f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}") from error


def _cut(path: Path) -> None:
    """Cut off what stands after the last end of a line."""
    with open(_descriptor(path, os.O_RDWR), "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(end - _PIECE, 0)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                end = start + last + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def _apart(name: str, mine: Any, there: Any, where: str) -> str:
    """Return what to say of a folder of another sweep: it begins with the argument that differs."""
    if name in _OTHER and None not in (mine, there):
        return f"{where} holds a sweep with {_OTHER[name]}: choose another folder"
    given = name in _OTHER or (name in _COUNTS and None in (mine, there))  # which digests and counts only tell
    argument = name.removesuffix("_sha256").removesuffix("_samples") if given else _ARGUMENTS.get(name, name)
    if mine is None:  # which may be samples without a file
        was = "given" if given else _shown(there)
        return f"{argument} is not {was}, as it is in the sweep of {where}: choose another folder"
    this = "given" if given else _shown(mine)
    if there is None:
        return f"{argument} is {this}, but the sweep in {where} has none: choose another folder"
    return f"{argument} is {this}, and it is {_shown(there)} in the sweep of {where}: choose another folder"


def _shown(value: Any) -> str:
    """Return a constant as a user writes it."""
    if isinstance(value, list):
        return ",".join(map(_shown, value)) or "none"
    return repr(value) if isinstance(value, str) else json.dumps(value)
