"""The style of all plots: its colours can be told apart, in grey too, and every plot has it."""

from __future__ import annotations

import itertools
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_analog as oa
from onnx_analog import channels, harm_plot, plots, tuned_plot
from onnx_analog.drawing import BLACK, DASHES, GREY, MARKERS, PALETTE, SMALL, WHITE, look, style
from onnx_analog.html.svg import COLOURS
from onnx_analog.tuning import candidates
from tests.conftest import ROOT
from tests.models import proto
from tests.packages import imported
from tests.run.nets import LINEAR, rows

matplotlib = imported("matplotlib")

LEAST_CONTRAST = 3.0  # WCAG 2.2, success criterion 1.4.11
# CIE 1976 differences of about 2.3 are just noticed (Mahy, Van Eycken and Oosterlinck 1994); five times that is asked.
LEAST_DIFFERENCE = 5 * 2.3
# Machado, Oliveira and Fernandes, A physiologically-based model for simulation of color vision deficiency, IEEE TVCG 15
# (2009): severity 1.0, on linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1, D65


def linear(colour: str) -> Any:
    """Return the linear RGB of a colour (IEC 61966-2-1)."""
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def difference(one: str, other: str, vision: str) -> float:
    """Return the difference of two colours in CIELAB (CIE 1976), as eyes of a kind see them."""
    return float(np.linalg.norm(lab(one, vision) - lab(other, vision)))


def lab(colour: str, vision: str) -> Any:
    seen = np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1)
    share = (TO_XYZ @ seen) / (TO_XYZ @ np.ones(3))
    x, y, z = np.where(share > (6 / 29) ** 3, np.cbrt(share), share * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def faults_of(colours: list[str], page: str) -> list[str]:
    """Return which colours are hard to see on a page, or to tell apart."""
    found = [f"{each} on {page}" for each in colours if contrast(each, page) < LEAST_CONTRAST]
    pairs = itertools.product(itertools.combinations(colours, 2), VISION)
    alike = [(*pair, vision) for pair, vision in pairs if difference(*pair, vision) < LEAST_DIFFERENCE]
    return found + [f"{one} and {other}: {vision}" for one, other, vision in alike]


# ------------------------------------------------------------------------------------------------------- the palette


def test_the_formulas_give_published_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the best known grey that fails 4.5
    assert lab("#ff0000", "usual") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)  # of sRGB's red
    for vision in VISION:  # white stays white, grey stays grey: rows of the matrices add up to 1
        assert np.sum(VISION[vision], axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_colours_stand_out_and_are_told_apart_by_all_eyes():
    assert faults_of([*PALETTE, GREY, BLACK], WHITE) == []


@pytest.mark.parametrize(
    ("colours", "fault"),
    [
        (["#e69f00"], "#e69f00 on #ffffff"),  # of Okabe and Ito, too light for a line on white
        (["#d55e00", "#b87f00"], "#d55e00 and #b87f00: deuteranopia"),
        (["#0072b2", "#0073b3"], "#0072b2 and #0073b3: usual"),
    ],
)
def test_colours_that_are_alike_are_found(colours, fault):
    assert fault in faults_of(colours, WHITE)


def test_the_page_has_the_palette_and_in_the_dark_one_that_does_as_well():
    css = (ROOT / "onnx_analog" / "html" / "page.css").read_text(encoding="utf-8")
    pages = re.findall(r"--page: (#\w{6}); --ink: (#\w{6})", css)
    palettes = [re.findall(r"--c\d: (#\w{6})", line) for line in css.splitlines() if "--c0:" in line]
    assert palettes[0] == list(COLOURS) == [*PALETTE, GREY]
    for (page, ink), palette in zip(pages, palettes, strict=True):
        assert faults_of([*palette, ink], page) == []


def test_lines_differ_in_grey():
    looks = [look(number) for number in range(len(MARKERS) * len(DASHES))]
    assert len({(each["marker"], str(each["linestyle"])) for each in looks}) == len(looks)
    assert len({str(look(number)) for number in range(500)}) == 500
    strategies = list(plots._LOOKS.values())
    assert len({each["marker"] for each in strategies} | {*plots._FURTHER, *plots._PLANS[:1]}) == 4 + 6 + 1


# --------------------------------------------------------------------------------------------------- what is drawn


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return points, harms and what `tune` found, of a small network."""
    folder = tmp_path_factory.mktemp("drawn")
    onnx.save(proto(LINEAR), folder / "model.onnx")
    np.savez(folder / "test.npz", x=rows(200).inputs["x"])
    of = (folder / "model.onnx", folder / "test.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "STEPS", candidates.STEPS[::4])
        tuned = oa.tune(*of, max_drop=20, trials=2)
    swept = oa.sweep(*of, cells=[1, 3], trials=2, rivals=True, limit=True)
    return {"points": swept.points, "harms": oa.sensitivity(*of, trials=2), "tuned": tuned}


DRAWN = {
    "points": lambda results: plots.plot_points(results["points"]),
    "points, as the paper counts": lambda results: plots.plot_points(results["points"], "paper"),
    "channel": lambda results: plots.plot_channel(channels.resolve("pcm")),
    "channel without measurements": lambda results: plots.plot_channel(channels.resolve("gaussian")),
    "harms": lambda results: harm_plot.plot_harms(results["harms"]),
    "tuned": lambda results: tuned_plot.plot_tuned(results["tuned"]),
}
OF_AXES = {BLACK, WHITE, "#dddddd", "#333333"}


def colours_of(figure) -> set[str]:
    """Return the colours of all that is drawn in a figure, without their opacity."""
    from matplotlib.colors import to_hex, to_rgba_array

    found: list[Any] = []
    for artist in figure.findobj(lambda artist: artist.get_visible()):
        for name in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            get = getattr(artist, f"get_{name}", None)
            found += list(to_rgba_array(get())) if get is not None and get() is not None else []
    return {to_hex(colour) for colour in found if colour[3] > 0}


def faults_of_figure(figure) -> list[str]:
    """Return what in a figure is not of the style."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.text import Text

    found = [f"the colour {each}" for each in colours_of(figure) - {*PALETTE, GREY} - OF_AXES]
    texts = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text() and artist.get_visible())
    found += [f"{text.get_text()!r} is small" for text in texts if text.get_fontsize() < SMALL]
    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        found.append("the layout")
    for axis in figure.axes:
        if axis.axison and (axis.spines["top"].get_visible() or axis.spines["right"].get_visible()):
            found.append("the frame")
        lines = [line for line in axis.get_lines() if len(line.get_xdata()) and str(line.get_label())[0] != "_"]
        lines += [each.lines[0] for each in axis.containers if getattr(each, "lines", None) and each.get_label()]
        looks = {(line.get_label(), line.get_marker(), str(line._dash_pattern)) for line in lines}
        if len({look[1:] for look in looks}) < len({look[0] for look in looks}):
            found.append("lines are alike in grey")
    return found


@pytest.mark.parametrize("name", DRAWN)
def test_each_plot_has_the_style_whatever_a_user_has_set(results, name, tmp_path):
    from matplotlib import pyplot

    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "red", "lines.color": "red", "axes.grid": False}):
        write = DRAWN[name](results)
        figure = pyplot.gcf()
        before = matplotlib.rcParams["font.size"]
        assert faults_of_figure(figure) == []
        write(tmp_path / "plot.png")
    assert before == 31  # which is the user's own again


def test_what_is_not_of_the_style_is_found():
    from matplotlib import pyplot

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure, axis = pyplot.subplots()
    axis.plot([0, 1], [0, 1], color="red", label="a")
    axis.plot([0, 1], [1, 0], color="red", label="b")
    axis.set_title("small", fontsize=5)
    pyplot.close(figure)
    found = faults_of_figure(figure)
    for fault in ("the colour #ff0000", "'small' is small", "the layout", "the frame", "lines are alike in grey"):
        assert fault in found


def test_documents_and_examples_are_drawn_in_the_style(monkeypatch):
    """Those that are drawn from numbers which are kept."""
    from matplotlib import pyplot

    made = runpy.run_path(str(ROOT / "docs" / "make_codes.py"))
    for picture in made["PICTURES"]:
        with style(**{"axes.grid": False}):
            figure = pyplot.figure(figsize=picture.size)
            picture.draw(figure, made["kept"](ROOT / "docs" / "codes" / f"{picture.name}.png"))
        assert [each for each in faults_of_figure(figure) if "alike" not in each] == []  # marks of levels have no line
        pyplot.close(figure)
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.run import draw_growth

    draw_growth([{"weights": 1, "protect_s": 1.0, "trial_s": 2.0}], {"protect_s": 1.0, "trial_s": 1.0})
    assert faults_of_figure(pyplot.gcf()) == []
    pyplot.close("all")


DRAWING = re.compile(r"\bpyplot\b|\bFigure\(")
COLOUR = re.compile(r"""["'](#[0-9a-fA-F]{6}|red|blue|green|orange|gr[ae]y|black|white|tab:\w+|C\d)["']""")
OWN = {  # colours that are not of plots in the style
    "onnx_analog/html/svg.py": {"#010203", "#040506", "#fdfcfb"},  # stand for those of the page
    "onnx_analog/tuning/harm.py": {"#ffffff", "#d55e00"},  # of Model Explorer
    "docs/make_codes.py": {"#333333"},
}


def sources() -> list[Path]:
    folders = (ROOT / name for name in ("onnx_analog", "docs", "examples", "benchmarks"))
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if path.name != "drawing.py"]


def test_colours_and_figures_are_made_in_one_place():
    for path in sources():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        assert set(COLOUR.findall(text)) <= OWN.get(name, set()), name
        assert not DRAWING.search(text) or "from onnx_analog.drawing import" in text, name
