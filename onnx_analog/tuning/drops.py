"""Losses of stored models, paired by sample, with their confidence bounds.

Of a share of samples (top-1 accuracy, agreement), each sample is right or wrong in the original and in each trial. The
difference of the two, d of sample s in trial t, is -1, 0 or 1. Its mean is the drop; samples and trials are both
drawn, so the variance of the mean is taken as the sum

    Var(mean over trials of d, between samples)/n + Var(mean over samples of d, between trials)/T

Bounds take the normal quantile for the first or, where that is further, what the bounds of Clopper and Pearson (1934)
on the shares of samples that are lost and gained leave of their difference (Zou and Donner 2008, "MOVER"), which holds
where few differ:

    upper = d + √((upper of lost - lost)² + (gained - lower of gained)²), and likewise below

They take Student's quantile for the second.

Of the ratio of signal to noise, d is the squared error of a sample's output over the mean power of the outputs: its
mean is the inverse of the ratio. That power is of the same samples, so each bound takes what reaches further on its
side: the scatter of d, or that of the ratio. With the ratio R and q, the power of a sample's output over its mean,
this is the scatter of

    (d - R·q)/(1 - q/n)

which is n/(n - 1) times what the jackknife takes (R. G. Miller, "The jackknife: a review", Biometrika 61, 1-15, 1974).
A few samples often have most of the error, so bounds take the normal quantile or, where that is further, the one that
Hall (1992) corrects for skewness; see `onnx_analog.run.statistics.skewed_quantile`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from onnx_analog.errors import OptionError
from onnx_analog.run._outputs import are_maps, numbers_of
from onnx_analog.run._values import equal_values, right_places, same_places
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.statistics import least_of, most_of, skewed_quantile, skewness
from onnx_analog.run.trials import Trials
from onnx_analog.tuning.sensitivity import divergence

_PAIRED, _WHOLE = ("top1", "agreement", "sqnr_db"), "exact_match"
_MOST_SAMPLES = 10**9


@dataclass(frozen=True)
class Drop:
    """The drop of a metric against the original.

    Attributes
    ----------
    mean : float
        Of shares from -1 to 1, above 0 where the original is better; else the noise in the outputs over their power.
    lost : float or None
        Share of the samples that are right in the original and wrong as read, on average over trials; None where
        samples are not right or wrong.
    of_samples, of_trials : float
        Standard errors of the mean from the choice of samples, and from the noise of the trials.
    samples, trials : int
    divergence : float
        Of the outputs from those of the original, on average over trials: what sensitivities predict.
    skew : float
        Skewness of the losses of samples; 0 of shares, which are bounded otherwise.
    of_ratio, skew_of_ratio : float
        The same error and skewness where the mean is taken as a ratio; 0 of shares.
    """

    mean: float
    lost: float | None
    of_samples: float
    of_trials: float
    samples: int
    trials: int
    divergence: float
    skew: float = 0.0
    of_ratio: float = 0.0
    skew_of_ratio: float = 0.0

    def of(self, samples: int) -> Drop:
        """Return the drop of another number of samples that lose and vary as much."""
        factor = math.sqrt(self.samples / samples)
        return replace(self, of_samples=factor * self.of_samples, of_ratio=factor * self.of_ratio, samples=samples)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval that holds the drop."""
        return self.lower((1 + confidence) / 2), self.upper((1 + confidence) / 2)

    def upper(self, confidence: float) -> float:
        """Return the one-sided bound below which the drop lies."""
        if self.lost is None:
            return self.mean + self._reach(confidence, self._skewed(1 - confidence)) if self._is_known else math.inf
        above = most_of(self.lost, self.samples, confidence) - self.lost
        below = self._gained - least_of(self._gained, self.samples, confidence)
        return self.mean + self._reach(confidence, math.hypot(above, below))

    def lower(self, confidence: float) -> float:
        """Return the one-sided bound above which the drop lies."""
        if self.lost is None:  # of powers, none is below 0
            skewed = self._skewed(confidence)
            return max(self.mean - self._reach(confidence, skewed), 0.0) if self._is_known else math.inf
        below = self.lost - least_of(self.lost, self.samples, confidence)
        above = most_of(self._gained, self.samples, confidence) - self._gained
        return self.mean - self._reach(confidence, math.hypot(below, above))

    @property
    def _is_known(self) -> bool:
        return math.isfinite(self.mean)

    def _skewed(self, probability: float) -> float:
        """Return how far the mean of skewed losses may be from that of all samples, to the side of a probability."""
        quantile = float(scipy.stats.norm.ppf(probability))
        side = math.copysign(1.0, quantile)
        errors = ((self.of_samples, self.skew), (self.of_ratio, self.skew_of_ratio))
        reaches = [side * skewed_quantile(quantile, skew, self.samples) * error for error, skew in errors]
        return max(*reaches, abs(quantile) * self.of_ratio)

    @property
    def _gained(self) -> float:
        """Share of the samples that are wrong in the original and right as read, on average over trials."""
        assert self.lost is not None
        return max(self.lost - self.mean, 0.0)

    def _reach(self, confidence: float, exact: float) -> float:
        of_samples = max(float(scipy.stats.norm.ppf(confidence)) * self.of_samples, exact)
        if self.trials < 2:
            return of_samples
        return math.hypot(of_samples, float(scipy.stats.t.ppf(confidence, self.trials - 1)) * self.of_trials)


class Read(NamedTuple):
    """What one trial loses.

    Attributes
    ----------
    losses : float array of shape (n,)
        Of each sample.
    divergence : float
        Of the outputs from those of the original.
    """

    losses: NDArray[np.float64]
    divergence: float


def read_of(experiment: Experiment, trials: Trials, *, seed: int, trial: int) -> Read:
    """Return what one trial of a stored model loses.

    Raises
    ------
    OptionError
        If the metric is not one whose samples can be paired.
    """
    outputs = trials.outputs(seed=seed, trial=trial)
    return Read(losses(experiment)(outputs), divergence(experiment.clean, experiment.chosen.axis)(outputs))


def drop_of(experiment: Experiment, trials: Trials, *, seed: int, count: int) -> Drop:
    """Return the drop of a stored model in `count` trials; it raises what `read_of` does."""
    return drop_from(experiment, [read_of(experiment, trials, seed=seed, trial=trial) for trial in range(count)])


def drop_from(experiment: Experiment, reads: Sequence[Read]) -> Drop:
    """Return the drop in some trials."""
    rows, count = np.stack([read.losses for read in reads]), len(reads)
    mean, n = float(rows.mean()), rows.shape[1]
    means = rows.mean(axis=0)
    of_samples = float(means.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    of_trials = float(rows.mean(axis=1).std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    apart = float(np.mean([read.divergence for read in reads]))
    if not is_noise(experiment):
        return Drop(mean, float(np.maximum(rows, 0).mean()), of_samples, of_trials, n, count, apart)
    if not math.isfinite(mean):
        return Drop(mean, None, of_samples, of_trials, n, count, apart)
    variance, skew_of_ratio = scatter(of_ratio(means, relative_powers(experiment.clean)))
    error = math.sqrt(variance / n)
    return Drop(mean, None, of_samples, of_trials, n, count, apart, skewness(means), error, skew_of_ratio)


def of_ratio(of_samples: NDArray[np.float64], powers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers, (n,), that scatter as the mean loss does where it is taken as a ratio of error to power.

    Infinite for a sample without which nothing would have any power.
    """
    n, ratio = len(of_samples), float(of_samples.mean())
    off, left = of_samples - ratio * powers, 1 - powers / n
    return np.divide(off, left, where=left > 0, out=np.where(off == 0, 0.0, np.inf))


def scatter(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return variance and skewness of what samples lose, (n,)."""
    if not np.isfinite(values).all() or values.size < 2:
        return math.inf, 0.0
    return float(values.var(ddof=1)), skewness(values)


def is_noise(experiment: Experiment) -> bool:
    """Return whether losses are the noise in the outputs over their power, and not those of a share."""
    return experiment.chosen.metric.name == "sqnr_db"


def losses(experiment: Experiment) -> Callable[[list[Any]], NDArray[np.float64]]:
    """Return the function that gives the loss of each sample, (n,), from what a trial's outputs are."""
    if is_noise(experiment):
        return partial(noise, experiment.clean)
    before = right(experiment, experiment.clean)
    return lambda outputs: before - right(experiment, outputs)


def noise(clean: list[Any], outputs: list[Any]) -> NDArray[np.float64]:
    """Return the squared error of each sample over the mean power of a sample without noise, (n,).

    What is the same infinity or NaN in both does not count, as in the metric.
    """
    expected, found = map(_rows, (clean, outputs))
    with np.errstate(invalid="ignore"):
        same = (found == expected) | (np.isnan(found) & np.isnan(expected))
        error = np.nan_to_num(np.where(same, 0.0, found - expected), nan=np.inf, posinf=np.inf, neginf=-np.inf)
    power = float(_powers(expected).mean())
    of_samples: NDArray[np.float64] = np.square(error).sum(axis=1) / (power or np.finfo(np.float64).tiny)
    return of_samples


def relative_powers(clean: list[Any]) -> NDArray[np.float64]:
    """Return the power of each sample without noise over their mean, (n,); 1 for all if they have none."""
    powers = _powers(_rows(clean))
    mean = float(powers.mean())
    return powers / mean if mean else np.ones(len(powers))


def _rows(outputs: list[Any]) -> NDArray[np.float64]:
    """Return the output that the metric reads, (n, numbers of a sample)."""
    values = np.asarray(numbers_of(outputs[0]), np.float64)
    return values.reshape(len(values), -1)


def _powers(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power of each row, (n,), of what is finite."""
    powers: NDArray[np.float64] = np.square(expected, where=np.isfinite(expected), out=np.zeros(expected.shape)).sum(
        axis=1
    )
    return powers


def check_paired(experiment: Experiment, *, divergence: bool = True) -> None:
    """Raise `OptionError` unless the metric compares sample by sample and, for a `divergence`, reads numbers."""
    name, output = experiment.chosen.metric.name, experiment.chosen.output
    if name == _WHOLE and divergence:
        given = "metric" if experiment.metric_given else "no metric is given, and for these outputs and labels it"
        raise OptionError(
            f"{given} is exact_match, which does not tell how far outputs are off: choose an output of scores or "
            f"numbers, and one of the metrics {', '.join(_PAIRED)}"
        )
    known = _PAIRED if divergence else (*_PAIRED, _WHOLE)
    if name not in known:
        if experiment.metric_given:
            raise OptionError(f"metric is {name}; it must be one that compares sample by sample: {', '.join(known)}")
        raise OptionError(
            f"no metric is given, and for these outputs and labels it is {name}, which does not compare sample by "
            f"sample: give one that does, {', '.join(known)}"
        )
    clean = experiment.clean[0]
    if not isinstance(clean, np.ndarray) and not are_maps(clean):
        raise OptionError(f"output {output!r} is no array, and no map for each sample: name one that is")


def right(experiment: Experiment, outputs: list[Any]) -> NDArray[np.float64]:
    """Return 1 for each sample whose class is right, else 0, (n,): of several places, their share.

    Right is the class of the label or, without labels, that of the original; of exact_match, the value.
    """
    return right_against(experiment, experiment.clean, outputs)


def right_against(experiment: Experiment, clean: list[Any], outputs: list[Any]) -> NDArray[np.float64]:
    """Return the same, where without labels the outputs `clean` are right."""
    chosen, labels = experiment.chosen, experiment.data.labels
    if chosen.metric.name == _WHOLE:
        (same,) = equal_values(outputs[0], labels if chosen.labelled else None, clean)
    elif chosen.labelled:
        same = right_places(outputs[0], labels, chosen.axis)
    else:
        same = same_places(outputs[0], clean[0], chosen.axis)
    share: NDArray[np.float64] = same.reshape(len(experiment.data), -1).mean(axis=1)
    return share


def samples_needed(drop: Drop, limit: float, confidence: float) -> int | None:
    """Return the fewest samples that would show that a drop is below a limit, if they lose as much; None if none would.

    The error of the trials is left out: more trials lower it. What was gained is taken for luck.
    """
    drop = replace(drop, mean=max(drop.mean, 0.0))

    def shows(samples: int) -> bool:
        return replace(drop.of(samples), of_trials=0.0).upper(confidence) <= limit

    if drop.mean >= limit or not shows(_MOST_SAMPLES):
        return None
    return bisect.bisect_left(range(_MOST_SAMPLES), True, lo=1, key=shows)
