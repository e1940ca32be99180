"""The cheapest point that loses no more than a limit."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnx_analog as oa
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.run.statistics import interval
from onnx_analog.study import choosing
from onnx_analog.study.grid import GridPoint
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.sweeps import Point
from onnx_analog.within import within
from tests.cli.test_report import point
from tests.models import model


def losing(cost: int, ends: tuple[float, float] | None, *, original: float = 0.9, metric: str = "top1") -> Point:
    """Return a point of this cost, in hundreds of cells, whose loss has these ends, in percentage points."""
    values = (original,) if ends is None else (original - sum(ends) / 200,)
    made = replace(point(analog=100 * cost, values=values, original=original, metric=metric), ci95=None)
    return made if ends is None else replace(made, ci95=(original - ends[1] / 100, original - ends[0] / 100))


def test_the_cheapest_is_chosen_by_the_end_of_its_interval_and_not_by_its_mean():
    points = [losing(1, (0.1, 1.5)), losing(2, (3.0, 4.0)), losing(3, (0.5, 0.9)), losing(4, (0.0, 0.1))]
    (answer,) = within(points, 1.0)
    assert choosing.loss_of(points[0]) < 0.01  # its mean is within the limit
    assert answer.holds is True
    assert answer.point is points[2]
    assert [id(one) for one in answer.undecided] == [id(points[0])]
    assert str(answer).startswith(
        "the cheapest that loses at most 1 percentage point is sign in 1 cell (0.70 lost in 1 trial, 95 %"
    )
    assert (
        "; 1 cheaper point stayed within the limit on average, which is not sure yet: sign in 1 cell (0.80 lost in 1 "
        "trial, 95 % interval 0.10 to 1.50"
    ) in str(answer)


def test_a_bare_mean_would_be_another_answer():
    points = [losing(1, (0.1, 1.5)), losing(3, (0.5, 0.9))]
    by_mean = min((one for one in points if choosing.loss_of(one) <= 0.01), key=lambda one: one.cost)
    assert within(points, 1.0)[0].point is not by_mean


def test_it_is_said_where_none_holds_and_where_it_cannot_be_told():
    (none,) = within([losing(1, (3.0, 4.0)), losing(2, (1.5, 2.5))], 1.0)
    assert (none.holds, none.point, none.undecided) == (False, None, ())
    assert str(none).startswith(
        "no point loses at most 1 percentage point; the smallest loss is that of sign in 1 cell (2.00 lost"
    )
    (open_,) = within([losing(1, (3.0, 4.0)), losing(2, (0.5, 2.5)), losing(3, None)], 2.0)
    assert (open_.holds, open_.point, len(open_.undecided)) == (None, None, 2)
    assert str(open_).startswith("not known: no point surely loses at most 2 percentage points. 2 points stayed within")
    assert "the limit on average, which is not sure yet; the cheapest is sign in 1 cell (1.50 lost" in str(open_)
    assert str(open_).endswith(". Run more trials")
    (empty,) = within([replace(losing(1, None), evaluation=replace(losing(1, None).evaluation, values=()))], 2.0)
    assert (empty.holds, "no trials" in str(empty)) == (None, True)


def test_a_plan_that_is_called_none_is_not_taken_for_no_point():
    base = losing(3, (0.5, 0.9))
    named = replace(base, setting=GridPoint.of(Plan(default=None, tensors={"w": Scheme()}), name="none"))
    assert str(within([named], 1.0)[0]).startswith(
        "the cheapest that loses at most 1 percentage point is plan 'none' ("
    )


def tried(*losses: float, original: float = 0.99, cost: int = 1) -> Point:
    """Return a point whose trials lose so many percentage points."""
    values = tuple(original - loss / 100 for loss in losses)
    made = point(analog=100 * cost, values=values, original=original)
    return replace(made, ci95=made.evaluation.ci95)


def test_what_lost_far_too_much_in_two_trials_is_ruled_out_however_they_scatter():
    """Student's interval of two trials that lost 35 and 45 points begins below 0."""
    lost = tried(35, 45)
    assert choosing.loss_ends(lost)[0] < 0.02
    assert choosing.keeps(lost, 0.02) is False
    assert choosing.keeps(lost, 0.30) is None  # 0.36·0.46 / 0.31² < 40
    (answer,) = within([lost, tried(0.1, 0.2, 0.15, cost=2)], 2.0)
    assert (answer.holds, answer.undecided) == (True, ())


@pytest.mark.parametrize("off", [39.9, 40.1])
def test_a_single_trial_rules_out_what_markov_s_inequality_does(off):
    """With an original at 100 % and a limit of 1 point, a trial that is off by 40 times the limit has a chance 1/40."""
    assert choosing.keeps(tried(off, original=1.0), 0.01) is (False if off > 40 else None)


def test_the_wrong_no_is_as_rare_as_it_says_for_the_worst_law():
    """Errors are 0, or 40 times the mean that is allowed with a chance of 1/40: the most that Markov's bound admits."""
    rng, wrong, runs = np.random.default_rng(5), 0, 4000
    for values in 1.0 - 0.4 * (rng.random((runs, 2)) < 1 / 40):
        both = point(values=tuple(values), original=1.0)
        wrong += choosing.keeps(replace(both, ci95=None), 0.01) is False
    assert wrong / runs <= 0.025


def test_a_metric_without_a_best_value_is_judged_by_its_interval_alone():
    def decibels(*values: float) -> Point:
        made = point(values=values, original=30.0, metric="mine")
        evaluation = replace(made.evaluation, higher_is_better=True)
        return replace(made, evaluation=evaluation, ci95=evaluation.ci95)

    assert choosing.keeps(decibels(-900.0, -500.0), 1.0) is None
    errors = point(values=(700.0, 900.0), original=5.0, metric="mse")  # never below 0
    assert choosing.keeps(replace(errors, ci95=errors.evaluation.ci95), 1.0) is False


def test_what_was_seen_is_said_of_points_on_both_sides_of_the_limit():
    (answer,) = within([tried(3, 9), tried(0.5, 1.5, cost=2), tried(1, cost=3)], 2.0)
    assert "1 point exceeded the limit on average, which is not sure yet: sign in 1 cell (6.00 lost in 2" in str(answer)
    assert "2 points stayed within the limit on average" in str(answer)
    assert "may" not in str(answer)
    assert answer.to_dict()["undecided"][0]["trials"] == 2


PLAIN, LOOKED = Stopping(trials=10), Stopping(trials=10, precision=0.001, max_trials=300)  # at 95 and at 99.17 %


def spread(count: int, stopping: Stopping) -> Point:
    """Return a point whose trials lose 1.0 on average, with a standard deviation of 0.8; no value is the best."""
    even = np.linspace(-1, 1, count)
    made = tried(*(1.0 + 0.8 * even / np.std(even, ddof=1)))
    evaluation = replace(made.evaluation, metric="mine", share=False, higher_is_better=True)
    ends = stopping.interval(evaluation.values, bounds=evaluation.bounds)
    return replace(made, evaluation=evaluation, ci95=ends, confidence=stopping.confidence)


@pytest.mark.parametrize(
    ("stopping", "count", "limit", "known"),
    [
        (PLAIN, 10, 1.3, 30),
        (PLAIN, 10, 1.4, 18),
        (PLAIN, 10, 1.5, 13),
        (PLAIN, 10, 0.6, 18),
        (LOOKED, 10, 1.3, 54),
        (LOOKED, 10, 1.4, 32),
        (LOOKED, 20, 1.4, 32),  # where an interval at 95 % decides already
        (LOOKED, 10, 1.5, 22),
        (LOOKED, 10, 0.6, 32),
    ],
)
def test_so_many_trials_decide_and_one_less_does_not_by_the_interval_in_use(stopping, count, limit, known):
    needed = choosing.trials_needed(spread(count, stopping), limit / 100)
    assert needed == known
    assert choosing.keeps(spread(needed - 1, stopping), limit / 100) is None
    assert choosing.keeps(spread(needed, stopping), limit / 100) is (limit > 1)


@pytest.mark.parametrize(("stopping", "enough"), [(PLAIN, 6), (LOOKED, 8)])  # 2·2⁻⁶ < 5 %, 2·2⁻⁸ < 5/6 %
def test_as_many_trials_of_one_value_decide_as_the_confidence_asks_for(stopping, enough):
    def alike(count: int) -> Point:
        return replace(tried(*[1.0] * count), confidence=stopping.confidence)

    assert choosing.trials_needed(alike(2), 0.02) == enough
    assert [choosing.keeps(alike(count), 0.02) for count in (enough - 1, enough)] == [None, True]


def test_values_that_are_far_too_bad_decide_before_their_interval_does():
    """By Markov's inequality after 6 trials, as 6·log(√(0.36·0.99)/0.31) > log 40; by Student's interval after 9."""
    one = tried(35, 98)
    assert choosing.trials_needed(one, 0.30) == 6
    assert [choosing.keeps(tried(*[35, 98] * pairs), 0.30) for pairs in (2, 3)] == [None, False]
    unbounded = replace(one, evaluation=replace(one.evaluation, metric="mine", share=False))
    assert choosing.trials_needed(unbounded, 0.30) == 9


def test_what_is_said_of_trials_is_rounded_up_to_two_digits():
    (answer,) = within([tried(0.9, 1.0, 1.5, 1.2)], 1.18)
    (entry,) = answer.to_dict()["undecided"]
    assert entry["trials_needed"] > 100
    assert entry["trials_needed"] % 10
    said = -(-entry["trials_needed"] // 10) * 10
    assert f"; about {said:,} trials in all would decide" in str(answer)


def test_the_page_explains_each_number_that_stands_behind_a_point():
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    rows = page.partition("| number | meaning |\n|---|---|\n")[2].partition("\n\n")[0].split("\n")
    (answer,) = within([tried(0.9, 1.0, 1.5, 1.2)], 1.18)
    said, numbers = str(answer), r"[\d.,]*\d"
    end = 0
    for row in rows:
        form = "N".join(map(re.escape, re.split(numbers, row.split(" | ")[0].removeprefix("| ")))).replace("N", numbers)
        found = re.search(form, said[end:])
        assert found, (row, said[end:])
        end += found.end()
    assert said[end:] == "). Run more trials"


def test_a_limit_of_nothing_is_kept_by_what_loses_nothing():
    for values, kept in (((1.0,), None), ((1.0,) * 6, True), ((1.0, 0.5), False), ((0.5,), False)):
        assert choosing.keeps(tried(*(100 - 100 * value for value in values), original=1.0), 0.0) is kept


def test_a_sweep_tells_each_point_the_confidence_of_its_interval():
    for more in ({}, {"precision": 0.001, "max_trials": 30}):
        for one in oa.sweep(model(NET), (X, Y), **{**SETTINGS, **more}).points:
            values = one.evaluation.values
            assert one.confidence == Stopping(trials=4, **more).confidence
            assert one.ci95 == interval(values, one.confidence, bounds=(0, 1))


@given(st.lists(st.integers(-10, 900), min_size=2, max_size=6), st.floats(0.1, 50))
def test_as_many_trials_as_are_needed_do_decide(losses, limit):
    """The same losses, repeated about as often: Student's quantile falls, and the spread is theirs."""
    one = tried(*(loss / 10 for loss in losses), original=0.95)
    needed = choosing.trials_needed(one, limit / 100)
    if choosing.keeps(one, limit / 100) is not None or needed is None or len(set(losses)) == 1:
        return
    assert needed > len(losses)
    more = tried(*(loss / 10 for loss in losses * math.ceil(2 * needed / len(losses))), original=0.95)
    assert choosing.keeps(more, limit / 100) is not None


def test_the_number_of_trials_that_decide_is_unknown_where_nothing_shows_it():
    assert choosing.trials_needed(tried(1.0), 0.02) is None  # one trial
    assert choosing.trials_needed(tried(1.0, 3.0, original=1.0), 0.02) is None  # at the limit
    assert choosing.trials_needed(tried(1.0, 1.0), 0.02) == 6  # alike


def test_an_end_at_the_limit_keeps_it_whatever_rounding_does():
    for lost in (1, 2, 3, 7):
        at_limit = losing(1, (0.0, lost), original=0.98)
        assert at_limit.evaluation.original - at_limit.ci95[0] != lost / 100  # floats: the case that matters
        assert choosing.keeps(at_limit, lost / 100) is True
    assert choosing.keeps(losing(1, (0.0, 1.01)), 0.01) is None


def test_lower_values_may_be_better():
    def worse(cost: int, ends: tuple[float, float]) -> Point:
        made = point(analog=100 * cost, values=(sum(ends) / 2,), original=5.0, metric="mse")
        return replace(made, ci95=ends)

    points = [worse(1, (6.0, 7.0)), worse(2, (5.1, 5.4)), worse(3, (4.0, 4.2))]
    (answer,) = within(points, 0.5)
    assert answer.point is points[1]
    assert "makes mean squared error worse by at most 0.5" in str(answer)
    assert "worse by 0.25 in 1 trial, 95 % interval 0.1 to 0.4" in str(answer)


ENDS = st.tuples(st.floats(-5, 20), st.floats(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))
POINTS = st.lists(st.tuples(st.integers(1, 50), st.none() | ENDS), min_size=1, max_size=8).map(
    lambda rows: [losing(*row) for row in rows]
)


@given(POINTS, st.floats(0.01, 10))
def test_what_is_named_keeps_the_limit_and_nothing_cheaper_does(points, limit):
    (answer,) = within(points, limit)
    answers = {id(one): choosing.keeps(one, limit / 100) for one in points}
    if answer.point is None:
        assert True not in answers.values()
        assert answer.holds is (None if None in answers.values() else False)
        assert len(answer.undecided) == list(answers.values()).count(None)
    else:
        assert answers[id(answer.point)] is True
        cheaper = [one for one in points if one.honest_cost < answer.point.honest_cost]
        assert not any(answers[id(one)] for one in cheaper)
        assert {id(one) for one in answer.undecided} >= {id(one) for one in cheaper if answers[id(one)] is None}


@given(POINTS, st.floats(0.01, 5), st.floats(0.01, 5))
def test_a_wider_limit_is_never_dearer(points, limit, more):
    (narrow,), (wide,) = within(points, limit), within(points, limit + more)
    if narrow.point is not None:
        assert wide.point.honest_cost <= narrow.point.honest_cost


def test_each_model_and_channel_has_an_answer():
    points = [losing(1, (0.0, 0.1)), losing(1, (5.0, 6.0))]
    points[1] = replace(points[1], model="other")
    first, second = within(points, 1.0)
    assert (first.where, first.holds, second.where, second.holds) == ("net", True, "other", False)
    assert str(second).startswith("other: no point")


# ------------------------------------------------------------------------------------------------------ sweeps

NET = "net (float[n, 40] x) => (float[n, 5] y) <float[40, 5] w = random> { y = MatMul(x, w) }"
X = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 5, 60)
SETTINGS = {"channel": "gaussian:sigma=0.3", "cells": [1, 5], "strategy": "sign", "trials": 4, "engine": "serial"}
SETTINGS |= {"selection": oa.Selection(min_size=1)}


def error(outputs, *, labels, clean):
    """Return a number without a direction."""
    return float(np.mean(outputs[0].argmax(axis=1) != labels))


def test_a_sweep_answers_and_its_result_answers_for_any_limit():
    swept = oa.sweep(model(NET), (X, Y), max_drop=100, **SETTINGS)
    (answer,) = swept.within()
    assert answer.point is swept.points[0]
    body = json.loads(json.dumps(swept.to_dict()))
    assert body["within"] == [json.loads(json.dumps(answer.to_dict()))]
    assert body["within"][0]["point"]["lost"] == pytest.approx(100 * answer.point.evaluation.drop)
    assert str(swept).endswith(str(answer))
    assert "within" not in oa.sweep(model(NET), (X, Y), **SETTINGS).to_dict()
    assert swept.within(0.001)[0].holds is not True or math.isclose(answer.point.evaluation.drop, 0)
    with pytest.raises(OptionError, match="max_drop is 0"):
        swept.within(0)


def test_a_metric_without_a_loss_is_refused_before_the_first_trial(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OptionError, match="sqnr_db compares with the outputs of the original"):
        oa.sweep(model(NET), X, metric="sqnr_db", max_drop=1, out=out, **SETTINGS)
    with pytest.raises(OptionError, match="'error' does not say which values are better"):
        oa.sweep(model(NET), (X, Y), metric=error, max_drop=1, out=out, **SETTINGS)
    assert not out.exists()
    with pytest.raises(OptionError, match="'error' does not say which values are better"):
        oa.sweep(model(NET), (X, Y), metric=error, **SETTINGS).within(1)


def test_agreement_has_a_loss_too():
    swept = oa.sweep(model(NET), X, max_drop=100, **SETTINGS)
    assert swept.points[0].evaluation.metric == "agreement"
    assert swept.within()[0].holds is True


def test_one_trial_tells_all_of_a_point_without_noise():
    settings = {**SETTINGS, "cells": None, "strategy": [], "trials": 1, "channel": None}
    swept = oa.sweep(model(NET), (X, Y), max_drop=100, plan=oa.Scheme.int8(), **settings)
    assert swept.points[0].alike
    (answer,) = swept.within()
    assert answer.holds is True
    assert "lost in every trial" in str(answer)
    noisy = oa.sweep(model(NET), (X, Y), max_drop=100, **{**SETTINGS, "trials": 1})
    assert not noisy.points[0].alike
    assert noisy.within()[0].holds is None  # one trial with noise tells nothing


def test_a_function_is_told_that_lower_is_better():
    """So the same points are judged as they are by the share that is right, of which higher is better."""
    limit = 100.0
    errors = oa.sweep(model(NET), (X, Y), metric=error, lower_is_better=True, max_drop=0.9, **SETTINGS)
    right = oa.sweep(model(NET), (X, Y), metric="top1", max_drop=90, **SETTINGS)
    (one,), (other,) = errors.within(), right.within()
    assert one.point.setting == other.point.setting
    assert choosing.loss_of(one.point) == pytest.approx(choosing.loss_of(other.point))
    assert errors.points[0].evaluation.higher_is_better is False
    assert limit * choosing.loss_of(one.point) < 90
