"""Prunes the smallest weights of a network, and keeps them at zero during fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from onnx_analog.coding.partition import cut_largest, mark_largest
from onnx_analog.errors import OptionError
from onnx_analog.train.noise import stored_parameters

Masks = Mapping[str, Tensor]


def masks_of(net: nn.Module, sparsity: float) -> Masks:
    """Return the mask of the weights that stay: the smallest of all layers are pruned, as `PrunePass` does."""
    if not 0 <= sparsity < 1:
        raise OptionError(f"sparsity is {sparsity}; it must be 0 or more and below 1")
    weights = {name: parameter.detach().numpy() for name, parameter in stored_parameters(net).items()}
    size = sum(weight.size for weight in weights.values())
    cut = cut_largest(list(weights.values()), size - round(sparsity * size))
    masks = {}
    for name, weight in weights.items():
        kept, cut = mark_largest(weight, cut)
        masks[name] = torch.from_numpy(kept)
    return masks


@torch.no_grad()
def apply(net: nn.Module, masks: Masks) -> None:
    """Set the pruned weights of `net` to zero."""
    for name, parameter in net.named_parameters():
        if name in masks:
            parameter.mul_(masks[name])
