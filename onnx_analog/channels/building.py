"""Dataclasses from JSON: the inverse of `dataclasses.asdict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def build(cls: type[T], body: Mapping[str, Any]) -> T:
    """Return `cls` with the fields in `body`; lists become tuples, mappings the dataclasses that the fields ask for.

    Raises
    ------
    TypeError
        If `body` is no mapping, or lacks a field or has one too many.
    """
    if not isinstance(body, Mapping):
        raise TypeError(f"{cls.__name__} is built from a mapping, not from {body!r}")
    hints = get_type_hints(cls)
    wanted = {field.name: field.init for field in fields(cls)}  # type: ignore[arg-type]  # a dataclass
    return cls(**{name: _value(hints.get(name), value) for name, value in body.items() if wanted.get(name, True)})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(hint, type) and is_dataclass(hint) and not isinstance(value, hint):
        return build(hint, value)
    return tuple(_value(None, part) for part in value) if isinstance(value, list) else value
