"""The line that a terminal shows while a command works and nothing else says so."""

import io
import logging
import sys
import time
from contextlib import contextmanager

import pytest

from onnx_analog import channels
from onnx_analog.cli import logs, main, patience, printing
from onnx_analog.cli.patience import _CLEARED, clear, held_back
from onnx_analog.cli.progress import status, watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def left(self) -> str:
        """Return what stands in the last line after all that was written."""
        return self.getvalue().rpartition("\n")[2].rpartition(_CLEARED)[2]


@pytest.fixture
def terminal(monkeypatch):
    """Return a terminal, on which the line appears at once."""
    monkeypatch.setattr(patience, "FROM", 0.03)
    monkeypatch.setattr(patience, "_BETWEEN", 0.01)
    return Terminal()


def shown(terminal: Terminal, wait: float = 5.0) -> bool:
    """Return whether the line stands there within some seconds."""
    end = time.monotonic() + wait
    while time.monotonic() < end and not terminal.left():
        time.sleep(0.01)
    return terminal.left().startswith("protect: working, ")


def test_the_line_is_shown_and_removed(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    with patience.patience("protect"):
        assert shown(terminal)
        clear()
        assert terminal.left() == ""
        assert shown(terminal)
    assert terminal.left() == ""
    clear()  # there is none


def test_the_line_is_no_wider_than_the_terminal(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "12")
    with patience.patience("protect"):
        assert not shown(terminal, 0.5)
        assert terminal.left() == "protect: wo"


@contextmanager
def nested():
    with held_back():
        with held_back():
            pass
        yield


@pytest.mark.parametrize("display", [held_back, nested, lambda: watch("trials"), lambda: status("tune")])
def test_other_displays_hold_it_back(terminal, monkeypatch, display):
    monkeypatch.setattr(sys, "stderr", terminal)
    written: list[str] = []
    real = patience._Line._write
    monkeypatch.setattr(patience._Line, "_write", staticmethod(lambda text: (written.append(text), real(text))[1]))
    with patience.patience("protect"):
        assert shown(terminal)
        with display():
            before = len(written)
            time.sleep(0.2)
            assert len(written) == before
        end = time.monotonic() + 5
        while len(written) == before and time.monotonic() < end:
            time.sleep(0.01)
        assert written[before].startswith(f"{_CLEARED}protect: working")


def test_what_is_printed_has_a_line_of_its_own(terminal, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    with patience.patience("protect"):
        assert shown(terminal)
        printing.show("a text")
        assert capsys.readouterr().out == "a text\n"
        assert terminal.left() == ""
        assert shown(terminal)
        logs._Handler(terminal).emit(logging.makeLogRecord({"msg": "a message"}))
        assert f"{_CLEARED}a message\n" in terminal.getvalue()


def test_an_error_ends_it(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)

    def failing() -> None:
        with patience.patience("protect"):
            assert shown(terminal)
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        failing()
    assert terminal.left() == ""
    assert patience._current is None


@pytest.mark.parametrize("more", [[], ["--quiet"]])
def test_a_command_shows_it_only_where_someone_looks(terminal, monkeypatch, more):
    monkeypatch.setattr(sys, "stderr", terminal)
    real = channels.available

    def slow():
        time.sleep(0.3)
        return real()

    monkeypatch.setattr(channels, "available", slow)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    main.main(["channel", "list", *more], standalone_mode=False)
    assert ("list: working" in terminal.getvalue()) is not bool(more)
    assert terminal.left() == ""


def test_in_a_pipe_there_is_none(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with patience.patience("protect"):
        assert patience._current is None


def test_a_reader_that_has_left_is_no_error(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    with patience.patience("protect"):
        terminal.close()
        time.sleep(0.1)
    clear()
