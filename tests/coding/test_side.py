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
from onnx_analog.coding.side import Header, from_gray, to_gray
from onnx_analog.errors import OptionError
from onnx_analog.graph.stored import Protection, stored_tensors, with_channel
from onnx_analog.passes import DecodePass, ReadbackPass
from onnx_analog.testing import FALSE_ALARM, assert_mean
from tests.models import holding, made

NOISY = GaussianNoise(sigma=0.2, low=-1.0, high=1.0)


def model():
    return holding(w=np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32))


@given(st.integers(1, 8))
def test_gray_codes_of_neighbours_differ_in_one_bit(width):
    code = to_gray(np.arange(2**width), width)
    assert (np.abs(np.diff(code.astype(int), axis=0)).sum(axis=1) == 1).all()
    assert from_gray(code).tolist() == list(range(2**width))


def test_two_equal_normals_are_told_apart_half_way():
    header = Header(channel=GaussianNoise(sigma=0.5, low=-1.0, high=1.0), bits_per_cell=1)
    expected = scipy.stats.norm.sf(1 / 0.5)  # one unit to the threshold
    np.testing.assert_allclose(header.confusion, [[1 - expected, expected], [expected, 1 - expected]], rtol=1e-6)
    assert header.bit_error == pytest.approx(expected, rel=1e-6)


def test_averaging_moves_the_threshold_further_away():
    header = Header(channel=GaussianNoise(sigma=0.5, low=-1.0, high=1.0), bits_per_cell=1, reads=4)
    assert header.bit_error == pytest.approx(scipy.stats.norm.sf(2 / 0.5), rel=1e-5)


def test_four_levels_by_hand():
    # levels -1, -1/3, 1/3, 1; inner ones have two neighbours, and each of those differs in one of two bits
    step = scipy.stats.norm.sf(1 / 3 / 0.2)
    header = Header(channel=NOISY, bits_per_cell=2)
    assert header.bit_error == pytest.approx(
        (2 * step + 4 * step) / 8, rel=2e-3
    )  # a jump of two levels is rarer by 1e-6


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset", "rram-wan"])
def test_thresholds_are_where_likelihoods_cross(name):
    header = Header(channel=channels.resolve(name), bits_per_cell=2)
    mean = header.levels.astype(float)
    std = header.channel.scale(header.levels, cells=1).astype(float)
    # The chance of being right, Σ over y of max over symbols of density, is the best that any decision can reach.
    y = np.linspace((mean - 9 * std).min(), (mean + 9 * std).max(), 400_001)
    density = scipy.stats.norm.pdf(y[:, None], mean, std)
    best = density.max(axis=1).sum() * (y[1] - y[0])
    ours = header.confusion.trace()
    assert ours <= best + 1e-6
    # Thresholds between neighbours leave out that the widest law is the likeliest again far outside.
    assert ours == pytest.approx(best, abs=2e-2)


def test_sampled_errors_are_those_of_the_confusion():
    header = Header(channel=NOISY, bits_per_cell=2)
    bits = np.random.default_rng(0).random(200_000) < 0.5
    wrong = header.read(bits, np.random.default_rng(1)) != bits
    assert_mean(wrong.astype(float), header.bit_error)


def test_a_vote_of_three_is_wrong_where_two_are():
    one, three = (Header(channel=NOISY, bits_per_cell=1, copies=copies) for copies in (1, 3))
    noisy = Header(channel=GaussianNoise(sigma=0.8, low=-1.0, high=1.0), bits_per_cell=1, copies=3)
    p = noisy.bit_error
    bits = np.random.default_rng(0).random(200_000) < 0.5
    wrong = noisy.read(bits, np.random.default_rng(1)) != bits
    assert_mean(wrong.astype(float), 3 * p**2 * (1 - p) + p**3)
    assert (one.cells_per_symbol, three.cells_per_symbol) == (1, 3)


def test_no_noise_no_errors():
    header = Header(channel=GaussianNoise(sigma=1e-6), bits_per_cell=8)
    bits = np.random.default_rng(0).random(1001) < 0.5
    assert np.array_equal(header.read(bits, np.random.default_rng(1)), bits)


def test_channels_without_a_closed_law_are_sampled():
    exact = Header(channel=NOISY, bits_per_cell=2)
    # A converter of 16 bits changes nothing, but makes the law unknown.
    sampled = Header(channel=Modifiers(read_bits=16).apply(NOISY), bits_per_cell=2)
    error = scipy.stats.norm.isf(FALSE_ALARM / 32) * 0.5 / np.sqrt(20_000)
    np.testing.assert_allclose(sampled.confusion, exact.confusion, atol=error + 0.01)  # thresholds are estimated too
    assert Header(channel=StatisticalPcm(), bits_per_cell=1).bit_error < 1e-3


@pytest.mark.parametrize(
    "options",
    [{name: value} for name in ("bits_per_cell", "reads", "copies") for value in (0, 10**9, 1.5, True)]
    + [{"bits_per_cell": 9}, {"copies": 2}, {"copies": 1001}, {"reads": 1001}],
    ids=str,
)
def test_options_out_of_range(options):
    with pytest.raises(OptionError):
        Header(**{"channel": NOISY, "bits_per_cell": 2, **options})


def test_a_channel_that_is_read_cell_by_cell_is_learnt_in_a_bounded_time():
    slow = Modifiers(read_bits=16).apply(NOISY)
    assert Header(channel=slow, bits_per_cell=8, reads=52).reads == 52
    assert Header(channel=NOISY, bits_per_cell=8, reads=1000).bit_error < 0.5
    with pytest.raises(OptionError, match=r"reads is 53 with 8 bits in a cell; .* at most 52 can be averaged"):
        Header(channel=slow, bits_per_cell=8, reads=53)


def test_many_symbols_of_many_bits_take_little_memory():
    header = Header(channel=NOISY, bits_per_cell=8)
    bits = np.random.default_rng(0).random(2**20) < 0.5
    tracemalloc.start()
    header.read(bits, np.random.default_rng(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20  # 2^14 symbols beside 255 chances of 8 bytes, and bits as whole numbers; not 2^17


# ------------------------------------------------------------------------------------------------- in a model


def test_signs_and_classes_err_as_often_as_the_header_says():
    protected = oa.protect(model(), header_channel=NOISY).model
    before = stored_tensors(protected)[0]
    after = stored_tensors(ReadbackPass(seed=3)(protected).model)[0]
    wrong = np.concatenate([before.sign != after.sign, before.class_index != after.class_index])
    # Classes are mostly small, so symbols are not equally likely: the chance is that of the symbols that are there.
    header = Protection.of(protected).header
    bits = np.stack([before.sign, before.class_index.astype(bool)], axis=1)
    flips = np.array([[(a != b).sum() for b in to_gray(np.arange(4), 2)] for a in to_gray(np.arange(4), 2)])
    expected = (header.confusion * flips).sum(axis=1)[from_gray(bits)].mean() / 2
    assert_mean(wrong.astype(float), expected)


def test_without_a_header_channel_signs_and_classes_are_kept():
    protected = oa.protect(model()).model
    before, after = stored_tensors(protected)[0], stored_tensors(ReadbackPass()(protected).model)[0]
    assert np.array_equal(before.sign, after.sign)
    assert np.array_equal(before.class_index, after.class_index)


@pytest.mark.parametrize("strategy", ["sign", "mapping", "raw"])
def test_evaluation_reads_the_same_header_as_the_pass(strategy):
    from onnx_analog.run.evaluation import Decoder

    protected = oa.protect(model(), strategy=strategy, header_channel=NOISY, bits_per_cell=3).model
    decoder = Decoder(stored_tensors(protected)[0], Protection.of(protected))
    for trial in (0, 1, 0):
        plain = ReadbackPass(seed=5, trial=trial)(protected).model
        DecodePass()(plain)
        expected = plain.graph.initializers["w"].const_value.numpy()
        assert np.array_equal(decoder.weights(seed=5, trial=trial), expected)


@pytest.mark.parametrize(("reads", "copies", "bits"), list(itertools.product([1, 5], [1, 3], [1, 2, 3])))
def test_the_manifest_counts_its_cells(reads, copies, bits):
    found = oa.protect(
        model(), header_channel=NOISY, header_reads=reads, header_copies=copies, bits_per_cell=bits
    ).manifest
    assert found.totals.header_cells == -(-1200 * 2 // bits) * reads * copies
    assert found.header == {"channel": NOISY.to_dict(), "reads": reads, "copies": copies}


def test_differential_pairs_count_twice():
    single, pair = (
        oa.protect(model(), channel=StatisticalPcm(differential=flag)).manifest.totals for flag in (False, True)
    )
    assert pair.analog_cells == 2 * single.analog_cells
    assert pair.header_cells == single.header_cells


def test_reads_and_copies_need_a_channel():
    with pytest.raises(OptionError, match="need a header_channel"):
        oa.protect(model(), header_reads=2)


def test_a_protected_model_remembers_its_header():
    protected = oa.protect(model(), header_channel="pcm", header_reads=5, header_copies=3, bits_per_cell=1).model
    header = Protection.of(protected).header
    assert (header.reads, header.copies, header.bits_per_cell) == (5, 3, 1)
    assert header.channel.means == channels.resolve("pcm").means


def test_the_header_ages_with_the_levels():
    late = Modifiers(read_after_s=365 * 86_400.0)
    found = oa.protect(made("matmul"), channel="pcm-drift", header_channel="pcm-drift", modifiers=late)
    header = Protection.of(found.model).header
    assert header is not None
    assert header.channel == Protection.of(found.model).channel
    early = oa.protect(made("matmul"), channel="pcm-drift", header_channel="pcm-drift").model
    changed = with_channel(Protection.of(early), None, late)
    assert changed.header == header


def test_a_header_takes_only_the_changes_that_it_has_a_side_for():
    found = oa.protect(
        made("matmul"), channel="pcm-drift", header_channel="pcm", modifiers=Modifiers(read_after_s=60.0, read_bits=5)
    )
    header = Protection.of(found.model).header
    assert header is not None
    assert str(header.channel) == "pcm (5 bits to read)"
    assert header.channel != channels.resolve("pcm")


@pytest.mark.parametrize("fit", ["nandakumar2019", "hermes-2"])
@pytest.mark.parametrize("differential", [False, True])
def test_the_manifest_counts_every_device_of_a_header_cell(fit, differential):
    channel = StatisticalPcm(fit=fit, differential=differential)
    one = oa.protect(made("matmul"), header_channel=GaussianNoise()).manifest.totals
    found = oa.protect(made("matmul"), header_channel=channel).manifest.totals
    assert found.header_cells == channel.devices_per_cell * one.header_cells
