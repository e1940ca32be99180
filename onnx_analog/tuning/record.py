"""What a plan says of how it was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onnx_analog.coding.verified import Verified
from onnx_analog.tuning.answers import Answer, Goal
from onnx_analog.tuning.measures import Measures
from onnx_analog.tuning.scale import DECIBELS, scale_of


def recorded(answer: Answer, measures: Measures, goal: Goal, facts: Mapping[str, Any]) -> Answer:
    """Return an answer whose plan says how it was verified.

    Parameters
    ----------
    answer : Answer
    measures : Measures
    goal : Goal
    facts : mapping of str to object
        Further entries of the record: what was searched for, in which files, and whether the samples are new.
    """
    parts = measures.parts
    verified = Verified(
        plan_sha256=answer.plan.stored_sha256(),
        cells_per_weight=answer.cells,
        metric=measures.chosen.metric.name,
        max_points_lost=goal.max_points_lost,
        min_sqnr_db=goal.min_sqnr_db,
        budget_cells_per_weight=goal.budget,
        holds=answer.holds,
        **_found(answer, measures.chosen.metric.name),
        trials=answer.verified.trials,
        compensated_by=answer.plan.compensated_by,
        corrected_by=measures.corrected_by,
        samples=sum(parts),
        parts=parts,
        **facts,
    )
    return replace(answer, plan=replace(answer.plan, verified=verified))


def _found(answer: Answer, metric: str) -> dict[str, Any]:
    """Return what was lost, and its interval if that is finite."""
    scale = scale_of(metric)
    name = "sqnr_db" if scale is DECIBELS else "points_lost"
    ends = [scale.number(end) for end in scale.ends(*answer.verified.interval())]
    return {name: scale.number(answer.verified.mean), f"{name}_ci95": None if None in ends else ends}
