"""What travels to a worker, and what it does there: for a sweep, a few trials of one point.

`Work` is sent once: models, data and metric. Tasks are small, and each carries its point, so that a sweep may add
points while it runs. A worker keeps the planes and decoders of the last points, so that trials that follow cost nothing
but themselves.

Engines carry whatever has the form of `AnyWork` and `AnyTask`: `onnx_analog.tuning.bench` has others.
"""

from __future__ import annotations

import hashlib
import mmap
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from pickle import PickleBuffer
from typing import Any, NamedTuple, Protocol

import cloudpickle
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import named
from onnx_analog.errors import EngineError
from onnx_analog.graph.correction import Cost
from onnx_analog.graph.files import from_proto, to_proto
from onnx_analog.graph.totals import Totals
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.trials import Trial, Trials
from onnx_analog.study.grid import GridPoint

Array = NDArray[Any]

_APART = 1024  # bytes; larger tensors travel beside the model, which protobuf limits to 2 GiB
_KEPT = 2  # points whose trials a worker keeps ready
_ALIGNED = 64  # bytes

# ---------------------------------------------------------------------------------------------- what travels


class AnyTask(Protocol):
    """What is sent to a worker for each piece of the work."""

    @property
    def place(self) -> str:
        """Where in the work it is, for errors: "at point 0, trial 3"."""


class AnyWorker(Protocol):
    """Does tasks, one after another."""

    def do(self, task: Any) -> Any:
        """Return what comes of a task."""


class AnyWork(Protocol):
    """What is sent once to each worker.

    Attributes
    ----------
    digest : str
        Tells this work from any other.
    remedy : str
        What is kept if it ends early, and what to do then, for errors.
    """

    @property
    def digest(self) -> str: ...  # noqa: D102 - see the class

    @property
    def remedy(self) -> str: ...  # noqa: D102

    def worker(self) -> AnyWorker:
        """Return a worker; no other thread uses it."""


class Task(NamedTuple):
    """Some trials of one point.

    Attributes
    ----------
    number : int
        Of the point in its sweep.
    trials : tuple of int
    point : bytes
        The `GridPoint`, as `pack` has it.
    """

    number: int
    trials: tuple[int, ...]
    point: bytes

    @property
    def place(self) -> str:
        """Where in the sweep it is."""
        first, last = self.trials[0], self.trials[-1]
        trials = f"trial {first}" if len(self.trials) == 1 else f"trials {first} to {last}"
        return f"at point {self.number}, {trials}"


def pack(setting: GridPoint) -> bytes:
    """Return a point, ready to be sent: channels and estimators of the user's own travel by value."""
    return named.dumps(setting)


def unpack(point: bytes) -> GridPoint:
    """Return the point that `pack` made ready; its estimators are known from now on."""
    setting: GridPoint = named.loads(point)
    return setting


class Outcome(NamedTuple):
    """What came of a task: its point and trials, the result of each trial, and the value of the stored model."""

    number: int
    trials: tuple[int, ...]
    results: tuple[Trial, ...]
    totals: Totals
    stored: float | None
    seconds: float  # for each trial
    versions: dict[str, str]
    correction: Cost | None = None


@dataclass(frozen=True, eq=False)
class Packed:
    """A model that can be sent: its graph, and its large tensors as arrays beside it."""

    graph: bytes
    arrays: tuple[Array, ...]

    @staticmethod
    def of(model: ir.Model) -> Packed:
        """Return `model`, which is not changed, ready to be sent."""
        bare, arrays = model.clone(), []
        for value in (value for graph in bare.graphs() for value in graph.initializers.values()):
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):  # the file that it names is not where the worker is
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
        for value, tensor in _large(bare):
            arrays.append(np.ascontiguousarray(tensor.numpy()))
            value.const_value = ir.ExternalTensor(
                "apart", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=str(value.name)
            )
        return Packed(to_proto(bare).SerializeToString(), tuple(arrays))

    def digest(self) -> str:
        """Return the SHA-256 of graph and tensors, as hex."""
        digest = hashlib.sha256(self.graph)
        for array in self.arrays:
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def model(self) -> ir.Model:
        """Return the model; its tensors are those that were sent, not copies."""
        model: ir.Model = from_proto(onnx.ModelProto.FromString(self.graph))
        for (value, tensor), array in zip(_large(model), self.arrays, strict=True):
            value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=str(value.name))
        return model


def _large(model: ir.Model) -> list[tuple[ir.Value, ir.TensorProtocol]]:
    """Return the large initializers of all graphs, in one order."""
    values = [value for graph in model.graphs() for value in graph.initializers.values()]
    tensors = [(value, value.const_value) for value in values if value.const_value is not None]
    return [(v, t) for v, t in tensors if t.nbytes >= _APART and t.dtype != ir.DataType.STRING]


@dataclass(frozen=True, eq=False, kw_only=True)
class Work:
    """Everything that a trial needs but its point and number; the same for all workers.

    Attributes
    ----------
    digest : str
        Tells this work from any other, of this sweep or another.
    models : tuple of Packed
    data : tuple of Dataset, one for each model
    clean : tuple of lists of arrays
        The outputs of each original, which the metric compares with.
    metric : function
        See `onnx_analog.run.metrics`.
    seed : int
    batch : int
    providers : tuple of str
    threads : int
        Within an operator of onnxruntime, in each worker.
    correct : tuple of Dataset, "gain" or None, one for each model
        What corrects trials; empty for nothing.
    compensate : tuple of Dataset or None, one for each model
        What weights that are rounded are compensated by; empty for nothing.
    """

    digest: str
    models: tuple[Packed, ...]
    data: tuple[Dataset, ...]
    clean: tuple[list[Array], ...]
    metric: metrics.Function
    seed: int
    batch: int
    providers: tuple[str, ...]
    threads: int
    correct: tuple[Dataset | str | None, ...] = ()
    compensate: tuple[Dataset | None, ...] = ()

    @property
    def remedy(self) -> str:
        """What to do if the sweep ends early."""
        return "Completed trials are kept: run the same command again"

    def worker(self) -> Worker:
        """Return a worker that does its tasks."""
        return Worker(self)

    def __getstate__(self) -> dict[str, Any]:  # by pickle itself, a function would be but the name of a module
        return {**self.__dict__, "metric": named.dumps(self.metric)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, metric=named.loads(state["metric"]))


# ---------------------------------------------------------------------------------------------- in a worker


class Worker:
    """Does tasks of one work, one after another."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._experiment = lru_cache(maxsize=1)(self._open_experiment)
        self._point = lru_cache(maxsize=_KEPT)(self._ready)

    @cached_property
    def _versions(self) -> dict[str, str]:
        return versions()

    def do(self, task: Task) -> Outcome:
        """Return what comes of a task."""
        trials = self._point(task.point)
        stored, start = trials.stored, time.perf_counter()
        results = tuple(trials.run(seed=self._work.seed, trial=trial) for trial in task.trials)
        seconds = (time.perf_counter() - start) / len(results)
        cost = None if trials.corrector is None else trials.corrector.cost
        return Outcome(task.number, task.trials, results, trials.totals, stored, seconds, self._versions, cost)

    def _ready(self, point: bytes) -> Trials:
        try:
            setting = unpack(point)
        except (ImportError, AttributeError) as error:  # of a class of the user's
            raise cannot_load(f"{type(error).__name__}: {error}") from error
        return self._experiment(setting.model).trials(setting.plan, selection=setting.selection)

    def _open_experiment(self, number: int) -> Experiment:
        work = self._work
        return Experiment(
            work.models[number].model(),
            work.data[number],
            work.metric,
            batch=work.batch,
            providers=work.providers,
            threads=work.threads,
            clean=work.clean[number],
            correct=work.correct[number] if work.correct else None,
            compensate=work.compensate[number] if work.compensate else None,
        )


def cannot_load(why: str) -> EngineError:
    """Return the error of a worker that lacks what a task is made of."""
    return EngineError(
        f"a worker cannot load its task ({why}): install the same packages on all workers, and your own channels, "
        "estimators and metrics"
    )


_here = threading.local()  # a Dask worker may run tasks in several threads; buffers of one are not another's


def do(fetch: Callable[[], AnyWork], digest: str, task: AnyTask) -> Any:
    """Do a task in this thread; `fetch` is called where the work of `digest` has not come here yet."""
    current: tuple[str, AnyWorker] | None = getattr(_here, "current", None)
    if current is None or current[0] != digest:
        _here.current = current = (digest, fetch().worker())
    try:
        return current[1].do(task)
    except Exception as error:
        if _can_be_sent(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from None  # it would break the pool


def _can_be_sent(error: Exception) -> bool:
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # whatever a class of the user's raises when it is made again
        return False
    return True


@cache
def versions() -> dict[str, str]:
    """Return the versions of what a trial's numbers depend on."""
    names = ("onnx-analog", "onnxruntime", "numpy", "onnx-ir")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def check_versions(found: dict[str, str]) -> None:
    """Raise `EngineError` unless a worker has the versions of this process."""
    mine = versions()
    if found != mine:
        name = next(name for name in mine if found.get(name) != mine[name])
        raise EngineError(
            f"a worker has {name} {found.get(name)}, and this process {mine[name]}: results "
            "would depend on where they are computed. Install the same versions everywhere"
        )


# --------------------------------------------------------------------------------- in a file, for this machine


def write(work: AnyWork, path: Path) -> None:
    """Write `work` so that `read` maps its arrays into memory: all processes of a machine share them."""
    buffers: list[PickleBuffer] = []
    body = cloudpickle.dumps(work, protocol=5, buffer_callback=buffers.append)
    with path.open("wb") as file:
        ranges = [_write_part(file, buffer.raw()) for buffer in buffers]
        index = cloudpickle.dumps((ranges, _write_part(file, body)))
        file.write(index + len(index).to_bytes(8, "little"))


def _write_part(file: Any, part: Any) -> tuple[int, int]:
    file.write(b"\0" * (-file.tell() % _ALIGNED))
    start = file.tell()
    file.write(part)
    return start, file.tell()


def read(path: Path) -> Any:
    """Return what `write` wrote."""
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    index = len(content) - 8 - int.from_bytes(content[-8:], "little")
    ranges, (start, end) = cloudpickle.loads(content[index:-8])
    return cloudpickle.loads(content[start:end], buffers=[content[a:b] for a, b in ranges])
