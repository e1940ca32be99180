r"""Train the paper's networks for CIFAR-10 (Isik et al. 2020, Tables 2, 5 and 6) and export them.

    pip install 'onnx-analog[train]'
    python examples/train_cifar10.py resnet18 --data cifar10-train.npz cifar10-test.npz --checkpoints runs/resnet18
    python examples/train_cifar10.py resnet20 --data ... --epochs 20
    python examples/train_cifar10.py resnet20 --data ... --epochs 20 --teacher models/resnet18.onnx
    python examples/train_cifar10.py resnet20 --data ... --epochs 20 --teacher models/resnet18.onnx --noise 0.01
    python examples/train_cifar10.py resnet18 --data ... --start runs/resnet18/checkpoint.pt --sparsity 0.8 --epochs 10
    python examples/train_cifar10.py resnet20-padded --data ... --start resnet20-cifar10.onnx --folded \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --mask layers --sparsity 0.9 --epochs 6 --rate 0.02 --shift 4

The recipe is the paper's (appendix B.2): SGD, learning rate 0.1, momentum 0.9, weight decay 5e-4, batches of 128,
random horizontal flips, 350 epochs. The schedule of the learning rate is not in the paper: here it rises over the
first tenth of the steps and falls as a cosine, so that `--epochs` may be any number.

Each npz holds x, uint8 images of shape (n, 32, 32, 3), and y, labels of shape (n,); `make_data.py` makes them.
BatchNorm is exported apart, as in the paper; `--folded` folds it into the convolutions. `--start` takes the first
weights from an ONNX model or a checkpoint; docs/training.md explains masks, and plans in training.
"""

from __future__ import annotations

from typing import Any

import click
import training

from onnx_analog.cli.console import Command
from onnx_analog.train import images, loop


@click.command(cls=Command)
@click.argument("network", type=click.Choice(["resnet18", "resnet20", "resnet20-padded"]))
@training.options
def main(network: str, **chosen: Any) -> None:
    """Train NETWORK on CIFAR-10."""
    training.run(training.job(network, images.CIFAR10, loop.CIFAR10, **chosen))


if __name__ == "__main__":
    main()
