"""Monte Carlo over a grid: every point in as many trials as it takes, wherever they are computed, and never twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import onnx_ir as ir

from onnx_analog.arguments import DEFAULTS
from onnx_analog.coding.assumptions import OPTIMISTIC, assumptions
from onnx_analog.display import counted
from onnx_analog.errors import ModelError, OptionError, OutputError
from onnx_analog.graph.operands import operands_of
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.weights import find
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.moments import warn_of_left
from onnx_analog.study import axes, worker
from onnx_analog.study._points import Point as Point
from onnx_analog.study._points import paired as paired
from onnx_analog.study._progress import AHEAD, Entry, Queue, Tally
from onnx_analog.study._rows import (
    CORRECTION,
    OF_POINT,
    UNCORRECTED,
    VARYING,
    PointFacts,
    alike,
    check_cells,
    columns_of,
    facts_of,
    key_of,
    row_of,
    trial_of,
    typed,
    without_breaks,
)
from onnx_analog.study.engines import Engine
from onnx_analog.study.engines.local import SerialEngine
from onnx_analog.study.grid import Grid, GridPoint
from onnx_analog.study.run_folder import TRIALS, Folder, Row
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.worker import Outcome, Packed, Task, Work

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # trials that are done, and all that are planned
Further = Callable[["Point"], Iterable[GridPoint]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model of a sweep, and the data that it is evaluated on.

    Attributes
    ----------
    name : str
    model : ir.Model
        Pruned or not; it is not changed.
    data : Dataset
    original : ir.Model, optional
        The model before it was pruned, which the others are compared with; `model` if it is not given.
    correct : Dataset or "gain", optional
        What corrects each trial after it was read; all cases of a sweep have it, or none.
    compensate : Dataset, optional
        What weights that are rounded are compensated by.
    """

    name: str
    model: ir.Model
    data: Dataset
    original: ir.Model | None = None
    correct: Dataset | str | None = None
    compensate: Dataset | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """A sweep that was checked, and can run; `prepare` returns one.

    Attributes
    ----------
    cases : tuple of Case
    experiments : tuple of Experiment
        One for each case.
    grid : Grid
    stopping : Stopping
    work : Work
        What travels to workers.
    facts : mapping
        What all rows say.
    limit : bool
        Whether each point has the fewest cells that any code needs.
    """

    cases: tuple[Case, ...]
    experiments: tuple[Experiment, ...]
    grid: Grid
    stopping: Stopping
    work: Work
    facts: Mapping[str, Any]
    limit: bool = False

    @property
    def metric(self) -> metrics.Chosen:
        """The metric, and what it measures."""
        return self.experiments[0].chosen

    @property
    def settings(self) -> tuple[GridPoint, ...]:
        """The points of the grid."""
        return tuple(self.grid.points(len(self.cases)))

    def protected(self, point: GridPoint) -> ProtectedModel:
        """Return the model that the trials of a point read."""
        return self.experiments[point.model].protected(point.plan, selection=point.selection)


def prepare(
    cases: Sequence[Case],
    grid: Grid,
    stopping: Stopping,
    *,
    metric: metrics.Named | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    batch: int = DEFAULTS.batch,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    facts: Mapping[str, Any] | None = None,
    limit: bool = False,
) -> Study:
    """Return a sweep, after everything was checked that can be before the first trial.

    Parameters
    ----------
    cases : sequence of Case
        Their names differ.
    grid : Grid
    stopping : Stopping
    metric, output, class_axis, batch, providers
        As in `onnx_analog.run.experiment.Experiment`.
    facts : mapping, optional
        What else all rows are to say, ready for JSON.
    limit : bool
        Whether each point has the fewest cells that any code needs.

    Raises
    ------
    AnalogError
        If a model cannot be run or stored, the data do not fit it, or an option is out of its range.
    """
    names = [case.name for case in cases]
    again = [name for index, name in enumerate(names) if name in names[:index]]
    if again or not names:
        raise OptionError(f"two models are called {again[0]!r}: rename one" if again else "there are no models")
    options: dict[str, Any] = {"output": output, "class_axis": class_axis, "batch": batch, "providers": providers}
    experiments = [
        Experiment(
            case.model,
            case.data,
            metric,
            reference=case.original,
            name=case.name,
            correct=case.correct,
            compensate=case.compensate,
            **options,
        )
        for case in cases
    ]
    chosen = _common_metric(experiments)
    _check_storing(experiments, grid)
    one_of_each = {setting.model: setting for setting in grid.points(len(cases))}
    for number, (case, experiment) in enumerate(zip(cases, experiments, strict=True)):
        setting = one_of_each.get(number)
        left = () if setting is None else experiment.left(setting.plan, selection=setting.selection)
        for text in (*experiment.warnings, *left):
            logger.warning("%s: %s", experiment.name, text)
        if case.compensate is not None:
            warn_of_left(operands_of(case.model, find(case.model, grid.selection).weights).left)
    common = {
        "metric": chosen.metric.name, "metric_sha256": metrics.code_digest(chosen),
        "output": [experiment.chosen.output for experiment in experiments],
        "class_axis": chosen.class_axis, "seed": grid.seed, "batch": batch,
        "providers": list(providers), **worker.versions(),
    }  # fmt: skip
    work = Work(
        digest=uuid4().hex,
        models=tuple(Packed.of(case.model) for case in cases),
        data=tuple(case.data for case in cases),
        clean=tuple(experiment.clean for experiment in experiments),
        metric=chosen,
        seed=grid.seed,
        batch=batch,
        providers=tuple(providers),
        threads=1,
        correct=tuple(each.correcting.source if each.correcting else None for each in experiments),
        compensate=tuple(case.compensate for case in cases),
    )
    selection = {name: getattr(grid.selection, name) for name in ("include", "exclude", "min_size")}
    everything = {"samples": [len(case.data) for case in cases], **common, **selection, **(facts or {})}
    return Study(
        cases=tuple(cases),
        experiments=tuple(experiments),
        grid=grid,
        stopping=stopping,
        work=work,
        facts=everything,
        limit=limit,
    )


def _common_metric(experiments: Sequence[Experiment]) -> metrics.Chosen:
    """Return the metric of all experiments; they must agree in it, and in what it reads."""
    first = experiments[0].chosen
    for chosen in (experiment.chosen for experiment in experiments):
        if chosen.metric != first.metric or chosen.labelled != first.labelled:
            raise OptionError("the models take different metrics: name one metric for all")
        if (chosen.indices, chosen.axis) != (first.indices, first.axis):
            raise OptionError(
                "the models differ in the output that is measured, or its axis of classes: run a sweep for each"
            )
    return first


def _check_storing(experiments: Sequence[Experiment], grid: Grid) -> None:
    """Raise what storing a model raises at any point, so that none is refused in mid-sweep.

    Points that differ in model, channel, granularity or plan are stored, so that what stays digital is said. Of all
    others it is checked that they store something.
    """
    stored = set()
    for setting in grid.points(len(experiments)):
        alike = setting.model, setting.channel, setting.preset.granularity, setting.name in grid.plans and setting.name
        _check_point(experiments[setting.model], setting, fully=alike not in stored)
        stored.add(alike)


def _check_point(experiment: Experiment, setting: GridPoint, *, fully: bool) -> None:
    try:
        if fully:
            experiment.totals(setting.plan, selection=setting.selection)
        else:
            experiment.check_storable(setting.plan, selection=setting.selection)
    except ModelError as error:
        if not setting.changes:
            raise
        varied = ", ".join(f"{name}={axes.word(value)}" for name, value in setting.changes.items())
        raise type(error)(f"{setting.name} with {varied}: {error}") from error


def sweep(
    study: Study,
    *,
    engine: Engine | None = None,
    out: Path | None = None,
    progress: Progress = lambda *_: None,
    further: Further = lambda _: (),
) -> Iterator[Point]:
    """Yield the points of `study` in the order of its grid, each as soon as it and all before it have their trials.

    Parameters
    ----------
    study : Study
    engine : Engine, optional
        Where trials are computed; in this process if none is given. It is stopped in the end.
    out : Path, optional
        Folder for the results. What an earlier sweep left there is not computed again.
    progress : function
        Called with the number of trials that are done and of all that are planned so far.
    further : function
        Called with each point before it is yielded; returns points to add, of `GridPoint.of`, which come last. As
        points come in their order, what it adds does not depend on the workers.

    Raises
    ------
    OptionError
        If a point is added twice, or of a model that there is not.
    OutputError
        If `out` is another sweep's, or cannot be written.
    EngineError
        If workers die again and again. What ended is in `out`.
    """
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(Folder(out, study.facts))
        run = _Run(study, engine or SerialEngine(), folder, progress, further)
        if folder is not None:
            run.resume()
        yield from run.points(stack)
        if folder is not None:
            folder.finish(_Rows(run), [point.row() for point in run.ended], known=run.rows_in_order)
            run.tell_of_others()


class _Run:
    """One run of a study."""

    def __init__(
        self, study: Study, engine: Engine, folder: Folder | None, progress: Progress, further: Further
    ) -> None:
        self._study, self._engine, self._folder = study, engine, folder
        self._progress, self._further = progress, further
        self._queue = Queue()
        self._share = study.metric.metric.share
        self._names = [str(without_breaks(case.name)) for case in study.cases]
        self._originals = [experiment.original_value for experiment in study.experiments]
        self._entries: list[Entry] = []  # in the order of the points
        self._by_key: dict[tuple[str, ...], Entry] = {}
        for setting in study.settings:
            self._enter(setting)
        if assumptions(scheme for setting in study.settings for scheme in setting.plan.schemes):
            logger.warning(OPTIMISTIC)
        self._channels = {entry.columns["channel_sha256"]: entry.columns["channel"] for entry in self._entries}
        self._key_columns = tuple(self._entries[0].columns)
        corrected = any(correct is not None for correct in study.work.correct)
        self._varying = (*VARYING, *(UNCORRECTED if corrected else ()))
        self._expected = {*self._key_columns, *self._varying, *OF_POINT, *(CORRECTION if corrected else ())}
        self._others: dict[tuple[str, ...], Tally] = {}  # of points that are not in the grid
        self.rows_in_order: int | None = 0  # how many rows there are, if all are where the end of a sweep puts them
        self._last = (0, -1)  # point and trial of the last row
        self._done = self._required = 0
        self._running: Engine | None = None
        self.ended: list[Point] = []

    def _enter(self, setting: GridPoint) -> Entry:
        """Take a point."""
        if not 0 <= setting.model < len(self._names):
            raise OptionError(f"a point is of model {setting.model}, and there are {len(self._names)}")
        columns = columns_of(self._names[setting.model], setting)
        if self._entries and list(columns) != list(self._entries[0].columns):
            raise OptionError(
                f"the point {setting.name!r} does not say what its grid varies: name it with GridPoint.of"
            )
        key = key_of(columns)
        if key in self._by_key:
            raise OptionError(f"the point {setting.name!r} with {counted(setting.cells, 'cell')} appears twice")
        entry = Entry(len(self._entries), setting, columns, Tally(self._study.stopping))
        self._entries.append(entry)
        self._by_key[key] = entry
        return entry

    # ---------------------------------------------------------------------------------------------- resuming

    def resume(self) -> None:
        """Take over what an earlier sweep computed."""
        assert self._folder is not None
        self._folder.each(self._take, varying=self._varying)

    def _take(self, row: Row) -> Callable[[Sequence[str]], None]:
        """Return the function that takes the trials of all rows that are like this one, and agree with it.

        Raises
        ------
        ValueError
            If it says what no sweep writes.
        """
        if set(row) != self._expected:
            odd = min(set(row) ^ self._expected)
            raise ValueError(f"the column {odd!r} is {'missing' if odd in self._expected else 'unknown'}")
        facts, key = facts_of(row), key_of({name: row[name] for name in self._key_columns})
        if row["model"] not in self._names:
            raise ValueError(f"model is {row['model'][:60]!r}, which is not of this sweep")
        known = self._channels.get(row["channel_sha256"])
        if known not in (None, row["channel"]):
            raise ValueError(f"channel is {row['channel'][:60]!r}, but its channel_sha256 is that of {known!r}")
        original = self._originals[self._names.index(row["model"])]
        if not alike(facts.original, original):
            expected = "empty" if original is None else original
            raise ValueError(f"original is {row['original'] or 'empty'}, but in this sweep it is {expected}")
        entry = self._by_key.get(key)
        if entry is not None:
            check_cells(entry.setting, facts.totals)
        tally = self._others.setdefault(key, Tally(self._study.stopping)) if entry is None else entry.tally
        return partial(self._take_trial, tally, len(self._entries) if entry is None else entry.number, facts)

    def _take_trial(self, tally: Tally, point: int, facts: PointFacts, words: Sequence[str]) -> None:
        number, trial = trial_of(words, share=self._share)
        if number in tally:
            raise ValueError(f"trial {number} of this point appears twice")
        contradiction = tally.contradiction(facts)
        if contradiction:
            raise ValueError(f"{contradiction} differ from those of other rows of its point")
        tally.add(number, trial)
        tally.facts = tally.facts or facts
        if self.rows_in_order is not None:
            in_order = point == len(self._entries) or (point, number) > self._last
            self.rows_in_order = self.rows_in_order + 1 if in_order else None
        self._last = (point, number)

    # ---------------------------------------------------------------------------------------------- computing

    def points(self, stack: ExitStack) -> Iterator[Point]:
        """Compute what is missing; yield points as they are complete."""
        for entry in self._entries:
            self._require(entry, first=False)
        self._progress(self._done, self._required)
        yield from self._complete()
        while self._queue:
            for outcome in self._outcomes(stack):
                self._record(outcome)
                yield from self._complete()

    def _require(self, entry: Entry, *, first: bool) -> None:
        """Put the trials that a point lacks into the queue."""
        self._done, self._required = self._done - entry.tally.done, self._required - entry.tally.required
        self._queue.add(entry.number, entry.tally.more(), first=first)
        self._done, self._required = self._done + entry.tally.done, self._required + entry.tally.required

    def _started(self, stack: ExitStack) -> Engine:
        """Return the engine, which is started when there is something to do for it."""
        if self._running is None:
            engine = stack.enter_context(self._engine)
            threads = engine.plan(len(self._queue))
            engine.start(replace(self._study.work, threads=threads))
            self._running = engine
        return self._running

    def _outcomes(self, stack: ExitStack) -> Iterator[Outcome]:
        engine, under_way = self._started(stack), 0
        while self._queue or under_way:
            while self._queue and under_way < AHEAD * engine.slots:
                number, trials = self._queue.take(engine.slots, lambda number: self._entries[number].setting.model)
                engine.submit(Task(number, trials, self._entries[number].packed))
                under_way += 1
            outcome = engine.next()
            under_way -= 1
            yield outcome

    def _record(self, outcome: Outcome) -> None:
        worker.check_versions(outcome.versions)
        self.rows_in_order = None
        entry = self._entries[outcome.number]
        tally, setting = entry.tally, entry.setting
        facts = PointFacts(self._originals[setting.model], outcome.stored, outcome.totals, outcome.correction)
        contradiction = tally.contradiction(facts)
        if contradiction:
            raise OutputError(
                f"{contradiction} in the rows of {setting.name} with {counted(setting.cells, 'cell')} in {TRIALS} "
                "differ from those of this sweep: choose another folder"
            )
        facts = tally.facts = tally.facts or facts
        trials = list(zip(outcome.trials, outcome.results, strict=True))
        if self._folder is not None:
            self._folder.append([row_of(entry.columns, facts, *pair) for pair in trials])
        self._done -= tally.done
        for number, trial in trials:
            tally.add(number, trial)
        self._done += tally.done
        self._require(entry, first=True)
        self._queue.learn(setting.model, outcome.seconds)
        self._progress(self._done, self._required)

    def _complete(self) -> Iterator[Point]:
        while len(self.ended) < len(self._entries) and self._entries[len(self.ended)].tally.enough:
            point = self._point(self._entries[len(self.ended)])
            self.ended.append(point)
            self._tell(point)
            for setting in self._further(point):
                self._add(setting)
            yield point

    def tell_of_others(self) -> None:
        """Warn of points of earlier sweeps in the folder: only their trials are kept beside those of this one."""
        if self._others:
            are = "points of an earlier sweep are" if len(self._others) > 1 else "point of an earlier sweep is"
            logger.warning(
                "%s %s not among the points of this one: trials.csv keeps the trials, but points.csv, the plot and "
                "sweep.toml are of this sweep alone. To have all points in them, give all in one sweep: nothing is "
                "computed again",
                f"{len(self._others):,}", are,
            )  # fmt: skip

    def _tell(self, point: Point) -> None:
        """Log what came of a point."""
        found, count = point.evaluation, len(point.evaluation.values)
        mean = found.stored if found.mean is None else found.mean
        value = "no value" if mean is None else f"{found.metric} {found.shown(mean)}"
        logger.info(
            "point %d of %d, %s, %s: %s, %s",
            len(self.ended), len(self._entries), point.model, point.setting, value, counted(count, "trial"),
        )  # fmt: skip

    def _add(self, setting: GridPoint) -> None:
        """Take a further point, and what an earlier sweep computed of it."""
        entry, self.rows_in_order = self._enter(setting), None
        _check_point(self._study.experiments[setting.model], setting, fully=False)
        known = self._others.pop(key_of(entry.columns), None)
        if known is not None:
            entry.tally = known
        self._require(entry, first=False)
        self._progress(self._done, self._required)

    def _point(self, entry: Entry) -> Point:
        setting, stopping = entry.setting, self._study.stopping
        experiment, facts = self._study.experiments[setting.model], entry.tally.facts
        if facts is None:  # there are no trials
            plan, selection = setting.plan, setting.selection
            totals = experiment.totals(plan, selection=selection)
            facts = PointFacts(experiment.original_value, experiment.stored_value(plan, selection=selection), totals)
        evaluation = experiment.evaluation(
            entry.tally.taken(),
            stored=facts.stored,
            seed=self._study.grid.seed,
            channel=setting.channels_text,
            schemes=setting.plan.schemes,
            correction=facts.correction,
            limit=experiment.limit(setting.plan, selection=setting.selection, seed=self._study.grid.seed)
            if self._study.limit
            else None,
        )
        without = evaluation.uncorrected
        return Point(
            model=self._study.cases[setting.model].name,
            setting=setting,
            totals=facts.totals,
            evaluation=evaluation,
            ci95=stopping.interval(evaluation.values, bounds=evaluation.bounds),
            uncorrected_ci95=None if without is None else stopping.interval(without.values, bounds=without.bounds),
            confidence=stopping.confidence,
        )

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all trials that are known, in their order; last, those of points that are in no grid."""
        row: Row = {}
        for entry in self._entries:
            facts = entry.tally.facts
            if facts is not None:
                for number, trial in entry.tally.known():
                    row = row_of(entry.columns, facts, number, trial)
                    yield row
        for other in self._folder.stream() if self._others and self._folder and row else ():
            if key_of({name: other[name] for name in self._key_columns}) in self._others:
                yield typed(other, row)


class _Rows:
    """All rows of a run, made anew each time that one goes through them."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[Row]:
        return self._run.rows()
