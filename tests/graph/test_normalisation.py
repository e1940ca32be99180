import json

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.graph import files
from onnx_analog.graph.normalisation import KEY, Normalisation, keep, remembered


@pytest.fixture
def model():
    return files.load(demo.MODEL)


def test_what_is_kept_is_remembered(model):
    assert remembered(model) is None
    kept = Normalisation((0.1, 0.2, 0.3), (0.4,))
    keep(model, kept)
    assert remembered(model) == remembered(files.load(files.to_proto(model))) == kept


DAMAGED = {
    "no JSON": "x",
    "a list": "[1]",
    "no std": json.dumps({"mean": [0.5]}),
    "more": json.dumps({"mean": [0.5], "std": [1], "scale": [1]}),
    "a number": json.dumps({"mean": 0.5, "std": [1]}),
    "text": json.dumps({"mean": ["0.5"], "std": [1]}),
    "a truth value": json.dumps({"mean": [True], "std": [1]}),
    "none": json.dumps({"mean": [], "std": [1]}),
    "a std of 0": json.dumps({"mean": [0.5], "std": [0]}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_entry_is_refused(model, text):
    model.metadata_props[KEY] = text
    with pytest.raises(ModelError, match=rf"metadata entry '{KEY}' is damaged: .+\. Write it again with `remember`"):
        remembered(model)
    with pytest.raises(ModelError, match="is damaged"):
        oa.evaluate(model, demo.IMAGES, samples=4)


def test_numbers_that_cannot_normalise_are_not_kept(model):
    with pytest.raises(OptionError, match="std is 0; each number must be above 0 and finite"):
        keep(model, Normalisation(std=(0.0,)))
    assert KEY not in model.metadata_props


@pytest.mark.parametrize("std", [1e-60, 1e60, 0.0, -1.0])
def test_a_divisor_that_float32_cannot_hold_is_refused(std):
    with pytest.raises(OptionError, match="each number must be above 0 and finite, in float32"):
        Normalisation(std=(std,)).check()


def test_numbers_may_be_those_of_numpy():
    Normalisation(mean=(np.float32(0.5),), std=(np.float64(0.25),)).check()
