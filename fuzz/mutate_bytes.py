"""Mutations of bytes: flip, cut, insert, splice."""

from __future__ import annotations

import random

from fuzz.draws import BYTES, pick


def mutate(data: bytes, rng: random.Random, *, other: bytes = b"") -> tuple[bytes, str]:
    """Return `data` with one change, and what it was; `other` is what a splice takes from."""
    if not data:
        return pick(rng, BYTES), "filled"
    kind = pick(rng, ("flip", "byte", "cut", "end", "insert", "double", "splice"), (4, 4, 2, 2, 3, 1, 1))
    start = rng.randrange(len(data))
    end = min(len(data), start + pick(rng, (1, 2, 4, 8, 64, 1024)))
    if kind == "flip":
        changed = data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
    elif kind == "byte":
        new = pick(rng, BYTES)
        changed = data[:start] + new + data[start + len(new) :]
    elif kind == "cut":
        changed = data[:start] + data[end:]
    elif kind == "end":
        changed = data[:start]
    elif kind == "insert":
        changed = data[:start] + pick(rng, BYTES) * pick(rng, (1, 1, 3, 100)) + data[start:]
    elif kind == "double":
        changed = data[:end] + data[start:]
    else:
        changed = data[:start] + (other or data)[rng.randrange(len(other or data)) :]
    return changed, f"{kind} at {start}"
