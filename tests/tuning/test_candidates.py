"""Candidates cost what the manifest counts, and err as trials do."""

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.compensation import InputMoments
from onnx_analog.coding.streams import DECODING
from onnx_analog.errors import OptionError
from onnx_analog.tuning import bounds
from onnx_analog.tuning.allocation import hull
from onnx_analog.tuning.candidates import candidates, least_cells, members
from tests.models import LOUD, QUIET, f32, holding

PCM = channels.resolve("pcm")
CELLS = {"pcm": PCM, "loud": LOUD, "quiet": QUIET}
RNG = np.random.default_rng(0)
WEIGHT = f32(RNG.normal(size=(64, 96)) * RNG.gamma(2, size=(64, 1)))
PRUNED_BUT_SMALL = np.where(RNG.random(WEIGHT.shape) < 0.6, WEIGHT, 0).astype(np.float32)
PRUNED = np.where(np.abs(WEIGHT) > 1.5, WEIGHT, 0).astype(np.float32)


@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
def test_candidates_cost_what_the_manifest_counts(decoding, weight):
    """But for whole cells, and for blocks: those of a code are shortened once for each line of a manifest."""
    schemes = members(PCM, decoding)[::7]
    found = candidates(weight, schemes)
    assert found
    check_cells(weight, found, decoding)


@pytest.mark.parametrize("classes", [3, 15])
@pytest.mark.parametrize("coded", [{}, {"entropy": "context", "code": "bch"}], ids=["raw", "coded"])
def test_what_is_read_as_0_is_pruned_only_where_there_are_no_cells(coded, classes):
    """Also if schemes that differ in nothing else follow one another."""
    steps = oa.Scheme(
        sign="level", partition="uniform", classes=classes, relative_step=2.0, cells=(0,), channel=PCM,
        **{"code": "none", **coded},
    )  # fmt: skip
    check_cells(PRUNED_BUT_SMALL, candidates(PRUNED_BUT_SMALL, [steps, steps.changed(cells=(1,))]), "hard")


def check_cells(weight, found, decoding):
    for candidate in found:
        counted = oa.protect(holding(w=weight), candidate.scheme).manifest
        lines = counted.honest
        slack = sum(1 if line.code != "bch" else 100 for line in lines)
        assert abs(counted.totals.honest_cells - candidate.cells) <= slack
        assert DECODING.index(counted.totals.decoding) <= DECODING.index(decoding)


@pytest.mark.parametrize("compensated", [False, True])
@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
def test_candidates_cost_what_the_paper_counts(decoding, weight, compensated):
    schemes = members(PCM, decoding, compensated=compensated)[::9]
    for candidate in candidates(weight, schemes, counting="paper"):
        assert candidate.cells == oa.protect(holding(w=weight), candidate.scheme).manifest.totals.all_in_cells


def test_compensated_candidates_do_less_harm_where_inputs_are_correlated():
    """Four hidden numbers determine the 96 inputs but for some noise: most of the error can be cancelled."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4000, 4)) @ rng.normal(size=(4, 96)) + 0.05 * rng.normal(size=(4000, 96))
    second = f32(x.T @ x / 4000)[None]
    known = InputMoments(second=second, held_out=second, axes=(0, 1), samples=4000)
    schemes = [oa.Scheme.entropy_coded(step, channel=PCM, estimator="affine") for step in (0.5, 1.0, 2.0)]
    schemes.append(oa.Scheme.refined(1.0, channel=PCM))
    *plain, refined = candidates(WEIGHT, schemes)
    *better, same = candidates(WEIGHT, schemes, known)
    assert all(ours.error < theirs.error / 3 for ours, theirs in zip(better, plain, strict=True))
    assert same == refined  # which has cells


def test_the_error_of_a_compensated_candidate_is_in_the_unit_of_the_weights():
    """Of white inputs of any power, nothing is compensated, and the error is that of the weights."""
    scheme = oa.Scheme.entropy_coded(1.0, channel=PCM, estimator="affine")
    (plain,) = candidates(WEIGHT, [scheme])
    for power in (0.01, 5.0):
        white = power * np.eye(96, dtype=np.float32)[None]
        known = InputMoments(second=white, held_out=white, axes=(0, 1), samples=10**12)
        (found,) = candidates(WEIGHT, [scheme], known)
        assert found.error == pytest.approx(plain.error, rel=1e-5)


def test_wrong_bits_count_in_the_error_of_a_compensated_candidate():
    scheme = oa.Scheme.int4(channel=LOUD, code="none")
    white = np.eye(96, dtype=np.float32)[None]
    known = InputMoments(second=white, held_out=white, axes=(0, 1), samples=10**12)
    (found,), (plain,) = candidates(WEIGHT, [scheme], known), candidates(WEIGHT, [scheme])
    (coded,) = candidates(WEIGHT, [scheme.changed(channel=QUIET)], known)
    assert found.error == pytest.approx(plain.error, rel=0.05)
    assert found.error > 2 * coded.error


@pytest.mark.parametrize("decoding", DECODING)
def test_there_are_rivals_and_others(decoding):
    kinds = {scheme.analog for scheme in members(PCM, decoding)}
    assert kinds == {"none", "all"}


# ------------------------------------------------------------------------------------------- levels of decoding


@pytest.mark.parametrize("channel", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("compensated", [False, True])
def test_each_level_has_the_candidates_of_those_before(channel, compensated):
    none, table, hard, soft = (set(members(channel, each, compensated=compensated)) for each in DECODING)
    assert none < table < hard
    assert table < soft
    densest = max(("bch", "soft"), key=lambda name: best_code(channel, name).bits_per_cell)
    assert soft - table == {each.changed(code=densest) for each in hard - table}


def correlated(inputs):
    """Return moments of inputs that a few hidden numbers determine but for some noise."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4000, 4)) @ rng.normal(size=(4, inputs)) + 0.3 * rng.normal(size=(4000, inputs))
    second = f32(x.T @ x / 4000)[None]
    return InputMoments(second=second, held_out=second, axes=(0, 1), samples=4000)


def corners(found, analog):
    """Return cells and errors of the hull of the candidates with analog cells, or of those without."""
    kept = hull([each for each in found if each.scheme.analog == analog], 1.0)
    return [(each.candidate.cells, each.candidate.error) for each in kept]


@pytest.fixture(params=[False, True], ids=["plain", "compensated"])
def known(request):
    return correlated(96) if request.param else None


WEIGHTS = {
    "dense": WEIGHT,
    "pruned": PRUNED,
    "uniform": f32(RNG.uniform(-1, 1, size=(64, 96))),
    "of two sizes": f32(np.where(RNG.random((64, 96)) < 0.02, 8, 1) * RNG.normal(size=(64, 96))),
}


@pytest.mark.parametrize("channel", [PCM, QUIET], ids=["pcm", "quiet"])
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
def test_what_is_left_out_is_not_among_the_best(channel, weight, known, monkeypatch):
    schemes = members(channel, "hard", compensated=known is not None)
    few = candidates(weight, schemes, known)
    monkeypatch.setattr(bounds.Found, "has_better", lambda *_: False)
    every = candidates(weight, schemes, known)
    assert len(few) < 0.7 * len(every)
    for analog in ("none", "all"):
        assert corners(few, analog) == corners(every, analog)


ODD = {
    "one large": f32(np.append(RNG.normal(size=999) * 0.01, 5.0).reshape(25, 40)),
    "constant": np.full((10, 10), 0.3, np.float32),
    "five": f32(RNG.normal(size=(1, 5))),
    "one": np.full((1, 1), -2.0, np.float32),
}


@pytest.mark.parametrize("decoding", ["table", "hard"])
@pytest.mark.parametrize("channel", [PCM, GaussianNoise(sigma=0.3)], ids=["pcm", "loud"])
@pytest.mark.parametrize("weight", ODD.values(), ids=ODD)
def test_of_odd_tensors_none_of_the_best_is_left_out(channel, weight, decoding, monkeypatch):
    schemes = members(channel, decoding)
    few = candidates(weight, schemes)
    monkeypatch.setattr(bounds.Found, "has_better", lambda *_: False)
    every = candidates(weight, schemes)
    for analog in ("none", "all"):
        assert corners(few, analog) == corners(every, analog)


def test_that_of_the_best_some_were_left_out_would_be_seen(monkeypatch):
    """With bounds that are far too high."""
    schemes = members(PCM, "table")
    best = corners(candidates(WEIGHT, schemes), "all")
    monkeypatch.setattr(bounds.Found, "_least_error", lambda *_: 1.0)
    assert corners(candidates(WEIGHT, schemes), "all") != best


@pytest.mark.parametrize("counting", ["memory", "paper"])
@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
def test_the_least_cells_of_a_raw_index_are_what_it_takes_if_nothing_is_pruned(weight, counting):
    for found in candidates(weight, members(PCM, "table"), counting=counting):
        least = least_cells(weight, found.scheme, counting)
        assert least <= found.cells
        if weight is WEIGHT or found.scheme.analog == "all":
            assert least == found.cells


@pytest.mark.parametrize("channel", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
def test_no_level_takes_more_cells_than_one_before_for_the_same_error(channel, weight, known):
    """By any price: the hull of a level lies nowhere above that of a level before."""
    prices = np.geomspace(1e-9, 1e-3, 25)
    before = np.full(prices.size, np.inf)
    for decoding in DECODING:
        found = candidates(weight, members(channel, decoding, compensated=known is not None), known)
        cells, errors = np.array([(each.cells, each.error) for each in found]).T
        costs = (errors + np.multiply.outer(prices, cells)).min(axis=1)
        assert (costs <= before * (1 + 1e-12)).all()
        before = costs


# ---------------------------------------------------------------------------------------------------- odd cases


def test_what_cannot_store_a_tensor_is_no_candidate():
    huge = f32([[1e-38, 3e38], [1, 2]])
    assert len(candidates(huge, members(PCM, "none"))) < len(members(PCM, "none"))


def test_an_unknown_decoding_is_refused():
    with pytest.raises(OptionError, match="decoding is 'ldpc'; it must be one of none, table, hard, soft"):
        members(PCM, "ldpc")
