import io
import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.table import Table

from onnx_analog import errors
from onnx_analog.cli.console import (
    Command,
    Finite,
    Floats,
    Group,
    Seconds,
    Whole,
    _Printable,
    print_json,
    several,
    show,
)
from onnx_analog.errors import LONGEST, AnalogError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


# ------------------------------------------------------------------------------------------- errors of commands


def tool(wrong: BaseException | None = None, *arguments: str, log: str = "a warning") -> Any:
    """Return what a group with one command does that raises `wrong`."""

    @click.group(cls=Group)
    def main() -> None:
        pass

    @main.command()
    def act() -> None:
        logging.getLogger("onnx_analog.test").debug("a detail")
        logging.getLogger("onnx_analog.test").warning(log)
        if wrong is not None:
            raise wrong
        click.echo("done")

    return CliRunner().invoke(main, ["act", *arguments])


def caused_by(cause: Exception) -> Exception:
    """Return an error that wraps another, twice."""
    try:
        try:
            raise ValueError("inner wrapper") from cause
        except ValueError as error:
            raise RuntimeError("outer wrapper") from error
    except RuntimeError as error:
        return error


NO_SPACE = "Error: 'a\\x1b.npz': No space left on device\n"
UNWRITABLE = (
    "Error: a name or a path cannot be written as text: 'utf-8' codec can't encode character '\\ud800' in position 0: "
    "surrogates not allowed\n"
)


def families() -> Iterator[type[AnalogError]]:
    waiting = [AnalogError]
    while waiting:
        family = waiting.pop()
        yield family
        waiting += family.__subclasses__()


CODES = {
    "AnalogError": 1,
    "OptionError": 2,
    "ModelError": 1,
    "NothingToStore": 3,
    "ChannelError": 2,
    "LevelError": 1,
    "MeasurementError": 1,
    "DataError": 1,
    "EngineError": 1,
    "ManifestError": 1,
    "OutputError": 1,
}


def test_the_errors_are_these():
    names = {family.__name__ for family in families() if family.__module__ == errors.__name__}
    assert names == {*CODES, "FunctionError"}  # the command line adds to the latter where to look


def test_an_error_of_a_function_of_the_users_says_where_to_look():
    found = tool(errors.FunctionError("the metric failed"))
    assert "the metric failed. --debug shows where" in found.stderr


@pytest.mark.parametrize("name", CODES)
def test_an_error_of_ours_is_one_line_and_its_exit_code(name):
    found = tool(getattr(errors, name)("what was\n  found"))
    assert (found.exit_code, found.stdout, found.stderr) == (CODES[name], "", "Error: what was found\n")


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (RuntimeError("two\nlines"), 1, "Error: unexpected RuntimeError: two lines. --debug shows where\n"),
        (RuntimeError(), 1, "Error: unexpected RuntimeError: no reason given. --debug shows where\n"),
        (caused_by(errors.ModelError("is empty")), 1, "Error: is empty\n"),
        (caused_by(OSError(28, "No space left on device", "a\x1b.npz")), 1, NO_SPACE),
        (OSError("no folder for scratch"), 1, "Error: no folder for scratch\n"),
        (RecursionError("maximum"), 1, "Error: the input is nested too deeply\n"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), 1, UNWRITABLE),
        (MemoryError(), 1, "Error: not enough memory.\n"),
        (MemoryError("8 GB asked for"), 1, "Error: not enough memory. 8 GB asked for\n"),
        (click.ClickException("of click"), 1, "Error: of click\n"),
        (click.ClickException("x" * 400), 1, f"Error: {errors.one_line('x' * 400)}\n"),
        (KeyboardInterrupt(), 1, "Error: stopped; nothing was written\n"),
        (click.exceptions.Exit(7), 7, ""),
    ],
    ids=[
        *("unforeseen", "without text", "wrapped, ours", "wrapped", "system", "deep", "text"),
        *("memory", "memory's reason", "click", "long", "interrupted", "exit"),
    ],
)
def test_any_other_error_is_told_without_a_traceback(wrong, code, said):
    found = tool(wrong)
    assert (found.exit_code, found.stdout, found.stderr) == (code, "", said)


def test_a_click_usage_error_keeps_its_usage():
    found = tool(click.UsageError("not so"))
    assert found.exit_code == 2
    assert found.stderr.startswith("Usage: ")
    assert found.stderr.endswith("\n\nError: not so\n")


def test_usage_errors_have_the_style_of_all_others_and_one_suggestion():
    """No capital, no full stop, and the option that the fewest edits make of the wrong one."""

    @click.group(cls=Group)
    def main():
        """Do."""

    @main.command()
    @click.option("--mask-seed")
    @click.option("--max-drop", type=float)
    @click.option("--max-trials")
    @click.argument("model", type=click.Path(exists=True))
    def tune(**_):
        """Tune."""

    for line, said in {
        "tune --max-drp 2 .": "no such option '--max-drp': did you mean '--max-drop'?",
        "tune --xyz 2 .": "no such option '--xyz'",
        "tnue": "no such command 'tnue': did you mean 'tune'?",
        "tune": "missing argument 'MODEL'",
        "tune . --max-drop": "option '--max-drop' requires an argument",
        "tune none.onnx": "invalid value for 'MODEL': path 'none.onnx' does not exist",
    }.items():
        found = CliRunner().invoke(main, line.split())
        assert (found.exit_code, found.stderr.splitlines()[-1]) == (2, f"Error: {said}")


@pytest.mark.parametrize("wrong", [RuntimeError("of Python"), errors.ModelError("of ours")], ids=["other", "ours"])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(wrong):
    plain, debug = tool(wrong), tool(wrong, "--debug")
    assert "Traceback" not in plain.stderr
    assert debug.stderr.startswith("Traceback (most recent call last):\n")
    assert debug.stderr.endswith(plain.stderr)
    assert debug.exit_code == plain.exit_code == 1


def test_without_an_error_debug_shows_no_traceback():
    found = tool(None, "--debug")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "done\n", "")


@contextmanager
def unhandled() -> Iterator[None]:
    """Take the handlers of pytest away for a while: a command configures nothing beside them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "WARNING: a warning\n"), (["--debug"], "DEBUG: a detail\nWARNING: a warning\n")],
    ids=["", "--debug"],
)
def test_warnings_go_to_stderr_and_details_with_debug_only(arguments, said):
    with unhandled():
        found = tool(None, *arguments)
    assert (found.stdout, re.sub(r"INFO: main act: \d+\.\d s\n", "", found.stderr)) == ("done\n", said)


def test_a_log_message_shows_no_control_characters():
    with unhandled():
        found = tool(AnalogError("\x1b[2J"), "--debug", log="\x1b]0;title\x07 of\u202e a\ntensor")
    assert "WARNING: \\x1b]0;title\\x07 of\\u202e a" in found.stderr
    assert "\x1b" not in found.output


def test_a_log_message_is_one_line_of_limited_length():
    with unhandled():
        found = tool(None, log="a\ntensor " + "x" * 10_000)
    (line,) = found.stderr.splitlines()
    assert line.startswith("WARNING: a tensor xxx")
    assert len(line) <= LONGEST


def test_a_log_message_names_options():
    command = click.Command("tool", params=[click.Option(["--sparsity"])])
    message = "sparsity is 0.99: hardly a weight is left"
    record = logging.LogRecord("onnx_analog", logging.WARNING, "", 0, message, None, None)
    assert _Printable(command).format(record) == f"WARNING: --{message}"


def test_a_reader_that_leaves_ends_the_command_without_a_word():
    """Rich meets the broken pipe first, and raises SystemExit."""
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" | head -c 1; exit 0', sys.executable, _MANY_LINES],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


_MANY_LINES = """
import click
from onnx_analog.cli.console import Group, show
main = Group("main")
@main.command()
def act():
    for _ in range(20_000):
        show("a line that nobody reads")
main(["act"])
"""


def test_a_command_without_a_name_shows_its_help():
    found = CliRunner().invoke(Group("main"), [])
    assert (found.exit_code, found.stderr.split()[0]) == (2, "Usage:")


def test_a_group_in_a_group_makes_the_same_commands() -> None:
    @click.group(cls=Group)
    def main() -> None:
        pass

    @main.group()
    def inner() -> None:
        pass

    @inner.command()
    def act() -> None:
        raise errors.NothingToStore("none")

    assert isinstance(inner, Group)
    assert isinstance(act, Command)
    assert CliRunner().invoke(main, ["inner", "act"]).exit_code == 3


def test_options_are_added_in_the_order_in_which_they_stand() -> None:
    @click.command()
    @several(click.option("--one"), click.option("--two"), click.option("--three"))
    @click.option("--four")
    def act(**_: Any) -> None:
        pass

    assert [parameter.name for parameter in act.params] == ["one", "two", "three", "four"]


# ------------------------------------------------------------------------------------------------ types


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Finite(least=0, most=1), "0", 0.0),
        (Finite(least=0, most=1), "1", 1.0),
        (Finite(least=0, most=1), "0.25", 0.25),
        (Finite(least=0, below=1), "0", 0.0),
        (Finite(least=0, below=1), "0.9999", 0.9999),
        (Floats(), "0.5", (0.5,)),
        (Floats(), "0.485,0.456, 0.406", (0.485, 0.456, 0.406)),
        (Floats(), "-1,1e3", (-1.0, 1000.0)),
        (Floats(), (1.0, 2.0), (1.0, 2.0)),
        (Seconds(), "20", 20.0),
        (Seconds(), "20s", 20.0),
        (Seconds(), "90m", 5400.0),
        (Seconds(), "1.5h", 5400.0),
        (Seconds(), "1d", 86_400.0),
        (Seconds(), "2w", 1_209_600.0),
        (Seconds(), "1y", 365.25 * 86_400),
        (Seconds(), 5, 5.0),
        (Seconds(), 2.5, 2.5),
    ],
)
def test_a_value_is_converted(kind, text, value):
    found = kind.convert(text, None, None)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (Finite(least=0, most=1), "-0.0001", "0<=x<=1"),
        (Finite(least=0, most=1), "1.0001", "0<=x<=1"),
        (Finite(least=0, most=1), "half", "is not a number"),
        (Finite(least=0, below=1), "-0.0001", "0<=x<1"),
        (Finite(least=0, below=1), "1", "0<=x<1"),
        (Floats(), "", "comma-separated list of numbers"),
        (Floats(), "1,,2", "comma-separated list of numbers"),
        (Floats(), "1;2", "comma-separated list of numbers"),
        (Seconds(), "", "not a time"),
        (Seconds(), "-5s", "not a time"),
        (Seconds(), "nan", "not a time"),
        (Seconds(), "5 minutes", "not a time"),
        (Seconds(), "1.2.3s", "not a time"),
    ],
)
def test_another_value_is_refused_as_click_does(kind, text, said):
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert said in caught.value.message
    assert caught.value.exit_code == 2


# ----------------------------------------------------------------------------------------------- printing


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
@pytest.mark.parametrize("line", ["--help", "--version", "channel list", "channel list --json"])
def test_a_full_disk_on_stdout_is_one_line(line):
    with Path("/dev/full").open("w") as full:
        found = subprocess.run([*COMMAND, *line.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (found.returncode, found.stderr) == (
        1,
        "Error: cannot write to the standard output: No space left on device\n",
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&-"])
def test_a_closed_stream_is_no_error(closed):
    line = shlex.join([*COMMAND, "channel", "list", "--json"])
    found = subprocess.run(["sh", "-c", f"{line} {closed}"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


def test_an_interrupt_says_what_is_left():
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in the background
        "from onnx_analog import channels; from onnx_analog.cli import main; "
        "channels.available = lambda: os.kill(os.getpid(), signal.SIGINT); main()"
    )
    found = subprocess.run([sys.executable, "-c", code, "channel", "list"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (1, "Error: stopped; nothing was written\n")


def test_python_runs_the_package_as_the_command_does():
    done = subprocess.run(
        [sys.executable, "-m", "onnx_analog", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("onnx-analog, version ")


def test_a_long_path_stays_whole_in_a_pipe(capsys):
    path = "/".join(["folder"] * 50)
    show(f"model: {path}")
    assert capsys.readouterr().out == f"model: {path}\n"


def test_a_whole_number_without_a_range_shows_none():
    options = [click.Option(["--free"], type=Whole()), click.Option(["--bounded"], type=Whole(1, 3))]
    command = click.Command("command", params=[*options])
    shown = CliRunner().invoke(command, ["--help"]).stdout
    assert "None" not in shown
    assert "1<=x<=3" in shown
