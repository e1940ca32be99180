import itertools
import re
from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_analog.graph.decoder import altered, function_of
from onnx_analog.graph.layout import DOMAIN, LAST_STAGE, OLDEST_OPSET, Layout, inputs_of, layout_of, stages
from tests.models import NEWEST_OPSET, f32, model, run, same_bits

OPSETS = range(OLDEST_OPSET, NEWEST_OPSET + 1)

# ------------------------------------------------------------------------------------------ functions by layout

CLASSES = {0: (1,), 1: (2,), 2: (3, 4), 4: (5, 16), 8: (17, 256)}  # by width
ANALOG: tuple[Literal["all", "some", "none"], ...] = ("all", "some", "none")
LAYOUTS = [
    Layout(masked=masked, sign=sign, width=width, analog=analog, grouped=grouped)
    for masked, sign, width, analog, grouped in itertools.product(
        (False, True), (False, True), CLASSES, ANALOG, (False, True)
    )
    if width or analog != "some"
]
TIMES: tuple[dict[str, Any], ...] = ({}, {"stage": LAST_STAGE}, {"split": True})  # when a layout is folded
OFF, ON = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def packed(numbers: NDArray[Any], width: int) -> NDArray[np.uint8]:
    """Return `numbers` of `width` bits as bytes, the first in the lowest bits."""
    bits = numbers.astype(np.uint8)[:, None] >> np.arange(width) & 1
    return np.packbits(bits.astype(np.uint8), bitorder="little")


def planes_and_weight(layout, shape, *, classes, stride=1, groups=1, used=None, seed=0):
    """Return random planes, and the weight that they stand for, from the definition alone."""
    rng = np.random.default_rng(seed)
    size, groups = int(np.prod(shape)), groups if layout.grouped else 1
    mask = rng.random(size) < 0.6 if layout.masked else np.ones(size, bool)
    mask[0] |= not mask.any()
    if layout.aligned:
        mask[np.flatnonzero(mask)[mask.sum() // 8 * 8 :]] = False
    count = int(mask.sum())
    code = rng.choice(np.arange(classes) if used is None else np.array(used), count)
    analog = {"all": np.ones(classes, bool), "none": np.zeros(classes, bool), "some": np.arange(classes) % 2 == 1}
    has_level = analog[layout.analog]
    alpha = rng.uniform(0.5, 9, (groups, classes)).astype(np.float32)
    alpha[:, ~has_level] = 1
    beta = rng.normal(size=(groups, classes)).astype(np.float32)
    level = rng.normal(size=int(has_level[code].sum())).astype(np.float32)
    negative = rng.random(count) < 0.5

    every_level = np.zeros(count, np.float32)
    every_level[has_level[code]] = level
    cancelled = (rng.random(count) < 0.2) & has_level[code]  # some weights are exactly zero
    group = np.flatnonzero(mask) // stride % groups
    every_level[cancelled] = -beta[group, code][cancelled]
    stored = (every_level + beta[group, code]) / alpha[group, code]
    if layout.sign:
        stored = np.where(negative, 0 - stored, stored + 0)
    weight = np.zeros(size, np.float32)
    weight[mask] = stored

    planes = {
        "level": every_level[has_level[code]],
        "mask": packed(mask, 1),
        "sign": packed(negative, 1),
        "analog": has_level.astype(np.uint8),
        "alpha": alpha if layout.grouped else alpha[0],
        "beta": beta if layout.grouped else beta[0],
        "stride": np.array([stride]),
        "shape": np.array(shape, np.int64),
    }
    if layout.width:
        planes["class"] = packed(code, layout.width)
    return {name: planes[name] for name in inputs_of(layout)}, weight.reshape(shape)


def decoding(layout, planes, opset=18, dtype=ir.DataType.FLOAT) -> onnx.ModelProto:
    """Return a model that computes y = x·w."""
    inputs = [ir.Value(name=name, const_value=ir.Tensor(array, name=name)) for name, array in planes.items()]
    attributes: dict[str, Any] = {"dtype": int(dtype), "key": "w", "scheme": 0}
    call = ir.node(layout.name, inputs, attributes, domain=DOMAIN)
    shape, kind = ir.Shape(planes["shape"].tolist()), ir.TensorType(dtype)
    x = ir.Value(name="x", shape=shape, type=kind)
    last = ir.node("Mul", [x, call.outputs[0]])
    last.outputs[0].shape, last.outputs[0].type, last.outputs[0].name = shape, kind, "y"
    opsets = {"": opset, DOMAIN: 1}
    graph = ir.Graph([x], last.outputs, nodes=[call, last], initializers=inputs, opset_imports=opsets, name="g")
    function = function_of(layout, opset)
    return ir.to_proto(ir.Model(graph, ir_version=8, functions=[function]))


def decoded(model, level, path=None):
    """Return what onnxruntime decodes (x is 1), and how often it uses each operator in its own graph."""
    options = ort.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = level, 1
    options.log_severity_level = 3
    if path is not None:
        options.optimized_model_filepath = str(path)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    kind = np.float16 if given.type == "tensor(float16)" else np.float32
    (weight,) = session.run(None, {"x": np.ones(given.shape, kind)})
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node) if path is not None else Counter()
    return weight, kinds


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_decodes_to_the_bit_and_is_folded_away(layout, tmp_path):
    for time, opset in zip(itertools.cycle(TIMES), (OLDEST_OPSET, 13, 18, NEWEST_OPSET), strict=False):
        timed = replace(layout, **time)
        classes = CLASSES[layout.width][opset % len(CLASSES[layout.width])]
        planes, weight = planes_and_weight(timed, (7, 5, 3), classes=classes, stride=3, groups=5, seed=opset)
        model = decoding(timed, planes, opset)
        assert same_bits([decoded(model, OFF)[0]], [weight])
        folded, kinds = decoded(model, ON, tmp_path / "optimised.onnx")
        assert same_bits([folded], [weight])
        assert kinds == {"Mul": 1}


@pytest.mark.parametrize("time", TIMES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS[::3], ids=lambda layout: layout.name)
def test_a_multiple_of_8_weights_may_be_announced(layout, time, tmp_path):
    timed = replace(layout, aligned=True, **time)
    planes, weight = planes_and_weight(timed, (16, 4, 2), classes=CLASSES[layout.width][0], stride=8, groups=16)
    folded, kinds = decoded(decoding(timed, planes), ON, tmp_path / "optimised.onnx")
    assert same_bits([folded], [weight])
    assert kinds == {"Mul": 1}


@given(
    st.sampled_from(LAYOUTS), st.sampled_from(TIMES), st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 99), st.data()
)
@settings(max_examples=60)
def test_sizes_and_classes_of_all_kinds(layout, time, shape, seed, data):
    timed = replace(layout, **time)
    classes = data.draw(st.sampled_from(CLASSES[layout.width]))
    used = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=3))  # the other classes are empty
    planes, weight = planes_and_weight(
        timed, shape, classes=classes, stride=shape[2], groups=shape[1], used=used, seed=seed
    )
    model = decoding(timed, planes)
    assert same_bits([decoded(model, ON)[0], decoded(model, OFF)[0]], [weight, weight])


def test_the_reference_finds_a_wrong_weight():
    layout = Layout(sign=True, width=1)
    planes, weight = planes_and_weight(layout, (4, 4), classes=2)
    planes["sign"] = planes["sign"] ^ 1
    assert not same_bits([decoded(decoding(layout, planes), ON)[0]], [weight])


@pytest.mark.parametrize("time", TIMES, ids=str)
@pytest.mark.parametrize(
    "layout", [each for each in LAYOUTS if each.sign and each.analog == "all"][::2], ids=lambda e: e.name
)
def test_zeros_with_a_sign_are_positive(layout, time):
    """Those of a sum of 0, and those of a quotient that is too small, of either sign."""
    timed, classes, groups = replace(layout, **time), CLASSES[layout.width][0], 4
    planes, weight = planes_and_weight(timed, (4, 4), classes=classes, stride=4, groups=groups)
    planes["alpha"], planes["beta"] = np.full_like(planes["alpha"], 2.0**100), np.zeros_like(planes["beta"])
    planes["level"] = np.resize(f32([0, 2.0**-100, -(2.0**-100)]), planes["level"].shape)
    for level in (ON, OFF):
        assert same_bits([decoded(decoding(timed, planes), level)[0]], [np.zeros_like(weight)])


def test_a_weight_of_another_type():
    layout = Layout(sign=True, width=1)
    planes, weight = planes_and_weight(layout, (4, 4), classes=2)
    (found, _) = decoded(decoding(layout, planes, dtype=ir.DataType.FLOAT16), ON)
    assert same_bits([found], [weight.astype(np.float16)])


@pytest.mark.parametrize("layout", LAYOUTS[::7], ids=lambda layout: layout.name)
@pytest.mark.parametrize("opset", [OLDEST_OPSET, 13, 18, NEWEST_OPSET])
def test_layouts_are_valid_at_every_opset(layout, opset):
    timed = replace(layout, split=True)
    planes, _ = planes_and_weight(timed, (7, 5, 3), classes=CLASSES[layout.width][0], stride=3, groups=5)
    onnx.checker.check_model(decoding(timed, planes, opset), full_check=True)


@pytest.mark.parametrize("layout", LAYOUTS[::5], ids=lambda layout: layout.name)
def test_another_runtime_decodes_every_layout(layout):
    timed = replace(layout, stage=1)
    planes, weight = planes_and_weight(timed, (4, 5, 3), classes=CLASSES[layout.width][0], stride=3, groups=5)
    x = np.ones(weight.shape, np.float32)
    (found,) = ReferenceEvaluator(decoding(timed, planes)).run(None, {"x": x})
    assert same_bits([np.asarray(found)], [weight])


# ------------------------------------------------------------------------------------------- names and stages


@given(
    st.sampled_from(LAYOUTS),
    st.booleans(),
    st.sampled_from([*({"stage": s} for s in range(LAST_STAGE + 1)), {"split": True}]),
)
def test_the_name_says_the_layout(layout, aligned, time):
    timed = replace(layout, aligned=aligned, **time)
    assert layout_of(timed.name) == timed
    assert function_of(timed, 18).name == timed.name


@pytest.mark.parametrize(
    "name",
    ["", "Decode", "DecodeMasked", "DecodeMixed", "DecodeLevelsStage9", "DecodeLevelsStage1Split", "DecodeLevels\n"],
)
def test_other_names_say_no_layout(name):
    assert layout_of(name) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 3}, "width 3"),
        ({"analog": "few"}, "analog 'few'"),
        ({"analog": "some"}, "'some'"),
        ({"stage": LAST_STAGE + 1}, "stage is 7"),
        ({"stage": -1}, "stage is -1"),
        ({"stage": 1, "split": True}, "stage is 1"),
    ],
)
def test_layouts_that_there_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Layout(**wrong)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_no_function_takes_more_than_nine_passes(layout):
    """Ten are there, and fusions with a weight, as that of batch normalisation, come in the pass after."""
    for time in TIMES:
        links = sum(node.op_type == "Scan" for node in function_of(replace(layout, **time), 18))
        assert links <= 8


@given(st.lists(st.integers(1, 2**22), max_size=30))
def test_stages_part_a_model_evenly(sizes):
    chosen, total = stages(sizes), sum(sizes)
    assert len(chosen) == len(sizes)
    for size, (stage, split) in zip(sizes, chosen, strict=True):
        Layout(stage=stage, split=split)
        assert split == (total >= 2**20 and 4 * size > total)
    rest = [(size, stage) for size, (stage, split) in zip(sizes, chosen, strict=True) if not split]
    if total >= 2**20 and rest:
        share, largest = sum(size for size, _ in rest) / (LAST_STAGE + 1), max(size for size, _ in rest)
        for stage in range(LAST_STAGE + 1):
            assert sum(size for size, other in rest if other == stage) <= share + largest
    assert [stage for _, stage in rest] == sorted(stage for _, stage in rest)


CONVOLUTION = """
    net (float[1, 4, 6, 6] x) => (float[1, 4, 4, 4] y)
    <float[4, 4, 3, 3] w = random, float[4] s = {1, 2, 3, 4}, float[4] b = {1, 1, 1, 1}, float[4] m = {0, 1, 2, 3}> {
        c = Conv (x, w)
        n = BatchNormalization (c, s, b, m, s)
        y = Relu (n)
    }"""


def with_decoded_weight(found: ir.Model, layout, planes) -> ir.Model:
    """Put a call in the place of the weight w."""
    old = found.graph.initializers.pop("w")
    inputs = [ir.Value(name=name, const_value=ir.Tensor(array, name=name)) for name, array in planes.items()]
    for value in inputs:
        found.graph.register_initializer(value)
    call = ir.node(layout.name, inputs, {"dtype": 1, "key": "w", "scheme": 0}, domain=DOMAIN)
    found.graph.insert_before(found.graph[0], call)
    old.replace_all_uses_with(call.outputs[0])
    function = function_of(layout, 18)
    found.functions[function.identifier()] = function
    found.graph.opset_imports[DOMAIN] = 1
    return found


@pytest.mark.parametrize("time", TIMES, ids=str)
def test_a_decoded_weight_is_optimised_as_a_plain_one(time, tmp_path):
    """A session is optimised in as many passes as decoding takes, and in one more."""
    layout = Layout(masked=True, sign=True, width=2, analog="some", **time)
    planes, weight = planes_and_weight(layout, (4, 4, 3, 3), classes=3)
    plain = model(CONVOLUTION)
    plain.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")
    models = plain, with_decoded_weight(model(CONVOLUTION), layout, planes)
    (expected, kinds), (found, of_decoded) = (
        decoded(ir.to_proto(each), ON, tmp_path / "optimised.onnx") for each in models
    )
    assert same_bits([found], [expected])
    assert of_decoded == kinds
    assert "BatchNormalization" not in kinds


def test_a_weight_in_a_body_is_decoded():
    layout = Layout(masked=True, sign=True, width=1, stage=2)
    planes, weight = planes_and_weight(layout, (4, 4), classes=2)
    found = model("""
        net (bool c, float[4, 4] x) => (float[4, 4] y) {
            y = If (c) <then_branch = a () => (float[4, 4] u) <float[4, 4] w = random> { u = Mul (x, w) },
                        else_branch = b () => (float[4, 4] v) { v = Neg (x) }>
        }""")
    body = found.graph[0].attributes["then_branch"].as_graph()
    holder = with_decoded_weight(ir.Model(body, ir_version=8), layout, planes)
    found.functions.update(holder.functions)
    found.graph.opset_imports[DOMAIN] = 1
    assert same_bits(run(found, {"c": np.array(True), "x": np.ones((4, 4), np.float32)}), [weight])


# --------------------------------------------------------------------------------------- what a function computes

STAGED = Layout(masked=True, sign=True, width=2, analog="some", stage=2)


def changed(action) -> str | None:
    function = function_of(STAGED, 18)
    action(function)
    return altered([STAGED.name], {function.identifier(): function})


def nodes_of(function, kind):
    return [node for node in function if node.op_type == kind]


def rename(function):
    function.doc_string = "of another tool"
    function.opset_imports[""] = 17
    for number, node in enumerate(function):
        node.name = node.outputs[0].name = f"other_{number}"


def test_names_documentation_and_opset_may_differ():
    assert changed(rename) is None


def in_scan(function):
    (node, *_) = (inner for inner in nodes_of(function, "Scan")[0].attributes["body"].as_graph())
    node.op_type = "Neg"


def other_constant(function):
    (node, *_) = (n for n in nodes_of(function, "Constant") if n.attributes["value"].as_tensor().size == 256)
    array = node.attributes["value"].as_tensor().numpy().copy()
    array[255] = 0
    node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(array))


def other_operator(function):
    nodes_of(function, "Div")[0].op_type = "Mul"


def other_order(function):
    (node,) = nodes_of(function, "Div")
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


def other_attribute(function):
    nodes_of(function, "ScatterElements")[0].attributes["axis"] = ir.AttrInt64("axis", 1)


def dead_node(function):
    """Add what no output needs: onnxruntime would compute it when it folds constants, and may fail."""
    function.append(ir.node("Neg", [nodes_of(function, "Div")[0].outputs[0]]))


@pytest.mark.parametrize("action", [in_scan, other_constant, other_operator, other_order, other_attribute, dead_node])
def test_a_function_that_computes_something_else_is_noticed(action):
    assert changed(action) == STAGED.name


def test_a_function_of_another_layout_is_noticed():
    function = function_of(replace(STAGED, stage=1), 18)
    assert altered([STAGED.name], {(DOMAIN, STAGED.name, ""): function}) == STAGED.name
    assert altered([STAGED.name], {}) == STAGED.name
