"""Lists the settings that exclude each other, and refuses two of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from onnx_analog.errors import OptionError

# Settings that say the same thing in two ways, or that another leaves without a meaning.
PAPER_CELLS = ("cells_small", "cells_large")
EXCLUSIVE = MappingProxyType(
    {
        "cells": PAPER_CELLS,
        "shares": ("large_fraction", "threshold", "bounds"),
        "bounds": ("large_fraction", "threshold"),
        "partition": ("large_fraction", "threshold"),
        "classes": ("strategy", "large_fraction", "threshold"),
        "sign": ("strategy",),
        "threshold": ("large_fraction",),
        "step": ("relative_step",),
    }
)


_OF_PAPER = ("strategy", *PAPER_CELLS, "preset", "large_fraction", "threshold")
_CLASSES = ("sign", "classes", "partition", "shares", "bounds", "cells")
WHOLE = MappingProxyType({"plan": ("integers", *_OF_PAPER), "integers": (*_OF_PAPER, *_CLASSES)})  # and what they say


def check_exclusive(
    given: Collection[str], exclusive: Mapping[str, Iterable[str]] = EXCLUSIVE, *, axes: bool = False
) -> None:
    """Raise `OptionError` if two of the settings with these names, or two axes of a grid, exclude each other."""
    for name, others in exclusive.items():
        other = next((other for other in others if other in given), None) if name in given else None
        if other is not None:
            names = f"the axes {name!r} and {other!r}" if axes else f"{name} and {other}"
            raise OptionError(f"{names} exclude each other: give one of them")
