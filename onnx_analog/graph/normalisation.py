"""The mean and the standard deviation of images, which a model remembers in its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from onnx_analog import serialise
from onnx_analog.errors import ModelError, OptionError

KEY = "onnx_analog.preprocessing"  # kept by all passes: a model takes the same images, however it is stored

_LONGEST = 2**16  # bytes of an entry
_BEFORE_KEY = 8  # bytes of its tags and lengths


class Normalisation(NamedTuple):
    """What uint8 images, divided by 255, are reduced by and divided by: one number, or one for each channel."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __str__(self) -> str:
        return " and ".join(f"{name} {listed(values, ',')}" for name, values in self._asdict().items())

    @property
    def text(self) -> str:
        """The metadata entry."""
        return json.dumps({name: list(values) for name, values in self._asdict().items()})

    def check(self) -> None:
        """Raise `OptionError` unless the numbers can normalise images."""
        for name, values in self._asdict().items():
            if not values or not all(isinstance(value, Real) for value in values):
                raise OptionError(f"{name} is {values}; it must be one number, or one for each channel")
        with np.errstate(over="ignore"):
            mean, std = (np.array(values, np.float32) for values in self)
        if not np.isfinite(mean).all():
            raise OptionError(f"mean is {listed(self.mean)}; each number must be finite, in float32")
        if not (np.isfinite(std) & (std > 0)).all():
            raise OptionError(f"std is {listed(self.std)}; each number must be above 0 and finite, in float32")


def same_numbers(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether numbers are the same for all channels, where one stands for all.

    >>> same_numbers((0.5,), (0.5, 0.5)), same_numbers((0.5,), (0.5, 0.4))
    (True, False)
    """
    count = max(len(one), len(other))
    return list(one) * (count // len(one)) == list(other) * (count // len(other))


def listed(values: Sequence[float], separator: str = ", ") -> str:
    """Return numbers as text."""
    return separator.join(f"{value:g}" for value in values)


def check_images(model: ir.Model, normalisation: Normalisation) -> None:
    """Raise `OptionError` if numbers are not for images divided by 255, or not for as many channels as a model's."""
    far = next((value for value in normalisation.mean if abs(value) > 1), None)
    if far is not None:
        raise OptionError(
            f"mean is {far:g}, and images are divided by 255 first: give {far / 255:.4f}, and std likewise"
        )
    channels = {side for value in model.graph.inputs for side in _channels(value)}
    for name, values in normalisation._asdict().items():
        if len(values) > 1 and channels and len(values) not in channels:
            raise OptionError(f"{name} has {len(values)} values, and no input of the model has as many channels")


def _channels(value: ir.Value) -> Iterator[int]:
    """Yield how many channels the images of an input may have; nothing if its shape does not tell."""
    shape = value.shape
    if shape is not None and len(shape) == 4:
        yield from (side for side in (shape[1], shape[3]) if isinstance(side, int))


def keep(model: ir.Model, normalisation: Normalisation) -> None:
    """Note in a model how its images are normalised, in place of what it remembers."""
    normalisation.check()
    model.metadata_props[KEY] = normalisation.text


def at_end(path: Path) -> bytes:
    """Return the entry of what a model remembers, if its file ends with it: as `remember` appends it, byte by byte."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _LONGEST, 0))
        last = file.read()
    place = last.rfind(KEY.encode())
    for start in range(max(place - _BEFORE_KEY, 0), max(place, 0)):
        if last[start:] == _entry_in(last[start:]):
            return last[start:]
    return b""


def _entry_in(data: bytes) -> bytes | None:
    """Return the bytes of a model that is nothing but the entry which `data` holds; None if it holds no such."""
    try:
        props = onnx.ModelProto.FromString(data).metadata_props
    except DecodeError:
        return None
    return entry(props[0].value) if len(props) == 1 and props[0].key == KEY else None


def entry(text: str) -> bytes:
    """Return the entry as it stands in a model's file, which protobuf joins with what stands before it."""
    model = onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key=KEY, value=text)])
    return bytes(model.SerializeToString())


def remembered(model: ir.Model) -> Normalisation | None:
    """Return how the images of a model are normalised, as far as it remembers.

    Raises
    ------
    ModelError
        If the entry is damaged.
    """
    text = model.metadata_props.get(KEY)
    if text is None:
        return None
    try:
        normalisation = _parsed(serialise.parse(text))
        normalisation.check()
    except (ValueError, TypeError, OptionError) as error:
        raise ModelError(f"metadata entry {KEY!r} is damaged: {error}. Write it again with `remember`") from error
    return normalisation


def _parsed(body: Any) -> Normalisation:
    if not isinstance(body, dict) or set(body) != set(Normalisation._fields):
        raise ValueError("it must have mean and std, and nothing else")
    if not all(isinstance(values, list) and not any(isinstance(v, bool) for v in values) for values in body.values()):
        raise ValueError("mean and std must be lists of numbers")
    return Normalisation(**{name: tuple(values) for name, values in body.items()})
