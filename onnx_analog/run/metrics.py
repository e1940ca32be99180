"""What a network's outputs are worth: metrics that know what they measure.

A metric is a function of the outputs of a network, of `labels` or None, and of the `clean` outputs, those of the same
model without noise; it returns one number. `METRICS` lists those of this package. Each of them measures one output, and
reads classes along one axis. `choose` finds output, metric and axis from types, shapes and labels; where these do not
tell, it asks.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import AnalogError, DataError, OptionError, one_line, whole

Array = NDArray[Any]
Output = Any  # an array; of a map, a sequence or what has other shapes in each call, a list
Outputs = Sequence[Output]
Function = Callable[..., float]
Named = tuple[str, Function]

_TOP = 5
_WHOLE = "biuOUS"  # kinds of numpy types that are the same or not: whole numbers, booleans, text


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

    Called as a metric is, with the outputs that `places` names, in their order.

    Attributes
    ----------
    metric : Metric
    output : str or None
        Name of the output; None where a function of the user's is given all of them.
    places : tuple of int or None
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
    places: tuple[int, ...] | None = None
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
        if not _is_own(self.metric):
            return _users_value(self.metric, outputs, given, clean)
        more = {"class_axis": self.axis} if self.metric.by_class else {}
        return float(self.metric.function(outputs, labels=given, clean=clean, **more))

    @property
    def compares(self) -> bool:
        """Whether it compares with the outputs without noise, so that these alone have no value."""
        return not self.labelled


def places_of(metric: Function) -> tuple[int, ...] | None:
    """Return the numbers of the outputs that a metric reads; None if it reads all."""
    return metric.places if isinstance(metric, Chosen) else None


def _is_own(metric: Metric) -> bool:
    return METRICS.get(metric.name) is metric


def _users_value(metric: Metric, outputs: Outputs, labels: Array | None, clean: Outputs) -> float:
    """Return what a function of the user's says; it can change none of the arrays, which are used again."""
    labels, *_ = _read_only([labels])
    before = _read_only(clean)
    after = before if outputs is clean else _read_only(outputs)  # without noise they are one, as a function may ask
    try:
        found: Any = metric.function(after, labels=labels, clean=before)
    except (AnalogError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # whatever it raises
        raise DataError(
            f"the metric {metric.name!r} failed with {type(error).__name__}: {error}. --debug shows where"
        ) from error
    try:
        if isinstance(found, bytes | str) or np.ndim(found):
            raise TypeError("no number")
        value = float(found)
    except (TypeError, ValueError, OverflowError) as error:
        text = one_line(repr(found), 80)
        raise DataError(f"the metric {metric.name!r} must return one number, and it returned {text}") from error
    if metric.share and not (0 <= value <= 1 or math.isnan(value)):
        raise DataError(f"the metric {metric.name!r} is a share, from 0 to 1, and it returned {value:g}")
    return value


def _read_only(outputs: Sequence[Any]) -> list[Any]:
    found = [one.view() if isinstance(one, np.ndarray) else one for one in outputs]
    for one in found:
        if isinstance(one, np.ndarray):
            one.flags.writeable = False
    return found


# -------------------------------------------------------------------------------------------------- by classes


def top1(outputs: Outputs, *, labels: Array | None, clean: Outputs, class_axis: int | None = None) -> float:  # noqa: ARG001 - a metric's form
    """Return the share of labels whose class has the largest score; NaN is never right.

    Parameters
    ----------
    outputs : the first is an array of scores (n, ..., classes, ...), or a list of n maps of class to score
    labels : whole numbers, of the shape of the scores without the axis of classes; or one-hot, of their shape
        Of maps: keys.
    class_axis : int, optional
        By default the only axis for which labels and scores fit.

    Raises
    ------
    DataError
        If labels and scores do not fit, or fit in several ways.

    Examples
    --------
    >>> top1([np.array([[0.1, 0.9], [0.8, 0.2]])], labels=np.array([1, 1]), clean=[])
    0.5
    """
    scores, truth = _labelled_scores(outputs[0], labels, class_axis)
    return float(np.mean((scores.argmax(axis=1) == truth) & ~_has_nan(scores)))


def top5(outputs: Outputs, *, labels: Array | None, clean: Outputs, class_axis: int | None = None) -> float:  # noqa: ARG001 - likewise
    """Return the share of labels whose class is among the five of the largest score; as `top1` otherwise."""
    scores, truth = _labelled_scores(outputs[0], labels, class_axis)
    if scores.shape[1] <= _TOP:
        raise DataError(f"top5 of {scores.shape[1]} classes is always right: name top1 with --metric")
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :_TOP]  # of equal scores the first
    return float(np.mean((best == truth[:, None]).any(axis=1) & ~_has_nan(scores)))


def agreement(outputs: Outputs, *, labels: Array | None, clean: Outputs, class_axis: int | None = None) -> float:  # noqa: ARG001 - likewise
    """Return the share of places whose largest scores are of the same classes as without noise; NaN is never the same.

    Where several classes share the largest score, all of them must be the same. Where all places agree although noise
    changes the scores by more than themselves (SQNR below 0 dB), as where one class always wins, agreement says nothing
    about the scores: it is NaN.

    Parameters
    ----------
    class_axis : int, optional
        By default the only axis with more than one entry, the first not counted.

    Raises
    ------
    DataError
        If the axis of classes is not known or has one entry, or noise changes the shape of the output.
    """
    found, before = _array_of(outputs[0]), _array_of(clean[0])
    if found.shape != before.shape:
        raise DataError(
            f"noise changed the output's shape from {before.shape} to {found.shape}: name a metric of your own "
            "with --metric"
        )
    axis = _only_axis(found.shape) if class_axis is None else class_axis
    if found.shape[axis] < 2:
        raise DataError(f"axis {axis} of scores of shape {found.shape} has {found.shape[axis]} entry: no classes")
    if not found.size:
        raise DataError(f"the output has shape {found.shape}, which holds no scores")
    winners, others = (array == array.max(axis=axis, keepdims=True) for array in (found, before))
    same = (winners == others).all(axis=axis) & ~_has_nan(found, axis) & ~_has_nan(before, axis)
    value = float(np.mean(same))
    return math.nan if value == 1 and sqnr_db([found], clean=[before]) < 0 else value


def _has_nan(scores: Array, axis: int = 1) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.any(scores != scores, axis=axis)
    return found


def _only_axis(shape: Sequence[int]) -> int:
    """Return the only axis with more than one entry, the first not counted."""
    found = [axis for axis, side in enumerate(shape) if axis and side > 1]
    if len(found) != 1:
        raise DataError(f"which axis of scores of shape {tuple(shape)} holds the classes? Name it with --class-axis")
    return found[0]


def _labelled_scores(output: Output, labels: Array | None, axis: int | None) -> tuple[Array, Array]:
    """Return scores (places, classes), and for each place the class that is right."""
    if labels is None:
        raise DataError("the metric needs a label for each sample: an array y in the data")
    if _are_maps(output):
        names = list(output[0])
        scores, labels, axis = _array_of(output), _places(labels, names), 1
    else:
        scores, labels = _array_of(output), _whole(labels)
        if labels.shape == scores.shape and _is_one_hot(labels, 1 if axis is None else axis):
            axis = 1 if axis is None else axis
            labels = labels.argmax(axis=axis)
        axis = labelled_axis(scores.shape, labels) if axis is None else axis
    classes = scores.shape[axis]
    if axis == 0 or classes < 2 or _sides(scores.shape, axis) != _sides(labels.shape):
        raise DataError(
            f"scores of shape {scores.shape} have {classes} classes, and labels of shape {labels.shape} do not fit "
            "them: give a label for each sample, or for each place"
        )
    if not labels.size:
        raise DataError(f"labels of shape {labels.shape} hold no label")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}; for the model's {classes} classes they must be from 0 "
            f"to {classes - 1}"
        )
    return np.moveaxis(scores, axis, -1).reshape(-1, classes), labels.reshape(-1)


def labelled_axis(shape: Sequence[int], labels: Array) -> int:
    """Return the axis of classes of scores of `shape`: the only one without which the labels have the same shape.

    Sides of one entry do not count.

    Raises
    ------
    DataError
        If there is none, or more than one.

    Examples
    --------
    >>> labelled_axis((8, 21, 5, 7), np.zeros((8, 5, 7), int))
    1
    """
    axes = range(1, len(shape))
    found = [axis for axis in axes if shape[axis] > 1 and _sides(shape, axis) == _sides(labels.shape)]
    if len(found) > 1:
        raise DataError(
            f"scores of shape {tuple(shape)} and labels of shape {labels.shape} leave open which axis holds the "
            f"classes, {' or '.join(map(str, found))}: name it with --class-axis"
        )
    if not found:
        raise DataError(
            f"labels of shape {labels.shape} do not fit scores of shape {tuple(shape)}: a label for each sample, or "
            "each place, is needed. Name another output with --output, or another metric with --metric."
        )
    return found[0]


def _sides(shape: Sequence[int], without: int | None = None) -> list[int]:
    """Return the sides that count: the first, and those of more than one entry."""
    return [side for axis, side in enumerate(shape) if axis != without and (axis == 0 or side > 1)]


def _whole(labels: Array) -> Array:
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise DataError("labels hold NaN or infinity")
        labels = labels.astype(np.float64)
        if (labels == np.floor(labels)).all() and np.abs(labels).max(initial=0) < 2**53:
            labels = labels.astype(np.int64)
    if labels.dtype.kind not in "biu":
        raise DataError(
            f"labels of classes must be whole numbers, and those of the data are {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def _is_one_hot(labels: Array, axis: int = 1) -> bool:
    return axis < labels.ndim and bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=axis) == 1).all())


def _are_maps(output: Output) -> bool:
    return isinstance(output, list) and bool(output) and all(isinstance(one, dict) for one in output)


def _places(labels: Array, names: Sequence[Any]) -> NDArray[np.int64]:
    """Return which of the keys of a map each label is."""
    if labels.dtype.kind not in "biuOUS" or not (labels.ndim == 1 or _sides(labels.shape)[1:] == []):
        raise DataError(f"the model's maps take a label for each sample, not {labels.dtype} of shape {labels.shape}")
    places = {name: place for place, name in enumerate(names)}
    given = [_text(label) for label in labels.reshape(-1).tolist()]
    unknown = [label for label in given if label not in places]
    if unknown:
        raise DataError(f"label {unknown[0]!r} is no class of the model: it has {', '.join(map(repr, names))}")
    return np.array([places[label] for label in given], np.int64)


def _text(label: Any) -> Any:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else label


def _array_of(output: Output) -> Array:
    """Return scores as an array: of n maps, (n, keys)."""
    if isinstance(output, np.ndarray):
        if output.dtype.kind in "OUS":
            raise DataError("the output is text, which has no scores: name exact_match with --metric")
        return output
    if _are_maps(output):
        names = list(output[0])
        if any(set(one) != set(names) for one in output):
            raise DataError("the model's maps have other keys from sample to sample: name a metric of your own")
        return np.array([[one[name] for name in names] for one in output])
    raise DataError(
        "the output is a sequence, or has no axis of samples: name another with --output, or sqnr_db with --metric"
    )


# ------------------------------------------------------------------------------------------------ value by value


def exact_match(outputs: Outputs, *, labels: Array | None, clean: Outputs) -> float:
    """Return the share of values that equal their label or, where labels are None, what they are without noise.

    For whole numbers, booleans and text, as class maps, token ids and names. NaN equals nothing.

    Raises
    ------
    DataError
        If labels or the outputs without noise have another shape.
    """
    found = list(_parts(outputs[0]))
    if labels is not None:
        if len(found) != 1 or _sides(found[0].shape) != _sides(labels.shape):
            shapes = ", ".join(str(one.shape) for one in found[:3])
            raise DataError(f"labels of shape {labels.shape} do not fit the output of shape {shapes}")
        expected = [labels.reshape(found[0].shape)]
    else:
        expected = list(_parts(clean[0]))
    if [one.shape for one in found] != [one.shape for one in expected]:
        raise DataError("noise changed the output's shape: name a metric of your own with --metric")
    same = [_equal(one, other) for one, other in zip(found, expected, strict=True)]
    total = sum(one.size for one in same)
    return sum(int(one.sum()) for one in same) / total if total else math.nan


def _equal(one: Array, other: Array) -> Array:
    if (one.dtype.kind in "OUS") != (other.dtype.kind in "OUS"):
        raise DataError(f"values of type {one.dtype} are compared with {other.dtype}: text and numbers are never equal")
    if one.dtype.kind in "OUS":
        pairs = zip(one.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True)
        return np.array([_text(a) == _text(b) for a, b in pairs], np.bool_)
    return np.asarray(one == other)


def sqnr_db(outputs: Outputs, *, labels: Array | None = None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return the signal-to-noise ratio of the numbers in the outputs in dB: 10·log10(Σ clean² / Σ (output - clean)²).

    What is the same infinity or NaN with and without noise does not count. NaN where a shape differs from that without
    noise, and where there are no numbers.

    Examples
    --------
    >>> round(sqnr_db([np.array([1.1, 0.0])], clean=[np.array([1.0, 0.0])]), 6)
    20.0
    """
    signal, noise = _powers(outputs, clean)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.float64(signal) / np.float64(noise)))


def output_sqnr_db(outputs: Outputs, clean: Outputs) -> float:
    """Return the SQNR in dB of what outputs have of floats, as `sqnr_db` does; NaN where they have none."""
    found, before = ([part for part in _parts(list(one)) if part.dtype.kind not in _WHOLE] for one in (outputs, clean))
    ratio = sqnr_db(found, clean=before)
    return math.nan if math.isnan(ratio) else ratio  # one NaN for all, so that equal evaluations are equal


def nan_share(outputs: Outputs) -> float:
    """Return the share of the floats in outputs that are NaN."""
    found = [part.astype(np.float64) for part in _parts(list(outputs)) if part.dtype.kind not in _WHOLE]
    total = sum(part.size for part in found)
    return sum(int(np.isnan(part).sum()) for part in found) / total if total else 0.0


def relative_error(outputs: Outputs, *, labels: Array | None = None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return √(Σ (output - clean)² / Σ clean²): 0.1 is an SQNR of 20 dB.

    Examples
    --------
    >>> round(relative_error([np.array([1.1, 0.0])], clean=[np.array([1.0, 0.0])]), 6)
    0.1
    """
    signal, noise = _powers(outputs, clean)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.float64(noise) / np.float64(signal)))


def _powers(outputs: Outputs, clean: Outputs) -> tuple[float, float]:
    """Return the sums of squares of signal and noise; NaN where the outputs cannot be compared."""
    pairs = list(zip(_parts(list(outputs)), _parts(list(clean)), strict=False))
    same = [one.shape for one in _parts(list(outputs))] == [one.shape for one in _parts(list(clean))]
    numbers = [(one, other) for one, other in pairs if one.dtype.kind not in "OUS" and other.dtype.kind not in "OUS"]
    if not same or not numbers:
        return math.nan, math.nan
    signal = noise = 0.0
    for one, other in numbers:
        found, before = one.astype(np.float64), other.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.where((found == before) | (np.isnan(found) & np.isnan(before)), 0, found - before)
            noise += float(np.square(np.where(np.isnan(off), np.inf, off)).sum())
            signal += float(np.square(before[np.isfinite(before)]).sum())
    return signal, noise


def _parts(output: Output) -> Iterator[Array]:
    """Yield the arrays that an output, or several, are made of."""
    if isinstance(output, np.ndarray):
        yield output
    elif isinstance(output, dict):
        yield np.array(list(output.values()))
    elif isinstance(output, list | tuple):
        if output and not isinstance(output[0], np.ndarray | dict | list | tuple) and output[0] is not None:
            yield np.array(output, object if isinstance(output[0], str | bytes) else None)
        else:
            for one in output:
                yield from _parts(one)
    elif output is not None:
        yield np.asarray(output)


def mse(outputs: Outputs, *, labels: Array | None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return the mean of (output - label)².

    Examples
    --------
    >>> mse([np.array([1.0, 3.0])], labels=np.array([1.0, 1.0]), clean=[])
    2.0
    """
    found, truth = _with_numbers(outputs[0], labels)
    return float(np.square(found - truth).mean())


def r2(outputs: Outputs, *, labels: Array | None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return the coefficient of determination 1 - Σ (output - label)² / Σ (label - mean)², averaged over columns.

    Raises
    ------
    DataError
        If the labels of a column are all the same: it is not defined then.
    """
    found, truth = _with_numbers(outputs[0], labels)
    total = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    if not (total > 0).all():
        raise DataError("r2 is not defined for labels that are all the same: name mse with --metric")
    return float(np.mean(1 - np.square(found - truth).sum(axis=0) / total))


def _with_numbers(output: Output, labels: Array | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return outputs and labels (n, columns) as numbers."""
    found = _array_of(output)
    if labels is None:
        raise DataError("the metric needs a label for each value: an array y in the data")
    if labels.dtype.kind not in "biuf":
        raise DataError(f"labels are numbers, not {labels.dtype}")
    if not np.isfinite(labels).all():
        raise DataError("labels hold NaN or infinity, and the metric takes finite numbers")
    if _sides(found.shape) != _sides(labels.shape):
        raise DataError(f"labels of shape {labels.shape} do not fit outputs of shape {found.shape}")
    rows = len(found)
    return found.reshape(rows, -1).astype(np.float64), labels.reshape(rows, -1).astype(np.float64)


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
        Metric("r2", r2, "R²", higher_is_better=True, high=1.0, labelled=True),
    )
}  # fmt: skip
NAMES = tuple(METRICS)


# ------------------------------------------------------------------------------------------------------- choice


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
        raise OptionError(f"the metric {name!r} says lower_is_better and higher_is_better: leave one of them out")
    up = bool(higher) if higher is not None else None if lower is None else not lower
    if name in METRICS:  # what stands in tables and files is not to be taken for the metric of this package
        name = f"{getattr(function, '__module__', 'own')}:{name}"
    return Metric(name, function, name, share=bool(getattr(function, "share", False)), higher_is_better=up)


def choose(
    fields: Sequence[Field],
    fetch: Callable[[int], Output],
    labels: Array | None,
    *,
    samples: int,
    named: Named | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    one_by_one: bool = False,
    dynamic: frozenset[str] = frozenset(),
) -> Chosen:
    """Return the metric that fits, the output that it measures, and the axis of its classes.

    That is the first output that fits labels and metric. Without a metric it is, with labels: `exact_match` for whole
    numbers, booleans and text of the labels' shape; `r2` where labels are numbers of the output's shape; `top1` for
    scores. Without labels: `exact_match` for whole numbers, booleans and text; `agreement` where the axis of classes is
    known; `sqnr_db` for all else.

    Parameters
    ----------
    fields : sequence of Field
        The outputs of the model.
    fetch : function
        Returns the output of that number without noise, for all samples.
    labels : array or None
    samples : int
    named : (name, function), optional
        The metric.
    output : str, optional
        Name of the output.
    class_axis : int, optional
        Axis of the model's output that holds the classes; from the end where it is negative.
    one_by_one : bool
        Samples are fed one by one, so that arrays of all samples have one axis more, in front.
    dynamic : set of str
        Names of those sides of the inputs that are not fixed: an output's side of such a name does not count classes.

    Raises
    ------
    OptionError
        If there is no such output or axis, or the metric takes no axis.
    DataError
        If no output fits.
    """
    names = [field.name for field in fields]
    if output is not None and output not in names:
        raise OptionError(f"the model has no output {output!r}: it has {', '.join(map(repr, names))}")
    class_axis = None if class_axis is None else whole("class_axis", class_axis)
    metric = None if named is None else described(named)
    if metric is not None and not _is_own(metric):
        if class_axis is not None:
            raise OptionError(f"--class-axis is of no use to {metric.name}, which reads the outputs as they are")
        return Chosen(metric, output, None if output is None else (names.index(output),))
    if metric is not None and class_axis is not None and not metric.by_class:
        raise OptionError(f"--class-axis is of no use to {metric.name}, which compares value by value")
    refusals: list[AnalogError] = []
    for place, field in _in_order(fields, metric):
        if output in (None, field.name):
            try:
                value = fetch(place)
                asked = _Asked(field, value, labels, samples, class_axis, int(one_by_one), dynamic)
                return asked.fitting(metric, place)
            except (DataError, OptionError) as error:
                refusals.append(error)
    raise refusals[0] if refusals else DataError("the model has no outputs")


def _in_order(fields: Sequence[Field], metric: Metric | None) -> list[tuple[int, Field]]:
    """Return outputs in the order in which they are tried: for `exact_match` floats come last."""
    places = list(enumerate(fields))
    if metric is METRICS["exact_match"]:
        places.sort(key=lambda one: "float" in one[1].type or "double" in one[1].type)
    return places


@dataclass(frozen=True)
class _Asked:
    """One output, and what is known of it."""

    field: Field
    value: Output
    labels: Array | None
    samples: int
    class_axis: int | None
    lead: int
    dynamic: frozenset[str]

    def fitting(self, metric: Metric | None, place: int) -> Chosen:
        metric = metric or self._default()
        labelled = self.labels is not None if metric.labelled is None else metric.labelled
        axis = self._axis(metric) if metric.by_class and isinstance(self.value, np.ndarray) else None
        classes = self._classes(metric, axis)
        shown = None if axis is None else axis - self.lead
        chosen = Chosen(metric, self.field.name, (place,), shown, axis, classes, labelled)
        chosen([self.value], labels=self.labels, clean=[self.value])  # raises what does not fit
        return chosen

    def _default(self) -> Metric:
        kinds = {one.dtype.kind for one in _parts(self.value)}
        whole = bool(kinds) and kinds <= set(_WHOLE)
        if self.labels is not None:
            return METRICS[self._with_labels(self.labels, whole=whole)]
        if self.class_axis is not None:
            return METRICS["agreement"]
        if whole:
            return METRICS["exact_match"]
        if isinstance(self.value, np.ndarray):
            known = self._scores_axis() is not None
        else:
            known = _are_maps(self.value) and len(self.value[0]) > 1
        return METRICS["agreement" if known else "sqnr_db"]

    def _with_labels(self, labels: Array, *, whole: bool) -> str:
        if not isinstance(self.value, np.ndarray) or self.class_axis is not None:
            return "top1"
        if _sides(self.value.shape) != _sides(labels.shape) or _is_one_hot_of(labels, self.value):
            return "top1"
        if whole and (labels.dtype.kind in "OUS") == (self.value.dtype.kind in "OUS"):
            return "exact_match"
        if not whole and labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all():
            return "r2"
        if not whole and labels.dtype.kind in "biuf":  # of two classes, labels are often 0.0 and 1.0
            raise DataError(
                f"output {self.field.name!r} has one number for each label, which may be a score or a quantity: name "
                "the metric with --metric (r2, mse, or a function of your own)"
            )
        return "top1"

    def _axis(self, metric: Metric) -> int:
        """Return the axis of classes, of the array of all samples."""
        shape = self.value.shape
        if self.value.dtype.kind in "bOUS" or (self.value.dtype.kind in "iu" and self.value.dtype.itemsize == 8):
            raise DataError(
                f"output {self.field.name!r} holds {self.value.dtype}, and no scores: name exact_match with --metric, "
                "or another output with --output"
            )
        if self.class_axis is not None:
            sides = len(shape) - self.lead
            if not -sides <= self.class_axis < sides:
                raise OptionError(f"output {self.field.name!r} has {sides} axes, and --class-axis is {self.class_axis}")
            axis = int(self.class_axis % sides + self.lead)
            samples = self._declared(axis) in self.dynamic or (axis == 0 and shape[0] == self.samples)
            if shape[axis] < 2 or samples:
                what = "samples or places" if shape[axis] > 1 else "one entry"
                raise DataError(f"axis {axis - self.lead} of output {self.field.name!r} holds {what}, and no classes")
            return axis
        if metric.labelled:
            if self.labels is None:
                raise DataError(f"{metric.name} needs a label for each sample: an array y in the data")
            labels = _whole(self.labels)
            return 1 if _is_one_hot_of(labels, self.value) else labelled_axis(shape, labels)
        found = self._scores_axis()
        if found is None:
            raise DataError(
                f"which axis of output {self.field.name!r}, of shape {shape[self.lead :]}, holds the classes? Name it "
                "with --class-axis, or another metric with --metric (sqnr_db, relative_error)"
            )
        return found

    def _scores_axis(self) -> int | None:
        """Return the axis of classes where shapes leave one: the number of classes is fixed, lengths often are not."""
        shape: tuple[int, ...] = self.value.shape
        if not shape or shape[0] != self.samples or self.value.dtype.kind in "OUS":
            return None
        if self.value.dtype.kind in "biu" and self.value.dtype.itemsize > 1:  # of ids; scores may be quantised to bytes
            return None
        axes = [axis for axis, side in enumerate(shape) if axis and side > 1]
        fixed = [axis for axis in axes if isinstance(self._declared(axis), int)]
        if len(axes) == 1:
            return None if self._declared(axes[0]) in self.dynamic else axes[0]
        return fixed[0] if len(axes) == 2 and len(fixed) == 1 else None

    def _declared(self, axis: int) -> int | str | None:
        declared = self.field.shape
        if declared is None or len(declared) != self.value.ndim - self.lead or axis < self.lead:
            return None
        return declared[axis - self.lead]

    def _classes(self, metric: Metric, axis: int | None) -> int | None:
        if axis is not None:
            return int(self.value.shape[axis])
        return len(self.value[0]) if metric.by_class and _are_maps(self.value) else None


def _is_one_hot_of(labels: Array, scores: Array) -> bool:
    return labels.shape == scores.shape and labels.ndim == 2 and labels.dtype.kind in "biuf" and _is_one_hot(labels)


def source_digest(metric: Function) -> str | None:
    """Return the SHA-256 of a metric's source text, as hex, so that another of the same name is told from it.

    None for those of this module, and where there is no text, as for what was typed in. Functions that it calls are
    not looked at.
    """
    function = metric.metric.function if isinstance(metric, Chosen) else metric
    if getattr(function, "__module__", None) == __name__:
        return None
    try:
        text = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
