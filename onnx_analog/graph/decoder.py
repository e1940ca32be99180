"""Functions, one for each layout of the planes, that put the weights of a protected model together again.

They are model-local ONNX functions of the domain `onnx_analog`. onnxruntime inlines them and folds them away when it
creates a session, so inference runs at plain speed; for that, the size of every intermediate can be inferred from
constants. Every operator in them keeps its schema from opset 11 to the newest.

The decoded weight is x = `(level + beta) / alpha` in float32, rounded once by the sum and once by the quotient. Where
signs are kept apart it is `0 - x` if the sign is negative and `x + 0` if not, so that no decoded weight is -0.

Stages: onnxruntime keeps all that it folds in one pass until the end of that pass: many times the weights. It folds
in up to ten passes, as long as each changes something, and infers the output shape of a node with a body between two
passes only. So the functions hold a chain of `Scan` nodes over one number: each link is known one pass after the one
before it, and what is computed from it is folded no earlier. A function of stage s starts in pass s; if it is split, it
takes several passes. `stages` spreads the tensors of a model. Runtimes that fold otherwise compute the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir

from onnx_analog.graph.layout import DOMAIN, OLDEST_OPSET, Layout, inputs_of, layout_of

# ------------------------------------------------------------------------------------------------- the functions


def function_of(layout: Layout, opset: int) -> ir.Function:
    """Return the function of a layout, fresh, for a model of this opset."""
    function = ir.serde.deserialize_function(onnx.FunctionProto.FromString(_serialized(layout)))
    function.opset_imports[""] = opset
    return function


@cache
def _serialized(layout: Layout) -> bytes:
    serialized: bytes = onnx.parser.parse_function(_Text(layout).written()).SerializeToString()
    return serialized


_INT32, _INT64, _UINT8, _BOOL = (
    f"<to = {int(t)}>" for t in (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.BOOL)
)


class _Text:
    """The text of one function, in ONNX's syntax.

    A method that adds nodes returns the name of what they compute. N weights of n are stored; in a grid they have the
    shape (rows, G, stride), so that numbers of shape (G, 1) broadcast.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._grid = layout.grouped and not layout.masked
        self._names: dict[str, str] = {}  # by the text of the node: none stands there twice
        self._zero, self._one, self._minus_one = (self._constant(f"int64[1] {{{n}}}") for n in (0, 1, -1))
        self._link = self._node("Neg", self._minus_one)  # a 1 that becomes known in the current pass
        for _ in range(layout.stage):
            self._add_link()

    def written(self) -> str:
        """Return the whole function."""
        layout = self._layout
        weights = self._scattered() if layout.masked else self._stored(None)
        self._next()
        weights = self._node("Reshape", weights, self._now("shape"))
        weights = self._node("Cast", weights, attributes="<to : int = @dtype>")
        nodes = "\n".join(f"{name} = {node}" for node, name in self._names.items())
        header = f'<opset_import: ["" : {OLDEST_OPSET}], domain: "{DOMAIN}">'
        return (
            f"{header} {layout.name} <dtype, key, scheme> ({', '.join(inputs_of(layout))}) => ({weights}) {{{nodes}}}"
        )

    def _node(self, operator: str, *inputs: str, attributes: str = "") -> str:
        node = f"{operator} {attributes} ({', '.join(inputs)})"
        return self._names.setdefault(node, f"{operator}_{len(self._names)}")

    def _constant(self, tensor: str) -> str:
        return self._node("Constant", attributes=f"<value = {tensor}>")

    # ------------------------------------------------------------------------------------------------- passes

    def _add_link(self) -> None:
        """Let the link become known one pass later: onnxruntime infers how long a Scan's output is between passes."""
        item = self._node("Reshape", self._one, self._link)
        body = "body = each (int64 item) => (int64 same) { same = Identity (item) }"
        items = self._node("Scan", item, attributes=f"<num_scan_inputs = 1, {body}>")
        self._link = self._node("Abs", self._node("Shape", items))

    def _next(self) -> None:
        """Fold what follows one pass later, if the function is split."""
        if self._layout.split:
            self._add_link()

    def _now(self, value: str) -> str:
        """Return `value` as a vector that becomes known in this pass, so that what needs it is folded no earlier."""
        return self._node("Reshape", value, self._node("Neg", self._link))

    def _again(self, code: str) -> str:
        """Return the classes, so that what is computed from them does not stay from an earlier pass."""
        return self._now(code) if self._layout.split else code

    # ------------------------------------------------------------------------------------------------- planes

    def _unpacked(self, plane: str, width: int, cast: str) -> str:
        """Return all numbers of `width` bits in a plane: those of each byte are a row of a table."""
        shifts = range(0, 8, width)
        every_byte = self._constant(f"uint8[256, 1] {{{', '.join(map(str, range(256)))}}}")
        shift = self._constant(f"uint8[{len(shifts)}] {{{', '.join(map(str, shifts))}}}")
        shifted = self._node("BitShift", every_byte, shift, attributes='<direction = "RIGHT">')
        numbers = self._node("Mod", shifted, self._constant(f"uint8[1] {{{2**width}}}"))
        rows = self._node("Cast", numbers, attributes=cast)
        index = self._node("Cast", self._now(plane), attributes=_INT32)
        return self._node("Reshape", self._node("Gather", rows, index), self._minus_one)

    def _unpacked_stored(self, plane: str, width: int, cast: str) -> str:
        """Return one number for each stored weight."""
        return self._node("Slice", self._unpacked(plane, width, cast), self._zero, self._count)

    def _indices(self) -> str:
        """Return the flat index of each stored weight, int32."""
        bits = self._node("Cast", self._unpacked("mask", 1, _BOOL), attributes=_INT32)
        count = self._node("Cast", self._node("ReduceSum", bits), attributes=_INT64)
        node = f"TopK <axis = 0> ({bits}, {count})"  # of equal numbers, those of lower index come first
        self._names[node] = "Ones, Places"
        indices = self._node("Cast", "Places", attributes=_INT32)
        self._next()
        return indices

    def _scattered(self) -> str:
        """Return all weights (n,)."""
        indices = self._indices()
        stored = self._stored(indices)
        self._next()
        size = self._node("ReduceProd", self._now("shape"))
        zeros = self._node("ConstantOfShape", size, attributes="<value = float[1] {0}>")
        return self._node("ScatterElements", zeros, indices, stored, attributes="<axis = 0>")

    # ----------------------------------------------------------------------------------------- stored weights

    def _stored(self, indices: str | None) -> str:
        """Return the stored weights: (N,), or in a grid; where nothing is scattered, in any shape."""
        layout = self._layout
        counted = "level" if layout.analog == "all" else indices
        self._count = self._node("Shape", counted) if counted else self._node("ReduceProd", "shape")
        if layout.analog == "all" and not layout.grouped and layout.width <= 1 and (layout.width or layout.sign):
            return self._flat(self._by_bytes())
        code = self._code() if layout.width else None
        group = self._group(indices) if indices and layout.grouped else None
        if layout.analog == "none":
            weights = self._points(code, group)
            return self._with_sign(weights) if layout.sign else weights
        level = "level" if layout.analog == "all" else self._spread(str(code))
        weights = self._node("Add", self._in_grid(level), self._chosen("beta", code, group))
        self._next()
        weights = self._node("Div", weights, self._chosen("alpha", code, group))
        return self._with_sign(weights) if layout.sign else weights

    def _with_sign(self, weights: str) -> str:
        """Return 0 - x where the sign is negative, and 0 - (0 - x), which is x, elsewhere: a zero is +0."""
        self._next()
        zero = self._constant("float[1] {0}")
        if not self._layout.split:
            negative = self._in_grid(self._unpacked_stored("sign", 1, _BOOL))
            opposite = self._node("Where", negative, weights, self._node("Sub", zero, weights))
            return self._node("Sub", zero, opposite)
        # While a Where is computed, it takes five times the weights.
        index = self._again(self._unpacked_stored("sign", 1, _UINT8))
        index = self._node("Cast", self._in_grid(index), attributes=_INT32)
        factor = self._node("Gather", self._constant("float[2] {-1, 1}"), index)
        self._next()
        return self._node("Sub", zero, self._node("Mul", weights, factor))

    # -------------------------------------------------------------------------------- eight weights at a time

    def _by_bytes(self) -> str:
        """Return the stored weights (rows, 2, 4): a byte of `class` or `sign` is an index of eight α, β or signs.

        The divisor has the opposite sign, and the quotient is taken from 0: a zero is then +0 in either case.
        """
        layout = self._layout
        plane = "class" if layout.width else "sign"
        rows = self._rows(plane)
        self._next()
        offsets = self._now("beta")
        if layout.width:
            index = self._node("Cast", self._now("class"), attributes=_INT32)
            offsets = self._node("Gather", self._table("beta", 8, 0), index)
        weights = self._node("Add", rows, offsets)
        self._next()
        weights = self._node("Div", weights, self._node("Gather", self._divisors(), self._divisor_index()))
        if layout.sign:
            self._next()
            weights = self._node("Sub", self._constant("float[1] {0}"), weights)
        return weights

    def _rows(self, plane: str) -> str:
        """Return the levels (rows, 2, 4), zeros behind them."""
        rows = self._now(self._constant("int64[3] {-1, 2, 4}"))
        if self._layout.aligned:
            return self._node("Reshape", "level", rows)
        padding = self._constant(f"float[7] {{{', '.join('0' * 7)}}}")
        padded = self._node("Concat", self._now("level"), padding, attributes="<axis = 0>")
        length = self._node("Mul", self._node("Shape", plane), self._constant("int64[1] {8}"))
        return self._node("Reshape", self._node("Slice", padded, self._zero, length), rows)

    def _flat(self, rows: str) -> str:
        """Return what `_by_bytes` returns as (N,), unless it can stay as it is."""
        layout = self._layout
        if layout.aligned and not layout.masked:
            return rows
        self._next()
        flat = self._node("Reshape", rows, self._minus_one)
        return flat if layout.aligned else self._node("Slice", flat, self._zero, self._count)

    def _bits(self, count: int, first: int) -> str:
        """Return `count` bits of each byte from bit `first` on, bool (256, ..., 4): the weights that it stands for."""
        every_byte = self._constant(f"uint8[256, 1] {{{', '.join(map(str, range(256)))}}}")
        shift = self._constant(f"uint8[{count}] {{{', '.join(map(str, range(first, first + count)))}}}")
        shifted = self._node("BitShift", every_byte, shift, attributes='<direction = "RIGHT">')
        bits = self._node("Cast", self._node("Mod", shifted, self._constant("uint8[1] {2}")), attributes=_BOOL)
        shape = "int64[3] {256, 2, 4}" if count == 8 else "int64[2] {256, 4}"
        return self._node("Reshape", bits, self._constant(shape))

    def _table(self, values: str, count: int, first: int) -> str:
        """Return, for each byte, the numbers of the classes that `count` bits from bit `first` on stand for."""
        small, large = (self._node("Gather", self._now(values), index) for index in (self._zero, self._one))
        return self._node("Where", self._bits(count, first), large, small)

    def _divisors(self) -> str:
        layout = self._layout
        if not layout.sign:
            return self._table("alpha", 8, 0)
        one, minus_one = self._constant("float[1] {1}"), self._constant("float[1] {-1}")
        if not layout.width:
            return self._node("Mul", self._node("Where", self._bits(8, 0), one, minus_one), self._now("alpha"))
        return self._node("Mul", self._node("Where", self._bits(4, 4), one, minus_one), self._table("alpha", 4, 0))

    def _divisor_index(self) -> str:
        """Return bytes as indices: of classes or signs, or (rows, 2) with four classes and, above them, four signs."""
        layout = self._layout
        if not (layout.sign and layout.width):
            return self._node("Cast", self._now("class" if layout.width else "sign"), attributes=_INT32)
        four, sixteen = self._constant("uint8[1] {4}"), self._constant("uint8[1] {16}")
        left, right = '<direction = "LEFT">', '<direction = "RIGHT">'
        classes, signs = self._now("class"), self._now("sign")
        high_signs = self._node(
            "BitShift", self._node("BitShift", signs, four, attributes=right), four, attributes=left
        )
        low_signs = self._node("BitShift", signs, four, attributes=left)
        low, high = self._node("Mod", classes, sixteen), self._node("BitShift", classes, four, attributes=right)
        return self._node("Add", self._halves(low, high), self._halves(low_signs, high_signs))

    def _halves(self, low: str, high: str) -> str:
        """Return two numbers for each byte, int32 (rows, 2); uint8 cannot be added below opset 14."""
        column = self._constant("int64[2] {-1, 1}")
        columns = (self._node("Reshape", half, column) for half in (low, high))
        return self._node("Cast", self._node("Concat", *columns, attributes="<axis = 1>"), attributes=_INT32)

    # ------------------------------------------------------------------------------ one weight at a time

    def _code(self) -> str:
        """Return the class of each stored weight, uint8 (N,)."""
        if self._layout.width == 8:
            return self._now("class")
        code = self._unpacked_stored("class", self._layout.width, _UINT8)
        self._next()
        return code

    def _group(self, indices: str) -> str:
        """Return the group of each stored weight, int32 (N,)."""
        stride = self._node("Cast", self._now("stride"), attributes=_INT32)
        return self._node("Mod", self._node("Div", indices, stride), self._size_of_alpha(self._zero))

    def _size_of_alpha(self, axis: str) -> str:
        return self._node("Cast", self._node("Gather", self._node("Shape", "alpha"), axis), attributes=_INT32)

    def _spread(self, code: str) -> str:
        """Return the level of each stored weight, 0 where its class holds none."""
        flags = self._node("Gather", "analog", self._node("Cast", self._again(code), attributes=_INT32))
        flags = self._node("Cast", flags, attributes=_INT32)
        rank = self._node("CumSum", flags, self._constant("int64 {0}"))
        rank = self._node("Mul", rank, flags)  # 1 for the first level, 0 where there is none
        levels = self._node("Concat", self._constant("float[1] {0}"), self._now("level"), attributes="<axis = 0>")
        spread = self._node("Gather", levels, rank)
        self._next()
        return spread

    def _points(self, code: str | None, group: str | None) -> str:
        """Return the weights where no class holds levels: those of level 0."""
        zero = self._constant("float[1] {0}")
        points = self._node("Div", self._node("Add", zero, self._now("beta")), self._now("alpha"))
        if code or group:
            return self._chosen(points, code, group)
        level = self._node("ConstantOfShape", self._now(self._count), attributes="<value = float[1] {0}>")
        return self._node("Add", self._in_grid(level), self._chosen(points, code, group))

    # ------------------------------------------------------------------------------------- classes and groups

    def _in_grid(self, value: str) -> str:
        if not self._grid:
            return value
        groups = self._node("Gather", self._node("Shape", "alpha"), self._zero)
        grid = self._node("Concat", self._minus_one, groups, self._now("stride"), attributes="<axis = 0>")
        return self._node("Reshape", value, grid)

    def _chosen(self, table: str, code: str | None, group: str | None) -> str:
        """Return the number of each stored weight's class and group; one for all if there is one class and group."""
        values = self._now(table)
        if self._layout.width == 1 and group is None:  # one byte for each weight in place of an index of four
            pairs = self._node("Reshape", values, self._constant("int64[2] {-1, 2}"))
            first, second = (self._column(pairs, index) for index in (self._zero, self._one))
            large = self._node("Cast", str(code), attributes=_BOOL)
            return self._node("Where", self._in_grid(large), second, first)
        if code is None:
            column = self._node("Reshape", values, self._constant("int64[2] {-1, 1}")) if self._grid else values
            return column if group is None else self._node("Gather", values, group)
        index = self._node("Cast", self._in_grid(self._again(code)), attributes=_INT32)
        return self._node("Gather", values, self._with_group(index, group))

    def _column(self, pairs: str, index: str) -> str:
        column = self._node("Gather", pairs, index, attributes="<axis = 1>")  # (G, 1)
        return column if self._grid else self._node("Reshape", column, self._minus_one)

    def _with_group(self, index: str, group: str | None) -> str:
        """Return the place of a class in a table of shape (G·K,)."""
        if not self._layout.grouped:
            return index
        classes = self._size_of_alpha(self._one)
        if group is None:  # in a grid: a column of multiples of K
            groups = self._node("Gather", self._node("Shape", "alpha"), self._zero)
            each = self._node("Expand", classes, groups)
            first = self._node("CumSum", each, self._constant("int64 {0}"), attributes="<exclusive = 1>")
            return self._node("Add", index, self._node("Reshape", first, self._constant("int64[2] {-1, 1}")))
        return self._node("Add", index, self._node("Mul", group, classes))


# -------------------------------------------------------------------------------- what a file says that they compute


def altered(called: Iterable[str], there: Mapping[ir.OperatorIdentifier, ir.Function]) -> str | None:
    """Return the first of the functions that calls need which is missing or computes something else; None if none is.

    Names of values, documentation, the order of nodes and the opset may differ: what is computed depends on none.

    Parameters
    ----------
    called : iterable of str
        Names of the functions that the model calls.
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
        if function is None or _computed(function) != _ours(name):
            return name
        waiting += [node.op_type for node in function if node.domain == DOMAIN]
    return None


@cache
def _ours(name: str) -> Any:
    layout = layout_of(name)
    if layout is not None:
        return _computed(function_of(layout, OLDEST_OPSET))
    return None


def _computed(function: ir.Function) -> Any:
    """Return what a function computes: equal for functions that apply the same operators to the same inputs."""
    parameters = sorted((name, attribute.value is None) for name, attribute in function.attributes.items())
    return parameters, *_outputs(function, in_body=False)


def _outputs(graph: ir.Function | ir.Graph, *, in_body: bool) -> tuple[int, list[bytes | None], list[bytes]]:
    """Return the number of inputs of a function or body, and digests of what each output and each node computes.

    A node that no output needs counts too: onnxruntime computes it when it folds constants, and may fail.
    """
    known: dict[int, bytes] = {id(value): b"input %d" % index for index, value in enumerate(graph.inputs)}
    for node in graph:
        inputs = [None if value is None else known.get(id(value), b"unknown") for value in node.inputs]
        attributes = sorted(
            (name, *_described(attribute, in_body=in_body)) for name, attribute in node.attributes.items()
        )
        operator = (node.domain.removeprefix("ai.onnx"), node.op_type, node.overload)
        for index, value in enumerate(node.outputs):
            text = repr((operator, inputs, attributes, len(node.outputs), index))
            known[id(value)] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return len(graph.inputs), [known.get(id(value)) for value in graph.outputs], sorted(set(known.values()))


def _described(attribute: ir.Attr, *, in_body: bool) -> tuple[str, str]:
    if attribute.is_ref():
        return "of the call", str(attribute.ref_attr_name)
    if attribute.type == ir.AttributeType.GRAPH:  # a body of ours holds no other, and uses no value from around it
        return attribute.type.name, "nested" if in_body else repr(_outputs(attribute.as_graph(), in_body=True))
    if attribute.type != ir.AttributeType.TENSOR:
        return attribute.type.name, repr(attribute.value)[:_LONGEST]
    tensor = attribute.as_tensor()
    numbers = tensor.numpy().tolist() if tensor.size <= _LARGEST else "large"
    return tensor.dtype.name, repr((tuple(tensor.shape), numbers))


_LONGEST = 200  # characters of an attribute; ours are shorter
_LARGEST = 256  # numbers of a constant; ours have no more
