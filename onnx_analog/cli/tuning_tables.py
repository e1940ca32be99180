"""Tables of what `tune` found. Importing them takes no time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnx_analog.cli.cost_tables import DECODING
from onnx_analog.cli.tables import Table, table
from onnx_analog.display import capital, counted, per_weight, percent, percent_as_given, percent_number, rounded_alike

if TYPE_CHECKING:
    from onnx_analog.tuning.answers import Look
    from onnx_analog.tuning.drops import Drop
    from onnx_analog.tuning.result import Tuned

INTERVAL = "95 % interval"


def tables_of(tuned: Tuned) -> Iterator[Table]:
    """Yield the answer, how sure it is, what was tried on the way, and how each tensor is stored."""
    yield _answer_table(tuned)
    if tuned.goal.limit is not None:
        yield _look_table(tuned)
    if tuned.best.curve:
        yield _curve_table(tuned)
    yield _tensor_table(tuned)


def _answer_table(tuned: Tuned) -> Table:
    result = table(f"{tuned.metric}, {tuned.channel}", "cells per weight", tuned.scale.heading, INTERVAL)
    for name, answer in tuned.answers.items():
        result.add_row(name, f"{answer.cells:.3f}", *_drop_cells(tuned, answer.verified))
    if tuned.limit is not None:
        result.add_row("limit of all codes, at these errors", per_weight(tuned.limit.cells_per_original_weight), "", "")
    result.caption = ". ".join(_notes(tuned))
    return result


def _notes(tuned: Tuned) -> Iterator[str]:
    yield from map(capital, (tuned.verdict, tuned.comparison))
    if tuned.metric == "agreement":
        yield "Classes are compared with those of the original, not with labels"
    yield f"Verified on {tuned.verified_on}"
    if tuned.original is not None:
        yield f"The original classifies {percent(tuned.original, 2)} of them correctly"
    if tuned.counting == "paper":
        yield "Cells are counted as the paper does"
    yield f"Decoding: at most {tuned.most_decoding.replace(tuned.decoding, DECODING[tuned.decoding], 1)}"
    yield from (f"Assumed: {text}" for text in tuned.assumptions)


def _drop_cells(tuned: Tuned, drop: Drop) -> tuple[str, str]:
    return tuned.scale.text(drop.mean), tuned.interval(drop)


def _look_table(tuned: Tuned) -> Table:
    result = table("verified", "cells per weight", tuned.scale.heading, "at least", "at most", "goal", left=1)
    for name, look in tuned.looks():
        result.add_row(name, f"{look.cells:.3f}", *_bounds(tuned, look))
    result.caption = ". ".join(_notes_of_looks(tuned))
    return result


def _notes_of_looks(tuned: Tuned) -> Iterator[str]:
    yield tuned.scale.rule
    yield f"Each bound is one-sided, with {percent_as_given(tuned.confidence_of_look)} confidence"
    yield (
        "Plans are verified in this order, the safest first, and verification stops at the first that is not shown to "
        "hold"
    )
    if any(look.given for _, look in tuned.looks()):
        yield "A given plan is verified whatever becomes of the others"
    elif tuned.given_plan_was_tried:
        yield "The given plan was not verified, as a plan that takes no more cells holds"
    apart, share = (
        ("Digital rivals and a given plan", "a quarter") if tuned.given_plan_was_tried else ("Digital rivals", "half")
    )
    together = f"all together have {percent_as_given(tuned.confidence)} confidence"
    yield f"{apart} are verified separately, so each bound has {share} of the risk; {together}"


def _bounds(tuned: Tuned, look: Look) -> tuple[str, ...]:
    scale, confidence = tuned.scale, tuned.confidence_of_look
    ends = scale.ends(look.drop.lower(confidence), look.drop.upper(confidence))
    return scale.text(look.drop.mean), *map(scale.text, ends), look.held


def _curve_table(tuned: Tuned) -> Table:
    headings = ("divergence, predicted", "divergence, found", tuned.scale.heading, INTERVAL)
    result = table("tried: cells per weight", *headings)
    for point in tuned.best.curve:
        divergences = (f"{each:.2g}" for each in (point.loss, point.drop.divergence))
        result.add_row(f"{point.cells:.3f}{point.mark}", *divergences, *_drop_cells(tuned, point.drop))
    kind = (
        "the Kullback-Leibler divergence of the classes, in nats for each sample"
        if tuned.classes
        else "the squared error of the outputs over their power"
    )
    result.caption = (
        "Plans by which the search found where to verify, on its own "
        f"{counted(tuned.best.curve[-1].drop.samples, 'sample')}. Divergence: how far outputs are from those of the "
        f"original, as {kind}. It is predicted from the sensitivity of each tensor, and found on these samples"
    )
    if any(point.given for point in tuned.best.curve):
        result.caption += (
            ". A given plan is tried with each weight rounded alone and, if it has steps, compensated: with weights "
            "that make up for each other's errors"
        )
    return result


def _tensor_table(tuned: Tuned) -> Table:
    result = table("tensor", "stored as", "weights", "cells", "cells per weight", "share of divergence, %", left=2)
    total = tuned.best.allocation.loss
    rows = tuned.rows()
    of_correction, *cells = rounded_alike([tuned.correction_cells, *(row["cells"] for row in rows)])
    for row, count in zip(rows, cells, strict=True):
        share = percent_number(row["predicted_divergence"] / total) if total else ""
        counts = (f"{row['weights']:,}", f"{count:,}", f"{row['cells_per_weight']:.3f}")
        result.add_row(row["tensor"], row["scheme"], *counts, share)
    if tuned.correction_numbers:
        numbers = counted(tuned.correction_numbers, "number")
        result.add_row("correction", f"{numbers} in float16", "", f"{of_correction:,}", "", "")
    result.add_section()
    every = f"{sum(cells) + of_correction:,}"
    result.add_row("total", "", f"{tuned.weights:,}", every, f"{tuned.best.cells:.3f}", "100.0" if total else "")
    result.caption = f"Share of divergence: the part of a tensor in the predicted divergence, {total:.2g}"
    return result
