"""What `onnx_ir` drops of a model, kept beside it: the training information.

All else that a model holds goes through `onnx_ir`: documentation, metadata, producer, overloads, annotations of
quantisation, device configurations.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

_TRAINING = "onnx_analog.training_info"  # in the `meta` of the main graph: that of a model is not copied with it


def remember(proto: onnx.ModelProto, model: ir.Model) -> ir.Model:
    """Return `model`, made from `proto`, with what `onnx_ir` dropped of it."""
    if proto.training_info:
        model.graph.meta[_TRAINING] = onnx.ModelProto(training_info=proto.training_info).SerializeToString()
    return model


def put_back(proto: onnx.ModelProto, model: ir.Model) -> None:
    """Add to `proto`, which holds `model`, what was remembered."""
    proto.MergeFromString(model.graph.meta.get(_TRAINING, b""))


def add_to(model: ir.Model, path: Path) -> None:
    """Add to the file at `path`, which holds `model`, what was remembered: protobuf joins what stands in a row."""
    if _TRAINING in model.graph.meta:
        with path.open("ab") as file:
            file.write(model.graph.meta[_TRAINING])


def trained_names(model: ir.Model) -> set[str]:
    """Return the names of values that the training information refers to."""
    names: set[str] = set()
    for info in onnx.ModelProto.FromString(model.graph.meta.get(_TRAINING, b"")).training_info:
        names.update(binding.key for binding in (*info.initialization_binding, *info.update_binding))
        nodes = [*info.initialization.node, *info.algorithm.node]
        names.update(name for node in nodes for name in node.input)
    return names


def forget_training(model: ir.Model) -> None:
    """Drop the training information."""
    model.graph.meta.pop(_TRAINING, None)
