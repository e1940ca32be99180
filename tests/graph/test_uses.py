"""What nothing uses, what is a bias and what is a mask."""

import numpy as np
import onnx_ir as ir
import pytest

from onnx_analog.graph.stored import stored_tensors
from onnx_analog.graph.uses import output_axis, used_values
from onnx_analog.graph.weights import Selection, find
from tests.models import SMALL, ZOO, f32, feeds, made, model, numbers, protected, run, same_bits


def reasons(plain: ir.Model, selection: Selection = SMALL) -> dict[str, str | None]:
    """Return why each tensor of rank 2 or more stays digital; None if it is stored."""
    found = find(plain, selection)
    judged = [*((weight, None) for weight in found.weights), *found.skipped]
    return {weight.key: reason for weight, reason in judged if len(weight.shape) > 1}


# ------------------------------------------------------------------------------------------------------ unused


@pytest.mark.parametrize("name", ZOO)
def test_all_that_a_model_needs_is_used(name):
    plain = made(name)
    used = used_values(plain)
    assert all(id(value) in used for value in plain.graph.outputs)
    assert all(id(weight.value) in used for weight in find(plain).weights)


UNUSED = {
    "an initializer": ("""net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = random, float[4, 4] v = random>
                       { y = MatMul(x, w) }""", "v"),
    "a constant": ("""net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = random>
                   { v = Constant <value = float[4, 4] random> () y = MatMul(x, w) }""", "v"),
    "the end of a chain": ("""net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = random, float[4, 4] v = random>
                           { y = MatMul(x, w) a = MatMul(x, v) b = Relu(a) }""", "v"),
    "a branch": ("""net (float[2, 4] x, bool c) => (float[2, 4] y) <float[4, 4] w = random> { y = If (c) <
                     then_branch = yes () => (float[2, 4] t) <float[4, 4] v = random> { t = MatMul(x, w) },
                     else_branch = no () => (float[2, 4] e) { e = Identity(x) }> }""", "y.then_branch/v"),
    "a branch of a node that nothing uses": ("""
        net (float[2, 4] x, bool c) => (float[2, 4] y) <float[4, 4] w = random> { y = MatMul(x, w) z = If (c) <
                     then_branch = yes () => (float[2, 4] t) <float[4, 4] v = random> { t = MatMul(x, v) },
                     else_branch = no () => (float[2, 4] e) { e = Identity(x) }> }""", "z.then_branch/v"),
    "a function that nothing calls": ("""
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = random> { y = MatMul(x, w) }
        <domain: "local", opset_import: ["" : 18]>
        f (x) => (y) { v = Constant <value = float[4, 4] random> () y = MatMul(x, v) }""", "local.f()/v"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSED)
def test_what_nothing_uses_stays_digital(name):
    text, key = UNUSED[name]
    plain = model(text)
    assert reasons(plain) == {"w": None, key: "nothing uses it"}
    found = plain.clone()
    protected(found)
    assert [tensor.key for tensor in stored_tensors(found)] == ["w"]
    for given in feeds(plain):
        assert np.allclose(run(found, given)[0], run(plain, given)[0], atol=1e-5)


def test_what_a_function_of_a_function_uses_is_used():
    plain = model("""
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        net (float[2, 4] x) => (float[2, 4] y) { y = local.f(x) }
        <domain: "local", opset_import: ["" : 18, "local" : 1]>
        f (x) => (y) { y = local.g(x) }
        <domain: "local", opset_import: ["" : 18]>
        g (x) => (y) { w = Constant <value = float[4, 4] random> () y = MatMul(x, w) }""")
    assert reasons(plain) == {"local.g()/w": None}


def test_what_a_body_takes_from_outside_is_used():
    assert reasons(made("if that uses an outer weight")) == {"w": None}


# ------------------------------------------------------------------------------------------------------ biases


BIASES = {
    "LSTM": "net (float[3, 2, 4] x) => (float[3, 1, 2, 4] y) <float[1, 16, 4] w = random, float[1, 16, 4] r = random,"
    " float[1, 32] b = random> { y = LSTM <hidden_size = 4> (x, w, r, b) }",
    "GRU through concat": "net (float[3, 2, 4] x) => (float[3, 1, 2, 4] y)"
    " <float[1, 12, 4] w = random, float[1, 12, 4] r = random, float[1, 12] b = random, float[1, 12] c = random>"
    " { d = Concat <axis = 1> (b, c) y = GRU <hidden_size = 4> (x, w, r, d) }",
    "Add": "net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = random, float[1, 4] b = random>"
    " { h = MatMul(x, w) y = Add(b, h) }",
    "Gemm": "net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = random, float[1, 4] b = random>"
    " { y = Gemm(x, w, b) }",
    "Conv": "net (float[1, 2, 4, 4] x) => (float[1, 2, 2, 2] y) <float[2, 2, 3, 3] w = random, float[1, 2] b = random,"
    " int64[1] flat = {-1}> { c = Reshape(b, flat) y = Conv(x, w, c) }",
}


@pytest.mark.parametrize("name", BIASES)
def test_a_bias_of_rank_2_is_a_bias(name):
    found = reasons(model(BIASES[name]))
    assert {found[name] for name in found if name in "bc"} == {"a bias"}
    assert {found[name] for name in found if name in "wr"} == {None}


NO_BIASES = {
    "a table that is added": "net (float[1, 8, 4] x) => (float[1, 8, 4] y) <float[1, 8, 4] w = random>"
    " { y = Add(x, w) }",
    "a table that Gemm adds": "net (float[8, 4] x) => (float[8, 4] y) <float[4, 4] w = random, float[8, 4] v = random>"
    " { y = Gemm(x, w, v) }",
    "a row that is multiplied": "net (float[2, 4] x) => (float[2, 1] y) <float[4, 1] w = random> { y = MatMul(x, w) }",
    "a row that is both": "net (float[2, 4] x) => (float[2, 4] y, float[2, 4] z) <float[1, 4] w = random>"
    " { y = Add(x, w) z = Mul(x, w) }",
    "a class token": "net (float[1, 8, 4] x) => (float[1, 9, 4] y)"
    " <float[1, 1, 4] w = random, float[1, 9, 4] v = random> { h = Concat <axis = 1> (w, x) y = Add(h, v) }",
    "peepholes": "net (float[3, 2, 4] x) => (float[3, 1, 2, 4] y) <float[1, 16, 4] w = random,"
    " float[1, 16, 4] r = random, float[1, 12] p = random>"
    ' { y = LSTM <hidden_size = 4> (x, w, r, "", "", "", "", p) }',
    "an operator of another domain": '<ir_version: 10, opset_import: ["" : 18, "other" : 1]>'
    " net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] v = random, float[2, 4] w = random>"
    " { y = other.Gemm(x, v, w) }",
}


@pytest.mark.parametrize("name", NO_BIASES)
def test_what_is_no_bias_is_stored(name):
    assert set(reasons(model(NO_BIASES[name])).values()) == {None}


# ------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = Mul(m, k) y = MatMul(x, s)", None),
        ("s = Div(m, k) t = Transpose(s) y = MatMul(x, t)", None),
        ("s = Mul(v, m) y = MatMul(x, s)", "a mask"),  # of pruned weights
        ("s = Mul(m, k) a = Add(x, s) y = Softmax(a)", "a mask"),
        ("y = Mul(m, x)", "a mask"),
    ],
)
def test_zeros_and_ones_are_a_weight_where_they_have_a_scale(body, reason):
    plain = model(f"""net (float[8, 8] x) => (float[8, 8] y)
        <float[8, 8] m = random, float[8, 8] v = random, float[1, 8] k = random> {{ {body} }}""")
    plain.graph.initializers["m"].const_value = ir.tensor(f32(CAUSAL), name="m")
    assert reasons(plain)["m"] == reason


@pytest.mark.parametrize("kind", ["Attention", "com.microsoft.MultiHeadAttention"])
def test_what_an_attention_adds_is_a_mask_or_a_table(kind):
    heads, given = "q_num_heads = 2, kv_num_heads", "x, x, x, m"
    if kind.startswith("com"):
        heads, given = "num_heads", 'x, x, x, "", "", m'
    plain = model(f"""
        <ir_version: 11, opset_import: ["" : 23, "com.microsoft" : 1]>
        net (float[1, 8, 8] x) => (float[1, 8, 8] y) <float[1, 2, 8, 8] m = random> {{
            y = {kind} <{heads} = 2> ({given}) }}""")
    assert reasons(plain) == {"m": None}
    found = plain.clone()
    protected(found)
    for one in feeds(plain):
        assert np.allclose(run(found, one)[0], run(plain, one)[0], atol=1e-5)
    for number in (-1e4, LOWEST, -100):
        mask = np.broadcast_to(CAUSAL * number, (1, 2, 8, 8))
        plain.graph.initializers["m"].const_value = ir.tensor(f32(mask), name="m")
        assert reasons(plain) == {"m": "a mask"}


def test_scales_of_a_quantised_lstm_are_no_weights():
    plain = model("""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[3, 2, 4] x, int8[1, 4, 16] w, int8[1, 4, 16] r, int8[1, 16] z) => (float[3, 1, 2, 4] y)
            <float[1, 32] b = random, float[1, 16] s = random, float[1, 16] t = random> {
            y = com.microsoft.DynamicQuantizeLSTM <hidden_size = 4> (x, w, r, b, "", "", "", "", s, z, t, z) }""")
    no = "no weight: used as scales of DynamicQuantizeLSTM"
    assert reasons(plain) == {"b": "a bias", "s": no, "t": no}


def attention(mask: np.ndarray, *between: str) -> ir.Model:
    steps = " ".join(between) or "s = Add(q, m)"
    plain = model(f"""
        net (float[8, 8] x, bool[8, 8] c) => (float[8, 8] y) <float[8, 8] w = random, float[8, 8] m = random,
            int64[2] k = {{8, 8}}> {{
            q = MatMul(x, w) {steps} p = Softmax(s) y = MatMul(p, x)
        }}""")
    plain.graph.initializers["m"].const_value = ir.tensor(f32(mask), name="m")
    return plain


CAUSAL = np.triu(np.ones((8, 8)), 1)
SCORES = np.random.default_rng(0).normal(size=(8, 8))
LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    "mask",
    [CAUSAL * -1e9, CAUSAL * -1e4, CAUSAL * LOWEST, CAUSAL * -1e9 + SCORES, 1 - CAUSAL, np.full((8, 8), 3)],
    ids=["1e9", "1e4", "lowest", "with scores", "ones", "all"],
)
@pytest.mark.parametrize(
    "between",
    [
        (),
        ("s = Where(c, q, m)",),
        ("n = Transpose(m)", "r = Add(q, n)", "s = Add(r, x)"),
        ("n = Expand(m, k)", "s = Add(q, n)"),
    ],
    ids=["added", "chosen", "in a sum", "expanded"],
)
def test_masks_are_told_from_weights(mask, between):
    assert reasons(attention(mask, *between)) == {"w": None, "m": "a mask"}


def test_relative_positions_are_weights():
    assert reasons(attention(SCORES)) == {"w": None, "m": None}


def test_a_token_that_is_chosen_is_a_weight():
    assert reasons(attention(SCORES, "s = Where(c, q, m)")) == {"w": None, "m": None}


def test_huge_factors_are_weights():
    assert reasons(attention(CAUSAL * -1e9, "s = MatMul(q, m)")) == {"w": None, "m": None}


def test_what_is_masked_otherwise_is_told_by_its_numbers():
    between = ("d = Sub(q, m)", "s = Max(d, x)")
    assert reasons(attention(CAUSAL * -1e9, *between)) == {"w": None, "m": "a mask"}
    assert reasons(attention(CAUSAL * -1e9 + SCORES, *between)) == {"w": None, "m": None}
    assert reasons(attention(CAUSAL, *between)) == {"w": None, "m": "a mask"}


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_masks_of_other_types_are_masks(dtype):
    plain = model(f"""
        net ({dtype}[4, 4] x) => ({dtype}[4, 4] y) <{dtype}[4, 4] m = random> {{ s = Add(x, m) y = Softmax(s) }}""")
    old = plain.graph.initializers["m"].const_value
    plain.graph.initializers["m"].const_value = ir.tensor(
        np.triu(np.full((4, 4), -65504), 1).astype(old.numpy().dtype), name="m"
    )
    assert reasons(plain) == {"m": "a mask"}


# ------------------------------------------------------------------------------------------------------- names


def test_a_tensor_that_is_named_is_stored_whatever_it_is_for():
    plain = attention(CAUSAL * -1e9)
    assert reasons(plain, Selection(min_size=1, include=("^m$", "^w$"))) == {"w": None, "m": None}
    assert reasons(model(BIASES["LSTM"]), Selection(min_size=1, include=("b",)))["b"] is None


def test_unused_tensors_stay_digital_though_they_are_named():
    plain = model(UNUSED["an initializer"][0])
    assert reasons(plain, Selection(min_size=1, include=(".",))) == {"w": None, "v": "nothing uses it"}


def test_a_mask_that_stays_digital_masks_as_before():
    plain = attention(CAUSAL * -1e9)
    found = plain.clone()
    protected(found, granularity="model")
    given = feeds(plain)[0]
    given["c"] = np.ones((8, 8), bool)
    assert np.allclose(run(found, given)[0], run(plain, given)[0], atol=1e-5)
    assert same_bits([numbers(found, "m")], [numbers(plain, "m")])


# ------------------------------------------------------------------------------------------------ output channels

CHANNELS = {  # a model whose weight is w, and the axis of its output channels
    "matmul, right": ("net (float[2, 4] x) => (float[2, 6] y) <float[4, 6] w = random> { y = MatMul(x, w) }", 1),
    "matmul, left": ("net (float[4, 2] x) => (float[6, 2] y) <float[6, 4] w = random> { y = MatMul(w, x) }", 0),
    "matmul, right, batches": (
        "net (float[3, 2, 4] x) => (float[3, 2, 6] y) <float[3, 4, 6] w = random> { y = MatMul(x, w) }", 2),
    "matmul, left, batches": (
        "net (float[3, 4, 2] x) => (float[3, 6, 2] y) <float[3, 6, 4] w = random> { y = MatMul(w, x) }", 1),
    "gemm, right": ("net (float[2, 4] x) => (float[2, 6] y) <float[4, 6] w = random> { y = Gemm(x, w) }", 1),
    "gemm, right, transposed": (
        "net (float[2, 4] x) => (float[2, 6] y) <float[6, 4] w = random> { y = Gemm <transB = 1> (x, w) }", 0),
    "gemm, left": ("net (float[4, 2] x) => (float[6, 2] y) <float[6, 4] w = random> { y = Gemm(w, x) }", 0),
    "gemm, left, transposed": (
        "net (float[4, 2] x) => (float[6, 2] y) <float[4, 6] w = random> { y = Gemm <transA = 1> (w, x) }", 1),
    "fused matmul": (
        """<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>
        net (float[2, 4] x) => (float[2, 6] y) <float[6, 4] w = random>
        { y = com.microsoft.FusedMatMul <transB = 1> (x, w) }""", 0),
    "conv": ("net (float[1, 4, 5] x) => (float[1, 6, 3] y) <float[6, 4, 3] w = random> { y = Conv(x, w) }", 0),
    "conv in groups": (
        "net (float[1, 4, 5] x) => (float[1, 6, 3] y) <float[6, 2, 3] w = random> { y = Conv <group = 2> (x, w) }", 0),
    "convtranspose": (
        "net (float[1, 4, 5] x) => (float[1, 6, 7] y) <float[4, 6, 3] w = random> { y = ConvTranspose(x, w) }", 1),
    "convtranspose, a group for each channel": (
        """net (float[1, 4, 5] x) => (float[1, 4, 7] y) <float[4, 1, 3] w = random>
        { y = ConvTranspose <group = 4> (x, w) }""", 0),
    "convtranspose, one channel for each group": (
        """net (float[1, 4, 5] x) => (float[1, 2, 7] y) <float[4, 1, 3] w = random>
        { y = ConvTranspose <group = 2> (x, w) }""", 0),
    "gather": (
        """net (float[6, 1] x) => (float[1, 4] y) <float[6, 4] w = random>
        { i = ArgMax <axis = 0, keepdims = 0> (x) y = Gather(w, i) }""", 0),
    "gather, by columns": (
        """net (float[6, 1] x) => (float[4, 1] y) <float[4, 6] w = random>
        { i = ArgMax <axis = 0, keepdims = 0> (x) y = Gather <axis = 1> (w, i) }""", 1),
    "einsum": (
        """net (float[2, 4] x) => (float[2, 3, 6] y) <float[4, 3, 6] w = random>
        { y = Einsum <equation = "bd, dhk -> bhk"> (x, w) }""", 2),
    "einsum, left": (
        """net (float[2, 4] x) => (float[2, 6] y) <float[6, 4] w = random>
        { y = Einsum <equation = "od,bd->bo"> (w, x) }""", 0),
    "einsum without an output": (
        """net (float[2, 4] x) => (float[2, 6] y) <float[4, 6] w = random>
        { y = Einsum <equation = "bd,do"> (x, w) }""", 1),
    "lstm": (
        """net (float[1, 2, 4] x) => (float[1, 2, 2, 3] y) <float[2, 12, 4] w = random, float[2, 12, 3] r = random>
        { y = LSTM <hidden_size = 3, direction = "bidirectional"> (x, w, r) }""", 1),
    "gru": (
        """net (float[1, 2, 4] x) => (float[1, 1, 2, 3] y) <float[1, 9, 4] w = random, float[1, 9, 3] r = random>
        { y = GRU <hidden_size = 3> (x, w, r) }""", 1),
    "rnn, recurrent": (
        """net (float[1, 2, 4] x, float[1, 2, 3] h) => (float[1, 1, 2, 3] y)
        <float[1, 3, 4] v = random, float[1, 3, 3] w = random> { y = RNN <hidden_size = 3> (x, v, w, , , h) }""", 1),
    "two of a kind": (
        """net (float[2, 4] x) => (float[2, 6] y) <float[4, 6] w = random>
        { a = MatMul(x, w) b = Gemm(x, w) y = Add(a, b) }""", 1),
}  # fmt: skip


def axis_of_outputs(plain: ir.Model) -> int:
    return output_axis(plain.graph.initializers["w"], numbers(plain, "w").shape)


def is_of_output_channels(plain: ir.Model, axis: int) -> bool:
    """Return whether a slice of w along `axis` changes one channel of the output only, along an axis of it."""
    given, weight = feeds(plain)[0], numbers(plain, "w")
    before = run(plain, given)[0]
    for channel in range(weight.shape[axis]):
        changed = weight.copy()
        np.moveaxis(changed, axis, 0)[channel] += 1
        plain.graph.initializers["w"].const_value = ir.tensor(changed, name="w")
        differs = np.nonzero(run(plain, given)[0] != before)
        if not any(len(set(index.tolist())) <= 1 for index in differs):
            return False
    return True


@pytest.mark.parametrize("name", CHANNELS)
def test_a_slice_along_the_output_axis_is_of_one_channel(name):
    text, axis = CHANNELS[name]
    assert axis_of_outputs(model(text)) == axis
    assert is_of_output_channels(model(text), axis)


def test_a_slice_along_another_axis_is_of_all_channels():
    assert not is_of_output_channels(model(CHANNELS["matmul, right"][0]), 0)
    assert not is_of_output_channels(model(CHANNELS["matmul, left, batches"][0]), 2)


def test_where_operators_differ_it_is_the_first_axis():
    plain = model("""net (float[4, 4] x) => (float[4, 4] y) <float[4, 4] w = random>
                  { a = MatMul(x, w) b = Gemm <transB = 1> (x, w) y = Add(a, b) }""")
    assert axis_of_outputs(plain) == 0
    plain = model("""net (float[2, 4] x) => (float[6, 2] y) <float[4, 6] w = random>
                  { z = MatMul(x, w) y = Transpose(z) }""")
    assert axis_of_outputs(plain) == 1


def test_channels_of_the_same_place_in_groups_share_a_scale():
    plain = model("""net (float[1, 4, 5] x) => (float[1, 6, 7] y) <float[4, 3, 3] w = random>
                  { y = ConvTranspose <group = 2> (x, w) }""")
    assert axis_of_outputs(plain) == 1


def test_a_channel_of_a_matrix_on_the_left_has_its_own_scale():
    plain = model("net (float[3, 4, 2] x) => (float[3, 6, 2] y) <float[3, 6, 4] w = random> { y = MatMul(w, x) }")
    protected(plain, granularity="channel", strategy="sign")
    (tensor,) = stored_tensors(plain)
    assert (tensor.alpha.shape, tensor.plane("stride").tolist()) == ((6, 1), [4])
