"""Protecting a model, with the weights compensated by samples if there are any."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from onnx_analog._inputs import (
    AnyModel,
    AnyPlan,
    Data,
    bare,
    check_function,
    marked_for,
    note_origin,
    reading_compensate,
    selection_of,
    stored_plan,
    warn_of_compensation,
    warn_of_read,
)
from onnx_analog.arguments import DEFAULTS, check_pruning, check_type, checked
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.exclusive import PAPER_CELLS
from onnx_analog.coding.plan import changed_since, marked_for_compensation
from onnx_analog.coding.scheme import STRATEGIES, Paper, Scheme
from onnx_analog.coding.verified import UNKNOWN, input_warnings
from onnx_analog.display import Progress, progress_of, silent
from onnx_analog.graph import files
from onnx_analog.graph.protected import ProtectedModel, just_protected
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import ProtectPass, PrunePass, pipeline
from onnx_analog.settings import takes

logger = logging.getLogger(__name__)


@takes(Paper, Scheme)
def protect(
    model: AnyModel,
    plan: AnyPlan | None = None,
    *,
    integers: int | None = None,
    modifiers: Modifiers = NONE,
    sparsity: float = DEFAULTS.sparsity,
    prune_scope: str = DEFAULTS.prune_scope,
    selection: Selection | None = None,
    compensate: Data | None = None,
    compensate_samples: int | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    command: str | None = None,
    progress: Callable[..., object] = silent,
    **settings: Any,
) -> ProtectedModel:
    """Return a protected copy of a model; without noise it computes what the model did.

    Parameters
    ----------
    model : model
        It is not changed.
    plan : Plan, Scheme, path or "module:function", optional
        How each tensor is stored: a plan, a scheme for all tensors, a plan's JSON file, or a function without arguments
        that returns a plan or a scheme. `modifiers` and `settings` change all its schemes; the paper's settings, but
        for `granularity`, and `integers` cannot be given with it.
    integers : int, 2 to 8, optional
        Quantise to integers of this many bits, without analog cells, in place of the paper's settings.
    modifiers : Modifiers
        Changes to the channel: residuals, shared devices, time of the read, precision. The channel of side information
        gets those that apply to it.
    sparsity : float, 0 <= sparsity < 1
        Share of weights that are pruned first; 0 prunes nothing.
    prune_scope : {"model", "tensor"}
        Whether magnitudes compete over all tensors or within each.
    selection : Selection, optional
        Which tensors.
    compensate : data, optional
        Unlabelled samples. Weights in equal steps without analog cells are then rounded so that they make up for each
        other's errors, as far as the layer's outputs go; see `onnx_analog.coding.compensation`.
    compensate_samples : int, >= 4, optional
        How many of them are used, from the first on; by default as many as when the plan was verified, or 256.
    mean, std, preprocess
        How uint8 images of `compensate` become inputs.
    command : str, optional
        Kept in the manifest.
    progress : function
        Called with what is being done, where it takes long. If it has a parameter `fraction`, it is also called with
        the share of the work that is done, from 0 to 1, or None where that is not known.
    **settings
        Settings of `onnx_analog.Paper` and of `onnx_analog.Scheme`, which list them: `strategy`, `cells_small`,
        `cells_large`, `channel` and others. Those that are None count as left out.

    Raises
    ------
    AnalogError
        As `onnx_analog.passes.ProtectPass` says, and if the parameters contradict each other.

    Examples
    --------
    >>> import onnx_analog as oa
    >>> from onnx_analog.demo import MODEL
    >>> totals = oa.protect(MODEL, cells_small=1, cells_large=20).manifest.totals
    >>> totals.stored_weights, totals.analog_cells, totals.all_in_cells
    (430500, 839475, 1270231)
    """
    arguments = checked(sparsity=sparsity, prune_scope=prune_scope, command=command, integers=integers)
    check_pruning(arguments)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    source = bare(model)
    stored = stored_plan(plan, arguments["integers"], settings, modifiers)
    stored = marked_for(stored, source, pruned=arguments["sparsity"])
    for text in changed_since(stored):
        logger.warning(text)
    _question_cells(settings)
    if compensate is None:
        warn_of_compensation([stored], None)
        stored = marked_for_compensation(stored, None, UNKNOWN)
    samples = reading_compensate(compensate, compensate_samples, mean, std, preprocess, stored)
    check_function("progress", progress)
    step = ProtectPass(plan=stored, selection=selection_of(selection))
    loaded = files.load(source)
    warn_of_read(loaded)
    if arguments["sparsity"]:
        prune = PrunePass(sparsity=arguments["sparsity"], scope=prune_scope, selection=step.selection)
        loaded = pipeline.run([prune], loaded)
    if samples is not None:
        step = _compensated(step, loaded, samples, progress_of(progress))
    note_origin(loaded, source, command)
    return just_protected(pipeline.run(pipeline.protecting(step), loaded))


def _compensated(step: ProtectPass, model: ir.Model, samples: Callable[[Any], Any], progress: Progress) -> ProtectPass:
    """Return a step whose weights make up for each other's rounding errors, as samples of the model tell."""
    from onnx_analog.coding.compensation import check_compensable
    from onnx_analog.run.moments import input_moments, warn_of_left
    from onnx_analog.run.session import Network

    check_compensable("compensate is given", step.plan.schemes)
    data = samples(Network(model).inputs)
    warn_of_compensation([step.plan], len(data))
    for text in [] if step.plan.verified is None else input_warnings(step.plan.verified, data.made):
        logger.warning(text)
    step = replace(step, plan=marked_for_compensation(step.plan, len(data), data.made))
    moments, left = input_moments(model, data, selection=step.selection, running={}, progress=progress)
    warn_of_left(left)
    return replace(step, moments=moments)


def _question_cells(settings: Mapping[str, Any]) -> None:
    """Warn where `cells_large` does the opposite of what it is for."""
    paper = Paper(**{name: settings[name] for name in PAPER_CELLS if settings.get(name) is not None})
    if STRATEGIES[settings.get("strategy") or paper.strategy].adaptive and paper.cells_of_large < paper.cells_small:
        logger.warning(
            "cells_large is %d, below cells_small, %d: large weights get fewer cells than small ones",
            paper.cells_of_large,
            paper.cells_small,
        )
