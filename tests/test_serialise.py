from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.channels import Channel, GaussianNoise, Scale, Source, TableChannel
from onnx_analog.errors import ChannelError
from onnx_analog.serialise import conform, from_json_dict, parse, to_json_dict

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(st.none() | st.booleans() | NUMBERS | TEXTS, lambda v: st.lists(v) | st.dictionaries(TEXTS, v))


@given(VALUES)
def test_what_json_writes_is_read(value):
    assert parse(json.dumps(value)) == value
    assert parse(json.dumps(value, ensure_ascii=False, indent=2)) == value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[{"b": 1, "a": {}, "a": {}}]', "an object has the name 'a' twice"),
        ("[NaN]", "NaN is not finite"),
        ("-Infinity", "-Infinity is not finite"),
        ('{"a": 1e999}', "1e999 is not finite"),
        ("9223372036854775808", "beyond 64 bits"),
        ("-9223372036854775809", "beyond 64 bits"),
        ("1" * 5000, "11111111111111111111... is beyond 64 bits"),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ("[" * 33 + "]" * 33, "nested more than 32 deep"),
        ("[" * 100_000, "nested more than 32 deep"),
        ('{"a":' * 33 + "1" + "}" * 33, "nested more than 32 deep"),
        ("", "it is not JSON: Expecting value"),
        ("[1,", "it is not JSON: Expecting value"),
        ("1 2", "it is not JSON: Extra data"),
    ],
    ids=lambda text: text[:20],
)
def test_what_programs_read_differently_is_refused(text, what):
    with pytest.raises(ValueError, match=what.replace("...", r"\.\.\.")):
        parse(text)


@pytest.mark.parametrize(
    "text", ["9223372036854775807", "-9223372036854775808", "[" * 32 + "]" * 32, '"\\ud83d\\ude00"']
)
def test_the_last_that_is_read(text):
    assert parse(text) == json.loads(text)


# ------------------------------------------------------------------------------------------------------ dataclasses


@dataclass(frozen=True)
class Inner:
    size: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner(1.0)
    rows: tuple[tuple[float, ...], ...] = ()
    note: str = field(default="fixed", init=False)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A field of each kind."""

    channel: Channel
    cells: tuple[int, ...] = (1,)
    bounds: tuple[float, float] = (-1.0, 1.0)
    granularity: Literal["tensor", "model"] = "tensor"
    side: Channel | None = None
    threshold: float | None = None
    size: int | str = 1
    flags: tuple[bool, ...] = ()
    tensors: Mapping[str, Inner] = field(default_factory=dict)
    inner: Inner | None = None
    estimator: None = None

    def __post_init__(self) -> None:
        conform(self)


SCHEME = Scheme(
    channel=GaussianNoise(sigma=0.2),
    cells=(1, 20),
    bounds=(0.0, 2.5),
    granularity="model",
    side=GaussianNoise(),
    threshold=0.25,
    size="large",
    flags=(True, False),
    tensors={"conv.weight": Inner(2.0), "": Inner(-1e-300)},
    inner=Inner(3.0),
)


@pytest.mark.parametrize("scheme", [SCHEME, Scheme(channel=GaussianNoise())])
def test_a_dataclass_goes_through_json(scheme):
    body = to_json_dict(scheme)
    assert from_json_dict(Scheme, parse(json.dumps(body, allow_nan=False))) == scheme
    assert to_json_dict(from_json_dict(Scheme, body)) == body
    assert body["channel"] == scheme.channel.to_dict()


@given(
    st.builds(
        Scheme,
        channel=st.builds(GaussianNoise, sigma=st.floats(1e-3, 1e3)),
        cells=st.lists(st.integers(-(2**63), 2**63 - 1)).map(tuple),
        bounds=st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
        threshold=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        size=st.integers(0, 9) | TEXTS,
        tensors=st.dictionaries(TEXTS, st.builds(Inner, st.floats(-1, 1))),
    )
)
def test_every_value_of_a_field_survives(scheme):
    assert from_json_dict(Scheme, parse(json.dumps(to_json_dict(scheme)))) == scheme


def test_a_table_is_built_again_from_its_fields():
    table = TableChannel(
        name="t",
        inputs=(-1.0, 1.0),
        means=(0.0, 1.0),
        stds=(0.1, 0.2),
        input_scale=Scale(low=1.0, high=5.0, unit="V"),
        provenance=Source(citation="a", figure="b", licence="c", left_out="d"),
        between=(0.05, 0.1),
        residuals=((-1.0, 1.0), (-1.0, 1.0)),
    )
    assert from_json_dict(TableChannel, asdict(table)) == table
    assert from_json_dict(TableChannel, to_json_dict(table)) == table


def test_lists_become_tuples_at_every_depth():
    outer = from_json_dict(Outer, {"name": "a", "rows": [[1.0, 2.0], [], [3.0]]})
    assert outer == Outer("a", rows=((1.0, 2.0), (), (3.0,)))
    assert hash(outer) == hash(Outer("a", rows=((1.0, 2.0), (), (3.0,))))


def test_mappings_become_the_dataclass_that_the_field_asks_for():
    assert from_json_dict(Outer, {"name": "a", "inner": {"size": 2.0}}) == Outer("a", Inner(2.0))


def test_a_value_that_is_built_already_is_kept():
    inner = Inner(3.0)
    assert from_json_dict(Outer, {"name": "a", "inner": inner}).inner is inner


def test_fields_that_are_not_arguments_are_passed_over():
    assert from_json_dict(Outer, {"name": "a", "note": "another"}).note == "fixed"
    body = {"sigma": 0.2, "source": {"citation": "another"}}
    assert from_json_dict(GaussianNoise, body) == GaussianNoise(sigma=0.2)


@pytest.mark.parametrize(
    "body", [{}, {"name": "a", "more": 1}, {"name": "a", "inner": {}}, {"name": "a", "inner": {"size": 1, "more": 2}}]
)
def test_a_field_too_few_or_too_many_is_refused(body):
    with pytest.raises(TypeError, match=r"size|more|name"):
        from_json_dict(Outer, body)


@pytest.mark.parametrize("body", [[], "text", 3, None])
def test_what_is_no_mapping_is_refused(body):
    with pytest.raises(TypeError):
        from_json_dict(Outer, body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel": 3}, "channel is 3, which is not a Channel"),
        ({"channel": None}, "channel is null, which is not a Channel"),
        ({"side": "pcm"}, "side is 'pcm', which is not a Channel"),
        ({"cells": [1, 2.5]}, r"cells\[1\] is 2.5; it must be a whole number"),
        ({"cells": None}, "cells is null; it must be a list"),
        ({"bounds": [1.0]}, "bounds has 1 entries; it must have 2"),
        ({"bounds": [1.0, True]}, r"bounds\[1\] is true; it must be a finite number"),
        ({"bounds": [1.0, float("nan")]}, r"bounds\[1\] is nan; it must be a finite number"),
        ({"granularity": "tensors"}, "granularity is 'tensors'; it must be tensor or model"),
        ({"granularity": ["tensor"]}, "granularity is a list; it must be tensor or model"),
        ({"threshold": "0.5"}, "threshold is '0.5'; it must be a finite number"),
        ({"size": 1.5}, "size is 1.5; it must be text"),
        ({"flags": [1]}, r"flags\[0\] is 1; it must be true or false"),
        ({"tensors": []}, "tensors is a list; it must be an object"),
        ({"tensors": {"a": {"size": "b"}}}, "tensors.a: size is 'b'; it must be a finite number"),
        ({"tensors": {3: {"size": 1}}}, "a key of tensors is 3; it must be text"),
        ({"tensors": {"a": None}}, "tensors.a: Inner is built from a mapping, not from null"),
        ({"inner": {"size": 1, "colour": 2}}, "inner: there is no field 'colour'; fields are size"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(change, message):
    with pytest.raises(TypeError, match=f"^{message}") as caught:
        from_json_dict(Scheme, {"channel": GaussianNoise().to_dict(), **change})
    assert str(caught.value).isprintable()


def test_a_channel_that_cannot_be_is_a_channel_error():
    with pytest.raises(ChannelError, match="no channel is called 'flash'"):
        from_json_dict(Scheme, {"channel": {"family": "flash"}})


@dataclass(frozen=True)
class Tabled:
    channel: TableChannel


def test_a_channel_of_another_class_than_the_annotation_is_refused():
    with pytest.raises(TypeError, match="channel is GaussianNoise, which is not a TableChannel"):
        from_json_dict(Tabled, {"channel": GaussianNoise().to_dict()})


def test_numbers_of_numpy_are_written_as_those_of_python():
    scheme = Scheme(channel=GaussianNoise(), cells=np.array([1, 2]), threshold=np.float32(0.5), flags=(np.True_,))
    assert json.loads(json.dumps(to_json_dict(scheme)))["cells"] == [1, 2]
    assert [type(scheme.threshold), type(scheme.cells[0]), type(scheme.flags[0])] == [float, int, bool]


@dataclass(frozen=True)
class Anything:
    value: Any


@pytest.mark.parametrize("value", [float("nan"), (float("inf"),), {3: 1}, {1}, b"bytes", object(), 1j, Inner])
def test_what_json_cannot_say_is_not_written(value):
    with pytest.raises(TypeError, match="value"):
        to_json_dict(Anything(value))
