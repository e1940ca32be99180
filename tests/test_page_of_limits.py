"""docs/limits.md and docs/digital_or_analog.md say what their scripts compute."""

from __future__ import annotations

import itertools
import math
import re
import runpy

import numpy as np
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.channels.capacity import of_channel
from onnx_analog.cli import main
from onnx_analog.coding.codes import SOFT_SHARE, best_code
from tests.conftest import ROOT
from tests.page_exceptions import read

DOCS = ROOT / "docs"
LIMITS, PAGE = read(DOCS / "limits.md"), read(DOCS / "digital_or_analog.md")
WORDS = " ".join(PAGE.split())
MAKE = runpy.run_path(str(DOCS / "make_limits.py"))


def test_the_table_of_limits_is_that_of_the_channels():
    assert MAKE["with_table"](LIMITS) == LIMITS
    assert MAKE["with_table"](LIMITS.replace("| `pcm` | no", "| `pcm` | yes")) == LIMITS
    assert all(oa.channel(name).source.left_out in LIMITS for name in MAKE["named"]())
    assert len(MAKE["named"]()) > 5


@pytest.mark.parametrize("name", MAKE["named"]())
def test_the_time_of_a_read_is_refused_where_the_table_says_no(name, tmp_path):
    words = ["protect", str(demo.MODEL), "--channel", name, "--read-after", "1d", "-o", str(tmp_path / "a.onnx")]
    ended = CliRunner().invoke(main, words, prog_name="onnx-analog")
    assert ended.exit_code == (0 if f"| `{name}` | yes" in LIMITS else 2), ended.stderr


def test_soft_decisions_are_assumed_as_the_page_says():
    assert f"{SOFT_SHARE:.0%}".replace("%", " %") in LIMITS


def shown() -> dict[str, list[float]]:
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([-\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


def test_the_table_of_ways_is_what_its_script_computes():
    found = runpy.run_path(str(DOCS / "make_digital.py"))["rows"]()
    assert found.keys() == shown().keys()
    for name, row in found.items():
        np.testing.assert_allclose(shown()[name], row, atol=0.06, rtol=0.01)  # as rounded


def ratio(kind: str, cells: float) -> float:
    """Return the signal to noise of a kind at so many cells, on the line between its rows, in dB."""
    rows = sorted(row for name, row in shown().items() if kind in name)
    return float(np.interp(cells, [row[0] for row in rows], [row[1] for row in rows]))


def test_what_the_page_says_of_the_table_is_so():
    better = [row[1] - ratio("entropy-coded", row[0]) for name, row in shown().items() if "and an analog cell" in name]
    assert f"{min(better):.1f} to {max(better):.1f} dB better than equal steps at the same cells" in WORDS
    gained = [ratio("level, average", 2 * cells) - ratio("level, average", cells) for cells in (2, 4)]
    np.testing.assert_allclose(gained, 10 * math.log10(2), atol=0.11)  # two numbers, each rounded
    helps = [ratio("posterior", cells) - ratio("level, average", cells) for cells in (2, 4, 8)]
    assert helps == sorted(helps, reverse=True)
    steps = sorted(row for name, row in shown().items() if "entropy-coded" in name)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(steps[1:])]
    assert all(abs(slope - 6) < 0.3 for slope in slopes)
    assert [round(min(row[2] for name, row in shown().items() if kind in name), 1) for kind in ("coded", "and an")] == [
        1.6
    ] * 2


def test_numbers_of_cells_are_those_of_the_code():
    pcm = oa.channel("pcm")
    bits, kept = of_channel(pcm).bits, best_code(pcm, "bch").bits_per_cell
    decibel = 20 * math.log10(2)  # for each bit: the step is half
    assert f"has a capacity of {bits:.2f} bits" in WORDS
    assert f"keep [{kept:.3f} bits]" in WORDS
    assert f"which gains {decibel:.1f} dB" in WORDS
    assert f"gains {kept * decibel:.1f} dB" in WORDS
