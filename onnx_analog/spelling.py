"""Finds the name that a misspelt one was meant to be."""

from __future__ import annotations

from collections.abc import Collection
from difflib import SequenceMatcher

_ALIKE = 0.6  # share of equal characters from which names are alike, as in `difflib.get_close_matches`
_LONGEST = 100  # characters that are compared


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that the fewest edits make of another; None if that is not like it.

    >>> nearest("max_drp", ["mask_seed", "max_drop", "max_trials"]), nearest("x", ["mean", "std"])
    ('max_drop', None)
    """
    name = name[:_LONGEST]
    found = min(known, key=lambda other: (edits(name, other), -_likeness(name, other)), default=None)
    alike = found is not None and (edits(name, found) <= len(name) // 3 or _likeness(name, found) >= _ALIKE)
    return found if alike else None


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, other, one).ratio()


def edits(one: str, other: str) -> int:
    """Return how many characters to insert, delete, replace, or swap with a neighbour turn one text into another.

    >>> edits("defualt", "default"), edits("cell", "cells")
    (1, 1)
    """
    before, row = list[int](), list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, right in enumerate(other, 1):
            costs = [before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right)]
            if i > 1 and j > 1 and left == other[j - 2] and one[i - 2] == right:
                costs.append(last[j - 2] + 1)
            row.append(min(costs))
    return row[-1]
