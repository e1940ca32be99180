import math
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from onnx_analog.run.statistics import interval


@pytest.mark.parametrize("count", [2, 3, 25])
def test_the_interval_is_student_s_t(count):
    values = np.random.default_rng(count).normal(size=count)
    error = values.std(ddof=1) / math.sqrt(count)
    expected = scipy.stats.t.interval(0.95, count - 1, loc=values.mean(), scale=error)
    assert interval(values.tolist()) == pytest.approx(expected, rel=1e-12)  # a few roundings


def test_the_interval_holds_the_mean_95_times_of_100():
    samples = np.random.default_rng(0).normal(size=(2000, 3))
    ends = np.array([interval(row.tolist()) for row in samples])
    held = int(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).sum())
    assert scipy.stats.binomtest(held, 2000, 0.95).pvalue > 1e-4


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.floats(0.5, 0.999))
def test_bounds_cut_an_interval_off(values, confidence):
    whole = interval(values, confidence)
    low, high = min(values), max(values)
    found = interval(values, confidence, bounds=(low, high))
    assert (found is None) == (whole is None) == (len(set(values)) == 1)
    if found is not None and whole is not None:
        assert found == (max(whole[0], low), min(whole[1], high))
        assert found[0] <= found[1]


@pytest.mark.parametrize("module", ["run.statistics", "study.stopping"])
def test_to_know_how_many_trials_are_enough_no_runtime_is_imported(module):
    """Neither a network, nor workers, nor scipy's distributions."""
    code = (
        f"import sys, onnx_analog.{module}; print(sorted({{'onnxruntime', 'loky', 'scipy.stats'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
