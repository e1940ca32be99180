import logging

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given

from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ModelError, NothingToStore, OptionError
from onnx_analog.graph.weights import Selection, find
from onnx_analog.passes import ProtectPass, PrunePass
from tests.models import QUIET, ZOO, f32, holding, made, numbers, run, same_bits, serialized

SMALL = Selection(min_size=1)

# Many zeros and ties, and both ends of float32's range.
WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e-45, -3e38]), st.floats(-2, 2, width=32)),
).filter(lambda weight: weight.any())


def pruned(plain: ir.Model, **options) -> ir.Model:
    PrunePass(**{"selection": SMALL, **options})(plain)
    return plain


@given(WEIGHTS, st.integers(0, 35))
def test_exactly_the_share_that_is_asked_for_is_zero(weight, percent):
    zeros = round(percent / 36 * weight.size)
    found = numbers(pruned(holding(w=weight), sparsity=percent / 36), "w")
    assert (found == 0).sum() == max(zeros, (weight == 0).sum())


@given(WEIGHTS, st.integers(0, 35))
def test_what_is_kept_is_no_smaller_than_what_is_not(weight, percent):
    found = numbers(pruned(holding(w=weight), sparsity=percent / 36), "w")
    kept = found != 0
    assert same_bits([found[kept]], [weight[kept]])
    assert np.abs(found[kept]).min(initial=np.inf) >= np.abs(weight[~kept]).max(initial=0)


@given(WEIGHTS, WEIGHTS, st.integers(0, 35))
def test_scope_model_is_one_list_of_weights(one, other, percent):
    found = pruned(holding(a=one, b=other), sparsity=percent / 36)
    both = np.concatenate([one, other], axis=None)[None]
    together = numbers(pruned(holding(w=both), sparsity=percent / 36), "w")
    np.testing.assert_array_equal(np.concatenate([numbers(found, name) for name in "ab"], axis=None)[None], together)


def test_scope_tensor_takes_the_share_of_each():
    found = pruned(holding(a=f32([[1, 2], [3, 4]]), b=f32([[100, -200]])), sparsity=0.5, scope="tensor")
    assert numbers(found, "a").tolist() == [[0, 0], [3, 4]]
    assert numbers(found, "b").tolist() == [[0, -200]]


def test_scope_model_takes_the_smallest_of_all():
    found = pruned(holding(a=f32([[1, 2], [3, 4]]), b=f32([[100, -200]])), sparsity=0.5)
    assert numbers(found, "a").tolist() == [[0, 0], [0, 4]]
    assert numbers(found, "b").tolist() == [[100, -200]]


def test_of_equal_magnitudes_the_first_are_kept():
    found = pruned(holding(a=f32([[1, -1], [1, 5]]), b=f32([[-1, 1]])), sparsity=0.5)
    assert numbers(found, "a").tolist() == [[1, -1], [0, 5]]
    assert numbers(found, "b").tolist() == [[0, 0]]


@pytest.mark.parametrize(("sparsity", "zeros"), [(0.0, 0), (0.124, 0), (0.126, 1), (0.375, 2), (0.999, 4)])
def test_the_share_is_rounded_to_whole_weights(sparsity, zeros):
    found = pruned(holding(w=f32([[1, 2], [3, 4]])), sparsity=sparsity)
    assert (numbers(found, "w") == 0).sum() == zeros


def test_zeros_that_were_there_count():
    found = pruned(holding(w=f32([[0, 0, 0, 4], [1, 2, 3, 0]])), sparsity=0.625)
    assert numbers(found, "w").tolist() == [[0, 0, 0, 4], [0, 2, 3, 0]]


def test_zeros_count_beside_doubles_that_float32_cannot_hold():
    found = pruned(holding(w=np.array([[0, 1e-60, 1, 2]])), sparsity=0.25)
    assert numbers(found, "w").tolist() == [[0, 1e-60, 1, 2]]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_the_type_is_kept(dtype):
    found = pruned(holding(w=np.array([[1, -0.25], [0.5, 3]], dtype)), sparsity=0.5)
    assert same_bits([numbers(found, "w")], [np.array([[1, 0], [0, 3]], dtype)])


@pytest.mark.parametrize("name", ZOO)
def test_weights_are_pruned_wherever_they_hide(name):
    plain = made(name)
    before = [weight.array().copy() for weight in find(plain).weights]
    PrunePass(sparsity=0.75, scope="tensor")(plain)
    for weight, old in zip(find(plain).weights, before, strict=True):
        array = weight.array()
        assert (array == 0).sum() == max(round(0.75 * array.size), (old == 0).sum())
        assert (array.dtype, array.shape) == (old.dtype, old.shape)


def test_the_model_computes_with_what_is_left():
    found = pruned(holding(w=f32([[1, -2], [3, 4]])), sparsity=0.5)
    assert run(found, {"x_w": f32(np.eye(2))})[0].tolist() == [[0, 0], [3, 4]]


def test_only_what_is_selected_is_pruned():
    chosen = Selection(include=("a",), min_size=1)
    found = pruned(holding(a=f32([[1, 2]]), b=f32([[0.1, 0.2]])), sparsity=0.5, selection=chosen)
    assert numbers(found, "a").tolist() == [[0, 2]]
    assert same_bits([numbers(found, "b")], [f32([[0.1, 0.2]])])


@pytest.mark.parametrize("sparsity", [0.0, 0.25])
def test_nothing_is_reported_where_nothing_changes(sparsity):
    plain = holding(w=f32([[0, 2], [3, 4]]))
    before = serialized(plain)
    assert not PrunePass(sparsity=sparsity, selection=SMALL)(plain).modified
    assert serialized(plain) == before
    assert PrunePass(sparsity=0.5, selection=SMALL)(plain).modified


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_one_tensor_that_changes_is_a_change(scope, name):
    arrays = {"a": f32([[0, 0, 5, 6]]), "b": f32([[0, 0, 5, 6]]), name: f32([[1, 2, 5, 6]])}
    assert PrunePass(sparsity=0.5, scope=scope, selection=SMALL)(holding(**arrays)).modified


def test_a_second_time_changes_nothing():
    plain = pruned(made("two scales"), sparsity=0.3)
    before = serialized(plain)
    assert not PrunePass(sparsity=0.3, selection=SMALL)(plain).modified
    assert serialized(plain) == before


def test_what_was_kept_is_said_in_the_log(caplog):
    caplog.set_level(logging.DEBUG, logger="onnx_analog")
    pruned(holding(w=f32([[1, 2], [3, 4]])), sparsity=0.25)
    assert [each.message for each in caplog.records if each.levelno == logging.DEBUG] == ["w: kept 3 of 4"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sparsity": -0.01}, "sparsity is -0.01; it must be 0 or more and below 1"),
        ({"sparsity": 1.0}, "sparsity is 1.0; it must be 0 or more and below 1"),
        ({"sparsity": float("nan")}, "sparsity is nan; it must be 0 or more and below 1"),
        ({"sparsity": 0.5, "scope": "layer"}, "scope is 'layer'; choose from tensor, model"),
        ({"sparsity": "a"}, "sparsity is 'a'; it must be a number"),
        ({"sparsity": True}, "sparsity is True; it must be a number"),
        ({"sparsity": 0.5, "scope": 3}, "scope is 3; it must be text"),
        ({"sparsity": 0.5, "selection": 3}, "selection is 3; it must be a Selection"),
    ],
)
def test_an_option_out_of_range_is_refused(wrong, said):
    with pytest.raises(OptionError) as caught:
        PrunePass(**wrong)
    assert str(caught.value) == said


def test_a_protected_model_is_refused():
    plain = made("matmul")
    ProtectPass(plan=Scheme(channel=QUIET))(plain)
    before = serialized(plain)
    with pytest.raises(ModelError, match=r"weights are levels.*DecodePass"):
        PrunePass(sparsity=0.5).call(plain)
    assert serialized(plain) == before


def test_nothing_to_prune_is_refused():
    with pytest.raises(NothingToStore, match="nothing to prune"):
        PrunePass(sparsity=0.5, selection=Selection(include=("none",))).call(made("matmul"))
