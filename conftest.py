"""Pytest plugins for the tests and for the examples in docstrings."""

import gc
import os
from collections.abc import Generator
from typing import Any

import pytest

pytest_plugins = ["tests.extras"]

if "PYTEST_XDIST_WORKER" in os.environ:  # one of as many processes as there are cores: more threads only wait
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Keep the garbage collector from searching modules and 12,000 tests, which stay: it takes a tenth of all time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()
