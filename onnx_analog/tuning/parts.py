"""The samples of a search: some measure and correct, some are searched with, and the rest verify."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from onnx_analog.errors import DataError, OptionError
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


class Counts(NamedTuple):
    """How many samples each step has."""

    calibration: int
    correction: int
    search: int
    verification: int


def counts_of(count: int) -> Counts:
    """Return how many of `count` samples each step has: at most a tenth calibrate, and a tenth correct.

    Most of the others verify, for that decides. Negative numbers say that there are too few samples.
    """
    calibrating, correcting = min(CALIBRATION, count // 10), min(CORRECTION, count // 10)
    rest = count - calibrating - correcting
    searching = max(rest // 4, _LEAST)
    return Counts(calibrating, correcting, searching, rest - searching)


def parts_of(data: Dataset, seed: int) -> Parts:
    """Return the samples of each step.

    Raises
    ------
    DataError
        If there are too few samples.
    """
    counts = counts_of(len(data))
    if counts.verification < _LEAST:
        raise DataError(f"the data hold {len(data):,} samples; {_needed()}")
    order = stream(seed, 0, "tune", plane="samples").permutation(len(data))
    return Parts(*(data.take(np.sort(numbers)) for numbers in np.split(order, np.cumsum(counts)[:-1])))


def check_count(samples: int | None) -> None:
    """Raise `OptionError` if fewer samples are asked for than a search takes, whatever the data hold."""
    if samples is not None and counts_of(samples).verification < _LEAST:
        raise OptionError(f"samples is {samples:,}; {_needed()}")


def _needed() -> str:
    return f"searching and verifying takes at least {fewest(_LEAST)}"


def fewest(verifying: int) -> int:
    """Return the fewest samples of which so many verify."""
    some = range(2 * verifying + 4 * _LEAST + CALIBRATION + CORRECTION)
    enough = bisect_left(some, verifying, key=lambda count: counts_of(count).verification)
    near = some[max(enough - 20, 0) : enough + 1]  # with one sample more, a tenth may leave one less
    return next(count for count in near if counts_of(count).verification >= verifying)
