"""Trials that read the same weights are computed once."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.run.experiment import Experiment
from tests.models import LOUD, QUIET, model
from tests.run.nets import LINEAR, rows

NOISY_BITS = oa.Scheme.int4(channel=LOUD, code="none")


def counted(scheme, trials=6):
    """Return the values of trials, and how often the network was scored."""
    calls = []

    def metric(outputs, *, labels, clean):
        calls.append(1)
        return float(np.square(outputs[0] - clean[0]).sum())

    memory = Experiment(model(LINEAR), rows(20), metric).trials(scheme)
    values = [memory.run(seed=0, trial=trial).value for trial in range(trials)]
    return values, len(calls)


@pytest.mark.parametrize("scheme", [oa.Scheme.int4(), oa.Scheme.entropy_coded(1.0)])
def test_digital_streams_with_a_code_are_scored_once(scheme):
    values, calls = counted(scheme)
    assert calls == 1
    assert len(set(values)) == 1


def test_analog_cells_are_scored_in_every_trial():
    values, calls = counted(oa.Scheme.paper("mapping", channel=QUIET))
    assert calls == 6
    assert len(set(values)) == 6


def test_wrong_bits_of_any_tensor_are_noticed():
    net = """net (float[n, 16] x) => (float[n, 32] y) <float[16, 16] v = random, float[16, 32] w = random> {
        a = MatMul(x, v) y = MatMul(a, w) }"""
    for kept, other in ("vw", "wv"):
        plan = oa.Plan(default=None, tensors={kept: oa.Scheme.int8(), other: NOISY_BITS})
        memory = Experiment(model(net), rows(20)).trials(plan)
        assert len({memory.run(seed=0, trial=trial) for trial in range(8)}) > 1


def test_wrong_bits_are_noticed():
    """Of 512 weights in 4 bits, some bits are wrong in most trials: the same values come only from the same bits."""
    memory = Experiment(model(LINEAR), rows(20)).trials(NOISY_BITS)
    found = [memory.run(seed=0, trial=trial) for trial in range(8)]
    again = [Experiment(model(LINEAR), rows(20)).trials(NOISY_BITS).run(seed=0, trial=trial) for trial in range(8)]
    assert found == again
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("scheme", "alike"),
    [
        (oa.Scheme.int8(channel=LOUD), True),
        (oa.Scheme.entropy_coded(1.0, channel=LOUD), True),
        (oa.Scheme.int8(channel=LOUD, code="none"), False),
        (oa.Scheme.int8(channel=LOUD, block_failure=0.01), False),
        (oa.Scheme.paper("mapping", channel=LOUD), False),
        (oa.Scheme.refined(1.0, channel=LOUD), False),
    ],
    ids=["integers", "entropy-coded", "without a code", "a code that fails", "analog", "an index and a cell"],
)
def test_trials_are_alike_only_where_nothing_can_be_read_otherwise(scheme, alike):
    trials = Experiment(model(LINEAR), rows(20)).trials(scheme)
    assert trials.alike == alike
    assert trials.schemes == (scheme,)
    differ = not np.array_equal(*(trials.outputs(seed=0, trial=trial)[0] for trial in range(2)))
    assert not (alike and differ)
