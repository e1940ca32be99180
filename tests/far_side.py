"""An array on the far side of the files: it is programmed from an image and read, and knows numpy only.

It is written without a look at how reads are evaluated: it takes a device's mean and σ curves as numbers, and whatever
else it needs from the file.
"""

from __future__ import annotations

import csv
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
