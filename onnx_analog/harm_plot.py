"""The plot of where noise hurts. It needs matplotlib, the extra `report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_analog.drawing import BLUE, GREEN, ORANGE, SMALL, in_style, new_figure, saver

if TYPE_CHECKING:
    from onnx_analog.tuning.harm import Harm, Harms

_BAR, _FRAME = 0.24, 1.3  # inches
_MOST_BARS = 40
_COLOURS = {"tensor": BLUE, "class": ORANGE, "stream": GREEN}


@in_style
def plot_harms(harms: Harms) -> Callable[[Path], None]:
    """Return a writer of the plot: the share of the divergence of each part, the worst tensors first.

    Of more than 40 parts, those are drawn whose share is the largest.
    """
    parts = harms.worst(_MOST_BARS)
    figure, (axis,) = new_figure(1, height=_FRAME + _BAR * len(parts))
    figure.set_figwidth(7.0)
    for place, harm in enumerate(parts):
        axis.barh(place, 100 * (harms.share(harm) or 0.0), color=_COLOURS[harm.part.kind])
        axis.annotate(
            _lost(harms, harm), (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL
        )
    axis.set_yticks(range(len(parts)), [harm.part.label for harm in parts], fontsize=SMALL, parse_math=False)
    axis.invert_yaxis()
    axis.set_xlabel("divergence of the outputs, % of that with noise in all cells")
    axis.set_title(harms.channel, parse_math=False)
    axis.annotate(harms.scale.heading, (1.01, 1.0), xycoords="axes fraction", va="bottom", fontsize=SMALL)
    axis.grid(visible=False, axis="y")
    return saver(figure)


def _lost(harms: Harms, harm: Harm) -> Any:
    text, ends = harms.scale.text(harm.loss), harms.interval_text(harm)
    return f"{text} ({ends})" if ends else text
