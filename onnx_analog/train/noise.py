"""Noise on the weights at every forward pass of training, with a straight-through gradient.

    forward:  w + δ, δ drawn anew at every step     backward: as if δ were not there

The draw depends on (seed, step, parameter name) only, so a killed run resumes with the noise that it would have had.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnx_analog.coding.estimators import Written, estimator
from onnx_analog.coding.planes import Encoded, analog_of, decode, encode, stored_count
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.randomness import stream

Weights = Mapping[str, NDArray[np.float32]]

MIN_SIZE = 256  # as `onnx_analog.graph.weights.Selection`: smaller tensors stay digital


class Noise(ABC):
    """Noise on the weights of a network in a forward pass."""

    @abstractmethod
    def perturbed(self, weights: Weights, *, seed: int, step: int) -> Weights:
        """Return the weights, of the same names and shapes, as they are read in this step."""

    def identity(self) -> str:
        """Return a text that no other noise has."""
        return repr(self)


@dataclass(frozen=True, kw_only=True)
class WeightNoise(Noise):
    """w + N(0, std²), as in the paper's "KD + Gaussian noise".

    Parameters
    ----------
    std : float, >= 0
        In the unit of the weights.
    """

    std: float

    def __post_init__(self) -> None:
        if not (self.std >= 0 and np.isfinite(self.std)):
            raise OptionError(f"std is {self.std}; it must be 0 or more and finite")

    def perturbed(self, weights: Weights, *, seed: int, step: int) -> Weights:
        """Return the weights with noise of their own; see `Noise`."""
        return {
            name: weight + np.float32(self.std) * _rng(seed, step, name).standard_normal(weight.shape, np.float32)
            for name, weight in weights.items()
        }


@dataclass(frozen=True, kw_only=True)
class ChannelNoise(Noise):
    """Noise of analog memory: weights are written, read and decoded as a scheme describes.

    Parameters
    ----------
    scheme : Scheme
        The default is the paper's adaptive redundancy, with one codebook for all tensors. Output channels lie along
        the first axis of a parameter.

    Raises
    ------
    OptionError
        If the side information of the scheme is read from noisy cells: in training, it is free of error.
    """

    scheme: Scheme = field(default_factory=lambda: Scheme.paper(granularity="model"))

    def __post_init__(self) -> None:
        if self.scheme.side is not None:
            raise OptionError("training reads signs and classes free of error: choose a scheme without side_channel")

    def perturbed(self, weights: Weights, *, seed: int, step: int) -> Weights:
        """Return the weights as they are read; see `Noise`."""
        names = [name for name, weight in weights.items() if weight.any()]
        groups = [names] if self.scheme.granularity == "model" else [[name] for name in names]
        read = dict(weights)
        for group in (group for group in groups if group):
            encoded = encode([weights[name] for name in group], self.scheme)
            for name, stored in zip(group, encoded, strict=True):
                read[name] = self._read(stored, _rng(seed, step, name)).reshape(weights[name].shape)
        return read

    def identity(self) -> str:
        """Return a text that no other noise has; see `Noise`."""
        return f"ChannelNoise({self.scheme.digest()})"

    def _read(self, stored: Encoded, rng: np.random.Generator) -> NDArray[np.float32]:
        level, index, cells = stored.planes.level, stored.planes.class_index, self.scheme.cells_of_class
        analog = analog_of(index, cells, stored_count(stored.planes))
        index = index if index is None or analog is None else index[analog]
        of_each = cells[0] if index is None else np.array(cells)[index]
        read = self.scheme.channel.read(level, cells=of_each, rng=rng)
        group = stored.planes.group
        written = Written(
            level=level,
            class_index=index,
            cells=cells,
            channel=self.scheme.channel,
            alpha=stored.codebook.alpha,
            beta=stored.codebook.beta,
            group=group if group is None or analog is None else group[analog],
            shared=self.scheme.shares_tables,
        )
        correct = estimator(self.scheme.estimator).fitted(written)
        if correct is not None:
            correct(read, slice(0, read.size))
        return decode(stored, read)


def _rng(seed: int, step: int, name: str) -> np.random.Generator:
    return stream(seed, step, name, plane="training")


def stored_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that analog memory would hold: of rank 2 or more, with at least MIN_SIZE weights."""
    return {name: p for name, p in net.named_parameters() if p.dim() >= 2 and p.numel() >= MIN_SIZE}


def forward(net: nn.Module, x: Tensor, noise: Noise | None, *, seed: int, step: int) -> Tensor:
    """Return the outputs of `net` for `x` with its weights perturbed, if there is noise; gradients go straight through.

    Parameters
    ----------
    net : nn.Module
    x : float tensor of shape (n, ...)
    noise : Noise or None
    seed, step : int, >= 0
        The noise depends on these, and the parameters' names, only.
    """
    if noise is None:
        plain: Tensor = net(x)
        return plain
    stored = stored_parameters(net)
    weights = {name: parameter.detach().numpy() for name, parameter in stored.items()}
    read = noise.perturbed(weights, seed=seed, step=step)
    through = {name: p + (torch.from_numpy(read[name]) - p).detach() for name, p in stored.items()}
    outputs: Tensor = torch.func.functional_call(net, through, (x,))
    return outputs
