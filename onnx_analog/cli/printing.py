"""Printing on stdout: text, tables and JSON with control characters escaped, and a stream that is closed or full.

Imports rich only when something is printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.cli import patience
from onnx_analog.cli.ascii_words import spelled
from onnx_analog.errors import AnalogError, OutputError, printable_lines

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 100_000  # columns of what is not printed on a terminal: no limit that a table meets


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text and tables with control characters escaped, tables as wide as they are."""
    from rich.console import Console
    from rich.text import Text

    class Printing(Console):
        """Prints text and tables with control characters escaped."""

        def render_str(self, text: str, **options: Any) -> Text:
            """Return `text` for a terminal."""
            return super().render_str(spelled(printable_lines(text), self.encoding), **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Printing(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def show(*things: Any) -> None:
    """Print text and tables on stdout."""
    printing = console()
    patience.clear()
    with writing_stdout():
        for thing in things:
            wide = isinstance(thing, str) and not printing.is_terminal  # paths stay whole in a pipe
            printing.print(thing, soft_wrap=wide)


def inputs_lines(*preprocessings: str) -> list[str]:
    """Return the lines that say how inputs were made: one for all that agree."""
    return [f"inputs: {text}" for text in dict.fromkeys(preprocessings) if text]


def print_json(body: Any) -> None:
    """Print JSON, and only JSON, on stdout."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    text = json.dumps(body, indent=2, ensure_ascii=plain, allow_nan=False)
    patience.clear()
    with writing_stdout():
        click.echo("".join(character if character == "\n" else _escaped(character) for character in text))


def _escaped(character: str) -> str:
    """Return a character, escaped as JSON does if it is not printable: such characters occur in strings only."""
    return character if character.isprintable() else json.dumps(character)[1:-1]


@contextmanager
def writing_stdout() -> Iterator[None]:
    """Turn a failure of stdout into an `OutputError`; a reader that has closed the pipe is not a failure."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, AnalogError):
            raise
        drop_stdout()
        raise OutputError(f"cannot write to the standard output: {error.strerror or error}") from error


def open_streams() -> None:
    """Reopen a closed stream (`>&-`) on the null device, so that the next opened file does not take its number."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for the whole process


def drop_stdout() -> None:
    """Send what is left to be flushed to the null device: stdout cannot be written."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for the whole process
