"""Search for the cheapest plan that keeps a network within a loss, and its verification.

The samples are split into four by a permutation that follows from the seed: some measure sensitivities and correct,
some are searched with, and the rest, which nothing else has seen, verify.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_analog import named
from onnx_analog.arguments import DEFAULTS
from onnx_analog.channels import Channel
from onnx_analog.coding.compensation import unfit
from onnx_analog.coding.limit import Limit
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import code_of
from onnx_analog.display import Progress, silent
from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph.correction import NUMBER_BITS
from onnx_analog.graph.protected import ProtectedModel, just_protected
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass, pipeline
from onnx_analog.randomness import stream
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.moments import input_moments, warn_of_left
from onnx_analog.run.read import reads_alike
from onnx_analog.study.engines import Engine
from onnx_analog.study.worker import Packed
from onnx_analog.tuning.allocation import Allocation, hull, path
from onnx_analog.tuning.bench import CALIBRATION as CALIBRATED
from onnx_analog.tuning.bench import Bench, Call, Crew, Part, Setup, listed, quiet
from onnx_analog.tuning.bisection import after, cheapest
from onnx_analog.tuning.candidates import Candidate, members
from onnx_analog.tuning.drops import Drop, check_paired, drop_from, drop_of, samples_needed
from onnx_analog.tuning.journal import Journal
from onnx_analog.tuning.scale import check_unit, noise_of
from onnx_analog.tuning.sensitivity import DRAWS, Sensitivity, sensitivity_of
from onnx_analog.tuning.steps import Steps

CALIBRATION = 128  # samples that measure sensitivities
CORRECTION = 256  # samples that correct
_LEAST = 64  # samples to search with, and to verify with
_LOOKS = 3  # at the samples that verify
_EXPECTED = {"search": 5.0, "verification": 1.5}  # runs of all samples to search with, or to verify with
_QUICK = 1024  # samples of a quick look, where there are four times as many to search with


class Parts(NamedTuple):
    """The samples of each step."""

    calibration: Dataset
    correction: Dataset
    search: Dataset
    verification: Dataset


def parts_of(data: Dataset, seed: int) -> Parts:
    """Return the samples of each step: at most a tenth of them calibrate, and a tenth correct.

    Raises
    ------
    DataError
        If there are too few samples.
    """
    count = len(data)
    calibrating, correcting = min(CALIBRATION, count // 10), min(CORRECTION, count // 10)
    rest = count - calibrating - correcting
    if rest < 2 * _LEAST:
        needed = next(n for n in range(2 * _LEAST, 4 * _LEAST) if n - 2 * (n // 10) >= 2 * _LEAST)
        raise DataError(f"the data hold {count:,} samples; to search and to verify takes at least {needed}")
    order = stream(seed, 0, "tune", plane="samples").permutation(count)
    searching = rest // 2
    ends = np.cumsum([calibrating, correcting, searching])
    return Parts(*(data.take(np.sort(numbers)) for numbers in np.split(order, ends)))


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is asked for: one of three.

    Attributes
    ----------
    max_drop : float, optional
        The largest drop of a share, 0 to 1.
    min_sqnr_db : float, optional
        The least ratio of signal to noise in the outputs, in dB.
    budget : float, optional
        The most cells per original weight.
    """

    max_drop: float | None = None
    min_sqnr_db: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if not given:
            raise OptionError("none of max_drop, min_sqnr and budget is given: give one of them")
        if len(given) > 1:
            first, second = (name.removesuffix("_db") for name in given[:2])
            raise OptionError(f"{first} and {second} exclude each other: give one of them")

    @property
    def limit(self) -> float | None:
        """The largest loss, in the unit of `Drop`; None within a budget."""
        return self.max_drop if self.min_sqnr_db is None else noise_of(self.min_sqnr_db)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One allocation that was tried.

    Attributes
    ----------
    cells : float
        Per original weight, the correction included.
    loss : float
        Divergence that is predicted.
    drop : Drop
        On the samples that are searched with.
    """

    cells: float
    loss: float
    drop: Drop


@dataclass(frozen=True, kw_only=True)
class Look:
    """One plan on the samples that verify.

    Attributes
    ----------
    cells : float
        Per original weight, the correction included.
    drop : Drop
    holds : bool or None
        Whether the plan keeps the goal; None if these samples cannot tell, or the goal is a budget.
    """

    cells: float
    drop: Drop
    holds: bool | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The cheapest plan that was found among some candidates.

    Attributes
    ----------
    allocation : Allocation
    plan : Plan
    cells : float
        Per original weight, the correction included.
    verified : Drop
        On samples that nothing else has seen.
    holds : bool or None
        Whether the goal holds, with the confidence that was asked for; None if these samples cannot tell.
    needed : int or None
        Samples that would show that it holds, where `holds` is None.
    last : bool
        Whether no plan of these candidates takes more cells.
    looks : tuple of Look
        What was verified, the cheapest first: the last is that of the answer.
    curve : tuple of Point
        What was tried on the way, the cheapest first.
    """

    allocation: Allocation
    plan: Plan
    cells: float
    verified: Drop
    holds: bool | None
    needed: int | None
    last: bool
    looks: tuple[Look, ...]
    curve: tuple[Point, ...] = field(repr=False)

    @property
    def digital(self) -> bool:
        """Whether no tensor has analog cells."""
        return all(choice.candidate.scheme.analog == "none" for choice in self.allocation.choices.values())


class Search:
    """What is measured once for a model, a channel and data, and answers of several kinds of candidates from it.

    Parameters
    ----------
    model : ir.Model
        Plain.
    parts : Parts
    channel : Channel
    decoding : str
        The most that decoding may take.
    options : mapping
        Further arguments of `Experiment`.
    selection : Selection
    counting : {"memory", "paper"}
        Of cells.
    correct : bool
        Correct each read with the samples for that.
    seed, trials : int
    confidence : float
        Of the verification.
    goal : Goal
        One that will be asked for; its metric is checked before anything is measured.
    journal : Journal
        Keeps what was measured.
    engine : Engine
        Where it is measured. It is entered; whoever entered it stops it.
    progress : function
        Called with what is being done, and with the share of the expected work that is done.
    """

    def __init__(
        self,
        model: ir.Model,
        parts: Parts,
        channel: Channel,
        decoding: str,
        *,
        options: Mapping[str, Any],
        selection: Selection,
        counting: str,
        correct: bool,
        seed: int,
        trials: int,
        confidence: float,
        goal: Goal,
        journal: Journal,
        engine: Engine,
        progress: Progress = silent,
    ) -> None:
        self._model, self._counting, self._journal = model, counting, journal
        self._channel, self._decoding, self._seed, self._trials = channel, decoding, seed, trials
        self._selection, self._confidence, self._steps = selection, confidence, Steps(progress)
        self._done = dict.fromkeys(_EXPECTED, 0.0)
        calibrating = Experiment(model, parts.calibration, **options)
        check_paired(calibrating)
        given = {"max_drop": goal.max_drop is not None, "min_sqnr": goal.min_sqnr_db is not None}
        check_unit(calibrating.chosen.metric.name, **given)
        running = {name: options[name] for name in ("providers", "threads") if name in options}
        moments, left = input_moments(
            model,
            parts.correction,
            selection=selection,
            running=running,
            progress=lambda text, part=None, /: self._steps.tell("inputs", part or 0.0, text),
        )
        warn_of_left(left)
        self._moments = moments
        more = {**options, "compensate": moments, **({"correct": parts.correction} if correct else {})}
        self.searching = self._few = Experiment(model, parts.search, **more)
        if len(parts.search) >= 4 * _QUICK:
            few = stream(seed, 0, "tune", plane="first look").permutation(len(parts.search))[:_QUICK]
            self._few = Experiment(model, parts.search.take(np.sort(few)), **more)
        self.verifying = Experiment(model, parts.verification, **more)
        self._parts = {"search": self.searching, "verification": self.verifying}
        if self._few is not self.searching:
            self._parts["quick search"] = self._few
        experiments = {CALIBRATED: calibrating, **self._parts}
        measuring: dict[str, Any] = {"selection": selection, "moments": moments, "counting": counting, "seed": seed}
        bench = Bench(experiments.__getitem__, channel=channel, **measuring)
        self._weights = bench.probe.weights
        self.original = sum(weight.size for weight in self._weights.values())

        def setup() -> Setup:
            return Setup(
                model=Packed.of(model),
                parts={name: Part.of(experiment) for name, experiment in experiments.items()},
                correction=parts.correction if correct else None,
                channel=named.dumps(channel),
                batch=options.get("batch", DEFAULTS.batch),
                providers=options.get("providers", DEFAULTS.providers),
                **measuring,
            )

        self._crew = Crew(engine, bench, setup, calls=(DRAWS + 1) * len(self._weights), journal=journal)
        self.sensitivity: dict[str, Sensitivity] = self._sensitivities()

    def _sensitivities(self) -> dict[str, Sensitivity]:
        """Return the sensitivity of each tensor, by storage key."""
        calls = [Call.for_draw(key, draw) for key in self._weights for draw in range(DRAWS)]
        values = self._crew.measured(calls, tell=self._teller("sensitivities", len(calls), "sensitivity"))
        return {
            key: sensitivity_of(key, values[number * DRAWS : (number + 1) * DRAWS])
            for number, key in enumerate(self._weights)
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Weights of each tensor, by storage key."""
        return {key: weight.size for key, weight in self._weights.items()}

    def candidates(self) -> dict[str, list[Candidate]]:
        """Return the candidates of each tensor, by storage key; the journal holds the cells and the error of each."""
        members_of = [members(self._channel, self._decoding, compensated=compensated) for compensated in (False, True)]
        schemes = {key: members_of[key in self._moments] for key in self._weights}
        # The largest tensors take the longest: the first ones, so that no worker is left with one in the end.
        keys = sorted(self._weights, key=lambda key: -self._weights[key].size)
        calls = [Call.for_candidates(key, schemes[key], self._counting) for key in keys]
        tell = self._teller("candidates", len(keys), "candidates of tensor")
        numbers = dict(zip(keys, self._crew.measured(calls, tell=tell), strict=True))
        return {key: listed(schemes[key], numbers[key]) for key in self._weights}

    def path(self, listed: Mapping[str, list[Candidate]]) -> list[Allocation]:
        """Return the allocations of all prices."""
        return path({key: hull(of_tensor, self.sensitivity[key].mean) for key, of_tensor in listed.items()})

    def answer(self, allocations: list[Allocation], goal: Goal) -> Answer:
        """Return the cheapest allocation that meets the goal, verified; the best there is if none does."""
        curve: dict[int, Point] = {}
        if goal.budget is not None:
            least = self._cells(allocations[0])
            if least > goal.budget:
                raise OptionError(f"budget is {goal.budget:g} cells per weight; the cheapest plan takes {least:.3f}")
            place = max(i for i, each in enumerate(allocations) if self._cells(each) <= goal.budget)
            curve[place] = self._point(allocations[place])
            return self._verified(allocations, place, goal, curve)
        limit = goal.limit
        assert limit is not None
        last = len(allocations) - 1
        curve[last] = self._point(allocations[last])
        # The samples that verify are as many: what their bound is likely to keep is kept by the bound here, if any is.
        sure = curve[last].drop.upper(self.confidence_of_look) <= limit

        def holds(place: int) -> bool:
            if place not in curve:
                curve[place] = self._point(allocations[place])
            drop = curve[place].drop
            return (drop.upper(self.confidence_of_look) if sure else drop.mean) <= limit

        def holds_by_few(place: int) -> bool:
            self._tell(allocations[place], "search", "a first look")
            return self._drop(self._few, allocations[place]).mean <= limit

        cells = [self._cells(each) for each in allocations]
        place = cheapest(cells, holds, None if self._few is self.searching else holds_by_few)
        return self._verified(allocations, place, goal, curve)

    def _verified(self, allocations: list[Allocation], place: int, goal: Goal, curve: dict[int, Point]) -> Answer:
        """Return an allocation as verified on further samples; where it does not hold, one with more cells."""
        confidence, looks = self.confidence_of_look, list[Look]()
        while True:
            allocation = allocations[place]
            self._tell(allocation, "verification", "trials that verify")
            drop = self._drop(self.verifying, allocation)
            holds = None if goal.limit is None else _holds(drop, goal.limit, confidence)
            looks.append(Look(cells=self._cells(allocation), drop=drop, holds=holds))
            last = place == len(allocations) - 1
            if holds or goal.budget is not None or last or len(looks) == _LOOKS:
                break
            place = self._next(allocations, place, goal, curve, len(looks))
        limit = goal.limit
        needed = None if limit is None or holds is not None else samples_needed(drop, limit, confidence)
        return Answer(
            allocation=allocation,
            plan=replace(plan_of(allocation), compensated=self._compensates(allocation)),
            cells=self._cells(allocation),
            verified=drop,
            holds=holds,
            needed=needed,
            last=last,
            looks=tuple(looks),
            curve=tuple(point for _, point in sorted(curve.items())),
        )

    def _next(self, allocations: list[Allocation], place: int, goal: Goal, curve: dict[int, Point], looks: int) -> int:
        """Return the plan that is verified after one that did not hold: first a little more, then what is sure to hold.

        Sure is what the samples that are searched with bound below the limit; if nothing is, that with the most cells.
        """
        assert goal.limit is not None
        more = after([self._cells(each) for each in allocations], place)
        if looks < _LOOKS - 1:
            return more
        tried = (each for each, point in curve.items() if point.drop.upper(self.confidence_of_look) <= goal.limit)
        return min((each for each in tried if each >= more), default=len(allocations) - 1)

    def among(self, listed: Mapping[str, list[Candidate]], goal: Goal, *, digital: bool) -> Answer | None:
        """Return the answer from candidates without analog cells, or from those with them.

        None if a tensor has none, or a budget is too small.
        """
        some = {
            key: [each for each in of_tensor if (each.scheme.analog == "none") == digital]
            for key, of_tensor in listed.items()
        }
        if not all(some.values()):
            return None
        allocations = self.path(some)
        if goal.budget is not None and self._cells(allocations[0]) > goal.budget:
            return None
        return self.answer(allocations, goal)

    def limit(self, answer: Answer) -> Limit | None:
        """Return the fewest cells that any code needs for the weights at the squared errors of an answer's plan."""
        self._steps.tell("verification", 0.9, "the limit of all codes")
        try:
            with quiet():
                return self.searching.limit(answer.plan, selection=self._selection, seed=self._seed)
        except OptionError:  # there is none if errors are compensated, or a tensor has none
            return None

    def protected(self, answer: Answer) -> ProtectedModel:
        """Return the model as an answer stores it."""
        step = ProtectPass(plan=answer.plan, selection=self._selection, moments=self._moments)
        with quiet():
            return just_protected(pipeline.run(pipeline.protecting(step), self._model.clone()))

    def _compensates(self, allocation: Allocation) -> bool:
        """Return whether weights of any tensor make up for each other's errors."""
        choices = allocation.choices.items()
        return any(key in self._moments and unfit(choice.candidate.scheme) is None for key, choice in choices)

    @property
    def confidence_of_look(self) -> float:
        """The confidence of each look at the samples that verify: the rival is looked at too, and may be chosen."""
        return 1 - (1 - self._confidence) / (2 * _LOOKS)

    def _point(self, allocation: Allocation) -> Point:
        self._tell(allocation, "search", "trials")
        return Point(cells=self._cells(allocation), loss=allocation.loss, drop=self._drop(self.searching, allocation))

    def _teller(self, step: str, count: int, what: str) -> Callable[[int], None]:
        """Return the function that tells how many of a step are done."""
        return lambda done: self._steps.tell(step, done / count, f"{what} {min(done + 1, count):,} of {count:,}")

    def _tell(self, allocation: Allocation, step: str, what: str) -> None:
        done = self._done[step] / _EXPECTED[step]
        self._steps.tell(step, done, f"{what} at {self._cells(allocation):.3f} cells per weight")

    def _drop(self, experiment: Experiment, allocation: Allocation) -> Drop:
        plan = plan_of(allocation)
        part = next(name for name, each in self._parts.items() if each is experiment)

        def measure() -> dict[str, Any]:
            if all(map(reads_alike, plan.schemes)):  # one trial tells all, and all cores are free for it
                with quiet():
                    trials = experiment.trials(plan, selection=self._selection)
                return asdict(drop_of(experiment, trials, seed=self._seed, count=1))
            calls = [Call.for_read(part, plan, trial) for trial in range(self._trials)]
            return asdict(drop_from(experiment, self._crew.found(calls)))

        step = "verification" if part == "verification" else "search"
        self._done[step] += len(experiment.data) / len(self.searching.data)
        names = [each.name for each in fields(Drop)]
        return Drop(**self._journal.measured(f"drop in {part} of {plan.digest()}", measure, names))

    def _cells(self, allocation: Allocation) -> float:
        """Return cells per original weight, with the numbers of the correction in the same memory."""
        return (allocation.cells + self.correction_cells) / self.original

    @cached_property
    def correction_cells(self) -> float:
        """Cells that hold the numbers of the correction."""
        return cells_of_numbers(self.correction_numbers, self._channel, self._decoding, self._counting)

    @cached_property
    def correction_numbers(self) -> int:
        """float16 numbers that the reader keeps for the correction."""
        if self.searching.correcting is None:
            return 0
        plan = Plan(default=Scheme.paper("raw", channel=self._channel))
        corrector = self.searching.trials(plan, selection=self._selection).corrector
        return 0 if corrector is None else corrector.cost.numbers


def cells_of_numbers(numbers: int, channel: Channel, decoding: str, counting: str = DEFAULTS.counting) -> float:
    """Return the cells that hold float16 numbers of a correction: a share of the last block, as of other streams."""
    if not numbers:
        return 0.0
    if counting == "paper":
        return NUMBER_BITS * numbers / Scheme().side_bits_per_cell
    scheme = Scheme(channel=channel, code={"hard": "bch", "soft": "soft"}.get(decoding, "none"))
    code = code_of(scheme, "codebook", entropy_coded=False)
    return channel.devices_per_cell * NUMBER_BITS * numbers / code.bits_per_cell


def _holds(drop: Drop, limit: float, confidence: float) -> bool | None:
    if drop.upper(confidence) <= limit:
        return True
    return False if drop.lower(confidence) > limit else None


def plan_of(allocation: Allocation) -> Plan:
    """Return an allocation as a plan: tensors that it does not name stay digital."""
    return Plan(default=None, tensors={key: choice.candidate.scheme for key, choice in allocation.choices.items()})
