"""Runs the sweep that a user asks for: models and data are loaded, the grid is built, and results are written."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnx_analog import channels as _channels
from onnx_analog import plots
from onnx_analog._inputs import (
    NAME_ORIGINAL,
    bare,
    check_data,
    check_function,
    check_not_read,
    compensating,
    correcting,
    dataset_of,
    directed,
    marked_for,
    metric_of,
    modified,
    plan_of,
    preprocessing_of,
    selection_of,
    warn_of_compensation,
)
from onnx_analog.arguments import check_pruning, check_stopping, check_type, checked
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.coding.compensation import check_compensable
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import PRESETS, STRATEGIES, Paper, Preset, Scheme
from onnx_analog.coding.stored_channels import by_name
from onnx_analog.disk import writing
from onnx_analog.errors import OptionError, brief, is_function_name
from onnx_analog.graph import files
from onnx_analog.graph.files import ModelLike
from onnx_analog.graph.normalisation import Normalisation, remembered
from onnx_analog.graph.weights import Selection
from onnx_analog.passes import PrunePass, pipeline
from onnx_analog.results import Model, Paths, Swept
from onnx_analog.run.data import Dataset, Preprocessing
from onnx_analog.run.session import Network
from onnx_analog.settings import settings_of
from onnx_analog.study import axes, engines, sweeps
from onnx_analog.study.arguments import GridArguments, check_axes, check_used, filled, plans_alone, takes_channels
from onnx_analog.study.arguments import checked as checked_grid
from onnx_analog.study.config import config_text
from onnx_analog.study.grid import Grid
from onnx_analog.study.rivals import Float16, float16
from onnx_analog.study.run_folder import CONFIG, PLOT
from onnx_analog.study.stopping import Stopping
from onnx_analog.study.worker import Packed
from onnx_analog.within import check_drop

logger = logging.getLogger(__name__)

CHECKED = (
    "sparsity", "prune_scope", "trials", "precision", "max_trials", "seed", "output", "class_axis", "samples", "batch",
    "providers", "counting", "limit", "max_drop",
    "lower_is_better",
)  # fmt: skip


def run_sweep(
    arguments: dict[str, Any], *, out: Paths | None, config: str | None, progress: Callable[[int, int], None]
) -> Swept:
    """Return what `onnx_analog.api.sweep` returns for its arguments."""
    arguments = plans_alone(arguments)
    given = {
        **arguments,
        **checked(**{name: arguments[name] for name in CHECKED}),
        **checked_grid(arguments),
    }
    check_pruning(given)
    check_stopping(given)
    folder = _folder(out)
    check_function("progress", progress)
    check_type("config", config, str | None, "text or None")
    engine = engines.engine_of(given["engine"])
    study = _study(given)
    points = tuple(sweeps.sweep(study, engine=engine, out=folder, progress=progress))
    if folder is not None:
        writers = {folder / CONFIG: writing.write_text(config_text(_options(arguments)) if config is None else config)}
        if plots.can_plot() and given["trials"]:
            writers[folder / PLOT] = plots.plot_points(points, given["counting"])
        writing.write_all(writers, force=True)
    return Swept(
        points=points, folder=folder, float16=tuple(_float16(study)), max_drop=given["max_drop"],
        counting=given["counting"], protecting=study.protected,
    )  # fmt: skip


def _float16(study: sweeps.Study) -> Iterator[Float16]:
    """Yield what the models are worth in float16, where rivals are compared."""
    grid = study.grid
    for case, experiment in zip(study.cases, study.experiments, strict=True) if grid.rivals else ():
        yield from float16(experiment, case.name, grid.channels, grid.selection)


def _folder(out: Any) -> Path | None:
    check_type("out", out, str | os.PathLike | None, "a path or None")
    if out is not None and not os.fspath(out):
        raise OptionError("out is an empty path")
    return None if out is None else Path(out)


def _study(given: Mapping[str, Any]) -> sweeps.Study:
    """Return the study, after everything was checked that can be checked before the first trial."""
    named = metric_of(directed(given["metric"], lower_is_better=given["lower_is_better"]))
    check_data(given["data"])
    preprocessing = preprocessing_of(given["mean"], given["std"], given["preprocess"])
    stopping = Stopping(trials=given["trials"], precision=given["precision"], max_trials=given["max_trials"])
    grid, plans = _grid(given)
    if given["compensate"] is not None:
        check_compensable("compensate is given", (scheme for point in grid.points() for scheme in point.plan.schemes))
    models: list[ModelLike] = [bare(model) for model in _listed(given["model"], _MODELS, "model")]
    cases = [_case(number, model, given, preprocessing, grid, plans) for number, model in enumerate(models)]
    for count in {len(case.compensate) for case in cases if case.compensate is not None}:
        warn_of_compensation((point.plan for point in grid.points()), count)
    facts = {
        **_image_facts(cases, preprocessing), "preprocess": preprocessing.function,
        "sparsity": given["sparsity"], "prune_scope": given["prune_scope"],
        **_data_facts(given["data"]), "inputs_sha256": [case.data.digest() for case in cases],
        **_sample_facts("correct", given["correct"], [case.correct for case in cases]),
        **_sample_facts("compensate", given["compensate"], [case.compensate for case in cases]),
        **_model_facts(models, cases),
    }  # fmt: skip
    running = {name: given[name] for name in ("output", "class_axis", "batch", "providers")}
    study = sweeps.prepare(cases, grid, stopping, metric=named, **running, facts=facts, limit=given["limit"])
    pairs = product(study.experiments, grid.plans.values())
    for text in dict.fromkeys(text for experiment, plan in pairs for text in experiment.reading_warnings(plan)):
        logger.warning(text)
    check_drop(study.metric, given["max_drop"])
    if stopping.precision is not None and study.metric.metric.share:
        study = replace(study, stopping=replace(stopping, precision=stopping.precision / 100))
    return study


_MODELS = (str, os.PathLike, onnx.ModelProto, ir.Model, Model)


def _listed(given: Any, single: tuple[type, ...], name: str) -> list[Any]:
    """Return several values as a list, and a single one as a list of one."""
    if isinstance(given, single):
        return [given]
    if isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
        raise OptionError(f"{name} is {brief(given)}; give a value or a list of values of its kind")
    return list(given)


def _case(
    number: int, model: ModelLike, given: Mapping[str, Any], preprocessing: Any, grid: Grid, plans: Collection[Plan]
) -> sweeps.Case:
    loaded, original = files.load(model), None
    check_not_read(loaded, NAME_ORIGINAL, f"the model {_model_name(model, number)!r}")
    if given["sparsity"]:
        original = loaded.clone()
        step = PrunePass(sparsity=given["sparsity"], scope=given["prune_scope"], selection=grid.selection)
        loaded = pipeline.run([step], loaded)
    inputs = Network(loaded).inputs
    data = dataset_of(given["data"], inputs, preprocessing, given["samples"])
    correct = correcting(given["correct"], given["correct_samples"], preprocessing, plans)
    samples = correct if correct is None or isinstance(correct, str) else correct(inputs)
    compensate = compensating(given["compensate"], given["compensate_samples"], preprocessing, plans)
    return sweeps.Case(
        name=_model_name(model, number),
        model=loaded,
        data=data,
        original=original,
        correct=samples,
        compensate=None if compensate is None else compensate(inputs),
    )


def _model_name(model: ModelLike, number: int) -> str:
    return Path(model).stem if isinstance(model, str | os.PathLike) else f"model{number}"


# ------------------------------------------------------------------------------------------------------ grid


def _grid(given: Mapping[str, Any]) -> tuple[Grid, Collection[Plan]]:
    """Return the grid, and its plans as given: their records, which may not hold here, tell the numbers of samples."""
    modifiers = given["modifiers"]
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    varied = _axes(given["grid"])
    check_axes(given, varied)
    check_used(given, varied)
    chosen = filled({name: given[name] for name in settings_of(GridArguments)}, varied)
    specs = given["channel"] if given["channel"] is not None else _channels.DEFAULT
    listed = varied.pop("channel", None) or _listed(specs, (str, Channel, type), "channel")
    read = {name: modified(plan, modifiers, without=()) for name, plan in _plans(given["plan"]).items()}
    models = _listed(given["model"], _MODELS, "model")
    plans = {name: marked_for(plan, *models, pruned=given["sparsity"]) for name, plan in read.items()}
    if given["compensate"] is None:
        warn_of_compensation(plans.values(), None)
    if "side_channel" in varied:
        sides = varied["side_channel"]
        varied["side_channel"] = tuple(side and modifiers.apply_where_possible(side) for side in sides)
    fields = {"strategy": "strategies", "cells": "cells", "large_factor": "large_factor"}
    grid = Grid(
        **{field: chosen[name] for name, field in fields.items() if chosen[name] is not None},
        presets=_presets(chosen["preset"] or ("default",), chosen["granularity"], chosen["large_fraction"]),
        channels=tuple(modifiers.apply(_channels.resolve(spec)) for spec in listed),
        axes=varied,
        plans=plans,
        rivals=chosen["rivals"],
        selection=selection_of(given["selection"]),
        seed=given["seed"],
    )
    return grid, read.values()


def _texts(name: str, given: Any) -> list[str]:
    values = _listed(given, (str,), name)
    strange = next((value for value in values if not isinstance(value, str)), None)
    if strange is not None or None in values:
        raise OptionError(f"{name} contains {brief(strange)}; it must be text")
    return values


def _presets(names: Sequence[str], granularity: str | None, large_fraction: float | None) -> tuple[Preset, ...]:
    chosen = {name: _preset(name, granularity, large_fraction) for name in names}
    if len(chosen) > len(set(chosen.values())):
        raise OptionError(
            f"the presets {', '.join(chosen)} do not differ once granularity and large_fraction are given: name one"
        )
    return tuple(chosen[name] for name in names)


def _preset(name: str, granularity: str | None, large_fraction: float | None) -> Preset:
    paper = Paper(preset=name, granularity=granularity, large_fraction=large_fraction)  # checks them
    preset = PRESETS[paper.preset]
    return Preset(
        granularity=paper.granularity or preset.granularity,
        large_fraction=preset.large_fraction if paper.large_fraction is None else paper.large_fraction,
    )


def _axes(given: Any) -> dict[str, tuple[Any, ...]]:
    """Return the axes: values by name, or texts such as "name=value,value"."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return axes.parse(_texts("grid", given))
    strange = next((name for name in given if not isinstance(name, str)), None)
    if strange is not None or None in given:
        raise OptionError(f"grid names a setting {brief(strange)}; it must be text")
    return axes.checked(given)


def _plans(given: Any) -> dict[str, Plan]:
    """Return further points by name: a file has the name of its stem, a function its own."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        named = list(given.items())
    else:
        several = _listed(given, (str, os.PathLike, Plan, Scheme), "plan")
        named = [(_plan_name(plan, number, len(several)), plan) for number, plan in enumerate(several)]
    plans: dict[str, Plan] = {}
    for name, plan in named:
        if not isinstance(name, str) or not name:
            raise OptionError(f"a plan is called {brief(name)}; its name must be text")
        if name in plans or name in STRATEGIES:
            what = "another plan" if name in plans else "a strategy"
            raise OptionError(f"a plan is called {name!r}, as {what} is: rename it")
        plans[name] = plan_of(plan)
    return plans


def _plan_name(plan: Any, number: int, count: int) -> str:
    if isinstance(plan, str) and is_function_name(plan):
        return plan.rpartition(":")[2]
    if isinstance(plan, str | os.PathLike):
        return Path(plan).stem
    return "plan" if count == 1 else f"plan{number + 1}"


# ----------------------------------------------------------------------------------------------------- facts


def _model_facts(models: Sequence[ModelLike], cases: Sequence[sweeps.Case]) -> dict[str, Any]:
    """Return the digests of the files, and of all that each model is evaluated with, its weights too."""
    digests = [files.file_digest(m) if isinstance(m, str | os.PathLike) else None for m in models]
    return {
        "models": [case.name for case in cases],
        "models_sha256": digests,
        "weights_sha256": [Packed.of(case.model).digest() for case in cases],
    }


def _image_facts(cases: Sequence[sweeps.Case], preprocessing: Preprocessing) -> dict[str, Any]:
    """Return mean and standard deviation of images: those of all models, or a list of them; 0 and 1 of other inputs."""
    of_images = (preprocessing.over(remembered(case.model)) for case in cases)
    used = [each if case.data.from_bytes else Normalisation() for case, each in zip(cases, of_images, strict=True)]
    facts = {name: [list(getattr(each, name)) for each in used] for name in Normalisation._fields}
    alike = {name: bool(each) and each.count(each[0]) == len(each) for name, each in facts.items()}
    return {f"input_{name}": each[0] if alike[name] else each for name, each in facts.items()}


def _data_facts(data: Any) -> dict[str, Any]:
    if isinstance(data, Dataset):
        return {"data": None, "data_sha256": data.digest()}
    if not isinstance(data, str | os.PathLike):
        return {"data": None, "data_sha256": None}  # inputs_sha256 says what they are
    return {"data": Path(data).name, "data_sha256": files.file_digest(data)}


def _sample_facts(option: str, given: Any, samples: Sequence[Dataset | str | None]) -> dict[str, Any]:
    """Return where the samples of an option are from, and which they are; nothing where it is not given."""
    if given is None:
        return {}
    known = [each for each in samples if isinstance(each, Dataset)]
    return {
        option: Path(given).name if isinstance(given, str | os.PathLike) else None,
        f"{option}_samples": [len(each) for each in known],
        f"{option}_sha256": [each.digest() for each in known],
    }


def _options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments by the names of the command line's options, in their order."""
    varied = _axes(arguments["grid"])
    options: dict[str, Any] = {"models": arguments["model"]}
    for name, value in filled(arguments, varied).items():
        if name == "modifiers":
            options |= {field: getattr(value, field) for field in settings_of(Modifiers)}
        elif name == "selection":
            options |= {field: getattr(selection_of(value), field) for field in settings_of(Selection)}
        elif name == "grid" and isinstance(value, Mapping):
            options[name] = value if _has_objects(value) else [_axis_text(axis, v) for axis, v in value.items()]
        elif name == "channel" and value is None:
            takes = takes_channels(arguments["strategy"], varied, rivals=arguments["rivals"])
            options[name] = [_channels.DEFAULT] if takes else None
        elif name == "channel":
            options[name] = [_named(channel) for channel in _listed(value, (str, Channel, type), name)]
        elif name != "model":
            options[name] = value
    return options


def _named(channel: Any) -> Any:
    """Return the name of a channel that is an installed one; else what was given."""
    if isinstance(channel, str | type):
        return channel
    name = by_name(channel.to_dict())
    return name if isinstance(name, str) else channel


def _has_objects(grid: Mapping[str, Any]) -> bool:
    """Return whether an axis has a value that text cannot stand for, such as a channel."""
    values = [value for values in grid.values() if not isinstance(values, str) for value in values]
    return not all(isinstance(value, str | int | float | list | tuple | None) for value in values)


def _axis_text(name: str, values: Any) -> str:
    words = values if isinstance(values, str) else ",".join(str(axes.word(_frozen(value))) for value in values)
    return f"{name}={words}"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
