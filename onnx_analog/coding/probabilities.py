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
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bytes, Doubles, Floats
from onnx_analog.errors import ModelError

Ints = NDArray[np.int64]

_FINENESS = 8  # s = 1, 2, ..., 2^7
_RICE = 12  # parameters 0 to 11
_MOST_GROUPS = 12  # of contexts
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
    return _write_used(used.tobytes(), alphabet)


@lru_cache(maxsize=64)  # of a stream, for each way to encode it
def _write_used(used: bytes, alphabet: int) -> str:
    marks = np.zeros(alphabet, np.bool_)
    marks[np.frombuffer(used, np.uint8)] = True
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
        differences = self.steps
        for _ in range(self.order):
            differences = _differences(differences)
        numbers = _without_sign(differences).reshape(-1).tolist()
        codes = {number: rice(number, self.parameter) for number in set(numbers)}
        header = fixed(self.fineness, 3) + fixed(self.order - 1, 1) + fixed(self.parameter, 4)
        return header + "".join(map(codes.__getitem__, numbers))

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


def _differences(steps: NDArray[np.signedinteger[Any]]) -> NDArray[np.signedinteger[Any]]:
    """Return differences along the last axis, 0 before the first."""
    differences = steps.copy()
    differences[..., 1:] -= steps[..., :-1]
    return differences


def _without_sign(numbers: NDArray[np.signedinteger[Any]]) -> NDArray[np.signedinteger[Any]]:
    """Return n >= 0 as 2n, and n < 0 as -2n - 1."""
    return (numbers << 1) ^ (numbers >> (8 * numbers.itemsize - 1))


class Fit(NamedTuple):
    """Tables, and the bits that they and the symbols that they code take."""

    tables: Tables
    bits: float


def fit_tables(counts: NDArray[np.integer]) -> Fit:
    """Return the tables that take the fewest bits, with the symbols that they code; and these bits.

    Parameters
    ----------
    counts : integer array (C, U)
        How often each symbol occurs in each context; none of the contexts is empty.
    """
    return fit_several([counts])[0]


def fit_several(several: Sequence[NDArray[np.integer]]) -> list[Fit]:
    """Return what `fit_tables` does, for each of several arrays of counts, (C, U) with the same U."""
    counts = np.concatenate(several).astype(np.float64)
    starts = np.cumsum([0, *(len(each) for each in several[:-1])])
    octaves = np.log2(counts.max(axis=1, keepdims=True) / np.maximum(counts, 0.5))
    scale = (1 << np.arange(_FINENESS)).reshape(-1, 1, 1)
    steps = np.rint(np.minimum(octaves, _RAREST) * scale).astype(np.int16)
    total = np.log2(_powers().take(steps * (scale[-1] // scale).astype(np.int16)).sum(axis=2))
    of_row = (counts * steps).sum(axis=2) / scale[:, 0] + counts.sum(axis=1) * total
    coded = np.add.reduceat(of_row, starts, axis=1)  # (8, tables)
    bits = coded[:, :, None] + _rice_bits(steps, starts)  # (2, 8, tables, 12)
    fits = []
    for number, each in enumerate(several):
        of_one = bits[:, :, number]
        order, fineness, parameter = np.unravel_index(np.argmin(of_one), of_one.shape)
        chosen = steps[fineness, starts[number] : starts[number] + len(each)].astype(np.int64)
        tables = Tables(int(fineness), chosen, int(order) + 1, int(parameter))
        fits.append(Fit(tables, float(of_one[order, fineness, parameter]) + 8))
    return fits


@cache
def _powers() -> Doubles:
    """Return 2^(-i/s) of the finest steps, up to the rarest."""
    finest = 1 << (_FINENESS - 1)
    return np.exp2(-np.arange(_RAREST * finest + 1) / finest)


def _rice_bits(steps: NDArray[np.int16], starts: NDArray[np.intp]) -> Ints:
    """Return the bits of tables in Rice codes of their differences of both orders, (2, 8, tables, 12).

    Parameters
    ----------
    steps : int16 array (8, C, U)
        Of all tables, one below the other, for each fineness.
    starts : int array (tables,)
        First row of each.
    """
    first = _differences(steps)
    left = _without_sign(np.stack([first, _differences(first)])).reshape(2, _FINENESS, -1)  # below 2^15
    places = starts * steps.shape[2]
    bits = np.empty((2, _FINENESS, starts.size, _RICE), np.int64)
    bits[:] = np.arange(1, _RICE + 1) * np.diff(places, append=left.shape[2])[:, None]
    for k in range(min(_RICE, int(left.max()).bit_length())):  # beyond, nothing is left to be written in unary
        bits[..., k] += np.add.reduceat(left, places, axis=2, dtype=np.int32)
        left = left >> 1
    return bits


# --------------------------------------------------------------------------------------------------- contexts


class Grouped(NamedTuple):
    """Contexts in groups.

    Attributes
    ----------
    groups : int64 array (R,)
        The group of each context, numbered in the order of their first contexts. An empty context is in the group of
        the one before.
    counts : int64 array (groups, U)
        Of the symbols in each group.
    """

    groups: Ints
    counts: Ints


def group_contexts(counts: Ints, tries: int = 1, most: int = _MOST_GROUPS) -> list[Grouped]:
    """Return contexts in groups that share a table, so that tables and symbols are likely to take the fewest bits.

    Contexts are sorted by the mean of their symbols, and those of a group follow one another then. The best of such
    groups are found by dynamic programming, as Fisher (1958) groups numbers. A table of U probabilities from N symbols
    is taken to cost half of log2(N/U) bits for each (Rissanen 1984), and about 1 more.

    Parameters
    ----------
    counts : int64 array (R, U)
        Of the symbols in each context.
    tries : int
        Numbers of groups to return, the most promising first.
    most : int
        Of groups.

    Returns
    -------
    list of Grouped
        Of at least 2 groups each, so none if only one context is in use.
    """
    total = counts.sum(axis=1)
    filled = np.flatnonzero(total)
    order = np.argsort(counts[filled] @ np.arange(counts.shape[1]) / total[filled], kind="stable")
    rows = counts[filled[order]]
    bits, before = _neighbours(rows, min(most, filled.size))
    sizes = np.arange(2, bits.size + 2)
    tables = sizes * counts.shape[1]
    likely = bits + tables * (np.log2(total.sum() / tables + 2) / 2 + 1)
    place = np.maximum(np.cumsum(total > 0) - 1, 0)
    found = []
    for number in np.argsort(likely, kind="stable")[:tries].tolist():
        starts = _starts(before[: number + 1], filled.size)
        first = np.minimum.reduceat(order, starts)
        by_first, groups = np.argsort(first), np.empty(filled.size, np.int64)
        groups[order] = np.argsort(by_first).repeat(np.diff(starts, append=filled.size))
        found.append(Grouped(groups[place], np.add.reduceat(rows, starts)[by_first]))
    return found


def _neighbours(rows: Ints, most: int) -> tuple[Doubles, list[NDArray[np.intp]]]:
    """Return the fewest bits that symbols take in 2, ..., `most` groups of neighbouring rows (R, U).

    Beside them, for each number of groups, where the last one starts that ends before each of the R + 1 ends.
    """
    count = len(rows)
    sums = np.zeros((rows.shape[1] + 1, count + 1))
    np.cumsum(rows.T, axis=1, out=sums[:-1, 1:])
    sums[:-1].sum(axis=0, out=sums[-1])
    start, end = _pairs(count + 1)
    of_group = np.full((count + 1, count + 1), np.inf)  # by end and start
    of_group[end, start] = _entropy((sums.take(end, axis=1) - sums.take(start, axis=1)).T)
    least, bits, before = of_group[:, 0], [], []
    for _ in range(2, most + 1):
        ways = of_group + least
        before.append(ways.argmin(axis=1))
        least = ways.min(axis=1)
        bits.append(least[-1])
    return np.array(bits), before


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[NDArray[np.intp], ...]:
    """Return all pairs of numbers below `count`, the smaller one first."""
    return np.triu_indices(count, 1)


def _starts(before: Sequence[NDArray[np.intp]], end: int) -> list[int]:
    """Return where the groups start that end before `end`."""
    starts = []
    for of_last in reversed(before):
        end = int(of_last[end])
        starts.append(end)
    return [0, *reversed(starts)]


def entropy(counts: NDArray[np.number]) -> Doubles:
    """Return N·H in bits of symbols with `counts` (..., U), whole numbers, (...)."""
    return _entropy(np.concatenate([counts, counts.sum(axis=-1, keepdims=True)], axis=-1))


def _entropy(rows: NDArray[np.number]) -> Doubles:
    """Return N·H in bits of counts whose sum N is the last of each row."""
    terms = np.log2(np.maximum(rows, 1))
    terms *= rows
    bits: Doubles = terms[..., -1] - np.add.reduce(terms[..., :-1], axis=-1)
    return bits


def write_groups(groups: Sequence[int]) -> str:
    """Return the groups of contexts in a header: of each, how many other groups were seen since its last context."""
    recent, codes = list(range(max(groups) + 1)), [gamma(max(groups) + 1)]
    for group in groups:
        if group == recent[0]:
            codes.append("1")
            continue
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
