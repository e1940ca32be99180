"""Errors as the command line tells them: one line, in the words of a command, and an exit code."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress

import click

from onnx_analog.errors import IMPORT_FIRST, OR_DECODE, AnalogError, FunctionError, one_line, without_stop
from onnx_analog.spelling import nearest

_STATES = r"(?= (is|are|add|has|have|contains|names|exclude|and \S+ exclude)\b)"
_SECOND = r"(?:(?<= and )|(?<= as )|(?<= nor ))"  # before the second argument that a message names
_QUOTED = r"(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|\"(?:[^\"\\]|\\.)*\""
_AS_IT_IS = r": choose from | failed with "  # names of which some have no option; what a function of the user's says


class Failure(click.ClickException):
    """An error with an exit code of its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class, and reads it of the instance


class Answered(Failure):
    """An answer that ends a command with an exit code, and was printed already: it is not shown again."""


def failure_of(error: Exception, ctx: click.Context) -> click.ClickException:
    """Return what a command ends with because of an error: one line, with options for the names of arguments."""
    if isinstance(error, AnalogError):
        where = ". --debug shows where" * isinstance(error, FunctionError)
        text = f"{error}{where}".replace(OR_DECODE, "")
        if any("--load" in param.opts for param in ctx.command.params):
            text = text.replace(IMPORT_FIRST, "name it with --load")
        return Failure(text if error.names_fields else with_options(text, ctx.command), error.exit_code)
    return click.ClickException(one_line(_message_of(_cause(error))))


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
    to leave it out. What is quoted stays as it is, for a user typed it, and so do a list of names to choose from and
    what a function of the user's says.
    """
    flags = {str(param.name): param.opts[0] for param in command.params if isinstance(param, click.Option)}
    message, quoted = _without_quoted(message, flags)
    message, *rest = re.split(f"({_AS_IT_IS})", message, maxsplit=1)
    for name, flag in flags.items():
        if "_" in name and flag.startswith("--"):
            message = re.sub(rf"(?<![\w./'\":,-]){name}(?!\w|['\"=]|[.:]\w)", flag, message)
        elif flag.startswith("--"):
            message = re.sub(rf"^{name}{_STATES}", flag, message)
            message = re.sub(rf"{_SECOND}{name}(?= (is|exclude)\b)", flag, message)
    message = _asked(message, {name: flag for name, flag in flags.items() if flag.startswith("--")})
    if "--force" in flags.values():
        message = message.replace("force=True", "--force")
    return one_line(re.sub("''", lambda _: quoted.pop(0), "".join((message, *rest))))


def in_options(message: str) -> str:
    """Return a message of the library in the words of the command that runs, if one does."""
    ctx = click.get_current_context(silent=True)
    return message if ctx is None else with_options(message, ctx.command)


def _without_quoted(message: str, flags: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return a message with '' for each quoted text, and these texts; `name="value"` has its option already."""
    quoted: list[str] = []

    def kept(found: re.Match[str]) -> str:
        name, text = found[1], found[2]
        quoted.append(text if name is None else text[1:-1])
        return "''" if name is None else f"{flags[name]} ''"

    names = "|".join(map(re.escape, flags)) or "(?!)"
    return re.sub(rf"(?:(?<![\w.])({names})=(?=\"))?({_QUOTED})", kept, message), quoted


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
    return f"unexpected {type(error).__name__}: {without_stop(text) or 'no reason given'}. --debug shows where"


def show_error(error: click.ClickException | AnalogError) -> None:
    """Print an error on stderr; its message is one line."""
    if isinstance(error, Answered):
        return
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the help
        pass
    elif isinstance(error, click.ClickException):
        line = one_line(_usage(error) if isinstance(error, click.UsageError) else error.format_message())
        error = click.UsageError(line, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(line)
    else:
        error = click.ClickException(str(error))
    with suppress(OSError):  # there is nowhere else to say it
        error.show(sys.stderr)  # named, as click writes UTF-8 on an ASCII stream of its own choice


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
