"""The command `protect`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.cli import completion
from onnx_analog.cli.console import Command, Option
from onnx_analog.cli.memory import FAMILY, OF_FAMILY, save_defaults
from onnx_analog.cli.options import (
    CHANGES,
    CHANNEL,
    COMPENSATE,
    FILE,
    FORCE,
    JSON,
    LOAD,
    OUT,
    PREPROCESSING,
    PRUNE_SCOPE,
    SELECTION,
    SPARSITY,
    modifiers_of,
    selection_of,
    shown,
    stem,
)
from onnx_analog.cli.paths import FILE_OR_FUNCTION
from onnx_analog.cli.printing import print_json, show
from onnx_analog.cli.progress import status
from onnx_analog.cli.settings import options_of
from onnx_analog.coding.scheme import Paper
from onnx_analog.errors import printable

if TYPE_CHECKING:
    from onnx_analog.graph.protected import ProtectedModel


@click.command(cls=Command)
@click.argument("model", type=FILE)
@options_of(Paper, depends={})
@SPARSITY
@PRUNE_SCOPE
@CHANNEL
@CHANGES
@LOAD
@SELECTION
@COMPENSATE
@PREPROCESSING
@click.option("-o", "--output", type=OUT, help="[default: MODEL with the suffix .protected.onnx]")
@click.option("--manifest", type=OUT, help="[default: the output with .manifest.json in place of .protected.onnx]")
@FORCE
@JSON
@click.option(
    "--plan",
    cls=Option,
    section=FAMILY,
    type=FILE_OR_FUNCTION,
    metavar="FILE",
    shell_complete=completion.files,
    help="JSON file that says how each tensor is stored, or module:function; see `onnx-analog plan`.",
)
@click.option(
    "--save-plan", cls=Option, section=FAMILY, type=OUT, help="Also write the plan: how each tensor is stored."
)
@OF_FAMILY
def command(
    model: Path,
    output: Path | None,
    manifest: Path | None,
    save_plan: Path | None,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Store the weights of MODEL in noisy analog cells.

    Without noise, the protected model computes what MODEL computes.

    The paper's four strategies come first. The settings at the end describe the whole family of schemes that they
    belong to: any number of classes, quantisation to integers, and a scheme for each tensor.

    Example:

    \b
        onnx-analog protect model.onnx --cells-small 1 --cells-large 20
    """
    from onnx_analog import api
    from onnx_analog.cli import model_tables
    from onnx_analog.disk import writing
    from onnx_analog.graph import files

    target = output or model.with_name(f"{model.name.removesuffix('.onnx')}.protected.onnx")
    account = manifest or target.parent / f"{stem(target)}.manifest.json"
    outputs = [target, account, *([save_plan] if save_plan else [])]
    named = [
        Path(choices[name]) for name in ("channel", "side_channel", "plan", "compensate") if choices[name]
    ]  # each may be a file
    writing.check_outputs(
        outputs, chain(files.files_of(model), named), force=force, perhaps=[writing.data_beside(target)]
    )
    selection, modifiers = selection_of(choices), modifiers_of(choices)
    save_defaults({**choices, "modifiers": modifiers})
    with status("protect") as progress:
        protected = api.protect(
            model,
            selection=selection,
            command=printable(shlex.join(["onnx-analog", *sys.argv[1:]])),  # a name may be no text
            modifiers=modifiers,
            progress=progress,
            **choices,
        )
    writers = {target: protected.writer(), account: writing.write_text(protected.manifest.to_json() + "\n")}
    if save_plan:
        writers[save_plan] = writing.write_text(protected.plan.to_json())
    writing.write_all(writers, force=force)
    if as_json:
        return print_json(protected.manifest.to_dict())
    tables = model_tables.account_tables(protected.manifest, protected)
    show(*tables, *_other_samples(protected), f"model: {shown(target)}", f"manifest: {shown(account)}")
    if save_plan:
        show(f"plan: {shown(save_plan)}")
    return None


def _other_samples(protected: ProtectedModel) -> Iterator[str]:
    """Say that samples compensate which tune, choosing at random, did not compensate with."""
    verified = protected.verified
    if verified is not None and verified.compensated_by is not None and protected.plan.compensated:
        yield (
            "compensated by other samples than when the plan was verified, so cells and losses differ a little: "
            "`tune --protected` writes the model that was verified"
        )
