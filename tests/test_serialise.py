import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.serialise import parse

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
