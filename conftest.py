"""What the tests in tests/ and the examples in docstrings share."""

pytest_plugins = ["tests.extras"]
