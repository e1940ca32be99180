"""The command `check`: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import _check as check_of_library
from onnx_analog.cli import junit, main
from onnx_analog.errors import DataError
from onnx_analog.run._doubts import check_above_chance, doubts
from onnx_analog.run.metrics import METRICS, Chosen
from onnx_analog.tuning.checked import Checked
from onnx_analog.tuning.gate import Decision
from tests.models import model, proto
from tests.run.nets import LINEAR, answered, rows

CHECK = "check model.onnx --data test.npz"
QUIET, LOUD = "--channel gaussian:sigma=0.0001", "--channel gaussian:sigma=0.3"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs a command line in a folder with a model and unlabelled data."""
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(LINEAR), "model.onnx")
    np.savez("test.npz", x=rows(400).inputs["x"])
    return lambda line: CliRunner().invoke(main, line.split(), prog_name="onnx-analog")


@pytest.mark.parametrize(
    ("options", "code", "line", "reason"),
    [
        (f"--max-drop 10 {QUIET}", 0, "yes: at most 10 % of the samples change their class (mean share 0.", ""),
        (f"--max-drop 10 {LOUD}", 1, "no: more than 10 % of the samples change their class (", "more than 10 % of"),
        (f"--max-drop 0.3 {QUIET}", 4, "not decided whether more than 0.3 % of", "these data do not decide whether"),
        (f"--min-sqnr 30 {QUIET}", 0, "yes: the SQNR is at least 30 dB (", ""),
        (f"--min-sqnr 30 {LOUD}", 1, "no: the SQNR is below 30 dB (", "the SQNR is below 30 dB"),
        ("--max-drop 20 --integers 8", 0, "yes: at most 20 % of", ""),
    ],
)
def test_the_answer_is_one_line_before_the_inputs_and_an_exit_code(command, options, code, line, reason):
    ended = command(f"{CHECK} {options}")
    assert ended.exit_code == code
    assert ended.stdout.startswith(line)
    _, cells, inputs = ended.stdout.splitlines()
    assert inputs == "inputs: 'x' as given (float32)"
    assert ended.stderr == ""  # the answer is read once
    ended = command(f"{CHECK} {options} --json")
    found = json.loads(ended.stdout)
    counting = "memory" if found["cells_per_weight"] is not None else "paper"
    count = found["cells_per_weight" if counting == "memory" else "paper_cells_per_weight"]
    how = {"memory": "as the memory allows", "paper": "as the paper counts"}[counting]
    assert cells == f"cells per weight: {count:.3f} {how}"
    assert ended.exit_code == code
    assert ended.stderr.startswith(f"Error: {reason}" if reason else "")
    assert len(ended.stderr.splitlines()) == bool(reason)


@pytest.mark.parametrize("metric", ["sqnr_db", "agreement"])
def test_evaluate_shows_the_ratio_that_check_finds_in_the_same_trials(command, metric):
    assert command(f"protect model.onnx {LOUD} -o stored.onnx").exit_code == 0
    of_data = "stored.onnx --data test.npz --reference model.onnx --seed 3"
    checked = json.loads(command(f"check {of_data} --min-sqnr 1 --json").stdout)
    line = f"evaluate {of_data} --metric {metric} --trials {checked['trials']}"
    found = json.loads(command(f"{line} --json").stdout)
    assert checked["trials"] > 1
    assert found["sqnr_db_of_mean_noise"] == pytest.approx(checked["sqnr_db"], abs=1e-6)
    assert float(np.mean(found["sqnr_db"])) > checked["sqnr_db"] + 1e-3  # a mean of decibels is another number
    assert re.search(rf"of the mean noise over trials +{checked['sqnr_db']:.1f} dB\n", command(line).stdout)


def test_where_more_trials_may_tell_it_names_the_option_and_a_number(command):
    few = command(f"{CHECK} --max-drop 18 --channel gaussian:sigma=0.2 --max-trials 3 --junit out.xml --report r.html")
    assert few.exit_code == 4
    samples = r"(, or about [\d,]+ samples in 3 trials,)?"
    found = rf"about [\d,]+ trials \(--max-trials (\d+)\){samples} would be enough, if they lose and vary as much"
    number = re.search(found, few.stdout)
    assert number is not None, few.stdout
    assert few.stderr == ""
    assert number[0] in Path("out.xml").read_text()
    for written in (Path("out.xml"), Path("r.html")):
        assert "max_trials=" not in written.read_text()
    body = json.loads(command(f"{CHECK} --max-drop 18 --channel gaussian:sigma=0.2 --max-trials 3 --json").stdout)
    assert body["line"] == few.stdout.splitlines()[0]
    assert number[0] in body["verdict"]
    assert few.stdout.splitlines()[3:] == ["report: r.html", "JUnit: out.xml"]


def test_the_time_left_follows_from_the_trials_that_are_likely_to_decide(monkeypatch):
    now, shown = 100.0, []
    monkeypatch.setattr(check_of_library.time, "monotonic", lambda: now)
    clock = check_of_library._Clock(lambda *told: shown.append(told), 50)
    clock.show(0)
    now += 6
    clock.expect(None)
    clock.show(3)  # nothing is known yet
    for expected in (5, 500, 2):
        clock.expect(expected)
        clock.show(3)
    assert [text for text, *_ in shown] == ["trial 1 of at most 50", *["trial 4 of at most 50"] * 4]
    # 2 s for each of the 2 trials that are expected, of at most 47, and of one at least
    assert [left for *_, left in shown] == [None, None, 4.0, 94.0, 2.0]


def test_a_digital_plan_takes_one_trial_and_an_analog_one_three_at_least(command):
    assert "; 1 trial, 400 samples)" in command(f"{CHECK} --max-drop 20 --integers 8").stdout
    assert "; 3 trials, 400 samples)" in command(f"{CHECK} --max-drop 20 {QUIET}").stdout


def test_a_digital_plan_without_a_code_is_read_in_several_trials(command):
    assert "; 1 trial" not in command(f"{CHECK} --max-drop 20 --integers 8 --code none").stdout
    assert "; 1 trial" not in command(f"{CHECK} --max-drop 20 --integers 8 --block-failure 0.5").stdout


def test_json_is_all_that_python_returns(command):
    ended = command(f"{CHECK} --max-drop 10 {QUIET} --json")
    body = json.loads(ended.stdout)
    checked = oa.check("model.onnx", "test.npz", max_drop=10, channel="gaussian:sigma=0.0001")
    assert body == checked.to_dict()
    assert body["line"] == str(checked)
    assert (body["answer"], body["max_points_lost"], body["model"]) == ("yes", 10, "model.onnx")


def test_a_protected_model_answers_as_the_plain_one_that_is_stored_so(command):
    command("protect model.onnx --cells-small 2 -o stored.onnx")
    plain = command(f"{CHECK} --max-drop 30 --cells-small 2").stdout
    assert command("check stored.onnx --data test.npz --max-drop 30 --reference model.onnx").stdout == plain


def test_a_plan_and_pruning_and_correction_are_those_of_evaluate(command):
    command("protect model.onnx --cells-small 2 --sparsity 0.3 -o stored.onnx --save-plan plan.json")
    line = "--max-drop 60 --correct test.npz --seed 5 --json"
    body = json.loads(command(f"{CHECK} --plan plan.json --sparsity 0.3 {line}").stdout)
    stored = json.loads(command(f"check stored.onnx --data test.npz --reference model.onnx {line}").stdout)
    values = oa.evaluate("stored.onnx", "test.npz", reference="model.onnx", seed=5, trials=stored["trials"],
                         correct="test.npz").values  # fmt: skip
    assert stored["points_lost"] == pytest.approx(100 * (1 - np.mean(values)))
    assert stored["corrected_by"] == body["corrected_by"] == "256 samples"
    assert body["points_lost"] == stored["points_lost"]


def test_the_accuracy_of_the_original_is_beside_the_cells(command):
    """One that is far too low tells of images that are not scaled as in training."""
    data = answered(400)
    np.savez("labelled.npz", x=data.inputs["x"], y=data.labels)
    accuracy = oa.evaluate("model.onnx", "labelled.npz").original
    of_data = "--data labelled.npz --max-drop 90 --cells-small 2"
    lines = command(f"check model.onnx {of_data}").stdout.splitlines()
    assert lines[1].endswith(f" as the memory allows; original: top1 {100 * accuracy:.2f} %")
    command("protect model.onnx --cells-small 2 -o stored.onnx")
    lines = command(f"check stored.onnx {of_data.partition(' --cells')[0]}").stdout.splitlines()
    assert re.search(r"; stored, without noise: top1 [\d.]+ %$", lines[1])


def test_modifiers_change_what_is_read(command):
    plain = command(f"{CHECK} --max-drop 30 --cells-small 2 --json").stdout
    assert json.loads(command(f"{CHECK} --max-drop 30 --cells-small 2 --read-bits 2 --json").stdout) != plain


def test_without_a_reference_a_protected_model_is_warned_of(command):
    command("protect model.onnx -o stored.onnx")
    ended = command("check stored.onnx --data test.npz --max-drop 90 --json")
    body = json.loads(ended.stdout)
    assert not body["against_original"]
    assert body["warnings"][0].startswith("reference is not given, so losses are counted from the protected model")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (CHECK, "neither --max-drop nor --min-sqnr is given: give one of them"),
        (f"{CHECK} --max-drop 1 --min-sqnr 9", "--max-drop and --min-sqnr exclude each other: give one of them"),
        (f"{CHECK} --max-drop 1 --metric sqnr_db", "--max-drop is of shares of the samples, and the metric is sqnr_db"),
        (
            f"{CHECK} --min-sqnr 9 --metric agreement",
            "--min-sqnr is of the metric sqnr_db, and the metric is agreement",
        ),
        (f"{CHECK} --max-drop 1 --metric relative_error", "--metric is relative_error; it must be one that compares"),
        (f"{CHECK} --max-drop 1 --plan none.json", "'none.json'"),
        (f"{CHECK} --max-drop 1 --correct-samples 9", "--correct-samples is 9, and no samples are given"),
        (f"{CHECK} --max-drop 1 --prune-scope tensor", "--prune-scope is 'tensor', and --sparsity is 0"),
        (f"{CHECK} --max-drop 1 --compensate test.npz", "--compensate is given, and no scheme can be compensated"),
        ("check stored.onnx --data test.npz --max-drop 1 --cells-small 2", "--cells-small is given, and the model is"),
        (
            "check stored.onnx --data test.npz --max-drop 1 --include w",
            "a selection of tensors is given, and the model",
        ),
        (
            "check test.npz --data test.npz --max-drop 1",
            "'test.npz' is an npz file of arrays, and an ONNX model is needed",
        ),
        ("check model.onnx --data model.onnx --max-drop 1", "'model.onnx' is an ONNX model, and an npz file"),
        (f"{CHECK} --max-drop 1 --junit there.xml", "'there.xml' already exists"),
        (f"{CHECK} --max-drop 1 --junit test.npz --force", "'test.npz' is an input"),
    ],
)
def test_what_is_no_answer_has_code_2_and_writes_nothing(command, line, message):
    command("protect model.onnx -o stored.onnx")
    Path("there.xml").write_text("before", encoding="utf-8")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    ended = command(line if "--junit" in line else f"{line} --junit new.xml")
    assert ended.exit_code == 2
    assert ended.stdout == ""
    *usage, error = ended.stderr.splitlines()
    assert error.startswith("Error: ")
    assert not usage or usage[0].startswith("Usage: ")  # of what is refused with the command line
    assert message in error
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_nothing_to_store_has_its_own_code(command):
    assert command(f"{CHECK} --max-drop 1 --include none").exit_code == 3


def test_an_interrupt_is_not_the_answer_no(command, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_analog.tuning.gate.Losses.add", interrupted)
    ended = command(f"{CHECK} --max-drop 1")
    assert (ended.exit_code, ended.stderr) == (2, "Error: stopped; nothing was written\n")


# ------------------------------------------------------------------------------------------------------- JUnit


def read(text: str) -> tuple[ET.Element, dict[str, int]]:
    """Return the only test case of a report, and its counts; fail unless servers would count the same."""
    suites = ET.fromstring(text)
    (suite,) = suites
    (case,) = suite.findall("testcase")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    assert (suites.tag, suite.tag) == ("testsuites", "testsuite")
    assert counts == {name: int(suites.attrib[name]) for name in counts}
    found = {"tests": 1, **{f"{kind}s": len(case.findall(kind)) for kind in ("failure", "error")}, "skipped": 0}
    assert counts == found
    assert {"name", "classname", "time"} <= set(case.attrib)
    return case, counts


@pytest.mark.parametrize(
    ("options", "kind", "type_"),
    [(QUIET, None, None), (LOUD, "failure", "no"), (f"{QUIET} --max-drop 0.3", "error", "not decided")],
)
def test_the_report_has_one_case(command, options, kind, type_):
    ended = command(f"{CHECK} --max-drop 10 {options} --junit report.xml")
    case, _ = read(Path("report.xml").read_text(encoding="utf-8"))
    assert [child.tag for child in case] == [*([kind] if kind else []), "system-out"]
    assert case.attrib["name"].startswith("model.onnx: at most ")
    assert case.findtext("system-out").startswith(ended.stdout.splitlines()[0])
    if kind:
        assert case.find(kind).attrib == {"type": type_, "message": ended.stdout.splitlines()[0]}


DECISION = Decision(holds=False, loss=0.3, at_least=0.2, at_most=0.4, samples=10, trials=3, settled=False, needed=None)


def checked(**changes) -> Checked:
    fields = {
        "decision": DECISION, "limit": 0.1, "confidence": 0.95, "max_trials": 9, "alike": False, "metric": "top1",
        "output": "y", "original": 0.9, "against_original": True, "channel": "pcm", "cells_per_weight": 1.5,
        "paper_cells_per_weight": 0.9, "seed": 0,
    }  # fmt: skip
    return Checked(**{**fields, **changes})


def test_names_of_any_content_are_text_of_the_report():
    strange = '<a href="x">&]]>\x00\x1b[31m\ud800\u202e\''
    text = junit.report(checked(model=strange, output=strange, warnings=(strange,)), seconds=1.0)
    case, _ = read(text)
    assert "\x00" not in text
    assert "\x1b" not in text
    assert case.attrib["name"].startswith('<a href="x">&]]>\\x00\\x1b[31m\\ud800\\u202e\'')
    assert "warning: <a href" in case.findtext("system-out")
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("old", "new"),
    [('failures="1"', 'failures="0"'), ("<failure ", "<skipped "), ('tests="1"', 'tests="2"'), ("</testcase>", "")],
)
def test_another_report_is_refused(old, new):
    text = junit.report(checked(), seconds=1.0)
    read(text)
    with pytest.raises((AssertionError, ET.ParseError)):
        read(text.replace(old, new))


def test_an_original_at_chance_has_nothing_to_lose_and_is_refused():
    with pytest.raises(DataError, match=r"top1 without noise is \d\.\d+ %, no better than chance, so nothing"):
        oa.check(model(LINEAR), rows(400, labels=True), max_drop=10)
    assert oa.check(model(LINEAR), answered(400), max_drop=90, integers=8).holds


@pytest.mark.parametrize(("value", "logged"), [(0.1, ["the images are dark"]), (0.9, [])])
def test_what_may_explain_an_original_at_chance_is_told_before_the_error(caplog, value, logged):
    chosen = Chosen(METRICS["top1"], "y", (0,), 1, 1, 10)
    doubt = next(doubts(chosen, 100, [np.zeros((100, 10))], 0.1))
    with pytest.raises(DataError, match="no better than chance") if logged else nullcontext():
        check_above_chance(chosen, 100, value, ["the images are dark", doubt])
    assert caplog.messages == logged


def test_cells_are_those_of_both_countings():
    settings = {"cells_small": 2, "channel": "gaussian:sigma=0.05"}
    found = oa.check(model(LINEAR), rows(400), max_drop=90, **settings).to_dict()
    totals = oa.account(oa.protect(model(LINEAR), **settings)).to_dict()["totals"]
    assert found["cells_per_weight"] == pytest.approx(totals["honest_cells_per_original_weight"])
    assert found["paper_cells_per_weight"] == pytest.approx(totals["all_in_cells_per_original_weight"])
    assert found["cells_per_weight"] > found["paper_cells_per_weight"]


def test_all_warnings_are_in_the_files_also_if_they_are_not_shown(command, tmp_path):
    plan = oa.Plan(default=oa.Scheme(channel=QUIET.partition(" ")[2]), patterns={"nowhere*": None})
    (tmp_path / "odd.json").write_text(plan.to_json(), encoding="utf-8")
    line = "check model.onnx --data test.npz --max-drop 99 --metric agreement --plan odd.json --json --junit out.xml"
    loud, quiet = command(line), command(f"{line} --quiet --force")
    said = "the plan's pattern nowhere* matches no selected tensor"
    assert said in json.loads(loud.stdout)["warnings"]
    assert json.loads(loud.stdout)["warnings"] == json.loads(quiet.stdout)["warnings"]
    assert f"warning: {said}" in (tmp_path / "out.xml").read_text(encoding="utf-8")
    assert said not in quiet.stderr


def test_a_model_without_analog_cells_is_not_compared_with_itself(command):
    """It would lose nothing, whatever storing it lost."""
    assert command("protect model.onnx --integers 2 -o digital.onnx").exit_code == 0
    refused = command("check digital.onnx --data test.npz --max-drop 1")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: --reference is needed: the protected model has no analog cells")
    assert command("check digital.onnx --data test.npz --max-drop 1 --reference model.onnx").exit_code == 1
