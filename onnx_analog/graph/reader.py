"""Reads protected tensors from noisy cells: levels, and where they are analog too, signs and classes."""

from __future__ import annotations

import numpy as np

from onnx_analog.channels import GaussianChannel
from onnx_analog.channels.base import add_noise
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.randomness import blocks, stream


class Reader:
    """Reads one tensor's levels, as often as asked, through the channel of a scheme.

    What does not depend on the trial, σ/√r of each level, is computed once for a Gaussian channel.

    Parameters
    ----------
    tensor : StoredTensor
    scheme : Scheme, optional
        The tensor's own, unless it is read through another channel.
    """

    def __init__(self, tensor: StoredTensor, scheme: Scheme | None = None) -> None:
        scheme = scheme or tensor.scheme
        index = tensor.class_index
        if index is not None and tensor.analog is not None:
            index = index[tensor.analog]
        self._key = tensor.key
        self._level = np.ascontiguousarray(tensor.level, np.float32)
        self._channel = scheme.channel
        cells = scheme.cells_of_class
        self._cells = cells[-1] if len(set(cells)) == 1 or index is None else np.array(cells)[index]
        self._scale: Floats | None = None
        self._channel.check(self._level)
        if isinstance(self._channel, GaussianChannel):
            self._scale = self._channel.scale(self._level, cells=self._cells)
        self._correct = estimator(scheme.estimator).fitted(self._level, index, cells=cells, channel=self._channel)

    @property
    def size(self) -> int:
        """M, the number of levels."""
        return self._level.size

    def read(self, *, seed: int, trial: int, out: Floats | None = None) -> Floats:
        """Return levels (M,) as one programming and one read of the array give them, in `out` if given."""
        read = np.empty_like(self._level) if out is None else out
        for number, block in enumerate(blocks(self._level.size)):
            self.read_block(number, block, seed=seed, trial=trial, out=read[block])
        return read

    def read_block(self, number: int, block: slice, *, seed: int, trial: int, out: Floats) -> None:
        """Read one of the `blocks` of the levels into `out`; blocks may be read in any order, and by many threads."""
        rng = stream(seed, trial, self._key, plane="level", block=number)
        if self._scale is not None:
            add_noise(self._level[block], self._scale[block], rng, out=out)
        else:
            cells = self._cells if isinstance(self._cells, int) else self._cells[block]
            out[:] = self._channel.read(self._level[block], cells=cells, rng=rng)
        if self._correct is not None:
            self._correct(out, block)


def read_side(
    tensor: StoredTensor, *, seed: int, trial: int, scheme: Scheme | None = None
) -> tuple[Bits | None, Bytes | None]:
    """Return signs and classes (N,) as they are read: as stored, unless side information is analog too.

    An index that is read as a class that there is not is taken for the last class.
    """
    scheme = scheme or tensor.scheme
    side, index = scheme.side, tensor.class_index
    if side is None or not scheme.side_bits:
        return tensor.sign, index
    stored = _bits(tensor, scheme)
    bits, width = stored.reshape(-1), side.bits_per_cell
    read = np.empty_like(bits)
    for number, block in enumerate(blocks(-(-bits.size // width))):
        part = slice(block.start * width, block.stop * width)
        rng = stream(seed, trial, tensor.key, plane="header", block=number)
        read[part] = side.read(bits[part], rng)
    columns = list(read.reshape(stored.shape).T)
    sign = np.ascontiguousarray(columns.pop(0)) if tensor.sign is not None else None
    if index is None:
        return sign, None
    found = np.zeros(tensor.count, np.uint8)
    for column in columns:
        found = found << 1 | column
    return sign, np.minimum(found, scheme.classes - 1)


def _bits(tensor: StoredTensor, scheme: Scheme) -> Bits:
    """Return the side information of each stored weight (N, bits): its sign, then its class, the highest bit first."""
    columns = [] if tensor.sign is None else [tensor.sign]
    if tensor.class_index is not None:
        shifts = range(scheme.index_bits - 1, -1, -1)
        columns += [(tensor.class_index >> shift & 1).astype(np.bool_) for shift in shifts]
    return np.stack(columns, axis=1)
