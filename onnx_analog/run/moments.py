"""Second moments of what the weights of a network are multiplied by, over a few unlabelled samples."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.blas import one_blas_thread
from onnx_analog.coding.compensation import HELD_OUT, MOST_INPUTS, InputMoments
from onnx_analog.display import Progress, counted, silent
from onnx_analog.errors import DataError
from onnx_analog.graph.operands import Operand, operands_of, with_operands
from onnx_analog.graph.weights import Selection, find
from onnx_analog.randomness import stream
from onnx_analog.run.correcting import fixed_batch
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network

Array = NDArray[Any]

logger = logging.getLogger(__name__)

_NAMED = 3  # weights that are named in a warning

_AT_ONCE = 2**26  # numbers that calls return together
_VECTORS = 4  # times the inputs of an output: so many vectors tell their moments well enough
_LEAST_VECTORS = 16_384


_NOT_FINITE = "its inputs are not finite, or their squares are not"


def warn_of_left(left: Mapping[str, str]) -> None:
    """Log which weights are not compensated, and why."""
    if left:
        named = [f"{key!r} ({reason})" for key, reason in list(left.items())[:_NAMED]]
        more = [f"{len(left) - _NAMED:,} more"] if len(left) > _NAMED else []
        logger.warning("not compensated: %s", ", ".join([*named, *more]))


class _Sums:
    """Sums of products of an operand's inputs: of vectors that weights are rounded by, and of those held out.

    Parameters
    ----------
    operand : Operand
    samples : int
        That will be added.
    """

    def __init__(self, operand: Operand, samples: int) -> None:
        self.operand, self._samples, self.positions = operand, samples, 0
        self._rng = stream(0, 0, operand.key, plane="inputs")
        shape = (operand.groups, operand.inputs, operand.inputs)
        self._totals, self.counts = (np.zeros(shape), np.zeros(shape)), [0, 0]

    def add(self, value: Array, samples: int, *, held_out: bool) -> None:
        """Add what a call returned for some samples; of many positions, some are taken at random."""
        operand = self.operand
        if operand.window is not None:
            value = value.reshape(*value.shape[:2], -1)  # (N, C·k, positions)
        else:
            value = value.T if operand.transposed else value
            value = value.reshape(len(value), -1, operand.inputs).swapaxes(1, 2)
        self.positions += len(value) * value.shape[2]
        places = self._places(len(value) * value.shape[2], samples)
        taken = value[places // value.shape[2], :, places % value.shape[2]].astype(np.float64)
        vectors = taken.reshape(-1, operand.groups, operand.inputs)
        self.counts[held_out] += len(vectors)
        with np.errstate(all="ignore"):  # what is not finite is refused once all is added
            for total, x in zip(self._totals[held_out], vectors.transpose(1, 0, 2), strict=True):
                total += x.T @ x

    def _places(self, count: int, samples: int) -> NDArray[np.int64]:
        enough = max(_LEAST_VECTORS, _VECTORS * self.operand.inputs)
        share = -(-enough * samples // self._samples)
        if share >= count:
            return np.arange(count)
        return np.sort(self._rng.choice(count, share, replace=False))

    def means(self) -> list[Array]:
        """Return the mean products of the two kinds of vectors; those of the first for both if there are too few."""
        first, second = (total / max(count, 1) for total, count in zip(self._totals, self.counts, strict=True))
        return [first, second if self.counts[1] else first]


@one_blas_thread()  # or what is stored would depend on the number of cores
def input_moments(
    model: ir.Model,
    data: Dataset,
    *,
    selection: Selection,
    running: Mapping[str, Any],
    progress: Progress = silent,
) -> tuple[dict[str, InputMoments], dict[str, str]]:
    """Return the moments of each selected weight, by storage key, and why those of others are not known.

    Parameters
    ----------
    model : ir.Model
        Plain; it is not changed.
    data : Dataset
        Its labels are not used.
    selection : Selection
    running : mapping
        Keywords of `Network`.
    progress : function
        Called with what is being done, and with the share of the samples that are done.

    Raises
    ------
    DataError
        If onnxruntime fails on the data, or they do not fill a batch of the model.
    """
    if len(data) < HELD_OUT:
        raise DataError(
            f"compensation has {counted(len(data), 'sample')}, and holds out one in {HELD_OUT}: give {HELD_OUT} or more"
        )
    known, left = _operands(model, selection)
    if not known:
        return {}, left
    network = Network(with_operands(model, known), **running)
    sums, done = [_Sums(operand, len(data)) for operand in known], 0
    for held_out, part in enumerate(_parted(data)):
        for samples, values in _outputs(network, part, fixed_batch(model)):
            done += samples
            progress(f"inputs of weights, sample {done:,} of {len(data):,}", done / len(data))
            for each, value in zip(sums, values, strict=True):
                each.add(np.asarray(value, np.float32), samples, held_out=bool(held_out))
    if not done:
        raise DataError(
            f"the model takes {fixed_batch(model):,} samples in each call, and there are {len(data):,} to compensate "
            "with: give more"
        )
    found = _averaged(sums)
    for key in [key for key, each in found.items() if not (_finite(each.second) and _finite(each.held_out))]:
        del found[key]
        left[key] = _NOT_FINITE
    return found, left


def left_of(model: ir.Model, selection: Selection, known: Collection[str]) -> dict[str, str]:
    """Return why moments of selected weights are not known, by storage key, if those in `known` are; nothing is run."""
    operands, left = _operands(model, selection)
    return left | {each.key: _NOT_FINITE for each in operands if each.key not in known}


def _operands(model: ir.Model, selection: Selection) -> tuple[list[Operand], dict[str, str]]:
    """Return the operands whose moments are taken, and why those of other weights are not, by storage key."""
    operands = operands_of(model, find(model, selection).weights)
    known = [each for each in operands.known if each.inputs <= MOST_INPUTS]
    many = {each.key: f"it has more than {MOST_INPUTS:,} inputs" for each in operands.known if each not in known}
    return known, dict(operands.left) | many


def _finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


def _parted(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return the samples that weights are rounded by, and those held out: one of `HELD_OUT`."""
    data, numbers = replace(data, labels=None), np.arange(len(data))
    held_out = numbers % HELD_OUT == HELD_OUT - 1
    return data.take(numbers[~held_out]), data.take(numbers[held_out])


def _outputs(network: Network, data: Dataset, fixed: int | None) -> Iterator[tuple[int, list[Any]]]:
    """Yield how many samples a call had, and what the network returned for them.

    The samples of a model with a fixed batch are used as far as they fill batches: others would count twice.
    """
    if data.one_by_one:
        for number in range(len(data)):
            yield 1, [value[0] for value in network.run(data.take(np.array([number])))]
        return
    start, size = 0, fixed or 1  # the first call tells how many numbers a sample gives
    while start + (fixed or 1) <= len(data):
        part = data.take(np.arange(start, min(start + size, len(data))))
        values = network.run(part, batch=size)
        yield len(part), values
        start += len(part)
        size = fixed or max(1, _AT_ONCE * len(part) // max(1, sum(np.asarray(value).size for value in values)))


def _averaged(sums: list[_Sums]) -> dict[str, InputMoments]:
    """Return the means of products; the uses of a weight that is used several times count by their positions."""
    by_key: dict[str, list[_Sums]] = {}
    for each in sums:
        by_key.setdefault(each.operand.key, []).append(each)
    found = {}
    for key, uses in by_key.items():
        shares = np.array([each.positions for each in uses], np.float64)
        pairs = zip(*(each.means() for each in uses), strict=True)
        with np.errstate(over="ignore", invalid="ignore"):
            second, held_out = (np.tensordot(shares / shares.sum(), of_uses, 1).astype(np.float32) for of_uses in pairs)
        found[key] = InputMoments(
            second=second, held_out=held_out, axes=uses[0].operand.axes, samples=sum(each.counts[0] for each in uses)
        )
    return found
