"""Compare strategies × cells × granularities on any model: a Markdown table, a CSV of all trials and a plot.

    python examples/compare.py resnet20-cifar10.onnx --data cifar10-test.npz \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --samples 2000 --trials 10 --out docs/results

Written are <out>/<model>.md, <out>/<model>.csv and <out>/<model>.png. "c cells" is c for every class; for the strategy
redundancy it is c per small and 20·c per large weight, and what that costs stands beside it. A run that is stopped is
resumed by the same command, from <out>/<model>.running.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

import onnx_analog as oa
from onnx_analog import plots
from onnx_analog.cli.console import Command
from onnx_analog.cli.progress import watch
from onnx_analog.cli.report import value_text
from onnx_analog.points import preset_title
from onnx_analog.study.sweeps import Point

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of a text with commas between them."""
    return tuple(float(part) for part in text.split(","))


@click.command(cls=Command)
@click.argument("model", type=FILE)
@click.option("--data", "npz", type=FILE, required=True)
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
    """Evaluate every strategy at every number of cells, with both presets."""
    out.mkdir(parents=True, exist_ok=True)
    running = out / f"{model.stem}.running"
    with watch(model.stem) as update:
        swept = oa.sweep(
            model, npz, cells=[int(count) for count in cells.split(",")], preset=tuple(oa.PRESETS), channel=channel,
            sparsity=sparsity, trials=trials, mean=numbers(mean), std=numbers(std), samples=samples, out=running,
            engine="serial", progress=update,
        )  # fmt: skip
    command = shlex.join(["python", "examples/compare.py", model.name, "--data", npz.name, *options(sys.argv)])
    text = markdown(swept.points, command)
    (out / f"{model.stem}.md").write_text(text, encoding="utf-8")
    shutil.copyfile(running / "trials.csv", out / f"{model.stem}.csv")
    if plots.can_plot():
        plots.plot_points(swept.points, "paper")(out / f"{model.stem}.png")
    else:
        click.echo(plots.NO_PLOTS, err=True)
    shutil.rmtree(running)
    print(text)


def options(argv: Sequence[str]) -> list[str]:
    """Return the arguments after the model, without data and folder, whose paths are those of this machine."""
    left, skip = [], False
    for word in argv[2:]:
        if skip or word in ("--data", "--out"):
            skip = not skip
        else:
            left.append(word)
    return left


def markdown(points: Sequence[Point], command: str) -> str:
    """Return the tables, one for each preset."""
    samples, original = points[0].evaluation.samples, points[0].evaluation.original or 0.0
    lines = [f"`{command}`", "", f"Original: {original:.2%} on {samples:,} samples.", ""]
    cells = sorted({point.cells for point in points})
    for title in dict.fromkeys(preset_title(point) for point in points):
        lines += [f"**{title}**", "", "| strategy | " + " | ".join(f"{c} cell{'s' * (c > 1)}" for c in cells) + " |"]
        lines.append("|---" * (len(cells) + 1) + "|")
        for strategy in oa.STRATEGIES:
            found = [p for p in points if p.strategy == strategy and preset_title(p) == title]
            lines.append(
                f"| {strategy} | " + " | ".join(f"{value_text(point)} [{point.cost:.2f}]" for point in found) + " |"
            )
        lines.append("")
    lines.append("Accuracy in %, ± half of its 95 % interval over trials [all-in cells per original weight].")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
