"""Commands that use a plan which `tune` verified say what they do otherwise, and keep what still holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from onnx_analog import _inputs
from onnx_analog.errors import ModelError
from onnx_analog.graph import files
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import VERIFIED_KEY
from onnx_analog.passes import ManifestPass, ProtectPass, pipeline
from onnx_analog.run import correcting
from onnx_analog.run.data import Input, Preprocessing
from tests.cli.test_app import cli, done, shelf  # noqa: F401 - fixtures
from tests.cli.test_compensate import SCHEME, samples  # noqa: F401 - a fixture
from tests.coding.test_verified import record
from tests.models import model

PLAN = oa.Plan(default=None, tensors={"a": SCHEME, "b": SCHEME}, compensated=True, compensated_by=40)
LEFT_OUT = "correct is left out, but the plan was verified with correction by 20 samples: "
CHANGED = "the plan was changed after it was verified, so what was verified does not hold here"
IMAGES = """net (float[n, 1, 4, 4] x) => (float[n, 16] y) <float[16, 16] w = random> {
    a = Flatten(x) y = MatMul(a, w) }"""
ALL = "--compensate calib.npz --correct calib.npz"


def verified(plan, shelf, **changes):  # noqa: F811
    """Return a plan with the record of a search that corrected by 20 samples."""
    digests = {"plan_sha256": plan.stored_sha256(), "model_sha256": files.file_digest(shelf / "model.onnx")}
    made = {"preprocessing": "'x' as given (float32)", "mean": None, "std": None, "scale": None}
    given = {"compensated_by": 40, "corrected_by": 20, **made, **digests}
    return replace(plan, verified=record(**{**given, **changes}))


@pytest.fixture
def plan(shelf, samples, tmp_path):  # noqa: F811
    """Return the plan of the file tuned.json."""
    found = verified(PLAN, shelf)
    (tmp_path / "tuned.json").write_text(found.to_json(), encoding="utf-8")
    return found


def count(caplog, text):
    return sum(each.startswith(text) for each in caplog.messages)


def test_nothing_is_said_where_all_is_as_it_was_verified(cli, plan, caplog, tmp_path):  # noqa: F811
    """As many samples compensate and correct as verified the plan, unless other numbers are given."""
    for line in (
        "protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx",
        "evaluate a.onnx --data test.npz --trials 1 --correct calib.npz --reference model.onnx",
        "check a.onnx --data test.npz --max-drop 99 --correct calib.npz --reference model.onnx",
        "readback a.onnx --correct calib.npz --reference model.onnx -o b.onnx",
        "sensitivity a.onnx --data test.npz --correct calib.npz",
        f"check model.onnx --plan tuned.json --data test.npz --max-drop 99 {ALL}",
        f"sensitivity model.onnx --plan tuned.json --data test.npz {ALL}",
        f"sweep model.onnx --plan tuned.json --data test.npz --trials 1 {ALL} --out c",
    ):
        done(cli(line))
        assert not [text for text in caplog.messages if "verified" in text or "_samples" in text], line
    stored = oa.load(tmp_path / "a.onnx")
    assert stored.plan.is_as_verified
    assert stored.plan.verified == plan.verified
    assert (stored.plan.compensated, stored.plan.compensated_by) == (True, 40)
    scored = oa.evaluate(stored, tmp_path / "test.npz", trials=1, correct=tmp_path / "calib.npz")
    assert scored.corrected_by == "20 samples"
    facts = json.loads((tmp_path / "c" / "sweep.json").read_text(encoding="utf-8"))
    assert (facts["compensate_samples"], facts["correct_samples"]) == ([40], [20])


@pytest.mark.parametrize(
    "line",
    [
        "evaluate a.onnx --data test.npz --trials 1",
        "evaluate a.onnx --data test.npz --trials 0",
        "check a.onnx --data test.npz --max-drop 99 --reference model.onnx",
        "readback a.onnx -o b.onnx",
        "readback a.onnx --trials 1 -o b",
        "check model.onnx --plan tuned.json --data test.npz --max-drop 99 --compensate calib.npz",
        "sweep model.onnx --plan tuned.json --data test.npz --trials 1 --compensate calib.npz --out c",
    ],
)
def test_a_correction_that_is_left_out_or_another_one_is_a_warning(cli, plan, caplog, line):  # noqa: F811
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    caplog.clear()
    done(cli(line))
    assert count(caplog, LEFT_OUT) == 1
    caplog.clear()
    name = line.replace("--out c", "--out d").replace("-o b", "-o e")
    done(cli(f"{name} --correct calib.npz --correct-samples 30"))
    assert count(caplog, LEFT_OUT) == 0
    said = count(caplog, "the plan was verified with correction by 20 samples, and here 30 correct: ")
    assert said == 1


def test_parts_that_are_always_read_alike_miss_no_correction(cli, plan, caplog, shelf, tmp_path):  # noqa: F811
    """They are corrected towards what was written, which is what is read; parts with noise do miss it."""
    both = replace(PLAN, tensors={"a": oa.Scheme.paper("mapping", channel="pcm"), "b": SCHEME})
    (tmp_path / "noisy.json").write_text(verified(both, shelf).to_json(), encoding="utf-8")
    for name, expected in (("tuned", 0), ("noisy", 1)):
        done(cli(f"protect model.onnx --plan {name}.json --compensate calib.npz -o {name}.onnx"))
        for line in (f"{name}.onnx", f"model.onnx --plan {name}.json --compensate calib.npz"):
            caplog.clear()
            done(cli(f"sensitivity {line} --data test.npz --trials 1"))
            said = [text for text in caplog.messages if text.startswith(LEFT_OUT)]
            assert len(said) == expected, line
            assert all(text.endswith("which need no labels") for text in said), line  # and no reference


def test_the_same_warning_is_printed_once_and_names_the_options(cli, plan, capsys, shelf, tmp_path):  # noqa: F811
    for name in ("model.onnx", "test.npz"):
        shutil.copy(shelf / name, tmp_path / name)
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    line = "readback a.onnx --statistics s.json --data test.npz -o b.onnx"
    ended = subprocess.run(
        [sys.executable, "-m", "onnx_analog", *line.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    warned = [each for each in ended.stderr.splitlines() if each.startswith("WARNING: ")]
    assert warned.count(warned[0]) == 1
    assert sum(each.startswith(f"WARNING: --{LEFT_OUT}") for each in warned) == 1
    line = "evaluate a.onnx --data test.npz --trials 1 --correct gain"
    ended = subprocess.run(
        [sys.executable, "-m", "onnx_analog", *line.split()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "the law of the channel corrects" in ended.stderr
    assert "Give --correct that many samples" in " ".join(ended.stderr.split())


def test_a_correction_without_the_original_is_a_warning(cli, plan, caplog, shelf, tmp_path):  # noqa: F811
    """Where all reads are alike, it changes nothing; else it goes towards what was stored."""
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    both = replace(PLAN, tensors={"a": oa.Scheme.paper("mapping", channel="pcm"), "b": SCHEME})
    (tmp_path / "tuned.json").write_text(verified(both, shelf).to_json(), encoding="utf-8")
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o c.onnx"))
    nothing = "reference is left out, so the correction changes nothing: "
    towards = "reference is left out, but the plan was verified with correction towards the original: "
    for name, said, other in (("a", nothing, towards), ("c", towards, nothing)):
        for line in (f"evaluate {name}.onnx --data test.npz --trials 2", f"readback {name}.onnx -o {name}2.onnx"):
            caplog.clear()
            done(cli(f"{line} --correct calib.npz"))
            assert (count(caplog, said), count(caplog, other)) == (1, 0), line
            caplog.clear()
            done(cli(f"{line.replace('2.onnx', '3.onnx')} --correct calib.npz --reference model.onnx"))
            assert count(caplog, "reference is left out") == 0, line
        caplog.clear()
        done(cli(f"sensitivity {name}.onnx --data test.npz --correct calib.npz"))  # towards what was written, always
        assert count(caplog, "reference is left out") == 0


STORED = "tensors are stored otherwise than in the plan that was verified, so what was verified does not hold here"
COMPENSATED = "and the plan was verified with compensation by 40 samples, so what was verified does not hold here"


@pytest.mark.parametrize(
    ("more", "said", "later"),
    [
        ("--side-bits-per-cell 3 --compensate calib.npz", CHANGED, STORED),
        (
            "--sparsity 0.5 --compensate calib.npz",
            "the model was pruned, and the plan was verified without that, so what was verified does not hold here",
            "the model was pruned, and the plan was verified without that, so what was verified does not hold here",
        ),
        (
            "--compensate calib.npz --compensate-samples 30",
            "the plan was verified with compensation by 40 samples",
            f"weights are stored with compensation by 30 samples, {COMPENSATED}",
        ),
        (
            "",
            "compensate is left out, but the plan is for compensated weights: ",
            f"weights are stored without compensation, {COMPENSATED}",
        ),
        (
            "--compensate calib.npz --exclude b",
            "the plan names b, which is not among the tensors that are stored",
            STORED,
        ),
    ],
)
def test_a_model_that_is_not_as_verified_says_so(cli, plan, caplog, monkeypatch, tmp_path, more, said, later):  # noqa: F811
    """Each later command says it in one line, and still corrects by as many samples as verified the plan."""
    used = []
    one_call = correcting.one_call
    monkeypatch.setattr(correcting, "one_call", lambda *given: used.append(one_call(*given)) or used[-1])
    done(cli(f"protect model.onnx --plan tuned.json {more} -o a.onnx --save-plan again.json"))
    assert count(caplog, said) == 1
    stored = oa.load(tmp_path / "a.onnx")
    assert not stored.plan.is_as_verified
    assert stored.plan.verified == replace(plan.verified, otherwise=stored.plan.verified.otherwise)
    assert " ".join(done(cli("plan show again.json")).split()).count(later[1:]) == 1
    for line in (
        "evaluate a.onnx --data test.npz --trials 1 --correct calib.npz --reference model.onnx",
        "check a.onnx --data test.npz --max-drop 99 --reference model.onnx",
        "sensitivity a.onnx --data test.npz",
        "readback a.onnx --correct calib.npz -o b.onnx",
    ):
        caplog.clear()
        done(cli(line))
        assert [text.startswith(later) for text in caplog.messages if "verified" in text] == [True], line
    assert {len(each) for each in used} == {20}


def test_a_pass_without_samples_that_compensate_marks_the_record(plan, shelf):  # noqa: F811
    stored = pipeline.run([ProtectPass(plan=plan), ManifestPass()], files.load(shelf / "model.onnx"))
    found = open_protected(stored).plan
    assert found.verified.otherwise == "weights are stored without compensation, and the plan is for compensated ones"
    assert not found.is_as_verified
    assert not found.compensated


def test_another_model_is_a_warning(cli, plan, caplog, shelf, tmp_path):  # noqa: F811
    other = onnx.load(shelf / "model.onnx")
    other.doc_string = "another file"
    onnx.save(other, tmp_path / "other.onnx")
    said = "the plan was verified with another model, as the SHA-256 of its files tells, so what was verified does not"
    for line in (
        "protect {} --plan tuned.json --compensate calib.npz -o {}2.onnx",
        f"check {{}} --plan tuned.json --data test.npz --max-drop 99 {ALL}",
        f"sweep {{}} --plan tuned.json --data test.npz --trials 0 {ALL} --out {{}}.d",
    ):
        for name, warned in (("model.onnx", 0), ("other.onnx", 1)):
            caplog.clear()
            done(cli(line.format(name, name)))
            assert count(caplog, said) == warned, line
    assert oa.load(tmp_path / "model.onnx2.onnx").plan.is_as_verified
    assert not oa.load(tmp_path / "other.onnx2.onnx").plan.is_as_verified


@pytest.mark.parametrize(
    "line",
    [
        "check other.onnx --plan tuned.json --max-drop 99",
        "check model.onnx --sparsity 0.5 --plan tuned.json --max-drop 99",
        "check model.onnx --channel rram-milo --plan tuned.json --max-drop 99",
        "sensitivity other.onnx --plan tuned.json",
        "sweep other.onnx model.onnx --plan tuned.json --trials 1 --out c",
    ],
)
def test_a_plan_whose_record_does_not_hold_still_tells_the_number_of_samples(
    cli,  # noqa: F811
    plan,
    shelf,  # noqa: F811
    monkeypatch,
    tmp_path,
    line,
):
    other = onnx.load(shelf / "model.onnx")
    other.doc_string = "another file"
    onnx.save(other, tmp_path / "other.onnx")
    used = []
    one_call = correcting.one_call
    monkeypatch.setattr(correcting, "one_call", lambda *given: used.append(one_call(*given)) or used[-1])
    done(cli(f"{line} --data test.npz {ALL}"))
    assert {len(each) for each in used} == {20}


@pytest.mark.parametrize("how", ["--channel rram-milo", "--channel pcm --read-bits 4"])
def test_another_channel_is_a_warning(cli, plan, caplog, how):  # noqa: F811
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    said = "the plan was verified in pcm, and here cells are read through "
    for line in (
        "evaluate a.onnx --data test.npz --trials 1 --correct calib.npz --reference model.onnx",
        "evaluate a.onnx --data test.npz --trials 1",
        "check a.onnx --data test.npz --max-drop 99 --correct calib.npz --reference model.onnx",
        "sensitivity a.onnx --data test.npz --correct calib.npz",
        "readback a.onnx --correct calib.npz -o b.onnx",
        "readback a.onnx --correct gain -o c.onnx",
        "readback a.onnx -o d.onnx",
    ):
        caplog.clear()
        done(cli(f"{line} {how}"))
        assert count(caplog, said) == 1, line


def test_images_that_are_made_otherwise_are_a_warning(cli, shelf, samples, caplog, tmp_path):  # noqa: F811
    net = tmp_path / "images.onnx"
    oa.Model(model(IMAGES)).save(net)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", x=rng.integers(0, 256, (60, 4, 4, 1)).astype(np.uint8))
    words = "'x' from uint8 images, divided by 255, normalised with mean 0.5 and std 0.25"
    plan = oa.Plan(default=None, tensors={"w": SCHEME}, compensated=True, compensated_by=40)
    given = {"preprocessing": words, "mean": (0.5,), "std": (0.25,), "scale": 255.0}
    given["model_sha256"] = files.file_digest(net)
    (tmp_path / "tuned.json").write_text(verified(plan, shelf, **given).to_json(), encoding="utf-8")
    protect = "protect images.onnx --plan tuned.json --compensate images.npz --min-size 16"
    done(cli(f"{protect} --mean 0.5 --std 0.25 -o right.onnx"))
    evaluate = "evaluate right.onnx --data images.npz --trials 1 --correct images.npz"
    sweep = "sweep images.onnx --plan tuned.json --data images.npz --min-size 16 --trials 1 --out"
    said = f"inputs are not made as when the plan was verified: then {words}, now "
    for line, warned in (
        (f"{protect} --mean 0.5 --std 0.5 -o wrong.onnx", 1),
        (f"{protect} -o none.onnx", 1),
        (f"{evaluate} --mean 0.5 --std 0.25", 0),
        (evaluate, 1),
        ("readback right.onnx -o a.onnx --correct images.npz", 1),
        ("readback right.onnx -o b.onnx --correct images.npz --mean 0.5 --std 0.25", 0),
        (f"{sweep} c --compensate images.npz --mean 0.5 --std 0.25", 0),
        (f"{sweep} d --compensate images.npz", 1),
    ):
        caplog.clear()
        done(cli(line))
        assert count(caplog, said) == warned, line
    kept = {name: oa.load(tmp_path / f"{name}.onnx").plan for name in ("right", "wrong", "none")}
    assert [name for name, found in kept.items() if found.is_as_verified] == ["right"]


def test_a_damaged_record_of_a_model_is_refused(cli, plan, shelf, tmp_path):  # noqa: F811
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    whole = onnx.load(tmp_path / "a.onnx")
    (entry,) = (entry for entry in whole.metadata_props if entry.key == VERIFIED_KEY)
    for text in ("{", "[]", "{}", entry.value.replace('"trials":1', '"trials":0')):
        assert text != entry.value
        entry_of = onnx.ModelProto.FromString(whole.SerializeToString())
        next(each for each in entry_of.metadata_props if each.key == VERIFIED_KEY).value = text
        with pytest.raises(ModelError, match=f"^metadata entry '{VERIFIED_KEY}' is damaged: "):
            oa.load(entry_of)
    other = entry.value.replace(plan.verified.plan_sha256, "0" * 64)
    next(each for each in whole.metadata_props if each.key == VERIFIED_KEY).value = other
    changed = oa.evaluate(whole, shelf / "test.npz", trials=1)
    assert sum(text.startswith(CHANGED) for text in changed.warnings) == 1


def test_a_record_of_a_later_version_is_read(cli, plan, caplog, tmp_path):  # noqa: F811
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    whole = onnx.load(tmp_path / "a.onnx")
    (entry,) = (entry for entry in whole.metadata_props if entry.key == VERIFIED_KEY)
    entry.value = json.dumps({**json.loads(entry.value), "later": 1})
    onnx.save(whole, tmp_path / "b.onnx")
    assert oa.load(tmp_path / "b.onnx").plan.verified == plan.verified
    assert [text for text in caplog.messages if text.endswith("does not know, and ignores: 'later'")]
    done(cli("readback b.onnx --decoded -o c.onnx"))


def test_other_weights_beside_the_file_are_another_model(cli, shelf, caplog, tmp_path):  # noqa: F811
    """Their file has the same name and size, so that the model's own file is the same."""
    for folder, factor in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        changed = onnx.load(shelf / "model.onnx")
        for tensor in changed.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            scaled = array * factor if array.dtype == np.float32 else array
            tensor.CopyFrom(onnx.numpy_helper.from_array(scaled.astype(array.dtype), tensor.name))
        name = tmp_path / folder / "m.onnx"
        onnx.save(changed, name, save_as_external_data=True, location="m.data", size_threshold=0)
    assert files.file_digest(tmp_path / "a" / "m.onnx") == files.file_digest(tmp_path / "b" / "m.onnx")
    plain = replace(PLAN, compensated=False, compensated_by=None)
    found = verified(plain, shelf, compensated_by=None, model_sha256=files.model_digest(tmp_path / "a" / "m.onnx"))
    (tmp_path / "tuned.json").write_text(found.to_json(), encoding="utf-8")
    for folder, warned in (("a", 0), ("b", 1)):
        caplog.clear()
        done(cli(f"protect {folder}/m.onnx --plan tuned.json -o {folder}.onnx"))
        assert count(caplog, "the plan was verified with another model, as ") == warned


@pytest.mark.parametrize(
    ("numbers", "used"),
    [((20, 20), 20), ((20, None), 20), ((None, None), 256), ((20, 30), 256)],
)
def test_of_plans_that_disagree_none_tells_the_number_of_samples(numbers, used):
    plans = [replace(PLAN, verified=record(corrected_by=number)) for number in numbers]
    found = _inputs.correcting({"x": np.zeros((300, 1), np.float32)}, None, Preprocessing(), plans)
    assert len(found([Input("x", np.dtype("f4"), (None, 1))])) == used
    compensated = [replace(PLAN, compensated_by=number) for number in numbers]
    found = _inputs.compensating({"x": np.zeros((300, 1), np.float32)}, None, Preprocessing(), compensated)
    assert len(found([Input("x", np.dtype("f4"), (None, 1))])) == used


def test_what_is_decoded_has_no_record(cli, plan, tmp_path):  # noqa: F811
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    done(cli("readback a.onnx --decoded -o b.onnx"))
    assert VERIFIED_KEY not in {entry.key for entry in onnx.load(tmp_path / "b.onnx").metadata_props}


def test_the_plan_is_shown_with_its_record(cli, plan, tmp_path):  # noqa: F811
    shown = " ".join(done(cli("plan show tuned.json")).split())
    assert f"Verified: {plan.verified}" in shown
    body = {**plan.to_dict(), "tensors": {"a": None}}
    (tmp_path / "tuned.json").write_text(json.dumps(body), encoding="utf-8")
    assert "The plan was changed after it was verified, so what was verified does not hold here" in " ".join(
        done(cli("plan show tuned.json")).split()
    )
    done(cli("protect model.onnx --integers 4 -o a.onnx --save-plan plain.json"))
    assert "verified" not in done(cli("plan show plain.json"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "evaluate model.protected.onnx --data test.npz --trials 1 --samples 999",
            "samples is 999, and there are 200: ",
        ),
        (
            "evaluate model.protected.onnx --data test.npz --trials 1 --correct calib.npz --correct-samples 61",
            "correct_samples is 61, and there are 60: ",
        ),
        (
            "protect model.onnx --integers 4 --compensate calib.npz --compensate-samples 61 -o a.onnx",
            "compensate_samples is 61, and there are 60: ",
        ),
    ],
)
def test_more_samples_than_there_are_is_a_warning(cli, samples, caplog, line, said):  # noqa: F811
    done(cli(line))
    assert count(caplog, said) == 1
    caplog.clear()
    fewer = line.replace(" 999", " 200").replace(" 61", " 60").replace("a.onnx", "b.onnx")
    done(cli(fewer))
    assert not [text for text in caplog.messages if "there are" in text]


def test_samples_of_the_default_number_may_be_fewer(cli, samples, caplog):  # noqa: F811
    done(cli("protect model.onnx --integers 4 --compensate calib.npz -o a.onnx"))
    assert not [text for text in caplog.messages if "there are" in text]


@pytest.mark.parametrize(
    "line",
    [
        "evaluate a.onnx --data test.npz --trials 1",
        "check a.onnx --data test.npz --max-drop 99",
        "readback a.onnx --correct calib.npz -o b.onnx --force",
        "readback a.onnx --correct calib.npz --trials 1 -o c --force",
        "readback a.onnx --correct calib.npz --statistics s.json --data test.npz -o b.onnx --force",
    ],
)
def test_a_reference_that_is_not_the_file_that_was_protected_is_a_warning(cli, samples, caplog, tmp_path, line):  # noqa: F811
    said = "the reference is not the file that was protected, as the SHA-256 in the model tells, so losses and "
    done(cli("prune model.onnx --sparsity 0.5 -o pruned.onnx"))
    done(cli("protect pruned.onnx --integers 4 -o a.onnx"))
    for reference, warned in (("pruned.onnx", False), ("model.onnx", True)):
        caplog.clear()
        done(cli(f"{line.replace(' c ', f' {reference}.d ')} --reference {reference}"))
        assert any(text.startswith(said) for text in caplog.messages) == warned, reference


def test_a_reference_that_is_no_file_is_not_compared_with_that(samples, caplog, tmp_path, shelf):  # noqa: F811
    stored = oa.protect(shelf / "model.onnx", integers=4)
    oa.evaluate(stored, shelf / "test.npz", trials=1, reference=onnx.load(shelf / "model.onnx"))
    assert not count(caplog, "the reference is not the file")
    other = oa.protect(onnx.load(shelf / "model.onnx"), integers=4)  # whose file is not known
    oa.evaluate(other, shelf / "test.npz", trials=1, reference=shelf / "model.onnx")
    assert not count(caplog, "the reference is not the file")


def test_a_correction_that_is_left_out_asks_for_all_that_it_needs(cli, plan, caplog):  # noqa: F811
    """Samples alone would correct a protected model towards itself; what knows the original needs no reference."""
    done(cli("protect model.onnx --plan tuned.json --compensate calib.npz -o a.onnx"))
    asked, reference = "Give it 20 samples, which need no labels", ", and give reference, the original"
    for line, asks in (
        ("evaluate a.onnx --data test.npz --trials 1", True),
        ("check a.onnx --data test.npz --max-drop 99 --reference model.onnx", False),
        ("readback a.onnx -o b.onnx", True),
        ("evaluate a.onnx --data test.npz --trials 1 --reference model.onnx", False),
        ("check model.onnx --plan tuned.json --data test.npz --max-drop 99 --compensate calib.npz", False),
    ):
        caplog.clear()
        done(cli(line))
        (said,) = (text for text in caplog.messages if text.startswith(LEFT_OUT))
        assert said.endswith(f"{asked}{reference * asks}"), line
