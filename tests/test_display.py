"""How numbers are shown."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnx_analog
from onnx_analog.display import change, percent, percent_as_given, percent_number, rounded_alike, score, score_ends


@given(st.lists(st.integers(0, 10**6) | st.floats(0, 10**6).map(lambda count: round(count, 3)), min_size=1))
def test_rounded_counts_add_up_to_the_rounded_sum_and_whole_ones_stay(counts):
    rounded = rounded_alike(counts)
    assert abs(sum(rounded) - math.fsum(counts)) <= 0.5 + 1e-6
    for count, whole in zip(counts, rounded, strict=True):
        assert abs(whole - count) < 1 + 1e-6


def test_whole_counts_stay_and_halves_do_not_add_up_to_more():
    assert rounded_alike([100, 250.5, 7, 250.5]) == [100, 251, 7, 250]
    assert sum(map(round, [100.6, 250.6, 7.6])) != sum(rounded_alike([100.6, 250.6, 7.6])) == 359


SHARES = st.integers(1, 10**9).flatmap(lambda of: st.integers(0, of).map(lambda count: (count, of)))
SHOWN = (percent, lambda share, digits: f"{percent_number(share, digits)} %")


@pytest.mark.parametrize("shown", SHOWN)
@given(SHARES, st.integers(0, 3))
def test_a_share_is_shown_as_all_or_none_only_if_it_is(shown, counts, digits):
    count, of = counts
    number = shown(count / of, digits).removesuffix(" %")
    is_end = re.fullmatch(r"(0|100)(\.0*)?", number) is not None
    assert is_end is (count in (0, of))


@given(SHARES, st.integers(0, 3))
def test_a_share_is_shown_to_half_of_its_last_digit(counts, digits):
    share = counts[0] / counts[1]
    number = percent(share, digits).removesuffix(" %")
    step = 10.0 ** -len(number.partition(".")[2])
    assert abs(float(number) - 100 * share) <= step / 2 + 1e-9 * step
    assert step <= 10.0**-digits


@given(SHARES, st.integers(0, 3))
def test_a_sign_says_on_which_side_a_share_is(counts, digits):
    share = counts[0] / counts[1]
    shown = percent_number(share, digits)
    if shown[0] in "<>":
        assert 100 * share < float(shown[1:]) if shown[0] == "<" else 100 * share > float(shown[1:])
        assert len(shown) <= len(f"{100:.{digits}f}")
    else:
        assert abs(float(shown) - 100 * share) <= 10.0**-digits / 2 + 1e-9


def test_plain_rounding_breaks_the_law():
    assert f"{100 * 0.996:.0f} %" == "100 %" != percent(0.996) == "99.6 %"
    assert f"{100 * 0.004:.0f} %" == "0 %" != percent(0.004) == "0.4 %"


def test_what_only_rounding_keeps_from_all_or_none_is_all_or_none():
    for share, end in ((sum([0.1] * 10), "100"), (0.1 + 0.2 - 0.3, "0"), (-0.0, "0")):
        assert (percent(share), percent_number(share, 0)) == (f"{end} %", end)


@given(st.decimals(0, 1, places=9))
def test_a_setting_is_shown_as_it_was_given(share):
    assert Decimal(percent_as_given(float(share)).removesuffix(" %")) == 100 * share


def test_all_shares_are_shown_by_these_functions():
    """Text with a share that is rounded in place breaks the law."""
    in_place = re.compile(r"\{100 \* [^{}]*:[^{}]*\} %|\{[^{}]*:\.\d%\}")
    assert in_place.search('f"{100 * share:.0f} %"')
    assert in_place.search('f"{share:.0%}"')
    root = Path(onnx_analog.__file__).parent
    files = [path for path in root.rglob("*.py") if path != root / "display.py"]
    found = [path.name for path in files if in_place.search(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("share", [True, False])
@given(st.floats(-1, 1))
def test_no_nought_has_a_sign(share, value):
    shown = (
        score(value, share=share),
        change(value, share=share, sign=""),
        *score_ends((value, value), share=share).split(" to "),
    )
    for text in shown:
        assert not (text.startswith("-") and not re.search("[1-9]", text)), text


def test_a_value_that_is_next_to_nothing_is_nought():
    assert (score(-1e-5, share=False), score(-1e-12, share=True)) == ("0.0000", "0.00 %")
