"""Chooses what is measured: the metric, the output that it reads and the axis of its classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_analog.errors import AnalogError, DataError, OptionError, require_int
from onnx_analog.run._outputs import (
    WHOLE,
    Array,
    Output,
    are_maps,
    is_one_hot_of,
    labelled_axis,
    parts_of,
    sides_of,
    whole_labels,
)
from onnx_analog.run.metrics import METRICS, Chosen, Field, Metric, Named, described, is_own


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
    scores_first: bool = False,
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
    scores_first : bool
        Without a metric, take `exact_match` only if no other output has another one: whole numbers do not tell how far
        they are off.

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
    class_axis = None if class_axis is None else require_int("class_axis", class_axis)
    metric = None if named is None else described(named)
    if metric is not None and not is_own(metric):
        if class_axis is not None:
            raise OptionError(f"class_axis is given, and {metric.name} reads the outputs as they are: leave it out")
        return Chosen(metric, output, None if output is None else (names.index(output),))
    if metric is not None and class_axis is not None and not metric.by_class:
        raise OptionError(f"class_axis is given, and {metric.name} compares value by value: leave it out")
    refusals: list[AnalogError] = []
    last: Chosen | None = None
    for index, field in _in_order(fields, metric):
        if output in (None, field.name):
            try:
                value = fetch(index)
                candidate = _Candidate(field, value, labels, samples, class_axis, int(one_by_one), dynamic)
                found = candidate.fitting(metric, index)
            except (DataError, OptionError) as error:
                refusals.append(error)
                continue
            if metric is not None or not scores_first or found.metric is not METRICS["exact_match"]:
                return found
            last = last or found
    if last is not None:
        return last
    raise refusals[0] if refusals else DataError("the model has no outputs")


def _in_order(fields: Sequence[Field], metric: Metric | None) -> list[tuple[int, Field]]:
    """Return outputs in the order in which they are tried: for `exact_match` floats come last."""
    indexed = list(enumerate(fields))
    if metric is METRICS["exact_match"]:
        indexed.sort(key=lambda pair: "float" in pair[1].type or "double" in pair[1].type)
    return indexed


@dataclass(frozen=True)
class _Candidate:
    """One output, and what is known of it."""

    field: Field
    value: Output
    labels: Array | None
    samples: int
    class_axis: int | None
    lead: int
    dynamic: frozenset[str]

    def fitting(self, metric: Metric | None, index: int) -> Chosen:
        metric = metric or self._default()
        labelled = self.labels is not None if metric.labelled is None else metric.labelled
        axis = shown = None
        if metric.by_class and isinstance(self.value, np.ndarray):
            axis = self._axis(metric)
            shown = axis - self.lead
        elif metric.by_class and are_maps(self.value):
            axis = 1  # of the array that maps become
        classes = self._classes(axis)
        chosen = Chosen(metric, self.field.name, (index,), shown, axis, classes, labelled)
        chosen([self.value], labels=self.labels, clean=[self.value])  # raises what does not fit
        return chosen

    def _default(self) -> Metric:
        kinds = {part.dtype.kind for part in parts_of(self.value)}
        discrete = bool(kinds) and kinds <= set(WHOLE)
        if self.labels is not None:
            return METRICS[self._with_labels(self.labels, discrete=discrete)]
        if self.class_axis is not None:
            return METRICS["agreement"]
        if discrete:
            return METRICS["exact_match"]
        if isinstance(self.value, np.ndarray):
            known = self._scores_axis() is not None
        else:
            known = are_maps(self.value) and len(self.value[0]) > 1
        return METRICS["agreement" if known else "sqnr_db"]

    def _with_labels(self, labels: Array, *, discrete: bool) -> str:
        if not isinstance(self.value, np.ndarray) or self.class_axis is not None:
            return "top1"
        if sides_of(self.value.shape) != sides_of(labels.shape) or is_one_hot_of(labels, self.value):
            return "top1"
        if discrete and (labels.dtype.kind in "OUS") == (self.value.dtype.kind in "OUS"):
            return "exact_match"
        if not discrete and labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all():
            return "r2"
        if not discrete and labels.dtype.kind in "biuf":  # of two classes, labels are often 0.0 and 1.0
            raise DataError(
                f"output {self.field.name!r} has one number for each label, which may be a score or a quantity: name "
                "the metric (r2, mse, or a function of your own)"
            )
        return "top1"

    def _axis(self, metric: Metric) -> int:
        """Return the axis of classes, of the array of all samples."""
        shape = self.value.shape
        if self.value.dtype.kind in "bOUS" or (self.value.dtype.kind in "iu" and self.value.dtype.itemsize == 8):
            raise DataError(
                f"output {self.field.name!r} holds {self.value.dtype}, and no scores: give "
                'metric="exact_match", or choose another output'
            )
        if self.class_axis is not None:
            sides = len(shape) - self.lead
            if not -sides <= self.class_axis < sides:
                raise OptionError(f"output {self.field.name!r} has {sides} axes, and class_axis is {self.class_axis}")
            axis = int(self.class_axis % sides + self.lead)
            samples = self._declared(axis) in self.dynamic or (axis == 0 and shape[0] == self.samples)
            if shape[axis] < 2 or samples:
                what = "samples or places" if shape[axis] > 1 else "one entry"
                raise OptionError(
                    f"class_axis is {self.class_axis}, and that axis of output {self.field.name!r} holds {what}, and "
                    "no classes"
                )
            return axis
        if metric.labelled:
            if self.labels is None:
                raise DataError(f"{metric.name} needs a label for each sample: an array y in the data")
            labels = whole_labels(self.labels)
            return 1 if is_one_hot_of(labels, self.value) else labelled_axis(shape, labels)
        only = self._scores_axis()
        if only is None:
            raise DataError(
                f"which axis of output {self.field.name!r}, of shape {shape[self.lead :]}, holds the classes? Give "
                "class_axis, or choose another metric (sqnr_db, relative_error)"
            )
        return only

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

    def _classes(self, axis: int | None) -> int | None:
        if axis is None:
            return None
        return len(self.value[0]) if are_maps(self.value) else int(self.value.shape[axis])
