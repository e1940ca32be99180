import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_analog.errors import ModelError
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.graph.weights import find, scopes
from onnx_analog.passes import DecodePass, ReadbackPass
from tests.models import (
    FAMILY,
    ZOO,
    feeds,
    made,
    model,
    numbers,
    operators,
    protected,
    run,
    same_bits,
    serialized,
)


def decoded(found: ir.Model) -> ir.Model:
    copy = found.clone()
    assert DecodePass()(copy).modified
    return copy


@pytest.mark.parametrize("sparsity", [0.0, 0.3])
@pytest.mark.parametrize("name", ZOO)
def test_plain_weights_compute_what_the_graph_decodes_bit_for_bit(name, sparsity):
    found = protected(name, sparsity=sparsity, manifest=True)
    plain = decoded(found)
    onnx.checker.check_model(ir.to_proto(plain), full_check=True)
    assert all(same_bits(run(plain, given), run(found, given)) for given in feeds(found))


@pytest.mark.parametrize("scheme", FAMILY.values(), ids=list(FAMILY))
@pytest.mark.parametrize("sparsity", [0.0, 0.3])
@pytest.mark.parametrize("name", ["matmul", "conv", "float16", "two scales", "if"])
def test_plain_weights_of_each_kind_of_scheme(name, sparsity, scheme):
    found = protected(name, scheme, sparsity=sparsity)
    plain = decoded(found)
    assert all(same_bits(run(plain, given), run(found, given)) for given in feeds(found))


@pytest.mark.parametrize("name", ZOO)
def test_no_trace_is_left(name):
    plain = decoded(protected(name, manifest=True))
    assert b"onnx_analog" not in serialized(plain)
    assert operators(plain) == operators(made(name))


@pytest.mark.parametrize("name", ZOO)
def test_each_weight_is_where_it_was(name):
    plain, original = decoded(protected(name, manifest=True)), made(name)
    weights, originals = find(plain).weights, find(original).weights
    assert {weight.key for weight in weights} == {weight.key for weight in originals}
    types = {weight.key: (weight.tensor.dtype, weight.shape) for weight in originals}
    assert {weight.key: (weight.tensor.dtype, weight.shape) for weight in weights} == types


@pytest.mark.parametrize("name", ["matmul", "if", "function with a body", "weight that is an output"])
def test_it_can_be_protected_again(name):
    found = protected(name, strategy="raw")
    again = decoded(found)
    protected(again, strategy="raw")
    assert [tensor.key for tensor in stored_tensors(again)] == [tensor.key for tensor in stored_tensors(found)]
    onnx.checker.check_model(ir.to_proto(again), full_check=True)


def test_all_else_is_kept():
    found = protected("gemm", manifest=True)
    found.metadata_props["character"] = "a"
    found.graph[0].outputs[0].metadata_props["of"] = "w"
    plain = decoded(found)
    assert dict(plain.metadata_props) == {"character": "a"}
    assert plain.graph.initializers["w"].metadata_props == {"of": "w"}
    assert list(plain.graph.initializers) == ["b", "w"]
    assert same_bits([numbers(plain, "b")], [numbers(made("gemm"), "b")])


def test_user_functions_are_kept():
    plain = decoded(protected("function", manifest=True))
    assert [identifier[:2] for identifier in plain.functions] == [("local", "project")]
    assert all("onnx_analog" not in graph.opset_imports for _, graph, _ in scopes(plain))


def test_what_was_read_is_decoded():
    perturbed = ReadbackPass(seed=4)(protected("matmul", manifest=True)).model
    (tensor,) = stored_tensors(perturbed)
    assert same_bits([numbers(decoded(perturbed), "w")], [tensor.decode()])


def test_planes_that_another_node_uses_stay():
    found = protected("matmul", manifest=True)
    level = stored_tensors(found)[0].inputs["level"]
    node = ir.node("Identity", [level])
    node.outputs[0].name = "levels"
    found.graph.append(node)
    assert [name for name in decoded(found).graph.initializers if name != "w"] == ["w.level"]


def test_a_plain_model_is_refused():
    plain = model("net (float[2] x) => (float[2] y) { y = Relu(x) }")
    before = serialized(plain)
    with pytest.raises(ModelError, match="not protected"):
        DecodePass().call(plain)
    assert serialized(plain) == before


def test_a_plane_that_is_missing_is_refused_and_nothing_changed():
    found = protected("two scales")
    level = stored_tensors(found)[1].inputs["level"]
    level.const_value = None
    kept = [str(node.op_type) for node in found.graph]
    with pytest.raises(ModelError, match="tensor 'b': its level is not in the model"):
        DecodePass().call(found)
    assert [node.op_type for node in found.graph] == kept
    assert np.isfinite(stored_tensors(found)[0].decode()).all()
