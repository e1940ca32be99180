"""The library: each step takes a path, an `onnx.ModelProto` or an `ir.Model`, and returns a value that prints well."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import channels as _channels
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import LARGE_FACTOR, PRESETS, STRATEGIES, Paper, Preset, Scheme
from onnx_analog.disk import writing
from onnx_analog.errors import DataError, ModelError, OptionError, whole
from onnx_analog.graph import files
from onnx_analog.graph.build import opset_of, reason_against
from onnx_analog.graph.files import ModelLike
from onnx_analog.graph.manifest import Manifest, from_json
from onnx_analog.graph.protected import ProtectedModel, opened
from onnx_analog.graph.stored import (
    COMMAND_KEY,
    MANIFEST_KEY,
    SOURCE_KEY,
    is_protected,
    read_back,
    with_channel,
)
from onnx_analog.graph.uses import consumers
from onnx_analog.graph.weights import Selection, Weight, all_tensors, find, referring, scopes
from onnx_analog.passes import ProtectPass, PrunePass, ReadbackPass, pipeline
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset, Input, Preprocessing, from_arrays, load, named_function
from onnx_analog.run.evaluation import Evaluation, Progress
from onnx_analog.run.evaluation import evaluate as evaluate_network
from onnx_analog.run.session import BATCH, Network
from onnx_analog.study import sweeps
from onnx_analog.study.engines import Engine
from onnx_analog.study.grid import Grid
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.sweeps import Point
from onnx_analog.study.worker import Packed

logger = logging.getLogger(__name__)

Paths = str | os.PathLike[str]
Data = Paths | Dataset | Mapping[str, NDArray[Any]]
CELLS_LARGE = 20  # of a large weight, unless one says otherwise


@dataclass(frozen=True)
class Model:
    """A model, as a pass returned it."""

    model: ir.Model

    def save(self, path: Paths, *, force: bool = False) -> None:
        """Write the model: whole or not at all, over nothing that is there unless `force`, and never over its source.

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


@dataclass(frozen=True)
class Pruned(Model):
    """A pruned model."""

    zeros: int
    weights: int

    def __str__(self) -> str:
        return f"{self.zeros:,} of {self.weights:,} weights are zero ({self.zeros / self.weights:.1%})"


@dataclass(frozen=True)
class Protected(Model):
    """A protected model and its manifest."""

    manifest: Manifest

    @property
    def plan(self) -> Plan:
        """How each tensor is stored."""
        return Plan(
            default=None,
            tensors={entry.key: self.manifest.schemes[entry.scheme] for entry in self.manifest.tensors},
        )

    def __str__(self) -> str:
        return str(self.manifest)


@dataclass(frozen=True)
class Perturbed(Model):
    """A model whose levels were read from noisy cells."""

    seed: int
    trial: int
    decoded: bool

    def __str__(self) -> str:
        kind = "plain weights" if self.decoded else "levels"
        return f"{kind} as read from noisy cells: seed {self.seed}, trial {self.trial}"


# -------------------------------------------------------------------------------------------------- inspect


@dataclass(frozen=True)
class Inspection:
    """What of a model would be stored, and what not."""

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
        """Say whether BatchNorm is folded into the convolutions, and what follows."""
        if self.batch_norms:
            nodes = f"{self.batch_norms} node{'s' * (self.batch_norms > 1)}"
            return f"apart ({nodes}): its scales stay digital, so tensors have similar magnitudes"
        if not self.convolutions:
            return "none, and no convolution that it could be folded into"
        return "none in the graph; it may have been folded into the convolutions, so keep --scope tensor"

    def to_dict(self) -> dict[str, Any]:
        """Return the inspection, ready for JSON."""
        return {
            "opset": self.opset,
            "ir_version": self.ir_version,
            "protected": self.protected,
            "read_back": self.read_back,
            "refused": self.refused,
            "batch_norm": {"nodes": self.batch_norms, "convolutions": self.convolutions, "text": self.batch_norm},
            "stored": [row for row in self.rows if row["reason"] is None],
            "skipped": [row for row in self.rows if row["reason"] is not None],
        }


def inspect(model: ModelLike | Model, *, selection: Selection | None = None) -> Inspection:
    """Return what `protect` would store of a model, and why not the rest.

    Whether a tensor's magnitudes lie too far apart is told for the default options, with which each tensor has scales
    of its own. Where all share one (scope "model"), or with one class of weights, more may stay digital; `protect`
    names them.
    """
    loaded = files.load(_bare(model))
    protected = is_protected(loaded)
    kinds = [node.op_type for _, graph, _ in scopes(loaded) for node in graph]
    if protected:
        rows = [{**_stored_row(tensor), "reason": None} for tensor in opened(loaded).tensors]
    else:
        rows = _plain_rows(loaded, selection or Selection())
    return Inspection(
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
    found = find(model, selection)
    unfit = ProtectPass(selection=selection).unfit(found.weights)
    rows = [_row(weight, unfit.get(weight.key)) for weight in found.weights]
    rows += [_row(weight, why) for weight, why in found.skipped]
    return [*rows, *(_referring_row(key, why) for key, why in referring(model))]


def _row(weight: Weight, reason: str | None) -> dict[str, Any]:
    largest = None
    if reason is None:
        largest = float(np.abs(weight.array().astype(np.float32, copy=False)).max(initial=0))
    return {
        "name": weight.name,
        "key": weight.key,
        "shape": list(weight.shape),
        "dtype": weight.tensor.dtype.name,
        "weights": weight.size,
        "used_by": list(weight.consumers()),
        "largest": largest,
        "reason": reason,
    }


def _referring_row(key: str, reason: str) -> dict[str, Any]:
    said = {"name": key.rpartition("/")[2], "key": key, "shape": [], "dtype": "UNDEFINED", "weights": 0}
    return {**said, "used_by": [], "largest": None, "reason": reason}


def _stored_row(tensor: Any) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "key": tensor.key,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype.name,
        "weights": tensor.size,
        "used_by": sorted(consumers(tensor.node.outputs[0])),
        "largest": float(np.abs(tensor.decode().astype(np.float32, copy=False)).max(initial=0)),
    }


# ---------------------------------------------------------------------------------------------------- passes


def prune(
    model: ModelLike | Model, *, sparsity: float, scope: str = "model", selection: Selection | None = None
) -> Pruned:
    """Return a copy of `model` whose smallest weights are zero; see `onnx_analog.passes.PrunePass`."""
    loaded, step = (
        files.load(_bare(model)),
        PrunePass(sparsity=sparsity, scope=scope, selection=selection or Selection()),
    )
    keys = {weight.key for weight in find(loaded, selection).weights}  # one that becomes all zero is selected no more
    pruned = pipeline.run([step], loaded)
    found = [weight for weight in all_tensors(pruned) if weight.key in keys]
    zeros = sum(int((weight.array() == 0).sum()) for weight in found)
    return Pruned(pruned, zeros, sum(weight.tensor.size for weight in found))


def protect(
    model: ModelLike | Model,
    plan: Plan | Scheme | None = None,
    *,
    cells_small: int = 1,
    cells_large: int = CELLS_LARGE,
    strategy: str = "redundancy",
    preset: str = "default",
    granularity: str | None = None,
    large_fraction: float | None = None,
    threshold: float | None = None,
    channel: str | Channel | None = None,
    modifiers: Modifiers = NONE,
    sparsity: float = 0.0,
    prune_scope: str = "model",
    selection: Selection | None = None,
    command: str | None = None,
    **settings: Any,
) -> Protected:
    """Return a protected copy of `model`; without noise it computes what the model did.

    Parameters
    ----------
    model : path, onnx.ModelProto, ir.Model, or what `prune` returned
        It is not changed.
    plan : Plan or Scheme, optional
        How each tensor is stored. The parameters from `cells_small` to `threshold`, which are those of
        `onnx_analog.coding.scheme.Paper`, are then not used, and the others change its schemes.
    channel : str or Channel, optional
        The model of the cells; see `onnx_analog.channels.resolve`. The default is "pcm", or that of the plan.
    modifiers : Modifiers
        Changes to the channel: residuals, shared devices, time of the read, precision. The channel of side information
        takes those that it has a side for.
    sparsity : float, 0 <= sparsity < 1
        Share of weights that are pruned first; 0 prunes nothing.
    prune_scope : {"model", "tensor"}
        Whether magnitudes compete over all tensors.
    command : str, optional
        Kept in the manifest.
    **settings
        Further settings of `onnx_analog.coding.scheme.Scheme`.

    Raises
    ------
    AnalogError
        As `onnx_analog.passes.ProtectPass` says, and if the parameters contradict each other.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog.demo import MODEL
    >>> print(oa.protect(MODEL, cells_small=1, cells_large=20))
    430,500 of 430,500 weights in 839,475 analog cells (r_avg 1.950); all-in 1,270,231 cells, 2.951 per original weight
    """
    if plan is None:
        paper = Paper(
            strategy=strategy,
            cells_small=cells_small,
            cells_large=cells_large,
            preset=preset,
            granularity=granularity,
            large_fraction=large_fraction,
            threshold=threshold,
        )
        _question_cells(paper)
        plan = paper.scheme(channel=channel, **settings)
    elif settings or channel is not None:
        plan = Plan.of(plan).changed(**settings, **({} if channel is None else {"channel": channel}))
    if modifiers != NONE:
        plan = _modified(Plan.of(plan), modifiers)
    step = ProtectPass(plan=Plan.of(plan), selection=selection or Selection())
    passes = pipeline.protecting(step, sparsity=sparsity, prune_scope=prune_scope)
    loaded = files.load(_bare(model))
    for key, value in {SOURCE_KEY: _digest(model), COMMAND_KEY: command, MANIFEST_KEY: None}.items():
        loaded.metadata_props.pop(key, None)  # what it says is of another run
        if value is not None:
            loaded.metadata_props[key] = value
    protected = pipeline.run(passes, loaded)
    return Protected(protected, from_json(protected.metadata_props[MANIFEST_KEY]))


def _modified(plan: Plan, modifiers: Modifiers) -> Plan:
    """Return the plan with the channels of its schemes changed."""

    def changed(scheme: Scheme | None) -> Scheme | None:
        if scheme is None:
            return None
        side = scheme.side_channel
        return scheme.changed(
            channel=modifiers.apply(scheme.channel),
            side_channel=None if side is None else modifiers.apply_where_possible(side),
        )

    return Plan(default=changed(plan.default), tensors={key: changed(scheme) for key, scheme in plan.tensors.items()})


def _question_cells(paper: Paper) -> None:
    """Warn where `cells_large` does nothing, or the opposite of what it is for."""
    if not STRATEGIES[paper.strategy].adaptive:
        if paper.cells_large != CELLS_LARGE:
            logger.warning("strategy %s gives all weights cells_small cells: cells_large is not used", paper.strategy)
    elif paper.cells_large < paper.cells_small:
        logger.warning(
            "cells_large is %d, below cells_small, %d: large weights get fewer cells than small ones",
            paper.cells_large,
            paper.cells_small,
        )


def _digest(model: ModelLike | Model) -> str | None:
    if isinstance(model, str | os.PathLike) and Path(model).is_file():  # a pipe has been read, and is empty now
        return files.file_digest(model)
    return None


def readback(
    model: ModelLike | Model,
    *,
    seed: int = 0,
    trial: int = 0,
    channel: str | Channel | None = None,
    modifiers: Modifiers = NONE,
    decoded: bool = False,
) -> Perturbed:
    """Return a protected model as it reads from one programmed array.

    Parameters
    ----------
    model : path, onnx.ModelProto or ir.Model
        A protected model; it is not changed. One that was read back already is refused.
    seed, trial : int, >= 0
        `evaluate` with this seed used exactly these weights in this trial.
    channel : str or Channel, optional
        Replaces the stored channel, if its span covers the stored one's.
    modifiers : Modifiers
        Changes to that channel, or to the stored one.
    decoded : bool
        Return plain float weights, for any other tool, in place of levels and the functions that decode them.

    Raises
    ------
    ModelError
        If the model is not protected, is damaged, or was read back already.
    ChannelError
        If the channel cannot hold the levels.
    OptionError
        If seed or trial is not from 0 to 2^63 - 1.
    """
    step = ReadbackPass(seed=seed, trial=trial, channel=_resolved(channel), modifiers=modifiers)
    return _perturbed(_opened(files.load(_bare(model))), step, decoded)


def _resolved(channel: str | Channel | None) -> Channel | None:
    """Return the channel; call it before the model is opened, which may be of the channel's class."""
    return None if channel is None else _channels.resolve(channel)


def _opened(model: ir.Model) -> ProtectedModel:
    """Return a protected model, opened; warn if nothing guards its planes."""
    protected = opened(model)
    protected.warn_unless_guarded()
    return protected


def _perturbed(protected: ProtectedModel, step: ReadbackPass, decoded: bool) -> Perturbed:
    return Perturbed(pipeline.read_back(step, protected, decoded=decoded), step.seed, step.trial, decoded)


def readbacks(
    model: ModelLike | Model,
    *,
    seed: int = 0,
    trials: int,
    channel: str | Channel | None = None,
    modifiers: Modifiers = NONE,
    decoded: bool = False,
) -> Iterator[Perturbed]:
    """Return the models of trials 0, 1, ..., each made when it is asked for; see `readback`."""
    if whole("trials", trials) < 0:
        raise OptionError(f"trials is {trials}; it must be 0 or more")
    channel = _resolved(channel)
    protected = _opened(files.load(_bare(model)))
    _read_with(protected, channel, modifiers)  # what cannot be read is refused here, and not at the first trial
    steps = (ReadbackPass(seed=seed, trial=trial, channel=channel, modifiers=modifiers) for trial in range(trials))
    return (_perturbed(protected, step, decoded) for step in steps)


def _read_with(protected: ProtectedModel, channel: Channel | None, modifiers: Modifiers) -> list[Scheme]:
    """Return the schemes of a protected model, with the channel that it is to be read through."""
    protected.check_readable()
    return [with_channel(scheme, channel, modifiers) for scheme in protected.schemes]


def account(model: ModelLike | Model) -> Manifest:
    """Return the manifest of a protected model: every cell, and what it all costs.

    Of a model that was read back, it is that of the levels that were written.

    Raises
    ------
    ModelError
        If the model is not protected, or is damaged.
    """
    return _opened(files.load(_bare(model))).manifest


# ------------------------------------------------------------------------------------------------- evaluate


def evaluate(
    model: ModelLike | Model,
    data: Data,
    *,
    trials: int = 25,
    seed: int = 0,
    channel: str | Channel | None = None,
    modifiers: Modifiers = NONE,
    reference: ModelLike | Model | None = None,
    mean: Iterable[float] = (0.0,),
    std: Iterable[float] = (1.0,),
    preprocess: str | None = None,
    metric: str | metrics.Function | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    samples: int | None = None,
    batch: int = BATCH,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
    clean: list[Any] | None = None,
    progress: Progress = lambda: None,
) -> Evaluation:
    """Return what a model is worth: without noise and, if it is protected, in `trials` trials of its memory.

    Parameters
    ----------
    model : path, onnx.ModelProto, ir.Model, or what `protect`, `prune` or `readback` returned
        A plain model is evaluated as it is, with no trials.
    data : path of an npz file, mapping of name to array, or Dataset
        See `onnx_analog.data.load`.
    channel : str or Channel, optional
        Replaces the stored channel, if its span covers the stored one's.
    modifiers : Modifiers
        Changes to that channel, or to the stored one.
    reference : model, optional
        The original, so that what pruning cost and what noise cost are told apart.
    mean, std, preprocess
        How uint8 images become inputs; see `onnx_analog.data.Preprocessing`.
    metric : name, "module:function" or function, optional
        A name of `onnx_analog.run.metrics.METRICS`; by default the one that fits, see `onnx_analog.run.metrics.choose`.
    output : str, optional
        Name of the output that is measured; by default the first that fits.
    class_axis : int, optional
        Axis of that output which holds the classes, where shapes leave it open.
    at_least, at_most : float, optional
        What the value is to reach: `holds` and `verdict` of what is returned say whether it does.
    samples : int, >= 1, optional
        Only the first so many.
    clean : list of outputs, optional
        All outputs of the model without noise, where they are known already.

    Raises
    ------
    OptionError
        If an option is out of its range, or does not go with the metric.
    DataError
        If the data do not fit the model, or they do not tell what is to be measured.
    """
    _check_samples(samples)
    named = _metric(metric)
    loaded, channel = files.load(_bare(model)), _resolved(channel)
    protected = _opened(loaded) if is_protected(loaded) else None
    schemes = _schemes(protected, channel, modifiers)
    network = Network(protected or loaded, providers=providers, threads=threads)
    preprocessing = _preprocessing(mean, std, preprocess)
    original = None if reference is None else files.load(_bare(reference))
    found = evaluate_network(
        network,
        _dataset(data, network.inputs, preprocessing, samples),
        schemes,
        trials=trials,
        seed=seed,
        metric=named,
        output=output,
        class_axis=class_axis,
        at_least=at_least,
        at_most=at_most,
        batch=batch,
        clean=clean,
        reference=None if original is None else Network(original, providers=providers, threads=threads),
        model=Path(model).name if isinstance(model, str | os.PathLike) else None,
        progress=progress,
    )
    for text in found.warnings:
        logger.warning(text)
    return found


def _check_samples(samples: int | None) -> None:
    if samples is not None and whole("samples", samples) < 1:
        raise OptionError(f"samples is {samples}; it must be 1 or more")


def _preprocessing(mean: Iterable[float], std: Iterable[float], function: str | None) -> Preprocessing:
    return Preprocessing(mean=_numbers("mean", mean), std=_numbers("std", std), function=function)


def _numbers(name: str, given: Iterable[float]) -> tuple[float, ...]:
    try:
        return tuple(given)
    except TypeError:
        raise OptionError(f"{name} is {given!r}; it must be a list with one number, or one for each channel") from None


def _bare(model: ModelLike | Model) -> ModelLike:
    return model.model if isinstance(model, Model) else model


def _dataset(data: Data, inputs: Sequence[Input], preprocessing: Preprocessing, samples: int | None) -> Dataset:
    if isinstance(data, Dataset):
        return data if samples is None else data.head(samples)
    if isinstance(data, Mapping):
        return from_arrays(data, inputs, preprocessing, samples=samples)
    if not isinstance(data, str | os.PathLike):
        raise DataError(f"data are a path of an npz file, a mapping of names to arrays, or a Dataset, not {type(data)}")
    return load(Path(data), inputs, preprocessing, samples=samples)


def _schemes(protected: ProtectedModel | None, channel: Channel | None, modifiers: Modifiers) -> list[Scheme] | None:
    if protected is not None:
        return _read_with(protected, channel, modifiers)
    if channel is not None or modifiers != NONE:
        raise ModelError("the model is not protected, so no channel reads it: protect it first")
    return None


def _metric(metric: str | metrics.Function | None) -> metrics.Named | None:
    if metric is None:
        return None
    if isinstance(metric, str):
        if ":" not in metric:
            if metric not in metrics.METRICS:
                raise OptionError(f"{metric!r} is not a module:function, and not one of {', '.join(metrics.NAMES)}")
            return metric, metrics.METRICS[metric].function
        return metric, named_function(metric)
    if not callable(metric):
        raise OptionError(f"metric is {metric!r}; it must be a name, module:function or a function")
    return getattr(metric, "__name__", "metric"), metric


# ---------------------------------------------------------------------------------------------------- sweep


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What came of a grid: its points in their order."""

    points: tuple[Point, ...]
    folder: Path | None = None

    def __str__(self) -> str:
        lines = []
        for point in self.points:
            preset = point.setting.preset
            where = f"{point.model}, {point.setting.channel}, {preset.granularity}, {preset.large_fraction:.2%} large"
            what = f"{point.strategy} at {point.cells} cells ({point.cost:.2f} all-in for each weight)"
            lines.append(f"{where}, {what}: {point.evaluation.told(point.ci95)}")
        return "\n".join(lines)


def sweep(
    models: ModelLike | Model | Sequence[ModelLike | Model],
    data: Data,
    *,
    strategies: str | Sequence[str] = tuple(STRATEGIES),
    cells: int | Sequence[int] = (1, 2, 3, 5, 10, 20, 30),
    large_factor: int = LARGE_FACTOR,
    presets: str | Sequence[str] = ("default",),
    granularity: str | None = None,
    large_fraction: float | None = None,
    channels: str | Channel | Sequence[str | Channel] = (_channels.DEFAULT,),
    axes: Mapping[str, Sequence[Any]] | None = None,
    plans: Mapping[str, Plan | Scheme] | None = None,
    modifiers: Modifiers = NONE,
    selection: Selection | None = None,
    sparsity: float = 0.0,
    prune_scope: str = "model",
    trials: int = 25,
    precision: float | None = None,
    max_trials: int = 1000,
    seed: int = 0,
    mean: Iterable[float] = (0.0,),
    std: Iterable[float] = (1.0,),
    preprocess: str | None = None,
    metric: str | metrics.Function | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    samples: int | None = None,
    batch: int = BATCH,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    engine: Engine | None = None,
    out: Paths | None = None,
    progress: sweeps.Progress = lambda *_: None,
) -> Swept:
    """Return what strategies × cells × presets × channels × models leave of a network, in many trials each.

    Numbers do not depend on the engine, on how many workers it has, or on how often the sweep was stopped.

    Parameters
    ----------
    models : model or sequence of them
        Paths, onnx.ModelProto or ir.Model; not protected.
    data : path of an npz file, or Dataset
    cells : sequence of int, >= 1
        Of every weight; for `redundancy`, of a small one, and `large_factor` times as many of a large one.
    presets : sequence of {"default", "isik2020"}
        `granularity` and `large_fraction` replace theirs.
    channels : sequence of str or Channel
        `modifiers` change each of them.
    axes : mapping of str to sequence, optional
        Further settings of `onnx_analog.coding.scheme.Scheme` to vary, and their values.
    plans : mapping of str to Plan or Scheme, optional
        Further points, by name; each has its own channel.
    sparsity, prune_scope
        Pruned first; see `prune`.
    trials : int, >= 0
        Of each point; with `precision`, those before the first look.
    precision : float, > 0, optional
        Width of the 95 % interval at which a point has trials enough: in percentage points where the metric is a share,
        else in the metric's unit. See `onnx_analog.study.stopping` for what the interval promises.
    max_trials : int
        With `precision`, no more than these.
    mean, std, preprocess, metric, output, class_axis, samples, batch, providers
        As in `evaluate`.
    engine : Engine, optional
        Of `onnx_analog.study.engines.build`; by default one task after another in this process.
    out : path, optional
        Folder for the results; see `onnx_analog.study.run_folder`. What is there already is not computed again.
    progress : function
        Called with how many trials are done, and how many are planned.

    Raises
    ------
    AnalogError
        If anything is out of its range or does not fit, before the first trial; or if workers die again and again.
    """
    _check_samples(samples)
    named = _metric(metric)
    selection = selection or Selection()
    listed = _listed(models, str | os.PathLike | onnx.ModelProto | ir.Model | Model)
    several: Sequence[ModelLike] = [_bare(model) for model in listed]
    stopping = Stopping(trials=trials, precision=precision, max_trials=max_trials)
    grid = Grid(
        strategies=tuple(_listed(strategies, str)),
        cells=tuple(_listed(cells, int)),
        presets=_presets(_listed(presets, str), granularity, large_fraction),
        channels=tuple(modifiers.apply(_channels.resolve(spec)) for spec in _listed(channels, str | Channel)),
        large_factor=large_factor,
        axes=axes or {},
        plans={name: Plan.of(plan) for name, plan in (plans or {}).items()},
        selection=selection,
        seed=seed,
    )
    preprocessing = _preprocessing(mean, std, preprocess)
    cases = []
    for place, model in enumerate(several):
        loaded = files.load(model)
        if sparsity:
            loaded = prune(loaded, sparsity=sparsity, scope=prune_scope, selection=selection).model
        dataset = _dataset(data, Network(loaded).inputs, preprocessing, samples)
        cases.append(sweeps.Case(name=_model_name(model, place), model=loaded, data=dataset))
    facts = {
        "input_mean": list(preprocessing.mean), "input_std": list(preprocessing.std), "preprocess": preprocess,
        "sparsity": sparsity, "prune_scope": prune_scope, **_data_facts(data),
        "inputs_sha256": [case.data.digest() for case in cases], **_model_facts(several, cases),
    }  # fmt: skip
    asked: dict[str, Any] = {"metric": named, "output": output, "class_axis": class_axis, "batch": batch}
    plan = sweeps.prepare(cases, grid, stopping, **asked, providers=providers, facts=facts)
    if precision is not None and plan.metric.metric.share:
        plan = replace(plan, stopping=replace(stopping, precision=precision / 100))
    where = None if out is None else Path(out)
    return Swept(points=tuple(sweeps.sweep(plan, engine=engine, out=where, progress=progress)), folder=where)


def _listed(given: Any, one: Any) -> list[Any]:
    """Return several as a list, and one as a list of one."""
    return [given] if isinstance(given, one) else list(given)


def _presets(names: Sequence[str], granularity: str | None, large_fraction: float | None) -> tuple[Preset, ...]:
    chosen = {name: _preset(name, granularity, large_fraction) for name in names}
    if len(chosen) > len(set(chosen.values())):
        raise OptionError(
            f"the presets {', '.join(chosen)} do not differ once granularity and large_fraction are given: name one"
        )
    return tuple(chosen[name] for name in names)


def _preset(name: str, granularity: str | None, large_fraction: float | None) -> Preset:
    asked = Paper(preset=name, granularity=granularity, large_fraction=large_fraction)  # checks them
    preset = PRESETS[asked.preset]
    return Preset(
        granularity=preset.granularity if granularity is None else granularity,
        large_fraction=preset.large_fraction if large_fraction is None else large_fraction,
    )


def _model_name(model: ModelLike, place: int) -> str:
    return Path(model).stem if isinstance(model, str | os.PathLike) else f"model{place}"


def _model_facts(models: Sequence[ModelLike], cases: Sequence[sweeps.Case]) -> dict[str, Any]:
    """Return the digests of the files, and of all that each model is evaluated with, its weights too."""
    digests = [files.file_digest(m) if isinstance(m, str | os.PathLike) else None for m in models]
    return {
        "models": [case.name for case in cases],
        "models_sha256": digests,
        "weights_sha256": [Packed.of(case.model).digest() for case in cases],
    }


def _data_facts(data: Data) -> dict[str, Any]:
    if isinstance(data, Dataset):
        return {"data": None, "data_sha256": data.digest()}
    if isinstance(data, Mapping):
        return {"data": None, "data_sha256": None}  # inputs_sha256 says what they are
    return {"data": Path(data).name, "data_sha256": files.file_digest(data)}
