"""Plots of sweeps and channels. They need matplotlib, the extra `report`."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from onnx_analog.channels import Channel, TableChannel
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.channels.table import Scale
from onnx_analog.coding.scheme import STRATEGIES
from onnx_analog.coding.streams import hardest
from onnx_analog.drawing import (
    BLACK,
    BLUE,
    DASHES,
    GREY,
    ORANGE,
    SMALL,
    VERMILION,
    import_matplotlib,
    in_style,
    look,
    new_figure,
    saver,
)
from onnx_analog.errors import OutputError
from onnx_analog.points import COUNTING, Panel, factor, front, label, mean_of, noise_free_text, panels, series, unit
from onnx_analog.randomness import stream
from onnx_analog.study import choosing
from onnx_analog.study.sweeps import Point

NO_PLOTS = "no plot: matplotlib is not installed (pip install 'onnx-analog[report]')"
_DRAWN = 5000  # measured pairs at most
_INPUTS = 20  # whose residuals are drawn at most
_TITLE_WIDTH = 52  # characters of a line of a panel's title
_CHARACTER = 0.082  # inches, on average, in a legend
_LEGEND_HANDLE = 8  # characters that the line before a name takes
_MOST_COLUMNS = 7  # of the legend
POINTS_INCHES = 4.3  # height of a panel
_LEAST_LOSS = 0.01  # percentage points: a logarithmic axis is linear below
_MOST_TICKS = 7
_FEWEST_TICKS = 3
_RING = "better than every cheaper point"
_LIMIT = "limit: fewest cells at this error"
_LOOKS: dict[str, dict[str, Any]] = {  # of strategies
    "raw": {"color": GREY, "marker": "o", "linestyle": ":"},
    "sign": {"color": VERMILION, "marker": "s", "linestyle": "--"},
    "mapping": {"color": ORANGE, "marker": "D", "linestyle": "-."},
    "redundancy": {"color": BLUE, "marker": "^", "linestyle": "-"},
}
_FURTHER, _PLANS = "v<>pPX", "*PXhp8"  # marks of lines that are no strategy's own, and of plans
_OF_DECODING = {"none": "o", "table": "s", "hard": "D", "soft": "^"}  # markers, where lines differ in their decoding

Value = Callable[[Point, float], float]  # of a point and a value of its metric: the vertical position


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def check_plot(path: Path) -> None:
    """Raise `OutputError` if matplotlib is not installed or cannot write this kind of file."""
    if not can_plot():
        raise OutputError(NO_PLOTS)
    import_matplotlib()
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind and kind not in kinds:
        raise OutputError(f"no plot can be drawn into a file of kind {kind!r}: choose from {', '.join(sorted(kinds))}")


@in_style
def plot_points(points: Sequence[Point], counting: str = "memory") -> Callable[[Path], None]:
    """Return a writer of the plot: loss against cost, with a panel for each model, channel and preset.

    For a metric that is a share, the vertical axis is the loss due to noise in percentage points. If losses differ by
    a factor of ten, the axis is logarithmic, except near zero. For any
    other metric, or if the value without noise is not known, the axis is the metric itself. A dotted line marks the
    original: the model without noise. Bars are 95 % intervals; rings mark the points that `choosing.marked` returns.

    Cells are counted as the memory allows, or with `counting="paper"` as the paper counts; so they are too if a point
    has no other count. Where lines differ in what decoding takes, their markers and the legend say so.

    Where the limit of a point is known, a thin line leads from the point to a tick at the fewest cells that any code
    needs. It is left out as the paper counts: some bits are free of error there, and no limit holds.
    """
    counting = choosing.counting_of(points, counting)
    parts = panels(points) or [Panel()]
    looks = styles(points, counting)
    figure, axes = new_figure(len(parts), height=POINTS_INCHES, shared=True)
    value = _loss if shows_loss(points) else _metric
    for axis, panel in zip(axes, parts, strict=True):
        for name in dict.fromkeys(map(series, panel.points)):
            of_line = [point for point in panel.points if series(point) == name]
            _curve(axis, of_line, value, looks[name], counting)
            if counting == "memory":
                _limits(axis, of_line, value, looks[name]["color"])
        _rings(axis, front(panel.points, counting), value, counting)
        _dress(axis, panel, value)
    if value is _loss:
        _loss_axis(axes, points)
    label_costs(axes)
    cells = f"cells per original weight, {COUNTING[counting]}"
    _name_axes(axes, cells, _lost_unit(points) if value is _loss else unit(points))
    legend_below(figure, axes)
    return saver(figure)


def styles(points: Sequence[Point], counting: str = "memory") -> dict[str, dict[str, Any]]:
    """Return colour, marker and dashes of each line, by its name: in grey, markers or dashes differ.

    A strategy keeps its look where it has one line; plans, and the lines of a strategy that has several, take further
    looks. Where lines differ in what decoding takes as the memory allows, markers and names say that, and dashes differ
    among lines of the same.
    """
    names = {series(point): point for point in points}
    lines = Counter(point.strategy for point in names.values())
    further, plans = count(), count()
    looks: dict[str, dict[str, Any]] = {}
    for name, point in names.items():
        if point.setting.planned:
            looks[name] = look(next(plans), _PLANS)
        elif point.strategy in _LOOKS and lines[point.strategy] == 1:
            looks[name] = dict(_LOOKS[point.strategy])
        else:
            looks[name] = look(next(further), _FURTHER)
    levels = _levels(points)
    if counting == "memory" and len(set(levels.values())) > 1:
        alike = Counter[str]()
        for name, level in levels.items():
            dashes = DASHES[alike[level] % len(DASHES)]
            looks[name] |= {"marker": _OF_DECODING[level], "linestyle": dashes, "label": f"{name} (decoding: {level})"}
            alike[level] += 1
    return looks


def _levels(points: Sequence[Point]) -> dict[str, str]:
    """Return what the decoding of each line takes, by its name: the most that one of its points does."""
    levels: dict[str, list[str]] = {}
    for point in points:
        levels.setdefault(series(point), []).append(point.decoding)
    return {name: hardest(each) for name, each in levels.items()}


def shows_loss(points: Sequence[Point]) -> bool:
    """Return whether the plot shows the loss due to noise: for shares of which more is better."""
    evaluations = [point.evaluation for point in points]
    return bool(points) and all(
        evaluation.share and evaluation.higher_is_better is True and evaluation.original is not None
        for evaluation in evaluations
    )


def _lost_unit(points: Sequence[Point]) -> str:
    return f"{label(points)} lost, in percentage points"


def _loss(point: Point, value: float) -> float:
    """Return the loss due to noise, in percentage points."""
    return 100 * ((point.evaluation.original or 0.0) - value)


def _metric(point: Point, value: float) -> float:
    """Return a value of the metric in the unit in which it is shown."""
    return factor(point) * value


def _curve(axis: Any, points: Sequence[Point], value: Value, style: dict[str, Any], counting: str) -> None:
    ordered = sorted((p for p in points if math.isfinite(mean_of(p))), key=lambda point: point.cost_in(counting) or 0.0)
    if not ordered:
        return
    x, y = [p.cost_in(counting) for p in ordered], [value(p, mean_of(p)) for p in ordered]
    ends = [_ends(p, value) for p in ordered]
    bars = [[max(middle - low, 0.0) for middle, (low, _) in zip(y, ends, strict=True)],
            [max(high - middle, 0.0) for middle, (_, high) in zip(y, ends, strict=True)]]  # fmt: skip
    size = 10 if ordered[0].setting.planned else 5
    axis.errorbar(x, y, yerr=bars, markersize=size, capsize=3, **{"label": series(ordered[0]), **style})


def _limits(axis: Any, points: Sequence[Point], value: Value, colour: str) -> None:
    """Draw a thin line from each point to its limit, where that is known and not 0, and a tick at its end."""
    for point in points:
        limit = 0.0 if point.evaluation.limit is None else point.evaluation.limit.cells_per_original_weight
        if limit > 0 and math.isfinite(mean_of(point)):
            x, y = [limit, point.cost_in("memory")], [value(point, mean_of(point))] * 2
            axis.plot(x, y, color=colour, linewidth=0.7, alpha=0.7, marker="|", markersize=9, markevery=[0], zorder=1)
            axis.plot([], [], color=GREY, linewidth=0.7, marker="|", markersize=9, label=_LIMIT)


def _ends(point: Point, value: Value) -> tuple[float, float]:
    """Return the lower and the upper end of a point's bar; both are the mean if there is no interval."""
    known = point.ci95 is not None and all(map(math.isfinite, point.ci95))
    ends = point.ci95 if known and point.ci95 is not None else (mean_of(point),) * 2
    low, high = sorted(value(point, end) for end in ends)
    return low, high


def _rings(axis: Any, marked: Sequence[Point], value: Value, counting: str) -> None:
    ring = {"s": 130, "facecolors": "none", "edgecolors": BLACK, "linewidths": 0.9, "zorder": 3}
    y = [value(point, mean_of(point)) for point in marked]
    axis.scatter([point.cost_in(counting) for point in marked], y, label=_RING if marked else None, **ring)


def _dress(axis: Any, panel: Panel, value: Value) -> None:
    """Give a panel its title, its grid, and a line at the value without noise."""
    lines = textwrap.wrap(panel.plot_title, _TITLE_WIDTH)
    clean_value = noise_free_text(panel.points).removeprefix(", ")
    if clean_value:
        lines.append(clean_value + " %" * bool(panel.points[0].evaluation.share))
    axis.set_title("\n".join(lines), parse_math=False)  # a name may hold dollars
    axis.set_xscale("log")
    clean = panel.points[0].evaluation.original if panel.points else None
    if clean is not None and math.isfinite(clean):
        y = value(panel.points[0], clean)
        axis.axhline(y, color=BLACK, linewidth=1, linestyle=":", label="original")


def _loss_axis(axes: Sequence[Any], points: Sequence[Point]) -> None:
    """Make the axis of the loss logarithmic, except near zero, if losses differ by a factor of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    losses = [_loss(point, mean_of(point)) for point in points if math.isfinite(mean_of(point))]
    sample = max(100 / max(point.evaluation.samples for point in points), _LEAST_LOSS)
    if not losses or max(losses) < 10 * max(sample, min(losses)):
        return
    threshold = max(sample, min(losses) / 3)
    for axis in axes:
        axis.set_yscale("symlog", linthresh=threshold, linscale=0.6)
        axis.autoscale_view(scalex=False)  # margins in the new scale
    steps = loss_steps(threshold, *axes[0].get_ylim())
    for axis in axes:
        axis.yaxis.set_major_locator(FixedLocator(steps))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_locator(NullLocator())


def loss_steps(threshold: float, low: float, high: float) -> list[float]:
    """Return 0 and the labelled losses: 1, 2 and 5 times powers of ten, or only powers of ten if those are too many."""
    powers = range(math.floor(math.log10(threshold)), math.ceil(math.log10(max(high, -low))) + 1)
    for digits in ((1, 2, 5), (1,)):
        sizes = [
            digit * 10.0**power for power in powers for digit in digits if digit * 10.0**power >= threshold * 0.999
        ]
        steps = [0.0, *(sign * size for sign in (1, -1) for size in sizes if low <= sign * size <= high)]
        if len(steps) <= _MOST_TICKS:
            break
    return steps


def label_costs(axes: Sequence[Any], finest: Sequence[float] = (1, 2, 5)) -> None:
    """Label costs at some digits times powers of ten; if too many, at powers of ten; if too few, at equal steps."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    low, high = axes[0].get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in (finest, (1, 2, 5)):
        costs = [digit * 10.0**power for power in powers for digit in digits]
        steps = [cost for cost in costs if low <= cost <= high]
        if len(steps) <= _MOST_TICKS:
            break
    else:
        steps = [cost for cost in steps if f"{cost:e}".startswith("1.")]
        steps = steps[:: math.ceil(len(steps) / _MOST_TICKS)]
    if len(steps) < (_FEWEST_TICKS if high < 10 * low else 2):
        steps = list(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high))  # 3 to 6 of them are in view
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


def legend_below(figure: Any, axes: Sequence[Any]) -> None:
    """Put one legend for all panels below them, in as many columns as fit, and make the figure higher by its height."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    names = sorted(handles, key=lambda name: name.partition(", ")[0] not in STRATEGIES)
    if not names:
        return
    width = math.floor(figure.get_figwidth() / _CHARACTER) - _LEGEND_HANDLE
    texts = ["\n".join(textwrap.wrap(name, width)) for name in names]
    for columns in range(min(len(names), _MOST_COLUMNS), 0, -1):
        legend = figure.legend(
            [handles[name] for name in names], texts, loc="outside lower center", ncols=columns
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)
        box = legend.get_window_extent(figure.canvas.get_renderer())
        if box.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)


@in_style
def plot_channel(channel: Channel, pairs: tuple[Any, Any] | None = None) -> Callable[[Path], None]:
    """Return a writer of the channel's plot: mean and σ, the inverse, φ at 1, 10 and 500 cells, and residuals.

    A measured channel is drawn in the units of its device, any other in levels, and only where φ is concerned. `pairs`,
    inputs and outputs on the scale of -1 to 1, are drawn too; of very many, some.
    """
    table = channel.measurements
    device = 0 if table is None else 2
    figure, axes = new_figure(device + 3 + bool(table and table.residuals), height=3.8)
    if table is not None:
        if pairs is not None:
            inputs, outputs = _some(*pairs)
            measured = table.input_scale.undo(inputs), table.output_scale.undo(outputs)
            axes[0].plot(*measured, ".", markersize=1, alpha=0.3, color=GREY, label="measured")
        _plot_device(axes[:2], table)
        if table.residuals:
            _plot_residuals(axes[-1], table)
    _plot_reads(axes[device : device + 3], channel)
    width = math.floor(figure.get_figwidth() / _CHARACTER) - 4
    figure.suptitle(textwrap.fill(f"{channel}: {channel.source}", width), fontsize=SMALL)
    return saver(figure)


def _some(x: Any, y: Any) -> tuple[Any, Any]:
    """Return at most `_DRAWN` of the pairs, taken at random, so that no input is missed systematically."""
    if x.size <= _DRAWN:
        return x, y
    chosen = stream(0, 0, "report", plane="pairs").choice(x.size, _DRAWN, replace=False)
    return x[chosen], y[chosen]


def _plot_device(axes: Any, channel: TableChannel) -> None:
    x, mean, std = (np.array(column) for column in (channel.inputs, channel.means, channel.stds))
    volts, ohms = channel.input_scale, channel.output_scale  # as an example
    axes[0].plot(volts.undo(x), ohms.undo(mean), color=VERMILION, label="mean μ")
    ends = ohms.undo(mean - std), ohms.undo(mean + std)
    axes[0].fill_between(volts.undo(x), *ends, alpha=0.25, color=VERMILION, label="μ ± σ")
    axes[0].set(title="channel C", xlabel=volts.named("input"), ylabel=ohms.named("read"), yscale=_axis_scale(ohms))
    axes[0].legend(markerscale=4)
    level = np.linspace(*channel.span, 800)
    axes[1].plot(ohms.undo(level), volts.undo(channel.inverse.input(level)), ".", markersize=2, color=BLUE)
    axes[1].set(title="inverse f = μ⁻¹ (least σ)", xlabel=ohms.named("mean read"), ylabel=volts.named("input"))
    axes[1].set(xscale=_axis_scale(ohms))


def _axis_scale(scale: Scale) -> str:
    return "log" if scale.log else "linear"


def _plot_reads(axes: Any, channel: Channel) -> None:
    """Draw reads of levels over the span, by the number of cells that are averaged."""
    scale = Scale(low=-1.0, high=1.0) if channel.measurements is None else channel.measurements.output_scale
    level = clip_to_range(np.linspace(*channel.span, 120).astype(np.float32), channel.span)
    stored, ends = scale.undo(level.astype(np.float64)), scale.undo(np.array(channel.span))
    for axis, cells in zip(axes, (1, 10, 500), strict=True):
        reads = np.stack([_reads(channel, value, cells, 25) for value in level]).astype(np.float64)
        axis.plot(np.repeat(stored, 25), scale.undo(reads.ravel()), ".", markersize=1.5, alpha=0.4, color=BLUE)
        axis.plot(ends, ends, color=BLACK, linewidth=0.8)
        axis.set(xscale=_axis_scale(scale), yscale=_axis_scale(scale), ylabel=scale.named("read"))
        axis.set(title=f"φ, {cells} cell{'s' * (cells > 1)}", ylim=axes[0].get_ylim())
        axis.set_xlabel(scale.named("level" if channel.measurements is None else "stored"))


def _plot_residuals(axis: Any, channel: TableChannel) -> None:
    """Draw quantiles of the measured residuals against those of the normal law, which is the line."""
    shown = np.unique(np.linspace(0, len(channel.residuals) - 1, _INPUTS).round().astype(int))
    for number in shown.tolist():
        name = "at one input" if number == shown[0] else None
        axis.plot(*_quantiles(np.array(channel.residuals[number])), color=GREY, alpha=0.5, linewidth=0.7, label=name)
    together = _quantiles(np.concatenate([np.array(row) for row in channel.residuals]))
    axis.plot(*_some(*together), ".", markersize=2, color=BLUE, label="of all inputs")
    ends = [together[0].min(), together[0].max()]
    axis.plot(ends, ends, "--", color=BLACK, linewidth=0.8, label="normal law")
    axis.set(title="measured residuals", xlabel="normal quantile, in σ", ylabel="residual, in σ")
    axis.legend(markerscale=2)


def _quantiles(residuals: Any) -> tuple[Any, Any]:
    """Return residuals (n,) in order, and before them the normal quantiles of their ranks."""
    shares = (np.arange(residuals.size) + 0.5) / residuals.size
    return scipy.special.ndtri(shares), np.sort(residuals)


def _reads(channel: Channel, level: Any, cells: int, count: int) -> Any:
    rng = stream(0, 0, "report", plane=f"{float(level):.9g}/{cells}")
    return channel.read(np.full(count, level, np.float32), cells=cells, rng=rng)
