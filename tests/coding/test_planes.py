import itertools
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from numpy.typing import NDArray

from onnx_analog.coding.codebook import Codebook, clipped_of
from onnx_analog.coding.masks import follows_from, seeded_mask
from onnx_analog.coding.packing import index_width, pack, pack_index, unpack, unpack_index
from onnx_analog.coding.partition import magnitude
from onnx_analog.coding.planes import (
    Axis,
    Encoded,
    Part,
    decode,
    decode_levels,
    encode,
    fit,
    join,
    levels,
    planes_of,
    split,
    stored_counts,
)
from onnx_analog.coding.scheme import STRATEGIES, Scheme
from onnx_analog.coding.streams import encoded_index
from onnx_analog.errors import ModelError
from onnx_analog.testing import assert_law, assert_std
from tests.coding.families import (
    EXPONENTS,
    LARGEST,
    LEAST,
    SPANS,
    TINY,
    Span,
    bound,
    has_cells,
    of_weights,
    ordinary,
    over,
    papers,
    schemes,
    spans,
    weights,
    wide,
)
from tests.models import U, assert_within, f32, of_strategy, same_bits

RANGE = (-0.65, 0.75)


def paper(strategy: str = "redundancy", span: Span = RANGE, **settings: Any) -> Scheme:
    return Scheme.paper(**of_strategy(strategy, **settings), channel=over(span))


def encoded(weight: NDArray[Any], scheme: Scheme, axis: int = 0) -> Encoded:
    (stored,) = encode([weight], scheme, axis=axis)
    return stored


def assert_round_trip(weight: NDArray[Any], scheme: Scheme) -> None:
    stored = encoded(weight, scheme)
    decoded = decode(stored)
    assert decoded.dtype == np.float32
    analog = has_cells(stored, weight) | (wide(weight) == 0)
    assert_within([np.where(analog, decoded, 0)], [np.where(analog, wide(weight), 0)], [bound(stored, weight)])


def held(weight: NDArray[Any], scheme: Scheme) -> list[NDArray[np.float64]]:
    """Return what each class of a scheme of the paper holds, by a plain stable sort."""
    stored = weight.ravel()[weight.ravel() != 0]
    size = np.abs(wide(stored)) if scheme.sign == "bit" else wide(stored)
    if scheme.classes == 1:
        return [size]
    single = magnitude(stored)
    if scheme.bounds:
        return [size[single <= scheme.bounds[0]], size[single > scheme.bounds[0]]]
    by_size = np.argsort(-single, kind="stable")
    count = round(scheme.shares[0] * size.size)
    return [size[np.sort(by_size[count:])], size[np.sort(by_size[:count])]]


def scales(weight: NDArray[Any], scheme: Scheme) -> list[Fraction]:
    """Return α of each class that holds something, exactly."""
    low, high = map(Fraction, scheme.channel.span)
    ends = [(Fraction(size.min()), Fraction(size.max())) for size in held(weight, scheme) if size.size]
    return [(high - low) / (most - least if least < most else abs(most)) for least, most in ends]


def can_be_scaled(weight: NDArray[Any], scheme: Scheme) -> bool:
    return all(TINY <= alpha <= LARGEST for alpha in scales(weight, scheme))


# --------------------------------------------------------------------------------------------- round trips


@given(weights(), st.data())
def test_decoding_undoes_encoding_unless_it_is_refused(weight, data):
    scheme = data.draw(papers(channel=over(data.draw(spans))))
    # At the very ends of the range, it takes the last rounding to say whether α is a float32 number.
    alpha = scales(weight, scheme)
    assume(not any(abs(each / Fraction(end) - 1) < 4 * U for each in alpha for end in (TINY, LARGEST)))
    if can_be_scaled(weight, scheme):
        assert_round_trip(weight, scheme)
    else:
        with pytest.raises(ModelError, match="cannot be scaled"):
            encoded(weight, scheme)


@given(st.lists(st.floats(width=32, min_value=-(2.0**126), max_value=2.0**126), min_size=1, max_size=30), papers())
def test_decoding_undoes_encoding_of_any_float32(numbers, scheme):
    weight = f32([*numbers, 1, -2, 300])
    assume(can_be_scaled(weight, scheme))
    assert_round_trip(weight, scheme)


@given(ordinary() | weights(), schemes(granularity="tensor"))
def test_weights_with_cells_are_decoded_within_the_bound(weight, scheme):
    try:
        encode([weight], scheme)
    except ModelError:
        assert not is_ordinary(weight)
        return
    assert_round_trip(weight, scheme)


def is_ordinary(weight: NDArray[Any]) -> bool:
    """Return whether magnitudes are so far from the ends of float32 that any of them can be scaled together."""
    size = np.abs(wide(weight))
    return bool(((size == 0) | ((size > 2.0**-100) & (size < 2.0**100))).all())


@given(
    st.data(), schemes(granularity="channel"), st.sampled_from([(4, 6), (6, 2, 3), (5,), (1, 9)]), st.integers(-3, 2)
)
def test_each_output_channel_is_a_tensor_of_its_own(data, scheme, shape, axis):
    """Levels, classes, α and β are those that the channel has alone, whatever its axis."""
    assume(-len(shape) <= axis < len(shape))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    weight = f32(
        rng.normal(size=shape)
        * 2.0 ** rng.integers(-9, 9, [n if a == axis % len(shape) else 1 for a, n in enumerate(shape)])
    )
    weight[rng.random(shape) < 0.2] = 0
    stored = encoded(weight, scheme, axis=axis)
    alone = scheme.changed(granularity="tensor")
    decoded = decode(stored).reshape(shape)
    for number in range(shape[axis]):
        part = np.take(weight, number, axis)
        single = encoded(part, alone)
        assert same_bits([np.take(decoded, number, axis).ravel()], [decode(single)])
        row = number if stored.codebook.groups > 1 else 0
        assert same_bits([stored.codebook.alpha[row : row + 1]], [single.codebook.alpha])
        assert same_bits([stored.codebook.beta[row : row + 1]], [single.codebook.beta])


@given(st.lists(ordinary(), min_size=1, max_size=4), schemes(granularity="model"))
def test_the_tensors_of_a_model_are_stored_as_one(arrays, scheme):
    arrays = [array.astype(np.float32) for array in arrays]
    whole = encoded(np.concatenate(arrays), scheme)
    parts = encode(arrays, scheme)
    for name in ("low", "high", "alpha"):
        assert all(same_bits([getattr(part.codebook, name)], [getattr(whole.codebook, name)]) for part in parts)
    if scheme.analog == "all":  # a mean of all is rounded otherwise than the sum of sums
        assert same_bits([np.concatenate([decode(part) for part in parts])], [decode(whole)])
    assert same_bits([np.concatenate([part.planes.level for part in parts])], [whole.planes.level])
    for name in ("sign", "class_index"):
        if getattr(whole.planes, name) is not None:
            assert same_bits(
                [np.concatenate([without_zeros(part, name) for part in parts])], [without_zeros(whole, name)]
            )


def without_zeros(stored: Encoded, name: str) -> NDArray[Any]:
    """Return a plane without the weights that are read as 0, which a tensor without a mask stores."""
    plane: NDArray[Any] = getattr(stored.planes, name)
    if stored.scheme.analog != "none" or stored.planes.class_index is None:
        return plane
    rest: NDArray[Any] = plane[~(stored.codebook.beta[0] == 0)[stored.planes.class_index]]
    return rest


STEPS_OF_ZERO = Scheme(sign="level", classes=255, partition="uniform", relative_step=1.5, cells=(0,), entropy="context")


@pytest.mark.parametrize(
    "scheme",
    [
        STEPS_OF_ZERO,
        STEPS_OF_ZERO.changed(granularity="channel"),
        STEPS_OF_ZERO.changed(sign="bit", classes=15),
        Scheme.int4(),
    ],
)
def test_what_is_read_as_zero_is_pruned_where_others_are(scheme):
    """The weights are the same without it, and the mask need not tell what was pruned before from what is now."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((8, 50)) < 0.3, 0, rng.normal(size=(8, 50))).astype(np.float32)
    (stored,) = encode([weight], scheme)
    read = decode(stored)
    assert np.array_equal(stored.planes.mask, read != 0)
    assert np.count_nonzero(read) < np.count_nonzero(weight)
    assert all(plane is None or plane.size == np.count_nonzero(read) for plane in stored.planes[2:])
    parts = [split(weight, scheme, Axis.of(weight.shape, 0) if scheme.granularity == "channel" else None)]
    fitted = fit(parts, scheme, groups=8 if scheme.granularity == "channel" else 1)
    assert stored_counts(fitted, 0, scheme).sum() == np.count_nonzero(read)
    dense = np.where(weight == 0, 1e-6, weight)  # nothing is pruned: then zero is a class
    (whole,) = encode([dense], scheme)
    assert whole.planes.mask is None
    assert whole.planes.class_index.size == weight.size


@pytest.mark.parametrize(("relative_step", "pruned"), [(0.3, False), (2.5, True)])
def test_a_mask_of_patterns_is_kept_where_that_is_shorter(relative_step, pruned):
    """2 of each 4 weights are stored; with small steps few of them are read as 0, and a pattern takes log2 6 bits."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 16, 4)).astype(np.float32)
    weight[np.argsort(np.argsort(np.abs(weight), axis=2), axis=2) < 2] = 0
    scheme = STEPS_OF_ZERO.changed(relative_step=relative_step)
    (stored,) = encode([weight], scheme)
    assert np.array_equal(stored.planes.mask, (decode(stored) if pruned else weight.reshape(-1)) != 0)
    streams = encoded_index(scheme, weight.shape, stored.planes.class_index, stored.planes.mask)
    bits = sum(each.stream.bits for each in streams)
    fitted = fit([split(weight, scheme)], scheme, keep=True)
    other = fitted._replace(pruned=frozenset() if pruned else frozenset({0}))
    planes = planes_of(split(weight, scheme), other, 0, scheme)
    others = encoded_index(scheme, weight.shape, planes.class_index, planes.mask)
    assert bits < sum(each.stream.bits for each in others)


@pytest.mark.parametrize(
    ("seed", "key", "seeded"), [(3, "w", True), (4, "w", False), (3, "v", False), (3, None, False)]
)
def test_weights_that_a_seed_keeps_are_stored(seed, key, seeded):
    """Of a mask that does not follow from the seed, weights that are read as 0 are pruned as without one."""
    weight = np.where(seeded_mask(3, "w", 4096, 400), np.random.default_rng(0).normal(size=4096), 0).astype(np.float32)
    scheme = STEPS_OF_ZERO.changed(relative_step=3.0, mask_seed=seed)
    part = split(weight, scheme, key=key)
    assert part.seeded == seeded
    planes = planes_of(part, fit([part], scheme), 0, scheme)
    assert follows_from(3, "w", planes.mask) == seeded
    if not seeded:
        assert np.array_equal(planes.mask, encode([weight], scheme.changed(mask_seed=None))[0].planes.mask)


@pytest.mark.parametrize("relative_step", np.geomspace(0.4, 2.0, 9).round(2).tolist())
def test_the_choice_between_patterns_and_fewer_weights_is_that_of_real_streams(relative_step):
    """By ideal bits. Headers and tables of two or three streams may turn a choice between equals: 2 % of the bits."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(64, 256, 4)).astype(np.float32)
    weight[np.argsort(np.argsort(np.abs(weight), axis=2), axis=2) < 2] = 0
    scheme = STEPS_OF_ZERO.changed(relative_step=relative_step)
    part = split(weight, scheme)
    fitted = fit([part], scheme, keep=True)
    bits = []
    for pruned in (fitted.pruned, frozenset({0}) - fitted.pruned):
        planes = planes_of(part, fitted._replace(pruned=pruned), 0, scheme)
        streams = encoded_index(scheme, weight.shape, planes.class_index, planes.mask)
        bits.append(sum(each.stream.bits for each in streams))
    assert bits[0] <= 1.02 * bits[1]


def test_where_all_is_read_as_zero_it_is_stored():
    """A stored tensor has one stored weight at least."""
    weight = np.array([0.0, 0.1, -0.1, 0.2], np.float32)
    scheme = STEPS_OF_ZERO.changed(relative_step=None, step=9.0)
    (stored,) = encode([weight], scheme)
    assert stored.planes.mask.tolist() == [False, True, True, True]
    assert not decode(stored).any()
    assert stored_counts(fit([split(weight, scheme)], scheme), 0, scheme).sum() == 3


def test_a_class_of_zeros_with_cells_elsewhere_stays():
    scheme = STEPS_OF_ZERO.changed(classes=3, cells=(1, 0, 1), relative_step=None, step=1.0)
    weight = np.array([0.0, 0.1, 0.9, -1.0], np.float32)
    (stored,) = encode([weight], scheme)
    assert stored.planes.mask.tolist() == [False, True, True, True]


@given(ordinary(), schemes(granularity="tensor"), st.sampled_from([1, 3, 100]))
def test_what_is_computed_later_is_what_was_kept(weight, scheme, channels):
    """Classes that `fit` keeps are those that `planes_of` finds again."""
    weight = weight[: weight.size // channels * channels]
    assume(weight.size)
    axis = Axis(channels, weight.size // channels)
    part = split(weight, scheme, axis if channels > 1 else None)
    kept, found = (fit([part], scheme, groups=channels, keep=keep) for keep in (True, False))
    assert found.class_index == ()
    assert kept.counts.tolist() == found.counts.tolist()
    one, other = (planes_of(part, fitted, 0, scheme) for fitted in (kept, found))
    assert same_bits([one.level], [other.level])
    assert (one.class_index is None) == (other.class_index is None) == (scheme.classes == 1)
    if one.class_index is not None:
        assert same_bits([one.class_index], [other.class_index])
        assert kept.counts[0].tolist() == np.bincount(one.class_index, minlength=scheme.classes).tolist()


BY_HAND = {
    "one": [0.3],
    "one, negative": [-0.3],
    "equal": [0.7] * 5,
    "equal up to sign": [0.7, -0.7, 0.7],
    "all negative": [-0.1, -3.0, -0.25, -0.3],
    "one that is not zero": [0.0, -0.0, 1e-3, 0.0],
    "a negative one that is not zero": [0.0, -1e-3, -0.0],
    "neighbours": [1.0, 1 + 2.0**-10],
    "many orders": [1e-4, -3e4, 1.0, 0.0, -0.01, -1e-4],
}
ALL = list(itertools.product(STRATEGIES, EXPONENTS, SPANS))


@pytest.mark.parametrize("numbers", BY_HAND.values(), ids=list(BY_HAND))
def test_odd_weights_are_decoded(numbers):
    for strategy, dtype, span in ALL:
        assert_round_trip(np.array(numbers, dtype), paper(strategy, span, large_fraction=0.4))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_subnormal_weights_are_decoded(strategy, dtype):
    steps = np.array([1, -2, 50, -60, 100, 127])  # either class is wide enough for a scale, but barely
    assert_round_trip(np.ldexp(steps, -133).astype(dtype), paper(strategy, large_fraction=0.5))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_as_large_as_can_be_scaled_are_decoded(strategy):
    weight = f32(np.array([0.25, 0.4, 0.7, 1.0]) * 1.4 / TINY * (1 - 2 * U))
    assert_round_trip(weight, paper(strategy, large_fraction=0.5))


def test_the_bound_holds_where_every_rounding_adds_up():
    # Ends just below a float32 number, so that the range loses a whole unit; α and β are rounded away from zero.
    weight, span = np.array([-0.9999991953437, 1.488798e-7]), (-0.50000041723178, 0.50000041723178)
    assert_round_trip(weight, paper("raw", span))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("span", SPANS)
def test_a_shift_of_ten_roundings_is_beyond_the_bound(strategy, span):
    weight = f32(np.random.default_rng(0).normal(size=50))
    stored = encoded(weight, paper(strategy, span))
    size = np.abs(weight) * of_weights(stored, wide(weight))
    shifted = stored.planes.level + f32(10 * U * (size + max(map(abs, span))))
    with pytest.raises(AssertionError, match="times its bound"):
        assert_within([decode(stored, shifted)], [wide(weight)], [bound(stored, weight)])


@given(ordinary(), schemes(granularity="tensor"))
def test_zeros_are_not_stored_and_come_back_as_plus_zero(weight, scheme):
    stored = encoded(weight, scheme)
    zero, mask = weight == 0, stored.planes.mask
    assert stored.planes.level.size == has_cells(stored, weight).sum()
    assert (mask is None) == (not zero.any())
    assert mask is None or mask.tolist() == (~zero).tolist()
    assert decode(stored)[zero].tobytes() == bytes(4 * int(zero.sum()))


@given(schemes(granularity="tensor"))
@pytest.mark.parametrize("weight", [np.zeros((2, 3), np.float32), -np.zeros(4), np.zeros(0, np.float16)])
def test_nothing_is_stored_where_nothing_is_not_zero(weight, scheme):
    stored = encoded(weight, scheme)
    assert stored.planes.level.size == 0
    assert (stored.codebook.alpha == 1).all()
    assert (stored.codebook.beta[:, np.array(scheme.cells_of_class) > 0] == 0).all()
    assert not stored.codebook.low.any()
    assert same_bits([decode(stored)], [np.zeros(weight.size, np.float32)])


@given(ordinary(), schemes(granularity="tensor"))
def test_the_weight_is_left_alone(weight, scheme):
    before = weight.copy()
    decode(encoded(weight, scheme))
    assert same_bits([weight], [before])


def test_a_matrix_is_stored_in_the_order_of_its_flat_index():
    weight = np.random.default_rng(0).normal(size=(5, 7))
    for scheme in (paper(strategy, (-1.0, 1.0), large_fraction=0.3) for strategy in STRATEGIES):
        flat, *others = (encoded(w, scheme) for w in (weight.ravel(), weight, np.asfortranarray(weight)))
        for other in others:
            assert same_bits([other.planes.level, decode(other)], [flat.planes.level, decode(flat)])


# ------------------------------------------------------------------------------------------ classes without cells


def points(stored: Encoded, weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the reconstruction point of each weight (n,), with its sign."""
    values = wide(weight)
    each = of_weights(stored, values, "beta")
    signed = each if stored.planes.sign is None else np.copysign(each, values)
    return np.where(values == 0, 0, signed + 0.0)


@given(ordinary(), schemes(granularity="tensor"))
def test_weights_without_cells_are_exactly_their_reconstruction_point(weight, scheme):
    stored = encoded(weight, scheme)
    digital = ~has_cells(stored, weight)
    assert same_bits([decode(stored)[digital] + f32(0)], [f32(points(stored, weight)[digital]) + f32(0)])
    noisy = decode(stored, stored.planes.level + f32(0.1))
    assert same_bits([noisy[digital]], [decode(stored)[digital]])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("granularity", ["tensor", "channel", "model"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_integers_are_multiples_of_a_step_and_off_by_half_of_it_at_most(bits, granularity, dtype):
    weight = np.random.default_rng(bits).normal(size=(7, 60)).astype(dtype)
    stored = encoded(weight, Scheme.integers(bits, granularity=granularity))
    rows = weight if granularity == "channel" else weight.reshape(1, -1)
    step = np.abs(wide(rows)).reshape(len(rows), -1).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    decoded = decode(stored).reshape(rows.shape).astype(np.float64)
    number = np.rint(decoded / step)
    assert np.abs(number).max() == 2 ** (bits - 1) - 1
    # The point is rounded once; an edge, to a float32 number below it; and the weight to one where it is compared.
    assert (np.abs(decoded - number * step) <= U * np.abs(decoded)).all()
    assert (np.abs(decoded - rows.astype(np.float64)) <= step / 2 + 4 * U * np.abs(decoded) + 2 * U * step).all()
    assert stored.planes.level.size == 0
    assert stored.planes.sign is None


@given(ordinary(), st.sampled_from([2, 3, 5, 16, 256]), st.sampled_from(["bit", "level"]), st.integers(-8, 8))
def test_uniform_points_are_multiples_of_the_step_that_is_given(weight, classes, sign, power):
    scheme = Scheme(sign=sign, classes=classes, partition="uniform", step=2.0**power, cells=0)
    number = decode(encoded(weight, scheme)).astype(np.float64) / 2.0**power
    half = 0.5 if sign == "level" and classes % 2 == 0 else 0.0  # an even number of signed points has none at 0
    is_stored = weight.reshape(-1) != 0
    stored, most = number[is_stored], (classes - 1) / 2 if sign == "level" else classes - 1
    assert (stored + half == np.rint(stored + half)).all()
    assert (np.abs(number) <= most).all()
    within = np.clip(wide(weight).reshape(-1)[is_stored] / 2.0**power, -most, most)
    assert (np.abs(stored - within) <= 0.5 + 4 * U * (1 + np.abs(within))).all()


@pytest.mark.parametrize("sign", ["bit", "level"])
@pytest.mark.parametrize("cells", [1, (0, 1, 1, 2, 1), 2])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_step_and_the_ends_of_the_sizes_tell_all_of_a_codebook_of_equal_steps(sign, cells, granularity):
    """What is counted is enough: α and β of each class that has weights follow from it."""
    weight = f32(np.random.default_rng(5).normal(size=(6, 700)))
    scheme = Scheme(
        sign=sign,
        classes=5,
        partition="uniform",
        relative_step=0.5,
        cells=cells,
        granularity=granularity,
        channel=over((0.0, 1.0)),
    )
    book = encoded(weight, scheme).codebook
    rows = weight if granularity == "channel" else weight.reshape(1, -1)
    for group, row in enumerate(rows.astype(np.float64)):
        sizes = row if sign == "level" else np.abs(row)
        step = 0.5 * np.sqrt(np.mean(np.square(row)))
        for k, count in enumerate(scheme.cells_of_class):
            point = (k - 2 if sign == "level" else k) * step
            low, high = point - step / 2, point + step / 2
            low = max(low, 0) if sign == "bit" else min(low, sizes.min()) if k == 0 else low
            high = max(high, sizes.max()) if k == 4 else high
            alpha = 1 / (high - low) if count else 1
            beta = alpha * low if count else point
            np.testing.assert_allclose([book.alpha[group, k], book.beta[group, k]], [alpha, beta], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sign", ["bit", "level"])
@pytest.mark.parametrize("partition", ["uniform", "lloyd"])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_points_of_an_unbiased_estimator_keep_the_gain(sign, partition, granularity):
    """Σ w·ŵ = Σ w²: both sums are exact but for float32 points, whose relative error is 2^-24, and the sums'."""
    weight = f32(np.random.default_rng(6).normal(size=(5, 800)))
    steps = {"relative_step": 1.3} if partition == "uniform" else {}
    plain = Scheme(sign=sign, classes=7, partition=partition, cells=0, granularity=granularity, **steps)
    gains = {}
    for scheme in (plain, plain.changed(estimator="unbiased")):
        decoded = decode(encoded(weight, scheme)).reshape(weight.shape).astype(np.float64)
        axis = 1 if granularity == "channel" else None
        exact = weight.astype(np.float64)
        gains[scheme.estimator] = np.sum(exact * decoded, axis=axis) / np.sum(np.square(exact), axis=axis)
    np.testing.assert_allclose(gains["unbiased"], 1, rtol=1e-6)
    if partition == "lloyd":  # Σ w·mean = Σ mean² < Σ w²
        assert (gains["affine"] < 1).all()


def test_the_weight_that_is_clipped_most_is_named():
    weight = f32([[0.1, 0.2, 5], [0.1, -9, 0.3]])
    scheme = Scheme(sign="level", classes=5, partition="uniform", step=1, cells=0, granularity="channel")
    fitted = fit([split(weight, scheme, Axis.of(weight.shape, 0))], scheme, groups=2)
    assert clipped_of(fitted.codebook, fitted.edges[0], scheme) == (9, 2)
    for other in (scheme.changed(step=4), scheme.changed(step=None), scheme.changed(cells=(1, 0, 0, 0, 1))):
        fitted = fit([split(weight, other, Axis.of(weight.shape, 0))], other, groups=2)
        assert clipped_of(fitted.codebook, fitted.edges[0], other) is None


@given(ordinary(), st.sampled_from([2, 3, 5, 16, 256]), st.sampled_from(["share", "bounds", "lloyd"]), st.data())
def test_other_points_are_the_means_of_their_classes(weight, classes, partition, data):
    scheme = data.draw(schemes(classes=classes, partition=partition, cells=(0,), granularity="tensor"))
    stored = encoded(weight, scheme)
    index, values = stored.planes.class_index, wide(weight)[wide(weight) != 0]
    size = np.abs(values) if scheme.sign == "bit" else values
    for number in np.unique(index):
        mean = size[index == number].mean()
        reach = np.abs(size[index == number]).max()
        assert abs(stored.codebook.beta[0, number] - mean) <= U * abs(mean) + 1e-12 * reach


# ------------------------------------------------------------------------------------------------- levels


@given(weights() | ordinary(), schemes(granularity="tensor"))
def test_levels_never_leave_the_output_range(weight, scheme):
    try:
        level = encoded(weight, scheme).planes.level
    except ModelError:
        assert not is_ordinary(weight)
        return
    low, high = scheme.channel.span
    assert level.dtype == np.float32
    assert all(low <= single <= high for single in level.tolist())  # as Python floats, which keep its ends exact


@given(st.sampled_from(["share", "bounds", "lloyd"]).flatmap(lambda how: schemes(granularity="tensor", partition=how)))
def test_each_class_fills_the_output_range(scheme):
    weight = f32(np.random.default_rng(0).normal(size=2000))
    planes, codebook, _ = encoded(weight, scheme)
    span, index = scheme.channel.span, planes.class_index
    analog = np.array(scheme.cells_of_class) > 0
    for number in np.flatnonzero(analog & (codebook.low[0] != codebook.high[0])):
        level = planes.level if index is None else planes.level[index[analog[index]] == number]
        if np.unique(level).size == 1:
            continue  # a class of one value: 0 is included in it
        # α is rounded once; so is β, which is no more than α·low and an end of the range; and so is the level,
        # which then is moved to the range's side of its end, by two u.
        low, high, alpha = (float(column[0, number]) for column in (codebook.low, codebook.high, codebook.alpha))
        size, reach = max(abs(low), abs(high)) * alpha, max(map(abs, span))
        np.testing.assert_allclose([level.min(), level.max()], span, rtol=0, atol=U * (2 * size + 6 * reach))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_levels_by_hand(strategy):
    weight = f32([[1, -2, 0], [1.5, 4, -8]])
    planes, *_ = encoded(weight, paper(strategy, (0.0, 1.0), large_fraction=0.4))
    expected = {
        "raw": np.array([9, 6, 9.5, 12, 0]) / 12,
        "sign": np.array([0, 1, 0.5, 3, 7]) / 7,
        "mapping": [0, 1, 0.5, 0, 1],
        "redundancy": [0, 1, 0.5, 0, 1],
    }
    # α is rounded once, and the level, which is at most 1, once; β, at most 2/3, is rounded once.
    np.testing.assert_allclose(planes.level, expected[strategy], rtol=0, atol=3 * U)
    assert planes.mask is not None
    assert planes.mask.tolist() == [True, True, False, True, True, True]
    assert (None if planes.sign is None else planes.sign.tolist()) == (
        None if strategy == "raw" else [False, True, False, False, True]
    )
    assert (None if planes.class_index is None else planes.class_index.tolist()) == (
        [0, 0, 0, 1, 1] if strategy in ("mapping", "redundancy") else None
    )


def test_three_classes_by_hand():
    """Of magnitudes 1, 2, 4, 5, 9, 10: the lowest two have no cells and are read as 1.5, the others fill 0 to 1."""
    scheme = Scheme(classes=3, partition="bounds", bounds=(3.0, 6.0), cells=(0, 1, 2), channel=over((0.0, 1.0)))
    stored = encoded(f32([1, -9, 4, -5, 0, -2, 10]), scheme)
    assert stored.planes.level.tolist() == [0, 0, 1, 1]
    assert stored.planes.class_index.tolist() == [0, 2, 1, 1, 0, 2]
    assert stored.codebook.alpha.tolist() == [[1, 1, 1]]
    assert stored.codebook.beta.tolist() == [[1.5, 4, 9]]
    assert stored.codebook.low.tolist() == [[1, 4, 9]]
    assert stored.codebook.high.tolist() == [[2, 5, 10]]
    assert decode(stored).tolist() == [1.5, -9, 4, -5, 0, -1.5, 10]
    assert decode(stored, f32([0.5, 0.25, 0.75, 0])).tolist() == [1.5, -9.5, 4.25, -4.75, 0, -1.5, 9]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_levels_are_computed_in_float64_and_rounded_once(dtype):
    scheme = paper("sign")
    size = np.random.default_rng(0).uniform(0.2, 1.2, 1000).astype(dtype)
    fitted = fit([Part(size, None, None)], scheme).codebook
    alpha, beta = Fraction(float(fitted.alpha[0, 0])), Fraction(float(fitted.beta[0, 0]))
    found = levels(Part(size, None, None), None, fitted, scheme)
    for level, weight in zip(found.tolist(), size.tolist(), strict=True):
        if level in (found.min(), found.max()):
            continue  # clipped
        exact = alpha * Fraction(weight) - beta
        # In float64, the product is below 2 and the difference below 1; each rounds by 2**-53 of that at most.
        assert abs(Fraction(level) - exact) <= Fraction(U) * abs(exact) + Fraction(2.0**-51)


# ------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize(
    "scheme",
    [
        *(paper(strategy, large_fraction=0.4) for strategy in STRATEGIES),
        Scheme(classes=5, partition="lloyd", cells=(1, 2, 3, 4, 5), sign="level", channel=over(RANGE)),
        Scheme(classes=3, partition="uniform", cells=(0, 1, 1), granularity="channel", channel=over(RANGE)),
    ],
    ids=str,
)
def test_noise_in_a_level_is_noise_over_alpha_in_the_weight(scheme):
    weight, sigma = np.random.default_rng(0).normal(size=(4, 5000)), 0.1
    stored = encoded(weight, scheme)
    noise = np.random.default_rng(1).normal(scale=sigma, size=stored.planes.level.size)
    off = (decode(stored, stored.planes.level + f32(noise)) - weight.ravel()) * of_weights(stored, wide(weight))
    off = off[has_cells(stored, weight)]
    assert_std(off, sigma)
    assert_law(off, scipy.stats.norm(scale=sigma).cdf)
    index = stored.planes.class_index
    if index is not None:  # and in each class with its own α
        index = index[(np.array(scheme.cells_of_class) > 0)[index]]
        for number in np.unique(index):
            assert_std(off[index == number], sigma)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shift", [0.25, -0.25, 3.0])
def test_a_shift_of_the_level_is_a_shift_of_the_size(strategy, shift):
    weight = f32(np.random.default_rng(0).normal(size=100))
    stored = encoded(weight, paper(strategy, large_fraction=0.4))
    alpha = of_weights(stored, wide(weight))
    towards = np.sign(weight) if stored.planes.sign is not None else 1
    expected = weight + towards * shift / alpha  # not clipped; a negative size stays negative
    moved = decode(stored, stored.planes.level + f32(shift))
    # What is read is rounded once more, and sum and quotient are of larger numbers.
    more = 3 * U * (abs(shift) + max(map(abs, RANGE))) / alpha
    assert_within([moved], [expected], [bound(stored, weight) + more])


def papers_formula(weight: NDArray[Any], stored: Encoded, phi: Any) -> NDArray[np.float64]:
    """Return the paper's w_out = (φ(α·w_in - β) + β)/α, with β = α·low - s0, in float64."""
    values = wide(weight)
    alpha, low = (of_weights(stored, values, name) for name in ("alpha", "low"))
    beta = alpha * low - stored.scheme.channel.span[0]
    size = values if stored.planes.sign is None else np.abs(values)
    out = (phi(alpha * size - beta) + beta) / alpha
    return np.where(values == 0, 0, out if stored.planes.sign is None else np.sign(values) * out)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_read_is_the_papers_formula(strategy, span):
    rng = np.random.default_rng(0)
    weight = f32(rng.normal(size=300) * (rng.random(300) < 0.8))
    stored = encoded(weight, paper(strategy, span, large_fraction=0.2))
    reach = max(map(abs, span))

    def phi(level):
        return level + reach / 4 * np.sin(level / reach)

    # φ strays from the identity with a slope of 1/4 at most, so it adds a quarter of how far the level is off, which is
    # the bound and β's rounding, u·(α·|w| + S); what is read is larger by a quarter of S. Twice the bound has room.
    expected = papers_formula(weight, stored, phi)
    read = f32(phi(stored.planes.level.astype(np.float64)))
    assert_within([decode(stored, read)], [expected], [2 * bound(stored, weight)])
    with pytest.raises(AssertionError, match="times its bound"):  # φ left out
        assert_within([decode(stored)], [expected], [2 * bound(stored, weight)])


def test_the_papers_unprotected_row_adds_noise_to_the_weights_themselves():
    weight = f32([-2.5, 0.5, 1.5])
    stored = encoded(weight, paper("raw", (-2.5, 1.5)))
    assert (stored.codebook.alpha.item(), stored.codebook.beta.item()) == (1.0, 0.0)
    assert same_bits([stored.planes.level, decode(stored)], [weight, weight])


# ---------------------------------------------------------------------------------------------- codebooks


def fitted_ends(low: float, high: float, span: Span) -> Codebook:
    return fit([Part(np.array([low, high]), None, None)], paper("raw", span)).codebook


@given(st.floats(-(2.0**40), 2.0**40), st.floats(2.0**-40, 2.0**40), spans)
def test_the_ends_of_a_class_are_the_ends_of_the_output_range(low, width, span):
    high = low + width
    assume(low < high)
    codebook = fitted_ends(low, high, span)
    assert (codebook.low.item(), codebook.high.item()) == (low, high)
    assert (codebook.alpha.dtype, codebook.beta.dtype) == (np.float32, np.float32)
    alpha, beta = Fraction(codebook.alpha.item()), Fraction(codebook.beta.item())
    # β is rounded once, to u of itself; α once, to u of the range's width; float64 roundings are 2**29 times smaller.
    once = Fraction(U * (1 + 2.0**-20)) * abs(beta) + Fraction(2.0**-50) * (abs(alpha * Fraction(low)) + 8)
    assert abs(alpha * Fraction(low) - beta - Fraction(span[0])) <= once
    width = Fraction(U * (1 + 2.0**-20)) * (Fraction(span[1]) - Fraction(span[0]))
    assert abs(alpha * Fraction(high) - beta - Fraction(span[1])) <= once + width


@pytest.mark.parametrize("value", [3.0, -3.0, LEAST * 2**24, -1.0])
def test_a_class_of_one_value_includes_zero(value):
    codebook = fitted_ends(value, value, RANGE)
    assert (codebook.low.item(), codebook.high.item()) == (min(value, 0), max(value, 0))
    other = fitted_ends(min(value, 0), max(value, 0), RANGE)
    assert same_bits([codebook.alpha, codebook.beta], [other.alpha, other.beta])


def test_a_class_of_two_values_does_not_include_zero():
    assert fitted_ends(1, 2, (0.0, 1.0)).low.item() == 1
    assert fitted_ends(-2, -1, (0.0, 1.0)).high.item() == -1


@pytest.mark.parametrize(
    ("fits", "alpha", "too_far"),
    [(1 / LARGEST, LARGEST, (1 - 2.0**-23) / LARGEST), (1 / TINY, TINY, (1 + 2.0**-22) / TINY)],
    ids=["smallest", "largest"],
)
def test_a_scale_that_is_no_normal_number_is_refused(fits, alpha, too_far):
    assert fitted_ends(0.0, fits, (0.0, 1.0)).alpha.item() == alpha
    with pytest.raises(ModelError, match=r"magnitudes from 0 to .* cannot be scaled to \(0\.0, 1\.0\) in float32"):
        fitted_ends(0.0, too_far, (0.0, 1.0))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [1e-50, 1e-320, 1e300])
def test_float64_beyond_float32_is_refused(strategy, size):
    weight = size * np.array([1.0, -2.0, 3.0, 5.0])
    with pytest.raises(ModelError, match="cannot be scaled"):
        encoded(weight, paper(strategy, large_fraction=0.5))


@given(weights(), papers())
def test_classes_hold_what_a_plain_sort_gives_them(weight, scheme):
    assume(can_be_scaled(weight, scheme))
    planes, codebook, _ = encoded(weight, scheme)
    expected = held(weight, scheme)
    assert codebook.low.shape == codebook.alpha.shape == (1, len(expected))
    for number, size in enumerate(expected):
        single = size.size and size.min() == size.max()
        ends = (size.min(), size.max()) if size.size else (0, 0)
        ends = (min(ends[0], 0), max(ends[1], 0)) if single else ends
        assert (codebook.low[0, number], codebook.high[0, number]) == ends
        if planes.class_index is not None:
            assert (planes.class_index == number).sum() == size.size
    assert (planes.sign is None) == (scheme.sign == "level")
    if planes.sign is not None:
        assert planes.sign.tolist() == (wide(weight)[wide(weight) != 0] < 0).tolist()


@pytest.mark.parametrize(("threshold", "large"), [(1e-300, 4), (0.5, 4), (5.0, 0), (1e300, 0)])
def test_a_threshold_may_leave_a_class_empty(threshold, large):
    planes, codebook, _ = encoded(f32([1, -2, 4, -5]), paper(span=(0.0, 1.0), threshold=threshold))
    empty = 0 if large else 1
    assert planes.class_index.sum() == large
    assert [column[0, empty] for column in (codebook.low, codebook.high, codebook.alpha, codebook.beta)] == [0, 0, 1, 0]


@pytest.mark.parametrize(("fraction", "large"), [(0, 0), (0.049, 0), (0.051, 1), (0.05 * 3, 2), (0.99, 10), (1, 10)])
def test_a_fraction_is_rounded_to_whole_weights(fraction, large):
    weight = np.array([1, -2, 0, 3, 4, 5, 6, -7, 8, 9, 10])
    planes, *_ = encoded(f32(weight), paper(span=(0.0, 1.0), large_fraction=fraction))
    assert planes.class_index.tolist() == [0] * (10 - large) + [1] * large


@pytest.mark.parametrize(
    "scheme", [paper(), paper("raw"), Scheme.int8(), Scheme(classes=5, partition="lloyd", cells=(1,))], ids=str
)
def test_a_dead_channel_has_the_scale_of_its_tensor(scheme):
    """Weights so small that α would be no float32 number; the other channels have scales of their own."""
    weight = f32(np.random.default_rng(0).normal(size=(4, 50)))
    weight[1] *= f32(1e-44)
    weight[3] = 0
    stored = encoded(weight, scheme.changed(granularity="channel"))
    whole = encoded(weight, scheme)
    decoded = decode(stored).reshape(weight.shape)
    if scheme.analog == "all":
        assert same_bits([stored.codebook.alpha[1]], [whole.codebook.alpha[0]])
        assert_within([decode(stored)], [wide(weight)], [bound(stored, weight)])
    assert same_bits([decoded[1]], [decode(whole).reshape(weight.shape)[1]])
    assert not decoded[3].any()


def test_what_no_channel_can_be_scaled_to_is_refused():
    with pytest.raises(ModelError, match="cannot be scaled"):
        encoded(f32(np.full((3, 4), 1e-44)), paper(granularity="channel"))


def test_no_tensors_are_stored_as_none():
    assert encode([], Scheme()) == []


# ------------------------------------------------------------------------------------------------- planes


@given(weights(), st.sampled_from(["sign", "raw"]))
def test_joining_undoes_splitting(weight, strategy):
    size, mask, sign, group, _ = split(weight, paper(strategy))
    assert (size.dtype == np.float64) == (weight.dtype == np.float64)
    assert (size > 0).all() or strategy == "raw"
    assert (sign is None) == (strategy == "raw")
    assert group is None
    signed = size if sign is None else np.where(sign, -size, size)
    with np.errstate(under="ignore"):
        expected = weight.astype(np.float32) + f32(0)  # -0 becomes 0
        assert same_bits([join(signed.astype(np.float32) + f32(0), mask)], [expected])


def test_planes_that_say_nothing_are_not_there():
    assert split(f32([1, -2]), paper("sign")).mask is None
    assert split(f32([1, 0]), paper("raw")).sign is None
    stored = f32([1, -2])
    assert join(stored, None) is stored


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(-4, 3), st.booleans(), st.integers(0, 99))
def test_groups_are_the_indices_of_an_axis(shape, axis, pruned, seed):
    assume(-len(shape) <= axis < len(shape))
    weight = np.random.default_rng(seed).integers(0 if pruned else 1, 3, shape).astype(np.float32)
    part = split(weight, Scheme(granularity="channel"), Axis.of(weight.shape, axis))
    expected = np.indices(shape)[axis].ravel()[weight.ravel() != 0]
    assert part.group is not None
    assert part.group.tolist() == expected.tolist()


def test_an_axis_of_nothing_has_no_groups():
    assert Axis.of((3, 0), 0).groups(0, None).tolist() == []


@pytest.mark.parametrize(("dtype", "wider"), [(t, np.float64 if t is np.float64 else np.float32) for t in EXPONENTS])
def test_sizes_are_of_float32_or_wider(dtype, wider):
    size, mask, sign, *_ = split(np.array([[1, -2], [-0.0, 3]], dtype), paper("sign"))
    assert size.dtype == wider
    assert mask is not None
    assert sign is not None
    assert (size.tolist(), mask.tolist(), sign.tolist()) == (
        [1, 2, 3],
        [True, True, False, True],
        [False, True, False],
    )


def test_a_size_of_zero_has_no_sign():
    found = decode_levels(f32([0.5, 0.5, 0.75]), np.array([True, False, True]), None, f32([[2]]), f32([[-0.5]]))
    assert same_bits([found], [f32([0.0, 0.0, -0.125])])


def test_sizes_are_of_the_scale_of_their_class_and_group():
    index, group = np.array([0, 1, 1, 0], np.uint8), np.array([0, 0, 1, 1])
    found = decode_levels(f32([1, 1, 2, 2]), None, index, f32([[1, 4]]), f32([[0, 2]]))
    assert same_bits([found], [f32([1, 0.75, 1, 2])])
    alpha, beta = f32([[1, 4], [2, 8]]), f32([[0, 2], [4, 6]])
    assert same_bits([decode_levels(f32([1, 1, 2, 2]), None, index, alpha, beta, group=group)], [f32([1, 0.75, 1, 3])])
    assert same_bits(
        [decode_levels(f32([1, 1, 2, 2]), None, None, alpha[:, :1], beta[:, :1], group=group)], [f32([1, 1, 3, 3])]
    )


@given(st.lists(st.booleans(), max_size=40))
def test_unpacking_undoes_packing(bits):
    packed = pack(np.array(bits, bool))
    assert packed.dtype == np.uint8
    assert packed.size == -(-len(bits) // 8)
    assert unpack(packed, len(bits)).dtype == np.bool_
    assert unpack(packed, len(bits)).tolist() == bits
    assert sum(int(byte) << 8 * place for place, byte in enumerate(packed)) == sum(
        bit << place for place, bit in enumerate(bits)
    )


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_unpacking_undoes_packing_of_class_indices(width, data):
    """An index is `width` bits of the number whose lowest byte comes first."""
    index = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=40))
    packed = pack_index(np.array(index, np.uint8), width)
    assert packed.dtype == np.uint8
    assert packed.size == -(-len(index) * width // 8)
    unpacked = unpack_index(packed, width, len(index))
    assert unpacked.dtype == np.uint8
    assert unpacked.tolist() == index
    number = sum(value << width * place for place, value in enumerate(index))
    assert packed.tobytes() == number.to_bytes(packed.size, "little")


def test_an_index_takes_the_least_width_that_holds_all_classes():
    for classes in range(1, 257):
        width = index_width(classes)
        assert classes <= 2**width
        assert all(classes > 2**narrower for narrower in (0, 1, 2, 4) if narrower < width)


def test_a_class_of_one_value_has_it_as_both_extremes_unless_it_has_cells():
    scheme = Scheme(classes=2, partition="bounds", bounds=(0.5,), cells=(1, 0), channel=over(RANGE))
    codebook = fit([split(f32([0.25, 0.25, 0.75, 0.75]), scheme)], scheme).codebook
    assert (codebook.low.tolist(), codebook.high.tolist()) == ([[0.0, 0.75]], [[0.25, 0.75]])
