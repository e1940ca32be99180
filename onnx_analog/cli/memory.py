"""Options of commands that take a model and its memory: stored already, or to be stored as `protect` does it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import click

from onnx_analog.cli import completion, config
from onnx_analog.cli.console import several
from onnx_analog.cli.options import CHANGES, COMPENSATE, PRUNE_SCOPE, SELECTION, SPARSITY, selection_of
from onnx_analog.cli.paths import FILE_OR_FUNCTION
from onnx_analog.cli.settings import argument, options_of
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.settings import settings_of

FAMILY = "Settings of the family of schemes"
_BY_STRATEGY = "set by --strategy"
_DEPENDS = {
    "sign": _BY_STRATEGY,
    "classes": _BY_STRATEGY,
    "shares": "with two classes, that of --large-fraction",
    "bounds": "",  # without partition bounds, there are none
    "cells": "--cells-small and --cells-large",
}

MEMORY = several(
    click.option(
        "--plan",
        type=FILE_OR_FUNCTION,
        metavar="FILE",
        shell_complete=completion.files,
        help="How a plain MODEL is stored: a plan's JSON file, or module:function.",
    ),
    options_of(Paper, depends={}),
    SPARSITY,
    PRUNE_SCOPE,
    click.option(
        "--channel",
        shell_complete=completion.CHANNEL,
        help="The memory; a protected MODEL is read through it.  [default: pcm, or that of the plan or model]",
    ),
    CHANGES,
    SELECTION,
    COMPENSATE,
)
OF_FAMILY = several(  # at the end of the help
    argument("integers", section=FAMILY),
    options_of(
        Scheme,
        without=(*settings_of(Paper), "channel"),
        section=FAMILY,
        depends=_DEPENDS,
        complete={"side_channel": completion.CHANNEL, "estimator": completion.ESTIMATOR},
    ),
)


def save_defaults(choices: Mapping[str, Any], model: Path | None = None) -> None:
    """Let --save-config write how a plain model is stored where `choices` leave that to defaults.

    Nothing is added where a plan or integers are given, or `model` is protected.
    """
    from onnx_analog._inputs import defaults_of
    from onnx_analog.graph import files
    from onnx_analog.graph.stored import is_protected

    def defaults() -> dict[str, Any]:
        given = {name: choices.get(name) for name in (*settings_of(Paper), *settings_of(Scheme))}
        as_whole = choices.get("plan") is not None or choices.get("integers") is not None
        if as_whole or (model is not None and is_protected(files.load(model))):
            return {}
        return defaults_of(given, choices["modifiers"])

    config.also_save(defaults)


def given_selection(choices: dict[str, Any]) -> Any:
    """Take the selection out of `choices`: None unless something is selected, as a protected model takes none."""
    from onnx_analog.graph.weights import Selection

    selection = selection_of(choices)
    return None if selection == Selection() else selection


def read_files(model: Path, data: Path, choices: dict[str, Any]) -> Iterator[Path]:
    """Yield all files that the command reads, each of which an option may name."""
    from onnx_analog.graph import files

    named = ("channel", "side_channel", "plan", "compensate", "correct")
    models: Iterable[Path] = (model, *([choices["reference"]] if choices.get("reference") else []))
    yield from chain.from_iterable(map(files.files_of, models))
    yield data
    yield from (Path(choices[name]) for name in named if choices.get(name))
