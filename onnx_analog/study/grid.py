"""What a sweep compares: models × channels × presets × strategies × cells."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from onnx_analog.channels import Channel
from onnx_analog.coding import strategies
from onnx_analog.coding.strategies import LARGE_FACTOR, MOST_CELLS, STRATEGIES, Preset
from onnx_analog.errors import OptionError, whole
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass

MOST_POINTS = 100_000  # of a model


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of a grid: everything that a trial depends on, but for its seed and its number.

    Attributes
    ----------
    model : int
        Which of the sweep's models.
    channel : Channel
    preset : Preset
    strategy : str
    cells : int
        Of every weight; for `redundancy`, of a small one.
    large_factor : int
        For `redundancy`, cells of a large weight for each of a small one.
    selection : Selection
    """

    model: int
    channel: Channel
    preset: Preset
    strategy: str
    cells: int
    large_factor: int
    selection: Selection

    @property
    def cells_large(self) -> int:
        """Cells of a large weight."""
        return self.cells * (self.large_factor if STRATEGIES[self.strategy].adaptive else 1)

    def protect_pass(self) -> ProtectPass:
        """Return the pass that stores a model so."""
        return ProtectPass(
            strategy=self.strategy,
            cells_small=self.cells,
            cells_large=self.cells_large,
            scope=self.preset.scope,
            large_fraction=self.preset.large_fraction,
            channel=self.channel,
            selection=self.selection,
        )

    def columns(self) -> dict[str, Any]:
        """Return what tells this point from all others, but for its model."""
        return {
            "strategy": self.strategy,
            "cells": self.cells,
            "cells_large": self.cells_large,
            "scope": self.preset.scope,
            "large_fraction": self.preset.large_fraction,
            "channel": str(self.channel),
            "channel_sha256": digest(self.channel),
        }


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is to be compared.

    "c cells" is c for every class; for the strategy `redundancy`, c per small and `large_factor`·c per large weight.
    All points share a seed, so that their noise is paired.

    Raises
    ------
    OptionError
        If something is out of its range, or named twice, or there are more than MOST_POINTS points.
    """

    strategies: tuple[str, ...] = tuple(STRATEGIES)
    cells: tuple[int, ...] = (1, 3, 10)
    presets: tuple[Preset, ...]
    channels: tuple[Channel, ...]
    large_factor: int = LARGE_FACTOR
    selection: Selection = field(default_factory=Selection)
    seed: int = 0

    def __post_init__(self) -> None:
        for strategy in self.strategies:
            strategies.strategy(strategy)
        for name, least, most in (("seed", 0, 2**63 - 1), ("large_factor", 1, MOST_CELLS)):
            if not least <= whole(name, getattr(self, name)) <= most:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be from {least} to {most:,}")
        for cells in self.cells:
            if not 1 <= whole("cells", cells) <= MOST_CELLS // self.large_factor:
                raise OptionError(
                    f"cells are {cells}; they must be from 1 to {MOST_CELLS // self.large_factor:,}, as a large weight "
                    f"has {self.large_factor} times as many"
                )
        for name in ("strategies", "cells", "presets", "channels"):
            found = getattr(self, name)
            if not found:
                raise OptionError(f"{name} must not be empty")
            again = next((value for value, times in Counter(found).items() if times > 1), None)
            if again is not None:
                raise OptionError(f"{name} contain {again} twice")
        if len(self) > MOST_POINTS:
            raise OptionError(
                f"the grid has {len(self):,} points, more than {MOST_POINTS:,}: split it into several sweeps"
            )

    def __len__(self) -> int:
        return len(self.channels) * len(self.presets) * len(self.strategies) * len(self.cells)

    def settings(self, models: int = 1) -> Iterator[Setting]:
        """Yield the points for as many models, those that are protected alike beside each other."""
        for model in range(models):
            for channel in self.channels:
                for preset in self.presets:
                    for strategy in self.strategies:
                        for cells in self.cells:
                            yield Setting(
                                model=model,
                                channel=channel,
                                preset=preset,
                                strategy=strategy,
                                cells=cells,
                                large_factor=self.large_factor,
                                selection=self.selection,
                            )


@lru_cache(maxsize=64)
def digest(channel: Channel) -> str:
    """Return the SHA-256 of a channel's family and fields, as hex."""
    return hashlib.sha256(json.dumps(channel.to_dict(), sort_keys=True).encode()).hexdigest()
