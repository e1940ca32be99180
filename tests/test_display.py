"""How numbers are shown."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.display import rounded_alike


@given(st.lists(st.integers(0, 10**6) | st.floats(0, 10**6).map(lambda count: round(count, 3)), min_size=1))
def test_rounded_counts_add_up_to_the_rounded_sum_and_whole_ones_stay(counts):
    rounded = rounded_alike(counts)
    assert abs(sum(rounded) - math.fsum(counts)) <= 0.5 + 1e-6
    for count, whole in zip(counts, rounded, strict=True):
        assert abs(whole - count) < 1 + 1e-6


def test_whole_counts_stay_and_halves_do_not_add_up_to_more():
    assert rounded_alike([100, 250.5, 7, 250.5]) == [100, 251, 7, 250]
    assert sum(map(round, [100.6, 250.6, 7.6])) != sum(rounded_alike([100.6, 250.6, 7.6])) == 359
