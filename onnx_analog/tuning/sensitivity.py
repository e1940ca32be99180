"""Sensitivity of a network to errors in each of its tensors, on unlabelled samples.

White Gaussian noise of relative power p in one tensor alone moves the outputs. For small errors, the divergence of the
outputs grows with the power of the error, so its ratio to p says what a squared error costs that is small against the
weights, whatever its law (it is a mean of second derivatives; Dong et al. 2020 take the trace of the Hessian instead):

    S = divergence / p        loss of a plan ≈ Σ over tensors of S · E‖ŵ - w‖² / ‖w‖²

The divergence is that of Kullback and Leibler, in nats for each sample, where outputs are scores of classes; else the
squared error of the outputs over their power.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import NDArray

from onnx_analog.errors import DataError
from onnx_analog.randomness import stream
from onnx_analog.run._outputs import numbers_of
from onnx_analog.run.probe import Probe

POWER = 0.05  # of the noise, relative to the weights
DRAWS = 2

Divergence = Callable[[Sequence[Any]], float]


class Sensitivity(NamedTuple):
    """Of one tensor: divergence for each unit of relative squared error, and its standard error over draws."""

    mean: float
    error: float


def divergence(clean: Sequence[Any], class_axis: int | None) -> Divergence:
    """Return the function that says how far outputs are from `clean`, those of the original model.

    Parameters
    ----------
    clean : sequence of float arrays, or of lists of a map for each sample
        The first is compared where there is a `class_axis`; else all of them.
    class_axis : int, optional
        Axis of the classes whose scores (logits) the first output holds.

    Raises
    ------
    DataError
        If no output is an array of floats.
    """
    arrays = [(number, _floats(output)) for number, output in enumerate(map(numbers_of, clean)) if _is_float(output)]
    if not arrays:
        raise DataError("no output of the model is an array of floating-point numbers, so errors cannot be measured")
    if class_axis is not None:
        number, scores = arrays[0]
        expected = scipy.special.log_softmax(scores, axis=class_axis)
        return lambda outputs: _kullback_leibler(expected, _floats(outputs[number]), class_axis)
    power = sum(float(np.square(array).sum()) for _, array in arrays)
    return lambda outputs: (
        sum(float(np.square(_floats(outputs[number]) - array).sum()) for number, array in arrays)
        / max(power, np.finfo(np.float64).tiny)
    )


def _floats(output: Any) -> NDArray[np.float64]:
    return np.asarray(numbers_of(output), np.float64)


def _is_float(output: Any) -> bool:
    return isinstance(output, np.ndarray) and output.dtype.kind == "f" and output.size > 0


def _kullback_leibler(expected: NDArray[np.float64], scores: NDArray[np.float64], axis: int) -> float:
    """Return the mean over samples of Σ p·(log p - log q)."""
    other = scipy.special.log_softmax(scores, axis=axis)
    return float((np.exp(expected) * (expected - other)).sum(axis=axis).mean())


def drawn(probe: Probe, distance: Divergence, key: str, *, seed: int = 0, draw: int = 0, power: float = POWER) -> float:
    """Return the sensitivity to one draw of noise in one tensor.

    Parameters
    ----------
    probe : Probe
    distance : function
        Of outputs from those of the original model.
    key : str
        Of the tensor.
    seed, draw : int
        What the noise follows from.
    power : float, > 0
        Of the noise, relative to that of the weights.
    """
    return distance(probe.run({key: _noisy(probe.weights[key], seed, draw, key, power)})) / power


def sensitivity_of(key: str, values: Sequence[float]) -> Sensitivity:
    """Return the sensitivity of a tensor from those to each draw.

    Raises
    ------
    DataError
        If outputs with noise were not finite.
    """
    if not np.isfinite(values).all():
        raise DataError(
            f"outputs are not finite if {key!r} has noise: leave out samples for which the model overflows, and "
            "those that are no numbers"
        )
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return Sensitivity(float(np.mean(values)), spread)


def _noisy(weight: NDArray[Any], seed: int, draw: int, key: str, power: float) -> NDArray[Any]:
    """Return a tensor with noise in its nonzero weights: those that are pruned are no weights of it."""
    rng = stream(seed, draw, key, plane="sensitivity")
    values = weight.astype(np.float64)
    stored = values != 0
    scale = (power * np.square(values[stored]).mean()) ** 0.5 if stored.any() else 0.0
    noise = rng.standard_normal(weight.shape) * scale
    noisy: NDArray[Any] = (values + np.where(stored, noise, 0)).astype(weight.dtype)
    return noisy
