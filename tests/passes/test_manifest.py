import json

import onnx_ir as ir
import pytest

from onnx_analog.errors import ModelError
from onnx_analog.graph.manifest_json import from_json
from onnx_analog.graph.protected import just_protected, open_protected
from onnx_analog.graph.stored import MANIFEST_KEY, stored_tensors
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ManifestPass, ReadbackPass
from tests.models import FAMILY, ZOO, differences, made, protected, serialized


@pytest.mark.parametrize("name", ZOO)
def test_the_entry_is_the_account_of_the_model(name):
    found = protected(name, selection=Selection())
    assert ManifestPass()(found).modified
    assert from_json(found.metadata_props[MANIFEST_KEY]) == open_protected(found).manifest
    assert [entry["key"] for entry in json.loads(found.metadata_props[MANIFEST_KEY])["tensors"]] == list(ZOO[name].keys)


@pytest.mark.parametrize("name", FAMILY)
def test_the_entry_of_each_kind_of_scheme(name):
    found = protected("conv", FAMILY[name])
    ManifestPass()(found)
    written = from_json(found.metadata_props[MANIFEST_KEY])
    assert written == open_protected(found).manifest == just_protected(found).manifest
    assert written.schemes == (FAMILY[name],)


def test_nothing_but_one_entry_is_added():
    before, after = protected("conv"), protected("conv")
    ManifestPass()(after)
    del after.metadata_props[MANIFEST_KEY]
    assert differences(ir.to_proto(before), ir.to_proto(after)) == set()


def test_the_entry_is_one_line():
    found = protected("matmul")
    ManifestPass()(found)
    assert "\n" not in found.metadata_props[MANIFEST_KEY]


def test_a_second_time_changes_nothing():
    found = protected("matmul")
    ManifestPass()(found)
    before = serialized(found)
    assert not ManifestPass()(found).modified
    assert serialized(found) == before


def test_an_entry_that_is_out_of_date_is_replaced():
    found = protected("matmul")
    ManifestPass()(found)
    stored_tensors(found)[0].node.outputs[0].name = "renamed"
    assert ManifestPass()(found).modified
    assert from_json(found.metadata_props[MANIFEST_KEY]).tensors[0].name == "renamed"


def test_what_was_read_does_not_replace_the_account_of_what_was_written():
    found = protected("matmul")
    ManifestPass()(found)
    assert not ManifestPass()(ReadbackPass()(found).model).modified


def test_damage_is_not_written_down_as_if_it_were_right():
    found = protected("matmul")
    ManifestPass()(found)
    tensor = stored_tensors(found)[0]
    tensor.replace_level(tensor.level[::-1].copy())
    with pytest.raises(ModelError, match="tensor 'w': its level"):
        ManifestPass().call(found)


def test_a_plain_model_is_refused():
    plain = made("matmul")
    with pytest.raises(ModelError, match="not protected"):
        ManifestPass().call(plain)
    assert plain.metadata_props == {}
