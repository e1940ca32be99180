"""Evaluation data: an npz file, or arrays, made into what a model's inputs take."""

from __future__ import annotations

import hashlib
import math
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.coding.verified import UNKNOWN, Inputs
from onnx_analog.disk import kinds
from onnx_analog.disk.reading import incomplete, size_of
from onnx_analog.display import counted
from onnx_analog.errors import DataError, FunctionError, OptionError, brief, one_line
from onnx_analog.graph.normalisation import Normalisation, listed, remembered, same_numbers
from onnx_analog.named import named_function as named_function

Array = NDArray[Any]

LARGEST = 2**32  # bytes that arrays may take, unless the file itself is larger
_EMPTY = 2**20  # samples of no values, which take no room and yet a call each
_PIECE = 2**22  # bytes that are unpacked at a time
_CHANNELS = {1, 3}  # of images
_SCALE = 255  # of images in bytes
_BRIGHT = 0.5  # that a picture on the scale of 0 to 1 exceeds somewhere


class Input(NamedTuple):
    """One input of a model."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]  # a number where the side is fixed
    normalisation: Normalisation | None = None  # of images, as the model remembers, or the reference
    remembered_by: str = "model"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of `shape` can be fed, whatever its number of samples."""
        return len(shape) == len(self.shape) and _agree(self.shape[1:], shape[1:])

    def fits_one(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of `shape` holds samples that can be fed one by one, without their first axis."""
        return _agree(self.shape, shape[1:])


def inputs_of(fields: Sequence[Input], reference: ir.Model | None) -> list[Input]:
    """Return the inputs of a model, whose images are normalised as the reference remembers if the model does not."""
    numbers = None if reference is None else remembered(reference)
    if numbers is None:
        return list(fields)
    return [
        each if each.normalisation is not None else each._replace(normalisation=numbers, remembered_by="reference")
        for each in fields
    ]


def _agree(shape: Sequence[int | str | None], sides: Sequence[int]) -> bool:
    pairs = zip(shape, sides, strict=False)
    return len(shape) == len(sides) and all(not isinstance(side, int) or side == length for side, length in pairs)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples as a model takes them, and their labels if there are any.

    Attributes
    ----------
    inputs : mapping of name to array of shape (n, ...)
    labels : array of shape (n, ...), or None
    one_by_one : bool
        The model's inputs have no axis for samples: each sample is a call of its own, without its first axis.
    made : Inputs
        How the inputs were made; nothing where they were given as they are.
    raw : tuple of str
        Inputs that look like images from 0 to 1, or to 255, which nothing has normalised.
    from_bytes : tuple of str
        Inputs that were made from uint8 images.

    Raises
    ------
    DataError
        If there are no samples, or inputs and labels differ in their number.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    one_by_one: bool = False
    made: Inputs = UNKNOWN
    raw: tuple[str, ...] = ()
    from_bytes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in self.inputs.items())
        labels = "" if self.labels is None else f"; labels {self.labels.dtype} {self.labels.shape}"
        return f"<Dataset: {one_line(inputs, 200)}{labels}>"

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Mapping) or not self.inputs:
            raise DataError(f"inputs is {brief(self.inputs)}; it must be a mapping of names to arrays")
        arrays = {**self.inputs, **({} if self.labels is None else {"y": self.labels})}
        for name, array in arrays.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray):
                raise DataError(f"{brief(name)} of the data is {brief(array)}; it must be an array")
            if np.ndim(array) == 0:
                raise DataError(f"{name!r} of the data is a single number, not one entry for each sample")
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise DataError(
                f"the arrays of the data differ in their number of samples, or have none: {_counts(lengths)}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def preprocessing(self) -> str:
        """How the inputs were made, in words; empty if they were given ready to use."""
        return self.made.preprocessing

    def head(self, count: int) -> Dataset:
        """Return the first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, inputs={name: array[:count] for name, array in self.inputs.items()}, labels=labels)

    def take(self, numbers: NDArray[np.integer[Any]]) -> Dataset:
        """Return the samples with these numbers, in this order."""
        labels = None if self.labels is None else self.labels[numbers]
        return replace(self, inputs={name: array[numbers] for name, array in self.inputs.items()}, labels=labels)

    def digest(self) -> str:
        """Return the SHA-256 of all arrays, their names, types and shapes, as hex."""
        arrays = {**self.inputs, **({} if self.labels is None else {"labels of the data": self.labels})}
        sha256 = hashlib.sha256()
        for name, array in arrays.items():
            sha256.update(f"{name} {array.dtype} {array.shape}".encode())
            sha256.update(np.ascontiguousarray(array).tobytes())
        return sha256.hexdigest()

    def batches(self, size: int, *, fixed: bool) -> Iterator[tuple[dict[str, Array], int]]:
        """Yield (inputs, samples) of at most `size` samples; if the size is fixed, the last is filled by repetition."""
        if self.one_by_one:
            yield from (
                ({name: array[index, ...] for name, array in self.inputs.items()}, 1) for index in range(len(self))
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
    mean, std : tuples of float, shape (1,) or (channels,), optional
        On the scale of 0 to 1. What is left out is what the model remembers or, without that, 0 and 1.
    function : "module:function", optional
        Called with each input's array in place of all this; returns the array to feed.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    function: str | None = None

    def __post_init__(self) -> None:
        self.over(None).check()

    @property
    def given(self) -> dict[str, tuple[float, ...]]:
        """What the user gives of `mean` and `std`."""
        return {name: getattr(self, name) for name in Normalisation._fields if getattr(self, name) is not None}

    def over(self, remembered: Normalisation | None) -> Normalisation:
        """Return how images are normalised for a model that remembers this."""
        return (remembered or Normalisation())._replace(**self.given)

    def normalisation(self, field: Input) -> Normalisation:
        """Return how the images of an input are normalised."""
        return self.over(field.normalisation)

    def normalises(self, array: Array, field: Input) -> bool:
        """Return whether an array holds images that become a normalised input."""
        return self.function is None and array.dtype == np.uint8 and field.dtype.kind == "f"

    def contradicted(self, field: Input) -> str | None:
        """Return what the model remembers of an input, in words, where the user gives something else."""
        remembered = {} if field.normalisation is None else field.normalisation._asdict()
        other = [f"{name} {listed(values, ',')}" for name, values in remembered.items() if self._differs(name, values)]
        return " and ".join(other) or None

    def _differs(self, name: str, remembered: tuple[float, ...]) -> bool:
        """Return whether the user gives other numbers; one stands for all channels."""
        return name in self.given and not same_numbers(self.given[name], remembered)

    def description(self, array: Array, field: Input) -> str:
        """Return what `apply` does, in words."""
        if self.function is not None:
            return f"{field.name!r} made by {self.function}"
        if not self.normalises(array, field):
            return f"{field.name!r} as given ({array.dtype})"
        used = self.normalisation(field)
        if used == Normalisation():
            return f"{field.name!r} from uint8 images, divided by 255, not normalised (no mean and std)"
        whose = ""
        if field.normalisation is not None:
            other = self.contradicted(field)
            whose = f", as the {field.remembered_by} remembers"
            whose = whose if other is None else f"; the {field.remembered_by} remembers {other}"
        return f"{field.name!r} from uint8 images, divided by 255, normalised with {used}{whose}"

    def made(self, given: Mapping[Input, Array]) -> Inputs:
        """Return what `apply` does with the arrays of all inputs."""
        words = "; ".join(self.description(array, field) for field, array in given.items())
        if self.function is not None:
            return Inputs(words, preprocess=self.function)
        used = {self.normalisation(field) for field, array in given.items() if self.normalises(array, field)}
        return Inputs(words, *used.pop(), scale=_SCALE) if len(used) == 1 else Inputs(words)

    def apply(self, array: Array, field: Input) -> Array:
        """Return what `field` takes.

        Raises
        ------
        DataError
            If the shapes do not fit.
        OptionError
            If `mean` or `std` has another number of values than the images have channels.
        """
        if self.function is not None:
            prepared = _called(self.function, array)
        elif self.normalises(array, field):
            prepared = _laid_out(_normalised(array, self.normalisation(field)), field)
        else:
            prepared = array
        if prepared.dtype.kind not in "biufV":  # V is what numpy makes of bfloat16 and its like
            raise DataError(
                f"the data for input {field.name!r} are of type {prepared.dtype}, and the model takes numbers"
            )
        if not (field.fits(prepared.shape) or field.fits_one(prepared.shape)):
            raise DataError(
                f"input {field.name!r} takes shape {_text(field.shape)}, and the data give {_text(prepared.shape)}. "
                'Reshape them, or give preprocess="module:function"'
            )
        return np.ascontiguousarray(_cast(prepared, field))


def _normalised(images: Array, normalisation: Normalisation) -> NDArray[np.float32]:
    """Return float32 images of shape (n, h, w, channels)."""
    images = images[..., None] if images.ndim == 3 else images
    for name, values in normalisation._asdict().items():
        if len(values) not in (1, images.shape[-1]):
            count = counted(images.shape[-1], "channel")
            raise OptionError(f"{name} has {len(values)} values, and the images have {count}")
    scaled: NDArray[np.float32] = images.astype(np.float32) / np.float32(_SCALE)
    scaled -= np.array(normalisation.mean, np.float32)
    scaled /= np.array(normalisation.std, np.float32)
    return scaled


def _cast(array: Array, field: Input) -> Array:
    """Return numbers in the type of an input, which must be able to hold them."""
    if array.dtype == field.dtype:
        return array
    with np.errstate(all="ignore"):
        cast: Array = array.astype(field.dtype)
        if field.dtype.kind in "biu":
            lost = (cast.astype(array.dtype) != array) | ((cast < 0) != (array < 0))
        else:
            lost = np.isfinite(array.astype(np.float64)) & ~np.isfinite(cast.astype(np.float64))
    if lost.any():
        raise DataError(
            f"the data for input {field.name!r} hold {array[lost][0]}, which the model's type {field.dtype} cannot "
            "represent"
        )
    return cast


def _called(spec: str, array: Array) -> Array:
    function = named_function(spec)
    try:
        return np.asarray(function(array))
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # whatever a function of the user's raises
        how = "It is called as f(array) -> array, with the data of one input for all samples"
        raise FunctionError(f'preprocess="{spec}" failed with {type(error).__name__}: {error}. {how}') from error


def _laid_out(images: NDArray[np.float32], field: Input) -> NDArray[np.float32]:
    """Return NHWC `images` in the layout that `field` takes; NCHW where the model leaves it open."""
    if images.ndim != 4:
        return images
    layouts = [np.moveaxis(images, -1, 1), images, np.moveaxis(images, -1, 1).reshape(len(images), -1)]
    fitting = (layout for fits in (field.fits, field.fits_one) for layout in layouts if fits(layout.shape))
    return next(fitting, layouts[0])


def load(
    path: Path, inputs: Sequence[Input], preprocessing: Preprocessing | None = None, *, samples: int | None = None
) -> Dataset:
    """Return the samples of an npz file; arrays that are not needed are not read.

    Parameters
    ----------
    path : Path
        Holds one array per model input, under its name, or `x` if there is one input; and, if there are labels, `y`.
        Where the model's inputs have no axis for samples, all arrays have one more in front.
    inputs : sequence of Input
        What the model takes.
    preprocessing : Preprocessing, optional
        How images become inputs.
    samples : int, >= 1, optional
        Only the first so many are read.

    Raises
    ------
    DataError
        If the file is no npz, or its arrays do not fit the inputs, or take more than `LARGEST` bytes.
    """
    with _Archive(path) as archive:
        names = _names(inputs, archive.names, repr(str(path)))
        arrays = archive.read([*names.values(), *(["y"] if "y" in archive.names else [])], samples)
    return _dataset(arrays, names, inputs, preprocessing or Preprocessing(), repr(str(path)))


def from_arrays(
    arrays: Mapping[str, Array],
    inputs: Sequence[Input],
    preprocessing: Preprocessing | None = None,
    *,
    samples: int | None = None,
) -> Dataset:
    """Return the samples of arrays that are named as those of an npz file; see `load`."""
    names = _names(inputs, list(arrays), "the data")
    needed = [*names.values(), *(["y"] if "y" in arrays else [])]
    read = {name: np.asarray(arrays[name]) for name in needed}
    scalars = [name for name, array in read.items() if array.ndim == 0]
    if scalars:
        raise DataError(f"the data: {scalars[0]!r} is a single number, not one entry for each sample")
    first = {name: array[:samples] for name, array in read.items()}
    return _dataset(first, names, inputs, preprocessing or Preprocessing(), "the data")


def _dataset(
    arrays: Mapping[str, Array],
    names: Mapping[str, str],
    inputs: Sequence[Input],
    preprocessing: Preprocessing,
    source: str,
) -> Dataset:
    labels = None if "y" in names.values() else arrays.get("y")
    lengths = {name: len(arrays[name]) for name in names.values()} | ({} if labels is None else {"y": len(labels)})
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"the arrays of {source} differ in their number of samples, or have none: {_counts(lengths)}")
    given = {field: arrays[names[field.name]] for field in inputs}
    prepared = {field.name: preprocessing.apply(array, field) for field, array in given.items()}
    return Dataset(
        prepared,
        labels,
        one_by_one=_one_by_one(prepared, inputs),
        made=preprocessing.made(given),
        raw=tuple(field.name for field, array in given.items() if _is_raw(array, field, preprocessing)),
        from_bytes=tuple(field.name for field, array in given.items() if preprocessing.normalises(array, field)),
    )


def _is_raw(array: Array, field: Input, preprocessing: Preprocessing) -> bool:
    """Return whether an input gets images on the scale of 0 to 1, or to 255, that nothing has normalised."""
    if preprocessing.function is not None or field.dtype.kind != "f":
        return False
    if preprocessing.normalises(array, field):
        used = preprocessing.normalisation(field)
        return all(map(same_numbers, used, Normalisation()))
    if array.ndim != 4 or not {array.shape[1], array.shape[-1]} & _CHANNELS or array.dtype.kind not in "fiu":
        return False
    return bool(array.min() >= 0) and bool(_BRIGHT < array.max() <= 255)


def _one_by_one(prepared: Mapping[str, Array], inputs: Sequence[Input]) -> bool:
    """Return whether the samples are to be fed one by one: all inputs, or none."""
    alone = {field.name: not field.fits(prepared[field.name].shape) for field in inputs}
    if len(set(alone.values())) > 1:
        single, batched = (next(name for name in alone if alone[name] is kind) for kind in (True, False))
        raise DataError(
            f"input {single!r} takes no axis for samples, so each is a call of its own: give {batched!r} one more axis "
            f"in front too, ({len(prepared[batched])}, {', '.join(['1', *map(str, prepared[batched].shape[1:])])})"
        )
    return any(alone.values())


def read(path: Path, *needed: str) -> dict[str, Array]:
    """Return the arrays of an npz file: those that are `needed`, or all.

    Raises
    ------
    DataError
        If it is none, one of `needed` is not in it, or an array has no axis for samples. Or if the arrays take more
        than `LARGEST` bytes, and more than the file.
    """
    with _Archive(path) as archive:
        if missing := [name for name in needed if name not in archive.names]:
            raise DataError(f"{str(path)!r} has no array {missing[0]!r}; it has {', '.join(archive.names) or 'none'}")
        return archive.read(needed or archive.names)


def _counts(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in lengths.items())


class _Header(NamedTuple):
    """What an npy file says of its array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class _Archive:
    """An npz file that is open. Nothing is unpacked but what is read."""

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, size_of(path, error=DataError)
        try:
            kinds.check(path, kinds.NPZ, DataError)
            self._file = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            cut = incomplete(path)
            raise self._damaged() if cut is None else DataError(cut) from error
        except (OSError, ValueError, EOFError, NotImplementedError) as error:
            raise self._damaged() from error
        self.names = [name.removesuffix(".npy") for name in self._file.namelist()]

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _damaged(self, name: str = "") -> DataError:
        why = f": {name!r} is damaged, or holds Python objects" if name else ""
        return DataError(f"{str(self._path)!r} is not an npz file of plain arrays{why}. Save it with numpy.savez")

    def read(self, names: Sequence[str], samples: int | None = None) -> dict[str, Array]:
        """Return arrays, or the first `samples` entries of each."""
        headers = {name: self._of(name, samples, None) for name in dict.fromkeys(names)}
        total = sum(header.nbytes for header, _ in headers.values())
        if total > max(LARGEST, self._size):
            raise DataError(
                f"the arrays of {str(self._path)!r} take {total:,} bytes when unpacked, more than {LARGEST:,}: take "
                "fewer samples, or save them with numpy.savez, which does not compress"
            )
        return {name: self._of(name, samples, header)[1] for name, (header, _) in headers.items()}

    def _of(self, name: str, samples: int | None, known: _Header | None) -> tuple[_Header, Array]:
        """Return what is to be read of an array, and, if that is known already, the array."""
        try:
            info = self._file.getinfo(name if name in self._file.NameToInfo else f"{name}.npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("numpy compresses with deflate only")
            with self._file.open(info) as file:
                header = _header(file)
                if header.shape == ():
                    raise DataError(f"{str(self._path)!r}: {name!r} is a single number, not one entry for each sample")
                full = header
                if samples is not None:
                    header = header._replace(shape=(min(samples, header.shape[0]), *header.shape[1:]))
                if full.nbytes > info.file_size:
                    raise ValueError("there are fewer bytes than the header says")
                if known is None:
                    return (full if header.fortran else header), np.empty(0)
                return header, _entries(file, header, full)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise self._damaged(name) from error


def _header(file: IO[bytes]) -> _Header:
    """Return the header of an npy file; raise `ValueError` if it is none of a plain array."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError("not the version of a plain array")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python 2's headers
        shape, fortran, dtype = readers[version](file)
    if dtype.hasobject or dtype.names is not None or dtype.itemsize == 0 or any(side < 0 for side in shape):
        raise ValueError("not a plain array")
    if 0 in shape[1:] and shape[0] > _EMPTY:
        raise ValueError("an array of no values")
    return _Header(tuple(shape), bool(fortran), dtype)


def _entries(file: IO[bytes], header: _Header, full: _Header) -> Array:
    """Return the first entries of an array: all of it is unpacked only where it lies in Fortran's order."""
    taken = full if header.fortran else header
    data = bytearray(taken.nbytes)
    view, offset = memoryview(data), 0
    while offset < len(data):
        part = file.read(min(_PIECE, len(data) - offset))
        if not part:
            raise EOFError("the array ends early")
        view[offset : offset + len(part)] = part
        offset += len(part)
    if taken.shape == full.shape:
        file.read(1)  # at the end zipfile compares the checksum
    if not data:
        return np.zeros(header.shape, header.dtype)
    order = "F" if header.fortran else "C"
    array: Array = np.frombuffer(data, taken.dtype).reshape(taken.shape, order=order)  # type: ignore[call-overload]
    return array[: header.shape[0]]


def _names(inputs: Sequence[Input], arrays: Sequence[str], source: str) -> dict[str, str]:
    """Return which array each input takes."""
    return {field.name: _name_of(field, arrays, source, alone=len(inputs) == 1) for field in inputs}


def _name_of(field: Input, arrays: Sequence[str], source: str, *, alone: bool) -> str:
    name = field.name if field.name in arrays else "x"
    if name not in arrays or (name == "x" != field.name and not alone):
        raise DataError(
            f"{source} holds {', '.join(arrays) or 'nothing'}, and the model takes {field.name!r}: "
            f"name the array {field.name!r}{', or x' if alone and field.name != 'x' else ''}"
        )
    return name


def _text(shape: Sequence[Any]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"
