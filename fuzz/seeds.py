"""Small models, one for each place where weights hide and each kind of output, and the data that go with them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
SAMPLES = 3


@dataclass(frozen=True)
class Seed:
    """A model as files of one folder, and the inputs of an evaluation."""

    model: bytes
    data: bytes  # npz
    files: dict[str, bytes] = field(default_factory=dict)  # external data


def _weight(name: str, *shape: int, kind: Any = np.float32) -> TensorProto:
    """Return normal numbers that depend on the name and shape only."""
    rng = np.random.default_rng([*name.encode(), *shape])
    return numpy_helper.from_array((rng.normal(size=shape) / math.sqrt(shape[0])).astype(kind), name)


def _model(text: str, *weights: TensorProto) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        text if "ir_version" in text else f'<ir_version: 10, opset_import: ["": 18]> {text}'
    )
    model.graph.initializer.extend(weights)
    return model


def _mlp() -> onnx.ModelProto:
    return _model(
        "mlp (float[N, 16] x) => (float[N, 6] y) { a = MatMul(x, w) b = Add(a, bias) c = Relu(b) y = MatMul(c, v) }",
        _weight("w", 16, 16),
        _weight("bias", 16),
        _weight("v", 16, 6),
    )


def _conv() -> onnx.ModelProto:
    return _model(
        """conv (float[N, 2, 6, 6] x) => (float[N, 5] y) {
            a = Conv<pads = [1, 1, 1, 1]>(x, k, kb) n = BatchNormalization(a, s, o, m, r) b = Relu(n)
            c = GlobalAveragePool(b) d = Flatten(c) y = Gemm<transB = 1>(d, g, gb) }""",
        _weight("k", 8, 2, 3, 3),
        *(_weight(name, 8) for name in ("kb", "s", "o", "m")),
        numpy_helper.from_array(np.full(8, 0.5, np.float32), "r"),
        _weight("g", 5, 8),
        _weight("gb", 5),
    )


def _images() -> onnx.ModelProto:
    return _model(
        "images (float[N, 2, 6, 6] x) => (float[N, 1, 6, 6] y) { a = Conv<pads = [1, 1, 1, 1]>(x, k) y = Conv(a, p) }",
        _weight("k", 16, 2, 3, 3),
        _weight("p", 1, 16, 1, 1),
    )


def _lstm() -> onnx.ModelProto:
    return _model(
        """lstm (float[T, 1, 8] x) => (float[T, 1, 1, 4] y, float[1, 1, 4] h) {
            y, h = LSTM<hidden_size = 4>(x, W, R, B) }""",
        _weight("W", 1, 16, 8),
        _weight("R", 1, 16, 4),
        _weight("B", 1, 32),
    )


def _if() -> onnx.ModelProto:
    model = _model(
        """branches (float[N, 16] x, bool[] c) => (float[N, 16] y) {
            z = MatMul(x, w)
            i = If(c) <then_branch = t () => (float[N, 16] p) { p = MatMul(z, u) },
                       else_branch = e () => (float[N, 16] q) { q = MatMul(z, v) }>
            y = Add(i, x) }""",
        _weight("w", 16, 16),
    )
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.g.initializer.append(_weight("u" if attribute.name == "then_branch" else "v", 16, 16))
    return model


def _loop() -> onnx.ModelProto:
    model = _model(
        """loop (float[2, 16] x) => (float[2, 16] y, float[K, 2, 16] all) {
            n = Constant<value = int64 {3}>() c = Constant<value = bool {1}>()
            y, all = Loop(n, c, x) <body = b (int64 i, bool go, float[2, 16] s)
                => (bool on, float[2, 16] t, float[2, 16] each)
                { on = Identity(go) m = MatMul(s, w) t = Tanh(m) each = MatMul(t, v) }> }""",
        _weight("w", 16, 16),
    )
    model.graph.node[-1].attribute[0].g.initializer.append(_weight("v", 16, 16))
    return model


def _scan() -> onnx.ModelProto:
    return _model(
        """scan (float[T, 16] x) => (float[16] last, float[T, 16] y) {
            z = ConstantOfShape(n)
            last, y = Scan<num_scan_inputs = 1, body = b (float[16] s, float[16] e) => (float[16] t, float[16] o)
                { m = MatMul(s, w) t = Add(m, e) o = Relu(t) }>(z, x) }""",
        numpy_helper.from_array(np.array([16]), "n"),
        _weight("w", 16, 16),
    )


def _function() -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18, "loc": 1]>
        calls (float[N, 16] x) => (float[N, 16] y) { a = loc.dense(x) b = loc.dense(a) y = MatMul(b, w) }
        <domain: "loc", opset_import: ["": 18]> dense (p) => (q) { u = Constant() r = MatMul(p, u) q = Tanh(r) }"""
    )
    model.graph.initializer.append(_weight("w", 16, 16))
    model.functions[0].node[0].attribute.append(helper.make_attribute("value", _weight("u", 16, 16)))
    return model


def _constants() -> onnx.ModelProto:
    model = _model("constants (float[N, 16] x) => (float[N, 8] y) { w = Constant() a = MatMul(x, w) y = MatMul(a, v) }")
    model.graph.node[0].attribute.append(helper.make_attribute("value", _weight("w", 16, 16)))
    model.graph.initializer.append(_weight("v", 16, 8))
    return model


def _sparse() -> onnx.ModelProto:
    model = _model(
        "sparse (float[N, 16] x) => (float[N, 16] y) { a = MatMul(x, s) y = MatMul(a, w) }", _weight("w", 16, 16)
    )
    dense = numpy_helper.to_array(_weight("s", 16, 16)).reshape(-1)
    positions = np.arange(0, 256, 5)
    sparse = model.graph.sparse_initializer.add(dims=[16, 16])
    sparse.values.CopyFrom(numpy_helper.from_array(dense[positions], "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(positions, "s.indices"))
    return model


def _types() -> onnx.ModelProto:
    """Return a model whose weights are float16, bfloat16, double and pruned by a half."""
    pruned = numpy_helper.to_array(_weight("p", 16, 16)).copy()
    pruned[np.abs(pruned) < 0.15] = 0
    return _model(
        """types (float[N, 16] x) => (float[N, 8] y) {
            hf = Cast<to = 1>(h) bf = Cast<to = 1>(b) df = Cast<to = 1>(d)
            a = MatMul(x, hf) e = MatMul(a, bf) f = MatMul(e, p) y = MatMul(f, df) }""",
        _weight("h", 16, 16, kind=np.float16),
        _weight("b", 16, 16, kind=ml_dtypes.bfloat16),
        _weight("d", 16, 8, kind=np.float64),
        numpy_helper.from_array(pruned, "p"),
    )


def _sequence() -> onnx.ModelProto:
    return _model(
        """pieces (float[N, 16] x) => (float[N, 6] y, seq(float[N, 1]) parts) {
            y = MatMul(x, w) parts = SplitToSequence<axis = 1>(y) }""",
        _weight("w", 16, 6),
    )


def _map() -> onnx.ModelProto:
    model = _model(
        """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
        classifier (float[N, 16] x) => (float[N, 3] p, int64[N] label) {
            z = MatMul(x, w) p = Softmax<axis = 1>(z) label = ArgMax<axis = 1, keepdims = 0>(p)
            probs = ai.onnx.ml.ZipMap<classlabels_int64s = [0, 1, 2]>(p) }""",
        _weight("w", 16, 3),
    )
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
    )
    model.graph.output.append(helper.make_value_info("probs", kind))
    return model


def _tied() -> onnx.ModelProto:
    return _model(
        """tied (int64[N, 4] x) => (float[N, 4, 20] y) {
            e = Gather(table, x) h = MatMul(e, w) t = Transpose<perm = [1, 0]>(table) y = MatMul(h, t) }""",
        _weight("table", 20, 8),
        _weight("w", 8, 8),
    )


def _quantised() -> onnx.ModelProto:
    return _model(
        """quantised (float[N, 16] x) => (float[N, 6] y) {
            q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) k = DequantizeLinear(k8, ks)
            a = MatMul(d, k) y = MatMul(a, w) }""",
        numpy_helper.from_array(np.array(0.05, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.int8), "z"),
        numpy_helper.from_array((numpy_helper.to_array(_weight("k8", 16, 16)) * 100).astype(np.int8), "k8"),
        numpy_helper.from_array(np.array(0.01, np.float32), "ks"),
        _weight("w", 16, 6),
    )


def _old() -> onnx.ModelProto:
    """Return a model of IR 3, whose initializers are inputs too."""
    return _model(
        """<ir_version: 3, opset_import: ["": 11]>
        old (float[N, 16] x, float[16, 16] w) => (float[N, 16] y) { a = MatMul(x, w) y = Relu(a) }""",
        _weight("w", 16, 16),
    )


def _external() -> onnx.ModelProto:
    model = _mlp()
    offset = 0
    for tensor in model.graph.initializer:
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": "m.onnx.data", "offset": str(offset), "length": str(len(tensor.raw_data))}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        offset += len(tensor.raw_data)
        tensor.ClearField("raw_data")
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": _mlp,
    "conv": _conv,
    "images": _images,
    "lstm": _lstm,
    "if": _if,
    "loop": _loop,
    "scan": _scan,
    "function": _function,
    "constants": _constants,
    "sparse": _sparse,
    "types": _types,
    "sequence": _sequence,
    "map": _map,
    "tied": _tied,
    "quantised": _quantised,
    "old": _old,
    "external": _external,
}


def seed(name: str) -> Seed:
    """Return the model called `name`, as files."""
    model = MODELS[name]()
    files = {}
    if name == "external":
        files["m.onnx.data"] = b"".join(tensor.raw_data for tensor in _mlp().graph.initializer)
    return Seed(model.SerializeToString(deterministic=True), data_for(model), files)


def data_for(model: onnx.ModelProto) -> bytes:
    """Return an npz file with an array for each input of a model that has no default, and labels."""
    rng = np.random.default_rng(7)
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs: dict[str, tuple[int, list[int]]] = {}
    arrays: dict[str, Array] = {}
    takes_samples = True
    for value in model.graph.input:
        if value.name in initializers:
            continue
        kind, sides = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
        shape = [side.dim_value or SAMPLES for side in sides]
        takes_samples &= bool(sides) and sides[0].dim_param == "N"
        inputs[value.name] = kind, shape
    for name, (kind, shape) in inputs.items():  # where an input has no axis for samples, each is a call of its own
        arrays[name] = drawn(kind, shape if takes_samples else [SAMPLES, *shape], rng)
    first = model.graph.output[0].type.tensor_type.shape.dim
    labels = {"y": np.arange(SAMPLES)} if takes_samples and len(first) == 2 else {}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays, **labels)
    return file.getvalue()


def drawn(kind: int, shape: list[int], rng: np.random.Generator) -> Array:
    """Return an array of an ONNX element type: normal numbers, small indices, true or false, or letters."""
    if kind == TensorProto.STRING:
        return np.full(shape, "a", object)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if dtype == np.bool_:
        return rng.random(shape) < 0.7
    if dtype.kind in "iu":
        return rng.integers(0, 3, shape).astype(dtype)
    return rng.normal(size=shape).astype(dtype)
