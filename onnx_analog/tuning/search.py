"""Search for the cheapest plan that keeps a network within a loss, and its verification.

The samples are split into four by a permutation that follows from the seed: some measure sensitivities and correct,
some are searched with, and the rest, which nothing else has seen, verify.

Plans are verified in an order that those samples do not choose, the safest first, each with the whole risk, up to the
first that is not shown to hold. All that are shown before it hold, together with the confidence of one (Maurer, Hothorn
and Lehmacher 1995: tests in a fixed sequence).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from onnx_analog.coding.partition import Doubles
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.tuning.allocation import Allocation, Path, hull
from onnx_analog.tuning.answers import Answer, Goal, Look, Point
from onnx_analog.tuning.bisection import ROUNDS, cheapest
from onnx_analog.tuning.candidates import Candidate, takes
from onnx_analog.tuning.drops import Drop, samples_needed
from onnx_analog.tuning.measures import QUICK, SEARCH, VERIFICATION, Measures

_SAFER = (4.0, 2.0, 2**0.5, 2**0.25)  # times as little loss is expected of the first plans that are verified
_UNSURE = tuple(2 ** (step / 4) for step in range(8, 0, -1))  # the same, where one of them is likely the last to hold
_STEP = 2**0.125  # times as much of each that follows the plan that was searched for, than of the one before
_MOST_STEPS = 64
_GAP = 1.1  # times as many cells as the plan before: between the two there is none
_RANKS = {True: 0, None: 1, False: 2}  # of what is known of a plan


class _Found(NamedTuple):
    """What a search found, which is to be verified.

    Attributes
    ----------
    allocations : Path
    place : int
        Of the cheapest of these that met the goal; of the last, if none did.
    first : Allocation or None
        A given plan that is verified before those of places.
    spare : Allocation or None
        A given plan that is verified after them, unless one that takes no more cells holds.
    points : tuple of Point
        All that were looked at.
    sure : bool
        Whether even the plan with the most cells is likely to be shown to hold.
    rank : (bool, float)
        Lower of what is better: sure, and in fewer cells; or, within a budget, losing less.
    """

    allocations: Path
    place: int
    first: Allocation | None
    spare: Allocation | None
    points: tuple[Point, ...]
    sure: bool
    rank: tuple[bool, float]


class Search:
    """Answers of several kinds of candidates.

    Parameters
    ----------
    measures : Measures
    confidence : float
        Of the verification.
    """

    def __init__(self, measures: Measures, confidence: float) -> None:
        self._of, self._confidence = measures, confidence

    @property
    def confidence_of_look(self) -> float:
        """The confidence of each look at the samples that verify.

        There are two sequences of plans, for the rival is looked at too, and may be chosen. A plan that is tried as a
        whole is verified beside each.
        """
        return 1 - (1 - self._confidence) / (4 if self._of.wholes else 2)

    def best(self, goal: Goal) -> Answer:
        """Return the answer from all candidates.

        Where decoding may take a table and no more, those that take none are searched alone too, and the better of what
        both find is verified: an estimator with a table may lose more than it is expected to. Where it may take a
        decoder, codes save far more than a table does.
        """
        found = [self._found(self._path(self._of.candidates), self._of.wholes, goal)]
        if self._of.decoding == "table":
            found += self._found_among(goal, lambda scheme: takes(scheme) == "none")
        return self._verified(min(found, key=attrgetter("rank")), goal)

    def among(self, goal: Goal, belongs: Callable[[Scheme], bool]) -> Answer | None:
        """Return the answer from candidates whose schemes belong to a kind.

        None if a tensor has none, or a budget is too small.
        """
        found = self._found_among(goal, belongs)
        return self._verified(found[0], goal) if found else None

    def _found_among(self, goal: Goal, belongs: Callable[[Scheme], bool]) -> list[_Found]:
        """Return what is found among candidates whose schemes belong to a kind, if there is anything."""
        some = {
            key: [each for each in of_tensor if belongs(each.scheme)] for key, of_tensor in self._of.candidates.items()
        }
        if not all(some.values()):
            return []
        allocations = self._path(some)
        whole = [each for each in self._of.wholes if all(map(belongs, _schemes(each)))]
        if goal.budget is not None and self._least(allocations, whole) > goal.budget:
            return []
        return [self._found(allocations, whole, goal)]

    def _path(self, listed: Mapping[str, list[Candidate]]) -> Path:
        """Return the allocations of all prices."""
        return Path({key: hull(of_tensor, self._of.sensitivity[key].mean) for key, of_tensor in listed.items()})

    def _cells(self, allocation: Allocation) -> float:
        return self._of.cells(allocation)

    def _counted(self, allocation: Allocation) -> float:
        """Return cells per original weight as they are counted once a plan is stored."""
        return self._of.per_weight(self._of.counted(SEARCH, allocation))

    def _least(self, allocations: Path, whole: list[Allocation]) -> float:
        return min(map(self._counted, (allocations[0], *whole)))

    def _found(self, allocations: Path, whole: list[Allocation], goal: Goal) -> _Found:
        """Return the cheapest allocation that meets the goal by the samples of the search; the best if none does.

        Those in `whole` are tried too, if they are cheaper than what the others need, or none of the others does.
        """
        self._expect(allocations[-1], _rounds(len(allocations)), goal)
        if goal.budget is not None:
            return self._within(allocations, whole, goal.budget)
        limit = goal.limit
        assert limit is not None
        last, curve = len(allocations) - 1, dict[int, Point]()
        curve[last] = self._point(allocations[last])
        sure = self._foreseen(curve[last].drop) <= limit

        def kept(drop: Drop) -> bool:
            return (self._foreseen(drop) if sure else drop.mean) <= limit

        def holds(place: int) -> bool:
            self._of.steps.end("quick looks")
            if place not in curve:
                curve[place] = self._point(allocations[place])
            return kept(curve[place].drop)

        left = _rounds(len(allocations))

        def holds_by_few(place: int) -> bool:
            nonlocal left
            self._expect(allocations[place], left, goal)
            left -= 1
            return self._of.drop(QUICK, allocations[place], "quick looks", "a first look").mean <= limit

        cells = self._of.cells_along(allocations)
        place = cheapest(cells, holds, holds_by_few if self._of.has_quick else None)
        holding = place if place < last or kept(curve[last].drop) else None
        tried = {
            number: self._point(each)
            for number, each in enumerate(whole)
            if not sure or holding is None or self._cells(each) < cells[holding]
        }
        least = math.inf if holding is None else curve[holding].cells
        chosen = self._whole(tried, limit, most=least, sure=sure)
        self._of.steps.end("quick looks", "looks")
        first = None if chosen is None else whole[chosen]
        least_lost = min(tried, key=lambda number: tried[number].drop.mean, default=0)
        spare = whole[least_lost] if first is None and whole else None
        least = least if first is None else min(least, self._counted(first))
        points = (*curve.values(), *tried.values())
        return _Found(allocations, place, first, spare, points, sure, (not sure, least))

    def _foreseen(self, drop: Drop) -> float:
        """Return the bound to expect from the samples that verify, from what those of the search have shown."""
        more = self._of.count(VERIFICATION) / self._of.count(SEARCH)
        return drop.mean + (drop.upper(self.confidence_of_look) - drop.mean) / math.sqrt(more)

    def _whole(self, tried: Mapping[int, Point], limit: float, *, most: float, sure: bool) -> int | None:
        """Return the number of the cheapest plan that holds, of those that were tried as a whole; None if none does.

        If no other plan is sure to hold, one of them that is wins whatever it takes, and else one below `most` cells
        that the mean lets hold.
        """
        certain = (n for n, point in tried.items() if self._foreseen(point.drop) <= limit)
        likely = (n for n, point in tried.items() if not sure and point.drop.mean <= limit and point.cells < most)
        return next(certain, next(likely, None))

    def _within(self, allocations: Path, whole: list[Allocation], budget: float) -> _Found:
        """Return what loses least within a budget: the allocation of one price, or one in `whole`."""
        fitting = [each for each in whole if self._counted(each) <= budget]
        place = self._last_within(allocations, budget)
        if not fitting and place is None:
            least = self._least(allocations, whole)
            raise OptionError(
                f"budget is {budget:g} cells per weight; the cheapest plan takes {least:.3f}{self._of.of_correction}"
            )
        curve = {} if place is None else {place: self._point(allocations[place])}
        tried = {number: self._point(each) for number, each in enumerate(fitting)}
        points = (*curve.values(), *tried.values())
        least = min(point.drop.mean for point in points)
        best = min(tried, key=lambda number: tried[number].drop.mean, default=None)
        if best is not None and all(tried[best].drop.mean < point.drop.mean for point in curve.values()):
            return _Found(allocations, 0, fitting[best], None, points, False, (False, least))
        assert place is not None
        return _Found(allocations, place, None, None, points, False, (False, least))

    def _last_within(self, allocations: Path, budget: float) -> int | None:
        """Return the place of about the last allocation that takes no more than a budget when it is stored.

        None if not even the first does.
        """
        about, most = self._of.cells_along(allocations), budget
        while places := [place for place, cells in enumerate(about) if cells <= most]:
            more = self._counted(allocations[places[-1]]) - budget
            if more <= 0:
                return places[-1]
            most = min(about[places[-1]] - more, math.nextafter(about[places[-1]], 0))
        return 0 if self._counted(allocations[0]) <= budget else None

    def _verified(self, found: _Found, goal: Goal) -> Answer:
        """Return the cheapest allocation that is shown to hold; if none is, one of which it is not known."""
        allocations, place, first = found.allocations, found.place, found.first
        looks = list[tuple[Allocation, Look]]()
        if first is not None:
            looks.append((first, self._look(first, goal)))
        if goal.limit is not None:
            looks += self._in_sequence(allocations, place, goal, sure=found.sure)
        elif first is None:
            looks.append((allocations[place], self._look(allocations[place], goal)))
        if found.spare is not None and self._is_missed(found.spare, [look for _, look in looks]):
            looks.append((found.spare, self._look(found.spare, goal)))
        self._of.steps.end("verification")
        allocation, look = min(looks, key=lambda each: (_RANKS[each[1].holds], each[1].cells))
        return Answer(
            allocation=allocation,
            plan=self._of.plan(allocation),
            cells=look.cells,
            counted=look.counted,
            verified=look.drop,
            holds=look.holds,
            needed=self._needed(look, goal),
            looks=tuple(each for _, each in looks),
            curve=tuple(sorted(found.points, key=attrgetter("cells"))),
        )

    def _in_sequence(
        self, allocations: Path, place: int, goal: Goal, *, sure: bool
    ) -> Iterator[tuple[Allocation, Look]]:
        """Yield allocations in the order in which they are verified, up to the first that is not shown to hold."""
        places = sequence(allocations.losses, place, cells=allocations.cells, from_end=not sure)
        for done, number in enumerate(places):
            left = sum(each >= place for each in places[done:])
            self._of.expect_verification(1 + left, self._of.reads(allocations[number]))
            look = self._look(allocations[number], goal)
            yield allocations[number], look
            if not look.holds:
                return

    def _is_missed(self, given: Allocation, looks: list[Look]) -> bool:
        """Return whether a given plan may be the answer all the same: its part of the risk is its own."""
        cells = self._of.per_weight(self._of.counted(VERIFICATION, given))
        return not any(look.given or (look.holds and look.cells <= cells) for look in looks)

    def _is_given(self, allocation: Allocation) -> bool:
        return any(list(_schemes(allocation)) == list(_schemes(each)) for each in self._of.wholes)

    def _look(self, allocation: Allocation, goal: Goal) -> Look:
        drop = self._of.drop(VERIFICATION, allocation, "verification", "trials that verify")
        holds = None if goal.limit is None else _holds(drop, goal.limit, self.confidence_of_look)
        digital = all(map(is_digital, _schemes(allocation)))
        given = self._is_given(allocation)
        counted = self._of.counted(VERIFICATION, allocation)
        return Look(
            cells=self._of.per_weight(counted), drop=drop, holds=holds, digital=digital, counted=counted, given=given
        )

    def _needed(self, look: Look, goal: Goal) -> int | None:
        if goal.limit is None or look.holds is not None:
            return None
        return samples_needed(look.drop, goal.limit, self.confidence_of_look)

    def _point(self, allocation: Allocation) -> Point:
        drop, given = self._of.drop(SEARCH, allocation, "looks", "trials"), self._is_given(allocation)
        roundings = {scheme.rounding for scheme in _schemes(allocation) if scheme.is_compensable}
        rounding = roundings.pop() if len(roundings) == 1 else None
        return Point(cells=self._counted(allocation), loss=allocation.loss, drop=drop, given=given, rounding=rounding)

    def _expect(self, like: Allocation, rounds: int, goal: Goal) -> None:
        """Say about how much is left to do until an answer is verified, if plans are read as `like` is."""
        self._of.expect_looks(rounds, self._of.reads(like), budget=goal.budget is not None)


def sequence(losses: Doubles, place: int, *, cells: Doubles, from_end: bool = False) -> list[int]:
    """Return the places of the plans that are verified, in this order: each takes fewer cells than the one before.

    The first are expected to lose a quarter of what the plan of `place` does, and half as much; then steps are shorter.
    They are shorter from the start if the plan with the most cells comes first: what was searched for is then not sure
    to be shown to hold, and one of the first is likely the last that is.

    Where a large tensor changes, the next plan takes far fewer cells, and is likely the last to hold too: it is not
    left out.

    Parameters
    ----------
    losses, cells : float64 arrays
        That are expected of the plans of all places: losses descend, cells ascend.
    place : int
        Of the plan that was searched for.
    from_end : bool
        The plan with the most cells comes first.
    """
    safer = _UNSURE if from_end else _SAFER
    targets = [
        *(1 / each for each in safer),
        *(_STEP**step for step in range(_MOST_STEPS + 1)),
    ]
    last = len(losses) - 1
    most = losses[place] * (1 + 1e-9)  # losses are sums, which are rounded
    places = {min(int(np.count_nonzero(losses > target * most)), last) for target in targets}
    gaps = np.flatnonzero(cells[1:] > _GAP * cells[:-1]).tolist()
    most_cells = last if from_end else max(places)
    places.update(each for each in gaps if min(places) <= each <= most_cells)
    return sorted(places | {last} if from_end else places, reverse=True)


def _rounds(count: int) -> int:
    """Return about how many rounds of bisection there are between so many plans."""
    return min(ROUNDS, math.ceil(math.log2(count)))


def _holds(drop: Drop, limit: float, confidence: float) -> bool | None:
    if drop.upper(confidence) <= limit:
        return True
    return False if drop.lower(confidence) > limit else None


def is_digital(scheme: Scheme) -> bool:
    """Return whether a scheme has no analog cells."""
    return scheme.analog == "none"


def _schemes(allocation: Allocation) -> Iterator[Scheme]:
    return (choice.candidate.scheme for choice in allocation.choices.values())
