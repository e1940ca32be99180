"""Misspelt names are told from the names that they were meant to be by the fewest edits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.spelling import edits, nearest

WORDS = st.text("abc", max_size=6)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("defualt", "default", 1), ("max_drp", "max_drop", 1)],
)
def test_edits_are_counted(one, other, expected):
    assert edits(one, other) == expected


@given(WORDS, WORDS)
def test_edits_are_symmetric_and_none_between_equals(one, other):
    assert edits(one, other) == edits(other, one)
    assert (edits(one, other) == 0) == (one == other)
    assert abs(len(one) - len(other)) <= edits(one, other) <= max(len(one), len(other))


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5))
def test_no_known_name_is_nearer_than_the_one_that_is_found(name, known):
    found = nearest(name, known)
    assert found is None or edits(name, found) == min(edits(name, other) for other in known)
    assert name not in known or found == name


def test_the_nearest_wins_over_one_with_more_equal_characters():
    assert nearest("--max-drp", ["--mask-seed", "--max-trials", "--max-drop"]) == "--max-drop"
    assert nearest("nothing", ["mean", "std"]) is None
    assert nearest("x", []) is None
