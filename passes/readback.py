"""Read back: levels become levels as one programmed array returns them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnx_analog.channels import Channel
from onnx_analog.coding.planes import Bits, Bytes, Floats
from onnx_analog.errors import OptionError, whole
from onnx_analog.graph.protected import opened
from onnx_analog.graph.stored import (
    READ_DIGESTS_KEY,
    READBACK_KEY,
    Protection,
    Reader,
    StoredTensor,
    read_header,
    readable,
    with_channel,
)

__all__ = ["ReadbackPass"]

_LARGEST = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class ReadbackPass(ir.passes.FunctionalPass):
    """Return a model whose levels are read from noisy cells; it differs from the protected one in them only.

    Where the header is analog too, signs and classes are read as well. The metadata entry `onnx_analog.readback` says
    seed, trial and channel, and `onnx_analog.readback_sha256` keeps the digests of what was read.

    Parameters
    ----------
    seed, trial : int, 0 to 2^63 - 1
        The noise depends on these and each tensor's storage key, and on nothing else.
    channel : Channel, optional
        Replaces the stored channel; its span must cover the stored one's.

    Raises
    ------
    OptionError
        If seed or trial is out of its range.
    ModelError
        If the model is not protected, is damaged, or was read back already.
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
            if getattr(self, name) > _LARGEST:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at most 2^63 - 1")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Return a perturbed copy of `model`."""
        protection = with_channel(readable(model), self.channel)
        perturbed = model.clone()
        tensors = opened(perturbed).tensors
        reads = [self._read(tensor, protection) for tensor in tensors]
        for tensor, (level, header) in zip(tensors, reads, strict=True):
            tensor.replace_level(level)
            if protection.header is not None:
                tensor.replace_header(*header)
        perturbed.metadata_props[READBACK_KEY] = self._told(protection.channel)
        perturbed.metadata_props[READ_DIGESTS_KEY] = _digests(tensors, header=protection.header is not None)
        return ir.passes.PassResult(perturbed, modified=True)

    def _told(self, channel: Channel) -> str:
        """Return the metadata entry that tells this model from the protected one."""
        return f"seed {self.seed}, trial {self.trial}, channel {channel}"

    def _read(self, tensor: StoredTensor, protection: Protection) -> tuple[Floats, tuple[Bits | None, Bytes | None]]:
        """Return levels, and signs and classes, of one tensor."""
        level = Reader(tensor, protection).read(seed=self.seed, trial=self.trial)
        return level, read_header(tensor, protection, seed=self.seed, trial=self.trial)


def _digests(tensors: Sequence[StoredTensor], *, header: bool) -> str:
    """Return the digests of the planes that were read, as JSON: by key and plane."""
    read = ("level", "sign", "class") if header else ("level",)
    found = {tensor.key: tensor.digests() for tensor in tensors}
    kept = {key: {name: digest for name, digest in planes.items() if name in read} for key, planes in found.items()}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
