"""Statistics of the reads of an array, measured or simulated, and whether the simulation predicts the measurement.

The error of a weight is the mean read of its cells minus its level, before any estimator. Errors are grouped by
channel, by the number of cells of the weight, and by equal parts of the output range. Of each group, the file keeps the
number, the mean, the standard deviation, and quantiles, from which distances between distributions follow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from onnx_analog import serialise
from onnx_analog.coding.scheme import Scheme
from onnx_analog.disk.reading import MIB, read_text
from onnx_analog.display import Shown, counted
from onnx_analog.errors import DataError, brief, require_path
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reader import Reader
from onnx_analog.run.statistics import interval

Doubles = NDArray[np.float64]

FORMAT = "onnx-analog-array/1"
PARTS = 8  # of the output range
QUANTILES = 201
CONFIDENCE = 0.95
_LARGEST = 64 * MIB
_LEAST = 30  # weights of a group in both arrays, below which it is not compared


@dataclass(frozen=True, kw_only=True)
class Group:
    """Errors of the weights with so many cells and a level in one part of the output range.

    Attributes
    ----------
    channel : str
    cells : int
        Cells of each weight.
    low, high : float
        Ends of the part.
    count : int
        Weights and arrays together.
    mean, std : float
    quantiles : tuple of float
        At equal steps from the least error to the largest.
    """

    channel: str
    cells: int
    low: float
    high: float
    count: int
    mean: float
    std: float
    quantiles: tuple[float, ...]

    @property
    def key(self) -> tuple[str, int, float]:
        """What tells groups apart."""
        return self.channel, self.cells, self.low


@dataclass(frozen=True, kw_only=True, repr=False)
class ArrayStatistics(Shown):
    """Errors of an array's weights by level and, if there were data, what the network then scores.

    Attributes
    ----------
    kind : {"measured", "simulated"}
    image : str
        Digest of what was stored.
    arrays : int
        How often it was programmed and read.
    groups : tuple of Group
    metric : str or None
    values : tuple of float
        Of each array; empty without data.
    samples : int
    share : bool
        Whether values are shares, from 0 to 1.
    irregularities : tuple of dict
        Of a measured array; see `onnx_analog.graph.array_read`.
    """

    kind: str
    image: str
    arrays: int
    groups: tuple[Group, ...]
    metric: str | None = None
    values: tuple[float, ...] = ()
    samples: int = 0
    share: bool = False
    irregularities: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {"format": FORMAT, "version": version("onnx-analog"), **asdict(self)}

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def __str__(self) -> str:
        weights = counted(sum(group.count for group in self.groups), "weight")
        return f"{weights} of {counted(self.arrays, f'{self.kind} array')}"


def grouped(protected: ProtectedModel, raw: Iterable[Mapping[str, NDArray[Any]]]) -> tuple[Group, ...]:
    """Return the groups of errors.

    Parameters
    ----------
    protected : ProtectedModel
        What was written.
    raw : mappings of storage key to float32 array of shape (M,)
        Mean reads of the weights of each tensor, NaN where there is none: one mapping for each array.
    """
    errors: dict[tuple[str, int, int], list[Doubles]] = {}
    ends: dict[str, Doubles] = {}
    tensors = {tensor.key: tensor for tensor in protected.tensors}
    for reads in raw:
        for key, tensor in tensors.items():
            if not tensor.level.size:
                continue
            channel = tensor.scheme.channel
            low, high = channel.span
            edges = ends.setdefault(str(channel), np.linspace(low, high, PARTS + 1))
            part = np.clip(np.searchsorted(edges, tensor.level, side="right") - 1, 0, PARTS - 1)
            index = tensor.level_class
            cells = np.array(tensor.scheme.cells_of_class)[np.zeros(part.size, np.intp) if index is None else index]
            error = reads[key].astype(np.float64) - tensor.level
            there = np.isfinite(error)
            for count in np.unique(cells).tolist():
                for number in np.unique(part[there & (cells == count)]).tolist():
                    chosen = error[there & (cells == count) & (part == number)]
                    errors.setdefault((str(channel), count, number), []).append(chosen)
    return tuple(_group(*name, ends[name[0]], np.concatenate(errors[name])) for name in sorted(errors))


def _group(channel: str, cells: int, part: int, edges: Doubles, error: Doubles) -> Group:
    return Group(
        channel=channel,
        cells=cells,
        low=float(edges[part]),
        high=float(edges[part + 1]),
        count=error.size,
        mean=float(error.mean()),
        std=float(error.std()),
        quantiles=tuple(np.quantile(error, np.linspace(0, 1, QUANTILES)).tolist()),
    )


# ------------------------------------------------------------------------------------------------------- files


def statistics_of(given: object, name: str) -> ArrayStatistics:
    """Return statistics: as they are, or of a JSON file of `ArrayStatistics.to_json`.

    Raises
    ------
    DataError
        If it is no such file.
    OptionError
        If `given` is neither.
    """
    if isinstance(given, ArrayStatistics):
        return given
    path = require_path(name, given)
    text = read_text(path, limit=_LARGEST, error=DataError)
    try:
        body = serialise.parse(text)
    except ValueError as error:
        raise DataError(f"{str(path)!r} does not hold the statistics of an array: {error}") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        found = brief(body.get("format")) if isinstance(body, dict) else "missing"
        raise DataError(
            f"{str(path)!r} does not hold the statistics of an array: its format is {found}, and {FORMAT!r} is needed. "
            "`readback --statistics` writes such a file."
        )
    try:
        return _from_dict(body)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}. Write it again.") from error


def _from_dict(body: Mapping[str, Any]) -> ArrayStatistics:
    known = {field.name: body[field.name] for field in fields(ArrayStatistics)}
    groups = tuple(_group_of(entry) for entry in known.pop("groups"))
    if known["kind"] not in ("measured", "simulated"):
        raise ValueError(f"kind is {brief(known['kind'])}")
    values = tuple(float(value) for value in known.pop("values"))
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")
    arrays = int(known["arrays"])
    if arrays < 1 or len(values) not in (0, arrays) or (known["kind"] == "measured" and arrays > 1):
        raise ValueError(f"{len(values)} values of {arrays} arrays")
    irregularities = tuple(dict(entry) for entry in known.pop("irregularities"))
    return ArrayStatistics(**known, groups=groups, values=values, irregularities=irregularities)


def _group_of(entry: Mapping[str, Any]) -> Group:
    quantiles = tuple(float(value) for value in entry["quantiles"])
    numbers = {name: float(entry[name]) for name in ("low", "high", "mean", "std")}
    if len(quantiles) != QUANTILES or list(quantiles) != sorted(quantiles):
        raise ValueError(f"quantiles are not {QUANTILES} ascending numbers")
    if not all(map(math.isfinite, (*quantiles, *numbers.values()))):
        raise ValueError("a number of a group is not finite")
    group = Group(
        channel=str(entry["channel"]),
        cells=int(entry["cells"]),
        count=int(entry["count"]),
        quantiles=quantiles,
        **numbers,
    )
    if group.count < 1 or group.std < 0:
        raise ValueError("a group has no weights, or a negative standard deviation")
    return group


# ----------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One group of both arrays.

    Attributes
    ----------
    measured, simulated : Group
    ks : float
        Distance of Kolmogorov and Smirnov between the distributions of errors.
    ks_bound : float
        What it stays below with the confidence of the comparison, over all groups, if both have one law.
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
    left_out : int
        Groups that one of the two does not have, or with fewer than 30 weights.
    metric : str or None
        None unless both were given data.
    measured_value : float or None
    measured_interval : (float, float) or None
        95 % interval over test sets, by Clopper and Pearson, of a share.
    simulated_mean : float or None
    simulated_interval : (float, float) or None
        95 % interval of the mean over arrays.
    predicted : (float, float) or None
        Where one more array lies with 95 % confidence, by the simulated ones; None if fewer than two of their values
        differ.
    """

    differences: tuple[Difference, ...]
    left_out: int
    metric: str | None = None
    measured_value: float | None = None
    measured_interval: tuple[float, float] | None = None
    simulated_mean: float | None = None
    simulated_interval: tuple[float, float] | None = None
    predicted: tuple[float, float] | None = None

    @property
    def levels_agree(self) -> bool:
        """Whether no group differs beyond its bound."""
        return not any(difference.differs for difference in self.differences)

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
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "differences"}
        return {
            "line": str(self),
            "levels_agree": self.levels_agree,
            "value_agrees": self.value_agrees,
            "groups": groups,
            **others,
        }

    def __str__(self) -> str:
        far = sum(difference.differs for difference in self.differences)
        levels = f"{far} of {counted(len(self.differences), 'group')} of levels differ from the simulation"
        if self.measured_value is None or self.simulated_mean is None:
            return levels
        value = f"{self.metric} {self.measured_value:.4f} measured, {self.simulated_mean:.4f} simulated"
        if self.predicted is None:
            return f"{levels}; {value}"
        where = "inside" if self.value_agrees else "outside"
        return f"{levels}; {value}, {where} of what is predicted ({self.predicted[0]:.4f} to {self.predicted[1]:.4f})"


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
    _check_pair(first, second)
    groups = {group.key: group for group in second.groups}
    pairs = [(group, groups[group.key]) for group in first.groups if group.key in groups]
    pairs = [pair for pair in pairs if min(group.count for group in pair) >= _LEAST]
    if not pairs:
        raise DataError(f"no group of levels has {_LEAST} weights in both arrays: there is nothing to compare")
    differences = tuple(_difference(*pair, len(pairs)) for pair in pairs)
    left_out = len({group.key for group in (*first.groups, *second.groups)}) - len(pairs)
    return Comparison(differences=differences, left_out=left_out, **_values(first, second))


def _check_pair(measured: ArrayStatistics, simulated: ArrayStatistics) -> None:
    for name, given in (("measured", measured), ("simulated", simulated)):
        if given.kind != name:
            raise DataError(f"{name} is of a {given.kind} array: give a measured one, then simulated ones")
    if measured.image != simulated.image:
        raise DataError("the two are of different images: they do not hold the same weights")
    same = measured.metric == simulated.metric and measured.samples == simulated.samples
    if measured.values and simulated.values and not same:
        raise DataError(
            f"one was scored by {measured.metric} on {measured.samples:,} samples, the other by {simulated.metric} on "
            f"{simulated.samples:,}: score both alike"
        )


def _difference(measured: Group, simulated: Group, groups: int) -> Difference:
    n, m = measured.count, simulated.count
    risk = (1 - CONFIDENCE) / groups  # Bonferroni
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


def raw_reads(
    protected: ProtectedModel, schemes: Mapping[Scheme, Scheme], *, seed: int, trials: int
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield the mean reads of the weights of simulated arrays, before an estimator.

    Parameters
    ----------
    protected : ProtectedModel
    schemes : mapping of Scheme to Scheme
        What each scheme is read with.
    seed, trials : int
    """
    readers = {
        tensor.key: Reader(tensor, schemes[tensor.scheme].changed(estimator="affine")) for tensor in protected.tensors
    }
    for trial in range(trials):
        yield {key: reader.read(seed=seed, trial=trial) for key, reader in readers.items()}
