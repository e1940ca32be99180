"""Compensation of rounding errors: each weight makes up for the errors of those that were rounded before it.

A layer multiplies inputs x by weights w. If the weights are stored with errors e, its outputs are off by e·x, whose
mean square over inputs is eᵀ·H·e with the second moments H = E[x·xᵀ]. Weights whose inputs are correlated can cancel
each other's errors. So they are rounded one after the other: the error of weight j is divided among those that are not
yet rounded, where it does least harm (Hassibi and Stork 1993; Frantar et al. 2023, "GPTQ"). With

    H⁻¹ = Uᵀ·U, U upper triangular:    w_k becomes w_k - e_j·U_jk/U_jj for all k > j

Only weights without analog cells are compensated: what noise does to a level is not known when it is written. Weights
that are pruned stay 0, and others make up for what 0 is off by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.blas import one_blas_thread
from onnx_analog.coding.codebook import Codebook
from onnx_analog.coding.partition import Bits, Bytes, Doubles, Edges, Floats
from onnx_analog.coding.planes import Encoded, Fitted, Part, fit, planes_of, split
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError

DAMPING = 0.01  # added to the diagonal of H, relative to its mean, as Frantar et al. do
HELD_OUT = 4  # of as many vectors, one is held out, and tells how far outputs are off
MOST_INPUTS = 16_384  # of an output: H takes 4 bytes times the square of their number
_BLOCK = 128  # columns whose errors are passed on together to those behind them

_Choose = Callable[[int, Doubles], tuple[NDArray[np.intp], Doubles]]


@dataclass(frozen=True, eq=False, kw_only=True)
class InputMoments:
    """Second moments of the inputs that a weight tensor is multiplied by.

    Attributes
    ----------
    second : float32 array of shape (G, n, n)
        E[x·xᵀ] of the n inputs of an output, for each of G groups of outputs: by it, weights are rounded.
    held_out : float32 array of shape (G, n, n)
        The same over other vectors: by it, errors are measured. Errors on vectors that weights were rounded by are too
        small, the more so the fewer they are.
    axes : tuple of int
        The order of the weight's axes in which it can be reshaped to (G, outputs of a group, n).
    samples : int
        Vectors x of each group that weights are rounded by.
    """

    second: Floats
    held_out: Floats
    axes: tuple[int, ...]
    samples: int

    def matrix(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array of the weight's shape as (G, outputs of a group, n)."""
        groups, inputs, _ = self.second.shape
        return array.transpose(self.axes).reshape(groups, -1, inputs)

    def flat(self, matrix: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """Return (G, outputs of a group, n) in the flat order of a weight of this shape."""
        moved = matrix.reshape([shape[axis] for axis in self.axes])
        return moved.transpose(np.argsort(self.axes)).reshape(-1)

    @cached_property
    def steps(self) -> tuple[_Steps, ...]:
        """Order and factor by which the weights of each group are rounded."""
        return tuple(_Steps.of(second.astype(np.float64), self.samples) for second in self.second)

    @cached_property
    def power(self) -> float:
        """Mean square of an input."""
        groups, inputs, _ = self.held_out.shape
        total = float(np.trace(self.held_out, axis1=1, axis2=2, dtype=np.float64).sum())
        return float(total / (groups * inputs))

    def error(self, difference: NDArray[Any]) -> float:
        """Return the mean squared error of the outputs, summed over them, if the weights are off by `difference`."""
        matrix = self.matrix(difference).astype(np.float32)
        return float(np.einsum("gri,gri->", matrix @ self.held_out, matrix, dtype=np.float64))


class _Steps(NamedTuple):
    """Order and factor by which the weights of a group are rounded.

    Attributes
    ----------
    order : int array of shape (n,)
        Those whose inputs have the most power come first: more others can make up for their errors.
    upper : float64 array of shape (n, n)
        U of H⁻¹ = Uᵀ·U, in that order.
    leniency : float64 array of shape (n,)
        U_jj² over its geometric mean, by column of the weight: the harm of a squared error e², which is e²/U_jj² after
        the others have made up for it, is that much smaller than on average.
    """

    order: NDArray[np.intp]
    upper: Doubles
    leniency: Doubles

    @staticmethod
    def of(second: Doubles, samples: int) -> _Steps:
        """Return those for second moments (n, n) of as many vectors.

        Moments of few vectors know more correlation than there is. They are shrunk towards their diagonal by the share
        n/(n + vectors), which is next to nothing for convolutions.
        """
        inputs = len(second)
        power = np.diag(second)
        order = np.argsort(-power, kind="stable")
        kept = samples / (samples + inputs)
        shrunk = kept * second + np.diag((1 - kept) * power + (DAMPING * float(power.mean()) or 1.0))
        upper = _upper(shrunk[np.ix_(order, order)])
        logarithm = 2 * np.log(np.diag(upper))
        leniency = np.empty(inputs)
        leniency[order] = np.exp(logarithm - logarithm.mean())
        return _Steps(order, upper, leniency)


def _upper(second: Doubles) -> Doubles:
    """Return U of H⁻¹ = Uᵀ·U, (n, n).

    With the order of rows and columns reversed, H = L·Lᵀ and L⁻¹ is U.
    """
    import scipy.linalg  # few need it

    lower = scipy.linalg.cholesky(second[::-1, ::-1], lower=True, check_finite=False)
    inverse = scipy.linalg.solve_triangular(lower, np.eye(len(second)), lower=True, check_finite=False)
    upper: Doubles = inverse[::-1, ::-1].copy()
    return upper


class _Grid(NamedTuple):
    """The points that weights are rounded to, and the edges between them, by group of the codebook.

    Attributes
    ----------
    edges : float64 array of shape (G, K - 1)
    points : float64 array of shape (G, K)
    """

    edges: Doubles
    points: Doubles

    def lenient(self, leniency: float) -> _Grid:
        """Return a grid for weights whose errors do less harm.

        Edges lie so far from midway between points as saves bits at the expense of squared errors; where these do less
        harm, they lie further, up to the next point.
        """
        midway = (self.points[:, 1:] + self.points[:, :-1]) / 2
        most = 0.499 * np.diff(self.points)
        return self._replace(edges=midway + np.clip(leniency * (self.edges - midway), -most, most))

    def nearest(self, value: Doubles, group: NDArray[np.int64] | None) -> tuple[NDArray[np.intp], Doubles]:
        """Return the classes of values (R,), whose groups are `group` (R,), and their points."""
        if group is None:
            index = np.searchsorted(self.edges[0], value, side="left")
            return index, self.points[0, index]
        index = np.count_nonzero(value[:, None] > self.edges[group], axis=1)
        return index, self.points[group, index]


def unfit(scheme: Scheme) -> str | None:
    """Return why the weights of a scheme are not compensated, or None if they are."""
    if scheme.analog != "none":
        return "it has analog cells, whose errors are not known when it is written"
    if scheme.sign != "level" or scheme.partition != "uniform":
        return "its classes are not signed equal steps"
    if scheme.rounding == "alone":
        return "its weights are rounded alone"
    return None


def check_compensable(given: str, schemes: Iterable[Scheme]) -> None:
    """Raise `OptionError` if no scheme can be compensated; `given` says what asks for it."""
    reasons = [unfit(scheme) for scheme in schemes]
    if reasons and None not in reasons:
        raise OptionError(f"{given}, and no scheme can be compensated: {reasons[0]}. Leave it out")


class Compensated(NamedTuple):
    """Codebook and classes, and the mean squared error of the outputs on vectors that are held out."""

    fitted: Fitted
    error: float


@one_blas_thread()
def encode(
    weight: NDArray[Any], scheme: Scheme, moments: InputMoments, *, key: str | None = None
) -> tuple[Encoded, float]:
    """Return one tensor as it is stored by a scheme that `unfit` has nothing against, with one codebook.

    Also returned is the mean squared error of the outputs, summed over them, on vectors that are held out. Without the
    storage key, no mask follows from a seed.
    """
    part = split(weight, scheme, key=key)
    fitted, error = compensated(weight, part, fit([part], scheme, keep=True), 0, moments)
    return Encoded(planes_of(part, fitted, 0, scheme), fitted.codebook, scheme), error


@one_blas_thread()  # or what is stored would depend on the number of cores
def compensated(
    weight: NDArray[Any],
    part: Part,
    fitted: Fitted,
    number: int,
    moments: InputMoments,
    group: NDArray[np.int64] | None = None,
) -> Compensated:
    """Choose the classes of one tensor so that its weights make up for each other's errors.

    The codebook stays. If outputs are not nearer, on vectors that are held out, nothing changes.

    Parameters
    ----------
    weight : float array of any shape
    part : Part
        What `split` gives of it, under a scheme that `unfit` has nothing against.
    fitted : Fitted
        With the class of each weight.
    number : int
        Of the tensor among those of `fitted`.
    moments : InputMoments
    group : int array of shape (n,), optional
        Group of the codebook of each weight, those that are not stored among them, where there are several.
    """
    before = fitted.class_index[number]
    if before is None or not before.size:  # there is nothing to choose
        return Compensated(fitted, 0.0)
    grid = _grid(fitted.codebook, fitted.edges[number])
    midway = all(edges.midway for edges in fitted.edges[number])
    chosen = moments.flat(_classes(weight, part.mask, grid, moments, group, midway=midway), weight.shape)
    index = chosen if part.mask is None else chosen[part.mask]
    plain, error = (_error(weight, part, grid, classes, moments) for classes in (before, index))
    if not error < plain:
        return Compensated(fitted, plain)
    counts, indices = fitted.counts.copy(), list(fitted.class_index)
    counts[number], indices[number] = np.bincount(index, minlength=counts.shape[1]), index
    known = fitted.compensated | {number}
    return Compensated(fitted._replace(counts=counts, class_index=indices, compensated=known), error)


def _error(weight: NDArray[Any], part: Part, grid: _Grid, index: Bytes, moments: InputMoments) -> float:
    """Return the mean squared error of the outputs if the stored weights are of these classes (N,)."""
    difference = -weight.astype(np.float64).reshape(-1)
    stored = grid.points[0][index] if part.group is None else grid.points[part.group, index]
    difference[slice(None) if part.mask is None else part.mask] += stored
    return moments.error(difference.reshape(weight.shape))


def _grid(book: Codebook, edges: Sequence[Edges]) -> _Grid:
    """Return the points of a codebook, and the edges between them, which are scaled as the points are."""
    points = book.beta.astype(np.float64) / book.alpha.astype(np.float64)
    steps = np.array([of_group.points for of_group in edges])
    scale = (points[:, -1] / steps[:, -1])[:, None]
    return _Grid(np.array([of_group.values for of_group in edges]) * scale, points)


def _classes(
    weight: NDArray[Any],
    mask: Bits | None,
    grid: _Grid,
    moments: InputMoments,
    group: NDArray[np.int64] | None,
    *,
    midway: bool,
) -> Bytes:
    """Return the class of each weight, (G, outputs of a group, n); any class for those that are not stored."""
    matrix = moments.matrix(weight).astype(np.float64)
    stored = None if mask is None else moments.matrix(mask.reshape(weight.shape))
    groups = None if group is None else moments.matrix(group.reshape(weight.shape))
    index = np.empty(matrix.shape, np.uint8)
    for g, steps in enumerate(moments.steps):

        def choose(
            column: int, value: Doubles, g: int = g, leniency: Doubles = steps.leniency
        ) -> tuple[NDArray[np.intp], Doubles]:
            of_column = grid if midway else grid.lenient(float(leniency[column]))
            classes, point = of_column.nearest(value, None if groups is None else groups[g, :, column])
            return classes, point if stored is None else np.where(stored[g, :, column], point, 0.0)

        index[g] = _rounded(matrix[g], steps, choose)
    return index


def _rounded(matrix: Doubles, steps: _Steps, choose: _Choose) -> NDArray[np.intp]:
    """Return the classes of the weights (R, n) of a group, rounded one column after the other."""
    upper, columns = steps.upper, matrix.T[steps.order]  # (n, R)
    chosen = np.empty(columns.shape, np.intp)
    for start in range(0, len(columns), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(columns)))
        errors = np.empty_like(columns[block])
        for j in range(block.start, block.stop):
            chosen[j], point = choose(int(steps.order[j]), columns[j])
            errors[j - start] = (columns[j] - point) / upper[j, j]
            columns[j + 1 : block.stop] -= np.multiply.outer(upper[j, j + 1 : block.stop], errors[j - start])
        columns[block.stop :] -= upper[block, block.stop :].T @ errors
    classes = np.empty_like(chosen)
    classes[steps.order] = chosen
    return classes.T
