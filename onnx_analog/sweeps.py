"""Monte Carlo over a grid: every point in as many trials as it takes, wherever they are computed, and never twice."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import metrics, pipeline, work
from onnx_analog.data import Dataset
from onnx_analog.engines import Engine
from onnx_analog.engines.local import SerialEngine
from onnx_analog.errors import EngineError, OptionError
from onnx_analog.evaluation import Evaluation, Trial, interval
from onnx_analog.grid import Grid, Setting
from onnx_analog.manifest import Totals, account
from onnx_analog.network import BATCH, Network
from onnx_analog.results import Folder, Row
from onnx_analog.stopping import Stopping
from onnx_analog.work import Outcome, Packed, Task, Work

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
    return (float(np.mean(differences)) if differences else float("nan")), interval(differences)


# ------------------------------------------------------------------------------------------------------- rows


def _columns(model: str, setting: Setting) -> Row:
    return {"model": model, **setting.columns()}


def _costs(totals: Totals) -> Row:
    ratios = totals.ratios()
    names = ("r_avg", "stored_cells_per_stored_weight", "all_in_cells_per_original_weight")
    return {**{name: ratios[name] for name in names}, **asdict(totals)}


def _totals_of(row: Mapping[str, str]) -> Totals:
    return Totals(**{name: int(row[name]) for name in Totals.__dataclass_fields__})


def _rows(model: str, setting: Setting, seed: int, clean: float | None, outcome: Outcome) -> list[Row]:
    return [
        {
            **_columns(model, setting), "seed": seed, "trial": trial, "value": one.value, "sqnr_db": one.sqnr_db,
            "clean": clean, **_costs(outcome.totals),
        }
        for trial, one in zip(outcome.task.trials, outcome.found, strict=True)
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ state


class _Board:
    """What is done of each point, and what is still wanted."""

    def __init__(self, count: int, stopping: Stopping) -> None:
        self.stopping = stopping
        self.found: list[dict[int, Trial]] = [{} for _ in range(count)]
        self.totals: list[Totals | None] = [None] * count
        self.planned = [0] * count

    def enough(self, place: int) -> list[Trial]:
        """Return the trials of a point in their order, up to the first that is missing."""
        found = self.found[place]
        ordered: list[Trial] = []
        while len(ordered) in found:
            ordered.append(found[len(ordered)])
        return ordered

    def more(self, place: int) -> list[int]:
        """Return the trials of a point that are wanted now and not yet planned."""
        values = [trial.value for trial in self.enough(place)]
        wanted = self.stopping.wanted(values)
        missing = [trial for trial in range(self.planned[place], wanted) if trial not in self.found[place]]
        self.planned[place] = max(self.planned[place], wanted)
        return missing

    def taken(self, place: int) -> list[Trial]:
        """Return the trials that count: those before the look at which the point stopped."""
        found = self.enough(place)
        return found[: self.stopping.wanted([trial.value for trial in found])]

    def progress(self) -> tuple[int, int]:
        """Return how many trials are done, and how many are planned."""
        done = sum(min(len(self.enough(place)), planned) for place, planned in enumerate(self.planned))
        return done, sum(self.planned)


class _Queue:
    """Tasks that wait: runs of trials, cut into tasks of a sensible length."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, list[int]]] = deque()
        self._seconds: dict[int, float] = {}  # of a trial, by model

    def __len__(self) -> int:
        return sum(len(trials) for _, trials in self._runs)

    def add(self, place: int, trials: list[int], *, first: bool) -> None:
        """Put a run at the end, or before all others."""
        if trials:
            (self._runs.appendleft if first else self._runs.append)((place, trials))

    def learn(self, model: int, seconds: float) -> None:
        """Remember how long a trial of a model takes."""
        self._seconds[model] = seconds

    def take(self, settings: Sequence[Setting], slots: int) -> Task:
        """Return the next task: of one trial until it is known how long one takes."""
        place, trials = self._runs.popleft()
        seconds = self._seconds.get(settings[place].model, _CHUNK_S)
        share = -(-len(self) // (_AHEAD * slots)) + 1  # towards the end, something for all
        count = max(min(int(_CHUNK_S / max(seconds, 1e-6)), share), 1)
        self.add(place, trials[count:], first=True)
        return Task(place, tuple(trials[:count]))


# ------------------------------------------------------------------------------------------------------ sweep


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep that was checked, and can run.

    `prepare` makes it.
    """

    cases: tuple[Case, ...]
    grid: Grid
    stopping: Stopping
    metric_name: str
    work: Work
    facts: Mapping[str, Any]

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The points."""
        return self.work.settings


def prepare(
    cases: Sequence[Case],
    grid: Grid,
    stopping: Stopping,
    *,
    metric: tuple[str, metrics.Metric] | None = None,
    batch: int = BATCH,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    facts: Mapping[str, Any] | None = None,
) -> Plan:
    """Return a sweep, after everything was checked that can be before the first trial.

    Parameters
    ----------
    cases : sequence of Case
        Their names differ.
    grid : Grid
    stopping : Stopping
    metric : (name, function), optional
        The default is the one that fits the data; see `onnx_analog.metrics`.
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
    if batch < 1:
        raise OptionError(f"batch is {batch}; it must be 1 or more")
    names = [case.name for case in cases]
    again = [name for place, name in enumerate(names) if name in names[:place]]
    if again or not names:
        raise OptionError(f"two models are called {again[0]!r}: rename one" if again else "there are no models")
    settings = tuple(grid.settings(len(cases)))
    for setting in {(one.model, one.channel): one for one in settings}.values():
        pipeline.run([setting.protect_pass()], cases[setting.model].model.clone())
    clean = [Network(case.model, providers=providers).run(case.data, batch=batch) for case in cases]
    chosen = [metric or metrics.default(outputs, case.data.labels) for outputs, case in zip(clean, cases, strict=True)]
    if len({name for name, _ in chosen}) > 1:
        raise OptionError("the models take different metrics: name one with --metric")
    (name, function), *_ = chosen
    for outputs, case in zip(clean, cases, strict=True):
        function(outputs, labels=case.data.labels, clean=outputs)
    common = {"metric": name, "seed": grid.seed, "batch": batch, "providers": list(providers), **work.versions()}
    made = Work(
        digest=_digest(
            repr((common, facts, settings)), [*chain.from_iterable(clean), *(case.data.labels for case in cases)]
        ),
        models=tuple(Packed.of(case.model) for case in cases),
        data=tuple(case.data for case in cases),
        clean=tuple(clean),
        metric=function,
        settings=settings,
        seed=grid.seed,
        batch=batch,
        providers=tuple(providers),
        threads=1,
    )
    everything = {"samples": [len(case.data) for case in cases], **common, **(facts or {})}
    return Plan(cases=tuple(cases), grid=grid, stopping=stopping, metric_name=name, work=made, facts=everything)


def _digest(text: str, arrays: Sequence[NDArray[Any] | None]) -> str:
    """Return what tells one work from another on a worker that does several."""
    found = hashlib.sha256(text.encode())
    for array in arrays:
        if array is not None:
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def sweep(
    plan: Plan, *, engine: Engine | None = None, out: Path | None = None, progress: Progress = lambda *_: None
) -> Iterator[Point]:
    """Yield the points of `plan` in the order of its grid, each as soon as it and all before it have their trials.

    Parameters
    ----------
    plan : Plan
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
            run.resume(folder.read())
        yield from run.points(folder, stack)
        if folder is not None:
            folder.finish(run.rows(), [point.row() for point in run.ended])


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, engine: Engine, progress: Progress) -> None:
        self._plan, self._engine, self._progress = plan, engine, progress
        self._board = _Board(len(plan.settings), plan.stopping)
        self._queue = _Queue()
        self._names = [plan.cases[setting.model].name for setting in plan.settings]
        self._clean = [_alone(plan, model) for model in range(len(plan.cases))]
        self._others: list[Row] = []
        self.ended: list[Point] = []

    def resume(self, rows: Sequence[Row]) -> None:
        """Take over what an earlier sweep computed."""
        places = {_key(_columns(name, one)): n for n, (name, one) in enumerate(self._pairs())}
        for row in rows:
            place = places.get(_key({name: row[name] for name in _columns("", self._plan.settings[0])}))
            if place is None:
                self._others.append(row)
            else:
                self._board.found[place][int(row["trial"])] = Trial(float(row["value"]), float(row["sqnr_db"]))
                self._board.totals[place] = _totals_of(row)

    def _pairs(self) -> Iterator[tuple[str, Setting]]:
        yield from zip(self._names, self._plan.settings, strict=True)

    def points(self, folder: Folder | None, stack: ExitStack) -> Iterator[Point]:
        """Compute what is missing; yield points as they are complete."""
        for place in range(len(self._names)):
            self._queue.add(place, self._board.more(place), first=False)
        self._progress(*self._board.progress())
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
        mine = work.versions()
        if outcome.versions != mine:
            name = next(name for name in mine if outcome.versions.get(name) != mine[name])
            raise EngineError(
                f"a worker has {name} {outcome.versions.get(name)}, and this process {mine[name]}: numbers would "
                "depend on who computes them. Install the same versions everywhere"
            )
        place = outcome.task.setting
        setting = self._plan.settings[place]
        if folder is not None:
            clean = self._clean[setting.model]
            folder.append(_rows(self._names[place], setting, self._plan.grid.seed, clean, outcome))
        self._board.totals[place] = outcome.totals
        self._board.found[place].update(zip(outcome.task.trials, outcome.found, strict=True))
        self._queue.learn(setting.model, outcome.seconds)
        self._queue.add(place, self._board.more(place), first=True)
        self._progress(*self._board.progress())

    def _complete(self) -> Iterator[Point]:
        while len(self.ended) < len(self._names):
            place = len(self.ended)
            taken = self._board.taken(place)
            if len(taken) < self._board.stopping.wanted([trial.value for trial in taken]):
                return
            self.ended.append(self._point(place, taken))
            yield self.ended[-1]

    def _point(self, place: int, taken: Sequence[Trial]) -> Point:
        setting, stopping = self._plan.settings[place], self._plan.stopping
        values = tuple(trial.value for trial in taken)
        evaluation = Evaluation(
            metric=self._plan.metric_name,
            samples=len(self._plan.cases[setting.model].data),
            clean=self._clean[setting.model],
            values=values,
            sqnr_db=tuple(trial.sqnr_db for trial in taken),
            seed=self._plan.grid.seed,
        )
        return Point(
            model=self._names[place],
            setting=setting,
            totals=self._board.totals[place] or _totals(self._plan, setting),
            evaluation=evaluation,
            ci95=stopping.interval(values),
        )

    def rows(self) -> list[Row]:
        """Return the rows of all trials that are known, in their order; last, those of points that are in no grid."""
        found: list[Row] = []
        for place, (name, setting) in enumerate(self._pairs()):
            totals, trials = self._board.totals[place], dict(sorted(self._board.found[place].items()))
            if totals is not None:
                outcome = Outcome(Task(place, tuple(trials)), tuple(trials.values()), totals, 0.0, {})
                clean = self._clean[setting.model]
                found += _rows(name, setting, self._plan.grid.seed, clean, outcome)
        return found + [_typed(row, found[0]) for row in self._others if found]


def _typed(row: Mapping[str, str], like: Row) -> Row:
    """Return a row that was read, with values of the types that `like` has."""
    return {name: None if like[name] is None else type(like[name])(row[name]) for name in like}


def _totals(plan: Plan, setting: Setting) -> Totals:
    protected = pipeline.run([setting.protect_pass()], plan.cases[setting.model].model.clone())
    return account(protected).totals


def _alone(plan: Plan, model: int) -> float | None:
    """Return the metric without noise; None where it compares with that and so says nothing."""
    if plan.work.metric is metrics.sqnr_db:
        return None
    clean = plan.work.clean[model]
    return float(plan.work.metric(clean, labels=plan.cases[model].data.labels, clean=clean))


def _key(columns: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in columns.values())
