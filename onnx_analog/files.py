"""Models and reports as files: read with one clear line on failure, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from onnx_analog.errors import ModelError, OutputError

ModelLike = str | os.PathLike[str] | onnx.ModelProto | ir.Model
Writer = Callable[[Path], None]

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


def write_text(text: str) -> Writer:
    """Return a writer of `text`."""

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def write_all(writers: Mapping[Path, Writer], *, force: bool = False) -> None:
    """Call each writer, and put what it wrote at its path: all of them, or none.

    Writers write into a scratch folder beside their target, whole files are then moved into place.

    Parameters
    ----------
    writers : mapping of path to function
        Each function is called with a path of the target's name, and may write more files beside it.
    force : bool
        Replace files that are there already.

    Raises
    ------
    OutputError
        If a target is there and `force` is not given, or cannot be written.
    """
    refuse_existing(writers, force=force)
    folders = {target.parent for target in writers}
    scratch: dict[Path, Path] = {}
    target = Path()
    try:
        for folder in sorted(folders):
            target = folder
            scratch[folder] = Path(tempfile.mkdtemp(prefix=".onnx-analog-", dir=folder))
        for target, write in writers.items():
            write(scratch[target.parent] / target.name)
        _move(scratch, force=force)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"cannot write {str(target)!r}: {error.strerror or error}. Nothing was changed.") from error
    finally:
        for folder in scratch.values():
            shutil.rmtree(folder, ignore_errors=True)


def refuse_existing(paths: Mapping[Path, object] | list[Path], *, force: bool) -> None:
    """Raise `OutputError` if one of `paths` is there already."""
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{str(path)!r} is a folder, where a file is to be written. Name another with -o.")
        if path.exists() and not force:
            raise OutputError(f"{str(path)!r} is there already. Use --force to replace it, or name another with -o.")


def _move(scratch: Mapping[Path, Path], *, force: bool) -> None:
    moves = [(file, folder / file.name) for folder, inside in scratch.items() for file in sorted(inside.iterdir())]
    refuse_existing([final for _, final in moves], force=force)
    done: list[tuple[Path, Path]] = []
    try:
        for file, final in sorted(
            moves, key=lambda move: move[0].suffix != ".data"
        ):  # what others refer to comes first
            aside = file.with_name(f"{file.name}.aside")
            if final.exists():
                final.replace(aside)
            done.append((aside, final))
            file.replace(final)
    except OSError:
        for aside, final in reversed(done):
            final.unlink(missing_ok=True)
            if aside.exists():
                aside.replace(final)
        raise


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make `folder`, and those around it, if they are not there; take away what is left empty if the body fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {str(folder)!r}: {error.strerror or error}") from error
    try:
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):  # it is not empty
                made.rmdir()
        raise
