"""Weights that make up for each other's rounding errors: against a way that is slow and plain, and by laws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from onnx_analog.coding import compensation
from onnx_analog.coding.compensation import DAMPING, InputMoments, compensated, unfit
from onnx_analog.coding.planes import Axis, decode, fit, split
from onnx_analog.coding.planes import encode as encode_plainly
from onnx_analog.coding.scheme import Scheme
from tests.models import FAMILY, QUIET, f32

STEPS = Scheme(
    sign="level", classes=255, partition="uniform", relative_step=1.0, cells=(0,), estimator="affine", channel=QUIET
)


def moments(inputs, axes=(0, 1), groups=1, *, rank=4, seed=0, noise=0.1):
    """Return the moments of inputs that a few hidden numbers determine, but for some noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 4000, rank)) @ rng.normal(size=(groups, rank, inputs))
    x += noise * rng.normal(size=x.shape)
    second = (x.swapaxes(1, 2) @ x / 4000).astype(np.float32)
    return exactly(second, axes)


def exactly(second, axes=(0, 1)):
    """Return moments that are known exactly: of so many vectors that none of their correlation is doubted."""
    return InputMoments(second=second, held_out=second, axes=axes, samples=10**12)


def weights(*shape, seed=1):
    return f32(np.random.default_rng(seed).normal(size=shape))


def encode(weight, scheme, known):
    """Return the stored tensor, whose error is what is said of it.

    Sums of n terms in float32 are off by n·u of the sum of their magnitudes; an error that damping hides is not known.
    """
    stored, error = compensation.encode(weight, scheme, known)
    off = difference(weight, stored)
    largest = np.linalg.norm(known.second, 2, axis=(1, 2)).max() * np.square(off).sum()
    assert error == pytest.approx(known.error(off), rel=1e-3, abs=1e-5 * largest)
    return stored


def difference(weight, stored):
    return decode(stored).reshape(weight.shape).astype(np.float64) - weight


def slow(weight, second, step):
    """Return the rounded weights (R, n): after each, the free ones are the minimum of the error that is left.

    With the errors of the rounded weights fixed, the error dᵀ·H·d of a row is least over the free ones where
    H_ff·d_f = -H_fr·d_r, by setting the gradient to zero.
    """
    n = weight.shape[1]
    damped = second.astype(np.float64) + DAMPING * np.diag(second).mean() * np.eye(n)
    order = np.argsort(-np.diag(second), kind="stable")
    current, original = weight.astype(np.float64), weight.astype(np.float64)
    for place, j in enumerate(order):
        current[:, j] = np.rint(current[:, j] / step) * step
        done, free = order[: place + 1], order[place + 1 :]
        if free.size:
            off = (current - original)[:, done]
            solved = np.linalg.solve(damped[np.ix_(free, free)], damped[np.ix_(free, done)] @ off.T)
            current[:, free] = original[:, free] - solved.T
    return current


@pytest.mark.parametrize("block", [1, 4, 128])
def test_it_is_the_minimum_over_the_weights_that_are_left(monkeypatch, block):
    monkeypatch.setattr(compensation, "_BLOCK", block)
    weight, known = weights(6, 23), moments(23)
    stored = encode(weight, STEPS, known)
    step = float(np.sqrt(np.square(weight, dtype=np.float64).mean()))
    np.testing.assert_allclose(decode(stored).reshape(weight.shape), slow(weight, known.second[0], step), atol=1e-5)


def test_the_slow_way_rejects_what_is_not_compensated():
    weight, known = weights(6, 23), moments(23)
    (plain,) = encode_plainly([weight], STEPS)
    step = float(np.sqrt(np.square(weight, dtype=np.float64).mean()))
    assert np.abs(decode(plain).reshape(weight.shape) - slow(weight, known.second[0], step)).max() > 0.5


def test_inputs_without_correlation_leave_nothing_to_make_up_for():
    weight = weights(8, 16)
    white = exactly(np.eye(16, dtype=np.float32)[None])
    (plain,) = encode_plainly([weight], STEPS)
    np.testing.assert_array_equal(decode(encode(weight, STEPS, white)), decode(plain))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([0.25, 1.0, 3.0]), st.floats(0, 0.9))
def test_it_never_does_more_harm(seed, inputs, step, pruned):
    rng = np.random.default_rng(seed)
    weight = f32(np.where(rng.random((5, inputs)) < pruned, 0, rng.normal(size=(5, inputs))))
    if not weight.any():
        return
    known, scheme = moments(inputs, rank=int(rng.integers(1, 8)), seed=seed), STEPS.changed(relative_step=step)
    (plain,) = encode_plainly([weight], scheme)
    stored = encode(weight, scheme, known)
    assert known.error(difference(weight, stored)) <= known.error(difference(weight, plain))
    np.testing.assert_array_equal(decode(stored)[weight.reshape(-1) == 0], 0)
    for ours, theirs in zip(stored.codebook.__dict__.values(), plain.codebook.__dict__.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_correlated_inputs_leave_a_small_part_of_the_error():
    """With r hidden numbers of n inputs, n - r of the errors can be cancelled, but for the noise of the inputs.

    A plain error has n parts of power step²/12 in the space of the weights, of which the r that matter are left
    untouched; a compensated one is small in those, as the other weights absorb it: a tenth is far above what is left.
    """
    weight, known = weights(32, 96), moments(96, rank=4, noise=0.02)
    (plain,) = encode_plainly([weight], STEPS)
    stored = encode(weight, STEPS, known)
    assert known.error(difference(weight, stored)) < 0.1 * known.error(difference(weight, plain))


def test_weights_are_rounded_to_the_nearest_point_that_is_read():
    """The points of `unbiased` are scaled, and so are the edges between them; white inputs leave nothing else to do."""
    weight, scheme = weights(16, 32), STEPS.changed(relative_step=1.7, estimator="unbiased")
    stored = encode(weight, scheme, exactly(np.eye(32, dtype=np.float32)[None]))
    points = np.unique(stored.codebook.beta)
    assert np.diff(points).min() > 1.71 * np.sqrt(np.square(weight).mean())  # which are scaled
    nearest = points[np.abs(weight.reshape(-1, 1) - points).argmin(axis=1)]
    np.testing.assert_allclose(decode(stored), nearest, rtol=2.0**-22)


def test_what_harms_outputs_that_are_held_out_is_not_done():
    weight, few = weights(6, 23), moments(23)
    apart = InputMoments(second=few.second, held_out=np.eye(23, dtype=np.float32)[None], axes=(0, 1), samples=10**12)
    (plain,) = encode_plainly([weight], STEPS)
    np.testing.assert_array_equal(decode(encode(weight, STEPS, apart)), decode(plain))


def test_moments_of_few_vectors_count_little():
    """With fewer vectors, classes come nearer to those of plain rounding; with none, they are the same."""
    weight, known = weights(32, 96), moments(96, rank=4, noise=0.02)
    (plain,) = encode_plainly([weight], STEPS)
    changed = []
    for samples in (0, 10, 1000, 10**9):
        few = InputMoments(second=known.second, held_out=known.second, axes=(0, 1), samples=samples)
        changed.append(np.count_nonzero(decode(encode(weight, STEPS, few)) != decode(plain)))
    assert changed[0] == 0
    assert changed == sorted(changed)
    assert changed[-1] > changed[1] > 0


def test_pruned_weights_stay_zero_and_the_others_know():
    weight = weights(6, 20)
    weight[:, ::3] = 0
    known = moments(20)
    stored = encode(weight, STEPS, known)
    read = decode(stored).reshape(weight.shape)
    assert not read[:, ::3].any()
    assert stored.planes.mask is not None
    np.testing.assert_array_equal(stored.planes.mask.reshape(weight.shape), read != 0)


def test_the_order_of_axes_is_that_of_the_moments():
    weight, known = weights(6, 23), moments(23)
    turned = exactly(known.second, (1, 0))
    ours = decode(encode(np.ascontiguousarray(weight.T), STEPS, turned)).reshape(23, 6)
    np.testing.assert_array_equal(ours.T, decode(encode(weight, STEPS, known)).reshape(6, 23))
    assert turned.error(weight.T) == pytest.approx(known.error(weight))


def test_groups_have_inputs_of_their_own():
    weight, known = weights(6, 4, 3, 3), moments(36, axes=(0, 1, 2, 3), groups=2)
    both = decode(encode(weight, STEPS, known)).reshape(weight.shape)
    step = float(np.sqrt(np.square(weight, dtype=np.float64).mean()))
    for g in range(2):
        part = weight[3 * g : 3 * g + 3].reshape(3, -1)
        expected = slow(part, known.second[g], step)
        np.testing.assert_allclose(both[3 * g : 3 * g + 3].reshape(3, -1), expected, atol=1e-5)


def test_products_take_one_thread(monkeypatch):
    """Or what is stored would depend on the number of cores."""
    seen, cholesky = [], scipy.linalg.cholesky

    def noting(*arguments, **keywords):
        seen.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return cholesky(*arguments, **keywords)

    monkeypatch.setattr(scipy.linalg, "cholesky", noting)
    weight = weights(8, 20)
    part = split(weight, STEPS)
    compensated(weight, part, fit([part], STEPS, keep=True), 0, moments(20))
    encode(weight, STEPS, moments(20))
    assert set(seen) == {1}


@pytest.mark.parametrize("axis", [0, 1])
def test_output_channels_have_steps_of_their_own(axis):
    weight = weights(4, 12) * np.array([[1], [3], [0.2], [7]], np.float32)
    weight = np.ascontiguousarray(weight if axis == 0 else weight.T)
    scheme = STEPS.changed(granularity="channel")
    known = moments(12, axes=(0, 1) if axis == 0 else (1, 0))
    groups = Axis.of(weight.shape, axis)
    part = split(weight, scheme, groups)
    fitted, _ = compensated(
        weight,
        part,
        fit([part], scheme, groups=4, keep=True),
        0,
        known,
        groups.groups(weight.size, None),
    )
    index = fitted.class_index[0].reshape(weight.shape)
    points = fitted.codebook.beta
    rows = weight if axis == 0 else weight.T
    for row in range(4):
        step = float(np.sqrt(np.square(rows[row], dtype=np.float64).mean()))
        expected = slow(rows[row : row + 1], known.second[0], step)[0]
        chosen = index[row] if axis == 0 else index[:, row]
        np.testing.assert_allclose(points[row][chosen], expected, atol=1e-5 * step)
    np.testing.assert_array_equal(fitted.counts[0], np.bincount(fitted.class_index[0], minlength=255))


def bits(index):
    """Return the code length of all classes by their shares."""
    counts = np.bincount(index)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def cost(weight, scheme, known):
    """Return the harm, and the worth of the bits at the average harm of a squared error, by the geometric mean."""
    stored, harm = compensation.encode(weight, scheme, known)
    average = np.exp(np.log(np.diag(known.second[0])).mean())
    step = scheme.relative_step * np.sqrt(np.square(weight).mean())
    return harm + scheme.rate_weight * step**2 * average * bits(stored.planes.class_index)


def test_bits_are_saved_where_errors_do_little_harm(monkeypatch):
    """Of uncorrelated inputs, harm is their power times squared errors. What both cost together is less so."""
    power = np.repeat([1000.0, 1.0, 0.001], 20)
    known, weight = exactly(np.diag(power).astype(np.float32)[None]), weights(500, 60)
    monkeypatch.setattr(compensation, "DAMPING", 1e-9)
    scheme = STEPS.changed(rate_weight=0.1)
    index = compensation.encode(weight, scheme, known)[0].planes.class_index.reshape(500, 60)
    plain = compensation.encode(weight, STEPS, known)[0].planes.class_index.reshape(500, 60)
    zeros = [np.count_nonzero(index[:, columns] == 127) for columns in (slice(20), slice(20, 40), slice(40, 60))]
    assert zeros[0] < zeros[1] < zeros[2]
    # An edge moves by 0.1 · (difference of bits)/2 of a step, over a thousand: bits differ by less than 20.
    assert np.mean(index[:, :20] != plain[:, :20]) < 0.001 * 20 * 2
    louder = exactly(7 * known.second).steps[0].leniency
    np.testing.assert_allclose(louder, known.steps[0].leniency, rtol=1e-4)  # more power leaves the edges where they are
    np.testing.assert_allclose(louder, np.exp(np.log(power).mean()) / power, rtol=1e-3)  # U_jj² is 1/power
    grid = compensation._Grid(np.array([[0.6]]), np.array([[0.0, 1.0]]))
    assert grid.lenient(1e6).edges[0, 0] == pytest.approx(0.999)  # up to the next point
    assert grid.lenient(0.0).edges[0, 0] == 0.5
    lenient = cost(weight, scheme, known)
    of = compensation._Steps.of
    monkeypatch.setattr(compensation._Steps, "of", lambda *given: of(*given)._replace(leniency=np.ones(60)))
    assert lenient < cost(weight, scheme, exactly(known.second))


def test_inputs_that_are_always_zero_do_no_harm():
    known = moments(10)
    second = known.second.copy()
    second[:, :, 3] = second[:, 3, :] = 0
    for dead in (second, np.zeros_like(second)):
        stored = encode(weights(4, 10), STEPS, exactly(dead))
        assert np.isfinite(decode(stored)).all()


def test_the_error_of_white_noise_is_its_power_times_that_of_the_inputs():
    """White noise of power p in each of R·n weights has the error p·R·tr(H): p·R·n times the power of an input."""
    known, rng = moments(40), np.random.default_rng(3)
    noise = rng.normal(size=(400, 40))
    n = noise.size
    # The variance of xᵀHx for normal x is 2·tr(H²): relative to its mean, over 400 rows.
    second = known.second[0].astype(np.float64)
    spread = np.sqrt(2 * np.square(second).sum() / 400) / np.trace(second)
    assert known.error(noise) / known.power == pytest.approx(n, rel=4 * spread)
    assert known.error(np.zeros((4, 40))) == 0


@pytest.mark.parametrize("name", FAMILY)
def test_only_equal_steps_without_cells_are_compensated(name):
    scheme = FAMILY[name]
    fits = scheme.analog == "none" and scheme.sign == "level" and scheme.partition == "uniform"
    assert (unfit(scheme) is None) == fits
