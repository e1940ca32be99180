"""What docs/reproduction says of the paper's tables is in the trials beside it."""

import csv
import importlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from onnx_analog.run.statistics import interval
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "reproduction"


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def sentences() -> str:
    """Return the page on one line."""
    return " ".join(read(FOLDER.with_suffix(".md")).split())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("table*.csv")), ids=lambda path: path.stem)
def test_tables_of_the_paper_are_those_of_their_trials(path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    paper, tables = importlib.import_module("paper"), importlib.import_module("paper_tables")
    page = read(path.with_suffix(".md"))
    command = re.search(r"`(python examples/paper[^`]*)`", page)
    assert command is not None
    assert paper.markdown(tables.TABLES[path.stem], tables.read_rows(path), command[1]) == page


def values_of(table, row, column, scope):
    with (FOLDER / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["row"], r["column"], r["scope"]) == (row, column, scope)]
    assert [int(r["trial"]) for r in rows] == list(range(len(rows)))  # so that trials are paired
    return np.array([100 * float(r["value"]) for r in rows])


def mean_of(table, row, column, scope):
    return round(values_of(table, row, column, scope).mean(), 2)


def with_error(values):
    low, high = interval(values.tolist())
    return f"{values.mean():.1f} ± {(high - low) / 2:.1f}"


def test_what_is_said_of_students_that_were_trained_with_noise_is_in_their_trials():
    page = sentences()
    plain, noisy, alone = (values_of("table2-decay", "+ diff noise", n, "") for n in ("KD", "KD + noise", "Student"))
    assert f"{with_error(noisy)} % with noise in training, {with_error(plain)} with plain distillation" in page
    assert f"and {with_error(alone)} without a teacher" in page
    assert f"differences of {with_error(noisy - plain)} and {with_error(noisy - alone)} in {len(noisy)} paired" in page
    for scope, step in itertools.product(("model", "tensor"), ("mapping", "redundancy")):
        for table in ("table2", "table2-decay"):
            of = {n: mean_of(table, f"+ adaptive {step}", n, scope) for n in ("KD", "KD + noise")}
            assert 0.45 < of["KD"] - of["KD + noise"] < 2.25
    for table in ("table2", "table2-decay"):
        assert all(mean_of(table, "+ sign protection", n, "model") < 14 for n in ("KD", "KD + noise", "Student"))


def test_what_is_said_of_the_paper_s_tables_is_in_them():
    page = sentences()
    raw = "PCM noise + inverse channel"
    assert f"we find {mean_of('table8', raw, '30 cells', 'model')} % at 30 and " in page
    assert f"{mean_of('table8', raw, '3 cells', 'model')} % at 3." in page
    clean = {column: mean_of("table9", "no noise", column, "") for column in ("Student", "KD + Gaussian noise")}
    assert f"({clean['KD + Gaussian noise']} against {clean['Student']} %)" in page
    for column in ("Teacher", "Student", "KD", "KD + channel noise"):
        assert mean_of("table9", "+ diff noise", column, "") < 21
    for column in ("Teacher", *clean, "KD", "KD + channel noise"):
        for scope in ("model", "tensor"):
            kept = mean_of("table9", "+ adaptive redundancy", column, scope)
            assert mean_of("table9", "no noise", column, "") - kept < 0.5


def test_what_is_said_of_the_teacher_is_in_table_2():
    page = sentences()
    clean = mean_of("table2", "no noise", "Teacher", "")
    kept = clean - mean_of("table2", "+ adaptive redundancy", "Teacher", "model")
    assert f"keeps all but {kept:.1f} points with adaptive redundancy" in page
    assert f"{with_error(values_of('table2', '+ diff noise', 'Teacher', ''))} % against 10.5" in page
    assert mean_of("table2", "+ sign protection", "Teacher", "model") < 11
    raw, sign = (
        mean_of("table2", r, "Teacher", "tensor") for r in ("PCM noise + inverse channel", "+ sign protection")
    )
    assert f"it has {raw:.1f} % raw, {sign:.1f} with sign protection, and all but 0.2 points" in page
    for step in ("mapping", "redundancy"):
        assert round(clean - mean_of("table2", f"+ adaptive {step}", "Teacher", "tensor"), 1) == 0.2


def lost(row, cells, scope):
    """Return how many points a row of table 1 loses, and how many cells each weight has."""
    with (FOLDER / "table1.csv").open(newline="", encoding="utf-8") as file:
        found = [r for r in csv.DictReader(file) if (r["row"], r["column"], r["scope"]) == (row, cells, scope)]
    accuracy = np.mean([100 * float(r["value"]) for r in found])
    return values_of("table1", "no noise", "", "")[0] - accuracy, float(found[0]["r_avg"])


def test_what_is_said_of_table_1_in_scope_tensor_is_in_it():
    page = sentences()
    raw, sign, mapping, redundancy = (
        "PCM noise + inverse channel", "+ sign protection", "+ adaptive mapping", "+ adaptive redundancy",
    )  # fmt: skip
    many, some, one = (mean_of("table1", raw, c, "tensor") for c in ("30 cells", "5 cells", "1 cell"))
    assert f"raw has {many:.1f} % at 30 cells, {some:.1f} at 5 and {one:.1f} at one, where" in page
    assert f"has {mean_of('table1', raw, '30 cells', 'model'):.1f} at 30 (9.5 in the paper)" in page
    assert all(mean_of("table1", raw, f"{count} cells", "model") < 12 for count in (20, 10, 5, 3, 2))
    assert f"sign protection has {mean_of('table1', sign, '1 cell', 'tensor'):.1f} % with a single cell" in page
    assert mean_of("table1", sign, "1 cell", "model") < 11
    alone, cells = lost(mapping, "1 cell", "tensor")
    assert (f"adaptive mapping loses {alone:.1f} points with exactly one cell" in page, cells) == (True, 1)
    assert alone < lost(redundancy, "1 cell", "model")[0]
    (a, r_a), (b, r_b), (c, r_c) = (lost(redundancy, n, "tensor") for n in ("1 cell", "2 cells", "3 cells"))
    assert f"it loses {a:.2f} points with {r_a:.2f} cells for each weight, {b:.2f} with {r_b:.1f}" in page
    assert f"and {c:.2f} with {r_c:.1f}, mapping" in page
    even = {n: lost(mapping, f"{n} cells", "tensor")[0] for n in (2, 3, 5)}
    assert f"mapping {even[2]:.2f} with 2, {even[3]:.2f} with 3 and {even[5]:.2f} with 5." in page
    one, two = (lost(mapping, n, "model")[0] for n in ("1 cell", "2 cells"))
    assert f"mapping loses {one:.1f} points with one cell and {two:.1f} with two" in page


def test_what_is_said_of_the_border_of_the_paper_was_measured():
    page = sentences()
    found = json.loads(read(FOLDER / "threshold-0.05.json"))
    totals, evaluation = found["totals"], found["evaluation"]
    r_avg = totals["analog_cells"] / totals["stored_weights"]
    low, high = (100 * end for end in interval(evaluation["values"]))
    mean = 100 * np.mean(evaluation["values"])
    assert f"[{r_avg:.2f} cells for each weight](reproduction/threshold-0.05.json) are left with" in page
    below = 100 * evaluation["clean"] - mean
    assert f"{mean:.2f} ± {(high - low) / 2:.2f} %, {below:.1f} points below" in page
    assert (evaluation["samples"], len(evaluation["values"])) == (10_000, 5)


def table_below(title):
    """Return the first table below a title of docs/reproduction.md, a list of cells for each row."""
    below = read(FOLDER.with_suffix(".md")).split(f"\n## {title}\n")[1]
    lines = re.findall(r"^\| \+.*\|$", below, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_what_folding_batch_norm_changes_is_in_the_trials():
    with (FOLDER / "folded.csv").open(newline="", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    shown = table_below("BatchNorm folded")
    assert [row[0] for row in shown] == ["+ sign protection", "+ adaptive mapping"]
    for row, strategy in zip(shown, ("sign", "mapping"), strict=True):
        for place, scope in enumerate(("model", "tensor")):
            apart = values_of("table2", row[0], "Student", scope)
            folded = [100 * float(t["value"]) for t in trials if (t["strategy"], t["scope"]) == (strategy, scope)]
            assert (len(apart), len(folded)) == (10, 10)
            for cell, values in zip(row[1 + 2 * place :], (apart, folded), strict=False):
                low, high = interval(values)
                assert cell == f"{np.mean(values):.2f} ± {(high - low) / 2:.2f}"


def test_what_is_said_of_a_resnet18_in_training_is_in_its_facts():
    page = sentences()
    facts = json.loads(read(FOLDER / "resnet18-3epochs.json"))
    metrics = read(FOLDER / "resnet18-3epochs.jsonl").splitlines()
    one, two, three = (f"{100 * json.loads(line)['held_out']:.1f}" for line in metrics)
    assert f"{one}, {two} and {three} % on held-out images after each, {100 * facts['test_accuracy']:.1f} % on" in page
    assert f"{facts['seconds'] / 3600:.1f} hours of one core" in page
