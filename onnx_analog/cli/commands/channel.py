"""The commands `onnx-analog channel ...`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click

from onnx_analog.cli import completion
from onnx_analog.cli.console import Group
from onnx_analog.cli.options import CHANGES, FILE, FORCE, JSON, OUT, modifiers_of
from onnx_analog.cli.printing import print_json, show
from onnx_analog.cli.progress import progress
from onnx_analog.cli.types import Whole
from onnx_analog.errors import printable


@click.group(cls=Group)
def command() -> None:
    """List, show and fit channels, the models of noisy memory cells.

    Example:

    \b
        onnx-analog channel list
    """


@command.command(name="list")
@JSON
def channel_list(as_json: bool) -> None:
    """List the installed channels.

    Example:

    \b
        onnx-analog channel list
    """
    from onnx_analog import channels
    from onnx_analog.cli import report

    rows = [(name, channels.summary(name)) for name in channels.available()]
    if as_json:
        return print_json([{"name": name, "summary": summary} for name, summary in rows])
    show(report.channel_list_table(rows))
    return None


@command.command(name="show")
@click.argument("name", shell_complete=completion.CHANNEL)
@CHANGES
@click.option("--plot", type=OUT, help="File for a plot of mean, σ, inverse, φ and residuals (needs matplotlib).")
@FORCE
@JSON
def channel_show(name: str, plot: Path | None, force: bool, as_json: bool, **changes: Any) -> None:
    """Show the output range, noise and source of the channel NAME.

    NAME is the name of a channel, name:key=value,..., module:Class, or a JSON file.

    Example:

    \b
        onnx-analog channel show pcm --plot pcm.png
    """
    from onnx_analog import channels, plots
    from onnx_analog.channels import capacity
    from onnx_analog.cli import report
    from onnx_analog.disk import writing

    channel = modifiers_of(changes).apply(channels.resolve(name))
    if plot is not None:
        plots.check_plot(plot)
        writing.check_outputs([plot], [Path(name)], force=force)  # a channel may be a file
        writing.write_all({plot: plots.plot_channel(channel)}, force=force)
    if as_json:
        normal, measured = capacity.both(channel)
        bits = {"capacity_bits_per_cell": normal, "capacity_bits_per_cell_measured": measured}
        return print_json({**channel.to_dict(), "span": list(channel.span), **bits})
    show(f"{channel}", report.channel_table(channel), f"source: {channel.source}")
    show(f"limits of the model: {channel.source.left_out or 'not stated'}")
    show(f"plot: {printable(str(plot))}" if plot else "for a plot, add --plot FILE")
    return None


@command.command(name="fit")
@click.argument("pairs", type=FILE)
@click.option(
    "--input",
    "input_",
    required=True,
    metavar="COLUMN",
    shell_complete=completion.columns,
    help="Column of the programmed values.",
)
@click.option(
    "--output",
    "output_",
    required=True,
    metavar="COLUMN",
    shell_complete=completion.columns,
    help="Column of the read values.",
)
@click.option("--log", type=click.Choice(["output"]), help="Fit log10 of the output, as for a resistance.")
@click.option(
    "--group",
    metavar="COLUMN",
    shell_complete=completion.columns,
    help="Column that names the device; needed for --cells-on same.",
)
@click.option(
    "--neighbours", type=Whole(1), help="Neighbouring inputs that share reads.  [default: by cross-validation]"
)
@click.option("--skip-missing", is_flag=True, help="Leave out rows that lack a value in one of these columns.")
@click.option(
    "--skip-outliers",
    is_flag=True,
    help="Leave out reads more than 6 σ from the median of their input, as of stuck cells.",
)
@click.option(
    "-o", "--output-file", "out", type=OUT, help="Channel file.  [default: PAIRS with the suffix .channel.json]"
)
@click.option("--plot", type=OUT, help="File for a plot of the fit (needs matplotlib).")
@FORCE
@JSON
def channel_fit(
    pairs: Path,
    input_: str,
    output_: str,
    log: str | None,
    group: str | None,
    neighbours: int | None,
    skip_missing: bool,
    skip_outliers: bool,
    out: Path | None,
    plot: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Fit a channel to PAIRS, a CSV file of measurements.

    Other commands use the file that it writes: --channel mine.json.

    Example:

    \b
        onnx-analog channel fit pairs.csv --input volts --output ohms --log output -o mine.json
    """
    from onnx_analog import plots
    from onnx_analog.channels import fitting
    from onnx_analog.cli import report
    from onnx_analog.disk import writing

    target = out or pairs.with_name(f"{pairs.stem}.channel.json")
    writing.check_outputs([path for path in (target, plot) if path], [pairs], force=force)
    if plot is not None:
        plots.check_plot(plot)
    settings: dict[str, Any] = {"input": input_, "output": output_, "group": group, "neighbours": neighbours}
    settings |= {"skip_missing": skip_missing, "skip_outliers": skip_outliers}
    with progress("fitting", fitting.STEPS) as advance:
        fit = fitting.fit(pairs, log=log == "output", progress=advance, **settings)
    writers = {target: writing.write_text(json.dumps(fit.channel.to_dict(), ensure_ascii=False) + "\n")}
    if plot is not None:
        writers[plot] = plots.plot_channel(fit.channel, (fit.inputs, fit.outputs))
    writing.write_all(writers, force=force)
    for text in fit.warnings:
        logging.getLogger("onnx_analog").warning(text)
    if as_json:
        return print_json(fit.to_dict())
    plotted = [f"plot: {printable(str(plot))}"] if plot else []
    show(report.fit_table(fit), report.levels_table(fit), f"channel: {printable(str(target))}", *plotted)
    return None
