"""Parts of a memory that are read with noise alone, held to reads of the whole memory."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.arguments import PART_KINDS
from onnx_analog.errors import ModelError
from onnx_analog.graph.spent import Spent
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.parts import Part
from tests.models import FAMILY, model
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


def listed(parts):
    return [part for kind in ("tensor", "class", "stream") for part in parts.of(kind)]


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
    found = experiment.parts(scheme).written
    assert float(experiment.metric(found, labels=None, clean=experiment.clean)) == experiment.stored_value(scheme)


def weights(parts, part, key="a", seed=1, trial=0, **how):
    return parts._weight(key, part, seed, trial, **how)


@pytest.mark.parametrize("scheme", [PAPER, MANY, SIDE])
def test_classes_are_disjoint_and_cover_the_tensor(experiment, scheme):
    parts = experiment.parts(scheme)
    written, read = parts._as_written["a"], weights(parts, parts.all)
    classes = parts.of("class")
    assert len(classes) == scheme.classes
    changed = [weights(parts, part) != written for part in classes]
    assert sum(each.astype(int) for each in changed).max() == 1
    together = written.copy()
    for part, where in zip(classes, changed, strict=True):
        together[where] = weights(parts, part)[where]
    assert np.array_equal(together, read)
    assert sum(part.weights for part in classes) == parts.all.weights


def stream(parts, name, kind="stream"):
    (found,) = (part for part in parts.of(kind) if part.name == name)
    return found


def test_streams_change_what_they_hold(experiment):
    parts = experiment.parts(SIDE)
    written = parts._as_written["a"]
    levels, signs, classes = (weights(parts, stream(parts, name)) for name in ("levels", "signs", "classes"))
    turned = signs != written
    assert 0 < turned.sum() < turned.size
    assert np.array_equal(np.abs(signs[turned]), np.abs(written[turned]))  # the sign alone is wrong
    assert np.array_equal(np.sign(classes), np.sign(written))
    assert (classes != written).any()
    assert (levels != written).mean() > 0.9


def test_levels_alone_are_the_whole_where_bits_are_read_without_errors(experiment):
    parts = experiment.parts(PAPER.changed(code="bch"))
    levels = stream(parts, "levels")
    assert same(parts.outputs(levels, seed=0, trial=1), parts.outputs(parts.all, seed=0, trial=1))


def test_a_tensor_alone_leaves_the_others_as_written(experiment):
    parts = experiment.parts(MANY)
    names = [part.name for part in parts.of("tensor")]
    assert names == ["a", "b"]  # once, though two nodes take it
    (of_b,) = (part for part in parts.of("tensor") if part.name == "b")
    read = weights(parts, of_b, key="b")
    (outputs,) = parts.outputs(of_b, seed=1, trial=0)
    x, a = experiment.data.inputs["x"], parts._as_written["a"]
    np.testing.assert_allclose(outputs, np.maximum(x @ a, 0) @ a @ read, rtol=1e-3, atol=1e-3)


MASKED = oa.Scheme.entropy_coded(0.5, channel="pcm")
KINDS_OF_CELLS = {
    "paper": PAPER,
    "paper, bch": PAPER.changed(code="bch", channel="pcm"),
    "many": MANY,
    "entropy-coded": MASKED,
    "entropy-coded, analog": oa.Scheme.paper("redundancy", channel="pcm", entropy="static"),
    **FAMILY,
}


def add_up(parts):
    """Raise `AssertionError` unless the cells of each kind of parts add up to those of the memory."""
    cells = {kind: [part.cells for part in parts.of(kind)] for kind in PART_KINDS}
    total = parts.all.cells
    assert {sum(cells["tensor"]), sum(cells["stream"]), sum(cells["tensor-stream"])} == {total}
    of_all = sum(sum(spent.of_all.values()) for spent in parts._spent.values())
    for kind in ("class", "tensor-class"):
        assert not cells[kind] or sum(cells[kind]) + of_all == total
    for part in parts.of("tensor"):
        assert part.cells == sum(each.cells for each in parts.of("tensor-stream") if each.tensor == part.name)


@pytest.fixture(scope="module")
def pruned():
    return Experiment(oa.prune(model(TIED), sparsity=0.6).model, rows(60))


@pytest.mark.parametrize("name", KINDS_OF_CELLS)
@pytest.mark.parametrize("which", ["experiment", "pruned"])
def test_cells_add_up_to_those_of_the_report(request, name, which):
    experiment = request.getfixturevalue(which)
    scheme = KINDS_OF_CELLS[name]
    parts, totals = experiment.parts(scheme), experiment.totals(scheme)
    assert parts.all == Part("all", "", "", totals.stored_weights, totals.honest_cells)
    add_up(parts)
    assert sum(part.cells for part in parts.of("stream") if part.name == "levels") == totals.analog_cells
    if which == "pruned":
        assert {"mask", "mask and classes"} & {part.name for part in parts.of("stream")}


def test_one_cell_too_many_is_seen(experiment):
    parts = experiment.parts(PAPER)
    parts._spent["a"] = Spent(parts._spent["a"].of_classes, {**parts._spent["a"].of_all, "codebook": 1})
    with pytest.raises(AssertionError):
        add_up(parts)


def test_a_class_has_the_cells_of_its_levels_and_its_share_of_signs_and_classes(experiment):
    parts = experiment.parts(PAPER)
    small, large = parts.of("class")
    signs, classes = (stream(parts, name).cells for name in ("signs", "classes"))
    for part, each in ((small, 1), (large, 20)):
        shared = (signs + classes) * part.weights / parts.all.weights
        assert abs(part.cells - each * part.weights - shared) < 4  # each of two tensors' streams is rounded once


def test_blocks_that_tensors_share_are_shared_out_by_bits(experiment):
    parts = experiment.parts(PAPER.changed(code="bch", channel="pcm"))
    of_tensors = {part.tensor: part for part in parts.of("tensor-stream") if part.name == "signs"}
    whole = stream(parts, "signs")
    for part in of_tensors.values():
        assert abs(part.cells - whole.cells * part.weights / whole.weights) < 1


def test_without_a_count_of_cells_there_are_parts_all_the_same(experiment):
    noisy = PAPER.changed(code="bch", channel="gaussian:sigma=30")
    parts = experiment.parts(noisy)
    assert parts.all.cells is None
    assert {part.cells for part in listed(parts)} == {None}
    assert [part.name for part in parts.of("stream")] == ["levels", "signs", "classes", "codebook"]


def test_digital_tensors_are_read_without_errors(experiment):
    parts = experiment.parts(DIGITAL)
    assert all(parts.outputs(part, seed=0, trial=0) is parts.written for part in listed(parts))


# ------------------------------------------------------------------------------------- parts of single tensors


def test_parts_of_single_tensors_are_those_of_all_within_it(experiment):
    parts = experiment.parts(SIDE)
    for kind in ("class", "stream"):
        of_all = {part.name: part for part in parts.of(kind)}
        for part in parts.of(f"tensor-{kind}"):
            inside, outside = part.tensor, {"a": "b", "b": "a"}[part.tensor]
            assert np.array_equal(weights(parts, part, inside), weights(parts, of_all[part.name], inside))
            assert weights(parts, part, outside) is parts._as_written[outside]


@pytest.mark.parametrize("kind", PART_KINDS)
def test_all_but_a_part_is_what_the_part_leaves(experiment, kind):
    """What a class or tensor holds is read with noise by itself, or by all but it, and never by both."""
    parts = experiment.parts(SIDE)
    for part in parts.of(kind):
        for key in ("a", "b"):
            written, whole = parts._as_written[key], weights(parts, parts.all, key)
            alone, rest = (weights(parts, part, key, but=but) for but in (False, True))
            if kind.endswith("stream"):
                others = [each for each in parts.of("stream") if each.name != part.name]
                inside = part.tensor in ("", key)
                expected = (
                    whole if not inside else parts._read(parts._tensors[key], [each.name for each in others], 1, 0)
                )
                assert np.array_equal(rest, expected)
            else:
                assert not ((alone != written) & (rest != written)).any()
                assert np.array_equal(np.where(alone != written, alone, rest), whole)


def test_all_but_all_is_as_written(experiment):
    parts = experiment.parts(SIDE)
    assert parts.outputs(parts.all, seed=0, trial=0, but=True) is parts.written


# -------------------------------------------------------------------------------------------------- correction

LEAKY = oa.Scheme.paper("redundancy", channel="pcm-drift", code="none")
CALIBRATION = rows(100).inputs["x"][60:]
LATE = oa.Modifiers(read_after_s=1e6)  # levels drift, so that the law of the channel has a factor


@pytest.fixture(params=["samples", "gain"])
def corrected(request):
    protected = oa.protect(model(TIED), plan=LEAKY)
    how = "gain" if request.param == "gain" else CALIBRATION
    return oa.Experiment(protected, rows(60).inputs["x"], correct=how)


def test_all_cells_are_corrected_as_evaluate_does(corrected):
    parts, trials = corrected.parts(modifiers=LATE), corrected.trials(modifiers=LATE)
    read = parts.outputs(parts.all, seed=5, trial=1, corrected=True)
    np.testing.assert_array_equal(read[0], trials.outputs(seed=5, trial=1)[0])
    assert not same(read, parts.outputs(parts.all, seed=5, trial=1))


def test_the_factor_is_of_what_was_read_only():
    protected = oa.protect(model(TIED), plan=LEAKY.changed(code="bch"))
    experiment = oa.Experiment(protected, rows(60).inputs["x"], correct="gain")
    parts = experiment.parts(modifiers=LATE)
    small = next(part for part in parts.of("tensor-class") if (part.tensor, part.name) == ("a", "0"))
    written = parts._as_written["a"]
    read, scaled = (weights(parts, small, factor=factor) for factor in (1.0, 1.25))
    of_class = read != written
    assert 0 < of_class.sum() < of_class.size
    np.testing.assert_allclose(scaled[of_class], 1.25 * read[of_class], rtol=1e-6)
    assert np.array_equal(scaled[~of_class], written[~of_class])
    signs = stream(parts, "signs")
    assert weights(parts, signs, factor=1.25) is written  # whose levels are as written


def test_what_is_not_read_is_not_corrected(corrected):
    parts = corrected.parts(modifiers=LATE)
    codebook = stream(parts, "codebook")
    assert parts.outputs(codebook, seed=0, trial=0, corrected=True) is parts.written


def test_what_storing_loses_is_not_corrected():
    """A plain model is corrected towards the weights as they were written, as its protected file is."""
    coarse = oa.Scheme.paper("redundancy", channel="gaussian:sigma=0.02", code="none", cells_small=1)
    how = {"correct": CALIBRATION}
    plain = oa.Experiment(model(TIED), rows(60).inputs["x"], **how).parts(coarse)
    stored = oa.Experiment(oa.protect(model(TIED), plan=coarse), rows(60).inputs["x"], **how).parts()
    assert same(*(parts.outputs(parts.all, seed=1, trial=0, corrected=True) for parts in (plain, stored)))


def test_a_plain_model_has_no_parts(experiment):
    with pytest.raises(ModelError, match="the model is not protected, so it has no parts"):
        experiment.parts()


def test_failed_blocks_are_of_the_stream_that_they_hold(experiment):
    """Half of the blocks fail: all weights lose signs and classes with the codebook's."""
    failing = MANY.changed(code="bch", block_failure=0.5, channel="gaussian:sigma=0.02")
    parts = experiment.parts(failing)
    written = parts._as_written["a"]
    assert [part.name for part in parts.of("stream")] == ["levels", "signs", "classes", "codebook"]
    lost = [weights(parts, stream(parts, "codebook"), trial=trial) for trial in range(20)]
    assert any(each is not written for each in lost)
    for trial, each in enumerate(lost):
        signs, classes = (weights(parts, stream(parts, name), trial=trial) for name in ("signs", "classes"))
        assert np.array_equal(np.abs(signs), np.abs(written))
        assert each is written or (each >= 0).all()  # what is lost is positive
        assert np.array_equal(np.sign(classes), np.sign(written))


def test_the_failed_blocks_of_a_mask_lose_what_is_behind_them(pruned):
    failing = MANY.changed(code="bch", block_failure=0.5, channel="gaussian:sigma=0.02")
    parts = pruned.parts(failing)
    mask = stream(parts, "mask")
    written = parts._as_written["a"].reshape(-1)
    changed = [np.flatnonzero(weights(parts, mask, trial=trial).reshape(-1) != written) for trial in range(20)]
    assert any(each.size for each in changed)
    for trial, each in enumerate(changed):
        if each.size:
            read = weights(parts, mask, trial=trial).reshape(-1)
            assert (read[each[0] :] >= 0).all()
            assert np.array_equal(read == 0, written == 0)
