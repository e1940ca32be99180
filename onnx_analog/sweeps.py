"""Strategies × cells × scopes: one evaluation for each point of a grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnx_analog import pipeline, strategies
from onnx_analog.channels import Channel
from onnx_analog.data import Dataset
from onnx_analog.errors import OptionError
from onnx_analog.evaluation import Evaluation, Network, Progress, evaluate
from onnx_analog.manifest import Totals, account
from onnx_analog.passes import ProtectPass
from onnx_analog.stored import Protection
from onnx_analog.strategies import LARGE_FACTOR, STRATEGIES, Preset


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is to be compared.

    "c cells" is c for every class; for the strategy `redundancy`, c per small and `large_factor`·c per large weight.
    All points share a seed, so that their noise is paired.
    """

    strategies: tuple[str, ...] = tuple(STRATEGIES)
    cells: tuple[int, ...] = (1, 3, 10)
    presets: tuple[Preset, ...]
    channel: Channel
    large_factor: int = LARGE_FACTOR
    trials: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for strategy in self.strategies:
            strategies.strategy(strategy)
        for name, least in (("trials", 0), ("seed", 0), ("large_factor", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if min(self.cells, default=1) < 1:
            raise OptionError(f"cells are {self.cells}; all must be 1 or more")

    def __len__(self) -> int:
        return len(self.strategies) * len(self.cells) * len(self.presets)

    def points(self) -> Iterator[tuple[Preset, str, int]]:
        """Yield (preset, strategy, cells)."""
        for preset in self.presets:
            for strategy in self.strategies:
                for cells in self.cells:
                    yield preset, strategy, cells


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a grid, and what came of it."""

    preset: Preset
    strategy: str
    cells: int
    totals: Totals
    evaluation: Evaluation

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one row for each trial."""
        ratios = self.totals.ratios()
        for trial, value in enumerate(self.evaluation.values):
            yield {
                "strategy": self.strategy,
                "cells": self.cells,
                "scope": self.preset.scope,
                "large_fraction": self.preset.large_fraction,
                "r_avg": ratios["r_avg"],
                "stored_cells_per_stored_weight": ratios["stored_cells_per_stored_weight"],
                "all_in_cells_per_original_weight": ratios["all_in_cells_per_original_weight"],
                "seed": self.evaluation.seed,
                "trial": trial,
                "value": value,
            }


def sweep(model: ir.Model, data: Dataset, grid: Grid, *, progress: Progress = lambda: None) -> Iterator[Point]:
    """Yield the points of `grid` as they are evaluated; `model`, pruned or not, is not changed.

    `progress` is called after each trial.
    """
    for preset, strategy, cells in grid.points():
        protect = ProtectPass(
            strategy=strategy,
            cells_small=cells,
            cells_large=cells * grid.large_factor,
            scope=preset.scope,
            large_fraction=preset.large_fraction,
            channel=grid.channel,
        )
        protected = pipeline.run([protect], model.clone())
        found = evaluate(
            Network(protected), data, Protection.of(protected), trials=grid.trials, seed=grid.seed, progress=progress
        )
        totals = account(protected).totals
        yield Point(preset=preset, strategy=strategy, cells=cells, totals=totals, evaluation=found)
