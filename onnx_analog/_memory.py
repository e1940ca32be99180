"""A model and how its memory is read, as `check` and `sensitivity` take them: stored already, or to be stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from onnx_analog._inputs import (
    AnyChannel,
    AnyModel,
    AnyPlan,
    channel_of,
    check_not_read,
    check_scheme_settings,
    load_model,
    marked_for,
    selection_of,
    stored_plan,
    warn_of_compensation,
)
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.coding.compensation import check_compensable
from onnx_analog.coding.plan import Plan
from onnx_analog.errors import OptionError
from onnx_analog.graph.stored import is_protected
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import PrunePass, pipeline


class Memory(NamedTuple):
    """A model, and how its memory is written and read.

    Attributes
    ----------
    model : model
        Pruned, if that was asked for.
    reference : model or None
        The original, from which losses are counted; of a plain model that is not pruned, it is the model itself.
    read : mapping of str to object
        Arguments of `Experiment.trials`: a plan and a selection, or what a protected model is read through.
    name : str or None
        Of the model's file.
    plan : Plan or None
        As it was given. What verified it may not hold here, and still tells by how many samples to correct.
    """

    model: Any
    reference: AnyModel | None
    read: Mapping[str, Any]
    name: str | None
    plan: Plan | None


def memory_of(
    model: AnyModel,
    *,
    plan: AnyPlan | None,
    channel: AnyChannel | None,
    reference: AnyModel | None,
    integers: int | None,
    modifiers: Modifiers,
    sparsity: float,
    prune_scope: str,
    selection: Selection | None,
    compensate: object,
    settings: Mapping[str, Any],
) -> Memory:
    """Return a model and how its memory is read, from what `onnx_analog.check` takes.

    Raises
    ------
    OptionError
        If the model was read back, protected or decoded; if it is protected, and an argument says how to store it; or
        if arguments contradict each other.
    """
    check_scheme_settings(settings)
    name = Path(model).name if isinstance(model, str | os.PathLike) else None
    loaded, resolved = load_model(model), channel_of(channel)
    check_not_read(loaded)
    storing = {"plan": plan, "integers": integers, "sparsity": sparsity or None, **settings}
    if is_protected(loaded):
        _check_unused({**storing, "selection": selection, "compensate": compensate})
        return Memory(loaded, reference, {"channel": resolved, "modifiers": modifiers}, name, None)
    given = stored_plan(plan, integers, {**settings, "channel": resolved}, modifiers)
    stored = marked_for(given, model, pruned=sparsity)
    if compensate is None:
        warn_of_compensation([stored], None)
    else:
        check_compensable("compensate is given", stored.schemes)
    read: dict[str, Plan | Selection] = {"plan": stored, "selection": selection_of(selection)}
    if sparsity:
        reference = loaded if reference is None else reference
        step = PrunePass(sparsity=sparsity, scope=prune_scope, selection=selection_of(selection))
        loaded = pipeline.run([step], loaded.clone())
    return Memory(loaded, reference, read, name, given)


def _check_unused(storing: Mapping[str, Any]) -> None:
    """Raise `OptionError` if an argument says how to store a model that is stored already."""
    name = next((name for name, value in storing.items() if value is not None), None)
    if name is not None:
        name = "a selection of tensors" if name == "selection" else name
        raise OptionError(f"{name} is given, and the model is protected already: leave it out, or give the original")
