"""Class index and mask of a tensor as entropy-coded streams: one of both, or one for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from onnx_analog.coding.contexts import Kernel
from onnx_analog.coding.entropy import SEGMENT, EncodedStream, decoded, ways_to_encode
from onnx_analog.coding.masks import PatternStream, decoded_pattern, pattern_stream
from onnx_analog.coding.partition import Bits, Bytes
from onnx_analog.coding.ways import Way, shortest
from onnx_analog.errors import OptionError

_MOST_CLASSES = 256


class Named(NamedTuple):
    """A stream and what it holds: "mask", "class", or "mask and class"."""

    name: str
    stream: EncodedStream | PatternStream


def index_and_mask(
    class_index: Bytes | None,
    mask: Bits | None,
    classes: int,
    *,
    zero: int = 0,
    model: str = "static",
    segment: int = SEGMENT,
    kernel: Kernel | None = None,
) -> tuple[Named, ...]:
    """Return the shortest streams that hold the class of each stored weight, and which weights are stored.

    In one stream for both, a weight that is not stored is one more symbol. A mask apart that keeps N of each M weights
    is a stream of patterns where that is shorter.

    Parameters
    ----------
    class_index : uint8 array (N,) or None
        Of the stored weights, below `classes`; None if there is one class.
    mask : bool array (n,) or None
        Which weights are stored, N of them; None if all are.
    classes : int, 1 to 256
        K.
    zero : int, 0 to K
        In one stream, the symbol of a weight that is not stored; the classes from `zero` on are one higher. Contexts
        take near symbols for near values, so it belongs between the classes below and above 0.
    model, segment, kernel
        As of `encoded`. The stored weights alone have no kernel.
    """
    whole = partial(ways_to_encode, model=model, segment=segment, kernel=kernel)
    if mask is None:
        return () if class_index is None else (Named("class", shortest(whole(class_index, classes))),)
    by_pattern = pattern_stream(mask, segment)
    of_mask: list[Way[Any]] = [*whole(mask.view(np.uint8), 2)]
    if by_pattern is not None:
        of_mask.append(Way(by_pattern.bits, 0, lambda: by_pattern))
    if class_index is None:
        return (Named("mask", shortest(of_mask)),)
    if class_index.size != np.count_nonzero(mask):
        raise OptionError(f"class_index has {class_index.size:,} entries, but mask has {np.count_nonzero(mask):,}")
    of_class = ways_to_encode(class_index, classes, model=model, segment=segment)
    ways = [_both({"mask": of_mask, "class": of_class})]
    if classes < _MOST_CLASSES:
        ways.append(_both({"mask and class": whole(_joined(class_index, mask, zero), classes + 1)}))
    return shortest(ways, lambda streams: sum(named.stream.bits for named in streams))


def _both(ways: Mapping[str, Sequence[Way[Any]]]) -> Way[tuple[Named, ...]]:
    """Return the way to encode all of several streams, each in its shortest way."""
    least = [min(each, key=attrgetter("bits")) for each in ways.values()]
    bits, margin = (sum(getattr(way, name) for way in least) for name in ("bits", "margin"))
    return Way(bits, margin, lambda: tuple(Named(name, shortest(each)) for name, each in ways.items()))


def index_and_mask_of(streams: Iterable[Named], zero: int = 0) -> tuple[Bytes | None, Bits | None]:
    """Return the class index and the mask that streams hold: the inverse of `index_and_mask`."""
    symbols = {name: _symbols_of(stream) for name, stream in streams}
    if "mask and class" in symbols:
        joined = symbols["mask and class"]
        mask = joined != zero
        return joined[mask] - (joined[mask] > zero), mask
    return symbols.get("class"), symbols["mask"].view(np.bool_) if "mask" in symbols else None


def _symbols_of(stream: EncodedStream | PatternStream) -> Bytes:
    return decoded_pattern(stream).view(np.uint8) if isinstance(stream, PatternStream) else decoded(stream)


def _joined(class_index: Bytes, mask: Bits, zero: int) -> Bytes:
    """Return one symbol for each weight (n,), `zero` for those that are not stored."""
    joined = np.full(mask.size, zero, np.uint8)
    np.place(joined, mask, class_index + (class_index >= zero))
    return joined
