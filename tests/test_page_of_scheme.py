"""docs/own_scheme.md says what its commands print, and names every setting that it speaks of."""

from __future__ import annotations

import re

import onnx_analog as oa
from onnx_analog.settings import settings_of
from tests.conftest import ROOT
from tests.page_exceptions import read

PAGE = read(ROOT / "docs" / "own_scheme.md")
WORDS = " ".join(PAGE.split())


def test_what_more_cells_for_one_tensor_buy_is_what_is_printed():
    totals = re.findall(r"^all, with noise at once +[\d,]+ +([\d,]+) .* ([\d.]+) +100\.0$", PAGE, re.MULTILINE)
    (cells, apart), (more, less) = ((int(count.replace(",", "")), float(divergence)) for count, divergence in totals)
    (share,) = re.findall(r"^conv1\.weight(?: +\S+){2} +\S+ +\S+ to \S+ +\S+ +(\S+)", PAGE, re.MULTILINE)
    assert f"takes {100 * (more / cells - 1):.1f} % more cells than the scheme" in WORDS
    assert f"do {share} % of the harm" in WORDS
    assert round(less / apart, 1) == 0.5  # about half


def test_settings_are_those_of_schemes():
    rows = re.findall(r"^\| [^|]*\? \| ([^|]*) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(rows) == 5
    assert named <= set(settings_of(oa.Scheme))
