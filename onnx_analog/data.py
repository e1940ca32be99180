"""Evaluation data: an npz file, made into what a model's inputs take."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import DataError, OptionError
from onnx_analog.named import named_function as named_function

Array = NDArray[Any]


class Input(NamedTuple):
    """One input of a model."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]  # a number where the side is fixed

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of `shape` can be fed, whatever its number of samples."""
        return len(shape) == len(self.shape) and _agree(self.shape[1:], shape[1:])

    def fits_one(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of `shape` holds samples that can be fed one by one, without their first axis."""
        return _agree(self.shape, shape[1:])


def _agree(wanted: Sequence[int | str | None], sides: Sequence[int]) -> bool:
    pairs = zip(wanted, sides, strict=False)
    return len(wanted) == len(sides) and all(not isinstance(side, int) or side == found for side, found in pairs)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples as a model takes them, and their labels if there are any.

    Attributes
    ----------
    inputs : mapping of name to array of shape (n, ...)
    labels : array of shape (n, ...), or None
    one_by_one : bool
        The model's inputs have no axis for samples: each sample is a call of its own, without its first axis.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    one_by_one: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def head(self, count: int) -> Dataset:
        """Return the first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, inputs={name: array[:count] for name, array in self.inputs.items()}, labels=labels)

    def digest(self) -> str:
        """Return the SHA-256 of all arrays, their names, types and shapes, as hex."""
        arrays = {**self.inputs, **({} if self.labels is None else {"labels of the data": self.labels})}
        found = hashlib.sha256()
        for name, array in arrays.items():
            found.update(f"{name} {array.dtype} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def batches(self, size: int, *, fixed: bool) -> Iterator[tuple[dict[str, Array], int]]:
        """Yield (inputs, samples) of at most `size` samples; if the size is fixed, the last is filled by repetition."""
        if self.one_by_one:
            yield from (
                ({name: array[place, ...] for name, array in self.inputs.items()}, 1) for place in range(len(self))
            )
            return
        for start in range(0, len(self), size):
            batch = {name: array[start : start + size] for name, array in self.inputs.items()}
            count = len(next(iter(batch.values())))
            if fixed and count < size:
                batch = {name: np.resize(array, (size, *array.shape[1:])) for name, array in batch.items()}
            yield batch, count


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images become inputs.

    uint8 images, NHWC or NHW, for an input that takes floats: divided by 255, minus `mean`, over `std`, made NCHW (or
    left NHWC, or flattened, where the model's input says so). Other arrays are only cast to the input's type.

    Parameters
    ----------
    mean, std : tuples of float, shape (1,) or (channels,)
        On the scale of 0 to 1.
    function : "module:function", optional
        Called with each input's array in place of all this; returns the array to feed.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    function: str | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.mean):
            raise OptionError(f"mean is {self.mean}; all of it must be finite")
        if not all(value > 0 and math.isfinite(value) for value in self.std):
            raise OptionError(f"std is {self.std}; all of it must be above 0 and finite")

    def apply(self, array: Array, wanted: Input) -> Array:
        """Return what `wanted` takes.

        Raises
        ------
        DataError
            If the shapes do not fit.
        """
        if self.function is not None:
            found = np.asarray(named_function(self.function)(array))
        elif array.dtype == np.uint8 and wanted.dtype.kind == "f":
            found = _laid_out(self._normalised(array), wanted)
        else:
            found = array
        if found.dtype.kind not in "biufV":  # V is what numpy makes of bfloat16 and its like
            raise DataError(
                f"the data for input {wanted.name!r} are of type {found.dtype}, and the model takes numbers"
            )
        if not (wanted.fits(found.shape) or wanted.fits_one(found.shape)):
            raise DataError(
                f"input {wanted.name!r} takes shape {_text(wanted.shape)}, and the data give {_text(found.shape)}. "
                "Reshape them, or name a function with --preprocess."
            )
        return np.ascontiguousarray(found.astype(wanted.dtype, copy=False))

    def _normalised(self, images: Array) -> NDArray[np.float32]:
        """Return float32 images of shape (n, h, w, channels)."""
        images = images[..., None] if images.ndim == 3 else images
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, images.shape[-1]):
                raise DataError(f"{name} has {len(values)} values for images of {images.shape[-1]} channels")
        scaled: NDArray[np.float32] = images.astype(np.float32) / np.float32(255)
        scaled -= np.array(self.mean, np.float32)
        scaled /= np.array(self.std, np.float32)
        return scaled


def _laid_out(images: NDArray[np.float32], wanted: Input) -> NDArray[np.float32]:
    """Return NHWC `images` in the layout that `wanted` takes; NCHW where the model leaves it open."""
    if images.ndim != 4:
        return images
    layouts = [np.moveaxis(images, -1, 1), images, np.moveaxis(images, -1, 1).reshape(len(images), -1)]
    fitting = (layout for fits in (wanted.fits, wanted.fits_one) for layout in layouts if fits(layout.shape))
    return next(fitting, layouts[0])


def load(path: Path, inputs: Sequence[Input], preprocessing: Preprocessing | None = None) -> Dataset:
    """Return the samples of an npz file.

    Parameters
    ----------
    path : Path
        Holds one array per model input, under its name, or `x` if there is one input; and, if there are labels, `y`.
        Where the model's inputs have no axis for samples, all arrays have one more in front.
    inputs : sequence of Input
        What the model takes.
    preprocessing : Preprocessing, optional
        How images become inputs.

    Raises
    ------
    DataError
        If the file is no npz, or its arrays do not fit the inputs.
    """
    arrays = read(path)
    names = {wanted.name: _name_of(wanted, arrays, path, alone=len(inputs) == 1) for wanted in inputs}
    labels = None if "y" in names.values() else arrays.get("y")
    lengths = {name: len(arrays[name]) for name in names.values()} | ({} if labels is None else {"y": len(labels)})
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"the arrays of {str(path)!r} differ in their number of samples, or have none: {lengths}")
    preprocessing = preprocessing or Preprocessing()
    made = {wanted.name: preprocessing.apply(arrays[names[wanted.name]], wanted) for wanted in inputs}
    return Dataset(made, labels, one_by_one=_one_by_one(made, inputs))


def _one_by_one(made: Mapping[str, Array], inputs: Sequence[Input]) -> bool:
    """Return whether the samples are to be fed one by one: all inputs, or none."""
    alone = {wanted.name: not wanted.fits(made[wanted.name].shape) for wanted in inputs}
    if len(set(alone.values())) > 1:
        single, batched = (next(name for name in alone if alone[name] is kind) for kind in (True, False))
        raise DataError(
            f"input {single!r} takes no axis for samples, so each is a call of its own: give {batched!r} one more axis "
            f"in front too, ({len(made[batched])}, {', '.join(['1', *map(str, made[batched].shape[1:])])})"
        )
    return any(alone.values())


def read(path: Path, *needed: str) -> dict[str, Array]:
    """Return the arrays of an npz file.

    Raises
    ------
    DataError
        If it is none, one of `needed` is not in it, or an array has no axis for samples.
    """
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            if isinstance(held, np.ndarray):
                raise DataError(f"{str(path)!r} is a single array: save it with numpy.savez(path, x=..., y=...)")
            arrays = {name: held[name] for name in held.files}
    except FileNotFoundError:
        raise DataError(f"there is no file {str(path)!r}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(f"{str(path)!r} is not an npz file of plain arrays: save it with numpy.savez") from error
    if missing := [name for name in needed if name not in arrays]:
        raise DataError(f"{str(path)!r} has no array {missing[0]!r}; it has {', '.join(arrays) or 'none'}")
    scalars = [name for name, array in arrays.items() if array.ndim == 0]
    if scalars:
        raise DataError(f"{str(path)!r}: {scalars[0]!r} is a single number, not one entry a sample")
    return arrays


def _name_of(wanted: Input, arrays: Mapping[str, Array], path: Path, *, alone: bool) -> str:
    name = wanted.name if wanted.name in arrays else "x"
    if name not in arrays or (name == "x" != wanted.name and not alone):
        raise DataError(
            f"{str(path)!r} holds {', '.join(arrays) or 'nothing'}, and the model takes {wanted.name!r}: "
            f"name the array {wanted.name!r}{', or x' if alone and wanted.name != 'x' else ''}"
        )
    return name


def _text(shape: Sequence[Any]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"
