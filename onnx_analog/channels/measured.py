"""Channels from measurements: pairs of (programmed input, read output) of any device.

Inputs and outputs are scaled to [-1, 1] by their extremes (Isik et al. 2020, appendix A). At each distinct input, the
mean is that of all reads at its k nearest distinct inputs, weighted equally, and σ is the root mean square of those
reads about that mean; both are linear between inputs.
"""

from __future__ import annotations

import csv as csv_module
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Doubles, Floats, GaussianChannel, Source, Span, State, common
from onnx_analog.channels.inverse import Inverse
from onnx_analog.disk.reading import MIB, size_of
from onnx_analog.errors import ChannelError
from onnx_analog.serialise import conform, require_int

KNOTS = 1024  # rows of a table at most
_MOST = 1e6  # of what is scaled to -1 to 1; beyond it, slopes lose their digits
_ROUNDED = 1e-9
_CSV_LIMIT = 64 * MIB
_MOST_ROWS = 1_000_000
RESIDUALS = 1024  # kept at each input at most
_NOTHING = 1e-9  # means that differ by less are equal
_TIE = 1e-9  # distances on the scale of -1 to 1 that differ by less are equal
_LARGEST = 1e150  # of measured numbers: their squares are numbers too
_ROUNDING = 1e-14  # variances below it are rounding

_UNKNOWN = Source(citation="a table whose origin is not said")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a device's own unit is scaled to [-1, 1]: linearly, or by the logarithm.

    Parameters
    ----------
    low, high : float
        What becomes -1 and 1, in `unit`.
    unit : str
        Name of the measured column, unit included.
    log : bool
        Scale log10 of the value.

    Raises
    ------
    ChannelError
        If low is not below high, the two are too far apart for a float, or the logarithm of one does not exist.

    Examples
    --------
    >>> resistance = Scale(low=1e4, high=1e6, unit="resistance_ohm", log=True)
    >>> resistance.apply(np.array([1e4, 1e5, 1e6]))
    array([-1.,  0.,  1.])
    >>> float(resistance.undo(np.array([0.0]))[0])
    100000.0
    """

    low: float
    high: float
    unit: str = ""
    log: bool = False

    def __post_init__(self) -> None:
        try:
            conform(self)
        except TypeError as error:
            raise ChannelError(f"scale of {str(self.unit)!r}: {error}") from error
        if self.log and not self.low > 0:
            raise ChannelError(f"scale of {self.unit!r}: low is {self.low:g}, so has no logarithm; it must be above 0")
        low, high = self._ends()
        if not (low < high and math.isfinite(high - low)):
            raise ChannelError(f"scale of {self.unit!r} is {self.low:g} to {self.high:g}; low must be below high")

    def apply(self, value: Doubles) -> Doubles:
        """Return `value`, given in `unit`, on the scale of -1 to 1."""
        low, high = self._ends()
        return 2 * ((np.log10(value) if self.log else value) - low) / (high - low) - 1

    def undo(self, scaled: Doubles) -> Doubles:
        """Return `scaled`, on the scale of -1 to 1, in `unit`."""
        low, high = self._ends()
        value: Doubles = low + (scaled + 1) / 2 * (high - low)
        return 10**value if self.log else value

    def _ends(self) -> tuple[float, float]:
        return (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class TableChannel(GaussianChannel):
    """A conditional Gaussian channel whose mean and standard deviation are tables over the input.

    Parameters
    ----------
    name : str
        What the channel is called.
    inputs : tuple of float, shape (n,), n from 2 to 1,024, increasing
        Programmed inputs, scaled to -1 to 1.
    means, stds : tuples of float, shape (n,)
        Mean and standard deviation of a read, scaled to -1 to 1.
    input_scale, output_scale : Scale
        Device units of inputs and outputs.
    provenance : Source
        Where the measurements come from.
    neighbours, pairs : int
        k of the mean, and how many pairs were measured.
    between : tuple of float, shape (n,), from 0 to `stds`, or empty
        The part of `stds` that is between devices, so that the reads of one device share it; empty if not known.
    cells_on : {"different", "same"}
        Whether the cells of one weight are on independently drawn devices, or on one, where averaging leaves `between`.
    residuals : tuple of n tuples of float, none of them empty, or empty
        Equally likely standardised residuals at each input, for `EmpiricalChannel`; empty if not known.

    Raises
    ------
    ChannelError
        If the table describes no channel.
    """

    family: ClassVar[str] = "table"

    name: str
    inputs: tuple[float, ...] = field(repr=False)
    means: tuple[float, ...] = field(repr=False)
    stds: tuple[float, ...] = field(repr=False)
    input_scale: Scale = Scale(low=-1.0, high=1.0)
    output_scale: Scale = Scale(low=-1.0, high=1.0)
    provenance: Source = field(default=_UNKNOWN, repr=False)
    neighbours: int = 1
    pairs: int = 0
    between: tuple[float, ...] = field(default=(), repr=False)
    cells_on: str = "different"
    residuals: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_columns()
        self._check_options()
        self._check_residuals()

    def _check_columns(self) -> None:
        inputs, means, stds = (np.array(column, np.float64) for column in (self.inputs, self.means, self.stds))
        lengths = {inputs.size, means.size, stds.size}
        if len(lengths) > 1 or not 2 <= inputs.size <= KNOTS:
            raise ChannelError(
                f"channel {self.name!r}: its columns have lengths {sorted(lengths)}; 2 to {KNOTS:,}, all equal"
            )
        if max(np.abs(column).max() for column in (inputs, means, stds)) > _MOST:
            raise ChannelError(
                f"channel {self.name!r}: its table holds numbers beyond {_MOST:g}; they are scaled to -1 to 1"
            )
        if (np.diff(inputs) <= 0).any() or (stds < 0).any():
            raise ChannelError(f"channel {self.name!r}: inputs must increase and standard deviations not be negative")
        if np.ptp(means) <= _NOTHING:
            raise ChannelError(f"channel {self.name!r} returns the same mean for every input: it can hold nothing")

    def _check_options(self) -> None:
        if self.neighbours < 1 or self.pairs < 0:
            raise ChannelError(
                f"channel {self.name!r}: neighbours is {self.neighbours} and pairs {self.pairs}; 1 and 0 are the least"
            )
        if self.cells_on not in ("different", "same"):
            raise ChannelError(f"channel {self.name!r}: cells are on different or same devices, not {self.cells_on!r}")
        if self.cells_on == "same" and not self.between:
            raise ChannelError(
                f"channel {self.name!r} does not know what cells on one device share: fit it with a column of devices"
            )
        for name in ("between", "residuals"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.inputs):
                raise ChannelError(
                    f"channel {self.name!r}: {name} has {len(getattr(self, name))} entries, not one an input"
                )

    def _check_residuals(self) -> None:
        between, stds = np.array(self.between), np.array(self.stds)
        if between.size and not ((between >= 0) & (between <= stds * (1 + _ROUNDED) + _ROUNDED)).all():
            raise ChannelError(f"channel {self.name!r}: between must be from 0 to the standard deviation")
        for place, row in enumerate(self.residuals):
            if not row or max(map(abs, row)) > _MOST:
                raise ChannelError(
                    f"channel {self.name!r}: residuals[{place}] {'is empty' if not row else f'goes beyond {_MOST:g}'}; "
                    "there must be one or more, standardised, at each input"
                )

    @property
    def source(self) -> Source:
        """Where the measurements come from."""
        return self.provenance

    @property
    def span(self) -> Span:
        """The lowest and the highest mean read."""
        return min(self.means), max(self.means)

    @cached_property
    def inverse(self) -> Inverse:
        """F = μ⁻¹: of several preimages the one of least σ, ties to the smaller input."""
        return Inverse(np.array(self.inputs), np.array(self.means), np.array(self.stds))

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return σ(f(level)); see `GaussianChannel.std`."""
        self.check(level)
        return self.inverse.std(level)

    def shared_std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return what cells on the same device share; see `GaussianChannel.shared_std`."""
        if self.cells_on == "different":
            return np.zeros(level.shape)
        return np.minimum(np.interp(self.inverse.input(level), self.inputs, self.between), self.std(level))

    @property
    def independent(self) -> bool:
        """Whether the cells of one weight are on different devices."""
        return self.cells_on == "different"

    @property
    def measurements(self) -> TableChannel:
        """The channel itself."""
        return self

    def changed(self, *, residuals: str | None = None, cells_on: str | None = None, **others: Any) -> Channel:
        """Return the channel with these changes; see `Channel.changed`."""
        table = self if cells_on is None else replace(self, cells_on=cells_on)
        if residuals != "empirical":
            return Channel.changed(table, **others)
        from onnx_analog.channels.empirical import EmpiricalChannel  # which is made from a table

        return EmpiricalChannel(table=table).changed(**others)

    def written(self, level: Floats, rng: np.random.Generator, *, bits: int = 0) -> State:
        """Return mean and σ of each weight's cells; see `Channel.written`."""
        inputs = self.nearest_inputs(level, bits)
        mean, std = (np.interp(inputs, self.inputs, column) for column in (self.means, self.stds))
        shared = np.zeros(inputs.shape) if self.independent else np.interp(inputs, self.inputs, self.between)
        return common(mean, std, np.minimum(shared, std), rng)

    def nearest_inputs(self, level: NDArray[np.floating[Any]], bits: int) -> Doubles:
        """Return f(level), or the best of 2^bits equally spaced inputs: the one whose mean read is nearest to `level`.

        Ties go to the smaller input; `bits` is 0 where all inputs can be written.
        """
        if not bits:
            return self.inverse.input(level)
        grid = np.linspace(self.inputs[0], self.inputs[-1], 2**bits)
        means = np.interp(grid, self.inputs, self.means)
        order = np.argsort(means, kind="stable")
        middles = (means[order][1:] + means[order][:-1]) / 2
        chosen: Doubles = grid[order][np.searchsorted(middles, level)]
        return chosen

    def programmed(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return f(level) in the device's own unit, `input_scale.unit`: what is to be written to the cells."""
        self.check(level)
        return self.input_scale.undo(self.inverse.input(level))

    def __str__(self) -> str:
        return self.name if self.cells_on == "different" else f"{self.name} (cells of a weight on one device)"


def from_pairs(
    inputs: Doubles,
    outputs: Doubles,
    *,
    devices: NDArray[Any] | None = None,
    neighbours: int = 1,
    name: str = "measured",
    units: tuple[str, str] = ("input", "output"),
    log: bool = False,
    source: Source | None = None,
    residuals: int = RESIDUALS,
) -> TableChannel:
    """Return the channel that (input, output) pairs describe. Their order does not matter.

    Parameters
    ----------
    inputs, outputs : float arrays of shape (pairs,)
        In the device's own units.
    devices : array of shape (pairs,), optional
        Which device each pair was measured on; splits the variance into what is between devices and what is within.
    neighbours : int, from 1 to the number of distinct inputs
        k: how many distinct inputs share their reads; ties in distance go to the smaller input.
    name : str
        What the channel is to be called.
    units : tuple of str
        Names of inputs and outputs, with their units.
    log : bool
        Scale log10 of the outputs, as for resistances.
    source : Source, optional
        Where the pairs come from.
    residuals : int, >= 1
        How many are kept at each input at most, for `EmpiricalChannel`.

    Returns
    -------
    TableChannel
        Of all distinct inputs, or of 1,024 of them, equally spread, where there are more.

    Raises
    ------
    ChannelError
        If the pairs describe no channel: what is wrong, and in which column.
    """
    pairs = Pairs.of(inputs, outputs, devices=devices, name=name, units=units, log=log)
    return pairs.channel(neighbours, source=source, residuals=residuals)


class Pairs(NamedTuple):
    """Measured pairs on the scale of -1 to 1, sorted, so that no sum depends on the order of rows.

    Attributes
    ----------
    inputs, outputs : float arrays of shape (pairs,)
    labels : int array of shape (pairs,), or None
        Number of the device that a pair was measured on.
    scales : (Scale, Scale)
        Of inputs and outputs.
    name : str
    """

    inputs: Doubles
    outputs: Doubles
    labels: NDArray[np.intp] | None
    scales: tuple[Scale, Scale]
    name: str

    @staticmethod
    def of(
        inputs: Doubles,
        outputs: Doubles,
        *,
        devices: NDArray[Any] | None,
        name: str,
        units: tuple[str, str],
        log: bool,
    ) -> Pairs:
        """Check, scale and sort pairs in a device's own units; see `from_pairs`."""
        inputs, outputs = (_floats(column, unit, name) for column, unit in zip((inputs, outputs), units, strict=True))
        _check_pairs(inputs, outputs, name=name, units=units, log=log)
        ends = [(float(column.min()), float(column.max())) for column in (inputs, outputs)]
        try:
            scales = (
                Scale(low=ends[0][0], high=ends[0][1], unit=units[0]),
                Scale(low=ends[1][0], high=ends[1][1], unit=units[1], log=log),
            )
        except ChannelError as error:
            raise ChannelError(f"channel {name!r}: {error}") from error
        labels = None if devices is None else np.unique(np.asarray(devices), return_inverse=True)[1]
        if labels is not None and labels.shape != inputs.shape:
            raise ChannelError(f"channel {name!r}: devices {labels.shape} are not one a pair {inputs.shape}")
        order = np.lexsort((outputs, inputs) if labels is None else (labels, outputs, inputs))
        ordered = None if labels is None else labels[order]
        return Pairs(scales[0].apply(inputs[order]), scales[1].apply(outputs[order]), ordered, scales, name)

    def channel(self, neighbours: int, *, source: Source | None, residuals: int = RESIDUALS) -> TableChannel:
        """Return the channel that the pairs describe; see `from_pairs`."""
        try:
            neighbours, residuals = require_int(neighbours, "neighbours"), require_int(residuals, "residuals")
        except TypeError as error:
            raise ChannelError(f"channel {self.name!r}: {error}") from error
        if residuals < 1:
            raise ChannelError(f"channel {self.name!r}: residuals is {residuals}; at least one is kept at each input")
        reads = Reads.of(self.inputs, self.outputs)
        if not 1 <= neighbours <= reads.distinct.size:
            raise ChannelError(
                f"channel {self.name!r} has {reads.distinct.size} distinct inputs: neighbours is {neighbours}"
            )
        knots = knots_of(reads.distinct)
        means, stds = reads.moments(knots, neighbours)
        windows = [reads.window(knot, neighbours) for knot in knots]
        return TableChannel(
            name=self.name,
            inputs=tuple(knots.tolist()),
            means=tuple(means.tolist()),
            stds=tuple(stds.tolist()),
            input_scale=self.scales[0],
            output_scale=self.scales[1],
            provenance=source or Source(citation="measured pairs"),
            neighbours=neighbours,
            pairs=self.inputs.size,
            between=self._between(windows, stds),
            residuals=tuple(
                _residuals(self.outputs[window], float(std), residuals)
                for window, std in zip(windows, stds, strict=True)
            ),
        )

    def _between(self, windows: Sequence[slice], stds: Doubles) -> tuple[float, ...]:
        """Return the standard deviation between devices at each input: the whole variance less that within them.

        Within is the sum of squares about each device's own mean over reads less devices, which has no bias; where each
        device was read once, that of all inputs together.
        """
        if self.labels is None:
            return ()
        parts = [_within(self.outputs[window], self.labels[window]) for window in windows]
        squares, freedom = (np.array(column) for column in zip(*parts, strict=True))
        if not freedom.any():
            raise ChannelError(
                f"channel {self.name!r}: each device was read once at each input, so what its reads share is not known"
            )
        pooled = squares.sum() / freedom.sum()
        within = np.where(freedom > 0, squares / np.maximum(freedom, 1), pooled)
        return tuple(np.sqrt(np.maximum(stds**2 - within, 0)).tolist())


class Reads(NamedTuple):
    """Pairs on the scale of -1 to 1, in the order of the inputs."""

    distinct: Doubles  # inputs (d,)
    outputs: Doubles  # (pairs,)
    starts: NDArray[np.intp]  # of each distinct input's reads, and the end of the last (d + 1,)

    @staticmethod
    def of(inputs: Doubles, outputs: Doubles) -> Reads:
        """Return the reads of sorted `inputs`."""
        distinct, first = np.unique(inputs, return_index=True)
        return Reads(distinct, outputs, np.append(first, inputs.size))

    def window(self, knot: float, neighbours: int) -> slice:
        """Return where the reads of the `neighbours` distinct inputs nearest to `knot` are."""
        left = int(self._left(np.array([knot]), neighbours)[0])
        return slice(int(self.starts[left]), int(self.starts[left + neighbours]))

    def moments(self, knots: Doubles, neighbours: int) -> tuple[Doubles, Doubles]:
        """Return mean, and root mean square about it, of the reads near each of `knots`."""
        left = self._left(knots, neighbours)
        first, end = self.starts[left], self.starts[left + neighbours]
        sums = [np.append(0, np.cumsum(self.outputs**power)) for power in (1, 2)]
        mean, square = ((total[end] - total[first]) / (end - first) for total in sums)
        variance = square - mean**2
        return mean, np.sqrt(np.where(variance > _ROUNDING, variance, 0))

    def _left(self, knots: Doubles, neighbours: int) -> NDArray[np.intp]:
        """Return the first of the nearest distinct inputs: these stand side by side, so one border is enough."""
        borders = (self.distinct[:-neighbours] + self.distinct[neighbours:]) / 2
        tie = min(_TIE, float(np.diff(self.distinct).min(initial=4 * _TIE)) / 4)
        return np.searchsorted(borders, knots - tie)


def knots_of(distinct: Doubles) -> Doubles:
    """Return the inputs that a table is made for: all of them, or as many as a table holds."""
    if distinct.size <= KNOTS:
        return distinct
    return distinct[np.linspace(0, distinct.size - 1, KNOTS).round().astype(np.intp)]


def _within(reads: Doubles, labels: NDArray[np.intp]) -> tuple[float, int]:
    """Return the sum of squares of reads about the mean of their device, and reads less devices."""
    count = np.bincount(labels)
    mean = np.bincount(labels, reads) / np.maximum(count, 1)
    return float(np.sum((reads - mean[labels]) ** 2)), int(reads.size - np.count_nonzero(count))


def _residuals(reads: Doubles, std: float, most: int) -> tuple[float, ...]:
    """Return equally likely standardised residuals: of all reads, or the means of `most` equally full bins of them.

    They are standardised by the reads' own mean and `std`, so a rare event keeps its size and all others theirs.
    """
    if std == 0:
        return (0.0,)
    residuals = (np.sort(reads) - reads.mean()) / std
    if residuals.size > most:  # means of the distribution's inverse over `most` equal shares, which may part a read
        sums = np.append(0, np.cumsum(residuals))
        borders = np.linspace(0, residuals.size, most + 1)
        residuals = np.diff(np.interp(borders, np.arange(sums.size), sums)) * most / residuals.size
    return tuple(residuals.round(4).tolist())


def _floats(column: Any, unit: str, name: str) -> Doubles:
    found = np.asarray(column)
    if found.dtype.kind not in "iuf":
        raise ChannelError(f"channel {name!r}: column {unit!r} holds what is no number ({found.dtype})")
    return found.astype(np.float64)


def _check_pairs(inputs: Doubles, outputs: Doubles, *, name: str, units: tuple[str, str], log: bool) -> None:
    if inputs.shape != outputs.shape or inputs.ndim != 1:
        raise ChannelError(f"channel {name!r}: inputs {inputs.shape} and outputs {outputs.shape} are not pairs")
    for column, unit in zip((inputs, outputs), units, strict=True):
        bad = np.flatnonzero(~(np.abs(column) <= _LARGEST))
        if bad.size:
            what = f"{column[bad[0]]:g}, which is no number up to {_LARGEST:g}"
            raise ChannelError(f"channel {name!r}: column {unit!r} holds {what}, first in data row {bad[0] + 1}")
        if np.unique(column).size < 2:
            raise ChannelError(f"channel {name!r}: column {unit!r} holds fewer than two distinct values")
    if log and outputs.min() <= 0:
        row = int(np.argmin(outputs)) + 1
        raise ChannelError(
            f"channel {name!r}: column {units[1]!r} holds {outputs.min():g} in data row {row}, so has no logarithm"
        )


def measured(
    *,
    csv: str,
    input: str,  # noqa: A002 - what the command line calls it
    output: str,
    log: bool = False,
    neighbours: int = 1,
    group: str = "",
) -> TableChannel:
    """Return the channel of a CSV file of pairs.

    Parameters
    ----------
    csv : str
        A file with a header line; lines that start with # are passed over.
    input, output : str
        Names of the two columns.
    log : bool
        Scale log10 of the output.
    neighbours : int
        k of the mean; see `from_pairs`.
    group : str, optional
        Name of the column that says which device a pair was measured on.
    """
    inputs, outputs = read_columns(Path(csv), (input, output))
    return from_pairs(
        inputs,
        outputs,
        devices=read_labels(Path(csv), group) if group else None,
        neighbours=neighbours,
        name=Path(csv).stem,
        units=(input, output),
        log=log,
        source=Source(citation=f"{Path(csv).name}: {output} against {input}, {inputs.size:,} pairs"),
    )


def read_columns(path: Path, names: Sequence[str]) -> list[Doubles]:
    """Return columns of a CSV file as float arrays of shape (rows,).

    Raises
    ------
    ChannelError
        If the file or a column is missing, a line has another number of cells than the header, a cell is no finite
        number, or there is more than 64 MiB, 1,000,000 rows, or 1 MiB in a line.
    """
    found = (
        _number(cell, name, f"{str(path)!r}, line {line}")
        for line, cells in _rows(path, names)
        for name, cell in zip(names, cells, strict=True)
    )
    columns = np.fromiter(found, np.float64).reshape(-1, len(names)).T
    if not columns.size:
        raise ChannelError(f"{str(path)!r} has no rows")
    return list(columns)


def read_labels(path: Path, name: str) -> NDArray[np.intp]:
    """Return one column of a CSV file, distinct texts numbered in their order (rows,); raises as `read_columns`."""
    numbers: dict[str, int] = {}
    found = []
    for line, (label,) in _rows(path, [name]):
        if not label:
            raise ChannelError(f"{str(path)!r}, line {line}: column {name!r} is empty")
        found.append(numbers.setdefault(label, len(numbers)))
    ranks = {number: rank for rank, (_, number) in enumerate(sorted(numbers.items()))}
    return np.array([ranks[number] for number in found], np.intp)  # the same, however the rows are ordered


def _rows(path: Path, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line below the header of a CSV file, and its cells in the columns `names`."""
    if len(set(names)) < len(names):
        raise ChannelError(f"{str(path)!r}: input and output are both column {names[0]!r}")
    lines = _lines(path)
    _, header = next(lines, (0, []))
    _check_header(path, header, names)
    places = [header.index(name) for name in names]
    for count, (line, cells) in enumerate(lines):
        if count == _MOST_ROWS:
            raise ChannelError(f"{str(path)!r} has more than {_MOST_ROWS:,} rows: fit a part of them, drawn at random")
        if len(cells) != len(header):
            raise ChannelError(f"{str(path)!r}, line {line} has {len(cells)} cells, and the header {len(header)}")
        yield line, [cells[place] for place in places]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line, but for those that are empty or start with #."""
    size = size_of(path, error=ChannelError)
    if size > _CSV_LIMIT:
        raise ChannelError(f"{str(path)!r} has {size:,} bytes, more than the {_CSV_LIMIT:,} that are read")
    line = 0
    try:
        with path.open(encoding="utf-8-sig") as file:  # a byte order mark is passed over
            for line, text in enumerate(file, 1):
                if len(text) > MIB:
                    raise ChannelError(f"{str(path)!r}, line {line} has more than {MIB:,} characters")
                if text.strip() and not text.startswith("#"):
                    (cells,) = csv_module.reader([text], skipinitialspace=True, strict=True)
                    yield line, [cell.strip() for cell in cells]
    except csv_module.Error as error:
        raise ChannelError(f"{str(path)!r}, line {line} is no CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise ChannelError(f"{str(path)!r} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise ChannelError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _check_header(path: Path, header: Sequence[str], names: Sequence[str]) -> None:
    for name in names:
        if header.count(name) != 1:
            several = "more than one" if name in header else "no"
            known = ", ".join(header) or "none"
            hint = ". Part columns by commas." if ";" in known or "\t" in known else ""
            raise ChannelError(f"{str(path)!r} has {several} column {name!r}; its columns are {known}{hint}")


def _number(cell: str, name: str, where: str) -> float:
    try:
        plain = cell.isascii() and "_" not in cell  # Python takes 1_000 for a thousand, and digits of other scripts
        found = float(cell if plain else "no number")
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        shown = f"holds {cell[:40]!r}, which is no finite number" if cell else "is empty"
        raise ChannelError(f"{where}: column {name!r} {shown}")
    return found
