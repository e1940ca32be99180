"""Squared error of a stored tensor as it is read: computed from its levels and the channel's law, not sampled.

With m1 and m2 the mean and the mean square of the estimate of a level x, over its reads, a weight of size s in a class
with α and β is read with the mean squared error

    E(ŝ - s)² = (m2 + 2·β·m1 + β²)/α² - 2·s·(m1 + β)/α + s²        ŝ = (estimate + β)/α

Reads are taken to be normal with the moments that the channel states, as tables of estimators take them; means over
reads are taken at 512 levels of the output range, and a level counts as the nearest of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Span
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.coding.codebook import Codebook
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.estimators import Written, table_of
from onnx_analog.coding.expected import over_reads
from onnx_analog.coding.partition import Bits, Bytes, Doubles, Floats, parts
from onnx_analog.coding.planes import Encoded, analog_of, of_each, stored_count
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError

_LEVELS = 512
_LEAST_STD = 1e-9


class Distortion(NamedTuple):
    """Sums over the weights of a tensor, in the square of their unit.

    Attributes
    ----------
    error : float
        Σ E(ŵ - w)².
    gain : float
        Σ w·E[ŵ] / Σ w²: 1 if the weights keep their gain.
    power : float
        Σ w².
    """

    error: float
    gain: float
    power: float

    @property
    def relative(self) -> float:
        """The error over the power."""
        return self.error / self.power if self.power else 0.0


def distortion(weight: NDArray[np.floating], stored: Encoded) -> Distortion:
    """Return the expected squared error of a weight tensor (any shape) that is stored as `stored` and read once.

    Raises
    ------
    OptionError
        If the scheme's estimator is not one of this package: nothing is known of its errors.
    """
    planes, codebook, scheme = stored
    flat = weight.reshape(-1)
    kept = flat if planes.mask is None else flat[planes.mask]
    size = kept if scheme.sign == "level" else np.abs(kept)
    digital, cells, wrong = np.zeros(3), np.zeros(3), np.zeros(2)
    moments = _Moments.of(stored)
    for part in parts(size.size):
        index = None if planes.class_index is None else planes.class_index[part]
        group = None if planes.group is None else planes.group[part]
        alpha, beta = (of_each(each.astype(np.float64), index, group) for each in (codebook.alpha, codebook.beta))
        m1, m2 = moments.at(part)
        s = size[part].astype(np.float64)
        terms = np.stack([(m2 + 2 * beta * m1 + beta**2) / alpha**2, s * (m1 + beta) / alpha, s**2])
        wrong += _of_wrong_bits(codebook, scheme, index, group, m1, s)
        if moments.analog is None:
            cells += terms.sum(axis=1)
        else:
            cells += terms[:, moments.analog[part]].sum(axis=1)
            digital += terms[:, ~moments.analog[part]].sum(axis=1)
    if scheme.estimator == "unbiased" and cells[1] > 0:  # which scales weights by Σw² / Σw·E[ŵ]
        factor = cells[2] / cells[1]
        cells *= np.array([factor**2, factor, 1.0])
        wrong *= np.array([factor**2, factor])  # classes have cells all or none where bits are wrong
    square, product, power = digital + cells
    if planes.mask is not None:  # those that are not stored are read as 0
        power += float(np.square(flat, where=~planes.mask, out=np.zeros(flat.size)).sum())
    square, product = square + wrong[0], product + wrong[1]
    return Distortion(float(square - 2 * product + power), float(product / power) if power else 1.0, float(power))


def _of_wrong_bits(
    codebook: Codebook,
    scheme: Scheme,
    index: Bytes | None,
    group: NDArray[np.int64] | None,
    level: Doubles,
    size: Doubles,
) -> Doubles:
    """Return the additions of wrong bits of signs and classes to Σ E[ŝ²] and to Σ s·E[ŝ], (2,), one bit at a time.

    With a wrong sign, -ŝ is read for s. With a wrong bit of the class, the level is decoded with the α and β of
    another. Levels are taken at their means.
    """
    if scheme.code != "none" or scheme.entropy != "none" or scheme.side_channel is not None:
        return np.zeros(2)
    chance = best_code(scheme.channel, "none").bit_error
    alpha, beta = codebook.alpha.astype(np.float64), codebook.beta.astype(np.float64)

    def read(classes: Bytes | None) -> Doubles:
        decoded: Doubles = (level + of_each(beta, classes, group)) / of_each(alpha, classes, group)
        return decoded

    right = read(index)
    added = np.array([0.0, -2 * float(right @ size)]) if scheme.sign == "bit" else np.zeros(2)
    for bit in range(scheme.index_bits if index is not None else 0):
        assert index is not None
        other = read(np.minimum(index ^ np.uint8(1 << bit), scheme.classes - 1).astype(np.uint8))
        added += [float(other @ other - right @ right), float((other - right) @ size)]
    return chance * added


class _Moments:
    """Mean and mean square of the estimate of each stored weight's level; 0, which decodes to the point, without cells.

    Attributes
    ----------
    analog : bool array of shape (N,), or None
        Which weights have cells; None if all have.
    """

    def __init__(self, level: Floats, row: NDArray[np.integer] | None, tables: tuple[Doubles, Doubles], span: Span):
        self._level, self._row, self._tables = level, row, tables
        self._low, self._scale = span[0], (_LEVELS - 1) / (span[1] - span[0])
        self.analog: Bits | None = None

    @staticmethod
    def of(stored: Encoded) -> _Moments:
        """Return those of a tensor."""
        planes, _, scheme = stored
        count = stored_count(planes)
        analog = analog_of(planes.class_index, scheme.cells_of_class, count)
        level = np.zeros(count, np.float32)
        level[slice(None) if analog is None else analog] = planes.level
        written = _written(stored, analog)
        tables = _tables(written, scheme.estimator) if scheme.analog != "none" else (np.zeros((1, _LEVELS)),) * 2
        row = None
        if scheme.analog != "none" and planes.class_index is not None:
            row = written.table_of_class[planes.class_index]
        moments = _Moments(level, row, tables, scheme.channel.span)
        moments.analog = analog
        return moments

    def at(self, part: slice) -> tuple[Doubles, Doubles]:
        """Return both for the weights of a part."""
        x = np.rint((self._level[part].astype(np.float64) - self._low) * self._scale)
        x = np.clip(x, 0, _LEVELS - 1).astype(np.intp)
        row = 0 if self._row is None else self._row[part]
        first, second = (table[row, x] for table in self._tables)
        if self.analog is not None:
            first, second = (np.where(self.analog[part], each, 0.0) for each in (first, second))
        return first, second


def _written(stored: Encoded, analog: Bits | None) -> Written:
    """Return what the reader of the memory knows of the levels."""
    planes, codebook, scheme = stored
    of_levels: slice | Bits = slice(None) if analog is None else analog
    return Written(
        level=planes.level,
        class_index=None if planes.class_index is None else planes.class_index[of_levels],
        cells=scheme.cells_of_class,
        channel=scheme.channel,
        alpha=codebook.alpha,
        beta=codebook.beta,
        group=None if planes.group is None else planes.group[of_levels],
        shared=scheme.shares_tables,
    )


def _tables(written: Written, estimator: str) -> tuple[Doubles, Doubles]:
    """Return mean and mean square of the estimates of 512 levels, by table, each (T, 512)."""
    span = written.channel.span
    level = np.linspace(*span, _LEVELS)
    first, second = (np.zeros((len(written.tables), _LEVELS)) for _ in range(2))
    for number, cells in enumerate(written.tables):
        if not cells:
            continue
        mean, std = written.channel.moments(clip_to_range(level.astype(np.float32), span), cells=cells)
        if estimator == "affine":  # exact, whatever the law
            first[number], second[number] = mean, np.square(mean) + np.square(std)
            continue
        estimate, std = _estimates(written, estimator, number), np.maximum(std, _LEAST_STD)
        first[number], second[number] = over_reads(_powers(estimate), mean, std)
    return first, second


def _powers(estimate: Callable[[Doubles], Doubles]) -> Callable[[Doubles], Doubles]:
    """Return the function that gives estimates (n,) and their squares, (2, n)."""

    def powers(read: Doubles) -> Doubles:
        estimated = estimate(read)
        return np.stack([estimated, np.square(estimated)])

    return powers


def _estimates(written: Written, estimator: str, number: int) -> Callable[[Doubles], Doubles]:
    """Return the function that estimates levels from reads."""
    if estimator == "clipped":
        return lambda read: np.clip(read, *written.channel.span)
    if estimator in ("posterior", "unbiased"):
        return table_of(written, number).at
    raise OptionError(f"the errors of estimator {estimator!r} are not known in closed form")
