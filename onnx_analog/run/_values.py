"""The metrics of this package, each a function of outputs, labels and clean outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import DataError
from onnx_analog.run._outputs import (
    UNCOUNTED,
    WHOLE,
    Array,
    Output,
    Outputs,
    array_of,
    has_nan,
    labelled_scores,
    only_axis,
    parts_of,
    sides_of,
    text_of,
)

_TOP = 5

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
    return float(right_places(outputs[0], labels, class_axis).mean())


def right_places(output: Output, labels: Array | None, class_axis: int | None = None) -> NDArray[np.bool_]:
    """Return which labels have the largest score, (labels,), in the order of the labels; raises what `top1` does."""
    scores, truth = labelled_scores(output, labels, class_axis)
    right: NDArray[np.bool_] = (scores.argmax(axis=1) == truth) & ~has_nan(scores)
    return right


def top5(outputs: Outputs, *, labels: Array | None, clean: Outputs, class_axis: int | None = None) -> float:  # noqa: ARG001 - likewise
    """Return the share of labels whose class is among the five of the largest score; as `top1` otherwise."""
    scores, truth = labelled_scores(outputs[0], labels, class_axis)
    if scores.shape[1] <= _TOP:
        raise DataError(f'top5 of {scores.shape[1]} classes is always right: give metric="top1"')
    best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :_TOP]  # of equal scores the first
    return float(np.mean((best == truth[:, None]).any(axis=1) & ~has_nan(scores)))


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
    value = float(same_places(outputs[0], clean[0], class_axis).mean())
    pair = [array_of(outputs[0])], [array_of(clean[0])]
    return math.nan if value == 1 and sqnr_db(pair[0], clean=pair[1]) < 0 else value


def same_places(output: Output, clean: Output, class_axis: int | None = None) -> NDArray[np.bool_]:
    """Return at which places the largest scores are of the same classes as without noise; raises what `agreement` does.

    Its shape is that of the scores without the axis of classes.
    """
    noisy, expected = array_of(output), array_of(clean)
    if noisy.shape != expected.shape:
        raise DataError(
            f"noise changed the output's shape from {expected.shape} to {noisy.shape}: give a metric of your own"
        )
    axis = only_axis(noisy.shape) if class_axis is None else class_axis
    if noisy.shape[axis] < 2:
        raise DataError(f"axis {axis} of scores of shape {noisy.shape} has {noisy.shape[axis]} entry: no classes")
    if not noisy.size:
        raise DataError(f"the output has shape {noisy.shape}, which holds no scores")
    winners, others = (array == array.max(axis=axis, keepdims=True) for array in (noisy, expected))
    same: NDArray[np.bool_] = (winners == others).all(axis=axis) & ~has_nan(noisy, axis) & ~has_nan(expected, axis)
    return same


# ----------------------------------------------------------------------------------------------------- by tokens


def token_accuracy(outputs: Outputs, *, labels: Array | None, clean: Outputs, class_axis: int | None = None) -> float:  # noqa: ARG001 - likewise
    """Return the share of tokens that have the largest score, of those whose label is not -100; as `top1` otherwise.

    Examples
    --------
    >>> token_accuracy([np.array([[[0.1, 0.9], [0.8, 0.2]]])], labels=np.array([[1, -100]]), clean=[], class_axis=2)
    1.0
    """
    scores, truth = _tokens(outputs[0], labels, class_axis)
    return float(np.mean((scores.argmax(axis=1) == truth) & ~has_nan(scores)))


def perplexity(outputs: Outputs, *, labels: Array | None, clean: Outputs, class_axis: int | None = None) -> float:  # noqa: ARG001 - likewise
    """Return the perplexity exp(-Σ ln p(label) / N) of the N tokens whose label is not -100, p the softmax of scores.

    F. Jelinek, R. L. Mercer, L. R. Bahl and J. K. Baker, "Perplexity - a measure of the difficulty of speech
    recognition tasks", J. Acoust. Soc. Am. 62, S63 (1977). It is NaN if a score is, and infinite where a label has the
    probability 0.

    Parameters
    ----------
    outputs : the first is an array of logits or logarithms of probabilities (n, ..., classes, ...)
    labels : whole numbers, of the shape of the scores without the axis of classes
        That which the scores of a place predict: of a causal model, the next token.

    Raises
    ------
    DataError
        If labels and scores do not fit, or the scores are probabilities: their softmax would be another distribution.

    Examples
    --------
    >>> round(perplexity([np.zeros((1, 3, 50))], labels=np.array([[7, 8, 9]]), clean=[]), 9)
    50.0
    """
    scores, truth = _tokens(outputs[0], labels, class_axis)
    logits = scores.astype(np.float64)
    if (logits >= 0).all() and np.allclose(logits.sum(axis=1), 1, atol=1e-3):
        raise DataError(
            "the scores are probabilities, and perplexity takes those before the softmax: choose the output of logits, "
            "or give a metric of your own"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        lost = np.log(np.exp(shifted).sum(axis=1)) - np.take_along_axis(shifted, truth[:, None], axis=1)[:, 0]
        return float(np.exp(lost.mean()))


def _tokens(output: Output, labels: Array | None, axis: int | None) -> tuple[Array, Array]:
    """Return scores (tokens, classes) and labels (tokens,), without tokens that do not count."""
    if labels is None:
        raise DataError("the metric needs a label for each token: an array y in the data")
    counts = np.asarray(labels != UNCOUNTED)
    if not counts.any():
        raise DataError(f"all labels are {UNCOUNTED}, so no token counts")
    scores, truth = labelled_scores(output, np.where(counts, labels, 0), axis)
    return (scores, truth) if counts.all() else (scores[counts.reshape(-1)], truth[counts.reshape(-1)])


# ------------------------------------------------------------------------------------------------ value by value


def exact_match(outputs: Outputs, *, labels: Array | None, clean: Outputs) -> float:
    """Return the share of values that equal their label or, where labels are None, what they are without noise.

    For whole numbers, booleans and text, as class maps, token ids and names. NaN equals nothing.

    Raises
    ------
    DataError
        If labels or the outputs without noise have another shape.
    """
    same = equal_values(outputs[0], labels, clean)
    total = sum(array.size for array in same)
    return sum(int(array.sum()) for array in same) / total if total else math.nan


def equal_values(output: Output, labels: Array | None, clean: Outputs) -> list[NDArray[np.bool_]]:
    """Return which values equal their label or what they are without noise, of each array; raises as `exact_match`."""
    arrays = list(parts_of(output))
    if labels is not None:
        if len(arrays) != 1 or sides_of(arrays[0].shape) != sides_of(labels.shape):
            shapes = ", ".join(str(array.shape) for array in arrays[:3])
            raise DataError(f"labels of shape {labels.shape} do not fit the output of shape {shapes}")
        expected = [labels.reshape(arrays[0].shape)]
    else:
        expected = list(parts_of(clean[0]))
    if [array.shape for array in arrays] != [array.shape for array in expected]:
        raise DataError("noise changed the output's shape: give a metric of your own")
    return [_equal(array, other) for array, other in zip(arrays, expected, strict=True)]


def _equal(array: Array, other: Array) -> Array:
    if (array.dtype.kind in "OUS") != (other.dtype.kind in "OUS"):
        raise DataError(
            f"values of type {array.dtype} are compared with {other.dtype}: text and numbers are never equal"
        )
    if array.dtype.kind in "OUS":
        pairs = zip(array.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True)
        return np.array([text_of(a) == text_of(b) for a, b in pairs], np.bool_)
    return np.asarray(array == other)


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
    noisy, expected = (
        [part for part in parts_of(list(values)) if part.dtype.kind not in WHOLE] for values in (outputs, clean)
    )
    ratio = sqnr_db(noisy, clean=expected)
    return math.nan if math.isnan(ratio) else ratio  # a NaN of one kind, so that equal evaluations are equal


def mean_noise_db(ratios: Sequence[float]) -> float | None:
    """Return the SQNR in dB of the mean noise over trials, whose SQNRs are `ratios`; None where a trial has none.

    The power of noise adds up, and decibels do not: the mean of the ratios in dB is this or more.

    Examples
    --------
    >>> round(mean_noise_db([20.0, 20.0, 10.0]), 2)  # noise of 1 %, 1 % and 10 %: 4 %
    13.98
    """
    values = np.array(ratios, np.float64)
    if not values.size or np.isnan(values).any():
        return None
    least = float(values.min())  # so that no power is beyond the range of numbers
    return least - 10 * float(np.log10(np.mean(10 ** ((least - values) / 10)))) if math.isfinite(least) else least


def nan_share(outputs: Outputs) -> float:
    """Return the share of the floats in outputs that are NaN."""
    floats = [part.astype(np.float64) for part in parts_of(list(outputs)) if part.dtype.kind not in WHOLE]
    total = sum(part.size for part in floats)
    return sum(int(np.isnan(part).sum()) for part in floats) / total if total else 0.0


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
    pairs = list(zip(parts_of(list(outputs)), parts_of(list(clean)), strict=False))
    same = [array.shape for array in parts_of(list(outputs))] == [array.shape for array in parts_of(list(clean))]
    numbers = [
        (array, other) for array, other in pairs if array.dtype.kind not in "OUS" and other.dtype.kind not in "OUS"
    ]
    if not same or not numbers:
        return math.nan, math.nan
    signal = noise = 0.0
    for array, other in numbers:
        noisy, expected = array.astype(np.float64), other.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.where((noisy == expected) | (np.isnan(noisy) & np.isnan(expected)), 0, noisy - expected)
            noise += float(np.square(np.where(np.isnan(off), np.inf, off)).sum())
            signal += float(np.square(expected[np.isfinite(expected)]).sum())
    return signal, noise


def mse(outputs: Outputs, *, labels: Array | None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return the mean of (output - label)².

    Examples
    --------
    >>> mse([np.array([1.0, 3.0])], labels=np.array([1.0, 1.0]), clean=[])
    2.0
    """
    values, truth = _with_numbers(outputs[0], labels)
    return float(np.square(values - truth).mean())


def r2(outputs: Outputs, *, labels: Array | None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return the coefficient of determination 1 - Σ (output - label)² / Σ (label - mean)², averaged over columns.

    Raises
    ------
    DataError
        If the labels of a column are all the same: it is not defined then.
    """
    values, truth = _with_numbers(outputs[0], labels)
    total = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    if not (total > 0).all():
        raise DataError('r2 is not defined for labels that are all the same: give metric="mse"')
    return float(np.mean(1 - np.square(values - truth).sum(axis=0) / total))


def _with_numbers(output: Output, labels: Array | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return outputs and labels (n, columns) as numbers."""
    values = array_of(output)
    if labels is None:
        raise DataError("the metric needs a label for each value: an array y in the data")
    if labels.dtype.kind not in "biuf":
        raise DataError(f"labels are numbers, not {labels.dtype}")
    if not np.isfinite(labels).all():
        raise DataError("labels hold NaN or infinity, and the metric takes finite numbers")
    if sides_of(values.shape) != sides_of(labels.shape):
        raise DataError(f"labels of shape {labels.shape} do not fit outputs of shape {values.shape}")
    rows = len(values)
    return values.reshape(rows, -1).astype(np.float64), labels.reshape(rows, -1).astype(np.float64)
