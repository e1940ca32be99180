"""Counts the bits and cells of planes, and gives them addresses: numbers only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal, localcontext
from functools import lru_cache
from typing import Any

from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import Stream


def plane_bits(streams: Iterable[Stream], size: int, count: int) -> dict[str, int]:
    """Return the bits of side information, mask and codebook as the paper counts them, from a tensor's streams.

    A mask that is not entropy-coded counts as ⌈log2 C(size, count)⌉, as if it were by the best code there is; a seed of
    a mask counts as a mask of its bits.
    """
    bits = dict.fromkeys(("side", "mask", "codebook"), 0)
    for stream in streams:
        plane = "mask" if stream.name == "mask seed" else stream.name if stream.name in bits else "side"
        ideal = stream.name == "mask" and not stream.entropy_coded
        bits[plane] += mask_bits(size, count) if ideal else stream.bits
    return bits


def cells_of(scheme: Scheme, counts: Iterable[Any], bits: Mapping[str, int]) -> dict[str, int]:
    """Return the cells of each plane, for the weights of each class (K,) and the bits of each digital plane."""
    symbols = {name: -(-length // scheme.side_bits_per_cell) for name, length in bits.items()}
    if scheme.side is not None:
        symbols["side"] *= scheme.side.devices_per_symbol
    analog = sum(int(count) * each for count, each in zip(counts, scheme.cells_of_class, strict=True))
    return {"level": scheme.channel.devices_per_cell * analog, **symbols}


_FEW = 100  # stored, or not stored
_EXACT = 1000  # up to so many weights, as with few, the binomial coefficient is computed as an integer
_HALF_LOG_2_PI = Decimal("0.918938533204672741780329736405617639861397473637783412817151540")
_LOG_2 = Decimal("0.693147180559945309417232121458176568075500134360255254120680009")
# Of Stirling's series for ln n!, in 1/n, 1/n³, ...: B(2k)/(2k·(2k - 1)). The next term is below 1e-27 for n >= 100.
_STIRLING = ((1, 12), (-1, 360), (1, 1260), (-1, 1680), (1, 1188), (-691, 360360))


@lru_cache(maxsize=2**16)
def mask_bits(total: int, stored: int) -> int:
    """Return ⌈log2 C(total, stored)⌉: the bits that tell which `stored` of `total` weights are stored.

    It is exact up to 1,000 weights, and where at most 100 are stored or left out; else the logarithm is known to 1e-25.

    Examples
    --------
    >>> mask_bits(4, 2)  # C(4, 2) = 6
    3
    >>> mask_bits(1000, 1000)
    0
    """
    if total <= _EXACT or min(stored, total - stored) <= _FEW:
        return (math.comb(total, stored) - 1).bit_length()
    with localcontext(prec=60):
        logarithm = _log_factorial(total) - _log_factorial(stored) - _log_factorial(total - stored)
        return int((logarithm / _LOG_2).to_integral_value(ROUND_CEILING))


def _log_factorial(number: int) -> Decimal:
    n = Decimal(number)
    series = sum((Decimal(a) / b / n ** (2 * k + 1) for k, (a, b) in enumerate(_STIRLING)), Decimal(0))
    return (n + Decimal("0.5")) * n.ln() - n + _HALF_LOG_2_PI + series


def addresses(cells: Mapping[str, int], address: int) -> tuple[dict[str, tuple[int, int]], int]:
    ranges = {}
    for plane, number in cells.items():
        ranges[plane] = (address, address + number)
        address += number
    return ranges, address
