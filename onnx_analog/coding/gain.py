"""The gain that a tensor loses when it is read, from the law of its channel: no data are needed to know it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.coding.estimators import Estimator, Written
from onnx_analog.coding.expected import gain_factor, over_reads

Doubles = NDArray[np.float64]

_NODES = 33  # reads of every level: fewer than where levels are few


def factor_of(written: Written, estimator: Estimator, digital: float = 0.0) -> float:
    """Return c = Σw² / Σw·E[ŵ] of a tensor: multiplied by c, its weights keep their gain in the mean over reads.

    Reads are taken to be normal, with the moments of the average of a weight's cells. It is 1 where c is no positive
    number. Nothing is assumed of the estimator, so it estimates every level; `onnx_analog.coding.estimators.gain_of`
    is the same for the posterior mean, whose tables are known.

    Parameters
    ----------
    written : Written
    estimator : Estimator
        It makes estimates of reads, which decode to ŵ.
    digital : float, >= 0
        Σw² of the tensor's weights without cells, which are read as they are.
    """
    if not written.level.size:
        return 1.0
    alpha, beta = (written.of_each(values).astype(np.float64) for values in (written.alpha, written.beta))
    return gain_factor((written.level + beta) / alpha, (_expected(written, estimator) + beta) / alpha, digital)


def _expected(written: Written, estimator: Estimator) -> Doubles:
    """Return the mean, over reads, of the estimate of each level."""
    mean, std = _moments(written)
    correct: Any = estimator.fitted(written)
    if correct is None:
        return mean

    def estimate(read: Doubles) -> Doubles:
        estimated = read.astype(np.float32)
        correct(estimated, slice(0, estimated.size))
        return estimated.astype(np.float64)

    return over_reads(estimate, mean, std, nodes=_NODES)


def _moments(written: Written) -> tuple[Doubles, Doubles]:
    """Return mean and standard deviation of a read of each level."""
    mean, std = np.empty(written.level.size), np.empty(written.level.size)
    level = clip_to_range(written.level, written.channel.span)
    for number, cells in enumerate(written.cells):
        chosen = written.index == number
        if cells and chosen.any():
            mean[chosen], std[chosen] = written.channel.moments(level[chosen], cells=cells)
    return mean, std
