"""Networks and data of the tests of runs."""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import onnx_analog as oa
from onnx_analog.run.data import Dataset
from onnx_analog.run.read import Decoder
from onnx_analog.run.session import Network
from tests.models import QUIET, model, run

Weights = dict[str, NDArray[Any]]


LINEAR = "net (float[n, 16] x) => (float[n, 32] y) <float[16, 32] w = random> { y = MatMul(x, w) }"


def protected(plain: ir.Model, **options: Any) -> ir.Model:
    return oa.protect(plain, **{"channel": QUIET, **options}).model


def drawn(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rows(count: int, labels: bool = False) -> Dataset:
    """Return inputs of LINEAR, and labels that are right for about one in 32."""
    given = np.random.default_rng(2).integers(32, size=count) if labels else None
    return Dataset({"x": drawn(count, 16)}, given)


def answered(count: int) -> Dataset:
    """Return inputs of LINEAR, and labels of which three in four are the model's own answers."""
    inputs = drawn(count, 16)
    own = run(model(LINEAR), {"x": inputs})[0].argmax(axis=1)
    rng = np.random.default_rng(3)
    return Dataset({"x": inputs}, np.where(rng.random(count) < 0.75, own, rng.integers(32, size=count)))


def weights(network: Network, **trial: int) -> Weights:
    return {name: Decoder(tensor).weights(**trial) for name, tensor in network.tensors.items()}


TWO_INPUTS = """
    net (int64[n, 3] tokens, float[n, 16] z) => (float[n, 16] y) <float[20, 16] w = random, int64[1] axis = {1}> {
        found = Gather(w, tokens)
        sum = ReduceSum <keepdims = 0> (found, axis)
        y = Add(sum, z)
    }"""


BATCH_NORM = """
    net (float[n, 16, 8, 8] x) => (float[n, 32, 4, 4] y)
    <float[32, 16, 3, 3] w = random, float[32] b = random, float[32, 32, 3, 3] v = random,
     float[32] scale = random, float[32] shift = random, float[32] mean = random,
     float[32] variance = {twelves}> {
        first = Conv <pads = [1, 1, 1, 1]> (x, w, b)
        normal = BatchNormalization (first, scale, shift, mean, variance)
        active = Relu(normal)
        second = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (active, v)
        y = Relu(second)
    }""".replace("twelves", ", ".join("12" * 16))
