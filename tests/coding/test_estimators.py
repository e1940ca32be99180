"""The seam for estimators, with one that the tests define: the same estimate wherever a level is read."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import scipy.stats

import onnx_analog as oa
from onnx_analog import channels, named
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.coding import estimators
from onnx_analog.coding.estimators import Affine, Estimator, Written, estimator, gain_of, table_of
from onnx_analog.coding.gain import factor_of
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import SCHEMES_KEY, stored_tensors
from onnx_analog.passes import DecodePass, ProtectPass, ReadbackPass
from onnx_analog.randomness import stream
from onnx_analog.run.read import Decoder
from tests.models import QUIET, f32, holding

NAME = f"{__name__}:Shrink"


class Shrink(Estimator):
    """Moves each read towards the mean of its class, by the share of noise in it, as a linear estimator does."""

    seen: ClassVar[list[tuple[int, tuple[int, ...]]]] = []

    def fitted(self, written):
        level, class_index, cells = written.level, written.class_index, written.cells
        self.seen.append((level.size, cells))
        index = np.zeros(level.size, np.uint8) if class_index is None else class_index
        present = [level[index == number] for number in range(len(cells))]
        mean = f32([part.mean() if part.size else 0 for part in present])
        spread = f32([part.var() if part.size else 0 for part in present])
        noise = f32([QUIET.sigma**2 / max(number, 1) for number in cells])
        weight = spread / (spread + noise)

        def correct(read, block):
            read -= mean[index[block]]
            read *= weight[index[block]]
            read += mean[index[block]]

        return correct

    def table_bits(self, cells):
        return 64 * len(cells)


class NotOne:
    """No estimator."""


def written(level, *, index=None, cells=(1,), channel=QUIET, alpha=None, beta=None, group=None):
    """Return levels of one tensor; with α = 1 and β = 0, sizes are levels."""
    ones = np.ones((1, len(cells)), np.float32)
    return Written(
        level=f32(level), class_index=index, cells=cells, channel=channel,
        alpha=ones if alpha is None else alpha, beta=0 * ones if beta is None else beta, group=group,
    )  # fmt: skip


TRIALS = 30  # of a mean
WEIGHT = f32(np.random.default_rng(0).normal(size=(40, 30)))
SCHEMES = {
    "redundancy": Scheme(channel=QUIET, estimator=NAME),
    "raw": Scheme.paper("raw", channel=QUIET, estimator=NAME),
    "some without cells": Scheme(
        classes=4, partition="lloyd", cells=(0, 1, 2, 3), sign="level", channel=QUIET, estimator=NAME
    ),
    "channel": Scheme(channel=QUIET, estimator=NAME, granularity="channel"),
    "equal steps": Scheme(
        classes=9, partition="uniform", relative_step=0.7, cells=(1,), sign="level", channel=QUIET, estimator=NAME
    ),
    "equal steps, mixed": Scheme(
        classes=4, partition="uniform", cells=(0, 1, 1, 2), channel=QUIET, estimator=NAME, granularity="channel"
    ),
}
OURS = {
    f"{name}, {estimator}": scheme.changed(estimator=estimator)
    for name, scheme in SCHEMES.items()
    for estimator in ("clipped", "posterior", "unbiased")
}


def expected(scheme: Scheme, *, seed: int, trial: int) -> np.ndarray:
    """Return what the estimator makes of levels that are read without one, in one piece."""
    plain = oa.protect(holding(w=WEIGHT), scheme.changed(estimator="affine")).model
    (before,), (after,) = stored_tensors(plain), stored_tensors(ReadbackPass(seed=seed, trial=trial)(plain).model)
    level = after.level.copy()
    correct = estimator(scheme.estimator).fitted(before.written(scheme))
    assert correct is not None
    correct(level, slice(None))
    (stored,) = stored_tensors(oa.protect(holding(w=WEIGHT), scheme).model)  # its points may have a gain
    return stored.decode(level)


@pytest.mark.parametrize("name", [*SCHEMES, *OURS])
def test_a_level_is_estimated_alike_wherever_it_is_read(name, monkeypatch):
    """By ReadbackPass, by ProtectedModel.read, and by evaluate's Decoder, in blocks: the same bytes."""
    monkeypatch.setattr("onnx_analog.randomness.BLOCK", 500)
    scheme = {**SCHEMES, **OURS}[name]
    protected = oa.protect(holding(w=WEIGHT), scheme).model
    decoder = Decoder(stored_tensors(protected)[0])
    for trial in (0, 1):
        wanted = expected(scheme, seed=5, trial=trial)
        read = ReadbackPass(seed=5, trial=trial)(protected).model
        assert np.array_equal(stored_tensors(read)[0].decode(), wanted)
        assert np.array_equal(open_protected(protected).read(seed=5, trial=trial)["w"], wanted)
        assert np.array_equal(decoder.weights(seed=5, trial=trial), wanted)
        plain = DecodePass()(read).model
        assert np.array_equal(plain.graph.initializers["w"].const_value.numpy(), wanted)


def test_estimates_are_nearer_than_reads():
    scheme = Scheme.paper("sign", channel=GaussianNoise(sigma=0.4))
    by_shrinking, plain = (
        open_protected(oa.protect(holding(w=WEIGHT), scheme.changed(estimator=name)).model) for name in (NAME, "affine")
    )
    off, off_plain = (np.square(model.read()["w"] - WEIGHT).mean() for model in (by_shrinking, plain))
    assert off < off_plain


def test_training_noise_is_estimated_too():
    import torch  # noqa: F401 - the test needs it

    from onnx_analog.train.noise import ChannelNoise

    scheme = SCHEMES["redundancy"]
    plain = ChannelNoise(scheme=scheme.changed(estimator="affine")).perturbed({"w": WEIGHT}, seed=1, step=2)["w"]
    read = ChannelNoise(scheme=scheme).perturbed({"w": WEIGHT}, seed=1, step=2)["w"]
    (tensor,) = stored_tensors(oa.protect(holding(w=WEIGHT), scheme).model)
    level = tensor.level.copy()
    cells = np.array(scheme.cells_of_class)[tensor.class_index]
    drawn = scheme.channel.read(level, cells=cells, rng=stream(1, 2, "w", plane="training"))
    assert np.array_equal(tensor.decode(drawn), plain)
    Shrink().fitted(tensor.written(scheme))(drawn, slice(None))
    assert np.array_equal(tensor.decode(drawn), read)


def test_the_tables_of_an_estimator_are_counted():
    for scheme in SCHEMES.values():
        (counted,) = oa.protect(holding(w=WEIGHT), scheme).manifest.tensors
        (plain,) = oa.protect(holding(w=WEIGHT), scheme.changed(estimator="affine")).manifest.tensors
        assert counted.bits["codebook"] == plain.bits["codebook"] + 64 * (
            len(set(scheme.cells)) if scheme.shares_tables else scheme.classes
        )


def test_classes_of_equal_steps_share_a_table_of_all_their_levels():
    """It is the table of one class that holds the levels of all."""
    rng = np.random.default_rng(7)
    level = f32(rng.uniform(-0.6, 0.7, 4000) * rng.beta(2, 2, 4000))
    index = rng.integers(0, 5, 4000).astype(np.uint8)
    pooled = written(level, index=index, cells=(1, 1, 2, 1, 1))
    pooled = dataclasses.replace(pooled, shared=True)
    assert pooled.tables == (1, 2)
    for number, chosen in ((0, index != 2), (1, index == 2)):
        alone = written(level[chosen], cells=(pooled.tables[number],))
        assert np.array_equal(table_of(pooled, number).corrections, table_of(alone, 0).corrections)


def test_an_estimator_is_told_cells_and_classes():
    Shrink.seen.clear()
    ReadbackPass()(oa.protect(holding(w=WEIGHT), SCHEMES["redundancy"]).model)
    assert set(Shrink.seen) == {(1200, (1, 20))}


def test_affine_takes_reads_as_they_are():
    assert isinstance(estimator("affine"), Affine)
    assert estimator("affine").fitted(written(f32([0.1]))) is None
    assert estimator("affine").table_bits((1, 20)) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("best", "no estimator is called 'best': choose from affine"),
        (f"{__name__}:NotOne", "is not a subclass of"),
        (f"{__name__}:stream", "is not a subclass of"),
        (f"{__name__}:Nobody", "cannot be imported"),
        (":", "is not of the form module:function"),
    ],
)
def test_what_is_no_estimator_is_refused(name, said):
    with pytest.raises(OptionError, match=said):
        Scheme(estimator=name)


# --------------------------------------------------------------------------------------------------- in a file

UNKNOWN = "estimator_of_nobody:Estimator"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Make a module in the current folder that must not be imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "estimator_of_nobody.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    yield
    assert "estimator_of_nobody" not in sys.modules


def renamed(body: str) -> str:
    assert json.dumps(NAME) in body
    return body.replace(json.dumps(NAME), json.dumps(UNKNOWN))


@pytest.mark.usefixtures("trap")
def test_a_model_that_names_an_estimator_nobody_asked_for_is_refused():
    model = oa.protect(holding(w=WEIGHT), SCHEMES["redundancy"]).model
    model.metadata_props[SCHEMES_KEY] = renamed(model.metadata_props[SCHEMES_KEY])
    with pytest.raises(ModelError, match="estimator 'estimator_of_nobody:Estimator' is not loaded"):
        open_protected(model)


@pytest.mark.usefixtures("trap")
def test_a_plan_or_a_scheme_that_names_one_is_refused(tmp_path):
    scheme, plan = SCHEMES["redundancy"], Plan(default=SCHEMES["redundancy"])
    with pytest.raises(OptionError, match="is not loaded: import it"):
        Scheme.from_dict(json.loads(renamed(json.dumps(scheme.to_dict()))))
    (tmp_path / "plan.json").write_text(renamed(plan.to_json()), encoding="utf-8")
    with pytest.raises(OptionError, match="is not loaded: import it"):
        Plan.read(tmp_path / "plan.json")


def test_a_file_may_name_an_estimator_that_was_asked_for():
    scheme = SCHEMES["redundancy"]
    assert Scheme.from_dict(scheme.to_dict()) == scheme
    assert isinstance(estimator(NAME), Shrink)
    assert NAME in estimators._KNOWN
    assert ProtectPass(plan=scheme).plan.default == scheme


def test_estimators_are_made_once():
    assert estimator(NAME) is estimator(NAME)


def test_the_class_of_an_estimator_goes_with_a_scheme_to_a_process_that_does_not_know_it(tmp_path, monkeypatch):
    (tmp_path / "own_estimator.py").write_text(
        "import onnx_analog as oa\n\nclass Own(oa.Estimator):\n"
        "    def fitted(self, written): return None\n"
        "    def table_bits(self, cells): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    scheme = Scheme(estimator="own_estimator:Own", cells=(2,))
    (tmp_path / "scheme").write_bytes(named.dumps(scheme))
    code = (
        "import pathlib, sys; from onnx_analog import named; from onnx_analog.coding import estimators; "
        "scheme = named.loads(pathlib.Path(sys.argv[1]).read_bytes()); estimators.check_known(scheme.estimator); "
        "print(estimators.estimator(scheme.estimator).table_bits(()), scheme.cells)"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "scheme")],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "3 (2,)"
    sys.modules.pop("own_estimator", None)


# ---------------------------------------------------------------------------------------- those of the package

NAMES = ("affine", "clipped", "posterior", "unbiased")
LEVELS = f32(np.clip(np.random.default_rng(1).normal(scale=0.2, size=40_000), -0.6, 0.7))


def estimated(name, tensor, read):
    """Return the estimates of reads (M,) of a tensor."""
    result = read.copy()
    correct = estimator(name).fitted(tensor)
    if correct is not None:
        for start in range(0, result.size, 7000):
            block = slice(start, min(start + 7000, result.size))
            correct(result[block], block)
    return result


def test_the_posterior_of_a_normal_level_in_normal_noise_is_the_closed_form():
    """A level of variance v in noise of variance s² is estimated as y·v/(v + s²)."""
    channel, v, s = GaussianNoise(sigma=0.1, low=-1.0, high=1.0), 0.2**2, 0.1
    # Quantiles, so that the histogram has no noise of its own.
    level = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000, scale=0.2)
    table = table_of(written(level, channel=channel), 0)
    read = np.linspace(-0.5, 0.5, 41)
    # Bins of 2/512 are wide as 0.02 σ, float16 corrections of 0.1 round by 2^-5·2^-10, and the table is interpolated
    # exactly, as the closed form is linear; the density of the levels is constant in a bin, whose second-order error is
    # (width²/12)·(d log p/dx)' = (0.0039²/12)/v·|y|, far below 1e-4.
    np.testing.assert_allclose(table.at(read), read * v / (v + s**2), atol=2e-4)


class Shifted(GaussianNoise):
    """Reads are 0.05 above the level on average, as those of cells that drift."""

    def moments(self, level, *, cells=1):
        mean, std = super().moments(level, cells=cells)
        return mean + 0.05, std


def test_a_mean_that_moved_is_moved_back():
    """As above, with y - 0.05 in the place of y."""
    level = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000, scale=0.2)
    table = table_of(written(level, channel=Shifted(sigma=0.1, low=-1.0, high=1.0)), 0)
    read = np.linspace(-0.45, 0.55, 41)
    np.testing.assert_allclose(table.at(read), (read - 0.05) * 0.8, atol=2e-4)


@pytest.mark.parametrize("sigma", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("name", NAMES)
def test_with_little_noise_every_estimate_is_the_level(name, sigma):
    channel = GaussianNoise(sigma=sigma)
    level = f32(np.random.default_rng(2).uniform(*channel.span, size=40_000))  # a class fills the output range
    level = clip_to_range(level, channel.span)
    tensor = written(level, channel=channel)
    read = channel.read(level, cells=1, rng=stream(0, 0, "test"))
    off = np.sqrt(np.square(estimated(name, tensor, read).astype(np.float64) - level).mean())
    # float32 levels round by 2^-24, and the gain is within the quadrature of 1.
    assert off <= 1.05 * sigma + 2e-7


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset", "rram-wan"])
@pytest.mark.parametrize("cells", [1, 4])
def test_no_estimate_is_nearer_than_the_posterior_mean(name, cells):
    channel = channels.resolve(name)
    level = clip_to_range(LEVELS, channel.span)
    tensor = written(level, channel=channel, cells=(cells,))
    read = channel.read(level, cells=cells, rng=stream(0, 0, "test"))
    off = {each: np.square(estimated(each, tensor, read) - level).astype(np.float64) for each in NAMES}
    for other in NAMES:
        # The difference of two paired means of squares, at 4 standard errors.
        difference = off["posterior"] - off[other]
        assert difference.mean() <= 4 * difference.std() / np.sqrt(level.size)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("scheme", [Scheme.paper("mapping"), Scheme.paper("raw"), Scheme(cells=(1, 4))], ids=str)
def test_unbiased_weights_keep_their_gain_and_posterior_means_do_not(scheme, granularity):
    """Σw·ŵ = Σw² on average: within 5 standard errors over trials, and the tables' own error of 1e-3."""
    scheme = scheme.changed(granularity=granularity, channel="pcm")
    weight = WEIGHT.astype(np.float64).reshape(-1)
    gains = {}
    for name in ("posterior", "unbiased"):
        model = open_protected(oa.protect(holding(w=WEIGHT), scheme.changed(estimator=name)).model)
        read = [model.read(trial=trial)["w"].reshape(-1) @ weight / (weight @ weight) for trial in range(TRIALS)]
        gains[name] = np.mean(read), np.std(read) / np.sqrt(TRIALS)
    mean, error = gains["unbiased"]
    assert mean == pytest.approx(1, abs=5 * error + 1e-3)
    mean, error = gains["posterior"]
    assert mean < 1 - 5 * error


def test_the_variance_of_a_read_falls_with_the_number_of_cells_and_the_gain_goes_to_1():
    tensors = [written(LEVELS, cells=(cells,), channel=GaussianNoise(sigma=0.3)) for cells in (1, 4, 16, 256)]
    gains = [gain_of(tensor) for tensor in tensors]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] == pytest.approx(1, abs=(0.3**2 / 256) / float(LEVELS.var()) + 1e-3)


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_both_ways_to_compute_a_gain_agree(sigma):
    """At 512 levels and between, or at every level by float32 reads: apart by the curvature between two levels."""
    tensor = written(LEVELS, channel=GaussianNoise(sigma=sigma))
    assert gain_of(tensor) == pytest.approx(factor_of(tensor, estimator("posterior")), rel=1e-4)
    assert factor_of(tensor, estimator("unbiased")) == pytest.approx(1, rel=1e-4)
    assert gain_of(tensor) != pytest.approx(1, rel=1e-4)


def test_a_class_that_is_empty_or_has_no_cells_is_left_alone():
    index = np.zeros(LEVELS.size, np.uint8)
    tensor = written(LEVELS, index=index, cells=(1, 3, 0))
    assert not table_of(tensor, 1).corrections.any()
    assert not table_of(tensor, 2).corrections.any()
    assert np.isfinite(estimated("unbiased", tensor, LEVELS)).all()


def test_reads_far_outside_are_finite_and_inside_the_table():
    tensor = written(LEVELS, channel=GaussianNoise(sigma=0.05))
    far = f32([-1e30, -5, 5, 1e30])
    low, high = LEVELS.min(), LEVELS.max()
    for name in ("clipped", "posterior"):
        found = estimated(name, tensor, far)
        assert np.isfinite(found).all()
        assert (found >= min(low, QUIET.span[0]) - 0.01).all()
        assert (found <= max(high, QUIET.span[1]) + 0.01).all()


def test_tables_are_counted_for_each_class_with_cells():
    bits = {name: estimator(name).table_bits((1, 0, 3)) for name in NAMES}
    assert bits == {"affine": 0, "clipped": 0, "posterior": 2 * 64 * 16, "unbiased": 2 * 64 * 16 + 32}


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_a_read_is_corrected_by_what_its_table_interpolates(sigma):
    """At all knots, between them and beyond both ends, for each class."""
    rng = np.random.default_rng(0)
    level, index = rng.uniform(-0.6, 0.7, 900), np.repeat(np.arange(3, dtype=np.uint8), 300)
    tensor = written(level, index=index, cells=(1, 4, 20), channel=GaussianNoise(sigma=sigma))
    for number in range(3):
        table = table_of(tensor, number)
        read = table.low + table.step * np.linspace(-1, estimators.KNOTS, 300)
        whole = np.zeros(900)
        whole[index == number] = read
        # A float32 read is off by u·|read|, which the slope between two knots enlarges; sums round three times more.
        steepest = 1 + np.abs(np.diff(table.corrections)).max() / table.step
        bound = 4 * 2.0**-24 * (1 + np.abs(read).max()) * steepest
        found = estimated("posterior", tensor, f32(whole))[index == number]
        assert np.abs(found - table.at(read)).max() <= bound


@pytest.mark.parametrize("name", ["pcm", "pcm-partial-reset", "pcm-drift", "rram-wan", "rram-milo"])
def test_tables_reach_4_standard_deviations_beyond_both_ends(name):
    """Of the end with the larger σ. No table reaches further than 24 knots, which leaves 15 steps for the range."""
    channel = channels.resolve(name)
    low, high = channel.span
    table = table_of(written(np.linspace(low, high, 100), channel=channel), 0)
    _, std = channel.moments(clip_to_range(f32([low, high]), channel.span))
    reach = min(4 * std.max(), 24 / 15 * (high - low))
    assert table.low <= low - reach + 1e-9
    assert table.low + 63 * table.step >= high + reach - 1e-9


def test_a_read_far_from_all_levels_of_its_class_is_taken_for_the_nearest():
    table = table_of(written(np.linspace(0.1, 0.2, 500), channel=GaussianNoise(sigma=0.001)), 0)
    width = 1.4 / 512  # of a bin; a float16 correction below 1 is off by 2⁻¹² at most
    assert table.at(np.array([-0.6, 0.6])) == pytest.approx([0.1, 0.2], abs=width + 2**-12)
