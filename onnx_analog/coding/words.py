"""Describes schemes in words, for tables and messages."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_analog.channels import DEFAULT, Channel, resolve
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.coding.stored_channels import without_unused
from onnx_analog.display import counted
from onnx_analog.settings import settings_of

_DESCRIBED = {  # settings that `summary` has words of its own for
    "sign", "classes", "partition", "shares", "bounds", "step", "cells", "granularity", "channel", "side_channel",
    "side_cells", "side_copies",
}  # fmt: skip


def summary(scheme: Scheme, *, channel: bool = True) -> str:
    """Return what differs from the defaults; without the channel where a table has a column for it."""
    return ", ".join([*_kind(scheme), *_scale(scheme), *_reading(scheme, channel=channel)])


def _kind(scheme: Scheme) -> list[str]:
    paper = Paper.of(scheme)
    cells = f"cells {_numbers(scheme.cells, ' and ')}" if scheme.analog != "none" else "no cells"
    edges = {name: _numbers(getattr(scheme, name), " and ") for name in ("shares", "bounds") if getattr(scheme, name)}
    if paper is not None:
        return [paper.strategy, cells, *(f"{name.removesuffix('s')} {numbers}" for name, numbers in edges.items())]
    sign = ["sign in the level"] if scheme.sign == "level" else []
    parted = [f"{name} {numbers}" for name, numbers in edges.items()]
    return [scheme.partition, counted(scheme.classes, "class", "classes"), *sign, *parted, cells]


def _scale(scheme: Scheme) -> list[str]:
    step = [] if scheme.step is None else [f"step {scheme.step:g}"]
    shared = {"model": "the model", "channel": "each output channel"}.get(scheme.granularity)
    return step + ([f"one scale for {shared}"] if shared else [])


def _reading(scheme: Scheme, *, channel: bool) -> list[str]:
    words = []
    if channel and scheme.channel != _default_channel():
        words.append(f"channel {scheme.channel}")
    for name, (_, _, default) in settings_of(Scheme).items():
        if name not in _DESCRIBED and getattr(scheme, name) != default:
            value = getattr(scheme, name)
            words.append(f"{name} {f'{value:.3g}' if name == 'relative_step' else value}")
    if scheme.side_channel is not None:
        more = ", ".join(_side_counts(scheme))
        words.append(f"side information in {scheme.side_channel}{f' ({more})' * bool(more)}")
    return words


def _side_counts(scheme: Scheme) -> Iterator[str]:
    if scheme.side_cells > 1:
        yield counted(scheme.side_cells, "cell")
    if scheme.side_copies > 1:
        yield counted(scheme.side_copies, "copy", "copies")


def _numbers(numbers: tuple[float, ...], between: str) -> str:
    """Return up to four numbers, or the range of more."""
    if len(numbers) > 4:
        return f"{min(numbers):g} to {max(numbers):g}"
    return between.join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers)


def _default_channel() -> Channel:
    return without_unused(resolve(DEFAULT))
