"""Commands, groups of commands, and their options: what every command has in common.

Imports nothing heavy.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import click

from onnx_analog.cli import config, patience
from onnx_analog.cli.ascii_words import spell, spelled
from onnx_analog.cli.failures import failure_of, show_error
from onnx_analog.cli.logs import QUIET, is_quiet, log_to_stderr
from onnx_analog.cli.paths import FILE, OUT
from onnx_analog.cli.printing import drop_stdout, open_streams, writing_stdout
from onnx_analog.errors import AnalogError

F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P", click.Parameter, click.Option, click.Option | None)

logger = logging.getLogger(__name__)

_DETAIL = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)  # --debug, --verbose, neither, --quiet


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

    def get_help(self, ctx: click.Context) -> str:
        """Return the help, in words where stdout lacks a character."""
        return spelled(super().get_help(ctx), sys.stdout.encoding)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option --help, which says so where stdout fails."""
        return _prints(super().get_help_option(ctx))

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
        ctx.meta[QUIET] = quiet
        log_to_stderr(self, _DETAIL[0 if debug else 1 if verbose else 3 if quiet else 2])
        try:
            return self._saving(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # whoever read the output has seen enough, as in `| head`
            drop_stdout()
            ctx.exit(1)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # where ^C stands
            stopped = self._stopped
            raise click.ClickException(stopped if isinstance(stopped, str) else stopped(ctx.params)) from None
        except SystemExit as error:  # of a function of the user's: an exit code of 0 would say that all is well
            if isinstance(error.__context__, BrokenPipeError):  # which rich met first
                drop_stdout()
                ctx.exit(1)
            raise click.ClickException(f"a function of your own called sys.exit({error})") from error
        except Exception as error:
            if debug:
                traceback.print_exc()
            raise failure_of(error, ctx) from error

    def _saving(self, ctx: click.Context) -> Any:
        """Call the command, and write its options where --save-config says, unless it fails to do its work."""
        target = None if self._saves_config else ctx.params.pop("save_config")
        if target is None:
            return self._timed(ctx)
        from onnx_analog.disk import writing

        config.check_saved(ctx, target)
        config.text_of(ctx)  # or it refuses a name, before anything is done
        verdict = None
        try:
            result = self._timed(ctx)
        except click.UsageError:
            raise
        except click.ClickException as error:  # the answer is no, or not known
            verdict = error
        text = config.text_of(ctx)  # now the command has said which defaults depend on other options
        writing.write_all({target: writing.write_text(text)}, force=bool(ctx.params.get("force")))
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


def _prints(option: P) -> P:
    """Let an option that prints something and ends say so where stdout fails."""
    if option is not None and option.callback is not None and not hasattr(option.callback, "__wrapped__"):
        option.callback = writing_stdout()(option.callback)
    return option


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


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for param in self.params:
            if param.is_eager:
                _prints(param)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help, in words where stdout lacks a character."""
        return spelled(super().get_help(ctx), sys.stdout.encoding)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option --help, which says so where stdout fails."""
        return _prints(super().get_help_option(ctx))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; an error is one line, after the usage if it is a usage error."""
        standalone_mode = kwargs.get("standalone_mode", True)
        os.environ.setdefault("PYTHONSAFEPATH", "1")  # workers, too, import nothing from the current folder
        open_streams()
        for stream in (sys.stdout, sys.stderr):
            spell(stream)  # a σ that a pipe's encoding lacks is no reason to fail
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except (click.ClickException, AnalogError) as error:
            if not standalone_mode:
                raise
            show_error(error)
            sys.exit(error.exit_code)
        except OSError as error:  # of what options name, which is looked at before a command runs
            if not standalone_mode:
                raise
            show_error(failure_of(error, click.Context(self)))
            sys.exit(2)
        except click.Abort:  # an interrupt before the command has begun, whose code 1 may be an answer
            if not standalone_mode:
                raise
            show_error(click.ClickException("stopped; nothing was written"))
            sys.exit(2)  # also of commands whose code 1 is an answer
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code


def several(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds several options in this order."""

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add
