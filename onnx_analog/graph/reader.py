"""Reads protected tensors from noisy cells: levels, and where they are analog too, signs and classes."""

from __future__ import annotations

import numpy as np

from onnx_analog.arguments import checked
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.randomness import blocks, stream


def check_trial(seed: int, trial: int) -> None:
    """Raise `OptionError` unless seed and trial are whole numbers from 0 to 2^63 - 1."""
    checked(seed=seed, trial=trial)


class Reader:
    """Reads one tensor's levels, as often as asked, through the channel of a scheme.

    What does not depend on the trial, such as σ/√r of each level, is computed once.

    Parameters
    ----------
    tensor : StoredTensor
    scheme : Scheme, optional
        The tensor's own, unless it is read through another channel.
    """

    def __init__(self, tensor: StoredTensor, scheme: Scheme | None = None) -> None:
        scheme = scheme or tensor.scheme
        index, cells, channel = tensor.level_class, scheme.cells_of_class, scheme.channel
        level = np.ascontiguousarray(tensor.level, np.float32)
        self.size, self._key = level.size, tensor.key  # size: M, the number of levels
        alike = len(set(cells)) == 1 or index is None
        self._prepared = channel.prepared(level, cells[-1] if alike else np.array(cells)[index])
        self._correct = estimator(scheme.estimator).fitted(tensor.written(scheme))

    def read(self, *, seed: int, trial: int, out: Floats | None = None) -> Floats:
        """Return levels (M,) as one programming and one read of the array give them, in `out` if given."""
        read = np.empty(self.size, np.float32) if out is None else out
        for number, block in enumerate(blocks(self.size)):
            self.read_block(number, block, seed=seed, trial=trial, out=read[block])
        return read

    def read_block(self, number: int, block: slice, *, seed: int, trial: int, out: Floats) -> None:
        """Read one of the `blocks` of the levels into `out`; blocks may be read in any order, and by many threads."""
        self._prepared.read(block, stream(seed, trial, self._key, plane="level", block=number), out)
        if self._correct is not None:
            self._correct(out, block)


def read_side(
    tensor: StoredTensor, *, seed: int, trial: int, scheme: Scheme | None = None
) -> tuple[Bits | None, Bytes | None]:
    """Return signs and classes (N,) as they are read: as stored, unless side information is analog too.

    An index that is read as a nonexistent class counts as the last class.
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
    class_read = np.zeros(tensor.count, np.uint8)
    for column in columns:
        class_read = class_read << 1 | column
    return sign, np.minimum(class_read, scheme.classes - 1)


def _bits(tensor: StoredTensor, scheme: Scheme) -> Bits:
    """Return the side information of each stored weight (N, bits): its sign, then its class, the highest bit first."""
    columns = [] if tensor.sign is None else [tensor.sign]
    if tensor.class_index is not None:
        shifts = range(scheme.index_bits - 1, -1, -1)
        columns += [(tensor.class_index >> shift & 1).astype(np.bool_) for shift in shifts]
    return np.stack(columns, axis=1)
