"""Without torch, ray or dask, tests that need them are skipped with a reason, or fail where CI is set."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from typing import Any

import pytest

EXTRAS = ("torch", "ray", "dask", "distributed")  # packages of which each takes long to install


def missing_extra(error: BaseException | None) -> str | None:
    """Return the extra for lack of which `error` was raised, itself or by way of others; None if there is none."""
    met: set[int] = set()  # a chain may lead back to an error of its own
    while error is not None and id(error) not in met:
        met.add(id(error))
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        engine = re.match(r"the engine (ray|dask) needs ", str(error))  # it looks for its package without importing it
        package = engine[1] if engine else package
        if package in EXTRAS:
            return package
        error = error.__cause__ or error.__context__
    return None


def skip_without_extra(error: BaseException) -> None:
    """Skip the test that raised `error` for lack of an extra, unless CI is set."""
    package = missing_extra(error)
    if package is not None and not os.environ.get("CI"):
        pytest.skip(f"{package} is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Skip a test whose fixtures need an extra that is not installed."""
    try:
        yield
    except Exception as error:
        skip_without_extra(error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Skip a module that imports an extra which is not installed."""
    report: Any = yield
    names = re.search(rf"(?:No module named '|import of )({'|'.join(EXTRAS)})\b", str(report.longrepr))
    if report.outcome == "failed" and names is not None and not os.environ.get("CI"):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"{names[1]} is not installed")
    return report
