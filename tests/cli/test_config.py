"""Options in files, and what is shown on stderr: the same for every command."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.cli import main, progress
from onnx_analog.cli.console import Command

COMMON = {"--config", "--save-config", "--verbose", "--quiet", "--debug"}


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield all commands and their names, those of groups too."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Return a function that calls the command line in a folder with a model and data."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo.MODEL, "model.onnx")
    shutil.copy(demo.IMAGES, "test.npz")
    return lambda line: CliRunner().invoke(main, shlex.split(line), prog_name="onnx-analog")


@pytest.mark.parametrize(("name", "command"), list(commands(main)), ids=lambda value: value if value else "")
def test_every_command_has_the_common_options(name, command):
    assert isinstance(command, Command)
    assert {flag for param in command.params for flag in param.opts} >= COMMON, name


def test_saved_options_do_the_same_again_and_the_line_takes_precedence(cli):
    first = cli("protect model.onnx --cells-small 2 --cells-large 9 --exclude fc2 --save-config saved.toml")
    assert first.exit_code == 0, first.stderr
    assert cli("protect --config saved.toml -o again.onnx").exit_code == 0
    assert oa.load("again.onnx").plan == oa.load("model.protected.onnx").plan
    assert oa.load("again.onnx").manifest.tensors == oa.load("model.protected.onnx").manifest.tensors
    assert cli("protect --config saved.toml --cells-small 3 -o other.onnx").exit_code == 0
    assert oa.load("other.onnx").plan.schemes[0].cells == (3, 9)
    body = tomllib.loads(Path("saved.toml").read_text())
    assert (body["model"], body["cells_small"], body["exclude"]) == ("model.onnx", 2, ["fc2"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", {"strategy": "redundancy", "cells_small": 1, "cells_large": 20, "preset": "default", "channel": "pcm"}),
        ("--strategy sign", {"strategy": "sign", "cells_small": 1, "preset": "default", "channel": "pcm"}),
        ("--cells 2,9", {"strategy": "redundancy", "cells": [2, 9], "preset": "default", "channel": "pcm"}),
        ("--integers 4", {"integers": 4}),
        ("--plan plan.json", {"plan": "plan.json"}),
    ],
)
def test_defaults_of_how_weights_are_stored_are_saved_where_they_can_be_given(cli, options, told):
    """What a file adds changes nothing, and no default is in it that could not stand beside the options."""
    assert cli("protect model.onnx -o first.onnx --integers 8 --save-plan plan.json").exit_code == 0
    assert cli(f"protect model.onnx {options} --save-config saved.toml").exit_code == 0
    body = tomllib.loads(Path("saved.toml").read_text())
    named = ("strategy", "cells_small", "cells_large", "cells", "preset", "channel", "integers", "plan")
    assert {name: value for name, value in body.items() if name in named} == told
    again = cli("protect --config saved.toml -o again.onnx")
    assert again.exit_code == 0, again.stderr
    assert oa.load("again.onnx").plan == oa.load("model.protected.onnx").plan


def test_a_memory_is_saved_with_its_defaults_unless_the_model_has_it(cli):
    line = "check {} --data test.npz --mean 0.1307 --std 0.3081 --max-drop 50 --max-trials 30 --save-config {}"
    assert cli("protect model.onnx -o p.onnx").exit_code == 0
    assert cli(line.format("model.onnx", "plain.toml")).exit_code == 0
    assert cli(line.format("p.onnx", "stored.toml")).exit_code == 0
    plain, stored = (tomllib.loads(Path(f"{name}.toml").read_text()) for name in ("plain", "stored"))
    assert (plain["strategy"], plain["cells_large"], plain["channel"]) == ("redundancy", 20, "pcm")
    assert not {"strategy", "cells_small", "preset", "channel"} & stored.keys()
    assert (plain["max_trials"], "check_trials" in plain) == (30, False)
    for name in ("plain", "stored"):
        assert cli(f"check --config {name}.toml").exit_code == 0


def test_options_of_a_group_s_command_are_saved_too(cli):
    assert cli("channel show pcm --save-config saved.toml").exit_code == 0
    again = cli("channel show --config saved.toml")
    assert (again.exit_code, again.stdout) == (0, cli("channel show pcm").stdout)


def test_the_answer_no_saves_the_options_and_a_failure_does_not(cli):
    line = "evaluate model.onnx --data test.npz --mean 0.1307 --std 0.3081"
    assert cli(f"{line} --at-least 1 --save-config no.toml").exit_code == 1
    assert tomllib.loads(Path("no.toml").read_text())["at_least"] == 1
    assert cli(f"{line} --mean 1,2 --save-config failed.toml").exit_code == 2
    assert cli("evaluate test.npz --data test.npz --save-config failed.toml").exit_code == 1
    assert not Path("failed.toml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "model.onnx"', "bad.toml has an entry 'modle', which cannot be set there: did you mean 'model'?"),
        ("zzz = 1", "entries are the options of inspect --help"),
        ("force = true", "'force'"),
        ("quiet = true", "'quiet'"),
        ("min_size = true", "the --config file has true; it must be a number or text"),
        ("min_size = 0", "0 is not in the range"),
        ("a = ", "bad.toml is not valid TOML"),
    ],
)
def test_what_a_file_cannot_set_is_refused(cli, text, message):
    Path("bad.toml").write_text(text)
    ended = cli("inspect model.onnx --config bad.toml")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert message in ended.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("inspect model.onnx --save-config there.toml", "'there.toml' already exists: choose another name"),
        ("protect model.onnx --save-config there.toml", "'there.toml' already exists: replace it with --force"),
        ("protect model.onnx --save-config model.onnx --force", "'model.onnx' is an input"),
        ("protect model.onnx -o new.onnx --save-config new.onnx", "would be the same file"),
        ("protect --config c.toml --save-config c.toml --force", "'c.toml' is an input"),
    ],
)
def test_options_are_not_written_over_other_files(cli, line, message):
    Path("there.toml").write_text("before")
    Path("c.toml").write_text('model = "model.onnx"\n')
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    ended = cli(line)
    assert ended.exit_code != 0
    assert message in ended.stderr
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


@pytest.fixture
def lines(monkeypatch):
    """Take the handlers of pytest away, and return a function that runs a command which warns and has progress."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(progress, "BETWEEN", 0.0)

    @click.command(cls=Command, name="act")
    def act():
        log = logging.getLogger("onnx_analog")
        log.info("a detail")
        log.warning("a warning")
        with progress.watch("steps") as update, progress.status("act") as say:
            update(1, 2)
            say("it")
        raise click.ClickException("it failed")

    def run(line: str) -> list[str]:
        logging.root.handlers.clear()
        return CliRunner().invoke(act, line.split()).stderr.splitlines()

    yield run
    logging.getLogger("onnx_analog").setLevel(logging.NOTSET)


def test_quiet_shows_errors_only_and_verbose_shows_more(lines):
    assert lines("-q") == ["Error: it failed"]
    assert lines("") == ["WARNING: a warning", "steps: 1 of 2", "act: it", "Error: it failed"]
    assert lines("-v")[0] == "INFO: a detail"
    assert lines("-v -q")[-1] == "Error: --quiet and --verbose exclude each other"
    assert lines("--quiet --debug")[-1] == "Error: --quiet and --debug exclude each other"


def test_prune_prints_json(cli):
    ended = cli("prune model.onnx --sparsity 0.8 --json")
    assert ended.exit_code == 0, ended.stderr
    pruned = oa.prune("model.onnx", sparsity=0.8)
    assert json.loads(ended.stdout) == {"model": "model.pruned.onnx", "zeros": pruned.zeros, "weights": pruned.weights}


def test_every_command_has_json():
    for name, command in commands(main):
        assert "as_json" in {param.name for param in command.params}, name


@pytest.mark.parametrize("options", ["--exclude layer1/x", "--channel pcm --side-channel pcm"])
def test_texts_that_are_no_files_are_not_taken_for_some(cli, tmp_path, options):
    result = cli(f"protect model.onnx {options} --save-config saved.toml")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "saved.toml").exists()


def test_the_report_is_saved_too(cli, tmp_path):  # as every other output
    cli("evaluate model.onnx --data test.npz --report r.html --save-config c.toml")
    (tmp_path / "r.html").unlink()
    cli("evaluate model.onnx --config c.toml")
    assert (tmp_path / "r.html").is_file()
