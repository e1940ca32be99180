"""The charts of a report."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import percent_number
from onnx_analog.drawing import DASHES, GREY, MARKERS, PALETTE
from onnx_analog.errors import printable
from onnx_analog.html.page import Chart
from onnx_analog.html.svg import COLOURS, INK, PAGE, drawing
from onnx_analog.plots import label_costs, loss_steps

Doubles = NDArray[np.float64]

_LABEL = 24  # characters of a line of a label beside a bar
_LONGEST = 60  # of a name in a legend
_BAR = 0.34  # inches of height
_MARGIN = 1.3  # of the range of cells
_NARROWEST = 3.0  # of an axis of cells, from end to end
_CHARACTERS = 76  # of a row of a legend, whose fonts are those of the page
_HANDLE = 10  # characters as wide as what stands beside a name in a legend
_ROW = 0.2  # inches
_OF_RIVALS = (DASHES[1], DASHES[2], DASHES[4], DASHES[6])  # a dotted line is the goal
_MANY = 100  # counts from which on an axis is logarithmic


class Bar(NamedTuple):
    """A row of the chart of costs: a design, and its cells per original weight, part by part."""

    name: str
    parts: Mapping[str, float]


class Mark(NamedTuple):
    """A design in the chart of losses: its cells per original weight, its loss, and the ends of its interval."""

    cells: float
    value: float
    low: float
    high: float


class Line(NamedTuple):
    """Marks of one kind."""

    name: str
    marks: Sequence[Mark]
    joined: bool = True
    hollow: bool = False
    colour: int | None = None  # of the palette; each line has its own if it is not given


class Histogram(NamedTuple):
    """The number of values in each bin: of those written and, if known, of those read."""

    name: str
    edges: Doubles
    written: NDArray[np.int64]
    read: NDArray[np.int64] | None = None
    scale: str = "weight"


class Sigma(NamedTuple):
    """The σ of a channel over its levels, and the levels that are written to it, by class."""

    name: str
    level: Doubles
    sigma: Doubles
    edges: Doubles
    counts: Mapping[str, NDArray[np.int64]]


CODED = "bits, with their codes"  # of designs whose digital parts are known as a whole only
PARTS = ("levels", "side information", "mask", "codebook", "correction", CODED)
OTHER = "all cells"  # of designs whose parts are not known


def costs(bars: Sequence[Bar], caption: str, *, name: str = "costs", limit: float | None = None) -> Chart:
    """Return stacked bars of cells per original weight; a dotted line is the limit."""
    used = {part for bar in bars for part in bar.parts}
    colours = {**dict(zip(PARTS, COLOURS, strict=False)), OTHER: GREY}
    legend = [part for part in colours if part in used]
    below = _legend_height([*legend, *(["limit"] if limit else [])])
    with drawing(name, height=0.75 + _BAR * len(bars) + below) as (figure, (axis,), svg):
        for row, bar in enumerate(bars):
            start = 0.0
            for part, cells in bar.parts.items():
                look = {"color": colours[part], "edgecolor": PAGE, "linewidth": 0.6}
                axis.barh(row, cells, left=start, height=0.66, **look)
                start += cells
            axis.text(start, row, f" {start:.2f}", va="center", ha="left")
        for part in legend:
            axis.barh([0], [0], color=colours[part], label=part)
        if limit:
            axis.axvline(limit, color=INK, linestyle=":", linewidth=1.2, label="limit")
        axis.set_yticks(range(len(bars)), [_wrapped(bar.name) for bar in bars])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.tick_params(left=False)
        axis.margins(x=0.12, y=0.02)
        axis.set_xlabel("cells per original weight")
        _legend(figure, axis, [*legend, *(["limit"] if limit else [])])
    return Chart(svg=svg[0], caption=caption)


def shares(bars: Sequence[tuple[str, float]], caption: str) -> Chart:
    """Return bars of shares, in %."""
    with drawing("shares", height=0.75 + _BAR * len(bars)) as (_, (axis,), svg):
        for row, (_, share) in enumerate(bars):
            axis.barh(row, 100 * share, height=0.66, color=COLOURS[0])
            axis.text(100 * share, row, f" {percent_number(share)}", va="center", ha="left")
        axis.set_yticks(range(len(bars)), [_wrapped(name) for name, _ in bars])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.tick_params(left=False)
        axis.margins(x=0.12, y=0.02)
        axis.set_xlabel("%")
    return Chart(svg=svg[0], caption=caption)


def losses(
    lines: Sequence[Line],
    caption: str,
    *,
    name: str = "losses",
    unit: str,
    title: str = "",
    goal: tuple[float, str] | None = None,
    limits: Sequence[tuple[float, float, float]] = (),
    rivals: Mapping[str, float] | None = None,
    threshold: float | None = None,
) -> Chart:
    """Return a chart of losses over cells. All text is outside the panel: inside, it would cover marks and bars.

    Parameters
    ----------
    lines : sequence of Line
    caption : str
    name : str
        Of the chart, in its page.
    unit : str
        Of the losses.
    title : str
    goal : value and text, optional
        A dotted line, and its name.
    limits : sequence of (fewest cells, cells, loss)
        A thin line leads from a design to the fewest cells that any code needs.
    rivals : mapping of name to cells
        Designs whose loss is not known: vertical lines.
    threshold : float, optional
        Above it the axis of losses is logarithmic, if some are ten times as large.
    """
    shown = [line for line in lines if line.marks]
    extra = ["limit: fewest cells at this error"] if limits else []
    names = [*(_short(line.name) for line in shown), *extra, *itertools.starmap(_rival, (rivals or {}).items())]
    names += [] if goal is None else [goal[1]]
    with drawing(name, height=3.0 + _legend_height(names)) as (figure, (axis,), svg):
        axis.set_xscale("log")
        cells_shown = [mark.cells for line in shown for mark in line.marks]
        axis.set_xlim(_range([*cells_shown, *(fewest for fewest, *_ in limits), *(rivals or {}).values()]))
        for number, line in enumerate(shown):
            _draw(axis, line, number)
        for index, (fewest, cells, value) in enumerate(limits):
            label = extra[0] if index == 0 else None
            axis.plot(
                [fewest, cells],
                [value] * 2,
                color=GREY,
                linewidth=0.9,
                marker="|",
                markersize=9,
                markevery=[0],
                label=label,
            )
        for number, (rival, cells) in enumerate((rivals or {}).items()):
            dashes = _OF_RIVALS[number % len(_OF_RIVALS)]
            axis.axvline(cells, color=GREY, linestyle=dashes, linewidth=1.2, label=_rival(rival, cells))
        if goal is not None:
            axis.axhline(goal[0], color=INK, linestyle=":", linewidth=1.2, label=goal[1])
        axis.margins(y=0.15)
        _widen(axis, threshold)
        if threshold is not None:
            _bend(axis, [mark.value for line in shown for mark in line.marks], threshold)
        label_costs([axis], finest=(1, 1.5, 2, 3, 5, 7))
        axis.set_xlabel("cells per original weight")
        axis.set_ylabel(unit)
        if title:
            axis.set_title("\n".join(textwrap.wrap(printable(title), 70)))
        _legend(figure, axis, names)
    return Chart(svg=svg[0], caption=caption)


def _widen(axis: Any, least: float | None) -> None:
    """Give the axis of losses a span to look at where all are the same but for rounding."""
    low, high = axis.get_ylim()
    middle = (low + high) / 2
    least = 1e-6 * abs(middle) if least is None else least
    if high - low < least:
        axis.set_ylim(middle - least, middle + least)


def _rival(name: str, cells: float) -> str:
    return f"{_short(name)}: {cells:.3g} cells"


def _draw(axis: Any, line: Line, number: int) -> None:
    """Draw a line; where there are more lines than colours, the further ones are dashed and have hollow marks."""
    colour = PALETTE[(number if line.colour is None else line.colour) % len(PALETTE)]
    turn = number // len(PALETTE) if line.colour is None else 0
    marks = sorted(mark for mark in line.marks if math.isfinite(mark.value))
    below = [mark.value - mark.low if math.isfinite(mark.low) else 0.0 for mark in marks]
    above = [mark.high - mark.value if math.isfinite(mark.high) else 0.0 for mark in marks]
    axis.errorbar(
        [mark.cells for mark in marks], [mark.value for mark in marks],
        yerr=(np.maximum(below, 0), np.maximum(above, 0)),
        color=colour, marker=MARKERS[number % len(MARKERS)], markersize=5 if line.joined else 7, capsize=3,
        linestyle=DASHES[turn % len(DASHES)] if line.joined else "none",
        markerfacecolor=PAGE if line.hollow or turn % 2 else colour,
        label=_short(line.name),
    )  # fmt: skip


def _range(cells: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the axis of cells: it spans a factor of `_NARROWEST`, so that equal cells look equal."""
    low, high = min(cells), max(cells)
    middle, half = math.sqrt(low * high), math.sqrt(max(high / low * _MARGIN, _NARROWEST))
    return middle / half, middle * half


def _bend(axis: Any, values: Sequence[float], threshold: float) -> None:
    """Make the axis of losses logarithmic above a threshold, if some are ten times as large."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if max(filter(math.isfinite, values), default=0.0) < 10 * threshold:
        return
    axis.set_yscale("symlog", linthresh=threshold, linscale=0.6)
    axis.autoscale_view(scalex=False)
    axis.yaxis.set_major_locator(FixedLocator(loss_steps(threshold, *axis.get_ylim())))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def histograms(parts: Sequence[Histogram], caption: str, *, name: str = "weights") -> Chart:
    """Return a panel for each class: the weights as they were written, and as they are read."""
    with drawing(name, height=0.5 + 1.6 * len(parts), down=len(parts)) as (figure, axes, svg):
        for axis, part in zip(axes, parts, strict=True):
            axis.stairs(part.written, part.edges, fill=True, color=COLOURS[5], alpha=0.6, label="as written")
            if part.read is not None:
                axis.stairs(part.read, part.edges, color=COLOURS[1], linewidth=1.3, label="as read")
            _count_axis(axis, part.written)
            axis.set_title(printable(part.name), loc="left")
        axes[-1].set_xlabel("weight")
        _legend(figure, axes[0], ["as written", "as read"])
    return Chart(svg=svg[0], caption=caption)


def sigmas(parts: Sequence[Sigma], caption: str, *, name: str = "levels") -> Chart:
    """Return, for each channel, the levels that are written and, above them, the σ of one cell's read."""
    with drawing(name, height=0.5 + 2.9 * len(parts), down=2 * len(parts)) as (figure, axes, svg):
        for part, upper, lower in zip(parts, axes[::2], axes[1::2], strict=True):
            upper.plot(part.level, part.sigma, color=COLOURS[1], label="σ of one read")
            upper.set_title(_short(part.name), loc="left")
            upper.set_ylabel("σ")
            upper.set_ylim(bottom=0)
            upper.tick_params(labelbottom=False)
            for number, (of_class, counts) in enumerate(part.counts.items()):
                look = {"color": (COLOURS[0], *COLOURS[2:6])[number % 5], "label": of_class}
                lower.stairs(counts, part.edges, fill=True, alpha=0.6, **look)
            _count_axis(lower, sum(part.counts.values()))
            lower.set_xlabel("level")
            for axis in (upper, lower):
                axis.set_xlim(part.edges[0], part.edges[-1])
        _legend(figure, axes[1], list(parts[0].counts))
    return Chart(svg=svg[0], caption=caption)


def _count_axis(axis: Any, counts: Any) -> None:
    """Label an axis of counts; it is logarithmic where they differ much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if np.max(counts, initial=0) > _MANY:
        axis.set_yscale("log")
        axis.set_ylim(bottom=0.7)
        axis.yaxis.set_major_locator(LogLocator(numticks=4))
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.yaxis.set_major_formatter(FuncFormatter(_count))
    axis.set_ylabel("count")


def _count(value: float, _place: object = None) -> str:
    """Return a count in few characters.

    >>> _count(20000), _count(1.5e6), _count(7)
    ('20k', '1.5M', '7')
    """
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{sign}"
    return f"{value:g}"


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _wrapped(name: str) -> str:
    return "\n".join(textwrap.wrap(_short(name), _LABEL)[:2])


def _columns(names: Sequence[str]) -> int:
    longest = max((len(name) + _HANDLE for name in names), default=1)
    return max(1, min(len(names), _CHARACTERS // longest))


def _legend_height(names: Sequence[str]) -> float:
    return _ROW * math.ceil(len(names) / _columns(names)) if names else 0.0


def _legend(figure: Any, axis: Any, names: Sequence[str]) -> None:
    """Put the legend of an axis below the figure."""
    handles, texts = axis.get_legend_handles_labels()
    by_text = dict(zip(texts, handles, strict=True))
    order = [name for name in names if name in by_text]
    if order:
        figure.legend([by_text[name] for name in order], order, loc="outside lower center", ncols=_columns(order))
