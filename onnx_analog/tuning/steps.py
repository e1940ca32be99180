"""What a search is doing, the share that is done, and how long the rest is likely to take.

Work is counted in units of its kind, as samples that are run, or weights that are encoded. Of each step, it is known or
expected how many units are left. The time of a unit is measured as it goes. Before the first of a kind is done, a unit
is taken to need so many times what a run of the original needs for a sample; before that was measured, nothing is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from onnx_analog.display import Progress

# Seconds of a unit over those of a sample in the original, as for a ResNet-20; of weights that are encoded, seconds.
_BESIDE = {
    "original": 1.0,
    "inputs": 10.0,
    "sensitivity": 1.0,
    "quick look": 2.0,
    "look": 1.2,
    "trial": 1.0,
}
_SECONDS = {"candidates": 6e-7}
KEPT = 0.7  # of what counts for a pace, whenever more is measured: the machine may have other work to do
_REFERENCES = ("original", "sensitivity")  # kinds that tell those of a sample, the best first


class Steps:
    """Tells what is being done, the share of the time that has passed, and the seconds that are likely left.

    The share never falls: where more turns out to be left, it waits.

    Parameters
    ----------
    progress : Progress
    clock : function
        Returns seconds.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._clock, self._start, self._share = progress, clock, clock(), 0.0
        self._left: dict[str, tuple[str, float]] = {}  # kind and units, by step
        self._spent: dict[str, tuple[float, float]] = {}  # units and seconds, by kind

    def expect(self, step: str, kind: str, units: float) -> None:
        """Take a step to have so many units of a kind left."""
        self._left[step] = kind, max(units, 0.0)

    def skip(self, step: str, units: float) -> None:
        """Leave out units of a step, which are known already."""
        kind, left = self._left[step]
        self.expect(step, kind, left - units)

    def end(self, *steps: str) -> None:
        """Take nothing to be left of some steps."""
        for step in steps:
            self._left.pop(step, None)

    @contextmanager
    def work(self, step: str, kind: str, units: float, text: str) -> Iterator[None]:
        """Do units of a kind, which are those of a step as far as it has some left."""
        self.tell(text)
        start = self._clock()
        yield
        self._add(step, kind, units, self._clock() - start)

    def counter(
        self, step: str, kind: str, units: Sequence[float], text: Callable[[int], str]
    ) -> Callable[[int], None]:
        """Return a function that is told how many of some calls are done: at first, those that are known already.

        Parameters
        ----------
        step, kind : str
        units : sequence of float
            Of each call.
        text : function
            Says what is being done while so many are done.
        """
        done, since = -1, self._clock()

        def tell(count: int) -> None:
            nonlocal done, since
            now = self._clock()
            if done < 0:
                self._add(step, kind, sum(units[:count]), None)
            elif count > done:
                self._add(step, kind, sum(units[done:count]), now - since)
            done, since = count, now
            self.tell(text(count))

        return tell

    def _add(self, step: str, kind: str, units: float, seconds: float | None) -> None:
        """Take units as done, in as many seconds; they were known already where those are None."""
        if step in self._left:
            self.skip(step, units)
        if seconds is not None:
            before = self._spent.get(kind, (0.0, 0.0))
            self._spent[kind] = KEPT * before[0] + units, KEPT * before[1] + seconds

    def tell(self, text: str) -> None:
        """Tell what is being done."""
        passed, left = self._clock() - self._start, self.left
        if left is None:
            self._progress(text)
            return
        self._share = max(self._share, passed / (passed + left) if passed + left else 0.0)
        self._progress(text, self._share, left)

    @property
    def left(self) -> float | None:
        """Seconds that are likely left; None if nothing tells yet."""
        paces = {kind: self._pace(kind) for kind, units in self._left.values() if units}
        known = {kind: pace for kind, pace in paces.items() if pace is not None}
        if len(known) < len(paces):
            return None
        return sum(units * known.get(kind, 0.0) for kind, units in self._left.values())

    def _pace(self, kind: str) -> float | None:
        """Return the seconds of a unit; None if nothing tells."""
        units, seconds = self._spent.get(kind, (0.0, 0.0))
        if units:
            return seconds / units
        if kind in _SECONDS:
            return _SECONDS[kind]
        reference = next((self._pace(each) for each in _REFERENCES if each in self._spent), None)
        return None if reference is None else _BESIDE[kind] * reference
