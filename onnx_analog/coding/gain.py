"""The gain that a tensor loses when it is read, from the law of its channel: no data are needed to know it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.coding.estimators import Estimator, Written

Doubles = NDArray[np.float64]

_NODES = 33  # of the mean over reads of one level


def factor_of(written: Written, estimator: Estimator, digital: float = 0.0) -> float:
    """Return c = Σw² / Σw·E[ŵ] of a tensor: multiplied by c, its weights keep their gain in the mean over reads.

    Reads are taken for normal, with the moments of the average of a weight's cells; the mean over reads is taken by
    Gauss-Hermite quadrature. It is 1 where c is no positive number.

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
    size = (written.level + beta) / alpha
    both = float(size @ ((_expected(written, estimator) + beta) / alpha)) + digital
    factor = (float(size @ size) + digital) / both if both > 0 else 1.0
    return factor if np.isfinite(factor) and factor > 0 else 1.0


def _expected(written: Written, estimator: Estimator) -> Doubles:
    """Return the mean, over reads, of the estimate of each level."""
    mean, std = _moments(written)
    correct: Any = estimator.fitted(written)
    if correct is None:
        return mean
    node, share = np.polynomial.hermite_e.hermegauss(_NODES)
    expected = np.zeros(written.level.size)
    for z, chance in zip(node, share / share.sum(), strict=True):
        read = (mean + z * std).astype(np.float32)
        correct(read, slice(0, read.size))
        expected += chance * read
    return expected


def _moments(written: Written) -> tuple[Doubles, Doubles]:
    """Return mean and standard deviation of a read of each level."""
    mean, std = np.empty(written.level.size), np.empty(written.level.size)
    level = clip_to_range(written.level, written.channel.span)
    for number, cells in enumerate(written.cells):
        chosen = written.index == number
        if cells and chosen.any():
            mean[chosen], std[chosen] = written.channel.moments(level[chosen], cells=cells)
    return mean, std
