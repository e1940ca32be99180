"""The protocol that every channel follows.

A channel C models a device: an input x is programmed, and read = μ(x) + σ(x)·ξ. With the inverse f = μ⁻¹, which finds
the input whose mean read is the level that is wanted, φ = C∘f is the identity plus noise (Isik et al. 2020, section 2):

    φ(level) = level + σ(f(level))·ξ/√r     for r independent cells that are averaged, ξ standard normal

That is the exact law of the average of r Gaussian reads, so one normal draw per level is enough, whatever r is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.ranges import Doubles as Doubles
from onnx_analog.channels.ranges import Floats as Floats
from onnx_analog.channels.ranges import Span as Span
from onnx_analog.channels.ranges import clip_to_range, rounded
from onnx_analog.channels.separation import Separated
from onnx_analog.channels.separation import State as State
from onnx_analog.errors import ChannelError, LevelError
from onnx_analog.randomness import stream
from onnx_analog.serialise import conform, to_json_dict

if TYPE_CHECKING:
    from onnx_analog.channels.table import TableChannel

Cells = int | NDArray[np.integer[Any]]

_CHUNK = 2**16  # levels
READS = 20_000  # of each level, where a law has no closed form
_NOT_OFFERED = {
    "residuals": "was not measured pair by pair, so it has no residuals to choose",
    "cells_on": "does not tell devices apart, so the cells of a weight cannot be put on one: use a measured channel",
    "read_after_s": "does not change with time: choose a channel that does, such as pcm-drift or rram-wan",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a channel's numbers come from, and what they leave out."""

    citation: str
    figure: str = ""
    licence: str = ""
    left_out: str = ""

    def __str__(self) -> str:
        return "; ".join(part for part in (self.citation, self.figure) if part)


class Prepared(Protocol):
    """Levels that are read again and again: `Channel.prepared` returns one."""

    def read(self, block: slice, rng: np.random.Generator, out: Floats) -> None:
        """Read one block of the levels into `out`, as `Channel.read` reads that block alone."""


_LARGEST = 1e150  # of a channel's numbers, so that their squares and sums are numbers too


def _numbers_in(value: Any) -> Iterator[Doubles]:
    """Yield the floats in a field: in tuples and dataclasses too, but in other channels, which check their own."""
    if isinstance(value, float) or (isinstance(value, tuple) and all(isinstance(entry, float) for entry in value)):
        yield np.atleast_1d(np.array(value, np.float64))
    elif isinstance(value, tuple):
        for entry in value:
            yield from _numbers_in(entry)
    elif is_dataclass(value) and not isinstance(value, Channel | type):
        for field in fields(value):
            yield from _numbers_in(getattr(value, field.name))


class Channel(ABC):
    """A model of memory cells: it takes levels and returns noisy levels (φ).

    Subclasses are frozen dataclasses: equal channels give equal laws, and a channel can be pickled to a worker, written
    into a model's metadata and printed as it stands. `family` is the name from which a file builds the channel again:
    that of the class's entry point, or "module:Class" where a class does not set it.
    """

    family: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "family" not in cls.__dict__:  # not that of the base class, which would build another channel
            cls.family = f"{cls.__module__}:{cls.__qualname__}"

    def __post_init__(self) -> None:
        """Check all fields against their annotations; a family that overrides this calls it first.

        Raises
        ------
        ChannelError
            If a field is of another type, a number is beyond 1e150 in magnitude, or a whole number has a fraction.
        """
        try:
            conform(self)
        except TypeError as error:
            raise ChannelError(f"channel {self.family}: {error}") from error
        for field in fields(self):  # type: ignore[arg-type]  # every channel is a dataclass
            for numbers in _numbers_in(getattr(self, field.name)):
                wrong = numbers[~(np.abs(numbers) <= _LARGEST)]
                if wrong.size:
                    raise ChannelError(
                        f"channel {self.family}: {field.name} is {wrong[0]:g}; it must be at most {_LARGEST:g} in "
                        "magnitude"
                    )

    def __str__(self) -> str:
        """Return the family and its settings; families say it in words of their own."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # every channel is a dataclass
        settings = ",".join(f"{name}={getattr(self, name)}" for name in names)
        return f"{self.family}:{settings}" if settings else self.family

    # ----------------------------------------------------------------------------- every channel defines these

    @property
    @abstractmethod
    def span(self) -> Span:
        """Return the lowest and the highest level that φ can hold."""

    @property
    @abstractmethod
    def source(self) -> Source:
        """Return where the numbers come from."""

    @abstractmethod
    def read(self, level: Floats, *, cells: Cells, rng: np.random.Generator) -> Floats:
        """Return the average read of cells that were programmed to hold `level`.

        Parameters
        ----------
        level : float32 array of shape (n,)
            Levels inside `span`.
        cells : int or int array of shape (n,), >= 1
            Cells that are averaged for each level.
        rng : numpy Generator
            The only source of randomness.

        Returns
        -------
        float32 array of shape (n,)
            Levels read; not clipped.

        Raises
        ------
        LevelError
            If a level lies outside `span`.
        """

    # ------------------------------------------------------------------- these have defaults that may be overridden

    @property
    def devices_per_cell(self) -> int:
        """Return how many memory elements one cell takes: more than one where values are held as differences."""
        return 1

    @property
    def polarity(self) -> tuple[int, ...] | None:
        """Return the sign with which each device of a cell counts; None if it is not known what each one is to hold.

        A device of sign p holds what max(p·level, 0) is, and a read of the cell is the sum of p times their reads.
        """
        return (1,) if self.devices_per_cell == 1 else None

    @property
    def most_cells(self) -> int | None:
        """Return how many cells of a weight can be averaged, or None where their number costs nothing."""
        return None

    @property
    def normal(self) -> bool:
        """Return whether reads are normal about the level, so that `moments` are their whole law."""
        return False

    @property
    def independent(self) -> bool:
        """Return whether the cells of one weight are known to share nothing, so that variances fall as 1/cells."""
        return False

    @property
    def measurements(self) -> TableChannel | None:
        """Return the table over programmed inputs that this channel reads from, or None if there is none."""
        return None

    @property
    def separated(self) -> Separated | None:
        """Return the programming and the reading of single cells, or None if the channel does not separate the two."""
        return None

    def moments(self, level: NDArray[np.floating[Any]], *, cells: int = 1) -> tuple[Doubles, Doubles]:
        """Return mean and standard deviation of the average read of `cells` cells at each level.

        They are exact where the law has a closed form. Where it has none, this estimates them from 20,000 reads of each
        level: the same each time, and the same whatever the other levels. The mean's standard error is then std/141,
        and that of std is std·√(excess kurtosis + 2)/283, which is 0.5 % for a normal law.

        Parameters
        ----------
        level : float array of shape (n,)
            Levels inside `span`.
        cells : int, >= 1

        Returns
        -------
        mean, std : float64 arrays of shape (n,)

        Raises
        ------
        LevelError
            If a level lies outside `span`.
        """
        self.check(level)
        single = 1 if self.independent else cells
        mean, variance, _ = estimated(self, level, cells=single)
        return mean, np.sqrt(variance / (cells / single))

    def prepared(self, level: Floats, cells: Cells) -> Prepared:
        """Return a reader of these levels that computes once all that is the same in every trial.

        Parameters
        ----------
        level : float32 array of shape (n,)
            Levels inside `span`; kept, not copied.
        cells : int or int array of shape (n,), >= 1

        Raises
        ------
        LevelError
            If a level lies outside `span`.
        """
        self.check(level)
        return _Direct(self, level, cells)

    def changed(
        self,
        *,
        residuals: str | None = None,
        cells_on: str | None = None,
        cells_hold: str | None = None,
        read_after_s: float | None = None,
        write_bits: int | None = None,
        read_bits: int | None = None,
    ) -> Channel:
        """Return this channel with some properties changed; None leaves a property as it is.

        A change replaces the field of the same name. Without such a field, bits limit the channel's precision, cells
        hold residuals if the channel is `separated`, and any other change is refused.
        `onnx_analog.channels.modifiers.Modifiers` describes each change.

        Raises
        ------
        ChannelError
            If the channel does not have a property, or does not accept its value.
        """
        given = {
            "residuals": residuals,
            "cells_on": cells_on,
            "cells_hold": cells_hold,
            "read_after_s": read_after_s,
            "write_bits": write_bits,
            "read_bits": read_bits,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        names = {field.name for field in fields(self) if field.init}  # type: ignore[arg-type]  # a dataclass
        own = {name: value for name, value in changes.items() if name in names}
        for name, why in _NOT_OFFERED.items():
            if name in changes and name not in own:
                raise ChannelError(f"{self} {why}")
        limits: dict[str, Any] = {name: value for name, value in changes.items() if name not in own}
        return _wrapped(self._replaced(**own) if own else self, **limits)

    def _replaced(self, **values: Any) -> Channel:
        try:
            return replace(self, **values)  # type: ignore[type-var]  # likewise
        except ChannelError:
            raise
        except Exception as error:  # whatever a channel of another package raises
            raise ChannelError(f"channel {self.family}: {str(error) or type(error).__name__}") from error

    def programmed(self, level: NDArray[np.floating[Any]]) -> Doubles | None:
        """Return the input that is programmed for each level, in the device's own unit; None if it is not known."""
        self.check(level)
        return None

    def written(self, level: Floats, rng: np.random.Generator, *, bits: int = 0) -> State:  # noqa: ARG002 - for others
        """Return the state that the cells of each weight share once written; `read_cell` then reads cell by cell.

        Parameters
        ----------
        level : float32 array of shape (n,)
        rng : numpy Generator
        bits : int, 0 to 16
            Only 2^bits equally spaced inputs can be written, the nearest is; 0 for no limit.

        Returns
        -------
        tuple of arrays whose first axis is that of `level`
        """
        return (self._nearest_level(level, bits),)

    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read (n,) of one cell of each weight, independent of other calls given the state."""
        return self.read(state[0], cells=1, rng=rng)

    # ---------------------------------------------------------------------------------- the same for all channels

    def to_dict(self) -> dict[str, Any]:
        """Return family and fields, ready for JSON; `onnx_analog.channels.from_dict` is the inverse."""
        return {"family": self.family, **to_json_dict(self)}

    def check(self, level: NDArray[np.floating[Any]]) -> None:
        """Raise `LevelError` if a level lies outside the span."""
        if not level.size:
            return
        low, high = self.span
        lowest, highest = float(level.min()), float(level.max())
        if not (low <= lowest and highest <= high):
            raise LevelError(
                f"levels run from {lowest:.4g} to {highest:.4g}, but {self} holds {low:.4g} to {high:.4g}. "
                "Protect the model for this channel"
            )

    def _nearest(self, level: Floats, bits: int) -> Doubles:
        """Return the levels that can be written, nearest to `level`, where input and level are one."""
        exact = level.astype(np.float64)
        return rounded(exact, self.span, bits) if bits else exact

    def _nearest_level(self, level: Floats, bits: int) -> Floats:
        """Return the levels of `_nearest` as `read` takes them: float32, inside the span."""
        return clip_to_range(self._nearest(level, bits).astype(np.float32), self.span)

    def _sample(self, level: Floats, rng: np.random.Generator, *, cells: int) -> NDArray[np.floating[Any]]:
        """Return reads of `cells` cells, averaged, from which `moments` are estimated: of shape (1, n).

        A channel may return those of two cells of each weight instead, (2, n), which tell their covariance too.
        """
        return self.read(level, cells=cells, rng=rng)[None]


class GaussianChannel(Channel):
    """A channel whose noise is normal and independent from cell to cell; `std` says how large it is."""

    @abstractmethod
    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return the standard deviation σ(f(level)) of one cell's read, in the unit of the level.

        Parameters
        ----------
        level : float array of shape (n,)
            Levels inside `span`.

        Returns
        -------
        float64 array of shape (n,)

        Raises
        ------
        LevelError
            If a level lies outside `span`.
        """

    def shared_std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return the part of `std` that the cells of one weight share, and that averaging leaves: 0 unless said."""
        return np.zeros(level.shape)

    @property
    def normal(self) -> bool:
        """True."""
        return True

    @property
    def independent(self) -> bool:
        """Return whether `shared_std` is 0 all over the span."""
        return not self.shared_std(clip_to_range(np.linspace(*self.span, 65).astype(np.float32), self.span)).any()

    def moments(self, level: NDArray[np.floating[Any]], *, cells: Cells = 1) -> tuple[Doubles, Doubles]:
        """Return level and √(shared² + (std² - shared²)/cells), which are exact; see `Channel.moments`."""
        return level.astype(np.float64), self._spread(level, cells)

    def scale(self, level: Floats, *, cells: Cells) -> Floats:
        """Return the standard deviation in `moments` as float32: all that is needed once levels are known."""
        return self._spread(level, cells).astype(np.float32)

    def _spread(self, level: NDArray[np.floating[Any]], cells: Cells) -> Doubles:
        std, shared = self.std(level), self.shared_std(level)
        if not shared.any():
            return np.asarray(std / np.sqrt(cells))
        alone = np.where(shared > 0, np.sqrt(np.maximum(std**2 - shared**2, 0)), std)
        return np.hypot(shared, alone / np.sqrt(cells))

    def read(self, level: Floats, *, cells: Cells, rng: np.random.Generator) -> Floats:
        """Return level + scale·ξ; see `Channel.read`. One draw per level, whatever `cells` is."""
        return add_noise(level, self.scale(level, cells=cells), rng)

    def prepared(self, level: Floats, cells: Cells) -> Prepared:
        """Return a reader that keeps the scale of each level; see `Channel.prepared`."""
        self.check(level)
        scale = np.empty(level.shape, np.float32)
        for start in range(0, level.size, _CHUNK):  # float64 intermediates of all levels at once would be large
            block = slice(start, start + _CHUNK)
            scale[block] = self.scale(level[block], cells=cells_in(cells, block))
        return _Normal(level, scale)

    def written(self, level: Floats, rng: np.random.Generator, *, bits: int = 0) -> State:
        """Return mean and σ of each weight's cells; see `Channel.written`."""
        mean = self._nearest(level, bits)
        return common(mean, self.std(mean), self.shared_std(mean), rng)

    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return mean + σ·ξ; see `Channel.read_cell`."""
        mean, std = state
        read: Doubles = mean + std * rng.standard_normal(mean.size)
        return read


@dataclass(frozen=True)
class _Direct:
    """Reads levels by `Channel.read`."""

    channel: Channel
    level: Floats
    cells: Cells

    def read(self, block: slice, rng: np.random.Generator, out: Floats) -> None:
        out[:] = self.channel.read(self.level[block], cells=cells_in(self.cells, block), rng=rng)


@dataclass(frozen=True)
class _Normal:
    """Reads levels whose noise is normal, of known scale."""

    level: Floats
    scale: Floats

    def read(self, block: slice, rng: np.random.Generator, out: Floats) -> None:
        add_noise(self.level[block], self.scale[block], rng, out=out)


def cells_in(cells: Cells, block: slice) -> Cells:
    """Return the cells of the weights in a block: a number, or an array of them, as `cells` is."""
    return cells[block] if isinstance(cells, np.ndarray) else cells


def _wrapped(channel: Channel, *, cells_hold: str | None = None, **bits: Any) -> Channel:
    """Return `channel` with limited precision, if a limit is given, and with cells that hold residuals, if asked."""
    if any(bits.values()):
        from onnx_analog.channels.precision import LimitedPrecision  # itself a channel, so above this module

        channel = LimitedPrecision(inner=channel, **bits)
    if cells_hold == "residual":
        from onnx_analog.channels.residual import ResidualCells  # likewise

        channel = ResidualCells(inner=channel)
    return channel


def add_noise(level: Floats, scale: Floats, rng: np.random.Generator, out: Floats | None = None) -> Floats:
    """Return level + scale·ξ, in `out` if given."""
    out = np.empty(level.shape, np.float32) if out is None else out
    rng.standard_normal(dtype=np.float32, out=out)
    out *= scale
    out += level
    return out


def common(mean: Doubles, std: Doubles, shared: Doubles, rng: np.random.Generator) -> State:
    """Return mean and σ of each weight's cells, once what they share of the noise is drawn."""
    if shared.any():
        mean = mean + shared * rng.standard_normal(mean.size)
    return mean, np.sqrt(np.maximum(std**2 - shared**2, 0))


# -------------------------------------------------------------------------------- laws without a closed form


def sampled(channel: Channel, level: Floats, rng: np.random.Generator, *, cells: int, count: int = READS) -> Floats:
    """Return `count` reads of each level (n,), drawn one level after the other, of shape (n, count)."""
    return np.stack([channel.read(np.full(count, value, np.float32), cells=cells, rng=rng) for value in level])


def estimated(
    channel: Channel, level: NDArray[np.floating[Any]], *, cells: int = 1
) -> tuple[Doubles, Doubles, Doubles]:
    """Return mean, variance and covariance (n,) of 20,000 or more reads, each level with a random stream of its own.

    They are kept, as equal levels of equal channels have the same: a sweep meets each level at every number of cells.
    """
    distinct, index = np.unique(clip_to_range(level.astype(np.float32), channel.span), return_inverse=True)
    rows = [_estimate(channel, cells, f"{float(value):.9g}") for value in distinct]
    mean, variance, covariance = np.array(rows).reshape(-1, 3)[index].T
    return mean, variance, covariance


@lru_cache(maxsize=2**17)  # about 50 MB
def _estimate(channel: Channel, cells: int, level: str) -> tuple[float, float, float]:
    """Return mean, variance and covariance of reads of one level, given as text, which tells -0 from 0."""
    levels, rng = np.full(READS, float(level), np.float32), stream(0, 0, "moments", plane=level)
    reads = channel._sample(levels, rng, cells=cells)
    exact = reads.astype(np.float64)
    shared = float(np.cov(exact, ddof=0)[0, 1]) if len(exact) > 1 else 0.0
    return float(exact.mean()), float(exact.var(axis=1).mean()), shared
