"""Parts of a memory: each read with noise while all else is read as it was written, or the other way round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.graph.explorer import Users
from onnx_analog.graph.reader import Reader, read_streams, without_lost
from onnx_analog.graph.spent import STREAMS, Spent, spent_by
from onnx_analog.graph.stored import StoredTensor, channels_of
from onnx_analog.run.correction import Corrector, multiplied
from onnx_analog.run.read import reads_alike
from onnx_analog.run.session import Network

Array = NDArray[Any]
Weights = Mapping[str, Array]
Run = Callable[[Network, Weights], list[Any]]

MOST_CLASSES = 16  # that are parts of their own


class Part(NamedTuple):
    """What is read with noise.

    Attributes
    ----------
    kind : str
        "all", or of `onnx_analog.arguments.PART_KINDS`.
    tensor : str
        The storage key of the tensor that the part is in; empty if it is in all tensors.
    name : str
        The storage key of a tensor; the number of a class, from 0, the smallest weights; or one of `STREAMS`.
    weights : int
        Stored weights that the part belongs to.
    cells : int or None
        As the memory allows; see `onnx_analog.graph.spent`. None if the channel is too noisy for a code.
    """

    kind: str
    tensor: str
    name: str
    weights: int
    cells: int | None

    @property
    def label(self) -> str:
        """What it is called in tables and charts."""
        if self.kind == "all":
            return "all, with noise at once"
        within = f"{self.tensor}, " if self.tensor != self.name and self.tensor else ""
        return f"{within}{'class ' * (self.class_number is not None)}{self.name}"

    @property
    def class_number(self) -> int | None:
        """The class that it is limited to."""
        return int(self.name) if self.kind.endswith("class") else None

    @property
    def streams(self) -> Sequence[str]:
        """The streams that it is limited to."""
        return (self.name,) if self.kind.endswith("stream") else STREAMS


class Parts:
    """The network of a protected model, parts of whose memory are read with noise.

    What is drawn for a part is what a read of the whole memory draws for it, in the same trial.

    Parameters
    ----------
    network : Network
    run : function
        Returns the outputs of a network with weights, which are given by name.
    keys : mapping of str to str
        Storage key of each weight, by its name in the network.
    tensors : sequence of StoredTensor
        As they are read: one for each storage key.
    users : Users
        The nodes that take weights.
    corrector : Corrector, optional
        Corrects what was read.

    Attributes
    ----------
    all : Part
        All cells.
    """

    def __init__(
        self,
        network: Network,
        run: Run,
        keys: Mapping[str, str],
        tensors: Sequence[StoredTensor],
        users: Users,
        corrector: Corrector | None = None,
    ) -> None:
        self._network, self._run, self._keys = network, run, keys
        self.users, self.corrector = users, corrector
        self._tensors = {tensor.key: tensor for tensor in tensors}
        self._as_written = {tensor.key: tensor.decode() for tensor in tensors}
        self._readers = {tensor.key: Reader(tensor) for tensor in tensors}
        self._spent = spent_by(tensors)
        self.all = self._part("all", "", "", tensors, lambda spent: spent.total)

    @property
    def alike(self) -> bool:
        """Whether all trials read the same weights, but for blocks of a code whose failure is very rare."""
        return all(reads_alike(tensor.scheme) for tensor in self._tensors.values())

    @property
    def channel(self) -> str:
        """The channels that cells are read through, in words."""
        return channels_of(tensor.scheme for tensor in self._tensors.values())

    @cached_property
    def written(self) -> list[Any]:
        """The outputs if nothing is read with noise."""
        return self._run(self._network, {name: self._as_written[key] for name, key in self._keys.items()})

    # ------------------------------------------------------------------------------------------------- parts

    def of(self, kind: str) -> tuple[Part, ...]:
        """Return the parts of a kind, of `onnx_analog.arguments.PART_KINDS`, in the order of the model."""
        within, _, what = kind.rpartition("-")
        tensors = list(self._tensors.values())
        apart = within == "tensor" or what == "tensor"
        groups = [(tensor.key, [tensor]) for tensor in tensors] if apart else [("", tensors)]
        found = {"tensor": self._whole, "class": self._classes, "stream": self._streams}[what]
        return tuple(part for key, own in groups for part in found(kind, key, own))

    def _whole(self, kind: str, key: str, own: Sequence[StoredTensor]) -> Iterator[Part]:
        yield self._part(kind, key, key, own, lambda spent: spent.total)

    def _classes(self, kind: str, key: str, own: Sequence[StoredTensor]) -> Iterator[Part]:
        most = max(tensor.scheme.classes for tensor in own)
        if most > MOST_CLASSES or all(tensor.scheme.classes == 1 for tensor in self._tensors.values()):
            return
        for number in range(most):
            held = [each for each in own if number < each.scheme.classes and each.class_counts[number]]
            if held:
                weights = sum(int(tensor.class_counts[number]) for tensor in held)
                part = self._part(kind, key, str(number), held, partial(Spent.of_class, number=number))
                yield part._replace(weights=weights)

    def _streams(self, kind: str, key: str, own: Sequence[StoredTensor]) -> Iterator[Part]:
        for stream in STREAMS:
            held = [tensor for tensor in own if self._has(tensor, stream)]
            if held:
                yield self._part(kind, key, stream, held, partial(Spent.of_stream, name=stream))

    def _has(self, tensor: StoredTensor, stream: str) -> bool:
        if self._spent is not None:
            return self._spent[tensor.key].of_stream(stream) > 0
        coded = tensor.scheme.entropy != "none"
        mask, classes = tensor.has("mask"), tensor.has("class")
        return {
            "levels": bool(tensor.level.size), "signs": tensor.has("sign"), "classes": classes, "mask": mask,
            "mask and classes": coded and mask and classes,
        }.get(stream, True)  # fmt: skip

    def _part(
        self, kind: str, key: str, name: str, own: Sequence[StoredTensor], cells_of: Callable[[Spent], int]
    ) -> Part:
        spent = self._spent
        cells = None if spent is None else sum(cells_of(spent[tensor.key]) for tensor in own)
        return Part(kind, key, name, sum(tensor.count for tensor in own), cells)

    # ----------------------------------------------------------------------------------------------- outputs

    def outputs(self, part: Part, *, seed: int, trial: int, but: bool = False, corrected: bool = False) -> list[Any]:
        """Return the outputs if a part is read with noise, as in a trial: `written` if that changes no weight.

        Parameters
        ----------
        part : Part
        seed, trial : int
        but : bool
            Read all but the part with noise.
        corrected : bool
            Correct what was read; the parts have a corrector.
        """
        corrector = self.corrector if corrected else None
        of_names = {} if corrector is None else corrector.factors
        factors = {key: of_names.get(name, 1.0) for name, key in self._keys.items()}
        read = {key: self._weight(key, part, seed, trial, but, factors[key]) for key in self._as_written}
        if all(weight is self._as_written[key] for key, weight in read.items()):
            return self.written
        network, weights = self._network, {name: read[key] for name, key in self._keys.items()}
        if corrector is not None and not corrector.factors:  # by layers; factors are in the weights already
            return self._run(*corrector.apply(network, weights))
        return self._run(network, weights)

    def _weight(self, key: str, part: Part, seed: int, trial: int, but: bool = False, factor: float = 1.0) -> Array:
        """Return a tensor of whose cells those of a part, or all others, are read with noise: as written if none is."""
        tensor, written = self._tensors[key], self._as_written[key]
        inside = part.tensor in ("", key)
        streams = [name for name in STREAMS if (inside and name in part.streams) != but]
        number = part.class_number if inside else None
        if number is not None:
            streams = list(STREAMS)
        if not streams:
            return written
        read = self._read(tensor, streams, seed, trial)
        if "levels" in streams and factor != 1.0:
            read = multiplied(read, factor)
        if number is not None:
            read = np.where(_of_class(tensor, number) != but, read, written)
        return written if np.array_equal(read, written) else read

    def _read(self, tensor: StoredTensor, streams: Sequence[str], seed: int, trial: int) -> Array:
        """Return a tensor some of whose streams are read with noise."""
        sign, index, lost_with = read_streams(tensor, seed=seed, trial=trial)
        level = tensor.level
        if level.size and "levels" in streams:
            level = self._readers[tensor.key].read(seed=seed, trial=trial)
        sign, index = without_lost(
            tensor,
            sign if "signs" in streams else tensor.sign,
            index if "classes" in streams else tensor.class_index,
            [lost for name, lost in lost_with.items() if name in streams],
        )
        return tensor.dense(tensor.decode_levels(level, sign=sign, class_index=index))


def _of_class(tensor: StoredTensor, number: int) -> NDArray[np.bool_]:
    """Return which weights are of a class, in the tensor's shape; those that are not stored are of none."""
    index = tensor.class_index
    stored = np.full(tensor.count, number == 0) if index is None else index == number
    of_class: NDArray[np.bool_] = tensor.dense(stored.astype(np.float32)) != 0
    return of_class
