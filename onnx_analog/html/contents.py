"""What the report of each kind of result says. A further kind is a function more, registered for its class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import Any

from onnx_analog.arguments import PART_KINDS
from onnx_analog.channels import Channel
from onnx_analog.display import change, counted, percent, percent_as_given, rounded_alike, score
from onnx_analog.graph.baselines import INTEGERS
from onnx_analog.html import charts
from onnx_analog.html.charts import Bar, Line, Mark
from onnx_analog.html.page import Chart, Number, Page, Section, Table, Tone, number, table
from onnx_analog.html.sources import references
from onnx_analog.html.stored import Memory, cell_numbers, digital, paper_parts, sections, tensor_sections
from onnx_analog.points import COUNTING, Panel, factor, higher_is_better, name_of, panels, series, unit
from onnx_analog.results import Swept
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.study import choosing
from onnx_analog.study.rivals import RIVALS, family
from onnx_analog.study.sweeps import Point
from onnx_analog.study.worker import versions
from onnx_analog.tuning.answers import Answer
from onnx_analog.tuning.checked import Checked
from onnx_analog.tuning.harm import Harms
from onnx_analog.tuning.result import Tuned
from onnx_analog.tuning.scale import DECIBELS
from onnx_analog.within import NOTE, Within

_BARS = 16  # of the chart of costs of a sweep
_MOST_PARTS = 30  # of the chart of sensitivities
_SHOWN = 3  # panels of a sweep whose best points are shown tensor by tensor
_MEMORY = COUNTING["memory"]  # in which cells are compared with a limit
_NEAR = 0.1  # of the cells of a point, from which on its limit is drawn
_TONES: dict[bool | None, Tone] = {True: "yes", False: "no", None: "open"}
_NOTHING_STORED = Section(title="What it costs", text="The protected model is not at hand, so its cells are not shown.")


@singledispatch
def page_of(result: Any, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - those of a kind take them
    """Return the report of a result.

    Parameters
    ----------
    result : Evaluation, Swept, Tuned, Checked or Harms
    memory : Memory or None
        The protected model, where it is at hand.
    counting : {"memory", "paper"}
        Cells by which the points of a sweep are compared.
    """
    raise TypeError(f"there is no report of {type(result).__name__}")


def _facts(*facts: tuple[str, object]) -> tuple[tuple[str, str], ...]:
    """Return what is known of those facts, and the versions that numbers depend on."""
    known = [(name, str(value)) for name, value in facts if value not in (None, "")]
    return (*known, *versions().items())


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _channels(memory: Memory | None) -> list[Channel]:
    return [] if memory is None else memory.channels


def _cells(memory: Memory | None) -> float | None:
    """Return cells per original weight, with the correction: as the memory allows, where that is counted."""
    return None if memory is None else memory.per_weight(memory.counted_as)


def _cell_numbers(memory: Memory | None) -> Iterator[Number]:
    """Yield the cells of a protected model, where it is at hand."""
    if memory is not None:
        yield from cell_numbers(memory)


def _counting(memory: Memory) -> str:
    return COUNTING[memory.counted_as]


# --------------------------------------------------------------------------------------------------- evaluation


@page_of.register
def _of_evaluation(result: Evaluation, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - shows both
    cost = sections(memory) if memory is not None else (_NOTHING_STORED,)
    return Page(
        title=f"Evaluation{f' of {result.model}' * bool(result.model)}",
        verdict=_evaluated(result, memory),
        tone="plain" if result.holds is None else _TONES[result.holds],
        numbers=tuple(_evaluation_numbers(result, memory)),
        warnings=result.warnings,
        sections=(_evaluation_section(result, memory), *cost),
        facts=_facts(
            ("seed", result.seed), ("trials", len(result.values)), ("samples", result.samples),
            ("metric", result.metric), ("output", result.output), ("channel", result.channel),
            ("inputs", result.preprocessing), ("corrected", result.corrected),
        ),
        references=references(_channels(memory)),
    )  # fmt: skip


def _score(value: float | None, share: bool | None) -> str:
    return number(value) if value is None or not math.isfinite(value) else score(value, share=share)


def _change(value: float | None, share: bool | None) -> str:
    return number(value) if value is None or not math.isfinite(value) else change(value, share=share, sign="")


def _is_loss(evaluation: Evaluation) -> bool:
    """Return whether a loss in percentage points says all: of a share of which more is better."""
    return bool(evaluation.share) and evaluation.higher_is_better is True and evaluation.drop is not None


def _evaluated(result: Evaluation, memory: Memory | None) -> str:
    if result.verdict is not None:
        return f"{'Yes' if result.holds else 'No'}: {result.verdict}."
    if not _is_loss(result) or result.drop is None:
        return f"{result}."
    lost = 100 * result.drop
    ends = result.drop_ci95
    between = "" if ends is None else f", 95 % interval {100 * ends[0]:.2f} to {100 * ends[1]:.2f}"
    cells = _cells(memory)
    cost = "" if cells is None else f" at {cells:.3f} cells per weight"
    what = f"The loss of {result.metric} is {round(lost, 2) + 0.0:.2f} percentage points{cost}"
    trials = f" (mean of {counted(len(result.values), 'trial')}{between})" if result.values else ""
    return f"{what}{trials}."


def _evaluation_numbers(result: Evaluation, memory: Memory | None) -> Iterator[Number]:
    if result.mean is not None:
        yield Number(f"{result.metric} with noise", result.shown(result.mean), result.spread(result.ci95))
    if result.original is not None:
        yield Number(f"{result.metric} of the original", result.shown(result.original))
    yield from _cell_numbers(memory)
    if result.limit is not None:
        without = "" if result.correction is None else "without the correction, "
        factor_of = result.limit.factor
        above = "" if factor_of is None else f"{without}the model takes {factor_of:.2f} times as many, {_MEMORY}"
        yield Number("limit: fewest cells", number(result.limit.cells_per_original_weight), above)


def _evaluation_section(result: Evaluation, memory: Memory | None) -> Section:
    drawn = []
    cells = _cells(memory)
    if memory is not None and cells and result.mean is not None and math.isfinite(result.mean):
        drawn.append(_evaluation_chart(result, memory, cells))
    rows = [
        ("original model", _score(result.original, result.share)),
        (result.stored_name, _score(result.stored, result.share)),
        *(_trial_rows(result) if result.values else _read_back_rows(result)),
        ("standard error from the choice of samples", _change(result.test_set_error, result.share)),
    ]
    caption = "Intervals are Student's t over trials; they leave out the error of a finite test set."
    return Section(
        title="Accuracy" if result.share else "The metric",
        charts=tuple(drawn),
        tables=(table((result.heading, "value"), rows, caption=caption * bool(result.values)),),
    )


def _trial_rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    """Yield what trials found."""
    yield f"with noise, mean of {counted(len(result.values), 'trial')}", _score(result.mean, result.share)
    yield "standard deviation over trials", _change(result.std, result.share)
    without = result.uncorrected
    if without is not None:
        yield "without correction, the same trials", _score(without.mean, result.share)
    ends = (min(result.values), max(result.values))
    worst, best = ends[::-1] if result.higher_is_better is False else ends
    yield "worst trial", _score(worst, result.share)
    yield "best trial", _score(best, result.share)


def _read_back_rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    """Yield by how much a model that was read back is worse than the original, where that is known."""
    if result.drop is not None:
        rises = result.higher_is_better is False
        worse = change(-result.drop if rises else result.drop, share=result.share)
        yield f"{'increase' if rises else 'decrease'} from the original", worse


def _evaluation_chart(result: Evaluation, memory: Memory, cells: float) -> Chart:
    loss, baseline = _is_loss(result), result.baseline
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
        f"Cells are counted {_counting(memory)}. The bar is a 95 % interval over trials. Dashed: cells of the same "
        f"weights in a digital format; {INTEGERS}.{' Dotted: what was asked for.' * known}",
        unit=f"{result.metric} lost, percentage points" if loss else result.metric,
        goal=goal,
        limits=[(lowest, cells, mark.value)] if lowest > 0 else (),
        rivals=digital(memory),
    )


# -------------------------------------------------------------------------------------------------------- check


@page_of.register
def _of_check(result: Checked, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - it counts as it does
    decision = result.decision
    cost = sections(memory) if memory is not None else (_NOTHING_STORED,)
    return Page(
        title=f"Check{f' of {result.model}' * bool(result.model)}: {result.question}?",
        verdict=_sentence(f"{result}."),
        tone=_TONES[result.holds],
        numbers=(
            Number(result.scale.heading, result.scale.text(decision.loss), f"limit: {result.scale.goal(result.limit)}"),
            *(
                _cell_numbers(memory)
                if memory is not None
                else [Number("cells per weight", number(result.paper_cells_per_weight), "as the paper counts")]
            ),
        ),
        warnings=result.warnings,
        sections=(_check_section(result, memory), *cost),
        facts=_facts(
            ("seed", result.seed), ("trials", decision.trials), ("at most", counted(result.max_trials, "trial")),
            ("samples", decision.samples), ("confidence", percent_as_given(result.confidence)),
            ("metric", result.metric), ("output", result.output),
            ("channel", result.channel), ("inputs", result.preprocessing),
            ("corrected", result.corrected),
        ),
        references=references(_channels(memory)),
    )  # fmt: skip


def _check_section(result: Checked, memory: Memory | None) -> Section:
    decision, scale = result.decision, result.scale
    low, high = map(scale.value, scale.ends(decision.at_least, decision.at_most))
    honest = None if memory is None else result.cells_per_weight
    cells = honest or result.paper_cells_per_weight
    drawn = []
    if math.isfinite(decision.loss) and cells > 0:
        counting = COUNTING["paper"] if memory is None else _counting(memory)
        drawn = [
            charts.losses(
                [Line("this model", [Mark(cells, scale.value(decision.loss), low, high)], joined=False)],
                "The bar ends at the bounds of the test, each with "
                f"{percent_as_given(result.confidence)} confidence. Dotted: the limit. "
                f"Cells are counted {counting}. Dashed: cells of the same weights in a digital format; {INTEGERS}.",
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
            "original" if result.against_original else "stored, without noise",
            _score(result.original, result.scale is not DECIBELS),
        ),
    ]
    return Section(title="What is lost", charts=tuple(drawn), tables=(table(("", "value"), rows),))


# --------------------------------------------------------------------------------------------------------- tune


@page_of.register
def _of_tune(result: Tuned, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - the result has its own
    assert memory is not None
    others, verified = [*result.answers.items()][1:], result.best.verified
    rivals = {name: answer.cells for name, answer in others}
    fewest = None if result.limit is None else result.limit.cells_per_original_weight
    return Page(
        title=f"{'Cheapest plan' if result.is_shown else 'Plan'} for {result.channel}",
        verdict=f"{result}.",
        tone="plain" if result.goal.limit is None else _TONES[result.holds],
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
        facts=_facts(
            ("seed", result.seed), ("trials", verified.trials),
            ("samples", _uses_of_samples(result)), ("confidence", percent_as_given(result.confidence)),
            ("metric", result.metric), ("inputs", result.preprocessing), *_files(result),
            ("channel", result.channel), ("decoding takes at most", result.most_decoding),
            ("original", _score(result.original, result.scale is not DECIBELS)),
            ("numbers of the correction", result.correction_numbers or None),
            ("comparison", result.comparison), ("assumed", "; ".join(result.assumptions) or None),
        ),
        references=references(_channels(memory)),
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
    return f"the plan takes {result.limit.factor:.2f} times as many, {_MEMORY}" if known and result.limit else ""


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


# -------------------------------------------------------------------------------------------------- sensitivity


@page_of.register
def _of_sensitivity(result: Harms, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - shows both
    stored = (
        ()
        if result.stored is None
        else (Number(f"{result.metric} without noise", _score(result.stored, result.scale is not DECIBELS)),)
    )
    return Page(
        title=f"Sensitivity{f' of {result.model}' * bool(result.model)}",
        verdict=f"{_sentence(str(result))}.",
        tone="plain",
        numbers=(*stored, *_storing(result), *_cell_numbers(memory)),
        warnings=result.warnings,
        sections=(_parts_section(result), *(() if memory is None else sections(memory))),
        facts=_facts(
            ("seed", result.seed), ("trials of each part", result.trials), ("samples", result.samples),
            ("metric", result.metric), ("channel", result.channel), ("inputs", result.preprocessing),
            ("corrected", result.corrected),
        ),
        references=references(_channels(memory)),
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


# -------------------------------------------------------------------------------------------------------- sweep


@page_of.register
def _of_sweep(result: Swept, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - it has many models
    points = result.points
    counting = choosing.counting_of(points, counting)
    first = points[0].evaluation if points else None
    groups, within = panels(points), result.within(counting=counting)
    channels = dict.fromkeys(scheme.channel for point in points for scheme in point.setting.plan.schemes)
    counts = sorted({len(point.evaluation.values) for point in points})
    return Page(
        title=f"Sweep of {counted(len(points), 'point')}",
        verdict=" ".join([*map(_answer, within), *(_sentence(_panel_verdict(panel, counting)) for panel in groups)])
        or "There are no points.",
        tone="plain",
        numbers=tuple(entry for panel in groups for entry in _panel_numbers(panel, counting, len(groups) > 1)),
        warnings=_warnings_of(result),
        sections=(
            *(_panel_section(panel, index, counting) for index, panel in enumerate(groups)),
            *(part for memory in _best_memories(result, groups, counting) for part in tensor_sections(memory)),
            *([_float16_section(result)] if result.float16 else []),
        ),
        facts=_facts(
            ("seed", None if first is None else first.seed),
            ("trials for each point", " to ".join(map(str, dict.fromkeys(counts[:1] + counts[-1:])))),
            ("samples", " and ".join(map(str, sorted({point.evaluation.samples for point in points})))),
            ("metric", first and first.metric), ("inputs", first and first.preprocessing),
            ("corrected", first and first.corrected), ("cells are compared", COUNTING[counting]),
            ("losses", NOTE if within else None),
        ),
        references=references(channels),
    )  # fmt: skip


def _warnings_of(result: Swept) -> tuple[str, ...]:
    """Return the warnings of a sweep, and those of points that are not among them; the former name the model."""
    of_points = dict.fromkeys(text for point in result.points for text in point.evaluation.warnings)
    more = (text for text in of_points if not any(each.endswith(text) for each in result.warnings))
    return (*result.warnings, *more)


def _answer(answer: Within) -> str:
    return f"{_sentence(str(answer))}."


def _best_memories(result: Swept, groups: Sequence[Panel], counting: str) -> Iterator[Memory]:
    """Yield the model of the best point of each of the first panels, where the sweep can make it again."""
    for index, panel in enumerate(groups[:_SHOWN] if result.protecting is not None else ()):
        best = _best(panel.points, counting)
        if best is not None:
            name = f"{panel.where}, {name_of(best)}" if panel.where else _sentence(name_of(best))
            yield Memory(
                protected=result.protected(best), seed=best.evaluation.seed, counting=counting, name=_sentence(name),
                number=index,
            )  # fmt: skip


def _best(points: Sequence[Point], counting: str) -> Point | None:
    """Return the cheapest of the points that are as good as the best; None where nothing tells which is."""
    higher = higher_is_better(points)
    return None if higher is None else choosing.cheapest(points, higher_is_better=higher, counting=counting)


def _panel_verdict(panel: Panel, counting: str) -> str:
    """Say which point is the cheapest of those that are as good as the best."""
    points, where = panel.points, f"{panel.where}: " if panel.where else ""
    best, higher = _best(points, counting), higher_is_better(points)
    if best is None:
        return f"{where}{counted(len(points), 'point')}; nothing tells which is best."
    alike = choosing.as_good_as_the_best(points, higher_is_better=bool(higher))
    top = max(alike, key=lambda point: (point.evaluation.mean or 0.0) * (1 if higher else -1))
    said = f"{where}{name_of(best)} is"
    if len(alike) == 1:
        return f"{said} the best, with {_value_in(best, counting)}."
    by = (
        "trials and samples do not tell from the best"
        if choosing.samples_count(points)
        else "trials find as good as the best"
    )
    several = f"the cheapest of {len(alike)} points that these {by}"
    first = f"{said} {several}, with {_value_in(best, counting)}."
    if top.evaluation.mean == best.evaluation.mean:
        return first
    return f"{first} The best mean is that of {name_of(top)}: {_value_in(top, counting)}."


def _value_in(point: Point, counting: str) -> str:
    return f"{_value(point)} at {number(point.cost_in(counting), '.2f')} cells per weight"


def _value(point: Point) -> str:
    mean = point.evaluation.mean
    return "no trials" if mean is None else f"{point.evaluation.metric} {_shown(point, mean)}"


def _shown(point: Point, value: float) -> str:
    return percent(value, 2) if point.evaluation.share else f"{value:.2f}"


def _panel_numbers(panel: Panel, counting: str, several: bool) -> Iterator[Number]:
    points, where = panel.points, f" ({panel.where})" * (several and bool(panel.where))
    groups = {
        "best point": points,
        "best digital rival": [point for point in points if point.setting.name in RIVALS],
    }
    for name, group in groups.items():
        best = _best(group, counting)
        if best is not None:
            note = f"{name_of(best)}: {_value(best)}"
            yield Number(f"{name}{where}", f"{number(best.cost_in(counting), '.2f')} cells", note)
    original = points[0].evaluation.original if points else None
    if original is not None:
        yield Number(f"original{where}", _shown(points[0], original))


def _panel_section(panel: Panel, index: int, counting: str) -> Section:
    drawn = [chart for chart in (_panel_chart(panel, index, counting), _panel_costs(panel, index, counting)) if chart]
    return Section(title=panel.plot_title or "Points", charts=tuple(drawn), tables=(_points_table(panel.points),))


def _panel_chart(panel: Panel, index: int, counting: str) -> Chart | None:
    points = [point for point in panel.points if point.evaluation.mean is not None and point.cost_in(counting)]
    if not points:
        return None
    loss = all(_is_loss(point.evaluation) and point.evaluation.original is not None for point in points)

    def shown(point: Point, value: float) -> float:
        return 100 * ((point.evaluation.original or 0.0) - value) if loss else factor(point) * value

    def mark(point: Point) -> Mark:
        ends = point.ci95 or (math.nan, math.nan)
        low, high = sorted(shown(point, end) for end in ends)
        return Mark(point.cost_in(counting) or 0.0, shown(point, point.evaluation.mean or 0.0), low, high)

    lines: dict[str, list[Mark]] = {}
    for point in points:
        lines.setdefault(family(series(point)), []).append(mark(point))
    limits = [
        (point.evaluation.limit.cells_per_original_weight, *mark(point)[:2])
        for point in points
        if counting == "memory" and point.evaluation.limit and point.evaluation.limit.cells_per_original_weight > 0
    ]
    shown_limits = [each for each in limits if each[0] >= _NEAR * each[1]]
    far = len(limits) - len(shown_limits)
    far_note = f" {counted(far, 'limit')} far below the cells {'is' if far == 1 else 'are'} in the table only."
    original = points[0].evaluation.original
    goal = (0.0 if loss else factor(points[0]) * original, "original") if original is not None else None
    return charts.losses(
        [Line(name, marks) for name, marks in lines.items()],
        f"Cells are counted {COUNTING[counting]}. Bars are 95 % intervals. Dotted: the original, without noise."
        f"{far_note * bool(far)}",
        name=f"losses{index}",
        unit=f"{points[0].evaluation.metric} lost, percentage points" if loss else unit(points),
        goal=goal,
        limits=shown_limits,
        threshold=max(0.1, 100 / points[0].evaluation.samples) if loss else None,
    )


def _panel_costs(panel: Panel, index: int, counting: str) -> Chart | None:
    """Return the costs of the points in a counting; of many, the cheapest."""
    known = [point for point in panel.points if point.cost_in(counting) is not None]
    points = sorted(known, key=lambda point: point.cost_in(counting) or 0.0)[:_BARS]
    rows = [Bar(name_of(point), _parts_of(point, counting)) for point in points]
    left = len(known) - len(points)
    more = f"; {counted(left, 'more point costs more', 'more points cost more')}" if left else ""
    caption = f"Cells per original weight {COUNTING[counting]}, part by part{more}."
    return charts.costs(rows, caption, name=f"costs{index}") if rows else None


def _parts_of(point: Point, counting: str) -> dict[str, float]:
    """Return the cells per original weight of a point in a counting that it has, part by part."""
    totals = point.totals
    if counting == "paper":
        parts = paper_parts(totals)
    else:
        assert totals.honest_cells is not None
        cells = {"levels": totals.analog_cells, charts.CODED: totals.honest_cells - totals.analog_cells}
        parts = {name: count / totals.original_weights for name, count in cells.items() if count}
    return {**parts, **_of_correction(point, counting)}


def _of_correction(point: Point, counting: str) -> dict[str, float]:
    """Return the cells per original weight of the correction in a counting that the point has; none without one."""
    cost, totals = point.cost_in(counting), point.totals
    without = totals.all_in_cells if counting == "paper" else totals.honest_cells
    if point.evaluation.correction is None or cost is None or without is None:
        return {}
    return {"correction": cost - without / totals.original_weights}


def _points_table(points: Sequence[Point]) -> Table:
    limited = any(point.evaluation.limit is not None for point in points)
    rows = []
    for point in points:
        ends = point.ci95
        scale = factor(point)
        between = "–" if ends is None else f"{number(scale * ends[0], '.2f')} to {number(scale * ends[1], '.2f')}"
        mean = point.evaluation.mean
        limit = point.evaluation.limit
        rows.append(
            (
                series(point), point.setting.stored_as, number(None if mean is None else scale * mean, ".2f"), between,
                number(point.cost, ".2f"), number(point.honest_cost, ".2f"),
                "–" if point.honest_cost is None else point.decoding, str(len(point.evaluation.values)),
                *([number(None if limit is None else limit.cells_per_original_weight)] if limited else []),
            )
        )  # fmt: skip
    head = (
        "strategy", "stored as", "mean", "95 % interval", "cells per weight, as the paper counts",
        "as the memory allows", "decoding", "trials", *(["limit"] if limited else []),
    )  # fmt: skip
    return table(head, rows, caption=f"Mean and interval: {unit(points)}.", left=2)


def _float16_section(result: Swept) -> Section:
    rows = [
        (
            each.model,
            each.channel,
            _score(each.value, result.points[0].evaluation.share),
            number(each.cost, ".2f"),
            number(each.honest_cost, ".2f"),
        )
        for each in result.float16
    ]
    head = ("model", "channel", "value", "cells per weight, as the paper counts", "as the memory allows")
    return Section(title="Float16, without noise", tables=(table(head, rows, left=2),))
