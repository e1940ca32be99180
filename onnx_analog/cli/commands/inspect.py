"""The command `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.options import FILE, JSON, LOAD, SELECTION, selection_of
from onnx_analog.cli.printing import print_json, show
from onnx_analog.display import counted


@click.command(cls=Command)
@click.argument("model", type=FILE)
@SELECTION
@LOAD
@JSON
def command(model: Path, as_json: bool, **selection: Any) -> None:
    """List the weights of MODEL that would be stored, and the others.

    For each weight that stays digital, the list gives the reason.

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
        weights = counted(inspection.subnormal, "subnormal weight")
        show(
            f"{weights} (below 1.2e-38 in magnitude), which most processors compute slowly. "
            "To set the smallest weights to zero: onnx-analog prune MODEL --sparsity SHARE"
        )
    if inspection.normalisation is not None:
        show(f"uint8 images: normalised with {inspection.normalisation}, as the model remembers")
    if inspection.refused is not None:
        show(f"protect refuses this model: {inspection.refused}")
    if inspection.read_back is not None:
        show(f"read from noisy cells: {inspection.read_back}")
    return None
