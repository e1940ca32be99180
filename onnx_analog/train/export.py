"""Exports trained networks to ONNX, with BatchNorm separate, as in the paper, or folded, as exporters do by default."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from torch import nn

from onnx_analog.disk import writing
from onnx_analog.graph import files
from onnx_analog.train.images import Images

OPSET = 18


def export(net: nn.Module, images: Images, path: Path, *, fold_batch_norm: bool = False, opset: int = OPSET) -> None:
    """Write `net` as ONNX: `input` (n, c, h, w), `logits` (n, classes).

    Parameters
    ----------
    net : nn.Module
    images : Images
        Their size is that of the input.
    path : Path
        An existing file is replaced.
    fold_batch_norm : bool
        Multiply each BatchNorm into the convolution before it. The weights then differ in scale between channels and
        between layers.
    opset : int
    """
    model = _exported(net, images, optimize=fold_batch_norm, opset=opset)
    if not fold_batch_norm:  # what the exporter's own optimiser does, but for fusing
        fold_constants(model)
        remove_unused_nodes(model)
    _forget_origin(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    writing.write_all({path: lambda target: files.write_model(model, target)}, force=True)


def _exported(net: nn.Module, images: Images, *, optimize: bool, opset: int) -> ir.Model:
    batch = ({0: torch.export.Dim("n")},)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            net.eval(), (images.inputs(slice(2)),), input_names=["input"], output_names=["logits"],
            dynamic_shapes=batch, opset_version=opset, dynamo=True, verbose=False, optimize=optimize,
        )  # fmt: skip
    assert program is not None
    return program.model


def _forget_origin(model: ir.Model) -> None:
    """Remove the exporter's metadata, which names folders of the machine that it ran on."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
