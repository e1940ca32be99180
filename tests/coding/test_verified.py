"""How a plan was verified: what a record may say, which plan it is of, and what is said of what is done otherwise."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given

from onnx_analog.coding import plan as plans_module
from onnx_analog.coding.plan import Plan, changed_since, for_model, keep_record_if_compensated_alike, reading_warnings
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.verified import Verified, correction_warnings, input_warnings
from onnx_analog.errors import OptionError
from tests.coding.test_plan import plans
from tests.models import QUIET

ONE, OTHER = Scheme(channel=QUIET), Scheme.int8(channel=QUIET)
IMAGES = "'x' from uint8 images, divided by 255, "
SCHEMA = json.loads(Path(plans_module.__file__).with_name("plan.schema.json").read_text(encoding="utf-8"))
FACTS = {
    "plan_sha256": "a" * 64, "channel": "pcm", "decoding": "hard", "cells_per_weight": 0.25, "metric": "top1",
    "max_points_lost": 1.0, "holds": True, "confidence": 0.95, "points_lost": 0.6, "points_lost_ci95": (0.2, 0.9),
    "trials": 1, "compensated_by": 100, "corrected_by": 100,
    "preprocessing": f"{IMAGES}normalised with mean 0.5 and std 2",
    "samples": 1000, "parts": (100, 100, 200, 600), "seed": 3,
}  # fmt: skip


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
        ({**body["verified"], "hold": True}, "verified: it has no entry 'hold': did you mean 'holds'?"),
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
        ({"holds": False}, "does not hold"),
        ({"corrected_by": None}, "top1 on 600 samples of 1,000, not corrected: "),
        ({"max_points_lost": None, "budget_cells_per_weight": 2.0, "holds": None}, "within the budget of 2 cells"),
        (
            {
                "max_points_lost": None,
                "min_sqnr_db": 20.0,
                "points_lost": None,
                "points_lost_ci95": None,
                "sqnr_db": 21.0,
            },
            "an SQNR of 21.0 dB; the goal, at least 20 dB, holds",
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
        "the plan was changed after it was verified (corrected by 100 samples): what was verified does not hold for it"
    )
    assert list(changed_since(plan)) == list(reading_warnings(plan, None, "", "")) == [said]


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


def test_a_record_is_of_a_model():
    plan = verified(Plan(default=ONE), model_sha256="b" * 64)
    assert not list(for_model(plan, "b" * 64, pruned=False))
    assert not list(for_model(plan, None, pruned=False))  # nobody knows
    assert not list(for_model(verified(Plan(default=ONE)), "c" * 64, pruned=False))
    assert not list(for_model(Plan(default=ONE), "c" * 64, pruned=True))
    (text,) = for_model(plan, "c" * 64, pruned=False)
    assert text.startswith("the plan was verified with another model (corrected by 100 samples), as ")
    (text,) = for_model(plan, "b" * 64, pruned=True)
    assert text.startswith(
        "the model is pruned first, and the plan was verified without that (corrected by 100 samples): "
    )


def test_a_record_is_kept_only_by_what_is_compensated_alike():
    plan = verified(Plan(default=ONE))
    assert keep_record_if_compensated_alike(plan, 100, FACTS["preprocessing"]).verified is plan.verified
    for other in ((99, FACTS["preprocessing"]), (None, ""), (100, f"{IMAGES}not normalised (no mean and std)")):
        assert keep_record_if_compensated_alike(plan, *other).verified is None
    alone = replace(plan, compensated=False, compensated_by=None, verified=record(compensated_by=None))
    assert keep_record_if_compensated_alike(alone, None, "").verified is not None


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
    ("there", "here", "same"),
    [
        ("normalised with mean 0.5 and std 2", "normalised with mean 0.5 and std 2", True),
        ("normalised with mean 0.5 and std 2", "normalised with mean 0.5,0.5,0.5 and std 2", True),
        ("normalised with mean 0.5 and std 2", "normalised with mean 0.5 and std 2, as the model remembers", True),
        ("normalised with mean 0.5 and std 2", "normalised with mean 0.5 and std 2; the model remembers std 3", True),
        ("normalised with mean 0.5 and std 2", "normalised with mean 0.5,0.5,0.4 and std 2", False),
        ("normalised with mean 0.5 and std 2", "normalised with mean 0.5 and std 3", False),
        ("normalised with mean 0.5 and std 2", "not normalised (no mean and std)", False),
        ("not normalised (no mean and std)", "normalised with mean 0.5 and std 2", False),
    ],
)
def test_other_inputs_are_a_warning(there, here, same):
    found = list(input_warnings(record(preprocessing=IMAGES + there), IMAGES + here))
    assert len(found) == (not same)
    assert all(there in text and here in text and "give the same mean, std" in text for text in found)


def test_another_channel_is_a_warning():
    plan = verified(Plan(default=ONE), channel=str(QUIET))
    how = (100, FACTS["preprocessing"])
    assert not list(reading_warnings(plan, *how, str(QUIET)))
    assert not list(reading_warnings(plan, *how, ""))  # nobody knows
    (text,) = reading_warnings(plan, *how, "rram-milo")
    assert text.startswith(f"the plan was verified in {QUIET}, and here cells are read through rram-milo: losses are")


@pytest.mark.parametrize("unknown", ["", "'x' as given (float32)"])
def test_of_inputs_that_are_given_as_they_are_nothing_is_said(unknown):
    assert not list(input_warnings(record(), unknown))
    assert not list(input_warnings(record(preprocessing=unknown), FACTS["preprocessing"]))


def test_a_plan_without_a_record_is_used_as_before():
    plan = replace(Plan(default=ONE), compensated=True, compensated_by=100)
    assert not [*changed_since(plan), *reading_warnings(plan, None, "", ""), *for_model(plan, "c" * 64, pruned=True)]
    assert keep_record_if_compensated_alike(plan, 7, "") is plan
