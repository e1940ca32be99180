"""What a file is, by its first bytes."""

import io
import json
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog.cli import main
from onnx_analog.disk import kinds
from tests.models import model

NET = "net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random> { y = MatMul(x, a) }"


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"")
    return file.getvalue()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the kinds of files that the program wrote, by name, in the current folder."""
    monkeypatch.chdir(tmp_path)
    oa.Model(model(NET)).save("model.onnx")
    np.savez("data.npz", x=np.ones((200, 16), np.float32))
    Path("reads.csv").write_text("# image 0\nlevel,read\n0,0.1\n", encoding="utf-8")
    Path("channel.json").write_text(json.dumps({"family": "gaussian", "sigma": 0.1}), encoding="utf-8")
    done("protect model.onnx -o p.onnx --channel gaussian:sigma=0.1 --save-plan plan.json --save-config c.toml")
    done("readback p.onnx -o r.onnx --statistics statistics.json")
    done(f"{TUNE} --resume kept")
    return {
        "model.onnx": kinds.MODEL,
        "data.npz": kinds.NPZ,
        "plan.json": kinds.PLAN,
        "p.manifest.json": kinds.MANIFEST,
        "statistics.json": kinds.STATISTICS,
        "kept": kinds.SEARCH,
        "c.toml": kinds.TOML,
        "reads.csv": kinds.CSV,
    }


def done(line):
    found = CliRunner().invoke(main, shlex.split(line), prog_name="onnx-analog")
    assert found.exit_code == 0, found.stderr


def test_each_file_of_the_program_is_recognised_and_taken_for_no_other(own):
    assert {name: kinds.found_in(name) for name in own} == own
    for name, kind in own.items():
        assert kinds.mistaken(name, kind) is None
        for other in {*own.values(), kinds.CHANNEL} - {kind}:
            may_be = other == kinds.CSV and kind == kinds.TOML  # a heading may look like an entry
            assert (kinds.mistaken(name, other) is None) == may_be


TUNE = "tune model.onnx --data data.npz --channel gaussian:sigma=0.1 --max-drop 50 --metric agreement"
READERS = {  # commands that read a file of one kind
    "protect model.onnx -o o.onnx --plan {}": "plan.json",
    "evaluate {} --data data.npz --metric agreement": "model.onnx",
    "evaluate model.onnx --data {}": "data.npz",
    "inspect model.onnx --config {}": "c.toml",
    "manifest p.onnx --check {}": "p.manifest.json",
    "compare {} statistics.json": "statistics.json",
    "channel fit {} --input level --output read": "reads.csv",
    "protect model.onnx -o o.onnx --channel ./{}": "channel.json",
    TUNE + " -o t.json --resume {}": "kept",
    "sweep model.onnx --data {} --out out --channel gaussian:sigma=0.1": "data.npz",
}


@pytest.mark.parametrize("line", READERS)
def test_whatever_reads_a_file_of_another_kind_says_what_it_is(own, line):
    needed = own.get(READERS[line], kinds.CHANNEL)
    for name, kind in own.items():
        if kind == needed or (needed == kinds.CSV and kind == kinds.TOML) or name in line:
            continue
        before = Path(name).read_bytes()
        found = CliRunner().invoke(main, shlex.split(line.format(name)), prog_name="onnx-analog")
        assert found.exit_code in (1, 2)
        assert f"{name}' is {kind}, and {needed} is needed" in found.stderr
        assert Path(name).read_bytes() == before


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", None),
        (b"hello, this is text. It says more\n", None),
        (b"hello\n", None),
        (b"\x00" * 64, None),
        (b"\xff\xfe{", None),
        (b"{", None),
        (b'{"a": 1}', "a JSON file"),
        (b'\xef\xbb\xbf\n{\n"format": "onnx-analog-plan/7"', kinds.PLAN),
        (b'{"format": "another/1"}', "a JSON file"),
        (b"<!DOCTYPE HTML>", "a web page"),
        (b"<svg>", "an XML or SVG file"),
        (b'<?xml version="1.0"?>', "an XML or SVG file"),
        (b"<level>,read\n0,0.1\n", kinds.CSV),
        (b"<level>\n", None),
        (b"Dear all, this is text,\nand it goes on, as text does.\n", None),
        (b'{"notes": {"format": "onnx-analog-plan/7"}, "a": 1}', "a JSON file"),
        (b'{"notes": ["{", {"format": "x/1"}], "format": "onnx-analog-manifest/2"', kinds.MANIFEST),
        (b'{"notes": "\\"format\\": \\"onnx-analog-plan/7"}', "a JSON file"),
        (b"[1, 2]", None),
        (b"[1]\n", None),
        (b"# options\ncells = 1\n", kinds.TOML),
        (b"[tool]\n", kinds.TOML),
        (b"level;read\n", None),
        (b"v\xcf\x80,read\r\n1,2\r\n", kinds.CSV),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\x80\x04\x95", "a pickle of Python"),
        (npy(np.ones(3)), "a single array (npy)"),
        (zipped("x.npy"), kinds.NPZ),
        (zipped("network/data.pkl"), "a PyTorch file"),
        (zipped("read.me"), "a zip archive"),
        (b"\x08\x07\x12\x07pytorch", kinds.MODEL),
        (b"\x08\x00\x12", None),
        (b"\x08\x0a", None),
    ],
)
def test_a_kind_is_told_by_the_first_bytes_alone(start, kind):
    assert kinds.kind_of(start) == kind


def test_what_cannot_be_read_is_left_to_who_reads_it(tmp_path):
    assert kinds.mistaken(tmp_path, kinds.PLAN) is None
    assert kinds.mistaken(tmp_path / "none", kinds.PLAN) is None


@pytest.mark.parametrize("needed", [kinds.NPZ, kinds.CSV, kinds.PLAN])
def test_what_may_be_of_the_kind_is_not_refused(tmp_path, needed):
    """A zip archive may hold arrays, a heading of a table may look like an entry, and JSON may lack its format."""
    path = tmp_path / "file"
    path.write_bytes({kinds.NPZ: zipped("x"), kinds.CSV: b"G=1/V,read\n", kinds.PLAN: b"{}"}[needed])
    assert kinds.mistaken(path, needed) is None
