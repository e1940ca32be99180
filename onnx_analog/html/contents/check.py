"""What the report of a check says."""

from __future__ import annotations

import math

from onnx_analog.display import capital, counted, percent_as_given
from onnx_analog.graph.baselines import INTEGERS
from onnx_analog.html import charts
from onnx_analog.html.charts import Line, Mark
from onnx_analog.html.contents.shared import (
    NOTHING_STORED,
    TONES,
    channels_of,
    counting_of,
    facts,
    known_cell_numbers,
    page_of,
    score_of,
)
from onnx_analog.html.page import Number, Page, Section, number, table
from onnx_analog.html.sources import references
from onnx_analog.html.stored import Memory, digital, sections
from onnx_analog.points import COUNTING
from onnx_analog.tuning.checked import Checked
from onnx_analog.tuning.scale import DECIBELS


@page_of.register
def _of_check(result: Checked, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - it counts as it does
    decision = result.decision
    cost = sections(memory) if memory is not None else (NOTHING_STORED,)
    return Page(
        title=f"Check{f' of {result.model}' * bool(result.model)}: {result.question}?",
        verdict=capital(f"{result}."),
        tone=TONES[result.holds],
        numbers=(
            Number(result.scale.heading, result.scale.text(decision.loss), f"limit: {result.scale.goal(result.limit)}"),
            *(
                known_cell_numbers(memory)
                if memory is not None
                else [Number("cells per weight", number(result.paper_cells_per_weight), "as the paper counts")]
            ),
        ),
        warnings=result.warnings,
        sections=(_check_section(result, memory), *cost),
        facts=facts(
            ("seed", result.seed), ("trials", decision.trials), ("at most", counted(result.max_trials, "trial")),
            ("samples", decision.samples), ("confidence", percent_as_given(result.confidence)),
            ("metric", result.metric), ("output", result.output),
            ("channel", result.channel), ("inputs", result.preprocessing),
            ("corrected", result.corrected),
        ),
        references=references(channels_of(memory)),
    )  # fmt: skip


def _check_section(result: Checked, memory: Memory | None) -> Section:
    decision, scale = result.decision, result.scale
    low, high = map(scale.value, scale.ends(decision.at_least, decision.at_most))
    honest = None if memory is None else result.cells_per_weight
    cells = honest or result.paper_cells_per_weight
    drawn = []
    if math.isfinite(decision.loss) and cells > 0:
        counting = COUNTING["paper"] if memory is None else counting_of(memory)
        drawn = [
            charts.losses(
                [Line("this model", [Mark(cells, scale.value(decision.loss), low, high)], joined=False)],
                "The bar ends at the bounds of the test, each with "
                f"{percent_as_given(result.confidence)} confidence. Dotted: the limit. "
                f"Cells are counted {counting}. Dashes and dots: cells of the same weights in a digital format; "
                f"{INTEGERS}.",
                unit=scale.axis,
                goal=(scale.value(result.limit), scale.goal(result.limit)),
                rivals={} if memory is None else digital(memory),
            )
        ]
    rows = [
        (scale.heading, scale.text(decision.loss)),
        ("limit", scale.goal(result.limit)),
        ("lower bound", number(low, ".2f")),
        ("upper bound", number(high, ".2f")),
        (
            result.whose,
            score_of(result.original, result.scale is not DECIBELS),
        ),
    ]
    return Section(title="What is lost", charts=tuple(drawn), tables=(table(("", "value"), rows),))
