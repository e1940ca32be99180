import hashlib
import json
import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import AnalogError, ChannelError, ModelError
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.reader import Reader, read_side
from onnx_analog.graph.stored import (
    FORMAT_KEY,
    SCHEMES_KEY,
    StoredTensor,
    channels_of,
    is_protected,
    read_with,
    schemes_of,
    stored_tensors,
    with_channel,
)
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ReadbackPass
from tests.models import CENTRED, FAMILY, QUIET, UNIT, ZOO, f32, holding, made, protected, same_bits

BY_HAND = f32([[1, -2, 0], [1.5, 4, -8]])


def by_hand(plan: Scheme | None = None, **options: Any) -> StoredTensor:
    settings = {} if plan else {"channel": CENTRED, "large_fraction": 0.4, **options}
    (tensor,) = stored_tensors(protected(holding(w=BY_HAND), plan, **settings))
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
    assert tensor.class_counts.tolist() == [3, 2]
    assert same_bits([tensor.alpha, tensor.beta], [f32([[1, 0.25]]), f32([[1.5, 1.5]])])
    assert same_bits([tensor.decode()], [BY_HAND])


def test_other_levels_are_decoded_in_place_of_the_stored_ones():
    decoded = by_hand().decode(f32([0, 0, 0, 0, 0]))
    assert decoded.tolist() == [[1.5, -1.5, 0], [1.5, 6, -6]]


def test_a_plane_that_the_scheme_does_not_have_is_none():
    tensor = by_hand(strategy="raw")
    assert (tensor.sign, tensor.class_index) == (None, None)
    assert tensor.class_counts.tolist() == [5]


def test_digests_are_those_of_the_bytes():
    tensor = by_hand(strategy="sign")
    assert tensor.digests() == {
        "level": hashlib.sha256(tensor.level.tobytes()).hexdigest(),
        "mask": hashlib.sha256(bytes([0b111011])).hexdigest(),
        "sign": hashlib.sha256(bytes([0b10010])).hexdigest(),
    }


MIXED = Scheme(classes=3, partition="bounds", bounds=(1.2, 3), cells=(0, 2, 5), granularity="channel", channel=UNIT)


def test_a_tensor_whose_columns_have_scales_of_their_own_by_hand():
    """Columns of w are (1, 1.5), (-2, 4) and (0, -8); sizes up to 1.2 have no cells, and those above 3 have five."""
    tensor = by_hand(MIXED)
    assert (tensor.layout.name, tensor.layout.width) == ("DecodeMaskedSignedClass2MixedGrouped", 2)
    assert tensor.class_index is not None
    assert tensor.class_index.tolist() == [0, 1, 1, 2, 2]
    assert tensor.class_counts.tolist() == [1, 2, 2]
    assert tensor.group is not None
    assert tensor.group.tolist() == [0, 1, 0, 1, 2]
    assert tensor.analog is not None
    assert tensor.analog.tolist() == [False, True, True, True, True]
    assert tensor.level_class is not None
    assert tensor.level_class.tolist() == [1, 1, 2, 2]
    assert tensor.plane("class").tolist() == [0b10_01_01_00, 0b10]
    assert tensor.plane("analog").tolist() == [0, 1, 1]
    assert tensor.plane("stride").tolist() == [1]
    assert tensor.alpha.shape == tensor.beta.shape == (3, 3)
    assert tensor.beta[0, 0] == 1  # the point of the first column's class without cells
    assert same_bits([tensor.level], [f32([1, 1, 1, 1])])  # each alone in its class and column: from 0 to itself
    assert same_bits([tensor.decode()], [BY_HAND])
    assert sorted(tensor.digests()) == ["alpha", "beta", "class", "level", "mask", "sign", "stride"]


@pytest.mark.parametrize("name", FAMILY)
def test_properties_follow_from_the_planes_that_are_there(name):
    tensor = stored_tensors(protected("two scales", FAMILY[name]))[1]
    tensor.replace_side(*read_side(tensor, seed=0, trial=0))
    index = np.zeros(tensor.count, int) if tensor.class_index is None else tensor.class_index
    assert tensor.class_counts.tolist() == np.bincount(index, minlength=tensor.scheme.classes).tolist()
    cells = np.array(tensor.scheme.cells_of_class)[index]
    assert tensor.level.size == (cells > 0).sum()
    assert (tensor.analog is None) == bool((cells > 0).all())
    assert (tensor.level_class is None) == (tensor.scheme.classes == 1)
    if tensor.level_class is not None:
        assert tensor.level_class.tolist() == index[cells > 0].tolist()


def test_what_is_replaced_is_seen_at_once():
    tensor = by_hand()
    before = tensor.decode()
    sign, index = tensor.sign, tensor.class_index
    assert sign is not None
    assert index is not None
    assert same_bits([before], [BY_HAND])
    tensor.replace_level(f32([0, 0, 0, 0, 0]))
    tensor.replace_side(~sign, 1 - index)
    assert tensor.decode().tolist() == [[-6, 6, 0], [-6, -1.5, 1.5]]
    assert tensor.class_counts.tolist() == [2, 3]


@pytest.mark.parametrize("name", ["matmul", "function"])
def test_levels_that_are_replaced_are_found_again(name):
    found = protected(name)
    level = f32(np.linspace(-0.5, 0.5, 256))
    stored_tensors(found)[0].replace_level(level)
    assert same_bits([stored_tensors(found)[0].level], [level])


@pytest.mark.parametrize(
    ("name", "uses"),
    [("matmul", 1), ("tied", 2), ("weight that is an output", 2), ("if that uses an outer weight", 2)],
)
def test_uses_count_inputs_of_nodes_and_outputs_of_the_graph(name, uses):
    assert [tensor.uses for tensor in stored_tensors(protected(name, selection=Selection()))] == [uses]


@pytest.mark.parametrize("name", ZOO)
def test_tensors_are_found_again_after_a_round_trip_through_bytes(name):
    found = protected(name, selection=Selection())
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


# ------------------------------------------------------------------------------------------------- schemes


@pytest.mark.parametrize("name", FAMILY)
def test_schemes_are_kept_in_the_metadata(name):
    found = protected("two scales", Plan(default=FAMILY[name], tensors={"b": FAMILY["redundancy by a bound"]}))
    again = ir.from_proto(ir.to_proto(found))
    assert schemes_of(again) == tuple(dict.fromkeys((FAMILY[name], FAMILY["redundancy by a bound"])))
    assert [tensor.scheme for tensor in stored_tensors(again)] == [FAMILY[name], FAMILY["redundancy by a bound"]]
    assert [tensor.number for tensor in stored_tensors(again)] == [0, name != "redundancy by a bound"]


@pytest.mark.parametrize("channel", ["pcm", "gaussian:sigma=0.2", "pcm-partial-reset", "pcm-drift:differential=true"])
def test_a_channel_is_the_same_before_and_after_it_was_kept(channel):
    scheme = Scheme.paper("mapping", granularity="model", cells_small=3, side_bits_per_cell=4, channel=channel)
    (kept,) = schemes_of(protected("matmul", scheme))
    assert kept == scheme
    level = np.linspace(*scheme.channel.span, 50)
    for one, other in zip(kept.channel.moments(level), scheme.channel.moments(level), strict=True):
        assert same_bits([one], [other])


def test_a_plain_model_has_none():
    assert not is_protected(made("matmul"))
    with pytest.raises(ModelError, match=r"^the model is not protected: protect it first$"):
        schemes_of(made("matmul"))


@pytest.mark.parametrize("name", ["matmul", "if", "function"])
def test_a_model_is_protected_by_its_metadata_or_its_calls(name):
    found = protected(name)
    for key in [*found.metadata_props]:
        del found.metadata_props[key]
        assert is_protected(found)
    plain = made(name)
    plain.metadata_props[FORMAT_KEY] = "2"
    assert is_protected(plain)


@pytest.mark.parametrize("version", ["1", "3", ""])
def test_another_format_is_refused_in_one_line(version):
    found = protected("matmul")
    found.metadata_props[FORMAT_KEY] = version
    with pytest.raises(ModelError) as refused:
        open_protected(found)
    assert str(refused.value) == (
        f"the model is protected in format {version}, and this version reads format 2. Protect the original again"
    )


@pytest.mark.parametrize("change", [{"cells": None}, {"cells": ["a"]}, {"channel": 1}, {"classes": []}, {"a": 1}])
def test_a_damaged_scheme_is_refused(change):
    found = protected("matmul")
    (body,) = json.loads(found.metadata_props[SCHEMES_KEY])
    found.metadata_props[SCHEMES_KEY] = json.dumps([{**body, **change}])
    with pytest.raises(
        AnalogError, match=r"'onnx_analog\.schemes' is damaged.*Protect the original again|channel is 1"
    ):
        schemes_of(found)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", "[[]]", "[3]", "null"])
def test_an_entry_that_is_not_there_or_no_list_of_schemes_is_refused(text):
    found = protected("matmul")
    del found.metadata_props[SCHEMES_KEY]
    if text is not None:
        found.metadata_props[SCHEMES_KEY] = text
    with pytest.raises(ModelError, match="damaged"):
        schemes_of(found)


def test_more_schemes_than_tensors_are_refused_before_one_is_made():
    found = protected("two scales")
    (body,) = json.loads(found.metadata_props[SCHEMES_KEY])
    found.metadata_props[SCHEMES_KEY] = json.dumps([body] * 2)
    assert len(schemes_of(found)) == 2
    found.metadata_props[SCHEMES_KEY] = json.dumps([body, body, {"not": "a scheme"}])
    with pytest.raises(ModelError, match=r"it lists 3 schemes, more than there are tensors\. Protect the original"):
        schemes_of(found)


def test_a_channel_that_is_not_installed_is_named():
    found = protected("matmul")
    body = found.metadata_props[SCHEMES_KEY].replace('"gaussian"', '"of another package"')
    found.metadata_props[SCHEMES_KEY] = body
    with pytest.raises(ChannelError, match="no channel is called 'of another package'"):
        schemes_of(found)


# ------------------------------------------------------------------------------------------- damaged models


def call(found: ir.Model) -> ir.Node:
    return stored_tensors(found)[0].node


def test_a_call_without_all_planes_is_refused():
    found = protected("matmul")
    call(found).replace_input_with(1, None)
    with pytest.raises(ModelError, match="tensor 'w': the call that decodes it is damaged"):
        stored_tensors(found)


def test_classes_without_all_scales_are_refused():
    found = protected("matmul")
    stored_tensors(found)[0].inputs["alpha"].const_value = ir.tensor(f32([1, 2, 3]))
    with pytest.raises(ModelError, match="tensor 'w': its alpha has 3 values for 2 classes"):
        open_protected(found)


def test_a_plane_that_a_node_computes_is_refused():
    found = protected("matmul")
    node = ir.node("Identity", [call(found).inputs[0]])
    found.graph.insert_before(call(found), node)
    call(found).replace_input_with(0, node.outputs[0])
    with pytest.raises(ModelError, match="tensor 'w': its level is not in the model"):
        _ = stored_tensors(found)[0].level


def test_a_plane_that_is_made_of_one_number_is_refused():
    found = protected("matmul")
    made_of_one = ir.node(
        "ConstantOfShape", [call(found).inputs[-1]], {"value": ir.AttrTensor("value", ir.tensor(f32([0])))}
    )
    found.graph.insert_before(call(found), made_of_one)
    call(found).replace_input_with(0, made_of_one.outputs[0])
    with pytest.raises(ModelError, match="tensor 'w': its level is not in the model"):
        open_protected(found)


def test_a_constant_is_found_and_replaced_where_another_tool_noted_its_value():
    found = protected("function")
    tensor = stored_tensors(found)[0]
    value = tensor.inputs["level"]
    value.const_value = tensor.plane_tensor("level")  # as passes that fold constants leave it
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
    assert protected("matmul", channel=slow, cells_large=10_000)
    with pytest.raises(ChannelError, match="is read cell by cell, so a weight can have at most 10,000 cells"):
        protected("matmul", channel=slow, cells_large=10**12)
    (tensor,) = stored_tensors(protected("matmul", cells_large=10**12, channel=UNIT))
    assert Reader(tensor).read(seed=0, trial=0).size == 256
    with pytest.raises(ChannelError, match="at most 10,000 cells; here it has 1,000,000,000,000"):
        with_channel(tensor.scheme, slow)


def test_other_calls_of_the_domain_are_no_tensors():
    found = protected("matmul")
    assert len(found.functions) == 1  # the one that is called
    assert all(function.domain == DOMAIN for function in found.functions.values())
    assert [tensor.key for tensor in stored_tensors(found)] == ["w"]


# ------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", FAMILY)
def test_each_level_is_read_from_as_many_cells_as_its_class_has(name):
    """The noise of a level is that of one cell, drawn alike, over the root of its number of cells."""
    (tensor,) = stored_tensors(protected("matmul", FAMILY[name]))
    noise = (Reader(tensor).read(seed=1, trial=2) - tensor.level).astype(np.float64)
    classes = tensor.scheme.classes
    one = with_channel(tensor.scheme, None).changed(cells=tuple(min(1, c) for c in tensor.scheme.cells_of_class))
    alone = (Reader(tensor, one).read(seed=1, trial=2) - tensor.level).astype(np.float64)
    index = np.zeros(tensor.level.size, int) if tensor.level_class is None else tensor.level_class
    cells = np.array(tensor.scheme.cells_of_class)[index]
    assert index.max(initial=0) < classes
    np.testing.assert_allclose(noise * np.sqrt(cells), alone, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_side_information_is_read_as_stored_unless_it_is_analog(name):
    (tensor,) = stored_tensors(protected("matmul", FAMILY[name]))
    sign, index = read_side(tensor, seed=0, trial=0)
    analog = tensor.scheme.side is not None
    for read, stored in ((sign, tensor.sign), (index, tensor.class_index)):
        assert (read is None) == (stored is None)
        if read is not None and stored is not None:
            assert read.shape == stored.shape
            assert read.dtype == stored.dtype
            assert same_bits([read], [stored]) == (not analog)
    assert index is None or int(index.max()) < tensor.scheme.classes


def test_a_reader_fills_the_array_it_is_given():
    found = protected("matmul")
    (tensor,), out = stored_tensors(found), np.full(256, np.nan, np.float32)
    reader = Reader(tensor)
    assert reader.read(seed=1, trial=2, out=out) is out
    assert same_bits([out], [reader.read(seed=1, trial=2)])
    assert same_bits([out], [stored_tensors(ReadbackPass(seed=1, trial=2)(found).model)[0].level])


def test_a_reader_leaves_the_stored_levels_alone():
    found = protected("matmul")
    (tensor,) = stored_tensors(found)
    before = tensor.level.copy()
    Reader(tensor).read(seed=0, trial=0)
    assert same_bits([tensor.level], [before])


@pytest.mark.parametrize("sparsity", [0.0, 0.99])
def test_only_what_is_stored_is_read(sparsity):
    found = protected("matmul", sparsity=sparsity)
    (tensor,) = stored_tensors(ReadbackPass()(found).model)
    assert tensor.level.size == 256 - round(sparsity * 256)
    assert (tensor.decode() != 0).sum() == tensor.level.size


def scheme() -> Scheme:
    return Scheme.paper("redundancy", cells_small=2, channel=QUIET)


@pytest.mark.parametrize(("low", "high"), [(-0.65, 0.75), (-0.6500001, 0.75), (-9, 9)])
def test_a_channel_that_covers_the_output_range_is_taken(low, high):
    other = GaussianNoise(sigma=0.3, low=low, high=high)
    assert with_channel(scheme(), other) == scheme().changed(channel=other)


def test_no_other_channel_is_no_change():
    given = scheme()
    assert with_channel(given, None) is given


def test_a_channel_may_be_named():
    assert with_channel(scheme(), "gaussian:sigma=0.5").channel == GaussianNoise(sigma=0.5)


def test_modifiers_change_the_channel_and_that_of_side_information_where_they_can():
    modifiers = Modifiers(read_bits=4)
    given = scheme().changed(side_channel=GaussianNoise(sigma=0.3))
    changed = with_channel(given, None, modifiers)
    assert changed.channel == modifiers.apply(given.channel)
    assert changed.side_channel == modifiers.apply_where_possible(given.side_channel)


@pytest.mark.parametrize(("low", "high"), [(-0.65, 0.7499999), (-0.6499999, 0.75), (0, 0.1)])
def test_a_channel_that_does_not_cover_the_output_range_is_refused(low, high):
    with pytest.raises(ChannelError, match=r"levels from -0\.65 to 0\.75, but gaussian"):
        with_channel(scheme(), GaussianNoise(low=low, high=high))


# ---------------------------------------------------------------------------------------------- nothing in cells


ANALOG_SIDE = Scheme.int8(side_channel=GaussianNoise(sigma=0.3))


def test_schemes_without_analog_cells_are_read_through_any_channel():
    """Their digital streams are: whatever its output range, for no level was written."""
    other, narrow, digital = GaussianNoise(sigma=0.3), GaussianNoise(low=0, high=0.1), Scheme.int8()
    changed = {digital: digital.changed(channel=other), scheme(): scheme().changed(channel=other)}
    assert read_with([digital, scheme()], other) == changed
    assert read_with([digital], narrow) == {digital: digital.changed(channel=narrow)}
    assert read_with([digital], None) == {digital: digital}
    assert read_with([], None) == {}


def test_modifiers_change_side_information_without_other_cells():
    modifiers = Modifiers(read_bits=4)
    changed = read_with([ANALOG_SIDE], None, modifiers)[ANALOG_SIDE]
    assert changed.side_channel == modifiers.apply(ANALOG_SIDE.side_channel)
    assert changed.channel == modifiers.apply(ANALOG_SIDE.channel)


def test_channels_are_named_once():
    schemes = [Scheme(channel="rram-milo"), Scheme(channel="pcm"), Scheme(channel="pcm", cells=(2,))]
    assert channels_of([Scheme.int8(channel="pcm"), *schemes]) == "pcm and rram-milo"
    assert channels_of([Scheme.int8()]) == "pcm"
