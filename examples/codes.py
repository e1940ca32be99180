"""Compare codes of every level of decoding on a model: in cells as the memory allows, with and without correction.

    python examples/codes.py resnet20-cifar10.onnx --data cifar10-test.npz --correct cifar10-train.npz \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --channel pcm --trials 8 --out docs/results

Written are <out>/codes-<model>-<channel>.csv, with a row for each trial, and .md, a table. A run that is stopped is
resumed by the same command, from <out>/codes-<model>-<channel>.running. With --compensate only what has no analog cells
is compared, rounded so that weights make up for each other's errors; the files are then called compensated-... With
--only, of what has analog cells or no code, only names that begin so are compared beside the rivals. With --best, only
the points of these names are compared, of rivals too, and the files are called best-...
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click

import onnx_analog as oa
from onnx_analog.cli.console import Command
from onnx_analog.cli.progress import watch
from onnx_analog.coding.streams import DECODING
from onnx_analog.study.rivals import RIVALS
from onnx_analog.study.sweeps import Point

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
STEPS = (1.0, 1.5, 2.0, 3.0)  # of refined members, over the root mean square of the weights
LARGE_STEPS = (2.0, 2.5, 3.0)  # of entropy-coded ones, beyond those of the rivals


def plans(channel: str) -> dict[str, oa.Scheme]:
    """Return the points beside the rivals, by name."""
    raw = {"channel": channel, "code": "none"}
    named = {
        "mapping, 1 cell": oa.Scheme.paper("mapping", cells_small=1, **raw),
        "redundancy, 1 and 20 cells": oa.Scheme.paper("redundancy", **raw),
        "mapping, 4 cells": oa.Scheme.paper("mapping", cells_small=4, **raw),
        "mapping, 1 cell, unbiased": oa.Scheme.paper("mapping", cells_small=1, estimator="unbiased", **raw),
        "int4 without a code": oa.Scheme.int4(**raw),
        "int8 without a code": oa.Scheme.int8(**raw),
    }
    named |= {f"refined {step:g}": oa.Scheme.refined(step, channel=channel) for step in STEPS}
    return named | large_steps(channel)


def large_steps(channel: str) -> dict[str, oa.Scheme]:
    """Return the points of large steps, by name: beside the rivals, all there are where errors are compensated."""
    return {f"entropy-coded {step:g}": oa.Scheme.entropy_coded(step, channel=channel) for step in LARGE_STEPS}


def some(points: dict[str, oa.Scheme], only: str) -> dict[str, oa.Scheme]:
    """Return the points that are digital and have a code, and those whose names begin with one of `only`."""
    beginnings = tuple(only.split(","))
    return {
        name: scheme
        for name, scheme in points.items()
        if name.startswith(beginnings) or (scheme.analog == "none" and scheme.code != "none")
    }


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of a text with commas between them."""
    return tuple(float(part) for part in text.split(","))


@click.command(cls=Command)
@click.argument("model", type=FILE)
@click.option("--data", "npz", type=FILE, required=True)
@click.option("--correct", type=FILE, required=True)
@click.option("--compensate", type=FILE)
@click.option("--mean", default="0")
@click.option("--std", default="1")
@click.option("--samples", type=int)
@click.option("--only", default="")
@click.option("--best", default="")
@click.option("--trials", type=int, default=8)
@click.option("--channel", default="pcm")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results"))
def main(
    model: Path, npz: Path, correct: Path, compensate: Path | None, mean: str, std: str, samples: int | None,
    only: str, best: str, trials: int, channel: str, out: Path,
) -> None:  # fmt: skip
    """Evaluate the codes of each level of decoding."""
    out.mkdir(parents=True, exist_ok=True)
    kind = "best" if best else "compensated" if compensate else "codes"
    name = f"{kind}-{model.stem}-{channel.partition(':')[0]}"
    points = large_steps(channel) if compensate else plans(channel)
    if best:
        points |= {rival: scheme.changed(channel=channel) for rival, scheme in RIVALS.items()}
        points = {point: points[point] for point in best.split(",")}
    points = some(points, only)
    of_channel: dict[str, Any] = {} if best else {"channel": channel}  # plans have their own
    running = out / f"{name}.running"
    with watch(name) as update:
        swept = oa.sweep(
            model, npz, strategy=[], plan=points, rivals=not best, trials=trials, correct=correct,
            compensate=compensate, mean=numbers(mean), std=numbers(std), samples=samples, out=running, engine="serial",
            **of_channel,
            progress=update,
        )  # fmt: skip
    words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]
    command = shlex.join(["python", "examples/codes.py", *words])
    (out / f"{name}.md").write_text(page(command, swept.points), encoding="utf-8")
    shutil.copy(running / "trials.csv", out / f"{name}.csv")


def page(command: str, points: tuple[Point, ...]) -> str:
    """Return the table of points, by what decoding takes and then by cells."""
    rows = [
        "| decoding | stored as | cells per weight | as the paper counts | corrected, % | not corrected, % |",
        "|---|---|---|---|---|---|",
    ]
    for point in sorted(points, key=lambda each: (DECODING.index(each.totals.decoding), each.honest_cost or 0)):
        evaluation, honest = point.evaluation, point.honest_cost
        cells = "" if honest is None else f"{honest:.3f}"
        values = (share(evaluation), share(evaluation.uncorrected))
        rows.append(
            f"| {point.totals.decoding} | {point.strategy} | {cells} | {point.cost:.3f} | {' | '.join(values)} |"
        )
    original = 100 * (points[0].evaluation.original or 0)
    return f"`{command}`: original {original:.2f} %.\n\n" + "\n".join(rows) + "\n"


def share(evaluation: oa.Evaluation | None) -> str:
    """Return the mean over trials in %, and its 95 % interval."""
    if evaluation is None or evaluation.mean is None:
        return ""
    ends = "" if evaluation.ci95 is None else " ({:.2f} to {:.2f})".format(*(100 * end for end in evaluation.ci95))
    return f"{100 * evaluation.mean:.2f}{ends}"


if __name__ == "__main__":
    main()
