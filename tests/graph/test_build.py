"""Tensors that a builder would make, and what they cost, are those of the model that it builds."""

import pytest

from onnx_analog.coding.plan import Plan
from onnx_analog.errors import ModelError
from onnx_analog.graph.accounting import account, totals_of
from onnx_analog.graph.build import detached, opset_of, reason_against
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.passes import ProtectPass, PrunePass
from tests.models import FAMILY, SMALL, ZOO, made, model, protected, same_bits, serialized


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
@pytest.mark.parametrize("name", FAMILY)
def test_totals_are_those_of_the_manifest_without_its_digests(name, sparsity):
    found = protected("two scales", FAMILY[name], sparsity=sparsity)
    assert totals_of(stored_tensors(found)) == account(found).totals


def test_totals_of_tensors_with_other_schemes():
    plan = Plan(default=FAMILY["mapping of the model"], tensors={"b": FAMILY["int8"]})
    found = protected("two scales", plan)
    assert totals_of(stored_tensors(found)) == account(found).totals
    assert totals_of(reversed(stored_tensors(found))) == account(found).totals


@pytest.mark.parametrize("name", FAMILY)
def test_a_tensor_may_be_read_with_a_scheme_that_writes_the_same_planes(name):
    (tensor,) = stored_tensors(protected("matmul", FAMILY[name]))
    other = FAMILY[name].changed(cells=tuple(3 * cells for cells in FAMILY[name].cells), side_bits_per_cell=5)
    (expected,) = stored_tensors(protected("matmul", other))
    again = tensor.read_as(other)
    assert again.scheme == other
    assert tensor.scheme == FAMILY[name]
    assert again.digests() == expected.digests() == tensor.digests()
    assert totals_of([again]) == totals_of([expected])
    assert same_bits([again.decode()], [expected.decode()])


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
@pytest.mark.parametrize("name", FAMILY)
def test_detached_tensors_are_those_that_the_model_would_hold(name, sparsity):
    plain = made("two scales")
    PrunePass(sparsity=sparsity, scope="tensor")(plain)
    before, step = serialized(plain), ProtectPass(plan=Plan.of(FAMILY[name]), selection=SMALL)
    loose = detached(plain, step.stored(plain))
    assert serialized(plain) == before
    held = stored_tensors(step(plain).model)
    assert [t.key for t in loose] == [t.key for t in held] == ["a", "b"]
    for one, other in zip(loose, held, strict=True):
        assert (one.scheme, one.number, one.layout, one.shape, one.dtype) == (
            other.scheme,
            other.number,
            other.layout,
            other.shape,
            other.dtype,
        )
        assert one.digests() == other.digests()
        assert same_bits([one.decode()], [other.decode()])
    assert totals_of(loose) == totals_of(held)


# --------------------------------------------------------------------------------------- models that are refused


@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_can_be_protected_once(name):
    assert reason_against(made(name)) is None
    assert "is protected already" in str(reason_against(protected(name)))


OLD = '<ir_version: 4, opset_import: ["" : 10]> net (float[2] x) => (float[2] y) { y = Relu(x) }'
OF_OUR_DOMAIN = f"""
    <ir_version: 8, opset_import: ["" : 18, "{DOMAIN}" : 1]>
    net (float[2] x) => (float[2] y) {{ y = {DOMAIN}.own(x) }}
    <domain: "{DOMAIN}", opset_import: ["" : 18]>
    own (x) => (y) {{ y = Relu(x) }}"""


@pytest.mark.parametrize(
    ("text", "reason"), [(OLD, "has opset 10"), (OF_OUR_DOMAIN, f"has operators of the domain '{DOMAIN}'")]
)
def test_a_model_that_cannot_be_protected_is_refused_with_the_remedy(text, reason):
    found = model(text)
    assert reason in str(reason_against(found))
    with pytest.raises(ModelError, match=reason):
        ProtectPass().call(found)


def test_the_opset_is_that_of_the_standard_operators():
    assert opset_of(made("opset 11")) == 11
    found = made("matmul")
    del found.graph.opset_imports[""]
    assert opset_of(found) is None
    assert "imports no ONNX opset" in str(reason_against(found))
