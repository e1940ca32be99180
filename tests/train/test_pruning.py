import numpy as np
import pytest
import torch
from torch import nn

from onnx_analog.coding.masks import seeded_mask
from onnx_analog.errors import OptionError
from onnx_analog.graph.weights import find
from onnx_analog.passes import PrunePass
from onnx_analog.train.pruning import Magnitude, Pattern, Seeded, apply, pruning_of
from tests.models import holding


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 20))


def name_of(parameter):
    return f"w{parameter.split('.')[0]}" if parameter.endswith("weight") else parameter


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.999])
def test_masks_by_magnitude_are_those_of_the_pass(sparsity):
    ours = net()
    weights = {name_of(name): p.detach().numpy().copy() for name, p in ours.named_parameters() if p.dim() == 2}
    model = holding(**weights)
    PrunePass(sparsity=sparsity)(model)
    pruned = {weight.name: weight.array() for weight in find(model).weights}
    masks = Magnitude(sparsity=sparsity).masks(ours)
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


def test_scores_by_layer_by_hand():
    """Of 3, 2, 1 the scores are 9/9, 4/13, 1/14; of 30, 10, 10 they are 1, 100/1000, 100/1100."""
    ours = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    with torch.no_grad():
        for layer, few in zip(ours, ([3.0, -2.0, 1.0], [-30.0, 10.0, 10.0]), strict=True):
            layer.weight.zero_()
            layer.weight[0, :3] = torch.tensor(few)
    kept = [5, 4, 3, 2]
    found = [Magnitude(sparsity=1 - count / 512, by_layer=True).masks(ours) for count in kept]
    rows = [[mask["0.weight"][0, :3].tolist(), mask["1.weight"][0, :3].tolist()] for mask in found]
    assert rows == [
        [[True, True, False], [True, True, True]],
        [[True, True, False], [True, True, False]],
        [[True, True, False], [True, False, False]],
        [[True, False, False], [True, False, False]],
    ]


def test_scores_by_layer_do_not_depend_on_the_scale_of_a_layer():
    ours, scaled = net(), net()
    with torch.no_grad():
        scaled[0].weight *= 1024
    masks, of_scaled = (Magnitude(sparsity=0.9, by_layer=True).masks(each) for each in (ours, scaled))
    assert all(torch.equal(masks[name], of_scaled[name]) for name in masks)
    plain = Magnitude(sparsity=0.9).masks(scaled)
    assert not plain["1.weight"].any()  # which is what scores by layer are for


@pytest.mark.parametrize(("kept", "group"), [(1, 2), (2, 4), (2, 20), (3, 7), (1, 64)])
def test_of_each_group_the_largest_stay(kept, group):
    ours = net()
    masks = Pattern(kept=kept, group=group).masks(ours)
    for name, mask in masks.items():
        weight, mask = ours.get_parameter(name).detach().ravel(), mask.ravel()
        for start in range(0, len(mask), group):
            part, of_part = weight[start : start + group].abs(), mask[start : start + group]
            assert int(of_part.sum()) == min(kept, len(part))
            assert part[of_part].min() >= part[~of_part].max() if (~of_part).any() else True


def test_groups_follow_the_order_in_which_onnx_stores_weights_whatever_torch_s_strides():
    conv = nn.Conv2d(6, 8, 3)
    expected = Pattern(kept=2, group=9).masks(conv)["weight"]
    conv.to(memory_format=torch.channels_last)
    found = Pattern(kept=2, group=9).masks(conv)["weight"]
    assert torch.equal(found, expected)
    assert (found.reshape(48, 9).sum(1) == 2).all()  # a group is a kernel here


@pytest.mark.parametrize(
    "pruning", [Magnitude(sparsity=0.9), Magnitude(sparsity=0.9, by_layer=True), Pattern(kept=1, group=10)], ids=str
)
def test_more_and_more_is_pruned_until_the_half(pruning):
    """The share rises as 1 - (1 - t)³: at a quarter of the run, 7/8 of it is pruned; N:M rounds it down in a group."""
    ours = net()
    shares = []
    for done in (0.0, 0.25, 0.5, 1.0):
        masks = pruning.masks(ours, done)
        shares.append(sum(int((~mask).sum()) for mask in masks.values()) / 2000)
        apply(ours, masks)
    quarter = 0.7 if isinstance(pruning, Pattern) else round(0.9 * 7 / 8 * 2000) / 2000
    assert shares == pytest.approx([0.0, quarter, 0.9, 0.9])
    assert [pruning.settled(done) for done in (0.49, 0.5, 1.0)] == [False, True, True]


def test_what_is_pruned_stays_pruned_while_more_is():
    ours = net()
    pruning = Magnitude(sparsity=0.9, by_layer=True)
    before = None
    for done in np.linspace(0, 0.6, 20):
        masks = pruning.masks(ours, float(done))
        assert before is None or all(not (masks[name] & ~before[name]).any() for name in masks)
        apply(ours, masks)
        with torch.no_grad():
            for parameter in ours.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter) * (parameter != 0))
        before = masks


def test_masks_from_a_seed_are_those_that_storage_knows():
    masks = Seeded(sparsity=0.9, seed=3).masks(net())
    for name, count in (("0.weight", 120), ("1.weight", 80)):
        np.testing.assert_array_equal(masks[name].ravel(), seeded_mask(3, name, 10 * count, count))


def test_a_mask_from_a_seed_is_the_same_at_all_times():
    pruning = Seeded(sparsity=0.9, seed=3)
    start, end = pruning.masks(net(), 0.0), pruning.masks(net(), 1.0)
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert pruning.settled(0.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("magnitude", 0.0), None), (("magnitude", 0.5), Magnitude(sparsity=0.5)),
     (("layers", 0.5), Magnitude(sparsity=0.5, by_layer=True)), (("seed", 0.5), Seeded(sparsity=0.5, seed=7)),
     (("2:4", 0.0), Pattern(kept=2, group=4))],
    ids=str,
)  # fmt: skip
def test_words_stand_for_prunings(words, expected):
    assert pruning_of(*words, seed=7) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [(("largest", 0.5), "mask is 'largest'; choose from magnitude, layers, seed, and N:M, as 2:4"),
     (("seed", 0.0), "mask seed prunes a share of the weights: give a sparsity"),
     (("layers", 0.0), "mask layers prunes a share of the weights"),
     (("2:4", 0.5), "mask 2:4 fixes the sparsity: leave sparsity out"),
     (("4:4", 0.0), "mask is 4:4; N:M needs N from 1 to below M, and M of at most 64"),
     (("0:4", 0.0), "mask is 0:4; N:M"), (("1:65", 0.0), "mask is 1:65; N:M"), (("1:4x", 0.0), "mask is '1:4x'")],
    ids=str,
)  # fmt: skip
def test_words_that_stand_for_none_are_refused(words, message):
    with pytest.raises(OptionError, match=message):
        pruning_of(*words, seed=0)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_options_out_of_range(sparsity):
    for pruning in (Magnitude, lambda **of: Seeded(seed=0, **of)):
        with pytest.raises(OptionError, match="sparsity"):
            pruning(sparsity=sparsity)
