"""Estimates levels from what was read, before they are decoded.

An estimator sees what a read of a level returned and what was known when the level was written: the class, its number
of cells, α and β, and the channel. The decode that follows stays affine. An estimator of your own is a subclass of
`Estimator`, named as `module:Class`, in a scheme.

| estimator | estimate of a level x from a read y | tables |
|---|---|---|
| affine | y, as the paper does | none |
| clipped | y, clipped to the output range | none |
| posterior | E[x given y]: the least squared error that any estimate has | one for each class |
| unbiased | the same, scaled so that weights keep their gain | one for each class, and the factor |

Classes of equal steps are alike: those with the same number of cells share a table.

The posterior mean shrinks: E[ŵ·w] < E[w²], so that every layer that is decoded with it loses gain. `unbiased`
multiplies the decoded weights of a tensor by c = Σw² / Σw·E[ŵ], which is known when the tensor is written; then
Σw·E[c·ŵ] = Σw².
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.coding.expected import gain_factor, over_reads
from onnx_analog.errors import IMPORT_FIRST, OptionError

if TYPE_CHECKING:
    from onnx_analog.channels import Channel

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Correction = Callable[[Floats, slice], None]

KNOTS = 64  # of a table, between which estimates are interpolated
KNOT_BITS = 16  # of an entry: a float16 number
FACTOR_BITS = 32
_BINS = 512  # of a class's histogram of levels
_OUTSIDE = 4.0  # standard deviations of reads beyond the output range that a table covers
_MOST_OUTSIDE = 24  # knots on each side
_LEAST_STD = 1e-9
_LEAST_CHANCE = 1e-250


@dataclass(frozen=True, eq=False, kw_only=True)
class Written:
    """One tensor's levels as they were written, and what is known of them.

    Attributes
    ----------
    level : float32 array of shape (M,)
    class_index : uint8 array of shape (M,), or None
        Class of each; None where there is one.
    cells : tuple of int, (K,)
        Cells per weight of each class.
    channel : Channel
    beta : float32 array of shape (G, K)
        β of each group and class.
    alpha : float32 array of shape (G, K)
        α of each group and class.
    group : int array of shape (M,), or None
        Group of each; None where there is one.
    shared : bool
        Whether classes with the same number of cells share a table.
    """

    level: Floats
    class_index: NDArray[np.uint8] | None
    cells: tuple[int, ...]
    channel: Channel
    alpha: Floats
    beta: Floats
    group: NDArray[np.int64] | None = None
    shared: bool = False

    @cached_property
    def tables(self) -> tuple[int, ...]:
        """Cells per weight of each table (T,)."""
        return tables_of(self.cells, shared=self.shared)

    @cached_property
    def table_of_class(self) -> NDArray[np.int64]:
        """Table of each class (K,)."""
        if not self.shared:
            return np.arange(len(self.cells))
        return np.array([self.tables.index(cells) for cells in self.cells])

    @cached_property
    def table_index(self) -> NDArray[np.uint8]:
        """Table of each level (M,)."""
        return self.index if not self.shared else self.table_of_class.astype(np.uint8)[self.index]

    @property
    def index(self) -> NDArray[np.uint8]:
        """Class of each level (M,)."""
        return np.zeros(self.level.size, np.uint8) if self.class_index is None else self.class_index

    def of_each(self, values: Floats) -> Floats:
        """Return `values` (G, K) for each level (M,)."""
        spread: Floats = values[0 if self.group is None else self.group, self.index]
        return spread


def tables_of(cells: tuple[int, ...], *, shared: bool) -> tuple[int, ...]:
    """Return the cells per weight of each table (T,): one for each class (K,), or for each number of cells."""
    return tuple(dict.fromkeys(cells)) if shared else cells


class Estimator(ABC):
    """Estimates the level that was written from the level that was read.

    Attributes
    ----------
    keeps_gain : bool
        Whether the points of classes without cells are scaled by Σw² / Σw·point when a tensor is written, so that its
        weights keep their gain; False unless a subclass says otherwise.
    """

    keeps_gain = False

    @abstractmethod
    def fitted(self, written: Written) -> Correction | None:
        """Return the function that corrects one tensor's reads; None where reads are used as they are.

        Returns
        -------
        function (read, block) -> None
            It replaces what was read of the levels in the slice `block` by its estimates, in place.
        """

    @abstractmethod
    def table_bits(self, cells: tuple[int, ...]) -> int:
        """Return the bits of the tables that the reader of the memory needs for a tensor: they are counted.

        Parameters
        ----------
        cells : tuple of int, (T,)
            Cells per weight of each table: of each class, unless classes share tables.
        """

    def stored_tables(self, written: Written) -> NDArray[np.bool_] | None:  # noqa: ARG002 - of subclasses
        """Return the bits of these tables, as many as `table_bits` says, as a memory holds them; None if not known.

        Without them, an image of the array leaves out the codebooks of tensors that have tables.
        """
        return None


class Affine(Estimator):
    """Takes reads as they are, as the paper does."""

    def fitted(self, written: Written) -> None:
        """Return None."""

    def table_bits(self, cells: tuple[int, ...]) -> int:  # noqa: ARG002 - no table
        """Return 0."""
        return 0


class Clipped(Estimator):
    """Clips reads to the output range."""

    def fitted(self, written: Written) -> Correction:
        """Return the function that clips."""
        low, high = written.channel.span

        def correct(read: Floats, block: slice) -> None:  # noqa: ARG001 - all levels alike
            np.clip(read, np.float32(low), np.float32(high), out=read)

        return correct

    def table_bits(self, cells: tuple[int, ...]) -> int:  # noqa: ARG002 - the range is the channel's
        """Return 0."""
        return 0


class Posterior(Estimator):
    """Estimates a level by its mean given the read, from the levels of its class and the law of the channel.

    Reads are taken to be normal, with the moments of the average of a weight's cells. The table of a class has 64
    float16 corrections, for reads at equal distances from 4 standard deviations below the output range to 4 above;
    those of reads between are interpolated, and reads beyond the ends are taken for the ends.
    """

    def fitted(self, written: Written) -> Correction:
        """Return the function that looks reads up in the tables of their classes."""
        tables = [table_of(written, number) for number in range(len(written.tables))]
        low, step = np.float32(tables[0].low), np.float32(tables[0].step)
        high = low + step * np.float32(KNOTS - 1)
        flat = np.concatenate([table.corrections for table in tables])
        offset = written.table_index.astype(np.int32) * KNOTS

        def correct(read: Floats, block: slice) -> None:
            np.clip(read, low, high, out=read)
            between = (read - low) / step
            knot = np.minimum(between.astype(np.int32), KNOTS - 2)
            between -= knot
            knot += offset[block]
            below = flat[knot]
            between *= flat[knot + 1] - below
            read += below
            read += between

        return correct

    def table_bits(self, cells: tuple[int, ...]) -> int:
        """Return 16 bits for each entry of the classes that have cells."""
        return sum(each > 0 for each in cells) * KNOTS * KNOT_BITS

    def stored_tables(self, written: Written) -> NDArray[np.bool_]:
        """Return the corrections of each table, float16, the highest bit first."""
        tables = [table_of(written, number).corrections for number, cells in enumerate(written.tables) if cells]
        return bits_of(np.concatenate([np.zeros(0), *tables]), ">f2")


class Unbiased(Posterior):
    """Estimates as `Posterior` does, and scales the weights of a tensor so that they keep their gain."""

    keeps_gain = True

    def fitted(self, written: Written) -> Correction:
        """Return the function that looks reads up, and scales."""
        look_up, factor = super().fitted(written), np.float32(gain_of(written))
        beta = written.of_each(written.beta)

        def correct(read: Floats, block: slice) -> None:
            look_up(read, block)
            shift = beta[block]
            read += shift  # size·α; c·size·α - β is the level of the size c·size
            read *= factor
            read -= shift

        return correct

    def table_bits(self, cells: tuple[int, ...]) -> int:
        """Return the bits of the tables, and of the factor."""
        return super().table_bits(cells) + FACTOR_BITS

    def stored_tables(self, written: Written) -> NDArray[np.bool_]:
        """Return the tables, and then the factor, float32."""
        return np.concatenate([super().stored_tables(written), bits_of(np.array([gain_of(written)]), ">f4")])


def bits_of(numbers: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    """Return numbers as bits, the first number and the highest bit first."""
    return np.unpackbits(np.frombuffer(numbers.astype(dtype).tobytes(), np.uint8)).view(np.bool_)


# ----------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, eq=False)
class Table:
    """Corrections E[x given y] - y of one table, (64,), at the reads y = low, low + step, ..."""

    low: float
    step: float
    corrections: Floats

    def at(self, read: Doubles) -> Doubles:
        """Return the estimates at reads of any shape."""
        knots = self.low + self.step * np.arange(KNOTS)
        inside = np.clip(read, knots[0], knots[-1])
        estimates: Doubles = inside + np.interp(inside, knots, self.corrections)
        return estimates


def _grid(written: Written) -> tuple[float, float]:
    """Return the first read of the tables, and the step: one for all classes.

    Both ends of the output range are knots: beyond them, estimates stop abruptly where there is little noise.
    """
    low, high = written.channel.span
    _, std = written.channel.moments(_levels(written, np.array([low, high])))
    margin = _OUTSIDE * float(std.max()) / (high - low)
    outside = next(
        (knots for knots in range(1, _MOST_OUTSIDE) if knots / (KNOTS - 1 - 2 * knots) >= margin), _MOST_OUTSIDE
    )
    step = (high - low) / (KNOTS - 1 - 2 * outside)
    return low - outside * step, step


def _levels(written: Written, level: Doubles) -> Floats:
    return clip_to_range(level.astype(np.float32), written.channel.span)


def _moments(written: Written, level: Doubles, cells: int) -> tuple[Doubles, Doubles]:
    mean, std = written.channel.moments(_levels(written, level), cells=cells)
    return mean, np.maximum(std, _LEAST_STD)


def table_of(written: Written, number: int) -> Table:
    """Return one of the tables (T,), of the levels that look it up, as float16 numbers.

    The density of the levels x is constant in each of 512 bins (a, b) of the output range, with c levels in each, and a
    read is normal about x + bias with the standard deviation s, both taken at the middle of the bin. Then, with
    u = (a + bias - y)/s and v = (b + bias - y)/s, the correction is the mean of x - y over truncated normal laws:

        E[x given y] - y = Σ c·(s·(φ(u) - φ(v)) - bias·(Φ(v) - Φ(u))) / Σ c·(Φ(v) - Φ(u))

    Without noise it is 0, whatever the bins.
    """
    low, step = _grid(written)
    read = low + step * np.arange(KNOTS)
    span = written.channel.span
    edges = np.linspace(*span, _BINS + 1)
    count, _ = np.histogram(np.clip(written.level[written.table_index == number], *span), edges)
    there = count > 0
    if not there.any() or not written.tables[number]:
        return Table(low, step, np.zeros(KNOTS, np.float32))
    first, last, count = edges[:-1][there], edges[1:][there], count[there]
    middle = (first + last) / 2
    mean, std = _moments(written, middle, written.tables[number])
    bias = mean - middle
    u, v = ((edge + bias - read[:, None]) / std for edge in (first, last))
    chance = np.where(u > 0, ndtr(-u) - ndtr(-v), ndtr(v) - ndtr(u))
    moved = std * (np.exp(-np.square(u) / 2) - np.exp(-np.square(v) / 2)) / np.sqrt(2 * np.pi) - bias * chance
    total = chance @ count
    with np.errstate(divide="ignore", invalid="ignore"):
        correction = (moved @ count) / total
    # So far outside that every level is equally unlikely: the nearest level of the class.
    nearest = np.clip(read, first[0], last[-1]) - read
    correction = np.where(total > _LEAST_CHANCE, correction, nearest)
    return Table(low, step, correction.astype(np.float16).astype(np.float32))


def gain_of(written: Written) -> float:
    """Return Σw² / Σw·E[ŵ] of a tensor, ŵ by the posterior mean; 1 where that is no positive number.

    The mean over reads is taken at 512 levels, and interpolated between.
    """
    expected = np.zeros(written.level.size)
    for number, cells in enumerate(written.tables):
        chosen = written.table_index == number
        if not cells or not chosen.any():
            continue
        level = np.linspace(*written.channel.span, _BINS)
        mean, std = _moments(written, level, cells)
        estimate = over_reads(table_of(written, number).at, mean, std)
        expected[chosen] = np.interp(written.level[chosen], level, estimate)
    alpha, beta = (written.of_each(values).astype(np.float64) for values in (written.alpha, written.beta))
    return gain_factor((written.level + beta) / alpha, (expected + beta) / alpha)


# ------------------------------------------------------------------------------------------------------ names

_KNOWN: dict[str, Estimator] = {
    "affine": Affine(),
    "clipped": Clipped(),
    "posterior": Posterior(),
    "unbiased": Unbiased(),
}


def names() -> tuple[str, ...]:
    """Return the names of the estimators of the package."""
    return tuple(name for name in _KNOWN if ":" not in name)


def estimator(name: str) -> Estimator:
    """Return the estimator called `name`, or the class that `module:Class` names.

    Raises
    ------
    OptionError
        If there is none.
    """
    if name not in _KNOWN:
        if ":" not in name:
            raise OptionError(
                f"no estimator is called {name!r}: choose from {', '.join(names())}, or name module:Class"
            )
        from onnx_analog.named import named_function

        kind = named_function(name)
        if not (isinstance(kind, type) and issubclass(kind, Estimator)):
            raise OptionError(f"{name!r} is not a subclass of onnx_analog.coding.estimators.Estimator")
        _KNOWN[name] = kind()
    return _KNOWN[name]


def remember(name: str, kind: type[Estimator]) -> None:
    """Let a name stand for a class of estimators that another process has sent, in place of an earlier one."""
    _KNOWN[name] = kind()


class NotLoaded(OptionError):  # noqa: N818 - the name says what happened; the file is not at fault
    """A file names an estimator whose module was not imported."""


def check_known(name: object) -> None:
    """Raise `NotLoaded` if a file names an estimator whose module was not imported: reading a file imports none."""
    if not isinstance(name, str) or ":" not in name or name in _KNOWN:
        return
    module, _, kind = name.partition(":")
    loaded = getattr(sys.modules.get(module), kind, None)
    if not (isinstance(loaded, type) and issubclass(loaded, Estimator)):
        raise NotLoaded(f"the estimator {name[:60]!r} is not loaded: {IMPORT_FIRST}")
    _KNOWN[name] = loaded()
