"""What it costs when sign and class bits are analog too: a Markdown table.

    python examples/analog_side_information.py resnet20-cifar10.onnx --data cifar10-test.npz \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --out docs/results/side-information.md

The paper takes these bits to be free of error, at 2 bits in one cell. Here each row stores them in the same memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from compare import numbers

import onnx_analog as oa
from onnx_analog.channels.symbols import Packing
from onnx_analog.cli.console import Command
from onnx_analog.cli.progress import watch
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.side import SideInformation
from onnx_analog.study.sweeps import Point

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ROWS = (  # channel; side information: bits per cell, cells for each symbol (None: free of error), copies
    ("pcm", 2, None, 1),
    ("pcm", 2, 1, 1),
    ("pcm", 2, 5, 1),
    ("pcm", 2, 20, 1),
    ("pcm", 2, 1, 5),
    ("pcm", 1, 1, 1),
    ("pcm-partial-reset", 2, None, 1),
    ("pcm-partial-reset", 2, 1, 1),
    ("pcm-partial-reset", 2, 5, 1),
)
COLUMNS = ("channel", "bits per cell", "cells per symbol", "bit errors", "all-in cells per weight", "accuracy, %")


@click.command(cls=Command)
@click.argument("model", type=FILE)
@click.option("--data", "npz", type=FILE, required=True)
@click.option("--mean", default="0")
@click.option("--std", default="1")
@click.option("--samples", type=int, default=2000)
@click.option("--trials", type=int, default=10)
@click.option("--cells", type=int, default=10)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results/side-information.md"))
def main(model: Path, npz: Path, mean: str, std: str, samples: int, trials: int, cells: int, out: Path) -> None:
    """Evaluate one way to store magnitudes with side information of different quality."""
    plans = {str(number): scheme(*row, cells) for number, row in enumerate(ROWS)}
    with watch(model.stem) as update:
        swept = oa.sweep(
            model, npz, strategy=(), plan=plans, trials=trials, mean=numbers(mean), std=numbers(std),
            samples=samples, engine="serial", progress=update,
        )  # fmt: skip
    lines = [
        f"{model.name}, {samples:,} images, {trials} trials, strategy mapping with {cells} cells per weight.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(line(row[0], plan, point) for row, plan, point in zip(ROWS, plans.values(), swept.points, strict=True)),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def scheme(channel: str, bits: int, side_cells: int | None, copies: int, cells: int) -> Scheme:
    """Return the scheme of a row; `cells` is the number of cells per magnitude."""
    side: dict[str, Any] = {}
    if side_cells is not None:
        side = {"side_channel": channel, "side_cells": side_cells, "side_copies": copies}
    return Scheme.paper(
        "mapping", cells_small=cells, cells_large=cells, channel=channel, side_bits_per_cell=bits, **side
    )


def line(channel: str, stored: Scheme, point: Point) -> str:
    """Return a line of the table."""
    side, found = stored.side, point.evaluation
    how = "free of error" if side is None else f"{stored.side_cells} × {stored.side_copies}"
    errors = "0" if side is None else f"{bit_error(side):.2%}" + " before the vote" * (stored.side_copies > 1)
    accuracy = "not run" if found.mean is None else f"{100 * found.mean:.2f}"
    if point.ci95 is not None:
        low, high = point.ci95
        accuracy += f" ± {50 * (high - low):.2f}"
    return f"| {channel} | {stored.side_bits_per_cell} | {how} | {errors} | {point.cost:.2f} | {accuracy} |"


def bit_error(side: SideInformation) -> float:
    """Return the share of bits that one copy gets wrong, all symbols equally likely."""
    symbols = Packing(2**side.bits_per_cell, cells=1, bits=side.bits_per_cell)
    return symbols.bit_error(side.confusion)


if __name__ == "__main__":
    main()
