import os
import subprocess
import sys

import pytest

from onnx_analog.study.engines import build
from onnx_analog.study.run_folder import TRIALS
from tests.study.engines.small import (
    EVERY,
    alive,
    both,
    failing,
    first,
    planned,
    processes,
    rows,
    swept,
    until,
    with_rows,
)


def test_a_sweep_does_what_it_is_told_in_every_trial_and_never_without_noise(tmp_path):
    done = []
    swept(planned(lambda: done.append(1), log=tmp_path / "log"), build("serial"), tmp_path / "out")
    assert len(done) == len(rows(tmp_path / "out")) == EVERY
    assert processes(tmp_path / "log") == {os.getpid(): EVERY}


def test_the_first_times_only(tmp_path):
    done = []
    early = first(2, tmp_path / "marks", lambda: done.append(1))
    for _ in range(4):
        early()
    assert len(done) == 2


def test_nothing_is_done_before_there_are_rows(tmp_path):
    done = []
    late = with_rows(tmp_path, 2, lambda: done.append(1))
    for lines in ("", "a,b\n", "a,b\n1,2\n", "a,b\n1,2\n3,4", "a,b\n1,2\n3,4\n"):
        (tmp_path / TRIALS).write_text(lines, encoding="utf-8")
        late()
    assert len(done) == 1


def test_one_thing_and_then_the_other():
    done = []
    with pytest.raises(ZeroDivisionError, match="by nought"):
        both(lambda: done.append(1), failing(ZeroDivisionError, "by nought"))()
    assert done == [1]


def test_waiting_ends():
    turns = iter([False, False, True])
    until(lambda: next(turns))
    with pytest.raises(AssertionError, match="never happened"):
        until(lambda: False, seconds=0)


def test_a_process_that_has_ended_is_not_alive():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    assert alive(os.getpid())
    ended.wait()
    assert not alive(ended.pid)
