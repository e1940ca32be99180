r"""Measure what training buys: cells per original weight over points lost against the network as it was at first.

    python examples/trained.py lenet lenet-mnist.onnx models/lenet-*.onnx --mean 0.1307 --std 0.3081 \
        --data mnist-test.npz --train mnist-train.npz

The first model is the original; its own points are measured too. All are stored in equal steps, entropy-coded,
compensated and corrected by images of --train, and read from cells of --channel with a code. Cells include the numbers
of the correction. Written is <out>/training-NAME.csv, with a row for each model and step; rows that are there are not
measured again. Printed are the tables of docs/training.md.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from training import NUMBERS

import onnx_analog as oa
from onnx_analog.cli.console import Command
from onnx_analog.coding.plan import Plan
from onnx_analog.tuning.drops import drop_of
from onnx_analog.tuning.search import cells_of_numbers

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FIELDS = (
    "model",
    "digest",
    "step",
    "kept",
    "cells",
    "mask_cells",
    "correction_cells",
    "samples",
    "lost",
    "low",
    "high",
)


class Setting(NamedTuple):
    """What all points have in common."""

    original: Path
    data: Path
    train: Path
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel: str
    samples: int | None


class Row(NamedTuple):
    """A point: cells per original weight, and points lost with the ends of their 95 % interval."""

    model: str
    digest: str  # of the model's file: the first 12 digits
    step: float
    kept: float  # share of the weights
    cells: float  # with those of the correction
    correction_cells: float  # of these
    samples: int
    lost: float
    low: float
    high: float


def measured(path: Path, steps: Iterable[float], setting: Setting) -> Iterable[Row]:
    """Yield the point of a model at each step."""
    digest = digest_of(path)
    experiment = oa.Experiment(
        path, setting.data, "top1", reference=setting.original, mean=setting.mean, std=setting.std,
        samples=setting.samples, correct=setting.train, compensate=setting.train,
    )  # fmt: skip
    for step in steps:
        scheme = oa.Scheme.entropy_coded(step, channel=setting.channel)
        trials = experiment.trials(Plan.of(scheme))
        totals = trials.totals
        if totals.honest_cells is None:
            raise click.ClickException(f"channel {setting.channel} is too noisy for a code")
        numbers = 0 if trials.corrector is None else trials.corrector.cost.numbers
        correction = cells_of_numbers(numbers, scheme.channel, totals.decoding) / totals.original_weights
        drop = drop_of(experiment, trials, seed=0, count=1)  # digital streams with a code read alike in all trials
        low, high = (100 * end for end in drop.interval())
        yield Row(
            path.stem, digest, step, totals.stored_weights / totals.original_weights,
            totals.honest_cells / totals.original_weights + correction, correction,
            drop.samples, 100 * drop.mean, low, high,
        )  # fmt: skip


def digest_of(path: Path) -> str:
    """Return what tells a model's file from others."""
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
    heads = " | ".join(f"at {limit:g} points" for limit in limits)
    lines = [f"| model | weights kept, % | {heads} | least points lost |", "|---" * (3 + len(limits)) + "|"]
    for model in sorted({row.model for row in rows}, key=lambda name: (name != original, name)):
        own = [row for row in rows if row.model == model]
        best = min(own, key=lambda row: row.lost)
        cells = " | ".join(_span(own, limit) for limit in limits)
        lost = f"{best.lost:.2f} ({best.low:.2f} to {best.high:.2f}) in {best.cells:.3f}"
        lines.append(f"| {model} | {100 * own[0].kept:.1f} | {cells} | {lost} |")
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
    lines = ["| model | step | cells | of which correction | points lost |", "|---|---|---|---|---|"]
    for row in rows:
        lost = f"{row.lost:.2f} ({row.low:.2f} to {row.high:.2f})"
        lines.append(f"| {row.model} | {row.step:g} | {row.cells:.3f} | {row.correction_cells:.3f} | {lost} |")
    return "\n".join(lines)


def read(path: Path) -> list[Row]:
    """Return the rows of a file; none if there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _row(texts: Mapping[str, str]) -> Row:
    kinds: dict[str, Any] = {"model": str, "digest": str, "samples": int}
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
@click.option("--mean", type=NUMBERS, default="0")
@click.option("--std", type=NUMBERS, default="1")
@click.option("--steps", type=NUMBERS, default="1,1.5,2,2.5", show_default=True)
@click.option("--losses", type=NUMBERS, default="0.5,1,2", show_default=True, help="Points lost, of the table.")
@click.option("--channel", default="pcm", show_default=True)
@click.option("--samples", type=click.IntRange(1), help="Test images.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results"), show_default=True)
def main(
    name: str, original: Path, models: tuple[Path, ...], data: Path, train: Path, mean: tuple[float, ...],
    std: tuple[float, ...], steps: tuple[float, ...], losses: tuple[float, ...], channel: str, samples: int | None,
    out: Path,
) -> None:  # fmt: skip
    """Measure the model ORIGINAL and the MODELS that were trained from it."""
    setting = Setting(original, data, train, mean, std, channel, samples)
    path = out / f"training-{name}.csv"
    rows = read(path)
    for model in (original, *models):
        there = {row.step for row in rows if (row.model, row.digest) == (model.stem, digest_of(model))}
        missing = [step for step in steps if step not in there]
        for row in measured(model, missing, setting) if missing else ():
            rows = sorted([*(each for each in rows if each[:1] + each[2:3] != row[:1] + row[2:3]), row])
            write(path, rows)
            click.echo(f"{row.model}, step {row.step:g}: {row.lost:.2f} points lost in {row.cells:.3f} cells", err=True)
    click.echo(table(rows, losses, original.stem))
    click.echo()
    click.echo(points(rows))


if __name__ == "__main__":
    main()
