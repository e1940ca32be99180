"""The result of an evaluation: a metric of the original model, of the stored one, and in each trial."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from onnx_analog.coding.limit import Limit
from onnx_analog.display import Shown, counted, data_frame, finite, percent_as_given, score
from onnx_analog.errors import OptionError
from onnx_analog.graph.correction import Cost, HasCorrection
from onnx_analog.run import metrics
from onnx_analog.run.statistics import interval, spread

MEAN_NOISE = "output SQNR, of the mean noise over trials"  # in tables


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation(HasCorrection, Shown):
    """A metric of the original model, of the stored one without noise, and in each trial.

    Attributes
    ----------
    metric : str
    samples : int
    original : float or None
        The original model, before pruning and protection; None where it is not known, and where the metric compares
        the original's outputs with themselves and so says nothing.
    stored : float or None
        The model as it is stored, read without noise; of a plain model with a reference, the model as it was given.
        None where nothing is stored, and where the metric compares its outputs with themselves.
    values : tuple of float
        One for each trial.
    sqnr_db : tuple of float
        Signal-to-noise ratio in each trial, in dB, of what the outputs that are measured have of floats; NaN for none.
    seed : int
    output : str or None
        Name of the output that is measured; None where a function of the user's is given all of them.
    class_axis : int or None
        Axis of that output along which the metric reads classes.
    share : bool
        Values lie in [0, 1].
    higher_is_better : bool or None
        None where it is not known.
    compares : bool
        The metric compares with the outputs of the original model or, where it is not known, of the stored one.
    at_least, at_most : float or None
        What the lower, or upper, end of the interval is to reach; without an interval, the mean; without trials, the
        value without noise.
    preprocessing : str
        How the inputs were made, in words.
    warnings : tuple of str
        What to doubt.
    model, channel : str or None
        Name of the model, and of the channel that its cells are read with.
    read_back : str or None
        What a model whose weights were read from noisy cells was read with, in words; `stored` is then its value.
    corrected_by : str or None
        What the trials were corrected with, in words; None without a correction.
    correction : Cost or None
        What the correction costs: `layers`, `numbers` (of 16 bits each, that the reader keeps) and `bits`.
    uncorrected_values, uncorrected_sqnr_db : tuple of float
        `values` and `sqnr_db` of the same reads without the correction; empty where there is none.
    limit : Limit or None
        The fewest cells that any code needs for the weights at the errors of their reads; None if it was not asked for.
    """

    metric: str
    samples: int
    values: tuple[float, ...]
    original: float | None = None
    stored: float | None = None
    sqnr_db: tuple[float, ...] = ()
    seed: int = 0
    output: str | None = None
    class_axis: int | None = None
    share: bool | None = None
    higher_is_better: bool | None = None
    compares: bool = False
    at_least: float | None = field(default=None, compare=False)
    at_most: float | None = field(default=None, compare=False)
    preprocessing: str = field(default="", compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    model: str | None = field(default=None, compare=False)
    channel: str | None = field(default=None, compare=False)
    read_back: str | None = field(default=None, compare=False)
    corrected_by: str | None = field(default=None, compare=False)
    correction: Cost | None = field(default=None, compare=False)
    uncorrected_values: tuple[float, ...] = ()
    uncorrected_sqnr_db: tuple[float, ...] = ()
    limit: Limit | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        known = metrics.METRICS.get(self.metric)
        for name in ("share", "higher_is_better"):
            if getattr(self, name) is None and known is not None:
                object.__setattr__(self, name, getattr(known, name))

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which numbers every value lies."""
        known = metrics.METRICS.get(self.metric)
        return (0.0, 1.0) if self.share else (-math.inf, math.inf) if known is None else known.bounds

    @property
    def mean(self) -> float | None:
        """Mean over trials; None without trials."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over trials, ddof = 1; None for fewer than two."""
        with np.errstate(invalid="ignore"):  # of values that are infinite it is not a number
            return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval of the mean over trials; see `interval`. The error of a finite test set is not in it."""
        return interval(self.values, bounds=self.bounds)

    @property
    def baseline(self) -> float | None:
        """The value that loss is counted from: the original's or, where it is not known, the stored model's.

        None where the metric compares with one of the two, and is no share.
        """
        if self.compares and not self.share:
            return None
        return self.stored if self.original is None else self.original

    @property
    def knows_original(self) -> bool:
        """Whether the original is known, so that outputs and loss are compared with it."""
        if self.compares and not self.share:
            return self.stored is not None or not self.values
        return self.original is not None

    @property
    def stored_name(self) -> str:
        """What `stored` is the value of, in words."""
        return "stored model, without noise" if self.read_back is None else f"model as read ({self.read_back})"

    @property
    def noise_free(self) -> float | None:
        """The value of the model that was evaluated, read without noise; None where it compares with itself."""
        if self.compares and (self.stored is None or (self.share and self.original is None)):
            return None
        return self.original if self.stored is None else self.stored

    @property
    def sqnr_db_of_mean_noise(self) -> float | None:
        """SQNR of the outputs in dB, at the mean noise over trials; None where a trial has no SQNR.

        `check` and `tune` go by it, as noise adds up over trials. The mean of the trials' `sqnr_db`, which is the mean
        of the metric of that name, is this or more.
        """
        return metrics.mean_noise_db(self.values if self.metric == metrics.SQNR else self.sqnr_db)

    @property
    def drop(self) -> float | None:
        """The baseline minus the mean with noise, on the same samples; None without either.

        Of a model that was read back, whose noise is in its weights, the original minus that model.
        """
        if self.mean is not None:
            return None if self.baseline is None else self.baseline - self.mean
        if self.read_back is None or self.baseline is None or self.original is None or self.stored is None:
            return None
        return self.original - self.stored

    @property
    def drop_ci95(self) -> tuple[float, float] | None:
        """95 % interval of the drop over trials."""
        ends, baseline = self.ci95, self.baseline
        return None if ends is None or baseline is None else (baseline - ends[1], baseline - ends[0])

    @property
    def test_set_error(self) -> float | None:
        """Standard error √(p·(1 - p)/n) of a share p from the choice of the n samples; None for 0, 1 and no share.

        None also for a metric of the user's: it may be a share of something else than samples.
        """
        value = self.noise_free if self.mean is None else self.mean
        if self.metric not in metrics.METRICS or not self.share or value is None or not 0 < value < 1:
            return None
        return math.sqrt(value * (1 - value) / self.samples)

    @property
    def uncorrected(self) -> Evaluation | None:
        """The evaluation of the same reads without the correction; None where there is none."""
        if not self.uncorrected_values:
            return None
        return replace(
            self, values=self.uncorrected_values, sqnr_db=self.uncorrected_sqnr_db, corrected_by=None, correction=None,
            uncorrected_values=(), uncorrected_sqnr_db=(),
        )  # fmt: skip

    @property
    def change(self) -> float | None:
        """The mean with correction minus that without, over the same reads; None where there is none."""
        changes = self._changes
        return float(np.mean(changes)) if changes else None

    @property
    def change_ci95(self) -> tuple[float, float] | None:
        """95 % interval of the change: of the differences between values of one read."""
        return interval(self._changes, bounds=(-1.0, 1.0) if self.share else None)

    @property
    def _changes(self) -> list[float]:
        return [value - without for value, without in zip(self.values, self.uncorrected_values, strict=False)]

    @property
    def holds(self) -> bool | None:
        """Whether the value is as high or as low as was asked; None if nothing was."""
        return None if self.at_least is None and self.at_most is None else not self._failures()

    @property
    def verdict(self) -> str | None:
        """Say whether the value is as high or as low as was asked; None if nothing was."""
        if self.at_least is None and self.at_most is None:
            return None
        failures = self._failures()
        goals = [f"at least {self._plain(self.at_least)}"] if self.at_least is not None else []
        goals += [f"at most {self._plain(self.at_most)}"] if self.at_most is not None else []
        return "; ".join(failures) if failures else f"{self.metric} is {' and '.join(goals)}"

    def _failures(self) -> list[str]:
        failures = []
        for limit, end, name in ((self.at_least, 0, "lower"), (self.at_most, 1, "upper")):
            if limit is None:
                continue
            reached, what = self._reached(end, name)
            if reached is None:
                failures.append(f"{self.metric} compares the outputs with themselves: without trials there is no value")
            elif math.isnan(reached):
                failures.append(f"{what} is not a number, so it cannot be compared with {self._plain(limit)}")
            elif not (reached >= limit if end == 0 else reached <= limit):
                side = "below" if end == 0 else "above"
                failures.append(f"{what} is {self._plain(round(reached, 6))}, {side} {self._plain(limit)}")
        return failures

    def _plain(self, value: float) -> str:
        """Return a value with all its digits, and without a trailing .0: 60 for 60.0; a share in per cent."""
        return percent_as_given(value) if self.share else str(float(value)).removesuffix(".0")

    def _reached(self, end: int, name: str) -> tuple[float | None, str]:
        if self.ci95 is not None:
            return self.ci95[end], f"the {name} end of the 95 % interval of {self.metric}"
        if self.mean is not None:
            return self.mean, f"{self.metric}, mean of {len(self.values)} trial{'s' * (len(self.values) > 1)},"
        return self.noise_free, self.metric

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation, ready for JSON; numbers that JSON does not have are null."""
        return {
            "metric": self.metric,
            "output": self.output,
            "class_axis": self.class_axis,
            "share": bool(self.share),
            "higher_is_better": self.higher_is_better,
            "samples": self.samples,
            "original": finite(self.original),
            "stored": finite(self.stored),
            "trials": len(self.values),
            "mean": finite(self.mean),
            "std": finite(self.std),
            "ci95": ends_of(self.ci95),
            "drop": finite(self.drop),
            "drop_ci95": ends_of(self.drop_ci95),
            "test_set_error": self.test_set_error,
            "values": [finite(value) for value in self.values],
            "sqnr_db": [finite(value) for value in self.sqnr_db],
            "sqnr_db_of_mean_noise": finite(self.sqnr_db_of_mean_noise),
            "seed": self.seed,
            "model": self.model,
            "channel": self.channel,
            "read_back": self.read_back,
            "preprocessing": self.preprocessing,
            "version": version("onnx-analog"),
            "at_least": self.at_least,
            "at_most": self.at_most,
            "holds": self.holds,
            "verdict": self.verdict,
            "warnings": list(self.warnings),
            **self._correction(),
            **({} if self.limit is None else {"limit": self.limit.to_dict()}),
        }

    def _correction(self) -> dict[str, Any]:
        """Return what a correction changed, ready for JSON; nothing without one."""
        without = self.uncorrected
        if without is None:
            return {}
        numbers = {
            "mean": finite(without.mean),
            "std": finite(without.std),
            "ci95": ends_of(without.ci95),
            "drop": finite(without.drop),
            "drop_ci95": ends_of(without.drop_ci95),
            "values": [finite(value) for value in without.values],
            "sqnr_db": [finite(value) for value in without.sqnr_db],
            "sqnr_db_of_mean_noise": finite(without.sqnr_db_of_mean_noise),
        }
        cost = {} if self.correction is None else self.correction.to_dict()
        change = {"change": finite(self.change), "change_ci95": ends_of(self.change_ci95)}
        return {"correction": {"by": self.corrected_by, **cost, **change}, "uncorrected": numbers}

    def to_dataframe(self) -> Any:
        """Return the trials as a pandas DataFrame, one row each."""
        ratios = self.sqnr_db or (math.nan,) * len(self.values)  # not measured
        columns = {"value": self.values, "sqnr_db": ratios}
        if self.uncorrected_values:
            columns |= {"uncorrected": self.uncorrected_values, "uncorrected_sqnr_db": self.uncorrected_sqnr_db}
        rows = zip(*columns.values(), strict=True)
        return data_frame({"trial": trial, **dict(zip(columns, row, strict=True))} for trial, row in enumerate(rows))

    def _lines(self) -> list[tuple[str, str]]:
        numbers = {"original model": self.original, self.stored_name: self.stored, "with noise, mean": self.mean}
        rows = [("metric", self.title)]
        rows += [(name, self.shown(value)) for name, value in numbers.items() if value is not None]
        without = self.uncorrected
        if without is not None and without.mean is not None:
            rows += [("without correction, mean", self.shown(without.mean)), ("corrected", str(self.corrected))]
        return [*rows, ("trials", self.spread(self.ci95))]

    def __str__(self) -> str:
        return self.summary(self.ci95)

    @property
    def title(self) -> str:
        """Say what is measured: metric, output, axis of classes, number of samples."""
        parts = [] if self.output is None else [f"output {self.output!r}"]
        parts += [] if self.class_axis is None else [f"class axis {self.class_axis}"]
        return f"{self.heading}{' (' * bool(parts)}{', '.join(parts)}{')' * bool(parts)}"

    @property
    def mean_name(self) -> str:
        """What `mean` is, in words."""
        corrected = "" if self.corrected_by is None else " and correction"
        each = metrics.each_in_db(self.metric)
        return f"with noise{corrected}, mean of {counted(len(self.values), 'trial')}{each}"

    @property
    def heading(self) -> str:
        """Say what is measured: metric and number of samples."""
        return f"{self.metric} on {self.samples:,} sample{'s' * (self.samples > 1)}"

    def summary(self, ci95: tuple[float, float] | None) -> str:
        """Return the evaluation as one line, with this 95 % interval."""
        parts = [] if self.original is None else [f"original {self.shown(self.original)}"]
        stored = "stored" if self.read_back is None else "as read"
        parts += [] if self.stored is None else [f"{stored} {self.shown(self.stored)}"]
        if self.mean is not None:
            noise = "with noise" if self.corrected_by is None else "with noise and correction"
            parts.append(f"{noise} {self.shown(self.mean)} ({self.spread(ci95)})")
        without = self.uncorrected
        if without is not None and without.mean is not None:
            parts.append(f"without correction {self.shown(without.mean)} ({without.spread(without.ci95)})")
        return f"{self.title}: {', '.join(parts)}"

    def spread(self, ci95: tuple[float, float] | None) -> str:
        """Return what is known of the error of the mean over trials."""
        return spread(self.values, ci95, share=self.share)

    def shown(self, value: float) -> str:
        """Return a value of the metric as it is printed: a share in per cent."""
        return score(value, share=self.share)


def ends_of(ends: tuple[float, float] | None) -> list[float] | None:
    """Return the ends of an interval, ready for JSON; None if there is none, or an end is no number."""
    return list(ends) if ends is not None and all(map(math.isfinite, ends)) else None


def check_limits(metric: metrics.Metric, at_least: float | None, at_most: float | None) -> None:
    """Raise `OptionError` unless `at_least` and `at_most` can be asked of a metric."""
    for name, limit in (("at_least", at_least), ("at_most", at_most)):
        if limit is not None and not (_is_number(limit) and math.isfinite(limit)):
            raise OptionError(f"{name} is {limit!r}; it must be a finite number")
        if limit is not None and metric.share and not 0 <= limit <= 1:
            raise OptionError(f"{name} is {limit:g}, and {metric.name} is a share from 0 to 1: 0.9 is 90 %")
    if at_least is not None and metric.higher_is_better is False:
        raise OptionError(f"lower is better for {metric.name}: ask for at_most")
    if at_most is not None and metric.higher_is_better is True:
        raise OptionError(f"higher is better for {metric.name}: ask for at_least")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
