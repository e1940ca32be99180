"""What the commands of the command line share: errors as one line, option types, printing, progress.

Imports nothing heavy, and rich only when something is printed.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_analog.errors import AnalogError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    NumberType = click.ParamType[float]
    NumbersType = click.ParamType[tuple[float, ...]]
else:  # before click 8.4 it takes no type
    NumberType = NumbersType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

PIPED_WIDTH = 140  # columns of a table that is not printed on a terminal


class Command(click.Command):
    """A command with --debug, whose errors are one line and an exit code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show tracebacks and log messages."))

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; whatever goes wrong becomes a `click.ClickException`."""
        debug = ctx.params.pop("debug")
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
        logging.getLogger("onnx_analog").setLevel(logging.DEBUG if debug else logging.WARNING)
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # whoever read the output has seen enough, as in `| head`
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - what is left to be flushed
            ctx.exit(1)
        except Exception as error:
            if debug:
                traceback.print_exc()
            raise _one_line(error) from error


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class, and reads it of the instance


def _one_line(error: Exception) -> click.ClickException:
    if isinstance(error, AnalogError):
        return _Failure(" ".join(str(error).split()), error.exit_code)
    if isinstance(error, MemoryError):
        return click.ClickException(f"not enough memory. {error}".strip())
    return click.ClickException(f"{type(error).__name__}: {' '.join(str(error).split())} (run again with --debug)")


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a σ that a pipe's encoding lacks is no reason to fail
        return super().main(*args, **kwargs)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def show(*things: Any) -> None:
    """Print text and tables on stdout."""
    console = _console()
    for thing in things:
        console.print(thing, soft_wrap=isinstance(thing, str) and not console.is_terminal)  # paths stay whole in a pipe


def print_json(body: Any) -> None:
    """Print JSON, and only JSON, on stdout."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(body, indent=2, ensure_ascii=plain, allow_nan=False))


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr where it is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = _console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def several(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds several options, as they stand."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


class Fraction(NumberType):
    """A number from 0 to 1, below 1 where `open_end`."""

    name = "fraction"

    def __init__(self, *, open_end: bool = False) -> None:
        self._open = open_end

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail as click does."""
        return click.FloatRange(0, 1, max_open=self._open).convert(value, param, ctx)


class Floats(NumbersType):
    """Numbers with commas between them, as 0.485,0.456,0.406."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers, or fail as click does."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers with commas between them", param, ctx)


class Finite(NumberType):
    """A number that is not NaN or infinite."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail as click does."""
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return float(number)


class Seconds(NumberType):
    """A time, as 20s, 90m, 1h, 1d, 2w or 1y; a bare number is in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds, or fail as click does."""
        from onnx_analog.channels.modifiers import seconds

        try:
            return float(value) if isinstance(value, int | float) else seconds(str(value))
        except OptionError as error:
            self.fail(str(error), param, ctx)
