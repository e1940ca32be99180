"""The command line: parses options, calls the library, prints results.

Tables, or with --json only JSON, go to stdout; progress, warnings and errors go to stderr. docs/exit_codes.md lists the
exit codes. Heavy imports wait until a command needs them.

Each module in `onnx_analog.cli.commands` is a command, so adding a file adds a command.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import click

from onnx_analog.cli import commands
from onnx_analog.cli.console import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="onnx-analog")
def main() -> None:
    """Store the weights of any ONNX model in noisy analog memory.

    \b
        onnx-analog demo
        onnx-analog protect model.onnx --cells-small 1 --cells-large 20
    """


for module in iter_modules(commands.__path__):
    command: click.Command = import_module(f"{commands.__name__}.{module.name}").command
    command.name = module.name  # as pages of reference name it
    main.add_command(command)
