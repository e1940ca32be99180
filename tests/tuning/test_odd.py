"""Odd models and channels: `tune` gives a plan that can be stored, or refuses in one line."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.errors import AnalogError, DataError, OptionError
from onnx_analog.graph.weights import Selection
from onnx_analog.tuning import candidates, measures
from tests.models import f32, model
from tests.run.nets import drawn

ODD = {
    "constant": """net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random, float[16, 16] c = {ones}> {
        a = MatMul(x, w) b = MatMul(x, c) y = Add(a, b) }""".replace("ones", ", ".join("1" * 256)),
    "tied": """net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random> {
        a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }""",
    "tied in two arrangements": """net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random> {
        a = MatMul(x, w) r = Relu(a) y = Gemm <transB = 1> (r, w) }""",
    "in a branch": """net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random, float[16, 16] v = random> {
        a = MatMul(x, w) s = ReduceSum <keepdims = 0> (a) zero = Constant <value = float {0}> () c = Greater(s, zero)
        y = If (c) <then_branch = g () => (float[n, 16] p) { p = MatMul(a, v) },
                    else_branch = h () => (float[n, 16] q) { q = Neg(a) }> }""",
    "half": """net (float[n, 16] x) => (float[n, 16] y) <float16[16, 16] w = random> {
        h = Cast <to = 10> (x) a = MatMul(h, w) y = Cast <to = 1> (a) }""",
    "double": """net (float[n, 16] x) => (float[n, 16] y) <double[16, 16] w = random> {
        h = Cast <to = 11> (x) a = MatMul(h, w) y = Cast <to = 1> (a) }""",
    "two outputs": """net (float[n, 16] x) => (float[n, 16] y, float[n, 8] z)
        <float[16, 16] w = random, float[16, 8] v = random> { y = MatMul(x, w) z = MatMul(x, v) }""",
    "all zero": """net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random, float[16, 16] c = {zeros}> {
        a = MatMul(x, w) b = MatMul(x, c) y = Add(a, b) }""".replace("zeros", ", ".join("0" * 256)),
}
FEW = {"trials": 2, "selection": Selection(min_size=1)}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(candidates, "STEPS", candidates.STEPS[::4])


def samples(count=400):
    return {"x": drawn(count, 16)}


@pytest.mark.parametrize("name", ODD)
def test_the_plan_of_an_odd_model_can_be_stored_and_read(name):
    tuned = oa.tune(model(ODD[name]), samples(), max_drop=30, **FEW)
    assert 0 < tuned.best.cells < 60  # a matrix of 256 weights has a codebook, and the correction its numbers
    evaluated = oa.evaluate(tuned.protected, samples(50), trials=1, reference=model(ODD[name]))
    assert 0 <= evaluated.values[0] <= 1
    stored = oa.protect(model(ODD[name]), plan=tuned.plan, selection=FEW["selection"])
    assert {tensor.key for tensor in stored.tensors} == set(tuned.plan.tensors)


def many(count):
    """Return a model with many small tensors, all of which are multiplied by the same input."""
    names = [f"w{number}" for number in range(count)]
    declared = ", ".join(f"float[4, 4] {name} = random" for name in names)
    lines = " ".join(f"a{number} = MatMul(x, {name})" for number, name in enumerate(names))
    total = f"y = Sum({', '.join(f'a{number}' for number in range(count))})"
    return model(f"net (float[n, 4] x) => (float[n, 4] y) <{declared}> {{ {lines} {total} }}")


def test_many_small_tensors():
    count = 60
    tuned = oa.tune(many(count), {"x": drawn(200, 4)}, budget=100, decoding="none", correction=False, **FEW)
    assert len(tuned.plan.tensors) == len(tuned.rows()) == count


@pytest.mark.slow(reason="it runs the model two thousand times: 8 min, 500 MB")
def test_a_thousand_tensors():
    """From sensitivities to the verified plan, with all that is written of it."""
    count = 1000
    tuned = oa.tune(many(count), {"x": drawn(200, 4)}, max_drop=30, **FEW)
    assert tuned.holds is not False
    assert len(tuned.plan.tensors) == len(tuned.rows()) == len(tuned.to_dict()["tensors"]) == count
    assert tuned.weights == 16 * count
    assert len(tuned.protected.tensors) == count
    evaluated = oa.evaluate(tuned.protected, {"x": drawn(50, 4)}, trials=1, reference=many(count))
    assert 0.5 <= evaluated.values[0] <= 1


@pytest.mark.parametrize("decoding", ["none", "hard"])
def test_a_channel_without_noise_to_speak_of_needs_few_cells(decoding):
    quiet = GaussianNoise(sigma=1e-6, low=-1, high=1)
    tuned = oa.tune(model(ODD["tied"]), samples(), max_drop=30, channel=quiet, decoding=decoding, **FEW)
    assert tuned.holds
    loud = oa.tune(model(ODD["tied"]), samples(), max_drop=30, channel="pcm", decoding=decoding, **FEW)
    assert tuned.best.cells < loud.best.cells


def test_a_channel_that_is_all_noise_is_refused():
    noise = GaussianNoise(sigma=1e6, low=-1, high=1)
    with pytest.raises(AnalogError, match="no BCH code of 4,096 data bits fails with at most"):
        oa.tune(model(ODD["tied"]), samples(), max_drop=1, channel=noise, **FEW)


REGRESSION = (drawn(400, 16), f32(np.zeros((400, 16))))


@pytest.mark.parametrize("goal", [{"min_sqnr": 20}, {"budget": 8}])
def test_a_regression_has_a_ratio_of_signal_to_noise(goal):
    tuned = oa.tune(model(ODD["two outputs"]), REGRESSION, metric="sqnr_db", output="y", **goal, **FEW)
    assert tuned.metric == "sqnr_db"
    evaluated = oa.evaluate(
        tuned.protected, samples(200), metric="sqnr_db", output="y", trials=1, reference=model(ODD["two outputs"])
    )
    found = -10 * np.log10(tuned.best.verified.mean)
    assert evaluated.values[0] == pytest.approx(found, abs=1)  # of other samples
    if "min_sqnr" in goal:
        assert tuned.holds
        assert found >= 20


@pytest.mark.parametrize("goal", [{"min_sqnr": 20}, {"max_drop": 20}, {"budget": 9}])
def test_samples_that_are_no_numbers_are_refused(goal):
    x = drawn(400, 16)
    x[::3] = np.nan
    with pytest.raises(DataError, match="outputs are not finite if 'w' has noise: leave out samples"):
        oa.tune(model(ODD["tied"]), {"x": x}, **goal, **FEW)


def test_goals_of_another_metric_are_refused():
    with pytest.raises(OptionError, match="max_drop is of shares of the samples, and the metric is sqnr_db: give min_"):
        oa.tune(model(ODD["tied"]), REGRESSION, max_drop=1, metric="sqnr_db", **FEW)
    with pytest.raises(
        OptionError, match="min_sqnr is of the metric sqnr_db, and the metric is agreement: give max_dr"
    ):
        oa.tune(model(ODD["tied"]), samples(), min_sqnr=20, metric="agreement", **FEW)


@pytest.mark.parametrize("goal", [{"max_drop": 30}, {"budget": 30}, {"max_drop": 1e-6}])
def test_one_candidate_is_the_answer_whatever_is_asked(goal, monkeypatch):
    """As where one member costs least and errs least, so that there is nothing to allocate."""
    only = candidates.members("pcm", "hard")[0]
    monkeypatch.setattr(measures, "members", lambda *_, **__: (only,))
    tuned = oa.tune(model(ODD["two outputs"]), samples(), **goal, **FEW)
    assert tuned.plan.schemes == (only,)
    assert len(tuned.best.curve) == 1
    if goal == {"max_drop": 1e-6}:
        assert tuned.holds is not True


def test_a_tensor_of_one_value_takes_less_than_a_cell_for_two_weights_and_loses_nothing():
    """Its codebook, an index that is always the same, and its share of the check bits of whole blocks."""
    tuned = oa.tune(model(ODD["constant"]), samples(), max_drop=30, **FEW)
    (row,) = [row for row in tuned.rows() if row["tensor"] == "c"]
    assert row["equivalent_noise"] < 1e-10
    assert row["cells"] < 256 / 2
