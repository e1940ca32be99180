"""Progress on stderr: a line that changes on a terminal, and plain lines now and then elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from onnx_analog.cli import progress as progress_of_commands
from onnx_analog.cli.progress import Pace, progress, status, watch
from onnx_analog.display import progress_of
from tests.cli.test_printing import Terminal


class Clock:
    """Stands for the clock; tests move it."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(progress_of_commands.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def written_by_progress(monkeypatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("reading noisy cells", 2) as advance:
        advance()
        advance()
    return stream.getvalue()


def test_progress_is_shown_on_a_terminal(monkeypatch, capsys):
    found = written_by_progress(monkeypatch, Terminal())
    assert "reading noisy cells" in found
    assert "2/2" in found
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("colour", [None, "1"], ids=["", "FORCE_COLOR"])
def test_progress_writes_nothing_where_stderr_is_no_terminal(monkeypatch, colour):
    if colour:
        monkeypatch.setenv("FORCE_COLOR", colour)  # asks for colours, as many a CI does, and not for a terminal
    assert written_by_progress(monkeypatch, io.StringIO()) == ""


def test_progress_of_nothing_is_shown_too(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("reading", 0):
        pass


def test_an_error_ends_the_progress(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(ZeroDivisionError), progress("reading", 2):
        raise ZeroDivisionError
    assert stream.getvalue().endswith("\x1b[2K")  # the line is wiped, so that the error stands alone


# ------------------------------------------------------------------------------------------------ without a terminal


def test_a_pipe_gets_a_line_at_most_every_ten_seconds(clock, capsys):
    with status("tune") as show:
        for second in range(35):
            clock.now = 1000.0 + second
            show(f"step {second}")
    assert capsys.readouterr().err.splitlines() == ["tune: step 10", "tune: step 20", "tune: step 30"]


def test_lines_say_how_much_is_done_and_how_long_it_takes(clock, capsys):
    with status("tune") as show:
        for second in (0, 20, 40):
            clock.now = 1000.0 + second
            show("trials", second / 400)
    assert capsys.readouterr().err.splitlines() == [
        "tune: trials, 5 % done, about 6 min left",
        "tune: trials, 10 % done, about 6 min left",
    ]


def test_counts_say_how_long_it_takes(clock, capsys):
    with watch("trials") as update:
        for second in (0, 15, 30):
            clock.now = 1000.0 + second
            update(100 * second, 6000)
    assert capsys.readouterr().err.splitlines() == [
        "trials: 1,500 of 6,000, about 40 s left",
        "trials: 3,000 of 6,000, about 30 s left",
    ]


def test_a_name_of_any_content_stays_one_line(clock, capsys):
    with status("tune") as show:
        clock.now += 20
        show("a\n\x1b[2Jb")
    assert capsys.readouterr().err == "tune: a \\x1b[2Jb\n"


def test_a_reader_that_has_left_is_no_error(clock, monkeypatch):
    class Left(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Left())
    with status("tune") as show:
        clock.now += 20
        show("step")


# ------------------------------------------------------------------------------------------------------ time left


def test_time_left_is_told_after_ten_seconds_and_three_per_cent(clock):
    pace = Pace()
    for seconds, share, told in ((10, 0.5, False), (11, 0.03, False), (11, 0.031, True), (12, None, False)):
        clock.now = 1000.0 + seconds
        assert (pace.left(share) is not None) == told


def test_an_even_pace_is_continued(clock):
    pace = Pace()
    for seconds in range(1, 101):
        clock.now = 1000.0 + seconds
        left = pace.left(seconds / 100)
        assert left is None or left == pytest.approx(100 - seconds)
    assert left == 0


def test_what_a_file_has_kept_does_not_count_as_pace(clock):
    """Half is done in the first second, and the rest takes 100 seconds."""
    pace = Pace()
    for seconds in range(1, 60):
        clock.now = 1000.0 + seconds
        left = pace.left(0.5 + (seconds - 1) / 200)
    assert left == pytest.approx(100 - 58)


def test_work_that_stands_still_tells_nothing(clock):
    pace = Pace()
    for seconds in range(1, 30):
        clock.now = 1000.0 + seconds
        left = pace.left(0.5)
    assert left is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, ", about 1 s left"),
        (1.4, ", about 1 s left"),
        (7.2, ", about 7 s left"),
        (9.9, ", about 10 s left"),
        (13.0, ", about 15 s left"),
        (29.0, ", about 30 s left"),
        (44.0, ", about 40 s left"),
        (95.0, ", about 2 min left"),
        (5000.0, ", about 83 min left"),
        (9000.0, ", about 2.5 h left"),
    ],
)
def test_time_left_in_words(seconds, words):
    assert progress_of_commands._left(seconds) == words


def test_the_end_of_a_short_search_is_told_from_its_middle():
    """Of 28 seconds, 26 % are left, and 5 %: both were called 10 seconds."""
    assert progress_of_commands._left(0.26 * 28) != progress_of_commands._left(0.05 * 28)


# ------------------------------------------------------------------------------------------- functions of Python users


def test_a_function_of_the_text_alone_gets_no_fraction():
    seen = []
    progress_of(seen.append)("a", 0.5)
    assert seen == ["a"]


def test_a_function_with_a_fraction_gets_it():
    seen = []

    def show(text, *, fraction=None):
        seen.append((text, fraction))

    told = progress_of(show)
    told("a", 0.5)
    told("b")
    assert seen == [("a", 0.5), ("b", None)]


def test_what_status_yields_takes_the_fraction(clock, capsys):
    with status("tune") as show:
        clock.now += 20
        progress_of(show)("trials", 0.5)
    assert capsys.readouterr().err == "tune: trials, 50 % done, about 20 s left\n"


def test_what_status_yields_takes_the_seconds_left_and_shows_them_after_ten_seconds(clock, capsys):
    with status("tune") as show:
        clock.now += 10.0
        show("searching", 0.5, 65.0)
        clock.now += 10.5
        show("searching", 0.5, 300.0)
    assert capsys.readouterr().err.splitlines() == [
        "tune: searching, 50 % done",
        "tune: searching, 50 % done, about 5 min left",
    ]


def test_a_function_with_seconds_left_gets_them():
    told = []
    progress_of(lambda text, left=None: told.append((text, left)))("reading", 0.25, 3.0)
    assert told == [("reading", 3.0)]
