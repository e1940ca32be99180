"""Marks for tests that need a package which is an extra: without it they are skipped, or fail where CI is set."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest


def needs(package: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test, with a reason, where a package is not installed."""
    missing = find_spec(package) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


def imported(package: str) -> ModuleType:
    """Return a package that is an extra; without it the test is skipped, or fails where CI is set."""
    if find_spec(package) is None and not os.environ.get("CI"):
        pytest.skip(f"{package} is not installed")
    return import_module(package)
