"""The order of the passes.

model -> PrunePass -> ProtectPass -> ManifestPass -> (ReadbackPass or MeasuredPass) -> (CorrectPass) -> (DecodePass)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnx_analog.errors import AnalogError, ModelError
from onnx_analog.graph.build import Stored
from onnx_analog.graph.files import name_of, root_cause
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.weights import Weight
from onnx_analog.passes import CorrectPass, ManifestPass, ProtectPass, PrunePass
from onnx_analog.passes.decode import decode_in_place


def protecting(protect: ProtectPass, *, sparsity: float = 0.0, prune_scope: str = "model") -> list[ir.passes.PassBase]:
    """Return the passes from a plain model to a protected one; sparsity 0 prunes nothing."""
    prune = PrunePass(sparsity=sparsity, scope=prune_scope, selection=protect.selection)
    return [*([prune] if sparsity else []), protect, ManifestPass()]


def run(passes: Sequence[ir.passes.PassBase], model: ir.Model) -> ir.Model:
    """Run `passes` in order and return the model.

    Raises
    ------
    AnalogError
        As a pass raised it, without the wrapping of `onnx_ir`.
    ModelError
        If a pass fails with an error of another kind: it says what lies at the bottom of it.
    """
    try:
        return ir.passes.Sequential(*passes)(model).model
    except ir.passes.PassError as error:
        ours = _as_ours(error, model)
    raise ours  # raised inside `except`, the chain of errors would be circular


def stored(protect: ProtectPass, model: ir.Model) -> list[tuple[Weight, Stored]]:
    """Return what `protect` would store of `model`, which is not changed; raises what `run` raises."""
    try:
        return protect.stored(model)
    except AnalogError:
        raise
    except Exception as error:
        ours = _as_ours(error, model)
    raise ours


def read_back(
    readback: Callable[[ProtectedModel], ProtectedModel],
    protected: ProtectedModel,
    *,
    decoded: bool,
    correct: Callable[[ProtectedModel], CorrectPass] | None = None,
) -> ir.Model:
    """Return what `readback`, and `DecodePass` if `decoded`, make of a model that is open: it is not scanned again.

    `readback` returns a copy with other levels, as `ReadbackPass.read` and `MeasuredPass.put` do.

    `correct` returns the pass that corrects a model as it was read, which stands between the two.
    """
    try:
        read = readback(protected)
        if correct is not None:
            correct(read).correct(read)
        return decode_in_place(read) if decoded else read.model
    except AnalogError:
        raise
    except Exception as error:
        ours = _as_ours(error, protected.model)
    raise ours


def _as_ours(error: BaseException, model: ir.Model) -> AnalogError:
    """Return the error of ours that lies beneath `error`, or one that says what lies at the bottom of it."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, AnalogError):
        cause = cause.__cause__
    if isinstance(cause, AnalogError):
        return cause
    ours = ModelError(
        f"{name_of(model)}: there is not enough memory to work on it"
        if isinstance(cause, MemoryError)
        else f"{name_of(model)}: {root_cause(cause)}"
    )
    ours.__cause__ = error
    return ours
