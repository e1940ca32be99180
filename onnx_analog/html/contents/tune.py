"""What the report of the cheapest plan says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx_analog.display import counted, percent_as_given, rounded_alike
from onnx_analog.html import charts
from onnx_analog.html.charts import Line, Mark
from onnx_analog.html.contents.shared import IN_MEMORY, TONES, channels_of, facts, page_of, score_of
from onnx_analog.html.page import Number, Page, Section, number, table
from onnx_analog.html.sources import references
from onnx_analog.html.stored import Memory, sections
from onnx_analog.points import COUNTING
from onnx_analog.tuning.answers import Answer
from onnx_analog.tuning.result import Tuned
from onnx_analog.tuning.scale import DECIBELS


@page_of.register
def _of_tune(result: Tuned, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - the result has its own
    assert memory is not None
    others, verified = [*result.answers.items()][1:], result.best.verified
    rivals = {name: answer.cells for name, answer in others}
    fewest = None if result.limit is None else result.limit.cells_per_original_weight
    return Page(
        title=f"{'Cheapest plan' if result.is_shown else 'Plan'} for {result.channel}",
        verdict=f"{result}.",
        tone="plain" if result.goal.limit is None else TONES[result.holds],
        numbers=(
            Number("cells per weight", number(result.best.cells), COUNTING[result.counting]),
            Number(result.scale.name, result.scale.brief(verified.mean), f"95 % interval {result.interval(verified)}"),
            *(
                Number(name, f"{number(answer.cells)} cells", result.lost(answer.verified))
                for name, answer in others
            ),
            *([Number("digital rival", _rival(result), result.comparison)] if _has_no_row(result) else []),
            *([Number("limit: fewest cells", number(fewest), _against(result))] if fewest is not None else []),
        ),
        warnings=result.warnings,
        sections=(_tune_section(result), _plan_section(result), *sections(memory, rivals)),
        facts=facts(
            ("seed", result.seed), ("trials", verified.trials),
            ("samples", _uses_of_samples(result)), ("confidence", percent_as_given(result.confidence)),
            ("metric", result.metric), ("inputs", result.preprocessing), *_files(result),
            ("channel", result.channel), ("decoding takes at most", result.most_decoding),
            ("original", score_of(result.original, result.scale is not DECIBELS)),
            ("numbers of the correction", result.correction_numbers or None),
            ("comparison", result.comparison), ("assumed", "; ".join(result.assumptions) or None),
        ),
        references=references(channels_of(memory)),
    )  # fmt: skip


def _uses_of_samples(result: Tuned) -> str:
    """Say how many samples there were, and what each part of them was for."""
    record = result.plan.verified
    if record is None:
        return f"{result.best.verified.samples:,} verify"
    uses = zip(("measure sensitivities", "correct", "are searched with", "verify"), record.parts, strict=True)
    return f"{record.samples:,}: {', '.join(f'{count:,} {use}' for use, count in uses)}"


def _files(result: Tuned) -> Iterator[tuple[str, object]]:
    """Yield what tells the files of the model and of the samples from others, where they were files."""
    record = result.plan.verified
    if record is not None:
        yield "SHA-256 of the model", record.model_sha256
        yield "SHA-256 of the data", record.data_sha256


def _has_no_row(result: Tuned) -> bool:
    """Return whether no other answer is the digital rival."""
    return result.rival is None or result.is_own_rival


def _rival(result: Tuned) -> str:
    return "none" if result.rival is None else "this plan"


def _against(result: Tuned) -> str:
    known = result.limit is not None and result.limit.factor is not None
    return f"the plan takes {result.limit.factor:.2f} times as many, {IN_MEMORY}" if known and result.limit else ""


def _tune_section(result: Tuned) -> Section:
    goal, scale = result.goal.limit, result.scale
    lines = []
    for colour, (name, answer) in enumerate(result.answers.items()):
        tried = [_mark(result, point.cells, point.drop) for point in answer.curve]
        lines += [
            Line(f"tried for: {name}", tried, hollow=True, colour=colour),
            Line(name, [_mark(result, answer.cells, answer.verified)], joined=False, colour=colour),
        ]
    chart = charts.losses(
        lines,
        f"Cells are counted {COUNTING[result.counting]}. Bars are 95 % intervals. Filled marks are verified on "
        f"{result.verified_on}; hollow ones are on the samples that are searched with."
        f"{' Dotted: the goal.' * (goal is not None)}",
        unit=scale.axis,
        goal=None if goal is None else (scale.value(goal), f"goal: {scale.goal(goal)}"),
        threshold=None if goal is None or scale is DECIBELS else 2 * scale.value(goal),
    )
    rows = [(name, *_answer_row(result, answer)) for name, answer in result.answers.items()]
    head = ("plan", "cells per weight", scale.heading, "95 % interval", "holds")
    return Section(title="What is lost", charts=(chart,), tables=(table(head, rows),))


def _mark(result: Tuned, cells: float, drop: Any) -> Mark:
    low, high = map(result.scale.value, result.scale.ends(*drop.interval()))
    return Mark(cells, result.scale.value(drop.mean), low, high)


def _answer_row(result: Tuned, answer: Answer) -> tuple[str, ...]:
    undecided = "–" if result.goal.limit is None or answer is result.analog else "not decided"  # that is not verified
    holds = {True: "yes", False: "no", None: undecided}[answer.holds]
    drop = answer.verified
    return number(answer.cells), result.scale.text(drop.mean), result.interval(drop), holds


def _plan_section(result: Tuned) -> Section:
    listed = result.rows()
    of_correction, *counts = rounded_alike([result.correction_cells, *(row["cells"] for row in listed)])
    rows = [
        (
            row["tensor"], row["scheme"], f"{row['weights']:,}", f"{count:,}",
            number(row["cells_per_weight"]), f"{row['sensitivity']:.3g}", f"{row['predicted_divergence']:.3g}",
        )
        for row, count in zip(listed, counts, strict=True)
    ]  # fmt: skip
    if result.correction_numbers:
        rows.append(
            (
                "correction",
                f"{counted(result.correction_numbers, 'number')} in float16",
                "",
                f"{of_correction:,}",
                "",
                "",
                "",
            )
        )
    head = ("tensor", "stored as", "weights", "cells", "per weight", "sensitivity", "predicted divergence")
    measured = "nats for each sample" if result.classes else "shares of the power of the outputs"
    caption = f"Divergence in {measured}. Cells are counted {COUNTING[result.counting]}."
    return Section(title="The plan", tables=(table(head, rows, caption=caption, left=2),))
