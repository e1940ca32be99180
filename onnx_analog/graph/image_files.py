"""Files of images: npz and CSV, written piece by piece."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import Progress, silent
from onnx_analog.errors import OptionError
from onnx_analog.graph.image import FORMAT, NONE, PLANES, TYPES, Image, Plane

Array = NDArray[Any]

SUFFIXES = (".npz", ".csv")
_FAST = 1  # level of compression: floats hardly become smaller with more


def check_suffix(path: Path) -> None:
    """Raise `OptionError` unless a path ends with .npz or .csv."""
    if path.suffix not in SUFFIXES:
        raise OptionError(f"{str(path)!r} must end with {' or '.join(SUFFIXES)}")


def write(image: Image, path: Path, progress: Progress = silent) -> None:
    """Write an image as .npz or .csv, whichever the name ends with.

    Raises
    ------
    OptionError
        If the name ends with neither.
    """
    check_suffix(path)
    pieces = (_write_npz if path.suffix == ".npz" else _write_csv)(image, path)
    total = image.cells * (len(TYPES) if path.suffix == ".npz" else 1)
    done = 0
    for size in pieces:
        done += size
        progress(f"{path.suffix[1:]} file", done / total)


# ------------------------------------------------------------------------------------------------------------- npz


def _write_npz(image: Image, path: Path) -> Iterator[int]:
    """Write column by column, and yield how many numbers each piece has."""
    head = {
        "format": np.array(FORMAT),
        "image": np.array(image.digest),
        "tensors": np.array(image.tensors, np.str_),
        "planes": np.array(PLANES),
        "parts": np.array([_part(plane) for plane in image.planes], np.str_),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_FAST) as archive:
        for name, array in head.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        for name, kind in TYPES.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (image.cells,)}
                np.lib.format.write_array_header_1_0(file, header)
                for column in image.column(name):
                    file.write(np.ascontiguousarray(column).data)
                    yield column.size


def _part(plane: Plane) -> str:
    """Return what a plane says of itself, as JSON on one line."""
    return json.dumps(plane.to_dict(), ensure_ascii=True, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------------------- CSV


def _write_csv(image: Image, path: Path) -> Iterator[int]:
    """Write row by row, and yield how many each piece has."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {FORMAT}\n# image {image.digest}\n")
        file.writelines(f"# part {_part(plane)}\n" for plane in image.planes)
        file.write(",".join(TYPES) + "\n")
        for plane in image.planes:
            tensor = "" if plane.tensor is None else _quoted(plane.tensor.key)
            for piece in plane.pieces():
                file.writelines(_lines(piece, f",{tensor},{plane.name},"))
                yield piece.size


def _quoted(text: str) -> str:
    """Return a text as a cell of a CSV file."""
    if any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _lines(plane: Plane, named: str) -> Iterable[str]:
    """Return the rows of a plane; what its cells have in common is made into text once."""
    names = ("symbol", "level", "input", "input_device", "level_device")
    of_each = [list(map(_text(name), plane.of_each(name).reshape(-1).tolist())) for name in names]
    common = np.array([",".join(texts) for texts in zip(*of_each, strict=True)], object).reshape(
        -1, plane.polarity.size
    )
    columns = [plane.column(name, NONE).tolist() for name in ("address", "index", "replica", "polarity")]
    texts = np.repeat(common, plane.cells, axis=0).reshape(-1).tolist()
    return (
        f"{address}{named}{index},{replica},{polarity},{text}\n"
        for address, index, replica, polarity, text in zip(*columns, texts, strict=True)
    )


def _text(name: str) -> Any:
    """Return the function that makes a value of a column a text that reads back to it; what is not known is empty."""
    if name == "symbol":
        return lambda symbol: "" if symbol == NONE else str(symbol)
    digits = 9 if TYPES[name] == np.float32 else 17
    return lambda value: f"{value:.{digits}g}" if value == value else ""
