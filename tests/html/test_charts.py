"""Charts of a report: no text lies over what is drawn, axes have enough labels, and lines are told apart."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from onnx_analog.html.charts import Line, Mark, losses
from onnx_analog.html.svg import drawing
from onnx_analog.plots import label_costs
from onnx_analog.study.rivals import RIVALS, family
from tests.packages import needs

pytestmark = needs("matplotlib")

FINEST = (1, 1.5, 2, 3, 5, 7)


def texts(svg):
    """Return the texts of a chart, with the place of each."""
    found = re.findall(r'<text[^>]* x="([-\d.]+)" y="([-\d.]+)"[^>]*>([^<]*)<', svg)
    return [(float(x), float(y), text) for x, y, text in found]


def over_the_panel(svg):
    """Return the texts that begin in a panel of a chart, whose marks are clipped to it."""
    panels = [
        tuple(map(float, panel))
        for panel in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" ?/>', svg)
    ]
    assert panels
    return [
        text
        for x, y, text in texts(svg)
        if any(left < x < left + width and top < y < top + height for left, top, width, height in panels)
    ]


def chart(lines, **more):
    return losses(lines, "caption", unit="points", **more).svg


def test_goal_and_rivals_are_named_beside_the_panel():
    svg = chart(
        [Line("this model", [Mark(4.0, 0.0, -2.0, 2.0)], joined=False)],
        goal=(2.0, "at most 2 points"), rivals={"int8": 8.178, "int4": 4.089},
    )  # fmt: skip
    assert over_the_panel(svg) == []
    assert {"at most 2 points", "int8: 8.18 cells", "int4: 4.09 cells"} <= {text for *_, text in texts(svg)}
    assert len(set(re.findall(r"stroke-dasharray: ([\d., ]+)", svg))) == 3  # the goal and both rivals


def test_text_over_a_panel_is_found():
    with drawing("wrong", height=2.0) as (_, (axis,), svg):
        axis.plot([0, 1], [0, 1])
        axis.text(0.5, 0.5, "here")
    assert over_the_panel(svg[0]) == ["here"]


def labels(low, high, finest=FINEST):
    """Return the costs that are labelled in view on an axis from `low` to `high`."""
    placed = {}
    axis = SimpleNamespace(
        set_major_locator=lambda locator: placed.update(at=locator()),
        set_major_formatter=lambda _: None,
        set_minor_locator=lambda _: None,
        set_minor_formatter=lambda _: None,
    )
    label_costs([SimpleNamespace(get_xlim=lambda: (low, high), xaxis=axis)], finest=finest)
    return [cost for cost in placed["at"] if low <= cost <= high]


@pytest.mark.parametrize("low", 10 ** np.linspace(-2, 2, 25))
@pytest.mark.parametrize("factor", [1.1, 3.0, 4.0, 10.0, 300.0])
def test_an_axis_of_cells_has_labels(low, factor):
    found = len(labels(low, factor * low))
    assert (3 if factor <= 10 else 2) <= found <= 7  # over more, few powers of ten may be all that is labelled


def test_the_axis_of_the_packaged_check_has_three_labels():
    assert labels(3.3, 9.9) == [4, 6, 8]


def dashed(svg):
    """Return colour and dashes of the lines that are dashed and in a colour, each once."""
    return set(re.findall(r"stroke-dasharray: ([\d., ]+); stroke-dashoffset: 0; stroke: var\(--(c\d)\)", svg))


def test_lines_beyond_the_colours_are_dashed():
    lines = [Line(f"plan {n}", [Mark(1.0 + n, n, n - 1.0, n + 1.0), Mark(2.0 + n, n, n, n)]) for n in range(20)]
    assert dashed(chart(lines[:6])) == set()
    assert len(dashed(chart(lines))) == 20 - 6


def test_rivals_of_one_kind_are_one_line():
    assert {family(name) for name in RIVALS} == {"rivals: entropy-coded", "rivals: integers"}
    assert family("tuned") == "tuned"
