"""Runs a model with other weights in place of some of its own, as often as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network

Array = NDArray[Any]


class Probe:
    """A model whose stored weights can be exchanged for each run.

    Attributes
    ----------
    weights : mapping of str to array
        The original weights, by storage key.
    axes : mapping of str to int
        Of each weight, the axis of the output channels.

    Parameters
    ----------
    network : Network
        Without the weights.
    keys : mapping of str to str
        Storage key of each weight that the network is given, by name.
    weights : mapping of str to array
    axes : mapping of str to int
    data : Dataset
    batch : int
    indices : sequence of int, optional
        Of the outputs that are fetched.
    """

    def __init__(
        self,
        network: Network,
        keys: Mapping[str, str],
        weights: Mapping[str, Array],
        axes: Mapping[str, int],
        data: Dataset,
        *,
        batch: int,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.weights, self.axes = weights, axes
        self._network, self._keys, self._data = network, keys, data
        self._batch, self._indices = batch, indices

    def run(self, changed: Mapping[str, Array]) -> list[Any]:
        """Return the outputs with the weights in `changed`, by storage key, in place of the original ones."""
        weights = {name: changed.get(key, self.weights[key]) for name, key in self._keys.items()}
        return self._network.run(self._data, weights, batch=self._batch, indices=self._indices)
