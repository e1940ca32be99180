"""The library: each step takes a model and returns a result, which can be used wherever a model can.

A model is a path, an `onnx.ModelProto`, an `ir.Model`, or a result of another step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnx_analog._inputs import (
    AnyChannel,
    AnyModel,
    AnyPlan,
    Data,
    bare,
    channel_of,
    check_function,
    check_measured,
    corrected_towards,
    directed,
    load_model,
    metric_of,
    note_origin,
    reading_compensate,
    reading_correct,
    selection_of,
    stored_plan,
    warn_of_compensation,
)
from onnx_analog.arguments import DEFAULTS, MOST_READBACKS, check_pruning, check_type, checked
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.exclusive import PAPER_CELLS
from onnx_analog.coding.scheme import STRATEGIES, Paper, Scheme
from onnx_analog.display import Progress, progress_of
from onnx_analog.errors import OptionError
from onnx_analog.graph import files
from onnx_analog.graph.build import opset_of, reason_against
from onnx_analog.graph.manifest import Manifest
from onnx_analog.graph.normalisation import Normalisation, check_images, keep, remembered
from onnx_analog.graph.protected import ProtectedModel, just_protected, open_protected
from onnx_analog.graph.reads import Reads, reads_of
from onnx_analog.graph.stored import (
    is_protected,
    read_back,
    read_with,
)
from onnx_analog.graph.uses import consumers
from onnx_analog.graph.weights import Selection, Weight, all_tensors, find, referring, scopes
from onnx_analog.heard import with_warnings
from onnx_analog.passes import MeasuredPass, ProtectPass, PrunePass, ReadbackPass, pipeline
from onnx_analog.results import Inspection as Inspection
from onnx_analog.results import Model as Model
from onnx_analog.results import Paths as Paths
from onnx_analog.results import Perturbed as Perturbed
from onnx_analog.results import Pruned as Pruned
from onnx_analog.results import Swept as Swept
from onnx_analog.settings import keywords, takes

if TYPE_CHECKING:  # what runs models is imported when a model is run
    from onnx_analog.channels import Channel
    from onnx_analog.run import metrics
    from onnx_analog.run.correcting import Corrections
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
    protected = _open_with_warnings(load_model(model))
    protected.check_readable()
    return protected


# -------------------------------------------------------------------------------------------------- inspect


@keywords
def inspect(model: AnyModel, *, selection: Selection | None = None) -> Inspection:
    """Return which tensors of a model `protect` would store, and why not the others.

    Whether a tensor's magnitudes lie too far apart is judged for the default scheme, in which each tensor has a scale
    of its own. With one scale for the model, or one class of weights, more tensors may stay digital; `protect` names
    them.
    """
    selection = selection_of(selection)
    loaded = load_model(model)
    protected = is_protected(loaded)
    kinds = [node.op_type for _, graph, _ in scopes(loaded) for node in graph]
    if protected:
        rows = [{**_stored_row(tensor), "reason": None} for tensor in open_protected(loaded).tensors]
    else:
        rows = _plain_rows(loaded, selection)
    return Inspection(
        normalisation=remembered(loaded),
        opset=opset_of(loaded),
        ir_version=loaded.ir_version or 0,
        protected=protected,
        read_back=read_back(loaded),
        refused=None if protected else reason_against(loaded),
        batch_norms=kinds.count("BatchNormalization"),
        convolutions=sum(kind in ("Conv", "ConvTranspose") for kind in kinds),
        rows=tuple(rows),
    )


def _plain_rows(model: ir.Model, selection: Selection) -> list[dict[str, Any]]:
    selected = find(model, selection)
    unfit = ProtectPass(selection=selection).unfit(selected.weights)
    rows = [_row(weight, unfit.get(weight.key)) for weight in selected.weights]
    rows += [_row(weight, why) for weight, why in selected.skipped]
    return [*rows, *(_referring_row(key, why) for key, why in referring(model))]


def _row(weight: Weight, reason: str | None) -> dict[str, Any]:
    magnitudes = {"largest": None, "subnormal": 0} if reason is not None else _magnitudes(weight.array())
    return {
        "name": weight.name,
        "key": weight.key,
        "shape": list(weight.shape),
        "dtype": weight.tensor.dtype.name,
        "weights": weight.size,
        "used_by": list(weight.consumers()),
        **magnitudes,
        "reason": reason,
    }


def _magnitudes(array: Any) -> dict[str, Any]:
    """Return the largest magnitude of an array, and the number of its subnormal values."""
    magnitude = np.abs(array.astype(np.float32, copy=False))
    subnormal = np.count_nonzero((magnitude > 0) & (magnitude < np.finfo(np.float32).tiny))
    return {"largest": float(magnitude.max(initial=0)), "subnormal": int(subnormal)}


def _referring_row(key: str, reason: str) -> dict[str, Any]:
    row = {"name": key.rpartition("/")[2], "key": key, "shape": [], "dtype": "UNDEFINED", "weights": 0}
    return {**row, "used_by": [], "largest": None, "subnormal": 0, "reason": reason}


def _stored_row(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "key": tensor.key,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype.name,
        "weights": tensor.size,
        "used_by": sorted(consumers(tensor.node.outputs[0])),
        **_magnitudes(tensor.decode()),
    }


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
    top1 on 1,000 samples (output 'logits', class axis 1): original 0.9870
    """
    numbers = checked(mean=mean, std=std)
    missing = next((name for name, values in numbers.items() if values is None), None)
    if missing is not None:
        raise OptionError(f"{missing} is None; it must be one number, or one for each channel")
    loaded, normalisation = load_model(model), Normalisation(**numbers)
    check_images(loaded, normalisation)
    keep(loaded, normalisation)
    return Model(loaded)


def _no_progress(*_: object) -> None:
    """Report nothing."""


@takes(Paper, Scheme)
def protect(
    model: AnyModel,
    plan: AnyPlan | None = None,
    *,
    integers: int | None = None,
    modifiers: Modifiers = NONE,
    sparsity: float = DEFAULTS.sparsity,
    prune_scope: str = DEFAULTS.prune_scope,
    selection: Selection | None = None,
    compensate: Data | None = None,
    compensate_samples: int = DEFAULTS.compensate_samples,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    command: str | None = None,
    progress: Callable[..., object] = _no_progress,
    **settings: Any,
) -> ProtectedModel:
    """Return a protected copy of a model; without noise it computes what the model did.

    Parameters
    ----------
    model : model
        It is not changed.
    plan : Plan, Scheme, path or "module:function", optional
        How each tensor is stored: a plan, a scheme for all tensors, a plan's JSON file, or a function without arguments
        that returns a plan or a scheme. `modifiers` and `settings` change all its schemes; the paper's settings, but
        for `granularity`, and `integers` cannot be given with it.
    integers : int, 2 to 8, optional
        Quantise to integers of this many bits, without analog cells, in place of the paper's settings.
    modifiers : Modifiers
        Changes to the channel: residuals, shared devices, time of the read, precision. The channel of side information
        gets those that apply to it.
    sparsity : float, 0 <= sparsity < 1
        Share of weights that are pruned first; 0 prunes nothing.
    prune_scope : {"model", "tensor"}
        Whether magnitudes compete over all tensors or within each.
    selection : Selection, optional
        Which tensors.
    compensate : data, optional
        Unlabelled samples. Weights in equal steps without analog cells are then rounded so that they make up for each
        other's errors, as far as the layer's outputs go; see `onnx_analog.coding.compensation`.
    compensate_samples : int, >= 4
        How many of them are used, from the first on.
    mean, std, preprocess
        How uint8 images of `compensate` become inputs.
    command : str, optional
        Kept in the manifest.
    progress : function
        Called with what is being done, where it takes long. If it has a parameter `fraction`, it is also called with
        the share of the work that is done, from 0 to 1, or None where that is not known.
    **settings
        Settings of `onnx_analog.Paper` and of `onnx_analog.Scheme`, which list them: `strategy`, `cells_small`,
        `cells_large`, `channel` and others. Those that are None count as left out.

    Raises
    ------
    AnalogError
        As `onnx_analog.passes.ProtectPass` says, and if the parameters contradict each other.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog.demo import MODEL
    >>> totals = oa.protect(MODEL, cells_small=1, cells_large=20).manifest.totals
    >>> totals.stored_weights, totals.analog_cells, totals.all_in_cells
    (430500, 839475, 1270231)
    """
    arguments = checked(sparsity=sparsity, prune_scope=prune_scope, command=command, integers=integers)
    check_pruning(arguments)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    source = bare(model)
    stored = stored_plan(plan, arguments["integers"], settings, modifiers)
    _question_cells(settings)
    if compensate is None:
        warn_of_compensation([stored], None)
    samples = reading_compensate(compensate, compensate_samples, mean, std, preprocess)
    check_function("progress", progress)
    step = ProtectPass(plan=stored, selection=selection_of(selection))
    loaded = files.load(source)
    if arguments["sparsity"]:
        prune = PrunePass(sparsity=arguments["sparsity"], scope=prune_scope, selection=step.selection)
        loaded = pipeline.run([prune], loaded)
    if samples is not None:
        step = _compensated(step, loaded, samples, progress_of(progress))
    note_origin(loaded, source, command)
    return just_protected(pipeline.run(pipeline.protecting(step), loaded))


def _compensated(step: ProtectPass, model: ir.Model, samples: Callable[[Any], Any], progress: Progress) -> ProtectPass:
    """Return a step whose weights make up for each other's rounding errors, as samples of the model tell."""
    from onnx_analog.coding.compensation import check_compensable
    from onnx_analog.run.moments import input_moments, warn_of_left
    from onnx_analog.run.session import Network

    check_compensable("compensate is given", step.plan.schemes)
    data = samples(Network(model).inputs)
    warn_of_compensation([step.plan], len(data))
    moments, left = input_moments(model, data, selection=step.selection, running={}, progress=progress)
    warn_of_left(left)
    return replace(step, moments=moments)


def _question_cells(settings: Mapping[str, Any]) -> None:
    """Warn where `cells_large` does the opposite of what it is for."""
    paper = Paper(**{name: settings[name] for name in PAPER_CELLS if settings.get(name) is not None})
    if STRATEGIES[settings.get("strategy") or paper.strategy].adaptive and paper.cells_of_large < paper.cells_small:
        logger.warning(
            "cells_large is %d, below cells_small, %d: large weights get fewer cells than small ones",
            paper.cells_of_large,
            paper.cells_small,
        )


@keywords
def readback(
    model: AnyModel,
    *,
    seed: int = DEFAULTS.seed,
    trial: int = DEFAULTS.trial,
    channel: AnyChannel | None = None,
    modifiers: Modifiers = NONE,
    correct: Data | None = None,
    correct_samples: int = DEFAULTS.correct_samples,
    reference: AnyModel | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    decoded: bool = DEFAULTS.decoded,
    measured: Paths | Mapping[str, Any] | Reads | None = None,
    unit: str | None = None,
    missing: str = DEFAULTS.missing,
    time_s: float | None = None,
) -> Perturbed:
    """Return a protected model as it reads from one programmed array; with `correct`, corrected after the read.

    With `measured`, the levels are those that an array outside this program returned, and no noise is added.

    Parameters
    ----------
    model : model
        A protected model; it is not changed. A model that was read back already is refused.
    seed, trial : int, >= 0
        `evaluate` with this seed uses exactly these weights in this trial.
    channel : channel, optional
        Replaces the stored channel, if its output range covers that of the stored one.
    modifiers : Modifiers
        Changes to that channel, or to the stored one.
    correct, correct_samples
        As in `evaluate`: the model then holds the corrections, as plain nodes.
    reference : model, optional
        The original, towards which samples correct; without it, that is the protected model, read without noise.
    mean, std, preprocess
        How uint8 images of `correct` become inputs.
    decoded : bool
        Return plain float weights, for any other tool, instead of levels and the functions that decode them.
    measured : path, mapping or Reads, optional
        Reads of an array to which the image of `write_image` was written: an npz or CSV file, or a mapping of columns.
        docs/real_array.md lists the columns. `array` of the result tells what was irregular.
    unit : {"scaled", "device"}, optional
        Unit of the measured values: the scale of levels, or the unit of the device's reads. Needed with `measured`.
    missing : {"refuse", "zero", "written"}
        What a weight that was not measured becomes; "refuse" refuses the reads.
    time_s : float, optional
        Which of the measured reads count, where they were made at several times.

    Raises
    ------
    ModelError
        If the model is not protected, is damaged, or was read back already.
    ChannelError
        If the channel cannot hold the levels.
    DataError
        If the measured reads are not of this model, or do not say what is needed.
    OptionError
        If seed or trial is not from 0 to 2^63 - 1, or a channel or modifiers are given and nothing is stored in cells;
        or an argument is given that only goes with `measured`, or does not go with it.
    """
    arguments = checked(seed=seed, trial=trial, decoded=decoded, unit=unit, missing=missing, time_s=time_s)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    resolved = channel_of(channel)
    how = reading_correct(correct, correct_samples, mean, std, preprocess)
    original = corrected_towards(reference, how)
    simulated = {
        "seed": (seed, DEFAULTS.seed),
        "trial": (trial, DEFAULTS.trial),
        "channel": (resolved, None),
        "modifiers": (modifiers, NONE),
    }
    check_measured(measured, arguments, simulated)
    protected = _open_with_warnings(load_model(model))
    if measured is not None:
        measuring = MeasuredPass(
            reads=reads_of(measured), unit=arguments["unit"], missing=missing, time_s=arguments["time_s"]
        )
        return _measured(protected, measuring, decoded, _reader(protected, how, None, NONE, original))
    step = ReadbackPass(seed=arguments["seed"], trial=arguments["trial"], channel=resolved, modifiers=modifiers)
    return _perturbed(protected, step, decoded, _reader(protected, how, resolved, modifiers, original))


def _measured(
    protected: ProtectedModel, step: MeasuredPass, decoded: bool, corrections: Corrections | None
) -> Perturbed:
    array = step.array(protected)
    correct = None if corrections is None else corrections.of
    model = pipeline.read_back(lambda opened: step.put(opened, array), protected, decoded=decoded, correct=correct)
    return Perturbed(model, 0, 0, decoded, None if corrections is None else corrections.cost, array)


def _open_with_warnings(model: ir.Model) -> ProtectedModel:
    """Return a protected model, opened; warn if nothing guards its planes, or its reads are optimistic."""
    protected = open_protected(model)
    protected.warn_unless_guarded()
    protected.warn_of_assumptions()
    return protected


def _perturbed(
    protected: ProtectedModel, step: ReadbackPass, decoded: bool, corrections: Corrections | None
) -> Perturbed:
    correct = None if corrections is None else corrections.of
    model = pipeline.read_back(step.read, protected, decoded=decoded, correct=correct)
    cost = None if corrections is None else corrections.cost
    return Perturbed(model, step.seed, step.trial, decoded, cost)


def _reader(
    protected: ProtectedModel,
    correct: str | Callable[[Any], Any] | None,
    channel: Channel | None,
    modifiers: Modifiers,
    original: ir.Model | None,
) -> Corrections | None:
    """Return the corrections of the reads of a model, or None."""
    if correct is None:
        return None
    from onnx_analog.run.correcting import Corrections

    protected.check_readable()
    corrections = Corrections(protected, correct, read_with(protected.schemes, channel, modifiers), original)
    for text in corrections.warnings:
        logger.warning(text)
    return corrections


@keywords
def readbacks(
    model: AnyModel,
    *,
    seed: int = DEFAULTS.seed,
    trials: int,
    channel: AnyChannel | None = None,
    modifiers: Modifiers = NONE,
    correct: Data | None = None,
    correct_samples: int = DEFAULTS.correct_samples,
    reference: AnyModel | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    decoded: bool = DEFAULTS.decoded,
) -> Iterator[Perturbed]:
    """Return the models of trials 0, 1, ..., each made when it is asked for; see `readback`."""
    arguments = checked(seed=seed, trials=trials, decoded=decoded)
    if arguments["trials"] > MOST_READBACKS:
        raise OptionError(f"trials is {trials}; it must be from 0 to {MOST_READBACKS:,}")
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    resolved = channel_of(channel)
    how = reading_correct(correct, correct_samples, mean, std, preprocess)
    original = corrected_towards(reference, how)
    protected = _open_with_warnings(load_model(model))
    protected.check_readable()  # refuses here, and not at the first trial
    read_with(protected.schemes, resolved, modifiers)
    corrections = _reader(protected, how, resolved, modifiers, original)
    steps = (
        ReadbackPass(seed=arguments["seed"], trial=trial, channel=resolved, modifiers=modifiers)
        for trial in range(arguments["trials"])
    )
    return (_perturbed(protected, step, decoded, corrections) for step in steps)


def account(model: AnyModel) -> Manifest:
    """Return the manifest of a protected model: which cell holds what, and the cost report.

    For a model that was read back, it is the manifest of the levels that were written.

    Raises
    ------
    ModelError
        If the model is not protected, or is damaged.
    """
    return _open_with_warnings(load_model(model)).manifest


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
    correct_samples: int = DEFAULTS.correct_samples,
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
    correct_samples : int, >= 2
        Number of those samples to use, from the first on.
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
    compensate_samples: int = DEFAULTS.compensate_samples,
    correct: Data | None = None,
    correct_samples: int = DEFAULTS.correct_samples,
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
        Cells per weight; with the strategy `redundancy`, cells per small weight, and `large_factor` times as many per
        large weight.
    preset : str or sequence of {"default", "isik2020"}, optional
        `granularity` and `large_fraction` replace those of the preset.
    channel : channel or sequence of channels, optional
        The default is "pcm". `modifiers` change each of them.
    grid : mapping of str to sequence, or "name=value,value", optional
        Further settings of `onnx_analog.coding.scheme.Scheme` to vary, and their values.
    plan : plan, sequence of plans, or mapping of name to plan, optional
        Further points; each has its own channel. See `protect` for the forms of a plan. A file is named by its stem.
        With an empty `strategy`, plans alone are compared, and the other arguments of the grid are refused.
    rivals : bool
        Whether digital rivals are further points, in cells of each channel: int8 and int4, each per tensor and per
        output channel, and entropy-coded quantisation in the steps of `onnx_analog.study.rivals.STEPS`.
    sparsity, prune_scope
        Pruning before protection; see `prune`.
    trials : int, >= 0
        Trials of each point; with `precision`, the trials before the first look.
    precision : float, > 0, optional
        Width of the 95 % interval at which a point has enough trials: in percentage points if the metric is a share,
        else in the metric's unit. See `onnx_analog.study.stopping`.
    max_trials : int, >= 2
        Most trials of a point with `precision`.
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
