"""The tables and numbers of docs/training.md are those of its results."""

import importlib
import json

import pytest

from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.fixture
def trained(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("trained")


@pytest.fixture
def rows(trained):
    return trained.read(RESULTS / "training-lenet.csv")


def test_the_table_is_that_of_the_results(trained, rows):
    assert trained.table(rows, (0.5, 1.0, 2.0), "lenet-mnist") in PAGE
    assert {row.samples for row in rows} == {10_000}


def test_what_pruning_by_layer_buys_is_what_the_results_say(trained, rows):
    def cells(model):
        own = [row for row in rows if (row.model, row.stored) == (model, "compensated")]
        return trained.cells_at(own, 0.5, "lost")

    assert 0.72 < cells("lenet-layers-90") / cells("lenet-mnist") < 0.78  # saves a quarter
    assert 0.47 < cells("lenet-layers-95") / cells("lenet-mnist") < 0.53  # saves half
    plain = [row.lost for row in rows if (row.model, row.stored) == ("lenet-layers-90", "plain")]
    assert 1.6 < min(plain) < 1.7


def test_what_a_mask_from_a_seed_buys_is_what_the_results_say(trained, rows):
    (best,) = (row for row in rows if (row.model, row.step) == ("lenet-seed-90", 1.5))
    text = " ".join(PAGE.split())
    assert f"{best.lost:.2f} points ({best.low:.2f} to {best.high:.2f}) are lost in {best.cells:.3f} cells" in text
    layers = [row for row in rows if (row.model, row.stored) == ("lenet-layers-90", "compensated")]
    assert trained.cells_at(layers, 1.0, "lost") > 2.9 * best.cells
    for model, loss in (("lenet-seed-90", 0.5), ("lenet-seed-95", 2.0)):
        assert min(row.lost for row in rows if row.model == model) > loss


def test_the_run_is_that_of_the_results():
    run = json.loads((RESULTS / "training-resnet20-layers-90.json").read_text(encoding="utf-8"))
    text = " ".join(PAGE.split())
    assert f"to 90 % by layer in {run['epochs']} epochs recognises {100 * run['test_accuracy']:.2f} %" in text
    assert f"({100 * run['held_out_accuracy']:.2f} %)" in text
    assert run["pruning"] == "Magnitude(sparsity=0.9, by_layer=True)"
