"""What corrects the trials of an experiment, or the models that are read back from a protected one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.coding.plan import Plan, reading_warnings
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.verified import UNKNOWN
from onnx_analog.display import counted
from onnx_analog.errors import DataError, ModelError
from onnx_analog.graph.correction import LAW
from onnx_analog.graph.files import source_digests
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.stored import SOURCE_KEY, StoredTensor, channels_of
from onnx_analog.graph.weights import all_tensors
from onnx_analog.passes import CorrectPass
from onnx_analog.run.correction import (
    LEAST_SAMPLES,
    Corrector,
    LayerCorrector,
    LayerNetworks,
    TensorCorrector,
    factor_of_tensor,
)
from onnx_analog.run.data import Dataset, Input, inputs_of
from onnx_analog.run.read import reads_alike
from onnx_analog.run.session import Network, weight_name

Array = NDArray[Any]
Correct = Dataset | Callable[[Sequence[Input]], Dataset] | str  # samples, or the word for the law of the channel


# Correlation of what was stored with the original. It is near 0 if weights have nothing to do with each other, as those
# of another network. Errors with the power of the weights leave 0.7, and those of compensation may have more.
_LEAST = 0.25


class Correcting:
    """What corrects the trials of an experiment.

    Parameters
    ----------
    correct : Dataset, function or "gain"
        The function is given the model's inputs, and returns the samples.
    model : ir.Model
    inputs : function
        Returns the model's inputs.

    Attributes
    ----------
    source : Dataset or "gain"
        The samples that are used, without labels; or the word for the law of the channel.

    Raises
    ------
    DataError
        If the samples are too few, or are fed one by one.
    """

    def __init__(self, correct: Correct, model: ir.Model, inputs: Callable[[], Sequence[Input]]) -> None:
        self.source: Dataset | str
        if isinstance(correct, str):
            self.source = correct
        else:
            self.source = one_call(model, correct if isinstance(correct, Dataset) else correct(inputs()))

    def __str__(self) -> str:
        return _in_words(self.source)

    @property
    def count(self) -> int | str:
        """The number of samples of the correction; "gain" for a correction by the law of the channel."""
        return self.source if isinstance(self.source, str) else len(self.source)

    def networks(self, model: ProtectedModel, running: Mapping[str, Any]) -> LayerNetworks | None:
        """Return the networks of a protected model that samples need."""
        return None if isinstance(self.source, str) else LayerNetworks(model, self.source, running)

    def corrector(
        self,
        networks: LayerNetworks | None,
        tensors: Mapping[str, tuple[StoredTensor, Scheme]],
        originals: Mapping[str, Array] | None = None,
    ) -> Corrector:
        """Return what corrects tensors, given by name with the schemes that read them.

        The targets are the statistics of the original weights, by name, where they are known, so that what encoding
        loses is corrected too; else those of the stored weights, read without noise.
        """
        if networks is None:
            return TensorCorrector({name: factor_of_tensor(*each) for name, each in tensors.items()})
        return LayerCorrector(networks, originals or {name: tensor.decode() for name, (tensor, _) in tensors.items()})

    def warnings(self, networks: LayerNetworks | None, data: Dataset) -> tuple[str, ...]:
        """Return what to doubt: samples that are evaluated too, and what is left as it was read."""
        if isinstance(self.source, str) or networks is None:
            return ()
        return (*seen_samples(self.source, data), *networks.warnings)


def _in_words(source: Dataset | str) -> str:
    """Return what corrects, in words."""
    return LAW if isinstance(source, str) else counted(len(source), "sample")


def corrects_nothing(schemes: Iterable[Scheme], *, named: bool = False) -> Iterator[str]:
    """Yield a warning if reads are always what is stored, towards which they are corrected.

    Parameters
    ----------
    schemes : iterable of Scheme
    named : bool
        Whether a reference is named, which is not the original.
    """
    if all(map(reads_alike, schemes)):
        text = "the correction changes nothing: reads have no noise, and are corrected towards the stored model"
        remedy = "Name the original to correct what storing loses"
        yield text if named else f"reference is left out, so {text}. {remedy}"


def towards_stored(plan: Plan) -> Iterator[str]:
    """Yield a warning if a plan was verified with correction towards the original, and reads tell from what is stored.

    Where all reads are alike, `corrects_nothing` says the same.
    """
    verified = plan.verified if plan.is_as_verified else None
    if verified is not None and verified.corrected_by is not None and not all(map(reads_alike, plan.schemes)):
        yield (
            "reference is left out, but the plan was verified with correction towards the original: without it, reads "
            "are corrected towards what was stored. Name the original"
        )


def originals_of(reference: ir.Model, tensors: Iterable[StoredTensor]) -> dict[str, Array]:
    """Return the weights of the original that tensors store, by storage key, in the types of the tensors.

    Raises
    ------
    ModelError
        If it lacks one of them, has it in another shape, or has other weights than what was stored can stand for.
    """
    weights = {weight.key: weight for weight in all_tensors(reference)}
    originals, sums = dict[str, Array](), np.zeros(3)
    for tensor in tensors:
        weight = weights.get(tensor.key)
        if weight is None or tuple(weight.shape) != tuple(tensor.shape):
            raise ModelError(
                f"the reference has no weight {tensor.key!r} of the shape {tuple(tensor.shape)}, so it is not the "
                "original, towards which reads are corrected"
            )
        array = originals[tensor.key] = weight.array().astype(tensor.dtype.numpy(), copy=False)
        stored, plain = (each.reshape(-1).astype(np.float64) for each in (tensor.decode(), array))
        sums += stored @ plain, stored @ stored, plain @ plain
    if sums[0] < _LEAST * np.sqrt(sums[1] * sums[2]):
        raise ModelError(
            "the reference has other weights than those that were stored, so it is not the original, towards which "
            "reads are corrected"
        )
    return originals


def other_source(model: ir.Model, reference: ir.Model | None) -> Iterator[str]:
    """Yield a warning if a reference is of another file than the one that was protected, as digests of files tell."""
    protected, named = model.metadata_props.get(SOURCE_KEY), () if reference is None else source_digests(reference)
    if protected is not None and named and protected not in named:
        yield (
            "the reference is not the file that was protected, as the SHA-256 in the model tells, so losses and "
            "corrections refer to another model. Give the file that was protected, unless you mean this one"
        )


def is_pruned(model: Mapping[str, Array], original: Mapping[str, Array]) -> bool:
    """Return whether each weight of a model, by storage key, is that of the original or 0."""
    return all(
        key in original and original[key].shape == array.shape and bool(((array == original[key]) | (array == 0)).all())
        for key, array in model.items()
    )


# ------------------------------------------------------------------------------------------- models read back


class Corrections:
    """Corrects models that are read back from one protected model.

    Parameters
    ----------
    protected : ProtectedModel
    correct : "gain", or function
        The function is given the model's inputs, and returns the samples.
    schemes : mapping of Scheme to Scheme
        The schemes of the model, each with the one that reads it.
    reference : ir.Model, optional
        The original, towards which samples correct; without it, that is the protected model, read without noise.

    Attributes
    ----------
    by : str
        What corrects, in words.
    cost : Cost
    warnings : tuple of str
        What is left as it was read, and what is done otherwise than where the plan was verified.
    """

    def __init__(
        self,
        protected: ProtectedModel,
        correct: str | Callable[[Sequence[Input]], Dataset],
        schemes: Mapping[Scheme, Scheme],
        reference: ir.Model | None = None,
    ) -> None:
        self._factors: dict[str, float] = {}
        self._corrector: LayerCorrector | None = None
        self.warnings: tuple[str, ...] = ()
        read_through = channels_of(schemes.values())
        if isinstance(correct, str):
            self.by = _in_words(correct)
            factors = {tensor.key: factor_of_tensor(tensor, schemes[tensor.scheme]) for tensor in protected.tensors}
            self._factors = {key: factor for key, factor in factors.items() if factor != 1.0}
            self.cost = TensorCorrector(factors).cost
            self.warnings = tuple(reading_warnings(protected.plan, correct, UNKNOWN, read_through))
        else:
            network = Network(protected)
            samples = one_call(protected.model, correct(inputs_of(network.inputs, reference)))
            self.by = _in_words(samples)
            self._corrector = LayerCorrector(LayerNetworks(protected, samples, {}), _targets(protected, reference))
            self.cost = self._corrector.cost
            plan, read = protected.plan, (schemes[each.scheme] for each in protected.tensors)
            alike = (*corrects_nothing(read), *towards_stored(plan)) if reference is None else ()
            otherwise = reading_warnings(plan, len(samples), samples.made, read_through)
            source = other_source(protected.model, reference)
            self.warnings = (*source, *self._corrector.warnings, *otherwise, *alike)

    def of(self, read: ProtectedModel) -> CorrectPass:
        """Return the pass that corrects a model as it was read."""
        if self._corrector is None:
            return CorrectPass(factors=self._factors)
        return CorrectPass(layers=self._corrector.correction(_by_name(read)).layers)


def _by_name(protected: ProtectedModel) -> dict[str, Array]:
    """Return the weights of a model by the names that they have in its network."""
    return {weight_name(tensor.key): tensor.decode() for tensor in protected.tensors}


def _targets(protected: ProtectedModel, reference: ir.Model | None) -> dict[str, Array]:
    """Return the weights that a model is corrected towards, by the names that they have in its network."""
    if reference is None:
        return _by_name(protected)
    return {weight_name(key): weight for key, weight in originals_of(reference, protected.tensors).items()}


# ---------------------------------------------------------------------------------------------------- samples


def fixed_batch(model: ir.Model) -> int | None:
    """Return how many samples a call must have; None if any number will do."""
    sides = [value.shape[0] for value in model.graph.inputs if value.shape is not None and len(value.shape)]
    return min((side for side in sides if isinstance(side, int)), default=None)


def one_call(model: ir.Model, data: Dataset) -> Dataset:
    """Return the samples that a correction measures in one call, without their labels.

    Raises
    ------
    DataError
        If they are too few, or are fed one by one.
    """
    if data.one_by_one:
        raise DataError(
            "the model takes its samples one by one, and a correction measures many in one call: export the model with "
            "an axis for samples, or correct by the law of the channel"
        )
    fixed = fixed_batch(model)
    if fixed is not None and len(data) < fixed:
        raise DataError(
            f"the model takes {fixed:,} samples in each call, and there are {len(data):,} to correct it with: give more"
        )
    taken = data if fixed is None else data.head(fixed)
    if len(taken) < LEAST_SAMPLES:
        raise DataError(
            f"one call takes {counted(len(taken), 'sample')}, of which no standard deviation is known: give at least "
            f"{LEAST_SAMPLES} samples, and a model with a free batch size"
        )
    return replace(taken, labels=None)


def seen_samples(samples: Dataset, data: Dataset, *, compensate: bool = False) -> Iterator[str]:
    """Yield a warning if samples that correct, or compensate rounding errors, are among those of an evaluation."""
    names = list(samples.inputs)
    known = {_digest(data, names, number) for number in range(len(data))}
    count = sum(_digest(samples, names, number) in known for number in range(len(samples)))
    if count:
        what, that = (
            ("compensate rounding errors", "compensation") if compensate else ("correct the model", "correction")
        )
        yield (
            f"{count:,} of {counted(len(samples), 'sample')} that {what} are also samples that the model is "
            f"evaluated on: the {that} sees its own test inputs, though not their labels. Give it others"
        )


def _digest(data: Dataset, names: Sequence[str], number: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        digest.update(np.ascontiguousarray(data.inputs[name][number]).tobytes())
    return digest.digest()
