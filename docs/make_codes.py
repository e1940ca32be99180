"""Draw the pictures of docs/codes.md: python docs/make_codes.py.

What a picture shows is computed by the package: `numbers` of each picture returns it, and `draw` draws nothing else.
The numbers are kept in the picture's file, so that a test can tell whether it is what this script draws.
"""

from __future__ import annotations

import io
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_analog import channels, demo
from onnx_analog.channels import Channel
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.stages import Law, Moments, division
from onnx_analog.channels.symbols import symbols_of
from onnx_analog.coding.contexts import Grid, contexts_of
from onnx_analog.coding.entropy import encoded
from onnx_analog.coding.estimators import Written, estimator
from onnx_analog.coding.partition import edges_of
from onnx_analog.coding.planes import encode
from onnx_analog.coding.scheme import Scheme
from onnx_analog.drawing import BLACK, BLUE, GREY, ORANGE, VERMILION, WHITE, import_matplotlib, style

Numbers = dict[str, Any]  # lists of numbers, nested or not, by what they are

FOLDER = Path(__file__).with_name("codes")
KEY = "Numbers"  # of the text in a file
DIGITS = 4  # of the numbers there
DPI, COLOURS = 120, 96  # of a file
DARK = "#333333"  # of edges and axes
CLASSES = (BLUE, ORANGE)  # neighbouring classes
TENSOR = "conv2.weight"  # of the packaged LeNet: 50 · 20 kernels of 5 · 5
SHOWN = 4.5  # root mean squares: few weights are larger


class Picture(NamedTuple):
    """A picture, what it shows, and what the page says of it.

    Attributes
    ----------
    name : str
    size : (width, height)
        In inches.
    numbers : function
        It returns all that is drawn.
    draw : function
        It draws the numbers into a figure.
    facts : function
        It returns the numbers that the page states, as they stand there.
    """

    name: str
    size: tuple[float, float]
    numbers: Callable[[], Numbers]
    draw: Callable[[Any, Numbers], None]
    facts: Callable[[Numbers], list[str]]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for picture in PICTURES:
        if picture.name in (sys.argv[1:] or [each.name for each in PICTURES]):
            print(write(picture, FOLDER), *picture.facts(picture.numbers()), sep="\n  ")


def write(picture: Picture, folder: Path) -> Path:
    """Draw a picture into a folder, and return its file."""
    import_matplotlib().use("Agg")
    from matplotlib import pyplot
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    numbers, text = picture.numbers(), PngInfo()
    text.add_text(KEY, json.dumps(rounded(numbers)), zip=True)
    path = folder / f"{picture.name}.png"
    with style(**{"axes.grid": False}):
        figure = pyplot.figure(figsize=picture.size, layout="constrained")
        picture.draw(figure, numbers)
        figure.savefig(drawn := io.BytesIO(), dpi=DPI)
        pyplot.close(figure)
    few_colours = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few_colours.save(path, pnginfo=text, optimize=True)
    return path


def kept(path: Path) -> Numbers:
    """Return the numbers that a picture's file was drawn from."""
    data = path.read_bytes()
    start = data.index(b"zTXt" + KEY.encode() + b"\0") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    chunk = data[start + 8 : start + 8 + length]
    numbers: Numbers = json.loads(zlib.decompress(chunk[len(KEY) + 2 :]))
    return numbers


def rounded(numbers: Any) -> Any:
    """Return numbers as plain lists, to four digits."""
    if isinstance(numbers, dict):
        return {name: rounded(value) for name, value in numbers.items()}
    if isinstance(numbers, list | tuple | np.ndarray):
        return [rounded(value) for value in numbers]
    return numbers if isinstance(numbers, int | str) else float(f"{numbers:.{DIGITS - 1}e}")


@cache
def weights() -> NDArray[np.float32]:
    """Return the weights of a trained convolution, of the root mean square 1."""
    graph = onnx.load(demo.MODEL).graph
    weight = onnx.numpy_helper.to_array(next(tensor for tensor in graph.initializer if tensor.name == TENSOR))
    return (weight / root_mean_square(weight)).astype(np.float32)


def root_mean_square(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def histogram(values: NDArray[Any], low: float, high: float, bins: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the middle of each bin, and the share of the values in it over that of the fullest."""
    count, edges = np.histogram(values, bins, (low, high))
    return (edges[:-1] + edges[1:]) / 2, count / count.max()


# ------------------------------------------------------------------------------------------------- digital cells

SYMBOLS = (2, 3, 4)  # per cell


def digital_cells() -> Numbers:
    """Return the laws of reads of a cell of `pcm` with 2, 3 and 4 symbols, and where they are decided."""
    channel = channels.resolve("pcm")
    every = [symbols_of(channel, count).thresholds for count in SYMBOLS]
    read = np.union1d(np.linspace(channel.span[0] - 0.5, channel.span[1] + 0.75, 200), np.concatenate(every))
    numbers: Numbers = {"read": read}
    level = np.linspace(*channel.span, 4097)
    width = np.trapezoid(1 / channel.moments(level)[1], level)  # of the output range, in standard deviations
    for count in SYMBOLS:
        symbols = symbols_of(channel, count)
        mean, std = symbols.moments
        z = (read - mean[:, None]) / std[:, None]
        numbers[f"{count} symbols"] = {
            "levels": symbols.levels,
            "densities": np.exp(-np.square(z) / 2) / (std[:, None] * np.sqrt(2 * np.pi)),
            "thresholds": symbols.thresholds,
            "apart": width / (count - 1),
            "misread": symbols.error,
            "bits": symbols.hard_bits,
        }
    return numbers


def draw_digital_cells(figure: Any, numbers: Numbers) -> None:
    axes = figure.subplots(len(SYMBOLS), 1, sharex=True, sharey=True)
    read = np.array(numbers["read"])
    for axis, count in zip(axes, SYMBOLS, strict=True):
        of = numbers[f"{count} symbols"]
        thresholds = np.concatenate([[-np.inf], of["thresholds"], [np.inf]])
        for symbol, (density, level) in enumerate(zip(of["densities"], of["levels"], strict=True)):
            density = np.array(density)
            low, high, colour = thresholds[symbol], thresholds[symbol + 1], CLASSES[symbol % 2]
            fill = partial(axis.fill_between, read, density, linewidth=0)
            fill(where=(read >= low) & (read <= high), color=colour, alpha=0.25)
            for wrong in (read <= low, read >= high):
                fill(where=wrong, color=DARK, alpha=0.7)
            axis.plot(read, density, color=colour)
            axis.plot([level], [0], "v", color=colour, markersize=8, clip_on=False, zorder=4)
        for place in of["thresholds"]:
            axis.axvline(place, color=DARK, linestyle="--", linewidth=1)
        axis.set(yticks=[], ylim=(0, 3.2), xlim=(read[0], read[-1]))
        text = f"{count} symbols, {of['apart']:.1f} σ apart\n{misread(of)} are misread\n{of['bits']:.2f} bits per cell"
        axis.text(0.995, 0.95, text, transform=axis.transAxes, ha="right", va="top")
        axis.spines["left"].set_visible(False)
    axes[-1].set_xlabel("read (triangles: the levels that are stored; dashes: thresholds; dark: misread)")


def misread(of: Numbers) -> str:
    return f"{100 * of['misread']:.2g} %"


def digital_facts(numbers: Numbers) -> list[str]:
    every = [numbers[f"{count} symbols"] for count in SYMBOLS]
    return [*map(misread, every), *(f"{of['bits']:.2f}" for of in every[1:])]


# --------------------------------------------------------------------------------------------------- the family

FAMILY = {
    "raw": ("one class; the level holds the sign", Scheme.paper("raw")),
    "sign": ("one class; a bit holds the sign", Scheme.paper("sign")),
    "mapping, redundancy": (
        "two classes, small and large; a bit holds the sign",
        Scheme.paper("mapping", large_fraction=0.1),
    ),
    "equal steps without cells": ("the class is stored, and read as its point", Scheme.entropy_coded(1)),
    "refined steps": ("the class is stored, and a cell holds the rest", Scheme.refined(1)),
}


def family() -> Numbers:
    """Return the class and the level of weights, in the schemes of the family; without cells, what is read."""
    weight = np.sort(weights().reshape(-1))
    shown = np.unique(np.searchsorted(weight, np.linspace(-SHOWN, SHOWN, 400)).clip(0, weight.size - 1))
    numbers: Numbers = {"weight": weight[shown]}
    for name, (_, scheme) in FAMILY.items():
        ((planes, codebook, _),) = encode([weight], scheme)
        index = np.zeros(weight.size, np.uint8) if planes.class_index is None else planes.class_index
        value = planes.level if planes.level.size else codebook.beta[0][index]
        numbers[name] = {"class": index[shown].tolist(), "value": value[shown]}
    return numbers


def draw_family(figure: Any, numbers: Numbers) -> None:
    axes = figure.subplots(len(FAMILY), 1, sharex=True)
    weight = np.array(numbers["weight"])
    for axis, (name, (text, scheme)) in zip(axes, FAMILY.items(), strict=True):
        index, value = (np.array(numbers[name][key]) for key in ("class", "value"))
        runs = np.flatnonzero(np.diff(index, prepend=-1, append=-1))
        for start, stop in pairwise(runs):
            axis.plot(weight[start:stop], value[start:stop], color=CLASSES[index[start] % 2], linewidth=2.2)
        for run in runs[1:-1]:
            axis.axvline((weight[run - 1] + weight[run]) / 2, color=GREY, linewidth=0.6, linestyle="--")
        analog = scheme.analog != "none"
        low, high = scheme.channel.span if analog else (value.min(), value.max())
        margin = 0.12 * (high - low)
        axis.set(ylim=(low - margin, high + margin), xlim=(-SHOWN, SHOWN))
        axis.set_yticks([low, high] if analog else [0], ["low", "high"] if analog else ["0"])
        axis.set_ylabel("level" if analog else "read as")
        axis.set_title(f"$\\bf{{{name.replace(' ', '~')}}}$: {text}", loc="left", pad=3)
    axes[-1].set_xlabel("weight, in root mean squares (colours and dashes: classes)")


# ------------------------------------------------------------------------------------------------- refined steps

STEP = 2.0


def refined() -> Numbers:
    """Return weights around one step, the levels that its cells hold, and what the noise of a read is in weights."""
    weight, scheme = np.sort(weights().reshape(-1)), Scheme.refined(STEP)
    ((planes, codebook, _),) = encode([weight], scheme)
    assert planes.class_index is not None
    chosen = scheme.classes // 2 + 1  # the step above the one around 0
    of_step = np.flatnonzero(planes.class_index == chosen)
    alpha = float(codebook.alpha[0, chosen])
    few = of_step[np.linspace(0, of_step.size - 1, 25).astype(int)]
    middle, share = histogram(weight, -SHOWN, SHOWN, 90)
    (raw,) = encode([weight], Scheme.paper("raw"))
    unparted = root_mean_square(scheme.channel.moments(raw.planes.level)[1]) / float(raw.codebook.alpha[0, 0])
    return {
        "middle": middle,
        "share": share,
        "step": [STEP / 2, 3 * STEP / 2],
        "weight": weight[few],
        "level": planes.level[few],
        "std": scheme.channel.moments(planes.level[few])[1] / alpha,
        "span": scheme.channel.span,
        "error": root_mean_square(scheme.channel.moments(planes.level[of_step])[1]) / alpha,
        "error without steps": unparted,
    }


def draw_refined(figure: Any, numbers: Numbers) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    first, last = numbers["step"]
    middle = np.array(numbers["middle"])
    inside = (middle > first) & (middle < last)
    width = middle[1] - middle[0]
    left.bar(middle, numbers["share"], width, color=[BLUE if each else GREY for each in inside], alpha=0.8)
    for edge in np.arange(-SHOWN // STEP, SHOWN // STEP + 2) * STEP - STEP / 2:
        left.axvline(edge, color=DARK, linewidth=0.8, linestyle="--")
    left.set(yticks=[], xlim=(-SHOWN, SHOWN), xlabel="weight, in root mean squares")
    left.set_title("the index says which step", loc="left")
    left.spines["left"].set_visible(False)
    low, high = numbers["span"]
    right.axhspan(low, high, color=ORANGE, alpha=0.15, linewidth=0)
    right.errorbar(
        numbers["weight"], numbers["level"], xerr=numbers["std"], fmt="o", color=BLUE, ecolor=GREY, markersize=3.5
    )
    right.set(xlabel="weight of this step (bars: ± σ of a read, as a weight)", ylabel="level of its cell")
    right.set_yticks([low, high], ["low", "high"])
    right.set_title("a cell holds the rest, over the output range", loc="left")


def refined_facts(numbers: Numbers) -> list[str]:
    return [f"{numbers['error']:.2f}", f"{numbers['error without steps']:.2f}"]


# ---------------------------------------------------------------------------------------------------- estimators

ESTIMATORS = {
    "affine": (GREY, "-"),
    "clipped": (ORANGE, "--"),
    "posterior": (BLUE, "-"),
    "unbiased": (VERMILION, "-."),
}


def estimators() -> Numbers:
    """Return the magnitude that each estimator makes of a read, where one class holds all magnitudes."""
    scheme = Scheme.paper("sign")
    ((planes, codebook, _),) = encode([weights()], scheme)
    low, high = scheme.channel.span
    read = np.linspace(low - 0.25, high + 0.25, 120).astype(np.float32)
    alpha, beta = float(codebook.alpha[0, 0]), float(codebook.beta[0, 0])
    written = Written(
        level=planes.level, class_index=None, cells=scheme.cells_of_class, channel=scheme.channel,
        alpha=codebook.alpha, beta=codebook.beta,
    )  # fmt: skip
    middle, share = histogram(planes.level, low, high, 60)
    numbers: Numbers = {"read": read, "middle": middle, "share": share, "span": (low, high)}
    for name in ESTIMATORS:
        level, correct = read.copy(), estimator(name).fitted(written)
        if correct is not None:
            correct(level, slice(0, level.size))
        numbers[name] = (level + beta) / alpha
    return numbers


def draw_estimators(figure: Any, numbers: Numbers) -> None:
    axis = figure.subplots()
    below = axis.twinx()
    middle = np.array(numbers["middle"])
    below.bar(middle, numbers["share"], middle[1] - middle[0], color=GREY, alpha=0.35)
    below.set(yticks=[], ylim=(0, 2.5))
    below.spines["right"].set_visible(False)
    for name, (colour, line) in ESTIMATORS.items():
        axis.plot(numbers["read"], numbers[name], line, color=colour, linewidth=2, label=name)
    for end in numbers["span"]:
        axis.axvline(end, color=DARK, linewidth=0.8, linestyle=":")
    axis.set(xlabel="read (bars: how many weights have such a level; dots: the output range)")
    axis.set_ylabel("estimated magnitude,\nin root mean squares")
    axis.axhline(0, color=DARK, linewidth=0.6)
    axis.set_zorder(below.get_zorder() + 1)
    axis.patch.set_visible(False)
    axis.set_xlim(numbers["read"][0], numbers["read"][-1])
    axis.legend(loc="upper left", bbox_to_anchor=(0.2, 1.0))


# ---------------------------------------------------------------------------------------- rate-distortion edges

RATE_WEIGHT = 0.2


def rate_distortion() -> Numbers:
    """Return edges between classes, the code length of each class, and what they cost: by `rate_weight`."""
    weight = weights().reshape(-1)
    middle, share = histogram(weight, -SHOWN, SHOWN, 120)
    numbers: Numbers = {"middle": middle, "share": share}
    for rate_weight in (0.0, RATE_WEIGHT):
        scheme = Scheme.entropy_coded(1, rate_weight=rate_weight, estimator="affine")
        edges = edges_of([weight], scheme)
        index, _ = edges.index(weight)
        shares = np.bincount(index, minlength=scheme.classes) / weight.size
        assert edges.points is not None
        points = np.array(edges.points)
        near = np.flatnonzero((np.abs(points) < SHOWN + 1) & (shares > 0))
        numbers[f"rate_weight {rate_weight:g}"] = {
            "edges": [edge for edge in edges.values if abs(edge) < SHOWN - 0.1],
            "classes": [[edges.values[k - 1], edges.values[k], -np.log2(shares[k])] for k in near],
            "bits": encoded(index, scheme.classes).bits / weight.size,
            "error": root_mean_square(weight - points[index]),
        }
    return numbers


def draw_rate_distortion(figure: Any, numbers: Numbers) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.1))
    middle = np.array(numbers["middle"])
    above.bar(middle, numbers["share"], middle[1] - middle[0], color=GREY, alpha=0.5)
    looks = {0.0: (BLUE, "--", 1.2), RATE_WEIGHT: (VERMILION, "-", 1.6)}
    for rate_weight, (colour, line, width) in looks.items():
        of = numbers[f"rate_weight {rate_weight:g}"]
        for edge in of["edges"]:
            above.axvline(edge, color=colour, linestyle=line, linewidth=width)
        name = f"rate_weight {rate_weight:g}: {of['bits']:.2f} bits per weight, error {of['error']:.2f}"
        for number, (low, high, bits) in enumerate(of["classes"]):
            label = None if number else name
            below.plot([low, high], [bits] * 2, line, color=colour, linewidth=2.2, label=label, solid_capstyle="butt")
    above.set(yticks=[], ylabel="weights")
    above.set_title("edges between the classes", loc="left")
    below.set(ylim=(0, None), xlim=(-SHOWN, SHOWN), ylabel="bits")
    below.set_title("bits that the index of a class takes", loc="left")
    below.set_xlabel("weight, in root mean squares")
    below.legend(loc="upper center")


def rate_distortion_facts(numbers: Numbers) -> list[str]:
    every = [numbers[f"rate_weight {rate_weight:g}"] for rate_weight in (0.0, RATE_WEIGHT)]
    return [f"{of[key]:.2f}" for of in every for key in ("bits", "error")]


# ------------------------------------------------------------------------------------------------ residual cells

CELLS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)


def residual_cells() -> Numbers:
    """Return the error of r cells that hold the level, and of r that hold residuals, over the output range."""
    drift: Channel = channels.resolve("pcm-drift")
    law = ResidualCells(inner=drift).law
    alone = Moments(0.0, law.verified.of(1))
    exact = Law(alone, alone, alone, law.middle, law.half, law.offset)  # the same cells, read without noise
    return {
        name: {
            "averaged": [np.sqrt(each.read.of(cells)) / (2 * each.half) for cells in CELLS],
            "residual": [division(each, cells).error / (2 * each.half) for cells in CELLS],
        }
        for name, each in (("pcm-drift", law), ("reads without noise", exact))
    }


def draw_residual_cells(figure: Any, numbers: Numbers) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, errors) in zip(axes, numbers.items(), strict=True):
        axis.plot(CELLS, errors["averaged"], "o-", color=ORANGE, label="all cells hold the level")
        axis.plot(CELLS, errors["residual"], "s--", color=BLUE, label="cells hold residuals")
        axis.set(xscale="log", yscale="log", xlabel="cells of a weight")
        axis.set_title(name, loc="left")
        axis.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid()
    axes[0].set_ylabel("error / output range")
    axes[0].legend(loc="lower left")


def residual_facts(numbers: Numbers) -> list[str]:
    at = CELLS.index(8)
    drift = numbers["pcm-drift"]
    return [f"{100 * (1 - drift['residual'][at] / drift['averaged'][at]):.0f} %"]


# ------------------------------------------------------------------------------------------------------ contexts

NEAR = {"below 0": -2, "0": 0, "above 0": 2}  # binary digits of the distance to be expected, 2L + 2U - UL
INDEX = 5  # distances that are shown on each side


def contexts() -> Numbers:
    """Return how often each index follows what its neighbours say, and the bits that contexts save."""
    weight, scheme = weights(), Scheme.entropy_coded(1)
    index, _ = edges_of([weight.reshape(-1)], scheme).index(weight.reshape(-1))
    middle, kernel = scheme.classes // 2, weight.shape[-2:]
    laid = Grid(kernel, 0, index.size).laid(index, middle)
    digits = contexts_of(laid, middle).astype(int) // 6 - 4
    distance = laid.astype(int) - middle
    numbers: Numbers = {}
    for name, value in NEAR.items():
        chosen = distance[digits <= value if value < 0 else digits >= value if value else digits == 0]
        count = np.bincount(np.clip(chosen + INDEX, 0, 2 * INDEX), minlength=2 * INDEX + 1)
        numbers[name] = count / chosen.size
    for model in ("static", "context"):
        numbers[f"{model} bits"] = encoded(index, scheme.classes, model=model, kernel=kernel).bits / index.size
    return numbers


def draw_contexts(figure: Any, numbers: Numbers) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.1))
    texts = {(1, 1): "UL\n−1", (1, 2): "U\n+2", (1, 3): "UR", (2, 1): "L\n+2", (2, 2): "?"}
    for row in range(5):
        for column in range(5):
            known = row < 2 or (row == 2 and column < 2)
            text = texts.get((row, column), "")
            colour = ORANGE if text == "?" else BLUE if text else GREY
            face = {"facecolor": colour, "alpha": 0.75 if text else 0.25 if known else 0.0, "edgecolor": "none"}
            left.add_patch(_square(row, column, **face))
            left.add_patch(_square(row, column, facecolor="none", edgecolor=DARK, linewidth=0.8))
            left.text(column, row, text, ha="center", va="center", color=WHITE if colour == BLUE else BLACK)
    left.set(xlim=(-0.6, 4.6), ylim=(4.6, -0.6), aspect="equal")
    left.axis("off")
    left.set_title("a kernel, and four neighbours")
    distance = np.arange(-INDEX, INDEX + 1)
    looks = zip(NEAR, ((BLUE, "s--"), (GREY, "o-"), (VERMILION, "^-.")), strict=True)
    for name, (colour, line) in looks:
        right.plot(distance, numbers[name], line, color=colour, label=f"expected: {name}")
    right.set(xlabel="index, from that of the step around 0", ylabel="probability", ylim=(0, None))
    right.set_xticks(distance)
    right.grid()
    right.legend()


def _square(row: int, column: int, **look: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, **look)


def context_facts(numbers: Numbers) -> list[str]:
    return [f"{numbers['static bits']:.2f}", f"{numbers['context bits']:.2f}"]


def _none(_: Numbers) -> list[str]:
    return []


PICTURES: Sequence[Picture] = (
    Picture("digital-cells", (7, 4.6), digital_cells, draw_digital_cells, digital_facts),
    Picture("family", (7, 6.4), family, draw_family, _none),
    Picture("refined-steps", (7.4, 2.9), refined, draw_refined, refined_facts),
    Picture("estimators", (6.4, 3.3), estimators, draw_estimators, _none),
    Picture("rate-distortion", (7, 4.2), rate_distortion, draw_rate_distortion, rate_distortion_facts),
    Picture("residual-cells", (7.4, 3), residual_cells, draw_residual_cells, residual_facts),
    Picture("contexts", (7.4, 2.9), contexts, draw_contexts, context_facts),
)

if __name__ == "__main__":
    main()
