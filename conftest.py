"""Pytest plugins for the tests and for the examples in docstrings."""

import gc
from collections.abc import Generator
from typing import Any

import pytest

pytest_plugins = ["tests.extras"]


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
