"""Monte Carlo over a grid: every point in as many trials as it takes, wherever they are computed, and never twice."""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import onnx_ir as ir

from onnx_analog.coding.scheme import GRANULARITIES, STRATEGIES
from onnx_analog.errors import EngineError, OptionError, OutputError, whole
from onnx_analog.graph.manifest import Totals, account
from onnx_analog.passes import pipeline
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.run.evaluation import Evaluation, Trial, clean_value, doubts, interval, measure
from onnx_analog.run.session import BATCH, Network
from onnx_analog.study import worker
from onnx_analog.study.engines import Engine
from onnx_analog.study.engines.local import SerialEngine
from onnx_analog.study.grid import Grid, Setting
from onnx_analog.study.run_folder import TRIALS, Folder, Row
from onnx_analog.study.stopping import MOST_TRIALS, Stopping
from onnx_analog.study.worker import Outcome, Packed, Task, Work

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # trials that are done, and all that are planned

_CHUNK_S = 0.5  # short trials travel together, for about so long
_AHEAD = 2  # tasks under way for each slot: one is computed, one waits


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model of a sweep, and the data that it is evaluated on.

    Attributes
    ----------
    name : str
    model : ir.Model
        Pruned or not; it is not changed.
    data : Dataset
    """

    name: str
    model: ir.Model
    data: Dataset


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a grid, and what came of it.

    `evaluation.clean` is the model without noise, before it is protected; it differs from the protected one's by
    rounding. `ci95` holds at least 95 %, however many looks at it decided on the number of trials.
    """

    model: str
    setting: Setting
    totals: Totals
    evaluation: Evaluation
    ci95: tuple[float, float] | None

    @property
    def strategy(self) -> str:
        """How its weights are split into header and level."""
        return self.setting.strategy

    @property
    def cells(self) -> int:
        """Cells of every weight; for `redundancy`, of a small one."""
        return self.setting.cells

    @property
    def cost(self) -> float:
        """All-in cells for each original weight."""
        return self.totals.ratios()["all_in_cells_per_original_weight"]

    def to_dict(self) -> dict[str, Any]:
        """Return the point with its trials, ready for JSON; numbers that JSON does not have are null."""
        found = self.evaluation.to_dict()
        ci95 = list(self.ci95) if self.ci95 is not None and all(map(math.isfinite, self.ci95)) else None
        return {**_columns(self.model, self.setting), **found, "ci95": ci95, **_costs(self.totals)}

    def row(self) -> Row:
        """Return the point as one row."""
        found = self.evaluation
        low, high = self.ci95 or (None, None)
        numbers = {
            "trials": len(found.values), "mean": found.mean, "std": found.std, "ci95_low": low, "ci95_high": high,
            "clean": found.clean,
        }  # fmt: skip
        return {**_columns(self.model, self.setting), **numbers, **_costs(self.totals)}


def paired(one: Point, other: Point) -> tuple[float, tuple[float, float] | None]:
    """Return the mean of `one` - `other` over the trials that both have, and its 95 % interval.

    Trials of one number share their noise, wherever two points store the same planes, so the difference is known
    better than either. The number of trials must not have been chosen by looking at it.
    """
    pairs = list(zip(one.evaluation.values, other.evaluation.values, strict=False))
    differences = [a - b for a, b in pairs]
    bounds = (-1.0, 1.0) if one.evaluation.share else None
    return (float(np.mean(differences)) if differences else float("nan")), interval(differences, bounds=bounds)


# ------------------------------------------------------------------------------------------------------- rows


def _columns(model: str, setting: Setting) -> Row:
    return {name: _one_line(value) for name, value in {"model": model, **setting.columns()}.items()}


def _one_line(value: Any) -> Any:
    """Return a value as a CSV of one line a row holds it."""
    return " ".join(value.splitlines()) if isinstance(value, str) else value


_RATIOS = ("r_avg", "stored_cells_per_stored_weight", "all_in_cells_per_original_weight")


def _costs(totals: Totals) -> Row:
    ratios = totals.ratios()
    return {**{name: ratios[name] for name in _RATIOS}, **asdict(totals)}


def _row(columns: Row, clean: float | None, trial: int, found: Trial, totals: Totals) -> Row:
    numbers = {"trial": trial, "value": found.value, "sqnr_db": found.sqnr_db, "clean": clean}
    return {**columns, **numbers, **_costs(totals)}


# ---------------------------------------------------------------------------------------------- rows, read back

_COUNT = re.compile(r"0|[1-9][0-9]{0,17}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?|inf)|nan")  # as Python writes it
_MOST_DB = 6400.0  # no two float64 numbers are further apart


class _Found(NamedTuple):
    """What a row says."""

    trial: int
    found: Trial
    clean: float | None
    totals: Totals


def _found(row: Mapping[str, str], *, share: bool) -> _Found:
    """Return what a row of an earlier sweep says.

    Raises
    ------
    ValueError
        If it says what no sweep writes.
    """
    _check_point(row)
    for name in ("large_fraction", *(("value",) if share else ())):
        if not (0 <= _number(row, name) <= 1 or (name == "value" and row[name] == "nan")):
            raise ValueError(f"{name} is {row[name]}; it must be from 0 to 1")
    sqnr_db = _number(row, "sqnr_db")
    if math.isfinite(sqnr_db) and abs(sqnr_db) > _MOST_DB:
        raise ValueError(f"sqnr_db is {row['sqnr_db']}; it must be within ±{_MOST_DB:g} dB")
    trial = _count(row, "trial")
    if trial >= MOST_TRIALS:
        raise ValueError(f"trial is {trial:,}; it must be below {MOST_TRIALS:,}")
    totals = Totals(**{name: _count(row, name) for name in Totals.__dataclass_fields__})
    _check_costs(row, totals)
    _check_cells(row, totals)
    return _Found(trial, Trial(_number(row, "value"), sqnr_db), _number(row, "clean") if row["clean"] else None, totals)


def _check_point(row: Mapping[str, str]) -> None:
    """Raise ValueError if a row is of a point that no grid can have."""
    if row["granularity"] not in GRANULARITIES:
        raise ValueError(f"granularity is {row['granularity'][:40]!r}; it must be one of {', '.join(GRANULARITIES)}")
    small, large = (_count(row, name) for name in ("cells", "cells_large"))
    strategy = STRATEGIES.get(row["strategy"])
    if strategy is not None and (not small or large % small or (large != small and not strategy.adaptive)):
        raise ValueError(f"cells_large is {large:,}, which strategy {row['strategy']} cannot have with cells {small:,}")
    fraction = _number(row, "large_fraction")
    if row["large_fraction"] not in (str(fraction), f"{fraction:g}"):
        raise ValueError(f"large_fraction is {row['large_fraction'][:40]!r}, which no sweep writes so")
    for name in ("channel_sha256", "plan_sha256"):
        if not _SHA256.fullmatch(row[name]):
            raise ValueError(f"{name} is {row[name][:40]!r}, which is not a SHA-256")


def _check_cells(row: Mapping[str, str], totals: Totals) -> None:
    if row["strategy"] not in STRATEGIES:
        return  # a plan may give each class and tensor cells of their own
    least, most = (_count(row, name) * totals.stored_weights for name in ("cells", "cells_large"))
    if not least <= totals.analog_cells <= most:
        raise ValueError(f"analog_cells is {totals.analog_cells:,}; it must be from {least:,} to {most:,}")


def _check_costs(row: Mapping[str, str], totals: Totals) -> None:
    if not 0 < totals.stored_weights <= totals.original_weights:
        raise ValueError(
            f"stored_weights is {totals.stored_weights:,}; it must be from 1 to {totals.original_weights:,}, "
            "the number of original weights"
        )
    for name, value in _costs(totals).items():
        if row[name] != str(value):
            raise ValueError(f"{name} is {row[name]!r}, but the counts of cells give {value}")


def _count(row: Mapping[str, str], name: str, *, least: int = 0) -> int:
    if not _COUNT.fullmatch(row[name]) or int(row[name]) < least:
        raise ValueError(f"{name} is {row[name][:40]!r}; it must be a whole number from {least}")
    return int(row[name])


def _number(row: Mapping[str, str], name: str) -> float:
    if not _NUMBER.fullmatch(row[name]):
        raise ValueError(f"{name} is {row[name][:40]!r}, which is not a number")
    number = float(row[name])
    if math.isinf(number) and not row[name].endswith("inf"):
        raise ValueError(f"{name} is {row[name][:40]!r}, which is beyond the range of numbers")
    return number


def _alike(one: float | None, other: float | None) -> bool:
    """Return whether two values without noise are one, but for the rounding of another machine."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-9) or (math.isnan(one) and math.isnan(other))


# ------------------------------------------------------------------------------------------------------ state


class _Tally:
    """What is done of one point, and what is still wanted. Costs no more for each trial, however many there are."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping
        self._ordered: list[Trial] = []  # trials 0, 1, ... up to the first that is missing
        self._others: dict[int, Trial] = {}
        self._values: list[float] = []  # of the former
        self.wanted = 0
        self.enough = False
        self.totals: Totals | None = None

    def add(self, trial: int, found: Trial) -> None:
        """Take a trial that was made, here or in an earlier sweep."""
        self._others[trial] = found
        while len(self._ordered) in self._others:
            self._ordered.append(self._others.pop(len(self._ordered)))
            self._values.append(self._ordered[-1].value)

    def more(self) -> list[range]:
        """Look, if there are trials for it; return those that are wanted now, and were not before."""
        missing: list[range] = []
        while not self.enough and len(self._values) >= self.wanted and not missing:
            before, self.wanted = self.wanted, self._stopping.wanted(self._values)
            self.enough = len(self._values) >= self.wanted
            missing = [] if self.enough else self._gaps(max(before, len(self._ordered)), self.wanted)
        return missing

    def _gaps(self, start: int, end: int) -> list[range]:
        """Return the trials from `start` that are not known yet, as runs."""
        known = sorted(trial for trial in self._others if start <= trial < end)
        runs = zip([start, *(trial + 1 for trial in known)], [*known, end], strict=True)
        return [range(first, last) for first, last in runs if first < last]

    def __contains__(self, trial: int) -> bool:
        return trial < len(self._ordered) or trial in self._others

    @property
    def done(self) -> int:
        """Trials that are made, of those wanted."""
        return min(len(self._ordered), self.wanted) + sum(trial < self.wanted for trial in self._others)

    def taken(self) -> list[Trial]:
        """Return the trials that count: those before the look at which the point stopped."""
        return self._ordered[: self.wanted]

    def known(self) -> Iterator[tuple[int, Trial]]:
        """Yield all trials there are, in their order."""
        yield from enumerate(self._ordered)
        yield from sorted(self._others.items())


class _Queue:
    """Tasks that wait: runs of trials, cut into tasks of a sensible length."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, deque[range]]] = deque()
        self._seconds: dict[int, float] = {}  # of a trial, by model
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, place: int, trials: Sequence[range], *, first: bool) -> None:
        """Put trials of a point at the end, or before all others."""
        if trials:
            (self._runs.appendleft if first else self._runs.append)((place, deque(trials)))
            self._count += sum(map(len, trials))

    def learn(self, model: int, seconds: float) -> None:
        """Remember how long a trial of a model takes."""
        self._seconds[model] = seconds

    def take(self, settings: Sequence[Setting], slots: int) -> Task:
        """Return the next task: of one trial until it is known how long one takes."""
        place, trials = self._runs[0]
        seconds = self._seconds.get(settings[place].model, _CHUNK_S)
        share = -(-self._count // (_AHEAD * slots))  # towards the end, something for all
        count = max(min(int(_CHUNK_S / max(seconds, 1e-6)), share), 1)
        taken: list[int] = []
        while trials and len(taken) < count:
            run, room = trials.popleft(), count - len(taken)
            taken += run[:room]
            if run[room:]:
                trials.appendleft(run[room:])
        self._count -= len(taken)
        if not trials:
            self._runs.popleft()
        return Task(place, tuple(taken))


# ------------------------------------------------------------------------------------------------------ sweep


@dataclass(frozen=True, kw_only=True)
class Study:
    """A sweep that was checked, and can run.

    `prepare` makes it.
    """

    cases: tuple[Case, ...]
    grid: Grid
    stopping: Stopping
    metric: metrics.Chosen
    outputs: tuple[str | None, ...]
    work: Work
    facts: Mapping[str, Any]

    @property
    def metric_name(self) -> str:
        """What the metric is called."""
        return self.metric.metric.name

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The points."""
        return self.work.settings


def prepare(
    cases: Sequence[Case],
    grid: Grid,
    stopping: Stopping,
    *,
    metric: metrics.Named | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    batch: int = BATCH,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    facts: Mapping[str, Any] | None = None,
) -> Study:
    """Return a sweep, after everything was checked that can be before the first trial.

    Parameters
    ----------
    cases : sequence of Case
        Their names differ.
    grid : Grid
    stopping : Stopping
    metric : (name, function), optional
        The default is the one that fits the data; see `onnx_analog.run.metrics`.
    output : str, optional
        Name of the output that is measured.
    class_axis : int, optional
        Axis of that output which holds the classes.
    batch : int, >= 1
        Samples a call, unless the model fixes it.
    providers : sequence of str
        Of onnxruntime.
    facts : mapping, optional
        What else all rows are to say, ready for JSON.

    Raises
    ------
    AnalogError
        If a model cannot be run or stored, the data do not fit it, or an option is out of its range.
    """
    if whole("batch", batch) < 1:
        raise OptionError(f"batch is {batch}; it must be 1 or more")
    names = [case.name for case in cases]
    again = [name for place, name in enumerate(names) if name in names[:place]]
    if again or not names:
        raise OptionError(f"two models are called {again[0]!r}: rename one" if again else "there are no models")
    settings = tuple(grid.settings(len(cases)))
    passes = {
        (one.model, one.channel, one.preset.granularity): one.protect_pass() for one in settings
    }  # all are checked
    for (place, _, _), step in passes.items():
        pipeline.run([step], cases[place].model.clone())
    asked: dict[str, Any] = {"metric": metric, "output": output, "class_axis": class_axis, "batch": batch}
    measured = [measure(Network(case.model, providers=providers), case.data, **asked) for case in cases]
    chosen, clean = [one for one, _ in measured], [outputs for _, outputs in measured]
    first = chosen[0]
    for one in chosen:
        if one.metric != first.metric or one.labelled != first.labelled:
            raise OptionError("the models take different metrics: name one with --metric")
        if (one.places, one.axis) != (first.places, first.axis):
            raise OptionError(
                "the models differ in the output that is measured, or its axis of classes: run a sweep for each"
            )
    for one, outputs, case in zip(chosen, clean, cases, strict=True):
        alone = clean_value(one, case.data, outputs)
        for text in doubts(one, len(case.data), outputs, alone, None, ()):
            logger.warning("%s: %s", case.name, text)
    common = {
        "metric": first.metric.name, "metric_sha256": metrics.source_digest(first),
        "output": [one.output for one in chosen],
        "class_axis": first.class_axis, "seed": grid.seed, "batch": batch,
        "providers": list(providers), **worker.versions(),
    }  # fmt: skip
    made = Work(
        digest=uuid4().hex,
        models=tuple(Packed.of(case.model) for case in cases),
        data=tuple(case.data for case in cases),
        clean=tuple(clean),
        metric=first,
        settings=settings,
        seed=grid.seed,
        batch=batch,
        providers=tuple(providers),
        threads=1,
    )
    selection = {name: getattr(grid.selection, name) for name in ("include", "exclude", "min_size")}
    everything = {"samples": [len(case.data) for case in cases], **common, **selection, **(facts or {})}
    return Study(
        cases=tuple(cases),
        grid=grid,
        stopping=stopping,
        metric=first,
        outputs=tuple(one.output for one in chosen),
        work=made,
        facts=everything,
    )


def sweep(
    plan: Study, *, engine: Engine | None = None, out: Path | None = None, progress: Progress = lambda *_: None
) -> Iterator[Point]:
    """Yield the points of `plan` in the order of its grid, each as soon as it and all before it have their trials.

    Parameters
    ----------
    plan : Study
    engine : Engine, optional
        Where trials are computed; in this process if none is given. It is stopped in the end.
    out : Path, optional
        Folder for the results. What an earlier sweep left there is not computed again.
    progress : function
        Called with the number of trials that are done and of all that are planned so far.

    Raises
    ------
    OutputError
        If `out` is another sweep's, or cannot be written.
    EngineError
        If workers die again and again. What ended is in `out`.
    """
    run = _Run(plan, engine or SerialEngine(), progress)
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(Folder(out, plan.facts))
        if folder is not None:
            run.resume(folder)
        yield from run.points(folder, stack)
        if folder is not None:
            folder.finish(_Rows(run), [point.row() for point in run.ended])


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Study, engine: Engine, progress: Progress) -> None:
        self._plan, self._engine, self._progress = plan, engine, progress
        self._tallies = [_Tally(plan.stopping) for _ in plan.settings]
        self._queue = _Queue()
        self._names = [plan.cases[setting.model].name for setting in plan.settings]
        self._columns = [_columns(name, one) for name, one in zip(self._names, plan.settings, strict=True)]
        self._clean = [_alone(plan, model) for model in range(len(plan.cases))]
        self._share = plan.metric.metric.share
        self._folder: Folder | None = None
        self._places = {_key(columns): place for place, columns in enumerate(self._columns)}
        pairs = zip(self._columns, plan.settings, strict=True)
        self._clean_of = {columns["model"]: self._clean[setting.model] for columns, setting in pairs}
        self._channels = {columns["channel_sha256"]: columns["channel"] for columns in self._columns}
        counts = (*_RATIOS, *Totals.__dataclass_fields__)
        self._expected = {*self._columns[0], "trial", "value", "sqnr_db", "clean", *counts}
        self._others: dict[tuple[str, ...], tuple[Totals, set[int]]] = {}  # of points that are not in the grid
        self._done = self._wanted = 0
        self.ended: list[Point] = []

    def resume(self, folder: Folder) -> None:
        """Take over what an earlier sweep computed."""
        self._folder = folder
        folder.each(self._take)

    def _take(self, row: Row) -> None:
        if set(row) != self._expected:
            odd = min(set(row) ^ self._expected)
            raise ValueError(f"the column {odd!r} is {'missing' if odd in self._expected else 'unknown'}")
        said, key = _found(row, share=self._share), _key({name: row[name] for name in self._columns[0]})
        if row["model"] not in self._clean_of:
            raise ValueError(f"model is {row['model'][:60]!r}, which is not of this sweep")
        known = self._channels.get(row["channel_sha256"])
        if known not in (None, row["channel"]):
            raise ValueError(f"channel is {row['channel'][:60]!r}, but its channel_sha256 is that of {known!r}")
        clean = self._clean_of[row["model"]]
        if not _alike(said.clean, clean):
            raise ValueError(
                f"clean is {row['clean'] or 'empty'}, but in this sweep it is {'empty' if clean is None else clean}"
            )
        if key in self._places:
            tally = self._tallies[self._places[key]]
            self._check_new(said, tally.totals or said.totals, tally)
            tally.add(said.trial, said.found)
            tally.totals = said.totals
        else:
            totals, trials = self._others.setdefault(key, (said.totals, set()))
            self._check_new(said, totals, trials)
            trials.add(said.trial)

    def _check_new(self, said: _Found, totals: Totals, known: _Tally | set[int]) -> None:
        if said.trial in known:
            raise ValueError(f"trial {said.trial} of this point appears twice")
        if said.totals != totals:
            raise ValueError("its counts of weights and cells differ from those of other rows of its point")

    def points(self, folder: Folder | None, stack: ExitStack) -> Iterator[Point]:
        """Compute what is missing; yield points as they are complete."""
        for place, tally in enumerate(self._tallies):
            self._queue.add(place, tally.more(), first=False)
        self._done, self._wanted = (sum(getattr(one, name) for one in self._tallies) for name in ("done", "wanted"))
        self._progress(self._done, self._wanted)
        if self._queue:
            engine = stack.enter_context(self._engine)
            threads = engine.plan(len(self._queue))
            engine.start(replace(self._plan.work, threads=threads))
            for outcome in self._outcomes(engine):
                self._record(outcome, folder)
                yield from self._complete()
        yield from self._complete()

    def _outcomes(self, engine: Engine) -> Iterator[Outcome]:
        under_way = 0
        while self._queue or under_way:
            while self._queue and under_way < _AHEAD * engine.slots:
                engine.submit(self._queue.take(self._plan.settings, engine.slots))
                under_way += 1
            outcome = engine.next()
            under_way -= 1
            yield outcome

    def _record(self, outcome: Outcome, folder: Folder | None) -> None:
        mine = worker.versions()
        if outcome.versions != mine:
            name = next(name for name in mine if outcome.versions.get(name) != mine[name])
            raise EngineError(
                f"a worker has {name} {outcome.versions.get(name)}, and this process {mine[name]}: results "
                "would depend on where they are computed. Install the same versions everywhere"
            )
        place = outcome.task.setting
        setting = self._plan.settings[place]
        tally = self._tallies[place]
        if tally.totals not in (None, outcome.totals):
            raise OutputError(
                f"the rows of {setting} in {TRIALS} have other counts of weights and cells than this sweep finds: "
                "choose another folder with --out"
            )
        if folder is not None:
            clean = self._clean[setting.model]
            pairs = zip(outcome.task.trials, outcome.found, strict=True)
            folder.append([_row(self._columns[place], clean, *pair, outcome.totals) for pair in pairs])
        done, wanted, tally.totals = tally.done, tally.wanted, outcome.totals
        for trial, found in zip(outcome.task.trials, outcome.found, strict=True):
            tally.add(trial, found)
        self._queue.learn(setting.model, outcome.seconds)
        self._queue.add(place, tally.more(), first=True)
        self._done, self._wanted = self._done + tally.done - done, self._wanted + tally.wanted - wanted
        self._progress(self._done, self._wanted)

    def _complete(self) -> Iterator[Point]:
        while len(self.ended) < len(self._names) and self._tallies[len(self.ended)].enough:
            self.ended.append(self._point(len(self.ended)))
            yield self.ended[-1]

    def _point(self, place: int) -> Point:
        setting, stopping = self._plan.settings[place], self._plan.stopping
        taken = self._tallies[place].taken()
        values = tuple(trial.value for trial in taken)
        evaluation = Evaluation(
            metric=self._plan.metric_name,
            output=self._plan.outputs[setting.model],
            class_axis=self._plan.metric.class_axis,
            share=self._plan.metric.metric.share,
            higher_is_better=self._plan.metric.metric.higher_is_better,
            compares=self._plan.metric.compares,
            preprocessing=self._plan.cases[setting.model].data.preprocessing,
            samples=len(self._plan.cases[setting.model].data),
            clean=self._clean[setting.model],
            values=values,
            sqnr_db=tuple(trial.sqnr_db for trial in taken),
            seed=self._plan.grid.seed,
        )
        return Point(
            model=self._names[place],
            setting=setting,
            totals=self._tallies[place].totals or _totals(self._plan, setting),
            evaluation=evaluation,
            ci95=stopping.interval(values, bounds=evaluation.bounds),
        )

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all trials that are known, in their order; last, those of points that are in no grid."""
        row: Row = {}
        for tally, columns, setting in zip(self._tallies, self._columns, self._plan.settings, strict=True):
            if tally.totals is not None:
                for trial, found in tally.known():
                    row = _row(columns, self._clean[setting.model], trial, found, tally.totals)
                    yield row
        for other in self._folder.stream() if self._others and self._folder and row else ():
            if _key({name: other[name] for name in self._columns[0]}) in self._others:
                yield _typed(other, row)


class _Rows:
    """All rows of a run, made anew each time that one goes through them."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[Row]:
        return self._run.rows()


def _typed(row: Mapping[str, str], like: Row) -> Row:
    """Return a row that was read, with values of the types that `like` has."""
    return {name: None if like[name] is None else type(like[name])(row[name]) for name in like}


def _totals(plan: Study, setting: Setting) -> Totals:
    protected = pipeline.run([setting.protect_pass()], plan.cases[setting.model].model.clone())
    return account(protected).totals


def _alone(plan: Study, model: int) -> float | None:
    """Return the metric without noise; None where it compares with that and so says nothing."""
    return clean_value(plan.metric, plan.cases[model].data, plan.work.clean[model])


def _key(columns: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in columns.values())
