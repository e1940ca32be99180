"""Where weights hide in a model, and which of them are to be stored.

A weight is an initializer or the tensor of a Constant node; of the main graph, of an If, Loop or Scan body, or of a
model-local function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx_ir as ir
import re2
from numpy.typing import NDArray

from onnx_analog.arguments import SelectionSettings
from onnx_analog.errors import OptionError, brief
from onnx_analog.graph import uses
from onnx_analog.settings import check_settings, named

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
_NOT_FINITE, _TOO_LARGE, _ALL_ZERO = "holds NaN or infinity", "beyond the range of float32", "all zero"
UNFIT = (_NOT_FINITE, _TOO_LARGE, _ALL_ZERO)  # why a tensor that is selected stays digital all the same


@dataclass(frozen=True, eq=False)
class Weight:
    """One tensor of a model, wherever it is kept."""

    key: str  # scope path and name: unique in the model
    scope: str  # "" in the main graph
    graph: ir.Graph
    value: ir.Value
    node: ir.Node | None  # the Constant node; None for an initializer
    in_function: bool

    @property
    def name(self) -> str:
        """The tensor's name in its own graph."""
        return self.value.name or ""

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The tensor as `onnx_ir` holds it."""
        tensor = self.value.const_value if self.node is None else self.node.attributes["value"].as_tensor()
        assert tensor is not None
        return tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(int(side) for side in self.tensor.shape.numpy())

    def array(self) -> NDArray[Any]:
        """Return the numbers, in their own type."""
        return self.tensor.numpy()

    def replace(self, array: NDArray[Any]) -> None:
        """Put other numbers in their place, in the tensor's own type."""
        old = self.tensor
        new = ir.Tensor(
            np.ascontiguousarray(array, dtype=old.dtype.numpy()),
            dtype=old.dtype,
            name=old.name,
            doc_string=old.doc_string,
            metadata_props=dict(old.metadata_props),
        )
        if self.node is None:
            self.value.const_value = new
        else:
            self.node.attributes["value"] = ir.AttrTensor("value", new)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def consumers(self) -> tuple[str, ...]:
        """Return the operators that use the weight in the end, seen through casts and transpositions."""
        return tuple(sorted(uses.consumers(self.value)))


@named
@dataclass(frozen=True, kw_only=True)
class Selection(SelectionSettings):
    """Which tensors are to be stored.

    Parameters
    ----------
    include, exclude : tuple of str
        Regular expressions, as RE2 has them, searched for in the tensor's key; none to include means all but biases and
        masks.
    min_size : int, >= 1
        Tensors with fewer elements stay digital.

    Raises
    ------
    OptionError
        If an expression cannot be compiled or `min_size` is below 1.
    """

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            given: object = getattr(self, name)
            if isinstance(given, str | bytes) or not isinstance(given, Iterable):
                raise OptionError(f"{name} is {brief(given)}; it must be a tuple of expressions")
        for pattern in (*self.include, *self.exclude):
            if not _is_text(pattern):
                raise OptionError(f"a regular expression is {brief(pattern)}; it must be UTF-8 text")
            _compiled(pattern)
        check_settings(self)

    def reason_against(self, weight: Weight) -> str | None:
        """Return why `weight` stays digital, or None if it is to be stored."""
        dtype, shape = weight.tensor.dtype, weight.shape
        size = math.prod(shape)
        if dtype not in FLOATS:
            return f"{dtype.name}, not a float of 16 to 64 bits"
        if len(shape) < 2:
            return f"rank {len(shape)}, below 2"
        if size < self.min_size:
            return f"{size} elements, below {self.min_size}"
        if self.include and not any(_compiled(pattern).search(weight.key) for pattern in self.include):
            return "not included"
        if any(_compiled(pattern).search(weight.key) for pattern in self.exclude):
            return "excluded"
        return _reason_against_values(weight.array())


def _is_text(pattern: object) -> bool:
    """Return whether `pattern` can be encoded: of an argument that is not UTF-8, Python makes lone surrogates."""
    try:
        return isinstance(pattern, str) and pattern.encode() is not None
    except UnicodeEncodeError:
        return False


@lru_cache
def _compiled(pattern: str) -> Any:
    """Return an expression that takes time in proportion to the text, whatever it is."""
    options = re2.Options()
    options.log_errors = False  # it would print them
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        message = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        hint = ". Look-around and back references are not supported" if re.search(r"\(\?[=!<]|\\[1-9]", pattern) else ""
        raise OptionError(f"{pattern!r} is not a regular expression: {message}{hint}") from None


def _reason_against_values(array: NDArray[Any]) -> str | None:
    size = np.abs(array.astype(np.float32, copy=False)) if array.dtype != np.float64 else np.abs(array)
    largest = float(size.max(initial=0))
    if not np.isfinite(largest):
        return _NOT_FINITE
    if largest > float(np.finfo(np.float32).max):
        return _TOO_LARGE
    return _ALL_ZERO if largest == 0 else None


def _reason_against_use(weight: Weight, selection: Selection, used: set[int]) -> str | None:
    """Return why a float tensor is no weight: masks, grids, scales and limits are parts of the program."""
    if id(weight.value) not in used:
        return uses.UNUSED
    role = uses.role(weight.value)
    if role is not None:
        return f"no weight: {role}"
    return None if selection.include else uses.other_use(weight.value, weight.shape, weight.array)  # it was named


@dataclass(frozen=True)
class Selected:
    """The tensors of a model: what is to be stored, and why the rest is not."""

    weights: tuple[Weight, ...]
    skipped: tuple[tuple[Weight, str], ...]


def find(model: ir.Model, selection: Selection | None = None) -> Selected:
    """Return the tensors of `model`, in the order in which they stand in it."""
    selection = selection or Selection()
    used = uses.used_values(model)
    judged = [
        (weight, selection.reason_against(weight) or _reason_against_use(weight, selection, used))
        for weight in all_tensors(model)
    ]
    return Selected(
        tuple(weight for weight, reason in judged if reason is None),
        tuple((weight, reason) for weight, reason in judged if reason is not None),
    )


def referring(model: ir.Model) -> Iterator[tuple[str, str]]:
    """Yield the key of every Constant whose tensor is an attribute of its function, and why it is not stored."""
    for scope, graph, _ in scopes(model):
        for node in graph:
            value = node.attributes.get("value")
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and value is not None and value.is_ref():
                yield (
                    f"{scope}{node.outputs[0].name}",
                    f"given by whoever calls the function, as {value.ref_attr_name!r}",
                )


def all_tensors(model: ir.Model) -> Iterator[Weight]:
    """Yield every initializer and every Constant tensor of `model`, with a key that no other has."""
    seen: set[str] = set()
    for scope, graph, in_function in scopes(model):
        for value, node in _tensors_of(graph):
            key = name = f"{scope}{value.name}"
            number = 1
            while key in seen:  # "a/w" in the main graph beside "w" in scope "a/"
                number += 1
                key = f"{name}#{number}"
            seen.add(key)
            yield Weight(key, scope, graph, value, node, in_function)


def _tensors_of(graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Node | None]]:
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield value, None
    for node in graph:
        attribute = node.attributes.get("value")
        if (
            node.op_type == "Constant"
            and node.domain in ("", "ai.onnx")
            and attribute is not None
            and not attribute.is_ref()
        ):
            yield node.outputs[0], node


def scopes(model: ir.Model) -> Iterator[tuple[str, ir.Graph, bool]]:
    """Yield (path, graph, is it in a function?) for every graph of `model`, outer ones first.

    The path of a body names the first output of its node, which is unique where a node's name need not be.
    """
    yield from _scopes("", model.graph, False)
    for function in model.functions.values():
        name = ".".join(part for part in function.identifier() if part)
        yield from _scopes(f"{name}()/", function.graph, True)


def attributes_left(model: ir.Model) -> str:
    """Say that weights in attributes of nodes are not taken, and which attribute of a model holds the most numbers."""
    counts = {
        f"{attribute.name!r} of {node.op_type} ({len(attribute.as_floats()):,} numbers)": len(attribute.as_floats())
        for _, graph, _ in scopes(model)
        for node in graph
        for attribute in node.attributes.values()
        if not attribute.is_ref() and attribute.type is ir.AttributeType.FLOATS
    }
    largest = f", such as {max(counts, key=counts.__getitem__)}," if counts else ""
    return f"Weights that are attributes of nodes{largest} are not taken"


def _scopes(path: str, graph: ir.Graph, in_function: bool) -> Iterator[tuple[str, ir.Graph, bool]]:
    yield path, graph, in_function
    for node in graph:
        for name, body in bodies_of(node):
            yield from _scopes(f"{path}{name}/", body, in_function)


def bodies_of(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Yield the graphs that `node` holds, each with the path of it that is unique in the node's own graph."""
    output = next((value.name for value in node.outputs if value.name), node.name)
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield f"{output}.{attribute.name}", attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for index, body in enumerate(attribute.as_graphs()):
                yield f"{output}.{attribute.name}[{index}]", body


def taken_names(graphs: Iterable[ir.Graph]) -> set[str]:
    """Return every value name in `graphs`."""
    taken: set[str] = set()
    for graph in graphs:
        taken.update(graph.initializers)
        taken.update(value.name or "" for value in graph.inputs)
        taken.update(value.name or "" for node in graph for value in node.outputs)
    return taken
