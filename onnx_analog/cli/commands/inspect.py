"""The command `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_analog.cli.console import Command, print_json, show
from onnx_analog.cli.options import FILE, JSON, LOAD, SELECTION, selection_of


@click.command(cls=Command)
@click.argument("model", type=FILE)
@SELECTION
@LOAD
@JSON
def command(model: Path, as_json: bool, **selection: Any) -> None:
    """Show which weights of MODEL would be stored, which would not, and why.

    Example:

    \b
        onnx-analog inspect model.onnx
    """
    from onnx_analog import api
    from onnx_analog.cli import model_tables

    inspection = api.inspect(model, selection=selection_of(selection))
    if as_json:
        return print_json(inspection.to_dict())
    show(*model_tables.inspection_tables(inspection.rows, protected=inspection.protected))
    show(f"opset {inspection.opset}, IR {inspection.ir_version}; BatchNorm: {inspection.batch_norm}")
    if inspection.subnormal:
        show(f"{inspection.subnormal:,} weights are subnormal (below 1.2e-38), which slows inference: set them to zero")
    if inspection.refused is not None:
        show(f"protect refuses it: {inspection.refused}")
    if inspection.read_back is not None:
        show(f"read from noisy cells: {inspection.read_back}")
    return None
