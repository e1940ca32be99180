"""The helpers must find what is wrong, or they find nothing."""

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnx_analog.graph.stored import stored_tensors
from tests.models import (
    QUIET,
    ZOO,
    U,
    assert_same_top,
    assert_within,
    decode_bound,
    differences,
    f32,
    feeds,
    holding,
    made,
    made_proto,
    model,
    numbers,
    operators,
    output_bound,
    protected,
    proto,
    run,
    same_bits,
    with_floats,
)


@pytest.mark.parametrize("kind", ["float", "double", "float16", "bfloat16"])
def test_random_numbers_are_normal_and_of_the_type_in_the_text(kind):
    found = model(f"net ({kind}[1, 64] x) => ({kind}[1, 64] y) <{kind}[64, 64] w = 2 random> {{ y = MatMul(x, w) }}")
    assert numbers(found, "w").dtype.name == {"float": "float32", "double": "float64"}.get(kind, kind)
    five_errors = 5 * 2 / np.sqrt(2 * 64 * 64)
    assert numbers(found, "w").astype(float).std() == pytest.approx(2, abs=five_errors)


def test_holding_gives_the_weights_back():
    weight = np.array([[1, np.nan], [3, -np.inf]], ml_dtypes.bfloat16)
    found = holding(w=weight, v=np.eye(3))
    assert same_bits([numbers(found, "w"), numbers(found, "v")], [weight, np.eye(3)])


def test_run_computes():
    found = holding(w=f32([[1, 2], [3, 4]]))
    np.testing.assert_array_equal(run(found, {"x_w": f32([[1, 2], [0, 1]])}), [[[7, 10], [3, 4]]])


def test_feeds_take_both_branches_and_leave_defaults_alone():
    assert [bool(given["c"]) for given in feeds(made("if"))] == [True, False]
    assert [set(given) for given in feeds(made("weight that is an input"))] == [{"x"}]


@pytest.mark.parametrize("flat", [True, False])
def test_a_sparse_weight_keeps_its_positive_numbers(flat):
    name = "sparse" if flat else "sparse by rows"
    sparse, dense = made_proto(name), proto(ZOO[name].text)
    (stored,), weight = sparse.graph.sparse_initializer, onnx.numpy_helper.to_array(dense.graph.initializer[0])
    assert list(stored.indices.dims) == [(weight > 0).sum(), *([] if flat else [2])]
    x = np.eye(4, 16, dtype=np.float32)
    np.testing.assert_array_equal(run(sparse, {"x": x}), [np.maximum(weight, 0)[:4]])


@pytest.mark.parametrize(
    "wrong",
    [[], [f32([-0.0])], [np.zeros(1)], [f32([[0]])], [f32([1e-45])], [f32([0])] * 2],
    ids=["none", "sign", "type", "shape", "last bit", "two"],
)
def test_same_bits_rejects(wrong):
    assert same_bits([f32([0])], [f32([0])])
    assert not same_bits([f32([0])], wrong)


def other_initializer(changed):
    changed.graph.initializer[0].float_data[0] += 1


def other_metadata(changed):
    changed.metadata_props.add(key="a", value="b")


def other_operator(changed):
    changed.graph.node[0].op_type = "Other"


def one_more_tensor(changed):
    changed.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1), "more"))


def other_tensor_in_a_body(changed):
    changed.graph.node[0].attribute[0].g.initializer[0].float_data[0] += 1


def other_tensor_in_a_function(changed):
    changed.functions[0].node[0].attribute[0].t.float_data[0] += 1


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("gemm", other_initializer, {"w"}),
        ("gemm", other_metadata, {""}),
        ("gemm", other_operator, {""}),
        ("gemm", one_more_tensor, {"more", ""}),
        ("if", other_tensor_in_a_body, {"w"}),
        ("function", other_tensor_in_a_function, {"w"}),
    ],
)
def test_differences_are_named(name, change, found):
    changed = made_proto(name)
    assert differences(made_proto(name), changed) == set()
    change(changed)
    assert differences(made_proto(name), changed) == found


def test_operators_shows_what_is_not_folded():
    text = "net (float[2, 4] x) => (float[2, 4] y) <float[4] w = random> {{ i = {}(w) f = Cast <to = 1> (i) {} }}"
    assert operators(model(text.format("Shape", "y = Add(x, w)"))) == ["Add"]
    assert operators(model(text.format("NonZero", "r = ReduceSum(f) y = Add(x, r)"))) == [
        "Add",
        "Cast",
        "NonZero",
        "ReduceSum",
    ]


def test_operators_sees_into_bodies():
    assert operators(made("if")) == ["If", "MatMul", "MatMul"]


def test_decode_bound_is_the_one_that_is_derived():
    weight = f32([[1, -2], [0, 1.7]])  # α = 1.4, S = 0.75
    bound = decode_bound(stored_tensors(protected(holding(w=weight), strategy="sign"))[0], weight, QUIET.span)
    by_hand = U * (4 * np.abs(weight) + 5 * 0.75 / 1.4) * (weight != 0)
    np.testing.assert_allclose(bound, by_hand, rtol=9 * U)


def test_a_half_precision_weight_may_be_off_by_one_rounding_more():
    weight = np.array([[1, -2], [0, 1.5]], np.float16)
    (tensor,) = stored_tensors(protected(holding(w=weight), strategy="sign"))
    more = decode_bound(tensor, weight, QUIET.span) - decode_bound(tensor, weight.astype(np.float32), QUIET.span)
    size = np.array([[1, 2], [0, 1.5]])
    np.testing.assert_allclose(more, (size * 2**-11 + 2**-25) * (weight != 0), rtol=8 * U)


def test_output_bound_by_hand():
    weight = f32([[1, 2], [1.5, 1]])
    plain, x = holding(w=weight), f32([[1, -2], [0, 1]])
    (bound,) = output_bound(plain, protected(holding(w=weight), strategy="sign"), {"x_w": x}, QUIET.span)
    weights_off = np.abs(x) @ (U * (4 * weight + 5 * 0.75 / 1.4))
    sums_off = 2 * 2 * U * np.abs(x) @ weight
    np.testing.assert_allclose(bound, weights_off + sums_off, rtol=32 * U)


def test_with_floats_changes_every_float_tensor_and_not_the_model():
    plain = made("loop")
    ones = with_floats(plain, lambda _, array: np.ones_like(array))
    x = np.ones((4, 16), np.float32)
    np.testing.assert_array_equal(run(ones, {"x": x}), [np.full((4, 16), 1 + 3 * 16)])
    assert same_bits(run(plain, {"x": x}), run(made("loop"), {"x": x}))


@pytest.mark.parametrize("wrong", [[], [f32([[1, 3.01, 5]])], [f32([[1, 2]])]], ids=["none", "too far", "shape"])
def test_assert_within_rejects(wrong):
    clean, bound = [f32([[1, 2, 5]])], [np.ones((1, 3))]
    assert_within([f32([[2, 1, 4]])], clean, bound)
    with pytest.raises((AssertionError, ValueError), match=r"off by 1.01 times|shape|zip"):
        assert_within(wrong, clean, bound)


def test_assert_same_top_rejects():
    clean, bound = [f32([[1, 3.5]])], [np.ones((1, 2))]
    assert_same_top([f32([[2, 2.5]])], clean, bound)
    with pytest.raises(AssertionError, match="another value"):
        assert_same_top([f32([[2.5, 2]])], clean, bound)


def test_assert_same_top_wants_a_value_that_leads():
    with pytest.raises(AssertionError, match="none was compared"):
        assert_same_top([f32([[1, 3]])], [f32([[1, 3]])], [np.ones((1, 2))])
