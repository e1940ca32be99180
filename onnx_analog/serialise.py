"""JSON: text that all programs read alike, and frozen dataclasses to and from it.

A frozen dataclass declares each field once, with its type; what is read from JSON is checked against these types. A
field may be a number, a truth value, text, a `Literal`, an optional value, a tuple, a mapping with text for keys,
another dataclass, or a type with a hook, such as a channel:

    @dataclass(frozen=True, kw_only=True)
    class Scheme:
        channel: Channel
        cells: tuple[int, ...] = (1,)
        granularity: Literal["tensor", "model"] = "tensor"

        def __post_init__(self) -> None:
            conform(self)  # the fields have the types that they declare; then check their ranges

    body = to_json_dict(scheme)  # ready for json.dumps
    scheme = from_json_dict(Scheme, parse(text))  # raises TypeError with one line that names the field

`add_hook` says how a type that is not such a dataclass is written and read. Importing `onnx_analog.channels` adds the
one for channels.
"""

from __future__ import annotations

import gc
import json
import math
import operator
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

_DEEPEST = 32  # arrays and objects inside one another
_DIGITS = 19  # of a whole number: as many as int64 has
_TOO_DEEP = f"arrays and objects are nested more than {_DEEPEST} deep"
_MOST = 2**16  # entries of a list that are checked one by one
_LARGEST = 2**63  # of whole numbers, as in most languages that read JSON

# ------------------------------------------------------------------------------------------------------------- text


def parse(text: str) -> Any:
    """Return the value that JSON `text` holds.

    Refused are a name that an object has twice, NaN and infinity (also as 1e999), whole numbers beyond int64, halves of
    surrogate pairs, and arrays and objects that are nested more than 32 deep.

    Raises
    ------
    ValueError
        With one line that says what was found.

    Examples
    --------
    >>> parse('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parse('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: an object has the name 'a' twice
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing in JSON holds itself, and to look for that among millions of lists takes most of the time
    try:
        body = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_float, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    finally:
        if collecting:
            gc.enable()
    _check(body)
    return body


def _int(text: str) -> int:
    if len(text) < _DIGITS:
        return int(text)
    if len(text) > _DIGITS + 1 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"the number {text[:20]}{'...' * (len(text) > 20)} is beyond 64 bits")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:20]} is not finite")
    return float(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has the name {twice[:80]!r} twice")
    return body


def _check(body: Any) -> None:
    """Check depth and text, one depth after the other: a file may hold millions of values."""
    values = [body]
    for _ in range(_DEEPEST):
        _check_texts(values)
        values = [part for value in values if value and type(value) in (dict, list) for part in _parts(value)]
        if not values:
            return
    _check_texts(values)
    if any(isinstance(value, dict | list) for value in values):
        raise ValueError(_TOO_DEEP)


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return chain(value, value.values()) if isinstance(value, dict) else value


def _check_texts(values: list[Any]) -> None:
    for text in values:
        if type(text) is str and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{text[:80]!r} holds half of a surrogate pair") from None


# ------------------------------------------------------------------------------------------------------ dataclasses


class _Hook(NamedTuple):
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


_HOOKS: dict[type, _Hook] = {}


def add_hook(base: type, *, write: Callable[[Any], Mapping[str, Any]], read: Callable[[Any], Any]) -> None:
    """Set how values of `base` and of its subclasses are written as a JSON object and read from one."""
    _HOOKS[base] = _Hook(write, read)


def _hook_of(cls: type) -> _Hook | None:
    return next((hook for base, hook in _HOOKS.items() if issubclass(cls, base)), None)


def to_json_dict(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, ready for JSON: `from_json_dict` is the inverse.

    Raises
    ------
    TypeError
        If a field holds what JSON cannot say: a number that is not finite, a key that is not text, another type.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Coordinates:
    ...     x_mm: float
    ...     y_mm: float = 0.0
    >>> to_json_dict(Coordinates(1.5))
    {'x_mm': 1.5, 'y_mm': 0.0}
    """
    return {field.name: _written(getattr(instance, field.name), field.name) for field in fields(instance)}


def _written(value: Any, name: str) -> Any:
    hook = _hook_of(type(value))
    if hook is not None:
        return hook.write(value)
    if is_dataclass(value) and not isinstance(value, type):
        return to_json_dict(value)
    if isinstance(value, Mapping):
        return {as_text(key, f"a key of {name}"): _written(part, f"{name}.{key}") for key, part in value.items()}
    if isinstance(value, tuple | list):
        if set(map(type, value)) == {float} and all(map(math.isfinite, value)):
            return list(value)
        return [_written(part, f"{name}[{index}]") for index, part in enumerate(value)]
    if isinstance(value, float | np.floating):
        return as_number(value, name)
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    raise TypeError(f"{name} is of type {type(value).__name__}, which JSON does not have")


def from_json_dict(cls: type[T], body: Mapping[str, Any]) -> T:
    """Return the dataclass `cls` with the fields in `body`, each checked against its annotation.

    Lists become tuples, and objects the dataclasses, mappings or types with a hook that the fields ask for. Fields that
    are not arguments of `cls` may be there and are passed over.

    Raises
    ------
    TypeError
        If `body` is not a mapping, lacks a field or has an unknown one, or a field does not have its annotation's type.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Coordinates:
    ...     x_mm: float
    ...     y_mm: float = 0.0
    >>> from_json_dict(Coordinates, {"x_mm": 1})
    Coordinates(x_mm=1.0, y_mm=0.0)
    >>> from_json_dict(Coordinates, {"x": 1})
    Traceback (most recent call last):
    ...
    TypeError: there is no field 'x'; fields are x_mm, y_mm
    """
    if not isinstance(body, Mapping):
        raise TypeError(f"{cls.__name__} is built from a mapping, not from {_shown(body)}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    if unknown := [name for name in body if name not in known]:
        raise TypeError(f"there is no field {_shown(unknown[0])}; fields are {', '.join(known)}")
    names = [name for name, field in known.items() if field.init]
    for name in names:
        if name not in body and known[name].default is MISSING and known[name].default_factory is MISSING:
            raise TypeError(f"the field {name!r} is missing")
    hints = hints_of(cls)  # type: ignore[arg-type]  # mypy takes no generic type for hashable
    return cls(**{name: _read(hints.get(name), body[name], name) for name in names if name in body})


def conform(instance: Any) -> None:
    """Check the fields of a frozen dataclass against their annotations; numbers and tuples become those of Python.

    Raises
    ------
    TypeError
        If a field does not have its annotation's type.
    """
    hints = hints_of(type(instance))  # type: ignore[arg-type]  # likewise
    for field in fields(instance):
        if field.init:
            value = getattr(instance, field.name)
            object.__setattr__(instance, field.name, _read(hints.get(field.name), value, field.name))


def _read(hint: Any, value: Any, name: str) -> Any:
    """Return `value` as the annotation `hint` says, or raise `TypeError`; `name` is the field's."""
    if isinstance(hint, type) and hint in _PLAIN:
        return _PLAIN[hint](value, name)
    origin = get_origin(hint)
    if origin in _GENERIC:
        return _GENERIC[origin](get_args(hint), value, name)
    if isinstance(hint, type) and not isinstance(value, hint):
        return _instance(hint, value, name)
    return _row(None, value, name) if isinstance(value, list) else value


def _instance(hint: type, value: Any, name: str) -> Any:
    hook = _hook_of(hint)
    if hook is not None and isinstance(value, Mapping):
        built = hook.read(value)
        if isinstance(built, hint):
            return built
        raise TypeError(f"{name} is {type(built).__name__}, which is not a {hint.__name__}")
    if hook is not None or not is_dataclass(hint):
        raise TypeError(f"{name} is {_shown(value)}, which is not a {hint.__name__}")
    try:
        return from_json_dict(hint, value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: {error}") from error


def _row(hint: Any, value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise TypeError(f"{name} is {_shown(value)}; it must be a list")
    row = tuple(value)
    if hint is float and set(map(type, row)) <= {float, int}:  # a table has up to a million
        with suppress(OverflowError):  # of a huge whole number, which is refused below
            numbers = np.array(row, np.float64)
            if np.isfinite(numbers).all():
                return tuple(numbers.tolist())
    if len(row) > _MOST:
        raise TypeError(f"{name} has {len(row):,} entries, more than {_MOST:,}")
    return tuple(_read(hint, part, f"{name}[{index}]") for index, part in enumerate(row))


def _tuple(hints: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if hints[-1:] == (...,):
        return _row(hints[0], value, name)
    row = _row(None, value, name)
    if len(row) != len(hints):
        raise TypeError(f"{name} has {len(row):,} entries; it must have {len(hints)}")
    return tuple(_read(hint, part, f"{name}[{i}]") for i, (hint, part) in enumerate(zip(hints, row, strict=True)))


def _mapping(hints: tuple[Any, ...], value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {_shown(value)}; it must be an object")
    if len(value) > _MOST:
        raise TypeError(f"{name} has {len(value):,} entries, more than {_MOST:,}")
    keys = [as_text(key, f"a key of {name}") for key in value]
    return {key: _read(hints[1], value[key], f"{name}.{key[:40]}") for key in keys}


def _literal(choices: tuple[Any, ...], value: Any, name: str) -> Any:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    raise TypeError(f"{name} is {_shown(value)}; it must be {' or '.join(map(str, choices))}")


def _union(hints: tuple[Any, ...], value: Any, name: str) -> Any:
    """Return `value` as the first of `hints` that takes it says; the message is that of the last."""
    if value is None and types.NoneType in hints:
        return None
    *others, last = (hint for hint in hints if hint is not types.NoneType)
    for hint in others:
        with suppress(TypeError):
            return _read(hint, value, name)
    return _read(last, value, name)


_GENERIC: dict[Any, Callable[[tuple[Any, ...], Any, str], Any]] = {
    tuple: _tuple,
    dict: _mapping,
    Mapping: _mapping,
    Literal: _literal,
    Union: _union,
    types.UnionType: _union,
}


def as_number(value: Any, name: str) -> float:
    """Return a finite number as a float, or raise `TypeError`."""
    if isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise TypeError(f"{name} is {_shown(value)}; it must be a finite number")


def as_int(value: Any, name: str) -> int:
    """Return a whole number as an int, or raise `TypeError`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST:
        return operator.index(value)
    raise TypeError(f"{name} is {_shown(value)}; it must be a whole number")


def as_bool(value: Any, name: str) -> bool:
    """Return a truth value as a bool, or raise `TypeError`."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError(f"{name} is {_shown(value)}; it must be true or false")


def as_text(value: Any, name: str) -> str:
    """Return text as a str, or raise `TypeError`."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{name} is {_shown(value)}; it must be text")


_PLAIN: dict[Any, Callable[[Any, str], Any]] = {
    float: as_number,
    int: as_int,
    bool: as_bool,
    str: as_text,
}


def _shown(value: Any) -> str:
    """Return a value as a message shows it: what is huge, or may be deep, is not written out."""
    if isinstance(value, list | tuple | Mapping):
        return "an object" if isinstance(value, Mapping) else "a list"
    if is_dataclass(value):
        return type(value).__name__
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _LARGEST:
        return "too large a whole number"
    shown = json.dumps(value, default=repr) if isinstance(value, bool | None) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


@cache
def hints_of(cls: type[Any]) -> dict[str, Any]:
    """Return the types of a class's fields; to work them out takes long."""
    try:
        return get_type_hints(cls)
    except (NameError, TypeError):  # a family of somebody else's, whose annotations are for type checkers only
        return {}
