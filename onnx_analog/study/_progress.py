"""What is done of each point of a sweep, and what waits to be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx_analog.run.trials import Trial
from onnx_analog.study._rows import PointFacts, alike
from onnx_analog.study.grid import GridPoint
from onnx_analog.study.run_folder import Row
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.worker import pack

AHEAD = 2  # tasks under way for each slot: one is computed, one waits
_CHUNK_S = 0.5  # short trials travel together, for about so long


class Tally:
    """What is done of one point, and what is still wanted. Costs no more for each trial, however many there are."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping
        self._ordered: list[Trial] = []  # trials 0, 1, ... up to the first that is missing
        self._others: dict[int, Trial] = {}
        self._values: list[float] = []  # of the former
        self.required = 0
        self.enough = False
        self.facts: PointFacts | None = None

    def add(self, number: int, trial: Trial) -> None:
        """Take a trial that was made, here or in an earlier sweep."""
        self._others[number] = trial
        while len(self._ordered) in self._others:
            self._ordered.append(self._others.pop(len(self._ordered)))
            self._values.append(self._ordered[-1].value)

    def contradiction(self, facts: PointFacts) -> str | None:
        """Return which facts of the point differ from those that are known; None if none does."""
        if self.facts is None or facts == self.facts:
            return None
        if facts.totals != self.facts.totals:
            return "the counts of weights and cells"
        return None if alike(facts.stored, self.facts.stored) else "the values of the stored model"

    def more(self) -> list[range]:
        """Look, if there are trials for it; return those that are wanted now, and were not before."""
        missing: list[range] = []
        while not self.enough and len(self._values) >= self.required and not missing:
            before, self.required = self.required, self._stopping.required(self._values)
            self.enough = len(self._values) >= self.required
            missing = [] if self.enough else self._gaps(max(before, len(self._ordered)), self.required)
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
        return min(len(self._ordered), self.required) + sum(trial < self.required for trial in self._others)

    def taken(self) -> list[Trial]:
        """Return the trials that count: those before the look at which the point stopped."""
        return self._ordered[: self.required]

    def known(self) -> Iterator[tuple[int, Trial]]:
        """Yield all trials there are, in their order."""
        yield from enumerate(self._ordered)
        yield from sorted(self._others.items())


@dataclass(eq=False)
class Entry:
    """A point of a run, and what is done of it."""

    number: int
    setting: GridPoint
    columns: Row
    tally: Tally

    @cached_property
    def packed(self) -> bytes:
        """The point as it travels to workers."""
        return pack(self.setting)


class Queue:
    """Tasks that wait: runs of trials, cut into tasks of a sensible length."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, deque[range]]] = deque()
        self._seconds: dict[int, float] = {}  # of a trial, by model
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, point: int, trials: Sequence[range], *, first: bool) -> None:
        """Put trials of a point at the end, or before all others."""
        if trials:
            (self._runs.appendleft if first else self._runs.append)((point, deque(trials)))
            self._count += sum(map(len, trials))

    def learn(self, model: int, seconds: float) -> None:
        """Remember how long a trial of a model takes."""
        self._seconds[model] = seconds

    def take(self, slots: int, model_of: Callable[[int], int]) -> tuple[int, tuple[int, ...]]:
        """Return a point and its next trials: one until it is known how long one takes."""
        point, trials = self._runs[0]
        seconds = self._seconds.get(model_of(point), _CHUNK_S)
        share = -(-self._count // (AHEAD * slots))  # towards the end, something for all
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
        return point, tuple(taken)
