"""check_channel on all channels of ours, and on broken ones that it must reject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from onnx_analog import channels
from onnx_analog.channels import Channel, GaussianChannel, Source
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.testing import check_channel

GOOD = [
    "gaussian",
    "gaussian:sigma=0.5,low=0,high=1",
    "pcm",
    "pcm-partial-reset",
    "rram-milo",
    "rram-wan",
    "rram-wan:read_after_s=172800",
]
BIASED = [
    "pcm-drift",
    "pcm-drift:read_after_s=86400",
    "pcm-drift:fit=hermes,differential=true,read_after_s=3600",
]


@pytest.mark.parametrize("spec", GOOD)
def test_ours(spec):
    check_channel(channels.resolve(spec))


@pytest.mark.parametrize("spec", BIASED)
def test_ours_that_drift(spec):
    check_channel(channels.resolve(spec), biased=True)


@pytest.mark.slow(reason="half a million reads at each of seven levels: 5 s, 200 MB")
@pytest.mark.parametrize("spec", GOOD + BIASED)
def test_ours_in_half_a_million_draws(spec):
    """A mean or a spread that is wrong by a hundredth passes the test of 20,000, and not this."""
    check_channel(channels.resolve(spec), biased=spec in BIASED, draws=500_000)


def test_compensated():
    check_channel(channels.resolve("pcm-drift:read_after_s=3600,compensated=yes"), biased=True, independent=False)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        (Modifiers(cells_on="same"), {"independent": False}),
        (Modifiers(residuals="empirical"), {}),
        (Modifiers(read_bits=4), {"biased": True}),
        (Modifiers(write_bits=3, read_bits=3), {"biased": True}),
        (Modifiers(residuals="empirical", write_bits=5), {"biased": True}),
    ],
)
def test_ours_changed(changes, how):
    check_channel(changes.apply(channels.resolve("pcm")), **how)


# -------------------------------------------------------------------------------------------- broken channels


@dataclass(frozen=True, kw_only=True)
class Normal(Channel):
    """What the broken ones are made of: σ 0.1 on 0 to 1."""

    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def read(self, level, *, cells, rng):
        self.check(level)
        return self.noisy(level, cells, rng).astype(np.float32)

    def noisy(self, level, cells, rng):
        return level + 0.1 / np.sqrt(cells) * rng.standard_normal(level.size)


@dataclass(frozen=True, kw_only=True)
class Shifted(Normal):
    def noisy(self, level, cells, rng):
        return super().noisy(level, cells, rng) + 0.01


@dataclass(frozen=True, kw_only=True)
class Unaveraged(Normal):
    def noisy(self, level, cells, rng):
        return super().noisy(level, 1, rng)


@dataclass(frozen=True, kw_only=True)
class OverAveraged(Normal):
    def noisy(self, level, cells, rng):
        return super().noisy(level, np.square(cells), rng)


@dataclass(frozen=True, kw_only=True)
class Unseeded(Normal):
    def noisy(self, level, cells, rng):
        return super().noisy(level, cells, np.random.default_rng())


@dataclass(frozen=True, kw_only=True)
class Deaf(Normal):
    def noisy(self, level, cells, rng):
        return super().noisy(level, cells, np.random.default_rng(0))


@dataclass(frozen=True, kw_only=True)
class Unbounded(Normal):
    def read(self, level, *, cells, rng):
        return self.noisy(level, cells, rng).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class InPlace(Normal):
    def read(self, level, *, cells, rng):
        self.check(level)
        level += self.noisy(level, cells, rng) - level
        return level


@dataclass(frozen=True, kw_only=True)
class Double(Normal):
    def read(self, level, *, cells, rng):
        self.check(level)
        return self.noisy(level, cells, rng)


@dataclass(frozen=True, kw_only=True)
class Empty(Normal):
    span: ClassVar[tuple[float, float]] = (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Anonymous(Normal):
    source: ClassVar[Source] = Source(citation="")


@dataclass(frozen=True, kw_only=True)
class Unpicklable(Normal):
    def __reduce__(self):
        return Normal, ()


@dataclass(frozen=True, kw_only=True)
class HeavyTails(GaussianChannel):
    """Says that it is normal, with the right variance, and is not."""

    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def std(self, level):
        self.check(level)
        return np.full(level.shape, 0.1)

    def read(self, level, *, cells, rng):
        noise = rng.standard_t(5, size=level.size) / np.sqrt(5 / 3)
        return (level + self.scale(level, cells=cells) * noise).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class WrongStd(HeavyTails):
    def read(self, level, *, cells, rng):
        return (level + 1.05 * self.scale(level, cells=cells) * rng.standard_normal(level.size)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class MostCells(Normal):
    def noisy(self, level, cells, rng):
        return super().noisy(level, np.max(cells), rng)


@dataclass(frozen=True, kw_only=True)
class FirstCells(Normal):
    def noisy(self, level, cells, rng):
        return super().noisy(level, np.ravel(cells)[0] if np.size(cells) else 1, rng)


@dataclass(frozen=True, kw_only=True)
class Twins(Normal):
    def noisy(self, level, cells, rng):
        noise = np.repeat(rng.standard_normal(-(-level.size // 2)), 2)[: level.size]
        return level + 0.1 / np.sqrt(cells) * noise


@dataclass(frozen=True, kw_only=True)
class NoDevice(Normal):
    devices_per_cell: ClassVar[int] = 0


@dataclass(frozen=True, kw_only=True)
class Known(Normal):
    """States its moments, which are right."""

    std_1: float = 0.1

    def moments(self, level, *, cells=1):
        return level.astype(np.float64), np.full(level.shape, self.std_1 / np.sqrt(cells))


@dataclass(frozen=True, kw_only=True)
class WrongMean(Known):
    def moments(self, level, *, cells=1):
        mean, std = super().moments(level, cells=cells)
        return mean + 0.006, std


@dataclass(frozen=True, kw_only=True)
class WrongSpread(Known):
    std_1: float = 0.106


@dataclass(frozen=True, kw_only=True)
class OtherwisePrepared(GaussianChannel):
    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def std(self, level):
        self.check(level)
        return np.full(level.shape, 0.1)

    def read(self, level, *, cells, rng):
        return (level - self.scale(level, cells=cells) * rng.standard_normal(level.size)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Impostor(Normal):
    family: ClassVar[str] = "gaussian"


BROKEN = {
    Impostor: "JSON changes the channel",
    WrongMean: "mean",
    WrongSpread: "standard deviation",
    OtherwisePrepared: "prepared are read in another way",
    MostCells: "beside others are not read as alone",
    FirstCells: "beside others are not read as alone",
    Twins: "correlation",
    NoDevice: "0 devices",
    Shifted: "mean",
    Unaveraged: "not read as the average",
    OverAveraged: "not read as the average",
    Unseeded: "same generator|cells as array and number",
    Deaf: "do not depend on rng",
    Unbounded: "was read all the same",
    InPlace: "changed the levels",
    Double: "float64",
    Empty: "no interval",
    Anonymous: "no citation",
    Unpicklable: "pickling changes",
    HeavyTails: "KS distance",
    WrongStd: "standard deviation",
}


@pytest.mark.parametrize("good", [Normal, Known])
def test_the_classes_that_the_broken_ones_are_made_of_are_accepted(good):
    check_channel(good())


@pytest.mark.parametrize(("broken", "message"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_broken_channels_are_rejected(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_channel(broken())
