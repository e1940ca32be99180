"""Measures what the members of the family cost: to protect with, to encode alone, and to read in each trial."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import onnx_ir as ir
from numpy.typing import NDArray

from benchmarks.networks import pictures, trained
from benchmarks.ours import measured
from benchmarks.timing import PAIRS, ratio
from onnx_analog import api
from onnx_analog.coding import entropy
from onnx_analog.coding.planes import encode, stored_count
from onnx_analog.coding.range_coder import encoded_runs
from onnx_analog.coding.runs import Run
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import index_streams
from onnx_analog.graph import files
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
IMAGES = (500, 2000)  # of a trial
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


@cache
def pruned() -> ir.Model | None:
    """Return the trained, pruned ResNet-18: 2.2 of 11.2 million weights are left; None without its file."""
    return trained("resnet18-cifar10-pruned.onnx")


def protecting(scheme: Scheme, model: ir.Model | None = None, pairs: int = PAIRS) -> Row | None:
    """Return the time of `protect` with a scheme, relative to the paper's redundancy; None if there is no model.

    It includes the manifest, but not saving. The default model is the trained ResNet-20.
    """
    model = _network() if model is None else model
    if model is None:
        return None
    return ratio(lambda: api.protect(model, scheme), lambda: api.protect(model, PAPER), pairs)


def from_file_to_file(scheme: Scheme, model: ir.Model, folder: Path, pairs: int = PAIRS) -> Row:
    """Return the time to load, protect with a scheme and save, relative to the same with the paper's redundancy."""
    path = folder / "model.onnx"
    files.write_model(model, path)

    def protect(which: Scheme) -> None:
        api.protect(path, which).save(folder / "out.onnx", force=True)

    return ratio(lambda: protect(scheme), lambda: protect(PAPER), pairs)


def encoding(scheme: Scheme, weights: Iterable[NDArray[Any]] | None = None, pairs: int = PAIRS) -> Row | None:
    """Return the time to encode weights and streams, relative to the paper's redundancy; None if there are no weights.

    The default weights are those of the trained ResNet-20: 268,336 in 20 tensors.
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


def coding(scheme: Scheme, model: ir.Model, pairs: int = PAIRS) -> Row:
    """Return the time that the range coder needs for the streams alone, relative to all of the paper's redundancy.

    It is the least time in which any way to encode writes the same streams: everything else is done already.
    """
    given, segments = _weights(model), list[tuple[list[Any], list[Run]]]()

    def recorded(tables: list[Any], runs: Iterable[Run]) -> NDArray[Any]:
        segments.append((tables, list(runs)))
        return encoded_runs(*segments[-1])

    with mock.patch.object(entropy, "encoded_runs", recorded):
        encode_all(given, scheme)
    return ratio(lambda: [encoded_runs(*each) for each in segments], lambda: encode_all(given, PAPER), pairs)


def trial(scheme: Scheme, count: int, model: ir.Model | None = None, pairs: int = 9) -> Row | None:
    """Return the time of a trial with `count` images, relative to inference of them; None if there is no model.

    The default model is the trained ResNet-20.
    """
    model = _network() if model is None else model
    if model is None:
        return None
    value = model.graph.inputs[0]
    shape = [int(side) for side in list(value.shape or ())[1:] if isinstance(side, int)]
    images = pictures(count, tuple(shape))
    ours = measured(api.protect(model, scheme).model, Dataset({str(value.name): images.inputs["input"]}, images.labels))
    return ratio(ours.trial, ours.inference, pairs)
