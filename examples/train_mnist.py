"""Train the paper's networks for MNIST (Isik et al. 2020, Tables 3, 4 and 9) and export them.

    pip install 'onnx-analog[train]'
    python examples/train_mnist.py lenet --data mnist-train.npz mnist-test.npz
    python examples/train_mnist.py mlp --data mnist-train.npz mnist-test.npz
    python examples/train_mnist.py mlp --data mnist-train.npz mnist-test.npz --teacher models/lenet.onnx
    python examples/train_mnist.py mlp --data ... --teacher models/lenet.onnx --noise 0.1
    python examples/train_mnist.py mlp --data ... --teacher models/lenet.onnx --noise channel
    python examples/train_mnist.py lenet --data ... --start lenet-mnist.onnx --mask layers --sparsity 0.9 --epochs 8
    python examples/train_mnist.py lenet --data ... --mask seed --sparsity 0.9
    python examples/train_mnist.py lenet --data ... --start lenet-mnist.onnx --plan plan.json --epochs 4

The recipe is the paper's (appendix B.1): Adam, learning rate 0.001, weight decay 5e-4, batches of 100, the weights of
the best epoch on images held out of the training set. Its 100 epochs are an upper bound: training ends when 20 epochs
have brought nothing better. `--checkpoints DIR` lets a killed run go on. docs/training.md explains masks, and plans in
training.

Each npz holds x, uint8 images of shape (n, 28, 28), and y, labels of shape (n,); `make_data.py` makes them. Written are
NAME.onnx and NAME.json, which says what was measured. The same seed gives the same network on the same machine; on
others it may differ in the last bits.
"""

from __future__ import annotations

from typing import Any

import click
import training

from onnx_analog.cli.console import Command
from onnx_analog.train import images, loop


@click.command(cls=Command)
@click.argument("network", type=click.Choice(["lenet", "mlp"]))
@training.options
def main(network: str, **chosen: Any) -> None:
    """Train NETWORK on MNIST."""
    training.run(training.job(network, images.MNIST, loop.MNIST, **chosen))


if __name__ == "__main__":
    main()
