"""The command `manifest`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.options import FILE, FORCE, JSON, LOAD, OUT, shown
from onnx_analog.cli.printing import print_json, show
from onnx_analog.cli.progress import status
from onnx_analog.errors import ManifestError


@click.command(cls=Command)
@click.argument("protected", type=FILE)
@click.option(
    "--check",
    type=FILE,
    metavar="MANIFEST",
    help="Say only whether this manifest describes PROTECTED. Exit 1 unless it does.",
)
@click.option(
    "--write-image",
    type=OUT,
    metavar="FILE",
    help="Write what is to be programmed into each cell, as .npz or .csv, and show what was written.",
)
@FORCE
@LOAD
@JSON
def command(protected: Path, check: Path | None, write_image: Path | None, force: bool, as_json: bool) -> None:
    """Show the contents and the cost of the cells of PROTECTED.

    PROTECTED is a protected model or its manifest. The cost is compared with that of digital memory.
    With --write-image, PROTECTED is a model, and its cells are written one by one.

    Example:

    \b
        onnx-analog manifest model.protected.onnx
    """
    from onnx_analog import _array
    from onnx_analog._inputs import load_model
    from onnx_analog._readback import open_with_warnings
    from onnx_analog.cli import model_tables
    from onnx_analog.graph import manifest_json as manifests

    model = None
    if protected.suffix == ".json":
        manifest = manifests.read(protected)
        for flag, file in (("--check", check), ("--write-image", write_image)):
            if file is not None:
                raise ManifestError(f"{str(protected)!r} is a manifest; {flag} needs the protected model")
    else:
        model = open_with_warnings(load_model(protected))
        manifest = model.manifest
    if check is not None:
        manifests.read(check).compare(manifest, shown(check))
    if write_image is not None:
        with status("writing the image") as progress:
            image = _array.write_image(protected, write_image, force=force, progress=progress)
        if as_json:
            return print_json({"image": str(write_image), **image.to_dict()})
        show(f"{image}: {shown(write_image)}")
        return None
    if as_json:
        return print_json(manifest.to_dict())
    if check is None:
        show(*model_tables.account_tables(manifest, model))
    else:
        show(f"{shown(check)} describes {shown(protected)}: {manifest}")
    return None
