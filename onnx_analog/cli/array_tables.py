"""Tables of arrays outside this program: what was read, and whether the simulation predicts it."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_analog.cli.tables import Table, table
from onnx_analog.display import counted
from onnx_analog.graph.array_read import ArrayRead
from onnx_analog.run.array_statistics import Comparison


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
    """Yield the groups of levels and, if both arrays were scored, the scores."""
    groups = table(
        "levels", "cells", "weights", "mean error", "simulated", "σ", "simulated", "KS distance", "at most", "", left=1
    )
    for each in comparison.differences:
        one, other = each.measured, each.simulated
        groups.add_row(
            f"{one.low:.3g} to {one.high:.3g}, {one.channel}",
            f"{one.cells:,}",
            f"{one.count:,}",
            *(f"{value:.4f}" for value in (one.mean, other.mean, one.std, other.std, each.ks, each.ks_bound)),
            "differs" if each.differs else "",
        )
    groups.caption = (
        "Errors of weights, on the scale of levels. If both arrays had one law, all distances would be within their "
        "bounds with 95 % confidence"
    )
    if comparison.left_out:
        groups.caption += f"; {counted(comparison.left_out, 'group')} with too few weights left out"
    yield groups
    if comparison.measured_value is None or comparison.simulated_mean is None:
        return
    scores = table(comparison.metric or "", "value", "95 % interval")
    scores.add_row(
        "measured (interval over test sets)", f"{comparison.measured_value:.4f}", _ends(comparison.measured_interval)
    )
    scores.add_row(
        "simulated, mean of arrays", f"{comparison.simulated_mean:.4f}", _ends(comparison.simulated_interval)
    )
    scores.add_row("one more simulated array", "", _ends(comparison.predicted))
    yield scores


def _ends(ends: tuple[float, float] | None) -> str:
    return "none" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
