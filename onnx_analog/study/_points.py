"""Points of a sweep with their results, and the comparison of two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_analog.display import Shown, percent
from onnx_analog.graph.totals import Totals
from onnx_analog.run.evaluation import Evaluation, ends_of
from onnx_analog.run.read import reads_alike
from onnx_analog.run.statistics import interval
from onnx_analog.run.trials import Trial
from onnx_analog.study._rows import PointFacts, columns_of, correction_columns, costs, row_of
from onnx_analog.study.grid import GridPoint
from onnx_analog.study.run_folder import Row


@dataclass(frozen=True, kw_only=True, repr=False)
class Point(Shown):
    """One point of a grid, and what came of it.

    `ci95` holds the mean in at least 95 % of cases, however many looks at it decided on the number of trials;
    `uncorrected_ci95` is that of the same trials without correction, where there is one. Both are Student's intervals
    at `confidence`, which is above 95 % where there was more than one look.
    """

    model: str
    setting: GridPoint
    totals: Totals
    evaluation: Evaluation
    ci95: tuple[float, float] | None
    uncorrected_ci95: tuple[float, float] | None = None
    confidence: float = 0.95

    @property
    def strategy(self) -> str:
        """The name of its strategy, or of its plan."""
        return self.setting.strategy

    @property
    def cells(self) -> int:
        """Cells per weight; for `redundancy`, per small weight."""
        return self.setting.cells

    @property
    def alike(self) -> bool:
        """Whether all trials read the same, but for blocks of a code whose failure is very rare: one tells all."""
        return all(map(reads_alike, self.setting.plan.schemes))

    @property
    def cost(self) -> float:
        """All-in cells for each original weight, as the paper counts; with those of the correction, if there is one."""
        return self.totals.paper_per_weight(self._numbers, self.setting.plan.schemes)

    @property
    def honest_cost(self) -> float | None:
        """The same in the memory as it is; None where a channel is too noisy for a code."""
        return self.totals.honest_per_weight(self._numbers, self.setting.channel)

    @property
    def _numbers(self) -> int:
        """Numbers of the correction."""
        return 0 if self.evaluation.correction is None else self.evaluation.correction.numbers

    def cost_in(self, counting: str) -> float | None:
        """Return the cost in one of the two countings: "memory", as the memory allows, or "paper"."""
        return self.cost if counting == "paper" else self.honest_cost

    @property
    def decoding(self) -> str:
        """What decoding takes as the memory allows: one of `onnx_analog.coding.streams.DECODING`."""
        return self.totals.decoding

    def __str__(self) -> str:
        cost = f"{self.cost:.2f} all-in cells per weight"
        if self.honest_cost is not None:
            cost += f"; as the memory allows, {self.honest_cost:.2f}, decoding {self.decoding}"
        return f"{self.model}, {self.setting} ({cost}): {self.evaluation.summary(self.ci95)}"

    def _lines(self) -> Iterator[tuple[str, object]]:
        yield "model", self.model
        yield "channel", self.setting.channels_text
        yield "granularity", self.setting.preset.granularity
        if self.setting.large_fraction is not None:
            yield "share of large weights", f"{percent(self.setting.large_fraction, 2)}"
        yield "stored as", self.setting.stored_as
        yield "all-in cells per weight", f"{self.cost:.3f}"
        if self.honest_cost is not None:
            yield "the same, as the memory allows", f"{self.honest_cost:.3f} (decoding: {self.decoding})"
        yield self.evaluation.metric, self.evaluation.summary(self.ci95)

    def to_dict(self) -> dict[str, Any]:
        """Return the point with its trials, ready for JSON; numbers that JSON does not have are null."""
        evaluation = {**self.evaluation.to_dict(), "ci95": ends_of(self.ci95)}
        if self.evaluation.uncorrected_values:
            evaluation["uncorrected"] |= {"ci95": ends_of(self.uncorrected_ci95)}
        corrected = {} if self.evaluation.correction is None else self._corrected_costs()
        return {**columns_of(self.model, self.setting), **evaluation, **costs(self.totals), **corrected}

    def _corrected_costs(self) -> dict[str, float | None]:
        """Return the cells with those of the correction, as columns; those beside them leave the correction out."""
        counts = {"all_in": self.cost, "honest": self.honest_cost}
        return {f"{name}_cells_per_original_weight_with_correction": cells for name, cells in counts.items()}

    def row(self) -> Row:
        """Return the point as one row."""
        evaluation = self.evaluation
        low, high = self.ci95 or (None, None)
        numbers = {
            "trials": len(evaluation.values), "mean": evaluation.mean, "std": evaluation.std, "ci95_low": low,
            "ci95_high": high, "original": evaluation.original, "stored": evaluation.stored,
        }  # fmt: skip
        return {
            **columns_of(self.model, self.setting),
            **numbers,
            **self._uncorrected(),
            **costs(self.totals),
            **self._limit(),
        }

    def trial_rows(self) -> Iterator[Row]:
        """Yield a row for each trial, with the columns of trials.csv but for those that are the same in all rows."""
        evaluation = self.evaluation
        facts = PointFacts(evaluation.original, evaluation.stored, self.totals, evaluation.correction)
        columns = (
            evaluation.values,
            evaluation.sqnr_db or [math.nan] * len(evaluation.values),  # not measured
            *((evaluation.uncorrected_values, evaluation.uncorrected_sqnr_db) if evaluation.correction else ()),
        )
        for number, values in enumerate(zip(*columns, strict=True)):
            yield row_of(columns_of(self.model, self.setting), facts, number, Trial(*values))

    def _limit(self) -> Row:
        limit = self.evaluation.limit
        if limit is None:
            return {}
        return {"limit_cells_per_original_weight": limit.cells_per_original_weight, "against_limit": limit.factor}

    def _uncorrected(self) -> Row:
        without = self.evaluation.uncorrected
        if without is None:
            return {}
        low, high = self.uncorrected_ci95 or (None, None)
        change_low, change_high = self.evaluation.change_ci95 or (None, None)
        return {
            "uncorrected_mean": without.mean, "uncorrected_std": without.std, "uncorrected_ci95_low": low,
            "uncorrected_ci95_high": high, "change": self.evaluation.change, "change_ci95_low": change_low,
            "change_ci95_high": change_high, **correction_columns(self.evaluation.correction),
            **self._corrected_costs(),
        }  # fmt: skip


def paired(point: Point, other: Point) -> tuple[float, tuple[float, float] | None]:
    """Return the mean of `point` - `other` over the trials that both have, and its 95 % interval.

    Trials of one number share their noise, wherever two points store the same planes, so the difference is known
    better than either. The number of trials must not have been chosen by looking at it.
    """
    pairs = list(zip(point.evaluation.values, other.evaluation.values, strict=False))
    differences = [a - b for a, b in pairs]
    bounds = (-1.0, 1.0) if point.evaluation.share else None
    return (float(np.mean(differences)) if differences else float("nan")), interval(differences, bounds=bounds)
