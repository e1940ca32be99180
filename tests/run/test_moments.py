"""Moments of the inputs of weights, over samples."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from onnx_analog.graph.weights import Selection
from onnx_analog.run import moments as run_moments
from onnx_analog.run.data import Dataset
from onnx_analog.run.moments import input_moments, warn_of_left
from tests.models import f32, model
from tests.run.nets import LINEAR

ALL = Selection(min_size=1)
IMAGES = """net (float[n, 3, 6, 6] x) => (float[n, 4, 6, 6] y) <float[4, 3, 3, 3] w = random> {
    y = Conv <pads = [1, 1, 1, 1]> (x, w)
}"""


def rows(count, *shape, seed=0):
    return Dataset({"x": f32(np.random.default_rng(seed).normal(1, 2, size=(count, *shape)))}, None)


def test_they_are_means_of_products():
    data = rows(50, 16)
    found, left = input_moments(model(LINEAR), data, selection=ALL, running={})
    x = data.inputs["x"].astype(np.float64)
    assert not left
    assert found["w"].samples == 50
    # Products and sums in float64, rounded once.
    np.testing.assert_allclose(found["w"].second[0], x.T @ x / 50, rtol=2.0**-23)


@pytest.mark.parametrize("at_once", [1, 700, 2**26])
def test_they_do_not_depend_on_how_many_samples_a_call_has(monkeypatch, at_once):
    monkeypatch.setattr(run_moments, "_AT_ONCE", at_once)
    found, _ = input_moments(model(IMAGES), rows(20, 3, 6, 6), selection=ALL, running={})
    assert found["w"].samples == 20 * 36
    monkeypatch.setattr(run_moments, "_AT_ONCE", 2**20)
    other, _ = input_moments(model(IMAGES), rows(20, 3, 6, 6), selection=ALL, running={})
    np.testing.assert_allclose(found["w"].second, other["w"].second, rtol=1e-6, atol=1e-6)


def test_of_many_positions_some_are_taken_that_lie_anywhere(monkeypatch):
    monkeypatch.setattr(run_moments, "_LEAST_VECTORS", 1)
    monkeypatch.setattr(run_moments, "_VECTORS", 200)
    data = rows(600, 3, 6, 6)
    some, _ = input_moments(model(IMAGES), data, selection=ALL, running={})
    monkeypatch.setattr(run_moments, "_LEAST_VECTORS", 10**9)
    every, _ = input_moments(model(IMAGES), data, selection=ALL, running={})
    assert 200 * 27 <= some["w"].samples < 1.1 * 200 * 27
    assert every["w"].samples == 600 * 36
    # A product of two numbers of N(1, 2²) has a standard deviation below √(E x⁴) = √(1 + 6·4 + 3·16) = 8.6.
    assert np.abs(some["w"].second - every["w"].second).max() < 5 * 8.6 / np.sqrt(some["w"].samples)


def test_the_same_samples_give_the_same_bits():
    first, second = (input_moments(model(IMAGES), rows(99, 3, 6, 6), selection=ALL, running={})[0] for _ in range(2))
    np.testing.assert_array_equal(first["w"].second, second["w"].second)


def test_uses_of_one_weight_are_taken_together():
    text = """net (float[n, 4] x) => (float[n, 4] y) <float[4, 4] w = random> { a = MatMul(x, w) y = MatMul(a, w) }"""
    plain, data = model(text), rows(30, 4)
    found, _ = input_moments(plain, data, selection=ALL, running={})
    x = data.inputs["x"].astype(np.float64)
    a = x @ plain.graph.initializers["w"].const_value.numpy()
    assert found["w"].samples == 60
    np.testing.assert_allclose(found["w"].second[0], (x.T @ x + a.T @ a) / 60, rtol=1e-5, atol=1e-5)


def test_a_model_with_a_fixed_batch_is_run():
    plain = model(LINEAR.replace("float[n, 16]", "float[8, 16]").replace("float[n, 32]", "float[8, 32]"))
    data = rows(24, 16)
    found, _ = input_moments(plain, data, selection=ALL, running={})
    x = data.inputs["x"].astype(np.float64)
    np.testing.assert_allclose(found["w"].second[0], x.T @ x / 24, rtol=1e-6)


def test_a_weight_with_too_many_inputs_is_left(monkeypatch):
    monkeypatch.setattr(run_moments, "MOST_INPUTS", 8)
    found, left = input_moments(model(LINEAR), rows(9, 16), selection=ALL, running={})
    assert (found, left) == ({}, {"w": "it has more than 8 inputs"})


def test_what_is_left_is_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_left({})
        warn_of_left(dict.fromkeys("abcde", "used by Add"))
    assert caplog.messages == [
        "not compensated: 'a' (used by Add), 'b' (used by Add), 'c' (used by Add), 2 more",
    ]
