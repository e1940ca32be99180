"""The limit of stored models against closed forms: a Gaussian source through a Gaussian channel."""

from __future__ import annotations

import math

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.capacity import of_channel
from onnx_analog.coding import limit
from onnx_analog.errors import ModelError, OptionError
from tests.models import holding

CHANNEL = GaussianNoise(sigma=0.1)
N = 256 * 256
WEIGHTS = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(4, 256)).astype(np.float32)


def experiment(weights=WEIGHTS, **options):
    return oa.Experiment(holding(w=weights), X, **options)


def test_a_gaussian_tensor_read_through_a_gaussian_channel():
    """A level is the weight times 1/α, and a read adds σ: D = (σ/α)², of which R(D) = ½·log2(1/D)."""
    scheme = oa.Scheme.paper("raw", cells_small=4, channel=CHANNEL)
    found = experiment().limit(scheme)
    (tensor,) = found.tensors
    (alpha,) = (entry.alpha for entry in oa.protect(holding(w=WEIGHTS), scheme).manifest.tensors[0].classes)
    mse = (0.1 / 2 / alpha) ** 2  # 4 cells are averaged
    assert tensor.mse == pytest.approx(mse, rel=5 * math.sqrt(2 / N))
    assert tensor.bits == pytest.approx(0.5 * math.log2(np.var(WEIGHTS) / tensor.mse), abs=0.02)
    assert tensor.capacity_bits == of_channel(CHANNEL).bits
    assert found.cells == pytest.approx(N * tensor.bits / tensor.capacity_bits)
    assert found.honest_cells == oa.protect(holding(w=WEIGHTS), scheme).manifest.totals.honest_cells
    assert found.factor > 1


@pytest.mark.parametrize(
    "scheme", [oa.Scheme.entropy_coded(1.0), oa.Scheme.refined(1.0), oa.Scheme.paper(), oa.Scheme.int4()]
)
@pytest.mark.parametrize("code", ["bch", "soft"])
def test_no_scheme_takes_fewer_cells_than_the_limit(scheme, code):
    assert experiment().limit(scheme.changed(code=code, channel=CHANNEL)).factor > 1


def test_fewer_errors_take_more_cells():
    limits = [experiment().limit(oa.Scheme.paper("raw", cells_small=r, channel=CHANNEL)).cells for r in (1, 4, 16)]
    assert limits == sorted(limits)
    assert limits[-1] > limits[0]


def test_an_evaluation_has_the_limit_only_if_it_is_asked_for():
    stored = oa.protect(holding(w=WEIGHTS), cells_small=1, channel=CHANNEL)
    evaluation = oa.evaluate(stored, X, trials=2, limit=True)
    expected = experiment().limit(stored.plan)  # whose weights differ from the stored ones in the last digits
    assert evaluation.limit.cells == pytest.approx(expected.cells, rel=1e-4)
    assert evaluation.limit.honest_cells == expected.honest_cells
    assert evaluation.to_dict()["limit"]["factor"] == evaluation.limit.factor
    assert oa.evaluate(stored, X, trials=2).limit is None
    assert "limit" not in oa.evaluate(stored, X, trials=2).to_dict()
    swept = oa.sweep(
        holding(w=WEIGHTS), X, strategy="redundancy", cells=1, channel=CHANNEL, trials=2, engine="serial", limit=True
    )
    (point,) = swept
    assert point.evaluation.limit.factor == pytest.approx(evaluation.limit.factor, rel=0.05)
    assert point.row()["against_limit"] == point.evaluation.limit.factor


def test_errors_of_weights_that_are_read_as_zero_count():
    pruned = np.where(np.abs(WEIGHTS) < 1.0, 0, WEIGHTS)
    scheme = oa.Scheme.entropy_coded(2.5, channel=CHANNEL)
    (tensor,) = experiment(pruned).limit(scheme).tensors
    (stored,) = oa.protect(holding(w=pruned), scheme).tensors
    assert np.count_nonzero(stored.mask) < np.count_nonzero(pruned)
    assert tensor.mse == pytest.approx(float(np.square(stored.decode() - pruned).mean()), rel=1e-6)


def test_zeros_count_as_weights_of_the_source():
    pruned = np.where(np.abs(WEIGHTS) < 1.0, 0, WEIGHTS)
    (tensor,) = experiment(pruned).limit(oa.Scheme.paper("raw", channel=CHANNEL)).tensors
    assert (tensor.weights, tensor.bits) == (N, limit.rate(pruned, tensor.mse))


def test_a_digital_model_needs_the_original():
    stored = oa.protect(holding(w=WEIGHTS), oa.Scheme.int8(channel=CHANNEL))
    with pytest.raises(OptionError, match=r"^tensor 'w' is read without error, .*: give the original model as the ref"):
        oa.evaluate(stored, X, trials=1, limit=True)
    reference = oa.evaluate(stored, X, trials=1, limit=True, reference=holding(w=WEIGHTS)).limit
    assert reference == experiment().limit(oa.Scheme.int8(channel=CHANNEL))
    with pytest.raises(ModelError, match="the model is not protected, so it has no limit"):
        oa.evaluate(holding(w=WEIGHTS), X, limit=True)


@pytest.mark.parametrize(
    "ask",
    [lambda tried: tried.limit(), lambda tried: tried.trials(), lambda tried: tried.parts(), lambda t: t.protected()],
)
def test_plain_weights_that_were_read_are_no_memory_and_not_to_be_protected(ask):
    read = oa.readback(oa.protect(holding(w=WEIGHTS), channel=CHANNEL), decoded=True)
    with pytest.raises(ModelError, match=r"read from noisy cells already \(seed 0, .*Name the protected model"):
        ask(oa.Experiment(read, X))


def test_cells_are_those_of_the_memory_that_was_written():
    """Read through another channel, errors and capacity are its own; the cells are not."""
    scheme = oa.Scheme.paper("sign", channel=CHANNEL)
    tried = experiment()
    own, other = tried.limit(scheme), tried.limit(scheme, channel=GaussianNoise(sigma=0.4))
    assert own.honest_cells == other.honest_cells
    assert own.cells != other.cells
