"""The yardstick says what it needs where it is not there, and does what it says where it is."""

import sys

import numpy as np
import pytest

from benchmarks import nncodec_rival


def test_without_the_package_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(nncodec_rival, "has_nncodec", lambda _: False)
    monkeypatch.setattr(sys, "argv", ["nncodec_rival", "model.onnx", "--data", "test.npz"])
    nncodec_rival.main()
    assert capsys.readouterr().out == f"{nncodec_rival.MISSING}\n"


@pytest.mark.skipif(not nncodec_rival.has_nncodec(sys.executable), reason="nncodec is not installed")
def test_finer_steps_take_more_bits_and_leave_less_error():
    weights = {"a": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)}
    (coarse, first), (fine, second) = (nncodec_rival.coded(weights, step) for step in (1.0, 0.25))
    assert coarse < fine
    assert np.square(first["a"] - weights["a"]).mean() > np.square(second["a"] - weights["a"]).mean()
