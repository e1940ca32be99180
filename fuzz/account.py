"""The protected format read by a few lines of numpy, from docs/formats.md and not from the program."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
U = 2.0**-24  # half a unit in the last place of a float32 number
_HALF = {1: 0.0, 11: U, 10: 2.0**-11, 16: 2.0**-8}  # by element type: rounding to it, or from it
_FUNCTION = re.compile(
    r"Decode(?P<mask>Masked)?(?P<sign>Signed)?(Class(?P<width>[1248]))?(?P<kind>Levels|Mixed|Points)(?P<grouped>Grouped)?"
    r"(Aligned)?(Stage[1-9])?(Split)?"
)


class StoredTensor(NamedTuple):
    """One stored tensor: its weights, how far each may be from the original, and what it costs."""

    scheme: dict[str, Any]  # as the model's metadata has it
    number: int  # of the scheme
    weights: Array
    bound: Array  # 0 where nothing is stored
    per_level: Array  # by how much a weight moves with its level: 1/α, and 0 where it has no cells
    class_index: Array  # class of each weight, -1 where nothing is stored
    counts: tuple[int, ...]  # weights of each class
    groups: int


def stored(model: onnx.ModelProto, *, largest: float = 0.75) -> dict[str, StoredTensor]:
    """Return the stored tensors by key; `largest` is the channel's largest level."""
    schemes = json.loads(next((p.value for p in model.metadata_props if p.key == "onnx_analog.schemes"), "[]"))
    return {key: _tensor(planes, dtype, (schemes[n], n), largest) for key, planes, dtype, n in _calls(model)}


def _inputs(function: re.Match[str]) -> tuple[str, ...]:
    """Return the names of a call's inputs, in order."""
    present = {
        "level": function["kind"] != "Points", "mask": function["mask"], "sign": function["sign"],
        "class": function["width"], "analog": function["kind"] == "Mixed", "alpha": True, "beta": True,
        "stride": function["grouped"], "shape": True,
    }  # fmt: skip
    return tuple(name for name, used in present.items() if used)


def _calls(model: onnx.ModelProto) -> Iterator[tuple[str, dict[str, Array], int, int]]:
    scopes: list[tuple[Any, dict[str, onnx.TensorProto]]] = [(model.graph, {})]
    scopes += [(function, {}) for function in model.functions if function.domain != "onnx_analog"]
    while scopes:
        graph, outer = scopes.pop()
        known = dict(outer)
        if isinstance(graph, onnx.GraphProto):
            known.update({tensor.name: tensor for tensor in graph.initializer})
        for node in graph.node:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type == "Constant" and "value" in attributes and node.output:
                known[node.output[0]] = attributes["value"].t
            function = _FUNCTION.fullmatch(node.op_type) if node.domain == "onnx_analog" else None
            if function is not None:
                names = zip(_inputs(function), node.input, strict=True)
                planes = {name: numpy_helper.to_array(known[value]) for name, value in names}
                planes["width"] = np.array(int(function["width"] or 0))
                yield attributes["key"].s.decode(), planes, attributes["dtype"].i, attributes["scheme"].i
            for attribute in node.attribute:
                bodies = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
                scopes += [(body, known) for body in bodies]


def _bits(plane: Array, count: int, width: int = 1) -> Array:
    """Return `count` numbers of `width` bits, the first in the lowest bits."""
    bits = np.unpackbits(plane, bitorder="little").reshape(-1, width)[:count]
    return bits @ (1 << np.arange(width))


def _tensor(
    planes: Mapping[str, Array], dtype: int, scheme: tuple[dict[str, Any], int], largest: float
) -> StoredTensor:
    body, number = scheme
    shape = tuple(planes["shape"].tolist())
    size = math.prod(shape)
    where = np.flatnonzero(_bits(planes["mask"], size)) if "mask" in planes else np.arange(size)
    width = int(planes["width"])
    index = _bits(planes["class"], where.size, width) if width else np.zeros(where.size, int)
    alpha, beta = (planes[name].reshape(-1, body["classes"]) for name in ("alpha", "beta"))
    group = where // int(planes["stride"][0]) % len(alpha) if "stride" in planes else np.zeros(where.size, int)
    analog = np.array([cells > 0 for cells in cells_of_class(body)])[index]
    level = np.zeros(where.size, np.float32)
    if "level" in planes:
        level[analog] = planes["level"]
    a, b = alpha[group, index], beta[group, index]
    weights = (level + b) / a
    if "sign" in planes:
        weights = np.where(_bits(planes["sign"], where.size) == 1, np.float32(0) - weights, weights)
    magnitude = np.abs(weights.astype(np.float64))
    bound = (
        U * (4 * magnitude + 5 * largest / a.astype(np.float64) * analog) * 1.001
        + magnitude * _HALF[dtype]
        + 2.0**-25 * (dtype == 10)
        + 2.0**-140
    )
    to = helper.tensor_dtype_to_np_dtype(dtype)

    def dense(values: Array, kind: Any, rest: int = 0) -> Array:
        full = np.full(size, rest, kind)
        full[where] = values
        return full.reshape(shape)

    return StoredTensor(
        scheme=body,
        number=number,
        weights=dense(weights, np.float32).astype(to),
        bound=dense(bound, np.float64),
        per_level=dense(analog / a.astype(np.float64), np.float64),
        class_index=dense(index, np.int64, -1),
        counts=tuple(np.bincount(index, minlength=body["classes"]).tolist()),
        groups=len(alpha),
    )


def cells_of_class(scheme: Mapping[str, Any]) -> list[int]:
    """Return the cells per weight of each class."""
    cells: list[int] = scheme["cells"]
    return cells * scheme["classes"] if len(cells) == 1 else cells


def cells(tensors: Mapping[str, StoredTensor]) -> dict[str, int]:
    """Return the totals of a manifest: cells of each kind, and weights."""
    totals = dict.fromkeys(("original_weights", "stored_weights", "analog_cells", "side_cells", "mask_cells"), 0)
    totals["codebook_cells"], shared, unknown = 0, set[int](), set[str]()
    for tensor in tensors.values():
        scheme, count, per_class = tensor.scheme, sum(tensor.counts), cells_of_class(tensor.scheme)
        bits = scheme["side_bits_per_cell"]
        repeats = scheme["side_cells"] * scheme["side_copies"]
        side_bits = (scheme["sign"] == "bit") + math.ceil(math.log2(scheme["classes"]))
        totals["original_weights"] += tensor.weights.size
        totals["stored_weights"] += count
        totals["analog_cells"] += sum(n * each for n, each in zip(tensor.counts, per_class, strict=True))
        if scheme.get("entropy", "none") != "none":  # how long these streams are is not computed here
            unknown |= {"side_cells", "mask_cells"}
        totals["side_cells"] += -(-count * side_bits // bits) * repeats
        totals["mask_cells"] += -(-(math.comb(tensor.weights.size, count) - 1).bit_length() // bits)
        owns = scheme["granularity"] != "model" or tensor.number not in shared
        book = _table_bits(scheme) + 32 * _numbers(scheme, tensor.groups) * owns
        totals["codebook_cells"] += -(-book // bits)
        shared.add(tensor.number)
    return {name: count for name, count in totals.items() if name not in unknown}


def _table_bits(scheme: Mapping[str, Any]) -> int:
    """Return the bits of an estimator's tables: 64 numbers of 16 bits for each class, or each number of cells."""
    if scheme.get("estimator") not in ("posterior", "unbiased"):
        return 0
    tables = cells_of_class(scheme)
    tables = list(set(tables)) if scheme["partition"] == "uniform" else tables
    factor = 32 if scheme["estimator"] == "unbiased" else 0
    return 1024 * sum(count > 0 for count in tables) + factor


def _numbers(scheme: Mapping[str, Any], groups: int) -> int:
    """Return how many float32 numbers a codebook has: of equal steps, the step, and where there are cells, the ends."""
    per_class = cells_of_class(scheme)
    if scheme["partition"] != "uniform" or scheme["classes"] == 1:
        return groups * sum(1 + (count > 0) for count in per_class)
    ends = groups * (1 + (scheme["sign"] == "level")) if any(per_class) else 0
    return ends + (1 if scheme.get("step") is not None and scheme.get("estimator") != "unbiased" else groups)


# ------------------------------------------------------------------------------------------ a plain model's tensors


class Location(NamedTuple):
    """One tensor of a plain model, where it stands: in `held` at `index` (an initializer), or in an attribute."""

    tensor: onnx.TensorProto | onnx.SparseTensorProto
    graph: Any
    attribute: onnx.AttributeProto | None


def tensors(model: onnx.ModelProto) -> dict[str, Location]:
    """Return the tensors of all graphs and functions by the key that `protect` gives them."""
    locations: dict[str, Location] = {}
    scopes: list[tuple[str, Any]] = [("", model.graph)]
    scopes += [(f"{f.domain}.{f.name}{'.' * bool(f.overload)}{f.overload}()/", f) for f in model.functions]
    while scopes:
        path, graph = scopes.pop()
        if isinstance(graph, onnx.GraphProto):
            locations.update({path + tensor.name: Location(tensor, graph, None) for tensor in graph.initializer})
            locations.update(
                {path + sparse.values.name: Location(sparse, graph, None) for sparse in graph.sparse_initializer}
            )
        for node in graph.node:
            output = next((name for name in node.output if name), node.name)
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name in ("value", "sparse_value") and node.output:
                    tensor = attribute.t if attribute.HasField("t") else attribute.sparse_tensor
                    locations[path + node.output[0]] = Location(tensor, graph, attribute)
                scopes += [(f"{path}{output}.{attribute.name}/", attribute.g)] if attribute.HasField("g") else []
                scopes += [(f"{path}{output}.{attribute.name}[{i}]/", body) for i, body in enumerate(attribute.graphs)]
    return locations


def value_of(location: Location) -> Array:
    """Return a tensor's numbers, those of a sparse one as well."""
    if isinstance(location.tensor, onnx.TensorProto):
        return numpy_helper.to_array(location.tensor)
    values, indices = (numpy_helper.to_array(tensor) for tensor in (location.tensor.values, location.tensor.indices))
    dense = np.zeros(tuple(location.tensor.dims), values.dtype)
    dense[tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, dense.shape)] = values
    return dense


def put(location: Location, array: Array) -> None:
    """Put other numbers in the place of a tensor's."""
    name = location.tensor.name if isinstance(location.tensor, onnx.TensorProto) else location.tensor.values.name
    new = numpy_helper.from_array(array, name)
    if location.attribute is not None:
        location.attribute.CopyFrom(helper.make_attribute("value", new))
    elif isinstance(location.tensor, onnx.TensorProto):
        location.tensor.CopyFrom(new)
    else:
        location.graph.sparse_initializer.remove(location.tensor)
        location.graph.initializer.append(new)
