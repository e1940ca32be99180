"""The command `tune`: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog.cli import main
from onnx_analog.cli.gates import FAILED
from onnx_analog.tuning import candidates, search
from tests.models import proto
from tests.run.nets import LINEAR, rows

TUNE = "tune model.onnx --data test.npz --trials 2"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs a command line in a folder with a model and unlabelled data."""
    monkeypatch.setattr(candidates, "STEPS", candidates.STEPS[::4])
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(LINEAR), "model.onnx")
    np.savez("test.npz", x=rows(400).inputs["x"])
    return lambda line: CliRunner().invoke(main, line.split(), prog_name="onnx-analog")


def test_the_answer_is_printed_and_the_plan_written(command, tmp_path):
    ended = command(f"{TUNE} --max-drop 20 -o plan.json --protected stored.onnx")
    assert (ended.exit_code, ended.stderr) == (0, "")
    for text in ("cells per weight", "verified", "tried: cells per weight", "stored as", "plan: plan.json"):
        assert text in ended.stdout
    plan = oa.Plan.read(tmp_path / "plan.json")
    assert plan.compensated
    assert oa.load(tmp_path / "stored.onnx").plan == plan


def test_saved_options_are_named_as_on_the_line_and_give_the_same_plan(command, tmp_path):
    assert command(f"{TUNE} --max-drop 20 -o plan.json --save-config saved.toml").exit_code == 0
    body = tomllib.loads((tmp_path / "saved.toml").read_text(encoding="utf-8"))
    assert (body["out"], body["trials"]) == ("plan.json", 2)
    assert not {"target", "tune_trials"} & body.keys()
    assert command("tune --config saved.toml -o again.json").exit_code == 0
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plan.json").read_bytes()


def test_what_is_printed_as_json_is_json(command):
    ended = command(f"{TUNE} --max-drop 20 --json")
    assert json.loads(ended.stdout)["max_points_lost"] == pytest.approx(20)


def test_a_goal_that_is_not_decided_has_a_code_of_its_own_and_all_is_written(command, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_holds", lambda *_: None)
    for more in ("", " --json"):
        ended = command(f"{TUNE} --max-drop 20 -o plan.json --force{more}")
        assert ended.exit_code == 4
        (line,) = ended.stderr.splitlines()
        assert line.startswith("Error: these data do not decide whether more than 20 % of the samples change their cl")
        assert oa.Plan.read(tmp_path / "plan.json").tensors
    assert json.loads(ended.stdout)["holds"] is None


def test_a_goal_that_does_not_hold_ends_with_1(command, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_holds", lambda *_: False)
    ended = command(f"{TUNE} --max-drop 20 -o plan.json")
    assert ended.exit_code == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("Error: more than 20 % of the samples change their class in every plan ")
    assert (tmp_path / "plan.json").exists()


def test_a_budget_is_always_decided(command):
    assert command(f"{TUNE} --budget 4.5").exit_code == 0


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("", "Error: none of --max-drop, --min-sqnr and --budget is given: give one of them\n"),
        ("--max-drop 1 --budget 1", "Error: --max-drop and --budget exclude each other: give one of them\n"),
    ],
)
def test_one_goal_is_needed(command, goal, message):
    ended = command(f"{TUNE} {goal}")
    assert (ended.exit_code, ended.stderr) == (2, message)


def test_an_interrupt_says_what_is_kept(command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(search.Search, "best", interrupted)
    ended = command(f"{TUNE} --max-drop 20")
    assert ended.exit_code == FAILED
    assert ended.stderr == "Error: stopped; nothing was written. With --resume FILE, what is measured is kept\n"
    ended = command(f"{TUNE} --max-drop 20 --resume search.jsonl")
    assert ended.exit_code == FAILED
    assert ended.stderr == (
        "Error: stopped. What was measured is kept in 'search.jsonl': run the same command again to continue\n"
    )


def test_a_file_of_another_search_says_what_is_other(command):
    assert command(f"{TUNE} --budget 4.5 --resume search.jsonl").exit_code == 0
    ended = command(f"{TUNE} --budget 4.5 --resume search.jsonl --seed 1 --force")
    message = "Error: 'search.jsonl' belongs to a search with seed 0, not 1: give another file\n"
    assert (ended.exit_code, ended.stderr) == (2, message)
