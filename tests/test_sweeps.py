from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog.data import Dataset
from onnx_analog.errors import OptionError
from onnx_analog.stored import Protection, stored_tensors
from onnx_analog.strategies import PRESETS, STRATEGIES, Preset
from onnx_analog.sweeps import Grid, Point, sweep
from tests.models import QUIET, U, model, serialized

# A tensor of each scale, so that scopes differ.
TEXT = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, float[16, 16] b = 2 random> {
        h = MatMul(x, a)
        y = MatMul(h, b)
    }"""
DEFAULT, PAPER = PRESETS.values()
GRID = Grid(cells=(1, 4), presets=(DEFAULT, PAPER), channel=QUIET, trials=2, seed=3)


def images() -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset({"x": rng.normal(size=(100, 16)).astype(np.float32)}, rng.integers(16, size=100))


def swept(grid: Grid) -> list[Point]:
    return list(sweep(model(TEXT), images(), grid))


def test_every_point_of_the_grid_is_evaluated_in_order():
    found = [(point.preset, point.strategy, point.cells) for point in swept(GRID)]
    assert found == list(GRID.points()) == list(product((DEFAULT, PAPER), STRATEGIES, (1, 4)))
    assert len(found) == len(GRID) == 16


def test_by_default_a_grid_has_all_strategies():
    found = Grid(presets=(DEFAULT,), channel=QUIET)
    assert found.strategies == tuple(STRATEGIES)
    assert len(found) == len(list(found.points())) == 4 * 3


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
    assert point.evaluation == oa.evaluate(found.model, images(), trials=2, seed=3)
    assert point.totals == found.manifest.totals


def test_a_row_is_a_trial():
    for point in swept(replace(GRID, large_factor=10)):
        rows = list(point.rows())
        assert [(row["trial"], row["value"]) for row in rows] == list(enumerate(point.evaluation.values))
        assert len(rows) == 2
        for row in rows:
            del row["trial"], row["value"]
            assert row == {
                "strategy": point.strategy,
                "cells": point.cells,
                "scope": point.preset.scope,
                "large_fraction": point.preset.large_fraction,
                "r_avg": point.totals.ratios()["r_avg"],
                "stored_cells_per_stored_weight": point.totals.ratios()["stored_cells_per_stored_weight"],
                "all_in_cells_per_original_weight": point.totals.ratios()["all_in_cells_per_original_weight"],
                "seed": 3,
            }


@pytest.mark.parametrize(("factor", "large"), [(1, 4), (20, 80)])
def test_what_a_point_costs_by_hand(factor, large):
    # 512 weights, of each tensor's 256 13 are large; headers of 0, 1, 2 and 2 bits; 64 bits of codebook a class
    grid = replace(GRID, presets=(DEFAULT,), cells=(4,), large_factor=factor)
    analog = {"raw": 512 * 4, "sign": 512 * 4, "mapping": 512 * 4, "redundancy": 2 * (243 * 4 + 13 * large)}
    header = {"raw": 0, "sign": 256, "mapping": 512, "redundancy": 512}
    codebook = {"raw": 64, "sign": 64, "mapping": 128, "redundancy": 128}
    for point in swept(grid):
        name = point.strategy
        rows = next(point.rows())
        assert rows["r_avg"] == analog[name] / 512
        assert rows["stored_cells_per_stored_weight"] == (analog[name] + header[name]) / 512
        assert rows["all_in_cells_per_original_weight"] == (analog[name] + header[name] + codebook[name]) / 512


def test_strategies_with_the_same_planes_and_cells_see_the_same_trials():
    mapping, redundancy = swept(
        replace(GRID, strategies=("mapping", "redundancy"), presets=(DEFAULT,), cells=(2,), large_factor=1, trials=5)
    )
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
    called = []
    points = sweep(model(TEXT), images(), GRID, progress=lambda: called.append(1))
    next(points)
    assert len(called) == 2
    assert len(list(points)) == 15
    assert len(called) == 16 * 2


def test_the_model_is_not_changed():
    plain = model(TEXT)
    before = serialized(plain)
    list(sweep(plain, images(), replace(GRID, trials=1)))
    assert serialized(plain) == before


def test_without_trials_there_are_costs_and_no_rows():
    for point in swept(replace(GRID, trials=0)):
        assert list(point.rows()) == []
        assert point.evaluation.clean is not None
        assert point.totals.all_in_cells > 0


@pytest.mark.parametrize("wrong", [{"cells": (0,)}, {"trials": -1}, {"seed": -1}, {"strategies": ("none",)}])
def test_a_grid_out_of_range_is_refused(wrong):
    with pytest.raises(OptionError):
        swept(replace(GRID, **wrong))


def test_a_pruned_model_is_swept_as_it_is():
    pruned = oa.prune(model(TEXT), sparsity=0.75, scope="tensor").model
    for point in sweep(pruned, images(), replace(GRID, trials=0)):
        assert (point.totals.stored_weights, point.totals.original_weights) == (128, 512)
