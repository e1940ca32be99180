"""Prune: the smallest weights become zero (Isik et al. 2020, section 3.1)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnx_analog.arguments import Arguments, check_type
from onnx_analog.coding.partition import Cut, cut_largest, mark_largest
from onnx_analog.display import counted
from onnx_analog.errors import OR_DECODE, ModelError, NothingToStore
from onnx_analog.graph.files import name_of
from onnx_analog.graph.stored import is_protected
from onnx_analog.graph.weights import Selection, Weight, find
from onnx_analog.settings import settings_of

__all__ = ["PrunePass"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PrunePass(ir.passes.InPlacePass):
    """Set the weights of smallest magnitude to zero.

    Exactly round(sparsity·n) of the n weights of a scope are zero afterwards, those that were zero before among them;
    of equal magnitudes those with the lower flat index are kept.

    Parameters
    ----------
    sparsity : float, 0 <= sparsity < 1
        Share of weights that become zero.
    scope : {"model", "tensor"}
        Whether magnitudes compete over all tensors (the paper) or within each.
    selection : Selection
        Which tensors.

    Raises
    ------
    OptionError
        If an option is of another type or out of its range.
    ModelError
        If the model is protected already, or nothing of it is selected.
    """

    sparsity: float
    scope: str = "model"
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        declared = settings_of(Arguments)
        object.__setattr__(self, "sparsity", declared["sparsity"][0].check("sparsity", self.sparsity, float))
        declared["prune_scope"][0].check("scope", self.scope, str)
        check_type("selection", self.selection, Selection, "a Selection")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Prune `model` in place."""
        if is_protected(model):
            raise ModelError(f"{name_of(model)} is protected, so its weights are levels. Prune the original{OR_DECODE}")
        weights = find(model, self.selection).weights
        if not weights:
            raise NothingToStore(f"no tensor of {name_of(model)} is selected, so there is nothing to prune")
        logger.info("pruning %s to a sparsity of %g", counted(len(weights), "tensor"), self.sparsity)
        groups = [list(weights)] if self.scope == "model" else [[weight] for weight in weights]
        changed = [self._prune(group) for group in groups]
        return ir.passes.PassResult(model, modified=any(changed))

    def _prune(self, group: list[Weight]) -> bool:
        arrays = [weight.array() for weight in group]
        size = sum(array.size for array in arrays)
        cut = cut_largest(arrays, size - round(self.sparsity * size))
        modified = False
        for weight, array in zip(group, arrays, strict=True):
            cut, changed = _keep(weight, array, cut)
            modified |= changed
        return modified


def _keep(weight: Weight, array: np.ndarray, cut: Cut) -> tuple[Cut, bool]:
    kept, left = mark_largest(array, cut)
    changed = bool((array[~kept] != 0).any())
    if changed:
        weight.replace(np.where(kept, array, np.zeros((), array.dtype)))
        logger.debug("%s: kept %d of %d", weight.key, kept.sum(), kept.size)
    return left, changed
