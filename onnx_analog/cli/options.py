"""The options that several commands have, and what they become."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.cli.console import Floats, Fraction, Seconds, Whole, Words, several

if TYPE_CHECKING:
    from onnx_analog.channels.modifiers import Modifiers
    from onnx_analog.graph.weights import Selection


class _Path(click.Path):
    """A path; a file of options may hold one that no file can have."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click does."""
        if "\0" in str(value):
            self.fail("a path cannot hold a zero byte", param, ctx)
        return super().convert(value, param, ctx)


class _Out(_Path):
    """A path to be written. "-" is refused: elsewhere it is stdout."""

    def __init__(self, *, folder: bool) -> None:
        super().__init__(path_type=Path)
        self._folder = folder  # whether it may be one

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click does."""
        text = os.fspath(value)
        if not text:
            self.fail("the path is empty", param, ctx)
        if text == "-":
            self.fail("'-' would be a file, not the standard output. Write ./- for a file of that name.", param, ctx)
        if not self._folder and (text.endswith("/") or Path(text).name in ("", "..")):
            self.fail(f"{text!r} is a folder; a file is needed", param, ctx)
        return super().convert(value, param, ctx)


FILE = _Path(exists=True, dir_okay=False, path_type=Path)
OUT = _Out(folder=False)
OUT_OR_FOLDER = _Out(folder=True)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
FORCE = click.option("--force", is_flag=True, help="Replace existing files.")
SEED = click.option(
    "--seed", type=Whole(0, 2**63 - 1), default=0, help="Of the noise; the same seed gives the same results."
)
SPARSITY = click.option(
    "--sparsity", type=Fraction(open_end=True), default=0.0, help="Share of weights to prune first."
)
PRUNE_SCOPE = click.option(
    "--prune-scope",
    type=click.Choice(("tensor", "model")),
    default="model",
    help="Prune the smallest of each tensor, or of the model.",
)
SELECTION = several(
    click.option(
        "--include", multiple=True, metavar="REGEX", help="Store only tensors whose name matches; repeatable."
    ),
    click.option(
        "--exclude", multiple=True, metavar="REGEX", help="Keep tensors whose name matches digital; repeatable."
    ),
    click.option("--min-size", type=Whole(1), default=256, help="Tensors with fewer weights stay digital."),
)
CHANGES = several(
    click.option(
        "--residuals",
        type=click.Choice(["gaussian", "empirical"]),
        help="Noise: normal, or drawn from the measurements.",
    ),
    click.option(
        "--cells-on",
        type=click.Choice(["different", "same"]),
        help="Whether the cells of a weight are different devices.",
    ),
    click.option("--read-after", type=Seconds(), help="Time from programming to read: 20s, 1h, 1d."),
    click.option("--write-bits", type=Whole(0, 16), help="Precision of each write; 0: no limit."),
    click.option("--read-bits", type=Whole(0, 16), help="Precision of each read of a cell; 0: no limit."),
)
DATA = click.option(
    "--data", type=FILE, required=True, help="npz file: one array per input (or x), and optionally labels y."
)
PREPROCESSING = several(
    click.option(
        "--mean", type=Floats(), default="0", help="Subtracted from uint8 images scaled to 0 to 1: m or r,g,b."
    ),
    click.option("--std", type=Floats(), default="1", help="What they are divided by then: s or r,g,b."),
    click.option("--preprocess", metavar="MODULE:FUNCTION", help="Function that prepares the array of each input."),
)
RUNNING = several(
    click.option(
        "--metric",
        metavar="NAME",
        help="top1, top5, agreement, exact_match, relative_error, sqnr_db, mse, r2; or module:function, "
        "f(outputs, labels=, clean=) -> number.  [default: chosen by the data and outputs]",
    ),
    click.option("--output", metavar="NAME", help="Output to measure.  [default: the first suitable one]"),
    click.option(
        "--class-axis", type=Whole(), help="Axis of the classes in that output.  [default: the only possible one]"
    ),
    click.option("--samples", type=Whole(1), help="Use only this many samples, from the first.  [default: all]"),
    click.option("--batch", type=Whole(1), default=64, help="Samples per call of the model."),
    click.option(
        "--providers", type=Words(), default="CPUExecutionProvider", help="Providers of onnxruntime, comma-separated."
    ),
)


def channel_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of channels that a shell may offer for what was typed; of a list, for its last word."""
    from importlib.metadata import entry_points

    before, comma, last = incomplete.rpartition(",")
    names = sorted({entry.name for entry in entry_points(group="onnx_analog.channels")})
    return [before + comma + name for name in names if name.startswith(last)]


OTHER_CHANNEL = click.option(
    "--channel",
    shell_complete=channel_names,
    help="Use this channel instead; its span must cover the stored one's.",
)


def modifiers_of(choices: dict[str, Any]) -> Modifiers:
    """Take what the user asks of the channel out of `choices`."""
    from onnx_analog.channels.modifiers import Modifiers

    names = ("residuals", "cells_on", "write_bits", "read_bits")
    asked = {name: choices.pop(name) for name in names}
    return Modifiers(read_after_s=choices.pop("read_after"), **asked)


def selection_of(include: Sequence[str], exclude: Sequence[str], min_size: int) -> Selection:
    """Return which tensors the user asks for."""
    from onnx_analog.graph.weights import Selection

    return Selection(include=tuple(include), exclude=tuple(exclude), min_size=min_size)
