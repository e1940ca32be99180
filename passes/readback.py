"""Read back: levels become levels as one programmed array returns them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnx_analog.arguments import check_type
from onnx_analog.channels import Channel, resolve
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.scheme import Scheme
from onnx_analog.display import counted
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.reader import Reader, check_trial, read_side
from onnx_analog.graph.stored import READ_DIGESTS_KEY, READBACK_KEY, StoredTensor, channels_of, read_with, simulated

__all__ = ["ReadbackPass"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadbackPass(ir.passes.FunctionalPass):
    """Return a model whose levels are read from noisy cells; it differs from the protected one in them only.

    Where side information is analog too, or a digital stream is read wrongly, signs and classes differ as well. The
    metadata entry `onnx_analog.readback` says seed, trial and channel, and `onnx_analog.readback_sha256` keeps the
    digests of what was read.

    Parameters
    ----------
    seed, trial : int, 0 to 2^63 - 1
        The noise depends on these and each tensor's storage key, and on nothing else.
    channel : str or Channel, optional
        Replaces the stored channels; its output range must cover theirs.
    modifiers : Modifiers
        Changes to that channel, or to the stored ones.

    Raises
    ------
    OptionError
        If seed or trial is out of its range, or `channel` or `modifiers` are given and nothing is stored in cells.
    ModelError
        If the model is not protected, is damaged, or was read back already.
    ChannelError
        If there is no such channel, or it cannot hold the levels.
    """

    seed: int = 0
    trial: int = 0
    channel: str | Channel | None = None
    modifiers: Modifiers = NONE

    def __post_init__(self) -> None:
        check_trial(self.seed, self.trial)
        check_type("modifiers", self.modifiers, Modifiers, "Modifiers")
        if self.channel is not None:
            object.__setattr__(self, "channel", resolve(self.channel))

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Return a perturbed copy of `model`."""
        return ir.passes.PassResult(self.read(open_protected(model)).model, modified=True)

    def read(self, protected: ProtectedModel) -> ProtectedModel:
        """Return a perturbed copy of a model that is open."""
        protected.check_readable()
        perturbed = protected.copy()
        schemes = read_with(protected.schemes, self.channel, self.modifiers)
        reads = [self._read(tensor, schemes[tensor.scheme]) for tensor in protected.tensors]
        channels = channels_of(schemes[tensor.scheme] for tensor in protected.tensors)
        return replaced(perturbed, reads, simulated(self.seed, self.trial, channels))

    def _read(self, tensor: StoredTensor, scheme: Scheme) -> Read:
        """Return levels of one tensor; signs and classes if any may have been read wrongly."""
        level = Reader(tensor, scheme).read(seed=self.seed, trial=self.trial)
        sign, class_index = read_side(tensor, seed=self.seed, trial=self.trial, scheme=scheme)
        if sign is tensor.sign:
            sign = None
        return level, sign, None if class_index is tensor.class_index else class_index


Read = tuple[Floats, Bits | None, Bytes | None]  # levels of one tensor; signs and classes if they were read


def replaced(copy: ProtectedModel, reads: Sequence[Read], mark: str) -> ProtectedModel:
    """Put what was read of each tensor into a copy of a protected model, and the mark that says so; return the copy."""
    for tensor, (level, sign, class_index) in zip(copy.tensors, reads, strict=True):
        tensor.replace_level(level)
        tensor.replace_side(sign, class_index)
    copy.model.metadata_props[READBACK_KEY] = mark
    logger.info("%s: read %s", mark, counted(len(copy.tensors), "tensor"))
    planes = [_planes(sign, class_index) for _, sign, class_index in reads]
    copy.model.metadata_props[READ_DIGESTS_KEY] = _digests(copy.tensors, planes)
    return replace(copy, read_mark=mark)


def _planes(sign: Bits | None, class_index: Bytes | None) -> set[str]:
    """Return the names of the planes that were read."""
    return {"level"} | {name for name, plane in (("sign", sign), ("class", class_index)) if plane is not None}


def _digests(tensors: Sequence[StoredTensor], planes: Sequence[set[str]]) -> str:
    """Return the digests of the planes that were read, as JSON: by key and plane."""
    kept = {
        tensor.key: {name: digest for name, digest in tensor.digests().items() if name in read}
        for tensor, read in zip(tensors, planes, strict=True)
    }
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
