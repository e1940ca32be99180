"""Reads protected tensors from noisy cells: levels, and where they are analog too, signs and classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_analog.arguments import checked
from onnx_analog.coding.damage import lost
from onnx_analog.coding.entropy import entropy_bits
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.failures import Run, failed_runs, flipped, most_frequent, wrong_bits
from onnx_analog.coding.masks import SEED_BITS
from onnx_analog.coding.partition import Bits, Bytes, Floats
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.side import SideInformation
from onnx_analog.coding.streams import codebook_bits
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
    """Return signs and classes (N,) as they are read: the very arrays of `tensor` if none is read wrongly.

    Where side information is analog, an index that is read as a nonexistent class counts as the last class.
    """
    sign, index, lost_with = read_streams(tensor, seed=seed, trial=trial, scheme=scheme)
    return without_lost(tensor, sign, index, lost_with.values(), scheme=scheme)


def read_streams(
    tensor: StoredTensor, *, seed: int, trial: int, scheme: Scheme | None = None
) -> tuple[Bits | None, Bytes | None, dict[str, Bits]]:
    """Return signs and classes (N,) by their own bits, and which weights (N,) are lost with each other stream.

    The last has the streams of which a block failed, by what they hold: of `onnx_analog.graph.spent.STREAMS`.
    `without_lost` puts the three together.
    """
    scheme = scheme or tensor.scheme
    rng = stream(seed, trial, tensor.key, plane="code")
    if scheme.side is not None and scheme.side_bits:
        sign, index = _read_analog(tensor, scheme, scheme.side, seed, trial)
    else:
        sign, index = _read_signs(tensor, scheme, rng), _read_classes(tensor, scheme, rng)
    return sign, index, _lost(tensor, scheme, rng)


def without_lost(
    tensor: StoredTensor,
    sign: Bits | None,
    index: Bytes | None,
    lost_with: Iterable[Bits],
    *,
    scheme: Scheme | None = None,
) -> tuple[Bits | None, Bytes | None]:
    """Return signs and classes (N,); those of weights that are lost are positive, and of the most frequent class.

    A wrong class with cells in place of one without, or the other way round, is noticed, and lost too: the cells of
    other weights stay where they are.
    """
    cells = (scheme or tensor.scheme).cells_of_class
    index = _in_place(tensor, index, cells)
    gone = None
    for weights in lost_with:
        gone = weights if gone is None else gone | weights
    if gone is None:
        return sign, index
    if index is not None and tensor.class_index is not None:
        index = np.where(gone, most_frequent(tensor.class_counts, cells)[tensor.class_index], index)
    return None if sign is None else sign & ~gone, index


def _in_place(tensor: StoredTensor, index: Bytes | None, cells: Sequence[int]) -> Bytes | None:
    """Return classes (N,) as read, each with cells where the one that was written has cells."""
    analog, written = np.array(cells) > 0, tensor.class_index
    if index is None or written is None or index is written or analog.all() or not analog.any():
        return index
    moved = analog[index] != analog[written]
    return np.where(moved, most_frequent(tensor.class_counts, cells)[written], index) if moved.any() else index


def _read_signs(tensor: StoredTensor, scheme: Scheme, rng: np.random.Generator) -> Bits | None:
    if not tensor.has("sign"):
        return None
    wrong = wrong_bits(scheme, "sign", tensor.count, rng)
    if not wrong.size:
        return tensor.sign
    assert tensor.sign is not None
    read = tensor.sign.copy()
    read[wrong] ^= True
    return read


def _read_classes(tensor: StoredTensor, scheme: Scheme, rng: np.random.Generator) -> Bytes | None:
    """Return the classes, those that are not entropy-coded as they are read."""
    if not tensor.has("class") or scheme.entropy != "none":
        return tensor.class_index
    wrong = wrong_bits(scheme, "class", tensor.count * scheme.index_bits, rng)
    if not wrong.size:
        return tensor.class_index
    assert tensor.class_index is not None
    return np.minimum(flipped(tensor.class_index, scheme.index_bits, wrong), scheme.classes - 1)


def _lost(tensor: StoredTensor, scheme: Scheme, rng: np.random.Generator) -> dict[str, Bits]:
    """Return which stored weights (N,) are lost with blocks that failed, by what the blocks hold."""
    length = codebook_bits(scheme, len(tensor.alpha)) + scheme.table_bits + SEED_BITS * tensor.is_seeded(scheme)
    codebook = failed_runs(scheme, "codebook", length, rng, entropy_coded=False)
    if scheme.entropy == "none":
        mask_bits = tensor.size if tensor.has("mask") and not tensor.is_seeded(scheme) else 0
        runs = {"mask": failed_runs(scheme, "mask", mask_bits, rng, entropy_coded=False)}
    else:
        runs = _failed_coded(tensor, scheme, rng)
    return lost_with(tensor, scheme, {"codebook": codebook, **runs})


def lost_with(tensor: StoredTensor, scheme: Scheme, runs: Mapping[str, Sequence[Run]]) -> dict[str, Bits]:
    """Return which stored weights (N,) are lost with runs of bits of a tensor's streams, by what the streams hold.

    Signs, and classes that are not entropy-coded, lose nothing beyond the bits that are wrong.
    """
    failed = {name: of_stream for name, of_stream in runs.items() if of_stream}
    gone = dict[str, Bits]()
    if scheme.entropy == "none" and "mask" in failed:
        gone["mask"] = _after(tensor, min(run.start for run in failed["mask"]))
    elif scheme.entropy != "none" and set(failed) & {"mask", "class", "mask and class"}:
        gone |= _lost_coded(tensor, scheme, failed)
    if "codebook" in failed or "mask seed" in failed:
        gone["codebook"] = np.ones(tensor.count, np.bool_)
    return gone


def _after(tensor: StoredTensor, position: int) -> Bits:
    """Return which stored weights (N,) lie at `position` of the flat index or after it."""
    assert tensor.mask is not None
    return np.arange(tensor.count) >= np.count_nonzero(tensor.mask[:position])


def _failed_coded(tensor: StoredTensor, scheme: Scheme, rng: np.random.Generator) -> dict[str, list[Run]]:
    """Draw which blocks of entropy-coded streams fail: runs of each stream, which lie one after the other.

    How many blocks there are is estimated; the streams are made where one fails.
    """
    estimate = sum(entropy_bits(counts, scheme.segment_weights) for counts in _counts(tensor, scheme))
    runs = failed_runs(scheme, "class", int(estimate), rng, entropy_coded=True)
    failed, before = dict[str, list[Run]](), 0
    for name, coded in tensor.encoded(scheme) if runs else ():
        here = [run for run in runs if before - run.length < run.start < before + coded.bits]
        failed[name] = [Run(max(run.start - before, 0), run.length) for run in here]
        before += coded.bits
    return failed


def _lost_coded(tensor: StoredTensor, scheme: Scheme, runs: Mapping[str, Sequence[Run]]) -> dict[str, Bits]:
    """Return which stored weights (N,) are lost with bits of entropy-coded streams, by what the streams hold."""
    gone = dict[str, Bits]()
    for name, coded in tensor.encoded(scheme):
        here = runs.get(name, ())
        symbols = lost(coded, [run.start for run in here], [run.length for run in here])
        if not symbols.any():
            continue
        if name == "mask":
            gone["mask"] = _after(tensor, int(symbols.argmax()))
        elif name == "mask and class":
            assert tensor.mask is not None
            gone["mask and classes"] = symbols[tensor.mask]
        elif name == "class":
            gone["classes"] = symbols
    return gone


def _counts(tensor: StoredTensor, scheme: Scheme) -> list[NDArray[np.int64]]:
    counts = [tensor.class_counts] if tensor.has("class") else []
    masked = tensor.has("mask") and not tensor.is_seeded(scheme)
    return [*counts, np.array([tensor.size - tensor.count, tensor.count])] if masked else counts


def _read_analog(
    tensor: StoredTensor, scheme: Scheme, side: SideInformation, seed: int, trial: int
) -> tuple[Bits | None, Bytes | None]:
    """Return signs and classes that are levels of cells."""
    stored = side_bits(tensor, scheme)
    bits, width = stored.reshape(-1), side.bits_per_cell
    read = np.empty_like(bits)
    for number, block in enumerate(blocks(-(-bits.size // width))):
        part = slice(block.start * width, block.stop * width)
        rng = stream(seed, trial, tensor.key, plane="header", block=number)
        read[part] = side.read(bits[part], rng)
    return from_side_bits(tensor, scheme, read.reshape(stored.shape))


def from_side_bits(tensor: StoredTensor, scheme: Scheme, read: Bits) -> tuple[Bits | None, Bytes | None]:
    """Return signs and classes (N,) from the bits of `side_bits`, as they were read."""
    columns = list(read.T)
    sign = np.ascontiguousarray(columns.pop(0)) if tensor.sign is not None else None
    if tensor.class_index is None:
        return sign, None
    class_read = np.zeros(tensor.count, np.uint8)
    for column in columns:
        class_read = class_read << 1 | column
    return sign, np.minimum(class_read, scheme.classes - 1)


def side_bits(tensor: StoredTensor, scheme: Scheme) -> Bits:
    """Return the side information of each stored weight (N, bits): its sign, then its class, the highest bit first."""
    columns = [] if tensor.sign is None else [tensor.sign]
    if tensor.class_index is not None:
        shifts = range(scheme.index_bits - 1, -1, -1)
        columns += [(tensor.class_index >> shift & 1).astype(np.bool_) for shift in shifts]
    return np.stack(columns, axis=1)
