"""The command line, as `python -m onnx_analog`."""

from onnx_analog.cli import main

if __name__ == "__main__":
    main(prog_name="onnx-analog")
