"""A file that keeps what a search has measured, so that a search that was stopped goes on from it.

The first line identifies the search; each further one holds a measurement, by its key. Numbers are written as JSON
has them, which gives the same bits when they are read. A line that a stop cut off is measured again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnx_analog.disk import kinds
from onnx_analog.disk.transactions import lock
from onnx_analog.errors import DataError, OptionError, OutputError, printable

_FORMAT = f"{kinds.FORMATS[kinds.SEARCH]}5"  # another one when a measurement changes its meaning
_MOST_BYTES = 2**26
_APART = {  # what can differ between searches, in words
    "model": "of another model",
    "data": "with other data",
    "channel": "in another channel",
    "selection": "of other tensors",
    "metric": "by another metric",
    "output": "of another output",
    "class_axis": "with another axis of classes",
    "source": "in a channel whose source was changed since",
    "versions": "of another version of onnx-analog or its libraries",
}
_OF_DATA = {  # what may say why data differ; older files lack it
    "samples": "with {found} samples, not {expected}",
    "inputs": "whose inputs were made in another way ({found})",
}


class Journal:
    """Measurements of one search.

    Parameters
    ----------
    path : Path, optional
        Without it, nothing is kept.
    search : mapping
        What tells the search from others, ready for JSON.

    Raises
    ------
    OptionError
        If the file is of another search.
    DataError
        If it is no such file.
    """

    def __init__(self, path: Path | None, search: Mapping[str, Any]) -> None:
        self._path, self._known = path, dict[str, Any]()
        head = json.dumps({"format": _FORMAT, **search}, sort_keys=True)  # which makes lists of tuples
        if path is None:
            return
        text = _text(path) if path.exists() else ""
        lines = text.splitlines()
        if lines and not (len(lines) == 1 and head.startswith(lines[0])):  # which a stop may have cut off
            _check_head(path, lines[0], json.loads(head))
        for line in lines[1:]:
            self._known |= _entry(line)
        if len(lines) < 2 and text != f"{head}\n":
            _write(path, f"{head}\n", "w")
        elif not text.endswith("\n"):  # a stop cut the last line off
            os.truncate(path, path.read_bytes().rindex(b"\n") + 1)

    def measured(self, key: str, measure: Callable[[], Any], names: Collection[str] | None = None) -> Any:
        """Return the measurement of a key: that of the file if it is of the same form, else a new one.

        Parameters
        ----------
        key : str
        measure : function
            Returns a number, or a dict of numbers by name.
        names : collection of str, optional
            Of the numbers, if there are several.
        """
        if not self.has(key, names):
            self.keep(key, measure())
        return self[key]

    def has(self, key: str, names: Collection[str] | None = None) -> bool:
        """Return whether the measurement of a key is known, and of the form that `measured` describes."""
        return _is_measured(self._known.get(key), names)

    def keep(self, key: str, value: Any) -> None:
        """Take a new measurement."""
        self._known[key] = value
        if self._path is not None:
            _write(self._path, json.dumps({key: value}) + "\n", "a")

    def keys(self, beginning: str) -> list[str]:
        """Return the keys of all measurements that begin so, in the order in which they were first taken."""
        return [key for key in self._known if key.startswith(beginning)]

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    @property
    def remedy(self) -> str:
        """What is kept if the search ends early, and what to do then."""
        if self._path is None:
            return "Nothing is kept without resume: run the same command again"
        return "What was measured is kept: run the same command again"


@contextmanager
def held(path: Path | None) -> Iterator[None]:
    """Hold the file of a search against other searches.

    Raises
    ------
    OptionError
        If another search holds it.
    OutputError
        If it cannot be written.
    """
    if path is None:
        yield
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        if not lock(file):
            raise OptionError(
                f"another search writes to '{printable(str(path))}': wait until it ends, or give another file"
            )
        yield
    finally:
        os.close(file)


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(f"'{printable(str(path))}' cannot be written: {error.strerror}")


def _text(path: Path) -> str:
    try:
        kinds.check(path, kinds.SEARCH, DataError)
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"'{printable(str(path))}' has more than {_MOST_BYTES:,} bytes: it is not a search file")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{printable(str(path))}' cannot be read as a search file: {error}") from error


def _check_head(path: Path, line: str, expected: Mapping[str, Any]) -> None:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    form = found.get("format") if isinstance(found, dict) else None
    if form != _FORMAT and str(form).startswith(kinds.FORMATS[kinds.SEARCH]):
        raise OptionError(f"'{printable(str(path))}' belongs to a search {_APART['versions']}: give another file")
    if form != _FORMAT or not isinstance(found, dict):
        raise DataError(f"'{printable(str(path))}' is not a search file")
    other = next((name for name, value in expected.items() if found.get(name) != value and name not in _OF_DATA), None)
    if other is not None:
        apart = _data_apart(found, expected) if other == "data" else _apart(other, found.get(other), expected[other])
        raise OptionError(f"'{printable(str(path))}' belongs to a search {apart}: give another file")


def _data_apart(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Say what tells the data of a file from those that are given, as far as it is known."""
    for name in _OF_DATA:
        if name in found and found[name] != expected.get(name):
            return _OF_DATA[name].format(found=printable(str(found[name])), expected=expected.get(name))
    return _APART["data"]


def _apart(name: str, found: Any, expected: Any) -> str:
    """Say what tells the search of a file from the one that is asked for."""
    if name in _APART:
        return _APART[name]
    if isinstance(expected, bool):
        return f"{'without' if expected else 'with'} {name}"
    if isinstance(expected, int | str) and isinstance(found, int | str):
        return f"with {name} {printable(str(found))}, not {printable(str(expected))}"
    return f"with another {name}"


def _entry(line: str) -> dict[str, Any]:
    """Return a measurement by its key; none of a line that was cut off."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_measured(value: Any, names: Collection[str] | None) -> bool:
    """Return whether a value is a number, or holds numbers of these names and no others; `lost` may be null."""
    if names is None:
        numbers = [value]
    elif isinstance(value, dict) and value.keys() == set(names):
        numbers = [number for name, number in value.items() if (name, number) != ("lost", None)]
    else:
        return False
    return all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
