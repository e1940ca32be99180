"""Commands whose exit code is an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.failures import Answered, Failure

NO, FAILED, UNDECIDED = 1, 2, 4  # exit codes


class Verdict(Failure):
    """An answer that is no, or not decided, and is not the last line on stdout: it is said on stderr."""


class Gate(Command):
    """A command whose exit code 1 says "no", and nothing else, where it is asked: whatever fails has code 2."""

    def asks(self, options: Mapping[str, Any]) -> bool:  # noqa: ARG002 - commands that need not ask look at them
        """Return whether options ask for an answer."""
        return True

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; an answer has a class of its own."""
        try:
            return super().invoke(ctx)
        except (Verdict, Answered):
            raise
        except click.ClickException as error:
            if error.exit_code != NO or not self.asks(ctx.params):
                raise
            raise Failure(error.format_message(), FAILED) from error
        except click.exceptions.Exit as ended:  # the reader of a pipe has closed it
            ctx.exit(FAILED if ended.exit_code == NO and self.asks(ctx.params) else ended.exit_code)
