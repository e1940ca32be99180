"""Shared by all commands: errors as one line, option types, printing.

Imports nothing heavy, and rich only when something is printed.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_analog.cli import config, patience
from onnx_analog.cli.paths import FILE, OUT
from onnx_analog.errors import (
    IMPORT_FIRST,
    OR_DECODE,
    AnalogError,
    FunctionError,
    OptionError,
    OutputError,
    one_line,
    printable_lines,
    without_stop,
)
from onnx_analog.spelling import nearest

if TYPE_CHECKING:
    from rich.console import Console

    NumberType = click.ParamType[float]
    NumbersType = click.ParamType[tuple[float, ...]]
    WordsType = click.ParamType[tuple[str, ...]]
    IntegersType = click.ParamType[tuple[int, ...]]
else:  # before click 8.4 it takes no type
    NumberType = NumbersType = WordsType = IntegersType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger(__name__)

_QUIET = "onnx_analog.quiet"  # where the context keeps it
_DETAIL = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)  # --debug, --verbose, neither, --quiet
_PRACTICAL = 10**12  # no help mentions a larger limit
PIPED_WIDTH = 100_000  # columns of what is not printed on a terminal: no limit that a table meets


class Option(click.Option):
    """An option that the help lists under a heading.

    Parameters
    ----------
    section : str
        The heading; empty for the list of all other options.
    """

    def __init__(self, *args: Any, section: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class Command(click.Command):
    """A command with the options of all commands, whose errors are one line and an exit code.

    Parameters
    ----------
    saves_config : bool
        The command writes the file of --save-config itself: it gets `save_config`.
    stopped : str or function
        What is said when the user interrupts the command; a function takes the command's parameters by name.
    """

    def __init__(
        self,
        *args: Any,
        saves_config: bool = False,
        stopped: str | Callable[[Mapping[str, Any]], str] = "stopped; nothing was written",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._stopped, self._saves_config = stopped, saves_config
        self.params += _common_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options into the help, by section, in the order in which sections first appear."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                heading = getattr(param, "section", "") or "Options"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; whatever goes wrong becomes a `click.ClickException`."""
        debug = ctx.params.pop("debug")
        verbose, quiet = ctx.params.pop("verbose"), ctx.params.pop("quiet")
        if quiet and (verbose or debug):
            raise click.UsageError(f"--quiet and {'--verbose' if verbose else '--debug'} exclude each other", ctx)
        ctx.meta[_QUIET] = quiet
        _log(self, _DETAIL[0 if debug else 1 if verbose else 3 if quiet else 2])
        try:
            return self._saving(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # whoever read the output has seen enough, as in `| head`
            _drop_stdout()
            ctx.exit(1)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # where ^C stands
            stopped = self._stopped
            raise click.ClickException(stopped if isinstance(stopped, str) else stopped(ctx.params)) from None
        except SystemExit as error:  # of a function of the user's: an exit code of 0 would say that all is well
            if isinstance(error.__context__, BrokenPipeError):  # which rich met first
                _drop_stdout()
                ctx.exit(1)
            raise click.ClickException(f"a function of your own called sys.exit({error})") from error
        except Exception as error:
            if debug:
                traceback.print_exc()
            raise _one_line(error, ctx) from error

    def _saving(self, ctx: click.Context) -> Any:
        """Call the command, and write its options where --save-config says, unless it fails to do its work."""
        target = None if self._saves_config else ctx.params.pop("save_config")
        if target is None:
            return self._timed(ctx)
        from onnx_analog.disk import writing

        config.check_saved(ctx, target)
        text, force = config.text_of(ctx), bool(ctx.params.get("force"))
        verdict = None
        try:
            result = self._timed(ctx)
        except click.UsageError:
            raise
        except click.ClickException as error:  # the answer is no, or not known
            verdict = error
        writing.write_all({target: writing.write_text(text)}, force=force)
        if verdict is not None:
            raise verdict
        return result

    def _timed(self, ctx: click.Context) -> Any:
        """Call the command, and log how long it takes."""
        start, waiting = time.monotonic(), nullcontext() if is_quiet() else patience.patience(str(ctx.info_name))
        try:
            with waiting:
                return super().invoke(ctx)
        finally:
            logger.info("%s: %.1f s", ctx.command_path, time.monotonic() - start)


def _common_options() -> list[click.Parameter]:
    """Return the options that every command has."""
    return [
        click.Option(
            ["--config"],
            type=FILE,
            is_eager=True,
            expose_value=False,
            callback=config.configure,
            help="TOML file of these options; flags take precedence.",
        ),
        click.Option(["--save-config"], type=OUT, help="Also write these options to a TOML file."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Also show log messages about each step."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Show no progress and no warnings on stderr, only errors."),
        click.Option(["--debug"], is_flag=True, help="Show tracebacks and all log messages."),
    ]


def is_quiet() -> bool:
    """Return whether the command that runs has --quiet."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_QUIET))


def _log(command: click.Command, level: int) -> None:
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
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        if record.levelno == logging.WARNING:
            text = record.getMessage()
            if text in self._warned:
                return
            self._warned.add(text)
        patience.clear()
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


class Failure(click.ClickException):
    """An error with an exit code of its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class, and reads it of the instance


def _one_line(error: Exception, ctx: click.Context) -> click.ClickException:
    if isinstance(error, AnalogError):
        where = ". --debug shows where" * isinstance(error, FunctionError)
        text = f"{error}{where}".replace(OR_DECODE, "")
        if any("--load" in param.opts for param in ctx.command.params):
            text = text.replace(IMPORT_FIRST, "name it with --load")
        return Failure(text if error.names_fields else with_options(text, ctx.command), error.exit_code)
    return click.ClickException(one_line(_message_of(_cause(error))))


_STATES = r"(?= (is|are|add|has|have|contains|names|exclude|and \S+ exclude)\b)"
_SECOND = r"(?:(?<= and )|(?<= as )|(?<= nor ))"  # before the second argument that a message names


def _asked(message: str, flags: Mapping[str, str]) -> str:
    """Return a message with options for the arguments, one or several, that it says to give, check or leave out."""
    if not flags:
        return message
    name = rf"(?:{'|'.join(map(re.escape, flags))})(?![\w=-]|\.\w)"
    several = rf"{name}(?:(?:, | and | or ){name})*"
    wanted = rf"(?:(?<=\b[Gg]ive )|(?<=\b[Cc]heck ))(?:the same )?{several}"
    unwanted = rf"(?<=\b[Ll]eave ){several}(?= out\b)"
    options = functools.partial(re.sub, rf"\b{name}", lambda found: flags[found[0]])
    return re.sub(f"{wanted}|{unwanted}", lambda found: options(found[0]), message)


def with_options(message: str, command: click.Command) -> str:
    """Return a message of the library with the names of arguments replaced by those of a command's options.

    `name="value"` becomes `--name value`. A name of several words can stand anywhere; a plain word, such as `samples`,
    is the argument's name only where the message begins with it and says what it is, or says to give it, to check it or
    to leave it out. A list of names to choose from stays as it is.
    """
    message, choose, names = message.partition(": choose from ")  # of which some have no option
    flags = {str(param.name): param.opts[0] for param in command.params if isinstance(param, click.Option)}
    for name, flag in flags.items():
        message = re.sub(rf'(?<![\w.]){name}="([^"]*)"', rf"{flag} \1", message)
        if "_" in name and flag.startswith("--"):
            message = re.sub(rf"(?<![\w./'\"-]){name}(?!\w|['\"]|[.:]\w)", flag, message)
        elif flag.startswith("--"):
            message = re.sub(rf"^{name}{_STATES}", flag, message)
            message = re.sub(rf"{_SECOND}{name}(?= (is|exclude)\b)", flag, message)
    message = _asked(message, {name: flag for name, flag in flags.items() if flag.startswith("--")})
    if "--force" in flags.values():
        message = message.replace("force=True", "--force")
    return one_line(message + choose + names)


def _cause(error: BaseException) -> BaseException:
    """Return the original cause of an error, or the first error of this package on the way to it."""
    seen = []
    while not isinstance(error, AnalogError) and error.__cause__ is not None and error.__cause__ not in seen:
        error = error.__cause__
        seen.append(error)
    return error


def _message_of(error: BaseException) -> str:
    """Return the message of an error in plain words, also if the error is not one of this package."""
    text = str(error)
    if isinstance(error, AnalogError):
        return text
    if isinstance(error, MemoryError):
        return f"not enough memory. {text}".strip()
    if isinstance(error, RecursionError):
        return "the input is nested too deeply"
    if isinstance(error, UnicodeError):
        return f"a name or a path cannot be written as text: {text}"
    if isinstance(error, OSError):
        return f"{error.filename!r}: {error.strerror}" if error.filename else error.strerror or text
    return f"unexpected {type(error).__name__}: {text or 'no reason given'}. --debug shows where"


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; an error is one line, after the usage if it is a usage error."""
        standalone_mode = kwargs.get("standalone_mode", True)
        os.environ.setdefault("PYTHONSAFEPATH", "1")  # workers, too, import nothing from the current folder
        _open_streams()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a σ that a pipe's encoding lacks is no reason to fail
        try:
            with _writing():
                code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except (click.ClickException, AnalogError) as error:
            if not standalone_mode:
                raise
            _show(error)
            sys.exit(error.exit_code)
        except click.Abort:  # an interrupt before the command has begun
            if not standalone_mode:
                raise
            sys.exit(1)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


def _show(error: click.ClickException | AnalogError) -> None:
    """Print an error on stderr; its message is one line."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the help
        pass
    elif isinstance(error, click.ClickException):
        line = one_line(_usage(error) if isinstance(error, click.UsageError) else error.format_message())
        error = click.UsageError(line, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(line)
    else:
        error = click.ClickException(str(error))
    with suppress(OSError):  # there is nowhere else to say it
        error.show()


def _usage(error: click.UsageError) -> str:
    """Return the message of a usage error in the style of all others: no capital, no full stop, one suggestion."""
    text = error.format_message()
    if isinstance(error, click.NoSuchOption):
        return _no_such("option", error.option_name, _flags(error.ctx))
    command = getattr(error, "command_name", None)  # before click 8.4 there is none
    if command is not None:
        return _no_such("command", command, _commands(error.ctx))
    text = re.sub(r"(^|': )([A-Z])(?=[a-z]+ )", lambda found: found[1] + found[2].lower(), text)
    return without_stop(text)


def _no_such(kind: str, name: str, known: Collection[str]) -> str:
    close = nearest(name, known)
    return f"no such {kind} {name!r}" + ("" if close is None else f": did you mean {close!r}?")


def _flags(ctx: click.Context | None) -> list[str]:
    """Return the long options of the command that runs."""
    params = [] if ctx is None else ctx.command.get_params(ctx)
    return [flag for param in params for flag in (*param.opts, *param.secondary_opts) if flag.startswith("--")]


def _commands(ctx: click.Context | None) -> list[str]:
    """Return the commands of the group that runs."""
    return ctx.command.list_commands(ctx) if ctx is not None and isinstance(ctx.command, click.Group) else []


def _open_streams() -> None:
    """Reopen a closed stream (`>&-`) on the null device, so that the next opened file does not take its number."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for the whole process


def _drop_stdout() -> None:
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - what is left to be flushed


@contextmanager
def _writing() -> Iterator[None]:
    """Turn a failure of stdout into an `OutputError`; a reader that has closed the pipe is not a failure."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, AnalogError):
            raise
        _drop_stdout()
        raise OutputError(f"cannot write to the standard output: {error.strerror or error}") from error


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text and tables with control characters escaped, tables as wide as they are."""
    from rich.console import Console
    from rich.text import Text

    class Printing(Console):
        """Prints text and tables with control characters escaped."""

        def render_str(self, text: str, **options: Any) -> Text:
            """Return `text` for a terminal."""
            return super().render_str(printable_lines(text), **options)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Printing(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def show(*things: Any) -> None:
    """Print text and tables on stdout."""
    printing = console()
    patience.clear()
    with _writing():
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
    with _writing():
        click.echo("".join(character if character == "\n" else _escaped(character) for character in text))


def _escaped(character: str) -> str:
    """Return a character, escaped as JSON does if it is not printable: such characters occur in strings only."""
    return character if character.isprintable() else json.dumps(character)[1:-1]


def several(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds several options in this order."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail in plain words."""
        try:
            number = int(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if (self.min is not None and number < self.min) or (self.max is not None and number > self.max):
            self.fail(f"{number} is not in the range {self._range(self.max)}", param, ctx)
        return number

    def _describe_range(self) -> str:
        """Return the range for the help, without limits beyond all practical values."""
        most = None if self.max is None or self.max > _PRACTICAL else self.max
        return "" if self.min is None and most is None else self._range(most)

    def _range(self, most: float | None) -> str:
        left = "" if self.min is None else f"{self.min}<=x" if most is not None else f"x>={self.min}"
        return left if most is None else f"{left or 'x'}<={int(most):,}"


class Floats(NumbersType):
    """Comma-separated numbers, such as 0.485,0.456,0.406."""

    name = "numbers"
    listed = True

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers, or fail as click does."""
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
        try:
            return tuple(float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not a comma-separated list of numbers", param, ctx)


class Words(WordsType):
    """Comma-separated words; a word with options keeps its own commas, as gaussian:sigma=0.1,low=0."""

    name = "words"
    listed = of_text = True  # as a file of options has it: a list, of texts

    def __init__(self, choices: tuple[str, ...] = ()) -> None:
        self._choices = choices  # that a shell offers; what is typed is checked by its setting

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Return the lists that complete an incomplete one."""
        from onnx_analog.cli import completion

        return completion.some_of(lambda: self._choices)(ctx, param, incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words, or fail as click does."""
        parts = [part.strip() for part in (value.split(",") if isinstance(value, str) else map(str, value))]
        words: list[str] = []
        for part in parts:
            if not part:
                self.fail(f"{value!r} has an empty entry", param, ctx)
            if words and "=" in part and ":" in words[-1] and ":" not in part:
                words[-1] += f",{part}"
            else:
                words.append(part)
        return tuple(words)


class Integers(IntegersType):
    """Comma-separated whole numbers, at least `least`, such as 1,3,10."""

    name = "integers"
    listed = True

    def __init__(self, *, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, or fail as click does."""
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
        if not all(str(part).strip() for part in parts):
            self.fail(f"{value!r} has an empty entry", param, ctx)
        entry = Whole(self._least)
        return tuple(entry.convert(part, param, ctx) for part in parts)


class Finite(NumberType):
    """A finite number within the given limits: above `above`, below `below`, from `least` to `most`."""

    name = "number"

    def __init__(
        self,
        *,
        above: float | None = None,
        least: float | None = None,
        most: float | None = None,
        below: float | None = None,
    ) -> None:
        self._above = -math.inf if above is None else above
        self._least, self._most, self._open = least, most if below is None else below, below is not None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail as click does."""
        try:
            number = float(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a number", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        if not number > self._above:
            self.fail(f"{value!r} is not above {self._above:g}", param, ctx)
        return float(click.FloatRange(self._least, self._most, max_open=self._open).convert(number, param, ctx))


class Seconds(NumberType):
    """A time, such as 20s, 90m, 1h, 1d, 2w or 1y; a bare number is in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds, or fail as click does."""
        from onnx_analog.channels.modifiers import seconds

        try:
            return float(value) if isinstance(value, int | float) else seconds(str(value))
        except OptionError as error:
            self.fail(str(error), param, ctx)
