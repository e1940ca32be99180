"""Lists the points of a sweep: each is a model and the plan that stores it."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from onnx_analog.arguments import Arguments
from onnx_analog.channels import Channel
from onnx_analog.coding.exclusive import EXCLUSIVE, WHOLE, check_exclusive
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import MOST_CELLS, PRESETS, STRATEGIES, Paper, Preset, Scheme
from onnx_analog.coding.stored_channels import channel_digest
from onnx_analog.display import counted, percent
from onnx_analog.errors import OptionError, one_line
from onnx_analog.graph.weights import Selection
from onnx_analog.settings import check_settings, same, settings_of
from onnx_analog.study import axes
from onnx_analog.study.arguments import FREE, GridArguments
from onnx_analog.study.rivals import RIVALS

MOST_POINTS = 100_000  # of a model
_OWN = {"strategy": "strategies", "cells_small": "cells", "preset": "presets", "channel": "channels"}  # fields for axes
_OF_PAPER = frozenset(settings_of(Paper))
AXES = {  # that exclude each other; classes and sign take the place of strategies
    **EXCLUSIVE,
    "classes": (),
    "sign": (),
    "integers": (*WHOLE["integers"], "estimator"),
}
# Settings that strategies of one class do not have.
_OF_TWO = frozenset(("cells_large", "large_fraction", "threshold", "shares", "bounds"))
_IN_PLACE_OF_SHARE = (  # with these, a preset's share is unused
    "large_fraction",
    "threshold",
    "shares",
    "bounds",
    "integers",
)


@dataclass(frozen=True, kw_only=True, repr=False)
class GridPoint:
    """One point of a sweep: everything that a trial depends on, but for its seed and its number.

    Attributes
    ----------
    model : int
        Which of the sweep's models.
    plan : Plan
        How it is stored.
    name : str
        Of the strategy, or of the plan.
    cells, cells_large : int
        Cells of a small and of a large weight: of the first and of the last class of the plan's default.
    preset : Preset
        Granularity and share of large weights.
    channel : Channel
        Of the plan's first scheme; `channels` are those of all of them.
    changes : mapping of str to value
        Settings that the grid varies beside these, and their values here.
    selection : Selection
    further : bool
        Whether it is a plan or a rival that stands beside the grid, whatever its name.
    """

    model: int
    plan: Plan
    name: str
    cells: int
    cells_large: int
    preset: Preset
    channel: Channel
    changes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    selection: Selection = field(default_factory=Selection)
    further: bool = False

    @staticmethod
    def of(
        plan: Plan | Scheme,
        *,
        name: str,
        model: int = 0,
        selection: Selection | None = None,
        varied: Sequence[str] = (),
        preset: Preset | None = None,
    ) -> GridPoint:
        """Return the point at which a plan stores a model.

        Parameters
        ----------
        plan : Plan or Scheme
        name : str
            Of the point; with the plan, it tells the point from others.
        model : int
            Which of the sweep's models.
        selection : Selection, optional
        varied : sequence of str
            Axes of the grid that the point is added to.
        preset : Preset, optional
            The plan's own granularity and large fraction if it is not given.

        Raises
        ------
        OptionError
            If the plan stores nothing.
        """
        plan = Plan.of(plan)
        if not plan.schemes:
            raise OptionError(f"the plan {name!r} stores no tensor")
        first = plan.schemes[0]
        return GridPoint(
            model=model,
            plan=plan,
            name=name,
            cells=first.cells[0],
            cells_large=first.cells[-1],
            preset=preset or Preset(granularity=first.granularity, large_fraction=math.fsum(first.shares)),
            channel=first.channel,
            changes={axis: _of_all(plan, axis) for axis in varied},
            selection=selection or Selection(),
        )

    @property
    def strategy(self) -> str:
        """The name of the strategy, or of the plan."""
        return self.name

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of all schemes: digital streams are stored in their cells too."""
        return tuple(dict.fromkeys(scheme.channel for scheme in self.plan.schemes))

    @property
    def channels_text(self) -> str:
        """Those channels in words: "pcm and rram-milo"."""
        return " and ".join(sorted({str(channel) for channel in self.channels}))

    @property
    def channels_digest(self) -> str:
        """The digest of that channel; of several, that of their digests."""
        digests = [channel_digest(channel) for channel in self.channels]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    @property
    def planned(self) -> bool:
        """Whether it is a plan's point, and not the grid's."""
        plan = self.plan
        if self.further or plan.tensors or plan.patterns or plan.default is None:
            return True
        return self.name not in {*STRATEGIES, scheme_name(plan.default)}

    @property
    def large_fraction(self) -> float | None:
        """Share of the weights above the first class; None if no share parts the classes of the plan's first scheme."""
        shares = self.plan.schemes[0].shares
        return math.fsum(shares) if shares else None

    @property
    def large_text(self) -> str:
        """The share of large weights, after a comma; empty without one."""
        return "" if self.large_fraction is None else f", {percent(self.large_fraction, 2)} large"

    @property
    def stored_as(self) -> str:
        """The strategy with its cells, or the plan, and the settings that are varied."""
        if self.name in STRATEGIES:
            kind = f"{self.name}, {counted(self.cells, 'cell')}"
        else:
            kind = f"plan {self.name}" if self.planned else self.name
        varied = (f"{name} {axes.value_text(value)}" for name, value in self.changes.items() if value is not None)
        return ", ".join([kind, *varied])

    def __str__(self) -> str:
        return f"{self.channels_text}, granularity {self.preset.granularity}{self.large_text}, {self.stored_as}"

    def __repr__(self) -> str:
        return f"<GridPoint: {one_line(str(self), 200)}>"

    def columns(self) -> dict[str, Any]:
        """Return what tells this point from all others, but for its model."""
        fixed = {
            "strategy": self.name,
            "cells": self.cells,
            "cells_large": self.cells_large,
            "granularity": self.preset.granularity,
            "large_fraction": self.large_fraction,
            "channel": self.channels_text,
            "channel_sha256": self.channels_digest,
        }
        varied = {"cells_of_class" if name == "cells" else name: axes.word(v) for name, v in self.changes.items()}
        return {**fixed, **{n: v for n, v in varied.items() if n not in fixed}, "plan_sha256": self.plan.digest()}


def _of_all(plan: Plan, axis: str) -> Any:
    """Return the value of a setting where all schemes of a plan agree in it, or have it; else None."""
    value_of = integer_bits if axis == axes.INTEGERS else lambda scheme: getattr(scheme, axis, None)
    values = {value_of(scheme) for scheme in plan.schemes}
    return values.pop() if len(values) == 1 else None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is to be compared: strategies × cells × presets × channels × axes, and further plans.

    "c cells" is c for every class; for the strategy `redundancy`, c per small and `large_factor`·c per large weight.
    All points share a seed, so that their noise is paired.

    Attributes
    ----------
    axes : mapping of str to sequence
        Values of `integers` and any setting of `onnx_analog.coding.scheme.Scheme` or `Paper`, by name; see
        `onnx_analog.study.axes`. `strategy`, `cells_small`, `preset` and `channel` take the place of the fields above.
        With `sign`, `classes`, `partition`, `cells` or `integers` as an axis, the settings say all, and strategies are
        not varied.
    plans : mapping of str to Plan or Scheme
        Further points, by name: each is evaluated with its own channel.
    rivals : bool
        Whether the points of `onnx_analog.study.rivals` are added, in cells of each channel.

    Raises
    ------
    OptionError
        If something is out of its range, or named twice, or there are more than MOST_POINTS points.
    """

    strategies: tuple[str, ...] = tuple(STRATEGIES)
    cells: tuple[int, ...] = same(GridArguments, "cells")
    presets: tuple[Preset, ...]
    channels: tuple[Channel, ...]
    large_factor: int = same(GridArguments, "large_factor")
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict, hash=False)
    plans: Mapping[str, Plan] = field(default_factory=dict, hash=False)
    rivals: bool = same(GridArguments, "rivals")
    selection: Selection = field(default_factory=Selection)
    seed: int = same(Arguments, "seed")

    def __post_init__(self) -> None:
        self._take_axes()
        for strategy in self.strategies:
            Paper(strategy=strategy)
        check_settings(self)
        most = MOST_CELLS // self.large_factor
        if max(self.cells, default=0) > most:
            raise OptionError(
                f"cells are {max(self.cells)}; they must be from 1 to {most:,}, as a large weight has "
                f"{self.large_factor} times as many"
            )
        for name in _OWN.values():
            values = getattr(self, name)
            if not values and not (name == "strategies" and (self.plans or self.rivals)):  # they alone are points
                raise OptionError(f"{name} must not be empty")
            again = next((value for value, times in Counter(values).items() if times > 1), None)
            if again is not None:
                raise OptionError(f"{name} contain {again} twice")
        sizes = [len(values) for values in (*(getattr(self, name) for name in _OWN.values()), *self.axes.values())]
        most = math.prod(sizes) + len(self._further())
        if most > MOST_POINTS:
            raise OptionError(f"the grid has {most:,} points, more than {MOST_POINTS:,}: split it into several sweeps")

    def _take_axes(self) -> None:
        """Give axes the types of their settings, and put those that have a field of their own there."""
        varied = axes.checked(self.axes)
        dropped = [name for name in FREE if name in varied]
        if dropped and self.strategies not in (tuple(STRATEGIES), ("redundancy",), ()):
            raise OptionError(
                f"the axis {min(dropped)} replaces strategies, and {', '.join(self.strategies)} is asked for: leave "
                "out one of the two"
            )
        check_exclusive(varied, AXES, axes=True)
        for axis, name in _OWN.items():
            if axis in varied:
                values = varied.pop(axis)
                values = tuple(PRESETS[value] for value in values) if axis == "preset" else values
                object.__setattr__(self, name, values)
        object.__setattr__(self, "axes", varied)
        object.__setattr__(self, "plans", {name: Plan.of(plan) for name, plan in self.plans.items()})
        taken = next((name for name in self.plans if self.rivals and name in RIVALS), None)
        if taken is not None:
            raise OptionError(f"a plan is called {taken!r}, as a rival is: rename it")

    def __len__(self) -> int:
        return sum(1 for _ in self._choices()) + len(self._further())

    def points(self, models: int = 1) -> Iterator[GridPoint]:
        """Yield the points for as many models, those that are protected alike beside each other."""
        for model in range(models):
            for choice in self._choices():
                yield self._point(model, *choice)
            for name, plan in self._further():
                beside = GridPoint.of(plan, name=name, model=model, selection=self.selection, varied=tuple(self.axes))
                yield replace(beside, further=True)

    def _further(self) -> list[tuple[str, Plan]]:
        """Return the points beside the grid's: plans, and rivals in cells of each channel."""
        schemes = RIVALS.items() if self.rivals else ()
        stored = [(name, scheme.changed(channel=channel)) for channel in self.channels for name, scheme in schemes]
        return [*self.plans.items(), *((name, Plan.of(scheme)) for name, scheme in stored)]

    def _choices(self) -> Iterator[tuple[Channel, Preset, str, int, dict[str, Any]]]:
        """Yield channel, preset, strategy, cells and the values of the axes of each point."""
        seen = set()
        strategies = self.strategies if FREE.isdisjoint(self.axes) else ("redundancy",)
        cells = self.cells if {"cells", "integers"}.isdisjoint(self.axes) else self.cells[:1]
        for channel, preset, strategy, each in itertools.product(self.channels, self.presets, strategies, cells):
            unused = _OF_TWO if STRATEGIES[strategy].classes == 1 else frozenset[str]()
            if not STRATEGIES[strategy].adaptive:
                unused |= {"cells_large"}
            values = [(None,) if name in unused else values for name, values in self.axes.items()]
            for chosen in itertools.product(*values):
                changes = dict(zip(self.axes, chosen, strict=True))
                point = (
                    id(channel),
                    changes.get("granularity") or preset.granularity,
                    preset.large_fraction if _takes_share(strategy, changes) else None,
                    *(strategy, each, chosen),
                )
                if point not in seen:  # choices that differ in what they do not use are the same point
                    seen.add(point)
                    yield channel, preset, strategy, each, changes

    def _point(
        self, model: int, channel: Channel, preset: Preset, strategy: str, cells: int, changes: Mapping[str, Any]
    ) -> GridPoint:
        chosen = {name: value for name, value in changes.items() if value is not None}
        if "integers" in changes:
            settings = {"granularity": preset.granularity, "channel": channel, **chosen}
            return self._integer_point(model, settings, changes)
        row = STRATEGIES[strategy]
        paper = {name: value for name, value in chosen.items() if name in _OF_PAPER}
        others = {name: value for name, value in chosen.items() if name not in _OF_PAPER}
        preset = Preset(**{name: paper.pop(name, getattr(preset, name)) for name in ("granularity", "large_fraction")})
        if "shares" in others:
            preset = Preset(granularity=preset.granularity, large_fraction=math.fsum(others["shares"]))
        if not {"classes", "partition"}.isdisjoint(others):
            others.setdefault("cells", (cells,))
        if row.classes == 2 and "threshold" not in paper and "shares" not in others:
            paper["large_fraction"] = preset.large_fraction
        if row.adaptive:
            paper.setdefault("cells_large", cells * self.large_factor)
        described = Paper(**{"strategy": strategy, "cells_small": cells, "granularity": preset.granularity, **paper})
        scheme = described.scheme(channel=channel, **others)
        name = strategy if FREE.isdisjoint(self.axes) else scheme_name(scheme)
        point = GridPoint.of(scheme, name=name, model=model, selection=self.selection, preset=preset)
        return replace(point, changes=changes)

    def _integer_point(self, model: int, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> GridPoint:
        """Return the point of weights that are quantised to integers, without cells."""
        others = {name: value for name, value in settings.items() if name != axes.INTEGERS}
        scheme = Scheme.integers(settings[axes.INTEGERS], **others)
        point = GridPoint.of(scheme, name=scheme_name(scheme), model=model, selection=self.selection)
        return replace(point, changes=changes)


def _takes_share(strategy: str, changes: Mapping[str, Any]) -> bool:
    """Return whether a preset's share of large weights has an effect."""
    shared = changes.get("classes") in (None, 2) and changes.get("partition") in (None, "share")
    return (
        shared and STRATEGIES[strategy].classes == 2 and all(changes.get(name) is None for name in _IN_PLACE_OF_SHARE)
    )


def scheme_name(scheme: Scheme) -> str:
    """Return the name of a scheme in tables: its strategy, its integers, or its partition and number of classes."""
    paper, bits = Paper.of(scheme), integer_bits(scheme)
    if paper is not None:
        return paper.strategy
    return f"{scheme.partition}-{scheme.classes}" if bits is None else f"int{bits}"


def integer_bits(scheme: Scheme) -> int | None:
    """Return the bits of the integers to which a scheme quantises; None if it does something else.

    >>> integer_bits(Scheme.int4(granularity="channel"))
    4
    """
    bits = scheme.classes.bit_length()
    fixed = (scheme.sign, scheme.partition, scheme.analog, scheme.classes, scheme.step, scheme.relative_step)
    return bits if bits > 1 and fixed == ("level", "uniform", "none", 2**bits - 1, None, None) else None
