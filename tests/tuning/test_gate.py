"""The sequential test: its error rates over many drawn samples and trials, and when it stops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from onnx_analog.tuning import drops
from onnx_analog.tuning.gate import FIRST_LOOK, RISK_OF_TRIALS, Decision, Losses, sequential

DRAWS = 200
CONFIDENCE = 0.9  # its errors are frequent enough to be counted
Rows = Iterator[np.ndarray]


def for_good(rng: np.random.Generator, n: int, loss: float) -> Rows:
    """Yield trials in which the same samples are lost, each with the chance `loss`."""
    lost = (rng.random(n) < loss).astype(float)
    while True:
        yield lost


def fragile(rng: np.random.Generator, n: int, loss: float) -> Rows:
    """Yield trials in which half of the samples that can be lost are."""
    can = rng.random(n) < 2 * loss
    while True:
        yield (can & (rng.random(n) < 0.5)).astype(float)


def moving(rng: np.random.Generator, n: int, loss: float) -> Rows:
    """Yield trials whose loss is normal: a third of its mean is one standard deviation."""
    while True:
        yield (rng.random(n) < loss * (1 + rng.standard_normal() / 3)).astype(float)


def skewed(rng: np.random.Generator, n: int, loss: float) -> Rows:
    """Yield trials whose loss is exponential, which is far from normal."""
    while True:
        yield (rng.random(n) < rng.exponential(loss)).astype(float)


def both_ways(rng: np.random.Generator, n: int, loss: float) -> Rows:
    """Yield trials in which some samples are lost and others won."""
    place = rng.random(n)
    while True:
        lost = 3 * loss * (1 + rng.standard_normal() / 10)
        yield (place < lost).astype(float) - (place > 1 - 2 * loss)


def noise(rng: np.random.Generator, n: int, loss: float) -> Rows:
    """Yield trials of squared errors, exponential over samples, and a tenth more or less by trial."""
    of_samples = rng.exponential(loss, n)
    while True:
        yield of_samples * abs(1 + rng.standard_normal() / 10)


def rare(rng: np.random.Generator, n: int, loss: float) -> Rows:
    """Yield trials in which a twentieth of the samples has all squared errors, exponential over them."""
    of_samples = np.where(rng.random(n) < 0.05, rng.exponential(20 * loss, n), 0.0)
    while True:
        yield of_samples * abs(1 + rng.standard_normal() / 10)


SHARES = [for_good, fragile, moving, skewed, both_ways]
Test = Callable[[Rows, float, bool], Decision]


def answer_of(rows: Rows, limit: float, shares: bool) -> Decision:
    return sequential(rows, limit=limit, confidence=CONFIDENCE, most=10, shares=shares)


# With the stated rate p, the share of wrong answers in the draws is above p + 4√(p(1 - p)/draws) once in 30,000.
MOST = 1 - CONFIDENCE + 4 * math.sqrt(CONFIDENCE * (1 - CONFIDENCE) / DRAWS)


def wrong(kind: Callable[..., Rows], n: int, loss: float, *, test: Test = answer_of) -> dict[str, float]:
    """Return how often an answer is "yes" where the loss is just above the limit, and "no" where it is the limit."""
    shares = kind not in (noise, rare)
    answers = [test(kind(np.random.default_rng(seed), n, loss), loss, shares).holds for seed in range(DRAWS)]
    return {"yes": answers.count(True) / DRAWS, "no": answers.count(False) / DRAWS}


def check_rates(kind: Callable[..., Rows], n: int, loss: float, *, test: Test = answer_of) -> None:
    """Fail if one of the two wrong answers is more frequent than stated."""
    rates = wrong(kind, n, loss, test=test)
    assert max(rates.values()) <= MOST, f"{kind.__name__}: {rates}, stated is {1 - CONFIDENCE:.3f}"


@pytest.mark.parametrize("n", [150, 1500])
@pytest.mark.parametrize("kind", SHARES, ids=lambda kind: kind.__name__)
def test_wrong_answers_are_no_more_frequent_than_stated(kind, n):
    check_rates(kind, n, 0.02)


@pytest.mark.parametrize("n", [150, 400])
def test_wrong_answers_about_noise_are_no_more_frequent_than_stated(n):
    """Losses of samples are exponential, whose skewness is 2."""
    check_rates(noise, n, 0.01)


def alone(rows: Rows, limit: float, shares: bool) -> Decision:
    """Decide by one trial, as where all read the same: samples then have the whole risk."""
    return sequential(rows, limit=limit, confidence=CONFIDENCE, most=1, shares=shares, alike=True)


@pytest.mark.parametrize("n", [150, 400])
def test_wrong_answers_about_rare_noise_are_no_more_frequent_than_stated(n):
    check_rates(rare, n, 0.01, test=alone)


def test_the_skewness_of_noise_counts(monkeypatch):
    """That of `rare` is about 8: without it, a wrong "yes" is about twice as frequent as stated."""
    monkeypatch.setattr(drops, "skewness", lambda _: 0.0)
    with pytest.raises(AssertionError, match="rare"):
        check_rates(rare, 150, 0.01, test=alone)


def of_ratio(seed: int, heavy: float, apart: bool, *, known: bool = True) -> bool | None:
    """Return whether noise of 0.01 of the power is found to be at most that, by 300 samples of log-normal power.

    Squared errors are exponential over samples; in proportion to the power unless they are `apart` from it.
    """
    rng = np.random.default_rng(seed)
    powers = np.exp(heavy * rng.standard_normal(300) - heavy**2 / 2)
    errors = 0.01 * rng.exponential(1.0, 300) * (1.0 if apart else powers)
    told = {"powers": powers / powers.mean()} if known else {}
    row = errors / powers.mean()
    return sequential([row], limit=0.01, confidence=CONFIDENCE, most=1, shares=False, alike=True, **told).holds


@pytest.mark.parametrize("heavy", [0.5, 1.5])
@pytest.mark.parametrize("apart", [True, False])
def test_wrong_answers_about_ratios_are_no_more_frequent_than_stated(heavy, apart):
    answers = [of_ratio(seed, heavy, apart) for seed in range(DRAWS)]
    assert max(answers.count(True), answers.count(False)) / DRAWS <= MOST


def test_the_power_of_samples_counts():
    """Who takes the mean power for known is wrong far more often where errors are apart from it."""
    answers = [of_ratio(seed, 1.5, True, known=False) for seed in range(DRAWS)]
    assert max(answers.count(True), answers.count(False)) / DRAWS > MOST


def test_wrong_answers_are_no_more_frequent_where_errors_grow_more_slowly_than_power():
    """The ratio is then skewed to the other side than errors: each bound needs its own."""
    answers = []
    for seed in range(DRAWS):
        z, w = np.random.default_rng(seed).standard_normal((2, 300))
        powers, errors = np.exp(1.3 * z), np.exp(0.8 * (0.95 * z + math.sqrt(1 - 0.95**2) * w))
        limit = math.exp((0.8**2 - 1.3**2) / 2)
        told = {"shares": False, "powers": powers / powers.mean(), "alike": True}
        row = errors / powers.mean()
        answers.append(sequential([row], limit=limit, confidence=CONFIDENCE, most=1, **told).holds)
    assert max(answers.count(True), answers.count(False)) / DRAWS <= MOST


@given(st.integers(2, 30), st.integers(0, 2**32))
def test_bounds_of_noise_hold_those_of_errors_and_those_of_the_ratio(n, seed):
    rng = np.random.default_rng(seed)
    row, powers = rng.exponential(1.0, n), rng.exponential(1.0, n)
    losses_ = Losses(shares=False, powers=powers / powers.mean())
    losses_.add(row)
    both = losses_._drop()
    one = replace(both, of_ratio=0.0, skew_of_ratio=0.0)
    other = replace(both, of_samples=both.of_ratio, skew=both.skew_of_ratio, of_ratio=0.0)
    for confidence in (0.6, 0.9, 0.99):
        assert both.upper(confidence) == max(one.upper(confidence), other.upper(confidence))
        assert both.lower(confidence) == min(one.lower(confidence), other.lower(confidence))


def test_a_sample_that_has_all_power_leaves_the_ratio_open():
    """Without it, the ratio would be infinite: nothing is known, as where it has nearly all power."""
    for rest in (0.0, 1e-6):
        powers = np.array([200.0, *[rest] * 199])
        found = sequential(
            [np.full(200, 1e-4)], limit=2e-4, confidence=0.95, most=1, shares=False, powers=powers, alike=True
        )
        assert found.holds is None


def naive(rows: Rows, limit: float, shares: bool) -> Decision:
    """Look after every trial as if it were the only look, and as if there were all samples."""
    taken: list[float] = []
    for row in itertools.islice(rows, 10):
        taken.append(float(row.mean()))
        if len(taken) < 2:
            continue
        reach = scipy.stats.t.ppf(CONFIDENCE, len(taken) - 1) * np.std(taken, ddof=1) / math.sqrt(len(taken))
        low, high = float(np.mean(taken) - reach), float(np.mean(taken) + reach)
        holds = True if high <= limit else False if low > limit else None
        if holds is not None:
            break
    return Decision(
        holds=holds, loss=0, at_least=low, at_most=high, samples=1, trials=len(taken), settled=False, needed=None
    )


@pytest.mark.parametrize("kind", [for_good, fragile, moving])
def test_check_rates_rejects_a_test_that_looks_each_time_as_if_it_were_the_only_one(kind):
    with pytest.raises(AssertionError, match=r"stated is 0\.100"):
        check_rates(kind, 150, 0.02, test=naive)


def test_the_risks_of_all_looks_and_of_the_samples_add_up():
    looks = sum(2 / (count * (count - 1)) for count in range(FIRST_LOOK, 100_000))
    assert looks == pytest.approx(1, abs=1e-4)
    assert looks < 1
    assert 0 < RISK_OF_TRIALS < 1


def test_samples_get_four_fifths_of_the_risk_and_the_third_trial_a_third_of_the_rest():
    """Each of three trials loses as much of a sample as the others, but for 0.1 of all: both parts are known.

    Student's quantile of 2 degrees of freedom at the risk q is (1 - 2q)/√(2q(1 - q)).
    """
    n, confidence, losses = 10_000, 0.95, Losses(shares=False)
    half = np.random.default_rng(0).exponential(1.0, n // 2)
    of_samples = np.concatenate([half, 2 - half])  # which are not skewed
    for move in (-0.1, 0.0, 0.1):
        losses.add(of_samples + move)
    decision = losses.decision(1.0, confidence, alike=False)
    risk = 0.05
    for_samples, look = 4 / 5 * risk, 1 / 5 * risk / 3
    of_trials = (1 - 2 * look) / math.sqrt(2 * look * (1 - look)) * 0.1 / math.sqrt(3)
    reach = scipy.stats.norm.isf(for_samples) * np.std(of_samples, ddof=1) / math.sqrt(n)
    assert decision.at_most - decision.loss == pytest.approx(reach + of_trials, rel=1e-9)


@pytest.mark.parametrize(("loss", "holds"), [(0.001, True), (0.2, False)])
def test_far_from_the_limit_it_stops_after_a_few_trials(loss, holds):
    trials = []
    for seed in range(50):
        decision = answer_of(moving(np.random.default_rng(seed), 1500, loss), 0.03, True)
        assert decision.holds is holds
        trials.append(decision.trials)
    assert np.median(trials) <= FIRST_LOOK + 4
    assert min(trials) >= FIRST_LOOK


def test_nearer_to_the_limit_it_takes_more_trials():
    taken = [
        np.median(
            [answer_of(moving(np.random.default_rng(seed), 20_000, loss), 0.03, True).trials for seed in range(20)]
        )
        for loss in (0.001, 0.01, 0.02)
    ]
    assert taken == sorted(taken)
    assert taken[0] < taken[-1]


def test_no_more_trials_are_taken_than_needed():
    rows = moving(np.random.default_rng(0), 1500, 0.2)
    decision = answer_of(rows, 0.03, True)
    taken: list[int] = []

    def counted() -> Rows:
        for number, row in enumerate(moving(np.random.default_rng(0), 1500, 0.2), 1):
            taken.append(number)
            yield row

    assert answer_of(counted(), 0.03, True) == decision
    assert taken[-1] == decision.trials


def test_it_gives_up_after_the_most_trials():
    decision = sequential(
        moving(np.random.default_rng(0), 10**5, 0.02), limit=0.02, confidence=0.95, most=5, shares=True
    )
    assert (decision.holds, decision.trials, decision.settled) == (None, 5, False)


@pytest.mark.parametrize("loss", [0.02, 0.045])
def test_with_as_many_trials_as_it_says_it_is_decided_and_with_far_fewer_it_is_not(loss):
    """The number is that of a spread that is known from few trials: it holds to a factor of 3."""

    def after(most):
        rows = moving(np.random.default_rng(3), 20_000, loss)
        return sequential(rows, limit=0.03, confidence=0.95, most=most)

    few = after(FIRST_LOOK)
    assert (few.holds, few.settled) == (None, False)
    assert few.trials_needed > FIRST_LOOK
    decided = after(3 * few.trials_needed)
    assert decided.holds is (loss < 0.03)
    assert decided.trials > few.trials_needed / 3
    assert decided.trials_needed is None


@pytest.mark.parametrize(("loss", "samples"), [(0.002, 1500), (0.003, 1500), (0.011, 1000)])
def test_with_more_samples_as_many_trials_decide_and_it_says_how_many(loss, samples):
    """The number is that of a loss and a spread that are known from few samples: it holds to a factor of 4."""

    def after(samples):
        rows = fragile(np.random.default_rng(3), samples, loss)
        return sequential(rows, limit=0.005, confidence=0.95, most=5)

    few = after(samples)
    assert (few.holds, few.settled) == (None, False)
    assert few.needed > samples
    assert after(4 * few.needed).holds is (loss < 0.005)
    assert after(few.needed // 20 + 2).holds is None


def test_no_number_of_samples_makes_up_for_a_spread_of_trials_that_they_share():
    """The means of trials vary by a third of the loss, however many samples there are: five of them cannot tell."""
    few = sequential(moving(np.random.default_rng(0), 10**5, 0.02), limit=0.021, confidence=0.95, most=5)
    assert (few.holds, few.settled, few.needed) == (None, False, None)


def taken(rows: Rows, count: int, *, shares: bool) -> Losses:
    """Return the losses of the first trials."""
    losses = Losses(shares=shares)
    for row in itertools.islice(rows, count):
        losses.add(row)
    return losses


def test_means_of_trials_that_vary_by_luck_vary_less_with_more_samples():
    """They vary by chance alone here: in 95 of 100 cases that is told, with 3.5 standard errors over the draws."""
    kept = []
    for seed in range(DRAWS):
        losses = taken(fragile(np.random.default_rng(seed), 1000, 0.05), 5, shares=True)
        kept.append(losses._of_trials(0.05, 5, samples=10**9) > losses._of_trials(0.05, 5) / 100)
    assert np.mean(kept) <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / DRAWS)


def test_in_more_trials_fewer_samples_decide(monkeypatch):
    """The noise of trials adds its variance, over their number, to that between samples."""
    losses = taken(fragile(np.random.default_rng(0), 1000, 0.05), 5, shares=False)
    monkeypatch.setattr(losses, "_of_trials", lambda *_: 0.0)
    few, many = (losses.needed(0.06, 0.95, alike=False, most=most) for most in (5, 500))
    assert 0 < many < few


def test_what_was_gained_is_taken_for_luck():
    """As many samples changed: where more were won than lost, nearly as many are needed as if the mean were 0."""

    def needed(lost: int, won: int) -> int:
        row = np.zeros(400)
        row[:lost], row[-won:] = 1, -1
        decision = sequential([row], limit=0.005, confidence=0.95, most=1, alike=True)
        assert decision.holds is None
        assert decision.needed is not None
        return decision.needed

    assert needed(4, 8) > 0.7 * needed(6, 6)  # (0.005 / 0.015)² of it with a mean of -0.01


def test_no_number_of_trials_is_named_before_the_first_look_or_where_none_would_do():
    expected: list[int | None] = []
    sequential(
        moving(np.random.default_rng(0), 10**5, 0.02), limit=0.02, confidence=0.95, most=4, expect=expected.append
    )
    assert expected[: FIRST_LOOK - 1] == [None] * (FIRST_LOOK - 1)
    alike = sequential(itertools.repeat(np.zeros(290)), limit=0.01, confidence=0.95, most=50, alike=True)
    assert alike.trials_needed is None


def test_where_samples_are_too_few_it_stops_before_the_most_trials_and_says_how_many_would_do():
    decision = sequential(for_good(np.random.default_rng(1), 300, 0.01), limit=0.02, confidence=0.95, most=10**4)
    assert (decision.holds, decision.settled) == (None, True)
    assert decision.trials == FIRST_LOOK
    assert decision.needed > 300
    lost = decision.loss * decision.needed
    more = np.zeros(decision.needed + 2)
    more[: round(lost)] = 1
    again = sequential(itertools.repeat(more), limit=0.02, confidence=0.95, most=3)
    assert again.holds is True


@pytest.mark.parametrize(("loss", "limit"), [(0.05, 0.04), (0.03, 0.04)])
def test_with_as_many_samples_as_needed_it_is_decided_on_either_side(loss, limit):
    few = np.zeros(400)
    few[: round(400 * loss)] = 1
    decision = sequential([few], limit=limit, confidence=0.95, most=1, alike=True)
    assert decision.holds is None
    for count, decides in ((decision.needed, True), (decision.needed // 2, False)):
        many = np.zeros(count)
        many[: round(count * loss)] = 1
        again = sequential([many], limit=limit, confidence=0.95, most=1, alike=True)
        lost = abs(again.loss - loss) * count
        assert lost < 1  # it is rounded, which near the bound may decide
        if not decides:
            assert again.holds is None
        else:
            assert min(abs(again.at_most - limit), abs(again.at_least - limit)) < 2 / count or again.holds is not None


def test_trials_that_are_alike_are_decided_by_one_with_the_whole_risk():
    """None of n is lost with the chance (1 - p)^n, which is 1 - c at p = 1 - (1 - c)^(1/n)."""
    decision = sequential(itertools.repeat(np.zeros(300)), limit=0.01, confidence=0.95, most=50, alike=True)
    assert (decision.holds, decision.trials) == (True, 1)
    assert decision.at_most == pytest.approx(1 - 0.05 ** (1 / 300))
    undecided = sequential(itertools.repeat(np.zeros(290)), limit=0.01, confidence=0.95, most=50, alike=True)
    assert (undecided.holds, undecided.trials, undecided.settled, undecided.needed) == (None, 1, True, 299)


def test_a_spread_that_is_small_by_luck_counts_as_what_samples_flip():
    """Each trial loses one other sample: the mean is the same in all, and the samples differ."""
    losses = Losses(shares=True)
    for number in range(3):
        losses.add(np.eye(100)[number])
    decision = losses.decision(0.01, 0.95, alike=False)
    shared = sequential(itertools.repeat(np.eye(100)[0]), limit=0.01, confidence=0.95, most=3)
    assert decision.at_most > shared.at_most


def test_noise_without_bound_is_never_within_a_limit():
    for value in (np.inf, np.nan):
        decision = sequential([np.array([0.0, value])], limit=0.1, confidence=0.95, most=5, shares=False)
        assert (decision.holds, decision.trials, decision.loss) == (False, 1, np.inf)


def test_a_single_sample_decides_nothing():
    decision = sequential(itertools.repeat(np.zeros(1)), limit=0.1, confidence=0.95, most=5)
    assert (decision.holds, decision.needed) == (None, None)


def test_where_means_of_trials_are_exponential_a_wrong_yes_is_about_as_frequent_as_the_page_says():
    """About 8 % in place of 1 %, if all samples lose the same: within four standard deviations of 300 draws, 6.3 %."""
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rows = (np.full(20, rng.exponential()) for _ in range(30))
        found.append(sequential(rows, limit=1.0, confidence=0.95, most=30, shares=False).holds)
    assert 0.08 - 0.063 < found.count(True) / 300 < 0.08 + 0.063
    assert found.count(False) / 300 <= 0.01 + 4 * math.sqrt(0.01 * 0.99 / 300)
