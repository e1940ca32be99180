"""What `tune` found, for consoles, notebooks, JSON and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from onnx_analog.coding.assumptions import SOFT_CODE, assumptions
from onnx_analog.coding.limit import Limit
from onnx_analog.coding.plan import Plan
from onnx_analog.display import Shown, counted, data_frame, finite, per_weight, percent_as_given, rounded_up
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.tuning.answers import Answer, Goal, Look, Point
from onnx_analog.tuning.candidates import takes
from onnx_analog.tuning.drops import Drop, samples_needed
from onnx_analog.tuning.parts import fewest
from onnx_analog.tuning.scale import DECIBELS, Scale, scale_of
from onnx_analog.tuning.sensitivity import Sensitivity


class Made(NamedTuple):
    """A function that returns a model which is there already."""

    model: ProtectedModel

    def __call__(self) -> ProtectedModel:
        """Return the model."""
        return self.model


@dataclass(frozen=True, kw_only=True, repr=False)
class Tuned(Shown):
    """The cheapest way to keep a network in a memory within a loss, beside the best digital rival.

    Attributes
    ----------
    goal : Goal
    channel : str
    decoding : str
        The most that decoding may take.
    counting : {"memory", "paper"}
        Of cells.
    metric : str
    classes : bool
        Whether outputs are compared by the divergence of classes, in nats for each sample; else by their squared error
        over their power.
    original : float or None
        Of the original model, on the samples that verify; None where outputs are compared with its own.
    weights : int
        Original weights in the tensors that are stored.
    sizes : mapping of str to int
        Weights of each tensor, by storage key.
    best : Answer
    rival : Answer or None
        The one without analog cells, found in the same way: the best only where its `holds` says that it is shown to
        keep the goal. None if there is none within the budget.
    analog : Answer or None
        The best with analog cells in every tensor, in as many cells as the answer; None if that has analog cells, or
        there is none so cheap.
    limit : Limit or None
        The fewest cells that any code needs for the weights at the squared errors of the answer; None where errors
        are compensated, or a tensor has none.
    sensitivity : mapping of str to Sensitivity
    correction_numbers : int
        float16 numbers of the correction that the reader keeps; 0 without one. Their cells are counted.
    confidence : float
        Of the verification, all its looks together.
    confidence_of_look : float
        Of the one-sided bound by which each look at the samples that verify is decided: the risk is shared by the
        searches for the answer and for its rival, and again with a plan that was given.
    protecting : function
        Returns the model as the plan stores it.
    seed : int or None
        Of the noise, and of the choice of samples; None where it is not known.
    preprocessing : str
        How the inputs were made, in words.
    warnings : tuple of str
        What was logged while it was made, and is to be known of it.
    seen_before : bool
        Whether another search with the same file, for another goal, has looked at the samples that verify.
    given_plan_was_tried : bool
        As a whole.
    given_plan_used_these_data : bool or None
        Whether the search for that plan used the same data, as far as its record tells; None if it does not tell.
    """

    goal: Goal
    channel: str
    decoding: str
    counting: str
    metric: str
    classes: bool
    original: float | None
    weights: int
    sizes: dict[str, int]
    best: Answer
    rival: Answer | None
    analog: Answer | None
    limit: Limit | None
    sensitivity: dict[str, Sensitivity]
    correction_numbers: int
    confidence: float
    confidence_of_look: float
    protecting: Callable[[], ProtectedModel] = field(compare=False)
    seed: int | None = None
    preprocessing: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    seen_before: bool = field(default=False, compare=False)
    given_plan_was_tried: bool = False
    given_plan_used_these_data: bool | None = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: the model in place of the function that makes it."""
        return {**vars(self), "protecting": Made(self.protected)}

    @cached_property
    def protected(self) -> ProtectedModel:
        """The model as the plan stores it, with the compensation that was verified."""
        return self.protecting()

    @property
    def plan(self) -> Plan:
        """The plan that `protect` takes."""
        return self.best.plan

    @property
    def holds(self) -> bool | None:
        """Whether the goal holds with the stated confidence; None if the data cannot tell, or there is no such goal."""
        return self.best.holds

    @property
    def undecided(self) -> bool:
        """Whether there is a largest loss, and the data cannot tell whether the plan keeps it."""
        return self.goal.limit is not None and self.best.holds is None

    @property
    def scale(self) -> Scale:
        """How losses are shown."""
        return scale_of(self.metric)

    @property
    def answers(self) -> dict[str, Answer]:
        """The plans that are compared, by what they are; the rival only if it is another plan than the best."""
        marks = _marks(digital=self.best.digital, given=self.best.given)
        named = {self._name("plan", self.best, marks): self.best}
        if self.rival is not None and not self.is_own_rival:
            named[self._name("digital rival", self.rival, _marks(given=self.rival.given))] = self.rival
        return named if self.analog is None else {**named, self._analog_name: self.analog}

    @property
    def _analog_name(self) -> str:
        """What the best plan with analog cells is called: it is the best in as many cells, whatever it loses."""
        return "with analog cells" if self.goal.limit is None else "with analog cells, goal not verified"

    def _name(self, kind: str, answer: Answer, marks: str) -> str:
        """Return what an answer is called: the best of its kind only where it is shown to be that."""
        return f"best {kind}{marks}" if self._is_shown(answer) else f"{kind}{marks}, {answer.held}"

    def _is_shown(self, answer: Answer) -> bool:
        """Return whether an answer is shown to keep the goal, or the goal is a budget, which it keeps."""
        return self.goal.limit is None or answer.holds is True

    @property
    def is_shown(self) -> bool:
        """Whether the answer is shown to keep the goal, or the goal is a budget, which it keeps."""
        return self._is_shown(self.best)

    def looks(self) -> Iterator[tuple[str, Look]]:
        """Yield what was verified, in this order, and what it is."""
        others = [] if self.rival is None or self.is_own_rival else [("digital rival", self.rival)]
        for kind, answer in [("plan", self.best), *others]:
            for look in answer.looks:
                best = "best " * (self._is_shown(answer) and answer.is_of(look))
                yield f"{best}{kind}{_marks(digital=look.digital and answer is self.best, given=look.given)}", look

    @property
    def verified_on(self) -> str:
        """The samples that verify, in words."""
        samples = counted(self.best.verified.samples, "sample")
        if self.seen_before:
            return f"{samples} that an earlier search for another goal has used"
        if self.given_plan_used_these_data is not False:
            has = "has" if self.given_plan_used_these_data else "may have"
            return f"{samples} of data that the search for the given plan {has} used"
        return f"{samples} that nothing else has seen"

    @property
    def is_own_rival(self) -> bool:
        """Whether the answer is the best digital plan itself."""
        return self.rival is not None and self.rival.plan == self.best.plan

    @property
    def against_rival(self) -> float | None:
        """Cells of the best digital rival for each cell of the answer; None if no rival is shown to keep the goal."""
        return self.rival.cells / self.best.cells if self.rival is not None and self._is_shown(self.rival) else None

    @property
    def comparison(self) -> str:
        """How the answer compares with the best digital rival, which decoding takes no more for either, in words."""
        if self.rival is None:
            return "no digital plan is within the budget" if self.goal.limit is None else "there is no digital rival"
        if self.is_own_rival:
            none = "" if self.analog else ", and no plan with analog cells in every tensor takes as few cells"
            this = "the best plan" if self.is_shown else "the plan"
            return f"{this} is itself digital, so it has no digital rival{none}"
        if self.goal.limit is None:
            return f"the best digital rival: {self.lost(self.rival.verified)}"
        if self.rival.holds:
            return f"the best digital rival takes {self.against_rival:.2f} times as many cells"
        found = "misses the goal" if self.rival.holds is False else "is not shown to keep the goal with these samples"
        shown = [look.cells for look in self.best.looks if look.digital and look.holds]
        other = f"one of {min(shown):.3f} is" if shown else "no other digital plan is"
        return f"a digital plan of {self.rival.cells:.3f} cells per weight {found}, and {other} shown to keep it"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the cells or losses of the answer, or of those beside it, rest on and nobody has built."""
        schemes = (scheme for answer in self.answers.values() for scheme in answer.plan.schemes)
        of_correction = (SOFT_CODE,) if self.decoding == "soft" else ()
        return tuple(dict.fromkeys((*assumptions(schemes), *of_correction)))

    @property
    def most_decoding(self) -> str:
        """The most that decoding may take; and, where a table may be, whether the plan needs none."""
        tables = self.decoding != "table" or any(takes(scheme) != "none" for scheme in self.plan.schemes)
        return self.decoding if tables else f"{self.decoding}; this plan needs no table"

    @property
    def correction_cells(self) -> float:
        """Cells that hold the numbers of the correction."""
        return self.best.counted.correction

    @property
    def samples_needed(self) -> int | None:
        """Samples in all that would show that the plan keeps the goal, if they lose as much.

        None if the samples decide, or if no number would do.
        """
        return None if self.best.needed is None else fewest(self.best.needed)

    @property
    def samples_for_more_cells(self) -> int | None:
        """Samples in all that would show it for the plan with the most cells that was tried; None as above."""
        limit, most = self.goal.limit, self.best.curve[-1]
        if limit is None or not self.undecided or most.cells <= self.best.cells:
            return None
        needed = samples_needed(most.drop, limit, self.confidence_of_look)
        return None if needed is None else fewest(needed)

    def __str__(self) -> str:
        assumed = " with an assumed soft-decision code" * (self.decoding == "soft")
        return f"{self.best.cells:.3f} cells per weight{assumed}, {self.lost(self.best.verified)}: {self.verdict}"

    def lost(self, drop: Drop) -> str:
        """Return a drop in words, and its 95 % interval."""
        return f"{self.scale.lost(drop.mean)} ({self.interval(drop)})"

    def interval(self, drop: Drop) -> str:
        """Return the 95 % interval of a drop."""
        return " to ".join(map(self.scale.text, self.scale.ends(*drop.interval())))

    @property
    def verdict(self) -> str:
        """Whether the goal holds, in words."""
        if self.goal.limit is None:
            return f"within the budget of {self.goal.budget:g} cells per weight"
        broken = self.scale.broken(self.goal.limit)
        if self.holds:
            return f"{self.scale.kept(self.goal.limit)}, with {percent_as_given(self.confidence)} confidence"
        if self.holds is False:
            return f"{broken} in every plan that was verified"
        undecided = f"these data do not decide whether {broken}"
        needed, more = self.samples_needed, self.samples_for_more_cells
        if more is not None and more <= fewest(self.best.verified.samples):
            this = "" if needed is None else f"{_about(needed)} samples in all would be enough, or "
            return f"{undecided}: {this}a plan with more cells (ask for a smaller limit)"
        if more is not None and (needed is None or more < needed):
            this = "" if needed is None else f", and {_about(needed)} for this one"
            return f"{undecided}: {_about(more)} samples in all would be enough for a plan with more cells{this}"
        if needed is not None:
            return f"{undecided}: {_about(needed)} samples in all would be enough, if they lose as much"
        found = self.scale.brief(self.best.verified.mean)
        return f"{undecided}: the {self.scale.mean} is {found}. Give more samples, or allow a larger loss"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each tensor: how it is stored, its cells and its part of the predicted divergence."""
        rows = []
        for key, choice in self.best.allocation.choices.items():
            size, cells = self.sizes[key], self.best.counted.tensors[key]
            rows.append(
                {
                    "tensor": key,
                    "weights": size,
                    "scheme": choice.candidate.scheme.summary(channel=False),
                    "cells": cells,
                    "cells_per_weight": cells / size,
                    "equivalent_noise": choice.candidate.error,
                    "sensitivity": self.sensitivity[key].mean,
                    "predicted_divergence": choice.loss,
                }
            )
        return rows

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame."""
        return data_frame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON; docs/tune.md lists the fields."""
        return {
            "channel": self.channel,
            "decoding": self.decoding,
            "counting": self.counting,
            "metric": self.metric,
            "divergence_in": "nats_per_sample" if self.classes else "power_of_outputs",
            "max_points_lost": self.goal.max_points_lost,
            "min_sqnr_db": self.goal.min_sqnr_db,
            "budget_cells_per_weight": self.goal.budget,
            "confidence": self.confidence,
            "confidence_of_look": self.confidence_of_look,
            "original": self.original,
            "weights": self.weights,
            "correction_numbers": self.correction_numbers,
            "correction_cells": self.correction_cells,
            "holds": self.holds,
            "verdict": self.verdict,
            "samples_needed": self.samples_needed,
            "samples_for_more_cells": self.samples_for_more_cells,
            "best": self._answer_dict(self.best),
            "rival": None if self.rival is None else self._answer_dict(self.rival),
            "analog": None if self.analog is None else self._answer_dict(self.analog),
            "against_rival": self.against_rival,
            "comparison": self.comparison,
            "assumptions": list(self.assumptions),
            "limit_cells_per_weight": None if self.limit is None else self.limit.cells_per_original_weight,
            "against_limit": None if self.limit is None else self.limit.factor,
            "preprocessing": self.preprocessing,
            "warnings": list(self.warnings),
            "samples_seen_before": self.seen_before or self.given_plan_used_these_data is not False,
            "tensors": self.rows(),
            "plan": self.plan.to_dict(),
        }

    def _answer_dict(self, answer: Answer) -> dict[str, Any]:
        return {
            "cells_per_weight": answer.cells,
            "digital": answer.digital,
            "predicted_divergence": answer.allocation.loss,
            **self._drop_dict(answer.verified),
            "holds": answer.holds,
            "looks": [self._look_dict(look) for look in answer.looks],
            "curve": [self._point_dict(point) for point in answer.curve],
        }

    def _look_dict(self, look: Look) -> dict[str, Any]:
        confidence = self.confidence_of_look
        ends = self.scale.ends(look.drop.lower(confidence), look.drop.upper(confidence))
        bounds = {name: self.scale.number(end) for name, end in zip(("at_least", "at_most"), ends, strict=True)}
        body = {"cells_per_weight": look.cells, "digital": look.digital, "given": look.given}
        return {**body, **self._drop_dict(look.drop), **bounds, "holds": look.holds}

    def _point_dict(self, point: Point) -> dict[str, Any]:
        return {
            "cells_per_weight": point.cells,
            "given": point.given,
            "rounding": point.rounding,
            "predicted_divergence": point.loss,
            **self._drop_dict(point.drop),
        }

    def _drop_dict(self, drop: Drop) -> dict[str, Any]:
        name = "sqnr_db" if self.scale is DECIBELS else "points_lost"
        return {
            "divergence": finite(drop.divergence),
            name: self.scale.number(drop.mean),
            f"{name}_ci95": [self.scale.number(end) for end in self.scale.ends(*drop.interval())],
            "samples": drop.samples,
            "trials": drop.trials,
        }

    def _lines(self) -> Iterator[tuple[str, object]]:
        yield "cells per weight", f"{self.best.cells:.3f}"
        yield self.scale.heading.partition(",")[0] if self.scale is DECIBELS else "lost", self.lost(self.best.verified)
        yield "verdict", self.verdict
        yield "digital rival", self.comparison
        for name, answer in [*self.answers.items()][1:]:
            yield name, f"{answer.cells:.3f} cells per weight, {self.lost(answer.verified)}"
        if self.limit is not None:
            counted = ", as the memory allows" * (self.counting != "memory")
            known = self.limit.factor
            above = "" if known is None else f"; the plan takes {known:.2f} times as many{counted}"
            yield "limit", f"{per_weight(self.limit.cells_per_original_weight)} cells per weight{above}"
        yield "channel", self.channel
        yield "decoding takes at most", self.most_decoding
        for text in self.assumptions:
            yield "assumed", text


def _marks(**marks: bool) -> str:
    """Return what a plan is, after its name."""
    known = [name for name, holds in marks.items() if holds]
    return f" ({', '.join(known)})" if known else ""


def _about(count: int) -> str:
    return f"about {rounded_up(count):,}"
