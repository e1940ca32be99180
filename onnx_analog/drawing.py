"""The one style of all plots: colours, marks, dashes, sizes and grids. Drawing needs matplotlib, the extra `report`.

The colours have the hues of M. Okabe and K. Ito, Color Universal Design (2008, https://jfly.uni-koeln.de/color/), which
the colour-blind tell apart. Four of them are darker here, so that each stands out against white by a factor of 3, which
WCAG 2.2 asks of graphics (success criterion 1.4.11). In grey, lines differ by their marks, and by their dashes.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#c55200", "#059260", "#c878a8", "#d08000", "#329ed3"
GREY, BLACK, WHITE = "#7e7e7e", "#000000", "#ffffff"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # in the order in which lines take them
MARKERS = "osD^v<>pPX"
DASHES: tuple[Any, ...] = (
    "-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)), (0, (3, 1, 3, 3)),
)  # fmt: skip
SMALL = 8.5  # points: the smallest text
_PANEL_INCHES = 4.8  # width
_STYLE = {
    "font.size": 10.0, "axes.titlesize": 10.0, "axes.labelsize": 10.0, "legend.fontsize": 9.0, "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0, "legend.title_fontsize": 9.0, "figure.titlesize": 10.0,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#dddddd", "grid.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "legend.frameon": False,
    "lines.linewidth": 1.5, "lines.markersize": 5.0, "errorbar.capsize": 2.5,
    "figure.constrained_layout.use": True, "savefig.dpi": 150, "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def look(number: int, markers: str = MARKERS) -> dict[str, Any]:
    """Return colour, mark and dashes of the line of a number: in grey, lines have other marks or other dashes.

    >>> look(1)
    {'color': '#c55200', 'marker': 's', 'linestyle': '-'}
    """
    colours = (*PALETTE, GREY)  # seven, so that colours and marks recur together only late
    dashes = DASHES[number // len(markers) % len(DASHES)]
    return {"color": colours[number % len(colours)], "marker": markers[number % len(markers)], "linestyle": dashes}


def import_matplotlib() -> Any:
    """Import matplotlib (slow) from another folder, so that a `matplotlibrc` in the current folder has no effect."""
    if "matplotlib" not in sys.modules:
        with contextlib.chdir(os.sep):
            import matplotlib as mpl  # noqa: F401 - it looks for that file while it is imported
    return sys.modules["matplotlib"]


@contextlib.contextmanager
def style(**changes: Any) -> Iterator[Any]:
    """Draw in the style, whatever a user's own file says; yield matplotlib. `changes` are further `rcParams`."""
    matplotlib = import_matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        cycle = matplotlib.cycler(color=(*PALETTE, GREY))
        matplotlib.rcParams.update({**_STYLE, "axes.prop_cycle": cycle, **changes})
        yield matplotlib


def in_style(draw: F) -> F:
    """Let a function draw in the style."""

    @wraps(draw)
    def drawn(*arguments: Any, **options: Any) -> Any:
        with style():
            return draw(*arguments, **options)

    return drawn  # type: ignore[return-value]  # it takes and returns the same


def new_figure(panels: int, *, height: float, shared: bool = False) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, each `height` inches high, in a roughly square grid."""
    import_matplotlib().use("Agg")
    from matplotlib import pyplot

    across = panels if panels <= 3 else math.ceil(math.sqrt(panels))
    down = math.ceil(panels / across)
    size = (_PANEL_INCHES * across, height * down)
    figure, axes = pyplot.subplots(down, across, figsize=size, squeeze=False, sharex=shared, sharey=shared)
    for axis in axes.flat[panels:]:
        axis.remove()
    return figure, list(axes.flat[:panels])


def saver(figure: Any, **options: Any) -> Callable[[Path], None]:
    """Return a function that writes a figure into a file, and closes it; `options` are those of `savefig`."""

    def save(path: Path) -> None:
        from matplotlib import pyplot

        try:
            with style():
                figure.savefig(path, format=path.suffix.lstrip(".") or "png", **options)
        finally:
            pyplot.close(figure)

    return save
