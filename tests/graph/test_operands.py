"""What weights are multiplied by: products with it are the outputs of the layers, through onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnx_analog.graph.operands import Operand, operands_of, with_operands
from onnx_analog.graph.weights import all_tensors
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network
from tests.models import f32, model

CONV = "net (float[n, {c}, {side}] x) => (float[n, r, p] y) <float[{w}] w = random> {{ y = Conv <{how}> (x, w) }}"
MATRIX = "net (float[{x}] x) => (float[n, r] y) <float[{w}] w = random> {{ y = {how} }}"

LAYERS = {
    "conv": CONV.format(c=3, side="7, 9", w="4, 3, 3, 3", how="pads = [1, 1, 1, 1]"),
    "no padding": CONV.format(c=3, side="7, 9", w="4, 3, 2, 3", how="strides = [2, 1]"),
    "uneven padding": CONV.format(c=2, side="7, 9", w="4, 2, 3, 3", how="pads = [0, 2, 1, 0], strides = [2, 3]"),
    "dilations": CONV.format(c=2, side="9, 9", w="5, 2, 3, 3", how="dilations = [2, 1]"),
    "same": CONV.format(c=2, side="8, 8", w="5, 2, 4, 4", how='auto_pad = "SAME_LOWER", strides = [2, 2]'),
    "groups": CONV.format(c=4, side="6, 6", w="6, 2, 3, 3", how="group = 2"),
    "depthwise": CONV.format(c=4, side="6, 6", w="8, 1, 3, 3", how="group = 4, pads = [1, 1, 1, 1]"),
    "one axis": CONV.format(c=3, side="11", w="4, 3, 5", how="strides = [2]"),
    "three axes": CONV.format(c=2, side="4, 5, 6", w="3, 2, 2, 2, 2", how="strides = [1, 2, 1]"),
    "product": MATRIX.format(x="n, 6", w="6, 4", how="MatMul(x, w)"),
    "product of more axes": MATRIX.format(x="n, 3, 6", w="6, 4", how="MatMul(x, w)"),
    "gemm": MATRIX.format(x="n, 6", w="6, 4", how="Gemm(x, w)"),
    "gemm, transposed": MATRIX.format(x="n, 6", w="4, 6", how="Gemm <transB = 1> (x, w)"),
    "gemm, both transposed": MATRIX.format(x="6, n", w="4, 6", how="Gemm <transA = 1, transB = 1> (x, w)"),
    "transposed": MATRIX.format(x="n, 6", w="4, 6", how="MatMul(x, t)").replace("{ y", "{ t = Transpose(w) y"),
    "moved axes": CONV.format(c=3, side="7, 9", w="3, 3, 4, 2", how="").replace(
        "{ y = Conv <> (x, w)", "{ t = Transpose <perm = [2, 0, 1, 3]> (w) y = Conv(x, t)"
    ),
}


def found(text: str) -> tuple[ir.Model, Operand]:
    plain = model(text)
    operands = operands_of(plain, list(all_tensors(plain)))
    assert not operands.left
    (operand,) = operands.known
    return plain, operand


@pytest.mark.parametrize("name", LAYERS)
def test_products_with_operands_are_the_layers_outputs(name):
    plain, operand = found(LAYERS[name])
    shape = [side if isinstance(side, int) else 5 for side in plain.graph.inputs[0].shape]
    data = Dataset({"x": f32(np.random.default_rng(0).normal(size=shape))}, None)
    (weight,) = all_tensors(plain)
    inputs = np.asarray(Network(with_operands(plain, [operand])).run(data, batch=shape[0])[0], np.float64)
    output = np.asarray(Network(plain).run(data, batch=shape[0])[0], np.float64)
    matrix = weight.array().transpose(operand.axes).reshape(operand.groups, -1, operand.inputs).astype(np.float64)
    if operand.window is not None:
        inputs, output = np.moveaxis(inputs, 1, -1), np.moveaxis(output, 1, -1)
    inputs = inputs.T if operand.transposed else inputs
    products = np.einsum("vgi,gri->vgr", inputs.reshape(-1, operand.groups, operand.inputs), matrix)
    # A sum of n float32 products is off by at most n·u times the sum of their magnitudes, which is below 30 here.
    np.testing.assert_allclose(products.reshape(output.shape), output, atol=operand.inputs * 2.0**-24 * 30)


LEFT = {
    "used by Gather": """net (int64[n] i) => (float[n, 4] y) <float[8, 4] w = random> { y = Gather(w, i) }""",
    "used by Add": """net (float[8, 4] x) => (float[8, 4] y) <float[8, 4] w = random> { y = Add(x, w) }""",
    "used by MatMul": "net (float[4, n] x) => (float[8, n] y) <float[8, 4] w = random> { y = MatMul(w, x) }",
    "used by ConvTranspose": """net (float[n, 3, 5] x) => (float[n, 4, p] y)
        <float[3, 4, 2] w = random> { y = ConvTranspose(x, w) }""",
    "its uses arrange it differently": """net (float[n, 4] x) => (float[n, 4] y)
        <float[4, 4] w = random> { a = MatMul(x, w) y = Gemm <transB = 1> (a, w) }""",
    "its uses arrange it differently, ": """net (float[n, 2, 6, 6] x, float[n, 4, 6, 6] z) => (float[n, 4, p, q] y)
        <float[4, 2, 3, 3] w = random> { a = Conv(x, w) b = Conv <group = 2> (z, w) y = Add(a, b) }""",
    "an output of the graph": """net (float[n, 4] x) => (float[n, 4] y, float[4, 4] z)
        <float[4, 4] w = random> { y = MatMul(x, w) z = Identity(w) }""",
    "in a branch or in the body of a loop": """net (bool c, float[n, 4] x) => (float[n, 4] y)
        <float[4, 4] w = random> {
            y = If (c) <then_branch = g () => (float[n, 4] a) { a = MatMul(x, w) },
                        else_branch = h () => (float[n, 4] b) { b = Identity(x) }>
        }""",
}


@pytest.mark.parametrize("reason", LEFT)
def test_others_are_left_with_a_reason(reason):
    plain = model(LEFT[reason])
    operands = operands_of(plain, list(all_tensors(plain)))
    assert not operands.known
    assert list(operands.left.values()) == [reason.rstrip(", ")]


def test_a_weight_of_two_layers_has_two_operands():
    plain = model("""net (float[n, 4] x) => (float[n, 4] y)
        <float[4, 4] w = random> { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }""")
    operands = operands_of(plain, list(all_tensors(plain)))
    assert [operand.name for operand in operands.known] == ["x", "b"]
