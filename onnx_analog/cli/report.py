"""Tables of evaluations, sweeps and channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from onnx_analog.channels import Channel
from onnx_analog.channels.capacity import best_of, both
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.fitting import Fit
from onnx_analog.channels.outliers import FAR
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.table import Scale
from onnx_analog.cli.cost_tables import DECODING
from onnx_analog.cli.tables import Table, table
from onnx_analog.coding.plan import Plan
from onnx_analog.display import bits, change, counted, per_weight, percent, score
from onnx_analog.points import (
    COUNTING,
    Panel,
    costs_text,
    factor,
    front,
    higher_is_better,
    label,
    name_of,
    noise_free_text,
    panels,
    preset_title,
    series,
    unit,
)
from onnx_analog.run.evaluation import MEAN_NOISE, Evaluation
from onnx_analog.run.metrics import mean_note
from onnx_analog.run.statistics import ENOUGH, between
from onnx_analog.study import choosing
from onnx_analog.study.rivals import Float16
from onnx_analog.study.sweeps import Point, paired
from onnx_analog.within import NOTE, Within

_ROWS = 20  # of a table of inputs at most
_SHOWN = 0.01  # the last digit that is shown of a metric


# --------------------------------------------------------------------------------------------------- tables


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the table of an evaluation."""
    result = table(evaluation.heading, "value")
    if evaluation.output is not None:
        result.add_row("output", evaluation.output)
    if evaluation.class_axis is not None:
        result.add_row("class axis", str(evaluation.class_axis))
    rows: list[tuple[str, float | None]] = [
        ("original model", evaluation.original),
        (evaluation.stored_name, evaluation.stored),
        (evaluation.mean_name, evaluation.mean),
    ]
    for name, value in rows:
        if value is not None:
            result.add_row(name, evaluation.shown(value))
    intervals = _no_intervals(evaluation) is None
    if evaluation.std is not None:
        result.add_row("standard deviation over trials", change(evaluation.std, share=evaluation.share, sign=""))
    if evaluation.values and intervals:
        result.add_row("95 % interval of the mean", _between(evaluation, evaluation.ci95))
    _add_uncorrected(result, evaluation, intervals=intervals)
    _add_change(result, evaluation, intervals=intervals)
    if evaluation.test_set_error is not None:
        result.add_row(
            f"standard error of a test set of {evaluation.samples:,}",
            change(evaluation.test_set_error, share=evaluation.share, sign=""),
        )
    if evaluation.limit is not None:
        limit = evaluation.limit
        result.add_row("limit: cells per original weight, at least", per_weight(limit.cells_per_original_weight))
        if limit.factor is not None:
            without = "" if evaluation.correction is None else ", without the correction"
            result.add_row(f"cells as the memory allows{without}, against the limit", f"{limit.factor:.2f}×")
    if evaluation.sqnr_db_of_mean_noise is not None:
        result.add_row(MEAN_NOISE, f"{evaluation.sqnr_db_of_mean_noise:.1f} dB")
    result.caption = " ".join(_remarks(evaluation)) or None
    return result


def _add_change(result: Table, evaluation: Evaluation, *, intervals: bool) -> None:
    """Add by how much noise or a read makes a value worse: a decrease or, where lower ones are better, an increase."""
    drop, ends = evaluation.drop, evaluation.drop_ci95
    if drop is None:
        return
    way = "decrease"
    if evaluation.higher_is_better is False:
        way, drop, ends = "increase", -drop, None if ends is None else (-ends[1], -ends[0])
    baseline = "stored model" if evaluation.original is None else "original"
    result.add_row(f"{way} from the {baseline}", change(drop, share=evaluation.share))
    if intervals and evaluation.values:
        result.add_row(f"95 % interval of the {way}", _between(evaluation, ends, changes=True))


def _add_uncorrected(result: Table, evaluation: Evaluation, *, intervals: bool) -> None:
    """Add what the same reads are worth without correction, and what it changes and costs."""
    without = evaluation.uncorrected
    if without is None or without.mean is None or evaluation.change is None:
        return
    result.add_row("without correction, the same trials", evaluation.shown(without.mean))
    if intervals:
        result.add_row("95 % interval without correction", _between(without, without.ci95))
    result.add_row("change by the correction", change(evaluation.change, share=evaluation.share))
    if intervals:
        result.add_row("95 % interval of the change", _between(evaluation, evaluation.change_ci95, changes=True))
    if evaluation.correction is not None:
        result.add_row("numbers kept for the correction, 16 bits each", f"{evaluation.correction.numbers:,}")


def _no_intervals(evaluation: Evaluation) -> str | None:
    """Return why trials give no interval at all; None if they give one, or there are no trials."""
    without = evaluation.uncorrected
    if not evaluation.values or evaluation.ci95 is not None or (without is not None and without.ci95 is not None):
        return None
    return _between(evaluation, None).removeprefix("none: ")


def _between(evaluation: Evaluation, ends: tuple[float, float] | None, *, changes: bool = False) -> str:
    return between(evaluation.values, ends, share=evaluation.share, changes=changes)


def _remarks(evaluation: Evaluation) -> Iterator[str]:
    """Yield the remarks under the table."""
    if evaluation.values and mean_note(evaluation.metric):
        yield f"{mean_note(evaluation.metric)}."
    if evaluation.ci95 is not None:
        yield "Intervals are Student's t over trials; they leave out the error of a finite test set."
    if (why := _no_intervals(evaluation)) is not None:
        yield f"There are no intervals: {why}."
    if not evaluation.knows_original:
        yield "The original is not known: name it with --reference."
    if evaluation.uncorrected is not None:
        yield f"Corrected: {evaluation.corrected}."
    if evaluation.higher_is_better is False:
        yield "Lower values are better."
    if evaluation.preprocessing:
        yield f"Inputs: {evaluation.preprocessing}."


def points_tables(points: Sequence[Point], counting: str = "memory") -> Iterator[Table]:
    """Yield, for each model, channel and preset, strategies × cells and the plans: mean, 95 % interval and costs.

    On a console too narrow for that, a table has a row for each point. Points are marked by the cells of `counting`.
    """
    for panel in panels(points):
        marks = _marks(panel.points, counting)
        if panel.gridded:
            listed = _list_table(panel.gridded, panel, marks, counting)
            if panel.gridded[0].evaluation.limit is not None:  # for which cells of a grid have no room
                yield listed
            else:
                wide = _grid_table(panel, marks, counting)
                wide.narrower = listed
                yield wide
        if panel.planned:
            yield _list_table(panel.planned, panel, marks, counting)


def _grid_table(panel: Panel, marks: dict[int, str], counting: str) -> Table:
    cells = sorted({point.cells for point in panel.gridded})
    result = table("strategy", *(counted(count, "cell") for count in cells), title=panel.title)
    for name in dict.fromkeys(map(series, panel.gridded)):
        row = {p.cells: marks[id(p)] + cell_text(p) for p in panel.gridded if series(p) == name}
        result.add_row(name, *(row.get(count, "") for count in cells))
    how = "; in brackets, cells per original weight as the paper counts / as the memory allows"
    result.caption = ". ".join([_note(panel.points, counting, how), *_decoding_note(panel.gridded)])
    return result


def _decoding_note(points: Sequence[Point]) -> Iterator[str]:
    """Yield what decoding takes as the memory allows, by level."""
    known = [point for point in points if point.honest_cost is not None]
    levels = {each: [series(point) for point in known if point.decoding == each] for each in DECODING}
    used = {each: dict.fromkeys(names) for each, names in levels.items() if names}
    if len(used) == 1:
        yield f"Decoding: {DECODING[next(iter(used))]}"
    elif used:
        yield "Decoding: " + "; ".join(f"{DECODING[each]} for {', '.join(names)}" for each, names in used.items())


def _list_table(points: Sequence[Point], panel: Panel, marks: dict[int, str], counting: str) -> Table:
    """Return a table with a row for each point; a plan has no number of cells."""
    planned = points[0].setting.planned
    title = panel.planned_title if planned else panel.title
    columns = ["plan", "stored as"] if planned else ["strategy", "cells"]
    costs = ("cells per original weight: as the paper counts", "as the memory allows", "decoding")
    result = table(*columns, "mean", *costs, title=title, left=1 + planned)
    result.columns[-1].justify = "left"
    for heading in ("limit", "against it, as the memory allows") if points[0].evaluation.limit is not None else ():
        result.add_column(heading, justify="right")
    for point in points:
        how = _plan_text(point.setting.plan) if planned else str(point.cells)
        paper, memory = costs_text(point).split(" / ")
        decoding = "" if point.honest_cost is None else point.decoding
        lowest = [] if points[0].evaluation.limit is None else _limit_cells(point)
        result.add_row(series(point), how, marks[id(point)] + value_text(point), paper, memory, decoding, *lowest)
    result.caption = ". ".join([_note(panel.points, counting), *_levels_note(points)])
    return result


def _limit_cells(point: Point) -> list[str]:
    """Return the limit in cells per original weight, and how many times as many the point takes."""
    limit = point.evaluation.limit
    if limit is None:
        return ["", ""]
    factor = "" if limit.factor is None else f"{limit.factor:.2f}×"
    return [per_weight(limit.cells_per_original_weight), factor]


def _levels_note(points: Sequence[Point]) -> Iterator[str]:
    used = {point.decoding for point in points if point.honest_cost is not None}
    if used:
        yield f"Decoding: {'; '.join(text for level, text in DECODING.items() if level in used)}"


def _plan_text(plan: Plan) -> str:
    schemes = plan.schemes
    return str(schemes[0]) if len(schemes) == 1 else counted(len(schemes), "scheme")


def _marks(points: Sequence[Point], counting: str) -> dict[int, str]:
    """Return, by identity, the mark before a point."""
    marked = {id(point) for point in front(points, counting)}
    return {id(point): "◆ " * (id(point) in marked) for point in points}


def _note(points: Sequence[Point], counting: str, more: str = "") -> str:
    """Return the caption of a table of points."""
    parts = [f"{unit(points)}{noise_free_text(points)}"]
    if any(point.ci95 is not None for point in points):
        parts[0] += f"; {_interval_note(points)}"
    if any(point.evaluation.values for point in points):
        parts[0] += more
        parts += [*_mean_note(points), *_mark_note(points, counting), *_missing_note(points)]
    return ". ".join(parts)


def _mean_note(points: Sequence[Point]) -> Iterator[str]:
    note = mean_note(points[0].evaluation.metric)
    if note:
        yield note


def _mark_note(points: Sequence[Point], counting: str) -> Iterator[str]:
    if higher_is_better(points) is None:
        yield "Nothing is marked: the metric does not say which values are better"
        return
    counting = choosing.counting_of(points, counting)
    of_decoding = Counter(point.decoding if counting == "memory" else "" for point in points)
    if max(of_decoding.values()) > 1 and any(choosing.interval_of(point) is not None for point in points):
        who = "◆" if front(points, counting) else "No point is"
        alike = " with the same decoding" * (len(of_decoding) > 1)
        yield f"{who} better than every cheaper point{alike}; cells are compared {COUNTING[counting]}"
        yield f"Better: intervals do not overlap{_samples_note(points)}"


def _samples_note(points: Sequence[Point]) -> str:
    if not choosing.samples_count(points):
        return ""
    samples = counted(min(point.evaluation.samples for point in points), "sample")
    return f"; and if all scores of a point are equal, the difference is more than the choice of {samples} explains"


def _missing_note(points: Sequence[Point]) -> Iterator[str]:
    counts = {len(point.evaluation.values) for point in points if point.ci95 is None} - {0}
    if 1 in counts:
        yield "One trial has no interval"
    if counts - {1}:
        yield "Points whose scores are all equal have no interval"
    if any(point.ci95 is not None and len(point.evaluation.values) < ENOUGH for point in points):
        yield f"Intervals of two trials are too wide to be of use: run {ENOUGH} or more"


def _interval_note(points: Sequence[Point]) -> str:
    texts = [value_text(point) for point in points]
    signs = {"± half of the 95 % interval": "±", "(ends of the 95 % interval)": "("}
    return " or ".join(meaning for meaning, sign in signs.items() if any(sign in text for text in texts))


def float16_table(rivals: Sequence[Float16], *, share: bool | None) -> Table:
    """Return the table of models in float16; `share` says whether the metric is one."""
    costs = ("cells per original weight: as the paper counts", "as the memory allows", "decoding")
    result = table("float16, without noise", "channel", "value", *costs, left=2)
    result.columns[-1].justify = "left"
    for each in rivals:
        honest = "" if each.honest_cost is None else f"{each.honest_cost:.2f}"
        result.add_row(
            each.model, each.channel, score(each.value, share=share), f"{each.cost:.2f}", honest, each.decoding
        )
    return result


def corrections_tables(points: Sequence[Point]) -> Iterator[Table]:
    """Yield, for each panel whose trials were corrected, each point with and without the correction."""
    for panel in panels(points):
        corrected = [point for point in panel.points if point.evaluation.uncorrected is not None]
        if not corrected:
            continue
        title = f"correction by {corrected[0].evaluation.corrected_by}: {panel.title}"
        plans = " or plan" * any(point.setting.planned for point in corrected)
        columns = ("cells", "without", "with", "change", "95 % interval", "numbers kept")
        result = table(f"strategy{plans}", *columns, title=title)
        for point in corrected:
            result.add_row(*_corrected_row(point))
        shown_in = f"{label(points)} in percentage points" if factor(points[0]) == 100 else unit(points)
        result.caption = f"{shown_in}; paired: each trial is scored with and without; numbers have 16 bits each"
        yield result


def _corrected_row(point: Point) -> list[str]:
    evaluation, scale = point.evaluation, factor(point)
    without, change, ends = evaluation.uncorrected, evaluation.change, evaluation.change_ci95
    assert without is not None
    assert without.mean is not None
    assert evaluation.mean is not None
    assert change is not None
    between = "" if ends is None else f"{scale * ends[0]:+z.2f} to {scale * ends[1]:+z.2f}"
    numbers = "" if evaluation.correction is None else f"{evaluation.correction.numbers:,}"
    values = [f"{scale * without.mean:.2f}", f"{scale * evaluation.mean:.2f}", f"{scale * change:+z.2f}"]
    cells = "" if point.setting.planned else str(point.cells)  # of a plan, there is no such number
    return [series(point), cells, *values, between, numbers]


def differences_tables(points: Sequence[Point]) -> Iterator[Table]:
    """Yield, for each panel, the difference of each line from its first, at the same cells and under the same noise.

    A panel without such a pair has no table. The interval is Student's t over the differences between trials with the
    same number.
    """
    for panel in panels(points):
        rows = list(_differences(panel))
        if not rows:
            continue
        title = f"difference from {series(panel.gridded[0])}: {panel.title}"
        result = table("strategy", "cells", "difference", "95 % interval", title=title)
        for row in rows:
            result.add_row(*row)
        shown_in = f"{label(points)} in percentage points" if factor(points[0]) == 100 else unit(points)
        result.caption = f"{shown_in}; paired: trials with the same number have the same noise"
        yield result


def within_lines(answers: Sequence[Within]) -> Iterator[str]:
    """Yield what is told of a limit, for each model and channel, and how it is told."""
    for answer in answers:
        yield str(answer)
    if answers:
        yield NOTE


def _differences(panel: Panel) -> Iterator[list[str]]:
    """Yield strategy, cells, difference and interval of each point that the first line has at the same cells."""
    first = series(panel.gridded[0]) if panel.gridded else ""
    base = {point.cells: point for point in panel.gridded if series(point) == first}
    for point in panel.gridded:
        if series(point) != first and point.evaluation.values and point.cells in base:
            mean, ends = paired(point, base[point.cells])
            scale = factor(point)
            between = "" if ends is None else f"{scale * ends[0]:+z.2f} to {scale * ends[1]:+z.2f}"
            yield [series(point), str(point.cells), f"{scale * mean:+z.2f}", between]


def cell_text(point: Point) -> str:
    """Return the mean (a share in %), its interval, and the cost in both countings."""
    return f"{value_text(point)} [{costs_text(point)}]"


def value_text(point: Point) -> str:
    """Return the mean (a share in %) and its interval: ± half of it if it is symmetric, otherwise both ends."""
    mean, scale = point.evaluation.mean, factor(point)
    if mean is None:
        return "no trial"
    shown = f"{scale * mean:.2f}"
    if point.ci95 is None:
        return shown
    low, high = (scale * end for end in point.ci95)
    below, above = scale * mean - low, high - scale * mean
    if abs(below - above) < _SHOWN:
        return f"{shown} ± {(high - low) / 2:.2f}"
    return f"{shown} ({low:.2f} to {high:.2f})"


def choice_text(point: Point) -> str:
    """Return a point in words: how it stores weights, the metric, and the cost."""
    if point.setting.planned:
        return f"{name_of(point)}: {value_text(point)} at {_cost_words(point)}"
    kind = f"{series(point)} with {counted(point.cells, 'cell')}"
    if point.setting.cells_large != point.cells:
        kind += f", {point.setting.cells_large} for a large weight"
    return f"{kind}, {preset_title(point)}: {value_text(point)} at {_cost_words(point)}"


def _cost_words(point: Point) -> str:
    honest = "" if point.honest_cost is None else f", {point.honest_cost:.2f} as the memory allows"
    return f"{point.cost:.2f} all-in cells per weight as the paper counts{honest}"


def channel_list_table(rows: Sequence[tuple[str, str]]) -> Table:
    """Return the table of installed channels and their descriptions."""
    result = table("channel", "description", left=2)
    for name, text in rows:
        result.add_row(name, text)
    return result


def channel_table(channel: Channel, *, points: int = 9) -> Table:
    """Return the table of the noise at a few levels."""
    result = table("level", "σ, 1 cell", "σ, 10 cells", "σ, 500 cells", left=0)
    low, high = channel.span
    level = np.linspace(low, high, points)
    columns = [channel.moments(level, cells=cells)[1] for cells in (1, 10, 500)]
    measurements = channel.measurements
    programmed = None if measurements is None else measurements.programmed(level)
    if measurements is not None:
        result.add_column(measurements.input_scale.named("input"), justify="right")
        result.add_column(measurements.output_scale.named("output"), justify="right")
    means = None if channel.normal else channel.moments(level)[0]
    if means is not None:
        result.add_column("mean read", justify="right")
    for number, value in enumerate(level):
        row = [f"{value:.4f}", *(f"{column[number]:.4f}" for column in columns)]
        if measurements is not None and programmed is not None:
            row += [f"{programmed[number]:.4g}", _number(float(measurements.output_scale.undo(value)))]
        row += [] if means is None else [f"{means[number]:.4f}"]
        result.add_row(*row)
    result.caption = f"output range {low:.4f} to {high:.4f}; {_capacities(channel)}"
    return result


def _capacities(channel: Channel) -> str:
    """Return a channel's capacity in words: for normal reads, for measured residuals, and with well-chosen inputs."""
    text, best = f"capacity {both(channel)}", best_of(channel)
    if best is None:
        return text
    drawn = isinstance(channel, LimitedPrecision) and isinstance(channel.inner, EmpiricalChannel)
    law = "residuals as measured" if drawn else "normal reads"
    return f"{text}; {bits(best.bits)} with the best choice of inputs, for {law}"


def fit_table(fit: Fit) -> Table:
    """Return the summary of a fit."""
    channel, good = fit.channel, fit.goodness
    result = table(f"channel {channel.name}", "value")
    how = "given" if fit.choice is None else "by cross-validation"
    result.add_row("pairs, distinct inputs", f"{channel.pairs:,}, {np.unique(fit.inputs).size:,}")
    if fit.missing:
        result.add_row("rows without a value, left out", f"{fit.missing:,}")
    far = f"reads more than {FAR:g} σ from their median"
    if fit.left_out:
        result.add_row(f"{far}, left out", f"{fit.left_out:,}")
    else:
        result.add_row(far, f"{fit.outliers:,}")
    result.add_row(f"neighbours k, {how}", str(channel.neighbours))
    scale, stds = channel.output_scale, (min(channel.stds), max(channel.stds))
    spreads = scale.spread(np.array(stds)).tolist()
    result.add_row(scale.named("output range"), " to ".join(map(_number, fit.output_range)))
    result.add_row("output range in levels", "{:.4f} to {:.4f}".format(*channel.span))
    result.add_row(_spread_of("σ at the inputs", scale), " to ".join(map(_number, spreads)))
    result.add_row("σ at the inputs in levels", "{:.4f} to {:.4f}".format(*stds))
    normal, measured = both(channel)
    result.add_row("capacity for normal reads, bits per cell", bits(normal))
    if measured is not None:
        result.add_row("capacity for residuals as measured, bits per cell", bits(measured))
    if fit.between_share is not None:
        result.add_row("variance between devices", percent(fit.between_share))
    if good.p.size:
        result.add_row("skew of the reads at an input", f"{good.skew.min():z.1f} to {good.skew.max():z.1f}")
        result.add_row("excess kurtosis", f"{good.excess_kurtosis.min():z.1f} to {good.excess_kurtosis.max():z.1f}")
        result.add_row("inputs where reads are not normal (at 1 %)", percent(good.rejected))
    return result


def _number(value: float) -> str:
    """Return a number in a device's unit, to four digits; those of resistances are written out."""
    return f"{float(f'{value:.4g}'):,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def _spread_of(what: str, scale: Scale) -> str:
    return f"{what}, as a factor" if scale.log else scale.named(what)


def levels_table(fit: Fit) -> Table:
    """Return the statistics of the reads at each input, or at equally spaced inputs if there are very many."""
    rejects = fit.goodness.rejects.tolist()
    rows = [{**row, "rejects": rejected} for row, rejected in zip(fit.levels(), rejects, strict=True)]
    count = min(len(rows), _ROWS)
    chosen = np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()
    scale = fit.channel.output_scale
    result = table(
        fit.channel.input_scale.unit, scale.named("geometric mean" if scale.log else "mean"),
        _spread_of("σ", scale), "skew", "excess kurtosis", "KS distance", "normal?", left=0,
    )  # fmt: skip
    for row in (rows[number] for number in chosen):
        numbers = [_number(row[name]) for name in ("output_mean", "output_spread")]
        shape = [f"{row[name]:z.2f}" for name in ("skew", "excess_kurtosis", "ks_distance")]
        result.add_row(f"{row['input']:.6g}", *numbers, *shape, "no" if row["rejects"] else "yes")
    shown = f"{len(chosen)} of {len(rows)} inputs with 8 reads or more; all of them with --json"
    result.caption = f"{_what_is_fitted(scale)} {shown}"
    return result


def _what_is_fitted(scale: Scale) -> str:
    """Return sentences that say what levels stand for, and what follows where they are logarithms."""
    kind = f"{'log10 of ' * scale.log}{scale.unit or 'the output'}"
    text = f"Levels are {kind} from {scale.low:.6g} to {scale.high:.6g} on a scale from -1 to 1."
    if not scale.log:
        return text
    return (
        f"{text} So the mean is geometric, and σ is a factor: a read that is one σ off is the mean times σ, or divided "
        f"by σ. Skew, kurtosis and tests are those of {kind}."
    )
