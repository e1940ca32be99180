"""Train the LeNet of `onnx-analog demo` on MNIST and package it with 1,000 test images.

    pip install 'onnx-analog[train]'
    python examples/train_lenet.py --data mnist-train.npz mnist-test.npz

The network is the paper's (Isik et al. 2020, Table 3) and so is the recipe (appendix B.1): Adam, learning rate 0.001,
weight decay 5e-4, batches of 100, the weights of the best epoch on images held out of the training set. The paper's
100 epochs are an upper bound: training ends when PATIENCE epochs have brought nothing better.

Each npz holds x, uint8 images of shape (n, 28, 28), and y, uint8 labels of shape (n,). Written are lenet-mnist.onnx,
mnist-1000.npz (the first 100 test images of each digit, in the order of the test set) and lenet-mnist.json, which says
what was measured. The same seed gives the same network on the same machine; on others it may differ in the last bits.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

EPOCHS = 100  # the paper's; an upper bound here
PATIENCE = 10  # epochs without a better validation accuracy
BATCH = 100
HELD_OUT = 5_000  # the last images of the training set choose the epoch
MEAN, STD = 0.1307, 0.3081  # of all training pixels, after division by 255
SPARSITY = 0.8  # what the demo prunes
PACKAGE = Path(__file__).resolve().parent.parent / "onnx_analog" / "example"


def lenet() -> nn.Sequential:
    """Return the paper's LeNet: 431,080 parameters, images (n, 1, 28, 28) to logits (n, 10)."""
    layers = {
        "conv1": nn.Conv2d(1, 20, 5), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2),  # (n, 20, 12, 12)
        "conv2": nn.Conv2d(20, 50, 5), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2),  # (n, 50, 4, 4)
        "flatten": nn.Flatten(), "linear": nn.Linear(800, 500), "relu3": nn.ReLU(),  # (n, 500)
        "output": nn.Linear(500, 10),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def load(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images (n, 1, 28, 28) and labels (n,)."""
    with np.load(path) as data:
        x = (torch.from_numpy(data["x"]).float().div(255) - MEAN) / STD
        return x[:, None], torch.from_numpy(data["y"]).long()


@torch.no_grad()
def accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return top-1 accuracy as a fraction."""
    right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True))
    return right / len(y)


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, *, epochs: int) -> int:
    """Train in place, leave the best epoch's weights in `net`, and return that epoch."""
    x_held, y_held, x, y = x[-HELD_OUT:], y[-HELD_OUT:], x[:-HELD_OUT], y[:-HELD_OUT]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=5e-4)
    best, best_epoch, best_weights = 0.0, 0, copy.deepcopy(net.state_dict())
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        found = accuracy(net, x_held, y_held)
        print(f"epoch {epoch}: {found:.4f} on {HELD_OUT} held-out images", flush=True)
        if found > best:
            best, best_epoch, best_weights = found, epoch, copy.deepcopy(net.state_dict())
        if epoch - best_epoch >= PATIENCE:
            break
    net.load_state_dict(best_weights)
    return best_epoch


def prune(net: nn.Module, sparsity: float) -> nn.Module:
    """Return a copy whose smallest weights, over all layers, are zero: what one-shot pruning costs."""
    net = copy.deepcopy(net)
    weights = [p.data for p in net.parameters() if p.dim() >= 2]
    sizes = torch.cat([w.abs().flatten() for w in weights])
    threshold = sizes.kthvalue(round(sparsity * len(sizes))).values
    for weight in weights:
        weight[weight.abs() <= threshold] = 0
    return net


def export(net: nn.Module, path: Path) -> None:
    """Write `net` as ONNX: input (n, 1, 28, 28), logits (n, 10), opset 18."""
    batch = {0: torch.export.Dim("n")}
    example = (torch.zeros(2, 1, 28, 28),)
    program = torch.onnx.export(
        net.eval(), example, input_names=["input"], output_names=["logits"],
        dynamic_shapes=(batch,), opset_version=18, dynamo=True, verbose=False,
    )  # fmt: skip
    proto = program.model_proto
    del proto.metadata_props[:]
    for node in proto.graph.node:  # the exporter's stack traces name this machine's folders
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]:
        del value.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def balanced(path: Path, *, each: int) -> dict[str, np.ndarray]:
    """Return the first `each` images of every class, in the order of the file."""
    with np.load(path) as data:
        x, y = data["x"], data["y"]
    rows = np.sort(np.concatenate([np.flatnonzero(y == label)[:each] for label in range(10)]))
    return {"x": x[rows], "y": y[rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs=2, type=Path, required=True, metavar=("TRAIN", "TEST"), help="npz files")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    net = lenet()
    epoch = train(net, *load(options.data[0]), epochs=options.epochs)
    test = load(options.data[1])
    facts = {
        "network": "LeNet, Isik et al. 2020, Table 3",
        "parameters": sum(p.numel() for p in net.parameters()),
        "seed": options.seed,
        "epoch": epoch,
        "test_accuracy": accuracy(net, *test),
        f"test_accuracy_pruned_{SPARSITY:.0%}": accuracy(prune(net, SPARSITY), *test),
        "mean": MEAN,
        "std": STD,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    export(net, options.out / "lenet-mnist.onnx")
    np.savez_compressed(options.out / "mnist-1000.npz", **balanced(options.data[1], each=100))
    (options.out / "lenet-mnist.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
