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

from functools import cache

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
