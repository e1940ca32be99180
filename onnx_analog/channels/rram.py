"""Resistive memory: published fits of the spread of conductance, as Gaussian channels.

A level u is a fraction of the conductance range: g = low_us + u·(high_us - low_us).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles, GaussianChannel, Source, Span
from onnx_analog.errors import ChannelError

_DAY_S = 86_400.0

# Standard deviation in microsiemens as a polynomial of u, ascending powers, by seconds after programming.
_WAN_US = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    _DAY_S: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * _DAY_S: (0.782, 20.274, -43.507, 37.062, -11.934),
}
_WAN_MAX_US = 40.0
_MILO_US = (4.782321, -0.009107)  # of g in microsiemens
_MILO_RANGE_US = (50.0, 225.0)


@dataclass(frozen=True, kw_only=True)
class RramWan(GaussianChannel):
    """RRAM of Wan et al. 2022, 0 to 40 µS, one second, one day or two days after programming.

    Parameters
    ----------
    read_after_s : float
        1, 86400 or 172800: when it was measured. There is no fit in between.
    """

    family: ClassVar[str] = "rram-wan"

    read_after_s: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read_after_s not in _WAN_US:
            times = ", ".join(f"{time:g}" for time in _WAN_US)
            raise ChannelError(f"rram-wan was measured {times} s after programming, not {self.read_after_s:g} s")

    @property
    def span(self) -> Span:
        """Fractions of 40 µS."""
        return 0.0, 1.0

    @property
    def source(self) -> Source:
        """Where the polynomials come from."""
        return Source(
            citation="Wan et al., Nature 608 (2022)",
            figure="coefficients as distributed with IBM aihwkit, inference/noise/reram.py (ReRamWan2022)",
            left_out="Reads are known at three times after programming only. The mean does not relax. The cells of a "
            "weight vary independently.",
        )

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return σ as a fraction of 40 µS; see `GaussianChannel.std`."""
        self.check(level)
        sigma_us: Doubles = Polynomial(_WAN_US[self.read_after_s])(level.astype(np.float64))
        return np.maximum(sigma_us, 0) / _WAN_MAX_US

    def __str__(self) -> str:
        return f"rram-wan ({self.read_after_s:g} s after programming)"


@dataclass(frozen=True, kw_only=True)
class RramMilo(GaussianChannel):
    """RRAM of Milo et al., programmed with verification between 50 and 225 µS; the spread falls with conductance."""

    family: ClassVar[str] = "rram-milo"

    @property
    def span(self) -> Span:
        """Fractions of the range from 50 to 225 µS."""
        return 0.0, 1.0

    @property
    def source(self) -> Source:
        """Where the line comes from."""
        return Source(
            citation="Milo et al., IEEE IRPS (2021)",
            figure="linear fit as distributed with Sandia CrossSim, devices/custom/RRAM_Milo.py",
            left_out="Reads do not change with the time after programming. The cells of a weight vary independently.",
        )

    def std(self, level: NDArray[np.floating[Any]]) -> Doubles:
        """Return σ as a fraction of the range; see `GaussianChannel.std`."""
        self.check(level)
        low_us, high_us = _MILO_RANGE_US
        g_us = low_us + level.astype(np.float64) * (high_us - low_us)
        sigma_us: Doubles = Polynomial(_MILO_US)(g_us)
        return sigma_us / (high_us - low_us)

    def __str__(self) -> str:
        return "rram-milo"
