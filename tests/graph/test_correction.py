import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_analog.errors import ModelError
from onnx_analog.graph.correction import (
    Correction,
    Layers,
    check_correction,
    layers_of,
    with_calibration,
    with_correction,
    with_statistics,
)
from onnx_analog.graph.protected import open_protected
from onnx_analog.passes import DecodePass
from tests.models import ZOO, feeds, model, operators, protected, run, same_bits

KINDS = {  # a layer with a stored weight w: the shape of gains, and the numbers that its correction adds
    "conv with bias": (
        (
            "net (float[2, 4, 6] x) => (float[2, 8, 4] y) <float[8, 4, 3] w = random, float[8] b = random> "
            "{ y = Conv(x, w, b) }"
        ),
        (8, 1),
        8,
    ),
    "conv in groups": (
        (
            "net (float[2, 4, 6, 6] x) => (float[2, 8, 4, 4] y) <float[8, 2, 3, 3] w = random> "
            "{ y = Conv<group = 2>(x, w) }"
        ),
        (8, 1, 1),
        16,
    ),
    "transposed conv in groups": (
        (
            "net (float[2, 4, 6, 6] x) => (float[2, 6, 8, 8] y) <float[4, 3, 3, 3] w = random> "
            "{ y = ConvTranspose<group = 2>(x, w) }"
        ),
        (6, 1, 1),
        12,
    ),
    "gemm": (
        "net (float[2, 16] x) => (float[2, 5] y) <float[16, 5] w = random> { y = Gemm(x, w) }",
        (5,),
        10,
    ),
    "gemm, transposed": (
        (
            "net (float[2, 16] x) => (float[2, 5] y) <float[5, 16] w = random, float[5] b = random> "
            "{ y = Gemm<transB = 1>(x, w, b) }"
        ),
        (5,),
        5,
    ),
    "gemm, on the left": (
        "net (float[16, 2] x) => (float[5, 2] y) <float[16, 5] w = random> { y = Gemm<transA = 1>(w, x) }",
        (5, 1),
        10,
    ),
    "matmul": (
        "net (float[2, 3, 16] x) => (float[2, 3, 5] y) <float[16, 5] w = random> { y = MatMul(x, w) }",
        (5,),
        10,
    ),
    "matmul, on the left": (
        "net (float[2, 16, 3] x) => (float[2, 5, 3] y) <float[5, 16] w = random> { y = MatMul(w, x) }",
        (5, 1),
        10,
    ),
    "matmul of a vector": (
        "net (float[16] x) => (float[5] y) <float[5, 16] w = random> { y = MatMul(w, x) }",
        (5,),
        10,
    ),
    "matmul through a transposition": (
        (
            "net (float[2, 16] x) => (float[2, 5] y) <float[5, 16] w = random> "
            "{ t = Transpose(w) s = Identity(t) y = MatMul(x, s) }"
        ),
        (5,),
        10,
    ),
    "batch normalization": (
        (
            "net (float[2, 4, 6, 6] x) => (float[2, 8, 4, 4] y) <float[8, 4, 3, 3] w = random, float[8] a = 2 random> "
            "{ b = Abs(a) c = Conv(x, w) y = BatchNormalization(c, a, a, a, b) }"
        ),
        (8, 1, 1),
        0,
    ),
}
LEFT = {
    "gather": "used by Gather",
    "lstm": "used by LSTM",
    "if": "in a branch or in the body of a loop",
    "loop": "in a branch or in the body of a loop",
    "scan": "in a branch or in the body of a loop",
    "function": "in a function",
    "weight that is an output": "an output of the graph",
}


def found(stored: ir.Model) -> Layers:
    return layers_of(stored, open_protected(stored).tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_lie_along_the_axis_of_outputs(kind):
    text, shape, numbers = KINDS[kind]
    (layer,) = found(protected(model(text))).corrected
    assert (layer.key, layer.shape, layer.numbers) == ("w", shape, numbers)
    assert layer.name == ("c" if kind == "batch normalization" else "y")


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_over_all_axes_but_that_of_channels(kind):
    text, shape, _ = KINDS[kind]
    stored = protected(model(text))
    (layer,) = found(stored).corrected
    (given,) = feeds(stored)
    graph = with_statistics(stored, [layer])
    mean, std = run(graph, given)
    stored.graph.outputs[0] = next(v for node in stored.graph for v in node.outputs if v.name == layer.name)
    (output,) = run(stored, given)
    axis = output.ndim - len(shape)
    others = tuple(other for other in range(output.ndim) if other != axis)
    np.testing.assert_allclose(mean, output.mean(axis=others, dtype=np.float64), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(std, output.std(axis=others, dtype=np.float64), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ZOO)
def test_gains_of_one_and_shifts_of_zero_change_nothing(name):
    stored = protected(name)
    layers = found(stored)
    corrected, names = with_correction(stored, layers.corrected)
    assert len(names) == 2 * len(layers.corrected)
    assert [value.name for value in corrected.graph.outputs] == [value.name for value in stored.graph.outputs]
    for given in feeds(stored):
        outputs, expected = run(corrected, given), run(stored, given)
        for output, wanted in zip(outputs, expected, strict=True):
            # onnxruntime fuses other operators, so sums are rounded in another order
            np.testing.assert_allclose(output.astype(float), wanted.astype(float), rtol=1e-2, atol=1e-2)
    if corrected.opset_imports[""] <= 24:  # what the installed onnx knows
        onnx.checker.check_model(ir.to_proto(corrected))


@pytest.mark.parametrize("name", ZOO)
def test_every_use_of_a_weight_is_a_layer_or_is_named(name):
    stored = protected(name)
    layers = found(stored)
    keys = {tensor.key for tensor in open_protected(stored).tensors}
    assert {layer.key for layer in layers.corrected} | set(layers.left) == keys
    if name in LEFT:
        assert LEFT[name] in layers.left.values()


@pytest.mark.parametrize("name", ZOO)
def test_what_is_calibrated_to_its_own_statistics_stays_as_it_is(name):
    stored = protected(name)
    layers = found(stored).corrected
    calibration = with_calibration(stored, layers)
    for given in feeds(stored) if layers else ():
        targets = run(with_statistics(stored, layers), given)
        for target, value in zip(targets, calibration.targets, strict=True):
            calibration.model.graph.initializers[value].const_value = ir.tensor(target, name=value)
        numbers = run(calibration.model, given)
        assert all(number.dtype == np.float16 for number in numbers)
        assert all((gain == 1).all() for gain in numbers[::2])
        assert all((shift == 0).all() for shift in numbers[1::2])


def test_a_weight_that_is_used_twice_is_corrected_twice():
    text = """
        net (float[2, 16] x) => (float[2, 16] y) <float[16, 16] w = random> {
            h = MatMul(x, w)
            y = MatMul(h, w)
        }"""
    layers = found(protected(model(text))).corrected
    assert [(layer.name, layer.key) for layer in layers] == [("h", "w"), ("y", "w")]


def test_the_left_factor_of_a_product_of_unknown_rank_is_left():
    stored = protected(
        model("""
        net (float[2, 16, 3] x) => (float[2, 5, 3] y) <float[5, 16] w = random> {
            h = Relu(x)
            y = MatMul(w, h)
        }""")
    )
    assert found(stored).left == {"w": "the left factor of MatMul, whose right one has no known shape"}


def test_an_output_that_is_used_inside_too_is_corrected_in_both_places():
    stored = protected(
        model("""
        net (float[2, 16] x) => (float[2, 5] h, float[2, 5] y, float[2, 5] z) <float[16, 5] w = random> {
            h = MatMul(x, w)
            y = Relu(h)
            z = Neg(h)
        }""")
    )
    corrected, (gain, shift) = with_correction(stored, found(stored).corrected)
    for name, number in ((gain, 2.0), (shift, 1.0)):
        corrected.graph.initializers[name].const_value = ir.tensor(np.full(5, number, np.float32), name=name)
    (given,) = feeds(stored)
    h = 2 * run(stored, given)[0] + 1
    for output, expected in zip(run(corrected, given), (h, np.maximum(h, 0), -h), strict=True):
        np.testing.assert_allclose(output, expected, rtol=1e-5)


def test_onnxruntime_puts_gain_and_shift_of_a_convolution_into_its_weights():
    stored = protected(model(KINDS["conv in groups"][0]))
    corrected, _ = with_correction(stored, found(stored).corrected)
    kinds = [operators(DecodePass()(each).model) for each in (stored, corrected)]
    assert kinds[0] == kinds[1]
    assert "Mul" not in kinds[1]


def test_the_model_itself_is_not_changed():
    stored = protected("conv")
    (given,) = feeds(stored)
    before = run(stored, given)
    layers = found(stored).corrected
    with_statistics(stored, layers), with_calibration(stored, layers), with_correction(stored, layers)
    assert same_bits(before, run(stored, given))


HALVES: Any = (np.ones(5, np.float16), np.zeros(5, np.float16))


@pytest.mark.parametrize(
    ("correction", "said"),
    [
        (Correction(layers={"z": HALVES}), "the correction is of a layer 'z', which the model does not have"),
        (
            Correction(layers={"y": (HALVES[0], HALVES[1][:4])}),
            "the correction of layer 'y' has 5 gains and 4 shifts, and the layer has 5 channels",
        ),
        (Correction(factors={"v": 1.5}), "the correction is of a tensor 'v', which the model does not store"),
    ],
)
def test_a_correction_of_something_else_is_refused(correction, said):
    stored = protected(model(KINDS["matmul"][0]))
    tensors = open_protected(stored).tensors
    check_correction(Correction(layers={"y": HALVES}, factors={"w": 2.0}), layers_of(stored, tensors), tensors)
    with pytest.raises(ModelError, match=re.escape(said)):
        check_correction(correction, layers_of(stored, tensors), tensors)
