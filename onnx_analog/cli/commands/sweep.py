"""The command `sweep`: a grid from flags or a TOML file, trials anywhere, results in a folder."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.cli import completion
from onnx_analog.cli.config import CONFIG_READ, NOT_SAVED, OBJECTS
from onnx_analog.cli.console import Command, Option
from onnx_analog.cli.options import (
    CHANGES,
    COMPENSATE,
    CORRECT,
    DATA,
    FILE,
    FORCE,
    JSON,
    LOAD,
    OUT_OR_FOLDER,
    PREPROCESSING,
    PRUNE_SCOPE,
    REPORT,
    RUNNING,
    SEED,
    SELECTION,
    SPARSITY,
    engine_of,
    engine_options,
    modifiers_of,
    selection_of,
)
from onnx_analog.cli.paths import FILE_OR_FUNCTION
from onnx_analog.cli.printing import inputs_lines, print_json, show
from onnx_analog.cli.progress import watch
from onnx_analog.cli.settings import argument, options_of
from onnx_analog.cli.types import Whole, Words
from onnx_analog.errors import OptionError, printable
from onnx_analog.study.arguments import GridArguments, filled, plans_alone, takes_channels
from onnx_analog.study.run_folder import CONFIG, CONSTANTS, LOCK, PARQUET, PLOT, POINTS, TRIALS

if TYPE_CHECKING:
    from onnx_analog.results import Swept

logger = logging.getLogger(__name__)

FAMILY = "Further points"


@click.command(
    cls=Command,
    saves_config=True,
    context_settings={"show_default": True},
    stopped="stopped. Completed trials are kept: run the same command again to continue",
)
@click.argument("models", metavar="MODELS...", type=FILE, nargs=-1, required=True)
@DATA
@options_of(GridArguments, depends={})
@click.option(
    "--channel",
    type=Words(),
    multiple=True,
    shell_complete=completion.CHANNELS,
    help="Models of the cells, comma-separated or repeated: names, name:key=value,..., or JSON files.  [default: pcm]",
)
@CHANGES
@LOAD
@SELECTION
@SPARSITY
@PRUNE_SCOPE
@argument("trials", help="Trials per point; with --precision, the number to begin with.")
@argument("precision")
@argument("max_trials", help="Maximum number of trials per point with --precision.")
@SEED
@CORRECT
@COMPENSATE
@PREPROCESSING
@RUNNING
@argument("lower_is_better")
@engine_options(
    "local",
    click.option("--threads", type=Whole(1, 1024), help="Threads per worker.  [default: cores divided by workers]"),
    help="Where trials are computed.",
)
@argument("counting")
@argument("limit")
@argument(
    "max_drop",
    help="Name the cheapest point whose 95 % interval shows that it loses no more than this: in percentage points or "
    "the metric's unit.",
)
@click.option(
    "-o", "--out", type=OUT_OR_FOLDER, required=True, help="Folder for the results. An existing sweep is resumed."
)
@REPORT
@FORCE
@JSON
@click.option(
    "--grid",
    cls=Option,
    section=FAMILY,
    multiple=True,
    metavar="NAME=V1,V2",
    shell_complete=completion.axes,
    help="Also vary this setting of the scheme, e.g. side_bits_per_cell=1,2; repeatable.",
)
@click.option(
    "--plan",
    cls=Option,
    section=FAMILY,
    multiple=True,
    type=FILE_OR_FUNCTION,
    metavar="FILE",
    shell_complete=completion.files,
    help="A point from a plan: a JSON file, whose name it takes, or module:function; repeatable. Plans are "
    "compared alone, unless strategies, cells or other options of the grid than --channel are given.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    out: Path,
    save_config: Path | None,
    report: Path | None,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Compare strategies × cells × channels × MODELS in many trials.

    Every trial is written to a folder.

    To resume a sweep that was stopped, run the same command again: completed trials are kept, and the results are those
    of a sweep that was never stopped. They do not depend on the engine or its workers.

    Example:

    \b
        onnx-analog sweep model.onnx --data test.npz --cells 1,3,10 --trials 25 --out results
    """
    from onnx_analog import api
    from onnx_analog.cli import reports
    from onnx_analog.disk import writing

    _check_objects(ctx)
    text = _toml(ctx, without=("report",))  # which is there already when the sweep is resumed
    engine = engine_of(choices, choices.pop("threads"))
    choices["modifiers"] = modifiers_of(choices)
    choices["selection"] = selection_of(choices)
    choices["channel"] = _channels(ctx)
    _check_outputs(ctx, out, save_config, report, choices, force=force)
    if save_config is not None:
        writing.write_all({save_config: writing.write_text(_toml(ctx))}, force=force)
    with watch("trials") as update:
        swept = api.sweep(choices.pop("models"), engine=engine, out=out, config=text, progress=update, **choices)
    reports.write(swept, report, force=force, counting=choices["counting"])
    if as_json:
        print_json(swept.to_dict())
    else:
        _tell(swept, out, choices["counting"])
        show(*reports.lines(report))


def _check_objects(ctx: click.Context) -> None:
    """Refuse a file of a sweep in Python whose objects it cannot hold, unless the command line replaces them."""
    flags = {str(param.name): param.opts[0] for param in ctx.command.params}
    for name in ctx.meta.get(OBJECTS, []):
        if ctx.get_parameter_source(str(name)) is not click.core.ParameterSource.COMMANDLINE:
            raise OptionError(
                f"{str(ctx.meta[CONFIG_READ])!r} is of a sweep in Python, whose {name} is an object: give "
                f"{flags.get(name, name)}, or sweep in Python"
            )


def _check_outputs(
    ctx: click.Context,
    out: Path,
    save_config: Path | None,
    report: Path | None,
    choices: dict[str, Any],
    *,
    force: bool,
) -> None:
    """Refuse what would be written over an input; an earlier sweep's own options may be both."""
    from onnx_analog.cli import reports
    from onnx_analog.disk import writing
    from onnx_analog.graph import files
    from onnx_analog.study import axes

    own = [out / name for name in (TRIALS, PARQUET, POINTS, CONSTANTS, LOCK, PLOT, CONFIG)]
    read = [choices["data"], *map(Path, choices["channel"] or ()), *map(Path, choices["plan"])]
    read += [Path(choices[name]) for name in ("correct", "compensate") if choices[name]]
    read += map(Path, axes.channel_texts(choices["grid"]))
    read += [file for model in choices["models"] for file in files.files_of(model)]
    writing.check_outputs(own, read, force=True, new_folder=True)
    if save_config is not None:
        config = [ctx.meta[CONFIG_READ]] if CONFIG_READ in ctx.meta else []
        writing.check_outputs([save_config], [*read, *config], force=force, perhaps=own, new_folder=True)
    also = [*own, *([save_config] if save_config is not None else [])]
    reports.check(report, read, force=force, perhaps=also, new_folder=True)
    if report is not None and report.parent != out:  # a folder that the sweep does not make
        reports.check(report, read, force=force)


def _toml(ctx: click.Context, without: Collection[str] = ()) -> str:
    """Return all options, but for some, as TOML, ready for --config."""
    from onnx_analog.channels import DEFAULT as DEFAULT_CHANNEL
    from onnx_analog.study import axes
    from onnx_analog.study.config import config_text

    names = [str(option.name) for option in ctx.command.params]  # in the order of the help, and not of the line
    values = {name: ctx.params.get(name) for name in names if name not in (*NOT_SAVED, *without)}
    values, varied = plans_alone(values), axes.parse(ctx.params["grid"])
    takes = takes_channels(values["strategy"], varied, rivals=bool(values["rivals"]))
    channels = _channels(ctx) or ([DEFAULT_CHANNEL] if takes else None)
    return config_text(filled({**values, "channel": channels}, varied))


def _channels(ctx: click.Context) -> list[str] | None:
    """Return the channels that are given; None for none."""
    return [spec for specs in ctx.params["channel"] for spec in specs] or None


def _tell(swept: Swept, out: Path, counting: str) -> None:
    from onnx_analog import plots
    from onnx_analog.cli import report
    from onnx_analog.study import run_folder

    points = swept.points
    rivals = [report.float16_table(swept.float16, share=points[0].evaluation.share)] if swept.float16 else []
    show(
        *report.points_tables(points, counting),
        *rivals,
        *report.corrections_tables(points),
        *report.differences_tables(points),
        *inputs_lines(*(point.evaluation.preprocessing for point in points)),
        *report.within_lines(swept.within()),
    )
    if not plots.can_plot():
        show(plots.NO_PLOTS)
    if not run_folder.can_parquet():
        logger.info(run_folder.NO_PARQUET)
    show(f"trials, points and plot: {printable(str(out))}")
