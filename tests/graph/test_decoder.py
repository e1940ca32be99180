from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_analog.coding import planes
from onnx_analog.graph.decoder import DOMAIN, OLDEST_OPSET, functions
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass, ReadbackPass
from tests.models import NEWEST_OPSET, QUIET, f32, holding, made, model, run, same_bits

OPSETS = range(OLDEST_OPSET, NEWEST_OPSET + 1)


def calling(text: str, opset: int = 18) -> ir.Model:
    """Return the graph in `text`, which may call the functions of the domain."""
    found = model(f'<ir_version: 8, opset_import: ["" : {opset}, "{DOMAIN}" : 1]> {text}')
    found.functions.update({function.identifier(): function for function in functions(opset)})
    return found


UNPACK = f"net (uint8[n] packed, int64[1] count) => (uint8[m] bits) {{ bits = {DOMAIN}.UnpackBits(packed, count) }}"


@given(hnp.arrays(np.bool_, st.integers(0, 40)))
@settings(max_examples=30)
def test_unpack_bits_undoes_pack(bits):
    feed = {"packed": planes.pack(bits), "count": np.array([bits.size])}
    assert same_bits(run(calling(UNPACK), feed), [bits.view(np.uint8)])


def test_the_first_bit_is_the_lowest():
    feed = {"packed": np.array([0b00000110, 0b1], np.uint8), "count": np.array([9])}
    assert run(calling(UNPACK), feed)[0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("count", [0, 1, 8, 9])
def test_bits_beyond_the_bytes_are_zero(count):
    feed = {"packed": np.zeros(0, np.uint8), "count": np.array([count])}
    assert run(calling(UNPACK), feed)[0].tolist() == [0] * count


DENSE = f"""
    net (float[n] level, uint8[s] sign, uint8[c] index, float[k] alpha, float[k] beta, int64[r] shape)
        => (float[a, b] w) {{
        w = {DOMAIN}.Decode <dtype = 1, key = "w"> (level, sign, index, alpha, beta, shape)
    }}"""
MASKED = DENSE.replace("uint8[s] sign", "uint8[m] mask, uint8[s] sign").replace("(level, sign", "(level, mask, sign")
MASKED = MASKED.replace("Decode", "DecodeMasked")
PLANES: dict[str, NDArray[Any]] = {
    "level": f32([0.5, 1, -1, 0.25]),
    "sign": np.array([0b0110], np.uint8),
    "index": np.array([0b1010], np.uint8),
    "alpha": f32([0.5, 4]),
    "beta": f32([1, 3]),
}


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 18, NEWEST_OPSET])
def test_a_dense_weight_by_hand(opset):
    feed = {**PLANES, "shape": np.array([2, 2])}
    expected = [[(0.5 + 1) / 0.5, -(1 + 3) / 4], [-(-1 + 1) / 0.5, (0.25 + 3) / 4]]
    assert run(calling(DENSE, opset), feed)[0].tolist() == expected


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 18, NEWEST_OPSET])
def test_a_pruned_weight_by_hand(opset):
    feed = {**PLANES, "mask": np.array([0b10101001, 0], np.uint8), "shape": np.array([3, 3])}
    expected = [[3, 0, 0], [-1, 0, -0.0], [0, 0.8125, 0]]
    assert run(calling(MASKED, opset), feed)[0].tolist() == expected


def test_planes_that_a_strategy_does_not_have_are_empty():
    none = np.zeros(0, np.uint8)
    feed = {**PLANES, "sign": none, "index": none, "shape": np.array([1, 4])}
    assert run(calling(DENSE), feed)[0].tolist() == [[3, 4, 0, 2.5]]


@pytest.mark.parametrize("opset", OPSETS)
def test_the_functions_are_valid_at_every_opset(opset):
    """The checker reads each function against the schemas of its opset."""
    found = ir.to_proto(calling(MASKED, opset))
    onnx.checker.check_model(found, full_check=True)
    assert {entry.version for function in found.functions for entry in function.opset_import if not entry.domain} == {
        opset
    }


def test_functions_are_fresh():
    one, other = functions(18), functions(13)
    assert [function.opset_imports[""] for function in (*one, *other)] == [18] * 4 + [13] * 4
    assert not {id(function) for function in one} & {id(function) for function in functions(18)}


def test_no_function_holds_an_operator_that_is_never_folded():
    kinds = {node.op_type for function in functions(18) for node in function.graph}
    assert "NonZero" not in kinds
    assert kinds - {"UnpackBits", "DecodeStored"} <= {
        *("Add", "BitShift", "Cast", "Concat", "Constant", "ConstantOfShape", "CumSum", "Div", "Gather", "Mod", "Mul"),
        *("Neg", "ReduceProd", "Reshape", "Shape", "Slice", "Where"),
    }


# --------------------------------------------------------------------------------------- the graph and numpy

WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    elements=st.one_of(st.just(0.0), st.floats(-(2.0**100), 2.0**100, width=32), st.floats(-2, 2, width=32)),
).filter(lambda weight: np.abs(weight).max() > 1e-30)


@given(WEIGHTS, st.sampled_from(["raw", "sign", "mapping", "redundancy"]), st.floats(0, 1), st.booleans())
@example(f32([[2.0**28, -1]]), "sign", 0.0, False)  # -1 is decoded as -0
def test_the_graph_decodes_what_numpy_decodes_bit_for_bit(weight, strategy, fraction, noisy):
    found = holding(w=weight)
    found.graph.outputs.append(found.graph.initializers["w"])
    with pytest.MonkeyPatch.context() as patch:  # what would stay digital is decoded too, though not to the weight
        patch.setattr("onnx_analog.passes.protect.excess", lambda *_, **__: None)
        ProtectPass(strategy=strategy, large_fraction=fraction, channel=QUIET, selection=Selection(min_size=1))(found)
    found = ReadbackPass()(found).model if noisy else found
    (tensor,) = stored_tensors(found)
    feed = {"x_w": np.zeros((2, weight.shape[0]), np.float32)}
    assert same_bits(run(found, feed)[1:], [tensor.decode()])


@pytest.mark.parametrize("name", ["weight that is an output", "constant that is an output"])
def test_another_runtime_decodes_the_same(name):
    found = made(name)
    ProtectPass(channel=QUIET)(found)
    feed = {"x": np.ones((4, 16), np.float32)}
    (_, weight) = ReferenceEvaluator(ir.to_proto(found)).run(None, feed)
    assert same_bits([np.asarray(weight)], run(found, feed)[1:])
