"""The search, and `tune` as users call it, on the packaged LeNet."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from onnx_analog import _tune, demo
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.coding.codes import best_code, repeated
from onnx_analog.coding.streams import DECODING
from onnx_analog.errors import DataError, ModelError, OptionError
from onnx_analog.graph import files
from onnx_analog.run.data import Dataset
from onnx_analog.tuning import candidates, measures, search
from onnx_analog.tuning.answers import Answer, Goal
from onnx_analog.tuning.measures import cells_of_numbers
from onnx_analog.tuning.parts import parts_of
from tests.models import f32, model, proto
from tests.run.nets import LINEAR, rows

FEW = {"trials": 2, "samples": 500}


def small(**given):
    """Return what tune finds for one tensor of 512 weights, whose classes nothing has trained."""
    return oa.tune(model(LINEAR), rows(400, labels=False), **{"trials": 2, **given})


@pytest.fixture(scope="module")
def tuned():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "STEPS", candidates.STEPS[::3])  # all of them take three times as long
        return oa.tune(demo.MODEL, demo.IMAGES, max_drop=5, **FEW)


def data(count):
    return Dataset({"x": f32(np.arange(count))}, np.arange(count))


@pytest.mark.parametrize("count", [170, 1000, 5000])
def test_each_sample_has_one_part_and_none_two(count):
    parts = parts_of(data(count), 0)
    numbers = np.concatenate([part.labels for part in parts])
    assert sorted(numbers) == list(range(count))
    assert [len(part) for part in parts[:2]] == [min(128, count // 10), min(256, count // 10)]
    assert abs(len(parts.search) - len(parts.verification)) <= 1
    again, other = parts_of(data(count), 0), parts_of(data(count), 1)
    assert np.array_equal(parts.search.labels, again.search.labels)
    assert not np.array_equal(parts.search.labels, other.search.labels)


def test_too_few_samples_are_refused():
    with pytest.raises(DataError, match="the data hold 100 samples; to search and to verify takes at least 158"):
        parts_of(data(100), 0)
    parts_of(data(158), 0)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({}, "none of max_drop, min_sqnr and budget is given: give one of them"),
        ({"max_drop": 1.0, "budget": 1.0}, "max_drop and budget exclude each other: give one of them"),
    ],
)
def test_one_goal_is_needed(goal, message):
    with pytest.raises(OptionError, match=f"^{message}$"):
        Goal(**goal)


def test_the_plan_costs_what_is_said_and_loses_no_more(tuned):
    counted = tuned.protected.manifest.totals
    code = 0.978  # bits in a cell of pcm, with BCH
    cells = counted.honest_cells + 16 * tuned.corrected / code
    assert tuned.best.cells == pytest.approx(cells / tuned.weights, rel=0.02)  # blocks are whole in the manifest
    assert tuned.holds is not False
    assert tuned.best.cells <= tuned.rival.cells
    assert tuned.best.cells < 1.5  # the paper's mapping takes three


def test_the_answer_is_the_same_for_the_same_seed():
    found = small(max_drop=20)
    assert found.to_dict() == small(max_drop=20).to_dict() != small(max_drop=20, seed=1).to_dict()


def test_the_answer_is_json_and_has_a_row_for_each_tensor(tuned):
    found = json.loads(json.dumps(tuned.to_dict()))
    assert [row["tensor"] for row in found["tensors"]] == list(tuned.plan.tensors)
    assert sum(row["weights"] for row in found["tensors"]) == tuned.weights
    total = sum(row["weights"] * row["cells_per_weight"] for row in found["tensors"])
    assert total == pytest.approx(tuned.best.allocation.cells)
    assert oa.Plan.from_dict(found["plan"]) == tuned.plan
    assert "cells per weight" in repr(tuned)
    other = replace(tuned, rival=replace(tuned.best, plan=oa.Plan()))
    assert "best digital rival" in other._repr_html_()


def test_a_budget_is_kept():
    tuned = small(budget=4.5, correction=False)
    assert 4 < tuned.best.cells <= 4.5
    assert tuned.holds is None
    assert tuned.corrected == 0
    assert tuned.verdict == "within the budget of 4.5 cells per weight"
    with pytest.raises(OptionError, match=r"^budget is 0.1 cells per weight; the cheapest plan takes [0-9.]+$"):
        small(budget=0.1)


@pytest.mark.parametrize("channel", ["pcm", "pcm-partial-reset", GaussianNoise(sigma=0.02)])
def test_no_level_of_decoding_takes_more_cells_than_one_before(channel):
    """Before it is verified: the first look is at what the search found to be the cheapest."""
    found = [small(max_drop=20, decoding=each, channel=channel, trials=5) for each in DECODING]
    cells = [each.best.looks[0].cells for each in found]
    assert cells == sorted(cells, reverse=True)
    assert cells[0] > cells[-1]


def test_a_level_has_the_analog_cells_of_those_before():
    """Cells without noise to speak of hold any weight, and a code only as many bits as there are symbols."""
    quiet = GaussianNoise(sigma=1e-7, low=-1, high=1)
    found = [small(min_sqnr=60, decoding=each, channel=quiet, correction=False).best for each in DECODING]
    assert [each.digital for each in found] == [False] * 4
    assert [each.cells for each in found] == [found[0].cells] * 4


def test_the_model_that_was_verified_can_be_written_and_read(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(proto(LINEAR), path)
    tuned = oa.tune(path, rows(400, labels=False), budget=4.5, trials=2)
    tuned.protected.save(tmp_path / "tuned.onnx")
    for stored in (tuned.protected, tmp_path / "tuned.onnx"):
        assert oa.evaluate(stored, rows(50, labels=False), trials=1, reference=path).values
    assert oa.account(tmp_path / "tuned.onnx").totals == tuned.protected.manifest.totals
    manifest = oa.account(tmp_path / "tuned.onnx").to_dict()
    assert manifest["source_sha256"] == files.file_digest(path)


def test_cells_are_counted_as_the_paper_does_where_that_is_asked_for():
    tuned = small(budget=4, counting="paper")
    totals = tuned.protected.manifest.totals
    assert tuned.best.cells == pytest.approx((totals.all_in_cells + 8 * tuned.corrected) / tuned.weights)
    assert tuned.to_dict()["counting"] == "paper"


def test_what_analog_cells_would_lose_stands_beside_a_digital_plan(tuned):
    assert tuned.best.digital
    assert tuned.limit is None  # errors are compensated
    assert tuned.analog is None or tuned.analog.cells <= tuned.best.cells
    within = small(budget=4.5)
    if within.analog is not None:
        assert within.analog.cells <= within.best.cells
        assert not within.analog.digital
        assert "with analog cells" in within._repr_html_()


def test_a_first_look_at_few_samples_leads_to_a_plan_that_holds_as_well(monkeypatch):
    """What is verified, and how, is the same; slow looks are fewer."""
    slow = []
    point = search.Search._point
    monkeypatch.setattr(search.Search, "_point", lambda self, each: slow.append(each) or point(self, each))
    found, count = small(max_drop=20), len(slow)
    monkeypatch.setattr(measures, "_QUICK", 40)  # of 160 samples to search with
    quick = small(max_drop=20)
    assert len(slow) - count < count
    assert (quick.best.verified.samples, quick.holds) == (found.best.verified.samples, found.holds)
    assert quick.to_dict() == small(max_drop=20).to_dict()


def test_what_cannot_be_met_says_the_best_that_can():
    tuned = small(max_drop=1e-6, decoding="none")
    assert tuned.holds is not True
    assert "samples change their class" in tuned.verdict


def test_wrong_use_is_refused(tmp_path):
    protected = oa.protect(demo.MODEL)
    for given, error, message in (
        ({"model": protected, "max_drop": 1}, ModelError, "the model is protected already: tune the original"),
        ({"max_drop": 0}, OptionError, "max_drop is 0"),
        ({"max_drop": 1, "decoding": "ldpc"}, OptionError, "decoding is 'ldpc'"),
        ({"max_drop": 1, "metric": "sqnr_db"}, OptionError, "the metric is sqnr_db: give min_sqnr"),
    ):
        with pytest.raises(error, match=message):
            oa.tune(**{"model": demo.MODEL, "data": demo.IMAGES, **FEW, **given})


def test_numbers_of_a_correction_take_cells_as_other_streams_do():
    quiet = GaussianNoise(sigma=0.3, low=-1, high=1)
    assert cells_of_numbers(0, quiet, "hard") == 0
    assert cells_of_numbers(10, quiet, "hard") == 160 / best_code(quiet, "bch").bits_per_cell
    assert cells_of_numbers(10, quiet, "soft") == 160 / best_code(quiet, "soft").bits_per_cell
    for decoding in ("none", "table"):
        assert cells_of_numbers(10, quiet, decoding) == 160 * repeated(quiet, 1e-9 / 4096).copies
    pair = StatisticalPcm(differential=True)
    assert cells_of_numbers(10, pair, "hard") == 2 * 160 / best_code(pair, "bch").bits_per_cell


def test_nothing_that_chooses_or_mends_has_seen_the_samples_that_verify(monkeypatch):
    """Each sample has a number in its first input, so that parts of the data can be told apart."""
    seen = {}
    x = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    x[:, 0] = np.arange(400) / 400

    def numbers(data):
        return set(data.inputs["x"][:, 0].tolist())

    real, found = measures.Experiment, measures.input_moments

    def experiment(plain, data, **options):
        seen.setdefault("data", []).append(numbers(data))
        if "correct" in options:
            seen.setdefault("mending", []).append(numbers(options["correct"]))
        return real(plain, data, **options)

    def moments(plain, data, **options):
        seen.setdefault("mending", []).append(numbers(data))
        return found(plain, data, **options)

    monkeypatch.setattr(measures, "Experiment", experiment)
    monkeypatch.setattr(measures, "input_moments", moments)
    oa.tune(model(LINEAR), {"x": x}, max_drop=20, trials=2)
    *others, verification = seen["data"]
    assert len(others) == 2
    assert len(seen["mending"]) == 3
    for part in (*others, *seen["mending"]):
        assert not part & verification


def test_all_looks_together_are_as_sure_as_asked(monkeypatch):
    """Both plans are verified on the same samples, up to three times each: the chances of error add up."""
    seen = []
    monkeypatch.setattr(search, "_holds", lambda drop, limit, confidence: bool(seen.append(confidence)))
    small(max_drop=20, confidence=0.9)
    assert 1 <= len(seen) <= 6
    assert sum(1 - each for each in set(seen)) * 6 == pytest.approx(0.1)


def test_each_look_is_kept(monkeypatch):
    """Three looks: the first two do not hold or cannot tell, and each of the next has more cells."""
    verdicts = iter([False, None, True, True])
    monkeypatch.setattr(search, "_holds", lambda *_: next(verdicts))
    found = small(max_drop=99, decoding="none").best
    assert [look.holds for look in found.looks] == [False, None, True]
    cells = [look.cells for look in found.looks]
    assert cells == sorted(set(cells))
    assert found.looks[-1].drop == found.verified
    assert (found.cells, found.holds, found.last) == (cells[-1], True, False)


def test_a_budget_has_one_look_without_a_verdict():
    (look,) = small(budget=4.5).best.looks
    assert look.holds is None


def answer(cells, holds, searched=0.0):
    point = SimpleNamespace(drop=SimpleNamespace(mean=searched))
    return SimpleNamespace(cells=cells, holds=holds, curve=(point,))


def test_the_rival_is_chosen_where_it_holds_and_the_other_does_not_or_takes_more():
    goal = Goal(max_drop=0.01)
    assert _tune._better(answer(2, True), answer(3, True), goal)
    assert _tune._better(answer(3, True), answer(2, False), goal)
    assert _tune._better(answer(3, None), answer(2, False), goal)
    assert not _tune._better(answer(1, False), answer(2, None), goal)
    assert not _tune._better(answer(3, True), answer(2, True), goal)
    for holds in (False, None):
        assert not _tune._better(answer(1, holds), answer(2, True), goal)
        assert not _tune._better(answer(1, holds), answer(2, holds), goal)


def test_within_a_budget_the_samples_of_the_search_choose():
    goal = Goal(budget=2.0)
    assert _tune._better(answer(2, None, 0.01), answer(1, None, 0.02), goal)
    assert not _tune._better(answer(1, None, 0.02), answer(2, None, 0.01), goal)


@pytest.mark.parametrize("first", [9.0, 1.0])
def test_the_better_of_the_two_is_the_answer(first, monkeypatch):
    """Answers that take 9 or 1 and then 3 cells, all of which hold."""
    found = small(budget=4.5).best
    answers = iter([replace(found, cells=cells, holds=True) for cells in (first, 3.0)])
    monkeypatch.setattr(search.Search, "_answer", lambda *_: next(answers))
    monkeypatch.setattr(Answer, "digital", False)
    chosen = small(max_drop=20)
    assert (chosen.best.cells, chosen.rival.cells) == (min(first, 3.0), 3.0)


def test_a_budget_that_no_digital_plan_keeps_has_a_plan_with_analog_cells():
    """Without a code, a digital index takes more cells than one analog cell for each weight."""
    tuned = small(budget=1.5, decoding="none", correction=False)
    assert tuned.rival is None
    assert not tuned.best.digital
    assert tuned.best.cells <= 1.5
    assert tuned.to_dict()["rival"] is None
    assert "best digital rival" not in tuned._repr_html_()


def test_the_last_look_is_at_a_plan_that_the_search_shows_to_hold():
    """Of places with 1.0, 1.1, ... cells, that after 6 % more comes second.

    Then comes what was tried and is sure, or expected to lose a quarter; nothing beyond the last place.
    """
    steps = SimpleNamespace(confidence_of_look=0.99, cells_along=lambda path: path.cells)
    steps = SimpleNamespace(confidence_of_look=0.99, _of=steps)
    bounds = [SimpleNamespace(upper=lambda _, bound=bound: bound) for bound in (0.1, 0.9)]
    sure, doubtful = (SimpleNamespace(drop=drop) for drop in bounds)
    curve = {0: sure, 3: doubtful, 5: sure, 7: sure}

    class Path(list):
        pass

    def following(place, looks, limit, quarter):
        path = Path(range(10))
        path.cells = [1 + place / 10 for place in path]
        path.losses = np.array([8.0] * quarter + [2.0] * (10 - quarter))
        return search.Search._next(steps, path, place, Goal(max_drop=limit), curve, looks)

    assert following(1, 1, 0.2, quarter=9) == 2
    assert following(2, 2, 0.2, quarter=9) == 5
    assert following(2, 2, 0.2, quarter=4) == 4
    assert following(2, 2, 0.2, quarter=3) == 3
    assert following(2, 2, 0.05, quarter=7) == 7
    assert following(8, 2, 0.05, quarter=10) == 9


@pytest.mark.parametrize(("decoding", "count"), [("hard", 1), ("none", 3)])
def test_what_may_be_read_otherwise_is_read_in_as_many_trials_as_asked(decoding, count):
    answer = small(budget=4.5, decoding=decoding, trials=3, correction=False).best
    assert answer.verified.trials == count
    assert {point.drop.trials for point in answer.curve} == {count}
