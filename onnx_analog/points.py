"""Groups the points of a sweep for tables and plots, and describes them in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_analog.coding.scheme import PRESETS, STRATEGIES, Preset
from onnx_analog.run.metrics import METRICS
from onnx_analog.study import choosing
from onnx_analog.study.axes import value_text as setting_text
from onnx_analog.study.sweeps import Point


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The points that one table or plot compares: those of one model, channel and preset.

    Attributes
    ----------
    title : str
        The model, channel and preset of the points of the grid, as far as panels differ in them.
    planned_title : str
        The same of plans, which have no preset.
    gridded : tuple of Point
        Points of the grid.
    planned : tuple of Point
        Points of plans.
    """

    title: str
    planned_title: str
    gridded: tuple[Point, ...]
    planned: tuple[Point, ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """All points."""
        return self.gridded + self.planned


def is_planned(point: Point) -> bool:
    """Return whether a point was added as a plan, and not by the grid."""
    plan = point.setting.plan
    if plan.tensors or plan.patterns or plan.default is None:
        return True
    return point.strategy not in {*STRATEGIES, f"{plan.default.partition}-{plan.default.classes}"}


_IN_TITLE = {"granularity", "large_fraction"}  # settings in the title of a panel
_IN_NAME = {"partition", "classes"}  # settings in the name of a scheme that is not one of the paper's


def series(point: Point) -> str:
    """Return the name of the row or line that a point belongs to: its strategy and varied settings, or its plan."""
    if is_planned(point):
        return point.strategy
    shown = _IN_TITLE if point.strategy in STRATEGIES else _IN_TITLE | _IN_NAME
    varied = [
        f"{name} {setting_text(value)}"
        for name, value in point.setting.changes.items()
        if value is not None and name not in shown
    ]
    return ", ".join([point.strategy, *varied])


def panels(points: Sequence[Point]) -> list[Panel]:
    """Return the panels of a sweep, in the order of its points.

    A plan has no preset. If its model and channel have a single panel, it joins that panel; otherwise the plans of a
    model and channel have a panel of their own.
    """
    titles = _Titles(points)
    grid: dict[tuple[str, Preset], list[Point]] = {}
    plans: dict[str, list[Point]] = {}
    for point in points:
        if is_planned(point):
            plans.setdefault(titles.where(point), []).append(point)
        else:
            grid.setdefault((titles.where(point), point.setting.preset), []).append(point)
    result = []
    for (where, _), gridded in grid.items():
        alone = sum(other == where for other, _ in grid) == 1
        planned = plans.pop(where, []) if alone else []
        title = _joined(where, preset_title(*gridded))
        plan_title = _joined(where, "plans")
        result.append(Panel(title=title, planned_title=plan_title, gridded=tuple(gridded), planned=tuple(planned)))
    for where, group in plans.items():
        title = _joined(where, "plans")
        result.append(Panel(title=title, planned_title=title, gridded=(), planned=tuple(group)))
    return result


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


class _Titles:
    """Names the model and the channel of a point, as far as the points of a sweep differ in them."""

    def __init__(self, points: Sequence[Point]) -> None:
        channels = {point.setting.channels_digest: point.setting.channels_text for point in points}
        alike = Counter(channels.values())
        self._names = {
            digest: f"{name} ({digest[:8]})" if alike[name] > 1 else name for digest, name in channels.items()
        }
        self._models = len({point.model for point in points}) > 1

    def where(self, point: Point) -> str:
        """Return the model and the channel."""
        channel = f"channel {self._names[point.setting.channels_digest]}"
        return _joined(point.model * self._models, channel * (len(self._names) > 1))


def preset_title(*points: Point) -> str:
    """Return the preset of points: its granularity, the share of large weights if a point has some, and its name."""
    preset = points[0].setting.preset
    name = next((name for name, known in PRESETS.items() if known == preset), "")
    label = {"isik2020": " (as in the paper)", "": ""}.get(name, f" ({name})")
    parted = next((point for point in points if point.setting.large_fraction is not None), points[0])
    return f"granularity {preset.granularity}{parted.setting.large_text}{label}"


# --------------------------------------------------------------------------------------------- values and units


def mean_of(point: Point) -> float:
    """Return the mean over trials; NaN without trials."""
    return math.nan if point.evaluation.mean is None else point.evaluation.mean


def factor(point: Point) -> float:
    """Return the factor with which a metric is shown: shares are shown in %."""
    return 100.0 if point.evaluation.share else 1.0


def unit(points: Sequence[Point]) -> str:
    """Return the name of a metric and its unit."""
    if not points:
        return ""
    known = METRICS.get(points[0].evaluation.metric)
    symbol = "%" if points[0].evaluation.share else known.unit if known else ""
    return f"{label(points)}{f' in {symbol}' * bool(symbol)}"


def label(points: Sequence[Point]) -> str:
    """Return the name of a metric."""
    metric = points[0].evaluation.metric
    return METRICS[metric].label if metric in METRICS else metric


def noise_free_text(points: Sequence[Point]) -> str:
    """Return the values of the original and of the stored models, after commas; empty where none is known."""
    texts = [_range_text(name, points) for name in ("original", "stored")]
    return "".join(f", {text}" for text in texts if text)


def _range_text(name: str, points: Sequence[Point]) -> str:
    values = [factor(point) * value for point in points if (value := getattr(point.evaluation, name)) is not None]
    ends = dict.fromkeys(f"{end:.2f}" for end in (min(values), max(values))) if values else {}
    return f"{name} {' to '.join(ends)}" if ends else ""


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that are marked: none where it is not known which values of a metric are better."""
    higher = higher_is_better(points)
    return [] if higher is None else choosing.marked(points, higher_is_better=higher)


def higher_is_better(points: Sequence[Point]) -> bool | None:
    """Return whether higher values of the metric are better; None where it is not known."""
    return points[0].evaluation.higher_is_better if points else None
