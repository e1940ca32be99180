"""Noise on the weights at every forward pass of training, with a straight-through gradient.

    forward:  w + δ, δ drawn anew at every step     backward: as if δ were not there

The draw depends on (seed, step, parameter name) only, so a killed run resumes with the noise that it would have had.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnx_analog.coding.estimators import Written, estimator
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.planes import Encoded, analog_of, decode, encode, stored_count
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from onnx_analog.randomness import stream

Weights = Mapping[str, NDArray[np.float32]]

_DEAD = 1e-12  # factor of an output channel that training left without effect
MIN_SIZE = 256  # as `onnx_analog.graph.weights.Selection`: smaller tensors stay digital


class Noise(ABC):
    """Noise on the weights of a network in a forward pass."""

    @abstractmethod
    def perturbed(self, weights: Weights, *, seed: int, step: int) -> Weights:
        """Return the weights, of the same names and shapes, as they are read in this step."""

    def scales(self, net: nn.Module) -> Mapping[str, Tensor]:  # noqa: ARG002 - of those that fold
        """Return what parameters are multiplied by before they are stored, and divided by after they are read."""
        return {}

    def identity(self) -> str:
        """Return a text that no other noise has."""
        return repr(self)


@dataclass(frozen=True, kw_only=True)
class WeightNoise(Noise):
    """w + N(0, std²), as in the paper's "KD + Gaussian noise".

    Parameters
    ----------
    std : float, >= 0
        In the unit of the weights.
    """

    std: float

    def __post_init__(self) -> None:
        if not (self.std >= 0 and np.isfinite(self.std)):
            raise OptionError(f"std is {self.std}; it must be 0 or more and finite")

    def perturbed(self, weights: Weights, *, seed: int, step: int) -> Weights:
        """Return the weights with noise of their own; see `Noise`."""
        return {
            name: weight + np.float32(self.std) * _rng(seed, step, name).standard_normal(weight.shape, np.float32)
            for name, weight in weights.items()
        }


@dataclass(frozen=True, kw_only=True)
class ChannelNoise(Noise):
    """Noise of analog memory: weights are written, read and decoded as a scheme describes.

    Parameters
    ----------
    scheme : Scheme
        The default is the paper's adaptive redundancy, with one codebook for all tensors. Output channels lie along
        the first axis of a parameter.

    Raises
    ------
    OptionError
        If the side information of the scheme is read from noisy cells: in training, it is free of error.
    """

    scheme: Scheme = field(default_factory=lambda: Scheme.paper(granularity="model"))

    def __post_init__(self) -> None:
        _check_side(self.scheme)

    def perturbed(self, weights: Weights, *, seed: int, step: int) -> Weights:
        """Return the weights as they are read; see `Noise`."""
        return _read_all(weights, lambda _: self.scheme, seed=seed, step=step)

    def identity(self) -> str:
        """Return a text that no other noise has; see `Noise`."""
        return f"ChannelNoise({self.scheme.digest()})"


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanNoise(Noise):
    """Weights are written, read and decoded as a plan stores them, each tensor by its own scheme; not compensated.

    Parameters
    ----------
    plan : Plan
        Tensors that it leaves digital stay as they are.
    keys : mapping of str to str, optional
        Storage key of each parameter, where it is not the parameter's name.
    norms : mapping of str to str, optional
        For a network that is exported with BatchNorm folded: the BatchNorm after each parameter. A weight is then
        stored as it is folded.

    Raises
    ------
    OptionError
        If the side information of a scheme is read from noisy cells: in training, it is free of error.
    """

    plan: Plan
    keys: Mapping[str, str] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for scheme in self.plan.schemes:
            _check_side(scheme)

    def perturbed(self, weights: Weights, *, seed: int, step: int) -> Weights:
        """Return the weights as they are read; see `Noise`."""
        return _read_all(weights, lambda name: self.plan.scheme_of(self.keys.get(name, name)), seed=seed, step=step)

    def scales(self, net: nn.Module) -> Mapping[str, Tensor]:
        """Return the factor of each output channel that folding multiplies a weight by; see `Noise`."""
        factors = {}
        for name, module in self.norms.items():
            norm = net.get_submodule(module)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_var is not None
            factor = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            factors[name] = torch.where(factor.abs() < _DEAD, 1.0, factor).view(-1, 1, 1, 1)
        return factors

    def identity(self) -> str:
        """Return a text that no other noise has; see `Noise`."""
        return f"PlanNoise({self.plan.digest()}, {sorted(self.keys.items())}, {sorted(self.norms.items())})"


def plan_noise(net: nn.Module, plan: Plan, keys: Mapping[str, str], norms: Mapping[str, str]) -> PlanNoise:
    """Return the noise of a plan for a network, by the names of its parameters or by other storage keys.

    Parameters
    ----------
    net : nn.Module
    plan : Plan
    keys : mapping of str to str
        Storage keys of the parameters in another model, of which the plan may be too.
    norms : mapping of str to str
        As of `PlanNoise`.

    Raises
    ------
    OptionError
        If the plan names tensors that neither has, or has noisy side information.
    """
    choices: tuple[Mapping[str, str], ...] = ({}, keys)
    known = [[names.get(name, name) for name in stored_parameters(net)] for names in choices]
    unused = [plan.unused(each) for each in known]
    best = min(range(len(choices)), key=lambda number: len(unused[number]))  # which the plan is likely to be of
    if not unused[best]:
        return PlanNoise(plan=plan, keys=choices[best], norms=norms)
    plan.check_keys(known[best], "the network")
    missing = unused[best][0]
    raise OptionError(f"the plan's pattern {missing!r} matches no tensor of the network: take a plan of this network")


def _check_side(scheme: Scheme) -> None:
    if scheme.side is not None:
        raise OptionError("training reads signs and classes free of error: choose a scheme without side_channel")


def _read_all(weights: Weights, scheme_of: Callable[[str], Scheme | None], *, seed: int, step: int) -> Weights:
    """Return the weights as they are read; those of one scheme share a codebook if its granularity is the model."""
    groups: dict[Any, tuple[Scheme, list[str]]] = {}
    for name, weight in weights.items():
        scheme = scheme_of(name)
        if scheme is not None and weight.any():
            shared = scheme if scheme.granularity == "model" else (scheme, name)
            groups.setdefault(shared, (scheme, []))[1].append(name)
    read = dict(weights)
    for scheme, names in groups.values():
        for name, stored in zip(names, encode([weights[name] for name in names], scheme), strict=True):
            read[name] = _read(stored, _rng(seed, step, name)).reshape(weights[name].shape)
    return read


def _read(stored: Encoded, rng: np.random.Generator) -> NDArray[np.float32]:
    scheme, group = stored.scheme, stored.planes.group
    level, index, cells = stored.planes.level, stored.planes.class_index, scheme.cells_of_class
    analog = analog_of(index, cells, stored_count(stored.planes))
    index = index if index is None or analog is None else index[analog]
    of_each = cells[0] if index is None else np.array(cells)[index]
    read = scheme.channel.read(level, cells=of_each, rng=rng)
    written = Written(
        level=level,
        class_index=index,
        cells=cells,
        channel=scheme.channel,
        alpha=stored.codebook.alpha,
        beta=stored.codebook.beta,
        group=group if group is None or analog is None else group[analog],
        shared=scheme.shares_tables,
    )
    correct = estimator(scheme.estimator).fitted(written)
    if correct is not None:
        correct(read, slice(0, read.size))
    return decode(stored, read)


def _rng(seed: int, step: int, name: str) -> np.random.Generator:
    return stream(seed, step, name, plane="training")


def stored_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that analog memory would hold: of rank 2 or more, with at least MIN_SIZE weights."""
    return {name: p for name, p in net.named_parameters() if p.dim() >= 2 and p.numel() >= MIN_SIZE}


def forward(net: nn.Module, x: Tensor, noise: Noise | None, *, seed: int, step: int) -> Tensor:
    """Return the outputs of `net` for `x` with its weights perturbed, if there is noise; gradients go straight through.

    Parameters
    ----------
    net : nn.Module
    x : float tensor of shape (n, ...)
    noise : Noise or None
    seed, step : int, >= 0
        The noise depends on these, and the parameters' names, only.
    """
    if noise is None:
        plain: Tensor = net(x)
        return plain
    stored = stored_parameters(net)
    scales = noise.scales(net)
    weights = {name: (p.detach() * scales.get(name, 1.0)).numpy() for name, p in stored.items()}
    read = noise.perturbed(weights, seed=seed, step=step)
    through = {}
    for name, parameter in stored.items():
        perturbed = torch.from_numpy(read[name]) / scales.get(name, 1.0)
        through[name] = parameter + (perturbed - parameter).detach()
    outputs: Tensor = torch.func.functional_call(net, through, (x,))
    return outputs
