import numpy as np
import onnx_ir as ir
import pytest
import scipy.stats
import torch
from torch import nn

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.graph.weights import find
from onnx_analog.testing import assert_law, assert_std, assert_uncorrelated
from onnx_analog.train.export import export
from onnx_analog.train.images import CIFAR10, Images
from onnx_analog.train.noise import ChannelNoise, PlanNoise, WeightNoise, forward, plan_noise, stored_parameters
from onnx_analog.train.starting import norms_of
from tests.models import QUIET, f32, holding, run

WEIGHTS = {
    "a": f32(np.random.default_rng(0).normal(size=(50, 40))),
    "b": f32(0.1 * np.random.default_rng(1).normal(size=(30, 60))),
}


def off(noise, step=0, seed=0):
    read = noise.perturbed(WEIGHTS, seed=seed, step=step)
    return {name: (read[name] - WEIGHTS[name]).astype(np.float64) for name in WEIGHTS}


def test_weight_noise_has_the_law_that_it_says():
    errors = np.concatenate([error.ravel() for error in off(WeightNoise(std=0.1)).values()])
    assert_law(errors, scipy.stats.norm(scale=0.1).cdf)
    assert_std(errors, 0.1)


STILL = GaussianNoise(sigma=1e-12)
SCHEMES = {
    "tensor": Scheme.paper("mapping", cells_small=4, large_fraction=0.1, channel=STILL),
    "model": Scheme.paper("mapping", cells_small=4, large_fraction=0.1, channel=STILL, granularity="model"),
    "channel": Scheme(classes=3, partition="lloyd", cells=(1,), channel=STILL, granularity="channel"),
    "digital": Scheme.int4(granularity="channel"),
    "some without cells": Scheme(classes=4, partition="uniform", cells=(0, 1, 0, 2), sign="level", channel=STILL),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_channel_noise_is_what_protect_and_readback_make_of_the_same_weights(name):
    """No noise to speak of, so that the streams, which differ, make no difference: the code is the same.

    Output channels of a torch weight lie along its first axis, and so they do of what MatMul takes on its left.
    """
    read = ChannelNoise(scheme=SCHEMES[name]).perturbed(WEIGHTS, seed=0, step=0)
    model = oa.protect(transposed(**WEIGHTS), SCHEMES[name]).model
    decoded = {weight.name: weight.array() for weight in find(oa.readback(model, decoded=True).model).weights}
    for key in WEIGHTS:
        np.testing.assert_array_equal(read[key], decoded[key])


def transposed(**weights):
    """Return y_w = x_w·wᵀ for each of the matrices given by name, as torch exports a linear layer."""
    found = holding(**{name: np.ascontiguousarray(weight.T) for name, weight in weights.items()})
    for name, weight in weights.items():
        found.graph.initializers[name].const_value = ir.tensor(weight, name=name)
        found.graph.initializers[name].shape = ir.Shape(weight.shape)
    for node in found.graph:
        node.op_type = "Gemm"
        node.attributes["transB"] = ir.AttrInt64("transB", 1)
    return found


PLAN = Plan(
    default=None,
    tensors={"a": Scheme.entropy_coded(1.5, channel=STILL)},
    patterns={"b*": Scheme.refined(2.0, channel=STILL)},
)


def test_plan_noise_is_what_protect_and_readback_make_of_the_same_weights():
    read = PlanNoise(plan=PLAN).perturbed(WEIGHTS, seed=0, step=0)
    model = oa.protect(transposed(**WEIGHTS), plan=PLAN).model
    decoded = {weight.name: weight.array() for weight in find(oa.readback(model, decoded=True).model).weights}
    for key in WEIGHTS:
        np.testing.assert_array_equal(read[key], decoded[key])
        assert (read[key] != WEIGHTS[key]).any()


def test_tensors_that_a_plan_leaves_digital_stay_as_they_are():
    read = PlanNoise(plan=Plan(default=None, tensors={"b": Scheme.int4()})).perturbed(WEIGHTS, seed=0, step=0)
    np.testing.assert_array_equal(read["a"], WEIGHTS["a"])
    assert (read["b"] != WEIGHTS["b"]).any()


def test_a_plan_may_have_other_keys_than_the_network():
    ours = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    keys = {"0.weight": "first", "1.weight": "second"}
    of_network = Plan(default=None, tensors={"0.weight": Scheme.int4()})
    of_other = Plan(default=None, tensors={"first": Scheme.int4()})
    weights = {name: p.detach().numpy() for name, p in stored_parameters(ours).items()}
    one, other = (
        plan_noise(ours, plan, keys, {}).perturbed(weights, seed=0, step=0) for plan in (of_network, of_other)
    )
    for name, weight in weights.items():
        np.testing.assert_array_equal(one[name], other[name])
        assert (one[name] != weight).any() == (name == "0.weight")
    with pytest.raises(OptionError, match="the plan names 'third', which the network does not have"):
        plan_noise(ours, Plan(tensors={"third": None}), keys, {})


def test_weights_are_stored_as_a_norm_is_folded_into_them(tmp_path):
    """The outputs of a network whose weights a plan reads in training are those of its exported model, protected."""
    torch.manual_seed(0)
    ours = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10)
    )
    nn.init.uniform_(ours[1].weight, 0.2, 3)
    nn.init.uniform_(ours[1].running_var, 0.2, 3)
    x = np.random.default_rng(0).integers(256, size=(6, 3, 8, 8), dtype=np.uint8)
    images = Images(torch.from_numpy(x), torch.zeros(6, dtype=torch.long), CIFAR10)
    plan = Plan(default=Scheme.int4(channel=STILL))
    export(ours, images, tmp_path / "net.onnx", fold_batch_norm=True)
    (expected,) = run(oa.readback(oa.protect(tmp_path / "net.onnx", plan=plan).model).model,
                      {"input": images.inputs().numpy()})  # fmt: skip
    noises = [PlanNoise(plan=plan, norms=norms) for norms in (norms_of(ours, images), {})]
    with torch.no_grad():
        found, unfolded = (forward(ours.eval(), images.inputs(), noise, seed=0, step=0) for noise in noises)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(unfolded.numpy() - expected).max() > 1e-2 * np.abs(expected).max()


def test_an_output_channel_that_training_left_dead_is_stored_as_it_is():
    ours = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16))
    nn.init.zeros_(ours[1].weight)
    noise = PlanNoise(plan=Plan(default=Scheme.int8()), norms={"0.weight": "1"})
    assert torch.isfinite(forward(ours.eval(), torch.ones(1, 3, 5, 5), noise, seed=0, step=0)).all()


@pytest.mark.parametrize("cells", [1, 25])
def test_channel_noise_shrinks_with_the_root_of_the_cells(cells):
    noise = ChannelNoise(scheme=Scheme.paper("sign", cells_small=cells, channel=QUIET))
    for name, error in off(noise).items():
        size = np.abs(WEIGHTS[name])
        alpha = (QUIET.high - QUIET.low) / (size.max() - size.min())
        assert_std(error * np.sign(WEIGHTS[name]), QUIET.sigma / alpha / np.sqrt(cells))


QUIETLY = ChannelNoise(scheme=Scheme(channel=QUIET, granularity="model"))


@pytest.mark.parametrize("noise", [WeightNoise(std=0.1), QUIETLY], ids=["weights", "channel"])
def test_noise_depends_on_seed_step_and_name_only(noise):
    one, same = off(noise), off(noise)
    assert all(np.array_equal(one[name], same[name]) for name in WEIGHTS)
    for other in (off(noise, step=1), off(noise, seed=1)):
        assert_uncorrelated(one["a"], other["a"])
    alone = noise.perturbed({"a": WEIGHTS["a"]}, seed=0, step=0)["a"] - WEIGHTS["a"]
    if isinstance(noise, WeightNoise):
        assert np.array_equal(alone, one["a"].astype(np.float32))


def test_weights_of_zero_stay_zero_in_analog_memory():
    pruned = {"a": np.where(np.abs(WEIGHTS["a"]) < 1, 0, WEIGHTS["a"]), "b": np.zeros((30, 60), np.float32)}
    read = ChannelNoise().perturbed(pruned, seed=0, step=0)
    assert not read["a"][pruned["a"] == 0].any()
    assert read["a"][pruned["a"] != 0].all()
    assert not read["b"].any()


def test_gradients_go_straight_through():
    """y = Σ x·(w + δ): the gradient to w is Σ x, whatever δ is; that to x sees w + δ."""
    net = nn.Linear(40, 50, bias=False)
    x = torch.randn(7, 40, generator=torch.Generator().manual_seed(0), requires_grad=True)
    forward(net, x, WeightNoise(std=0.5), seed=0, step=0).sum().backward()
    expected = x.detach().sum(0).expand(50, 40)
    torch.testing.assert_close(net.weight.grad, expected)
    read = WeightNoise(std=0.5).perturbed({"weight": net.weight.detach().numpy()}, seed=0, step=0)["weight"]
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.from_numpy(read).sum(0).expand(7, 40))


def test_without_noise_nothing_is_perturbed():
    net, x = nn.Linear(40, 50), torch.ones(2, 40)
    assert torch.equal(forward(net, x, None, seed=0, step=0), net(x))
    assert not torch.equal(forward(net, x, WeightNoise(std=0.1), seed=0, step=0), net(x))


def test_what_is_stored_is_what_a_selection_takes():
    net = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 15), nn.BatchNorm1d(300))
    assert list(stored_parameters(net)) == ["0.weight"]  # 256 elements; 240; rank 1


def test_options_out_of_range():
    for wrong in (-0.1, np.nan, np.inf):
        with pytest.raises(OptionError, match="std"):
            WeightNoise(std=wrong)


def test_side_information_is_free_of_error_in_training():
    with pytest.raises(OptionError, match="choose a scheme without side_channel"):
        ChannelNoise(scheme=Scheme(side_channel="pcm"))
    with pytest.raises(OptionError, match="choose a scheme without side_channel"):
        PlanNoise(plan=Plan(patterns={"*": Scheme(side_channel="pcm")}))


def test_noise_is_told_apart_by_its_plan():
    identity = PlanNoise(plan=PLAN).identity()
    assert identity == PlanNoise(plan=PLAN.mapped(lambda scheme: scheme)).identity()
    others = [PlanNoise(plan=Plan()), PlanNoise(plan=PLAN, keys={"a": "c"}), PlanNoise(plan=PLAN, norms={"a": "n"})]
    assert all(other.identity() != identity for other in others)


def test_noise_is_told_apart_by_its_scheme():
    assert QUIETLY.identity() == ChannelNoise(scheme=Scheme(channel=QUIET, granularity="model")).identity()
    assert QUIETLY.identity() != ChannelNoise().identity()
    assert WeightNoise(std=0.1).identity() != WeightNoise(std=0.2).identity()
