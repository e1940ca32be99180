import logging
import re
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import hypothesis
import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import strategies as st

from benchmarks.networks import write_chain
from benchmarks.timing import memory
from onnx_analog.coding.compensation import InputMoments
from onnx_analog.coding.fidelity import deviation
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ModelError, NothingToStore, OptionError
from onnx_analog.graph import files
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.graph.weights import Selection, all_tensors, find, scopes
from onnx_analog.passes import DecodePass, ProtectPass, PrunePass
from onnx_analog.tuning.bench import quiet
from tests.coding.test_verified import verified
from tests.models import (
    CENTRED,
    FAMILY,
    NEWEST_OPSET,
    QUIET,
    SMALL,
    ZOO,
    Outputs,
    assert_same_top,
    assert_within,
    decode_bound,
    f32,
    feeds,
    holding,
    made,
    made_proto,
    model,
    numbers,
    operators,
    output_bound,
    run,
    same_bits,
    serialized,
    with_floats,
)

QUIETLY = Scheme(channel=QUIET)
TOGETHER = QUIETLY.changed(granularity="model")
LINEAR = [name for name, case in ZOO.items() if case.linear]
SETTINGS = list(product(["raw", "sign", "mapping", "redundancy"], ["tensor", "model"], [0.0, 0.3]))


def protected(
    plain: ir.Model, plan: Plan | Scheme | None = None, *, selection: Selection = SMALL, **settings: Any
) -> ir.Model:
    """Return a protected copy; `settings` are of the paper's schemes, whose channel is QUIET unless they say so."""
    copy = plain.clone()
    plan = Scheme.paper(**{"channel": QUIET, **settings}) if plan is None else plan
    ProtectPass(plan=Plan.of(plan), selection=selection)(copy)
    return copy


def only(found: ir.Model) -> Any:
    (tensor,) = stored_tensors(found)
    return tensor


# ------------------------------------------------------------------------------------------ what is computed


def zoo_pair(name: str, strategy: str, granularity: str, sparsity: float) -> tuple[ir.Model, ir.Model]:
    plain = made(name)
    PrunePass(sparsity=sparsity)(plain)
    return plain, protected(plain, strategy=strategy, granularity=granularity, selection=Selection())


@pytest.mark.parametrize(("strategy", "granularity", "sparsity"), SETTINGS)
@pytest.mark.parametrize("name", LINEAR)
def test_outputs_are_within_the_derived_bound(name, strategy, granularity, sparsity):
    plain, found = zoo_pair(name, strategy, granularity, sparsity)
    for given in feeds(plain):
        clean, bound = run(plain, given), output_bound(plain, found, given, QUIET.span)
        outputs = run(found, given)
        assert_within(outputs, clean, bound)
        assert_same_top(outputs, clean, bound)


@pytest.mark.parametrize("name", ZOO)
def test_every_weight_is_within_the_derived_bound(name):
    for setting in SETTINGS:
        plain, found = zoo_pair(name, *setting)
        weights, tensors = find(plain).weights, stored_tensors(found)
        assert [tensor.key for tensor in tensors] == list(ZOO[name].keys) == [weight.key for weight in weights]
        for weight, tensor in zip(weights, tensors, strict=True):
            bound = decode_bound(tensor, weight.array(), QUIET.span)
            assert_within([tensor.decode()], [weight.array().astype(np.float64)], [bound])


@pytest.mark.parametrize("sparsity", [0.0, 0.3])
@pytest.mark.parametrize("name", ZOO)
def test_the_graph_computes_with_the_decoded_weights_bit_for_bit(name, sparsity):
    plain, found = zoo_pair(name, "redundancy", "tensor", sparsity)
    decoded = plain.clone()
    for weight, tensor in zip(find(decoded).weights, stored_tensors(found), strict=True):
        weight.replace(tensor.decode())
    assert all(same_bits(run(found, given), run(decoded, given)) for given in feeds(plain))


@pytest.mark.parametrize("name", ["sparse", "sparse by rows", "sparse constant"])
def test_a_sparse_weight_is_stored_without_its_zeros(name):
    original, found = made_proto(name), protected(made(name))
    given = feeds(found)[0]
    assert only(found).count == (find(made(name)).weights[0].array() > 0).sum() < 256
    bound = output_bound(made(name), found, given, QUIET.span)
    assert_within(run(found, given), run(original, given), bound)


@pytest.mark.parametrize("sparsity", [0.0, 0.3])
@pytest.mark.parametrize("name", ZOO)
def test_runtime_folds_the_planes_away(name, sparsity):
    plain, found = zoo_pair(name, "redundancy", "tensor", sparsity)
    assert operators(found) == operators(plain)


# --------------------------------------------------------------------------------------------- what is valid


@pytest.mark.parametrize("name", ZOO)
def test_the_checker_accepts_it(name):
    for setting in SETTINGS[::3]:  # each strategy and granularity, pruned and not
        onnx.checker.check_model(ir.to_proto(zoo_pair(name, *setting)[1]), full_check=True)


@pytest.mark.parametrize("opset", range(11, NEWEST_OPSET + 1))
@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_the_opset_is_kept(opset, sparsity):
    plain = made("matmul")
    plain.graph.opset_imports[""] = opset
    PrunePass(sparsity=sparsity)(plain)
    found = protected(plain)
    assert {graph.opset_imports[""] for _, graph, _ in scopes(found)} == {opset}
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    given = feeds(plain)[0]
    assert_within(run(found, given), run(plain, given), output_bound(plain, found, given, QUIET.span))


def test_opset_10_is_refused():
    plain = model("""
        <ir_version: 3, opset_import: ["" : 10]>
        net (float[4, 16] x, float[16, 16] w = random) => (float[4, 16] y) { y = MatMul(x, w) }""")
    with pytest.raises(ModelError, match=r"opset 10.*below opset 11.*convert_version\(model, 11\)"):
        ProtectPass().call(plain)


def test_a_model_without_opset_is_refused():
    plain = made("matmul")
    plain.graph.opset_imports.clear()
    with pytest.raises(ModelError, match="imports no ONNX opset"):
        ProtectPass().call(plain)


def test_a_model_of_other_domains_only_is_protected():
    plain = model("""
        <ir_version: 8, opset_import: ["com.microsoft" : 1]>
        net (float[4, 16] x) => (float[4, 24] y) <float[16, 24] w = random> { y = com.microsoft.FusedMatMul(x, w) }""")
    found = protected(plain)
    given = feeds(plain)[0]
    assert_within(run(found, given), run(plain, given), output_bound(plain, found, given, QUIET.span))
    assert [tensor.key for tensor in stored_tensors(found)] == ["w"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<int32[2] w = {1, 2}, float[1] v = random> { y = Identity(w) }", "'w', stays digital: INT32, not a float"),
        (
            "<float[1, 2] v = random, float[2, 8] w = random> { y = Identity(w) }",
            "'w', stays digital: 16 elements, below 256",
        ),
        ("{ y = Neg(x) }", "it has none"),
    ],
)
def test_where_nothing_is_selected_the_largest_says_why(text, said):
    with pytest.raises(NothingToStore, match=rf"nothing to store.*{said}"):
        ProtectPass().call(model(f"net (float[2, 8] x) => (y) {text}"))


@pytest.mark.parametrize(("before", "after"), [(3, 8), (7, 8), (8, 8), (9, 9), (13, 13)])
def test_the_ir_version_is_8_at_least(before, after):
    plain = made("matmul")
    plain.ir_version = before
    assert protected(plain).ir_version == after


def test_from_ir_3_on_no_initializer_stays_an_input():
    found = protected(made("IR 3"))
    assert [value.name for value in found.graph.inputs] == ["x"]
    assert "b" in found.graph.initializers


def test_a_weight_with_a_default_is_an_input_no_more(caplog):
    found = protected(
        model("""
        net (float[16, 16] w = random, float[4, 16] x, float[16] b = random) => (float[4, 16] y) {
            y = Gemm(x, w, b)
        }""")
    )
    assert [value.name for value in found.graph.inputs] == ["x", "b"]
    assert caplog.messages == ["w was an input with a default; protected, it is a constant"]


def test_all_else_is_kept():
    plain = made("gemm")
    plain.metadata_props["character"] = "a\nb"
    plain.producer_name, plain.doc_string, plain.graph.name = "exporter", "of a model", "of a graph"
    plain.graph.initializers["w"].metadata_props["of"] = "w"
    found = protected(plain, selection=Selection())
    assert found.metadata_props["character"] == "a\nb"
    assert (found.producer_name, found.doc_string, found.graph.name) == ("exporter", "of a model", "of a graph")
    assert found.graph[0].outputs[0].name == "w"
    assert found.graph[0].outputs[0].metadata_props == {"of": "w"}
    assert same_bits([numbers(found, "b")], [numbers(plain, "b")])


# ------------------------------------------------------------------------------------------- planes, by hand


def planes(tensor) -> Outputs:
    return [tensor.level, tensor.alpha[0], tensor.beta[0]]


def test_signs_and_zeros_are_kept_apart_from_levels():
    tensor = only(protected(holding(w=f32([[1, -2], [0, 1.5]])), strategy="sign", channel=CENTRED))
    assert same_bits(planes(tensor), [f32([-0.5, 0.5, 0]), f32([1]), f32([1.5])])
    assert tensor.plane("mask").tolist() == [0b1011]
    assert tensor.plane("sign").tolist() == [0b010]
    assert "class" not in tensor.digests()


def test_raw_levels_carry_the_sign():
    tensor = only(protected(holding(w=f32([[1, -1], [0.5, -0.25]])), strategy="raw", channel=CENTRED))
    assert same_bits(planes(tensor), [f32([0.5, -0.5, 0.25, -0.125]), f32([0.5]), f32([0])])
    assert tensor.sign is None
    assert tensor.mask is None


def test_each_class_fills_the_output_range():
    weight = f32([[1, -2], [1.5, 4], [-8, 6]])
    tensor = only(protected(holding(w=weight), strategy="mapping", large_fraction=0.5, channel=CENTRED))
    assert tensor.plane("class").tolist() == [0b111000]
    assert same_bits(planes(tensor), [f32([-0.5, 0.5, 0, -0.5, 0.5, 0]), f32([1, 0.25]), f32([1.5, 1.5])])


def test_granularity_model_shares_one_scale():
    tensors = stored_tensors(
        protected(holding(a=f32([[1, 2]]), b=f32([[5, 3]])), strategy="sign", granularity="model", channel=CENTRED)
    )
    assert same_bits(planes(tensors[0]), [f32([-0.5, -0.25]), f32([0.25]), f32([0.75])])
    assert same_bits(planes(tensors[1]), [f32([0.5, 0]), f32([0.25]), f32([0.75])])


def test_a_weight_at_the_threshold_is_small():
    above = np.nextafter(np.float32(1), np.float32(2))
    for granularity in ("tensor", "model"):
        found = protected(
            holding(a=f32([[1, -1, 2]]), b=f32([[above, 0.5, 3]])), threshold=1.0, granularity=granularity
        )
        assert [tensor.plane("class").tolist() for tensor in stored_tensors(found)] == [[0b100], [0b101]]


@pytest.mark.parametrize(
    ("granularity", "large"),
    [("tensor", [0b0001, 0b0001, 0b0010]), ("model", [0b0011, 0b0000, 0b0010])],
)
def test_ties_are_large_in_the_order_of_the_flat_index(granularity, large):
    found = holding(a=f32([[1, -1], [1, 1]]), b=f32([[-1, 1], [1, 1]]), c=f32([[1, 2], [1, 1]]))
    tensors = stored_tensors(protected(found, large_fraction=0.25, granularity=granularity))
    assert [tensor.plane("class").item() for tensor in tensors] == large


@pytest.mark.parametrize(("fraction", "large"), [(0, 0), (0.04, 10), (0.05, 13), (1, 256)])
def test_the_large_fraction_is_of_the_stored_weights(fraction, large):
    tensor = only(protected(made("matmul"), large_fraction=fraction))
    assert tensor.class_counts.tolist() == [256 - large, large]
    size = np.abs(tensor.decode().ravel())
    assert size[tensor.class_index == 1].min(initial=9) > size[tensor.class_index == 0].max(initial=0)


@pytest.mark.parametrize(("fraction", "name"), [(0, "large"), (1, "small")])
def test_an_empty_class_is_a_warning(caplog, fraction, name):
    tensor = only(protected(made("matmul"), large_fraction=fraction))
    assert caplog.messages == [f"w: no weight is {name}, so that class is empty"]
    assert (tensor.alpha[0, int(name == "large")], tensor.beta[0, int(name == "large")]) == (1, 0)


def test_an_empty_class_of_the_model_is_one_warning(caplog):
    protected(made("two scales"), threshold=1e6, granularity="model")
    assert caplog.messages == ["the model: no weight is large, so that class is empty"]


SIGNED: dict[str, Any] = {"sign": "level", "partition": "uniform", "step": 0.1, "channel": QUIET}


@pytest.mark.parametrize(
    ("scheme", "largest", "clipped"),
    [
        (Scheme(**SIGNED, classes=15, cells=(0,)), 0.75, False),
        (Scheme(**SIGNED, classes=15, cells=(0,)), 0.76, True),
        (Scheme(**SIGNED, classes=15, cells=(0,)), -0.76, True),
        (Scheme(**SIGNED, classes=15, cells=(0,) * 14 + (1,)), 0.76, False),
        (Scheme(**SIGNED, classes=15, cells=(0,) * 14 + (1,)), -0.76, True),
        (Scheme(**{**SIGNED, "sign": "bit"}, classes=8, cells=(0,)), 0.75, False),
        (Scheme(**{**SIGNED, "sign": "bit"}, classes=8, cells=(0,)), -0.76, True),
        (Scheme(**{**SIGNED, "step": None}, classes=15, cells=(0,)), 0.76, False),
    ],
)
def test_weights_beyond_the_steps_are_a_warning(caplog, scheme, largest, clipped):
    weights = f32(np.linspace(-0.3, 0.3, 16).reshape(4, 4))
    weights[0, 0] = largest
    tensor = only(protected(holding(w=weights), scheme))
    text = "w: the steps reach 0.7, and weights of up to 0.76 in magnitude are clipped to that."
    assert caplog.messages == ([f"{text} Give a step of 0.109 or more, or none"] if clipped else [])
    assert (abs(tensor.decode()[0, 0] - largest) > 0.05 + 1e-6) == clipped


@pytest.mark.parametrize("changed", [False, True])
def test_of_steps_that_a_search_chose_and_verified_nobody_is_told_to_widen_them(caplog, changed):
    weights = f32(np.linspace(-0.3, 0.3, 16).reshape(4, 4))
    weights[0, 0] = 0.76
    plan = verified(Plan(default=None, tensors={"w": Scheme(**SIGNED, classes=15, cells=(0,))}))
    if changed:
        plan = replace(plan, tensors={"w": Scheme(**{**SIGNED, "step": 0.09}, classes=15, cells=(0,))})
    protected(holding(w=weights), plan)
    assert len(caplog.messages) == changed


def squared_error(weights, half, classes):
    """Return the squared error of rounding each weight to the nearest of equal steps from -half to half."""
    points = np.linspace(-half, half, classes)
    return np.square(np.abs(weights.reshape(-1, 1) - points).min(axis=1)).sum()


def test_one_large_weight_does_not_hide_that_steps_are_too_narrow(caplog):
    """To reach it would do harm, to reach a part of the way is best: that is what the warning names."""
    weights = f32(np.append(np.random.default_rng(0).standard_normal(1999), 30.0).reshape(40, 50))
    errors = {reach: squared_error(weights, reach, 7) for reach in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)}
    best = min(errors, key=errors.__getitem__)
    assert best < 30
    assert errors[30.0] > errors[0.5]
    protected(holding(w=weights), Scheme(**{**SIGNED, "step": 0.5 / 3}, classes=7, cells=(0,)))
    (text,) = caplog.messages
    assert f"Give a step of {best / 3:.3g} or more" in text


@pytest.mark.parametrize(
    "chosen", [logging.Filter("onnx_analog"), lambda record: record.levelno >= logging.WARNING, lambda _: False]
)
def test_filters_of_the_user_decide_on_a_warning_of_clipping(caplog, chosen):
    weights = f32(np.full((4, 4), 0.1))
    weights[0, 0] = 0.9
    logger = logging.getLogger("onnx_analog.passes.protect")
    logger.addFilter(chosen)
    try:
        protected(holding(w=weights), Scheme(**SIGNED, classes=15, cells=(0,)))
    finally:
        logger.removeFilter(chosen)
    heard = isinstance(chosen, logging.Filter) or chosen(logging.makeLogRecord({"levelno": logging.WARNING}))
    assert len(caplog.messages) == heard


@pytest.mark.parametrize("reach", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
def test_clipping_is_a_warning_only_if_wider_steps_would_have_smaller_errors(caplog, reach):
    """With 7 classes, the best steps for normal weights clip the largest: the remedy would then do harm."""
    weights = f32(np.random.default_rng(0).standard_normal((40, 50)))
    largest, classes = float(np.abs(weights).max()), 7
    scheme = Scheme(**{**SIGNED, "step": 2 * reach / (classes - 1)}, classes=classes, cells=(0,))
    protected(holding(w=weights), scheme)
    wider = [*(reach * 2.0**power for power in (1, 2) if reach * 2.0**power < largest), largest]
    worse = squared_error(weights, reach, classes) > min(squared_error(weights, each, classes) for each in wider)
    assert (len(caplog.messages) == 1) == (reach < largest and worse)


def test_the_reaches_above_have_both_outcomes():
    weights = np.random.default_rng(0).standard_normal((40, 50))
    largest = squared_error(weights, np.abs(weights).max(), 7)
    assert squared_error(weights, 1.0, 7) > largest > squared_error(weights, 2.0, 7)


@pytest.mark.parametrize(("unused", "clipped"), [(0.0, False), (1.0, True)])
def test_where_outputs_are_known_they_tell_whether_clipping_does_harm(caplog, unused, clipped):
    """Weights are on the steps but for a large one: it does no harm if its input is always 0, and others lose."""
    weights = f32(np.tile([-0.3, -0.1, 0.1, 0.3], (4, 1)).T)
    weights[3] = 3.0
    second = f32(np.diag([1.0, 1.0, 1.0, unused])[None])
    moments = InputMoments(second=second, held_out=second, axes=(1, 0), samples=100)
    scheme = Scheme(**{**SIGNED, "step": 0.1}, classes=15, cells=(0,))
    ProtectPass(plan=scheme, selection=SMALL, moments={"w": moments})(holding(w=weights))
    assert ["clipped" in message for message in caplog.messages] == [True] * clipped


@pytest.mark.parametrize("unused", [0.0, 1.0])
def test_errors_of_weights_and_of_outputs_are_not_added(caplog, unused):
    """Where outputs are known of one of two tensors that share their steps, the weights of both tell."""
    weights = f32(np.tile([-0.3, -0.1, 0.1, 0.3], (4, 1)).T)
    weights[3] = 3.0
    second = f32(np.diag([1.0, 1.0, 1.0, unused])[None])
    moments = InputMoments(second=second, held_out=second, axes=(1, 0), samples=100)
    scheme = Scheme(**{**SIGNED, "step": 0.1}, classes=15, cells=(0,), granularity="model")
    ProtectPass(plan=scheme, selection=SMALL, moments={"w": moments})(holding(w=weights, v=weights[:3]))
    assert ["clipped" in message for message in caplog.messages] == [True]


def test_whether_steps_are_too_narrow_is_not_computed_where_nobody_hears_of_it(monkeypatch):
    weights = f32(np.linspace(-3, 3, 16).reshape(4, 4))
    counted = list[str]()
    monkeypatch.setattr("onnx_analog.passes.protect._Group.harm_of", lambda *_: counted.append("computed") or 0.0)
    scheme = Scheme(**SIGNED, classes=15, cells=(0,))
    with quiet():
        protected(holding(w=weights), scheme)
    assert not counted
    protected(holding(w=weights), scheme)
    assert counted


# ------------------------------------------------------------------------------------------------- the edges


@pytest.mark.parametrize("strategy", ["raw", "sign", "mapping", "redundancy"])
@pytest.mark.parametrize(
    "weight",
    [
        np.full((4, 4), 0.3),
        np.full((4, 4), -0.3),
        np.eye(1, 16) * 2.5,
        np.eye(1, 16) * -2.5,
        np.linspace(-5e37, 5e37, 16).reshape(4, 4),
        np.linspace(-2e-38, 2e-38, 16).reshape(4, 4),
        np.linspace(1e6, 1e6 + 1, 16).reshape(4, 4),
    ],
    ids=["equal", "equal negative", "one", "one negative", "huge", "least", "narrow"],
)
def test_odd_weights_are_stored_within_the_bound(weight, strategy):
    weight = f32(weight)
    tensor = only(protected(holding(w=weight), strategy=strategy))
    assert tensor.count == np.count_nonzero(weight)
    subnormal = 2.0**-150  # half the least float32 number
    bound = (decode_bound(tensor, weight, QUIET.span) + subnormal) * (weight != 0)
    assert_within([tensor.decode()], [weight], [bound])


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (np.zeros((4, 4)), "all zero"),
        (np.full((4, 4), np.nan), "holds NaN or infinity"),
        (np.diag([1, np.inf]), "holds NaN or infinity"),
    ],
)
def test_what_has_no_scale_stays_digital(weight, reason):
    plain = holding(v=f32(weight), w=f32(np.eye(4)))
    found = protected(plain)
    assert [tensor.key for tensor in stored_tensors(found)] == ["w"]
    assert same_bits([numbers(found, "v")], [f32(weight)])
    assert {weight.key: why for weight, why in find(plain, SMALL).skipped} == {"v": reason}


@pytest.mark.parametrize("size", [1e-40, 3e38])
def test_magnitudes_at_the_ends_of_float32_stay_digital(caplog, size):
    odd = f32([[size, -size / 2]])
    found = protected(holding(v=odd, w=f32([[1, 2]])), strategy="raw")
    assert [tensor.key for tensor in stored_tensors(found)] == ["w"]
    assert same_bits([numbers(found, "v")], [odd])
    (message,) = caplog.messages
    assert message.startswith("v stays digital: magnitudes from")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_the_type_of_a_weight_is_kept(dtype):
    weight = np.array([[0.5, -1, 2, 1.25]], dtype)
    tensor = only(protected(holding(w=weight)))
    bound = decode_bound(tensor, weight, QUIET.span)
    assert tensor.decode().dtype == dtype
    assert_within([tensor.decode()], [weight.astype(np.float64)], [bound])


# ------------------------------------------------------------------------------------------ all or nothing


@pytest.mark.parametrize(
    ("plain", "options", "error", "said"),
    [
        (protected(made("matmul")), {}, ModelError, "protected already.*DecodePass"),
        (made("IR 3"), {"selection": Selection(include=("none",))}, NothingToStore, "no tensor of the model"),
        (holding(w=f32(np.zeros((16, 16)))), {}, NothingToStore, "no tensor of the model"),
        (holding(w=f32([[1e-40]])), {}, NothingToStore, "no tensor of the model"),
        (
            holding(w=f32([[1e-40]]), v=f32([[2e-40]])),
            {"plan": QUIETLY.changed(granularity="model")},
            NothingToStore,
            "can be stored",
        ),
    ],
    ids=["protected", "not included", "zero", "tiny", "tiny model"],
)
def test_a_refusal_leaves_the_model_alone(plain, options, error, said):
    before = serialized(plain)
    with pytest.raises(error, match=said):
        ProtectPass(**{"selection": SMALL, "plan": QUIETLY, **options}).call(plain)
    assert serialized(plain) == before


def test_a_protected_model_is_known_by_its_calls_too():
    found = protected(made("matmul"))
    found.metadata_props.clear()
    with pytest.raises(ModelError, match="run DecodePass on this one first"):
        ProtectPass().call(found)


def test_nothing_to_store_without_any_tensor():
    plain = model("net (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(NothingToStore):
        ProtectPass(plan=Scheme(granularity="model")).call(plain)


# ------------------------------------------------------------------------------------------------ names


def names(found: ir.Model) -> Counter[str]:
    graphs = [graph for path, graph, _ in scopes(found) if not path.startswith(DOMAIN)]
    values = [value for graph in graphs for value in (*graph.inputs, *graph.initializers.values())]
    values += [value for graph in graphs for node in graph for value in node.outputs]
    return Counter(str(value.name) for value in values)


def renamed(plain: ir.Model, **new: str) -> ir.Model:
    values = {v.name: v for v in [*plain.graph.inputs, *plain.graph.initializers.values()]}
    values |= {v.name: v for node in plain.graph for v in node.outputs}
    for old, name in new.items():
        values[old].name = name
    return plain


@pytest.mark.parametrize("name", ["w.level", "w.shape", "onnx_analog.none"])
@pytest.mark.parametrize("old", ["x", "b", "y"], ids=["input", "initializer", "output"])
def test_a_name_that_is_taken_is_left_to_its_owner(name, old):
    plain = renamed(made("gemm"), **{old: name})
    found = protected(plain, strategy="raw", selection=Selection())
    assert set(names(found).values()) == {1}
    given = feeds(plain)[0]
    assert_within(run(found, given), run(plain, given), output_bound(plain, found, given, QUIET.span))


def test_a_name_taken_in_a_body_is_left_to_its_owner():
    plain = made("if that uses an outer weight")
    body = plain.graph[0].attributes["then_branch"].as_graph()
    body[0].outputs[0].name = "w.level"
    assert names(protected(plain))["w.level"] == 1


def test_two_branches_that_own_one_name_have_two_streams():
    found = protected(made("if"))
    tensors = stored_tensors(found)
    assert [tensor.name for tensor in tensors] == ["w", "w"]
    assert [tensor.key for tensor in tensors] == ["y.then_branch/w", "y.else_branch/w"]


@pytest.mark.parametrize("name", ["if", "function with a body"])
def test_no_two_planes_of_a_model_have_one_name(name):
    found = protected(made(name))
    planes = [str(value.name) for tensor in stored_tensors(found) for value in tensor.inputs.values()]
    assert len(planes) == len(set(planes)) == 12


def test_a_name_with_slashes_has_a_key_of_its_own():
    plain = made("if")
    value = ir.Value(name="y.then_branch/w", const_value=ir.tensor(f32(np.eye(16)), name="y.then_branch/w"))
    plain.graph.register_initializer(value)
    plain.graph.outputs.append(value)  # what is not used is not stored
    keys = [tensor.key for tensor in stored_tensors(protected(plain))]
    assert keys == ["y.then_branch/w", "y.then_branch/w#2", "y.else_branch/w"]


@pytest.mark.parametrize("name", ["tied", "tied through transpose"])
def test_a_tied_weight_is_stored_once(name):
    tensor = only(protected(made(name)))
    assert tensor.uses == 2


def test_a_weight_that_is_an_output_keeps_its_name():
    found = protected(made("weight that is an output"))
    assert [value.name for value in found.graph.outputs] == ["y", "w"]
    assert only(found).uses == 2


def test_only_what_is_selected_is_stored():
    found = protected(made("two scales"), selection=Selection(exclude=("^a$",)))
    assert only(found).key == "b"
    assert same_bits([numbers(found, "a")], [numbers(made("two scales"), "a")])


def test_planes_stand_in_the_order_of_the_tensors():
    found = protected(made("lstm through slice and concat"), selection=Selection())
    assert [node.domain for node in found.graph][:4] == [DOMAIN] * 3 + [""]
    assert [tensor.key for tensor in stored_tensors(found)] == ["W", "R0", "R1"]


# ------------------------------------------------------------------------------------------------ options


def test_a_pass_takes_a_scheme_or_a_plan():
    assert ProtectPass() == ProtectPass(plan=Scheme()) == ProtectPass(plan=Plan(default=Scheme()))
    for wrong in ("redundancy", None, {"default": Scheme()}):
        with pytest.raises(OptionError, match=f"a plan is {type(wrong).__name__}; it must be a Plan or a Scheme"):
            ProtectPass(plan=wrong)


def test_a_selection_of_another_type_is_refused():
    wrong: Any = 3
    with pytest.raises(OptionError, match="selection is 3; it must be a Selection"):
        ProtectPass(selection=wrong)


@pytest.mark.parametrize("name", FAMILY)
def test_a_tensor_is_stored_as_its_scheme_says(name):
    scheme = FAMILY[name]
    tensor = only(protected(made("matmul"), scheme))
    assert tensor.scheme == scheme
    assert (tensor.sign is None) == (scheme.sign == "level")
    assert (tensor.class_index is None) == (scheme.classes == 1)
    assert tensor.alpha.shape == tensor.beta.shape == (16 if scheme.granularity == "channel" else 1, scheme.classes)
    assert tensor.level.size == tensor.class_counts[np.array(scheme.cells_of_class) > 0].sum()


def test_nothing_is_said_where_nothing_is_odd(caplog):
    result = ProtectPass(plan=QUIETLY)(made("gemm"))
    assert result.modified
    assert caplog.messages == []


def test_decoding_makes_a_model_that_can_be_protected():
    found = protected(made("function"))
    DecodePass()(found)
    assert only(protected(found)).key == "local.project()/w"


def test_options_may_be_numbers_of_numpy():
    found, same = (made("matmul") for _ in range(2))
    numbers_of = {"cells_small": np.int64(2), "cells_large": np.int32(9), "side_bits_per_cell": np.uint8(2)}
    ProtectPass(plan=Scheme.paper(**numbers_of, channel=QUIET))(found)
    ProtectPass(plan=Scheme.paper(cells_small=2, cells_large=9, channel=QUIET))(same)
    assert serialized(found) == serialized(same)


def test_a_pass_prints_as_one_line():
    assert len(repr(ProtectPass())) < 600
    assert "inputs=" not in repr(ProtectPass())


def test_ir_3_is_no_reason_to_warn(caplog):
    protected = made("IR 3")
    ProtectPass(plan=QUIETLY)(protected)
    assert caplog.messages == []


# ------------------------------------------------------------------------------------------------- large models

PROTECT = """
import sys
from onnx_analog import api
api.protect(sys.argv[2]).save(sys.argv[3], force=True)
"""


def later(plain: ir.Model, monkeypatch, *given: Plan | Scheme, **options) -> ir.Model:
    """Return a protected copy whose planes are computed when they are asked for, as of a large model."""
    with monkeypatch.context() as patch:
        patch.setattr("onnx_analog.passes.protect.AT_ONCE", -1)
        return protected(plain, *given, **options)


@pytest.mark.parametrize("scheme", FAMILY.values(), ids=list(FAMILY))
@pytest.mark.parametrize("name", ["matmul", "conv", "two scales", "function with a body", "sparse"])
def test_planes_of_the_family_that_are_computed_later_are_the_same(name, scheme, monkeypatch):
    plain = made(name)
    PrunePass(sparsity=0.3, selection=SMALL)(plain)
    assert serialized(later(plain, monkeypatch, scheme)) == serialized(protected(plain, scheme))


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(
    "options",
    [
        *(
            {"strategy": strategy, "granularity": granularity}
            for strategy in ("raw", "redundancy")
            for granularity in ("tensor", "model")
        ),
        {"threshold": 0.5},
        {"strategy": "sign"},
    ],
)
def test_planes_that_are_computed_later_are_the_same(name, options, monkeypatch):
    plain = made(name)
    if "granularity" in options:
        PrunePass(sparsity=0.3, selection=SMALL)(plain)
    found = later(plain, monkeypatch, **options)
    assert serialized(found) == serialized(protected(plain, **options))
    for tensor in stored_tensors(found):
        lazy = tensor.inputs["level"].const_value
        assert tensor.in_function or isinstance(lazy, ir.LazyTensor)


def test_planes_that_are_computed_later_are_those_of_one_tensor_at_a_time(monkeypatch):
    read: list[str] = []
    plain = model("""
        net (float[4, 16] x) => (float[4, 16] y) <float[16, 16] a = random, float[16, 16] b = random> {
            h = MatMul(x, a)
            y = MatMul(h, b)
        }""")
    for name, value in plain.graph.initializers.items():
        array = value.const_value.numpy()

        def numbers_of(name=name, array=array) -> ir.Tensor:
            read.append(name)
            return ir.Tensor(array)

        value.const_value = ir.LazyTensor(numbers_of, ir.DataType.FLOAT, ir.Shape(array.shape), name=name)
    found = later(plain, monkeypatch)
    read.clear()
    serialized(found)
    assert read == ["a", "b"]  # of each tensor all planes, from one reading of its weights


def test_what_cannot_be_scaled_is_found_before_anything_is_changed(monkeypatch):
    plain = model("net (float[4, 16] x) => (float[4, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }")
    tiny = plain.graph.initializers["w"]
    tiny.const_value = ir.Tensor(np.full((16, 16), 1e-44, np.float32), name="w")
    before = serialized(plain)
    with pytest.raises(NothingToStore, match="no tensor of the model can be stored"):
        later(plain, monkeypatch, granularity="model")
    assert serialized(plain) == before


@pytest.mark.slow(reason="a model of 4 GB is written, protected and read: 2 min, 8 GB, 10 GB of disk")
def test_four_gigabytes_are_protected_in_eight(tmp_path):
    """What may be taken is four times the largest tensor, of 64 MiB, and 500 MB; files that are mapped come on top."""
    path, out = tmp_path / "large.onnx", tmp_path / "out.onnx"
    write_chain(path, side=4096, layers=64)
    taken = memory(PROTECT, str(path), str(out))
    assert taken["anonymous_mib"] <= 4 * 64 + 500
    assert taken["resident_mib"] <= 8 * 1024
    plain, found = files.load(path), files.load(out)
    stored = stored_tensors(found)
    assert len(stored) == 64
    for tensor in stored[::9]:
        weight = plain.graph.initializers[tensor.key].const_value.numpy()
        largest = max(map(abs, tensor.scheme.channel.span)) / tensor.alpha.min()
        assert (np.abs(tensor.decode() - weight) <= 2.0**-24 * (4 * np.abs(weight) + 5 * largest)).all()
    for file in tmp_path.iterdir():
        file.unlink()


# ---------------------------------------------------------------------------- magnitudes that lie too far apart


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return f32(np.random.default_rng(seed).normal(size=shape))


def with_one(value: float) -> np.ndarray:
    weight = normal(16, 16)
    weight[3, 4] = value
    return weight


APART = {
    "1e10": with_one(1e10),
    "1e38": with_one(-1e38),
    "rows": normal(16, 16) * f32(np.where(np.arange(16) % 2, 1e2, 1e-6))[:, None],
    "columns": normal(16, 16) * f32(np.where(np.arange(16) % 2, 1e2, 1e-6)),
    "double": with_one(1e10).astype(np.float64),
    "bfloat16": with_one(1e10).astype(ml_dtypes.bfloat16),
    "geometric": f32(np.geomspace(1e-40, 1, 16).reshape(4, 4)),
}


@pytest.mark.parametrize("how", [protected, "later"])
@pytest.mark.parametrize("strategy", ["raw", "sign", "mapping", "redundancy"])
@pytest.mark.parametrize("name", APART)
def test_a_tensor_whose_small_weights_would_drown_stays_digital(name, strategy, how, monkeypatch, caplog):
    plain = holding(v=APART[name], w=normal(16, 16))
    options = {"strategy": strategy} | ({} if strategy in ("raw", "sign") else {"large_fraction": 0.1})
    found = protected(plain, **options) if how is protected else later(plain, monkeypatch, **options)
    assert [tensor.key for tensor in stored_tensors(found)] == ["w"]
    assert same_bits([numbers(found, "v")], [APART[name]])
    (message,) = (said for said in caplog.messages if not said.startswith("onnxruntime cannot run"))  # bfloat16
    assert message.startswith("v stays digital: its weights, up to ")
    assert " off by up to " in message
    assert message.endswith(" is allowed")


def test_a_tensor_that_drowns_is_refused_where_there_is_no_other():
    plain = holding(v=APART["1e10"])
    before = serialized(plain)
    with pytest.raises(NothingToStore, match="no tensor of the model can be stored"):
        ProtectPass(plan=QUIETLY, selection=SMALL).call(plain)
    assert serialized(plain) == before


def planes_of(found: ir.Model) -> dict[str, dict[str, str]]:
    return {tensor.key: tensor.digests() for tensor in stored_tensors(found)}


LEAVES = {  # one of the tensors v, which leaves, and why
    "itself": (APART["1e10"], "its weights, up to 1e+10, lie too far apart"),
    "huge": (normal(16, 16, seed=9) * np.float32(1e9), "one scale for all tensors, up to"),
    "tiny": (normal(16, 16, seed=9) * np.float32(1e-9), "one scale for all tensors, up to"),
    "ends": (f32([[-3e38, 3e38]]), "magnitudes from"),
}


@pytest.mark.parametrize("how", [protected, "later"])
@pytest.mark.parametrize("strategy", ["raw", "redundancy"])
@pytest.mark.parametrize("name", LEAVES)
def test_what_has_no_place_in_the_group_leaves_and_the_others_share_theirs(name, strategy, how, monkeypatch, caplog):
    others = {f"w{place}": normal(16, 16, seed=place) for place in range(3)}
    plain = holding(w0=others["w0"], v=LEAVES[name][0], w1=others["w1"], w2=others["w2"])
    options = {"strategy": strategy, "granularity": "model"}
    found = protected(plain, **options) if how is protected else later(plain, monkeypatch, **options)
    assert planes_of(found) == planes_of(protected(holding(**others), **options))
    assert same_bits([numbers(found, "v")], [LEAVES[name][0]])
    (message,) = caplog.messages
    assert message.startswith(f"v stays digital: {LEAVES[name][1]}")


def test_as_few_leave_the_group_as_will_do(caplog):
    sizes = {"a": 1e-8, "b": 1, "c": 2, "d": 1e8, "e": 3, "f": 1e-7, "g": 1}
    plain = holding(**{name: normal(16, 16, seed=3) * np.float32(size) for name, size in sizes.items()})
    found = protected(plain, granularity="model")
    assert [tensor.key for tensor in stored_tensors(found)] == ["b", "c", "e", "g"]
    assert sorted(message[0] for message in caplog.messages) == ["a", "d", "f"]


def test_of_two_that_cannot_share_a_scale_the_larger_leaves(caplog):
    found = protected(holding(a=normal(8, 8), b=normal(8, 8) * np.float32(1e9)), granularity="model")
    assert only(found).key == "a"
    assert caplog.messages[0].startswith("b stays digital: one scale for all tensors, up to 2")


@pytest.mark.parametrize("order", [("small", "large"), ("large", "small")])
def test_of_two_exactly_as_far_from_the_middle_the_larger_leaves(order, caplog):
    unit = normal(8, 8)
    unit /= np.abs(unit).max()
    weights = {"small": unit, "large": unit * np.float32(2**30)}  # log2 of the largest: 0 and 30, so the middle is 15
    found = protected(holding(**{name: weights[name] for name in order}), granularity="model")
    assert only(found).key == "small"
    assert caplog.messages[0].startswith("large stays digital")


@hypothesis.given(
    seed=st.integers(0, 999),
    scales=st.lists(st.sampled_from([1e-30, 1e-7, 1e-3, 1.0, 1e3, 1e9]), min_size=1, max_size=4),
    strategy=st.sampled_from(["raw", "sign", "mapping", "redundancy"]),
    granularity=st.sampled_from(["tensor", "model"]),
    large_fraction=st.sampled_from([0.0, 0.05, 1.0]),
)
def test_what_is_stored_is_decoded_within_what_is_allowed(seed, scales, strategy, granularity, large_fraction):
    """By onnxruntime, as by numpy: the product with the unit matrix is the weight."""
    rng = np.random.default_rng(seed)
    weights = {f"w{k}": f32(rng.normal(size=(6, 7)) * rng.choice(scales, size=(6, 1))) for k in range(3)}
    plain = holding(**weights)
    for value in plain.graph.inputs:
        value.shape = ir.Shape([6, 6])
    for value in plain.graph.outputs:
        value.shape = ir.Shape([6, 7])
    try:
        share = {} if strategy in ("raw", "sign") else {"large_fraction": large_fraction}
        found = protected(plain, strategy=strategy, granularity=granularity, **share)
    except NothingToStore:
        return
    outputs = run(found, {f"x_{name}": np.eye(6, dtype=np.float32) for name in weights})
    for (name, weight), output in zip(weights.items(), outputs, strict=True):
        assert deviation(weight, output).share <= 1, name
    for tensor in stored_tensors(found):
        assert same_bits([tensor.decode()], [outputs[int(tensor.key[1:])]])


# ------------------------------------------------------------------------------- names around and within bodies

BODY = """
    {before} y = If (c) <
        then_branch = yes () => (float[4, 16] t) <float[16, 16] k = random> {{ t = MatMul(x, k) }},
        else_branch = no () => (float[4, 16] e) {{ e = Identity(x) }}
    > {after}"""
SHADOWED = {
    "an outer weight": ("<float[16, 16] k = random>", "o = MatMul(x, k)", "", ""),
    "an outer bias": ("<float[16] k = random>", "o = Mul(x, k)", "", ""),
    "an outer output": ("", "k = Relu(x) o = Identity(k)", "", ""),
    "a later output": ("", "", "k = Relu(x) o = Identity(k)", ""),
    "an input": ("", "o = Relu(x)", "", ", float[2] k"),
}


@pytest.mark.parametrize("strategy", ["raw", "redundancy"])
@pytest.mark.parametrize("name", SHADOWED)
def test_a_weight_in_a_body_may_have_the_name_of(name, strategy):
    inits, before, after, inputs = SHADOWED[name]
    plain = model(f"""
        net (float[4, 16] x, bool c{inputs}) => (float[4, 16] y, float[4, 16] o) {inits} {{
            {BODY.format(before=before, after=after)}
        }}""")
    found = protected(plain, strategy=strategy)
    assert "y.then_branch/k" in [tensor.key for tensor in stored_tensors(found)]
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    decoded = found.clone()
    DecodePass()(decoded)
    assert [weight.key for weight in all_tensors(decoded)] == [weight.key for weight in all_tensors(plain)]
    for given in feeds(plain):
        bound = output_bound(plain, found, given, QUIET.span)
        assert_within(run(found, given), run(plain, given), bound)
        assert same_bits(run(decoded, given), run(found, given))


NESTED = """
        y = If (c) <
            then_branch = outer () => (float[4, 16] t) <float[16, 16] k = random> {
                s = MatMul(x, k)
                t = If (c) <
                    then_branch = inner () => (float[4, 16] a) <float[16, 16] k = random> { a = MatMul(s, k) },
                    else_branch = other () => (float[4, 16] b) { b = Identity(s) }
                >
            },
            else_branch = last () => (float[16, 16] k) <float[16, 16] k = random> { }
        >"""


def test_names_are_free_in_bodies_of_bodies_too():
    plain = model(f"""
        net (float[4, 16] x, bool c) => (float[M, 16] y, float[4, 16] o) <float[16, 16] k = random> {{
            {NESTED} o = MatMul(x, k)
        }}""")
    found = protected(plain)
    keys = [tensor.key for tensor in stored_tensors(found)]
    assert keys == ["k", "y.then_branch/k", "y.then_branch/t.then_branch/k", "y.else_branch/k"]
    assert set(names(found).values()) == {1}
    for given in feeds(plain):
        for one, other in zip(run(found, given), run(plain, given), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_names_are_free_in_the_bodies_of_functions():
    plain = model(f"""
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        net (float[4, 16] x, bool c) => (float[M, 16] y, float[4, 16] o) {{ y, o = local.f(x, c) }}
        <domain: "local", opset_import: ["" : 18]>
        f (x, c) => (y, o) {{
            k = Constant <value = float[16, 16] random> ()
            {NESTED} o = MatMul(x, k)
        }}""")
    found = protected(plain)
    assert len(stored_tensors(found)) == 4
    for given in feeds(plain):
        for one, other in zip(run(found, given), run(plain, given), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


# ----------------------------------------------------------------------------------------- what else is kept


def documented() -> onnx.ModelProto:
    plain = made_proto("gemm")
    (w,) = (tensor for tensor in plain.graph.initializer if tensor.name == "w")
    w.doc_string = "of a tensor"
    w.metadata_props.add(key="of", value="tensor")
    note = plain.graph.quantization_annotation.add(tensor_name="w")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")
    plain.graph.node[0].doc_string = "of a node"
    plain.graph.node[0].metadata_props.add(key="of", value="node")
    return plain


def test_documentation_and_annotations_of_a_weight_are_kept_and_givenback():
    found = protected(files.load(documented()), selection=Selection())
    call = found.graph[0]
    assert (call.doc_string, call.metadata_props) == ("of a tensor", {"of": "tensor"})
    assert ir.to_proto(found).graph.quantization_annotation == documented().graph.quantization_annotation
    assert (found.graph[1].doc_string, found.graph[1].metadata_props) == ("of a node", {"of": "node"})
    DecodePass()(found)
    plain = ir.to_proto(found)
    (w,) = (tensor for tensor in plain.graph.initializer if tensor.name == "w")
    assert (w.doc_string, [(e.key, e.value) for e in w.metadata_props]) == ("of a tensor", [("of", "tensor")])
    assert plain.graph.quantization_annotation == documented().graph.quantization_annotation


def training(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    info = model.training_info.add()
    info.algorithm.CopyFrom(onnx.parser.parse_graph(f"step () => (float[16, 32] next) {{ next = Neg({name}) }}"))
    info.update_binding.add(key=name, value="next")
    return model


def test_training_information_is_kept_where_it_holds(tmp_path, caplog):
    plain = training(made_proto("gemm"), "b")
    loaded = files.load(plain)
    ProtectPass(plan=QUIETLY)(loaded)
    files.write_model(loaded, tmp_path / "a.onnx")
    assert caplog.messages == []
    assert onnx.load(tmp_path / "a.onnx").training_info == plain.training_info


def test_training_information_about_a_stored_weight_is_dropped_with_a_warning(tmp_path, caplog):
    loaded = files.load(training(made_proto("gemm"), "w"))
    ProtectPass(plan=QUIETLY)(loaded)
    files.write_model(loaded, tmp_path / "a.onnx")
    assert caplog.messages == ["the model's training information is dropped: it refers to w, which is stored"]
    assert not onnx.load(tmp_path / "a.onnx").training_info


def test_a_model_with_the_domain_of_the_decode_is_refused():
    plain = made("function")
    (function,) = plain.functions.values()
    for node in plain.graph:
        node.domain = DOMAIN
    del plain.functions[function.identifier()]
    function.domain = DOMAIN
    plain.functions[function.identifier()] = function
    before = serialized(plain)
    with pytest.raises(ModelError, match="operators of the domain 'onnx_analog'"):
        ProtectPass(selection=SMALL).call(plain)
    assert serialized(plain) == before


# ------------------------------------------------------------------------------------------ a scheme for each tensor

THREE = """
    net (float[4, 16] x) => (float[4, 16] y, float[4, 16] z, float[4, 16] v)
    <float[16, 16] a = random, float[16, 16] b = random, float[16, 16] c = random> {
        y = MatMul(x, a) z = MatMul(x, b) v = MatMul(x, c)
    }"""
PLANS = {
    "different": Plan(default=QUIETLY, tensors={"a": FAMILY["sixteen points"], "b": FAMILY["three classes"]}),
    "one digital": Plan(default=QUIETLY, tensors={"b": None}),
    "all but one digital": Plan(default=None, tensors={"b": FAMILY["redundancy of channels"]}),
    "patterns": Plan(
        default=None, patterns={"a*": FAMILY["signed bounds"], "*": FAMILY["int8"]}, tensors={"c": QUIETLY}
    ),
    "two codebooks": Plan(
        default=FAMILY["mapping of the model"], tensors={"b": FAMILY["five classes of the model"], "a": None}
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_each_tensor_is_stored_with_the_scheme_of_its_plan(name):
    plan, plain = PLANS[name], model(THREE)
    found = protected(plain, plan)
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    stored = {tensor.key: tensor for tensor in stored_tensors(found)}
    assert {key: tensor.scheme for key, tensor in stored.items()} == {
        key: scheme for key in "abc" if (scheme := plan.scheme_of(key)) is not None
    }
    given = feeds(plain)[0]
    outputs = run(found, given)
    for key, output, exact in zip("abc", outputs, run(plain, given), strict=True):
        if key in stored:
            decoded = with_floats(plain, lambda at, array, key=key: stored[at].decode() if at == key else array)
            assert same_bits([output], [run(decoded, given)["abc".index(key)]])
        else:
            assert same_bits([output], [exact])
            assert same_bits([numbers(found, key)], [numbers(plain, key)])


def test_a_plan_stores_each_tensor_as_it_is_stored_alone():
    plain, plan = model(THREE), PLANS["different"]
    for tensor in stored_tensors(protected(plain, plan)):
        selection = Selection(include=(f"^{tensor.key}$",), min_size=1)
        alone = protected(plain, plan.scheme_of(tensor.key), selection=selection)
        assert only(alone).digests() == tensor.digests()
        assert same_bits(planes(only(alone)), planes(tensor))


def test_only_tensors_of_one_scheme_share_a_codebook():
    plain = model(THREE)
    found = {tensor.key: tensor for tensor in stored_tensors(protected(plain, PLANS["two codebooks"]))}
    assert found["b"].alpha.shape == (1, 5)
    alone = protected(plain, FAMILY["mapping of the model"], selection=Selection(include=("^c$",), min_size=1))
    assert same_bits(planes(only(alone)), planes(found["c"]))


@pytest.mark.parametrize(
    ("key", "remedy"), [("W.weight", "`inspect` lists its tensors"), ("cc", "did you mean 'c'?")], ids=["none", "alike"]
)
def test_a_key_of_a_plan_that_the_model_lacks_is_refused(key, remedy):
    plan = Plan(default=QUIETLY, tensors={"a": QUIETLY, key: None})
    with pytest.raises(OptionError, match=rf"the plan names '{key}', which .* does not have: {re.escape(remedy)}"):
        protected(model(THREE), plan)


def test_patterns_and_tensors_of_the_model_that_are_not_selected_may_be_named(caplog):
    plan = Plan(default=QUIETLY, tensors={"a": QUIETLY, "b": None}, patterns={"fc.*": QUIETLY, "*": QUIETLY})
    protected(model(THREE), plan, selection=Selection(exclude=("^a$",), min_size=1))
    assert caplog.messages == [
        "the plan names a, which is not among the tensors that are stored",
        "the plan's pattern fc.* matches no selected tensor",
    ]


def test_a_plan_that_leaves_all_tensors_digital_stores_nothing():
    with pytest.raises(NothingToStore, match="nothing to store"):
        protected(model(THREE), Plan(default=None))


# ------------------------------------------------------------------------------------------------- output channels

AXES = {
    "conv": {"w": 0},
    "conv transpose": {"w": 1},
    "gemm": {"w": 1},
    "gemm, transposed": {"w": 0},
    "matmul": {"w": 1},
    "lstm": {"W": 1, "R": 1},
    "gather": {"w": 0},
}


@pytest.mark.parametrize("name", AXES)
def test_each_output_channel_has_scales_of_its_own(name):
    """Channels whose scales are a million apart are stored with one scale for each, and not with one for all."""
    plain = made(name)
    for weight in find(plain).weights:
        axis, array = AXES[name][weight.key], weight.array()
        sides = [side if number == axis else 1 for number, side in enumerate(array.shape)]
        weight.replace(array * f32(np.where(np.arange(array.shape[axis]) % 2, 1e2, 1e-4)).reshape(sides))
    scheme = Scheme(classes=1, cells=(1,), granularity="channel", channel=QUIET)
    found = protected(plain, scheme)
    for tensor in stored_tensors(found):
        axis = AXES[name][tensor.key]
        assert len(tensor.alpha) == tensor.shape[axis]
        weight = numbers(plain, tensor.key)
        widths = np.ptp(np.abs(np.moveaxis(weight, axis, 0)).reshape(tensor.shape[axis], -1), axis=1)
        np.testing.assert_allclose(tensor.alpha[:, 0], (QUIET.high - QUIET.low) / widths, rtol=1e-5)
        assert_within([tensor.decode()], [weight], [decode_bound(tensor, weight, QUIET.span)])
    for given in feeds(plain):
        if ZOO[name].linear:
            assert_within(run(found, given), run(plain, given), output_bound(plain, found, given, QUIET.span))
        decoded = found.clone()
        DecodePass()(decoded)
        assert same_bits(run(found, given), run(decoded, given))
    with pytest.raises(NothingToStore):
        protected(plain, scheme.changed(granularity="tensor"))


@pytest.mark.parametrize("scheme", [QUIETLY, FAMILY["int4 of channels"], FAMILY["mixed cells of channels"]], ids=str)
def test_a_channel_that_training_left_dead_is_stored_beside_the_others(scheme):
    weight = normal(8, 16)
    weight[:, 3] *= f32(1e-43)
    weight[:, 5] = 0
    plain = holding(w=weight)
    found = protected(plain, scheme.changed(granularity="channel"))
    tensor = only(found)
    assert tensor.alpha.shape[0] == 16
    assert not tensor.decode()[:, 5].any()
    alive = np.setdiff1d(np.arange(16), [3, 5])
    without = only(protected(holding(w=np.ascontiguousarray(weight[:, alive])), scheme.changed(granularity="channel")))
    assert same_bits([tensor.alpha[alive], tensor.decode()[:, alive]], [without.alpha, without.decode()])
    if scheme.analog == "all":
        reach = max(map(abs, QUIET.span)) / tensor.alpha[3].min()
        assert np.abs(tensor.decode()[:, 3] - weight[:, 3]).max() <= 5.1 * 2.0**-24 * reach
    (given,) = feeds(plain)
    decoded = found.clone()
    DecodePass()(decoded)
    assert same_bits(run(found, given), run(decoded, given))
