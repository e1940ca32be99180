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
from typing import Any, BinaryIO, Self

import filelock

from onnx_analog.disk import reading, transactions, writing
from onnx_analog.errors import OutputError

Row = dict[str, Any]
AddTrial = Callable[[Sequence[str]], None]
Take = Callable[[Row], AddTrial]

TRIALS, PARQUET, POINTS, CONSTANTS, LOCK = "trials.csv", "trials.parquet", "points.csv", "sweep.json", ".lock"
CONFIG, PLOT = "sweep.toml", "points.png"  # which the command line adds
CHECKSUM = "row_sha256"  # the last column of trials.csv
_HEX_DIGITS = 16  # of a checksum: 64 bits tell damage, and are not meant to stop forgery
LONGEST = 2**20  # characters of a line of trials.csv
_LARGEST = 16 * reading.MIB  # bytes of sweep.json
_PIECE = 2**16  # bytes that are looked at at once for the end of a line
_PLAIN = frozenset((int, float, bool, type(None)))  # types whose values stand in a CSV as they are
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
        self._written: _Written | None = None
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
                raise OutputError(
                    f"{str(self._path)!r} holds a sweep with {name} {there.get(name)!r}, and this one has "
                    f"{mine.get(name)!r}: choose another folder"
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
        groups: _Groups | None = None
        for line, text, parse in self._lines():
            groups = groups or _Groups(parse.columns, varying)
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

    def _lines(self) -> Iterator[tuple[int, bytes, _Parse]]:
        """Yield number and text of each line with a row, and what parses it; not half a row at the end."""
        path, number, parse = self._path / TRIALS, 0, None
        if not path.exists():
            return
        try:
            with open(_descriptor(path, os.O_RDONLY), "rb") as file:
                for number, text in enumerate(_bounded(file), start=1):
                    if parse is None:
                        parse = _Parse(text, self._constants)
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
            text = _line(self._columns)
        if set(self._columns) != {*rows[0], *self._constants, CHECKSUM} or self._columns[-1] != CHECKSUM:
            raise OutputError(f"{str(path)!r} has other columns than this sweep: choose another folder")
        self._written = self._written or _Written(self._columns[:-1], self._constants)
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
        return not can_parquet() or _rows_of(parquet) == count

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
            writers[self._path / TRIALS] = _trials_writer(rows, self._constants)
            if can_parquet():
                writers[self._path / PARQUET] = _parquet_writer(rows, self._constants)
            else:
                (self._path / PARQUET).unlink(missing_ok=True)  # it is of fewer rows
        if points:
            writers[self._path / POINTS] = _csv_writer(points)
        self._write_constants()
        writing.write_all(writers, force=True)


class _Written:
    """Writes rows as lines of trials.csv: with their constants, whose text is made once, and their checksums."""

    def __init__(self, columns: Sequence[str], constants: Row) -> None:
        self._checksum = Checksum(columns)
        own = len(columns) - len(constants)
        self._own, self._constants = list(columns[:own]), {name: _word(value) for name, value in constants.items()}
        self._end = _line(["", *self._constants.values()]) if constants else "\n"
        if list(columns[own:]) != list(constants):  # another order, as in a file that was changed by hand
            self._own, self._end = list(columns), "\n"
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="")

    def parts(self, row: Row) -> tuple[str, str]:
        """Return the line of a row without its checksum, and the checksum."""
        self._text.seek(0)
        self._text.truncate()
        named = row if len(self._own) == len(row) else {**row, **self._constants}
        words = [_word(named[name]) for name in self._own]
        self._writer.writerow(words if self._end == "\n" else [*words, ""])  # a single empty word is written as ""
        line = (self._text.getvalue() if self._end == "\n" else self._text.getvalue()[:-1]) + self._end
        return line, self._checksum.of_line(line.encode())

    def line(self, row: Row) -> str:
        """Return the line of a row."""
        line, checksum = self.parts(row)
        return f"{line[:-1]},{checksum}\n"


class _Parse:
    """Parses the lines of trials.csv, and checks what all rows share and their checksums.

    Raises
    ------
    ValueError
        If the first line does not name the columns of a sweep with these constants.
    """

    def __init__(self, header: bytes, constants: Row) -> None:
        (words,) = csv.reader([_line(map(_word, constants.values()))])
        self._same = dict(zip(constants, words, strict=True))
        self.columns = self.words(header)
        _check_columns(self.columns, self._same)
        self._checksum = Checksum(self.columns[:-1])

    def words(self, line: bytes) -> list[str]:
        """Return what stands in a line."""
        return next(csv.reader([line.decode("utf-8")], strict=True), [])

    def row(self, words: Sequence[str]) -> Row:
        """Return a row without what all share and its checksum, which are checked."""
        return _row(self.columns, words, self._same, self._checksum)


class _Groups:
    """Rows that differ in a few words only, told by the text around these: they need not be parsed."""

    def __init__(self, columns: Sequence[str], varying: Sequence[str]) -> None:
        self._checksum = Checksum(columns[:-1])
        self._first = next((i for i, name in enumerate(columns) if name == varying[0]), 0)
        self._last = self._first + len(varying)
        self._usable = list(columns[self._first : self._last]) == list(varying)
        self._known: dict[bytes, tuple[bytes, AddTrial]] = {}  # by the text before: that after, and what takes words
        self._lengths: list[int] = []  # of the texts before

    def add(self, line: bytes, words: Sequence[str], take: AddTrial) -> None:
        """Keep what is around the varying words of a row that was parsed and checked, if it is as `_line` has it."""
        before = _line([*words[: self._first], ""])[:-1].encode()
        after = _line(["", *words[self._last : -1]]).encode()
        middle = ",".join(words[self._first : self._last])
        if self._usable and self._first and before + middle.encode() + after == _body(line):
            self._known[before] = after, take
            self._lengths = [len(before), *(length for length in self._lengths if length != len(before))]

    def took(self, line: bytes) -> bool:
        """Take a row that is like one that was kept; return whether it is."""
        body = _body(line)
        for length in self._lengths:
            after, take = self._known.get(body[:length], (b"", None))
            if take is not None and body.endswith(after):
                break
        else:
            return False
        words = body[length : -len(after)].decode().split(",")
        if len(words) != self._last - self._first or self._checksum.of_line(body) != line[len(body) : -1].decode():
            return False
        if length != self._lengths[0]:  # the next row is likely of the same point
            self._lengths.remove(length)
            self._lengths.insert(0, length)
        take(words)
        return True


def _body(line: bytes) -> bytes:
    """Return the line of a row without its checksum, as the checksum is of it."""
    return line[: -_HEX_DIGITS - 2] + b"\n"


class Checksum:
    """The checksum of rows: of the names of their columns and what stands in them, so that no digit changes unseen."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._names = hashlib.sha256(_line(columns).encode())

    def of(self, words: Iterable[Any]) -> str:
        """Return the checksum of a row."""
        return self.of_line(_line(words).encode())

    def of_line(self, line: bytes) -> str:
        """Return the checksum of a row from its line, which ends where its checksum follows."""
        digest = self._names.copy()
        digest.update(line)
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
                "another folder"
            )


def _descriptor(path: Path, flags: int) -> int:
    """Open a regular file; a link is not followed."""
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OutputError(f"{str(path)!r} is not a regular file: choose another folder")
    return file


def _bounded(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file but for half a row at the end; one that is too long is a ValueError."""
    while line := file.readline(4 * LONGEST + 1):
        if len(line) > LONGEST and len(line.decode("utf-8", "replace")) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST:,} characters")
        if line.endswith(b"\n"):
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
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return " ".join(value.splitlines())
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value


def _columns(path: Path) -> list[str]:
    """Return the columns of a file of rows; none if it is not there, or has not even a first line."""
    if not path.exists():
        return []
    try:
        with open(_descriptor(path, os.O_RDONLY), "rb") as file:
            header = next(_bounded(file), b"")
        return next(csv.reader([header.decode("utf-8")], strict=True), [])
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


def _trials_writer(rows: Iterable[Row], constants: Row) -> writing.Writer:
    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            written = None
            for row in rows:
                if written is None:
                    columns = [*row, *constants]
                    written = _Written(columns, constants)
                    file.write(_line([*columns, CHECKSUM]))
                file.write(written.line(row))

    return write


def _csv_writer(rows: Iterable[Row]) -> writing.Writer:
    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            for number, row in enumerate(rows):
                if not number:
                    file.write(_line(row))
                file.write(_line(_word(value) for value in row.values()))

    return write


def _rows_of(path: Path) -> int | None:
    """Return how many rows a Parquet file has; None if it is damaged."""
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return None


def _parquet_writer(rows: Iterable[Row], constants: Row) -> writing.Writer:
    def write(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        writer, written, left = None, None, iter(rows)
        while part := list(islice(left, _GROUP)):
            written = written or _Written([*part[0], *constants], constants)
            columns = {name: pyarrow.array([_word(row[name]) for row in part]) for name in part[0]}
            same = {name: pyarrow.repeat(pyarrow.scalar(_word(value)), len(part)) for name, value in constants.items()}
            checksums = {CHECKSUM: pyarrow.array([written.parts(row)[1] for row in part])}
            table = pyarrow.table({**columns, **same, **checksums}, schema=None if writer is None else writer.schema)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()

    return write
