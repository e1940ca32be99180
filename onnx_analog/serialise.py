"""JSON that all programs read alike: what Python accepts and others do not is refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

_DEEPEST = 32  # arrays and objects inside one another
_DIGITS = 19  # of a whole number: as many as int64 has
_TOO_DEEP = f"arrays and objects are nested more than {_DEEPEST} deep"


def parse(text: str) -> Any:
    """Return what JSON `text` says.

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
    try:
        found = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_float, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    _check(found, _DEEPEST)
    return found


def _int(text: str) -> int:
    if len(text) > _DIGITS + 1 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"the number {text[:20]}{'...' * (len(text) > 20)} is beyond 64 bits")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {text[:20]} is not finite")
    return float(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has the name {twice[:80]!r} twice")
    return found


def _check(value: Any, levels: int) -> None:
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{value[:80]!r} holds half of a surrogate pair") from None
    if isinstance(value, dict | list):
        if not levels:
            raise ValueError(_TOO_DEEP)
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        for part in parts:
            if isinstance(part, str | dict | list):
                _check(part, levels - 1)
