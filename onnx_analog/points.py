"""Groups the points of a sweep for tables and plots, and describes them in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnx_analog.coding.scheme import PRESETS, STRATEGIES, Preset
from onnx_analog.display import counted, percent
from onnx_analog.run.metrics import METRICS
from onnx_analog.study import choosing
from onnx_analog.study.axes import value_text as setting_text
from onnx_analog.study.rivals import RIVALS
from onnx_analog.study.sweeps import Point


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The points that one table or plot compares: those of one model, channel and preset.

    Attributes
    ----------
    where : str
        The model and the channel, as far as panels differ in them.
    gridded : tuple of Point
        Points of the grid.
    planned : tuple of Point
        Points of plans.
    """

    where: str = ""
    gridded: tuple[Point, ...] = ()
    planned: tuple[Point, ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """All points."""
        return self.gridded + self.planned

    @property
    def title(self) -> str:
        """What holds for all points of the grid, if there are any: model, channel and preset."""
        if not self.gridded:
            return self.planned_title
        return _joined(self.where, preset_title(*self.gridded))

    @property
    def planned_title(self) -> str:
        """What holds for all points of plans, which have no preset: model and channel."""
        return _joined(self.where, "plans")

    @property
    def plot_title(self) -> str:
        """What holds for all points."""
        return _joined(self.where, scheme_title(self.points)) if self.gridded and self.planned else self.title


_IN_TITLE = {"granularity", "large_fraction"}  # settings in the title of a panel
_IN_NAME = {"partition", "classes", "integers"}  # settings in the name of a scheme that is not one of the paper's


def series(point: Point) -> str:
    """Return the name of the row or line that a point belongs to: its strategy and varied settings, or its plan."""
    if point.setting.planned:
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
        if point.setting.planned:
            plans.setdefault(titles.where(point), []).append(point)
        else:
            grid.setdefault((titles.where(point), point.setting.preset), []).append(point)
    result = []
    for (where, _), gridded in grid.items():
        alone = sum(other == where for other, _ in grid) == 1
        planned = plans.pop(where, []) if alone else []
        result.append(Panel(where=where, gridded=tuple(gridded), planned=tuple(planned)))
    return result + [Panel(where=where, planned=tuple(group)) for where, group in plans.items()]


def places(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Return the points of each model and channel, by what tells these from others: nothing, if there is one."""
    titles = _Titles(points)
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(titles.where(point), []).append(point)
    return groups


def name_of(point: Point) -> str:
    """Return a point in a few words: its row, and its cells; a plan of the user's own, which may have any name, quoted.

    Plans in a sentence are told from other words so: the cheapest may be the plan 'none'.
    """
    if not point.setting.planned:
        return f"{series(point)} in {counted(point.cells, 'cell')}"
    return point.strategy if point.strategy in RIVALS else f"plan {point.strategy!r}"


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


class _Titles:
    """Names the model and the channel of a point, as far as the points of a sweep differ in them."""

    def __init__(self, points: Sequence[Point]) -> None:
        settings = [point.setting for point in points]
        channels = {setting.channels_digest: setting.channels_text for setting in settings}
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
    """Return the preset of points: what holds for all of them, and its name."""
    preset = points[0].setting.preset
    name = next((name for name, known in PRESETS.items() if known == preset), "")
    label = {"isik2020": " (as in the paper)", "": ""}.get(name, f" ({name})")
    return f"{scheme_title(points)}{label}"


def scheme_title(points: Iterable[Point]) -> str:
    """Return the granularity and the share of large weights of points, each where it is the same at all of them.

    Schemes of one class have no large weights, and do not count for the share.
    """
    schemes = [scheme for point in points for scheme in point.setting.plan.schemes]
    granularities = {scheme.granularity for scheme in schemes}
    shares = {f"{percent(math.fsum(scheme.shares), 2)} large" for scheme in schemes if scheme.shares}
    parted = all(scheme.shares for scheme in schemes if scheme.classes > 1)
    granularity = f"granularity {granularities.pop()}" if len(granularities) == 1 else ""
    return _joined(granularity, shares.pop() if parted and len(shares) == 1 else "")


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


def front(points: Sequence[Point], counting: str = "memory") -> list[Point]:
    """Return the points that are marked: none where it is not known which values of a metric are better."""
    higher = higher_is_better(points)
    return [] if higher is None else choosing.marked(points, higher_is_better=higher, counting=counting)


COUNTING = {"memory": "as the memory allows", "paper": "as the paper counts"}  # in words


def costs_text(point: Point) -> str:
    """Return the cells per original weight in both countings; the second is a dash where there is none."""
    honest = "–" if point.honest_cost is None else f"{point.honest_cost:.2f}"
    return f"{point.cost:.2f} / {honest}"


def higher_is_better(points: Sequence[Point]) -> bool | None:
    """Return whether higher values of the metric are better; None where it is not known."""
    return points[0].evaluation.higher_is_better if points else None
