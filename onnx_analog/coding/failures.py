"""Errors of digital streams as they are read: blocks that a code cannot correct, and bits that no code protects.

| stream | what a wrong bit does, and a block that fails |
|---|---|
| signs, and classes that are not entropy-coded | it stays wrong; t + 1 bits of a failed block are wrong |
| entropy-coded | the rest of its segment is lost |
| mask | all weights of the tensor from there on are lost |
| codebook | the tensor is lost |

A decoder that fails is taken to notice it. Weights that are lost are read as positive and of the most frequent class;
their levels are read in place, so a tensor of one class whose levels hold the signs loses nothing. A code with soft
decisions is assumed never to fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.codes import CellCode
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import code_of

Ints = NDArray[np.int64]


class Run(NamedTuple):
    """Bits of a stream that cannot be told: `length` from `start` on."""

    start: int
    length: int


def failed_runs(scheme: Scheme, stream: str, bits: int, rng: np.random.Generator, *, entropy_coded: bool) -> list[Run]:
    """Draw which blocks of a stream fail; single bits where they are repeated.

    A failure is rare. So the number of failures is drawn with the largest chance that the scheme allows, and each then
    kept with the share that the code's own chance has in that: the code is only chosen where there is a failure.

    Parameters
    ----------
    scheme : Scheme
    stream : str
        Its name.
    bits : int
        Of the stream, before a code is added.
    rng : numpy Generator
    entropy_coded : bool
    """
    if scheme.code == "soft" or not bits:
        return []
    length = 1 if scheme.code == "none" else scheme.block_bits
    most = scheme.block_failure / (scheme.block_bits if scheme.code == "none" else 1)
    blocks = -(-bits // length)
    count = int(rng.binomial(blocks, most))
    if not count:
        return []
    chance = _failure(code_of(scheme, stream, entropy_coded=entropy_coded))
    kept = rng.random(count) < chance / most
    return [Run(int(block) * length, length) for block in rng.choice(blocks, count, replace=False)[kept]]


def _failure(code: CellCode) -> float:
    return code.bit_error if code.block is None else code.block.failure


def wrong_bits(scheme: Scheme, stream: str, bits: int, rng: np.random.Generator) -> Ints:
    """Draw the places of the wrong bits of signs, or of class indices that are not entropy-coded.

    A decoder leaves a block with more than t errors as it is; the likeliest number is t + 1.
    """
    if scheme.code == "none":
        error = code_of(scheme, stream, entropy_coded=False).bit_error
        return rng.choice(bits, rng.binomial(bits, error), replace=False)
    runs = failed_runs(scheme, stream, bits, rng, entropy_coded=False)
    if not runs:
        return np.zeros(0, np.int64)
    block = code_of(scheme, stream, entropy_coded=False).block
    assert block is not None
    wrong = [run.start + _data_places(block.length, block.corrects + 1, run.length, rng) for run in runs]
    places = np.concatenate(wrong)
    return places[places < bits]


def _data_places(length: int, errors: int, data: int, rng: np.random.Generator) -> Ints:
    """Return which data bits are wrong in a block with so many errors: its first bits are data."""
    places = rng.choice(length, errors, replace=False)
    return places[places < data]


def flipped(values: NDArray[np.uint8], width: int, places: Ints) -> NDArray[np.uint8]:
    """Return numbers of `width` bits, the highest first, with some bits of their sequence flipped.

    Parameters
    ----------
    values : uint8 array (N,)
    width : int, 1 to 8
    places : ints, below N · width
        Each at most once.
    """
    other = values.copy()
    np.bitwise_xor.at(other, places // width, (1 << (width - 1 - places % width)).astype(np.uint8))
    return other


def most_frequent(counts: Ints, cells: Sequence[int]) -> NDArray[np.uint8]:
    """Return the class (K,) that a lost weight of each class is read as.

    It is the most frequent one; where some classes have cells and others none, the most frequent that has cells as the
    written one has, so that the cells of other weights stay where they are.
    """
    analog = np.array(cells) > 0
    best = [int(np.where(analog == kind, counts, -1).argmax()) for kind in (False, True)]
    return np.array(best, np.uint8)[analog.astype(np.intp)]
