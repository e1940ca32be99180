import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from google.protobuf.message import EncodeError

import onnx_analog as oa
from onnx_analog.disk import writing
from onnx_analog.disk.writing import write_all
from onnx_analog.errors import ModelError, OutputError
from onnx_analog.graph import files
from onnx_analog.graph.files import write_model
from tests import models
from tests.models import QUIET, ZOO, feeds, made, made_proto, model, numbers, protected, run, same_bits, serialized


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def writer(found: ir.Model) -> writing.Writer:
    return lambda path: write_model(found, path)


def external(folder: Path, name: str = "matmul", *, constants: bool = False) -> Path:
    """Write a model of the zoo with its tensors in m.data beside it."""
    folder.mkdir(exist_ok=True)
    found = made_proto(name)
    for tensor in onnx.external_data_helper._get_all_tensors(found):
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(
        found,
        folder / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=constants,
    )
    assert (folder / "m.data").stat().st_size >= 512  # 16 x 16 half-precision numbers
    return folder / "m.onnx"


def outputs(path: Path, given: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, given)


# ---------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", ZOO)
def test_a_path_a_proto_and_a_model_load_alike(name, tmp_path):
    found, path = made_proto(name), tmp_path / "m.onnx"
    onnx.save(found, path)
    loaded = files.load(found)
    assert serialized(files.load(path)) == serialized(files.load(str(path))) == serialized(loaded)
    assert serialized(files.load(loaded)) == serialized(loaded)


@pytest.mark.parametrize("name", ["matmul", "if", "function", "sparse", "sparse constant"])
def test_the_callers_model_is_not_changed(name):
    given, other = made_proto(name), made(name)
    before, other_before = serialized(given), serialized(other)
    for loaded in (files.load(given), files.load(other)):
        protected(loaded)
    assert serialized(given) == before
    assert serialized(other) == other_before


def test_an_output_that_is_an_input_keeps_the_type_of_the_input():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]>'
        "net (float[n, 4] x) => (float[n, 4] y, float[2, 2, 9] x) { y = Relu(x) }"
    )
    before = model.SerializeToString()
    written = files.to_proto(files.load(model))
    assert [side.dim_param or side.dim_value for side in written.graph.input[0].type.tensor_type.shape.dim] == ["n", 4]
    assert model.SerializeToString() == before
    sessions = [ort.InferenceSession(each.SerializeToString()) for each in (model, written)]
    found = [session.run(None, {"x": np.ones((3, 4), np.float32)}) for session in sessions]
    assert [np.array_equal(*pair) for pair in zip(*found, strict=True)] == [True, True]


@pytest.mark.parametrize("flat", [True, False])
def test_a_sparse_tensor_becomes_dense(flat):
    indices = np.array([1, 5]) if flat else np.array([[0, 1], [1, 2]])
    sparse = onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(np.array([7, 8], np.int32), "s"),
        onnx.numpy_helper.from_array(indices, "i"),
        [2, 3],
    )
    proto = made_proto("if")
    proto.graph.sparse_initializer.append(sparse)
    body = proto.graph.node[0].attribute[0].g
    body.node.append(onnx.helper.make_node("Constant", [], ["dense"], sparse_value=sparse))
    loaded = files.load(proto)
    dense = loaded.graph.initializers["s"].const_value
    (constant,) = [node for node in loaded.graph.all_nodes() if node.op_type == "Constant"]
    expected = np.array([[0, 7, 0], [0, 0, 8]], np.int32)
    assert dense is not None
    assert same_bits([dense.numpy(), constant.attributes["value"].as_tensor().numpy()], [expected, expected])
    assert len(proto.graph.sparse_initializer) == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"there is no file '.*none\.onnx'"):
        files.load(tmp_path / "none.onnx")


def test_a_folder_is_no_model(tmp_path):
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(ModelError, match=r"m\.onnx' is a folder; a file is needed"):
        files.load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no graph"),
        (b"hello, this is text\n", "cannot be parsed"),
        (b"\x00" * 64, "cannot be parsed"),
        (b"\x08\x0a", "has no graph"),
    ],
    ids=["empty", "text", "zeros", "version only"],
)
def test_what_is_no_model_is_refused(content, said, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=f"m.onnx'? is not an ONNX model: it {said}"):
        files.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["matmul", "if", "function"])
def test_a_truncated_file_is_refused_wherever_it_ends(name, tmp_path):
    whole, path = serialized(made_proto(name)), tmp_path / "m.onnx"
    for end in range(0, len(whole), 11):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError, match="is not a"):
            files.load(path)


@pytest.mark.parametrize("name", ["m.json", "m.textproto", "m.onnxtxt"])
@pytest.mark.filterwarnings("ignore:The onnxtxt format")
def test_text_of_another_kind_is_refused(name, tmp_path):
    (tmp_path / name).write_text('{"format": "onnx-analog-manifest/1"}')
    with pytest.raises(ModelError, match="is a manifest, and an ONNX model is needed"):
        files.load(tmp_path / name)


def test_a_proto_without_graph_is_refused():
    with pytest.raises(ModelError, match="the model is not an ONNX model: it has no graph"):
        files.load(onnx.ModelProto(ir_version=8))


def test_a_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "m").write_bytes(b"abc")
    assert files.file_digest(tmp_path / "m") == hashlib.sha256(b"abc").hexdigest()


def test_the_digest_of_a_model_is_of_all_its_files(tmp_path):
    alone = tmp_path / "alone.onnx"
    onnx.save(made_proto("matmul"), alone)
    assert files.model_digest(alone) == files.file_digest(alone)
    one, same, other = (external(tmp_path / folder) for folder in ("a", "b", "c"))
    data = other.with_name("m.data")
    data.write_bytes(bytes(data.stat().st_size))
    assert files.file_digest(one) == files.file_digest(same) == files.file_digest(other)
    assert files.model_digest(one) == files.model_digest(same) != files.model_digest(other)
    data.unlink()
    assert files.model_digest(other) is None


def test_a_root_cause_is_one_line():
    error = RuntimeError("around")
    error.__cause__ = ValueError("two\n  lines")
    assert files.root_cause(error) == "two lines"
    assert files.root_cause(KeyError()) == "KeyError"


# ---------------------------------------------------------------------------------------------- external data


@pytest.mark.parametrize("name", ["matmul", "if", "float16 behind a cast"])
def test_external_data_are_read_and_written_to_another_folder(name, tmp_path):
    source, target = external(tmp_path / "a", name), tmp_path / "b" / "n.onnx"
    target.parent.mkdir()
    write_all({target: writer(files.load(source))})
    assert sorted(contents(target.parent)) == ["n.onnx", "n.onnx.data"]
    (source.parent / "m.data").unlink()
    for given in feeds(made(name)):
        assert same_bits(outputs(target, given), run(made(name), given))


@pytest.mark.parametrize("name", ["constant", "if of constants", "function"])
def test_external_data_of_constants_are_written_too(name, tmp_path):
    source, target = external(tmp_path / "a", name, constants=True), tmp_path / "b" / "n.onnx"
    target.parent.mkdir()
    write_all({target: writer(files.load(source))})
    (source.parent / "m.data").unlink()
    for given in feeds(made(name)):
        assert same_bits(outputs(target, given), run(made(name), given))


def test_a_protected_model_with_external_data_computes_the_same(tmp_path):
    found, target = files.load(external(tmp_path / "a")), tmp_path / "n.onnx"
    protected(found)
    write_all({target: writer(found)})
    plain = made("matmul")
    protected(plain)
    (given,) = feeds(made("matmul"))
    assert same_bits(outputs(target, given), run(plain, given))


def test_a_file_may_be_written_over_the_data_it_is_read_from(tmp_path):
    path = tmp_path / "m.onnx"
    ir.save(made("matmul"), path, external_data="m.onnx.data")
    before = contents(tmp_path)
    write_all({path: writer(files.load(path))}, force=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("limit", "names"), [(1024, ["n.onnx"]), (1023, ["n.onnx", "n.onnx.data"])])
def test_tensors_that_are_too_many_for_one_file_go_beside_it(limit, names, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "EXTERNAL_BYTES", limit)
    write_all({tmp_path / "n.onnx": writer(made("matmul"))})
    assert sorted(contents(tmp_path)) == names
    assert same_bits([numbers(files.load(tmp_path / "n.onnx"), "w")], [numbers(made("matmul"), "w")])


def test_writing_changes_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "EXTERNAL_BYTES", 0)
    found = made("if")
    before = serialized(found)
    write_all({tmp_path / "n.onnx": writer(found)})
    assert serialized(found) == before


def test_a_model_that_protobuf_cannot_hold_is_refused(tmp_path, monkeypatch):
    def too_large(*_: Any, **__: Any) -> None:
        raise EncodeError("too large")

    monkeypatch.setattr(ir, "save", too_large)
    with pytest.raises(OutputError, match=r"cannot write 'n\.onnx': it is larger than the 2 GiB"):
        write_all({tmp_path / "n.onnx": writer(made("matmul"))})
    assert contents(tmp_path) == {}


def short(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-1])


def outside(data: Path) -> None:
    data.rename(data.parent.parent / "there")
    data.symlink_to("../there")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, " in 'm.data', which is not there. Put it beside the model"),
        (short, " in 'm.data', which is too short for it. Copy or download it again"),
        (outside, " is a link, and onnxruntime does not follow it. Copy the folder first: cp -rL"),
    ],
)
@pytest.mark.parametrize(("name", "constants"), [("matmul", False), ("if", False), ("constant", True)])
def test_external_data_that_cannot_be_read_are_named(name, constants, damage, said, tmp_path):
    path = external(tmp_path / "a", name, constants=constants)
    damage(path.parent / "m.data")
    with pytest.raises(ModelError) as caught:
        files.load(path)
    assert str(caught.value).startswith(repr(str(path)))
    assert str(caught.value).endswith(said)


def hard_link(data: Path) -> None:
    os.link(data, data.with_name("link"))


def soft_link(data: Path) -> None:
    data.rename(data.with_name("there"))
    data.symlink_to("there")


def hub_cache(data: Path) -> None:
    """Lay model and data out as a hub's cache does: names in one folder are links to contents in another."""
    blobs = data.parent.parent / "blobs"
    blobs.mkdir()
    for place, file in enumerate(sorted(data.parent.iterdir())):
        file.rename(blobs / str(place))
        file.symlink_to(f"../blobs/{place}")


@pytest.mark.parametrize("arrange", [hard_link, soft_link, hub_cache])
@pytest.mark.parametrize(("name", "constants"), [("matmul", False), ("constant", True)])  # of bodies it follows none
def test_links_are_followed_where_onnxruntime_follows_them(name, constants, arrange, tmp_path):
    path = external(tmp_path / "a", name, constants=constants)
    arrange(path.parent / "m.data")
    loaded = files.load(path)
    write_all({tmp_path / "n.onnx": writer(loaded)})
    for given in feeds(made(name)):
        expected = run(made(name), given)
        assert same_bits(outputs(path, given), expected)
        assert same_bits(outputs(tmp_path / "n.onnx", given), expected)


def located(path: Path, **entries: str) -> None:
    """Change what the model's tensors say of their data."""
    found = onnx.load(path, load_external_data=False)
    for tensor in onnx.external_data_helper._get_all_tensors(found):
        held = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in held.items():
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(found.SerializeToString())


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../a/m.data"}, "tensor 'w' lies outside the model's folder, in '../a/m.data'"),
        ({"location": "/dev/zero"}, "tensor 'w' lies outside the model's folder, in '/dev/zero'"),
        ({"location": "b/../../a/m.data"}, "tensor 'w' lies outside the model's folder"),
        ({"location": ""}, "tensor 'w' lies in another file that is not named"),
        ({"location": "m\0data"}, "tensor 'w' lies in another file that is not named"),
        ({"location": "fifo"}, "fifo' is not a regular file"),
        ({"location": "."}, "a' is a folder; a file is needed"),
        ({"offset": "-4"}, "tensor 'w' lies in another file, and its offset is '-4'"),
        ({"offset": "0x4"}, "its offset is '0x4'"),
        ({"offset": "4"}, "too short for it"),
        ({"offset": "9" * 18}, "too short for it"),
        ({"length": "1023"}, "tensor 'w' takes 1,024 bytes, and its length is given as 1,023"),
        ({"length": "1e3"}, "its length is '1e3'"),
        ({"length": "9" * 99}, "its length is '999"),
    ],
    ids=str,
)
def test_what_is_said_of_external_data_is_checked(entries, said, tmp_path):
    path = external(tmp_path / "a")
    os.mkfifo(path.parent / "fifo")
    located(path, **entries)
    with pytest.raises(ModelError) as caught:
        files.load(path)
    assert said in str(caught.value)


def test_an_offset_that_is_not_aligned_is_read(tmp_path):
    path = external(tmp_path / "a")
    data = path.with_name("m.data")
    data.write_bytes(b"abc" + data.read_bytes())
    located(path, offset="3")
    assert same_bits([numbers(files.load(path), "w")], [numbers(made("matmul"), "w")])


def test_sparse_data_are_read_from_the_models_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v").write_bytes(np.full(2, 7, np.float32).tobytes())
    (tmp_path / "v").write_bytes(np.full(2, 666, np.float32).tobytes())
    values = onnx.TensorProto(name="w", dims=[2], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="v")
    proto = made_proto("matmul")
    del proto.graph.initializer[:]
    indices = onnx.numpy_helper.from_array(np.array([0, 255]), "i")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [16, 16]))
    (tmp_path / "a" / "m.onnx").write_bytes(proto.SerializeToString())
    monkeypatch.chdir(tmp_path)
    found = numbers(files.load(tmp_path / "a" / "m.onnx"), "w")
    assert (found[0, 0], found[-1, -1], found.sum()) == (7, 7, 14)


def test_a_path_that_is_not_utf_8_is_opened(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path / "m") + b"\xff.onnx"))
    path.write_bytes(serialized(made_proto("matmul")))
    assert serialized(files.load(path)) == serialized(made("matmul"))
    with pytest.raises(ModelError, match=r"there is no file '.*n\\udcff"):
        files.load(os.fsdecode(b"n\xff"))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is not a regular file"):
        files.load(tmp_path / "m.onnx")


def test_what_is_too_large_for_protobuf_is_not_read(tmp_path):
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelError, match="has 2,147,483,648 bytes, and an ONNX file has at most 2 GiB"):
        files.load(tmp_path / "m.onnx")


# --------------------------------------------------------------------------- what onnx_ir does not hold itself

CLASSIFIER = """<ir_version: 10, opset_import: ["" : 18, "ai.onnx.ml" : 3]>
    net (float[N, 16] x)
        => (int64[N] label, seq(map(int64, float)) chances, seq(float[N, 16]) parts, optional(float[N, 16]) it)
    <float[16, 16] w = random> {
        z = MatMul(x, w)
        label = ArgMax <axis = 1, keepdims = 0> (z)
        chances = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]> (z)
        parts = SequenceConstruct(z)
        it = Optional(z)
    }"""


def types(proto: onnx.ModelProto) -> list[bytes]:
    return [value.type.SerializeToString(deterministic=True) for value in proto.graph.output]


def test_maps_sequences_and_optionals_are_kept(tmp_path):
    plain = models.proto(CLASSIFIER)
    found = files.load(plain)
    assert types(files.to_proto(found)) == types(plain)
    assert types(files.to_proto(files.from_proto(files.to_proto(found)))) == types(plain)
    assert types(files.to_proto(found.clone())) == types(plain)
    path = tmp_path / "n.onnx"
    for one in (found, oa.protect(plain).model):
        write_all({path: writer(one)}, force=True)
        assert types(onnx.load(path)) == types(plain)
        assert b"onnx_analog.type" not in path.read_bytes()
        given = {"x": np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)}
        before = ort.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given)
        after = outputs(path, given)
        assert after[0].tolist() == before[0].tolist()
        assert [list(chances) for chances in after[1]] == [list(chances) for chances in before[1]]


def test_information_for_training_is_kept(tmp_path):
    plain = made_proto("matmul")
    training = plain.training_info.add()
    training.algorithm.name = "steps"
    training.update_binding.add(key="w", value="w_new")
    found = files.load(plain)
    write_all({tmp_path / "n.onnx": writer(found.clone())})
    for proto in (files.to_proto(found), onnx.load(tmp_path / "n.onnx")):
        assert list(proto.training_info) == list(plain.training_info)


@pytest.mark.parametrize("constants", [False, True])
def test_external_data_in_a_folder_that_is_not_utf_8_are_read(constants, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    path = external(tmp_path / "a", "constant" if constants else "matmul", constants=constants)
    path.parent.rename(folder)
    found = files.load(folder / "m.onnx")
    (given,) = feeds(made("matmul"))
    write_all({tmp_path / "n.onnx": writer(found)})
    assert outputs(tmp_path / "n.onnx", given)[0].shape == run(made("matmul"), given)[0].shape


def test_a_model_of_another_suffix_is_opened(tmp_path):
    path = external(tmp_path / "a")
    path.rename(path.with_suffix(".bin"))
    assert same_bits([numbers(files.load(path.with_suffix(".bin")), "w")], [numbers(made("matmul"), "w")])


def broken_text(name: str) -> Any:
    """Return a model whose field `name` of its first node is no UTF-8."""
    proto = made_proto("matmul")
    setattr(proto.graph.node[0], name, "caf\u00e9")
    return onnx.ModelProto.FromString(proto.SerializeToString().replace("é".encode(), b"\xff\xff"))


def test_a_description_that_is_not_utf_8_is_replaced(tmp_path, caplog):
    given = broken_text("doc_string")
    (tmp_path / "m.onnx").write_bytes(given.SerializeToString())
    for one in (given, tmp_path / "m.onnx"):
        found = files.load(one)
        assert next(iter(found.graph)).doc_string == "caf\ufffd\ufffd"
        write_all({tmp_path / "n.onnx": writer(found)}, force=True)
    assert (
        caplog.messages[0] == "the model has descriptions that are not UTF-8: what cannot be read of them is replaced"
    )
    assert given.graph.node[0].doc_string == b"caf\xff\xff"


@pytest.mark.parametrize("name", ["name", "domain", "op_type"])
def test_a_name_that_is_not_utf_8_is_refused(name):
    with pytest.raises(ModelError, match=rf"graph, node 0: its {name} is not UTF-8 text: b'caf\\xff\\xff'\. Rename it"):
        files.load(broken_text(name))


@pytest.mark.parametrize(
    ("name", "constants"), [("matmul", False), ("if", False), ("constant", True), ("function", True)]
)
@pytest.mark.parametrize("there", [True, False])
def test_the_files_of_a_model_are_its_own_and_those_that_it_names(name, constants, there, tmp_path):
    path = external(tmp_path / "a", name, constants=constants)
    if not there:
        (path.parent / "m.data").unlink()
    assert list(files.files_of(path)) == [path, path.parent / "m.data"]


def test_the_files_of_a_model_are_told_for_sparse_tensors_too(tmp_path):
    found = made_proto("sparse")
    for part in (found.graph.sparse_initializer[0].values, found.graph.sparse_initializer[0].indices):
        part.data_location = onnx.TensorProto.EXTERNAL
        part.external_data.add(key="location", value=f"{part.data_type}.data")
    (tmp_path / "m.onnx").write_bytes(found.SerializeToString())
    assert {path.name for path in files.files_of(tmp_path / "m.onnx")} == {"m.onnx", "1.data", "7.data"}


def test_the_files_of_what_is_no_model_are_itself(tmp_path):
    (tmp_path / "m.onnx").write_text("text")
    assert list(files.files_of(tmp_path / "m.onnx")) == [tmp_path / "m.onnx"]
    assert list(files.files_of(tmp_path / "none")) == [tmp_path / "none"]


def test_a_model_remembers_where_it_came_from(tmp_path):
    path = external(tmp_path / "a")
    changed = oa.protect(files.load(path)).model
    assert list(files.source_files(changed)) == [path, path.parent / "m.data"]
    assert list(files.source_files(made("matmul"))) == []


# ---------------------------------------------------------------------------------------------------- writing


def test_external_data_that_are_there_are_replaced_only_by_force(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "EXTERNAL_BYTES", 0)
    (tmp_path / "n.onnx.data").write_text("old")
    with pytest.raises(OutputError, match=r"n\.onnx\.data' already exists"):
        write_all({tmp_path / "n.onnx": writer(made("matmul"))})
    assert contents(tmp_path) == {"n.onnx.data": b"old"}
    write_all({tmp_path / "n.onnx": writer(made("matmul"))}, force=True)
    (given,) = feeds(made("matmul"))
    assert same_bits(outputs(tmp_path / "n.onnx", given), run(made("matmul"), given))


def test_data_are_moved_before_the_model_that_refers_to_them(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "EXTERNAL_BYTES", 0)
    moved, real = [], os.link

    def link(source: Path, target: Path, **options: Any) -> None:
        moved.append(target.name)
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    write_all({tmp_path / "n.onnx": writer(made("matmul"))})
    assert moved == ["n.onnx.data", "n.onnx"]


def test_a_model_without_tensors_is_written(tmp_path):
    write_all({tmp_path / "n.onnx": writer(model("net (float[2] x) => (float[2] y) { y = Relu(x) }"))})
    assert outputs(tmp_path / "n.onnx", {"x": np.array([-1, 1], np.float32)})[0].tolist() == [0, 1]


def test_what_came_with_its_tensors_in_another_file_is_written_so(tmp_path):
    """Also when none of them is left, as after protecting: they may be too many for memory."""
    plain = made("matmul")
    ir.save(plain, tmp_path / "one.onnx", external_data="one.onnx.data")
    for path in (tmp_path / "one.onnx", files.load(tmp_path / "one.onnx")):
        oa.protect(path).save(tmp_path / "two.onnx", force=True)
        assert (tmp_path / "two.onnx.data").stat().st_size >= 4 * 256  # the levels
    ir.save(plain, tmp_path / "three.onnx")
    oa.protect(tmp_path / "three.onnx").save(tmp_path / "four.onnx")
    assert not (tmp_path / "four.onnx.data").exists()


@pytest.mark.parametrize("output", ["m.onnx", "M", "m", "link", "hard"])
def test_a_model_is_not_saved_over_its_source(output, tmp_path):
    """Not even where its tensors would go."""
    path = external(tmp_path)
    (tmp_path / "m.data").rename(tmp_path / "m.onnx.data")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "m.onnx.data"
    path.write_bytes(proto.SerializeToString())
    (tmp_path / "link").symlink_to("m.onnx")
    os.link(tmp_path / "m.onnx", tmp_path / "hard")
    before, pruned = contents(tmp_path), oa.prune(path, sparsity=0.5)
    if output in ("M", "m"):
        pruned.save(tmp_path / output, force=True)
        assert {name: data for name, data in contents(tmp_path).items() if name in before} == before
        return
    with pytest.raises(OutputError, match=r"is an input.*Choose another output"):
        pruned.save(tmp_path / output, force=True)
    assert contents(tmp_path) == before


# ------------------------------------------------------------------------------- what is written, onnxruntime takes


def broken(name: str = "matmul") -> ir.Model:
    """Return a model that onnxruntime took, and takes no more."""
    found = files.load(made_proto(name))
    found.graph[0].op_type = "Unknown"
    return found


@pytest.mark.parametrize("name", ["p.onnx", "p"])
def test_what_onnxruntime_would_refuse_is_not_written(name, tmp_path):
    with pytest.raises(ModelError, match=rf"'{name}' is not written, as onnxruntime would refuse it: .*Unknown"):
        write_all({tmp_path / name: writer(broken())}, force=False)
    assert contents(tmp_path) == {}


def test_onnxruntime_is_not_asked_about_what_it_could_not_be_asked_about_before(tmp_path):
    plain = made_proto("matmul")
    plain.graph.node[0].domain = "other"
    plain.opset_import.add(domain="other", version=1)
    write_model(files.load(plain), tmp_path / "p.onnx")
    assert (tmp_path / "p.onnx").stat().st_size


@pytest.mark.parametrize(("calls", "initializers", "asked"), [(1, 6, 1), (0, 6, 0), (1, 5, 0)])
def test_onnxruntime_is_asked_only_about_what_it_soon_loads(calls, initializers, asked, tmp_path, monkeypatch):
    found = oa.protect(made_proto("matmul")).model
    assert [node.op_type for node in found.graph if node.domain] == ["DecodeSignedClass1LevelsAligned"]
    assert len(found.graph.initializers) == 6
    seen: list[Any] = []
    monkeypatch.setattr(files.runtime, "refusal", lambda *args, **_: seen.append(args))
    monkeypatch.setattr(files.runtime, "MOST_ASKED", initializers)
    monkeypatch.setattr(files, "_MOST_CALLS", calls)
    write_model(found, tmp_path / "p.onnx")
    assert len(seen) == asked


@pytest.mark.parametrize("name", ["matmul", "if", "function"])
def test_nodes_that_stand_before_what_they_use_are_brought_into_order(name, tmp_path):
    proto = made_proto(name)
    first = onnx.NodeProto(op_type="Relu", input=[proto.graph.output[0].name], output=["late"], name="late")
    proto.graph.output[0].name = "late"
    proto.graph.node.insert(0, first)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    found = oa.protect(tmp_path / "m.onnx", channel=QUIET)
    read = oa.readback(found.model, decoded=True)
    (given, *_) = feeds(made(name))
    expected = outputs(tmp_path / "m.onnx", given)
    for one, other, wanted in zip(run(found.model, given), run(read.model, given), expected, strict=True):
        np.testing.assert_allclose(one, wanted, atol=1e-4)
        assert other.shape == wanted.shape


@pytest.mark.parametrize("name", ZOO)
def test_models_that_are_in_order_stay_as_they_are(name):
    proto = made_proto(name)
    assert [node.op_type for node in files.to_proto(files.load(proto)).graph.node] == [
        n.op_type for n in proto.graph.node
    ]
