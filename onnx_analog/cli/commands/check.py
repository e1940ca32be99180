"""The command `check`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from onnx_analog.cli.failures import Answered
from onnx_analog.cli.gates import NO, UNDECIDED, Gate, Verdict
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


@click.command(cls=Gate)
@click.argument("model", type=FILE)
@DATA
@argument("max_drop")
@argument("min_sqnr")
@MEMORY
@CORRECT
@click.option(
    "--reference",
    type=FILE,
    help="The original model, which losses are relative to. A plain MODEL is its own; a protected one needs it.",
)
@argument("confidence", help="Confidence of the answer.")
@argument("check_trials", flag="max-trials")
@SEED
@PREPROCESSING
@RUNNING
@argument("threads")
@click.option("--junit", type=OUT, help="File for a report in JUnit XML, which CI servers read.")
@REPORT
@FORCE
@LOAD
@JSON
@OF_FAMILY
def command(
    model: Path, data: Path, junit: Path | None, report: Path | None, force: bool, as_json: bool, **choices: Any
) -> None:
    """Answer whether MODEL survives a memory: whether it loses no more than a limit.

    A plain MODEL is stored as `protect` does it. Trials are added until the answer is certain, or more would not
    help. Exit code 0: yes. 1: no. 4: not decided. 2 or 3: there is no answer, as something failed.

    Example:

    \b
        onnx-analog check model.onnx --data test.npz --min-sqnr 10 --cells-small 3
    """
    from onnx_analog._check import check
    from onnx_analog.cli import junit as test_reports
    from onnx_analog.cli import reports
    from onnx_analog.disk import writing
    from onnx_analog.tuning.checked import with_option

    if junit is not None:
        perhaps = [report] if report else []
        writing.check_outputs([junit], read_files(model, data, choices), force=force, perhaps=perhaps)
    reports.check(report, read_files(model, data, choices), force=force)
    choices["modifiers"], choices["selection"] = modifiers_of(choices), given_selection(choices)
    save_defaults({**choices}, model)
    choices["max_trials"] = choices.pop("check_trials")
    start = time.monotonic()
    with status("check") as progress:
        checked = check(model, data, progress=progress, **choices)
    if junit is not None:
        text = test_reports.report(checked, seconds=time.monotonic() - start)
        writing.write_all({junit: writing.write_text(text)}, force=force)
    reports.write(checked, report, force=force)
    if as_json:
        print_json(test_reports.to_dict(checked))
    else:
        answer = (with_option(str(checked)), "; ".join(filter(None, (checked.cells, checked.of_original))))
        show(*answer, *inputs_lines(checked.preprocessing), *reports.lines(report))
        if junit is not None:
            show(f"JUnit: {shown(junit)}")
    if not checked.holds:
        verdict, code = with_option(checked.verdict), NO if checked.holds is False else UNDECIDED
        raise (Verdict if as_json else Answered)(verdict, code)
