"""ONNX models as files: read with one clear line on failure, and written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from onnx_analog.errors import ModelError, OutputError

ModelLike = str | os.PathLike[str] | onnx.ModelProto | ir.Model

_PATH = "onnx_analog.path"  # of the file that a model came from
_EXTERNAL = "onnx_analog.external"  # whether a model came with its tensors in another file
EXTERNAL_BYTES = 1536 * 2**20  # protobuf ends at 2 GiB, and fails only after it has serialised everything


# ---------------------------------------------------------------------------------------------------- reading


def load(model: ModelLike) -> ir.Model:
    """Return `model` as an `onnx_ir` model that shares no graph with the caller's.

    Sparse initializers become dense: `onnx_ir` would drop them silently.

    Raises
    ------
    ModelError
        If the file is missing, is no ONNX model, or refers to external data that are not there.
    """
    if isinstance(model, ir.Model):
        copy = model.clone()
        copy.meta.update(model.meta)
        return copy
    if isinstance(model, onnx.ModelProto):
        given = _from_proto(model, "the model")
        for absent in external_tensors(given):
            raise ModelError(
                f"tensor {absent.name!r} is in another file: give the model's path, or load its data first"
            )
        return given
    path = Path(model)
    found = _from_proto(_read(path), str(path))
    for graph in [found.graph, *(function.graph for function in found.functions.values())]:
        ir.external_data.set_base_dir(graph, path.parent)
    found.meta[_PATH] = str(path.absolute())
    found.meta[_EXTERNAL] = any(True for _ in external_tensors(found))
    for tensor in [*external_tensors(found), *(held.as_tensor() for _, held in _external_constants(found))]:
        _check_external(tensor, path)
    for node, held in _external_constants(found):  # what writes models looks for external data in initializers only
        tensor = held.as_tensor()
        loaded = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        node.attributes[held.name] = ir.AttrTensor(held.name, loaded)
    return found


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a model's file, and the files that it names for its tensors, whether they are there or not."""
    yield Path(path)
    try:
        proto = _read(Path(path))
    except ModelError:  # whoever loads it says so
        return
    places = dict.fromkeys(entry.value for entry in _external_entries(proto) if entry.key == "location")
    yield from (Path(path).parent / place for place in places)


def source_files(model: ir.Model) -> Iterator[Path]:
    """Yield the files that a model was loaded from, however it was changed since; none if it was made in memory."""
    if _PATH in model.meta:
        yield from files_of(model.meta[_PATH])


def _external_entries(proto: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    for graph in _graphs(proto):
        tensors = [*graph.initializer] if isinstance(graph, onnx.GraphProto) else []
        sparse = [*graph.sparse_initializer] if isinstance(graph, onnx.GraphProto) else []
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            tensors += [attribute.t, *attribute.tensors]
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        tensors += [part for one in sparse for part in (one.values, one.indices)]
        yield from (entry for tensor in tensors for entry in tensor.external_data)


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise ModelError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except Exception as error:  # protobuf has a type of its own for each of its text formats
        raise ModelError(f"{str(path)!r} is not an ONNX model: it cannot be parsed") from error


def _from_proto(proto: onnx.ModelProto, what: str) -> ir.Model:
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(f"{what} is not an ONNX model: it has no graph. Export or download it again.")
    if _has_sparse(proto):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        proto = copy
        for graph in _graphs(proto):
            _densify(graph)
    try:
        return ir.from_proto(proto)
    except Exception as error:  # onnx_ir wraps whatever it meets, in types of its own
        raise ModelError(f"{what} is not a valid ONNX model: {root_cause(error)}") from error


def root_cause(error: BaseException) -> str:
    """Return, as one line, the message at the bottom of a chain of wrapped errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _has_sparse(proto: onnx.ModelProto) -> bool:
    for graph in _graphs(proto):
        if isinstance(graph, onnx.GraphProto) and graph.sparse_initializer:
            return True
        if any(attribute.HasField("sparse_tensor") for node in graph.node for attribute in node.attribute):
            return True
    return False


def _densify(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    if isinstance(graph, onnx.GraphProto):
        graph.initializer.extend(_dense(sparse) for sparse in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):  # Constant(sparse_value=...)
                attribute.t.CopyFrom(_dense(attribute.sparse_tensor))
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return onnx.numpy_helper.from_array(dense, sparse.values.name)


def _check_external(tensor: Any, path: Path) -> None:
    file = Path(tensor.path)
    found = f"{str(path)!r} keeps tensor {tensor.name!r} in {file.name!r}, "
    if not file.is_file():
        raise ModelError(f"{found}which is not there. Put it beside the model.")
    if file.is_symlink() or file.stat().st_nlink > 1:
        raise ModelError(f"{found}which is a link, and onnx follows none. Copy the folder first: cp -rL.")
    if file.stat().st_size < (tensor.offset or 0) + (tensor.length or 0):
        raise ModelError(f"{found}which is too short for it. Copy or download it again.")


def _external_constants(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Attr]]:
    """Yield the nodes of all graphs and functions that hold a tensor whose data lie in another file."""
    functions = [node for function in model.functions.values() for node in function.all_nodes()]
    for node in [*model.graph.all_nodes(), *functions]:
        for held in list(node.attributes.values()):
            if held.is_ref() or held.type != ir.AttributeType.TENSOR:
                continue
            if isinstance(held.as_tensor(), ir.ExternalTensor):
                yield node, held


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Yield the initializers of all graphs whose data lie in another file."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value


# ---------------------------------------------------------------------------------------------------- writing


def write_model(model: ir.Model, path: Path) -> None:
    """Write `model`; its tensors go to `<name>.data` beside it if they were in such a file, or are too many for one."""
    large = sum(v.const_value.nbytes for g in model.graphs() for v in g.initializers.values() if v.const_value)
    external = model.meta.get(_EXTERNAL) or any(True for _ in external_tensors(model))
    beside = external or large > EXTERNAL_BYTES
    try:
        ir.save(model, path, external_data=f"{path.name}.data" if beside else None)
    except EncodeError as error:
        raise OutputError(f"cannot write {path.name!r}: it is larger than the 2 GiB of one ONNX file") from error
