from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from onnx_analog.demo import IMAGES, MODEL
from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph import files
from onnx_analog.run.data import load
from onnx_analog.run.metrics import top1
from onnx_analog.run.session import Network
from tests.models import QUIET

API: Any = oa  # for calls that a type checker refuses
SCHEME = oa.Scheme(channel=QUIET)


def arrays():
    with np.load(IMAGES) as archive:
        return archive["x"][:50], archive["y"][:50]


def expected():
    return oa.evaluate(oa.protect(MODEL, SCHEME), IMAGES, samples=50, trials=2, reference=MODEL)


@pytest.mark.parametrize(
    "make",
    [lambda: MODEL, lambda: str(MODEL), lambda: onnx.load(MODEL), lambda: files.load(MODEL)],
    ids=["path", "text", "proto", "ir"],
)
def test_a_model_is_whatever_evaluate_takes(make):
    assert oa.Experiment(make(), IMAGES, samples=50).score(SCHEME, trials=2) == expected()


def test_results_of_other_steps_are_models():
    data, pruned = arrays(), oa.prune(MODEL, sparsity=0.5)
    assert oa.Experiment(pruned, data).score().original == oa.evaluate(pruned, data).original
    stored = oa.protect(MODEL, SCHEME)
    for model in (stored, oa.load(stored), stored.model):
        assert oa.Experiment(model, data).score(trials=2) == oa.evaluate(stored, data, trials=2)
    by_reference = oa.Experiment(stored, data, reference=MODEL).score(trials=2)
    assert by_reference == expected()


def test_data_are_whatever_evaluate_takes():
    x, y = arrays()
    dataset = load(IMAGES, Network(files.load(MODEL)).inputs)
    for data in (str(IMAGES), Path(IMAGES), dataset, (x, y), {"x": x, "y": y}):
        assert oa.Experiment(MODEL, data, samples=50).score(SCHEME, trials=2) == expected()
    assert oa.Experiment(MODEL, x, mean=0.3, std=[0.5]).score() == oa.evaluate(MODEL, x, mean=0.3, std=[0.5])


def share(outputs, *, labels, clean):
    return float(np.mean(outputs[0].argmax(axis=1) == labels))


@pytest.mark.parametrize("metric", ["top5", share, top1, "onnx_analog.run.metrics:top1"])
def test_a_metric_is_a_name_or_a_function(metric):
    tried = oa.Experiment(MODEL, arrays(), metric=metric)
    stored = oa.protect(MODEL, SCHEME)
    assert tried.score(SCHEME, trials=2) == oa.evaluate(stored, arrays(), metric=metric, trials=2, reference=MODEL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": 5}, "model is 5; it must be a path, an onnx.ModelProto, an ir.Model or a result of this library"),
        ({"reference": 5}, "reference is 5; it must be a path"),
        ({"data": 5}, "data is 5; it must be the path of an npz file"),
        ({"metric": "top2"}, "no metric is called 'top2': did you mean 'top1'?"),
        ({"metric": 5}, "metric is 5; it must be a name, module:function or a function"),
        ({"threads": "x"}, "threads is 'x'; it must be a whole number"),
        ({"batch": 0}, "batch is 0; it must be 1 or more"),
        ({"samples": 0}, "samples is 0; it must be 1 or more"),
        ({"output": 5}, "output is 5; it must be text"),
        ({"providers": "CPU"}, "no provider 'CPU' here"),
        ({"clean": 5}, "clean is 5; it must be a list of outputs or None"),
        ({"mean": "a"}, "mean is"),
        ({"foo": 1}, "Experiment has no argument 'foo'"),
        ({"thread": 1}, "Experiment has no argument 'thread': did you mean 'threads'?"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(wrong, message):
    with pytest.raises((OptionError, DataError)) as caught:
        API.Experiment(**{"model": MODEL, "data": IMAGES, **wrong})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"plan": 5}, "a plan is int; it must be a Plan or a Scheme"),
        ({"seed": 2**70}, f"seed is {2**70}; it must be from 0 to 9,223,372,036,854,775,807"),
        ({"seed": -1}, "seed is -1; it must be from 0 to"),
        ({"trials": 1.5}, "trials is 1.5; it must be a whole number"),
        ({"trials": 10**9 + 1}, "trials is 1000000001; it must be from 0 to 1,000,000,000"),
        ({"modifiers": 5}, "modifiers is 5; it must be Modifiers"),
        ({"selection": 5}, "selection is 5; it must be a Selection or None"),
        ({"progress": 5}, "progress is 5; it must be a function"),
        ({"at_least": "a"}, "at_least is 'a'; it must be a finite number"),
    ],
)
def test_wrong_arguments_of_a_score_are_refused_in_one_line(wrong, message):
    tried: Any = oa.Experiment(MODEL, IMAGES, samples=50)
    with pytest.raises(OptionError) as caught:
        tried.score(**{"plan": SCHEME, "trials": 1, **wrong})
    assert message in str(caught.value)


def test_one_provider_needs_no_list():
    tried = oa.Experiment(MODEL, arrays(), providers="CPUExecutionProvider")
    assert tried.score(SCHEME, trials=2) == expected()


def test_it_is_shown_in_one_short_line():
    assert repr(oa.Experiment(MODEL, IMAGES, samples=50)) == f"<Experiment: {MODEL.name}, plain, top1 on 50 samples>"
    stored = oa.protect(MODEL, SCHEME)
    shown = repr(oa.Experiment(stored, IMAGES, "agreement", samples=1))
    assert shown == f"<Experiment: {stored.model.graph.name}, protected, agreement on 1 sample>"
    stored.model.graph.name = "long\n" * 1000
    assert len(repr(oa.Experiment(stored, IMAGES, samples=1))) < 250


def test_an_estimator_that_keeps_the_gain_writes_other_points_whatever_was_scored_before():
    plain = oa.Scheme(sign="level", classes=7, partition="uniform", relative_step=1.0, cells=(0,), channel=QUIET)
    plans = [plain, plain.changed(estimator="unbiased")]
    alone = [oa.Experiment(MODEL, arrays()[0], metric="sqnr_db").score(plan, trials=1).values for plan in plans]
    assert alone[0] != alone[1]
    for order in (plans, plans[::-1]):
        both = oa.Experiment(MODEL, arrays()[0], metric="sqnr_db")
        found = {plan: both.score(plan, trials=1).values for plan in order}
        assert [found[plan] for plan in plans] == alone
