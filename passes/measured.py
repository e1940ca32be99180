"""Measured: levels become levels as an array outside this program returned them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_analog.graph.array_read import ArrayRead, read_array
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.reads import Reads
from onnx_analog.passes.readback import replaced

__all__ = ["MeasuredPass"]


@dataclass(frozen=True, kw_only=True)
class MeasuredPass(ir.passes.FunctionalPass):
    """Return a model whose levels are those that an array returned; see `onnx_analog.graph.array_read.read_array`.

    Signs and classes are those that the array returned, too: decoded, where they are digital.

    Parameters
    ----------
    reads : Reads
    unit, missing, time_s
        As in `read_array`.

    Raises
    ------
    ModelError
        If the model is not protected, is damaged, or was read back already.
    OptionError, DataError, ChannelError
        As in `read_array`.
    """

    reads: Reads
    unit: str
    missing: str = "refuse"
    time_s: float | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Return a copy of `model` with what was read."""
        return ir.passes.PassResult(self.read(open_protected(model)).model, modified=True)

    def read(self, protected: ProtectedModel) -> ProtectedModel:
        """Return a copy of a model that is open, with what was read."""
        return self.put(protected, self.array(protected))

    def array(self, protected: ProtectedModel) -> ArrayRead:
        """Return what was read of the array of a model that is open."""
        return read_array(protected, self.reads, unit=self.unit, missing=self.missing, time_s=self.time_s)

    def put(self, protected: ProtectedModel, array: ArrayRead) -> ProtectedModel:
        """Return a copy of a model that is open, with what `array` returned."""
        reads = [array.tensors[tensor.key] for tensor in protected.tensors]
        return replaced(protected.copy(), [(read.level, read.sign, read.class_index) for read in reads], str(array))
