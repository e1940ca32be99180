from __future__ import annotations

import copy
import fnmatch
import json
import pickle
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from onnx_analog import channels
from onnx_analog.channels import Channel, GaussianNoise
from onnx_analog.coding.plan import LONGEST_KEY, MOST_PATTERNS, Plan, compensation_warnings
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.stored_channels import channel_digest
from onnx_analog.errors import ChannelError, OptionError
from tests.coding.families import schemes
from tests.models import QUIET

KEYS = st.text('abc./*?[]\\"\n\0é', min_size=1, max_size=8)  # as storage keys of real models are
ONE, OTHER = Scheme(channel=QUIET), Scheme.int8(channel=QUIET)
PATTERNS = [("a*", ONE), ("*b", OTHER)]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a plan of up to three schemes."""
    few = [None, *draw(st.lists(schemes(), min_size=1, max_size=3))]
    tensors, patterns = (draw(st.dictionaries(KEYS, st.sampled_from(few), max_size=6)) for _ in range(2))
    return Plan(default=draw(st.sampled_from(few)), tensors=tensors, patterns=patterns)


def test_what_a_plan_was_verified_with_does_not_change_what_it_stores():
    plan, marked = (Plan(default=ONE, patterns={"b*": OTHER}, compensated=given) for given in (False, True))
    assert marked == plan
    assert marked.digest() == plan.digest()
    assert "compensated" not in plan.to_dict()
    assert json.loads(marked.to_json())["compensated"] is True
    again = Plan.from_dict(json.loads(marked.to_json()))
    for kept in (again, pickle.loads(pickle.dumps(marked)), marked.changed(side_bits_per_cell=3)):
        assert kept.compensated
    with pytest.raises(OptionError, match=r"^compensated is 256; it must be True or False$"):
        Plan(compensated=256)


def test_a_plan_keeps_by_how_many_samples_it_was_compensated():
    plan = Plan(default=ONE, compensated=True, compensated_by=25)
    assert plan == Plan(default=ONE)
    assert plan.digest() == Plan(default=ONE).digest()
    for kept in (Plan.from_dict(json.loads(plan.to_json())), pickle.loads(pickle.dumps(plan)), plan.changed(cells=2)):
        assert (kept.compensated, kept.compensated_by) == (True, 25)
    for wrong in (0, -1, True, 2.5, "25"):
        with pytest.raises(OptionError, match=r"^compensated_by is .*; it must be a number of samples, or None$"):
            Plan(compensated=True, compensated_by=wrong)
    with pytest.raises(OptionError, match=r"^compensated_by is 25, and compensated is not True: leave it out$"):
        Plan(compensated_by=25)


@pytest.mark.parametrize(
    ("by", "samples", "said"),
    [
        (25, 25, ""),
        (None, 25, ""),
        (25, 250, "by 25 samples, and here 250 compensate"),
        (25, None, "Give it 25 samples"),
    ],
)
def test_other_samples_than_those_of_the_verification_are_a_warning(by, samples, said):
    plan = Plan(default=ONE, compensated=True, compensated_by=by)
    found = list(compensation_warnings(plan, samples))
    assert len(found) == bool(said)
    assert all(said in text for text in found)
    assert not list(compensation_warnings(Plan(default=ONE), samples))


@given(plans())
def test_a_plan_comes_back_from_json(plan):
    again = Plan.from_dict(json.loads(plan.to_json()))
    assert again == plan
    assert list(again.tensors) == list(plan.tensors)
    assert list(again.patterns) == list(plan.patterns)  # of which the first wins
    assert again.digest() == plan.digest()
    assert again.to_json() == plan.to_json()
    assert len(json.loads(plan.to_json())["schemes"]) == len(plan.schemes)


def test_a_plan_comes_back_from_a_file(tmp_path):
    plan = Plan(default=ONE, tensors={"größe*": OTHER, "b": None}, patterns={"größe.*": OTHER})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    assert Plan.read(tmp_path / "plan.json") == plan


@given(st.text("ab.", max_size=6), st.text("ab.*", min_size=1, max_size=6))
def test_a_star_stands_for_any_characters(key, pattern):
    """As in the shell."""
    plan = Plan(default=None, patterns={pattern: ONE})
    matches = fnmatch.fnmatchcase(key, pattern)
    assert (plan.scheme_of(key) is not None) == matches
    assert plan.unused([key]) == ([] if matches else [pattern])


def test_many_stars_take_linear_time():
    plan = Plan(default=None, patterns={"*a" * 500 + "*b": ONE})
    assert plan.scheme_of("a" * 4000) is None


def test_a_key_wins_over_patterns_and_of_those_the_first():
    plan = Plan(default=None, patterns={"a*": ONE, "*b": OTHER}, tensors={"ab": None, "a[c": OTHER})
    assert [plan.scheme_of(key) for key in ("ax", "xb", "axb", "ab", "a[c", "c")] == [
        ONE,
        OTHER,
        ONE,
        None,
        OTHER,
        None,
    ]
    assert plan.unused(["ab"]) == ["a[c"]
    assert plan.unused(["c"]) == ["ab", "a[c", "a*", "*b"]


@given(KEYS, KEYS)
def test_in_a_storage_key_every_character_stands_for_itself(key, other):
    plan = Plan(default=None, tensors={key: ONE})
    assert plan.scheme_of(key) == ONE
    assert (plan.scheme_of(other) is not None) == (other == key)
    assert plan.unused([other]) == ([] if other == key else [key])


def test_plans_with_patterns_in_another_order_differ():
    """The first that matches wins, so they store "ab" in two ways."""
    plan, other = (Plan(default=None, patterns=dict(order)) for order in (PATTERNS, PATTERNS[::-1]))
    assert plan != other
    assert plan.digest() != other.digest()
    assert plan.scheme_of("ab") != other.scheme_of("ab")
    keys = Plan(default=None, tensors=dict(PATTERNS)), Plan(default=None, tensors=dict(PATTERNS[::-1]))
    assert len(set(keys)) == 1


def test_schemes_are_replaced_wherever_they_stand():
    plan = Plan(default=ONE, tensors={"a": None}, patterns={"b*": OTHER})
    assert plan.mapped(lambda scheme: scheme.changed(side_bits_per_cell=3)) == Plan(
        default=ONE.changed(side_bits_per_cell=3),
        tensors={"a": None},
        patterns={"b*": OTHER.changed(side_bits_per_cell=3)},
    )


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


def test_a_scheme_that_gets_cells_gets_the_channel_too():
    mixed = Plan(default=Scheme(), tensors={"a": Scheme.int8()})
    changed = mixed.changed(cells=1, channel="rram-wan")
    assert {scheme.channel for scheme in changed.schemes} == {Scheme(channel="rram-wan").channel}
    assert mixed.changed(channel="rram-wan").scheme_of("a") == Scheme.int8(channel="rram-wan")
    with pytest.raises(OptionError, match="'nonsense'"):
        Plan.of(Scheme.int8()).changed(cells=1, estimator="nonsense")


def test_a_plan_is_a_value():
    plan = Plan(default=ONE, tensors={"a": OTHER})
    with pytest.raises(TypeError):
        plan.tensors["a"] = ONE
    with pytest.raises(AttributeError):
        plan.default = OTHER
    assert plan == Plan(default=ONE, tensors={"a": OTHER})
    assert plan != Plan(default=ONE, tensors={"a": None})
    assert repr(plan) == f"Plan(default={ONE!r}, 1 tensor named)"
    assert str(Plan(default=None, tensors={"a": OTHER, "b": None}, patterns={"c*": ONE})).splitlines() == [
        f"a: {OTHER}",
        "b: stays digital",
        f"c* (pattern): {ONE}",
        "all others: stays digital",
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tensors": ["a"]}, "tensors is ['a']; it must be a mapping from storage keys to schemes"),
        ({"tensors": {1: ONE}}, "a storage key is 1; it must be text of at most 4,096 characters"),
        ({"tensors": {"": ONE}}, "a storage key is ''; it must be text"),
        ({"tensors": {"a" * (LONGEST_KEY + 1): ONE}}, "a storage key is 'aaa"),
        ({"tensors": {"a": "int8"}}, "the scheme of 'a' is 'int8'; it must be a Scheme or None"),
        ({"default": "int8"}, "the scheme of default is 'int8'; it must be a Scheme or None"),
        ({"tensor": {}}, "Plan has no setting 'tensor': did you mean 'tensors'?"),
        ({"patterns": ["a*"]}, "patterns is ['a*']; it must be a mapping from patterns to schemes"),
        ({"patterns": {"": ONE}}, "a pattern is ''; it must be text"),
        (
            {"patterns": {f"{number}*": ONE for number in range(MOST_PATTERNS + 1)}},
            "patterns has 1,001 entries; it may have at most 1,000",
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
        ({"format": "onnx-analog-plan/0"}, 'this is not a plan: its format is "onnx-analog-plan/0", not'),
        (
            {"format": "onnx-analog-plan/9"},
            "the plan has the newer format 'onnx-analog-plan/9'; this version reads",
        ),
        ({"format": None}, "its format is null"),
        ({"tensor": {}}, "a plan has no entry 'tensor': did you mean 'tensors'?"),
        ({"patterns": {"a*": "scheme0"}}, "patterns of a plan must be a list of objects"),
        ({"patterns": [{"pattern": "a*"}]}, "an entry of patterns must be an object with pattern and scheme"),
        ({"patterns": [{"pattern": "a*", "scheme": None}] * 2}, 'the pattern "a*" appears twice'),
        ({"patterns": [{"pattern": 1, "scheme": None}]}, "the pattern 1 must be text"),
        ({"patterns": [{"pattern": "a*", "scheme": "x"}]}, 'a plan refers to the scheme "x", which it does not have'),
        (
            {"schemes": {**BODY["schemes"], "x": {"cell": 1}}},
            "scheme 'x': a scheme has no setting 'cell': did you mean",
        ),
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


@pytest.mark.parametrize("field", ["channel", "side_channel"])
@pytest.mark.parametrize(
    "channel", [{"family": "none"}, "none", {"name": "none"}, {"family": "precision", "inner": {"name": "none"}}]
)
def test_a_channel_that_is_not_installed_is_refused_with_file_scheme_and_field(field, channel, tmp_path):
    body = {**BODY, "schemes": {**BODY["schemes"], "mine": {field: channel}}}
    (tmp_path / "plan.json").write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(ChannelError, match=rf"plan.json': scheme 'mine': {field}: no channel is called 'none'"):
        Plan.read(tmp_path / "plan.json")


# ---------------------------------------------------------------------------------------------- channels by name


def in_file(channel: Channel, name: Any = "channel") -> Any:
    """Return a channel as the file of a plan has it, after it was read back with the same digest."""
    plan = Plan(default=Scheme().changed(**{name: channel}))
    body = json.loads(plan.to_json())
    again = Plan.from_dict(body)
    assert again.default is not None
    assert channel_digest(getattr(again.default, name)) == channel_digest(getattr(plan.default, name))
    assert again.digest() == plan.digest()
    return body["schemes"]["scheme0"][name]


@pytest.mark.parametrize("name", sorted(channels.available()))
def test_an_installed_channel_is_written_by_its_name(name):
    try:
        channel = channels.installed(name)
    except ChannelError:
        pytest.skip("it takes options")
    assert in_file(channel) == in_file(channel, "side_channel") == name


PCM = channels.resolve("pcm")
MODIFIED = {
    "devices shared": (PCM.changed(cells_on="same"), {"name": "pcm", "cells_on": "same"}),
    "options": (GaussianNoise(sigma=0.25), {"name": "gaussian", "sigma": 0.25}),
    "precision": (
        PCM.changed(read_bits=4),
        {"family": "precision", "inner": {"name": "pcm"}, "write_bits": 0, "read_bits": 4},
    ),
    "residual cells": (
        channels.resolve("pcm-drift").changed(cells_hold="residual"),
        {"family": "residual", "inner": {"name": "pcm-drift"}, "verify_reads": 1},
    ),
    "residuals as measured": (PCM.changed(residuals="empirical"), {"family": "empirical", "table": {"name": "pcm"}}),
}


@pytest.mark.parametrize("name", MODIFIED)
def test_a_channel_that_differs_from_an_installed_one_is_written_by_name_and_difference(name):
    channel, expected = MODIFIED[name]
    assert in_file(channel) == expected


def test_a_table_of_another_device_is_written_whole_though_it_has_the_name_of_an_installed_one():
    other = replace(PCM, stds=tuple(2 * std for std in PCM.stds))
    assert in_file(other)["stds"] == list(other.stds)
