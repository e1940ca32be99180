"""How the cells of a weight are divided into stages, each of which holds what the stages before it are short of.

A cell that was programmed to x is verified as v = x + e_v, and will be read as y = x + e_y, up to a known line. What a
verify read tells of the error of the later read is its linear estimate,

    e_y ≈ λ·e_v      λ = Cov(e_y, e_v)/Var(e_v)      told = λ²·Var(e_v) = ρ²·Var(e_y)      left = Var(e_y) - told

The first stage holds the level in m cells that are averaged. The missing part t = -λ·e_v has the standard deviation
τ = √told. The next stage holds it over the whole output range, of half width h: the level is

    middle + h·clip(t/a, ±1)      a = c·τ

and its read counts a/h times. What it is short of, λ times its own verified error and what was clipped, is held by the
next stage, and so on. For normal t, what is clipped has the mean square τ²·K(c),

    K(c) = 2·[(1 + c²)·Q(c) - c·φ(c)]      φ, Q: density and upper tail of the standard normal law

Let F(n) be the mean squared error of n cells that hold t, over τ². If the first m of them are the next stage, and what
is clipped is taken for lost (it is rare and large, so the next stage, which reaches less far, mends little of it),

    F(n) = min over m, c of  c²·(left(m) + told(m)·F(n - m))/h² + K(c)      F(0) = 1

and c solves c·A = 2·(φ(c) - c·Q(c)), with A the factor of c². All stages follow from the law of the channel and the
number of cells, so the reader knows them without side information. Where no division into stages has a
smaller error, all cells hold the level: so where verify reads tell little, with ρ² below about 1/r. However many cells
there are, the error is at least left(m), that of a verified cell whose read is still to come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.special

from onnx_analog.channels.ranges import Doubles, Span, clip_to_range
from onnx_analog.channels.separation import Separated, State
from onnx_analog.randomness import stream

_LEVELS, _DRAWS = 64, 2048  # of the law; errors that all cells share are then known up to 1e-4 of the variance
_MOST_RESIDUAL = 16  # cells after the first stage: float32 levels hold no more
_LEAST_REACH = 1e-30  # where nothing is missing
_C = np.linspace(0.25, 8.0, 3101)
_CLIPPED = 2 * ((1 + _C**2) * scipy.special.ndtr(-_C) - _C * np.exp(-(_C**2) / 2) / math.sqrt(2 * math.pi))


@dataclass(frozen=True)
class Moments:
    """Second moments of the errors of m cells that are averaged: shared + alone/m."""

    shared: float
    alone: float

    def of(self, cells: int) -> float:
        """Return the moment for so many cells."""
        return self.shared + self.alone / cells


@dataclass(frozen=True)
class Law:
    """Errors of a cell as it is verified, and as it will be read, mean squares over the output range.

    Parameters
    ----------
    verified, read, both : Moments
        Of e_v², of e_y² and of e_v·e_y. Reads are taken relative to the line that fits them best.
    middle, half : float
        Centre and half the width of the output range.
    offset : float
        Mean read of cells that hold levels about the middle, equally spread over half the output range.
    """

    verified: Moments
    read: Moments
    both: Moments
    middle: float
    half: float
    offset: float

    def weight(self, cells: int) -> float:
        """Return λ, the share of the verified error of a stage that is taken for an error of its read."""
        verified = self.verified.of(cells)
        return max(self.both.of(cells), 0.0) / verified if verified > 0 else 0.0

    def told(self, cells: int) -> float:
        """Return the part of the mean squared error that verify reads of a stage tell."""
        return min(self.weight(cells) ** 2 * self.verified.of(cells), self.read.of(cells))

    def left(self, cells: int) -> float:
        """Return the other part, which remains whatever further cells hold."""
        return self.read.of(cells) - self.told(cells)


@dataclass(frozen=True)
class Stage:
    """Cells that hold the same.

    Parameters
    ----------
    cells : int, >= 1
    reach : float, >= 0
        a, the largest missing part that the stage holds, in the unit of the level; 0 for the first, which holds levels.
    weight : float
        λ of the stage.
    """

    cells: int
    reach: float
    weight: float


@dataclass(frozen=True)
class Division:
    """The stages of the cells of a weight, and the root mean square of the error that is expected of them."""

    stages: tuple[Stage, ...]
    error: float


def law_of(cells: Separated, span: Span, verify_reads: int = 1) -> Law:
    """Return the law of cells with this output range, from 2,048 of them at each of 64 levels."""
    low, high = span
    rng = stream(0, 0, "residual cells")
    level = clip_to_range(np.linspace(low, high, _LEVELS).astype(np.float32), span)
    held = cells.program_cell(level.repeat(_DRAWS), rng)
    shape = (_LEVELS, _DRAWS)
    verified = verify(cells, held, verify_reads, rng).reshape(shape) - level[:, None]
    read = cells.read_programmed(held, rng).astype(np.float64).reshape(shape)
    slope, offset = np.polyfit(level.astype(np.float64), read.mean(axis=1), 1)
    error = (read - offset) / (slope or 1.0) - level[:, None]
    middle = (low + high) / 2
    about = np.linspace(middle - (high - low) / 4, middle + (high - low) / 4, _LEVELS).astype(np.float32)
    central = cells.read_programmed(cells.program_cell(about.repeat(_DRAWS), rng), rng)
    of_read, of_verified = _moments(error, error), _moments(verified, verified)
    return Law(
        of_verified, of_read, _moments(verified, error), middle, (high - low) / 2, float(central.mean(dtype=float))
    )


def verify(cells: Separated, held: State, reads: int, rng: np.random.Generator) -> Doubles:
    """Return the average of so many verify reads (n,)."""
    total = cells.verify(held, rng).astype(np.float64)
    for _ in range(1, reads):
        total += cells.verify(held, rng)
    return total / reads


def _moments(first: Doubles, second: Doubles) -> Moments:
    """Return what errors (levels, draws) of two kinds have in common: in their means at each level, and beside."""
    means = first.mean(axis=1), second.mean(axis=1)
    alone = float(((first - means[0][:, None]) * (second - means[1][:, None])).mean()) * _DRAWS / (_DRAWS - 1)
    shared = float((means[0] * means[1]).mean()) - alone / _DRAWS
    return Moments(max(shared, 0.0) if first is second else shared, alone)


@lru_cache(maxsize=1024)
def division(law: Law, cells: int) -> Division:
    """Return the best division of so many cells, >= 1, into stages."""
    most = min(cells - 1, _MOST_RESIDUAL)
    errors, steps = _residual_errors(law, most)
    totals = [law.read.of(cells)]
    totals += [law.left(cells - n) + law.told(cells - n) * errors[n] for n in range(1, most + 1)]
    later = int(np.argmin(totals))
    stages = [Stage(cells - later, 0.0, law.weight(cells - later))]
    spread = law.told(cells - later)  # τ²
    while later:
        count, step = steps[later]
        reach = max(float(_C[step]) * math.sqrt(spread), _LEAST_REACH)
        stages.append(Stage(count, reach, law.weight(count)))
        spread *= float(_C[step] ** 2 * law.told(count) / law.half**2)
        later -= count
    return Division(tuple(stages), math.sqrt(min(totals)))


def _residual_errors(law: Law, most: int) -> tuple[list[float], list[tuple[int, int]]]:
    """Return F(n) for n up to `most`, and for each the cells of the first of its stages and the index of its c."""
    errors, steps = [1.0], [(0, 0)]
    for n in range(1, most + 1):
        tries = []
        for m in range(1, n + 1):
            noise = (law.left(m) + law.told(m) * errors[n - m]) / law.half**2
            error = _C**2 * noise + _CLIPPED
            step = int(error.argmin())
            tries.append((float(error[step]), m, step))
        best, count, step = min(tries)
        errors.append(best)
        steps.append((count, step))
    return errors, steps
