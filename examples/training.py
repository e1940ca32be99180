"""What the training scripts share: their options, the run, and the facts that they write beside the model."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme

try:
    import torch
except ImportError:
    sys.exit("Error: training needs PyTorch: pip install 'onnx-analog[train]'")
from onnx_analog.train import distillation, images, loop, networks, noise, pruning, starting
from onnx_analog.train.export import OPSET, export

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers."""
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers with commas between them", param, ctx)


NUMBERS = Numbers()


_OF_RECIPE = ("epochs", "patience", "held_out", "weight_decay", "bf16", "seed", "rate", "schedule", "shift")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network to be trained, and where it goes."""

    network: str
    name: str
    data: tuple[Path, Path]
    out: Path
    checkpoints: Path | None
    normalisation: images.Normalisation
    recipe: loop.Recipe
    noise: noise.Noise | None
    plan: Plan | None
    teacher: Path | None
    start: Path | None
    pruning: pruning.Pruning | None
    folded: bool


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all scripts have."""
    for option in reversed(
        [
            click.option("--data", nargs=2, type=FILE, required=True, metavar="TRAIN TEST", help="npz files."),
            click.option("--out", type=click.Path(path_type=Path), default=Path("models"), show_default=True),
            click.option("--name", help="Of the model's file.  [default: the network's, and what is done to it]"),
            click.option(
                "--checkpoints", type=click.Path(path_type=Path), help="Folder: a killed run goes on from it."
            ),
            click.option("--epochs", type=click.IntRange(1), help="At most.  [default: the paper's]"),
            click.option("--patience", type=click.IntRange(1), help="Epochs without anything better."),
            click.option("--held-out", type=click.IntRange(1), help="Images that choose the epoch.  [default: 5000]"),
            click.option("--weight-decay", type=click.FloatRange(0), help="[default: the paper's, 5e-4]"),
            click.option("--bf16/--no-bf16", default=None, help="Multiply in bfloat16.  [default: where the CPU does]"),
            click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
            click.option("--teacher", type=FILE, help="ONNX model to learn from (T = 1.5, equal weights)."),
            click.option("--noise", "noise_", help="On the weights in training: a standard deviation, or `channel`."),
            click.option("--plan", type=FILE, help="On the weights in training: stored and read as a plan says."),
            click.option("--channel", default="pcm", show_default=True, help="Of `--noise channel`."),
            click.option("--strategy", default="mapping", show_default=True, help="Likewise."),
            click.option("--cells", type=click.IntRange(1), default=4, show_default=True, help="Likewise."),
            click.option("--start", type=FILE, help="ONNX model, or checkpoint, whose weights are the first ones."),
            click.option("--sparsity", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Share pruned."),
            click.option(
                "--mask", default="magnitude", show_default=True, help="magnitude, layers, seed, or N:M, as 2:4."
            ),
            click.option("--rate", type=click.FloatRange(0, min_open=True), help="Largest learning rate."),
            click.option("--schedule", type=click.Choice(["constant", "cosine"]), help="Of the learning rate."),
            click.option("--shift", type=click.IntRange(0), help="Pixels that images move by, at most."),
            click.option("--mean", type=NUMBERS, help="Mean of each channel.  [default: the data set's]"),
            click.option("--std", type=NUMBERS, help="Standard deviation of each channel.  [default: the data set's]"),
            click.option("--folded", is_flag=True, help="Fold BatchNorm into the convolutions when exporting."),
        ]
    ):
        command = option(command)
    return command


def job(network: str, normalisation: images.Normalisation, recipe: loop.Recipe, **chosen: Any) -> Job:
    """Return what the options ask for."""
    asked = {name: chosen.pop(name) for name in _OF_RECIPE}
    if asked["bf16"] is None:
        asked["bf16"] = loop.has_bf16()
    recipe = replace(recipe, **{name: value for name, value in asked.items() if value is not None})
    own = {name: chosen.pop(name) for name in ("mean", "std")}
    normalisation = normalisation._replace(**{name: numbers for name, numbers in own.items() if numbers is not None})
    pruned = pruning.pruning_of(chosen.pop("mask"), chosen.pop("sparsity"), recipe.seed)
    if chosen["plan"] is not None:
        if chosen["noise_"] is not None:
            raise click.UsageError("--plan and --noise exclude each other: give one of them")
        chosen["plan"] = Plan.read(chosen["plan"])
    made = _noise(*(chosen.pop(name) for name in ("noise_", "channel", "strategy", "cells")))
    parts = [
        network,
        "kd" * bool(chosen["teacher"]),
        _suffix(made),
        "plan" * (chosen["plan"] is not None),
        "pruned" * bool(pruned),
    ]
    name = chosen.pop("name") or "-".join(part for part in parts if part)
    return Job(
        network=network, normalisation=normalisation, recipe=recipe, noise=made, pruning=pruned, name=name, **chosen
    )


def _noise(text: str | None, channel: str, strategy: str, cells: int) -> noise.Noise | None:
    if text is None:
        return None
    if text == "channel":
        scheme = Scheme.paper(strategy, cells_small=cells, granularity="model", channel=channel)
        return noise.ChannelNoise(scheme=scheme)
    return noise.WeightNoise(std=float(text))


def _suffix(made: noise.Noise | None) -> str:
    if isinstance(made, noise.WeightNoise):
        return "gaussian"
    return "channel" if isinstance(made, noise.ChannelNoise) else ""


def run(job: Job) -> dict[str, Any]:
    """Train, export, and write what was measured; return it."""
    torch.manual_seed(job.recipe.seed)
    torch.use_deterministic_algorithms(True)
    net = networks.NETWORKS[job.network]()
    train, test = (images.load(path, job.normalisation) for path in job.data)
    keys: dict[str, str] = {}
    if job.start is not None and job.start.suffix == ".onnx":
        keys = starting.start(net, job.start, train)
    elif job.start is not None:
        net.load_state_dict(torch.load(job.start, weights_only=True)["state"]["best_weights"])
    if job.plan is not None:
        norms = starting.norms_of(net, train) if job.folded else {}
        job = replace(job, noise=noise.plan_noise(net, job.plan, keys, norms))
    rows = _train(net, train, job)
    job.out.mkdir(parents=True, exist_ok=True)
    path = job.out / f"{job.name}.onnx"
    export(net, test, path, fold_batch_norm=job.folded)
    facts = _facts(job, net, rows, loop.accuracy(net, test), path)
    (job.out / f"{job.name}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=2))
    return facts


def _train(net: torch.nn.Module, train: images.Images, job: Job) -> list[dict[str, float]]:
    teacher = None
    if job.teacher is not None:
        cache = None
        if job.checkpoints is not None:
            job.checkpoints.mkdir(parents=True, exist_ok=True)
            cache = job.checkpoints / "teacher.npz"
        teacher = distillation.Teacher(
            distillation.teacher_logits(job.teacher, train, flips=job.recipe.flips, cache=cache)
        )
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{job.name}: epochs", total=job.recipe.epochs)

        def progress(row: dict[str, float]) -> None:
            bar.advance(task)
            figures = f"loss {row['loss']:.4f}, held out {row['held_out']:.4f}, {row['seconds']} s"
            bar.print(f"{job.name} epoch {row['epoch']}: {figures}")

        return loop.train(
            net,
            train,
            job.recipe,
            noise=job.noise,
            teacher=teacher,
            pruning=job.pruning,
            folder=job.checkpoints,
            progress=progress,
        )


def _facts(job: Job, net: torch.nn.Module, rows: list[dict[str, float]], accuracy: float, path: Path) -> dict[str, Any]:
    masked = job.pruning
    ended = [row for row in rows if masked is None or masked.settled(row["epoch"] / job.recipe.epochs)]
    best = max(ended, key=lambda row: (row["held_out"], -row["epoch"]))
    return {
        "network": job.network,
        "parameters": networks.parameters(net),
        "test_accuracy": accuracy,
        "held_out_accuracy": best["held_out"],
        "epoch": best["epoch"],
        "epochs": len(rows),
        "seconds": round(sum(row["seconds"] for row in rows)),
        "recipe": asdict(job.recipe),
        "mean": list(job.normalisation.mean),
        "std": list(job.normalisation.std),
        "start": None if job.start is None else job.start.name,
        "teacher": None if job.teacher is None else job.teacher.name,
        "noise": None if job.noise is None else _described(job.noise),
        "pruning": None if job.pruning is None else str(job.pruning),
        "opset": OPSET,
        "batch_norm": "folded" if job.folded else "apart",
        "command": shlex.join(["python", *(_short(word) for word in sys.argv)]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _described(made: noise.Noise) -> str:
    if isinstance(made, noise.ChannelNoise):
        return f"{made.scheme}, channel {made.scheme.channel}"
    if isinstance(made, noise.PlanNoise):
        return f"plan {made.plan.digest()}"
    return str(made)


def _short(word: str) -> str:
    """Return a path of this machine as its last part."""
    path = Path(word)
    return f"examples/{path.name}" if path.suffix == ".py" else path.name if "/" in word else word
