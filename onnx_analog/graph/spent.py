"""What the cells of each tensor hold: levels, signs, classes, masks and codebooks, by stream and by class.

Cells are those as the memory allows. Blocks of a code that tensors share are shared out by bits, and so are the cells
of sign and class in one symbol, and those of classes: all parts add up to the cells of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import LEVELS, SIDE, apportioned
from onnx_analog.graph.accounting import split_cells
from onnx_analog.graph.stored import StoredTensor

# What is in streams that are read by themselves, by the names of their lines in a counting.
_HELD = {
    LEVELS: "levels", "sign": "signs", "class": "classes", "mask": "mask", "mask and class": "mask and classes",
    "mask seed": "codebook", "codebook": "codebook",
}  # fmt: skip
STREAMS = tuple(dict.fromkeys(_HELD.values()))


class Spent(NamedTuple):
    """Cells of one tensor.

    Attributes
    ----------
    of_classes : mapping of str to ints, (K,)
        By what they hold, of `STREAMS`: those of the weights of each class.
    of_all : mapping of str to int
        Those that hold no single class: masks, codebooks, and classes that are entropy-coded.
    """

    of_classes: Mapping[str, Sequence[int]]
    of_all: Mapping[str, int]

    @property
    def total(self) -> int:
        """All cells."""
        return sum(map(self.of_stream, {**self.of_classes, **self.of_all}))

    def of_stream(self, name: str) -> int:
        """Return the cells of a stream; 0 if there is none."""
        return sum(self.of_classes.get(name, ())) + self.of_all.get(name, 0)

    def of_class(self, number: int) -> int:
        """Return the cells of a class's weights."""
        return sum(cells[number] for cells in self.of_classes.values())


def spent_by(tensors: Sequence[StoredTensor]) -> dict[str, Spent] | None:
    """Return the cells of each tensor by its key; None if a channel is too noisy for the code of a scheme.

    Parameters
    ----------
    tensors : sequence of StoredTensor
        All of a model, in its order: one for each storage key.
    """
    split = split_cells(tensors)
    if split is None:
        return None
    return {tensor.key: _spent(tensor, lines) for tensor, lines in zip(tensors, split, strict=True)}


def _spent(tensor: StoredTensor, lines: Mapping[str, int]) -> Spent:
    scheme, counts = tensor.scheme, [int(count) for count in tensor.class_counts]
    of_streams, of_all = _of_side(scheme, lines.get(SIDE, 0)), dict[str, int]()
    for line, cells in lines.items():
        if line == "sign" or (line == "class" and scheme.entropy == "none"):
            of_streams[_HELD[line]] = of_streams.get(_HELD[line], 0) + cells
        elif line not in (LEVELS, SIDE) and cells:
            of_all[_HELD[line]] = of_all.get(_HELD[line], 0) + cells
    of_classes = {name: apportioned(cells, counts) for name, cells in of_streams.items() if cells}
    levels = level_cells(tensor)
    return Spent({"levels": levels, **of_classes} if any(levels) else of_classes, of_all)


def _of_side(scheme: Scheme, cells: int) -> dict[str, int]:
    """Share out the cells of symbols that hold the bits of sign and class."""
    bits = {"signs": int(scheme.sign == "bit"), "classes": scheme.index_bits}
    return dict(zip(bits, apportioned(cells, list(bits.values())), strict=True))


def level_cells(tensor: StoredTensor) -> list[int]:
    """Return the cells of the levels of each class (K,)."""
    scheme = tensor.scheme
    devices: int = scheme.channel.devices_per_cell
    return [
        devices * int(count) * cells for count, cells in zip(tensor.class_counts, scheme.cells_of_class, strict=True)
    ]
