import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import onnx_analog as oa
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import DataError, ModelError, OptionError
from onnx_analog.graph.correction import MOST_GAIN
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.weights import Selection
from onnx_analog.run.correcting import one_call, seen_samples
from onnx_analog.run.correction import LayerCorrector, LayerNetworks, factor_of_tensor
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network
from tests.models import QUIET, UNIT, model, protected, run

Weights = dict[str, NDArray[Any]]

HALF = 2.0**-11  # half a unit in the last place of a float16 number, relative to it
ROUNDING = 1e-4  # of sums of some hundred float32 numbers, and more
KINDS = {  # a layer with a weight w, and the axis of w and the sides into which it is parted to scale its channels
    "conv": ("net (float[n, 4, 6, 6] x) => (float[n, 8, 4, 4] y) <float[8, 4, 3, 3] w = random> { y = Conv(x, w) }", 0),
    "conv with bias": (
        """net (float[n, 4, 6] x) => (float[n, 8, 4] y) <float[8, 4, 3] w = random, float[8] b = random>
           { y = Conv(x, w, b) }""",
        0,
    ),
    "conv in groups": (
        "net (float[n, 4, 6, 6] x) => (float[n, 8, 4, 4] y) <float[8, 2, 3, 3] w = random> { y = Conv<group=2>(x, w) }",
        0,
    ),
    "transposed conv": (
        """net (float[n, 4, 6, 6] x) => (float[n, 8, 8, 8] y) <float[4, 8, 3, 3] w = random>
           { y = ConvTranspose(x, w) }""",
        1,
    ),
    "gemm": ("net (float[n, 16] x) => (float[n, 8] y) <float[16, 8] w = random> { y = Gemm(x, w) }", 1),
    "gemm, transposed": (
        """net (float[n, 16] x) => (float[n, 8] y) <float[8, 16] w = random, float[8] b = random>
           { y = Gemm<transB = 1>(x, w, b) }""",
        0,
    ),
    "matmul": ("net (float[n, 5, 16] x) => (float[n, 5, 8] y) <float[16, 8] w = random> { y = MatMul(x, w) }", 1),
    "matmul, on the left": (
        "net (float[n, 16, 5] x) => (float[n, 8, 5] y) <float[8, 16] w = random> { y = MatMul(w, x) }",
        0,
    ),
    "float16": ("net (float16[n, 16] x) => (float16[n, 8] y) <float16[16, 8] w = random> { y = MatMul(x, w) }", 1),
    "double": ("net (double[n, 16] x) => (double[n, 8] y) <double[16, 8] w = random> { y = MatMul(x, w) }", 1),
}


class Case:
    """A protected model that is corrected, samples, and its weights without noise."""

    def __init__(self, text: str, count: int = 200, threads: int = 1, **settings: Any) -> None:
        self.protected: ProtectedModel = open_protected(protected(model(text), **settings))
        self.network = Network(self.protected)
        rng = np.random.default_rng(3)
        arrays = {
            wanted.name: (rng.normal(size=(count, *wanted.shape[1:])) + 0.5).astype(wanted.dtype)  # type: ignore[arg-type]
            for wanted in self.network.inputs
        }
        self.data = Dataset(arrays, None)
        self.clean: Weights = {name: tensor.decode() for name, tensor in self.network.tensors.items()}
        self.networks = LayerNetworks(self.protected, self.data, {"threads": threads})
        self.corrector = LayerCorrector(self.networks, self.clean)

    def outputs(self, weights: Weights, data: Dataset | None = None) -> list[Any]:
        return self.network.run(data or self.data, weights)

    def corrected(self, weights: Weights, data: Dataset | None = None) -> list[Any]:
        network, changed = self.corrector.apply(self.network, weights)
        return network.run(data or self.data, dict(changed))

    def noisy(self, seed: int = 0, size: float = 0.1) -> Weights:
        rng = np.random.default_rng(seed)
        return {
            name: (array + rng.normal(scale=size, size=array.shape)).astype(array.dtype)
            for name, array in self.clean.items()
        }


def scaled(case: Case, axis: int, factors: NDArray[Any]) -> Weights:
    """Return the weights of a model of KINDS with one factor for each slice along an axis."""
    ((name, weight),) = case.clean.items()
    shape = [1] * weight.ndim
    shape[axis] = len(factors)
    return {name: (weight * factors.reshape(shape)).astype(weight.dtype)}


# ------------------------------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_scaled_by_a_constant_per_channel_are_corrected_exactly(kind):
    text, axis = KINDS[kind]
    case = Case(text)
    factors = np.random.default_rng(1).uniform(0.5, 2, 8)
    weights = scaled(case, axis, factors)
    ((gain, shift),) = case.corrector.correction(weights).layers.values()
    unit = 2.0**-10 if kind == "float16" else ROUNDING  # of the weights themselves, and their sums
    np.testing.assert_allclose(gain * factors, 1, rtol=HALF + unit)
    expected, found = (np.asarray(each[0], np.float64) for each in (case.outputs(case.clean), case.corrected(weights)))
    # Both numbers are rounded: a relative error HALF of gain times output, and of the shift.
    largest = np.abs(expected).max() + np.abs(shift.astype(np.float64)).max()
    np.testing.assert_allclose(found, expected, atol=2 * (HALF + unit) * 2 * largest)
    assert not np.allclose(case.outputs(weights)[0], expected, atol=10 * HALF * largest)  # without, they are wrong


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_free_model_gets_gain_one_and_shift_zero(kind):
    case = Case(KINDS[kind][0])
    ((gain, shift),) = case.corrector.correction(case.clean).layers.values()
    assert (gain == 1).all()  # the same sums, divided by themselves
    assert (shift == 0).all()


DEEP = """
    net (float[n, 3, 8, 8] x) => (float[n, 12] y)
    <float[8, 3, 3, 3] a = random, float[8] bias = random, float[8, 8, 3, 3] b = random, float[8, 12] c = random> {
        first = Conv <pads = [1, 1, 1, 1]> (x, a, bias)
        active = Relu(first)
        second = Conv <pads = [1, 1, 1, 1]> (active, b)
        sum = Add(second, active)
        pooled = GlobalAveragePool(sum)
        flat = Flatten(pooled)
        y = Gemm(flat, c)
    }"""


def test_every_layer_has_the_statistics_of_the_noise_free_model_with_all_layers_corrected():
    case = Case(DEEP)
    weights = case.noisy()
    numbers = case.networks.numbers(weights, case.networks.targets(case.clean))
    corrected = dict(zip(("first", "second", "y"), zip(numbers[::2], numbers[1::2], strict=True), strict=True))
    assert {name: [half.tolist() for half in pair] for name, pair in corrected.items()} == {
        name: [half.tolist() for half in pair] for name, pair in case.corrector.correction(weights).layers.items()
    }
    expected, found = case.outputs(case.clean)[0], case.corrected(weights)[0]
    shift = np.abs(numbers[-1].astype(np.float64))
    np.testing.assert_allclose(found.std(axis=0), expected.std(axis=0), rtol=HALF + ROUNDING)
    assert (np.abs(found.mean(axis=0) - expected.mean(axis=0)) <= HALF * shift + ROUNDING).all()
    without = case.outputs(weights)[0]
    assert (np.abs(without.mean(axis=0) - expected.mean(axis=0)) > HALF * shift + ROUNDING).all()


NORMALIZED = """
    net (float[n, 3, 8, 8] x) => (float[n, 8, 6, 6] y)
    <float[8, 3, 3, 3] w = random, float[8] scale = random, float[8] shift = random, float[8] mean = random,
     float[8] variance = random> {
        c = Conv(x, w)
        y = BatchNormalization <epsilon = 1e-10> (c, scale, shift, mean, variance)
    }"""


def test_correction_before_batch_normalization_is_a_new_estimate_of_its_statistics():
    convolution = Case(NORMALIZED.replace("BatchNormalization <epsilon = 1e-10> (c, scale, shift, mean, variance)",
                                          "Identity(c)"))  # fmt: skip
    data, noisy = convolution.data, convolution.noisy()
    clean, output = (np.asarray(convolution.outputs(each)[0], np.float64) for each in (convolution.clean, noisy))
    over = (0, 2, 3)
    trained = model(NORMALIZED)
    for name, statistic in (("mean", clean.mean(axis=over)), ("variance", clean.var(axis=over))):
        trained.graph.initializers[name].const_value = ir.tensor(statistic.astype(np.float32), name=name)
    stored = open_protected(protected(trained))
    corrector = LayerCorrector(LayerNetworks(stored, data, {}), convolution.clean)
    network, weights = corrector.apply(Network(stored), noisy)
    (found,) = network.run(data, dict(weights))
    gamma, beta = (np.asarray(trained.graph.initializers[name].const_value, np.float64).reshape(-1, 1, 1)
                   for name in ("scale", "shift"))  # fmt: skip
    mean, deviation = (each.reshape(-1, 1, 1) for each in (output.mean(axis=over), output.std(axis=over)))
    normal = (output - mean) / deviation
    ((_, shift),) = corrector.correction(noisy).layers.values()
    moved = np.abs(shift.astype(np.float64) / clean.std(axis=over)).reshape(-1, 1, 1)
    bound = np.abs(gamma) * (HALF * (np.abs(normal) + np.abs(mean / deviation) + moved) + 10 * ROUNDING)
    assert (np.abs(found - (gamma * normal + beta)) <= bound).all()
    assert corrector.cost.numbers == 0  # BatchNormalization takes gain and shift into its own numbers


# ---------------------------------------------------------------------------------------------------- guards


LINEAR = KINDS["gemm, transposed"][0]


def changed(case: Case, channel: int, factor: float) -> Weights:
    return scaled(case, 0, np.where(np.arange(8) == channel, factor, 1.0))


def test_a_channel_without_spread_keeps_its_gain_and_gets_its_mean():
    case = Case(LINEAR)
    weights = changed(case, 3, 0.0)
    ((gain, shift),) = case.corrector.correction(weights).layers.values()
    assert gain[3] == 1
    expected, found = case.outputs(case.clean)[0], case.corrected(weights)[0]
    assert found[:, 3].std() < 1e-5
    assert abs(found[:, 3].mean() - expected[:, 3].mean()) <= HALF * abs(float(shift[3])) + ROUNDING
    assert (gain[np.arange(8) != 3] == 1).all()


@pytest.mark.parametrize(("factor", "limit"), [(100.0, 1 / MOST_GAIN), (0.01, MOST_GAIN)])
def test_gains_are_limited_and_means_are_right_all_the_same(factor, limit):
    case = Case(LINEAR)
    weights = changed(case, 5, factor)
    ((gain, shift),) = case.corrector.correction(weights).layers.values()
    assert gain[5] == limit
    expected, found = case.outputs(case.clean)[0], case.corrected(weights)[0]
    bound = HALF * abs(float(shift[5])) + ROUNDING * factor * np.abs(expected).max()
    assert abs(found[:, 5].mean() - expected[:, 5].mean()) <= bound


@pytest.mark.parametrize("factor", [np.nan, np.inf, 1e30])
def test_a_channel_that_no_float16_number_corrects_is_left(factor):
    case = Case(LINEAR)
    ((gain, shift),) = case.corrector.correction(changed(case, 2, factor)).layers.values()
    assert (gain[2], shift[2]) == (1, 0)
    assert np.isfinite(gain).all()
    assert np.isfinite(shift).all()


def test_numbers_are_the_same_bytes_for_any_number_of_threads():
    found = []
    for threads in (1, 2, 3, 8):
        case = Case(DEEP, threads=threads)
        numbers = case.networks.numbers(case.noisy(), case.networks.targets(case.clean))
        found.append([number.tobytes() for number in numbers])
    assert all(other == found[0] for other in found)


# ---------------------------------------------------------------------------------------------------- samples


def fixed(count: int) -> ir.Model:
    return protected(model(LINEAR.replace("[n,", f"[{count},")))


def rows(count: int, seed: int = 0, labels: bool = False) -> Dataset:
    array = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return Dataset({"x": array}, np.zeros(count, np.int64) if labels else None)


def test_labels_are_ignored_and_a_fixed_batch_takes_as_many_samples():
    assert one_call(fixed(10), rows(30, labels=True)).labels is None
    assert len(one_call(fixed(10), rows(30))) == 10
    assert len(one_call(protected(model(LINEAR)), rows(30))) == 30


@pytest.mark.parametrize(
    ("found", "data", "said"),
    [
        (fixed(10), rows(9), "takes 10 samples in each call, and there are 9 to correct it with"),
        (fixed(1), rows(9), "one call takes 1 sample, of which no standard deviation is known"),
        (fixed(1), replace(rows(9), one_by_one=True), "the model takes its samples one by one"),
    ],
)
def test_samples_that_say_nothing_are_refused(found, data, said):
    with pytest.raises(DataError, match=re.escape(said)):
        one_call(found, data)


def corrected_by(samples: Dataset, count: int) -> None:
    oa.evaluate(fixed(10), rows(30, labels=True), correct=samples, correct_samples=count, trials=2)


def compensated_by(samples: Dataset, count: int) -> None:
    plain = model(LINEAR.replace("[n,", "[10,"))
    oa.protect(
        plain, integers=4, selection=Selection(min_size=1), channel=QUIET, compensate=samples, compensate_samples=count
    )


@pytest.mark.parametrize(("using", "name"), [(corrected_by, "correct it"), (compensated_by, "compensate")])
def test_asking_for_fewer_samples_than_a_call_takes_is_a_fault_of_the_argument(using, name):
    for held in (5, 30):
        with pytest.raises(
            OptionError, match=f"{name.split()[0]}_samples is 5, and the model takes 10 samples in each call"
        ):
            using(rows(held), 5)
    with pytest.raises(DataError, match=f"takes 10 samples in each call, and there are 5 to {name} with"):
        using(rows(5), 20)
    using(rows(30), 20)


def test_samples_that_are_also_evaluated_are_counted():
    data = rows(50)
    assert list(seen_samples(rows(20, seed=1), data)) == []
    seen = Dataset({"x": np.concatenate([data.inputs["x"][40:], rows(5, seed=2).inputs["x"]])}, None)
    (text,) = seen_samples(seen, data)
    assert text.startswith("10 of 15 samples that correct the model are also samples that the model is evaluated on")
    (text,) = seen_samples(seen, data, compensate=True)
    assert text.startswith(
        "10 of 15 samples that compensate rounding errors are also samples that the model is evaluated on: the comp"
    )


# --------------------------------------------------------------------------------------------- by the law


SHRUNK = Scheme.paper("mapping", channel=UNIT, large_fraction=0.3, estimator="posterior")


@pytest.mark.parametrize("name", ["affine", "clipped", "posterior", "unbiased"])
def test_a_factor_restores_the_gain_that_reads_have_on_average(name):
    scheme = replace(SHRUNK, estimator=name)
    found = open_protected(protected(model("net (float[n, 64] x) => (float[n, 64] y) <float[64, 64] w = random> "
                                   "{ y = MatMul(x, w) }"), scheme))  # fmt: skip
    (tensor,) = found.tensors
    factor = factor_of_tensor(tensor, scheme)
    weight = tensor.decode().astype(np.float64).ravel()
    gains = [float(weight @ found.read(trial=trial)["w"].astype(np.float64).ravel()) for trial in range(60)]
    gains = np.array(gains) / float(weight @ weight)
    error = 4 * gains.std(ddof=1) / np.sqrt(len(gains)) + 2 * HALF + 2e-3  # the levels between knots of tables
    assert abs(factor * gains.mean() - 1) <= error
    if name == "affine":
        assert factor == 1
    if name == "posterior":
        assert factor > 1 + 2 * HALF


def test_weights_without_cells_have_no_factor():
    scheme = Scheme.int8(channel=QUIET)
    (tensor,) = open_protected(protected("matmul", scheme)).tensors
    assert factor_of_tensor(tensor, scheme) == 1


# -------------------------------------------------------------------------------------------------- library


NET = """
    net (float[n, 3, 8, 8] x) => (float[n, 12] y)
    <float[8, 3, 3, 3] a = random, float[8] bias = random, float[8, 12] c = random, float[300, 12] table = random,
     int64[1] zero = {0}> {
        first = Conv <pads = [1, 1, 1, 1]> (x, a, bias)
        active = Relu(first)
        pooled = GlobalAveragePool(active)
        flat = Flatten(pooled)
        scores = Gemm(flat, c)
        row = Gather(table, zero)
        y = Add(scores, row)
    }"""
LOUD = {"channel": "gaussian:sigma=0.3", "selection": oa.Selection(min_size=1), "strategy": "sign"}


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def stored() -> ProtectedModel:
    return oa.protect(model(NET), **LOUD)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shrunk() -> ProtectedModel:
    return oa.protect(model(NET), estimator="posterior", **LOUD)  # type: ignore[arg-type]


def test_an_evaluation_shows_both_of_the_same_reads(stored, caplog):
    plain = oa.evaluate(stored, images(50), metric="relative_error", trials=3)
    with caplog.at_level(logging.WARNING):
        found = oa.evaluate(stored, images(50), metric="relative_error", trials=3, correct=images(90, 1))
    assert "not corrected after programming: 'table' (used by Gather)" in caplog.text
    assert found.uncorrected is not None
    assert found.uncorrected.values == plain.values
    assert found.uncorrected.sqnr_db == plain.sqnr_db
    assert found.uncorrected.mean == plain.mean
    assert found.values != plain.values
    assert (found.corrected_by, plain.corrected_by) == ("90 samples", None)
    assert found.correction is not None
    assert tuple(found.correction) == (2, 8 + 24)  # a gain for each channel, and a shift where there is no bias
    assert found.correction.bits == 16 * 32
    assert found.change == pytest.approx(np.mean(np.subtract(found.values, plain.values)))
    body = found.to_dict()
    assert body["correction"] | {"change_ci95": None} == {
        "by": "90 samples", "layers": 2, "numbers": 32, "bits": 512, "change": found.change, "change_ci95": None,
    }  # fmt: skip
    assert body["uncorrected"]["values"] == list(plain.values)
    assert "without correction" in str(found)
    assert not {"correction", "uncorrected"} & set(plain.to_dict())


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("correct", ["gain", "samples"])
def test_a_model_that_is_read_back_holds_the_correction_that_was_evaluated(correct, decoded, shrunk):
    seen = []

    def metric(outputs, *, labels, clean):
        seen.append(outputs[0])
        return 0.0

    options: Any = {"seed": 4, "correct": "gain" if correct == "gain" else images(90, 1)}
    evaluation = oa.evaluate(shrunk, images(50), metric=metric, trials=2, **options)
    uncorrected, corrected = seen[-2:]  # of trial 1
    read = oa.readback(shrunk, trial=1, decoded=decoded, **options)
    (found,) = run(read.model, {"x": images(50)})
    # Sums of 27 products are rounded in another order where weights are decoded in the graph.
    np.testing.assert_allclose(found, corrected, atol=1e-5 * np.abs(corrected).max())
    assert not np.allclose(corrected, uncorrected, atol=1e-3 * np.abs(corrected).max())
    assert read.correction == evaluation.correction
    assert "kept" in str(read)
    kinds = [node.op_type for node in read.model.graph]
    assert kinds.count("Mul") >= (3 if correct == "gain" else 2)
    assert decoded == all(node.domain == "" for node in read.model.graph)


def test_experiments_and_evaluations_correct_alike(stored):
    calibration = images(90, 1)
    experiment = oa.Experiment(model(NET), images(50), "relative_error", correct=calibration)
    scheme = oa.Scheme.paper("sign", channel=LOUD["channel"])
    score = experiment.score(scheme, trials=2, selection=oa.Selection(min_size=1))
    alone = oa.evaluate(
        stored, images(50), metric="relative_error", trials=2, reference=model(NET), correct=calibration
    )
    np.testing.assert_allclose(score.values, alone.values, rtol=1e-4)
    assert score.correction == alone.correction


def other_network():
    """Return a network with the shapes of `NET`, and other weights."""
    other = model(NET)
    for value in other.graph.initializers.values():
        array = value.const_value.numpy()
        value.const_value = ir.tensor(np.random.default_rng(5).permutation(array.reshape(-1)).reshape(array.shape))
    return other


def test_reads_are_not_corrected_towards_another_network(stored):
    """Its weights say nothing of how those that were stored should be: it is only what losses are counted from."""
    clean = [run(model(NET), {"x": images(50)})[0]]

    def found(given, reference, plan=None):
        options = {"correct": images(90, 1), "reference": reference, "clean": clean}
        selection = None if plan is None else oa.Selection(min_size=1)
        return oa.Experiment(given, images(50), "relative_error", **options).score(plan, trials=2, selection=selection)

    alone, original, other = (found(stored, each) for each in (None, model(NET), other_network()))
    assert other.values == alone.values
    said = "the reference has other weights than those that were stored"
    assert [any(said in text for text in each.warnings) for each in (alone, original, other)] == [False, False, True]
    scheme = oa.Scheme.paper("sign", channel=LOUD["channel"])
    assert found(model(NET), other_network(), scheme).values == found(model(NET), None, scheme).values
    with pytest.raises(ModelError, match=said):
        oa.readback(stored, correct=images(90, 1), reference=other_network())


def test_a_reference_without_a_weight_is_a_warning_or_an_error(stored):
    renamed = model(NET)
    value = next(iter(renamed.graph.initializers.values()))
    value.name = "another"
    given = {"correct": images(90, 1), "reference": renamed}
    found = oa.evaluate(stored, images(50), trials=1, **given)
    assert any("the reference has no weight" in text for text in found.warnings)
    with pytest.raises(ModelError, match="the reference has no weight"):
        oa.readback(stored, **given)


def test_fewer_samples_are_used_if_fewer_are_asked_for(stored):
    found = oa.evaluate(
        stored, images(20), trials=1, correct={"x": images(90, 1), "y": np.zeros(90)}, correct_samples=40
    )
    assert found.corrected_by == "40 samples"
    again = oa.evaluate(stored, images(20), trials=1, correct=images(40, 1))
    assert again.values == found.values


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"correct": "calib.npz"}, DataError, "correct is 'calib.npz'; it must be a file, or the word 'gain'"),
        ({"correct": 3}, DataError, "correct: data is 3; it must be the path of an npz file"),
        ({"correct": images(9)[:, :2]}, DataError, "correct: input 'x' takes shape"),
        ({"correct": images(1)}, DataError, "one call takes 1 sample"),
        ({"correct": images(9), "correct_samples": 1}, OptionError, "correct_samples is 1; it must be from 2 to"),
        ({"correct": "gain", "correct_samples": 9}, OptionError, "correct is 'gain', which takes none: leave it out"),
        ({"correct_samples": 9}, OptionError, "correct_samples is 9, and no samples are given: leave it out"),
    ],
)
@pytest.mark.parametrize("function", ["evaluate", "readback", "sweep"])
def test_what_cannot_correct_is_refused_in_one_line(function, options, error, said, stored):
    call: Any = {
        "evaluate": lambda: oa.evaluate(stored, images(9), trials=1, **options),
        "readback": lambda: oa.readback(stored, **options),
        "sweep": lambda: oa.sweep(model(NET), images(9), trials=1, engine="serial", **options),
    }[function]
    with pytest.raises(error, match=re.escape(said)) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_images_are_prepared_only_where_samples_are_read(stored):
    with pytest.raises(OptionError, match="mean is given, and correct is not, so no images are read: leave it out"):
        oa.readback(stored, mean=0.5)


def test_a_plain_model_has_nothing_to_correct():
    with pytest.raises(OptionError, match="the model is not protected, so nothing of it is read and corrected"):
        oa.evaluate(model(NET), images(9), correct=images(9, 1))


def test_a_plain_model_is_corrected_towards_its_own_weights():
    """Not towards those that a plan stores: steps of 2.5 lose half of the gain, which the correction restores.

    Outputs have the mean and deviation of the original then, but for float16 gains and shifts, of 2^-11 of each.
    """
    plain = model("net (float[n, 16] x) => (float[n, 8] y) <float[16, 8] w = random> { y = MatMul(x, w) }")
    scheme = Scheme.entropy_coded(2.5, channel=QUIET).changed(estimator="affine")
    x = np.random.default_rng(3).normal(size=(400, 16)).astype(np.float32)
    tried = oa.Experiment(plain, {"x": x}, correct={"x": x}, correct_samples=400)
    (corrected,) = tried.trials(scheme, selection=oa.Selection(min_size=1)).outputs(seed=0, trial=0)
    (original,) = tried.clean
    spread = original.std(axis=0)
    np.testing.assert_allclose(corrected.std(axis=0), spread, rtol=2.0**-10)
    np.testing.assert_allclose(corrected.mean(axis=0), original.mean(axis=0), atol=float(spread.max()) * 2.0**-9)
