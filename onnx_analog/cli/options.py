"""The options that several commands have, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_analog.arguments import ModifierSettings, SelectionSettings
from onnx_analog.cli import completion
from onnx_analog.cli.config import LOADED
from onnx_analog.cli.console import several
from onnx_analog.cli.paths import FILE as FILE
from onnx_analog.cli.paths import FILE_NAME, FileOr
from onnx_analog.cli.paths import OUT as OUT
from onnx_analog.cli.paths import OUT_OR_FOLDER as OUT_OR_FOLDER
from onnx_analog.cli.settings import argument, options_of
from onnx_analog.cli.types import Whole
from onnx_analog.errors import printable
from onnx_analog.settings import settings_of

if TYPE_CHECKING:
    from onnx_analog.channels.modifiers import Modifiers
    from onnx_analog.graph.weights import Selection
    from onnx_analog.study.engines import Engine

F = TypeVar("F", bound=Callable[..., Any])


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
FORCE = argument("force")
REPORT = click.option(
    "--report", type=OUT, help="File for a report: one HTML page, complete in itself (needs matplotlib and Jinja2)."
)
SEED = argument("seed")
SPARSITY = argument("sparsity")
PRUNE_SCOPE = argument("prune_scope")
SELECTION = options_of(SelectionSettings)
CHANGES = options_of(ModifierSettings)
CHANNEL = click.option(
    "--channel",
    shell_complete=completion.CHANNEL,
    help="Model of the cells: a name, name:key=value,..., a JSON file, or module:Class.  [default: pcm]",
)


def _load(ctx: click.Context, _param: click.Parameter, specs: tuple[str, ...]) -> None:
    """Import the channels and estimators that a file may name."""
    ctx.meta[LOADED] = list(specs)
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
CORRECT = several(argument("correct", metavar="FILE", type=FileOr("gain")), argument("correct_samples"))
COMPENSATE = several(argument("compensate", metavar="FILE", type=FILE_NAME), argument("compensate_samples"))


RUNNING = several(
    argument("metric", metavar="NAME", type=str, shell_complete=completion.METRIC),
    argument("output", metavar="NAME"),
    argument("class_axis"),
    argument("samples"),
    argument("batch"),
    argument("providers", shell_complete=completion.PROVIDERS),
)


ENGINES = ("local", "serial", "dask", "ray")  # as in onnx_analog.study.engines, which imports much
_OF_ENGINE = ("workers", "scheduler", "address")


def engine_options(default: str, threads: Callable[[F], F], *, help: str) -> Callable[[F], F]:  # noqa: A002 - as click
    """Return a decorator that adds the options of an engine, with the default and the help of the first."""
    return several(
        click.option("--engine", type=click.Choice(ENGINES), default=default, show_default=True, help=help),
        click.option("--workers", type=Whole(1), help="Processes of the local engine.  [default: the number of cores]"),
        threads,
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of a Dask scheduler, e.g. tcp://host:8786.  [default: a new one on this machine]",
        ),
        click.option(
            "--address",
            help="Address of a Ray cluster: auto or ray://host:10001.  [default: a new one on this machine]",
        ),
    )


def engine_of(choices: dict[str, Any], threads: int | None) -> Engine:
    """Take the options of an engine out of `choices`, and return it."""
    from onnx_analog.study import engines

    options = {name: choices.pop(name) for name in _OF_ENGINE}
    return engines.build(choices.pop("engine"), threads=threads, **options)


OTHER_CHANNEL = click.option(
    "--channel",
    shell_complete=completion.CHANNEL,
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
