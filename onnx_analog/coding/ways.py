"""The shortest of several encodings, found without making those that are sure to be longer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Way(NamedTuple, Generic[T]):
    """A way to encode something, which is encoded only when `encode` is called.

    Attributes
    ----------
    bits : float
        Estimated length.
    margin : float
        Bits by which the length may differ from the estimate.
    encode : function
        Returns the encoding.
    """

    bits: float
    margin: float
    encode: Callable[[], T]


def shortest(ways: Sequence[Way[T]], bits_of: Callable[[T], int] = attrgetter("bits")) -> T:
    """Return the shortest encoding. Ways that are longer than another by more than their margins are not encoded."""
    most = min(way.bits + way.margin for way in ways)
    return min((way.encode() for way in ways if way.bits - way.margin <= most), key=bits_of)
