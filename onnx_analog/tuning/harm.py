"""What noise in each part of a memory does to a network: results, tables and files.

`onnx_analog.tuning.gauge` measures it. Shares are those of divergences: losses are small differences of large numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import Shown, counted, data_frame, finite, percent, percent_number
from onnx_analog.errors import OptionError
from onnx_analog.graph.correction import Cost, HasCorrection
from onnx_analog.graph.explorer import Users
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.spent import STREAMS
from onnx_analog.run.parts import Part
from onnx_analog.run.statistics import interval
from onnx_analog.tuning.scale import DECIBELS, Scale, scale_of

_GRADIENT = ((0, "#ffffff"), (1, "#d55e00"))
_COLUMNS = ("ci95_low", "ci95_high", "divergence", "share")
INTERVAL = "95 % interval"
WITHOUT = "· without correction"  # the name of a row below that of a part


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What some noise does.

    Attributes
    ----------
    losses : tuple of float
        Of each trial: shares, or the noise in the outputs over their power.
    divergences : tuple of float
        Of each trial: from the outputs as written.
    uncorrected : Outcome or None
        Without the correction, of the same reads; None if nothing was corrected.
    """

    losses: tuple[float, ...]
    divergences: tuple[float, ...]
    uncorrected: Outcome | None = None

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(np.mean(self.losses))

    @property
    def divergence(self) -> float:
        """The mean divergence."""
        return float(np.mean(self.divergences))


@dataclass(frozen=True, kw_only=True)
class Harm(Outcome):
    """What noise in one part does.

    Attributes
    ----------
    part : Part
    all_but : Outcome or None
        What noise in all other cells does; None if that was not measured.
    """

    part: Part
    all_but: Outcome | None = None

    @property
    def without_correction(self) -> Harm | None:
        """The same without the correction; None if nothing was corrected."""
        without, rest = self.uncorrected, self.all_but
        if without is None:
            return None
        return Harm(
            part=self.part,
            losses=without.losses,
            divergences=without.divergences,
            all_but=None if rest is None else rest.uncorrected,
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class Harms(HasCorrection, Shown):
    """What noise in each part of a memory does to a network.

    Attributes
    ----------
    whole : Harm
        If all is read with noise.
    parts : tuple of Harm
        Kind by kind: of each, that with the largest divergence first.
    metric : str
    stored : float or None
        The metric of the model as it was written; None where outputs are compared with its own.
    samples, trials, seed : int
    alike : bool
        Whether all trials read the same.
    channel : str
    users : Users
        The nodes that take weights, by their ids in Model Explorer.
    storing : float or None
        What storing alone loses, relative to the original; None if that is not known.
    model : str or None
    preprocessing : str
    corrected_by : str or None
        What the reads were corrected with, in words; None without a correction.
    correction : Cost or None
        What the correction costs.
    protected : ProtectedModel or None
        The model as it was stored and is read.
    warnings : tuple of str
        What was logged while it was made, and is to be known of it.
    """

    whole: Harm
    parts: tuple[Harm, ...]
    metric: str
    stored: float | None
    samples: int
    trials: int
    seed: int
    alike: bool
    channel: str
    users: Users
    storing: float | None = None
    model: str | None = None
    preprocessing: str = ""
    corrected_by: str | None = None
    correction: Cost | None = None
    protected: ProtectedModel | None = field(default=None, repr=False, compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def scale(self) -> Scale:
        """How losses are shown."""
        return scale_of(self.metric)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of parts that there are, of `onnx_analog.arguments.PART_KINDS`."""
        return tuple(dict.fromkeys(harm.part.kind for harm in self.parts))

    def of(self, kind: str) -> tuple[Harm, ...]:
        """Return the parts of a kind: "tensor", "class", "stream", "tensor-class" or "tensor-stream"."""
        return tuple(harm for harm in self.parts if harm.part.kind == kind)

    @cached_property
    def uncorrected(self) -> Harms | None:
        """The same reads without the correction, in the same order; None if there is none."""
        whole = self.whole.without_correction
        if whole is None:
            return None
        parts = tuple(without for harm in self.parts if (without := harm.without_correction))
        return replace(self, whole=whole, parts=parts, corrected_by=None, correction=None)

    def worst(self, most: int) -> list[Harm]:
        """Return the parts with the largest divergences, kind by kind and each from the worst on.

        Parts of single tensors are not among them; see `grid`.
        """
        bars = [harm for harm in self.parts if "-" not in harm.part.kind]
        kept = {id(harm) for harm in sorted(bars, key=lambda harm: -harm.divergence)[:most]}
        return [harm for harm in bars if id(harm) in kept]

    def grid(self, kind: str, most: int) -> Grid:
        """Return the shares of a kind of parts of single tensors, of at most so many tensors: those of the worst."""
        found = {(harm.part.tensor, harm.part.name): harm for harm in self.of(kind)}
        tensors = tuple(dict.fromkeys(key for key, _ in found))[:most]
        names = tuple(dict.fromkeys(harm.part.name for harm in sorted(found.values(), key=_place)))
        shares = np.full((len(tensors), len(names)), np.nan)
        for (key, name), harm in found.items():
            if key in tensors:
                shares[tensors.index(key), names.index(name)] = self.share(harm) or 0.0
        return Grid(tensors, names, shares)

    # ------------------------------------------------------------------------------------------------ tables

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of the cells that `texts` returns."""
        rest = ("all but it", "all but it, %") if self._has_rest else ()
        return ("weights", "cells", self.scale.heading, INTERVAL, "divergence", "share, %", *rest)

    @property
    def _has_rest(self) -> bool:
        return any(harm.all_but is not None for harm in self.parts)

    def table(self, kind: str) -> Iterator[tuple[str, ...]]:
        """Yield the rows of the table of a kind: name and `texts` of each part, and of all cells at the end.

        Below each are those without the correction, if there is one; above the last, sums and the cells of no part.
        """
        parts = self.of(kind)
        for harm in parts:
            yield from self._with_uncorrected(harm)
        cells = None if self.whole.part.cells is None else sum(harm.part.cells or 0 for harm in parts)
        if len(parts) > 1:
            total = sum(self.share(harm) or 0.0 for harm in parts)
            yield self._row("sum", {1: _count(cells), 5: f"{100 * total:.1f}"})
        if cells is not None and self.whole.part.cells != cells:
            yield self._row("in none of these", {1: _count((self.whole.part.cells or 0) - cells)})
        yield from self._with_uncorrected(self.whole)

    def _with_uncorrected(self, harm: Harm) -> Iterator[tuple[str, ...]]:
        yield (harm.part.label, *self.texts(harm))
        without = harm.without_correction
        if without is not None and self.uncorrected is not None:
            yield (WITHOUT, "", "", *self.uncorrected.texts(without)[2:])

    def _row(self, name: str, cells: Mapping[int, str]) -> tuple[str, ...]:
        return (name, *(cells.get(number, "") for number in range(len(self.headings))))

    def texts(self, harm: Harm) -> tuple[str, ...]:
        """Return the cells of a row: weights, cells, loss, its interval, divergence, and share in %.

        If the rest of some parts was measured, also the loss of all but the part, and the share of its divergence.
        """
        rest = harm.all_but
        of_rest = ("", "") if rest is None else (self.scale.text(rest.loss), _percent(self.share(rest)))
        return (
            f"{harm.part.weights:,}",
            _count(harm.part.cells),
            self.scale.text(harm.loss),
            self.interval_text(harm),
            f"{harm.divergence:.2g}",
            _percent(self.share(harm)),
            *(of_rest if self._has_rest else ()),
        )

    def interval_text(self, harm: Outcome) -> str:
        """Return the 95 % interval of a loss as it is printed; empty if there is none."""
        ends = self.ends(harm)
        return "" if ends is None else f"{self.scale.rounded(ends[0])} to {self.scale.rounded(ends[1])}"

    def share(self, harm: Outcome) -> float | None:
        """Return the divergence of a part over that of the whole memory; None if that is 0."""
        return finite(harm.divergence / self.whole.divergence) if self.whole.divergence else None

    def ends(self, harm: Outcome) -> tuple[float, float] | None:
        """Return the 95 % interval of a loss over trials, in the unit that is shown; None if trials are alike."""
        ends = interval(harm.losses, bounds=(0.0, np.inf) if self.scale is DECIBELS else (-1.0, 1.0))
        if ends is None or not np.isfinite(ends).all():
            return None
        if self.scale is DECIBELS and not ends[0] > 0:  # no noise at all would be infinitely many decibels
            return None
        low, high = self.scale.ends(*ends)
        return self.scale.value(low), self.scale.value(high)

    # ------------------------------------------------------------------------------------------------ files

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each part, and one for the whole memory, as CSV and data frames have them."""
        without = self.uncorrected
        for harm in (self.whole, *self.parts):
            row = {**harm.part._asdict(), **self._numbers(harm)}
            if without is not None:
                row |= _named("uncorrected", without._numbers(harm.without_correction))
            if self._has_rest:
                row |= _named("all_but", self._numbers(harm.all_but))
            if self._has_rest and without is not None:
                rest = None if harm.all_but is None else harm.all_but.uncorrected
                row |= _named("all_but_uncorrected", without._numbers(rest))
            yield row

    def _numbers(self, harm: Outcome | None) -> dict[str, float | None]:
        """Return what is known of some noise, by column; None of what was not measured."""
        columns = ("sqnr_db" if self.scale is DECIBELS else "points_lost", *_COLUMNS)
        if harm is None:
            return dict.fromkeys(columns)
        ends = self.ends(harm) or (None, None)
        numbers = (self.scale.number(harm.loss), *ends, finite(harm.divergence), self.share(harm))
        return dict(zip(columns, numbers, strict=True))

    def csv(self) -> str:
        """Return the rows as CSV."""
        rows, text = list(self.rows()), io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def overlay(self) -> dict[str, Any]:
        """Return node data for Model Explorer: the share of each tensor at the nodes that take it, in %.

        Of several tensors of a node, the shares are added. Keys are the ids that its ONNX adapter gives the main graph
        and its nodes.

        Raises
        ------
        OptionError
            If no tensors were read with noise alone.
        """
        check_overlay(self.kinds)
        results: dict[str, dict[str, float]] = {}
        for harm in self.of("tensor"):
            for node in self.users.of.get(harm.part.name, ()):
                before = results.get(node, {"value": 0.0})["value"]
                results[node] = {"value": before + 100 * (self.share(harm) or 0.0)}
        gradient = [{"stop": stop, "bgColor": colour} for stop, colour in _GRADIENT]
        return {self.users.graph: {"results": results, "gradient": gradient}}

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame."""
        return data_frame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        name = "sqnr_db" if self.scale is DECIBELS else "points_lost"
        return {
            "metric": self.metric,
            "stored": self.stored,
            "storing": None if self.storing is None else {name: self.scale.number(self.storing)},
            "samples": self.samples,
            "trials": self.trials,
            "trials_alike": self.alike,
            "seed": self.seed,
            "channel": self.channel,
            "model": self.model,
            "preprocessing": self.preprocessing,
            "correction": None if self.correction is None else {"by": self.corrected_by, **self.correction.to_dict()},
            "version": version("onnx-analog"),
            "warnings": list(self.warnings),
            "parts": list(self.rows()),
        }

    def __str__(self) -> str:
        """Return the worst part of the first kind, in one line."""
        kind = self.kinds[0]
        worst = self.of(kind)[0]
        share = self.share(worst)
        of_all = "" if share is None else f", {percent(share)} of the divergence"
        after = "" if self.corrected_by is None else " after the correction"
        return (
            f"{self.scale.lost(self.whole.loss)} if all cells are noisy{after}; the worst "
            f"{kind.rpartition('-')[2]} is {worst.part.label!r}{of_all} ({counted(self.trials, 'trial')}, "
            f"{counted(self.samples, 'sample')})"
        )


class Grid(NamedTuple):
    """Shares of parts of single tensors.

    Attributes
    ----------
    tensors, names : tuple of str
        Storage keys, and classes or streams.
    shares : float array (tensors, names)
        NaN where a tensor has no such part.
    """

    tensors: tuple[str, ...]
    names: tuple[str, ...]
    shares: NDArray[np.float64]


def _place(harm: Harm) -> tuple[int, int]:
    """Return what sorts classes by number and streams as they are declared."""
    number = harm.part.class_number
    return (0, number) if number is not None else (1, STREAMS.index(harm.part.name))


def _count(cells: int | None) -> str:
    return "" if cells is None else f"{cells:,}"


def _percent(share: float | None) -> str:
    return "" if share is None else percent_number(share)


def _named(before: str, numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    return {f"{before}_{name}": number for name, number in numbers.items()}


def check_overlay(kinds: Sequence[str]) -> None:
    """Raise `OptionError` unless tensors are among the kinds of parts, of which an overlay tells."""
    if "tensor" not in kinds:
        raise OptionError(f"an overlay shows shares of tensors, and by is {','.join(kinds)}: add tensor to it")
