import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.channels import TableChannel, from_pairs
from onnx_analog.channels.estimate import knots_of
from onnx_analog.errors import ChannelError

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
            "column 'v' holds nan, which is not a number up to 1e.150, first in data row 2",
        ),
        ([0, 1], [1e16, 1e16 + 2], {"log": True}, r"scale of 'r' is 1e\+16 to 1e\+16; low must be below high"),
        ([0, 1], [0, 1], {"neighbours": 1.5}, "neighbours is 1.5; it must be a whole number"),
        ([0, 1], [0, 1], {"neighbours": True}, "neighbours is true; it must be a whole number"),
        ([0, 1], [0, 1], {"residuals": 0}, "residuals is 0; at least one is kept"),
        (
            [0, 1, 2],
            [0, 1, -np.inf],
            {},
            "column 'r' holds -inf, which is not a number up to 1e.150, first in data row 3",
        ),
        ([0, 1, 2], [1, 0, 2], {"log": True}, "column 'r' holds 0 in data row 2, which has no logarithm"),
        ([0, 1, 2], [1, -2, -3], {"log": True}, "column 'r' holds -3 in data row 3, which has no logarithm"),
        ([0, 1, 2], [1, 2, 3], {"neighbours": 0}, "neighbours is 0, and channel .* has 3 distinct inputs: give 1 to 3"),
        ([0, 1, 2], [1, 2, 3], {"neighbours": 4}, "neighbours is 4, and channel .* has 3 distinct inputs: give 1 to 3"),
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
    with pytest.raises(ChannelError, match="channel 'mine': column 'v' does not hold numbers"):
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
