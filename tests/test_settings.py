"""One declaration of a setting: its check, its type and its range in words."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.errors import OptionError
from onnx_analog.settings import (
    MOST_ENTRIES,
    Setting,
    check_settings,
    check_values,
    keywords,
    named,
    same,
    setting,
    settings_of,
    synonyms_of,
    takes,
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """Settings of each kind."""

    count: int = setting(3, least=1, most=9, odd=True, help="A count.")
    ratio: float = setting(0.5, above=0, below=1, help="A ratio.")
    limit: float | None = setting(None, least=0, help="A limit, or none.")
    name: str = setting("a", choices=("a", "b"), help="A name.")
    flag: bool = setting(False, help="A flag.")
    sizes: tuple[int, ...] = setting((1, 2), least=0, help="Sizes.")
    anything: Any = setting(None, help="Anything.")
    plain: int = 7

    def __post_init__(self) -> None:
        check_settings(self)


def test_a_setting_is_declared_once():
    declared = settings_of(Example)
    assert list(declared) == ["count", "ratio", "limit", "name", "flag", "sizes", "anything"]
    rule, kind, default = declared["count"]
    assert (rule.help, rule.least, rule.most, kind, default) == ("A count.", 1, 9, int, 3)
    assert declared["limit"][1:] == (float | None, None)
    with pytest.raises(TypeError):
        declared["count"] = rule


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"count": np.int64(5)}, 5),
        ({"ratio": np.float32(0.25)}, 0.25),
        ({"limit": 3}, 3.0),
        ({"limit": None}, None),
        ({"sizes": [np.uint8(1), 2]}, (1, 2)),
        ({"sizes": dict.fromkeys((4, 0)).keys()}, (4, 0)),
        ({"sizes": np.array([1, 2])}, (1, 2)),
        ({"sizes": ()}, ()),
        ({"sizes": 3}, (3,)),
        ({"sizes": np.int64(3)}, (3,)),
        ({"sizes": np.array(3)}, (3,)),
        ({"flag": True}, True),
        ({"name": "b"}, "b"),
        ({"anything": [1]}, [1]),
    ],
    ids=str,
)
def test_values_become_the_declared_type(given, value):
    (name,) = given
    checked = getattr(Example(**given), name)
    assert checked == value
    assert type(checked) is type(value)
    if isinstance(value, tuple):
        assert all(type(entry) is int for entry in checked)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"count": 0}, "count is 0; it must be from 1 to 9"),
        ({"count": 10}, "count is 10; it must be from 1 to 9"),
        ({"count": 4}, "count is 4; it must be odd"),
        ({"count": 1.0}, "count is 1.0; it must be a whole number"),
        ({"count": "3"}, "count is '3'; it must be a whole number"),
        ({"count": True}, "count is True; it must be a whole number"),
        ({"count": None}, "count is None; it must be a whole number"),
        ({"ratio": 0}, "ratio is 0.0; it must be above 0 and below 1"),
        ({"ratio": 1}, "ratio is 1.0; it must be above 0 and below 1"),
        ({"ratio": float("nan")}, "ratio is nan; it must be above 0 and below 1"),
        ({"ratio": "half"}, "ratio is 'half'; it must be a number"),
        ({"ratio": 1j}, "ratio is of type complex; it must be a number"),
        ({"ratio": [0.5]}, "ratio is [0.5]; it must be a number"),
        ({"limit": float("inf")}, "limit is inf; it must be 0 or more"),
        ({"limit": -1}, "limit is -1.0; it must be 0 or more"),
        ({"limit": 10**400}, "it must be a number"),
        ({"name": "c"}, "name is 'c'; choose from a, b"),
        ({"name": ""}, "name is ''; choose from a, b"),
        ({"name": None}, "name is None; it must be text"),
        ({"flag": 1}, "flag is 1; it must be true or false"),
        ({"flag": "yes"}, "flag is 'yes'; it must be true or false"),
        ({"sizes": True}, "sizes is True; it must be a list"),
        ({"sizes": None}, "sizes is None; it must be a list"),
        ({"sizes": 1.5}, "sizes is 1.5; it must be a whole number"),
        ({"sizes": "12"}, "sizes is '12'; it must be a list"),
        ({"sizes": b"12"}, "sizes is b'12'; it must be a list"),
        ({"sizes": {1: 2}}, "sizes is of type dict; it must be a list"),
        ({"sizes": [1] * (MOST_ENTRIES + 1)}, "numbers; a list has at most"),
        ({"sizes": [1, -1]}, "sizes is -1; it must be 0 or more"),
        ({"sizes": [1, 1.5]}, "sizes is 1.5; it must be a whole number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_values_are_refused(given, said):
    with pytest.raises(OptionError) as caught:
        Example(**given)
    assert said in str(caught.value)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, "finite"),
        ({"least": 1}, "1 or more"),
        ({"most": 1000}, "at most 1,000"),
        ({"least": 1, "most": 8}, "from 1 to 8"),
        ({"above": 0}, "above 0"),
        ({"above": 0, "most": 2}, "at most 2 and above 0"),
        ({"least": 0, "below": 1}, "0 or more and below 1"),
    ],
)
def test_a_range_is_said_in_words(limits, words):
    assert Setting(help="", **limits).range == words


@given(st.floats(allow_nan=True), st.floats(-9, 9), st.floats(-9, 9))
def test_what_is_accepted_is_in_the_range(value, one, other):
    low, high = sorted((one, other))
    for names, inside in (
        (("least", "most"), low <= value <= high),
        (("above", "below"), low < value < high),
    ):
        rule = Setting(help="", **dict(zip(names, (low, high), strict=True)))
        if inside:
            assert rule.check("x", value, float) == value
        else:
            with pytest.raises(OptionError, match="x is"):
                rule.check("x", value, float)


def test_another_class_is_refused():
    rule = Setting(help="")
    assert rule.check("x", Example(), Example) == Example()
    with pytest.raises(OptionError, match="x is 3; it must be of type Example"):
        rule.check("x", 3, Example)


# ---------------------------------------------------------------------------------------------------- names


@named
@dataclass(frozen=True, kw_only=True)
class Named:
    """Some settings."""

    wide: bool = setting(False, help="Whether it is wide.")
    sizes: tuple[int, ...] = setting((1, 2), least=0, help="Sizes.")


@dataclass(frozen=True, kw_only=True)
class Other:
    sizes: tuple[int, ...] = same(Named, "sizes")


def test_an_unknown_keyword_is_refused_and_known_ones_are_not():
    assert Named(wide=True).wide
    assert list(inspect.signature(Named).parameters) == ["wide", "sizes"]
    for keyword, said in (("size", "did you mean 'sizes'?"), ("xyz", "choose from wide, sizes")):
        with pytest.raises(OptionError, match=re.escape(f"Named has no setting {keyword!r}: {said}")):
            Named(**{keyword: 1})


def test_the_documentation_of_a_class_lists_its_settings():
    assert inspect.getdoc(Named) == (
        "Some settings.\n\nSettings\n--------\nwide : default False\n    Whether it is wide.\n"
        "sizes : default (1, 2)\n    Sizes."
    )


def test_a_declaration_can_be_used_again():
    assert settings_of(Other)["sizes"] == settings_of(Named)["sizes"]


def test_a_synonym_is_another_name_of_a_setting():
    @named
    @dataclass(frozen=True, kw_only=True)
    class Synonymous:
        wide: int = setting(1, synonyms=("broad",), help="")

    assert synonyms_of(Synonymous, Named) == {"broad": "wide"}
    with pytest.raises(OptionError, match="Synonymous has no setting 'broad': did you mean 'wide'"):
        Synonymous(broad=1)


def test_values_are_checked_by_name_and_one_value_stands_for_a_list():
    assert check_values(Named, {"sizes": 3, "wide": True}) == {"sizes": (3,), "wide": True}
    for wrong in ({"sizes": -1}, {"sizes": True}, {"wide": 1}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            check_values(Named, wrong)


def test_a_function_takes_the_settings_of_classes_and_says_so():
    @takes(Named)
    def function(first, *, wide=None, **settings):
        return settings

    assert list(inspect.signature(function).parameters) == ["first", "wide", "sizes"]
    assert function(1, sizes=2) == {"sizes": 2}


def test_an_unknown_argument_of_a_function_is_refused():
    @keywords
    def function(first, *, second=0):
        return first + second

    assert function(1, second=2) == 3
    with pytest.raises(OptionError, match="function has no argument 'secnod': did you mean 'second'"):
        function(1, secnod=2)
