"""What every channel offers.

A channel C is what a device does to a programmed input x: read = μ(x) + σ(x)·ξ. With the inverse f = μ⁻¹, which finds
the input whose mean read is the level that is wanted, φ = C∘f is the identity plus noise (Isik et al. 2020, section 2):

    φ(level) = level + σ(f(level))·ξ/√r     for r independent cells that are averaged, ξ standard normal

That is the exact law of the average of r Gaussian reads, so one normal draw per level is enough, whatever r is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import ChannelError, LevelError
from onnx_analog.serialise import conform, to_json_dict

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Cells = int | NDArray[np.integer[Any]]
Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a channel's numbers come from, and what they leave out."""

    citation: str
    figure: str = ""
    licence: str = ""
    left_out: str = ""

    def __str__(self) -> str:
        return "; ".join(part for part in (self.citation, self.figure) if part)


class Channel(ABC):
    """φ: levels in, noisy levels out.

    Subclasses are frozen dataclasses: equal channels give equal laws, and a channel can be pickled to a worker, written
    into a model's metadata and printed as it stands. `family` is the entry point that builds the channel again from
    its fields.
    """

    family: ClassVar[str]

    def __post_init__(self) -> None:
        """Check all fields against their annotations; a family that overrides this calls it first.

        Raises
        ------
        ChannelError
            If one is of another type, a number is not finite, or a whole number has a fraction.
        """
        try:
            conform(self)
        except TypeError as error:
            raise ChannelError(f"channel {self.family}: {error}") from error

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

    def to_dict(self) -> dict[str, Any]:
        """Return family and fields, ready for JSON; `onnx_analog.channels.from_dict` is the inverse."""
        return {"family": self.family, **to_json_dict(self)}

    @property
    def devices_per_cell(self) -> int:
        """Return how many memory elements one cell takes: more than one where values are held as differences."""
        return 1

    def check(self, level: NDArray[np.floating[Any]]) -> None:
        """Raise `LevelError` if a level lies outside the span."""
        if not level.size:
            return
        low, high = self.span
        found = float(level.min()), float(level.max())
        if not (low <= found[0] and found[1] <= high):
            raise LevelError(
                f"levels run from {found[0]:.4g} to {found[1]:.4g}, but {self} holds {low:.4g} to {high:.4g}. "
                "Protect the model for this channel."
            )


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

    def scale(self, level: Floats, *, cells: Cells) -> Floats:
        """Return √(shared² + (std² - shared²)/cells) as float32: all that is needed once levels are known."""
        std, shared = self.std(level), self.shared_std(level)
        alone = std if not shared.any() else np.sqrt(np.maximum(std**2 - shared**2, 0))
        scale: Floats = np.hypot(shared, alone / np.sqrt(cells)).astype(np.float32)
        return scale

    def read(self, level: Floats, *, cells: Cells, rng: np.random.Generator) -> Floats:
        """Return level + scale·ξ; see `Channel.read`. One draw per level, whatever `cells` is."""
        return add_noise(level, self.scale(level, cells=cells), rng)


def add_noise(level: Floats, scale: Floats, rng: np.random.Generator, out: Floats | None = None) -> Floats:
    """Return level + scale·ξ, in `out` if given."""
    out = np.empty(level.shape, np.float32) if out is None else out
    rng.standard_normal(dtype=np.float32, out=out)
    out *= scale
    out += level
    return out


def inside(level: Floats, span: Span) -> Floats:
    """Return `level` clipped to the float32 numbers inside `span`."""
    low, high = np.float32(span[0]), np.float32(span[1])
    # As Python floats, or numpy would compare in float32, where the two are always equal.
    low = low if float(low) >= span[0] else np.nextafter(low, np.float32(np.inf))
    high = high if float(high) <= span[1] else np.nextafter(high, np.float32(-np.inf))
    clipped: Floats = np.clip(level, low, high)
    return clipped
