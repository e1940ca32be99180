"""Whether simulated arrays predict a measured one: group by group, stream by stream, and in what the network scores.

All comparisons share one risk: if both arrays have one law, all of them agree with 95 % confidence (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.stats

from onnx_analog.display import Shown, counted, percent_as_given, score, score_ends
from onnx_analog.errors import DataError
from onnx_analog.run.array_statistics import QUANTILES, ArrayStatistics, Doubles, Group, statistics_of
from onnx_analog.run.statistics import between, interval
from onnx_analog.run.stream_statistics import StreamDifference, comparisons_of, stream_difference

CONFIDENCE = 0.95
_LEAST = 30  # weights of a group in both arrays, below which it is not compared


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One group of both arrays.

    Attributes
    ----------
    measured, simulated : Group
    ks : float
        Distance of Kolmogorov and Smirnov between the distributions of errors.
    ks_bound : float
        What it stays below with the confidence of the comparison, over all that is compared, if both have one law.
    """

    measured: Group
    simulated: Group
    ks: float
    ks_bound: float

    @property
    def differs(self) -> bool:
        """Whether the distance is beyond its bound."""
        return self.ks > self.ks_bound


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Shown):
    """Whether simulated arrays predict a measured one.

    Attributes
    ----------
    differences : tuple of Difference
    streams : tuple of StreamDifference
    left_out : int
        Groups that one of the two does not have, or with fewer than 30 weights, and streams that one does not have.
    unread_streams : tuple of str
        Names of the streams that the simulated arrays have, and of which no symbol was read.
    metric : str or None
        None unless both were given data.
    measured_value : float or None
    measured_interval : (float, float) or None
        95 % interval over test sets, by Clopper and Pearson, of a share.
    simulated_values : tuple of float
        Of the simulated arrays.
    simulated_mean : float or None
    simulated_interval : (float, float) or None
        95 % interval of the mean over arrays.
    predicted : (float, float) or None
        Where one more array lies with 95 % confidence, by the simulated ones; None if fewer than two of their values
        differ.
    unread : str or None
        How many weights had no read, and what became of them; a value does not tell of these.
    """

    differences: tuple[Difference, ...]
    left_out: int
    streams: tuple[StreamDifference, ...] = ()
    unread_streams: tuple[str, ...] = ()
    metric: str | None = None
    measured_value: float | None = None
    measured_interval: tuple[float, float] | None = None
    simulated_values: tuple[float, ...] = ()
    simulated_mean: float | None = None
    simulated_interval: tuple[float, float] | None = None
    predicted: tuple[float, float] | None = None
    unread: str | None = None

    @property
    def levels_agree(self) -> bool | None:
        """Whether no group differs beyond its bound; None if no group is compared."""
        return _agree(self.differences)

    @property
    def streams_agree(self) -> bool | None:
        """Whether no stream is misread, or fails, more or less often than simulated; None if no symbol is compared."""
        return _agree(self.streams)

    @property
    def comparisons(self) -> int:
        """How many distances and shares are compared, all of which agree with 95 % confidence if both have one law."""
        return len(self.differences) + sum(comparisons_of(stream.measured) for stream in self.streams)

    @property
    def value_agrees(self) -> bool | None:
        """Whether the measured value lies where one more simulated array would; None if that is not known."""
        if self.measured_value is None or self.predicted is None:
            return None
        return self.predicted[0] <= self.measured_value <= self.predicted[1]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        groups = [
            {
                "channel": each.measured.channel,
                "cells": each.measured.cells,
                "low": each.measured.low,
                "high": each.measured.high,
                **{
                    f"{kind}_{name}": getattr(group, name)
                    for kind, group in (("measured", each.measured), ("simulated", each.simulated))
                    for name in ("count", "mean", "std")
                },
                "ks": each.ks,
                "ks_bound": each.ks_bound,
                "differs": each.differs,
            }
            for each in self.differences
        ]
        apart = ("differences", "streams")
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in apart}
        return {
            "line": str(self),
            "levels_agree": self.levels_agree,
            "streams_agree": self.streams_agree,
            "comparisons": self.comparisons,
            "confidence": CONFIDENCE,
            "value_agrees": self.value_agrees,
            "groups": groups,
            "streams": [stream.to_dict() for stream in self.streams],
            **others,
        }

    def __str__(self) -> str:
        levels = f"{self._differing} from the simulation, with {percent_as_given(CONFIDENCE)} confidence"
        if self.comparisons > 1:
            levels += f" over all {self.comparisons:,} comparisons"
        levels += self._unknown
        if self.measured_value is None or self.simulated_mean is None:
            return levels
        rest = "" if self.unread is None else f" ({self.unread})"
        measured, simulated = self.shown(self.measured_value), self.shown(self.simulated_mean)
        value = f"{self.metric} {measured} measured{rest}, {simulated} simulated"
        if self.predicted is None:
            return f"{levels}; {value}, and nothing is predicted ({self.why_unpredicted})"
        where = "within" if self.value_agrees else "outside"
        return f"{levels}; {value}, {where} what is predicted ({score_ends(self.predicted, share=self.share)})"

    @property
    def share(self) -> bool:
        """Whether the metric is a share of the samples."""
        return self.measured_interval is not None

    def shown(self, value: float) -> str:
        """Return a value of the metric as it is printed: a share in per cent."""
        return score(value, share=self.share)

    @property
    def why_unpredicted(self) -> str:
        """Why it is not known where one more array lies, in words."""
        return between(self.simulated_values, self.predicted, share=self.share, noun="array").removeprefix("none: ")

    @property
    def _unknown(self) -> str:
        """Say which of the digital cells nothing is known about."""
        names = ", ".join(self.unread_streams)
        return f"; no symbol of {names} was read, so it is not known whether these agree" if names else ""

    @property
    def _differing(self) -> str:
        """Say how many groups and streams differ."""
        parts = []
        for what, each in (("group of levels", self.differences), ("stream", self.streams)):
            if each:
                many = {"group of levels": "groups of levels"}.get(what, f"{what}s")
                parts.append(f"{sum(one.differs for one in each):,} of {counted(len(each), what, many)}")
        alone = len(self.differences) + len(self.streams) == 1
        return f"{' and '.join(parts)} {'differs' if alone else 'differ'}"


def _agree(compared: Sequence[Difference] | Sequence[StreamDifference]) -> bool | None:
    return not any(each.differs for each in compared) if compared else None


def compare(measured: object, simulated: object) -> Comparison:
    """Return whether simulated arrays predict a measured one.

    Parameters
    ----------
    measured, simulated : ArrayStatistics or path
        As `array_statistics` returns them, or files of them.

    Raises
    ------
    DataError
        If a file does not hold the statistics of an array, the two are of different images or metrics, share no group,
        or are given in the wrong order.
    """
    first, second = statistics_of(measured, "measured"), statistics_of(simulated, "simulated")
    _check_pair(first, second, (_name(measured, "measured"), _name(simulated, "simulated")))
    groups = {group.key: group for group in second.groups}
    pairs = [(group, groups[group.key]) for group in first.groups if group.key in groups]
    pairs = [pair for pair in pairs if min(group.count for group in pair) >= _LEAST]
    expected = {stream.key: stream for stream in second.streams}
    read = {stream.key for stream in first.streams}
    streams = [(stream, expected[stream.key]) for stream in first.streams if stream.key in expected]
    tests = len(pairs) + sum(comparisons_of(stream) for stream, _ in streams)
    if not tests:
        raise DataError(
            f"no group of levels has {_LEAST} weights in both arrays, and they share no stream: there is nothing to "
            "compare"
        )
    every = {each.key for of_both in (first, second) for each in of_both.groups}
    named = {each.key for of_both in (first, second) for each in of_both.streams}
    risk = (1 - CONFIDENCE) / tests  # Bonferroni
    return Comparison(
        differences=tuple(_difference(*pair, risk) for pair in pairs),
        streams=tuple(stream_difference(*pair, risk) for pair in streams),
        unread_streams=tuple(dict.fromkeys(each.name for each in second.streams if each.key not in read)),
        left_out=len(every) - len(pairs) + len(named) - len(streams),
        unread=first.unread,
        **_values(first, second),
    )


_DESCRIBED = {"measured": "a measured array", "simulated": "simulated arrays"}


def _name(given: object, argument: str) -> str:
    """Return what a message calls one of the two: the file, or the argument."""
    return argument if isinstance(given, ArrayStatistics) else repr(str(given))


def _check_pair(measured: ArrayStatistics, simulated: ArrayStatistics, names: tuple[str, str]) -> None:
    both = zip(names, (measured, simulated), _DESCRIBED, ("first", "second"), strict=True)
    for name, given, needed, place in both:
        if given.kind != needed:
            raise DataError(
                f"{name} describes {_DESCRIBED[given.kind]}; the {place} of the two must describe {_DESCRIBED[needed]}"
            )
    if measured.image != simulated.image:
        raise DataError("the two are of different images: they do not hold the same weights")
    same = measured.metric == simulated.metric and measured.samples == simulated.samples
    if measured.values and simulated.values and not same:
        raise DataError(
            f"one was scored by {measured.metric} on {measured.samples:,} samples, the other by {simulated.metric} on "
            f"{simulated.samples:,}: score both alike"
        )


def _difference(measured: Group, simulated: Group, risk: float) -> Difference:
    n, m = measured.count, simulated.count
    bound = math.sqrt(-math.log(risk / 2) / 2 * (n + m) / (n * m))
    rounding = 2 / (QUANTILES - 1)  # between quantiles, a distribution is known no better
    return Difference(
        measured=measured,
        simulated=simulated,
        ks=distance(measured.quantiles, simulated.quantiles),
        ks_bound=bound + rounding,
    )


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the largest distance between distributions that are known by quantiles at equal steps.

    >>> distance([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]), distance([0.0, 1.0], [5.0, 6.0])
    (0.0, 1.0)
    """
    at = np.union1d(first, second)
    apart = [np.abs(one - other) for one, other in zip(_shares(at, first), _shares(at, second), strict=True)]
    return float(np.max(apart))


def _shares(at: Doubles, quantiles: Sequence[float]) -> tuple[Doubles, Doubles]:
    """Return the shares of a distribution that are below each value, and not above it.

    They differ where quantiles are equal, which are a step; between quantiles, the share is on a line.
    """
    knots, start, count = np.unique(quantiles, return_index=True, return_counts=True)
    steps = len(quantiles) - 1
    first, last = start / steps, (start + count - 1) / steps
    # Between two knots, the line leads from the last share of the one to the first share of the other.
    x, y = np.repeat(knots, 2), np.column_stack([first, last]).reshape(-1)
    place = np.searchsorted(knots, at)
    at_knot = (place < knots.size) & (knots[np.minimum(place, knots.size - 1)] == at)
    place = np.minimum(place, knots.size - 1)
    between = np.interp(at, x, y, left=0.0, right=1.0)
    return np.where(at_knot, first[place], between), np.where(at_knot, last[place], between)


def _values(measured: ArrayStatistics, simulated: ArrayStatistics) -> dict[str, Any]:
    if not (measured.values and simulated.values):
        return {}
    (value,), values = measured.values, simulated.values
    bounds = (0.0, 1.0) if measured.share else (-math.inf, math.inf)
    return {
        "metric": measured.metric,
        "measured_value": value,
        "measured_interval": _of_test_set(value, measured.samples) if measured.share else None,
        "simulated_values": values,
        "simulated_mean": float(np.mean(values)),
        "simulated_interval": interval(values, bounds=bounds),
        "predicted": _prediction(values, bounds),
    }


def _of_test_set(share: float, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a share over test sets of so many samples, by Clopper and Pearson."""
    ends = scipy.stats.binomtest(round(share * samples), samples).proportion_ci(CONFIDENCE, method="exact")
    return float(ends.low), float(ends.high)


def _prediction(values: Sequence[float], bounds: tuple[float, float]) -> tuple[float, float] | None:
    """Return where one more value lies with 95 % confidence, by Student's t.

    None for fewer than two values, and where all are the same: how far they scatter cannot be told then.
    """
    if len(set(values)) < 2:
        return None
    reach = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    reach *= float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / len(values))
    mean = float(np.mean(values))
    return max(mean - reach, bounds[0]), min(mean + reach, bounds[1])
