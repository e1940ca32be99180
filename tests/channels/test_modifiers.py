from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from onnx_analog import channels
from onnx_analog.channels import GaussianNoise, TableChannel
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.modifiers import NONE, Modifiers, seconds
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.errors import ChannelError, OptionError

PCM = channels.resolve("pcm")
DRIFT = StatisticalPcm()


def test_nothing_asked_changes_nothing():
    for channel in (PCM, DRIFT, LimitedPrecision(inner=PCM, read_bits=3)):
        assert NONE.apply(channel) == channel


def test_residuals_to_and_fro():
    measured = Modifiers(residuals="empirical").apply(PCM)
    assert measured == EmpiricalChannel(table=PCM)
    assert Modifiers(residuals="gaussian").apply(measured) == PCM


def test_bits_wrap_once_and_zero_unwraps():
    limited = Modifiers(read_bits=3).apply(PCM)
    assert limited == LimitedPrecision(inner=PCM, read_bits=3)
    assert Modifiers(write_bits=4).apply(limited) == LimitedPrecision(inner=PCM, write_bits=4, read_bits=3)
    assert Modifiers(read_bits=0).apply(limited) == PCM


def test_changes_reach_a_channel_inside_another():
    limited = LimitedPrecision(inner=DRIFT, read_bits=3)
    assert Modifiers(read_after_s=60.0).apply(limited).inner == StatisticalPcm(read_after_s=60.0)


def test_cells_on_the_same_device():
    found = Modifiers(cells_on="same").apply(PCM)
    assert isinstance(found, TableChannel)
    assert found.cells_on == "same"
    assert Modifiers(cells_on="different").apply(found) == PCM


def test_residuals_are_chosen_before_devices_are():
    """Residuals mix all devices, so the two together are refused, and giving one up for the other is not."""
    measured = Modifiers(residuals="empirical").apply(PCM)
    found = Modifiers(residuals="gaussian", cells_on="same").apply(measured)
    assert found == Modifiers(cells_on="same").apply(PCM)


def test_all_changes_at_once():
    found = Modifiers(residuals="empirical", write_bits=5, read_bits=6).apply(PCM)
    assert found == LimitedPrecision(inner=EmpiricalChannel(table=PCM), write_bits=5, read_bits=6)
    assert Modifiers(residuals="gaussian", write_bits=0, read_bits=0).apply(found) == PCM


@dataclass(frozen=True, kw_only=True)
class Plugin(GaussianNoise):
    """A channel of another package, with some sides of its own."""

    read_after_s: float = 0.0
    cells_on: Literal["different", "same"] = "different"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read_after_s > 100:
            raise RuntimeError("the device is gone")


def test_a_field_of_the_same_name_is_changed():
    assert Modifiers(read_after_s=60.0, cells_on="same").apply(Plugin()) == Plugin(read_after_s=60.0, cells_on="same")
    limited = Modifiers(read_after_s=60.0, read_bits=3).apply(Plugin())
    assert limited == LimitedPrecision(inner=Plugin(read_after_s=60.0), read_bits=3)
    assert Modifiers(read_after_s=90.0).apply(limited) == LimitedPrecision(inner=Plugin(read_after_s=90.0), read_bits=3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"read_after_s": 1e3}, "the device is gone"),
        ({"residuals": "empirical"}, "was not measured pair by pair"),
    ],
)
def test_whatever_a_channel_raises_is_a_channel_error(changes, message):
    with pytest.raises(ChannelError, match=message):
        Modifiers(**changes).apply(Plugin())


def test_where_possible_leaves_out_what_a_channel_does_not_have():
    found = Modifiers(residuals="empirical", read_after_s=60.0, read_bits=3).apply_where_possible(DRIFT)
    assert found == LimitedPrecision(inner=StatisticalPcm(read_after_s=60.0), read_bits=3)


@pytest.mark.parametrize(
    ("changes", "channel", "message"),
    [
        (Modifiers(residuals="empirical"), DRIFT, "not measured pair by pair"),
        (Modifiers(cells_on="same"), DRIFT, "does not tell devices apart"),
        (Modifiers(read_after_s=1.0), PCM, "does not change with time"),
        (Modifiers(cells_on="same"), channels.resolve("pcm-partial-reset"), "fit it with a column of devices"),
        (Modifiers(residuals="empirical", cells_on="same"), PCM, "use gaussian residuals"),
    ],
)
def test_what_a_channel_does_not_have(changes, channel, message):
    with pytest.raises(ChannelError, match=message):
        changes.apply(channel)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20", 20), ("20s", 20), ("90m", 5400), ("1.5h", 5400), ("1d", 86_400), ("2w", 1_209_600), ("1e3s", 1000)],
)
def test_times(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "d", "tomorrow", "1 fortnight", "-1s", "1..2s"])
def test_what_is_no_time(text):
    with pytest.raises(OptionError, match="is not a time"):
        seconds(text)


def test_cells_are_on_different_devices_or_on_one():
    with pytest.raises(OptionError, match="cells_on is 'apart'; choose from different, same"):
        Modifiers(cells_on="apart")


def test_residuals_have_two_laws():
    with pytest.raises(OptionError, match="residuals is 'normal'; choose from gaussian, empirical"):
        Modifiers(residuals="normal")
