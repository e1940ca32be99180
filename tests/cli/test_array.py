"""A real array on the command line: manifest --write-image, readback --measured, compare."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog.cli import main
from tests.far_side import FarArray, write_csv, write_npz
from tests.models import proto
from tests.run.nets import LINEAR, rows

MEASURED = "readback m.onnx --measured reads.npz --unit scaled"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Return a function that runs a command line in a folder with a protected model, labelled data and reads."""
    monkeypatch.chdir(tmp_path)
    onnx.save(proto(LINEAR), "model.onnx")
    data = rows(200)
    x = data.inputs["x"]
    oa.protect("model.onnx", channel="gaussian:sigma=0.1", cells_large=3).save("m.onnx")
    np.savez("test.npz", x=x, y=np.zeros(200, np.int64))
    array = _written("m.onnx")
    write_npz(Path("reads.npz"), array, array.read())
    return lambda line: CliRunner().invoke(main, shlex.split(line), prog_name="onnx-analog")


def _written(model: str) -> FarArray:
    oa.write_image(model, "cells.npz")
    return FarArray(Path("cells.npz"))


def test_an_image_is_written_as_either_file(command):
    ended = command("manifest m.onnx --write-image other.csv")
    assert ended.exit_code == 0
    assert ended.stdout == f"{oa.write_image('m.onnx', 'again.npz')}: other.csv\n"
    assert FarArray(Path("other.csv")).address.tolist() == FarArray(Path("cells.npz")).address.tolist()
    refused = command("manifest m.onnx --write-image other.csv")
    assert (refused.exit_code, "already exists" in refused.stderr) == (1, True)
    assert command("manifest m.onnx --write-image other.csv --force").exit_code == 0
    assert "must end with .npz or .csv" in command("manifest m.onnx --write-image other.txt").stderr
    written = json.loads(command("manifest m.onnx --write-image c.npz --json").stdout)
    image, far = oa.write_image("m.onnx", "again.npz", force=True), FarArray(Path("c.npz"))
    assert written == {"image": "c.npz", **image.to_dict()}
    assert (written["digest"], written["cells"]) == (image.digest, far.address.size)
    assert written["tensors"] == [tensor["key"] for tensor in oa.account("m.onnx").to_dict()["tensors"]]
    Path("m.json").write_text(oa.account("m.onnx").to_json(), encoding="utf-8")
    assert (
        "is a manifest; --write-image needs the protected model"
        in command("manifest m.json --write-image d.npz").stderr
    )
    assert command("manifest m.onnx --write-image m.onnx --force").exit_code == 2
    assert not Path("d.npz").exists()


def test_progress_shows_how_much_of_a_file_of_reads_is_read(command, monkeypatch):
    from onnx_analog.cli import progress

    monkeypatch.setattr(progress, "BETWEEN", 0.0)
    array = FarArray(Path("cells.npz"))
    write_csv(Path("reads.csv"), array, array.read())
    ended = command("readback m.onnx --measured reads.csv --unit scaled -o out.onnx")
    assert "reads of the array: CSV file, 100 % done\n" in ended.stderr


def test_measured_reads_become_a_model_and_a_table(command):
    ended = command(f"{MEASURED} -o out.onnx")
    assert ended.exit_code == 0
    assert "cells without a read" in ended.stdout
    assert "Not calibrated" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("protected model as an array returned it: ")
    plain = command(f"{MEASURED} -o plain.onnx --decoded").stdout
    assert plain.splitlines()[-1].startswith("plain weights as an array returned them: ")
    assert oa.inspect("out.onnx").read_back.endswith("reads of an array")


def test_calibration_is_told(command):
    array = FarArray(Path("cells.npz"))
    known = np.linspace(-0.5, 0.5, 10)
    np.savez(
        "reads.npz",
        address=np.append(array.address, np.zeros(10, int)),
        value=2 * np.append(array.read(), known) + 0.5,
        reference=np.append(np.full(array.address.size, np.nan), known),
    )
    assert "1 block calibrated by reference cells: gain 2 to 2, offset 0.5 to 0.5" in command(MEASURED).stdout


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "readback m.onnx --measured reads.npz",
            2,
            "--unit is not given: say --unit scaled (the scale of levels) or --unit device",
        ),
        ("readback m.onnx --measured reads.npz --unit device", 2, "knows no unit of reads: give scaled values"),
        ("readback m.onnx --measured cells.npz --unit scaled", 1, "has no column 'value'"),
        ("readback m.onnx --measured model.onnx --unit scaled", 1, "must end with .npz or .csv"),
        (f"{MEASURED} --trials 2", 2, "--trials and --measured exclude each other"),
        (f"{MEASURED} --seed 2", 2, "--seed and --measured exclude each other"),
        (f"{MEASURED} --time 1h", 1, "says no times, and --time is 3600"),
        ("readback m.onnx --unit scaled", 2, "--unit is given, and --measured is not"),
        ("readback m.onnx --missing zero --trials 2", 2, "--missing is given, and --measured is not"),
        ("readback m.onnx --data test.npz", 2, "--data is given, and --statistics is not"),
        (f"{MEASURED} -o s.json --statistics s.json", 2, "the same file"),
        (f"{MEASURED} --statistics reads.npz --force", 1, "is an input"),
        (f"{MEASURED} --statistics test.npz --data test.npz --force", 1, "is an input"),
        (
            "compare test.npz test.npz",
            1,
            "'test.npz' is an npz file of arrays, and a file of the statistics of an array is needed",
        ),
        ("compare none.json test.npz", 2, "does not exist"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(command, line, code, said):
    ended = command(line)
    assert ended.exit_code == code
    assert said in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("Error: ")
    assert not Path("m.readback.onnx").exists()


def test_statistics_of_both_arrays_are_compared(command):
    array, rng = FarArray(Path("cells.npz")), np.random.default_rng(0)
    write_npz(
        Path("reads.npz"),
        array,
        array.read(lambda held: held + 0.1 * rng.normal(size=held.size)),
    )
    measured = command(f"{MEASURED} -o a.onnx --statistics measured.json --data test.npz")
    assert measured.stdout.startswith("statistics of ")
    simulated = command("readback m.onnx --trials 4 -o sim --statistics simulated.json --data test.npz")
    assert (measured.exit_code, simulated.exit_code) == (0, 0)
    assert len(list(Path("sim").iterdir())) == 4
    ended = command("compare measured.json simulated.json")
    expected = oa.compare("measured.json", "simulated.json")
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[-1] == str(expected)
    assert "one more simulated array" in ended.stdout
    assert json.loads(command("compare measured.json simulated.json --json").stdout)["line"] == str(expected)
    turned = command("compare simulated.json measured.json").stderr
    assert "'simulated.json' describes simulated arrays; the first of the two must describe a measured array" in turned
    one = command("readback m.onnx --statistics one.json --seed 3")
    assert one.exit_code == 0
    assert json.loads(Path("one.json").read_text(encoding="utf-8"))["values"] == []
    assert command("compare measured.json one.json").stdout.splitlines()[-1].endswith("comparisons")


def test_a_missing_unit_is_said_before_what_is_there_already(command):
    Path("m.readback.onnx").touch()
    result = command("readback m.onnx --measured reads.npz")
    assert result.exit_code == 2
    assert "--unit is not given" in result.stderr
    assert "already exists" in command(MEASURED).stderr


def test_statistics_are_written_with_the_model_or_not_at_all(command):
    ended = command(f"{MEASURED} --statistics s.json --data nothing.npz")
    assert ended.exit_code == 2
    failed = command("readback m.onnx --channel gaussian:sigma=0.1,low=0,high=0.1 --statistics s.json -o o.onnx")
    assert failed.exit_code != 0
    assert not Path("s.json").exists()
    assert not Path("o.onnx").exists()
    assert command(f"{MEASURED} --statistics s.json -o o.onnx").exit_code == 0
    assert Path("s.json").exists()
    assert Path("o.onnx").exists()


def test_what_is_read_is_told_as_json(command):
    body = json.loads(command(f"{MEASURED} -o o.onnx --statistics s.json --json").stdout)
    assert (body["models"], body["statistics"], body["seed"]) == (["o.onnx"], "s.json", 0)
    assert body["array"]["reads"] == len(np.load("reads.npz")["address"])
    several = json.loads(command("readback m.onnx --trials 2 --seed 4 --json").stdout)
    assert (len(several["models"]), several["seed"], several["array"]) == (2, 4, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("readback m.onnx --measured bad.npz --unit scaled", "has no column 'value'"),
        ("readback m.onnx --channel nothing", "nothing"),
        ("readback model.onnx", "the model is not protected"),
        ("readback m.onnx --statistics s.json --data reads.csv", "reads.csv"),
    ],
)
def test_what_is_wrong_with_inputs_is_said_before_what_is_there_already(command, line, said):
    np.savez("bad.npz", address=[1])
    Path("reads.csv").write_text("no data", encoding="utf-8")
    for name in ("m", "model"):
        Path(f"{name}.readback.onnx").touch()
    ended = command(line)
    assert ended.exit_code != 0
    assert said in ended.stderr
    assert "already exists" not in ended.stderr
    assert "already exists" in command("readback m.onnx").stderr


def test_plurals_are_right(command):
    first = FarArray(Path("cells.npz"))
    np.savez("one.npz", address=first.address[:1], value=first.read()[:1])
    ended = command("readback m.onnx --measured one.npz --unit scaled --missing written -o one.onnx")
    assert "1 read of an array: one.onnx" in ended.stdout
    np.savez("most.npz", address=first.address[1:], value=first.read()[1:])
    refused = command("readback m.onnx --measured most.npz --unit scaled")
    assert "1 weight of 512 has no read" in refused.stderr
