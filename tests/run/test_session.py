import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_analog as oa
from onnx_analog.errors import DataError, ModelError
from onnx_analog.run import session as network_module
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network
from tests.models import f32, model, run, same_bits

SMALL = oa.Selection(min_size=1)


def x(count: int, width: int = 16) -> Dataset:
    return Dataset({"x": f32(np.random.default_rng(1).normal(size=(count, width)))}, None)


def of_proto(nodes, outputs, initializers=(), opsets=()) -> onnx.ModelProto:
    """Return a model of an input x (n, 16) and a weight k (16, 4), whose outputs need not be tensors."""
    k = numpy_helper.from_array(np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32), "k")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    proto = onnx.ModelProto(ir_version=10, graph=helper.make_graph(nodes, "g", [given], outputs, [k, *initializers]))
    proto.opset_import.extend([helper.make_opsetid("", 18), *opsets])
    return proto


SCORES = helper.make_node("MatMul", ["x", "k"], ["z"])
Z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])


# ----------------------------------------------------------------------------------------------- joining outputs


@pytest.mark.parametrize("batch", [1, 4, 5, 64])
def test_the_samples_of_an_output_may_be_on_any_axis(batch):
    """As those of LSTM, whose outputs begin with the length."""
    text = """net (float[n, 16] x) => (float[3, n, 16] y, float[n, 16] z) <float[3, 1, 1] s = {1, 2, 3}> {
        one = Unsqueeze(x, a)
        y = Mul(one, s)
        z = Neg(x)
    }""".replace("s = {1, 2, 3}", "s = {1, 2, 3}, int64[1] a = {0}")
    data = x(10)
    found = Network(model(text)).run(data, batch=batch)
    assert same_bits(found, run(model(text), data.inputs))


def test_what_a_fixed_batch_is_filled_with_is_cut_off_on_any_axis():
    text = """net (float[4, 16] x) => (float[3, 4, 16] y) <float[3, 1, 1] s = {1, 2, 3}, int64[1] a = {0}> {
        one = Unsqueeze(x, a)
        y = Mul(one, s)
    }"""
    data = x(10)
    (found,) = Network(model(text)).run(data)
    np.testing.assert_array_equal(found, data.inputs["x"] * f32([1, 2, 3])[:, None, None])


GROWS = """net (float[n, 16] x) => (float[1, m] y, float[n, 16] z) <int64[2] s = {1, -1}> {
    y = Reshape(x, s)
    z = Neg(x)
}"""


def test_what_cannot_be_joined_is_a_list_of_what_each_call_gave():
    assert Network(model(GROWS)).run(x(2))[0].shape == (1, 32)
    y, z = Network(model(GROWS)).run(x(3), batch=2)
    assert [part.shape for part in y] == [(1, 32), (1, 16)]
    assert z.shape == (3, 16)


def test_what_cannot_be_joined_troubles_no_metric_that_does_not_read_it():
    labels = (-x(3).inputs["x"]).argmax(axis=1)
    data = Dataset(x(3).inputs, labels)
    assert oa.evaluate(model(GROWS), data, batch=2, output="z").original == 1
    assert oa.evaluate(model(GROWS), data, batch=2).output == "z"  # labels fit no other

    def own(outputs, *, labels, clean):
        return float((outputs[1].argmax(1) == labels).mean())

    assert oa.evaluate(model(GROWS), data, batch=2, metric=own).original == 1
    with pytest.raises(DataError, match=r"has no axis of samples: choose another"):
        oa.evaluate(model(GROWS), data, batch=2, output="y", metric="top1")


def test_only_the_outputs_that_are_wanted_are_fetched():
    y, z = Network(model(GROWS)).run(x(2))
    assert same_bits(Network(model(GROWS)).run(x(2), indices=[1]), [z])
    assert same_bits(Network(model(GROWS)).run(x(2), indices=[1, 0]), [z, y])
    assert [field.name for field in Network(model(GROWS)).outputs] == ["y", "z"]
    assert Network(model(GROWS)).outputs[1] == ("z", "tensor(float)", ("n", 16))


def test_samples_that_give_other_shapes_one_by_one_are_a_list():
    text = "net (float[m, 16] x) => (float[m, 16] y) { y = Neg(x) }"
    data = Dataset({"x": np.zeros((3, 2, 16), np.float32)}, None, one_by_one=True)
    assert Network(model(text)).run(data)[0].shape == (3, 2, 16)


# -------------------------------------------------------------------------------------- maps, sequences and text


def sequence(batch: int) -> tuple[list[np.ndarray], np.ndarray]:
    split = helper.make_node("SplitToSequence", ["z"], ["parts"], axis=1)
    proto = of_proto([SCORES, split], [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None), Z])
    parts, z = Network(ir.from_proto(proto)).run(x(10), batch=batch)
    return parts, z


@pytest.mark.parametrize("batch", [3, 4, 64])
def test_the_tensors_of_a_sequence_are_joined_one_by_one(batch):
    parts, z = sequence(batch)
    assert len(parts) == 4
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), z)


def text_model() -> onnx.ModelProto:
    names = numpy_helper.from_array(np.array(["a", "b", "c", "d"], object), "names")
    nodes = [
        SCORES,
        helper.make_node("ArgMax", ["z"], ["i"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "i"], ["label"]),
    ]
    return of_proto(nodes, [helper.make_tensor_value_info("label", TensorProto.STRING, ["n"]), Z], [names])


def test_text_is_joined_and_matched():
    label, z = Network(ir.from_proto(text_model())).run(x(10), batch=4)
    expected = np.array(list("abcd"))[z.argmax(axis=1)]
    assert label.tolist() == expected.tolist()
    data = Dataset(x(10).inputs, expected)
    found = oa.evaluate(oa.protect(text_model(), selection=SMALL), data, trials=2, batch=4)
    assert (found.metric, found.output, found.stored) == ("exact_match", "label", 1)
    other = oa.evaluate(oa.protect(text_model(), selection=SMALL), Dataset(data.inputs, z.argmax(axis=1)), trials=2)
    assert (other.metric, other.output, other.values) == ("top1", "z", found.values)
    alone = oa.evaluate(oa.protect(text_model(), selection=SMALL), x(10), trials=2)
    assert (alone.metric, alone.compares, alone.values) == ("exact_match", True, found.values)


MAPS = [{"a": 0.5, "b": 0.25}, {"a": 0.1, "b": 0.2}, {"a": 0.0, "b": 1.0}]


def test_maps_are_joined_and_what_fills_a_batch_is_cut_off():
    values = [MAPS[:2], [MAPS[2], MAPS[0]]]
    assert network_module._joined(values, [2, 1], 2, None) == MAPS
    assert network_module._joined([MAPS[:2], MAPS[2:]], [2, 1], None, None) == MAPS
    assert network_module._joined([MAPS[0], MAPS[1]], [1, 1], None, None) == MAPS[:2]


def test_optional_outputs_that_are_empty_are_listed():
    assert network_module._joined([None, f32([1.0])], [1, 1], None, None) == [None, f32([1.0])]
    assert network_module._stacked([None, None]) == [None, None]
    assert network_module._stacked([[f32([1])], [f32([1, 2])]])[1].tolist() == [1, 2]


# ------------------------------------------------------------------------------------------------- unused weights

UNUSED = {
    "initializer": "net (float[n, 16] x) => (float[n, 4] y) <float[16, 4] w = random, float[512, 2] old = random> "
    "{ y = MatMul(x, w) }",
    "bias": "net (float[n, 16] x) => (float[n, 4] y) <float[16, 4] w = random, float[512] old = random> "
    "{ y = MatMul(x, w) }",
    "dead node": "net (float[n, 16] x) => (float[n, 4] y) <float[16, 4] w = random, float[16, 40] old = random> "
    "{ y = MatMul(x, w) dead = MatMul(x, old) }",
}


@pytest.mark.parametrize("name", UNUSED)
def test_weights_that_nothing_uses_change_nothing(name):
    plain, data = model(UNUSED[name]), x(6)
    expected = run(plain, data.inputs)
    assert same_bits(Network(plain).run(data), expected)
    stored = oa.protect(plain, selection=SMALL)
    assert oa.evaluate(stored, data, trials=2).metric == "agreement"
    network = Network(stored.model)
    assert all(np.isfinite(output).all() for output in network.run(data))


def test_a_weight_of_a_function_that_nobody_calls_changes_nothing():
    body = [
        helper.make_node("Constant", [], ["u"], value=numpy_helper.from_array(np.ones((16, 16), np.float32))),
        helper.make_node("MatMul", ["p", "u"], ["q"]),
    ]
    proto = of_proto([SCORES], [Z], opsets=[helper.make_opsetid("local", 1)])
    proto.functions.append(helper.make_function("local", "f", ["p"], ["q"], body, [helper.make_opsetid("", 18)]))
    stored = oa.protect(proto, selection=SMALL)
    assert oa.evaluate(stored, x(6), trials=1).metric == "agreement"


def test_an_unused_weight_in_a_branch_changes_nothing():
    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        unused = numpy_helper.from_array(np.ones((16, 16), np.float32), f"unused_{name}")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, 1, ["n", 16])], [unused])

    branches = {
        "then_branch": branch("t", helper.make_node("Relu", ["x"], ["t"])),
        "else_branch": branch("e", helper.make_node("Neg", ["x"], ["e"])),
    }
    yes = numpy_helper.from_array(np.array(True), "yes")
    nodes = [helper.make_node("If", ["yes"], ["i"], **branches), helper.make_node("MatMul", ["i", "k"], ["z"])]
    stored = oa.protect(of_proto(nodes, [Z], [yes]), selection=SMALL)
    assert oa.evaluate(stored, x(6), trials=1).metric == "agreement"


# ----------------------------------------------------------------------------------------------- bounds, messages


def test_a_fixed_batch_far_larger_than_the_data_is_refused(monkeypatch):
    huge = model("net (float[30000000, 16] x) => (float[30000000, 16] y) { y = Neg(x) }")
    monkeypatch.setattr(network_module, "LARGEST", 10**6)
    with pytest.raises(DataError, match=r"takes 30,000,000 samples in each call, and the data have 2"):
        Network(huge).run(x(2))
    small = model("net (float[30, 16] x) => (float[30, 16] y) { y = Neg(x) }")
    assert len(Network(small).run(x(2))[0]) == 2


def test_a_batch_of_no_samples_is_refused():
    with pytest.raises(ModelError, match="'x' of the model takes 0 samples"):
        Network(model("net (float[0, 16] x) => (float[0, 16] y) { y = Neg(x) }")).run(x(2))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:No Op for Foo", "No Op for Foo"),
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find it", "Could not find it"),
        ("plain", "plain"),
    ],
)  # fmt: skip
def test_a_reason_has_no_codes(text, kept):
    assert network_module._reason(RuntimeError(text)) == kept


def test_a_reason_is_short():
    assert len(network_module._reason(RuntimeError("x" * 10**6))) == 200


def test_onnxruntime_writes_nothing_to_stderr(capfd):
    ort.set_default_logger_severity(4)
    network = Network(model("net (float[n, 16] x) => (float[n, 3] y) <int64[2] s = {-1, 3}> { y = Reshape(x, s) }"))
    with pytest.raises(DataError, match=r"onnxruntime cannot compute the outputs from the data: .*Reshape"):
        network.run(x(2))
    assert capfd.readouterr().err == ""


# --------------------------------------------------------------------------------------- sides that are no samples

SUMS = """net (float[n, 16] x) => (float[16] y, float[m, 16] z) <int64[1] a = {0}> {
    y = ReduceSum<keepdims = 0>(x, a)
    z = Concat<axis = 0>(x, x)
}"""


@pytest.mark.parametrize(("samples", "batch"), [(48, 16), (48, 20), (16, 64), (5, 2)])
def test_a_side_that_the_model_fixes_does_not_count_samples(samples, batch):
    """Three sums of 16 columns are 48 numbers, but not one for each of 48 samples."""
    data = x(samples)
    found = Network(model(SUMS)).run(data, batch=batch)[0]
    parts = [data.inputs["x"][start : start + batch].sum(axis=0) for start in range(0, samples, batch)]
    assert isinstance(found, list)
    np.testing.assert_allclose(found, parts, rtol=1e-4, atol=1e-5)
    labelled = Dataset(data.inputs, np.arange(samples) + 0.5)
    with pytest.raises(DataError, match="no axis of samples"):
        oa.evaluate(model(SUMS), labelled, batch=batch, output="y", metric="r2")


@pytest.mark.parametrize("batch", [5, 7, 64])
def test_several_rows_for_each_sample_are_joined(batch):
    data = x(12)
    found = Network(model(SUMS)).run(data, batch=batch)[1]
    assert found.shape == (24, 16)
    assert sorted(found[:, 0]) == sorted(np.tile(data.inputs["x"][:, 0], 2))


def test_outputs_of_bfloat16_are_the_same_numbers_as_float32():
    text = """net (float[n, 16] x) => (bfloat16[n, 16] y, float[n, 16] z) {
        y = Cast<to = 16>(x)
        z = Cast<to = 1>(y)
    }"""
    wide, same = Network(model(text)).run(x(3))
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, same)
    assert [field.name for field in Network(model(text)).outputs] == ["y", "z"]
