"""A Dask cluster: a scheduler that is there already, or one on this machine for as long as the work takes."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

from onnx_analog.errors import EngineError, OptionError
from onnx_analog.study import worker as works
from onnx_analog.study.engines.base import DEATHS, Engine, least_one, lost, unknown
from onnx_analog.study.worker import AnyTask, AnyWork

_WAIT_S = 30  # for a scheduler to answer, and for a first worker


class DaskEngine(Engine):
    """Workers of a Dask cluster.

    Models and data are sent once to each worker there is; those that come later have them from their peers.
    """

    def __init__(self, scheduler: str | None, *, threads: int | None = None) -> None:
        if find_spec("distributed") is None:
            raise OptionError("the engine dask needs dask.distributed: pip install 'onnx-analog[dask]'")
        self._address, self._threads = scheduler, least_one("threads", threads)
        self._client: Any = None
        self._pending: dict[Any, AnyTask] = {}
        self._deaths = 0

    def plan(self, tasks: int) -> int:  # noqa: ARG002 - see the base class
        """Return the threads asked for, or one."""
        return self._threads or 1

    def start(self, work: AnyWork) -> None:
        """Connect, and send `work` to every worker."""
        from distributed import Client, as_completed

        try:
            if self._address is None:
                self._client = Client(
                    processes=True, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
                )
            else:
                self._client = Client(self._address, timeout=_WAIT_S)
            self._client.wait_for_workers(1, timeout=_WAIT_S)
        except (OSError, TimeoutError, ValueError) as error:
            where = "on this machine" if self._address is None else f"at {self._address!r}"
            raise EngineError(
                f"no Dask scheduler with workers answers {where}: {' '.join(str(error).split())[:200]}"
            ) from error
        self._work, self._remedy = work, work.remedy
        self._send()
        self._ended = as_completed(with_results=False)

    def _send(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_WAIT_S)
        except TimeoutError:
            raise EngineError(f"no worker has joined the Dask cluster for {_WAIT_S} s") from None
        try:
            self._future = self._client.scatter(self._work, broadcast=True, hash=False)
        except OSError as error:
            raise self._gone() from error
        except Exception as error:  # Dask gives what a worker raises another type
            raise unknown(error) from error

    @property
    def slots(self) -> int:
        """Threads of all workers there are now."""
        try:
            threads: dict[str, int] = self._client.nthreads()
        except OSError as error:
            raise self._gone() from error
        return max(sum(threads.values()), 1)

    def submit(self, task: AnyTask) -> None:
        """Hand a task to the scheduler."""
        future = self._client.submit(_do, self._future, self._work.digest, task, pure=False)
        self._pending[future.key] = task
        self._ended.add(future)

    def next(self) -> Any:
        """Wait for the first task to end; Dask does again what dies with a worker."""
        from distributed import CancelledError, KilledWorker

        while True:
            future = next(self._ended)
            task = self._pending.pop(future.key)
            try:
                outcome = future.result()
            except KilledWorker:
                raise lost(task, "workers died (killed, or out of memory)", self._remedy) from None
            except MemoryError:
                raise lost(task, "a worker ran out of memory", self._remedy) from None
            except CancelledError:  # what was sent went with the only workers that held it
                self._again(task)
            except RuntimeError as error:
                if "deserializ" not in str(error):
                    raise
                raise unknown(error) from None
            else:
                self._deaths = 0
                return outcome

    def _again(self, task: AnyTask) -> None:
        if self._client.status != "running":
            raise self._gone()
        if self._future.status in ("cancelled", "lost", "error"):
            self._deaths += 1
            if self._deaths >= DEATHS:
                raise lost(task, "the cluster keeps losing its workers", self._remedy)
            self._send()
        self.submit(task)

    def _gone(self) -> EngineError:
        where = self._address or "of this machine"
        return EngineError(f"the Dask scheduler {where} no longer answers. {self._remedy}")

    def stop(self) -> None:
        """Cancel what is under way, and disconnect."""
        if self._client is not None:
            self._client.close()


def _do(work: AnyWork, digest: str, task: AnyTask) -> Any:
    return works.do(lambda: work, digest, task)
