import itertools
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, example, given
from numpy.typing import NDArray

from onnx_analog.channels import resolve
from onnx_analog.coding import planes
from onnx_analog.coding.planes import (
    Code,
    Cut,
    Encoded,
    cut_largest,
    decode,
    empty_class,
    encode,
    fit_class,
    join,
    levels,
    magnitude,
    mark_largest,
    pack,
    split,
    unlevel,
    unpack,
)
from onnx_analog.coding.strategies import STRATEGIES
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.testing import assert_law, assert_std
from tests.models import U, assert_within, f32, same_bits

Span = tuple[float, float]

TINY, LARGEST = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))
LEAST = 2.0**-149  # the smallest float32 number above zero
SPANS = [(-0.65, 0.75), (-0.5, 0.5), (0.0, 1.0), (0.1, 0.3), (2.0, 50.0), (-3.0, -1.0), resolve("pcm").span]
# Exponents between which a type's numbers lie, with room for a sum.
EXPONENTS: dict[Any, tuple[int, int]] = {
    np.float16: (-24, 14),
    ml_dtypes.bfloat16: (-133, 125),
    np.float32: (-149, 125),
    np.float64: (-200, 127),
}
UNIT_NUMBERS = st.one_of(st.floats(-1, 1), st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5]))


@st.composite
def weights(draw) -> NDArray[Any]:
    """Return weights of any type and size, of one order of magnitude or of many."""
    dtype = draw(st.sampled_from(list(EXPONENTS)))
    exponent = st.integers(*EXPONENTS[dtype])
    numbers = np.array(draw(st.lists(UNIT_NUMBERS, min_size=1, max_size=20)))
    powers = draw(exponent | st.lists(exponent, min_size=numbers.size, max_size=numbers.size))
    with np.errstate(under="ignore"):
        found: NDArray[Any] = np.ldexp(numbers, powers).astype(dtype)
    return found


codes = st.builds(
    Code,
    strategy=st.sampled_from(list(STRATEGIES)),
    cells_small=st.integers(1, 9),
    cells_large=st.integers(1, 9),
    large_fraction=st.floats(0, 1),
    threshold=st.none() | st.integers(-140, 120).map(lambda power: 2.0**power),
)
spans = st.sampled_from(SPANS) | st.tuples(st.floats(-2, 2), st.floats(0.01, 4)).map(lambda x: (x[0], x[0] + x[1]))


def wide(weight: NDArray[Any]) -> NDArray[np.float64]:
    return weight.astype(np.float64).ravel()


def alphas(found: Encoded, values: NDArray[np.float64], name: str = "alpha") -> NDArray[np.float64]:
    """Return α, or another number of its class, for each of `values` (n,); 1 where nothing is stored."""
    planes, classes = found
    each = np.ones(values.size)
    each[values != 0] = np.array([getattr(c, name) for c in classes])[
        0 if planes.class_index is None else planes.class_index
    ]
    return each


def bound(found: Encoded, weight: NDArray[Any], span: Span) -> NDArray[np.float64]:
    """Return how far each decoded weight may be from `weight`: u·(4·|w| + 5·S/α), derived in `encoding`.

    Added are the second order of u, and half the smallest float32 number, by which a float64 number may be off that
    lies between two of those.
    """
    size = np.abs(wide(weight))
    first = U * (4 * size + 5 * max(abs(end) for end in span) / alphas(found, size))
    return np.where(size == 0, 0.0, first * (1 + 8 * U) + LEAST / 2)


def encoded(weight: NDArray[Any], code: Code, span: Span) -> Encoded:
    (found,) = encode([weight], code, span=span)
    return found


def assert_round_trip(weight: NDArray[Any], code: Code, span: Span) -> None:
    found = encoded(weight, code, span)
    assert decode(found).dtype == np.float32
    assert_within([decode(found)], [wide(weight)], [bound(found, weight, span)])


def held(weight: NDArray[Any], code: Code) -> list[NDArray[np.float64]]:
    """Return what each class holds, by a plain stable sort."""
    strategy = STRATEGIES[code.strategy]
    stored = weight.ravel()[weight.ravel() != 0]
    size = np.abs(wide(stored)) if strategy.sign_in_header else wide(stored)
    if strategy.classes == 1:
        return [size]
    single = magnitude(stored)
    if code.threshold is not None:
        return [size[single <= code.threshold], size[single > code.threshold]]
    by_size = np.argsort(-single, kind="stable")
    count = round(code.large_fraction * size.size)
    return [size[np.sort(by_size[count:])], size[np.sort(by_size[:count])]]


def scales(weight: NDArray[Any], code: Code, span: Span) -> list[Fraction]:
    """Return α of each class that holds something, exactly."""
    ends = [(Fraction(size.min()), Fraction(size.max())) for size in held(weight, code) if size.size]
    widths = [high - low if low < high else abs(high) for low, high in ends]
    return [(Fraction(span[1]) - Fraction(span[0])) / width for width in widths]


def can_be_scaled(weight: NDArray[Any], code: Code, span: Span) -> bool:
    return all(TINY <= alpha <= LARGEST for alpha in scales(weight, code, span))


# --------------------------------------------------------------------------------------------- round trips


@given(weights(), codes, spans)
def test_decoding_undoes_encoding_unless_it_is_refused(weight, code, span):
    # At the very ends of the range, it takes the last rounding to say whether α is a float32 number.
    alpha = scales(weight, code, span)
    assume(not any(abs(each / Fraction(end) - 1) < 4 * U for each in alpha for end in (TINY, LARGEST)))
    if can_be_scaled(weight, code, span):
        assert_round_trip(weight, code, span)
    else:
        with pytest.raises(ModelError, match="cannot be scaled"):
            encoded(weight, code, span)


@given(st.lists(st.floats(width=32, min_value=-(2.0**126), max_value=2.0**126), min_size=1, max_size=30), codes, spans)
def test_decoding_undoes_encoding_of_any_float32(numbers, code, span):
    weight = f32([*numbers, 1, -2, 300])
    assume(can_be_scaled(weight, code, span))
    assert_round_trip(weight, code, span)


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
        assert_round_trip(np.array(numbers, dtype), Code(strategy=strategy, large_fraction=0.4), span)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_subnormal_weights_are_decoded(strategy, dtype):
    steps = np.array([1, -2, 50, -60, 100, 127])  # either class is wide enough for a scale, but barely
    assert_round_trip(np.ldexp(steps, -133).astype(dtype), Code(strategy=strategy, large_fraction=0.5), (-0.65, 0.75))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_as_large_as_can_be_scaled_are_decoded(strategy):
    weight = f32(np.array([0.25, 0.4, 0.7, 1.0]) * 1.4 / TINY * (1 - 2 * U))
    assert_round_trip(weight, Code(strategy=strategy, large_fraction=0.5), (-0.65, 0.75))


def test_the_bound_holds_where_every_rounding_adds_up():
    # Span ends just below a float32 number, so that the span loses a whole unit; α and β are rounded away from zero.
    weight, span = np.array([-0.9999991953437, 1.488798e-7]), (-0.50000041723178, 0.50000041723178)
    assert_round_trip(weight, Code(strategy="raw"), span)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("span", SPANS)
def test_a_shift_of_ten_roundings_is_beyond_the_bound(strategy, span):
    weight = f32(np.random.default_rng(0).normal(size=50))
    found = encoded(weight, Code(strategy=strategy), span)
    shifted = found.planes.level + f32(10 * U * (np.abs(weight) * alphas(found, wide(weight)) + max(map(abs, span))))
    with pytest.raises(AssertionError, match="times its bound"):
        assert_within([decode(found, shifted)], [wide(weight)], [bound(found, weight, span)])


@given(weights(), codes)
def test_zeros_are_not_stored_and_come_back_as_plus_zero(weight, code):
    assume(can_be_scaled(weight, code, (-0.65, 0.75)))
    found = encoded(weight, code, (-0.65, 0.75))
    zero = weight == 0
    mask = found.planes.mask
    assert found.planes.level.size == weight.size - zero.sum()
    assert (mask is None) == (not zero.any())
    assert mask is None or mask.tolist() == (~zero).tolist()
    assert decode(found)[zero].tobytes() == bytes(4 * int(zero.sum()))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("weight", [np.zeros((2, 3), np.float32), -np.zeros(4), np.zeros(0, np.float16)])
def test_nothing_is_stored_where_nothing_is_not_zero(strategy, weight):
    found = encoded(weight, Code(strategy=strategy), (-0.65, 0.75))
    assert found.planes.level.size == 0
    assert set(found.classes) == {empty_class(cells) for cells in Code(strategy=strategy).cells}
    assert same_bits([decode(found)], [np.zeros(weight.size, np.float32)])


@given(weights(), codes)
def test_the_weight_is_left_alone(weight, code):
    before = weight.copy()
    assume(can_be_scaled(weight, code, (-0.65, 0.75)))
    decode(encoded(weight, code, (-0.65, 0.75)))
    assert same_bits([weight], [before])


def test_a_matrix_is_stored_in_the_order_of_its_flat_index():
    weight = np.random.default_rng(0).normal(size=(5, 7))
    for code in (Code(strategy=strategy, large_fraction=0.3) for strategy in STRATEGIES):
        flat, *others = (encoded(w, code, (-1.0, 1.0)) for w in (weight.ravel(), weight, np.asfortranarray(weight)))
        for other in others:
            assert same_bits([other.planes.level, decode(other)], [flat.planes.level, decode(flat)])


# ------------------------------------------------------------------------------------------------- levels


@given(weights(), codes, spans)
def test_levels_never_leave_the_span(weight, code, span):
    assume(can_be_scaled(weight, code, span))
    level = encoded(weight, code, span).planes.level
    assert level.dtype == np.float32
    assert all(span[0] <= single <= span[1] for single in level.tolist())  # as Python floats, which keep the span exact


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("span", SPANS)
def test_each_class_fills_the_span(strategy, span):
    weight = f32(np.random.default_rng(0).normal(size=200))
    planes, classes = encoded(weight, Code(strategy=strategy, large_fraction=0.3), span)
    for place, found in enumerate(classes):
        level = planes.level if planes.class_index is None else planes.level[planes.class_index == place]
        # α is rounded once; so is β, which is no more than α·low and an end of the span; and so is the level,
        # which then is moved to the span's side of its end, by two u.
        size, reach = max(abs(found.low), abs(found.high)) * found.alpha, max(map(abs, span))
        np.testing.assert_allclose([level.min(), level.max()], span, rtol=0, atol=U * (2 * size + 6 * reach))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_levels_by_hand(strategy):
    weight = f32([[1, -2, 0], [1.5, 4, -8]])
    planes, _ = encoded(weight, Code(strategy=strategy, large_fraction=0.4), (0.0, 1.0))
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_levels_are_computed_in_float64_and_rounded_once(dtype):
    fitted = fit_class(0.1, 1.3, span=(-0.65, 0.75), cells=1)
    size = np.random.default_rng(0).uniform(0.2, 1.2, 1000).astype(dtype)
    found = levels(size, None, [fitted], span=(-0.65, 0.75))
    for level, weight in zip(found.tolist(), size.tolist(), strict=True):
        exact = Fraction(fitted.alpha) * Fraction(weight) - Fraction(fitted.beta)
        # In float64, the product is below 2 and the difference below 1; each rounds by 2**-53 of that at most.
        assert abs(Fraction(level) - exact) <= Fraction(U) * abs(exact) + Fraction(2.0**-51)


# ------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_noise_in_a_level_is_noise_over_alpha_in_the_weight(strategy):
    weight = np.random.default_rng(0).normal(size=20_000)
    span, sigma = (-0.65, 0.75), 0.1
    found = encoded(weight, Code(strategy=strategy, large_fraction=0.4), span)
    noise = np.random.default_rng(1).normal(scale=sigma, size=weight.size)
    off = (decode(found, found.planes.level + f32(noise)) - weight) * alphas(found, weight)
    assert_std(off, sigma)
    assert_law(off, scipy.stats.norm(scale=sigma).cdf)
    for place in range(len(found.classes)):  # and in each class with its own α
        assert_std(off if found.planes.class_index is None else off[found.planes.class_index == place], sigma)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shift", [0.25, -0.25, 3.0])
def test_a_shift_of_the_level_is_a_shift_of_the_size(strategy, shift):
    span = (-0.65, 0.75)
    weight = f32(np.random.default_rng(0).normal(size=100))
    found = encoded(weight, Code(strategy=strategy, large_fraction=0.4), span)
    towards = np.sign(weight) if found.planes.sign is not None else 1
    expected = weight + towards * shift / alphas(found, wide(weight))  # not clipped; a negative size stays negative
    moved = decode(found, found.planes.level + f32(shift))
    # What is read is rounded once more, and sum and quotient are of larger numbers.
    more = 3 * U * (abs(shift) + max(map(abs, span))) / alphas(found, wide(weight))
    assert_within([moved], [expected], [bound(found, weight, span) + more])


def papers(weight: NDArray[Any], found: Encoded, span: Span, phi: Any) -> NDArray[np.float64]:
    """Return the paper's w_out = (φ(α·w_in - β) + β)/α, with β = α·low - s0, in float64."""
    values = wide(weight)
    alpha, low = (alphas(found, values, name) for name in ("alpha", "low"))
    beta = alpha * low - span[0]
    size = values if found.planes.sign is None else np.abs(values)
    out = (phi(alpha * size - beta) + beta) / alpha
    return np.where(values == 0, 0, out if found.planes.sign is None else np.sign(values) * out)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_read_is_the_papers_formula(strategy, span):
    rng = np.random.default_rng(0)
    weight = f32(rng.normal(size=300) * (rng.random(300) < 0.8))
    found = encoded(weight, Code(strategy=strategy, large_fraction=0.2), span)
    reach = max(map(abs, span))

    def phi(level):
        return level + reach / 4 * np.sin(level / reach)

    # φ strays from the identity with a slope of 1/4 at most, so it adds a quarter of how far the level is off, which is
    # the bound and β's rounding, u·(α·|w| + S); what is read is larger by a quarter of S. Twice the bound has room.
    expected = papers(weight, found, span, phi)
    read = f32(phi(found.planes.level.astype(np.float64)))
    assert_within([decode(found, read)], [expected], [2 * bound(found, weight, span)])
    with pytest.raises(AssertionError, match="times its bound"):  # φ left out
        assert_within([decode(found)], [expected], [2 * bound(found, weight, span)])


def test_the_papers_unprotected_row_adds_noise_to_the_weights_themselves():
    weight = f32([-2.5, 0.5, 1.5])
    found = encoded(weight, Code(strategy="raw"), (-2.5, 1.5))
    assert (found.classes[0].alpha, found.classes[0].beta) == (1.0, 0.0)
    assert same_bits([found.planes.level, decode(found)], [weight, weight])


# ------------------------------------------------------------------------------------------------ classes


@given(st.floats(-(2.0**40), 2.0**40), st.floats(2.0**-40, 2.0**40), spans, st.integers(1, 9))
def test_the_ends_of_a_class_are_the_ends_of_the_span(low, width, span, cells):
    high = low + width
    assume(low < high)
    found = fit_class(low, high, span=span, cells=cells)
    assert (found.low, found.high, found.cells) == (low, high, cells)
    alpha, beta = Fraction(found.alpha), Fraction(found.beta)
    # β is rounded once, to u of itself; α once, to u of the span's width; float64 roundings are 2**29 times smaller.
    once = Fraction(U * (1 + 2.0**-20)) * abs(beta) + Fraction(2.0**-50) * (abs(alpha * Fraction(low)) + 8)
    assert abs(alpha * Fraction(low) - beta - Fraction(span[0])) <= once
    assert abs(alpha * Fraction(high) - beta - Fraction(span[1])) <= once + Fraction(U * (1 + 2.0**-20) * 8)
    assert {type(number) for number in (found.alpha, found.beta)} == {float}
    assert (np.float32(found.alpha), np.float32(found.beta)) == (found.alpha, found.beta)


@pytest.mark.parametrize("value", [3.0, -3.0, LEAST * 2**24, -1.0])
def test_a_class_of_one_value_includes_zero(value):
    found = fit_class(value, value, span=(-0.65, 0.75), cells=2)
    assert (found.low, found.high) == (min(value, 0), max(value, 0))
    assert found == fit_class(found.low, found.high, span=(-0.65, 0.75), cells=2)


def test_a_class_of_two_values_does_not_include_zero():
    assert (fit_class(1, 2, span=(0.0, 1.0), cells=1).low, fit_class(-2, -1, span=(0.0, 1.0), cells=1).high) == (1, -1)


@pytest.mark.parametrize(
    ("fits", "alpha", "too_far"),
    [(1 / LARGEST, LARGEST, (1 - 2.0**-23) / LARGEST), (1 / TINY, TINY, (1 + 2.0**-22) / TINY)],
    ids=["smallest", "largest"],
)
def test_a_scale_that_is_no_normal_number_is_refused(fits, alpha, too_far):
    assert fit_class(0.0, fits, span=(0.0, 1.0), cells=1).alpha == alpha
    with pytest.raises(ModelError, match=r"magnitudes from 0 to .* cannot be scaled to \(0\.0, 1\.0\) in float32"):
        fit_class(0.0, too_far, span=(0.0, 1.0), cells=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [1e-50, 1e-320, 1e300])
def test_float64_beyond_float32_is_refused(strategy, size):
    weight = size * np.array([1.0, -2.0, 3.0, 5.0])
    with pytest.raises(ModelError, match="cannot be scaled"):
        encoded(weight, Code(strategy=strategy, large_fraction=0.5), (-0.65, 0.75))


@given(weights(), codes)
def test_classes_hold_what_a_plain_sort_gives_them(weight, code):
    assume(can_be_scaled(weight, code, (-0.65, 0.75)))
    planes, classes = encoded(weight, code, (-0.65, 0.75))
    expected = held(weight, code)
    assert len(classes) == len(expected)
    assert [found.cells for found in classes] == list(code.cells)
    for place, (found, size) in enumerate(zip(classes, expected, strict=True)):
        one = size.size and size.min() == size.max()
        ends = (size.min(), size.max()) if size.size else (0, 0)
        assert (found.low, found.high) == ((min(ends[0], 0), max(ends[1], 0)) if one else ends)
        if planes.class_index is not None:
            assert (planes.class_index == place).sum() == size.size
    assert (planes.sign is None) == (code.strategy == "raw")
    if planes.sign is not None:
        assert planes.sign.tolist() == (wide(weight)[wide(weight) != 0] < 0).tolist()


def test_a_weight_at_the_threshold_is_small():
    for strategy in ("mapping", "redundancy"):
        planes, classes = encoded(f32([1, -1, 2, -3]), Code(strategy=strategy, threshold=1.0), (0.0, 1.0))
        assert planes.class_index is not None
        assert planes.class_index.tolist() == [0, 0, 1, 1]
        assert [(found.low, found.high) for found in classes] == [(0, 1), (2, 3)]


@pytest.mark.parametrize(("threshold", "large"), [(1e-300, 4), (0.5, 4), (5.0, 0), (1e300, 0)])
def test_a_threshold_may_leave_a_class_empty(threshold, large):
    planes, classes = encoded(f32([1, -2, 4, -5]), Code(threshold=threshold), (0.0, 1.0))
    assert planes.class_index is not None
    assert planes.class_index.sum() == large
    assert classes[0 if large else 1] == empty_class(1 if large else 20)


@pytest.mark.parametrize(("fraction", "large"), [(0, 0), (0.049, 0), (0.051, 1), (0.05 * 3, 2), (0.99, 10), (1, 10)])
def test_a_fraction_is_rounded_to_whole_weights(fraction, large):
    weight = np.array([1, -2, 0, 3, 4, 5, 6, -7, 8, 9, 10])
    planes, _ = encoded(f32(weight), Code(large_fraction=fraction), (0.0, 1.0))
    assert planes.class_index is not None
    assert planes.class_index.tolist() == [0] * (10 - large) + [1] * large


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_tensors_of_a_scope_are_stored_as_one(strategy):
    rng = np.random.default_rng(0)
    parts = [f32(rng.integers(-4, 5, size)) for size in (7, 1, 40, 3)]  # many ties, and zeros
    parts.insert(2, f32(np.zeros(5)))
    code = Code(strategy=strategy, large_fraction=0.3)
    found = encode(parts, code, span=(-0.65, 0.75))
    whole = encoded(np.concatenate(parts), code, (-0.65, 0.75))
    assert {each.classes for each in found} == {whole.classes}
    assert same_bits([np.concatenate([each.planes.level for each in found])], [whole.planes.level])
    assert same_bits([np.concatenate([decode(each) for each in found])], [decode(whole)])
    for name in ("sign", "class_index"):
        if (plane := getattr(whole.planes, name)) is not None:
            assert same_bits([np.concatenate([getattr(each.planes, name) for each in found])], [plane])


def test_no_tensors_are_stored_as_none():
    assert encode([], Code(), span=(0.0, 1.0)) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategy": "plain"}, "no strategy is called 'plain'"),
        ({"cells_small": 0}, "cells_small is 0"),
        ({"cells_large": -1}, "cells_large is -1"),
        ({"large_fraction": -1e-9}, "large_fraction is -1e-09"),
        ({"large_fraction": 1.000001}, r"large_fraction is 1\.000001"),
        ({"large_fraction": float("nan")}, "large_fraction is nan"),
        ({"threshold": 0}, "threshold is 0"),
        ({"threshold": float("inf")}, "threshold is inf"),
    ],
)
def test_a_code_out_of_range_is_refused(wrong, said):
    with pytest.raises(OptionError, match=said):
        Code(**wrong)


# ------------------------------------------------------------------------------------------- the largest

SMALL_NUMBERS = st.integers(-4, 4)  # many ties
ANY_NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
MANY = st.lists(st.lists(SMALL_NUMBERS | ANY_NUMBERS, max_size=12).map(f32), min_size=1, max_size=5)


def marked(arrays, count):
    """Return the marks of all `arrays`, one after another, and what is left of the cut."""
    cut, found = cut_largest(arrays, count), []
    for array in arrays:
        marks, cut = mark_largest(array, cut)
        assert (marks.dtype, marks.shape) == (np.bool_, array.shape)
        found.append(marks.ravel())
    return np.concatenate(found), cut


def sorted_marks(arrays, count):
    """Return the same by a plain stable sort, in which ties keep the order of the flat index."""
    size = np.concatenate([np.abs(array.astype(np.float32)).ravel() for array in arrays])
    marks = np.zeros(size.size, bool)
    marks[np.argsort(-size, kind="stable")[:count]] = True
    return marks


@given(MANY, st.integers(0, 60), st.sampled_from([1, 2, 3, 2**20]))
@example([f32([2, 2]), f32([-2]), f32([]), f32([2, 1])], 3, 2)
def test_the_largest_are_those_of_a_plain_sort(arrays, count, chunk):
    count = min(count, sum(array.size for array in arrays))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "_CHUNK", chunk)
        found, left = marked(arrays, count)
    assert found.tolist() == sorted_marks(arrays, count).tolist()
    assert left.ties == 0


@pytest.mark.parametrize("dtype", EXPONENTS)
def test_the_largest_of_every_type_and_count(dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-20, 21, shape).astype(dtype) / 8 for shape in [(5, 4), (7,), (2, 3, 2)]]
    arrays = [array.astype(dtype) for array in arrays]
    for count in range(40):
        found, _ = marked(arrays, count)
        assert found.sum() == count
        assert found.tolist() == sorted_marks(arrays, count).tolist()


def test_the_largest_across_the_borders_of_real_chunks():
    array = np.random.default_rng(0).integers(-1000, 1001, 2 * planes._CHUNK + 3).astype(np.float32)
    count = array.size // 3
    found, _ = marked([array], count)
    assert np.array_equal(found, sorted_marks([array], count))


@pytest.mark.parametrize("dtype", EXPONENTS)
def test_the_largest_of_an_array_in_any_memory_order(dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 3).astype(dtype)
    for view in (array.T, array[:, ::2], array[::-1], np.asfortranarray(array), array.transpose(1, 2, 0)):
        for count in range(view.size + 1):
            found, left = marked([view], count)
            assert found.tolist() == sorted_marks([view], count).tolist()
            assert left.ties == 0


@pytest.mark.parametrize("dtype", EXPONENTS)
def test_the_largest_of_a_scalar(dtype):
    for count in (0, 1):
        found, left = marked([np.array(-2, dtype)], count)
        assert (found.tolist(), left.ties) == ([bool(count)], 0)


def test_a_cut_by_hand():
    assert cut_largest([f32([1, -3]), f32([[3, 3], [0, 2]])], 2) == Cut(3.0, 2)
    assert mark_largest(f32([1, -3]), Cut(3.0, 2))[1] == Cut(3.0, 1)
    assert cut_largest([f32([1, -3])], 0) == Cut(np.inf, 0)
    assert cut_largest([f32([1, 0, -3])], 3) == Cut(0.0, 1)


def test_neighbouring_floats_are_told_apart():
    numbers = f32([LEAST, 2 * LEAST, TINY, 1, LARGEST])
    ladder = np.concatenate([numbers, np.nextafter(numbers[:-1], f32(np.inf))])
    for count in range(ladder.size + 1):
        assert marked([ladder], count)[0].tolist() == sorted_marks([ladder], count).tolist()


def test_float64_that_is_zero_as_float32_is_above_zero():
    array = np.array([0.0, 1e-50, -1e-300, 5e-324, 1.0, -0.0])
    assert same_bits([magnitude(array)], [f32([0, LEAST, LEAST, LEAST, 1, 0])])
    found, _ = marked([array], 4)
    assert found.tolist() == [False, True, True, True, True, False]


def test_magnitudes_are_of_a_new_array():
    array = f32([1, -2])
    assert not np.shares_memory(magnitude(array), array)
    assert array.tolist() == [1, -2]


# ------------------------------------------------------------------------------------------------- planes


@given(weights(), st.booleans())
def test_joining_undoes_splitting(weight, sign_in_header):
    size, mask, sign = split(weight, sign_in_header=sign_in_header)
    assert (size.dtype == np.float64) == (weight.dtype == np.float64)
    assert (size > 0).all() or not sign_in_header
    assert (sign is not None) == sign_in_header
    signed = size if sign is None else np.where(sign, -size, size)
    with np.errstate(under="ignore"):
        expected = weight.astype(np.float32) + f32(0)  # -0 becomes 0
        assert same_bits([join(signed.astype(np.float32) + f32(0), mask)], [expected])


def test_planes_that_say_nothing_are_not_there():
    assert split(f32([1, -2]), sign_in_header=True)[1] is None
    assert split(f32([1, 0]), sign_in_header=False)[2] is None
    stored = f32([1, -2])
    assert join(stored, None) is stored


@pytest.mark.parametrize(("dtype", "wider"), [(t, np.float64 if t is np.float64 else np.float32) for t in EXPONENTS])
def test_sizes_are_of_float32_or_wider(dtype, wider):
    size, mask, sign = split(np.array([[1, -2], [-0.0, 3]], dtype), sign_in_header=True)
    assert size.dtype == wider
    assert mask is not None
    assert sign is not None
    assert (size.tolist(), mask.tolist(), sign.tolist()) == (
        [1, 2, 3],
        [True, True, False, True],
        [False, True, False],
    )


def test_a_size_of_zero_has_no_sign():
    found = unlevel(f32([0.5, 0.5, 0.75]), np.array([True, False, True]), None, f32([2]), f32([-0.5]))
    assert same_bits([found], [f32([0.0, 0.0, -0.125])])


def test_sizes_are_of_the_scale_of_their_class():
    index = np.array([0, 1, 1, 0], np.uint8)
    found = unlevel(f32([1, 1, 2, 2]), None, index, f32([1, 4]), f32([0, 2]))
    assert same_bits([found], [f32([1, 0.75, 1, 2])])


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


def test_classes_are_packed_as_bits_are():
    assert pack(np.array([0, 1, 1, 0, 0, 0, 0, 0, 1], np.uint8)).tolist() == [0b110, 1]
