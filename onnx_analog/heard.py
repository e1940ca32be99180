"""Warnings that a function logs while it runs, for its result: a file of results is read when the log is gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_PACKAGE = "onnx_analog"  # whose loggers are heard

P = ParamSpec("P")
R = TypeVar("R")


class _Listener(logging.Handler):
    """Keeps the warnings of the thread that made it, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning; show it as if nobody listened, where there is no other handler."""
        if record.thread == self._thread:
            self.texts.setdefault(record.getMessage())
        if logging.lastResort is not None and _is_alone(self):
            logging.lastResort.handle(record)


def _is_alone(listener: _Listener) -> bool:
    """Return whether only listeners hear the package, and this is the first of them."""
    handlers = [handler for name in (_PACKAGE, None) for handler in logging.getLogger(name).handlers]
    return handlers[:1] == [listener] and all(isinstance(handler, _Listener) for handler in handlers)


@contextmanager
def heard() -> Iterator[dict[str, None]]:
    """Return the warnings that are logged in the meantime, by this thread, in their order."""
    listener = _Listener()
    logger = logging.getLogger(_PACKAGE)
    logger.addHandler(listener)
    try:
        yield listener.texts
    finally:
        logger.removeHandler(listener)


def with_warnings(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose result, which has a field `warnings`, has all warnings that are logged as it is made."""

    @wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        with heard() as texts:
            result: Any = function(*args, **named)
        merged: R = replace(result, warnings=tuple(dict.fromkeys((*result.warnings, *texts))))
        return merged

    return call
