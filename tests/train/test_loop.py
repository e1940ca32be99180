import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from onnx_analog.channels import TableChannel
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.train.distillation import Teacher
from onnx_analog.train.images import MNIST, Images
from onnx_analog.train.loop import CIFAR10, Recipe, accuracy, epochs, train
from onnx_analog.train.noise import ChannelNoise, WeightNoise
from onnx_analog.train.pruning import Magnitude, Pattern, Seeded
from tests.models import QUIET

TABLE = TableChannel(name="steep", inputs=(-1.0, 1.0), means=(-0.8, 0.8), stds=(0.1, 0.1))
RECIPE = Recipe(
    optimizer="adam", rate=0.01, schedule="constant", batch=20, epochs=4, patience=4, held_out=40, flips=True
)


def images(count=200, seed=0):
    """Return images whose label is the brightest of ten rows: easy to learn, and flips change nothing."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(100, size=(count, 1, 10, 8), dtype=np.uint8), rng.integers(10, size=count)
    x[np.arange(count), 0, y] += 150
    return Images(torch.from_numpy(x), torch.from_numpy(y), MNIST)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(80, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10))


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_learns(optimizer):
    ours = net()
    before = accuracy(ours, images(seed=1))
    rows = train(ours, images(), replace(RECIPE, optimizer=optimizer, epochs=8, patience=8))
    assert before < 0.4
    assert accuracy(ours, images(seed=1)) > 0.9
    assert rows[-1]["loss"] < rows[0]["loss"] / 2


def test_it_learns_in_bfloat16_too_and_keeps_float32_weights():
    ours = net()
    train(ours, images(), replace(RECIPE, bf16=True, epochs=8, patience=8))
    assert accuracy(ours, images(seed=1)) > 0.9
    assert {value.dtype for value in ours.parameters()} == {torch.float32}
    plain = net()
    train(plain, images(), replace(RECIPE, epochs=8, patience=8))
    assert not same(weights(ours), weights(plain))


def test_the_same_seed_gives_the_same_network():
    runs = []
    for seed in (0, 0, 1):
        ours = net()
        train(ours, images(), replace(RECIPE, seed=seed))
        runs.append(weights(ours))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def written(channel):
    return ChannelNoise(scheme=Scheme(channel=channel, granularity="model"))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("noise", [None, WeightNoise(std=0.05), written(QUIET)], ids=str)
@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, optimizer="sgd", schedule="cosine")], ids=["adam", "sgd"])
def test_a_run_that_is_killed_ends_with_the_weights_of_one_that_is_not(tmp_path, noise, recipe):
    whole = net()
    rows = train(whole, images(), recipe, noise=noise)

    def kill(row):
        if row["epoch"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train(net(), images(), recipe, noise=noise, folder=tmp_path, progress=kill)
    resumed, seen = net(), []
    found = train(resumed, images(), recipe, noise=noise, folder=tmp_path, progress=seen.append)
    assert same(weights(resumed), weights(whole))
    assert [row["epoch"] for row in seen] == [3, 4]
    for name in ("epoch", "loss", "held_out"):
        assert [row[name] for row in found] == [row[name] for row in rows]
    assert list(epochs(tmp_path)) == found


def test_a_run_that_ended_is_not_trained_further(tmp_path):
    first = train(net(), images(), RECIPE, folder=tmp_path)
    again = net()
    assert train(again, images(), RECIPE, folder=tmp_path, progress=lambda _: pytest.fail("trained")) == first
    assert accuracy(again, images().split(40)[1]) == max(row["held_out"] for row in first)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    train(net(), images(), replace(RECIPE, epochs=1), folder=tmp_path)
    with pytest.raises(OptionError, match="another network"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(80, 10)), images(), RECIPE, folder=tmp_path)


def test_a_run_at_a_constant_rate_may_be_made_longer(tmp_path):
    train(net(), images(), replace(RECIPE, epochs=2), folder=tmp_path)
    longer, whole = net(), net()
    train(longer, images(), RECIPE, folder=tmp_path)
    train(whole, images(), RECIPE)
    assert same(weights(longer), weights(whole))


LOGITS = torch.zeros(160, 2, 10)
OTHERS = {
    "rate": {"recipe": replace(RECIPE, schedule="cosine", rate=0.02)},
    "seed": {"recipe": replace(RECIPE, schedule="cosine", seed=1)},
    "epochs": {"recipe": replace(RECIPE, schedule="cosine", epochs=5)},
    "noise": {"noise": written(replace(TABLE, stds=(0.1, 0.2)))},
    "teacher": {"teacher": Teacher(LOGITS, temperature=2.0)},
    "pruning": {"pruning": Magnitude(sparsity=0.5)},
    "images": {"images": images(seed=1)},
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Return what a run was given, and its folder."""
    folder, recipe = tmp_path_factory.mktemp("ended"), replace(RECIPE, schedule="cosine")
    mine = {"images": images(), "recipe": recipe, "noise": written(TABLE), "teacher": Teacher(LOGITS)}
    train(net(), **mine, folder=folder)
    return mine, folder


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(ended, name):
    mine, folder = ended
    with pytest.raises(OptionError, match=f"belongs to a run (with|of other) {name}[ :]"):
        train(net(), **{**mine, **OTHERS[name]}, folder=folder)
    train(net(), **mine, folder=folder, progress=lambda _: pytest.fail("trained"))  # its own is as it was


def test_the_best_epoch_is_kept_and_patience_ends_the_training():
    ours = net()
    rows = train(ours, images(), replace(RECIPE, epochs=50, patience=3))
    held = [row["held_out"] for row in rows]
    best = held.index(max(held))
    assert len(rows) == min(50, best + 1 + 3)
    assert accuracy(ours, images().split(40)[1]) == max(held)


def test_held_out_images_are_not_trained_on():
    one, other, data = net(), net(), images()
    changed = Images(data.x.clone(), data.y.clone(), MNIST)
    changed.x[-40:] = 0
    for ours, given in ((one, data), (other, changed)):
        train(ours, given, replace(RECIPE, epochs=1))
    assert same(weights(one), weights(other))


PRUNINGS = [Magnitude(sparsity=0.6), Magnitude(sparsity=0.6, by_layer=True), Seeded(sparsity=0.6, seed=1)]
PRUNINGS += [Pattern(kept=2, group=5)]


@pytest.mark.parametrize("pruning", PRUNINGS, ids=str)
def test_pruned_weights_are_zero_and_the_others_move(pruning):
    ours = net()
    before = weights(ours)
    train(ours, images(), RECIPE, pruning=pruning)
    after = ours.state_dict()["1.weight"]  # the only one that is stored: the other has 200 weights
    assert int((after == 0).sum()) == round(0.6 * after.numel())
    assert (after != before["1.weight"])[after != 0].float().mean() > 0.9
    assert not (ours.state_dict()["4.weight"] == 0).any()


@pytest.mark.parametrize("pruning", PRUNINGS, ids=str)
def test_a_pruned_run_that_is_killed_is_resumed_to_the_same_weights(tmp_path, pruning):
    whole, resumed, recipe = net(), net(), replace(RECIPE, schedule="cosine", patience=9)
    train(whole, images(), recipe, pruning=pruning)
    for killed_after in (1, 3):
        with pytest.raises(KilledError):
            train(net(), images(), recipe, pruning=pruning, folder=tmp_path, progress=kill_after(killed_after))
    train(resumed, images(), recipe, pruning=pruning, folder=tmp_path)
    assert same(weights(resumed), weights(whole))


def kill_after(epoch):
    def progress(row):
        if row["epoch"] == epoch:
            raise KilledError

    return progress


def test_the_best_epoch_is_one_with_the_last_masks():
    """Before the half of a run fewer weights are pruned, so that an epoch may be better, but it is not pruned."""
    ours = net()
    held = [row["held_out"] for row in train(ours, images(), RECIPE, pruning=Magnitude(sparsity=0.95))]
    assert accuracy(ours, images().split(40)[1]) == max(held[1:])  # epoch 2 of 4 ends with the last masks
    assert int((ours.state_dict()["1.weight"] == 0).sum()) == round(0.95 * 1600)


def test_a_pruned_run_at_a_constant_rate_may_not_be_made_longer(tmp_path):
    pruning = Magnitude(sparsity=0.5)
    train(net(), images(), replace(RECIPE, epochs=2), pruning=pruning, folder=tmp_path)
    with pytest.raises(OptionError, match="epochs"):
        train(net(), images(), RECIPE, pruning=pruning, folder=tmp_path)


def test_a_student_learns_what_only_its_teacher_knows():
    data = images()
    wrong = Images(data.x, (data.y + 1) % 10, MNIST)  # labels off by one; the teacher knows better
    logits = 20 * nn.functional.one_hot(data.y[:160], 10).float()
    teacher = Teacher(torch.stack([logits, logits], dim=1), weight=1.0)
    ours = net()
    train(ours, wrong, replace(RECIPE, epochs=8, patience=8), teacher=teacher)
    ours_last = accuracy(ours, images(seed=1))
    assert ours_last > 0.5  # the held-out labels chose the epoch, and they are wrong


def test_the_rate_rises_and_falls():
    rates = [CIFAR10.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) in (9, 10)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.05 * (1 + math.cos(math.pi / 2)))
    assert {RECIPE.rate_at(step, 100) for step in range(100)} == {0.01}


@pytest.mark.parametrize(
    "wrong",
    [{"optimizer": "lbfgs"}, {"schedule": "steps"}, {"batch": 0}, {"epochs": 0}, {"patience": 0}, {"held_out": 0},
     {"rate": 0.0}, {"shift": -1}],
    ids=str,
)  # fmt: skip
def test_options_out_of_range(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        replace(RECIPE, **wrong)


def test_accuracy_by_hand():
    ours = nn.Sequential(nn.Flatten(), nn.Linear(80, 10))
    data = images(1100)  # more than one call
    with torch.no_grad():
        expected = (ours(data.inputs()).argmax(1) == data.y).float().mean()
    assert accuracy(ours, data) == pytest.approx(float(expected))


def test_noise_costs_accuracy():
    ours = net()
    train(ours, images(), replace(RECIPE, epochs=8, patience=8))
    assert accuracy(ours, images(seed=1), WeightNoise(std=3.0)) < accuracy(ours, images(seed=1)) - 0.2
