"""Compare strategies × cells × scopes on any model: a Markdown table, a CSV of all trials and a plot.

    python examples/compare.py resnet20-cifar10.onnx --data cifar10-test.npz \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --samples 2000 --trials 10 --out docs/results

Written are <out>/<model>.md, <out>/<model>.csv and <out>/<model>.png. "c cells" is c for every class; for the strategy
redundancy it is c per small and 20·c per large weight, and what that costs stands beside it.
"""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import onnx_analog as oa
from onnx_analog import api
from onnx_analog.cli import report
from onnx_analog.cli.console import Command
from onnx_analog.graph import files
from onnx_analog.run import data
from onnx_analog.run.session import Network
from onnx_analog.study.grid import Grid
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.sweeps import Case, Point, prepare, sweep


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


@click.command(cls=Command)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--data", "npz", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--mean", default="0")
@click.option("--std", default="1")
@click.option("--samples", type=int, default=2000)
@click.option("--trials", type=int, default=10)
@click.option("--cells", default="1,3,10")
@click.option("--sparsity", type=float, default=0.0)
@click.option("--channel", default="pcm")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results"))
def main(
    model: Path, npz: Path, mean: str, std: str, samples: int, trials: int, cells: str, sparsity: float,
    channel: str, out: Path,
) -> None:  # fmt: skip
    """Evaluate every strategy at every number of cells, by default and as the paper has it."""
    images = load_images(model, npz, mean, std, samples)
    start = api.prune(model, sparsity=sparsity).model if sparsity else files.load(model)
    counts = tuple(int(count) for count in cells.split(","))
    grid = Grid(presets=tuple(oa.PRESETS.values()), cells=counts, channels=(oa.channel(channel),))
    plan = prepare([Case(name=model.stem, model=start, data=images)], grid, Stopping(trials=trials))
    points = []
    for point in sweep(plan):
        points.append(point)
        where = f"{point.setting.preset.scope} {point.strategy} {point.cells}"
        print(f"{len(points)}/{len(grid)} {where}: {point.evaluation}", flush=True)
    clean = points[0].evaluation.clean
    out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "examples/compare.py", model.name, "--data", npz.name, *options(sys.argv)])
    (out / f"{model.stem}.md").write_text(markdown(points, clean or 0.0, command), encoding="utf-8")
    write_csv(points, out / f"{model.stem}.csv")
    if report.can_plot():
        report.plot_points(points)(out / f"{model.stem}.png")
    else:
        click.echo(report.NO_PLOTS, err=True)


def load_images(model: Path, npz: Path, mean: str, std: str, samples: int) -> data.Dataset:
    preprocessing = data.Preprocessing(mean=numbers(mean), std=numbers(std))
    return data.load(npz, Network(files.load(model)).inputs, preprocessing).head(samples)


def options(argv: Sequence[str]) -> list[str]:
    """Return what was given beside the model, the data and the folder, whose paths are one machine's."""
    left, skip = [], False
    for word in argv[2:]:
        if skip or word in ("--data", "--out"):
            skip = not skip
        else:
            left.append(word)
    return left


def markdown(points: Sequence[Point], clean: float, command: str) -> str:
    samples = points[0].evaluation.samples
    lines = [f"`{command}`", "", f"Without noise: {clean:.2%} on {samples:,} samples.", ""]
    cells = sorted({point.cells for point in points})
    for title in dict.fromkeys(report.preset_title(point) for point in points):
        lines += [f"**{title}**", "", "| strategy | " + " | ".join(f"{c} cell{'s' * (c > 1)}" for c in cells) + " |"]
        lines.append("|---" * (len(cells) + 1) + "|")
        for strategy in oa.STRATEGIES:
            found = [p for p in points if p.strategy == strategy and report.preset_title(p) == title]
            lines.append(f"| {strategy} | " + " | ".join(report.cell_text(point) for point in found) + " |")
        lines.append("")
    lines.append("Accuracy in %, ± half of its 95 % interval over trials [all-in cells per original weight].")
    return "\n".join(lines) + "\n"


def write_csv(points: Sequence[Point], path: Path) -> None:
    rows = [row for point in points for row in rows_of(point)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def rows_of(point: Point) -> Iterator[dict[str, Any]]:
    """Yield one row for each trial."""
    ratios, preset = point.totals.ratios(), point.setting.preset
    costs = ("r_avg", "stored_cells_per_stored_weight", "all_in_cells_per_original_weight")
    for trial, value in enumerate(point.evaluation.values):
        yield {
            "strategy": point.strategy, "cells": point.cells, "scope": preset.scope,
            "large_fraction": preset.large_fraction, **{name: ratios[name] for name in costs},
            "seed": point.evaluation.seed, "trial": trial, "value": value,
        }  # fmt: skip


if __name__ == "__main__":
    main()
