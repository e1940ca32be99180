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
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from PIL import Image
from rich.console import Console

import onnx_analog as oa
from onnx_analog import channels, report
from onnx_analog.channels import Channel, GaussianNoise, TableChannel
from onnx_analog.channels.base import inside
from onnx_analog.channels.capacity import of_channel
from onnx_analog.channels.fitting import Fit, fit
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.pcm import pcm
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.evaluation import Evaluation
from onnx_analog.grid import Setting
from onnx_analog.manifest import Totals
from onnx_analog.strategies import PRESETS, STRATEGIES, Preset
from onnx_analog.sweeps import Point
from onnx_analog.tensors import Selection
from tests.models import QUIET, made, model

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
    strategy="sign", cells=1, preset=DEFAULT, values=(0.5, 0.7), analog=1000, model="net", clean=0.75, channel=QUIET,
    metric="top1",
) -> Point:  # fmt: skip
    totals = Totals(
        original_weights=1000,
        stored_weights=800,
        analog_cells=analog * cells,
        header_cells=200,
        mask_cells=40,
        mask_bitmap_bits=1000,
        codebook_cells=10,
    )
    evaluation = Evaluation(metric=metric, samples=50, clean=clean, values=values)
    setting = Setting(
        model=0,
        channel=channel,
        preset=preset,
        strategy=strategy,
        cells=cells,
        large_factor=20,
        selection=Selection(),
    )
    return Point(model=model, setting=setting, totals=totals, evaluation=evaluation, ci95=evaluation.ci95)


# ------------------------------------------------------------------------------------------ what a cell says


def test_a_cell_says_mean_half_its_interval_and_what_it_costs():
    # mean 0.6; the interval, ± t(0.975, 1) · s/√2 = 12.7062 · 0.1, is cut off at 0 and 1; 1,250 cells for 1,000 weights
    assert report.cell_text(point()) == "60.00 ± 50.00 [1.25]"


def test_one_trial_has_no_interval():
    assert report.cell_text(point(values=(0.625,), cells=3)) == "62.50 [3.25]"


@pytest.mark.parametrize(
    ("preset", "title"),
    [
        (DEFAULT, "scope tensor, 5.00% large (default)"),
        (PAPER, "scope model, 0.25% large (as in the paper)"),
    ],
)
def test_a_preset_is_called_by_what_it_is(preset, title):
    assert report.preset_title(point(preset=preset)) == title


def test_a_preset_of_one_s_own_has_no_name():
    title = report.preset_title(point(preset=Preset(scope="model", large_fraction=0.1)))
    assert title.startswith("scope model, 10.00% large")
    assert "()" not in title


# ----------------------------------------------------------------------------------------------------- points


def test_points_stand_by_strategy_and_cells():
    points = [point(name, c, values=(0.1 * c + place / 100,)) for place, name in enumerate(STRATEGIES) for c in (3, 1)]
    (table,) = report.points_tables(points)
    shown = text(table)
    assert "scope tensor, 5.00% large (default)" in shown
    assert shown.index("1 cell ") < shown.index("3 cells")
    for place, name in enumerate(STRATEGIES):
        row, *found = cells(shown, name)
        assert row == STRATEGIES[name].row
        best = "◆ " * (name == "redundancy")  # all cost the same
        assert found == [f"{best}{10 + place}.00 [1.25]", f"{best}{30 + place}.00 [3.25]"]


def test_a_point_that_is_missing_leaves_its_place_empty():
    points = [point("raw", 1, values=(0.1,)), point("raw", 3, values=(0.2,)), point("sign", 3, values=(0.3,))]
    (table,) = report.points_tables(points)
    shown = text(table)
    assert columns(shown, "3 cells", "raw") == "20.00 [3.25]"
    assert columns(shown, "3 cells", "sign") == "◆ 30.00 [3.25]"
    assert columns(shown, "1 cell", "sign") != "30.00 [3.25]"


def test_a_point_says_the_interval_that_its_looks_leave():
    wide = replace(point(values=(0.5, 0.6, 0.7)), ci95=(0.4, 0.8))
    assert report.cell_text(wide) == "60.00 ± 20.00 [1.25]"


def test_what_is_no_share_is_shown_in_its_own_unit():
    decibels = point(values=(11.5, 12.5), metric="sqnr_db", clean=None)
    assert report.cell_text(decibels) == "12.00 ± 6.35 [1.25]"  # t(0.975, 1)·s/√2 = 12.7062·0.5
    (table,) = report.points_tables([decibels])
    assert "output SQNR in dB" in text(table)
    assert report.cell_text(point(values=(0.5,), metric="mine")) == "0.50 [1.25]"
    assert report.cell_text(point(values=(0.5,), metric="agreement")) == "50.00 [1.25]"


def test_a_table_of_points_says_what_stands_in_brackets():
    (table,) = report.points_tables([point()])
    assert "[all-in cells per original weight]" in " ".join(text(table).split())


def test_without_trials_there_is_only_what_it_costs():
    (table,) = report.points_tables([point("raw", 3, values=()), point("sign", 3, values=())])
    assert cells(text(table), "raw")[1:] == ["no trial [3.25]"]
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
        f"{title}{report.preset_title(point(preset=preset))}" for title in titles for preset in (DEFAULT, PAPER)
    ]
    assert [table.title for table in report.points_tables(points)] == expected
    report.plot_points(points)
    assert [axis.get_title() for axis in pyplot.gcf().axes] == expected
    differences = report.differences_table(points)
    assert differences is not None
    assert list(differences.columns[0].cells) == expected


def test_tables_of_models_hold_their_own_points():
    points = [point("raw", 1, values=(0.1 * place,), model=name) for place, name in enumerate(("one", "two"))]
    first, second = (text(table) for table in report.points_tables(points))
    assert cells(first, "raw")[1:] == ["◆ 0.00 [1.25]"]
    assert cells(second, "raw")[1:] == ["◆ 10.00 [1.25]"]


def test_channels_that_are_called_alike_stand_apart():
    near = GaussianNoise(sigma=0.1000001)
    assert str(near) == str(QUIET)
    assert len(list(report.points_tables([point(), point(channel=near)]))) == 2


# ------------------------------------------------------------------------------------------------- Pareto front


def assert_front(found: Sequence[Point], points: Sequence[Point]) -> None:
    """Fail unless `found` are those of `points` that are the best for what they cost, and the cheapest so good."""
    have = [(one, one.evaluation.mean) for one in points if one.evaluation.mean is not None]
    expected = [
        one
        for one, mean in have
        if mean == max(other for point, other in have if point.cost <= one.cost)
        and one.cost == min(point.cost for point, other in have if other >= mean)
    ]
    assert [id(one) for one in found] == [id(one) for one in expected]


some_points = st.lists(
    st.tuples(st.integers(1, 6), st.none() | st.integers(0, 6)).map(
        lambda one: point(analog=100 * one[0], values=() if one[1] is None else (one[1] / 8,))
    ),
    max_size=9,
)


@given(some_points)
def test_the_front_is_what_nothing_beats(points):
    found = report.pareto(points)
    assert_front(found, points)
    assert report.pareto(found) == found
    assert bool(found) is any(one.evaluation.values for one in points)


def test_of_points_that_are_the_same_all_are_on_the_front():
    assert len(report.pareto([point("raw"), point("sign"), point("mapping", values=(0.1,))])) == 2


def test_a_point_whose_mean_is_nan_is_on_no_front():
    assert report.pareto([point(values=(math.nan,)), point("raw", 3)]) == [point("raw", 3)]


@pytest.mark.parametrize("place", [0, 1])
def test_assert_front_rejects_what_is_missing_or_too_much(place):
    points = [point("raw", 1, values=(0.1,)), point("sign", 3, values=(0.3,)), point("raw", 3, values=(0.2,))]
    assert_front(points[:2], points)
    for wrong in (points[place : place + 1], points, [points[0], points[2]]):
        with pytest.raises(AssertionError):
            assert_front(wrong, points)


def test_what_is_on_the_front_of_its_panel_is_marked():
    points = [point("raw", c, p, values=(v,)) for p in (DEFAULT, PAPER) for c, v in ((1, 0.3), (3, 0.2), (9, 0.9))]
    for table in report.points_tables(points):
        assert cells(text(table), "raw")[1:] == ["◆ 30.00 [1.25]", "20.00 [3.25]", "◆ 90.00 [9.25]"]


# -------------------------------------------------------------------------------------------------- differences


def test_differences_from_the_first_strategy_by_hand():
    points = [
        point("raw", 1, values=(0.10, 0.20, 0.30)),
        point("raw", 3, values=(0.50, 0.50, 0.50)),
        point("sign", 1, values=(0.15, 0.30, 0.45)),
        point("sign", 3, values=(0.50, 0.40, 0.30)),
    ]
    table = report.differences_table(points)
    assert table is not None
    name, strategy, count, above, between = (list(column.cells) for column in table.columns)
    assert table.columns[3].header == "above raw"
    assert name == [report.preset_title(points[0])] * 2
    assert (strategy, count) == (["sign"] * 2, ["1", "3"])
    # 5, 10 and 15 points: 10 ± 4.302653·5/√3; and 0, -10 and -20: -10 ± 4.302653·10/√3
    assert above == ["+10.00", "-10.00"]
    assert between == ["-2.42 to +22.42", "-34.84 to +14.84"]
    assert "paired: trials of one number share their noise" in " ".join(text(table).split())


def test_each_strategy_is_compared_at_its_cells_and_in_its_panel():
    points = [
        point(name, c, preset, values=(base + more + c / 100,))
        for preset, base in ((DEFAULT, 0.1), (PAPER, 0.3))
        for name, more in (("sign", 0.0), ("mapping", 0.2), ("redundancy", 0.4))
        for c in (1, 3)
    ]
    table = report.differences_table(points)
    assert table is not None
    name, strategy, count, above, between = (list(column.cells) for column in table.columns)
    assert strategy == ["mapping", "mapping", "redundancy", "redundancy"] * 2
    assert count == ["1", "3"] * 4
    assert above == ["+20.00", "+20.00", "+40.00", "+40.00"] * 2
    assert between == [""] * 8  # one trial has no interval
    assert name == [report.preset_title(points[0])] * 4 + [report.preset_title(points[-1])] * 4


def test_differences_of_what_is_no_share_are_in_its_own_unit():
    points = [point(name, values=(value,), metric="sqnr_db") for name, value in (("raw", 10.0), ("sign", 12.5))]
    shown = text(report.differences_table(points))
    assert "+2.50" in shown
    assert "output SQNR in dB" in shown


def test_one_strategy_has_nothing_to_be_compared_with():
    assert report.differences_table([point("sign", 1), point("sign", 3)]) is None


def test_without_trials_no_difference_is_told():
    table = report.differences_table([point("raw", values=()), point("sign", values=())])
    assert table is None or "nan" not in text(table)


# -------------------------------------------------------------------------------------------------- evaluation


def test_an_evaluation_shows_all_its_numbers():
    found = Evaluation(
        metric="top1", samples=1234, clean=0.9, values=(0.5, 0.6, 0.7), reference=0.95, sqnr_db=(10.0, 11.0, 15.0)
    )
    shown = text(report.evaluation_table(found))
    assert "top1 on 1,234 samples" in shown
    assert cells(shown, "original model") == ["0.9500"]
    assert cells(shown, "without noise") == ["0.9000"]
    assert cells(shown, "with noise, mean of 3 trials") == ["0.6000"]
    assert cells(shown, "standard deviation over trials") == ["0.1000"]
    # 0.6 ± 4.30265 · 0.1/√3
    assert cells(shown, "95 % interval of the mean") == ["0.3516 to 0.8484"]
    assert cells(shown, "output SQNR, mean") == ["12.0 dB"]
    assert "the error of a finite test set is not in it" in " ".join(shown.split())


def test_an_evaluation_without_trials_says_so_by_saying_less():
    shown = text(report.evaluation_table(Evaluation(metric="top1", samples=5, clean=0.9, values=())))
    assert cells(shown, "without noise") == ["0.9000"]
    assert not any(word in shown for word in ("original", "with noise", "interval", "SQNR", "deviation", "None"))


# --------------------------------------------------------------------------------------------------- inspect


def test_an_inspection_shows_what_would_be_stored_and_why_the_rest_is_not():
    rows = oa.inspect(
        model("""
        net (float[4, 20] x) => (float[4, 60] y) <float[20, 60] w = random, float[60] b = random, float[5] c = random> {
            y = Gemm(x, w, b)
        }""")
    ).rows
    stored, skipped = (text(table) for table in report.inspection_tables(rows, protected=False))
    assert "to be stored" in stored
    assert cells(stored, "w") == ["20×60", "FLOAT", "Gemm", "1,200", f"{rows[0]['largest']:.4g}"]
    assert cells(stored, "total") == ["1,200"]
    assert cells(skipped, "rank 1, below 2") == ["2", "b"]


def test_where_nothing_is_skipped_there_is_one_table():
    (shown,) = report.inspection_tables(oa.inspect(made("two scales")).rows, protected=True)
    assert cells(text(shown), "total") == ["768"]
    assert "to be stored" not in text(shown)


# --------------------------------------------------------------------------------------------------- account


def test_the_account_shows_every_line_of_the_cost():
    manifest = oa.protect(made("two scales"), channel=QUIET, sparsity=0.5, prune_scope="tensor").manifest
    tensors, cost, yardsticks = (text(table) for table in report.account_tables(manifest))
    totals = manifest.totals
    lines = {
        "analog levels (the paper's r_avg)": totals.analog_cells,
        "header: sign and class, 2 bits a cell": totals.header_cells,
        "mask: which weights are stored (bitmap: 768 bits)": totals.mask_cells,
        "codebook: α and β": totals.codebook_cells,
        "all-in": totals.all_in_cells,
    }
    for name, count in lines.items():
        assert cells(cost, name) == [f"{count:,}", f"{count / 384:.3f}", f"{count / 768:.3f}"]
    assert f"384 of 768 weights stored; levels and headers alone: {(totals.analog_cells + 384) / 384:.3f}" in cost
    for entry in manifest.tensors:
        small, large = entry.classes
        last = entry.cells["codebook"][1] - 1
        row = ["small", f"{small.count:,}", "1", f"{small.alpha:.4g}", f"{small.low:.3g} to {small.high:.3g}"]
        assert cells(tensors, entry.key) == [*row, f"{entry.cells['level'][0]:,} to {last:,}"]
        assert re.search(rf"large +{large.count} +20 +{re.escape(f'{large.alpha:.4g}')}", tensors)
    for name, bits in (("float32", 32), ("float16", 16), ("int8", 8), ("int4", 4)):
        dense = 768 * bits
        against = f"{dense // 2 / totals.all_in_cells:.2f}×"
        assert cells(yardsticks, f"{name}, dense") == [f"{dense:,}", f"{dense // 2:,}", against]
        assert cells(yardsticks, f"{name}, pruned")[1] == f"{384 * bits // 2 + totals.mask_cells:,}"


@pytest.mark.parametrize(("strategy", "names"), [("sign", ["all"]), ("mapping", ["small", "large"])])
def test_classes_are_called_by_their_names(strategy, names):
    manifest = oa.protect(made("matmul"), channel=QUIET, strategy=strategy).manifest
    shown = text(next(iter(report.account_tables(manifest))))
    assert [name for name in ("all", "small", "large") if re.search(rf"\b{name} +\d", shown)] == names


def test_where_nothing_is_pruned_no_yardstick_is():
    *_, yardsticks = report.account_tables(oa.protect(made("matmul"), channel=QUIET, bits_per_cell=1).manifest)
    shown = text(yardsticks)
    assert "pruned" not in shown
    assert cells(shown, "int8, dense")[0] == "2,048"
    assert "cells at 1 bit " in shown
    assert "cells at 2 bits" not in shown


# -------------------------------------------------------------------------------------------------- channels


def numbers_of(shown: str) -> list[list[float]]:
    lines = [line.split() for line in shown.splitlines() if re.fullmatch(r"[\s\d.e+-]+", line) and line.strip()]
    return [[float(word) for word in line] for line in lines]


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
    assert "span {:.4f} to {:.4f}".format(*channel.span) in shown
    assert f"capacity {of_channel(channel).bits:.2f} bits per cell" in shown
    assert rows.shape[1] == (5 if name == "pcm" else 4)


def test_a_measured_channel_shows_what_is_programmed_in_the_unit_of_the_device():
    channel = pcm()
    shown = text(report.channel_table(channel, points=5))
    assert f"input, {channel.input_scale.unit}" in shown
    programmed = channel.programmed(np.linspace(*channel.span, 5))
    assert [row[4] for row in numbers_of(shown)] == [float(f"{value:.4g}") for value in programmed]


def test_a_channel_that_is_not_gaussian_shows_the_mean_of_its_reads():
    channel: Channel = LimitedPrecision(inner=QUIET, read_bits=8)
    shown = text(report.channel_table(channel, points=3))
    rows = np.array(numbers_of(shown))
    assert "mean read" in shown
    # 2,000 reads, and half a step of a converter of 8 bits, which reads more than the span: 1/256 of 4 at most
    np.testing.assert_allclose(rows[:, 4], rows[:, 0], atol=4 * 0.1 / math.sqrt(2000) + 2 / 256)
    np.testing.assert_allclose(rows[:, 1], 0.1, rtol=4 / math.sqrt(2 * 2000) + 0.02)


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
    assert cells(shown, "span") == ["{:.4f} to {:.4f}".format(*found.channel.span)]
    stds = found.channel.stds
    assert cells(shown, "standard deviation") == [f"{min(stds):.4f} to {max(stds):.4f}"]
    assert cells(shown, "capacity, bits per cell") == [f"{of_channel(found.channel).bits:.2f}"]
    assert ("variance between devices" in shown) is group
    if found.between_share is not None:
        assert cells(shown, "variance between devices") == [f"{found.between_share:.0%}"]


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
    report.plot_points(points)(path)
    assert size_of(path) == (round(4.8 * DPI) * panels, round(4.2 * DPI))
    assert pyplot.get_fignums() == []


def test_points_are_drawn_as_svg(tmp_path):
    path = tmp_path / "plot.svg"
    report.plot_points(POINTS)(path)
    assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert len(path.read_text()) < 500_000


def curves(axis: Any) -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Return, by label, what is drawn with error bars: x, y and half the length of the bar."""
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container
        halves = [(high - low) / 2 for (_, low), (_, high) in (segment for segment in bars.get_segments())]
        found[container.get_label()] = (list(line.get_xdata()), list(line.get_ydata()), halves)
    return found


def test_the_plot_shows_accuracy_against_what_it_costs():
    report.plot_points(POINTS)
    axes = pyplot.gcf().axes
    assert [axis.get_title() for axis in axes] == [report.preset_title(POINTS[0]), report.preset_title(POINTS[-1])]
    for axis in axes:
        found = curves(axis)
        assert list(found) == list(STRATEGIES)
        for x, y, half in found.values():
            assert x == [1.25, 3.25]
            np.testing.assert_allclose(y, [15, 35])
            # from 0, where the interval is cut off, to t(0.975, 1) · s/√2 above the mean
            np.testing.assert_allclose(half, [(mean + 12.7062 * 5) / 2 for mean in (15, 35)], rtol=1e-5)
        assert axis.get_xscale() == "log"
        assert [list(line.get_ydata()) for line in axis.get_lines() if line.get_linestyle() == ":"] == [[75, 75]]
        low, high = axis.get_ylim()
        assert low >= 0
        assert high <= 100


def test_one_trial_has_no_error_bar():
    report.plot_points([point(values=(0.5,))])
    (found,) = curves(pyplot.gcf().axes[0]).values()
    assert found == ([1.25], [50.0], [0.0])


def test_nothing_is_drawn_of_a_strategy_without_points():
    points = [point("raw", 1, DEFAULT), point("raw", 1, PAPER), point("sign", 1, PAPER)]
    report.plot_points(points)
    default, paper = pyplot.gcf().axes
    assert list(curves(default)) == ["raw"]
    assert list(curves(paper)) == ["raw", "sign"]


def rings(axis: Any) -> list[tuple[float, float]]:
    """Return where the rings of a panel lie."""
    (found,) = [held for held in axis.collections if held.get_label() == "Pareto front"]
    assert found.get_facecolors().size == 0  # what they mark is seen through them
    return [(float(x), float(y)) for x, y in found.get_offsets()]


def test_rings_lie_on_the_pareto_front_of_each_panel():
    points = [
        point(name, c, preset, values=(value * base,))
        for preset, base in ((DEFAULT, 1.0), (PAPER, 0.5))
        for name, c, value in (("raw", 1, 0.3), ("raw", 3, 0.4), ("sign", 1, 0.35), ("sign", 3, 0.3))
    ]
    report.plot_points(points)
    for axis, here in zip(pyplot.gcf().axes, (points[:4], points[4:]), strict=True):
        front = report.pareto(here)
        assert [(one.strategy, one.cells) for one in front] == [("raw", 3), ("sign", 1)]
        assert rings(axis) == [(one.cost, 100 * (one.evaluation.mean or 0)) for one in front]
        drawn = [(x, y) for xs, ys, _ in curves(axis).values() for x, y in zip(xs, ys, strict=True)]
        assert set(rings(axis)) < set(drawn)


def test_bars_are_the_intervals_that_the_looks_leave():
    report.plot_points([replace(point(values=(0.5, 0.6, 0.7)), ci95=(0.35, 0.85))])
    ((_, _, half),) = curves(pyplot.gcf().axes[0]).values()
    np.testing.assert_allclose(half, [25])


def test_what_is_no_share_is_drawn_in_its_own_unit():
    report.plot_points([point(values=(111.0, 112.0), metric="sqnr_db", clean=None)])
    (axis,) = pyplot.gcf().axes
    (found,) = curves(axis).values()
    assert found[1] == [111.5]
    assert rings(axis) == [(1.25, 111.5)]
    assert axis.get_ylabel() == "output SQNR in dB"
    assert axis.get_ylim()[1] > 112  # only shares end at 100
    assert not [line for line in axis.get_lines() if line.get_linestyle() == ":"]


def test_points_are_joined_in_the_order_of_what_they_cost():
    report.plot_points([point("sign", c, values=(c / 10,)) for c in (3, 1, 9)])
    ((x, y, _),) = curves(pyplot.gcf().axes[0]).values()
    assert x == [1.25, 3.25, 9.25]
    np.testing.assert_allclose(y, [10, 30, 90])


@pytest.mark.parametrize(("name", "panels"), [("gaussian", 3), ("pcm", 5), ("rram-milo", 3)])
def test_a_channel_is_drawn(name, panels, tmp_path):
    path = tmp_path / "channel.png"
    report.plot_channel(channels.resolve(name))(path)
    assert size_of(path) == (round(4.8 * DPI) * panels, round(3.8 * DPI))


def test_a_channel_is_drawn_as_it_reads():
    report.plot_channel(QUIET)
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
    save = report.plot_channel(found.channel, (found.inputs, found.outputs))
    pairs = next(line for line in pyplot.gcf().axes[0].get_lines() if line.get_label() == "measured")
    assert sorted(zip(*pairs.get_data(), strict=True)) == sorted(zip(found.inputs, found.outputs, strict=True))
    path = tmp_path / "plot.png"
    save(path)
    size_of(path)


def test_of_very_many_pairs_some_of_all_inputs_are_drawn():
    channel = pcm()
    inputs = np.repeat(np.linspace(-1, 1, 10), 4000)
    report.plot_channel(channel, (inputs, np.zeros(40_000)))
    pairs = next(line for line in pyplot.gcf().axes[0].get_lines() if line.get_label() == "measured")
    assert 0 < len(pairs.get_xdata()) <= 5000
    assert len(set(pairs.get_xdata())) == 10


def test_the_device_is_drawn_with_its_mean_and_inverse():
    channel = pcm()
    report.plot_channel(channel)
    device, inverse = pyplot.gcf().axes[:2]
    (mean,) = device.get_lines()
    assert [tuple(column) for column in mean.get_data()] == [channel.inputs, channel.means]
    (line,) = inverse.get_lines()
    level, found = line.get_data()
    np.testing.assert_allclose(np.interp(found, channel.inputs, channel.means), level, atol=1e-6)  # f is μ⁻¹


def test_matplotlib_is_there_or_its_absence_is_said(monkeypatch):
    assert report.can_plot()
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    assert not report.can_plot()
    assert "pip install 'onnx-analog[report]'" in report.NO_PLOTS


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
    level = inside(np.linspace(*channel.span, 3).astype(np.float32), channel.span)
    shown = text(report.channel_table(channel, points=3))
    for scale, std in zip(channel.scale(level, cells=500), channel.std(level), strict=True):
        assert f"{float(scale):.4f}" in shown
        assert f"{float(std / np.sqrt(500)):.4f}" not in shown
