"""The options that several commands have, and what they become."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.arguments import ModifierSettings, SelectionSettings
from onnx_analog.cli.console import several
from onnx_analog.cli.settings import argument, options_of
from onnx_analog.errors import printable
from onnx_analog.settings import settings_of

if TYPE_CHECKING:
    from onnx_analog.channels.modifiers import Modifiers
    from onnx_analog.graph.weights import Selection


class _Path(click.Path):
    """A path; refuses a zero byte, which a file of options may hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click does."""
        if "\0" in str(value):
            self.fail("a path cannot hold a zero byte", param, ctx)
        return super().convert(value, param, ctx)


class _FileOr(_Path):
    """A file that exists, or a word that stands in its place."""

    def __init__(self, word: str) -> None:
        super().__init__(exists=True, dir_okay=False)
        self._word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or the word, or fail as click does."""
        text = os.fspath(value)
        if text == self._word:
            return text
        if not (Path(text).exists() or Path(text).suffix or os.sep in text):  # it does not look like a path
            self.fail(f"{text!r} is neither a file nor the word {self._word}.", param, ctx)
        return super().convert(value, param, ctx)


class _Out(_Path):
    """A path to be written. Refuses "-", which means stdout in other programs."""

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
FORCE = argument("force")
SEED = argument("seed")
SPARSITY = argument("sparsity")
PRUNE_SCOPE = argument("prune_scope")
SELECTION = options_of(SelectionSettings)
CHANGES = options_of(ModifierSettings)
CHANNEL = click.option(
    "--channel",
    shell_complete=lambda ctx, param, incomplete: channel_names(ctx, param, incomplete),
    help="Model of the cells: a name, name:key=value,..., a JSON file, or module:Class.  [default: pcm]",
)


def _load(_ctx: click.Context, _param: click.Parameter, specs: tuple[str, ...]) -> None:
    """Import the channels and estimators that a file may name."""
    for spec in specs:
        from onnx_analog.coding.estimators import Estimator, estimator
        from onnx_analog.named import named_function

        loaded = named_function(spec)
        if isinstance(loaded, type) and issubclass(loaded, Estimator):
            estimator(spec)


LOAD = click.option(
    "--load",
    multiple=True,
    metavar="MODULE:CLASS",
    expose_value=False,
    callback=_load,
    help="Import a channel or an estimator of your own that the file names; repeatable.",
)
DATA = click.option(
    "--data", type=FILE, required=True, help="npz file: one array per input (or x), and optionally labels y."
)
PREPROCESSING = several(argument("mean"), argument("std"), argument("preprocess", metavar="MODULE:FUNCTION"))
CORRECT = several(argument("correct", metavar="FILE", type=_FileOr("gain")), argument("correct_samples"))
COMPENSATE = several(
    argument("compensate", metavar="FILE", type=_Path(exists=True, dir_okay=False)), argument("compensate_samples")
)
RUNNING = several(
    argument("metric", metavar="NAME", type=str),
    argument("output", metavar="NAME"),
    argument("class_axis"),
    argument("samples"),
    argument("batch"),
    argument("providers"),
)


def channel_names(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of channels that complete the typed word; in a list, its last word."""
    from importlib.metadata import entry_points

    before, comma, last = incomplete.rpartition(",")
    names = sorted({entry.name for entry in entry_points(group="onnx_analog.channels")})
    return [before + comma + name for name in names if name.startswith(last)]


OTHER_CHANNEL = click.option(
    "--channel",
    shell_complete=channel_names,
    help="Read through this channel; its output range must cover that of the stored channel.",
)


def modifiers_of(choices: dict[str, Any]) -> Modifiers:
    """Take the changes to the channel out of `choices`."""
    from onnx_analog.channels.modifiers import Modifiers

    return Modifiers(**{name: choices.pop(name) for name in settings_of(ModifierSettings)})


def selection_of(choices: dict[str, Any]) -> Selection:
    """Take the selection of tensors out of `choices`."""
    from onnx_analog.graph.weights import Selection

    return Selection(**{name: choices.pop(name) for name in settings_of(SelectionSettings)})


def stem(path: Path) -> str:
    """Return the file name of a model without the suffixes .protected and .onnx."""
    return path.name.removesuffix(".onnx").removesuffix(".protected")


def shown(path: Path) -> str:
    """Return a path as one printable line."""
    return printable(str(path))
