"""Monte Carlo over a grid: every point in as many trials as it takes, wherever they are computed, and never twice."""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import onnx_ir as ir

from onnx_analog import named
from onnx_analog.coding.assumptions import OPTIMISTIC, assumptions
from onnx_analog.coding.scheme import GRANULARITIES, STRATEGIES
from onnx_analog.display import Shown, counted
from onnx_analog.errors import EngineError, OptionError, OutputError, require_int
from onnx_analog.graph.manifest import Totals
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.run.experiment import Experiment, Trial
from onnx_analog.run.session import BATCH
from onnx_analog.run.statistics import interval
from onnx_analog.study import worker
from onnx_analog.study.engines import Engine
from onnx_analog.study.engines.local import SerialEngine
from onnx_analog.study.grid import Grid, GridPoint
from onnx_analog.study.run_folder import TRIALS, Folder, Row
from onnx_analog.study.stopping import MOST_TRIALS, Stopping
from onnx_analog.study.worker import Outcome, Packed, Task, Work

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # trials that are done, and all that are planned
Further = Callable[["Point"], Iterable[GridPoint]]

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


@dataclass(frozen=True, kw_only=True, repr=False)
class Point(Shown):
    """One point of a grid, and what came of it.

    `evaluation.clean` is the model without noise, before it is protected; it differs from the protected one's by
    rounding. `ci95` holds at least 95 %, however many looks at it decided on the number of trials.
    """

    model: str
    setting: GridPoint
    totals: Totals
    evaluation: Evaluation
    ci95: tuple[float, float] | None

    @property
    def strategy(self) -> str:
        """The name of its strategy, or of its plan."""
        return self.setting.strategy

    @property
    def cells(self) -> int:
        """Cells per weight; for `redundancy`, per small weight."""
        return self.setting.cells

    @property
    def cost(self) -> float:
        """All-in cells for each original weight."""
        return self.totals.ratios()["all_in_cells_per_original_weight"]

    def __str__(self) -> str:
        cost = f"{self.cost:.2f} all-in cells per weight"
        return f"{self.model}, {self.setting} ({cost}): {self.evaluation.told(self.ci95)}"

    def _lines(self) -> Iterator[tuple[str, object]]:
        yield "model", self.model
        yield "channel", self.setting.channel
        yield "granularity", self.setting.preset.granularity
        if self.setting.large_fraction is not None:
            yield "share of large weights", f"{self.setting.large_fraction:.2%}"
        yield "stored as", self.setting.stored_as
        yield "all-in cells per weight", f"{self.cost:.3f}"
        yield self.evaluation.metric, self.evaluation.told(self.ci95)

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


def _columns(model: str, setting: GridPoint) -> Row:
    return {name: _one_line(value) for name, value in {"model": model, **setting.columns()}.items()}


def _one_line(value: Any) -> Any:
    """Return a value without line breaks, for a row of a CSV."""
    return " ".join(value.splitlines()) if isinstance(value, str) else value


_RATIOS = ("r_avg", "stored_cells_per_stored_weight", "all_in_cells_per_original_weight")


@lru_cache(maxsize=4096)
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


_VARYING = ("trial", "value", "sqnr_db")  # columns that differ between rows of one point


class _Said(NamedTuple):
    """What a row says of its point."""

    clean: float | None
    totals: Totals


def _said(row: Mapping[str, str]) -> _Said:
    """Return what a row of an earlier sweep says of its point.

    Raises
    ------
    ValueError
        If it says what no sweep writes.
    """
    _check_point(row)
    totals = Totals(**{name: _count(name, row[name]) for name in Totals.__dataclass_fields__})
    _check_costs(row, totals)
    return _Said(_number("clean", row["clean"]) if row["clean"] else None, totals)


def _trial(words: Sequence[str], *, share: bool) -> tuple[int, Trial]:
    """Return number and result of the trial of a row, from the words of `_VARYING`; raises ValueError likewise."""
    trial, value = _count("trial", words[0]), _number("value", words[1])
    if share and not (0 <= value <= 1 or words[1] == "nan"):
        raise ValueError(f"value is {words[1]}; it must be from 0 to 1")
    sqnr_db = _number("sqnr_db", words[2])
    if math.isfinite(sqnr_db) and abs(sqnr_db) > _MOST_DB:
        raise ValueError(f"sqnr_db is {words[2]}; it must be within ±{_MOST_DB:g} dB")
    if trial >= MOST_TRIALS:
        raise ValueError(f"trial is {trial:,}; it must be below {MOST_TRIALS:,}")
    return trial, Trial(value, sqnr_db)


def _check_point(row: Mapping[str, str]) -> None:
    """Raise ValueError if a row is of a point that no grid can have."""
    if row["granularity"] not in GRANULARITIES:
        raise ValueError(f"granularity is {row['granularity'][:40]!r}; it must be one of {', '.join(GRANULARITIES)}")
    small, large = (_count(name, row[name]) for name in ("cells", "cells_large"))
    strategy = STRATEGIES.get(row["strategy"])
    if strategy is not None and (not small or not large or (large != small and not strategy.adaptive)):
        raise ValueError(f"cells_large is {large:,}, which strategy {row['strategy']} cannot have with cells {small:,}")
    fraction = _number("large_fraction", row["large_fraction"] or "0")  # empty: no share parts the weights
    if not 0 <= fraction <= 1:
        raise ValueError(f"large_fraction is {row['large_fraction']}; it must be from 0 to 1")
    if row["large_fraction"] not in ("", str(fraction), f"{fraction:g}"):
        raise ValueError(f"large_fraction is {row['large_fraction'][:40]!r}, which no sweep writes so")
    for name in ("channel_sha256", "plan_sha256"):
        if not _SHA256.fullmatch(row[name]):
            raise ValueError(f"{name} is {row[name][:40]!r}, which is not a SHA-256")


def _check_cells(setting: GridPoint, totals: Totals) -> None:
    """Raise ValueError if the cells of a point's weights cannot be so many."""
    if setting.name not in STRATEGIES:
        return  # a plan may give each class and tensor cells of their own
    weights = totals.stored_weights * setting.channel.devices_per_cell
    ends = [each * weights for each in (setting.cells, setting.cells_large)]
    if not min(ends) <= totals.analog_cells <= max(ends):
        raise ValueError(f"analog_cells is {totals.analog_cells:,}; it must be from {min(ends):,} to {max(ends):,}")


def _check_costs(row: Mapping[str, str], totals: Totals) -> None:
    if not 0 < totals.stored_weights <= totals.original_weights:
        raise ValueError(
            f"stored_weights is {totals.stored_weights:,}; it must be from 1 to {totals.original_weights:,}, "
            "the number of original weights"
        )
    for name, value in _costs(totals).items():
        if row[name] != str(value):
            raise ValueError(f"{name} is {row[name]!r}, but the counts of cells give {value}")


def _count(name: str, text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}; it must be a whole number from 0")
    return int(text)


def _number(name: str, text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} is {text[:40]!r}, which is not a number")
    number = float(text)
    if math.isinf(number) and not text.endswith("inf"):
        raise ValueError(f"{name} is {text[:40]!r}, which is beyond the range of numbers")
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


@dataclass(eq=False)
class _Entry:
    """A point of a run, and what is done of it."""

    number: int
    setting: GridPoint
    columns: Row
    tally: _Tally

    @cached_property
    def packed(self) -> bytes:
        """The point as it travels to workers."""
        return named.dumps(self.setting)


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

    def take(self, slots: int, model_of: Callable[[int], int]) -> tuple[int, tuple[int, ...]]:
        """Return a point and its next trials: one until it is known how long one takes."""
        place, trials = self._runs[0]
        seconds = self._seconds.get(model_of(place), _CHUNK_S)
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
        return place, tuple(taken)


# ------------------------------------------------------------------------------------------------------ sweep


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
    """

    cases: tuple[Case, ...]
    experiments: tuple[Experiment, ...]
    grid: Grid
    stopping: Stopping
    work: Work
    facts: Mapping[str, Any]

    @property
    def metric(self) -> metrics.Chosen:
        """The metric, and what it measures."""
        return self.experiments[0].chosen

    @property
    def metric_name(self) -> str:
        """What the metric is called."""
        return self.metric.metric.name

    @property
    def settings(self) -> tuple[GridPoint, ...]:
        """The points of the grid."""
        return tuple(self.grid.points(len(self.cases)))


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
    if require_int("batch", batch) < 1:
        raise OptionError(f"batch is {batch}; it must be 1 or more")
    names = [case.name for case in cases]
    again = [name for place, name in enumerate(names) if name in names[:place]]
    if again or not names:
        raise OptionError(f"two models are called {again[0]!r}: rename one" if again else "there are no models")
    asked: dict[str, Any] = {"output": output, "class_axis": class_axis, "batch": batch, "providers": providers}
    experiments = [Experiment(case.model, case.data, metric, name=case.name, **asked) for case in cases]
    _check_storing(experiments, grid)
    chosen = [experiment.chosen for experiment in experiments]
    first = chosen[0]
    for one in chosen:
        if one.metric != first.metric or one.labelled != first.labelled:
            raise OptionError("the models take different metrics: name one with --metric")
        if (one.places, one.axis) != (first.places, first.axis):
            raise OptionError(
                "the models differ in the output that is measured, or its axis of classes: run a sweep for each"
            )
    for experiment in experiments:
        for text in experiment.warnings:
            logger.warning("%s: %s", experiment.name, text)
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
        clean=tuple(experiment.clean for experiment in experiments),
        metric=first,
        seed=grid.seed,
        batch=batch,
        providers=tuple(providers),
        threads=1,
    )
    selection = {name: getattr(grid.selection, name) for name in ("include", "exclude", "min_size")}
    everything = {"samples": [len(case.data) for case in cases], **common, **selection, **(facts or {})}
    return Study(
        cases=tuple(cases),
        experiments=tuple(experiments),
        grid=grid,
        stopping=stopping,
        work=made,
        facts=everything,
    )


def _check_storing(experiments: Sequence[Experiment], grid: Grid) -> None:
    """Store each model once for each channel, granularity and plan, so that what cannot be stored is refused now."""
    alike = {(one.model, one.channel, one.preset.granularity, one.name in grid.plans and one.name): one
             for one in grid.points(len(experiments))}  # fmt: skip
    for setting in alike.values():
        experiments[setting.model].totals(setting.plan, selection=setting.selection)


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


class _Run:
    """One run of a study."""

    def __init__(
        self, study: Study, engine: Engine, folder: Folder | None, progress: Progress, further: Further
    ) -> None:
        self._study, self._engine, self._folder = study, engine, folder
        self._progress, self._further = progress, further
        self._queue = _Queue()
        self._share = study.metric.metric.share
        self._names = [str(_one_line(case.name)) for case in study.cases]
        self._clean = [experiment.clean_value for experiment in study.experiments]
        self._entries: list[_Entry] = []  # in the order of the points
        self._by_key: dict[tuple[str, ...], _Entry] = {}
        for setting in study.settings:
            self._enter(setting)
        if assumptions(scheme for setting in study.settings for scheme in setting.plan.schemes):
            logger.warning(OPTIMISTIC)
        self._channels = {entry.columns["channel_sha256"]: entry.columns["channel"] for entry in self._entries}
        counts = (*_RATIOS, *Totals.__dataclass_fields__)
        self._key_columns = tuple(self._entries[0].columns)
        self._expected = {*self._key_columns, *_VARYING, "clean", *counts}
        self._others: dict[tuple[str, ...], _Tally] = {}  # of points that are not in the grid
        self.rows_in_order: int | None = 0  # how many rows there are, if all are where the end of a sweep puts them
        self._last = (0, -1)  # point and trial of the last row
        self._done = self._wanted = 0
        self._running: Engine | None = None
        self.ended: list[Point] = []

    def _enter(self, setting: GridPoint) -> _Entry:
        """Take a point."""
        if not 0 <= setting.model < len(self._names):
            raise OptionError(f"a point is of model {setting.model}, and there are {len(self._names)}")
        columns = _columns(self._names[setting.model], setting)
        if self._entries and list(columns) != list(self._entries[0].columns):
            raise OptionError(
                f"the point {setting.name!r} does not say what its grid varies: name it with GridPoint.of"
            )
        key = _key(columns)
        if key in self._by_key:
            raise OptionError(f"the point {setting.name!r} with {counted(setting.cells, 'cell')} appears twice")
        entry = _Entry(len(self._entries), setting, columns, _Tally(self._study.stopping))
        self._entries.append(entry)
        self._by_key[key] = entry
        return entry

    # ---------------------------------------------------------------------------------------------- resuming

    def resume(self) -> None:
        """Take over what an earlier sweep computed."""
        assert self._folder is not None
        self._folder.each(self._take, varying=_VARYING)

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
        said, key = _said(row), _key({name: row[name] for name in self._key_columns})
        if row["model"] not in self._names:
            raise ValueError(f"model is {row['model'][:60]!r}, which is not of this sweep")
        known = self._channels.get(row["channel_sha256"])
        if known not in (None, row["channel"]):
            raise ValueError(f"channel is {row['channel'][:60]!r}, but its channel_sha256 is that of {known!r}")
        clean = self._clean[self._names.index(row["model"])]
        if not _alike(said.clean, clean):
            raise ValueError(
                f"clean is {row['clean'] or 'empty'}, but in this sweep it is {'empty' if clean is None else clean}"
            )
        entry = self._by_key.get(key)
        if entry is not None:
            _check_cells(entry.setting, said.totals)
        tally = self._others.setdefault(key, _Tally(self._study.stopping)) if entry is None else entry.tally
        return partial(self._take_trial, tally, len(self._entries) if entry is None else entry.number, said.totals)

    def _take_trial(self, tally: _Tally, point: int, totals: Totals, words: Sequence[str]) -> None:
        number, trial = _trial(words, share=self._share)
        if number in tally:
            raise ValueError(f"trial {number} of this point appears twice")
        if tally.totals not in (None, totals):
            raise ValueError("its counts of weights and cells differ from those of other rows of its point")
        tally.add(number, trial)
        tally.totals = totals
        if self.rows_in_order is not None:
            in_order = point == len(self._entries) or (point, number) > self._last
            self.rows_in_order = self.rows_in_order + 1 if in_order else None
        self._last = (point, number)

    # ---------------------------------------------------------------------------------------------- computing

    def points(self, stack: ExitStack) -> Iterator[Point]:
        """Compute what is missing; yield points as they are complete."""
        for entry in self._entries:
            self._want(entry, first=False)
        self._progress(self._done, self._wanted)
        yield from self._complete()
        while self._queue:
            for outcome in self._outcomes(stack):
                self._record(outcome)
                yield from self._complete()

    def _want(self, entry: _Entry, *, first: bool) -> None:
        """Put the trials that a point lacks into the queue."""
        self._done, self._wanted = self._done - entry.tally.done, self._wanted - entry.tally.wanted
        self._queue.add(entry.number, entry.tally.more(), first=first)
        self._done, self._wanted = self._done + entry.tally.done, self._wanted + entry.tally.wanted

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
            while self._queue and under_way < _AHEAD * engine.slots:
                number, trials = self._queue.take(engine.slots, lambda number: self._entries[number].setting.model)
                engine.submit(Task(number, trials, self._entries[number].packed))
                under_way += 1
            outcome = engine.next()
            under_way -= 1
            yield outcome

    def _record(self, outcome: Outcome) -> None:
        mine = worker.versions()
        if outcome.versions != mine:
            name = next(name for name in mine if outcome.versions.get(name) != mine[name])
            raise EngineError(
                f"a worker has {name} {outcome.versions.get(name)}, and this process {mine[name]}: results "
                "would depend on where they are computed. Install the same versions everywhere"
            )
        self.rows_in_order = None
        entry = self._entries[outcome.number]
        tally, setting = entry.tally, entry.setting
        if tally.totals not in (None, outcome.totals):
            raise OutputError(
                f"the rows of {setting.name} with {counted(setting.cells, 'cell')} in {TRIALS} have other counts of "
                "weights and cells than this sweep finds: choose another folder with --out"
            )
        trials = list(zip(outcome.trials, outcome.found, strict=True))
        if self._folder is not None:
            clean = self._clean[setting.model]
            self._folder.append([_row(entry.columns, clean, *pair, outcome.totals) for pair in trials])
        self._done -= tally.done
        tally.totals = outcome.totals
        for number, trial in trials:
            tally.add(number, trial)
        self._done += tally.done
        self._want(entry, first=True)
        self._queue.learn(setting.model, outcome.seconds)
        self._progress(self._done, self._wanted)

    def _complete(self) -> Iterator[Point]:
        while len(self.ended) < len(self._entries) and self._entries[len(self.ended)].tally.enough:
            point = self._point(self._entries[len(self.ended)])
            self.ended.append(point)
            for setting in self._further(point):
                self._add(setting)
            yield point

    def _add(self, setting: GridPoint) -> None:
        """Take a further point, and what an earlier sweep computed of it."""
        entry, self.rows_in_order = self._enter(setting), None
        known = self._others.pop(_key(entry.columns), None)
        if known is not None:
            entry.tally = known
        self._want(entry, first=False)
        self._progress(self._done, self._wanted)

    def _point(self, entry: _Entry) -> Point:
        setting, stopping = entry.setting, self._study.stopping
        experiment, taken = self._study.experiments[setting.model], entry.tally.taken()
        evaluation = experiment.evaluation(
            taken, seed=self._study.grid.seed, channel=str(setting.channel), schemes=setting.plan.schemes
        )
        return Point(
            model=self._study.cases[setting.model].name,
            setting=setting,
            totals=entry.tally.totals or experiment.totals(setting.plan, selection=setting.selection),
            evaluation=evaluation,
            ci95=stopping.interval(evaluation.values, bounds=evaluation.bounds),
        )

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all trials that are known, in their order; last, those of points that are in no grid."""
        row: Row = {}
        for entry in self._entries:
            totals = entry.tally.totals
            if totals is not None:
                for trial, found in entry.tally.known():
                    row = _row(entry.columns, self._clean[entry.setting.model], trial, found, totals)
                    yield row
        for other in self._folder.stream() if self._others and self._folder and row else ():
            if _key({name: other[name] for name in self._key_columns}) in self._others:
                yield _typed(other, row)


class _Rows:
    """All rows of a run, made anew each time that one goes through them."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[Row]:
        return self._run.rows()


def _typed(row: Mapping[str, str], like: Row) -> Row:
    """Return a row that was read, with values of the types that `like` has."""
    return {name: _value(row[name], like[name]) for name in like}


def _value(text: str, like: Any) -> Any:
    """Return the value of a word of a row: None if it is empty, and a number where only the other value is unknown."""
    if not text and not isinstance(like, str):
        return None
    if like is None:
        return float(text) if _NUMBER.fullmatch(text) else text
    return type(like)(text)


def _key(columns: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple("" if value is None else str(value) for value in columns.values())  # as in the CSV
