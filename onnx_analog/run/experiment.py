"""Scores of a network: a model, data and a metric, and the plans that are scored with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from loky import cpu_count

from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.assumptions import OPTIMISTIC, assumptions
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import DataError, ModelError, OptionError, require_int
from onnx_analog.graph.accounting import totals_of
from onnx_analog.graph.build import Stored, detached
from onnx_analog.graph.manifest import Totals
from onnx_analog.graph.protected import ProtectedModel, opened
from onnx_analog.graph.stored import StoredTensor, is_protected, with_channel
from onnx_analog.graph.weights import Selection, Weight, find
from onnx_analog.passes import ProtectPass, pipeline
from onnx_analog.passes.protect import replace_all
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset, Input
from onnx_analog.run.evaluation import Evaluation, check_limits
from onnx_analog.run.read import Decoder, Unpacked, read_all
from onnx_analog.run.session import BATCH, Network
from onnx_analog.settings import settings_of

Progress = Callable[[], None]

_KEPT = 2  # sets of planes that are kept: those of points that differ in cells or channel are the same
# What a level is read with; every other setting of a scheme decides what is written.
_OF_READING = ("channel", "estimator", "side_bits_per_cell", "side_channel", "side_cells", "side_copies")


class Trial(NamedTuple):
    """The result of one trial: the metric, and the signal-to-noise ratio of the outputs that it reads, in dB.

    Either may be NaN: where there is no such number, as no ratio of whole numbers.
    """

    value: float
    sqnr_db: float


class Trials:
    """Trials of one protected model on one data set; what does not depend on the trial is computed once.

    Parameters
    ----------
    network : Network
        Of the protected model.
    data : Dataset
    decoders : mapping of str to Decoder
        Of each weight that trials exchange, by its name in the network.
    metric : function
        See `onnx_analog.run.metrics`.
    clean : list of outputs
        Those without noise that the metric reads.
    batch : int, >= 1
        Samples a call.
    totals : Totals
        What the protected model costs.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        decoders: Mapping[str, Decoder],
        metric: metrics.Function,
        clean: list[Any],
        *,
        batch: int = BATCH,
        totals: Totals,
    ) -> None:
        self._network, self._data, self._decoders, self._metric = network, data, decoders, metric
        self._clean, self._batch, self.totals = clean, batch, totals
        self._places = metric.places if isinstance(metric, metrics.Chosen) else None
        count = network.threads or cpu_count()
        self._threads = ThreadPoolExecutor(count) if count > 1 else None

    def run(self, *, seed: int, trial: int) -> Trial:
        """Return what is left of the network in one programming and one read of its memory."""
        weights = read_all(self._decoders, seed=seed, trial=trial, threads=self._threads)
        outputs = self._network.run(self._data, weights, batch=self._batch, places=self._places)
        value = float(self._metric(outputs, labels=self._data.labels, clean=self._clean))
        return Trial(value, metrics.output_sqnr_db(outputs, self._clean))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Planes:
    """A model's planes in memory, for all plans that write the same ones."""

    schemes: tuple[Scheme, ...]  # that wrote them; those of other plans are in the same order
    tensors: tuple[StoredTensor, ...]
    coded: Sequence[tuple[Weight, Stored]] = ()  # of a plan
    selection: Selection = field(default_factory=Selection)

    @cached_property
    def weights(self) -> Mapping[str, Unpacked]:
        """The tensors by storage key, ready to be decoded."""
        return {tensor.key: Unpacked(tensor) for tensor in self.tensors}

    def totals(self, schemes: Mapping[Scheme, Scheme]) -> Totals:
        """Return what the planes cost with other schemes in place of those that wrote them."""
        by_key = {tensor.key: tensor for tensor in self.tensors}  # one, if a tool inlined what is called twice
        for tensor in by_key.values():
            _ = tensor.class_counts, tensor.level_class  # which are kept, and are the same for all plans
        return totals_of([tensor.read_as(schemes[tensor.scheme]) for tensor in by_key.values()])


class _Skeleton(NamedTuple):
    """A network without the weights that trials exchange: the same for all plans that store the same tensors."""

    network: Network
    keys: Mapping[str, str]  # storage keys of those weights, by name in the network


class Experiment:
    """A model, data and a metric, opened once: `score` says how well the model works under a plan.

    The outputs without noise are computed once. Plans that differ in cells, channel or side information only share
    their planes, and all plans that store the same tensors share a session's skeleton. One thread may use it at a time.

    Parameters
    ----------
    model : ir.Model or ProtectedModel
        A plain model, which plans protect, or a protected one. It is not changed.
    data : Dataset, or function
        The function is given the model's inputs, and returns the data for them.
    metric : (name, function), or Chosen, optional
        The default is the one that fits the data; see `onnx_analog.run.metrics`.
    output : str, optional
        Name of the output that is measured.
    class_axis : int, optional
        Axis of that output which holds the classes.
    batch : int, >= 1
        Samples a call, unless the model fixes it.
    providers : sequence of str
        Of onnxruntime.
    threads : int
        Threads within an operator; 0 leaves it to onnxruntime.
    clean : list of outputs, optional
        All outputs without noise, where they are known; with a Chosen metric, those that it reads.
    reference : ir.Model, optional
        The original model, before pruning and protection.
    name : str, optional
        Of the model.

    Raises
    ------
    AnalogError
        If the model cannot be run, the data do not fit it, or the metric does not fit both.

    Examples
    --------
    >>> from onnx_analog import demo
    >>> from onnx_analog.graph import files
    >>> from onnx_analog.run.data import load
    >>> experiment = Experiment(files.load(demo.MODEL), lambda inputs: load(demo.IMAGES, inputs).head(100))
    >>> score = experiment.score(Scheme.int8(), trials=1)
    >>> score.metric, score.clean - score.values[0]
    ('top1', 0.0)
    """

    def __init__(
        self,
        model: ir.Model | ProtectedModel,
        data: Dataset | Callable[[Sequence[Input]], Dataset],
        metric: metrics.Named | metrics.Function | None = None,
        *,
        output: str | None = None,
        class_axis: int | None = None,
        batch: int = BATCH,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
        clean: list[Any] | None = None,
        reference: ir.Model | None = None,
        name: str | None = None,
    ) -> None:
        if require_int("batch", batch) < 1:
            raise OptionError(f"batch is {batch}; it must be 1 or more")
        self._batch = batch
        self._running: dict[str, Any] = {"providers": providers, "threads": threads}
        self.name = name
        if isinstance(model, ir.Model) and is_protected(model):
            model = opened(model)
        self._protected = model if isinstance(model, ProtectedModel) else None
        self._model = model.model if isinstance(model, ProtectedModel) else model
        self._reference = reference
        self.data = data if isinstance(data, Dataset) else data(self._network.inputs)
        self._skeletons: dict[Any, _Skeleton] = {}
        self._planes: dict[Any, _Planes] = {}  # the last that was used is at the end
        self.metric: metrics.Function
        if metric is None or isinstance(metric, tuple):
            self.metric, self.clean = _measure(
                self._network, self.data, metric=metric, output=output, class_axis=class_axis, batch=batch, clean=clean
            )
        else:
            self.metric = metric
            self.clean = self._network.run(self.data, batch=batch) if clean is None else clean

    @property
    def chosen(self) -> metrics.Chosen:
        """The metric, and what it measures."""
        assert isinstance(self.metric, metrics.Chosen)
        return self.metric

    @cached_property
    def clean_value(self) -> float | None:
        """The metric without noise; None where it compares with that, and is no share."""
        if self.chosen.compares and not self.chosen.metric.share:
            return None
        return float(self.metric(self.clean, labels=self.data.labels, clean=self.clean))

    @cached_property
    def reference_value(self) -> float | None:
        """The metric of the original model; None if there is none."""
        if self._reference is None:
            return None
        return _original(Network(self._reference, **self._running), self.data, self.clean, self.chosen, self._batch)

    # ------------------------------------------------------------------------------------------------- scoring

    def score(
        self,
        plan: Plan | Scheme | None = None,
        *,
        seed: int = 0,
        trials: int = 25,
        selection: Selection | None = None,
        channel: str | Channel | None = None,
        modifiers: Modifiers = NONE,
        at_least: float | None = None,
        at_most: float | None = None,
        progress: Progress = lambda: None,
    ) -> Evaluation:
        """Return how well the model works under `plan`: without noise, and in `trials` trials of its memory.

        Parameters
        ----------
        plan : Plan or Scheme, optional
            How a plain model is stored. Without one, the model is evaluated as it is: a plain model has no trials.
        seed, trials : int, >= 0
        selection : Selection, optional
            Which tensors the plan is for.
        channel : str or Channel, optional
            Replaces the channels of the plan, or of the protected model, when they are read; its range must cover
            theirs.
        modifiers : Modifiers
            Changes to that channel, or to theirs.
        at_least, at_most : float, optional
            What the value is to reach; see `Evaluation`.
        progress : function
            Called after each trial.

        Raises
        ------
        OptionError
            If an option is out of its range, or does not go with the metric.
        ModelError
            If the model cannot be stored so.
        """
        for name, count in (("trials", trials), ("seed", seed)):
            if require_int(name, count) < 0:
                raise OptionError(f"{name} is {count}; it must be 0 or more")
        check_limits(self.chosen.metric, at_least, at_most)
        schemes = self._schemes(plan, channel, modifiers)
        _ = self.warnings  # what is without noise comes first: where it cannot be compared, no trial is made
        run: list[Trial] = []
        if schemes and trials:
            memory = self.trials(plan, selection=selection, channel=channel, modifiers=modifiers)
            for trial in range(trials):
                run.append(memory.run(seed=seed, trial=trial))
                progress()
        used = ", ".join(dict.fromkeys(str(scheme.channel) for scheme in schemes.values()))
        return self.evaluation(
            run, seed=seed, channel=used or None, schemes=schemes.values(), at_least=at_least, at_most=at_most
        )

    def trials(
        self,
        plan: Plan | Scheme | None = None,
        *,
        selection: Selection | None = None,
        channel: str | Channel | None = None,
        modifiers: Modifiers = NONE,
    ) -> Trials:
        """Return the trials of a plan, ready to run; see `score` for the parameters.

        Trials of several plans share buffers: each may be run after the other, but not at the same time.
        """
        schemes = self._schemes(plan, channel, modifiers)
        if not schemes:
            raise ModelError("the model is not protected, so it has no trials: give a plan, or protect it first")
        planes = self._stored if plan is None else self._written(Plan.of(plan), selection or Selection())
        skeleton = self._skeleton(planes)
        read = dict(zip(planes.schemes, schemes.values(), strict=True))
        weights = {name: planes.weights[key] for name, key in skeleton.keys.items()}
        return Trials(
            skeleton.network,
            self.data,
            {name: Decoder(weight, read[weight.tensor.scheme]) for name, weight in weights.items()},
            self.metric,
            self.clean,
            batch=self._batch,
            totals=planes.totals(dict(zip(planes.schemes, schemes, strict=True))),
        )

    def totals(self, plan: Plan | Scheme, *, selection: Selection | None = None) -> Totals:
        """Return what a plan stores, and what it costs."""
        planes = self._written(Plan.of(plan), selection or Selection())
        return planes.totals(dict(zip(planes.schemes, Plan.of(plan).schemes, strict=True)))

    def evaluation(
        self,
        trials: Sequence[Trial],
        *,
        seed: int = 0,
        channel: str | None = None,
        schemes: Iterable[Scheme] = (),
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Evaluation:
        """Return the evaluation that trials of this experiment, made anywhere and read as `schemes`, amount to."""
        chosen, values = self.chosen, tuple(trial.value for trial in trials)
        return Evaluation(
            metric=chosen.metric.name,
            samples=len(self.data),
            clean=self.clean_value,
            values=values,
            reference=self.reference_value,
            sqnr_db=tuple(trial.sqnr_db for trial in trials),
            seed=seed,
            output=chosen.output,
            class_axis=chosen.class_axis,
            share=chosen.metric.share,
            higher_is_better=chosen.metric.higher_is_better,
            compares=chosen.compares,
            at_least=at_least,
            at_most=at_most,
            preprocessing=self.data.preprocessing,
            warnings=(*self.warnings, *_of_nan(chosen, values), *(OPTIMISTIC for _ in assumptions(schemes) if values)),
            model=self.name,
            channel=channel,
        )

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the model without noise."""
        return tuple(doubts(self.chosen, len(self.data), self.clean, self.clean_value, self.reference_value))

    # ------------------------------------------------------------------------------------------------- storing

    def _schemes(
        self, plan: Plan | Scheme | None, channel: str | Channel | None, modifiers: Modifiers
    ) -> dict[Scheme, Scheme]:
        """Return the schemes that write, each with the one that it is read with; none for a plain model."""
        if plan is not None:
            schemes = Plan.of(plan).schemes
        elif self._protected is not None:
            self._protected.check_readable()
            schemes = tuple(dict.fromkeys(self._protected.schemes))
        elif channel is None and modifiers == NONE:
            return {}
        else:
            raise ModelError("the model is not protected, so no channel reads it: protect it first")
        return {scheme: with_channel(scheme, channel, modifiers) for scheme in schemes}

    @cached_property
    def _network(self) -> Network:
        return Network(self._protected or self._model, **self._running)

    @cached_property
    def _stored(self) -> _Planes:
        """The planes of a model that is protected."""
        assert self._protected is not None
        return _Planes(schemes=tuple(dict.fromkeys(self._protected.schemes)), tensors=self._protected.tensors)

    def _written(self, plan: Plan, selection: Selection) -> _Planes:
        """Return the planes that a plan writes; those of the last plans are kept."""
        key = (_what_is_written(plan), selection)
        planes = self._planes.pop(key, None)
        while planes is None and len(self._planes) >= _KEPT:
            del self._planes[next(iter(self._planes))]  # before the next ones take its place in memory
        self._planes[key] = planes = planes or self._write(plan, selection)
        return planes

    def _write(self, plan: Plan, selection: Selection) -> _Planes:
        coded = pipeline.stored(ProtectPass(plan=plan, selection=selection), self._model)
        tensors = tuple(detached(self._model, coded))
        return _Planes(schemes=plan.schemes, tensors=tensors, coded=coded, selection=selection)

    def _skeleton(self, planes: _Planes) -> _Skeleton:
        """Return the network with what is stored taken out; the last one is kept."""
        key = tuple((tensor.key, tensor.shape, tensor.dtype) for tensor in planes.tensors)
        if key not in self._skeletons:
            network = self._network if planes.coded == () else self._protected_network(planes)
            keys = {name: tensor.key for name, tensor in network.tensors.items()}
            if network is not self._network:
                network.tensors = {}  # or they would stay in memory
            self._skeletons = {key: _Skeleton(network, keys)}
        return self._skeletons[key]

    def _protected_network(self, planes: _Planes) -> Network:
        model = self._model.clone()
        weights = {weight.key: weight for weight in find(model, planes.selection).weights}
        replace_all(model, [(weights[weight.key], stored) for weight, stored in planes.coded])
        return Network(model, **self._running)


def _what_is_written(plan: Plan) -> Any:
    """Return what is equal for two plans that write the same planes, whatever reads them."""
    numbers = {scheme: number for number, scheme in enumerate(plan.schemes)}
    which = (("", plan.default), *plan.tensors.items(), *plan.patterns.items())
    return (
        tuple(map(_of_writing, plan.schemes)),
        tuple((key, None if scheme is None else numbers[scheme]) for key, scheme in which),
    )


def _of_writing(scheme: Scheme) -> Any:
    settings = {name: getattr(scheme, name) for name in settings_of(Scheme) if name not in _OF_READING}
    settings["cells"] = tuple(cells > 0 for cells in scheme.cells_of_class)
    return scheme.channel.span, tuple(settings.items())


# ---------------------------------------------------------------------------------------------- without noise


def _measure(
    network: Network,
    data: Dataset,
    *,
    metric: metrics.Named | None,
    output: str | None,
    class_axis: int | None,
    batch: int,
    clean: list[Any] | None,
) -> tuple[metrics.Chosen, list[Any]]:
    """Return the metric that fits network and data, and the outputs without noise that it reads."""
    fields = network.outputs
    if clean is not None and len(clean) != len(fields):
        raise DataError(f"there are {len(clean)} outputs without noise, and the model has {len(fields)}")
    held: dict[int, Any] = dict(enumerate(clean or ()))

    def fetch(number: int) -> Any:
        if number not in held:
            (held[number],) = network.run(data, batch=batch, places=[number])
        return held[number]

    chosen = metrics.choose(
        fields,
        fetch,
        data.labels,
        samples=len(data),
        named=metric,
        output=output,
        class_axis=class_axis,
        one_by_one=data.one_by_one,
        dynamic=frozenset(side for wanted in network.inputs for side in wanted.shape if isinstance(side, str)),
    )
    if chosen.places is None:
        return chosen, network.run(data, batch=batch) if clean is None else clean
    return chosen, [fetch(number) for number in chosen.places]


def _original(reference: Network, data: Dataset, clean: list[Any], metric: metrics.Chosen, batch: int) -> float:
    if metric.places is not None and max(metric.places) >= len(reference.outputs):
        raise ModelError("the reference has fewer outputs than the model: it is not its original")
    outputs = reference.run(data, batch=batch, places=metric.places)
    if [_shape(output) for output in clean] != [_shape(output) for output in outputs]:
        raise ModelError("the reference has outputs of other shapes than the model: it is not its original")
    return float(metric(outputs, labels=data.labels, clean=clean))


def _shape(output: Any) -> Any:
    return output.shape if isinstance(output, np.ndarray) else len(output)


# ---------------------------------------------------------------------------------------------- doubts

_FAR = 0.1  # by which a share without noise is far below the original's
_ENOUGH = 30  # samples, of which an accuracy can be told from chance


def doubts(
    chosen: metrics.Chosen, samples: int, clean: list[Any], alone: float | None, original: float | None
) -> Iterator[str]:
    """Yield what to doubt of a model without noise, each as a sentence."""
    if chosen.output is not None and not _has_axis_of(clean[0], samples):
        yield f"output {chosen.output!r} has no axis of samples, so its values may depend on --batch"
    nan = metrics.nan_share(clean)
    if nan:
        yield f"{nan:.1%} of the outputs without noise are NaN"
    if chosen.metric.name == "top1" and chosen.classes and samples >= _ENOUGH and alone is not None:
        chance = 1 / chosen.classes
        if alone <= chance + 2 * math.sqrt(chance * (1 - chance) / samples):
            yield (
                f"top1 without noise is {alone:.4f}, no better than chance ({chance:.4f} of {chosen.classes} classes): "
                "check --mean, --std, --preprocess and the labels"
            )
    if chosen.metric.share and alone is not None and original is not None and alone < original - _FAR:
        yield (
            f"{chosen.metric.name} without noise is {alone:.4f}, far below the original's {original:.4f}: what is lost "
            "is not lost to noise"
        )


def _of_nan(chosen: metrics.Chosen, values: Sequence[float]) -> Iterator[str]:
    count = sum(map(math.isnan, values))
    if count and chosen.metric.name == "agreement":
        yield (
            "agreement says nothing here: all largest scores stayed the same although noise changed the scores by more "
            "than themselves. Name sqnr_db with --metric, or give labels"
        )
    elif count:
        why = ": outputs are NaN, or noise changed their shape" if chosen.metric.name in metrics.METRICS else ""
        yield f"{chosen.metric.name} has no value (NaN) in {count:,} of {len(values):,} trials{why}"


def _has_axis_of(output: Any, samples: int) -> bool:
    """Return whether an output, or each part of a sequence, has an entry for each sample."""
    if isinstance(output, np.ndarray):
        return samples in output.shape
    if not isinstance(output, list) or len(output) == samples:
        return isinstance(output, list)
    return all(isinstance(part, np.ndarray) and samples in part.shape for part in output)
