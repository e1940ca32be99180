import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_analog import api
from onnx_analog.errors import ModelError
from onnx_analog.graph import checking, files
from tests import models
from tests.models import ZOO, made_proto

# ------------------------------------------------------------------------- what is accepted, onnxruntime accepts


def messages(message: Any) -> Iterator[Any]:
    """Yield `message` and every message in it."""
    waiting = [message]
    while waiting:
        message = waiting.pop()
        yield message
        for part in message.DESCRIPTOR.fields:
            if part.message_type is not None:
                held = getattr(message, part.name)
                waiting += held if part.is_repeated else [held] if message.HasField(part.name) else []


def words(model: onnx.ModelProto) -> list[str]:
    """Return every text in `model` that may be a name."""
    found = {""}
    for message in messages(model):
        for part in message.DESCRIPTOR.fields:
            if part.type == part.TYPE_STRING:
                held = getattr(message, part.name)
                found.update(held if part.is_repeated else [held])
    return sorted(found)


def edit(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Change one field somewhere in `model`."""
    everything = list(messages(model))
    message = everything[rng.integers(len(everything))]
    part = message.DESCRIPTOR.fields[rng.integers(len(message.DESCRIPTOR.fields))]
    held = getattr(message, part.name)
    if part.is_repeated:
        if held and rng.random() < 0.5:
            del held[rng.integers(len(held))]
        elif held and part.message_type is not None:
            held.add().CopyFrom(held[rng.integers(len(held))])
        elif held:
            held.append(held[rng.integers(len(held))])
        elif part.message_type is None:
            held.append(other(part, model, rng))
        else:
            held.add()
    elif part.message_type is not None or rng.random() < 0.2:
        message.ClearField(part.name)
    else:
        setattr(message, part.name, other(part, model, rng))


def other(part: Any, model: onnx.ModelProto, rng: np.random.Generator) -> Any:
    if part.enum_type is not None:
        return int(rng.choice([value.number for value in part.enum_type.values]))
    if part.type == part.TYPE_STRING:
        return str(rng.choice(words(model)))
    if part.type == part.TYPE_BYTES:
        return rng.bytes(int(rng.integers(40)))
    if part.type in (part.TYPE_FLOAT, part.TYPE_DOUBLE):
        return float(rng.normal())
    numbers = [0, 1, 2, 3, 7, 16, 255, 2**31 - 1]
    numbers += [-1] if part.type in (part.TYPE_INT32, part.TYPE_INT64) else []
    numbers += [2**40, 2**62] if part.type == part.TYPE_INT64 else []
    return int(rng.choice(numbers))


def flip(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Return `model` with some bytes of its file changed; unchanged where that is no file any more."""
    data = bytearray(model.SerializeToString())
    for _ in range(rng.integers(1, 3)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    try:
        found: onnx.ModelProto = onnx.ModelProto.FromString(bytes(data))
    except Exception:  # protobuf's own
        return model
    return found


def mutant(name: str, seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    model = made_proto(name)
    for _ in range(rng.integers(1, 4)):
        edit(model, rng)
    return flip(model, rng) if rng.random() < 0.3 else model


def refused(model: onnx.ModelProto) -> str | None:
    """Return why onnxruntime refuses `model`, as it is and with all its optimisations; None if it does not."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime exports none of its types
        return str(error)
    return None


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore")
def test_what_is_accepted_onnxruntime_accepts(name, caplog, capfd):
    """Of models with a field or a byte changed; where onnxruntime was not asked, or cannot know, a warning says so."""
    caplog.set_level(logging.WARNING, logger="onnx_analog")
    accepted = 0
    for seed in range(30):
        model = mutant(name, seed)
        caplog.clear()
        try:
            files.load(model)
        except ModelError:
            continue
        accepted += 1
        if not caplog.records:
            assert refused(model) is None
    assert accepted
    assert capfd.readouterr() == ("", "")


# ----------------------------------------------------------------------------------------------- what is refused


def proto(body: str) -> onnx.ModelProto:
    return models.proto(f"net (float[N, 16] x) => (float[N, 16] y) {body}")


def plain() -> onnx.ModelProto:
    return made_proto("matmul")


def weight(model: onnx.ModelProto) -> Any:
    """Return the 16 x 16 float tensor of `plain`, its data raw."""
    (tensor,) = model.graph.initializer
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    return tensor


def with_tensor(**fields: Any) -> onnx.ModelProto:
    """Return `plain` with other fields of its tensor; those given as None are cleared."""
    model = plain()
    tensor = weight(model)
    for name, value in fields.items():
        tensor.ClearField(name)
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        elif value is not None:
            setattr(tensor, name, value)
    return model


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"raw_data": None}, "tensor 'w' has 0 numbers of data; FLOAT of shape 16x16 needs 256"),
        ({"raw_data": bytes(1023)}, "tensor 'w' has 1,023 bytes of data; FLOAT of shape 16x16 needs 1,024"),
        ({"raw_data": bytes(1025)}, "has 1,025 bytes of data"),
        ({"raw_data": None, "float_data": [0.0] * 255}, "has 255 numbers of data"),
        ({"float_data": [0.0] * 256}, "has data of two kinds"),
        ({"raw_data": None, "double_data": [0.0] * 256}, "has 0 numbers of data"),
        ({"dims": [-16, -16]}, "has a negative side: [-16, -16]"),
        ({"dims": [2**32, 2**32]}, "has a shape beyond all bounds: [4294967296, 4294967296]"),
        ({"dims": [2**62, 0]}, "has a shape beyond all bounds"),
        ({"dims": [2**63 - 1, 2]}, "has a shape beyond all bounds"),
        ({"dims": [1] * 65}, "has a shape beyond all bounds"),
        ({"data_type": 0}, "tensor 'w' has type 0, which ONNX does not know"),
        ({"data_type": 99}, "tensor 'w' has type 99, which ONNX does not know"),
        ({"data_type": 8}, "has 0 numbers of data; STRING of shape 16x16 needs 256"),
        ({"data_type": 3, "raw_data": None, "int32_data": [128] * 256}, "tensor 'w' is INT8, and holds 128 to 128"),
        ({"data_type": 2, "raw_data": None, "int32_data": [-1] * 256}, "tensor 'w' is UINT8, and holds -1 to -1"),
        ({"data_type": 10, "raw_data": None, "int32_data": [2**16] * 256}, "tensor 'w' is FLOAT16, and holds 65536"),
        ({"name": ""}, "an initializer has no name"),
    ],
    ids=str,
)
def test_a_tensor_must_be_what_it_says(fields, said):
    with pytest.raises(ModelError) as caught:
        files.load(with_tensor(**fields))
    assert said in str(caught.value)
    assert str(caught.value).startswith("the model: ")


@pytest.mark.parametrize("kind", [kind for kind in ir.DataType if kind.name not in ("UNDEFINED", "STRING")])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 3)], ids=str)
def test_whatever_onnx_ir_writes_has_the_size_that_is_asked_for(kind, shape):
    array = np.zeros(shape, kind.numpy())
    model = plain()
    model.graph.initializer.add().CopyFrom(ir.to_proto(ir.Tensor(array, dtype=kind, name="v")))
    checking.check(model, None)
    tensor = model.graph.initializer[1]
    tensor.raw_data = tensor.raw_data + b"\0"
    with pytest.raises(checking.Fault, match=f"has {len(tensor.raw_data)} bytes of data; {kind.name} of shape"):
        checking.check(model, None)


@pytest.mark.parametrize(
    ("kind", "count"), [(ir.DataType.INT4, 8), (ir.DataType.UINT2, 4), (ir.DataType.COMPLEX64, 30)]
)
def test_small_numbers_share_an_entry_and_complex_ones_take_two(kind, count):
    model = plain()
    tensor = model.graph.initializer.add(name="v", data_type=kind, dims=[5, 3])
    field = tensor.float_data if kind == ir.DataType.COMPLEX64 else tensor.int32_data
    field.extend([0] * count)
    checking.check(model, None)
    field.pop()
    with pytest.raises(checking.Fault, match=f"has {count - 1} numbers of data; .* needs {count}"):
        checking.check(model, None)


def test_tensors_are_checked_wherever_they_are():
    """In bodies, functions, attributes of any node, sparse tensors and what is for training."""
    for name in ("if", "loop", "scan", "constant", "function", "sparse", "sparse constant", "function with a body"):
        model = made_proto(name)
        tensors = [m for m in messages(model) if isinstance(m, onnx.TensorProto)]
        assert tensors
        for tensor in tensors:
            held = onnx.TensorProto.FromString(tensor.SerializeToString())
            tensor.dims.append(7)
            with pytest.raises(ModelError, match=r"data|indices"):
                files.load(model)
            tensor.CopyFrom(held)
        files.load(model)
    model = plain()
    model.training_info.add().initialization.initializer.add(name="t", data_type=1, dims=[4])
    with pytest.raises(ModelError, match="tensor 't' for training has 0 numbers"):
        files.load(model)


def twice(repeated: Any, **changed: Any) -> None:
    repeated.add().CopyFrom(repeated[0])
    for name, value in changed.items():
        setattr(repeated[-1], name, value)


def second_output(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Relu", input=["x"], output=["w"])


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "z"
    model.graph.node.add(op_type="Relu", input=["y"], output=["z"])


def two_opsets(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="ai.onnx", version=17)


def two_values(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="a", value="1")
    model.metadata_props.add(key="a", value="2")


def two_attributes(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Softmax", input=["x"], output=["z"])
    for axis in (0, 1):
        model.graph.node[-1].attribute.add(name="axis", i=axis, type=onnx.AttributeProto.INT)


def no_tensor(model: onnx.ModelProto) -> None:
    model.graph.node.add(op_type="Constant", output=["z"]).attribute.add(name="value", type=onnx.AttributeProto.TENSOR)


def attribute_of_no_function(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Softmax", input=["x"], output=["z"])
    node.attribute.add(name="axis", ref_attr_name="a", type=onnx.AttributeProto.INT)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: twice(model.graph.initializer), "the initializer 'w' is there twice"),
        (lambda model: twice(model.graph.input), "the input 'x' has the name of another value"),
        (second_output, "the output 'w' has the name of another value"),
        (lambda model: twice(model.graph.node), "the output 'y' has the name of another value"),
        (lambda model: setattr(model.graph.output[0], "name", "none"), "the output 'none' is nowhere in the model"),
        (lambda model: model.graph.initializer.pop(), "node 'y' (MatMul) takes 'w', which is nowhere in the model"),
        (cycle, "node 'y' (MatMul) needs what is computed from its own output"),
        (two_opsets, "the model imports opsets 18 and 17 of the domain 'ai.onnx'"),
        (two_values, "the metadata entry 'a' is there twice, and not with the same value"),
        (two_attributes, "the attribute 'axis' of node 'z' is there twice"),
        (no_tensor, "the attribute 'value' of node 'z' is to be a tensor, and holds none"),
        (attribute_of_no_function, "the attribute 'axis' of node 'z' is that of a function, 'a', and there is none"),
    ],
)
def test_a_graph_must_be_whole(change, said):
    model = plain()
    change(model)
    with pytest.raises(ModelError) as caught:
        files.load(model)
    assert said in str(caught.value)


def test_functions_are_there_once_and_whole():
    model = made_proto("function")
    twice(model.functions)
    with pytest.raises(ModelError, match=r"the function 'local\.project' is there twice"):
        files.load(model)
    model.functions.pop()
    model.functions[0].node[-1].input[0] = "none"
    with pytest.raises(ModelError, match=r"takes 'none', which is nowhere in the model"):
        files.load(model)


@pytest.mark.parametrize("name", ["name", "domain", "overload", "input", "output"])
def test_a_function_whose_names_are_not_utf_8_is_refused(name):
    model = made_proto("function")
    held = getattr(model.functions[0], name)
    if isinstance(held, str):
        setattr(model.functions[0], name, "\u00e9")
    else:
        held[0] = "\u00e9"
    broken = onnx.ModelProto.FromString(model.SerializeToString().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(ModelError, match=rf"the model, functions 0: its {name} is not UTF-8 text"):
        files.load(broken)


def test_a_body_may_need_what_comes_later_but_not_its_own_output():
    """ONNX asks for the order of computation, and onnxruntime for none."""
    text = """{
        y = If (c) < then_branch = a () => (float[N, 16] p) { p = Relu(later) },
                     else_branch = b () => (float[N, 16] q) { q = Relu(x) } >
        c = Constant <value = bool {1}> ()
        later = Relu(x)
    }"""
    files.load(proto(text))
    with pytest.raises(ModelError, match=r"node 'y' \(If\) needs what is computed from its own output"):
        files.load(proto(text.replace("Relu(later)", "Relu(y)")))


def test_the_same_said_twice_is_no_fault():
    model = plain()
    model.opset_import.add(domain="ai.onnx", version=18)
    for _ in range(2):
        model.metadata_props.add(key="a", value="1")
    files.load(model)


# ------------------------------------------------------------------------------------------------------- bounds


def nested(depth: int) -> onnx.ModelProto:
    """Return a model with graphs in graphs, `depth` deep."""
    model = models.proto("net (float[2] x, bool c) => (float[2] y) { y = Relu(x) }")
    graph = model.graph
    for level in range(depth):
        node = graph.node[0]
        inner = onnx.GraphProto(name=f"g{level}")
        inner.node.add(op_type="Relu", input=["x"], output=[f"v{level}"])
        inner.output.add(name=f"v{level}").type.tensor_type.elem_type = 1
        node.CopyFrom(onnx.NodeProto(op_type="If", input=["c"], output=list(node.output)))
        for name in ("then_branch", "else_branch"):
            node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)
        node.attribute[1].g.node[0].output[0] = node.attribute[1].g.output[0].name = f"e{level}"
        graph = node.attribute[0].g
    return model


def test_graphs_in_graphs_are_bounded():
    files.load(nested(checking.MOST_NESTED))
    with pytest.raises(ModelError, match="it has graphs in graphs, more than 30 deep"):
        files.load(nested(checking.MOST_NESTED + 1))


def calling(*widths: int) -> onnx.ModelProto:
    """Return a model of functions that call one another, the first as often as the first number says."""
    model = models.proto(
        '<ir_version: 10, opset_import: ["" : 18, "f" : 1]> net (float[2] x) => (float[2] y) { y = f.f0(x) }'
    )
    for level, width in enumerate(widths):
        function = model.functions.add(domain="f", name=f"f{level}", input=["x"], output=[f"v{width}"])
        function.opset_import.add(domain="", version=18)
        function.opset_import.add(domain="f", version=1)
        last = level == len(widths) - 1
        for place in range(width + 1):
            node = function.node.add(input=[f"v{place - 1}" if place else "x"], output=[f"v{place}"])
            node.domain, node.op_type = ("", "Relu") if last or place == width else ("f", f"f{level + 1}")
    return model


def test_functions_that_call_one_another_are_bounded():
    files.load(calling(3, 4, 5))
    with pytest.raises(ModelError, match=r"they stand for more than 100,000 nodes, which is the most that is run"):
        files.load(calling(*[9] * 20))
    with pytest.raises(ModelError, match="they stand for more than 100,000 nodes"):
        files.load(calling(*[2] * 2000))


def test_what_functions_stand_for_is_counted(monkeypatch):
    nodes = 2 * (3 + 1) + 1  # f0 calls f1 twice, and has a node of its own; f1 has 3 + 1 nodes
    monkeypatch.setattr(checking, "MOST_INLINED", nodes - 1)
    checking.check(calling(2, 3), None)  # the call itself is replaced
    monkeypatch.setattr(checking, "MOST_INLINED", nodes - 2)
    with pytest.raises(checking.Fault):
        checking.check(calling(2, 3), None)


def test_functions_that_call_themselves_are_refused():
    model = calling(1, 1)
    model.functions[1].node[0].domain, model.functions[1].node[0].op_type = "f", "f0"
    with pytest.raises(ModelError, match=r"the function 'f\.f[01]' calls itself"):
        files.load(model)


def sparse(dims: list[int], count: int = 1) -> onnx.ModelProto:
    model = proto("{ y = MatMul(x, w0) }")
    for place in range(count):
        tensor = model.graph.sparse_initializer.add(dims=dims)
        tensor.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), f"w{place}"))
        tensor.indices.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    return model


def test_an_output_that_is_a_sparse_tensor_is_refused():
    """onnxruntime returns it as one, and what is written would have a dense one."""
    model = sparse([16, 16])
    assert files.load(model)
    model.graph.output[0].name = "w0"
    with pytest.raises(ModelError, match="the output 'w0' is a sparse tensor"):
        files.load(model)


@pytest.mark.parametrize(("returned", "how"), [("t", "twice"), ("e", "as it takes it"), ("s", "as it takes it")])
def test_the_body_of_a_scan_returns_no_value_twice_and_no_input(returned, how):
    """onnxruntime 1.32 leaves it uncomputed; bodies of Loop, and main graphs, it computes right."""
    text = """ scan (float[T, 16] x) => (float[16] last, float[T, 16] y) {
        z = Constant <value = float[16] {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}> ()
        last, y = Scan <num_scan_inputs: int = 1, body: graph = b (float[16] s, float[16] e)
            => (float[16] t, float[16] RETURNED) { t = Add(s, e) u = Identity(t) }> (z, x)
    }"""
    head = '<ir_version: 8, opset_import: ["" : 18]>'
    assert files.load(onnx.parser.parse_model(head + text.replace("RETURNED", "u")))
    with pytest.raises(ModelError, match=rf"the body of node 'last' \(Scan\) returns '{returned}' {how}"):
        files.load(onnx.parser.parse_model(head + text.replace("RETURNED", returned)))


def long_chain() -> onnx.ModelProto:
    lines = "\n".join(f"a{i + 1} = Identity(a{i})" for i in range(3000))
    return proto(f"<float[16, 16] a0 = random> {{ {lines} y = MatMul(x, a3000) }}")


def ladder() -> onnx.ModelProto:
    """Return a weight that comes to its end by 2^40 ways."""
    lines = "\n".join(f"a{i + 1} = Cast <to = 1> (a{i}) b{i + 1} = Add(a{i + 1}, a{i})" for i in range(40))
    return proto(f"<float[16, 16] a0 = random> {{ {lines} y = MatMul(x, a40) }}")


def many() -> onnx.ModelProto:
    model = plain()
    for place in range(40_000):
        model.graph.initializer.add(name=f"t{place}", data_type=1, dims=[1], raw_data=bytes(4))
    return model


BOMBS = {
    "sparse": (lambda: sparse([60_000, 60_000]), "takes 14,400,000,000 bytes once dense"),
    "many sparse": (lambda: sparse([16_384, 1024], 17), "and all may take 1,073,741,824 together"),
    "no data": (lambda: with_tensor(raw_data=None, dims=[40_000, 40_000]), "has 0 numbers of data"),
    "functions": (lambda: calling(*[99] * 30), "more than 100,000 nodes"),
    "chain": (long_chain, "accepted"),
    "ladder": (ladder, "accepted"),
    "many": (many, "accepted"),
}
CHILD = """
import resource, sys
from onnx_analog import api
from onnx_analog.errors import ModelError
import onnxruntime
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]),) * 2)
try:
    print("accepted", api.inspect(sys.argv[1]).opset)
except ModelError as error:
    print(error)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_costs_little(name, tmp_path):
    """In a child process that may take 2 GiB of addresses, most of them for libraries, and 20 s of CPU time."""
    build, said = BOMBS[name]
    (tmp_path / "m.onnx").write_bytes(build().SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "m.onnx", str(2**31), "20"], capture_output=True, text=True, check=True
    )
    assert said in done.stdout


# -------------------------------------------------------------------------------------- what onnxruntime is asked


def test_operators_that_onnxruntime_does_not_know_are_told_of(caplog):
    text = '<ir_version: 10, opset_import: ["" : 18, "mine" : 1]> net (float[2] x) => (float[2] y) { y = mine.Op(x) }'
    files.load(models.proto(text))
    assert caplog.messages == [
        "the model has operators of 'mine', which onnxruntime does not know, so it did not check the model"
    ]


@pytest.mark.parametrize(
    ("opsets", "line"),
    [
        ('"ai.onnx.ml" : 3', "y = ai.onnx.ml.Scaler <offset = [1.0], scale = [2.0]> (x)"),
        ('"com.microsoft" : 1', "y = com.microsoft.Gelu(x)"),
    ],
)
def test_a_model_needs_no_standard_opset(opsets, line):
    text = f"<ir_version: 10, opset_import: [{opsets}]> net (float[2, 2] x) => (float[2, 2] y) {{ {line} }}"
    assert api.inspect(models.proto(text)).opset is None


def test_what_onnxruntime_says_is_cleaned(capfd):
    with pytest.raises(ModelError) as caught:
        files.load(proto("<float[15, 16] w = random> { y = MatMul(x, w) }"))
    said = str(caught.value)
    assert said.startswith("the model: onnxruntime refuses it: ")
    assert not re.search(r"\[ONNXRuntimeError\]|\.cc:\d|/onnxruntime", said)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_was_opened_is_not_opened_again(monkeypatch):
    found = files.load(plain())
    monkeypatch.setattr(checking, "check", None)
    for model in (found, found.clone(), files.load(found)):
        files.load(model)
    with pytest.raises(TypeError):
        files.load(ir.from_proto(plain()))


def test_a_model_of_memory_is_checked_too(tmp_path):
    model = ir.from_proto(plain())
    files.load(model)
    model.graph.outputs[0].name = "other"
    model.graph.initializers["w"].const_value = ir.Tensor(np.zeros((15, 16), np.float32), name="w")
    with pytest.raises(ModelError, match="onnxruntime refuses it"):
        files.load(model)
    ir.save(ir.from_proto(plain()), tmp_path / "m.onnx", external_data="m.data")
    (tmp_path / "m.data").write_bytes(bytes(1023))
    with pytest.raises(ModelError, match=r"tensor 'w' lies in .*m\.data', which is too short for it"):
        files.load(ir.load(tmp_path / "m.onnx"))
