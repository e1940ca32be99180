"""The figures of Isik et al. 2020, drawn from our channel, networks and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from paper_tables import GRANULARITIES, TABLES, Entry, network_of, read_rows, values_of

import onnx_analog as oa
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.drawing import BLACK, BLUE, GREY, VERMILION, in_style, look, saver
from onnx_analog.graph import files
from onnx_analog.graph.weights import find
from onnx_analog.randomness import stream

LOOKS = [look(number) for number in range(4)]  # of the rows of a table


def figure1() -> Any:
    """Figure 1: mean and spread of a PCM cell's read against its input."""
    table = oa.channel("pcm").measurements
    assert table is not None
    x, mean, std = (np.array(column) for column in (table.inputs, table.means, table.stds))
    figure, axis = pyplot.subplots(figsize=(5, 3.6))
    rng = stream(0, 0, "figure1", plane="figure")
    some = np.repeat(np.arange(x.size), 12)
    axis.plot(x[some], mean[some] + std[some] * rng.standard_normal(some.size), ".", ms=2, alpha=0.4, color=GREY)
    axis.plot(x, mean, color=VERMILION, label="mean μ")
    axis.fill_between(x, mean - std, mean + std, alpha=0.25, color=VERMILION, label="μ ± σ")
    axis.set(xlabel="input, scaled", ylabel="output, scaled", title="channel pcm")
    axis.legend()
    return figure


def figure2() -> Any:
    """Figure 2: φ = C∘f, an average over 1, 10 and 500 cells."""
    channel = oa.channel("pcm")
    level = clip_to_range(np.linspace(*channel.span, 200).astype(np.float32), channel.span)
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), sharey=True)
    for axis, cells in zip(axes, (1, 10, 500), strict=True):
        many = np.repeat(level, 20)
        reads = channel.read(many, cells=cells, rng=stream(0, cells, "figure2", plane="figure"))
        axis.plot(many, reads, ".", ms=1.5, alpha=0.4, color=BLUE)
        axis.plot(channel.span, channel.span, color=BLACK, linewidth=0.8)
        axis.set(title=f"φ, {cells} cell{'s' * (cells > 1)}", xlabel="level")
    axes[0].set_ylabel("read")
    return figure


def figure3(models: Path | None) -> Any:
    """Figure 3: weights of ResNet-18, as trained and with 80 % pruned."""
    assert models is not None, "figure3 needs --models"
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for axis, name in zip(axes, ("resnet18-cifar10", "resnet18-cifar10-pruned"), strict=True):
        with network_of(models, name) as path:
            weights = np.concatenate([weight.array().ravel() for weight in find(files.load(path)).weights])
        kept = weights[weights != 0]
        small = np.mean(np.abs(kept) <= 0.05)
        axis.hist(kept, bins=np.linspace(-0.1, 0.1, 201), color=BLUE)
        title = f"{name}: {kept.size:,} weights\n{small:.2%} of them ≤ 0.05, the largest {np.abs(kept).max():.2f}"
        axis.set(title=title, xlabel="weight", yscale="log", xticks=(-0.1, -0.05, 0, 0.05, 0.1))
    axes[0].set_ylabel("weights in each of 200 bins")
    return figure


def figure4(out: Path) -> Any:
    """Figure 4: what protection does against PCM noise and against Gaussian noise; from the lines of tables 1 and 7."""
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.6), sharey=True)
    panels = [(table, granularity) for table in ("table1", "table7") for granularity in GRANULARITIES]
    for axis, (table, granularity) in zip(axes.flat, panels, strict=True):
        values = values_of(read_rows(out / f"{table}.csv"))
        entries = [e for e in TABLES[table].entries if e.granularity in ("", granularity) and e.column]
        for row, own in zip(dict.fromkeys(e.row for e in entries), LOOKS, strict=False):
            _lines(axis, [entry for entry in entries if entry.row == row], values, own)
        noise = "PCM noise: cells for each (small) weight" if table == "table1" else "Gaussian noise: std"
        x = sorted({_number(entry) for entry in entries})
        axis.set(xscale="log", title=f"{TABLES[table].title.split(':')[0]}, granularity {granularity}", xlabel=noise)
        axis.set_xticks(x, [f"{value:g}" for value in x])
        axis.minorticks_off()
        axis.legend(title="ours; dashed: the paper's")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy, %")
    return figure


def _lines(axis: Any, entries: list[Entry], values: dict[tuple[str, str, str], list[float]], own: Any) -> None:
    ours = {_number(e): np.mean(values[e.key]) for e in entries if e.key in values}
    papers = {_number(e): e.paper for e in entries if e.paper is not None}
    axis.plot(list(papers), list(papers.values()), **{**own, "linestyle": "--"}, linewidth=1, markersize=3)
    axis.plot(list(ours), list(ours.values()), label=entries[0].row, **own)


def _number(entry: Entry) -> float:
    """Return the number in the head of a column, "20 cells" or "std=0.1"."""
    return float(entry.column.removeprefix("std=").split()[0])


@in_style
def draw(name: str, models: Path | None, out: Path, path: Path) -> None:
    """Draw a figure; `models` is where the networks are, `out` where the tables are."""
    mpl.use("Agg")
    if name == "figure3":
        figure = figure3(models)
    elif name == "figure4":
        figure = figure4(out)
    else:
        figure = {"figure1": figure1, "figure2": figure2}[name]()
    saver(figure, dpi=130)(path)
