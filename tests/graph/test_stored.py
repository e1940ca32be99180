import hashlib
import json
import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_analog.channels import GaussianChannel, GaussianNoise, from_dict, resolve
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.errors import ChannelError, ModelError
from onnx_analog.graph.decoder import DOMAIN
from onnx_analog.graph.protected import opened
from onnx_analog.graph.stored import (
    FORMAT_KEY,
    PROTECTION_KEY,
    Protection,
    Reader,
    StoredTensor,
    cells_of,
    is_protected,
    lean,
    stored_tensors,
    with_channel,
)
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass, PrunePass, ReadbackPass
from tests.models import QUIET, ZOO, f32, holding, made, same_bits

UNIT = GaussianNoise(sigma=0.1, low=-0.5, high=0.5)
BY_HAND = f32([[1, -2, 0], [1.5, 4, -8]])


def protected(plain: ir.Model, **options: Any) -> ir.Model:
    ProtectPass(**{"channel": QUIET, "selection": Selection(min_size=1), **options})(plain)
    return plain


def by_hand(**options: Any) -> StoredTensor:
    (tensor,) = stored_tensors(protected(holding(w=BY_HAND), channel=UNIT, large_fraction=0.4, **options))
    return tensor


# --------------------------------------------------------------------------------------------- one tensor


def test_a_tensor_by_hand():
    tensor = by_hand()
    assert (tensor.key, tensor.name, tensor.shape, tensor.size, tensor.count) == ("w", "w", (2, 3), 6, 5)
    assert tensor.dtype == ir.DataType.FLOAT
    assert tensor.mask is not None
    assert tensor.sign is not None
    assert tensor.class_index is not None
    assert tensor.mask.tolist() == [True, True, False, True, True, True]
    assert tensor.sign.tolist() == [False, True, False, False, True]
    assert tensor.class_index.tolist() == [0, 0, 0, 1, 1]
    assert tensor.class_counts().tolist() == [3, 2]
    assert same_bits([tensor.alpha, tensor.beta], [f32([1, 0.25]), f32([1.5, 1.5])])
    assert same_bits([tensor.decode()], [BY_HAND])


def test_other_levels_are_decoded_in_place_of_the_stored_ones():
    decoded = by_hand().decode(f32([0, 0, 0, 0, 0]))
    assert decoded.tolist() == [[1.5, -1.5, 0], [1.5, 6, -6]]


def test_a_plane_that_the_strategy_does_not_have_is_none():
    tensor = by_hand(strategy="raw")
    assert (tensor.sign, tensor.class_index) == (None, None)
    assert tensor.class_counts().tolist() == [5]


def test_digests_are_those_of_the_bytes():
    tensor = by_hand(strategy="sign")
    assert tensor.digests() == {
        "level": hashlib.sha256(tensor.level.tobytes()).hexdigest(),
        "mask": hashlib.sha256(bytes([0b111011])).hexdigest(),
        "sign": hashlib.sha256(bytes([0b10010])).hexdigest(),
    }


@pytest.mark.parametrize("name", ["matmul", "function"])
def test_levels_that_are_replaced_are_found_again(name):
    found = protected(made(name))
    level = f32(np.linspace(-0.5, 0.5, 256))
    stored_tensors(found)[0].replace_level(level)
    assert same_bits([stored_tensors(found)[0].level], [level])


@pytest.mark.parametrize(
    ("name", "uses"),
    [("matmul", 1), ("tied", 2), ("weight that is an output", 2), ("if that uses an outer weight", 2)],
)
def test_uses_count_inputs_of_nodes_and_outputs_of_the_graph(name, uses):
    assert [tensor.uses for tensor in stored_tensors(protected(made(name), selection=Selection()))] == [uses]


@pytest.mark.parametrize("name", ZOO)
def test_tensors_are_found_again_after_a_round_trip_through_bytes(name):
    found = protected(made(name), selection=Selection())
    again = ir.from_proto(ir.to_proto(found))
    for one, other in zip(stored_tensors(found), stored_tensors(again), strict=True):
        assert (one.key, one.name, one.shape, one.uses, one.dtype) == (
            other.key,
            other.name,
            other.shape,
            other.uses,
            other.dtype,
        )
        assert one.digests() == other.digests()
        assert same_bits([one.decode()], [other.decode()])


# ---------------------------------------------------------------------------------------------- protection


@pytest.mark.parametrize("channel", ["pcm", "gaussian:sigma=0.2", "pcm-partial-reset"])
def test_protection_is_kept_in_the_metadata(channel):
    options = {"strategy": "mapping", "scope": "model", "cells_small": 3, "bits_per_cell": 4}
    found = Protection.of(protected(made("matmul"), channel=resolve(channel), **options))
    kept = from_dict(lean(resolve(channel).to_dict()))  # all but residuals, which a Gaussian channel does not draw
    assert found == Protection(strategy="mapping", scope="model", cells=(3, 3), bits_per_cell=4, channel=kept)
    original, level = resolve(channel), np.linspace(*kept.span, 50)
    assert isinstance(kept, GaussianChannel)
    assert isinstance(original, GaussianChannel)
    assert same_bits([kept.std(level)], [original.std(level)])


def test_a_plain_model_has_none():
    assert not is_protected(made("matmul"))
    with pytest.raises(ModelError, match="not protected: run `onnx-analog protect`"):
        Protection.of(made("matmul"))


@pytest.mark.parametrize("name", ["matmul", "if", "function"])
def test_a_model_is_protected_by_its_metadata_or_its_calls(name):
    found = protected(made(name))
    for key in [*found.metadata_props]:
        del found.metadata_props[key]
        assert is_protected(found)
    plain = made(name)
    plain.metadata_props[FORMAT_KEY] = "1"
    assert is_protected(plain)


def test_another_format_is_refused():
    found = protected(made("matmul"))
    found.metadata_props[FORMAT_KEY] = "2"
    with pytest.raises(ModelError, match="protected in format 2, and this version reads format 1"):
        Protection.of(found)


@pytest.mark.parametrize("change", [{"cells": None}, {"cells": ["a"]}, {"channel": 1}, {"bits_per_cell": []}])
def test_a_damaged_entry_is_refused(change):
    found = protected(made("matmul"))
    body = json.loads(found.metadata_props[PROTECTION_KEY])
    found.metadata_props[PROTECTION_KEY] = json.dumps({**body, **change})
    with pytest.raises(ModelError, match=r"'onnx_analog\.protection' is damaged.*Protect the original again"):
        Protection.of(found)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}"])
def test_an_entry_that_is_not_there_or_no_json_is_refused(text):
    found = protected(made("matmul"))
    del found.metadata_props[PROTECTION_KEY]
    if text is not None:
        found.metadata_props[PROTECTION_KEY] = text
    with pytest.raises(ModelError, match="damaged"):
        Protection.of(found)


def test_a_channel_that_is_not_installed_is_named():
    found = protected(made("matmul"))
    body = found.metadata_props[PROTECTION_KEY].replace('"gaussian"', '"of another package"')
    found.metadata_props[PROTECTION_KEY] = body
    with pytest.raises(ChannelError, match="no channel is called 'of another package'"):
        Protection.of(found)


# ------------------------------------------------------------------------------------------- damaged models


def call(found: ir.Model) -> ir.Node:
    return stored_tensors(found)[0].node


def test_a_call_without_all_planes_is_refused():
    found = protected(made("matmul"))
    call(found).replace_input_with(1, None)
    with pytest.raises(ModelError, match="tensor 'w': the call that decodes it is damaged"):
        stored_tensors(found)


def test_classes_without_all_scales_are_refused():
    found = protected(made("matmul"))
    stored_tensors(found)[0].inputs["alpha"].const_value = ir.tensor(f32([1, 2, 3]))
    with pytest.raises(ModelError, match="tensor 'w': its alpha has 3 values for 2 classes"):
        opened(found)


def test_a_plane_that_a_node_computes_is_refused():
    found = protected(made("matmul"))
    node = ir.node("Identity", [call(found).inputs[0]])
    found.graph.insert_before(call(found), node)
    call(found).replace_input_with(0, node.outputs[0])
    with pytest.raises(ModelError, match="tensor 'w': its level is not in the model"):
        _ = stored_tensors(found)[0].level


def test_a_plane_that_is_made_of_one_number_is_refused():
    found = protected(made("matmul"))
    made_of_one = ir.node(
        "ConstantOfShape", [call(found).inputs[-1]], {"value": ir.AttrTensor("value", ir.tensor(f32([0])))}
    )
    found.graph.insert_before(call(found), made_of_one)
    call(found).replace_input_with(0, made_of_one.outputs[0])
    with pytest.raises(ModelError, match="tensor 'w': its level is not in the model"):
        opened(found)


def test_a_constant_is_found_and_replaced_where_another_tool_noted_its_value():
    found = protected(made("function"))
    tensor = stored_tensors(found)[0]
    value = tensor.inputs["level"]
    value.const_value = tensor.held("level")  # as passes that fold constants leave it
    level = f32(np.linspace(-0.5, 0.5, 256))
    stored_tensors(found)[0].replace_level(level)
    for kept in (found, ir.from_proto(ir.to_proto(found))):
        assert same_bits([stored_tensors(kept)[0].level], [level])


@pytest.mark.parametrize("shape", [(2**32, 2**32), (3, 2**62), (2**31, 2**31, 4)])
def test_a_size_is_no_int64(shape):
    tensor = by_hand()
    tensor.inputs["shape"].const_value = ir.tensor(np.array(shape))
    assert tensor.size == math.prod(shape)


def test_a_channel_that_is_read_cell_by_cell_has_a_bound():
    slow = LimitedPrecision(inner=UNIT, read_bits=4)
    assert protected(made("matmul"), channel=slow, cells_large=10_000)
    with pytest.raises(ChannelError, match="is read cell by cell, so a weight can have at most 10,000 cells"):
        protected(made("matmul"), channel=slow, cells_large=10**12)
    found = protected(made("matmul"), cells_large=10**12, channel=UNIT)
    assert Reader(stored_tensors(found)[0], Protection.of(found)).read(seed=0, trial=0).size == 256
    with pytest.raises(ChannelError, match="at most 10,000 cells; here it has 1,000,000,000,000"):
        with_channel(Protection.of(found), slow)


def test_other_calls_of_the_domain_are_no_tensors():
    found = protected(made("matmul"))
    assert len(found.functions) == 4
    assert all(function.domain == DOMAIN for function in found.functions.values())
    assert [tensor.key for tensor in stored_tensors(found)] == ["w"]


# ------------------------------------------------------------------------------------------------- reading


def test_cells_of_each_weight():
    tensor = by_hand(strategy="redundancy")
    assert np.asarray(cells_of(tensor, (3, 7))).tolist() == [3, 3, 3, 7, 7]
    assert cells_of(by_hand(strategy="sign"), (3,)) == 3


def test_a_reader_fills_the_array_it_is_given():
    found = protected(made("matmul"))
    (tensor,), out = stored_tensors(found), np.full(256, np.nan, np.float32)
    reader = Reader(tensor, Protection.of(found))
    assert reader.read(seed=1, trial=2, out=out) is out
    assert same_bits([out], [reader.read(seed=1, trial=2)])
    assert same_bits([out], [stored_tensors(ReadbackPass(seed=1, trial=2)(found).model)[0].level])


def test_a_reader_leaves_the_stored_levels_alone():
    found = protected(made("matmul"))
    (tensor,) = stored_tensors(found)
    before = tensor.level.copy()
    Reader(tensor, Protection.of(found)).read(seed=0, trial=0)
    assert same_bits([tensor.level], [before])


@pytest.mark.parametrize("sparsity", [0.0, 0.99])
def test_only_what_is_stored_is_read(sparsity):
    plain = made("matmul")
    PrunePass(sparsity=sparsity)(plain)
    found = protected(plain)
    (tensor,) = stored_tensors(ReadbackPass()(found).model)
    assert tensor.level.size == 256 - round(sparsity * 256)
    assert (tensor.decode() != 0).sum() == tensor.level.size


@pytest.mark.parametrize(("low", "high"), [(-0.65, 0.75), (-0.6500001, 0.75), (-9, 9)])
def test_a_channel_that_covers_the_span_is_taken(low, high):
    protection = Protection.of(protected(made("matmul"), cells_small=2))
    other = GaussianNoise(sigma=0.3, low=low, high=high)
    assert with_channel(protection, other) == Protection(
        strategy="redundancy", scope="tensor", cells=(2, 20), bits_per_cell=2, channel=other
    )


def test_no_other_channel_is_no_change():
    protection = Protection.of(protected(made("matmul")))
    assert with_channel(protection, None) == protection


def test_a_channel_may_be_named():
    protection = Protection.of(protected(made("matmul")))
    assert with_channel(protection, "gaussian:sigma=0.5").channel == GaussianNoise(sigma=0.5)


@pytest.mark.parametrize(("low", "high"), [(-0.65, 0.7499999), (-0.6499999, 0.75), (0, 0.1)])
def test_a_channel_that_does_not_cover_the_span_is_refused(low, high):
    protection = Protection.of(protected(made("matmul")))
    with pytest.raises(ChannelError, match=r"levels from -0\.65 to 0\.75, but gaussian"):
        with_channel(protection, GaussianNoise(low=low, high=high))
