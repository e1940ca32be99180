"""A damaged model is refused in one line, or it decodes to the same weights and is read with the same noise."""

from __future__ import annotations

import json
import time
import tracemalloc
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as others
import pytest
from hypothesis import given, settings

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.errors import LONGEST, AnalogError, ManifestError, ModelError
from onnx_analog.graph import files, protected
from onnx_analog.graph.decoder import DOMAIN, INPUTS
from onnx_analog.graph.manifest import account
from onnx_analog.graph.protected import opened, warn_unless_guarded
from onnx_analog.graph.stored import (
    COMMAND_KEY,
    FORMAT_KEY,
    KEYS,
    MANIFEST_KEY,
    PROTECTION_KEY,
    READ_DIGESTS_KEY,
    READBACK_KEY,
    SOURCE_KEY,
    stored_tensors,
)
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import DecodePass, ManifestPass, ProtectPass, ReadbackPass
from onnx_analog.run.session import Network
from tests.models import QUIET, ZOO, f32, feeds, holding, made, model, run, same_bits, serialized

LOUD = GaussianNoise(sigma=1.0)
KINDS: dict[str, dict[str, Any]] = {
    "redundancy": {},
    "raw": {"strategy": "raw"},
    "scope model": {"scope": "model", "strategy": "mapping"},
    "analog header": {"header_channel": LOUD},
    "read": {},
    "read, with its header": {"header_channel": LOUD},
}


@cache
def whole(kind: str) -> bytes:
    """Return a model of two tensors, one of them pruned, with 13 and 35 weights: no plane is of whole bytes."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((13, 1), (5, 7)))
    b[np.abs(b) < 0.5] = 0
    plain = ir.to_proto(holding(a=a, b=b))
    options = {"channel": QUIET, "selection": Selection(min_size=1), **KINDS[kind]}
    found = oa.protect(plain, large_fraction=0.3, command="onnx-analog protect", **options).model
    found.metadata_props[SOURCE_KEY] = "0" * 64
    del found.metadata_props[MANIFEST_KEY]
    ManifestPass()(found)
    if kind.startswith("read"):
        found = ReadbackPass(seed=5)(found).model
    return serialized(found)


def told(found: ir.Model) -> Any:
    """Return what a model decodes to, and how it is read."""
    open_ = opened(found)
    weights = {t.key: (t.dtype, t.shape, t.decode().tobytes()) for t in open_.tensors}
    return weights, open_.protection


@cache
def told_of_whole(kind: str) -> Any:
    return told(files.load(onnx.ModelProto.FromString(whole(kind))))


def check_law(kind: str, damaged: onnx.ModelProto) -> bool:
    """Return whether `damaged` is refused; fail unless it is, or is told as the whole model is."""
    found, refusal = None, None
    try:
        found = told(files.load(damaged))
    except AnalogError as error:
        refusal = str(error)
    if refusal is not None:
        assert 10 < len(refusal) <= LONGEST
        assert refusal.isprintable()
        return True
    assert found == told_of_whole(kind), "damage went unseen"
    return False


# -------------------------------------------------------------------------------------------------- mutations

JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 2, 3, -1, 8, 9, 20, 10**12, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf"), "", "x",
     "raw", "sign", "model", "tensor", "FLOAT", "FLOAT16", [], {}, [1], [1, 20], [[0, 1]], {"a": 1}, {"family": "pcm"}]
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, name or index) of JSON."""
    names = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [pair for name in names for pair in [(value, name), *places(value[name])]]


def in_json(draw: Any, proto: onnx.ModelProto) -> None:
    """Replace, remove or repeat something in the JSON of an entry."""
    entry = draw(st.sampled_from([e for e in proto.metadata_props if e.value.startswith("{")]))
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


def calls(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.domain == DOMAIN]


def in_call(draw: Any, proto: onnx.ModelProto) -> None:
    """Swap, drop or add inputs of calls; change or drop attributes; call twice; name other functions."""
    nodes = calls(proto)
    node = draw(st.sampled_from(nodes))
    one, two = draw(st.integers(0, len(node.input) - 1)), draw(st.integers(0, len(node.input) - 1))
    attribute = draw(st.sampled_from(list(node.attribute)))
    action = draw(st.sampled_from(["swap", "other", "drop", "empty", "more", "copy", "op", "key", "dtype", "lose"]))
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
        node.op_type = draw(st.sampled_from([*INPUTS, "DecodeStored", "UnpackBits", "Other"]))
    elif action == "key":
        next(a for a in node.attribute if a.name == "key").s = draw(st.sampled_from([b"", b"a", b"b", b"c"]))
    elif action == "dtype":
        next(a for a in node.attribute if a.name == "dtype").i = draw(st.sampled_from([0, 1, 7, 10, 11, 16, 99, -1]))
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
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(data=st.data())
def test_damage_is_refused_or_of_no_consequence(kind, mutation, data):
    proto = onnx.ModelProto.FromString(whole(kind))
    mutation(data.draw, proto)
    check_law(kind, proto)


def plane(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    found: onnx.TensorProto = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["b.level", "b.mask", "b.sign", "b.class", "b.alpha", "b.beta", "b.shape"])
def test_every_byte_of_every_plane_is_guarded(kind, name):
    proto = onnx.ModelProto.FromString(whole(kind))
    if name not in {tensor.name for tensor in proto.graph.initializer}:
        return
    before = plane(proto, name).raw_data
    for place in range(len(before)):
        changed = bytearray(before)
        changed[place] ^= 1
        plane(proto, name).raw_data = bytes(changed)
        assert check_law(kind, proto)


def test_the_law_itself_rejects_a_checker_that_is_too_weak(monkeypatch):
    proto = onnx.ModelProto.FromString(whole("redundancy"))
    data = bytearray(plane(proto, "b.level").raw_data)
    data[1] ^= 128  # of the first level
    plane(proto, "b.level").raw_data = bytes(data)
    assert check_law("redundancy", proto)
    monkeypatch.setattr(protected, "_check_digests", lambda found: None)
    with pytest.raises(AssertionError, match="damage went unseen"):
        check_law("redundancy", proto)


def test_the_law_itself_rejects_other_noise(monkeypatch):
    proto = onnx.ModelProto.FromString(whole("redundancy"))
    entry = next(e for e in proto.metadata_props if e.key == PROTECTION_KEY)
    entry.value = entry.value.replace('"cells":[1,20]', '"cells":[1,21]')
    assert check_law("redundancy", proto)
    monkeypatch.setattr(protected, "_check_digests", lambda found: None)
    with pytest.raises(AssertionError, match="damage went unseen"):
        check_law("redundancy", proto)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_not_refused(kind):
    assert not check_law(kind, onnx.ModelProto.FromString(whole(kind)))


# ------------------------------------------------------------------------------------- each check, without a manifest


def bare(kind: str = "redundancy") -> onnx.ModelProto:
    """Return a model without its manifest: what is refused is refused by the planes alone."""
    proto: onnx.ModelProto = onnx.ModelProto.FromString(whole(kind))
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
        ("b.level", of("b.level").astype(np.float64), "its level is DOUBLE of 1 axes, and not FLOAT of one"),
        ("b.level", of("b.level")[None], "its level is FLOAT of 2 axes"),
        ("b.level", f32([]), "holds no level"),
        ("b.level", of("b.level")[1:], "its mask marks 20 weights, and it holds 19 levels"),
        ("b.level", changed("b.level", 3, np.nan), "its levels run from nan to nan"),
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
        ("b.shape", np.array([5, -7]), r"its shape is \(5, -7\)"),
        ("b.shape", np.array([5, 9]), "its mask has 5 bytes for 45 bits"),
        ("b.shape", np.array([4_000, 6_000, 200]), "its mask has 5 bytes for 4,800,000,000 bits"),
        ("b.shape", np.array([2**62, 4, 35]), "its mask has 5 bytes for"),  # in int64 the product is 0
        ("b.shape", np.array([2**32, 2**32, 1]), "its mask has 5 bytes for"),
        ("b.shape", np.ones(65, np.int64), "its shape has 65 axes, more than 64"),
        ("b.shape", np.array([5, 7], np.int32), "its shape is INT32 of 1 axes, and not INT64"),
        ("a.shape", np.array([13, 2]), r"its shape \(13, 2\) is of 26 weights, and it holds 13 levels"),
        ("b.mask", of("b.mask")[:-1], "its mask has 4 bytes for 35 bits"),
        ("b.mask", np.append(of("b.mask"), np.uint8(0)), "its mask has 6 bytes for 35 bits"),
        ("b.mask", changed("b.mask", -1, 8 | of("b.mask")[-1]), "its mask has bits set beyond the last of 35"),
        ("b.mask", changed("b.mask", 0, of("b.mask")[0] ^ 1), "its mask marks"),
        ("b.sign", of("b.sign")[:-1], "its sign has"),
        ("b.sign", of("b.sign")[:0], "its sign has 0 bytes"),
        ("b.class", np.append(of("b.class"), np.uint8(0)), "its class has"),
        ("a.class", changed("a.class", -1, 128), "its class has bits set beyond the last of 13"),
        ("a.sign", changed("a.sign", -1, 32), "its sign has bits set beyond the last of 13"),
    ],
)  # fmt: skip
def test_a_plane_that_cannot_be_is_named(name, array, what):
    with pytest.raises(ModelError, match=f"^tensor '{name[0]}': .*({what}).*Protect the original again.$"):
        opened(ir.from_proto(put(bare(), name, array)))  # onnxruntime refuses some of these when they are loaded


def test_weights_beyond_their_type_are_refused():
    found = made("float16")
    ProtectPass(channel=QUIET, selection=Selection(min_size=1))(found)
    stored_tensors(found)[0].inputs["alpha"].const_value = ir.tensor(f32([1e-6, 1]))
    with pytest.raises(ModelError, match="its weights are beyond the range of FLOAT16"):
        opened(found)


def test_a_strategy_without_signs_has_none():
    proto = bare("raw")
    call = next(node for node in calls(proto) if "b.level" in node.input)
    call.input[list(INPUTS[call.op_type]).index("sign")] = "b.mask"
    with pytest.raises(ModelError, match="tensor 'b': its sign has 5 bytes for 0 bits"):
        opened(files.load(proto))


def test_one_scope_has_one_codebook():
    array = onnx.numpy_helper.to_array(plane(bare("scope model"), "b.alpha")) * f32([1, 2])
    with pytest.raises(
        ModelError, match="tensor 'b': its alpha is not that of 'a', though all tensors share one scope"
    ):
        opened(files.load(put(bare("scope model"), "b.alpha", array)))


def test_what_is_asked_for_is_not_allocated():
    proto = put(put(bare(), "b.shape", np.array([10**6, 10**6])), "a.shape", np.array([10**9]))
    loaded = ir.from_proto(proto)  # onnxruntime refuses it
    opened(ir.from_proto(bare()))  # what is made once is made
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ModelError):
        opened(loaded)
    assert time.process_time() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_planes_that_many_calls_share_are_not_multiplied_without_end():
    n = 2**18
    plain = holding(w=np.eye(1, n, dtype=np.float32))
    found = oa.protect(plain, strategy="raw", channel=QUIET, selection=Selection(min_size=1)).model
    del found.metadata_props[MANIFEST_KEY]
    (call,) = (tensor.node for tensor in stored_tensors(found))

    def share(numbers: range) -> None:
        for number in numbers:
            attributes = {**call.attributes, "key": ir.AttrString("key", f"w{number}")}
            copy = ir.Node(DOMAIN, call.op_type, call.inputs, attributes.values(), num_outputs=1)
            copy.outputs[0].name = f"w{number}"
            found.graph.insert_before(call, copy)

    share(range(10))
    assert len(opened(found).tensors) == 11
    share(range(10, 512))  # 513 tensors of 1 MiB from one mask of 32 KiB
    with pytest.raises(ModelError, match=r"the model's planes have 32,\d+ bytes, for weights of 537,919,488"):
        opened(found)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"strategy": "other"}, "no strategy is called 'other'"),
        ({"strategy": ["raw"]}, r'strategy is \["raw"\], which is not a valid value'),
        ({"scope": "layer"}, "no scope is called 'layer'"),
        ({"bits_per_cell": 0}, "bits_per_cell is 0; it must be from 1 to 8"),
        ({"bits_per_cell": 9}, "bits_per_cell is 9"),
        ({"bits_per_cell": True}, "bits_per_cell is True"),
        ({"bits_per_cell": 2.5}, "bits_per_cell is 2.5"),
        ({"cells": [1]}, r"cells are \(1,\), which strategy 'redundancy' cannot have"),
        ({"cells": [1, 2, 3]}, "cells are"),
        ({"cells": []}, "cells are"),
        ({"cells": 3}, "cells is 3, which is not a valid value"),
        ({"cells": [0, 20]}, "must be from 1 to 1,000,000,000,000"),
        ({"cells": [1, 10**12 + 1]}, "must be from 1 to 1,000,000,000,000"),
        ({"cells": [1.0, 20]}, "cells is 1.0; it must be a whole number"),
        ({"strategy": "mapping"}, r"cells are \(1, 20\), which strategy 'mapping' cannot have"),
        ({"channel": None}, "channel is null, which is not a valid value"),
        ({"channel": []}, "channel is"),
        ({"channel": {"family": "gaussian", "sigma": -1}}, "sigma"),
        ({"header": {"channel": {"family": "gaussian"}, "reads": 10**9, "copies": 1}}, "header reads is 1000000000"),
        ({"header": {"channel": {"family": "gaussian"}, "reads": 1, "copies": 10**9}}, "header copies is 1000000000"),
        ({"header": {"channel": {"family": "gaussian"}, "reads": 1}}, "'copies' is missing"),
        ({"header": 3}, "header is 3, which is not a valid value"),
    ],
    ids=str,
)
def test_a_protection_that_cannot_be_is_refused(change, what):
    proto = bare()
    entry = next(e for e in proto.metadata_props if e.key == PROTECTION_KEY)
    entry.value = json.dumps({**json.loads(entry.value), **change})
    with pytest.raises(AnalogError, match=what):
        opened(files.load(proto))


def test_metadata_that_another_tool_dropped_are_named():
    proto = bare()
    proto.metadata_props.remove(next(e for e in proto.metadata_props if e.key == FORMAT_KEY))
    with pytest.raises(ModelError, match=r"lost its metadata entry 'onnx_analog\.format' to another tool"):
        opened(files.load(proto))


def test_a_call_that_another_tool_took_apart_is_refused():
    proto = onnx.ModelProto.FromString(whole("redundancy"))
    calls(proto)[0].op_type = "DecodeStored"
    with pytest.raises(ModelError, match="changed the call that decodes 'a': it calls 'DecodeStored' now"):
        opened(ir.from_proto(proto))


def decoding_function(proto: onnx.ModelProto, name: str) -> onnx.FunctionProto:
    found: onnx.FunctionProto = next(function for function in proto.functions if function.name == name)
    return found


def no_sign(proto: onnx.ModelProto) -> None:
    next(n for n in decoding_function(proto, "DecodeStored").node if n.op_type == "Neg").op_type = "Identity"


def swapped(proto: onnx.ModelProto) -> None:
    division = next(n for n in decoding_function(proto, "DecodeStored").node if n.op_type == "Div")
    division.input[:] = [division.input[1], division.input[0]]


def other_shift(proto: onnx.ModelProto) -> None:
    constants = [n for n in decoding_function(proto, "UnpackBits").node if n.op_type == "Constant"]
    shifts = next(n.attribute[0].t for n in constants if list(n.attribute[0].t.dims) == [1, 8])
    shifts.CopyFrom(onnx.numpy_helper.from_array(np.arange(8, dtype=np.uint8)[::-1].reshape(1, 8), shifts.name))


def other_type(proto: onnx.ModelProto) -> None:
    cast = next(n for n in decoding_function(proto, "Decode").node if n.op_type == "Cast")
    cast.attribute[0].CopyFrom(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))


def other_output(proto: onnx.ModelProto) -> None:
    function = decoding_function(proto, "DecodeStored")
    function.output[0] = next(n for n in function.node if n.op_type == "Div").output[0]


def other_direction(proto: onnx.ModelProto) -> None:
    shift = next(n for n in decoding_function(proto, "UnpackBits").node if n.op_type == "BitShift")
    shift.attribute[0].s = b"LEFT"


@pytest.mark.parametrize("change", [no_sign, swapped, other_shift, other_type, other_output, other_direction])
def test_a_function_that_decodes_to_something_else_is_refused(change):
    proto = onnx.ModelProto.FromString(whole("redundancy"))
    change(proto)
    with pytest.raises(ModelError, match=r"another tool changed the model's function '(Unpack|Decode).*original again"):
        opened(ir.from_proto(proto))


@pytest.mark.parametrize("name", ["UnpackBits", "DecodeStored", "Decode", "DecodeMasked"])
def test_a_function_that_is_not_there_is_missed(name):
    proto = onnx.ModelProto.FromString(whole("redundancy"))
    proto.functions.remove(decoding_function(proto, name))
    with pytest.raises(ModelError, match=f"another tool removed the model's function '{name}'"):
        opened(ir.from_proto(proto))


def test_functions_may_have_other_names_inside_and_be_of_another_opset():
    proto = onnx.ModelProto.FromString(whole("redundancy"))
    for function in proto.functions:
        function.doc_string = "changed"
        function.node.insert(0, onnx.helper.make_node("Constant", [], ["unused"], value_float=1.0))
        for imported in function.opset_import:
            imported.version += imported.domain == ""
        for part in [function, *function.node]:
            for names in (part.input, part.output):
                names[:] = [f"{name}_renamed" for name in names]
    assert told(files.load(proto)) == told_of_whole("redundancy")


def test_what_was_read_is_not_taken_for_what_was_written_once_its_mark_is_gone():
    proto = onnx.ModelProto.FromString(whole("read"))
    for key in (READBACK_KEY, MANIFEST_KEY):
        proto.metadata_props.remove(next(entry for entry in proto.metadata_props if entry.key == key))
    with pytest.raises(ModelError, match=f"lost its metadata entry '{READBACK_KEY}'. Read the protected model back"):
        opened(files.load(proto))


@pytest.mark.parametrize("key", [SOURCE_KEY, COMMAND_KEY])
def test_what_metadata_and_manifest_tell_twice_is_the_same(key):
    found = files.load(onnx.ModelProto.FromString(whole("redundancy")))
    found.metadata_props[key] = "1" * 64
    with pytest.raises(ModelError, match="the model's metadata and its manifest tell another"):
        opened(found)
    del found.metadata_props[key]
    assert opened(found).manifest is not None


def test_a_tensor_that_another_tool_decoded_is_missed():
    proto = onnx.ModelProto.FromString(whole("redundancy"))
    call = calls(proto)[1]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((5, 7), np.float32), call.output[0]))
    proto.graph.node.remove(call)
    with pytest.raises(ModelError, match="tensor 'b' is in the model's manifest only: another tool decoded it"):
        opened(files.load(proto))


# ------------------------------------------------------------------------------------------------- what is supported


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_model_is_opened(name):
    found = oa.protect(made(name), channel=QUIET).model
    assert [tensor.key for tensor in opened(found).tensors] == list(ZOO[name].keys)
    assert opened(ReadbackPass()(found).model).account() == opened(found).account()


TWICE = """
    <ir_version: 10, opset_import: ["" : 18, "d" : 1]>
    net (float[1, 16] x) => (float[1, 16] y) { t = d.f(x) y = d.f(t) }
    <domain: "d", opset_import: ["" : 18]>
    f (u) => (v) { w = Constant<value = float[16, 16] random>() v = MatMul(u, w) }"""


def test_a_function_that_is_called_twice_and_inlined_keeps_one_tensor():
    found = oa.protect(model(TWICE), channel=QUIET).model
    before, expected = opened(found), [run(found, given) for given in feeds(found)]
    decode = {name: found.functions.pop(name) for name in list(found.functions) if name[0] == DOMAIN}
    others.InlinePass()(found)
    found.functions.update(decode)
    one, two = opened(found).tensors
    assert one.key == two.key == before.tensors[0].key
    assert all(same_bits(run(found, given), outputs) for given, outputs in zip(feeds(found), expected, strict=True))
    assert [entry.cells for entry in account(found).tensors] == [entry.cells for entry in before.account().tensors]
    read = opened(ReadbackPass(seed=3)(found).model).tensors
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
    assert opened(found).manifest is None
    oa.readback(found)
    assert caplog.messages == [
        "the model has no metadata entry 'onnx_analog.manifest', so damage to its planes may go unseen"
    ]
    caplog.clear()
    warn_unless_guarded(files.load(onnx.ModelProto.FromString(whole("raw"))))
    assert caplog.messages == []


def test_what_was_read_is_guarded_without_a_manifest_too():
    perturbed = files.load(bare("read"))
    assert READ_DIGESTS_KEY in perturbed.metadata_props
    tensor = opened(perturbed).tensors[0]
    tensor.replace_level(tensor.level + f32(0.001))
    with pytest.raises(ModelError, match=r"tensor 'a': its level is not what was read\. Read the protected model"):
        opened(perturbed)


def test_a_manifest_error_is_a_model_error_here():
    assert not issubclass(ManifestError, ModelError)
    proto = onnx.ModelProto.FromString(whole("raw"))
    next(e for e in proto.metadata_props if e.key == MANIFEST_KEY).value = "{}"
    with pytest.raises(ModelError, match=r"metadata entry 'onnx_analog\.manifest' is damaged"):
        opened(files.load(proto))
