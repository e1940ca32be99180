"""Log messages on stderr, and whether a command shows any."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from onnx_analog.cli import patience
from onnx_analog.cli.failures import with_options
from onnx_analog.errors import one_line, printable_lines

QUIET = "onnx_analog.quiet"  # where the context keeps it


def is_quiet() -> bool:
    """Return whether the command that runs has --quiet."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(QUIET))


def log_to_stderr(command: click.Command, level: int) -> None:
    """Send messages from a level on to stderr, in the words of a command."""
    handler = _Handler()
    handler.setLevel(level)  # the root's level does not hold for loggers that set their own, as Dask's do
    handler.setFormatter(_Printable(command))
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])
    logging.getLogger("onnx_analog").setLevel(min(level, logging.WARNING))  # results have warnings that are not shown


class _Handler(logging.StreamHandler[Any]):
    """Prints messages on stderr, above the line that says that a command works; a warning is printed once."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._follows = stream is None
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        if record.levelno == logging.WARNING:
            text = record.getMessage()
            if text in self._warned:
                return
            self._warned.add(text)
        patience.clear()
        if self._follows:  # a bar of progress takes the place of stderr, and prints above itself
            self.stream = sys.stderr
        super().emit(record)


class _Printable(logging.Formatter):
    """Formats log messages as printable lines, in the words of a command: they quote names of any content and length.

    Parameters
    ----------
    command : click.Command
    """

    def __init__(self, command: click.Command) -> None:
        super().__init__("%(levelname)s: %(message)s")
        self._command = command

    def format(self, record: logging.LogRecord) -> str:
        """Return the message as one printable line; a traceback keeps its lines."""
        if record.exc_info:
            return printable_lines(super().format(record))
        return one_line(f"{record.levelname}: {with_options(record.getMessage(), self._command)}")
