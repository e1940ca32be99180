"""The command `sweep`: a grid from flags or a TOML file, trials anywhere, results in a folder."""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.cli.console import Command, Floats, Integers, Option, Whole, Words, print_json, show
from onnx_analog.cli.options import (
    CHANGES,
    COMPENSATE,
    CORRECT,
    DATA,
    FILE,
    FORCE,
    JSON,
    LOAD,
    OUT,
    OUT_OR_FOLDER,
    PREPROCESSING,
    PRUNE_SCOPE,
    RUNNING,
    SEED,
    SELECTION,
    SPARSITY,
    channel_names,
    modifiers_of,
    selection_of,
)
from onnx_analog.cli.progress import watch
from onnx_analog.cli.settings import argument, options_of
from onnx_analog.disk import reading
from onnx_analog.errors import AnalogError, OptionError, one_line, printable
from onnx_analog.study.arguments import GridArguments, filled, takes_channels
from onnx_analog.study.config import IN_PYTHON
from onnx_analog.study.run_folder import CONFIG, CONSTANTS, LOCK, PARQUET, PLOT, POINTS, TRIALS

if TYPE_CHECKING:
    from onnx_analog.results import Swept

ENGINES = ("local", "serial", "dask", "ray")  # as in onnx_analog.study.engines, which imports much
FAMILY = "Further points"
_LIMIT, _DOTS = 2**17, 1000  # bytes of a TOML file, and dots in a line
_NOT_SAVED = ("config", "save_config", "force", "as_json", "debug")
_CONFIG_READ = "onnx_analog.config"  # where the context keeps its path
_IN_PYTHON = "onnx_analog.in_python"  # and the options that it cannot hold


def _configure(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Let the file's entries be the defaults of all options."""
    if path is None:
        return None
    try:
        text = reading.read_text(path, limit=_LIMIT, error=OptionError)
        if any(line.count(".") > _DOTS for line in text.splitlines()):  # a key of as many parts takes minutes
            raise OptionError(f"{str(path)!r} has more than {_DOTS:,} dots in a line: write one entry in each")
        body = tomllib.loads(text)
    except AnalogError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from error
    except (ValueError, RecursionError) as error:  # of which that of TOML is one
        why = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(str(error), 150)
        raise click.BadParameter(f"{path} is not valid TOML: {why}", ctx=ctx, param=param) from error
    ctx.meta[_CONFIG_READ] = path
    ctx.meta[_IN_PYTHON] = body.pop(IN_PYTHON, [])
    known = _entries(ctx.command)
    entries: dict[str, Any] = {}
    for name, value in body.items():
        option = known.get(name.replace("-", "_"))
        if option is None:
            like = get_close_matches(name, known, 1)
            raise click.BadParameter(
                f"{path} has an entry {one_line(repr(name), 60)}, which cannot be set there. "
                + (f"Did you mean {like[0]!r}?" if like else "Entries are the options of sweep --help."),
                ctx=ctx,
                param=param,
            )
        if option.name in entries:
            raise click.BadParameter(f"{path} has the entry {name!r} twice, under two names", ctx=ctx, param=param)
        entries[str(option.name)] = _as_typed(option, value, ctx)
    ctx.default_map = {**(ctx.default_map or {}), **entries}
    return path


def _entries(command: click.Command) -> dict[str, click.Parameter]:
    """Return the options that a file can set, by each of their names."""
    known: dict[str, click.Parameter] = {}
    for param in command.params:
        if param.name not in _NOT_SAVED:
            flags = [flag for flag in param.opts if flag.startswith("--")]
            known |= {str(param.name): param, **{flag[2:].replace("-", "_"): param for flag in flags}}
    return known


def _as_typed(option: click.Parameter, value: Any, ctx: click.Context) -> Any:
    """Return an entry of the file as one would type it on the command line, where it is then checked."""
    several = option.multiple or option.nargs == -1
    listed = isinstance(option.type, Words | Integers | Floats)
    if isinstance(value, bool) and isinstance(option, click.Option) and option.is_flag:
        return value
    parts = value if isinstance(value, list) and (several or listed) else [value]
    of_text = isinstance(option.type, Words | click.Path | click.Choice | click.types.StringParamType)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str if of_text else str | int | float):
            kind = "text" if of_text else "a number or text"
            also = f", or a list of {'texts' if of_text else 'them'}" if several or listed else ""
            raise click.BadParameter(
                f"the --config file has {one_line(repr(value), 100)}; it must be {kind}{also}", ctx=ctx, param=option
            )
        if isinstance(part, int) and abs(part) >= 2**63:
            raise click.BadParameter("the --config file has a number of more than 64 bits", ctx=ctx, param=option)
    texts = [str(part) for part in parts]
    if several:
        return texts
    return ",".join(texts) if texts else ()


@click.command(
    cls=Command,
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
    shell_complete=channel_names,
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
@click.option("--engine", type=click.Choice(ENGINES), default="local", help="Where trials are computed.")
@click.option("--workers", type=Whole(1), help="Processes of the local engine.  [default: the number of cores]")
@click.option("--threads", type=Whole(1, 1024), help="Threads per worker.  [default: cores divided by workers]")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a Dask scheduler, e.g. tcp://host:8786.  [default: a new one on this machine]",
)
@click.option(
    "--address", help="Address of a Ray cluster: auto or ray://host:10001.  [default: a new one on this machine]"
)
@argument("counting")
@argument("limit")
@click.option(
    "-o", "--out", type=OUT_OR_FOLDER, required=True, help="Folder for the results. An existing sweep is resumed."
)
@click.option(
    "--config",
    type=FILE,
    is_eager=True,
    expose_value=False,
    callback=_configure,
    help="TOML file of these options; flags take precedence.",
)
@click.option("--save-config", type=OUT, help="Also write these options to a TOML file.")
@FORCE
@JSON
@click.option(
    "--grid",
    cls=Option,
    section=FAMILY,
    multiple=True,
    metavar="NAME=V1,V2",
    help="Also vary this setting of the scheme, e.g. side_bits_per_cell=1,2; repeatable.",
)
@click.option(
    "--plan",
    cls=Option,
    section=FAMILY,
    multiple=True,
    metavar="FILE",
    help="Add a point: a plan's JSON file, named by the file, or module:function; repeatable.",
)
@click.pass_context
def command(
    ctx: click.Context, /, out: Path, save_config: Path | None, force: bool, as_json: bool, **choices: Any
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
    from onnx_analog.disk import writing
    from onnx_analog.study import engines

    _check_objects(ctx)
    text = _toml(ctx)
    engine = engines.build(
        choices.pop("engine"), **{name: choices.pop(name) for name in ("workers", "threads", "scheduler", "address")}
    )
    choices["modifiers"] = modifiers_of(choices)
    choices["selection"] = selection_of(choices)
    choices["channel"] = _channels(ctx)
    _check_outputs(ctx, out, save_config, choices, force=force)
    if save_config is not None:
        writing.write_all({save_config: writing.write_text(text)}, force=force)
    with watch("trials") as update:
        swept = api.sweep(choices.pop("models"), engine=engine, out=out, config=text, progress=update, **choices)
    if as_json:
        print_json(swept.to_dict())
    else:
        _tell(swept, out, choices["counting"])


def _check_objects(ctx: click.Context) -> None:
    """Refuse a file of a sweep in Python whose objects it cannot hold, unless the command line replaces them."""
    flags = {str(param.name): param.opts[0] for param in ctx.command.params}
    for name in ctx.meta.get(_IN_PYTHON, []):
        if ctx.get_parameter_source(str(name)) is not click.core.ParameterSource.COMMANDLINE:
            raise OptionError(
                f"{str(ctx.meta[_CONFIG_READ])!r} is of a sweep in Python, whose {name} is an object: give "
                f"{flags.get(name, name)}, or sweep in Python"
            )


def _check_outputs(
    ctx: click.Context, out: Path, save_config: Path | None, choices: dict[str, Any], *, force: bool
) -> None:
    """Refuse what would be written over an input; an earlier sweep's own options may be both."""
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
        config = [ctx.meta[_CONFIG_READ]] if _CONFIG_READ in ctx.meta else []
        writing.check_outputs([save_config], [*read, *config], force=force, perhaps=own, new_folder=True)


def _toml(ctx: click.Context) -> str:
    """Return all options as TOML, ready for --config."""
    from onnx_analog.channels import DEFAULT as DEFAULT_CHANNEL
    from onnx_analog.study import axes
    from onnx_analog.study.config import config_text

    names = [str(option.name) for option in ctx.command.params]  # in the order of the help, and not of the line
    values = {name: ctx.params.get(name) for name in names if name not in _NOT_SAVED}
    varied = axes.parse(ctx.params["grid"])
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
    rivals = [report.float16_table(swept.float16)] if swept.float16 else []
    show(
        *report.points_tables(points, counting),
        *rivals,
        *report.corrections_tables(points),
        *report.differences_tables(points),
    )
    for there, text in ((plots.can_plot(), plots.NO_PLOTS), (run_folder.can_parquet(), run_folder.NO_PARQUET)):
        if not there:
            show(text)
    show(f"trials, points and plot: {printable(str(out))}")
