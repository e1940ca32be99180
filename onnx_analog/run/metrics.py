"""What a network's outputs are worth: metrics that know what they measure.

A metric is a function of the outputs of a network, of `labels` or None, and of the `clean` outputs, those of the same
model without noise; it returns one number. `METRICS` lists those of this package. Each of them measures one output, and
reads classes along one axis; `onnx_analog.run.choice` finds which.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from onnx_analog.errors import AnalogError, DataError, FunctionError, OptionError, located, one_line
from onnx_analog.run._outputs import Array as Array
from onnx_analog.run._outputs import Output as Output
from onnx_analog.run._outputs import Outputs as Outputs
from onnx_analog.run._values import agreement as agreement
from onnx_analog.run._values import exact_match as exact_match
from onnx_analog.run._values import mean_noise_db as mean_noise_db
from onnx_analog.run._values import mse as mse
from onnx_analog.run._values import nan_share as nan_share
from onnx_analog.run._values import output_sqnr_db as output_sqnr_db
from onnx_analog.run._values import perplexity as perplexity
from onnx_analog.run._values import r2 as r2
from onnx_analog.run._values import relative_error as relative_error
from onnx_analog.run._values import sqnr_db as sqnr_db
from onnx_analog.run._values import token_accuracy as token_accuracy
from onnx_analog.run._values import top1 as top1
from onnx_analog.run._values import top5 as top5

Function = Callable[..., float]
Named = tuple[str, Function]


@dataclass(frozen=True)
class Metric:
    """A metric, and how its numbers are read.

    Parameters
    ----------
    name : str
    function : function
        f(outputs, *, labels, clean) -> float; with `by_class`, class_axis= too.
    label : str
        What tables and axes call it.
    share : bool
        Its values lie in [0, 1], and are shown in %.
    higher_is_better : bool or None
        None where it is not known, as of a function of the user's that does not say.
    unit : str
        Of its values: "dB", or empty.
    low, high : float
        Between which its values lie by their nature; those of a share between 0 and 1.
    by_class : bool
        It looks for the largest score along an axis of classes.
    labelled : bool or None
        It compares with labels (True), or with the outputs without noise (False). None: with labels if there are any.
    """

    name: str
    function: Function
    label: str = ""
    share: bool = False
    higher_is_better: bool | None = None
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    by_class: bool = False
    labelled: bool | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which numbers every value lies."""
        return (0.0, 1.0) if self.share else (self.low, self.high)


class Field(NamedTuple):
    """One output of a model, as the model declares it."""

    name: str
    type: str = "tensor(float)"  # as onnxruntime says it
    shape: tuple[int | str | None, ...] | None = None  # a number where the side is fixed; None where nothing is known


@dataclass(frozen=True)
class Chosen:
    """A metric, and what it measures.

    Called as a metric is, with the outputs that `indices` names, in their order.

    Attributes
    ----------
    metric : Metric
    output : str or None
        Name of the output; None where a function of the user's is given all of them.
    indices : tuple of int or None
        Numbers of the outputs that it reads, among those of the model; None: all.
    class_axis : int or None
        Of the model's output.
    axis : int or None
        The same, of the array of all samples.
    classes : int or None
    labelled : bool
        It compares with the labels, and not with the outputs without noise.
    """

    metric: Metric
    output: str | None = None
    indices: tuple[int, ...] | None = None
    class_axis: int | None = None
    axis: int | None = None
    classes: int | None = None
    labelled: bool = True

    def __call__(self, outputs: Outputs, *, labels: Array | None, clean: Outputs) -> float:
        """Return the value.

        Raises
        ------
        DataError
            If a function of the user's raises, or returns no number, or a share beyond 0 and 1.
        """
        given = labels if self.labelled else None
        if not is_own(self.metric):
            return _users_value(self.metric, outputs, given, clean)
        more = {"class_axis": self.axis} if self.metric.by_class else {}
        return float(self.metric.function(outputs, labels=given, clean=clean, **more))

    @property
    def compares(self) -> bool:
        """Whether it compares with the outputs without noise, so that these alone have no value."""
        return not self.labelled


def indices_of(metric: Function) -> tuple[int, ...] | None:
    """Return the numbers of the outputs that a metric reads; None if it reads all."""
    return metric.indices if isinstance(metric, Chosen) else None


def is_own(metric: Metric) -> bool:
    """Return whether a metric is one of this package."""
    return METRICS.get(metric.name) is metric


_CALL = "It is called as f(outputs, labels=, clean=) -> number, where outputs is a list, with an entry for each output"
_MISUSED = (TypeError, AttributeError, IndexError, KeyError, ValueError)  # what a wrong idea of arguments leads to


def _how_called(error: BaseException) -> str:
    """Return how a function of the user's is called, if that may be why it failed."""
    return f". {_CALL}" if isinstance(error, _MISUSED) else ""


def _users_value(metric: Metric, outputs: Outputs, labels: Array | None, clean: Outputs) -> float:
    """Return what a function of the user's says; it can change none of the arrays, which are used again."""
    labels, *_ = _read_only([labels])
    before = _read_only(clean)
    after = before if outputs is clean else _read_only(outputs)  # without noise they are one, as a function may ask
    try:
        result: Any = metric.function(after, labels=labels, clean=before)
    except AnalogError as error:  # it names arguments of the function's calls, and none of ours
        raise located(error, f"the metric {metric.name!r}") from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # whatever it raises
        why = f"the metric {metric.name!r} failed with {type(error).__name__}: {error}"
        raise FunctionError(f"{why}{_how_called(error)}") from error
    try:
        if isinstance(result, bytes | str) or np.ndim(result):
            raise TypeError("no number")
        value = float(result)
    except (TypeError, ValueError, OverflowError) as error:
        text = one_line(repr(result), 80)
        raise DataError(
            f"the metric {metric.name!r} must return one number, and it returned {text}. {_CALL}"
        ) from error
    if metric.share and not (0 <= value <= 1 or math.isnan(value)):
        raise DataError(f"the metric {metric.name!r} is a share, from 0 to 1, and it returned {value:g}")
    return value


def _read_only(outputs: Sequence[Any]) -> list[Any]:
    views = [output.view() if isinstance(output, np.ndarray) else output for output in outputs]
    for view in views:
        if isinstance(view, np.ndarray):
            view.flags.writeable = False
    return views


METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1", top1, "accuracy", share=True, higher_is_better=True, by_class=True, labelled=True),
        Metric("top5", top5, "top-5 accuracy", share=True, higher_is_better=True, by_class=True, labelled=True),
        Metric(
            "agreement", agreement, "agreement with the noise-free model",
            share=True, higher_is_better=True, by_class=True, labelled=False,
        ),
        Metric("exact_match", exact_match, "exact match", share=True, higher_is_better=True),
        Metric("relative_error", relative_error, "relative error", higher_is_better=False, low=0.0, labelled=False),
        Metric("sqnr_db", sqnr_db, "output SQNR", higher_is_better=True, unit="dB", labelled=False),
        Metric("mse", mse, "mean squared error", higher_is_better=False, low=0.0, labelled=True),
        Metric(
            "token_accuracy", token_accuracy, "token accuracy",
            share=True, higher_is_better=True, by_class=True, labelled=True,
        ),
        Metric("perplexity", perplexity, "perplexity", higher_is_better=False, low=1.0, by_class=True, labelled=True),
        Metric("r2", r2, "R²", higher_is_better=True, high=1.0, labelled=True),
    )
}  # fmt: skip
NAMES = tuple(METRICS)
SQNR = "sqnr_db"
OTHER_NAMES = {"acc": "top1", "accuracy": "top1", "top_1": "top1", "top_5": "top5", "sqnr": "sqnr_db", "snr": "sqnr_db"}


@dataclass(frozen=True)
class LowerIsBetter:
    """A function of the user's of which lower values are better, as is said for it."""

    lower_is_better: ClassVar[bool] = True

    function: Function
    __name__: str

    @property
    def share(self) -> bool:
        """Whether its values are shares, as the function says."""
        return bool(getattr(self.function, "share", False))

    def __call__(self, outputs: Outputs, **others: Any) -> float:
        """Return its value."""
        return self.function(outputs, **others)


def described(named: Named) -> Metric:
    """Return the description of a metric.

    A function of the user's may say how it is read: by an attribute `share` = True that its values are shares, by
    `lower_is_better` or `higher_is_better` = True which way is up.
    """
    name, function = named
    own = next((metric for metric in METRICS.values() if metric.function is function), None)
    if own is not None:
        return own
    lower, higher = (getattr(function, f"{way}_is_better", None) for way in ("lower", "higher"))
    if lower and higher:
        raise OptionError(
            f"the metric {name!r} says both 'lower_is_better' and 'higher_is_better': leave one of them out"
        )
    up = bool(higher) if higher is not None else None if lower is None else not lower
    if name in METRICS:  # what stands in tables and files is not to be taken for the metric of this package
        name = f"{getattr(_as_given(function), '__module__', 'own')}:{name}"
    return Metric(name, function, name, share=bool(getattr(function, "share", False)), higher_is_better=up)


def _as_given(function: Function) -> Function:
    return function.function if isinstance(function, LowerIsBetter) else function


def each_in_db(metric: str) -> str:
    """Say, after "mean of 3 trials", that a mean is one of decibels; else nothing."""
    return ", each in dB" * (metric == SQNR)


def mean_note(metric: str) -> str:
    """Say what a mean over trials is the mean of where that is not what `check` and `tune` go by; else nothing."""
    if metric != SQNR:
        return ""
    return "Means and intervals are of the trials' ratios in dB; check and tune go by the ratio of the mean noise"


def code_digest(metric: Function) -> str | None:
    """Return the SHA-256 of a metric's source text, as hex, so that another of the same name is told from it.

    None for those of this package, and where there is no text, as for what was typed in. Functions that it calls are
    not looked at.
    """
    function = _as_given(metric.metric.function if isinstance(metric, Chosen) else metric)
    if any(own.function is function for own in METRICS.values()):
        return None
    try:
        text = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
