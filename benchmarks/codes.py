"""Measures the cost of the members of the family: of protecting, of encoding alone, and of reading in each trial."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import MappingProxyType
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from benchmarks.networks import pictures, trained
from benchmarks.ours import measured
from benchmarks.timing import PAIRS, ratio
from onnx_analog import api
from onnx_analog.coding.planes import encode, stored_count
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import index_streams
from onnx_analog.graph.protected import open_protected
from onnx_analog.run.data import Dataset

Row = dict[str, float]

PAPER = Scheme.paper("redundancy")
MEMBERS = MappingProxyType(
    {
        "raw": Scheme.paper("raw"),
        "mapping": Scheme.paper("mapping"),
        "4 classes by share": Scheme(classes=4, shares=(0.3, 0.2, 0.1), cells=(1,)),
        "16 classes by Lloyd's method": Scheme(classes=16, partition="lloyd", cells=(1,)),
        "int8 per tensor": Scheme.int8(),
        "int8 per channel": Scheme.int8(granularity="channel"),
        "redundancy per channel": Scheme.paper("redundancy", granularity="channel"),
        "redundancy, entropy static": Scheme.paper("redundancy", entropy="static"),
        "entropy-coded 0.5, static": Scheme.entropy_coded(0.5, entropy="static"),
        "entropy-coded 0.5": Scheme.entropy_coded(0.5),
        "entropy-coded 0.5, rate_weight 0.1": Scheme.entropy_coded(0.5, rate_weight=0.1),
        "refined 1": Scheme.refined(1),
    }
)
SLOWEST = ("int8 per channel", "entropy-coded 0.5", "entropy-coded 0.5, rate_weight 0.1", "refined 1")
READ = MappingProxyType(
    {
        "estimator affine": PAPER,
        "estimator clipped": PAPER.changed(estimator="clipped"),
        "estimator posterior": PAPER.changed(estimator="posterior"),
        "estimator unbiased": PAPER.changed(estimator="unbiased"),
        "redundancy, entropy context": Scheme.paper("redundancy", entropy="context"),
        "entropy-coded 0.5": Scheme.entropy_coded(0.5),
        "refined 1": Scheme.refined(1),
    }
)


@cache
def _network() -> ir.Model | None:
    return trained("resnet20-cifar10.onnx")


def protecting(scheme: Scheme, model: ir.Model | None = None, pairs: int = PAIRS) -> Row | None:
    """Return what `protect` takes with a scheme against the paper's redundancy; None without a model.

    The manifest is included; the model is not saved. It is the trained ResNet-20 unless it is given.
    """
    model = _network() if model is None else model
    if model is None:
        return None
    return ratio(lambda: api.protect(model, scheme), lambda: api.protect(model, PAPER), pairs)


def encoding(scheme: Scheme, weights: Iterable[NDArray[Any]] | None = None, pairs: int = PAIRS) -> Row | None:
    """Return encoding weights with a scheme, streams included, against the paper's redundancy; None without weights.

    The weights are those of the trained ResNet-20, 268,336 in 20 tensors, unless they are given.
    """
    model = _network()
    if weights is None:
        if model is None:
            return None
        weights = _weights(model)
    given = list(weights)
    return ratio(lambda: encode_all(given, scheme), lambda: encode_all(given, PAPER), pairs)


def _weights(model: ir.Model) -> list[NDArray[Any]]:
    tensors = open_protected(api.protect(model, PAPER).model).tensors
    return [tensor.decode() for tensor in tensors]


def encode_all(weights: Iterable[NDArray[Any]], scheme: Scheme) -> int:
    """Return the bits of the digital streams of classes and masks."""
    bits = 0
    for weight in weights:
        (stored,) = encode([weight], scheme)
        planes = stored.planes
        streams = index_streams(scheme, weight.shape, stored_count(planes), planes.class_index, planes.mask)
        bits += sum(stream.bits for stream in streams)
    return bits


def trial(scheme: Scheme, model: ir.Model | None = None, count: int = 2000, pairs: int = 9) -> Row | None:
    """Return a trial of `count` images against clean inference of them; None without a model.

    The model is the trained ResNet-20 unless it is given.
    """
    model = _network() if model is None else model
    if model is None:
        return None
    value = model.graph.inputs[0]
    shape = [int(side) for side in list(value.shape or ())[1:] if isinstance(side, int)]
    images = pictures(count, tuple(shape))
    ours = measured(api.protect(model, scheme).model, Dataset({str(value.name): images.inputs["input"]}, images.labels))
    return ratio(ours.trial, ours.inference, pairs)
