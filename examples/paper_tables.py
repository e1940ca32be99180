"""The tables of Isik et al. 2020 as lists of points: how each number is made, and what the paper has.

Networks and trials are read here too: `paper.py` evaluates, `paper_figures.py` draws.
"""

from __future__ import annotations

import csv
import lzma
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.weights import find
from onnx_analog.run.data import Preprocessing

MNIST = Preprocessing(mean=(0.1307,), std=(0.3081,))
CIFAR10 = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
GRANULARITIES = {"model": "isik2020", "tensor": "default"}  # the paper's first; presets
LARGE_FACTOR = 20  # cells per large weight for each per small one: the paper does not state it
ROWS = {
    "raw": "PCM noise + inverse channel",
    "sign": "+ sign protection",
    "mapping": "+ adaptive mapping",
    "redundancy": "+ adaptive redundancy",
}
CLEAN = "no noise"
FIGURES = ("figure1", "figure2", "figure3", "figure4")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One number of a table: how it is made, and what the paper has.

    Attributes
    ----------
    row, column : str
    granularity : str
        "model" or "tensor"; "" where it makes no difference.
    network : str
    sparsity : float
        Pruned first, over all layers.
    options : mapping, or None
        Of `Scheme.paper`, or `gaussian`: the standard deviation of noise on the weights themselves. None for the
        network without noise.
    paper : float or None
        Accuracy in %.
    """

    row: str
    column: str
    granularity: str
    network: str
    sparsity: float = 0.0
    options: dict[str, Any] | None
    paper: float | None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells the entry from the others of its table."""
        return self.row, self.column, self.granularity

    @property
    def name(self) -> str:
        """The name of the point in a sweep."""
        return ", ".join(part for part in self.key if part)

    def scheme(self, model: ir.Model) -> Scheme:
        """Return how the weights of `model` are stored.

        Gaussian noise of the weights themselves: with an output range from the least weight to the largest, α is 1 and
        β is 0.
        """
        options = dict(self.options or {})
        std = options.pop("gaussian", None)
        if std is None:
            return Scheme.paper(**options)
        arrays = [weight.array() for weight in find(model).weights]
        low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
        channel = f"gaussian:sigma={std},low={low},high={high}"
        return Scheme.paper("raw", granularity="model", channel=channel)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the paper."""

    title: str
    preprocessing: Preprocessing
    entries: tuple[Entry, ...]


def entry(
    row: str,
    column: str,
    network: str,
    paper: float | None,
    options: dict[str, Any] | None = None,
    granularity: str = "",
    sparsity: float = 0.0,
) -> Entry:
    """Return an entry."""
    return Entry(
        row=row, column=column, granularity=granularity, network=network, sparsity=sparsity, options=options,
        paper=paper,
    )  # fmt: skip


def numbers(text: str) -> list[float | None]:
    """Return the numbers of a row; None for "-"."""
    return [None if part == "-" else float(part) for part in text.split()]


def by_cells(network: str, cells: list[int], clean: float, paper: dict[str, str], sparsity: float) -> list[Entry]:
    """Return strategies × cells, as in Tables 1 and 8."""
    entries = [entry(CLEAN, "", network, clean, sparsity=sparsity)]
    for granularity, preset in GRANULARITIES.items():
        for strategy, row in ROWS.items():
            for count, theirs in zip(cells, numbers(paper[strategy]), strict=True):
                large = (LARGE_FACTOR if strategy == "redundancy" else 1) * count
                options = {"strategy": strategy, "preset": preset, "cells_small": count, "cells_large": large}
                column = f"{count} cell{'s' * (count > 1)}"
                entries.append(entry(row, column, network, theirs, options, granularity, sparsity))
    return entries


def by_network(networks: dict[str, str], stds: dict[str, float], paper: dict[str, str]) -> list[Entry]:
    """Return kinds of noise × networks, as in Tables 2 and 9: 4 cells, or 3 and 20 (3 to 4 on average)."""
    entries = []
    for place, (column, network) in enumerate(networks.items()):
        theirs = {row: numbers(text)[place] for row, text in paper.items()}
        entries.append(entry(CLEAN, column, network, theirs[CLEAN]))
        entries += [entry(row, column, network, theirs[row], {"gaussian": std}) for row, std in stds.items()]
        for granularity, preset in GRANULARITIES.items():
            for strategy, row in ROWS.items():
                small, large = (3, 20) if strategy == "redundancy" else (4, 4)
                options = {"strategy": strategy, "preset": preset, "cells_small": small, "cells_large": large}
                entries.append(entry(row, column, network, theirs[strategy], options, granularity))
    return entries


def by_std(network: str, stds: list[float], clean: float, plain: str, protected: str) -> list[Entry]:
    """Return Gaussian noise of many sizes without and with protection, as in Table 7."""
    entries = [entry(CLEAN, "", network, clean)]
    for std, bare, kept in zip(stds, numbers(plain), numbers(protected), strict=True):
        column = f"std={std:g}"
        entries.append(entry("without protection", column, network, bare, {"gaussian": std}))
        for granularity, preset in GRANULARITIES.items():
            options = {
                "strategy": "redundancy", "preset": preset, "cells_large": LARGE_FACTOR,
                "channel": f"gaussian:sigma={std}",
            }  # fmt: skip
            entries.append(entry("with adaptive protection", column, network, kept, options, granularity))
    return entries


TABLES = {
    "table1": Table(
        title="Table 1: ResNet-18, 80 % pruned, CIFAR-10, PCM",
        preprocessing=CIFAR10,
        entries=tuple(
            by_cells(
                "resnet18-cifar10-pruned", [30, 20, 10, 5, 3, 2, 1], 93.65,
                {
                    "raw": "9.46 10.21 10.18 8.76 9.92 13.03 10.08",
                    "sign": "90.85 89.61 74.97 20.38 11.07 10.11 9.00",
                    "mapping": "93.12 92.98 92.41 91.68 91.44 91.42 84.85",
                    "redundancy": "93.45 92.98 92.96 93.65 93.05 93.32 93.11",
                },
                sparsity=0.0,  # it is pruned already
            )
        ),
    ),
    "table2": Table(
        title="Table 2: distillation, CIFAR-10",
        preprocessing=CIFAR10,
        entries=tuple(
            by_network(
                {
                    "Teacher": "resnet18-cifar10", "Student": "resnet20", "KD": "resnet20-kd",
                    "KD + noise": "resnet20-kd-gaussian",
                },
                {"+ noise": 0.01, "+ diff noise": 0.02},
                {
                    CLEAN: "95.7 92.5 92.9 93.0",
                    "+ noise": "85.4 88.1 89.2 90.3",
                    "+ diff noise": "10.5 51.0 68.4 76.5",
                    "raw": "9.9 9.4 9.8 10.3",
                    "sign": "40.5 11.0 10.6 15.6",
                    "mapping": "94.4 69.0 62.0 76.6",
                    "redundancy": "94.7 89.5 91.1 91.7",
                },
            )
        ),
    ),
    "table2-decay": Table(  # what a few epochs leave of the decay of the weights, made up for
        title="Table 2 again, for students that were trained with ten times the weight decay",
        preprocessing=CIFAR10,
        entries=tuple(
            by_network(
                {"Student": "resnet20-decay", "KD": "resnet20-kd-decay", "KD + noise": "resnet20-kd-gaussian-decay"},
                {"+ noise": 0.01, "+ diff noise": 0.02},
                {
                    CLEAN: "92.5 92.9 93.0",
                    "+ noise": "88.1 89.2 90.3",
                    "+ diff noise": "51.0 68.4 76.5",
                    "raw": "9.4 9.8 10.3",
                    "sign": "11.0 10.6 15.6",
                    "mapping": "69.0 62.0 76.6",
                    "redundancy": "89.5 91.1 91.7",
                },
            )
        ),
    ),
    "table7": Table(
        title="Table 7: ResNet-18, 80 % pruned, CIFAR-10, Gaussian noise",
        preprocessing=CIFAR10,
        entries=tuple(
            by_std(
                "resnet18-cifar10-pruned", [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1], 93.65,
                "93.65 92.97 91.42 10.27 - 10.22 -", "93.67 93.67 93.66 93.73 - 93.55 85.78",
            )
        ),
    ),
    "table8": Table(
        title="Table 8: LeNet, 80 % pruned, MNIST, PCM",
        preprocessing=MNIST,
        entries=tuple(
            by_cells(
                "lenet", [30, 20, 10, 5, 3], 98.7,
                {
                    "raw": "10.32 10.3 10.32 10.32 10.32",
                    "sign": "98.7 98.74 98.66 98.71 98.39",
                    "mapping": "98.75 98.77 98.72 98.81 98.65",
                    "redundancy": "98.75 98.74 98.79 98.73 98.66",
                },
                sparsity=0.8,
            )
        ),
    ),
    "table9": Table(
        title="Table 9: distillation, MNIST",
        preprocessing=MNIST,
        entries=tuple(
            by_network(
                {
                    "Teacher": "lenet", "Student": "mlp", "KD": "mlp-kd", "KD + Gaussian noise": "mlp-kd-gaussian",
                    "KD + channel noise": "mlp-kd-channel",
                },
                {"+ noise": 0.1, "+ diff noise": 0.2},
                {
                    CLEAN: "99.2 97.5 97.8 96.3 97.7",
                    "+ noise": "73.9 80.0 86.0 94.4 75.9",
                    "+ diff noise": "21.0 33.5 27.2 80.7 33.8",
                    "raw": "11.6 8.3 10.1 9.8 9.8",
                    "sign": "99.0 95.9 93.6 95.9 96.8",
                    "mapping": "99.2 96.6 96.0 96.1 97.4",
                    "redundancy": "99.2 97.3 97.7 96.3 97.6",
                },
            )
        ),
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------ files


@contextmanager
def network_of(folder: Path, name: str) -> Iterator[Path]:
    """Yield the path of a model of the folder; while it lasts, unpacked if it is packed."""
    packed = folder / f"{name}.onnx.xz"
    if not packed.exists():
        yield folder / f"{name}.onnx"
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{name}.onnx"
        path.write_bytes(lzma.decompress(packed.read_bytes()))
        yield path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the lines of a table's CSV; none if there is none yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def values_of(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], list[float]]:
    """Return accuracies in % by (row, column, granularity)."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["row"], row["column"], row["granularity"]), []).append(100 * float(row["value"]))
    return found
