"""The command `remember`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.options import FILE, FORCE, JSON, OUT, shown
from onnx_analog.cli.printing import print_json, show
from onnx_analog.cli.settings import argument

_NUMBERS = "Per-channel %s of uint8 images scaled to [0, 1], as in training: one number, or r,g,b."


@click.command(cls=Command)
@click.argument("model", type=FILE)
@argument("mean", required=True, help=_NUMBERS % "mean")
@argument("std", required=True, help=_NUMBERS % "standard deviation")
@click.option("-o", "--output", type=OUT, required=True, help="The model that remembers them.")
@FORCE
@JSON
def command(
    model: Path, mean: tuple[float, ...], std: tuple[float, ...], output: Path, force: bool, as_json: bool
) -> None:
    """Write a copy of MODEL that remembers how its images are normalised.

    Commands need no --mean and --std for the copy, or for models made from it. They say which numbers they use.

    Example:

    \b
        onnx-analog remember model.onnx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o with-mean.onnx
    """
    from onnx_analog import api
    from onnx_analog.disk import writing
    from onnx_analog.graph import files
    from onnx_analog.graph.normalisation import Normalisation

    perhaps = [writing.data_beside(output)]
    writing.check_outputs([output], files.files_of(model), force=force, perhaps=perhaps)
    remembering = api.remember(model, mean=mean, std=std)
    numbers = Normalisation(mean, std)
    same = files.remembering(model, numbers)
    if same is None:
        remembering.save(output, force=force)
    else:
        writing.write_all({output: writing.write_bytes(same)}, force=force)
    if as_json:
        return print_json({"model": str(output), "mean": list(mean), "std": list(std)})
    show(f"remembers {numbers}: {shown(output)}")
    return None
