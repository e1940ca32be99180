"""Packs bits and class indices into bytes, the first in the lowest bits, and unpacks them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bits, Bytes


def pack(bits: NDArray[Any]) -> Bytes:
    """Return bits (n,) as bytes (⌈n/8⌉,), the first bit lowest."""
    return np.packbits(bits.astype(bool, copy=False), bitorder="little")


def unpack(packed: Bytes, count: int) -> Bits:
    """Return the first `count` bits of `packed`: the inverse of `pack`."""
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)


def index_width(classes: int) -> int:
    """Return the bits that a packed class index takes: the least of 1, 2, 4 and 8 that holds K classes; 0 for one.

    Examples
    --------
    >>> [index_width(classes) for classes in (1, 2, 3, 16, 17, 256)]
    [0, 1, 2, 4, 8, 8]
    """
    bits = (classes - 1).bit_length()
    return next(width for width in (0, 1, 2, 4, 8) if width >= bits)


def pack_index(class_index: Bytes, width: int) -> Bytes:
    """Return class indices (N,) as bytes (⌈N·width/8⌉,), the first index in the lowest bits."""
    if width == 1:
        return pack(class_index)
    each = 8 // width
    padded = np.zeros(-(-class_index.size // each) * each, np.uint8)
    padded[: class_index.size] = class_index
    shifted = padded.reshape(-1, each) << (np.arange(each, dtype=np.uint8) * np.uint8(width))
    packed: Bytes = np.bitwise_or.reduce(shifted, axis=1)
    return packed


def unpack_index(packed: Bytes, width: int, count: int) -> Bytes:
    """Return the first `count` class indices of `packed`: the inverse of `pack_index`."""
    if width == 1:
        return unpack(packed, count).view(np.uint8)
    each = 8 // width
    shifted = packed[:, None] >> (np.arange(each, dtype=np.uint8) * np.uint8(width))
    index: Bytes = (shifted & np.uint8(2**width - 1)).reshape(-1)[:count]
    return index
