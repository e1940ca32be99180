"""Fields of channels: checked against their annotations, and built from JSON, the inverse of `dataclasses.asdict`.

All families share these checks: a number is finite and none of True and False; a whole number has no fraction; a list
holds only what its annotation says. What a family asks beyond that, as that σ is above 0, it checks itself.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

_MOST = 2**16  # entries of a list that are checked one by one
_LARGEST = 2**63  # of whole numbers, as in most languages that read JSON


def build(cls: type[T], body: Mapping[str, Any]) -> T:
    """Return `cls` with the fields in `body`; lists become tuples, mappings the dataclasses that the fields ask for.

    Raises
    ------
    TypeError
        If `body` is no mapping, lacks a field or has one too many, or a field is not what its annotation says.
    """
    if not isinstance(body, Mapping):
        raise TypeError(f"{cls.__name__} is built from a mapping, not from {_shown(body)}")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    if unknown := [name for name in body if name not in known]:
        raise TypeError(f"there is no field {unknown[0]!r}; fields are {', '.join(known)}")
    wanted = [name for name, field in known.items() if field.init]
    for name in wanted:
        if name not in body and known[name].default is MISSING and known[name].default_factory is MISSING:
            raise TypeError(f"the field {name!r} is missing")
    hints = _hints(cls)  # type: ignore[arg-type]  # mypy takes no generic type for hashable
    return cls(**{name: as_hinted(hints.get(name), body[name], name) for name in wanted if name in body})


def conform(instance: Any) -> None:
    """Check the fields of a frozen dataclass against their annotations; numbers and tuples become those of Python.

    Raises
    ------
    TypeError
        If a field is not what its annotation says.
    """
    hints = _hints(type(instance))  # type: ignore[arg-type]  # likewise
    for field in fields(instance):
        if field.init:
            value = getattr(instance, field.name)
            object.__setattr__(instance, field.name, as_hinted(hints.get(field.name), value, field.name))


def as_hinted(hint: Any, value: Any, name: str) -> Any:
    """Return `value` as the annotation `hint` says, or raise `TypeError`; `name` is the field's."""
    if get_origin(hint) is tuple and get_args(hint)[-1:] == (...,):
        return _row(get_args(hint)[0], value, name)
    if hint in _PLAIN:
        return _PLAIN[hint](value, name)
    if isinstance(hint, type) and not isinstance(value, hint):
        if not is_dataclass(hint):
            raise TypeError(f"{name} is {_shown(value)}, which is no {hint.__name__}")
        try:
            return build(hint, value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: {error}") from error
    return tuple(as_hinted(None, part, name) for part in value) if isinstance(value, list) else value


def _row(hint: Any, value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise TypeError(f"{name} is {_shown(value)}; it must be a list")
    row = tuple(value)
    if hint is float and set(map(type, row)) <= {float, int}:  # a table has up to a million
        with suppress(OverflowError):  # of a huge whole number, which is told below
            numbers = np.array(row, np.float64)
            if np.isfinite(numbers).all():
                return tuple(numbers.tolist())
    if len(row) > _MOST:
        raise TypeError(f"{name} has {len(row):,} entries, more than {_MOST:,}")
    return tuple(as_hinted(hint, part, f"{name}[{place}]") for place, part in enumerate(row))


def number(value: Any, name: str) -> float:
    """Return a finite number as a float, or raise `TypeError`."""
    if isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if math.isfinite(found):
            return found
    raise TypeError(f"{name} is {_shown(value)}; it must be a finite number")


def whole(value: Any, name: str) -> int:
    """Return a whole number as an int, or raise `TypeError`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST:
        return operator.index(value)
    raise TypeError(f"{name} is {_shown(value)}; it must be a whole number")


def flag(value: Any, name: str) -> bool:
    """Return a truth value as a bool, or raise `TypeError`."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError(f"{name} is {_shown(value)}; it must be true or false")


def text(value: Any, name: str) -> str:
    """Return text as a str, or raise `TypeError`."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{name} is {_shown(value)}; it must be text")


_PLAIN: dict[Any, Callable[[Any, str], Any]] = {float: number, int: whole, bool: flag, str: text}


def _shown(value: Any) -> str:
    """Return what a message says of a value: what is huge, or may be deep, is not written out."""
    if isinstance(value, list | tuple | Mapping):
        return "an object" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _LARGEST:
        return "too large a whole number"
    shown = json.dumps(value, default=repr) if isinstance(value, bool | None) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except (NameError, TypeError):  # a family of somebody else's, whose annotations are for type checkers only
        return {}
