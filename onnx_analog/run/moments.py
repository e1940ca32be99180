"""Second moments of what the weights of a network are multiplied by, over a few unlabelled samples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.coding.compensation import MOST_INPUTS, InputMoments
from onnx_analog.graph.operands import Operand, operands_of, with_operands
from onnx_analog.graph.weights import Selection, find
from onnx_analog.randomness import stream
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network

Array = NDArray[Any]

logger = logging.getLogger(__name__)

_NAMED = 3  # weights that are named in a warning

_AT_ONCE = 2**26  # numbers that calls return together
_VECTORS = 4  # times the inputs of an output: so many vectors tell their moments well enough
_LEAST_VECTORS = 16_384


def warn_of_left(left: Mapping[str, str]) -> None:
    """Log which weights are not compensated, and why."""
    if left:
        named = [f"{key!r} ({reason})" for key, reason in list(left.items())[:_NAMED]]
        more = [f"{len(left) - _NAMED:,} more"] if len(left) > _NAMED else []
        logger.warning("not compensated: %s", ", ".join([*named, *more]))


class _Sums:
    """Sums of products of an operand's inputs.

    Parameters
    ----------
    operand : Operand
    samples : int
        That will be added.
    """

    def __init__(self, operand: Operand, samples: int) -> None:
        self.operand, self._samples, self.count = operand, samples, 0
        self._rng = stream(0, 0, operand.key, plane="inputs")
        self.total = np.zeros((operand.groups, operand.inputs, operand.inputs))

    def add(self, value: Array) -> None:
        """Add what a call returned for some samples; of many positions, some are taken at random."""
        operand = self.operand
        if operand.window is not None:
            value = value.reshape(*value.shape[:2], -1)  # (samples, C·k, positions)
        else:
            value = (value.T if operand.transposed else value).reshape(len(value), -1, operand.inputs).swapaxes(1, 2)
        places = self._places(len(value), value.shape[2])
        taken = value[places // value.shape[2], :, places % value.shape[2]].astype(np.float64)
        vectors = taken.reshape(-1, operand.groups, operand.inputs)
        for total, x in zip(self.total, vectors.transpose(1, 0, 2), strict=True):
            total += x.T @ x
        self.count += len(vectors)

    def _places(self, samples: int, positions: int) -> NDArray[np.int64]:
        enough = max(_LEAST_VECTORS, _VECTORS * self.operand.inputs)
        share = -(-enough * samples // self._samples)
        if share >= samples * positions:
            return np.arange(samples * positions)
        return np.sort(self._rng.choice(samples * positions, share, replace=False))


def input_moments(
    model: ir.Model,
    data: Dataset,
    *,
    selection: Selection,
    running: Mapping[str, Any],
    progress: Callable[[str], None] = lambda _: None,
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
        Called with what is being done.

    Raises
    ------
    DataError
        If onnxruntime fails on the data.
    """
    operands = operands_of(model, find(model, selection).weights)
    left = dict(operands.left)
    known = [each for each in operands.known if each.inputs <= MOST_INPUTS]
    left |= {each.key: f"it has more than {MOST_INPUTS:,} inputs" for each in operands.known if each not in known}
    if not known:
        return {}, left
    network = Network(with_operands(model, known), **running)
    sums = [_Sums(operand, len(data)) for operand in known]
    for done, values in _outputs(network, data):
        progress(f"inputs of weights, sample {done:,} of {len(data):,}")
        for each, value in zip(sums, values, strict=True):
            each.add(np.asarray(value, np.float32))
    return _averaged(sums), left


def _outputs(network: Network, data: Dataset) -> Iterator[tuple[int, list[Any]]]:
    """Yield how many samples were run, and what the network returned for the last of them."""
    data = replace(data, labels=None)
    size = start = 1  # the first call tells how many numbers a sample gives
    yield start, (first := network.run(data.head(1), batch=1))
    numbers = sum(np.asarray(value).size for value in first)
    size = max(1, _AT_ONCE // max(1, numbers))
    while start < len(data):
        part = data.take(np.arange(start, min(start + size, len(data))))
        start += len(part)
        yield start, network.run(part, batch=size)


def _averaged(sums: list[_Sums]) -> dict[str, InputMoments]:
    """Return the means of products; a weight that is used several times has the sums of its uses."""
    by_key: dict[str, list[_Sums]] = {}
    for each in sums:
        by_key.setdefault(each.operand.key, []).append(each)
    return {
        key: InputMoments(
            second=(np.sum([each.total for each in uses], axis=0) / sum(each.count for each in uses)).astype(
                np.float32
            ),
            axes=uses[0].operand.axes,
            samples=sum(each.count for each in uses),
        )
        for key, uses in by_key.items()
    }
