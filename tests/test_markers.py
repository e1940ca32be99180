"""Tests outside `make test` state why they are slow, how long they take and how much memory they need."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.conftest import ROOT

KINDS = ("slow", "cluster")
TIME = re.compile(r"\b\d+ (s|min)\b")
MEMORY = re.compile(r"\b\d+ (MB|GB)\b")


class Marker(NamedTuple):
    """A marker in a file of tests; one without a reason has an empty reason."""

    kind: str
    line: int
    reason: str


def markers(source: str) -> Iterator[Marker]:
    """Yield the markers of these kinds in a file of tests."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in KINDS and ast.unparse(node.value) == "pytest.mark":
            call = calls.get(id(node))
            keywords = {} if call is None else {keyword.arg: keyword.value for keyword in call.keywords}
            reason = ast.literal_eval(keywords.get("reason", ast.Constant("")))
            yield Marker(node.attr, node.lineno, reason)


def unexplained(source: str) -> list[int]:
    """Return the lines of the markers that do not state a time and an amount of memory."""
    return [
        marker.line for marker in markers(source) if not (TIME.search(marker.reason) and MEMORY.search(marker.reason))
    ]


def sources() -> dict[str, str]:
    """Return the text of each file of tests."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def test_slow_tests_state_why_and_what_they_need():
    assert {name: lines for name, text in sources().items() if (lines := unexplained(text))} == {}


def test_there_are_tests_of_each_kind():
    assert {marker.kind for text in sources().values() for marker in markers(text)} == set(KINDS)


@pytest.mark.parametrize(
    "mark",
    [
        "slow",
        "cluster",
        "slow()",
        "slow(reason='it starts many processes')",
        "slow(reason='it starts many processes: 20 s')",
        "slow(reason='it needs 2 GB')",
    ],
)
def test_a_marker_without_time_or_memory_is_found(mark):
    assert unexplained(f"import pytest\n\n@pytest.mark.{mark}\ndef test_a(): pass") == [3]
    assert unexplained(f"import pytest\n\nmarks = [pytest.mark.{mark}]") == [3]


def test_a_marker_with_both_is_not():
    assert unexplained("@pytest.mark.slow(reason='many rows: 3 min, 200 MB')\ndef test_a(): pass") == []
    assert unexplained("@pytest.mark.skip\ndef test_a(): pass") == []
