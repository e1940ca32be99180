"""Parts of a memory, each read with noise while all else is read as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.graph.accounting import totals_of
from onnx_analog.graph.reader import Reader, read_streams, without_lost
from onnx_analog.graph.stored import StoredTensor

Array = NDArray[Any]
Run = Callable[[Mapping[str, Array]], list[Any]]  # outputs of the network with weights, by name

MOST_CLASSES = 16  # that are parts of their own
STREAMS = ("levels", "signs", "classes", "failed blocks")  # of codes, with which signs and classes are lost


class Part(NamedTuple):
    """What is read with noise.

    Attributes
    ----------
    kind : {"all", "tensor", "class", "stream"}
    name : str
        The storage key of a tensor; the number of a class, from 0, the smallest weights, in all tensors; or one of
        `STREAMS`, of all tensors.
    weights : int
        Stored weights that the part belongs to.
    cells : int or None
        Of a tensor and of all, as the memory allows: None if that is not counted. Of a class, and of the levels, the
        analog cells. Of other streams None: they share blocks of a code with what is always read.
    """

    kind: str
    name: str
    weights: int
    cells: int | None

    @property
    def label(self) -> str:
        """What it is called in tables and charts."""
        return {"all": "all, with noise at once", "class": f"class {self.name}"}.get(self.kind, self.name)


class Parts:
    """The network of a protected model, one part of whose memory is read with noise.

    What is drawn for a part is what a read of the whole memory draws for it, in the same trial.

    Parameters
    ----------
    run : function
    keys : mapping of str to str
        Storage key of each weight, by its name in the network.
    tensors : sequence of StoredTensor
        As they are read: one for each storage key.
    users : mapping of str to sequence of str
        Names of the nodes that take a weight, by its storage key.
    """

    def __init__(
        self,
        run: Run,
        keys: Mapping[str, str],
        tensors: Sequence[StoredTensor],
        users: Mapping[str, Sequence[str]],
    ) -> None:
        self._run, self._keys, self.users = run, keys, users
        self._tensors = {tensor.key: tensor for tensor in tensors}
        self._written = {tensor.key: tensor.decode() for tensor in tensors}
        self._readers = {tensor.key: Reader(tensor) for tensor in tensors}
        self.all = Part("all", "", sum(tensor.count for tensor in tensors), totals_of(tensors).honest_cells)
        self.listed = tuple(self._parts())

    def _parts(self) -> Iterator[Part]:
        for key, tensor in self._tensors.items():
            yield Part("tensor", key, tensor.count, totals_of([tensor]).honest_cells)
        tensors = self._tensors.values()
        classes = max(tensor.scheme.classes for tensor in tensors)
        for number in range(classes if 1 < classes <= MOST_CLASSES else 0):
            own = [tensor for tensor in tensors if number < tensor.scheme.classes]
            cells = sum(_class_cells(tensor, number) for tensor in own)
            if cells:
                yield Part("class", str(number), sum(int(each.class_counts[number]) for each in own), cells)
        for stream in STREAMS:
            own = [tensor for tensor in tensors if _has(tensor, stream)]
            if own:
                of_levels = sum(map(_level_cells, own)) if stream == "levels" else None
                yield Part("stream", stream, sum(tensor.count for tensor in own), of_levels)

    def written(self) -> list[Any]:
        """Return the outputs if nothing is read with noise."""
        return self._outputs({})

    def outputs(self, part: Part, *, seed: int, trial: int) -> list[Any]:
        """Return the outputs if a part is read with noise, as in a trial."""
        keys = [part.name] if part.kind == "tensor" else self._tensors
        return self._outputs({key: self._weight(key, part, seed, trial) for key in keys})

    def _outputs(self, changed: Mapping[str, Array]) -> list[Any]:
        return self._run({name: changed.get(key, self._written[key]) for name, key in self._keys.items()})

    def _weight(self, key: str, part: Part, seed: int, trial: int) -> Array:
        """Return a tensor of whose cells a part is read with noise."""
        tensor = self._tensors[key]
        sign, index, gone = read_streams(tensor, seed=seed, trial=trial)
        read = (part.name,) if part.kind == "stream" else STREAMS
        level = tensor.level
        if level.size and "levels" in read:
            level = self._readers[key].read(seed=seed, trial=trial)
        sign, index = without_lost(
            tensor,
            sign if "signs" in read else tensor.sign,
            index if "classes" in read else tensor.class_index,
            gone if "failed blocks" in read else None,
        )
        stored = tensor.decode_levels(level, sign=sign, class_index=index)
        if part.kind == "class":
            as_written = tensor.decode_levels(tensor.level, sign=tensor.sign, class_index=tensor.class_index)
            stored = np.where(_of_class(tensor, int(part.name)), stored, as_written)
        return tensor.dense(stored)


def _of_class(tensor: StoredTensor, number: int) -> NDArray[np.bool_]:
    """Return which stored weights (N,) are of a class."""
    if tensor.class_index is None:
        return np.full(tensor.count, number == 0)
    of_class: NDArray[np.bool_] = tensor.class_index == number
    return of_class


def _class_cells(tensor: StoredTensor, number: int) -> int:
    scheme = tensor.scheme
    devices: int = scheme.channel.devices_per_cell
    return devices * int(tensor.class_counts[number]) * scheme.cells_of_class[number]


def _level_cells(tensor: StoredTensor) -> int:
    return sum(_class_cells(tensor, number) for number in range(tensor.scheme.classes))


def _has(tensor: StoredTensor, stream: str) -> bool:
    if stream == "levels":
        return bool(tensor.level.size)
    if stream == "failed blocks":
        return tensor.scheme.code != "none"
    return tensor.has({"signs": "sign", "classes": "class"}[stream])
