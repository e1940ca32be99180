"""The whole story on the packaged network: the paper's LeNet and 1,000 MNIST test images.

examples/package_lenet.py packaged both; example/lenet-mnist.json says what it measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from onnx_analog import api, channels
from onnx_analog._tune import tune
from onnx_analog.coding.scheme import PRESETS, STRATEGIES
from onnx_analog.disk import writing
from onnx_analog.graph import files
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.run.data import Dataset, Preprocessing, load
from onnx_analog.run.session import Network
from onnx_analog.study import choosing
from onnx_analog.study.grid import Grid
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.sweeps import Case, Point, Study, prepare
from onnx_analog.tuning.result import Tuned

FOLDER = Path(__file__).parent / "example"
MODEL = FOLDER / "lenet-mnist.onnx"
IMAGES = FOLDER / "mnist-1000.npz"
SPARSITY = 0.8
MOST_LOST = 2  # points, by `tune`: 1,000 images cannot show that fewer are lost


@dataclass(frozen=True, kw_only=True)
class Story:
    """The start of the demo: the pruned network, and the accuracy before any noise."""

    pruned: api.Pruned
    data: Dataset
    accuracy: float
    accuracy_pruned: float


def facts() -> dict[str, Any]:
    """Return the measurements made when the network was trained."""
    body: dict[str, Any] = json.loads((FOLDER / "lenet-mnist.json").read_text(encoding="utf-8"))
    return body


def images(network: Network) -> Dataset:
    """Return the packaged test images, prepared for the network."""
    preprocessing = Preprocessing(mean=(facts()["mean"],), std=(facts()["std"],))
    return load(IMAGES, network.inputs, preprocessing)


def copy(model: Path, data: Path, *, force: bool) -> None:
    """Copy the packaged network and its test images to these files of one folder, which is made if need be.

    Raises
    ------
    OutputError
        If a file is there already, unless `force`; or cannot be written.
    """
    sources = {model: MODEL, data: IMAGES}
    writing.check_outputs(sources, sources.values(), force=force, new_folder=True)
    with writing.new_folder(model.parent):
        writing.write_all({target: partial(shutil.copyfile, source) for target, source in sources.items()}, force=force)


def begin() -> Story:
    """Prune the packaged network."""
    data = images(Network(files.load(MODEL)))
    pruned = api.prune(MODEL, sparsity=SPARSITY)
    return Story(
        pruned=pruned,
        data=data,
        accuracy=_accuracy(MODEL, data),
        accuracy_pruned=_accuracy(pruned.model, data),
    )


def _accuracy(model: files.ModelLike, data: Dataset) -> float:
    accuracy = api.evaluate(model, data).original
    assert accuracy is not None
    return accuracy


def grid(*, seed: int) -> Grid:
    """Return the grid of the demo: the four strategies at 1, 3 and 10 cells, with both presets."""
    return Grid(
        cells=(1, 3, 10), presets=tuple(PRESETS.values()), channels=(channels.resolve(channels.DEFAULT),), seed=seed
    )


def plan(story: Story, grid: Grid, *, trials: int) -> Study:
    """Return the sweep over `grid`."""
    case = Case(name="lenet", model=story.pruned.model, data=story.data, original=files.load(MODEL))
    return prepare([case], grid, Stopping(trials=trials))


def steps() -> str:
    """Return the strategies in words: each adds a step of the paper to the strategy before it."""
    return "; ".join(f"{name}: {strategy.row}" for name, strategy in STRATEGIES.items())


def choice(points: Sequence[Point]) -> Point:
    """Return the point that the demo ends with: the cheapest that is as good as the best."""
    cheapest = choosing.cheapest(points)
    assert cheapest is not None  # the demo makes a trial or more
    return cheapest


def options(point: Point) -> dict[str, Any]:
    """Return the arguments of `onnx_analog.protect` that store a model as `point` does."""
    preset = next(name for name, known in PRESETS.items() if known == point.setting.preset)
    arguments: dict[str, Any] = {"strategy": point.strategy, "cells_small": point.cells}
    if STRATEGIES[point.strategy].adaptive:
        arguments["cells_large"] = point.setting.cells_large
    return arguments if preset == "default" else {**arguments, "preset": preset}


def protect(story: Story, point: Point) -> ProtectedModel:
    """Return the pruned network, stored as in `point`."""
    return api.protect(story.pruned.model, **options(point))


def cheapest_plan(*, seed: int, progress: Callable[[str], None]) -> Tuned:
    """Return the result of `tune` for the packaged network, which is not pruned, within `MOST_LOST` points."""
    return tune(
        MODEL,
        IMAGES,
        max_drop=MOST_LOST,
        mean=[facts()["mean"]],
        std=[facts()["std"]],
        seed=seed,
        progress=progress,
    )


def tuned_text(tuned: Tuned) -> str:
    """Return the result of `tune` in a sentence or two."""
    text = (
        f"`onnx-analog tune` looks for a scheme for each tensor. For the network that is not pruned, it finds "
        f"{tuned.best.cells:.2f} cells per weight: {tuned.verdict}."
    )
    if tuned.best.digital:
        text += " No tensor of this plan has analog cells: digital storage is cheaper here."
    return text


def command(point: Point) -> str:
    """Return the command that prunes and stores a model of the user's as the demo does at `point`."""
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options(point).items()]
    return " ".join(["onnx-analog protect model.onnx", f"--sparsity {SPARSITY}", *words])
