"""Protected tensors, as a protected model holds them.

A protected tensor is one call of a decode function. Its planes are what the call is given, its storage key is an
attribute of the call, and what all tensors share is in the model's metadata: so other tools may rename values or lift
them out of a branch, and a tensor keeps its planes, its key and its random stream.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import channels, serialise
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding import packing, planes
from onnx_analog.coding.estimators import NotLoaded, Written
from onnx_analog.coding.joint import Named
from onnx_analog.coding.masks import follows_from
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import Stream, encoded_index, index_streams
from onnx_analog.coding.verified import Verified
from onnx_analog.errors import ChannelError, ModelError, OptionError
from onnx_analog.graph.layout import DOMAIN, Layout, inputs_of, layout_of
from onnx_analog.graph.weights import FLOATS, scopes, taken_names

FORMAT = "2"
FORMAT_KEY = "onnx_analog.format"
SCHEMES_KEY = "onnx_analog.schemes"
SOURCE_KEY = "onnx_analog.source_sha256"
COMPENSATED_KEY = "onnx_analog.compensation"  # metadata entry of a model whose rounding errors were compensated
VERIFIED_KEY = "onnx_analog.verified"  # metadata entry of a model that is stored as a plan that was verified
COMMAND_KEY = "onnx_analog.command"
MANIFEST_KEY = "onnx_analog.manifest"
NAME_KEY = "onnx_analog.name"  # of a decoded weight: what it was called, if a value outside had that name
READBACK_KEY = "onnx_analog.readback"  # not among KEYS: plain weights tell it as well
READ_DIGESTS_KEY = "onnx_analog.readback_sha256"  # of the planes as they were read
KEYS = (
    FORMAT_KEY, SCHEMES_KEY, SOURCE_KEY, COMMAND_KEY, MANIFEST_KEY, COMPENSATED_KEY, VERIFIED_KEY, READ_DIGESTS_KEY,
)  # fmt: skip

AGAIN = "Protect the original again."


# ----------------------------------------------------------------------------------------- the model's schemes


def to_json(schemes: Sequence[Scheme]) -> str:
    """Return the metadata entry that lists a model's schemes."""
    return json.dumps([scheme.to_dict() for scheme in schemes], ensure_ascii=False, separators=(",", ":"))


def schemes_of(model: ir.Model) -> tuple[Scheme, ...]:
    """Return the schemes that the tensors of `model` are stored with, in the order of its metadata.

    Raises
    ------
    ModelError
        If it is not protected, or not in a way that this version can read.
    ChannelError
        If a channel that it names is not installed.
    """
    version = model.metadata_props.get(FORMAT_KEY)
    if version is None and is_protected(model):
        raise ModelError(f"the model lost its metadata entry {FORMAT_KEY!r} to another tool. {AGAIN}")
    if version is None and read_back(model) is not None:
        raise ModelError(read_already(model))
    if version is None:
        raise ModelError("the model is not protected: protect it first")
    if version != FORMAT:
        raise ModelError(f"the model is protected in format {version}, and this version reads format {FORMAT}. {AGAIN}")
    try:
        body = serialise.parse(model.metadata_props[SCHEMES_KEY])
        if not isinstance(body, list) or not body:
            raise TypeError("it is not a list of schemes")
        if len(body) > max(1, sum(1 for _ in _calls(model))):
            raise TypeError(f"it lists {len(body):,} schemes, more than there are tensors")
        return tuple(map(scheme_of, body))
    except ChannelError:
        raise
    except NotLoaded as error:
        raise ModelError(str(error)) from error
    except Exception as error:  # a channel of another package may raise anything
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ModelError(f"metadata entry {SCHEMES_KEY!r} is damaged: {reason}. {AGAIN}") from error


def scheme_of(body: Any) -> Scheme:
    """Return a scheme as models and manifests hold it: its channels are spelled out, for names may change.

    Raises
    ------
    OptionError
        If it is not such a scheme.
    ChannelError
        If a channel is not installed.
    """
    for name in ("channel", "side_channel"):
        if isinstance(body, dict) and isinstance(body.get(name), str):
            raise OptionError(
                f"{name} is {body[name][:60]!r}; it must be an object with all that the channel is made of"
            )
    return Scheme.from_dict(body)


def verified_of(model: ir.Model) -> Verified | None:
    """Return how the plan of a protected model was verified; None if that is not known.

    Raises
    ------
    ModelError
        If the entry is damaged.
    """
    text = model.metadata_props.get(VERIFIED_KEY)
    if text is None:
        return None
    try:
        return Verified.from_dict(serialise.parse(text))
    except (ValueError, OptionError) as error:
        raise ModelError(f"metadata entry {VERIFIED_KEY!r} is damaged: {error}. {AGAIN}") from error


def note_verified(model: ir.Model, verified: Verified | None) -> None:
    """Note in a protected model how its plan was verified; None if that is not known."""
    model.metadata_props.pop(VERIFIED_KEY, None)  # an earlier run may have left it
    if verified is not None:
        model.metadata_props[VERIFIED_KEY] = json.dumps(verified.to_dict(), ensure_ascii=False, separators=(",", ":"))


_SIMULATED = "seed "  # how the entry of a simulated read begins; that of a measured array has no seed


def read_back(model: ir.Model) -> str | None:
    """Return the metadata entry that `ReadbackPass` leaves: "seed 0, trial 0, channel pcm"; None if there is none."""
    return model.metadata_props.get(READBACK_KEY)


def simulated(seed: int, trial: int, channels: str) -> str:
    """Return the entry of a model that was read in a simulation."""
    return f"{_SIMULATED}{seed}, trial {trial}, channel {channels}"


def read_already(model: ir.Model, remedy: str | None = None, name: str = "the model") -> str:
    """Return why a model that was read back is not taken, and what to do: by default, of what needs a protected one."""
    mark = str(read_back(model))
    if remedy is None and mark.startswith(_SIMULATED):
        remedy = "Name the protected model, which has every trial."
    elif remedy is None and is_protected(model):
        remedy = "Read the array again into a plain model (readback --decoded), which can be evaluated."
    elif remedy is None:
        remedy = "Name the protected model; this one can be evaluated as it is."
    return f"{name} was read from noisy cells already ({mark}). {remedy}"


def is_protected(model: ir.Model) -> bool:
    """Return whether `model` holds protected tensors."""
    return FORMAT_KEY in model.metadata_props or any(True for _ in _calls(model))


def with_channel(scheme: Scheme, channel: str | Channel | None, modifiers: Modifiers = NONE) -> Scheme:
    """Return `scheme` with another channel in place of its own, or with its own changed.

    Digital streams are read with the code that fits the other channel.

    Raises
    ------
    ChannelError
        If the output range of the other does not cover the stored levels.
    """
    if channel is None and modifiers == NONE:
        return scheme
    other = modifiers.apply(scheme.channel if channel is None else channels.resolve(channel))
    (low, high), (other_low, other_high) = scheme.channel.span, other.span
    if scheme.analog != "none" and (other_low > low or other_high < high):
        raise ChannelError(
            f"the model is protected for levels from {low:.4g} to {high:.4g}, but {other} holds {other_low:.4g} to "
            f"{other_high:.4g}. Protect the original for this channel instead."
        )
    return _with_side(scheme.changed(channel=other), modifiers)


def read_with(
    schemes: Iterable[Scheme], channel: str | Channel | None, modifiers: Modifiers = NONE
) -> dict[Scheme, Scheme]:
    """Return schemes, each with the one that its tensors are read with; see `with_channel`."""
    return {scheme: with_channel(scheme, channel, modifiers) for scheme in schemes}


def channels_of(schemes: Iterable[Scheme]) -> str:
    """Return the channels that cells are read through, in words: "pcm and rram-milo"."""
    return " and ".join(sorted({str(scheme.channel) for scheme in schemes}))


def _with_side(scheme: Scheme, modifiers: Modifiers) -> Scheme:
    """Return the scheme with the channel of its side information changed where that is possible."""
    side = scheme.side_channel
    return scheme if side is None else scheme.changed(side_channel=modifiers.apply_where_possible(side))


# ------------------------------------------------------------------------------------------------ one tensor


class Names:
    """The names of all values of a model, looked up once, when one is asked for."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model

    @cached_property
    def _taken(self) -> set[str]:
        return taken_names(graph for _, graph, _ in scopes(self._model))

    def free(self, name: str) -> str:
        """Return `name` with a number that makes it new in every graph: in a body it could shadow an outer one."""
        free = next(f"{name}_{number}" for number in count(1) if f"{name}_{number}" not in self._taken)
        self._taken.add(free)
        return free


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One protected tensor: N of n weights are stored, in K classes; M of the N have cells.

    What it says is what the model says: `onnx_analog.graph.protected.open_protected` checks that it can be so.
    """

    key: str
    scheme: Scheme
    number: int  # of the scheme among the model's
    layout: Layout
    node: ir.Node  # the call that decodes it
    graph: ir.Graph
    in_function: bool
    inputs: dict[str, ir.Value]
    names: Names

    @property
    def name(self) -> str:
        """The weight's name in its own graph."""
        return self.node.outputs[0].name or ""

    @property
    def uses(self) -> int:
        """How many inputs of nodes, and graph outputs, the weight feeds."""
        output = self.node.outputs[0]
        return len(tuple(output.uses())) + output.is_graph_output()

    @property
    def dtype(self) -> ir.DataType:
        """The weight's element type."""
        return ir.DataType(self.node.attributes["dtype"].as_int())

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return tuple(int(side) for side in self.plane("shape"))

    def release(self) -> None:
        """Forget arrays of the tensor's size that were kept: a model may be larger than memory."""
        for name in ("level", "mask", "sign", "class_index", "level_class", "group", "analog"):
            self.__dict__.pop(name, None)

    def plane(self, name: str) -> NDArray[Any]:
        """Return one input of the call; empty if the scheme has no such plane.

        Raises
        ------
        ModelError
            If the model does not hold it.
        """
        if name not in self.inputs:
            return np.zeros(0, np.uint8)
        try:
            return self.plane_tensor(name).numpy()
        except (ValueError, TypeError, OSError) as error:
            raise self.damaged(f"its {name} cannot be read ({error})") from error

    def plane_tensor(self, name: str) -> ir.TensorProtocol:
        """Return one input of the call as the model holds it: of an initializer, or of a Constant node.

        Raises
        ------
        ModelError
            If the model does not hold it.
        """
        value = self.inputs[name]
        tensor, producer = value.const_value, value.producer()
        if producer is not None:
            attribute = producer.attributes.get("value") if _is_constant(producer) else None
            tensor = attribute.as_tensor() if attribute is not None and attribute.type == _TENSOR else None
        if tensor is None:
            raise self.damaged(f"its {name} is not in the model")
        return tensor

    def damaged(self, what: str) -> ModelError:
        """Return the error that says what is wrong with this tensor."""
        return ModelError(f"tensor {self.key!r}: {what}. {AGAIN}")

    @cached_property
    def level(self) -> Floats:
        """Levels (M,), float32."""
        return self.plane("level").reshape(-1) if self.has("level") else np.zeros(0, np.float32)

    @cached_property
    def alpha(self) -> Floats:
        """α of each group and class (G, K), float32."""
        return self.plane("alpha").reshape(-1, self.scheme.classes)

    @cached_property
    def beta(self) -> Floats:
        """β of each group and class (G, K), float32."""
        return self.plane("beta").reshape(-1, self.scheme.classes)

    @cached_property
    def mask(self) -> Bits | None:
        """Which weights are stored (n,), or None if all are."""
        return packing.unpack(self.plane("mask"), self.size) if self.has("mask") else None

    @cached_property
    def sign(self) -> Bits | None:
        """True where negative (N,), or None if the level carries the sign."""
        return packing.unpack(self.plane("sign"), self.count) if self.has("sign") else None

    @cached_property
    def class_index(self) -> Bytes | None:
        """Class (N,), or None if there is one only."""
        if not self.has("class"):
            return None
        return packing.unpack_index(self.plane("class"), self.layout.width, self.count)

    @cached_property
    def level_class(self) -> Bytes | None:
        """Class of each level (M,), or None if there is one class only."""
        index = self.class_index
        return index if index is None or self.analog is None else index[self.analog]

    def written(self, scheme: Scheme) -> Written:
        """Return the levels, and what is known of them by who reads them as `scheme` says."""
        group = self.group
        return Written(
            level=np.ascontiguousarray(self.level, np.float32),
            class_index=self.level_class,
            cells=scheme.cells_of_class,
            channel=scheme.channel,
            alpha=self.alpha,
            beta=self.beta,
            group=group if group is None or self.analog is None else group[self.analog],
            shared=scheme.shares_tables,
        )

    @cached_property
    def axis(self) -> planes.Axis | None:
        """The output channels, where each has α and β of its own; else None."""
        return planes.Axis(len(self.alpha), int(self.plane("stride")[0])) if self.layout.grouped else None

    @cached_property
    def group(self) -> NDArray[np.int64] | None:
        """Output channel (N,), where each has α and β of its own; else None."""
        return None if self.axis is None else self.axis.groups(self.size, self.mask)

    @cached_property
    def analog(self) -> Bits | None:
        """Which stored weights have cells (N,), or None if all have."""
        return planes.analog_of(self.class_index, self.scheme.cells_of_class, self.count)

    @property
    def size(self) -> int:
        """n, the number of weights."""
        return math.prod(self.shape)

    @cached_property
    def count(self) -> int:
        """N, the number of weights that are stored."""
        return int(np.bitwise_count(self.plane("mask")).sum(dtype=np.int64)) if self.has("mask") else self.size

    @cached_property
    def _seeded(self) -> dict[int, bool]:
        """Whether the mask follows from a seed; copies of the tensor share it."""
        return {}

    def is_seeded(self, scheme: Scheme) -> bool:
        """Return whether the mask follows from the seed of a scheme, so that the seed is stored in its place."""
        seed = scheme.mask_seed
        if seed is None or self.mask is None:
            return False
        if seed not in self._seeded:
            self._seeded[seed] = follows_from(seed, self.key, self.mask)
        return self._seeded[seed]

    @cached_property
    def _index_streams(self) -> dict[tuple[str, int, int | None], tuple[Stream, ...]]:
        """What was encoded once, by entropy coding and segment; copies of the tensor share it."""
        return {}

    def streams(self, codebook_bits: int) -> tuple[Stream, ...]:
        """Return the tensor's digital streams; each length is that of bits that decode again.

        Parameters
        ----------
        codebook_bits : int
            Of α, β and points; 0 for a tensor that shares those of another.
        """
        scheme = self.scheme
        key = (scheme.entropy, scheme.segment_weights, scheme.mask_seed)
        if key not in self._index_streams:
            index, mask = (None, None) if scheme.entropy == "none" else (self.class_index, self.mask)
            if scheme.entropy == "none" and self.has("mask"):
                mask = np.broadcast_to(np.True_, self.size)  # its size is all that counts
            seeded = self.is_seeded(scheme)
            self._index_streams[key] = index_streams(scheme, self.shape, self.count, index, mask, seeded=seeded)
        sign = (Stream("sign", self.count, entropy_coded=False),) if scheme.sign == "bit" else ()
        codebook = codebook_bits + scheme.table_bits
        return (*sign, *self._index_streams[key], Stream("codebook", codebook, entropy_coded=False))

    def encoded(self, scheme: Scheme) -> tuple[Named, ...]:
        """Return class index and mask as the entropy-coded streams of a scheme."""
        return encoded_index(scheme, self.shape, self.class_index, self.mask, seeded=self.is_seeded(scheme))

    def has(self, name: str) -> bool:
        """Return whether the scheme, or the tensor, has a plane."""
        return name in self.inputs

    @cached_property
    def class_counts(self) -> NDArray[np.int64]:
        """How many weights each class holds (K,)."""
        if not self.has("class"):
            return np.array([self.count])
        if self.layout.width == 1:
            large = int(np.bitwise_count(self.plane("class")).sum(dtype=np.int64))
            return np.array([self.count - large, large])
        assert self.class_index is not None
        return np.bincount(self.class_index, minlength=self.scheme.classes)

    def decode_levels(self, level: Floats, *, sign: Bits | None, class_index: Bytes | None) -> Floats:
        """Return the stored weights (N,) that levels (M,), signs and classes (N,) stand for, as float32."""
        return planes.decode_levels(
            level, sign, class_index, self.alpha, self.beta, group=self.group, analog=self.analog
        )

    def dense(self, stored: Floats) -> NDArray[Any]:
        """Return the weight whose stored elements are `stored` (N,): in its own shape and type."""
        dense: NDArray[Any] = planes.join(stored, self.mask).reshape(self.shape).astype(self.dtype.numpy(), copy=False)
        return dense

    def decode(self, level: Floats | None = None) -> NDArray[Any]:
        """Return the weight that `level` (M,), or the stored levels, stand for: in its own shape and type."""
        level = self.level if level is None else level
        return self.dense(self.decode_levels(level, sign=self.sign, class_index=self.class_index))

    def read_as(self, scheme: Scheme) -> StoredTensor:
        """Return the tensor under a scheme that writes the same planes: cells, channel and side may differ."""
        other = copy(self)  # with what is computed already
        object.__setattr__(other, "scheme", scheme)
        return other

    def replace_level(self, level: Floats) -> None:
        """Put other levels (M,) in place of the stored ones."""
        if self.has("level"):
            self._replace("level", level)

    def replace_side(self, sign: Bits | None, class_index: Bytes | None) -> None:
        """Put other signs and classes (N,) in place of the stored ones."""
        if sign is not None:
            self._replace("sign", packing.pack(sign))
        if class_index is not None:
            self._replace("class", packing.pack_index(class_index, self.layout.width))

    def _replace(self, name: str, plane: NDArray[Any]) -> None:
        value = self.inputs[name]
        if len(tuple(value.uses())) > 1 or value.is_graph_output():  # another tool merged planes that were equal
            value = self._own(name, value)
        tensor = ir.Tensor(plane, name=value.name)
        producer = value.producer()
        if producer is not None:
            producer.attributes["value"] = ir.AttrTensor("value", tensor)
        if producer is None or value.const_value is not None:
            value.const_value = tensor
        for derived in ("level", "sign", "class_index", "class_counts", "level_class", "analog", "_index_streams"):
            self.__dict__.pop(derived, None)  # computed of the plane that was there

    def _own(self, name: str, shared: ir.Value) -> ir.Value:
        """Return a copy of a plane that this call alone uses, under a name that no graph of the model has."""
        new_name = self.names.free(str(shared.name))
        if self.in_function:
            node = ir.node("Constant", [], {"value": ir.AttrTensor("value", ir.tensor(self.plane(name)))})
            self.graph.insert_before(self.node, node)
            own = node.outputs[0]
            own.name = new_name
        else:
            own = ir.Value(name=new_name, shape=shared.shape, type=shared.type, const_value=self.plane_tensor(name))
            self.graph.register_initializer(own)
        self.node.replace_input_with(inputs_of(self.layout).index(name), own)
        self.inputs[name] = own
        return own

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each plane's bytes, as hex; of α, β and stride where output channels have their own."""
        names = ("level", "mask", "sign", "class", *(("alpha", "beta", "stride") if self.layout.grouped else ()))
        planes_of = {name: np.ascontiguousarray(self.plane(name)) for name in names if name in self.inputs}
        return {name: hashlib.sha256(plane.data).hexdigest() for name, plane in planes_of.items()}


_TENSOR = ir.AttributeType.TENSOR


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def stored_tensors(model: ir.Model, schemes: Sequence[Scheme] | None = None) -> list[StoredTensor]:
    """Return the protected tensors of `model`, in the order in which they stand in it: one for each call.

    Raises
    ------
    ModelError
        If there is none, or a call lacks required inputs or attributes.
    """
    names, schemes = Names(model), schemes_of(model) if schemes is None else schemes
    stored = [_stored(*call, names, schemes) for call in _calls(model)]
    if not stored:
        raise ModelError(f"the model holds no protected tensor: another tool decoded it. {AGAIN}")
    return stored


def _calls(model: ir.Model) -> Iterator[tuple[ir.Node, ir.Graph, bool]]:
    """Yield the nodes that are of our domain, but for those inside its functions."""
    own = {id(function.graph) for name, function in model.functions.items() if name[0] == DOMAIN}
    for _, graph, in_function in scopes(model):
        if id(graph) not in own:
            yield from ((node, graph, in_function) for node in graph if node.domain == DOMAIN)


def _stored(node: ir.Node, graph: ir.Graph, in_function: bool, names: Names, schemes: Sequence[Scheme]) -> StoredTensor:
    name = node.outputs[0].name if node.outputs else node.name
    layout = None if node.overload else layout_of(node.op_type)
    if layout is None:
        called = f"{node.op_type}:{node.overload}" if node.overload else node.op_type
        raise ModelError(f"another tool changed the call that decodes {name!r}: it calls {called!r} now. {AGAIN}")
    key = _attribute(node, "key", ir.AttributeType.STRING)
    if key is None:
        raise ModelError(f"the call that decodes {name!r} is damaged: it has no storage key. {AGAIN}")
    damage = f"tensor {key!r}: the call that decodes it is damaged, for "
    planes = inputs_of(layout)
    inputs = {plane: value for plane, value in zip(planes, node.inputs, strict=False) if value is not None}
    if len(inputs) != len(planes) or len(node.inputs) != len(inputs) or len(node.outputs) != 1:
        raise ModelError(
            f"{damage}it has {len(node.inputs)} inputs and {len(node.outputs)} outputs, and {node.op_type!r} has "
            f"{len(planes)} and 1. {AGAIN}"
        )
    dtype = _attribute(node, "dtype", ir.AttributeType.INT)
    if dtype not in FLOATS:
        raise ModelError(f"{damage}its dtype is {dtype}, which is not a float type. {AGAIN}")
    number = _attribute(node, "scheme", ir.AttributeType.INT)
    if not isinstance(number, int) or not 0 <= number < len(schemes):
        raise ModelError(f"{damage}its scheme is {number}, and the model lists {len(schemes)}. {AGAIN}")
    return StoredTensor(key, schemes[number], number, layout, node, graph, in_function, inputs, names)


def _attribute(node: ir.Node, name: str, kind: ir.AttributeType) -> Any:
    """Return an attribute's value; None if it is not there, or of another type."""
    attribute = node.attributes.get(name)
    return None if attribute is None or attribute.is_ref() or attribute.type != kind else attribute.value
