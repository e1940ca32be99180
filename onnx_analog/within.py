"""The cheapest point of a sweep that loses no more than a limit, judged by intervals and never by a bare mean.

Losses are relative to the model without noise on the same samples. Intervals cover the spread over trials, for each
point alone. They do not cover the choice of samples; `check` allows for that, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_analog.display import Shown, counted, finite, rounded_up
from onnx_analog.errors import OptionError
from onnx_analog.points import COUNTING, factor, higher_is_better, label, name_of, places, preset_title
from onnx_analog.run.metrics import Chosen
from onnx_analog.study import choosing
from onnx_analog.study.sweeps import Point

NOTE = (
    "Losses are relative to the original on the same samples. Each 95 % interval covers the trials of one point; "
    "`check` also allows for the choice of samples"
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Within(Shown):
    """Which points of one model and channel lose no more than a limit, as far as their trials can tell.

    Attributes
    ----------
    where : str
        The model and the channel; each only if the points of the sweep differ in it.
    points : tuple of Point
        All points of the model and channel.
    max_drop : float
        The limit: in percentage points if the metric is a share, otherwise in its unit.
    counting : {"memory", "paper"}
        How cells are counted.
    point : Point or None
        The cheapest point that surely keeps the limit; None if there is none.
    undecided : tuple of Point
        The points cheaper than `point` whose trials do not decide: their interval contains the limit, or they have no
        interval. The cheapest comes first.
    """

    where: str
    points: tuple[Point, ...]
    max_drop: float
    counting: str
    point: Point | None
    undecided: tuple[Point, ...]

    @property
    def holds(self) -> bool | None:
        """Whether some point surely keeps the limit; None if the trials cannot tell."""
        return True if self.point is not None else None if self.undecided else False

    def to_dict(self) -> dict[str, Any]:
        """Return the answer, ready for JSON; losses are in the unit of `max_drop`."""
        return {
            "where": self.where,
            "max_drop": self.max_drop,
            "counting": self.counting,
            "holds": self.holds,
            "line": str(self),
            "point": None if self.point is None else self._entry(self.point),
            "undecided": [self._entry(point) for point in self.undecided],
        }

    def _entry(self, point: Point) -> dict[str, Any]:
        scale, ends = factor(point), choosing.loss_ends(point)
        low, high = (None, None) if ends is None else (scale * ends[0], scale * ends[1])
        loss = choosing.loss_of(point)
        return {
            "model": point.model,
            "channel": point.setting.channels_text,
            "strategy": point.strategy,
            "cells": point.cells,
            "stored_as": point.setting.stored_as,
            "lost": None if loss is None else finite(scale * loss),
            "lost_at_least": low,
            "lost_at_most": high,
            "trials": len(point.evaluation.values),
            "trials_needed": None if point is self.point else choosing.trials_needed(point, self._limit),
            "cells_per_weight": point.cost_in(self.counting),
            "decoding": point.decoding,
        }

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{where}{''.join(self._sentences())}"

    def _sentences(self) -> Iterator[str]:
        if self.point is not None:
            yield f"the cheapest that {self._goal} is {self._described(self.point)}"
            yield from (f"; {text}" for text in self._open("cheaper "))
        elif self.undecided:
            yield f"not known: no point surely {self._goal}"
            yield from (f". {text}" for text in self._open())
            yield ". Run more trials"
        else:
            yield f"no point {self._goal}"
            best = min(self.points, key=lambda point: choosing.loss_of(point) or 0.0, default=None)
            yield "" if best is None else f"; the smallest loss is that of {self._described(best)}"

    def _open(self, kind: str = "") -> Iterator[str]:
        """Say which points are not decided, by what was seen of them."""
        groups: dict[str, list[Point]] = {}
        for point in self.undecided:
            groups.setdefault(self._seen(point), []).append(point)
        for seen, group in groups.items():
            first = self._described(group[0], self._needed(group[0]))
            count = counted(len(group), f"{kind}point")
            yield f"{count} {seen}{': ' if len(group) == 1 else '; the cheapest is '}{first}"

    def _seen(self, point: Point) -> str:
        """Say what the trials of a point that is not decided have shown."""
        loss = choosing.loss_of(point)
        if loss is None or math.isnan(loss):
            return f"without {'a known loss' if point.evaluation.values else 'trials'}"
        kept = loss <= self._limit or math.isclose(loss, self._limit)
        return f"{'stayed within' if kept else 'exceeded'} the limit on average, which is not sure yet"

    def _needed(self, point: Point) -> str:
        """Say how many trials would decide; empty where that is not known."""
        count = choosing.trials_needed(point, self._limit)
        return "" if count is None else f"; about {rounded_up(count):,} trials in all would decide"

    @property
    def _limit(self) -> float:
        """The limit in the unit of the metric."""
        return self.max_drop / factor(self.points[0])

    @property
    def _goal(self) -> str:
        amount = f"{self.max_drop:g}"
        if not self.points[0].evaluation.share:
            return f"makes {label(self.points)} worse by at most {amount}"
        return f"loses at most {amount} percentage point{'s' * (amount != '1')}"

    def _described(self, point: Point, more: str = "") -> str:
        several = len({each.setting.preset for each in self.points if not each.setting.planned}) > 1
        preset = f", {preset_title(point)}" * (several and not point.setting.planned)
        cost = point.cost_in(self.counting)
        cells = f"{cost:.2f} cells per weight {COUNTING[self.counting]}"
        decoding = f", decoding {point.decoding}" * (self.counting == "memory")
        return f"{name_of(point)}{preset} ({_loss_text(point)}; {cells}{decoding}{more})"


def _loss_text(point: Point) -> str:
    loss, ends, scale = choosing.loss_of(point), choosing.loss_ends(point), factor(point)
    if loss is None:
        return "no trials"
    text, digits = ("{} lost", ".2f") if point.evaluation.share else ("worse by {}", ".4g")
    shown = text.format(f"{scale * loss:z{digits}}")
    if ends is not None and point.alike:
        return f"{shown} in every trial"
    shown += f" in {counted(len(point.evaluation.values), 'trial')}"
    if ends is None:
        return f"{shown}, no interval"
    return f"{shown}, 95 % interval {scale * ends[0]:z{digits}} to {scale * ends[1]:z{digits}}"


def within(points: Sequence[Point], max_drop: float, counting: str = "memory") -> tuple[Within, ...]:
    """Return, for each model and channel of a sweep, the cheapest point that loses no more than a limit.

    Parameters
    ----------
    points : sequence of Point
    max_drop : float
        In percentage points of a share, else in the unit of the metric.
    counting : {"memory", "paper"}
        If a point has no count as the memory allows, the paper's is taken for all of its model and channel.

    Raises
    ------
    OptionError
        If the points have no loss: their metric does not say which values are better, or compares with the original
        itself.
    """
    if points and higher_is_better(points) is None:
        raise _no_direction(points[0].evaluation.metric)
    return tuple(_within(where, group, max_drop, counting) for where, group in places(points).items())


def _within(where: str, points: Sequence[Point], max_drop: float, counting: str) -> Within:
    counting = choosing.counting_of(points, counting)
    limit = max_drop / factor(points[0])
    point, undecided = choosing.cheapest_within(points, limit, counting=counting)
    return Within(
        where=where,
        points=tuple(points),
        max_drop=max_drop,
        counting=counting,
        point=point,
        undecided=tuple(undecided),
    )


def check_drop(chosen: Chosen, max_drop: float | None) -> None:
    """Raise `OptionError` if a limit of the loss is given, and a metric has none."""
    metric = chosen.metric
    if max_drop is None:
        return
    if chosen.compares and not metric.share:
        raise OptionError(
            f"max_drop is given, and {metric.name} compares with the outputs of the original, so nothing is lost of "
            "it: give another metric"
        )
    if metric.higher_is_better is None:
        raise _no_direction(metric.name)


def _no_direction(metric: str) -> OptionError:
    return OptionError(
        f"max_drop is given, and the metric {metric!r} does not say which values are better: give lower_is_better, or "
        "set its attribute higher_is_better to True"
    )
