"""What noise in each part of a memory does to a network: where it hurts.

In each trial, one part is read with noise, and all else as it was written. The loss is the share of samples that were
right as written, minus those that are right as read (or, for outputs without classes, the power of the difference over
that of the outputs). It is a small difference of large numbers, so the divergence of the outputs is shown too, and
shares are those of divergences: they tell parts apart that lose no sample.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import Progress, Shown, counted, data_frame, finite
from onnx_analog.errors import DataError
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.run import metrics
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.parts import Part, Parts
from onnx_analog.run.statistics import interval
from onnx_analog.tuning.drops import is_noise, noise, right
from onnx_analog.tuning.scale import DECIBELS, Scale, scale_of
from onnx_analog.tuning.sensitivity import divergence

_GRADIENT = ((0, "#ffffff"), (1, "#d55e00"))


@dataclass(frozen=True, kw_only=True)
class Harm:
    """What noise in one part does.

    Attributes
    ----------
    part : Part
    losses : tuple of float
        Of each trial: shares, or the noise in the outputs over their power.
    divergences : tuple of float
        Of each trial: from the outputs as written.
    """

    part: Part
    losses: tuple[float, ...]
    divergences: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(np.mean(self.losses))

    @property
    def divergence(self) -> float:
        """The mean divergence."""
        return float(np.mean(self.divergences))


@dataclass(frozen=True, kw_only=True, repr=False)
class Harms(Shown):
    """What noise in each part of a memory does to a network.

    Attributes
    ----------
    whole : Harm
        If all is read with noise.
    parts : tuple of Harm
        Tensors, classes and streams: of each kind, that with the largest divergence first.
    metric : str
    stored : float or None
        The metric of the model as it was written; None where outputs are compared with its own.
    samples, trials, seed : int
    alike : bool
        Whether all trials read the same.
    channel : str
    users : mapping of str to sequence of str
        Names of the nodes that take a weight, by its storage key.
    model : str or None
    preprocessing : str
    protected : ProtectedModel or None
        The model as it was stored and is read.
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
    users: Mapping[str, Sequence[str]]
    model: str | None = None
    preprocessing: str = ""
    protected: ProtectedModel | None = field(default=None, repr=False, compare=False)

    @property
    def scale(self) -> Scale:
        """How losses are shown."""
        return scale_of(self.metric)

    def of(self, kind: str) -> tuple[Harm, ...]:
        """Return the parts of a kind: "tensor", "class" or "stream"."""
        return tuple(harm for harm in self.parts if harm.part.kind == kind)

    def worst(self, most: int) -> list[Harm]:
        """Return the parts with the largest divergences: tensors, classes and streams, each from the worst on."""
        kept = {id(harm) for harm in sorted(self.parts, key=lambda harm: -harm.divergence)[:most]}
        return [harm for harm in self.parts if id(harm) in kept]

    def interval_text(self, harm: Harm) -> str:
        """Return the 95 % interval of a loss as it is printed; empty if there is none."""
        ends = self.ends(harm)
        return "" if ends is None else f"{self.scale.rounded(ends[0])} to {self.scale.rounded(ends[1])}"

    def texts(self, harm: Harm) -> tuple[str, ...]:
        """Return the cells of a row: weights, cells, loss, its interval, divergence, and share in %."""
        share, cells = self.share(harm), harm.part.cells
        return (
            f"{harm.part.weights:,}",
            "" if cells is None else f"{cells:,}",
            self.scale.text(harm.loss),
            self.interval_text(harm),
            f"{harm.divergence:.2g}",
            "" if share is None else f"{100 * share:.1f}",
        )

    def share(self, harm: Harm) -> float | None:
        """Return the divergence of a part over that of the whole memory; None if that is 0."""
        return finite(harm.divergence / self.whole.divergence) if self.whole.divergence else None

    def ends(self, harm: Harm) -> tuple[float, float] | None:
        """Return the 95 % interval of a loss over trials, in the unit that is shown; None if trials are alike."""
        ends = interval(harm.losses, bounds=(0.0, np.inf) if self.scale is DECIBELS else (-1.0, 1.0))
        if ends is None or not np.isfinite(ends).all():
            return None
        if self.scale is DECIBELS and not ends[0] > 0:  # no noise at all would be infinitely many decibels
            return None
        low, high = self.scale.ends(*ends)
        return self.scale.value(low), self.scale.value(high)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each part, and one for the whole memory, as CSV and data frames have them."""
        name = "sqnr_db" if self.scale is DECIBELS else "points_lost"
        for harm in (self.whole, *self.parts):
            low, high = self.ends(harm) or (None, None)
            yield {
                **harm.part._asdict(),
                name: self.scale.number(harm.loss),
                "ci95_low": low,
                "ci95_high": high,
                "divergence": finite(harm.divergence),
                "share": self.share(harm),
            }

    def csv(self) -> str:
        """Return the rows as CSV."""
        rows, text = list(self.rows()), io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def overlay(self) -> dict[str, Any]:
        """Return node data for Model Explorer: the share of each tensor at the nodes that take it, in %.

        Nodes without a name are called by their first outputs. Of several tensors of a node, the shares are added.
        """
        results: dict[str, dict[str, float]] = {}
        for harm in self.of("tensor"):
            for node in self.users.get(harm.part.name, ()):
                before = results.get(node, {"value": 0.0})["value"]
                results[node] = {"value": before + 100 * (self.share(harm) or 0.0)}
        return {"results": results, "gradient": [{"stop": stop, "bgColor": colour} for stop, colour in _GRADIENT]}

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame."""
        return data_frame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return {
            "metric": self.metric,
            "stored": self.stored,
            "samples": self.samples,
            "trials": self.trials,
            "trials_alike": self.alike,
            "seed": self.seed,
            "channel": self.channel,
            "model": self.model,
            "preprocessing": self.preprocessing,
            "version": version("onnx-analog"),
            "parts": list(self.rows()),
        }

    def __str__(self) -> str:
        """Return the worst tensor, in one line."""
        worst = self.of("tensor")[0]
        share = self.share(worst)
        of_all = "" if share is None else f", {100 * share:.0f} % of the divergence"
        return (
            f"{self.scale.lost(self.whole.loss)} if all cells are noisy; the worst tensor is {worst.part.name!r}"
            f"{of_all} ({counted(self.trials, 'trial')}, {counted(self.samples, 'sample')})"
        )


def harms(
    experiment: Experiment, parts: Parts, *, channel: str, alike: bool, seed: int, trials: int, progress: Progress
) -> Harms:
    """Return what noise in each part does, in as many trials; one where all trials are alike."""
    written = parts.written()
    share = metrics.nan_share(written)
    if share:
        raise DataError(f"{share:.1%} of the outputs without noise are NaN, so nothing tells what noise does to them")
    with np.errstate(all="ignore"):
        lost, distance = _losses(experiment, written), divergence(written, experiment.chosen.axis)
    count = 1 if alike else trials
    listed = (parts.all, *parts.listed)
    found = []
    for number, part in enumerate(listed):
        pairs = []
        for trial in range(count):
            progress(f"part {number + 1} of {len(listed)}", (number + trial / count) / len(listed))
            outputs = parts.outputs(part, seed=seed, trial=trial)
            with np.errstate(all="ignore"):  # what is not finite is refused
                pairs.append((float(lost(outputs).mean()), distance(outputs)))
            if not np.isfinite(pairs[-1]).all():
                raise DataError(
                    f"outputs are not finite if {part.name or 'all'} is read with noise: leave out samples for which "
                    "the model overflows"
                )
        losses, apart = zip(*pairs, strict=True)
        found.append(Harm(part=part, losses=losses, divergences=apart))
    kinds = [harm.part.kind for harm in found]
    ordered = sorted(found[1:], key=lambda harm: (kinds.index(harm.part.kind), -harm.divergence))
    chosen = experiment.chosen
    return Harms(
        whole=found[0],
        parts=tuple(ordered),
        metric=chosen.metric.name,
        stored=None
        if chosen.compares
        else float(experiment.metric(written, labels=experiment.data.labels, clean=experiment.clean)),
        samples=len(experiment.data),
        trials=count,
        seed=seed,
        alike=alike,
        channel=channel,
        users=parts.users,
        model=experiment.name,
        preprocessing=experiment.data.preprocessing,
    )


def _losses(experiment: Experiment, written: Sequence[Any]) -> Callable[[list[Any]], NDArray[np.float64]]:
    """Return the function that gives the loss of each sample, (n,), against the outputs as written."""
    if is_noise(experiment):
        return partial(noise, list(written))
    chosen = experiment.chosen
    if not chosen.labelled:  # classes are compared with those of the model as written
        axis = chosen.axis if chosen.axis is not None else -1
        classes = np.argmax(written[0], axis=axis)

        def changed(outputs: list[Any]) -> NDArray[np.float64]:
            other = np.argmax(outputs[0], axis=axis) != classes
            share: NDArray[np.float64] = other.reshape(len(other), -1).mean(axis=1)
            return share

        return changed
    before = right(experiment, list(written))
    return lambda outputs: before - right(experiment, outputs)
