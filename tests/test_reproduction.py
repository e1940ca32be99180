"""What docs/reproduction says of the paper's tables is in the trials beside it."""

import csv
import hashlib
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


def section(title: str) -> str:
    """Return what stands below a title of the page, without Markdown's tables."""
    (below,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", read(FOLDER.with_suffix(".md")), re.M | re.S)
    return " ".join(below.split())


def numbers_of(text: str) -> set[str]:
    """Return the numbers of a text as they are written, and those with an error as "1.2 ± 0.3"."""
    return set(re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?: ± \d+(?:\.\d+)?)?", text)) | set(
        re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?", text)
    )


def test_numbers_are_read_with_their_errors():
    assert numbers_of("89.7 ± 2.5 % (of 1,000), -0.4; r_avg1 x.5") == {"89.7 ± 2.5", "89.7", "2.5", "1,000", "-0.4"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("table*.csv")), ids=lambda path: path.stem)
def test_tables_of_the_paper_are_those_of_their_trials(path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    paper, tables = importlib.import_module("paper"), importlib.import_module("paper_tables")
    page = read(path.with_suffix(".md"))
    command = re.search(r"`(python examples/paper[^`]*)`", page)
    assert command is not None
    assert paper.markdown(tables.TABLES[path.stem], tables.read_rows(path), command[1]) == page


def values_of(table, row, column, granularity):
    with (FOLDER / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        key = row, column, granularity
        rows = [r for r in csv.DictReader(file) if (r["row"], r["column"], r["granularity"]) == key]
    assert [int(r["trial"]) for r in rows] == list(range(len(rows)))  # so that trials are paired
    return np.array([100 * float(r["value"]) for r in rows])


def mean_of(table, row, column, granularity):
    return values_of(table, row, column, granularity).mean()


def with_error(values):
    low, high = interval(values.tolist())
    return f"{values.mean():.1f} ± {(high - low) / 2:.1f}"


RAW, SIGN, MAPPING, REDUNDANCY = ROWS = (
    "PCM noise + inverse channel", "+ sign protection", "+ adaptive mapping", "+ adaptive redundancy",
)  # fmt: skip


def test_table_1_is_summed_up_by_its_numbers():
    said = numbers_of(section("Table 1: ResNet-18 in PCM"))
    shown = [
        (RAW, "30 cells", "tensor"), (RAW, "5 cells", "tensor"), (RAW, "1 cell", "tensor"), (RAW, "30 cells", "model"),
        (SIGN, "30 cells", "model"), (SIGN, "10 cells", "model"), (SIGN, "5 cells", "model"),
        (SIGN, "1 cell", "tensor"), (MAPPING, "3 cells", "model"), (MAPPING, "1 cell", "model"),
    ]  # fmt: skip
    assert {f"{mean_of('table1', *key):.1f}" for key in shown} <= said
    clean = values_of("table1", "no noise", "", "")[0]
    assert f"{clean:.2f}" in said

    def lost(row, count, granularity):
        return clean - mean_of("table1", row, f"{count} cell{'s' * (count > 1)}", granularity)

    assert {f"{lost(REDUNDANCY, n, 'model'):.2f}" for n in (20, 5, 3, 2, 1)} <= said
    assert {f"{lost(REDUNDANCY, n, 'tensor'):.2f}" for n in (1, 2, 3)} <= said
    assert {f"{lost(MAPPING, n, 'tensor'):.2f}" for n in (2, 3, 5)} <= said
    assert {f"{lost(MAPPING, n, 'model'):.1f}" for n in (1, 2)} | {f"{lost(MAPPING, 1, 'tensor'):.1f}"} <= said
    assert all(mean_of("table1", RAW, f"{n} cells", "model") < 12 for n in (20, 10, 5, 3, 2))  # near chance
    assert mean_of("table1", SIGN, "1 cell", "model") < 11
    assert lost(MAPPING, 1, "tensor") < lost(REDUNDANCY, 1, "model")


def test_the_threshold_of_the_paper_is_summed_up_by_its_numbers():
    found = json.loads(read(FOLDER / "threshold-0.05.json"))
    totals, evaluation = found["totals"], found["evaluation"]
    low, high = (100 * end for end in interval(evaluation["values"]))
    mean = 100 * np.mean(evaluation["values"])
    assert {
        f"{totals['analog_cells'] / totals['stored_weights']:.2f}",
        f"{mean:.2f} ± {(high - low) / 2:.2f}",
        f"{100 * evaluation['stored'] - mean:.1f}",
    } <= numbers_of(section("Table 1: ResNet-18 in PCM"))
    assert (evaluation["samples"], len(evaluation["values"])) == (10_000, 5)


def test_table_2_is_summed_up_by_its_numbers():
    said = numbers_of(section("Table 2: distillation on CIFAR-10"))
    plain, noisy, alone = (values_of("table2-decay", "+ diff noise", n, "") for n in ("KD", "KD + noise", "Student"))
    differences = {with_error(noisy - plain), with_error(noisy - alone), str(len(noisy))}
    assert {with_error(noisy), with_error(plain), with_error(alone), *differences} <= said
    assert {with_error(values_of("table2", "+ diff noise", n, "")) for n in ("KD", "KD + noise", "Student")} <= said
    clean = mean_of("table2", "no noise", "Teacher", "")
    assert f"{clean - mean_of('table2', REDUNDANCY, 'Teacher', 'model'):.1f}" in said
    assert with_error(values_of("table2", "+ diff noise", "Teacher", "")) in said
    assert {f"{mean_of('table2', row, 'Teacher', 'tensor'):.1f}" for row in (RAW, SIGN)} <= said
    kept = {f"{clean - mean_of('table2', row, 'Teacher', 'tensor'):.1f}" for row in (MAPPING, REDUNDANCY)}
    assert kept <= said
    assert mean_of("table2", SIGN, "Teacher", "model") < 11  # chance
    for table in ("table2", "table2-decay"):
        assert all(mean_of(table, SIGN, n, "model") < 14 for n in ("KD", "KD + noise", "Student"))
        for granularity, row in itertools.product(("model", "tensor"), (MAPPING, REDUNDANCY)):
            lost = mean_of(table, row, "KD", granularity) - mean_of(table, row, "KD + noise", granularity)
            assert 0.45 < lost < 2.25


def test_tables_8_and_9_are_summed_up_by_their_numbers():
    said = numbers_of(section("Table 8: LeNet"))
    assert {f"{mean_of('table8', RAW, f'{n} cells', 'model'):.2f}" for n in (30, 3)} <= said
    said = numbers_of(section("Table 9: distillation on MNIST"))
    assert {f"{mean_of('table9', 'no noise', n, ''):.2f}" for n in ("Student", "KD + Gaussian noise")} <= said
    columns = ("Teacher", "Student", "KD", "KD + Gaussian noise", "KD + channel noise")
    for column in columns:
        for granularity in ("model", "tensor"):
            kept = mean_of("table9", REDUNDANCY, column, granularity)
            assert mean_of("table9", "no noise", column, "") - kept < 0.5
    assert all(mean_of("table9", "+ diff noise", n, "") < 21 for n in columns if n != "KD + Gaussian noise")


def test_table_7_is_summed_up_by_its_numbers():
    said = numbers_of(section("Table 7: ResNet-18 and Gaussian noise"))
    protected = "with adaptive protection"
    assert f"{mean_of('table7', 'without protection', 'std=0.01', ''):.1f}" in said
    assert {f"{mean_of('table7', protected, f'std={std}', 'model'):.1f}" for std in (0.05, 0.1, 0.5, 1)} <= said
    assert {f"{mean_of('table7', protected, f'std={std}', 'tensor'):.1f}" for std in (0.5, 1)} <= said


def table_below(title):
    """Return the first table below a title of docs/reproduction.md, a list of cells for each row."""
    below = read(FOLDER.with_suffix(".md")).split(f"\n## {title}\n")[1]
    lines = re.findall(r"^\| \+.*\|$", below, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_what_folding_batch_norm_changes_is_in_the_trials():
    with (FOLDER / "folded.csv").open(newline="", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    shown = table_below("BatchNorm folded")
    assert [row[0] for row in shown] == [SIGN, MAPPING]
    for row, strategy in zip(shown, ("sign", "mapping"), strict=True):
        for place, granularity in enumerate(("model", "tensor")):
            apart = values_of("table2", row[0], "Student", granularity)
            key = strategy, granularity
            folded = [100 * float(t["value"]) for t in trials if (t["strategy"], t["granularity"]) == key]
            assert (len(apart), len(folded)) == (10, 10)
            for cell, values in zip(row[1 + 2 * place :], (apart, folded), strict=False):
                low, high = interval(values)
                assert cell == f"{np.mean(values):.2f} ± {(high - low) / 2:.2f}"


def test_a_resnet18_in_training_is_summed_up_by_its_numbers():
    facts = json.loads(read(FOLDER / "resnet18-3epochs.json"))
    held_out = [json.loads(line)["held_out"] for line in read(FOLDER / "resnet18-3epochs.jsonl").splitlines()]
    expected = {f"{100 * share:.1f}" for share in (*held_out, facts["test_accuracy"])}
    assert {*expected, f"{facts['seconds'] / 3600:.1f}"} <= numbers_of(read(FOLDER.with_suffix(".md")))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("table*.csv")), ids=lambda path: path.stem)
def test_trials_name_the_network_and_the_channel(path):
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert re.fullmatch("[0-9a-f]{64}", row["models_sha256"])
            assert bool(row["channel"]) == bool(re.fullmatch("[0-9a-f]{64}", row["channel_sha256"]))
            assert bool(row["channel"]) == (row["row"] != "no noise")
    network = ROOT / "examples" / "models" / f"{row['network']}.onnx"
    if network.exists():
        assert hashlib.sha256(network.read_bytes()).hexdigest() == row["models_sha256"]
