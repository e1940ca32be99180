"""plan.schema.json says what a plan's file may hold, and follows from the declarations of a scheme's settings."""

import copy
import json
import runpy
from importlib.resources import files as packaged
from typing import Any, get_args, get_origin

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given

from onnx_analog.channels import resolve
from onnx_analog.coding.plan import FORMAT, LONGEST_KEY, MOST_PATTERNS, MOST_SCHEMES, MOST_TENSORS, Plan
from onnx_analog.coding.scheme import (
    CODES,
    ENTROPIES,
    GRANULARITIES,
    MOST_CLASSES,
    PARTITIONS,
    ROUNDINGS,
    SIGNS,
    STRATEGIES,
    Scheme,
)
from onnx_analog.errors import AnalogError
from onnx_analog.settings import Setting, settings_of
from tests.conftest import ROOT
from tests.models import FAMILY, LOUD, QUIET

SCHEMA = json.loads((packaged("onnx_analog.coding") / "plan.schema.json").read_text(encoding="utf-8"))
MANIFEST = json.loads((packaged("onnx_analog.graph") / "manifest.schema.json").read_text(encoding="utf-8"))
CHANNELS = (QUIET, resolve("pcm"), resolve("pcm-drift:differential=true"), resolve("rram-wan"))


def accepts(body: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(body))


# ------------------------------------------------------------------------------------------------- what is written


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    """Any scheme: settings are drawn one after another, so that they fit each other."""
    sign, classes = draw(st.sampled_from(SIGNS)), draw(st.integers(1, 9) | st.just(MOST_CLASSES))
    partition = draw(st.sampled_from(PARTITIONS)) if classes > 1 else "share"
    least, channel = 1 if classes == 1 else 0, draw(st.sampled_from(CHANNELS))
    cells = draw(
        st.integers(least, channel.most_cells or 10**12)
        | st.lists(st.integers(least, 50), min_size=classes, max_size=classes)
    )
    analog = {each > 0 for each in cells} if isinstance(cells, list) else {cells > 0}
    side = len(analog) == 1 and draw(st.booleans())
    sizes = st.floats(1e-6, 1e6)
    uniform = partition == "uniform"
    step: dict[str, Any] = draw(st.dictionaries(st.sampled_from(["step", "relative_step"]), sizes, max_size=uniform))
    entropy = "none" if side else draw(st.sampled_from(ENTROPIES))
    bounds = st.sets(sizes, min_size=classes - 1, max_size=classes - 1)
    return Scheme(
        sign=sign,
        classes=classes,
        partition=partition,
        shares=draw(shares(classes - 1)) if partition == "share" else (),
        bounds=tuple(sorted(draw(bounds))) if partition == "bounds" else (),
        rate_weight=draw(st.floats(0, 10)) if uniform and analog == {False} else 0.0,
        rounding=draw(st.sampled_from(ROUNDINGS)),
        entropy=entropy,
        segment_weights=draw(st.integers(1, 2**40)),
        mask_seed=draw(st.none() | st.integers(0, 2**32 - 1)),
        code=draw(st.sampled_from([code for code in CODES if code != "none" or entropy != "none" or len(analog) == 1])),
        block_bits=draw(st.integers(8, 2**15)),
        block_failure=draw(st.floats(1e-300, 1)),
        **step,
        cells=tuple(cells) if isinstance(cells, list) else (cells,),
        granularity=draw(st.sampled_from(GRANULARITIES)),
        channel=channel,
        side_bits_per_cell=draw(st.integers(1, 8)),
        side_channel=LOUD if side else None,
        side_cells=draw(st.integers(1, 1000)) if side else 1,
        side_copies=2 * draw(st.integers(0, 499)) + 1 if side else 1,
    )


def shares(count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(st.floats(0, 1 / max(1, count)), min_size=count, max_size=count).map(tuple)


NAMES = st.text(min_size=1, max_size=20)
PLANS = st.builds(
    Plan,
    default=st.none() | schemes() | st.sampled_from([*FAMILY.values()]),
    tensors=st.dictionaries(NAMES, st.none() | schemes() | st.sampled_from([*FAMILY.values()]), max_size=4),
    compensated=st.booleans(),
)


@given(PLANS)
def test_every_plan_that_is_written_fits_the_schema_and_is_read_again(plan):
    body = json.loads(json.dumps(plan.to_dict()))
    jsonschema.validate(body, SCHEMA, jsonschema.Draft202012Validator)
    again = Plan.from_dict(body)
    assert (again, again.compensated) == (plan, plan.compensated)


@pytest.mark.parametrize("name", FAMILY)
def test_each_member_of_the_family_fits_the_schema(name):
    jsonschema.validate(Plan(default=FAMILY[name]).to_dict(), SCHEMA, jsonschema.Draft202012Validator)


# ------------------------------------------------------------------------------------------- what people may write


@pytest.mark.parametrize(
    "scheme",
    [
        {},
        {"cells": 3},
        {"channel": "pcm"},
        {"channel": "pcm-drift:differential=true", "side_channel": "rram-wan", "side_copies": 3},
        {"channel": {"family": "gaussian", "sigma": 0.2}},
        {"channel": {"name": "pcm", "cells_on": "same"}},
        {"channel": {"family": "precision", "inner": {"name": "pcm"}, "read_bits": 4}},
        {"classes": 3, "shares": [0.2, 0.1], "cells": [0, 1, 20]},
    ],
    ids=str,
)
def test_settings_may_be_left_out_and_channels_named(scheme):
    body = {
        "format": FORMAT,
        "schemes": {"a": scheme},
        "default": "a",
        "tensors": {"fc.*": None, "b": "a"},
        "patterns": [{"pattern": "c*", "scheme": "a"}],
    }
    assert accepts(body)
    assert Plan.from_dict(body).scheme_of("b") == Plan.from_dict(body).default


def written() -> dict[str, Any]:
    plan = Plan(
        default=FAMILY["redundancy"], tensors={"fc.*": FAMILY["int8"], "b": None}, patterns={"c*": FAMILY["int8"]}
    )
    return copy.deepcopy(plan.to_dict())


def in_scheme(**settings: Any) -> Any:
    return lambda body: body["schemes"]["scheme0"].update(settings)


WRONG = {
    "no format": lambda body: body.pop("format"),
    "another format": lambda body: body.update(format="onnx-analog-plan/9"),
    "no schemes": lambda body: body.pop("schemes"),
    "a list of schemes": lambda body: body.update(schemes=[]),
    "an entry too many": lambda body: body.update(scheme={}),
    "schemes too many": lambda body: body.update(
        schemes={f"{i}": {} for i in range(MOST_SCHEMES + 1)}, default=None, tensors={}
    ),
    "a scheme that is text": lambda body: body["schemes"].update(scheme0="raw"),
    "a default that is a scheme": lambda body: body.update(default={}),
    "a tensor that has a number": lambda body: body["tensors"].update(a=1),
    "a key without characters": lambda body: body["tensors"].update({"": None}),
    "a key that is too long": lambda body: body["tensors"].update({"a" * (LONGEST_KEY + 1): None}),
    "patterns that are an object": lambda body: body.update(patterns={"a*": None}),
    "a pattern without a scheme": lambda body: body["patterns"].append({"pattern": "a*"}),
    "a pattern with an entry too many": lambda body: body["patterns"].append({"pattern": "a", "scheme": None, "a": 1}),
    "a pattern without characters": lambda body: body["patterns"].append({"pattern": "", "scheme": None}),
    "a pattern that has a number": lambda body: body["patterns"].append({"pattern": "a*", "scheme": 1}),
    "patterns too many": lambda body: body.update(
        patterns=[{"pattern": f"{i}", "scheme": None} for i in range(MOST_PATTERNS + 1)]
    ),
    "an unknown setting": in_scheme(strategy="raw"),
    "an unknown sign": in_scheme(sign="both"),
    "no class": in_scheme(classes=0),
    "classes too many": in_scheme(classes=257),
    "classes and a half": in_scheme(classes=2.5),
    "an unknown partition": in_scheme(partition="kmeans"),
    "a share above 1": in_scheme(shares=[1.5]),
    "shares that are a number": in_scheme(shares=0.5),
    "bounds that are text": in_scheme(bounds="0.5"),
    "a step of 0": in_scheme(step=0),
    "cells below 0": in_scheme(cells=[-1, 1]),
    "no cells": in_scheme(cells=[]),
    "cells too many": in_scheme(cells=10**12 + 1),
    "an unknown granularity": in_scheme(granularity="layer"),
    "a channel without a family": in_scheme(channel={"sigma": 1}),
    "a channel that is a number": in_scheme(channel=3),
    "an estimator that is a number": in_scheme(estimator=3),
    "nine bits in a cell": in_scheme(side_bits_per_cell=9),
    "no cells of side information": in_scheme(side_cells=0),
    "two copies": in_scheme(side_copies=2),
    "compensation in samples": lambda body: body.update(compensated=256),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_plan_fits_neither_the_schema_nor_the_reader(name):
    body = written()
    assert accepts(body)
    WRONG[name](body)
    assert not accepts(body)
    with pytest.raises(AnalogError):
        Plan.from_dict(body)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (in_scheme(cells=[1, 2, 3]), "cells has 3 numbers"),
        (in_scheme(shares=[]), "shares has 0 numbers"),
        (in_scheme(side_copies=3), "need a side_channel"),
        (in_scheme(channel="os:abort"), "no channel is called 'os'"),
        (in_scheme(channel="/etc/passwd.json"), "no channel is called '/etc/passwd.json'"),
        (in_scheme(channel={"family": "os:abort"}), "a file cannot import a module"),
        (in_scheme(estimator="os:abort"), "the estimator 'os:abort' is not loaded"),
        (lambda body: body.update(default="other"), 'refers to the scheme "other", which it does not have'),
    ],
)
def test_what_a_schema_cannot_say_the_reader_says(change, what):
    body = written()
    change(body)
    assert accepts(body)
    with pytest.raises(AnalogError, match=what):
        Plan.from_dict(body)


# ------------------------------------------------------------------------------------------- one declaration


def declared(setting: Setting, kind: Any) -> dict[str, Any]:
    """Return what a schema says of one value of a setting."""
    if setting.choices:
        return {"enum": list(setting.choices)}
    names = {"least": "minimum", "most": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}
    limits = {there: getattr(setting, name) for name, there in names.items() if getattr(setting, name) is not None}
    odd = {"not": {"multipleOf": 2}} if setting.odd else {}
    return {"type": {int: "integer", float: "number", str: "string"}[kind], **limits, **odd}


@pytest.mark.parametrize("schema", [SCHEMA, MANIFEST], ids=["plan", "manifest"])
def test_the_schema_says_what_the_settings_declare(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    said = schema["$defs"]["scheme"]["properties"]
    assert list(said) == list(settings_of(Scheme))
    for name, (setting, kind, _) in settings_of(Scheme).items():
        assert said[name]["description"] == setting.help.partition("  [")[0], name
        if name in ("channel", "side_channel"):
            continue
        given = next(one for one in (get_args(kind) or (kind,)) if one not in (type(None), Ellipsis))
        alternatives = said[name].get("anyOf", [said[name]])
        single = {key: value for key, value in alternatives[0].items() if key != "description"}
        many = [each for each in alternatives if each.get("type") == "array"]
        for entry in [each["items"] for each in many] if get_origin(kind) is tuple else [single]:
            assert entry == declared(setting, given), name
        assert bool(many) == (get_origin(kind) is tuple), name


@pytest.mark.parametrize("name", ["PLAN", "MANIFEST"])
def test_the_settings_in_a_schema_are_what_the_script_writes(name):
    script = runpy.run_path(str(ROOT / "docs" / "make_schemas.py"))
    assert script["schema"](script[name]) == script[name].read_text(encoding="utf-8")
    more = {**settings_of(Scheme), "dither": (Setting(help="How it is dithered.", least=1, odd=True), int, 3)}
    body = json.loads(script["schema"](script[name], more))
    assert body["$defs"]["scheme"]["properties"]["dither"] == {
        "type": "integer", "minimum": 1, "not": {"multipleOf": 2}, "description": "How it is dithered.",
    }  # fmt: skip


def test_the_bounds_of_a_plan_are_those_of_the_reader():
    assert SCHEMA["properties"]["format"]["const"] == FORMAT
    assert SCHEMA["properties"]["schemes"]["maxProperties"] == MOST_SCHEMES
    assert SCHEMA["properties"]["tensors"]["maxProperties"] == MOST_TENSORS
    assert SCHEMA["properties"]["tensors"]["propertyNames"]["maxLength"] == LONGEST_KEY
    assert SCHEMA["properties"]["patterns"]["maxItems"] == MOST_PATTERNS
    assert SCHEMA["properties"]["patterns"]["items"]["properties"]["pattern"]["maxLength"] == LONGEST_KEY


def test_a_scheme_is_the_same_in_plans_and_manifests_but_for_what_people_may_leave_out():
    plan, manifest = (schema["$defs"]["scheme"] for schema in (SCHEMA, MANIFEST))
    assert manifest["required"] == list(manifest["properties"])
    assert "required" not in plan
    assert len(STRATEGIES) == 4
