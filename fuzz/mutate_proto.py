"""Mutations of ONNX models as protocol buffers: any field of any message, and what only a model has."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from onnx import numpy_helper

from fuzz.draws import BYTES, FLOATS, INTEGERS, NAMES, pick

Message = Any  # protobuf makes its types when it is imported

_WHOLE = {
    Field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Field.CPPTYPE_UINT32: (0, 2**32 - 1),
    Field.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def messages(message: Message) -> Iterator[Message]:
    """Yield a message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for inner in value if _repeated(field) else [value]:
                yield from messages(inner)


def of_type(model: onnx.ModelProto, *names: str) -> list[Message]:
    """Return all messages of some types in a model."""
    return [message for message in messages(model) if message.DESCRIPTOR.name in names]


def mutate(model: onnx.ModelProto, rng: random.Random) -> str:
    """Change one thing of a model in place; return what was done."""
    if rng.random() < 0.35:
        special = pick(rng, _SPECIAL)
        return f"{special.__name__.strip('_')}: {special(model, rng)}"
    by_type: dict[str, list[Message]] = {}
    for inner in messages(model):
        by_type.setdefault(inner.DESCRIPTOR.name, []).append(inner)
    message = pick(rng, by_type[pick(rng, sorted(by_type))])
    filled = [field for field, _ in message.ListFields()]
    field = pick(rng, filled if filled and rng.random() < 0.85 else message.DESCRIPTOR.fields)
    change = _repeat(message, field, rng, model) if _repeated(field) else _single(message, field, rng, model)
    return f"{message.DESCRIPTOR.name}.{field.name}: {change}"


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated)


def _single(message: Message, field: Any, rng: random.Random, model: onnx.ModelProto) -> str:
    if field.type == Field.TYPE_MESSAGE:
        others = of_type(model, field.message_type.name)
        if rng.random() < 0.5 or not others:
            message.ClearField(field.name)
            return "cleared"
        copied = type(others[0])()
        copied.CopyFrom(pick(rng, others))
        getattr(message, field.name).CopyFrom(copied)
        return "another's"
    if rng.random() < 0.15:
        message.ClearField(field.name)
        return "cleared"
    value = _value(field, getattr(message, field.name), rng, model)
    setattr(message, field.name, value)
    return f"{value!r:.40}"


def _repeat(message: Message, field: Any, rng: random.Random, model: onnx.ModelProto) -> str:
    items = getattr(message, field.name)
    kind = pick(rng, ("drop", "double", "swap", "clear", "add", "change"), (3, 3, 3, 1, 2, 4))
    index = rng.randrange(len(items)) if items else -1
    if kind == "drop" and items:
        del items[index]
    elif kind == "clear":
        message.ClearField(field.name)
    elif kind == "swap" and len(items) > 1:
        values = list(items)
        other = rng.randrange(len(values))
        values[index], values[other] = values[other], values[index]
        _refill(message, field.name, values)
    elif kind == "double" and items:
        _refill(message, field.name, [*items[: index + 1], *items[index:]])
    elif field.type == Field.TYPE_MESSAGE:
        others = of_type(model, field.message_type.name)
        if others:
            copied = type(others[0])()  # first: what is added may be inside what is copied
            copied.CopyFrom(pick(rng, others))
            items.add().CopyFrom(copied)
        kind = "add"
    elif items and kind == "change":
        items[index] = _value(field, items[index], rng, model)
    else:
        items.append(_value(field, None, rng, model))
        kind = "add"
    return f"{kind} at {index}"


def _refill(message: Message, name: str, values: list[Any]) -> None:
    copies = [value.__deepcopy__({}) if hasattr(value, "DESCRIPTOR") else value for value in values]
    message.ClearField(name)
    getattr(message, name).extend(copies)


def _value(field: Any, old: Any, rng: random.Random, model: onnx.ModelProto) -> Any:
    kind = field.cpp_type
    if field.type == Field.TYPE_BYTES:
        return _bytes(old or b"", rng)
    if kind == Field.CPPTYPE_STRING:
        return pick(rng, NAMES) if rng.random() < 0.4 else pick(rng, names_of(model) or list(NAMES))
    if kind == Field.CPPTYPE_ENUM:
        return pick(rng, [value.number for value in field.enum_type.values])
    if kind in (Field.CPPTYPE_FLOAT, Field.CPPTYPE_DOUBLE):
        return pick(rng, FLOATS)
    low, high = _WHOLE[kind]
    near = [old + 1, old - 1, old * 2] if old is not None else []
    return max(low, min(high, pick(rng, [*INTEGERS, *near, *near])))


def _bytes(old: bytes, rng: random.Random) -> bytes:
    kind = pick(rng, ("flip", "cut", "longer", "empty", "junk"))
    position = rng.randrange(len(old)) if old else 0
    if kind == "flip" and old:
        return old[:position] + bytes([old[position] ^ 1 << rng.randrange(8)]) + old[position + 1 :]
    if kind == "cut":
        return old[:position]
    if kind == "longer":
        return old + bytes(pick(rng, (1, 4, 4096)))
    if kind == "junk" and len(old) >= 4:
        new: bytes = pick(rng, BYTES)[:4].ljust(4, b"\x7f")
        return old[: position // 4 * 4] + new + old[position // 4 * 4 + 4 :]
    return b""


def names_of(model: onnx.ModelProto) -> list[str]:
    """Return the names of all values of a model."""
    names = {name for node in of_type(model, "NodeProto") for name in [*node.input, *node.output]}
    names |= {tensor.name for tensor in of_type(model, "TensorProto")}
    return sorted(name for name in names if name and isinstance(name, str))  # protobuf gives bytes that are no text


# -------------------------------------------------------------------------------- what only a model has


def _rename(model: onnx.ModelProto, rng: random.Random) -> str:
    """Rename a value everywhere, so that the model stays what it was."""
    old, new = pick(rng, names_of(model) or ["w"]), pick(rng, NAMES)
    for message in messages(model):
        kind = message.DESCRIPTOR.name
        if kind in ("TensorProto", "ValueInfoProto") and message.name == old:
            message.name = new
        for name in ("input", "output") if kind in ("NodeProto", "FunctionProto") else ():
            values = [new if value == old else value for value in getattr(message, name)]
            message.ClearField(name)
            getattr(message, name).extend(values)
    return f"{old!r:.20} to {new!r:.20}"


def _weights(model: onnx.ModelProto) -> list[Message]:
    return [
        tensor
        for tensor in of_type(model, "TensorProto")
        if tensor.data_type in (1, 10, 11, 16) and len(tensor.dims) > 1
    ]


def _weight(model: onnx.ModelProto, rng: random.Random) -> tuple[Message, np.ndarray[Any, Any]] | None:
    try:
        tensor = pick(rng, _weights(model))
        return tensor, np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OSError, RuntimeError, IndexError, onnx.checker.ValidationError):
        return None


def _number(model: onnx.ModelProto, rng: random.Random) -> str:
    """Put a number that is far from the others into a weight."""
    weight = _weight(model, rng)
    if weight is None or not weight[1].size:
        return "no weight"
    tensor, array = weight
    numbers = (np.nan, np.inf, -np.inf, 1e10, -1e9, 3.4e38, 1e-40, 6e4, 0.0, -1e4)
    with np.errstate(all="ignore"):
        array.reshape(-1)[rng.randrange(array.size)] = value = pick(rng, numbers)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return f"{value} in {tensor.name:.20}"


def _scale(model: onnx.ModelProto, rng: random.Random) -> str:
    weight = _weight(model, rng)
    if weight is None:
        return "no weight"
    tensor, array = weight
    factor = pick(rng, (0.0, 1e-30, 1e-20, 1e20, 1e35, -1.0))
    with np.errstate(all="ignore"):
        changed = (array * array.dtype.type(factor)).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    return f"{tensor.name:.20} by {factor}"


def _sparse(model: onnx.ModelProto, rng: random.Random) -> str:
    """Make an initializer of the main graph sparse."""
    weight = _weight(model, rng)
    inside = [tensor.name for tensor in model.graph.initializer]
    if weight is None or weight[0].name not in inside or weight[1].ndim != 2:
        return "no weight"
    tensor, array = weight
    array[rng.randrange(len(array)) :] = 0
    index = inside.index(tensor.name)
    sparse = model.graph.sparse_initializer.add()
    flat = np.flatnonzero(array)
    sparse.values.CopyFrom(numpy_helper.from_array(array.reshape(-1)[flat], tensor.name))
    sparse.indices.CopyFrom(numpy_helper.from_array(flat.astype(np.int64), f"{tensor.name}.indices"))
    sparse.dims.extend(array.shape)
    del model.graph.initializer[index]
    return str(inside[index][:20])


def _external(model: onnx.ModelProto, rng: random.Random) -> str:
    """Say that a tensor's data lie in a file."""
    tensors = of_type(model, "TensorProto")
    if not tensors:
        return "no tensor"
    tensor = pick(rng, tensors)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    locations = (
        "m.onnx.data",
        "m.onnx",
        "../m.onnx.data",
        "/etc/hostname",
        "",
        "nothing",
        "data.npz",
        ".",
        "a\x00b",
        "/dev/zero",
    )
    entries = {
        "location": pick(rng, locations),
        "offset": str(pick(rng, (0, 4, 4096, -1, 2**70))),
        "length": str(pick(rng, (0, 4, 1024, -1, 2**40, "x"))),
    }
    for key, value in entries.items():
        if rng.random() < 0.8:
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    return f"{tensor.name:.20} in {entries['location']!r}"


def _unused(model: onnx.ModelProto, rng: random.Random) -> str:
    """Add a weight that nothing uses."""
    array = np.full(pick(rng, ((16, 16), (512,), (0, 4), (2, 200))), 0.5, np.float32)
    graphs = of_type(model, "GraphProto")
    pick(rng, graphs or [model.graph]).initializer.append(numpy_helper.from_array(array, "unused"))
    return f"{array.shape}"


def _twice(model: onnx.ModelProto, rng: random.Random) -> str:
    """Add an initializer with a name that is there already, and other numbers."""
    weight = _weight(model, rng)
    if weight is None:
        return "no weight"
    tensor, array = weight
    model.graph.initializer.append(
        numpy_helper.from_array((array * array.dtype.type(-1)).astype(array.dtype), tensor.name)
    )
    return str(tensor.name[:20])


def _to_constant(model: onnx.ModelProto, rng: random.Random) -> str:
    """Turn an initializer into the output of a Constant node, or the other way round."""
    if not model.graph.initializer:
        return "none"
    index = rng.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[index]
    node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
    del model.graph.initializer[index]
    model.graph.node.insert(0, node)
    return str(node.output[0][:20])


def _to_input(model: onnx.ModelProto, rng: random.Random) -> str:
    """Make an initializer an input with a default."""
    if not model.graph.initializer:
        return "none"
    tensor = pick(rng, model.graph.initializer)
    model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return str(tensor.name[:20])


def _opset(model: onnx.ModelProto, rng: random.Random) -> str:
    version = pick(rng, (1, 6, 9, 10, 11, 12, 13, 14, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29))
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = version
    return str(version)


def _metadata(model: onnx.ModelProto, rng: random.Random) -> str:
    """Change a metadata entry: its text, or one value where it holds JSON."""
    from fuzz.mutate_text import mutate_json

    if not model.metadata_props:
        entry = model.metadata_props.add()
        entry.key = pick(rng, ("onnx_analog.format", "onnx_analog.readback", "onnx_analog.protection", "note"))
        entry.value = pick(rng, ("1", "2", "{}", "[]", ""))
        return str(entry.key)
    entry = pick(rng, model.metadata_props)
    changed, change = mutate_json(entry.value.encode(), rng)
    entry.value = changed.decode("utf-8", "replace")
    return f"{entry.key}: {change}"


_SPECIAL: tuple[Callable[[onnx.ModelProto, random.Random], str], ...] = (
    _rename, _rename, _number, _number, _scale, _sparse, _external, _unused, _twice, _to_constant,
    _to_input, _opset, _metadata,
)  # fmt: skip
