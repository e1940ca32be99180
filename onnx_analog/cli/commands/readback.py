"""The command `readback`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import click

from onnx_analog.arguments import MOST_READBACKS
from onnx_analog.cli.console import Command, Whole, show
from onnx_analog.cli.options import (
    CHANGES,
    CORRECT,
    FILE,
    FORCE,
    LOAD,
    OTHER_CHANNEL,
    OUT_OR_FOLDER,
    PREPROCESSING,
    SEED,
    modifiers_of,
    shown,
    stem,
)
from onnx_analog.cli.progress import progress
from onnx_analog.cli.settings import argument


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
@PREPROCESSING
@click.option(
    "-o", "--output", type=OUT_OR_FOLDER, help="Output file; with --trials, a folder.  [default: beside PROTECTED]"
)
@LOAD
@FORCE
def command(
    protected: Path,
    seed: int,
    trials: int | None,
    decoded: bool,
    channel: str | None,
    output: Path | None,
    force: bool,
    **choices: Any,
) -> None:
    """Write PROTECTED with its weights as read from noisy cells.

    They are exactly the weights that `evaluate` uses in the same trials.

    Example:

    \b
        onnx-analog readback model.protected.onnx --seed 0 --decoded
    """
    from onnx_analog import api
    from onnx_analog.disk import transactions, writing
    from onnx_analog.graph import files

    if trials is None:
        targets = [output or protected.with_name(f"{stem(protected)}.readback.onnx")]
    else:
        folder = output or protected.with_name(f"{stem(protected)}.readback")
        targets = [folder / f"trial-{trial:04}.onnx" for trial in range(trials)]
    named = [Path(text) for text in (channel, choices["correct"]) if text]
    read = chain(files.files_of(protected), named)
    perhaps = map(writing.data_beside, targets)
    writing.check_outputs(targets, read, force=force, perhaps=perhaps, new_folder=trials is not None)
    modifiers = modifiers_of(choices)
    models = api.readbacks(
        protected, seed=seed, trials=len(targets), channel=channel, modifiers=modifiers, decoded=decoded, **choices
    )
    with progress("reading noisy cells", len(targets)) as advance:

        def writer(path: Path) -> None:
            next(models).writer()(path)
            advance()

        if trials is None:
            writing.write_all(dict.fromkeys(targets, writer), force=force)
        else:
            with transactions.tidy_ends(), writing.new_folder(targets[0].parent):
                writing.write_all(dict.fromkeys(targets, writer), force=force)
    where = targets[0] if trials is None else targets[0].parent
    show(f"{len(targets)} model{'s' * (len(targets) > 1)}, seed {seed}: {shown(where)}")
