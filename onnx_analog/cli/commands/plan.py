"""The commands `onnx-analog plan ...`: files that say how each tensor is stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnx_analog.cli.console import Group
from onnx_analog.cli.options import FILE, JSON, LOAD
from onnx_analog.cli.printing import print_json, show

if TYPE_CHECKING:
    from onnx_analog.coding.plan import Plan
    from onnx_analog.graph.manifest import Manifest
    from onnx_analog.graph.protected import ProtectedModel


@click.group(cls=Group)
def command() -> None:
    """Show plans: files that say how each tensor is stored.

    `protect --save-plan` writes a plan; `protect --plan` and `sweep --plan` use it. docs/formats.md describes the file.

    Example:

    \b
        onnx-analog plan show model.protected.onnx
    """


@command.command(name="show")
@click.argument("plan", type=FILE, metavar="FILE")
@LOAD
@JSON
def plan_show(plan: Path, as_json: bool) -> None:
    """Show how each tensor is stored.

    FILE is the JSON file of a plan, a manifest, or a protected model.

    Example:

    \b
        onnx-analog plan show model.protected.onnx
    """
    from onnx_analog.cli import model_tables

    shown, manifest, protected = _read(plan)
    if as_json:
        return print_json(shown.to_file())
    show(model_tables.plan_table(shown, manifest, protected))
    return None


def _read(path: Path) -> tuple[Plan, Manifest | None, ProtectedModel | None]:
    """Return the plan of a file, and manifest and model if it has them: JSON is a plan or a manifest, else a model."""
    from onnx_analog import api
    from onnx_analog.coding.plan import Plan
    from onnx_analog.disk import kinds
    from onnx_analog.graph import manifest_json

    if path.suffix != ".json":
        protected = api.load(path)
        return protected.plan, protected.manifest, protected
    if kinds.found_in(path) != kinds.MANIFEST:
        return Plan.read(path), None, None
    known = manifest_json.read(path)
    return known.plan, known, None
