"""Read back: levels become levels as one programmed array returns them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from onnx_analog.channels import Channel
from onnx_analog.encoding import Bits, Bytes, Floats
from onnx_analog.errors import OptionError, whole
from onnx_analog.stored import (
    READBACK_KEY,
    Protection,
    Reader,
    StoredTensor,
    read_header,
    readable,
    stored_tensors,
    with_channel,
)

__all__ = ["ReadbackPass"]


@dataclass(frozen=True, kw_only=True)
class ReadbackPass(ir.passes.FunctionalPass):
    """Return a model whose levels are read from noisy cells; it differs from the protected one in them only.

    Where the header is analog too, signs and classes are read as well. The metadata entry `onnx_analog.readback` says
    seed, trial and channel.

    Parameters
    ----------
    seed, trial : int, >= 0
        The noise depends on these and each tensor's storage key, and on nothing else.
    channel : Channel, optional
        Replaces the stored channel; its span must cover the stored one's.

    Raises
    ------
    OptionError
        If seed or trial is negative.
    ModelError
        If the model is not protected, or was read back already.
    ChannelError
        If `channel` cannot hold the levels.
    """

    seed: int = 0
    trial: int = 0
    channel: Channel | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "trial"):
            if whole(name, getattr(self, name)) < 0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be 0 or more")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Return a perturbed copy of `model`."""
        protection = with_channel(readable(model), self.channel)
        perturbed = model.clone()
        tensors = stored_tensors(perturbed)
        reads = [self._read(tensor, protection) for tensor in tensors]
        for tensor, (level, header) in zip(tensors, reads, strict=True):
            tensor.replace_level(level)
            if protection.header is not None:
                tensor.replace_header(*header)
        perturbed.metadata_props[READBACK_KEY] = self._told(protection.channel)
        return ir.passes.PassResult(perturbed, modified=True)

    def _told(self, channel: Channel) -> str:
        """Return the metadata entry that tells this model from the protected one."""
        return f"seed {self.seed}, trial {self.trial}, channel {channel}"

    def _read(self, tensor: StoredTensor, protection: Protection) -> tuple[Floats, tuple[Bits | None, Bytes | None]]:
        """Return levels, and signs and classes, of one tensor."""
        level = Reader(tensor, protection).read(seed=self.seed, trial=self.trial)
        return level, read_header(tensor, protection, seed=self.seed, trial=self.trial)
