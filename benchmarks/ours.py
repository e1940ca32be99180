"""Measures onnx-analog: whole trials, and reading and decoding alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple

import onnx_ir as ir

from onnx_analog.graph.protected import open_protected
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.metrics import top1
from onnx_analog.run.read import Decoder, read_all
from onnx_analog.run.session import Network

THREADS = 1  # as in a worker of a sweep

Action = Callable[[], Any]


class Measured(NamedTuple):
    """Actions to time, on one protected model and its data."""

    trial: Action
    inference: Action  # without noise


def measured(protected: ir.Model, data: Dataset) -> Measured:
    """Return a trial and clean inference; what does not depend on the trial is done before."""
    network = Network(open_protected(protected), threads=THREADS)
    trials = Experiment(protected, data, top1, threads=THREADS).trials()
    return Measured(lambda: trials.run(seed=0, trial=0), lambda: network.run(data))


def reading(protected: ir.Model, threads: Executor | None = None) -> Action:
    """Return an action that reads and decodes all weights, by storage key."""
    decoders = {tensor.key: Decoder(tensor) for tensor in open_protected(protected).tensors}
    return lambda: read_all(decoders, seed=0, trial=0, threads=threads)


def with_weights(protected: ir.Model, data: Dataset) -> tuple[Action, dict[str, Any]]:
    """Return an action that runs the network with one trial's weights, and those weights by name."""
    network = Network(open_protected(protected), threads=THREADS)
    decoders = {name: Decoder(tensor) for name, tensor in network.tensors.items()}
    weights = read_all(decoders, seed=0, trial=0)
    return lambda: network.run(data, weights), weights
