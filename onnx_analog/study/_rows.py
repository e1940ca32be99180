"""Rows of a sweep: they are made of points and trials, and checked when they are read back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, NamedTuple

from onnx_analog.arguments import MOST_TRIALS
from onnx_analog.coding.scheme import GRANULARITIES, STRATEGIES
from onnx_analog.coding.streams import DECODING
from onnx_analog.graph.correction import Cost
from onnx_analog.graph.totals import Totals
from onnx_analog.run.trials import Trial
from onnx_analog.study.grid import GridPoint
from onnx_analog.study.run_folder import Row


def columns_of(model: str, setting: GridPoint) -> Row:
    """Return what tells a point from all others, as columns."""
    return {name: without_breaks(value) for name, value in {"model": model, **setting.columns()}.items()}


def without_breaks(value: Any) -> Any:
    """Return a value without line breaks, for a row of a CSV."""
    return " ".join(value.splitlines()) if isinstance(value, str) else value


RATIOS = (
    "r_avg",
    "stored_cells_per_stored_weight",
    "all_in_cells_per_original_weight",
    "honest_cells_per_original_weight",
)


@lru_cache(maxsize=4096)
def costs(totals: Totals) -> Row:
    """Return what a point costs, as columns."""
    ratios = totals.ratios()
    return {**{name: ratios[name] for name in RATIOS}, **asdict(totals)}


class PointFacts(NamedTuple):
    """What all rows of a point say of it: the values of the original and of the stored model, and the cost."""

    original: float | None
    stored: float | None
    totals: Totals
    correction: Cost | None = None


def row_of(columns: Row, facts: PointFacts, number: int, trial: Trial) -> Row:
    """Return the row of a trial."""
    numbers: Row = {"trial": number, "value": trial.value, "sqnr_db": trial.sqnr_db}
    if facts.correction is not None:
        numbers |= {"uncorrected": trial.uncorrected, "uncorrected_sqnr_db": trial.uncorrected_sqnr_db}
    of_point = {"original": facts.original, "stored": facts.stored, **costs(facts.totals)}
    return {**columns, **numbers, **of_point, **correction_columns(facts.correction)}


def correction_columns(cost: Cost | None) -> Row:
    """Return what a correction costs, as columns; none without one."""
    return {} if cost is None else {f"correction_{name}": value for name, value in cost._asdict().items()}


VARYING = ("trial", "value", "sqnr_db")  # columns that differ between rows of one point
UNCORRECTED = ("uncorrected", "uncorrected_sqnr_db")  # further ones of trials that are corrected
CORRECTION = tuple(correction_columns(Cost(0, 0)))
OF_POINT = ("original", "stored", *RATIOS, *Totals.__dataclass_fields__)  # and those that do not, beside its own


# ------------------------------------------------------------------------------------------------- rows, read back

_COUNT = re.compile(r"0|[1-9][0-9]{0,17}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?|inf)|nan")  # as Python writes it
_MOST_DB = 6400.0  # no two float64 numbers are further apart


def facts_of(row: Mapping[str, str]) -> PointFacts:
    """Return what a row of an earlier sweep says of its point.

    Raises
    ------
    ValueError
        If it says what no sweep writes.
    """
    _check_point(row)
    totals = _totals(row)
    _check_costs(row, totals)
    original, stored = (_number(name, row[name]) if row[name] else None for name in ("original", "stored"))
    counts = [_count(name, row[name]) for name in CORRECTION if name in row]
    return PointFacts(original, stored, totals, Cost(*counts) if counts else None)


def _totals(row: Mapping[str, str]) -> Totals:
    if row["decoding"] not in DECODING:
        raise ValueError(f"decoding is {row['decoding'][:40]!r}; it must be one of {', '.join(DECODING)}")
    names = Totals.__dataclass_fields__.keys() - {"decoding"}
    counts: dict[str, Any] = {name: _count(name, row[name]) for name in names if row[name] or name != "honest_cells"}
    return Totals(**{"honest_cells": None, **counts}, decoding=row["decoding"])


def trial_of(words: Sequence[str], *, share: bool) -> tuple[int, Trial]:
    """Return number and result of the trial of a row, from the words of `VARYING`, and of `UNCORRECTED` if it has them.

    Raises
    ------
    ValueError
        If it says what no sweep writes.
    """
    trial, value = _count("trial", words[0]), _value_of("value", words[1], share)
    sqnr_db = _decibels("sqnr_db", words[2])
    if trial >= MOST_TRIALS:
        raise ValueError(f"trial is {trial:,}; it must be below {MOST_TRIALS:,}")
    if len(words) == len(VARYING):
        return trial, Trial(value, sqnr_db)
    uncorrected = _value_of("uncorrected", words[3], share)
    return trial, Trial(value, sqnr_db, uncorrected, _decibels("uncorrected_sqnr_db", words[4]))


def _value_of(name: str, text: str, share: bool) -> float:
    value = _number(name, text)
    if share and not (0 <= value <= 1 or text == "nan"):
        raise ValueError(f"{name} is {text}; it must be from 0 to 1")
    return value


def _decibels(name: str, text: str) -> float:
    ratio = _number(name, text)
    if math.isfinite(ratio) and abs(ratio) > _MOST_DB:
        raise ValueError(f"{name} is {text}; it must be within ±{_MOST_DB:g} dB")
    return ratio


def _check_point(row: Mapping[str, str]) -> None:
    """Raise ValueError if a row is of a point that no grid can have."""
    if row["granularity"] not in GRANULARITIES:
        raise ValueError(f"granularity is {row['granularity'][:40]!r}; it must be one of {', '.join(GRANULARITIES)}")
    small, large = (_count(name, row[name]) for name in ("cells", "cells_large"))
    strategy = STRATEGIES.get(row["strategy"])
    if strategy is not None and (not small or not large or (large != small and not strategy.adaptive)):
        raise ValueError(f"cells_large is {large:,}, which strategy {row['strategy']} cannot have with cells {small:,}")
    fraction = _number("large_fraction", row["large_fraction"] or "0")  # empty: no share parts the weights
    if not 0 <= fraction <= 1:
        raise ValueError(f"large_fraction is {row['large_fraction']}; it must be from 0 to 1")
    if row["large_fraction"] not in ("", str(fraction), f"{fraction:g}"):
        raise ValueError(f"large_fraction is {row['large_fraction'][:40]!r}, which no sweep writes so")
    for name in ("channel_sha256", "plan_sha256"):
        if not _SHA256.fullmatch(row[name]):
            raise ValueError(f"{name} is {row[name][:40]!r}, which is not a SHA-256")


def check_cells(setting: GridPoint, totals: Totals) -> None:
    """Raise ValueError if the cells of a point's weights cannot be so many."""
    if setting.name not in STRATEGIES:
        return  # a plan may give each class and tensor cells of their own
    weights = totals.stored_weights * setting.channel.devices_per_cell
    ends = [each * weights for each in (setting.cells, setting.cells_large)]
    if not min(ends) <= totals.analog_cells <= max(ends):
        raise ValueError(f"analog_cells is {totals.analog_cells:,}; it must be from {min(ends):,} to {max(ends):,}")


def _check_costs(row: Mapping[str, str], totals: Totals) -> None:
    if not 0 < totals.stored_weights <= totals.original_weights:
        raise ValueError(
            f"stored_weights is {totals.stored_weights:,}; it must be from 1 to {totals.original_weights:,}, "
            "the number of original weights"
        )
    for name, value in costs(totals).items():
        if row[name] != ("" if value is None else str(value)):
            raise ValueError(f"{name} is {row[name]!r}, but the counts of cells give {value}")


def _count(name: str, text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}; it must be a whole number from 0")
    return int(text)


def _number(name: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}, which is not a number")
    number = float(text)
    if math.isinf(number) and not text.endswith("inf"):
        raise ValueError(f"{name} is {text[:40]!r}, which is beyond the range of numbers")
    return number


def alike(value: float | None, other: float | None) -> bool:
    """Return whether two values without noise are equal, but for the rounding of another machine."""
    if value is None or other is None:
        return value is other
    return math.isclose(value, other, rel_tol=1e-4, abs_tol=1e-9) or (math.isnan(value) and math.isnan(other))


def typed(row: Mapping[str, str], like: Row) -> Row:
    """Return a row that was read, with values of the types that `like` has."""
    return {name: _value(row[name], like[name]) for name in like}


def _value(text: str, like: Any) -> Any:
    """Return the value of a word of a row: None if it is empty, and a number where only the other value is unknown."""
    if not text:
        return None
    if like is None:
        return float(text) if _NUMBER.fullmatch(text) else text
    return type(like)(text)


def key_of(columns: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of a point as what it is looked up by: words, as in the CSV."""
    return tuple("" if value is None else str(value) for value in columns.values())
