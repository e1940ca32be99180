"""The samples of a search: some measure and correct, some are searched with, and the rest verify."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnx_analog.errors import DataError
from onnx_analog.randomness import stream
from onnx_analog.run.data import Dataset

CALIBRATION = 128  # samples that measure sensitivities
CORRECTION = 256  # samples that correct
_LEAST = 64  # samples to search with, and to verify with


class Parts(NamedTuple):
    """The samples of each step."""

    calibration: Dataset
    correction: Dataset
    search: Dataset
    verification: Dataset


def parts_of(data: Dataset, seed: int) -> Parts:
    """Return the samples of each step: at most a tenth of them calibrate, and a tenth correct.

    Raises
    ------
    DataError
        If there are too few samples.
    """
    count = len(data)
    calibrating, correcting = min(CALIBRATION, count // 10), min(CORRECTION, count // 10)
    rest = count - calibrating - correcting
    if rest < 2 * _LEAST:
        needed = next(n for n in range(2 * _LEAST, 4 * _LEAST) if n - 2 * (n // 10) >= 2 * _LEAST)
        raise DataError(f"the data hold {count:,} samples; to search and to verify takes at least {needed}")
    order = stream(seed, 0, "tune", plane="samples").permutation(count)
    searching = rest // 2
    ends = np.cumsum([calibrating, correcting, searching])
    return Parts(*(data.take(np.sort(numbers)) for numbers in np.split(order, ends)))
