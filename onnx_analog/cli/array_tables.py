"""Tables of arrays outside this program: what was read, and whether the simulation predicts it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from onnx_analog.cli.tables import Table, table
from onnx_analog.display import counted, percent_as_given, score_ends
from onnx_analog.graph.array_read import ArrayRead
from onnx_analog.run.array_comparison import CONFIDENCE, Comparison, Difference
from onnx_analog.run.array_statistics import Group
from onnx_analog.run.metrics import each_in_db
from onnx_analog.run.statistics import between
from onnx_analog.run.stream_statistics import StreamDifference

MOST_GROUPS = 24  # that are shown one by one


def array_table(array: ArrayRead) -> Table:
    """Return what was irregular in the reads of an array, and how blocks were calibrated."""
    result = table("reads of the array", "", "count", "of", left=2)
    for each in array.irregularities:
        result.add_row(each.what, each.handling if each.count else "", f"{each.count:,}", f"{each.of:,}")
    if array.calibration:
        ends = [
            (min(values), max(values)) for values in zip(*((c.gain, c.offset) for c in array.calibration), strict=True)
        ]
        blocks = counted(len(array.calibration), "block")
        gain, offset = (f"{low:.4g} to {high:.4g}" for low, high in ends)
        result.caption = f"{blocks} calibrated by reference cells: gain {gain}, offset {offset}"
    else:
        result.caption = "Not calibrated: the file names no reference cells"
    return result


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield the levels as a whole and in groups, the streams and, if both arrays were scored, the scores."""
    if comparison.differences:
        yield _levels(comparison.differences)
        yield _groups(comparison)
    if comparison.streams:
        yield _streams(comparison.streams)
    if comparison.measured_value is None or comparison.simulated_mean is None:
        return
    arrays = comparison.simulated_values
    scores = table(comparison.metric or "", "value", "95 % interval")
    scores.add_row(
        "measured (interval over test sets)", comparison.shown(comparison.measured_value), _of_test_set(comparison)
    )
    scores.add_row(
        f"simulated, mean of {counted(len(arrays), 'array')}{each_in_db(comparison.metric or '')}",
        comparison.shown(comparison.simulated_mean),
        between(arrays, comparison.simulated_interval, share=comparison.share, noun="array"),
    )
    scores.add_row(
        "one more simulated array", "", between(arrays, comparison.predicted, share=comparison.share, noun="array")
    )
    yield scores


def _levels(differences: Sequence[Difference]) -> Table:
    """Return one row for all groups with a channel and a number of cells."""
    result = table(
        "levels", "cells", "weights", "mean error", "simulated", "σ", "simulated", "groups that differ", left=1
    )
    names = dict.fromkeys((each.measured.channel, each.measured.cells) for each in differences)
    for channel, cells in names:
        these = [each for each in differences if (each.measured.channel, each.measured.cells) == (channel, cells)]
        one, other = _pooled(each.measured for each in these), _pooled(each.simulated for each in these)
        far = sum(each.differs for each in these)
        numbers = (f"{value:.4f}" for value in (one[1], other[1], one[2], other[2]))
        result.add_row(channel, f"{cells:,}", f"{one[0]:,}", *numbers, f"{far:,} of {len(these):,}")
    return result


def _pooled(groups: Iterable[Group]) -> tuple[int, float, float]:
    """Return number, mean and standard deviation of all errors of some groups."""
    listed = list(groups)
    count = sum(group.count for group in listed)
    mean = sum(group.count * group.mean for group in listed) / count
    square = sum(group.count * (group.std**2 + group.mean**2) for group in listed) / count
    return count, mean, math.sqrt(max(square - mean**2, 0.0))


def _groups(comparison: Comparison) -> Table:
    """Return the groups; of many, those that are farthest beyond their bounds."""
    result = table(
        "groups of levels", "cells", "weights", "mean error", "simulated", "σ", "simulated", "KS distance", "at most",
        "", left=1,
    )  # fmt: skip
    worst = sorted(comparison.differences, key=lambda each: each.ks_bound - each.ks)[:MOST_GROUPS]
    for each in comparison.differences:
        if any(each is shown for shown in worst):
            one, other = each.measured, each.simulated
            result.add_row(
                f"{one.low:.3g} to {one.high:.3g}, {one.channel}",
                f"{one.cells:,}",
                f"{one.count:,}",
                *(f"{value:.4f}" for value in (one.mean, other.mean, one.std, other.std, each.ks, each.ks_bound)),
                "differs" if each.differs else "",
            )
    over_all = f", over all {comparison.comparisons:,} comparisons together" if comparison.comparisons > 1 else ""
    result.caption = (
        "Errors of weights, on the scale of levels. If both arrays followed the same law, all distances and shares "
        f"would be within their bounds with {percent_as_given(CONFIDENCE)} confidence{over_all}"
    )
    if comparison.left_out:
        result.caption += f"; {counted(comparison.left_out, 'group')} with too few weights left out"
    hidden = len(comparison.differences) - len(worst)
    if hidden:
        result.caption += f"; {counted(hidden, 'group')} nearer to the simulation not shown (--json has all)"
    return result


def _streams(streams: Sequence[StreamDifference]) -> Table:
    """Return how the symbols of digital cells were read."""
    result = table(
        "digital cells",
        "code",
        "symbols",
        "misread",
        "simulated",
        "interval",
        "blocks",
        "failed",
        "simulated",
        "",
        left=2,
    )
    for each in streams:
        one, other = each.measured, each.simulated
        blocks = (f"{one.blocks:,}", f"{one.failed:,.0f}", f"{other.failed:.3g}") if one.blocks else ("", "", "")
        low, high = each.misread_interval
        shares = (f"{one.share:.3g}", f"{other.share:.3g}", f"{low:.3g} to {high:.3g}")
        differs = "differs" if each.differs else ""
        result.add_row(f"{one.name}, {one.channel}", one.code, f"{one.symbols:,}", *shares, *blocks, differs)
    result.caption = "Misread: the share of symbols that are taken for another, before any code corrects them"
    return result


def _of_test_set(comparison: Comparison) -> str:
    ends = comparison.measured_interval
    return f"none: {comparison.metric} is not a share of samples" if ends is None else score_ends(ends, share=True)
