"""The functions that stay in a protected model and put each weight together again.

They are model-local ONNX functions of the domain `onnx_analog`, written with onnxscript. onnxruntime inlines them and
folds them away when it creates a session, so inference runs at plain speed; for that, every intermediate has a static
shape (that of NonZero is known where the main graph's value_info states it, which says nothing of functions).

Every operator in them keeps its schema from opset 11 to the newest, so they are written once and carry the opset of the
model they go into. A plane that the strategy does not have is an empty tensor: its bits read as zeros.

`Decode` (all weights stored) and `DecodeMasked` (some pruned) are called once a tensor; `UnpackBits` and `DecodeStored`
are what the two share. Their attributes: `dtype`, the element type of the weight, and `key`, its storage key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import onnx_ir as ir
import onnxscript
from onnx import FunctionProto, TensorProto
from onnx.helper import make_tensor
from onnxscript import opset18 as op

DOMAIN = "onnx_analog"
VERSION = 1
OLDEST_OPSET = 11  # BitShift and CumSum
IR_VERSION = 8  # local functions

_LOCAL = onnxscript.values.Opset(DOMAIN, VERSION)
_SHIFTS = make_tensor("shifts", TensorProto.UINT8, [1, 8], list(range(8)))
_TWO = make_tensor("two", TensorProto.UINT8, [], [2])
_NO_BIT = make_tensor("no_bit", TensorProto.UINT8, [1], [0])
_COLUMN = make_tensor("column", TensorProto.INT64, [2], [-1, 1])
_FLAT = make_tensor("flat", TensorProto.INT64, [1], [-1])
_START = make_tensor("start", TensorProto.INT64, [1], [0])
_AXIS = make_tensor("axis", TensorProto.INT64, [], [0])
_PRUNED = make_tensor("pruned", TensorProto.FLOAT, [1], [0.0])


@onnxscript.script(_LOCAL, default_opset=op)
def UnpackBits(packed, count):
    """Bytes (b,), lowest bit first, to `count` bits as uint8; those beyond the bytes are 0."""
    column = op.Reshape(packed, op.Constant(value=_COLUMN))
    shifted = op.BitShift(column, op.Constant(value=_SHIFTS), direction="RIGHT")
    bits = op.Reshape(op.Mod(shifted, op.Constant(value=_TWO)), op.Constant(value=_FLAT))
    padded = op.Concat(bits, op.ConstantOfShape(count, value=_NO_BIT), axis=0)
    return op.Slice(padded, op.Constant(value=_START), count)


@onnxscript.script(_LOCAL, default_opset=op)
def DecodeStored(level, sign, index, alpha, beta):
    """Levels (N,), packed signs and classes, α and β (K,) to stored weights (N,)."""
    count = op.Shape(level)
    place = op.Cast(UnpackBits(index, count), to=TensorProto.INT32)
    size = op.Div(op.Add(level, op.Gather(beta, place)), op.Gather(alpha, place))
    negative = op.Cast(UnpackBits(sign, count), to=TensorProto.BOOL)
    return op.Where(negative, op.Neg(size), size)


@onnxscript.script(_LOCAL, default_opset=op)
def Decode(level, sign, index, alpha, beta, shape, dtype: int, key: str):
    """A weight of which every element is stored."""
    stored = DecodeStored(level, sign, index, alpha, beta)
    return op.Cast(op.Reshape(stored, shape), to=dtype)


@onnxscript.script(_LOCAL, default_opset=op)
def DecodeMasked(level, mask, sign, index, alpha, beta, shape, dtype: int, key: str):
    """A weight of which only those elements are stored that `mask` marks; the others are 0."""
    stored = DecodeStored(level, sign, index, alpha, beta)
    kept = op.Cast(UnpackBits(mask, op.ReduceProd(shape)), to=TensorProto.INT32)
    place = op.Mul(op.CumSum(kept, op.Constant(value=_AXIS)), kept)  # 0 where pruned, else 1 for the first stored one
    padded = op.Concat(op.Constant(value=_PRUNED), stored, axis=0)
    return op.Cast(op.Reshape(op.Gather(padded, place), shape), to=dtype)


# Inputs of the two calls, in order.
DENSE_INPUTS = ("level", "sign", "class", "alpha", "beta", "shape")
MASKED_INPUTS = ("level", "mask", "sign", "class", "alpha", "beta", "shape")
INPUTS = {"Decode": DENSE_INPUTS, "DecodeMasked": MASKED_INPUTS}


def functions(opset: int) -> list[ir.Function]:
    """Return the functions, fresh, for a model of this opset."""
    return [_with_opset(proto, opset) for proto in _protos()]


@cache
def _protos() -> tuple[bytes, ...]:
    scripts = (UnpackBits, DecodeStored, Decode, DecodeMasked)
    return tuple(script.to_function_proto().SerializeToString() for script in scripts)


def _with_opset(serialized: bytes, opset: int) -> ir.Function:
    function = ir.serde.deserialize_function(FunctionProto.FromString(serialized))
    function.opset_imports[""] = opset
    return function


# -------------------------------------------------------------------------------- what a file says that they compute


def altered(called: Iterable[str], there: Mapping[ir.OperatorIdentifier, ir.Function]) -> str | None:
    """Return the first of the functions that calls need which is missing or computes something else; None if none is.

    Names of values, documentation, the order of nodes and the opset may differ: what is computed depends on none.

    Parameters
    ----------
    called : iterable of str
        Names of the functions that the model calls: `Decode`, `DecodeMasked`.
    there : mapping of ir.Function
        The model's functions.
    """
    waiting, checked = sorted(set(called)), set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in checked:
            continue
        checked.add(name)
        function = there.get((DOMAIN, name, ""))
        if function is None or _computed(function) != _ours()[name]:
            return name
        waiting += [node.op_type for node in function if node.domain == DOMAIN]
    return None


@cache
def _ours() -> dict[str, Any]:
    return {function.name: _computed(function) for function in functions(OLDEST_OPSET)}


def _computed(function: ir.Function) -> Any:
    """Return what a function computes: equal for functions that apply the same operators to the same inputs."""
    known: dict[int, bytes] = {id(value): b"input %d" % place for place, value in enumerate(function.inputs)}
    for node in function:
        inputs = [None if value is None else known.get(id(value), b"unknown") for value in node.inputs]
        attributes = sorted((name, *_told(attribute)) for name, attribute in node.attributes.items())
        operator = (node.domain.removeprefix("ai.onnx"), node.op_type, node.overload)
        for place, value in enumerate(node.outputs):
            told = repr((operator, inputs, attributes, len(node.outputs), place))
            known[id(value)] = hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()
    parameters = sorted((name, attribute.value is None) for name, attribute in function.attributes.items())
    return len(function.inputs), parameters, [known.get(id(value)) for value in function.outputs]


def _told(attribute: ir.Attr) -> tuple[str, str]:
    if attribute.is_ref():
        return "of the call", str(attribute.ref_attr_name)
    if attribute.type != ir.AttributeType.TENSOR:
        return attribute.type.name, repr(attribute.value)[:_LONGEST]
    tensor = attribute.as_tensor()
    held = tensor.numpy().tolist() if tensor.size <= _LARGEST else "large"
    return tensor.dtype.name, repr((tuple(tensor.shape), held))


_LONGEST = 200  # characters of an attribute; ours are shorter
_LARGEST = 64  # numbers of a constant; ours have up to 8
