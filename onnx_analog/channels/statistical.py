"""Statistical phase-change memory: programming noise, drift and 1/f read noise, from published fits.

A level u is a fraction of the largest conductance g_max. With ξ standard normal, drawn anew for each cell and each
term, and t the seconds since programming ended plus t_0:

    programmed   g_p = max(0, u + σ_p(u)·ξ)
    drifted      g_d = g_p·(t/t_0)^(-ν)            ν = |μ_ν(u) + σ_ν(u)·ξ|
    read         g   = max(0, g_d + g_d·Q·√ln((t + t_read)/(2·t_read))·ξ)

aihwkit's documentation gives Q as a function of the target u and its code of the programmed g_p; this follows the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from onnx_analog.arguments import LONGEST_S
from onnx_analog.channels.base import Floats, Source, Span, State
from onnx_analog.channels.programmed import ProgrammedChannel
from onnx_analog.errors import ChannelError

Doubles = NDArray[np.float64]
Curve = Callable[[Any], Any]  # of float arrays, whose type it keeps

_REFERENCES, _NODES = 100, 40  # levels, and points of the law of ν
_CHUNK = 2**14  # cells at once: their intermediates stay in cache
_SMALLEST = 1e-7  # below it logarithms of u are taken of this


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """One published fit. Curves take and give fractions of g_max."""

    g_max_us: float
    t_0_s: float
    t_read_s: float
    programming: Curve
    drift_mean: Curve
    drift_std: Curve
    read: Curve
    source: Source
    devices: int = 1  # that hold one conductance together


def _log_clipped(slope: float, offset: float, low: float, high: float) -> Curve:
    return lambda u: np.clip(slope * np.log(np.maximum(u, _SMALLEST)) + offset, low, high)


def _below(border: float, low: Curve, high: Curve) -> Curve:
    return lambda u: np.where(u < border, low(u), high(u))


def _polynomial(*ascending: float) -> Curve:
    def curve(u: Any) -> Any:
        value = ascending[-1]
        for coefficient in ascending[-2::-1]:
            value = value * u + coefficient
        return value

    return curve


def _scaled(ascending: tuple[float, ...], g_max_us: float) -> Curve:
    """Return a polynomial of u whose values are in microsiemens."""
    polynomial = _polynomial(*ascending)
    return lambda u: np.maximum(polynomial(u), 0) / g_max_us


_LEFT_OUT = (
    "Temperature is not modelled. Every conductance can be programmed. The cells of a weight vary independently."
)
_AIHWKIT = "coefficients as distributed with IBM aihwkit, inference/noise/"

_HERMES_DRIFT = _below(0.0945, _log_clipped(-0.0387, -0.0182, 0.0720, 0.13), _polynomial(0.0736, -0.0126, -0.0436))


def _hermes(devices: str) -> Source:
    return Source(
        citation=f"Le Gallo et al., Nature Electronics 6 (2023), {devices} for one conductance",
        figure=f"{_AIHWKIT}hermes.py",
        left_out=_LEFT_OUT,
    )


FITS = {
    "nandakumar2019": _Fit(
        g_max_us=25.0,
        t_0_s=20.0,
        t_read_s=250e-9,
        programming=_scaled((0.26348, 1.9650, -1.1731), 25.0),
        drift_mean=_log_clipped(-0.0155, 0.0244, 0.049, 0.1),
        drift_std=_log_clipped(-0.0125, -0.0059, 0.008, 0.045),
        read=lambda g: np.minimum(0.2, 0.0088 * np.exp(-0.65 * np.log(np.maximum(g, _SMALLEST)))),  # 0.0088/g^0.65
        source=Source(citation="Nandakumar et al., IEEE ICECS (2019)", figure=f"{_AIHWKIT}pcm.py", left_out=_LEFT_OUT),
    ),
    "hermes": _Fit(
        g_max_us=10.35,
        t_0_s=200.0,
        t_read_s=512e-9,
        programming=_scaled((0.15781817, 2.32443916, -2.16310839, 0.68841818), 10.35),
        drift_mean=_HERMES_DRIFT,
        drift_std=_below(0.3039, _log_clipped(-0.0120, -0.0023, 0.0124, 0.04), _polynomial(0.0104, 0.0116, -0.0165)),
        read=_below(0.1591, _log_clipped(-0.0078, 0.0038, 0.0179, 0.04), _polynomial(0.0088, 0.0768, -0.1352, 0.0664)),
        source=_hermes("one device"),
    ),
    "hermes-2": _Fit(
        g_max_us=20.7,
        t_0_s=300.0,
        t_read_s=512e-9,
        programming=_scaled((0.16603222, 4.71806468, -8.48101252, 4.68961419), 20.7),
        drift_mean=_HERMES_DRIFT,
        drift_std=_below(0.3055, _log_clipped(-0.0117, -0.0057, 0.0091, 0.04), _polynomial(0.0073, 0.0093, -0.0118)),
        read=_below(0.16, _log_clipped(-0.0117, -0.0069, 0.015, 0.04), _polynomial(0.0123, 0.0211, -0.0280, 0.0069)),
        source=_hermes("two devices side by side, a simplified model of theirs"),
        devices=2,
    ),
}


@dataclass(frozen=True, kw_only=True)
class StatisticalPcm(ProgrammedChannel):
    """Phase-change memory with programming noise, drift and 1/f noise; published fits, any time after programming.

    Levels are written as they are: that the mean read sinks with time, and that conductances are not negative, is not
    undone by an inverse, so φ is biased. Global drift compensation undoes what all cells have in common, as reference
    cells beside the array tell it.

    Parameters
    ----------
    fit : {"nandakumar2019", "hermes", "hermes-2"}
        Which measurements; `hermes-2` holds one conductance in two devices.
    read_after_s : float, 0 to 1e12
        Seconds between the end of programming (t_0 after its start) and the read.
    compensated : bool
        Divide what is read by one factor for all cells: `sunk`, what is left on average of reference cells.
    differential : bool
        A cell is a pair of devices, one for positive and one for negative levels; the span is then -1 to 1.
    """

    family: ClassVar[str] = "pcm-drift"

    fit: str = "nandakumar2019"
    read_after_s: float = 0.0
    compensated: bool = False
    differential: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fit not in FITS:
            raise ChannelError(f"pcm-drift has no fit {self.fit!r}; fits are {', '.join(FITS)}")
        if not 0 <= self.read_after_s <= LONGEST_S:
            raise ChannelError(
                f"pcm-drift is read {self.read_after_s:g} s after programming; it must be from 0 to {LONGEST_S:g} s"
            )

    @property
    def span(self) -> Span:
        """Fractions of the largest conductance."""
        return (-1.0, 1.0) if self.differential else (0.0, 1.0)

    @property
    def devices_per_cell(self) -> int:
        """Those that hold one conductance, twice as many for a differential pair."""
        return FITS[self.fit].devices * (2 if self.differential else 1)

    @property
    def polarity(self) -> tuple[int, ...] | None:
        """One device for positive and one for negative levels of a pair; not known where devices share a level."""
        if FITS[self.fit].devices > 1:
            return None
        return (1, -1) if self.differential else (1,)

    @property
    def source(self) -> Source:
        """Where the fit comes from."""
        return FITS[self.fit].source

    def program(self, level: Floats, rng: np.random.Generator) -> State:  # noqa: ARG002 - cells share nothing
        """Return the level and the curves of the device that holds it; every cell is programmed on its own."""
        target = np.abs(level)
        curves = [curve(target).astype(np.float32) for curve in self._curves]
        return (np.asarray(level, np.float32), *curves)

    @property
    def _curves(self) -> list[Curve]:
        """The curves of the target that a read needs: those of drift only where time has passed."""
        fit = FITS[self.fit]
        return [fit.programming, fit.drift_mean, fit.drift_std] if self.read_after_s else [fit.programming]

    def read_cell(self, state: State, rng: np.random.Generator) -> Floats:
        """Return one device's conductance, or the difference of a pair's, as a fraction of g_max."""
        read = np.empty(state[0].shape, np.float32)
        for start in range(0, read.size, _CHUNK):
            block = slice(start, start + _CHUNK)
            read[block] = self._read(*(part[block] for part in state), rng=rng)
        return read

    def program_cell(self, level: Floats, rng: np.random.Generator) -> State:
        """Return sign, conductance and ν of one device, then conductance and ν of the other one of a pair."""
        _, *curves = self.program(level, rng)
        device = self._program_device(np.abs(level), tuple(curves), rng)
        other = self._program_device(np.zeros_like(level), self._idle, rng) if self.differential else ()
        return (np.copysign(np.float32(1), level), *device, *other)

    def verify(self, held: State, rng: np.random.Generator) -> Floats:
        """Return one read at t_0, when nothing has drifted."""
        return self._compared(held, rng, read_after_s=0.0)

    def read_programmed(self, held: State, rng: np.random.Generator) -> Floats:
        """Return one read `read_after_s` later."""
        read = self._compared(held, rng, read_after_s=self.read_after_s)
        return read / np.float32(self.sunk) if self.compensated else read

    def _compared(self, held: State, rng: np.random.Generator, *, read_after_s: float) -> Floats:
        """Return what one device holds, or by how much that of its pair holds more."""
        sign, *devices = held
        size = len(devices) // 2 if self.differential else len(devices)
        read = self._read_device(devices[:size], read_after_s, rng)
        return sign * (read - self._read_device(devices[size:], read_after_s, rng)) if self.differential else read

    def _read(self, level: Floats, *curves: Floats, rng: np.random.Generator) -> Floats:
        read = self._device(np.abs(level), curves, rng)
        if self.differential:  # the other device of the pair was programmed to 0
            read -= self._device(np.zeros_like(level), self._idle, rng)
            read *= np.copysign(np.float32(1), level)
        if self.compensated:
            read /= np.float32(self.sunk)
        return read

    @cached_property
    def _idle(self) -> tuple[Floats, ...]:
        """The curves at 0."""
        return tuple(curve(np.zeros(1, np.float32)).astype(np.float32) for curve in self._curves)

    def _device(self, target: Floats, curves: tuple[Floats, ...], rng: np.random.Generator) -> Floats:
        """Return what one device is read as that is programmed to `target`."""
        return self._read_device(self._program_device(target, curves, rng), self.read_after_s, rng)

    def _program_device(self, target: Floats, curves: tuple[Floats, ...], rng: np.random.Generator) -> list[Floats]:
        """Return the conductance of one device and, where time passes before it is read, its ν."""
        programming, *drift = curves
        g = rng.standard_normal(target.size, np.float32)
        g *= programming
        g += target
        np.maximum(g, 0, out=g)
        if not drift:
            return [g]
        drift_mean, drift_std = drift
        nu = rng.standard_normal(target.size, np.float32)
        nu *= drift_std
        nu += drift_mean
        np.abs(nu, out=nu)
        return [g, nu]

    def _read_device(self, held: Sequence[Floats], read_after_s: float, rng: np.random.Generator) -> Floats:
        """Return one read of a device, in float32: its rounding is far below the noise."""
        fit, g = FITS[self.fit], held[0]
        time_s = read_after_s + fit.t_0_s
        growth = math.sqrt(math.log((time_s + fit.t_read_s) / (2 * fit.t_read_s)))
        noise: Floats = fit.read(g)
        noise *= np.float32(growth)
        if read_after_s:
            g = g * np.exp(held[1] * np.float32(-math.log(time_s / fit.t_0_s)))
        noise *= rng.standard_normal(g.size, np.float32)
        noise += 1
        noise *= g
        np.maximum(noise, 0, out=noise)
        return noise

    @cached_property
    def sunk(self) -> float:
        """The share that is left of reference cells equally spread over the levels, on average.

        E[u·(t/t_0)^(-ν)]/E[u]; ν is |N(μ_ν, σ_ν)|, integrated by Gauss and Hermite.
        """
        fit, levels = FITS[self.fit], np.linspace(0, 1, _REFERENCES + 1)[1:]
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        nu = np.abs(fit.drift_mean(levels) + np.outer(nodes, fit.drift_std(levels)))
        kept = weights @ (1 + self.read_after_s / fit.t_0_s) ** -nu / weights.sum()
        return float(levels @ kept / levels.sum())

    def __str__(self) -> str:
        extras = [name for name in ("compensated", "differential") if getattr(self, name)]
        return f"pcm-drift ({', '.join([self.fit, f'read after {self.read_after_s:g} s', *extras])})"
