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

    saved = [1 - cells(f"lenet-layers-{share}") / cells("lenet-mnist") for share in (90, 95)]
    assert [round(4 * share) for share in saved] == [3, 3]  # three quarters
    assert cells("lenet-layers-95") > 0.85 * cells("lenet-layers-90")
    for model, left in (("lenet-layers-90", 0.1), ("lenet-layers-95", 0.05)):
        near = min((row for row in rows if row.model == model and row.lost <= 0.5), key=lambda row: row.cells)
        assert 0.5 < 1 - near.kept / left < 0.85


def test_what_a_mask_from_a_seed_buys_is_what_the_results_say(trained, rows):
    (best,) = (row for row in rows if (row.model, row.step) == ("lenet-seed-90", 1.5))
    text = " ".join(PAGE.split())
    assert f"{best.lost:.2f} points ({best.low:.2f} to {best.high:.2f}) are lost in {best.cells:.3f} cells" in text
    layers = [row for row in rows if (row.model, row.stored) == ("lenet-layers-90", "compensated")]
    seeded = [row for row in rows if row.model == "lenet-seed-90"]
    ratio = trained.cells_at(seeded, 1.0, "lost") / trained.cells_at(layers, 1.0, "lost")
    assert 0.95 < ratio < 1.05
    for model in ("lenet-seed-90", "lenet-seed-95"):
        assert min(row.lost for row in rows if row.model == model) > 0.5


def test_what_a_plan_in_the_loop_buys_is_what_the_results_say(trained, rows):
    plain = {(row.model, row.step): row for row in rows if row.stored == "plain"}
    fitting, before = plain["lenet-steps-4", 4.0], plain["lenet-mnist", 4.0]
    near = [plain["lenet-steps-4", step].lost for step in (3.5, 4.5)]
    compensated = [row for row in rows if (row.model, row.stored) == ("lenet-mnist", "compensated")]
    cells = trained.cells_at(compensated, 0.5, "lost")
    text = " ".join(PAGE.split())
    for claim in (
        f"loses {fitting.lost:.2f} points ({fitting.low:.2f} to {fitting.high:.2f}) in {fitting.cells:.3f} cells",
        f"The original loses {before.lost:.1f} points in as many steps",
        f"Compensation takes {cells:.3f} cells for half a point",
        f"steps of 3.5 and 4.5 lose {near[0]:.1f} and {near[1]:.1f} points",
    ):
        assert claim in text
    assert 0.45 < fitting.cells / cells < 0.55


def test_what_patterns_buy_is_what_the_results_say(trained, rows):
    best = min((row for row in rows if row.model == "lenet-1of20"), key=lambda row: row.lost)
    ends = f"({best.low:.1f} to {best.high:.1f})"
    assert f"loses {best.lost:.1f} points {ends} at best, in {best.cells:.3f} cells" in " ".join(PAGE.split())
    two, layers = (
        trained.cells_at([row for row in rows if row.model == model], 0.5, "lost")
        for model in ("lenet-2of20", "lenet-layers-90")
    )
    said = f"of each 20 take {two:.3f} cells at half a point, where 90 % by layer takes {layers:.3f}"
    assert said in " ".join(PAGE.split())


def test_what_both_buy_is_what_the_results_say(rows):
    (both,) = (row for row in rows if (row.model, row.step) == ("lenet-layers-90-steps-2", 2.0))
    said = f"lose {both.lost:.2f} points ({both.low:.2f} to {both.high:.2f}) in {both.cells:.3f} cells"
    assert said in " ".join(PAGE.split())


def test_the_run_is_that_of_the_results():
    run = json.loads((RESULTS / "training-resnet20-layers-90.json").read_text(encoding="utf-8"))
    text = " ".join(PAGE.split())
    assert f"to 90 % by layer in {run['epochs']} epochs recognises {100 * run['test_accuracy']:.2f} %" in text
    assert f"({100 * run['held_out_accuracy']:.2f} %)" in text
    assert run["pruning"] == "Magnitude(sparsity=0.9, by_layer=True)"
