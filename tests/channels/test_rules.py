"""A channel of one's own that breaks a rule is refused where it is named, in one line with class, method and rule."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from onnx_analog.channels import Channel, GaussianChannel, Source, resolve
from onnx_analog.channels.programmed import ProgrammedChannel
from onnx_analog.errors import ChannelError


@dataclass(frozen=True, kw_only=True)
class Good(GaussianChannel):
    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def std(self, level):
        return np.full(level.shape, 0.1)


@dataclass(frozen=True, kw_only=True)
class Steps(ProgrammedChannel):
    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def program_cell(self, level, rng):
        return (level,)

    def read_programmed(self, held, rng):
        return held[0] + rng.standard_normal(held[0].size)


class Bare(GaussianChannel):
    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)
    sigma: float = 0.1

    def std(self, level):
        return np.full(level.shape, self.sigma)


@dataclass(frozen=True, kw_only=True)
class Sourceless(GaussianChannel):
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def std(self, level):
        return np.full(level.shape, 0.1)


def of(base: type[Channel], **members) -> type[Channel]:
    return dataclass(frozen=True, kw_only=True)(type("Wrong", (base,), {"__module__": __name__, **members}))


BROKEN = {
    "one number": (of(Good, std=lambda self, level: 0.1), "std returned one number for levels of shape"),
    "negative": (of(Good, std=lambda self, level: 0 * level - 0.1), "std returned -0.1 at level 0; .* 0 or more"),
    "NaN": (of(Good, std=lambda self, level: level * np.nan), "std returned nan at level 0; .* finite"),
    "shared": (of(Good, shared_std=lambda self, level: 0 * level - 1), "shared_std returned -1 at level 0"),
    "mean": (of(Good, moments=lambda self, level, cells=1: (level * np.nan, level)), "moments, its mean, returned nan"),
    "raises": (of(Good, std=lambda self, level: int("a")), "failed with ValueError"),
    "read": (of(Good, read=lambda self, level, rng: level), r"read takes \(level, rng\); .* \(level, cells, rng\)"),
    "span": (of(Good, span=(1.0, 1.0)), "span is .* no interval"),
    "source": (of(Good, source="a book"), "source is 'a book'; it must be"),
    "no source": (Sourceless, "it has no source, which every channel must have"),
    "no dataclass": (Bare, "it is no dataclass"),
    "state": (of(Steps, program_cell=lambda self, level, rng: level), "program_cell returned .* a tuple of arrays"),
    "step": (of(Steps, read_programmed=lambda self, held, rng: 0.5), "read_programmed returned one number"),
}


@pytest.mark.parametrize("good", [Good, Steps])
def test_a_channel_that_keeps_the_rules_is_taken(good):
    assert resolve(good) == resolve(good()) == good()


@pytest.mark.any_message  # one names the error of the user's method
@pytest.mark.parametrize("name", BROKEN)
def test_a_channel_of_one_s_own_that_breaks_a_rule_is_refused(name):
    cls, message = BROKEN[name]
    with pytest.raises(ChannelError, match=f"channel of class {cls.__module__}:{cls.__qualname__}: .*{message}"):
        resolve(cls)
    if not cls.__abstractmethods__:
        with pytest.raises(ChannelError, match=message):
            resolve(cls())


def test_a_dataclass_that_can_change_is_refused():
    @dataclass
    class Open(GaussianChannel):
        source: ClassVar[Source] = Source(citation="a test")
        span: ClassVar[tuple[float, float]] = (0.0, 1.0)

        def std(self, level):
            return np.full(level.shape, 0.1)

    with pytest.raises(ChannelError, match="its values can change"):
        resolve(Open)


def test_seconds_of_a_channel_may_have_a_unit():
    assert resolve("pcm-drift:read_after_s=1d") == resolve("pcm-drift:read_after_s=86400")
    with pytest.raises(ChannelError, match="'pcm-drift:read_after_s=1x': '1x' is not a time"):
        resolve("pcm-drift:read_after_s=1x")
