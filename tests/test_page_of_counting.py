"""docs/counting.md: its numbers follow from the code."""

from __future__ import annotations

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.arguments import DEFAULTS
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.scheme import LARGE_SHARE
from onnx_analog.coding.streams import DECODING
from onnx_analog.tuning.measures import cells_of_numbers
from tests.conftest import ROOT
from tests.page_exceptions import read

WORDS = " ".join(read(ROOT / "docs" / "counting.md").split())


def test_numbers_of_the_example_are_those_of_the_code():
    totals = oa.protect(demo.MODEL, cells_small=1, cells_large=20).manifest.totals
    share = 1 - LARGE_SHARE
    assert f"{100 * share:.0f} % of the {totals.original_weights:,} weights and 20 for the others" in WORDS
    assert f"are {share + 20 * LARGE_SHARE:.2f} cells per weight" in WORDS
    assert round(totals.analog_cells / totals.stored_weights, 2) == share + 20 * LARGE_SHARE
    kept = best_code(oa.channel("pcm"), "bch")
    assert kept.symbols == 2
    taken = f"{2 / kept.bits_per_cell:.2f} cells"
    assert f"leaves {kept.bits_per_cell:.3f} data bits in a cell, so that the two bits take {taken}" in WORDS
    assert totals.side_cells == totals.original_weights  # one more cell per weight


def test_the_cells_of_a_correction_are_those_of_the_code():
    numbers = 580  # of the LeNet, as the page of tune shows
    assert f"{numbers} numbers in float16" in read(ROOT / "docs" / "tune.md")
    cells = cells_of_numbers(numbers, oa.channel("pcm"), "hard")
    assert f"For {numbers} numbers in a `pcm` memory" in WORDS
    assert f"that is {cells:,.0f} cells" in WORDS


def test_names_are_those_of_the_program():
    assert all(f"(`{level}`)" in WORDS for level in DECODING)
    assert DEFAULTS.counting == "memory"
