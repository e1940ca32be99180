"""An experiment of a user: whatever names a model, data and a metric becomes what `run.experiment` takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnx_analog._inputs import (
    AnyModel,
    AnyPlan,
    Data,
    check_data,
    compensating,
    correcting,
    dataset_of,
    load_model,
    metric_of,
    original_of,
    plan_of,
    preprocessing_of,
)
from onnx_analog.arguments import DEFAULTS, check_type, checked
from onnx_analog.display import counted
from onnx_analog.errors import one_line
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.stored import is_protected
from onnx_analog.run import experiment, metrics
from onnx_analog.settings import keywords


class Experiment(experiment.Experiment):
    """A model, data and a metric, opened once: `score` returns how well the model works under a plan.

    Metrics compare with the outputs of the original: of the reference or, without one, of the model if it is plain.
    Those of a protected model without a reference are compared with its own, read without noise. They are computed
    once. Plans that differ in cells, channel or side information only share what they write. One thread may use it at a
    time.

    Parameters
    ----------
    model : model
        A plain model, which plans protect, or a protected one. It is not changed.
    data, reference, correct, correct_samples, compensate, compensate_samples, mean, std, preprocess, metric
    output, class_axis, samples, batch, providers, threads, clean
        As in `onnx_analog.evaluate` and `onnx_analog.protect`.
    plan : Plan, Scheme, path or "module:function", optional
        One that will be scored: as many samples correct and compensate as when it was verified, unless that is given.

    Raises
    ------
    OptionError
        If an argument is of another type or out of its range.
    ModelError
        If the model cannot be run.
    DataError
        If the data do not fit the model, or do not say what is to be measured.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog import demo
    >>> experiment = oa.Experiment(demo.MODEL, demo.IMAGES, samples=100)
    >>> score = experiment.score(oa.Scheme.int8(), trials=1)
    >>> score.metric, score.stored - score.values[0]
    ('top1', 0.0)
    """

    @keywords
    def __init__(
        self,
        model: AnyModel,
        data: Data,
        metric: str | metrics.Function | None = None,
        *,
        reference: AnyModel | None = None,
        correct: Data | None = None,
        correct_samples: int | None = None,
        compensate: Data | None = None,
        compensate_samples: int | None = None,
        plan: AnyPlan | None = None,
        mean: float | Iterable[float] | None = None,
        std: float | Iterable[float] | None = None,
        preprocess: str | None = None,
        output: str | None = None,
        class_axis: int | None = None,
        samples: int | None = None,
        batch: int = DEFAULTS.batch,
        providers: str | Sequence[str] = DEFAULTS.providers,
        threads: int = DEFAULTS.threads,
        clean: list[Any] | None = None,
    ) -> None:
        arguments = checked(
            output=output, class_axis=class_axis, samples=samples, batch=batch, providers=providers, threads=threads
        )
        check_type("clean", clean, list | None, "a list of outputs or None")
        preprocessing = preprocessing_of(mean, std, preprocess)
        named = metric_of(metric)
        check_data(data)
        samples = arguments.pop("samples")
        loaded = _loaded(model)
        plans = [*([loaded.plan] if isinstance(loaded, ProtectedModel) else []), *([plan_of(plan)] if plan else [])]
        super().__init__(
            loaded,
            lambda inputs: dataset_of(data, inputs, preprocessing, samples),
            named,
            clean=clean,
            reference=None if reference is None else original_of(reference),
            correct=correcting(correct, correct_samples, preprocessing, plans),
            compensate=compensating(compensate, compensate_samples, preprocessing, plans),
            name=Path(model).name if isinstance(model, str | os.PathLike) else None,
            **arguments,
        )

    def __repr__(self) -> str:
        kind = "plain" if self._protected is None else "protected"
        model = self.name or self._model.graph.name or "a model without a name"
        text = f"{model}, {kind}, {self.chosen.metric.name} on {counted(len(self.data), 'sample')}"
        return f"<Experiment: {one_line(text, 200)}>"


class ScoresFirst(Experiment):
    """An experiment whose metric, where none is given, reads scores or numbers if any output holds them."""

    scores_first = True


def _loaded(model: AnyModel) -> ir.Model | ProtectedModel:
    """Return a plain model, or a protected one, opened; warn if nothing guards its planes."""
    loaded = load_model(model)
    if not is_protected(loaded):
        return loaded
    protected = open_protected(loaded)
    protected.warn_unless_guarded()
    return protected
