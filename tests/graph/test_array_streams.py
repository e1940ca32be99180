"""Digital streams of an array: errors that a code corrects leave no trace, others lose what a trial says."""

from __future__ import annotations

import math

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.coding.failures import Run, most_frequent
from onnx_analog.coding.side import SideInformation
from onnx_analog.errors import DataError
from onnx_analog.graph.array_streams import _decided
from onnx_analog.graph.image import image_of
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.reader import lost_with, read_side
from tests.models import QUIET, model

NET = """
    net (float[n, 60] x) => (float[n, 60] y) <float[60, 60] a = random, float[60, 60] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
TWO = channels.resolve("gaussian:sigma=0.3")  # two symbols to a cell, so that a wrong cell is one wrong bit


def stored(scheme: oa.Scheme, **settings):
    return oa.load(oa.protect(model(NET), scheme, **settings))


def paper(strategy: str = "redundancy", **settings) -> oa.Scheme:
    return oa.Scheme.paper(strategy, **{"channel": TWO, "block_bits": 512, "block_failure": 1e-6, **settings})


class Cells:
    """Reads of an array, some of which are set to another symbol's level."""

    def __init__(self, protected) -> None:
        self.protected, self.image = protected, image_of(protected)
        columns = self.image.columns()
        self.address, self.value = columns["address"], columns["level"].astype(np.float64)

    def part(self, name: str):
        (plane,) = [plane for plane in self.image.planes if plane.name == name]
        return plane

    def wrong(self, name: str, bits) -> Cells:
        """Let stored bits of a stream, data or parity, be read wrongly."""
        plane = self.part(name)
        copies = plane.stream.kind.code.copies
        assert (plane.stream.cells.packing.bits, plane.stream.cells.packing.cells) == (1, 1)
        low, high = plane.stream.cells.symbols.levels.astype(np.float64)
        for bit in np.atleast_1d(bits):
            cells = slice(plane.first + bit * copies, plane.first + (bit + 1) * copies)
            self.value[cells] = low + high - self.value[cells]
        return self

    def read(self, kept=None, missing="refuse", **columns):
        rows = {"address": self.address, "value": self.value, **columns}
        rows = rows if kept is None else {name: column[kept] for name, column in rows.items()}
        return oa.readback(self.protected, measured=rows, unit="scaled", missing=missing)

    def without(self, name: str, bits) -> np.ndarray:
        """Return which rows are left without those of stored bits."""
        plane, kept = self.part(name), np.ones(self.address.size, bool)
        copies = plane.stream.kind.code.copies
        for copy in range(copies):
            kept[plane.first + np.atleast_1d(bits) * copies + copy] = False
        return kept


def counts(read) -> dict[str, int]:
    return {each.what: each.count for each in read.array.irregularities if each.count}


def sides(read):
    """Return signs and classes of each tensor."""
    return [(tensor.sign, tensor.class_index) for tensor in open_protected(read.model).tensors]


def unchanged(read, protected) -> bool:
    return all(
        np.array_equal(sign, tensor.sign) and np.array_equal(index, tensor.class_index)
        for (sign, index), tensor in zip(sides(read), protected.tensors, strict=True)
    )


@pytest.mark.parametrize("name", ["sign", "class", "mask", "codebook"])
def test_as_many_errors_as_a_block_corrects_leave_no_trace(name):
    protected = stored(paper(), sparsity=0.5)
    cells = Cells(protected)
    block = cells.part(name).stream.kind.code.block
    last = cells.part(name).stream.cells.stored - 1
    places = np.unique(np.append(np.arange(block.corrects) * 2, last)[-block.corrects :])  # of the first and last block
    read = cells.wrong(name, places).read()
    assert unchanged(read, protected)
    assert counts(read)["bits that codes corrected"] == places.size
    assert counts(read)["symbols that are read wrongly"] == places.size
    assert "blocks that codes could not correct" not in counts(read)
    assert [(each.misread, each.failed) for each in read.array.streams if each.name == name] == [(places.size, 0)]


def test_signs_of_a_block_that_fails_stay_as_they_were_read():
    protected = stored(paper())
    cells = Cells(protected)
    block = cells.part("sign").stream.kind.code.block
    places = np.arange(block.corrects + 1)  # data of the first block, of the first tensor
    read = cells.wrong("sign", places + block.length).read()  # of the second block
    (sign, index), (other, _) = sides(read)
    first, second = protected.tensors
    expected = first.sign.copy()
    expected[block.data + places] ^= True
    assert np.array_equal(sign, expected)
    assert np.array_equal(other, second.sign)
    assert np.array_equal(index, first.class_index)
    found = counts(read)
    assert found["blocks that codes could not correct"] == 1
    assert found["bits of signs and classes that are wrong"] == places.size


def lost_signs(protected, lost: dict[str, dict[str, list[Run]]]):
    """Return signs and classes that a trial reads with these runs of each tensor lost."""
    result = []
    for tensor in protected.tensors:
        gone = np.zeros(tensor.count, bool)
        for weights in lost_with(tensor, tensor.scheme, lost.get(tensor.key, {})).values():
            gone |= weights
        sign, index = (None if tensor.sign is None else tensor.sign & ~gone), tensor.class_index
        if index is not None:
            frequent = most_frequent(tensor.class_counts, tensor.scheme.cells_of_class)[index]
            index = np.where(gone, frequent, index)
        result.append((sign, index))
    return result


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("mask", paper()),
        ("mask", paper("sign", entropy="static", segment_weights=500)),
        ("class", paper("redundancy", entropy="static", segment_weights=500, large_fraction=0.3)),
        ("mask and class", oa.Scheme.entropy_coded(0.5, channel=TWO, block_bits=512, segment_weights=500)),
    ],
)
def test_other_streams_lose_what_a_trial_loses(name, scheme):
    protected = stored(scheme, sparsity=0.0 if name == "class" else 0.5)
    cells = Cells(protected)
    plane = cells.part(name)
    block, shares = plane.stream.kind.code.block, plane.stream.shares
    number = shares[0].end // block.data  # the block in which the bits of the second tensor begin
    assert number * block.data < shares[1].first < (number + 1) * block.data
    read = cells.wrong(name, number * block.length + np.arange(block.corrects + 1)).read()
    start, end = number * block.data, (number + 1) * block.data
    lost = {
        shares[0].key: {name: [Run(start, shares[0].end - start)]},
        shares[1].key: {name: [Run(0, min(end, shares[1].end) - shares[1].first)]},
    }
    for (sign, index), (expected, classes) in zip(sides(read), lost_signs(protected, lost), strict=True):
        assert np.array_equal(sign, expected)
        assert np.array_equal(index, classes)
    assert not unchanged(read, protected)
    assert counts(read)["blocks that codes could not correct"] == 1
    assert counts(read)["weights whose sign and class are lost with a block"] > 0


@pytest.mark.parametrize("granularity", ["tensor", "model"])
def test_a_codebook_that_fails_loses_the_tensors_that_need_it(granularity):
    scheme = paper("mapping", granularity=granularity)
    plan = oa.Plan(default=scheme, tensors={} if granularity == "model" else {"b": scheme.changed(block_bits=256)})
    protected = oa.load(oa.protect(model(NET), plan))
    cells = Cells(protected)
    plane = next(plane for plane in cells.image.planes if plane.name == "codebook")
    cells.value[plane.first : plane.first + plane.stream.kind.code.block.corrects + 1] *= -1
    cells.value[plane.first : plane.end] = np.clip(cells.value[plane.first : plane.end], *np.float64(TWO.span))
    read = cells.read()
    gone = [not sign.any() and len(set(index.tolist())) == 1 for sign, index in sides(read)]
    assert gone == [True, granularity == "model"]


def test_without_a_code_wrong_bits_are_read_as_often_as_in_trials():
    """Signs and classes are two symbols to a cell; a wrong bit of the other streams would lose the tensor."""
    protected = stored(paper("mapping", code="none", large_fraction=0.3))
    cells, rng = Cells(protected), np.random.default_rng(3)
    digital = np.concatenate([np.full(plane.size, plane.name in ("sign", "class")) for plane in cells.image.planes])
    cells.value[digital] += 0.3 * rng.normal(size=digital.sum())
    measured = cells.read()
    trial = [read_side(tensor, seed=5, trial=0) for tensor in protected.tensors]
    wrong = []
    for found in (sides(measured), trial):
        pairs = zip(found, protected.tensors, strict=True)
        wrong.append(sum((sign != t.sign).sum() + (index != t.class_index).sum() for (sign, index), t in pairs))
    bits = 2 * 7200
    share = cells.part("sign").stream.kind.code.bit_error
    for count in wrong:
        assert abs(count - bits * share) < 4 * math.sqrt(bits * share * (1 - share))
    assert counts(measured)["bits of signs and classes that are wrong"] == wrong[0] > 20


def test_blocks_fail_as_often_as_in_trials():
    """Each block of independent cells has binomially many errors, and more than it corrects as often as is stated."""
    scheme = paper("raw", block_bits=32, block_failure=0.3)
    protected = stored(scheme.changed(sign="bit"))
    cells, rng = Cells(protected), np.random.default_rng(4)
    plane = cells.part("sign")
    block, total, failed = plane.stream.kind.code.block, 0, 0
    held = cells.value.copy()
    for _ in range(5):
        cells.value = held.copy()
        cells.value[plane.first : plane.end] += 0.3 * rng.normal(size=plane.size)
        (read,) = [each for each in cells.read().array.streams if each.name == "sign"]
        total, failed = total + read.blocks, failed + read.failed
    assert total == 5 * 7200 / 32
    assert 0.05 < block.failure <= 0.3
    assert abs(failed - total * block.failure) < 4 * math.sqrt(total * block.failure * (1 - block.failure))


def test_bits_of_one_cell_are_of_different_blocks():
    """So a cell that is read as any other symbol adds an error at most to a block, and to several blocks."""
    protected = stored(paper("mapping", channel="rram-milo", block_bits=512))
    cells = Cells(protected)
    plane = cells.part("sign")
    how, block = plane.stream.cells, plane.stream.kind.code.block
    assert how.packing.bits == 3
    sizes = set()
    for other in range(8):
        symbols = plane.symbol.copy()
        symbols[5] = other
        places = np.flatnonzero(how.stored_bits(symbols) ^ how.stored_bits(plane.symbol))
        assert len(set((places // block.length).tolist())) == places.size
        sizes.add(places.size)
    assert sizes == {0, 1, 2, 3}


# ------------------------------------------------------------------------------------------------- irregular reads


def test_cells_without_a_read_are_corrected_or_said():
    protected = stored(paper())
    cells = Cells(protected)
    block = cells.part("sign").stream.kind.code.block
    few = cells.read(cells.without("sign", np.arange(block.corrects)))
    assert unchanged(few, protected)
    assert counts(few)["symbols without a read"] == block.corrects
    most = cells.without("sign", np.arange(block.length))  # of all of them, half would be wrong
    with pytest.raises(DataError, match=r"1 block of \d+ cannot be decoded because of cells without a read"):
        cells.read(most)
    zero = cells.read(most, missing="zero")
    assert counts(zero)["blocks that decode to other data without notice"] == 1  # zeros are a word of any code
    assert unchanged(cells.read(most, missing="written"), protected)


def test_blocks_that_fail_by_wrong_reads_are_not_blamed_on_cells_without_a_read(caplog):
    """What has too many wrong reads is lost in any case; a warning says why, and how much."""
    protected = stored(paper(code="bch"), sparsity=0.5)
    cells = Cells(protected)
    block = cells.part("mask").stream.kind.code.block
    cells.wrong("mask", np.arange(block.corrects + 1))
    kept = cells.without("mask", [block.corrects + 5])
    read = cells.read(kept)
    number = counts(read)["weights whose sign and class are lost with a block"]
    (warned,) = [record.getMessage() for record in caplog.records if "cannot be decoded" in record.getMessage()]
    assert "1 block of " in warned
    assert f"{block.corrects + 1} of " in warned
    assert ", and 1 of " in warned
    assert f"{number:,} of " in warned
    assert number
    few = Cells(protected).wrong("mask", np.arange(block.corrects))  # all that it corrects: one cell more decides
    ones = np.flatnonzero(few.part("mask").symbol[block.corrects : block.length])  # which count as 0 without a read
    with pytest.raises(DataError, match=r"1 block of .* cannot be decoded because of cells without a read"):
        few.read(few.without("mask", [block.corrects + ones[0]]))


def test_signs_without_a_code_and_without_a_read_are_refused_or_as_written():
    protected = stored(paper("mapping", code="none"))
    cells = Cells(protected)
    gone = cells.without("sign", [3])
    for missing in ("refuse", "zero"):
        with pytest.raises(DataError, match=r"1 symbol of 14,400 that no code protects has no read"):
            cells.read(gone, missing=missing)
    assert unchanged(cells.read(gone, missing="written"), protected)


def test_bits_in_several_cells_need_one_read_only():
    protected = stored(paper("mapping", code="none"), sparsity=0.5)
    cells = Cells(protected)
    plane = cells.part("mask")
    assert plane.stream.kind.code.copies > 2
    kept = np.ones(cells.address.size, bool)
    kept[plane.first : plane.end] = np.arange(plane.size) % plane.stream.kind.code.copies == 1
    assert unchanged(cells.read(kept), protected)
    lost = Cells(protected).wrong("mask", 10).read()
    expected = lost_signs(protected, {"a": {"mask": [Run(10, 1)]}})
    for (sign, index), (signs, classes) in zip(sides(lost), expected, strict=True):
        assert np.array_equal(sign, signs)
        assert np.array_equal(index, classes)
    assert counts(lost)["bits of other streams without a code that are wrong"] == 1
    blank = cells.without("mask", [10])
    with pytest.raises(DataError, match="cells without a read"):
        cells.read(blank)


def test_stuck_repeated_averaged_and_disordered_cells_are_treated_as_those_of_levels():
    protected = stored(paper())
    cells, rng = Cells(protected), np.random.default_rng(0)
    plane = cells.part("sign")
    stuck = np.zeros(cells.address.size, int)
    stuck[plane.first : plane.first + 3] = 1
    broken = cells.value.copy()
    broken[stuck == 1] = 9.0
    order = rng.permutation(cells.address.size)
    read = oa.readback(
        protected,
        measured={"address": cells.address[order], "value": broken[order], "stuck": stuck[order]},
        unit="scaled",
    )
    assert unchanged(read, protected)
    assert counts(read)["symbols without a read"] == 3
    # The mean of two reads is what counts: one of them alone would be another symbol.
    value = np.stack([cells.value, cells.value], axis=1)
    value[plane.first : plane.end] += np.array([1.5, -1.5])
    twice = oa.readback(protected, measured={"address": cells.address, "value": value}, unit="scaled")
    assert unchanged(twice, protected)
    assert "symbols that are read wrongly" not in counts(twice)
    weighed = np.stack([value[:, 0], value[:, 1]], axis=1).reshape(-1)
    uneven = {"address": np.repeat(cells.address, 2), "value": weighed, "count": np.tile([9, 1], cells.address.size)}
    wrong = oa.readback(protected, measured=uneven, unit="scaled")
    assert counts(wrong)["symbols that are read wrongly"] > 1000


def test_the_reads_of_one_time_decide_digital_cells_too():
    protected = stored(paper())
    cells = Cells(protected)
    plane = cells.part("sign")
    late = cells.value.copy()
    late[plane.first : plane.end] = TWO.span[0]  # all have become the lowest symbol
    rows = {
        "address": np.tile(cells.address, 2),
        "value": np.concatenate([cells.value, late]),
        "time_s": np.repeat([1.0, 3600.0], cells.address.size),
    }
    early = oa.readback(protected, measured=rows, unit="scaled", time_s=1)
    assert unchanged(early, protected)
    # All zeros is a word of any code: nothing is noticed but by who knows what was written.
    read = oa.readback(protected, measured=rows, unit="scaled", time_s=3600)
    assert not any(sign.any() for sign, _ in sides(read))
    assert counts(read)["blocks that decode to other data without notice"] > 10


def test_blocks_of_an_array_are_calibrated_before_symbols_are_decided():
    protected = stored(paper())
    cells = Cells(protected)
    block = (np.arange(cells.address.size) >= cells.part("sign").first).astype(int)
    gain, offset = np.array([1.0, 0.4])[block], np.array([0.0, 0.9])[block]  # all symbols above the threshold
    known, of_block = np.tile([-0.5, 0.5], 2), np.repeat([0, 1], 2)
    rows = {
        "address": np.append(cells.address, np.zeros(4, int)),
        "value": np.append(gain * cells.value + offset, np.array([1.0, 0.4])[of_block] * known + [0, 0, 0.9, 0.9]),
        "block": np.append(block, of_block),
    }
    reference = np.append(np.full(cells.address.size, np.nan), known)
    read = oa.readback(protected, measured={**rows, "reference": reference}, unit="scaled")
    assert unchanged(read, protected)
    plain = {name: column[:-4] for name, column in rows.items()}
    assert not unchanged(oa.readback(protected, measured=plain, unit="scaled"), protected)


def test_a_pair_reads_what_its_devices_differ_by():
    pair = channels.resolve("pcm-drift:differential=true")
    protected = stored(oa.Scheme.paper("raw", channel=pair))
    cells = Cells(protected)
    cells.value += 0.125  # of both devices: nothing is left of it
    read = cells.read()
    tensor = protected.tensors[0]
    np.testing.assert_allclose(read.array.tensors["a"].raw, tensor.level, rtol=0, atol=1e-6)
    kept = np.ones(cells.address.size, bool)
    kept[1] = False  # the second device of the first weight
    with pytest.raises(DataError, match=r"1 weight of 7,200 has no read"):
        cells.read(kept)


def test_copies_that_disagree_are_decided_by_their_mean():
    """Of three copies, one has no read: the others say 0 and 1, and the one that is surer decides."""
    side = SideInformation(channel=channels.resolve("gaussian:sigma=0.1"), bits_per_cell=1, cells=1, copies=3)
    low, high = side.levels
    middle = (low + high) / 2
    reads = np.array([[[low], [middle + 0.01], [np.nan]], [[high], [middle - 0.01], [np.nan]], [[np.nan]] * 3])
    bits, unread = _decided(reads, side)
    assert bits[:2, 0].tolist() == [False, True]
    assert unread.tolist() == [False, False, True]


def test_levels_of_a_measured_stream_are_those_of_the_model(tmp_path):
    """A model whose digital cells were read is still a protected model: it is saved, loaded and decoded."""
    protected = stored(paper(channel=QUIET))
    cells = Cells(protected)
    block = cells.part("sign").stream.kind.code.block
    plane = cells.part("sign")
    symbols = plane.symbol[: block.length]
    cells.value[plane.first : plane.first + symbols.size] = plane.stream.cells.symbols.levels[3 - symbols]
    read = cells.read()
    read.save(tmp_path / "m.onnx")
    assert counts(read)["blocks that codes could not correct"] > 0
    assert oa.inspect(tmp_path / "m.onnx").read_back.endswith("reads of an array")
