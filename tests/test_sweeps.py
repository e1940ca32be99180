from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.data import Dataset
from onnx_analog.errors import OptionError
from onnx_analog.grid import Grid
from onnx_analog.stopping import Stopping
from onnx_analog.stored import Protection, stored_tensors
from onnx_analog.strategies import PRESETS, STRATEGIES, Preset
from onnx_analog.sweeps import Case, Point, prepare, sweep
from tests.models import QUIET, U, model, serialized

# A tensor of each scale, so that scopes differ.
TEXT = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
DEFAULT, PAPER = PRESETS.values()
GRID = Grid(cells=(1, 4), presets=(DEFAULT, PAPER), channels=(QUIET,), seed=3)
TWO = Stopping(trials=2)


def images() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset({"x": rng.normal(size=(100, 16)).astype(np.float32)}, rng.integers(16, size=100))


def swept(grid: Grid, stopping: Stopping = TWO, plain=None, **options) -> list[Point]:
    cases = [Case(name="net", model=model(TEXT) if plain is None else plain, data=images())]
    return list(sweep(prepare(cases, grid, stopping), **options))


def test_every_point_of_the_grid_is_evaluated_in_order():
    points = swept(GRID)
    assert [point.setting for point in points] == list(GRID.settings())
    found = [(point.setting.preset, point.strategy, point.cells) for point in points]
    assert found == list(product((DEFAULT, PAPER), STRATEGIES, (1, 4)))
    assert len(found) == len(GRID) == 16


def test_by_default_a_grid_has_all_strategies():
    found = Grid(presets=(DEFAULT,), channels=(QUIET,))
    assert found.strategies == tuple(STRATEGIES)
    assert len(found) == len(list(found.settings())) == 4 * 3


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("preset", [DEFAULT, PAPER, Preset(scope="model", large_fraction=0.3)])
def test_a_point_is_a_plain_protect_and_evaluate(preset, strategy):
    grid = replace(GRID, strategies=(strategy,), presets=(preset,), cells=(3,), large_factor=5)
    (point,) = swept(grid)
    found = oa.protect(
        model(TEXT),
        strategy=strategy,
        cells_small=3,
        cells_large=15,
        scope=preset.scope,
        large_fraction=preset.large_fraction,
        channel=QUIET,
    )
    alone = oa.evaluate(found.model, images(), trials=2, seed=3)
    assert point.evaluation.values == alone.values
    # noise is above 1e-3 of the outputs, and what two ways to compute them without it differ by below 1e-5 of them
    np.testing.assert_allclose(point.evaluation.sqnr_db, alone.sqnr_db, atol=20 * np.log10(1.01))
    assert point.totals == found.manifest.totals


@pytest.mark.parametrize(("factor", "large"), [(1, 4), (20, 80)])
def test_what_a_point_costs_by_hand(factor, large):
    # 512 weights, of each tensor's 256 13 are large; headers of 0, 1, 2 and 2 bits; 64 bits of codebook a class
    grid = replace(GRID, presets=(DEFAULT,), cells=(4,), large_factor=factor)
    analog = {"raw": 512 * 4, "sign": 512 * 4, "mapping": 512 * 4, "redundancy": 2 * (243 * 4 + 13 * large)}
    header = {"raw": 0, "sign": 256, "mapping": 512, "redundancy": 512}
    codebook = {"raw": 64, "sign": 64, "mapping": 128, "redundancy": 128}
    for point in swept(grid):
        name = point.strategy
        rows = point.row()
        assert rows["r_avg"] == analog[name] / 512
        assert rows["stored_cells_per_stored_weight"] == (analog[name] + header[name]) / 512
        assert rows["all_in_cells_per_original_weight"] == (analog[name] + header[name] + codebook[name]) / 512


def test_strategies_with_the_same_planes_and_cells_see_the_same_trials():
    grid = replace(GRID, strategies=("mapping", "redundancy"), presets=(DEFAULT,), cells=(2,), large_factor=1)
    mapping, redundancy = swept(grid, Stopping(trials=5))
    assert mapping.evaluation == redundancy.evaluation
    assert len(set(mapping.evaluation.sqnr_db)) == 5


@pytest.mark.parametrize(("strategy", "cells"), [("raw", 1), ("sign", 1), ("mapping", 9), ("redundancy", 9)])
def test_the_noise_of_a_tensor_is_one_for_all_points(strategy, cells):
    """What a level is off by, over σ/√r, is the same normal draw whatever the strategy and its cells."""
    found = oa.protect(model(TEXT), strategy=strategy, cells_small=cells, cells_large=4, channel=QUIET).model
    other = oa.protect(model(TEXT), strategy="sign", cells_small=4, channel=QUIET).model
    for one, two in zip(drawn(found), drawn(other), strict=True):
        # A read is rounded twice, and so off by u·(|read| + |noise|), and u for σ/√r, which is rounded too; a read is
        # below 1 + |noise|, and σ/√r is 1/30 at least.
        bound = 30 * U * (1 + 3 * np.maximum(abs(one), abs(two)))
        assert (abs(one - two) <= 2 * bound).all()
        assert abs(one).max() > 1


def drawn(found):
    """Return the normal draws behind the levels of trial 1."""
    read = oa.readback(found, seed=3, trial=1).model
    cells = Protection.of(found).cells
    for before, after in zip(stored_tensors(found), stored_tensors(read), strict=True):
        count = np.array(cells)[0 if before.class_index is None else before.class_index]
        noise = after.level.astype(np.float64) - before.level
        yield noise * np.sqrt(count) / QUIET.sigma


def test_another_seed_gives_other_trials():
    one, other = (swept(replace(GRID, strategies=("sign",), presets=(DEFAULT,), seed=seed)) for seed in (0, 1))
    assert {point.evaluation.seed for point in other} == {1}
    assert [point.evaluation.sqnr_db for point in one] != [point.evaluation.sqnr_db for point in other]


def test_more_cells_are_better_in_every_trial():
    """Noise is paired, so the output's is a tenth in each trial, and not only on average."""
    few, many = swept(replace(GRID, strategies=("sign",), presets=(DEFAULT,), cells=(10_000, 1_000_000)))
    # Noise is at most 0.1/100 of the span, which holds the weights of a tensor, so what is of second order in it is
    # below a hundredth of what is of first: 20·log10(1.01) < 0.1 dB.
    np.testing.assert_allclose(np.subtract(many.evaluation.sqnr_db, few.evaluation.sqnr_db), 20, atol=0.1)


def test_points_come_as_they_are_evaluated():
    told = []
    points = sweep(
        prepare([Case(name="net", model=model(TEXT), data=images())], GRID, TWO),
        progress=lambda done, planned: told.append((done, planned)),
    )
    next(points)
    assert told[-1] == (2, 32)
    assert len(list(points)) == 15
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert (told[0], told[-1]) == ((0, 32), (32, 32))


def test_the_model_is_not_changed():
    plain = model(TEXT)
    before = serialized(plain)
    swept(GRID, Stopping(trials=1), plain)
    assert serialized(plain) == before


def test_without_trials_there_are_costs():
    for point in swept(GRID, Stopping(trials=0)):
        assert point.evaluation.values == ()
        assert point.evaluation.clean is not None
        assert point.totals.all_in_cells > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells": (0,)},
        {"cells": (1.5,)},
        {"cells": ()},
        {"cells": (1, 1)},
        {"seed": -1},
        {"strategies": ("none",)},
        {"channels": (QUIET, QUIET)},
        {"presets": ()},
        {"large_factor": 0},
    ],
)
def test_a_grid_out_of_range_is_refused(wrong):
    with pytest.raises(OptionError):
        swept(replace(GRID, **wrong))


def test_a_pruned_model_is_swept_as_it_is():
    pruned = oa.prune(model(TEXT), sparsity=0.75, scope="tensor").model
    for point in swept(GRID, Stopping(trials=0), pruned):
        assert (point.totals.stored_weights, point.totals.original_weights) == (128, 512)
