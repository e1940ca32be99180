"""The tables and numbers of docs/training.md are those of its results."""

import importlib
import json

import pytest

from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
BEYOND = " ".join((ROOT / "docs" / "beyond.md").read_text(encoding="utf-8").split())


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


# ------------------------------------------------------------------------------------------------------ ResNets


@pytest.fixture
def resnet20(trained):
    return trained.read(RESULTS / "training-resnet20.csv")


def run_of(name):
    return json.loads((RESULTS / f"training-{name}.json").read_text(encoding="utf-8"))


def said(row):
    return f"{row.lost:.2f} points ({row.low:.2f} to {row.high:.2f}) in {row.cells:.3f}"


def test_the_tables_of_resnets_are_those_of_the_results(trained, resnet20):
    assert trained.table(resnet20, (1.0, 2.0, 4.0, 8.0), "resnet20-cifar10") in PAGE
    resnet18 = trained.read(RESULTS / "training-resnet18.csv")
    assert trained.table(resnet18, (0.5, 1.0, 2.0), "resnet18-cifar10-pruned") in PAGE
    assert {row.samples for row in (*resnet20, *resnet18)} == {10_000}


def test_what_a_plan_in_the_loop_buys_resnet20_is_what_the_results_say(trained, resnet20):
    plain = {(row.model, row.step): row for row in resnet20 if row.stored == "plain"}
    helped = {(row.model, row.step): row for row in resnet20 if row.stored == "compensated"}
    fine, coarse = plain["resnet20-steps-1.5", 1.5], plain["resnet20-steps-2", 2.0]
    assert f"{fine.lost:.2f} points ({fine.low:.2f} to {fine.high:.2f}) are lost in {fine.cells:.3f}" in BEYOND
    before = [plain["resnet20-cifar10", step].lost for step in (1.5, 2.0)]
    compensated = [row for key, row in helped.items() if key[0] == "resnet20-cifar10"]
    cells = [trained.cells_at(compensated, row.lost, "lost") for row in (fine, coarse)]
    text = " ".join(PAGE.split())
    for claim in (
        f"loses {fine.lost:.2f} points ({fine.low:.2f} to {fine.high:.2f}) in {fine.cells:.3f} cells",
        said(coarse),
        f"loses {before[0]:.1f} and {before[1]:.1f} points in such steps",
        f"takes {cells[0]:.3f} and {cells[1]:.3f} cells for the same losses",
        f"in steps of 2, {helped['resnet20-steps-2', 2.0].lost:.1f} points are lost with it",
    ):
        assert claim in text


def test_what_pruning_buys_resnet20_is_what_the_results_say(trained, resnet20):
    pruned, before = (
        trained.cells_at([row for row in resnet20 if (row.model, row.stored) == (model, "compensated")], 8.0, "lost")
        for model in ("resnet20-layers-90", "resnet20-cifar10")
    )
    text = " ".join(PAGE.split())
    assert f"{pruned:.3f} in place of {before:.3f}" in text
    for share in (90, 95):
        run = run_of(f"resnet20-layers-{share}")
        assert f"recognises {100 * run['test_accuracy']:.2f} %" in text
        assert f"{run['epochs']} epochs" in text
        assert run["pruning"] == f"Magnitude(sparsity={share / 100:g}, by_layer=True)"


def test_what_a_teacher_buys_resnet20_is_what_the_results_say(resnet20):
    own, taught = (
        {row.step: row for row in resnet20 if row.model == f"resnet20-{model}" and row.stored == "compensated"}
        for model in ("layers-90", "layers-90-kd")
    )
    run, before = run_of("resnet20-layers-90-kd"), run_of("resnet20-layers-90")
    assert (run["teacher"], run["start"], run["pruning"]) == (before["start"], before["start"], before["pruning"])
    fine, taught_fine = own[0.5], taught[0.5]
    text = " ".join(PAGE.split())
    assert f"{run['epochs'] - before['epochs']} more epochs buy little" in text
    assert f"`layers-90-kd` recognises {100 * run['test_accuracy']:.2f} %, and loses {said(taught_fine)} cells" in text
    assert f"loses {fine.lost:.2f} ({fine.low:.2f} to {fine.high:.2f}) in {fine.cells:.3f}" in text
    assert fine.low < taught_fine.high
    assert taught[1.5].lost >= own[1.5].lost


def test_what_rigid_masks_buy_resnet20_is_what_the_results_say(trained, resnet20):
    """Of each, what it recognises, the least that it loses, and the cells in which pruning by layer loses as much."""

    def helped(model):
        return [row for row in resnet20 if (row.model, row.stored) == (f"resnet20-{model}", "compensated")]

    text, layers = " ".join(PAGE.split()), helped("layers-90")
    for model, mask in (
        ("2of8", "Pattern(kept=2, group=8)"),
        ("2of20", "Pattern(kept=2, group=20)"),
        ("seed-75", "Seeded"),
    ):
        run = run_of(f"resnet20-{model}")
        assert run["pruning"].startswith(mask)
        assert f"recognises {100 * run['test_accuracy']:.2f} %" in text
        assert f"{run['epochs']} epochs" in text
    eight = [trained.cells_at(rows, 8.0, "lost") for rows in (helped("2of8"), helped("cifar10"), layers)]
    assert f"loses 8 points in {eight[0]:.3f} cells" in text
    assert 0.85 < eight[0] / eight[1] < 1  # hardly less
    assert eight[0] > 1.5 * eight[2]
    for model in ("2of20", "seed-75"):
        best = min(helped(model), key=lambda row: row.lost)
        cells = trained.cells_at(layers, best.lost, "lost")
        said = f"{best.lost:.2f} points ({best.low:.2f} to {best.high:.2f}) at best, in {best.cells:.3f} cells"
        assert f"{said}; by layer, as much is lost in {cells:.3f}" in text
        assert cells < best.cells


def test_runs_with_a_plan_are_those_of_the_results(trained):
    text = " ".join(PAGE.split())
    for step in ("1.5", "2"):
        run = run_of(f"resnet20-steps-{step}")
        assert run["noise"].startswith("plan ")
        assert f"for {run['epochs']} epochs" in text
    run = run_of("resnet18-layers-90-steps-2")
    assert f"in {run['epochs']} epochs without a teacher ({run['seconds'] / 60:.0f} minutes on one core)" in text
    run = run_of("resnet18-layers-85-steps-1.5")
    assert (
        f"in {run['epochs']} epochs with the network as it was as the teacher ({run['seconds'] / 60:.0f} minutes"
        in text
    )
    assert run["teacher"] == "resnet18-cifar10-pruned.onnx"
    further = run_of("resnet18-layers-88-steps-1.5")
    assert f"in {further['epochs']} more epochs ({further['seconds'] / 60:.0f} minutes)" in text
    assert (further["start"], further["teacher"]) == ("resnet18-layers-85-steps-1.5.onnx", run["teacher"])
    assert run["epochs"] + further["epochs"] == 6  # "six epochs" in docs/beyond.md


def test_what_training_buys_resnet18_is_what_the_results_say(trained):
    rows = trained.read(RESULTS / "training-resnet18.csv")
    row = {(each.model, each.stored, each.step): each for each in rows}
    first, fine, coarse = (
        row[f"resnet18-layers-{name}", "plain", step]
        for name, step in (("85-steps-1.5", 1.5), ("88-steps-1.5", 1.5), ("90-steps-2", 2.0))
    )
    original, compensated = (row["resnet18-cifar10-pruned", *key] for key in (("plain", 1.5), ("compensated", 2.0)))
    untrained = [each for each in rows if each.stored == "compensated"]
    half, low = (trained.cells_at(untrained, 0.5, column) for column in ("lost", "high"))
    assert trained.cells_at(untrained, 0.5, "low") is None
    text, beyond = (" ".join(page.split()) for page in (PAGE, BEYOND))
    assert f"lose {said(first)} cells per original weight and, pruned to 88 %, {said(fine)} cells" in text
    assert f"{said(coarse)} cells" in text
    assert all(said(each) in beyond for each in (fine, coarse))
    points = f"loses {original.lost:.2f} points ({original.low:.2f} to {original.high:.2f}). Compensated and corrected"
    assert points in text
    as_much = trained.cells_at(untrained, first.lost, "lost")
    assert f"it takes {as_much:.3f} cells to lose {first.lost:.2f} points" in text
    assert f"and {half:.3f} (below {compensated.cells:.3f} to {low:.3f}) to lose half a point" in text
    assert f"loses {said(compensated)} cells" in text
