"""Takes the first weights of a network from an ONNX model: to fine-tune what was trained elsewhere.

Layers are matched by the names of their weights, as our exports have them, or else in the order in which they compute.
Where a BatchNorm is folded into the convolution before it, it is put back so that the function stays the same. With
the mean m and the variance v of the convolution's outputs z on training images, and the bias b of the folded one,

    z + b = γ·(z - m)/√(v + ε) + β        γ = √(v + ε)        β = m + b
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnx_analog.errors import ModelError
from onnx_analog.graph import files
from onnx_analog.train.images import Images

_MEASURED = 2000  # images that measure the outputs of convolutions
_COMPARED = 64  # images whose outputs must be the same
_TOLERANCE = 1e-3  # of the outputs, over the largest


class Layer(NamedTuple):
    """A layer of a network: a convolution or a linear layer, and the BatchNorm after it."""

    name: str
    module: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | None


class Source(NamedTuple):
    """A layer of an ONNX model: the names of weight and bias, the numbers, and those of the normalisation after it."""

    names: tuple[str, ...]  # of weight and bias
    weight: NDArray[np.float32]  # as torch has it
    bias: NDArray[np.float32] | None
    norm: tuple[NDArray[np.float32], ...]  # scale, bias, mean, variance; empty without one
    epsilon: float


def start(net: nn.Module, path: Path, images: Images) -> dict[str, str]:
    """Give `net` the weights of an ONNX model; return the names that its parameters have there.

    Parameters
    ----------
    net : nn.Module
    path : Path
    images : Images
        Of training.

    Raises
    ------
    ModelError
        If the model cannot be read, or is not this network.
    """
    sources = list(_sources(files.load(path), path))
    layers = layers_of(net, images)
    pairs = _matched(layers, sources, path)
    for layer, source in pairs:
        _fill(layer, source, path)
    _put_norms_back([layer.norm for layer, source in pairs if layer.norm is not None and not source.norm], net, images)
    _compare(net, path, images)
    return {f"{layer.name}.weight": source.names[0] for layer, source in pairs}


def layers_of(net: nn.Module, images: Images) -> list[Layer]:
    """Return the layers of a network in the order in which they compute."""
    names = {module: name for name, module in net.named_modules()}
    order: list[nn.Module] = []
    with _hooked(net, nn.Conv2d | nn.Linear | nn.BatchNorm2d, lambda module, _: order.append(module)), torch.no_grad():
        net.eval()(images.inputs(slice(2)))
    layers: list[Layer] = []
    for module in order:
        if isinstance(module, nn.Conv2d | nn.Linear):
            layers.append(Layer(names[module], module, None))
        elif isinstance(module, nn.BatchNorm2d):
            layers[-1] = layers[-1]._replace(norm=module)
    return layers


def norms_of(net: nn.Module, images: Images) -> dict[str, str]:
    """Return the name of the BatchNorm after each convolution, by the name of the convolution's weight."""
    names = {module: name for name, module in net.named_modules()}
    return {f"{name}.weight": names[norm] for name, _, norm in layers_of(net, images) if norm is not None}


@contextmanager
def _hooked(net: nn.Module, kind: type | UnionType, seen: Callable[[Any, Tensor], None]) -> Iterator[None]:
    """Call `seen(module, output)` for the modules of a kind while the block runs."""

    def hook(module: nn.Module, _: object, output: Tensor) -> None:
        seen(module, output)

    handles = [module.register_forward_hook(hook) for module in net.modules() if isinstance(module, kind)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------------------------------------------ the ONNX model


def _sources(model: ir.Model, path: Path) -> Iterator[Source]:
    for node in model.graph:
        if node.op_type == "Conv" or (node.op_type == "Gemm" and not node.attributes.get_int("transA", 0)):
            weight, bias = (_array(node, place) for place in (1, 2))
            if weight is None:
                continue
            if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
                weight = weight.T
            names = tuple(value.name or "" for value in node.inputs[1:3] if value is not None)
            norm, epsilon = _norm_after(node, path)
            yield Source(names, weight, bias, norm, epsilon)
        elif node.op_type in ("MatMul", "ConvTranspose") and _array(node, 1) is not None:
            raise ModelError(f"{str(path)!r} has a {node.op_type} with weights; training takes Conv and Gemm only")


def _array(node: ir.Node, place: int) -> NDArray[np.float32] | None:
    value = node.inputs[place] if place < len(node.inputs) else None
    while value is not None and (maker := value.producer()) is not None and maker.op_type == "Identity":
        value = maker.inputs[0]  # exporters share equal tensors so
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy(), np.float32)


def _norm_after(node: ir.Node, path: Path) -> tuple[tuple[NDArray[np.float32], ...], float]:
    """Return the four tensors of the BatchNormalization that takes what a node gives, and its ε."""
    users = [user for user, _ in node.outputs[0].uses()]
    if len(users) != 1 or users[0].op_type != "BatchNormalization":
        return (), 0.0
    arrays = [array for place in range(1, 5) if (array := _array(users[0], place)) is not None]
    if len(arrays) < 4:
        raise ModelError(f"{str(path)!r} has a BatchNormalization after {node.name!r} whose tensors are not constant")
    return tuple(arrays), users[0].attributes.get_float("epsilon", 1e-5)


# ------------------------------------------------------------------------------------------------------ matching


def _matched(layers: Sequence[Layer], sources: Sequence[Source], path: Path) -> list[tuple[Layer, Source]]:
    if len(layers) != len(sources):
        raise ModelError(
            f"{str(path)!r} has {len(sources)} layers with weights, and the network has {len(layers)}: choose the "
            "network that it is"
        )
    by_name = {source.names[0]: source for source in sources}
    if all(f"{layer.name}.weight" in by_name for layer in layers):
        sources = [by_name[f"{layer.name}.weight"] for layer in layers]
    return list(zip(layers, sources, strict=True))


def _fill(layer: Layer, source: Source, path: Path) -> None:
    shape = tuple(layer.module.weight.shape)
    if source.weight.shape != shape:
        raise ModelError(
            f"{str(path)!r} has {source.names[0]!r} of shape {list(source.weight.shape)} where the network has "
            f"{layer.name!r} of {list(shape)}: choose the network that it is"
        )
    with torch.no_grad():
        layer.module.weight.copy_(_tensor(source.weight))
        bias = _tensor(np.zeros(len(source.weight), np.float32) if source.bias is None else source.bias)
        if layer.norm is None:
            if layer.module.bias is not None:
                layer.module.bias.copy_(bias)
        elif source.norm:
            scale, shift, mean, variance = (_tensor(array) for array in source.norm)
            factor = torch.sqrt(variance + source.epsilon)
            _set_norm(layer.norm, mean - bias, factor**2 - layer.norm.eps, scale, shift)
        else:
            _set_norm(layer.norm, torch.zeros_like(bias), torch.ones_like(bias) - layer.norm.eps, 1.0, bias)


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _set_norm(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, scale: Tensor | float, shift: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(torch.as_tensor(scale))
    norm.bias.copy_(shift)


@torch.no_grad()
def _put_norms_back(norms: Sequence[nn.BatchNorm2d], net: nn.Module, images: Images) -> None:
    """Make BatchNorms that add a bias only those of the outputs that come in, without changing the function."""
    sums = {norm: [torch.zeros(len(norm.bias), dtype=torch.float64)] * 2 for norm in norms}
    count = dict.fromkeys(norms, 0)

    def add(norm: nn.BatchNorm2d, x: Tensor) -> None:
        if norm in sums:
            z = (x - norm.bias.view(1, -1, 1, 1)).double()
            sums[norm] = [sums[norm][power - 1] + (z**power).sum((0, 2, 3)) for power in (1, 2)]
            count[norm] += z.numel() // z.shape[1]

    with _hooked(net, nn.BatchNorm2d, add):
        for rows in torch.split(torch.arange(min(_MEASURED, len(images))), 500):
            net.eval()(images.inputs(rows))
    for norm in norms:
        mean, square = (total / count[norm] for total in sums[norm])
        variance = (square - mean**2).clamp(min=0)
        scale = torch.sqrt(variance + norm.eps)
        _set_norm(norm, mean.float(), variance.float(), scale.float(), norm.bias + mean.float())


@torch.no_grad()
def _compare(net: nn.Module, path: Path, images: Images) -> None:
    x = images.inputs(slice(_COMPARED))
    expected = _outputs_of(path, x.numpy())
    outputs = net.eval()(x).numpy()
    if outputs.shape != expected.shape or not np.abs(outputs - expected).max() <= _TOLERANCE * np.abs(expected).max():
        raise ModelError(
            f"{str(path)!r} gives other outputs than the network with its weights: choose the network that it is"
        )


def _outputs_of(path: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first output of a model for some images, which are repeated to fill the last batch of a fixed size."""
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        field = session.get_inputs()[0]
        size = field.shape[0] if field.shape and isinstance(field.shape[0], int) else len(x)
        batches = -(-len(x) // size)
        filled = np.resize(x, (batches * size, *x.shape[1:]))
        outputs = [session.run(None, {field.name: batch})[0] for batch in np.split(filled, batches)]
        return np.concatenate(outputs)[: len(x)]
    except Exception as error:  # those of onnxruntime have no common class
        raise ModelError(
            f"{str(path)!r} does not run on the images of training: choose the network that it is"
        ) from error
