"""The command line, as `python -m onnx_analog`."""

import os
import sys

if sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path:  # noqa: PTH109 - pathlib is not loaded yet
    del sys.path[0]  # `python -m` puts the current folder there, whose files would stand in for modules

from onnx_analog.cli import main

if __name__ == "__main__":
    main(prog_name="onnx-analog")
