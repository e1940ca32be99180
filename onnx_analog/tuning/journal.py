"""A file that keeps what a search has measured, so that a search that was stopped goes on from it.

The first line says which search it is; each further one holds a measurement, by its key. Numbers are written as JSON
has them, which gives the same bits when they are read. A line that a stop cut off is measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnx_analog.errors import DataError, OptionError, printable

_FORMAT = "onnx-analog tune 1"
_MOST_BYTES = 2**26


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
        head = json.dumps({"format": _FORMAT, **search}, sort_keys=True)
        if path is None:
            return
        lines = _lines(path) if path.exists() else []
        if lines and not (len(lines) == 1 and head.startswith(lines[0])):  # which a stop may have cut off
            _check_head(path, lines[0], json.loads(head))
        for line in lines[1:]:
            self._known |= _entry(line)
        whole = [head, *(json.dumps({key: value}) for key, value in self._known.items())]
        path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")

    def measured(self, key: str, measure: Callable[[], Any]) -> Any:
        """Return what was measured under a key, or measure it now; the result must be ready for JSON."""
        if key not in self._known:
            self._known[key] = measure()
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({key: self._known[key]}) + "\n")
        return self._known[key]


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{printable(str(path))} has more than {_MOST_BYTES:,} bytes: it is no file of a search")
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{printable(str(path))} cannot be read as a file of a search: {error}") from error


def _check_head(path: Path, line: str, expected: Mapping[str, Any]) -> None:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise DataError(f"{printable(str(path))} is no file of a search")
    other = next((name for name, value in expected.items() if found.get(name) != value), None)
    if other is not None:
        raise OptionError(f"{printable(str(path))} is of a search with another {other}: give another file")


def _entry(line: str) -> dict[str, Any]:
    """Return a measurement by its key; none of a line that was cut off."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
