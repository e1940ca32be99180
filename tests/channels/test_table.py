from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.channels import Scale, Source, TableChannel, from_pairs
from onnx_analog.errors import ChannelError, LevelError
from tests.models import f32

U64 = 2.0**-53


# ----------------------------------------------------------------------------------------------------------- scales

NUMBERS = st.floats(-1e6, 1e6)


@given(NUMBERS, st.floats(1e-3, 1e6), st.floats(-1.5, 1.5))
def test_a_linear_scale_is_undone(low, width, scaled):
    scale = Scale(low=low, high=low + width)
    # Four roundings of the value, whose size is at most |low| + 2·width, are magnified by 2/width.
    reach = 8 * U64 * (1 + (abs(low) + 2 * width) * 2 / width)
    assert scale.apply(scale.undo(np.array([scaled])))[0] == pytest.approx(scaled, rel=0, abs=reach)


@given(st.floats(-9, 9), st.floats(0.1, 9), st.floats(-1.5, 1.5))
def test_a_logarithmic_scale_is_undone(exponent, decades, scaled):
    scale = Scale(low=10.0**exponent, high=10.0 ** (exponent + decades), log=True)
    # As above, for exponents of at most 27 and a power that is right to two half units, 2·U64/ln(10) of the exponent.
    reach = 16 * U64 * (1 + 28 * 2 / decades)
    assert scale.apply(scale.undo(np.array([scaled])))[0] == pytest.approx(scaled, rel=0, abs=reach)


def test_scales_by_hand():
    volts = Scale(low=1.0, high=3.0, unit="V")
    assert volts.apply(np.array([1, 1.5, 3, 4.0])).tolist() == [-1, -0.5, 1, 2]
    assert volts.undo(np.array([-1, -0.5, 1, 2.0])).tolist() == [1, 1.5, 3, 4]
    ohm = Scale(low=1e3, high=1e7, unit="Ω", log=True)
    np.testing.assert_allclose(ohm.apply(np.array([1e3, 1e4, 1e5, 1e7])), [-1, -0.5, 0, 1], rtol=0, atol=1e-15)
    np.testing.assert_allclose(ohm.undo(np.array([-1, -0.5, 0, 1])), [1e3, 1e4, 1e5, 1e7], rtol=1e-14)


@pytest.mark.parametrize("log", [False, True])
def test_pairs_are_scaled_by_their_extremes(log):
    inputs, outputs = np.array([2, 4, 6, 10.0]), np.array([1e3, 1e5, 1e4, 1e7])
    found = from_pairs(inputs, outputs, units=("volts", "ohm"), log=log)
    assert found.input_scale == Scale(low=2, high=10, unit="volts")
    assert found.output_scale == Scale(low=1e3, high=1e7, unit="ohm", log=log)
    assert found.inputs == (-1, -0.5, 0, 1)
    fractions = (np.log10(outputs) - 3) / 4 if log else (outputs - 1e3) / (1e7 - 1e3)
    np.testing.assert_allclose(found.means, 2 * fractions - 1, rtol=0, atol=8 * U64)


def test_what_is_written_is_in_the_unit_of_the_device():
    table = from_pairs(np.array([2, 4, 6.0]), np.array([10, 100, 1000.0]), units=("volts", "ohm"), log=True)
    assert table.programmed(f32([-1, -0.5, 0, 1])).tolist() == [2, 3, 4, 6]
    with pytest.raises(LevelError):
        table.programmed(f32([1.5]))


@pytest.mark.parametrize("log", [False, True])
def test_what_is_written_returns_the_level(log):
    rng = np.random.default_rng(0)
    inputs = np.repeat(np.linspace(3, 5, 21), 50)
    outputs = 10 ** (inputs - 3 + 0.1 * rng.standard_normal(inputs.size))
    table = from_pairs(inputs, outputs, log=log)
    level = np.linspace(*table.span, 333)
    volts = table.programmed(level)
    assert volts.min() >= 3 - 1e-12
    assert volts.max() <= 5 + 1e-12
    back = np.interp(table.input_scale.apply(volts), table.inputs, table.means)
    slope = np.abs(np.diff(table.means) / np.diff(table.inputs)).max()
    np.testing.assert_allclose(back, level, rtol=0, atol=64 * U64 * (1 + 5 * slope))


# ---------------------------------------------------------------------------------------------------- the channel

LINE = TableChannel(name="line", inputs=(-1.0, 0.0, 1.0), means=(-0.5, 0.0, 0.5), stds=(0.1, 0.2, 0.4))


def test_mean_and_spread_are_linear_between_inputs():
    levels = np.array([-0.5, -0.25, 0, 0.25, 0.5])
    np.testing.assert_allclose(LINE.std(levels), [0.1, 0.15, 0.2, 0.3, 0.4], rtol=1e-15)
    assert LINE.programmed(levels).tolist() == [-1, -0.5, 0, 0.5, 1]
    assert LINE.span == (-0.5, 0.5)


def test_cells_on_one_device_share_what_is_between_devices():
    levels = np.array([-0.5, -0.25, 0, 0.5])
    table = replace(LINE, between=(0.08, 0.1, 0.4))
    assert table.shared_std(levels).tolist() == [0, 0, 0, 0]
    # linear between inputs
    np.testing.assert_allclose(replace(table, cells_on="same").shared_std(levels), [0.08, 0.09, 0.1, 0.4], rtol=1e-14)


def test_a_table_prints_its_name_and_where_its_cells_are():
    table = replace(LINE, between=(0.1, 0.1, 0.1))
    assert str(table) == "line"
    assert str(replace(table, cells_on="same")) == "line (cells of a weight on one device)"


def test_the_origin_is_kept():
    source = Source(citation="somebody")
    assert replace(LINE, provenance=source).source == source
    assert from_pairs(np.arange(3.0), np.arange(3.0), source=source).source == source
    assert LINE.source.citation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": (0.0, 1.0)}, r"'line': its columns have lengths \[2, 3\]; 2 to 1,024, all equal"),
        ({"inputs": (0.0,), "means": (0.0,), "stds": (0.1,)}, r"lengths \[1\]; 2 to 1,024"),
        ({"inputs": (), "means": (), "stds": ()}, r"lengths \[0\]; 2 to 1,024"),
        ({"means": (0.0, np.nan, 1.0)}, r"table: means\[1\] is nan; it must be a finite number"),
        ({"stds": (0.1, np.inf, 0.1)}, r"stds\[1\] is inf"),
        ({"inputs": (-np.inf, 0.0, 1.0)}, r"inputs\[0\] is -inf"),
        ({"means": (0.0, 1e7, 1.0)}, r"numbers beyond 1e\+06"),
        (
            {name: tuple(np.linspace(0, 1, 1025)) for name in ("inputs", "means", "stds")},
            r"lengths \[1025\]; 2 to 1,024",
        ),
        ({"between": (0.1, -0.1, 0.1)}, "between must be from 0 to the standard deviation"),
        ({"between": (0.1, 9.0, 0.1)}, "between must be from 0 to the standard deviation"),
        ({"between": (0.1, np.nan, 0.1)}, r"between\[1\] is nan"),
        ({"residuals": ((0.0,), (), (0.0,))}, r"residuals\[1\] is empty"),
        ({"residuals": ((0.0,), (1e9,), (0.0,))}, r"residuals\[1\] goes beyond"),
        ({"residuals": ((0.0,), (np.nan,), (0.0,))}, r"residuals\[1\]\[0\] is nan"),
        ({"residuals": (0.0, 1.0, 2.0)}, r"residuals\[0\] is 0.0; it must be a list"),
        ({"neighbours": 0}, "neighbours is 0"),
        ({"neighbours": 1.5}, "neighbours is 1.5; it must be a whole number"),
        ({"pairs": -1}, "pairs -1"),
        ({"pairs": True}, "pairs is true; it must be a whole number"),
        ({"input_scale": 3}, "Scale is built from a mapping, not from 3"),
        ({"input_scale": {"low": 1.0, "high": 0.0}}, "scale of '' is 1 to 0; low must be below high"),
        ({"inputs": (-1.0, 1.0, 0.0)}, "'line': inputs must increase"),
        ({"inputs": (-1.0, -1.0, 0.0)}, "inputs must increase"),
        ({"stds": (0.1, -1e-9, 0.1)}, "standard deviations not be negative"),
        ({"means": (0.5, 0.5, 0.5)}, "'line' returns the same mean for every input: it can hold nothing"),
        ({"cells_on": "another"}, "'line': cells_on is 'another'; it must be different or same"),
        ({"cells_on": "same"}, "'line' has no device-to-device part"),
        ({"between": (0.1, 0.1)}, "'line': between has 2 entries, not one for each input"),
        ({"residuals": ((0.0,), (0.0,))}, "'line': residuals has 2 entries, not one for each input"),
    ],
)
def test_a_table_that_describes_no_channel_is_refused(change, message):
    with pytest.raises(ChannelError, match=message) as caught:
        replace(LINE, **change)
    assert "\n" not in str(caught.value)


def test_a_table_without_noise_anywhere_is_a_channel():
    quiet = replace(LINE, stds=(0.0, 0.0, 0.0))
    level = f32([-0.5, 0.1, 0.5])
    assert quiet.read(level, cells=1, rng=np.random.default_rng(0)).tolist() == level.tolist()
