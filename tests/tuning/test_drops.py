"""Drops that are paired by sample: their errors against many draws, and the samples that would decide."""

import math

import numpy as np
import pytest
import scipy.stats

from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.metrics import METRICS
from onnx_analog.tuning.drops import Drop, check_paired, drop_of, right, samples_needed
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
    assert (1 - bound) ** exact.samples <= 1 - confidence or confidence == 0.5


def test_the_interval_holds_the_mean_of_new_samples_and_trials():
    """Samples are right before with chance 0.9, and after with 0.88 on average; the noise of a trial moves that.

    An interval of 95 % misses in 5 % of 300 draws: at most 8 % within four standard deviations, 1.26 % each.
    """
    rng, missed, n, count = np.random.default_rng(0), 0, 400, 5
    for _ in range(300):
        before = rng.random(n) < 0.9
        moved = 0.02 + 0.01 * rng.standard_normal(count)
        rows_ = np.stack([before.astype(float) - (before & (rng.random(n) > each / 0.9)) for each in moved])
        drop = Drop(
            rows_.mean(), rows_.mean(axis=0).std(ddof=1) / n**0.5, rows_.mean(axis=1).std(ddof=1) / count**0.5, n, count
        )
        low, high = drop.interval()
        missed += not low <= 0.02 <= high
    assert missed / 300 <= 0.05 + 4 * 0.0126


def test_bounds_are_those_of_a_normal_law():
    drop = Drop(0.01, 0.003, 0.004, 1000, 5)
    assert drop.error == pytest.approx(0.005)
    z = scipy.stats.norm.ppf(0.95)
    assert drop.upper(0.95) == pytest.approx(0.01 + z * 0.005)
    assert drop.lower(0.95) == pytest.approx(0.01 - z * 0.005)


def test_so_many_samples_would_decide():
    """With that many, the bound of the samples alone is at the limit."""
    drop = Drop(0.004, 0.003, 0.0, 1000, 1)
    needed = samples_needed(drop, 0.006, 0.95)
    more = Drop(0.004, 0.003 * math.sqrt(1000 / needed), 0.0, needed, 1)
    assert more.upper(0.95) == pytest.approx(0.006, rel=1e-3)
    assert samples_needed(drop, 0.004, 0.95) is None


def test_a_metric_that_does_not_judge_samples_is_refused():
    tried = Experiment(model(LINEAR), rows(20), ("sqnr_db", METRICS["sqnr_db"].function))
    with pytest.raises(OptionError, match=r"^metric is sqnr_db; tune needs one .* top1 or agreement$"):
        check_paired(tried)
    check_paired(experiment())
