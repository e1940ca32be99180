r"""Measure what training buys: cells per original weight over points lost against the network as it was at first.

    python examples/trained.py lenet lenet-mnist.onnx models/lenet-*.onnx --mean 0.1307 --std 0.3081 \
        --data mnist-test.npz --train mnist-train.npz

The first model is the original; its own points are measured too. All are stored in equal steps, entropy-coded, and
read from cells of --channel with a code: plain, and compensated and corrected by images of --train. Cells include the
numbers of the correction. A mask that follows from --mask-seed takes its seed only. Written is <out>/training-NAME.csv,
with rows for each model and step; what is there is not measured again. Printed are the tables of docs/training.md.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from codes import numbers

import onnx_analog as oa
from onnx_analog.cli.console import Command
from onnx_analog.coding.plan import Plan
from onnx_analog.tuning.drops import drop_of
from onnx_analog.tuning.measures import cells_of_numbers

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PLAIN, HELPED = "plain", "compensated"
FIELDS = (
    "model",
    "digest",
    "stored",
    "step",
    "kept",
    "cells",
    "correction_cells",
    "samples",
    "lost",
    "low",
    "high",
)


class Setting(NamedTuple):
    """The settings that all points share."""

    original: Path
    data: Path
    train: Path
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel: str
    mask_seed: int
    threads: int
    samples: int | None


class Row(NamedTuple):
    """A point: cells per original weight, and points lost with the ends of their 95 % interval."""

    model: str
    digest: str  # of the model's file: the first 12 digits
    stored: str  # PLAIN, or HELPED: compensated and corrected
    step: float
    kept: float  # share of the weights
    cells: float  # with those of the correction
    correction_cells: float  # of these
    samples: int
    lost: float
    low: float
    high: float


def measured(path: Path, stored: str, steps: Iterable[float], setting: Setting) -> Iterable[Row]:
    """Yield the point of a model at each step."""
    digest, train = digest_of(path), setting.train if stored == HELPED else None
    experiment = oa.Experiment(
        path, setting.data, "top1", reference=setting.original, mean=setting.mean, std=setting.std,
        samples=setting.samples, threads=setting.threads, correct=train, compensate=train,
    )  # fmt: skip
    for step in steps:
        scheme = oa.Scheme.entropy_coded(step, channel=setting.channel, mask_seed=setting.mask_seed)
        trials = experiment.trials(Plan.of(scheme))
        totals = trials.totals
        if totals.honest_cells is None:
            raise click.ClickException(f"channel {setting.channel} is too noisy for a code")
        numbers = 0 if trials.corrector is None else trials.corrector.cost.numbers
        correction = cells_of_numbers(numbers, scheme.channel, totals.decoding) / totals.original_weights
        drop = drop_of(experiment, trials, seed=0, count=1)  # digital streams with a code read alike in all trials
        low, high = (100 * end for end in drop.interval())
        yield Row(
            path.stem, digest, stored, step, totals.stored_weights / totals.original_weights,
            totals.honest_cells / totals.original_weights + correction, correction,
            drop.samples, 100 * drop.mean, low, high,
        )  # fmt: skip


def digest_of(path: Path) -> str:
    """Return the first 12 digits of the digest of a model's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def cells_at(rows: Sequence[Row], limit: float, column: str) -> float | None:
    """Return the fewest cells at which a column is at most `limit` points, between two neighbouring points on a line.

    None if no point is as good, or all are: then nothing says where the limit is crossed.
    """
    points = sorted((row.cells, getattr(row, column)) for row in rows)
    for (fewer, worse), (more, better) in pairwise(points):
        if worse > limit >= better:
            return float(np.interp(limit, (better, worse), (more, fewer)))
    return None


def table(rows: Sequence[Row], limits: Iterable[float], original: str) -> str:
    """Return cells per original weight at each loss, by model."""
    limits = tuple(limits)
    heads = " | ".join(f"at {limit:g} point{'s' * (limit != 1)}" for limit in limits)
    lines = [f"| model | stored | weights kept, % | {heads} | least points lost |", "|---" * (4 + len(limits)) + "|"]
    for model, stored in sorted({(row.model, row.stored) for row in rows}, key=lambda key: (key[0] != original, key)):
        own = [row for row in rows if (row.model, row.stored) == (model, stored)]
        best = min(own, key=lambda row: row.lost)
        cells = " | ".join(_span(own, limit) for limit in limits)
        lost = f"{best.lost:.2f} ({best.low:.2f} to {best.high:.2f}) in {best.cells:.3f}"
        lines.append(f"| {model} | {stored} | {100 * best.kept:.1f} | {cells} | {lost} |")
    return "\n".join(lines)


def _span(rows: Sequence[Row], limit: float) -> str:
    """Return the cells at a loss, and between which they are: where the ends of the interval of the loss cross it."""
    middle, least, most = (cells_at(rows, limit, column) for column in ("lost", "low", "high"))
    if middle is None:
        always = all(row.lost <= limit for row in rows)
        return f"below {min(row.cells for row in rows):.3f}" if always else "-"
    fewest = min(row.cells for row in rows)
    low = f"below {fewest:.3f}" if least is None else f"{least:.3f}"
    return f"{middle:.3f} ({low} to {'-' if most is None else f'{most:.3f}'})"


def points(rows: Sequence[Row]) -> str:
    """Return all points."""
    lines = ["| model | stored | step | cells | of which correction | points lost |", "|---|---|---|---|---|---|"]
    for row in rows:
        lost = f"{row.lost:.2f} ({row.low:.2f} to {row.high:.2f})"
        lines.append(
            f"| {row.model} | {row.stored} | {row.step:g} | {row.cells:.3f} | {row.correction_cells:.3f} | {lost} |"
        )
    return "\n".join(lines)


def read(path: Path) -> list[Row]:
    """Return the rows of a file; none if there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _row(texts: Mapping[str, str]) -> Row:
    kinds: dict[str, Any] = {"model": str, "digest": str, "stored": str, "samples": int}
    return Row(**{name: kinds.get(name, float)(texts[name]) for name in FIELDS})


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for row in rows:
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])


@click.command(cls=Command)
@click.argument("name")
@click.argument("original", type=FILE)
@click.argument("models", type=FILE, nargs=-1)
@click.option("--data", type=FILE, required=True, help="Test images: npz.")
@click.option("--train", type=FILE, required=True, help="Images that compensate and correct: npz.")
@click.option("--mean", default="0")
@click.option("--std", default="1")
@click.option("--steps", default="1,1.5,2,2.5", show_default=True)
@click.option("--stored", type=click.Choice([HELPED, PLAIN]), multiple=True, default=(HELPED, PLAIN), show_default=True)
@click.option("--losses", default="0.5,1,2", show_default=True, help="Points lost, of the table.")
@click.option("--channel", default="pcm", show_default=True)
@click.option(
    "--mask-seed", type=click.IntRange(0), default=0, show_default=True, help="Of masks that follow from one."
)
@click.option("--threads", type=click.IntRange(0), default=0, help="Of onnxruntime.  [default: one for each core]")
@click.option("--samples", type=click.IntRange(1), help="Test images.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results"), show_default=True)
def main(
    name: str, original: Path, models: tuple[Path, ...], data: Path, train: Path, mean: str, std: str, steps: str,
    stored: tuple[str, ...], losses: str, channel: str, mask_seed: int, threads: int,
    samples: int | None, out: Path,
) -> None:  # fmt: skip
    """Measure the model ORIGINAL and the MODELS that were trained from it."""
    setting = Setting(original, data, train, numbers(mean), numbers(std), channel, mask_seed, threads, samples)
    path = out / f"training-{name}.csv"
    rows = read(path)
    for model, way in product((original, *models), stored):
        this = (model.stem, digest_of(model), way)
        there = {row.step for row in rows if (row.model, row.digest, row.stored) == this}
        missing = [step for step in numbers(steps) if step not in there]
        for row in measured(model, way, missing, setting) if missing else ():
            others = [each for each in rows if (each.model, each.stored, each.step) != (row.model, way, row.step)]
            rows = sorted([*others, row])
            write(path, rows)
            click.echo(
                f"{row.model}, {way}, step {row.step:g}: {row.lost:.2f} points lost in {row.cells:.3f}", err=True
            )
    click.echo(table(rows, numbers(losses), original.stem))
    click.echo()
    click.echo(points(rows))


if __name__ == "__main__":
    main()
