"""`MeasuredPass` as a pass: it returns a copy with what an array returned, and leaves its input alone."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.errors import ModelError
from onnx_analog.graph.image import image_of
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.reads import reads_of
from onnx_analog.passes import DecodePass, ManifestPass, MeasuredPass, ProtectPass, pipeline
from tests.models import FAMILY, SMALL, model, serialized

NET = "net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }"


def stored():
    return pipeline.run([ProtectPass(plan=FAMILY["analog side"], selection=SMALL), ManifestPass()], model(NET))


def reads(protected, **changes):
    columns = image_of(open_protected(protected)).columns()
    noise = np.random.default_rng(0).normal(scale=0.2, size=columns["level"].size)
    return reads_of({"address": columns["address"], "value": columns["level"] + noise, **changes})


def test_a_pass_does_what_the_function_does_and_leaves_the_model_as_it_is():
    protected = stored()
    before = serialized(protected)
    step = MeasuredPass(reads=reads(protected), unit="scaled")
    read = pipeline.run([step], protected)
    assert serialized(protected) == before != serialized(read)
    assert serialized(read) == serialized(oa.readback(protected, measured=step.reads, unit="scaled").model)
    decoded = oa.readback(protected, measured=step.reads, unit="scaled", decoded=True).model
    assert serialized(pipeline.run([DecodePass()], read)) == serialized(decoded)


def test_what_was_read_is_guarded_by_digests():
    protected = stored()
    read = pipeline.run([MeasuredPass(reads=reads(protected), unit="scaled")], protected)
    opened = open_protected(read)
    assert opened.manifest == open_protected(protected).manifest  # of what was written
    (tensor,) = opened.tensors
    tensor.replace_level(tensor.level + 1)
    with pytest.raises(ModelError, match="level"):
        open_protected(read)


def test_another_model_is_refused():
    protected = stored()
    step = MeasuredPass(reads=reads(protected), unit="scaled")
    with pytest.raises(ModelError, match="the model is not protected"):
        pipeline.run([step], model(NET))
    with pytest.raises(ModelError, match="read from noisy cells already"):
        pipeline.run([step], pipeline.run([step], protected))
