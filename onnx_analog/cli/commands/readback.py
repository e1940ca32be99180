"""The command `readback`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.arguments import MOST_READBACKS
from onnx_analog.cli.console import Command
from onnx_analog.cli.options import (
    CHANGES,
    CORRECT,
    FILE,
    FORCE,
    JSON,
    LOAD,
    OTHER_CHANNEL,
    OUT,
    OUT_OR_FOLDER,
    PREPROCESSING,
    SEED,
    modifiers_of,
    shown,
    stem,
)
from onnx_analog.cli.printing import print_json, show
from onnx_analog.cli.progress import progress, status
from onnx_analog.cli.settings import argument
from onnx_analog.cli.types import Whole
from onnx_analog.display import counted
from onnx_analog.errors import OptionError

if TYPE_CHECKING:
    from onnx_analog.run.array_statistics import ArrayStatistics


@click.command(cls=Command)
@click.argument("protected", type=FILE)
@SEED
@click.option(
    "--trials",
    type=Whole(1, MOST_READBACKS),
    help="Write this many trials into a folder.  [default: one file, of trial 0]",
)
@argument("decoded")
@OTHER_CHANNEL
@CHANGES
@CORRECT
@click.option("--reference", type=FILE, help="The original, towards which the samples of --correct correct.")
@PREPROCESSING
@click.option(
    "--measured", type=FILE, help="Reads of a real array, .npz or .csv: address and value. No noise is then added."
)
@argument("unit")
@argument("missing")
@argument("time_s")
@click.option("--statistics", type=OUT, metavar="FILE", help="Write how far reads are from levels, for `compare`.")
@click.option("--data", type=FILE, help="With --statistics: npz file of inputs and labels to score the arrays on.")
@click.option(
    "-o", "--output", type=OUT_OR_FOLDER, help="Output file; with --trials, a folder.  [default: beside PROTECTED]"
)
@LOAD
@JSON
@FORCE
def command(
    protected: Path,
    seed: int,
    trials: int | None,
    decoded: bool,
    channel: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    statistics: Path | None,
    data: Path | None,
    **choices: Any,
) -> None:
    """Write PROTECTED with its weights as read from noisy cells.

    They are exactly the weights that `evaluate` uses in the same trials. With --measured, they are those read from a
    real array that was programmed with `manifest --write-image`.

    Example:

    \b
        onnx-analog readback model.protected.onnx --seed 0 --decoded
    """
    from onnx_analog import api
    from onnx_analog._inputs import OF_MEASURED, check_measured
    from onnx_analog.cli.array_tables import array_table
    from onnx_analog.disk import transactions, writing
    from onnx_analog.graph import files

    measured = choices["measured"]
    check_measured(measured, choices, {"trials": (trials, None)})
    if data is not None and statistics is None:
        raise OptionError("--data is given, and --statistics is not: name the file that scores are written to")
    modifiers = modifiers_of(choices)
    settings = {**choices, "seed": seed, "channel": channel, "modifiers": modifiers, "decoded": decoded}
    if trials is None:
        targets = [output or protected.with_name(f"{stem(protected)}.readback.onnx")]
    else:
        folder = output or protected.with_name(f"{stem(protected)}.readback")
        targets = [folder / f"trial-{trial:04}.onnx" for trial in range(trials)]
    named = [Path(text) for text in (channel, choices["correct"]) if text]
    named += [path for path in (measured, data, choices["reference"]) if path is not None]
    read = [*files.files_of(protected), *named]
    perhaps = [writing.data_beside(target) for target in targets]
    beside = [] if statistics is None else [statistics]
    check = partial(writing.check_outputs, [*targets, *beside], read, perhaps=perhaps, new_folder=trials is not None)
    check(force=True)
    _check_inputs(protected, data, settings)  # what is wrong with them is said before what is there already
    check(force=force)
    writers, scored, score = {}, None, None
    if statistics is not None:
        found = _statistics(protected, trials or 1, data, settings)
        writers[statistics] = writing.write_text(found.to_json())
        scored, score = {"metric": found.metric, "samples": found.samples, "values": list(found.values)}, found.score
    if data is not None and choices["correct"] is None:  # then images are those of the data only
        settings = {name: value for name, value in settings.items() if name not in ("mean", "std", "preprocess")}
    facts: dict[str, Any] = {"models": [str(target) for target in targets], "seed": seed}
    facts |= {"statistics": None if statistics is None else str(statistics), "array": None, "scores": scored}
    lines: list[Any] = [] if statistics is None else [f"statistics of {found}: {shown(statistics)}"]
    lines += [] if score is None else [score]
    if trials is None:
        with progress("reading the array", 1) as advance:
            perturbed = api.readback(protected, **settings)
            writing.write_all({targets[0]: perturbed.writer(), **writers}, force=force)
            advance()
        if perturbed.array is not None:
            facts["array"] = perturbed.array.to_dict()
            lines.append(array_table(perturbed.array))
        facts["correction"] = perturbed.correction_dict()
        lines.append(f"{perturbed}: {shown(targets[0])}")
    else:
        others = {name: value for name, value in settings.items() if name not in ("measured", *OF_MEASURED)}
        models, corrected = api.readbacks(protected, trials=trials, **others), ""
        with progress("reading noisy cells", trials) as advance:

            def writer(path: Path) -> None:
                nonlocal corrected
                perturbed = next(models)
                perturbed.writer()(path)
                facts["correction"], corrected = perturbed.correction_dict(), perturbed.corrected
                advance()

            with transactions.tidy_ends(), writing.new_folder(targets[0].parent):
                writing.write_all({**dict.fromkeys(targets, writer), **writers}, force=force)
        lines.append(f"{counted(trials, 'model')}, seed {seed}{corrected}: {shown(targets[0].parent)}")
    if as_json:
        print_json(facts)
    else:
        show(*lines)


def _check_inputs(protected: Path, data: Path | None, settings: dict[str, Any]) -> None:
    """Open the model, the channel, the reads and the data; the reads are kept in `settings`."""
    from onnx_analog import api
    from onnx_analog.graph.correction import GAIN
    from onnx_analog.graph.reads import reads_of
    from onnx_analog.run import data as data_files

    model = api.load(protected)
    model.check_readable()
    model.through(settings["channel"], settings["modifiers"])
    if settings["measured"] is not None:
        with status("reads of the array") as show_progress:
            settings["measured"] = reads_of(settings["measured"], show_progress)  # once, for model and statistics
    for path in (data, settings["correct"]):
        if path not in (None, GAIN):
            data_files.read(Path(path))


def _statistics(protected: Path, trials: int, data: Path | None, settings: dict[str, Any]) -> ArrayStatistics:
    """Return the statistics of what is read."""
    from onnx_analog._array import array_statistics

    others = {name: value for name, value in settings.items() if name != "decoded"}
    with status("statistics") as show_progress:
        show_progress("reading the array")
        return array_statistics(protected, trials=trials, data=data, **others)
