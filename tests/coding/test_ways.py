"""The shortest of several encodings."""

from __future__ import annotations

import pytest

from onnx_analog.coding.ways import Way, shortest


def test_a_way_that_cannot_be_the_shortest_is_not_encoded():
    ways = [Way(100, 3, lambda: 102), Way(105, 3, lambda: 101), Way(110, 3, lambda: pytest.fail("is encoded"))]
    assert shortest(ways, int) == 101
