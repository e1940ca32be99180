"""docs/sensitivity.md says what is in the tables."""

from __future__ import annotations

import csv
import re

import pytest

import onnx_analog as oa
from onnx_analog import demo
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "sensitivity.md").read_text(encoding="utf-8")


def test_the_share_and_the_cells_are_as_the_page_says():
    found = oa.sensitivity(demo.MODEL, demo.IMAGES, mean=0.1307, std=0.3081)
    worst = found.of("tensor")[0]
    text = " ".join(PAGE.split())
    share, cells = 100 * found.share(worst), 100 * worst.part.cells / found.whole.part.cells
    weights = f"{worst.part.weights} of {found.whole.part.weights:,} weights"
    (said,) = re.findall(rf"{weights} do ([\d.]+) % of the harm, in {cells:.1f} % of the cells", text)
    assert abs(float(said) - share) < 0.5  # machines may round otherwise


# ------------------------------------------------------------------------------------------------------ ResNet-20


@pytest.fixture(scope="module")
def resnet20():
    """Return the rows of the file that docs/make_sensitivity.py writes, by kind; the first kind is the whole."""
    with (ROOT / "docs" / "sensitivity" / "resnet20.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    return {kind: [row for row in found if row["kind"] == kind] for kind in ("all", "tensor", "class")}


def percent(row, column):
    return f"{100 * float(row[column]):.1f}"


def without_correction(rows):
    return sorted(rows, key=lambda row: -float(row["uncorrected_divergence"]))


def line_without(row):
    """Return the line of the first table of ResNet-20."""
    cells = (
        f"`{row['name']}`", f"{int(row['weights']):,}", f"{int(row['cells']):,}", percent(row, "uncorrected_share"),
        percent(row, "all_but_uncorrected_share"), f"{float(row['all_but_uncorrected_points_lost']):.1f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def line_corrected(row):
    """Return the line of the second."""
    name = "all" if row["kind"] == "all" else f"`{row['name']}`"
    numbers = ("uncorrected_divergence", "divergence")
    shares = (percent(row, "uncorrected_share"), percent(row, "share"))
    return f"| {' | '.join((name, *(f'{float(row[each]):.2g}' for each in numbers), *shares))} |"


def test_the_tables_of_resnet20_are_what_the_file_says(resnet20):
    known = [row for row in without_correction(resnet20["tensor"]) if row["all_but_uncorrected_share"]][:3]
    for row in known:
        assert line_without(row) in PAGE
    for row in (*resnet20["tensor"][:3], *resnet20["all"]):
        assert line_corrected(row) in PAGE
    assert line_corrected({**resnet20["tensor"][0], "share": "0.5"}) not in PAGE


def test_what_the_page_says_of_resnet20(resnet20):
    text = " ".join(PAGE.split())
    (whole,) = resnet20["all"]
    total = sum(float(row["uncorrected_share"]) for row in resnet20["tensor"])
    assert f"the shares of its {len(resnet20['tensor'])} tensors add up to {100 * total:.0f} %" in text
    corrected = sum(float(row["share"]) for row in resnet20["tensor"])
    assert f"the shares of the tensors now add up to {100 * corrected:.0f} %" in text
    lost, left = float(whole["uncorrected_points_lost"]), float(whole["points_lost"])
    assert f"{lost:.1f} points are lost without the correction, and {left:.1f} with it" in text
    (first, *_) = without_correction(resnet20["tensor"])
    share = 100 * float(first["uncorrected_share"])
    gained = 100 * (1 - float(first["all_but_uncorrected_share"]))
    assert (
        f"`{first['name']}` alone does {share:.0f} % of the harm, and without its noise {gained:.0f} % are gone" in text
    )
