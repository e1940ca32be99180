"""docs/real_array.md: its example runs, and its numbers are those of the code."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from onnx_analog.arguments import DEFAULTS
from onnx_analog.cli import array_tables, main
from onnx_analog.graph import image, irregular, reads
from onnx_analog.run import array_comparison, array_statistics
from tests.conftest import ROOT
from tests.pages import run_page

PAGE = (ROOT / "docs" / "real_array.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


(LINE,) = re.findall(r"```text\n(.* groups of levels .*differ .*)\n```", PAGE)


def near(one: str, other: str) -> bool:
    """Return whether two lines have the same words, and shares that differ by half a point at most."""
    pattern = r"\d+\.\d+"
    numbers = [[float(number) for number in re.findall(pattern, line)] for line in (one, other)]
    same = re.sub(pattern, "", one).strip() == re.sub(pattern, "", other).strip()
    return same and all(abs(a - b) <= 0.5 for a, b in zip(*numbers, strict=True))


@pytest.mark.parametrize(("old", "new"), [("differ", "agree"), ("98.", "97."), ("13 of", "3 of")])
def test_another_line_is_seen(old, new):
    assert near(LINE, LINE)
    assert not near(LINE, LINE.replace(old, new))


def test_the_example_runs_and_prints_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = [ran.printed for ran in run_page(ROOT / "docs" / "real_array.md")]
    (counted,) = (text for text in printed if "cells without a read" in text)
    (compared,) = (text for text in printed if text.count("pcm") > 10)
    assert near(compared.splitlines()[-1], LINE)
    counts = dict(re.findall(r"^  (\S.*?)  +.*?([\d,]+) +[\d,]+$", counted, re.MULTILINE))
    irregular = {what for what, count in counts.items() if count != "0"}
    assert {"cells without a read", "reads outside the output range"} < irregular
    sigmas = {float(text) for text in re.findall(r"pcm +3 +[\d,]+ +\S+ +\S+ +(\S+)", compared)}
    assert {round(sigma, 2) for sigma in sigmas} == {0.05}
    simulated = [float(text) for text in re.findall(r"pcm +3 +[\d,]+ +\S+ +\S+ +\S+ +(\S+)", compared)]
    assert (round(min(simulated), 2), round(max(simulated), 2)) == (0.08, 0.13)
    body = json.loads(CliRunner().invoke(main, ["compare", "measured.json", "simulated.json", "--json"]).stdout)
    table = PAGE.partition("`compare --json` prints")[2].partition("\n\nThe files")[0]
    fields = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert fields == set(body)
    table = re.search(r"\| `streams` \| (.*) \|", PAGE).group(1)
    of_stream = set(re.findall(r"`(\w+)`", table)) - {"simulated"}
    both = {f"simulated_{name}" for name in ("symbols", "misread", "blocks", "failed")}
    assert of_stream | both == set(body["streams"][0])
    parts = {"count", "mean", "std"}
    assert set(body["groups"][0]) == {
        "channel", "cells", "low", "high", "ks", "ks_bound", "differs",
        *(f"{kind}_{part}" for kind in ("measured", "simulated") for part in parts),
    }  # fmt: skip


def listed(heading: str) -> list[str]:
    section = PAGE.partition(f"\n## {heading}\n")[2]
    table = section.partition("| column | content |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_the_columns_are_those_of_the_files(tmp_path):
    from onnx_analog.graph.image import TYPES

    assert listed("The image") == list(TYPES)
    assert set(listed("Reads")) == set(reads.COLUMNS)
    assert set(TYPES) - {"address"} == set(reads._OF_IMAGES)


def test_numbers_of_the_page_are_those_of_the_code():
    assert f"at most {image.MOST_CELLS:,} cells" in WORDS
    assert f"{reads.LARGEST // 2**30} GiB and {reads.MOST_ROWS:,} rows" in WORDS
    assert f"more than {irregular.FAR:g} σ" in WORDS
    assert (array_statistics.PARTS, array_comparison.CONFIDENCE, array_comparison._LEAST) == (8, 0.95, 30)
    assert np.isclose(2 / (array_statistics.QUANTILES - 1), 0.01)
    assert DEFAULTS.missing == "refuse"
    assert f"Of more than {array_tables.MOST_GROUPS} groups" in WORDS
    assert f"each with {array_statistics.QUANTILES} quantiles" in WORDS
    assert f"`{array_statistics.FORMAT}`" in WORDS
    security = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert f"2 GiB of unpacked arrays; {reads.MOST_ROWS:,} rows" in security
    assert f"| {array_statistics._LARGEST // 2**20} MiB | at most 32 levels of JSON |" in security
