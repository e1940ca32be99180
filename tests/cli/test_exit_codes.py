"""The examples of docs/exit_codes.md end with the codes that the page states."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import onnx_analog as oa
from onnx_analog import demo, errors
from onnx_analog.cli import config, main, paths
from onnx_analog.cli.gates import FAILED, NO, UNDECIDED
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "exit_codes.md").read_text(encoding="utf-8")


def examples(text: str) -> list[tuple[int, str]]:
    """Return the exit code and the command of each row of the table."""
    return [(int(code), command) for code, command in re.findall(r"^\| (\d+) \|.*\| `([^`]+)` \|$", text, re.MULTILINE)]


def check_examples(text: str) -> None:
    """Fail unless each example of a page, run in turn, ends with its code and, if this is not 0, says why in a line."""
    for code, command in examples(text):
        ended = CliRunner().invoke(main, shlex.split(command)[1:], prog_name="onnx-analog")
        assert ended.exit_code == code, f"{command}: {ended.stderr}"
        last = ended.stderr.splitlines()[-1:]
        answered = ended.stdout.startswith(("no: ", "not decided "))  # by `check`
        assert bool(code) == (answered or (bool(last) and last[0].startswith("Error: "))), f"{command}: {ended.stderr}"


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


# ------------------------------------------------------------------------------- one mistake, one code, everywhere

LINES = {  # of each command, with all that it needs
    "channel fit": "pairs.csv --input volts --output ohms",
    "channel list": "",
    "channel show": "pcm",
    "check": "model.onnx --data test.npz --max-drop 1",
    "compare": "measured.json simulated.json",
    "demo": "",
    "evaluate": "model.protected.onnx --data test.npz",
    "inspect": "model.onnx",
    "manifest": "model.protected.onnx",
    "plan show": "plan.json",
    "protect": "model.onnx -o new.onnx --manifest new.json",
    "prune": "model.onnx --sparsity 0.5",
    "readback": "model.protected.onnx",
    "remember": "model.onnx --mean 0.5 --std 0.5 -o remembers.onnx",
    "sensitivity": "model.onnx --data test.npz",
    "sweep": "model.onnx --data test.npz --out swept",
    "tune": "model.onnx --data test.npz --max-drop 1",
}
NAMES = ("channel", "side_channel")  # options that are a name or a file
FOLDERS = {("sweep", "out"), ("demo", "folder")}  # that are written


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands by what one types."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def of_type(kind: type, *, names: tuple[str, ...] = ()) -> list[tuple[str, click.Parameter]]:
    """Return the parameters of all commands that are of a type, or have one of these names."""
    found = [(name, param) for name, command in commands(main) for param in command.params]
    return [
        (name, param)
        for name, param in found
        if (name, param.name) not in FOLDERS and (isinstance(param.type, kind) or param.name in names)
    ]


def called(name: str, param: click.Parameter, value: str) -> Result:
    """Call a command with a value for one of its parameters."""
    words = shlex.split(LINES[name])
    if isinstance(param, click.Argument):
        command = dict(commands(main))[name]
        words[[other for other in command.params if isinstance(other, click.Argument)].index(param)] = value
    elif param.opts[0] in words:
        words[words.index(param.opts[0]) + 1] = value
    else:
        words += [param.opts[0], value]
    return CliRunner().invoke(main, [*name.split(), *words], prog_name="onnx-analog")


def labelled(params: list[tuple[str, click.Parameter]]) -> list[Any]:
    """Return parameters of tests, with what one types as their names."""
    return [pytest.param(name, param, id=f"{name} {param.opts[0]}") for name, param in params]


INPUTS = labelled([each for each in of_type(click.Path, names=NAMES) if not isinstance(each[1].type, paths._Out)])
OUTPUTS = labelled(of_type(paths._Out))


@pytest.fixture
def files(folder, tmp_path):
    """Put all files that `LINES` reads into the current folder, and a folder that is none of them."""
    protected = oa.protect("model.onnx")
    protected.save("model.protected.onnx")
    (tmp_path / "plan.json").write_text(protected.plan.to_json(), encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("volts,ohms\n1,2\n", encoding="utf-8")
    for name in ("measured", "simulated"):
        (tmp_path / f"{name}.json").write_text("{}", encoding="utf-8")
    (tmp_path / "other").mkdir()


def test_there_is_a_line_of_every_command():
    assert set(LINES) == {name for name, _ in commands(main)}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("name", "param"), INPUTS)
def test_an_input_that_is_missing_or_a_folder_ends_with_2(name, param):
    for value in ("missing.json", "other", "other/"):
        ended = called(name, param, value)
        assert (ended.exit_code, value.rstrip("/") in ended.stderr.splitlines()[-1]) == (2, True), ended.stderr


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("name", "param"), OUTPUTS)
def test_a_folder_in_place_of_an_output_ends_with_2(name, param):
    for value in ("other", "other/"):
        ended = called(name, param, value)
        assert (ended.exit_code, "other" in ended.stderr.splitlines()[-1]) == (2, True), ended.stderr


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("name", "param"), [each for each in OUTPUTS if each.values[1].name != "write_image"])
def test_an_output_that_exists_or_has_no_folder_ends_as_what_fails(name, param):
    """With commands whose code 1 is an answer, that has code 2."""
    suffix = {"plot": ".png", "report": ".html"}.get(str(param.name), ".json")
    Path(f"there{suffix}").write_text("kept", encoding="utf-8")
    for value in (f"there{suffix}", f"nowhere/x{suffix}"):
        ended = called(name, param, value)
        assert ended.exit_code == (FAILED if name in ("check", "tune") else 1), ended.stderr
        assert value.partition("/")[0] in ended.stderr.splitlines()[-1]
    assert Path(f"there{suffix}").read_text(encoding="utf-8") == "kept"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("more", "code"),
    [("", 1), ("--at-least 0", FAILED), ("--at-most 1", FAILED), ("--at-least 0 --at-most 1", FAILED)],
)
def test_evaluate_fails_otherwise_where_an_answer_is_asked_for(more, code):
    Path("damaged.npz").write_bytes(Path("test.npz").read_bytes()[:1000])
    for line in ("--data damaged.npz", "--data test.npz --report there.html"):
        Path("there.html").write_text("kept", encoding="utf-8")
        ended = CliRunner().invoke(main, f"evaluate model.protected.onnx {line} {more}".split())
        assert (ended.exit_code, ended.stdout) == (code, "")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", ["check model.onnx --data test.npz --max-drop 1", "inspect model.onnx"])
def test_an_interrupt_before_a_command_begins_is_no_answer(command, monkeypatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config.reading, "read_text", interrupted)
    Path("x.toml").write_text("", encoding="utf-8")
    ended = CliRunner().invoke(main, f"{command} --config x.toml".split())
    assert (ended.exit_code, ended.stdout) == (FAILED, "")
    assert ended.stderr.splitlines()[-1] == "Error: stopped; nothing was written"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("limit", "code"), [("--at-least 1", NO), ("--at-least 0", 0)])
def test_evaluate_answers_with_its_code(limit, code):
    """Everything is printed, whatever the answer is."""
    line = f"evaluate model.protected.onnx --data test.npz --samples 100 --trials 2 {limit}"
    ended = CliRunner().invoke(main, line.split())
    assert ended.exit_code == code
    assert "with noise" in ended.stdout
    assert ("Error: " in ended.stderr) == (code == NO)
