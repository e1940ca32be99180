"""Shows on a terminal that a command works while nothing else does: while it imports, reads a model, or writes a file.

Other displays, tables and messages call `clear` before they print, and hold the line back while they last.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

FROM = 1.5  # seconds without a display, after which the line is shown
_BETWEEN = 0.5  # seconds between its changes
_CLEARED = "\r\x1b[K"


class _Line:
    """The line, which a thread of its own shows: at most one, as there is one terminal."""

    def __init__(self, what: str) -> None:
        self._what, self._start, self._since = what, time.monotonic(), time.monotonic()
        self._others, self._shown = 0, False
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="onnx-analog patience", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def end(self) -> None:
        """Remove the line for good."""
        self._ended.set()
        self._thread.join()
        self.clear()

    def clear(self, others: int = 0) -> None:
        """Remove the line until nothing was shown for a while; `others` are displays that begin, or end if negative."""
        with self._lock:
            self._others += others
            self._since = time.monotonic()
            if self._shown:
                self._write(_CLEARED)
                self._shown = False

    def _run(self) -> None:
        while not self._ended.wait(_BETWEEN):
            with self._lock:
                now = time.monotonic()
                if not self._others and now - self._since >= FROM:
                    text = f"{self._what}: working, {now - self._start:.0f} s"
                    self._write(_CLEARED + text[: shutil.get_terminal_size().columns - 1])
                    self._shown = True

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError, ValueError):  # who looks at it may have left
            sys.stderr.write(text)
            sys.stderr.flush()


_current: _Line | None = None


@contextmanager
def patience(what: str) -> Iterator[None]:
    """Show on a terminal that a command works whenever nothing else shows it."""
    global _current
    if _current is not None or not sys.stderr.isatty():
        yield
        return
    _current = _Line(what)
    _current.start()
    try:
        yield
    finally:
        _current.end()
        _current = None


def clear() -> None:
    """Remove the line, as something is printed."""
    if _current is not None:
        _current.clear()


@contextmanager
def held_back() -> Iterator[None]:
    """Keep the line away while another display lasts."""
    line = _current
    if line is not None:
        line.clear(1)
    try:
        yield
    finally:
        if line is not None:
            line.clear(-1)
