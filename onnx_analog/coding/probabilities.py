"""Probability tables of entropy-coded streams: small integers, as they stand in a stream's header.

The probability of a symbol is proportional to 2^(-q/s): q is a whole number, and s, the steps per octave, a power of
two. A table of U symbols in s steps costs about U·log2(s) bits, and a step that is rounded off costs about N·0.06/s²
bits for N symbols; s is where both together are least, which is how many digits N symbols can pay for.

A header is made of Elias-gamma codes (Elias 1975) and Rice codes (Rice 1979): both end by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bytes, Doubles, Floats
from onnx_analog.errors import ModelError

Ints = NDArray[np.int64]

_FINENESS = 8  # s = 1, 2, ..., 2^7
_RICE = 12  # parameters 0 to 11
_RAREST = 20  # octaves below the most frequent symbol: models have 24 bits


# ------------------------------------------------------------------------------------------------ whole numbers


def gamma(number: int) -> str:
    """Return the Elias-gamma code of a number >= 1, as text of 0 and 1.

    Examples
    --------
    >>> [gamma(number) for number in (1, 2, 5)]
    ['1', '010', '00101']
    """
    digits = f"{number:b}"
    return "0" * (len(digits) - 1) + digits


def rice(number: int, parameter: int) -> str:
    """Return the Rice code of a number >= 0: what is above 2^parameter in unary, the rest in binary.

    Examples
    --------
    >>> [rice(number, 1) for number in (0, 1, 4)]
    ['00', '01', '1100']
    """
    return "1" * (number >> parameter) + "0" + fixed(number & ((1 << parameter) - 1), parameter)


def fixed(number: int, width: int) -> str:
    """Return a number in `width` binary digits.

    Examples
    --------
    >>> fixed(2, 3), fixed(0, 0)
    ('010', '')
    """
    return f"{number:0{width}b}" if width else ""


class Reader:
    """Reads codes from the bits of a stream, one after the other.

    Parameters
    ----------
    text : bytes
        The digits 0 and 1.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.position = 0

    def fixed(self, width: int) -> int:
        """Return the number in the next `width` binary digits."""
        digits = self.text[self.position : self.position + width]
        if len(digits) < width:
            raise damaged()
        self.position += width
        return int(digits, 2) if digits else 0

    def gamma(self) -> int:
        """Return the number of the next Elias-gamma code."""
        return self.fixed(self._run(b"1") + 1)

    def rice(self, parameter: int) -> int:
        """Return the number of the next Rice code."""
        above = self._run(b"0")
        self.position += 1
        return (above << parameter) + self.fixed(parameter)

    def _run(self, end: bytes) -> int:
        """Skip the digits before the next `end`, and return how many they are."""
        stop = self.text.find(end, self.position)
        if stop < 0:
            raise damaged()
        run, self.position = stop - self.position, stop
        return run


def damaged() -> ModelError:
    """Return the error of a header that says what cannot be."""
    return ModelError("the header of an entropy-coded stream is damaged: write the stream again")


# --------------------------------------------------------------------------------------------- symbols in use


def write_used(used: Bytes, alphabet: int) -> str:
    """Return which symbols of an alphabet are in use: the lengths of runs that are not, that are, that are not, ..."""
    marks = np.zeros(alphabet, np.bool_)
    marks[used] = True
    ends = np.flatnonzero(np.diff(marks, append=not marks[-1])) + 1
    runs = np.diff(ends, prepend=0).tolist()
    if marks[0]:
        runs.insert(0, 0)
    return gamma(runs[0] + 1) + "".join(gamma(run) for run in runs[1:])


def read_used(reader: Reader, alphabet: int) -> Bytes:
    """Return the symbols that are in use: the inverse of `write_used`."""
    marks, value = np.zeros(alphabet, np.bool_), False
    place = reader.gamma() - 1
    while place < alphabet:
        run, value = reader.gamma(), not value
        marks[place : place + run] = value
        place += run
    used = np.flatnonzero(marks).astype(np.uint8)
    if place > alphabet or not used.size:
        raise damaged()
    return used


# ----------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, eq=False)
class Tables:
    """The probabilities of U symbols in each of C contexts.

    Attributes
    ----------
    fineness : int, 0 to 7
        log2 of s, the steps per octave.
    steps : int64 array (C, U)
        q; 0 for the most frequent symbol of a context.
    order : int, 1 or 2
        Of the differences of q that are written.
    parameter : int, 0 to 11
        Of their Rice codes.
    """

    fineness: int
    steps: Ints
    order: int
    parameter: int

    @property
    def weights(self) -> Floats:
        """What probabilities are proportional to, (C, U); the same to the bit on any computer."""
        whole, part = np.divmod(self.steps, 1 << self.fineness)
        return np.ldexp(_roots(self.fineness)[part], -np.minimum(whole, _RAREST + 1)).astype(np.float32)

    def write(self) -> str:
        """Return the tables as they stand in a header, without C and U."""
        codes = [rice(number, self.parameter) for number in _differences(self.steps, self.order).reshape(-1).tolist()]
        return fixed(self.fineness, 3) + fixed(self.order - 1, 1) + fixed(self.parameter, 4) + "".join(codes)

    @staticmethod
    def read(reader: Reader, contexts: int, symbols: int) -> Tables:
        """Return the tables that a header holds: the inverse of `write`."""
        fineness, order, parameter = reader.fixed(3), reader.fixed(1) + 1, reader.fixed(4)
        numbers = np.array([reader.rice(parameter) for _ in range(contexts * symbols)]).reshape(contexts, symbols)
        steps = np.where(numbers % 2, -(numbers + 1) // 2, numbers // 2)
        for _ in range(order):
            steps = np.cumsum(steps, axis=1)
        return Tables(fineness, steps - steps.min(axis=1, keepdims=True), order, parameter)


def _roots(fineness: int) -> Doubles:
    """Return 2^(-i/s) for i = 0, ..., s - 1, from square roots and products, which round the same everywhere."""
    roots, factor = np.ones(1), 0.5
    for _ in range(fineness):
        factor = math.sqrt(factor)
        roots = np.stack([roots, roots * factor], axis=1).reshape(-1)
    return roots


def _differences(steps: Ints, order: int) -> Ints:
    """Return differences along the last axis, 0 before the first; negative ones as odd numbers."""
    for _ in range(order):
        before, steps = steps, steps.copy()
        steps[..., 1:] -= before[..., :-1]
    return np.where(steps < 0, -2 * steps - 1, 2 * steps)


def fit_tables(counts: NDArray[np.integer]) -> tuple[Tables, float]:
    """Return the tables that take the fewest bits, with the symbols that they code; and these bits.

    Parameters
    ----------
    counts : integer array (C, U)
        How often each symbol occurs in each context; none of the contexts is empty.
    """
    octaves = np.log2(counts.max(axis=1, keepdims=True) / np.maximum(counts, 0.5))
    scale = (1 << np.arange(_FINENESS)).reshape(-1, 1, 1)
    steps = np.rint(np.minimum(octaves, _RAREST) * scale).astype(np.int64)
    total = np.log2(np.exp2(-steps / scale).sum(axis=2))
    coded = (counts * (steps / scale + total[:, :, None])).sum(axis=(1, 2))
    written = _rice_bits(np.stack([_differences(steps, order) for order in (1, 2)]))  # (2, 8, 12)
    bits = coded[:, None] + written
    order, fineness, parameter = np.unravel_index(np.argmin(bits), bits.shape)
    tables = Tables(int(fineness), steps[fineness], int(order) + 1, int(parameter))
    return tables, float(bits[order, fineness, parameter]) + 8


def _rice_bits(numbers: Ints) -> Ints:
    """Return the bits of numbers (2, 8, C, U) in Rice codes of each parameter, (2, 8, 12)."""
    left = numbers.reshape(*numbers.shape[:2], -1)
    bits = np.empty((*left.shape[:2], _RICE), np.int64)
    bits[:] = np.arange(1, _RICE + 1) * left.shape[2]
    for k in range(min(_RICE, int(left.max()).bit_length())):  # beyond, nothing is left to be written in unary
        bits[:, :, k] += left.sum(axis=2)
        left = left >> 1
    return bits


# --------------------------------------------------------------------------------------------------- contexts


def merge_contexts(counts: Ints, sizes: Sequence[int]) -> list[Ints]:
    """Return contexts in fewer groups: each time, the two whose tables differ least become one.

    Parameters
    ----------
    counts : int64 array (R, U)
        Of the symbols in each context.
    sizes : sequence of int
        The numbers of groups to stop at.

    Returns
    -------
    list of int64 arrays (R,)
        The group of each context, numbered in the order of their first contexts. An empty context is in the group of
        the one before.
    """
    filled = np.flatnonzero(counts.sum(axis=1))
    rows, group = counts[filled].astype(np.float64), np.arange(filled.size)
    bits = entropy(rows)
    loss = entropy(rows[:, None] + rows) - bits - bits[:, None]  # bits that each pair loses in one table
    np.fill_diagonal(loss, np.inf)
    stages = []
    for left in range(filled.size, 0, -1):
        if left in sizes:
            numbers = np.unique(group, return_inverse=True)[1]
            stages.append(numbers[np.maximum(np.searchsorted(filled, np.arange(len(counts)), side="right") - 1, 0)])
        first, second = sorted(divmod(int(np.argmin(loss)), len(loss)))
        rows[first] += rows[second]
        rows[second] = 0
        bits[first], bits[second] = entropy(rows[first]), 0
        group[group == second] = first
        loss[second], loss[:, second] = np.inf, np.inf
        gone = np.isinf(loss[first])
        gone[first] = True
        loss[first] = loss[:, first] = np.where(gone, np.inf, entropy(rows + rows[first]) - bits - bits[first])
    return stages


def entropy(counts: NDArray[np.number]) -> Doubles:
    """Return N·H in bits of symbols with `counts` (..., U), whole numbers, (...)."""
    total = counts.sum(axis=-1)
    bits: Doubles = total * np.log2(np.maximum(total, 1)) - (counts * np.log2(np.maximum(counts, 1))).sum(axis=-1)
    return bits


def write_groups(groups: Sequence[int]) -> str:
    """Return the groups of contexts in a header: of each, how many other groups were seen since its last context."""
    recent, codes = list(range(max(groups) + 1)), [gamma(max(groups) + 1)]
    for group in groups:
        place = recent.index(group)
        codes.append(gamma(place + 1))
        recent.insert(0, recent.pop(place))
    return "".join(codes)


def read_groups(reader: Reader, contexts: int) -> list[int]:
    """Return the groups of contexts: the inverse of `write_groups`."""
    recent, groups = list(range(min(reader.gamma(), contexts))), []
    for _ in range(contexts):
        place = reader.gamma() - 1
        if place >= len(recent):
            raise damaged()
        groups.append(recent.pop(place))
        recent.insert(0, groups[-1])
    return groups
