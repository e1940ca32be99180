"""Checks of random outputs, for this package's tests and for those of anyone who writes a channel.

Each has a known chance of a false alarm. Seeds are fixed, so that chance is taken once, when a law changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

FALSE_ALARM = 1e-4  # per check


def assert_law(samples: NDArray[Any], cdf: Callable[[Any], Any]) -> None:
    """Fail unless independent `samples` may well have come from the distribution `cdf` (Kolmogorov-Smirnov)."""
    found = scipy.stats.kstest(samples.ravel(), cdf)
    assert found.pvalue > FALSE_ALARM, f"KS distance {found.statistic:.3g}, p = {found.pvalue:.2g}"


def assert_mean(samples: NDArray[Any], expected: float, *, systematic: float = 0.0) -> None:
    """Fail unless the mean of independent `samples` is `expected` up to chance, and up to `systematic`."""
    error = float(samples.std(ddof=1)) / math.sqrt(samples.size)
    reach = float(scipy.stats.norm.isf(FALSE_ALARM / 2)) * error + systematic
    found = float(samples.mean())
    assert abs(found - expected) <= reach, f"mean {found:.6g} is not {expected:.6g} ± {reach:.2g}"


def assert_std(samples: NDArray[Any], expected: float) -> None:
    """Fail unless independent normal `samples` have the standard deviation `expected` up to chance (chi-square)."""
    freedom = samples.size - 1
    ratio = freedom * float(samples.var(ddof=1)) / expected**2
    low, high = (float(scipy.stats.chi2.ppf(share, freedom)) for share in (FALSE_ALARM / 2, 1 - FALSE_ALARM / 2))
    found = float(samples.std(ddof=1))
    assert low <= ratio <= high, f"standard deviation {found:.6g} is not {expected:.6g}"


def assert_uncorrelated(one: NDArray[Any], other: NDArray[Any]) -> None:
    """Fail unless two samples of equal size are uncorrelated up to chance (Fisher's z)."""
    found = float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
    reach = math.tanh(float(scipy.stats.norm.isf(FALSE_ALARM / 2)) / math.sqrt(one.size - 3))
    assert abs(found) <= reach, f"correlation {found:.3g} is beyond ± {reach:.2g}"
