"""docs/sensitivity.md says what is in the tables."""

from __future__ import annotations

import re

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
