"""One child process that judges inputs: a crash, a hang or a flood of memory ends it, and is told by its input."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Collection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.judge import Case, Main, Verdict
from fuzz.kinds import judge, make
from fuzz.of_texts import long_on_request
from fuzz.oracles import CPU_S, Finding

ADDRESSES = 4 * 2**30  # bytes that a child may have beyond what it starts with
LIFE = 300  # inputs of one child
WALL_S = 120.0  # of one stage, whatever the CPU does


class Task(NamedTuple):
    """Which input to judge."""

    kind: str
    seed: int
    number: int
    keep: Collection[int] | None = None  # of its steps


class Lane:
    """A child process, started again after `LIFE` inputs, a crash or a hang."""

    def __init__(self, main: Main | None = None) -> None:
        self._main = main  # None: that of onnx-analog
        self._process: Any = None
        self.connection: Connection | None = None
        self.task: Task | None = None
        self._stage, self._since, self._cpu, self._done = "", 0.0, 0.0, 0

    def start(self, task: Task) -> None:
        """Hand an input to the child."""
        if self._process is None or self._done >= LIFE:
            self.stop()
            self._fork()
        self.task, self._done = task, self._done + 1
        assert self.connection is not None
        self._enter("making the input")
        self.connection.send(task)

    def _fork(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._main), daemon=True)
        self._process.start()
        theirs.close()
        self._done = 0

    def _enter(self, stage: str) -> None:
        self._stage, self._since, self._cpu = stage, time.monotonic(), self._used()

    def _used(self) -> float:
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, AttributeError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def result(self) -> Verdict | None:
        """Return what the child found; None while it is at it."""
        assert self.connection is not None
        assert self.task is not None
        try:
            while self.connection.poll():
                message, body = self.connection.recv()
                if message == "done":
                    verdict: Verdict = body
                    return verdict
                self._enter(body)
        except (EOFError, OSError):
            self._process.join(timeout=5)
            self._process.kill()  # it may have closed its end and live on
            self._process.join()
            return self._lost(f"ended by {_name_of(self._process.exitcode)}", "crash")
        used = self._used() - self._cpu
        if used > CPU_S + 2 or time.monotonic() - self._since > WALL_S:
            self._process.kill()
            self._process.join()
            return self._lost(f"{used:.0f} CPU seconds, and no end", "hang")
        return None

    def _lost(self, detail: str, oracle: str) -> Verdict:
        """Return what is known of an input whose child is gone."""
        self._process, task = None, self.task
        assert task is not None
        if self._stage in ("onnxruntime", "oracles"):
            return Verdict(outcomes=[("onnxruntime", oracle)])
        if oracle == "hang" and task.kind == "toml" and long_on_request(make(*task)):
            return Verdict(outcomes=[("sweep", "as long as was asked for")])
        return Verdict(findings=[Finding(oracle, self._stage.split(" ")[0], detail)])

    def stop(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _name_of(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def prepare() -> None:
    """Import what the commands import, once for all children; no plots and no Parquet, which take most of the time."""
    for name in ("matplotlib", "pyarrow"):
        sys.modules[name] = None  # type: ignore[assignment]  # which makes importing it fail
    import onnx_analog.api
    import onnx_analog.channels.fitting
    import onnx_analog.cli
    import onnx_analog.cli.report
    import onnx_analog.study.engines
    import onnx_analog.study.sweeps  # noqa: F401 - imported before the fork, for all children


def _serve(connection: Connection, main: Main | None) -> None:
    if main is None:
        from onnx_analog.cli import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESSES,) * 2)
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        connection.send(("done", judged(make(*task), main, lambda stage: connection.send(("stage", stage)))))


def judged(case: Case, main: Any, stage: Any) -> Verdict:
    """Judge one input in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        return judge(case, folder, main, stage)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
