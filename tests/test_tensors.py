import numpy as np
import onnx_ir as ir
import pytest

from onnx_analog.errors import OptionError
from onnx_analog.tensors import Selection, all_tensors, find, scopes, taken_names
from tests.models import ZOO, f32, feeds, holding, made, model, run, same_bits

SMALL = Selection(min_size=1)


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
    plain.graph.outputs.append(value)  # so that something uses it


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
        (np.ones((16, 16), np.int8), "INT8, not a float"),
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
    with pytest.raises(OptionError, match=f"{name} is the text 'fc1'"):
        Selection(**{name: "fc1"})
