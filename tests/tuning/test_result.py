"""What `tune` found, in words, tables and JSON: each case follows from one search of a small network."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import tuned_plot
from onnx_analog.cli.tuning_tables import tables_of
from onnx_analog.coding.assumptions import SOFT_CODE
from onnx_analog.coding.streams import DECODING
from onnx_analog.errors import DataError
from onnx_analog.tuning import candidates
from onnx_analog.tuning.answers import Goal, Look
from onnx_analog.tuning.parts import fewest, parts_of
from tests.models import model
from tests.packages import needs
from tests.run.nets import LINEAR, answered, rows


def searched(labels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "STEPS", candidates.STEPS[::3])
        return oa.tune(model(LINEAR), answered(400) if labels else rows(400), max_drop=20, trials=2)


@pytest.fixture(scope="module")
def tuned():
    return searched(labels=True)


@pytest.fixture(scope="module")
def unlabelled():
    return searched(labels=False)


def undecided(tuned, *, needed, limit=0.01, **drop):
    """Return an answer that holds for 1 point or does not: 0.4 points are lost in 1,000 samples, 0.2 before."""
    verified = replace(tuned.best.verified, mean=0.004, lost=0.01, of_samples=0.004, of_trials=0.0, samples=1000)
    verified = replace(verified, **drop)
    best = replace(tuned.best, holds=None, needed=needed, verified=verified)
    return replace(tuned, best=best, goal=Goal(max_drop=limit))


def with_most_cells(tuned, cells, **drop):
    """Return an answer whose most expensive point takes some cells."""
    *others, most = tuned.best.curve
    most = replace(most, cells=cells, drop=replace(most.drop, **drop))
    return replace(tuned, best=replace(tuned.best, curve=(*others, most)))


def text_of(table):
    return [[str(cell) for cell in column.cells] for column in table.columns], str(table.caption)


# ------------------------------------------------------------------------------------------------------ words


def test_a_goal_that_holds_says_with_which_confidence(tuned):
    held = replace(tuned, best=replace(tuned.best, holds=True))
    assert held.verdict == "at most 20 points are lost, with 95 % confidence"
    one = replace(held, goal=Goal(max_drop=0.01), confidence=0.999)
    assert one.verdict == "at most 1 point is lost, with 99.9 % confidence"
    assert not held.undecided


def test_a_goal_that_does_not_hold_says_of_which_plans(tuned):
    lost = replace(tuned, best=replace(tuned.best, holds=False))
    assert lost.verdict == "more than 20 points are lost in every plan that was verified"


def test_an_undecided_goal_says_how_many_samples_would_do(tuned):
    answer = with_most_cells(undecided(tuned, needed=2345), cells=0.0)
    assert answer.undecided
    assert answer.samples_needed == fewest(2345) == 3126 + 128 + 256
    assert answer.verdict == (
        "these data do not decide whether more than 1 point is lost: about 3,600 samples in all would be enough, "
        "if they lose as much"
    )


@pytest.mark.parametrize(("needed", "this"), [(20_000, ", and about 28,000 for this one"), (None, "")])
def test_where_a_plan_with_more_cells_needs_fewer_samples_it_says_so(tuned, needed, this):
    """Where none of n is lost, the bound of 97.5 % is below 1 point from ln(0.025)/ln(0.99) = 368 samples on."""
    nothing = {"mean": 0.0, "lost": 0.0, "of_samples": 0.0, "of_trials": 0.0, "samples": 100}
    answer = with_most_cells(undecided(tuned, needed=needed, samples=200), cells=99.0, **nothing)
    assert answer.samples_for_more_cells == fewest(368)
    assert answer.verdict == (
        "these data do not decide whether more than 1 point is lost: about 620 samples in all would be enough for a "
        f"plan with more cells{this}"
    )


def test_where_a_plan_with_more_cells_would_hold_now_a_budget_is_the_way(tuned):
    """Another plan, with more cells, might do with as many samples."""
    nothing = {"mean": 0.0, "lost": 0.0, "of_samples": 0.0, "of_trials": 0.0, "samples": 1000}
    for needed, this in ((2345, "about 3,600 samples in all would be enough, or "), (None, "")):
        answer = with_most_cells(undecided(tuned, needed=needed), cells=99.0, **nothing)
        assert answer.verdict == (
            f"these data do not decide whether more than 1 point is lost: {this}a plan with more cells (ask for a "
            "smaller limit)"
        )


def test_where_no_number_of_samples_would_do_the_mean_says_why(tuned):
    answer = undecided(with_most_cells(tuned, cells=0.0), needed=None, mean=0.0125)
    assert answer.verdict == (
        "these data do not decide whether more than 1 point is lost: the mean loss is 1.25 points. Give more "
        "samples, or allow a larger loss"
    )


def test_the_samples_in_all_are_the_fewest_of_which_so_many_verify():
    def verifying(count):
        return len(parts_of(rows(count), 0).verification)

    for count in (100, 640, 1000, 3001):
        assert verifying(fewest(count)) >= count
        assert verifying(fewest(count) - 1) < count


def test_without_labels_it_is_said_that_classes_change(unlabelled):
    held = replace(unlabelled, best=replace(unlabelled.best, holds=True))
    assert (held.metric, held.original) == ("agreement", None)
    assert held.verdict == "at most 20 % of the samples change their class, with 95 % confidence"
    assert "% of the samples change their class (" in repr(held)
    answer, *others = tables_of(held)
    assert "classes changed, %" in [column.header for column in answer.columns]
    assert "Classes are compared with those of the original, not with labels" in answer.caption
    for table in others[:2]:
        assert "points lost" not in [column.header for column in table.columns]


# ------------------------------------------------------------------------------------------------------ tables


def test_the_best_plan_and_a_rival_that_is_the_same_have_one_row(tuned):
    same = replace(tuned, rival=tuned.best, analog=None)
    (names, *_), _ = text_of(next(tables_of(same)))
    assert names == ["best plan (digital)"] if same.best.digital else ["best plan"]
    other = next(choice for choice in tuned.plan.schemes)
    apart = replace(tuned.best, plan=oa.Plan(default=other, tensors={}))
    (names, *_), _ = text_of(next(tables_of(replace(same, rival=apart))))
    assert names[1:] == ["best digital rival"]


def test_every_look_is_a_row_with_the_bounds_that_decide(tuned):
    drop = replace(tuned.best.verified, mean=0.004, lost=0.01, of_samples=0.003, of_trials=0.0, samples=2000)
    verdicts = {2.0: False, 2.1: None, 2.2: True}
    counted = tuned.best.counted
    looks = tuple(
        Look(cells=cells, drop=drop, holds=holds, digital=True, counted=counted) for cells, holds in verdicts.items()
    )
    shown = replace(tuned, best=replace(tuned.best, looks=looks), rival=tuned.best, analog=None)
    _, table, *_ = tables_of(shown)
    (names, cells, lost, low, high, goal), caption = text_of(table)
    assert names == ["plan (digital)"] * 3  # none of them is the answer
    assert cells == ["2.000", "2.100", "2.200"]
    assert lost == ["0.40"] * 3
    assert low == [f"{100 * drop.lower(1 - 0.05 / 2):.2f}"] * 3
    assert high == [f"{100 * drop.upper(1 - 0.05 / 2):.2f}"] * 3
    assert goal == ["does not hold", "not decided", "holds"]
    assert "97.5 % confidence" in caption
    assert "all together have 95 % confidence" in caption
    assert [look["holds"] for look in shown.to_dict()["best"]["looks"]] == [False, None, True]


def test_the_bounds_that_decide_are_the_ends_of_the_interval_that_is_printed(tuned):
    """Of 95 % confidence: half of the risk is that of each end, and of each of the two kinds of plans."""
    drop = tuned.best.verified
    assert tuned.confidence_of_look == pytest.approx(1 - 0.05 / 2)
    assert drop.interval() == pytest.approx(
        (drop.lower(tuned.confidence_of_look), drop.upper(tuned.confidence_of_look))
    )


def test_a_budget_has_no_table_of_looks():
    tuned = oa.tune(model(LINEAR), rows(400, labels=False), budget=4.5, trials=2)
    headings = [table.columns[0].header for table in tables_of(tuned)]
    assert headings == ["agreement, pcm", "tried: cells per weight", "tensor"]


def test_the_cells_of_the_tensors_and_of_the_correction_sum_to_the_answer(tuned):
    rows_ = tuned.rows()
    total = sum(row["cells"] for row in rows_) + tuned.correction_cells
    assert total / tuned.weights == pytest.approx(tuned.best.cells)
    assert tuned.correction_cells > 0
    *_, table = tables_of(tuned)
    (names, _, weights, cells, per_weight, share), _ = text_of(table)
    assert names == [*tuned.plan.tensors, "correction", "total"]
    shown = [int(each.replace(",", "")) for each in cells]
    assert shown[-1] == sum(shown[:-1]) == round(total)  # rounded so that they add up
    exact = [*(row["cells"] for row in rows_), tuned.correction_cells]
    assert shown[:-1] == pytest.approx(exact, abs=1)
    assert shown[-2] == round(tuned.correction_cells)  # as the cost table of a report has it
    assert (weights[-1], per_weight[-1], share[-1]) == (f"{tuned.weights:,}", f"{tuned.best.cells:.3f}", "100.0")
    assert sum(float(each) for each in share[:-2]) == pytest.approx(100, abs=0.1 * len(rows_))


def test_without_a_correction_the_total_is_that_of_the_tensors():
    tuned = oa.tune(model(LINEAR), rows(400, labels=False), budget=4.5, trials=2, correction=False)
    assert tuned.correction_cells == 0
    *_, table = tables_of(tuned)
    assert text_of(table)[0][0] == [*tuned.plan.tensors, "total"]


def test_what_is_predicted_stands_beside_what_was_found(tuned):
    table = list(tables_of(tuned))[2]
    (_, predicted, found, *_), caption = text_of(table)
    assert predicted == [f"{point.loss:.2g}" for point in tuned.best.curve]
    assert found == [f"{point.drop.divergence:.2g}" for point in tuned.best.curve]
    assert "Kullback-Leibler divergence of the classes, in nats" in caption
    caption = text_of(list(tables_of(replace(tuned, classes=False)))[2])[1]
    assert "the squared error of the outputs over their power" in caption


# ------------------------------------------------------------------------------------------------------ the plot


def drawn(tuned):
    """Return the panel of the plot, its texts and its legend, as they are drawn."""
    from matplotlib import pyplot

    write = tuned_plot.plot_tuned(tuned)
    figure = pyplot.gcf()
    figure.canvas.draw()
    axis = figure.axes[0]
    texts = [text.get_text() for text in axis.texts]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    return axis, texts, legend, write


def labels(axis):
    """Return the labels of the horizontal axis that are within it."""
    low, high = axis.get_xlim()
    ticks = [tick for tick in axis.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [tick.label1.get_text() for tick in ticks]


@needs("matplotlib")
def test_the_plot_names_the_answer_and_the_goal(tuned, tmp_path):
    alone = replace(tuned, rival=tuned.best, analog=None)
    _, texts, legend, write = drawn(alone)
    lost = 100 * tuned.best.verified.mean
    assert texts == []  # which would cover marks
    answer = f"best plan (digital): {tuned.best.cells:.3g} cells, {lost:.2f} points"
    assert set(legend) - {"also verified"} == {"goal: at most 20 points", "tried", answer}
    write(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@needs("matplotlib")
def test_the_plot_shows_the_rival_and_the_looks_that_were_not_enough(tuned, tmp_path):
    looks = (replace(tuned.best.looks[-1], cells=0.9 * tuned.best.cells, holds=None), *tuned.best.looks)
    other = replace(tuned.best, plan=oa.Plan(default=None, tensors={}), cells=1.3 * tuned.best.cells)
    shown = replace(tuned, best=replace(tuned.best, looks=looks), rival=other, analog=None)
    _, texts, legend, write = drawn(shown)
    assert texts == []
    assert [text.partition(": ")[0] for text in legend] == [
        "goal", "tried", "also verified", "best plan (digital)", "best digital rival"
    ]  # fmt: skip
    write(tmp_path / "plot.png")


@needs("matplotlib")
def test_without_labels_the_plot_is_of_classes_that_change(unlabelled, tmp_path):
    axis, _, legend, write = drawn(unlabelled)
    assert axis.get_ylabel() == "% of the samples that change their class"
    assert "goal: at most 20 %" in legend
    write(tmp_path / "plot.png")


@needs("matplotlib")
@pytest.mark.parametrize("factor", [1.02, 1.5, 4, 30, 1000])
def test_an_axis_of_any_length_has_labels(tuned, factor, tmp_path):
    point = tuned.best.curve[-1]
    curve = tuple(replace(point, cells=tuned.best.cells * each) for each in (1.0, factor))
    axis, _, _, write = drawn(replace(tuned, best=replace(tuned.best, curve=curve), rival=tuned.best, analog=None))
    assert 2 <= len(labels(axis)) <= 8
    write(tmp_path / "plot.png")


@needs("matplotlib")
def test_losses_far_above_the_goal_leave_room_for_those_near_it(tuned, tmp_path):
    """Of 90 points lost and a goal of 1, the goal is not at the bottom tenth of the plot."""
    most = replace(tuned.best.curve[0], drop=replace(tuned.best.curve[0].drop, mean=0.9))
    best = replace(tuned.best, curve=(most, *tuned.best.curve[1:]))
    axis, *_, write = drawn(replace(tuned, best=best, rival=best, analog=None, goal=Goal(max_drop=0.01)))
    (_, bottom), (_, goal), (_, top) = (axis.transData.transform((1, y)) for y in (0.0, 1.0, 90.0))
    assert goal - bottom > 0.15 * (top - bottom)
    write(tmp_path / "plot.png")


# ------------------------------------------------------------------------------------------------------ JSON


def test_units_of_json_are_percentage_points_as_those_of_the_argument(tuned):
    body = json.loads(json.dumps(tuned.to_dict()))
    assert (body["max_points_lost"], body["budget_cells_per_weight"]) == (pytest.approx(20), None)
    best, drop = body["best"], tuned.best.verified
    assert best["points_lost"] == 100 * drop.mean
    assert best["points_lost_ci95"] == [100 * end for end in drop.interval()]
    last = next(look for look in best["looks"] if look["points_lost"] == best["points_lost"])
    assert last["at_most"] == 100 * drop.upper(tuned.confidence_of_look)
    assert last["at_least"] == 100 * drop.lower(tuned.confidence_of_look)
    (row,) = body["tensors"]
    assert row["predicted_divergence"] == pytest.approx(row["sensitivity"] * row["equivalent_noise"])
    assert best["predicted_divergence"] == pytest.approx(row["predicted_divergence"])
    assert body["divergence_in"] == "nats_per_sample"
    assert body["against_rival"] == pytest.approx(tuned.rival.cells / tuned.best.cells)
    assert (body["comparison"], body["assumptions"]) == (tuned.comparison, [])


# ------------------------------------------------------------------------------------------- rivals and assumptions


def compared(tuned, holds=True, goal=None, **rival):
    """Return an answer beside a rival that takes 1.25 times as many cells."""
    other = replace(tuned.best, plan=oa.Plan(default=None, tensors={}), cells=1.25 * tuned.best.cells, holds=holds)
    shown = replace(tuned, rival=replace(other, **rival), analog=None)
    return shown if goal is None else replace(shown, goal=goal)


def test_the_answer_says_how_it_compares_with_the_best_digital_rival(tuned):
    own = replace(tuned, rival=tuned.best, analog=tuned.best)  # any answer
    assert own.comparison == "the best plan is itself digital, so it has no digital rival"
    alone = replace(own, analog=None)  # where that is why there is no row of it
    assert alone.comparison == f"{own.comparison}, and no plan with analog cells in every tensor takes as few cells"
    assert "with analog cells" not in alone.answers
    held = compared(tuned)
    assert held.comparison == "the best digital rival takes 1.25 times as many cells"
    assert held.to_dict()["against_rival"] == pytest.approx(1.25)
    none = replace(tuned, rival=None)
    assert (none.comparison, none.to_dict()["against_rival"]) == ("there is no digital rival", None)
    within = Goal(budget=3.0)
    assert replace(none, goal=within).comparison == "no digital plan is within the budget"
    lost = compared(tuned, goal=within)
    assert lost.comparison == f"the best digital rival: {lost.lost(lost.rival.verified)}"


NOT_SHOWN = {None: "is not shown to keep the goal with these samples", False: "misses the goal"}


@pytest.mark.parametrize(("holds", "why"), NOT_SHOWN.items())
def test_a_rival_that_is_not_shown_to_hold_is_not_called_the_best(tuned, holds, why):
    """A cheaper digital plan may hold: verification stopped before it."""
    looks = tuple(replace(look, digital=False) for look in tuned.best.looks)
    found = compared(replace(tuned, best=replace(tuned.best, looks=looks)), holds, cells=8.087, looks=looks[:1])
    assert found.comparison == (
        f"a digital plan of 8.087 cells per weight {why}, and no other digital plan is shown to keep it"
    )
    assert found.to_dict()["against_rival"] is None
    (*_, name), verified = found.answers, list(found.looks())
    assert name == f"digital rival, {'not decided' if holds is None else 'does not hold'}"
    assert verified[-1][0] == "digital rival"


def test_a_digital_plan_that_held_on_the_way_to_the_answer_is_named_beside_a_rival_that_did_not(tuned):
    one = tuned.best.looks[0]
    looks = tuple(replace(one, cells=cells, digital=cells > 3, holds=True) for cells in (9.0, 5.0, 2.0))
    found = compared(replace(tuned, best=replace(tuned.best, looks=looks)), None)
    assert found.comparison.endswith("with these samples, and one of 5.000 is shown to keep it")


@needs("matplotlib")
@needs("jinja2")
@pytest.mark.parametrize("holds", NOT_SHOWN)
def test_nothing_that_is_shown_calls_a_rival_or_a_plan_the_best_if_it_is_not_shown_to_hold(tuned, holds, tmp_path):
    found = compared(replace(tuned, best=replace(tuned.best, holds=holds)), holds)
    for text in shown_everywhere(found, tmp_path):
        assert "best digital" not in text
        assert "best plan" not in text
        assert "cheapest plan" not in text
    assert not [text for text in drawn(found)[2] if "best" in text]
    _, table, *_ = tables_of(found)
    assert not [name for name in text_of(table)[0][0] if "best" in name]


def test_of_the_plans_that_were_verified_only_the_answer_is_called_the_best(tuned):
    looks = (replace(tuned.best.looks[0], cells=9.0), replace(tuned.best.looks[-1], cells=tuned.best.cells))
    looks = (looks[0], replace(looks[1], drop=tuned.best.verified), replace(looks[1], cells=0.1))
    shown = replace(tuned, best=replace(tuned.best, looks=looks, holds=True), rival=None)
    assert [name.removesuffix(" (digital)") for name, _ in shown.looks()] == ["plan", "best plan", "plan"]


def test_where_a_table_may_be_taken_and_the_plan_takes_none_it_says_so(tuned):
    needing_none = oa.Plan(default=None, tensors={"w": oa.Scheme.paper("raw")})
    needing_one = oa.Plan(default=None, tensors={"w": oa.Scheme.paper("raw", estimator="unbiased")})
    at_table = {
        plan: replace(tuned, decoding="table", best=replace(tuned.best, plan=plan))
        for plan in (needing_none, needing_one)
    }
    assert at_table[needing_none].most_decoding == "table; this plan needs no table"
    assert at_table[needing_one].most_decoding == "table"
    (*_, caption), other = (text_of(next(tables_of(each))) for each in at_table.values())
    assert "Decoding: at most table (tables of an estimator); this plan needs no table" in caption
    assert "needs no table" not in other[1]
    assert tuned.most_decoding == "hard"


def shown_everywhere(tuned, folder):
    """Return what the console, JSON, the object itself and the report say."""
    oa.report(tuned, folder / "report.html", force=True)
    page = (folder / "report.html").read_text(encoding="utf-8")
    _, caption = text_of(next(tables_of(tuned)))
    return [caption.lower(), json.dumps(tuned.to_dict()).lower(), tuned._repr_html_().lower(), page.lower()]


@needs("matplotlib")
@needs("jinja2")
def test_the_comparison_is_shown_wherever_the_answer_is(tuned, tmp_path):
    for each in (compared(tuned), replace(tuned, rival=tuned.best), replace(tuned, rival=None)):
        assert all(each.comparison in text for text in shown_everywhere(each, tmp_path))


@needs("matplotlib")
@needs("jinja2")
@pytest.mark.parametrize("decoding", DECODING)
def test_the_share_of_the_bound_that_soft_decoding_reaches_is_called_an_assumption_wherever_it_is_shown(
    decoding, tmp_path, monkeypatch
):
    monkeypatch.setattr(candidates, "STEPS", candidates.STEPS[::4])
    found = oa.tune(model(LINEAR), answered(400), max_drop=20, trials=2, decoding=decoding)
    assert (SOFT_CODE in found.assumptions) == (decoding == "soft")
    for text in shown_everywhere(found, tmp_path):
        assert ("soft-decision code with 95 %" in text and "assum" in text) == (decoding == "soft")
    assert ("assumed soft-decision code" in str(found)) == (decoding == "soft")
    title = drawn(found)[0].get_title()
    assert ("soft-decision code that is assumed" in title) == (decoding == "soft")


@pytest.mark.parametrize("goal", [{"max_drop": 20}, {"budget": 12.0}])
@pytest.mark.parametrize("decoding", DECODING)
@pytest.mark.parametrize("channel", ["pcm", "gaussian:sigma=0.02"])
def test_the_answer_is_never_behind_the_best_rival_of_its_decoding(channel, decoding, goal, monkeypatch):
    """Nor does its memory take more of a decoder than was allowed."""
    monkeypatch.setattr(candidates, "STEPS", candidates.STEPS[::4])
    found = oa.tune(model(LINEAR), answered(400), trials=2, channel=channel, decoding=decoding, **goal)
    assert DECODING.index(found.protected.manifest.totals.decoding) <= DECODING.index(decoding)
    if found.rival is None:
        assert "budget" in goal
        return
    assert found.rival.digital
    assert DECODING.index(oa.protect(model(LINEAR), found.rival.plan).manifest.totals.decoding) <= DECODING.index(
        decoding
    )
    if "budget" in goal:
        searched = [min(point.drop.mean for point in each.curve) for each in (found.best, found.rival)]
        assert searched[0] <= searched[1]
    else:
        assert found.holds or not found.rival.holds
        assert found.best.cells <= found.rival.cells or not found.rival.holds


def test_it_is_pickled_and_copied_with_its_model(tuned):
    for again in (pickle.loads(pickle.dumps(tuned)), copy.deepcopy(tuned)):
        assert again.to_dict() == tuned.to_dict()
        before, after = tuned.protected.decode(), again.protected.decode()
        assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("goal", [{"max_drop": 20}, {"budget": 1.0}])
def test_an_original_at_chance_has_nothing_to_lose_and_is_refused(goal):
    data = rows(400, labels=True)  # right for one in 32
    with pytest.raises(
        DataError, match=r"top1 without noise is \d\.\d+ %, no better than chance, so nothing can be lost"
    ):
        oa.tune(model(LINEAR), data, trials=2, **goal)
