"""What the report of a sensitivity says."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_analog.arguments import PART_KINDS
from onnx_analog.display import capital
from onnx_analog.html import charts
from onnx_analog.html.contents.shared import channels_of, facts, known_cell_numbers, page_of, score_of
from onnx_analog.html.page import Number, Page, Section, table
from onnx_analog.html.sources import references
from onnx_analog.html.stored import Memory, sections
from onnx_analog.tuning.harm import Harms
from onnx_analog.tuning.scale import DECIBELS

_MOST_PARTS = 30  # of the chart of sensitivities


@page_of.register
def _of_sensitivity(result: Harms, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - shows both
    stored = (
        ()
        if result.stored is None
        else (Number(f"{result.metric} without noise", score_of(result.stored, result.scale is not DECIBELS)),)
    )
    return Page(
        title=f"Sensitivity{f' of {result.model}' * bool(result.model)}",
        verdict=f"{capital(str(result))}.",
        tone="plain",
        numbers=(*stored, *_storing(result), *known_cell_numbers(memory)),
        warnings=result.warnings,
        sections=(_parts_section(result), *(() if memory is None else sections(memory))),
        facts=facts(
            ("seed", result.seed), ("trials of each part", result.trials), ("samples", result.samples),
            ("metric", result.metric), ("channel", result.channel), ("inputs", result.preprocessing),
            ("corrected", result.corrected),
        ),
        references=references(channels_of(memory)),
    )  # fmt: skip


def _storing(result: Harms) -> Iterator[Number]:
    """Yield what storing alone loses, where the original is known."""
    if result.storing is not None:
        note = "from the original to the model as stored, without noise; losses of parts leave it out"
        yield Number("by storing alone", result.scale.lost(result.storing), note)


def _parts_section(result: Harms) -> Section:
    bars = [(harm.part.label, result.share(harm) or 0.0) for harm in result.worst(_MOST_PARTS)]
    caption = "Divergence of the outputs if one part alone is read with noise, in % of that with noise in all cells."
    tables = [
        table(
            (PART_KINDS[kind], *result.headings),
            list(result.table(kind)),
            caption="Shares need not add up to 100 %. All but it: what remains if only this part has no noise."
            * (kind == result.kinds[0]),
        )
        for kind in result.kinds
    ]
    shown = (charts.shares(bars, caption),) if bars else ()
    return Section(title="Where it hurts", charts=shown, tables=tuple(tables))
