"""How losses are shown, in words and numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.tuning.answers import Goal
from onnx_analog.tuning.scale import CHANGED, DECIBELS, POINTS, noise_of, scale_of

ONE = "1 % of the samples change their class"
SCALES = [POINTS, CHANGED, DECIBELS]


@pytest.mark.parametrize(
    ("scale", "limit", "words"),
    [
        (POINTS, 0.01, ["at most 1 point is lost", "more than 1 point is lost", "at most 1 point"]),
        (POINTS, 0.005, ["at most 0.5 points are lost", "more than 0.5 points are lost", "at most 0.5 points"]),
        (CHANGED, 0.01, [f"at most {ONE}", f"more than {ONE}", "at most 1 %"]),
        (DECIBELS, 0.001, ["the SQNR is at least 30 dB", "the SQNR is below 30 dB", "at least 30 dB"]),
    ],
)
def test_a_limit_in_words(scale, limit, words):
    assert [scale.kept(limit), scale.broken(limit), scale.goal(limit)] == words


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (POINTS, ["0.44 points lost", "0.44 points"]),
        (CHANGED, ["0.44 % of the samples change their class", "0.44 %"]),
        (DECIBELS, ["an SQNR of 23.6 dB", "23.6 dB"]),
    ],
)
def test_a_loss_in_words(scale, words):
    assert [scale.lost(0.00437), scale.brief(0.00437)] == words


@given(st.floats(1e-12, 1), st.floats(1e-12, 1))
def test_ends_are_in_order(first, second):
    low, high = sorted((first, second))
    for scale in SCALES:
        below, above = map(scale.value, scale.ends(low, high))
        assert below <= above


@given(st.floats(0, 200))
def test_decibels_are_the_inverse_of_noise(sqnr_db):
    assert math.isclose(DECIBELS.value(noise_of(sqnr_db)), sqnr_db, abs_tol=1e-9)


def test_a_ratio_of_one_is_not_minus_zero():
    assert DECIBELS.goal(noise_of(0)) == "at least 0 dB"


def test_shares_of_changed_classes_are_not_below_zero():
    assert CHANGED.ends(-0.1, 0.2) == (0.0, 0.2)


def test_no_noise_has_a_number():
    assert DECIBELS.text(0.0) == "300.0"


def test_metrics_have_their_scales():
    assert [scale_of(name) for name in ("top1", "agreement", "sqnr_db")] == SCALES


def test_a_goal_in_points_is_the_number_that_was_given():
    for points in (7.0, 0.1, 0.29, 1.1, 14.0, 28.0, 55.0, *(number / 1000 for number in range(1, 3000))):
        assert Goal(max_drop=points / 100).max_points_lost == points
    assert Goal(min_sqnr_db=20.0).max_points_lost is None
