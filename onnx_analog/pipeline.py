"""The order of the passes.

model -> PrunePass -> ProtectPass -> ManifestPass -> (ReadbackPass) -> (DecodePass)
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnx_analog.channels import Channel
from onnx_analog.errors import AnalogError
from onnx_analog.passes import DecodePass, ManifestPass, ProtectPass, PrunePass, ReadbackPass


def protecting(protect: ProtectPass, *, sparsity: float = 0.0, prune_scope: str = "model") -> list[ir.passes.PassBase]:
    """Return the passes from a plain model to a protected one; sparsity 0 prunes nothing."""
    prune = [PrunePass(sparsity=sparsity, scope=prune_scope, selection=protect.selection)] if sparsity else []
    return [*prune, protect, ManifestPass()]


def reading(*, seed: int, trial: int, channel: Channel | None, decoded: bool) -> list[ir.passes.PassBase]:
    """Return the passes from a protected model to one that is read back."""
    return [ReadbackPass(seed=seed, trial=trial, channel=channel), *([DecodePass()] if decoded else [])]


def run(passes: Sequence[ir.passes.PassBase], model: ir.Model) -> ir.Model:
    """Run `passes` in order and return the model; errors of ours come out as they were raised, without wrapping."""
    try:
        return ir.passes.Sequential(*passes)(model).model
    except ir.passes.PassError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, AnalogError):
            cause = cause.__cause__
        raise (cause or error) from None
