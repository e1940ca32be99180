"""Where tasks are computed: in this process, in processes of this machine, on a Dask or a Ray cluster.

One thin seam: `submit` a task, and ask for the `next` outcome, whichever ends first. So results stream, a sweep may
decide on further tasks as it goes, and no engine knows what a task is: trials of a sweep, or what `tune` measures.
`build` gives an engine by its name.
"""

from __future__ import annotations

from typing import Any

from onnx_analog.errors import OptionError, brief
from onnx_analog.study.engines.base import Engine as Engine

ENGINES = ("local", "serial", "dask", "ray")


def build(
    name: str = "local",
    *,
    workers: int | None = None,
    threads: int | None = None,
    scheduler: str | None = None,
    address: str | None = None,
) -> Engine:
    """Return an engine; it starts nothing yet.

    Parameters
    ----------
    name : {"local", "serial", "dask", "ray"}
    workers : int, >= 1, optional
        Processes of `local`.
    threads : int, >= 1, optional
        Threads within an operator, in each worker.
    scheduler : str, optional
        Address of a Dask scheduler, as tcp://host:8786.
    address : str, optional
        Address of a Ray cluster, as ray://host:10001 or auto.

    Raises
    ------
    OptionError
        If there is no such engine, it takes no such option, or what it needs is not installed.
    """
    if name not in ENGINES:
        raise OptionError(f"no engine is called {name!r}: choose from {', '.join(ENGINES)}")
    for option, value, home in (
        ("workers", workers, "local"),
        ("scheduler", scheduler, "dask"),
        ("address", address, "ray"),
    ):
        if value is not None and name != home:
            raise OptionError(f"{option} is an option of the engine {home}, and the engine is {name}")
    if name == "dask":
        from onnx_analog.study.engines.dask_cluster import DaskEngine

        return DaskEngine(scheduler, threads=threads)
    if name == "ray":
        from onnx_analog.study.engines.ray_cluster import RayEngine

        return RayEngine(address, threads=threads)
    from onnx_analog.study.engines.local import LocalEngine, SerialEngine

    return SerialEngine(threads=threads) if name == "serial" else LocalEngine(workers=workers, threads=threads)


def engine_of(engine: Any, *, threads: int | None = None) -> Engine:
    """Return an engine as it is given: itself, or its name; `threads` are those of one that is named.

    Raises
    ------
    OptionError
        If it is neither.
    """
    if isinstance(engine, str):
        return build(engine, threads=threads)
    if not isinstance(engine, Engine):
        raise OptionError(f"engine is {brief(engine)}; it must be an Engine or one of {', '.join(ENGINES)}")
    return engine
