"""The plot of what `tune` found. It needs matplotlib, the extra `report`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_analog.drawing import BLACK, BLUE, VERMILION, WHITE, in_style, new_figure, saver
from onnx_analog.plots import POINTS_INCHES, label_costs, legend_below, loss_steps

if TYPE_CHECKING:
    from onnx_analog.tuning.answers import Answer
    from onnx_analog.tuning.drops import Drop
    from onnx_analog.tuning.result import Tuned
    from onnx_analog.tuning.scale import Scale

_LEAST_SPAN = 3.0  # of the axis of cells, from end to end
_TUNED_INCHES = 6.0  # width of the plot of a search
_OF_ANSWERS: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "*", "size": 14, "first": True},
    {"color": VERMILION, "marker": "D", "size": 8, "first": False},
    {"color": BLACK, "marker": "s", "size": 8, "first": False},
)


@in_style
def plot_tuned(tuned: Tuned) -> Callable[[Path], None]:
    """Return a writer of the plot of a search: what is lost against cells, of what was tried and of the answers.

    Bars are 95 % intervals. Large marks are verified on samples that nothing else has seen; where a plan with fewer
    cells was verified before, and did not do, its mark is hollow. Small marks are on the samples that are searched
    with. A dotted line is the most that may be lost. All text is beside the panel: inside, it would cover marks.
    """
    figure, (axis,) = new_figure(1, height=POINTS_INCHES)
    figure.set_figwidth(_TUNED_INCHES)
    axis.set_xscale("log")
    for (name, answer), style in zip(tuned.answers.items(), _OF_ANSWERS, strict=False):
        text = f"{name}: {answer.cells:.3g} cells, {tuned.scale.brief(answer.verified.mean)}"
        _draw_answer(axis, answer, {**style, "label": text}, tuned.scale)
    counted = "as the paper counts" if tuned.counting == "paper" else "as the memory allows"
    assumed = "\ncells rest on a soft-decision code that is assumed" * (tuned.decoding == "soft")
    axis.set_title(f"{tuned.metric}, {tuned.channel} (bars: 95 % intervals){assumed}", parse_math=False)
    axis.set(xlabel=f"cells per original weight, {counted}", ylabel=tuned.scale.axis)
    axis.margins(x=0.08, y=0.12)
    _widen(axis)
    losses = [point.drop.mean for answer in tuned.answers.values() for point in answer.curve]
    if tuned.goal.limit is not None:
        goal = f"goal: {tuned.scale.goal(tuned.goal.limit)}"
        axis.axhline(tuned.scale.value(tuned.goal.limit), color=BLACK, linestyle=":", linewidth=1, label=goal)
    if tuned.goal.max_drop is not None:  # decibels are logarithms already
        _bend(axis, 100 * max(losses), 100 * tuned.goal.max_drop)
    label_costs([axis], finest=(1, 1.5, 2, 3, 5, 7))
    legend_below(figure, [axis])
    return saver(figure)


def _widen(axis: Any) -> None:
    """Make a logarithmic axis of cells span a factor of `_LEAST_SPAN`, so that equal cells look equal."""
    low, high = axis.get_xlim()
    if high < _LEAST_SPAN * low:
        middle, half = math.sqrt(low * high), math.sqrt(_LEAST_SPAN)
        axis.set_xlim(middle / half, middle * half)


def _draw_answer(axis: Any, answer: Answer, style: dict[str, Any], scale: Scale) -> None:
    """Draw what was tried, then what was verified; the legend has each answer, and the other marks of the first."""
    first, colour = style["first"], style["color"]
    hollow, solid = {"markerfacecolor": WHITE}, {"markersize": style["size"], "linewidth": 1.8, "zorder": 4}
    tried = {"fmt": "o-", "color": colour, "markersize": 4, "elinewidth": 0.6, "alpha": 0.6, **hollow}
    _drops(
        axis,
        scale,
        [(point.cells, point.drop) for point in answer.curve],
        {**tried, "label": "tried" if first else None},
    )
    others = [(look.cells, look.drop) for look in answer.looks if not answer.is_of(look)]
    beside = {"fmt": style["marker"], "color": colour, "markersize": style["size"] / 2, "elinewidth": 0.9, **hollow}
    _drops(axis, scale, others, {**beside, "label": "also verified" if first else None})
    _drops(
        axis,
        scale,
        [(answer.cells, answer.verified)],
        {"fmt": style["marker"], "color": colour, **solid, "label": style["label"]},
    )


def _bend(axis: Any, largest: float, limit: float) -> None:
    """Make the axis of losses logarithmic above the limit if some are far above it."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if largest < 5 * limit:
        return
    axis.set_yscale("symlog", linthresh=2 * limit, linscale=1.2)
    axis.autoscale_view(scalex=False)
    low, high = axis.get_ylim()
    within = [limit * half / 2 for half in range(math.ceil(2 * low / limit), 5)]
    steps = [*within[-7:], *(step for step in loss_steps(limit, low, high) if step > 2.5 * limit)]
    axis.yaxis.set_major_locator(FixedLocator(steps))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _drops(axis: Any, scale: Scale, marks: Sequence[tuple[float, Drop]], style: dict[str, Any]) -> None:
    """Draw drops over cells, with their intervals."""
    if not marks:
        return
    means = [scale.value(drop.mean) for _, drop in marks]
    ends = [tuple(map(scale.value, scale.ends(*drop.interval()))) for _, drop in marks]
    below = [mean - low for mean, (low, _) in zip(means, ends, strict=True)]
    above = [high - mean for mean, (_, high) in zip(means, ends, strict=True)]
    axis.errorbar([cells for cells, _ in marks], means, yerr=(below, above), capsize=2, **{"linewidth": 1.2, **style})
