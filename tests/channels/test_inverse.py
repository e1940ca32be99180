from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from onnx_analog.channels import from_dict, resolve
from onnx_analog.channels.inverse import Inverse

U64 = 2.0**-53


def inverse(inputs, means, stds) -> Inverse:
    return Inverse(*(np.array(column, np.float64) for column in (inputs, means, stds)))


def preimages(inputs, means, stds, level) -> list[tuple[Fraction, Fraction]]:
    """Return (σ, input) of every input whose mean is `level`, exactly; of a plateau its two ends, where σ is least."""
    y = Fraction(level)
    knots = [tuple(map(Fraction, knot)) for knot in zip(inputs, means, stds, strict=True)]
    found = [(s, x) for x, m, s in knots if m == y]
    for (x0, m0, s0), (x1, m1, s1) in pairwise(knots):
        if min(m0, m1) < y < max(m0, m1):
            share = (y - m0) / (m1 - m0)
            found.append((s0 + share * (s1 - s0), x0 + share * (x1 - x0)))
    return found


def test_preimages_by_hand():
    table = [0, 2, 3, 4], [0, 2, 2, 0], [0, 4, 6, 2]
    assert preimages(*table, 1) == [(2, 1), (4, Fraction(7, 2))]
    assert preimages(*table, 2) == [(4, 2), (6, 3)]
    assert preimages(*table, 0) == [(0, 0), (2, 4)]
    assert preimages(*table, 3) == []


# ------------------------------------------------------------------------------------------------------- exactly


def tables(inputs, means, stds, size):
    """Return tables of integers: knots of so many inputs, means and standard deviations."""
    columns = st.integers(2, size).flatmap(
        lambda n: st.tuples(
            st.sets(inputs, min_size=n, max_size=n).map(sorted),
            st.lists(means, min_size=n, max_size=n),
            st.lists(stds, min_size=n, max_size=n),
        )
    )
    return columns.filter(lambda columns: len(set(columns[1])) > 1)


# Means -1, 0 and 1 differ by powers of two, and all else is a multiple of 1/8: no float64 operation rounds.
DYADIC = tables(st.integers(-8, 8), st.integers(-1, 1), st.integers(0, 4), 7)


@given(DYADIC)
def test_the_preimage_of_least_noise_is_taken_and_of_equal_ones_the_smallest(table):
    inputs, means, stds = table[0], table[1], [s / 8 for s in table[2]]
    levels = np.arange(8 * min(means), 8 * max(means) + 1) / 8
    found = inverse(inputs, means, stds)
    best = [min(preimages(inputs, means, stds, level)) for level in levels.tolist()]
    assert found.std(levels).tolist() == [float(std) for std, _ in best]
    assert found.input(levels).tolist() == [float(x) for _, x in best]


# ------------------------------------------------------------------------------------------------- up to rounding

# Steps of 1/1000, so that repeated means and plateaus are found and no piece is steeper than 2,000 either way.
FINE = tables(st.integers(-1000, 1000), st.integers(-1000, 1000) | st.integers(-2, 2), st.integers(0, 300), 9)
SLOPE = 2000.0
# σ and input are s0 + s1·y with |s1| up to 2,000, and s0 = s - s1·m: five roundings of numbers up to 2,002.
REACH = 5 * 2 * SLOPE * U64


def scaled(table):
    return [[number / 1000 for number in column] for column in table]


@given(FINE, st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_noise_is_that_of_the_best_preimage(table, shares):
    inputs, means, stds = scaled(table)
    levels = [min(means) + share * (max(means) - min(means)) for share in shares]
    levels = [*np.clip(levels, min(means), max(means)).tolist(), *means]
    found = inverse(inputs, means, stds)
    best = [float(min(preimages(inputs, means, stds, level))[0]) for level in levels]
    np.testing.assert_allclose(found.std(np.array(levels)), best, rtol=0, atol=2 * REACH)


@given(FINE, st.floats(0, 1))
def test_the_input_that_is_found_has_the_level_for_its_mean_and_the_noise_that_is_said(table, share):
    inputs, means, stds = scaled(table)
    level = np.clip(min(means) + share * (max(means) - min(means)), min(means), max(means))
    levels = np.array([level, *means])
    found = inverse(inputs, means, stds)
    at = found.input(levels)
    # The input is off by REACH, and where the curve is steep its mean by 2,000 times as much.
    assert min(inputs) - REACH <= at.min()
    assert at.max() <= max(inputs) + REACH
    candidates = [preimages(inputs, means, stds, value) for value in levels.tolist()]
    for value, std, pairs in zip(at, found.std(levels), candidates, strict=True):
        assert min(abs(value - float(x)) + abs(std - float(s)) for s, x in pairs) <= 4 * REACH
    np.testing.assert_allclose(np.interp(at, inputs, means), levels, rtol=0, atol=2 * SLOPE * REACH)


@given(FINE)
def test_no_input_of_a_fine_grid_is_better(table):
    inputs, means, stds = scaled(table)
    grid = np.union1d(np.linspace(inputs[0], inputs[-1], 501), inputs)
    level, std = np.interp(grid, inputs, means), np.interp(grid, inputs, stds)
    # Next to a knot the mean may be rounded to beyond what its piece reaches: such levels are those of the knot.
    knots = np.array(means)
    near = np.abs(level[:, None] - knots) <= 4 * U64
    clear = ~near.any(axis=1) | np.isin(grid, inputs)
    assume(clear.any())
    slack = 2 * REACH + SLOPE * 8 * U64  # of σ, and of a level that is rounded on a piece where σ is steep
    assert (inverse(inputs, means, stds).std(level)[clear] <= std[clear] + slack).all()


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset"])
def test_measured_curves_that_are_not_monotone_are_undone(name):
    table = resolve(name)
    levels = np.linspace(*table.span, 4001)
    inputs, means, stds = (np.array(column) for column in (table.inputs, table.means, table.stds))
    assert (np.diff(means) > 0).any()
    assert (np.diff(means) < 0).any()
    steep = max(np.abs(np.diff(a) / np.diff(b)).max() for a, b in ((means, inputs), (inputs, means), (stds, means)))
    reach = 40 * (1 + steep) * U64  # as above
    at = table.inverse.input(levels)
    np.testing.assert_allclose(np.interp(at, inputs, means), levels, rtol=0, atol=reach * (1 + steep))
    np.testing.assert_allclose(table.inverse.std(levels), np.interp(at, inputs, stds), rtol=0, atol=2 * reach)
    # Brute force: of 100,001 inputs, none whose mean is the level to half a step is less noisy by more than a step.
    grid = np.linspace(-1, 1, 100_001)
    step = 2e-5
    mean, std = np.interp(grid, inputs, means), np.interp(grid, inputs, stds)
    change = np.abs(np.diff(stds) / np.diff(inputs)).max() * step
    for level, found in zip(levels[1::80], table.inverse.std(levels[1::80]), strict=True):
        crossings = np.flatnonzero(np.diff(mean >= level))
        assert abs(std[crossings].min() - found) <= 2 * change


# --------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(("means", "inputs"), [((0, 1), (2.0, 2.5, 4.0)), ((1, 0), (4.0, 3.5, 2.0))])
def test_two_knots_are_a_line(means, inputs):
    found = inverse([2, 4], means, [0.5, 0.25])
    levels = np.array([0, 0.25, 1])
    assert found.input(levels).tolist() == list(inputs)
    assert found.std(levels).tolist() == [0.5 - 0.125 * (x - 2) for x in inputs]


@pytest.mark.parametrize(
    ("stds", "expected"),
    [((4, 2, 1, 4), 2), ((4, 1, 2, 4), 1), ((4, 2, 2, 4), 1), ((4, 0, 0, 0), 1), ((4, 3, 0, 0), 2)],
)
def test_of_a_plateau_the_quieter_end_is_taken_and_of_equal_ones_the_first(stds, expected):
    found = inverse([0, 1, 2, 3], [0, 1, 1, 2], np.array(stds) / 8)
    assert found.input(np.array([1.0])).tolist() == [expected]
    assert found.std(np.array([1.0])).tolist() == [stds[expected] / 8]


def test_a_plateau_is_left_at_once_where_another_branch_is_quieter():
    # The plateau at 1 has σ 1/8; the branch that comes down through 1 at input 3 has 0.
    found = inverse([0, 1, 2, 3, 4], [0, 1, 1, 1, -1], [0.5, 0.125, 0.125, 0, 0.5])
    assert found.input(np.array([1.0])).tolist() == [3.0]


def test_branches_take_over_where_their_noise_is_less():
    # Up: σ falls from 1/2 to 0 as the level rises. Down: σ is 1/4 throughout. They meet at 1/2.
    found = inverse([0, 1, 1.5, 2.5], [0, 1, 1.5, 0], [0.5, 0, 0.25, 0.25])
    levels = np.array([0.25, 0.4375, 0.5625, 0.75])
    assert found.std(levels).tolist() == [0.25, 0.25, 0.5 - 0.5 * 0.5625, 0.125]
    assert (found.input(levels) > 1.5).tolist() == [True, True, False, False]


def test_where_branches_cross_the_smaller_input_is_taken():
    # Up: σ is (level + 1)/8. Down: σ is 1/8 throughout. At 0 they are equal, at inputs 0.5 and 2.5.
    found = inverse([0, 1, 2, 3], [-1, 1, 1, -1], [0, 0.25, 0.125, 0.125])
    levels = np.array([-0.5, 0.0, 0.5])
    assert found.std(levels).tolist() == [0.0625, 0.125, 0.125]
    assert found.input(levels).tolist() == [0.25, 0.5, 2.25]


def test_out_of_a_valley_the_quieter_branch_is_taken():
    # Both branches begin at the bottom with one σ, which rounding must not tell apart.
    found = inverse([-0.002, -0.001, 0], [0, -0.001, 0], [0, 0.003, 0.011])
    np.testing.assert_allclose(found.input(np.array([-0.0005])), [-0.0015], rtol=1e-12)
    np.testing.assert_allclose(found.std(np.array([-0.0005])), [0.0015], rtol=1e-12)


def test_equal_branches_are_settled_by_the_smaller_input():
    found = inverse([0, 1, 2], [0, 1, 0], [0.25, 0.25, 0.25])
    assert found.input(np.array([0, 0.5, 1])).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_shapes_are_kept_and_numbers_are_double(shape, dtype):
    found = inverse([0, 1], [0, 1], [0.25, 0.5])
    for values in (found.input(np.full(shape, 0.5, dtype)), found.std(np.full(shape, 0.5, dtype))):
        assert (values.shape, values.dtype) == (shape, np.float64)


# --------------------------------------------------------------------------------------------------- knots by buckets


@pytest.mark.parametrize("clustered", [0, 3, 30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_knot_below_a_level_is_that_of_a_bisection(dtype, clustered):
    """Also where many knots share a bucket, at the knots themselves, beside them, and beyond both ends."""
    rng = np.random.default_rng(clustered)
    means = np.sort(np.concatenate([rng.uniform(-1, 1, 40), 0.25 + 1e-7 * rng.random(clustered), [-1.0, 0.5, 1.0]]))
    found = inverse(np.arange(means.size), means, rng.random(means.size))
    knots = found._knots
    beside = np.concatenate([np.nextafter(knots, -2), np.nextafter(knots, 2)])
    level = np.concatenate([knots, beside, rng.uniform(-1, 1, 50_000), [-1.5, 1.5]]).astype(dtype).astype(np.float64)
    expected = np.maximum(np.searchsorted(knots, level, side="right") - 1, 0)
    assert found._knot_below(level).tolist() == expected.tolist()


def test_a_level_has_the_same_noise_wherever_it_stands_among_others():
    table = resolve("pcm")
    level = np.linspace(*table.span, 40_000)[1:-1]
    together = table.inverse.std(level)
    assert together[::997].tolist() == [
        float(table.inverse.std(level[i : i + 1])[0]) for i in range(0, level.size, 997)
    ]


def test_equal_tables_have_one_inverse():
    one, other = (from_dict(resolve("pcm").to_dict()) for _ in range(2))
    assert one is not other
    assert one.inverse is other.inverse


def test_a_rise_that_no_level_can_tell_is_a_plateau():
    inputs, means, stds = np.arange(4.0), np.array([-1.0, 0.0, 1e-320, 1.0]), np.array([0.2, 0.1, 0.05, 0.1])
    inverse = Inverse(inputs, means, stds)
    np.testing.assert_array_equal(inverse.input(np.array([-0.5, 0.0, 0.5])), [0.5, 2.0, 2.5])
    np.testing.assert_allclose(inverse.std(np.array([-0.5, 0.0, 0.5])), [0.15, 0.05, 0.075])
