"""Reads far from all others of their input, as those of cells that are stuck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles

FAR = 6.0  # σ beyond which a read is an outlier


def outlying(inputs: Doubles, outputs: Doubles, *, least: int = 8) -> NDArray[np.bool_]:
    """Return which reads are far from the median of their input, among inputs with `least` reads or more.

    Where more than half of the reads are equal, as those of a coarse converter, σ is taken to be a step between reads.

    >>> reads = np.append(np.linspace(-1, 1, 99), 50.0)
    >>> np.flatnonzero(outlying(np.zeros(100), reads)).tolist(), int(outlying(np.zeros(99), reads[:99]).sum())
    ([99], 0)
    """
    order = np.argsort(inputs, kind="stable")
    _, starts = np.unique(inputs[order], return_index=True)
    steps, are_far = np.diff(np.unique(outputs)), np.zeros(inputs.size, bool)
    step = float(np.median(steps)) if steps.size else 0.0
    for rows in np.split(order, starts[1:]):
        far = np.abs(outputs[rows] - np.median(outputs[rows]))
        scale = 1.4826 * float(np.median(far)) or step  # σ, of a normal law
        if rows.size >= least and scale > 0:
            are_far[rows] = far > FAR * scale
    return are_far
