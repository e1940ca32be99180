import importlib.metadata
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import scipy.stats
from numpy.typing import NDArray

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ChannelError, DataError, ModelError, OptionError
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.run import _doubts, metrics
from onnx_analog.run import session as network_module
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.session import Network
from onnx_analog.testing import assert_law, assert_std
from tests.models import QUIET, ZOO, U, f32, feeds, made, model, run, same_bits
from tests.run.nets import LINEAR, TWO_INPUTS, drawn, protected, rows, weights

FIXED = LINEAR.replace("n, ", "4, ")
IMAGENET: dict[str, tuple[float, ...]] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


# ------------------------------------------------------------------------------- evaluate and readback are one


@pytest.mark.parametrize("name", ZOO)
def test_without_noise_a_network_computes_what_onnxruntime_does(name):
    found = protected(made(name))
    for network, alone in ((Network(made(name)), made(name)), (Network(found), found)):
        session = network.session({name: tensor.decode() for name, tensor in network.tensors.items()})
        assert all(same_bits(session.run(None, given), run(alone, given)) for given in feeds(alone))


def test_values_are_those_of_the_models_read_back():
    found, data = protected(model(LINEAR), cells_large=1), rows(200, labels=True)
    assert data.labels is not None
    evaluated = oa.evaluate(found, data, trials=3, seed=7)
    scores = [run(part.model, data.inputs)[0] for part in oa.readbacks(found, seed=7, trials=3)]
    assert evaluated.values == tuple((score.argmax(axis=1) == data.labels).mean() for score in scores)
    assert evaluated.original is None
    assert evaluated.stored == (run(found, data.inputs)[0].argmax(axis=1) == data.labels).mean()
    assert (evaluated.metric, evaluated.samples, evaluated.seed) == ("top1", 200, 7)


def test_an_experiment_protects_as_protect_does_whatever_it_protected_before():
    """Plans that differ in what reads them share planes, and each model has the schemes of its own plan."""
    plain, data = model(LINEAR), rows(200, labels=False)
    steps = Scheme.entropy_coded(1.0, channel=QUIET)
    schemes = [Scheme.paper("redundancy", cells_large=cells, channel=QUIET) for cells in (1, 3)]
    experiment = oa.Experiment(plain, data, compensate=data)
    for scheme in [*schemes, steps, schemes[0]]:
        found = experiment.protected(scheme)
        alone = oa.protect(plain, oa.Plan.of(scheme), compensate=data if scheme is steps else None)
        assert found.schemes == alone.schemes
        assert found.model.metadata_props == alone.model.metadata_props
        assert ir.to_proto(found.model).SerializeToString() == ir.to_proto(alone.model).SerializeToString()


def test_a_weight_of_a_function_that_is_called_twice_is_read_once():
    network = Network(protected(made("function")))
    assert [tensor.key for tensor in network.tensors.values()] == ["local.project()/w"]


def test_the_model_is_not_changed():
    found = protected(made("if"))
    before = ir.to_proto(found).SerializeToString()
    Network(found)
    assert ir.to_proto(found).SerializeToString() == before


# --------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("batch", [1, 3, 10, 64])
def test_outputs_do_not_depend_on_the_batch(batch):
    data, plain = rows(10), model(LINEAR)
    (found,), (whole,) = Network(plain).run(data, batch=batch), run(plain, data.inputs)
    w = plain.graph.initializers["w"].const_value
    assert w is not None
    sums = 2 * 16 * U * np.abs(data.inputs["x"]) @ np.abs(w.numpy())  # either sum of 16 rounds at most so much
    assert (np.abs(found - whole) <= sums).all()


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_values_do_not_depend_on_the_batch(batch):
    found = protected(model(LINEAR))
    values = [oa.evaluate(found, rows(50, labels=True), trials=2, batch=size).values for size in (10, batch)]
    assert values[0] == values[1]


@pytest.mark.parametrize("count", [1, 4, 10])
def test_a_model_with_a_fixed_batch_takes_any_number_of_samples(count):
    (found,) = Network(model(FIXED)).run(rows(count), batch=64)
    padded = np.resize(rows(count).inputs["x"], (12, 16))
    expected = np.concatenate([run(model(FIXED), {"x": padded[start : start + 4]})[0] for start in (0, 4, 8)])
    assert same_bits([found], [expected[:count]])


def test_a_model_may_have_several_inputs():
    tokens, z = np.random.default_rng(0).integers(20, size=(7, 3)), drawn(7, 16)
    found = protected(model(TWO_INPUTS))
    network = Network(found)
    assert [(i.name, i.dtype, i.shape) for i in network.inputs] == [
        ("tokens", np.int64, ("n", 3)),
        ("z", np.float32, ("n", 16)),
    ]
    data = Dataset({"tokens": tokens, "z": z}, None)
    perturbed = oa.readback(found, trial=1).model
    outputs = network.run(data, weights(network, seed=0, trial=1), batch=7)
    assert same_bits(outputs, run(perturbed, data.inputs))


RECURRENT = """
    net (float[3, 1, 16] x, float[1, 1, 16] state, int64 gain) => (float[3, 1, 16] y, float[1, 1, 16] last)
    <float[1, 16, 16] w = random, float[1, 16, 16] r = random> {
        found, last = RNN <hidden_size = 16> (x, w, r, empty, empty, state)
        axis = Constant <value_ints = [1]> ()
        squeezed = Squeeze(found, axis)
        times = Cast <to = 1> (gain)
        y = Mul(squeezed, times)
    }""".replace("empty", "")
WHOLE = """
    net (float[n, 16] x) => (float[16, 8] w_t, float total, float[n, 8] y) <float[16, 8] w = random> {
        y = MatMul(x, w)
        total = ReduceSum <keepdims = 0> (y)
        w_t = Identity(w)
    }"""


def test_a_model_without_an_axis_for_samples_is_run_one_by_one(tmp_path):
    found = protected(model(RECURRENT))
    x, state, gain = drawn(5, 3, 1, 16), drawn(5, 1, 1, 16, seed=2), np.array([1, 2, 3, 1, 2])
    np.savez(tmp_path / "data.npz", x=x, state=state, gain=gain)
    evaluated = oa.evaluate(found, tmp_path / "data.npz", trials=2, seed=3)
    perturbed = [part.model for part in oa.readbacks(found, seed=3, trials=2)]
    clean, *noisy = (_one_by_one(one, x=x, state=state, gain=gain) for one in (found, *perturbed))
    assert (evaluated.metric, evaluated.output, evaluated.samples) == ("sqnr_db", "y", 5)
    assert evaluated.sqnr_db == tuple(metrics.sqnr_db(outputs[:1], clean=clean[:1]) for outputs in noisy)
    assert evaluated.values == evaluated.sqnr_db
    named = oa.evaluate(found, tmp_path / "data.npz", trials=2, seed=3, class_axis=2, output="last")
    assert (named.metric, named.class_axis) == ("agreement", 2)
    assert named.values == tuple(
        metrics.agreement(outputs[1:], labels=None, clean=clean[1:], class_axis=3) for outputs in noisy
    )


def _one_by_one(found: ir.Model, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
    each = [
        run(found, dict(zip(inputs, map(np.asarray, sample), strict=True)))
        for sample in zip(*inputs.values(), strict=True)
    ]
    return [np.stack(outputs) for outputs in zip(*each, strict=True)]


def test_an_output_without_an_axis_for_samples_is_kept_whole():
    plain, data = model(WHOLE), rows(10)
    w, total, y = Network(plain).run(data)
    assert same_bits([w, total[0], y], run(plain, data.inputs))
    w, totals, y = Network(plain).run(data, batch=8)
    assert [one.shape for one in w] == [(16, 8), (16, 8)]
    assert (totals.shape, y.shape) == ((2,), (10, 8))


# -------------------------------------------------------------------------------------------------- the noise


@pytest.mark.parametrize("cells", [1, 25])
def test_the_output_of_a_linear_model_is_off_by_the_noise_over_the_root_of_its_cells(cells):
    found, x = protected(model(LINEAR), strategy="sign", cells_small=cells), drawn(1, 16)
    (tensor,) = stored_tensors(found)
    errors = outputs_off(found, Dataset({"x": x}, None), trials=40)
    # y_j = Σ x_i·w_ij, each w_ij off by ±ε/(α√cells); rounding is below a thousandth of that
    std = QUIET.sigma * float(np.linalg.norm(x)) / float(tensor.alpha[0, 0]) / math.sqrt(cells)
    assert_law(errors, scipy.stats.norm(scale=std).cdf)
    assert_std(errors, std)


def outputs_off(found: ir.Model, data: Dataset, *, trials: int) -> NDArray[np.float64]:
    """Return what the first output is off by in each trial."""
    errors = []

    def keep(outputs: list[NDArray[Any]], *, labels: object, clean: list[NDArray[Any]]) -> float:
        errors.append(outputs[0].astype(np.float64) - clean[0])
        return 0.0

    oa.evaluate(found, data, trials=trials, metric=keep)
    assert not errors[0].any()  # the metric of the clean outputs, which comes first
    return np.stack(errors[1:])


@pytest.mark.parametrize("cells", [4, 10**8])
def test_sqnr_grows_by_10_db_for_ten_times_the_cells(cells):
    data = rows(8)
    one, many = (protected(model(LINEAR), strategy="sign", cells_small=count) for count in (1, cells))
    ratios = [oa.evaluate(found, data, trials=3).sqnr_db for found in (one, many)]
    errors = outputs_off(many, data, trials=3)
    (tensor,) = stored_tensors(one)
    sums = np.abs(data.inputs["x"]) @ (np.abs(tensor.decode()) + 1 / tensor.alpha[0])
    # σ/√cells rounds once. A level, its weight and two sums of 16 round; the noise is the smaller, the more cells
    rounding = U + 40 * U * float(np.sqrt(np.mean(sums**2) / np.mean(errors**2)))
    gain = np.subtract(ratios[1], ratios[0])
    assert np.abs(gain - 10 * math.log10(cells)).max() <= 20 * math.log10(1 + 2 * rounding)


def test_with_very_many_cells_nothing_is_lost():
    found = oa.evaluate(protected(model(LINEAR), cells_small=10**10, cells_large=10**10), rows(64), trials=3)
    assert found.metric == "agreement"
    assert found.values == (1.0, 1.0, 1.0)


def test_half_the_noise_of_another_channel_is_6_db():
    found, data = protected(model(LINEAR)), rows(8)
    loud, quiet = (oa.evaluate(found, data, trials=2, channel=f"gaussian:sigma={s}").sqnr_db for s in (0.5, 0.25))
    assert np.subtract(quiet, loud) == pytest.approx(20 * math.log10(2), abs=0.001)  # dB, of noise at 1e-4 of itself
    with pytest.raises(ChannelError, match=r"-0.65 to 0.75.* holds 0 to 1"):
        oa.evaluate(found, data, channel="gaussian:low=0,high=1")


# ------------------------------------------------------------------------------------------------ the account


def test_the_same_call_gives_the_same_numbers():
    found, data = protected(model(LINEAR)), rows(50, labels=True)
    one, same, longer = (oa.evaluate(found, data, trials=trials, seed=3) for trials in (3, 3, 5))
    assert one == same
    assert longer.values[:3] == one.values
    assert len(set(longer.sqnr_db)) == 5


def test_outputs_without_noise_that_are_known_are_not_made_again():
    found, data = protected(model(LINEAR)), rows(50, labels=True)
    network = Network(found)
    known = network.run(data)
    alone = oa.evaluate(found, data, trials=2)
    assert oa.evaluate(found, data, trials=2, clean=known) == replace(alone, original=alone.stored)
    wrong = [known[0][:, ::-1]]
    other = oa.evaluate(found, data, trials=2, clean=wrong)
    assert other.original == float((wrong[0].argmax(1) == data.labels).mean())
    assert (other.stored, other.values) == (alone.stored, alone.values)


@pytest.mark.parametrize("text", [LINEAR, FIXED, TWO_INPUTS])
def test_inputs_that_lie_on_a_device_give_the_same_outputs(monkeypatch, text):
    """The way of a GPU, with the CPU as the device."""
    monkeypatch.setattr(network_module, "_DEVICES", {"CPUExecutionProvider": "cpu"})
    bound = Network(model(text))
    monkeypatch.undo()
    for seed in (1, 2):  # what is held of one data set is not given for another
        inputs = {wanted.name: drawn(10, *wanted.shape[1:], seed=seed) for wanted in bound.inputs}
        inputs = {name: array.astype(np.int64) if name == "tokens" else array for name, array in inputs.items()}
        data = Dataset(inputs, None)
        for batch in (3, 4, 4):
            assert same_bits(bound.run(data, batch=batch), Network(model(text)).run(data, batch=batch))


def test_a_provider_that_cannot_start_is_refused(monkeypatch):
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", lambda *given, providers, **_: real(*given, providers=None))
    with pytest.raises(OptionError, match=r"'CUDAExecutionProvider' cannot start here, and CPUExecutionProvider can"):
        Network(model(LINEAR), providers=["CUDAExecutionProvider"]).run(rows(2))


def test_seeds_are_apart():
    found, data = protected(model(LINEAR)), rows(8)
    ratios = [oa.evaluate(found, data, trials=3, seed=seed).sqnr_db for seed in range(3)]
    assert len({ratio for of_seed in ratios for ratio in of_seed}) == 9


def test_a_plain_model_has_no_trials():
    found = oa.evaluate(model(LINEAR), rows(20, labels=True), trials=25)
    assert (found.values, found.mean, found.std, found.ci95, found.sqnr_db) == ((), None, None, None, ())
    assert found.stored is None
    assert found.original == oa.evaluate(protected(model(LINEAR)), rows(20, labels=True), trials=0).stored


def test_only_the_first_samples_count():
    found = protected(model(LINEAR))
    assert oa.evaluate(found, rows(50, labels=True), samples=20, trials=2) == oa.evaluate(
        found, rows(50, labels=True).head(20), trials=2
    )


def test_labels_make_it_top1_and_many_scores_agreement_and_one_sqnr():
    found = protected(model(LINEAR))
    single = protected(model(LINEAR.replace("32", "1")), selection=oa.Selection(min_size=1))
    kinds = [(found, rows(9, labels=True)), (found, rows(9)), (single, rows(9))]
    evaluated = [oa.evaluate(network, data, trials=1) for network, data in kinds]
    assert [e.metric for e in evaluated] == ["top1", "agreement", "sqnr_db"]
    assert (evaluated[1].stored, evaluated[2].stored) == (1, None)
    assert evaluated[2].values == evaluated[2].sqnr_db


def test_progress_is_called_after_each_trial():
    calls = []
    oa.evaluate(protected(model(LINEAR)), rows(2), trials=3, progress=lambda: calls.append(1))
    assert len(calls) == 3


@pytest.mark.parametrize(
    "wrong", [{"trials": -1}, {"seed": -1}, {"batch": 0}, {"samples": 0}, {"samples": -1}], ids=str
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        oa.evaluate(protected(model(LINEAR)), rows(2), **wrong)


# ---------------------------------------------------------------------------------------------- an experiment


def experiment(**options: Any) -> Experiment:
    return Experiment(model(LINEAR), rows(50, labels=True), **options)


def test_a_plain_model_is_scored_by_a_plan_and_a_protected_one_as_it_is():
    scheme, data = Scheme(channel=QUIET, cells=(1, 3)), rows(50, labels=True)
    stored = oa.protect(model(LINEAR), scheme).model
    by_plan, as_it_is = experiment().score(scheme, seed=2, trials=3), Experiment(stored, data).score(seed=2, trials=3)
    assert by_plan.values == as_it_is.values
    assert as_it_is == oa.evaluate(stored, data, seed=2, trials=3)
    assert by_plan.original == oa.evaluate(model(LINEAR), data).original
    assert by_plan.stored == as_it_is.stored
    assert by_plan == oa.evaluate(stored, data, seed=2, trials=3, reference=model(LINEAR))
    assert by_plan.channel == as_it_is.channel == str(QUIET)
    assert Experiment(open_protected(stored), data).score(seed=2, trials=3) == as_it_is
    with pytest.raises(ModelError, match="protected already"):
        Experiment(stored, data).score(scheme)


def test_without_a_plan_a_plain_model_has_no_trials():
    assert experiment().score(trials=5) == oa.evaluate(model(LINEAR), rows(50, labels=True))
    with pytest.raises(ModelError, match="it has no trials: give a plan, or protect it first"):
        experiment().trials()
    with pytest.raises(ModelError, match="the model is not protected, so no channel reads it"):
        experiment().score(channel="pcm")


@pytest.mark.parametrize("options", [{"channel": "gaussian:sigma=0.5"}, {"modifiers": Modifiers(read_bits=5)}])
def test_a_plan_may_be_read_through_another_channel(options):
    scheme = Scheme(channel=QUIET, side_channel=GaussianNoise(sigma=0.3))
    stored, tried = oa.protect(model(LINEAR), scheme).model, experiment()
    expected = oa.evaluate(stored, rows(50, labels=True), trials=3, **options)
    plain = tried.score(scheme, trials=3)
    changed = tried.score(scheme, trials=3, **options)
    assert (changed.values, changed.channel) == (expected.values, expected.channel)
    assert tried.score(scheme, trials=3) == plain != changed


def test_digital_streams_are_read_through_a_channel_too():
    """Two symbols in a cell of σ 0.5 are confused often, those of a cell of σ 0.01 never."""
    digital, data = Scheme.int8(code="none", channel=GaussianNoise(sigma=0.01)), rows(50, labels=True)
    stored = oa.protect(model(LINEAR), digital)
    quiet = oa.evaluate(stored, data, trials=3)
    assert (quiet.channel, {*quiet.values}) == (str(digital.channel), {quiet.stored})
    loud = oa.evaluate(stored, data, trials=3, channel=GaussianNoise(sigma=0.5))
    assert loud.values != quiet.values
    assert experiment().score(digital, trials=3, channel=GaussianNoise(sigma=0.5)).values == loud.values


def test_outputs_without_noise_are_computed_once(monkeypatch):
    calls = []

    def counted(self, *given, run_=Network.run, **options):
        calls.append(given[1:] != () and given[1] is not None)
        return run_(self, *given, **options)

    monkeypatch.setattr(Network, "run", counted)
    tried = experiment(reference=model(LINEAR))
    for scheme in (Scheme(channel=QUIET), Scheme(channel=QUIET, cells=(2, 5)), Scheme.int8(), Scheme.int4()):
        tried.score(scheme, trials=2)
    # Model and reference, three ways to store it, two trials of each with cells, and one of each without.
    assert sorted(calls) == [False, False, *[True] * 9]


def test_plans_that_store_the_same_tensors_share_a_skeleton():
    """It is the same to the byte whatever plan it was made for."""
    schemes = [
        Scheme(channel=QUIET), Scheme.int8(), Scheme.int4(granularity="channel"), Scheme.paper("raw"),
        Scheme(channel=QUIET, classes=4, partition="lloyd", cells=(0, 1, 2, 3)),
    ]  # fmt: skip
    for name in ("two scales", "if", "function", "float16"):
        skeletons = [Network(oa.protect(made(name), scheme).model)._skeleton for scheme in schemes]
        models = [onnx.ModelProto.FromString(skeleton) for skeleton in skeletons]
        for each in models:
            del each.metadata_props[:]  # which say the scheme
        assert all(each == models[0] for each in models)


@pytest.mark.parametrize("name", ZOO)
def test_every_model_is_scored_as_it_is_when_it_is_protected(name):
    plain, scheme = made(name), Scheme(channel=QUIET, classes=3, partition="lloyd", cells=(0, 1, 2))
    feed = next(iter(feeds(plain)))
    seen: list[Any] = []

    def keep(outputs: list[Any], *, labels: object, clean: list[Any]) -> float:
        seen.append(outputs)
        return 0.0

    data = Dataset({name: np.asarray(array)[None] for name, array in feed.items()}, None, one_by_one=True)
    tried = Experiment(plain, data, ("keep", keep))
    tried.score(Scheme.int8(), trials=1)
    expected = Experiment(oa.protect(plain, scheme).model, data, ("keep", keep))
    seen.clear()
    expected.score(trials=2)
    tried.score(scheme, trials=2)
    assert len(seen) == 6  # without noise and in two trials, each
    assert all(same_bits(protected, by_plan) for protected, by_plan in zip(seen[:3], seen[3:], strict=True))


# -------------------------------------------------------------------------------------------------- reference


def test_the_reference_is_the_original():
    plain, inputs = model(LINEAR), rows(100).inputs
    data = Dataset(inputs, run(plain, inputs)[0].argmax(axis=1))  # the original is always right
    pruned = oa.prune(plain, sparsity=0.9).model
    found = oa.evaluate(protected(pruned), data, trials=2, reference=plain)
    assert found.original == oa.evaluate(plain, data).original == 1
    assert found.stored == oa.evaluate(pruned, data).original != found.original
    assert found.drop == 1 - np.mean(found.values)
    given = oa.evaluate(pruned, data, reference=plain)
    assert (given.original, given.stored, given.values) == (1, found.stored, ())


def test_without_labels_outputs_are_compared_with_those_of_the_reference():
    plain, data = model(LINEAR), rows(100)
    pruned = oa.prune(plain, sparsity=0.9).model
    tops = [run(part, data.inputs)[0].argmax(axis=1) for part in (plain, pruned)]
    found = oa.evaluate(protected(pruned), data, trials=1, reference=plain)
    assert (found.original, found.stored) == (1, (tops[0] == tops[1]).mean())
    (read,) = oa.readbacks(protected(pruned), trials=1)
    assert found.values == ((run(read.model, data.inputs)[0].argmax(axis=1) == tops[0]).mean(),)
    ratio = oa.evaluate(protected(pruned), data, trials=1, reference=plain, metric="sqnr_db")
    outputs = [run(part, data.inputs) for part in (plain, pruned)]
    assert (ratio.original, ratio.drop) == (None, None)
    assert ratio.stored == pytest.approx(metrics.sqnr_db(outputs[1], clean=outputs[0]))


def test_an_error_of_the_reference_says_so():
    other = model("net (float[n, 3] q) => (float[n, 3] y) { y = Relu(q) }")
    with pytest.raises(DataError, match=r"^the reference: onnxruntime cannot compute the outputs from the data: "):
        oa.evaluate(protected(model(LINEAR)), rows(2), trials=1, reference=other)


def test_a_reference_with_other_outputs_is_refused_before_the_first_trial():
    other, made = model(LINEAR.replace("32", "31")), []
    with pytest.raises(ModelError, match="not its original"):
        oa.evaluate(protected(model(LINEAR)), rows(2), trials=3, reference=other, progress=lambda: made.append(1))
    assert not made


# ------------------------------------------------------------------------------------- functions of the user's


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_functions.py").write_text(
        "import numpy as np\n"
        "def worst(outputs, *, labels, clean):\n"
        "    return float(np.abs(outputs[0] - clean[0]).max() + labels.sum())\n"
        "def halved(array):\n"
        "    return array / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_a_metric_is_given_outputs_labels_and_clean_outputs(functions):
    found, data = protected(model(LINEAR)), rows(5, labels=True)
    assert data.labels is not None
    evaluated = oa.evaluate(found, data, trials=2, metric="users_functions:worst")
    errors = outputs_off(found, data, trials=2)
    assert evaluated.values == tuple(float(np.float32(np.abs(e).max())) + data.labels.sum() for e in errors)
    assert (evaluated.metric, evaluated.stored) == ("users_functions:worst", data.labels.sum())


def test_a_function_makes_the_inputs(functions, tmp_path):
    x = drawn(5, 16)
    np.savez(tmp_path / "halves.npz", x=2 * x)
    np.savez(tmp_path / "data.npz", x=x)
    halved = oa.evaluate(
        protected(model(LINEAR)), tmp_path / "halves.npz", trials=2, preprocess="users_functions:halved"
    )
    assert halved == oa.evaluate(protected(model(LINEAR)), tmp_path / "data.npz", trials=2)


# --------------------------------------------------------------------------------------------- what is asked of it


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"at_least": 90}, "at_least is 90, and top1 is a share from 0 to 1: 0.9 is 90 %"),
        ({"at_least": -0.1}, "at_least is -0.1, and top1 is a share"),
        ({"at_most": 0.5}, "higher is better for top1: ask for at_least"),
        ({"at_least": 0.5, "metric": "relative_error"}, "lower is better for relative_error: ask for at_most"),
        ({"at_most": 10.0, "metric": "sqnr_db"}, "higher is better for sqnr_db: ask for at_least"),
        ({"metric": "wer"}, "no metric is called 'wer': choose from top1, .*, r2, module:function$"),
        ({"metric": "top_1"}, "no metric is called 'top_1': did you mean 'top1'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_first_trial(options, said):
    made: list[int] = []
    with pytest.raises(OptionError, match=said):
        oa.evaluate(protected(model(LINEAR)), rows(9, labels=True), progress=lambda: made.append(1), **options)
    assert not made


@pytest.mark.parametrize(("options", "holds"), [({"at_most": 10.0}, True), ({"at_most": 1e-9}, False)])
def test_a_metric_of_which_less_is_better_is_at_most(options, holds):
    found = oa.evaluate(protected(model(LINEAR)), rows(9), trials=3, metric="relative_error", **options)
    assert (found.metric, found.stored, found.higher_is_better, found.holds) == ("relative_error", None, False, holds)
    assert 20 * np.log10(found.values) == pytest.approx(-np.array(found.sqnr_db))


# ------------------------------------------------------------------------------------------------ what is measured

BOXES = """
    net (float[n, 16] x) => (int64[n] label, float[n, 1, 4, 4] map, float[n, 32] scores)
    <float[16, 32] w = random, float[16, 16] v = random, int64[4] s = {-1, 1, 4, 4}> {
        scores = MatMul(x, w)
        label = ArgMax <axis = 1, keepdims = 0> (scores)
        flat = MatMul(x, v)
        map = Reshape(flat, s)
    }"""


def test_outputs_are_measured_by_name_and_each_by_what_it_is():
    found, data = protected(model(BOXES)), rows(50)
    label, scores = (oa.evaluate(found, data, trials=2, output=name) for name in ("label", "scores"))
    assert oa.evaluate(found, data, trials=2) == label
    assert (label.metric, scores.metric, scores.class_axis) == ("exact_match", "agreement", 1)
    assert label.values == scores.values  # the label is that of the largest score
    assert np.isnan(label.sqnr_db).all()  # of whole numbers there is none
    map_ = oa.evaluate(found, data, trials=2, output="map")
    assert (map_.metric, map_.values) == ("sqnr_db", map_.sqnr_db)
    right = run(found, data.inputs)[0]
    assert oa.evaluate(found, Dataset(data.inputs, right), trials=0, output="scores").stored == 1
    named = oa.evaluate(found, Dataset(data.inputs, right), trials=2)
    assert (named.metric, named.compares, named.stored, named.values) == ("exact_match", False, 1, label.values)


def test_maps_of_one_channel_do_not_agree_by_themselves():
    """Along an axis of one entry the largest is always the same."""
    found = protected(model(BOXES), strategy="raw", channel=GaussianNoise(sigma=3.0))
    evaluated = oa.evaluate(found, rows(9), trials=3, output="map")
    assert max(evaluated.sqnr_db) < 0
    assert evaluated.metric == "sqnr_db"
    with pytest.raises(OptionError, match="class_axis is 1, and that axis of output 'map' holds one entry"):
        oa.evaluate(found, rows(9), trials=3, output="map", class_axis=1)


SEQUENCE = """
    net (float[1, time, 16] x, float[32] state) => (float[1, time, 9] y)
    <float[16, 32] w = random, float[32, 9] v = random> {
        t = MatMul(x, w)
        u = Add(t, state)
        y = MatMul(u, v)
    }"""


def test_sequences_that_are_fed_one_by_one_agree_place_by_place():
    found = protected(model(SEQUENCE), strategy="raw", cells_small=1, channel=GaussianNoise(sigma=0.5))
    x, state = drawn(5, 1, 20, 16), drawn(5, 32, seed=2)
    evaluated = oa.evaluate(found, {"x": x, "state": state}, trials=2)
    assert (evaluated.metric, evaluated.class_axis, evaluated.samples) == ("agreement", 2, 5)
    (clean,), *noisy = (
        _one_by_one(one, x=x, state=state) for one in (found, *(part.model for part in oa.readbacks(found, trials=2)))
    )
    expected = [np.mean(outputs.argmax(-1) == clean.argmax(-1)) for (outputs,) in noisy]
    assert evaluated.values == pytest.approx(expected)
    assert max(expected) < 1


def test_a_sweep_questions_an_accuracy_of_chance_too(caplog):
    with caplog.at_level(logging.WARNING, logger="onnx_analog"):
        oa.sweep(model(LINEAR), rows(200, labels=True), strategy="raw", cells=1, trials=0, channel=QUIET)
    assert "model0: top1 without noise is" in caplog.text


def test_agreement_that_says_nothing_is_no_number_and_a_warning(caplog):
    found, data = protected(model(LINEAR), cells_small=10**8, cells_large=10**8), rows(9)
    clean = [run(found, data.inputs)[0] / 10]  # so that "noise" makes all scores ten times as large: -19 dB
    with caplog.at_level(logging.WARNING, logger="onnx_analog"):
        evaluated = oa.evaluate(found, data, trials=2, clean=clean, at_least=0.9)
    assert max(evaluated.sqnr_db) < -19
    assert np.isnan(evaluated.values).all()
    assert evaluated.holds is False
    assert "agreement says nothing here" in caplog.text
    assert evaluated.to_dict()["mean"] is None


def test_an_accuracy_that_is_that_of_chance_is_questioned(caplog):
    with caplog.at_level(logging.WARNING, logger="onnx_analog"):
        found = oa.evaluate(model(LINEAR), rows(200, labels=True))
    assert "no better than chance (3.12 % with 32 classes): check mean, std," in found.warnings[0]
    assert found.warnings[0] in caplog.text
    data = rows(200)
    right = Dataset(data.inputs, run(model(LINEAR), data.inputs)[0].argmax(axis=1))
    assert oa.evaluate(model(LINEAR), right).warnings == ()


@pytest.mark.parametrize(("correct", "questioned"), [(0, True), (34, True), (35, False), (200, False)])
def test_an_accuracy_is_questioned_up_to_two_standard_errors_above_chance(correct, questioned):
    """Of 200 samples in 8 classes 25 are right by chance, and two standard errors are 9.35: √(200·1/8·7/8) = 4.68."""
    chosen = metrics.Chosen(metrics.METRICS["top1"], classes=8)
    said = list(_doubts.doubts(chosen, 200, [np.zeros((200, 8))], correct / 200))
    assert [text.partition(" (")[0] for text in said] == [
        f"top1 without noise is {correct / 2:.2f} %, no better than chance"
    ] * questioned


def test_a_clean_value_far_below_the_original_s_is_questioned():
    plain, data = model(LINEAR), rows(100)
    right = Dataset(data.inputs, run(plain, data.inputs)[0].argmax(axis=1))
    pruned = oa.prune(plain, sparsity=0.9).model
    (said,) = oa.evaluate(pruned, right, reference=plain).warnings
    assert "far below the original's 100.00 %" in said


def test_nan_in_the_outputs_is_told():
    x = drawn(10, 16)
    x[0] = np.nan
    found = oa.evaluate(model(LINEAR), Dataset({"x": x}, np.zeros(10, int)))
    assert found.warnings[0].startswith("10.0 % of the outputs without noise are NaN")


@pytest.mark.parametrize("batch", [4, 64])
def test_an_output_that_depends_on_the_batch_is_questioned(batch):
    found = oa.evaluate(model(WHOLE), rows(10), batch=batch, output="total")
    assert any(
        "'total' has no axis of samples, so its values may depend on the batch size" in one for one in found.warnings
    )
    assert oa.evaluate(model(WHOLE), rows(10), batch=batch, output="y").warnings == ()


def test_the_preprocessing_is_told(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 16), np.uint8))
    found = oa.evaluate(model(LINEAR), tmp_path / "data.npz", mean=[0.5])
    assert found.preprocessing == "'x' from uint8 images, divided by 255, normalised with mean 0.5 and std 1"
    assert found.to_dict()["preprocessing"] == found.preprocessing
    np.savez(tmp_path / "data.npz", x=drawn(4, 16))
    assert oa.evaluate(model(LINEAR), tmp_path / "data.npz").preprocessing == "'x' as given (float32)"


def test_model_channel_and_version_are_told(tmp_path):
    oa.protect(model(LINEAR), channel=QUIET).save(tmp_path / "model.onnx")
    found = oa.evaluate(tmp_path / "model.onnx", rows(2), trials=1).to_dict()
    assert (found["model"], found["channel"]) == ("model.onnx", str(QUIET))
    assert found["version"] == importlib.metadata.version("onnx-analog")


def test_what_protect_returned_and_arrays_are_taken_as_they_are(tmp_path):
    stored, data = oa.protect(model(LINEAR), channel=QUIET), rows(9, labels=True)
    expected = oa.evaluate(stored.model, data, trials=2)
    arrays = {"x": data.inputs["x"], "y": data.labels}
    np.savez(tmp_path / "data.npz", **arrays)
    with np.load(tmp_path / "data.npz") as opened:
        for given in (data, arrays, opened, tmp_path / "data.npz"):
            assert oa.evaluate(stored, given, trials=2, reference=None) == expected
    assert oa.evaluate(stored, arrays, trials=2, samples=4) == oa.evaluate(stored, data.head(4), trials=2)
    unlabelled = oa.evaluate(stored, data.inputs["x"], trials=2)
    assert unlabelled == oa.evaluate(stored, Dataset(data.inputs, None), trials=2)
    with pytest.raises(DataError, match=r"data is 3; it must be the path of an npz file, a mapping .* or a Dataset"):
        oa.evaluate(stored, 3)


# ------------------------------------------------------------------------------------------ what cannot be run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINEAR.replace("MatMul", "MatMuls"), "onnxruntime refuses it: .*MatMuls"),
        (LINEAR.replace("[16, 32]", "[15, 32]"), "onnxruntime refuses it"),
        ("net (string[n] x) => (string[n] y) { y = Identity(x) }", r"type tensor\(string\)"),
    ],
    ids=["operator", "shape", "text"],
)
def test_a_model_that_cannot_be_run_is_refused_in_one_line(text, message):
    with pytest.raises(ModelError, match=message) as caught:
        Network(model(text)).inputs  # noqa: B018 - types are looked at when they are needed
    assert "\n" not in str(caught.value)


def test_data_on_which_onnxruntime_fails_are_refused():
    tokens = np.full((2, 3), 99)
    with pytest.raises(DataError, match=r"onnxruntime cannot compute the outputs from the data: .*Gather"):
        Network(model(TWO_INPUTS)).run(Dataset({"tokens": tokens, "z": drawn(2, 16)}, None))


def test_a_provider_that_is_not_there_is_refused_by_name():
    with pytest.raises(OptionError, match=r"no provider 'Abacus' here: there are .*CPUExecutionProvider"):
        Network(model(LINEAR), providers=["CPUExecutionProvider", "Abacus"])


def test_a_protected_model_whose_weights_another_tool_decoded_is_refused():
    found, decoded = protected(model(LINEAR)), model(LINEAR)
    decoded.metadata_props.update(found.metadata_props)  # as tools that fold constants leave it
    with pytest.raises(ModelError, match="protect"):
        oa.evaluate(decoded, rows(2), trials=1)


# ----------------------------------------------------------------------------------------------- a real network


def test_resnet20_keeps_its_accuracy_and_loses_some_in_noise(trained_model, data_set):
    path, images = trained_model("resnet20-cifar10.onnx"), data_set("cifar10-test")
    with np.load(images) as file:
        x, y = file["x"][:500], file["y"][:500]
    normal = ((x / np.float32(255) - f32(IMAGENET["mean"])) / f32(IMAGENET["std"])).transpose(0, 3, 1, 2)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = (session.run(None, {"input": normal})[0].argmax(axis=1) == y).mean()

    plain = oa.evaluate(path, images, samples=500, **IMAGENET)
    assert plain.original == expected
    stored = oa.protect(path).model
    assert oa.evaluate(stored, images, samples=500, trials=0, **IMAGENET).stored == expected
    noisy = oa.evaluate(stored, images, samples=100, trials=2, **IMAGENET)
    chance = scipy.stats.binom.isf(1e-4, 100, 0.1) / 100
    assert chance < min(noisy.values) < plain.original
