"""Cells by stream and class; tests/run/test_parts.py holds their sums to the report."""

from __future__ import annotations

from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.accounting import split_cells, totals_of
from onnx_analog.graph.spent import Spent, spent_by
from tests.graph.test_reader import SEEDED, tensor_of


def test_the_seed_of_a_mask_is_in_the_codebook():
    tensor = tensor_of(Scheme(classes=2, cells=(1,), channel="pcm", code="bch", mask_seed=7), SEEDED)
    (lines,), (spent,) = split_cells([tensor]), spent_by([tensor]).values()
    assert lines["mask seed"] > 0
    assert spent.of_all == {"codebook": lines["mask seed"] + lines["codebook"]}
    assert spent.total == totals_of([tensor]).honest_cells


def test_entropy_coded_classes_are_of_no_single_class():
    tensor = tensor_of(Scheme(classes=2, cells=(1,), channel="pcm", code="bch", entropy="static"), SEEDED)
    (spent,) = spent_by([tensor]).values()
    assert {"levels", "signs"} == set(spent.of_classes)
    assert spent.of_stream("codebook") > 0
    assert any("classes" in name for name in spent.of_all)


def test_cells_of_streams_and_classes():
    spent = Spent({"levels": (1, 20), "signs": (3, 4)}, {"mask": 5})
    assert [spent.of_class(number) for number in (0, 1)] == [4, 24]
    assert [spent.of_stream(name) for name in ("levels", "signs", "mask", "codebook")] == [21, 7, 5, 0]
    assert spent.total == 33
