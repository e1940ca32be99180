import re

import numpy as np
import onnx_ir as ir
import pytest

from onnx_analog.errors import ModelError
from onnx_analog.graph.correction import CORRECTED_KEY
from onnx_analog.passes import CorrectPass, DecodePass, ReadbackPass
from onnx_analog.passes.pipeline import run as passed
from tests.models import ZOO, feeds, made, model, protected, run

NET = """
    net (float[2, 16] x) => (float[2, 5] y) <float[16, 8] a = random, float[8, 5] b = random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
HALVES = np.full(8, 2, np.float16), np.full(8, 0.5, np.float16)


def outputs(found: ir.Model) -> np.ndarray:
    (given,) = feeds(found)
    return run(found, given)[0]


@pytest.mark.parametrize("decode", [[], [DecodePass()]])
def test_gain_and_shift_follow_the_layer(decode):
    plain = model(NET)
    a, b = (plain.graph.initializers[name].const_value.numpy() for name in "ab")
    found = passed([CorrectPass(layers={"h": HALVES}), *decode], protected(model(NET)))
    (given,) = feeds(plain)
    np.testing.assert_allclose(outputs(found), (2 * (given["x"] @ a) + 0.5) @ b, rtol=1e-4, atol=1e-4)
    assert found.metadata_props[CORRECTED_KEY] == "gain and shift of 1 layer"


@pytest.mark.parametrize("decode", [[], [DecodePass()]])
@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].keys])
def test_factors_multiply_weights_wherever_they_are(name, decode):
    stored = protected(name)
    factors = dict.fromkeys(ZOO[name].keys, 1.5)
    found = passed([CorrectPass(factors=factors), *decode], stored.clone())
    expected = passed([CorrectPass(factors=factors)], stored.clone())
    for given in feeds(stored):
        for one, other in zip(run(found, given), run(expected, given), strict=True):
            np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=1e-2, atol=1e-2)


def test_a_model_without_corrections_is_as_it_was():
    stored = protected("conv")
    found = passed([CorrectPass()], stored.clone())
    assert np.array_equal(outputs(found), outputs(stored))
    assert found.metadata_props[CORRECTED_KEY] == "nothing"


def test_a_model_that_was_read_can_be_corrected():
    found = passed([ReadbackPass(seed=1), CorrectPass(factors={"a": 2.0}), DecodePass()], protected(model(NET)))
    alone = passed([ReadbackPass(seed=1), DecodePass()], protected(model(NET)))
    np.testing.assert_allclose(outputs(found), 2 * outputs(alone), rtol=1e-5)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (made("matmul"), "the model is not protected: protect it first"),
        (passed([CorrectPass()], protected("matmul")), "the model was corrected already: nothing"),
    ],
)
def test_what_cannot_be_corrected_is_refused(found, said):
    with pytest.raises(ModelError, match=re.escape(said)):
        passed([CorrectPass()], found)


def test_a_correction_of_another_model_changes_nothing():
    stored = protected(model(NET))
    before = outputs(stored)
    with pytest.raises(ModelError, match="a layer 'z', which the model does not have"):
        passed([CorrectPass(layers={"h": HALVES, "z": HALVES})], stored)
    assert np.array_equal(outputs(stored), before)
