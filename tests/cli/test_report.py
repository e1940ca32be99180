import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.stats
from matplotlib import pyplot
from PIL import Image
from rich.console import Console

import onnx_analog as oa
from onnx_analog import channels, plots
from onnx_analog import points as grouping
from onnx_analog.channels import Channel, GaussianNoise, TableChannel
from onnx_analog.channels.capacity import both
from onnx_analog.channels.fitting import Fit, fit
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.pairs_csv import read_columns
from onnx_analog.channels.pcm import pcm
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.cli import model_tables, report
from onnx_analog.cli.tables import Table
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.limit import Limit, TensorLimit
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import PRESETS, STRATEGIES, Paper, Preset, Scheme
from onnx_analog.graph.correction import Cost
from onnx_analog.graph.totals import Totals
from onnx_analog.graph.weights import Selection
from onnx_analog.html.contents import page_of
from onnx_analog.results import Swept
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.study.grid import GridPoint
from onnx_analog.study.sweeps import Point
from tests.models import QUIET, holding, made, model
from tests.printing import WIDTHS, assert_whole

DEFAULT, PAPER = PRESETS.values()
DPI = 150


def text(*things: Any) -> str:
    """Return what a terminal of 200 columns shows."""
    console = Console(record=True, width=200, file=io.StringIO(), markup=False)
    for thing in things:
        console.print(thing)
    return console.export_text()


def cells(shown: str, row: str) -> list[str]:
    """Return the cells of the line that starts with `row`."""
    (line,) = [line.strip() for line in shown.splitlines() if line.strip().startswith(f"{row} ")]
    return re.split(r"\s{2,}", line)[1:]


def columns(shown: str, heading: str, row: str) -> str:
    """Return what of a line stands under a heading, which is aligned to the right."""
    lines = shown.splitlines()
    (end,) = {line.index(heading) + len(heading) for line in lines if heading in line}
    (line,) = [line for line in lines if line.strip().startswith(f"{row} ")]
    return re.split(r"\s{2,}", line[:end])[-1] if line[:end].rstrip() == line[:end] else ""


def point(
    strategy="sign", cells=1, preset=DEFAULT, values=(0.5, 0.7), analog=1000, model="net", original=0.75, channel=QUIET,
    metric="top1", changes=None,
) -> Point:  # fmt: skip
    totals = Totals(
        original_weights=1000,
        stored_weights=800,
        analog_cells=analog * cells,
        side_cells=200,
        mask_cells=40,
        mask_bitmap_bits=1000,
        codebook_cells=10,
        honest_cells=analog * cells + 1000,
        decoding="hard",
    )
    evaluation = Evaluation(metric=metric, samples=50, original=original, values=values)
    large = cells * (20 if strategy == "redundancy" else 1)
    of_two = {"large_fraction": preset.large_fraction} if strategy in ("mapping", "redundancy") else {}
    of_two |= {"cells_large": large} if strategy == "redundancy" else {}
    paper = Paper(strategy=strategy, cells_small=cells, granularity=preset.granularity, **of_two)
    setting = GridPoint(
        model=0,
        plan=Plan(default=paper.scheme(channel=channel)),
        name=strategy,
        cells=cells,
        cells_large=large,
        preset=preset,
        channel=channel,
        changes=changes or {},
        selection=Selection(),
    )
    return Point(model=model, setting=setting, totals=totals, evaluation=evaluation, ci95=evaluation.ci95)


# ------------------------------------------------------------------------------------------ what a cell says


def test_a_cell_says_mean_half_its_interval_and_what_it_costs():
    # mean 0.6; half of the interval is t(0.975, 1) · s/√2 = 12.7062 · 0.1; (1,000 + 200 + 40 + 10)/1,000 cells
    assert report.cell_text(replace(point(), ci95=(-0.670620, 1.870620))) == "60.00 ± 127.06 [1.25 / 2.00]"


def test_a_line_of_integers_has_a_look_too():
    of_integers = point()
    of_integers = replace(of_integers, setting=replace(of_integers.setting, name="int4"))
    looks = plots.styles([point(), of_integers])
    assert len(looks) == 2
    assert all({"marker", "linestyle"} <= set(look) for look in looks.values())


def test_an_interval_that_ends_at_a_bound_is_told_by_its_ends():
    assert report.cell_text(replace(point(), ci95=(0.2, 1.0))) == "60.00 ± 40.00 [1.25 / 2.00]"
    assert report.cell_text(replace(point(), ci95=(0.0, 1.0))) == "60.00 (0.00 to 100.00) [1.25 / 2.00]"
    (table,) = report.points_tables([replace(point(), ci95=(0.0, 1.0))])
    assert "(ends of the 95 % interval)" in text(table)
    assert "±" not in text(table)


def test_a_table_tells_the_value_without_noise():
    (table,) = report.points_tables([point(original=0.982)])
    assert "accuracy in %, original 98.20" in " ".join(text(table).split())
    stored = [replace(point(), evaluation=replace(point().evaluation, stored=value)) for value in (0.7, 0.72)]
    (table,) = report.points_tables([stored[0], replace(stored[1], setting=point(cells=2).setting)])
    assert "original 75.00, stored 70.00 to 72.00" in " ".join(text(table).split())
    (table,) = report.points_tables([point(original=None, metric="sqnr_db")])
    assert "accuracy" not in text(table)
    assert ", original" not in text(table)


@pytest.mark.parametrize(
    ("values", "said"),
    [((0.6,), "One trial has no interval"), ((0.6, 0.6), "Points whose scores are all equal have no interval")],
)
def test_where_there_is_no_interval_the_table_says_why(values, said):
    (table,) = report.points_tables([replace(point(values=values), ci95=None)])
    shown = " ".join(text(table).split())
    assert said in shown
    assert not any(sign in shown for sign in "±◆")


def test_one_trial_has_no_interval():
    assert report.cell_text(point(values=(0.625,), cells=3)) == "62.50 [3.25 / 4.00]"


@pytest.mark.parametrize(
    ("preset", "title"),
    [
        (DEFAULT, "granularity tensor, 5.00 % large (default)"),
        (PAPER, "granularity model, 0.25 % large (as in the paper)"),
    ],
)
def test_a_preset_is_called_by_what_it_is(preset, title):
    assert grouping.preset_title(point("mapping", preset=preset)) == title
    assert grouping.preset_title(point("sign", preset=preset), point("redundancy", preset=preset)) == title


@pytest.mark.parametrize("strategy", ["raw", "sign"])
def test_where_no_weights_are_large_no_share_is_shown(strategy):
    small = point(strategy)
    assert grouping.preset_title(small) == "granularity tensor (default)"
    assert "large" not in report.choice_text(small)
    assert "large" not in str(small)
    assert ", 5.00 % large, " in str(point("mapping"))
    assert small.row()["large_fraction"] is None
    assert point("mapping").row()["large_fraction"] == 0.05
    by_bounds = replace(small, setting=replace(small.setting, plan=Plan(default=Paper(threshold=0.5).scheme())))
    assert by_bounds.row()["large_fraction"] is None
    by_value = replace(small, setting=replace(small.setting, plan=Plan(default=Scheme.int4())))
    assert by_value.row()["large_fraction"] is None


def test_a_preset_of_one_s_own_has_no_name():
    title = grouping.preset_title(point("mapping", preset=Preset(granularity="model", large_fraction=0.1)))
    assert title.startswith("granularity model, 10.00 % large")
    assert "()" not in title


# ----------------------------------------------------------------------------------------------------- points


def test_points_stand_by_strategy_and_cells():
    points = [point(name, c, values=(0.1 * c + place / 100,)) for place, name in enumerate(STRATEGIES) for c in (3, 1)]
    (table,) = report.points_tables(points)
    shown = text(table)
    assert "granularity tensor, 5.00 % large (default)" in shown
    assert shown.index("1 cell ") < shown.index("3 cells")
    for place, name in enumerate(STRATEGIES):
        assert cells(shown, name) == [f"{10 + place}.00 [1.25 / 2.00]", f"{30 + place}.00 [3.25 / 4.00]"]


def test_a_point_that_is_missing_leaves_its_place_empty():
    points = [point("raw", 1, values=(0.1,)), point("raw", 3, values=(0.2,)), point("sign", 3, values=(0.3,))]
    (table,) = report.points_tables(points)
    shown = text(table)
    assert columns(shown, "3 cells", "raw") == "20.00 [3.25 / 4.00]"
    assert columns(shown, "3 cells", "sign") == "30.00 [3.25 / 4.00]"
    assert columns(shown, "1 cell", "sign") != "30.00 [3.25 / 4.00]"


def test_a_point_says_the_interval_that_its_looks_leave():
    wide = replace(point(values=(0.5, 0.6, 0.7)), ci95=(0.4, 0.8))
    assert report.cell_text(wide) == "60.00 ± 20.00 [1.25 / 2.00]"


def test_what_is_no_share_is_shown_in_its_own_unit():
    decibels = point(values=(11.5, 12.5), metric="sqnr_db", original=None)
    assert report.cell_text(decibels) == "12.00 ± 6.35 [1.25 / 2.00]"  # t(0.975, 1)·s/√2 = 12.7062·0.5
    (table,) = report.points_tables([decibels])
    assert "output SQNR in dB" in text(table)
    assert report.cell_text(point(values=(0.5,), metric="mine")) == "0.50 [1.25 / 2.00]"
    assert report.cell_text(point(values=(0.5,), metric="agreement")) == "50.00 [1.25 / 2.00]"


def test_a_table_of_points_says_what_stands_in_brackets():
    (table,) = report.points_tables([point()])
    assert "in brackets, cells per original weight as the paper counts / as the memory allows" in " ".join(
        text(table).split()
    )


def test_without_trials_there_is_only_what_it_costs():
    (table,) = report.points_tables([point("raw", 3, values=()), point("sign", 3, values=())])
    assert cells(text(table), "raw") == ["no trial [3.25 / 4.00]"]
    assert "◆ no" not in text(table)


LOUD = GaussianNoise(sigma=0.3)


@pytest.mark.parametrize(
    ("models", "noises", "titles"),
    [
        (["net"], [QUIET], [""]),
        (["one", "two"], [QUIET], ["one, ", "two, "]),
        (["net"], [QUIET, LOUD], [f"channel {QUIET}, ", f"channel {LOUD}, "]),
        (
            ["one", "two"],
            [QUIET, LOUD],
            [f"{name}, channel {noise}, " for name in ("one", "two") for noise in (QUIET, LOUD)],
        ),
    ],
)
def test_models_and_channels_are_named_and_stand_apart_only_where_there_are_several(models, noises, titles):
    points = [
        point(strategy, 1, preset, values=(0.1 * place,), model=name, channel=noise)
        for place, name in enumerate(models)
        for noise in noises
        for preset in (DEFAULT, PAPER)
        for strategy in ("raw", "sign")
    ]
    expected = [
        f"{title}{grouping.preset_title(point(preset=preset))}" for title in titles for preset in (DEFAULT, PAPER)
    ]
    assert [table.title for table in report.points_tables(points)] == expected
    plots.plot_points(points)
    assert [" ".join(axis.get_title().split()) for axis in pyplot.gcf().axes] == [
        f"{title} original 75.00 %" for title in expected
    ]
    differences = [f"difference from raw: {title}" for title in expected]
    assert [table.title for table in report.differences_tables(points)] == differences


def test_tables_of_models_hold_their_own_points():
    points = [point("raw", 1, values=(0.1 * place,), model=name) for place, name in enumerate(("one", "two"))]
    first, second = (text(table) for table in report.points_tables(points))
    assert cells(first, "raw") == ["0.00 [1.25 / 2.00]"]
    assert cells(second, "raw") == ["10.00 [1.25 / 2.00]"]


def test_channels_that_are_called_alike_stand_apart():
    near = GaussianNoise(sigma=0.1000001)
    assert str(near) == str(QUIET)
    assert len(list(report.points_tables([point(), point(channel=near)]))) == 2


# -------------------------------------------------------------------------------------------------------- marks


def near(cells: int, mean: float, **choices: Any) -> Point:
    """Return a point whose interval is a point of 100 to each side."""
    return replace(point(cells=cells, values=(mean, mean), **choices), ci95=(mean - 0.01, mean + 0.01))


def test_what_is_better_than_all_that_is_cheaper_is_marked_in_its_panel():
    points = [near(c, v, strategy="raw", preset=p) for p in (DEFAULT, PAPER) for c, v in ((1, 0.3), (3, 0.2), (9, 0.9))]
    for table in report.points_tables(points):
        assert cells(text(table), "raw") == [
            "30.00 ± 1.00 [1.25 / 2.00]",
            "20.00 ± 1.00 [3.25 / 4.00]",
            "◆ 90.00 ± 1.00 [9.25 / 10.00]",
        ]
        assert "◆ better than every cheaper point; cells are compared" in " ".join(text(table).split())
    (table,) = report.points_tables([near(1, 0.50), near(3, 0.51)])
    shown = " ".join(text(table).split())
    assert "No point is better than every cheaper point; cells are compared as the memory allows" in shown
    assert "Better: intervals do not overlap" in shown


def test_nothing_is_said_of_marks_where_each_point_is_alone_in_its_decoding():
    alone = near(3, 0.51)
    alone = replace(alone, totals=replace(alone.totals, decoding="table"))
    (table,) = report.points_tables([near(1, 0.50), alone])
    assert "every cheaper point" not in " ".join(text(table).split())
    (table,) = report.points_tables([near(1, 0.50), near(2, 0.50), alone])
    assert "No point is better than every cheaper point with the same decoding" in " ".join(text(table).split())


@pytest.mark.parametrize("known", [True, False, None])
def test_marks_go_by_what_the_metric_says_is_better(monkeypatch, known):
    for module in (grouping, report):
        monkeypatch.setattr(module, "higher_is_better", lambda points: known)
    points = [near(1, 0.5, metric="mine"), near(3, 0.9, metric="mine"), near(9, 0.1, metric="mine")]
    points = [replace(one, ci95=(one.evaluation.mean - 0.1, one.evaluation.mean + 0.1)) for one in points]
    (table,) = report.points_tables(points)
    shown = " ".join(text(table).split())
    assert re.findall(r"◆ (\d\.\d+)", shown) == {True: ["0.90"], False: ["0.10"], None: []}[known]
    assert ("the metric does not say which values are better" in shown) is (known is None)
    plots.plot_points(points)
    assert [y for _, y in rings(pyplot.gcf().axes[0])] == {True: [0.9], False: [0.1], None: []}[known]


# -------------------------------------------------------------------------------------------------- differences


def test_differences_from_the_first_strategy_by_hand():
    points = [
        point("raw", 1, values=(0.10, 0.20, 0.30)),
        point("raw", 3, values=(0.50, 0.50, 0.50)),
        point("sign", 1, values=(0.15, 0.30, 0.45)),
        point("sign", 3, values=(0.50, 0.40, 0.30)),
    ]
    (table,) = report.differences_tables(points)
    strategy, count, above, between = (list(column.cells) for column in table.columns)
    assert table.title == "difference from raw: granularity tensor (default)"
    assert (strategy, count) == (["sign"] * 2, ["1", "3"])
    # 5, 10 and 15 points: 10 ± 4.302653·5/√3; and 0, -10 and -20: -10 ± 4.302653·10/√3
    assert above == ["+10.00", "-10.00"]
    assert between == ["-2.42 to +22.42", "-34.84 to +14.84"]
    assert "accuracy in percentage points; paired" in " ".join(text(table).split())


def test_each_strategy_is_compared_at_its_cells_and_in_its_panel():
    points = [
        point(name, c, preset, values=(base + more + c / 100,))
        for preset, base in ((DEFAULT, 0.1), (PAPER, 0.3))
        for name, more in (("sign", 0.0), ("mapping", 0.2), ("redundancy", 0.4))
        for c in (1, 3)
    ]
    tables = list(report.differences_tables(points))
    assert [table.title for table in tables] == [
        f"difference from sign: {grouping.preset_title(points[at])}" for at in (2, -1)
    ]
    for table in tables:
        strategy, count, above, between = (list(column.cells) for column in table.columns)
        assert strategy == ["mapping", "mapping", "redundancy", "redundancy"]
        assert count == ["1", "3"] * 2
        assert above == ["+20.00", "+20.00", "+40.00", "+40.00"]
        assert between == [""] * 4  # one trial has no interval


def test_differences_of_what_is_no_share_are_in_its_own_unit():
    points = [point(name, values=(value,), metric="sqnr_db") for name, value in (("raw", 10.0), ("sign", 12.5))]
    shown = text(*report.differences_tables(points))
    assert "+2.50" in shown
    assert "output SQNR in dB" in shown


def corrected(found: Point, without: tuple[float, ...] = (0.25, 0.35)) -> Point:
    """Return a point whose trials were corrected."""
    evaluation = replace(
        found.evaluation, corrected_by="256 samples", correction=Cost(20, 698), uncorrected_values=without
    )
    return replace(found, evaluation=evaluation)


def test_points_with_and_without_correction_by_hand():
    points = [point("sign", 1), corrected(point("sign", 3, values=(0.5, 0.7, 0.9)), (0.45, 0.6, 0.75))]
    (table,) = report.corrections_tables(points)
    assert table.title == "correction by 256 samples: granularity tensor (default)"
    found = [list(column.cells) for column in table.columns]
    # 5, 10 and 15 points: 10 ± 4.302653·5/√3
    assert found == [["sign"], ["3"], ["60.00"], ["70.00"], ["+10.00"], ["-2.42 to +22.42"], ["698"]]
    assert "paired: each trial is scored with and without" in " ".join(text(table).split())
    assert list(report.corrections_tables(points[:1])) == []


def test_an_evaluation_with_and_without_correction_by_hand():
    found = Evaluation(
        metric="top1", samples=100, stored=0.9, values=(0.7, 0.8), uncorrected_values=(0.5, 0.7),
        corrected_by="256 samples", correction=Cost(20, 698),
    )  # fmt: skip
    shown = text(report.evaluation_table(found))
    assert cells(shown, "with noise and correction, mean of 2 trials") == ["75.00 %"]
    assert cells(shown, "without correction, the same trials") == ["60.00 %"]
    assert cells(shown, "95 % interval without correction") == ["0.00 to 100.00 % (too few trials)"]  # 0.6 ± 12.7·0.1
    assert cells(shown, "change by the correction") == ["+15.00 points"]
    assert cells(shown, "95 % interval of the change") == [
        "-48.53 to +78.53 points (too few trials)"
    ]  # 0.15 ± 12.7062·0.05
    assert cells(shown, "numbers kept for the correction, 16 bits each") == ["698"]
    assert "Corrected: gain and shift of 20 layers, by 256 samples." in " ".join(shown.split())


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (Cost(2, 2), "Corrected: the gain of 2 tensors, by the law of the channel."),
        (Cost(0, 0), "Corrected: nothing, as no tensor loses gain by the law of the channel."),
    ],
)
def test_an_evaluation_says_what_the_law_of_the_channel_corrected(cost, said):
    found = Evaluation(
        metric="top1", samples=100, stored=0.9, values=(0.7, 0.8), uncorrected_values=(0.5, 0.7),
        corrected_by="the law of the channel", correction=cost,
    )  # fmt: skip
    assert said in " ".join(text(report.evaluation_table(found)).split())


@pytest.mark.parametrize(("original", "row"), [(0.95, ["+5.00 points"]), (None, None)])
def test_a_model_that_was_read_back_is_compared_with_its_original(original, row):
    """There are no trials, so the decrease is from the original to the model as it was read, and has no interval."""
    found = Evaluation(metric="top1", samples=100, original=original, stored=0.9, values=(), read_back="seed 0")
    shown = text(report.evaluation_table(found))
    assert (cells(shown, "decrease from the original") if "decrease" in shown else None) == row
    assert "interval" not in shown
    assert found.drop == (None if original is None else pytest.approx(0.05))


def test_one_strategy_has_nothing_to_be_compared_with():
    assert list(report.differences_tables([point("sign", 1), point("sign", 3)])) == []


def test_without_trials_no_difference_is_told():
    assert list(report.differences_tables([point("raw", values=()), point("sign", values=())])) == []


# -------------------------------------------------------------------------------------------------- evaluation


def test_an_evaluation_shows_all_its_numbers():
    found = Evaluation(
        metric="top1", samples=1234, original=0.95, stored=0.9, values=(0.5, 0.6, 0.7), sqnr_db=(10.0, 11.0, 15.0)
    )
    shown = text(report.evaluation_table(found))
    assert "top1 on 1,234 samples" in shown
    assert cells(shown, "original model") == ["95.00 %"]
    assert cells(shown, "stored model, without noise") == ["90.00 %"]
    assert cells(shown, "with noise, mean of 3 trials") == ["60.00 %"]
    assert cells(shown, "standard deviation over trials") == ["10.00 points"]
    # 0.6 ± 4.30265 · 0.1/√3
    assert cells(shown, "95 % interval of the mean") == ["35.16 to 84.84 %"]
    # 0.95 - 0.6, and the ends of the interval likewise
    assert cells(shown, "decrease from the original") == ["+35.00 points"]
    assert cells(shown, "95 % interval of the decrease") == ["+10.16 to +59.84 points"]
    assert cells(shown, "standard error of a test set of 1,234") == ["1.39 points"]  # √(0.6 · 0.4/1234)
    # noise of 10^-1, 10^-1.1 and 10^-1.5 of the power of the outputs: 0.0704 on average
    assert cells(shown, "output SQNR, of the mean noise over trials") == ["11.5 dB"]
    assert "in dB" not in shown
    assert "they leave out the error of a finite test set" in " ".join(shown.split())


def test_a_mean_of_decibels_is_said_to_be_one():
    found = Evaluation(metric="sqnr_db", samples=9, values=(10.0, 11.0, 15.0), sqnr_db=(10.0, 11.0, 15.0))
    shown = text(report.evaluation_table(found))
    assert cells(shown, "with noise, mean of 3 trials, each in dB") == ["12.0000"]
    assert cells(shown, "output SQNR, of the mean noise over trials") == ["11.5 dB"]
    points = [point(values=(10.0, 15.0), metric="sqnr_db", original=None)]
    for table in (report.evaluation_table(found), *report.points_tables(points)):
        assert "of the trials' ratios in dB; check and tune go by the ratio of the mean noise" in table.caption
    for result in (found, Swept(points=tuple(points))):
        assert "check and tune go by the ratio of the mean noise" in repr(page_of(result, None, "memory"))
    assert "('output SQNR, of the mean noise over trials', '11.5 dB')" in repr(page_of(found, None, "memory"))


def test_where_lower_values_are_better_a_loss_is_an_increase():
    found = Evaluation(metric="perplexity", samples=7, original=2.0, values=(5.0, 6.0, 7.0))
    shown = text(report.evaluation_table(found))
    assert cells(shown, "increase from the original") == ["+4.0000"]
    # 6 - 2 ± 4.30265 · 1/√3
    assert cells(shown, "95 % interval of the increase") == ["+1.5159 to +6.4841"]
    assert "decrease" not in shown
    assert found.to_dict()["drop"] == -4.0  # which files have in the same way for all metrics


@pytest.mark.parametrize(("values", "said"), [((0.5,), "one trial"), ((0.5,) * 3, "all scores are equal")])
@pytest.mark.parametrize("uncorrected", [0.25, None])
def test_an_evaluation_says_once_why_it_has_no_interval(values, said, uncorrected):
    found = Evaluation(metric="top1", samples=5, stored=0.9, values=values)
    if uncorrected is not None:
        found = replace(found, corrected_by="9 samples", uncorrected_values=(uncorrected,) * len(values))
    shown = " ".join(text(report.evaluation_table(found)).split())
    assert shown.count(f"There are no intervals: {said}.") == shown.count("interval") == 1


def test_an_interval_that_others_have_says_why_it_is_none():
    """Reads that differ may be worth the same once they are corrected."""
    found = Evaluation(
        metric="top1", samples=5, stored=0.9, values=(0.5, 0.5), corrected_by="gain", uncorrected_values=(0.3, 0.4)
    )
    shown = text(report.evaluation_table(found))
    assert cells(shown, "95 % interval of the mean") == ["none: all scores are equal"]
    assert "There are no intervals" not in shown


def test_an_evaluation_with_values_that_are_not_finite_says_so():
    values = (0.5, math.nan)
    shown = text(report.evaluation_table(Evaluation(metric="top1", samples=5, stored=0.9, values=values)))
    said = "none: not all values are finite"
    assert cells(shown, "95 % interval of the mean") == cells(shown, "95 % interval of the decrease") == [said]
    assert f"mean of {len(values)} trial{'s' if len(values) > 1 else ''} " in shown


def test_a_share_of_the_users_is_shown_in_per_cent():
    one = point("raw", values=(0.25, 0.35))
    own = replace(one, evaluation=replace(one.evaluation, metric="own:error", share=True, higher_is_better=False))
    (table,) = report.points_tables([own])
    assert "30.00" in text(table)
    assert "own:error in %" in text(table)


def test_an_evaluation_without_trials_says_so_by_saying_less():
    shown = text(report.evaluation_table(Evaluation(metric="top1", samples=5, stored=0.9, values=())))
    assert cells(shown, "stored model, without noise") == ["90.00 %"]
    assert "The original is not known: name it with --reference." in " ".join(shown.split())
    assert not any(word in shown for word in ("original model", "with noise", "interval", "SQNR", "deviation", "None"))


# --------------------------------------------------------------------------------------------------- inspect


def test_an_inspection_shows_what_would_be_stored_and_why_the_rest_is_not():
    rows = oa.inspect(
        model("""
        net (float[4, 20] x) => (float[4, 60] y) <float[20, 60] w = random, float[60] b = random, float[5] c = random> {
            y = Gemm(x, w, b)
        }""")
    ).rows
    stored, skipped = (text(table) for table in model_tables.inspection_tables(rows, protected=False))
    assert "to be stored" in stored
    assert cells(stored, "w") == ["20×60", "FLOAT", "Gemm", "1,200", f"{rows[0]['largest']:.4g}"]
    assert cells(stored, "total") == ["1,200"]
    assert cells(skipped, "rank 1, below 2") == ["2", "b"]


def test_where_nothing_is_skipped_there_is_one_table():
    (shown,) = model_tables.inspection_tables(oa.inspect(made("two scales")).rows, protected=True)
    assert cells(text(shown), "total") == ["768"]
    assert "to be stored" not in text(shown)


# --------------------------------------------------------------------------------------------------- account


def test_the_account_shows_every_line_of_the_cost():
    manifest = oa.protect(made("two scales"), channel=QUIET, sparsity=0.5, prune_scope="tensor").manifest
    tensors, addresses, cost, yardsticks = (text(table) for table in model_tables.account_tables(manifest))
    totals = manifest.totals
    honest = {line.name: line for line in manifest.honest}
    of_code = {
        name: [f"{line.bits:,}", f"BCH, {line.symbols} symbols", f"{line.bits_per_cell:.2f}"]
        for name, line in honest.items()
        if line.bits is not None
    }
    assert cells(cost, "analog levels") == [*[f"{totals.analog_cells:,}"] * 2, "none"]
    side = honest["sign"].cells + honest["class"].cells
    assert cells(cost, "side information: sign, class") == [f"{totals.side_cells:,}", f"{side:,}", "hard"]
    for name in ("sign", "class"):
        assert cells(cost, f"· {name}") == [*of_code[name], f"{honest[name].cells:,}", "hard"]
    for name, row, count in (
        ("mask", "mask: which weights are stored (bitmap: 768 bits)", totals.mask_cells),
        ("codebook", "codebook: α and β", totals.codebook_cells),
    ):
        assert cells(cost, row) == [*of_code[name], f"{count:,}", f"{honest[name].cells:,}", "hard"]
    assert cells(cost, "all-in") == [f"{totals.all_in_cells:,}", f"{totals.honest_cells:,}", "hard"]
    for name, weights in (("stored", 384), ("original", 768)):
        ratios = [f"{count / weights:.3f}" for count in (totals.all_in_cells, totals.honest_cells)]
        assert cells(cost, f"per {name} weight") == ratios
    caption = " ".join(cost.split())
    r_avg = f"{totals.analog_cells / 384:.3f}"
    assert f"384 of 768 weights stored; the paper's r_avg, analog cells per stored weight: {r_avg}" in caption
    assert "Decoding: none (thresholds and scales); hard (a hard-decision decoder or an entropy decoder)" in caption
    for entry in manifest.tensors:
        for name, found in zip(("0 (small)", "1 (large)"), entry.classes, strict=True):
            numbers = (f"{found.count:,}", str(found.cells), f"{found.alpha:.4g}")
            row = [entry.key, name, *numbers, f"{found.low:.3g} to {found.high:.3g}"]
            assert row in [re.split(r"\s{2,}", line.strip()) for line in tensors.splitlines()]
        firsts = [f"{entry.cells[plane][0]:,}" for plane in ("level", "side", "mask", "codebook")]
        assert "Addresses in the paper's counting. An image (manifest --write-image) has its own addresses" in addresses
        assert cells(addresses, entry.key) == [*firsts, f"{entry.cells['codebook'][1] - 1:,}"]
    for name, bits in (("float32", 32), ("float16", 16), ("int8", 8), ("int4", 4)):
        dense = 768 * bits
        against = f"{dense // 2 / totals.all_in_cells:.2f}×"
        allowed = best_code(QUIET, "bch").cells(dense)
        ratio = f"{allowed / totals.honest_cells:.2f}×"
        row = [f"{dense:,}", f"{dense // 2:,}", against, f"{allowed:,}", ratio, "hard"]
        assert cells(yardsticks, f"{name}, dense") == row
        assert cells(yardsticks, f"{name}, pruned")[1] == f"{384 * bits // 2 + totals.mask_cells:,}"


@pytest.mark.parametrize(("strategy", "names"), [("sign", ["all"]), ("mapping", ["0 (small)", "1 (large)"])])
def test_classes_are_called_by_their_names(strategy, names):
    manifest = oa.protect(made("matmul"), channel=QUIET, strategy=strategy).manifest
    shown = text(next(iter(model_tables.account_tables(manifest))))
    every = ("all", "0 (small)", "1 (large)")
    assert [name for name in every if re.search(rf"{re.escape(name)} +\d", shown)] == names


def test_where_nothing_is_pruned_no_baseline_is():
    *_, yardsticks = model_tables.account_tables(
        oa.protect(made("matmul"), channel=QUIET, side_bits_per_cell=1).manifest
    )
    shown = text(yardsticks)
    assert "pruned" not in shown
    assert cells(shown, "int8, dense")[0] == "2,048"
    assert "at 1 bit " in shown
    assert "at 2 bits" not in shown


def test_a_soft_code_is_called_assumed_wherever_it_is_shown():
    manifest = oa.protect(made("matmul"), channel=QUIET, code="soft").manifest
    _, _, cost, yardsticks = (text(table) for table in model_tables.account_tables(manifest))
    symbols = next(line.symbols for line in manifest.honest if line.code == "soft")
    assert cells(cost, "codebook: α and β")[1] == f"soft, assumed, {symbols} symbols"
    assert "soft (a soft-decision decoder, which is assumed)" in " ".join(cost.split())
    assert cells(yardsticks, "int8, dense")[-1] == "soft"


def test_a_cost_that_is_not_counted_says_why_and_shows_the_paper_s():
    loud = GaussianNoise(sigma=100.0)
    manifest = oa.protect(made("matmul"), channel=loud, block_failure=1e-300).manifest
    assert manifest.totals.honest_cells is None
    _, _, cost, yardsticks = (text(table) for table in model_tables.account_tables(manifest))
    assert "As the memory allows, cells are not counted: no BCH code of 4,096 data bits fails" in " ".join(cost.split())
    assert cells(cost, "all-in") == [f"{manifest.totals.all_in_cells:,}"]
    assert len(cells(yardsticks, "int8, dense")) == 3
    assert dict(manifest.lines())["as the memory allows, cells"] == f"not counted: {manifest.not_counted}"


# -------------------------------------------------------------------------------------------------- channels


def numbers_of(shown: str) -> list[list[float]]:
    lines = [line.split() for line in shown.splitlines() if re.fullmatch(r"[\s\d.,e+-]+", line) and line.strip()]
    return [[float(word.replace(",", "")) for word in line] for line in lines]


@pytest.mark.parametrize("name", ["gaussian:sigma=0.3", "pcm", "rram-milo"])
def test_a_channel_shows_what_it_does_to_levels(name):
    channel = channels.resolve(name)
    shown = text(report.channel_table(channel, points=5))
    rows = np.array(numbers_of(shown))
    levels = np.linspace(*channel.span, 5)
    assert len(rows) == 5
    std = channel.std(levels)
    expected = np.column_stack([levels, std, std / math.sqrt(10), std / math.sqrt(500)])
    np.testing.assert_allclose(rows[:, :4], expected, atol=0.5001e-4)
    assert "output range {:.4f} to {:.4f}".format(*channel.span) in shown
    assert f"capacity {both(channel)}" in " ".join(shown.split())
    assert rows.shape[1] == (6 if name == "pcm" else 4)


def test_a_measured_channel_shows_what_is_programmed_in_the_unit_of_the_device():
    channel = pcm()
    shown = text(report.channel_table(channel, points=5))
    assert f"input, {channel.input_scale.unit}" in shown
    programmed = channel.programmed(np.linspace(*channel.span, 5))
    assert [row[4] for row in numbers_of(shown)] == [float(f"{value:.4g}") for value in programmed]
    assert f"output, {channel.output_scale.unit}" in shown
    outputs = channel.output_scale.undo(np.linspace(*channel.span, 5))
    np.testing.assert_allclose([row[5] for row in numbers_of(shown)], outputs, rtol=0.5001e-3)


def test_a_channel_that_is_not_gaussian_shows_the_mean_of_its_reads():
    channel: Channel = LimitedPrecision(inner=QUIET, read_bits=8)
    shown = text(report.channel_table(channel, points=3))
    rows = np.array(numbers_of(shown))
    assert "mean read" in shown
    # 2,000 reads, and half a step of a converter of 8 bits, which reads more than the span: 1/256 of 4 at most
    np.testing.assert_allclose(rows[:, 4], rows[:, 0], atol=4 * 0.1 / math.sqrt(2000) + 2 / 256)
    np.testing.assert_allclose(rows[:, 1], 0.1, rtol=4 / math.sqrt(2 * 2000) + 0.02)


@pytest.mark.parametrize("log", [False, True])
def test_a_fit_says_what_its_levels_stand_for(tmp_path, log):
    rng = np.random.default_rng(0)
    ohms = 1000 * np.exp(0.1 * rng.standard_normal(40))
    lines = [f"{number % 4},{value:.6f}" for number, value in enumerate(ohms)]
    (tmp_path / "pairs.csv").write_text("\n".join(["volts,ohms", *lines]), encoding="utf-8")
    found = fit(tmp_path / "pairs.csv", input="volts", output="ohms", log=log, neighbours=1)
    low, high = (f"{end:.6g}" for end in (ohms.min().round(6), ohms.max().round(6)))
    caption = report.levels_table(found).caption
    unit = "log10 of ohms" if log else "ohms"
    assert f"Levels are {unit} from {low} to {high} on a scale from -1 to 1." in caption
    assert ("the mean is geometric, and σ is a factor" in caption) is log
    undone = found.channel.output_scale.undo(np.array([-1.0, 1.0]))
    np.testing.assert_allclose(undone, [ohms.min(), ohms.max()], rtol=1e-6)


def of_reads(folder: Path, *, log: bool) -> tuple[Fit, np.ndarray]:
    """Return a fit of 50 reads at each of 5 inputs, and the reads (5, 50) in ohms."""
    volts = np.linspace(0.5, 2.5, 5)
    ohms = 1e4 * np.exp(volts[:, None] + 0.1 * np.random.default_rng(0).standard_normal((5, 50)))
    rows = [f"{volt},{ohm!r}" for volt, row in zip(volts, ohms.tolist(), strict=True) for ohm in row]
    (folder / "pairs.csv").write_text("\n".join(["volts,ohms", *rows]), encoding="utf-8")
    return fit(folder / "pairs.csv", input="volts", output="ohms", log=log, neighbours=1), ohms


@pytest.mark.parametrize("log", [False, True])
def test_a_fit_shows_mean_and_spread_in_the_unit_of_the_device(tmp_path, log):
    found, ohms = of_reads(tmp_path, log=log)
    shown = text(report.levels_table(found))
    assert ("geometric mean, ohms" in shown, "σ, as a factor" in shown, "σ, ohms" in shown) == (log, log, not log)
    means, spreads = ohms.mean(axis=1), ohms.std(axis=1)
    if log:
        means, spreads = (np.exp(column) for column in (np.log(ohms).mean(axis=1), np.log(ohms).std(axis=1)))
    rows = np.array([[float(word.replace(",", "")) for word in line.split()[:3]] for line in shown.splitlines()[2:7]])
    np.testing.assert_allclose(rows, np.column_stack([np.linspace(0.5, 2.5, 5), means, spreads]), rtol=0.5001e-3)
    levels = found.to_dict()["levels"]
    np.testing.assert_allclose([row["output_mean"] for row in levels], means)
    np.testing.assert_allclose([row["output_spread"] for row in levels], spreads)
    summary = text(report.fit_table(found))
    ends = [float(word.replace(",", "")) for word in cells(summary, "output range, ohms")[0].split(" to ")]
    np.testing.assert_allclose(ends, [means[0], means[-1]], rtol=0.5001e-3)
    of_spread = f"σ at the inputs, {'as a factor' if log else 'ohms'}"
    ends = [float(word.replace(",", "")) for word in cells(summary, of_spread)[0].split(" to ")]
    np.testing.assert_allclose(ends, [spreads.min(), spreads.max()], rtol=0.5001e-3)


def test_channels_are_listed():
    shown = text(report.channel_list_table([("pcm", "a real array"), ("gaussian", "noise")]))
    assert cells(shown, "pcm") == ["a real array"]
    assert cells(shown, "gaussian") == ["noise"]


def fitted(folder: Path, *, group: bool = False) -> Fit:
    rng = np.random.default_rng(0)
    volts = np.repeat(np.linspace(0.5, 2.5, 21), 40)
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["volts", "ohms", "device"])
        device = np.arange(volts.size) % 4
        writer.writerows(zip(volts, 10 * volts + rng.normal(size=volts.size) + device, device, strict=True))
    return fit(path, input="volts", output="ohms", group="device" if group else None)


@pytest.mark.parametrize("group", [False, True])
def test_a_fit_shows_what_it_found(group, tmp_path):
    found = fitted(tmp_path, group=group)
    shown = text(report.fit_table(found))
    assert cells(shown, "pairs, distinct inputs") == ["840, 21"]
    assert cells(shown, "neighbours k, by cross-validation") == [str(found.channel.neighbours)]
    assert cells(shown, "output range in levels") == ["{:.4f} to {:.4f}".format(*found.channel.span)]
    stds = found.channel.stds
    assert cells(shown, "σ at the inputs in levels") == [f"{min(stds):.4f} to {max(stds):.4f}"]
    normal, measured = both(found.channel)
    assert cells(shown, "capacity for normal reads, bits per cell") == [f"{normal:.2f}"]
    assert cells(shown, "capacity for residuals as measured, bits per cell") == [f"{measured:.2f}"]
    assert ("variance between devices" in shown) is group
    near = replace(found.goodness, skew=np.full_like(found.goodness.skew, -0.01))
    assert cells(text(report.fit_table(replace(found, goodness=near))), "skew of the reads at an input") == [
        "0.0 to 0.0"
    ]
    if found.between_share is not None:
        assert cells(shown, "variance between devices") == [f"{100 * found.between_share:.0f} %"]


# ------------------------------------------------------------------------------------------------------ plots


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    pyplot.close("all")


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.verify()
        assert image.format == "PNG"
    with Image.open(path) as image:
        assert len(image.convert("RGB").getcolors(2**24) or []) > 10  # something is drawn
        return image.size


POINTS = [
    point(name, c, preset, values=(0.1 * c, 0.1 * c + 0.1))
    for preset in (DEFAULT, PAPER)
    for name in STRATEGIES
    for c in (1, 3)
]


@pytest.mark.parametrize(("points", "panels"), [(POINTS, 2), (POINTS[:8], 1), (POINTS[:1], 1)])
@pytest.mark.parametrize("name", ["plot.png", "plot"])
def test_points_are_drawn_as_png(points, panels, name, tmp_path):
    path = tmp_path / name
    plots.plot_points(points)(path)
    width, height = size_of(path)
    assert width == round(4.8 * DPI) * panels
    assert 4.4 * DPI < height < 5.2 * DPI  # the legend has a line or two
    assert pyplot.get_fignums() == []


def test_names_that_look_like_mathematics_are_drawn_as_they_are(tmp_path):
    plots.plot_points([point(model="w$^$"), point(model="net")])(tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_points_are_drawn_as_svg(tmp_path):
    path = tmp_path / "plot.svg"
    plots.plot_points(POINTS)(path)
    assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert len(path.read_text()) < 500_000


@pytest.mark.parametrize(("count", "across", "down"), [(3, 3, 1), (4, 2, 2), (7, 3, 3), (12, 4, 3)])
def test_many_panels_are_a_grid(count, across, down, tmp_path):
    plots.plot_points([point(model=f"model {n}") for n in range(count)])(tmp_path / "plot.png")
    width, height = size_of(tmp_path / "plot.png")
    assert width == round(4.8 * DPI) * across
    assert (4.3 * down + 0.1) * DPI < height < (4.3 * down + 0.9) * DPI


def boxes(figure: Any) -> list[Any]:
    """Return where titles, axes' names and numbers, and the legend lie in the picture."""
    figure.canvas.draw()
    texts = [part for axis in figure.axes for part in (axis.title, axis.xaxis.label, axis.yaxis.label)]
    for kind in (kind for axis in figure.axes for kind in (axis.xaxis, axis.yaxis)):
        low, high = kind.get_view_interval()
        texts += [tick.label1 for tick in kind.get_major_ticks() if low <= tick.get_loc() <= high]
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    return [part.get_window_extent().padded(-1) for part in (*shown, *figure.legends)]


def assert_apart(found: Sequence[Any]) -> None:
    for place, one in enumerate(found):
        assert not any(one.overlaps(other) for other in found[:place])


@pytest.mark.parametrize("counts", [(1,), (1, 3, 10, 30), (1, 10, 1000, 10**6)])
def test_nothing_that_is_written_touches_anything_else(counts):
    noises = [channels.resolve("rram-wan"), LOUD]
    plots.plot_points(
        [
            point("sign", c, p, channel=n)
            for n in noises for p in (DEFAULT, PAPER) for c in counts
        ]
    )  # fmt: skip
    figure = pyplot.gcf()
    assert_apart(boxes(figure))
    for axis in figure.axes:
        assert len(axis.xaxis.get_ticklocs()) >= 2
        assert not any(legend.get_window_extent().overlaps(axis.get_window_extent()) for legend in figure.legends)
    pyplot.close(figure)


def test_assert_apart_rejects_what_touches():
    plots.plot_points(POINTS)
    for axis in pyplot.gcf().axes:
        axis.set_title("scope tensor " * 20)
    with pytest.raises(AssertionError):
        assert_apart(boxes(pyplot.gcf()))


def curves(axis: Any) -> dict[str, tuple[list[float], list[float], list[tuple[float, float]]]]:
    """Return, by label, what is drawn with error bars: x, y and the ends of the bar."""
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container
        ends = [(float(low), float(high)) for (_, low), (_, high) in (segment for segment in bars.get_segments())]
        found[container.get_label()] = (list(line.get_xdata()), list(line.get_ydata()), ends)
    return found


def test_the_plot_shows_what_is_lost_against_what_it_costs():
    points = [replace(one, ci95=(one.evaluation.mean - 0.02, one.evaluation.mean + 0.04)) for one in POINTS]
    plots.plot_points(points)
    axes = pyplot.gcf().axes
    titles = [f"{grouping.preset_title(one)} original 75.00 %" for one in (POINTS[7], POINTS[-1])]
    assert [" ".join(axis.get_title().split()) for axis in axes] == titles
    for axis in axes:
        found = curves(axis)
        assert list(found) == list(STRATEGIES)
        for x, y, ends in found.values():
            assert x == [2.0, 4.0]
            np.testing.assert_allclose(y, [60, 40])  # 75 without noise, less 15 and 35
            np.testing.assert_allclose(ends, [(56, 62), (36, 42)])
        assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")
    assert axes[0].get_ylabel() == "accuracy lost, in percentage points"
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert axes[0].get_xlim() == axes[1].get_xlim()


def losses(*values: float, original: float = 0.987, samples: int = 1000) -> list[Point]:
    """Return points with these mean losses, in percentage points."""
    points = [near(count, original - loss / 100) for count, loss in enumerate(values, start=1)]
    return [replace(one, evaluation=replace(one.evaluation, original=original, samples=samples)) for one in points]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((88, 87, 85), "linear"),  # at chance
        ((0.5, 0.3, 0.1), "linear"),
        ((40, 4, 0.3), "symlog"),
        ((40, 4, -0.2), "symlog"),
        ((0.5, 0.02, -0.01), "linear"),  # within ten times the loss of one of 1,000 samples
        ((3.0,), "linear"),
    ],
)
def test_the_axis_of_the_loss_has_the_range_of_the_data_and_a_line_without_noise(values, scale):
    points = losses(*values)
    plots.plot_points(points)
    (axis,) = pyplot.gcf().axes
    assert axis.get_yscale() == scale
    assert [list(line.get_ydata()) for line in axis.get_lines() if line.get_linestyle() == ":"] == [[0.0, 0.0]]
    ends = [100 * (0.987 - end) for one in points for end in one.ci95]
    shown = axis.transData.transform([(1, y) for y in (0.0, *ends)])[:, 1]
    box = axis.get_window_extent()
    assert box.ymin <= shown.min()
    assert shown.max() <= box.ymax
    assert shown.max() - shown.min() > 0.85 * box.height  # no space without data
    ((_, y, _),) = curves(axis).values()
    np.testing.assert_allclose(y, values, atol=1e-9)


def test_labels_of_a_logarithmic_loss_are_few_and_name_zero():
    for values, labels in {
        (40, 4, 0.3): [0, 0.1, 1, 10],
        (4, 0.3, 0.2): [0, 0.1, 0.2, 0.5, 1, 2, 5],
        (40, 4, -0.3): [-0.1, 0, 0.1, 1, 10],
    }.items():
        plots.plot_points([replace(one, ci95=None) for one in losses(*values)])
        (axis,) = pyplot.gcf().axes
        assert sorted(axis.get_yticks()) == pytest.approx(labels)


def assert_legend_fits(figure: Any) -> None:
    """Check that the legend lies within the picture and apart from all else."""
    figure.canvas.draw()
    (legend,) = figure.legends
    box, picture = legend.get_window_extent(), figure.bbox
    assert box.xmin >= picture.xmin
    assert box.xmax <= picture.xmax
    assert box.ymin >= picture.ymin
    assert not any(box.overlaps(axis.get_tightbbox()) for axis in figure.axes)
    assert all(axis.get_window_extent().height > 2.8 * figure.dpi for axis in figure.axes)


LONG = {"side_channel": "gaussian:sigma=0.123456,low=-1,high=1", "estimator": "my_estimators:ShrunkTowardsTheMean"}


@pytest.mark.parametrize(
    ("lines", "changes", "presets"),
    [
        (1, {"estimator": "x" * 300}, (DEFAULT,)),
        (3, {}, (DEFAULT,)),
        (3, LONG, (DEFAULT,)),
        (12, LONG, (DEFAULT, PAPER)),
    ],
)
def test_the_legend_is_whole(lines, changes, presets):
    plots.plot_points(
        [
            near(c, 0.7 - n / 100, preset=preset, changes={**changes, "side_bits_per_cell": n})
            for preset in presets for n in range(lines) for c in (1, 3)
        ]
    )  # fmt: skip
    assert_legend_fits(pyplot.gcf())
    (legend,) = pyplot.gcf().legends
    names = ["".join(text.get_text().split()) for text in legend.get_texts()]
    assert len([name for name in names if name.startswith("sign")]) == lines
    assert all("".join(map(str, changes.values())) in name.replace(",estimator", "") for name in names[:lines])


def test_assert_legend_fits_rejects_what_is_cut_off():
    plots.plot_points(POINTS)
    figure = pyplot.gcf()
    (legend,) = figure.legends
    legend.get_texts()[0].set_text("raw " * 100)
    with pytest.raises(AssertionError):
        assert_legend_fits(figure)


def test_one_trial_has_no_error_bar():
    plots.plot_points([point(values=(0.5,))])
    (found,) = curves(pyplot.gcf().axes[0]).values()
    assert found == ([2.0], [25.0], [(25.0, 25.0)])


def test_what_is_not_known_is_not_drawn():
    plots.plot_points([point("raw", values=()), point("sign", values=(math.nan,)), point("mapping", values=(0.5,))])
    assert list(curves(pyplot.gcf().axes[0])) == ["mapping"]


def test_nothing_is_drawn_of_a_strategy_without_points():
    points = [point("raw", 1, DEFAULT), point("raw", 1, PAPER), point("sign", 1, PAPER)]
    plots.plot_points(points)
    default, paper = pyplot.gcf().axes
    assert list(curves(default)) == ["raw"]
    assert list(curves(paper)) == ["raw", "sign"]


def rings(axis: Any) -> list[tuple[float, float]]:
    """Return where the rings of a panel lie."""
    (found,) = axis.collections[-1:]
    assert found.get_facecolors().size == 0  # what they mark is seen through them
    return [(float(x), float(y)) for x, y in found.get_offsets()]


def test_rings_lie_where_the_table_has_marks():
    points = [
        near(c, value * base, strategy=name, preset=preset)
        for preset, base in ((DEFAULT, 1.0), (PAPER, 0.5))
        for name, c, value in (("raw", 1, 0.3), ("raw", 3, 0.4), ("sign", 3, 0.3), ("sign", 9, 0.6))
    ]
    plots.plot_points(points)
    axes = pyplot.gcf().axes
    np.testing.assert_allclose(rings(axes[0]), [(4.0, 35), (10.0, 15)])
    np.testing.assert_allclose(rings(axes[1]), [(4.0, 55), (10.0, 45)])
    shown = "".join(text(table) for table in report.points_tables(points))
    assert re.findall(r"◆ (\d+\.\d+)", shown) == ["40.00", "60.00", "20.00", "30.00"]
    (legend,) = pyplot.gcf().legends
    assert "better than every cheaper point" in [one.get_text() for one in legend.get_texts()]


def test_without_marks_no_ring_is_explained():
    plots.plot_points([point()])
    assert rings(pyplot.gcf().axes[0]) == []
    (legend,) = pyplot.gcf().legends
    assert "better than every cheaper point" not in [one.get_text() for one in legend.get_texts()]


def test_bars_are_the_intervals_that_the_looks_leave():
    plots.plot_points([replace(point(values=(0.5, 0.6, 0.7)), ci95=(0.35, 0.70))])
    ((_, _, ends),) = curves(pyplot.gcf().axes[0]).values()
    np.testing.assert_allclose(ends, [(5, 40)])


def test_what_is_no_share_is_drawn_in_its_own_unit():
    plots.plot_points([point(values=(111.0, 112.0), metric="sqnr_db", original=None)])
    (axis,) = pyplot.gcf().axes
    ((_, y, ends),) = curves(axis).values()
    assert y == [111.5]
    np.testing.assert_allclose(ends, [(111.5 - 6.3531, 111.5 + 6.3531)], rtol=1e-5)  # t(0.975, 1)·s/√2
    assert axis.get_ylabel() == "output SQNR in dB"
    assert axis.get_yscale() == "linear"


def test_a_metric_of_one_s_own_is_drawn_beside_its_value_without_noise():
    plots.plot_points([point(values=(3.0, 4.0), metric="mine", original=2.5)])
    (axis,) = pyplot.gcf().axes
    assert [list(line.get_ydata()) for line in axis.get_lines() if line.get_linestyle() == ":"] == [[2.5, 2.5]]


def decoded(one: Point, decoding: str, honest: int | None = 1000) -> Point:
    return replace(one, totals=replace(one.totals, decoding=decoding, honest_cells=honest))


def test_a_plot_counts_as_the_memory_allows_or_as_the_paper_does():
    for counting, x, words in (("memory", 2.0, "as the memory allows"), ("paper", 1.25, "as the paper counts")):
        plots.plot_points([point(values=(0.5,))], counting)
        (axis,) = pyplot.gcf().axes
        assert curves(axis)["sign"][0] == [x]
        assert axis.get_xlabel() == f"cells per original weight, {words}"
    plots.plot_points([point(values=(0.5,)), decoded(point("raw", values=(0.5,)), "none", None)])  # one has no count
    (axis,) = pyplot.gcf().axes
    assert (axis.get_xlabel(), curves(axis)["sign"][0]) == ("cells per original weight, as the paper counts", [1.25])


def limited(one: Point, cells_per_weight: float) -> Point:
    """Return a point with a limit of so many cells for each of its 1,000 weights."""
    bits = TensorLimit(key="w", weights=1000, mse=0.1, bits=cells_per_weight, capacity_bits=1.0)
    limit = Limit(tensors=(bits,), honest_cells=one.totals.honest_cells)
    return replace(one, evaluation=replace(one.evaluation, limit=limit))


@pytest.mark.parametrize(("fewest", "shown"), [(0.0004321, "0.00043"), (0.04321, "0.043"), (4.321, "4.321")])
def test_a_limit_far_below_the_cells_is_not_shown_as_none(fewest, shown):
    one = limited(point(), fewest)
    (listed,) = report.points_tables([one])
    assert f" {shown} " in text(listed)
    assert cells(text(report.evaluation_table(one.evaluation)), "limit: cells per original weight, at least") == [shown]
    assert f"at least {shown} cells" in str(one.evaluation.limit)
    for result in (Swept(points=(one,)), one.evaluation):
        assert f"'{shown}'" in repr(page_of(result, None, "memory"))


def limits(axis: Any) -> list[tuple[list[float], list[float]]]:
    """Return the ends of the lines that lead from points to their limits, x and y; the tick is at the first."""
    lines = [line for line in axis.get_lines() if line.get_markevery() == [0]]
    assert {line.get_marker() for line in lines} <= {"|"}
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def test_thin_lines_lead_from_points_to_their_limits():
    points = [limited(near(1, 0.5), 0.25), limited(near(3, 0.7), 1.5), near(9, 0.74)]
    plots.plot_points(points)
    (axis,) = pyplot.gcf().axes
    found = limits(axis)
    np.testing.assert_allclose([x for x, _ in found], [(0.25, 2), (1.5, 4)])
    np.testing.assert_allclose([y for _, y in found], [(25, 25), (5, 5)])  # 75 without noise
    assert axis.get_xlim()[0] < 0.25
    (legend,) = pyplot.gcf().legends
    assert [one.get_text() for one in legend.get_texts()].count("limit: fewest cells at this error") == 1
    assert_apart(boxes(pyplot.gcf()))


@pytest.mark.parametrize(
    ("points", "counting"),
    [
        ([near(1, 0.5)], "memory"),
        ([limited(near(1, 0.5), 0.0)], "memory"),
        ([limited(near(1, math.nan), 0.5)], "memory"),
        ([limited(near(1, 0.5), 0.5)], "paper"),
    ],
)
def test_without_a_limit_that_holds_none_is_drawn(points, counting):
    plots.plot_points(points, counting)
    drawn = [svg_of(pyplot.gcf())]
    plots.plot_points([replace(one, evaluation=replace(one.evaluation, limit=None)) for one in points], counting)
    assert drawn == [svg_of(pyplot.gcf())]


def svg_of(figure: Any) -> str:
    """Return a picture without what differs each time it is drawn: its date, and the names of its parts."""
    file = io.StringIO()
    with pyplot.rc_context({"svg.hashsalt": "same"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def test_pictures_with_a_limit_differ():
    pictures = []
    for points in ([near(1, 0.5)], [limited(near(1, 0.5), 0.5)]):
        plots.plot_points(points)
        pictures.append(svg_of(pyplot.gcf()))
    assert pictures[0] != pictures[1]


def test_where_lines_differ_in_decoding_their_markers_and_names_say_it():
    points = [
        decoded(point(name), level) for name, level in zip(STRATEGIES, ("none", "table", "hard", "soft"), strict=True)
    ]
    looks = plots.styles(points)
    assert [look["marker"] for look in looks.values()] == ["o", "s", "D", "^"]
    assert looks["sign"]["label"] == "sign (decoding: table)"
    shown = " ".join(text(*report.points_tables(points)).split())
    assert "Decoding: none (thresholds and scales) for raw; table (tables of an estimator) for sign; hard (" in shown
    many = [decoded(point("sign", changes={"side_bits_per_cell": n}), ("none", "hard")[n % 2]) for n in range(40)]
    assert (
        len({tuple(look[key] for key in ("color", "marker", "linestyle")) for look in plots.styles(many).values()})
        == 40
    )


def test_points_are_joined_in_the_order_of_what_they_cost():
    plots.plot_points([point("sign", c, values=(c / 20,)) for c in (3, 1, 9)])
    ((x, y, _),) = curves(pyplot.gcf().axes[0]).values()
    assert x == [2.0, 4.0, 10.0]
    np.testing.assert_allclose(y, [70, 60, 30])


@pytest.mark.parametrize(("name", "panels"), [("gaussian", 3), ("pcm", 6), ("rram-milo", 3)])
def test_a_channel_is_drawn(name, panels, tmp_path):
    path = tmp_path / "channel.png"
    plots.plot_channel(channels.resolve(name))(path)
    assert size_of(path) == (round(4.8 * DPI) * 3, round(3.8 * DPI) * math.ceil(panels / 3))


def test_a_channel_is_drawn_as_it_reads():
    plots.plot_channel(QUIET)
    for axis, cells_each in zip(pyplot.gcf().axes, (1, 10, 500), strict=True):
        reads, line = axis.get_lines()
        x, y = (np.asarray(column, np.float64) for column in reads.get_data())
        assert x.size == 120 * 25
        assert (x.min(), x.max()) == pytest.approx(QUIET.span, abs=1e-6)
        # the standard error of a standard deviation of n normal numbers is σ/√(2n)
        assert (y - x).std() == pytest.approx(0.1 / math.sqrt(cells_each), rel=4 / math.sqrt(2 * x.size))
        assert list(line.get_xdata()) == list(line.get_ydata()) == list(QUIET.span)


def test_measured_pairs_are_drawn(tmp_path):
    found = fitted(tmp_path)
    save = plots.plot_channel(found.channel, (found.inputs, found.outputs))
    pairs = next(line for line in pyplot.gcf().axes[0].get_lines() if line.get_label() == "measured")
    volts, ohms = read_columns(tmp_path / "pairs.csv", ("volts", "ohms"))
    expected = sorted(zip(volts, ohms, strict=True))
    np.testing.assert_allclose(sorted(zip(*pairs.get_data(), strict=True)), expected, rtol=1e-9)
    path = tmp_path / "plot.png"
    save(path)
    size_of(path)


def test_of_very_many_pairs_some_of_all_inputs_are_drawn():
    channel = pcm()
    inputs = np.repeat(np.linspace(-1, 1, 10), 4000)
    plots.plot_channel(channel, (inputs, np.zeros(40_000)))
    pairs = next(line for line in pyplot.gcf().axes[0].get_lines() if line.get_label() == "measured")
    assert 0 < len(pairs.get_xdata()) <= 5000
    assert len(set(pairs.get_xdata())) == 10


def test_the_device_is_drawn_with_its_mean_and_inverse():
    channel = pcm()
    plots.plot_channel(channel)
    device, inverse = pyplot.gcf().axes[:2]
    volts, ohms = channel.input_scale, channel.output_scale
    (mean,) = device.get_lines()
    np.testing.assert_allclose(mean.get_xdata(), volts.undo(np.array(channel.inputs)))
    np.testing.assert_allclose(mean.get_ydata(), ohms.undo(np.array(channel.means)))
    assert (device.get_xlabel(), device.get_ylabel()) == (f"input, {volts.unit}", f"read, {ohms.unit}")
    assert (device.get_yscale(), inverse.get_xscale(), inverse.get_yscale()) == ("log", "log", "linear")
    (line,) = inverse.get_lines()
    level, found = ohms.apply(line.get_xdata()), volts.apply(line.get_ydata())
    np.testing.assert_allclose(np.interp(found, channel.inputs, channel.means), level, atol=1e-6)  # f is μ⁻¹


@pytest.mark.parametrize("log", [False, True])
def test_reads_of_a_measured_channel_are_drawn_in_the_unit_of_the_device(tmp_path, log):
    found, _ = of_reads(tmp_path, log=log)
    plots.plot_channel(found.channel)
    for axis in pyplot.gcf().axes[2:5]:
        reads, line = axis.get_lines()
        stored, read = (np.asarray(column) for column in reads.get_data())
        np.testing.assert_allclose(line.get_xdata(), found.output_range)
        assert (stored.min(), stored.max()) == pytest.approx(found.output_range, rel=1e-5)
        assert abs(np.median(read / stored) - 1) < 0.05
        assert axis.get_xscale() == axis.get_yscale() == ("log" if log else "linear")
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("stored, ohms", "read, ohms")


def test_residuals_are_drawn_against_the_normal_law():
    quantiles = scipy.stats.norm.ppf((np.arange(200) + 0.5) / 200)
    skewed = scipy.stats.expon.ppf((np.arange(200) + 0.5) / 200) - 1
    table = replace(pcm(), inputs=(-1.0, 1.0), means=(-0.5, 0.5), stds=(0.1, 0.1), between=(),
                    residuals=(tuple(quantiles), tuple(skewed)))  # fmt: skip
    plots.plot_channel(table)
    normal, other, together, line = pyplot.gcf().axes[-1].get_lines()
    np.testing.assert_allclose(normal.get_xdata(), normal.get_ydata(), atol=1e-12)  # on the line
    assert np.abs(other.get_xdata() - other.get_ydata()).max() > 1
    assert sorted(together.get_ydata()) == sorted([*quantiles, *skewed])
    assert list(line.get_xdata()) == list(line.get_ydata())


def test_a_channel_without_residuals_has_no_panel_of_them():
    plots.plot_channel(replace(pcm(), residuals=()))
    assert len(pyplot.gcf().axes) == 5


def test_matplotlib_is_there_or_its_absence_is_said(monkeypatch):
    assert plots.can_plot()
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert not plots.can_plot()
    assert "pip install 'onnx-analog[report]'" in plots.NO_PLOTS


# ----------------------------------------------------------------------------------------------------- widths


def every_table(folder: Path) -> list[Table]:
    """Return all tables that commands print, with long names and many numbers."""
    long = "".join(f"block{place}.conv.weight_" for place in range(6))
    net = f"net (float[4, 320] x) => (float[4, 60] y) <float[320, 60] {long} = random> {{ y = MatMul(x, {long}) }}"
    manifest = oa.protect(model(net.replace(".", "_")), channel=QUIET, sparsity=0.5).manifest
    evaluation = Evaluation(metric="top1", samples=10**9, stored=0.9, values=(0.5, 0.6), original=0.95, sqnr_db=(10.0,))
    points = [
        replace(near(c, 0.123, strategy=name, preset=preset), ci95=(0.0, 0.9))
        for preset in (DEFAULT, PAPER) for name in STRATEGIES for c in (1, 2, 3, 5, 10, 20, 30)
    ]  # fmt: skip
    found = fitted(folder)
    rows = [{"key": long, "shape": (320, 60), "dtype": "FLOAT", "used_by": ["MatMul"], "weights": 10**9,
             "largest": 1.2345e-30, "reason": reason} for reason in (None, "rank 1, below 2")]  # fmt: skip
    return [
        *report.points_tables(points), *report.differences_tables(points),
        *report.corrections_tables([corrected(point) for point in points]),
        *model_tables.account_tables(manifest), *model_tables.inspection_tables(rows, protected=False),
        report.evaluation_table(evaluation), report.channel_list_table([("pcm", "word " * 40)]),
        model_tables.plan_table(Plan(tensors={long: None})), model_tables.plan_table(manifest.plan, manifest),
        report.channel_table(pcm()), report.channel_table(QUIET), report.fit_table(found), report.levels_table(found),
    ]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_every_table_keeps_names_and_digits(width, tmp_path):
    for table in every_table(tmp_path):
        shown = table.that_fits(width)
        shown.title = shown.caption = None
        assert_whole(shown, width)


def test_there_is_a_table_of_each_kind(tmp_path):
    names = {**vars(report), **vars(model_tables)}
    made_by = {name for name in names if name.endswith(("_table", "_tables")) and not name.startswith("_")}
    assert made_by == {
        "points_tables", "differences_tables", "corrections_tables", "account_tables", "inspection_tables",
        "cost_table", "baseline_table", "float16_table", "evaluation_table",
        "channel_list_table", "channel_table", "fit_table", "levels_table", "plan_table",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ the helpers above


def test_cells_reads_one_line():
    shown = "  name   first  second \n  other    1,2     3 4 \n"
    assert cells(shown, "other") == ["1,2", "3 4"]
    with pytest.raises(ValueError, match="unpack"):
        cells(shown, "first")


def test_columns_rejects_what_stands_elsewhere():
    shown = "  strategy   1 cell   3 cells \n  sign      10 [1]            \n  raw                  20 [3] \n"
    assert columns(shown, "3 cells", "raw") == "20 [3]"
    assert columns(shown, "3 cells", "sign") != "10 [1]"


def test_size_of_rejects_what_is_no_plot(tmp_path):
    Image.new("RGB", (20, 10), "white").save(tmp_path / "blank.png")
    with pytest.raises(AssertionError):
        size_of(tmp_path / "blank.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "other.gif")
    with pytest.raises(AssertionError):
        size_of(tmp_path / "other.gif")
    (tmp_path / "none.png").write_bytes(b"none")
    with pytest.raises(OSError, match="cannot identify"):
        size_of(tmp_path / "none.png")


def test_a_channel_whose_cells_share_a_device_is_shown_as_it_averages():
    channel = Modifiers(cells_on="same").apply(channels.resolve("pcm"))
    assert isinstance(channel, TableChannel)
    level = clip_to_range(np.linspace(*channel.span, 3).astype(np.float32), channel.span)
    shown = text(report.channel_table(channel, points=3))
    for scale, std in zip(channel.scale(level, cells=500), channel.std(level), strict=True):
        assert f"{float(scale):.4f}" in shown
        assert f"{float(std / np.sqrt(500)):.4f}" not in shown


# ------------------------------------------------------------------------------------------- other axes, and plans


def planned(name: str, scheme: Scheme, cost: int) -> Point:
    """Return the point of a plan."""
    base = point(analog=cost)
    setting = GridPoint.of(Plan(default=scheme, tensors={"w": scheme}), name=name)
    return replace(base, setting=setting)


VARIED = [
    point(name, c, changes={"side_bits_per_cell": bits}, values=(0.4 + bits / 10, 0.5))
    for name in ("sign", "redundancy") for bits in (1, 2) for c in (1, 3)
]  # fmt: skip
PLANNED = [*VARIED, planned("mixed", Scheme.int4(channel=QUIET), 300)]


def test_a_plan_of_any_name_is_told_from_words_and_has_no_number_of_cells_in_the_table_of_corrections():
    named = planned("none", Scheme.int4(channel=QUIET), 300)
    assert report.choice_text(named).startswith("plan 'none': ")
    assert report.choice_text(planned("int8 per tensor", Scheme.int8(channel=QUIET), 300)).startswith(
        "int8 per tensor:"
    )
    corrected = [
        replace(each, evaluation=replace(each.evaluation, uncorrected_values=(0.4, 0.5), corrected_by="9 samples"))
        for each in (named, point(cells=3))
    ]
    (table,) = report.corrections_tables(corrected)
    rows = dict(zip(*([str(cell) for cell in column.cells] for column in list(table.columns)[:2]), strict=True))
    assert (table.columns[0].header, rows) == ("strategy or plan", {"none": "", "sign": "3"})


def test_each_value_of_an_axis_has_a_row_of_its_own():
    (table,) = report.points_tables(VARIED)
    (rows, *_) = [list(column.cells) for column in table.columns]
    assert rows == [f"{name}, side_bits_per_cell {bits}" for name in ("sign", "redundancy") for bits in (1, 2)]


def test_plans_have_a_table_in_their_panel():
    grid, plans = report.points_tables(PLANNED)
    assert grid.title == grouping.preset_title(*PLANNED[:-1])
    assert plans.title == "plans"  # whose shares may be others
    assert [str(column.header) for column in plans.columns][:2] == ["plan", "stored as"]
    assert list(plans.columns[0].cells) == ["mixed"]
    (alone,) = report.points_tables(PLANNED[-1:])
    assert alone.title == "plans"


@pytest.mark.parametrize(
    ("scheme", "title"),
    [
        (Scheme.int4(channel=QUIET), "granularity tensor"),
        (Scheme.int4(granularity="model", channel=QUIET), ""),
        (Scheme(shares=(0.05,), channel=QUIET), "granularity tensor, 5.00 % large"),
        (Scheme(shares=(0.2,), channel=QUIET), "granularity tensor"),
        (Scheme(classes=3, shares=(0.2, 0.05), cells=(1,), granularity="channel", channel=QUIET), ""),
    ],
)
def test_the_title_of_a_plot_states_only_what_holds_for_all_its_points(scheme, title):
    points = [*VARIED, planned("mixed", scheme, 300)]
    plots.plot_points(points)
    (axis,) = pyplot.gcf().axes
    assert axis.get_title() == "\n".join([*([title] if title else []), "original 75.00 %"])
    grid, _ = report.points_tables(points)
    assert grid.title == "granularity tensor, 5.00 % large (default)"


def test_points_without_cells_belong_to_their_channel():
    without = planned("i4", Scheme.int4(channel=QUIET), 300)
    assert len(list(report.points_tables([point(), without]))) == 2
    titles = [table.title for table in report.points_tables([point(), point(channel=LOUD), without])]
    preset = grouping.preset_title(point())
    assert titles == [f"channel {QUIET}, {preset}", f"channel {QUIET}, plans", f"channel {LOUD}, {preset}"]
    assert dict(without._lines())["channel"] == str(QUIET)


def test_where_presets_differ_plans_have_a_panel_of_their_own():
    points = [point(), point(preset=PAPER), planned("mixed", Scheme.int4(channel=QUIET), 300)]
    assert [table.title for table in report.points_tables(points)] == [
        *map(grouping.preset_title, points[:2]), "plans",
    ]  # fmt: skip


def test_strategies_keep_their_looks_and_further_lines_have_others():
    alone = plots.styles([point("sign"), point("redundancy")])
    assert alone == {name: plots._LOOKS[name] for name in ("sign", "redundancy")}
    several = plots.styles(PLANNED)
    assert len(several) == 5
    looks = [(style["color"], style["marker"]) for style in several.values()]
    assert len(set(looks)) == 5
    assert several["mixed"]["marker"] == "*"


def test_many_lines_never_look_alike():
    many = [point("sign", changes={"side_bits_per_cell": n}) for n in range(90)]
    assert len({str(style) for style in plots.styles(many).values()}) == 90


def test_other_axes_and_plans_are_drawn(tmp_path):
    plots.plot_points(PLANNED)(tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as figure:
        assert figure.size[0] > 300


def test_differences_are_to_the_first_line_of_the_panel():
    (table,) = report.differences_tables(PLANNED)
    assert [str(cell) for cell in table.columns[0].cells] == [
        f"{name}, side_bits_per_cell {bits}" for name, bits in (("sign", 2), ("redundancy", 1), ("redundancy", 2))
        for _ in range(2)
    ]  # fmt: skip
    assert str(table.title).startswith("difference from sign, side_bits_per_cell 1: ")


def test_a_model_without_analog_cells_is_described_as_digital():
    protected = oa.protect(made("matmul"), channel=QUIET, integers=8)
    tensors, _, cost, yardsticks = map(text, model_tables.account_tables(protected.manifest))
    assert re.search(r"255 classes +\d+ +digital", tensors)
    assert "weights: class" in cost
    assert "codebook: what classes stand for" in cost
    assert "all cells are digital" in " ".join(cost.split())
    assert "analog" not in cost + yardsticks
    statistics = oa.array_statistics(protected, trials=2)
    found = (str(protected), str(oa.readback(protected)), str(statistics))
    assert not re.search("level|analog|0 weights", " ".join(found))
    assert found[0].startswith("256 of 256 weights in digital cells; all-in")
    assert re.fullmatch(r"[\d,]+ digital symbols of 2 simulated arrays", found[2])


def classes_table(**given: Any) -> str:
    """Return the table of classes of a protected model."""
    return text(next(iter(model_tables.account_tables(oa.protect(made("matmul"), channel=QUIET, **given).manifest))))


def test_the_table_of_classes_has_only_columns_that_say_something():
    digital, analog = classes_table(integers=3), classes_table()
    heading = [re.split(r"\s{2,}", shown.strip().splitlines()[0].strip()) for shown in (digital, analog)]
    assert heading[0] == ["tensor", "class", "weights", "cells each", "value"]
    assert heading[1] == ["tensor", "class", "weights", "cells each", "α", "sizes"]
    assert " to " not in digital
    assert " to " in analog


def test_bits_of_a_plan_with_analog_and_digital_tensors_are_named_after_both():
    weights = {name: np.linspace(-1, 1, 1024, dtype=np.float32).reshape(32, 32) for name in "ab"}
    plan = Plan(default=Scheme(channel=QUIET), tensors={"a": Scheme.integers(4, channel=QUIET)})
    _, _, cost, _ = map(text, model_tables.account_tables(oa.protect(holding(**weights), plan=plan).manifest))
    assert "side information and digital weights: sign, class" in cost
