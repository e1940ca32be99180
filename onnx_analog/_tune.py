"""`tune` as users call it: paths, arrays and names become a search and its answer."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_analog import channels
from onnx_analog._inputs import (
    NAME_ORIGINAL,
    AnyChannel,
    AnyModel,
    AnyPlan,
    Data,
    bare,
    check_data,
    check_function,
    check_not_read,
    dataset_of,
    load_model,
    metric_of,
    model_digest,
    note_origin,
    plan_of,
    preprocessing_of,
    selection_of,
    warn_of_replaced,
)
from onnx_analog.arguments import DEFAULTS, check_type, checked
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.display import progress_of, silent
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.graph import files
from onnx_analog.graph.stored import is_protected
from onnx_analog.graph.weights import Selection
from onnx_analog.heard import with_warnings
from onnx_analog.results import Paths
from onnx_analog.settings import check_values, keywords, settings_of

if TYPE_CHECKING:
    from onnx_analog.run import metrics
    from onnx_analog.study.engines import Engine
    from onnx_analog.tuning.answers import Answer, Goal
    from onnx_analog.tuning.measures import Measures
    from onnx_analog.tuning.result import Tuned


logger = logging.getLogger(__name__)

_RANKS = {False: 0, None: 1, True: 2}  # of what is known of a goal
_RECORDED = ("decoding", "confidence", "seed", "model_sha256", "data_sha256")  # in the plan
OF_MEASUREMENTS = ("decoding", "correction", "seed", "output", "class_axis", "batch")


@keywords
@with_warnings
def tune(
    model: AnyModel,
    data: Data,
    *,
    max_drop: float | None = None,
    min_sqnr: float | None = None,
    budget: float | None = None,
    channel: AnyChannel = channels.DEFAULT,
    decoding: str = DEFAULTS.decoding,
    counting: str = DEFAULTS.counting,
    correction: bool = DEFAULTS.correction,
    mask_seed: int | None = None,
    plan: AnyPlan | None = None,
    confidence: float = DEFAULTS.confidence,
    modifiers: Modifiers = NONE,
    selection: Selection | None = None,
    trials: int = DEFAULTS.tune_trials,
    seed: int = DEFAULTS.seed,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    metric: str | metrics.Function | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    samples: int | None = None,
    batch: int = DEFAULTS.batch,
    providers: Any = DEFAULTS.providers,
    threads: int = DEFAULTS.threads,
    engine: str | Engine = "serial",
    resume: Paths | None = None,
    progress: Callable[..., object] = silent,
) -> Tuned:
    """Return the cheapest way to keep a network in a memory, beside the best digital rival.

    Sensitivities of all tensors are measured, the cells and the error of many schemes for each tensor computed, and
    cells allocated to where they lower the loss most. What is found is verified on samples that nothing else has seen.

    Parameters
    ----------
    model : model
        Not protected.
    data : path of an npz file, mapping of name to array, (x, y), x, or Dataset
        Labels may be missing: then outputs are compared with those of the original.
    max_drop : float, > 0, optional
        The most that may be lost, in percentage points of the metric.
    min_sqnr : float, >= 0, optional
        The least ratio of signal to noise in the outputs, in dB, in place of `max_drop`: for outputs without classes,
        as of regressions. The metric is then sqnr_db.
    budget : float, > 0, optional
        The most cells per original weight, in place of both.
    channel : channel
        The memory.
    modifiers : Modifiers
        Changes to it.
    decoding : {"none", "table", "hard", "soft"}
        The most that decoding may take: see `onnx_analog.coding.streams`. What "soft" rests on is assumed.
    counting : {"memory", "paper"}
        Cells that are saved, and that a budget is in: as the memory allows, or as the paper counts.
    correction : bool
        Correct what was read by a few of the samples, without their labels; its numbers are counted.
    mask_seed : int, 0 to 2^32 - 1, optional
        Seed that is stored in place of the masks that follow from it; the other tensors are stored as without it.
    plan : Plan, Scheme, path or "module:function", optional
        One that the search considers too, as that with which the weights were trained: as a whole, with its weights
        rounded together and each alone, and its scheme among the candidates of each tensor. It is in the channel and
        with the code of the search.
    confidence : float, 0.5 to 1
        Of the verification.
    trials : int, >= 2
        Reads of each plan that is tried.
    selection, seed, mean, std, preprocess, metric, output, class_axis, samples, batch, providers, threads
        As in `evaluate` and `protect`.
    engine : str or Engine
        Where tensors and trials are measured: "serial" (in this process, on all cores), "local" (in processes of this
        machine), "dask" or "ray"; or an engine of `onnx_analog.engines.build`. The answer does not depend on it.
    resume : path, optional
        File that keeps what is measured. A search that was stopped goes on from it, and one with another goal uses it.
    progress : function
        Called with what is being done. If it has a parameter `fraction`, it is also called with the share of the
        expected time that has passed, from 0 to 1; and if it has a parameter `left`, with the seconds that are likely
        left.

    Raises
    ------
    OptionError
        If an argument is out of its range, not one of `max_drop`, `min_sqnr` and `budget` is given, or the model was
        read back.
    DataError
        If the data are too few, or do not fit the model.
    ModelError
        If the model is protected, or nothing of it can be stored.
    EngineError
        If workers die again and again.
    """
    given = checked(
        max_drop=max_drop, min_sqnr=min_sqnr, budget=budget, decoding=decoding, counting=counting,
        correction=correction, confidence=confidence, tune_trials=trials, seed=seed, output=output,
        class_axis=class_axis, samples=samples, batch=batch, providers=providers, threads=threads,
    )  # fmt: skip
    check_function("progress", progress)
    check_type("resume", resume, str | os.PathLike | None, "a path or None")
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    check_data(data)
    metric = "sqnr_db" if metric is None and min_sqnr is not None else metric
    preprocessing, named = preprocessing_of(mean, std, preprocess), metric_of(metric)
    resolved = modifiers.apply(channels.resolve(channel))
    given |= check_values(Scheme, {"mask_seed": mask_seed})
    own = None if plan is None else plan_of(plan)
    considered = None if own is None else _in_channel(own, resolved)
    selected, plain = selection_of(selection), load_model(model)
    check_not_read(plain, NAME_ORIGINAL)
    if is_protected(plain):
        raise ModelError("the model is protected already: tune the original")
    plain = plain.clone()
    note_origin(plain, bare(model))

    from onnx_analog.blas import one_blas_thread
    from onnx_analog.run._doubts import check_above_chance
    from onnx_analog.run.session import Network
    from onnx_analog.study import engines
    from onnx_analog.study.worker import Packed, versions
    from onnx_analog.tuning.answers import Goal
    from onnx_analog.tuning.journal import Journal, held
    from onnx_analog.tuning.measures import Measures
    from onnx_analog.tuning.parts import check_count, parts_of

    check_count(given["samples"])
    running_on = engines.engine_of(engine, threads=given["threads"] or None)
    share = None if max_drop is None else given["max_drop"] / 100
    goal = Goal(max_drop=share, min_sqnr_db=given["min_sqnr"], budget=given["budget"])
    running = {name: given[name] for name in ("providers", "threads")}
    samples_of = dataset_of(data, Network(plain, **running).inputs, preprocessing, given["samples"])
    facts: dict[str, Any] = {}
    if resume is not None:
        facts = {
            "model": Packed.of(plain).digest(), "data": samples_of.digest(),
            "samples": len(samples_of), "inputs": samples_of.preprocessing, "channel": resolved.to_dict(),
            "selection": {name: getattr(selected, name) for name in settings_of(Selection)}, "metric": str(metric),
            "trials": given["tune_trials"], **{name: given[name] for name in OF_MEASUREMENTS}, "versions": versions(),
            "source": _sources(resolved),
        }  # fmt: skip
    path = None if resume is None else Path(resume)
    with held(path), one_blas_thread(), running_on:
        measures = Measures(
            plain,
            parts_of(samples_of, given["seed"]),
            resolved,
            given["decoding"],
            options={"metric": named, **{name: given[name] for name in ("output", "class_axis", "batch")}, **running},
            selection=selected,
            counting=given["counting"],
            correct=given["correction"],
            seed=given["seed"],
            trials=given["tune_trials"],
            mask_seed=given["mask_seed"],
            plan=considered,
            goal=goal,
            journal=Journal(path, facts),
            engine=running_on,
            progress=progress_of(progress),
        )
        check_above_chance(measures.chosen, measures.verified_on, measures.original_value, measures.warnings)
        for text in measures.warnings:
            logger.warning(text)
        digest = files.file_digest(data) if isinstance(data, str | os.PathLike) else None
        known = {
            "inputs": samples_of.made, "model_sha256": model_digest(model), "data_sha256": digest,
            "given_plan_used_these_data": own is not None and _used(own, digest),
        }  # fmt: skip
        return _tuned(measures, goal, str(resolved), {**given, **known})


def _used(plan: Plan, data_sha256: str | None) -> bool | None:
    """Return whether a plan is of a search with the same data; None where either were no file, so nobody can tell."""
    if plan.verified is None:
        return False
    known = plan.verified.data_sha256 is not None and data_sha256 is not None
    return plan.verified.data_sha256 == data_sha256 if known else None


def _in_channel(plan: Plan, channel: Channel) -> Plan:
    """Return a plan in the channel of the search; what that replaces is said."""
    changed = plan.changed(channel=channel)
    warn_of_replaced(plan, changed, ["channel"])
    return changed


def _tuned(measures: Measures, goal: Goal, channel: str, given: Mapping[str, Any]) -> Tuned:
    """Return the best plan of a search, and the best digital rival."""
    from onnx_analog.tuning.answers import Goal
    from onnx_analog.tuning.record import recorded
    from onnx_analog.tuning.result import Tuned
    from onnx_analog.tuning.search import Search, is_digital

    search = Search(measures, given["confidence"])
    measures.question = f"{goal}, confidence {given['confidence']}"
    _ = measures.sensitivity, measures.candidates
    best = search.best(goal)
    measures.steps.end("comparison")  # what it takes is known better now
    rival = best if best.digital else search.among(goal, is_digital)
    # The search looks at few plans, and the rival's are among those that it may choose.
    if rival is not None and _better(rival, best, goal):
        best = rival
    metric_name = measures.chosen.metric.name
    analog = search.among(Goal(budget=best.cells), lambda scheme: not is_digital(scheme)) if best.digital else None
    facts = {"channel": channel, **{name: given[name] for name in _RECORDED}, **given["inputs"]._asdict()}
    facts["samples_seen_before"] = measures.seen_before or given["given_plan_used_these_data"] is not False
    best = recorded(best, measures, goal, facts)
    rival, analog = (each and recorded(each, measures, goal, facts) for each in (rival, analog))
    return Tuned(
        goal=goal,
        channel=channel,
        decoding=given["decoding"],
        counting=given["counting"],
        metric=metric_name,
        classes=measures.chosen.axis is not None,
        original=measures.original_value,
        weights=measures.original,
        sizes=measures.sizes,
        best=best,
        rival=rival,
        analog=analog,
        limit=measures.limit(best.plan),
        sensitivity=measures.sensitivity,
        correction_numbers=measures.correction_numbers,
        confidence=given["confidence"],
        confidence_of_look=search.confidence_of_look,
        protecting=measures.protecting(best.plan),
        seed=given["seed"],
        preprocessing=given["inputs"].preprocessing,
        seen_before=measures.seen_before,
        given_plan_was_tried=bool(measures.wholes),
        given_plan_used_these_data=given["given_plan_used_these_data"],
    )


def _sources(channel: Channel) -> str | None:
    """Return the digest of the sources of a channel of the user's own; None of the package's channels."""
    own = [kind for kind in _kinds(channel) if not kind.__module__.startswith("onnx_analog.")]
    try:
        texts = [inspect.getsource(inspect.getmodule(kind) or kind) for kind in sorted(own, key=str)]
    except (OSError, TypeError):
        raise OptionError(
            "the source of the channel is not known, so nothing tells its changes: leave resume out"
        ) from None
    return hashlib.sha256("".join(texts).encode()).hexdigest() if own else None


def _kinds(channel: Channel) -> set[type[Channel]]:
    """Return the types of a channel and of those inside it."""
    inner = (value for value in vars(channel).values() if isinstance(value, Channel))
    return {type(channel)}.union(*map(_kinds, inner))


def _better(one: Answer, other: Answer, goal: Goal) -> bool:
    """Return whether an answer is better than another: more is known to hold, or as much, and it takes fewer cells.

    Of two that miss the goal, none is better.
    """
    if (
        goal.budget is not None
    ):  # the one that loses less, by the samples that are searched with: those that verify choose nothing
        return _least(one) < _least(other)
    if one.holds is other.holds is not False:
        return one.cells < other.cells
    return _RANKS[one.holds] > _RANKS[other.holds]


def _least(answer: Answer) -> float:
    """Return what an answer within a budget loses: the least of all that was tried for it."""
    return min(point.drop.mean for point in answer.curve)
