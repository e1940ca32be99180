"""Tables for people, and plots. Tables need rich, plots need matplotlib (extra `report`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from onnx_analog.channels import Channel, GaussianChannel, TableChannel
from onnx_analog.channels.base import inside
from onnx_analog.channels.capacity import best_of, of_channel
from onnx_analog.channels.fitting import Fit
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.errors import OutputError
from onnx_analog.evaluation import Evaluation
from onnx_analog.grid import digest
from onnx_analog.manifest import Manifest
from onnx_analog.metrics import SHARES
from onnx_analog.randomness import stream
from onnx_analog.strategies import PRESETS, STRATEGIES
from onnx_analog.sweeps import Point, paired

NO_PLOTS = "no plot: matplotlib is not installed (pip install 'onnx-analog[report]')"
_DRAWN = 5000  # measured pairs at most
_ROWS = 20  # of a table of inputs at most
_COLOURS = {"raw": "#8c8c8c", "sign": "#d1495b", "mapping": "#edae49", "redundancy": "#00798c"}


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def table(*columns: str, title: str = "", left: int = 1) -> Table:
    """Return an empty table, its first `left` columns aligned to the left and folded, the others to the right."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < left else "right", overflow="fold", no_wrap=place >= left)
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
    """Yield the account: tensors and their classes, all lines of the cost, and the digital yardsticks."""
    yield _tensor_table(manifest)
    yield _cost_table(manifest)
    yield _yardstick_table(manifest)


def _tensor_table(manifest: Manifest) -> Table:
    made = table("tensor", "class", "weights", "cells each", "α", "magnitudes", "addresses of its cells", left=2)
    names = ("small", "large") if manifest.tensors and len(manifest.tensors[0].classes) == 2 else ("all",)
    for entry in manifest.tensors:
        first, end = entry.cells["level"][0], entry.cells["codebook"][1]
        for place, found in enumerate(entry.classes):
            made.add_row(
                "" if place else entry.key,
                names[place],
                f"{found.count:,}",
                str(found.cells),
                f"{found.alpha:.4g}",
                f"{found.low:.3g} to {found.high:.3g}",
                "" if place else f"{first:,} to {end - 1:,}",
            )
    return made


def _cost_table(manifest: Manifest) -> Table:
    totals, ratios = manifest.totals, manifest.totals.ratios()
    made = table("what it costs", "cells", "per stored weight", "per original weight")
    bits = manifest.bits_per_cell
    lines = {
        "analog levels (the paper's r_avg)": totals.analog_cells,
        f"header: sign and class, {bits} bits a cell": totals.header_cells,
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
        f"levels and headers alone: {ratios['stored_cells_per_stored_weight']:.3f} cells per stored weight"
    )
    return made


def _yardstick_table(manifest: Manifest) -> Table:
    per_cell = sorted({yardstick.bits_per_cell for yardstick in manifest.yardsticks()})
    made = table("the same weights held digitally", *(f"cells at {bits} bit{'s' * (bits > 1)}" for bits in per_cell))
    made.add_column("against all-in", justify="right")
    rows: dict[str, list[int]] = {}
    for yardstick in manifest.yardsticks():
        if yardstick.pruned and not manifest.totals.mask_bitmap_bits:
            continue  # nothing is pruned, so it would say the same again
        rows.setdefault(f"{yardstick.name}, {'pruned' if yardstick.pruned else 'dense'}", []).append(yardstick.cells)
    for name, cells in rows.items():
        made.add_row(name, *(f"{count:,}" for count in cells), f"{cells[-1] / manifest.totals.all_in_cells:.2f}×")
    return made


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
        (f"with noise, mean of {len(found.values)} trials", found.mean),
        ("standard deviation over trials", found.std),
    ]
    for name, value in rows:
        if value is not None:
            made.add_row(name, f"{value:.4f}")
    if found.values:
        made.add_row("95 % interval of the mean", _between(found.ci95))
    if found.drop is not None:
        made.add_row("drop: without noise less with noise", f"{found.drop:+.4f}")
        made.add_row("95 % interval of the drop", _between(found.drop_ci95, "+.4f"))
    if found.test_set_error is not None:
        made.add_row(f"standard error of a set of {found.samples:,} samples", f"{found.test_set_error:.4f}")
    ratios = [value for value in found.sqnr_db if not math.isnan(value)]
    if ratios:
        made.add_row("output SQNR, mean", f"{np.mean(ratios):.1f} dB")
    made.caption = "; ".join(_remarks(found)) or None
    return made


def _between(ends: tuple[float, float] | None, form: str = ".4f") -> str:
    if ends is None or not all(map(math.isfinite, ends)):
        return "too few trials to tell"
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def _remarks(found: Evaluation) -> Iterator[str]:
    """Yield what the numbers rest on."""
    if found.ci95 is not None:
        yield "intervals: Student's t over trials; the error of a finite test set is not in it"
    if found.higher_is_better is False:
        yield "lower is better"
    if found.preprocessing:
        yield f"inputs: {found.preprocessing}"


def points_tables(points: Sequence[Point]) -> Iterator[Table]:
    """Yield strategies × cells for each model, channel and preset: mean, 95 % interval and cost."""
    for title, here in _panels(points).items():
        yield _points_table(here, title)


def _points_table(points: Sequence[Point], title: str) -> Table:
    cells = sorted({point.cells for point in points})
    headings = [f"{count} cell{'s' * (count > 1)}" for count in cells]
    made = table("strategy", "row of the paper", *headings, title=title, left=2)
    front = pareto(points)
    for strategy in dict.fromkeys(point.strategy for point in points):
        found = {point.cells: point for point in points if point.strategy == strategy}
        made.add_row(
            strategy,
            STRATEGIES[strategy].row,
            *(("◆ " if found[c] in front else "") + cell_text(found[c]) if c in found else "" for c in cells),
        )
    made.caption = (
        f"{_unit(points)}, ± half of its 95 % interval [all-in cells per original weight]; "
        "◆: nothing cheaper is as good"
    )
    return made


def differences_table(points: Sequence[Point]) -> Table | None:
    """Return what each strategy is above the first, at the same cells and under the same noise; None if there is one.

    The interval is Student's t over differences of trials of one number.
    """
    first = points[0].strategy if points else ""
    if all(point.strategy == first or not point.evaluation.values for point in points):
        return None
    made = table("", "strategy", "cells", f"above {first}", "95 % interval", left=2)
    for title, here in _panels(points).items():
        base = {point.cells: point for point in here if point.strategy == first}
        for point in here:
            if point.strategy != first and point.evaluation.values and point.cells in base:
                mean, ends = paired(point, base[point.cells])
                factor = _factor(point)
                between = "" if ends is None else f"{factor * ends[0]:+.2f} to {factor * ends[1]:+.2f}"
                made.add_row(title, point.strategy, str(point.cells), f"{factor * mean:+.2f}", between)
    made.caption = f"{_unit(points)}; paired: trials of one number share their noise"
    return made


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is at least as good as, on average, and cheaper, or better and no dearer."""

    def beaten(one: Point) -> bool:
        return any(
            other.cost <= one.cost and _mean_of(other) >= _mean_of(one)
            and (other.cost < one.cost or _mean_of(other) > _mean_of(one))
            for other in points
        )  # fmt: skip

    return [point for point in points if not math.isnan(_mean_of(point)) and not beaten(point)]


def _mean_of(point: Point) -> float:
    return math.nan if point.evaluation.mean is None else point.evaluation.mean


def cell_text(point: Point) -> str:
    """Return the mean (a share in %), half of its interval, and what it costs."""
    found, factor = point.evaluation, _factor(point)
    half = "" if point.ci95 is None else f" ± {factor * (point.ci95[1] - point.ci95[0]) / 2:.2f}"
    mean = "no trial" if found.mean is None else f"{factor * found.mean:.2f}"
    return f"{mean}{half} [{point.cost:.2f}]"


def _factor(point: Point) -> float:
    """Return what a metric is multiplied by to be shown: shares are shown in %."""
    return 100.0 if point.evaluation.metric in SHARES else 1.0


def _unit(points: Sequence[Point]) -> str:
    names = {"top1": "accuracy in %", "agreement": "agreement without noise, in %", "sqnr_db": "output SQNR in dB"}
    metric = points[0].evaluation.metric if points else ""
    return names.get(metric, metric)


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


def preset_title(point: Point) -> str:
    """Return what a table of points of one preset is called."""
    preset = point.setting.preset
    name = next((name for name, known in PRESETS.items() if known == preset), "")
    label = {"isik2020": " (as in the paper)", "": ""}.get(name, f" ({name})")
    return f"scope {preset.scope}, {preset.large_fraction:.2%} large{label}"


def channel_list_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Return the channels that are installed, and what they are."""
    made = table("channel", "what it is")
    made.columns[1].justify, made.columns[1].no_wrap = "left", False
    for name, text in rows:
        made.add_row(name, text)
    return made


def channel_table(channel: Channel, *, points: int = 9) -> Table:
    """Return what φ does at a few levels."""
    made = table("level", "σ, 1 cell", "σ, 10 cells", "σ, 500 cells", left=0)
    low, high = channel.span
    level = np.linspace(low, high, points)
    columns = [_std(channel, level, cells) for cells in (1, 10, 500)]
    programmed = channel.programmed(level) if isinstance(channel, TableChannel) else None
    if programmed is not None and isinstance(channel, TableChannel):
        made.add_column(f"input, {channel.input_scale.unit}", justify="right")
    means = None if isinstance(channel, GaussianChannel) else _mean(channel, level)
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
    if isinstance(channel, LimitedPrecision):
        made.caption += f"; {best_of(channel).bits:.2f} with the best choice of as few inputs and codes"
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


def _std(channel: Channel, level: Any, cells: int) -> Any:
    """Return the standard deviation of φ: known for a Gaussian channel, otherwise that of 2,000 reads."""
    held = inside(level.astype(np.float32), channel.span)
    if isinstance(channel, GaussianChannel):
        return channel.scale(held, cells=cells)
    return np.array([_reads(channel, value, cells, 2000).std() for value in held])


def _mean(channel: Channel, level: Any) -> Any:
    held = inside(level.astype(np.float32), channel.span)
    return np.array([_reads(channel, value, 1, 2000).mean() for value in held])


def _reads(channel: Channel, level: Any, cells: int, count: int) -> Any:
    rng = stream(0, 0, "report", plane=f"{float(level):.9g}/{cells}")
    return channel.read(np.full(count, level, np.float32), cells=cells, rng=rng)


# ---------------------------------------------------------------------------------------------------- plots


def _figure(panels: int, *, height: float = 4.2) -> tuple[Any, Any]:
    import matplotlib as mpl  # an extra, and slow to import

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, panels, figsize=(4.8 * panels, height), layout="constrained", squeeze=False)
    return figure, axes[0]


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
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind and kind not in kinds:
        raise OutputError(f"no plot can be drawn into a file of kind {kind!r}: choose from {', '.join(sorted(kinds))}")


def plot_points(points: Sequence[Point]) -> Callable[[Path], None]:
    """Return a writer of the plot: the metric against what it costs, a panel for each model, channel and preset.

    Bars are 95 % intervals; rings mark the Pareto front.
    """
    panels = _panels(points)
    figure, axes = _figure(len(panels))
    from matplotlib.ticker import LogLocator

    for axis, (title, here) in zip(axes, panels.items(), strict=True):
        for strategy in dict.fromkeys(point.strategy for point in here):
            _curve(axis, [point for point in here if point.strategy == strategy])
        factor, clean, front = _factor(here[0]), here[0].evaluation.clean, pareto(here)
        if clean is not None:
            axis.axhline(factor * clean, color="black", linewidth=0.8, linestyle=":", label="without noise")
        means = [factor * _mean_of(p) for p in front]
        ring = {"s": 110, "facecolors": "none", "edgecolors": "black", "linewidths": 0.8, "zorder": 3}
        axis.scatter([p.cost for p in front], means, label="Pareto front", **ring)
        axis.set(title=title, xscale="log", xlabel="all-in cells per original weight", ylabel=_unit(here))
        if factor == 100:
            low, high = axis.get_ylim()
            axis.set_ylim(max(low, 0), min(high, 100))
        axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))  # more labels would touch
        for part in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            part("{x:.3g}")
        axis.grid(alpha=0.3, which="both")
    axes[0].legend(fontsize="small")
    return _saver(figure)


def _curve(axis: Any, points: Sequence[Point]) -> None:
    factor, ordered = _factor(points[0]), sorted(points, key=lambda point: point.cost)
    half = [0 if p.ci95 is None else factor * (p.ci95[1] - p.ci95[0]) / 2 for p in ordered]
    means = [factor * _mean_of(point) for point in ordered]
    strategy = ordered[0].strategy
    axis.errorbar(
        [p.cost for p in ordered], means, yerr=half, marker="o", capsize=3, color=_COLOURS[strategy], label=strategy
    )


def plot_channel(channel: Channel, pairs: tuple[Any, Any] | None = None) -> Callable[[Path], None]:
    """Return a writer of the channel's plot: mean and σ, the inverse, and φ at 1, 10 and 500 cells.

    `pairs`, inputs and outputs on the scale of -1 to 1, are drawn too; of very many, some.
    """
    tabled = isinstance(channel, TableChannel)
    figure, axes = _figure(5 if tabled else 3, height=3.8)
    if isinstance(channel, TableChannel):
        if pairs is not None:
            axes[0].plot(*_some(*pairs), ".", markersize=1, alpha=0.3, color="#8c8c8c", label="measured")
        _plot_device(axes[:2], channel)
    low, high = channel.span
    level = inside(np.linspace(low, high, 120).astype(np.float32), channel.span)
    for axis, cells in zip(axes[-3:], (1, 10, 500), strict=True):
        reads = np.stack([_reads(channel, value, cells, 25) for value in level])
        axis.plot(np.repeat(level, 25), reads.ravel(), ".", markersize=1.5, alpha=0.4, color=_COLOURS["redundancy"])
        axis.plot([low, high], [low, high], color="black", linewidth=0.8)
        axis.set(
            title=f"φ, {cells} cell{'s' * (cells > 1)}", xlabel="level", ylabel="read", ylim=(low - 0.6, high + 0.6)
        )
        axis.grid(alpha=0.3)
    figure.suptitle(f"{channel}: {channel.source}", fontsize="small")
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
