"""Scores of a network: a model, data and a metric, and the plans that are scored with them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from onnx_analog.arguments import DEFAULTS, check_type, checked
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.assumptions import OPTIMISTIC, assumes_addresses
from onnx_analog.coding.limit import Limit
from onnx_analog.coding.plan import Plan, reading_warnings
from onnx_analog.coding.scheme import Scheme
from onnx_analog.display import counted, score
from onnx_analog.errors import DataError, ModelError, OptionError
from onnx_analog.graph.correction import Cost
from onnx_analog.graph.explorer import users_of
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.stored import channels_of
from onnx_analog.graph.uses import output_axis
from onnx_analog.graph.weights import Selection
from onnx_analog.run import metrics
from onnx_analog.run._doubts import doubts, doubts_of_stored, doubts_of_values
from onnx_analog.run._images import doubt_of_scale
from onnx_analog.run._planes import Planes, what_is_written
from onnx_analog.run.choice import choose
from onnx_analog.run.correcting import (
    Correct,
    corrects_nothing,
    other_source,
    seen_samples,
    towards_stored,
)
from onnx_analog.run.data import Dataset, Input
from onnx_analog.run.evaluation import Evaluation, check_limits
from onnx_analog.run.parts import Parts
from onnx_analog.run.probe import Array, Probe
from onnx_analog.run.read import Decoder, reads_alike
from onnx_analog.run.session import Network
from onnx_analog.run.storage import Compensate, Storage, selection_of
from onnx_analog.run.trials import Trial, Trials

logger = logging.getLogger(__name__)

Progress = Callable[[], None]


class Experiment(Storage):
    """A model, data and a metric, opened once: `score` says how well the model works under a plan.

    Metrics compare with the outputs of the original: of the reference or, without one, of the model if it is plain.
    Those of a protected model without a reference are compared with its own, read without noise. They are computed
    once. Plans that differ in cells, channel or side information only share their planes, and all plans that store the
    same tensors share a session's skeleton. One thread may use it at a time.

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
        All outputs of the original, where they are known; with a Chosen metric, those that it reads.
    reference : ir.Model, optional
        The original model, before pruning and protection. A plain model without a reference is the original itself.
    name : str, optional
        Of the model.
    correct : Dataset, or function, or "gain", optional
        What each trial is corrected with after it was read; see `onnx_analog.run.correction`. The function is as that
        of `data`.
    compensate : Dataset, or function, or mapping of str to InputMoments, optional
        Samples by which weights that are rounded make up for each other's errors, or what `onnx_analog.run.moments`
        found with them.

    Raises
    ------
    AnalogError
        If the model cannot be run, the data do not fit it, or the metric does not fit both.

    See Also
    --------
    onnx_analog.experiment.Experiment : the same for paths and arrays, and whatever else names models and data.
    """

    scores_first: ClassVar[bool] = False  # see `onnx_analog.run.choice.choose`

    def __init__(
        self,
        model: ir.Model | ProtectedModel,
        data: Dataset | Callable[[Sequence[Input]], Dataset],
        metric: metrics.Named | metrics.Function | None = None,
        *,
        output: str | None = None,
        class_axis: int | None = None,
        batch: int = DEFAULTS.batch,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
        clean: list[Any] | None = None,
        reference: ir.Model | None = None,
        name: str | None = None,
        correct: Correct | None = None,
        compensate: Compensate | None = None,
    ) -> None:
        self._batch = checked(batch=batch)["batch"]
        super().__init__(
            model, reference=reference, correct=correct, compensate=compensate, providers=providers, threads=threads
        )
        self.name = name
        self._source = self._network if reference is None else Network(reference, role="the reference", **self._running)
        is_original = self._protected is None and self._read_mark is None
        self.original_known = is_original or reference is not None or clean is not None
        self.data = data if isinstance(data, Dataset) else data(self._inputs())
        logger.info("%s to evaluate with", counted(len(self.data), "sample"))
        self._stored_values: dict[Any, float | None] = {}
        self.metric_given = metric is not None
        self.metric: metrics.Function
        if metric is None or isinstance(metric, tuple):
            self.metric, self.clean = self._measured(metric, output, class_axis, clean)
        else:
            self.metric = metric
            self.clean = self._source.run(self.data, batch=batch) if clean is None else clean
        self._indices = metrics.indices_of(self.metric)

    def _measured(
        self, metric: metrics.Named | None, output: str | None, class_axis: int | None, clean: list[Any] | None
    ) -> tuple[metrics.Chosen, list[Any]]:
        """Return the metric that fits model and data, and the outputs that it compares with."""
        fields = self._network.outputs
        if clean is not None and len(clean) != len(fields):
            raise DataError(f"there are {len(clean)} outputs without noise, and the model has {len(fields)}")
        known: dict[int, Any] = dict(enumerate(clean or ()))

        def fetch(number: int) -> Any:
            if number not in known:
                (known[number],) = self._network.run(self.data, batch=self._batch, indices=[number])
            return known[number]

        chosen = choose(
            fields,
            fetch,
            self.data.labels,
            samples=len(self.data),
            named=metric,
            output=output,
            class_axis=class_axis,
            one_by_one=self.data.one_by_one,
            dynamic=frozenset(side for node in self._network.inputs for side in node.shape if isinstance(side, str)),
            scores_first=self.scores_first,
        )
        if chosen.indices is not None:
            outputs = [fetch(number) for number in chosen.indices]
        else:
            outputs = self._network.run(self.data, batch=self._batch) if clean is None else clean
        own = clean is not None or self._source is self._network
        return chosen, outputs if own else self._original(chosen, outputs)

    def _original(self, chosen: metrics.Chosen, outputs: list[Any]) -> list[Any]:
        """Return the outputs of the reference, in place of those of the model, which are kept."""
        if chosen.indices is not None and max(chosen.indices) >= len(self._source.outputs):
            raise ModelError("the reference has fewer outputs than the model: it is not its original")
        originals = self._source.run(self.data, batch=self._batch, indices=chosen.indices)
        if list(map(_shape, originals)) != list(map(_shape, outputs)):
            raise ModelError("the reference has outputs of other shapes than the model: it is not its original")
        self._given_outputs = outputs
        return originals

    @cached_property
    def _given_outputs(self) -> list[Any]:
        """The outputs of the model as it was given, where they are not those that the metric compares with."""
        return self._network.run(self.data, batch=self._batch, indices=self._indices)

    @property
    def chosen(self) -> metrics.Chosen:
        """The metric, and what it measures."""
        assert isinstance(self.metric, metrics.Chosen)
        return self.metric

    @cached_property
    def original_value(self) -> float | None:
        """The metric of the original model; None where it is not known, or compares with itself and is no share."""
        return self._value_against_itself if self.original_known else None

    @cached_property
    def _value_against_itself(self) -> float | None:
        if self.chosen.compares and not self.chosen.metric.share:
            return None
        return self._value(self.clean)

    def _shown(self, value: float) -> str:
        return f"{self.chosen.metric.name} {score(value, share=self.chosen.metric.share)}"

    def _value(self, outputs: list[Any]) -> float:
        return float(self.metric(outputs, labels=self.data.labels, clean=self.clean))

    def stored_value(self, plan: Plan | Scheme | None = None, *, selection: Selection | None = None) -> float | None:
        """Return the metric of the model as a plan stores it, read without noise; see `score` for the parameters.

        Without a plan, it is that of the model as it was given: None if that is the original.
        """
        if plan is None:
            return self._given_value
        plan, selection = Plan.of(plan), selection_of(selection)
        key = (what_is_written(plan), selection)
        if key not in self._stored_values:
            self._stored_values[key] = self._value(self._decoded(self._written(plan, selection)))
        return self._stored_values[key]

    @cached_property
    def _given_value(self) -> float | None:
        if not self.original_known:
            return self._value_against_itself
        if self._protected is None and self._source is self._network:
            return None
        return self._value(self._given_outputs)

    def _decoded(self, planes: Planes) -> list[Any]:
        """Return the outputs of the model whose weights are those that planes stand for."""
        network, keys, _ = self._skeleton(planes)
        tensors = {tensor.key: tensor for tensor in planes.tensors}
        return self._outputs(network, {name: tensors[key].decode() for name, key in keys.items()})

    def _outputs(self, network: Network, weights: Mapping[str, Array]) -> list[Any]:
        """Return the outputs that the metric reads, of a network with weights."""
        return network.run(self.data, weights, batch=self._batch, indices=self._indices)

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
        limit: bool = False,
        progress: Progress = lambda: None,
    ) -> Evaluation:
        """Return how well the model works under `plan`: the original, as it is stored, and in trials of its memory.

        Parameters
        ----------
        plan : Plan or Scheme, optional
            How a plain model is stored. Without one, the model is evaluated as it is: a plain model has no trials.
        seed, trials : int
            From 0 to 2^63 - 1, and from 0 to 10^9.
        selection : Selection, optional
            Which tensors the plan is for.
        channel : str or Channel, optional
            Replaces the channels of the plan, or of the protected model, when they are read; its range must cover
            theirs.
        modifiers : Modifiers
            Changes to that channel, or to theirs.
        at_least, at_most : float, optional
            What the value is to reach; see `Evaluation`.
        limit : bool
            Whether the result has the fewest cells that any code needs; see `limit`.
        progress : function
            Called after each trial.

        Raises
        ------
        OptionError
            If an option is out of its range or does not go with the metric, or a channel or modifiers are given and
            nothing is stored in cells.
        ModelError
            If the model cannot be stored so.
        """
        checked(seed=seed, trials=trials)
        check_type("progress", progress, Callable, "a function")
        check_limits(self.chosen.metric, at_least, at_most)
        schemes = self._schemes(plan, channel, modifiers)
        lowest = None
        if limit:
            lowest = self.limit(plan, selection=selection, seed=seed, channel=channel, modifiers=modifiers)
        stored = self.stored_value(plan, selection=selection)
        _ = self.warnings  # what is without noise comes first: where it cannot be compared, no trial is made
        run: list[Trial] = []
        correction = None
        if self.correcting is not None and not schemes:
            raise OptionError("the model is not protected, so nothing of it is read and corrected: leave correct out")
        if schemes and trials:
            memory = self.trials(plan, selection=selection, channel=channel, modifiers=modifiers)
            correction = None if memory.corrector is None else memory.corrector.cost
            for trial in range(trials):
                run.append(memory.run(seed=seed, trial=trial))
                logger.info("trial %d of %d: %s", trial + 1, trials, self._shown(run[-1].value))
                progress()
        return self.evaluation(
            run,
            stored=stored,
            seed=seed,
            channel=channels_of(schemes.values()),
            schemes=schemes.values(),
            at_least=at_least,
            at_most=at_most,
            correction=correction,
            more=(
                *(self.reading_warnings(plan, channel=channel, modifiers=modifiers) if schemes else ()),
                *(self.left(plan, selection=selection) if correction is not None else ()),
            ),
            limit=lowest,
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
            raise self._unprotected(", so it has no trials")
        planes = self._planes_of(plan, selection)
        skeleton = self._skeleton(planes)
        read = dict(zip(planes.schemes, schemes.values(), strict=True))
        weights = {name: planes.weights[key] for name, key in skeleton.keys.items()}
        tensors = {name: (weight.tensor, read[weight.tensor.scheme]) for name, weight in weights.items()}
        return Trials(
            skeleton.network,
            self.data,
            {name: Decoder(weight, read[weight.tensor.scheme]) for name, weight in weights.items()},
            self.metric,
            self.clean,
            batch=self._batch,
            totals=planes.totals(dict(zip(planes.schemes, schemes, strict=True))),
            stored=partial(self.stored_value, plan, selection=selection),
            corrector=None
            if self.correcting is None
            else self.correcting.corrector(skeleton.layers, tensors, self._originals(planes, skeleton)),
            written_in=next(iter(schemes)).channel,
        )

    def parts(
        self,
        plan: Plan | Scheme | None = None,
        *,
        selection: Selection | None = None,
        channel: str | Channel | None = None,
        modifiers: Modifiers = NONE,
    ) -> Parts:
        """Return the parts of a plan's memory, each of which may be read with noise alone; parameters as of `score`.

        What is read is corrected towards the model as it was written, also where the original is known: what storing
        loses is no noise.
        """
        schemes = self._schemes(plan, channel, modifiers)
        if not schemes:
            raise self._unprotected(", so it has no parts")
        planes = self._planes_of(plan, selection)
        read = dict(zip(planes.schemes, schemes.values(), strict=True))
        network, keys, layers = self._skeleton(planes)
        by_key = {tensor.key: tensor.read_as(read[tensor.scheme]) for tensor in planes.tensors}
        tensors = {name: (by_key[key], by_key[key].scheme) for name, key in keys.items()}
        return Parts(
            network,
            self._outputs,
            keys,
            list(by_key.values()),
            users_of(self._model, keys.values()),
            None if self.correcting is None else self.correcting.corrector(layers, tensors),
        )

    def left(
        self, plan: Plan | Scheme | None = None, *, selection: Selection | None = None, in_parts: bool = False
    ) -> tuple[str, ...]:
        """Return warnings about what the correction leaves as it was read, and about its samples.

        Parts of a memory are corrected towards what was written, whatever the original is.
        """
        if self.correcting is None or isinstance(self.correcting.source, str):
            return ()
        planes = self._planes_of(plan, selection)
        found = self.correcting.warnings(self._skeleton(planes).layers, self.data)
        original, why = self._of_reference(planes)
        if why:
            found = (*found, f"reads are corrected towards what is stored: {why}")
        towards_itself = not planes.coded and original is None and not in_parts
        used = {tensor.scheme for tensor in planes.tensors}
        return (*found, *(corrects_nothing(used, named=self._reference is not None) if towards_itself else ()))

    def reading_warnings(
        self,
        plan: Plan | Scheme | None = None,
        *,
        channel: str | Channel | None = None,
        modifiers: Modifiers = NONE,
        in_parts: bool = False,
    ) -> Iterator[str]:
        """Yield warnings if reads of a plan, or of the protected model, are made otherwise than where it was verified.

        Parts of a memory are corrected towards what was written, whatever the original is.
        """
        if plan is None and self._protected is None:
            return
        of = Plan.of(plan) if plan is not None or self._protected is None else self._protected.plan
        samples = None if self.correcting is None else self.correcting.count
        read = self._schemes(plan, channel, modifiers).values()
        original = plan is not None or self._reference is not None or in_parts
        correctable = not (in_parts and all(map(reads_alike, read)))
        yield from reading_warnings(
            of, samples, self.data.made, channels_of(read), original=original, correctable=correctable
        )
        if not original and isinstance(samples, int):
            yield from towards_stored(of)

    def probe(self, plan: Plan | Scheme, *, selection: Selection | None = None) -> Probe:
        """Return a way to run the plain model with other weights in place of those that a plan stores."""
        planes = self._planes_of(plan, selection)
        skeleton = self._skeleton(planes)
        weights = {weight.key: weight.array() for weight, _ in planes.coded}
        axes = {weight.key: output_axis(weight.value, weight.shape) for weight, _ in planes.coded}
        return Probe(
            skeleton.network, skeleton.keys, weights, axes, self.data, batch=self._batch, indices=self._indices
        )

    def float16_value(self, *, selection: Selection | None = None) -> float:
        """Return the metric of the plain model with the weights of a selection rounded to float16, without noise."""
        probe = self.probe(Scheme.int8(), selection=selection)
        return self._value(probe.run({key: _as_float16(weight) for key, weight in probe.weights.items()}))

    def evaluation(
        self,
        trials: Sequence[Trial],
        *,
        stored: float | None = None,
        seed: int = 0,
        channel: str | None = None,
        schemes: Iterable[Scheme] = (),
        at_least: float | None = None,
        at_most: float | None = None,
        correction: Cost | None = None,
        more: Iterable[str] = (),
        limit: Limit | None = None,
    ) -> Evaluation:
        """Return the evaluation that trials of this experiment, made anywhere and read as `schemes`, amount to.

        `stored` is the value of the model that is stored, as `stored_value` returns it; `correction` is what the
        corrections of the trials cost, `more` are further warnings, and `limit` is what `limit` returns.
        """
        chosen, values = self.chosen, tuple(trial.value for trial in trials)
        pairs = [(trial.uncorrected, trial.uncorrected_sqnr_db) for trial in trials if trial.uncorrected is not None]
        of_trials = [
            *doubts_of_values(chosen, values),
            *([OPTIMISTIC] if values and assumes_addresses(schemes) else []),
        ]
        return Evaluation(
            metric=chosen.metric.name,
            samples=len(self.data),
            original=self.original_value,
            stored=stored,
            values=values,
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
            warnings=tuple(dict.fromkeys((*self.warnings, *self._doubts_of(stored), *of_trials, *more))),
            model=self.name,
            channel=channel,
            read_back=self._read_mark,
            corrected_by=None if self.correcting is None else str(self.correcting),
            correction=correction,
            limit=limit,
            uncorrected_values=tuple(value for value, _ in pairs),
            uncorrected_sqnr_db=tuple(math.nan if ratio is None else ratio for _, ratio in pairs),
        )

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the outputs that the metric compares with, and about the model as it was given."""
        alone = self._value_against_itself
        of_scale = tuple(self._doubts_of_scale(alone))
        return (
            *doubts(self.chosen, len(self.data), self.clean, None if of_scale else alone),
            *of_scale,
            *self._doubts_of(self._given_value),
            *other_source(self._model, self._reference),
            *self._seen_samples(),
        )

    def _seen_samples(self) -> Iterator[str]:
        if isinstance(self._compensate, Dataset):
            yield from seen_samples(self._compensate, self.data, compensate=True)

    def _doubts_of_scale(self, alone: float | None) -> Iterator[str]:
        """Yield the doubt that images are scaled as in training."""
        if self.chosen.metric.name != "top1" or alone is None:
            return

        def score(data: Dataset) -> float:
            outputs = self._source.run(data, batch=self._batch, indices=self._indices)
            return float(self.metric(outputs, labels=data.labels, clean=outputs))

        doubt = doubt_of_scale(self.data, alone, score)
        if doubt is not None:
            yield doubt

    def _doubts_of(self, stored: float | None) -> Iterator[str]:
        if self._read_mark is not None:  # noise may have done it
            return iter(())
        return doubts_of_stored(self.chosen, stored, self.original_value)

    # ------------------------------------------------------------------------------------------------- storing


def _as_float16(array: Any) -> Any:
    """Return numbers rounded to float16, in their own type; larger ones are its largest."""
    most = float(np.finfo(np.float16).max)
    return np.clip(array.astype(np.float64), -most, most).astype(np.float16).astype(array.dtype)


def _shape(output: Any) -> Any:
    return output.shape if isinstance(output, np.ndarray) else len(output)
