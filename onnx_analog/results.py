"""The results of the library's functions. A result that holds a model can be used wherever a model can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_analog.arguments import DEFAULTS, checked
from onnx_analog.display import Shown, counted, data_frame, percent
from onnx_analog.display import html_table as html_table
from onnx_analog.errors import OptionError
from onnx_analog.graph.correction import corrected_in_words
from onnx_analog.graph.model import Model as Model
from onnx_analog.graph.model import Paths as Paths

if TYPE_CHECKING:
    from onnx_analog.graph.array_read import ArrayRead
    from onnx_analog.graph.correction import Cost
    from onnx_analog.graph.normalisation import Normalisation
    from onnx_analog.graph.protected import ProtectedModel
    from onnx_analog.study.grid import GridPoint
    from onnx_analog.study.rivals import Float16
    from onnx_analog.study.sweeps import Point
    from onnx_analog.within import Within


@dataclass(frozen=True, repr=False)
class Pruned(Model):
    """A model whose smallest weights are zero."""

    zeros: int
    weights: int

    def __str__(self) -> str:
        return f"{self.zeros:,} of {self.weights:,} weights are zero ({percent(self.zeros / self.weights, 1)})"


@dataclass(frozen=True, repr=False)
class Perturbed(Model):
    """A model whose levels were read from noisy cells."""

    seed: int
    trial: int
    decoded: bool
    correction: Cost | None = None  # what its correction after the read costs
    array: ArrayRead | None = None  # what an array outside this program returned, if the levels are its
    corrected_by: str | None = None  # what corrected it after the read, in words

    def __str__(self) -> str:
        kind, corrected = "plain weights" if self.decoded else "protected model", self.corrected
        if self.array is not None:
            return f"{kind} as an array returned {'them' if self.decoded else 'it'}: {self.array}{corrected}"
        return f"{kind} as read from noisy cells: seed {self.seed}, trial {self.trial}{corrected}"

    def correction_dict(self) -> dict[str, Any] | None:
        """Return what corrected it, and what that costs, ready for JSON; None without a correction."""
        return None if self.correction is None else {"by": self.corrected_by, **self.correction.to_dict()}

    @property
    def corrected(self) -> str:
        """Say what corrected it, after a semicolon, and how many numbers are kept; empty without a correction."""
        if self.correction is None:
            return ""
        kept = f"{counted(self.correction.numbers, 'number')} kept"
        return f"; corrected: {corrected_in_words(self.corrected_by, self.correction)}; {kept}"


@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """The tensors of a model that would be stored, and the others with reasons."""

    opset: int | None
    ir_version: int
    protected: bool
    read_back: str | None
    batch_norms: int
    convolutions: int
    refused: str | None  # the reason for which `protect` would refuse the model
    rows: tuple[dict[str, Any], ...]
    normalisation: Normalisation | None = None  # of images, as the model remembers

    @property
    def batch_norm(self) -> str:
        """Whether BatchNorm is folded into the convolutions, and the consequence."""
        if self.batch_norms:
            nodes = counted(self.batch_norms, "node")
            return f"separate ({nodes}): its scales stay digital, so tensors have similar magnitudes"
        if not self.convolutions:
            return "none, and no convolution that it could be folded into"
        return (
            "none in the graph; it may have been folded into the convolutions, so granularity tensor (the default) or "
            "channel fits"
        )

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
            "normalisation": None if self.normalisation is None else self.normalisation._asdict(),
            "stored": self.stored,
            "skipped": self.skipped,
        }

    def to_dataframe(self) -> Any:
        """Return the tensors as a pandas DataFrame, one row each."""
        return data_frame(self.rows)

    def __str__(self) -> str:
        weights = sum(row["weights"] for row in self.stored)
        tensors = counted(len(self.stored), "tensor")
        state = "stored" if self.protected else "to be stored"
        refused = "" if self.refused is None else f"; protect refuses the model: {self.refused}"
        return f"{counted(weights, 'weight')} in {tensors} {state}, {len(self.skipped):,} stay digital{refused}"

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
    """The points of a sweep, in order, and the folder that holds every trial.

    `float16` has each model in float16, without noise, if rivals are compared; `max_drop` is the limit of the loss that
    the sweep was asked about, and `counting` the cells by which points are compared. `warnings` are what was logged.
    """

    points: tuple[Point, ...]
    folder: Path | None = None
    float16: tuple[Float16, ...] = ()
    max_drop: float | None = None
    counting: str = DEFAULTS.counting
    warnings: tuple[str, ...] = field(default=(), compare=False)
    protecting: Callable[[GridPoint], ProtectedModel] | None = field(default=None, repr=False, compare=False)

    def protected(self, point: Point) -> ProtectedModel:
        """Return the model that the trials of one of the points read.

        Raises
        ------
        OptionError
            If it is another sweep's point.
        """
        if point not in self.points:
            raise OptionError("point is not one of this sweep")
        if self.protecting is None:
            raise OptionError("this copy of the sweep has no models: ask the sweep that was returned")
        return self.protecting(point.setting)

    def within(self, max_drop: float | None = None, *, counting: str | None = None) -> tuple[Within, ...]:
        """Return, for each model and channel, the cheapest point that loses no more than a limit.

        A point counts if the upper end of the 95 % interval of its loss does not exceed the limit. `holds` of an answer
        is False if every point loses more, and None if the trials do not tell.

        Parameters
        ----------
        max_drop : float, > 0, optional
            In percentage points if the metric is a share, else in its unit; the default is that of the sweep. Without
            either, there are no answers.
        counting : {"memory", "paper"}, optional
            Cells by which points are compared; the default is that of the sweep.

        Raises
        ------
        OptionError
            If an argument is out of its range, or the metric has no loss.
        """
        from onnx_analog.within import within

        limit = checked(max_drop=self.max_drop if max_drop is None else max_drop)["max_drop"]
        cells = checked(counting=self.counting if counting is None else counting)["counting"]
        return () if limit is None else within(self.points, limit, cells)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: all but the models, which are made by what has the data and sessions."""
        return {**vars(self), "protecting": None}

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def to_dict(self) -> dict[str, Any]:
        """Return the points with their trials, ready for JSON."""
        rivals = {"float16": [each.to_dict() for each in self.float16]} if self.float16 else {}
        within = {"within": [each.to_dict() for each in self.within()]} if self.max_drop is not None else {}
        return {
            "points": [point.to_dict() for point in self.points],
            **rivals,
            **within,
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> Any:
        """Return the points as a pandas DataFrame, one row each: settings, mean, interval and cost.

        `trials_dataframe` has the trials.
        """
        return data_frame(point.row() for point in self.points)

    def trials_dataframe(self) -> Any:
        """Return the trials as a pandas DataFrame, one row each: settings, number, value and SQNR of the trial, cost.

        Columns are those of `trials.csv`, but for those with the same value in all rows, such as versions and digests;
        rows are those of the trials that the points count. A trial that was corrected has its value without the
        correction too.

        Examples
        --------
        >>> import onnx_analog as oa
        >>> swept = oa.sweep("model.onnx", "test.npz", cells=[1, 3], trials=25)  # doctest: +SKIP
        >>> trials = swept.trials_dataframe()  # doctest: +SKIP
        >>> trials.groupby(["strategy", "cells"])["value"].quantile([0.05, 0.5])  # doctest: +SKIP
        """
        return data_frame(row for point in self.points for row in point.trial_rows())

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.points, *self.within())))

    def __repr__(self) -> str:
        where = "" if self.folder is None else f" in {str(self.folder)!r}"
        return f"<Swept: {counted(len(self.points), 'point')}{where}>"

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
            "as the memory allows",
            "decoding",
        )
        return html_table("Sweep", head, map(_html_row, self.points))


def _html_row(point: Point) -> Sequence[object]:
    from onnx_analog.run.statistics import between

    ends = "" if point.ci95 is None else between(point.evaluation.values, point.ci95, share=point.evaluation.share)
    numbers = (point.evaluation.mean, point.evaluation.original, point.evaluation.stored)
    mean, original, stored = ("" if value is None else point.evaluation.shown(value) for value in numbers)
    channel, stored_as = point.setting.channels_text, point.setting.stored_as
    return point.model, channel, stored_as, mean, ends, original, stored, *_costs(point)


def _costs(point: Point) -> Sequence[str]:
    paper, honest = f"{point.cost:.3f}", point.honest_cost
    return (paper, "-", "-") if honest is None else (paper, f"{honest:.3f}", point.decoding)
