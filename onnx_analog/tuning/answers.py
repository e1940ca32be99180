"""What a search is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from onnx_analog.coding.plan import Plan
from onnx_analog.errors import OptionError
from onnx_analog.tuning.allocation import Allocation
from onnx_analog.tuning.drops import Drop
from onnx_analog.tuning.scale import noise_of


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is asked for: one of three.

    Attributes
    ----------
    max_drop : float, optional
        The largest drop of a share, 0 to 1.
    min_sqnr_db : float, optional
        The least ratio of signal to noise in the outputs, in dB.
    budget : float, optional
        The most cells per original weight.
    """

    max_drop: float | None = None
    min_sqnr_db: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if not given:
            raise OptionError("none of max_drop, min_sqnr and budget is given: give one of them")
        if len(given) > 1:
            first, second = (name.removesuffix("_db") for name in given[:2])
            raise OptionError(f"{first} and {second} exclude each other: give one of them")

    @property
    def max_points_lost(self) -> float | None:
        """The largest drop in percentage points, as it was given: without what the division by 100 rounded.

        >>> Goal(max_drop=7 / 100).max_points_lost, 100 * (7 / 100)
        (7.0, 7.000000000000001)
        """
        return None if self.max_drop is None else float(f"{100 * self.max_drop:.15g}")

    @property
    def limit(self) -> float | None:
        """The largest loss, in the unit of `Drop`; None within a budget."""
        return self.max_drop if self.min_sqnr_db is None else noise_of(self.min_sqnr_db)


class Cells(NamedTuple):
    """The cells of a plan.

    Attributes
    ----------
    tensors : mapping of str to float
        By storage key; what tensors share, such as the last block of a code, is shared out.
    correction : float
        Of the numbers that the reader keeps for the correction.
    """

    tensors: Mapping[str, float]
    correction: float

    @property
    def total(self) -> float:
        """All cells."""
        return sum(self.tensors.values()) + self.correction


@dataclass(frozen=True, kw_only=True)
class Point:
    """One allocation that was tried.

    Attributes
    ----------
    cells : float
        Per original weight, the correction included.
    loss : float
        Divergence that is predicted.
    drop : Drop
        On the samples that are searched with.
    given : bool
        Whether it is the plan that was given, tried as a whole.
    rounding : str, optional
        How it is rounded: alone or together; None if not all of its weights are rounded alike, or none are.
    """

    cells: float
    loss: float
    drop: Drop
    given: bool = False
    rounding: str | None = None

    @property
    def mark(self) -> str:
        """What to write after the cells of a given plan, which is tried with more than one rounding; else nothing."""
        rounded = {None: "", "alone": ", rounded alone", "together": ", compensated"}[self.rounding]
        return f" (given{rounded})" if self.given else ""


class _Held:
    """What is known of a goal, in words."""

    holds: bool | None

    @property
    def held(self) -> str:
        """Whether the goal holds, in words."""
        return {True: "holds", False: "does not hold", None: "not decided"}[self.holds]


@dataclass(frozen=True, kw_only=True)
class Look(_Held):
    """One plan on the samples that verify.

    Attributes
    ----------
    cells : float
        Per original weight, the correction included.
    drop : Drop
    holds : bool or None
        Whether the plan keeps the goal; None if these samples cannot tell, or the goal is a budget.
    digital : bool
        Whether no tensor has analog cells.
    counted : Cells
        Those cells, by what they hold.
    given : bool
        Whether it is the plan that was given, tried as a whole.
    """

    cells: float
    drop: Drop
    holds: bool | None
    digital: bool
    counted: Cells
    given: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer(_Held):
    """The cheapest plan that was found among some candidates.

    Attributes
    ----------
    allocation : Allocation
    plan : Plan
    cells : float
        Per original weight, the correction included.
    counted : Cells
        Those cells, by what they hold.
    verified : Drop
        On samples that nothing else has seen.
    holds : bool or None
        Whether the goal holds, with the confidence that was asked for; None if these samples cannot tell.
    needed : int or None
        Samples that would show that it holds, where `holds` is None.
    looks : tuple of Look
        What was verified, in this order.
    curve : tuple of Point
        What was tried on the way, the cheapest first.
    """

    allocation: Allocation
    plan: Plan
    cells: float
    counted: Cells
    verified: Drop
    holds: bool | None
    needed: int | None
    looks: tuple[Look, ...]
    curve: tuple[Point, ...] = field(repr=False)

    @property
    def digital(self) -> bool:
        """Whether no tensor has analog cells."""
        return all(choice.candidate.scheme.analog == "none" for choice in self.allocation.choices.values())

    @property
    def given(self) -> bool:
        """Whether it is the plan that was given, tried as a whole."""
        return any(look.given and self.is_of(look) for look in self.looks)

    def is_of(self, look: Look) -> bool:
        """Return whether a look is at this plan."""
        return (look.cells, look.drop) == (self.cells, self.verified)
