"""What a search measures once for a model, a channel and data: nothing is run again that a journal holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_analog import named
from onnx_analog.arguments import DEFAULTS
from onnx_analog.channels import Channel
from onnx_analog.coding.compensation import InputMoments, unfit
from onnx_analog.coding.limit import Limit
from onnx_analog.coding.numbers import cells_of_numbers as cells_of_numbers
from onnx_analog.coding.numbers import paper_cells_of_numbers
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.display import Progress, silent
from onnx_analog.errors import OptionError
from onnx_analog.graph.protected import ProtectedModel, just_protected
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass, pipeline
from onnx_analog.randomness import stream
from onnx_analog.run.correcting import one_call
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.metrics import Chosen
from onnx_analog.run.moments import input_moments, left_of, warn_of_left
from onnx_analog.run.read import reads_alike
from onnx_analog.study.engines import Engine
from onnx_analog.study.worker import Packed
from onnx_analog.tuning.allocation import Allocation, Path
from onnx_analog.tuning.answers import Cells, Goal
from onnx_analog.tuning.bench import CALIBRATION, Bench, Call, Crew, Part, Setup, listed, quiet
from onnx_analog.tuning.bisection import ROUNDS
from onnx_analog.tuning.candidates import Candidate, members, on_grid, seeded
from onnx_analog.tuning.considered import Considered, considered, wholes
from onnx_analog.tuning.drops import Drop, check_paired, drop_from, drop_of
from onnx_analog.tuning.journal import Journal
from onnx_analog.tuning.parts import Parts
from onnx_analog.tuning.scale import check_unit
from onnx_analog.tuning.sensitivity import DRAWS, Sensitivity, sensitivity_of
from onnx_analog.tuning.steps import Steps

SEARCH, QUICK, VERIFICATION = "search", "quick search", "verification"  # parts of the samples
_QUICK = 1024  # samples of a quick look, where there are four times as many to search with
_EXPECTED_AFTER = 5  # looks, if quick ones tell where to begin
_EXPECTED_LOOKS = 6  # at the samples that verify
_KINDS = {SEARCH: "look", VERIFICATION: "look", QUICK: "quick look"}  # of work, if a plan has one trial


class Measures:
    """Sensitivities, candidates and losses of plans, each measured when it is first asked for.

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
    mask_seed : int or None
        Seed that candidates store in place of the masks that follow from it.
    plan : Plan or None
        One that is considered too.
    goal : Goal
        One that will be asked for; its metric is checked before anything is measured.
    journal : Journal
        Keeps what was measured.
    engine : Engine
        Where it is measured. It is entered; whoever entered it stops it.
    progress : function
        Called with what is being done, the share that is done, and the seconds that are likely left.
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
        goal: Goal,
        journal: Journal,
        engine: Engine,
        mask_seed: int | None = None,
        plan: Plan | None = None,
        progress: Progress = silent,
    ) -> None:
        self._model, self._counting, self._journal = model, counting, journal
        self._channel, self.decoding, self._seed, self.trials = channel, decoding, seed, trials
        self._selection, self._mask_seed, self.steps = selection, mask_seed, Steps(progress)
        self.question = ""  # the samples that verify are new to the first question that a file is used for
        self._options, self._correcting, self._correct = options, parts.correction, correct
        self._parts = tuple(map(len, parts))
        self._samples = {CALIBRATION: parts.calibration, SEARCH: parts.search, VERIFICATION: parts.verification}
        if len(parts.search) >= 4 * _QUICK:
            few = stream(seed, 0, "tune", plane="first look").permutation(len(parts.search))[:_QUICK]
            self._samples[QUICK] = parts.search.take(np.sort(few))
        self._experiment = lru_cache(maxsize=None)(self._opened)
        self._members = lru_cache(lambda compensated: members(channel, decoding, compensated=compensated))
        self._expect(goal)
        calibrating = self._experiment(CALIBRATION)
        check_paired(calibrating)
        given = {"max_drop": goal.max_drop is not None, "min_sqnr": goal.min_sqnr_db is not None}
        check_unit(self.chosen.metric.name, **given)
        measuring: dict[str, Any] = {"selection": selection, "counting": counting, "seed": seed}
        bench = Bench(self._experiment, channel=channel, moments=lambda: self._moments, **measuring)
        self._weights, self._axes = bench.probe.weights, bench.probe.axes
        self._considered = considered(plan, self._weights, channel, decoding)
        self.original = sum(weight.size for weight in self._weights.values())

        def setup() -> Setup:
            return Setup(
                model=Packed.of(model),
                parts={name: Part.of(self._experiment(name)) for name in self._samples},
                correction=parts.correction if correct else None,
                channel=named.dumps(channel),
                batch=options.get("batch", DEFAULTS.batch),
                providers=options.get("providers", DEFAULTS.providers),
                moments=self._moments,
                **measuring,
            )

        self._crew = Crew(engine, bench, setup, calls=(DRAWS + 1) * len(self._weights), journal=journal)
        warn_of_left(left_of(model, selection, self._compensable))

    @property
    def parts(self) -> tuple[int, ...]:
        """The number of samples of each part, in the order of `Parts`."""
        return self._parts

    @property
    def corrected_by(self) -> int | None:
        """How many samples correct each read; None if it is not corrected."""
        return len(one_call(self._model, self._correcting)) if self._correct else None

    def _expect(self, goal: Goal) -> None:
        """Say about how much there is to do, before anything is measured."""
        samples = sum(len(data) for name, data in self._samples.items() if name != CALIBRATION)
        self.steps.expect("original", "original", samples)
        self.steps.expect("inputs", "inputs", len(self._correcting))
        self.expect_looks(ROUNDS, 1, budget=goal.budget is not None)
        both = self.count(SEARCH) + self.count(VERIFICATION)
        self.steps.expect("comparison", "trial", self.trials * both)

    def expect_looks(self, rounds: int, reads: int, *, budget: bool) -> None:
        """Say about how much is left to do until an answer is verified.

        Parameters
        ----------
        rounds : int
            Of bisection that are left.
        reads : int
            Trials of each plan.
        budget : bool
            Whether there is one: then one plan is looked at.
        """
        kind, quick = "trial" if reads > 1 else "look", self.has_quick and not budget
        looks = 1 if budget else _EXPECTED_AFTER if quick else 1 + rounds
        few = rounds * self.count(QUICK) if quick else 0
        self.steps.expect("quick looks", "trial" if reads > 1 else "quick look", reads * few)
        self.steps.expect("looks", kind, reads * looks * self.count(SEARCH))
        self.expect_verification(1 if budget else _EXPECTED_LOOKS, reads)

    def expect_verification(self, looks: int, reads: int) -> None:
        """Say how many plans are likely left to verify, each in so many trials."""
        kind = "trial" if reads > 1 else "look"
        self.steps.expect("verification", kind, reads * self.count(VERIFICATION) * looks)

    # ------------------------------------------------------------------------------------------------- the model

    def _opened(self, name: str) -> Experiment:
        """Return the experiment of a part of the samples: the original is run on them."""
        data = self._samples[name]
        more: dict[str, Any] = {}
        if name != CALIBRATION:
            more = {"compensate": self._moments, **({"correct": self._correcting} if self._correct else {})}
        kind = "opening" if name == CALIBRATION else "original"
        with self.steps.work(kind, kind, len(data), f"the original, {len(data):,} samples"):
            return _ScoresFirst(self._model, data, **self._options, **more)

    @property
    def chosen(self) -> Chosen:
        """The metric, and what it measures."""
        return self._experiment(CALIBRATION).chosen

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the outputs of the original, on the samples that calibrate."""
        return self._experiment(CALIBRATION).warnings

    @property
    def verified_on(self) -> int:
        """How many samples verify."""
        return len(self._samples[VERIFICATION])

    @cached_property
    def original_value(self) -> float | None:
        """The metric of the original, on the samples that verify; None where outputs are compared with its own."""
        if self.chosen.compares:
            return None
        return float(self._journal.measured("the original", lambda: self._experiment(VERIFICATION).original_value))

    @cached_property
    def _moments(self) -> dict[str, InputMoments]:
        count, said = len(self._correcting), "inputs of weights"
        tell = self.steps.counter("inputs", "inputs", [1.0] * count, lambda _: said)
        tell(0)

        def show(text: str, part: float | None = None, _left: float | None = None, /) -> None:
            nonlocal said
            said = text
            tell(round((part or 0.0) * count))

        running = {name: self._options[name] for name in ("providers", "threads") if name in self._options}
        found, _ = input_moments(
            self._model, self._correcting, selection=self._selection, running=running, progress=show
        )
        return found

    @cached_property
    def _compensable(self) -> frozenset[str]:
        """Storage keys of the tensors whose weights can make up for each other's errors."""
        known = self._journal.measured(
            "moments are known",
            lambda: {key: float(key in self._moments) for key in self._weights},
            tuple(self._weights),
        )
        self.steps.end("inputs")
        return frozenset(key for key, is_known in known.items() if is_known)

    def compensates(self, allocation: Allocation) -> bool:
        """Return whether weights of any tensor make up for each other's errors."""
        choices = allocation.choices.items()
        return any(key in self._compensable and unfit(choice.candidate.scheme) is None for key, choice in choices)

    def protecting(self, plan: Plan) -> Callable[[], ProtectedModel]:
        """Return a function that returns the model as a plan stores it.

        It is made now if what that takes is here, which is much memory; else when it is asked for.
        """
        if plan.compensated and "_moments" not in vars(self):
            return lambda: self._protected(plan)
        made = self._protected(plan)
        return lambda: made

    def _protected(self, plan: Plan) -> ProtectedModel:
        moments = self._moments if plan.compensated else {}
        step = ProtectPass(plan=plan, selection=self._selection, moments=moments)
        with quiet():
            return just_protected(pipeline.run(pipeline.protecting(step), self._model.clone()))

    def limit(self, plan: Plan) -> Limit | None:
        """Return the fewest cells that any code needs for the weights at the squared errors of a plan."""
        if plan.compensated:
            return None
        self.steps.tell("the limit of all codes")
        try:
            with quiet():
                return self._experiment(CALIBRATION).limit(plan, selection=self._selection, seed=self._seed)
        except OptionError:  # a tensor is read without any error
            return None

    # ------------------------------------------------------------------------------------------------ its tensors

    @property
    def sizes(self) -> dict[str, int]:
        """Weights of each tensor, by storage key."""
        return {key: weight.size for key, weight in self._weights.items()}

    @cached_property
    def sensitivity(self) -> dict[str, Sensitivity]:
        """The sensitivity of each tensor, by storage key."""
        calls = [Call.for_draw(key, draw) for key in self._weights for draw in range(DRAWS)]
        units, count = [float(len(self._samples[CALIBRATION]))] * len(calls), len(calls)
        self.steps.expect("sensitivities", "sensitivity", sum(units))
        tell = self.steps.counter(
            "sensitivities", "sensitivity", units, lambda done: f"sensitivity {min(done + 1, count):,} of {count:,}"
        )
        values = self._crew.measured(calls, tell=tell)
        return {
            key: sensitivity_of(key, values[number * DRAWS : (number + 1) * DRAWS])
            for number, key in enumerate(self._weights)
        }

    def _schemes(self, key: str) -> tuple[Scheme, ...]:
        """Return the schemes that are candidates for a tensor."""
        weight = self._weights[key]
        every = (
            *self._members(key in self._compensable),
            *on_grid(weight, self._channel, self.decoding, axis=self._axes[key]),
            *self._considered[key],
        )
        return seeded(tuple(dict.fromkeys(every)), weight, self._mask_seed, key)

    @cached_property
    def _seeded_considered(self) -> Considered:
        """The schemes of each tensor under the plan that is considered."""
        return {key: seeded(each, self._weights[key], self._mask_seed, key) for key, each in self._considered.items()}

    @cached_property
    def candidates(self) -> dict[str, list[Candidate]]:
        """The candidates of each tensor, by storage key; the journal holds the cells and the error of each."""
        # The largest tensors take the longest: the first ones, so that no worker is left with one in the end.
        schemes = {key: self._schemes(key) for key in sorted(self._weights, key=lambda key: -self._weights[key].size)}
        units, count = [float(self._weights[key].size * len(each)) for key, each in schemes.items()], len(schemes)
        self.steps.expect("candidates", "candidates", sum(units))
        tell = self.steps.counter(
            "candidates",
            "candidates",
            units,
            lambda done: f"candidates of tensor {min(done + 1, count):,} of {count:,}",
        )
        needed = self._seeded_considered
        calls = [Call.for_candidates(key, each, self._counting, needed[key]) for key, each in schemes.items()]
        numbers = dict(zip(schemes, self._crew.measured(calls, tell=tell), strict=True))
        return {key: listed(schemes[key], numbers[key]) for key in self._weights}

    @cached_property
    def wholes(self) -> list[Allocation]:
        """The plans that are tried as a whole, the cheapest first."""
        schemes = self._seeded_considered
        return wholes(schemes, self.candidates, self.sensitivity) if any(schemes.values()) else []

    # -------------------------------------------------------------------------------------------------- its plans

    def counted(self, part: str, allocation: Allocation) -> Cells:
        """Return the cells of a plan, counted as its manifest does; `part` is one whose samples it is tried with."""
        plan, numbers = plan_of(allocation), self.correction_numbers
        if self._counting == "paper":
            tensors = {key: choice.candidate.cells for key, choice in allocation.choices.items()}
            return Cells(tensors, paper_cells_of_numbers(numbers, plan.schemes))

        def count() -> dict[str, float]:
            experiment = self._experiment(part)
            with quiet():
                split = experiment.split(plan, selection=self._selection)
                decoding = experiment.totals(plan, selection=self._selection).decoding
            assert split is not None  # as no candidate has a code that its channel is too noisy for
            return {**split, _CORRECTION: cells_of_numbers(numbers, plan.schemes[0].channel, decoding)}

        names = (*allocation.choices, _CORRECTION)
        found = dict(self._journal.measured(f"cells of {plan.digest()}", count, names))
        correction = found.pop(_CORRECTION)
        return Cells(found, correction)

    def per_weight(self, cells: Cells) -> float:
        """Return cells per original weight."""
        return cells.total / self.original

    def cells(self, allocation: Allocation) -> float:
        """Return about how many cells per original weight a plan takes, with the correction, before it is stored.

        Tensors share the last block of a code, which takes as much as a whole one; here, it is a share of its cells.
        """
        return (allocation.cells + self._correction_cells) / self.original

    def cells_along(self, allocations: Path) -> list[float]:
        """Return the same of all allocations of a path, but for the rounding of sums."""
        found: list[float] = ((allocations.cells + self._correction_cells) / self.original).tolist()
        return found

    @cached_property
    def _correction_cells(self) -> float:
        return cells_of_numbers(self.correction_numbers, self._channel, self.decoding, self._counting)

    @property
    def of_correction(self) -> str:
        """Say how many cells of a plan are those of the correction; empty without one."""
        if not self.correction_numbers:
            return ""
        return f", {self._correction_cells / self.original:.3f} of it for the correction, which may be left out"

    @cached_property
    def correction_numbers(self) -> int:
        """float16 numbers that the reader keeps for the correction."""
        if not self._correct:
            return 0
        return int(self._journal.measured("numbers of the correction", self._count_numbers))

    def _count_numbers(self) -> int:
        plan = Plan(default=Scheme.paper("raw", channel=self._channel))
        corrector = self._experiment(SEARCH).trials(plan, selection=self._selection).corrector
        return 0 if corrector is None else corrector.cost.numbers

    @property
    def has_quick(self) -> bool:
        """Whether there are few samples for quick looks."""
        return QUICK in self._samples

    def count(self, part: str) -> int:
        """Return the samples of a part."""
        return len(self._samples[part])

    def reads(self, allocation: Allocation) -> int:
        """Return the trials of a plan: one where all are alike."""
        return 1 if all(reads_alike(choice.candidate.scheme) for choice in allocation.choices.values()) else self.trials

    def drop(self, part: str, allocation: Allocation, step: str, what: str) -> Drop:
        """Return what a plan loses of a part of the samples; `what` is said meanwhile, and it is work of a step."""
        plan, names = plan_of(allocation), tuple(each.name for each in fields(Drop))
        key, said = f"drop in {part} of {plan.digest()}", f"{what} at {self.cells(allocation):.3f} cells per weight"
        reads = self.reads(allocation)
        if not self._journal.has(key, names):
            experiment = self._experiment(part)  # before the time of the look begins
            if reads == 1:  # one trial tells all, and all cores are free for it
                with self.steps.work(step, _KINDS[part], self.count(part), said), quiet():
                    trials = experiment.trials(plan, selection=self._selection)
                    found = drop_of(experiment, trials, seed=self._seed, count=1)
            else:
                first = reads if part == VERIFICATION else 0  # other noise than what the plan was searched with
                calls = [Call.for_read(part, plan, first + trial) for trial in range(reads)]
                units = [float(self.count(part))] * reads
                tell = self.steps.counter(step, "trial", units, lambda _: said)
                found = drop_from(experiment, self._crew.found(calls, tell=tell))
            if part == VERIFICATION:
                self._journal.measured(_ASKED + self.question, lambda: 1.0)
            self._journal.keep(key, asdict(found))
        else:
            self.steps.counter(step, "look", [float(self.count(part) * reads)], lambda _: said)(1)
        return Drop(**self._journal[key])

    @property
    def seen_before(self) -> bool:
        """Whether the samples that verify were looked at for another question before, as the search's file tells."""
        asked = self._journal.keys(_ASKED)
        return bool(asked) and asked[0] != _ASKED + self.question

    def plan(self, allocation: Allocation) -> Plan:
        """Return an allocation as a plan that says by how many samples it is compensated, if it is."""
        if not self.compensates(allocation):
            return plan_of(allocation)
        return replace(plan_of(allocation), compensated=True, compensated_by=len(self._correcting))


class _ScoresFirst(Experiment):
    scores_first = True


_CORRECTION = ""  # the key of no tensor
_ASKED = "samples verify "  # keys of questions begin so


def plan_of(allocation: Allocation) -> Plan:
    """Return an allocation as a plan: tensors that it does not name stay digital."""
    return Plan(default=None, tensors={key: choice.candidate.scheme for key, choice in allocation.choices.items()})
