import time

import numpy as np
import onnx_ir as ir
import pytest

from onnx_analog.errors import OptionError
from onnx_analog.graph import files
from onnx_analog.graph.uses import ends
from onnx_analog.graph.weights import Selection, _compiled, all_tensors, find, referring, scopes, taken_names
from tests.models import SMALL, ZOO, f32, feeds, holding, made, model, proto, run, same_bits


@pytest.mark.parametrize("name", ZOO)
def test_every_weight_is_found_once(name):
    assert [weight.key for weight in find(made(name)).weights] == list(ZOO[name].keys)


@pytest.mark.parametrize("name", ZOO)
def test_other_numbers_reach_the_output(name):
    """Weights of zero leave nothing of an input that is not in a bias, so outputs no longer depend on it."""
    plain = made(name)
    given, other = feeds(plain)[0], feeds(plain, seed=1)[0]
    assert not same_bits(run(plain, given), run(plain, other))
    for weight in find(plain).weights:
        weight.replace(np.zeros_like(weight.array()))
    assert all(np.array_equal(a, b) for a, b in zip(run(plain, given), run(plain, other), strict=True))


def initializer(plain: ir.Model, name: str, array: np.ndarray) -> None:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    plain.graph.register_initializer(value)
    plain.graph.outputs.append(value)  # what is not used is not stored


def keys(plain: ir.Model) -> list[str]:
    return [tensor.key for tensor in all_tensors(plain)]


def test_a_name_with_slashes_does_not_take_the_key_of_a_body():
    plain = made("if")
    initializer(plain, "y.then_branch/w", np.eye(2))
    assert keys(plain) == ["y.then_branch/w", "y.then_branch/w#2", "y.else_branch/w"]


def test_nor_does_a_name_that_looks_like_a_key_made_unique():
    plain = made("if")
    initializer(plain, "y.then_branch/w", np.eye(2))
    initializer(plain, "y.then_branch/w#2", np.eye(2))
    assert len(set(keys(plain))) == len(keys(plain)) == 4


def test_keys_do_not_depend_on_names_of_nodes_and_graphs():
    plain = made("if")
    plain.graph[0].name = "other"
    plain.graph[0].attributes["then_branch"].as_graph().name = "other"
    assert keys(plain) == ["y.then_branch/w", "y.else_branch/w"]


def test_a_body_is_named_by_the_first_output_that_has_a_name():
    plain = made("scan")
    plain.graph[0].outputs[0].name = ""
    assert [path for path, _, _ in scopes(plain)] == ["", "rows.body/"]


def test_bodies_in_bodies_are_found():
    plain = model("""
        net (float[4, 16] x, bool c) => (float[4, 16] y) {
            y = If (c) <
                then_branch = outer () => (float[4, 16] t) {
                    t = If (c) <
                        then_branch = inner () => (float[4, 16] a) <float[16, 16] w = random> { a = MatMul(x, w) },
                        else_branch = other () => (float[4, 16] b) { b = Identity(x) }
                    >
                },
                else_branch = last () => (float[4, 16] e) { e = Identity(x) }
            >
        }""")
    assert keys(plain) == ["y.then_branch/t.then_branch/w"]


def test_overloads_of_a_function_have_keys_of_their_own():
    plain = made("function")
    (function,) = plain.functions.values()
    copy = function.clone()
    copy.overload = "other"
    plain.functions[copy.identifier()] = copy
    assert keys(plain) == ["local.project()/w", "local.project.other()/w"]


def test_constants_without_a_tensor_are_no_weights():
    plain = model("net (float[2] x) => (float[2] y) { c = Constant <value_float = 2.0> () y = Mul(x, c) }")
    assert keys(plain) == []


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones((16, 16), np.int8), "INT8, not a float of 16 to 64 bits"),
        (np.ones(256, np.float32), "rank 1, below 2"),
        (np.ones((15, 17), np.float32), "255 elements, below 256"),
        (np.full((16, 16), -np.inf, np.float32), "holds NaN or infinity"),
        (np.full((16, 16), np.nan, np.float16), "holds NaN or infinity"),
        (np.full((16, 16), 3.41e38), "beyond the range of float32"),
        (np.zeros((16, 16), np.float32), "all zero"),
    ],
)
def test_the_reason_against_a_tensor_is_said(array, reason):
    plain = made("matmul")
    initializer(plain, "v", array)
    assert [(tensor.key, why) for tensor, why in find(plain).skipped] == [("v", reason)]


@pytest.mark.parametrize("array", [np.full((2, 128), 3.4e38), np.full((16, 16), 1e-45, np.float32)])
def test_a_tensor_at_the_edge_is_stored(array):
    plain = model("net (float[2] x) => (float[2] y) { y = Relu(x) }")
    initializer(plain, "v", array)
    assert [tensor.key for tensor in find(plain).weights] == ["v"]


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        ((), (), ["ab", "b"]),
        (("b",), (), ["ab", "b"]),
        (("^b",), (), ["b"]),
        (("a", "^b$"), (), ["ab", "b"]),
        ((), ("a",), ["b"]),
        (("b",), ("^a", "none"), ["b"]),
        (("none",), (), []),
    ],
)
def test_patterns_are_searched_for_in_the_key(include, exclude, chosen):
    plain = holding(ab=f32([[1]]), b=f32([[2]]))
    found = find(plain, Selection(include=include, exclude=exclude, min_size=1))
    assert [tensor.key for tensor in found.weights] == chosen


def test_a_pattern_may_name_a_scope():
    found = find(made("if"), Selection(include=("then_branch/",)))
    assert [tensor.key for tensor in found.weights] == ["y.then_branch/w"]
    assert [why for _, why in found.skipped] == ["not included"]
    found = find(made("if"), Selection(exclude=("then_branch/",)))
    assert [why for _, why in found.skipped] == ["excluded"]


@pytest.mark.parametrize("pattern", ["\udcff", b"w", 3, ["w"], None])
def test_an_expression_that_is_no_text_is_refused(pattern):
    with pytest.raises(OptionError, match=r"a regular expression is .*; it must be UTF-8 text"):
        Selection(exclude=(pattern,))


@pytest.mark.parametrize("size", [1.5, True, float("nan"), "1", None])
def test_min_size_is_a_whole_number(size):
    with pytest.raises(OptionError, match=r"min_size is .*; it must be a whole number"):
        Selection(min_size=size)


def test_a_wrong_selection_is_refused():
    with pytest.raises(OptionError, match=r"'\(' is not a regular expression"):
        Selection(exclude=("(",))
    with pytest.raises(OptionError, match="min_size is 0; it must be 1 or more"):
        Selection(min_size=0)


@pytest.mark.parametrize(
    ("name", "consumers"),
    [
        ("tied", [("MatMul", "MatMul")]),
        ("tied through transpose", [("MatMul", "MatMul")]),
        ("float16 behind a cast", [("MatMul",)]),
        ("lstm through slice and concat", [("Slice",), ("Concat",), ("Concat",)]),
        ("weight that is an output", [("MatMul",)]),
    ],
)
def test_consumers_are_seen_through_casts_and_transpositions(name, consumers):
    assert [weight.consumers() for weight in find(made(name)).weights] == consumers


@pytest.mark.parametrize("name", ["matmul", "constant", "function", "float16", "bfloat16 behind a cast"])
def test_a_replaced_tensor_keeps_all_but_its_numbers(name):
    (weight,) = find(made(name)).weights
    old = weight.tensor
    old.metadata_props["of"] = "w"
    weight.replace(np.ones(weight.shape))
    new = weight.tensor
    assert (new.name, new.dtype, new.metadata_props) == (old.name, old.dtype, {"of": "w"})
    assert same_bits([weight.array()], [np.ones(weight.shape, old.dtype.numpy())])


def test_a_replaced_tensor_keeps_its_description():
    plain = holding(w=f32([[1]]))
    plain.graph.initializers["w"].const_value = ir.Tensor(f32([[1]]), name="w", doc_string="a weight")
    (weight,) = find(plain, SMALL).weights
    weight.replace(f32([[2]]))
    assert weight.tensor.doc_string == "a weight"


def test_taken_names_are_those_of_all_values():
    plain = made("loop")
    expected = {"x", "y", "trips", "more", "start", "i", "go", "sum", "w", "on", "part", "next"}
    assert taken_names(graph for _, graph, _ in scopes(plain)) == expected


@pytest.mark.parametrize("name", ["include", "exclude"])
def test_a_text_is_no_tuple_of_expressions(name):
    with pytest.raises(OptionError, match=f"{name} is 'fc1'; it must be a tuple"):
        Selection(**{name: "fc1"})


# ------------------------------------------------------------------------------------ what is no weight, and what is


def reasons(body: str, *, head: str = "float[16, 16] x", weight: str = "float[16, 16] w = random") -> dict[str, str]:
    """Return why tensors of a model stay digital; of those that do not, an empty reason."""
    text = f"""<ir_version: 11, opset_import: ["" : 23, "com.microsoft" : 1]>
        net ({head}) => (y) <{weight}> {{ {body} }}"""
    found = find(files.from_proto(proto(text)))
    return {weight.key: "" for weight in found.weights} | {weight.key: why for weight, why in found.skipped}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = OneHot(w, x, x)", "used as indices of OneHot"),
        ("y = OneHot(x, x, w)", "used as values of OneHot"),
        ("y = BitCast <to = 6> (w)", "used as bits of BitCast"),
        ("i = Cast <to = 7> (w) y = Gather(x, i)", "used as numbers of Cast"),
        ("t = Transpose(w) i = Cast <to = 9> (t) y = Where(i, x, x)", "used as numbers of Cast"),
        ("y = GridSample(x, w)", "used as a grid of GridSample"),
        ("y = Resize(x, x, w)", "used as scales of Resize"),
        ("y = DequantizeLinear(x, w)", "used as scales of DequantizeLinear"),
        ("y = Less(x, w)", "used as a limit of Less"),
        ("y = com.microsoft.MatMulNBits(x, x, w)", "used as scales of MatMulNBits"),
        ("y = NonMaxSuppression(w, x)", "used as boxes of NonMaxSuppression"),
    ],
)
def test_indices_scales_and_the_like_are_no_weights(body, reason):
    assert reasons(body) == {"w": f"no weight: {reason}"}


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul(x, w)",
        "y = Add(x, w)",
        "y = Gather(w, x)",
        "y = Where(x, w, x)",
        "y = Attention(x, w, w)",
        "y = Attention(x, x, x, w)",
        "y = Reshape(w, x)",
        "y = OtherOp(x, w)",
        "y = com.microsoft.OneHot(w, x)",
        "a = OneHot(w, x, x) y = MatMul(x, w)",
        "c = Cast <to = 10> (w) y = MatMul(x, c)",
        "c = Cast <to = 17> (w) d = Cast <to = 1> (c) y = MatMul(x, d)",
        "y = Identity(w)",
    ],
)
def test_what_is_also_a_weight_is_one(body):
    assert reasons(body) == {"w": ""}


@pytest.mark.parametrize(
    ("low", "high", "body", "mask"),
    [
        (-1e9, 0, "y = Add(x, w)", True),
        (-65504, 0, "y = Add(x, w)", True),
        (0, 1, "y = Mul(x, w)", True),
        (0, 1, "y = MatMul(x, w)", False),
        (-1, 1, "y = Mul(x, w)", False),
        (-999, 0, "y = Add(x, w)", False),
        (0, 1e9, "y = Add(x, w)", True),
        (-1e9, 0.5, "y = Add(x, w)", False),
    ],
)
def test_a_mask_keeps_and_drops(low, high, body, mask):
    array = np.where(np.tri(16) > 0, high, low).astype(np.float32)
    found = files.from_proto(proto(f"net (float[16, 16] x) => (y) <float[16, 16] w = random> {{ {body} }}"))
    found.graph.initializers["w"].const_value = ir.tensor(array, name="w")
    assert [why for _, why in find(found).skipped] == ["a mask"] * mask


def test_what_is_not_used_is_not_stored():
    assert reasons("y = Relu(x)") == {"w": "nothing uses it"}
    plain = made("function")
    for node in plain.graph:
        node.op_type = node.domain = "other"
    assert [why for _, why in find(plain).skipped] == ["nothing uses it"]


@pytest.mark.parametrize("name", ["function", "function with a body"])
def test_a_function_that_a_function_calls_is_called(name):
    assert not [why for _, why in find(made(name)).skipped if why == "nothing uses it"]


def test_a_constant_that_its_caller_gives_is_told_of():
    text = """<ir_version: 10, opset_import: ["" : 18, "f" : 1]>
        net (float[2] x) => (float[2] y) { y = f.add <by = float[2] {1, 2}> (x) }
        <domain: "f", opset_import: ["" : 18]> add <by> (a) => (b) {
            c = Constant <value : tensor = @by> ()
            b = Add(a, c)
        }"""
    found = files.load(proto(text))
    assert list(referring(found)) == [("f.add()/c", "given by whoever calls the function, as 'by'")]
    assert keys(found) == []


def test_each_use_is_there_once_however_many_ways_lead_to_it():
    steps = " ".join(f"a{i + 1} = Reshape(a{i}, s) b{i} = Identity(a{i + 1})" for i in range(2000))
    head = "net (float[16, 16] x, int64[2] s) => (y) <float[16, 16] a0 = random>"
    (weight,) = all_tensors(files.from_proto(proto(f"{head} {{ {steps} y = MatMul(a2000, b1999) }}")))
    assert weight.consumers() == ("MatMul", "MatMul")
    assert [use.input_index for use in ends(weight.value, frozenset({"Identity", "Reshape"}))] == [0, 1]


# ---------------------------------------------------------------------------------------------- expressions


@pytest.mark.parametrize("pattern", ["(?=a)b", "(?<!a)b", r"(a)\1"])
def test_what_takes_more_than_linear_time_is_refused(pattern, capfd):
    with pytest.raises(OptionError, match=r"Look-around and back references are not supported"):
        Selection(include=(pattern,))
    assert capfd.readouterr() == ("", "")


def test_an_expression_takes_linear_time():
    name = "a" * 100_000 + "!"
    start = time.process_time()
    assert not find(holding(w=f32([[1]])), Selection(include=("(a+)+$",), min_size=1)).weights
    assert not _compiled("(a+)+$").search(name)
    assert time.process_time() - start < 5  # a backtracking engine would take 2^100,000 steps
