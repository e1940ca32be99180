"""Draw what is lost over cells, from files of examples/codes.py and `onnx-analog tune --json`.

    python examples/beyond.py resnet20-cifar10 --channel pcm --folder docs/results --out docs/beyond

Reads <folder>/codes-<model>-<channel>.csv, compensated-<model>-<channel>.csv and tune-<model>-<channel>.json, where
they exist. Writes <out>/<model>-<channel>.png.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from onnx_analog.cli.console import Command
from onnx_analog.run.statistics import interval

LEAST = 0.05  # points lost: less is drawn there, for the axis is logarithmic
HONEST = "honest_cells_per_original_weight"
KINDS: Mapping[str, dict[str, Any]] = {  # of points, by the beginnings of their names
    "the paper's strategies": {"marker": "s", "color": "#8c8c8c", "linestyle": "none"},
    "integers": {"marker": "D", "color": "#a6611a", "linestyle": "none"},
    "equal steps, entropy-coded": {"marker": "o", "color": "#d1495b", "linestyle": "--"},
    "refined steps: an index and an analog cell": {"marker": "^", "color": "#3288bd", "linestyle": "-."},
    "equal steps, compensated": {"marker": "o", "color": "#1b7837", "linestyle": "-"},
}
BEGINNINGS = {"mapping": 0, "redundancy": 0, "int": 1, "entropy-coded": 2, "refined": 3}


class Mark(NamedTuple):
    """A point of the plot: cells per original weight, and points lost with the ends of their interval."""

    cells: float
    lost: float
    low: float
    high: float


def marks(path: Path) -> Iterator[tuple[str, Mark]]:
    """Yield the name and the mark of each way of storing in a file of trials."""
    trials: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            trials.setdefault(row["strategy"], []).append(row)
    for name, rows in trials.items():
        values = [float(row["value"]) for row in rows]
        original, mean = float(rows[0]["original"]), float(np.mean(values))
        low, high = interval(values, bounds=(0.0, 1.0)) or (mean, mean)
        lost = [100 * (original - value) for value in (mean, high, low)]
        yield name, Mark(float(rows[0][HONEST]), *lost)


def kind_of(name: str, *, compensated: bool) -> str:
    """Return the kind of a way of storing."""
    kinds = list(KINDS)
    number = next((number for start, number in BEGINNINGS.items() if name.startswith(start)), 0)
    return kinds[-1] if compensated and number == BEGINNINGS["entropy-coded"] else kinds[number]


def read(folder: Path, model: str, channel: str) -> dict[str, list[Mark]]:
    """Return the marks of each kind."""
    found: dict[str, list[Mark]] = {}
    for prefix in ("codes", "compensated"):
        path = folder / f"{prefix}-{model}-{channel}.csv"
        for name, mark in marks(path) if path.exists() else ():
            compensated = prefix == "compensated"
            if compensated and not name.startswith("entropy-coded"):
                continue  # integers stand among the others
            found.setdefault(kind_of(name, compensated=compensated), []).append(mark)
    return found


def tuned(path: Path) -> Mark | None:
    """Return the mark of the answer of `tune`, or None if there is no file of it."""
    if not path.exists():
        return None
    best = json.loads(path.read_text(encoding="utf-8"))["best"]
    return Mark(best["cells_per_weight"], best["points_lost"], *best["points_lost_ci95"])


def draw(found: Mapping[str, list[Mark]], answer: Mark | None, title: str, path: Path) -> None:
    """Draw the marks into a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.5, 4.6), layout="constrained")
    for kind, style in KINDS.items():
        points = sorted(found.get(kind, []))
        if points:
            x, y, below, above = _columns(points)
            axis.errorbar(x, y, yerr=(below, above), label=kind, capsize=2, markersize=5, linewidth=1.4, **style)
    if answer is not None:
        x, y, below, above = _columns([answer])
        style = {"fmt": "*", "color": "black", "markersize": 14, "capsize": 3}
        axis.errorbar(x, y, yerr=(below, above), label="onnx-analog tune, verified", **style)
    axis.set(xscale="log", yscale="log", title=title)
    axis.set_xlabel("cells per original weight, as the memory allows")
    axis.set_ylabel(f"percentage points lost ({LEAST:g} or less at the bottom)")
    ticks = [ticks for ticks in (0.25, 0.5, 1, 2, 4, 8, 16) if axis.get_xlim()[0] <= ticks <= axis.get_xlim()[1]]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(
        [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50], ["≤0.05", "0.1", "0.2", "0.5", *"125", "10", "20", "50"]
    )
    axis.set_ylim(LEAST * 0.85, 60)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _columns(points: list[Mark]) -> tuple[Any, Any, Any, Any]:
    cells, lost, low, high = (np.array(column) for column in zip(*points, strict=True))
    y = np.maximum(lost, LEAST)
    return cells, y, y - np.maximum(low, LEAST).clip(max=y), np.maximum(high, y) - y


@click.command(cls=Command)
@click.argument("model")
@click.option("--channel", default="pcm")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("docs/results"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/beyond"))
def main(model: str, channel: str, folder: Path, out: Path) -> None:
    """Draw the plot of a model and a channel."""
    of_kind = read(folder, model, channel)
    answer = tuned(folder / f"tune-{model}-{channel}.json")
    if not of_kind:
        raise click.ClickException(f"{folder} holds no results of {model} with {channel}: run examples/codes.py first")
    draw(of_kind, answer, f"{model}, channel {channel}", out / f"{model}-{channel}.png")


if __name__ == "__main__":
    main()
