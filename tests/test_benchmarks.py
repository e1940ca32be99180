import itertools

import numpy as np
import pytest

from benchmarks import run as benchmarks
from tests.models import run


def test_a_ratio_is_the_median_of_pairs(monkeypatch):
    # pairs of 4 and 1, 2 and 2, 9 and 3 seconds: ratios 4, 1 and 3
    times = iter([4, 1, 2, 2, 9, 3])
    monkeypatch.setattr(benchmarks, "seconds", lambda action: next(times))
    found = benchmarks.ratio(lambda: None, lambda: None, pairs=3)
    assert found == {"ratio": 3, "ms": 4000, "bound_ms": 2000}


@pytest.mark.parametrize("pairs", [1, 4])
def test_the_two_are_measured_in_turn_after_a_warm_up(pairs):
    called = []
    found = benchmarks.ratio(lambda: called.append("ours"), lambda: called.append("theirs"), pairs=pairs)
    assert called == ["ours", "theirs"] * (pairs + 1)
    assert min(found.values()) > 0


def test_seconds_are_those_of_the_clock(monkeypatch):
    ticks = itertools.count(start=5, step=3)
    monkeypatch.setattr(benchmarks.time, "perf_counter", lambda: next(ticks))
    called = []
    assert benchmarks.seconds(lambda: called.append(1)) == 3
    assert called == [1]


def test_the_chain_is_a_product_of_matrices(monkeypatch):
    monkeypatch.setattr(benchmarks, "SIDE", 64)
    monkeypatch.setattr(benchmarks, "LAYERS", 3)
    made = benchmarks.chain()
    weights = [value.const_value.numpy() for value in made.graph.initializers.values()]
    assert [weight.shape for weight in weights] == [(64, 64)] * 3
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    (found,) = run(made, {"x": x})
    exact = np.linalg.multi_dot([array.astype(np.float64) for array in (x, *weights)])
    # each of three sums of 64 products rounds 64 times at most, and so is off by 64·2^-24 of Σ|x|·|w|
    sums = np.linalg.multi_dot([np.abs(array).astype(np.float64) for array in (x, *weights)])
    assert (np.abs(found - exact) <= 3 * 65 * 2.0**-24 * sums).all()


def test_the_chain_is_as_large_as_resnet_18():
    assert round(benchmarks.SIDE**2 * benchmarks.LAYERS, -5) == 11_500_000


def test_signals_keep_their_size_on_the_way(monkeypatch):
    monkeypatch.setattr(benchmarks, "SIDE", 256)
    made = benchmarks.chain()
    x = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    (found,) = run(made, {"x": x})
    # In each of 11 layers a row of 256 keeps its mean square but for √(2/256) of it: e^(±4·√(11·2/256)) in the end
    assert abs(np.log(np.square(found).sum() / np.square(x).sum())) < 4 * np.sqrt(benchmarks.LAYERS * 2 / 256)
