"""Package the LeNet of `onnx-analog demo`, with 1,000 MNIST test images.

    python examples/train_mnist.py lenet --data mnist-train.npz mnist-test.npz
    python examples/package_lenet.py models/lenet.onnx --data mnist-test.npz

Written are lenet-mnist.onnx, mnist-1000.npz (the first 100 test images of each digit, in the order of the test set) and
lenet-mnist.json: accuracies on the whole test set, as trained and after one-shot pruning of 80 %.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import numpy as np

import onnx_analog as oa
from onnx_analog.cli.console import Command
from onnx_analog.demo import FOLDER, SPARSITY
from onnx_analog.run.data import read

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EACH = 100  # images of each digit


@click.command(cls=Command)
@click.argument("model", type=FILE)
@click.option("--data", type=FILE, required=True, help="MNIST test set: x, uint8 (n, 28, 28), and y, (n,).")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=FOLDER)
def main(model: Path, data: Path, out: Path) -> None:
    """Package MODEL, which train_mnist.py wrote."""
    trained = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
    norm = {"mean": trained["mean"], "std": trained["std"]}
    pruned = oa.prune(model, sparsity=SPARSITY).model
    facts = {
        "network": "LeNet, Isik et al. 2020, Table 3",
        **{name: trained[name] for name in ("parameters", "epoch", "held_out_accuracy")},
        "seed": trained["recipe"]["seed"],
        "test_accuracy": oa.evaluate(model, data, **norm).original,
        f"test_accuracy_pruned_{SPARSITY:.0%}": oa.evaluate(pruned, data, **norm).original,
        "mean": trained["mean"][0],
        "std": trained["std"][0],
        "command": trained["command"],
    }
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, out / "lenet-mnist.onnx")
    np.savez_compressed(out / "mnist-1000.npz", allow_pickle=False, **balanced(data))
    (out / "lenet-mnist.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts, indent=2))


def balanced(path: Path) -> dict[str, np.ndarray]:
    """Return the first images of every digit, in the order of the file."""
    held = read(path, "x", "y")
    x, y = held["x"], held["y"]
    rows = np.sort(np.concatenate([np.flatnonzero(y == label)[:EACH] for label in range(10)]))
    return {"x": x[rows], "y": y[rows]}


if __name__ == "__main__":
    main()
