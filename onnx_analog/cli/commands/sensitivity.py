"""The command `sensitivity`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.memory import MEMORY, OF_FAMILY, given_selection, read_files, save_defaults
from onnx_analog.cli.options import (
    CORRECT,
    DATA,
    FILE,
    FORCE,
    JSON,
    LOAD,
    OUT,
    PREPROCESSING,
    REPORT,
    RUNNING,
    SEED,
    modifiers_of,
    shown,
)
from onnx_analog.cli.printing import inputs_lines, print_json, show
from onnx_analog.cli.progress import status
from onnx_analog.cli.settings import argument


@click.command(cls=Command)
@click.argument("model", type=FILE)
@DATA
@MEMORY
@CORRECT
@click.option(
    "--reference",
    type=FILE,
    help="The original model, to show what storing alone loses. A plain MODEL is its own. Losses of parts are relative "
    "to MODEL as stored, read without noise.",
)
@argument("by")
@argument("all_but")
@argument("sensitivity_trials", flag="trials")
@SEED
@PREPROCESSING
@RUNNING
@argument("threads")
@click.option("--csv", "csv", type=OUT, help="File for the table, as CSV.")
@click.option("--plot", type=OUT, help="File for a plot (needs matplotlib).")
@click.option("--overlay", type=OUT, help="File of node data for Model Explorer: shares at the nodes.")
@REPORT
@FORCE
@LOAD
@JSON
@OF_FAMILY
def command(
    model: Path,
    data: Path,
    csv: Path | None,
    plot: Path | None,
    overlay: Path | None,
    report: Path | None,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Show where noise hurts: what is lost if one tensor of MODEL alone is noisy.

    A plain MODEL is stored as `protect` does it. Each tensor, each class and each stream in turn is read with noise,
    and everything else without. The worst come first, with the loss that remains if only they have no noise.

    Example:

    \b
        onnx-analog sensitivity model.onnx --data test.npz --strategy mapping --plot hurts.png
    """
    from onnx_analog import harm_plot, plots
    from onnx_analog._sensitivity import sensitivity
    from onnx_analog.cli import harm_tables, reports
    from onnx_analog.disk import writing
    from onnx_analog.tuning.harm import check_overlay

    outputs = [path for path in (csv, plot, overlay) if path]
    writing.check_outputs(outputs, read_files(model, data, choices), force=force)
    reports.check(report, read_files(model, data, choices), force=force, perhaps=outputs)
    if plot is not None:
        plots.check_plot(plot)
    if overlay is not None:
        check_overlay(choices["by"])
    choices["modifiers"], choices["selection"] = modifiers_of(choices), given_selection(choices)
    save_defaults({**choices}, model)
    choices["trials"] = choices.pop("sensitivity_trials")
    with status("sensitivity") as progress:
        harms = sensitivity(model, data, progress=progress, **choices)
    writers = {}
    if csv:
        writers[csv] = writing.write_text(harms.csv())
    if plot:
        writers[plot] = harm_plot.plot_harms(harms)
    if overlay:
        writers[overlay] = writing.write_text(json.dumps(harms.overlay(), indent=1) + "\n")
    writing.write_all(writers, force=force)
    reports.write(harms, report, force=force)
    if as_json:
        print_json(harms.to_dict())
    else:
        show(*harm_tables.tables_of(harms), *inputs_lines(harms.preprocessing))
        files = {"csv": csv, "plot": plot, "overlay": overlay}
        show(*(f"{name}: {shown(path)}" for name, path in files.items() if path), *reports.lines(report))
