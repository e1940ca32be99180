"""Measurements of `tune` in other processes."""

import pytest

import onnx_analog as oa
from onnx_analog.errors import OptionError
from tests.models import model
from tests.run.nets import rows

NET = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 32] b = 2 random,
            float[32, 16] c = 3 random> {
        h = MatMul(x, a)
        g = Relu(h)
        k = MatMul(g, b)
        y = MatMul(k, c)
    }"""
ASKED = {"budget": 6.0, "decoding": "none", "channel": "gaussian:sigma=0.1", "trials": 3}


def test_the_answer_does_not_depend_on_the_engine(tmp_path):
    data = rows(300).inputs["x"]
    here = oa.tune(model(NET), data, resume=tmp_path / "here.jsonl", **ASKED)
    there = oa.tune(
        model(NET), data, engine=oa.engines.build("local", workers=2), resume=tmp_path / "there.jsonl", **ASKED
    )
    assert here.to_dict() == there.to_dict()
    kept = [sorted((tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()) for name in ("here", "there")]
    assert kept[0] == kept[1]
    again = oa.tune(model(NET), data, resume=tmp_path / "there.jsonl", **ASKED)
    assert again.to_dict() == here.to_dict()


def test_another_engine_is_refused():
    with pytest.raises(OptionError, match="engine"):
        oa.tune(model(NET), rows(300).inputs["x"], engine="cloud", **ASKED)
