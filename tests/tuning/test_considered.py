"""Masks from a seed, weights on a grid, and plans of the user's own, in searches."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.cli.tuning_tables import tables_of
from onnx_analog.coding.compensation import InputMoments
from onnx_analog.coding.masks import seeded_mask
from onnx_analog.coding.streams import DECODING
from onnx_analog.errors import OptionError
from onnx_analog.tuning import candidates as tuning
from onnx_analog.tuning.candidates import candidates, members, on_grid, seeded
from onnx_analog.tuning.considered import considered
from tests.models import f32, holding, model
from tests.run.nets import LINEAR, drawn, rows

PCM = oa.channels.resolve("pcm")
RNG = np.random.default_rng(0)
KEY, SEED = "w", 11
NET = "net (float[n, 16] x) => (float[n, 32] y) <float[16, 32] w = {numbers}> { y = MatMul(x, w) }"


def net(weight):
    """Return LINEAR with other weights."""
    return model(NET.replace("numbers", ", ".join(f"{value:.9g}" for value in weight.reshape(-1))))


def from_seed(shape, seed, kept=0.4):
    mask = seeded_mask(seed, KEY, int(np.prod(shape)), round(kept * np.prod(shape)))
    return np.where(mask.reshape(shape), drawn(*shape, seed=5), 0).astype(np.float32)


def of_pattern(shape, kept, group):
    """Return weights of which each group keeps as many, at random places."""
    order = np.random.default_rng(1).random((int(np.prod(shape)) // group, group)).argsort(axis=1)
    return np.where((order < kept).reshape(shape), drawn(*shape, seed=5), 0).astype(np.float32)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(tuning, "STEPS", tuning.STEPS[::4])


def tuned(plain, **given):
    return oa.tune(plain, rows(400), **{"trials": 2, "max_drop": 20, **given})


# ------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("counting", ["memory", "paper"])
@pytest.mark.parametrize("decoding", DECODING)
def test_candidates_with_a_seed_cost_what_the_manifest_counts(decoding, counting):
    weight = from_seed((64, 96), SEED)
    schemes = seeded(members(PCM, decoding)[::9], weight, SEED, KEY)
    assert all(scheme.mask_seed == SEED for scheme in schemes)
    for candidate in candidates(weight, schemes, counting=counting, key=KEY):
        manifest = oa.protect(holding(w=weight), candidate.scheme).manifest
        totals, lines = manifest.totals, manifest.honest
        if counting == "paper":
            assert candidate.cells == totals.all_in_cells
        else:
            assert "mask seed" in [line.name for line in lines]
            slack = sum(1 if line.code != "bch" else 100 for line in lines)
            assert abs(totals.honest_cells - candidate.cells) <= slack


def test_a_compensated_candidate_with_a_seed_stores_all_weights_that_the_mask_keeps():
    """Also those that are read as 0. White inputs leave nothing to compensate, so it costs what a plain one does."""
    weight = from_seed((64, 96), SEED)
    white = np.eye(96, dtype=np.float32)[None]
    known = InputMoments(second=white, held_out=white, axes=(0, 1), samples=10**12)
    schemes = seeded([oa.Scheme.entropy_coded(2.0, channel=PCM, estimator="affine")], weight, SEED, KEY)
    (found,), (plain,) = (candidates(weight, schemes, given, key=KEY) for given in (known, None))
    assert found.cells == plain.cells


def test_only_zeros_that_follow_from_the_seed_are_stored_as_one():
    schemes = members(PCM, "hard")
    for weight, seed in (
        (from_seed((16, 32), SEED), SEED + 1),
        (from_seed((16, 32), SEED), None),
        (of_pattern((16, 32), 2, 4), SEED),
        (drawn(16, 32), SEED),
    ):
        assert seeded(schemes, weight, seed, KEY) == schemes
    assert seeded(schemes, from_seed((16, 32), SEED), SEED, "another") == schemes


@pytest.mark.parametrize("decoding", ["none", "hard"])
def test_a_seed_makes_the_plan_of_such_a_network_cheaper(decoding):
    """By the bits of its mask, 0.97 for each of 512 weights, less 64: the same steps are chosen at such a budget.

    A code adds the check bits of its last blocks, which are whole: fewer than 100 for each of two streams.
    """
    plain = net(from_seed((16, 32), SEED))
    asked = {"max_drop": 50, "decoding": decoding}
    without, with_seed = tuned(plain, **asked), tuned(plain, mask_seed=SEED, **asked)
    assert with_seed.best.cells < without.best.cells - 0.1
    assert {scheme.mask_seed for scheme in with_seed.plan.schemes} == {SEED}
    again = oa.protect(plain, with_seed.plan)
    assert [tensor.mask.mean() for tensor in again.tensors] == pytest.approx([0.4], abs=0.01)


def test_a_seed_changes_nothing_in_other_networks():
    for plain in (model(LINEAR), net(from_seed((16, 32), SEED + 1))):
        assert tuned(plain, mask_seed=SEED).to_dict() == tuned(plain).to_dict()
    with pytest.raises(OptionError, match="mask_seed is -1"):
        tuned(model(LINEAR), mask_seed=-1)


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 8), (2, 20)])
def test_candidates_store_patterns_as_patterns(kept, group):
    """Which takes fewer bits than the mask alone does: log2 C(M, N) a group, and not M·H(N/M)."""
    weight = of_pattern((40, 96), kept, group)
    scheme = oa.Scheme.entropy_coded(0.5, channel=PCM)
    (found,) = candidates(weight, [scheme])
    counted = oa.protect(holding(w=weight), scheme).manifest
    assert abs(counted.totals.honest_cells - found.cells) <= 100 * len(counted.honest)
    shuffled = np.random.default_rng(3).permutation(weight.reshape(-1)).reshape(weight.shape)
    (other,) = candidates(shuffled, [scheme])
    assert found.cells < other.cells


# -------------------------------------------------------------------------------------------------------- grids


def on_steps(shape=(16, 32), step=0.21):
    return f32(step * np.random.default_rng(2).integers(-4, 5, shape))


@pytest.mark.parametrize("decoding", DECODING)
def test_weights_on_a_grid_have_a_candidate_without_errors(decoding):
    weight = on_steps()
    schemes = on_grid(weight, PCM, decoding)
    assert set(on_grid(weight, PCM, "none")) <= set(schemes)
    quiet = [scheme.changed(channel="gaussian:sigma=0.001") for scheme in schemes]  # or wrong bits count
    for given in (None, correlated()):
        found = candidates(weight, quiet, given, needed=quiet)
        assert len(found) == len(schemes)
        assert all(each.error < 1e-12 for each in found)
    assert on_grid(drawn(16, 32), PCM, decoding) == ()


def correlated():
    x = np.random.default_rng(7).normal(size=(4000, 4)) @ np.random.default_rng(8).normal(size=(4, 16))
    second = f32(x.T @ x / 4000)[None]
    return InputMoments(second=second, held_out=second, axes=(1, 0), samples=4000)


@pytest.mark.parametrize("decoding", ["hard", "soft"])
def test_a_search_finds_the_step_of_weights_on_a_grid_and_loses_nothing(decoding):
    """Any other plan that loses as little needs smaller steps."""
    found = tuned(net(on_steps()), max_drop=4, decoding=decoding, correction=False)
    (scheme,) = found.plan.schemes
    assert (scheme.step, scheme.rounding) == (pytest.approx(0.21, rel=1e-6), "alone")
    assert found.best.verified.mean == 0
    assert found.best.verified.divergence < 1e-10
    assert not found.plan.compensated
    again = oa.evaluate(oa.protect(net(on_steps()), found.plan), rows(50), trials=1, reference=net(on_steps()))
    assert again.values == (1.0,)


def on_channel_steps(reach=3):
    """Return weights (16, 32) in a step of each column, which is an output channel of `net`."""
    rng = np.random.default_rng(3)
    multiples = rng.integers(-reach, reach + 1, (16, 32))
    multiples[0] = reach
    return f32(multiples * rng.uniform(0.1, 0.4, 32))


@pytest.mark.parametrize("counting", ["memory", "paper"])
@pytest.mark.parametrize("decoding", DECODING)
def test_weights_on_grids_of_output_channels_have_a_candidate_without_errors(decoding, counting):
    weight = on_channel_steps()
    assert on_grid(weight, PCM, decoding, axis=0) == ()
    schemes = on_grid(weight, PCM, decoding, axis=1)
    assert {each.granularity for each in schemes} == {"channel"}
    quiet = [scheme.changed(channel="gaussian:sigma=0.001") for scheme in schemes]  # or wrong bits count
    for given in (None, correlated()):
        found = candidates(weight, quiet, given, axis=1, needed=quiet, counting=counting)
        assert all(each.error < 1e-12 for each in found)
    for each in candidates(weight, schemes, axis=1, needed=schemes, counting=counting):
        manifest = oa.protect(net(weight), each.scheme).manifest
        if counting == "paper":
            assert each.cells == manifest.totals.all_in_cells
        else:
            slack = sum(1 if line.code != "bch" else 100 for line in manifest.honest)
            assert abs(manifest.totals.honest_cells - each.cells) <= slack


def test_a_search_finds_the_steps_of_output_channels_and_loses_nothing():
    weight = on_channel_steps()
    found = tuned(net(weight), max_drop=4, correction=False)
    (scheme,) = found.plan.schemes
    assert (scheme.granularity, scheme.classes, scheme.rounding) == ("channel", 7, "alone")
    assert found.best.verified.mean == 0
    assert found.best.verified.divergence < 1e-10
    again = oa.evaluate(oa.protect(net(weight), found.plan), rows(50), trials=1, reference=net(weight))
    assert again.values == (1.0,)


# -------------------------------------------------------------------------------------------------------- plans

STEPS_OF_4 = oa.Plan(default=oa.Scheme.entropy_coded(2.0, estimator="affine", rounding="alone"))


def trained(step=2.0):
    """Return a network and labelled data for which it is right as a plan stores it, and often wrong as it is.

    As after training with the plan: labels are those of the network with its weights in the step, each alone.
    """
    weight, x = drawn(16, 32, seed=9), f32(drawn(3000, 16, seed=4) + drawn(3000, 4, seed=5) @ drawn(4, 16, seed=6))
    coarse = step * np.sqrt(np.mean(np.square(weight, dtype=np.float64)))
    return net(weight), (x, (x @ (coarse * np.rint(weight / coarse))).argmax(axis=1))


@pytest.mark.parametrize("goal", [{"max_drop": 1}, {"budget": 4.0}])
def test_a_plan_of_the_training_is_found_as_a_whole(goal):
    """Its step is coarse: by the errors of the weights, it is the last that would be chosen."""
    plain, data = trained()
    asked = {"trials": 2, "correction": False, "decoding": "hard", **goal}
    without, found = oa.tune(plain, data, **asked), oa.tune(plain, data, plan=STEPS_OF_4, **asked)
    (scheme,) = found.plan.schemes
    assert (scheme.relative_step, scheme.rounding) == (2.0, "alone")
    assert found.best.verified.mean < -0.1  # the original is wrong where it is right
    assert not found.plan.compensated
    assert without.best.verified.mean > found.best.verified.mean
    if "max_drop" in goal:
        assert found.holds
        assert found.best.cells < without.best.cells
        assert found.best.looks[0].cells == found.best.cells
    else:
        assert found.best.cells <= goal["budget"]


def captions(tuned):
    return [str(table.caption) for table in tables_of(tuned)]


@pytest.fixture(scope="module")
def of_training():
    """Return the answer with the plan of the training, the plan that it found, and the arguments of the search."""
    plain, data = trained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "STEPS", tuning.STEPS[::4])
        return plain, data, oa.tune(plain, data, plan=STEPS_OF_4, max_drop=1, trials=2, correction=False)


def test_the_rows_of_a_given_plan_are_marked(of_training):
    *_, found = of_training
    assert found.best.given
    assert next(iter(found.answers)) == "best plan (digital, given)"
    (name, first), *others = found.looks()
    assert (name, first.cells) == ("best plan (digital, given)", found.best.cells)
    assert not any("given" in name or look.given for name, look in others)
    assert {point.given for point in found.best.curve} == {True, False}
    body = found.to_dict()["best"]
    assert [look["given"] for look in body["looks"]] == [True] + [False] * (len(body["looks"]) - 1)
    assert sum(point["given"] for point in body["curve"]) == sum(point.given for point in found.best.curve)
    ways = {(point["given"], point["rounding"]) for point in body["curve"]}
    assert ways >= {(True, "alone"), (True, "together")}
    tried = next(each.columns[0] for each in tables_of(found) if str(each.columns[0].header).startswith("tried"))
    shown = list(map(str, tried.cells))
    assert {row.partition(" ")[2] for row in shown} == {"", "(given, rounded alone)", "(given, compensated)"}


def test_what_a_given_plan_does_to_the_bounds_is_said(of_training):
    *_, found = of_training
    assert found.confidence_of_look == pytest.approx(1 - 0.05 / 4)
    said = captions(found)[1]
    assert "98.75 % confidence" in said
    assert "A given plan is verified whatever becomes of the others" in said
    assert "Digital rivals and a given plan are verified separately, so each bound has a quarter of the risk" in said
    without = captions(tuned(model(LINEAR)))[1]
    assert "Digital rivals are verified separately, so each bound has half of the risk" in without
    assert "given" not in without


def test_a_given_plan_that_was_not_verified_is_missed():
    plan = oa.Plan(default=oa.Scheme.entropy_coded(0.01, estimator="affine"))
    found = tuned(model(LINEAR), plan=plan, decoding="hard")
    assert not any(look.given for _, look in found.looks())
    assert "The given plan was not verified, as a plan that takes no more cells holds" in captions(found)[1]


@pytest.mark.parametrize(("limit", "verified"), [(0.2, True), (20, False)])
def test_a_given_plan_that_was_not_searched_for_is_verified_unless_a_cheaper_one_holds(limit, verified, monkeypatch):
    """Its part of the risk is its own. Here it is among the last of the path, and the search finds a cheaper one."""
    plain, data = trained()
    plan = oa.Plan(default=oa.Scheme.entropy_coded(0.3, estimator="affine"))
    asked = {"trials": 2, "correction": False, "decoding": "hard", "max_drop": limit}
    found = oa.tune(plain, data, plan=plan, **asked)
    assert any(look.given for _, look in found.looks()) is verified
    if not verified:
        assert found.holds


@pytest.mark.parametrize("where", ["arrays", "the same file", "another file"])
def test_samples_that_the_search_for_a_given_plan_used_are_not_called_new(where, of_training, tmp_path):
    """Of arrays, nobody knows whether they are the same."""
    plain, (x, y), found = of_training
    data = {"arrays": (x, y), "the same file": tmp_path / "one.npz", "another file": tmp_path / "other.npz"}[where]
    np.savez(tmp_path / "one.npz", x=x, y=y)
    np.savez(tmp_path / "other.npz", x=x[::-1], y=y[::-1])
    of_file = oa.tune(plain, tmp_path / "one.npz", max_drop=1, trials=2, correction=False, plan=STEPS_OF_4).plan
    again = oa.tune(plain, data, max_drop=1, trials=2, correction=False, plan=of_file)
    said = {
        "arrays": "of data that the search for the given plan may have used",
        "the same file": "of data that the search for the given plan has used",
        "another file": "that nothing else has seen",
    }
    assert again.verified_on.endswith(said[where])
    new = where == "another file"
    assert again.to_dict()["samples_seen_before"] is again.plan.verified.samples_seen_before is not new
    assert found.verified_on.endswith("nothing else has seen")  # whose plan is of no search


def test_a_plan_from_arrays_may_be_of_any_data(of_training, tmp_path):
    plain, (x, y), _ = of_training
    np.savez(tmp_path / "data.npz", x=x, y=y)
    of_arrays = oa.tune(plain, (x, y), max_drop=1, trials=2, correction=False, plan=STEPS_OF_4).plan
    again = oa.tune(plain, tmp_path / "data.npz", max_drop=1, trials=2, correction=False, plan=of_arrays)
    assert again.given_plan_used_these_data is None
    assert again.verified_on.endswith("of data that the search for the given plan may have used")


def test_a_plan_that_is_no_better_changes_the_answer_in_nothing_but_what_was_tried():
    plan = oa.Plan(default=oa.Scheme.entropy_coded(0.01, estimator="affine"))
    one, other = (tuned(model(LINEAR), plan=each, decoding="hard") for each in (None, plan))
    assert one.best.cells == other.best.cells
    assert one.plan == other.plan


def test_a_plan_makes_three_wholes_in_the_channel_and_with_the_code_of_the_search():
    scheme = oa.Scheme.entropy_coded(2.0, rounding="alone", code="soft")
    found = considered(oa.Plan(default=scheme), ["a", "b"], PCM, "hard")
    roundings = [each.rounding for each in found["a"]]
    assert roundings == ["alone", "together", "alone"]
    assert {each.code for each in found["b"]} == {"bch"}
    assert {each.channel for each in found["b"]} == {oa.Scheme(channel=PCM).channel}
    assert considered(None, ["a"], PCM, "hard") == {"a": ()}


def test_a_plan_without_an_entropy_coder_is_tried_without_a_code_too():
    found = considered(oa.Plan(default=oa.Scheme.int4(code="bch")), ["a"], PCM, "hard")
    assert [each.code for each in found["a"]] == ["bch"] * 3 + ["none"] * 3
    assert [each.rounding for each in found["a"][:3]] == [each.rounding for each in found["a"][3:]]
    at_none = considered(oa.Plan(default=oa.Scheme.int4()), ["a"], PCM, "none")
    assert set(at_none["a"]) <= set(found["a"])


@pytest.mark.parametrize("decoding", DECODING)
def test_a_plan_that_cannot_be_the_best_is_tried_all_the_same(decoding):
    """It is good for its network, and errors of weights do not show that."""
    weight = drawn(64, 96)
    needed = considered(oa.Plan(default=oa.Scheme.int4()), ["w"], PCM, decoding)["w"]
    schemes = tuple(dict.fromkeys((*members(PCM, decoding), *needed)))
    found = {each.scheme for each in candidates(weight, schemes, needed=needed)}
    assert set(needed) <= found


@pytest.mark.parametrize(
    ("plan", "decoding", "message"),
    [
        (
            oa.Plan(default=None),
            "hard",
            "the plan leaves 'w' digital, and tune stores it: exclude it",
        ),
        (
            oa.Plan(tensors={"v": oa.Scheme()}),
            "hard",
            "the plan names 'v', which the selection of tensors does",
        ),
        (oa.Scheme.int4(granularity="model"), "hard", "the plan has granularity 'model' for 'w'"),
        (oa.Scheme.paper("sign", side_channel="pcm"), "hard", "the plan has a side_channel for 'w'"),
        (oa.Scheme.entropy_coded(1.0), "table", "the plan's decoding takes 'hard' for 'w', and decoding is 'table'"),
        (oa.Scheme.paper("raw", estimator="unbiased"), "none", "the plan's decoding takes 'table' for 'w'"),
    ],
)
def test_plans_that_cannot_be_tried_are_refused(plan, decoding, message):
    with pytest.raises(OptionError, match=message):
        tuned(model(LINEAR), plan=plan, decoding=decoding)
