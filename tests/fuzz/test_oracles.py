"""Every oracle must catch what it is there for: a planted fault each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fuzz import account, agreement, kinds, of_models, of_texts, oracles, seeds
from fuzz.agreement import Reference
from fuzz.invoke import invoke
from fuzz.judge import Case, Judge
from fuzz.of_texts import consistent, differs, wrong_types
from tests.conftest import ROOT


def refuse(text: str, code: int = 1):
    sys.stderr.write(text + "\n")
    raise SystemExit(code)


def leave(name: str, text: str = "x", *, code: int = 1):
    Path(name).write_text(text)
    raise SystemExit(code)


def spin(seconds: float):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.fixture
def ran(tmp_path):
    """Return a function that runs a body in place of the program, beside one input file."""
    (tmp_path / "in.json").write_text("{}")

    def run(body, *arguments: str, outputs=("out.json",)):
        found = invoke(["inspect", *arguments], tmp_path, lambda **_: body())
        return {finding.oracle for finding in oracles.all_of(found, outputs)}

    return run


@pytest.mark.parametrize(
    "body",
    [
        lambda: None,
        lambda: sys.stdout.write("a table │ 1"),
        lambda: refuse("Error: in.json: tensor 'w' has no data. Export it again."),
        lambda: refuse(
            "Usage: onnx-analog inspect [OPTIONS]\nTry 'onnx-analog inspect -h' for help.\n\nError: no such option", 2
        ),
        lambda: refuse("WARNING: w stays digital: holds NaN", 0),
        lambda: leave("out.json", code=0),
    ],
    ids=["nothing", "table", "refusal", "usage", "warning", "output"],
)
def test_what_is_right_passes(ran, body):
    assert not ran(body)


@pytest.mark.parametrize(
    ("body", "oracle"),
    [
        (lambda: [][0], "traceback"),
        (lambda: refuse("Error: a", 4), "exit code"),
        (lambda: refuse("Error: one\nand another"), "lines"),
        (lambda: refuse(""), "lines"),
        (lambda: refuse("Error: "), "lines"),
        (lambda: refuse("Error: " + "x" * 301), "long line"),
        (lambda: refuse("Error: ValueError: odd (run again with --debug)"), "run again with --debug"),
        (lambda: refuse("Error: tensor '\x1b[31mred'"), "control characters"),
        (lambda: sys.stdout.write("\u202eright to left"), "control characters"),
        (lambda: refuse("[W:onnxruntime:, graph.cc:1] unused", 0), "noise"),
        (lambda: leave("scratch"), "file left"),
        (lambda: leave("scratch", code=0), "file left"),
        (lambda: leave("out.json"), "file left"),
        (lambda: leave("in.json", "[]", code=0), "file changed"),
        (lambda: Path("in.json").unlink(), "file gone"),
    ],
)
def test_planted_faults_are_caught(ran, body, oracle):
    assert oracle in ran(body)


def test_slow_commands_are_caught(ran, monkeypatch):
    monkeypatch.setattr(oracles, "CPU_S", 0.02)
    assert ran(lambda: spin(0.05)) == {"slow"}


def test_json_that_is_none_is_caught(ran):
    assert ran(lambda: sys.stdout.write("[NaN]"), "--json") == {"no JSON"}
    assert not ran(lambda: sys.stdout.write("[1]"), "--json")


# -------------------------------------------------------------------------------------------- agreement


@pytest.fixture(scope="module")
def made():
    """Return the files of a protected model."""
    return of_models.protected("types", 0)


@pytest.fixture
def folder(made, tmp_path):
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def found_by(findings) -> set[str]:
    return {finding.oracle for finding in findings}


def change(path: Path, name: str, index: int, change_of) -> None:
    """Put another number into a plane of a model, or into an initializer."""
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if one.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array[index] = change_of(array[index])
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    path.write_bytes(model.SerializeToString())


def protected_by(folder: Path) -> set[str]:
    reference = Reference.of(folder / "m.onnx")
    assert reference.outputs is not None
    return found_by(agreement.protected(folder / "m.onnx", folder / "p.onnx", reference))


def test_what_protect_writes_agrees(folder):
    assert not protected_by(folder)


@pytest.mark.parametrize("name", ["h", "b", "p", "d"])
def test_a_level_that_is_off_is_caught(folder, name):
    change(folder / "p.onnx", f"{name}.level", 3, lambda level: level + np.float32(0.01))
    assert protected_by(folder) == {"weights"}


def test_a_sign_that_is_off_is_caught(folder):
    change(folder / "p.onnx", "p.sign", 2, lambda bits: bits ^ 1)
    assert protected_by(folder) == {"weights"}


VARIANTS = dict(enumerate(of_models.VARIANTS))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_member_of_the_family_agrees(tmp_path, variant):
    for name, data in of_models.protected("types", variant).items():
        (tmp_path / name).write_bytes(data)
    if "--sparsity" not in VARIANTS[variant]:
        assert not protected_by(tmp_path)
    assert not list(agreement.totals(tmp_path / "p.onnx", json.loads((tmp_path / "p.json").read_text())))


def family(tmp_path, variant, plane, index, change_of):
    """Return what is found of a model whose class, α, point or stride is another."""
    for name, data in of_models.protected("mlp", variant).items():
        (tmp_path / name).write_bytes(data)
    assert not protected_by(tmp_path)
    change(tmp_path / "p.onnx", plane, index, change_of)
    return protected_by(tmp_path)


@pytest.mark.parametrize(
    ("variant", "plane", "index", "change_of", "oracle"),
    [
        (6, "w.alpha", (3, 0), lambda alpha: alpha * 2, "weights"),  # of one output channel
        (6, "w.stride", 0, lambda _: 16, "weights"),
        (11, "w.beta", 140, lambda point: point + np.float32(0.1), "points"),  # int8
        (11, "w.class", 5, lambda index: index ^ 8, "points"),
        (7, "w.beta", 1, lambda point: point + np.float32(0.2), "points"),  # the mean of a class without cells
    ],
)
def test_another_codebook_is_caught(tmp_path, variant, plane, index, change_of, oracle):
    assert family(tmp_path, variant, plane, index, change_of) == {oracle}


def test_a_lost_node_is_caught(folder):
    model = onnx.load(folder / "p.onnx")
    node = next(one for one in model.graph.node if one.op_type == "MatMul" and one.output[0] == "a")
    node.op_type = "Add"
    node.input[1] = "bias"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.float32), "bias"))
    (folder / "p.onnx").write_bytes(model.SerializeToString())
    assert protected_by(folder) == {"outputs"}


def test_a_file_that_does_not_load_is_caught(folder):
    (folder / "p.onnx").write_bytes(b"\x08\x0a")
    assert protected_by(folder) == {"protected file does not load"}


def test_weights_that_all_decode_to_nothing_are_caught(tmp_path):
    model = seeds.MODELS["mlp"]()
    array = numpy_helper.to_array(model.graph.initializer[0]).copy()
    array[0, 0] = 1e9
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    lost = account.StoredTensor(
        {},
        0,
        np.where(array > 1e8, array, 0),
        np.full(array.shape, 1e3),
        np.ones(array.shape),
        np.zeros(array.shape),
        (256,),
        1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(account, "stored", lambda *_, **__: {"w": lost})
        findings = agreement.protected(tmp_path / "m.onnx", tmp_path / "m.onnx", Reference())
        assert "weights lost" in found_by(findings)


def test_a_pruned_model_that_differs_is_caught(folder):
    reference = Reference.of(folder / "m.onnx")
    assert not list(agreement.same_outputs(folder / "m.onnx", reference, "prune"))
    change(folder / "m.onnx", "p", (0, 0), lambda weight: weight + 1)
    assert found_by(agreement.same_outputs(folder / "m.onnx", reference, "prune")) == {"outputs"}


def test_mutated_planes_that_are_accepted_are_caught(folder):
    right = account.stored(onnx.load(folder / "p.onnx"))
    assert not list(agreement.same_weights(folder / "p.onnx", right, "evaluate"))
    change(folder / "p.onnx", "p.level", 0, lambda level: np.nextafter(level, np.float32(9)))
    assert found_by(agreement.same_weights(folder / "p.onnx", right, "evaluate")) == {"other weights accepted"}
    right.pop("p")
    assert found_by(agreement.same_weights(folder / "p.onnx", right, "evaluate")) == {"other tensors accepted"}
    (folder / "p.onnx").write_bytes(b"junk")
    assert found_by(agreement.same_weights(folder / "p.onnx", right, "evaluate")) == {"damaged planes accepted"}


def test_weights_read_with_too_much_noise_are_caught(folder):
    plain, held = onnx.load(folder / "m.onnx"), account.stored(onnx.load(folder / "p.onnx"))
    for key, place in account.tensors(plain).items():
        account.put(place, held[key].weights)
    (folder / "r.onnx").write_bytes(plain.SerializeToString())
    assert not list(agreement.read_back(folder / "p.onnx", folder / "r.onnx", 1e-7))
    change(folder / "r.onnx", "p", (0, 0), lambda weight: weight + np.float32(1e-3))
    assert found_by(agreement.read_back(folder / "p.onnx", folder / "r.onnx", 1e-7)) == {"weights"}


def test_another_number_of_cells_is_caught(folder):
    body = json.loads((folder / "p.json").read_text())
    assert not list(agreement.totals(folder / "p.onnx", body))
    for name in (
        "analog_cells",
        "side_cells",
        "mask_cells",
        "codebook_cells",
        "original_weights",
        "stored_weights",
        "all_in_cells",
    ):
        wrong = {**body, "totals": {**body["totals"], name: body["totals"][name] + 1}}
        assert found_by(agreement.totals(folder / "p.onnx", wrong)) == {"totals"}


def test_another_accuracy_is_caught(folder):
    made, arrays = agreement.session(folder / "m.onnx"), np.load(folder / "d.npz")
    right = float((made.run(None, {"x": arrays["x"]})[0].argmax(1) == arrays["y"]).mean())
    body = {"metric": "top1", "original": None, "stored": right, "samples": 3}
    asked = folder / "m.onnx", folder / "d.npz"
    assert not list(agreement.evaluated(*asked, body))
    assert found_by(agreement.evaluated(*asked, {**body, "stored": right + 1 / 3})) == {"top-1"}
    assert found_by(agreement.evaluated(*asked, {**body, "samples": 2})) == {"top-1"}


def test_another_sqnr_is_caught(folder):
    change(folder / "m.onnx", "p", (0, 0), lambda weight: weight + np.float32(0.3))
    x = np.load(folder / "d.npz")["x"]
    clean, read = (
        agreement.session(folder / name).run(None, {"x": x})[0].astype(float) for name in ("p.onnx", "m.onnx")
    )
    right = 10 * np.log10(np.square(clean).sum() / np.square(clean - read).sum())
    asked = folder / "p.onnx", folder / "m.onnx", folder / "d.npz"
    assert not list(agreement.noisy(*asked, {"sqnr_db": [right]}))
    assert found_by(agreement.noisy(*asked, {"sqnr_db": [right + 0.1]})) == {"SQNR"}


def test_a_manifest_that_differs_or_does_not_add_up_is_caught(folder):
    text = (folder / "p.json").read_text()
    body = json.loads(text)
    assert not [*differs(body, json.loads(text)), *consistent(body)]
    assert not list(differs({**body, "a field that readers do not know": 1}, json.loads(text)))
    assert found_by(differs({**body, "bits": True}, {**body, "bits": 1})) == {"--check passes"}
    channel = body["schemes"][0]["channel"]
    missing = {**body, "schemes": [{**body["schemes"][0], "channel": {k: v for k, v in channel.items() if k != "low"}}]}
    assert not list(differs(missing, json.loads(text)))  # the family's default
    other = {**body, "schemes": [{**body["schemes"][0], "channel": {**channel, "low": -0.5}}]}
    assert found_by(differs(missing, other)) == {"--check passes"}
    body["tensors"][1]["cells"]["level"][0] -= 1
    assert found_by(consistent(body)) == {"addresses"}
    assert found_by(differs(body, json.loads(text))) == {"--check passes"}


def test_junk_in_a_channel_that_is_accepted_is_caught():
    right = of_texts.CHANNELS["table"]
    assert not list(wrong_types(right, right))
    for junk in (float("nan"), True, "0.1", [], 1e308, -0.1):
        assert found_by(wrong_types({**right, "between": [junk, *right["between"][1:]]}, right)) == {"junk accepted"}


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT4])
def test_data_whose_file_is_longer_are_as_long_as_onnxruntime_reads_them(tmp_path, kind):
    tensor = onnx.helper.make_tensor("w", kind, [3], [1, 2, 3])
    data = tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    (tmp_path / "w.data").write_bytes(data + b"more")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.data")
    held = onnx.TensorProto()
    held.CopyFrom(tensor)
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[held]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert agreement.loaded(tmp_path / "m.onnx").graph.initializer[0].raw_data == data


def test_a_model_that_onnxruntime_refuses_must_be_refused(tmp_path):
    model = seeds.MODELS["mlp"]()
    model.graph.node[0].op_type = "NoSuchOperator"
    case = Case("plain", 0, 0, {"m.onnx": model.SerializeToString()}, (), "mlp")
    judge = Judge(case, tmp_path, lambda **_: None, lambda _: None)
    judge.accepted(judge.run("inspect", "m.onnx"), judge.reference("m.onnx"))
    assert found_by(judge.verdict.findings) == {"accepts what onnxruntime refuses"}


@pytest.mark.parametrize(
    ("body", "oracle"),
    [
        ("os.kill(os.getpid(), 11)", "crash"),
        ("while True: pass", "hang"),
        ("len(b'x' * 2**31)", "memory"),
        ("bytearray(2**40)", "traceback"),
    ],
)
def test_crashes_hangs_and_floods_of_memory_are_caught(body, oracle):
    script = f"""
import os, sys
from fuzz import lane, run
lane.CPU_S = {-1.5 if oracle == "hang" else 10}
def main(**_):
    {body}
alone = lane.Lane(main)
print({{finding.oracle for finding in run.judge_alone(alone, lane.Task("channel", 0, 0)).findings}})
alone.stop()
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"'{oracle}'" in ran.stdout


@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_a_number_is_always_the_same_input(kind):
    one, other = (kinds.make(kind, 3, number) for number in (5, 5))
    assert (one.files, one.steps) == (other.files, other.steps)
    assert any(kinds.make(kind, 4, number).files != kinds.make(kind, 3, number).files for number in range(3))
