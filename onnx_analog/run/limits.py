"""Limits of stored models: the fewest cells that any code needs for weights that are read with so much error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels import Channel
from onnx_analog.channels.capacity import of_channel
from onnx_analog.coding import limit
from onnx_analog.coding.limit import Limit, TensorLimit
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.run.read import Decoder, Unpacked


def limit_of(
    weights: Iterable[Unpacked],
    originals: Mapping[str, NDArray[np.floating]] | None,
    read: Mapping[Scheme, Scheme],
    *,
    honest_cells: int | None,
    seed: int = 0,
) -> Limit:
    """Return the limit at the errors of trial 0.

    Parameters
    ----------
    weights : iterable of Unpacked
        Of each storage key once.
    originals : mapping of str to array, optional
        The weights before they were stored, by storage key; without them, the stored ones, read without noise, are
        what a code must tell. Weights that are not stored are read as 0: where they were not, that is an error.
    read : mapping of Scheme to Scheme
        The scheme that reads what another one wrote.
    honest_cells : int or None
    seed : int

    Raises
    ------
    OptionError
        If a tensor is read without any error: the limit grows beyond all bounds.
    """
    tensors = tuple(_tensor_limit(each, originals, read[each.tensor.scheme], seed) for each in weights)
    return Limit(tensors=tensors, honest_cells=honest_cells)


def _tensor_limit(
    unpacked: Unpacked, originals: Mapping[str, NDArray[np.floating]] | None, scheme: Scheme, seed: int
) -> TensorLimit:
    tensor = unpacked.tensor
    source = _source(tensor, None if originals is None else originals.get(tensor.key))
    error = Decoder(unpacked, scheme).weights(seed=seed, trial=0).astype(np.float64).reshape(-1) - source
    mse = float(np.square(error).mean())
    if not mse > 0:
        raise OptionError(
            f"tensor {tensor.key!r} is read without error, so there is no limit to the cells that it may need: give "
            "the original model as the reference"
        )
    return TensorLimit(
        key=tensor.key,
        weights=tensor.size,
        mse=mse,
        bits=limit.rate(source, mse),
        capacity_bits=_capacity(scheme.channel) / scheme.channel.devices_per_cell,
    )


def _source(tensor: StoredTensor, original: NDArray[np.floating] | None) -> NDArray[np.float64]:
    """Return the weights (n,) that a code must tell: without an original, zeros where none is stored."""
    if original is None:
        return tensor.decode().astype(np.float64).reshape(-1)
    return original.astype(np.float64).reshape(-1)


@lru_cache(maxsize=64)
def _capacity(channel: Channel) -> float:
    return of_channel(channel).bits
