r"""How many trials are enough: a fixed number of looks at the interval, each with its share of the error.

Who looks at an interval after every trial, and stops when it is narrow, has a 95 % interval no more. So the looks are
fixed beforehand: after `trials`, 2·`trials`, 4·`trials`, ... and `max_trials` trials. With L looks each interval is
taken at confidence 1 - 0.05/L. By Bonferroni's inequality the chance that any of the L intervals misses the mean is
0.05 at most, and so is that of the one at which a point stops, whatever the rule for stopping. Each interval is
Student's t, which takes values of trials to be normal.

What one look decides depends on the trials before it only, never on the order in which they ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_analog.arguments import Arguments
from onnx_analog.errors import OptionError
from onnx_analog.run.statistics import interval
from onnx_analog.settings import check_settings, same

ERROR = 0.05  # chance that an interval misses


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """When a point of a grid has trials enough.

    Parameters
    ----------
    trials : int, 0 to 10^9
        All of them; with `precision`, those before the first look, 2 or more.
    precision : float, > 0, optional
        Width of the interval, in units of the metric, that is narrow enough.
    max_trials : int, trials to 10^9
        No more than these, however wide the interval.
    """

    trials: int = same(Arguments, "trials")
    precision: float | None = same(Arguments, "precision")
    max_trials: int = same(Arguments, "max_trials")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.precision is not None and not 2 <= self.trials <= self.max_trials:
            raise OptionError(
                f"with precision, trials must be from 2 to max_trials; trials is {self.trials}, and max_trials "
                f"{self.max_trials}"
            )

    def looks(self) -> tuple[int, ...]:
        """Return the numbers of trials after which there is a look.

        Examples
        --------
        >>> Stopping(trials=25, precision=0.01, max_trials=300).looks()
        (25, 50, 100, 200, 300)
        >>> Stopping(trials=25).looks()
        (25,)
        """
        counts = [self.trials]
        while self.precision is not None and counts[-1] < self.max_trials:
            counts.append(min(2 * counts[-1], self.max_trials))
        return tuple(counts)

    @property
    def confidence(self) -> float:
        """Confidence of the interval at each look: over all looks together it is 0.95 at least."""
        return 1 - ERROR / len(self.looks())

    def interval(
        self, values: Sequence[float], *, bounds: tuple[float, float] | None = None
    ) -> tuple[float, float] | None:
        """Return the interval of the mean at a look, as `onnx_analog.run.statistics.interval` does."""
        return interval(values, self.confidence, bounds=bounds)

    def required(self, values: Sequence[float]) -> int:
        """Return how many trials are to be made, given the values of trials 0, 1, ... in their order.

        That is the look at which they were enough, if they were; `values` may have more.
        """
        looks = self.looks()
        for look in looks:
            if len(values) < look:
                return look
            if self._narrow(values[:look]):
                return look
        return looks[-1]

    def _narrow(self, values: Sequence[float]) -> bool:
        if self.precision is None or any(map(math.isinf, values)):
            return False
        ends = self.interval(values)
        return len(values) > 1 if ends is None else ends[1] - ends[0] <= self.precision  # None: they are all the same
