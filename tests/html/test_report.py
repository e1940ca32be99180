"""The report: one page that is well formed, complete in itself, and says what the result says."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog.channels.modifiers import NONE
from onnx_analog.cli import main
from onnx_analog.cli.harm_tables import tables_of
from onnx_analog.cli.report import evaluation_table
from onnx_analog.coding.streams import LEVELS, Line
from onnx_analog.errors import OptionError, OutputError
from onnx_analog.html import charts, contents, svg
from onnx_analog.html import report as reports
from onnx_analog.html.contents import sweep as of_sweep
from onnx_analog.html.contents import tune as of_tune
from onnx_analog.html.page import Page, render
from onnx_analog.html.sources import bibtex_of, references
from onnx_analog.html.stored import (
    Memory,
    bars,
    cell_numbers,
    cells_of_tensors,
    cost_section,
    cost_table,
    digital,
    weights_of,
)
from onnx_analog.points import name_of, panels, series
from onnx_analog.study import choosing
from onnx_analog.study.rivals import RIVALS
from onnx_analog.tuning import candidates
from tests.browser import CHROMIUM as BROWSER
from tests.browser import browser
from tests.models import model, proto
from tests.packages import needs
from tests.run.nets import LINEAR, drawn, rows

pytestmark = [needs("matplotlib"), needs("jinja2")]

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = 'w"><script>alert(1)</script><img src=http://example.org/x>&$\\frac{1}{2}$\x1b[31m\x00'
QUIET = "gaussian:sigma=0.01"


class Reader(HTMLParser):
    """Reads a page: which tags are open, which addresses it names, and its text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.faults.append(f"{tag} has {name}")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def faults(text: str) -> list[str]:
    """Return what is wrong with a page."""
    reader = read(text)
    found = [*reader.faults, *(f"<{tag}> is not closed" for tag in reader.open)]
    found += [f"it names {address}" for address in reader.addresses if not address.startswith(("#", "data:,"))]
    found += [f"it has <{tag}>" for tag in ("script", "iframe", "object", "embed") if tag in reader.tags]
    found += [f"the id {name} is there twice" for name in {each for each in reader.ids if reader.ids.count(each) > 1}]
    links = {address[1:] for address in reader.addresses if address.startswith("#")}
    links |= set(re.findall(r"url\(#([^)]+)\)", text))
    found += [f"nothing has the id {name}" for name in links - set(reader.ids)]
    found += [f"it loads {url}" for url in re.findall(r"url\((?!#)[^)]*\)|@import[^;]*", text)]
    found += [f"the colour {each} is not the page's" for each in re.findall(r'style="[^"]*(#[0-9a-f]{6})', text)]
    found += ["it has a control character"] if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text) else []
    return found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("<p><b>x</p></b>", "closes nothing"),
        ("<p>x", "is not closed"),
        ("<img src='http://example.org/x.png'>", "it names"),
        ("<script></script>", "it has <script>"),
        ("<p onclick='x()'></p>", "p has onclick"),
        ("<p id='a'></p><p id='a'></p>", "twice"),
        ("<p style='clip-path: url(#none)'></p>", "nothing has the id none"),
        ("<style>@import 'x.css';</style>", "it loads"),
        ('<p style="fill: #0072b2"></p>', "is not the page's"),
        ("<p>\x1b</p>", "control character"),
    ],
)
def test_a_page_that_is_wrong_is_found(text, fault):
    assert any(fault in each for each in faults(text))


def test_a_page_that_is_right_passes():
    assert faults("<!DOCTYPE html><p id='a'>x<br></p><a href='#a'>y</a>") == []


# ------------------------------------------------------------------------------------------------------ results


def evaluated():
    stored = oa.protect(model(LINEAR), channel=QUIET, cells_small=1, cells_large=3)
    result = oa.evaluate(stored, rows(100), trials=3, reference=model(LINEAR), limit=True)
    return result, {"model": stored}


def swept():
    result = oa.sweep(
        model(LINEAR), rows(60), strategy=["sign", "redundancy"], cells=[1, 3], channel=QUIET, rivals=True, limit=True,
        trials=2, engine="serial",
    )  # fmt: skip
    return result, {}


def tuned():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "STEPS", candidates.STEPS[::3])
        return oa.tune(model(LINEAR), rows(400), max_drop=20, trials=2, channel=QUIET), {}


def checked():
    return oa.check(model(LINEAR), rows(300), max_drop=20, channel=QUIET), {}


def sensed():
    return oa.sensitivity(model(LINEAR), rows(100), trials=2, channel=QUIET), {}


MADE = {"sensitivity": sensed, "evaluate": evaluated, "sweep": swept, "tune": tuned, "check": checked}


@pytest.fixture(scope="module")
def results():
    return {name: make() for name, make in MADE.items()}


@pytest.fixture
def page(results, tmp_path):
    """Return a function that writes the report of a result and returns its text."""

    def text(name, **more):
        result, given = results[name]
        oa.report(result, tmp_path / "out.html", force=True, **{**given, **more})
        return (tmp_path / "out.html").read_text(encoding="utf-8")

    return text


@pytest.mark.parametrize("name", MADE)
def test_the_page_is_well_formed_and_complete_in_itself(page, name):
    text = page(name, command="onnx-analog something")
    assert faults(text) == []
    assert {"svg", "table", "figure"} <= read(text).tags
    words = " ".join(" ".join(read(text).words).split())
    for part in ("onnx-analog something", "@inproceedings{isik2020noisy,", "onnxruntime", "How it was made", "seed"):
        assert part in words
    assert ("not at hand" in words) is False


@pytest.mark.parametrize("name", MADE)
def test_the_same_result_is_the_same_bytes(page, name):
    assert page(name) == page(name)


@pytest.mark.parametrize("name", MADE)
def test_the_page_can_be_read_on_a_phone_in_the_dark_and_in_print(page, name):
    text = page(name)
    for part in ('name="viewport"', "prefers-color-scheme: dark", "@media print", 'class="scroll"', "currentColor"):
        assert part in text


def test_the_answer_comes_first(page, results):
    check, _ = results["check"]
    text = page("check")
    assert text.index('class="verdict yes"') < text.index("<h2>")
    words = " ".join(read(text).words)
    assert str(check)[1:] in words
    totals = check.protected.counted.totals
    assert f"{totals.ratios()['honest_cells_per_original_weight']:.3f}" in words


def test_a_check_that_fails_and_one_that_is_not_decided_look_so(results, tmp_path):
    check, _ = results["check"]
    for holds, tone in ((False, "no"), (None, "open")):
        other = replace(check, decision=replace(check.decision, holds=holds))
        oa.report(other, tmp_path / f"{tone}.html")
        assert f'class="verdict {tone}"' in (tmp_path / f"{tone}.html").read_text(encoding="utf-8")


def test_an_evaluation_without_its_model_says_that_cells_are_not_known(page):
    text = page("evaluate", model=None)
    assert "The protected model is not at hand" in text
    assert faults(text) == []


def test_a_plain_model_has_a_report_too(tmp_path):
    oa.report(oa.evaluate(model(LINEAR), rows(50)), tmp_path / "plain.html", model=model(LINEAR))
    assert faults((tmp_path / "plain.html").read_text(encoding="utf-8")) == []


def test_the_original_s_losses_and_the_goal_of_an_evaluation_are_in_words(results, tmp_path):
    result, given = results["evaluate"]
    for at_least, tone in ((0.0, "yes"), (1.0, "no")):
        oa.report(replace(result, at_least=at_least, values=(0.5, 0.6)), tmp_path / f"{tone}.html", **given)
        assert f'class="verdict {tone}"' in (tmp_path / f"{tone}.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def corrected():
    """Return a sweep of one point with correction, and an evaluation of its model."""
    given = {"correct": drawn(50, 16), "trials": 2}
    points = oa.sweep(model(LINEAR), rows(60), strategy="sign", cells=1, channel=QUIET, engine="serial", **given)
    stored = points.protected(points.points[0])
    return points, oa.evaluate(stored, rows(60), **given), stored


def test_the_bar_of_a_corrected_point_has_the_cells_of_the_correction(corrected, results, tmp_path):
    """As the paper counts: 16 bits for each of the 64 numbers of 32 channels, in cells of the side information."""
    points, _, _ = corrected
    (point,) = points.points
    expected = 16 * 64 / point.setting.plan.default.side_bits_per_cell / point.totals.original_weights
    assert of_sweep._of_correction(point, "paper") == {"correction": pytest.approx(expected)}
    for counting in ("paper", "memory"):
        parts = of_sweep._parts_of(point, counting)
        assert parts["correction"] > 0
        assert sum(parts.values()) == pytest.approx(point.cost_in(counting))
    for each in results["sweep"][0].points:
        assert "correction" not in of_sweep._parts_of(each, "paper")
        assert sum(of_sweep._parts_of(each, "paper").values()) == pytest.approx(each.cost)
    oa.report(points, tmp_path / "out.html")
    assert "correction" in " ".join(read((tmp_path / "out.html").read_text(encoding="utf-8")).words)


def test_cells_of_a_corrected_model_are_those_of_check_and_sweep_in_all_reports(corrected, page, tmp_path):
    points, evaluated, stored = corrected
    (point,) = points.points
    given = {"correct": drawn(50, 16)}
    checked = oa.check(stored, rows(60), max_drop=90, reference=model(LINEAR), max_trials=3, **given)
    harms = oa.sensitivity(stored, rows(60), trials=1, by=["stream"], **given)
    assert checked.cells_per_weight == pytest.approx(point.honest_cost)
    assert checked.paper_cells_per_weight == pytest.approx(point.cost)
    without = stored.counted.per_weight("memory")
    assert point.honest_cost > without
    for number_, result in enumerate((evaluated, checked, harms)):
        given = {"model": stored} if result is evaluated else {}
        oa.report(result, tmp_path / f"{number_}.html", **given)
        words = " ".join(read((tmp_path / f"{number_}.html").read_text(encoding="utf-8")).words)
        words = " ".join(words.split())
        assert f"cells per weight {point.honest_cost:.3f} as the memory allows" in words
        assert f"the same {point.cost:.3f} as the paper counts" in words
        assert words.count(f"{point.honest_cost - without:.3f} of them for the correction") == 1
        assert f"{without:.3f}" not in words.partition("Tensors tensor")[0]
    assert "of them for the correction" not in " ".join(read(page("evaluate")).words)
    (note,) = {str(each.caption).partition("Cells are shown without the correction: ")[2] for each in tables_of(harms)}
    assert f"{point.honest_cost:.3f}" in note


def test_a_limit_says_where_the_cells_against_it_leave_the_correction_out(corrected, tmp_path):
    _, _, stored = corrected
    for given, expected in (({}, False), ({"correct": drawn(50, 16)}, True)):
        result = oa.evaluate(stored, rows(60), trials=1, limit=True, reference=model(LINEAR), **given)
        factor = f"{result.limit.factor:.2f}"
        oa.report(result, tmp_path / "out.html", model=stored, force=True)
        words = " ".join(" ".join(read((tmp_path / "out.html").read_text(encoding="utf-8")).words).split())
        assert f"the model takes {factor} times as many" in words
        assert ("without the correction, the model takes" in words) is expected
        names, values = (list(column.cells) for column in evaluation_table(result).columns)
        name = names[values.index(f"{factor}×")]
        assert name == f"cells as the memory allows{', without the correction' * expected}, against the limit"


def test_cells_are_those_that_were_written_whichever_channel_reads_them(corrected, tmp_path):
    """A channel that is noisier than that of the model does not make its cells, or those of the correction, more."""
    _, _, stored = corrected
    given = {"correct": drawn(50, 16), "channel": "gaussian:sigma=0.16"}
    checked = oa.check(stored, rows(60), max_drop=90, reference=model(LINEAR), max_trials=3, **given)
    harms = oa.sensitivity(stored, rows(60), trials=1, by=["stream"], **given)
    evaluated = oa.evaluate(stored, rows(60), trials=2, **given)
    shown = [
        memory.per_weight("memory")
        for memory in (
            reports._memory(checked, None, None, NONE),
            reports._memory(harms, None, None, NONE),
            reports._memory(evaluated, stored, given["channel"], NONE),
        )
    ]
    assert shown == pytest.approx([checked.cells_per_weight] * 3)
    assert stored.counted.totals == checked.protected.counted.totals
    noisier = oa.protect(model(LINEAR), channel=given["channel"], strategy="sign", cells=1)
    assert noisier.counted.totals != stored.counted.totals


def test_without_trials_only_a_model_that_was_read_back_has_a_loss(results, tmp_path):
    _, given = results["evaluate"]
    unread = oa.evaluate(given["model"], rows(60), reference=model(LINEAR), trials=0)
    assert unread.drop is None
    oa.report(unread, tmp_path / "unread.html", model=given["model"])
    words = " ".join(" ".join(read((tmp_path / "unread.html").read_text(encoding="utf-8")).words).split())
    assert "The loss of" not in words
    assert "mean of 0 trials" not in words
    assert "decrease" not in words
    back = oa.evaluate(oa.readback(given["model"], decoded=True).model, rows(60), reference=model(LINEAR), trials=0)
    oa.report(back, tmp_path / "back.html")
    words = " ".join(" ".join(read((tmp_path / "back.html").read_text(encoding="utf-8")).words).split())
    assert f"decrease from the original {100 * (back.original - back.stored):+.2f} points" in words


def test_integers_are_counted_as_the_cells_beside_them():
    """Where the channel is too noisy for the correction only, all cells are those of the paper."""
    stored = oa.protect(model(LINEAR), channel=QUIET, integers=8)
    memory = Memory(protected=stored, of_correction={"paper": 1.0})
    assert stored.counted.totals.honest_cells is not None
    assert memory.counted_as == "paper"
    weights = stored.counted.totals.original_weights
    counts = {each.name: each.cells / weights for each in stored.counted.baselines() if not each.pruned}
    assert {name: digital(memory)[name] for name in ("int8", "int4")} == {
        name: counts[name] for name in ("int8", "int4")
    }
    assert all("as the paper counts" in each.note for each in cell_numbers(memory))


@pytest.mark.parametrize(("sigma", "counted"), [(0.05, True), (100.0, False)])
def test_the_chart_of_costs_says_why_cells_are_not_counted(sigma, counted):
    stored = oa.protect(model(LINEAR), channel=f"gaussian:sigma={sigma}")
    why = stored.counted.not_counted
    assert (why is None) is counted
    (chart,) = cost_section(Memory(protected=stored)).charts
    assert (f"As the memory allows, cells are not counted: {why}." in str(chart)) is not counted


def test_the_bars_of_a_corrected_model_add_up_to_its_cells(corrected):
    points, evaluated, stored = corrected
    (point,) = points.points
    memory = reports._memory(evaluated, stored, None, NONE)
    assert [sum(bar.parts.values()) for bar in bars(memory)] == pytest.approx([point.honest_cost, point.cost])
    shown = dict(zip(("memory", "paper"), map(memory.per_weight, ("memory", "paper")), strict=True))
    assert shown == pytest.approx({"memory": point.honest_cost, "paper": point.cost})
    assert "correction" not in {part for bar in bars(Memory(protected=stored)) for part in bar.parts}


def test_plain_integers_are_not_called_the_best_rival():
    """Of 8 and 4 bits, those of 4 take fewer cells; codes take still fewer, which `tune` finds."""
    eight, four = list(cell_numbers(Memory(protected=oa.protect(model(LINEAR), channel=QUIET))))[-2:]
    assert eight.name.startswith("as integers of 8 bits: int8")
    assert four.name.startswith("cheapest integers shown: int4")
    assert float(four.value) < float(eight.value)
    assert "bits are held without errors; codes can take fewer cells: see `tune`" in four.note
    assert not any("rival" in each.name for each in (eight, four))


def test_a_sweep_names_its_rival_and_each_point(page, results):
    result, _ = results["sweep"]
    words = " ".join(read(page("sweep")).words)
    assert "best digital rival" in words
    assert all(point.strategy in words for point in result.points)
    assert all(f"{point.cost:.2f}" in words for point in result.points)


def test_a_sweep_says_which_mean_is_best_where_a_cheaper_point_cannot_be_told_from_it(results, tmp_path):
    result, _ = results["sweep"]
    cheap, dear = sorted(result.points, key=lambda point: point.honest_cost)[:: len(result.points) - 1]
    points = [
        replace(point, evaluation=replace(point.evaluation, values=values), ci95=ends)
        for point, values, ends in ((cheap, (0.95, 0.97), (0.83, 1.0)), (dear, (0.97, 0.98), (0.93, 1.0)))
    ]
    oa.report(replace(result, points=tuple(points), protecting=None), tmp_path / "out.html")
    words = " ".join(read((tmp_path / "out.html").read_text(encoding="utf-8")).words)
    assert "the cheapest of 2 points that these trials find as good as the best, with agreement 96.00 %" in words
    assert "The best mean is that of" in words
    assert f"agreement 97.50 % at {dear.honest_cost:.2f} cells per weight" in words


def test_a_sweep_shows_the_tensors_of_its_cheapest_point(page, results):
    result, _ = results["sweep"]
    best = choosing.cheapest(result.points)
    words = read(page("sweep")).words
    (title,) = [word for word in words if word.strip().lower() == f"{series(best)}: tensors".lower()]
    entry = result.protected(best).manifest.tensors[0]
    shown = words[words.index(title) :]
    assert entry.key in shown
    memory = Memory(protected=result.protected(best), counting="memory")
    assert f"{cells_of_tensors(memory)[0][0]:,}" in shown


@pytest.mark.parametrize(("cells", "channels"), [([1], 1), ([1], 3)], ids=["few", "many"])
def test_the_best_points_of_several_tables_are_told_apart(cells, channels, tmp_path):
    """By the preset, where model and channel do not; more than four are in a table, and not in sentences."""
    noisy = [f"gaussian:sigma=0.0{number}" for number in range(1, 1 + channels)]
    found = oa.sweep(
        model(LINEAR), rows(60), strategy="redundancy", cells=cells, channel=noisy, preset=["default", "isik2020"],
        trials=2, engine="serial",
    )  # fmt: skip
    oa.report(found, tmp_path / "out.html")
    told = read((tmp_path / "out.html").read_text(encoding="utf-8"))
    verdict = of_sweep._of_sweep(found, None, "memory").verdict
    presets = ["granularity tensor, 5.00 % large (default)", "granularity model, 0.25 % large (as in the paper)"]
    if channels == 1:
        assert all(verdict.lower().count(preset) == 1 for preset in presets)
        assert "The best points" not in told.words
    else:
        assert verdict == "The best point of each of 6 tables is below."
        words = " ".join(" ".join(told.words).split())
        (rows_of,) = re.findall(r"The best points (.*?) Cells are counted", words)
        assert [rows_of.count(preset) for preset in presets] == [3, 3]
        assert all(rows_of.count(f"σ 0.0{number}") == 2 for number in range(1, 4))
        assert "e−" not in words  # all points lose alike, but for rounding: no axis shows that


def test_the_table_of_best_points_names_each_rival_once(results):
    result, _ = results["sweep"]
    (panel,) = panels(result.points)
    rivals = [point for point in result.points if point.setting.name in RIVALS]
    best, rival = (of_sweep._best(points, "memory") for points in (result.points, rivals))
    ((shown, text),) = of_sweep._best_and_rival(panel, "memory")
    assert shown is best
    assert text.startswith("the same" if rival is best else name_of(rival))
    alone = replace(panel, gridded=tuple(point for point in panel.points if point not in rivals), planned=())
    ((_, none),) = of_sweep._best_and_rival(alone, "memory")
    assert none == "–"


def test_a_sweep_that_was_changed_has_a_report_without_tensors(results, tmp_path):
    result, _ = results["sweep"]
    oa.report(replace(result, protecting=None), tmp_path / "out.html")
    assert not [word for word in read((tmp_path / "out.html").read_text(encoding="utf-8")).words if "tensors" in word]


def test_a_sweep_of_no_trials_and_one_without_points_have_reports(tmp_path):
    none = oa.sweep(model(LINEAR), rows(40), cells=1, channel=QUIET, trials=0, engine="serial")
    for number, result in enumerate((none, replace(none, points=()))):
        oa.report(result, tmp_path / f"{number}.html")
        assert faults((tmp_path / f"{number}.html").read_text(encoding="utf-8")) == []


def test_tune_shows_every_tensor_and_its_verdict(page, results):
    result, _ = results["tune"]
    words = " ".join(read(page("tune")).words)
    assert result.verdict in words
    assert all(row["tensor"] in words and row["scheme"] in words for row in result.rows())


def test_tune_says_how_each_table_of_cells_counts(page):
    words = " ".join(read(page("tune")).words)
    assert "Cells are counted as the memory allows." in words.partition("The plan ")[2]
    assert "cells, as the memory allows" in words.partition("Tensors ")[2]
    assert "cells, as the paper counts" not in words


def test_tune_says_how_inputs_were_made_and_what_samples_were_for(page, results, tmp_path):
    result, _ = results["tune"]
    words = " ".join(" ".join(read(page("tune")).words).split())
    assert "samples 400: 40 measure sensitivities, 40 correct, 80 are searched with, 240 verify" in words
    assert "SHA-256" not in words  # nothing was a file
    record = replace(result.plan.verified, data_sha256="d" * 64)
    best = replace(result.best, plan=replace(result.plan, verified=record))
    of_file = replace(result, best=best, preprocessing="'x' from images")
    oa.report(of_file, tmp_path / "of_file.html")
    words = " ".join(" ".join(read((tmp_path / "of_file.html").read_text(encoding="utf-8")).words).split())
    assert "inputs 'x' from images" in words
    assert f"SHA-256 of the data {'d' * 64}" in words
    assert "SHA-256 of the model" not in words


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (("bch", "bch"), "each digital stream with the code that it needs"),
        (("bch", "none"), "each digital stream with the code of its scheme, if it has one"),
        (("none", None), "no stream has a code"),
    ],
)
def test_the_table_of_costs_says_which_streams_have_a_code(codes, said):
    streams = [Line(name=name, bits=9, code=code, cells=9) for name, code in zip(("sign", "class"), codes, strict=True)]
    manifest = SimpleNamespace(
        totals=SimpleNamespace(original_weights=9), honest=[Line(name=LEVELS, cells=9), *streams]
    )
    memory = SimpleNamespace(manifest=manifest, correction=lambda _: ())
    assert cost_table(memory).caption == f"As the memory allows: {said}."


def test_outputs_in_decibels_have_a_report(tmp_path):
    result = oa.check(model(LINEAR), rows(100, labels=False), min_sqnr=10, channel=QUIET)
    oa.report(result, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert faults(text) == []
    assert "SQNR" in text


def test_a_tuned_ratio_is_named_and_what_is_not_verified_has_a_dash(tmp_path):
    tuned = oa.tune(model(LINEAR), rows(200, labels=False), min_sqnr=12, channel=QUIET, decoding="none")
    tuned = replace(tuned, analog=replace(tuned.best, holds=None))
    words = " ".join(str(contents.page_of(tuned, reports._memory(tuned, None, None, NONE), "memory")).split())
    assert "name='SQNR', value='" in words
    assert "name='lost'" not in words
    assert "Divergence in shares of the power of the outputs." in words
    row = of_tune._answer_row(tuned, tuned.analog)
    assert row[-1] == "–"
    assert of_tune._answer_row(tuned, replace(tuned.analog))[-1] == "not decided"  # another answer


def test_a_channel_too_noisy_for_a_code_has_a_report_that_says_so(tmp_path):
    stored = oa.protect(model(LINEAR), channel="gaussian:sigma=3")
    oa.report(oa.evaluate(stored, rows(40), trials=2), tmp_path / "out.html", model=stored)
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert faults(text) == []
    assert ("cells are not counted" in text) == (stored.manifest.totals.honest_cells is None)


def test_what_stands_in_backticks_is_code_and_nothing_else_is_markup():
    page_ = Page(
        title="of `a`", verdict="see `tune` & `<b>`", tone="plain", numbers=(), warnings=("one ` alone",),
        facts=(("inputs", "`x`"),),
    )  # fmt: skip
    text = render(page_)
    assert "see <code>tune</code> &amp; <code>&lt;b&gt;</code>" in text
    assert "one ` alone" in text
    assert "<dd><code>x</code></dd>" in text


def test_a_report_is_html(results, tmp_path):
    result, given = results["evaluate"]
    with pytest.raises(OptionError, match=r"a.pdf', and a report is an HTML page: give it the suffix .html$"):
        oa.report(result, tmp_path / "a.pdf", **given)
    oa.report(result, tmp_path / "a.HTM", **given)


# ------------------------------------------------------------------------------------------------------ numbers


def test_the_bars_are_the_cells_of_the_cost_report(results):
    _, given = results["evaluate"]
    memory = Memory(protected=given["model"])
    ratios = given["model"].manifest.totals.ratios()
    honest, paper = (sum(bar.parts.values()) for bar in bars(memory))
    assert honest == pytest.approx(ratios["honest_cells_per_original_weight"])
    assert paper == pytest.approx(ratios["all_in_cells_per_original_weight"])


def test_the_bars_of_tune_add_up_to_its_answer(results):
    result, _ = results["tune"]
    added = {"memory": result.correction_cells / result.weights}
    (bar,) = bars(Memory(protected=result.protected, counting="memory", of_correction=added))
    assert sum(bar.parts.values()) == pytest.approx(result.best.cells)


def test_weights_as_read_are_those_of_trial_0(results):
    _, given = results["evaluate"]
    stored = given["model"]
    tensor = stored.tensors[0]
    written, read_back = weights_of(tensor, 5)
    np.testing.assert_array_equal(tensor.dense(read_back), stored.read(seed=5, trial=0)[tensor.key])
    np.testing.assert_array_equal(tensor.dense(written), stored.decode()[tensor.key])


def test_a_model_that_is_read_through_another_channel_is_shown_so(results):
    _, given = results["evaluate"]
    other = given["model"].through("gaussian:sigma=0.05")
    assert [scheme.channel.sigma for scheme in other.schemes] == [0.05]
    tensor, before = other.tensors[0], given["model"].tensors[0]
    error = [np.std(np.subtract(*weights_of(each, 0))) for each in (before, tensor)]
    assert error[1] > 3 * error[0]


def test_a_checked_model_is_the_one_that_is_protected_so():
    result = oa.check(model(LINEAR), rows(100), max_drop=20, channel=QUIET, cells_small=2)
    stored = oa.protect(model(LINEAR), channel=QUIET, cells_small=2)
    assert result.protected.counted.totals == stored.manifest.totals
    np.testing.assert_array_equal(result.protected.tensors[0].level, stored.tensors[0].level)
    again = oa.check(stored, rows(100), max_drop=20, reference=model(LINEAR), channel="gaussian:sigma=0.02")
    assert [scheme.channel.sigma for scheme in again.protected.schemes] == [0.02]


# ------------------------------------------------------------------------------------------------------ escaping


def hostile_model():
    plain = proto(LINEAR)
    name = plain.graph.initializer[0].name
    plain.graph.initializer[0].name = HOSTILE.replace("\x00", "")
    for node in plain.graph.node:
        for index, value in enumerate(node.input):
            if value == name:
                node.input[index] = HOSTILE.replace("\x00", "")
    return plain


def test_names_of_tensors_and_models_are_text(tmp_path):
    stored = oa.protect(hostile_model(), channel=QUIET)
    result = replace(oa.evaluate(stored, rows(40), trials=2), model=HOSTILE, warnings=(HOSTILE,))
    oa.report(result, tmp_path / "out.html", model=stored, command=f"onnx-analog {HOSTILE}")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert faults(text) == []
    assert "alert(1)" in " ".join(read(text).words)
    assert text.isprintable() or all(character.isprintable() or character == "\n" for character in text)


def test_names_in_charts_are_text(results, tmp_path):
    result, _ = results["sweep"]
    points = [replace(point, setting=replace(point.setting, name=HOSTILE)) for point in result.points[:1]]
    oa.report(replace(result, points=tuple(points), protecting=None), tmp_path / "out.html")
    assert faults((tmp_path / "out.html").read_text(encoding="utf-8")) == []


def test_all_fields_of_a_page_are_escaped():
    text = render(
        Page(title=HOSTILE, verdict=HOSTILE, tone="plain", numbers=(), command=HOSTILE, facts=((HOSTILE,) * 2,))
    )
    assert faults(text) == []


def test_a_citation_that_is_not_known_is_a_note_without_special_characters():
    assert bibtex_of("100 % of {reads} & \\more_") == "@misc{channel,\n  note = {100 \\% of \\{reads\\} \\& more\\_}\n}"


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset", "rram-wan", "rram-milo", "pcm-drift", "gaussian"])
def test_every_channel_of_the_package_has_an_entry(name):
    entries = references([oa.channel(name)])
    assert all(entry.bibtex.startswith(("@inproceedings{", "@article{", "@misc{zarcone")) for entry in entries)
    assert len(entries) == 2


def test_a_citation_of_the_same_authors_is_not_taken_for_another():
    assert "own reads" not in bibtex_of("Milo et al., IEEE IRPS (2021)")
    assert bibtex_of("Milo et al., IEDM (2019)").startswith("@misc{channel")
    assert bibtex_of("Le Gallo et al., Nature Electronics 6 (2023), pairs").startswith("@article{legallo")


def test_channels_of_one_source_keep_what_they_leave_out():
    early, late = (oa.channel(f"pcm-drift:read_after_s={time}") for time in (20, 86400))
    texts = [entry.text for entry in references([early, late, early])]
    assert len(texts) == 3
    assert all("Left out" in text for text in texts[1:])


# ------------------------------------------------------------------------------------------------------ refusals


def test_what_is_there_is_replaced_only_on_request(results, tmp_path):
    result, _ = results["check"]
    (tmp_path / "out.html").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="already exists"):
        oa.report(result, tmp_path / "out.html")
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == "mine"


def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(
        OptionError, match="result is of type object; it must be what evaluate, sweep, tune, check or sensitivity"
    ):
        oa.report(object(), tmp_path / "out.html")


def test_a_model_is_given_for_evaluations_only(results, tmp_path):
    with pytest.raises(OptionError, match="model, channel and modifiers are of the report of an evaluation"):
        oa.report(results["check"][0], tmp_path / "out.html", model=model(LINEAR))


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(LINEAR), "model.onnx")
    np.savez("test.npz", x=rows(100).inputs["x"])
    CliRunner().invoke(main, ["protect", "model.onnx", "--channel", QUIET])
    return lambda line: CliRunner().invoke(main, line.split(), prog_name="onnx-analog")


LINES = {
    "evaluate": "evaluate model.protected.onnx --data test.npz --trials 2 --channel gaussian:sigma=0.02",
    "sweep": f"sweep model.onnx --data test.npz --trials 2 --cells 1 --channel {QUIET} --engine serial --out results",
    "sensitivity": f"sensitivity model.onnx --data test.npz --trials 2 --channel {QUIET}",
    "check": f"check model.onnx --data test.npz --max-drop 60 --channel {QUIET}",
}


@pytest.mark.parametrize("name", LINES)
def test_commands_write_the_report(cli, name):
    ended = cli(f"{LINES[name]} --report out.html")
    assert ended.exit_code == 0, ended.stderr
    assert faults(Path("out.html").read_text(encoding="utf-8")) == []
    refused = cli(f"{LINES[name]} --report out.html")
    assert "'out.html' already exists: replace it with --force" in refused.stderr
    assert cli(f"{LINES[name]} --report out.html --force").exit_code == 0


@pytest.mark.parametrize("name", [*LINES, "tune"])
@pytest.mark.parametrize("missing", [("matplotlib",), ("jinja2",), ("matplotlib", "jinja2")])
def test_without_what_it_needs_the_report_is_refused_before_anything_is_computed(cli, monkeypatch, name, missing):
    monkeypatch.setattr(
        reports, "find_spec", lambda package: None if package in missing else importlib.util.find_spec(package)
    )
    line = LINES.get(name, "tune model.onnx --data test.npz --max-drop 60")
    ended = cli(f"{line} --report out.html")
    are = "is" if len(missing) == 1 else "are"
    expected = f"no report: {' and '.join(missing)} {are} not installed (pip install 'onnx-analog[report]')"
    assert ended.exit_code != 0
    assert ended.stderr.strip().endswith(expected)
    assert not any(Path(path).exists() for path in ("out.html", "results", "model.plan.json"))


def test_an_input_is_not_replaced(cli):
    before = Path("model.onnx").read_bytes()
    for name in LINES:
        target = "model.protected.onnx" if name == "evaluate" else "model.onnx"
        assert "is an input" in cli(f"{LINES[name]} --report {target} --force").stderr
    assert Path("model.onnx").read_bytes() == before


def test_a_report_may_go_into_the_folder_of_a_sweep_but_not_over_its_files(cli):
    assert cli(f"{LINES['sweep']} --report results/report.html").exit_code == 0
    assert "same file" in cli(f"{LINES['sweep']} --report results/trials.csv --force").stderr
    assert "does not exist" in cli(f"{LINES['sweep']} --report none/out.html").stderr


def test_json_stays_json(cli):
    assert json.loads(cli(f"{LINES['evaluate']} --json --report out.html").stdout)["trials"] == 2


def test_a_check_that_says_no_still_writes_its_report(cli):
    ended = cli("check model.onnx --data test.npz --max-drop 1 --channel gaussian:sigma=0.5 --report out.html")
    assert ended.exit_code == 1
    assert 'class="verdict no"' in Path("out.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ browser


def browse(page: Path) -> tuple[str, list[str], list[str]]:
    """Return a page as a browser understands it, what it wrote on the console, and the addresses it asked for."""
    log = page.with_name("net.json")
    ended = subprocess.run(
        [
            str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0",
            f"--user-data-dir={page.with_name('profile')}", f"--log-net-log={log}", "--virtual-time-budget=2000",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    complaints = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    # What the browser asks for itself has the initiator "not an origin".
    asked = re.findall(r'"initiator":"null".*?"url":"([^"]*)"', log.read_text(encoding="utf-8"))
    return ended.stdout, complaints, [url for url in asked if not url.startswith("data:")]


@pytest.mark.skipif(BROWSER is None, reason="no headless Chromium is installed")
@pytest.mark.parametrize("name", MADE)
def test_a_browser_shows_the_page_without_a_complaint_and_asks_nobody(page, tmp_path, name):
    page(name)
    shown, complaints, asked = browse(tmp_path / "out.html")
    assert "How it was made" in shown
    assert (complaints, asked) == ([], [])


@pytest.mark.skipif(BROWSER is None, reason="no headless Chromium is installed")
def test_a_page_that_complains_and_asks_is_found(tmp_path):
    text = '<!DOCTYPE html><img src="http://example.org/x.png"><script>console.error("bad")</script>'
    (tmp_path / "bad.html").write_text(text, encoding="utf-8")
    _, complaints, asked = browse(tmp_path / "bad.html")
    assert len(complaints) == 1
    assert set(asked) == {"http://example.org/x.png"}


CUT = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)"


@pytest.mark.skipif(BROWSER is None, reason="no headless Chromium is installed")
def test_no_table_is_cut_on_a_screen_and_no_page_is_wider_than_a_phone(page, tmp_path):
    url = (tmp_path / "out.html").as_uri()
    with browser(tmp_path / "profile") as opened:
        for name in MADE:
            page(name)
            assert opened.value(url, CUT, width=1280) == []
            assert opened.value(url, "document.documentElement.scrollWidth", width=390) <= 390


@pytest.mark.skipif(BROWSER is None, reason="no headless Chromium is installed")
def test_a_table_that_is_cut_is_found(page, tmp_path):
    narrow = page("tune").replace("</style>", ".part { max-width: 300px; }</style>")
    (tmp_path / "out.html").write_text(narrow, encoding="utf-8")
    with browser(tmp_path / "profile") as opened:
        assert "95 % interval" in opened.value((tmp_path / "out.html").as_uri(), CUT, width=1280)[0]


def test_a_sweep_s_rivals_of_one_kind_are_one_line_of_the_chart(page):
    legend = re.findall(r"<text[^>]*>([^<]*)<", re.findall(r"<svg.*?</svg>", page("sweep"), flags=re.DOTALL)[0])
    assert {"sign", "redundancy", "rivals: integers", "rivals: entropy-coded", "original"} <= set(legend)
    assert not [name for name in RIVALS if name in legend]


def test_colours_of_charts_are_told_apart():
    assert len({*svg.COLOURS, svg.INK, svg.GRID, svg.PAGE}) == len(svg.COLOURS) + 3


def test_a_page_does_not_replace_the_model_that_it_is_about(tmp_path):
    stored = oa.protect(model(LINEAR))
    stored.save(tmp_path / "p.onnx")
    before = (tmp_path / "p.onnx").read_bytes()
    evaluation = oa.evaluate(stored, rows(50), trials=1)
    with pytest.raises(OutputError):
        oa.report(evaluation, tmp_path / "p.onnx", model=tmp_path / "p.onnx", force=True)
    assert (tmp_path / "p.onnx").read_bytes() == before


def test_the_cells_of_a_correction_are_in_the_table_of_costs(page, results):
    tuned, _ = results["tune"]
    assert tuned.correction_numbers
    text = re.sub(r"<[^>]+>", " ", page("tune"))
    (cells, each) = re.findall(r"correction\s+–\s+([\d,]+)\s+([\d.]+)", text)[0]
    assert int(cells.replace(",", "")) == round(tuned.correction_cells)
    assert float(each) == pytest.approx(tuned.correction_cells / tuned.weights, abs=5e-5)


@pytest.mark.parametrize(
    "names", [["this model", "int8: 32 cells", "int4: 16 cells", "at most 1 point"], ["n" * 58, "at most 1 point"]]
)
def test_a_legend_is_as_wide_as_its_chart_at_most(names):
    with svg.drawing("losses", height=3.0) as (figure, (axis,), _):
        for name in names:
            axis.errorbar([1], [1], yerr=1, label=name)
        charts._legend(figure, axis, names)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


@pytest.mark.parametrize("counting", ["memory", "paper", None])
def test_cells_of_tensors_add_up_to_those_of_the_headline(counting):
    """Whole blocks of codes are shared among tensors, in the counting of the page."""
    memory = Memory(protected=oa.protect(model(LINEAR), channel=QUIET), counting=counting)
    cells, how = cells_of_tensors(memory)
    assert how == (counting or "memory")
    weights = memory.manifest.totals.original_weights
    assert sum(cells) / weights == pytest.approx(memory.per_weight(how))


def test_charts_of_a_sweep_count_as_its_table_of_best_points_does(results, tmp_path):
    for counting, said, other in (
        ("memory", "memory allows", "paper counts"),
        ("paper", "paper counts", "memory allows"),
    ):
        path = tmp_path / f"{counting}.html"
        oa.report(results["sweep"][0], path, counting=counting)
        words = " ".join(" ".join(read(path.read_text(encoding="utf-8")).words).split())
        assert f"Cells per original weight as the {said}, part by part" in words
        assert f"Cells per original weight as the {other}, part by part" not in words
