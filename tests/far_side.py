"""An array on the far side of the files: it is programmed from an image and read, and knows numpy only.

It is written without a look at how reads are evaluated: it takes a device's mean and σ curves as numbers, and whatever
else it needs from the file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class FarArray:
    """An array whose cells hold an image, in the order of its file."""

    def __init__(self, path: Path, *, by: str = "level") -> None:
        if path.suffix == ".npz":
            with np.load(path) as image:
                self.image, self.address, self.held = str(image["image"]), image["address"], image[by]
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            self.image = next(line.split()[2] for line in lines if line.startswith("# image"))
            rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
            self.address = np.array([int(row["address"]) for row in rows])
            self.held = np.array([float(row[by]) for row in rows])

    def read(self, noise: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        """Return one read of each cell: what it holds or, with `noise`, what that makes of it."""
        return np.array(self.held, np.float64) if noise is None else noise(np.array(self.held, np.float64))


def write_npz(path: Path, array: FarArray, value: np.ndarray, **columns: np.ndarray) -> Path:
    """Write reads as npz."""
    arrays: dict[str, Any] = {"address": array.address, "value": value, "image": array.image, **columns}
    np.savez(path, **arrays)
    return path


def write_csv(path: Path, array: FarArray, value: np.ndarray, rows: np.ndarray | None = None) -> Path:
    """Write reads as CSV, in an order of its own."""
    order = np.arange(len(value)) if rows is None else rows
    lines = [f"# image {array.image}", "address,value", *(f"{array.address[n]},{value[n]!r}" for n in order)]
    path.write_text("\n".join(line.replace("np.float64(", "").replace(")", "") for line in lines) + "\n", "utf-8")
    return path


class FarReader:
    """Rebuilds weights from what an array without noise returns, by the image's file alone and a tensor's manifest.

    Blocks are taken as they are: data come first in each.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as image:
            self.columns = {name: image[name] for name in image.files if image[name].ndim == 1}
            self.parts = [json.loads(text) for text in image["parts"].tolist()]
        self.bits: dict[tuple[str, str], np.ndarray] = {}  # by stream and tensor
        for part in self.parts:
            if part["stream"] is not None:
                self._share(part["plane"], part["stream"], self._symbols(part))

    def _rows(self, part: dict[str, Any]) -> slice:
        return slice(part["first"], part["end"])

    def _cells(self, part: dict[str, Any]) -> np.ndarray:
        """Return the read of each cell: of a pair, what the first device holds more."""
        level = self.columns["level"][self._rows(part)].astype(np.float64)
        cells: np.ndarray = (level * self.columns["polarity"][self._rows(part)]).reshape(-1, len(part["polarity"]))
        summed: np.ndarray = cells.sum(axis=1)
        return summed

    def _symbols(self, part: dict[str, Any]) -> np.ndarray:
        """Return the symbols that reads are taken for, one of the copies of each."""
        symbols: np.ndarray = np.searchsorted(part["stream"]["thresholds"], self._cells(part))
        return symbols[:: part["stream"]["copies"]]

    def _share(self, name: str, stream: dict[str, Any], symbols: np.ndarray) -> None:
        word, base = symbols.reshape(-1, stream["word_cells"]), stream["symbols"]
        number = np.zeros(len(word), np.int64)
        for digit in word.T:
            number = number * base + np.where(number % 2, base - 1 - digit, digit)
        gray = number ^ (number >> 1)
        stored = np.concatenate([gray >> place & 1 for place in reversed(range(stream["word_bits"]))])
        data = _data(stored[: stream["stored_bits"]], stream)
        start = 0
        for key, size in stream["tensors"]:
            self.bits[name, key] = data[start : start + size]
            start += size
        assert start == stream["data_bits"] == data.size

    def levels(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return flat indices of weights with cells, and the mean read of each."""
        for part in self.parts:
            if (part["tensor"], part["plane"]) == (key, "level"):
                each = self.columns["index"][self._rows(part)][:: len(part["polarity"])]
                index, inverse = np.unique(each, return_inverse=True)
                return index, np.bincount(inverse, self._cells(part)) / np.bincount(inverse)
        return np.zeros(0, np.int64), np.zeros(0)

    def side(self, key: str) -> np.ndarray:
        """Return the bits of analog side information, by the symbols that were written."""
        (part,) = [part for part in self.parts if (part["tensor"], part["plane"]) == (key, "side")]
        rows = self._rows(part)
        symbol = self.columns["symbol"][rows][self.columns["replica"][rows] == 0].astype(np.int64)
        gray, width = symbol ^ (symbol >> 1), int(self.columns["symbol"][rows].max()).bit_length()
        bits: np.ndarray = (gray[:, None] >> np.arange(width - 1, -1, -1) & 1).reshape(-1)
        return bits


def _data(stored: np.ndarray, stream: dict[str, Any]) -> np.ndarray:
    """Return the data of blocks, of which the last may have fewer."""
    if stream["block_data"] is None:
        return stored
    length, parity = stream["block_length"], stream["block_length"] - stream["block_data"]
    blocks = [stored[start : start + length] for start in range(0, stored.size, length)]
    return np.concatenate([block[: block.size - parity] for block in blocks])


def numbers(bits: np.ndarray, dtype: str) -> np.ndarray:
    """Return bits, the highest first, as numbers."""
    return np.frombuffer(np.packbits(bits.astype(np.uint8)).tobytes(), dtype)
