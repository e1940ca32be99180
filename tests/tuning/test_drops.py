"""Drops that are paired by sample: their errors against many draws, and the samples that would decide."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.metrics import METRICS
from onnx_analog.tuning.drops import Drop, check_paired, drop_of, noise, right, samples_needed
from onnx_analog.tuning.sensitivity import divergence
from tests.models import model
from tests.run.nets import LINEAR, rows

LOUD = Scheme.paper("raw", channel=GaussianNoise(sigma=0.1))


def experiment(samples=200, labels=True):
    return Experiment(model(LINEAR), rows(samples, labels=labels))


@pytest.mark.parametrize("labels", [True, False])
def test_the_drop_is_that_of_the_evaluation(labels):
    tried = experiment(labels=labels)
    drop = drop_of(tried, tried.trials(LOUD), seed=3, count=4)
    evaluation = tried.score(LOUD, seed=3, trials=4)
    original = tried.original_value if labels else 1.0
    assert drop.mean == pytest.approx(original - evaluation.mean)
    assert drop.of_trials == pytest.approx(np.std(evaluation.values, ddof=1) / 2)
    assert (drop.samples, drop.trials) == (200, 4)
    assert right(tried, tried.clean).mean() == pytest.approx(original)


def test_the_divergence_is_the_mean_over_trials():
    tried = experiment()
    trials = tried.trials(LOUD)
    distance = divergence(tried.clean, tried.chosen.axis)
    apart = [distance(trials.outputs(seed=3, trial=trial)) for trial in range(4)]
    assert drop_of(tried, trials, seed=3, count=4).divergence == pytest.approx(np.mean(apart))
    assert min(apart) > 0


def test_without_noise_nothing_is_lost():
    tried = experiment()
    digital = Scheme.int8(channel=GaussianNoise(sigma=1e-6))
    drop = drop_of(tried, tried.trials(digital), seed=0, count=1)
    assert drop.of_trials == 0
    assert drop.mean == pytest.approx(tried.original_value - tried.stored_value(digital))


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 1 - 0.05 / 6])
def test_where_no_sample_differs_some_may_in_truth(confidence):
    """With a chance p for each of n samples, none differs with the chance (1 - p)^n: 1 - c at p = -ln(1 - c)/n."""
    tried = experiment()
    exact = drop_of(tried, tried.trials(Scheme.int8(channel=GaussianNoise(sigma=1e-6))), seed=0, count=1)
    assert exact.mean == 0
    bound = exact.upper(confidence)
    assert (1 - bound) ** exact.samples <= (1 - confidence) * (1 + 1e-9)
    assert exact.lower(confidence) == -bound  # as many may be gained


def test_the_interval_holds_the_mean_of_new_samples_and_trials():
    """Samples are right before with chance 0.9, and after with 0.88 on average; the noise of a trial moves that.

    An interval of 95 % misses in 5 % of 300 draws: at most 8 % within four standard deviations, 1.26 % each.
    """
    rng, missed, n, count = np.random.default_rng(0), 0, 400, 5
    for _ in range(300):
        before = rng.random(n) < 0.9
        moved = 0.02 + 0.01 * rng.standard_normal(count)
        rows_ = np.stack([before.astype(float) - (before & (rng.random(n) > each / 0.9)) for each in moved])
        lost = np.maximum(rows_, 0).mean()
        errors = (rows_.mean(axis=0).std(ddof=1) / n**0.5, rows_.mean(axis=1).std(ddof=1) / count**0.5)
        low, high = Drop(rows_.mean(), lost, *errors, n, count, 0.0).interval()
        missed += not low <= 0.02 <= high
    assert missed / 300 <= 0.05 + 4 * 0.0126


def test_where_many_samples_differ_bounds_are_those_of_normal_and_student_s_laws():
    drop = Drop(0.01, 0.05, 0.01, 0.004, 1000, 5, 0.0)
    reach = math.hypot(scipy.stats.norm.ppf(0.95) * 0.01, scipy.stats.t.ppf(0.95, 4) * 0.004)
    assert drop.upper(0.95) == pytest.approx(0.01 + reach, rel=0.05)
    assert drop.lower(0.95) == pytest.approx(0.01 - reach, rel=0.05)
    assert drop.upper(0.95) >= 0.01 + reach
    assert drop.interval(0.9) == (drop.lower(0.95), drop.upper(0.95))


@pytest.mark.parametrize("expected", [2, 8, 15, 60])
def test_few_losses_are_bounded_as_surely_as_many(expected):
    """Of 2,000 samples each is lost with the same chance: the bound of 99.17 % misses in 0.83 % of 3,000 draws at most.

    Four standard deviations of the share of misses are 0.66 %.
    """
    n, confidence = 2000, 1 - 0.05 / 6
    lost = np.random.default_rng(expected).binomial(n, expected / n, size=3000) / n
    errors = np.sqrt(lost * (1 - lost) / n)
    missed = [Drop(x, x, e, 0.0, n, 1, 0.0).upper(confidence) < expected / n for x, e in zip(lost, errors, strict=True)]
    assert np.mean(missed) <= 1 - confidence + 0.0066


@pytest.mark.parametrize("few", [(0.2, 0.0), (1, 0.2), (3, 1), (6, 3), (14, 6), (30, 20), (0.2, 1), (0.2, 4)])
def test_bounds_of_few_samples_that_differ_miss_as_seldom_as_they_say(few):
    """Lost and gained samples are Poisson; the chance that a bound misses is summed over all counts up to 80."""
    n, confidence = 2000, 1 - 0.05 / 6
    counts = np.arange(80)
    chances = np.outer(*(scipy.stats.poisson.pmf(counts, mean) for mean in few))
    true, missed = (few[0] - few[1]) / n, np.zeros(2)
    for lost, gained in zip(*np.nonzero(chances > 1e-9), strict=True):
        mean = (lost - gained) / n
        error = math.sqrt(max((lost + gained) / n - mean**2, 0) / n)
        drop = Drop(mean, lost / n, error, 0.0, n, 1, 0.0)
        missed += chances[lost, gained] * np.array([drop.upper(confidence) < true, drop.lower(confidence) > true])
    assert missed.max() <= 1.1 * (1 - confidence)  # MOVER is approximate: a tenth of the risk


@pytest.mark.parametrize("lost", [0.005, 0.05])
def test_so_many_samples_would_decide(lost):
    """Of as many samples that lose as much the bound is below the limit, and of one fewer it is not."""
    drop = Drop(0.004, lost, 0.003, 0.5, 1000, 3, 0.0)

    def bound(samples):
        of_samples = 0.003 * math.sqrt(1000 / samples)
        return replace(drop, samples=samples, of_samples=of_samples, of_trials=0.0).upper(0.95)

    for limit in (bound(1000), bound(4000), 0.0041):
        needed = samples_needed(drop, limit, 0.95)
        assert bound(needed) <= limit < bound(needed - 1)
    assert samples_needed(drop, bound(1000), 0.95) == 1000
    for limit in (0.004, 0.004 + 1e-9):
        assert samples_needed(drop, limit, 0.95) is None


def test_where_nothing_is_lost_the_samples_needed_fall_as_the_limit():
    """None of n is lost with the chance (1 - limit)^n: that is 1 - c at n = ln(1 - c)/ln(1 - limit)."""
    nothing = Drop(0.0, 0.0, 0.0, 0.0, 100, 1, 0.0)
    for limit in (0.001, 0.01, 0.05):
        assert samples_needed(nothing, limit, 0.99) == math.ceil(math.log(0.01) / math.log1p(-limit))


def test_a_metric_that_does_not_judge_samples_is_refused():
    tried = Experiment(model(LINEAR), rows(20), ("relative_error", METRICS["relative_error"].function))
    message = "^metric is relative_error; it must be one that compares sample by sample: top1, agreement, sqnr_db"
    with pytest.raises(OptionError, match=f"{message}$"):
        check_paired(tried)
    with pytest.raises(OptionError, match=f"{message}, exact_match$"):
        check_paired(tried, divergence=False)
    check_paired(experiment())


def test_a_metric_that_the_data_choose_is_not_said_to_be_given():
    data = rows(20)
    outputs = Experiment(model(LINEAR), data).clean[0]
    chosen = Experiment(model(LINEAR), replace(data, labels=outputs + 0.25))
    with pytest.raises(
        OptionError, match=r"^no metric is given, and for these outputs and labels it is r2, which does"
    ):
        check_paired(chosen)


# ----------------------------------------------------------------------------------------- signal and noise


def noisy_experiment(samples=200):
    return Experiment(model(LINEAR), rows(samples, labels=False), metric=("sqnr_db", METRICS["sqnr_db"].function))


def test_the_noise_is_that_of_the_metric():
    tried = noisy_experiment()
    drop = drop_of(tried, tried.trials(LOUD), seed=3, count=4)
    values = tried.score(LOUD, seed=3, trials=4).values
    assert drop.mean == pytest.approx(np.mean([10 ** (-value / 10) for value in values]))
    assert drop.mean == pytest.approx(drop.divergence)
    assert drop.lost is None


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_bounds_of_the_noise_hold_as_often_as_they_say(confidence):
    """Of 400 draws of 100 samples with exponential noise, so many bounds hold, but for five standard errors."""
    rng = np.random.default_rng(0)
    held = []
    for drawn in rng.exponential(size=(400, 100)):
        drop = Drop(drawn.mean(), None, drawn.std(ddof=1) / 10, 0.0, 100, 1, 0.0)
        held.append((drop.lower(confidence) <= 1, drop.upper(confidence) >= 1))
    low, high = np.mean(held, axis=0)
    # The third moment of 100 samples moves a bound's chance by about 2/6 · z²/√100 of the density (Edgeworth).
    z = scipy.stats.norm.ppf(confidence)
    skew = (2 / 6) * (z**2 + 1) / 10 * scipy.stats.norm.pdf(z) * 2
    for share in (low, high):
        assert abs(share - confidence) <= skew + 5 * math.sqrt(confidence * (1 - confidence) / 400)
    assert Drop(0.1, None, 1.0, 0.0, 100, 1, 0.0).lower(0.99) == 0


def test_what_is_not_finite_in_both_is_no_noise():
    clean, found = [np.array([[np.inf, 1.0], [np.nan, 2.0]])], [np.array([[np.inf, 1.5], [np.nan, 2.0]])]
    assert noise(clean, found).tolist() == [0.25 / 2.5, 0.0]
    assert noise(clean, [np.array([[0.0, 1.0], [np.nan, 2.0]])])[0] == np.inf
    assert noise(clean, [np.array([[np.nan, 1.0], [np.nan, 2.0]])])[0] == np.inf


def test_infinite_noise_is_no_doubt():
    drop = Drop(math.inf, None, math.nan, 0.0, 100, 1, 0.0)
    assert drop.lower(0.99) == drop.upper(0.99) == math.inf
