"""The seam between a sweep or a search and whatever computes its tasks."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, Self

from onnx_analog.errors import EngineError, OptionError, require_int
from onnx_analog.study.worker import AnyTask, AnyWork, cannot_load

_REPR = re.compile(r"""(\w+(?:Error|Exception))\((["'])(.*)\2\)""")  # as Dask has errors
DEATHS = 3  # of workers, one after another with nothing done between them, that end all


class Engine(ABC):
    """Does tasks of one work, in any order, in as many places as it has.

    Used as a context manager: on the way out it stops what it started, whatever is still under way.

    Attributes
    ----------
    here : bool
        Whether tasks are done in this process, one after another.
    """

    here = False
    _remedy = ""  # what to do if the work ends early; `start` knows

    def plan(self, tasks: int) -> int:  # noqa: ARG002 - for those that choose
        """Say how many tasks there will be; return the threads within an operator that each worker is to use."""
        return 1

    @abstractmethod
    def start(self, work: AnyWork) -> None:
        """Bring `work` to the workers."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many tasks are computed at the same time."""

    @abstractmethod
    def submit(self, task: AnyTask) -> None:
        """Have a task done."""

    @abstractmethod
    def next(self) -> Any:
        """Wait until a task that was submitted ends, whichever is first, and return what its worker did.

        Raises
        ------
        EngineError
            If workers die again and again, or run out of memory.
        Exception
            Whatever the task raised.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop what was started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()


def least_one(name: str, value: int | None) -> int | None:
    """Return a number of workers or threads; None leaves the choice to the engine.

    Raises
    ------
    OptionError
        If it is below 1 or no whole number.
    """
    if value is not None and require_int(name, value) < 1:
        raise OptionError(f"{name} is {value}; it must be 1 or more")
    return value


def unknown(error: BaseException) -> EngineError:
    """Return the error of a worker that cannot make out what it was sent."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    why = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else type(error).__name__)
    if error.__cause__ is not None:
        why = f"{type(error.__cause__).__name__}: {error.__cause__}"
    return cannot_load(_REPR.sub(r"\1: \3", why))


def lost(task: AnyTask, why: str, remedy: str) -> EngineError:
    """Return the error of a task that cannot be done."""
    return EngineError(f"{why} {task.place}. {remedy}, with fewer workers or a smaller batch if memory is short")
