from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.channels.symbols import Packing
from onnx_analog.coding.assumptions import ADDRESSES_KNOWN, OPTIMISTIC, assumptions
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.side import SideInformation, from_gray, to_gray
from onnx_analog.errors import OptionError
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import stored_tensors, with_channel
from onnx_analog.passes import DecodePass, ReadbackPass
from onnx_analog.testing import FALSE_ALARM, assert_mean
from tests.models import SMALL, feeds, holding, made, protected

NOISY = GaussianNoise(sigma=0.2, low=-1.0, high=1.0)


def bit_error(side: SideInformation) -> float:
    """Return the share of bits that one copy gets wrong, all symbols equally likely."""
    return Packing(2**side.bits_per_cell, 1, side.bits_per_cell).bit_error(side.confusion)


WEIGHT = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32)


def model():
    return holding(w=WEIGHT)


@given(st.integers(1, 8))
def test_gray_codes_of_neighbours_differ_in_one_bit(width):
    code = to_gray(np.arange(2**width), width)
    assert (np.abs(np.diff(code.astype(int), axis=0)).sum(axis=1) == 1).all()
    assert from_gray(code).tolist() == list(range(2**width))


def test_two_equal_normals_are_told_apart_half_way():
    side = SideInformation(channel=GaussianNoise(sigma=0.5, low=-1.0, high=1.0), bits_per_cell=1)
    expected = scipy.stats.norm.sf(1 / 0.5)  # one unit to the threshold
    np.testing.assert_allclose(side.confusion, [[1 - expected, expected], [expected, 1 - expected]], rtol=1e-6)
    assert bit_error(side) == pytest.approx(expected, rel=1e-6)


def test_averaging_moves_the_threshold_further_away():
    side = SideInformation(channel=GaussianNoise(sigma=0.5, low=-1.0, high=1.0), bits_per_cell=1, cells=4)
    assert bit_error(side) == pytest.approx(scipy.stats.norm.sf(2 / 0.5), rel=1e-5)


def test_four_levels_by_hand():
    # levels -1, -1/3, 1/3, 1; inner ones have two neighbours, and each of those differs in one of two bits
    step = scipy.stats.norm.sf(1 / 3 / 0.2)
    side = SideInformation(channel=NOISY, bits_per_cell=2)
    # Jumps of two levels are rarer by 1e-6.
    assert bit_error(side) == pytest.approx((2 * step + 4 * step) / 8, rel=2e-3)


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset", "rram-wan"])
def test_thresholds_are_where_likelihoods_cross(name):
    side = SideInformation(channel=channels.resolve(name), bits_per_cell=2)
    mean = side.levels.astype(float)
    std = side.channel.moments(side.levels)[1]
    # The chance of being right, Σ over y of max over symbols of density, is the best that any decision can reach.
    y = np.linspace((mean - 9 * std).min(), (mean + 9 * std).max(), 400_001)
    density = scipy.stats.norm.pdf(y[:, None], mean, std)
    best = density.max(axis=1).sum() * (y[1] - y[0])
    ours = side.confusion.trace()
    assert ours <= best + 1e-6
    # Thresholds between neighbours leave out that the widest law is the likeliest again far outside.
    assert ours == pytest.approx(best, abs=2e-2)


def test_sampled_errors_are_those_of_the_confusion():
    side = SideInformation(channel=NOISY, bits_per_cell=2)
    bits = np.random.default_rng(0).random(200_000) < 0.5
    wrong = side.read(bits, np.random.default_rng(1)) != bits
    assert_mean(wrong.astype(float), bit_error(side))


def test_a_vote_of_three_is_wrong_where_two_are():
    one, three = (SideInformation(channel=NOISY, bits_per_cell=1, copies=copies) for copies in (1, 3))
    noisy = SideInformation(channel=GaussianNoise(sigma=0.8, low=-1.0, high=1.0), bits_per_cell=1, copies=3)
    p = bit_error(noisy)
    bits = np.random.default_rng(0).random(200_000) < 0.5
    wrong = noisy.read(bits, np.random.default_rng(1)) != bits
    assert_mean(wrong.astype(float), 3 * p**2 * (1 - p) + p**3)
    assert (one.cells_per_symbol, three.cells_per_symbol) == (1, 3)


def test_no_noise_no_errors():
    side = SideInformation(channel=GaussianNoise(sigma=1e-6), bits_per_cell=8)
    bits = np.random.default_rng(0).random(1001) < 0.5
    assert np.array_equal(side.read(bits, np.random.default_rng(1)), bits)


def test_channels_without_a_closed_law_are_sampled():
    exact = SideInformation(channel=NOISY, bits_per_cell=2)
    # A converter of 16 bits changes nothing, but makes the law unknown.
    sampled = SideInformation(channel=Modifiers(read_bits=16).apply(NOISY), bits_per_cell=2)
    error = scipy.stats.norm.isf(FALSE_ALARM / 32) * 0.5 / np.sqrt(20_000)
    np.testing.assert_allclose(sampled.confusion, exact.confusion, atol=error + 0.01)  # thresholds are estimated too
    assert bit_error(SideInformation(channel=StatisticalPcm(), bits_per_cell=1)) < 1e-3


@pytest.mark.parametrize(
    "options",
    [{name: value} for name in ("bits_per_cell", "cells", "copies") for value in (0, 10**9, 1.5, True)]
    + [{"bits_per_cell": 9}, {"copies": 2}, {"copies": 1001}, {"cells": 1001}],
    ids=str,
)
def test_options_out_of_range(options):
    (name,) = options
    with pytest.raises(OptionError, match=f"side_{name}"):
        SideInformation(**{"channel": NOISY, "bits_per_cell": 2, **options})
    with pytest.raises(OptionError, match=f"side_{name}"):
        Scheme(side_channel=NOISY, **{f"side_{name}": options[name]})


def test_a_channel_that_is_read_cell_by_cell_is_learnt_in_a_bounded_time():
    slow = Modifiers(read_bits=16).apply(NOISY)
    assert SideInformation(channel=slow, bits_per_cell=8, cells=52).cells == 52
    assert bit_error(SideInformation(channel=NOISY, bits_per_cell=8, cells=1000)) < 0.5
    with pytest.raises(OptionError, match=r"side_cells is 53 with 8 bits in a cell; .* at most 52 can be averaged"):
        SideInformation(channel=slow, bits_per_cell=8, cells=53)


def test_many_symbols_of_many_bits_take_little_memory():
    side = SideInformation(channel=NOISY, bits_per_cell=8)
    bits = np.random.default_rng(0).random(2**20) < 0.5
    tracemalloc.start()
    side.read(bits, np.random.default_rng(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20  # 2^14 symbols beside 255 chances of 8 bytes, and bits as whole numbers; not 2^17


# ------------------------------------------------------------------------------------------------- in a model


def kept_and_read(scheme: Scheme, weight=WEIGHT):
    protected = oa.protect(holding(w=weight), scheme).model
    (before,), (after,) = stored_tensors(protected), stored_tensors(ReadbackPass(seed=3)(protected).model)
    return before, after


def test_signs_and_classes_err_as_often_as_side_information_says():
    before, after = kept_and_read(Scheme(side_channel=NOISY))
    wrong = np.concatenate([before.sign != after.sign, before.class_index != after.class_index])
    # Classes are mostly small, so symbols are not equally likely: the chance is that of the symbols that are there.
    bits = np.stack([before.sign, before.class_index.astype(bool)], axis=1)
    flips = np.array([[(a != b).sum() for b in to_gray(np.arange(4), 2)] for a in to_gray(np.arange(4), 2)])
    expected = (before.scheme.side.confusion * flips).sum(axis=1)[from_gray(bits)].mean() / 2
    assert_mean(wrong.astype(float), expected)


@pytest.mark.parametrize("classes", [2, 3, 5, 8])
def test_an_index_beyond_the_last_class_is_read_as_the_last(classes):
    """One cell for each bit, so that all bits err alike, and independently."""
    noisy = GaussianNoise(sigma=1.5, low=-1.0, high=1.0)
    weight = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    scheme = Scheme(
        classes=classes, partition="lloyd", cells=(1,), sign="level", side_channel=noisy, side_bits_per_cell=1
    )
    before, after = kept_and_read(scheme, weight)
    assert after.class_index.max() == classes - 1
    error, width = bit_error(scheme.side), scheme.index_bits
    for written in range(classes):
        read = after.class_index[before.class_index == written]
        for number in range(classes):
            codes = range(number, 2**width if number == classes - 1 else number + 1)
            flips = np.array([(written ^ code).bit_count() for code in codes])
            expected = (error**flips * (1 - error) ** (width - flips)).sum()
            assert_mean((read == number).astype(float), expected)


def test_without_a_side_channel_signs_and_classes_are_kept():
    before, after = kept_and_read(Scheme(classes=5, partition="lloyd", cells=(1,)))
    assert np.array_equal(before.sign, after.sign)
    assert np.array_equal(before.class_index, after.class_index)


SCHEMES = {
    **{name: Scheme.paper(name) for name in ("sign", "mapping", "raw")},
    "five classes": Scheme(classes=5, partition="lloyd", cells=(1, 2, 3, 4, 5)),
    "digital": Scheme.int4(),
    "channel": Scheme(classes=3, partition="uniform", cells=(1,), granularity="channel"),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_evaluation_reads_the_same_side_information_as_the_pass(name):
    from onnx_analog.run.read import Decoder

    protected = oa.protect(model(), SCHEMES[name].changed(side_channel=NOISY, side_bits_per_cell=3)).model
    decoder = Decoder(stored_tensors(protected)[0])
    for trial in (0, 1, 0):
        plain = ReadbackPass(seed=5, trial=trial)(protected).model
        DecodePass()(plain)
        expected = plain.graph.initializers["w"].const_value.numpy()
        assert np.array_equal(decoder.weights(seed=5, trial=trial), expected)
        assert np.array_equal(open_protected(protected).read(seed=5, trial=trial)["w"], expected)


@pytest.mark.parametrize(("cells", "copies", "bits"), list(itertools.product([1, 5], [1, 3], [1, 2, 3])))
def test_the_manifest_counts_its_cells(cells, copies, bits):
    scheme = Scheme(side_channel=NOISY, side_cells=cells, side_copies=copies, side_bits_per_cell=bits)
    assert oa.protect(model(), scheme).manifest.totals.side_cells == -(-1200 * 2 // bits) * cells * copies


def test_differential_pairs_count_twice():
    single, pair = (
        oa.protect(model(), channel=StatisticalPcm(differential=flag)).manifest.totals for flag in (False, True)
    )
    assert pair.analog_cells == 2 * single.analog_cells
    assert pair.side_cells == single.side_cells


def test_a_protected_model_remembers_its_side_information():
    scheme = Scheme(side_channel="pcm", side_cells=5, side_copies=3, side_bits_per_cell=1)
    side = stored_tensors(oa.protect(model(), scheme).model)[0].scheme.side
    assert (side.cells, side.copies, side.bits_per_cell) == (5, 3, 1)
    assert side.channel.means == channels.resolve("pcm").means


def test_side_information_ages_with_the_levels():
    late = Modifiers(read_after_s=365 * 86_400.0)
    scheme = Scheme(channel="pcm-drift", side_channel="pcm-drift")
    aged = with_channel(scheme, None, late)
    assert aged.side.channel == aged.channel == late.apply(channels.resolve("pcm-drift"))
    (tensor,) = stored_tensors(oa.protect(made("matmul"), scheme, modifiers=late).model)
    assert tensor.scheme.side == aged.side


def test_side_information_takes_only_the_changes_that_its_channel_can_take():
    late = Modifiers(read_after_s=60.0, read_bits=5)
    side = with_channel(Scheme(channel="pcm-drift", side_channel="pcm"), None, late).side
    assert str(side.channel) == "pcm (5 bits to read)"
    assert side.channel != channels.resolve("pcm")


@pytest.mark.parametrize("fit", ["nandakumar2019", "hermes-2"])
@pytest.mark.parametrize("differential", [False, True])
def test_the_manifest_counts_every_device_of_a_cell(fit, differential):
    channel = StatisticalPcm(fit=fit, differential=differential)
    single = oa.protect(made("matmul"), Scheme(side_channel=GaussianNoise())).manifest.totals
    several = oa.protect(made("matmul"), Scheme(side_channel=channel)).manifest.totals
    assert several.side_cells == channel.devices_per_cell * single.side_cells


# --------------------------------------------------------------------------------------------- what is assumed

UNEQUAL, EQUAL = Scheme(cells=(1, 3), side_channel=NOISY), Scheme(cells=(2,), side_channel=NOISY)


@pytest.mark.parametrize(
    ("schemes", "expected"),
    [
        ([UNEQUAL], (ADDRESSES_KNOWN,)),
        ([EQUAL, UNEQUAL, UNEQUAL], (ADDRESSES_KNOWN,)),
        ([EQUAL], ()),
        ([Scheme(cells=(1, 3))], ()),  # side information without errors
        ([Scheme.paper("sign", side_channel=NOISY)], ()),  # one class
        ([Scheme.int4(side_channel=NOISY)], ()),  # no cells whose addresses could move
        ([], ()),
    ],
)
def test_addresses_are_assumed_where_classes_that_may_be_wrong_differ_in_cells(schemes, expected):
    assert assumptions(schemes) == expected
    plan = Plan(default=None, tensors={str(number): scheme for number, scheme in enumerate(schemes)})
    assert assumptions(plan.schemes) == expected


def in_the_log(caplog, work) -> int:
    """Return how often `work` warns that its results are optimistic."""
    caplog.clear()
    work()
    return sum(record.message == OPTIMISTIC for record in caplog.records)


@pytest.mark.parametrize(("scheme", "times"), [(UNEQUAL, 1), (EQUAL, 0), (Scheme(cells=(1, 3)), 0)], ids=str)
def test_everything_that_rests_on_the_assumption_says_so_once(scheme, times, caplog):
    plain, stored = made("matmul"), protected("matmul", scheme)
    data = {"x": feeds(plain)[0]["x"]}
    for name, work in {
        "protect": lambda: oa.protect(made("matmul"), plan=scheme, selection=SMALL),
        "load": lambda: oa.load(stored),
        "account": lambda: oa.account(stored),
        "readback": lambda: oa.readback(stored),
        "evaluate": lambda: oa.evaluate(stored, data, trials=1),
        "sweep": lambda: oa.sweep(made("matmul"), data, plan=scheme, trials=1, engine="serial", selection=SMALL),
    }.items():
        assert (name, in_the_log(caplog, work)) == (name, times)


@pytest.mark.parametrize(("scheme", "times"), [(UNEQUAL, 1), (EQUAL, 0)], ids=str)
def test_results_keep_the_warning(scheme, times):
    plain = made("matmul")
    data = {"x": feeds(plain)[0]["x"]}
    evaluation = oa.evaluate(protected("matmul", scheme), data, trials=1)
    assert evaluation.to_dict()["warnings"].count(OPTIMISTIC) == times
    swept = oa.sweep(plain, data, plan=scheme, trials=1, engine="serial", selection=SMALL)
    points = {point["strategy"]: point["warnings"].count(OPTIMISTIC) for point in swept.to_dict()["points"]}
    assert sum(points.values()) == times  # the other points are the paper's strategies


def test_a_result_without_trials_assumes_nothing():
    plain = made("matmul")
    stored = protected("matmul", UNEQUAL)
    assert OPTIMISTIC not in oa.evaluate(stored, {"x": feeds(plain)[0]["x"]}, trials=0).warnings
