import numpy as np
import pytest
import torch
from torch import nn

from onnx_analog.errors import OptionError
from onnx_analog.graph.weights import find
from onnx_analog.passes import PrunePass
from onnx_analog.train.pruning import apply, masks_of
from tests.models import holding


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 20))


def name_of(parameter):
    return f"w{parameter.split('.')[0]}" if parameter.endswith("weight") else parameter


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.999])
def test_masks_are_those_of_the_pass(sparsity):
    ours = net()
    weights = {name_of(name): p.detach().numpy().copy() for name, p in ours.named_parameters() if p.dim() == 2}
    model = holding(**weights)
    PrunePass(sparsity=sparsity)(model)
    pruned = {weight.name: weight.array() for weight in find(model).weights}
    masks = masks_of(ours, sparsity)
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(sparsity * 2000)
    apply(ours, masks)
    for name, parameter in ours.named_parameters():
        if name_of(name) in pruned:  # one that became all zero is selected no more
            np.testing.assert_array_equal(parameter.detach().numpy(), pruned[name_of(name)])


def test_only_what_is_marked_is_changed():
    ours, before = net(), {name: p.clone() for name, p in net().named_parameters()}
    mask = torch.zeros(40, 30, dtype=torch.bool)
    apply(ours, {"0.weight": mask})
    after = dict(ours.named_parameters())
    assert not after["0.weight"].any()
    assert all(torch.equal(after[name], before[name]) for name in before if name != "0.weight")


@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_options_out_of_range(sparsity):
    with pytest.raises(OptionError, match="sparsity"):
        masks_of(net(), sparsity)
