"""The command `evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from onnx_analog.cli.gates import NO, Gate, Verdict
from onnx_analog.cli.options import (
    CHANGES,
    CORRECT,
    DATA,
    FILE,
    FORCE,
    JSON,
    LOAD,
    OTHER_CHANNEL,
    PREPROCESSING,
    REPORT,
    RUNNING,
    SEED,
    modifiers_of,
)
from onnx_analog.cli.printing import print_json, show
from onnx_analog.cli.progress import progress
from onnx_analog.cli.settings import argument


class _Gate(Gate):
    def asks(self, options: Mapping[str, Any]) -> bool:
        return any(options[name] is not None for name in ("at_least", "at_most"))


@click.command(cls=_Gate)
@click.argument("protected", type=FILE)
@DATA
@argument("trials")
@SEED
@click.option(
    "--reference",
    type=FILE,
    help="The original model. Losses are counted from its value on the same data, so they include pruning and storing; "
    "and --correct corrects towards it.",
)
@OTHER_CHANNEL
@CHANGES
@CORRECT
@PREPROCESSING
@RUNNING
@argument("lower_is_better")
@argument("threads")
@argument("at_least", help="Exit 1 where the lower end of the 95 % interval (or the value) is not this high.")
@argument("at_most", help="Exit 1 where the upper end of the 95 % interval (or the value) is not this low.")
@argument("limit")
@REPORT
@FORCE
@LOAD
@JSON
def command(
    protected: Path, data: Path, trials: int, report: Path | None, force: bool, as_json: bool, **choices: Any
) -> None:
    """Measure the accuracy of PROTECTED under the noise of its cells.

    A model that is not protected is evaluated as it is.

    With labels, and class scores as the first output, the metric is top-1 accuracy. Otherwise outputs are compared with
    those of the original or, without --reference, of PROTECTED without noise: by class, by value or by SQNR in dB. The
    first line names the metric.

    With --at-least or --at-most, exit code 1 says that the value is not as asked, and 2 that something failed.

    Example:

    \b
        onnx-analog evaluate model.protected.onnx --data test.npz --trials 25
    """
    from onnx_analog import api
    from onnx_analog.cli import report as tables
    from onnx_analog.cli import reports

    choices["modifiers"] = modifiers_of(choices)
    reports.check(report, _read(protected, data, choices), force=force)
    with progress("reading noisy cells", trials) as advance:
        evaluation = api.evaluate(protected, data, trials=trials, progress=advance, **choices)
    read_by = {name: choices[name] for name in ("channel", "modifiers")}
    reports.write(evaluation, report, force=force, model=protected, **read_by)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        holds = [f"holds: {evaluation.verdict}"] if evaluation.holds else []
        show(tables.evaluation_table(evaluation), *holds, *reports.lines(report))
    if evaluation.holds is False:
        raise Verdict(str(evaluation.verdict), NO)


def _read(protected: Path, data: Path, choices: dict[str, Any]) -> Iterator[Path]:
    """Yield all files that the command reads, each of which an option may name."""
    from onnx_analog.graph import files

    for model in (protected, choices["reference"]):
        yield from files.files_of(model) if model else ()
    yield data
    yield from (Path(choices[name]) for name in ("channel", "correct") if choices[name])
