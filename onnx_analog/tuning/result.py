"""What `tune` found, for consoles, notebooks, JSON and tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onnx_analog.coding.limit import Limit
from onnx_analog.coding.plan import Plan
from onnx_analog.display import Shown, counted, data_frame
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.tuning.drops import Drop
from onnx_analog.tuning.search import Answer, Goal
from onnx_analog.tuning.sensitivity import Sensitivity


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
    original : float or None
        Of the original model, on the samples that verify; None where outputs are compared with its own.
    weights : int
        Original weights in the tensors that are stored.
    sizes : mapping of str to int
        Weights of each tensor, by storage key.
    best : Answer
    rival : Answer
        The best without analog cells, found in the same way.
    analog : Answer or None
        The best with analog cells in every tensor, in as many cells as the answer; None if that has analog cells, or
        there is none so cheap.
    limit : Limit or None
        The fewest cells that any code needs for the weights at the squared errors of the answer; None where errors
        are compensated, or a tensor has none.
    sensitivity : mapping of str to Sensitivity
    corrected : int
        float16 numbers of the correction that the reader keeps; 0 without one. Their cells are counted.
    confidence : float
        Of the verification, all its looks together.
    confidence_of_look : float
        Of the one-sided bound by which each look at the samples that verify is decided.
    protected : ProtectedModel
        The model as the plan stores it, with the compensation that was verified.
    """

    goal: Goal
    channel: str
    decoding: str
    counting: str
    metric: str
    original: float | None
    weights: int
    sizes: dict[str, int]
    best: Answer
    rival: Answer
    analog: Answer | None
    limit: Limit | None
    sensitivity: dict[str, Sensitivity]
    corrected: int
    confidence: float
    confidence_of_look: float
    protected: ProtectedModel

    @property
    def plan(self) -> Plan:
        """The plan that `protect` takes."""
        return self.best.plan

    @property
    def holds(self) -> bool | None:
        """Whether the goal holds with the stated confidence; None if the data cannot tell, or there is no such goal."""
        return self.best.holds

    def __str__(self) -> str:
        return f"{self.best.cells:.3f} cells per weight, {drop_text(self.best.verified)}: {self.verdict}"

    @property
    def verdict(self) -> str:
        """Whether the goal holds, in words."""
        if self.goal.max_drop is None:
            return f"within the budget of {self.goal.budget:g} cells per weight"
        points = f"{100 * self.goal.max_drop:g}"
        limit = "1 point is" if points == "1" else f"{points} points are"
        if self.holds:
            return f"at most {limit} lost, with {self.confidence:.0%} confidence"
        if self.holds is False:
            return f"more than {limit} lost, also with the most cells that were tried"
        needed = "" if self.best.needed is None else f"; {counted(self.best.needed, 'sample')} to verify with would do"
        return f"it is not decided whether more than {limit} lost{needed}"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each tensor: how it is stored, its cells and its part of the predicted divergence."""
        rows = []
        for key, choice in self.best.allocation.choices.items():
            size = self.sizes[key]
            rows.append(
                {
                    "tensor": key,
                    "weights": size,
                    "scheme": choice.candidate.scheme.summary(channel=False),
                    "cells_per_weight": choice.candidate.cells / size,
                    "relative_error": choice.candidate.error,
                    "sensitivity": self.sensitivity[key].mean,
                    "divergence": choice.loss,
                }
            )
        return rows

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame."""
        return data_frame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "channel": self.channel,
            "decoding": self.decoding,
            "counting": self.counting,
            "metric": self.metric,
            "max_drop": self.goal.max_drop,
            "budget": self.goal.budget,
            "confidence": self.confidence,
            "original": self.original,
            "weights": self.weights,
            "correction_numbers": self.corrected,
            "holds": self.holds,
            "verdict": self.verdict,
            "best": _answer_dict(self.best),
            "rival": _answer_dict(self.rival),
            "analog": None if self.analog is None else _answer_dict(self.analog),
            "limit_cells_per_weight": None if self.limit is None else self.limit.cells_per_original_weight,
            "against_limit": None if self.limit is None else self.limit.factor,
            "tensors": self.rows(),
            "plan": self.plan.to_dict(),
        }

    def _lines(self) -> Iterator[tuple[str, object]]:
        yield "cells per weight", f"{self.best.cells:.3f}"
        yield "lost", drop_text(self.best.verified)
        yield "verdict", self.verdict
        yield "best digital rival", f"{self.rival.cells:.3f} cells per weight, {drop_text(self.rival.verified)}"
        if self.analog is not None:
            yield "with analog cells", f"{self.analog.cells:.3f} cells per weight, {drop_text(self.analog.verified)}"
        if self.limit is not None:
            yield (
                "limit",
                f"{self.limit.cells_per_original_weight:.3f} cells per weight, a factor {self.limit.factor:.2f}",
            )
        yield "channel", self.channel
        yield "decoding takes at most", self.decoding


def drop_text(drop: Drop) -> str:
    """Return a drop in percentage points, and its 95 % interval."""
    low, high = drop.interval()
    return f"{100 * drop.mean:.2f} points lost ({100 * low:.2f} to {100 * high:.2f})"


def _answer_dict(answer: Answer) -> dict[str, Any]:
    return {
        "cells_per_weight": answer.cells,
        "predicted_divergence": answer.allocation.loss,
        "drop": _drop_dict(answer.verified),
        "holds": answer.holds,
        "samples_needed": answer.needed,
        "curve": [
            {"cells_per_weight": point.cells, "predicted_divergence": point.loss, "drop": _drop_dict(point.drop)}
            for point in answer.curve
        ],
    }


def _drop_dict(drop: Drop) -> dict[str, Any]:
    low, high = drop.interval()
    return {"mean": drop.mean, "ci95": [low, high], "samples": drop.samples, "trials": drop.trials}
