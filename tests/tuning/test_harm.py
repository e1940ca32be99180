"""Where noise hurts: losses, shares, and how they are shown."""

from __future__ import annotations

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog.cli import main
from onnx_analog.cli.harm_tables import tables_of
from onnx_analog.errors import DataError, OptionError
from onnx_analog.tuning import gauge
from tests.models import model, proto
from tests.run.nets import LINEAR, rows

NET = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        g = Relu(h)
        y = MatMul(g, b)
    }"""
X = rows(200).inputs["x"]
NOISY = {"channel": "gaussian:sigma=0.1", "seed": 3}


@pytest.fixture(scope="module")
def found():
    return oa.sensitivity(model(NET), X, trials=4, **NOISY)


def test_the_whole_is_what_evaluate_finds(found):
    protected = oa.protect(model(NET), channel=NOISY["channel"])
    evaluation = oa.evaluate(protected, X, trials=4, seed=3)  # agreement with the model as written
    assert found.whole.losses == pytest.approx([1 - value for value in evaluation.values])
    again = oa.sensitivity(protected, X, trials=4, seed=3)
    assert [harm.losses for harm in again.parts] == [harm.losses for harm in found.parts]


def test_losses_are_counted_from_the_model_as_written():
    labels = np.argmax(oa.Experiment(model(NET), X).clean[0], axis=1)
    coarse = oa.sensitivity(model(NET), (X, labels), integers=4, channel="gaussian:sigma=0.0001", samples=100)
    assert coarse.alike
    assert coarse.trials == 1
    assert 0 < coarse.stored < 1  # what storing loses
    assert {harm.loss for harm in (coarse.whole, *coarse.parts)} == {0.0}
    assert {coarse.share(harm) for harm in coarse.parts} == {None}


def test_the_worst_come_first(found):
    assert found.kinds == ("tensor", "class", "stream")
    for kind in found.kinds:
        apart = [harm.divergence for harm in found.of(kind)]
        assert apart == sorted(apart, reverse=True)
    assert [harm.part.kind for harm in found.parts] == ["tensor"] * 2 + ["class"] * 2 + ["stream"] * 4


def test_the_kinds_are_those_that_are_asked_for():
    by = ("tensor-stream", "tensor-class", "tensor-stream")
    within = oa.sensitivity(model(NET), X, by=by, all_but=0, trials=1, **NOISY)
    assert within.kinds == ("tensor-stream", "tensor-class")
    assert {(harm.part.tensor, harm.part.name) for harm in within.of("tensor-class")} == {
        (tensor, name) for tensor in "ab" for name in "01"
    }
    assert "the worst stream is '" in str(within)
    grid = within.grid("tensor-stream", 1)
    assert grid.names == ("levels", "signs", "classes", "codebook")
    assert grid.tensors == (within.parts[0].part.tensor,)
    worst = within.parts[0]
    assert grid.shares[0, grid.names.index(worst.part.name)] == within.share(worst)
    with pytest.raises(OptionError, match="an overlay shows shares of tensors, and by is tensor-stream,tensor-class"):
        within.overlay()


def test_all_but_one_of_two_is_the_other(found):
    """All but one of two tensors is the other one; so it is with two classes."""
    for kind in ("tensor", "class"):
        one, other = found.of(kind)
        assert (one.all_but.losses, one.all_but.divergences) == (other.losses, other.divergences)
        assert (other.all_but.losses, other.all_but.divergences) == (one.losses, one.divergences)


def test_the_rest_is_of_the_worst_that_do_harm(found):
    worst = [harm for harm in found.of("stream") if harm.all_but is not None]
    assert worst == list(found.of("stream")[:1])  # signs, classes and codebook are read without errors
    assert worst[0].all_but.divergence == 0
    one = oa.sensitivity(model(NET), X, all_but=1, trials=1, **NOISY)
    assert [harm.all_but is None for harm in one.of("tensor")] == [False, True]
    none = oa.sensitivity(model(NET), X, all_but=0, trials=1, **NOISY)
    assert {harm.all_but for harm in none.parts} == {None}
    assert "all but it" not in none.headings
    assert not any(column.startswith("all_but") for column in next(none.rows()))


@pytest.fixture(scope="module")
def corrected():
    return oa.sensitivity(model(NET), X, correct=X[:100], trials=4, **NOISY)


def test_the_same_reads_are_shown_without_the_correction(found, corrected):
    without = corrected.uncorrected
    assert without.whole == found.whole
    assert {harm.part: harm for harm in without.parts if harm.part.kind != "class"} == {
        harm.part: harm for harm in found.parts if harm.part.kind != "class"
    }
    assert without.uncorrected is None
    assert found.uncorrected is None
    assert corrected.whole.losses != found.whole.losses


def test_the_correction_is_that_of_evaluate(corrected):
    protected = oa.protect(model(NET), channel=NOISY["channel"])
    evaluation = oa.evaluate(protected, X, correct=X[:100], trials=4, seed=3)
    assert corrected.whole.losses == pytest.approx([1 - value for value in evaluation.values])
    assert corrected.uncorrected.whole.losses == pytest.approx([1 - value for value in evaluation.uncorrected.values])
    assert corrected.correction == evaluation.correction
    assert corrected.to_dict()["correction"] == {"by": "100 samples", **evaluation.correction.to_dict()}


def test_rows_are_with_and_without_the_correction(corrected):
    for harm, row in zip((corrected.whole, *corrected.parts), corrected.rows(), strict=True):
        without = harm.without_correction
        assert row["divergence"] == harm.divergence
        assert row["uncorrected_divergence"] == without.divergence
        assert row["share"] == corrected.share(harm)
        assert row["uncorrected_share"] == corrected.uncorrected.share(without)
        assert row["all_but_divergence"] == (harm.all_but and harm.all_but.divergence)
        assert row["all_but_uncorrected_divergence"] == (without.all_but and without.all_but.divergence)


def test_a_table_has_each_part_with_and_without_the_correction(corrected):
    rows = list(corrected.table("tensor"))
    assert [row[0] for row in rows] == [
        *(name for harm in corrected.of("tensor") for name in (harm.part.name, "· without correction")),
        "sum", "all, with noise at once", "· without correction",
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(corrected.headings) + 1}
    assert rows[1][3:] == corrected.uncorrected.texts(corrected.of("tensor")[0].without_correction)[2:]


def test_cells_of_a_table_add_up(found):
    for kind in found.kinds:
        rows = {row[0]: row for row in found.table(kind)}
        total = int(rows["all, with noise at once"][2].replace(",", ""))
        rest = rows.get("in none of these", ("",) * 3)[2].replace(",", "")
        assert int(rows["sum"][2].replace(",", "")) + int(rest or 0) == total
        assert bool(rest) == (kind == "class")  # the codebook is of no single class


def test_shares_are_of_the_divergence_of_the_whole(found):
    for harm in found.parts:
        assert found.share(harm) == pytest.approx(harm.divergence / found.whole.divergence)
    assert found.share(found.whole) == 1


def test_intervals_are_student_s_over_trials(found):
    low, high = found.ends(found.whole)
    mean, error = np.mean(found.whole.losses), np.std(found.whole.losses, ddof=1) / 2
    assert (low, high) == pytest.approx((100 * (mean - 3.1824 * error), 100 * (mean + 3.1824 * error)), rel=1e-4)
    one = oa.sensitivity(model(NET), X, trials=1, **NOISY)
    assert one.ends(one.whole) is None
    assert one.whole.losses == found.whole.losses[:1]


def test_regressions_are_measured_in_decibels(found):
    noise = oa.sensitivity(model(NET), X, metric="sqnr_db", trials=8, **NOISY)
    (row, *_) = noise.rows()
    assert row["sqnr_db"] == pytest.approx(-10 * np.log10(noise.whole.loss))
    assert row["ci95_low"] <= row["sqnr_db"] <= row["ci95_high"]
    assert "SQNR" in str(noise)
    assert "classes" not in str(noise)
    assert "% of the samples change their class" in str(found)


def test_rows_are_csv_and_json(found):
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [row["name"] for row in rows] == ["", *(harm.part.name for harm in found.parts)]
    assert float(rows[1]["share"]) == found.share(found.parts[0])
    assert json.loads(json.dumps(found.to_dict()))["parts"] == list(found.rows())


def test_the_overlay_names_nodes_as_the_adapter_does(found):

    shares = {harm.part.name: 100 * found.share(harm) for harm in found.of("tensor")}
    ((graph, overlay),) = found.overlay().items()
    assert graph == "net"
    assert overlay["results"] == {"node": {"value": shares["a"]}, "node_2": {"value": shares["b"]}}
    assert [stop["stop"] for stop in overlay["gradient"]] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trials": 0}, "trials is 0"),
        ({"metric": "relative_error"}, "metric is relative_error; it must be one that compares sample by sample"),
        ({"cells_small": 0}, "cells_small is 0"),
        ({"by": ["layer"]}, "by is 'layer'; choose from tensor, class, stream, tensor-class, tensor-stream"),
        ({"by": ()}, "by is empty"),
        ({"by": ["class"], "strategy": "raw"}, "by is class, and there are no such parts: all tensors have one class"),
        ({"all_but": -1}, "all_but is -1"),
        ({"correct": "gain", "correct_samples": 3}, "correct_samples is 3, and correct is 'gain'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    with pytest.raises((OptionError, DataError), match=said):
        oa.sensitivity(model(NET), X, **arguments)


def test_outputs_that_are_no_numbers_are_refused():
    with pytest.raises(DataError, match="of the outputs without noise are NaN, so nothing tells what noise does"):
        oa.sensitivity(model(NET), np.full_like(X, np.nan), **NOISY)


def test_classes_are_compared_with_those_of_the_model_as_written():
    pruned = oa.sensitivity(model(NET), X, sparsity=0.8, prune_scope="tensor", trials=2, **NOISY)
    assert min(loss for harm in (pruned.whole, *pruned.parts) for loss in harm.losses) >= 0
    quiet = oa.sensitivity(model(NET), X, sparsity=0.8, prune_scope="tensor", integers=8, channel="pcm")
    assert quiet.whole.loss == 0  # what pruning changes is not noise


def test_a_loss_without_labels_is_the_share_of_classes_that_change():
    loud = {"channel": "gaussian:sigma=0.4", "seed": 3}
    protected = oa.protect(oa.prune(model(NET), sparsity=0.8, prune_scope="tensor"), channel=loud["channel"])
    parts = oa.Experiment(protected, X).parts()
    (written,) = parts.written
    changed = []
    for trial in range(3):
        (outputs,) = parts.outputs(parts.all, seed=3, trial=trial)
        changed.append(float(np.mean(outputs.argmax(axis=1) != written.argmax(axis=1))))
    found = oa.sensitivity(model(NET), X, sparsity=0.8, prune_scope="tensor", trials=3, **loud)
    assert found.whole.losses == pytest.approx(changed)
    assert min(changed) > 0


def test_outputs_that_overflow_are_refused():
    half = NET.replace("float[", "float16[")
    with pytest.raises(DataError, match=r"(outputs are not finite if|of the outputs without noise are NaN)"):
        oa.sensitivity(model(half), (X * 6000).astype(np.float16), trials=1, **NOISY)


def test_an_interval_that_reaches_no_noise_has_no_decibels():
    noise = oa.sensitivity(model(NET), X[:20], metric="sqnr_db", trials=2, **NOISY)
    for row in noise.rows():
        assert row["ci95_high"] is None or row["ci95_high"] < 200


def test_a_name_that_looks_like_mathematics_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from onnx_analog.harm_plot import plot_harms

    strange = proto(NET)
    strange.graph.initializer[0].name = "w$^$"
    strange.graph.node[0].input[1] = "w$^$"
    by = ("tensor", "tensor-class")
    plot_harms(oa.sensitivity(strange, X, trials=1, by=by, correct=X[:50], **NOISY))(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_how_to_store_a_protected_model_is_refused():
    with pytest.raises(OptionError, match="cells_small is given, and the model is protected already"):
        oa.sensitivity(oa.protect(model(NET)), X, cells_small=2)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(NET), "model.onnx")
    np.savez("test.npz", x=X)
    return lambda line: CliRunner().invoke(main, line.split(), prog_name="onnx-analog")


def test_the_command_prints_and_writes(command, tmp_path, found):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    line = "sensitivity model.onnx --data test.npz --channel gaussian:sigma=0.1 --seed 3 --trials 4"
    result = command(f"{line} --csv a.csv --plot a.png --overlay a.json --report a.html")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-4:] == ["csv: a.csv", "plot: a.png", "overlay: a.json", "report: a.html"]
    worst = found.of("tensor")[0]
    assert f"{100 * found.share(worst):.1f}" in result.stdout
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == found.csv()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == found.overlay()
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert "already" in command(f"{line} --csv a.csv").stderr
    assert json.loads(command(f"{line} --json").stdout)["parts"] == list(found.rows())


def test_the_plot_of_parts_of_single_tensors_needs_no_bars(tmp_path):
    pytest.importorskip("matplotlib")
    from onnx_analog.harm_plot import plot_harms

    plot_harms(oa.sensitivity(model(NET), X, trials=1, by=["tensor-stream"], **NOISY))(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_an_overlay_without_tensors_is_refused_at_once(command, tmp_path):
    refused = command("sensitivity model.onnx --data test.npz --by class --overlay a.json")
    assert refused.exit_code == 2
    assert "an overlay shows shares of tensors, and --by is class: add tensor to it" in refused.stderr
    assert not (tmp_path / "a.json").exists()


def test_a_wrong_share_is_seen(found):
    """The tests above reject shares of another total."""
    assert found.share(found.parts[0]) != pytest.approx(
        found.parts[0].divergence / sum(harm.divergence for harm in found.of("tensor"))
    )


@pytest.mark.parametrize("how", ["plain", "protected", "without"])
def test_what_storing_alone_loses_is_that_of_evaluate_without_trials(how):
    """A plain model is its own original; of a protected one, the reference is."""
    original, data = model(LINEAR), rows(200)
    stored = oa.protect(original, integers=4)
    labelled = (data.inputs["x"], np.random.default_rng(0).integers(16, size=200))
    given = {"plain": (original, {"integers": 4}), "protected": (stored, {"reference": original})}.get(
        how, (stored, {})
    )
    found = oa.sensitivity(given[0], labelled, trials=1, by=["stream"], **given[1])
    evaluated = oa.evaluate(stored, labelled, reference=original, trials=0)
    assert found.storing == (None if how == "without" else pytest.approx(evaluated.original - evaluated.stored))
    text = " ".join(str(table.caption) for table in tables_of(found))
    assert ("By storing alone, relative to the original: " in text) == (how != "without")
    assert found.to_dict()["storing"] == (
        None if how == "without" else {"points_lost": pytest.approx(100 * found.storing)}
    )


@pytest.mark.parametrize("loss", [np.inf, np.nan])
def test_what_storing_loses_is_not_known_where_that_is_not_finite(loss, monkeypatch):
    monkeypatch.setattr(gauge, "losses", lambda _: lambda outputs: np.full(len(outputs[0]), loss))
    known = SimpleNamespace(original_known=True)
    assert gauge._storing(known, SimpleNamespace(written=[X])) is None
    monkeypatch.setattr(gauge, "losses", lambda _: lambda outputs: np.full(len(outputs[0]), 0.25))
    assert gauge._storing(known, SimpleNamespace(written=[X])) == 0.25


def test_what_storing_loses_of_a_regression_is_in_decibels():
    found = oa.sensitivity(model(NET), X, integers=4, metric="sqnr_db", trials=1, by=["stream"])
    assert 0 < found.storing < 1
    assert found.to_dict()["storing"] == {"sqnr_db": pytest.approx(-10 * np.log10(found.storing))}
