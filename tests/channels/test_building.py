from dataclasses import asdict, dataclass, field

import pytest

from onnx_analog.channels import GaussianNoise, Scale, Source, TableChannel
from onnx_analog.channels.building import build


@dataclass(frozen=True)
class Inner:
    size: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner(1.0)
    rows: tuple[tuple[float, ...], ...] = ()
    note: str = field(default="fixed", init=False)


def test_what_was_taken_apart_is_built_again():
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
    assert build(TableChannel, asdict(table)) == table


def test_lists_become_tuples_at_every_depth():
    found = build(Outer, {"name": "a", "rows": [[1.0, 2.0], [], [3.0]]})
    assert found == Outer("a", rows=((1.0, 2.0), (), (3.0,)))
    assert hash(found) == hash(Outer("a", rows=((1.0, 2.0), (), (3.0,))))


def test_mappings_become_the_dataclass_that_the_field_asks_for():
    assert build(Outer, {"name": "a", "inner": {"size": 2.0}}) == Outer("a", Inner(2.0))


def test_a_value_that_is_built_already_is_kept():
    inner = Inner(3.0)
    assert build(Outer, {"name": "a", "inner": inner}).inner is inner


def test_fields_that_are_no_arguments_are_passed_over():
    assert build(Outer, {"name": "a", "note": "another"}).note == "fixed"
    assert build(GaussianNoise, {"sigma": 0.2, "source": {"citation": "another"}}) == GaussianNoise(sigma=0.2)


@pytest.mark.parametrize(
    "body", [{}, {"name": "a", "more": 1}, {"name": "a", "inner": {}}, {"name": "a", "inner": {"size": 1, "more": 2}}]
)
def test_a_field_too_few_or_too_many_is_refused(body):
    with pytest.raises(TypeError, match=r"size|more|name"):
        build(Outer, body)


@pytest.mark.parametrize("body", [[], "text", 3, None])
def test_what_is_no_mapping_is_refused(body):
    with pytest.raises(TypeError):
        build(Outer, body)
