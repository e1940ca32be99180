"""docs/statistics.md: its numbers are those of the code."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from onnx_analog.run import array_comparison, array_statistics
from onnx_analog.run.statistics import interval, skewness
from onnx_analog.tuning import gate, search
from onnx_analog.tuning.drops import Drop
from tests.conftest import ROOT
from tests.page_exceptions import read

PAGE = read(ROOT / "docs" / "statistics.md")
WORDS = " ".join(PAGE.split())


def drop(samples: int, lost: int, gained: int) -> Drop:
    """Return the loss of trials that are all alike."""
    d = np.repeat([1.0, -1.0, 0.0], [lost, gained, samples - lost - gained])
    of_samples = float(d.std(ddof=1)) / math.sqrt(samples)
    return Drop(float(d.mean()), lost / samples, of_samples, 0.0, samples, 1, math.nan)


def test_the_bounds_of_the_table_are_those_of_the_code():
    rows = re.findall(r"^\| ([\d,]+) \| (\d+) \| (\d+) \| (.*) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 8
    for samples, lost, gained, *shown in rows:
        found = drop(int(samples.replace(",", "")), int(lost), int(gained))
        assert shown == [f"{100 * value:.2f}" for value in (found.mean, found.lower(0.95), found.upper(0.95))]


def test_with_1000_samples_no_plan_is_shown_to_lose_at_most_02_points():
    assert drop(1000, 0, 0).upper(0.95) > 0.002
    assert "A limit of 0.2 points thus cannot be shown with 1,000 samples" in WORDS


def missed(trials: int) -> float:
    """Return how often the interval misses the mean of losses whose standard deviation is √2 of it, in %."""
    losses = np.random.default_rng(trials).chisquare(1, size=(4000, trials))
    ends = np.array([interval(row.tolist()) for row in losses])
    return 100 * float(((ends[:, 0] > 1) | (ends[:, 1] < 1)).mean())


@pytest.mark.parametrize(("trials", "said"), [(3, 18), (25, 10)])
def test_where_losses_are_skewed_the_interval_misses_as_often_as_the_page_says(trials, said):
    assert "misses in 18 % of cases with 3 trials, and in 10 % with 25" in WORDS
    assert abs(missed(trials) - said) < 3.5 * 100 * math.sqrt(said / 100 * (1 - said / 100) / 4000) + 0.5  # as rounded


def wrong(sigma: float, *, corrected: bool = True, draws: int = 20_000, samples: int = 300) -> float:
    """Return how often a mean of log-normal losses lies above its upper bound of 95 %, in %."""
    rng, above = np.random.default_rng(0), 0
    for _ in range(draws):
        losses = rng.lognormal(-(sigma**2) / 2, sigma, samples)  # whose mean is 1
        error, skew = float(losses.std(ddof=1)) / math.sqrt(samples), skewness(losses) * corrected
        above += Drop(float(losses.mean()), None, error, 0.0, samples, 1, math.nan, skew).upper(0.95) < 1
    return 100 * above / draws


@pytest.mark.parametrize(("sigma", "corrected", "said"), [(1.0, True, 6), (1.0, False, 9), (1.5, True, 10)])
def test_skewed_errors_are_as_often_above_their_bound_as_the_page_says(sigma, corrected, said):
    assert "of 1, its chance is 6 % instead of 5 % (the normal quantile alone: 9 %)" in WORDS
    assert "with a standard deviation of 1.5, it is 10 %" in WORDS
    found = wrong(sigma, corrected=corrected)
    assert abs(found - said) < 3.5 * 100 * math.sqrt(said / 100 * (1 - said / 100) / 20_000) + 0.5  # as rounded


def test_errors_that_no_sample_shows_are_not_bounded():
    """0.99³⁰⁰, 0.995³⁰⁰: where one sample in 100 or in 200 errs, 300 samples may show none at all."""
    assert "of one in 100, 300 samples show none in 5 % of cases, and of one in 200, in 22 %" in WORDS
    assert [f"{100 * (1 - share) ** 300:.0f}" for share in (0.01, 0.005)] == ["5", "22"]
    assert Drop(0.0, None, 0.0, 0.0, 300, 1, math.nan).upper(0.95) == 0


def test_a_rare_collapse_is_not_seen_as_often_as_the_page_says():
    unseen = [f"{100 * (1 - 1 / 50) ** trials:.0f}" for trials in (3, 25)]
    assert f"{unseen[0]} % of runs with 3 trials see no such array, and {unseen[1]} % of those with 25" in WORDS


def test_looks_have_the_parts_that_the_code_gives_them():
    measures = SimpleNamespace(wholes=[])
    assert search.Search(measures, 0.9).confidence_of_look == pytest.approx(1 - 0.1 / 2)  # plans, and rivals
    assert "and so at digital rivals | 1/2 of the risk" in WORDS
    assert (gate.RISK_OF_TRIALS, gate.FIRST_LOOK) == (0.2, 3)
    assert "the samples get 4/5 of the risk" in WORDS
    assert math.isclose(sum(2 / (t * (t - 1)) for t in range(3, 10**5)), 1, abs_tol=1e-4)


def test_the_bound_of_distances_is_that_of_the_code():
    groups, n, m = 7, 300, 4000
    group = array_statistics.Group(
        channel="pcm", cells=1, low=0.0, high=1.0, count=n, mean=0.0, std=1.0, quantiles=(0.0, 1.0)
    )
    other = replace(group, count=m)
    found = array_comparison._difference(group, other, 0.05 / groups).ks_bound
    assert math.isclose(found, math.sqrt(-math.log(0.05 / groups / 2) / 2 * (1 / n + 1 / m)) + 0.01)
    assert f"kept as {array_statistics.QUANTILES} quantiles" in WORDS
