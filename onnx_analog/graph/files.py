"""ONNX models as files: checked when they are opened, read with one clear line on failure, and written."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from onnx_analog.disk import kinds, reading, transactions
from onnx_analog.errors import ModelError, OutputError, require_path
from onnx_analog.graph import checking, kept, normalisation, runtime, skeleton

ModelLike = str | os.PathLike[str] | onnx.ModelProto | ir.Model

logger = logging.getLogger(__name__)

EXTERNAL_BYTES = 1536 * 2**20  # protobuf ends at 2 GiB, and fails only after it has serialised everything
LARGEST_FILE = 2**31 - 1  # bytes that protobuf reads
_ASKED_BYTES = 256 * 2**20  # of a model in memory that onnxruntime is asked about: it takes a copy
_MOST_CALLS = 1000  # of functions, in a model that onnxruntime is asked about again: 3 s
_CHUNK = 2**20  # bytes that are read at a time
# Of a model or its main graph; what graphs hold goes with their copies.
_EXTERNAL = "onnx_analog.external"  # whether a model came with its tensors in another file
_PATH = "onnx_analog.path"  # of the file that a model came from
_ASKED = "onnx_analog.asked"  # whether onnxruntime took it, so that it must take what becomes of it
_OPENED = "onnx_analog.opened"  # the name under which it was checked
_PROTECTED = "onnx_analog"  # domain of the functions that decode weights; such a model is asked about when it is opened
_AGREES = "onnx_analog.shapes_agree"  # whether its shapes do so, with those of decoded weights
_TYPES = "onnx_analog.types"  # whether values have types that `onnx_ir` cannot hold
_TYPE = "onnx_analog.type"  # such a type, among the metadata of its value


# ---------------------------------------------------------------------------------------------------- reading


def load(model: ModelLike) -> ir.Model:
    """Return `model` as an `onnx_ir` model that shares no graph with the caller's; what it returns was checked.

    First it is checked as `onnx_analog.graph.checking` says, then onnxruntime is asked whether it takes it. It is not
    asked of operators of domains that it does not know, nor where a graph has more than `runtime.MOST_ASKED`
    initializers.
    An `ir.Model` that came from here is not checked again; another is if its tensors take at most 256 MiB.

    Sparse initializers become dense, and types that `onnx_ir` cannot hold (maps) are kept aside: `to_proto` and
    `write_model` put them back.

    Raises
    ------
    ModelError
        If the file is missing, is no ONNX model, refers to external data that are not there, or onnxruntime would not
        run it, or not as it is.
    """
    if isinstance(model, ir.Model):
        return _of_memory(model)
    path = None if isinstance(model, onnx.ModelProto) else require_path("model", model)
    what = "the model" if path is None else repr(str(path))
    proto = model if isinstance(model, onnx.ModelProto) else _read(Path(model))
    try:
        loaded = _checked_model(proto, path, what)
    except checking.Fault as fault:
        separator = " " if str(fault).startswith("keeps") else ": "
        raise ModelError(f"{what}{separator}{fault}") from None
    except MemoryError as error:
        raise ModelError(f"{what}: there is not enough memory to open it") from error
    if path is not None:
        logger.info("opened %s", what)
    return loaded


def _of_memory(model: ir.Model) -> ir.Model:
    copy = model.clone()
    copy.meta.update(model.meta)
    if _OPENED in copy.graph.meta:
        return copy
    for tensor in external_tensors(copy):
        needed = (tensor.offset or 0) + tensor.nbytes
        if reading.size_of(tensor.path, error=ModelError) < needed:
            raise ModelError(f"tensor {tensor.name!r} lies in {tensor.path!r}, which is too short for it")
    if _bytes_of(copy) <= _ASKED_BYTES:
        copy.graph.meta[_ASKED] = load(_proto_of_memory(copy)).graph.meta[_ASKED]
    copy.graph.meta[_OPENED] = "the model"
    return copy


def _proto_of_memory(model: ir.Model) -> onnx.ModelProto:
    copy = model.clone()
    try:
        for value in (value for graph in copy.graphs() for value in graph.initializers.values()):
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
        return to_proto(copy)
    except Exception as error:  # onnx_ir wraps whatever it meets, in types of its own
        raise ModelError(f"the model is not a valid ONNX model: {root_cause(error)}") from error


def _checked_model(proto: onnx.ModelProto, path: Path | None, what: str) -> ir.Model:
    if not proto.HasField("graph") or not proto.ir_version:
        why = None if path is None else kinds.mistaken(path, kinds.MODEL)
        raise ModelError(why or f"{what} is not an ONNX model: it has no graph. Export or download it again.")
    try:
        findings = checking.check(proto, path)
    except checking.NotText:
        proto = _own(proto, path)
        checking.repair_text(proto)
        logger.warning("%s has descriptions that are not UTF-8: what cannot be read of them is replaced", what)
        findings = checking.check(proto, path)
    accepted = _ask(proto, path, what, findings)
    disagreeing = any(True for graph in _graphs(proto) for _ in _disagreeing(graph))
    if findings.sparse or findings.types or disagreeing:
        proto = _own(proto, path)
        findings = checking.check(proto, path)
    model = _converted(proto, findings, what)
    model.meta[_EXTERNAL] = bool(findings.initializers)
    if accepted and _PROTECTED not in model.graph.opset_imports:
        _ask_strictly(model, proto, path, what)
    model.graph.meta[_OPENED], model.graph.meta[_ASKED] = what, accepted
    if path is not None:
        model.graph.meta[_PATH] = str(path.absolute())
    return model


def _own(proto: onnx.ModelProto, path: Path | None) -> onnx.ModelProto:
    """Return a proto that may be changed: the caller's is not."""
    if path is not None:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _ask(proto: onnx.ModelProto, path: Path | None, what: str, findings: checking.Findings) -> bool:
    """Ask onnxruntime whether it takes the model; return False where it cannot be asked."""
    unknown = sorted(findings.domains - runtime.DOMAINS)
    if unknown:
        named = ", ".join(map(repr, unknown[:3]))
        if unknown == [_PROTECTED]:  # the functions of a protected model are missing: opening it says so
            return False
        logger.warning(
            "%s has operators of %s, which onnxruntime does not know, so it did not check the model", what, named
        )
        return False
    if findings.most_initializers > runtime.MOST_ASKED:
        logger.debug("%s has %d initializers in a graph: onnxruntime was not asked", what, findings.most_initializers)
        return False
    if (findings.initializers or findings.others) and path is not None and not str(path).isprintable():
        logger.debug("%s has a name that onnxruntime cannot be told: it was not asked", what)
        return False
    refusal = _refusal(proto, path, what, external=bool(findings.initializers or findings.others))
    if refusal is not None:
        raise ModelError(f"{what}: onnxruntime refuses it: {refusal}")
    return True


def _ask_strictly(model: ir.Model, proto: onnx.ModelProto, path: Path | None, what: str) -> None:
    """Refuse a model that onnxruntime refuses when it infers shapes again; without weights, asking costs little."""
    refusal = strict_refusal(model)
    if refusal is not None and (_is_named(path) or not model.meta[_EXTERNAL]):  # the file itself has the last word
        source = path if path is not None and _is_named(path) else proto.SerializeToString()
        refusal = runtime.refusal(source, warn=False, strict=True)
    if refusal is not None:
        raise ModelError(f"{what}: onnxruntime refuses it: {refusal}")


def strict_refusal(model: ir.Model, change: Callable[[ir.Model], None] = lambda _: None) -> str | None:
    """Return why onnxruntime refuses the graph of `model` once `change` was made to a copy without its weights."""
    copy = model.clone()
    copy.graph.meta.update(model.graph.meta)
    change(copy)
    skeleton.weights_to_inputs(copy)
    try:
        proto = to_proto(copy)
    except ir.serde.SerdeError:
        return None  # it holds what `onnx_ir` cannot write: onnxruntime took it as it is
    return runtime.refusal(proto.SerializeToString(), warn=False, strict=True)


def _is_named(path: Path | None) -> bool:
    """Return whether onnxruntime opens the file itself, by its name."""
    return path is not None and path.suffix == ".onnx" and str(path).isprintable()


def _refusal(proto: onnx.ModelProto, path: Path | None, what: str, *, external: bool) -> str | None:
    if path is not None and _is_named(path):
        return runtime.refusal(path)  # from bytes it would take two copies, and from a file it takes one
    try:
        return runtime.refusal(proto.SerializeToString(), path.parent if external and path is not None else None)
    except EncodeError as error:
        raise ModelError(f"{what} is larger than the 2 GiB of one ONNX file: give its path") from error


def _converted(proto: onnx.ModelProto, findings: checking.Findings, what: str) -> ir.Model:
    for tensor, external in findings.others:
        _read_external(tensor, external)
    for number, (tensor, _) in enumerate(findings.initializers):
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=str(number))
    for graph in _graphs(proto):
        for output, given in _disagreeing(graph):
            output.type.CopyFrom(given.type)
        if findings.sparse:
            _densify(graph)
        if findings.types:
            _set_types_aside(graph)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir wraps whatever it meets, in types of its own
        checking.repair_text(proto)  # says where it is, if it is this
        raise ModelError(f"{what} is not a valid ONNX model: {root_cause(error)}") from error
    _sort(model)
    if findings.initializers:
        _map(model, [external for _, external in findings.initializers])
    if findings.types:
        model.graph.meta[_TYPES] = True
    return kept.remember(proto, model)


def _sort(model: ir.Model) -> None:
    """Bring nodes into order where one stands before what it uses: onnxruntime runs it, `onnx_ir` cannot copy it."""
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        if not _in_order(owner, set()):
            owner.sort()


def _in_order(graph: ir.Graph | ir.Function, before: set[ir.Value]) -> bool:
    """Return whether each node, of bodies too, uses only what is computed `before` it; adds what it computes."""
    for node in graph:
        if any(value is not None and value.producer() is not None and value not in before for value in node.inputs):
            return False
        if not all(_in_order(body, before) for body in _bodies(node)):
            return False
        before.update(node.outputs)
    return True


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def vouch(model: ir.Model) -> None:
    """Note that onnxruntime need not be asked whether shapes agree: it took the plain model."""
    model.graph.meta[_AGREES] = True


def is_to_be_asked(model: ir.Model) -> bool:
    """Return whether onnxruntime, which knows the operators, was not asked yet whether shapes agree."""
    return bool(model.graph.meta.get(_ASKED)) and _AGREES not in model.graph.meta


def remembering(path: Path, numbers: normalisation.Normalisation) -> bytes | None:
    """Return a model's file, byte by byte, with what it is to remember at its end: its `own_digests` stay the same.

    None where that cannot be: the file is in a text format, tensors are in other files, or it remembers elsewhere.
    """
    if path.suffix != ".onnx" or len([*files_of(path)]) > 1:
        return None
    data = path.read_bytes()
    left = data[: len(data) - len(normalisation.at_end(path))]
    return None if normalisation.KEY.encode() in left else left + normalisation.entry(numbers.text)


def name_of(model: ir.Model) -> str:
    """Return what messages call `model`: its path, quoted, or "the model"."""
    return str(model.graph.meta.get(_OPENED, "the model"))


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def own_digests(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the SHA-256 of a model's file without what `remember` has put at its end, and that of all, if it differs.

    The first is the same before and after `remember`. The second is what was noted of such a file in earlier versions.
    """
    file = Path(path)
    put = len(normalisation.at_end(file))
    if not put:
        return (file_digest(file),)
    end = file.stat().st_size - put
    whole, left = hashlib.sha256(), hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            left.update(chunk[: max(end - opened.tell() + len(chunk), 0)])
            whole.update(chunk)
    return tuple(dict.fromkeys((left.hexdigest(), whole.hexdigest())))


def model_digests(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return `own_digests` of a model's file or, if its tensors are in others, those of the digests of all.

    The model's file names the others, so that their digests are enough, in the order of their names. There are none if
    one of the files is missing.
    """
    own, *others = files_of(path)
    if not all(other.is_file() for other in others):  # loading the model reports it
        return ()
    if not others:
        return own_digests(own)
    of_others = [file_digest(file) for file in sorted(others)]
    return tuple(hashlib.sha256("\n".join((each, *of_others)).encode()).hexdigest() for each in own_digests(own))


def model_digest(path: str | os.PathLike[str]) -> str | None:
    """Return the first of `model_digests`, which records hold; None if there are none."""
    return next(iter(model_digests(path)), None)


def files_of(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a model's file, and the files that it names for its tensors, whether they are there or not."""
    yield Path(path)
    try:
        proto = _read(Path(path))
    except ModelError:  # loading the model reports it
        return
    locations = dict.fromkeys(entry.value for entry in _external_entries(proto) if entry.key == "location")
    yield from (Path(path).parent / location for location in locations)


def source_digests(model: ir.Model) -> tuple[str, ...]:
    """Return `own_digests` of the file that a model was loaded from; none if it is from memory, or the file is gone.

    Where its tensors are in other files, theirs are not in it; see `model_digests`.
    """
    path = Path(model.graph.meta.get(_PATH, ""))
    return own_digests(path) if path.is_file() else ()


def source_files(model: ir.Model) -> Iterator[Path]:
    """Yield the files that a model was loaded from, however it was changed since; none if it was made in memory."""
    if _PATH in model.graph.meta:
        yield from files_of(model.graph.meta[_PATH])


def _external_entries(proto: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    for graph in _graphs(proto):
        tensors = [*graph.initializer] if isinstance(graph, onnx.GraphProto) else []
        sparse = [*graph.sparse_initializer] if isinstance(graph, onnx.GraphProto) else []
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            tensors += [attribute.t, *attribute.tensors]
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        tensors += [part for matrix in sparse for part in (matrix.values, matrix.indices)]
        yield from (entry for tensor in tensors for entry in tensor.external_data)


def _read(path: Path) -> onnx.ModelProto:
    size = reading.size_of(path, error=ModelError)
    transactions.check_whole(path, error=ModelError)
    if size > LARGEST_FILE:
        raise ModelError(
            f"{str(path)!r} has {size:,} bytes, and an ONNX file has at most 2 GiB. Is it the model's data?"
        )
    try:
        return onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except MemoryError as error:
        raise ModelError(f"{str(path)!r}: there is not enough memory to read it") from error
    except Exception as error:  # protobuf has a type of its own for each of its text formats
        why = kinds.mistaken(path, kinds.MODEL) or f"{str(path)!r} is not an ONNX model: it cannot be parsed"
        raise ModelError(why) from error


def root_cause(error: BaseException) -> str:
    """Return, as one line, the message at the bottom of a chain of wrapped errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    return text or type(error).__name__


def _read_external(tensor: onnx.TensorProto, external: checking.External) -> None:
    with external.file.open("rb") as file:
        file.seek(external.offset)
        tensor.raw_data = file.read(external.length)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _map(model: ir.Model, files: list[checking.External]) -> None:
    """Name the files that were checked themselves: `onnx_ir` follows no links, and a proto holds no path but UTF-8."""
    for value in (value for graph in model.graphs() for value in graph.initializers.values()):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            data = files[int(str(tensor.location))]
            value.const_value = ir.ExternalTensor(
                str(data.file),
                data.offset,
                data.length,
                tensor.dtype,
                shape=tensor.shape,
                name=tensor.name,
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _disagreeing(
    graph: onnx.GraphProto | onnx.FunctionProto,
) -> Iterator[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]]:
    """Yield each output of a graph that is an input of it and declares another type, and that input.

    onnxruntime goes by the input; `onnx_ir` has one value for both, and would go by the output.
    """
    if isinstance(graph, onnx.GraphProto):
        inputs = {given.name: given for given in graph.input}
        for output in graph.output:
            given = inputs.get(output.name)
            if given is not None and output.type != given.type:
                yield output, given


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
    sides = tuple(sparse.dims)
    flat = indices if indices.ndim == 1 else _flat(indices, sides)
    dense = np.zeros(sides, values.dtype)
    if flat.size and (flat.min() < 0 or flat.max() >= dense.size):
        raise checking.Fault(f"the sparse tensor {sparse.values.name!r} has an index outside its shape")
    dense.reshape(-1)[flat] = values
    return onnx.numpy_helper.from_array(dense, sparse.values.name)


def _flat(indices: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    inside = (indices >= 0).all() and (indices < np.array(sides)).all()
    return np.ravel_multi_index(tuple(indices.T), sides) if inside and indices.size else np.full(len(indices), -1)


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Yield the initializers of all graphs whose data lie in another file."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value


# -------------------------------------------------------------------------- what `onnx_ir` does not hold itself


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return `model` as a proto, with all that `load` kept aside: `ir.to_proto` alone loses it."""
    proto = ir.to_proto(model)
    kept.put_back(proto, model)
    if model.graph.meta.get(_TYPES):
        _put_types_back(proto)
    return proto


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """Return what `to_proto` was given: for models that are on their way, and checked; `proto` is changed."""
    findings = checking.Findings(types=any(not checking.is_plain(v.type) for g in _graphs(proto) for v in _values(g)))
    return _converted(proto, findings, "the model")


def _values(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.ValueInfoProto]:
    if isinstance(graph, onnx.GraphProto):
        return chain(graph.input, graph.output, graph.value_info)
    return iter(graph.value_info)


def _set_types_aside(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    for value in _values(graph):
        _pop_type(value)
        if not checking.is_plain(value.type):
            value.metadata_props.add(key=_TYPE, value=base64.b64encode(value.type.SerializeToString()).decode())
            value.ClearField("type")


def _pop_type(value: onnx.ValueInfoProto) -> str | None:
    for index, entry in enumerate(value.metadata_props):
        if entry.key == _TYPE:
            return str(value.metadata_props.pop(index).value)
    return None


def _put_types_back(proto: onnx.ModelProto) -> None:
    for value in (value for graph in _graphs(proto) for value in _values(graph)):
        encoded = _pop_type(value)
        if encoded is not None:
            value.type.ParseFromString(base64.b64decode(encoded))


# ---------------------------------------------------------------------------------------------------- writing


def write_model(model: ir.Model, path: Path) -> None:
    """Write `model`; its tensors go to `<name>.data` beside it if they were in such a file, or are too many for one."""
    external = model.meta.get(_EXTERNAL) or any(True for _ in external_tensors(model))
    beside = external or _bytes_of(model) > EXTERNAL_BYTES
    try:
        ir.save(model, path, external_data=f"{path.name}.data" if beside else None)
        if model.graph.meta.get(_TYPES):
            proto = onnx.load(path, load_external_data=False)
            _put_types_back(proto)
            onnx.save(proto, path)
        kept.add_to(model, path)
        _ask_again(model, path)
    except EncodeError as error:
        raise OutputError(f"cannot write {path.name!r}: it is larger than the 2 GiB of one ONNX file") from error
    except ir.serde.SerdeError as error:
        raise OutputError(f"cannot write {path.name!r}: {root_cause(error)}") from error


def _ask_again(model: ir.Model, path: Path) -> None:
    """Refuse what onnxruntime would not load, where it took the model before: with other types than it assumed, say."""
    if not model.graph.meta.get(_ASKED) or not _loads_soon(model):
        return
    named = path.suffix == ".onnx" and str(path).isprintable()
    refusal = (
        runtime.refusal(path, warn=False) if named else runtime.refusal(path.read_bytes(), path.parent, warn=False)
    )
    if refusal is not None:
        raise ModelError(
            f"{path.name!r} is not written, as onnxruntime would refuse it: {refusal}. Export the model again."
        )


def _loads_soon(model: ir.Model) -> bool:
    """Return whether onnxruntime takes seconds at most to load the model: it puts functions where they are called."""
    calls = sum(node.op_identifier() in model.functions for node in model.graph.all_nodes())
    most = max((len(graph.initializers) for graph in model.graphs()), default=0)
    return calls <= _MOST_CALLS and most <= runtime.MOST_ASKED


def _bytes_of(model: ir.Model) -> int:
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None and tensor.dtype != ir.DataType.STRING)
