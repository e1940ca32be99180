import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.channels import Scale, Source, TableChannel, from_dict, from_pairs
from onnx_analog.channels.estimate import knots_of
from onnx_analog.channels.measured import measured
from onnx_analog.channels.pairs_csv import read_columns, read_labels
from onnx_analog.errors import ChannelError, LevelError
from tests.models import f32

U64 = 2.0**-53


# ------------------------------------------------------------------------------------------------------------ pairs


def by_loops(pairs: list[tuple[int, int]], k: int) -> list[tuple[float, float]]:
    """Return mean and variance of the reads at the k distinct inputs nearest to each, on the scale of -1 to 1."""
    xs, ys = ([pair[place] for pair in pairs] for place in (0, 1))
    distinct, found = sorted(set(xs)), []
    for knot in distinct:
        nearest = sorted(distinct, key=lambda x: (abs(x - knot), x))[:k]
        reads = [2 * (y - min(ys)) / (max(ys) - min(ys)) - 1 for x, y in pairs if x in nearest]
        mean = sum(reads) / len(reads)
        found.append((mean, sum((read - mean) ** 2 for read in reads) / len(reads)))
    return found


def test_loops_by_hand():
    pairs = [(0, 0), (1, 4), (1, 2), (3, 0)]
    assert by_loops(pairs, 1) == [(-1, 0), (0.5, 0.25), (-1, 0)]
    # 1 is as near to 0 as to 2, which is not there; 0 is its neighbour, and it is that of 3 and of 0.
    assert by_loops(pairs, 2)[0] == pytest.approx((0, 2 / 3))
    assert by_loops(pairs, 2) == [by_loops(pairs, 2)[0]] * 2 + [by_loops([(0, 4), (0, 2), (0, 0), (3, 0)], 1)[0]]


PAIRS = st.lists(st.tuples(st.integers(-6, 6), st.integers(-4, 4)), min_size=2, max_size=40).filter(
    lambda pairs: all(len(set(column)) > 1 for column in zip(*pairs, strict=True))
)


@given(PAIRS, st.data())
def test_mean_and_spread_are_those_of_all_reads_at_the_nearest_distinct_inputs(pairs, data):
    count = len({x for x, _ in pairs})
    k = data.draw(st.integers(1, count))
    expected = by_loops(pairs, k)
    inputs, outputs = np.array(pairs, float).T
    if np.ptp([mean for mean, _ in expected]) < 1e-12:
        return  # a curve that is level up to rounding is refused or not, as rounding has it
    found = from_pairs(inputs, outputs, neighbours=k)
    # Sums of up to 40 numbers of at most 1, whose every partial sum is rounded: 40·40 half units, twice for a
    # difference; variances below 1e-14 are taken for rounding.
    reach = 2 * 40**2 * U64
    np.testing.assert_allclose(found.means, [mean for mean, _ in expected], rtol=0, atol=reach)
    np.testing.assert_allclose(np.square(found.stds), [v for _, v in expected], rtol=0, atol=4 * reach + 1e-14)
    assert found.span == (min(found.means), max(found.means))
    assert (found.neighbours, found.pairs) == (k, len(pairs))
    assert len(found.inputs) == count


def test_ties_go_to_the_smaller_input():
    inputs = np.array([0, 1, 1, 2, 2, 3.0])
    outputs = np.array([0, 4, 4, 2, 2, 8.0])
    # Input 1 is as near to 0 as to 2, and 2 as near to 1 as to 3.
    means = from_pairs(inputs, outputs, neighbours=2).means
    raw = np.array([8 / 3, 8 / 3, 3, 4])
    np.testing.assert_allclose(means, raw / 4 - 1, rtol=0, atol=16 * U64)


@pytest.mark.parametrize("step", [0.1, 1 / 3, 1e-6, 1e6])
def test_ties_are_found_in_spite_of_rounding(step):
    inputs = np.arange(101) * step
    outputs = np.where(np.arange(101) % 4 < 2, 1.0, 0.0) + np.arange(101)
    means = np.array(from_pairs(inputs, outputs, neighbours=2).means)
    pair = (outputs[:-1] + outputs[1:]) / 2
    expected = 2 * (np.append(pair[0], pair) - outputs.min()) / np.ptp(outputs) - 1
    np.testing.assert_allclose(means, expected, rtol=0, atol=2 * 101**2 * U64)


def test_reads_are_weighted_equally_whatever_their_input():
    inputs = np.array([0, 1, *[1] * 8, 5, 6.0])
    outputs = np.array([10, *[0] * 9, 10, 5.0])
    assert from_pairs(inputs, outputs, neighbours=2).means[0] == pytest.approx(2 * (10 / 10) / 10 - 1)


def test_neighbouring_inputs_have_their_own_reads():
    inputs = np.array([0, 0, 1e-6, 1e-6, 1, 1])
    found = from_pairs(inputs, np.array([0, 2, 4, 6, 9, 10.0]))
    np.testing.assert_allclose(found.means, np.array([1, 5, 9.5]) / 5 - 1, rtol=0, atol=16 * U64)


@pytest.mark.parametrize("gap", [1e-6, 1e-10, 1e-15])
def test_no_read_is_lost_however_near_another_input_is(gap):
    inputs = np.array([0, 0, gap, gap, 1, 1])
    one, other = (from_pairs(inputs, np.array([0, 2, read, 6, 9, 10.0])) for read in (4, 5))
    assert one.means != other.means


def channel_of(rows: list[tuple[int, int, int]], k: int, *, told_apart: bool = True) -> TableChannel:
    inputs, outputs, devices = np.array(rows).T
    return from_pairs(inputs / 3, outputs / 7, devices=devices if told_apart else None, neighbours=k)


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(-3, 3), st.integers(0, 3)), min_size=12, max_size=40),
    st.randoms(use_true_random=False),
    st.integers(1, 2),
    st.booleans(),
)
def test_the_order_of_rows_changes_not_a_bit(rows, random, k, told_apart):
    rows = [(-4, -3, 0), (-4, -3, 1), (4, 3, 0), (4, 3, 1), (0, 0, 2), *rows]
    shuffled = random.sample(rows, len(rows))
    assert channel_of(shuffled, k, told_apart=told_apart) == channel_of(rows, k, told_apart=told_apart)


def test_another_row_changes_the_channel():
    rows = [(x, y, 0) for x in range(4) for y in (x, x + 1)]
    assert channel_of([*rows, (0, 4, 0)], 1) != channel_of(rows, 1)


def test_tied_reads_that_come_sorted_by_device_are_all_taken():
    rng = np.random.default_rng(0)
    inputs = np.repeat(np.arange(5.0), 700)
    outputs = inputs + np.tile(np.repeat(np.arange(7.0), 100), 5) + 0.1 * rng.standard_normal(inputs.size)
    found = from_pairs(inputs, outputs)
    expected = found.output_scale.apply(outputs.reshape(5, 700))
    # cumulative sums of 3,500 numbers
    np.testing.assert_allclose(found.means, expected.mean(axis=1), rtol=0, atol=2 * 3500 * U64 * 5)
    np.testing.assert_allclose(found.stds, expected.std(axis=1), rtol=1e-9)


def test_what_is_between_devices_by_hand():
    inputs = np.repeat([0.0, 1.0], 6)
    devices = np.tile(["b", "a", "b", "a", "a", "a"], 2)
    outputs = np.array([4, 1, 2, 0, 0, 3, 14, 9, 14, 9, 9, 9.0])
    found = from_pairs(inputs, outputs, devices=devices)
    # At 0, a reads 1, 0, 0, 3 (mean 1, squares 6) and b 4, 2 (mean 3, squares 2); all 6 have mean 10/6, squares 30.
    unit = 2 / 14
    between = [np.sqrt(30 / 6 - (10 / 6) ** 2 - 8 / (6 - 2)), np.sqrt((4 * 81 + 2 * 196) / 6 - (64 / 6) ** 2)]
    np.testing.assert_allclose(found.between, np.array(between) * unit, rtol=1e-12)
    assert found.between[1] == pytest.approx(found.stds[1])  # each device of its own reads alike: all is between them
    assert from_pairs(inputs, outputs).between == ()


def test_residuals_are_the_reads_made_standard():
    rng = np.random.default_rng(0)
    inputs, outputs = np.repeat([0.0, 1.0], 256), rng.exponential(size=512)
    found = np.array(from_pairs(inputs, outputs).residuals)
    reads = np.sort(outputs.reshape(2, 256), axis=1)
    expected = (reads - reads.mean(axis=1, keepdims=True)) / reads.std(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.5e-4 + 1e-9)  # four decimals are kept


def test_neighbours_lend_their_residuals_and_their_devices_too():
    rng = np.random.default_rng(0)
    inputs, outputs = np.repeat([0.0, 1.0, 3.0], 128), rng.exponential(size=384) + np.repeat([0, 1, 5], 128)
    devices = rng.integers(3, size=384)
    outputs += devices
    found = from_pairs(inputs, outputs, devices=devices, neighbours=2)
    for row, part in enumerate([slice(0, 256), slice(0, 256), slice(128, 384)]):
        reads, labels = outputs[part], devices[part]
        standard = (np.sort(reads) - reads.mean()) / reads.std()
        np.testing.assert_allclose(found.residuals[row], standard, rtol=0, atol=0.5e-4 + 1e-9)
        squares = [(read - reads[labels == label].mean()) ** 2 for read, label in zip(reads, labels, strict=True)]
        within = np.sum(squares) / (reads.size - 3)  # three devices
        between = np.sqrt(reads.var() - within) * 2 / np.ptp(outputs)
        assert found.between[row] == pytest.approx(between, rel=1e-9)


def test_an_input_whose_reads_are_alike_has_no_residuals():
    found = from_pairs(np.array([0, 0, 1, 1.0]), np.array([2, 2, 3, 4.0]))
    assert found.stds[0] == 0
    assert set(found.residuals[0]) == {0.0}
    assert len(set(found.residuals[1])) > 1


# -------------------------------------------------------------------------------------------------- very many inputs


@pytest.mark.parametrize(("distinct", "rows"), [(1023, 1023), (1024, 1024), (1025, 1024), (5000, 1024)])
def test_a_table_has_1024_rows_at_most(distinct, rows):
    inputs = np.repeat(np.arange(distinct, dtype=float), 2)
    found = from_pairs(inputs, inputs + np.tile([0.0, 1.0], distinct))
    assert len(found.inputs) == len(found.means) == len(found.stds) == len(found.residuals) == rows
    assert (found.inputs[0], found.inputs[-1]) == (-1, 1)
    # The reads at x are x and x + 1, of a range of `distinct`: each row keeps the reads of its own input alone.
    raw = found.input_scale.undo(np.array(found.inputs)).round()
    np.testing.assert_allclose(found.means, 2 * (raw + 0.5) / distinct - 1, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.stds, 1 / distinct, rtol=1e-5)


def test_rows_are_spread_equally_over_the_inputs():
    distinct = np.sort(np.random.default_rng(0).random(3000))
    found = knots_of(distinct)
    places = np.searchsorted(distinct, found)
    assert set(np.diff(places).tolist()) == {2, 3}  # 2999/1023 = 2.93
    assert (places[0], places[-1]) == (0, 2999)


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
        ({"cells_on": "another"}, "'line': cells are on different or same devices, not 'another'"),
        ({"cells_on": "same"}, "'line' does not know what cells on one device share"),
        ({"between": (0.1, 0.1)}, "'line': between has 2 entries, not one an input"),
        ({"residuals": ((0.0,), (0.0,))}, "'line': residuals has 2 entries, not one an input"),
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


# ----------------------------------------------------------------------------------------------- pairs that are none


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "message"),
    [
        ([0, 1, 2], [0, 1], {}, r"inputs \(3,\) and outputs \(2,\) are not pairs"),
        ([[0, 1]], [[0, 1]], {}, r"inputs \(1, 2\) and outputs \(1, 2\) are not pairs"),
        ([], [], {}, "column 'v' holds fewer than two distinct values"),
        ([1, 1], [0, 1], {}, "column 'v' holds fewer than two distinct values"),
        ([0, 1], [1, 1], {}, "column 'r' holds fewer than two distinct values"),
        (
            [0, np.nan, np.nan],
            [0, 1, 2],
            {},
            "column 'v' holds nan, which is no number up to 1e.150, first in data row 2",
        ),
        ([0, 1], [1e16, 1e16 + 2], {"log": True}, r"scale of 'r' is 1e\+16 to 1e\+16; low must be below high"),
        ([0, 1], [0, 1], {"neighbours": 1.5}, "neighbours is 1.5; it must be a whole number"),
        ([0, 1], [0, 1], {"neighbours": True}, "neighbours is true; it must be a whole number"),
        ([0, 1], [0, 1], {"residuals": 0}, "residuals is 0; at least one is kept"),
        ([0, 1, 2], [0, 1, -np.inf], {}, "column 'r' holds -inf, which is no number up to 1e.150, first in data row 3"),
        ([0, 1, 2], [1, 0, 2], {"log": True}, "column 'r' holds 0 in data row 2, so has no logarithm"),
        ([0, 1, 2], [1, -2, -3], {"log": True}, "column 'r' holds -3 in data row 3, so has no logarithm"),
        ([0, 1, 2], [1, 2, 3], {"neighbours": 0}, "has 3 distinct inputs: neighbours is 0"),
        ([0, 1, 2], [1, 2, 3], {"neighbours": 4}, "has 3 distinct inputs: neighbours is 4"),
        ([0, 1, 2], [1, 2, 3], {"neighbours": 3}, "returns the same mean for every input"),
        ([0, 1, 2], [1, 2, 3], {"devices": np.array([0, 1])}, "devices"),
        ([0, 1], [1, 2], {"devices": np.array([0, 1, 2])}, "devices"),
    ],
)
def test_pairs_that_describe_no_channel_are_refused(inputs, outputs, options, message):
    with pytest.raises(ChannelError, match=message) as caught:
        from_pairs(np.array(inputs, float), np.array(outputs, float), name="mine", units=("v", "r"), **options)
    assert "channel 'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [["0", "one"], [True, False], [0, 1j], [None, 1]])
def test_pairs_that_are_no_numbers_are_refused(inputs):
    with pytest.raises(ChannelError, match="channel 'mine': column 'v' holds what is no number"):
        from_pairs(np.array(inputs), np.arange(2.0), name="mine", units=("v", "r"))


def test_a_negative_input_needs_no_logarithm():
    found = from_pairs(np.array([-2, -1, 0.0]), np.array([1, 10, 100.0]), log=True)
    np.testing.assert_allclose(found.means, [-1, 0, 1], rtol=0, atol=4 * U64)


@pytest.mark.parametrize("neighbours", [1, 2])
def test_both_ends_of_the_range_of_neighbours(neighbours):
    found = from_pairs(np.array([0, 1, 2.0]), np.array([1, 2, 3.0]), neighbours=neighbours)
    assert found.neighbours == neighbours


def test_two_pairs_are_a_channel():
    found = from_pairs(np.array([5, 3.0]), np.array([1, 2.0]))
    assert (found.inputs, found.means, found.stds, found.span) == ((-1, 1), (1, -1), (0, 0), (-1, 1))


# ------------------------------------------------------------------------------------------------------- CSV files

PLAIN = "v,r\n1,2\n1,4\n2,7\n2,9\n"
COLUMNS = [[1, 1, 2, 2], [2, 4, 7, 9]]


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("\n"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        "\ufeff# a comment\r\n" + PLAIN.replace("\n", "\r\n"),
        "# a comment, with a comma\n\n" + PLAIN.replace("1,4", "# another\n1,4\n"),
        'r,"v",note\n2,"1",a\n4,1,b\n7,2,c\n"9","2",d\n',
        'v,r,note\n1,2,"a, b"\n1,4,""\n2,7,c\n2,9,"d, e, f"\n',
        '"note, with a comma",v,r\n"a, b",1,2\nc,1,4\nd,2,7\ne,2,9\n',
        " v , r \n 1 , 2 \n1,4\n2, 7\n2,9\n",
        "v,r\n1.0,2e0\n1,+4\n2,0.7e1\n2.,9\n",
    ],
    ids=[
        "plain",
        "no last newline",
        "CRLF",
        "CR",
        "byte order mark",
        "byte order mark, comment and CRLF",
        "comments and empty lines",
        "quotes and another order",
        "commas in quotes",
        "commas in a quoted name",
        "blanks",
        "ways to write numbers",
    ],
)
def test_files_that_say_the_same(tmp_path, text):
    path = written(tmp_path, text)
    assert [column.tolist() for column in read_columns(path, ("v", "r"))] == COLUMNS
    found = measured(csv=str(path), input="v", output="r")
    source = Source(citation="mine.csv: r against v, 4 pairs")
    assert found == from_pairs(*map(np.array, COLUMNS), name="mine", units=("v", "r"), source=source)


def test_columns_come_in_the_order_that_they_are_asked_for(tmp_path):
    path = written(tmp_path, "a,b,c\n1,2,3\n4,5,6\n")
    assert [column.tolist() for column in read_columns(path, ("c", "a"))] == [[3, 6], [1, 4]]


def test_labels_are_text_and_numbered_in_its_order(tmp_path):
    path = written(tmp_path, 'v,r,who\n1,2,a\n1,4,"b, c"\n2,7,07\n2,9,7\n')
    assert read_labels(path, "who").tolist() == [2, 3, 0, 1]


def test_options_of_a_file_are_those_of_pairs(tmp_path):
    rows = [(x, 10.0 ** (x + n / 4 + d), d) for x in range(5) for n in range(3) for d in range(2)]
    path = written(tmp_path, "v,r,who\n" + "".join(f"{x},{y!r},device {d}\n" for x, y, d in rows))
    found = measured(csv=str(path), input="v", output="r", log=True, neighbours=2, group="who")
    inputs, outputs, devices = np.array(rows).T
    expected = from_pairs(
        inputs, outputs, devices=devices, neighbours=2, name="mine", units=("v", "r"), log=True, source=found.source
    )
    assert found == expected
    assert all(found.between)


def test_more_inputs_than_a_table_has_rows(tmp_path):
    text = "v,r\n" + "".join(f"{x},{x + up}\n" for x in range(1025) for up in (0, 1))
    found = measured(csv=str(written(tmp_path, text)), input="v", output="r")
    assert (len(found.inputs), found.pairs) == (1024, 2050)
    assert found.source.citation == "mine.csv: r against v, 2,050 pairs"


def test_a_fitted_channel_goes_through_json(tmp_path):
    found = measured(csv=str(written(tmp_path, PLAIN)), input="v", output="r")
    assert from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'v'; its columns are none"),
        ("# nothing but a comment\n", "has no column 'v'; its columns are none"),
        ("V,r\n1,2\n2,3\n", "has no column 'v'; its columns are V, r"),
        ("v;r\n1;2\n2;3\n", "has no column 'v'; its columns are v;r"),
        ("v,r\n", "has no rows"),
        ("v,r\n# nothing\n\n", "has no rows"),
        ("v,r\n1,two\n2,3\n", r"mine.csv', line 2: column 'r' holds 'two', which is no finite number"),
        ("# a\nv,r\n\n1,\n2,3\n", "line 4: column 'r' is empty"),
        ("v,r\n1,2\n2\n", "line 3 has 1 cells, and the header 2"),
        ("v,r\n1,2,3\n2\n", "line 2 has 3 cells, and the header 2"),
        ('v,r\n1,"2\n2,3\n', "line 2 is no CSV: unexpected end of data"),
        ("v,r\n1," + "9" * 200_000 + "\n2,3\n", "line 2 is no CSV: field larger than field limit"),
        ("v,r\n1,-1e308\n2,1e308\n", "column 'r' holds -1e.308, which is no number up to 1e.150, first in data row 1"),
        ("v,r\n1,-inf\n2,1e308\n", "line 2: column 'r' holds '-inf'"),
        ("v,r\n1,1_000\n2,3\n", "column 'r' holds '1_000'"),
        ("v,r\n1,\u0663\n2,3\n", "column 'r' holds '\u0663'"),
        ("v,r\n1,\uff11\n2,3\n", "column 'r' holds '\uff11'"),
        (b"v,r\n1,\xff\n2,3\n", "not UTF-8 text"),
        (b"v,r\n1,2\x00\n2,3\n", "no finite number"),
        ("v,r\n1,nan\n2,3\n", "line 2: column 'r' holds 'nan', which is no finite number"),
        ("v,r\n1,2\n1e999,3\n", "line 3: column 'v' holds '1e999', which is no finite number"),
        ("v,r\n1,2\n1,3\n", "column 'v' holds fewer than two distinct values"),
        ("v,r\n1,2\n2,2\n", "column 'r' holds fewer than two distinct values"),
        ("v,r\n1,2\n2,2\n1,3\n2,3\n", "returns the same mean for every input"),
    ],
)
def test_files_that_hold_no_pairs_are_refused_in_one_line_that_names_them(tmp_path, text, message):
    with pytest.raises(ChannelError, match=message) as caught:
        measured(csv=str(written(tmp_path, text)), input="v", output="r")
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_negative_read_has_no_logarithm_and_is_one_all_the_same(tmp_path):
    path = written(tmp_path, "v,r\n1,5\n2,-3\n3,4\n")
    with pytest.raises(ChannelError, match="channel 'mine': column 'r' holds -3 in data row 2, so has no logarithm"):
        measured(csv=str(path), input="v", output="r", log=True)
    assert measured(csv=str(path), input="v", output="r").pairs == 3


def test_text_in_other_columns_is_passed_over(tmp_path):
    path = written(tmp_path, "note,v,r\nhot,1,2\n,2,3\n")
    assert measured(csv=str(path), input="v", output="r").pairs == 2


def test_a_group_that_is_not_there_is_named(tmp_path):
    path = written(tmp_path, PLAIN)
    with pytest.raises(ChannelError, match="has no column 'who'; its columns are v, r"):
        measured(csv=str(path), input="v", output="r", group="who")


@pytest.mark.parametrize("name", ["none.csv", ""])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    path = tmp_path / name
    calls: list[Any] = [
        lambda: read_columns(path, ("v",)),
        lambda: read_labels(path, "v"),
        lambda: measured(csv=str(path), input="v", output="r"),
    ]
    for call in calls:
        with pytest.raises(ChannelError, match=f"'{path}'") as caught:
            call()
        assert "\n" not in str(caught.value)
