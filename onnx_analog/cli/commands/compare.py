"""The command `compare`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.options import FILE, JSON
from onnx_analog.cli.printing import print_json, show


@click.command(cls=Command)
@click.argument("measured", type=FILE)
@click.argument("simulated", type=FILE)
@JSON
def command(measured: Path, simulated: Path, as_json: bool) -> None:
    """Show whether simulated arrays predict a measured one.

    MEASURED and SIMULATED are files of `readback --statistics`: of a real array, and of simulated ones.

    Example:

    \b
        onnx-analog compare measured.json simulated.json
    """
    from onnx_analog._array import compare
    from onnx_analog.cli.array_tables import comparison_tables

    comparison = compare(measured, simulated)
    if as_json:
        return print_json(comparison.to_dict())
    show(*comparison_tables(comparison), str(comparison))
    return None
