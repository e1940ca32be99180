"""Expected errors against errors that are drawn."""

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.distortion import distortion
from onnx_analog.coding.estimators import Affine
from onnx_analog.coding.planes import encode
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.run.read import Decoder
from tests.models import f32, holding

NOISY = GaussianNoise(sigma=0.2, low=-0.65, high=0.75)
LOUD = GaussianNoise(sigma=0.6, low=-0.65, high=0.75)  # 12 % of the bits are wrong
WEIGHT = f32(np.random.default_rng(0).normal(size=(50, 60)) * 0.02)
PRUNED = np.where(np.abs(WEIGHT) > 0.02, WEIGHT, 0).astype(np.float32)
STEPS = {"sign": "level", "classes": 15, "partition": "uniform", "relative_step": 0.8}
MEMBERS = {
    "redundancy": {},
    "raw": {"strategy": "raw"},
    "pcm": {"channel": "pcm"},
    "output channels": {"granularity": "channel"},
    "digital": {**STEPS, "cells": 0},
    "coarse": {**STEPS, "relative_step": 2.0, "cells": 0},  # of pruned weights, some are read as 0
    "refined": {**STEPS, "cells": 1},
    "raw bits": {**STEPS, "cells": 0, "code": "none", "channel": GaussianNoise(sigma=0.25, low=-0.65, high=0.75)},
    "signs without a code": {"strategy": "sign", "code": "none", "channel": LOUD},
    "some without cells": {"classes": 4, "partition": "lloyd", "cells": (0, 1, 2, 3)},
}


def scheme_of(name, estimator):
    return Scheme.paper(**{"channel": NOISY, "estimator": estimator, **MEMBERS[name]})


@pytest.mark.parametrize("weight", [WEIGHT, PRUNED], ids=["dense", "pruned"])
@pytest.mark.parametrize("estimator", ["affine", "clipped", "posterior", "unbiased"])
@pytest.mark.parametrize("name", MEMBERS)
def test_the_expected_error_is_the_mean_of_those_that_are_drawn(name, estimator, weight):
    """Of 40 trials. Levels count as the nearest of 512, and tables are interpolated: 1 % of the error more."""
    scheme = scheme_of(name, estimator)
    (stored,) = encode([weight], scheme, axis=1)
    expected = distortion(weight, stored)
    decoder = Decoder(stored_tensors(oa.protect(holding(w=weight), scheme).model)[0])
    reads = [decoder.weights(seed=0, trial=trial).astype(np.float64).copy() for trial in range(40)]
    errors = np.array([np.square(read - weight).sum() for read in reads])
    gains = np.array([(read * weight).sum() for read in reads]) / np.square(weight, dtype=np.float64).sum()
    for found, drawn in ((expected.error, errors), (expected.gain, gains)):
        assert abs(found - drawn.mean()) <= 5 * drawn.std() / np.sqrt(40) + 0.01 * abs(drawn.mean())
    np.testing.assert_allclose(expected.power, np.square(weight, dtype=np.float64).sum(), rtol=1e-9)
    assert expected.relative == expected.error / expected.power


def test_unbiased_estimates_keep_the_gain_and_posterior_ones_shrink():
    gains = {}
    for estimator in ("posterior", "unbiased"):
        (stored,) = encode([WEIGHT], scheme_of("refined", estimator))
        gains[estimator] = distortion(WEIGHT, stored).gain
    assert gains["posterior"] < 1
    assert gains["unbiased"] == pytest.approx(1, abs=1e-12)


def test_nothing_is_known_of_other_estimators(monkeypatch):
    monkeypatch.setattr("onnx_analog.coding.estimators._KNOWN", {"x:Own": Affine()})
    (stored,) = encode([WEIGHT], Scheme(channel=NOISY, estimator="x:Own"))
    with pytest.raises(OptionError, match="the errors of estimator 'x:Own' are not known in closed form"):
        distortion(WEIGHT, stored)
