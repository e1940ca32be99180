"""What a model remembers of its images is the default of all that is given it, or what is made of it."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog._inputs import marked_for
from onnx_analog.cli import main
from onnx_analog.errors import OptionError
from onnx_analog.graph import files, normalisation
from onnx_analog.graph.normalisation import Normalisation
from onnx_analog.run.data import Dataset
from tests.coding.test_verified import record

NUMBERS: dict[str, Any] = {"mean": 0.1307, "std": 0.3081}
FEW: dict[str, Any] = {"samples": 100}


@pytest.fixture(scope="module")
def remembering():
    return oa.remember(demo.MODEL, **NUMBERS)


def said(found):
    return found.to_dict()["preprocessing"].partition("normalised with ")[2]


def test_the_numbers_are_used_and_the_result_says_so(remembering):
    expected = oa.evaluate(demo.MODEL, demo.IMAGES, **NUMBERS)
    found = oa.evaluate(remembering, demo.IMAGES)
    assert found.original == expected.original > oa.evaluate(demo.MODEL, demo.IMAGES).original
    assert said(found) == f"{said(expected)}, as the model remembers"


def test_all_that_is_made_of_the_model_remembers_them_too(remembering, tmp_path):
    pruned = oa.prune(remembering, sparsity=0.5)
    protected = oa.protect(pruned)
    protected.save(tmp_path / "p.onnx")
    kept = Normalisation((0.1307,), (0.3081,))
    read = oa.readback(tmp_path / "p.onnx")
    for model in (remembering, pruned, protected, tmp_path / "p.onnx", read, oa.readback(protected, decoded=True)):
        assert oa.inspect(model).normalisation == kept
    assert oa.inspect(oa.remember(protected, mean=0, std=1)).normalisation == Normalisation((0,), (1,))


@pytest.mark.parametrize(
    "call",
    [
        lambda model, **more: oa.check(model, demo.IMAGES, max_drop=50, integers=8, **FEW, **more),
        lambda model, **more: oa.sensitivity(model, demo.IMAGES, trials=1, by=["stream"], **FEW, **more),
        lambda model, **more: oa.sweep(
            model, demo.IMAGES, strategy="mapping", cells=1, trials=1, engine="serial", **FEW, **more
        ).points[0].evaluation,
    ],
    ids=["check", "sensitivity", "sweep"],
)  # fmt: skip
def test_all_functions_use_them_as_if_they_were_given(call, remembering):
    found, expected = call(remembering), call(demo.MODEL, **NUMBERS)
    assert said(found) == f"{said(expected)}, as the model remembers"
    names = {"preprocessing", "model"}
    first, second = ({k: v for k, v in each.to_dict().items() if k not in names} for each in (found, expected))
    assert first == second


def test_samples_that_correct_or_compensate_are_normalised_too(remembering):
    few = np.load(demo.IMAGES)["x"][:64]
    plan = oa.Scheme(classes=31, partition="uniform", sign="level", cells=(0,))
    found, expected = (
        oa.protect(model, plan, compensate=few, **more) for model, more in ((remembering, {}), (demo.MODEL, NUMBERS))
    )
    assert [found.tensors[0].decode().tobytes()] == [expected.tensors[0].decode().tobytes()]
    found, expected = (
        oa.readback(oa.protect(model), correct=few, decoded=True, **more)
        for model, more in ((remembering, {}), (demo.MODEL, NUMBERS))
    )
    assert found.to_proto().graph == expected.to_proto().graph


def test_what_is_given_is_used_and_the_contradiction_is_told(remembering, caplog):
    with caplog.at_level(logging.WARNING, logger="onnx_analog"):
        found = oa.evaluate(remembering, demo.IMAGES, mean=0.5, **FEW)
    told = "the model remembers mean 0.1307"
    assert said(found) == f"mean 0.5 and std 0.3081; {told}"
    assert [record.getMessage() for record in caplog.records] == [f"{told}: what is given is used instead"]
    assert found.original == oa.evaluate(demo.MODEL, demo.IMAGES, mean=0.5, std=0.3081, **FEW).original


def test_what_is_given_again_is_no_contradiction(remembering, caplog):
    with caplog.at_level(logging.WARNING, logger="onnx_analog"):
        oa.evaluate(remembering, demo.IMAGES, **NUMBERS, **FEW)
    assert caplog.records == []


def test_arrays_of_floats_are_left_as_they_are(remembering):
    floats = np.load(demo.IMAGES)["x"][:8, None].astype(np.float32)
    found = oa.evaluate(remembering, {"x": floats, "y": np.zeros(8, int)})
    assert found.preprocessing.endswith("as given (float32)")


SCALED = "images are scaled to [0, 1] and not normalised, as mean and std are neither given nor remembered"


@pytest.mark.parametrize("given", [{}, {"mean": 0}, {"std": 1}, NUMBERS, {"preprocess": "tests.test_remember:plain"}])
def test_images_that_nothing_normalises_are_told_unless_that_is_said(given, remembering, caplog):
    images = {"x": np.load(demo.IMAGES)["x"][:8]}
    oa.evaluate(demo.MODEL, images, **given)
    assert any(SCALED in message for message in caplog.messages) == (not given)
    caplog.clear()
    oa.evaluate(remembering, images)
    oa.evaluate(demo.MODEL, {"x": images["x"][:, None].astype(np.float32)})
    assert not any(SCALED in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("given", "missing"), [({"mean": 0.1307}, "std"), ({"std": 0.3081}, "mean"), ({"mean": 0}, None), (NUMBERS, None)]
)
def test_the_number_that_is_missing_is_told(given, missing, remembering, caplog):
    images = {"x": np.load(demo.IMAGES)["x"][:8]}
    oa.evaluate(demo.MODEL, images, **given)
    assert any(f"{missing} is neither given nor remembered" in each for each in caplog.messages) == (
        missing is not None
    )
    caplog.clear()
    oa.evaluate(remembering, images, **given)
    assert not any("neither given" in message for message in caplog.messages)


def plain(images):
    """Return images as the network takes them, as a function of the user's does."""
    return images[:, None].astype(np.float32)


def test_numbers_for_images_that_there_are_none_of_are_refused():
    floats = np.load(demo.IMAGES)["x"][:8, None].astype(np.float32)
    with pytest.raises(OptionError, match="mean is given, and normalises uint8 images, of which the data have none"):
        oa.evaluate(demo.MODEL, {"x": floats}, **NUMBERS)
    oa.evaluate(demo.MODEL, {"x": floats}, mean=0, std=1)  # which changes nothing


@pytest.mark.parametrize("name", ["mean", "std"])
def test_both_numbers_are_needed(name):
    with pytest.raises(OptionError, match=f"{name} is None; it must be one number, or one for each channel"):
        oa.remember(demo.MODEL, **{**NUMBERS, name: None})


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"mean": 33, "std": 78}, r"mean is 33, and images are divided by 255 first: give 0\.1294, and std likewise"),
        ({"mean": (0.1, 0.2, 0.3), "std": 0.5}, "mean has 3 values, and no input of the model has as many channels"),
    ],
)
def test_numbers_that_cannot_be_those_of_the_model_are_refused(numbers, message):
    with pytest.raises(OptionError, match=message):
        oa.remember(demo.MODEL, **numbers)


def test_numbers_for_a_data_set_that_is_taken_as_it_is_are_refused():
    floats = np.load(demo.IMAGES)["x"][:8, None].astype(np.float32)
    data = Dataset({"input": floats}, None)
    with pytest.raises(OptionError, match="mean is given, and normalises uint8 images, of which the data have none"):
        oa.evaluate(demo.MODEL, data, mean=0.3)


def test_a_sweep_notes_the_numbers_only_where_images_are_normalised(remembering, tmp_path):
    images = np.load(demo.IMAGES)
    floats = {"x": images["x"][:8, None].astype(np.float32), "y": images["y"][:8]}
    for name, data, mean in (("bytes", demo.IMAGES, [0.1307]), ("floats", floats, [0.0])):
        oa.sweep(remembering, data, trials=1, samples=8, channel="gaussian:sigma=0.05", out=tmp_path / name)
        assert json.loads((tmp_path / name / "sweep.json").read_text(encoding="utf-8"))["input_mean"] == mean


def test_the_numbers_of_the_reference_are_taken_where_the_model_has_none(remembering):
    stored, data = oa.protect(demo.MODEL, integers=8), demo.IMAGES
    expected = oa.evaluate(stored, data, reference=demo.MODEL, **FEW, **NUMBERS)
    found = oa.evaluate(stored, data, reference=remembering, **FEW)
    assert (found.original, found.values) == (expected.original, expected.values)
    assert said(found) == f"{said(expected)}, as the reference remembers"
    own = oa.remember(stored, mean=0.2, std=0.3)
    assert said(oa.evaluate(own, data, reference=remembering, **FEW)).endswith("std 0.3, as the model remembers")


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Return a function that calls the command line in a folder with a model."""
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(demo.MODEL.read_bytes())
    return lambda line: CliRunner().invoke(main, line.split(), prog_name="onnx-analog")


def test_the_command_keeps_the_file_and_what_it_is_known_by(cli):
    """The entry stands at the end, however often it is written; it is the same for the library."""
    before = Path("model.onnx").read_bytes()
    for source, target, mean in (("model.onnx", "a.onnx", 0.1307), ("a.onnx", "b.onnx", 0.5)):
        assert cli(f"remember {source} --mean {mean} --std 0.3081 -o {target}").exit_code == 0
        assert Path(target).read_bytes()[: len(before)] == before
        assert oa.inspect(target).normalisation == Normalisation((mean,), (0.3081,))
        assert files.model_digest(target) == files.file_digest("model.onnx") != files.file_digest(target)
        assert files.model_digests(target)[1] == files.file_digest(target)  # of records of earlier versions
    assert len(Path("b.onnx").read_bytes()) - len(before) == len(normalisation.at_end(Path("b.onnx")))
    onnx.checker.check_model(onnx.load("b.onnx"))


def test_another_change_of_the_file_is_another_model(cli):
    """A byte before the entry, or anything behind it, tells two files apart."""
    assert cli("remember model.onnx --mean 0.1307 --std 0.3081 -o a.onnx").exit_code == 0
    data = bytearray(Path("a.onnx").read_bytes())
    Path("behind.onnx").write_bytes(bytes(data) + onnx.ModelProto(doc_string="more").SerializeToString())
    data[len(data) // 2] ^= 1
    Path("within.onnx").write_bytes(bytes(data))
    expected = files.model_digest("model.onnx")
    for name in ("behind.onnx", "within.onnx"):
        assert expected not in files.own_digests(name)


def test_a_model_that_remembers_is_the_one_that_its_plan_and_protected_models_are_of(cli, caplog):
    """Whichever of the two files a plan was verified with, or a model was protected from."""
    assert cli("remember model.onnx --mean 0.1307 --std 0.3081 -o a.onnx").exit_code == 0

    def reason(digest, model):
        found = marked_for(oa.Plan(verified=record(model_sha256=digest)), model)
        return found.verified.otherwise

    names = ("model.onnx", "a.onnx")
    for name, other in (names, names[::-1]):
        assert [reason(files.model_digest(name), each) for each in names] == [None, None]
        oa.protect(name).save("p.onnx", force=True)
        caplog.clear()
        oa.evaluate("p.onnx", demo.IMAGES, reference=other, **FEW, **NUMBERS, trials=0)
        assert "the reference is not the file" not in caplog.text
    of_earlier_version = files.file_digest("a.onnx")
    assert reason(of_earlier_version, "a.onnx") is None
    assert "another model" in reason(of_earlier_version, "model.onnx")
