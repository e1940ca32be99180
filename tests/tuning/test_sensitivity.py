"""Sensitivities of linear models, whose outputs move by what is known."""

import numpy as np
import pytest
import scipy.stats

from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import DataError
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.tuning.sensitivity import Sensitivity, divergence, drawn, sensitivity_of
from tests.models import f32, model
from tests.run.nets import LINEAR


def linear():
    rng = np.random.default_rng(0)
    return Experiment(model(LINEAR), Dataset({"x": f32(rng.normal(size=(40, 16)))}, None))


def sensitivities(experiment, *, draws=2, **given):
    """Return the sensitivity of each tensor from several draws."""
    probe, distance = experiment.probe(Scheme.paper("raw")), divergence(experiment.clean, None)
    return {
        key: sensitivity_of(key, [drawn(probe, distance, key, draw=draw, **given) for draw in range(draws)])
        for key in probe.weights
    }


def test_the_divergence_of_scores_is_that_of_kullback_and_leibler():
    rng = np.random.default_rng(0)
    clean, noisy = (f32(rng.normal(size=(7, 5))) for _ in range(2))
    p, q = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in (clean, noisy))
    found = divergence([clean], 1)([noisy])
    assert found == pytest.approx(np.mean([scipy.stats.entropy(a, b) for a, b in zip(p, q, strict=True)]), rel=1e-6)
    assert divergence([clean], 1)([clean]) == 0
    assert divergence([clean], 1)([clean + 3]) == pytest.approx(0, abs=1e-12)  # which no score notices


def test_other_outputs_differ_by_their_relative_squared_error():
    clean, noisy = f32([[3, 4]]), f32([[3, 5]])
    assert divergence([clean, np.array(["a"])], None)([noisy, None]) == pytest.approx(1 / 25)
    with pytest.raises(DataError, match="no output of the model is an array of floating-point numbers"):
        divergence([np.array(["a"])], None)


def test_noise_in_one_tensor_moves_a_linear_output_by_its_power():
    """y = x·W with white noise of relative power p in W: E‖Δy‖² = p·mean(W²)·N·‖x‖², whatever the draw's seed."""
    experiment = linear()
    probe = experiment.probe(Scheme.paper("raw"))
    (weight,) = probe.weights.values()
    x, clean = experiment.data.inputs["x"].astype(np.float64), experiment.clean[0].astype(np.float64)
    expected = (
        np.square(weight, dtype=np.float64).mean() * weight.shape[1] * np.square(x).sum() / np.square(clean).sum()
    )
    found = sensitivities(experiment, draws=30)
    (one,) = found.values()
    assert abs(one.mean - expected) <= 5 * one.error
    assert one.error < 0.1 * expected


def test_a_sensitivity_does_not_depend_on_the_power_of_the_noise():
    experiment = linear()
    few, many = (sensitivities(experiment, power=power) for power in (0.001, 0.1))
    for key in few:
        assert few[key].mean == pytest.approx(many[key].mean, rel=1e-3)
    assert few == sensitivities(experiment, power=0.001)
    assert few != sensitivities(experiment, power=0.001, seed=1)


def test_pruned_weights_get_no_noise():
    from onnx_analog.tuning.sensitivity import _noisy

    weight = f32([[0, 1], [-2, 0]])
    noisy = _noisy(weight, 0, 0, "w", 0.05)
    assert (noisy == 0).tolist() == (weight == 0).tolist()
    assert not np.array_equal(noisy, weight)
    assert _noisy(f32([0.0]), 0, 0, "w", 0.05).tolist() == [0]


def test_a_single_draw_has_no_error():
    (found,) = sensitivities(linear(), draws=1).values()
    assert found.mean > 0
    assert np.isnan(found.error)
    assert isinstance(found, Sensitivity)


def test_a_sensitivity_is_the_mean_of_its_draws_with_its_standard_error():
    assert sensitivity_of("w", [1.0, 3.0]) == (2.0, pytest.approx(1.0))
    with pytest.raises(DataError, match="outputs are not finite if 'w' has noise"):
        sensitivity_of("w", [1.0, float("nan")])
