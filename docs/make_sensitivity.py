"""Draw docs/sensitivity/lenet.png: where noise hurts the packaged LeNet; or, with files, write resnet20.csv there.

python docs/make_sensitivity.py
python docs/make_sensitivity.py resnet20-cifar10.onnx cifar10-test.npz cifar10-train.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.harm_plot import plot_harms

FOLDER = Path(__file__).parent / "sensitivity"
CIFAR10 = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def draw_lenet() -> None:
    """Draw the picture of the page."""
    by = ("tensor", "tensor-class")
    plot_harms(oa.sensitivity(demo.MODEL, demo.IMAGES, by=by, mean=0.1307, std=0.3081))(FOLDER / "lenet.png")


def write_resnet20(model: str, test: str, train: str) -> None:
    """Write what noise in each tensor and class does to ResNet-20, with and without a correction by training images."""
    found = oa.sensitivity(model, test, by=("tensor", "class"), samples=300, trials=3, correct=train, **CIFAR10)
    (FOLDER / "resnet20.csv").write_text(found.csv(), encoding="utf-8")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_resnet20(*sys.argv[1:]) if sys.argv[1:] else draw_lenet()
