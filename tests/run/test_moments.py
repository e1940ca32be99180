"""Moments of the inputs of weights, over samples."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from onnx_analog.errors import DataError
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


def split(x):
    """Return the samples that weights are rounded by, and those held out."""
    held_out = np.arange(len(x)) % 4 == 3
    return x[~held_out], x[held_out]


def test_they_are_means_of_products():
    data = rows(50, 16)
    found, left = input_moments(model(LINEAR), data, selection=ALL, running={})
    x = data.inputs["x"].astype(np.float64)
    assert not left
    fitted, held_out = split(x)
    assert found["w"].samples == len(fitted) == 38
    # Products and sums in float64, rounded once.
    np.testing.assert_allclose(found["w"].second[0], fitted.T @ fitted / 38, rtol=2.0**-23)
    np.testing.assert_allclose(found["w"].held_out[0], held_out.T @ held_out / 12, rtol=2.0**-23)


@pytest.mark.parametrize("at_once", [1, 700, 2**26])
def test_they_do_not_depend_on_how_many_samples_a_call_has(monkeypatch, at_once):
    monkeypatch.setattr(run_moments, "_AT_ONCE", at_once)
    found, _ = input_moments(model(IMAGES), rows(20, 3, 6, 6), selection=ALL, running={})
    assert found["w"].samples == 15 * 36
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
    assert 0.75 * 200 * 27 <= some["w"].samples < 0.8 * 200 * 27
    assert every["w"].samples == 450 * 36
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
    assert found["w"].samples == 46
    (x, _), (a, _) = split(x), split(a)
    np.testing.assert_allclose(found["w"].second[0], (x.T @ x + a.T @ a) / 46, rtol=1e-5, atol=1e-5)


def test_uses_count_by_their_positions(monkeypatch):
    """Of a use with many positions some are taken, but it counts as all of them."""
    monkeypatch.setattr(run_moments, "_LEAST_VECTORS", 1)
    monkeypatch.setattr(run_moments, "_VECTORS", 10)
    text = """net (float[n, 30, 4] x) => (float[n, 4] y) <float[4, 4] w = random, int64[1] axis = {1}> {
        a = MatMul(x, w) b = ReduceMax <keepdims = 0> (a, axis) y = MatMul(b, w) }"""
    plain, data = model(text), rows(400, 30, 4)
    found, _ = input_moments(plain, data, selection=ALL, running={})
    x, _ = split(data.inputs["x"].astype(np.float64))
    b = (x @ plain.graph.initializers["w"].const_value.numpy()).max(axis=1)
    many, few = (np.square(part.reshape(-1, 4)) for part in (x, b))
    expected, spread = (30 * many.mean(axis=0) + few.mean(axis=0)) / 31, (many.std(axis=0) + few.std(axis=0)).max()
    assert np.abs(np.diag(found["w"].second[0]) - expected).max() < 5 * spread / np.sqrt(10 * 4)


@pytest.mark.parametrize("count", [24, 27, 64])
def test_a_fixed_batch_that_is_another_axis_too_is_not_cut(count):
    """Batches are full, so that nothing is cut off along an axis that has the same length."""
    text = """net (float[6, 6, 16] x) => (float[6, 6, 32] y) <float[16, 32] w = random> {
        t = Transpose <perm = [1, 0, 2]> (x) y = MatMul(t, w) }"""
    data = rows(count, 6, 16)
    found, _ = input_moments(model(text), data, selection=ALL, running={})
    x, _ = split(data.inputs["x"].astype(np.float64))
    used = x[: len(x) // 6 * 6].reshape(-1, 16)
    np.testing.assert_allclose(found["w"].second[0], used.T @ used / len(used), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv", "gemm"])
def test_samples_that_are_fed_one_by_one(kind):
    text = {
        "conv": """net (float[3, 6, 6] x) => (float[1, 4, 4, 4] y) <float[4, 3, 3, 3] w = random, int64[1] axis = {0}> {
            u = Unsqueeze(x, axis) y = Conv(u, w) }""",
        "gemm": "net (float[3, 5] x) => (float[5, 4] y) <float[3, 4] w = random> { y = Gemm <transA = 1> (x, w) }",
    }[kind]
    shape = (3, 6, 6) if kind == "conv" else (3, 5)
    arrays = f32(np.random.default_rng(1).normal(size=(40, *shape)))
    data = Dataset({"x": arrays}, None, one_by_one=True)
    found, _ = input_moments(model(text), data, selection=ALL, running={})
    fitted, _ = split(arrays.astype(np.float64))
    if kind == "conv":
        windows = np.lib.stride_tricks.sliding_window_view(fitted, (3, 3), axis=(2, 3))
        vectors = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 27)
    else:
        vectors = fitted.transpose(0, 2, 1).reshape(-1, 3)
    np.testing.assert_allclose(found["w"].second[0], vectors.T @ vectors / len(vectors), rtol=1e-5, atol=1e-5)


def test_a_model_with_a_fixed_batch_is_run():
    plain = model(LINEAR.replace("float[n, 16]", "float[8, 16]").replace("float[n, 32]", "float[8, 32]"))
    data = rows(40, 16)
    found, _ = input_moments(plain, data, selection=ALL, running={})
    x, _ = split(data.inputs["x"].astype(np.float64))
    x = x[:24]  # three batches
    np.testing.assert_allclose(found["w"].second[0], x.T @ x / 24, rtol=1e-6)
    with pytest.raises(DataError, match="takes 8 samples in each call, and there are 5 to compensate with: give more"):
        input_moments(plain, rows(5, 16), selection=ALL, running={})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_inputs_that_are_not_finite_leave_the_weight_alone(value):
    data = rows(40, 16)
    data.inputs["x"][7, 3] = value
    found, left = input_moments(model(LINEAR), data, selection=ALL, running={})
    assert (found, left) == ({}, {"w": "its inputs are not finite, or their squares are not"})


def test_too_few_samples_to_hold_one_out_are_refused():
    message = "compensation has 3 samples, and holds out one in 4: give 4 or more"
    with pytest.raises(DataError, match=message):
        input_moments(model(LINEAR), rows(3, 16), selection=ALL, running={})


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
