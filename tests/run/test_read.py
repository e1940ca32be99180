from concurrent.futures import ThreadPoolExecutor

import pytest

import onnx_analog as oa
from onnx_analog import randomness
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.coding.scheme import STRATEGIES, Scheme
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.graph.weights import find
from onnx_analog.run.data import Dataset
from onnx_analog.run.read import Decoder, Unpacked, read_all
from onnx_analog.run.session import Network
from tests.models import QUIET, ZOO, feeds, made, model, run, same_bits
from tests.run.nets import BATCH_NORM, LINEAR, drawn, protected, weights


@pytest.mark.parametrize("name", ZOO)
def test_a_trial_computes_what_the_model_read_back_computes(name):
    found = protected(made(name))
    network = Network(found)
    session = network.session(weights(network, seed=3, trial=2))
    for given in feeds(made(name)):
        outputs = session.run(None, given)
        for decoded in (False, True):
            assert same_bits(outputs, run(oa.readback(found, seed=3, trial=2, decoded=decoded).model, given))


def test_convolutions_that_onnxruntime_fuses_and_repacks_have_the_weights_of_the_trial():
    found, x = protected(model(BATCH_NORM)), drawn(2, 16, 8, 8)
    network = Network(found)
    for trial in range(2):
        outputs = network.run(Dataset({"x": x}, None), weights(network, seed=0, trial=trial))
        assert same_bits(outputs, run(oa.readback(found, trial=trial, decoded=True).model, {"x": x}))


@pytest.mark.parametrize("sparsity", [0.0, 0.7])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["two scales", "float16", "bfloat16 behind a cast", "double", "if"])
def test_a_trial_has_the_weights_of_the_model_read_back(name, strategy, sparsity):
    found = protected(made(name), strategy=strategy, sparsity=sparsity, side_channel=GaussianNoise(sigma=0.5))
    decoders = [Decoder(tensor) for tensor in stored_tensors(found)]
    for trial in (0, 1, 0):  # buffers are used again
        expected = [w.array() for w in find(oa.readback(found, seed=5, trial=trial, decoded=True).model).weights]
        assert same_bits([decoder.weights(seed=5, trial=trial) for decoder in decoders], expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_channel_that_reads_cell_by_cell_is_read_so(strategy):
    channel = LimitedPrecision(inner=QUIET, read_bits=6)
    found = protected(made("matmul"), strategy=strategy, channel=channel, cells_small=3)
    (tensor,) = stored_tensors(found)
    (expected,) = find(oa.readback(found, trial=1, decoded=True).model).weights
    assert same_bits([Decoder(tensor).weights(seed=0, trial=1)], [expected.array()])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("options", [{}, {"side_channel": QUIET, "side_cells": 100}, {"sparsity": 0.5}])
def test_a_large_tensor_is_read_as_a_small_one(strategy, options, monkeypatch):
    """What is kept for each weight of a small tensor is looked up for a large one."""
    found = protected(model(LINEAR), strategy=strategy, **options)
    (tensor,) = stored_tensors(found)
    small = Decoder(tensor).weights(seed=0, trial=1)
    monkeypatch.setattr("onnx_analog.run.read.LOOKED_UP", 0)
    assert same_bits([Decoder(tensor).weights(seed=0, trial=1)], [small])


def test_the_number_of_threads_changes_no_byte(monkeypatch):
    monkeypatch.setattr(randomness, "BLOCK", 100)
    for options in ({}, {"side_channel": QUIET}, {"sparsity": 0.5}, {"strategy": "raw"}):
        found = protected(model(LINEAR), **options)
        decoders = {name: Decoder(tensor) for name, tensor in Network(found).tensors.items()}
        one = {name: array.copy() for name, array in read_all(decoders, seed=1, trial=2).items()}
        with ThreadPoolExecutor(4) as threads:
            many = read_all(decoders, seed=1, trial=2, threads=threads)
        assert list(one) == list(many)
        assert same_bits(list(one.values()), list(many.values()))


FAMILY = {
    "int8": Scheme.int8(),
    "int4 for each channel": Scheme.int4(granularity="channel"),
    "four classes, one without cells": Scheme(channel=QUIET, classes=4, partition="lloyd", cells=(0, 1, 2, 3)),
    "five classes, two without cells, for each channel": Scheme(
        channel=QUIET, classes=5, partition="uniform", cells=(0, 1, 2, 1, 0), sign="level", granularity="channel"
    ),
    "bounds": Scheme(channel=QUIET, classes=3, partition="bounds", bounds=(-0.1, 0.1), sign="level", cells=(1, 0, 1)),
    "side channel": Scheme(
        channel=QUIET, classes=4, partition="lloyd", cells=(2,), side_channel=GaussianNoise(sigma=0.5)
    ),
    "int4 with a side channel": Scheme.int4(side_channel=GaussianNoise(sigma=0.5)),
    "130 classes": Scheme(channel=QUIET, classes=130, partition="uniform", cells=(1,)),
}


@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.7])
@pytest.mark.parametrize("name", FAMILY)
def test_every_member_of_the_family_has_the_weights_of_the_model_read_back(name, sparsity, looked_up, monkeypatch):
    if looked_up:
        monkeypatch.setattr("onnx_analog.run.read.LOOKED_UP", 0)
    found = oa.protect(made("two scales"), FAMILY[name], sparsity=sparsity).model
    decoders = [Decoder(tensor) for tensor in stored_tensors(found)]
    for trial in (0, 1, 0):  # buffers are used again
        expected = [w.array() for w in find(oa.readback(found, seed=5, trial=trial, decoded=True).model).weights]
        assert same_bits([decoder.weights(seed=5, trial=trial) for decoder in decoders], expected)


def test_decoders_of_one_tensor_share_what_no_scheme_changes():
    """Each is right whatever the others read before it, though they write into one buffer."""
    plain, first = model(LINEAR), Scheme(channel=QUIET, cells=(1, 2))
    schemes = [first, first.changed(cells=(3,)), first.changed(side_channel=GaussianNoise(sigma=0.5)), first]
    (tensor,) = stored_tensors(oa.protect(plain, first).model)
    unpacked = Unpacked(tensor)
    decoders = [Decoder(unpacked, scheme) for scheme in schemes]
    for number in (0, 2, 1, 2, 0, 3, 1):
        (alone,) = stored_tensors(oa.protect(plain, schemes[number]).model)
        expected = Decoder(alone).weights(seed=1, trial=number)
        assert same_bits([decoders[number].weights(seed=1, trial=number)], [expected])
