"""Write the limits of the codes that examples/codes.py compares: the fewest cells that any code needs at their errors.

    python examples/limits.py resnet20-cifar10.onnx --channel pcm --out docs/results

Written is <out>/limits-<model>-<channel>.csv, with a row for each way to store the weights. Limits follow from the
weights, the channel and the errors of trial 0: no data are needed. Ways that are read without error have none. Neither
have compensated ones: their squared errors do not say how far outputs are off. Large steps are left out: their errors
are nearly as large as if all weights were 0, which would take no cells.
"""

from __future__ import annotations

import csv
from pathlib import Path

import click
import numpy as np
from codes import FILE, large_steps, plans, some

import onnx_analog as oa
from onnx_analog.cli.console import Command
from onnx_analog.cli.progress import status
from onnx_analog.errors import OptionError
from onnx_analog.study.rivals import RIVALS

FIELDS = ("strategy", "limit_cells_per_original_weight", "against_limit")


@click.command(cls=Command)
@click.argument("model", type=FILE)
@click.option("--shape", default="1,3,32,32")
@click.option("--only", default="")
@click.option("--channel", default="pcm")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results"))
def main(model: Path, shape: str, only: str, channel: str, out: Path) -> None:
    """Find the limit of each way to store the weights of a model."""
    sample = np.zeros([int(size) for size in shape.split(",")], np.float32)
    experiment = oa.Experiment(model, sample)
    large = large_steps(channel)
    named = {name: scheme for name, scheme in some(plans(channel), only).items() if name not in large}
    named |= {name: scheme.changed(channel=oa.channel(channel)) for name, scheme in RIVALS.items()}
    name = f"limits-{model.stem}-{channel.partition(':')[0]}"
    rows = []
    with status(name) as update:
        for number, (strategy, scheme) in enumerate(named.items()):
            update(f"{strategy}, {number + 1} of {len(named)}")
            try:
                limit = experiment.limit(scheme)
            except OptionError as error:
                click.echo(f"{strategy} has no limit: {error}", err=True)
                continue
            rows.append((strategy, limit.cells_per_original_weight, limit.factor))
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([FIELDS, *rows])


if __name__ == "__main__":
    main()
