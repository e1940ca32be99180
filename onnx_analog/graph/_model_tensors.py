"""Checks the tensors of a model's file: what each says of itself, and that its data are there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from onnx_analog.graph._external import External, Folder
from onnx_analog.graph._model_text import Fault, check_text

MOST_DENSE = 2**30  # bytes of all sparse tensors together, once dense: 119 bytes of file can ask for any number
MOST_LOADED = 1536 * 2**20  # bytes of constants that lie in other files: they are read, and written into the model
MOST_AXES = 64  # numpy's
_MOST_ELEMENTS = 2**48  # of a tensor, zeros among its sides left out: numpy and onnxruntime count in 64 bits

TYPE_NAMES: dict[int, str] = {kind.value: kind.name for kind in ir.DataType if kind != ir.DataType.UNDEFINED}
_BITS: dict[int, int] = {kind.value: kind.bitwidth for kind in ir.DataType if kind.name not in ("UNDEFINED", "STRING")}
_FIELDS: dict[int, str] = {
    **dict.fromkeys(TYPE_NAMES, "int32_data"),
    **dict.fromkeys((onnx.TensorProto.FLOAT, onnx.TensorProto.COMPLEX64), "float_data"),
    **dict.fromkeys((onnx.TensorProto.DOUBLE, onnx.TensorProto.COMPLEX128), "double_data"),
    **dict.fromkeys((onnx.TensorProto.UINT32, onnx.TensorProto.UINT64), "uint64_data"),
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.STRING: "string_data",
}
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_RANGES: dict[int, tuple[int, int]] = {  # of what int32_data may hold: the bits of a float16 among it
    kind: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if TYPE_NAMES[kind].startswith("INT") else (0, 2**bits - 1)
    for kind, bits in _BITS.items()
    if bits in (8, 16) and TYPE_NAMES[kind] != "BOOL"
}


@dataclass
class Findings:
    """What the checks came across."""

    initializers: list[tuple[onnx.TensorProto, External]] = field(default_factory=list)
    others: list[tuple[onnx.TensorProto, External]] = field(default_factory=list)  # attributes and parts of sparse ones
    sparse: bool = False
    types: bool = False  # types that `onnx_ir` cannot hold
    domains: set[str] = field(default_factory=set)  # of the operators that are no functions of the model
    most_initializers: int = 0  # of one graph


class Tensors:
    """Checks tensors: what each says of itself, and that its data are there."""

    def __init__(self, findings: Findings, folder: Folder) -> None:
        self._findings, self._folder = findings, folder
        self._dense = self._loaded = 0  # bytes

    def initializers(self, graph: onnx.GraphProto, where: str, *, mapped: bool) -> None:
        """Check the initializers of a graph; `mapped` if those in other files may stay there."""
        self._findings.most_initializers = max(self._findings.most_initializers, len(graph.initializer))
        for tensor in graph.initializer:
            external = self._check(tensor, f"tensor {tensor.name!r}{where}")
            if external is not None and mapped:
                self._findings.initializers.append((tensor, external))
            elif external is not None:
                self._load(tensor, external)
        for sparse in graph.sparse_initializer:
            self._sparse(sparse, f"the sparse tensor {sparse.values.name!r}{where}")

    def attribute(self, attribute: onnx.AttributeProto, where: str, *, constant: bool) -> None:
        """Check the tensors of an attribute."""
        check_text(attribute, attribute.name, attribute.ref_attr_name)
        what = f"the attribute {attribute.name!r}{where}"
        if attribute.type == onnx.AttributeProto.TENSOR and not (attribute.HasField("t") or attribute.ref_attr_name):
            raise Fault(f"{what} is to be a tensor, and holds none. Export the model again.")
        for tensor in [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]:
            external = self._check(tensor, what)
            if external is not None:
                self._load(tensor, external)
        if attribute.HasField("sparse_tensor") and constant:
            self._sparse(attribute.sparse_tensor, what)
        elif attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise Fault(f"{what} is a sparse tensor, which only a Constant may hold here")
        for kind in [*([attribute.tp] if attribute.HasField("tp") else []), *attribute.type_protos]:
            if not is_plain(kind):
                raise Fault(f"{what} is a type that cannot be read: maps and opaque types are not")

    def _load(self, tensor: onnx.TensorProto, external: External) -> None:
        self._loaded += external.length
        if self._loaded > MOST_LOADED:
            raise Fault(
                f"its constants in other files have more than the {MOST_LOADED:,} bytes that are read. Make them "
                "initializers."
            )
        self._findings.others.append((tensor, external))

    def _sparse(self, sparse: onnx.SparseTensorProto, what: str) -> None:
        self._findings.sparse = True
        size = _elements(sparse.dims, what)
        for part, name in ((sparse.values, "values"), (sparse.indices, "indices")):
            external = self._check(part, f"{what}: its {name}")
            if external is not None:
                self._load(part, external)
        bits = _BITS.get(sparse.values.data_type)
        if bits is None or bits < 8:
            raise Fault(f"{what} has values of type {TYPE_NAMES[sparse.values.data_type]}, which cannot be sparse here")
        count = math.prod(sparse.values.dims)
        shapes = ([count], [count, len(sparse.dims)])
        if sparse.indices.data_type != onnx.TensorProto.INT64 or list(sparse.indices.dims) not in shapes:
            raise Fault(
                f"{what} has {count:,} values, and its indices are not INT64 of shape {shapes[0]} or {shapes[1]}"
            )
        self._dense += size * bits // 8
        if self._dense > MOST_DENSE:
            raise Fault(f"{what} takes {size * bits // 8:,} bytes once dense, and all may take {MOST_DENSE:,} together")

    def _check(self, tensor: onnx.TensorProto, what: str) -> External | None:
        """Check a tensor; return where its data lie if it is in another file."""
        check_text(tensor, tensor.name)
        kind = tensor.data_type
        if kind not in TYPE_NAMES:
            raise Fault(f"{what} has type {kind}, which ONNX does not know. Export the model again.")
        if tensor.HasField("segment"):
            raise Fault(f"{what} is a segment of a tensor, which no runtime reads. Export the model again.")
        size = _elements(tensor.dims, what)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if kind not in _BITS or tensor.HasField("raw_data"):
                raise Fault(
                    f"{what} has its data in another file and in the model, or is text. Export the model again."
                )
            return self._folder.external(tensor, _bytes(kind, size))
        if tensor.HasField("raw_data") and kind in _BITS:
            length, needed, unit = len(tensor.raw_data), _bytes(kind, size), "bytes"
            own = None
        else:
            own = _FIELDS[kind]
            length, needed, unit = len(getattr(tensor, own)), _numbers(kind, size), "numbers"
        if length != needed:
            shape = "x".join(map(str, tensor.dims)) or "one number"
            raise Fault(f"{what} has {length:,} {unit} of data; {TYPE_NAMES[kind]} of shape {shape} needs {needed:,}")
        if any(len(getattr(tensor, name)) for name in _TYPED if name != own) or (own and tensor.raw_data):
            raise Fault(f"{what} has data of two kinds, and tools differ in which they take. Export the model again.")
        if own == "int32_data" and kind in _RANGES and size:
            _check_range(tensor, what)
        return None


def _elements(dims: Sequence[int], what: str) -> int:
    if any(side < 0 for side in dims):
        raise Fault(f"{what} has a negative side: {list(dims)[:8]}")
    if math.prod(side or 1 for side in dims) > _MOST_ELEMENTS or len(dims) > MOST_AXES:
        raise Fault(f"{what} has a shape beyond all bounds: {list(dims)[:8]}")
    return math.prod(dims)


def _bytes(kind: int, size: int) -> int:
    return -(-size * _BITS[kind] // 8)


def _numbers(kind: int, size: int) -> int:
    """Return how many numbers a typed field of TensorProto needs: complex ones are two, and small ones share one."""
    if TYPE_NAMES[kind].startswith("COMPLEX"):
        return 2 * size
    return -(-size * _BITS[kind] // 8) if _BITS.get(kind) in (2, 4) else size


def _check_range(tensor: onnx.TensorProto, what: str) -> None:
    least, most = _RANGES[tensor.data_type]
    numbers = np.array(tensor.int32_data, np.int32)
    if numbers.min() < least or numbers.max() > most:
        raise Fault(f"{what} is {TYPE_NAMES[tensor.data_type]}, and holds {numbers.min()} to {numbers.max()}")


def is_plain(kind: onnx.TypeProto) -> bool:
    """Return whether `onnx_ir` can hold a type: tensors, and sequences and optionals of them."""
    while True:
        which = kind.WhichOneof("value")
        if which in ("sequence_type", "optional_type"):
            kind = getattr(kind, which).elem_type
            if kind.WhichOneof("value") is None:
                return False
            continue
        if which in ("tensor_type", "sparse_tensor_type"):
            return getattr(kind, which).elem_type in TYPE_NAMES
        return which is None
