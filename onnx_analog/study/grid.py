"""Lists the points of a sweep: each is a model and the plan that stores it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx_analog.channels import Channel
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import (
    LARGE_FACTOR,
    MOST_CELLS,
    STRATEGIES,
    Paper,
    Preset,
    Scheme,
    channel_digest,
)
from onnx_analog.errors import OptionError, whole
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass
from onnx_analog.settings import settings_of

MOST_POINTS = 100_000  # of a model
PAPER_AXES = ("strategy", "cells_small", "cells_large", "preset", "granularity", "large_fraction")
AXES = tuple(name for name in settings_of(Scheme) if name not in ("channel",))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of a grid: everything that a trial depends on, but for its seed and its number.

    Attributes
    ----------
    model : int
        Which of the sweep's models.
    plan : Plan
        How it is stored.
    name : str
        Of the strategy, or of the plan.
    cells, cells_large : int
        Of a small and of a large weight; of the first and the last class.
    preset : Preset
        Granularity and share of large weights.
    channel : Channel
    changes : mapping of str to value
        Settings of the scheme that the grid varies beside these.
    selection : Selection
    """

    model: int
    plan: Plan
    name: str
    cells: int
    cells_large: int
    preset: Preset
    channel: Channel
    changes: Mapping[str, Any] = field(default_factory=dict)
    selection: Selection

    @property
    def strategy(self) -> str:
        """The name of the strategy, or of the plan."""
        return self.name

    def protect_pass(self) -> ProtectPass:
        """Return the pass that stores a model so."""
        return ProtectPass(plan=self.plan, selection=self.selection)

    def columns(self) -> dict[str, Any]:
        """Return what tells this point from all others, but for its model."""
        return {
            "strategy": self.name,
            "cells": self.cells,
            "cells_large": self.cells_large,
            "granularity": self.preset.granularity,
            "large_fraction": self.preset.large_fraction,
            "channel": str(self.channel),
            "channel_sha256": channel_digest(self.channel),
            **{name: _plain(value) for name, value in self.changes.items()},
            "plan_sha256": self.plan.digest(),
        }


def _plain(value: Any) -> Any:
    """Return a value as a table holds it."""
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Channel) else value


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is to be compared: strategies × cells × presets × channels × axes, and further plans.

    "c cells" is c for every class; for the strategy `redundancy`, c per small and `large_factor`·c per large weight.
    All points share a seed, so that their noise is paired.

    Attributes
    ----------
    axes : mapping of str to sequence
        Values of further settings of `onnx_analog.coding.scheme.Scheme`, by name.
    plans : mapping of str to Plan or Scheme
        Further points, by name: each is evaluated with its own channel.

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
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    plans: Mapping[str, Plan] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    seed: int = 0

    def __post_init__(self) -> None:
        for strategy in self.strategies:
            Paper(strategy=strategy)
        for name, least, most in (("seed", 0, 2**63 - 1), ("large_factor", 1, MOST_CELLS)):
            if not least <= whole(name, getattr(self, name)) <= most:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be from {least} to {most:,}")
        for cells in self.cells:
            if not 1 <= whole("cells", cells) <= MOST_CELLS // self.large_factor:
                raise OptionError(
                    f"cells are {cells}; they must be from 1 to {MOST_CELLS // self.large_factor:,}, as a large weight "
                    f"has {self.large_factor} times as many"
                )
        unknown = next((name for name in self.axes if name not in AXES), None)
        if unknown is not None:
            raise OptionError(f"{unknown!r} is not a setting that can be varied: choose from {', '.join(AXES)}")
        named = {name: getattr(self, name) for name in ("strategies", "cells", "presets", "channels")}
        for name, values in {**named, **self.axes}.items():
            if not values and not (name == "strategies" and self.plans):  # plans alone are a list of points
                raise OptionError(f"{name} must not be empty")
            again = next((value for value, times in Counter(map(_hashable, values)).items() if times > 1), None)
            if again is not None:
                raise OptionError(f"{name} contain {again} twice")
        if len(self) > MOST_POINTS:
            raise OptionError(
                f"the grid has {len(self):,} points, more than {MOST_POINTS:,}: split it into several sweeps"
            )

    def __len__(self) -> int:
        sizes = [len(values) for values in (self.channels, self.presets, self.strategies, self.cells)]
        count = len(self.plans)
        product = 1
        for size in [*sizes, *map(len, self.axes.values())]:
            product *= size
        return count + product

    def settings(self, models: int = 1) -> Iterator[Setting]:
        """Yield the points for as many models, those that are protected alike beside each other."""
        for model in range(models):
            for channel, preset, strategy, cells in itertools.product(
                self.channels, self.presets, self.strategies, self.cells
            ):
                for values in itertools.product(*self.axes.values()):
                    yield self._setting(
                        model, channel, preset, strategy, cells, dict(zip(self.axes, values, strict=True))
                    )
            for name, plan in self.plans.items():
                yield self._planned(model, name, Plan.of(plan))

    def _setting(
        self, model: int, channel: Channel, preset: Preset, strategy: str, cells: int, changes: Mapping[str, Any]
    ) -> Setting:
        large = cells * (self.large_factor if STRATEGIES[strategy].adaptive else 1)
        paper = Paper(
            strategy=strategy,
            cells_small=cells,
            cells_large=large,
            granularity=preset.granularity,
            large_fraction=preset.large_fraction,
        )
        scheme = paper.scheme(channel=channel).changed(**changes)
        return Setting(
            model=model,
            plan=Plan(default=scheme),
            name=strategy,
            cells=cells,
            cells_large=large,
            preset=preset,
            channel=channel,
            changes=changes,
            selection=self.selection,
        )

    def _planned(self, model: int, name: str, plan: Plan) -> Setting:
        scheme = plan.schemes[0]
        return Setting(
            model=model,
            plan=plan,
            name=name,
            cells=scheme.cells[0],
            cells_large=scheme.cells[-1],
            preset=Preset(granularity=scheme.granularity, large_fraction=sum(scheme.shares)),
            channel=scheme.channel,
            selection=self.selection,
        )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
