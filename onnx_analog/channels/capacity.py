"""Capacity in bits per cell: of a channel with normal or measured noise, free and with limited precision.

    C = max over p(x) of I(X; Y)        (Shannon 1948; by the iteration of Blahut and of Arimoto, both 1972)

Measured residuals are finitely many numbers, which would tell inputs apart without error if reads had all their digits.
Each is widened by a normal kernel as wide as n of them can tell (Silverman 1986, equation 3.31), and all are drawn
together so that mean and variance stay.

Limited precision is w inputs that may be written, chosen for the most information, and an analog-to-digital converter
of v equal steps between the extreme means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Doubles
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.ranges import clip_to_range, codes
from onnx_analog.display import bits
from onnx_analog.errors import ChannelError

_TOLERANCE_BITS = 1e-4  # between the bounds of the iteration
_ROUNDS = 20_000
_TRIES = 200  # of an exchange of inputs; ordinary channels take fewer
_FINE = 400  # bins of an output that is read exactly
_FINE_BITS = 8  # from which on precision takes nothing away
_LEVELS = 65  # of a channel that is not a table
_MEASURED = 257  # levels at most, where each has a law of its own
_KNOTS = 1024  # of the integral over the span
_NO_SPREAD = 1e-9  # the standard deviation of an input that is read without noise
_UNUSED = 1e-4  # of the distribution over inputs
_QUIET = 100.0  # standard deviations in the span; with more, so few levels and bins would hide what a cell holds


class Capacity(NamedTuple):
    """Capacity in bits per cell, and the distribution over inputs that reaches it, of shape (inputs,)."""

    bits: float
    inputs: Doubles


class Law(NamedTuple):
    """Law of a standardised read: equally likely normal laws of one width about `centres`."""

    centres: Doubles
    width: float


_NORMAL = Law(np.zeros(1), 1.0)


def smoothed(residuals: Doubles) -> Law:
    """Return the law of standardised residuals (n,) as n of them can tell it, with their mean and their variance.

    Examples
    --------
    >>> law = smoothed(np.array([-1.0, 1.0]))
    >>> round(float(np.square(law.centres).mean() + law.width**2), 12)
    1.0
    """
    mean, std = float(residuals.mean()), float(residuals.std())
    if not std > 0:
        return Law(np.array([mean]), _NO_SPREAD)
    quartiles = float(np.subtract(*np.quantile(residuals, [0.75, 0.25]))) / 1.349  # a normal law's are 1.349 σ apart
    width = 0.9 * (min(std, quartiles) if quartiles > 0 else std) * residuals.size**-0.2
    return Law(mean + (residuals - mean) * math.sqrt(1 - (width / std) ** 2), width)


def transition(
    means: Doubles, stds: Doubles, *, steps: int | None = None, laws: Sequence[Law] | None = None
) -> Doubles:
    """Return P(output | input), of shape (inputs, outputs).

    Parameters
    ----------
    means, stds : float arrays of shape (inputs,)
    steps : int, >= 1, optional
        Outputs are so many equal steps between the extreme means, the outermost open; without it, bins so fine and so
        far out that more would change little.
    laws : sequence of Law, one for each input, optional
        Of the standardised reads; normal without it.
    """
    stds = np.maximum(stds, _NO_SPREAD)
    low, high = (means.min(), means.max()) if steps else ((means - 5 * stds).min(), (means + 5 * stds).max())
    edges = np.linspace(low, high, (steps or _FINE) + 1)
    edges[0], edges[-1] = -np.inf, np.inf
    return _between(edges, means, stds, laws)


def _between(edges: Doubles, means: Doubles, stds: Doubles, laws: Sequence[Law] | None) -> Doubles:
    """Return the chances that reads of each input fall between neighbouring `edges` (k + 1,), as (inputs, k)."""
    scaled = (edges - means[:, None]) / np.maximum(stds, _NO_SPREAD)[:, None]
    if laws is None:
        laws = [_NORMAL] * means.size
    chances: Doubles = np.diff([_cumulative(law, row) for law, row in zip(laws, scaled, strict=True)], axis=1)
    return chances


def _cumulative(law: Law, scaled: Doubles) -> Doubles:
    """Return the chance that a standardised read is below each of `scaled`."""
    below: Doubles = scipy.special.ndtr((scaled[:, None] - law.centres) / law.width).mean(axis=1)
    return below


def blahut_arimoto(chances: Doubles, *, rounds: int = _ROUNDS) -> Capacity:
    """Return the capacity of a discrete memoryless channel.

    Parameters
    ----------
    chances : float array of shape (inputs, outputs)
        P(output | input); each row sums to 1.
    rounds : int, >= 1
        What is returned after so many is a lower bound.

    Examples
    --------
    >>> flip = 0.11  # a binary symmetric channel holds 1 - H(0.11) = 0.5 bits
    >>> round(blahut_arimoto(np.array([[1 - flip, flip], [flip, 1 - flip]])).bits, 3)
    0.5
    """
    share = np.full(len(chances), 1 / len(chances))
    own = scipy.special.xlogy(chances, chances).sum(axis=1)
    for _ in range(rounds):
        output = share @ chances
        with np.errstate(divide="ignore"):
            divergence = own - chances @ np.where(output > 0, np.log(np.maximum(output, 1e-300)), 0)
        low, high = float(share @ divergence), float(divergence.max())
        if high - low < _TOLERANCE_BITS * math.log(2):
            break
        share = share * np.exp(divergence - high)
        share /= share.sum()
    return Capacity(low / math.log(2), share)


def limited(
    means: Doubles, stds: Doubles, *, write_levels: int, read_levels: int | None, laws: Sequence[Law] | None = None
) -> Capacity:
    """Return the capacity with at most so many inputs, chosen well, and so many equal steps of what is read.

    Inputs are found by exchange: each in turn moves to where it adds something, until none does, or 200 moves were
    tried. That is a lower bound of the best choice.

    Parameters
    ----------
    means, stds : float arrays of shape (inputs,)
    write_levels, read_levels : int, >= 1
        Without `read_levels`, reads are exact.
    laws : sequence of Law, optional
        See `transition`.

    Returns
    -------
    Capacity
        `inputs` is 0 where an input is not used.
    """
    chances = transition(means, stds, steps=read_levels, laws=laws)
    free = blahut_arimoto(chances)
    used = np.flatnonzero(free.inputs > _UNUSED)
    if write_levels >= len(used):
        return free
    chosen = np.sort(used[np.argsort(-free.inputs[used])[:write_levels]]).tolist()
    best = blahut_arimoto(chances[chosen])
    tries, improved = count(1), True
    while improved:
        improved = False
        for index in range(len(chosen)):
            others = chosen[:index] + chosen[index + 1 :]
            for candidate in used.tolist():
                if candidate in chosen or next(tries) > _TRIES:
                    continue
                tried = sorted([*others, candidate])
                capacity = blahut_arimoto(chances[tried], rounds=_ROUNDS // 10)
                if capacity.bits > best.bits + 2 * _TOLERANCE_BITS:
                    best, chosen, improved = capacity, tried, True
                    break
    full = np.zeros(len(chances))
    full[chosen] = best.inputs
    return Capacity(best.bits, full)


class Capacities(NamedTuple):
    """Capacities of a channel in bits per cell: for normal reads and, None where there are none, measured residuals."""

    normal: float
    measured: float | None

    def __str__(self) -> str:
        text = f"{bits(self.normal)} bits per cell for normal reads"
        return text if self.measured is None else f"{text}, {bits(self.measured)} for residuals as measured"


def both(channel: Channel) -> Capacities:
    """Return the capacity of one cell for normal reads, and for its measured residuals where it has any."""
    changed: dict[str, Channel] = {}
    for residuals in ("gaussian", "empirical"):
        with suppress(ChannelError):
            changed[residuals] = channel.changed(residuals=residuals)
    normal = of_channel(changed.get("gaussian", channel)).bits
    return Capacities(normal, of_channel(changed["empirical"]).bits if "empirical" in changed else None)


def of_channel(channel: Channel) -> Capacity:
    """Return the capacity of one cell of `channel` as it is simulated, in bits.

    Of a channel that draws measured residuals, it is that of these residuals, at 257 rows of its table at most. Reads
    of any other are taken to be normal.

    A table is taken at its rows, and at levels between them where it has few; a channel with limited precision with the
    equally spaced inputs and the codes that it has, or as without a limit where these are more than 8 bits, which leave
    nothing out that its noise does not; any other at 65 levels across its span, with the moments that it states. Where
    the span has more than 100 standard deviations, capacity is log2(1 + ∫exp(-h(y))dy), h(y) the differential entropy
    of a read, which is ln(σ√(2πe)) of a normal one: the integral is over the span, and what is left out is below 0.005
    bits.
    """
    if not isinstance(channel, LimitedPrecision):
        return _unlimited(channel)
    limited_writing = 0 < channel.write_bits <= _FINE_BITS
    reads = _reads(channel.inner, inputs=2**channel.write_bits if limited_writing else None)
    if not 0 < channel.read_bits <= _FINE_BITS:
        return blahut_arimoto(transition(reads.means, reads.stds, laws=reads.laws))
    values = codes(channel.range, channel.read_bits)
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])  # to the nearest code
    return blahut_arimoto(_between(edges, *reads))


def _unlimited(channel: Channel) -> Capacity:
    normal = channel.measurements or channel
    if normal.normal:
        level = clip_to_range(np.linspace(*normal.span, _KNOTS).astype(np.float32), normal.span)
        _, std = normal.moments(level)
        if std.min() > 0 and _integral(1 / np.maximum(std, 1e-300), level) > _QUIET:
            density = 1 / np.maximum(std * _spread(channel, level), 1e-300)  # a sum of these is a number
            held = math.log2(1 + _integral(density, level) / math.sqrt(2 * math.pi * math.e))
            return Capacity(held, density / density.sum())
    reads = _reads(channel, fine=True)
    return blahut_arimoto(transition(reads.means, reads.stds, laws=reads.laws))


def _integral(density: Doubles, level: NDArray[np.floating[Any]]) -> float:
    return float(np.trapezoid(density, level.astype(np.float64)))


def _spread(channel: Channel, level: NDArray[np.floating[Any]]) -> Doubles:
    """Return the σ of normal reads that have the differential entropy of standardised reads of each level."""
    if not isinstance(channel, EmpiricalChannel):
        return np.ones(level.shape)
    _, _, nearest = channel.at(channel.table.inverse.input(level))
    each = np.array([_equal_in_entropy(smoothed(np.array(row))) for row in channel.table.residuals])
    return each[nearest]


def _equal_in_entropy(law: Law) -> float:
    """Return exp(h)/√(2πe), h the differential entropy of a law, from bins of a quarter of its kernel's width."""
    low, high = law.centres.min() - 6 * law.width, law.centres.max() + 6 * law.width
    edges = np.linspace(low, high, min(math.ceil(4 * (high - low) / law.width), 4 * _KNOTS) + 1)
    chances = np.diff(_cumulative(law, edges))
    entropy = math.log(edges[1] - edges[0]) - float(scipy.special.xlogy(chances, chances).sum())
    return math.exp(entropy) / math.sqrt(2 * math.pi * math.e)


def best_of(channel: Channel) -> Capacity | None:
    """Return the capacity at the same precision with well-chosen inputs, and codes equally spaced between the means.

    None for a channel without limited precision.
    """
    if not isinstance(channel, LimitedPrecision):
        return None
    means, stds, laws = _reads(channel.inner)
    written = 2**channel.write_bits if channel.write_bits else means.size
    coded = 0 < channel.read_bits <= _FINE_BITS
    read_levels = 2**channel.read_bits if coded else None
    return limited(means, stds, write_levels=written, read_levels=read_levels, laws=laws)


class _Reads(NamedTuple):
    """Mean, standard deviation and law of a read at each input; normal where there are no laws."""

    means: Doubles
    stds: Doubles
    laws: Sequence[Law] | None = None


def _reads(channel: Channel, *, inputs: int | None = None, fine: bool = False) -> _Reads:
    """Return the reads at each input: all inputs that there are, or so many, equally spaced.

    With `fine`, a table of few inputs is read between them too.
    """
    table = channel.measurements
    if table is None:
        level = clip_to_range(np.linspace(*channel.span, inputs or _LEVELS).astype(np.float32), channel.span)
        return _Reads(*channel.moments(level))
    known = np.array(table.inputs)
    x = known if inputs is None else np.linspace(known[0], known[-1], inputs)
    if fine and known.size < _LEVELS:
        x = np.union1d(known, np.linspace(known[0], known[-1], _LEVELS))
    if not isinstance(channel, EmpiricalChannel):
        return _Reads(np.interp(x, known, table.means), np.interp(x, known, table.stds))
    means, stds, nearest = channel.at(x[np.unique(np.linspace(0, x.size - 1, _MEASURED).round().astype(np.intp))])
    laws = [smoothed(np.array(row)) for row in table.residuals]
    return _Reads(means, stds, [laws[index] for index in nearest])
