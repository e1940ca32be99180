"""The command line. `main` is the command `onnx-analog`."""

from onnx_analog.cli.app import main

__all__ = ["main"]
