"""A sweep of a second, and metrics that tell what happens in workers, or go wrong there.

Metrics are made within functions, so that they travel by value: no worker has to find this module.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from onnx_analog.channels import Channel
from onnx_analog.coding.scheme import PRESETS
from onnx_analog.run.data import Dataset
from onnx_analog.run.metrics import Function
from onnx_analog.study.engines import Engine
from onnx_analog.study.grid import Grid
from onnx_analog.study.run_folder import TRIALS
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.sweeps import Case, Study, prepare, sweep
from tests.models import QUIET, model

TEXT = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
EVERY = 16  # trials: four points, four each

Then = Callable[[], None]


def planned(
    then: Then = lambda: None,
    *,
    log: Path | None = None,
    opened: Path | None = None,
    channel: Channel = QUIET,
    seed: int = 3,
) -> Study:
    """Return a sweep that does `then` in each trial.

    Workers write the number of their process: to `log` when a trial begins, to `opened` when models and data arrive.
    """
    rng = np.random.default_rng(0)
    data = Dataset({"x": rng.normal(size=(20, 16)).astype(np.float32)}, None)
    grid = Grid(
        strategies=("sign", "redundancy"), cells=(1, 4), presets=(PRESETS["default"],), channels=(channel,), seed=seed
    )
    case = Case(name="net", model=model(TEXT), data=data)
    return prepare([case], grid, Stopping(trials=4), metric=("total", _metric(then, log, opened)))


def _metric(then: Then, log: Path | None, opened: Path | None) -> Function:
    def note(path: Path | None) -> None:
        if path is not None:
            with path.open("a") as file:
                file.write(f"{os.getpid()}\n")  # one short write at the end of a file is never torn

    class Total:
        def __call__(self, outputs: Any, *, labels: Any, clean: Any) -> float:
            if not np.allclose(outputs[0], clean[0], rtol=1e-4, atol=1e-4):  # without noise they are the same
                note(log)
                then()
            return float(outputs[0].astype(np.float64).sum())

        def __reduce__(self) -> Any:
            return arrived, ()

    def arrived() -> Total:
        note(opened)
        return Total()

    return Total()


def swept(study: Study, engine: Engine | None, out: Path) -> bytes:
    """Return the file of all trials."""
    assert len(list(sweep(study, engine=engine, out=out))) == 4
    return (out / TRIALS).read_bytes()


def rows(out: Path) -> list[str]:
    """Return the rows that a sweep has written so far."""
    path = out / TRIALS
    return path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []


def processes(log: Path) -> Counter[int]:
    """Return how many lines each process wrote."""
    return Counter(map(int, log.read_text(encoding="utf-8").split())) if log.exists() else Counter()


# ------------------------------------------------------------------------------------------- what goes wrong


def die() -> Then:
    """Return what kills its own process, as the kernel does when memory is short."""
    return lambda: os.kill(os.getpid(), signal.SIGKILL)


def failing(error: type[Exception], *words: Any) -> Then:
    """Return what raises an error."""

    def fail() -> None:
        raise error(*words)

    return fail


def first(times: int, folder: Path, then: Then) -> Then:
    """Return what does `then` the first `times` times only, whichever processes come first; `folder` counts them."""
    folder.mkdir()

    def early() -> None:
        for number in range(times):
            try:
                os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            then()
            return

    return early


def with_rows(out: Path, least: int, then: Then) -> Then:
    """Return what does `then` in every trial that begins when so many rows are in the folder of its sweep.

    There is always such a trial while `least` is small. With two workers four tasks of one trial each are under way;
    the others are handed out as rows come in, and none has more than four trials.
    """
    path = out / TRIALS

    def late() -> None:
        if path.exists() and path.read_bytes().count(b"\n") > least:  # the first line names the columns
            then()

    return late


def both(one: Then, other: Then) -> Then:
    """Return what does one thing, and then another."""

    def together() -> None:
        one()
        other()

    return together


# ---------------------------------------------------------------------------------------------------- waiting


def until(done: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until `done` is true; fail if that takes so long that something must be wrong."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def others(log: Path, count: int) -> Then:
    """Return what waits until so many processes have begun a trial, so that none of them can do all."""

    def meet() -> None:
        until(lambda: len(processes(log)) >= count)

    return meet


def alive(pid: int) -> bool:
    """Return whether there is such a process, or nobody has asked yet how it ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def runs(pid: int) -> bool:
    """Return whether a process runs; one that ended does not, even if nobody asks how it did."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return alive(pid)
