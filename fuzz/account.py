"""The protected format read by a few lines of numpy, from docs/formats.md and not from the program."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
U = 2.0**-24  # half a unit in the last place of a float32 number
_HALF = {1: 0.0, 11: U, 10: 2.0**-11, 16: 2.0**-8}  # by element type: rounding to it, or from it
_INPUTS = {
    "Decode": ("level", "sign", "class", "alpha", "beta", "shape"),
    "DecodeMasked": ("level", "mask", "sign", "class", "alpha", "beta", "shape"),
}


class Held(NamedTuple):
    """One stored tensor: its weights, how far each may be from the original, and what it costs."""

    weights: Array
    bound: Array  # 0 where nothing is stored
    counts: tuple[int, ...]  # weights of each class
    header_bits: int  # of a weight


def stored(model: onnx.ModelProto, *, largest: float = 0.75) -> dict[str, Held]:
    """Return the stored tensors by key; `largest` is the channel's largest level."""
    return {key: _held(planes, dtype, largest) for key, planes, dtype in _calls(model)}


def _calls(model: onnx.ModelProto) -> Iterator[tuple[str, dict[str, Array], int]]:
    scopes: list[tuple[Any, dict[str, onnx.TensorProto]]] = [(model.graph, {})]
    scopes += [(function, {}) for function in model.functions if function.domain != "onnx_analog"]
    while scopes:
        graph, outer = scopes.pop()
        known = dict(outer)
        if isinstance(graph, onnx.GraphProto):
            known.update({tensor.name: tensor for tensor in graph.initializer})
        for node in graph.node:
            attributes = {one.name: one for one in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                known[node.output[0]] = attributes["value"].t
            if node.domain == "onnx_analog" and node.op_type in _INPUTS:
                names = zip(_INPUTS[node.op_type], node.input, strict=True)
                planes = {name: numpy_helper.to_array(known[value]) for name, value in names}
                yield attributes["key"].s.decode(), planes, attributes["dtype"].i
            for one in node.attribute:
                scopes += [(body, known) for body in [*([one.g] if one.HasField("g") else []), *one.graphs]]


def _held(planes: Mapping[str, Array], dtype: int, largest: float) -> Held:
    level, alpha, beta = planes["level"], planes["alpha"], planes["beta"]
    shape = tuple(planes["shape"].tolist())
    size, count = math.prod(shape), level.size
    lengths = {"sign": count, "class": count, "mask": size}
    there = {name: name in planes and planes[name].size > 0 for name in lengths}
    bits = {
        name: np.unpackbits(planes[name], count=length, bitorder="little") if there[name] else None
        for name, length in lengths.items()
    }
    index = np.zeros(count, int) if bits["class"] is None else bits["class"]
    weights = (level + beta[index]) / alpha[index]
    if bits["sign"] is not None:
        weights = np.where(bits["sign"] == 1, np.float32(0) - weights, weights)
    magnitude = np.abs(weights.astype(np.float64))
    bound = (
        U * (4 * magnitude + 5 * largest / alpha[index].astype(np.float64)) * 1.001
        + magnitude * _HALF[dtype]
        + 2.0**-25 * (dtype == 10)
        + 2.0**-140
    )
    dense, bounds = np.zeros(size, np.float32), np.zeros(size)
    where = slice(None) if bits["mask"] is None else bits["mask"] == 1
    dense[where], bounds[where] = weights, bound
    counts = np.bincount(index, minlength=alpha.size)
    header = (bits["sign"] is not None) + math.ceil(math.log2(alpha.size))
    to = helper.tensor_dtype_to_np_dtype(dtype)
    return Held(dense.reshape(shape).astype(to), bounds.reshape(shape), tuple(counts.tolist()), header)


def cells(found: Mapping[str, Held], per_class: tuple[int, ...], bits: int, scope: str) -> dict[str, int]:
    """Return the totals of a manifest: cells of each kind, and weights."""
    analog = header = mask = 0
    for one in found.values():
        n, count = one.weights.size, sum(one.counts)
        analog += sum(number * cells for number, cells in zip(one.counts, per_class, strict=True))
        header += -(-count * one.header_bits // bits)
        mask += -(-(math.comb(n, count) - 1).bit_length() // bits)
    books = 1 if scope == "model" else len(found)
    return {
        "original_weights": sum(one.weights.size for one in found.values()),
        "stored_weights": sum(sum(one.counts) for one in found.values()),
        "analog_cells": analog,
        "header_cells": header,
        "mask_cells": mask,
        "codebook_cells": books * -(-64 * len(per_class) // bits),
    }


# ------------------------------------------------------------------------------------------ a plain model's tensors


class Place(NamedTuple):
    """One tensor of a plain model, where it stands: in `held` at `index` (an initializer), or in an attribute."""

    tensor: onnx.TensorProto | onnx.SparseTensorProto
    graph: Any
    attribute: onnx.AttributeProto | None


def tensors(model: onnx.ModelProto) -> dict[str, Place]:
    """Return the tensors of all graphs and functions by the key that `protect` gives them."""
    found: dict[str, Place] = {}
    scopes: list[tuple[str, Any]] = [("", model.graph)]
    scopes += [(f"{f.domain}.{f.name}{'.' * bool(f.overload)}{f.overload}()/", f) for f in model.functions]
    while scopes:
        path, graph = scopes.pop()
        if isinstance(graph, onnx.GraphProto):
            found.update({path + tensor.name: Place(tensor, graph, None) for tensor in graph.initializer})
            found.update({path + one.values.name: Place(one, graph, None) for one in graph.sparse_initializer})
        for node in graph.node:
            output = next((name for name in node.output if name), node.name)
            for one in node.attribute:
                if node.op_type == "Constant" and one.name in ("value", "sparse_value"):
                    held = one.t if one.HasField("t") else one.sparse_tensor
                    found[path + node.output[0]] = Place(held, graph, one)
                scopes += [(f"{path}{output}.{one.name}/", one.g)] if one.HasField("g") else []
                scopes += [(f"{path}{output}.{one.name}[{i}]/", body) for i, body in enumerate(one.graphs)]
    return found


def value_of(place: Place) -> Array:
    """Return a tensor's numbers, those of a sparse one as well."""
    if isinstance(place.tensor, onnx.TensorProto):
        return numpy_helper.to_array(place.tensor)
    values, indices = (numpy_helper.to_array(one) for one in (place.tensor.values, place.tensor.indices))
    dense = np.zeros(tuple(place.tensor.dims), values.dtype)
    dense[tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, dense.shape)] = values
    return dense


def put(place: Place, array: Array) -> None:
    """Put other numbers in the place of a tensor's."""
    name = place.tensor.name if isinstance(place.tensor, onnx.TensorProto) else place.tensor.values.name
    new = numpy_helper.from_array(array, name)
    if place.attribute is not None:
        place.attribute.CopyFrom(helper.make_attribute("value", new))
    elif isinstance(place.tensor, onnx.TensorProto):
        place.tensor.CopyFrom(new)
    else:
        place.graph.sparse_initializer.remove(place.tensor)
        place.graph.initializer.append(new)
