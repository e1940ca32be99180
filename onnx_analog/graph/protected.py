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
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import serialise
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding import packing, planes
from onnx_analog.coding.assumptions import OPTIMISTIC, assumes_addresses
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.verified import Verified
from onnx_analog.errors import ManifestError, ModelError, one_line
from onnx_analog.graph import decoder, files, skeleton
from onnx_analog.graph._model_tensors import MOST_AXES
from onnx_analog.graph.accounting import account_of
from onnx_analog.graph.correction import Cost, layers_of
from onnx_analog.graph.layout import DOMAIN
from onnx_analog.graph.manifest import Manifest, TensorEntry, differences
from onnx_analog.graph.manifest_json import from_json
from onnx_analog.graph.model import Model
from onnx_analog.graph.reader import Reader, check_trial, read_side
from onnx_analog.graph.stored import (
    AGAIN,
    COMPENSATED_KEY,
    MANIFEST_KEY,
    READ_DIGESTS_KEY,
    READBACK_KEY,
    SCHEMES_KEY,
    StoredTensor,
    read_already,
    read_back,
    read_with,
    schemes_of,
    stored_tensors,
    verified_of,
)

logger = logging.getLogger(__name__)

_TYPES = {
    **dict.fromkeys(("level", "alpha", "beta"), ir.DataType.FLOAT),
    **dict.fromkeys(("shape", "stride"), ir.DataType.INT64),
}
_NORMAL = float(np.finfo(np.float32).tiny)
_MOST_EXPANDED = 1024  # bytes of weights for each byte of planes; 64 if no two tensors share one
_MOST_UNASKED = 256 * 2**20  # bytes of weights, whatever the planes have


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ProtectedModel(Model):
    """A protected model that was scanned once, and agrees with itself.

    Attributes
    ----------
    model : ir.Model
    schemes : tuple of Scheme
    tensors : tuple of StoredTensor
        One for each call: two with one key where another tool inlined a function that is called twice.
    written : Manifest or None
        Of the levels that were written; None if another tool dropped it.
    read_mark : str or None
        Says what a model whose levels were read from noisy cells was read with.
    verified : Verified or None
        How the plan that it is stored by was verified; None if that is not known. It tells why, where the model is
        stored otherwise.
    as_written : ProtectedModel or None
        The model before `through`: another channel does not change how many cells it takes.
    """

    model: ir.Model
    schemes: tuple[Scheme, ...]
    tensors: tuple[StoredTensor, ...]
    written: Manifest | None
    read_mark: str | None
    verified: Verified | None = None
    as_written: ProtectedModel | None = None

    @cached_property
    def plan(self) -> Plan:
        """The scheme of each tensor."""
        as_verified = self.verified is not None and self.verified.otherwise is None
        by = self.verified.compensated_by if self.verified is not None and as_verified else None
        return Plan(
            default=None,
            tensors={tensor.key: tensor.scheme for tensor in self.tensors},
            compensated=by is not None or COMPENSATED_KEY in self.model.metadata_props,
            compensated_by=by,
            verified=self.verified,
        )

    @cached_property
    def counted(self) -> Manifest:
        """The manifest of the planes as they are in the model, whichever channel reads them."""
        if self.as_written is not None:
            return self.as_written.counted
        return account_of(self.tensors, self.schemes, self.model)

    @property
    def by_key(self) -> dict[str, StoredTensor]:
        """The tensors by storage key: one of those that a tool made of one when it inlined what is called twice."""
        return {tensor.key: tensor for tensor in self.tensors}

    @cached_property
    def correction(self) -> Cost:
        """What a correction by samples costs: its cells are not among those of the manifest."""
        return layers_of(self.model, self.tensors).cost

    @property
    def has_analog_side(self) -> bool:
        """Whether the side information of any tensor is read from noisy cells."""
        return any(tensor.scheme.side is not None for tensor in self.tensors)

    @cached_property
    def manifest(self) -> Manifest:
        """Which cell holds what: of a model that was read from noisy cells, what was written to them.

        Raises
        ------
        ModelError
            If classes were read from noisy cells, and no manifest says how many weights were written to each.
        """
        if self.read_mark is not None and self.written is not None:
            return self.written
        if self.read_mark is not None and self.has_analog_side:
            raise ModelError(
                f"the classes of this model were read from noisy cells ({self.read_mark}), so its cells cannot be "
                "counted. Name the protected model."
            )
        return self.counted

    def __str__(self) -> str:
        mark = "" if self.read_mark is None else f"; read from noisy cells: {self.read_mark}"
        return f"{self.counted}{mark}"

    def _lines(self) -> Iterable[Sequence[object]]:
        return self.counted.lines()

    def warn_unless_guarded(self) -> None:
        """Log a warning if the model has no digests to check its planes against."""
        if self.written is None:
            logger.warning(
                "the model has no metadata entry %r, so damage to its planes may not be noticed", MANIFEST_KEY
            )

    def warn_of_assumptions(self) -> None:
        """Log a warning if reads of the model assume something in favour of the memory."""
        if assumes_addresses(self.schemes):
            logger.warning(OPTIMISTIC)

    def check_readable(self) -> None:
        """Raise `ModelError` if the model was read from noisy cells already: read again, it would have noise twice."""
        if self.read_mark is not None:
            raise ModelError(read_already(self.model))

    def read(self, *, seed: int = 0, trial: int = 0) -> dict[str, NDArray[Any]]:
        """Return the weights, by storage key, as one programming and one read of the array give them.

        Raises
        ------
        OptionError
            If seed or trial is not from 0 to 2^63 - 1.
        ModelError
            If the model was read from noisy cells already.
        """
        check_trial(seed, trial)
        self.check_readable()
        return {tensor.key: _read(tensor, seed, trial) for tensor in self.tensors}

    def decode(self) -> dict[str, NDArray[Any]]:
        """Return the weights, by storage key, that the stored levels stand for."""
        return {tensor.key: tensor.decode() for tensor in self.tensors}

    def through(self, channel: str | Channel | None, modifiers: Modifiers = NONE) -> ProtectedModel:
        """Return the model whose cells are read through another channel, or through its own, changed.

        Raises
        ------
        ChannelError
            If the output range of the other does not cover the stored levels.
        """
        schemes = read_with(self.schemes, channel, modifiers)
        tensors = tuple(tensor.read_as(schemes[tensor.scheme]) for tensor in self.tensors)
        read = tuple(schemes[scheme] for scheme in self.schemes)
        return replace(self, schemes=read, tensors=tensors, as_written=self.as_written or self)

    def copy(self) -> ProtectedModel:
        """Return a copy whose planes can be replaced; what was checked is not checked again."""
        model = self.model.clone()
        return replace(self, model=model, tensors=tuple(stored_tensors(model, self.schemes)))


def _read(tensor: StoredTensor, seed: int, trial: int) -> NDArray[Any]:
    level = Reader(tensor).read(seed=seed, trial=trial)
    sign, class_index = read_side(tensor, seed=seed, trial=trial)
    return tensor.dense(tensor.decode_levels(level, sign=sign, class_index=class_index))


def open_protected(model: ir.Model) -> ProtectedModel:
    """Open and check a protected model, which is not changed.

    Checked are the planes: their types and sizes, that levels are within the output range, that bits beyond the last
    weight are 0, that α is positive. Where the model has its manifest, keys, shapes, types, counts, α and β, the digest
    of every plane and the schemes must be those in it. What was read from noisy cells is compared with the digests of
    what was read. Names and the order of tensors may differ, for other tools change them.

    Raises
    ------
    ModelError
        If the model is not protected, or one of this does not hold.
    ChannelError
        If the channel that it names is not installed, or not with these options.
    """
    schemes, read = schemes_of(model), read_back(model)
    if read is None and READ_DIGESTS_KEY in model.metadata_props:
        raise ModelError(f"the model lost its metadata entry {READBACK_KEY!r}. {_READ_AGAIN}")
    tensors = tuple(stored_tensors(model, schemes))
    _check_functions(model, tensors)
    for tensor in tensors:
        _check_forms(tensor)
    _check_total(tensors)
    for tensor in {_planes(tensor): tensor for tensor in tensors}.values():
        _check_bits(tensor)
        _check_numbers(tensor, read=read is not None)
        tensor.release()
    _check_keys(tensors)
    _check_shared(tensors)
    _check_shapes(model, schemes, tensors)
    protected = ProtectedModel(
        model=model,
        schemes=schemes,
        tensors=tensors,
        written=_manifest(model),
        read_mark=read,
        verified=verified_of(model),
    )
    _check_digests(protected)
    return protected


def _check_functions(model: ir.Model, tensors: Iterable[StoredTensor]) -> None:
    """Check that onnxruntime decodes as we do: by the functions in the file."""
    name = decoder.altered((tensor.node.op_type for tensor in tensors), model.functions)
    if name is not None:
        state = "changed" if (DOMAIN, name, "") in model.functions else "removed"
        raise ModelError(f"another tool {state} the model's function {name!r}, which decodes weights. {AGAIN}")


def just_protected(model: ir.Model) -> ProtectedModel:
    """Open a model that passes of this process have protected and given its manifest: it is not checked again."""
    schemes = schemes_of(model)
    manifest = model.meta[MANIFEST_KEY]
    protected = ProtectedModel(
        model=model,
        schemes=schemes,
        tensors=tuple(stored_tensors(model, schemes)),
        written=manifest,
        read_mark=read_back(model),
        verified=verified_of(model),
    )
    protected.__dict__["counted"] = manifest  # by the pass, of these planes
    return protected


# ---------------------------------------------------------------------------------------------- one tensor's planes


def _check_forms(tensor: StoredTensor) -> None:
    """Check types, ranks and lengths, and with them how much memory the weight takes."""
    for name in tensor.inputs:
        plane, expected = tensor.plane_tensor(name), _TYPES.get(name, ir.DataType.UINT8)
        axes = 2 if name in ("alpha", "beta") and tensor.layout.grouped else 1
        if plane.dtype != expected or len(plane.shape) != axes:
            raise tensor.damaged(
                f"its {name} is {plane.dtype.name} of {len(plane.shape)} axes, and not {expected.name} of {axes}"
            )
    if tensor.plane_tensor("shape").size > MOST_AXES:
        raise tensor.damaged(f"its shape has {tensor.plane_tensor('shape').size:,} axes, more than {MOST_AXES}")
    if min(tensor.shape, default=0) < 0:
        raise tensor.damaged(f"its shape is {tensor.shape}, and no side may be negative")
    _check_layout(tensor)
    _check_groups(tensor)
    if tensor.has("mask") and tensor.plane_tensor("mask").size != -(-tensor.size // 8):
        raise tensor.damaged(f"its mask has {tensor.plane_tensor('mask').size:,} bytes for {tensor.size:,} bits")
    if not tensor.count:
        raise tensor.damaged(f"it stores none of its {tensor.size:,} weights")
    for name, bits in _bits(tensor).items():
        if tensor.plane_tensor(name).size != -(-bits // 8):
            raise tensor.damaged(f"its {name} has {tensor.plane_tensor(name).size:,} bytes for {bits:,} bits")


def _check_layout(tensor: StoredTensor) -> None:
    """Check that the function that is called decodes what the scheme writes."""
    layout, scheme = tensor.layout, tensor.scheme
    expected = (scheme.sign == "bit", packing.index_width(scheme.classes), scheme.analog)
    grouped = layout.grouped > (scheme.granularity == "channel")
    aligned = layout.aligned and tensor.count % 8 > 0
    if (layout.sign, layout.width, layout.analog) != expected or grouped or aligned:
        raise tensor.damaged(f"it is decoded by {tensor.node.op_type!r}, which does not fit its scheme, {scheme}")


def _check_groups(tensor: StoredTensor) -> None:
    """Check that α and β have a value for each class, and that groups fit the shape."""
    classes, grouped = tensor.scheme.classes, tensor.layout.grouped
    rows = tensor.plane_tensor("alpha").size // classes if grouped else 1
    for name in ("alpha", "beta"):
        if tuple(tensor.plane_tensor(name).shape.numpy()) != ((rows, classes) if grouped else (classes,)):
            raise tensor.damaged(
                f"its {name} has {tensor.plane_tensor(name).size:,} values for {classes} classes"
                + f" in {rows:,} groups" * grouped
            )
    if grouped:
        axes = {planes.Axis.of(tensor.shape, number) for number in range(len(tensor.shape))}
        if rows < 2 or tensor.plane_tensor("stride").size != 1 or tensor.axis not in axes:
            raise tensor.damaged(f"its {rows:,} groups do not fit its shape, {tensor.shape}")
    if tensor.has("analog"):
        marks, expected = tensor.plane("analog"), (np.array(tensor.scheme.cells_of_class) > 0).astype(np.uint8)
        if not np.array_equal(marks, expected):
            raise tensor.damaged(
                f"its plane of classes that have cells is {_listed(marks)}, and {_listed(expected)} follows from its "
                "scheme"
            )


def _bits(tensor: StoredTensor) -> dict[str, int]:
    """Return how many bits mask, sign and class must have."""
    layout, stored = tensor.layout, tensor.count
    bits = {"mask": tensor.size * layout.masked, "sign": stored * layout.sign, "class": stored * layout.width}
    return {name: length for name, length in bits.items() if name in tensor.inputs}


def _check_bits(tensor: StoredTensor) -> None:
    """Check what is beyond the last bits, that all classes exist, and that each weight with cells has a level."""
    for name, bits in _bits(tensor).items():
        packed = tensor.plane(name)
        if bits % 8 and packed[-1] >> bits % 8:
            raise tensor.damaged(f"its {name} has bits set beyond the last of {bits:,}")
    if tensor.class_index is not None and int(tensor.class_index.max()) >= tensor.scheme.classes:
        raise tensor.damaged(
            f"a weight is of class {int(tensor.class_index.max())}, of {tensor.scheme.classes} classes"
        )
    levels = int(tensor.class_counts[np.array(tensor.scheme.cells_of_class) > 0].sum())
    if tensor.level.size != levels:
        raise tensor.damaged(f"it holds {tensor.level.size:,} levels for {levels:,} weights with cells")


def _check_numbers(tensor: StoredTensor, *, read: bool) -> None:
    """Check α, β, and each class's levels; levels that were read may be outside the output range."""
    alpha, beta, level = tensor.alpha, tensor.beta, tensor.level
    if not (np.isfinite(alpha) & (alpha >= _NORMAL)).all():
        raise tensor.damaged(f"its alpha is {_listed(alpha)}, where positive normal numbers must be")
    if not np.isfinite(beta).all():
        raise tensor.damaged(f"its beta is {_listed(beta)}, where finite numbers must be")
    if level.size:
        low, high = float(level.min()), float(level.max())
        span = tensor.scheme.channel.span
        if not (math.isfinite(low) and math.isfinite(high)):
            raise tensor.damaged(f"its levels run from {low:.4g} to {high:.4g}, and must be finite")
        if not read and not span[0] <= low <= high <= span[1]:
            raise tensor.damaged(
                f"its levels run from {low:.4g} to {high:.4g}, outside the {span[0]:.4g} to {span[1]:.4g} of its "
                "channel"
            )
    if not read and not _fits(tensor):
        raise tensor.damaged(f"its weights are beyond the range of {tensor.dtype.name}")


def _listed(values: NDArray[Any]) -> str:
    shown = [f"{value:.4g}" for value in values.reshape(-1)[:8]]
    return ", ".join([*shown, *(["..."] if values.size > 8 else [])])


def _fits(tensor: StoredTensor) -> bool:
    """Return whether all weights are finite in their type; they are decoded only if the ends of the levels are not."""
    if _ends_fit(tensor):
        return True
    with np.errstate(over="ignore"):
        size = tensor.decode_levels(tensor.level, sign=None, class_index=tensor.class_index)
        ends = np.array([size.min(), size.max()]).astype(tensor.dtype.numpy()).astype(np.float64)
        return bool(np.isfinite(ends).all())


def _ends_fit(tensor: StoredTensor) -> bool:
    """Return whether the lowest and the highest level would be finite weights in every class, with some room."""
    level, most = tensor.level, float(ml_dtypes.finfo(tensor.dtype.numpy()).max)  # type: ignore[no-untyped-call]
    ends = np.array([level.min(initial=0), level.max(initial=0)], np.float64)[:, None, None]  # 0 is a class's without
    with np.errstate(over="ignore"):
        weights = (ends + tensor.beta.astype(np.float64)) / tensor.alpha.astype(np.float64)
    return bool((np.abs(weights) < 0.99 * most).all())


# ---------------------------------------------------------------------------------------------- tensors together


def _planes(tensor: StoredTensor) -> tuple[Any, ...]:
    """Return what is the same where two calls share all planes."""
    return (tensor.dtype, *(id(value) for value in tensor.inputs.values()))


def _check_total(tensors: Iterable[StoredTensor]) -> None:
    """Check that the weights of all tensors fit the planes of all: a few bytes, shared by many calls, could be huge."""
    planes = {
        id(value): tensor.plane_tensor(name).nbytes for tensor in tensors for name, value in tensor.inputs.items()
    }
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
    first: dict[int, StoredTensor] = {}
    for tensor in tensors:
        if tensor.scheme.granularity != "model":
            continue
        other = first.setdefault(tensor.number, tensor)
        for name in ("alpha", "beta"):
            if tensor.plane(name).tobytes() != other.plane(name).tobytes():
                raise tensor.damaged(f"its {name} is not that of {other.key!r}, though all tensors share one codebook")


def _check_shapes(model: ir.Model, schemes: Sequence[Scheme], tensors: Sequence[StoredTensor]) -> None:
    """Check that declared shapes, and the graph around the weights, fit the shapes of the tensors."""
    for tensor in tensors:
        declared = tensor.node.outputs[0].shape
        if declared is not None and not _agree(declared, tensor.shape):
            raise tensor.damaged(f"the model declares its shape as {declared}, and it is {list(tensor.shape)}")
    if not files.is_to_be_asked(model):
        return
    refusal = files.strict_refusal(model, lambda copy: _weights_to_inputs(copy, schemes))
    if refusal is not None:
        raise ModelError(f"{files.name_of(model)}: onnxruntime refuses it: {refusal}")
    files.vouch(model)


def _agree(declared: ir.Shape, shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(
        not isinstance(side, int) or side == length for side, length in zip(declared, shape, strict=True)
    )


def _weights_to_inputs(model: ir.Model, schemes: Sequence[Scheme]) -> None:
    free = skeleton.free_names(model)
    for tensor in stored_tensors(model, schemes):
        skeleton.call_to_input(
            model, tensor.node, tensor.shape, tensor.dtype, in_function=tensor.in_function, free=free
        )


# ---------------------------------------------------------------------------------------------- the manifest inside


def _manifest(model: ir.Model) -> Manifest | None:
    text = model.metadata_props.get(MANIFEST_KEY)
    if text is None:
        return None
    try:
        return from_json(text)
    except ManifestError as error:
        raise ModelError(f"metadata entry {MANIFEST_KEY!r} is damaged: {error}. {AGAIN}") from error


def _check_digests(protected: ProtectedModel) -> None:
    read = _read_digests(protected.model) if protected.read_mark is not None else {}
    if protected.written is None and not read:
        return
    actual = protected.counted
    if protected.written is None:
        for entry in actual.tensors:
            _check_read(entry, read.get(entry.key, {}))
        return
    _check_run(protected.written, actual)
    numbers = {entry.scheme for entry in actual.tensors if "class" in read.get(entry.key, {})}
    shared = {number for number in numbers if protected.schemes[number].granularity == "model"}
    for listed, entry in _paired(protected.written, actual):
        digests = {**listed.sha256, **read.get(listed.key, {})}
        errs = "class" in read.get(listed.key, {}) or entry.scheme in shared  # classes were read, and may be others
        _check_entry(_compared(replace(listed, sha256=digests), errs), _compared(entry, errs), listed.key)


def _read_digests(model: ir.Model) -> Mapping[str, Mapping[str, str]]:
    """Return the digests of the planes that were read, by key and plane."""
    text = model.metadata_props.get(READ_DIGESTS_KEY)
    if text is None:
        return {}
    try:
        digests = serialise.parse(text)
    except ValueError as error:
        raise ModelError(f"metadata entry {READ_DIGESTS_KEY!r} is damaged: {error}. {_READ_AGAIN}") from error
    if not isinstance(digests, dict) or not all(isinstance(of_one, dict) for of_one in digests.values()):
        raise ModelError(
            f"metadata entry {READ_DIGESTS_KEY!r} is damaged: it is not an object of objects. {_READ_AGAIN}"
        )
    return digests


_READ_AGAIN = "Read the protected model back again."


def _check_read(entry: TensorEntry, digests: Mapping[str, str]) -> None:
    for plane, digest in digests.items():
        if entry.sha256.get(plane) != digest:
            raise ModelError(
                f"tensor {entry.key!r}: its {plane} is not what was read: its SHA-256 is "
                f"{_short(entry.sha256.get(plane))}, and was {_short(digest)}. {_READ_AGAIN}"
            )


def _check_run(listed: Manifest, actual: Manifest) -> None:
    if listed.schemes != actual.schemes:
        raise ModelError(
            f"metadata entries {SCHEMES_KEY!r} and {MANIFEST_KEY!r} list other schemes: one is damaged. {AGAIN}"
        )
    for name in ("source_sha256", "command"):
        of_model, of_manifest = getattr(actual, name), getattr(listed, name)
        if of_model not in (None, of_manifest):
            raise ModelError(
                f"{name} is {_short(of_model)} in the model's metadata and {_short(of_manifest)} in its manifest: one "
                f"is damaged. {AGAIN}"
            )


def _paired(listed: Manifest, actual: Manifest) -> Iterable[tuple[TensorEntry, TensorEntry]]:
    there = {entry.key: entry for entry in actual.tensors}
    for entry in listed.tensors:
        if entry.key not in there:
            raise ModelError(f"tensor {entry.key!r} is in the model's manifest only: another tool decoded it. {AGAIN}")
        yield entry, there.pop(entry.key)
    for key in there:
        raise ModelError(f"tensor {key!r} is not in the model's manifest: the two do not belong together. {AGAIN}")


def _compared(entry: TensorEntry, errs: bool) -> dict[str, Any]:
    """Return what of an entry other tools leave alone; without the bounds and counts of classes that `errs`."""
    lost = {"low", "high", "count"} if errs else set()
    classes = [{name: value for name, value in c._asdict().items() if name not in lost} for c in entry.classes]
    names = ("shape", "dtype", "scheme", "original", "stored", "groups", "mask_bitmap_bits")
    planes = {f"{plane}, by its SHA-256,": digest for plane, digest in entry.sha256.items()}
    return {**{name: getattr(entry, name) for name in names}, "classes": classes, **planes}


def _check_entry(listed: Mapping[str, Any], actual: Mapping[str, Any], key: str) -> None:
    for field, of_model, of_manifest in differences(actual, listed):
        raise ModelError(
            f"tensor {key!r}: its {field} is {of_model}, and {of_manifest} in the model's manifest. {AGAIN}"
        )


def _short(value: object) -> str:
    """Return a value as a message shows it: the first digits of a digest, or a few words of a text."""
    return "none" if value is None else one_line(str(value), 40)
