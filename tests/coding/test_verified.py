"""How a plan was verified: what a record may say, which plan it is of, and what is said of what is done otherwise."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given

from onnx_analog import channels
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.statistical import StatisticalPcm as PcmDrift
from onnx_analog.coding import plan as plans_module
from onnx_analog.coding.plan import Plan, changed_since, marked_for_compensation, marked_for_model, reading_warnings
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.verified import UNKNOWN, Inputs, Verified, correction_warnings, input_warnings
from onnx_analog.errors import OptionError
from tests.coding.test_plan import plans
from tests.models import QUIET

ONE, OTHER = Scheme(channel=QUIET), Scheme.int8(channel=QUIET)
PROSE = ("source", "provenance", "citation", "figure", "licence", "left_out")
IMAGES = "'x' from uint8 images, divided by 255, "
SCHEMA = json.loads(Path(plans_module.__file__).with_name("plan.schema.json").read_text(encoding="utf-8"))
FACTS = {
    "plan_sha256": "a" * 64, "channel": "pcm", "decoding": "hard", "cells_per_weight": 0.25, "metric": "top1",
    "max_points_lost": 1.0, "holds": True, "confidence": 0.95, "points_lost": 0.6, "points_lost_ci95": (0.2, 0.9),
    "trials": 1, "compensated_by": 100, "corrected_by": 100,
    "preprocessing": f"{IMAGES}normalised with mean 0.5 and std 2", "mean": (0.5,), "std": (2.0,), "scale": 255.0,
    "samples": 1000, "parts": (100, 100, 200, 600), "seed": 3,
}  # fmt: skip


HOW = Inputs(f"{IMAGES}normalised with mean 0.5 and std 2", (0.5,), (2.0,), 255.0)
PLAIN = Inputs(f"{IMAGES}not normalised (no mean and std)", (0.0,), (1.0,), 255.0)
NO_NUMBERS = dict.fromkeys(("mean", "std", "scale"))


def record(**changes) -> Verified:
    return Verified(**{**FACTS, **changes})


def verified(plan: Plan, **changes) -> Plan:
    """Return a plan with a record that is of it."""
    compensated = replace(plan, compensated=True, compensated_by=100)
    return replace(compensated, verified=record(plan_sha256=compensated.stored_sha256(), **changes))


# ------------------------------------------------------------------------------------------------------- records


def test_a_record_comes_back_from_json_and_fits_the_schema():
    plan = verified(Plan(default=ONE, tensors={"a": OTHER}))
    body = json.loads(plan.to_json())
    jsonschema.validate(body, SCHEMA)
    for kept in (Plan.from_dict(body), pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)):
        assert kept.verified == plan.verified
        assert kept.is_as_verified
    assert "verified" not in Plan(default=ONE).to_dict()
    null = Plan.from_dict({**body, "verified": None})
    assert null.verified is None
    assert not null.is_as_verified


def test_a_record_is_no_part_of_equality_and_digest():
    plan = verified(Plan(default=ONE))
    assert plan == Plan(default=ONE)
    assert (hash(plan), plan.digest()) == (hash(Plan(default=ONE)), Plan(default=ONE).digest())


WRONG = [
    ({"plan_sha256": "A" * 64}, "plan_sha256 is"),
    ({"plan_sha256": "a" * 63}, "plan_sha256 is"),
    ({"model_sha256": "x"}, "model_sha256 is"),
    ({"data_sha256": 5}, "data_sha256 is 5; it must be text"),
    ({"cells_per_weight": 0}, "cells_per_weight is 0"),
    ({"max_points_lost": None}, "0 of max_points_lost, min_sqnr_db, budget_cells_per_weight are given; it must be one"),
    ({"min_sqnr_db": 20.0}, "2 of max_points_lost"),
    ({"max_points_lost": None, "budget_cells_per_weight": 1.0}, "holds is given, and the goal is a budget"),
    ({"holds": 1}, "holds is 1; it must be true or false"),
    ({"confidence": 1.0}, "confidence is 1.0; it must be from 0.5 and below 1|confidence is 1.0"),
    ({"points_lost": float("nan")}, "points_lost is nan"),
    ({"points_lost_ci95": (1.0,)}, "points_lost_ci95 is"),
    ({"points_lost_ci95": (2.0, 1.0)}, "points_lost_ci95 is .* the lower one first"),
    ({"corrected_by": 0}, "corrected_by is 0"),
    ({"corrected_by": True}, "corrected_by is True"),
    ({"trials": 1.5}, "trials is 1.5"),
    ({"seed": -1}, "seed is -1"),
    ({"parts": (100, 100, 200)}, "parts is"),
    ({"parts": (100, 100, 200, 601)}, "parts is .*; it must be 4 numbers that add up to samples"),
    ({"preprocessing": None}, "preprocessing is None"),
    ({"plan_sha256": "a" * 64 + "0"}, "plan_sha256 is"),
    ({"data_sha256": "a" * 64 + "\n"}, "data_sha256 is"),
    ({"mean": None}, "std is given; mean, std, scale must be given together"),
    ({"std": (0.0,)}, "std is 0.0; it must be above 0"),
    ({"mean": ("0.5",)}, "mean is '0.5'"),
    ({"preprocess": "own:images"}, "mean and preprocess are given; it must be one of them"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_a_record_that_cannot_be_is_refused(changes, said):
    with pytest.raises(OptionError, match=f"^{said}"):
        record(**changes)


def test_a_file_with_a_wrong_record_is_refused(tmp_path):
    body = verified(Plan(default=ONE)).to_dict()
    path = tmp_path / "plan.json"
    for wrong, said in (
        (7, "verified: it is 7; it must be an object"),
        ({**body["verified"], "seed": "0"}, "verified: seed is '0'"),
        ({name: value for name, value in body["verified"].items() if name != "metric"}, "verified: metric is missing"),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**body, "verified": wrong}, SCHEMA)
        path.write_text(json.dumps({**body, "verified": wrong}), encoding="utf-8")
        with pytest.raises(OptionError) as refused:
            Plan.read(path)
        assert said in str(refused.value)
    with pytest.raises(OptionError, match=r"^verified is 1; it must be Verified or None$"):
        Plan(verified=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "0.60 points lost (0.20 to 0.90); the goal, at most 1 point, holds with 95 % confidence"),
        ({"holds": None}, "was not decided"),
        ({"points_lost": 0.126, "points_lost_ci95": (-0.004, 0.255)}, "0.13 points lost (0.00 to 0.26)"),
        ({"points_lost": -0.004, "points_lost_ci95": (-0.006, 0.1)}, "; 0.00 points lost (-0.01 to 0.10)"),
        ({"holds": False}, "does not hold"),
        ({"corrected_by": None}, "top1 on 600 samples of 1,000, not corrected: 0.250 cells per weight; 0.60 points"),
        ({"corrected_by": 9}, "corrected by 9 samples: 0.250 cells per weight, with the correction; 0.60 points lost"),
        ({"max_points_lost": None, "budget_cells_per_weight": 2.0, "holds": None}, "within the budget of 2 cells"),
        (
            {
                "max_points_lost": None,
                "min_sqnr_db": 20.0,
                "points_lost": None,
                "points_lost_ci95": None,
                "sqnr_db": 21.0,
            },
            "an SQNR of 21.00 dB; the goal, at least 20 dB, holds",
        ),
    ],
)
def test_a_record_in_words(changes, said):
    assert said in str(record(**changes))


# ------------------------------------------------------------------------------------------------- whose record it is


@given(plans())
def test_a_record_holds_however_a_plan_is_written(plan):
    known = verified(plan)
    assert known.is_as_verified
    turned = replace(known, tensors=dict(reversed(known.tensors.items())))  # names of schemes follow this order
    for same in (turned, Plan.from_dict(json.loads(known.to_json())), known.mapped(lambda scheme: scheme)):
        assert same.is_as_verified
        assert not list(changed_since(same))


@pytest.mark.parametrize(
    "changed",
    [
        lambda plan: plan.changed(channel="rram-milo"),
        lambda plan: plan.changed(side_bits_per_cell=3),
        lambda plan: replace(plan, tensors={**plan.tensors, "a": None}),
        lambda plan: replace(plan, tensors={}),
        lambda plan: replace(plan, tensors={"b": OTHER}),
        lambda plan: replace(plan, patterns={"a*": ONE}),
        lambda plan: replace(plan, default=None),
        lambda plan: replace(plan, compensated_by=99),
        lambda plan: replace(plan, compensated=False, compensated_by=None),
    ],
)
def test_a_record_does_not_hold_for_a_plan_that_was_changed(changed):
    plan = changed(verified(Plan(default=ONE, tensors={"a": OTHER})))
    assert plan.verified is not None
    assert not plan.is_as_verified
    said = (
        "the plan was changed after it was verified, so what was verified does not hold here; it was corrected by 100 "
        "samples"
    )
    assert list(changed_since(plan)) == list(reading_warnings(plan, None, UNKNOWN, "")) == [said]


def test_the_order_of_patterns_decides():
    one, other = (Plan(patterns=dict(each)) for each in ([("a*", ONE), ("*b", OTHER)], [("*b", OTHER), ("a*", ONE)]))
    assert one.stored_sha256() != other.stored_sha256()


def test_a_setting_that_a_later_version_adds_leaves_the_digest(monkeypatch):
    """Schemes then have one more setting, at its default; one at another value is another scheme."""
    plan, written = Plan(default=ONE), Scheme.to_dict
    before = plan.stored_sha256()
    monkeypatch.setattr(Scheme, "to_dict", lambda self: {**written(self), "later": 0})
    assert plan.stored_sha256() == before
    monkeypatch.setattr(Scheme, "to_dict", lambda self: {**written(self), "later": int(self.channel == QUIET)})
    assert plan.stored_sha256() != before


CELLS = [
    "pcm",
    "pcm-drift",
    "pcm-partial-reset",
    "gaussian:sigma=0.05",
    Modifiers(read_bits=6).apply(channels.resolve("gaussian:sigma=0.05")),
]


@pytest.mark.parametrize("channel", CELLS, ids=str)
def test_other_words_on_where_numbers_come_from_leave_the_digest(channel, monkeypatch):
    plan = Plan(default=Scheme(channel=channel, side_channel=channel))
    before, written = plan.stored_sha256(), Scheme.to_dict

    def reworded(value):
        if isinstance(value, dict):
            return {name: "in other words" if name in PROSE else reworded(each) for name, each in value.items()}
        return value

    monkeypatch.setattr(Scheme, "to_dict", lambda self: reworded(written(self)))
    assert plan.stored_sha256() == before


def test_a_setting_of_a_channel_at_its_default_leaves_the_digest():
    """A later version has one more; at another value it is another channel."""

    @dataclass(frozen=True, kw_only=True)
    class Later(PcmDrift):
        family = PcmDrift.family
        later: float = 0.0

    def told(channel):
        return plans_module._told_fields(channel, channel.to_dict())

    now = told(PcmDrift(read_after_s=86400.0))
    assert now == told(Later(read_after_s=86400.0)) == {"family": "pcm-drift", "read_after_s": 86400.0}
    assert told(Later(read_after_s=86400.0, later=1.0)) == {**now, "later": 1.0}


def test_another_number_of_a_channel_changes_the_digest():
    digests = {Plan(default=Scheme(channel=f"gaussian:sigma={sigma}")).stored_sha256() for sigma in (0.05, 0.06)}
    drifts = {Plan(default=Scheme(channel=f"pcm-drift:read_after_s={time}")).stored_sha256() for time in (0, 1)}
    assert (len(digests), len(drifts)) == (2, 2)


def otherwise(plan):
    """Return what a record says of why it does not hold."""
    return None if plan.verified is None else plan.verified.otherwise


def test_a_record_is_of_a_model():
    plan = verified(Plan(default=ONE), model_sha256="b" * 64)
    assert marked_for_model(plan, ("b" * 64,), pruned=False).is_as_verified
    assert marked_for_model(plan, (), pruned=False).is_as_verified  # nobody knows
    assert marked_for_model(verified(Plan(default=ONE)), "c" * 64, pruned=False).is_as_verified
    assert marked_for_model(Plan(default=ONE), "c" * 64, pruned=True).verified is None
    other = marked_for_model(plan, "c" * 64, pruned=False)
    assert not other.is_as_verified
    assert otherwise(other) == "the plan was verified with another model, as the SHA-256 of its files tells"
    assert list(changed_since(other)) == [
        f"{otherwise(other)}, so what was verified does not hold here; it was corrected by 100 samples"
    ]
    pruned = marked_for_model(plan, ("b" * 64,), pruned=True)
    assert otherwise(pruned) == "the model was pruned, and the plan was verified without that"
    assert marked_for_model(pruned, "c" * 64, pruned=False) == pruned
    assert otherwise(marked_for_model(pruned, "c" * 64, pruned=False)) == otherwise(pruned)  # the first one stays


def test_a_record_holds_only_for_what_is_compensated_alike():
    plan = verified(Plan(default=ONE))
    assert marked_for_compensation(plan, 100, HOW).verified is plan.verified
    for samples, inputs, why in (
        (
            99,
            HOW,
            "weights are stored with compensation by 99 samples, and the plan was verified with compensation by 100 ",
        ),
        (None, UNKNOWN, "weights are stored without compensation, and the plan was verified with compensation by 100 "),
        (100, PLAIN, "the inputs that compensate were not made as when the plan was verified"),
    ):
        marked = marked_for_compensation(plan, samples, inputs)
        assert not marked.is_as_verified
        assert otherwise(marked).startswith(why)
        assert marked.verified == replace(plan.verified, otherwise=otherwise(marked))
    alone = replace(plan, compensated=False, compensated_by=None, verified=record(compensated_by=None))
    assert marked_for_compensation(alone, None, UNKNOWN).verified is alone.verified
    assert otherwise(marked_for_compensation(alone, 9, HOW)).endswith("the plan was verified without compensation")


# --------------------------------------------------------------------------------------------- what is done otherwise


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (100, 100, None),
        (None, None, None),
        (
            100,
            None,
            "correct is left out, but the plan was verified with correction by 100 samples: .* Give it 100 samples",
        ),
        (100, 40, "the plan was verified with correction by 100 samples, and here 40 correct: .* Give it 100$"),
        (100, "gain", "the plan was verified with correction by 100 samples, and here the law of the channel corrects"),
        (None, 40, "correct is given, but the plan was verified without correction: .* Leave it out"),
        (None, "gain", "correct is given, but the plan was verified without correction"),
    ],
)
def test_another_correction_is_a_warning(theirs, ours, said):
    found = list(correction_warnings(record(corrected_by=theirs), ours))
    assert len(found) == (said is not None)
    for text in found:
        with pytest.raises(OptionError, match=f"^{said}"):
            raise OptionError(text)


@pytest.mark.parametrize(
    ("here", "same"),
    [
        (HOW, True),
        (HOW._replace(mean=(0.5, 0.5, 0.5)), True),
        (HOW._replace(preprocessing="the same in other words"), True),
        (HOW._replace(mean=(0.5, 0.5, 0.4)), False),
        (HOW._replace(std=(3.0,)), False),
        (HOW._replace(scale=1.0), False),
        (PLAIN, False),
        (Inputs("'x' made by own:images", preprocess="own:images"), False),
    ],
)
def test_other_inputs_are_a_warning(here, same):
    """Numbers decide, and the name of a function; words are for people."""
    both = [(record(), here), (record(**here._asdict()), HOW)]
    for verified_with, used in both:
        found = list(input_warnings(verified_with, used))
        assert len(found) == (not same)
        there = verified_with.preprocessing
        assert all(there in text and used.preprocessing in text and "give the same mean, std" in text for text in found)


def test_another_function_is_a_warning():
    one, other = (Inputs(f"'x' made by own:{name}", preprocess=f"own:{name}") for name in ("one", "other"))
    assert not list(input_warnings(record(**one._asdict()), one))
    assert len(list(input_warnings(record(**one._asdict()), other))) == 1


def test_another_channel_is_a_warning():
    plan = verified(Plan(default=ONE), channel=str(QUIET))
    how = (100, HOW)
    assert not list(reading_warnings(plan, *how, str(QUIET)))
    assert not list(reading_warnings(plan, *how, ""))  # nobody knows
    (text,) = reading_warnings(plan, *how, "rram-milo")
    assert text.startswith(f"the plan was verified in {QUIET}, and here cells are read through rram-milo: losses are")


@pytest.mark.parametrize("unknown", [UNKNOWN, Inputs("'x' as given (float32)")])
def test_of_inputs_that_are_given_as_they_are_nothing_is_said(unknown):
    assert not list(input_warnings(record(), unknown))
    assert not list(input_warnings(record(**unknown._asdict()), HOW))


def test_an_entry_of_a_later_version_is_ignored_with_a_warning(caplog):
    body = verified(Plan(default=ONE)).to_dict()
    later = {**body, "verified": {**body["verified"], "later": [1], "hold": True}}
    jsonschema.validate(later, SCHEMA)
    assert Plan.from_dict(later).verified == Plan.from_dict(body).verified
    (text,) = caplog.messages
    assert text.endswith("that this version does not know, and ignores: 'later', 'hold'")


def test_a_plan_without_a_record_is_used_as_before():
    plan = replace(Plan(default=ONE), compensated=True, compensated_by=100)
    assert not [
        *changed_since(plan),
        *reading_warnings(plan, None, UNKNOWN, ""),
        *changed_since(marked_for_model(plan, "c" * 64, pruned=True)),
    ]
    assert marked_for_compensation(plan, 7, UNKNOWN) is plan
