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
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_analog.errors import AnalogError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    NumberType = click.ParamType[float]
    NumbersType = click.ParamType[tuple[float, ...]]
    WordsType = click.ParamType[tuple[str, ...]]
    IntegersType = click.ParamType[tuple[int, ...]]
else:  # before click 8.4 it takes no type
    NumberType = NumbersType = WordsType = IntegersType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

PIPED_WIDTH = 100_000  # columns of what is not printed on a terminal: no limit that a table meets


class Command(click.Command):
    """A command with --debug, whose errors are one line and an exit code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show tracebacks and log messages."))

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; whatever goes wrong becomes a `click.ClickException`."""
        debug = ctx.params.pop("debug")
        level = logging.DEBUG if debug else logging.WARNING
        handler = logging.StreamHandler()
        handler.setLevel(level)  # the root's level does not hold for loggers that set their own, as Dask's do
        logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING, handlers=[handler])
        logging.getLogger("onnx_analog").setLevel(level)
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
def watch(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr where it is a terminal; what is yielded takes how much is done, and of how much."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = _console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr where it is a terminal."""
    done = count(1)
    with watch(what) as update:
        update(0, total)
        yield lambda: update(next(done), total)


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
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
        try:
            return tuple(float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers with commas between them", param, ctx)


class Words(WordsType):
    """Words with commas between them; one that has options keeps its own commas, as gaussian:sigma=0.1,low=0."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words, or fail as click does."""
        parts = [part.strip() for part in (value.split(",") if isinstance(value, str) else map(str, value))]
        found: list[str] = []
        for part in parts:
            if not part:
                self.fail(f"{value!r} has a place without a word", param, ctx)
            if found and "=" in part and ":" in found[-1] and ":" not in part:
                found[-1] += f",{part}"
            else:
                found.append(part)
        return tuple(found)


class Integers(IntegersType):
    """Whole numbers from 1 with commas between them, as 1,3,10."""

    name = "integers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, or fail as click does."""
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
        least_one: click.ParamType[Any] = click.IntRange(1)
        return tuple(least_one.convert(part, param, ctx) for part in parts)


class Finite(NumberType):
    """A number that is not NaN or infinite, and above `above` if that is given."""

    name = "number"

    def __init__(self, *, above: float = -math.inf) -> None:
        self._above = above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail as click does."""
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        if not number > self._above:
            self.fail(f"{value!r} is not above {self._above:g}", param, ctx)
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
