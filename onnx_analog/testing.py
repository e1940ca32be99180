"""Checks of random outputs, for this package's tests and for those of anyone who writes a channel.

Each has a known chance of a false alarm. Seeds are fixed, so that chance is taken once, when a law changes.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from onnx_analog.channels import Channel, from_dict
from onnx_analog.channels.base import READS
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.channels.rules import check_rules
from onnx_analog.errors import ChannelError, LevelError
from onnx_analog.randomness import stream

FALSE_ALARM = 1e-4  # per check
_EVENTS = 100  # reads off the median, from which on their number is about normal


def assert_law(samples: NDArray[Any], cdf: Callable[[Any], Any]) -> None:
    """Fail unless independent `samples` may well have come from the distribution `cdf` (Kolmogorov-Smirnov)."""
    test = scipy.stats.kstest(samples.ravel(), cdf)
    assert test.pvalue > FALSE_ALARM, f"KS distance {test.statistic:.3g}, p = {test.pvalue:.2g}"


def assert_mean(samples: NDArray[Any], expected: float, *, systematic: float = 0.0) -> None:
    """Fail unless the mean of independent `samples` is `expected` up to chance, and up to `systematic`."""
    error = float(samples.std(ddof=1)) / math.sqrt(samples.size)
    reach = float(scipy.stats.norm.isf(FALSE_ALARM / 2)) * error + systematic
    mean = float(samples.mean())
    assert abs(mean - expected) <= reach, f"mean {mean:.6g} is not {expected:.6g} ± {reach:.2g}"


def assert_std(samples: NDArray[Any], expected: float) -> None:
    """Fail unless independent normal `samples` have the standard deviation `expected` up to chance (chi-square)."""
    freedom = samples.size - 1
    ratio = freedom * float(samples.var(ddof=1)) / expected**2
    low, high = (float(scipy.stats.chi2.ppf(share, freedom)) for share in (FALSE_ALARM / 2, 1 - FALSE_ALARM / 2))
    std = float(samples.std(ddof=1))
    assert low <= ratio <= high, f"standard deviation {std:.6g} is not {expected:.6g}"


def assert_uncorrelated(first: NDArray[Any], second: NDArray[Any]) -> None:
    """Fail unless two samples of equal size are uncorrelated up to chance (Fisher's z)."""
    correlation = float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    reach = math.tanh(float(scipy.stats.norm.isf(FALSE_ALARM / 2)) / math.sqrt(first.size - 3))
    assert abs(correlation) <= reach, f"correlation {correlation:.3g} is beyond ± {reach:.2g}"


# -------------------------------------------------------------------------------------------------- channels


def check_channel(
    channel: Channel, *, biased: bool = False, independent: bool = True, draws: int = 20_000, cells: int = 4
) -> None:
    """Fail unless `channel` keeps what every channel promises.

    Checked are the rules of `onnx_analog.channels.rules`, which every channel that is named must keep; that levels
    outside the span are refused; that levels that were prepared are read alike; that a channel survives JSON and
    pickling; at seven levels the mean, the moments and, of a normal channel, the whole law; that the average of r cells
    is distributed as the average of r reads of one cell, which is what makes variances fall as 1/r; and that weights of
    different numbers of cells, read together, are read as alone and share nothing.

    Parameters
    ----------
    channel : Channel
        Installed, or of a class that this process has.
    biased : bool
        The channel says that its mean read is not the level (drift, few write levels): the mean is not checked.
    independent : bool
        The cells of one weight share nothing. False leaves out the comparison with single reads.
    draws : int
        Reads at each level.
    cells : int, >= 2
        r of the comparison.

    Examples
    --------
    >>> from onnx_analog.channels import GaussianNoise
    >>> check_channel(GaussianNoise(sigma=0.1))
    """
    try:
        check_rules(channel)
    except ChannelError as error:
        raise AssertionError(str(error)) from error
    assert channel.source.citation, "the source has no citation"
    levels = clip_to_range(np.linspace(*channel.span, 7).astype(np.float32), channel.span)
    read = channel.read(levels, cells=1, rng=_rng("form"))
    assert read.dtype == np.float32, f"reads are {read.dtype}, and not float32"
    _check_range(channel)
    _check_repeatable(channel, levels)
    for index, level in enumerate(levels):
        _check_law(channel, level, index, biased=biased, draws=draws, cells=cells)
        if independent:
            _check_average(channel, level, index, draws=draws, cells=cells)
        _check_each(channel, level, index, draws=draws, cells=cells)
    _check_prepared(channel, levels)


def _rng(purpose: str, index: int = 0) -> np.random.Generator:
    return stream(0, index, "check_channel", plane=purpose)


def _check_prepared(channel: Channel, levels: Any) -> None:
    read, block = np.empty_like(levels[2:]), slice(2, None)
    channel.prepared(levels, np.full(levels.shape, 3)).read(block, _rng("prepared"), read)
    once = channel.read(levels[block], cells=3, rng=_rng("prepared"))
    assert np.array_equal(read, once), "levels that were prepared are read in another way"


def _check_range(channel: Channel) -> None:
    low, high = channel.span
    for level in (low - 0.01 * (high - low), high + 0.01 * (high - low)):
        try:
            channel.read(np.array([level], np.float32), cells=1, rng=_rng("range"))
        except LevelError:
            continue
        raise AssertionError(f"level {level:.4g} is outside the span {channel.span} and was read all the same")


def _check_repeatable(channel: Channel, levels: Any) -> None:
    many = np.tile(levels, 50)
    first = channel.read(many, cells=2, rng=_rng("repeatable"))
    if np.unique(first).size > levels.size:  # a converter may be too coarse for the noise
        assert not np.array_equal(first, channel.read(many, cells=2, rng=_rng("another"))), "reads do not depend on rng"
    through = {
        "pickling": pickle.loads(pickle.dumps(channel)),  # noqa: S301 - what was just pickled
        "JSON": from_dict(json.loads(json.dumps(channel.to_dict()))),
    }
    for way, copy in through.items():
        assert copy == channel, f"{way} changes the channel: {copy} is not {channel}"
        assert np.array_equal(first, copy.read(many, cells=2, rng=_rng("repeatable"))), f"{way} changes its reads"


def _check_law(channel: Channel, level: Any, index: int, *, biased: bool, draws: int, cells: int) -> None:
    levels = np.full(draws, level, np.float32)
    for r in (1, cells):
        rng = _rng("law", index)
        read = channel.read(levels, cells=r, rng=rng).astype(np.float64)
        if not biased:
            assert_mean(read, float(level))
        mean, std = (float(moment[0]) for moment in channel.moments(levels[:1], cells=r))
        if channel.normal:
            assert_std(read, std)
            assert_law(read, scipy.stats.norm(mean, std).cdf)
        else:
            _assert_moments(read, mean, std)


def _assert_moments(reads: NDArray[Any], mean: float, std: float) -> None:
    """Fail unless independent `reads` have these moments up to chance, also of moments from 20,000 other reads."""
    reach = float(scipy.stats.norm.isf(FALSE_ALARM / 2)) * math.sqrt(1 / reads.size + 1 / READS)
    rounding = 1e-6 * (abs(mean) + std)
    off = reads.mean() - mean
    assert abs(off) <= reach * max(float(reads.std()), std) + rounding, f"mean {reads.mean():.6g} is not {mean:.6g}"
    if np.count_nonzero(reads != np.median(reads)) < _EVENTS:  # a coarse converter: too few reads differ to tell
        return
    squares = (reads - reads.mean()) ** 2
    assert abs(squares.mean() - std**2) <= reach * float(squares.std()) + rounding, (
        f"standard deviation {reads.std():.6g} is not {std:.6g}"
    )


def _check_average(channel: Channel, level: Any, index: int, *, draws: int, cells: int) -> None:
    levels = np.full(draws, level, np.float32)
    together = channel.read(levels, cells=cells, rng=_rng("together", index)).astype(np.float64)
    rng = _rng("apart", index)
    apart: Any = np.mean([channel.read(levels, cells=1, rng=rng) for _ in range(cells)], axis=0, dtype=np.float64)
    # Where reads are quantised, equal averages must not differ by their rounding.
    test = scipy.stats.ks_2samp(together.round(5), apart.round(5), method="asymp")
    assert test.pvalue > FALSE_ALARM, (
        f"at level {float(level):.4g}, {cells} cells are not read as the average of {cells} reads of one: "
        f"KS distance {test.statistic:.3g}, p = {test.pvalue:.2g}"
    )


def _check_each(channel: Channel, level: Any, index: int, *, draws: int, cells: int) -> None:
    """Fail unless weights with cells of different numbers are read as alone, and neighbours share nothing."""
    levels, each = np.full(2 * draws, level, np.float32), np.tile([1, cells], draws)
    mixed = channel.read(levels, cells=each, rng=_rng("mixed", index)).astype(np.float64)
    for r, part in ((1, mixed[::2]), (cells, mixed[1::2])):
        alone = channel.read(levels[:draws], cells=r, rng=_rng(f"alone {r}", index)).astype(np.float64)
        test = scipy.stats.ks_2samp(part.round(5), alone.round(5), method="asymp")
        assert test.pvalue > FALSE_ALARM, (
            f"at level {float(level):.4g}, weights of {r} cells beside others are not read as alone: "
            f"KS distance {test.statistic:.3g}, p = {test.pvalue:.2g}"
        )
    if mixed[::2].std() > 0 and mixed[1::2].std() > 0:
        assert_uncorrelated(mixed[::2], mixed[1::2])
        assert_uncorrelated(mixed[1:-1:2], mixed[2::2])
