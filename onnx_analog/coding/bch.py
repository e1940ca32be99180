"""Binary BCH codes, as bits are written to cells and read from them: encoder and decoder.

A code word is a polynomial over GF(2) whose first bit is the coefficient of the highest power: data, then parity. It is
a multiple of the generator, the least common multiple of the minimal polynomials of α, α², ..., α^2t, with α a root of
the primitive polynomial of least value. A block with fewer data bits begins with zeros that are not stored.

Decoding: the remainder of a word gives the syndromes; the algorithm of Berlekamp and Massey (Massey 1969) finds the
locator of the fewest errors that explain them, and its roots (Chien 1964) are the places. All of it is done for many
blocks at once: galois, a library of such codes, takes about a second for a block of 4,096 bits, and this a few
milliseconds. Tests compare code words with those of that library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.codes import Block, parity_bits

Bits = NDArray[np.bool_]
Elements = NDArray[np.int64]

_COLUMNS = 256  # of parity, that are computed at once
_BLOCKS = 2**8  # that are encoded at once
_WORK = 2**21  # elements of the field in an intermediate array


@dataclass(frozen=True, eq=False)
class Field:
    """GF(2^degree): elements are numbers whose bits are coefficients of powers of α.

    Attributes
    ----------
    degree : int, 2 to 17
    power : int64 array of shape (4n + 1,)
        α^k for k below 2n, with n = 2^degree - 1; 0 above. So power[log[a] + log[b]] is the product of a and b.
    log : int64 array of shape (n + 1,)
        2n for 0.
    """

    degree: int
    power: Elements
    log: Elements

    @property
    def order(self) -> int:
        """n, the number of elements that are not 0."""
        return len(self.log) - 1

    def times(self, a: Elements, b: Elements) -> Elements:
        """Return products, element by element."""
        product: Elements = self.power[self.log[a] + self.log[b]]
        return product


@lru_cache(maxsize=16)
def field(degree: int) -> Field:
    """Return the field that the primitive polynomial of least value gives.

    >>> field(4).power[:6].tolist()  # x⁴ = x + 1
    [1, 2, 4, 8, 3, 6]
    """
    order = 2**degree - 1
    powers = next(found for low in range(1, 2**degree, 2) if len(found := _powers(2**degree + low, degree)) == order)
    power = np.zeros(4 * order + 1, np.int64)
    power[:order] = power[order : 2 * order] = powers
    log = np.full(order + 1, 2 * order, np.int64)
    log[power[:order]] = np.arange(order)
    return Field(degree, power, log)


def _powers(polynomial: int, degree: int) -> list[int]:
    """Return 1, x, x², ... modulo a polynomial over GF(2) with the constant term 1, until they begin again."""
    powers, element = [1], 2
    while element != 1:
        powers.append(element)
        element <<= 1
        if element >> degree:
            element ^= polynomial
    return powers


@dataclass(frozen=True)
class Code:
    """A narrow-sense BCH code of length 2^degree - 1 that corrects t errors, shortened as far as data ask for.

    Parameters
    ----------
    degree : int, 2 to 17
    corrects : int, >= 0
        t.
    """

    degree: int
    corrects: int

    @property
    def parity(self) -> int:
        """Parity bits."""
        return parity_bits(self.degree)[self.corrects]

    @cached_property
    def generator(self) -> int:
        """The generator, its coefficients as bits."""
        of, product, covered = field(self.degree), 1, set[int]()
        for first in range(1, 2 * self.corrects, 2):
            if first in covered:
                continue
            coset = [first]
            while (exponent := 2 * coset[-1] % of.order) != first:
                coset.append(exponent)
            covered.update(coset)
            product = _carryless(product, _minimal(of, coset))
        return product

    def encode(self, data: Bits) -> Bits:
        """Return the parity (B, p) of blocks of data bits (B, k)."""
        rows = _remainders(self.generator, self.parity, 2**self.degree - 1 - self.parity)[-data.shape[1] :]
        parity = np.empty((len(data), self.parity), np.bool_)
        for start in range(0, self.parity, _COLUMNS):
            columns = slice(start, min(start + _COLUMNS, self.parity))
            part = np.unpackbits(rows[:, start // 8 : -(-columns.stop // 8)], axis=1, count=columns.stop - start)
            factors = part.astype(np.float32)
            for first in range(0, len(data), _BLOCKS):
                blocks = slice(first, first + _BLOCKS)
                sums = data[blocks].astype(np.float32) @ factors  # below 2^24, where float32 is exact
                parity[blocks, columns] = sums.astype(np.int64) & 1
        return parity

    def decode(self, words: Bits) -> tuple[Bits, Bits]:
        """Return the words (B, k + p) with errors corrected, and which of them (B,) are code words then.

        A word with more than t errors is left as it is, unless they make it look like another with t errors at most.
        """
        data = words.shape[1] - self.parity
        remainder = self.encode(words[:, :data]) ^ words[:, data:]
        decoded = words.copy()
        good: Bits = ~np.asarray(remainder.any(axis=1))
        wrong = np.flatnonzero(~good)
        at_once = max(_WORK // (words.shape[1] * max(1, self.degree // 4)), 1)
        for start in range(0, wrong.size, at_once):
            rows = wrong[start : start + at_once]
            places, found = self._errors(remainder[rows], words.shape[1])
            decoded[rows] ^= places
            good[rows] = found
        return decoded, good

    def _errors(self, remainder: Bits, length: int) -> tuple[Bits, Bits]:
        """Return the places of errors (B, length) by remainders (B, p), and whether there is an answer (B,)."""
        locator, errors = _locators(field(self.degree), self._syndromes(remainder))
        possible = errors <= self.corrects
        places = np.zeros((len(remainder), length), np.bool_)
        places[possible] = self._roots(locator[possible], length)
        found: Bits = possible & (places.sum(axis=1) == errors)
        places[~found] = False
        return places, found

    def _syndromes(self, remainder: Bits) -> Elements:
        """Return the values of remainders at α, α², ..., α^2t, (B, 2t)."""
        of, exponent = field(self.degree), np.arange(self.parity - 1, -1, -1)
        syndromes = np.zeros((len(remainder), 2 * self.corrects), np.int64)
        for odd in range(1, 2 * self.corrects, 2):
            values = np.where(remainder, of.power[odd * exponent % of.order], 0)
            syndromes[:, odd - 1] = np.bitwise_xor.reduce(values, axis=1)
        for even in range(2, 2 * self.corrects + 1, 2):
            syndromes[:, even - 1] = of.times(*[syndromes[:, even // 2 - 1]] * 2)
        return syndromes

    def _roots(self, locator: Elements, length: int) -> Bits:
        """Return which places of a word (B, length) are roots of locators (B, t + 1): α^-e for the power e."""
        of, exponent = field(self.degree), np.arange(length - 1, -1, -1)
        values = np.zeros((len(locator), length), np.int64)
        for power in range(locator.shape[1]):
            if locator[:, power].any():
                values ^= of.power[of.log[locator[:, power], None] + -power * exponent % of.order]
        roots: Bits = values == 0
        return roots


def _locators(of: Field, syndromes: Elements) -> tuple[Elements, Elements]:
    """Return error locators (B, t + 1), the constant first, and the number of errors (B,) that each stands for.

    In a binary code, every second discrepancy is 0, so steps are taken two at a time.
    """
    blocks, size = len(syndromes), syndromes.shape[1] // 2 + 1
    locator, before = np.zeros((blocks, size), np.int64), np.zeros((blocks, size), np.int64)
    locator[:, 0], before[:, 1] = 1, 1
    errors, last = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)  # logarithm of the last discrepancy
    for step in range(0, syndromes.shape[1], 2):
        terms = min(step, size - 1) + 1
        window = syndromes[:, step - terms + 1 : step + 1][:, ::-1]
        off = np.bitwise_xor.reduce(of.times(locator[:, :terms], window), axis=1)
        longer = (off != 0) & (2 * errors <= step)
        factor = np.where(off != 0, of.power[(of.log[off] - last) % of.order], 0)
        changed = locator ^ of.times(before, factor[:, None])
        before = np.where(longer[:, None], locator, before)
        before[:, 2:] = before[:, :-2].copy()
        before[:, :2] = 0
        locator, last = changed, np.where(longer, of.log[off], last)
        errors = np.where(longer, step + 1 - errors, errors)
    return locator, errors


def _carryless(a: int, b: int) -> int:
    """Return the product of two polynomials over GF(2)."""
    product = 0
    while b:
        product ^= a * (b & 1)
        a, b = a << 1, b >> 1
    return product


def _minimal(of: Field, coset: list[int]) -> int:
    """Return the polynomial over GF(2) with the roots α^e of a cyclotomic coset."""
    coefficients = np.array([1], np.int64)  # the highest power first
    for exponent in coset:
        root = np.full(coefficients.size, of.power[exponent])
        coefficients = np.append(coefficients, 0) ^ np.append(0, of.times(coefficients, root))
    return int("".join(map(str, coefficients.tolist())), 2)


@lru_cache(maxsize=2)  # which may take hundreds of megabytes
def _remainders(generator: int, parity: int, data: int) -> NDArray[np.uint8]:
    """Return x^(data - 1 + parity), ..., x^parity modulo the generator, packed, the highest power first."""
    size = -(-parity // 8)
    remainder, rows = generator ^ 1 << parity, []
    for _ in range(data):
        rows.append((remainder << 8 * size - parity).to_bytes(size, "big"))
        remainder <<= 1
        if remainder >> parity:
            remainder ^= generator
    return np.frombuffer(b"".join(reversed(rows)), np.uint8).reshape(data, size)


@lru_cache(maxsize=64)
def code_of_block(block: Block) -> Code:
    """Return the code that a block is of: the shortest with its parity bits and errors.

    >>> code_of_block(Block(data=7, length=15, corrects=2, failure=0.0))
    Code(degree=4, corrects=2)
    """
    parity = block.length - block.data
    fitting = (degree for degree in range(2, 18) if 2**degree > block.length and _parity(degree, block) == parity)
    return Code(next(fitting), block.corrects)


def _parity(degree: int, block: Block) -> Any:
    every = parity_bits(degree)
    return every[block.corrects] if block.corrects < len(every) else None
