"""Declares the arguments of a sweep that say what is compared, each once. Importing them takes no time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_analog.coding.scheme import LARGE_FACTOR, MOST_CELLS, PRESETS, PRESETS_IN_WORDS, STRATEGIES, Paper
from onnx_analog.errors import OptionError
from onnx_analog.settings import check_values, same, setting, settings_of

_FRACTION, _STRATEGY = ("large_fraction",), ("strategy", "large_fraction", "large_factor")
# Settings that a grid may vary, and the arguments that would then say nothing.
REPLACED: Mapping[str, tuple[str, ...]] = {
    "strategy": ("strategy",), "preset": ("preset",), "channel": ("channel",), "granularity": ("granularity",),
    "cells_small": ("cells",), "cells_large": ("large_factor",), "cells": ("cells", "large_factor"),
    "large_fraction": _FRACTION, "threshold": _FRACTION, "shares": _FRACTION, "bounds": _FRACTION,
    "classes": ("large_fraction", "large_factor"), "partition": ("large_fraction", "large_factor"),
    "integers": ("strategy", "cells", "large_factor", "large_fraction", "preset"),
}  # fmt: skip
FREE = frozenset(  # axes that say all, so that strategies are not varied
    ("sign", "classes", "partition", "cells", "integers")
)
_OF_POINTS = ("cells", "large_factor", "preset", "granularity", "large_fraction", "channel")  # which plans do not take


@dataclass(frozen=True, kw_only=True)
class GridArguments:
    """The arguments, with their defaults."""

    strategy: tuple[str, ...] = setting(
        tuple(STRATEGIES), choices=tuple(STRATEGIES), help="Comma-separated strategies."
    )
    cells: tuple[int, ...] = setting(
        (1, 2, 3, 5, 10, 20, 30),
        least=1,
        most=MOST_CELLS,
        help="Cells per weight; for redundancy, per small weight.",
    )
    large_factor: int = setting(
        LARGE_FACTOR, least=1, most=MOST_CELLS, help="Ratio of cells per large weight to cells per small weight."
    )
    granularity: str | None = same(Paper, "granularity")
    large_fraction: float | None = same(Paper, "large_fraction")
    preset: tuple[str, ...] = setting(
        ("default",),
        choices=tuple(PRESETS),
        help=f"Comma-separated presets of granularity and large fraction: {PRESETS_IN_WORDS}.",
    )
    rivals: bool = setting(
        False, help="Also compare int8, int4 and entropy-coded quantisation, without analog cells, in each channel."
    )


def checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the grid that are given, each with the type that it is declared with.

    Raises
    ------
    OptionError
        If a value is of another type or out of its range.
    """
    given = {name: arguments[name] for name in settings_of(GridArguments) if arguments.get(name) is not None}
    return check_values(GridArguments, given)


def plans_alone(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments, with no strategies where plans are given, and nothing that says which strategies to compare."""
    of_grid = any(arguments[name] is not None for name in ("strategy", *_OF_POINTS) if name != "channel")
    alone = _is_given(arguments["plan"]) and not of_grid and not _is_given(arguments["grid"])
    return {**arguments, "strategy": () if alone else arguments["strategy"]}


def _is_given(value: object) -> bool:
    return value is not None and not (isinstance(value, list | tuple | Mapping) and not value)


def check_axes(arguments: Mapping[str, Any], axes: Collection[str]) -> None:
    """Raise `OptionError` if an argument is given whose place an axis of the grid takes."""
    for axis in axes:
        name = next((name for name in REPLACED.get(axis, ()) if arguments.get(name) is not None), None)
        if name is not None:
            raise OptionError(f"{name} is given, and the grid varies {axis!r}: leave one of them out")


def compared(strategies: Sequence[str] | None, axes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the strategies of a grid: those of its axis, or the given ones, where None stands for all.

    Where other axes take their place, it is the one whose settings those change; with plans alone, there are none.
    """
    if not FREE.isdisjoint(axes):
        return ("redundancy",)
    return tuple(axes.get("strategy", STRATEGIES if strategies is None else strategies))


def takes_channels(
    strategies: Sequence[str] | None, axes: Mapping[str, Sequence[Any]], *, rivals: bool = False
) -> bool:
    """Return whether the argument `channel` has an effect: no axis replaces it, and not only plans are compared."""
    return "channel" not in axes and (rivals or bool(compared(strategies, axes)))


def check_used(arguments: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> None:
    """Raise `OptionError` if an argument or an axis is given that none of the strategies has."""
    strategies = compared(arguments["strategy"], axes)
    if axes and not strategies:
        raise OptionError(f"the grid varies {next(iter(axes))!r}, and only plans are compared: leave it out")
    for name, why in _unused(strategies).items():
        if arguments[name] is not None and not (name == "channel" and arguments["rivals"]):
            raise OptionError(
                f"{name} is given, and strategy is {', '.join(strategies)}, which {why}: leave one of them out"
                if strategies
                else f"{name} is given, and only plans are compared, which have their own: leave it out, or name "
                "strategies to compare with them"
            )


def _unused(strategies: Collection[str]) -> dict[str, str]:
    """Return the arguments that none of the strategies has, and why."""
    if not strategies:
        return dict.fromkeys(_OF_POINTS, "has no points")
    rows = [STRATEGIES[strategy] for strategy in strategies]
    same_cells = {} if any(row.adaptive for row in rows) else {"large_factor": "gives all weights the same cells"}
    one_class = {} if any(row.classes > 1 for row in rows) else {"large_fraction": "has no large weights"}
    return same_cells | one_class


def filled(arguments: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return arguments, those that are None with their defaults, unless an axis or a strategy leaves them unused."""
    arguments = {**arguments, **checked(arguments)}
    unused = {name for axis in axes for name in REPLACED.get(axis, ())}
    unused |= _unused(compared(arguments["strategy"], axes)).keys()
    declared = {name: default for name, (_, _, default) in settings_of(GridArguments).items()}
    defaults = {name: default for name, default in declared.items() if name not in unused}
    return {name: defaults.get(name) if value is None else value for name, value in arguments.items()}
