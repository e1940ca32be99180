"""The command `inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_analog.cli.console import Command, print_json, show
from onnx_analog.cli.options import FILE, JSON, LOAD, SELECTION, selection_of


@click.command(cls=Command)
@click.argument("model", type=FILE)
@SELECTION
@LOAD
@JSON
def command(model: Path, include: tuple[str, ...], exclude: tuple[str, ...], min_size: int, as_json: bool) -> None:
    """Show which weights of MODEL would be stored, which would not, and why.

    Example:

    \b
        onnx-analog inspect model.onnx
    """
    from onnx_analog import api
    from onnx_analog.cli import model_tables

    found = api.inspect(model, selection=selection_of(include, exclude, min_size))
    if as_json:
        return print_json(found.to_dict())
    show(*model_tables.inspection_tables(found.rows, protected=found.protected))
    show(f"opset {found.opset}, IR {found.ir_version}; BatchNorm: {found.batch_norm}")
    if found.subnormal:
        show(f"{found.subnormal:,} weights are subnormal (below 1.2e-38), which slows inference: set them to zero")
    if found.refused is not None:
        show(f"protect refuses it: {found.refused}")
    if found.read_back is not None:
        show(f"read from noisy cells: {found.read_back}")
    return None
