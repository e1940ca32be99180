"""Pages about measured codes say what docs/results hold."""

from __future__ import annotations

import importlib
import json
import runpy
from types import SimpleNamespace

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.channels.capacity import of_channel
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.plan import Plan
from onnx_analog.graph.correction import NUMBER_BITS
from onnx_analog.graph.normalisation import Normalisation
from onnx_analog.tuning.search import Search
from tests.conftest import ROOT

DOCS = ROOT / "docs"
MADE = runpy.run_path(str(DOCS / "make_measured.py"))


def words(page):
    return " ".join((ROOT / page).read_text(encoding="utf-8").split()).replace("−", "-")


def of(network, channel="pcm"):
    """Return the rows of a network and a channel, by name, with `compensated` behind it where weights were."""
    rows = MADE["rows_of"](network, channel)
    return {f"{row.name}{' compensated' * row.compensated}": row for row in rows}


def tuned(name):
    return json.loads((DOCS / "results" / f"tune-{name}.json").read_text(encoding="utf-8"))


def cells(row):
    return f"{row.cells:.2f}"


def lost(row, column="value"):
    return f"{row.lost(column)[0]:.1f}"


def share(row, column="value"):
    """Return the accuracy in %."""
    return f"{100 * row.number('original') - row.lost(column)[0]:.1f}"


def assert_said(page, *claims):
    text = words(page)
    assert [claim for claim in claims if claim not in text] == []


def test_what_is_not_said_is_seen():
    with pytest.raises(AssertionError):
        assert_said("docs/beyond.md", "ResNet-20", "takes 1.23 cells")


def test_the_page_and_the_table_are_what_their_script_writes():
    assert (DOCS / "measured.md").read_text(encoding="utf-8") == MADE["page"]()
    beyond = (DOCS / "beyond.md").read_text(encoding="utf-8")
    assert MADE["with_tables"](beyond) == beyond
    assert MADE["with_tables"](beyond.replace("ResNet-18 on CIFAR-10, pruned | pcm", "x | pcm")) == beyond
    assert MADE["with_tables"](beyond.replace("| hard: also a BCH", "| hard: a BCH")) == beyond


@pytest.mark.parametrize("network", MADE["NETWORKS"])
@pytest.mark.parametrize("channel", MADE["CHANNELS"])
def test_files_of_trials_are_of_the_same_kind(network, channel):
    """All trials of a file are of one model, on the same images; files of one network have the same original."""
    rows = MADE["rows_of"](network, channel)
    for compensated, images in {(row.compensated, row.images) for row in rows}:
        of_file = [row for row in rows if (row.compensated, row.images) == (compensated, images)]
        trials = [trial for row in of_file for trial in row.trials]
        for column in ("original", "samples", "model", "input_mean", "channel", "original_weights"):
            assert len({trial[column] for trial in trials}) <= 1
    if rows:
        assert f"{json.loads(rows[0].trials[0]['input_mean'])[0]:g}" in MADE["NETWORKS"][network].flags


ANSWERS = sorted((DOCS / "results").glob("tune-*.json"))


def verified_as_now(answer):
    """Return whether each look of an answer had the confidence that this version gives it."""
    now = Search(SimpleNamespace(wholes=[]), answer["confidence"]).confidence_of_look
    return answer["confidence_of_look"] == pytest.approx(now, rel=1e-12)


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
def test_answers_of_tune_are_verified_as_now(path):
    assert verified_as_now(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
def test_the_record_of_a_plan_of_tune_is_of_it(path):
    plan = Plan.from_dict(json.loads(path.read_text(encoding="utf-8"))["plan"])
    if plan.verified is not None:
        assert plan.is_as_verified
        assert plan.verified.inputs.known
        assert plan.verified.preprocessing.endswith(str(Normalisation(plan.verified.mean, plan.verified.std)))


def test_another_confidence_of_a_look_is_seen():
    answer = tuned("resnet20-cifar10-pcm")
    assert verified_as_now(answer)
    for looks in (1, 3, 4):
        assert not verified_as_now(answer | {"confidence_of_look": 1 - (1 - answer["confidence"]) / looks})


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)
def test_answers_of_tune_are_of_this_version(path):
    """Those of an earlier one lack settings that schemes have since."""
    answer = json.loads(path.read_text(encoding="utf-8"))
    assert oa.Plan.from_dict(answer["plan"]).to_dict() == answer["plan"]
    best, limit = answer["best"], answer["max_points_lost"]
    assert all((look["at_most"] <= limit) == (look["holds"] is True) for look in best["looks"])
    held = [look["cells_per_weight"] for look in best["looks"] if look["holds"]]
    assert (answer["holds"], best["cells_per_weight"]) == (True, min(held))


def test_each_kind_has_its_fewest_cells():
    rows = list(of("resnet20-cifar10").values())
    found = MADE["fewest"](rows, 1.0)
    for kind, row in found.items():
        others = [other for other in rows if other.kind == kind and other.lost()[0] <= 1.0]
        assert row.cells == min(other.cells for other in others)
    assert MADE["fewest"](rows, -100.0) == {}


def test_resnet20_as_the_pages_say():
    rows, answer, without = of("resnet20-cifar10"), tuned("resnet20-cifar10-pcm"), tuned("none-resnet20-cifar10-pcm")
    paper, steps, refined = rows["redundancy, 1 and 20 cells"], rows["entropy-coded 0.75"], rows["refined 2"]
    fine, coarse = rows["entropy-coded 1 compensated"], rows["entropy-coded 1.5 compensated"]
    best, analog = answer["best"], answer["analog"]
    code = 0.978  # bits in a cell of pcm, with BCH
    counted = NUMBER_BITS * answer["correction_numbers"] / code / answer["weights"]
    found = MADE["fewest"](list(rows.values()), 1.0)
    ends = {
        key: " to ".join(f"{end:.1f}".replace("-0.0", "0.0") for end in without[key]["points_lost_ci95"])
        for key in ("best", "analog")
    }
    assert_said(
        "docs/beyond.md",
        f"takes {cells(paper)} cells per weight. It loses {lost(paper, 'uncorrected')} points, and {lost(paper)} if",
        f"{lost(steps)} points at {cells(steps)} cells per weight",
        f"{lost(refined)} points at {cells(refined)}.",
        f"{lost(fine)} points at {cells(fine)} cells per weight, {lost(coarse)} points at {cells(coarse)}.",
        f"finds {best['cells_per_weight']:.2f} cells per weight, in which at most 1 point is lost with 95 % confidence "
        f"(found: {best['points_lost']:.1f} points)",
        f"The {answer['correction_numbers']} numbers of its correction count too, as everywhere ({counted:.2f} ce",
        f"{analog['points_lost']:.1f} points are lost in as many cells",
        f"`tune` verifies on {best['samples']:,} images",
        f"takes {without['best']['cells_per_weight']:.2f} cells per weight, and loses "
        f"{without['best']['points_lost']:.1f} points ({ends['best']})",
        f"loses {without['analog']['points_lost']:.1f} points ({ends['analog']}) in "
        f"{without['analog']['cells_per_weight']:.2f} cells",
        f"as good as equal steps ({cells(found['refined'])} and {cells(found['equal steps'])} cells per weight on ResN",
    )
    assert (answer["holds"], answer["max_points_lost"], answer["confidence"]) == (True, 1, 0.95)
    low, high = best["points_lost_ci95"]
    assert_said(
        "README.md",
        f"takes {cells(paper)} cells per weight and loses {lost(paper)} points after correction",
        f"{best['cells_per_weight']:.2f} cells per weight and loses {best['points_lost']:.1f} points (95 % interval: "
        f"{abs(low):.1f} to {high:.1f})",
    )


def test_what_decoding_saves_is_what_the_page_says():
    none, table, hard, soft, paper = (
        tuned(f"{effort}resnet20-cifar10-pcm")["best"] for effort in ("none-", "table-", "", "soft-", "paper-")
    )
    assert table["cells_per_weight"] == none["cells_per_weight"]  # a table does not change that
    assert 0.55 < hard["cells_per_weight"] / none["cells_per_weight"] < 0.6  # more than two fifths
    assert 0.67 < soft["cells_per_weight"] / hard["cells_per_weight"] < 0.75  # more than a quarter
    assert round(2 * paper["cells_per_weight"] / hard["cells_per_weight"], 1) == 1.0
    assert all(each["digital"] for each in (none, table, hard, soft, paper))


def test_limits_as_the_pages_say():
    rows = of("resnet20-cifar10")
    ends = {}
    for kind in ("entropy-coded", "refined"):
        above = [row.against_limit for name, row in rows.items() if name.startswith(kind) and row.against_limit]
        ends[kind] = f"{min(above):.2f} to {max(above):.2f}"
    redundancy = rows["redundancy, 1 and 20 cells"].against_limit
    assert_said(
        "docs/codes.md",
        f"entropy-coded steps take {ends['entropy-coded']} times the limit",
        f"refined ones {ends['refined']} times, and the paper's redundancy {redundancy:.2f} times",
        f"capacity of the cells, which is {of_channel(oa.channel('pcm')).bits:.2f} bits for `pcm`",
    )
    (cheapest, _) = sorted((row.cells, name) for name, row in rows.items() if row.against_limit and row.lost()[0] <= 1)[
        0
    ]
    steps = MADE["fewest"](list(rows.values()), 1.0)["equal steps"]
    assert steps.cells == cheapest
    assert_said("docs/beyond.md", f"lose at most 1 point take {steps.against_limit:.2f} times")
    assert all(row.against_limit is None for row in rows.values() if row.compensated)


def test_resnet18_as_the_pages_say():
    rows, answer = of("resnet18-cifar10-pruned"), tuned("resnet18-cifar10-pruned-pcm")
    paper, best = rows["redundancy, 1 and 20 cells"], answer["best"]
    low, high = best["points_lost_ci95"]
    assert_said(
        "docs/beyond.md",
        f"takes {cells(paper)} cells per original weight: 4 of them hold the mask",
        f"finds {best['cells_per_weight']:.2f} cells per original weight, in which at most 0.5 points are lost with "
        f"95 % confidence (found: {best['points_lost']:.1f} points, {low:.1f} to {high:.1f})",
        f"{paper.number('stored_weights') / 1e6:.1f} million of {paper.number('original_weights') / 1e6:.1f} million w",
    )
    assert_said(
        "README.md",
        f"takes {cells(paper)} cells per original weight in the paper's scheme, and {best['cells_per_weight']:.2f} wi",
    )
    assert paper.number("mask_bitmap_bits") == paper.number("original_weights")
    assert (answer["holds"], answer["max_points_lost"], answer["analog"]) == (True, 0.5, None)


def test_resnet18_before_it_was_pruned_as_the_page_says():
    answer, pruned = tuned("resnet18-cifar10-pcm"), tuned("resnet18-cifar10-pruned-pcm")
    best, analog = answer["best"], answer["analog"]
    found, other = (
        f"{each['points_lost']:.1f} points{{}}" + "{:.1f} to {:.1f}".format(*each["points_lost_ci95"])
        for each in (best, analog)
    )
    step = of("resnet18-cifar10-pruned")["entropy-coded 1.5 compensated"]
    assert_said(
        "docs/beyond.md",
        f"takes {best['cells_per_weight']:.2f} cells per weight (found: {found.format(', ')})",
        f"every tensor loses {other.format(' (')}) in as many cells",
        f"loses {step.lost()[0]:.2f} points of all {step.images:,} test images in {cells(step)} cells",
    )
    assert answer["holds"]
    assert pruned["best"]["cells_per_weight"] < best["cells_per_weight"] / 2


def test_lenet_as_the_pages_say():
    rows, answer = of("lenet-mnist"), tuned("lenet-mnist-pcm")
    best, mapping = answer["best"], rows["mapping, 1 cell"]
    assert_said(
        "docs/beyond.md",
        f"mapping** with one cell takes {mapping.cells:.2f} cells per weight",
        f"finds {best['cells_per_weight']:.2f} cells per weight for half a point (found: {best['points_lost']:.1f} po",
        f"{int(mapping.number('original_weights')):,} weights, none pruned",
    )
    one_step = MADE["fewest"](list(rows.values()), 0.5)["equal steps, compensated"]
    assert 0.4 < best["cells_per_weight"] / one_step.cells < 0.65
    assert (answer["holds"], answer["max_points_lost"]) == (True, 0.5)


OTHER = {
    "pcm": "",
    "pcm-drift": ", a day after programming",
    "pcm-partial-reset": "",
    "rram-wan": ", a second after pro",
}


@pytest.mark.parametrize("channel", OTHER)
def test_other_cells_as_the_page_says(channel):
    spec = MADE["CHANNELS"][channel]
    found = []
    for network in ("resnet20-cifar10", "resnet18-cifar10-pruned", "lenet-mnist"):
        answer = MADE["tuned_of"](network, channel)
        assert answer is None or answer["holds"]
        assert answer is None or answer["best"] == answer["rival"] or channel == "pcm"  # no analog cells
        found.append("" if answer is None else f"{answer['best']['cells_per_weight']:.2f} ")
    bits = best_code(oa.channel(spec), "bch").bits_per_cell
    cells = "".join(f"| {each}" for each in found)
    assert_said("docs/beyond.md", f"| `{spec}`{OTHER[channel]}")
    assert f"| {bits:.2f} {cells}|" in words("docs/beyond.md")


def test_what_analog_cells_gain_without_a_decoder_is_as_the_page_says():
    best, rival = (tuned("none-lenet-mnist-pcm")[key] for key in ("best", "rival"))
    low, high = best["points_lost_ci95"]
    assert (best["digital"], rival["digital"]) == (False, True)
    found = {
        name: MADE["fewest"](MADE["rows_of"](name, "pcm"), MADE["NETWORKS"][name].points)
        for name in ("resnet20-cifar10", "resnet18-cifar10")
    }
    assert_said(
        "docs/beyond.md",
        f"takes {best['cells_per_weight']:.2f} cells per weight, and loses {best['points_lost']:.1f} points "
        f"({low:.1f} to {high:.1f}); its best digital rival takes {rival['cells_per_weight']:.2f} cells, "
        f"{rival['cells_per_weight'] / best['cells_per_weight']:.2f} times as many",
        f"LeNet ({best['cells_per_weight']:.2f} cells per weight against {rival['cells_per_weight']:.2f})",
        ", ".join(
            f"{found[name]['refined'].cells:.2f} and {found[name]['equal steps'].cells:.2f} {words}"
            for name, words in {
                "resnet20-cifar10": "cells per weight on ResNet-20",
                "resnet18-cifar10": "on ResNet-18 before pruning",
            }.items()
        ),
    )


@pytest.mark.parametrize("network", ["resnet20-cifar10-pcm", "lenet-mnist-pcm"])
def test_a_table_changes_no_plan_as_the_page_says(network):
    assert_said("docs/beyond.md", "both networks are stored by the same plan as without one")
    with_table, without = (tuned(f"{decoding}-{network}")["plan"] for decoding in ("table", "none"))
    assert all(with_table[name] == without[name] for name in ("default", "tensors"))


def test_analog_cells_in_other_cells_are_as_the_page_says():
    analog = tuned("resnet20-cifar10-pcm-drift")["analog"]
    assert_said(
        "docs/beyond.md", f"for each weight of ResNet-20 lose {analog['points_lost']:.1f} points in as many cells"
    )
    for network in ("resnet20-cifar10", "lenet-mnist"):
        assert 3.0 <= of(network, "pcm-partial-reset")["mapping, 1 cell"].cells < 3.1


def above_digital(rows, step, column):
    """Return how far refined steps lie above the line through entropy-coded points at the same cells, in points."""
    digital = sorted(
        (row.cells, -row.lost(column)[0])
        for name, row in rows.items()
        if name.startswith("entropy-coded") and not row.compensated
    )
    refined = rows[f"refined {step}"]
    return -refined.lost(column)[0] - np.interp(refined.cells, *zip(*digital, strict=True))


def test_codes_compare_as_the_page_says():
    rows = of("resnet20-cifar10")
    gains = {
        name: f"{rows[name].lost('uncorrected')[0] - rows[name].lost()[0]:.1f}"
        for name in ("mapping, 1 cell", "entropy-coded 1.5")
    }
    above = [above_digital(rows, step, "value") for step in ("3", "2", "1.5", "1")]
    assert_said(
        "docs/codes.md",
        f"mapping with one cell gains {gains['mapping, 1 cell']} points, entropy-coded steps of 1.5 gain "
        f"{gains['entropy-coded 1.5']}",
        "{:.1f}, {:.1f}, {:.1f} and {:.1f} points better".format(*above),
        f"{-above_digital(rows, '2', 'uncorrected'):.1f} points worse",
    )
    assert min(above) > 0
    assert min(row.cells for row in rows.values() if row.trials[0]["decoding"] in ("none", "table")) >= 3


def gains(network, column):
    """Return what compensated rows below two cells per stored weight have ahead of digital storage, by their step."""
    rows = list(of(network).values())
    below = [row for row in rows if row.kind == MADE["BEST"]]
    below = [row for row in below if row.cells * row.number("original_weights") < 2 * MADE["kept"](rows)]
    found = {row.name.split()[-1]: MADE["gain"](row, rows, column) for row in below}
    return {step: each for step, each in found.items() if each is not None}


def ends(values):
    return f"{min(values):.0f} to {max(values):.0f}"


def test_what_is_ahead_of_digital_storage_is_what_the_page_says():
    raw, helped = (
        [gain for network in MADE["AHEAD"] for gain in gains(network, column).values()]
        for column in ("uncorrected", "value")
    )
    of_20, of_18 = (gains(network, "value") for network in MADE["AHEAD"])
    behind = [ends([gain.points for gain in some]) for some in (raw, helped)]
    assert_said(
        "docs/beyond.md",
        f"storage is {behind[0]} points behind",
        f"it is {behind[1]} points behind",
        f"is worth {ends([of_20[step].points for step in ('1.5', '2')])} points on ResNet-20, and "
        f"{of_18['2'].points:.0f} on ResNet-18",
        f"{behind[0]} ahead of what is read as it is; {behind[1]} if that is corrected",
    )
    assert min(gain.points - gain.reach for gain in raw) > 20
    enough = {step for step, gain in of_20.items() if gain.points >= 20}
    assert enough == {"3"}
    assert not [gain for gain in of_18.values() if gain.points >= 20]
    assert_said("docs/beyond.md", f"only where {of('resnet20-cifar10')['entropy-coded 3 compensated'].lost()[0]:.0f} p")


def test_digital_storage_in_as_many_cells_lies_on_the_line_between_two_points():
    """And is not known beyond the last one."""
    rows = list(of("resnet20-cifar10").values())
    (coarse, fine) = (of("resnet20-cifar10")[f"entropy-coded {step}"] for step in ("1.5", "1"))
    (row,) = (row for row in rows if row.compensated and row.name == "entropy-coded 1.5")
    share = (row.cells - coarse.cells) / (fine.cells - coarse.cells)
    assert 0 < share < 1
    found = MADE["gain"](row, rows, "value")
    assert found.lost == pytest.approx((1 - share) * coarse.lost()[0] + share * fine.lost()[0])
    assert found.points == pytest.approx(found.lost - row.lost()[0])
    assert MADE["gain"](row, [coarse], "value") is None


def test_goals_are_reached_as_the_page_says(trained):
    """Or not, as it says."""
    rows = trained.read(DOCS / "results" / "training-resnet20.csv")
    steps = [row for row in rows if (row.model, row.stored) == ("resnet20-cifar10", "compensated")]
    crossed = [trained.cells_at(steps, 1.0, column) for column in ("lost", "low", "high")]
    found = {network: MADE["fewest"](list(of(network).values()), points) for network, points in GOALS.items()}
    of_20, of_18 = (tuned(f"{network}-pcm")["best"] for network in GOALS)
    other = tuned("seed-1-resnet20-cifar10-pcm")["best"]["cells_per_weight"]
    (margin,) = (
        look["at_most"] - look["points_lost"]
        for look in of_20["looks"]
        if look["cells_per_weight"] == of_20["cells_per_weight"]
    )
    rivals = [found["resnet20-cifar10"][kind].cells for kind in ("equal steps", "refined")]
    resnet18 = trained.read(DOCS / "results" / "training-resnet18.csv")
    step = {(row.model, row.stored, row.step): row for row in resnet18}
    whole = step["resnet18-cifar10-pruned", "compensated", 1.5]
    paper = of("resnet18-cifar10-pruned")["entropy-coded 1.5 compensated"].paper_cells
    before = step["resnet18-cifar10-pruned", "compensated", 2.0]
    after = step["resnet18-layers-90-steps-2", "plain", 2.0]
    fine = step["resnet18-layers-88-steps-1.5", "plain", 1.5]
    at_none, analog = (tuned("none-resnet20-cifar10-pcm")[key] for key in ("best", "analog"))
    found_at_none, found_analog = (
        f"{each['points_lost']:.2f}{{}}({each['points_lost_ci95'][0]:.2f} to {each['points_lost_ci95'][1]:.2f})"
        for each in (at_none, analog)
    )
    low, high = of_18["points_lost_ci95"]
    assert_said(
        "docs/beyond.md",
        f"compensated: {crossed[0]:.2f} ({crossed[1]:.2f} to {crossed[2]:.2f}); `tune`, verified: "
        f"{of_20['cells_per_weight']:.2f}, and {other:.2f} with another split of the images; the best rivals: "
        f"{rivals[0]:.2f} and {rivals[1]:.2f}",
        f"{of_20['samples']:,} images verify: a loss must be {margin:.1f} points below the limit",
        f"verified: {of_18['cells_per_weight']:.2f} (found: {of_18['points_lost']:.2f} points, {low:.2f} to "
        f"{high:.2f}); the best rival: {found['resnet18-cifar10-pruned']['equal steps'].cells:.2f}",
        f"{fine.lost:.2f} points ({fine.low:.2f} to {fine.high:.2f}) in {fine.cells:.3f}, and "
        f"{after.lost:.2f} points ({after.low:.2f} to {after.high:.2f}) in {after.cells:.3f}; without training, "
        f"{before.lost:.2f} ({before.low:.2f} to {before.high:.2f}) in {before.cells:.3f} | yes",
        f"{paper:.2f} (one step for all tensors, compensated: {whole.lost:.2f} points, {whole.low:.2f} to "
        f"{whole.high:.2f})",
        f"{found_at_none.format(' points ')} in {at_none['cells_per_weight']:.2f} cells, and "
        f"{found_analog.format(' ')} with analog cells in {analog['cells_per_weight']:.2f}",
        f"| {found['resnet20-cifar10']['equal steps'].against_limit:.2f}, without compensation | yes",
    )
    assert crossed[0] <= 2.0 < of_20["cells_per_weight"] < min(rivals)
    assert of_18["cells_per_weight"] <= 0.55
    assert min(before.lost, after.lost) > 0.5 > fine.high
    assert fine.cells <= 0.4
    assert paper <= 0.38
    assert whole.lost <= 0.5
    assert found["resnet20-cifar10"]["equal steps"].against_limit <= 1.6
    for effort in ("none-", "table-", "", "soft-"):
        assert tuned(f"{effort}resnet20-cifar10-pcm")["best"] == tuned(f"{effort}resnet20-cifar10-pcm")["rival"]


GOALS = {"resnet20-cifar10": 1.0, "resnet18-cifar10-pruned": 0.5}  # points that may be lost


@pytest.fixture
def trained(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("trained")


def test_compensation_buys_what_its_page_says():
    rows = of("resnet20-cifar10")
    step, finer, compensated = (rows[f"entropy-coded {name}"] for name in ("1.5", "1", "1.5 compensated"))
    assert_said(
        "docs/compensation.md",
        f"leave {share(step)} %",
        f"in {cells(step)} cells per weight, and steps of 1 leave {share(finer)} % in {cells(finer)}",
        f"Compensated steps of 1.5 leave {share(compensated)} % of all 10,000 in {cells(compensated)} cells",
        f"original: {100 * compensated.number('original'):.2f} %",
        f"classifies {100 * step.number('original'):.2f} % correctly",
    )
