"""The search for the cheapest plan that holds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.tuning.bisection import _GROWTH, after, cheapest


class Counted:
    """Plans from a place on hold; remembers which were looked at."""

    def __init__(self, first):
        self.first, self.seen = first, []

    def __call__(self, place):
        self.seen.append(place)
        return place >= self.first


def cells(count, ratio=1.01):
    return np.geomspace(1, ratio ** (count - 1), count).tolist()


@given(st.integers(1, 400), st.data())
def test_the_place_holds_and_the_one_before_does_not_where_rounds_suffice(count, draw):
    """Nine rounds of halving are enough for 400 places of equal ratios: 400 < 2**9."""
    first = draw.draw(st.integers(0, count - 1))
    holds = Counted(first)
    assert cheapest(cells(count), holds) == first
    assert len(holds.seen) <= math.ceil(math.log2(count)) + 1 if count > 1 else not holds.seen
    assert count - 1 not in holds.seen  # the last is not looked at


@given(st.integers(2, 400), st.data())
def test_a_quick_look_costs_few_slow_ones_and_the_place_is_near(count, draw):
    first, quick = draw.draw(st.integers(0, count - 1)), draw.draw(st.integers(0, count - 1))
    holds = Counted(first)
    place = cheapest(cells(count), holds, Counted(quick))
    assert place >= first
    spread = abs(math.log(cells(count)[first] / cells(count)[quick]))
    grown = math.sqrt(2 * spread / math.log(_GROWTH)) + 2  # steps that grow by the same factor each
    assert len(set(holds.seen)) <= grown + 3
    step = grown * math.log(_GROWTH) + 2 * math.log(1.01)  # the widest bracket, halved twice
    assert math.log(cells(count)[place] / cells(count)[first]) <= max(step / 4 + 2 * math.log(1.01), math.log(1.0201))


def test_the_last_is_the_answer_where_none_holds():
    never = Counted(10**9)
    assert cheapest(cells(100), never) == 99
    assert cheapest(cells(100), never, Counted(0)) == 99
    assert cheapest(cells(1), never) == 0


def test_a_quick_look_that_is_wrong_does_not_decide():
    for first in (0, 1, 50, 98):
        for quick in (0, 99):
            assert cheapest(cells(100), Counted(first), Counted(quick)) >= first


@pytest.mark.parametrize(("place", "expected"), [(0, 6), (95, 99), (99, 99)])
def test_the_next_place_has_six_percent_more_cells(place, expected):
    assert after(cells(100), place) == expected
