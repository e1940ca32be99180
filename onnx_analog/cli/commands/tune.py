"""The command `tune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from onnx_analog.arguments import DEFAULTS
from onnx_analog.cli import config
from onnx_analog.cli.gates import NO, UNDECIDED, Gate, Verdict
from onnx_analog.cli.options import (
    CHANGES,
    CHANNEL,
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
    SELECTION,
    engine_of,
    engine_options,
    modifiers_of,
    selection_of,
    shown,
    stem,
)
from onnx_analog.cli.paths import FILE_OR_FUNCTION
from onnx_analog.cli.printing import inputs_lines, print_json, show
from onnx_analog.cli.progress import status
from onnx_analog.cli.settings import argument, options_of
from onnx_analog.coding.scheme import Scheme


def _stopped(params: Mapping[str, Any]) -> str:
    """Say what is left of a search that was interrupted."""
    resume = params["resume"]
    if resume is None or not resume.exists():
        return "stopped; nothing was written. With --resume FILE, what is measured is kept"
    return f"stopped. What was measured is kept in '{shown(resume)}': run the same command again to continue"


@click.command(cls=Gate, stopped=_stopped)
@click.argument("model", type=FILE)
@DATA
@argument("max_drop")
@argument("min_sqnr")
@argument("budget")
@CHANNEL
@argument("decoding")
@argument(
    "counting", help="How cells are counted, including those of --budget: as the memory allows, or as the paper counts."
)
@click.option(
    "--correction/--no-correction",
    default=DEFAULTS.correction,
    show_default=False,
    help="Correct what is read, using a few of the samples (the default), or not.",
)
@options_of(Scheme, only=("mask_seed",))
@click.option(
    "--plan",
    type=FILE_OR_FUNCTION,
    metavar="FILE",
    help="Also try this plan, such as the one used in training: JSON file, or module:function; see `onnx-analog plan`.",
)
@argument("confidence")
@argument("tune_trials", flag="trials")
@SEED
@CHANGES
@SELECTION
@PREPROCESSING
@RUNNING
@engine_options("serial", argument("threads"), help="Where tensors and trials are measured; serial: in this process.")
@click.option("-o", "--out", "target", type=OUT, help="The plan.  [default: MODEL with the suffix .plan.json]")
@click.option(
    "--resume",
    type=OUT,
    help="File that keeps all measurements: the same command continues from it, and one with another goal reuses them.",
)
@click.option("--plot", type=OUT, help="File for a plot of what was tried (needs matplotlib).")
@REPORT
@click.option("--protected", type=OUT, help="Also write the protected model that was verified, before correction.")
@FORCE
@LOAD
@JSON
def command(
    model: Path,
    data: Path,
    channel: str | None,
    target: Path | None,
    resume: Path | None,
    plot: Path | None,
    report: Path | None,
    protected: Path | None,
    force: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Find the cheapest way to keep MODEL in a memory within a loss.

    Prints the answer and its digital rival, and then how each tensor is stored. Writes the plan, for `protect
    --plan`. Give `protect` samples with `--compensate`, too: without them, weights do not make up for each other's
    rounding errors, as they do here.

    Exit code 0: the goal holds. 1: it does not. 4: the samples do not decide. Everything is printed and written then,
    too. 2 or 3: there is no answer, as something failed.

    Example:

    \b
        onnx-analog tune model.onnx --data test.npz --budget 3
    """
    from onnx_analog import channels, plots, tuned_plot
    from onnx_analog._tune import tune
    from onnx_analog.cli import reports, tuning_tables
    from onnx_analog.disk import writing
    from onnx_analog.graph import files

    target = target or model.with_name(f"{stem(model)}.plan.json")
    outputs = [path for path in (target, plot, report, protected) if path]
    perhaps = (channel, choices["plan"])  # which may be files
    read = [*files.files_of(model), data, *(Path(each) for each in perhaps if each)]
    beside = [writing.data_beside(protected)] if protected else []
    if resume is not None:
        writing.check_outputs([resume], read, force=True, perhaps=[*outputs, *beside])
    writing.check_outputs(outputs, read, force=force, perhaps=beside)
    if plot is not None:
        plots.check_plot(plot)
    reports.check(report, read, force=force)
    choices["modifiers"], choices["selection"] = modifiers_of(choices), selection_of(choices)
    choices["trials"] = choices.pop("tune_trials")
    channel = channel or channels.DEFAULT
    config.also_save(lambda: {"channel": channel})
    choices["engine"] = engine_of(choices, choices["threads"] or None)
    with status("tune") as progress:
        tuned = tune(model, data, channel=channel, resume=resume, progress=progress, **choices)
    writers = {target: writing.write_text(tuned.plan.to_json())}
    if plot:
        writers[plot] = tuned_plot.plot_tuned(tuned)
    if protected:
        writers[protected] = tuned.protected.writer()
    writing.write_all(writers, force=force)
    reports.write(tuned, report, force=force)
    if as_json:
        print_json(tuned.to_dict())
    else:
        show(*tuning_tables.tables_of(tuned), *inputs_lines(tuned.preprocessing), f"plan: {shown(target)}")
        if plot:
            show(f"plot: {shown(plot)}")
        show(*reports.lines(report))
        if protected:
            show(f"model: {shown(protected)}")
    if tuned.holds is False or tuned.undecided:
        raise Verdict(tuned.verdict, NO if tuned.holds is False else UNDECIDED)
