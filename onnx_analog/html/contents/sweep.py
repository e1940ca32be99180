"""What the report of a sweep says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from onnx_analog.display import capital, counted, percent
from onnx_analog.html import charts
from onnx_analog.html.charts import Bar, Line, Mark
from onnx_analog.html.contents.shared import facts, is_loss, page_of, score_of
from onnx_analog.html.page import Chart, Number, Page, Section, Table, number, table
from onnx_analog.html.sources import references
from onnx_analog.html.stored import Memory, paper_parts, tensor_sections
from onnx_analog.points import COUNTING, Panel, factor, higher_is_better, name_of, panels, series, unit
from onnx_analog.results import Swept
from onnx_analog.run.metrics import mean_note
from onnx_analog.study import choosing
from onnx_analog.study.rivals import RIVALS, family
from onnx_analog.study.sweeps import Point
from onnx_analog.within import NOTE, Within

_BARS = 16  # of the chart of costs of a sweep
_SENTENCES = 4  # panels whose best points are told in sentences; those of more are in a table
_SHOWN = 3  # panels of a sweep whose best points are shown tensor by tensor
_NEAR = 0.1  # of the cells of a point, from which on its limit is drawn


@page_of.register
def _of_sweep(result: Swept, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - it has many models
    points = result.points
    counting = choosing.counting_of(points, counting)
    first = points[0].evaluation if points else None
    groups, within = panels(points), result.within(counting=counting)
    named = _named(groups)
    channels = dict.fromkeys(scheme.channel for point in points for scheme in point.setting.plan.schemes)
    counts = sorted({len(point.evaluation.values) for point in points})
    return Page(
        title=f"Sweep of {counted(len(points), 'point')}",
        verdict=" ".join([*map(_answer, within), *_verdicts(named, counting)]) or "There are no points.",
        tone="plain",
        numbers=() if _is_long(named) else tuple(_numbers(named, counting)),
        warnings=_warnings_of(result),
        sections=(
            *([_best_section(named, counting)] if _is_long(named) else []),
            *(_panel_section(panel, index, counting) for index, panel in enumerate(groups)),
            *(part for memory in _best_memories(result, named, counting) for part in tensor_sections(memory)),
            *([_float16_section(result)] if result.float16 else []),
        ),
        facts=facts(
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
    return f"{capital(str(answer))}."


def _best_memories(result: Swept, named: Sequence[tuple[str, Panel]], counting: str) -> Iterator[Memory]:
    """Yield the model of the best point of each of the first panels, where the sweep can make it again."""
    for index, (where, panel) in enumerate(named[:_SHOWN] if result.protecting is not None else ()):
        best = _best(panel.points, counting)
        if best is not None:
            name = f"{where}, {name_of(best)}" if where else capital(name_of(best))
            yield Memory(
                protected=result.protected(best), seed=best.evaluation.seed, counting=counting, name=capital(name),
                number=index,
            )  # fmt: skip


def _best(points: Sequence[Point], counting: str) -> Point | None:
    """Return the cheapest of the points that are as good as the best; None where nothing tells which is."""
    higher = higher_is_better(points)
    return None if higher is None else choosing.cheapest(points, higher_is_better=higher, counting=counting)


def _named(groups: Sequence[Panel]) -> list[tuple[str, Panel]]:
    """Return each panel with what tells it from the others: model and channel and, where these do not, the preset."""
    count = Counter(panel.where for panel in groups)
    return [(panel.where if count[panel.where] == 1 else panel.plot_title, panel) for panel in groups]


def _is_long(named: Sequence[tuple[str, Panel]]) -> bool:
    """Return whether there are more panels than sentences at the top of a page should tell of: a table does."""
    return len(named) > _SENTENCES


def _verdicts(named: Sequence[tuple[str, Panel]], counting: str) -> Iterator[str]:
    if _is_long(named):
        yield f"The best point of each of {counted(len(named), 'table')} is below."
        return
    for name, panel in named:
        yield capital(f"{f'{name}: ' if name else ''}{_panel_verdict(panel, counting)}")


def _panel_verdict(panel: Panel, counting: str) -> str:
    """Say which point is the cheapest of those that are as good as the best."""
    points = panel.points
    best, higher = _best(points, counting), higher_is_better(points)
    if best is None:
        return f"{counted(len(points), 'point')}; nothing tells which is best."
    alike = choosing.as_good_as_the_best(points, higher_is_better=bool(higher))
    top = max(alike, key=lambda point: (point.evaluation.mean or 0.0) * (1 if higher else -1))
    said = f"{name_of(best)} is"
    if len(alike) == 1:
        return f"{said} the best, with {_value_in(best, counting)}."
    several = f"the cheapest of {len(alike)} points that these {_as_good(points)}"
    first = f"{said} {several}, with {_value_in(best, counting)}."
    if top.evaluation.mean == best.evaluation.mean:
        return first
    return f"{first} The best mean is that of {name_of(top)}: {_value_in(top, counting)}."


def _as_good(points: Sequence[Point]) -> str:
    """Say what makes points as good as the best: what trials, and samples where they count, do not tell from it."""
    if choosing.samples_count(points):
        return "trials and samples do not tell from the best"
    return "trials find as good as the best"


def _value_in(point: Point, counting: str) -> str:
    return f"{_value(point)} at {number(point.cost_in(counting), '.2f')} cells per weight"


def _value(point: Point) -> str:
    mean = point.evaluation.mean
    return "no trials" if mean is None else f"{point.evaluation.metric} {_shown(point, mean)}"


def _shown(point: Point, value: float) -> str:
    return percent(value, 2) if point.evaluation.share else f"{value:.2f}"


def _bests(panel: Panel, counting: str) -> Iterator[tuple[str, Point]]:
    """Yield the best point of a panel, and its best digital rival, where there is one."""
    groups = {
        "best point": panel.points,
        "best digital rival": [point for point in panel.points if point.setting.name in RIVALS],
    }
    for name, group in groups.items():
        best = _best(group, counting)
        if best is not None:
            yield name, best


def _original_of(panel: Panel) -> str | None:
    """Return the value of the original that the points of a panel are compared with, as it is shown."""
    first = next(iter(panel.points), None)
    original = None if first is None else first.evaluation.original
    return None if first is None or original is None else _shown(first, original)


def _numbers(named: Sequence[tuple[str, Panel]], counting: str) -> Iterator[Number]:
    for where, panel in named:
        of = f" ({where})" * (len(named) > 1 and bool(where))
        for name, best in _bests(panel, counting):
            cells = f"{number(best.cost_in(counting), '.2f')} cells"
            yield Number(f"{name}{of}", cells, f"{name_of(best)}: {_value(best)}")
        original = _original_of(panel)
        if original is not None:
            yield Number(f"original{of}", original)


def _best_section(named: Sequence[tuple[str, Panel]], counting: str) -> Section:
    """Return the best points of many panels as a table."""
    rows = [
        (where, name_of(best), number(best.cost_in(counting), ".2f"), _value(best), _original_of(panel) or "–", rival)
        for where, panel in named
        for best, rival in _best_and_rival(panel, counting)
    ]
    head = ("table", "best point", "cells per weight", "value", "original", "best digital rival")
    all_points = [point for _, panel in named for point in panel.points]
    caption = (
        f"Cells are counted {COUNTING[counting]}. The best point is the cheapest of those that {_as_good(all_points)}."
    )
    return Section(title="The best points", tables=(table(head, rows, caption=caption, left=2),))


def _best_and_rival(panel: Panel, counting: str) -> Iterator[tuple[Point, str]]:
    """Yield the best point of a panel, if any is, and its best digital rival in words."""
    found = dict(_bests(panel, counting))
    best, rival = found.get("best point"), found.get("best digital rival")
    if best is not None:
        same = "the same" if rival is best else "–"
        yield best, same if rival is None or rival is best else f"{name_of(rival)}: {_value_in(rival, counting)}"


def _panel_section(panel: Panel, index: int, counting: str) -> Section:
    drawn = [chart for chart in (_panel_chart(panel, index, counting), _panel_costs(panel, index, counting)) if chart]
    return Section(title=panel.plot_title or "Points", charts=tuple(drawn), tables=(_points_table(panel.points),))


def _panel_chart(panel: Panel, index: int, counting: str) -> Chart | None:
    points = [point for point in panel.points if point.evaluation.mean is not None and point.cost_in(counting)]
    if not points:
        return None
    loss = all(is_loss(point.evaluation) and point.evaluation.original is not None for point in points)

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
    note = f" {text}." if (text := mean_note(points[0].evaluation.metric)) else ""
    return table(head, rows, caption=f"Mean and interval: {unit(points)}.{note}", left=2)


def _float16_section(result: Swept) -> Section:
    rows = [
        (
            each.model,
            each.channel,
            score_of(each.value, result.points[0].evaluation.share),
            number(each.cost, ".2f"),
            number(each.honest_cost, ".2f"),
        )
        for each in result.float16
    ]
    head = ("model", "channel", "value", "cells per weight, as the paper counts", "as the memory allows")
    return Section(title="Float16, without noise", tables=(table(head, rows, left=2),))
