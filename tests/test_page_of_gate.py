"""docs/gate.md says what `check` prints and does, and its scripts run."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.arguments import DEFAULTS
from onnx_analog.cli.gates import FAILED, NO, UNDECIDED
from onnx_analog.coding.scheme import BLOCK_FAILURE
from onnx_analog.display import rounded_up
from onnx_analog.tuning.gate import FIRST_LOOK, RISK_OF_TRIALS, sequential
from tests.conftest import ROOT
from tests.pages import run_page

PAGE = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


def blocks(kind: str) -> list[str]:
    """Return the blocks of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo.MODEL, "model.onnx")
    shutil.copy(demo.IMAGES, "test.npz")
    program = tmp_path / "bin" / "onnx-analog"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m onnx_analog "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def script(text: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the page as a CI server does."""
    for old, new in changes.items():
        text = re.sub(rf"--{old.replace('_', '-')} \S+", new, text)
    Path("ci.sh").write_text(text, encoding="utf-8")
    return subprocess.run(["/bin/sh", "ci.sh"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.usefixtures("folder")
def test_the_script_stops_unless_the_answer_is_yes():
    (gate, _) = blocks("bash")
    ended = script(gate)
    assert (ended.returncode, ended.stderr) == (0, "")
    _, cells, inputs, junit, said = ended.stdout.splitlines()
    assert cells.startswith("cells per weight: ")
    assert inputs.startswith("inputs: 'input' from uint8 images")
    assert (junit, said) == ("JUnit: survives.xml", "the model may be shipped")
    (case,) = ET.parse("survives.xml").getroot().iter("testcase")
    assert case.findtext("system-out").startswith(ended.stdout.splitlines()[0])
    ended = script(gate, cells_small="--strategy raw", cells_large="")  # again in the same folder
    assert (ended.returncode, len(ended.stdout.splitlines())) == (NO, 4)
    assert (ended.stdout[:4], ended.stderr) == ("no: ", "")
    assert [child.tag for child in next(ET.parse("survives.xml").getroot().iter("testcase"))] == [
        "failure",
        "system-out",
    ]
    ended = script(gate, data="--data none.npz")
    assert (ended.returncode, ended.stdout) == (FAILED, "")
    assert "<failure" in Path("survives.xml").read_text(encoding="utf-8")  # that of the build before


@pytest.mark.usefixtures("folder")
def test_the_script_that_lets_an_open_answer_pass_tells_it_from_no():
    (_, lenient) = blocks("bash")
    ended = script(lenient)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "warning: more samples are needed")
    assert script(lenient, integers="--integers 2").returncode == NO
    assert script(lenient, data="--data none.npz").returncode == FAILED


def test_ci_runs_the_command_of_the_script():
    (line,) = [line for line in blocks("bash")[0].splitlines() if line.startswith("onnx-analog")]
    for text in blocks("yaml"):
        (found,) = [found.strip(" -") for found in text.splitlines() if "onnx-analog check" in found]
        assert found.removeprefix("run: ") == line
        assert text.count("survives.xml") == 2


def test_numbers_of_the_page_are_those_of_the_code():
    assert FIRST_LOOK == 3
    assert "from the third trial on" in WORDS
    assert RISK_OF_TRIALS == 0.2
    assert "four fifths of the risk: 4 % of 5 %" in WORDS
    assert (DEFAULTS.confidence, BLOCK_FAILURE) == (0.95, 1e-9)
    assert f"up to {-math.log(0.8 * 0.05):.1f}/n" in WORDS
    assert f"({-math.log(0.05):.1f}/n where" in WORDS


def test_the_samples_that_a_limit_takes_are_those_that_the_command_asks_for():
    """As `check` says it, where no sample is lost."""
    few, many = (
        rounded_up(
            sequential([np.zeros(100)] * 3, limit=limit, confidence=0.95, most=3).needed  # 100: too few for either
        )
        for limit in (0.005, 0.001)
    )
    assert f"0.5 points take about {few:,} samples at least, and 0.1 points about {many:,}." in WORDS


def test_exit_codes_are_those_of_the_command():
    table = PAGE.partition("| answer | exit code |")[2].partition("\n\n")[0]
    codes = dict(re.findall(r"^\| (yes|no|not decided|none) \| ([^|]+) \|", table, re.MULTILINE))
    assert codes == {"yes": "0", "no": str(NO), "not decided": str(UNDECIDED), "none": f"{FAILED} or 3"}


@pytest.mark.usefixtures("folder")
def test_the_page_runs_and_every_field_of_the_json_is_on_it():
    run_page(ROOT / "docs" / "gate.md")
    checked = oa.check(
        "model.onnx", "test.npz", max_drop=1, cells_small=3, cells_large=30, mean=0.1307, std=0.3081, max_trials=3
    )
    section = PAGE.partition("## Output of `--json`")[2]
    listed = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert listed - {"sqnr_db"} == set(checked.to_dict())
