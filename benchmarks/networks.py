"""The networks that are measured. Time does not depend on what a network has learned, so these learned nothing."""

from __future__ import annotations

import lzma
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnx_analog.graph import files
from onnx_analog.run.data import Dataset

SIDE, LAYERS = 1024, 11  # a chain of 11 matrices: 11.5 million weights, as ResNet-18


def chain(side: int = SIDE, layers: int = LAYERS) -> ir.Model:
    """Return a model of `layers` square matrices with normal weights."""
    rng = np.random.default_rng(0)
    x = ir.Value(name="x", shape=ir.Shape(["n", side]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, weights, last = [], [], x
    for layer in range(layers):
        array = rng.standard_normal((side, side), dtype=np.float32) / np.float32(side**0.5)
        weight = ir.Value(name=f"w{layer}", shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
        weight.const_value = ir.Tensor(array, name=weight.name)
        nodes.append(ir.node("MatMul", [last, weight]))
        weights.append(weight)
        last = nodes[-1].outputs[0]
    last.name = "y"
    graph = ir.Graph([x], [last], nodes=nodes, initializers=weights, opset_imports={"": 18}, name="chain")
    return ir.Model(graph, ir_version=8)


def write_chain(path: Path, side: int, layers: int) -> None:
    """Write such a chain, its weights in a file beside it, one matrix at a time."""
    tensor = chain(side, 1).graph.initializers["w0"].const_value
    assert tensor is not None
    one = tensor.numpy()

    def matrix(layer: int) -> Any:  # rolled, for 4 GB of normal numbers take a minute
        return lambda: ir.Tensor(np.roll(one, layer))

    model = chain(side, 1)
    last = model.graph.outputs[0]
    last.name = "y0"
    for layer in range(1, layers):
        weight = ir.Value(name=f"w{layer}", shape=ir.Shape(one.shape), type=ir.TensorType(ir.DataType.FLOAT))
        weight.const_value = ir.LazyTensor(matrix(layer), ir.DataType.FLOAT, ir.Shape(one.shape), name=weight.name)
        model.graph.register_initializer(weight)
        model.graph.append(ir.node("MatMul", [last, weight]))
        last = model.graph[-1].outputs[0]
    model.graph.outputs[0] = last
    ir.save(model, path, external_data=f"{path.name}.data")


def trained(name: str) -> ir.Model | None:
    """Return a trained model by its file's name, from the folder `models` beside the data sets; None without it.

    The folder of the data sets is ONNX_ANALOG_DATA, or ../shared/data. A file may be packed, as NAME.xz.
    """
    data = Path(os.environ.get("ONNX_ANALOG_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = data.parent / "models" / name
    if path.exists():
        return files.load(path)
    packed = path.with_name(f"{name}.xz")
    return files.load(onnx.ModelProto.FromString(lzma.decompress(packed.read_bytes()))) if packed.exists() else None


def resnet(name: str, folder: Path) -> ir.Model:
    """Return ResNet-18 or ResNet-20 as `onnx_analog.train` exports it, untrained."""
    import torch

    from onnx_analog.train import networks
    from onnx_analog.train.export import export
    from onnx_analog.train.images import CIFAR10, Images

    torch.manual_seed(0)
    one = Images(
        x=torch.zeros(2, 3, 32, 32, dtype=torch.uint8), y=torch.zeros(2, dtype=torch.int64), normalisation=CIFAR10
    )
    export(networks.NETWORKS[name](), one, folder / f"{name}.onnx")
    return files.load(folder / f"{name}.onnx")


def pictures(count: int, shape: tuple[int, ...] = (3, 32, 32)) -> Dataset:
    """Return normal numbers as images, and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *shape), dtype=np.float32)
    return Dataset({"input": x}, rng.integers(10, size=count))
