"""What a network's outputs are worth: array functions.

A metric takes the outputs of a network (a list of arrays), `labels` (n,) or None, and the `clean` outputs, those of the
same model without noise; it returns one number.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import DataError

Outputs = Sequence[NDArray[Any]]
Metric = Callable[..., float]

SHARES = ("top1", "agreement")  # fractions, which are shown in %
NAMES = (*SHARES, "sqnr_db")  # of this module's own


def top1(outputs: Outputs, *, labels: NDArray[Any] | None, clean: Outputs) -> float:  # noqa: ARG001 - a metric's form
    """Return the fraction of samples whose largest output is that of their label; NaN is never right.

    Parameters
    ----------
    outputs : the first is a float array of shape (n, classes)
    labels : int array of shape (n,)

    Examples
    --------
    >>> top1([np.array([[0.1, 0.9], [0.8, 0.2]])], labels=np.array([1, 1]), clean=[])
    0.5
    """
    scores = outputs[0].reshape(len(outputs[0]), -1)
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "biu"):
        raise DataError(f"labels are whole numbers, one a sample, not {labels.dtype} of shape {labels.shape}")
    if labels is None or len(labels) != len(scores):
        raise DataError(
            f"top-1 needs a label for each sample: {0 if labels is None else len(labels)} for {len(scores)}"
        )
    if outputs[0].size // len(scores) != max(outputs[0].shape[1:], default=1) or scores.shape[1] < 2:
        raise DataError(
            f"top-1 needs outputs of shape (n, classes), not {outputs[0].shape}: name another with --metric"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= scores.shape[1]):
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, and the model has {scores.shape[1]} classes"
        )
    return float(np.mean((scores.argmax(axis=1) == labels) & ~np.isnan(scores).any(axis=1)))


def agreement(outputs: Outputs, *, labels: NDArray[Any] | None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return the fraction of places where the largest output is the same as without noise; NaN is never the same.

    Classes are along the last axis; along the second where there are four axes or more, as in images.

    Raises
    ------
    DataError
        If the shape differs from that without noise, as where a network finds another number of objects.
    """
    if outputs[0].shape != clean[0].shape:
        raise DataError(
            f"noise changed the output's shape from {clean[0].shape} to {outputs[0].shape}: name a metric of your own "
            "with --metric"
        )
    axis = 1 if outputs[0].ndim >= 4 else -1
    same = outputs[0].argmax(axis=axis) == clean[0].argmax(axis=axis)
    return float(np.mean(same & ~np.isnan(outputs[0]).any(axis=axis)))


def sqnr_db(outputs: Outputs, *, labels: NDArray[Any] | None = None, clean: Outputs) -> float:  # noqa: ARG001 - likewise
    """Return the signal-to-noise ratio of all outputs in dB: 10·log10(Σ clean² / Σ (output - clean)²).

    NaN where a shape differs from that without noise.

    Examples
    --------
    >>> round(sqnr_db([np.array([1.1, 0.0])], clean=[np.array([1.0, 0.0])]), 6)
    20.0
    """
    if any(output.shape != other.shape for output, other in zip(outputs, clean, strict=True)):
        return math.nan
    pairs = [(o.astype(np.float64), c.astype(np.float64)) for o, c in zip(outputs, clean, strict=True)]
    signal = sum(float(np.square(c).sum()) for _, c in pairs)
    noise = sum(float(np.square(o - c).sum()) for o, c in pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.float64(signal) / np.float64(noise)))


def default(outputs: Outputs, labels: NDArray[Any] | None) -> tuple[str, Metric]:
    """Return name and function of the metric that fits: top-1 with labels; without, agreement, or SQNR in dB."""
    if labels is not None:
        return "top1", top1
    first = outputs[0]
    return ("agreement", agreement) if first.ndim > 1 and first.shape[-1] > 1 else ("sqnr_db", sqnr_db)


def source_digest(metric: Metric) -> str | None:
    """Return the SHA-256 of a metric's source text, as hex, so that another of the same name is told from it.

    None for those of this module, and where there is no text, as for what was typed in. Functions that it calls are
    not looked at.
    """
    if getattr(metric, "__module__", None) == __name__:
        return None
    try:
        text = inspect.getsource(metric if inspect.isroutine(metric) else type(metric))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
