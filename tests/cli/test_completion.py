"""Completion in shells: what click's protocol answers, and a real bash."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import get_completion_class

from onnx_analog import channels
from onnx_analog.cli import completion, main
from onnx_analog.coding import estimators
from onnx_analog.coding.scheme import PRESETS, STRATEGIES
from onnx_analog.run.metrics import METRICS
from onnx_analog.study.axes import SETTINGS
from tests.cli.test_config import commands

PROGRAM, VARIABLE = "onnx-analog", "_ONNX_ANALOG_COMPLETE"
CHANNELS = set(channels.available())
BOOLS = ("true", "false")
COMMANDS = list(commands(main))


def offered(line: str, shell: str = "bash") -> dict[str, str]:
    """Return what the program offers at the end of a line, with the kind of each, as `click` finds it."""
    *before, last = shlex.split(line) if line.strip() == line != "" else [*shlex.split(line), ""]
    kind = get_completion_class(shell)
    assert kind is not None
    found = kind(main, {}, PROGRAM, VARIABLE).get_completions(before, last)
    return {item.value: item.type for item in found}


def answer(shell: str, **environment: str) -> str:
    """Return what the program tells a shell."""
    asked = {**os.environ, VARIABLE: f"{shell}_complete", **environment}
    ended = subprocess.run([sys.executable, "-m", "onnx_analog"], env=asked, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout


# ------------------------------------------------------------------------------------------------- what is offered


def test_commands_are_completed():
    assert offered("") == dict.fromkeys(main.commands, "plain")
    assert set(offered("sen")) == {"sensitivity"}
    assert set(offered("channel ")) == {"list", "show", "fit"}


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_option_is_completed(name, command):
    flags = {flag for param in command.params if isinstance(param, click.Option) for flag in param.opts}
    assert {flag for flag in flags if flag.startswith("--")} <= set(offered(f"{name} --"))


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_choice_and_every_file_is_completed(name, command):
    for param in command.params:
        if not isinstance(param, click.Option) or param.is_flag:
            continue
        found = offered(f"{name} {param.opts[0]} ")
        if isinstance(param.type, click.Choice):
            assert set(found) == set(param.type.choices)
        elif isinstance(param.type, click.Path):
            assert set(found.values()) == {"file"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("protect model.onnx --channel rr", {"rram-milo", "rram-wan"}),
        ("evaluate model.onnx --channel gau", {"gaussian"}),
        ("readback model.onnx --channel gau", {"gaussian"}),
        ("sweep model.onnx --channel pcm,rram-m", {"pcm,rram-milo"}),
        ("channel show pcm-", {"pcm-drift", "pcm-partial-reset"}),
        ("protect model.onnx --side-channel ", CHANNELS),
        ("protect model.onnx --channel pcm-drift:r", {"pcm-drift:read_after_s="}),
        ("protect model.onnx --channel pcm-drift:read_after_s=1,di", {"pcm-drift:read_after_s=1,differential="}),
        (
            "protect model.onnx --channel pcm-drift:differential=",
            {f"pcm-drift:differential={b}" for b in BOOLS},
        ),
        ("protect model.onnx --channel pcm-drift:read_after_s=", set()),
        ("protect model.onnx --channel gaussian:sigma=1,", {"gaussian:sigma=1,low=", "gaussian:sigma=1,high="}),
        ("sweep model.onnx --channel pcm,gaussian:s", {"pcm,gaussian:sigma="}),
        ("sweep model.onnx --strategy ", set(STRATEGIES)),
        ("sweep model.onnx --strategy raw,sign,", {"raw,sign,mapping", "raw,sign,redundancy"}),
        ("sweep model.onnx --preset default,", {f"default,{name}" for name in PRESETS} - {"default,default"}),
        ("protect model.onnx --estimator ", set(estimators.names())),
        ("evaluate model.onnx --metric ", set(METRICS)),
        ("evaluate model.onnx --metric top", {"top1", "top5"}),
        ("tune model.onnx --metric x", set()),
        ("evaluate model.onnx --providers CPU", {"CPUExecutionProvider"}),
        ("sweep model.onnx --grid ", {f"{name}=" for name in SETTINGS}),
        ("sweep model.onnx --grid estimator=affine,", {f"estimator=affine,{n}" for n in estimators.names()[1:]}),
        ("sweep model.onnx --grid side_channel=pcm,rram-m", {"side_channel=pcm,rram-milo"}),
        ("sweep model.onnx --grid sign=", {"sign=bit", "sign=level"}),
        ("sweep model.onnx --grid classes=", set()),
        ("sweep model.onnx --grid nothing=", set()),
        ("evaluate model.onnx --correct g", {"gain"}),
        ("evaluate model.onnx --correct ", set()),
        ("protect model.onnx --channel=rr", {"--channel=rram-milo", "--channel=rram-wan"}),
        ("tune model.onnx --decoding=h", {"--decoding=hard"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_values_are_completed(line, expected, shell):
    assert {value for value, kind in offered(line, shell).items() if kind == "plain"} == expected


@pytest.mark.parametrize(
    "line",
    ["protect m --channel x", "sweep m --channel x", "channel show x", "protect m --plan x", "sweep m --plan x",
     "check m --plan x", "evaluate m --correct x", "protect x", "sweep a.onnx x", "compare x"],
)  # fmt: skip
def test_a_file_completes_what_may_be_one(line):
    assert offered(line) == {"x": "file"}


def test_columns_of_measurements_are_completed(tmp_path):
    (tmp_path / "pairs.csv").write_text("# of a device\n\nvolts,ohms, other\n1,2,3\n", encoding="utf-8")
    assert set(offered(f"channel fit {tmp_path}/pairs.csv --input ")) == {"volts", "ohms", "other"}
    assert set(offered(f"channel fit {tmp_path}/pairs.csv --output o")) == {"ohms", "other"}
    assert offered(f"channel fit {tmp_path}/none.csv --input ") == {}
    assert offered("channel fit --input ") == {}


# ------------------------------------------------------------------------------------------------ what a shell is told


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("onnx-analog protect m --channel rram", ["file,rram", "plain,rram-milo", "plain,rram-wan"]),
        ("onnx-analog protect m --channel=rram", ["file,rram", "plain,rram-milo", "plain,rram-wan"]),
        ("onnx-analog protect m --channel x:", ["file,x:"]),
        ("onnx-analog sweep m --grid gran", ["open,granularity="]),
        ("onnx-analog sweep m --grid granularity=ten", ["plain,tensor"]),
        ("onnx-analog sweep m --grid=granularity=ten", ["plain,tensor"]),
        ("onnx-analog sweep m --strategy raw,s", ["plain,raw,sign"]),
        ("onnx-analog protect 'a model.onnx' --sign ", ["plain,bit", "plain,level"]),
        ("onnx-analog protect 'a mod", ["file,a mod"]),
        ("onnx-analog protect a\\ mod", ["file,a mod"]),
        ("onnx-analog sen", ["plain,sensitivity"]),
    ],
)
def test_bash_is_told_what_takes_the_place_of_the_end_of_the_word(line, expected):
    assert answer("bash", COMP_LINE=line, COMP_WORDBREAKS=" \t\n\"'><=;|&(:").splitlines() == expected


def test_bash_that_does_not_break_words_at_signs_is_told_whole_words():
    line = {"COMP_LINE": "onnx-analog protect m --estimator=pos"}
    assert answer("bash", **line, COMP_WORDBREAKS=" \t\n").splitlines() == ["plain,--estimator=posterior"]
    assert answer("bash", **line, COMP_WORDBREAKS=" =").splitlines() == ["plain,posterior"]


def test_zsh_and_fish_are_told_whole_words():
    word = "--estimator=pos"
    words, whole = f"onnx-analog protect m {word}", "--estimator=posterior"
    assert answer("zsh", COMP_WORDS=words, COMP_CWORD="3").splitlines() == ["plain", whole, "_"]
    assert answer("fish", COMP_WORDS=words, COMP_CWORD=word).splitlines() == [f"plain,{whole}"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_calls_the_program(shell):
    source = subprocess.run(
        [sys.executable, "-m", "onnx_analog"],
        env={**os.environ, VARIABLE: f"{shell}_source"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"{VARIABLE}={shell}_complete" in source
    assert PROGRAM in source
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=source, text=True, check=True)


# -------------------------------------------------------------------------------------------------------- a real bash


class Bash:
    """An interactive bash with the completion of this program, which prints the words of each command line."""

    def __init__(self, folder: Path) -> None:
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        (bin_folder / PROGRAM).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onnx_analog "$@"\n', encoding="utf-8")
        (bin_folder / PROGRAM).chmod(0o755)
        (folder / "inputrc").write_text("set bell-style none\nset enable-bracketed-paste off\n", encoding="utf-8")
        environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "INPUTRC": f"{folder}/inputrc",
                       "PS1": "", "TERM": "dumb", "COLUMNS": "200"}  # fmt: skip
        self.process, self.master = _on_terminal(["bash", "--norc", "--noprofile", "-i"], folder, environment)
        self._type(f'eval "$({VARIABLE}=bash_source {PROGRAM})"\n')
        self._type(f"{PROGRAM}() {{ printf '<%s>' \"$@\"; echo; }}; echo rea''dy\n")  # the completion calls the program
        self._until("ready")

    def completed(self, typed: str) -> list[str]:
        """Return the words of a line after its end is completed with the tabulator key."""
        self._type(f"{PROGRAM} {typed}\t")
        time.sleep(0.1)
        self._type("\n")
        shown = self._until(r"((?:<[^\r\n]*>)+)\r?\n")
        return re.findall(r"<(.*?)>", shown)

    def _type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def _until(self, pattern: str) -> str:
        """Return what the pattern finds in what the terminal shows."""
        shown, end = "", time.monotonic() + 60
        while time.monotonic() < end:
            if select.select([self.master], [], [], 0.2)[0]:
                shown += os.read(self.master, 4096).decode(errors="replace")
            found = re.search(pattern, shown)
            if found is not None:
                return found[0]
        pytest.fail(f"{pattern!r} is not in what bash showed: {shown!r}")


def _on_terminal(arguments: list[str], folder: Path, environment: dict[str, str]) -> tuple[Any, int]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        arguments, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    return process, master


@contextmanager
def bash(folder: Path):
    shell = Bash(folder)
    try:
        yield shell
    finally:
        shell.process.kill()
        shell.process.wait()
        os.close(shell.master)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes(tmp_path):
    (tmp_path / "only-model.onnx").touch()
    with bash(tmp_path) as shell:
        assert shell.completed("sens") == ["sensitivity"]
        assert shell.completed("protect only-m") == ["protect", "only-model.onnx"]
        assert shell.completed("protect m --side-ch") == ["protect", "m", "--side-channel"]
        assert shell.completed("protect m --channel rram-m") == ["protect", "m", "--channel", "rram-milo"]
        assert shell.completed("protect m --channel=rram-m") == ["protect", "m", "--channel=rram-milo"]
        assert shell.completed("protect m --channel only") == ["protect", "m", "--channel", "only-model.onnx"]
        assert shell.completed("sweep m --strategy raw,map") == ["sweep", "m", "--strategy", "raw,mapping"]
        assert shell.completed("sweep m --grid sign=l") == ["sweep", "m", "--grid", "sign=level"]
        assert shell.completed("evaluate m --data=only") == ["evaluate", "m", "--data=only-model.onnx"]


def test_a_list_offers_no_name_again():
    assert completion.listed(["a", "ab", "b"], "a,a") == ["a,ab"]
    assert completion.listed([], "") == []
