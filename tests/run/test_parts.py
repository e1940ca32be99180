"""Parts of a memory that are read with noise alone, held to reads of the whole memory."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.errors import ModelError
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.parts import Part
from tests.models import model
from tests.run.nets import rows

TIED = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        g = Relu(h)
        k = MatMul(g, a)
        y = MatMul(k, b)
    }"""
PAPER = oa.Scheme.paper("redundancy", channel="gaussian:sigma=0.05", code="none")
MANY = oa.Scheme(classes=3, shares=(0.3, 0.1), cells=(1, 2, 3), channel="gaussian:sigma=0.05", code="none")
SIDE = MANY.changed(channel="gaussian:sigma=0.5")  # whose bits are often read wrongly
DIGITAL = oa.Scheme.entropy_coded(0.5, channel="pcm")


@pytest.fixture(scope="module")
def experiment():
    return Experiment(model(TIED), rows(60))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("scheme", [PAPER, MANY, SIDE, DIGITAL])
@pytest.mark.parametrize("trial", [0, 3])
def test_all_parts_at_once_are_a_read_of_the_memory(experiment, scheme, trial):
    parts, trials = experiment.parts(scheme), experiment.trials(scheme)
    read = parts.outputs(parts.all, seed=5, trial=trial)
    assert same(read, trials.outputs(seed=5, trial=trial))
    assert not same(read, parts.outputs(parts.all, seed=6, trial=trial)) or scheme is DIGITAL


@pytest.mark.parametrize("scheme", [PAPER, MANY, DIGITAL])
def test_no_part_is_the_model_as_written(experiment, scheme):
    found = experiment.parts(scheme).written()
    assert float(experiment.metric(found, labels=None, clean=experiment.clean)) == experiment.stored_value(scheme)


def weights(parts, part, key="a", seed=1, trial=0):
    return parts._weight(key, part, seed, trial)


@pytest.mark.parametrize("scheme", [PAPER, MANY, SIDE])
def test_classes_are_disjoint_and_cover_the_tensor(experiment, scheme):
    parts = experiment.parts(scheme)
    written, read = parts._written["a"], weights(parts, parts.all)
    classes = [part for part in parts.listed if part.kind == "class"]
    assert len(classes) == scheme.classes
    changed = [weights(parts, part) != written for part in classes]
    assert sum(each.astype(int) for each in changed).max() == 1
    together = written.copy()
    for part, where in zip(classes, changed, strict=True):
        together[where] = weights(parts, part)[where]
    assert np.array_equal(together, read)
    assert sum(part.weights for part in classes) == parts.all.weights


def test_streams_change_what_they_hold(experiment):
    parts = experiment.parts(SIDE)
    written = parts._written["a"]
    levels, signs, classes = (weights(parts, part) for part in parts.listed if part.kind == "stream")
    turned = signs != written
    assert 0 < turned.sum() < turned.size
    assert np.array_equal(np.abs(signs[turned]), np.abs(written[turned]))  # the sign alone is wrong
    assert np.array_equal(np.sign(classes), np.sign(written))
    assert (classes != written).any()
    assert (levels != written).mean() > 0.9


def test_levels_alone_are_the_whole_where_bits_are_read_without_errors(experiment):
    parts = experiment.parts(PAPER.changed(code="bch"))
    (levels,) = (part for part in parts.listed if part.name == "levels")
    assert same(parts.outputs(levels, seed=0, trial=1), parts.outputs(parts.all, seed=0, trial=1))


def test_a_tensor_alone_leaves_the_others_as_written(experiment):
    parts = experiment.parts(MANY)
    names = [part.name for part in parts.listed if part.kind == "tensor"]
    assert names == ["a", "b"]  # once, though two nodes take it
    assert parts.users == {"a": ("h", "k"), "b": ("y",)}
    (of_b,) = (part for part in parts.listed if part.name == "b")
    read = weights(parts, of_b, key="b")
    (outputs,) = parts.outputs(of_b, seed=1, trial=0)
    x, a = experiment.data.inputs["x"], parts._written["a"]
    np.testing.assert_allclose(outputs, np.maximum(x @ a, 0) @ a @ read, rtol=1e-3, atol=1e-3)


def test_cells_are_those_of_the_report(experiment):
    parts, totals = experiment.parts(MANY), experiment.totals(MANY)
    assert parts.all == Part("all", "", totals.stored_weights, totals.honest_cells)
    of_classes = sum(part.cells for part in parts.listed if part.kind == "class")
    (levels,) = (part for part in parts.listed if part.name == "levels")
    assert of_classes == levels.cells == totals.analog_cells


def test_digital_tensors_have_no_parts_without_noise(experiment):
    parts = experiment.parts(DIGITAL)
    assert {part.kind for part in parts.listed} == {"tensor", "stream"}
    assert all(same(parts.outputs(part, seed=0, trial=0), parts.written()) for part in parts.listed)


def test_a_plain_model_has_no_parts(experiment):
    with pytest.raises(ModelError, match="the model is not protected, so it has no parts"):
        experiment.parts()


def test_failed_blocks_are_a_stream_of_their_own(experiment):
    """Half of the blocks fail, so that weights lose signs and classes; signs and classes alone are read rightly."""
    failing = MANY.changed(code="bch", block_failure=0.5, channel="gaussian:sigma=0.02")
    parts = experiment.parts(failing)
    streams = {part.name: part for part in parts.listed if part.kind == "stream"}
    assert list(streams) == ["levels", "signs", "classes", "failed blocks"]
    trials = range(20)
    changed = {
        name: [not np.array_equal(weights(parts, part, trial=trial), parts._written["a"]) for trial in trials]
        for name, part in streams.items()
    }
    assert any(changed["failed blocks"])
    assert all(changed["levels"])
    for trial in trials:
        lost, signs, classes = (
            weights(parts, streams[name], trial=trial) for name in ("failed blocks", "signs", "classes")
        )
        assert np.array_equal(np.abs(signs), np.abs(parts._written["a"]))
        assert (np.sign(lost) >= np.sign(parts._written["a"])).all()  # what is lost is positive
        assert np.array_equal(np.sign(classes), np.sign(parts._written["a"]))


def test_nodes_that_take_a_weight_are_those_of_its_graph():
    """Two bodies have weights of one name."""
    nested = model(
        """net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, bool c = {1}> {
            h = MatMul(x, a)
            y = If(c) <
                then_branch = then () => (float[n, 16] t) <float[16, 16] b = 2 random> { t = MatMul(h, b) },
                else_branch = other () => (float[n, 16] e) <float[16, 16] b = 3 random> { e = MatMul(h, b) }
            >
        }"""
    )
    users = Experiment(nested, rows(60)).parts(PAPER).users
    assert users["a"] == ("h",)
    assert sorted(names for key, names in users.items() if key.endswith("b")) == [("e",), ("t",)]
