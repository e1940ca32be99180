"""Correct: gains and shifts of what was read become nodes of the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_analog.display import counted
from onnx_analog.errors import ModelError
from onnx_analog.graph.correction import (
    CORRECTED_KEY,
    Correction,
    Halves,
    check_correction,
    correct_in_place,
    layers_of,
    scale_in_place,
)
from onnx_analog.graph.protected import ProtectedModel, open_protected

__all__ = ["CorrectPass"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class CorrectPass(ir.passes.InPlacePass):
    """Put a Mul and an Add after each layer of a protected model, or a Mul after each stored weight.

    `onnx_analog.run.correction` finds the numbers for a model as it was read. The metadata entry
    `onnx_analog.correction` says how many there are.

    Parameters
    ----------
    layers : mapping of str to (gain, shift)
        float16 arrays, one number for each output channel, by the name of the layer's output.
    factors : mapping of str to float
        Factors of whole tensors, by storage key.

    Raises
    ------
    ModelError
        If the model is not protected, is damaged, or was corrected already; or has no such layer or tensor.
    """

    layers: Mapping[str, tuple[Halves, Halves]] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Correct `model` in place."""
        self.correct(open_protected(model))
        return ir.passes.PassResult(model, modified=True)

    def correct(self, protected: ProtectedModel) -> None:
        """Correct a model that is open, in place."""
        model = protected.model
        if CORRECTED_KEY in model.metadata_props:
            raise ModelError(f"the model was corrected already: {model.metadata_props[CORRECTED_KEY]}")
        layers = layers_of(model, protected.tensors)
        check_correction(Correction(layers=self.layers, factors=self.factors), layers, protected.tensors)
        chosen = [layer for layer in layers.corrected if layer.name in self.layers]
        correct_in_place(model, chosen, self.layers)
        scale_in_place(protected.tensors, self.factors)
        parts = [f"gain and shift of {counted(len(chosen), 'layer')}"] if self.layers else []
        parts += [f"factors of {counted(len(self.factors), 'tensor')}"] if self.factors else []
        corrected = model.metadata_props[CORRECTED_KEY] = ", ".join(parts) or "nothing"
        logger.info("corrected: %s", corrected)
