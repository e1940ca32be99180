import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnx_analog.coding.scheme import PRESETS, Scheme
from onnx_analog.errors import ChannelError, DataError, EngineError, OptionError
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.study import worker
from onnx_analog.study.engines import build, local
from onnx_analog.study.engines.local import LocalEngine, SerialEngine
from onnx_analog.study.grid import Grid
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.sweeps import Case, Study, prepare, sweep
from onnx_analog.study.worker import Task
from tests.conftest import ROOT
from tests.models import model
from tests.study.engines.small import (
    EVERY,
    TEXT,
    alive,
    both,
    die,
    failing,
    first,
    others,
    planned,
    processes,
    rows,
    runs,
    swept,
    until,
    with_rows,
)
from tests.study.engines.test_engines import assert_one_line


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return the file of a sweep that one process computed, trial by trial."""
    return swept(planned(), SerialEngine(threads=1), tmp_path_factory.mktemp("plain"))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Return the folder of this test's temporary files."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


# ------------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize(
    "options",
    [
        {"name": "serial", "threads": 2},
        {"name": "serial"},
        {"name": "local", "workers": 1, "threads": 2},
        {"name": "local", "workers": 3, "threads": 1},
    ],
    ids=str,
)
def test_the_file_does_not_depend_on_workers_or_threads(options, plain, tmp_path):
    assert swept(planned(), build(**options), tmp_path / "out") == plain


def test_another_seed_gives_another_file(plain, tmp_path):
    assert swept(planned(seed=4), None, tmp_path / "out") != plain


def test_two_processes_share_the_trials_and_leave_nothing(plain, tmp_path, scratch):
    log, opened = tmp_path / "log", tmp_path / "opened"
    plan = planned(others(log, 2), log=log, opened=opened)
    assert swept(plan, LocalEngine(workers=2), tmp_path / "out") == plain
    assert len(processes(log)) == 2
    assert processes(log).total() == EVERY
    assert processes(opened) == dict.fromkeys(processes(log), 1), "models and data travel once to each process"
    assert os.getpid() not in processes(log)
    assert list(scratch.iterdir()) == []
    until(lambda: not any(map(alive, processes(log))))


# ---------------------------------------------------------------------------------------------------- deaths


def test_a_worker_that_is_killed_is_replaced_and_its_trials_are_done_again(plain, tmp_path):
    log = tmp_path / "log"
    plan = planned(first(1, tmp_path / "deaths", die()), log=log)
    assert swept(plan, LocalEngine(workers=2), tmp_path / "out") == plain
    assert (tmp_path / "deaths" / "0").exists()
    assert processes(log).total() > EVERY


def test_a_worker_that_dies_between_two_tasks_is_replaced(tmp_path):
    log = tmp_path / "log"
    with LocalEngine(workers=1) as engine:
        engine.plan(2)
        study = planned(log=log)
        engine.start(study.work)
        point = worker.pack(study.settings[0])
        engine.submit(Task(0, (0,), point))
        engine.next()
        (process,) = processes(log)
        os.kill(process, signal.SIGKILL)
        until(lambda: not alive(process))
        engine.submit(Task(0, (1,), point))
        assert engine.next().trials == (1,)
    assert len(processes(log)) == 2


ESTIMATOR = """
from onnx_analog import Estimator


class Half(Estimator):
    def fitted(self, written):
        def correct(read, block):
            read *= 0.5

        return correct

    def table_bits(self, cells):
        return 32
"""


def test_an_estimator_travels_by_value(tmp_path, monkeypatch):
    """Workers start in a folder that does not have its module."""
    (tmp_path / "estimator_that_travels.py").write_text(ESTIMATOR)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    scheme = Scheme(channel="gaussian:sigma=0.1", estimator="estimator_that_travels:Half")
    monkeypatch.chdir("elsewhere")
    data = Dataset({"x": np.ones((4, 16), np.float32)}, None)
    grid = Grid(strategies=(), presets=(PRESETS["default"],), channels=(scheme.channel,), plans={"half": scheme})
    metric = ("sqnr_db", metrics.sqnr_db)
    study = prepare([Case(name="net", model=model(TEXT), data=data)], grid, Stopping(trials=4), metric=metric)
    here, there = (list(sweep(study, engine=engine)) for engine in (SerialEngine(), LocalEngine(workers=2)))
    assert there == here
    assert max(here[0].evaluation.values) < 10  # half of each weight is gone
    assert min(next(sweep(replace_estimator(study))).evaluation.values) > max(here[0].evaluation.values)


def replace_estimator(study: Study) -> Study:
    """Return the sweep with reads taken as they are."""
    plain = {name: plan.changed(estimator="affine") for name, plan in study.grid.plans.items()}
    return replace(study, grid=replace(study.grid, plans=plain))


def test_so_many_deaths_in_a_row_end_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "DEATHS", 2)
    log, out = tmp_path / "log", tmp_path / "out"
    with pytest.raises(EngineError) as found:
        swept(planned(die(), log=log), LocalEngine(workers=1), out)
    assert_one_line(found.value, "a worker died 2 times", "at point 0, trial", "run the same command again")
    assert processes(log).total() == 2
    assert rows(out) == []


def test_deaths_with_something_done_between_them_do_not_add_up(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "DEATHS", 2)
    out = tmp_path / "out"
    at_once = first(1, tmp_path / "one", die())
    later = with_rows(out, 1, first(1, tmp_path / "two", die()))
    assert swept(planned(both(at_once, later)), LocalEngine(workers=1), out) == plain
    assert (tmp_path / "two" / "0").exists()


def test_a_sweep_whose_workers_died_goes_on_where_it_ended(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "DEATHS", 1)
    out, log = tmp_path / "out", tmp_path / "log"
    with pytest.raises(EngineError):
        swept(planned(with_rows(out, 2, die())), LocalEngine(workers=2), out)
    kept = rows(out)
    assert 2 <= len(kept) < EVERY
    assert swept(planned(log=log), SerialEngine(), out) == plain
    assert set(kept) <= set(rows(out))
    assert processes(log).total() == EVERY - len(kept)


def test_a_worker_that_takes_more_and_more_memory_is_kept(plain, tmp_path, monkeypatch):
    """Points of a large model follow each other; 1 MB stands for the 300 MB that loky allows by default."""
    monkeypatch.setenv("LOKY_MAX_MEMORY_LEAK_SIZE", "1e6")
    log, held = tmp_path / "log", []

    def fill():
        held.append(bytes(np.ones(10**6, np.uint8)))
        time.sleep(0.15)  # loky looks once a second

    assert swept(planned(fill, log=log), LocalEngine(workers=1), tmp_path / "out") == plain
    assert list(processes(log).values()) == [EVERY]


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("error", [DataError("no such label"), ChannelError("by nought")], ids=repr)
@pytest.mark.parametrize("options", [{"name": "serial"}, {"name": "local", "workers": 1}], ids=str)
def test_what_a_trial_raises_is_raised(options, error, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(type(error)) as found:
        swept(planned(with_rows(out, 1, failing(type(error), str(error)))), build(**options), out)
    assert str(found.value) == str(error)
    assert 1 <= len(rows(out)) < EVERY


def test_a_worker_that_runs_out_of_memory_says_what_to_do(tmp_path):
    with pytest.raises(EngineError) as found:
        swept(planned(failing(MemoryError, "cannot allocate")), LocalEngine(workers=1), tmp_path / "out")
    assert_one_line(found.value, "out of memory at point 0, trial 0", "fewer workers or a smaller batch")


def test_an_error_that_cannot_be_sent_is_told_by_its_name(tmp_path):
    class TwoWordsError(Exception):
        def __init__(self, one, other):  # pickle knows one argument only, and fails where it makes the error again
            super().__init__(f"{one} {other}")

    with pytest.raises(Exception, match=r"TwoWordsError.*no good"):
        swept(planned(failing(TwoWordsError, "no", "good")), LocalEngine(workers=1), tmp_path / "out")


def test_workers_with_other_versions_are_refused(tmp_path, monkeypatch):
    known = worker.versions()
    monkeypatch.setattr(worker, "versions", lambda: {**known, "numpy": "0.1"})  # here, and not in other processes
    out = tmp_path / "out"
    with pytest.raises(EngineError) as found:
        swept(planned(), LocalEngine(workers=1), out)
    assert_one_line(found.value, f"a worker has numpy {known['numpy']}, and this process 0.1", "the same versions")
    assert rows(out) == []


def one_point(points):
    next(points)
    points.close()


def none_of_it(points):
    with pytest.raises(DataError, match="ZeroDivisionError"):
        next(points)


@pytest.mark.parametrize(
    ("then", "read"), [(lambda: None, one_point), (failing(ZeroDivisionError), none_of_it)], ids=["left", "failed"]
)
def test_a_sweep_that_ends_early_leaves_nothing(then, read, tmp_path, scratch):
    log = tmp_path / "log"
    read(sweep(planned(then, log=log), engine=LocalEngine(workers=1)))
    assert list(scratch.iterdir()) == []
    assert len(processes(log)) == 1
    until(lambda: not any(map(alive, processes(log))))


def test_more_workers_than_a_machine_can_bear_are_refused():
    LocalEngine(workers=local._MOST_WORKERS)
    with pytest.raises(
        OptionError, match=rf"workers is 100000, and this machine has \d+ cores: at most {local._MOST_WORKERS} are"
    ):
        LocalEngine(workers=100_000)


@pytest.mark.parametrize("where", ["the folder", "the file"])
def test_a_full_folder_for_temporary_files_is_said_and_nothing_is_left(where, tmp_path, scratch, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((tempfile, "mkdtemp", full) if where == "the folder" else (worker, "write", full)))
    engine = LocalEngine(workers=1)
    with pytest.raises(
        EngineError, match=r"for the workers to .*: No space left on device\. Free some space, or set TMPDIR"
    ):
        list(sweep(planned(), engine=engine, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert list(scratch.iterdir()) == []


def test_a_worker_ends_with_its_driver(tmp_path):
    """Here the driver is a process that is killed, and the worker one that would sleep for long."""
    worker = (
        "import sys, time\n"
        "from onnx_analog.study.engines.local import _end_with\n"
        "_end_with(int(sys.argv[1]))\n"
        "print(flush=True)\n"
        "time.sleep(60)"
    )
    driver = (
        "import os, subprocess, sys, time\n"
        "line = [sys.executable, '-c', sys.argv[1], str(os.getpid())]\n"
        "worker = subprocess.Popen(line, stdout=subprocess.PIPE)\n"
        "worker.stdout.readline()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)"
    )
    line = [sys.executable, "-c", driver, worker]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        time.sleep(2 * local._LOOK_S)
        assert runs(number)
        process.kill()
    until(lambda: not runs(number), seconds=10)
