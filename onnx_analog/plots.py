"""Plots of sweeps and channels. They need matplotlib, the extra `report`."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from onnx_analog.channels import Channel, TableChannel
from onnx_analog.channels.base import inside
from onnx_analog.coding.scheme import STRATEGIES
from onnx_analog.errors import OutputError
from onnx_analog.points import Panel, factor, front, is_planned, label, mean_of, noise_free_text, panels, series, unit
from onnx_analog.randomness import stream
from onnx_analog.study.sweeps import Point

NO_PLOTS = "no plot: matplotlib is not installed (pip install 'onnx-analog[report]')"
_DRAWN = 5000  # measured pairs at most
_TITLE_WIDTH = 46  # characters of a line of a panel's title
_LEGEND_INCHES = 0.8  # under the panels
_MOST_TICKS = 7
_RING = "better than every cheaper point"
_COLOURS = {"raw": "#8c8c8c", "sign": "#d1495b", "mapping": "#edae49", "redundancy": "#00798c"}
_FURTHER = (  # colours of plans, and of strategies that have several lines
    "#5e3c99", "#1b7837", "#a6611a", "#3288bd", "#c51b7d", "#7fbc41", "#4d4d4d", "#e66101", "#0571b0", "#762a83",
)  # fmt: skip
_MARKERS = "osD^v<>pPX"


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def _figure(panels: int, *, height: float, below: float = 0.0, shared: bool = False) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, each `height` inches high, in a roughly square grid with space `below`."""
    _matplotlib().use("Agg")
    from matplotlib import pyplot

    across = panels if panels <= 3 else math.ceil(math.sqrt(panels))
    down = math.ceil(panels / across)
    figure, axes = pyplot.subplots(
        down,
        across,
        figsize=(4.8 * across, height * down + below),
        layout="constrained",
        squeeze=False,
        sharex=shared,
        sharey=shared,
    )
    for axis in axes.flat[panels:]:
        axis.remove()
    return figure, list(axes.flat[:panels])


def _matplotlib() -> Any:
    """Import matplotlib (slow) from another folder, so that a `matplotlibrc` in the current folder has no effect."""
    if "matplotlib" not in sys.modules:
        with contextlib.chdir(os.sep):
            import matplotlib as mpl  # noqa: F401 - it looks for that file while it is imported
    return sys.modules["matplotlib"]


def _saver(figure: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        from matplotlib import pyplot

        try:
            figure.savefig(path, dpi=150, format=path.suffix.lstrip(".") or "png")
        finally:
            pyplot.close(figure)

    return save


def check_plot(path: Path) -> None:
    """Raise `OutputError` if matplotlib is not installed or cannot write this kind of file."""
    if not can_plot():
        raise OutputError(NO_PLOTS)
    _matplotlib()
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind and kind not in kinds:
        raise OutputError(f"no plot can be drawn into a file of kind {kind!r}: choose from {', '.join(sorted(kinds))}")


def plot_points(points: Sequence[Point]) -> Callable[[Path], None]:
    """Return a writer of the plot: loss against cost, with a panel for each model, channel and preset.

    For a metric that is a share, the vertical axis is the loss due to noise in percentage points, on a logarithmic
    scale; losses below its lower edge, and gains, are triangles on that edge. For any other metric, or if the value
    without noise is not known, it is the metric itself. Bars are 95 % intervals; rings mark the points that
    `choosing.marked` returns.
    """
    parts = panels(points) or [Panel(title="", gridded=())]
    looks = styles(points)
    figure, axes = _figure(len(parts), height=4.2, below=_legend_inches(len(looks)), shared=True)
    floor = _floor(points)
    for axis, panel in zip(axes, parts, strict=True):
        for name in dict.fromkeys(map(series, panel.points)):
            _curve(axis, [point for point in panel.points if series(point) == name], floor, looks[name])
        _rings(axis, front(panel.points), floor)
        _dress(axis, panel.points, panel.title, floor)
    if floor is not None:
        _loss_axis(axes, points, floor)
    _ticks(axes)
    _name_axes(axes, "all-in cells per original weight", _lost_unit(points) if floor else unit(points))
    _legend(figure, axes)
    return _saver(figure)


def styles(points: Sequence[Point]) -> dict[str, dict[str, Any]]:
    """Return the colour and the marker of each line, by its name.

    A strategy keeps its colour where it has one line; plans, and the lines of a strategy that has several, take further
    colours. Markers change where colours are used again.
    """
    names = {series(point): point for point in points}
    lines = {strategy: sum(point.strategy == strategy for point in names.values()) for strategy in STRATEGIES}
    further = cycle((colour, marker) for marker in _MARKERS for colour in _FURTHER)
    found = {}
    for name, point in names.items():
        own = lines.get(point.strategy) == 1
        colour, marker = (_COLOURS.get(point.strategy, "black"), "o") if own else next(further)
        found[name] = {"color": colour, "marker": "*" if is_planned(point) else marker}
    return found


def _legend_inches(lines: int) -> float:
    """Return the height of the legend under the panels."""
    return _LEGEND_INCHES + 0.2 * max(0, lines - len(STRATEGIES)) / 2


def _lost_unit(points: Sequence[Point]) -> str:
    return f"{label(points)} lost, in percentage points"


def _floor(points: Sequence[Point]) -> float | None:
    """Return the smallest loss shown, in percentage points: 1/20 of one sample; None to show the metric itself."""
    found = [point.evaluation for point in points]
    lossy = all(one.share and one.higher_is_better is True and one.original is not None for one in found)
    if not points or not lossy:
        return None
    return float(np.clip(5 / max(point.evaluation.samples for point in points), 0.005, 1))


def _shown_value(point: Point, value: float, floor: float | None) -> float:
    """Return the vertical position of a value of the metric."""
    if floor is None:
        return factor(point) * value
    lost = 100 * ((point.evaluation.original or 0.0) - value)
    return lost if math.isnan(lost) else max(lost, floor)


def _curve(axis: Any, points: Sequence[Point], floor: float | None, style: dict[str, Any]) -> None:
    ordered = sorted((p for p in points if math.isfinite(mean_of(p))), key=lambda point: point.cost)
    if not ordered:
        return
    x, y = [p.cost for p in ordered], [_shown_value(p, mean_of(p), floor) for p in ordered]
    ends = [_ends(p, floor) for p in ordered]
    bars = [[max(at - low, 0.0) for at, (low, _) in zip(y, ends, strict=True)],
            [max(high - at, 0.0) for at, (_, high) in zip(y, ends, strict=True)]]  # fmt: skip
    size = 10 if is_planned(ordered[0]) else 5
    axis.errorbar(x, y, yerr=bars, markersize=size, capsize=3, label=series(ordered[0]), **style)
    none = [place for place, at in enumerate(y) if floor is not None and at <= floor]
    if none:
        axis.plot([x[place] for place in none], [y[place] for place in none], "v", markersize=9, color=style["color"])


def _ends(point: Point, floor: float | None) -> tuple[float, float]:
    """Return the lower and the upper end of a point's bar; both are the mean if there is no interval."""
    known = point.ci95 is not None and all(map(math.isfinite, point.ci95))
    ends = point.ci95 if known and point.ci95 is not None else (mean_of(point),) * 2
    low, high = sorted(_shown_value(point, end, floor) for end in ends)
    return low, high


def _rings(axis: Any, front: Sequence[Point], floor: float | None) -> None:
    ring = {"s": 130, "facecolors": "none", "edgecolors": "black", "linewidths": 0.9, "zorder": 3}
    at = [_shown_value(point, mean_of(point), floor) for point in front]
    axis.scatter([point.cost for point in front], at, label=_RING if front else None, **ring)


def _dress(axis: Any, points: Sequence[Point], title: str, floor: float | None) -> None:
    lines = textwrap.wrap(title, _TITLE_WIDTH)
    if floor is not None:
        lines.append(noise_free_text(points).removeprefix(", "))
    axis.set_title("\n".join(lines), fontsize="medium")
    axis.set_xscale("log")
    axis.grid(alpha=0.3, which="both")
    if floor is None:
        _original_line(axis, points)


def _loss_axis(axes: Sequence[Any], points: Sequence[Point], floor: float) -> None:
    """Make the axis of the loss logarithmic, and shade its lower edge, where smaller losses lie."""
    from matplotlib.ticker import FuncFormatter

    ends = [low for low, _ in (_ends(point, floor) for point in points) if math.isfinite(low)]
    least = min(ends, default=floor)
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylim(least / 1.3, 130)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if least <= floor:
            axis.axhspan(floor / 1.3, floor * 1.3, color="black", alpha=0.06)
            axis.plot([], [], "v", color="black", label=f"loss below {floor:g}, or a gain")


def _original_line(axis: Any, points: Sequence[Point]) -> None:
    original = points[0].evaluation.original if points else None
    if original is not None and math.isfinite(original):
        axis.axhline(factor(points[0]) * original, color="black", linewidth=0.8, linestyle=":", label="original")


def _ticks(axes: Sequence[Any]) -> None:
    """Label costs at 1, 2 and 5 times powers of ten; if too many, at powers of ten; if too few, at equal steps."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    low, high = axes[0].get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    all_of = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    steps = [at for at in all_of if low <= at <= high]
    if len(steps) > _MOST_TICKS:
        steps = [at for at in steps if f"{at:e}".startswith("1.")]
        steps = steps[:: math.ceil(len(steps) / _MOST_TICKS)]
    if len(steps) < 2:
        steps = list(MaxNLocator(5).tick_values(low, high))
    for axis in axes:
        axis.xaxis.set_major_locator(FixedLocator(steps))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())


def _name_axes(axes: Sequence[Any], x: str, y: str) -> None:
    """Label the horizontal axis of the lowest panel of each column, and the vertical axis of the first of each row."""
    lowest = {axis.get_subplotspec().colspan.start: axis for axis in axes}
    for axis in lowest.values():
        axis.set_xlabel(x)
        axis.tick_params(labelbottom=True)
    for axis in axes:
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel(y)


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    """Put one legend for all panels below them."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    found = {name: found[name] for name in sorted(found, key=lambda name: name.partition(", ")[0] not in STRATEGIES)}
    across = 2 if figure.get_figwidth() < 8 else 7
    figure.legend(found.values(), found, loc="outside lower center", ncols=across, fontsize="small", frameon=False)


def plot_channel(channel: Channel, pairs: tuple[Any, Any] | None = None) -> Callable[[Path], None]:
    """Return a writer of the channel's plot: mean and σ, the inverse, and φ at 1, 10 and 500 cells.

    `pairs`, inputs and outputs on the scale of -1 to 1, are drawn too; of very many, some.
    """
    measurements = channel.measurements
    figure, axes = _figure(3 if measurements is None else 5, height=3.8)
    if measurements is not None:
        if pairs is not None:
            axes[0].plot(*_some(*pairs), ".", markersize=1, alpha=0.3, color="#8c8c8c", label="measured")
        _plot_device(axes[:2], measurements)
    low, high = channel.span
    level = inside(np.linspace(low, high, 120).astype(np.float32), channel.span)
    for axis, cells in zip(axes[-3:], (1, 10, 500), strict=True):
        reads = np.stack([_reads(channel, value, cells, 25) for value in level])
        axis.plot(np.repeat(level, 25), reads.ravel(), ".", markersize=1.5, alpha=0.4, color=_COLOURS["redundancy"])
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        axis.set(title=f"φ, {cells} cell{'s' * (cells > 1)}", xlabel="level", ylabel="read", ylim=axes[-3].get_ylim())
        axis.grid(alpha=0.3)
    line = round(_TITLE_WIDTH * figure.get_figwidth() / 3.6)
    figure.suptitle(textwrap.fill(f"{channel}: {channel.source}", line), fontsize="small")
    return _saver(figure)


def _some(x: Any, y: Any) -> tuple[Any, Any]:
    """Return at most `_DRAWN` of the pairs, taken at random, so that no input is missed systematically."""
    if x.size <= _DRAWN:
        return x, y
    chosen = stream(0, 0, "report", plane="pairs").choice(x.size, _DRAWN, replace=False)
    return x[chosen], y[chosen]


def _plot_device(axes: Any, channel: TableChannel) -> None:
    x, mean, std = (np.array(column) for column in (channel.inputs, channel.means, channel.stds))
    axes[0].plot(x, mean, color=_COLOURS["sign"], label="mean μ")
    axes[0].fill_between(x, mean - std, mean + std, alpha=0.25, color=_COLOURS["sign"], label="μ ± σ")
    axes[0].set(title="channel C", xlabel=f"input ({channel.input_scale.unit}, scaled)", ylabel="read")
    axes[0].legend(fontsize="small", markerscale=4)
    level = np.linspace(*channel.span, 800)
    axes[1].plot(level, channel.inverse.input(level), ".", markersize=2, color=_COLOURS["mapping"])
    axes[1].set(title="inverse f = μ⁻¹ (least σ)", xlabel="level", ylabel="input, scaled")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.locator_params(nbins=6)


def _reads(channel: Channel, level: Any, cells: int, count: int) -> Any:
    rng = stream(0, 0, "report", plane=f"{float(level):.9g}/{cells}")
    return channel.read(np.full(count, level, np.float32), cells=cells, rng=rng)
