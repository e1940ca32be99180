"""The command `manifest`."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_analog.cli.console import Command, print_json, show
from onnx_analog.cli.options import FILE, JSON, LOAD, shown
from onnx_analog.errors import ManifestError


@click.command(cls=Command)
@click.argument("protected", type=FILE)
@click.option("--check", type=FILE, metavar="MANIFEST", help="Exit 1 unless this manifest describes PROTECTED.")
@LOAD
@JSON
def command(protected: Path, check: Path | None, as_json: bool) -> None:
    """Show the contents and the cost of the cells of PROTECTED.

    PROTECTED is a protected model or its manifest. The cost is compared with that of digital memory.

    Example:

    \b
        onnx-analog manifest model.protected.onnx
    """
    from onnx_analog import api
    from onnx_analog.cli import model_tables
    from onnx_analog.graph import manifest_json as manifests

    if protected.suffix == ".json":
        manifest = manifests.read(protected)
        if check is not None:
            raise ManifestError(f"{str(protected)!r} is a manifest; --check needs the protected model")
    else:
        manifest = api.account(protected)
    if check is not None:
        manifests.read(check).compare(manifest, shown(check))
    if as_json:
        return print_json(manifest.to_dict())
    show(*model_tables.account_tables(manifest))
    if check is not None:
        show(f"{shown(check)} describes {shown(protected)}")
    return None
