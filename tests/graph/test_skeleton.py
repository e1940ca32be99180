"""The graph around decoded weights must fit their shapes: a file whose shapes were changed is refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_analog as oa
from onnx_analog.errors import ModelError
from onnx_analog.graph import files, runtime
from onnx_analog.graph.protected import open_protected
from onnx_analog.passes import ProtectPass

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
        open_protected(files.load(path))
    return str(caught.value)


def changed(path, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def test_a_model_that_fits_is_accepted(path):
    assert open_protected(files.load(path)).tensors
    assert open_protected(files.load(path)).tensors


def skeleton_of(model):
    """Return what onnxruntime is asked about, as it loads it."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.runtime, "refusal", lambda source, **_: asked.append(source))
        open_protected(model)
    (proto,) = map(onnx.ModelProto.FromString, asked)
    return proto


def test_onnxruntime_is_asked_about_a_copy_without_weights_that_computes_the_same(path):
    model = files.load(path)
    weights = open_protected(model).decode()
    proto = skeleton_of(files.load(path))
    assert not proto.graph.initializer
    session = ort.InferenceSession(proto.SerializeToString())
    feeds = {"x": np.ones((2, 16), np.float32), "c": np.array(True)}
    inputs = [value.name for value in session.get_inputs() if value.name not in feeds]
    expected = ort.InferenceSession(str(path)).run(None, feeds)
    found = session.run(None, {**feeds, **dict(zip(inputs, weights.values(), strict=True))})
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)


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


def test_a_weight_in_a_function_is_checked_too(tmp_path):
    text = """<ir_version: 8, opset_import: ["": 17, "loc": 1]>
    g (float[N,16] x) => (float[N,8] y) { y = loc.dense(x) }
    <domain: "loc", opset_import: ["": 17]>
    dense (x) => (y) { w = Constant <value = float[16,8] W> ()  y = MatMul(x, w) }
    """
    numbers = ", ".join(f"{number:.3f}" for number in np.linspace(-1, 1, 128))
    onnx.save(onnx.parser.parse_model(text.replace("W", "{" + numbers + "}")), tmp_path / "m.onnx")
    oa.protect(tmp_path / "m.onnx", selection=oa.Selection(min_size=16)).save(tmp_path / "p.onnx")
    assert open_protected(files.load(tmp_path / "p.onnx")).tensors
    changed(tmp_path / "p.onnx", lambda graph: setattr(graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 15))
    assert "onnxruntime refuses it: " in refusal(tmp_path / "p.onnx")


def test_a_model_that_was_just_protected_is_not_asked_again(path, monkeypatch):
    def asked(*_, **__):
        raise AssertionError

    plain, written = files.load(path.parent / "m.onnx"), files.load(path)
    monkeypatch.setattr(files, "strict_refusal", asked)
    assert open_protected(ProtectPass(selection=oa.Selection(min_size=16))(plain).model).tensors
    with pytest.raises(AssertionError):
        open_protected(written)


SCAN = """<ir_version: 10, opset_import: ["": 18]>
g (float[SIDES] x) => (float[16] last, float[T,16] y) <int64[1] n = {16}> {
  start = ConstantOfShape (n)
  last, y = Scan <num_scan_inputs = 1, body = b (float[16] h, float[BODY] t) => (float[16] u, float[16] v) {
    u = Add(h, t)
    v = Relu(u)
  }> (start, x)
}
"""


def test_a_plain_model_that_onnxruntime_refuses_by_default_is_refused_when_it_is_opened(tmp_path):
    for sides, body, fits in (("T,16", "16", True), ("", "T,16", False)):
        onnx.save(onnx.parser.parse_model(SCAN.replace("SIDES", sides).replace("BODY", body)), tmp_path / "m.onnx")
        assert runtime.refusal(tmp_path / "m.onnx") is None  # the quick look does not see it
        if fits:
            assert ort.InferenceSession(str(tmp_path / "m.onnx"))
            assert files.load(tmp_path / "m.onnx")
            continue
        with pytest.raises(Exception, match="dimensions"):
            ort.InferenceSession(str(tmp_path / "m.onnx"))
        with pytest.raises(ModelError, match="onnxruntime refuses it: "):
            files.load(tmp_path / "m.onnx")
