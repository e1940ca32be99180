"""The paper's networks (Isik et al. 2020, appendix B): LeNet, MLP, ResNet-18 and a slim ResNet-20.

Each takes float32 images (n, channels, height, width) and returns logits (n, 10).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor, nn


def lenet() -> nn.Sequential:
    """Return the LeNet of Table 3, for MNIST: 431,080 parameters."""
    layers = {
        "conv1": nn.Conv2d(1, 20, 5), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2),  # (n, 20, 12, 12)
        "conv2": nn.Conv2d(20, 50, 5), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2),  # (n, 50, 4, 4)
        "flatten": nn.Flatten(), "linear": nn.Linear(800, 500), "relu3": nn.ReLU(),  # (n, 500)
        "output": nn.Linear(500, 10),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def mlp() -> nn.Sequential:
    """Return the MLP of Table 4, for MNIST: 89,610 parameters."""
    layers = {
        "flatten": nn.Flatten(), "input": nn.Linear(784, 100), "relu1": nn.ReLU(),
        "hidden": nn.Linear(100, 100), "relu2": nn.ReLU(), "output": nn.Linear(100, 10),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(layers))


def resnet18() -> nn.Module:
    """Return the ResNet-18 of Table 5, for CIFAR-10: 11,173,962 parameters (the paper: 11.2 M)."""
    return ResNet((64, 128, 256, 512), blocks=2)


def resnet20() -> nn.Module:
    """Return the slim ResNet-20 for CIFAR-10: 272,474 parameters (the paper: 0.27 M).

    Table 6 prints two blocks per stage, which would be a ResNet-14 of 0.18 M parameters. Three blocks per stage make a
    ResNet-20, and give the number of parameters in the paper.
    """
    net = ResNet((16, 32, 64), blocks=3)
    # With channels last a step takes half the time on a CPU.
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it for tensors only
    return net


def resnet20_padded() -> nn.Module:
    """Return the ResNet-20 of He et al. (2016), for CIFAR-10: 269,722 parameters, as its shortcuts have none."""
    net = ResNet((16, 32, 64), blocks=3, shortcut="padding")
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it for tensors only
    return net


NETWORKS = MappingProxyType[str, Callable[[], nn.Module]](
    {"lenet": lenet, "mlp": mlp, "resnet18": resnet18, "resnet20": resnet20, "resnet20-padded": resnet20_padded}
)


class ResNet(nn.Module):
    """A residual network for small images (He et al. 2016).

    Parameters
    ----------
    widths : tuple of int
        Channels of each stage; every stage but the first halves height and width.
    blocks : int
        Blocks per stage.
    classes : int
    shortcut : {"convolution", "padding"}
        Of blocks whose output has another shape than their input: see `Block`.
    """

    def __init__(
        self, widths: tuple[int, ...], *, blocks: int, classes: int = 10, shortcut: str = "convolution"
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(widths[0])
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(
                Block(before, width, stride=1 if stage == 0 else 2, shortcut=shortcut),
                *(Block(width, width) for _ in range(1, blocks)),
            )
            for stage, (before, width) in enumerate(pairs)
        )
        self.output = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        x = nn.functional.relu(self.norm1(self.conv1(x)))
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.output(x.mean((2, 3)))
        return logits


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    Where the shape changes, the shortcut is a 1×1 convolution, or "padding": every `stride`-th pixel, between channels
    of zeros.
    """

    def __init__(self, before: int, width: int, *, stride: int = 1, shortcut: str = "convolution") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 1 and before == width:
            return
        if shortcut == "padding":
            self.shortcut = Padding(width - before, stride)
        else:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return activations (n, width, height / stride, width / stride)."""
        inner = nn.functional.relu(self.norm1(self.conv1(x)))
        return nn.functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class Padding(nn.Module):
    """Every `stride`-th pixel, with `channels` channels of zeros: half of them before and half after the input's."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.before = stride, channels // 2
        self.after = channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Return activations (n, c + channels, height / stride, width / stride)."""
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def parameters(net: nn.Module) -> int:
    """Return the number of parameters of `net`."""
    return sum(parameter.numel() for parameter in net.parameters())
