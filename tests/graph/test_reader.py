"""Signs and classes as they are read with the failures of their codes: the same wherever a model is read."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.failures import Run
from onnx_analog.coding.masks import seeded_mask
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.reader import read_side
from onnx_analog.graph.stored import READ_DIGESTS_KEY, stored_tensors
from onnx_analog.passes import DecodePass, ReadbackPass
from onnx_analog.run.read import Decoder
from tests.models import f32, holding

NOISY = GaussianNoise(sigma=0.25, low=-1, high=1)
WEIGHT = f32(np.random.default_rng(0).normal(size=(40, 30)))
PRUNED = np.where(np.abs(WEIGHT) > 0.7, WEIGHT, 0).astype(np.float32)
OFTEN: dict[str, Any] = {"channel": NOISY, "block_bits": 64, "block_failure": 0.05, "segment_weights": 100}
STEPS: dict[str, Any] = {"sign": "level", "classes": 9, "partition": "uniform", "relative_step": 0.7}
SCHEMES = {
    "redundancy": Scheme(**OFTEN),
    "redundancy without a code": Scheme(**OFTEN, code="none"),
    "integers without a code": Scheme.int4(**OFTEN, code="none"),
    "entropy-coded": Scheme(**OFTEN, **STEPS, cells=(0,), entropy="static"),
    "refined": Scheme(**OFTEN, **STEPS, cells=(1,), entropy="context", estimator="unbiased"),
    "some without cells": Scheme(**OFTEN, classes=4, partition="lloyd", cells=(0, 1, 2, 3), entropy="context"),
    "repeated": Scheme(**OFTEN, **STEPS, cells=(1,), entropy="static", code="none"),
    "a seed that the mask does not follow from": Scheme(**OFTEN, **STEPS, cells=(1,), entropy="static", mask_seed=1),
    "output channels": Scheme(**OFTEN, classes=3, partition="lloyd", cells=(1,), granularity="channel"),
}
TRIALS = range(12)


def tensor_of(scheme, weight=PRUNED):
    (tensor,) = stored_tensors(oa.protect(holding(w=weight), scheme).model)
    return tensor


@pytest.mark.parametrize("name", SCHEMES)
def test_a_trial_is_the_same_wherever_it_is_read(name, monkeypatch):
    """By ReadbackPass, ProtectedModel.read and evaluate's Decoder, one trial after the other, failures among them."""
    monkeypatch.setattr("onnx_analog.randomness.BLOCK", 500)
    protected = oa.protect(holding(w=PRUNED), SCHEMES[name]).model
    decoder, opened, failed = Decoder(stored_tensors(protected)[0]), open_protected(protected), 0
    for trial in TRIALS:
        read = ReadbackPass(seed=1, trial=trial)(protected).model
        (tensor,) = stored_tensors(read)
        expected = tensor.decode()
        failed += any(f'"{plane}"' in read.metadata_props[READ_DIGESTS_KEY] for plane in ("sign", "class"))
        assert np.array_equal(opened.read(seed=1, trial=trial)["w"], expected)
        assert np.array_equal(decoder.weights(seed=1, trial=trial), expected)
        assert open_protected(read).read_mark is not None
        assert np.array_equal(DecodePass()(read).model.graph.initializers["w"].const_value.numpy(), expected)
    assert failed > 0


def test_without_failures_the_very_planes_are_read():
    tensor = tensor_of(Scheme(channel=NOISY))
    for trial in TRIALS:
        sign, index = read_side(tensor, seed=0, trial=trial)
        assert sign is tensor.sign
        assert index is tensor.class_index


def test_signs_and_classes_without_a_code_are_wrong_at_their_error_rate():
    tensor = tensor_of(SCHEMES["redundancy without a code"].changed(block_failure=1e-12), WEIGHT)  # of the codebook
    error, wrong = best_code(NOISY, "none").bit_error, np.zeros(2, int)
    for trial in range(200):
        sign, index = read_side(tensor, seed=0, trial=trial)
        wrong += [np.count_nonzero(sign != tensor.sign), np.count_nonzero(index != tensor.class_index)]
    expected = 200 * WEIGHT.size * error
    assert (abs(wrong - expected) < 5 * np.sqrt(expected)).all()


@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
@pytest.mark.parametrize("entropy", ["static", "context"])
def test_a_failed_block_loses_the_rest_of_its_segment_and_no_more(weight, entropy):
    """What is lost is read as of the most frequent class, so it shows where another class was written."""
    scheme = SCHEMES["entropy-coded"].changed(entropy=entropy, block_failure=0.02)
    tensor = tensor_of(scheme, weight)
    often = int(tensor.class_counts.argmax())
    positions = np.arange(weight.size) if tensor.mask is None else np.flatnonzero(tensor.mask)
    joint = any(stream.name == "mask and class" for stream in tensor.streams(0))
    segments = (positions if joint else np.arange(positions.size)) // 100
    seen = 0
    for trial in range(60):
        _, index = read_side(tensor, seed=2, trial=trial)
        if index is tensor.class_index or (index == often).all():
            continue  # nothing failed, or the codebook did
        seen += 1
        wrong = np.flatnonzero(index != tensor.class_index)
        assert (index[wrong] == often).all()
        if weight is WEIGHT or joint:
            for segment in np.unique(segments[wrong]):
                first = wrong[segments[wrong] == segment][0]
                rest = (np.arange(index.size) >= first) & (segments == segment)
                assert (index[rest] == often).all()
    assert seen


def test_a_failed_mask_loses_all_weights_after_it():
    scheme = Scheme(channel=NOISY, block_bits=64, block_failure=0.02, classes=3, partition="lloyd", cells=(1,))
    tensor = tensor_of(scheme)
    often, seen = int(tensor.class_counts.argmax()), 0
    for trial in range(200):
        _, index = read_side(tensor, seed=3, trial=trial)
        wrong = np.flatnonzero(index != tensor.class_index)
        if wrong.size and (index[wrong[0] :] == often).all():
            seen += 1
    assert seen


def test_a_class_that_cannot_be_is_the_last_one():
    tensor = tensor_of(Scheme(channel=NOISY, code="none", classes=3, partition="lloyd", cells=(1,)), WEIGHT)
    for trial in TRIALS:
        _, index = read_side(tensor, seed=0, trial=trial)
        assert index.max() == 2


@pytest.mark.parametrize("segment", [16, 100, 5000])
def test_blocks_are_estimated_for_the_whole_stream(segment, monkeypatch):
    """A block beyond the estimate would never fail."""
    drawn = {}

    def watched(scheme, name, bits, rng, *, entropy_coded):
        drawn[name] = bits
        return []

    monkeypatch.setattr("onnx_analog.graph.reader.failed_runs", watched)
    tensor = tensor_of(SCHEMES["entropy-coded"].changed(segment_weights=segment), WEIGHT)
    read_side(tensor, seed=0, trial=0)
    real = {each.name: each.bits for each in tensor.streams(0)}
    assert drawn["class"] >= 0.97 * real["class"]


def test_without_its_codebook_signs_and_classes_of_a_tensor_are_lost(monkeypatch):
    def failing(scheme, name, bits, rng, *, entropy_coded):
        assert bits > 0 or name == "mask"
        return [Run(0, 1)] if name == "codebook" else []

    monkeypatch.setattr("onnx_analog.graph.reader.failed_runs", failing)
    tensor = tensor_of(Scheme(channel=NOISY), WEIGHT)
    sign, index = read_side(tensor, seed=0, trial=0)
    assert not sign.any()
    assert (index == tensor.class_counts.argmax()).all()
    alone, none = read_side(tensor_of(Scheme.paper("sign", channel=NOISY), WEIGHT), seed=0, trial=0)
    assert not alone.any()
    assert none is None


def test_other_classes_are_other_streams():
    protected = oa.protect(holding(w=WEIGHT), SCHEMES["entropy-coded"]).model
    (tensor,) = stored_tensors(protected)
    before = tensor.streams(0)
    tensor.replace_side(None, np.zeros_like(tensor.class_index))
    assert {each.name: each.bits for each in tensor.streams(0)}["class"] < {e.name: e.bits for e in before}[
        "class"
    ] / 10


SEEDED = np.where(seeded_mask(7, "w", WEIGHT.size, 120).reshape(WEIGHT.shape), WEIGHT, 0).astype(np.float32)


@pytest.mark.parametrize("entropy", ["none", "static"])
def test_a_block_of_a_seed_that_fails_loses_the_tensor(entropy, monkeypatch):
    scheme = Scheme(**OFTEN, classes=2, cells=(1,), entropy=entropy, mask_seed=7)
    tensor = tensor_of(scheme, SEEDED)
    assert tensor.is_seeded(scheme)
    asked = {}

    def failing(_, name, bits, rng, *, entropy_coded):
        asked[name] = bits
        return [Run(0, 64)] if name == "codebook" else []

    monkeypatch.setattr("onnx_analog.graph.reader.failed_runs", failing)
    monkeypatch.setattr("onnx_analog.graph.reader.wrong_bits", lambda *_: np.zeros(0, np.int64))
    sign, index = read_side(tensor, seed=0, trial=0)
    assert not sign.any()
    assert len(set(index.tolist())) == 1
    assert asked["codebook"] == 4 * 32 + 64
    assert asked.get("mask", 0) == 0


def test_a_failed_block_of_classes_loses_those_after_it_where_the_mask_follows_from_a_seed(monkeypatch):
    scheme = Scheme(**OFTEN, classes=2, cells=(1,), entropy="static", mask_seed=7)
    tensor = tensor_of(scheme, SEEDED)
    (named,) = tensor.encoded(scheme)
    assert (named.name, named.stream.count) == ("class", 120)
    start = int(named.stream.header.starts[1])  # of the second segment, of 20 classes
    runs = [Run(start, 64)]
    monkeypatch.setattr("onnx_analog.graph.reader.failed_runs",
                        lambda _, name, *__, **___: runs if name == "class" else [])  # fmt: skip
    monkeypatch.setattr("onnx_analog.graph.reader.wrong_bits", lambda *_: np.zeros(0, np.int64))
    sign, _ = read_side(tensor, seed=0, trial=0)
    np.testing.assert_array_equal(sign[:100], tensor.sign[:100])
    assert not sign[100:].any()


def test_a_wrong_class_moves_no_cells():
    """Where only one of two classes has cells, a weight that is read of the other kind is lost, and no cell moves."""
    scheme = Scheme(channel=NOISY, classes=2, cells=(0, 2), shares=(0.4,), block_bits=64, block_failure=0.3)
    protected, wrong = oa.protect(holding(w=WEIGHT), scheme).model, 0
    for trial in range(20):
        read = ReadbackPass(seed=1, trial=trial)(protected).model
        (tensor,) = stored_tensors(read)
        wrong += '"class"' in read.metadata_props[READ_DIGESTS_KEY]
        assert np.array_equal(open_protected(protected).read(seed=1, trial=trial)["w"], tensor.decode())
        onnxruntime.InferenceSession(ir.to_proto(read).SerializeToString())
        assert open_protected(read).read_mark is not None
    assert wrong > 0
