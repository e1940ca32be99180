"""Compensation, as commands and the library offer it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import onnx_analog as oa
from onnx_analog.coding import compensation
from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph.protected import open_protected
from tests.cli.test_app import assert_refused, body, cli, done, shelf  # noqa: F401 - fixtures
from tests.models import model, run

STEPS = "--classes 255 --sign level --partition uniform --relative-step 1 --cells 0"
UNCOMPENSATED = (
    "compensate is left out, but the plan is for compensated weights: without it, cells and losses are not those that "
    "were verified, and far more may be lost. Give it a few samples; they need no labels"
)
SCHEME = oa.Scheme(classes=255, sign="level", partition="uniform", relative_step=1.0, cells=(0,))


@pytest.fixture
def samples(tmp_path):
    """Return the path of samples whose inputs are correlated: four hidden numbers, and some noise."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 16)) + 0.1 * rng.normal(size=(60, 16))
    np.savez(tmp_path / "calib.npz", x=x.astype(np.float32))
    return tmp_path / "calib.npz"


def outputs(tmp_path, name):
    with np.load(tmp_path / "calib.npz") as file:
        return run(oa.readback(tmp_path / name, decoded=True).to_proto(), {"x": file["x"]})[0].astype(np.float64)


def test_outputs_are_nearer_to_those_of_the_original(cli, samples, tmp_path):  # noqa: F811
    done(cli(f"protect model.onnx {STEPS} -o plain.onnx"))
    done(cli(f"protect model.onnx {STEPS} --compensate calib.npz -o better.onnx"))
    with np.load(samples) as file:
        (expected,) = run(ir.to_proto(ir.load(tmp_path / "model.onnx")), {"x": file["x"]})
    plain, better = (np.square(outputs(tmp_path, f"{name}.onnx") - expected).sum() for name in ("plain", "better"))
    assert better < plain / 2


def test_the_command_is_the_function(cli, samples, tmp_path):  # noqa: F811
    done(cli(f"protect model.onnx {STEPS} --compensate calib.npz --compensate-samples 40 -o some.onnx"))
    alone = oa.protect(tmp_path / "model.onnx", SCHEME, compensate=samples, compensate_samples=40)
    written = open_protected(ir.load(tmp_path / "some.onnx"))
    for ours, theirs in zip(alone.tensors, written.tensors, strict=True):
        np.testing.assert_array_equal(ours.decode(), theirs.decode())


def test_a_sweep_scores_what_protect_stores(cli, samples, tmp_path):  # noqa: F811
    plan = oa.Plan.of(SCHEME)
    (tmp_path / "steps.json").write_text(plan.to_json(), encoding="utf-8")
    line = f"sweep model.onnx --data test.npz --plan steps.json --compensate {samples} --trials 1"
    found = body(cli(f"{line} --out one --engine serial --json"))["points"]
    swept = next(point for point in found if point["strategy"] == "steps")
    done(cli(f"protect model.onnx --plan steps.json --compensate {samples} -o stored.onnx"))
    alone = body(cli("evaluate stored.onnx --data test.npz --trials 1 --reference model.onnx --json"))
    assert swept["values"] == alone["values"]
    done(cli(f"{line} --out two --workers 2"))
    assert (tmp_path / "one" / "trials.csv").read_bytes() == (tmp_path / "two" / "trials.csv").read_bytes()


def test_pruned_weights_stay_zero(shelf, samples):  # noqa: F811
    stored = oa.protect(shelf / "model.onnx", SCHEME, sparsity=0.5, compensate=samples)
    pruned = oa.prune(shelf / "model.onnx", sparsity=0.5)
    weights = {value.name: value.const_value.numpy() for value in pruned.model.graph.initializers.values()}
    for tensor in stored.tensors:
        assert not tensor.decode()[weights[tensor.key] == 0].any()


def test_what_has_cells_is_left_as_it_is(shelf, samples):  # noqa: F811
    both = oa.Plan(default=oa.Scheme.paper("mapping"), tensors={"a": SCHEME})
    plain = {tensor.key: tensor.decode() for tensor in oa.protect(shelf / "model.onnx", both).tensors}
    stored = oa.protect(shelf / "model.onnx", both, compensate=samples)
    for tensor in stored.tensors:
        assert np.array_equal(tensor.decode(), plain[tensor.key]) == (tensor.key != "a")


def test_only_what_makes_up_for_errors_is_counted(shelf, samples, monkeypatch):  # noqa: F811
    """A tensor whose outputs are not nearer on samples that are held out is rounded as without samples."""
    stored = oa.protect(shelf / "model.onnx", SCHEME, compensate=samples)
    count = stored.model.metadata_props["onnx_analog.compensation"]
    assert count == f"{len(stored.tensors)} tensor{'s' * (len(stored.tensors) > 1)}"
    assert stored.plan.compensated
    monkeypatch.setattr(compensation, "_error", lambda *_: 1.0)  # none is nearer
    fallen = oa.protect(shelf / "model.onnx", SCHEME, compensate=samples)
    assert "onnx_analog.compensation" not in fallen.model.metadata_props
    assert not fallen.plan.compensated


def test_a_plan_for_compensated_weights_asks_for_samples(cli, samples, tmp_path, caplog):  # noqa: F811
    plan = oa.Plan(default=SCHEME, compensated=True)
    (tmp_path / "tuned.json").write_text(plan.to_json(), encoding="utf-8")
    (tmp_path / "own.json").write_text(oa.Plan(default=SCHEME).to_json(), encoding="utf-8")
    sweep = "sweep model.onnx --data test.npz --trials 0 --plan"
    for line, warned in (
        ("protect model.onnx --plan tuned.json -o a.onnx", True),
        ("protect model.onnx --plan own.json -o b.onnx", False),
        ("protect model.onnx --plan tuned.json --compensate calib.npz -o c.onnx", False),
        (f"{sweep} tuned.json --out d", True),
        (f"{sweep} own.json --out e", False),
        (f"{sweep} tuned.json --compensate {samples} --out f", False),
    ):
        caplog.clear()
        done(cli(line))
        assert caplog.messages.count(UNCOMPENSATED) == warned, line
    caption = "For weights compensated"
    assert caption in done(cli("plan show tuned.json"))
    assert caption not in done(cli("plan show own.json"))
    caplog.clear()
    oa.protect(tmp_path / "model.onnx", plan)
    assert UNCOMPENSATED in caplog.messages


def test_other_samples_than_those_that_verified_are_a_warning(cli, samples, tmp_path, caplog):  # noqa: F811
    plan = oa.Plan(default=SCHEME, compensated=True, compensated_by=40)
    (tmp_path / "tuned.json").write_text(plan.to_json(), encoding="utf-8")
    said = "the plan was verified with compensation by 40 samples, and here 60 compensate: "
    for line in (
        "protect model.onnx -o {}.onnx",
        "sweep model.onnx --data test.npz --trials 0 --out {}",
        "check model.onnx --data test.npz --max-drop 99",
        "sensitivity model.onnx --data test.npz",
    ):
        for count, warned in ((60, True), (40, False)):
            caplog.clear()
            more = f"--plan tuned.json --compensate {samples} --compensate-samples {count}"
            done(cli(f"{line.format(count)} {more}"))
            assert sum(text.startswith(said) for text in caplog.messages) == warned, line


@pytest.mark.usefixtures("cli")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--compensate calib.npz", 2, "no scheme can be compensated: it has analog cells"),
        (f"{STEPS} --compensate none.npz", 2, "invalid value for '--compensate': file 'none.npz' does not exist"),
        (f"{STEPS} --compensate .", 2, "invalid value for '--compensate': file '.' is a directory"),
        (f"{STEPS} --compensate wide.npz", 1, "compensate: "),
        (f"{STEPS} --compensate-samples 9", 2, "--compensate-samples is 9, and no samples are given: leave it out"),
        (f"{STEPS} --mean 0.5", 2, "--mean is given, and --compensate is not, so no images are read: leave it out"),
        (f"{STEPS} --compensate calib.npz -o calib.npz --force", 1, "calib.npz"),
    ],
)
def test_what_cannot_compensate_is_one_line(cli, samples, line, code, said):  # noqa: F811
    assert samples.exists()
    assert_refused(cli(f"protect model.onnx {line}"), code, said)


def test_a_sweep_of_nothing_that_can_be_compensated_is_refused(cli, samples):  # noqa: F811
    line = f"sweep model.onnx --data test.npz --cells 1 --compensate {samples} --out results"
    assert_refused(cli(line), 2, "no scheme can be compensated: it has analog cells")


def test_only_the_limit_of_what_is_compensated_is_refused(shelf, samples):  # noqa: F811
    experiment = oa.Experiment(shelf / "model.onnx", shelf / "test.npz", compensate=samples)
    assert experiment.limit(oa.Scheme.paper("mapping")).cells > 0
    for refused in (
        experiment,
        oa.Experiment(oa.protect(shelf / "model.onnx", SCHEME, compensate=samples), shelf / "test.npz"),
    ):
        with pytest.raises(OptionError, match="rounding errors are compensated"):
            refused.limit(None if refused is not experiment else SCHEME)


def test_what_is_not_compensated_is_named(caplog, samples):
    net = """net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random, float[1, 16] v = random> {
        a = MatMul(x, w) y = Mul(a, v) }"""
    selection = oa.Selection(min_size=1)
    data = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    for name, call in {
        "protect": lambda: oa.protect(model(net), SCHEME, selection=selection, compensate=samples),
        "sweep": lambda: oa.sweep(
            model(net), data, strategy=[], plan={"steps": SCHEME}, selection=selection, compensate=samples, trials=0
        ),
        "tune": lambda: oa.tune(model(net), data, budget=200, selection=selection, trials=2),
    }.items():
        caplog.clear()
        call()
        assert any("not compensated: 'v' (used by Mul)" in text for text in caplog.messages), name


@pytest.mark.parametrize("given", [3, {"x": np.zeros((9, 2), np.float32)}])
def test_the_library_refuses_in_its_own_words(shelf, given):  # noqa: F811
    with pytest.raises(DataError, match="compensate: "):
        oa.protect(shelf / "model.onnx", SCHEME, compensate=given)
    with pytest.raises(OptionError, match="compensate is given, and no scheme can be compensated"):
        oa.protect(shelf / "model.onnx", compensate=given)
