"""Masks of pruned weights, which stay at zero in training: by magnitude, from a seed, or N of each M weights.

A magnitude says how much a weight matters only among weights of one scale. The scale of a layer is arbitrary where a
BatchNorm follows it, or was folded into it; scores by layer (LAMP: Lee et al., *Layer-adaptive sparsity for the
magnitude-based pruning*, 2021) do without it. A weight w of a layer has the score

    w²/Σu²        the sum over the weights u of the layer with |u| >= |w|

so that no layer loses its largest weight before any other layer does.

All masks but those from a seed follow the weights during the first half of a training run, in which the share that
is pruned rises as a cubic (Zhu and Gupta, *To prune, or not to prune*, 2017): s·(1 - (1 - t)³), t from 0 to 1. After
that they stay as they are. A mask from a seed is the same from the first step on.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnx_analog.coding.masks import seeded_mask
from onnx_analog.coding.partition import cut_largest, mark_largest
from onnx_analog.coding.scheme import MOST_SEED
from onnx_analog.errors import OptionError
from onnx_analog.train.noise import stored_parameters

Masks = Mapping[str, Tensor]

MOST_GROUP = 64  # weights of which an N:M mask keeps N
_RAMP = 0.5  # of a run, in which weights are pruned


class Pruning(ABC):
    """Which weights stay."""

    @abstractmethod
    def masks(self, net: nn.Module, done: float = 1.0) -> Masks:
        """Return the mask of each stored parameter when the share `done` of the training is over."""

    def settled(self, done: float) -> bool:
        """Return whether the masks are what they will be at the end."""
        return done >= _RAMP

    def identity(self) -> str:
        """Return a text that no other pruning has."""
        return repr(self)


@dataclass(frozen=True, kw_only=True)
class Magnitude(Pruning):
    """The smallest weights of all layers are pruned, as `PrunePass` does, or those with the lowest scores by layer.

    Parameters
    ----------
    sparsity : float, from 0 to below 1
        Share of the weights that are pruned.
    by_layer : bool
    """

    sparsity: float
    by_layer: bool = False

    def __post_init__(self) -> None:
        _check_sparsity(self.sparsity)

    def masks(self, net: nn.Module, done: float = 1.0) -> Masks:
        """Return the masks; see `Pruning`."""
        weights = {name: parameter.detach().numpy() for name, parameter in stored_parameters(net).items()}
        scores = {name: _scores(weight) for name, weight in weights.items()} if self.by_layer else weights
        size = sum(score.size for score in scores.values())
        cut = cut_largest(list(scores.values()), size - round(_share(self.sparsity, done) * size))
        masks = {}
        for name, score in scores.items():
            kept, cut = mark_largest(score, cut)
            masks[name] = torch.from_numpy(kept)
        return masks


@dataclass(frozen=True, kw_only=True)
class Pattern(Pruning):
    """Of each `group` weights that follow one another as they are stored, the `kept` largest stay.

    Parameters
    ----------
    kept : int, from 1 to below `group`
    group : int, at most 64
    """

    kept: int
    group: int

    def __post_init__(self) -> None:
        if not 0 < self.kept < self.group <= MOST_GROUP:
            raise OptionError(
                f"mask is {self.kept}:{self.group}; N:M needs N from 1 to below M, and M of at most {MOST_GROUP}"
            )

    @property
    def sparsity(self) -> float:
        """Share of the weights that are pruned."""
        return 1 - self.kept / self.group

    def masks(self, net: nn.Module, done: float = 1.0) -> Masks:
        """Return the masks; see `Pruning`. Weights after the last whole group stay as a part of a group would."""
        kept = self.group - math.floor(_share(1, done) * (self.group - self.kept))
        return {name: self._mask(p.detach(), kept) for name, p in stored_parameters(net).items()}

    def _mask(self, weight: Tensor, kept: int) -> Tensor:
        size = weight.numel()
        groups = -(-size // self.group)
        magnitude = torch.full((groups * self.group,), -1.0)
        magnitude[:size] = weight.contiguous().view(-1).abs()
        order = magnitude.view(groups, self.group).argsort(dim=1, descending=True, stable=True)
        mask = torch.zeros(groups, self.group, dtype=torch.bool)
        mask.scatter_(1, order[:, :kept], value=True)
        return mask.view(-1)[:size].view(weight.shape)


@dataclass(frozen=True, kw_only=True)
class Seeded(Pruning):
    """Which weights stay follows from a seed and the parameter's name; each tensor keeps the same share.

    `Scheme(mask_seed=...)` stores such a mask as its seed, if the exported tensor has the parameter's name.

    Parameters
    ----------
    sparsity : float, from 0 to below 1
        Share of the weights of each tensor that are pruned.
    seed : int, from 0 to 2^32 - 1
    """

    sparsity: float
    seed: int

    def __post_init__(self) -> None:
        _check_sparsity(self.sparsity)
        if not 0 <= self.seed <= MOST_SEED:
            raise OptionError(f"seed is {self.seed}; that of a mask must be from 0 to {MOST_SEED:,}")

    def masks(self, net: nn.Module, done: float = 1.0) -> Masks:  # noqa: ARG002 - the same at all times
        """Return the masks; see `Pruning`."""
        masks = {}
        for name, parameter in stored_parameters(net).items():
            size = parameter.numel()
            mask = seeded_mask(self.seed, name, size, size - round(self.sparsity * size))
            masks[name] = torch.from_numpy(mask.reshape(parameter.shape))
        return masks

    def settled(self, done: float) -> bool:  # noqa: ARG002
        """Return True; see `Pruning`."""
        return True


def _scores(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the square of each weight over the sum of those of its tensor that are not smaller."""
    squares = np.square(weight, dtype=np.float64).ravel()
    order = np.argsort(-squares, kind="stable")
    descending, scores = squares[order], np.zeros_like(squares)
    scores[order] = descending / np.maximum(np.cumsum(descending), np.finfo(np.float64).tiny)
    return scores.reshape(weight.shape).astype(np.float32)


def pruning_of(mask: str, sparsity: float, seed: int) -> Pruning | None:
    """Return the pruning that a word stands for, "magnitude", "layers", "seed" or "N:M"; None if nothing is pruned."""
    pattern = re.fullmatch(r"(\d{1,3}):(\d{1,3})", mask)
    if pattern:
        if sparsity:
            raise OptionError(f"mask {mask} fixes the sparsity: leave sparsity out")
        return Pattern(kept=int(pattern[1]), group=int(pattern[2]))
    if mask not in ("magnitude", "layers", "seed"):
        raise OptionError(f"mask is {mask!r}; choose from magnitude, layers, seed, and N:M, as 2:4")
    if not sparsity and mask != "magnitude":
        raise OptionError(f"mask {mask} prunes a share of the weights: give a sparsity")
    if not sparsity:
        return None
    if mask == "seed":
        return Seeded(sparsity=sparsity, seed=seed)
    return Magnitude(sparsity=sparsity, by_layer=mask == "layers")


@torch.no_grad()
def apply(net: nn.Module, masks: Masks) -> None:
    """Set the pruned weights of `net` to zero."""
    for name, parameter in net.named_parameters():
        if name in masks:
            parameter.mul_(masks[name])


def _share(share: float, done: float) -> float:
    """Return the share that is pruned when the share `done` of the training is over."""
    return share * (1 - (1 - min(1.0, done / _RAMP)) ** 3)


def _check_sparsity(sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise OptionError(f"sparsity is {sparsity}; it must be 0 or more and below 1")
