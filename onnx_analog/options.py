"""The options that several commands have, and what they become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_analog import strategies
from onnx_analog.terminal import Floats, Fraction, Seconds, Words, several

if TYPE_CHECKING:
    from onnx_analog.channels.modifiers import Modifiers
    from onnx_analog.tensors import Selection


class _Path(click.Path):
    """A path; a file of options may hold one that no file can have."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click does."""
        if "\0" in str(value):
            self.fail("a path cannot hold a zero byte", param, ctx)
        return super().convert(value, param, ctx)


class _Out(_Path):
    """A path to be written. "-" is refused: elsewhere it is stdout."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click does."""
        if value == "-":
            self.fail("'-' names no file, and nothing goes to stdout. If a file is called so, say ./-", param, ctx)
        return super().convert(value, param, ctx)


FILE = _Path(exists=True, dir_okay=False, path_type=Path)
OUT = _Out(path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
FORCE = click.option("--force", is_flag=True, help="Replace files that are there already.")
SEED = click.option("--seed", type=click.IntRange(0), default=0, help="Noise depends on seed, trial and tensor only.")
SPARSITY = click.option(
    "--sparsity", type=Fraction(open_end=True), default=0.0, help="Share of weights pruned first; 0 prunes nothing."
)
PRUNE_SCOPE = click.option(
    "--prune-scope", type=click.Choice(strategies.SCOPES), default="model", help="Where magnitudes compete."
)
SELECTION = several(
    click.option(
        "--include", multiple=True, metavar="REGEX", help="Store only tensors whose name matches; repeatable."
    ),
    click.option("--exclude", multiple=True, metavar="REGEX", help="Leave these tensors digital; repeatable."),
    click.option("--min-size", type=click.IntRange(1), default=256, help="Smaller tensors stay digital."),
)
CHANGES = several(
    click.option(
        "--residuals", type=click.Choice(["gaussian", "empirical"]), help="Normal noise, or as it was measured."
    ),
    click.option("--cells-on", type=click.Choice(["different", "same"]), help="Devices of one weight's cells."),
    click.option("--read-after", type=Seconds(), help="Time between programming and read, as 20s, 1h or 1d."),
    click.option("--write-bits", type=click.IntRange(0, 16), help="Precision of what is written; 0: no limit."),
    click.option("--read-bits", type=click.IntRange(0, 16), help="Precision of each read of a cell; 0: no limit."),
)
DATA = click.option(
    "--data", type=FILE, required=True, help="npz: an array per input (or x), and labels y if there are any."
)
PREPROCESSING = several(
    click.option(
        "--mean", type=Floats(), default="0", help="Mean of uint8 images divided by 255: one number, or r,g,b."
    ),
    click.option("--std", type=Floats(), default="1", help="Standard deviation, likewise."),
    click.option(
        "--preprocess", metavar="MODULE:FUNCTION", help="Function that turns each array into a model's input."
    ),
)
RUNNING = several(
    click.option(
        "--metric",
        metavar="NAME",
        help="top1, top5, agreement, exact_match, relative_error, sqnr_db, mse, r2; or module:function, "
        "f(outputs, labels=, clean=) -> number.  [default: the one that fits]",
    ),
    click.option("--output", metavar="NAME", help="Name of the output to measure.  [default: the first that fits]"),
    click.option(
        "--class-axis", type=int, help="Axis of that output with the classes.  [default: the only one that fits]"
    ),
    click.option("--samples", type=click.IntRange(1), help="Use only the first N samples.  [default: all]"),
    click.option("--batch", type=click.IntRange(1), default=64, help="Samples per call."),
    click.option(
        "--providers", type=Words(), default="CPUExecutionProvider", help="Of onnxruntime, commas between them."
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
    help="Replaces the stored channel, if its span covers the stored one's.",
)


def modifiers_of(choices: dict[str, Any]) -> Modifiers:
    """Take what the user asks of the channel out of `choices`."""
    from onnx_analog.channels.modifiers import Modifiers

    names = ("residuals", "cells_on", "write_bits", "read_bits")
    asked = {name: choices.pop(name) for name in names}
    return Modifiers(read_after_s=choices.pop("read_after"), **asked)


def selection_of(include: Sequence[str], exclude: Sequence[str], min_size: int) -> Selection:
    """Return which tensors the user asks for."""
    from onnx_analog.tensors import Selection

    return Selection(include=tuple(include), exclude=tuple(exclude), min_size=min_size)
