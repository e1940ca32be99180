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
    """Show the cells of PROTECTED, a model or its manifest, and their cost compared with digital memory.

    Example:

    \b
        onnx-analog manifest model.protected.onnx
    """
    from onnx_analog import api
    from onnx_analog.cli import model_tables
    from onnx_analog.graph import manifest_json as manifests

    if protected.suffix == ".json":
        account = manifests.read(protected)
        if check is not None:
            raise ManifestError(f"{str(protected)!r} is a manifest, and --check needs the model as PROTECTED")
    else:
        account = api.account(protected)
    if check is not None:
        manifests.read(check).compare(account)
    if as_json:
        return print_json(account.to_dict())
    show(*model_tables.account_tables(account))
    if check is not None:
        show(f"{shown(check)} describes {shown(protected)}")
    return None
