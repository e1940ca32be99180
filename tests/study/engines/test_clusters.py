"""A real Dask and a real Ray on this machine, with two workers each.

Those marked `cluster` take minutes; one of each is among the ordinary tests.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise, from_pairs
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import DataError, EngineError, OptionError
from onnx_analog.study.engines import build, dask_cluster
from onnx_analog.study.engines.base import DEATHS
from onnx_analog.study.grid import GridPoint
from onnx_analog.study.run_folder import TRIALS
from onnx_analog.study.sweeps import sweep
from tests.conftest import ROOT
from tests.models import model, proto
from tests.packages import imported, needs
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
    swept,
    until,
    with_rows,
)
from tests.study.engines.test_engines import assert_one_line

PACKAGES = {"dask": "distributed", "ray": "ray"}
NAMES = [pytest.param(name, marks=needs(package)) for name, package in PACKAGES.items()]
cluster_only = pytest.mark.cluster(reason="a Dask or Ray cluster starts, and its workers are killed: up to 30 s, 2 GB")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return the file of a sweep that one process computed, trial by trial."""
    return swept(planned(), build("serial", threads=1), tmp_path_factory.mktemp("plain"))


# ---------------------------------------------------------------------------- one that lasts as long as its sweep


# Whether another program of this machine has the port of Dask's dashboard is no concern of this test.
@pytest.mark.filterwarnings("ignore:Port 8787 is already in use:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_cluster_of_this_machine_gives_the_same_file_and_leaves_nothing(name, plain, tmp_path):
    log = tmp_path / "log"
    assert swept(planned(log=log), build(name), tmp_path / "out") == plain
    assert processes(log).total() == EVERY
    assert os.getpid() not in processes(log)
    until(lambda: not any(map(alive, processes(log))))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"name": "dask", "scheduler": "tcp://127.0.0.1:1"}, marks=needs("distributed"), id="dask"),
        pytest.param({"name": "ray", "address": "nowhere"}, marks=needs("ray"), id="ray"),
    ],
)
def test_a_cluster_that_is_not_there_is_told(options, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "_WAIT_S", 1)
    with pytest.raises(EngineError) as found:
        swept(planned(), build(**options), tmp_path / "out")
    name, address = options.values()
    assert_one_line(found.value, name.title(), address)
    assert rows(tmp_path / "out") == []


def test_a_scheduler_that_is_gone_when_its_workers_are_counted_is_told():
    engine = build("dask", scheduler="tcp://host:1")
    engine._client = SimpleNamespace(nthreads=failing(OSError, "closed"))
    engine._remedy = "Completed trials are kept: run the same command again"  # which the work says, when it starts
    with pytest.raises(EngineError) as found:
        _ = engine.slots
    assert_one_line(found.value, "tcp://host:1 no longer answers", "run the same command again")


@pytest.mark.parametrize(
    ("given", "variable", "used"),
    [(None, None, "local"), (None, "host:6379", "host:6379"), ("auto", "host:6379", "auto")],
)
def test_ray_joins_no_cluster_that_was_not_named(given, variable, used, monkeypatch):
    asked = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    engine = build("ray", address=given)
    engine._ray = SimpleNamespace(init=lambda **options: asked.append(options["address"]))
    engine._connect()
    assert asked == [used]


def line(folder: Path, options: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a small sweep from the command line."""
    onnx.save(proto(TEXT), folder / "model.onnx")
    np.savez(folder / "test.npz", x=np.ones((4, 16), np.float32))
    (folder / "own.py").write_text("def wrong(outputs, *, labels, clean):\n    return outputs is clean or 1 / 0\n")
    words = f"model.onnx --data test.npz --strategy sign --cells 1 --channel gaussian:sigma=0.1 --trials 1 {options}"
    found = subprocess.run(
        [sys.executable, "-m", "onnx_analog", "sweep", *words.split(), "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return found.returncode, found.stdout, found.stderr


@cluster_only
@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_says_nothing_but_its_own_words(name, tmp_path):
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # the port of Dask's dashboard is another's
            stack.enter_context(socket.create_server(("", 8787)))
        code, out, error = line(tmp_path, f"--engine {name} --out ended")
        assert (code, error) == (0, "")
        assert list(json.loads(out)) == ["points", "warnings"]
        code, out, error = line(tmp_path, f"--engine {name} --out failed --metric own:wrong")
        assert (code, out) == (1, "")
        expected = "the metric 'own:wrong' failed with ZeroDivisionError: division by zero"
        assert error == f"Error: {expected}. --debug shows where\n"


# ------------------------------------------------------------------------------------------ one that is there already


@pytest.fixture(scope="module")
def dask_address():
    distributed = imported("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def ray_of_two():
    ray = imported("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=50)
    yield
    ray.shutdown()


@pytest.fixture(params=NAMES)
def cluster(request):
    """Return a function that makes an engine on a cluster of two workers that is there already."""
    if request.param == "dask":
        return partial(build, "dask", scheduler=request.getfixturevalue("dask_address"))
    request.getfixturevalue("ray_of_two")
    return partial(build, "ray")


@cluster_only
@pytest.mark.parametrize("threads", [1, 2])
def test_the_file_does_not_depend_on_workers_or_threads(threads, cluster, plain, tmp_path):
    log, opened = tmp_path / "log", tmp_path / "opened"
    assert swept(planned(log=log, opened=opened), cluster(threads=threads), tmp_path / "out") == plain
    assert processes(log).total() == EVERY
    assert os.getpid() not in processes(log) | processes(opened)
    assert set(processes(opened).values()) == {1}, "models and data travel once to each process"
    assert set(processes(log)) <= set(processes(opened))


@cluster_only
@pytest.mark.parametrize("deaths", [0, 1])
def test_tune_gives_the_same_answer(deaths, cluster, tmp_path):
    here, then = os.getpid(), first(deaths, tmp_path / "deaths", die())

    class Troubled(GaussianNoise):
        def std(self, level):
            if os.getpid() != here:
                then()
            return GaussianNoise.std(self, level)

    def found(engine):
        given = {"budget": 8, "decoding": "none", "trials": 2, "channel": Troubled(sigma=0.1)}
        x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
        return oa.tune(model(TEXT), x, engine=engine, **given).to_dict()

    assert found(cluster()) == found("serial")
    assert len(list((tmp_path / "deaths").iterdir())) == deaths


@cluster_only
def test_two_workers_share_the_trials(cluster, plain, tmp_path):
    log = tmp_path / "log"
    assert swept(planned(others(log, 2), log=log), cluster(), tmp_path / "out") == plain
    assert len(processes(log)) >= 2


@cluster_only
def test_a_cluster_stays_and_takes_another_sweep(cluster, tmp_path):
    """Two channels that look alike, so that nothing but the sweep itself tells their work apart."""
    quiet, loud = (from_pairs([0, 0, 0.5, 0.5, 1, 1], [0, e, 0.5, 0.5 + e, 1 - e, 1]) for e in (0.01, 0.1))
    assert repr(quiet) == repr(loud)
    found, logs = {}, {name: tmp_path / f"log-{name}" for name in ("quiet", "loud")}
    for name, channel in {"quiet": quiet, "loud": loud}.items():
        here = swept(planned(channel=channel), None, tmp_path / f"here-{name}")
        found[name] = swept(planned(channel=channel, log=logs[name]), cluster(), tmp_path / name)
        assert found[name] == here
    assert found["quiet"] != found["loud"]
    assert processes(logs["quiet"]) & processes(logs["loud"]), "another sweep has other workers"


@cluster_only
def test_points_may_be_added_while_a_cluster_computes(cluster, tmp_path):
    def digital(point):
        return [GridPoint.of(Scheme.int4(), name=f"int4 after {point.cells}")] if point.strategy == "sign" else []

    for name, engine in {"here": None, "cluster": cluster()}.items():
        points = list(sweep(planned(), engine=engine, out=tmp_path / name, further=digital))
        assert [point.strategy for point in points[4:]] == ["int4 after 1", "int4 after 4"]
    assert (tmp_path / "cluster" / TRIALS).read_bytes() == (tmp_path / "here" / TRIALS).read_bytes()


# ---------------------------------------------------------------------------------------------------- deaths


@cluster_only
def test_a_worker_that_is_killed_is_replaced_and_its_trials_are_done_again(cluster, plain, tmp_path):
    log = tmp_path / "log"
    plan = planned(first(1, tmp_path / "deaths", die()), log=log)
    assert swept(plan, cluster(), tmp_path / "out") == plain
    assert (tmp_path / "deaths" / "0").exists()
    assert processes(log).total() > EVERY


@cluster_only
def test_all_workers_may_die_at_once(cluster, plain, tmp_path):
    """With them goes what was sent to them."""
    log = tmp_path / "log"
    plan = planned(both(others(log, 2), first(2, tmp_path / "deaths", die())), log=log)
    assert swept(plan, cluster(), tmp_path / "out") == plain
    assert (tmp_path / "deaths" / "1").exists()


@cluster_only
def test_a_task_that_dask_gives_up_is_named(tmp_path):
    """One worker lives on with what was sent, so that nothing is lost but the task: more often than Dask bears."""
    dask, distributed = imported("dask"), imported("distributed")
    log, out = tmp_path / "log", tmp_path / "out"
    plan = planned(both(others(log, 2), first(1, tmp_path / "deaths", die())), log=log)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as cluster,
        pytest.raises(EngineError) as found,
    ):
        swept(plan, build("dask", scheduler=cluster.scheduler_address), out)
    assert_one_line(found.value, "workers died (killed, or out of memory) at point 0, trial")


@cluster_only
def test_a_sweep_whose_workers_die_again_and_again_ends_and_goes_on_where_it_ended(cluster, plain, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    with pytest.raises(EngineError) as found:
        swept(planned(with_rows(out, 2, die()), log=tmp_path / "deaths"), cluster(), out)
    assert_one_line(found.value, "at point", "run the same command again")
    assert len(processes(tmp_path / "deaths")) >= DEATHS
    kept = rows(out)
    assert 2 <= len(kept) < EVERY
    assert swept(planned(log=log), build("serial"), out) == plain
    assert processes(log).total() == EVERY - len(kept)


# ---------------------------------------------------------------------------------------------------- errors


@cluster_only
@pytest.mark.parametrize("error", [DataError("no such label"), ZeroDivisionError("by nought")], ids=repr)
def test_what_a_trial_raises_is_raised(cluster, error, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=str(error)) as found:
        swept(planned(with_rows(out, 1, failing(type(error), str(error)))), cluster(), out)
    if isinstance(error, DataError):
        assert str(found.value) == str(error)
    assert 1 <= len(rows(out)) < EVERY


@cluster_only
def test_a_worker_that_runs_out_of_memory_says_what_to_do(cluster, tmp_path):
    with pytest.raises(EngineError) as found:
        swept(planned(failing(MemoryError, "cannot allocate")), cluster(), tmp_path / "out")
    assert_one_line(found.value, "out of memory at point 0, trial", "a smaller batch")


@cluster_only
def test_an_error_that_cannot_be_sent_is_told_by_its_name(cluster, tmp_path):
    class TwoWordsError(Exception):
        def __init__(self, one, other):  # pickle knows one argument only, and fails where it makes the error again
            super().__init__(f"{one} {other}")

    with pytest.raises(Exception, match="no good") as found:
        swept(planned(failing(TwoWordsError, "no", "good")), cluster(), tmp_path / "out")
    assert "TwoWordsError" in repr(found.value)


@cluster_only
def test_what_workers_cannot_import_is_named(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def nothing():\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError) as found:
        swept(planned(importlib.import_module("only_here").nothing), cluster(), tmp_path / "out")
    assert_one_line(found.value, "only_here")


@cluster_only
def test_more_threads_than_any_node_has_cores_are_refused(ray_of_two):
    with build("ray", threads=3) as engine:
        assert engine.plan(1) == 3
        with pytest.raises((OptionError, EngineError)) as found:
            engine.start(planned().work)
    assert_one_line(found.value, "threads")


@cluster_only
def test_a_scheduler_without_workers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "_WAIT_S", 0.5)
    distributed = imported("distributed")
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(EngineError) as found:
            swept(planned(), build("dask", scheduler=address), tmp_path / "out")
    assert_one_line(found.value, "no Dask scheduler with workers", address)


# ----------------------------------------------------------------------------- a cluster that nobody looks after


class Site(NamedTuple):
    """A Dask scheduler of its own, and how to start what belongs to it."""

    scheduler: subprocess.Popen[bytes]
    address: str
    worker: Callable[..., None]


@pytest.fixture
def ray_from_outside(tmp_path, monkeypatch):
    """Yield the address of a Ray cluster of this machine as another machine would see it; it asks for a token."""
    imported("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-the-tests-" + "0" * 32)
    ports = list(islice(filter(_free, range(20_000, 30_000)), 2))  # below those that Ray gives its processes
    words = f"start --head --block --num-cpus 2 --port {ports[0]} --ray-client-server-port {ports[1]}"
    head = subprocess.Popen(
        [Path(sys.executable).with_name("ray"), *words.split(), "--include-dashboard=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"ray://127.0.0.1:{ports[1]}"
    connect = [sys.executable, "-c", f"import ray; ray.init('{address}')"]  # Ray gives up soon on a busy machine
    try:
        until(lambda: subprocess.run(connect, capture_output=True).returncode == 0, seconds=300)
        yield address
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait()


def _free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


@cluster_only
def test_ray_from_outside(ray_from_outside, plain, tmp_path):
    """In a process of its own: a connection of Ray's stays with the process that made it."""
    here = line(tmp_path, "--engine serial --out here")
    assert line(tmp_path, f"--engine ray --address {ray_from_outside} --out outside") == here
    files = [(tmp_path / name / TRIALS).read_bytes() for name in ("here", "outside")]
    assert files[0] == files[1]


@cluster_only
def test_ray_from_outside_without_the_token_is_told(ray_from_outside, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE")
    code, out, error = line(tmp_path, f"--engine ray --address {ray_from_outside} --out outside")
    assert (code, out) == (1, "")
    assert error.splitlines()[-1].startswith(f"Error: no Ray cluster answers at {ray_from_outside} (")
    assert "RAY_AUTH_TOKEN" in error


@pytest.fixture
def site(tmp_path):
    """Return a scheduler that was started by hand; whatever dies there is not replaced."""
    file, local, running = tmp_path / "scheduler.json", ("--host", "127.0.0.1", "--port", "0"), []

    def start(module, *options, when=""):
        code = f"import runpy, sys, time\n{when}\nrunpy.run_module('distributed.cli.{module}', run_name='__main__')"
        running.append(subprocess.Popen([sys.executable, "-c", code, *options], stderr=subprocess.DEVNULL))
        return running[-1]

    def worker(after=None):
        wait = "" if after is None else f"while not __import__('os').path.exists({str(after)!r}): time.sleep(0.05)"
        start(
            "dask_worker", "--scheduler-file", str(file), "--no-dashboard", "--no-nanny", "--nthreads", "1", when=wait
        )

    try:
        scheduler = start("dask_scheduler", *local, "--no-dashboard", "--scheduler-file", str(file))
        until(lambda: file.exists() and file.read_text())
        yield Site(scheduler, json.loads(file.read_text())["address"], worker)
    finally:
        for process in running:
            process.kill()
            process.wait()


@cluster_only
def test_a_scheduler_that_dies_is_told_and_the_sweep_goes_on_where_it_ended(site, plain, tmp_path):
    out = tmp_path / "out"
    site.worker()
    kill = with_rows(out, 2, partial(os.kill, site.scheduler.pid, signal.SIGKILL))
    with pytest.raises(EngineError) as found:
        swept(planned(kill), build("dask", scheduler=site.address), out)
    assert_one_line(found.value, "scheduler")
    assert 2 <= len(rows(out)) < EVERY
    assert swept(planned(), build("serial"), out) == plain


@cluster_only
def test_all_workers_may_go_at_once_and_fewer_come_back(site, plain, tmp_path):
    """Of two, with four tasks; the third worker starts when both are gone."""
    log, out, deaths = tmp_path / "log", tmp_path / "out", tmp_path / "deaths"
    site.worker()
    site.worker()
    site.worker(after=deaths / "1")
    engine = build("dask", scheduler=site.address)
    assert swept(planned(both(others(log, 2), first(2, deaths, die())), log=log), engine, out) == plain
