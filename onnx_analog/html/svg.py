"""Figures of matplotlib as SVG for a page: text stays text, colours are the page's, the same figure is the same bytes.

Charts are drawn in the style of all plots, in colours that stand for those of the page; the page has them for light and
for dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree as ET

from onnx_analog.drawing import GREY, PALETTE, style

INK, GRID, PAGE = "#010203", "#040506", "#fdfcfb"
COLOURS = (*PALETTE, GREY)
_PAGE = {
    INK: "currentColor",
    GRID: "var(--grid)",
    PAGE: "var(--page)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(COLOURS)},
}
_STYLE = {
    "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "text.color": INK, "legend.labelcolor": INK, "grid.color": GRID,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.parse_math": False,  # a name may hold dollars
}  # fmt: skip
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_WIDTH = 5.2  # inches: text is then as large as that of the page, on a screen, and can be read on a phone
_LEFT_OUT = {"metadata", "style"}


@contextmanager
def drawing(name: str, *, height: float, down: int = 1) -> Iterator[tuple[Any, list[Any], list[str]]]:
    """Give a figure, its axes, and a list that holds its SVG after the body; `name` tells it from others of a page."""
    result: list[str] = []
    with style(**{**_STYLE, "svg.hashsalt": name}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure, list(figure.subplots(down, squeeze=False).flat), result
        result.append(_svg(figure, name))


def _svg(figure: Any, name: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    root = ET.fromstring(file.getvalue())  # noqa: S314 - matplotlib wrote it
    for parent in list(root.iter()):
        for child in [child for child in parent if _tag(child) in _LEFT_OUT]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _tag(element)
        element.attrib.update(_attributes(element, name))
        element.attrib.pop(f"{{{_XLINK}}}href", None)
    used = set(re.findall(r"#([\w-]+)", " ".join(value for each in root.iter() for value in each.attrib.values())))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("xmlns", _SVG)
    root.set("role", "img")
    return ET.tostring(root, encoding="unicode")


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _attributes(element: ET.Element, name: str) -> dict[str, str]:
    """Return the attributes that change: names that hold in the whole page, and colours and fonts of the page."""
    changed = {key: re.sub(r"url\(#", f"url(#{name}-", value) for key, value in element.attrib.items()}
    if "id" in changed:
        changed["id"] = f"{name}-{changed['id']}"
    link = changed.pop(f"{{{_XLINK}}}href", None)
    if link is not None:
        changed["href"] = f"#{name}-{link.removeprefix('#')}"
    if "style" in changed:
        style = re.sub(r"#[0-9a-f]{6}", lambda found: _PAGE.get(found[0], found[0]), changed["style"])
        changed["style"] = re.sub(r"font: (?:\w+ )*?([\d.]+px)[^;]*", r"font-size: \1", style)
    return changed
