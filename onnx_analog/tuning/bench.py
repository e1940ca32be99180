"""What a search measures, in this process or in others: one kind of work for all engines.

A `Bench` measures. A `Setup` is all that one is made of, and is sent once to each worker; a `Call` names a measurement,
and is small. A `Crew` has calls done by an engine, and hands back what they found.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple
from uuid import uuid4

import onnx_ir as ir

from onnx_analog import named
from onnx_analog.blas import one_blas_thread
from onnx_analog.channels import Channel
from onnx_analog.coding.compensation import InputMoments
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.weights import Selection
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.probe import Probe
from onnx_analog.run.trials import Trials
from onnx_analog.study.engines import Engine
from onnx_analog.study.worker import Packed, cannot_load, check_versions, versions
from onnx_analog.tuning.candidates import Candidate, candidates
from onnx_analog.tuning.drops import Read, read_of
from onnx_analog.tuning.journal import Journal
from onnx_analog.tuning.sensitivity import Divergence, divergence, drawn

CALIBRATION = "calibration"  # the part of the samples that sensitivities are measured with
_AHEAD = 2  # calls under way for each slot of an engine: one is done, one waits


@dataclass(frozen=True, eq=False)
class Call:
    """A measurement: the name of a method of `Bench`, and its arguments.

    Attributes
    ----------
    key : str
        Tells it from others of the same search, in the journal too.
    place : str
        Where in the search it is, for errors.
    method : str
    arguments : tuple, or bytes
        Bytes in another process, until they are needed: what they need may not be there.
    names : tuple of str, optional
        Of the numbers that it finds, if there are several.
    """

    key: str
    place: str
    method: str
    arguments: tuple[Any, ...] | bytes
    names: tuple[str, ...] | None = None

    @staticmethod
    def for_draw(key: str, draw: int) -> Call:
        """Return the call of `Bench.draw`."""
        return Call(f"sensitivity to draw {draw} of {key}", f"in the sensitivity of {key!r}", "draw", (key, draw))

    @staticmethod
    def for_candidates(key: str, schemes: Sequence[Scheme], counting: str, needed: Sequence[Scheme] = ()) -> Call:
        """Return the call of `Bench.candidates`."""
        digests = "".join(_digest_of(scheme) for scheme in (*schemes, *needed))
        digest = hashlib.sha256(digests.encode()).hexdigest()[:16]
        name = f"candidates {digest} of {key}, counted by {counting}"
        names = tuple(_names_of(schemes))
        return Call(name, f"in the candidates of {key!r}", "candidates", (key, schemes, needed), names)

    @staticmethod
    def for_read(part: str, plan: Plan, trial: int) -> Call:
        """Return the call of `Bench.read`."""
        return Call(f"trial {trial}", f"in trial {trial} of a plan", "read", (part, plan, trial))

    def __getstate__(self) -> dict[str, Any]:  # channels of the user's own travel by value
        packed = self.arguments if isinstance(self.arguments, bytes) else named.dumps(self.arguments)
        return {**self.__dict__, "arguments": packed}

    def unpacked(self) -> tuple[Any, ...]:
        """Return the arguments.

        Raises
        ------
        EngineError
            If what they are made of is not installed here.
        """
        if not isinstance(self.arguments, bytes):
            return self.arguments
        try:
            arguments: tuple[Any, ...] = named.loads(self.arguments)
        except (ImportError, AttributeError) as error:
            raise cannot_load(f"{type(error).__name__}: {error}") from error
        return arguments


class Done(NamedTuple):
    """What a call found, and the versions of what its numbers depend on."""

    key: str
    value: Any
    versions: dict[str, str]


class Bench:
    """Measures one model in one channel. One thread may use it at a time.

    Parameters
    ----------
    experiment : function
        Returns the experiment of a part of the samples, by its name; called once for each.
    channel : Channel
    selection : Selection
    moments : function
        Returns the moments of tensors, by storage key; called when they are needed.
    counting : {"memory", "paper"}
        Of cells.
    seed : int
    """

    def __init__(
        self,
        experiment: Callable[[str], Experiment],
        *,
        channel: Channel,
        selection: Selection,
        moments: Callable[[], Mapping[str, InputMoments]],
        counting: str,
        seed: int,
    ) -> None:
        self.experiment = lru_cache(maxsize=None)(experiment)
        self._channel, self._selection, self._moments = channel, selection, moments
        self._counting, self._seed = counting, seed
        self._trials = lru_cache(maxsize=1)(self._ready)

    def do(self, call: Call) -> Done:
        """Return what a call finds."""
        with one_blas_thread():
            value = getattr(self, call.method)(*call.unpacked())
        return Done(call.key, value, versions())

    @cached_property
    def probe(self) -> Probe:
        """The model with other weights, on the samples for sensitivities."""
        plan = Scheme.paper("raw", channel=self._channel)
        return self.experiment(CALIBRATION).probe(plan, selection=self._selection)

    @cached_property
    def _distance(self) -> Divergence:
        experiment = self.experiment(CALIBRATION)
        return divergence(experiment.clean, experiment.chosen.axis)

    def draw(self, key: str, draw: int) -> float:
        """Return the sensitivity to one draw of noise in a tensor."""
        return drawn(self.probe, self._distance, key, seed=self._seed, draw=draw)

    def candidates(self, key: str, schemes: Sequence[Scheme], needed: Sequence[Scheme]) -> dict[str, float]:
        """Return the cells and the error of a tensor under each scheme, by name; -1 for those that are no candidates.

        Schemes that are needed are computed even if they cannot be the best.
        """
        known, axis = self._moments().get(key), self.probe.axes[key]
        found = candidates(
            self.probe.weights[key], schemes, known, counting=self._counting, key=key, axis=axis, needed=needed
        )
        of_scheme = {each.scheme: (each.cells, each.error) for each in found}
        pairs = [of_scheme.get(scheme, (-1.0, -1.0)) for scheme in schemes]
        return dict(zip(_names_of(schemes), itertools.chain.from_iterable(pairs), strict=True))

    def read(self, part: str, plan: Plan, trial: int) -> Read:
        """Return what one trial of a plan loses of a part of the samples."""
        trials = self._trials(part, _Known(plan.digest(), plan))
        return read_of(self.experiment(part), trials, seed=self._seed, trial=trial)

    def _ready(self, part: str, known: _Known) -> Trials:
        with quiet():
            return self.experiment(part).trials(known.plan, selection=self._selection)


class _Known(NamedTuple):
    """A plan that is known by its digest."""

    digest: str
    plan: Plan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=1024)
def _digest_of(scheme: Scheme) -> str:
    return scheme.digest()


def _names_of(schemes: Sequence[Scheme]) -> list[str]:
    return [f"{what} of {number}" for number in range(len(schemes)) for what in ("cells", "error")]


def listed(schemes: Sequence[Scheme], numbers: Mapping[str, float]) -> list[Candidate]:
    """Return the candidates of a tensor from what `Bench.candidates` returned for these schemes."""
    cells, errors = ([numbers[f"{what} of {number}"] for number in range(len(schemes))] for what in ("cells", "error"))
    return [
        Candidate(scheme=scheme, cells=cells_of, error=error)
        for scheme, cells_of, error in zip(schemes, cells, errors, strict=True)
        if cells_of >= 0
    ]


_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)  # of each thread
logging.getLogger("onnx_analog.passes.protect").addFilter(lambda _record: not _QUIET.get())


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing about how a plan is stored: many are tried, and the one that is chosen is stored once more."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


# ------------------------------------------------------------------------------------------------ what is sent


class Part(NamedTuple):
    """Samples, the outputs of the original for them, and the metric, as `named.dumps` has it."""

    data: Dataset
    clean: list[Any]
    metric: bytes

    @staticmethod
    def of(experiment: Experiment) -> Part:
        """Return that of an experiment: workers need not run the original again."""
        return Part(experiment.data, experiment.clean, named.dumps(experiment.metric))


@dataclass(frozen=True, eq=False, kw_only=True)
class Setup:
    """All that a bench is made of in another process.

    Attributes
    ----------
    digest, remedy : str
        See `onnx_analog.study.worker.AnyWork`.
    threads : int
        Within an operator of onnxruntime.
    model : Packed
    parts : mapping of str to Part
    correction : Dataset, optional
        What corrects each read, but in the part for sensitivities.
    channel : bytes
        As `named.dumps` has it.
    selection : Selection
    moments : mapping of str to InputMoments
    counting : str
    seed, batch : int
    providers : sequence of str
    """

    digest: str = ""
    remedy: str = ""
    threads: int = 1
    model: Packed
    parts: Mapping[str, Part]
    correction: Dataset | None
    channel: bytes
    selection: Selection
    moments: Mapping[str, InputMoments]
    counting: str
    seed: int
    batch: int
    providers: Sequence[str]

    def worker(self) -> Bench:
        """Return a bench of its own."""
        model = self.model.model()
        return Bench(
            lambda part: self._experiment(model, part),
            channel=named.loads(self.channel),
            selection=self.selection,
            moments=lambda: self.moments,
            counting=self.counting,
            seed=self.seed,
        )

    def _experiment(self, model: ir.Model, name: str) -> Experiment:
        data, clean, metric = self.parts[name]
        more: dict[str, Any] = {} if name == CALIBRATION else {"compensate": self.moments, "correct": self.correction}
        running: dict[str, Any] = {"batch": self.batch, "providers": self.providers, "threads": self.threads}
        return Experiment(model, data, named.loads(metric), clean=clean, **running, **more)


class _Here(NamedTuple):
    """The bench of this process."""

    bench: Bench
    digest: str
    remedy: str

    def worker(self) -> Bench:
        return self.bench


# ---------------------------------------------------------------------------------------------------- the driver


class Crew:
    """Has calls done by an engine, which it starts when there is something to do for it.

    Parameters
    ----------
    engine : Engine
        Entered; whoever entered it stops it.
    bench : Bench
        Of this process.
    setup : function
        Returns what is sent to others.
    calls : int
        About how many there will be.
    journal : Journal
        Keeps what was measured.
    """

    def __init__(
        self, engine: Engine, bench: Bench, setup: Callable[[], Setup], *, calls: int, journal: Journal
    ) -> None:
        self._engine, self._bench, self._setup, self._calls = engine, bench, setup, calls
        self._journal, self._is_started = journal, False

    def measured(self, calls: Sequence[Call], *, tell: Callable[[int], None]) -> list[Any]:
        """Return what each call finds, from the journal where it knows; `tell` is given the number that are known."""
        missing = [call for call in calls if not self._journal.has(call.key, call.names)]
        count = len(calls) - len(missing)
        tell(count)
        for done in self._done(missing):
            self._journal.keep(done.key, done.value)
            count += 1
            tell(count)
        return [self._journal[call.key] for call in calls]

    def found(self, calls: Sequence[Call], *, tell: Callable[[int], None] = lambda _: None) -> list[Any]:
        """Return what each call finds, which the journal does not keep; `tell` is given the number that are known."""
        values = dict[str, Any]()
        tell(0)
        for done in self._done(calls):
            values[done.key] = done.value
            tell(len(values))
        return [values[call.key] for call in calls]

    def _done(self, calls: Sequence[Call]) -> Iterator[Done]:
        """Yield what calls find, whichever is first."""
        waiting, under_way = list(reversed(calls)), 0
        while waiting or under_way:
            self._start()
            while waiting and under_way < _AHEAD * self._engine.slots:
                self._engine.submit(waiting.pop())
                under_way += 1
            done: Done = self._engine.next()
            under_way -= 1
            check_versions(done.versions)
            yield done

    def _start(self) -> None:
        if self._is_started:
            return
        threads, remedy = self._engine.plan(self._calls), self._journal.remedy
        if self._engine.here:
            self._engine.start(_Here(self._bench, uuid4().hex, remedy))
        else:
            self._engine.start(replace(self._setup(), digest=uuid4().hex, remedy=remedy, threads=threads))
        self._is_started = True
