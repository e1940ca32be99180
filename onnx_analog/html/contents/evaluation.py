"""What the report of an evaluation says."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx_analog.display import change, counted
from onnx_analog.graph.baselines import INTEGERS
from onnx_analog.html import charts
from onnx_analog.html.charts import Line, Mark
from onnx_analog.html.contents.shared import (
    IN_MEMORY,
    NOTHING_STORED,
    TONES,
    cells_of,
    change_of,
    channels_of,
    counting_of,
    facts,
    is_loss,
    known_cell_numbers,
    page_of,
    score_of,
)
from onnx_analog.html.page import Chart, Number, Page, Section, number, table
from onnx_analog.html.sources import references
from onnx_analog.html.stored import Memory, digital, sections
from onnx_analog.run.evaluation import MEAN_NOISE, Evaluation
from onnx_analog.run.metrics import mean_note


@page_of.register
def _of_evaluation(result: Evaluation, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - shows both
    cost = sections(memory) if memory is not None else (NOTHING_STORED,)
    return Page(
        title=f"Evaluation{f' of {result.model}' * bool(result.model)}",
        verdict=_evaluated(result, memory),
        tone="plain" if result.holds is None else TONES[result.holds],
        numbers=tuple(_evaluation_numbers(result, memory)),
        warnings=result.warnings,
        sections=(_evaluation_section(result, memory), *cost),
        facts=facts(
            ("seed", result.seed), ("trials", len(result.values)), ("samples", result.samples),
            ("metric", result.metric), ("output", result.output), ("channel", result.channel),
            ("inputs", result.preprocessing), ("corrected", result.corrected),
        ),
        references=references(channels_of(memory)),
    )  # fmt: skip


def _evaluated(result: Evaluation, memory: Memory | None) -> str:
    if result.verdict is not None:
        return f"{'Yes' if result.holds else 'No'}: {result.verdict}."
    if not is_loss(result) or result.drop is None:
        return f"{result}."
    lost = 100 * result.drop
    ends = result.drop_ci95
    between = "" if ends is None else f", 95 % interval {100 * ends[0]:.2f} to {100 * ends[1]:.2f}"
    cells = cells_of(memory)
    cost = "" if cells is None else f" at {cells:.3f} cells per weight"
    what = f"The loss of {result.metric} is {round(lost, 2) + 0.0:.2f} percentage points{cost}"
    trials = f" (mean of {counted(len(result.values), 'trial')}{between})" if result.values else ""
    return f"{what}{trials}."


def _evaluation_numbers(result: Evaluation, memory: Memory | None) -> Iterator[Number]:
    if result.mean is not None:
        yield Number(f"{result.metric} with noise", result.shown(result.mean), result.spread(result.ci95))
    if result.original is not None:
        yield Number(f"{result.metric} of the original", result.shown(result.original))
    yield from known_cell_numbers(memory)
    if result.limit is not None:
        without = "" if result.correction is None else "without the correction, "
        factor_of = result.limit.factor
        above = "" if factor_of is None else f"{without}the model takes {factor_of:.2f} times as many, {IN_MEMORY}"
        yield Number("limit: fewest cells", number(result.limit.cells_per_original_weight), above)


def _evaluation_section(result: Evaluation, memory: Memory | None) -> Section:
    drawn = []
    cells = cells_of(memory)
    if memory is not None and cells and result.mean is not None and math.isfinite(result.mean):
        drawn.append(_evaluation_chart(result, memory, cells))
    rows = [
        ("original model", score_of(result.original, result.share)),
        (result.stored_name, score_of(result.stored, result.share)),
        *(_trial_rows(result) if result.values else _read_back_rows(result)),
        ("standard error from the choice of samples", change_of(result.test_set_error, result.share)),
    ]
    caption = "Intervals are Student's t over trials; they leave out the error of a finite test set."
    note = mean_note(result.metric)
    caption += f" {note}." * bool(note)
    return Section(
        title="Accuracy" if result.share else "The metric",
        charts=tuple(drawn),
        tables=(table((result.heading, "value"), rows, caption=caption * bool(result.values)),),
    )


def _trial_rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    """Yield what trials found."""
    yield result.mean_name, score_of(result.mean, result.share)
    yield "standard deviation over trials", change_of(result.std, result.share)
    without = result.uncorrected
    if without is not None:
        yield "without correction, the same trials", score_of(without.mean, result.share)
    ends = (min(result.values), max(result.values))
    worst, best = ends[::-1] if result.higher_is_better is False else ends
    yield "worst trial", score_of(worst, result.share)
    yield "best trial", score_of(best, result.share)
    if result.sqnr_db_of_mean_noise is not None:
        yield MEAN_NOISE, f"{number(result.sqnr_db_of_mean_noise, '.1f')} dB"


def _read_back_rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    """Yield by how much a model that was read back is worse than the original, where that is known."""
    if result.drop is not None:
        rises = result.higher_is_better is False
        worse = change(-result.drop if rises else result.drop, share=result.share)
        yield f"{'increase' if rises else 'decrease'} from the original", worse


def _evaluation_chart(result: Evaluation, memory: Memory, cells: float) -> Chart:
    loss, baseline = is_loss(result), result.baseline
    low, high = result.ci95 or (math.nan, math.nan)

    def shown(value: float) -> float:
        return 100 * (baseline - value) if loss and baseline is not None else value

    ends = (shown(high), shown(low)) if loss else (low, high)
    assert result.mean is not None
    mark = Mark(cells, shown(result.mean), *ends)
    lowest = 0.0 if result.limit is None else result.limit.cells_per_original_weight
    wanted = result.at_least if result.at_least is not None else result.at_most
    known = wanted is not None
    goal = (shown(wanted), "asked for") if wanted is not None else None
    return charts.losses(
        [Line("this model", [mark], joined=False)],
        f"Cells are counted {counting_of(memory)}. The bar is a 95 % interval over trials. Dashes and dots: cells "
        f"of the same weights in a digital format; {INTEGERS}.{' Dotted: what was asked for.' * known}",
        unit=f"{result.metric} lost, percentage points" if loss else result.metric,
        goal=goal,
        limits=[(lowest, cells, mark.value)] if lowest > 0 else (),
        rivals=digital(memory),
    )
