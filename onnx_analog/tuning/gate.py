"""A sequential test of whether a model loses more than a limit.

The loss of sample s in trial t is d(s, t). What is asked for is its mean L over all samples like the n given ones, and
over all trials. Trials come one by one; after each, their mean so far is off from L for two reasons:

    mean so far - L = (mean so far - M) + (M - L),   M: the mean over all trials, of the n samples

Both parts are bounded at once, each with its share of the risk 1 - confidence (Bonferroni):

- M - L, the choice of samples, does not become smaller with more trials: four fifths of the risk. It is bounded as in
  `onnx_analog.tuning.drops`: by the normal quantile or, where that is further, by exact bounds of the shares
  that are lost and gained or, of powers, by the quantile of skewed losses.
- The mean so far is that of T means of trials, which are taken to be normal: Student's quantile. The test looks at it
  after every trial from the third on, so a fifth of the risk is spent on the looks (Lan and DeMets 1983): look T gets
  the part 2/(T(T - 1)), and the parts of all looks, however many, add up to 1. Hence a wrong "yes", or a wrong "no",
  has a chance of at most 1 - confidence at whatever look the test stops.

Where all trials read the same, one decides, and the samples get the whole risk.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from onnx_analog.tuning.drops import Drop, of_ratio, scatter

RISK_OF_TRIALS = 0.2  # their share of the risk, where trials differ
FIRST_LOOK = 3  # trials: of two, Student's quantile is of no use
MOST_TRIALS = 10_000
_MOST_SAMPLES = 10**9
_BY_LUCK = 0.95  # probability of a spread of trials that alike ones stay below: a larger one is their own


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a sequential test has found.

    Attributes
    ----------
    holds : bool or None
        Whether the loss is within the limit; None if that is not decided.
    loss : float
        Mean over samples and trials.
    at_least, at_most : float
        One-sided bounds of the loss, each with the confidence of the test, at whatever trial it stopped.
    samples, trials : int
        That were used.
    settled : bool
        Whether more trials would not decide it either, by the bounds of what they can still change.
    needed : int or None
        Samples that would decide it within the most trials, if they lose and vary as much; None if it is decided, or no
        number would do.
    trials_needed : int or None
        Trials that would decide it, if they lose as much; None as above, and before the first look.
    """

    holds: bool | None
    loss: float
    at_least: float
    at_most: float
    samples: int
    trials: int
    settled: bool
    needed: int | None
    trials_needed: int | None = None


def sequential(
    rows: Iterable[NDArray[np.float64]],
    *,
    limit: float,
    confidence: float,
    most: int,
    shares: bool = True,
    powers: NDArray[np.float64] | None = None,
    alike: bool = False,
    expect: Callable[[int | None], object] | None = None,
) -> Decision:
    """Return whether the mean loss is within a limit; stops as soon as that is sure, or more trials cannot tell.

    Parameters
    ----------
    rows : iterable of array (n,)
        The losses of all samples in one trial after the other; not more are taken than needed.
    limit : float
        Of the mean loss.
    confidence : float, 0.5 <= confidence < 1
        A wrong "yes" has a chance of at most 1 - confidence, and so has a wrong "no".
    most : int
        Trials at which the test gives up; from 3 on unless trials are alike.
    shares : bool
        Whether losses are those of shares, from -1 to 1; else those of powers, 0 or more.
    powers : array (n,), optional
        Of the outputs of samples over their mean, which losses of powers are relative to; else 1 for all.
    alike : bool
        Whether all trials read the same, so that one decides.
    expect : function, optional
        Called after each trial that does not decide with the number of trials that would, as in `Decision`.
    """
    losses = Losses(shares=shares, powers=powers)
    for row in rows:
        losses.add(row)
        decision = losses.decision(limit, confidence, alike=alike)
        if decision.holds is not None or decision.settled or losses.trials == most:
            break
        if expect is not None:
            expect(losses.trials_needed(limit, confidence))
    if decision.holds is None:
        trials_needed = None if decision.settled else losses.trials_needed(limit, confidence)
        needed = losses.needed(limit, confidence, alike=alike, most=most)
        return replace(decision, needed=needed, trials_needed=trials_needed)
    return decision


class Losses:
    """Losses of trials so far, as sums: memory does not grow with trials.

    Parameters
    ----------
    shares : bool
        Whether losses are those of shares, from -1 to 1; else those of powers, 0 or more.
    powers : array (n,), optional
        Of the outputs of samples over their mean, where losses are relative to it.
    """

    def __init__(self, *, shares: bool, powers: NDArray[np.float64] | None = None) -> None:
        self._shares, self._powers = shares, powers
        self._known: tuple[int, list[tuple[float, float]]] | None = None  # of `_scatters`, and after which trial
        self._means: list[float] = []  # of each trial
        self._of_samples: NDArray[np.float64] = np.zeros(0)  # sum over trials
        self._squares = self._lost = 0.0

    @property
    def trials(self) -> int:
        """Trials so far."""
        return len(self._means)

    def add(self, row: NDArray[np.float64]) -> None:
        """Add the losses of one more trial, (n,); what is not a number counts as infinite."""
        row = np.where(np.isnan(row), np.inf, row)
        self._of_samples = row.copy() if not self._means else self._of_samples + row
        self._means.append(float(row.mean()))
        self._squares += float(np.square(row).sum())
        self._lost += float(np.maximum(row, 0).mean())

    def decision(self, limit: float, confidence: float, *, alike: bool) -> Decision:
        """Return what these trials decide about a limit; not yet how many samples would."""
        loss, holds, settled = float(np.mean(self._means)), None, False
        low = high = math.inf
        if not math.isfinite(loss):  # once is enough for a mean without bound
            holds = False
        else:
            sure, of_trials = self._reach(confidence, alike=alike)
            drop = self._drop()
            low, high = drop.lower(sure) - of_trials, drop.upper(sure) + of_trials
            low, high = (max(low, -1.0), min(high, 1.0)) if self._shares else (max(low, 0.0), high)
            holds = True if high <= limit else False if low > limit else None
            settled = alike or (holds is None and self._settled(limit, sure, of_trials))
        return Decision(
            holds=holds, loss=loss, at_least=low, at_most=high, samples=len(self._of_samples), trials=self.trials,
            settled=holds is None and settled, needed=None,
        )  # fmt: skip

    def _settled(self, limit: float, sure: float, of_trials: float) -> bool:
        """Return whether the choice of samples alone leaves a limit open, wherever more trials take the mean."""
        if math.isinf(of_trials):
            return False
        ever = self._drop(self._residual() / self.trials)
        return ever.lower(sure) + of_trials <= limit < ever.upper(sure) - of_trials

    def needed(self, limit: float, confidence: float, *, alike: bool, most: int) -> int | None:
        """Return the fewest samples that would decide in `most` trials, if they lose and vary as much.

        None if no number would. What was gained is taken for luck.
        """
        sure, _ = self._reach(confidence, alike=alike)
        rest = self._residual()
        drop = self._drop(rest / self.trials, rest / (self.trials if alike else most))
        drop = replace(drop, mean=max(drop.mean, 0.0)) if drop.mean <= limit else drop

        def decides(samples: int) -> bool:
            more = drop.of(samples)
            reach = 0.0 if alike else self._of_trials(1 - confidence, most, samples)
            return more.upper(sure) + reach <= limit or more.lower(sure) - reach > limit

        if not decides(_MOST_SAMPLES):
            return None
        return bisect.bisect_left(range(_MOST_SAMPLES), True, lo=1, key=decides)

    def trials_needed(self, limit: float, confidence: float) -> int | None:
        """Return the fewest trials that would decide, if they lose and vary as much; None if no number would."""
        first, risk, rest = self.trials + 1, 1 - confidence, self._residual()
        if self.trials < FIRST_LOOK or not math.isfinite(float(np.mean(self._means))):
            return None
        sure = 1 - (1 - RISK_OF_TRIALS) * risk

        def decides(trials: int) -> bool:
            drop, reach = self._drop(rest / self.trials, rest / trials), self._of_trials(risk, trials)
            return drop.upper(sure) + reach <= limit or drop.lower(sure) - reach > limit

        found = bisect.bisect_left(range(MOST_TRIALS + 1), True, lo=first, key=decides)
        return found if found <= MOST_TRIALS else None

    def _reach(self, confidence: float, *, alike: bool) -> tuple[float, float]:
        """Return the confidence of the bounds for samples, and the reach of those for trials."""
        risk = 1 - confidence
        return (confidence, 0.0) if alike else (1 - (1 - RISK_OF_TRIALS) * risk, self._of_trials(risk))

    def _drop(self, less: float = 0.0, more: float = 0.0) -> Drop:
        """Return the loss with the errors of the choice of samples alone.

        The variance between samples is taken without `less`, which the noise of trials adds to it, and with `more`.
        """
        n, lost = len(self._of_samples), self._lost / self.trials if self._shares else None
        errors = [(math.sqrt((max(variance - less, 0.0) + more) / n), skew) for variance, skew in self._scatters]
        (error, skew), *rest = errors
        of_ratio, skew_of_ratio = rest[0] if rest else (0.0, 0.0)
        mean = float(np.mean(self._means))
        return Drop(mean, lost, error, 0.0, n, self.trials, math.nan, skew, of_ratio, skew_of_ratio)

    @property
    def _scatters(self) -> list[tuple[float, float]]:
        """Variance and skewness of the means of samples and, of powers, of the ratio that their mean is."""
        if self._known is None or self._known[0] != self.trials:
            means = self._of_samples / self.trials
            variance, skew = scatter(means)
            ratio = [] if self._powers is None else [scatter(of_ratio(means, self._powers))]
            self._known = self.trials, [(variance, 0.0 if self._shares else skew), *ratio]
        return self._known[1]

    def _residual(self) -> float:
        """Return the variance of losses that neither their sample nor their trial explains."""
        n, count = len(self._of_samples), self.trials
        if n < 2 or count < 2:
            return 0.0
        means, all_means = self._of_samples / count, np.asarray(self._means)
        rest = self._squares - count * np.square(means).sum() - n * np.square(all_means - all_means.mean()).sum()
        return max(float(rest) / ((n - 1) * (count - 1)), 0.0)

    def _of_trials(self, risk: float, trials: int | None = None, samples: int | None = None) -> float:
        """Return how far the mean over trials may be from that over all; infinite before the first look.

        Means of trials vary by the residual variance at least: a smaller spread of a few is luck. If not these but a
        number of trials is asked for, they vary as these do. More samples lower the residual variance alone, or all
        of it where the means do not clearly vary by more.
        """
        count = self.trials if trials is None else trials
        if count < FIRST_LOOK:
            return math.inf
        own = self._residual() / len(self._of_samples)
        variance = max(float(np.var(self._means, ddof=1)) if self.trials > 1 else math.inf, own)
        if samples is not None:
            by_luck = float(scipy.stats.chi2.ppf(_BY_LUCK, self.trials - 1)) / max(self.trials - 1, 1)
            shrinking = variance if variance <= by_luck * own else own
            variance += shrinking * (len(self._of_samples) / samples - 1)
        part = RISK_OF_TRIALS * risk * 2 / (count * (count - 1))
        return float(scipy.stats.t.isf(part, count - 1)) * math.sqrt(variance / count)
