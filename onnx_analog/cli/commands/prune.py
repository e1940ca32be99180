"""The command `prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.options import FILE, FORCE, JSON, OUT, PRUNE_SCOPE, SELECTION, selection_of, shown, stem
from onnx_analog.cli.printing import print_json, show
from onnx_analog.cli.settings import argument


@click.command(cls=Command)
@click.argument("model", type=FILE)
@argument("sparsity", required=True, help="Share of the weights to set to zero.")
@PRUNE_SCOPE
@SELECTION
@click.option("-o", "--output", type=OUT, help="[default: MODEL with the suffix .pruned.onnx]")
@FORCE
@JSON
def command(
    model: Path,
    sparsity: float,
    prune_scope: str,
    output: Path | None,
    force: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Set the smallest weights of MODEL to zero.

    Example:

    \b
        onnx-analog prune model.onnx --sparsity 0.8
    """
    from onnx_analog import api
    from onnx_analog.disk import writing
    from onnx_analog.graph import files

    target = output or model.with_name(f"{stem(model)}.pruned.onnx")
    perhaps = [writing.data_beside(target)]
    writing.check_outputs([target], files.files_of(model), force=force, perhaps=perhaps)
    pruned = api.prune(model, sparsity=sparsity, prune_scope=prune_scope, selection=selection_of(selection))
    pruned.save(target, force=force)
    if as_json:
        return print_json({"model": str(target), "zeros": pruned.zeros, "weights": pruned.weights})
    show(f"{pruned}: {shown(target)}")
    return None
