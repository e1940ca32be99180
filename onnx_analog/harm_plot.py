"""The plot of where noise hurts. It needs matplotlib, the extra `report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_analog.arguments import PART_KINDS
from onnx_analog.display import percent_number
from onnx_analog.drawing import BLACK, BLUE, GREEN, ORANGE, SMALL, WHITE, import_matplotlib, in_style, saver

if TYPE_CHECKING:
    from onnx_analog.tuning.harm import Grid, Harm, Harms

_WIDTH, _BAR, _ROW, _FRAME = 7.0, 0.24, 0.28, 1.3  # inches
_MOST_BARS = 40
_COLOURS = {"tensor": BLUE, "class": ORANGE, "stream": GREEN}
_GRID = "Oranges"
_DARK = 0.6  # of the largest share: numbers are white above
OF_WHOLE = "divergence of the outputs, % of that with noise in all cells"


@in_style
def plot_harms(harms: Harms) -> Callable[[Path], None]:
    """Return a writer of the plot: the share of the divergence of each part, the worst first.

    Tensors, classes and streams are bars; those of single tensors are a map of tensors by classes or streams. Of more
    than 40 bars, or tensors of a map, those are drawn whose share is the largest. If what was read was corrected, a
    hollow bar is the share without the correction, and so is a map of its own.
    """
    bars = harms.worst(_MOST_BARS)
    grids = [(kind, *each) for kind in harms.kinds if "-" in kind for each in _grids(harms, kind)]
    heights = [_FRAME + _BAR * len(bars)] * bool(bars) + [_FRAME + _ROW * len(grid.tensors) for *_, grid in grids]
    figure, axes = _panels(heights)
    if bars:
        _draw_bars(axes[0], harms, bars)
    for axis, (kind, title, grid) in zip(axes[bool(bars) :], grids, strict=True):
        _draw_grid(axis, grid, f"{PART_KINDS[kind]}{title}: share of the divergence, %")
    axes[0].set_title(f"{harms.channel}\n{axes[0].get_title()}".strip(), parse_math=False)
    return saver(figure)


def _grids(harms: Harms, kind: str) -> list[tuple[str, Grid]]:
    """Return the maps of a kind and their titles: with and without the correction, if there is one."""
    without = harms.uncorrected
    if without is None:
        return [("", harms.grid(kind, _MOST_BARS))]
    return [(", corrected", harms.grid(kind, _MOST_BARS)), (", without correction", without.grid(kind, _MOST_BARS))]


def _panels(heights: list[float]) -> tuple[Any, list[Any]]:
    import_matplotlib().use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(_WIDTH, sum(heights)), height_ratios=heights, layout="constrained", squeeze=False
    )
    return figure, list(axes.flat)


def _draw_bars(axis: Any, harms: Harms, bars: list[Harm]) -> None:
    without = harms.uncorrected
    for place, harm in enumerate(bars):
        axis.barh(place, 100 * (harms.share(harm) or 0.0), color=_COLOURS[harm.part.kind])
        uncorrected = harm.without_correction
        if without is not None and uncorrected is not None:
            axis.barh(place, 100 * (without.share(uncorrected) or 0.0), facecolor="none", edgecolor=BLACK, lw=0.8)
        axis.annotate(
            _lost(harms, harm), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL
        )
    axis.set_yticks(range(len(bars)), [harm.part.label for harm in bars], fontsize=SMALL, parse_math=False)
    axis.set_ylim(len(bars) - 0.4, -0.6)  # the first is at the top
    axis.set_xlabel(f"{OF_WHOLE}{'; hollow: without correction' * (without is not None)}", fontsize=SMALL)
    axis.annotate(harms.scale.heading, (1.01, 1.0), xycoords="axes fraction", va="bottom", fontsize=SMALL)
    axis.grid(visible=False, axis="y")


def _draw_grid(axis: Any, grid: Grid, title: str) -> None:
    largest = float(np.nanmax(grid.shares, initial=0.0)) or 1.0
    axis.imshow(grid.shares, cmap=_GRID, vmin=0.0, vmax=largest, aspect="auto")
    for (row, column), share in np.ndenumerate(grid.shares):
        if np.isfinite(share):
            colour = WHITE if share > _DARK * largest else BLACK
            axis.text(column, row, percent_number(float(share)), ha="center", va="center", fontsize=SMALL, color=colour)
    axis.set_xticks(range(len(grid.names)), [_column(name) for name in grid.names], fontsize=SMALL)
    axis.set_yticks(range(len(grid.tensors)), grid.tensors, fontsize=SMALL, parse_math=False)
    axis.set_title(title)
    axis.grid(visible=False)


def _column(name: str) -> str:
    return f"class {name}" if name.isdigit() else name


def _lost(harms: Harms, harm: Harm) -> Any:
    text, ends = harms.scale.text(harm.loss), harms.interval_text(harm)
    return f"{text} ({ends})" if ends else text
