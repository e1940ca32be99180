"""Steps are logged at INFO: each once, in their order, and nothing of them by default."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from onnx_analog.display import progress_of
from tests.models import QUIET, proto
from tests.run.nets import LINEAR, answered

DATA = answered(64)
INPUTS = {"x": DATA.inputs["x"], "y": DATA.labels}


@pytest.fixture
def steps(caplog, tmp_path, monkeypatch):
    """Return a function that calls another and returns the messages at INFO, in a folder with a model."""
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(LINEAR), "model.onnx")

    def of(function) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "onnx_analog"):
            function()
        return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]

    return of


def test_what_is_stored_and_written_is_logged(steps):
    told = steps(lambda: oa.protect("model.onnx", channel=QUIET, strategy="sign", sparsity=0.5).save("p.onnx"))
    opened, pruned, stored, manifest, wrote = told
    assert opened == "opened 'model.onnx'"
    assert pruned == "pruning 1 tensor to a sparsity of 0.5"
    assert stored.startswith("1 tensor, 512 weights: sign")
    assert manifest == "manifest of 1 tensor"
    assert wrote == "wrote 'p.onnx'"


def test_reads_are_logged(steps):
    protected = oa.protect("model.onnx", channel=QUIET)
    assert steps(lambda: oa.readback(protected, seed=3, decoded=True)) == [
        f"seed 3, trial 0, channel {QUIET}: read 1 tensor",
        "decoded 1 tensor",
    ]
    (*_, corrected) = steps(lambda: oa.readback(protected, correct={"x": INPUTS["x"]}))
    assert corrected == "corrected: gain and shift of 1 layer"


def test_each_trial_is_logged_with_its_value(steps):
    protected = oa.protect("model.onnx", channel="gaussian:sigma=0.3")
    told = steps(lambda: oa.evaluate(protected, INPUTS, trials=3))
    found = oa.evaluate(protected, INPUTS, trials=3)
    assert told[0] == "64 samples to evaluate with"
    assert told[1:] == [f"trial {n + 1} of 3: top1 {found.shown(value)}" for n, value in enumerate(found.values)]


def test_each_trial_of_a_check_is_logged_once(steps):
    protected = oa.protect("model.onnx", channel="gaussian:sigma=0.3")
    told = steps(lambda: oa.check(protected, INPUTS, max_drop=50, max_trials=40, reference="model.onnx"))
    trials = [text for text in told if text.startswith("trial ")]
    assert trials == [f"trial {n + 1} of at most 40" for n in range(len(trials))]
    assert trials


def test_each_point_of_a_sweep_is_logged_with_its_value(steps):
    swept = []
    told = steps(lambda: swept.append(oa.sweep("model.onnx", INPUTS, strategy="sign", cells=(1, 3), trials=2)))
    points = [text for text in told if text.startswith("point ")]
    assert len(points) == 2
    for number, (text, point) in enumerate(zip(points, swept[0].points, strict=True), 1):
        assert text.startswith(f"point {number} of 2, model, {point.setting}: top1 ")
        assert text.endswith(f"{point.evaluation.shown(point.evaluation.mean)}, 2 trials")


def test_each_part_of_a_sensitivity_is_logged_once(steps):
    protected = oa.protect("model.onnx", channel="gaussian:sigma=0.3")
    told = [text for text in steps(lambda: oa.sensitivity(protected, INPUTS, trials=2)) if text.startswith("part ")]
    assert len(told) == len(set(told))
    assert told[0].endswith(", all")
    assert any(text.endswith(", w") for text in told)


def test_candidates_looks_and_verification_of_a_search_are_logged(steps):
    data = answered(200)
    told = steps(lambda: oa.tune("model.onnx", data, max_drop=20, trials=2))
    for words in ("sensitivity 1 of ", "candidates of tensor 1 of 1", " at ", "verif"):
        assert any(words in text for text in told), words
    order = [
        next(n for n, text in enumerate(told) if words in text) for words in ("sensitivity", "candidates", "verif")
    ]
    assert order == sorted(order)


def test_the_steps_of_a_fit_are_logged(steps, tmp_path):
    from onnx_analog.channels import fitting

    x = np.repeat(np.linspace(-1, 1, 9), 20)
    y = x + np.random.default_rng(0).normal(0, 0.05, x.size)
    np.savetxt("pairs.csv", np.column_stack((x, y)), delimiter=",", header="v,r", comments="")
    assert steps(lambda: fitting.fit("pairs.csv", input="v", output="r", neighbours=3)) == ["read 180 pairs", "k = 3"]


def test_progress_logs_a_text_when_it_changes(caplog):
    shown = []
    show = progress_of(lambda text, fraction=None: shown.append((text, fraction)))
    with caplog.at_level(logging.INFO, "onnx_analog"):
        for text, share in (("a", 0.1), ("a", 0.2), ("b 100 %s", 0.3), ("a", 0.4)):
            show(text, share)
    assert caplog.messages == ["a", "b 100 %s", "a"]
    assert len(shown) == 4


def test_nothing_of_this_is_shown_by_default(caplog, tmp_path):
    onnx.save(proto(LINEAR), tmp_path / "model.onnx")
    oa.protect(tmp_path / "model.onnx", channel=QUIET, strategy="sign").save(tmp_path / "p.onnx")
    oa.evaluate(tmp_path / "p.onnx", INPUTS, trials=1)
    assert not [record for record in caplog.records if record.levelno < logging.WARNING]
