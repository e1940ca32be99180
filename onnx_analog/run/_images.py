"""Whether images are scaled as the model was trained: other ways to scale them are tried on a few samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import percent
from onnx_analog.graph.normalisation import listed
from onnx_analog.run.data import Dataset

Images = NDArray[Any]

MOST = 256  # samples that are tried
_ENOUGH = 30  # samples of which an accuracy tells anything
_GAIN = 0.05  # of accuracy, below which nothing is said
_SURE = 3  # standard errors of a difference of accuracies
_WHITE = 255
_OVERSHOOT = 2  # images from 0 to 1 may exceed 1 a little, as those that were resized; those from 0 to 255 exceed this

_MIDDLE, _SPREAD = 0.5, 2  # of images that are normalised: their mean is below this, their deviation within a factor

_GIVE = "give mean and std as in training"


class _Way(NamedTuple):
    """A way to scale images, what it is called, and what to do."""

    images: Images
    name: str
    advice: str


def doubt_of_scale(data: Dataset, accuracy: float, score: Callable[[Dataset], float]) -> str | None:
    """Return the doubt that images are scaled as in training, if another way makes a model much more accurate.

    Parameters
    ----------
    data : Dataset
        As it is fed.
    accuracy : float
        Of all samples, without noise.
    score : function
        Returns the accuracy on other data.
    """
    if len(data) < _ENOUGH or accuracy > 1 - _GAIN:
        return None
    few = data.head(MOST)
    name = next((name for name in (*data.raw, *data.from_bytes) if name in data.raw or _is_odd(few, name)), None)
    if name is None:
        return None
    found = score(few)
    others = [(score(replace(few, inputs={**few.inputs, name: way.images})), way) for way in _ways(few, name)]
    best, way = max(others, key=lambda pair: pair[0])
    if best - found <= max(_GAIN, _SURE * _standard_error(found, best, len(few))):
        return None
    return (
        f"top1 without noise is {percent(found, 2)} on the first {len(few):,} samples, and would be "
        f"{percent(best, 2)} if the images of {name!r} were {way.name}: {way.advice}"
    )


def _standard_error(one: float, other: float, samples: int) -> float:
    return math.sqrt((one * (1 - one) + other * (1 - other)) / samples)


def _is_odd(data: Dataset, name: str) -> bool:
    """Return whether images that were normalised have a mean or a deviation far from those of normalised ones.

    Numbers that fit the images are those of training, or near them, and nothing need be tried.
    """
    if data.made.mean is None or _numbers(data, name) is None:
        return False
    mean, std = _moments(data.inputs[name])
    return bool((np.abs(mean) > _MIDDLE).any() or (std < 1 / _SPREAD).any() or (std > _SPREAD).any())


def _numbers(data: Dataset, name: str) -> list[Images] | None:
    """Return the mean and std that normalised images, as arrays that go with them; None if a layout has no channels."""
    images, given = data.inputs[name], (data.made.mean or (0.0,), data.made.std or (1.0,))
    axis = _channels(images)
    if axis is None and max(map(len, given)) > 1:
        return None
    shape = [1] * images.ndim
    if axis is not None:
        shape[axis] = -1
    return [np.array(numbers, images.dtype).reshape(shape if len(numbers) > 1 else ()) for numbers in given]


def _ways(data: Dataset, name: str) -> Iterator[_Way]:
    images, of_bytes = data.inputs[name], name in data.from_bytes
    if name not in data.raw:
        mean_of, std_of = _numbers(data, name) or [np.zeros(()), np.ones(())]
        images = images * std_of + mean_of
        yield _Way(images, "only divided by 255", "give mean=0 and std=1")
    normalised, mean, std = _normalised(images)
    used = f"mean {listed(mean, ',')} and std {listed(std, ',')}"
    give = _GIVE if of_bytes else f"save them as uint8, and {_GIVE}"
    yield _Way(normalised, "normalised", f"{give} (these images have {used})")
    if images.max() > _OVERSHOOT:
        yield _Way(images / images.dtype.type(_WHITE), "scaled to 0 to 1", f"divide them by {_WHITE}")
    elif of_bytes:
        yield _Way(images * images.dtype.type(_WHITE), "left from 0 to 255", f"give mean=0 and std={1 / _WHITE:.8f}")
    else:
        yield _Way(images * images.dtype.type(_WHITE), "scaled to 0 to 255", f"multiply them by {_WHITE}")


def _normalised(images: Images) -> tuple[Images, list[float], list[float]]:
    """Return images with mean 0 and standard deviation 1 in each channel, and what both were, of white as 1."""
    mean, std = _moments(images)
    scale = _WHITE if images.max() > _OVERSHOOT else 1
    numbers = ((array.ravel() / scale).round(4).tolist() for array in (mean, std))
    return ((images - mean) / np.where(std > 0, std, 1)).astype(images.dtype), *numbers


def _moments(images: Images) -> tuple[Images, Images]:
    """Return the mean and the standard deviation of each channel, in the shape of images."""
    rest = tuple(axis for axis in range(images.ndim) if axis != _channels(images))
    return images.mean(rest, np.float64, keepdims=True), images.std(rest, np.float64, keepdims=True)


def _channels(images: Images) -> int | None:
    """Return the axis of colours; None if there is none, or it cannot be told."""
    return next((axis for axis in (1, images.ndim - 1) if images.ndim == 4 and images.shape[axis] == 3), None)
