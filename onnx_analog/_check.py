"""`check` as users call it: paths, arrays and names become a test of whether a model survives a memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog._inputs import (
    AnyChannel,
    AnyModel,
    AnyPlan,
    Data,
    check_function,
    warn_of_other_samples,
)
from onnx_analog._memory import memory_of
from onnx_analog.arguments import DEFAULTS, check_pruning, check_type, checked
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.assumptions import OPTIMISTIC, assumes_addresses
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.display import Progress, progress_of, silent
from onnx_analog.errors import DataError, OptionError
from onnx_analog.graph.stored import channels_of
from onnx_analog.graph.weights import Selection
from onnx_analog.heard import with_warnings
from onnx_analog.settings import takes

if TYPE_CHECKING:
    from onnx_analog.experiment import Experiment
    from onnx_analog.run import metrics
    from onnx_analog.run.trials import Trials
    from onnx_analog.tuning.checked import Checked

logger = logging.getLogger(__name__)

_NO_ORIGINAL = (
    "reference is not given, so losses are counted from the protected model, read without noise: what storing alone "
    "loses is left out"
)


@takes(Paper, Scheme)
@with_warnings
def check(
    model: AnyModel,
    data: Data,
    *,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    plan: AnyPlan | None = None,
    channel: AnyChannel | None = None,
    reference: AnyModel | None = None,
    confidence: float = DEFAULTS.confidence,
    max_trials: int = DEFAULTS.check_trials,
    seed: int = DEFAULTS.seed,
    integers: int | None = None,
    modifiers: Modifiers = NONE,
    sparsity: float = DEFAULTS.sparsity,
    prune_scope: str = DEFAULTS.prune_scope,
    selection: Selection | None = None,
    compensate: Data | None = None,
    compensate_samples: int | None = None,
    correct: Data | None = None,
    correct_samples: int | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    metric: str | metrics.Function | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    samples: int | None = None,
    batch: int = DEFAULTS.batch,
    providers: str | Sequence[str] = DEFAULTS.providers,
    threads: int = DEFAULTS.threads,
    progress: Callable[..., object] = silent,
    **settings: Any,
) -> Checked:
    """Return whether a model survives a memory: whether it loses no more than a limit, with stated error rates.

    Trials are added until the answer is sure, or until more of them cannot make it so; see `onnx_analog.tuning.gate`.

    Parameters
    ----------
    model : model
        A plain model, which is then stored as `protect` does, or a protected one. It is not changed.
    data : path of an npz file, mapping of name to array, (x, y), x, or Dataset
        Labels may be missing: then outputs are compared with those of the original.
    max_drop : float, > 0, optional
        The most that may be lost, in percentage points of the metric.
    min_sqnr : float, >= 0, optional
        The least ratio of signal to noise in the outputs, in dB, in place of `max_drop`: for outputs without classes,
        as of regressions. The metric is then sqnr_db.
    plan, integers, sparsity, prune_scope, selection, compensate, compensate_samples, settings
        How a plain model is stored, as in `protect`. Losses include those of pruning and storing.
    channel : channel, optional
        The memory. A protected model is read through it, if its output range covers that of the stored channel.
    modifiers : Modifiers
        Changes to that channel, or to those of the plan or the protected model.
    reference : model, optional
        The original, from which losses are counted. A plain model is its own; without one, those of a protected model
        are counted from itself, read without noise.
    confidence : float, 0.5 <= confidence < 1
        A wrong "yes" has a chance of at most 1 - confidence, and so has a wrong "no".
    max_trials : int, 3 to 10,000
        Trials after which the check gives up.
    seed, correct, correct_samples, mean, std, preprocess, metric, output, class_axis, samples, batch, providers
        As in `evaluate`.
    threads : int, >= 0
        Threads per operator; 0: chosen by onnxruntime.
    progress : function
        Called with what is being done.

    Raises
    ------
    OptionError
        If an argument is out of its range, not one of `max_drop` and `min_sqnr` is given, or the metric does not
        compare sample by sample.
    DataError
        If the data do not fit the model, or do not say what is lost.
    ModelError
        If nothing of the model can be stored.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog import demo
    >>> print(oa.check(demo.MODEL, demo.IMAGES, max_drop=1, integers=8, mean=0.1307, std=0.3081))
    yes: at most 1 point is lost (mean loss 0.00 points, upper bound 0.30 with 95 % confidence; 1 trial, 1,000 samples)
    """
    given = checked(
        max_drop=max_drop, min_sqnr=min_sqnr, confidence=confidence, check_trials=max_trials, seed=seed,
        integers=integers, sparsity=sparsity, prune_scope=prune_scope,
    )  # fmt: skip
    check_pruning(given)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    check_function("progress", progress)
    limit = _limit(given["max_drop"], given["min_sqnr"])
    memory = memory_of(
        model, plan=plan, channel=channel, reference=reference, integers=given["integers"], modifiers=modifiers,
        sparsity=given["sparsity"], prune_scope=prune_scope, selection=selection, compensate=compensate,
        settings=settings,
    )  # fmt: skip

    from onnx_analog.experiment import ScoresFirst
    from onnx_analog.run._doubts import check_above_chance

    experiment = ScoresFirst(
        memory.model, data, "sqnr_db" if metric is None and min_sqnr is not None else metric,
        reference=memory.reference,
        correct=correct, correct_samples=correct_samples, compensate=compensate, compensate_samples=compensate_samples,
        plan=memory.plan,
        mean=mean, std=std, preprocess=preprocess, output=output, class_axis=class_axis, samples=samples, batch=batch,
        providers=providers, threads=threads,
    )  # fmt: skip
    experiment.name = memory.name
    warn_of_other_samples(memory.read.get("plan"), experiment.compensating_samples)
    _check_metric(experiment, given["max_drop"])
    check_above_chance(experiment.chosen, len(experiment.data), _original(experiment), experiment.warnings)
    trials = experiment.trials(**memory.read)
    _check_original(experiment, trials)
    warnings = tuple(_warnings(experiment, trials, memory.read))
    for text in warnings:
        logger.warning(text)
    checked_model = _answer(experiment, trials, limit, given, progress_of(progress), warnings)
    return replace(checked_model, protected=experiment.protected(**memory.read))


def _limit(max_drop: float | None, min_sqnr: float | None) -> float:
    """Return the largest loss, a share or the noise over the power of the outputs, from what a user gives."""
    from onnx_analog.tuning.scale import noise_of

    if max_drop is not None and min_sqnr is not None:
        raise OptionError("max_drop and min_sqnr exclude each other: give one of them")
    if max_drop is not None:
        return max_drop / 100
    if min_sqnr is None:
        raise OptionError("neither max_drop nor min_sqnr is given: give one of them")
    return noise_of(min_sqnr)


def _check_metric(experiment: Experiment, max_drop: float | None) -> None:
    """Raise `OptionError` unless the metric compares sample by sample, and in the unit of the limit."""
    from onnx_analog.tuning.drops import check_paired
    from onnx_analog.tuning.scale import check_unit

    check_paired(experiment, divergence=False)
    check_unit(experiment.chosen.metric.name, max_drop=max_drop is not None, min_sqnr=max_drop is None)


def _check_original(experiment: Experiment, trials: Trials) -> None:
    """Raise `OptionError` if nothing could be lost, as what is read is compared with itself."""
    if not experiment.original_known and all(scheme.analog == "none" for scheme in trials.schemes):
        raise OptionError(
            "reference is needed: the protected model has no analog cells, so it is read as it was written, and only "
            "the original tells what that loses"
        )


def _warnings(experiment: Experiment, trials: Trials, read: Mapping[str, Any]) -> Iterator[str]:
    yield from experiment.warnings
    if not experiment.original_known:
        yield _NO_ORIGINAL
    if assumes_addresses(trials.schemes):
        yield OPTIMISTIC
    yield from experiment.reading_warnings(**{name: each for name, each in read.items() if name != "selection"})
    yield from experiment.left(read.get("plan"), selection=read.get("selection"))


def _answer(
    experiment: Experiment,
    trials: Trials,
    limit: float,
    given: Mapping[str, Any],
    progress: Progress,
    warnings: tuple[str, ...],
) -> Checked:
    """Add trials until the limit is decided, and return what was found."""
    from onnx_analog.tuning.checked import Checked
    from onnx_analog.tuning.drops import is_noise, relative_powers
    from onnx_analog.tuning.gate import sequential

    most, confidence = given["check_trials"], given["confidence"]
    clock = _Clock(progress, most)
    decision = sequential(
        _rows(experiment, trials, given["seed"], most, clock.show),
        limit=limit,
        confidence=confidence,
        most=most,
        shares=not is_noise(experiment),
        powers=relative_powers(experiment.clean) if is_noise(experiment) else None,
        alike=trials.alike,
        expect=clock.expect,
    )
    return Checked(
        decision=decision,
        limit=limit,
        confidence=confidence,
        max_trials=most,
        alike=trials.alike,
        metric=experiment.chosen.metric.name,
        output=experiment.chosen.output,
        original=_original(experiment),
        against_original=experiment.original_known,
        channel=channels_of(trials.schemes),
        cells_per_weight=trials.cells_per_weight,
        paper_cells_per_weight=trials.paper_cells_per_weight,
        seed=given["seed"],
        model=experiment.name,
        preprocessing=experiment.data.preprocessing,
        corrected_by=None if experiment.correcting is None else str(experiment.correcting),
        correction=None if trials.corrector is None else trials.corrector.cost,
        warnings=warnings,
    )


def _original(experiment: Experiment) -> float | None:
    """Return the metric of the model that losses are counted from; None where outputs are compared with its own."""
    if experiment.chosen.compares:
        return None
    return experiment.original_value if experiment.original_known else experiment.stored_value()


class _Clock:
    """Shows which trial is made, and how long those are likely to take that decide.

    Parameters
    ----------
    progress : function
    most : int
        Trials.
    """

    def __init__(self, progress: Progress, most: int) -> None:
        self._progress, self._most = progress, most
        self._start, self._expected = time.monotonic(), None

    _expected: int | None

    def expect(self, trials: int | None) -> None:
        """Take the number of trials that are likely to decide."""
        self._expected = None if trials is None else min(trials, self._most)

    def show(self, trial: int) -> None:
        """Show that a trial begins."""
        left = None
        if self._expected is not None and trial:
            left = (time.monotonic() - self._start) / trial * max(self._expected - trial, 1)
        self._progress(f"trial {trial + 1:,} of at most {self._most:,}", None, left)


def _rows(
    experiment: Experiment, trials: Trials, seed: int, most: int, show: Callable[[int], None]
) -> Iterator[NDArray[np.float64]]:
    """Yield the losses of all samples in one trial after the other."""
    from onnx_analog.run._doubts import doubts_of_values
    from onnx_analog.tuning.drops import losses

    of_outputs = losses(experiment)
    for trial in range(most):
        show(trial)
        outputs = trials.outputs(seed=seed, trial=trial)
        value = float(experiment.metric(outputs, labels=experiment.data.labels, clean=experiment.clean))
        for doubt in doubts_of_values(experiment.chosen, [value]):  # such outputs say nothing of what is lost
            raise DataError(doubt)
        yield of_outputs(outputs)
