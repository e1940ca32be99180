"""Graph passes, in the order in which a model goes through them."""

if __name__ == "passes":
    raise ImportError(
        "this folder is the package onnx_analog.passes: import it by that name "
        "(run `pip install -e .` in the repository's root first)"
    )

from onnx_analog.passes.correct import CorrectPass as CorrectPass
from onnx_analog.passes.decode import DecodePass as DecodePass
from onnx_analog.passes.manifest import ManifestPass as ManifestPass
from onnx_analog.passes.measured import MeasuredPass as MeasuredPass
from onnx_analog.passes.protect import ProtectPass as ProtectPass
from onnx_analog.passes.prune import PrunePass as PrunePass
from onnx_analog.passes.readback import ReadbackPass as ReadbackPass

__all__ = ["CorrectPass", "DecodePass", "ManifestPass", "MeasuredPass", "ProtectPass", "PrunePass", "ReadbackPass"]
