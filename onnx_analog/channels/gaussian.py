"""Additive Gaussian noise of one size at every level."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles, GaussianChannel, Source, Span
from onnx_analog.errors import ChannelError

_SOURCE = Source(
    citation="Isik et al., Noisy Neural Network Compression for Analog Storage Devices (2020)",
    figure="Table 7 and Figure 4 (b); the default span is Figure 2's",
    left_out="Cells only add noise. They do not drift, and they are all alike.",
)


_MOST = 1e18  # levels and noise are float32, and are squared


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(GaussianChannel):
    """level + N(0, sigma²).

    Parameters
    ----------
    sigma : float, > 0, <= 1e18
        Standard deviation of one cell's read, in the unit of the level.
    low, high : float, -1e18 to 1e18
        The span. With the extremes of the weights for a span, strategy `raw` has α = 1 and β = 0: N(0, sigma²) is
        then added to the weights themselves.

    Examples
    --------
    >>> GaussianNoise(sigma=0.1).std(np.array([0.0, 0.5]))
    array([0.1, 0.1])
    """

    family: ClassVar[str] = "gaussian"

    sigma: float = 0.1
    low: float = -0.65
    high: float = 0.75
    source: Source = field(default=_SOURCE, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma <= _MOST:
            raise ChannelError(f"channel gaussian has sigma {self.sigma}; it must be above 0, at most {_MOST:g}")
        if not -_MOST <= self.low < self.high <= _MOST:
            raise ChannelError(
                f"channel gaussian has output range {self.low} to {self.high}; low must be below high, within "
                f"±{_MOST:g}"
            )

    @property
    def span(self) -> Span:
        """The levels that φ can hold."""
        return self.low, self.high

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return `sigma` for each level; see `GaussianChannel.std`."""
        self.check(level)
        return np.full(level.shape, self.sigma)

    def __str__(self) -> str:
        return f"gaussian (σ {self.sigma:g}, output range {self.low:g} to {self.high:g})"
