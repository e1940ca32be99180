"""A damaged model is refused in one line, or it decodes to the same weights and is read with the same noise."""

from __future__ import annotations

import json
import time
import tracemalloc
from dataclasses import replace
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as others
import onnxruntime as ort
import pytest
from hypothesis import given, settings

import onnx_analog as oa
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import LONGEST, AnalogError, ManifestError, ModelError, OptionError
from onnx_analog.graph import files, protected
from onnx_analog.graph.accounting import account
from onnx_analog.graph.decoder import function_of
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import (
    COMMAND_KEY,
    FORMAT_KEY,
    KEYS,
    MANIFEST_KEY,
    READ_DIGESTS_KEY,
    READBACK_KEY,
    SCHEMES_KEY,
    SOURCE_KEY,
    stored_tensors,
)
from onnx_analog.passes import DecodePass, ManifestPass, ReadbackPass
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network
from tests.models import (
    FAMILY,
    QUIET,
    SMALL,
    ZOO,
    f32,
    feeds,
    holding,
    made,
    model,
    numbers,
    run,
    same_bits,
    serialized,
)
from tests.models import protected as protect

KINDS: dict[str, Plan | Scheme] = {
    **{
        name: FAMILY[name]
        for name in (
            "redundancy",
            "raw",
            "mapping of the model",
            "redundancy of channels",
            "four classes, one without cells",
            "mixed cells of channels",
            "signed bounds",
            "sixteen points",
            "int4 of channels",
            "analog side",
        )
    },
    "two schemes": Plan(
        default=FAMILY["redundancy"], tensors={"b": FAMILY["redundancy"].changed(cells=(2, 30), shares=(0.2,))}
    ),
    "read": FAMILY["redundancy of channels"],
    "read, with its side information": FAMILY["analog side"],
}


MUTATED = (
    "redundancy",
    "raw",
    "mixed cells of channels",
    "sixteen points",
    "analog side",
    "two schemes",
    "read",
    "read, with its side information",
)


@cache
def saved(kind: str) -> bytes:
    """Return a model of two tensors, one of them pruned, with 13 and 35 weights: no plane is of whole bytes."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((13, 1), (5, 7)))
    b[np.abs(b) < 0.5] = 0
    plain = ir.to_proto(holding(a=a, b=b))
    found = oa.protect(plain, KINDS[kind], command="onnx-analog protect", selection=SMALL).model
    found.metadata_props[SOURCE_KEY] = "0" * 64
    del found.metadata_props[MANIFEST_KEY]
    ManifestPass()(found)
    if kind.startswith("read"):
        found = ReadbackPass(seed=5)(found).model
    return serialized(found)


def calls(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.domain == DOMAIN]


def decoded(proto: onnx.ModelProto) -> dict[str, Any]:
    """Return the weights, by storage key, that onnxruntime alone decodes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes = {next(a.s.decode() for a in node.attribute if a.name == "key"): node for node in calls(copy)}
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in nodes.values())
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {value.name: np.zeros(value.shape, np.float32) for value in session.get_inputs()}
    return dict(zip(nodes, session.run(None, given), strict=True))


def summary(found: ir.Model) -> Any:
    """Return what each tensor decodes to, and how it is read."""
    return {t.key: (t.dtype, t.shape, t.decode().tobytes(), t.scheme) for t in open_protected(found).tensors}


@cache
def summary_of_whole(kind: str) -> Any:
    return summary(files.load(onnx.ModelProto.FromString(saved(kind))))


def check_law(kind: str, damaged: onnx.ModelProto) -> bool:
    """Return whether `damaged` is refused; fail unless it is, or means what the whole model means, in every runtime."""
    found, refusal = None, None
    try:
        found = summary(files.load(damaged))
    except AnalogError as error:
        refusal = str(error)
    if refusal is not None:
        assert 10 < len(refusal) <= LONGEST
        assert refusal.isprintable()
        return True
    assert found == summary_of_whole(kind), "damage went unseen"
    assert {key: weight.tobytes() for key, weight in decoded(damaged).items()} == {
        key: bits for key, (_, _, bits, _) in found.items()
    }, "onnxruntime decodes something else"
    return False


# -------------------------------------------------------------------------------------------------- mutations

JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 2, 3, -1, 8, 9, 20, 10**12, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "x",
     "bit", "level", "model", "tensor", "channel", "share", "lloyd", "FLOAT", "FLOAT16", [], {}, [1], [1, 20], [[0, 1]],
     {"a": 1}, {"family": "pcm"}]
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, name or index) of JSON."""
    names = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [pair for name in names for pair in [(value, name), *places(value[name])]]


def in_json(draw: Any, proto: onnx.ModelProto) -> None:
    """Replace, remove or repeat something in the JSON of an entry."""
    entry = draw(st.sampled_from([e for e in proto.metadata_props if e.value[:1] in "{["]))
    body = json.loads(entry.value)
    container, name = draw(st.sampled_from(places(body)))
    action = draw(st.sampled_from(["replace", "shift", "remove", "repeat"]))
    if action == "shift" and isinstance(container[name], int | float):
        container[name] += draw(st.sampled_from([1, -1, 0.5, 1e-9, 8]))
    elif action == "remove":
        del container[name]
    elif action == "repeat" and isinstance(container, list):
        container.append(container[name])
    else:
        container[name] = draw(JUNK)
    entry.value = json.dumps(body)


def in_metadata(draw: Any, proto: onnx.ModelProto) -> None:
    """Drop, cut or replace an entry, or put one there."""
    entry = draw(st.sampled_from(list(proto.metadata_props)))
    action = draw(st.sampled_from(["drop", "cut", "replace", "rename"]))
    if action == "drop":
        proto.metadata_props.remove(entry)
    elif action == "cut":
        entry.value = entry.value[: draw(st.integers(0, len(entry.value)))]
    elif action == "replace":
        entry.value = draw(st.sampled_from(["", "{}", "[]", "1", "{", "[" * 99_999, "null", '{"a":1,"a":2}', "NaN"]))
    else:
        entry.key = draw(st.sampled_from([*KEYS, READBACK_KEY, "other"]))


def in_bytes(draw: Any, proto: onnx.ModelProto) -> None:
    """Change bits of a plane, or its length; of shape, α and β too."""
    tensor = draw(st.sampled_from([t for t in proto.graph.initializer if len(t.raw_data)]))
    data = bytearray(tensor.raw_data)
    place = draw(st.integers(0, len(data) - 1))
    action = draw(st.sampled_from(["flip", "flip", "set", "shorter", "longer", "reverse"]))
    if action == "flip":
        data[place] ^= 1 << draw(st.integers(0, 7))
    elif action == "set":
        data[place] = draw(st.sampled_from([0, 255, 127, 128]))
    elif action == "reverse":
        data.reverse()
    else:
        size = len(data) // tensor.dims[0]
        tensor.dims[0] += draw(st.integers(1, 4)) * (1 if action == "longer" else -1)
        data = (data + bytes(99))[: max(0, tensor.dims[0] * size)]
        tensor.dims[0] = max(0, tensor.dims[0])
    tensor.raw_data = bytes(data)


OPERATORS = sorted({node.op_type for kind in KINDS for node in calls(onnx.ModelProto.FromString(saved(kind)))})


def in_call(draw: Any, proto: onnx.ModelProto) -> None:
    """Swap, drop or add inputs of calls; change or drop attributes; call twice; name other functions or schemes."""
    nodes = calls(proto)
    node = draw(st.sampled_from(nodes))
    one, two = draw(st.integers(0, len(node.input) - 1)), draw(st.integers(0, len(node.input) - 1))
    attribute = draw(st.sampled_from(list(node.attribute)))
    actions = ["swap", "other", "drop", "empty", "more", "copy", "op", "key", "dtype", "scheme", "lose"]
    action = draw(st.sampled_from(actions))
    if action == "swap":
        node.input[one], node.input[two] = node.input[two], node.input[one]
    elif action == "other":
        node.input[one] = draw(st.sampled_from([t.name for t in proto.graph.initializer] + ["y", "x"]))
    elif action == "drop":
        del node.input[one]
    elif action == "empty":
        node.input[one] = ""
    elif action == "more":
        node.input.append(node.input[two])
    elif action == "copy":
        copied = proto.graph.node.add()
        copied.CopyFrom(node)
        copied.output[0] = "copied"
        if draw(st.booleans()):
            copied.input[one] = node.input[two]
    elif action == "op":
        node.op_type = draw(st.sampled_from([*OPERATORS, "Decode", "Other", f"{node.op_type}Aligned"]))
    elif action == "key":
        next(a for a in node.attribute if a.name == "key").s = draw(st.sampled_from([b"", b"a", b"b", b"c"]))
    elif action == "dtype":
        next(a for a in node.attribute if a.name == "dtype").i = draw(st.sampled_from([0, 1, 7, 10, 11, 16, 99, -1]))
    elif action == "scheme":
        next(a for a in node.attribute if a.name == "scheme").i = draw(st.sampled_from([0, 1, 2, -1, 2**62]))
    else:
        node.attribute.remove(attribute)


def between_planes(draw: Any, proto: onnx.ModelProto) -> None:
    """Swap the contents of two planes."""
    one, two = (draw(st.sampled_from(list(proto.graph.initializer))) for _ in range(2))
    kept = onnx.TensorProto()
    kept.CopyFrom(one)
    names = one.name, two.name
    one.CopyFrom(two)
    two.CopyFrom(kept)
    one.name, two.name = names


MUTATIONS = (in_json, in_metadata, in_bytes, in_call, between_planes)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
@pytest.mark.parametrize("kind", MUTATED)
@settings(max_examples=10)
@given(data=st.data())
def test_damage_is_refused_or_of_no_consequence(kind, mutation, data):
    proto = onnx.ModelProto.FromString(saved(kind))
    mutation(data.draw, proto)
    check_law(kind, proto)


def plane(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    return found


def check_refused(model: ir.Model) -> None:
    """Fail unless a model that was loaded is refused when it is opened, in one line."""
    with pytest.raises(AnalogError) as refusal:
        open_protected(model)
    assert 10 < len(str(refusal.value)) <= LONGEST
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["level", "mask", "sign", "class", "alpha", "beta", "shape", "stride", "analog"])
def test_every_byte_of_every_plane_is_guarded(kind, name):
    """Every 13th byte of long planes, and the last: each byte of a number is among them, and a digest covers all."""
    model = files.load(onnx.ModelProto.FromString(saved(kind)))
    value = model.graph.initializers.get(f"b.{name}")
    if value is None:
        return
    whole = value.const_value
    before = whole.tobytes()
    for place in {*range(0, len(before), 1 if len(before) < 16 else 13), len(before) - 1}:
        changed = bytearray(before)
        changed[place] ^= 1
        array = np.frombuffer(changed, whole.dtype.numpy()).reshape(whole.shape.numpy())
        value.const_value = ir.Tensor(array, dtype=whole.dtype, name=value.name)
        check_refused(model)
    value.const_value = whole
    assert summary(model) == summary_of_whole(kind)


def test_what_is_whole_is_seen_as_such():
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_refused(files.load(onnx.ModelProto.FromString(saved("redundancy"))))


def test_the_law_itself_rejects_a_checker_that_is_too_weak(monkeypatch):
    proto = onnx.ModelProto.FromString(saved("redundancy"))
    data = bytearray(plane(proto, "b.level").raw_data)
    data[1] ^= 128  # of the first level
    plane(proto, "b.level").raw_data = bytes(data)
    assert check_law("redundancy", proto)
    monkeypatch.setattr(protected, "_check_digests", lambda found: None)
    with pytest.raises(AssertionError, match="damage went unseen"):
        check_law("redundancy", proto)


def test_the_law_itself_rejects_other_noise(monkeypatch):
    proto = onnx.ModelProto.FromString(saved("redundancy"))
    entry = next(e for e in proto.metadata_props if e.key == SCHEMES_KEY)
    assert '"cells":[1,20]' in entry.value
    entry.value = entry.value.replace('"cells":[1,20]', '"cells":[1,21]')
    assert check_law("redundancy", proto)
    monkeypatch.setattr(protected, "_check_digests", lambda found: None)
    with pytest.raises(AssertionError, match="damage went unseen"):
        check_law("redundancy", proto)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_not_refused(kind):
    assert not check_law(kind, onnx.ModelProto.FromString(saved(kind)))


# ------------------------------------------------------------------------------------- each check, without a manifest


def bare(kind: str = "redundancy") -> onnx.ModelProto:
    """Return a model without its manifest: what is refused is refused by the planes alone."""
    proto: onnx.ModelProto = onnx.ModelProto.FromString(saved(kind))
    proto.metadata_props.remove(next(e for e in proto.metadata_props if e.key == MANIFEST_KEY))
    return proto


def put(proto: onnx.ModelProto, name: str, array: Any) -> onnx.ModelProto:
    plane(proto, name).CopyFrom(onnx.numpy_helper.from_array(np.asarray(array), name))
    return proto


def of(name: str) -> Any:
    return onnx.numpy_helper.to_array(plane(bare(), name)).copy()


def changed(name: str, place: int, value: Any) -> Any:
    array = of(name)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("b.level", of("b.level").astype(np.float64), "its level is DOUBLE of 1 axes, and not FLOAT of 1"),
        ("b.level", of("b.level")[None], "its level is FLOAT of 2 axes"),
        ("b.level", f32([]), "it holds 0 levels for 20 weights with cells"),
        ("b.level", of("b.level")[1:], "it holds 19 levels for 20 weights with cells"),
        ("b.level", changed("b.level", 3, np.nan), "its levels run from nan to nan, and must be finite"),
        ("b.level", changed("b.level", 3, np.inf), "its levels run from .* to inf"),
        ("b.level", changed("b.level", 3, 0.7501), "outside the -0.65 to 0.75 of its channel"),
        ("b.level", changed("b.level", 3, -0.6501), "outside the -0.65 to 0.75 of its channel"),
        ("b.alpha", changed("b.alpha", 0, 0), "its alpha is 0, "),
        ("b.alpha", changed("b.alpha", 1, -1), "where positive normal numbers must be"),
        ("b.alpha", changed("b.alpha", 1, np.nan), "its alpha is .*, nan"),
        ("b.alpha", changed("b.alpha", 1, np.inf), "its alpha is .*, inf"),
        ("b.alpha", changed("b.alpha", 1, 1e-40), "its alpha"),
        ("b.alpha", of("b.alpha")[:1], "its alpha has 1 values for 2 classes"),
        ("b.beta", changed("b.beta", 0, np.nan), "its beta is nan"),
        ("b.beta", changed("b.beta", 0, -np.inf), "its beta is -inf"),
        ("b.beta", of("b.beta")[:1], "its beta has 1 values for 2 classes"),
        ("b.shape", np.array([5, -7]), r"its shape is \(5, -7\), and no side may be negative"),
        ("b.shape", np.array([5, 9]), "its mask has 5 bytes for 45 bits"),
        ("b.shape", np.array([4_000, 6_000, 200]), "its mask has 5 bytes for 4,800,000,000 bits"),
        ("b.shape", np.array([2**62, 4, 35]), "its mask has 5 bytes for"),  # in int64 the product is 0
        ("b.shape", np.array([2**32, 2**32, 1]), "its mask has 5 bytes for"),
        ("b.shape", np.ones(65, np.int64), "its shape has 65 axes, more than 64"),
        ("b.shape", np.array([5, 7], np.int32), "its shape is INT32 of 1 axes, and not INT64"),
        ("a.shape", np.array([13, 2]), "its sign has 2 bytes for 26 bits"),
        ("b.mask", of("b.mask")[:-1], "its mask has 4 bytes for 35 bits"),
        ("b.mask", np.append(of("b.mask"), np.uint8(0)), "its mask has 6 bytes for 35 bits"),
        ("b.mask", changed("b.mask", -1, 8 | of("b.mask")[-1]), "its mask has bits set beyond the last of 35"),
        ("b.mask", changed("b.mask", 0, of("b.mask")[0] ^ 1), "it holds 20 levels for|bits set beyond the last"),
        ("b.mask", 0 * of("b.mask"), "it stores none of its 35 weights"),
        ("b.sign", of("b.sign")[:-1], "its sign has"),
        ("b.sign", of("b.sign")[:0], "its sign has 0 bytes"),
        ("b.class", np.append(of("b.class"), np.uint8(0)), "its class has"),
        ("a.class", changed("a.class", -1, 128), "its class has bits set beyond the last of 13"),
        ("a.sign", changed("a.sign", -1, 32), "its sign has bits set beyond the last of 13"),
    ],
)  # fmt: skip
def test_a_plane_that_cannot_be_is_named(name, array, what):
    with pytest.raises(ModelError, match=f"^tensor '{name[0]}': .*({what}).*Protect the original again$"):
        # Not through a file: onnxruntime refuses some of these when they are loaded.
        open_protected(ir.from_proto(put(bare(), name, array)))


def test_weights_beyond_their_type_are_refused():
    found = protect("float16")
    stored_tensors(found)[0].inputs["alpha"].const_value = ir.tensor(f32([1e-6, 1]))
    with pytest.raises(ModelError, match="its weights are beyond the range of FLOAT16"):
        open_protected(found)


GROUPED = "mixed cells of channels"
POINTS = "four classes, one without cells"


def of_kind(kind: str, name: str) -> Any:
    return onnx.numpy_helper.to_array(plane(bare(kind), name)).copy()


@pytest.mark.parametrize(
    ("kind", "name", "array", "what"),
    [
        (GROUPED, "b.stride", np.array([0]), r"its 7 groups do not fit its shape, \(5, 7\)"),
        (GROUPED, "b.stride", np.array([-1]), "its 7 groups do not fit"),
        (GROUPED, "b.stride", np.array([2]), "its 7 groups do not fit"),
        (GROUPED, "b.stride", np.array([5]), "its 7 groups do not fit"),  # 35 is a multiple, but of no axis of 7
        (GROUPED, "b.stride", np.array([2**62]), "its 7 groups do not fit"),
        (GROUPED, "b.stride", np.array([1, 1]), "its 7 groups do not fit"),
        (GROUPED, "b.stride", np.array([1], np.int32), "its stride is INT32"),
        (GROUPED, "b.alpha", f32([[1, 1, 1]] * 5), "its beta has 21 values for 3 classes in 5 groups"),
        (GROUPED, "b.alpha", f32([[1] * 7] * 3), "its alpha has 21 values for 3 classes in 7 groups"),
        (GROUPED, "b.alpha", np.ones(21, np.float32), "its alpha is FLOAT of 1 axes, and not FLOAT of 2"),
        (GROUPED, "b.alpha", np.ones((0, 3), np.float32), "its beta has 21 values for 3 classes in 0 groups"),
        (GROUPED, "b.beta", np.full((7, 3), np.nan, np.float32), "its beta is nan, .*, ..., where finite"),
        (GROUPED, "b.analog", np.array([1, 1, 1], np.uint8), "its plane of classes that have cells is 1, 1, 1, and"),
        (GROUPED, "b.analog", np.array([0, 1], np.uint8), "its plane of classes that have cells"),
        (GROUPED, "b.class", 0 * of_kind(GROUPED, "b.class") + 255, "a weight is of class 3, of 3 classes"),
        (GROUPED, "b.class", 0 * of_kind(GROUPED, "b.class"), r"it holds \d+ levels for 0 weights with cells"),
        (POINTS, "b.level", of_kind(POINTS, "b.level")[1:], r"it holds \d+ levels for \d+ weights with cells"),
        (POINTS, "b.level", np.append(of_kind(POINTS, "b.level"), f32([0])), "levels for"),
        (POINTS, "b.alpha", np.ones(3, np.float32), "its alpha has 3 values for 4 classes"),
        ("sixteen points", "b.class", of_kind("sixteen points", "b.class")[:-1], "its class has 9 bytes for 80 bits"),
        ("sixteen points", "b.beta", np.full(16, np.inf, np.float32), "its beta is inf"),
        ("int4 of channels", "b.class", 0 * of_kind("int4 of channels", "b.class") + 255, "of class 15, of 15 classes"),
    ],
)  # fmt: skip
def test_planes_of_other_members_of_the_family_are_checked_too(kind, name, array, what):
    with pytest.raises(ModelError, match=f"^tensor '{name[0]}': .*({what}).*Protect the original again$"):
        open_protected(ir.from_proto(put(bare(kind), name, array)))


@pytest.mark.parametrize("mutation", [in_bytes, in_call, between_planes], ids=lambda mutation: mutation.__name__)
@pytest.mark.parametrize("kind", ["redundancy", "raw", GROUPED, POINTS, "int4 of channels", "read"])
@settings(max_examples=15)
@given(data=st.data())
def test_without_a_manifest_onnxruntime_decodes_what_the_open_model_says(kind, mutation, data):
    """Damage may go unseen there, but never means one thing to us and another to onnxruntime."""
    proto = bare(kind)
    mutation(data.draw, proto)
    try:
        found = open_protected(files.load(proto)).decode()
    except AnalogError:
        return
    assert {key: weight.tobytes() for key, weight in decoded(proto).items()} == {
        key: weight.tobytes() for key, weight in found.items()
    }


def test_the_other_axis_of_a_square_matrix_is_noticed():
    square = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    proto = ir.to_proto(oa.protect(holding(w=square), FAMILY["redundancy of channels"], selection=SMALL).model)
    expected = open_protected(files.load(proto)).decode()["w"]
    put(proto, "w.stride", np.array([8]))
    with pytest.raises(ModelError, match=r"tensor 'w': its stride, by its SHA-256, is .*, and .* in the model's manif"):
        open_protected(files.load(proto))
    proto.metadata_props.remove(next(e for e in proto.metadata_props if e.key == MANIFEST_KEY))
    found = open_protected(files.load(proto)).decode()["w"]
    assert not same_bits([found], [expected])
    assert same_bits([found], [decoded(proto)["w"]])


def attribute(proto: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    found: onnx.AttributeProto = next(a for a in calls(proto)[1].attribute if a.name == name)
    return found


@pytest.mark.parametrize("number", [-1, 1, 2**62])
def test_a_scheme_that_the_model_does_not_list_is_refused(number):
    proto = bare()
    attribute(proto, "scheme").i = number
    with pytest.raises(ModelError, match=f"tensor 'b': .*damaged, for its scheme is {number}, and the model lists 1"):
        open_protected(ir.from_proto(proto))


def test_a_scheme_of_another_tensor_is_not_that_of_the_manifest():
    proto = onnx.ModelProto.FromString(saved("two schemes"))
    attribute(proto, "scheme").i = 0
    with pytest.raises(ModelError, match=r"tensor 'b': its scheme is ., and . in the model's manifest"):
        open_protected(ir.from_proto(proto))


@pytest.mark.parametrize("kind", ["raw", "sixteen points", GROUPED])
def test_a_function_that_does_not_fit_the_scheme_is_refused(kind):
    proto = bare(kind)
    body = json.loads(next(e for e in proto.metadata_props if e.key == SCHEMES_KEY).value)
    other = {**body[0], "classes": 2, "cells": [1, 20], "partition": "share", "shares": [0.1], "sign": "bit"}
    next(e for e in proto.metadata_props if e.key == SCHEMES_KEY).value = json.dumps([other])
    with pytest.raises(
        ModelError, match=r"tensor 'a': it is decoded by 'Decode\w+', which does not fit its scheme, red"
    ):
        open_protected(ir.from_proto(proto))


def test_a_function_for_whole_bytes_is_refused_where_bytes_are_not_whole():
    found = ir.from_proto(bare())
    (tensor, _) = stored_tensors(found)
    layout = replace(tensor.layout, aligned=True)
    function = function_of(layout, 18)
    found.functions[function.identifier()] = function
    tensor.node.op_type = layout.name
    with pytest.raises(
        ModelError, match="tensor 'a': it is decoded by 'DecodeSignedClass1LevelsAligned', which does not"
    ):
        open_protected(found)


def test_tensors_that_share_a_codebook_have_one():
    kind = "mapping of the model"
    array = of_kind(kind, "b.alpha") * f32([1, 2])
    with pytest.raises(ModelError, match="tensor 'b': its alpha is not that of 'a', though all tensors share one code"):
        open_protected(files.load(put(bare(kind), "b.alpha", array)))


def test_what_is_asked_for_is_not_allocated():
    proto = put(put(bare(), "b.shape", np.array([10**6, 10**6])), "a.shape", np.array([10**9]))
    loaded = ir.from_proto(proto)  # onnxruntime refuses it
    open_protected(ir.from_proto(bare()))  # what is made once is made
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ModelError):
        open_protected(loaded)
    assert time.process_time() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_planes_that_many_calls_share_are_not_multiplied_without_end():
    n = 2**18
    plain = holding(w=np.eye(1, n, dtype=np.float32))
    found = oa.protect(plain, strategy="raw", channel=QUIET, selection=SMALL).model
    del found.metadata_props[MANIFEST_KEY]
    (call,) = (tensor.node for tensor in stored_tensors(found))

    def share(numbers: range) -> None:
        for number in numbers:
            attributes = {**call.attributes, "key": ir.AttrString("key", f"w{number}")}
            copy = ir.Node(DOMAIN, call.op_type, call.inputs, attributes.values(), num_outputs=1)
            copy.outputs[0].name = f"w{number}"
            found.graph.insert_before(call, copy)

    share(range(10))
    assert len(open_protected(found).tensors) == 11
    share(range(10, 512))  # 513 tensors of 1 MiB from one mask of 32 KiB
    with pytest.raises(ModelError, match=r"the model's planes have 32,\d+ bytes, for weights of 537,919,488"):
        open_protected(found)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"strategy": "raw"}, "a scheme has no setting 'strategy'"),
        ({"sign": "both"}, "sign is 'both'; choose from bit, level"),
        ({"granularity": "layer"}, "granularity is 'layer'; choose from tensor, channel, model"),
        ({"partition": ["share"]}, "partition is"),
        ({"classes": 257}, "classes is 257; it must be from 1 to 256"),
        ({"classes": True}, "classes is True"),
        ({"classes": 3}, "cells has 2 numbers"),
        ({"shares": [0.6, 0.6], "classes": 3, "cells": [1]}, "shares add up to 1.2"),
        ({"shares": "x"}, "shares is 'x'; it must be a list"),
        ({"side_bits_per_cell": 0}, "side_bits_per_cell is 0; it must be from 1 to 8"),
        ({"side_bits_per_cell": 9}, "side_bits_per_cell is 9"),
        ({"side_bits_per_cell": 2.5}, "side_bits_per_cell is 2.5"),
        ({"cells": [1, 2, 3]}, "cells has 3 numbers"),
        ({"cells": []}, "cells has 0 numbers"),
        ({"cells": [-1, 20]}, "must be from 0 to 1,000,000,000,000"),
        ({"cells": [1, 10**12 + 1]}, "must be from 0 to 1,000,000,000,000"),
        ({"cells": [1.5, 20]}, "cells is 1.5; it must be a whole number"),
        ({"cells": [0, 20]}, "which does not fit its scheme"),
        ({"channel": []}, "channel is \\[\\]; it must be"),
        ({"channel": 3}, "channel is 3; it must be a name"),
        ({"channel": "pcm"}, "channel is 'pcm'; it must be an object"),
        ({"channel": "os:abort"}, "channel is 'os:abort'; it must be an object"),
        ({"channel": {"family": "os:abort"}}, "is of class 'os:abort', and a file cannot import a module"),
        ({"side_channel": "measured:csv=/etc/passwd"}, "side_channel is 'measured:csv=/etc/passwd'; it must be an obj"),
        ({"channel": {"family": "gaussian", "sigma": -1}}, "sigma"),
        ({"estimator": "os:system"}, "the estimator 'os:system' is not loaded"),
        ({"estimator": 3}, "estimator is 3"),
        ({"side_cells": 2}, "side_cells and side_copies need a side_channel"),
        ({"side_channel": {"family": "gaussian"}, "side_cells": 10**9}, "side_cells is 1000000000"),
        ({"side_channel": {"family": "gaussian"}, "side_copies": 10**9}, "side_copies is 1000000000"),
        ({"side_channel": {"family": "gaussian"}, "side_copies": 2}, "side_copies is 2; it must be odd"),
        ({"side_channel": {"family": "gaussian"}, "cells": [0, 1]}, "side_channel cannot be given where some classes"),
        ({"side_channel": 3}, "channel is 3"),
    ],
    ids=str,
)
def test_a_scheme_that_cannot_be_is_refused(change, what):
    proto = bare()
    entry = next(e for e in proto.metadata_props if e.key == SCHEMES_KEY)
    entry.value = json.dumps([{**json.loads(entry.value)[0], **change}])
    with pytest.raises(AnalogError, match=what):
        open_protected(files.load(proto))


def test_metadata_that_another_tool_dropped_are_named():
    proto = bare()
    proto.metadata_props.remove(next(e for e in proto.metadata_props if e.key == FORMAT_KEY))
    with pytest.raises(ModelError, match=r"lost its metadata entry 'onnx_analog\.format' to another tool"):
        open_protected(files.load(proto))


@pytest.mark.parametrize("name", ["Decode", "DecodeStored", "UnpackBits", "DecodeLevelsStage9"])
def test_a_call_of_another_function_is_refused(name):
    proto = onnx.ModelProto.FromString(saved("redundancy"))
    calls(proto)[0].op_type = name
    with pytest.raises(ModelError, match=f"changed the call that decodes 'a': it calls '{name}' now"):
        open_protected(ir.from_proto(proto))


MASKED = "DecodeMaskedSignedClass1Levels"


def decoding_function(proto: onnx.ModelProto, name: str = MASKED) -> onnx.FunctionProto:
    found: onnx.FunctionProto = next(function for function in proto.functions if function.name == name)
    return found


def node_of(proto: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(n for n in decoding_function(proto).node if n.op_type == operator)
    return found


def other_operator(proto: onnx.ModelProto) -> None:
    node_of(proto, "Add").op_type = "Sub"


def swapped(proto: onnx.ModelProto) -> None:
    division = node_of(proto, "Div")
    division.input[:] = [division.input[1], division.input[0]]


def other_constant(proto: onnx.ModelProto) -> None:
    node = next(n for n in decoding_function(proto).node if n.op_type == "Constant" and len(n.attribute[0].t.dims))
    array = onnx.numpy_helper.to_array(node.attribute[0].t)
    node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(array + 1 if array.dtype != bool else ~array))


def other_type(proto: onnx.ModelProto) -> None:
    cast = next(n for n in decoding_function(proto).node if n.op_type == "Cast" and n.attribute[0].ref_attr_name)
    cast.attribute[0].CopyFrom(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))


def other_output(proto: onnx.ModelProto) -> None:
    decoding_function(proto).output[0] = node_of(proto, "Div").output[0]


def other_direction(proto: onnx.ModelProto) -> None:
    shift = node_of(proto, "BitShift")
    shift.attribute[0].s = b"LEFT" if shift.attribute[0].s == b"RIGHT" else b"RIGHT"


@pytest.mark.parametrize("change", [other_operator, swapped, other_constant, other_type, other_output, other_direction])
def test_a_function_that_decodes_to_something_else_is_refused(change):
    proto = onnx.ModelProto.FromString(saved("redundancy"))
    change(proto)
    with pytest.raises(ModelError, match=f"another tool changed the model's function '{MASKED}'.*original again"):
        open_protected(ir.from_proto(proto))


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_that_is_not_there_is_missed(kind):
    for name in {node.op_type for node in calls(onnx.ModelProto.FromString(saved(kind)))}:
        proto = onnx.ModelProto.FromString(saved(kind))
        proto.functions.remove(decoding_function(proto, name))
        with pytest.raises(ModelError, match=f"another tool removed the model's function '{name}'"):
            open_protected(ir.from_proto(proto))


def test_functions_may_have_other_names_inside_and_be_of_another_opset():
    proto = onnx.ModelProto.FromString(saved("redundancy"))
    for function in proto.functions:
        function.doc_string = "changed"
        for imported in function.opset_import:
            imported.version += imported.domain == ""
        for part in [function, *function.node]:
            for names in (part.input, part.output):
                names[:] = [f"{name}_renamed" for name in names]
    assert summary(files.load(proto)) == summary_of_whole("redundancy")


def test_what_was_read_is_not_taken_for_what_was_written_once_its_mark_is_gone():
    proto = onnx.ModelProto.FromString(saved("read"))
    for key in (READBACK_KEY, MANIFEST_KEY):
        proto.metadata_props.remove(next(entry for entry in proto.metadata_props if entry.key == key))
    with pytest.raises(ModelError, match=f"lost its metadata entry '{READBACK_KEY}'. Read the protected model back"):
        open_protected(files.load(proto))


@pytest.mark.parametrize("key", [SOURCE_KEY, COMMAND_KEY])
def test_what_metadata_and_manifest_tell_twice_is_the_same(key):
    found = files.load(onnx.ModelProto.FromString(saved("redundancy")))
    found.metadata_props[key] = "1" * 64
    with pytest.raises(ModelError, match=r"in the model's metadata and .* in its manifest: one is damaged"):
        open_protected(found)
    del found.metadata_props[key]
    assert open_protected(found).written is not None


def test_a_tensor_that_another_tool_decoded_is_missed():
    proto = onnx.ModelProto.FromString(saved("redundancy"))
    call = calls(proto)[1]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((5, 7), np.float32), call.output[0]))
    proto.graph.node.remove(call)
    with pytest.raises(ModelError, match="tensor 'b' is in the model's manifest only: another tool decoded it"):
        open_protected(files.load(proto))


# ------------------------------------------------------------------------------------------------- what is supported


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_model_is_opened(name):
    found = oa.protect(made(name), channel=QUIET).model
    assert [tensor.key for tensor in open_protected(found).tensors] == list(ZOO[name].keys)
    assert open_protected(ReadbackPass()(found).model).manifest == open_protected(found).manifest


TWICE = """
    <ir_version: 10, opset_import: ["" : 18, "d" : 1]>
    net (float[1, 16] x) => (float[1, 16] y) { t = d.f(x) y = d.f(t) }
    <domain: "d", opset_import: ["" : 18]>
    f (u) => (v) { w = Constant<value = float[16, 16] random>() v = MatMul(u, w) }"""


def test_a_function_that_is_called_twice_and_inlined_keeps_one_tensor():
    found = oa.protect(model(TWICE), channel=QUIET).model
    before, expected = open_protected(found), [run(found, given) for given in feeds(found)]
    decode = {name: found.functions.pop(name) for name in list(found.functions) if name[0] == DOMAIN}
    others.InlinePass()(found)
    found.functions.update(decode)
    one, two = open_protected(found).tensors
    assert one.key == two.key == before.tensors[0].key
    assert all(same_bits(run(found, given), outputs) for given, outputs in zip(feeds(found), expected, strict=True))
    assert [entry.cells for entry in account(found).tensors] == [entry.cells for entry in before.manifest.tensors]
    read = open_protected(ReadbackPass(seed=3)(found).model).tensors
    assert same_bits([read[0].level], [read[1].level])
    assert list(Network(found).tensors) == [f"{DOMAIN}:{one.key}"]


def test_one_key_on_two_calls_of_other_planes_is_refused_by_all():
    proto = bare()
    for call in calls(proto):
        next(a for a in call.attribute if a.name == "key").s = b"b"
    found = files.load(proto)
    for use in (Network, DecodePass().call, ReadbackPass().call, oa.account, oa.inspect):
        with pytest.raises(ModelError, match="tensor 'b': two calls have this key, and their planes differ"):
            use(found)


def test_a_model_without_manifest_is_opened_with_a_warning(caplog):
    found = files.load(bare())
    assert open_protected(found).written is None
    oa.readback(found)
    assert caplog.messages == [
        "the model has no metadata entry 'onnx_analog.manifest', so damage to its planes may not be noticed"
    ]
    caplog.clear()
    oa.readback(files.load(onnx.ModelProto.FromString(saved("raw"))))
    assert caplog.messages == []


def test_what_was_read_is_guarded_without_a_manifest_too():
    perturbed = files.load(bare("read"))
    assert READ_DIGESTS_KEY in perturbed.metadata_props
    tensor = open_protected(perturbed).tensors[0]
    tensor.replace_level(tensor.level + f32(0.001))
    with pytest.raises(
        ModelError, match=r"tensor 'a': its level is not what was read: its SHA-256 is .*\. Read the protected model"
    ):
        open_protected(perturbed)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("alpha", 0.25, r"tensor 'a': its α of class 1 is \S+, and 0\.25 in the model's manifest"),
        ("low", -9.5, r"tensor 'a': its low of class 1 is \S+, and -9\.5 in the model's manifest"),
    ],
)
def test_an_edited_class_of_the_manifest_is_named_by_its_field(name, value, said):
    proto = onnx.ModelProto.FromString(saved("raw"))
    entry = next(e for e in proto.metadata_props if e.key == MANIFEST_KEY)
    manifest = json.loads(entry.value)
    manifest["tensors"][0]["classes"][0][name] = value
    entry.value = json.dumps(manifest)
    with pytest.raises(ModelError, match=said) as caught:
        open_protected(files.load(proto))
    assert "ClassEntry" not in str(caught.value)


def test_a_manifest_error_is_a_model_error_here():
    assert not issubclass(ManifestError, ModelError)
    proto = onnx.ModelProto.FromString(saved("raw"))
    next(e for e in proto.metadata_props if e.key == MANIFEST_KEY).value = "{}"
    with pytest.raises(ModelError, match=r"metadata entry 'onnx_analog\.manifest' is damaged"):
        open_protected(files.load(proto))


# --------------------------------------------------------------------------------------------- a model that is open


@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_decodes_what_the_open_model_says(kind):
    proto = onnx.ModelProto.FromString(saved(kind))
    expected, found = decoded(proto), open_protected(files.load(proto)).decode()
    assert list(found) == ["a", "b"]
    assert same_bits([*found.values()], [expected[key] for key in found])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("read")])
def test_the_open_model_reads_what_readback_and_onnxruntime_read(kind):
    found = files.load(onnx.ModelProto.FromString(saved(kind)))
    before = serialized(found)
    open_ = open_protected(found)
    weights = open_.read(seed=3, trial=7)
    perturbed = ReadbackPass(seed=3, trial=7)(found).model
    assert same_bits([*weights.values()], [*open_protected(perturbed).decode().values()])
    assert same_bits([*weights.values()], [decoded(ir.to_proto(perturbed))[key] for key in weights])
    plain = DecodePass()(perturbed).model
    assert same_bits([*weights.values()], [numbers(plain, key) for key in weights])
    assert same_bits([*open_.read(seed=3, trial=7).values()], [*weights.values()])
    other = open_.read(seed=3, trial=8)
    analog = any(tensor.scheme.analog != "none" or tensor.scheme.side for tensor in open_.tensors)
    assert same_bits([*other.values()], [*weights.values()]) == (not analog)
    assert serialized(found) == before


def test_the_open_model_has_its_plan():
    open_ = open_protected(files.load(onnx.ModelProto.FromString(saved("two schemes"))))
    plan = KINDS["two schemes"]
    assert isinstance(plan, Plan)
    assert open_.schemes == plan.schemes
    assert open_.plan == Plan(default=None, tensors={"a": plan.schemes[0], "b": plan.schemes[1]})
    again = oa.protect(holding(a=f32([[1, 2]] * 9), b=f32([[1, 3]] * 9)), open_.plan, selection=SMALL)
    assert again.plan == open_.plan
    assert [tensor.scheme for tensor in open_.tensors] == list(plan.schemes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_is_that_of_what_was_written(kind):
    open_ = open_protected(files.load(onnx.ModelProto.FromString(saved(kind))))
    assert open_.manifest == open_.written


def test_what_was_read_is_counted_without_a_manifest_unless_its_classes_were_read_too():
    written = open_protected(files.load(onnx.ModelProto.FromString(saved("read")))).manifest
    assert open_protected(files.load(bare("read"))).manifest.totals == written.totals
    kind = "read, with its side information"
    with pytest.raises(ModelError, match=r"classes of this model were read from noisy cells \(seed 5, .*Name the prot"):
        _ = open_protected(files.load(bare(kind))).manifest
    assert open_protected(files.load(onnx.ModelProto.FromString(saved(kind)))).manifest.totals.all_in_cells > 0


@pytest.mark.parametrize("given", [{"seed": -1}, {"trial": -1}, {"trial": 2**63}, {"seed": 1.5}, {"trial": True}])
def test_a_trial_that_cannot_be_is_refused(given):
    open_ = open_protected(protect("matmul"))
    with pytest.raises(OptionError, match=f"{next(iter(given))} is .*; it must be"):
        open_.read(**given)


def test_what_was_read_is_not_read_again():
    open_ = open_protected(files.load(onnx.ModelProto.FromString(saved("read"))))
    with pytest.raises(ModelError, match="was read from noisy cells already"):
        open_.read()
    assert set(open_.decode()) == {"a", "b"}


@pytest.mark.parametrize("name", ZOO)
def test_a_copy_can_be_changed_and_is_not_checked_again(name, monkeypatch):
    open_ = open_protected(protect(name, manifest=True))
    expected = [*open_.decode().values()]
    monkeypatch.setattr(protected, "_check_forms", lambda tensor: pytest.fail("checked again"))
    copy = open_.copy()
    for tensor in copy.tensors:
        tensor.replace_level(np.zeros_like(tensor.level))
    assert same_bits([*open_.decode().values()], expected)
    assert not same_bits([*copy.decode().values()], expected)
    monkeypatch.undo()
    assert same_bits([*open_protected(open_.model).decode().values()], expected)
    with pytest.raises(ModelError, match=r"its level, by its SHA-256, is .*, and .* in the model's manifest"):
        open_protected(copy.model)


@pytest.fixture
def scans(monkeypatch):
    """Return a list that grows whenever a protected model is scanned."""
    seen: list[ir.Model] = []
    check = protected._check_functions
    monkeypatch.setattr(protected, "_check_functions", lambda model, t: (seen.append(model), check(model, t))[1])
    return seen


@pytest.mark.parametrize(
    "use",
    [
        lambda path, data: oa.evaluate(path, data, trials=2),
        lambda path, data: oa.account(path),
        lambda path, data: oa.inspect(path),
        lambda path, data: oa.readback(path, decoded=True),
        lambda path, data: [*oa.readbacks(path, trials=3, decoded=True)],
        lambda path, data: Network(open_protected(files.load(path))).run(Dataset(data, None)),
    ],
    ids=["evaluate", "account", "inspect", "readback", "readbacks", "network"],
)
def test_each_command_scans_a_protected_model_once(use, scans, tmp_path):
    oa.protect(made("matmul"), channel=QUIET).save(tmp_path / "p.onnx")
    scans.clear()
    use(tmp_path / "p.onnx", {"x": np.ones((4, 16), np.float32)})
    assert len(scans) == 1


def test_opening_and_counting_keep_no_array_of_a_tensor_s_size():
    """A model may be larger than memory: what was unpacked for the checks is forgotten, tensor by tensor."""
    for scheme in FAMILY.values():
        protected = open_protected(protect("matmul", scheme))
        assert protected.counted.tensors
        for tensor in protected.tensors:
            kept = [name for name, value in vars(tensor).items() if getattr(value, "nbytes", 0) >= tensor.size // 8]
            assert set(kept) <= {"alpha", "beta", "class_counts"}
