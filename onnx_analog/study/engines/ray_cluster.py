"""A Ray cluster: one that is there already, or one on this machine for as long as the work takes."""

from __future__ import annotations

import logging
import os
import tempfile
from importlib.util import find_spec
from typing import Any

from onnx_analog.errors import EngineError, OptionError
from onnx_analog.study import worker as works
from onnx_analog.study.engines.base import DEATHS, Engine, least_one, lost, unknown
from onnx_analog.study.worker import AnyTask, AnyWork


class RayEngine(Engine):
    """Workers of a Ray cluster; models and data go to its object store, and from there once to each worker."""

    def __init__(self, address: str | None, *, threads: int | None = None) -> None:
        if find_spec("ray") is None:
            raise OptionError("the engine ray needs Ray: pip install 'onnx-analog[ray]'")
        self._address, self._threads = address, least_one("threads", threads)
        self._pending: dict[Any, AnyTask] = {}
        self._own = False

    def plan(self, tasks: int) -> int:  # noqa: ARG002 - see the base class
        """Return the threads asked for, or one."""
        return self._threads or 1

    def start(self, work: AnyWork) -> None:
        """Connect, and put `work` into the object store."""
        import ray

        self._ray = ray
        if not ray.is_initialized():
            self._connect()
        cores = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if self._threads is not None and self._threads > cores:
            raise OptionError(
                f"threads is {self._threads}, and no node of the Ray cluster has more than {cores:g} cores"
            )
        self._digest, self._remedy, self._reference = work.digest, work.remedy, ray.put(work)
        self._remote = ray.remote(num_cpus=self._threads or 1, max_retries=DEATHS)(_do)

    def _connect(self) -> None:
        # Without an address Ray would join whichever cluster was started last on this machine.
        address = self._address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            with tempfile.TemporaryDirectory() as empty:  # or the current folder would be on the workers' sys.path
                self._ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False,
                    runtime_env={"working_dir": empty},
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = "on this machine" if address == "local" else f"at {address}"
            token = " (a cluster with tokens needs RAY_AUTH_MODE and RAY_AUTH_TOKEN)" if "://" in address else ""
            raise EngineError(f"no Ray cluster answers {where}{token}: {' '.join(str(error).split())[:200]}") from error
        self._own = True

    @property
    def slots(self) -> int:
        """Cores of the cluster that there are now, over those of a task."""
        return max(int(self._ray.cluster_resources().get("CPU", 1)) // (self._threads or 1), 1)

    def submit(self, task: AnyTask) -> None:
        """Hand a task to the cluster."""
        # Within a list the reference stays one: what it stands for is fetched by those who have it not.
        self._pending[self._remote.remote([self._reference], self._digest, task)] = task

    def next(self) -> Any:
        """Wait for the first task to end; Ray does again what dies with a worker."""
        (future,), _ = self._ray.wait(list(self._pending), num_returns=1)
        task = self._pending.pop(future)
        try:
            outcome = self._ray.get(future)
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.NodeDiedError):
            raise lost(task, f"workers died {DEATHS + 1} times (killed, or out of memory)", self._remedy) from None
        except (self._ray.exceptions.OutOfMemoryError, MemoryError):
            raise lost(task, "a worker ran out of memory", self._remedy) from None
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, self._ray.exceptions.RaySystemError):  # it could not be imported, for example
                raise unknown(error.cause) from None
            raise error.cause from None
        return outcome

    def stop(self) -> None:
        """Cancel what is under way, and disconnect."""
        if not hasattr(self, "_ray"):
            return
        for future in self._pending:
            self._ray.cancel(future, force=True)
        if self._own:
            self._ray.shutdown()


def _do(references: list[Any], digest: str, task: AnyTask) -> Any:
    import ray

    def fetch() -> AnyWork:
        work: AnyWork = ray.get(references[0])
        return work

    return works.do(fetch, digest, task)
