"""Store the weights of any ONNX model in noisy analog memory.

>>> import onnx_analog as oa
>>> oa.Scheme.paper("redundancy", cells_small=1, cells_large=20)
Scheme('redundancy', cells 1 and 20, share 0.05)

`protect`, `readback` and `evaluate` are the steps; the same steps as graph passes are in `onnx_analog.passes`.
Names are looked up when they are used, so that importing the package, and `onnx-analog --help`, take no time.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx_analog import channels as channels
    from onnx_analog import errors as errors
    from onnx_analog import passes as passes
    from onnx_analog._array import array_statistics as array_statistics
    from onnx_analog._array import compare as compare
    from onnx_analog._array import write_image as write_image
    from onnx_analog._check import check as check
    from onnx_analog._sensitivity import sensitivity as sensitivity
    from onnx_analog._tune import tune as tune
    from onnx_analog.api import account as account
    from onnx_analog.api import evaluate as evaluate
    from onnx_analog.api import inspect as inspect
    from onnx_analog.api import load as load
    from onnx_analog.api import protect as protect
    from onnx_analog.api import prune as prune
    from onnx_analog.api import readback as readback
    from onnx_analog.api import readbacks as readbacks
    from onnx_analog.api import remember as remember
    from onnx_analog.api import sweep as sweep
    from onnx_analog.channels import Channel as Channel
    from onnx_analog.channels import Source as Source
    from onnx_analog.channels import from_pairs as from_pairs
    from onnx_analog.channels import resolve as channel
    from onnx_analog.channels.fitting import Fit as Fit
    from onnx_analog.channels.fitting import fit as fit_channel
    from onnx_analog.channels.modifiers import Modifiers as Modifiers
    from onnx_analog.coding.estimators import Estimator as Estimator
    from onnx_analog.coding.plan import Plan as Plan
    from onnx_analog.coding.scheme import PRESETS as PRESETS
    from onnx_analog.coding.scheme import STRATEGIES as STRATEGIES
    from onnx_analog.coding.scheme import Paper as Paper
    from onnx_analog.coding.scheme import Scheme as Scheme
    from onnx_analog.errors import AnalogError as AnalogError
    from onnx_analog.errors import ChannelError as ChannelError
    from onnx_analog.errors import DataError as DataError
    from onnx_analog.errors import EngineError as EngineError
    from onnx_analog.errors import FunctionError as FunctionError
    from onnx_analog.errors import LevelError as LevelError
    from onnx_analog.errors import ManifestError as ManifestError
    from onnx_analog.errors import MeasurementError as MeasurementError
    from onnx_analog.errors import ModelError as ModelError
    from onnx_analog.errors import NothingToStore as NothingToStore
    from onnx_analog.errors import OptionError as OptionError
    from onnx_analog.errors import OutputError as OutputError
    from onnx_analog.experiment import Experiment as Experiment
    from onnx_analog.graph.manifest import Manifest as Manifest
    from onnx_analog.graph.model import Model as Model
    from onnx_analog.graph.protected import ProtectedModel as ProtectedModel
    from onnx_analog.graph.weights import Selection as Selection
    from onnx_analog.html.report import report as report
    from onnx_analog.results import Inspection as Inspection
    from onnx_analog.results import Perturbed as Perturbed
    from onnx_analog.results import Pruned as Pruned
    from onnx_analog.results import Swept as Swept
    from onnx_analog.run.array_comparison import Comparison as Comparison
    from onnx_analog.run.array_statistics import ArrayStatistics as ArrayStatistics
    from onnx_analog.run.data import Dataset as Dataset
    from onnx_analog.run.evaluation import Evaluation as Evaluation
    from onnx_analog.study import engines as engines
    from onnx_analog.study.engines import Engine as Engine
    from onnx_analog.study.sweeps import Point as Point
    from onnx_analog.tuning.checked import Checked as Checked
    from onnx_analog.tuning.harm import Harms as Harms
    from onnx_analog.tuning.result import Tuned as Tuned

    __version__: str

# onnxruntime reads it once, when it is loaded: without it, it sends usage data. docs/security.md tells more.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "AnalogError": "errors.AnalogError",
    "ArrayStatistics": "run.array_statistics.ArrayStatistics",
    "Channel": "channels.Channel",
    "ChannelError": "errors.ChannelError",
    "Checked": "tuning.checked.Checked",
    "Comparison": "run.array_comparison.Comparison",
    "DataError": "errors.DataError",
    "Dataset": "run.data.Dataset",
    "Engine": "study.engines.Engine",
    "EngineError": "errors.EngineError",
    "FunctionError": "errors.FunctionError",
    "Estimator": "coding.estimators.Estimator",
    "Evaluation": "run.evaluation.Evaluation",
    "Experiment": "experiment.Experiment",
    "Fit": "channels.fitting.Fit",
    "Harms": "tuning.harm.Harms",
    "Inspection": "results.Inspection",
    "LevelError": "errors.LevelError",
    "Manifest": "graph.manifest.Manifest",
    "ManifestError": "errors.ManifestError",
    "Model": "graph.model.Model",
    "MeasurementError": "errors.MeasurementError",
    "ModelError": "errors.ModelError",
    "Modifiers": "channels.modifiers.Modifiers",
    "NothingToStore": "errors.NothingToStore",
    "OptionError": "errors.OptionError",
    "OutputError": "errors.OutputError",
    "PRESETS": "coding.scheme.PRESETS",
    "Paper": "coding.scheme.Paper",
    "Perturbed": "results.Perturbed",
    "Plan": "coding.plan.Plan",
    "Point": "study.sweeps.Point",
    "ProtectedModel": "graph.protected.ProtectedModel",
    "Pruned": "results.Pruned",
    "STRATEGIES": "coding.scheme.STRATEGIES",
    "Scheme": "coding.scheme.Scheme",
    "Selection": "graph.weights.Selection",
    "Source": "channels.Source",
    "Swept": "results.Swept",
    "Tuned": "tuning.result.Tuned",
    "account": "api.account",
    "array_statistics": "_array.array_statistics",
    "channel": "channels.resolve",
    "check": "_check.check",
    "compare": "_array.compare",
    "evaluate": "api.evaluate",
    "fit_channel": "channels.fitting.fit",
    "from_pairs": "channels.from_pairs",
    "inspect": "api.inspect",
    "load": "api.load",
    "protect": "api.protect",
    "prune": "api.prune",
    "readback": "api.readback",
    "readbacks": "api.readbacks",
    "remember": "api.remember",
    "report": "html.report.report",
    "sensitivity": "_sensitivity.sensitivity",
    "sweep": "api.sweep",
    "tune": "_tune.tune",
    "write_image": "_array.write_image",
}
_MODULES = {
    "channels": "channels",
    "engines": "study.engines",
    "errors": "errors",
    "passes": "passes",
}

__all__ = [
    "PRESETS",
    "STRATEGIES",
    "AnalogError",
    "ArrayStatistics",
    "Channel",
    "ChannelError",
    "Checked",
    "Comparison",
    "DataError",
    "Dataset",
    "Engine",
    "EngineError",
    "Estimator",
    "Evaluation",
    "Experiment",
    "Fit",
    "FunctionError",
    "Harms",
    "Inspection",
    "LevelError",
    "Manifest",
    "ManifestError",
    "MeasurementError",
    "Model",
    "ModelError",
    "Modifiers",
    "NothingToStore",
    "OptionError",
    "OutputError",
    "Paper",
    "Perturbed",
    "Plan",
    "Point",
    "ProtectedModel",
    "Pruned",
    "Scheme",
    "Selection",
    "Source",
    "Swept",
    "Tuned",
    "__version__",
    "account",
    "array_statistics",
    "channel",
    "channels",
    "check",
    "compare",
    "engines",
    "errors",
    "evaluate",
    "fit_channel",
    "from_pairs",
    "inspect",
    "load",
    "passes",
    "protect",
    "prune",
    "readback",
    "readbacks",
    "remember",
    "report",
    "sensitivity",
    "sweep",
    "tune",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("onnx-analog")
    if name in _MODULES:
        return import_module(f"onnx_analog.{_MODULES[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].rpartition(".")
    return getattr(import_module(f"onnx_analog.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
