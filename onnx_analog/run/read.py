"""Reads and decodes weights trial by trial, outside the graph, into buffers that are used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bits, Bytes
from onnx_analog.coding.planes import of_each
from onnx_analog.coding.scheme import BLOCK_FAILURE, Scheme
from onnx_analog.graph.reader import Reader, read_side
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.randomness import blocks

Array = NDArray[Any]

LOOKED_UP = 2**24  # weights; for larger tensors α and β are looked up, and not kept for each weight


class Unpacked:
    """One tensor, ready to be decoded: signed α, β, positions, and the buffer that holds its weights.

    Nothing here depends on cells, channel or trial, so that decoders of many schemes share it, one at a time.

    Parameters
    ----------
    tensor : StoredTensor
    """

    def __init__(self, tensor: StoredTensor) -> None:
        self.tensor = tensor
        self.alpha, self.beta = _per_weight(tensor, tensor.sign, tensor.class_index)
        self.dense = np.zeros(tensor.size, np.float32)
        self.stored = None if tensor.mask is None else np.flatnonzero(tensor.mask)  # positions of the N stored weights
        self.analog = self.stored  # of the M among them that have cells; None if every weight has
        if tensor.analog is not None:
            self.stored = np.arange(tensor.count) if self.stored is None else self.stored
            self.analog = self.stored[tensor.analog]
            self.put_points(self.dense, tensor.sign, tensor.class_index)

    def put_points(self, dense: NDArray[np.float32], sign: Bits | None, class_index: Bytes | None) -> None:
        """Put the weights without cells, by their signs and classes (N,), where they belong in `dense`."""
        tensor = self.tensor
        assert tensor.analog is not None
        assert self.stored is not None
        points = tensor.decode_levels(np.zeros(tensor.level.size, np.float32), sign=sign, class_index=class_index)
        dense[self.stored[~tensor.analog]] = points[~tensor.analog]


class Decoder:
    """Weights of one tensor as trials read them: the same bits as `ReadbackPass` and the graph give.

    What does not depend on the trial (σ/√r, β, signed α, positions) and the dense buffer are kept, so a trial costs
    one draw, four passes over the stored weights, and one scatter, all of it block by block, in the processor's cache.
    The array that is returned is used again by the next call, and by other decoders of the same `Unpacked`.

    Parameters
    ----------
    tensor : StoredTensor or Unpacked
    scheme : Scheme, optional
        The tensor's own, unless it is read with other cells or through another channel.
    """

    def __init__(self, tensor: StoredTensor | Unpacked, scheme: Scheme | None = None) -> None:
        self._unpacked = tensor if isinstance(tensor, Unpacked) else Unpacked(tensor)
        self._tensor = self._unpacked.tensor
        self._scheme = scheme or self._tensor.scheme
        self._reader = Reader(self._tensor, self._scheme)
        self._alpha, self._beta = self._unpacked.alpha, self._unpacked.beta
        self._dense = self._unpacked.dense
        self._as_stored, self._as_written = (self._alpha, self._beta), True
        if self._scheme.side is not None or self._tensor.analog is not None:
            self._dense = self._dense.copy()  # in which signs and classes that are read wrongly may change any weight

    @property
    def digital(self) -> bool:
        """Whether there are no analog cells, so that trials read the same weights unless bits are wrong."""
        return self._scheme.analog == "none"

    @property
    def scheme(self) -> Scheme:
        """The scheme that reads the tensor."""
        return self._scheme

    @property
    def alike(self) -> bool:
        """Whether all trials read the same weights, but for blocks of a code whose failure is very rare."""
        return reads_alike(self._scheme)

    def weights(self, *, seed: int, trial: int) -> Array:
        """Return the weight of one trial, in its own shape and type."""
        return read_all({"": self}, seed=seed, trial=trial)[""]

    def begin(self, *, seed: int, trial: int) -> list[Callable[[], None]]:
        """Return the parts of the work of one trial, which may be done in any order, and by many threads."""
        sign, class_index = read_side(self._tensor, seed=seed, trial=trial, scheme=self._scheme)
        self._put_side(sign, class_index)
        parts = enumerate(blocks(self._reader.size))
        return [partial(self._read, number, block, seed, trial) for number, block in parts]

    def _put_side(self, sign: Bits | None, class_index: Bytes | None) -> None:
        """Decode with signs and classes as they were read."""
        as_stored = sign is self._tensor.sign and class_index is self._tensor.class_index
        if as_stored and self._as_written:
            return
        self._alpha, self._beta = self._as_stored if as_stored else _per_weight(self._tensor, sign, class_index)
        if self._tensor.analog is not None:
            self._unpacked.put_points(self._dense, sign, class_index)
        self._as_written = as_stored

    def _read(self, number: int, block: slice, seed: int, trial: int) -> None:
        positions = self._unpacked.analog
        level = self._dense[block] if positions is None else np.empty(block.stop - block.start, np.float32)
        self._reader.read_block(number, block, seed=seed, trial=trial, out=level)
        level += self._beta[block]
        level /= self._alpha[block]
        level += 0  # -0 becomes +0, as in onnxruntime
        if positions is not None:
            self._dense[positions[block]] = level

    def end(self) -> Array:
        """Return the weight when all parts are done."""
        tensor = self._tensor
        dense: Array = self._dense.reshape(tensor.shape).astype(tensor.dtype.numpy(), copy=False)
        return dense


def reads_alike(scheme: Scheme) -> bool:
    """Return whether all trials of a scheme read the same weights, but for blocks whose failure is very rare."""
    coded = scheme.side is None and scheme.code != "none" and scheme.block_failure <= BLOCK_FAILURE
    return scheme.analog == "none" and coded


class _Kept:
    """One value for all weights, or one for each (M,)."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __getitem__(self, block: slice) -> Any:
        return self._values[block] if np.ndim(self._values) else self._values


class _LookedUp:
    """The same, as a table and a byte for each weight: a little slower, and a quarter of the memory."""

    def __init__(self, table: NDArray[np.float32], code: NDArray[Any]) -> None:
        self._table, self._code = table, code

    def __getitem__(self, block: slice) -> NDArray[np.float32]:
        return np.take(self._table, self._code[block], mode="clip")


_Values = _Kept | _LookedUp


def _per_weight(tensor: StoredTensor, sign: Bits | None, class_index: Bytes | None) -> tuple[_Values, _Values]:
    """Return signed α and β of the weights that have cells, by signs and classes (N,) of all that are stored."""
    analog, group = tensor.analog, tensor.group
    if analog is not None:
        sign = None if sign is None else sign[analog]
        class_index = None if class_index is None else class_index[analog]
        group = None if group is None else group[analog]
    if tensor.count > LOOKED_UP and group is None and not (sign is None and class_index is None):
        return _looked_up(tensor, sign, class_index)
    alpha, beta = (of_each(values, class_index, group) for values in (tensor.alpha, tensor.beta))
    return _Kept(alpha if sign is None else _signed(alpha, sign)), _Kept(beta)


def _signed(alpha: Any, sign: Bits) -> NDArray[np.float32]:
    """Return α, of one weight or each (N,), with the sign bit of each."""
    signed = np.full(sign.size, alpha, np.float32) if np.ndim(alpha) == 0 else alpha
    bits = signed.view(np.uint32)
    bits ^= sign.view(np.uint8).astype(np.uint32) << np.uint32(31)
    return signed


def _looked_up(tensor: StoredTensor, sign: Bits | None, class_index: Bytes | None) -> tuple[_Values, _Values]:
    zeros = np.zeros(tensor.level.size, np.uint8)
    code = 2 * (zeros if class_index is None else class_index).astype(np.uint16)
    code += zeros if sign is None else sign
    if tensor.scheme.classes <= 128:
        code = code.astype(np.uint8)
    alpha = np.stack([tensor.alpha[0], -tensor.alpha[0]], axis=1).reshape(-1)
    return _LookedUp(alpha, code), _LookedUp(np.repeat(tensor.beta[0], 2), code)


def read_all(
    decoders: Mapping[str, Decoder], *, seed: int, trial: int, threads: Executor | None = None
) -> dict[str, Array]:
    """Return the weights of one trial by name: the same bytes whatever the number of threads."""
    parts = [part for decoder in decoders.values() for part in decoder.begin(seed=seed, trial=trial)]
    for _ in (map if threads is None else threads.map)(_call, parts):
        pass
    return {name: decoder.end() for name, decoder in decoders.items()}


def _call(part: Callable[[], None]) -> None:
    part()
