"""Loads, splits, shuffles and flips training images; every random choice depends only on (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from onnx_analog.errors import DataError
from onnx_analog.graph.normalisation import Normalisation as Normalisation
from onnx_analog.randomness import stream
from onnx_analog.run import data

MNIST = Normalisation((0.1307,), (0.3081,))
CIFAR10 = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


class Batch(NamedTuple):
    """Inputs (n, c, h, w), labels (n,), and where they come from: rows (n,) and whether each is flipped (n,)."""

    x: Tensor
    y: Tensor
    rows: Tensor
    flipped: Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images of one size.

    Attributes
    ----------
    x : uint8 tensor of shape (n, channels, height, width)
    y : int64 tensor of shape (n,)
    normalisation : Normalisation
    """

    x: Tensor
    y: Tensor
    normalisation: Normalisation

    def __len__(self) -> int:
        return len(self.y)

    def split(self, held_out: int) -> tuple[Images, Images]:
        """Return the images before the last `held_out`, and the last `held_out`."""
        if not 0 < held_out < len(self):
            raise DataError(f"{held_out} of {len(self)} images cannot be held out: leave some for training")
        cut = len(self) - held_out
        return Images(self.x[:cut], self.y[:cut], self.normalisation), Images(
            self.x[cut:], self.y[cut:], self.normalisation
        )

    def inputs(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return float32 inputs (len(rows), c, h, w), divided by 255, less mean, over std."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in self.normalisation)
        return (self.x[rows].float() / 255 - mean) / std

    def epoch(self, size: int, *, seed: int, epoch: int, flips: bool, shift: int = 0) -> Iterator[Batch]:
        """Yield batches of `size` (the last may be smaller), shuffled, flipped and shifted as (seed, epoch) determine.

        Each image moves by up to `shift` pixels each way; what comes in from outside is the mean.
        """
        order = torch.from_numpy(stream(seed, epoch, "order", plane="train").permutation(len(self)))
        coins = torch.from_numpy(stream(seed, epoch, "flips", plane="train").random(len(self)) < 0.5)
        offsets = stream(seed, epoch, "shifts", plane="train").integers(2 * shift + 1, size=(len(self), 2))
        for rows in torch.split(order, size):
            x, flipped = self.inputs(rows), coins[rows] & flips
            x = torch.where(flipped.view(-1, 1, 1, 1), x.flip(3), x)
            yield Batch(shifted(x, torch.from_numpy(offsets)[rows], shift), self.y[rows], rows, flipped)


def shifted(x: Tensor, offsets: Tensor, most: int) -> Tensor:
    """Return the images x (n, c, h, w) moved up and left by `offsets` (n, 2) less `most`, with zeros from outside."""
    if not most:
        return x
    n, c, h, w = x.shape
    padded = nn.functional.pad(x, (most, most, most, most))
    row = (offsets[:, :1] + torch.arange(h)).view(n, 1, h, 1)
    column = (offsets[:, 1:] + torch.arange(w)).view(n, 1, 1, w)
    return padded[torch.arange(n).view(n, 1, 1, 1), torch.arange(c).view(1, c, 1, 1), row, column]


def load(path: Path, normalisation: Normalisation) -> Images:
    """Return the images of an npz file: x, uint8 (n, h, w) or (n, h, w, channels), and y, integers (n,).

    Raises
    ------
    DataError
        If the file does not hold them.
    """
    arrays = data.read(path, "x", "y")
    x, y = arrays["x"], arrays["y"]
    x = x[..., None] if x.ndim == 3 else x
    if x.dtype != np.uint8 or x.ndim != 4 or len(x) != len(y) or x.shape[3] != len(normalisation.mean):
        raise DataError(f"{str(path)!r} has x {x.dtype} {x.shape} and y {y.shape}: not images of one size with labels")
    return Images(
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, 3, 1))),
        torch.from_numpy(y.astype(np.int64)),
        normalisation,
    )
