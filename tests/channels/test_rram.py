import numpy as np
import pytest
import scipy.stats

from onnx_analog.channels import GaussianChannel, resolve
from onnx_analog.channels.rram import RramMilo, RramWan
from onnx_analog.errors import ChannelError, LevelError
from onnx_analog.testing import assert_law, assert_mean, assert_std
from tests.models import f32

DAY_S = 86_400.0

# σ in microsiemens at u = 0, 1/4, 1/2 and 1, worked out on paper: c0 + c1·u + c2·u² + c3·u³ + c4·u⁴.
WAN_US = {
    1.0: (0.348, 2.25826953125, 2.02293750, 1.103),
    DAY_S: (0.701, 3.72075781250, 3.90900, 2.651),
    2 * DAY_S: (0.782, 3.66378906250, 3.92912500, 2.677),
}
QUARTERS = np.array([0, 0.25, 0.5, 1])


@pytest.mark.parametrize("time_s", WAN_US)
def test_wan_by_hand(time_s):
    found = RramWan(read_after_s=time_s).std(QUARTERS) * 40
    np.testing.assert_allclose(found, WAN_US[time_s], rtol=1e-12)


def test_wan_as_it_is_printed():
    """The coefficients once more, as they are published: descending powers, from u⁴ to u⁰."""
    published = {
        1.0: [-16.815, 45.393, -43.853, 16.030, 0.348],
        DAY_S: [-16.458, 47.095, -50.773, 22.086, 0.701],
        2 * DAY_S: [-11.934, 37.062, -43.507, 20.274, 0.782],
    }
    u = np.linspace(0, 1, 101)
    for time_s, descending in published.items():
        np.testing.assert_allclose(RramWan(read_after_s=time_s).std(u) * 40, np.polyval(descending, u), rtol=1e-12)


@pytest.mark.parametrize("time_s", WAN_US)
def test_wan_is_never_without_noise(time_s):
    assert (RramWan(read_after_s=time_s).std(np.linspace(0, 1, 10_001)) * 40 > 0.3).all()


def test_wan_is_noisier_after_a_day():
    u = np.linspace(0, 1, 101)
    early, late = (RramWan(read_after_s=time_s).std(u) for time_s in (1.0, DAY_S))
    assert (late > early).all()


@pytest.mark.parametrize("time_s", [0, 0.5, 0.9999999, 1.0000001, 2, 86_399, 86_401, 172_801, -1])
def test_wan_at_a_time_that_was_not_measured_is_refused(time_s):
    with pytest.raises(
        ChannelError, match=r"rram-wan was measured 1, 86400, 172800 s after programming, not "
    ) as found:
        RramWan(read_after_s=time_s)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("text", ["1", "1.0", "86400", "8.64e4", "172800"])
def test_wan_at_a_time_that_was_measured_is_named(text):
    assert resolve(f"rram-wan:read_after_s={text}") == RramWan(read_after_s=float(text))


def test_wan_is_read_at_once_unless_it_is_said():
    assert RramWan() == RramWan(read_after_s=1.0) == RramWan(read_after_s=1)
    assert str(RramWan()) == "rram-wan (1 s after programming)"
    assert str(RramWan(read_after_s=DAY_S)) == "rram-wan (86400 s after programming)"


def test_milo_by_hand():
    # σ = 4.782321 - 0.009107·g at g = 50, 93.75, 137.5 and 225 µS, as a fraction of 175 µS
    expected_us = [4.326971, 3.92853975, 3.5301085, 2.733246]
    np.testing.assert_allclose(RramMilo().std(QUARTERS) * 175, expected_us, rtol=1e-12)
    assert str(RramMilo()) == "rram-milo"


def test_milo_is_quieter_at_high_conductance():
    assert (np.diff(RramMilo().std(np.linspace(0, 1, 101))) < 0).all()


BOTH: list[GaussianChannel] = [RramWan(), RramWan(read_after_s=2 * DAY_S), RramMilo()]


@pytest.mark.parametrize("channel", BOTH, ids=str)
def test_levels_are_fractions_of_the_range(channel):
    assert channel.span == (0, 1)
    channel.check(f32([0, 1]))
    for level in (np.nextafter(np.float32(0), np.float32(-1)), np.nextafter(np.float32(1), np.float32(2))):
        with pytest.raises(LevelError, match="holds 0 to 1"):
            channel.std(f32([0.5, level]))


@pytest.mark.parametrize("channel", BOTH, ids=str)
@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_reads_have_the_level_for_their_mean_and_the_published_spread(channel, level):
    held = np.full(20_000, level, np.float32)
    std = float(channel.std(held[:1])[0]) / np.sqrt(3)
    found = channel.read(held, cells=3, rng=np.random.default_rng(2)).astype(np.float64)
    assert_mean(found, level)
    assert_std(found, std)
    assert_law(found, scipy.stats.norm(level, std).cdf)
    with pytest.raises(AssertionError):
        assert_std(found, 1.1 * std)


@pytest.mark.parametrize(("channel", "cited"), [(BOTH[0], "Wan"), (BOTH[2], "Milo")], ids=str)
def test_the_fit_is_cited_and_what_it_leaves_out_is_said(channel, cited):
    assert cited in channel.source.citation
    assert "distributed with" in channel.source.figure
    assert "The cells of a weight vary independently." in channel.source.left_out
