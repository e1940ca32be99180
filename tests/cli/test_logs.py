import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest

from onnx_analog.cli.logs import _Handler, _Printable
from onnx_analog.errors import LONGEST, AnalogError
from tests.cli.test_console import tool


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


def test_messages_follow_stderr_where_a_bar_of_progress_takes_its_place(monkeypatch):
    first, bar = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    handler = _Handler()
    handler.emit(logging.makeLogRecord({"msg": "before", "levelno": logging.INFO}))
    monkeypatch.setattr(sys, "stderr", bar)
    handler.emit(logging.makeLogRecord({"msg": "meanwhile", "levelno": logging.INFO}))
    assert (first.getvalue(), bar.getvalue()) == ("before\n", "meanwhile\n")
