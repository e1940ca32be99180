"""The library: each step takes a model and returns a result, which can be used wherever a model can.

A model is a path, an `onnx.ModelProto`, an `ir.Model`, or a result of another step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_analog._inputs import (
    AnyChannel,
    AnyModel,
    AnyPlan,
    Data,
    channel_of,
    check_function,
    directed,
    load_model,
    metric_of,
    selection_of,
    warn_of_read,
)
from onnx_analog._inspect import inspect as inspect
from onnx_analog._protect import protect as protect
from onnx_analog._readback import open_with_warnings
from onnx_analog._readback import readback as readback
from onnx_analog._readback import readbacks as readbacks
from onnx_analog.arguments import DEFAULTS, check_type, checked
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.errors import OptionError
from onnx_analog.graph.manifest import Manifest
from onnx_analog.graph.normalisation import Normalisation, check_images, keep
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.weights import Selection, all_tensors, find
from onnx_analog.heard import with_warnings
from onnx_analog.passes import PrunePass, pipeline
from onnx_analog.results import Inspection as Inspection
from onnx_analog.results import Model as Model
from onnx_analog.results import Paths as Paths
from onnx_analog.results import Perturbed as Perturbed
from onnx_analog.results import Pruned as Pruned
from onnx_analog.results import Swept as Swept
from onnx_analog.settings import keywords

if TYPE_CHECKING:  # what runs models is imported when a model is run
    from onnx_analog.run import metrics
    from onnx_analog.run.evaluation import Evaluation
    from onnx_analog.study.engines import Engine

logger = logging.getLogger(__name__)


def load(model: AnyModel) -> ProtectedModel:
    """Return a protected model, opened and checked once: its manifest, plan, weights and reads.

    Raises
    ------
    ModelError
        If the model is not protected, was read back already, or is damaged.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog.demo import MODEL
    >>> protected = oa.load(oa.protect(MODEL))
    >>> protected.plan.schemes
    (Scheme('redundancy', cells 1 and 20, share 0.05),)
    """
    protected = open_with_warnings(load_model(model))
    protected.check_readable()
    return protected


# ---------------------------------------------------------------------------------------------------- passes


@keywords
def prune(
    model: AnyModel, *, sparsity: float, prune_scope: str = DEFAULTS.prune_scope, selection: Selection | None = None
) -> Pruned:
    """Return a copy of a model whose smallest weights are zero; see `onnx_analog.passes.PrunePass`.

    Parameters
    ----------
    model : model
    sparsity : float, 0 <= sparsity < 1
        Share of weights that become zero.
    prune_scope : {"model", "tensor"}
        Whether magnitudes compete over all tensors or within each.
    selection : Selection, optional
        Which tensors.

    Raises
    ------
    AnalogError
        If an argument is out of its range, the model is protected already, or nothing of it is selected.
    """
    arguments = checked(sparsity=sparsity, prune_scope=prune_scope)
    selection = selection_of(selection)
    loaded = load_model(model)
    warn_of_read(loaded)
    step = PrunePass(sparsity=arguments["sparsity"], scope=prune_scope, selection=selection)
    keys = {weight.key for weight in find(loaded, selection).weights}  # a weight that becomes all zero is not selected
    pruned = pipeline.run([step], loaded)
    kept = [weight for weight in all_tensors(pruned) if weight.key in keys]
    zeros = sum(int((weight.array() == 0).sum()) for weight in kept)
    return Pruned(pruned, zeros, sum(weight.tensor.size for weight in kept))


@keywords
def remember(model: AnyModel, *, mean: float | Iterable[float], std: float | Iterable[float]) -> Model:
    """Return a copy of a model that remembers how its images are normalised, in its metadata.

    Functions that are given uint8 images for it, or for what is made of it, take these numbers for `mean` and `std`
    where they are given none.

    Parameters
    ----------
    model : model
        Plain, protected or read back.
    mean, std : float or sequence of float
        Of each channel, on the scale of 0 to 1, as in training.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog import demo
    >>> model = oa.remember(demo.MODEL, mean=0.1307, std=0.3081)
    >>> print(oa.evaluate(model, demo.IMAGES))
    top1 on 1,000 samples (output 'logits', class axis 1): original 98.70 %
    """
    numbers = checked(mean=mean, std=std)
    missing = next((name for name, values in numbers.items() if values is None), None)
    if missing is not None:
        raise OptionError(f"{missing} is None; it must be one number, or one for each channel")
    loaded, normalisation = load_model(model), Normalisation(**numbers)
    check_images(loaded, normalisation)
    keep(loaded, normalisation)
    return Model(loaded)


def account(model: AnyModel) -> Manifest:
    """Return the manifest of a protected model: which cell holds what, and the cost report.

    For a model that was read back, it is the manifest of the levels that were written.

    Raises
    ------
    ModelError
        If the model is not protected, or is damaged.
    """
    return open_with_warnings(load_model(model)).manifest


def _no_progress(*_: object) -> None:
    """Report nothing."""


# ------------------------------------------------------------------------------------------------- evaluate


@keywords
@with_warnings
def evaluate(
    model: AnyModel,
    data: Data,
    *,
    trials: int = DEFAULTS.trials,
    seed: int = DEFAULTS.seed,
    channel: AnyChannel | None = None,
    modifiers: Modifiers = NONE,
    reference: AnyModel | None = None,
    correct: Data | None = None,
    correct_samples: int | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    metric: str | metrics.Function | None = None,
    lower_is_better: bool = DEFAULTS.lower_is_better,
    output: str | None = None,
    class_axis: int | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    limit: bool = DEFAULTS.limit,
    samples: int | None = None,
    batch: int = DEFAULTS.batch,
    providers: str | Sequence[str] = DEFAULTS.providers,
    threads: int = DEFAULTS.threads,
    clean: list[Any] | None = None,
    progress: Callable[[], None] = _no_progress,
) -> Evaluation:
    """Return the accuracy of a model, or another metric: without noise and, if it is protected, in `trials` trials.

    Loss is counted from the original where it is known, and otherwise from the protected model, read without noise.
    Metrics that compare outputs compare with those of the same model.

    Parameters
    ----------
    model : model
        A plain model is evaluated as it is, with no trials.
    data : path of an npz file, mapping of name to array, (x, y), x, or Dataset
        One array per input, or x if the model has one input; and labels y, which may be missing. See
        `onnx_analog.run.data.load`.
    trials : int, >= 0
        How often the array is programmed and read; a plain model has no trials.
    seed : int, >= 0
    channel : channel, optional
        Replaces the stored channel, if its output range covers that of the stored one.
    modifiers : Modifiers
        Changes to that channel, or to the stored one.
    reference : model, optional
        The original model, before pruning and protection. A plain model without a reference is the original itself.
    correct : data, or "gain", optional
        Each trial is corrected after it was read, and scored with and without. Samples without labels (or with labels,
        which are ignored) give each output channel of each layer the mean and standard deviation of the noise-free
        model; "gain" gives each tensor the gain that its channel takes, on average, which needs no data.
    correct_samples : int, >= 2, optional
        Number of those samples to use, from the first on. By default as many as verified the plan that the model is
        stored as, or 256.
    mean, std, preprocess
        How uint8 images become inputs; see `onnx_analog.run.data.Preprocessing`.
    metric : name, "module:function" or function, optional
        A name of `onnx_analog.run.metrics.METRICS`; the default depends on data and outputs, see
        `onnx_analog.run.choice.choose`.
    lower_is_better : bool
        Whether lower values are better of a function of the user's that does not say so itself, by an attribute.
    output : str, optional
        Name of the output that is measured; the default is the first that fits.
    class_axis : int, optional
        Axis of that output that holds the classes, where shapes leave it open.
    at_least, at_most : float, optional
        Limits of the value: `holds` and `verdict` of the result say whether they are kept.
    limit : bool
        Whether the result has `limit`: the fewest cells that any code needs for the weights of the original at the
        errors with which they are read (see `onnx_analog.coding.limit`), and how many times as many the model takes.
    samples : int, >= 1, optional
        Number of samples to use, from the first on; all by default.
    batch : int, >= 1
        Samples per call of the model.
    providers : sequence of str
        Execution providers of onnxruntime.
    threads : int, >= 0
        Threads per operator; 0: chosen by onnxruntime.
    clean : list of outputs, optional
        All outputs of the original model, where they are known already.
    progress : function
        Called without arguments after each trial.

    Raises
    ------
    OptionError
        If an argument is of another type, out of its range, or does not go with the metric.
    DataError
        If the data do not fit the model, or do not say what is to be measured.
    """
    metric = directed(metric, **checked(lower_is_better=lower_is_better))
    scoring = checked(trials=trials, seed=seed, at_least=at_least, at_most=at_most, limit=limit)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    check_function("progress", progress)
    named, resolved = metric_of(metric), channel_of(channel)

    from onnx_analog.experiment import Experiment
    from onnx_analog.run import metrics
    from onnx_analog.run.evaluation import check_limits

    if named is not None:  # before anything is computed
        check_limits(metrics.described(named), scoring["at_least"], scoring["at_most"])
    experiment = Experiment(
        model, data, metric, reference=reference, correct=correct, correct_samples=correct_samples, mean=mean,
        std=std, preprocess=preprocess, output=output,
        class_axis=class_axis, samples=samples, batch=batch, providers=providers, threads=threads, clean=clean,
    )  # fmt: skip
    if experiment.is_plain and scoring["trials"] not in (0, DEFAULTS.trials):
        raise OptionError(f"trials is {trials}, and the model is not protected, so it has none: leave it out")
    result = experiment.score(channel=resolved, modifiers=modifiers, progress=progress, **scoring)
    for text in result.warnings:
        logger.warning(text)
    return result


# ---------------------------------------------------------------------------------------------------- sweep


@keywords
@with_warnings
def sweep(
    model: AnyModel | Sequence[AnyModel],
    data: Data,
    *,
    strategy: str | Sequence[str] | None = None,
    cells: int | Sequence[int] | None = None,
    large_factor: int | None = None,
    preset: str | Sequence[str] | None = None,
    granularity: str | None = None,
    large_fraction: float | None = None,
    channel: AnyChannel | Sequence[AnyChannel] | None = None,
    grid: Mapping[str, Sequence[Any]] | str | Sequence[str] | None = None,
    plan: Mapping[str, AnyPlan] | AnyPlan | Sequence[AnyPlan] | None = None,
    rivals: bool = False,
    modifiers: Modifiers = NONE,
    selection: Selection | None = None,
    sparsity: float = DEFAULTS.sparsity,
    prune_scope: str = DEFAULTS.prune_scope,
    trials: int = DEFAULTS.trials,
    precision: float | None = None,
    max_trials: int = DEFAULTS.max_trials,
    seed: int = DEFAULTS.seed,
    compensate: Data | None = None,
    compensate_samples: int | None = None,
    correct: Data | None = None,
    correct_samples: int | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    metric: str | metrics.Function | None = None,
    lower_is_better: bool = DEFAULTS.lower_is_better,
    output: str | None = None,
    class_axis: int | None = None,
    samples: int | None = None,
    batch: int = DEFAULTS.batch,
    providers: str | Sequence[str] = DEFAULTS.providers,
    engine: str | Engine = "local",
    counting: str = DEFAULTS.counting,
    limit: bool = DEFAULTS.limit,
    max_drop: float | None = None,
    out: Paths | None = None,
    config: str | None = None,
    progress: Callable[[int, int], None] = _no_progress,
) -> Swept:
    """Return the accuracy, or another metric, of strategies × cells × presets × channels × models in many trials each.

    The numbers do not depend on the engine, on its number of workers, or on how often the sweep was stopped.

    Parameters
    ----------
    model : model or sequence of models
        Not protected.
    data : path of an npz file, mapping of name to array, (x, y), x, or Dataset
    strategy : str or sequence of str, optional
        The default is all four. Arguments of the grid that are None have the defaults of
        `onnx_analog.study.arguments.GridArguments`; one that `grid` varies too is refused.
    cells : int or sequence of int, >= 1, optional
        Cells per weight; with the strategy `redundancy`, cells per small weight.
    large_factor : int, >= 1, optional
        With the strategy `redundancy`: how many times as many cells a large weight has.
    preset : str or sequence of {"default", "isik2020"}, optional
    granularity, large_fraction
        Replace those of the preset.
    channel : channel or sequence of channels, optional
        The default is "pcm".
    modifiers : Modifiers
        Changes to each of the channels.
    grid : mapping of str to sequence, or "name=value,value", optional
        Further settings of `onnx_analog.coding.scheme.Scheme` to vary, and their values.
    plan : plan, sequence of plans, or mapping of name to plan, optional
        Further points; each has its own channel. See `protect` for the forms of a plan. A file is named by its stem.
        Without `strategy` and other arguments of the grid, or with an empty `strategy`, plans alone are compared.
    rivals : bool
        Whether digital rivals are further points, in cells of each channel: int8 and int4, each per tensor and per
        output channel, and entropy-coded quantisation in the steps of `onnx_analog.study.rivals.STEPS`.
    selection : Selection, optional
        Which tensors are stored.
    sparsity, prune_scope
        Pruning before protection; see `prune`.
    trials : int, >= 0
        Trials of each point; with `precision`, the trials before the first look.
    precision : float, > 0, optional
        Width of the 95 % interval at which a point has enough trials: in percentage points if the metric is a share,
        else in the metric's unit. See `onnx_analog.study.stopping`.
    max_trials : int, >= 2
        Most trials of a point with `precision`.
    seed : int, >= 0
        The same seed gives the same numbers.
    compensate, compensate_samples
        As in `protect`.
    correct, correct_samples, mean, std, preprocess, metric, lower_is_better, output, class_axis, samples, batch,
    providers
        As in `evaluate`.
    engine : str or Engine
        Where trials are computed: "local" (processes of this machine), "serial" (this process), "dask", "ray", or an
        engine of `onnx_analog.engines.build`.
    counting : {"memory", "paper"}
        Cells by which points of the plot are compared: as the memory allows, or as the paper counts. Both are in the
        results.
    limit : bool
        Whether each point has the fewest cells that any code needs at its errors; see `evaluate`.
    max_drop : float, > 0, optional
        Name the cheapest point that loses no more against the original, in percentage points or in the metric's unit:
        see `Swept.within`, which takes any limit afterwards.
    out : path, optional
        Folder for the results: every trial, the points, a plot if matplotlib is installed, and `sweep.toml`, which
        `onnx-analog sweep --config` reads. Trials that are there already are not computed again.
    config : str, optional
        Text for `sweep.toml`; the default describes these arguments.
    progress : function
        Called with the number of trials that are done and the number that are planned.

    Raises
    ------
    AnalogError
        If an argument is out of its range or does not fit, before the first trial; or if workers fail repeatedly.
    """
    arguments = {name: value for name, value in locals().items() if name not in ("out", "config", "progress")}
    from onnx_analog._sweep import run_sweep

    return run_sweep(arguments, out=out, config=config, progress=progress)
