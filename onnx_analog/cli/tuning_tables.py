"""Tables of what `tune` found. Importing them takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnx_analog.cli.cost_tables import DECODING
from onnx_analog.cli.tables import Table, table
from onnx_analog.display import counted

if TYPE_CHECKING:
    from onnx_analog.tuning.drops import Drop
    from onnx_analog.tuning.result import Tuned
    from onnx_analog.tuning.search import Answer


def tables_of(tuned: Tuned) -> Iterator[Table]:
    """Yield the answer, then what was tried on the way, and how each tensor is stored."""
    yield _answer_table(tuned)
    if tuned.best.curve:
        yield _curve_table(tuned.best)
    yield _tensor_table(tuned)


def _answer_table(tuned: Tuned) -> Table:
    result = table(f"{tuned.metric}, {tuned.channel}", "cells per weight", "points lost", "95 % interval")
    named = {"best plan": tuned.best, "best digital rival": tuned.rival, "with analog cells": tuned.analog}
    for name, answer in named.items():
        if answer is not None:
            result.add_row(name, f"{answer.cells:.3f}", *_drop_cells(answer.verified))
    if tuned.limit is not None:
        result.add_row("limit of all codes, at these errors", f"{tuned.limit.cells_per_original_weight:.3f}", "", "")
    samples = counted(tuned.best.verified.samples, "sample")
    corrected = f"; {counted(tuned.corrected, 'number')} of the correction are counted" if tuned.corrected else ""
    original = "" if tuned.original is None else f": original {100 * tuned.original:.2f} %"
    counted_so = ". Cells are counted as the paper does" if tuned.counting == "paper" else ""
    result.caption = (
        f"{tuned.verdict}{counted_so}. Verified on {samples} that nothing else has seen{original}. "
        f"Decoding takes {DECODING[tuned.decoding]} at most{corrected}"
    )
    return result


def _drop_cells(drop: Drop) -> tuple[str, str]:
    low, high = drop.interval()
    return f"{100 * drop.mean:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"


def _curve_table(answer: Answer) -> Table:
    result = table("what was tried: cells per weight", "predicted divergence", "points lost", "95 % interval")
    for point in answer.curve:
        result.add_row(f"{point.cells:.3f}", f"{point.loss:.4f}", *_drop_cells(point.drop))
    return result


def _tensor_table(tuned: Tuned) -> Table:
    result = table("tensor", "stored as", "weights", "cells per weight", "relative error", "divergence", left=2)
    for row in tuned.rows():
        result.add_row(
            row["tensor"],
            row["scheme"],
            f"{row['weights']:,}",
            f"{row['cells_per_weight']:.3f}",
            f"{row['relative_error']:.2%}",
            f"{row['divergence']:.4f}",
        )
    return result
