"""Error-correcting codes for digital streams: their cost in cells, and their rate of failure.

Binary BCH codes (Bose and Ray-Chaudhuri 1960; Hocquenghem 1959): a code of length n = 2^m - 1 that corrects t errors is
the multiples of the least common multiple of the minimal polynomials of α, α², ..., α^2t. It has as many parity bits as
that polynomial has roots: the number of exponents in the cyclotomic cosets {i, 2i, 4i, ... mod n} of i = 1, ..., 2t.
Shortened by s, it has n - s bits, of which as many are parity. A decoder that knows no probabilities corrects up to t
errors in a block and fails with more; with a raw bit error rate p and interleaved bits, so that errors are independent,

    P(failure) = P(Binomial(n, p) > t)

A code with soft decisions is not built here. It is an assumption: a stated share of the mutual information of symbol
and read, at a failure rate that is neglected. Whatever rests on it is labelled so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import scipy.special
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel
from onnx_analog.channels.symbols import MOST_SYMBOLS, Packing, Symbols, symbols_of
from onnx_analog.coding.scheme import BLOCK_BITS, BLOCK_FAILURE, CODES
from onnx_analog.errors import OptionError

EFFORTS = MappingProxyType({"none": "none", "bch": "hard", "soft": "soft"})  # what decoding takes, by code
SOFT_SHARE = 0.95  # of the soft-decision bound: an assumption
_FEW = 32  # failures that are computed at once
_DEGREES = (2, 10)  # that are tried: two from the least on, longer ones having rates below a quarter; and small ones
_CANDIDATES = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64)  # symbols per cell that are tried
_MOST_COPIES = 2**12  # cells for one symbol
assert _CANDIDATES[-1] == MOST_SYMBOLS


@lru_cache(maxsize=64)
def parity_bits(degree: int) -> tuple[int, ...]:
    """Return the parity bits of the BCH codes of length 2^degree - 1 that correct t = 0, 1, 2, ... errors.

    Parameters
    ----------
    degree : int, 2 to 16

    Examples
    --------
    >>> parity_bits(4)[:4]  # (15, 11), (15, 7) and (15, 5) correct 1, 2 and 3 errors
    (0, 4, 8, 10)
    """
    length = 2**degree - 1
    covered, parity, count = np.zeros(length, np.bool_), [0], 0
    for odd in range(1, length, 2):  # the coset of an even exponent is that of its half
        exponent = odd
        while not covered[exponent]:
            covered[exponent] = True
            count += 1
            exponent = 2 * exponent % length
        parity.append(count)
    return tuple(parity)


class Block(NamedTuple):
    """A code's block: data bits, all bits, the errors that it corrects, and the chance that it fails."""

    data: int
    length: int
    corrects: int
    failure: float

    @property
    def rate(self) -> float:
        """Data bits for each stored bit."""
        return self.data / self.length


def bch(data: int, bit_error: float, failure: float) -> Block | None:
    """Return the shortest BCH block of `data` bits that fails with at most `failure`; None if no code does.

    Parameters
    ----------
    data : int, >= 1
        Data bits of a block.
    bit_error : float, 0 to 1
        Of a stored bit, independent of the others.
    failure : float, 0 to 1
        That a block may fail with.
    """
    first = max(2, (data + 1).bit_length())
    blocks = (
        _shortest(data, degree, bit_error, failure)
        for degree in range(first, max(first + _DEGREES[0], _DEGREES[1] + 1))
    )
    return min((block for block in blocks if block is not None), key=lambda block: block.length, default=None)


def _shortest(data: int, degree: int, bit_error: float, failure: float) -> Block | None:
    """Return the block of the code of one length, shortened to `data` bits."""
    parity = np.array(parity_bits(degree))
    parity = parity[parity + data <= 2**degree - 1]

    def failures(corrects: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(scipy.special.bdtrc(corrects, data + parity[corrects], bit_error), np.float64)

    corrects = np.arange(len(parity))
    if degree * bit_error < 0.5:  # one more corrected error takes `degree` bits, with half an error more at most
        while corrects.size > _FEW:
            corrects = corrects[:: corrects.size // _FEW]
            first = int((failures(corrects) > failure).sum())
            ends = (corrects[max(first - 1, 0)], corrects[first] if first < corrects.size else len(parity) - 1)
            corrects = np.arange(ends[0], ends[1] + 1)
    chances = failures(corrects)
    enough = np.flatnonzero(chances <= failure)
    if not enough.size:
        return None
    t = int(corrects[enough[0]])
    return Block(data, data + int(parity[t]), t, float(chances[enough[0]]))


@dataclass(frozen=True)
class CellCode:
    """A way to store the bits of a stream in cells of a channel.

    Attributes
    ----------
    name : str
        Of `CODES`.
    symbols : int
        Symbols per cell.
    packing : Packing or None
        Bits in groups of cells; None with soft decisions, where a code maps to symbols itself.
    block : Block or None
        None without a code whose blocks are counted.
    bits_per_cell : float
        Data bits per cell.
    bit_error : float
        Of a stored bit, before decoding.
    copies : int
        Cells that hold the same symbol, whose reads are averaged.
    """

    name: str
    symbols: int
    packing: Packing | None
    block: Block | None
    bits_per_cell: float
    bit_error: float
    copies: int = 1

    @cached_property
    def effort(self) -> str:
        """The decoder that is needed: "none" (thresholds only), or one of "hard" or "soft" decisions."""
        return EFFORTS[self.name]

    def cells(self, bits: int) -> int:
        """Return the cells that a stream of `bits` takes, whole blocks and groups of cells; 0 for an empty stream."""
        if not bits:
            return 0
        if self.packing is None:
            return math.ceil(bits / self.bits_per_cell)
        stored = bits
        if self.block is not None:
            whole, rest = divmod(bits, self.block.data)  # the last block is shortened
            parity = self.block.length - self.block.data
            stored = whole * self.block.length + (rest + parity if rest else 0)
        return self.copies * self.packing.cells * -(-stored // self.packing.bits)


def best_code(
    channel: Channel,
    name: str,
    *,
    block_bits: int = BLOCK_BITS,
    block_failure: float = BLOCK_FAILURE,
    share: float = SOFT_SHARE,
) -> CellCode:
    """Return the code of a kind that holds the most data bits in each cell of `channel`.

    Where that pays, as in very noisy channels, 2, 4, 8, ... cells hold each symbol.

    Parameters
    ----------
    channel : Channel
    name : str
        "bch"; "soft", which is an assumption; or "none", which stores two symbols per cell as they are.
    block_bits : int, >= 1
    block_failure : float, above 0
        Chance that a block may fail with.
    share : float, 0 to 1
        Of the soft-decision bound.

    Raises
    ------
    OptionError
        If there is no such kind of code, or none with so few failures.
    """
    if name not in CODES:
        raise OptionError(f"code is {name!r}; it must be one of {', '.join(CODES)}")
    code = _best_code(channel, name, block_bits, block_failure, share)
    if code is None:
        raise OptionError(
            f"no BCH code of {block_bits:,} data bits fails with at most {block_failure:g} in {channel}: allow a "
            "larger block_failure, or use another channel"
        )
    return code


@lru_cache(maxsize=256)
def _best_code(channel: Channel, name: str, block_bits: int, block_failure: float, share: float) -> CellCode | None:
    """Return the code that `best_code` returns; None, which is kept too, if no BCH code has so few failures."""
    if name == "none":
        return _raw(channel, 1)
    if name == "soft":
        each = (symbols_of(channel, m) for m in _CANDIDATES)
        densest = max(each, key=lambda symbols: symbols.soft_bits)
        return CellCode(name, densest.count, None, None, share * densest.soft_bits, densest.error)
    best: CellCode | None = None
    for copies in _copies(channel):
        code = _best_bch(channel, copies, block_bits, block_failure)
        if best is not None and (code is None or code.bits_per_cell <= best.bits_per_cell):
            return best
        best = code
    return None


@lru_cache(maxsize=256)
def repeated(channel: Channel, bit_failure: float) -> CellCode:
    """Return the fewest cells that hold one bit so that it is wrong with at most `bit_failure`, without a code.

    Raises
    ------
    OptionError
        If so many cells cannot be averaged in this channel.
    """
    enough = next((copies for copies in _copies(channel) if _raw(channel, copies).bit_error <= bit_failure), None)
    if enough is None:
        raise OptionError(
            f"no number of cells, averaged, reads a bit of {channel} wrong with at most {bit_failure:g}: use a code, "
            "or another channel"
        )
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if _raw(channel, middle).bit_error <= bit_failure else (middle, enough)
    return _raw(channel, enough)


def _copies(channel: Channel) -> list[int]:
    most = min(_MOST_COPIES, channel.most_cells or _MOST_COPIES)
    return [2**power for power in range(most.bit_length())]


def _raw(channel: Channel, copies: int) -> CellCode:
    symbols = symbols_of(channel, 2, copies)
    return CellCode("none", 2, Packing(2, 1, 1), None, 1.0 / copies, symbols.error, copies)


def _best_bch(channel: Channel, copies: int, block_bits: int, block_failure: float) -> CellCode | None:
    """Return the best BCH code with so many cells for each symbol; None if none corrects the errors."""
    hopes = []
    for symbols in (symbols_of(channel, m, copies) for m in _CANDIDATES):
        for packing in Packing.of(symbols.count):
            rate = _hoped_rate(symbols, packing, block_bits, block_failure)
            hopes.append((rate, symbols, packing))
    best: CellCode | None = None
    for hope, symbols, packing in sorted(hopes, key=lambda each: -each[0]):
        if hope <= (best.bits_per_cell * copies if best else 0.0):
            break
        error = packing.bit_error(symbols.confusion)
        block = bch(block_bits, error, block_failure)
        if block is not None and (best is None or packing.bits_per_cell * block.rate > best.bits_per_cell * copies):
            rate = packing.bits_per_cell * block.rate / copies
            best = CellCode("bch", symbols.count, packing, block, rate, error, copies)
    return best


def _hoped_rate(symbols: Symbols, packing: Packing, block_bits: int, block_failure: float) -> float:
    """Return data bits per symbol that no code of a packing exceeds, without its exact bit error.

    So many bits are wrong at least: a misread cell is another word, which has another number unless it is unused.
    """
    least_wrong = symbols.error * packing.cells / packing.bits * (0.9 if packing.used > 0.7 else 0.5)
    block = bch(block_bits, least_wrong, block_failure)
    return 0.0 if block is None else min(packing.bits_per_cell * block.rate, symbols.hard_bits)
