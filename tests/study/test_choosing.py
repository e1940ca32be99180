import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.run.statistics import sampling_reach
from onnx_analog.study.choosing import as_good_as_the_best, cheapest, counting_of, marked, samples_count
from onnx_analog.study.sweeps import Point
from tests.cli.test_report import point


def planted(cost: int, ends: tuple[float, float] | None, mean: float | None = None) -> Point:
    """Return a point of this cost, in hundreds of cells, whose interval ends there."""
    middle = mean if mean is not None else sum(ends) / 2 if ends else 0.5
    return replace(point(analog=100 * cost, values=(middle,)), ci95=ends)


def places(found: Sequence[Point], points: Sequence[Point]) -> list[int]:
    return [place for place, one in enumerate(points) if any(one is other for other in found)]


def test_a_point_is_marked_if_it_is_above_all_that_is_cheaper():
    points = [
        planted(1, (0.05, 0.15)),  # at chance, and the cheapest
        planted(2, (0.08, 0.20)),  # noise does not tell it from the first
        planted(3, (0.60, 0.70)),
        planted(4, (0.65, 0.80)),  # better on average, and perhaps not
        planted(5, (0.85, 0.90)),
        planted(6, (0.50, 0.60)),  # dearer and worse
    ]
    assert places(marked(points), points) == [2, 4]


@pytest.mark.parametrize("mean", [0.1, 0.99])
def test_the_cheapest_is_never_marked(mean):
    points = [planted(1, (mean - 0.01, mean + 0.01)), planted(2, (0.4, 0.5))]
    assert 0 not in places(marked(points), points)


def test_where_noise_tells_nothing_nothing_is_marked():
    assert marked([planted(cost, (0.97 - cost / 1000, 0.98)) for cost in range(1, 9)]) == []


def test_of_the_same_cost_only_a_clearly_better_one_takes_the_mark():
    points = [planted(1, (0.1, 0.2)), planted(2, (0.5, 0.6)), planted(2, (0.55, 0.65)), planted(2, (0.30, 0.45))]
    assert places(marked(points), points) == [1, 2]


def test_where_lower_is_better_the_lower_is_marked():
    points = [planted(1, (40.0, 50.0)), planted(2, (20.0, 25.0)), planted(3, (60.0, 70.0))]
    assert places(marked(points, higher_is_better=False), points) == [1]
    assert places(marked(points), points) == [2]


@pytest.mark.parametrize("ends", [None, (math.nan, math.nan), (-math.inf, math.inf)])
def test_without_an_interval_nothing_is_told(ends):
    points = [planted(1, (0.1, 0.2)), planted(2, ends, mean=0.9), planted(3, (0.95, 0.96))]
    assert marked(points) == []


def test_a_point_without_trials_takes_no_mark_from_others():
    points = [point(analog=50, values=()), planted(1, (0.1, 0.2)), planted(2, (0.5, 0.6))]
    assert places(marked(points), points) == [2]


some = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 20), st.integers(1, 6)).map(
        lambda drawn: planted(drawn[0], (drawn[1] / 20, (drawn[1] + drawn[2]) / 20))
    ),
    max_size=9,
)


@given(some)
def test_marks_rise_with_cost_and_never_overlap(points):
    found = sorted(marked(points), key=lambda one: one.cost)
    for one in found:
        assert any(other.cost < one.cost for other in points)
        assert all(one.ci95[0] > other.ci95[1] for other in points if other.cost < one.cost)
    assert all(a.cost == b.cost or a.ci95[1] < b.ci95[0] for a, b in pairwise(found))


@given(some)
def test_lower_is_better_is_higher_is_better_of_the_negative(points):
    turned = mirrored(points)
    assert places(marked(points), points) == places(marked(turned, higher_is_better=False), turned)


def test_the_cheapest_of_those_as_good_as_the_best():
    points = [planted(9, (0.98, 0.99)), planted(3, (0.97, 0.985)), planted(2, (0.90, 0.97)), planted(5, (0.96, 0.99))]
    assert places(as_good_as_the_best(points), points) == [0, 1, 3]
    assert cheapest(points) is points[1]


def test_another_best_gives_another_choice():
    points = [planted(9, (0.98, 0.99)), planted(3, (0.97, 0.979)), planted(2, (0.90, 0.96))]
    assert cheapest(points) is points[0]
    assert cheapest(points[1:]) is points[1]
    assert cheapest(points, higher_is_better=False) is points[2]


def alike(cost: int, mean: float, trials: int, samples: int = 50) -> Point:
    """Return a point whose trials all have one value, which has no interval."""
    one = point(analog=100 * cost, values=(mean,) * trials)
    return replace(one, ci95=None, evaluation=replace(one.evaluation, samples=samples))


@pytest.mark.parametrize(("samples", "marks", "best"), [(500, [], [0, 1, 2]), (50_000, [1, 2], [2])])
def test_points_whose_trials_are_alike_differ_by_more_than_the_choice_of_samples(samples, marks, best):
    """Of 500 samples, they differ in two and in one; of 50,000 in a hundred, at most 1.0 + 0.8 % of which differ."""
    points = [alike(cost, mean, 9, samples) for cost, mean in ((1, 0.986), (2, 0.990), (3, 0.992))]
    assert places(marked(points), points) == marks
    assert places(as_good_as_the_best(points), points) == best
    assert samples_count(points)
    assert not samples_count([planted(1, (0.1, 0.2)), planted(2, (0.5, 0.6))])


def test_of_two_numbers_of_samples_the_lower_one_counts():
    for samples, as_good in ((500, [0, 1]), (50_000, [1])):
        points = [alike(1, 0.986, 9, samples), alike(2, 0.992, 9, 50_000)]
        assert places(as_good_as_the_best(points), points) == as_good


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("better", "worse"), [(0.99, 0.98), (0.92, 0.91), (0.6, 0.55)])
def test_the_reach_of_samples_misses_no_more_often_than_it_says(better, worse, shared):
    """Of 2,000 draws of 500 samples, the difference lies beyond its reach above the true one in 2.5 % at most.

    `shared` is the part of the errors of the better point that the other makes too. Four standard deviations of a share
    of 2.5 % are 1.4 %.
    """
    rng, n = np.random.default_rng(0), 500
    both = shared * (1 - better)
    counts = rng.multinomial(n, [both, 1 - better - both, 1 - worse - both, better + worse - 1 + both], size=2000) / n
    found = [(1 - in_both - first, 1 - in_both - second) for in_both, first, second, _ in counts]
    missed = [a - b - sampling_reach(max(a, b), min(a, b), n) > better - worse for a, b in found]
    assert np.mean(missed) <= 0.025 + 0.014


def test_a_reach_of_samples_that_takes_no_notice_of_them_is_refused():
    """Without a reach, half of the differences lie above the true one."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(500, [0.0, 0.01, 0.02, 0.97], size=2000) / 500
    assert np.mean(counts[:, 2] - counts[:, 1] > 0.01) > 0.025 + 0.014


@pytest.mark.parametrize(("trials", "expected"), [(5, []), (6, [1, 2])])
def test_trials_that_are_all_alike_are_an_interval_of_no_width(trials, expected):
    points = [alike(1, 0.1, trials), planted(2, (0.4, 0.5)), alike(3, 1.0, trials), alike(4, 1.0, trials)]
    assert places(marked(points), points) == expected


def test_a_best_without_an_interval_is_reached_only_by_what_reaches_its_mean():
    points = [planted(1, (0.05, 0.15)), planted(2, (0.97, 1.0)), alike(3, 1.0, 2), alike(4, 1.0, 9)]
    assert places(as_good_as_the_best(points), points) == [1, 2, 3]
    assert cheapest(points) is points[1]
    assert cheapest([points[0], *points[2:]]) is points[2]


def mirrored(points: Sequence[Point]) -> list[Point]:
    """Return the points with the negative of each value."""
    return [
        replace(
            one,
            evaluation=replace(one.evaluation, values=tuple(-value for value in one.evaluation.values)),
            ci95=one.ci95 and (-one.ci95[1], -one.ci95[0]),
        )
        for one in points
    ]


def test_a_wide_interval_is_not_preferred_to_a_better_mean():
    points = [
        planted(1, (0.9132, 1.0), 0.9675),  # reaches the best, and only because it is noisy
        planted(2, (0.9773, 0.9994), 0.9885),  # better on average
        planted(3, (0.985, 1.0), 0.995),
        alike(4, 1.0, 4, 500),
    ]
    assert places(as_good_as_the_best(points), points) == [1, 2, 3]
    assert cheapest(points) is points[1]


@pytest.mark.parametrize("best", [planted(3, (0.99, 1.0)), alike(3, 1.0, 3, 200)], ids=["narrow", "alike"])
def test_a_point_is_not_as_good_because_it_is_noisy(best):
    """Three trials from 0.65 to 0.9: nothing tells them from the best, nor from chance."""
    noisy = replace(planted(1, (0.4911, 1.0), 0.79), model="net")
    assert as_good_as_the_best([noisy, best]) == [best]
    assert as_good_as_the_best([noisy]) == [noisy]


def test_values_that_are_no_shares_are_not_told_from_alike_ones_within_their_interval():
    """Nothing says how far those of other samples would be from the alike ones."""
    points = [planted(1, (29.0, 31.0)), planted(2, (28.0, 29.0)), alike(3, 30.5, 9)]
    points = [replace(one, evaluation=replace(one.evaluation, share=False, metric="sqnr_db")) for one in points]
    assert places(as_good_as_the_best(points), points) == [0, 2]


def test_a_noisy_best_does_not_decide():
    points = [
        planted(1, (0.91, 0.93)),  # not told from the best, and told from the second best
        planted(2, (0.960, 0.968)),
        planted(3, (0.90, 1.0), 0.97),
    ]
    assert places(as_good_as_the_best(points), points) == [1, 2]


@given(some)
def test_what_is_as_good_as_the_best_has_the_best_means_and_reaches_all_others(points):
    found = as_good_as_the_best(points)
    assert bool(found) == bool(points)
    rest = [one for one in points if not any(one is other for other in found)]
    for one in found:
        assert all(one.ci95[1] >= other.ci95[0] for other in points)
        assert all(one.evaluation.mean > other.evaluation.mean for other in rest)
    if rest:  # the best of the rest is told from another, so no more could count
        top = max(rest, key=lambda one: one.evaluation.mean)
        assert any(is_told(top, other) for other in points)


def is_told(worse: Point, better: Point) -> bool:
    """Return whether intervals lie apart, where that of the worse point is cut to reach no further than the other."""
    assert worse.ci95 is not None
    assert better.ci95 is not None
    assert worse.evaluation.mean is not None
    assert better.evaluation.mean is not None
    reach = better.evaluation.mean - better.ci95[0]
    return min(worse.ci95[1], worse.evaluation.mean + reach) < better.ci95[0] - 1e-12


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([planted(1, (0.95, 0.99), 0.97), planted(2, (0.979, 1.0), 0.999)], [0, 1]),  # cut at 1, and not apart
        ([planted(1, (0.895, 0.899), 0.897), planted(2, (0.8, 1.0), 0.905)], [0, 1]),  # the better one is noisy
        ([alike(1, 0.88, 9, 10_000), planted(2, (0.8, 1.0), 0.9)], [0, 1]),
        ([planted(1, (0.8, 1.0), 0.9), planted(2, (0.97, 0.98))], [1]),  # the worse one is
    ],
)
def test_only_the_interval_of_the_worse_point_is_cut(points, best):
    assert places(as_good_as_the_best(points), points) == best


@given(some, st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_one_more_point_makes_no_other_as_good_as_the_best(points, ends):
    more = [*points, planted(6, (ends[0] / 20, (ends[0] + ends[1]) / 20))]
    assert set(places(as_good_as_the_best(more), points)) <= set(places(as_good_as_the_best(points), points))


@given(some)
def test_the_best_of_lower_values_are_those_of_higher_values_turned(points):
    turned = mirrored(points)
    found = places(as_good_as_the_best(points), points)
    assert places(as_good_as_the_best(turned, higher_is_better=False), turned) == found


def test_of_single_trials_those_that_samples_do_not_tell_from_the_best_are_as_good():
    points = [planted(1, None, mean=0.5), planted(2, None, mean=0.9), planted(3, None, mean=0.8)]
    assert cheapest(points) is points[1]


@pytest.mark.parametrize("points", [[], [point(values=())], [point(values=(math.nan,))]])
def test_where_nothing_is_known_there_is_no_choice(points):
    assert as_good_as_the_best(points) == []
    assert cheapest(points) is None


# ------------------------------------------------------------------------------------------------ two countings


def counted(honest: int | None, decoding: str, ends: tuple[float, float], paper: int = 1) -> Point:
    """Return a point of these honest cells, in thousands, and of this decoding."""
    one = planted(paper, ends)
    cells = None if honest is None else 1000 * honest
    return replace(one, totals=replace(one.totals, honest_cells=cells, decoding=decoding))


def test_points_are_compared_with_those_that_are_decoded_alike():
    points = [
        counted(1, "hard", (0.1, 0.2)),
        counted(2, "none", (0.3, 0.4)),  # the cheapest of its level
        counted(3, "hard", (0.25, 0.35)),  # better than the first; the second is of another level
        counted(4, "none", (0.5, 0.6)),
        counted(5, "soft", (0.9, 0.95)),
    ]
    assert places(marked(points), points) == [2, 3]
    alike = [counted(one.totals.honest_cells // 1000, "hard", one.ci95) for one in points]
    assert places(marked(alike), alike) == [1, 3, 4]


def test_the_counting_decides_what_is_cheaper():
    points = [counted(1, "hard", (0.5, 0.6), paper=9), counted(2, "hard", (0.7, 0.8), paper=3)]
    assert places(marked(points), points) == [1]
    assert marked(points, counting="paper") == []
    best = [counted(1, "hard", (0.7, 0.8), paper=9), points[1]]
    assert [cheapest(best, counting=counting) for counting in ("memory", "paper")] == best


def test_where_a_point_has_no_honest_count_all_are_compared_as_the_paper_counts():
    points = [counted(1, "hard", (0.1, 0.2), paper=5), counted(None, "none", (0.5, 0.6), paper=8)]
    assert counting_of(points) == "paper"
    assert places(marked(points), points) == [1]
