"""Tables for people, and plots. Tables need rich, plots need matplotlib (extra `report`)."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from onnx_analog.channels import Channel, TableChannel
from onnx_analog.channels.base import inside
from onnx_analog.channels.capacity import best_of, of_channel
from onnx_analog.channels.fitting import Fit
from onnx_analog.cli.tables import Table
from onnx_analog.coding.scheme import PRESETS, STRATEGIES
from onnx_analog.coding.scheme import channel_digest as digest
from onnx_analog.errors import OutputError
from onnx_analog.graph.manifest import Manifest
from onnx_analog.randomness import stream
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.run.metrics import METRICS
from onnx_analog.study import choosing
from onnx_analog.study.sweeps import Point, paired

NO_PLOTS = "no plot: matplotlib is not installed (pip install 'onnx-analog[report]')"
_DRAWN = 5000  # measured pairs at most
_ROWS = 20  # of a table of inputs at most
_TITLE_WIDTH = 46  # characters of a line of a panel's title
_LEGEND_INCHES = 0.8  # under the panels
_MOST_TICKS = 7
_RING = "better than every cheaper point"
_SHOWN = 0.01  # the last digit that is shown of a metric
_PLANES = {"level": "levels", "side": "side", "mask": "mask", "codebook": "codebook"}
_COLOURS = {"raw": "#8c8c8c", "sign": "#d1495b", "mapping": "#edae49", "redundancy": "#00798c"}


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def table(*columns: str, title: str = "", left: int = 1) -> Table:
    """Return an empty table, its first `left` columns of names, which may fold, the others of numbers, which do not."""
    made = Table(title=title or None)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < left else "right")
    return made


# --------------------------------------------------------------------------------------------------- tables


def inspection_tables(rows: Sequence[dict[str, Any]], *, protected: bool) -> Iterator[Table]:
    """Yield what would be stored, and what is skipped, by reason."""
    stored = table("stored" if protected else "to be stored", "shape", "type", "used by", "weights", "largest", left=4)
    for row in rows:
        if row["reason"] is None:
            numbers = (f"{row['weights']:,}", f"{row['largest']:.4g}")
            shape = "×".join(map(str, row["shape"]))
            stored.add_row(row["key"], shape, row["dtype"], ", ".join(sorted(set(row["used_by"]))), *numbers)
    total = sum(row["weights"] for row in rows if row["reason"] is None)
    stored.add_section()
    stored.add_row("total", "", "", "", f"{total:,}", "")
    yield stored
    skipped = Counter(row["reason"] for row in rows if row["reason"] is not None)
    if skipped:
        made = table("stays digital because", "tensors", "for example")
        made.columns[2].justify = "left"
        for reason, count in skipped.most_common():
            made.add_row(reason, f"{count:,}", next(row["key"] for row in rows if row["reason"] == reason))
        yield made


def account_tables(manifest: Manifest) -> Iterator[Table]:
    """Yield the account: tensors and their classes, all lines of the cost, and the digital baselines."""
    yield _tensor_table(manifest)
    yield _address_table(manifest)
    yield _cost_table(manifest)
    yield _baseline_table(manifest)


def _tensor_table(manifest: Manifest) -> Table:
    made = table("tensor", "class", "weights", "cells each", "α", "sizes", left=2)
    for entry in manifest.tensors:
        if len(entry.classes) > _MOST_CLASSES:
            cells = sorted({each.cells for each in entry.classes})
            ends = f"{cells[0]} to {cells[-1]}" if len(cells) > 1 else str(cells[0])
            made.add_row(entry.key, f"{len(entry.classes)} classes", f"{entry.stored:,}", ends, "", "")
            continue
        for name, each in zip(_class_names(len(entry.classes)), entry.classes, strict=True):
            alpha = "per channel" if each.alpha is None else f"{each.alpha:.4g}" if each.cells else ""
            sizes = "" if each.low is None else f"{each.low:.3g} to {each.high:.3g}"
            made.add_row(entry.key, name, f"{each.count:,}", str(each.cells), alpha, sizes)
    return made


_MOST_CLASSES = 8  # that have lines of their own


def _class_names(count: int) -> Sequence[str]:
    return ("all",) if count == 1 else ("small", "large") if count == 2 else [str(k + 1) for k in range(count)]


def _address_table(manifest: Manifest) -> Table:
    planes = [plane for plane in _PLANES if any(entry.cells_for(plane) for entry in manifest.tensors)]
    made = table("addresses of its cells", *(f"{_PLANES[plane]} from" for plane in planes), "last")
    for entry in manifest.tensors:
        spans = [entry.cells[plane] for plane in planes]
        firsts = ["" if first == end else f"{first:,}" for first, end in spans]
        made.add_row(entry.key, *firsts, f"{max(end for _, end in spans) - 1:,}")
    return made


def _cost_table(manifest: Manifest) -> Table:
    totals, ratios = manifest.totals, manifest.totals.ratios()
    made = table("what it costs", "cells", "per stored weight", "per original weight")
    bits = ", ".join(str(scheme.side_bits_per_cell) for scheme in manifest.schemes)
    lines = {
        "analog levels (the paper's r_avg)": totals.analog_cells,
        f"side information: sign and class, {bits} bits a cell": totals.side_cells,
        f"mask: which weights are stored (bitmap: {totals.mask_bitmap_bits:,} bits)": totals.mask_cells,
        "codebook: α and β": totals.codebook_cells,
        "all-in": totals.all_in_cells,
    }
    for name, cells in lines.items():
        made.add_row(
            name, f"{cells:,}", f"{cells / totals.stored_weights:.3f}", f"{cells / totals.original_weights:.3f}"
        )
    made.caption = (
        f"{totals.stored_weights:,} of {totals.original_weights:,} weights stored; "
        f"levels and side information alone: {ratios['stored_cells_per_stored_weight']:.3f} cells per stored weight"
    )
    return made


def _baseline_table(manifest: Manifest) -> Table:
    per_cell = sorted({baseline.bits_per_cell for baseline in manifest.baselines()})
    made = table("the same weights held digitally", *(f"cells at {bits} bit{'s' * (bits > 1)}" for bits in per_cell))
    made.add_column("against all-in", justify="right")
    rows: dict[str, list[int]] = {}
    for baseline in manifest.baselines():
        if baseline.pruned and not manifest.totals.mask_bitmap_bits:
            continue  # nothing is pruned, so it would say the same again
        rows.setdefault(f"{baseline.name}, {'pruned' if baseline.pruned else 'dense'}", []).append(baseline.cells)
    for name, cells in rows.items():
        made.add_row(name, *(f"{count:,}" for count in cells), f"{cells[-1] / manifest.totals.all_in_cells:.2f}×")
    made.caption = _digital_note(
        [name for name, cells in rows.items() if round(cells[-1] / manifest.totals.all_in_cells, 2) < 1]
    )
    return made


def _digital_note(cheaper: Sequence[str]) -> str:
    """Return what a ratio below 1 means, if there is one."""
    if not cheaper:
        return ""
    names = "; ".join(cheaper)
    return (
        f"below 1×, the digital form needs fewer cells than the analog form, all-in. Here: {names}. "
        "What rounding to so few bits costs in accuracy is not counted"
    )


def evaluation_table(found: Evaluation) -> Table:
    """Return one evaluation."""
    made = table(found.heading, "value")
    if found.output is not None:
        made.add_row("output", found.output)
    if found.class_axis is not None:
        made.add_row("class axis", str(found.class_axis))
    rows: list[tuple[str, float | None]] = [
        ("original model", found.reference),
        ("without noise", found.clean),
        (f"with noise, mean of {len(found.values)} trial{'s' * (len(found.values) > 1)}", found.mean),
        ("standard deviation over trials", found.std),
    ]
    for name, value in rows:
        if value is not None:
            made.add_row(name, f"{value:.4f}")
    if found.values:
        made.add_row("95 % interval of the mean", _between(found, found.ci95))
    if found.drop is not None:
        made.add_row("decrease due to noise", f"{found.drop:+.4f}")
        made.add_row("95 % interval of the decrease", _between(found, found.drop_ci95, "+.4f"))
    if found.test_set_error is not None:
        made.add_row(f"standard error of a test set of {found.samples:,}", f"{found.test_set_error:.4f}")
    ratios = [value for value in found.sqnr_db if not math.isnan(value)]
    if ratios:
        made.add_row("output SQNR, mean of all trials", f"{np.mean(ratios):.1f} dB")
    made.caption = " ".join(_remarks(found)) or None
    return made


def _between(found: Evaluation, ends: tuple[float, float] | None, form: str = ".4f") -> str:
    if len(found.values) < 2:
        return "none: one trial"
    if ends is None:
        return "none: all trials are alike"
    if not all(map(math.isfinite, ends)):
        return "none: not all values are finite"
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def _remarks(found: Evaluation) -> Iterator[str]:
    """Yield what the numbers rest on."""
    if found.ci95 is not None:
        yield "Intervals are Student's t over trials; they leave out the error of a finite test set."
    if found.higher_is_better is False:
        yield "Lower values are better."
    if found.preprocessing:
        yield f"Inputs: {found.preprocessing}."


def points_tables(points: Sequence[Point]) -> Iterator[Table]:
    """Yield strategies × cells for each model, channel and preset: mean, 95 % interval and cost.

    On a console too narrow for that, a table has a row for each point.
    """
    for title, here in _panels(points).items():
        made = _grid_table(here, title)
        made.narrower = _list_table(here, title)
        yield made


def _grid_table(points: Sequence[Point], title: str) -> Table:
    cells = sorted({point.cells for point in points})
    made = table("strategy", *(f"{count} cell{'s' * (count > 1)}" for count in cells), title=title)
    marks = _marks(points)
    for strategy in dict.fromkeys(point.strategy for point in points):
        found = {point.cells: point for point in points if point.strategy == strategy}
        made.add_row(strategy, *(marks[id(found[c])] + cell_text(found[c]) if c in found else "" for c in cells))
    made.caption = _note(points, "; in brackets, all-in cells per original weight")
    return made


def _list_table(points: Sequence[Point], title: str) -> Table:
    made = table("strategy", "cells", "mean", "all-in cells per original weight", title=title)
    marks = _marks(points)
    for point in points:
        made.add_row(point.strategy, str(point.cells), marks[id(point)] + value_text(point), f"{point.cost:.2f}")
    made.caption = _note(points)
    return made


def _marks(points: Sequence[Point]) -> dict[int, str]:
    """Return, by identity, what stands before a point."""
    front = {id(point) for point in _front(points)}
    return {id(point): "◆ " * (id(point) in front) for point in points}


def _front(points: Sequence[Point]) -> list[Point]:
    """Return the points that are marked: none where it is not known which values of a metric are better."""
    higher = _higher_is_better(points)
    return [] if higher is None else choosing.marked(points, higher_is_better=higher)


def _higher_is_better(points: Sequence[Point]) -> bool | None:
    """Return which values of the metric are better; None where it is not known."""
    return points[0].evaluation.higher_is_better if points else None


def _note(points: Sequence[Point], more: str = "") -> str:
    """Return what stands under a table of points."""
    parts = [f"{_unit(points)}{_clean_text(points)}"]
    if any(point.ci95 is not None for point in points):
        parts[0] += f"; {_interval_note(points)}"
    if any(point.evaluation.values for point in points):
        parts[0] += more
        parts += [*_mark_note(points), *_missing_note(points)]
    return ". ".join(parts)


def _mark_note(points: Sequence[Point]) -> Iterator[str]:
    if _higher_is_better(points) is None:
        yield "Nothing is marked: the metric does not say which values are better"
    elif len(points) > 1 and any(point.ci95 is not None for point in points):
        who = "◆" if _front(points) else "No point is"
        yield f"{who} better than every cheaper point, with no overlap of intervals"


def _missing_note(points: Sequence[Point]) -> Iterator[str]:
    counts = {len(point.evaluation.values) for point in points if point.ci95 is None} - {0}
    if 1 in counts:
        yield "One trial has no interval"
    if counts - {1}:
        yield "Trials that are all alike have no interval"


def _interval_note(points: Sequence[Point]) -> str:
    texts = [value_text(point) for point in points]
    ways = {"± half of the 95 % interval": "±", "(ends of the 95 % interval)": "("}
    return " or ".join(way for way, sign in ways.items() if any(sign in text for text in texts))


def _clean_text(points: Sequence[Point]) -> str:
    clean = points[0].evaluation.clean if points else None
    return "" if clean is None else f", without noise {_factor(points[0]) * clean:.2f}"


def differences_table(points: Sequence[Point]) -> Table | None:
    """Return what each strategy is above the first, at the same cells and under the same noise; None if there is one.

    The interval is Student's t over differences of trials of one number.
    """
    first = points[0].strategy if points else ""
    if all(point.strategy == first or not point.evaluation.values for point in points):
        return None
    panels = _panels(points)
    where = ["where"] * (len(panels) > 1)
    made = table(*where, "strategy", "cells", f"above {first}", "95 % interval", left=len(where) + 1)
    for title, here in panels.items():
        base = {point.cells: point for point in here if point.strategy == first}
        for point in here:
            if point.strategy != first and point.evaluation.values and point.cells in base:
                mean, ends = paired(point, base[point.cells])
                factor = _factor(point)
                between = "" if ends is None else f"{factor * ends[0]:+.2f} to {factor * ends[1]:+.2f}"
                kind = [title] * len(where) + [point.strategy, str(point.cells)]
                made.add_row(*kind, f"{factor * mean:+.2f}", between)
    made.caption = f"{_unit(points)}; in pairs, for trials of the same number have the same noise"
    return made


def _mean_of(point: Point) -> float:
    return math.nan if point.evaluation.mean is None else point.evaluation.mean


def cell_text(point: Point) -> str:
    """Return the mean (a share in %), its interval, and what it costs."""
    return f"{value_text(point)} [{point.cost:.2f}]"


def value_text(point: Point) -> str:
    """Return the mean (a share in %) and its interval: ± half where its ends are as far from the mean, or both ends."""
    mean, factor = point.evaluation.mean, _factor(point)
    if mean is None:
        return "no trial"
    shown = f"{factor * mean:.2f}"
    if point.ci95 is None:
        return shown
    low, high = (factor * end for end in point.ci95)
    below, above = factor * mean - low, high - factor * mean
    if abs(below - above) < _SHOWN:
        return f"{shown} ± {(high - low) / 2:.2f}"
    return f"{shown} ({low:.2f} to {high:.2f})"


def choice_text(point: Point) -> str:
    """Return a point in words: how it stores weights, what that is worth, and what it costs."""
    kind = f"{point.strategy} with {point.cells} cell{'s' * (point.cells > 1)}"
    if point.setting.cells_large != point.cells:
        kind += f", {point.setting.cells_large} for a large weight"
    return f"{kind}, {preset_title(point)}: {value_text(point)} at {point.cost:.2f} all-in cells per weight"


def _factor(point: Point) -> float:
    """Return what a metric is multiplied by to be shown: shares are shown in %."""
    return 100.0 if point.evaluation.share else 1.0


def _unit(points: Sequence[Point]) -> str:
    """Return what a metric is called, and its unit."""
    if not points:
        return ""
    known = METRICS.get(points[0].evaluation.metric)
    unit = "%" if points[0].evaluation.share else known.unit if known else ""
    return f"{_label(points)}{f' in {unit}' * bool(unit)}"


def _label(points: Sequence[Point]) -> str:
    metric = points[0].evaluation.metric
    return METRICS[metric].label if metric in METRICS else metric


def _panels(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Return the points that one table or plot shows together: of one model, channel and preset."""
    channels = {digest(point.setting.channel): str(point.setting.channel) for point in points}
    alike = Counter(channels.values())
    names = {key: f"{name} ({key[:8]})" if alike[name] > 1 else name for key, name in channels.items()}
    parts = [
        lambda point: point.model,
        lambda point: f"channel {names[digest(point.setting.channel)]}",
        preset_title,
    ]  # fmt: skip
    told = [part for part in parts[:2] if len({part(point) for point in points}) > 1] + parts[2:]
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(", ".join(part(point) for part in told), []).append(point)
    return found


def _lost_unit(points: Sequence[Point]) -> str:
    return f"{_label(points)} lost, in percentage points"


def preset_title(point: Point) -> str:
    """Return what a table of points of one preset is called."""
    preset = point.setting.preset
    name = next((name for name, known in PRESETS.items() if known == preset), "")
    label = {"isik2020": " (as in the paper)", "": ""}.get(name, f" ({name})")
    return f"granularity {preset.granularity}, {preset.large_fraction:.2%} large{label}"


def channel_list_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Return the channels that are installed, and what they are."""
    made = table("channel", "what it is", left=2)
    for name, text in rows:
        made.add_row(name, text)
    return made


def channel_table(channel: Channel, *, points: int = 9) -> Table:
    """Return what φ does at a few levels."""
    made = table("level", "σ, 1 cell", "σ, 10 cells", "σ, 500 cells", left=0)
    low, high = channel.span
    level = np.linspace(low, high, points)
    columns = [channel.moments(level, cells=cells)[1] for cells in (1, 10, 500)]
    measurements = channel.measurements
    programmed = None if measurements is None else measurements.programmed(level)
    if measurements is not None:
        made.add_column(f"input, {measurements.input_scale.unit}", justify="right")
    means = None if channel.normal else channel.moments(level)[0]
    if means is not None:
        made.add_column("mean read", justify="right")
    for place, value in enumerate(level):
        row = [f"{value:.4f}", *(f"{column[place]:.4f}" for column in columns)]
        row += [] if programmed is None else [f"{programmed[place]:.4g}"]
        row += [] if means is None else [f"{means[place]:.4f}"]
        made.add_row(*row)
    made.caption = (
        f"span {low:.4f} to {high:.4f}; capacity {of_channel(channel).bits:.2f} bits per cell, reads as normal"
    )
    best = best_of(channel)
    if best is not None:
        made.caption += f"; {best.bits:.2f} with the best choice of as few inputs and codes"
    return made


def fit_table(fit: Fit) -> Table:
    """Return what a fit found."""
    channel, good = fit.channel, fit.goodness
    made = table(f"channel {channel.name}", "value")
    how = "given" if fit.choice is None else "by cross-validation"
    made.add_row("pairs, distinct inputs", f"{channel.pairs:,}, {np.unique(fit.inputs).size:,}")
    made.add_row(f"neighbours k, {how}", str(channel.neighbours))
    made.add_row("span", f"{channel.span[0]:.4f} to {channel.span[1]:.4f}")
    made.add_row("standard deviation", f"{min(channel.stds):.4f} to {max(channel.stds):.4f}")
    made.add_row("capacity, bits per cell", f"{of_channel(channel).bits:.2f}")
    if fit.between_share is not None:
        made.add_row("variance between devices", f"{fit.between_share:.0%}")
    if good.p.size:
        made.add_row("skew of the reads at an input", f"{good.skew.min():.1f} to {good.skew.max():.1f}")
        made.add_row("excess kurtosis", f"{good.excess_kurtosis.min():.1f} to {good.excess_kurtosis.max():.1f}")
        made.add_row("inputs where reads are not normal (at 1 %)", f"{good.rejected:.0%}")
    return made


def levels_table(fit: Fit) -> Table:
    """Return what the reads at each input are like; of very many inputs, some at equal steps."""
    rows = [{**row, "rejects": bool(no)} for row, no in zip(fit.levels(), fit.goodness.rejects, strict=True)]
    count = min(len(rows), _ROWS)
    chosen = np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()
    made = table(
        f"{fit.channel.input_scale.unit}", "mean read", "σ", "skew", "excess kurtosis", "KS distance", "normal?", left=0
    )
    for row in (rows[place] for place in chosen):
        numbers = [f"{row[name]:.4f}" for name in ("mean", "std")]
        shape = [f"{row[name]:.2f}" for name in ("skew", "excess_kurtosis", "ks_distance")]
        made.add_row(f"{row['input']:.6g}", *numbers, *shape, "no" if row["rejects"] else "yes")
    made.caption = f"{len(chosen)} of {len(rows)} inputs with 8 reads or more; all of them with --json"
    return made


def _reads(channel: Channel, level: Any, cells: int, count: int) -> Any:
    rng = stream(0, 0, "report", plane=f"{float(level):.9g}/{cells}")
    return channel.read(np.full(count, level, np.float32), cells=cells, rng=rng)


# ---------------------------------------------------------------------------------------------------- plots


def _figure(panels: int, *, height: float, below: float = 0.0, shared: bool = False) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, each `height` inches high, in a grid with space `below`, about square."""
    _matplotlib().use("Agg")
    from matplotlib import pyplot

    across = panels if panels <= 3 else math.ceil(math.sqrt(panels))
    down = math.ceil(panels / across)
    figure, axes = pyplot.subplots(
        down,
        across,
        figsize=(4.8 * across, height * down + below),
        layout="constrained",
        squeeze=False,
        sharex=shared,
        sharey=shared,
    )
    for axis in axes.flat[panels:]:
        axis.remove()
    return figure, list(axes.flat[:panels])


def _matplotlib() -> Any:
    """Import matplotlib, an extra and slow, and not what a `matplotlibrc` in the current folder says."""
    if "matplotlib" not in sys.modules:
        with contextlib.chdir(os.sep):
            import matplotlib as mpl  # noqa: F401 - it looks for that file while it is imported
    return sys.modules["matplotlib"]


def _saver(figure: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        from matplotlib import pyplot

        try:
            figure.savefig(path, dpi=150, format=path.suffix.lstrip(".") or "png")
        finally:
            pyplot.close(figure)

    return save


def check_plot(path: Path) -> None:
    """Raise `OutputError` if no plot can be written to `path`: matplotlib, or the kind of file, is not there."""
    if not can_plot():
        raise OutputError(NO_PLOTS)
    _matplotlib()
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind and kind not in kinds:
        raise OutputError(f"no plot can be drawn into a file of kind {kind!r}: choose from {', '.join(sorted(kinds))}")


def plot_points(points: Sequence[Point]) -> Callable[[Path], None]:
    """Return a writer of the plot: what is lost against what it costs, a panel for each model, channel and preset.

    Of a metric that is a share, the points (of 100) that are lost to noise, on a logarithmic axis; points that lost
    less than it shows, or gained, lie as triangles on its lower edge. Of any other metric, or where its value without
    noise is not known, the metric itself. Bars are 95 % intervals; rings mark what `choosing.marked` returns.
    """
    panels = _panels(points)
    figure, axes = _figure(len(panels), height=4.2, below=_LEGEND_INCHES, shared=True)
    floor = _floor(points)
    for axis, (title, here) in zip(axes, panels.items(), strict=True):
        for strategy in dict.fromkeys(point.strategy for point in here):
            _curve(axis, [point for point in here if point.strategy == strategy], floor)
        _rings(axis, _front(here), floor)
        _dress(axis, here, title, floor)
    if floor is not None:
        _loss_axis(axes, points, floor)
    _ticks(axes)
    _name_axes(axes, "all-in cells per original weight", _lost_unit(points) if floor else _unit(points))
    _legend(figure, axes)
    return _saver(figure)


def _floor(points: Sequence[Point]) -> float | None:
    """Return the smallest loss that is shown, in points: 1/20 of what one sample counts; None to show the metric."""
    found = [point.evaluation for point in points]
    lossy = all(one.share and one.higher_is_better is True and one.clean is not None for one in found)
    if not points or not lossy:
        return None
    return float(np.clip(5 / max(point.evaluation.samples for point in points), 0.005, 1))


def _shown_value(point: Point, value: float, floor: float | None) -> float:
    """Return where a value of the metric is drawn."""
    if floor is None:
        return _factor(point) * value
    lost = 100 * ((point.evaluation.clean or 0.0) - value)
    return lost if math.isnan(lost) else max(lost, floor)


def _curve(axis: Any, points: Sequence[Point], floor: float | None) -> None:
    ordered = sorted((p for p in points if math.isfinite(_mean_of(p))), key=lambda point: point.cost)
    if not ordered:
        return
    colour, strategy = _COLOURS[ordered[0].strategy], ordered[0].strategy
    x, y = [p.cost for p in ordered], [_shown_value(p, _mean_of(p), floor) for p in ordered]
    ends = [_ends(p, floor) for p in ordered]
    bars = [[max(at - low, 0.0) for at, (low, _) in zip(y, ends, strict=True)],
            [max(high - at, 0.0) for at, (_, high) in zip(y, ends, strict=True)]]  # fmt: skip
    axis.errorbar(x, y, yerr=bars, marker="o", markersize=5, capsize=3, color=colour, label=strategy)
    none = [place for place, at in enumerate(y) if floor is not None and at <= floor]
    if none:
        axis.plot([x[place] for place in none], [y[place] for place in none], "v", markersize=9, color=colour)


def _ends(point: Point, floor: float | None) -> tuple[float, float]:
    """Return where the bar of a point begins and ends, from below; without an interval, at its mean."""
    known = point.ci95 is not None and all(map(math.isfinite, point.ci95))
    ends = point.ci95 if known and point.ci95 is not None else (_mean_of(point),) * 2
    low, high = sorted(_shown_value(point, end, floor) for end in ends)
    return low, high


def _rings(axis: Any, front: Sequence[Point], floor: float | None) -> None:
    ring = {"s": 130, "facecolors": "none", "edgecolors": "black", "linewidths": 0.9, "zorder": 3}
    at = [_shown_value(point, _mean_of(point), floor) for point in front]
    axis.scatter([point.cost for point in front], at, label=_RING if front else None, **ring)


def _dress(axis: Any, points: Sequence[Point], title: str, floor: float | None) -> None:
    lines = textwrap.wrap(title, _TITLE_WIDTH)
    if floor is not None:
        lines.append(_clean_text(points).removeprefix(", "))
    axis.set_title("\n".join(lines), fontsize="medium")
    axis.set_xscale("log")
    axis.grid(alpha=0.3, which="both")
    if floor is None:
        _clean_line(axis, points)


def _loss_axis(axes: Sequence[Any], points: Sequence[Point], floor: float) -> None:
    """Make what is lost logarithmic, and set the edge apart on which all lies that it does not show."""
    from matplotlib.ticker import FuncFormatter

    ends = [low for low, _ in (_ends(point, floor) for point in points) if math.isfinite(low)]
    least = min(ends, default=floor)
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylim(least / 1.3, 130)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if least <= floor:
            axis.axhspan(floor / 1.3, floor * 1.3, color="black", alpha=0.06)
            axis.plot([], [], "v", color="black", label=f"loss below {floor:g}, or a gain")


def _clean_line(axis: Any, points: Sequence[Point]) -> None:
    clean = points[0].evaluation.clean if points else None
    if clean is not None and math.isfinite(clean):
        axis.axhline(_factor(points[0]) * clean, color="black", linewidth=0.8, linestyle=":", label="without noise")


def _ticks(axes: Sequence[Any]) -> None:
    """Label costs at 1, 2 and 5 times powers of ten; where that is too many, at these; too few, at equal steps."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    low, high = axes[0].get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    all_of = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    steps = [at for at in all_of if low <= at <= high]
    if len(steps) > _MOST_TICKS:
        steps = [at for at in steps if f"{at:e}".startswith("1.")]
        steps = steps[:: math.ceil(len(steps) / _MOST_TICKS)]
    if len(steps) < 2:
        steps = list(MaxNLocator(5).tick_values(low, high))
    for axis in axes:
        axis.xaxis.set_major_locator(FixedLocator(steps))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())


def _name_axes(axes: Sequence[Any], x: str, y: str) -> None:
    """Name what the lowest panel of each column shows along x, and the first of each row along y."""
    lowest = {axis.get_subplotspec().colspan.start: axis for axis in axes}
    for axis in lowest.values():
        axis.set_xlabel(x)
        axis.tick_params(labelbottom=True)
    for axis in axes:
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel(y)


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    """Put one legend of all panels under them, off the data."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    found = {label: found[label] for label in sorted(found, key=lambda label: label not in STRATEGIES)}
    across = 2 if figure.get_figwidth() < 8 else 7
    figure.legend(found.values(), found, loc="outside lower center", ncols=across, fontsize="small", frameon=False)


def plot_channel(channel: Channel, pairs: tuple[Any, Any] | None = None) -> Callable[[Path], None]:
    """Return a writer of the channel's plot: mean and σ, the inverse, and φ at 1, 10 and 500 cells.

    `pairs`, inputs and outputs on the scale of -1 to 1, are drawn too; of very many, some.
    """
    measurements = channel.measurements
    figure, axes = _figure(3 if measurements is None else 5, height=3.8)
    if measurements is not None:
        if pairs is not None:
            axes[0].plot(*_some(*pairs), ".", markersize=1, alpha=0.3, color="#8c8c8c", label="measured")
        _plot_device(axes[:2], measurements)
    low, high = channel.span
    level = inside(np.linspace(low, high, 120).astype(np.float32), channel.span)
    for axis, cells in zip(axes[-3:], (1, 10, 500), strict=True):
        reads = np.stack([_reads(channel, value, cells, 25) for value in level])
        axis.plot(np.repeat(level, 25), reads.ravel(), ".", markersize=1.5, alpha=0.4, color=_COLOURS["redundancy"])
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        axis.set(title=f"φ, {cells} cell{'s' * (cells > 1)}", xlabel="level", ylabel="read", ylim=axes[-3].get_ylim())
        axis.grid(alpha=0.3)
    line = round(_TITLE_WIDTH * figure.get_figwidth() / 3.6)
    figure.suptitle(textwrap.fill(f"{channel}: {channel.source}", line), fontsize="small")
    return _saver(figure)


def _some(x: Any, y: Any) -> tuple[Any, Any]:
    """Return at most `_DRAWN` of the pairs, taken at random: of those in step with a sweep, whole inputs would miss."""
    if x.size <= _DRAWN:
        return x, y
    chosen = stream(0, 0, "report", plane="pairs").choice(x.size, _DRAWN, replace=False)
    return x[chosen], y[chosen]


def _plot_device(axes: Any, channel: TableChannel) -> None:
    x, mean, std = (np.array(column) for column in (channel.inputs, channel.means, channel.stds))
    axes[0].plot(x, mean, color=_COLOURS["sign"], label="mean μ")
    axes[0].fill_between(x, mean - std, mean + std, alpha=0.25, color=_COLOURS["sign"], label="μ ± σ")
    axes[0].set(title="channel C", xlabel=f"input ({channel.input_scale.unit}, scaled)", ylabel="read")
    axes[0].legend(fontsize="small", markerscale=4)
    level = np.linspace(*channel.span, 800)
    axes[1].plot(level, channel.inverse.input(level), ".", markersize=2, color=_COLOURS["mapping"])
    axes[1].set(title="inverse f = μ⁻¹ (least σ)", xlabel="level", ylabel="input, scaled")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.locator_params(nbins=6)
