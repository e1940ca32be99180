"""Store the weights of any ONNX model in noisy analog memory.

>>> import onnx_analog as oa
>>> oa.PRESETS["isik2020"]
Preset(granularity='model', large_fraction=0.0025)

`protect`, `readback` and `evaluate` are the steps; the same steps as graph passes are in `onnx_analog.passes`.
Names are looked up when they are used, so that importing the package, and `onnx-analog --help`, take no time.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_analog.api import account as account
    from onnx_analog.api import evaluate as evaluate
    from onnx_analog.api import inspect as inspect
    from onnx_analog.api import protect as protect
    from onnx_analog.api import prune as prune
    from onnx_analog.api import readback as readback
    from onnx_analog.api import readbacks as readbacks
    from onnx_analog.api import sweep as sweep
    from onnx_analog.channels import resolve as channel
    from onnx_analog.coding.scheme import PRESETS as PRESETS
    from onnx_analog.coding.scheme import STRATEGIES as STRATEGIES
    from onnx_analog.graph.weights import Selection as Selection

# onnxruntime reads it once, when it is loaded: without it, it sends usage data. docs/security.md tells more.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "PRESETS": "coding.scheme.PRESETS",
    "STRATEGIES": "coding.scheme.STRATEGIES",
    "Selection": "graph.weights.Selection",
    "account": "api.account",
    "channel": "channels.resolve",
    "engines": "study.engines",
    "evaluate": "api.evaluate",
    "inspect": "api.inspect",
    "protect": "api.protect",
    "prune": "api.prune",
    "readback": "api.readback",
    "readbacks": "api.readbacks",
    "sweep": "api.sweep",
}

_MODULES = ("engines",)

__all__ = [
    "PRESETS",
    "STRATEGIES",
    "Selection",
    "account",
    "channel",
    "engines",
    "evaluate",
    "inspect",
    "protect",
    "prune",
    "readback",
    "readbacks",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package, _, attribute = _HOMES[name].rpartition(".")
    if name == attribute and name in _MODULES:
        return import_module(f"onnx_analog.{package}.{attribute}")
    return getattr(import_module(f"onnx_analog.{package}"), attribute)


def __dir__() -> list[str]:
    return __all__
