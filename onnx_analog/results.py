"""Results: what the functions of the library return. A result that has a model can be used wherever a model can."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import STRATEGIES
from onnx_analog.disk import writing
from onnx_analog.display import Shown, data_frame
from onnx_analog.display import html_table as html_table
from onnx_analog.graph import files
from onnx_analog.graph.manifest import Manifest
from onnx_analog.graph.protected import ProtectedModel, opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnx_analog.study.sweeps import Point

Paths = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class Model(Shown):
    """A model, as a pass returned it."""

    model: ir.Model

    def save(self, path: Paths, *, force: bool = False) -> None:
        """Write the model to a file, whole or not at all.

        Parameters
        ----------
        path : path
            Not the file that the model was read from.
        force : bool
            Replace a file that is there.

        Raises
        ------
        OutputError
            If a file is there and `force` is not given, the model was read from it, or it cannot be written.
        """
        target = Path(path)
        read, perhaps = files.source_files(self.model), [writing.data_beside(target)]
        writing.check_outputs([target], read, force=force, perhaps=perhaps)
        writing.write_all({target: self.writer()}, force=force)

    def writer(self) -> writing.Writer:
        """Return the function that writes the model to a path."""
        return lambda path: files.write_model(self.model, path)

    def to_proto(self) -> onnx.ModelProto:
        """Return the model as an `onnx.ModelProto`."""
        return files.to_proto(self.model)

    def __str__(self) -> str:
        return f"model {self.model.graph.name or 'without a name'}"


@dataclass(frozen=True, repr=False)
class Pruned(Model):
    """A model whose smallest weights are zero."""

    zeros: int
    weights: int

    def __str__(self) -> str:
        return f"{self.zeros:,} of {self.weights:,} weights are zero ({self.zeros / self.weights:.1%})"


@dataclass(frozen=True, repr=False)
class Protected(Model):
    """A protected model and its manifest: which cell holds what, and what the cells cost."""

    manifest: Manifest

    @cached_property
    def opened(self) -> ProtectedModel:
        """The model's tensors, schemes and plan, scanned and checked once."""
        return opened(self.model)

    @property
    def plan(self) -> Plan:
        """How each tensor is stored."""
        return self.manifest.plan

    def read(self, *, seed: int = 0, trial: int = 0) -> dict[str, NDArray[np.generic]]:
        """Return the weights, by storage key, as one programming and one read of the array give them.

        They are the weights that `evaluate` uses in that trial.
        """
        from onnx_analog.arguments import checked

        return self.opened.read(**checked(seed=seed, trial=trial))

    def decode(self) -> dict[str, NDArray[np.generic]]:
        """Return the weights, by storage key, that the stored levels stand for, without noise."""
        return self.opened.decode()

    def __str__(self) -> str:
        return str(self.manifest)

    def _lines(self) -> Iterator[Sequence[object]]:
        totals = self.manifest.totals
        ratios = totals.ratios()
        yield "stored weights", f"{totals.stored_weights:,} of {totals.original_weights:,}"
        yield "analog cells", f"{totals.analog_cells:,} ({ratios['r_avg']:.3f} per stored weight)"
        yield "side information, cells", f"{totals.side_cells:,}"
        yield "mask, cells", f"{totals.mask_cells:,}"
        yield "codebook, cells", f"{totals.codebook_cells:,}"
        per_weight = ratios["all_in_cells_per_original_weight"]
        yield "all-in, cells", f"{totals.all_in_cells:,} ({per_weight:.3f} per original weight)"
        yield "tensors", f"{len(self.manifest.tensors):,}"
        for scheme in self.manifest.schemes:
            yield "scheme", scheme


@dataclass(frozen=True, repr=False)
class Perturbed(Model):
    """A model whose levels were read from noisy cells."""

    seed: int
    trial: int
    decoded: bool

    def __str__(self) -> str:
        kind = "plain weights" if self.decoded else "levels"
        return f"{kind} as read from noisy cells: seed {self.seed}, trial {self.trial}"


@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """Which tensors of a model would be stored, and why the others would not."""

    opset: int | None
    ir_version: int
    protected: bool
    read_back: str | None
    batch_norms: int
    convolutions: int
    refused: str | None  # why `protect` would not take it as it is
    rows: tuple[dict[str, Any], ...]

    @property
    def batch_norm(self) -> str:
        """Whether BatchNorm is folded into the convolutions, and what follows from that."""
        if self.batch_norms:
            nodes = f"{self.batch_norms} node{'s' * (self.batch_norms > 1)}"
            return f"apart ({nodes}): its scales stay digital, so tensors have similar magnitudes"
        if not self.convolutions:
            return "none, and no convolution that it could be folded into"
        return "none in the graph; it may have been folded into the convolutions, so keep granularity tensor or channel"

    @property
    def subnormal(self) -> int:
        """Number of weights to be stored that are subnormal float32 numbers, which most processors compute slowly."""
        return sum(row["subnormal"] for row in self.rows)

    @property
    def stored(self) -> list[dict[str, Any]]:
        """The tensors that would be stored."""
        return [row for row in self.rows if row["reason"] is None]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """The tensors that would stay digital, each with a reason."""
        return [row for row in self.rows if row["reason"] is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return the inspection, ready for JSON."""
        return {
            "opset": self.opset,
            "ir_version": self.ir_version,
            "protected": self.protected,
            "read_back": self.read_back,
            "refused": self.refused,
            "batch_norm": {"nodes": self.batch_norms, "convolutions": self.convolutions, "text": self.batch_norm},
            "subnormal": self.subnormal,
            "stored": self.stored,
            "skipped": self.skipped,
        }

    def to_dataframe(self) -> Any:
        """Return the tensors as a pandas DataFrame, one row each."""
        return data_frame(self.rows)

    def __str__(self) -> str:
        weights = sum(row["weights"] for row in self.stored)
        tensors = f"{len(self.stored):,} tensor{'s' * (len(self.stored) != 1)}"
        state = "stored" if self.protected else "to be stored"
        refused = "" if self.refused is None else f"; protect refuses the model: {self.refused}"
        return f"{weights:,} weights in {tensors} {state}, {len(self.skipped):,} stay digital{refused}"

    def _repr_html_(self) -> str:
        rows = (
            (
                row["key"],
                "×".join(map(str, row["shape"])),
                row["dtype"],
                f"{row['weights']:,}",
                row["reason"] or "stored",
            )
            for row in self.rows
        )
        return html_table("Inspection", ("tensor", "shape", "type", "weights", ""), rows)


@dataclass(frozen=True, kw_only=True, repr=False)
class Swept(Shown):
    """The points of a sweep, in order, and the folder that holds every trial."""

    points: tuple[Point, ...]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def to_dict(self) -> dict[str, Any]:
        """Return the points with their trials, ready for JSON."""
        return {"points": [point.to_dict() for point in self.points]}

    def to_dataframe(self) -> Any:
        """Return the points as a pandas DataFrame, one row each: settings, mean, interval and cost.

        Every trial is in `trials.csv` of the folder.
        """
        return data_frame(point.row() for point in self.points)

    def __str__(self) -> str:
        return "\n".join(f"{described(point)}: {point.evaluation.told(point.ci95)}" for point in self.points)

    def __repr__(self) -> str:
        where = "" if self.folder is None else f" in {str(self.folder)!r}"
        return f"<Swept: {len(self.points):,} point{'s' * (len(self.points) != 1)}{where}>"

    def _repr_html_(self) -> str:
        head = (
            "model",
            "channel",
            "stored as",
            "mean",
            "95 % interval",
            "original",
            "stored",
            "all-in cells per weight",
        )
        return html_table("Sweep", head, map(_html_row, self.points))


def described(point: Point) -> str:
    """Return a point in words: its model, channel, granularity, classes, strategy or plan, cells and cost."""
    setting = point.setting
    where = f"{point.model}, {setting.channel}, {setting.preset.granularity}, {setting.preset.large_fraction:.2%} large"
    varied = "".join(f", {name} {value_text(value)}" for name, value in setting.changes.items())
    what = f"{point.strategy} at {point.cells} cells" if point.strategy in STRATEGIES else f"plan {point.strategy}"
    return f"{where}{varied}, {what} ({point.cost:.2f} all-in for each weight)"


def value_text(value: object) -> str:
    """Return the value of a setting as a user writes it."""
    if isinstance(value, list | tuple):
        return "/".join(map(value_text, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _html_row(point: Point) -> Sequence[object]:
    found, setting = point.evaluation, point.setting
    ends = "" if point.ci95 is None else f"{point.ci95[0]:.4f} to {point.ci95[1]:.4f}"
    numbers = ("" if value is None else f"{value:.4f}" for value in (found.mean, found.original, found.stored))
    mean, original, stored = numbers
    varied = "".join(f", {name} {value_text(value)}" for name, value in setting.changes.items())
    how = f"{point.strategy}, {point.cells} cells{varied}" if point.strategy in STRATEGIES else f"plan {point.strategy}"
    return point.model, setting.channel, how, mean, ends, original, stored, f"{point.cost:.3f}"
