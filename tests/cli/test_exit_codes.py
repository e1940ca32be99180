"""The examples of docs/exit_codes.md end with the codes that the page states."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
from click.testing import CliRunner

from onnx_analog import demo, errors
from onnx_analog.cli import main
from onnx_analog.cli.commands.tune import UNDECIDED
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "exit_codes.md").read_text(encoding="utf-8")


def examples(text: str) -> list[tuple[int, str]]:
    """Return the exit code and the command of each row of the table."""
    return [(int(code), command) for code, command in re.findall(r"^\| (\d+) \|.*\| `([^`]+)` \|$", text, re.MULTILINE)]


def check_examples(text: str) -> None:
    """Fail unless each example of a page, run in turn, ends with its code and, if this is not 0, with an error."""
    for code, command in examples(text):
        ended = CliRunner().invoke(main, shlex.split(command)[1:], prog_name="onnx-analog")
        assert ended.exit_code == code, f"{command}: {ended.stderr}"
        last = ended.stderr.splitlines()[-1:]
        assert bool(code) == (bool(last) and last[0].startswith("Error: ")), f"{command}: {ended.stderr}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo.MODEL, "model.onnx")
    shutil.copy(demo.IMAGES, "test.npz")


@pytest.mark.usefixtures("folder")
def test_examples_end_with_their_codes():
    check_examples(PAGE)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "wrong", ["| 1 | a | `onnx-analog inspect model.onnx` |", "| 0 | a | `onnx-analog inspect b` |"]
)
def test_check_examples_rejects_another_code(wrong):
    with pytest.raises(AssertionError, match="inspect"):
        check_examples(wrong)


def family(error: type[errors.AnalogError]) -> set[int]:
    """Return the exit codes of an error and of the errors that derive from it."""
    return {error.exit_code}.union(*map(family, error.__subclasses__()))


def test_the_page_has_an_example_of_every_code():
    assert {code for code, _ in examples(PAGE)} == {0, UNDECIDED, *family(errors.AnalogError)}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("line", ["", "channel"])
def test_without_a_command_the_help_ends_with_2(line):
    ended = CliRunner().invoke(main, line.split(), prog_name="onnx-analog")
    assert ended.exit_code == 2
    assert "Commands:" in ended.stderr
    assert "Error: " not in ended.stderr
