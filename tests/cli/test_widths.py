"""What every command prints fits the terminal, and in a pipe each row is one line; no number is cut or lost."""

import copy
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from contextlib import redirect_stdout

import click
import pytest
from rich.cells import cell_len

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.cli import main, printing
from onnx_analog.cli.model_tables import account_tables
from onnx_analog.cli.tables import Table
from tests.cli.everything import COMMANDS, everything, remove
from tests.cli.test_config import commands
from tests.printing import assert_whole, contents, squeezed

TERMINALS = (60, 80, 200)
COMMANDS_OF_GROUPS = list(commands(main))
_STYLES = re.compile(r"\x1b\[[\d;]*m")
_PROGRESS = re.compile(r"\r\x1b\[K(manifest: [^\r]*)?")
_NUMBER = re.compile(r"(?<![\w.,])[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w,.]*\w)")


class Terminal(io.StringIO):
    """A terminal of some columns, or a pipe."""

    encoding = "utf-8"

    def __init__(self, columns: int | None) -> None:
        super().__init__()
        self._columns = columns

    def isatty(self) -> bool:
        return self._columns is not None

    def show(self, *things) -> str:
        """Return what a command shows that prints some things here."""
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(self):
            patch.setenv("COLUMNS", str(self._columns or 40))  # which holds for no pipe
            patch.setenv("TERM", "xterm")
            printing.show(*things)
        return _STYLES.sub("", self.getvalue())


@pytest.fixture(scope="module")
def called():
    yield everything()[1]
    remove()


def numbers(text: str) -> Counter[str]:
    return Counter(_NUMBER.findall(text))


def faults(text: str, shown: str, columns: int | None) -> list[str]:
    """Return what is wrong with the way in which a text of words and numbers is shown."""
    longest = max(map(cell_len, shown.splitlines()), default=0)
    found = {
        "a line is too wide": columns is not None and longest > columns,
        "a number is lost": bool(numbers(text) - numbers(shown)),
        "a word is lost": squeezed(text) != squeezed(shown),
        "a number is cut": bool(re.search(r"\d…|…\d", shown)),
        "a line is folded": columns is None and shown.rstrip("\n") != text.rstrip("\n"),
    }
    return [fault for fault, there in found.items() if there]


def bare(table: Table, columns: int) -> Table:
    """Return the table that is shown, without title and caption."""
    shown = copy.copy(table.that_fits(columns))
    shown.title = shown.caption = shown.narrower = None
    return shown


@pytest.mark.parametrize("columns", TERMINALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_in_a_terminal_nothing_is_wider_than_it_and_no_number_is_cut(called, command, columns):
    for thing in called[command].things:
        shown = Terminal(columns).show(thing)
        if isinstance(thing, Table):
            assert_whole(bare(thing, columns), columns)
            assert max(map(cell_len, shown.splitlines())) <= columns
            chosen = thing.that_fits(columns)
            for text in filter(None, (chosen.title, chosen.caption)):
                assert squeezed(str(text)) in squeezed(shown)
                assert not numbers(str(text)) - numbers(shown)
        else:
            assert faults(thing, shown, columns) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_in_a_pipe_each_row_and_each_text_is_one_line(called, command):
    for thing in called[command].things:
        shown = Terminal(None).show(thing)
        if isinstance(thing, Table):
            lines = [line for line in shown.splitlines() if line]
            sections = sum(row.end_section for row in thing.rows[:-1])
            assert len(lines) == len(thing.rows) + 2 + sections + bool(thing.title) + bool(thing.caption)
            for cells in zip(*(cells for _, cells in contents(thing)), strict=True):
                assert any(all(cell in line for cell in cells) for line in lines)
        else:
            assert faults(thing, shown, None) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_prints_in_a_pipe_is_what_it_shows(called, command):
    whole = Terminal(None).show(*called[command].things)
    assert called[command].stdout.startswith(whole)
    assert called[command].stdout[len(whole) :].count("\n") <= 1  # the demo ends with a command, to be copied


def test_costs_of_a_common_network_are_tables_in_a_terminal_of_80_columns():
    for table in account_tables(oa.protect(demo.MODEL).manifest):
        shown = Terminal(80).show(table)
        assert "─" in shown
        assert_whole(bare(table, 80), 80)


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        ("1,270,\n231 cells", "a number is lost"),
        ("1,270,231 cells".ljust(20) + "x" * 50, "a line is too wide"),
        ("1,270… cells", "a number is cut"),
        ("1,270,231", "a word is lost"),
    ],
)
def test_what_is_cut_is_found(shown, fault):
    assert fault in faults("1,270,231 cells", shown, 60)
    assert faults("1,270,231 cells", "1,270,231\ncells", 60) == []
    assert faults("1,270,231 cells", "1,270,231\ncells", None) == ["a line is folded"]


@pytest.mark.parametrize("columns", TERMINALS)
def test_a_real_terminal_has_the_width_that_it_says(called, columns):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "onnx_analog", "manifest", "model.protected.onnx"]
    process = subprocess.Popen(
        command, cwd=everything()[0], stdin=slave, stdout=slave, stderr=slave, env={**environment, "TERM": "xterm"}
    )
    os.close(slave)
    shown = _read(master)
    assert process.wait() == 0
    plain = _STYLES.sub("", _PROGRESS.sub("", shown))  # a slow machine shows that the command works
    assert plain.replace("\r\n", "\n") == Terminal(columns).show(*called["manifest"].things)


def _read(master: int) -> str:
    parts = []
    try:
        while part := os.read(master, 65536):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(master)
    return b"".join(parts).decode()


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(("name", "command"), COMMANDS_OF_GROUPS, ids=[name for name, _ in COMMANDS_OF_GROUPS])
def test_the_help_fits_except_for_its_example_which_is_to_be_copied(name, command, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = command.get_help(click.Context(command, info_name=f"onnx-analog {name}"))
    lines = [line for line in shown.splitlines() if not line.startswith("      onnx-analog")]
    assert max(map(cell_len, lines)) <= columns
    assert max(map(cell_len, lines)) > 50  # it takes the width that there is
