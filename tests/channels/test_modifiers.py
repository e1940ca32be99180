from __future__ import annotations

import pytest

from onnx_analog import channels
from onnx_analog.channels import TableChannel
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


def test_residuals_have_two_laws():
    with pytest.raises(OptionError, match="gaussian or empirical"):
        Modifiers(residuals="normal")
