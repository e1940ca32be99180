"""Reads of an array become levels: exactly without noise, with the law of the channel with it, and nothing in silence.

The array is on the far side of files: `tests.far_side`.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.errors import ChannelError, DataError, ModelError, OptionError
from onnx_analog.graph import array_read
from onnx_analog.graph.array_streams import read_stream
from onnx_analog.graph.image import PLANES, image_of
from onnx_analog.graph.irregular import FAR
from tests.far_side import FarArray, write_csv, write_npz
from tests.models import CODED, FAMILY, QUIET, model

NET = """
    net (float[n, 24] x) => (float[n, 24] y) <float[24, 24] a = random, float[24, 24] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
WIDE = """
    net (float[n, 100] x) => (float[n, 100] y) <float[100, 100] w = random> {
        y = MatMul(x, w)
    }"""
PCM = channels.resolve("pcm")


def stored(scheme: oa.Scheme, text: str = NET, **settings):
    return oa.load(oa.protect(model(text), scheme, **settings))


def far(protected, tmp_path, **options) -> FarArray:
    oa.write_image(protected, tmp_path / "cells.npz", force=True)
    return FarArray(tmp_path / "cells.npz", **options)


def planes(result) -> list[dict[str, np.ndarray]]:
    from onnx_analog.graph.protected import open_protected

    tensors = open_protected(result.model).tensors
    return [{name: np.array(tensor.plane(name)) for name in ("level", "sign", "class")} for tensor in tensors]


def same(one, other) -> bool:
    return all(a[name].tobytes() == b[name].tobytes() for a, b in zip(one, other, strict=True) for name in a)


def counts(read: oa.Perturbed) -> dict[str, int]:
    assert read.array is not None
    return {each.what: each.count for each in read.array.irregularities if each.count}


# --------------------------------------------------------------------------------------------------- without noise


SCHEMES = {**FAMILY, **CODED}


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_a_round_trip_without_noise_is_exact(name, sparsity, tmp_path):
    protected = stored(SCHEMES[name], sparsity=sparsity)
    array = far(protected, tmp_path)
    reads = write_npz(tmp_path / "reads.npz", array, array.read())
    read = oa.readback(protected, measured=reads, unit="scaled")
    for now, tensor in zip(planes(read), protected.tensors, strict=True):
        assert now["sign"].tobytes() == tensor.plane("sign").tobytes()
        assert now["class"].tobytes() == tensor.plane("class").tobytes()
        assert read.array.tensors[tensor.key].raw.tobytes() == tensor.level.tobytes()
    assert same(planes(read), planes(protected)) or protected.schemes[0].estimator != "affine"
    assert counts(read) == {}
    assert all((each.misread, each.failed) == (0, 0) for each in read.array.streams)


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_a_round_trip_in_the_unit_of_the_device_is_exact(suffix, tmp_path):
    protected = stored(oa.Scheme.paper("redundancy", channel=PCM, large_fraction=0.3))
    path = tmp_path / f"cells.{suffix}"
    oa.write_image(protected, path)
    array = FarArray(path, by="level_device")
    assert array.read().min() > 1e3  # ohms, which are no levels
    order = np.random.default_rng(0).permutation(array.address.size)
    reads = write_csv(tmp_path / "reads.csv", array, array.read(), order)
    read = oa.readback(protected, measured=reads, unit="device")
    assert same(planes(read), planes(protected))
    assert set(counts(read)) == {"rows that are not in the order of addresses"}


def test_another_value_is_seen(tmp_path):
    protected = stored(FAMILY["redundancy"])
    array = far(protected, tmp_path)
    value = array.read()
    value[7] += 1e-4
    read = oa.readback(protected, measured=write_npz(tmp_path / "reads.npz", array, value), unit="scaled")
    assert not same(planes(read), planes(protected))


# ------------------------------------------------------------------------------------------------------ with noise


def standardised(protected, result, std) -> np.ndarray:
    """Return errors of levels over the standard deviation that the mean of their cells has."""
    parts = []
    for tensor, read in zip(protected.tensors, planes(result), strict=True):
        cells = np.array(tensor.scheme.cells_of_class)[tensor.class_index]
        parts.append((read["level"] - tensor.level.astype(np.float64)) / (std(tensor.level) / np.sqrt(cells)))
    return np.concatenate(parts)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance between two empirical distribution functions (Kolmogorov and Smirnov)."""
    at = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(values), at, side="right") / values.size for values in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def critical(n: int, m: int, risk: float = 1e-4) -> float:
    """Return the distance that samples of one law exceed with at most `risk` (Smirnov's asymptotic bound)."""
    return math.sqrt(-math.log(risk / 2) / 2 * (n + m) / (n * m))


def far_device(scaled_input: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return reads of a far device in ohms: its mean and σ curves are numbers, all else is computed here."""
    table = PCM.to_dict()
    mean = np.interp(scaled_input, table["inputs"], table["means"])
    std = np.interp(scaled_input, table["inputs"], table["stds"])
    low, high = (math.log10(table["output_scale"][end]) for end in ("low", "high"))
    read = mean + std * rng.normal(size=mean.size)
    ohms: np.ndarray = 10 ** (low + (read + 1) / 2 * (high - low))
    return ohms


def test_a_measured_array_has_the_law_of_the_simulated_one(tmp_path):
    protected = stored(oa.Scheme.paper("redundancy", channel=PCM, cells_large=5, large_fraction=0.3), WIDE)
    array = far(protected, tmp_path, by="input")
    rng = np.random.default_rng(1)
    reads = write_npz(tmp_path / "reads.npz", array, array.read(lambda held: far_device(held, rng)))
    measured = standardised(protected, oa.readback(protected, measured=reads, unit="device"), PCM.std)
    simulated = standardised(protected, oa.readback(protected, seed=3), PCM.std)
    assert distance(measured, simulated) < critical(measured.size, simulated.size)
    bound = 4 / math.sqrt(measured.size)  # four standard errors of a mean; of σ, 4/√(2n) is less
    assert abs(measured.mean()) < bound
    assert abs(measured.std() - 1) < bound


def test_an_array_with_more_noise_is_told_from_the_simulated_one(tmp_path):
    protected = stored(oa.Scheme.paper("redundancy", channel=QUIET, cells_large=5, large_fraction=0.3), WIDE)
    array, rng = far(protected, tmp_path), np.random.default_rng(1)
    simulated = standardised(protected, oa.readback(protected, seed=3), QUIET.std)
    for factor, alike in ((1.0, True), (1.15, False)):
        reads = write_npz(
            tmp_path / "reads.npz",
            array,
            array.read(lambda held, f=factor: held + f * 0.1 * rng.normal(size=held.size)),
        )
        measured = standardised(protected, oa.readback(protected, measured=reads, unit="scaled"), QUIET.std)
        assert (distance(measured, simulated) < critical(measured.size, simulated.size)) is alike


def test_an_estimator_sees_what_was_measured(tmp_path):
    protected = stored(oa.Scheme.paper("redundancy", channel=QUIET, estimator="clipped"), WIDE)
    array, rng = far(protected, tmp_path), np.random.default_rng(1)
    reads = write_npz(tmp_path / "r.npz", array, array.read(lambda held: held + 0.1 * rng.normal(size=held.size)))
    read = oa.readback(protected, measured=reads, unit="scaled")
    (level,) = [plane["level"] for plane in planes(read)]
    assert (level.min(), level.max()) == tuple(np.float32(QUIET.span))
    assert counts(read)["reads outside the output range"] > 100
    raw = read.array.tensors["w"].raw
    assert np.array_equal(np.clip(raw, *np.float32(QUIET.span)), level)


def test_signs_and_classes_are_read_wrongly_as_often_as_in_the_simulation(tmp_path):
    sigma = 0.3
    side = channels.resolve(f"gaussian:sigma={sigma}")
    scheme = oa.Scheme.paper("mapping", channel=QUIET, side_channel=side, side_copies=3, large_fraction=0.3)
    protected = stored(scheme, WIDE)
    (tensor,) = protected.tensors
    array, rng = far(protected, tmp_path), np.random.default_rng(2)
    of_side = image_of(protected).columns()["plane"] == PLANES.index("side")
    noise = np.where(of_side, sigma, 0.1)  # the codebook is in cells of the levels' channel
    reads = write_npz(tmp_path / "r.npz", array, array.read(lambda held: held + noise * rng.normal(size=held.size)))
    measured = oa.readback(protected, measured=reads, unit="scaled")
    wrong = []
    for read in (measured, oa.readback(protected, seed=4)):
        (plane,) = planes(read)
        bits = np.concatenate([plane["sign"], plane["class"]]) ^ np.concatenate(
            [tensor.plane("sign"), tensor.plane("class")]
        )
        wrong.append(int(np.bitwise_count(bits).sum()))
    share = sum(wrong) / 2 / 20_000
    assert 0.01 < share < 0.3
    # Each bit is independent of those of other symbols, and a symbol has two: the variance is at most twice binomial.
    assert abs(wrong[0] - wrong[1]) < 4 * math.sqrt(2 * 2 * 20_000 * share * (1 - share))
    assert counts(measured)["bits of signs and classes that are wrong"] == wrong[0]


# ---------------------------------------------------------------------------------------------------- irregularities


def rows(array: FarArray, **columns):
    return {"address": array.address, "value": array.read(), **columns}


@pytest.fixture
def kept(tmp_path):
    protected = stored(oa.Scheme.paper("raw", channel=QUIET, cells_small=3))
    return protected, far(protected, tmp_path)


def test_raw_reads_and_averages_are_the_same(kept):
    protected, array = kept
    draws = array.read()[:, None] + np.random.default_rng(0).normal(scale=0.1, size=(array.address.size, 4))
    several = oa.readback(protected, measured=rows(array, value=draws), unit="scaled")
    average = rows(array, value=draws.mean(axis=1))
    uneven = {
        "address": np.repeat(array.address, 2),
        "value": np.stack([draws[:, 0], draws[:, 1:].mean(axis=1)], axis=1).reshape(-1),
        "count": np.tile([1, 3], array.address.size),
    }
    expected = planes(oa.readback(protected, measured=average, unit="scaled"))
    for read in (several, oa.readback(protected, measured=uneven, unit="scaled")):
        for now, before in zip(planes(read), expected, strict=True):
            np.testing.assert_allclose(now["level"], before["level"], rtol=0, atol=1e-6)
        assert counts(read)["cells with more than one read"] == array.address.size
        assert read.array.reads == 4 * array.address.size


def test_a_cell_without_a_read_is_left_out_of_the_average(kept):
    protected, array = kept
    value = array.read()
    value[0], value[1] = np.nan, 5.0
    read = oa.readback(protected, measured=rows(array, value=value), unit="scaled")
    expected = (5.0 + value[2]) / 2  # three cells hold the first weight
    assert planes(read)[0]["level"][0] == np.float32(expected)
    assert counts(read) == {
        "rows without a number": 1,
        "cells without a read": 1,
        "weights with reads of some cells only": 1,
        "reads outside the output range": 1,
        "reads more than 6 σ from what was written": 1,
    }
    assert FAR == 6


@pytest.mark.parametrize("share", [1, 2, 3])
def test_reads_that_look_wrong_are_counted_of_the_reads_that_there_are(kept, share):
    protected, array = kept
    value = np.full(array.address.size, 50.0)
    part = {"address": array.address[::share], "value": value[::share]}
    read = oa.readback(protected, measured=part, unit="scaled", missing="written")
    of = {each.what: (each.count, each.of) for each in read.array.irregularities}
    every = part["address"].size
    assert of["reads outside the output range"] == (every, every)
    assert of["reads more than 6 σ from what was written"] == (every, every)
    assert of["cells without a read"] == (array.address.size - every, array.address.size)


def test_the_unit_is_doubted_if_most_of_a_few_reads_are_far(kept, caplog):
    protected, array = kept
    part = {"address": array.address[::3], "value": np.full(array.address[::3].size, 50.0)}
    oa.readback(protected, measured=part, unit="scaled", missing="written")
    number = f"{part['address'].size:,}"
    assert f"{number} of {number} reads are more than 6 σ from what was written" in caplog.text


def test_a_stuck_cell_is_left_out(kept):
    protected, array = kept
    value, stuck = array.read(), np.zeros(array.address.size, int)
    value[:2], stuck[:2] = 9.0, 1
    read = oa.readback(protected, measured=rows(array, value=value, stuck=stuck), unit="scaled")
    assert same(planes(read), planes(protected))
    assert counts(read)["rows of cells that are marked as stuck"] == 2


@pytest.mark.parametrize("missing", ["zero", "written"])
def test_a_weight_without_a_read_is_refused_unless_it_is_said_what_it_becomes(kept, missing):
    protected, array = kept
    given = rows(array)
    given = {name: column[3:] for name, column in given.items()}
    with pytest.raises(DataError, match=r'1 weight of 1,152 has no read: say .* missing="zero" or missing="written"'):
        oa.readback(protected, measured=given, unit="scaled")
    read = oa.readback(protected, measured=given, unit="scaled", missing=missing, decoded=True)
    weight = {t.name: np.array(t.const_value.numpy()) for t in read.model.graph.initializers.values()}["a"]
    original = protected.decode()["a"]
    assert weight[0, 0] == (0 if missing == "zero" else original[0, 0])
    assert np.array_equal(weight.reshape(-1)[1:], original.reshape(-1)[1:])
    assert counts(read) == {"cells without a read": 3, "weights without a read": 1}


@pytest.mark.parametrize("name", ["redundancy", "analog side", "redundancy of channels", "signed bounds"])
def test_weights_without_a_read_are_zero_in_each_class(name, tmp_path):
    protected = stored(FAMILY[name])
    array = far(protected, tmp_path)
    columns = image_of(protected).columns()
    lost = (columns["plane"] == 0) & (columns["index"] % 7 == 0)
    read = oa.readback(
        protected, measured={n: c[~lost] for n, c in rows(array).items()}, unit="scaled", missing="zero", decoded=True
    )
    for key, before in protected.decode().items():
        now = read.model.graph.initializers[key].const_value.numpy().reshape(-1)
        number = list(protected.decode()).index(key)
        gone = np.unique(columns["index"][lost & (columns["tensor"] == number)])
        assert gone.size
        assert not now[gone].any()
        assert np.array_equal(np.delete(now, gone), np.delete(before.reshape(-1), gone))


def test_analog_bits_without_a_read_are_refused_or_as_written(tmp_path):
    protected = stored(FAMILY["analog side"])
    array = far(protected, tmp_path)
    others = image_of(protected).columns()["plane"] != PLANES.index("side")
    given = {name: column[others] for name, column in rows(array).items()}
    for missing in ("refuse", "zero"):
        with pytest.raises(DataError, match=r'symbols of .* no code protects have no read.*give missing="written"'):
            oa.readback(protected, measured=given, unit="scaled", missing=missing)
    read = oa.readback(protected, measured=given, unit="scaled", missing="written")
    assert same(planes(read), planes(protected))


def test_reads_of_several_times_are_told_apart(kept):
    protected, array = kept
    size = array.address.size
    given = {
        "address": np.tile(array.address, 2),
        "value": np.concatenate([array.read(), array.read() + 0.5]),
        "time_s": np.repeat([1.0, 3600.0], size),
    }
    with pytest.raises(DataError, match=r"reads of 2 times \(1, 3600 s\): say which count, with time_s"):
        oa.readback(protected, measured=given, unit="scaled")
    with pytest.raises(DataError, match="no reads at time_s 2; its times are 1, 3600 s"):
        oa.readback(protected, measured=given, unit="scaled", time_s=2)
    early = oa.readback(protected, measured=given, unit="scaled", time_s=1)
    assert same(planes(early), planes(protected))
    assert (early.array.time_s, counts(early)["rows of other times"]) == (1, size)
    late = oa.readback(protected, measured=given, unit="scaled", time_s=3600)
    shift = planes(late)[0]["level"] - planes(protected)[0]["level"]
    np.testing.assert_allclose(shift, 0.5, rtol=0, atol=1e-6)
    with pytest.raises(DataError, match="says no times, and time_s is 1"):
        oa.readback(protected, measured=rows(array), unit="scaled", time_s=1)


# -------------------------------------------------------------------------------------------------------- calibration


def calibrated(array: FarArray, lines: dict[int, tuple[float, float]], noise: float = 0.0):
    """Return rows of an array whose blocks read along lines, (gain, offset), with 50 references of each."""
    rng = np.random.default_rng(5)
    block = np.arange(array.address.size) * len(lines) // array.address.size
    known = np.tile(np.linspace(-0.5, 0.5, 50), len(lines))
    blocks = np.concatenate([block, np.repeat(np.arange(len(lines)), 50)])
    true = np.concatenate([array.read(), known])
    gain, offset = np.array([lines[number] for number in blocks.tolist()]).T
    return {
        "address": np.concatenate([array.address, np.zeros(known.size, int)]),
        "value": gain * true + offset + noise * rng.normal(size=true.size),
        "block": blocks,
        "reference": np.concatenate([np.full(array.address.size, np.nan), known]),
    }


def test_blocks_are_calibrated_by_their_references(kept):
    protected, array = kept
    lines = {0: (1.2, 0.1), 1: (0.5, -0.3), 2: (1.0, 0.0)}
    read = oa.readback(protected, measured=calibrated(array, lines), unit="scaled")
    for now, before in zip(planes(read), planes(protected), strict=True):
        np.testing.assert_allclose(now["level"], before["level"], rtol=0, atol=1e-6)
    for line in read.array.calibration:
        np.testing.assert_allclose((line.gain, line.offset), lines[line.block], rtol=0, atol=1e-12)
        assert line.references == 50
    plain = calibrated(array, lines)
    del plain["reference"], plain["block"]
    wrong = oa.readback(protected, measured={n: c[: array.address.size] for n, c in plain.items()}, unit="scaled")
    assert not same(planes(wrong), planes(protected))
    assert wrong.array.calibration == ()


def test_a_calibration_from_noisy_references_is_as_exact_as_they_allow(kept):
    protected, array = kept
    noise, (gain, offset) = 0.05, (0.8, 0.2)
    read = oa.readback(protected, measured=calibrated(array, {0: (gain, offset)}, noise), unit="scaled")
    (line,) = read.array.calibration
    spread = np.linspace(-0.5, 0.5, 50).std() * math.sqrt(50)
    assert abs(line.gain - gain) < 4 * noise / spread  # four standard errors of a regression's slope
    assert abs(line.offset - offset) < 4 * noise / math.sqrt(50)


def test_a_block_that_cannot_be_calibrated_is_refused(kept):
    protected, array = kept
    given = calibrated(array, {0: (1.0, 0.0), 1: (1.0, 0.0)})
    references = np.isfinite(given["reference"])
    without = {name: column[~(references & (given["block"] == 1))] for name, column in given.items()}
    with pytest.raises(DataError, match="block 1 has references of 0 levels, and two are needed"):
        oa.readback(protected, measured=without, unit="scaled")
    one = {**given, "reference": np.where(references, 0.25, np.nan)}
    with pytest.raises(DataError, match="block 0 has references of 1 level,"):
        oa.readback(protected, measured=one, unit="scaled")
    falling = {**given, "value": np.where(references, -given["value"], given["value"])}
    with pytest.raises(DataError, match="block 0 has a gain of -1 by its references"):
        oa.readback(protected, measured=falling, unit="scaled")


# ------------------------------------------------------------------------------------------------------------ refused


def test_what_cannot_be_known_is_refused(kept):
    protected, array = kept
    with pytest.raises(OptionError, match='unit is not given: say unit="scaled"'):
        oa.readback(protected, measured=rows(array))
    with pytest.raises(ChannelError, match="knows no unit of reads: give scaled values"):
        oa.readback(protected, measured=rows(array), unit="device")
    with pytest.raises(DataError, match="the reads are of image 000, and this model's is"):
        oa.readback(protected, measured=rows(array, image="000"), unit="scaled")
    for wrong in (-1, image_of(protected).cells):
        given = rows(array)
        given["address"] = np.where(np.arange(given["address"].size) == 0, wrong, given["address"])
        with pytest.raises(DataError, match=f"address {wrong} is outside the array, whose addresses are 0 to "):
            oa.readback(protected, measured=given, unit="scaled")


def test_cells_of_devices_with_other_scales_take_scaled_values_only(tmp_path):
    other = channels.resolve("pcm-partial-reset")
    plan = oa.Plan(default=oa.Scheme.paper("raw", channel=PCM), tensors={"b": oa.Scheme.paper("raw", channel=other)})
    protected = oa.load(oa.protect(model(NET), plan))
    array = far(protected, tmp_path)
    assert same(planes(oa.readback(protected, measured=rows(array), unit="scaled")), planes(protected))
    with pytest.raises(DataError, match="devices with 2 scales"):
        oa.readback(protected, measured=rows(array), unit="device")


def test_a_value_without_a_logarithm_is_counted(tmp_path):
    protected = stored(oa.Scheme.paper("raw", channel=PCM, cells_small=2))
    array = far(protected, tmp_path, by="level_device")
    value = array.read()
    value[0], value[2] = 0.0, -5.0
    read = oa.readback(protected, measured=rows(array, value=value), unit="device")
    assert counts(read)["values that have no logarithm"] == 2
    assert "rows without a number" not in counts(read)


@pytest.mark.parametrize("missing", ["refuse", "written"])
def test_a_wrong_unit_is_not_blamed_on_cells_without_a_read(tmp_path, caplog, missing):
    """Scaled reads as device values: many have no logarithm. Values in ohms as scaled ones: all are far off."""
    protected = stored(oa.Scheme.paper("raw", channel=PCM, cells_small=1))
    array = far(protected, tmp_path)
    doubt = (
        r"[\d,]+ of [\d,]+ values are not above 0, so they have no logarithm; they were taken as device\. "
        r"Would unit=.scaled. be right, and are the"
    )
    if missing == "refuse":
        with pytest.raises(
            DataError, match=rf"^{doubt} reads of this model\? Otherwise: [\d,]+ weights of .* have no read"
        ):
            oa.readback(protected, measured=rows(array), unit="device")
    else:
        with caplog.at_level("WARNING"):
            oa.readback(protected, measured=rows(array), unit="device", missing=missing)
        assert re.search(doubt, caplog.text)
    in_ohms = far(protected, tmp_path, by="level_device")
    half = {name: column[::2] for name, column in rows(in_ohms).items()}
    if missing == "refuse":
        with pytest.raises(
            DataError,
            match=r'was written; they were taken as scaled. Would unit="device" be right.* have no read: say what',
        ):
            oa.readback(protected, measured=half, unit="scaled")


def test_cells_without_a_read_are_not_blamed_on_the_unit(tmp_path):
    protected = stored(oa.Scheme.paper("raw", channel=PCM, cells_small=1))
    in_ohms = far(protected, tmp_path, by="level_device")
    half = {name: column[::2] for name, column in rows(in_ohms).items()}
    with pytest.raises(DataError, match=r"^[\d,]+ weights of [\d,]+ have no read"):
        oa.readback(protected, measured=half, unit="device")


def test_a_measured_array_is_not_simulated_too(kept):
    protected, array = kept
    for name, value in {"seed": 1, "trial": 1, "channel": QUIET, "modifiers": oa.Modifiers(read_bits=3)}.items():
        with pytest.raises(OptionError, match=f"{name} and measured exclude each other"):
            oa.readback(protected, measured=rows(array), unit="scaled", **{name: value})
    for name, value in {"unit": "scaled", "missing": "zero", "time_s": 1.0}.items():
        with pytest.raises(OptionError, match=f"{name} is given, and measured is not"):
            oa.readback(protected, **{name: value})


def test_a_model_as_measured_is_checked_and_not_read_again(kept, tmp_path):
    protected, array = kept
    oa.readback(protected, measured=rows(array), unit="scaled").save(tmp_path / "m.onnx")
    assert oa.inspect(tmp_path / "m.onnx").read_back == f"{array.address.size:,} reads of an array"
    with pytest.raises(
        oa.ModelError, match=r"was read from noisy cells already \([\d,]+ reads of an array\)"
    ) as refused:
        oa.readback(tmp_path / "m.onnx")
    assert "--decoded" in str(refused.value)
    assert "Name the protected model" not in str(refused.value)  # which would simulate reads
    plain = oa.readback(protected, measured=rows(array), unit="scaled", decoded=True)
    with pytest.raises(oa.ModelError, match=r"already \([\d,]+ reads .*; this one can be evaluated as it is"):
        oa.readback(plain)


def test_values_in_another_unit_are_questioned(tmp_path, caplog):
    protected = stored(oa.Scheme.paper("raw", channel=PCM))
    for by, unit, warned in (("level", "scaled", False), ("level_device", "scaled", True)):
        array = far(protected, tmp_path, by=by)
        caplog.clear()
        oa.readback(protected, measured=rows(array), unit=unit)
        assert ('Would unit="device" be right' in caplog.text) is warned


# --------------------------------------------------------------------------------------- streams that say wrong things

SOME = oa.Scheme(classes=3, cells=(0, 1, 2), shares=(0.5, 0.2), channel=QUIET, code="bch", block_bits=64)


def scrambled(protected, tmp_path):
    """Return the rows of an array of which a third of the symbols of classes are others."""
    array, columns = far(protected, tmp_path), image_of(protected).columns()
    rng, given = np.random.default_rng(0), rows(array)
    where = np.flatnonzero(columns["plane"] == PLANES.index("class"))
    chosen = rng.choice(where, where.size // 3, replace=False)
    given["value"][chosen] = rng.permutation(given["value"][chosen])
    return given, columns


@pytest.mark.parametrize("missing", ["refuse", "zero", "written"])
def test_classes_that_a_code_cannot_correct_move_no_cells(missing, tmp_path):
    protected = stored(SOME, WIDE)
    given, columns = scrambled(protected, tmp_path)
    if missing != "refuse":  # a weight without a read
        lost = (columns["plane"] == PLANES.index("level")) & (columns["index"] == columns["index"][0])
        given = {name: column[~lost] for name, column in given.items()}
    read = oa.readback(protected, measured=given, unit="scaled", missing=missing, decoded=True)
    ((key, before),) = protected.decode().items()
    assert (read.model.graph.initializers[key].const_value.numpy() != before).any()
    model_as_read = oa.readback(protected, measured=given, unit="scaled", missing=missing)
    assert planes(model_as_read)[0]["level"].size == planes(protected)[0]["level"].size
    session = onnxruntime.InferenceSession(ir.to_proto(model_as_read.model).SerializeToString())
    (y,) = session.run(None, {"x": np.eye(100, dtype=np.float32)})
    assert np.array_equal(y, read.model.graph.initializers[key].const_value.numpy())


@pytest.mark.parametrize(("block", "lost"), [(0, (True, True)), (5, (True, False)), (-1, (False, True))])
def test_a_table_of_one_tensor_takes_no_other_along(block, lost, tmp_path, monkeypatch):
    """Tensors share α and β, which are in the first block, and each has tables of its own."""

    def failing(plane, *given):
        found = read_stream(plane, *given)
        return replace(found, failed=np.arange(found.failed.size) == block % found.failed.size)

    monkeypatch.setattr(array_read, "read_stream", failing)
    scheme = oa.Scheme.paper(
        "sign", granularity="model", estimator="posterior", channel=QUIET, code="bch", block_bits=64
    )
    protected = stored(scheme)
    assert [plane.name for plane in image_of(protected).planes if plane.stream is not None] == ["sign", "codebook"]
    read = oa.readback(protected, measured=rows(far(protected, tmp_path)), unit="scaled")
    signs = [planes_of_one["sign"] for planes_of_one in planes(read)]
    assert tuple(not sign.any() for sign in signs) == lost


def test_a_model_of_which_nothing_can_be_laid_out_has_no_image():
    with pytest.raises(ModelError, match=r"no cell of the model can be laid out: .*soft decisions"):
        image_of(stored(oa.Scheme.integers(4, channel=QUIET, code="soft")))
