"""Outputs and labels as metrics see them: arrays of scores, axes of classes, parts of sequences and maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import DataError

Array = NDArray[Any]
Output = Any  # an array; of a map, a sequence or what has other shapes in each call, a list
Outputs = Sequence[Output]

UNCOUNTED = -100  # label of a token that does not count, as padding: PyTorch's cross-entropy ignores it by default
WHOLE = "biuOUS"  # kinds of numpy types that are the same or not: whole numbers, booleans, text


def has_nan(scores: Array, axis: int = 1) -> NDArray[np.bool_]:
    nan: NDArray[np.bool_] = np.any(scores != scores, axis=axis)
    return nan


def only_axis(shape: Sequence[int]) -> int:
    """Return the only axis with more than one entry, the first not counted."""
    axes = [axis for axis, side in enumerate(shape) if axis and side > 1]
    if len(axes) != 1:
        raise DataError(f"which axis of scores of shape {tuple(shape)} holds the classes? Give class_axis")
    return axes[0]


def labelled_scores(output: Output, labels: Array | None, axis: int | None) -> tuple[Array, Array]:
    """Return scores (places, classes), and for each place the class that is right."""
    if labels is None:
        raise DataError("the metric needs a label for each sample: an array y in the data")
    if are_maps(output):
        names = list(output[0])
        scores, labels, axis = array_of(output), _indices(labels, names), 1
    else:
        scores, labels = array_of(output), whole_labels(labels)
        if labels.shape == scores.shape and is_one_hot(labels, 1 if axis is None else axis):
            axis = 1 if axis is None else axis
            labels = labels.argmax(axis=axis)
        axis = labelled_axis(scores.shape, labels) if axis is None else axis
    classes = scores.shape[axis]
    if axis == 0 or classes < 2 or sides_of(scores.shape, axis) != sides_of(labels.shape):
        raise DataError(
            f"scores of shape {scores.shape} have {classes} classes, and labels of shape {labels.shape} do not fit "
            "them: give a label for each sample, or for each place"
        )
    if not labels.size:
        raise DataError(f"labels of shape {labels.shape} hold no label")
    if labels.min() < 0 or labels.max() >= classes:
        left_out = f'. metric="token_accuracy" leaves out places with the label {UNCOUNTED}'
        hint = f"{left_out}, and agreement needs no labels" if (labels == UNCOUNTED).any() else ""
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}; for the model's {classes} classes they must be from 0 "
            f"to {classes - 1}{hint}"
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
    candidates = range(1, len(shape))
    axes = [axis for axis in candidates if shape[axis] > 1 and sides_of(shape, axis) == sides_of(labels.shape)]
    if len(axes) > 1:
        raise DataError(
            f"scores of shape {tuple(shape)} and labels of shape {labels.shape} leave open which axis holds the "
            f"classes, {' or '.join(map(str, axes))}: give class_axis"
        )
    if not axes:
        raise DataError(
            f"labels of shape {labels.shape} do not fit scores of shape {tuple(shape)}: a label for each sample, or "
            "each place, is needed. Choose another output, or another metric"
        )
    return axes[0]


def sides_of(shape: Sequence[int], without: int | None = None) -> list[int]:
    """Return the sides that count: the first, and those of more than one entry."""
    return [side for axis, side in enumerate(shape) if axis != without and (axis == 0 or side > 1)]


def whole_labels(labels: Array) -> Array:
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


def is_one_hot(labels: Array, axis: int = 1) -> bool:
    return axis < labels.ndim and bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=axis) == 1).all())


def are_maps(output: Output) -> bool:
    return isinstance(output, list) and bool(output) and all(isinstance(part, dict) for part in output)


def _indices(labels: Array, names: Sequence[Any]) -> NDArray[np.int64]:
    """Return which of the keys of a map each label is."""
    if labels.dtype.kind not in "biuOUS" or not (labels.ndim == 1 or sides_of(labels.shape)[1:] == []):
        raise DataError(f"the model's maps take a label for each sample, not {labels.dtype} of shape {labels.shape}")
    index_of = {name: index for index, name in enumerate(names)}
    keys = [text_of(label) for label in labels.reshape(-1).tolist()]
    unknown = [label for label in keys if label not in index_of]
    if unknown:
        raise DataError(f"label {unknown[0]!r} is not a class of the model: it has {', '.join(map(repr, names))}")
    return np.array([index_of[label] for label in keys], np.int64)


def text_of(label: Any) -> Any:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else label


def array_of(output: Output) -> Array:
    """Return scores as an array: of n maps, (n, keys)."""
    if isinstance(output, np.ndarray):
        if output.dtype.kind in "OUS":
            raise DataError('the output is text, which has no scores: give metric="exact_match"')
        return output
    if are_maps(output):
        names = list(output[0])
        if any(set(scores) != set(names) for scores in output):
            raise DataError("the model's maps have other keys from sample to sample: give a metric of your own")
        return np.array([[scores[name] for name in names] for scores in output])
    raise DataError('the output is a sequence, or has no axis of samples: choose another, or give metric="sqnr_db"')


def numbers_of(output: Output) -> Output:
    """Return maps as an array, as `array_of` does, and all other outputs as they are."""
    return array_of(output) if are_maps(output) else output


def is_one_hot_of(labels: Array, scores: Array) -> bool:
    return labels.shape == scores.shape and labels.ndim == 2 and labels.dtype.kind in "biuf" and is_one_hot(labels)


def parts_of(output: Output) -> Iterator[Array]:
    """Yield the arrays that an output, or several, are made of."""
    if isinstance(output, np.ndarray):
        yield output
    elif isinstance(output, dict):
        yield np.array(list(output.values()))
    elif isinstance(output, list | tuple):
        if output and not isinstance(output[0], np.ndarray | dict | list | tuple) and output[0] is not None:
            yield np.array(output, object if isinstance(output[0], str | bytes) else None)
        else:
            for part in output:
                yield from parts_of(part)
    elif output is not None:
        yield np.asarray(output)
