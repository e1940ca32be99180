import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog.study._rows import alike

SAMPLES = 1000


@given(st.integers(0, SAMPLES - 1))
def test_shares_that_differ_by_one_sample_of_a_thousand_are_not_alike(right):
    assert not alike(right / SAMPLES, (right + 1) / SAMPLES)
    assert not alike((right + 1) / SAMPLES, right / SAMPLES)


@given(st.floats(1e-3, 1e3), st.sampled_from([-1, 1]))
def test_values_that_differ_by_rounding_are_alike(value, sign):
    assert alike(value, value * (1 + sign * float(np.finfo(np.float32).eps)))


VALUES = [None, math.nan, math.inf, -math.inf, 0.0, 0.5]


def test_every_value_is_alike_to_itself_only():
    for row, value in enumerate(VALUES):
        assert [alike(value, other) for other in VALUES] == [row == column for column in range(len(VALUES))]
