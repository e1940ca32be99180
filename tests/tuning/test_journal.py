"""A search that was stopped goes on from its file, and comes to the same answer."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.coding.plan import Plan
from onnx_analog.errors import DataError, OptionError, OutputError
from onnx_analog.graph.weights import Selection
from onnx_analog.run.session import Network
from onnx_analog.tuning import bench
from onnx_analog.tuning.journal import Journal, held
from tests.models import model
from tests.run.nets import LINEAR, rows

SEARCH = {"seed": 1, "channel": {"name": "pcm"}}


def tuned(path, **given):
    return oa.tune(model(LINEAR), rows(400, labels=False), **{"trials": 2, "max_drop": 20, "resume": path, **given})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "search.jsonl"
    return tuned(path).to_dict(), path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99, 1.0])
def test_a_search_goes_on_and_comes_to_the_same(whole, tmp_path, monkeypatch, kept):
    expected, text = whole
    path = tmp_path / "search.jsonl"
    path.write_text(text[: round(kept * len(text))], encoding="utf-8")
    calls = []
    run = Network.run
    monkeypatch.setattr(Network, "run", lambda self, *given, **options: calls.append(1) or run(self, *given, **options))
    assert tuned(path).to_dict() == expected
    assert path.read_text(encoding="utf-8") == text
    if kept == 1.0:
        assert len(calls) == 1  # the original, on the few samples that tell what is measured


def test_the_model_of_a_search_that_ran_nothing_again_is_the_one_that_was_verified(whole, tmp_path):
    path = tmp_path / "search.jsonl"
    path.write_text(whole[1], encoding="utf-8")
    again, first = tuned(path), tuned(None)
    assert again.plan.compensated
    for one, other in zip(again.protected.tensors, first.protected.tensors, strict=True):
        assert np.array_equal(one.decode(), other.decode())
    assert again.protected is again.protected


def test_it_is_the_answer_without_a_file(whole):
    assert tuned(None).to_dict() == whole[0]


def test_another_goal_uses_what_was_measured(whole, tmp_path):
    path = tmp_path / "search.jsonl"
    path.write_text(whole[1], encoding="utf-8")
    other = tuned(path, max_drop=40)
    alone = tuned(None, max_drop=40).to_dict()
    alone["plan"]["verified"]["samples_seen_before"] = alone["samples_seen_before"] = True
    assert other.to_dict() == alone
    assert path.read_text(encoding="utf-8").startswith(whole[1])


def test_samples_that_another_goal_was_verified_on_are_not_called_new(tmp_path):
    path = tmp_path / "search.jsonl"
    first, other = tuned(path), tuned(path, max_drop=None, budget=4.5)
    assert first.best.plan != other.best.plan
    assert (first.seen_before, other.seen_before) == (False, True)
    assert first.verified_on.endswith(" samples that nothing else has seen")
    assert other.verified_on.endswith(" samples that an earlier search for another goal has used")
    assert tuned(path, max_drop=None, budget=4.5).seen_before
    assert not tuned(None).seen_before
    assert tuned(path, max_drop=first.goal.limit * 100 + 0.001).seen_before  # of nearly the same goal
    assert tuned(path).to_dict() == first.to_dict()


def test_a_search_that_goes_on_has_not_seen_its_samples_for_another_goal(whole, tmp_path):
    path = tmp_path / "search.jsonl"
    path.write_text(whole[1], encoding="utf-8")
    assert not tuned(path).seen_before


def test_another_search_is_refused(whole, tmp_path):
    path = tmp_path / "search.jsonl"
    path.write_text(whole[1], encoding="utf-8")
    with pytest.raises(OptionError, match=r"search.jsonl' belongs to a search with seed 0, not 1: give another file"):
        tuned(path, seed=1)
    assert path.read_text(encoding="utf-8") == whole[1]


@pytest.mark.parametrize(
    ("given", "apart"),
    [
        ({"data": rows(401, labels=False)}, "with 400 samples, not 401"),
        ({"data": rows(800, labels=False).take(np.arange(400, 800))}, "with other data"),
        ({"model": model(LINEAR, seed=1)}, "of another model"),
        ({"channel": "gaussian"}, "in another channel"),
        ({"selection": Selection(min_size=2)}, "of other tensors"),
        ({"trials": 3}, "with trials 2, not 3"),
        ({"decoding": "soft"}, "with decoding hard, not soft"),
        ({"correction": False}, "with correction"),
        ({"class_axis": 1}, "with another axis of classes"),
        ({"metric": "agreement"}, "by another metric"),
    ],
)
def test_whatever_matters_tells_searches_apart(whole, tmp_path, given, apart):
    path = tmp_path / "search.jsonl"
    path.write_text(whole[1], encoding="utf-8")
    call = {"model": model(LINEAR), "data": rows(400, labels=False), "trials": 2, "max_drop": 20, "resume": path}
    with pytest.raises(OptionError, match=f"belongs to a search {apart}: give another file"):
        oa.tune(**{**call, **given})


def test_a_file_that_does_not_say_how_many_samples_it_is_of_is_used_and_told_apart(whole, tmp_path):
    path = tmp_path / "search.jsonl"
    head, rest = whole[1].split("\n", 1)
    facts = {name: value for name, value in json.loads(head).items() if name not in ("samples", "inputs")}
    path.write_text(f"{json.dumps(facts, sort_keys=True)}\n{rest}", encoding="utf-8")
    assert tuned(path).to_dict() == whole[0]
    with pytest.raises(OptionError, match="belongs to a search with other data: give another file"):
        oa.tune(model(LINEAR), rows(401, labels=False), trials=2, max_drop=20, resume=path)


def test_inputs_that_were_made_in_another_way_are_named(tmp_path):
    path = tmp_path / "search.jsonl"
    facts = {"data": "a", "samples": 5, "inputs": "as given"}
    Journal(path, facts)
    Journal(path, facts)
    with pytest.raises(OptionError, match=r"a search whose inputs were made in another way \(as given\): give"):
        Journal(path, {**facts, "data": "b", "inputs": "divided by 255"})


@pytest.mark.parametrize(
    "value", ['{"mean": null, "count": 1}', '{"mean": 1}', '{"mean": "x", "count": 1}', "{}", "1", "[1, 2]"]
)
def test_numbers_of_other_names_are_measured_again(tmp_path, value):
    path = tmp_path / "file"
    Journal(path, SEARCH)
    with path.open("a", encoding="utf-8") as file:
        file.write(f'{{"a": {value}}}\n')
    new = {"mean": 2.5, "count": 3}
    assert Journal(path, SEARCH).measured("a", lambda: new, ["mean", "count"]) == new


@pytest.mark.parametrize("value", ['"abc"', "[1]", "null", "true", '{"mean": "x"}'])
def test_what_is_no_number_is_measured_again(tmp_path, value):
    path = tmp_path / "file"
    Journal(path, SEARCH)
    with path.open("a", encoding="utf-8") as file:
        file.write(f'{{"a": {value}}}\n')
    assert Journal(path, SEARCH).measured("a", lambda: 2.5) == 2.5


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "none" / "file", SEARCH)


@pytest.mark.parametrize("text", ["{}\n", "hello\n", "[1]\n", '{"format": "other"}\n'])
def test_a_file_of_something_else_is_refused_and_stays(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="is not a search file"):
        Journal(path, SEARCH)
    assert path.read_text(encoding="utf-8") == text


def test_measurements_are_kept_to_the_bit_and_made_once(tmp_path):
    value = {"mean": 0.1 + 0.2, "count": 3}
    first = Journal(tmp_path / "file", SEARCH)
    assert first.measured("a", lambda: value, value) == value
    again = Journal(tmp_path / "file", json.loads(json.dumps(SEARCH)))
    assert again.measured("a", lambda: pytest.fail("it is known"), value) == value
    assert Journal(None, SEARCH).measured("a", lambda: 1) == 1


def test_a_line_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "file"
    first = Journal(path, SEARCH)
    for key in "ab":
        first.measured(key, lambda: 1.5)
    path.write_text(path.read_text(encoding="utf-8")[:-4], encoding="utf-8")
    again = Journal(path, SEARCH)
    assert [again.measured(key, lambda: 2.5) for key in "ab"] == [1.5, 2.5]
    assert Journal(path, SEARCH).measured("b", lambda: 0) == 2.5


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a search file"):
        Journal(tmp_path, SEARCH)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as a search file"):
        Journal(tmp_path / "bytes", SEARCH)


def test_candidates_are_kept(whole, tmp_path, monkeypatch):
    path = tmp_path / "search.jsonl"
    path.write_text(whole[1], encoding="utf-8")
    computed = []
    monkeypatch.setattr(bench, "candidates", lambda *given, **options: computed.append(given) or [])
    assert tuned(path).to_dict() == whole[0]
    assert not computed


def test_a_file_that_another_search_writes_is_refused(tmp_path):
    path = tmp_path / "file"
    code = f"""
import time
from pathlib import Path
from onnx_analog.tuning.journal import held
with held(Path({str(path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OptionError, match=r"another search writes to .*file': wait until it ends"), held(path):
            pass
        other.kill()
    with held(path):
        Journal(path, SEARCH)


def test_a_file_of_another_version_says_so(tmp_path):
    path = tmp_path / "file"
    path.write_text('{"format": "onnx-analog tune 1"}\n', encoding="utf-8")
    with pytest.raises(OptionError, match="of another version of onnx-analog or its libraries: give another file"):
        Journal(path, SEARCH)


def test_a_line_that_was_cut_off_is_dropped_whatever_ends_lines(tmp_path):
    path = tmp_path / "file"
    first = Journal(path, SEARCH)
    first.measured("a", lambda: 1.5)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b'{"b": 2.')
    Journal(path, SEARCH).measured("b", lambda: 2.5)
    again = Journal(path, SEARCH)
    assert [again.measured(key, lambda: 0) for key in "ab"] == [1.5, 2.5]


def test_a_file_of_a_search_is_no_plan(tmp_path):
    """It is recognised by its first line, whatever the search is."""
    path = tmp_path / "search.jsonl"
    journal = Journal(path, {"model": "m"})
    for _ in range(2):  # of one line, which is JSON, and of several
        with pytest.raises(OptionError, match=r"search\.jsonl' is a file of measurements that tune keeps"):
            Plan.read(path)
        journal.measured("key", lambda: 1)
    path.write_text(Plan().to_json(), encoding="utf-8")
    assert Plan.read(path) == Plan()
