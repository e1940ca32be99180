"""The graph around decoded weights must fit their shapes: a file whose shapes were changed is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_analog as oa
from onnx_analog.errors import ModelError
from onnx_analog.graph import files, skeleton
from onnx_analog.graph.protected import opened
from onnx_analog.graph.stored import schemes_of

BODIES = """<ir_version: 8, opset_import: ["": 17, "loc": 1]>
g (float[N,16] x, bool c) => (float[N,16] y) <float[16,16] w = W> {
  h = MatMul(x, w)
  z = If (c) <
    then_branch = a () => (float[N,16] p) <float[16,16] u = W> { p = MatMul(h, u) },
    else_branch = b () => (float[N,16] q) <float[16,16] v = W> { q = MatMul(h, v) }
  >
  y = loc.double(z)
}
<domain: "loc", opset_import: ["": 17]>
double (z) => (y) { y = Add(z, z) }
"""


@pytest.fixture
def path(tmp_path):
    numbers = np.linspace(-1, 1, 256).tolist()
    model = onnx.parser.parse_model(BODIES.replace("W", "{" + ", ".join(f"{number:.3f}" for number in numbers) + "}"))
    onnx.save(model, tmp_path / "m.onnx")
    oa.protect(tmp_path / "m.onnx", selection=oa.Selection(min_size=16)).save(tmp_path / "p.onnx")
    return tmp_path / "p.onnx"


def refusal(path):
    with pytest.raises(ModelError) as caught:
        opened(files.load(path))
    return str(caught.value)


def changed(path, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def test_a_model_that_fits_is_accepted_and_its_skeleton_has_no_data(path):
    model = files.load(path)
    opened(model)
    small = skeleton.skeleton_of(model, schemes_of(model))
    graph = onnx.ModelProto.FromString(small).graph
    assert not graph.initializer
    made = ort.InferenceSession(small)  # it computes zeros
    feeds = {"x": np.ones((2, 16), np.float32), "c": np.array(True)}
    np.testing.assert_array_equal(made.run(None, feeds)[0], np.zeros((2, 16)))


def test_an_input_that_does_not_fit_is_refused_as_onnxruntime_does_when_it_folds(path):
    changed(path, lambda graph: setattr(graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 15))
    with pytest.raises(Exception, match="Incompatible dimensions"):
        ort.InferenceSession(str(path))
    assert "onnxruntime refuses it: " in refusal(path)
    assert "Incompatible dimensions" in refusal(path)


def test_another_declared_shape_is_refused(path):
    def drop_axis(graph):
        del next(value for value in graph.value_info if value.name == "w").type.tensor_type.shape.dim[0]

    changed(path, drop_axis)
    assert "tensor 'w': the model declares its shape as [16], and it is [16, 16]" in refusal(path)


def test_a_model_that_was_just_protected_is_not_asked_again(path, monkeypatch):
    def asked(*_, **__):
        raise AssertionError

    monkeypatch.setattr(skeleton, "skeleton_of", asked)
    assert oa.protect(path.parent / "m.onnx", selection=oa.Selection(min_size=16)).manifest
    with pytest.raises(AssertionError):
        opened(files.load(path))
