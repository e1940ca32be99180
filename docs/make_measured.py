"""Write docs/measured.md, all codes that were measured; the table of docs/beyond.md; and draw docs/beyond/*.png.

    python docs/make_measured.py

They follow from docs/results: the trials of examples/codes.py, and answers of `onnx-analog tune --json`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

import onnx_analog as oa
from onnx_analog.coding.streams import DECODING
from onnx_analog.drawing import BLACK, GREEN, GREY, ORANGE, SKY, VERMILION, in_style, new_figure, saver
from onnx_analog.run.statistics import interval
from onnx_analog.tuning.measures import cells_of_numbers

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
CHANNELS = {  # by the name that files have: as a command names it
    "pcm": "pcm",
    "pcm-partial-reset": "pcm-partial-reset",
    "pcm-drift": "pcm-drift:read_after_s=86400",
    "rram-wan": "rram-wan",
}
HONEST, PAPER = "honest_cells_per_original_weight", "all_in_cells_per_original_weight"
KINDS = {  # of ways to store, by the beginnings of their names
    "the paper's": ("mapping", "redundancy"),
    "integers": ("int",),
    "equal steps": ("entropy-coded",),
    "refined": ("refined",),
}
BEST = "equal steps, compensated"
STYLES: Mapping[str, dict[str, Any]] = {
    "the paper's": {"label": "the paper's strategies", "marker": "s", "color": GREY, "linestyle": "none"},
    "integers": {"marker": "D", "color": ORANGE, "linestyle": "none"},
    "equal steps": {"label": "equal steps, entropy-coded", "marker": "o", "color": VERMILION, "linestyle": "--"},
    "refined": {"label": "refined: an index and an analog cell", "marker": "^", "color": SKY, "linestyle": "-."},
    BEST: {"marker": "v", "color": GREEN, "linestyle": "-"},
}
EFFORTS = {  # of decoding, by the beginnings of names of answers of `tune`: what the reader of the memory has
    "none": "none: thresholds and scales",
    "table": "table: also a table",
    "": "hard: also a BCH and an entropy decoder",
    "soft": "soft: a soft-decision decoder (assumed: 95 % of the bound)",
    "paper": "any, as the paper counts",
}
LOSSES = {"lost, corrected": "value", "lost, not corrected": "uncorrected"}
ALL = 10_000  # images of a test set
LEAST = 0.05  # points lost: less is drawn there, for the axis is logarithmic


class Network(NamedTuple):
    """A network whose codes were measured.

    Attributes
    ----------
    title, about : str
    data : str
        Which images.
    flags : str
        Of the command line: how they are normalised.
    points : float
        The loss at which ways to store are compared.
    only : str
        Which ways were measured beside the rivals; all unless given.
    """

    title: str
    about: str
    data: str
    flags: str
    points: float
    only: str = ""


SOME = {("resnet20-cifar10", "rram-wan"): "mapping,redundancy,refined 2"}  # ways that were measured there, if not all
NETWORKS = {
    "resnet20-cifar10": Network(
        "ResNet-20 on CIFAR-10",
        "268,336 weights, none pruned; trained by others (akamaster/pytorch_resnet_cifar10, resnet20-12fca82f)",
        "cifar10",
        "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        1.0,
    ),
    "resnet18-cifar10-pruned": Network(
        "ResNet-18 on CIFAR-10, pruned",
        "The paper's network: 2,232,871 of 11,164,352 weights are left",
        "cifar10",
        "--mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616",
        0.5,
        "redundancy,refined 2,refined 3",
    ),
    "resnet18-cifar10": Network(
        "ResNet-18 on CIFAR-10",
        "The same network before it was pruned: 11,164,352 weights",
        "cifar10",
        "--mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616",
        0.5,
    ),
    "lenet-mnist": Network(
        "LeNet on MNIST",
        "The network of the demo: 430,500 weights, none pruned",
        "mnist",
        "--mean 0.1307 --std 0.3081",
        0.5,
    ),
}


class Mark(NamedTuple):
    """A point of a picture: cells per original weight, and points lost with the ends of their interval."""

    cells: float
    lost: float
    low: float
    high: float


class Row(NamedTuple):
    """A way to store, as it was measured: its trials, and whether weights made up for each other's errors.

    `against_limit` is how many times as many cells it takes as the limit, the numbers of the correction left out.
    """

    name: str
    trials: list[dict[str, str]]
    compensated: bool
    against_limit: float | None = None
    channel: str = "pcm"

    def number(self, column: str) -> float:
        """Return the number in a column, which all trials share."""
        return float(self.trials[0][column])

    @property
    def images(self) -> int:
        """How many it was measured on."""
        return int(json.loads(self.trials[0]["samples"])[0])

    @property
    def cells(self) -> float:
        """Cells per original weight as the memory allows, those of the correction's numbers included."""
        return self.number(HONEST) + self._correction("memory")

    def digital_cells(self, column: str) -> float:
        """Return the same for the loss in a column: without those of the correction where nothing is corrected."""
        return self.cells if column == "value" else self.number(HONEST)

    @property
    def paper_cells(self) -> float:
        """The same, as the paper counts."""
        return self.number(PAPER) + self._correction("paper")

    def _correction(self, counting: str) -> float:
        numbers, decoding = int(self.number("correction_numbers")), self.trials[0]["decoding"]
        return cells_of_numbers(numbers, oa.channel(self.channel), decoding, counting) / self.number("original_weights")

    def lost(self, column: str = "value") -> tuple[float, tuple[float, float] | None]:
        """Return the points lost, and their 95 % interval if trials differ."""
        original = 100 * self.number("original")
        values = [float(trial[column]) for trial in self.trials]
        ends = interval(values, bounds=(0.0, 1.0))
        between = None if ends is None else (original - 100 * ends[1], original - 100 * ends[0])
        return original - 100 * float(np.mean(values)), between

    @property
    def kind(self) -> str:
        """The kind of the way to store."""
        kind = next(kind for kind, beginnings in KINDS.items() if self.name.startswith(beginnings))
        return f"{kind}, compensated" if self.compensated else kind


def rows_of(network: str, channel: str, results: Path = RESULTS) -> list[Row]:
    """Return the rows of a network and a channel, sorted by what decoding takes, and then by cells."""
    path = results / f"limits-{network}-{channel}.csv"
    limits = {name: float(row[0]["against_limit"]) for name, row in _by_name(path).items() if row[0]["against_limit"]}
    on_all = _by_name(results / f"best-{network}-{channel}.csv")  # of compensated rows, on all images
    rows = [
        Row(
            name,
            on_all.get(name, trials) if prefix == "compensated" else trials,
            prefix == "compensated",
            limits.get(name) if prefix == "codes" else None,
            CHANNELS[channel],
        )
        for prefix in ("codes", "compensated")
        for name, trials in _by_name(results / f"{prefix}-{network}-{channel}.csv").items()
    ]
    return sorted(rows, key=lambda row: (DECODING.index(row.trials[0]["decoding"]), row.cells))


def _by_name(path: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["strategy"], []).append(row)
    return found


def tuned_of(network: str, channel: str, results: Path = RESULTS, effort: str = "") -> Mapping[str, Any] | None:
    """Return the answer of `tune`, if there is one; `effort` is a key of `EFFORTS`."""
    path = results / f"tune-{effort}{'-' * bool(effort)}{network}-{channel}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def fewest(rows: list[Row], points: float) -> dict[str, Row]:
    """Return the way with the fewest cells of each kind that loses at most so many points, corrected."""
    enough = [row for row in rows if row.lost()[0] <= points]
    found: dict[str, Row] = {}
    for row in sorted(enough, key=lambda row: row.cells):
        found.setdefault(row.kind, row)
    return found


# --------------------------------------------------------------------------------------------------- the page


def text(lost: tuple[float, tuple[float, float] | None]) -> str:
    """Return points lost, and their interval."""
    mean, ends = lost
    return f"{mean:.2f}" + ("" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})")


def table(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of a table."""
    cells = ("cells per weight", "as the paper counts", "times the limit")
    yield f"| decoding | stored as | {' | '.join([*cells, *LOSSES])} | images |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        name = f"{row.name}{', compensated' * row.compensated}"
        cells = (f"{each:.3f}" for each in (row.cells, row.paper_cells))
        images = f"{row.images:,}"
        above = "" if row.against_limit is None else f"{row.against_limit:.2f}"
        losses = (text(row.lost(column)) for column in LOSSES.values())
        yield f"| {' | '.join([row.trials[0]['decoding'], name, *cells, above, *losses, images])} |"


def summary() -> Iterator[str]:
    """Yield the lines of the table of the fewest cells."""
    kinds = [*KINDS, BEST]
    yield f"| network | channel | points | {' | '.join(kinds)} | `tune` |"
    yield f"|---|---|---|{'---|' * (len(kinds) + 1)}"
    for network, about in NETWORKS.items():
        for channel in CHANNELS:
            found, tuned = fewest(rows_of(network, channel), about.points), tuned_of(network, channel)
            cells = [f"{found[kind].cells:.2f}" if kind in found else "" for kind in kinds]
            verified = f"{tuned['best']['cells_per_weight']:.2f}" if tuned and tuned["holds"] else ""
            if any(cells) or verified:
                yield f"| {about.title} | {CHANNELS[channel]} | {about.points:g} | {' | '.join([*cells, verified])} |"


def efforts(channel: str = "pcm") -> Iterator[str]:
    """Yield the lines of the table of answers of `tune` by what decoding takes."""
    heads = ("cells per weight", "points lost", "beside it", "points lost")
    yield f"| network, points | decoding | {' | '.join(heads)} |"
    yield f"|---|---|{'---|' * len(heads)}"
    for network, about in NETWORKS.items():
        answers = {shown: tuned_of(network, channel, effort=effort) for effort, shown in EFFORTS.items()}
        found = {shown: answer for shown, answer in answers.items() if answer is not None}
        for shown, answer in found.items() if len(found) > 1 else ():
            other = answer["analog" if answer["best"]["digital"] else "rival"]
            cells = [part for plan in (answer["best"], other) for part in _of_kind(plan)]
            yield f"| {about.title}, {about.points:g} | {shown} | {' | '.join(cells)} |"


def _of_kind(plan: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the cells of a plan that was verified, with its kind, and the points that it loses."""
    cells, lost = _said(plan)
    return f"{cells}, {'digital' if plan['digital'] else 'analog'}" if plan is not None and cells else cells, lost


class Gain(NamedTuple):
    """How many points fewer compensated steps lose than digital storage in as many cells, and half its interval.

    `lost` is what that digital storage loses.
    """

    lost: float
    points: float
    reach: float


def gain(row: Row, rows: list[Row], column: str) -> Gain | None:
    """Return how far a compensated row is ahead of the equal steps among `rows`, interpolated at its cells.

    None outside of their cells. Uncorrected steps take no cells for a correction. The interval (95 %) is over the
    choice of images, as if the two were measured on different ones.
    """
    steps = [each for each in rows if each.kind == "equal steps"]
    points = sorted((each.digital_cells(column), each.lost(column)[0]) for each in steps)
    cells, losses = zip(*points, strict=True)
    if not cells[0] <= row.cells <= cells[-1]:
        return None
    digital, own = float(np.interp(row.cells, cells, losses)), row.lost()[0]
    original = 100 * row.number("original")
    variances = [
        (original - lost) * (100 - original + lost) / images
        for lost, images in ((own, row.images), (digital, steps[0].images))
    ]
    return Gain(digital, digital - own, float(scipy.stats.norm.ppf(0.975) * np.sqrt(sum(variances))))


AHEAD = ("resnet20-cifar10", "resnet18-cifar10-pruned")


def ahead(channel: str = "pcm") -> Iterator[str]:
    """Yield the lines of the table of compensated steps below two cells per stored weight, and of digital rivals."""
    heads = ("per stored weight", "compensated", "digital", "ahead by", "digital, corrected", "ahead by")
    yield f"| network, cells per weight | {' | '.join(heads)} |"
    yield f"|---|---|{'---|' * (len(heads) - 1)}"
    for network in AHEAD:
        rows = rows_of(network, channel)
        for row in sorted((each for each in rows if each.kind == BEST), key=lambda each: -each.cells):
            gains = [gain(row, rows, column) for column in ("uncorrected", "value")]
            stored = row.cells * row.number("original_weights") / kept(rows)
            if stored < 2 and any(gains):
                texts = [text for each in gains for text in _ahead(each)]
                cells = [f"{NETWORKS[network].title}, {row.cells:.2f}", f"{stored:.2f}", f"{row.lost()[0]:.1f}", *texts]
                yield f"| {' | '.join(cells)} |"


def kept(rows: list[Row]) -> float:
    """Return the weights that are left after pruning."""
    return max(row.number("stored_weights") for row in rows)


def _ahead(found: Gain | None) -> tuple[str, str]:
    return ("", "") if found is None else (f"{found.lost:.1f}", f"{found.points:.1f} ± {found.reach:.1f}")


def _said(plan: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the cells of a plan that was verified, and the points that it loses."""
    if plan is None or plan["points_lost"] is None:
        return "", ""
    lost = text((plan["points_lost"], tuple(plan["points_lost_ci95"])))
    return f"{plan['cells_per_weight']:.2f}", lost


def command(network: str, channel: str, row: Row, trials: int, more: str = "") -> str:
    """Return the command that makes a file of trials."""
    about = NETWORKS[network]
    words = [f"python examples/codes.py {network}.onnx --data {about.data}-test.npz --correct {about.data}-train.npz"]
    words += [f"--compensate {about.data}-train.npz"] * row.compensated
    words += [f"    {about.flags} --channel {CHANNELS[channel]} --trials {trials}"]
    words += [f"--samples {row.images}"] * (row.images < ALL)
    only = SOME.get((network, channel), about.only)
    words += [f'--only "{only}"'] * bool(only and not row.compensated)
    words += [more] * bool(more)
    return " ".join(words).replace("     ", " \\\n    ")


def limits_command(network: str, channel: str) -> str:
    """Return the command that makes a file of limits."""
    about = NETWORKS[network]
    words = [f"python examples/limits.py {network}.onnx --channel {CHANNELS[channel]}"]
    words += ["--shape 1,1,28,28"] * (about.data == "mnist")
    words += [f'--only "{about.only}"'] * bool(about.only)
    return " ".join(words)


def measured(network: str, channel: str) -> Iterator[str]:
    """Yield the lines about a network and a channel."""
    rows = rows_of(network, channel)
    yield f"### Channel `{CHANNELS[channel]}`\n"
    yield from table(rows)
    yield "\n```sh"
    for compensated in (False, True):
        of_file = [row for row in rows if row.compensated == compensated]
        if of_file:
            trials = 1 + max(int(trial["trial"]) for row in of_file for trial in row.trials)
            few = [row for row in of_file if row.images < ALL] or of_file
            yield command(network, channel, few[0], trials)
    best = _by_name(RESULTS / f"best-{network}-{channel}.csv")
    if best:
        row = next(row for row in rows if row.name in best and row.compensated)
        yield command(network, channel, row, len(row.trials), f'--best "{",".join(best)}"')
    if any(row.against_limit is not None for row in rows):
        yield limits_command(network, channel)
    yield "```\n"
    links = {"codes": "trials", "compensated": "trials, compensated", "best": "trials of the best", "limits": "limits"}
    files = {shown: f"results/{prefix}-{network}-{channel}.csv" for prefix, shown in links.items()}
    yield " · ".join(f"[{shown}]({path})" for shown, path in files.items() if (DOCS / path).exists()) + "\n"


INTRODUCTION = """# All codes, measured

Each way to store the weights of a network in cells of a memory: what it takes, and what the network loses. Every tensor
has the same scheme here. [The cheapest way](beyond.md) reads the tables, and [Codes](codes.md) explains the names.

- **Cells** are per original weight, and hold everything that the reader of the memory needs, with the numbers of the
  correction: as the memory allows, and [as the paper counts](codes.md#two-countings).
- **Lost** are percentage points of top-1 accuracy, with 95 % intervals over trials; digital streams with a code are
  read alike in all trials. The choice of the images leaves a standard error of about {errors[0]:.2f} points with 10,000
  images, and of {errors[1]:.2f} with 2,000 (of a ResNet-20 that loses {errors[2]:.1f} points).
- **The limit** is the fewest cells that any code needs for weights with the same squared errors: their rate-distortion
  function over the capacity of the cells ([codes](codes.md)). Compensated weights have none.
- **Corrected** by 256 training images, which compensate too, where it says so.

`docs/make_measured.py` writes this page from the trials.

## The fewest cells

Of each kind, the way with the fewest cells that loses at most so many points, corrected. `tune` has verified its plan
with 95 % confidence, on samples that nothing else has seen; the others are means."""


def errors_of_images() -> tuple[float, float, float]:
    """Return the standard errors that 10,000 and 2,000 images leave in a loss, and the loss, as `tune` measured it."""
    tuned = tuned_of("resnet20-cifar10", "pcm")
    assert tuned is not None
    best = tuned["best"]
    low, high = best["points_lost_ci95"]
    each = (high - low) / (2 * scipy.stats.norm.ppf(0.975)) * np.sqrt(best["samples"])
    return each / np.sqrt(10_000), each / np.sqrt(2_000), best["points_lost"]


def page() -> str:
    """Return the page."""
    lines = [INTRODUCTION.format(errors=errors_of_images()), "", *summary(), ""]
    for network, about in NETWORKS.items():
        channels = [channel for channel in CHANNELS if rows_of(network, channel)]
        if channels:
            lines += [f"## {about.title}", "", f"{about.about}.", ""]
        for channel in channels:
            lines += measured(network, channel)
    return "\n".join(lines).rstrip("\n") + "\n"


# ------------------------------------------------------------------------------------------------- the pictures


def marks(rows: list[Row], counting: str = "memory") -> dict[str, list[Mark]]:
    """Return the marks of each kind, the cheapest first; compensated integers are left out."""
    found: dict[str, list[Mark]] = {}
    for row in sorted(rows, key=lambda row: row.cells):
        mean, ends = row.lost()
        if row.kind in STYLES:
            cells = row.cells if counting == "memory" else row.paper_cells
            found.setdefault(row.kind, []).append(Mark(cells, mean, *(ends or (mean, mean))))
    return found


def limit(rows: list[Row]) -> list[tuple[float, float]]:
    """Return the limit of equal steps: the fewest cells with the same squared errors, and what such weights lose."""
    steps = [row for row in rows if row.kind == "equal steps" and row.against_limit is not None]
    return sorted((row.number(HONEST) / (row.against_limit or 1.0), row.lost()[0]) for row in steps)


COUNTINGS = {"memory": "as the memory allows", "paper": "as the paper counts"}


@in_style
def draw(network: str, channel: str) -> None:
    """Draw what the ways to store a network lose over cells, in both countings, into docs/beyond."""
    rows = rows_of(network, channel)
    figure, axes = new_figure(2, height=4.8)
    figure.set_figwidth(11)
    axes[1].sharey(axes[0])
    axes[1].tick_params(labelleft=False)
    for axis, counting in zip(axes, COUNTINGS, strict=True):
        _draw(axis, rows, counting)
        tuned = tuned_of(network, channel, effort="" if counting == "memory" else "paper")
        if tuned is not None:
            _star(axis, tuned["best"])
        _ticks(axis)
        axis.set_xlabel(f"cells per original weight, {COUNTINGS[counting]}")
    steps = (LEAST, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    axes[0].set(yscale="log", ylim=(LEAST * 0.85, 60))
    axes[0].set_yticks(steps, [f"≤{LEAST:g}", *(f"{step:g}" for step in steps[1:])])
    axes[0].set_ylabel(f"percentage points lost ({LEAST:g} or less at the bottom)")
    axes[0].legend()
    figure.suptitle(f"{NETWORKS[network].title}, channel {CHANNELS[channel]}")
    path = DOCS / "beyond" / f"{network}-{channel}.png"
    path.parent.mkdir(exist_ok=True)
    saver(figure, dpi=110, metadata={"Software": None})(path)


def _draw(axis: Any, rows: list[Row], counting: str) -> None:
    for kind, of_kind in marks(rows, counting).items():
        _bars(axis, of_kind, {"label": kind, "capsize": 2, "markersize": 5, "linewidth": 1.4, **STYLES[kind]})
    line = limit(rows) if counting == "memory" else []
    if line:
        cells, lost = zip(*line, strict=True)
        axis.plot(cells, np.maximum(lost, LEAST), color=BLACK, linestyle=":", label="the limit of equal steps")


def _star(axis: Any, best: Mapping[str, Any]) -> None:
    answer = Mark(best["cells_per_weight"], best["points_lost"], *best["points_lost_ci95"])
    style = {"fmt": "*", "color": BLACK, "markersize": 14, "capsize": 3}
    _bars(axis, [answer], {"label": "onnx-analog tune, verified", **style})


def _ticks(axis: Any) -> None:
    axis.set(xscale="log")
    low, high = axis.get_xlim()
    ticks = [tick for tick in (0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16) if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def _bars(axis: Any, of_kind: list[Mark], style: dict[str, Any]) -> None:
    """Draw marks and their intervals."""
    cells, lost, low, high = (np.array(column) for column in zip(*of_kind, strict=True))
    y = np.maximum(lost, LEAST)
    axis.errorbar(cells, y, yerr=(y - np.maximum(low, LEAST).clip(max=y), np.maximum(high, y) - y), **style)


def with_tables(text: str) -> str:
    """Return a page with the tables that follow from results in the places of those that it has."""
    for lines in (list(summary()), list(efforts()), list(ahead())):
        rows = "\n".join(lines)
        head = re.escape(" | ".join(lines[0].split(" | ")[:2]))
        text = re.sub(rf"^{head} .*?\n(?!\|)", lambda _, rows=rows: f"{rows}\n", text, flags=re.MULTILINE | re.DOTALL)
    return text


def main() -> None:
    """Write the page and the tables, and draw the pictures."""
    (DOCS / "measured.md").write_text(page(), encoding="utf-8")
    beyond = DOCS / "beyond.md"
    beyond.write_text(with_tables(beyond.read_text(encoding="utf-8")), encoding="utf-8")
    for network in NETWORKS:
        for channel in CHANNELS:
            if rows_of(network, channel):
                draw(network, channel)


if __name__ == "__main__":
    main()
