"""Lines of trials.csv: rows as text, their checksums, and the checks of what is read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

Row = dict[str, Any]
AddTrial = Callable[[Sequence[str]], None]

CHECKSUM = "row_sha256"  # the last column of trials.csv
LONGEST = 2**20  # characters of a line of trials.csv
_HEX_DIGITS = 16  # of a checksum: 64 bits tell damage, and are not meant to stop forgery
_PLAIN = frozenset((int, float, bool, type(None)))  # types whose values stand in a CSV as they are


class Written:
    """Writes rows as lines of trials.csv: with their constants, whose text is made once, and their checksums."""

    def __init__(self, columns: Sequence[str], constants: Row) -> None:
        self._checksum = Checksum(columns)
        own = len(columns) - len(constants)
        self._own, self._constants = list(columns[:own]), {name: word_of(value) for name, value in constants.items()}
        self._end = line_of(["", *self._constants.values()]) if constants else "\n"
        if list(columns[own:]) != list(constants):  # another order, as in a file that was changed by hand
            self._own, self._end = list(columns), "\n"
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="")

    def parts(self, row: Row) -> tuple[str, str]:
        """Return the line of a row without its checksum, and the checksum."""
        self._text.seek(0)
        self._text.truncate()
        named = row if len(self._own) == len(row) else {**row, **self._constants}
        words = [word_of(named[name]) for name in self._own]
        self._writer.writerow(words if self._end == "\n" else [*words, ""])  # a single empty word is written as ""
        line = (self._text.getvalue() if self._end == "\n" else self._text.getvalue()[:-1]) + self._end
        return line, self._checksum.of_line(line.encode())

    def line(self, row: Row) -> str:
        """Return the line of a row."""
        line, checksum = self.parts(row)
        return f"{line[:-1]},{checksum}\n"


class Parse:
    """Parses the lines of trials.csv, and checks what all rows share and their checksums.

    Raises
    ------
    ValueError
        If the first line does not name the columns of a sweep with these constants.
    """

    def __init__(self, header: bytes, constants: Row) -> None:
        (words,) = csv.reader([line_of(map(word_of, constants.values()))])
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


class Groups:
    """Rows that differ in a few words only, told by the text around these: they need not be parsed."""

    def __init__(self, columns: Sequence[str], varying: Sequence[str]) -> None:
        self._checksum = Checksum(columns[:-1])
        self._first = next((i for i, name in enumerate(columns) if name == varying[0]), 0)
        self._last = self._first + len(varying)
        self._usable = list(columns[self._first : self._last]) == list(varying)
        self._known: dict[bytes, tuple[bytes, AddTrial]] = {}  # by the text before: that after, and what takes words
        self._lengths: list[int] = []  # of the texts before

    def add(self, line: bytes, words: Sequence[str], take: AddTrial) -> None:
        """Keep what is around the varying words of a row that was parsed and checked, if it is as `line_of` has it."""
        before = line_of([*words[: self._first], ""])[:-1].encode()
        after = line_of(["", *words[self._last : -1]]).encode()
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
        if f",{self._checksum.of_line(body)}\n".encode() != line[len(body) - 1 :]:
            return False
        words = body[length : -len(after)].decode().split(",")
        if len(words) != self._last - self._first:
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
        self._names = hashlib.sha256(line_of(columns).encode())

    def of(self, words: Iterable[Any]) -> str:
        """Return the checksum of a row."""
        return self.of_line(line_of(words).encode())

    def of_line(self, line: bytes) -> str:
        """Return the checksum of a row from its line, which ends where its checksum follows."""
        digest = self._names.copy()
        digest.update(line)
        return digest.hexdigest()[:_HEX_DIGITS]

    def with_it(self, words: Sequence[Any]) -> list[Any]:
        """Return a row and, last, its checksum."""
        return [*words, self.of(words)]


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
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
        raise ValueError(f"{other} is {row[other][:60]!r}, and in sweep.json {same[other][:60]!r}")
    if row.pop(CHECKSUM) != checksum.of(words[:-1]):
        raise ValueError(f"it was changed after it was written: it does not match its {CHECKSUM}")
    return {name: word for name, word in row.items() if name not in same}


def line_of(words: Iterable[Any]) -> str:
    """Return words as a line of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(words)
    return text.getvalue()


def word_of(value: Any) -> Any:
    """Return what stands in a CSV: lists as JSON, text as one line, for a line is how half a row is told."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return " ".join(value.splitlines())
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value
