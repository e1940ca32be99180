"""The command line: parse, call the library, print.

Tables, or with --json nothing but JSON, go to stdout; progress, warnings and errors to stderr. Exit codes: 0 done, 1
failed or a check did not hold, 2 usage, 3 nothing to store. Heavy imports wait until a command needs them.

Each module of `onnx_analog.cli.commands` is a command: a file that is added there adds its command.
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
    main.add_command(import_module(f"{commands.__name__}.{module.name}").command, module.name)
