"""Declares the arguments that functions, commands and TOML files share, each once.

How a tensor is stored is declared in `onnx_analog.coding.scheme`; everything else that a user can set is declared here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from onnx_analog.errors import OptionError, brief
from onnx_analog.settings import setting, settings_of

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments, with their defaults."""

    seed: int = setting(0, least=0, most=LARGEST_SEED, help="Seed of the noise; the same seed gives the same results.")
    trial: int = setting(0, least=0, most=LARGEST_SEED, help="Number of the trial.")
    trials: int = setting(25, least=0, most=1_000_000, help="Times that the array is programmed and read.")
    sparsity: float = setting(0.0, least=0, below=1, help="Share of the weights to prune first.")
    prune_scope: str = setting(
        "model", choices=("tensor", "model"), help="Prune the smallest weights of each tensor, or of the whole model."
    )
    mean: tuple[float, ...] = setting(
        (0.0,), help="Per-channel mean of uint8 images scaled to [0, 1], e.g. 0.5 or r,g,b."
    )
    std: tuple[float, ...] = setting((1.0,), help="Per-channel standard deviation of the same images.")
    preprocess: str | None = setting(None, help="Function that prepares the array of each input.")
    metric: Any = setting(
        None,
        help="top1, top5, agreement, exact_match, relative_error, sqnr_db, mse, r2; or module:function, "
        "f(outputs, labels=, clean=) -> number.  [default: chosen by the data and outputs]",
    )
    output: str | None = setting(None, help="Output to measure.  [default: the first suitable one]")
    class_axis: int | None = setting(None, help="Axis of the classes in that output.  [default: the only possible one]")
    samples: int | None = setting(None, least=1, help="Use only the first samples, this many.  [default: all]")
    batch: int = setting(64, least=1, help="Samples per call of the model.")
    providers: tuple[str, ...] = setting(
        ("CPUExecutionProvider",), help="Execution providers of onnxruntime, comma-separated."
    )
    threads: int = setting(0, least=0, most=1024, help="Threads per operator; 0: chosen by onnxruntime.")
    at_least: float | None = setting(
        None, help="Fail unless the lower end of the 95 % interval (or the value) is this high."
    )
    at_most: float | None = setting(
        None, help="Fail unless the upper end of the 95 % interval (or the value) is this low."
    )
    precision: float | None = setting(
        None,
        above=0,
        help="Add trials until the 95 % interval is this narrow, in percentage points or the metric's unit.",
    )
    max_trials: int = setting(1000, least=2, help="Most trials per point where the interval decides on their number.")
    decoded: bool = setting(False, help="Write ordinary float weights, for other tools.")
    force: bool = setting(False, help="Replace existing files.")
    digital: int | None = setting(
        None, least=2, most=8, help="Quantise to integers of this many bits, without analog cells."
    )
    command: str | None = setting(None, help="The command that made the model, for its manifest.")


def checked(**given: Any) -> dict[str, Any]:
    """Return arguments by name, each with the type that it is declared with.

    A single number or text stands for a list of one.

    Raises
    ------
    OptionError
        If a value is of another type or out of its range.
    """
    declared = settings_of(Arguments)
    return {name: declared[name][0].check(name, _listed(value, declared[name][1]), declared[name][1])
            for name, value in given.items()}  # fmt: skip


def _listed(value: Any, kind: Any) -> Any:
    """Return a single number or text as a list of one where a list is wanted."""
    single = {tuple[float, ...]: int | float, tuple[str, ...]: str}.get(kind)
    return [value] if single is not None and isinstance(value, single) and not isinstance(value, bool) else value


def check_type(name: str, value: Any, kind: Any, what: str) -> None:
    """Raise `OptionError` if an argument is of another type than `kind`, which `what` describes."""
    if not isinstance(value, kind):
        raise OptionError(f"{name} is {brief(value)}; it must be {what}")


# Arguments that say the same thing in two ways: the first of each entry, and those that it excludes.
_PAPER = ("strategy", "cells_small", "cells_large", "preset", "large_fraction", "threshold")
_PARTS = ("sign", "classes", "partition", "shares", "bounds", "cells")
EXCLUSIVE = {
    "plan": ("digital", *_PAPER),
    "digital": (*_PAPER, *_PARTS),
    "cells": ("cells_small", "cells_large"),
    "shares": ("large_fraction", "threshold"),
    "bounds": ("large_fraction", "threshold"),
    "partition": ("large_fraction", "threshold"),
    "sign": ("strategy",),
    "classes": ("strategy",),
}


def check_exclusive(given: Collection[str]) -> None:
    """Raise `OptionError` if two of the arguments with these names contradict each other."""
    for name, others in EXCLUSIVE.items():
        other = next((other for other in others if other in given), None) if name in given else None
        if other is not None:
            raise OptionError(f"{name} and {other} exclude each other: give one of them")
