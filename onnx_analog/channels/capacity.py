"""Capacity in bits per cell: of a conditional Gaussian channel, free and with limited precision.

    C = max over p(x) of I(X; Y)        (Shannon 1948; by the iteration of Blahut and of Arimoto, both 1972)

Limited precision is w inputs that may be written, chosen for the most information, and an analog-to-digital converter
of v equal steps between the extreme means.
"""

from __future__ import annotations

import math
from itertools import count
from typing import NamedTuple

import numpy as np
import scipy.special

from onnx_analog.channels.base import Channel, Doubles
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.ranges import clip_to_range, codes

_TOLERANCE_BITS = 1e-4  # between the bounds of the iteration
_ROUNDS = 20_000
_TRIES = 200  # of an exchange of inputs; ordinary channels take fewer
_FINE = 400  # bins of an output that is read exactly
_FINE_BITS = 8  # from which on precision takes nothing away
_LEVELS = 65  # of a channel that is not a table
_KNOTS = 1024  # of the integral over the span
_UNUSED = 1e-4  # of the distribution over inputs
_QUIET = 100.0  # standard deviations in the span; with more, so few levels and bins would hide what a cell holds


class Capacity(NamedTuple):
    """Capacity in bits per cell, and the distribution over inputs that reaches it, of shape (inputs,)."""

    bits: float
    inputs: Doubles


def transition(means: Doubles, stds: Doubles, *, steps: int | None = None) -> Doubles:
    """Return P(output | input) of normal reads, of shape (inputs, outputs).

    Parameters
    ----------
    means, stds : float arrays of shape (inputs,)
    steps : int, >= 1, optional
        Outputs are so many equal steps between the extreme means, the outermost open; without it, bins so fine and so
        far out that more would change nothing.
    """
    stds = np.maximum(stds, 1e-9)  # an input that is read without noise
    low, high = (means.min(), means.max()) if steps else ((means - 5 * stds).min(), (means + 5 * stds).max())
    edges = np.linspace(low, high, (steps or _FINE) + 1)
    edges[0], edges[-1] = -np.inf, np.inf
    cumulative = scipy.special.ndtr((edges - means[:, None]) / stds[:, None])
    chances: Doubles = np.diff(cumulative, axis=1)
    return chances


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


def limited(means: Doubles, stds: Doubles, *, write_levels: int, read_levels: int | None) -> Capacity:
    """Return the capacity with at most so many inputs, chosen well, and so many equal steps of what is read.

    Inputs are found by exchange: each in turn moves to where it adds something, until none does, or 200 moves were
    tried. That is a lower bound of the best choice.

    Parameters
    ----------
    means, stds : float arrays of shape (inputs,)
    write_levels, read_levels : int, >= 1
        Without `read_levels`, reads are exact.

    Returns
    -------
    Capacity
        `inputs` is 0 where an input is not used.
    """
    chances = transition(means, stds, steps=read_levels)
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


def of_channel(channel: Channel) -> Capacity:
    """Return the capacity of one cell of `channel` as it is simulated, in bits, taking its reads to be normal.

    A table is taken at its rows, and at levels between them where it has few; a channel with limited precision with the
    equally spaced inputs and the codes that it has, or as without a limit where these are more than 8 bits, which leave
    nothing out that its noise does not; any other at 65 levels across its span, with the moments that it states. Where
    the span has more than 100 standard deviations, capacity is log2(1 + ∫dy/σ/√(2πe)): the integral is over the span,
    and what is left out is below 0.005 bits.
    """
    if not isinstance(channel, LimitedPrecision):
        return _unlimited(channel)
    limited_writing = 0 < channel.write_bits <= _FINE_BITS
    means, stds = _moments(channel.inner, inputs=2**channel.write_bits if limited_writing else None)
    if not 0 < channel.read_bits <= _FINE_BITS:
        return blahut_arimoto(transition(means, stds))
    return blahut_arimoto(_coded(means, stds, codes(channel.range, channel.read_bits)))


def _unlimited(channel: Channel) -> Capacity:
    means, stds = _moments(channel, fine=True)
    normal = channel.measurements or channel
    if normal.normal:
        level = clip_to_range(np.linspace(*normal.span, _KNOTS).astype(np.float32), normal.span)
        _, std = normal.moments(level)
        density = 1 / np.maximum(std, 1e-300)  # a sum of these is a number
        deviations = float(np.trapezoid(density, level.astype(np.float64)))
        if std.min() > 0 and deviations > _QUIET:
            return Capacity(math.log2(1 + deviations / math.sqrt(2 * math.pi * math.e)), density / density.sum())
    return blahut_arimoto(transition(means, stds))


def best_of(channel: Channel) -> Capacity | None:
    """Return the capacity at the same precision with well-chosen inputs, and codes equally spaced between the means.

    None for a channel without limited precision.
    """
    if not isinstance(channel, LimitedPrecision):
        return None
    means, stds = _moments(channel.inner)
    written = 2**channel.write_bits if channel.write_bits else means.size
    coded = 0 < channel.read_bits <= _FINE_BITS
    return limited(means, stds, write_levels=written, read_levels=2**channel.read_bits if coded else None)


def _coded(means: Doubles, stds: Doubles, values: Doubles) -> Doubles:
    """Return P(code | input) of normal reads that are rounded to the nearest of `values`."""
    edges = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    cumulative = scipy.special.ndtr((edges - means[:, None]) / np.maximum(stds, 1e-9)[:, None])
    chances: Doubles = np.diff(cumulative, axis=1)
    return chances


def _moments(channel: Channel, *, inputs: int | None = None, fine: bool = False) -> tuple[Doubles, Doubles]:
    """Return mean and standard deviation of a read at each input: all that there are, or so many, equally spaced.

    With `fine`, a table of few inputs is read between them too.
    """
    table = channel.measurements
    if table is not None:
        known = np.array(table.inputs)
        x = known if inputs is None else np.linspace(known[0], known[-1], inputs)
        if fine and known.size < _LEVELS:
            x = np.union1d(known, np.linspace(known[0], known[-1], _LEVELS))
        return np.interp(x, known, table.means), np.interp(x, known, table.stds)
    return channel.moments(
        clip_to_range(np.linspace(*channel.span, inputs or _LEVELS).astype(np.float32), channel.span)
    )
