"""Allocation of cells to tensors: the least loss for a number of cells, by one multiplier.

Of each tensor the candidates on the lower convex hull of loss against cells are kept (Shoham and Gersho 1988). For a
price per cell, each tensor takes the candidate of least loss + price · cells; the sums of all prices are the hull of
what any choice from the candidates can reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np

from onnx_analog.coding.partition import Doubles
from onnx_analog.tuning.candidates import Candidate


class Choice(NamedTuple):
    """One candidate of a tensor, and the loss that it is expected to cause."""

    candidate: Candidate
    loss: float


class Allocation(NamedTuple):
    """A candidate for each tensor, by key, and the sums."""

    choices: Mapping[str, Choice]
    cells: float
    loss: float


def hull(candidates: Sequence[Candidate], sensitivity: float) -> list[Choice]:
    """Return the candidates on the lower convex hull of loss against cells, the cheapest first.

    Parameters
    ----------
    candidates : sequence of Candidate
        At least one.
    sensitivity : float, >= 0
        Loss for each unit of relative squared error.
    """
    choices = sorted(
        (Choice(each, sensitivity * each.error) for each in candidates),
        key=lambda choice: (choice.candidate.cells, choice.loss),
    )
    corners: list[Choice] = []
    for choice in choices:
        if corners and choice.loss >= corners[-1].loss:
            continue
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) <= _slope(corners[-2], choice):
            corners.pop()
        corners.append(choice)
    return corners


def _slope(first: Choice, second: Choice) -> float:
    """Return the loss that each further cell saves."""
    return (first.loss - second.loss) / (second.candidate.cells - first.candidate.cells)


class Path(Sequence[Allocation]):
    """All allocations of one price, from the cheapest to the best: each changes one tensor to its next corner.

    There are as many as corners, and each names all tensors, so an allocation is made when it is asked for.

    Parameters
    ----------
    hulls : mapping of str to sequence of Choice
        Of each tensor, by key.

    Attributes
    ----------
    cells, losses : float64 arrays
        Of each allocation, but for the rounding of sums; cells ascend, losses descend.
    """

    def __init__(self, hulls: Mapping[str, Sequence[Choice]]) -> None:
        self._hulls = hulls
        self._steps = sorted(
            (-_slope(before, after), key, number + 1)
            for key, corners in hulls.items()
            for number, (before, after) in enumerate(pairwise(corners))
        )
        self.cells = self._summed({key: [each.candidate.cells for each in corners] for key, corners in hulls.items()})
        self.losses = self._summed({key: [each.loss for each in corners] for key, corners in hulls.items()})

    def _summed(self, of_corners: Mapping[str, Sequence[float]]) -> Doubles:
        """Return the sum of a number of each tensor's corner, for each allocation."""
        added = [of_corners[key][number] - of_corners[key][number - 1] for _, key, number in self._steps]
        return np.cumsum([sum(numbers[0] for numbers in of_corners.values()), *added])

    def __len__(self) -> int:
        return len(self._steps) + 1

    @overload
    def __getitem__(self, place: int) -> Allocation: ...

    @overload
    def __getitem__(self, place: slice) -> list[Allocation]: ...

    def __getitem__(self, place: int | slice) -> Allocation | list[Allocation]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        count = range(len(self))[place]  # which raises IndexError, and counts from the end
        corners = dict.fromkeys(self._hulls, 0) | {key: number for _, key, number in self._steps[:count]}
        return summed({key: self._hulls[key][number] for key, number in corners.items()})


def summed(choices: Mapping[str, Choice]) -> Allocation:
    """Return an allocation from the choice of each tensor, by key."""
    return Allocation(
        choices,
        float(np.sum([choice.candidate.cells for choice in choices.values()])),
        float(np.sum([choice.loss for choice in choices.values()])),
    )
