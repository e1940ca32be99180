"""On this machine: one process, or many by loky."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from pathlib import Path
from typing import Any

from loky import ProcessPoolExecutor, cpu_count
from loky.backend import resource_tracker
from loky.process_executor import BrokenProcessPool

from onnx_analog.errors import EngineError, OptionError
from onnx_analog.study import worker as works
from onnx_analog.study.engines.base import DEATHS, Engine, least_one, lost
from onnx_analog.study.worker import AnyTask, AnyWork

_IDLE_S = 60  # a worker with nothing to do ends after so long
_LOOK_S = 0.5  # a worker whose driver was killed ends within so long
_MOST_WORKERS = max(64, 4 * cpu_count())  # each takes memory, and more than cores are of no use
# A worker grows as points of a large model follow each other; loky would take it for a leak, and end it each time.
_ENVIRONMENT = {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18", "PYTHONSAFEPATH": "1"}  # modules are never the current folder's


class SerialEngine(Engine):
    """In this process, one task after another."""

    here = True

    def __init__(self, *, threads: int | None = None) -> None:
        self._threads = least_one("threads", threads)
        self._queue: deque[AnyTask] = deque()

    def plan(self, tasks: int) -> int:  # noqa: ARG002 - see the base class
        """Return all cores."""
        return self._threads or cpu_count()

    def start(self, work: AnyWork) -> None:
        """Keep `work`."""
        self._worker = work.worker()

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def submit(self, task: AnyTask) -> None:
        """Put a task in the queue."""
        self._queue.append(task)

    def next(self) -> Any:
        """Do the task that has waited longest."""
        return self._worker.do(self._queue.popleft())

    def stop(self) -> None:
        """Forget what was not done."""
        self._queue.clear()


class LocalEngine(Engine):
    """Processes of this machine; models and data lie in one file that all of them map into memory.

    Without `workers` there are as many as cores or tasks, whichever are fewer; without `threads`, they share the cores.
    A worker that dies is replaced, and what it did is done again.
    """

    def __init__(self, *, workers: int | None = None, threads: int | None = None) -> None:
        self._workers, self._threads = least_one("workers", workers), least_one("threads", threads)
        if workers is not None and workers > _MOST_WORKERS:
            raise OptionError(
                f"workers is {workers}, and this machine has {cpu_count()} cores: at most {_MOST_WORKERS} are allowed"
            )
        self._pending: dict[Future[Any], AnyTask] = {}
        self._executor: ProcessPoolExecutor | None = None
        self._scratch: Path | None = None
        self._deaths = 0

    def plan(self, tasks: int) -> int:
        """Choose workers and threads from the cores."""
        cores = cpu_count()
        self._workers = self._workers or max(min(cores, tasks), 1)
        return self._threads or max(cores // self._workers, 1)

    def start(self, work: AnyWork) -> None:
        """Write `work` where all processes find it, and start them."""
        self._remedy = work.remedy
        try:
            self._write(work)
        except OSError as error:
            where = self._scratch or os.environ.get("TMPDIR", "the folder for temporary files")
            raise EngineError(
                f"cannot write models and data for the workers to {str(where)!r}: {error.strerror or error}. Free "
                "some space, or set TMPDIR to another folder"
            ) from error
        self._launch()

    def _write(self, work: AnyWork) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="onnx-analog-"))
        # If this process is killed, loky's tracker, which outlives it, removes the folder after the last worker.
        resource_tracker.register(str(self._scratch), "folder")
        works.write(work, self._scratch / "work")
        self._call = partial(works.do, partial(works.read, self._scratch / "work"), work.digest)

    def _launch(self) -> None:
        self._executor = ProcessPoolExecutor(
            self._workers, timeout=_IDLE_S, env=_ENVIRONMENT, initializer=_end_with, initargs=(os.getpid(),)
        )

    @property
    def slots(self) -> int:
        """How many processes there are."""
        return self._workers or 1

    def submit(self, task: AnyTask) -> None:
        """Hand a task to the next process that is free."""
        assert self._executor is not None
        try:
            self._pending[self._executor.submit(self._call, task)] = task
        except BrokenProcessPool:
            self._again([task])

    def next(self) -> Any:
        """Wait for the first task to end."""
        while True:
            future = next(iter(wait(self._pending, return_when=FIRST_COMPLETED).done))
            task = self._pending.pop(future)
            try:
                outcome = future.result()
            except BrokenProcessPool:
                self._again([task])
            except MemoryError:
                raise lost(task, "a worker ran out of memory", self._remedy) from None
            else:
                self._deaths = 0
                return outcome

    def _again(self, tasks: list[AnyTask]) -> None:
        """Start anew, with what was under way: a process that dies takes all others of its pool with it."""
        ended = [future for future in self._pending if future.done() and not future.exception()]
        tasks += [task for future, task in self._pending.items() if future not in ended]
        self._pending = {future: self._pending[future] for future in ended}
        self._deaths += 1
        if self._deaths >= DEATHS:
            raise lost(tasks[0], f"a worker died {DEATHS} times (killed, or out of memory)", self._remedy)
        self._end()
        self._launch()
        for task in tasks:
            self.submit(task)

    def _end(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, kill_workers=True)

    def stop(self) -> None:
        """End all processes."""
        self._end()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            resource_tracker.unregister(str(self._scratch), "folder")
            self._scratch = None


def _end_with(driver: int) -> None:
    """Let this worker end soon after its driver, whose process number is given, even if that is killed."""

    def look() -> None:
        while os.getppid() == driver:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
