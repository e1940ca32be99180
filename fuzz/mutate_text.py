"""Mutations of JSON, TOML, CSV and npz: at the level of their values, and of their text."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from fuzz import mutate_bytes
from fuzz.draws import JUNK, NAMES, pick

Slot = tuple[Any, Any]  # a dict or list, and the key or index in it


def slots(body: Any) -> Iterator[Slot]:
    """Yield every place in a JSON document that holds a value; of a long list only some."""
    keys = list(body) if isinstance(body, dict) else list(range(len(body))) if isinstance(body, list) else []
    if isinstance(body, list) and len(keys) > 12:
        keys = [*keys[:5], len(keys) // 2, *keys[-5:]]
    for key in keys:
        yield body, key
        yield from slots(body[key])


def mutate_values(body: Any, rng: random.Random) -> str:
    """Change one value of a JSON document in place; return what was done."""
    candidates = list(slots(body))
    if not candidates:
        return "nothing to change"
    container, key = pick(rng, candidates)
    kinds = ("junk", "near", "drop", "double", "swap", "rename", "deep", "long")
    kind = pick(rng, kinds, (8, 4, 3, 2, 2, 1, 1, 1))
    old = container[key]
    if kind == "drop":
        del container[key]
    elif kind == "double" and isinstance(container, list):
        container.insert(key, copy.deepcopy(old))
    elif kind == "swap" and len(container) > 1:
        other = pick(rng, list(container) if isinstance(container, dict) else range(len(container)))
        container[key], container[other] = container[other], container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[pick(rng, NAMES)] = container.pop(key)
    elif kind == "deep":
        container[key] = _nested(pick(rng, (3, 100, 3000)))
    elif kind == "long":
        container[key] = [old] * pick(rng, (0, 3, 1000))
    elif kind == "near" and isinstance(old, int | float) and not isinstance(old, bool):
        container[key] = pick(rng, (-old, old + 1, old - 1, old * 2, old / 2, old * 1e6, str(old), bool(old)))
    else:
        kind = "junk"
        container[key] = copy.deepcopy(pick(rng, JUNK))
    return f"{kind} at {key!r:.40}"


def _nested(depth: int) -> Any:
    body: Any = 1
    for _ in range(depth):
        body = [body]
    return body


def dumped(body: Any) -> bytes:
    """Return JSON; deep nesting too, where json gives up."""
    try:
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"[" * 100_000 + b"]" * 100_000


def mutate_json(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change one value of a JSON text, or its text; return it, and what was done."""
    if rng.random() < 0.85:
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return mutate_bytes.mutate(text, rng)
        change = mutate_values(body, rng)
        return dumped(body), change
    return mutate_bytes.mutate(text, rng)


def mutate_toml(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change one entry of a TOML text of plain entries, or its text."""
    lines = text.decode("utf-8", "replace").splitlines()
    if not lines or rng.random() < 0.2:
        return mutate_bytes.mutate(text, rng)
    number = rng.randrange(len(lines))
    name, _, value = lines[number].partition(" = ")
    kind = pick(rng, ("junk", "list", "drop", "double", "rename", "deep"), (8, 3, 1, 1, 1, 1))
    if kind in ("junk", "list"):
        junk = [toml_value(pick(rng, JUNK)) for _ in range(1 if kind == "junk" else rng.randrange(4))]
        lines[number] = f"{name} = {junk[0] if kind == 'junk' else '[' + ', '.join(junk) + ']'}"
    elif kind == "drop":
        del lines[number]
    elif kind == "double":
        lines.insert(number, lines[number])
    elif kind == "rename":
        lines[number] = f"{json.dumps(pick(rng, NAMES))} = {value}"
    else:
        lines[number] = f"{name} = {'[' * 3000}{']' * 3000}"
    return "\n".join(lines).encode("utf-8", "replace"), f"{kind} of {name:.30}"


def toml_value(value: Any) -> str:
    """Return a value as TOML; what TOML lacks becomes a text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(value), repr(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml_value(item)}" for name, item in value.items()) + "}"
    return json.dumps(value)


def mutate_csv(text: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change one entry, row or column of a CSV text, or its text."""
    rows = [line.split(",") for line in text.decode("utf-8", "replace").splitlines()]
    if not rows or rng.random() < 0.2:
        return mutate_bytes.mutate(text, rng)
    kind = pick(rng, ("junk", "drop", "double", "swap", "short", "long", "column"), (8, 2, 2, 2, 1, 1, 1))
    number = rng.randrange(len(rows))
    row = rows[number]
    if kind == "junk":
        row[rng.randrange(len(row))] = str(pick(rng, (*JUNK, *NAMES)))
    elif kind == "drop":
        del rows[number : number + pick(rng, (1, 1, 10, len(rows)))]
    elif kind == "double":
        rows[number:number] = [list(row) for _ in range(pick(rng, (1, 1, 5)))]
    elif kind == "swap":
        other = rng.randrange(len(rows))
        rows[number], rows[other] = rows[other], row
    elif kind == "short":
        row.pop()
    elif kind == "long":
        row.append(str(pick(rng, JUNK)))
    else:
        column, value = rng.randrange(max(1, len(row))), str(pick(rng, JUNK))
        for other_row in rows[1:]:
            other_row[column : column + 1] = [value]
    return ("\n".join(map(",".join, rows)) + "\n").encode("utf-8", "replace"), f"{kind} in row {number}"


# ------------------------------------------------------------------------------------------------------- npz


def mutate_npz(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change one member, header, type or shape of an npz file, or its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes.mutate(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return mutate_bytes.mutate(data, rng)
    if not members:
        return mutate_bytes.mutate(data, rng)
    name = pick(rng, sorted(members))
    kind = pick(rng, ("array", "header", "bytes", "drop", "rename", "extra"), (6, 3, 2, 1, 1, 1))
    if kind == "array":
        try:
            members[name] = _saved(_other_array(_array(members[name]), rng))
        except Exception:  # numpy has a dozen ways to fail on what an earlier step left
            kind, members[name] = "bytes", mutate_bytes.mutate(members[name], rng)[0]
    elif kind == "header":
        members[name] = _other_header(members[name], rng)
    elif kind == "bytes":
        members[name] = mutate_bytes.mutate(members[name], rng)[0]
    elif kind == "drop":
        del members[name]
    elif kind == "rename":
        members[pick(rng, ("x.npy", "y.npy", "x", "unused.npy", ".npy", "../x.npy"))] = members.pop(name)
    else:
        members["unused.npy"] = _saved(np.zeros(pick(rng, (0, 1, 10**6))))
    return _zipped(members, compressed=rng.random() < 0.3), f"{kind} of {name}"


def _array(member: bytes) -> Any:
    """Return a member's array; fails where its header claims more than there is, as memory would decide then."""
    file = io.BytesIO(member)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if math.prod(shape) * dtype.itemsize > len(member):
        raise ValueError("the header claims more than there is")
    return np.load(io.BytesIO(member), allow_pickle=False)


def _other_array(array: np.ndarray[Any, Any], rng: random.Random) -> Any:
    kind = pick(rng, ("type", "shape", "rows", "value", "order"))
    if kind == "type":
        types = ("float64", "float16", "int8", "uint8", "int64", "bool", "complex64", "U3", "S2", ">f4", "M8[s]")
        with np.errstate(all="ignore"):
            return array.astype(pick(rng, types))
    if kind == "shape":
        return pick(
            rng, (array.reshape(-1), array[None], array[..., None], array.T, np.float32(1), np.atleast_2d(array)[:, :1])
        )
    if kind == "rows":
        return np.concatenate([array] * 3)[: pick(rng, (0, 1, 2, 5, 9))]
    if kind == "order":
        return np.asfortranarray(array[::-1])
    flat = np.array(array).reshape(-1)
    with np.errstate(all="ignore"):
        flat[rng.randrange(max(1, flat.size)) :][:1] = (
            pick(rng, (np.nan, np.inf, -1, 1e30, 3)) if flat.dtype.kind == "f" else pick(rng, (-1, 1, 100))
        )
    return flat.reshape(array.shape)


def _other_header(member: bytes, rng: random.Random) -> bytes:
    changes = (
        (b"'<f4'", b"'|O' "), (b"'<f4'", b"'<f8'"), (b"False", b"True "), (b"(3,", b"(-1,"), (b"(3,", b"(9999999999,"),
        (b"'shape'", b"'shapf'"), (b"\x01\x00", b"\x03\x00"), (b"(3,", b"(3.0,"), (b"'<f4'", b"'<f4',) "),
    )  # fmt: skip
    old, new = pick(rng, changes)
    return member.replace(old, new, 1)


def _saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _zipped(members: dict[str, bytes], *, compressed: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # of a fixed date, so that the bytes are always the same
    return file.getvalue()
