import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from onnx_analog.cli.printing import print_json, show


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_table_in_a_pipe_has_no_limit(capsys):
    made = Table()
    for _ in range(100):
        made.add_column("a number")
    made.add_row(*["1234567890.123"] * 100)
    show(made)
    assert capsys.readouterr().out.count("1234567890.123") == 100


def test_text_on_a_terminal_is_as_wide_as_the_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "60")
    show("x" * 100)
    assert [len(line) for line in stream.getvalue().splitlines()] == [60, 40]


def test_things_are_shown_in_turn_on_stdout_alone(capsys):
    show("one", "two")
    show()
    assert capsys.readouterr() == ("one\ntwo\n", "")


@pytest.mark.parametrize("text", ["[bold]w[/bold]", "[0] 12 'a' 1.5", "gaussian:cat:low=0"])
def test_text_is_shown_as_it_stands(monkeypatch, text):
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    show(text)
    assert stream.getvalue() == f"{text}\n"


def test_a_long_path_stays_whole_in_a_pipe(capsys):
    path = "/".join(["folder"] * 50)
    show(f"model: {path}")
    assert capsys.readouterr().out == f"model: {path}\n"


HOSTILE = "conv\x1b[2J\x1b]0;title\x07\r\x9b31m\u202egnp.exe\ud800"
SHOWN = "conv\\x1b[2J\\x1b]0;title\\x07\\r\\x9b31m\\u202egnp.exe\\ud800"


def of_names(name: str) -> Table:
    made = Table(title=name, caption=name)
    made.add_column(name, no_wrap=True)
    made.add_row(name)
    return made


@pytest.mark.parametrize("thing", [HOSTILE, of_names(HOSTILE)], ids=["text", "table"])
def test_what_would_change_a_terminal_is_shown_escaped(capsys, thing):
    show(thing)
    found = capsys.readouterr().out
    assert found.count(SHOWN) == (1 if thing == HOSTILE else 4)
    assert found.replace("\n", "").isprintable()


def test_json_is_printable_and_keeps_every_name(capsys):
    print_json({HOSTILE: ["α", "\u2028\x7f"]})
    found = capsys.readouterr().out
    assert found.replace("\n", "").isprintable()
    assert json.loads(found) == {HOSTILE: ["α", "\u2028\x7f"]}


def test_json_is_all_that_is_printed(capsys):
    print_json({"α": [1, None]})
    found = capsys.readouterr()
    assert (json.loads(found.out), found.err) == ({"α": [1, None]}, "")
    assert "α" in found.out


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_not_printed(capsys, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json([number])
    assert capsys.readouterr().out == ""


def test_a_reader_that_goes_away_is_no_error():
    """As in `onnx-analog channel list --json | head -1`; the pipe is closed before anything is written."""
    code = "import os, sys; from onnx_analog.cli import main; r, w = os.pipe(); os.close(r); os.dup2(w, 1); main()"
    line = [sys.executable, "-c", code, "channel", "list", "--json"]
    found = subprocess.run(line, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (1, "")


COMMAND = [sys.executable, "-m", "onnx_analog"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "line", ["--help", "--version", "plan --help", "inspect --help", "channel list", "channel list --json"]
)
def test_a_full_disk_on_stdout_is_one_line(line):
    with Path("/dev/full").open("w") as full:
        found = subprocess.run([*COMMAND, *line.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (found.returncode, found.stderr) == (
        1,
        "Error: cannot write to the standard output: No space left on device\n",
    )


@pytest.mark.parametrize("line", ["inspect", "inspect m.onnx --config", "protect m.onnx -o", "evaluate m.onnx --data"])
def test_a_name_that_no_file_can_have_is_not_a_failure_of_stdout(line, tmp_path):
    found = subprocess.run([*COMMAND, *line.split(), "x" * 5000], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode in (1, 2)
    assert "standard output" not in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&-"])
def test_a_closed_stream_is_no_error(closed):
    line = shlex.join([*COMMAND, "channel", "list", "--json"])
    found = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
