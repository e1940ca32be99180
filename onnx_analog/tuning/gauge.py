"""Measures what noise in each part of a memory does to a network: where it hurts.

In each trial, only one part has noise; or, for the worst parts, all parts but one have it.
The loss is the share of samples that were right as written, minus those that are right as read (or, for outputs without
classes, the power of the difference over that of the outputs). It is a small difference of large numbers, so the
divergence of the outputs is measured too: it tells parts apart that lose no sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.display import Progress, percent
from onnx_analog.errors import DataError, OptionError
from onnx_analog.run import metrics
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.parts import MOST_CLASSES, Part, Parts
from onnx_analog.tuning.drops import is_noise, losses, noise, right, right_against
from onnx_analog.tuning.harm import Harm, Harms, Outcome
from onnx_analog.tuning.sensitivity import divergence


def harms(
    experiment: Experiment,
    parts: Parts,
    *,
    kinds: Sequence[str],
    all_but: int,
    seed: int,
    trials: int,
    progress: Progress,
) -> Harms:
    """Return what noise in each part does, in as many trials; one where all trials are alike.

    Parameters
    ----------
    experiment : Experiment
    parts : Parts
    kinds : sequence of str
        Of `onnx_analog.arguments.PART_KINDS`.
    all_but : int
        Worst parts of each kind of which the rest is measured too.
    seed, trials : int
    progress : function

    Raises
    ------
    OptionError
        If no kinds are given, or there are no such parts.
    DataError
        If outputs are not finite.
    """
    kinds = tuple(dict.fromkeys(kinds))
    if not kinds:
        raise OptionError("by is empty: name a kind of parts")
    listed = [part for kind in kinds for part in parts.of(kind)]
    if not listed:
        raise OptionError(
            f"by is {','.join(kinds)}, and there are no such parts: all tensors have one class, or more than "
            f"{MOST_CLASSES}"
        )
    most = sum(min(all_but, sum(part.kind == kind for part in listed)) for kind in kinds)
    gauge = Gauge(experiment, parts, seed, 1 if parts.alike else trials, progress, 1 + len(listed) + most)
    whole, *found = [Harm(part=part, **vars(gauge.outcome(part, but=False))) for part in (parts.all, *listed)]
    ordered = [
        harm
        for kind in kinds
        for harm in _with_rest(gauge, [each for each in found if each.part.kind == kind], all_but)
    ]
    chosen, corrector = experiment.chosen, parts.corrector
    return Harms(
        whole=whole,
        parts=tuple(ordered),
        metric=chosen.metric.name,
        stored=None
        if chosen.compares
        else float(experiment.metric(parts.written, labels=experiment.data.labels, clean=experiment.clean)),
        storing=_storing(experiment, parts),
        samples=len(experiment.data),
        trials=gauge.count,
        seed=seed,
        alike=parts.alike,
        channel=parts.channel,
        users=parts.users,
        model=experiment.name,
        preprocessing=experiment.data.preprocessing,
        corrected_by=None if corrector is None else str(experiment.correcting),
        correction=None if corrector is None else corrector.cost,
    )


def _storing(experiment: Experiment, parts: Parts) -> float | None:
    """Return the mean loss from the original to the model as it was written; None if the original is not known."""
    if not experiment.original_known:
        return None
    with np.errstate(all="ignore"):
        loss = float(losses(experiment)(parts.written).mean())
    return loss if np.isfinite(loss) else None


def _with_rest(gauge: Gauge, found: Sequence[Harm], most: int) -> list[Harm]:
    """Return parts, the worst first, which have what is left without their noise."""
    ordered = sorted(found, key=lambda harm: -harm.divergence)
    worst = [harm for harm in ordered[:most] if harm.divergence]
    return [*(replace(harm, all_but=gauge.outcome(harm.part, but=True)) for harm in worst), *ordered[len(worst) :]]


class Gauge:
    """Measures what noise does, in `count` trials of each part."""

    def __init__(
        self, experiment: Experiment, parts: Parts, seed: int, count: int, progress: Progress, steps: int
    ) -> None:
        self._parts, self._seed, self.count, self._progress, self._steps = parts, seed, count, progress, steps
        self._step = 0
        share = metrics.nan_share(parts.written)
        if share:
            raise DataError(
                f"{percent(share, 1)} of the outputs without noise are NaN, so nothing tells what noise does to them"
            )
        with np.errstate(all="ignore"):
            self._lost = _losses(experiment, parts.written)
            self._distance = divergence(parts.written, experiment.chosen.axis)

    def outcome(self, part: Part, *, but: bool) -> Outcome:
        """Return what noise in a part does, or in all but it."""
        read, without = list[tuple[float, float]](), list[tuple[float, float]]()
        for trial in range(self.count):
            done = (self._step + trial / self.count) / self._steps
            self._progress(f"part {self._step + 1} of {self._steps}, {_which(part, but=but)}", done)
            read.append(self._pair(part, trial, but=but, corrected=self._parts.corrector is not None))
            if self._parts.corrector is not None:
                without.append(self._pair(part, trial, but=but, corrected=False))
        self._step += 1
        return _outcome(read, _outcome(without) if without else None)

    def _pair(self, part: Part, trial: int, *, but: bool, corrected: bool) -> tuple[float, float]:
        """Return loss and divergence of one trial."""
        outputs = self._parts.outputs(part, seed=self._seed, trial=trial, but=but, corrected=corrected)
        with np.errstate(all="ignore"):  # what is not finite is refused
            pair = float(self._lost(outputs).mean()), self._distance(outputs)
        if not np.isfinite(pair).all():
            raise DataError(
                f"outputs are not finite if {_which(part, but=but)} is read with noise: leave out samples for which "
                "the model overflows"
            )
        return pair


def _which(part: Part, *, but: bool) -> str:
    return "all" if part.kind == "all" else f"{'all but ' * but}{part.label}"


def _outcome(pairs: Sequence[tuple[float, float]], uncorrected: Outcome | None = None) -> Outcome:
    losses, apart = zip(*pairs, strict=True)
    return Outcome(losses=losses, divergences=apart, uncorrected=uncorrected)


def _losses(experiment: Experiment, written: Sequence[Any]) -> Callable[[list[Any]], NDArray[np.float64]]:
    """Return the function that gives the loss of each sample, (n,), against the outputs as written."""
    if is_noise(experiment):
        return partial(noise, list(written))
    chosen = experiment.chosen
    if not chosen.labelled:  # classes are compared with those of the model as written
        return lambda outputs: 1 - right_against(experiment, list(written), outputs)
    before = right(experiment, list(written))
    return lambda outputs: before - right(experiment, outputs)
