"""The plot of where noise hurts. It needs matplotlib, the extra `report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_analog.plots import new_figure, saver

if TYPE_CHECKING:
    from onnx_analog.tuning.harm import Harm, Harms

_BAR, _FRAME = 0.24, 1.3  # inches
_MOST_BARS = 40
_COLOURS = {"tensor": "#0072B2", "class": "#E69F00", "stream": "#009E73"}  # Okabe and Ito 2008


def plot_harms(harms: Harms) -> Callable[[Path], None]:
    """Return a writer of the plot: the share of the divergence of each part, the worst tensors first.

    Of more than 40 parts, those are drawn whose share is the largest.
    """
    parts = harms.worst(_MOST_BARS)
    figure, (axis,) = new_figure(1, height=_FRAME + _BAR * len(parts))
    figure.set_figwidth(7.0)
    for place, harm in enumerate(parts):
        axis.barh(place, 100 * (harms.share(harm) or 0.0), color=_COLOURS[harm.part.kind])
        axis.annotate(_lost(harms, harm), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axis.set_yticks(range(len(parts)), [harm.part.label for harm in parts], fontsize=8, parse_math=False)
    axis.invert_yaxis()
    axis.set_xlabel("divergence of the outputs, % of that with noise in all cells")
    axis.set_title(harms.channel, parse_math=False)
    axis.annotate(harms.scale.heading, (1.01, 1.0), xycoords="axes fraction", va="bottom", fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    return saver(figure)


def _lost(harms: Harms, harm: Harm) -> Any:
    text, ends = harms.scale.text(harm.loss), harms.interval_text(harm)
    return f"{text} ({ends})" if ends else text
