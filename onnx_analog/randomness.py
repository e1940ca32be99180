"""One independent random stream for every block of every plane, whatever the order in which they are read.

    (seed, trial, storage key, plane, block)  --SHA-256-->  SFC64

A stream depends on nothing else: not on the order of tensors, nor on the number of workers or threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np

BLOCK = 2**20  # stored weights that share one stream


def stream(seed: int, trial: int, key: str, *, plane: str = "level", block: int = 0) -> np.random.Generator:
    """Return the random stream of one block of one plane in one trial.

    Parameters
    ----------
    seed, trial : int
        The experiment, and one programming and read of the whole array in it.
    key : str
        Storage key of the tensor: its scope and name, fixed when it was protected.
    plane : str
        What of the tensor is read.
    block : int, >= 0
        Index of the block of `BLOCK` stored weights.

    Examples
    --------
    >>> stream(0, 1, "conv1.weight").integers(1000) == stream(0, 1, "conv1.weight").integers(1000)
    np.True_
    >>> stream(0, 1, "conv1.weight").integers(1000) == stream(0, 2, "conv1.weight").integers(1000)
    np.False_
    """
    identity = json.dumps([int(seed), int(trial), key, plane, int(block)])  # unambiguous whatever the key holds
    digest = hashlib.sha256(identity.encode()).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))


def blocks(count: int) -> Iterator[slice]:
    """Yield the slices of the blocks of `count` stored weights."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))
