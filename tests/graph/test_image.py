"""The image of an array: which cell is to hold what."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.coding.masks import PatternStream
from onnx_analog.errors import ChannelError, ModelError, OptionError
from onnx_analog.graph import image as images
from onnx_analog.graph.image import image_of
from tests.models import FAMILY, QUIET, model

NET = """
    net (float[n, 24] x) => (float[n, 24] y) <float[24, 24] a = random, float[24, 24] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""


def stored(scheme: oa.Scheme, **settings):
    return oa.load(oa.protect(model(NET), scheme, **settings))


CODED = {
    "entropy-coded": oa.Scheme.entropy_coded(0.5, channel=QUIET),
    "refined": oa.Scheme.refined(0.5, channel=QUIET),
    "coded classes": oa.Scheme.paper("redundancy", channel=QUIET, large_fraction=0.3, entropy="static"),
    "coded mask": oa.Scheme.paper("sign", channel=QUIET, entropy="context"),
}


@pytest.mark.parametrize("name", [*FAMILY, *CODED])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_each_cell_of_the_manifest_has_one_row(name, sparsity):
    protected = stored({**FAMILY, **CODED}[name], sparsity=sparsity)
    image = image_of(protected)
    columns = image.columns()
    assert len({len(column) for column in columns.values()}) == 1
    there = ("level", "side", "mask") if name in CODED else ("level", "side")
    ranges = [entry.cells[plane] for entry in protected.manifest.tensors for plane in there]
    assert np.array_equal(columns["address"], np.concatenate([np.arange(*ends) for ends in ranges]))
    counted = sum(entry.cells_for(plane) for entry in protected.manifest.tensors for plane in ("mask", "codebook"))
    counted -= int((columns["plane"] == 2).sum())
    assert sum(image.absent.values()) == counted
    assert image.total == image.cells + counted


@pytest.mark.parametrize("name", CODED)
def test_coded_streams_are_decoded_from_their_symbols(name):
    protected = stored(CODED[name], sparsity=0.5)
    columns = image_of(protected).columns()
    for number, tensor in enumerate(protected.tensors):
        gray = columns["symbol"] ^ (columns["symbol"] >> 1)
        bits = {
            plane: (gray[(columns["tensor"] == number) & (columns["plane"] == plane), None] >> [1, 0] & 1).reshape(-1)
            for plane in (1, 2)
        }
        start = {1: 0 if tensor.sign is None else tensor.count, 2: 0}
        if tensor.sign is not None:
            assert np.array_equal(bits[1][: start[1]], tensor.sign)
        for kind, coded in tensor.encoded(tensor.scheme):
            plane = 2 if kind == "mask" else 1
            digits = coded.digits if isinstance(coded, PatternStream) else coded.digits(0, coded.bits)
            assert np.array_equal(bits[plane][start[plane] : start[plane] + coded.bits], digits)
            start[plane] += coded.bits
        assert all(0 <= bits[plane].size - start[plane] < 2 for plane in (1, 2))  # two bits in a symbol


def test_a_mask_that_is_not_coded_is_counted_and_not_in_the_image():
    scheme = oa.Scheme.paper("raw", channel=QUIET)
    assert image_of(stored(scheme, sparsity=0.5)).absent["mask"] > 0


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
        side = (columns["tensor"] == number) & (columns["plane"] == 1)
        gray = columns["symbol"][side] ^ (columns["symbol"][side] >> 1)  # two bits: the sign, then the class
        assert np.array_equal(gray >> 1, tensor.sign)
        assert np.array_equal(gray & 1, tensor.class_index)


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
        assert set(file["input_unit"].reshape(-1)) == {""}


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
    assert lines[:2] == ["# onnx-analog-image/1", f"# image {image.digest}"]
    with np.load(tmp_path / "cells.npz") as file:
        assert str(file["image"]) == image.digest
        assert [row["tensor"] for row in rows] == list(file["tensors"][file["tensor"]])
        assert [row["plane"] for row in rows] == list(file["planes"][file["plane"]])
        for name in ("address", "index", "replica"):
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
        ("pcm-drift:differential=true", "holds a level in 2 devices"),
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
    with pytest.raises(ModelError, match=r"the model has 1,152 cells, and an image at most 100"):
        oa.write_image(protected, tmp_path / "cells.npz")
    assert not list(tmp_path.iterdir())
