"""Random draws that depend on (seed, kind, number, ...) only, and the values that programs trip over."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

NAMES = (
    "", " ", "é", "名前", "a/b", "../x", "-o", "\x1b[31mred", "two\nlines", "\u202eright", "[bold]x", "%s{}",
    "x" * 5000, "onnx_analog.none", "onnx_analog:w", "#2", "con", "\x7f", "y", "x", "w", "\ud7ff", "(a+)+$",
)  # fmt: skip
INTEGERS = (
    -(2**63), -(2**31), -70, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 18, 24, 28, 32, 99, 1000, 65536,
    2**31 - 1, 2**31, 10**12, 2**62, 2**63 - 1,
)  # fmt: skip
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-38, 1e10, -1e9, 1e38, 1e308)
JUNK: tuple[Any, ...] = (
    float("nan"), float("inf"), -float("inf"), -1, 0, 1, 2, 3.5, 1e308, -1e308, 1e-320, 2**31, 2**53 + 1, 2**70,
    -(2**70), True, False, None, "", "0", "x", "\x1b[31m", "x" * 4000, [], {}, [[]], {"a": 1}, [None], [1, 2], "nan",
    "1e309",
)  # fmt: skip
BYTES = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x00\x00\xc0\x7f",
    b"\n",
    b"\x1b[31m",
    b"\xe9",
    b'"',
    b",",
)


def generator(*parts: Any) -> random.Random:
    """Return a generator of its own for `parts`, the same on every machine."""
    text = "\x1f".join(map(str, parts))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))  # noqa: S311 - not for secrets


def pick(rng: random.Random, choices: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    """Return one of `choices`."""
    return rng.choices(choices, weights)[0] if weights else choices[rng.randrange(len(choices))]
