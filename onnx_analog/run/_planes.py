"""Planes that an experiment keeps: plans that write the same planes share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.accounting import split_cells, totals_of
from onnx_analog.graph.build import Stored
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.graph.totals import Totals
from onnx_analog.graph.weights import Selection, Weight
from onnx_analog.run.read import Unpacked
from onnx_analog.settings import settings_of

# What a level is read with; every other setting of a scheme decides what is written. An estimator that keeps the gain
# does too where classes have no cells: it scales their points.
_OF_READING = ("channel", "estimator", "side_bits_per_cell", "side_channel", "side_cells", "side_copies")


@dataclass(frozen=True, eq=False, kw_only=True)
class Planes:
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
        return totals_of(self._read_as(schemes))

    def split(self, schemes: Mapping[Scheme, Scheme]) -> dict[str, int] | None:
        """Return the cells of each tensor as the memory allows, by storage key; they add up to those of the totals.

        None if a channel is too noisy for the code of a scheme.
        """
        tensors = self._read_as(schemes)
        split = split_cells(tensors)
        keys = [tensor.key for tensor in tensors]
        return None if split is None else {key: sum(of.values()) for key, of in zip(keys, split, strict=True)}

    def _read_as(self, schemes: Mapping[Scheme, Scheme]) -> list[StoredTensor]:
        by_key = {tensor.key: tensor for tensor in self.tensors}  # one, if a tool inlined what is called twice
        for tensor in by_key.values():
            _ = tensor.class_counts, tensor.level_class  # which are kept, and are the same for all plans
        return [tensor.read_as(schemes[tensor.scheme]) for tensor in by_key.values()]


def what_is_written(plan: Plan) -> Any:
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
    settings["keeps_gain"] = scheme.analog != "all" and estimator(scheme.estimator).keeps_gain
    return scheme.channel.span, tuple(settings.items())
