from __future__ import annotations

import copy
import fnmatch
import json
import pickle

import hypothesis.strategies as st
import pytest
from hypothesis import given

from onnx_analog.coding.plan import LONGEST_KEY, MOST_PATTERNS, Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import ChannelError, OptionError
from tests.coding.families import schemes
from tests.models import QUIET

KEYS = st.text("abc./*", min_size=1, max_size=8)
ONE, OTHER = Scheme(channel=QUIET), Scheme.int8(channel=QUIET)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a plan of up to three schemes."""
    few = [None, *draw(st.lists(schemes(), min_size=1, max_size=3))]
    tensors = draw(st.dictionaries(KEYS, st.sampled_from(few), max_size=6))
    return Plan(default=draw(st.sampled_from(few)), tensors=tensors)


@given(plans())
def test_a_plan_comes_back_from_json(plan):
    again = Plan.from_dict(json.loads(plan.to_json()))
    assert again == plan
    assert list(again.tensors) == list(plan.tensors)  # of patterns the first wins
    assert again.digest() == plan.digest()
    assert again.to_json() == plan.to_json()
    assert len(json.loads(plan.to_json())["schemes"]) == len(plan.schemes)


def test_a_plan_comes_back_from_a_file(tmp_path):
    plan = Plan(default=ONE, tensors={"größe.*": OTHER, "b": None})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    assert Plan.read(tmp_path / "plan.json") == plan


@given(st.text("ab.", max_size=6), st.text("ab.*", min_size=1, max_size=6))
def test_a_star_stands_for_any_characters(key, pattern):
    """As in the shell; without a star, a pattern is a key."""
    plan = Plan(default=None, tensors={pattern: ONE})
    matches = fnmatch.fnmatchcase(key, pattern)
    assert (plan.scheme_of(key) is not None) == matches
    assert plan.unused([key]) == ([] if matches else [pattern])


def test_many_stars_take_linear_time():
    plan = Plan(default=None, tensors={"*a" * 500 + "*b": ONE})
    assert plan.scheme_of("a" * 4000) is None


def test_a_key_wins_over_patterns_and_of_those_the_first():
    plan = Plan(default=None, tensors={"a*": ONE, "*b": OTHER, "ab": None, "a[c": OTHER})
    assert [plan.scheme_of(key) for key in ("ax", "xb", "axb", "ab", "a[c", "c")] == [
        ONE,
        OTHER,
        ONE,
        None,
        OTHER,
        None,
    ]
    assert plan.unused(["ab"]) == ["a[c"]


def test_a_plan_of_a_scheme_stores_every_tensor_with_it():
    assert Plan.of(ONE) == Plan(default=ONE)
    assert Plan.of(ONE).scheme_of("any") == ONE
    plan = Plan()
    assert Plan.of(plan) is plan
    assert plan.default == Scheme()
    for wrong in ("plan.json", None, {}):
        with pytest.raises(OptionError, match=f"a plan is {type(wrong).__name__}; it must be a Plan or a Scheme"):
            Plan.of(wrong)


@given(plans())
def test_a_plan_can_be_sent_to_another_process(plan):
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert copy.deepcopy(plan) == plan


def test_schemes_are_those_that_differ_with_the_default_first():
    plan = Plan(default=ONE, tensors={"a": OTHER, "b": ONE, "c": None, "d": OTHER})
    assert plan.schemes == (ONE, OTHER)
    assert Plan(default=None).schemes == ()


@given(plans())
def test_a_change_is_one_of_all_schemes(plan):
    changed = plan.changed(side_bits_per_cell=7)
    assert list(changed.tensors) == list(plan.tensors)
    for before, after in zip(
        (plan.default, *plan.tensors.values()), (changed.default, *changed.tensors.values()), strict=True
    ):
        assert (after is None) == (before is None)
        assert before is None or after == before.changed(side_bits_per_cell=7)


def test_a_plan_is_a_value():
    plan = Plan(default=ONE, tensors={"a": OTHER})
    with pytest.raises(TypeError):
        plan.tensors["a"] = ONE
    with pytest.raises(AttributeError):
        plan.default = OTHER
    assert plan == Plan(default=ONE, tensors={"a": OTHER})
    assert plan != Plan(default=ONE, tensors={"a": None})
    assert repr(plan) == f"Plan(default={ONE!r}, 1 tensor named)"
    assert str(Plan(default=None, tensors={"a": OTHER, "b": None})).splitlines() == [
        "default: stays digital",
        f"a: {OTHER}",
        "b: stays digital",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tensors": ["a"]}, "tensors is ['a']; it must be a mapping from storage keys to schemes"),
        ({"tensors": {1: ONE}}, "a storage key is 1; it must be text of at most 4,096 characters"),
        ({"tensors": {"": ONE}}, "a storage key is ''; it must be text"),
        ({"tensors": {"a" * (LONGEST_KEY + 1): ONE}}, "a storage key is 'aaa"),
        ({"tensors": {"a": "int8"}}, "the scheme of 'a' is 'int8'; it must be a Scheme or None"),
        ({"default": "int8"}, "the scheme of 'default' is 'int8'"),
        (
            {"tensors": {f"{number}*": ONE for number in range(MOST_PATTERNS + 1)}},
            "a plan names 1,001 tensors, 1,001",
        ),
    ],
)
def test_what_is_no_plan_is_refused(settings, said):
    with pytest.raises(OptionError) as caught:
        Plan(**settings)
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) <= 300


BODY = Plan(default=ONE, tensors={"a": OTHER}).to_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "onnx-analog-plan/9"}, 'this is not a plan: its format is "onnx-analog-plan/9", not'),
        ({"format": None}, "its format is null"),
        ({"tensor": {}}, "a plan has no entry 'tensor'"),
        ({"schemes": []}, "schemes and tensors of a plan must be objects"),
        ({"tensors": []}, "schemes and tensors of a plan must be objects"),
        ({"default": "scheme7"}, 'a plan refers to the scheme "scheme7", which it does not have'),
        ({"tensors": {"a": 1}}, "a plan refers to the scheme 1, which it does not have"),
        ({"schemes": {**BODY["schemes"], "x": {"cells": [1, 2, 3]}}}, "scheme 'x': cells has 3 numbers"),
        ({"schemes": {**BODY["schemes"], "x": 3}}, "scheme 'x': a scheme is 3; it must be an object"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(change, said, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({**BODY, **change}), encoding="utf-8")
    with pytest.raises(OptionError) as caught:
        Plan.read(tmp_path / "plan.json")
    assert said in str(caught.value)
    assert "plan.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '"plan"', "null", '{"format": NaN}', '{"format": 1, "format": 2}']
)
def test_a_file_that_is_no_json_object_is_refused(text, tmp_path):
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=r"plan\.json"):
        Plan.read(tmp_path / "plan.json")


def test_a_channel_that_is_not_installed_is_refused():
    with pytest.raises(ChannelError):
        Plan.from_dict({**BODY, "schemes": {"scheme0": {"channel": {"family": "none"}}, "scheme1": {}}})
