"""The image of an array: which cell is to hold what."""

from __future__ import annotations

import csv
import json

import numpy as np
import onnx_ir as ir
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.coding.codebook import steps_of
from onnx_analog.coding.estimators import gain_of, table_of
from onnx_analog.coding.masks import PatternStream, seeded_mask
from onnx_analog.errors import ChannelError, ModelError, OptionError
from onnx_analog.graph import image as images
from onnx_analog.graph.image import PLANES, image_of
from tests.far_side import FarReader, numbers
from tests.models import CODED, FAMILY, QUIET, model

NET = """
    net (float[n, 24] x) => (float[n, 24] y) <float[24, 24] a = random, float[24, 24] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""


def stored(scheme: oa.Scheme, **settings):
    return oa.load(oa.protect(model(NET), scheme, **settings))


ALL = {**FAMILY, **CODED}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_each_cell_of_the_manifest_has_one_row(name, sparsity):
    protected = stored(ALL[name], sparsity=sparsity)
    image, manifest = image_of(protected), protected.manifest
    columns = image.columns()
    assert image.absent == ()
    assert {len(column) for column in columns.values()} == {manifest.totals.honest_cells}
    assert np.array_equal(columns["address"], np.arange(manifest.totals.honest_cells))
    of_plane = {plane: int((columns["plane"] == number).sum()) for number, plane in enumerate(PLANES)}
    counted = dict.fromkeys(PLANES, 0)
    for line in manifest.honest:
        counted[{"levels": "level", "analog side information": "side"}.get(line.name, line.name)] += line.cells
    assert of_plane == counted
    for number, entry in enumerate(manifest.tensors):
        rows = (columns["tensor"] == number) & (columns["plane"] == 0)
        assert rows.sum() == entry.cells_for("level")
    assert set(columns["plane"][columns["tensor"] == -1]) == set(columns["plane"]) - {0, 1}


def test_pieces_are_the_whole(monkeypatch):
    protected = stored(CODED["differential"], sparsity=0.5)
    expected = image_of(protected).columns()
    monkeypatch.setattr(images, "PIECE", 7)
    image = image_of(protected)
    assert len(list(image.column("address"))) > 100
    for name, column in image.columns().items():
        assert np.array_equal(column, expected[name], equal_nan=name in ("input_device", "level_device"))
    assert not np.array_equal(np.roll(expected["address"], 1), expected["address"])


class Unknown(oa.Estimator):
    """Has tables, and does not tell their bits."""

    def fitted(self, written):
        return None

    def table_bits(self, cells):
        return 40


@pytest.mark.parametrize(
    ("settings", "names", "said"),
    [
        ({"code": "soft"}, {"sign", "class", "mask", "codebook"}, "is assumed to reach 95 % of the bound, and is not"),
        ({"channel": "gaussian:sigma=30"}, {"sign", "class", "mask", "codebook"}, "bits (no BCH code of 4,096 data"),
        ({"estimator": f"{__name__}:Unknown"}, {"codebook"}, "the bits of an estimator's tables, or the step"),
    ],
)
def test_streams_that_cannot_be_laid_out_are_said_with_the_reason(settings, names, said):
    protected = stored(oa.Scheme.paper("redundancy", **{"channel": QUIET, **settings}), sparsity=0.5)
    image, totals = image_of(protected), protected.manifest.totals
    assert {each.name for each in image.absent} == names
    assert said in str(image)
    assert image.cells >= totals.analog_cells
    if totals.honest_cells is None:
        assert {each.cells for each in image.absent} == {None}
    else:
        assert image.cells + sum(each.cells for each in image.absent) == totals.honest_cells
    array = oa.readback(protected, measured=image_reads(image), unit="scaled")
    left_out = [each for each in array.array.irregularities if each.count]
    assert [each.what for each in left_out] == ["bits of streams that the image leaves out"]
    assert left_out[0].count == sum(each.bits for each in image.absent)


def image_reads(image):
    columns = image.columns()
    return {"address": columns["address"], "value": columns["level"]}


# ---------------------------------------------------------------------------- what a reader of the array finds in it


def rebuilt(reader: FarReader, entry, scheme) -> np.ndarray:
    """Return a tensor's weights, flat, from the cells of an array and its entry in the manifest."""
    key, count = entry.key, entry.stored
    mask = reader.bits.get(("mask", key), np.ones(entry.original)).astype(bool)
    width = (scheme.classes - 1).bit_length()
    sign, index = np.zeros(count, int), np.zeros(count, int)
    if scheme.side_channel is not None:
        bits = reader.side(key)[: count * scheme.side_bits].reshape(count, -1)
        sign, bits = (bits[:, 0], bits[:, 1:]) if scheme.sign == "bit" else (sign, bits)
        index = bits @ (1 << np.arange(width - 1, -1, -1))
    if ("sign", key) in reader.bits:
        sign = reader.bits["sign", key]
    if ("class", key) in reader.bits:
        index = reader.bits["class", key].reshape(count, width) @ (1 << np.arange(width - 1, -1, -1))
    alpha, beta = codebook(reader, entry, scheme)
    weights, read = np.zeros(entry.original), np.zeros(entry.original)
    places, level = reader.levels(key)
    read[places] = level
    groups = len(alpha)
    group = np.flatnonzero(mask) % groups  # output channels of a matrix are its columns
    size = (read[mask] + beta[group, index]) / alpha[group, index]
    weights[mask] = np.where(sign == 1, -size, size)
    return weights


def codebook(reader: FarReader, entry, scheme):
    owner = next(key for name, key in reader.bits if name == "codebook")
    bits = reader.bits["codebook", entry.key if scheme.granularity != "model" else owner]
    stored = numbers(bits[: bits.size - scheme.table_bits], ">f4").astype(np.float32)
    if scheme.partition == "uniform" and scheme.classes > 1:
        return steps_of(stored, entry.groups, scheme)
    alpha, beta = np.ones((2, entry.groups, scheme.classes))
    numbers_left = iter(stored.tolist())
    for group in range(entry.groups):
        for number, cells in enumerate(scheme.cells_of_class):
            if cells:
                alpha[group, number] = next(numbers_left)
            beta[group, number] = next(numbers_left)
    assert next(numbers_left, None) is None
    return alpha, beta


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].entropy == "none"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_a_reader_who_has_nothing_else_rebuilds_the_weights(name, sparsity, tmp_path):
    protected = stored(ALL[name], sparsity=sparsity)
    oa.write_image(protected, tmp_path / "cells.npz")
    reader = FarReader(tmp_path / "cells.npz")
    for entry in protected.manifest.tensors:
        weights = protected.decode()[entry.key].reshape(-1)
        found = rebuilt(reader, entry, protected.schemes[entry.scheme])
        # A step is one float32 number, and a level too: both round, as decoding in float32 does a few times.
        np.testing.assert_allclose(found, weights, rtol=0, atol=2e-6 * np.abs(weights).max())
        assert not np.allclose(np.roll(found, 1), weights, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in ALL if ALL[name].entropy != "none"])
def test_coded_streams_are_found_bit_by_bit(name, tmp_path):
    protected = stored(ALL[name], sparsity=0.5)
    oa.write_image(protected, tmp_path / "cells.npz")
    reader = FarReader(tmp_path / "cells.npz")
    for tensor in protected.tensors:
        coded = tensor.encoded(tensor.scheme)
        assert coded
        for kind, stream in coded:
            digits = stream.digits if isinstance(stream, PatternStream) else stream.digits(0, stream.bits)
            assert np.array_equal(reader.bits[kind, tensor.key], digits)
        if tensor.sign is not None:
            assert np.array_equal(reader.bits["sign", tensor.key], tensor.sign)


def test_a_seed_and_tables_are_found(tmp_path):
    scheme = oa.Scheme.paper("raw", channel=QUIET, estimator="unbiased", mask_seed=7)
    net = model(NET)
    for value in net.graph.initializers.values():
        weight = value.const_value.numpy()
        keep = seeded_mask(7, value.name, weight.size, weight.size // 2).reshape(weight.shape)
        value.const_value = ir.tensor(np.where(keep, weight, 0).astype(np.float32), name=value.name)
    protected = oa.load(oa.protect(net, scheme))
    oa.write_image(protected, tmp_path / "cells.npz")
    reader = FarReader(tmp_path / "cells.npz")
    for tensor in protected.tensors:
        assert numbers(reader.bits["mask seed", tensor.key], ">u4").tolist() == [7, tensor.count]
        bits, written = reader.bits["codebook", tensor.key], tensor.written(scheme)
        assert bits.size == 64 + scheme.table_bits
        assert numbers(bits[:64], ">f4").tolist() == [tensor.alpha[0, 0], tensor.beta[0, 0]]
        table = numbers(bits[64 : 64 + 64 * 16], ">f2").astype(np.float32)
        assert np.array_equal(table, table_of(written, 0).corrections)
        assert numbers(bits[-32:], ">f4")[0] == np.float32(gain_of(written))


def test_devices_of_a_pair_hold_what_their_sign_takes():
    protected = stored(CODED["signs in differential cells"])
    columns = image_of(protected).columns()
    level, polarity = columns["level"].reshape(-1, 2), columns["polarity"].reshape(-1, 2)
    assert set(map(tuple, polarity.tolist())) == {(1, -1)}
    assert (level >= 0).all()
    assert (level.min(axis=1) == 0).all()
    rows = (columns["plane"] == 0).reshape(-1, 2)[:, 0]
    for number, tensor in enumerate(protected.tensors):
        of_tensor = rows & (columns["tensor"].reshape(-1, 2)[:, 0] == number)
        assert np.array_equal(level[of_tensor, 0] - level[of_tensor, 1], tensor.level)
    coarse = oa.Modifiers(write_bits=2).apply(channels.resolve("pcm-drift:differential=true"))
    inputs = image_of(stored(oa.Scheme.paper("raw", channel=coarse))).columns()["input"]
    np.testing.assert_allclose(np.unique(inputs), [0, 1 / 3, 1], rtol=0, atol=1e-6)  # of -1, -1/3, 1/3 and 1


def test_rows_say_what_the_planes_of_the_model_hold():
    protected = stored(FAMILY["redundancy"], sparsity=0.5)
    columns = image_of(protected).columns()
    for number, tensor in enumerate(protected.tensors):
        rows = (columns["tensor"] == number) & (columns["plane"] == 0)
        cells = np.array(tensor.scheme.cells_of_class)[tensor.class_index]
        weights = np.flatnonzero(tensor.decode())
        assert np.array_equal(columns["index"][rows], np.repeat(weights, cells))
        assert np.array_equal(columns["level"][rows], np.repeat(tensor.level, cells))
        assert np.array_equal(columns["replica"][rows], np.concatenate([np.arange(count) for count in cells]))
        assert (columns["symbol"][rows] == -1).all()


def test_symbols_are_equally_spaced_levels_each_in_its_cells():
    protected = stored(FAMILY["analog side"])
    columns = image_of(protected).columns()
    side = columns["plane"] == 1
    low, high = protected.schemes[0].side_channel.span
    expected = low + columns["symbol"][side] / 3 * (high - low)  # of two bits
    np.testing.assert_allclose(columns["level"][side], expected, rtol=0, atol=1e-6)
    assert set(columns["replica"][side]) == set(range(6))  # two cells, three copies


def test_inputs_are_those_of_the_channel_in_both_units():
    pcm = channels.resolve("pcm")
    image = image_of(stored(oa.Scheme.paper("redundancy", channel=pcm)))
    columns = image.columns()
    np.testing.assert_allclose(columns["input"], pcm.inverse.input(columns["level"]), rtol=0, atol=0)
    np.testing.assert_allclose(columns["input_device"], pcm.programmed(columns["level"]), rtol=0, atol=0)
    means = np.interp(columns["input"], pcm.inputs, pcm.means)  # what the input reads on average is the level
    np.testing.assert_allclose(means, columns["level"], rtol=0, atol=1e-6)
    scaled = pcm.output_scale.apply(columns["level_device"])
    np.testing.assert_allclose(scaled, columns["level"], rtol=0, atol=1e-12)


def test_what_a_channel_does_not_know_is_empty(tmp_path):
    image = oa.write_image(stored(FAMILY["raw"]), tmp_path / "cells.npz")
    columns = image.columns()
    assert np.isnan(columns["input_device"]).all()
    assert np.array_equal(columns["input"], columns["level"].astype(np.float64))
    with np.load(tmp_path / "cells.npz") as file:
        assert {json.loads(part)["input_unit"] for part in file["parts"].tolist()} == {None}


def test_an_input_that_cannot_be_written_is_the_nearest():
    pcm = channels.resolve("pcm")
    coarse = oa.Modifiers(write_bits=3)
    columns = image_of(stored(oa.Scheme.paper("raw", channel=coarse.apply(pcm)))).columns()
    assert set(columns["input"]) <= set(np.linspace(pcm.inputs[0], pcm.inputs[-1], 8))
    quiet = image_of(stored(oa.Scheme.paper("raw", channel=coarse.apply(QUIET)))).columns()
    steps = np.linspace(*QUIET.span, 8).astype(np.float32)
    np.testing.assert_allclose(np.unique(quiet["input"]), steps, rtol=0, atol=1e-6)


def test_both_files_hold_the_same(tmp_path):
    protected = stored(FAMILY["three classes"])
    image = oa.write_image(protected, tmp_path / "cells.npz")
    oa.write_image(protected, tmp_path / "cells.csv")
    lines = (tmp_path / "cells.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert lines[:2] == ["# onnx-analog-image/2", f"# image {image.digest}"]
    with np.load(tmp_path / "cells.npz") as file:
        assert str(file["image"]) == image.digest
        keys = [*file["tensors"].tolist(), ""]  # number -1 of streams
        assert [row["tensor"] for row in rows] == [keys[number] for number in file["tensor"]]
        assert [line.removeprefix("# part ") for line in lines if line.startswith("# part ")] == file["parts"].tolist()
        assert [row["plane"] for row in rows] == list(file["planes"][file["plane"]])
        for name in ("address", "index", "replica", "polarity"):
            assert [int(row[name]) for row in rows] == file[name].tolist()
        assert [int(row["symbol"] or -1) for row in rows] == file["symbol"].tolist()
        assert np.array([float(row["level"]) for row in rows], np.float32).tobytes() == file["level"].tobytes()
        assert [float(row["input"]) for row in rows] == file["input"].tolist()


def test_the_digest_tells_models_apart():
    first, again = (image_of(stored(FAMILY["raw"])).digest for _ in range(2))
    assert first == again != image_of(stored(FAMILY["sign"])).digest


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("pcm-drift:fit=hermes-2", "holds a level in 2 devices"),
        ("residual", "follows from reads of the cells before it"),
    ],
)
def test_cells_that_cannot_be_known_are_refused(channel, said):
    modifiers = oa.Modifiers(cells_hold="residual") if channel == "residual" else oa.Modifiers()
    drift = "pcm-drift" if channel == "residual" else channel
    protected = oa.load(oa.protect(model(NET), channel=drift, modifiers=modifiers))
    with pytest.raises(ChannelError, match=said):
        image_of(protected)


def test_wrong_models_and_names_are_refused(tmp_path, monkeypatch):
    protected = stored(FAMILY["raw"])
    with pytest.raises(ModelError, match="read from noisy cells already"):
        oa.write_image(oa.readback(protected), tmp_path / "cells.npz")
    for name in ("cells", "cells.txt", "cells.json"):
        with pytest.raises(OptionError, match=r"must end with \.npz or \.csv"):
            oa.write_image(protected, tmp_path / name)
    monkeypatch.setattr(images, "MOST_CELLS", 100)
    with pytest.raises(ModelError, match=r"the model has 1,152 cells or more, an image at most 100"):
        oa.write_image(protected, tmp_path / "cells.npz")
    assert not list(tmp_path.iterdir())
