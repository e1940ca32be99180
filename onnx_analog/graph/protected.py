"""A protected model is checked once, when it is opened: against its own manifest and digests.

Files are damaged on their way, and other tools change them. What then decodes to other weights would give wrong
numbers, so it is refused. Nothing is allocated before the planes, which are in the file, are known to need it.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import serialise
from onnx_analog.coding import planes
from onnx_analog.coding.strategies import strategy
from onnx_analog.errors import ManifestError, ModelError
from onnx_analog.graph import decoder
from onnx_analog.graph.manifest import Manifest, TensorEntry, account, from_json
from onnx_analog.graph.stored import (
    AGAIN,
    MANIFEST_KEY,
    PROTECTION_KEY,
    READ_DIGESTS_KEY,
    READBACK_KEY,
    Protection,
    StoredTensor,
    read_back,
    stored_tensors,
)

logger = logging.getLogger(__name__)

MOST_AXES = 64  # that numpy has
_TYPES = {"level": ir.DataType.FLOAT, "alpha": ir.DataType.FLOAT, "beta": ir.DataType.FLOAT, "shape": ir.DataType.INT64}
_NORMAL = float(np.finfo(np.float32).tiny)
_MOST_EXPANDED = 1024  # bytes of weights for each byte of planes; 64 if no two tensors share one
_MOST_UNASKED = 256 * 2**20  # bytes of weights, whatever the planes have


@dataclass(frozen=True, eq=False, kw_only=True)
class ProtectedModel:
    """What a protected model says, found to agree with itself.

    Attributes
    ----------
    model : ir.Model
    protection : Protection
    tensors : tuple of StoredTensor
        One for each call: two with one key where another tool inlined a function that is called twice.
    manifest : Manifest or None
        Of the levels that were written; None if another tool dropped it.
    read : str or None
        The mark of a model whose levels were read from noisy cells.
    """

    model: ir.Model
    protection: Protection
    tensors: tuple[StoredTensor, ...]
    manifest: Manifest | None
    read: str | None

    def account(self) -> Manifest:
        """Return which cell holds what: of a model that was read from noisy cells, what was written to them.

        Raises
        ------
        ModelError
            If classes were read from noisy cells, and no manifest says how many weights were written to each.
        """
        if self.read is not None and self.manifest is not None:
            return self.manifest
        if self.read is not None and self.protection.header is not None:
            raise ModelError(
                f"the classes of this model were read from noisy cells ({self.read}), so its cells cannot be counted. "
                "Name the protected model."
            )
        return account(self.model)


def opened(model: ir.Model) -> ProtectedModel:
    """Return what `model`, which is not changed, says of itself.

    Checked are the planes: their types and sizes, that levels are within the span, that bits beyond the last weight are
    0, that α is positive. Where the model has its manifest, keys, shapes, types, counts, α and β, the digest of every
    plane and how the model was protected must be those in it. What was read from noisy cells is compared with the
    digests of what was read. Names and the order of tensors may differ, for other tools change them.

    Raises
    ------
    ModelError
        If the model is not protected, or one of this does not hold.
    ChannelError
        If the channel that it names is not installed, or not with these options.
    """
    protection, read = Protection.of(model), read_back(model)
    if read is None and READ_DIGESTS_KEY in model.metadata_props:
        raise ModelError(f"the model lost its metadata entry {READBACK_KEY!r}. {_READ_AGAIN}")
    tensors = tuple(stored_tensors(model))
    _check_functions(model, tensors)
    for tensor in tensors:
        _check_forms(tensor, protection)
    _check_total(tensors)
    for tensor in {_planes(tensor): tensor for tensor in tensors}.values():
        _check_bits(tensor, protection)
        _check_numbers(tensor, protection, read=read is not None)
    _check_keys(tensors)
    if protection.scope == "model":
        _check_shared(tensors)
    found = ProtectedModel(model=model, protection=protection, tensors=tensors, manifest=_manifest(model), read=read)
    _check_digests(found)
    return found


def warn_unless_guarded(model: ir.Model) -> None:
    """Log a warning if nothing tells whether the planes of a protected model are those that were written."""
    if MANIFEST_KEY not in model.metadata_props:
        logger.warning("the model has no metadata entry %r, so damage to its planes may go unseen", MANIFEST_KEY)


def _check_functions(model: ir.Model, tensors: Iterable[StoredTensor]) -> None:
    """Check that onnxruntime decodes as we do: by the functions in the file."""
    name = decoder.altered((tensor.node.op_type for tensor in tensors), model.functions)
    if name is not None:
        state = "changed" if (decoder.DOMAIN, name, "") in model.functions else "removed"
        raise ModelError(f"another tool {state} the model's function {name!r}, which decodes weights. {AGAIN}")


# ---------------------------------------------------------------------------------------------- one tensor's planes


def _check_forms(tensor: StoredTensor, protection: Protection) -> None:
    """Check types, ranks and lengths, and with them how much memory the weight takes."""
    for name in tensor.inputs:
        held, wanted = tensor.held(name), _TYPES.get(name, ir.DataType.UINT8)
        if held.dtype != wanted or len(held.shape) != 1:
            raise tensor.damaged(
                f"its {name} is {held.dtype.name} of {len(held.shape)} axes, and not {wanted.name} of one"
            )
    classes = strategy(protection.strategy).classes
    for name in ("alpha", "beta"):
        if tensor.held(name).size != classes:
            raise tensor.damaged(f"its {name} has {tensor.held(name).size:,} values for {classes} classes")
    if tensor.held("shape").size > MOST_AXES:
        raise tensor.damaged(f"its shape has {tensor.held('shape').size:,} axes, more than {MOST_AXES}")
    if min(tensor.shape, default=0) < 0:
        raise tensor.damaged(f"its shape is {tensor.shape}")
    if not tensor.count:
        raise tensor.damaged("it holds no level")
    total = math.prod(tensor.shape)
    if "mask" not in tensor.inputs and total != tensor.count:
        raise tensor.damaged(f"its shape {tensor.shape} is of {total:,} weights, and it holds {tensor.count:,} levels")
    for name, bits in _bits(tensor, protection).items():
        if tensor.held(name).size != -(-bits // 8):
            raise tensor.damaged(f"its {name} has {tensor.held(name).size:,} bytes for {bits:,} bits")


def _bits(tensor: StoredTensor, protection: Protection) -> dict[str, int]:
    """Return how many bits mask, sign and class must have."""
    chosen = strategy(protection.strategy)
    sizes = {"mask": tensor.size} if "mask" in tensor.inputs else {}
    return {**sizes, "sign": tensor.count * chosen.sign_in_header, "class": tensor.count * (chosen.classes > 1)}


def _check_bits(tensor: StoredTensor, protection: Protection) -> None:
    """Check what is beyond the last bits of mask, sign and class, and how many weights the mask says are stored."""
    for name, bits in _bits(tensor, protection).items():
        packed = tensor.plane(name)
        if bits % 8 and packed[-1] >> bits % 8:
            raise tensor.damaged(f"its {name} has bits set beyond the last of {bits:,}")
        if name == "mask" and (kept := int(np.bitwise_count(packed).sum(dtype=np.int64))) != tensor.count:
            raise tensor.damaged(f"its mask marks {kept:,} weights, and it holds {tensor.count:,} levels")


def _check_numbers(tensor: StoredTensor, protection: Protection, *, read: bool) -> None:
    """Check α, β, and each class's levels; levels that were read may be outside the span."""
    alpha, beta, level = (tensor.plane(name) for name in ("alpha", "beta", "level"))
    if not (np.isfinite(alpha) & (alpha >= _NORMAL)).all():
        raise tensor.damaged(f"its alpha is {_told(alpha)}, where positive normal numbers must be")
    if not np.isfinite(beta).all():
        raise tensor.damaged(f"its beta is {_told(beta)}, where finite numbers must be")
    low, high = float(level.min()), float(level.max())
    span = protection.channel.span
    if not (math.isfinite(low) and math.isfinite(high)):
        raise tensor.damaged(f"its levels run from {low:.4g} to {high:.4g}")
    if not read and not span[0] <= low <= high <= span[1]:
        raise tensor.damaged(
            f"its levels run from {low:.4g} to {high:.4g}, outside the {span[0]:.4g} to {span[1]:.4g} of its channel"
        )
    for place, levels in enumerate(_by_class(tensor, level)):
        if levels.size and not read and not _fits(levels, alpha[place], beta[place], tensor.dtype):
            raise tensor.damaged(f"its weights are beyond the range of {tensor.dtype.name}")


def _told(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _by_class(tensor: StoredTensor, level: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
    packed = tensor.plane("class")
    if not packed.size:
        return [level]
    large = planes.unpack(packed, level.size)
    return level[~large], level[large]


def _fits(level: NDArray[np.float32], alpha: Any, beta: Any, dtype: ir.DataType) -> bool:
    with np.errstate(over="ignore"):
        ends = (np.array([level.min(), level.max()]) + beta) / alpha
        return bool(np.isfinite(ends.astype(dtype.numpy()).astype(np.float64)).all())


# ---------------------------------------------------------------------------------------------- tensors together


def _planes(tensor: StoredTensor) -> tuple[Any, ...]:
    """Return what is the same where two calls share all planes."""
    return (tensor.dtype, *(id(value) for value in tensor.inputs.values()))


def _check_total(tensors: Iterable[StoredTensor]) -> None:
    """Check that the weights of all tensors fit the planes of all: a few bytes, shared by many calls, could be huge."""
    planes = {id(value): tensor.held(name).nbytes for tensor in tensors for name, value in tensor.inputs.items()}
    total = sum({t.key: math.prod(t.shape) * t.dtype.bitwidth // 8 for t in tensors}.values())
    if total > max(_MOST_UNASKED, _MOST_EXPANDED * sum(planes.values())):
        raise ModelError(f"the model's planes have {sum(planes.values()):,} bytes, for weights of {total:,}. {AGAIN}")


def _check_keys(tensors: Iterable[StoredTensor]) -> None:
    """Check that calls of one key decode one weight: noise and digests are told apart by keys."""
    first: dict[str, StoredTensor] = {}
    for tensor in tensors:
        other = first.setdefault(tensor.key, tensor)
        if _planes(other) != _planes(tensor) and _identity(other) != _identity(tensor):
            raise tensor.damaged("two calls have this key, and their planes differ")


def _identity(tensor: StoredTensor) -> Any:
    names = [name for name in tensor.inputs if tensor.has(name)]
    planes = {name: hashlib.sha256(np.ascontiguousarray(tensor.plane(name)).data).digest() for name in names}
    return tensor.dtype, tensor.shape, planes


def _check_shared(tensors: Sequence[StoredTensor]) -> None:
    first = tensors[0]
    for tensor in tensors:
        for name in ("alpha", "beta"):
            if tensor.plane(name).tobytes() != first.plane(name).tobytes():
                raise tensor.damaged(f"its {name} is not that of {first.key!r}, though all tensors share one scope")


# ---------------------------------------------------------------------------------------------- the manifest inside


def _manifest(model: ir.Model) -> Manifest | None:
    text = model.metadata_props.get(MANIFEST_KEY)
    if text is None:
        return None
    try:
        return from_json(text)
    except ManifestError as error:
        raise ModelError(f"metadata entry {MANIFEST_KEY!r} is damaged: {error}. {AGAIN}") from error


def _check_digests(found: ProtectedModel) -> None:
    read = _read_digests(found.model) if found.read is not None else {}
    if found.manifest is None and not read:
        return
    actual = account(found.model)
    if found.manifest is None:
        for entry in actual.tensors:
            _check_read(entry, read.get(entry.key, {}))
        return
    _check_whole(found.manifest, actual)
    for listed, entry in _paired(found.manifest, actual):
        digests = {**listed.sha256, **read.get(listed.key, {})}
        errs = found.read is not None and found.protection.header is not None  # classes were read, and may be others
        _check_entry(_told_apart(replace(listed, sha256=digests), errs), _told_apart(entry, errs), listed.key)


def _read_digests(model: ir.Model) -> Mapping[str, Mapping[str, str]]:
    """Return the digests of the planes that were read, by key and plane."""
    text = model.metadata_props.get(READ_DIGESTS_KEY)
    if text is None:
        return {}
    try:
        found = serialise.parse(text)
    except ValueError as error:
        raise ModelError(f"metadata entry {READ_DIGESTS_KEY!r} is damaged: {error}. {_READ_AGAIN}") from error
    if not isinstance(found, dict) or not all(isinstance(planes, dict) for planes in found.values()):
        raise ModelError(f"metadata entry {READ_DIGESTS_KEY!r} is damaged: it is no object of objects. {_READ_AGAIN}")
    return found


_READ_AGAIN = "Read the protected model back again."


def _check_read(entry: TensorEntry, digests: Mapping[str, str]) -> None:
    for plane, digest in digests.items():
        if entry.sha256.get(plane) != digest:
            raise ModelError(f"tensor {entry.key!r}: its {plane} is not what was read. {_READ_AGAIN}")


def _check_whole(listed: Manifest, actual: Manifest) -> None:
    for name in ("strategy", "scope", "bits_per_cell", "channel", "devices_per_cell", "header"):
        if getattr(listed, name) != getattr(actual, name):
            raise ModelError(
                f"metadata entries {PROTECTION_KEY!r} and {MANIFEST_KEY!r} tell another {name}: one is damaged. {AGAIN}"
            )
    for name in ("source_sha256", "command"):
        if getattr(actual, name) not in (None, getattr(listed, name)):
            raise ModelError(f"the model's metadata and its manifest tell another {name}: one is damaged. {AGAIN}")


def _paired(listed: Manifest, actual: Manifest) -> Iterable[tuple[TensorEntry, TensorEntry]]:
    there = {entry.key: entry for entry in actual.tensors}
    for entry in listed.tensors:
        if entry.key not in there:
            raise ModelError(f"tensor {entry.key!r} is in the model's manifest only: another tool decoded it. {AGAIN}")
        yield entry, there.pop(entry.key)
    for key in there:
        raise ModelError(f"tensor {key!r} is not in the model's manifest: the two do not belong together. {AGAIN}")


def _told_apart(entry: TensorEntry, errs: bool) -> dict[str, Any]:
    """Return what of an entry other tools leave alone; without the bounds and counts of classes that `errs`."""
    classes = [(c.alpha, c.beta, c.cells) if errs else c for c in entry.classes]
    names = ("shape", "dtype", "original", "stored", "mask_bitmap_bits")
    planes = {f"{plane} (by its digest)": digest for plane, digest in entry.sha256.items()}
    return {**{name: getattr(entry, name) for name in names}, "classes": classes, **planes}


def _check_entry(listed: Mapping[str, Any], actual: Mapping[str, Any], key: str) -> None:
    for name in [*listed, *actual]:
        if listed.get(name) != actual.get(name):
            raise ModelError(f"tensor {key!r}: its {name} is not that of the model's manifest. {AGAIN}")
