"""What must not change, whatever the program looks like inside: planes, totals, and the weights of trials 0 and 1.

`invariants.json` holds digests that the first version of the program gave. They are of bytes, so they hold on machines
whose numpy draws and rounds alike; that is what "the same call, the same bytes" promises.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.coding.scheme import PRESETS, STRATEGIES
from onnx_analog.graph.stored import stored_tensors
from tests.models import numbers

KNOWN = Path(__file__).with_name("invariants.json")
LENET = tuple(
    (strategy, preset, sparsity, channel, header)
    for strategy, preset, sparsity, (channel, header) in itertools.product(
        STRATEGIES, PRESETS, (0.0, 0.8), (("pcm", None), ("gaussian:sigma=0.05", None), ("pcm", "rram-wan"))
    )
)
RESNET = tuple((strategy, preset, 0.0, "pcm", None) for strategy, preset in itertools.product(STRATEGIES, PRESETS))


def name_of(network: str, setting: tuple[Any, ...]) -> str:
    return " ".join(map(str, (network, *setting)))


def known(network: str, setting: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(KNOWN.read_text(encoding="utf-8"))[name_of(network, setting)]
    return found


def summary(path: Path, setting: tuple[Any, ...]) -> dict[str, Any]:
    """Return the totals of the manifest, a digest of all planes, and one of all weights in each of two trials."""
    strategy, preset, sparsity, channel, header = setting
    made = oa.protect(path, strategy=strategy, preset=preset, sparsity=sparsity, channel=channel, side_channel=header)
    planes = {tensor.key: tensor.digests() for tensor in stored_tensors(made.model)}
    totals = made.manifest.totals.to_dict()
    trials = [oa.readback(made.model, seed=1, trial=trial, decoded=True).model for trial in (0, 1)]
    values = [[numbers(model, key) for key in sorted(planes)] for model in trials]
    return {
        "planes": digest(json.dumps(planes, sort_keys=True).encode()),
        "all_in_cells": totals["all_in_cells"],
        "analog_cells": totals["analog_cells"],
        "weights": [digest(b"".join(np.ascontiguousarray(v).tobytes() for v in one)) for one in values],
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@pytest.mark.parametrize("setting", LENET, ids=lambda setting: " ".join(map(str, setting)))
def test_lenet_is_stored_and_read_as_ever(setting):
    assert summary(demo.MODEL, setting) == known("lenet", setting)


@pytest.mark.parametrize("setting", RESNET, ids=lambda setting: " ".join(map(str, setting)))
def test_resnet20_is_stored_and_read_as_ever(setting, trained_model):
    assert summary(trained_model("resnet20-cifar10.onnx"), setting) == known("resnet20", setting)


def test_another_preset_or_trial_is_noticed():
    setting = ("sign", "default", 0.0, "pcm", None)
    found = summary(demo.MODEL, setting)
    other = summary(demo.MODEL, ("sign", "isik2020", 0.0, "pcm", None))
    assert found["planes"] != other["planes"]
    assert found["weights"][0] != found["weights"][1]
