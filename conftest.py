"""Pytest plugins for the tests and for the examples in docstrings."""

pytest_plugins = ["tests.extras"]
