"""Correction after programming: gains and shifts that give what was read the statistics of the noise-free model.

By samples, which need no labels: each layer gets a gain and a shift for each output channel, so that its outputs have
the mean and the standard deviation that they have in the noise-free model on the same samples. Earlier layers are
corrected before later ones are measured, in one run over all samples. By the law of the channel: each tensor gets one
factor, which restores its gain in the mean over reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.gain import factor_of
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.correction import (
    Correction,
    Cost,
    Layers,
    layers_of,
    with_calibration,
    with_correction,
    with_statistics,
)
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import Network

Array = NDArray[Any]
Weights = Mapping[str, Array]

LEAST_SAMPLES = 2
_NAMED = 3  # tensors that are named in a warning


class Corrector(ABC):
    """Corrects a model trial by trial.

    Attributes
    ----------
    cost : Cost
    warnings : tuple of str
        What it leaves as it was read.
    factors : mapping of str to float
        That each weight is multiplied by, by its name in the network; none where layers are corrected.
    """

    cost: Cost
    warnings: tuple[str, ...] = ()
    factors: Mapping[str, float] = MappingProxyType({})

    @abstractmethod
    def apply(self, network: Network, weights: Weights) -> tuple[Network, Weights]:
        """Return a network and the weights of it that compute what the corrected model does.

        Parameters
        ----------
        network : Network
            Of the protected model.
        weights : mapping of name to array
            As one trial read them; they are not changed.
        """


# --------------------------------------------------------------------------------------------- by samples


class LayerNetworks:
    """The networks that measure and correct the layers of a protected model: the same for all plans that store it so.

    Parameters
    ----------
    model : ProtectedModel
        It is not changed, and not kept.
    data : Dataset
        The samples, as `one_call` returns them.
    running : mapping
        Keywords of `Network`.
    """

    def __init__(self, model: ProtectedModel, data: Dataset, running: Mapping[str, Any]) -> None:
        self.layers: Layers = layers_of(model.model, model.tensors)
        known = self.layers.corrected
        calibration = with_calibration(model.model, known)
        corrected = with_correction(model.model, known)
        self._targets, self._numbers = calibration.targets, corrected.numbers
        self._statistics = _network(model, with_statistics(model.model, known), (), running) if known else None
        self._calibration = _network(model, calibration.model, calibration.targets, running) if known else None
        self.corrected = _network(model, corrected.model, corrected.numbers, running)
        self.data = data

    def targets(self, weights: Weights) -> list[Array]:
        """Return mean and standard deviation of each layer with these weights, in turn."""
        return [] if self._statistics is None else self._statistics.call(self.data, weights)

    def numbers(self, weights: Weights, targets: Sequence[Array]) -> list[Array]:
        """Return gain and shift of each layer, in turn, that give it the targets with these weights."""
        if self._calibration is None:
            return []
        return self._calibration.call(self.data, {**weights, **dict(zip(self._targets, targets, strict=True))})

    def handed_over(self, numbers: Sequence[Array]) -> dict[str, Array]:
        """Return gains and shifts as the network `corrected` takes them."""
        layers = [layer for layer in self.layers.corrected for _ in range(2)]
        return {
            name: array.reshape(layer.shape).astype(layer.dtype.numpy())
            for name, array, layer in zip(self._numbers, numbers, layers, strict=True)
        }

    @property
    def cost(self) -> Cost:
        """What the correction costs."""
        return self.layers.cost

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not corrected, and why."""
        left = self.layers.left
        if not left:
            return ()
        named = [f"{key!r} ({reason})" for key, reason in list(left.items())[:_NAMED]]
        more = [f"{len(left) - _NAMED:,} more"] if len(left) > _NAMED else []
        return (f"not corrected after programming: {', '.join([*named, *more])}",)


class LayerCorrector(Corrector):
    """Corrects gain and shift of each output channel, by samples.

    Parameters
    ----------
    networks : LayerNetworks
    noise_free : mapping of name to array
        The weights, as they were written.
    """

    def __init__(self, networks: LayerNetworks, noise_free: Weights) -> None:
        self._networks, self._targets = networks, networks.targets(noise_free)
        self.cost, self.warnings = networks.cost, networks.warnings

    def apply(self, network: Network, weights: Weights) -> tuple[Network, Weights]:  # noqa: ARG002 - it has its own
        """Return the corrected network, and the weights with gains and shifts."""
        numbers = self._networks.numbers(weights, self._targets)
        return self._networks.corrected, {**weights, **self._networks.handed_over(numbers)}

    def correction(self, weights: Weights) -> Correction:
        """Return the correction of weights as they were read."""
        numbers = self._networks.numbers(weights, self._targets)
        pairs = zip(self._networks.layers.corrected, numbers[::2], numbers[1::2], strict=True)
        return Correction(layers={layer.name: (gain, shift) for layer, gain, shift in pairs})


def _network(model: ProtectedModel, graph: ir.Model, exchanged: Sequence[str], running: Mapping[str, Any]) -> Network:
    network = Network(replace(model, model=graph), exchanged=exchanged, **running)
    network.tensors = {}  # or they would stay in memory
    return network


# -------------------------------------------------------------------------------------------------- by the law


class TensorCorrector(Corrector):
    """Restores the gain of each tensor, by the law of its channel.

    Parameters
    ----------
    factors : mapping of str to float
        By the weight's name in the network.
    """

    def __init__(self, factors: Mapping[str, float]) -> None:
        self.factors = factors
        count = sum(factor != 1.0 for factor in factors.values())
        self.cost = Cost(count, count)

    def apply(self, network: Network, weights: Weights) -> tuple[Network, Weights]:
        """Return the network, and the weights, each multiplied by its factor."""
        return network, {name: multiplied(weight, self.factors[name]) for name, weight in weights.items()}


def multiplied(weight: Array, factor: float) -> Array:
    """Return a weight multiplied by a factor, in float32 if its own type is narrower."""
    wide = weight.astype(np.float64 if weight.dtype == np.float64 else np.float32, copy=False)
    product: Array = np.multiply(wide, factor, dtype=wide.dtype).astype(weight.dtype, copy=False)
    return product


def factor_of_tensor(tensor: StoredTensor, scheme: Scheme) -> float:
    """Return the factor that restores the gain of a tensor that is read as `scheme` says, as a float16 number."""
    if scheme.analog == "none":
        return 1.0
    written = tensor.written(scheme)
    alpha, beta = written.of_each(written.alpha), written.of_each(written.beta)
    analog = np.square((written.level + beta) / alpha, dtype=np.float64).sum()
    whole = np.square(tensor.decode(), dtype=np.float64).sum()
    factor = factor_of(written, estimator(scheme.estimator), max(float(whole - analog), 0.0))
    rounded = float(np.float16(factor))
    return rounded if np.isfinite(rounded) and rounded > 0 else 1.0
