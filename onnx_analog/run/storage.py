"""A model, and what plans store of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import onnx_ir as ir

from onnx_analog.arguments import check_type
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.compensation import InputMoments, unfit
from onnx_analog.coding.limit import Limit
from onnx_analog.coding.plan import Plan, marked_for_compensation
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.verified import UNKNOWN
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.graph.build import Stored, detached, reason_against
from onnx_analog.graph.correction import read_as
from onnx_analog.graph.protected import ProtectedModel, just_protected, open_protected
from onnx_analog.graph.stored import COMPENSATED_KEY, is_protected, note_verified, read_already, read_with
from onnx_analog.graph.totals import Totals
from onnx_analog.graph.weights import Selection, Weight, all_tensors, find
from onnx_analog.passes import ManifestPass, ProtectPass, pipeline
from onnx_analog.passes.protect import carried, put, replace_all
from onnx_analog.run._planes import Planes, what_is_written
from onnx_analog.run.correcting import Correct, Correcting, is_pruned, originals_of
from onnx_analog.run.correction import LayerNetworks
from onnx_analog.run.data import Dataset, Input, inputs_of
from onnx_analog.run.limits import limit_of
from onnx_analog.run.moments import input_moments
from onnx_analog.run.probe import Array
from onnx_analog.run.session import Network

Compensate = Dataset | Callable[[Sequence[Input]], Dataset] | Mapping[str, InputMoments]

_KEPT = 2  # sets of planes that are kept: those of points that differ in cells or channel are the same


class Skeleton(NamedTuple):
    """A network without the weights that trials exchange: the same for all plans that store the same tensors."""

    network: Network
    keys: Mapping[str, str]  # storage keys of those weights, by name in the network
    layers: LayerNetworks | None  # where samples correct them


class Storage:
    """A model, and what plans store of it: the planes, the networks that read them, and what they cost.

    What the last plans wrote is kept. Plans that differ in cells, channel or side information only share their planes,
    and all plans that store the same tensors share a network.

    Parameters
    ----------
    model : ir.Model or ProtectedModel
        A plain model, which plans protect, or a protected one. It is not changed.
    reference : ir.Model, optional
        The original model, before pruning and protection.
    correct, compensate
        As in `onnx_analog.run.experiment.Experiment`.
    running : keywords
        Of `Network`: providers and threads.
    """

    def __init__(
        self,
        model: ir.Model | ProtectedModel,
        *,
        reference: ir.Model | None,
        correct: Correct | None,
        compensate: Compensate | None,
        **running: Any,
    ) -> None:
        self._running = running
        if isinstance(model, ir.Model) and is_protected(model):
            model = open_protected(model)
        self._protected = model if isinstance(model, ProtectedModel) else None
        self._model = model.model if isinstance(model, ProtectedModel) else model
        self._reference = reference
        self._read_mark = read_as(self._model)
        self.correcting = None if correct is None else Correcting(correct, self._model, self._inputs)
        self._compensate = compensate(self._inputs()) if callable(compensate) else compensate
        self._moments: dict[Selection, dict[str, InputMoments]] = {}
        self._skeletons: dict[Any, Skeleton] = {}
        self._planes: dict[Any, Planes] = {}  # the last that was used is at the end
        self._storable: set[Any] = set()  # of what plans write

    @property
    def is_plain(self) -> bool:
        """Whether the model is not protected, so that only plans have trials."""
        return self._protected is None

    def protected(
        self,
        plan: Plan | Scheme | None = None,
        *,
        selection: Selection | None = None,
        channel: str | Channel | None = None,
        modifiers: Modifiers = NONE,
    ) -> ProtectedModel:
        """Return the model that `Experiment.trials` reads; see `Experiment.score` for the parameters.

        Raises
        ------
        ModelError
            If the model is not protected, and there is no plan.
        """
        if plan is not None:
            return self._protected_by(Plan.of(plan), selection_of(selection))
        if self._protected is None:
            raise self._unprotected()
        return self._protected.through(channel, modifiers)

    def totals(self, plan: Plan | Scheme, *, selection: Selection | None = None) -> Totals:
        """Return what a plan stores, and what it costs."""
        planes = self._planes_of(plan, selection)
        return planes.totals(dict(zip(planes.schemes, Plan.of(plan).schemes, strict=True)))

    def split(self, plan: Plan | Scheme, *, selection: Selection | None = None) -> dict[str, int] | None:
        """Return the cells of each tensor as the memory allows, by storage key; None if a channel is too noisy for it.

        They add up to those of `totals`: what tensors share, such as the last block of a code, is shared out.
        """
        planes = self._planes_of(plan, selection)
        return planes.split(dict(zip(planes.schemes, Plan.of(plan).schemes, strict=True)))

    def limit(
        self,
        plan: Plan | Scheme | None = None,
        *,
        selection: Selection | None = None,
        seed: int = 0,
        channel: str | Channel | None = None,
        modifiers: Modifiers = NONE,
    ) -> Limit:
        """Return the fewest cells for the weights at the errors of trial 0; see `Experiment.score` for the parameters.

        Weights are those of the reference or, of a plain model, of the model itself. Of a protected model without a
        reference they are the stored ones.

        Raises
        ------
        OptionError
            If a tensor is read without any error, or errors were compensated: their squares then say nothing of how
            far the outputs are off, nor of the cells that other codes need.
        ModelError
            If the model is not protected, and there is no plan.
        """
        if self._compensates(plan, selection_of(selection)) or COMPENSATED_KEY in self._model.metadata_props:
            raise OptionError("rounding errors are compensated, so squared errors have no limit to compare with")
        schemes = self._schemes(plan, channel, modifiers)
        if not schemes:
            raise self._unprotected(", so it has no limit")
        planes = self._planes_of(plan, selection)
        # What was written takes the cells, through whatever channel it is read.
        totals = planes.totals(dict(zip(planes.schemes, schemes, strict=True)))
        return limit_of(
            planes.weights.values(),
            self._original_weights,
            dict(zip(planes.schemes, schemes.values(), strict=True)),
            honest_cells=totals.honest_cells,
            seed=seed,
        )

    @cached_property
    def _original_weights(self) -> dict[str, Any] | None:
        """The weights before they were stored, by storage key; None where they are not known."""
        if self._protected is None:
            return {weight.key: weight.array() for weight in all_tensors(self._model)}
        if self._reference is None:
            return None
        return {weight.key: weight.array() for weight in all_tensors(self._reference)}

    def check_storable(self, plan: Plan | Scheme, *, selection: Selection | None = None) -> None:
        """Raise what `Experiment.trials` would raise of a plan that stores nothing; few tensors are encoded."""
        plan, selection = Plan.of(plan), selection_of(selection)
        key = (what_is_written(plan), selection)
        if key not in self._storable and not self._stores_one(plan, selection):
            self._written(plan, selection)
        self._storable.add(key)

    def _stores_one(self, plan: Plan, selection: Selection) -> bool:
        if reason_against(self._model) is not None:
            return False
        step = ProtectPass(plan=plan, selection=selection)
        weights = sorted(find(self._model, selection).weights, key=lambda weight: weight.size)
        return any(plan.scheme_of(weight.key) is not None and not step.unfit([weight]) for weight in weights)

    @property
    def compensating_samples(self) -> int | None:
        """The number of samples that compensate weights; None if there are none, or only their moments are known."""
        return len(self._compensate) if isinstance(self._compensate, Dataset) else None

    def moments(self, selection: Selection | None = None) -> Mapping[str, InputMoments]:
        """Return the moments of what the weights of a selection are multiplied by; none unless plans compensate."""
        selection = selection_of(selection)
        if not isinstance(self._compensate, Dataset):
            return self._compensate or {}
        if selection not in self._moments:
            found, _ = input_moments(self._model, self._compensate, selection=selection, running=self._running)
            self._moments[selection] = found
        return self._moments[selection]

    def _compensates(self, plan: Plan | Scheme | None, selection: Selection) -> bool:
        """Return whether weights of a plan make up for each other's errors."""
        schemes = [] if plan is None else map(Plan.of(plan).scheme_of, self.moments(selection))
        return any(scheme is not None and unfit(scheme) is None for scheme in schemes)

    def _inputs(self) -> list[Input]:
        """Return the inputs of the model; see `inputs_of`."""
        return inputs_of(self._network.inputs, self._reference)

    def _schemes(
        self, plan: Plan | Scheme | None, channel: str | Channel | None, modifiers: Modifiers
    ) -> dict[Scheme, Scheme]:
        """Return the schemes that write, each with the one that it is read with; none for a plain model."""
        check_type("modifiers", modifiers, Modifiers, "Modifiers")
        if plan is not None:
            schemes = Plan.of(plan).schemes
        elif self._protected is not None:
            self._protected.check_readable()
            schemes = tuple(dict.fromkeys(self._protected.schemes))
        elif channel is None and modifiers == NONE:
            return {}
        else:
            raise self._unprotected(", so no channel reads it", "protect it first")
        return read_with(schemes, channel, modifiers)

    def _unprotected(self, so: str = "", remedy: str = "give a plan, or protect it first") -> ModelError:
        """Return the error that there is no memory to read, and what to do."""
        if self._read_mark is not None:
            return ModelError(read_already(self._model))
        return ModelError(f"the model is not protected{so}: {remedy}")

    @cached_property
    def _network(self) -> Network:
        return Network(self._protected or self._model, **self._running)

    @cached_property
    def _stored(self) -> Planes:
        """The planes of a model that is protected."""
        assert self._protected is not None
        return Planes(schemes=tuple(dict.fromkeys(self._protected.schemes)), tensors=self._protected.tensors)

    def _planes_of(self, plan: Plan | Scheme | None, selection: Selection | None) -> Planes:
        """Return the planes that a plan writes or, without one, those of the model."""
        return self._stored if plan is None else self._written(Plan.of(plan), selection_of(selection))

    def _written(self, plan: Plan, selection: Selection) -> Planes:
        """Return the planes that a plan writes; those of the last plans are kept."""
        key = (what_is_written(plan), selection)
        planes = self._planes.pop(key, None)
        while planes is None and len(self._planes) >= _KEPT:
            del self._planes[next(iter(self._planes))]  # before the next ones take its place in memory
        self._planes[key] = planes = planes or self._write(plan, selection)
        return planes

    def _write(self, plan: Plan, selection: Selection) -> Planes:
        step = ProtectPass(plan=plan, selection=selection, moments=self.moments(selection))
        coded = pipeline.stored(step, self._model)
        tensors = tuple(detached(self._model, coded))
        return Planes(schemes=plan.schemes, tensors=tensors, coded=coded, selection=selection)

    def _skeleton(self, planes: Planes) -> Skeleton:
        """Return the network with what is stored taken out; the last one is kept."""
        key = tuple((tensor.key, tensor.shape, tensor.dtype) for tensor in planes.tensors)
        if key not in self._skeletons:
            model = self._protected if planes.coded == () else self._protected_as(planes)
            assert model is not None
            network = self._network if planes.coded == () else Network(model, **self._running)
            keys = {name: tensor.key for name, tensor in network.tensors.items()}
            if network is not self._network:
                network.tensors = {}  # or they would stay in memory
            layers = None if self.correcting is None else self.correcting.networks(model, self._running)
            self._skeletons = {key: Skeleton(network, keys, layers)}
        return self._skeletons[key]

    def _originals(self, planes: Planes, skeleton: Skeleton) -> dict[str, Array] | None:
        """Return the weights, by name, that reads are corrected towards; None for those that are stored."""
        reference = None if skeleton.layers is None else self._of_reference(planes)[0]
        weights = {weight.key: weight.array() for weight, _ in planes.coded} if reference is None else reference
        return {name: weights[key] for name, key in skeleton.keys.items()} if weights else None

    def _of_reference(self, planes: Planes) -> tuple[dict[str, Array] | None, str]:
        """Return the weights of the reference, by key, if it is the original; else None, and why it is not.

        A plain model is the original itself, unless the reference differs from it by weights that were pruned alone.
        """
        if self._reference is None:
            return None, ""
        if planes.coded:
            given = {weight.key: weight.array() for weight, _ in planes.coded}
            whole = {weight.key: weight.array() for weight in all_tensors(self._reference) if weight.key in given}
            return (whole, "") if is_pruned(given, whole) else (None, "")
        try:
            return originals_of(self._reference, planes.tensors), ""
        except ModelError as error:
            return None, str(error)

    def _protected_by(self, plan: Plan, selection: Selection) -> ProtectedModel:
        """Return the model that `ProtectPass` and `ManifestPass` make."""
        model, planes = self._model.clone(), self._written(plan, selection)
        if planes.schemes == plan.schemes:
            coded = _within(model, planes)
            put(model, coded)
            note_verified(model, carried(self._marked(plan), coded))
        else:  # those of another plan, which is read in another way
            step = ProtectPass(plan=self._marked(plan), selection=selection, moments=self.moments(selection))
            model = pipeline.run([step], model)
        return just_protected(pipeline.run([ManifestPass()], model))

    def _marked(self, plan: Plan) -> Plan:
        """Return a plan, marked if weights are compensated otherwise here than where it was verified."""
        inputs = self._compensate.made if isinstance(self._compensate, Dataset) else UNKNOWN
        return marked_for_compensation(plan, self.compensating_samples, inputs)

    def _protected_as(self, planes: Planes) -> ProtectedModel:
        model = self._model.clone()
        replace_all(model, _within(model, planes))
        return open_protected(model)


def _within(model: ir.Model, planes: Planes) -> list[tuple[Weight, Stored]]:
    """Return the weights of a copy of the model, and how they are stored."""
    weights = {weight.key: weight for weight in find(model, planes.selection).weights}
    return [(weights[weight.key], stored) for weight, stored in planes.coded]


def selection_of(selection: Selection | None) -> Selection:
    """Return a selection; without one, the default."""
    check_type("selection", selection, Selection | None, "a Selection or None")
    return selection or Selection()
