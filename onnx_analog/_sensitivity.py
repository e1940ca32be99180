"""`sensitivity` as users call it: paths, arrays and names become the harm that noise in each part of a memory does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from onnx_analog._inputs import AnyChannel, AnyModel, AnyPlan, Data, check_function, warn_of_other_samples
from onnx_analog._memory import memory_of
from onnx_analog.arguments import DEFAULTS, check_pruning, check_type, checked
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.display import progress_of, silent
from onnx_analog.graph.weights import Selection
from onnx_analog.heard import with_warnings
from onnx_analog.settings import takes

if TYPE_CHECKING:
    from onnx_analog.run import metrics
    from onnx_analog.tuning.harm import Harms


logger = logging.getLogger(__name__)


@takes(Paper, Scheme)
@with_warnings
def sensitivity(
    model: AnyModel,
    data: Data,
    *,
    plan: AnyPlan | None = None,
    channel: AnyChannel | None = None,
    reference: AnyModel | None = None,
    by: Iterable[str] = DEFAULTS.by,
    all_but: int = DEFAULTS.all_but,
    trials: int = DEFAULTS.sensitivity_trials,
    seed: int = DEFAULTS.seed,
    integers: int | None = None,
    modifiers: Modifiers = NONE,
    sparsity: float = DEFAULTS.sparsity,
    prune_scope: str = DEFAULTS.prune_scope,
    selection: Selection | None = None,
    correct: Data | None = None,
    correct_samples: int | None = None,
    compensate: Data | None = None,
    compensate_samples: int | None = None,
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
) -> Harms:
    """Return where noise hurts: what is lost if one tensor, class or stream alone is read with noise.

    Losses are counted from the model as it was written, read without noise. A part is read as a trial of the whole
    memory reads it, so that of all parts together is that of `evaluate`; losses of parts do not add up to it. So the
    worst parts also have what is left if all but they are read with noise.

    Parameters
    ----------
    model : model
        A plain model, which is then stored as `protect` does, or a protected one. It is not changed.
    data : path of an npz file, mapping of name to array, (x, y), x, or Dataset
        Labels may be missing: then classes are compared with those of the original.
    plan, integers, sparsity, prune_scope, selection, compensate, compensate_samples, settings
        How a plain model is stored, as in `protect`.
    channel : channel, optional
        The memory. A protected model is read through it, if its output range covers that of the stored channel.
    reference : model, optional
        The original, to tell what storing alone loses; a plain model is its own. Losses of parts are counted from the
        model as it was written all the same, and correction is towards that.
    by : sequence of str
        Kinds of parts: "tensor", "class" and "stream" (of all tensors), "tensor-class" and "tensor-stream" (of each).
    all_but : int, 0 to 10,000
        Of so many of the worst parts of each kind, also all but the part is read with noise.
    trials : int, 1 to 10,000
        Of each part.
    modifiers : Modifiers
        Changes to that channel, or to those of the plan or the protected model.
    correct, correct_samples
        As in `evaluate`: each read is also corrected, towards the model as it was written. See `Harms.uncorrected`.
    seed, mean, std, preprocess, metric, output, class_axis, samples, batch, providers, threads
        As in `check`.
    progress : function
        Called with what is being done, and the share that is done.

    Raises
    ------
    OptionError
        If an argument is out of its range, there are no parts of these kinds, or the metric does not compare sample
        by sample.
    DataError
        If the data do not fit the model, or do not say what is lost.
    ModelError
        If nothing of the model can be stored.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog import demo
    >>> found = oa.sensitivity(demo.MODEL, demo.IMAGES, samples=100, trials=2, mean=0.1307, std=0.3081)
    >>> [harm.part.name for harm in found.of("stream")]
    ['levels', 'signs', 'classes', 'codebook']
    """
    given = checked(
        by=by, all_but=all_but, sensitivity_trials=trials, seed=seed, integers=integers, sparsity=sparsity,
        prune_scope=prune_scope,
    )  # fmt: skip
    check_pruning(given)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    check_function("progress", progress)
    memory = memory_of(
        model, plan=plan, channel=channel, reference=reference, integers=given["integers"], modifiers=modifiers,
        sparsity=given["sparsity"], prune_scope=prune_scope, selection=selection, compensate=compensate,
        settings=settings,
    )  # fmt: skip

    from onnx_analog.experiment import ScoresFirst
    from onnx_analog.tuning.drops import check_paired
    from onnx_analog.tuning.gauge import harms

    experiment = ScoresFirst(
        memory.model, data, metric, reference=memory.reference, correct=correct, correct_samples=correct_samples,
        compensate=compensate, compensate_samples=compensate_samples,
        plan=memory.plan, mean=mean, std=std, preprocess=preprocess,
        output=output, class_axis=class_axis, samples=samples, batch=batch, providers=providers, threads=threads,
    )  # fmt: skip
    experiment.name = memory.name
    warn_of_other_samples(memory.read.get("plan"), experiment.compensating_samples)
    check_paired(experiment)
    for text in experiment.warnings:
        logger.warning(text)
    how = {name: each for name, each in memory.read.items() if name != "selection"}
    for text in experiment.reading_warnings(**how, in_parts=True):
        logger.warning(text)
    for text in experiment.left(memory.read.get("plan"), selection=memory.read.get("selection"), in_parts=True):
        logger.warning(text)
    found = harms(
        experiment,
        experiment.parts(**memory.read),
        kinds=given["by"],
        all_but=given["all_but"],
        seed=given["seed"],
        trials=given["sensitivity_trials"],
        progress=progress_of(progress),
    )
    return replace(found, protected=experiment.protected(**memory.read))
