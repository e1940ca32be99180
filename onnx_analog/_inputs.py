"""Turns what users pass to the library into models, plans, channels, data and metrics.

Whatever has the wrong type is refused here, in one line.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog import channels as _channels
from onnx_analog.arguments import COMPENSATING, CORRECTING, DEFAULTS, check_type, checked
from onnx_analog.channels import Channel
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.exclusive import WHOLE, check_exclusive
from onnx_analog.coding.paper import STRATEGIES
from onnx_analog.coding.plan import Plan, compensation_warnings, marked_for_model
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.errors import (
    AnalogError,
    DataError,
    FunctionError,
    ModelError,
    OptionError,
    brief,
    is_function_name,
    located,
)
from onnx_analog.graph import files
from onnx_analog.graph.array_read import NO_UNIT
from onnx_analog.graph.correction import GAIN
from onnx_analog.graph.files import ModelLike, name_of
from onnx_analog.graph.normalisation import Normalisation
from onnx_analog.graph.stored import COMMAND_KEY, MANIFEST_KEY, SOURCE_KEY, is_protected, read_already, read_back
from onnx_analog.graph.weights import Selection
from onnx_analog.named import named_function
from onnx_analog.results import Model, Paths
from onnx_analog.settings import check_names, settings_of, suggestion, synonyms_of

if TYPE_CHECKING:  # what runs models is imported when a model is run
    from onnx_analog.run import metrics
    from onnx_analog.run.data import Dataset, Input, Preprocessing

logger = logging.getLogger(__name__)

OF_MEASURED = ("unit", "missing", "time_s")  # arguments that only go with measured reads

_UNCHANGED = Normalisation()._asdict()  # what changes no image

_SHOWN = 3  # values of a plan that a warning names

NAME_ORIGINAL = "Name the original."  # of what takes no protected model either

AnyModel = ModelLike | Model
Arrays = NDArray[Any]
Data = Any  # the path of an npz file, a mapping of names to arrays, (x, y), x, or a Dataset
AnyChannel = str | Channel | type[Channel]
AnyPlan = Plan | Scheme | Paths


def load_model(model: AnyModel, name: str = "model") -> ir.Model:
    """Return a model as `files.load` does."""
    return files.load(bare(model, name))


def original_of(reference: AnyModel) -> ir.Model:
    """Return the reference; raise `ModelError` if it cannot be the original, as it is protected or was read back."""
    model = load_model(reference, "reference")
    mark = read_back(model)
    if mark is not None:
        raise ModelError(
            f"the reference, {name_of(model)}, was read from noisy cells ({mark}): name the plain original instead"
        )
    if is_protected(model):
        raise ModelError(f"the reference, {name_of(model)}, is protected: name the plain original instead")
    return model


def check_not_read(model: ir.Model, remedy: str | None = None, name: str = "the model") -> None:
    """Raise `OptionError` if a model was read back: its noise, of plain weights too, would count as the original's."""
    if read_back(model) is not None:
        raise OptionError(read_already(model, remedy, name))


def warn_of_read(model: ir.Model) -> None:
    """Log a warning if the weights of a plain model were read back: what is made of it has their noise."""
    mark = read_back(model)
    if mark is not None and not is_protected(model):
        logger.warning(
            "the model was read from noisy cells (%s): its weights are those that were read, not the original's", mark
        )


def bare(model: AnyModel, name: str = "model") -> ModelLike:
    """Return what `files.load` takes; anything but a model is an `OptionError`."""
    if isinstance(model, Model):
        return model.model
    if not isinstance(model, str | os.PathLike | onnx.ModelProto | ir.Model):
        raise OptionError(
            f"{name} is {brief(model)}; it must be a path, an onnx.ModelProto, an ir.Model or a result of this library"
        )
    if isinstance(model, str) and not model:
        raise OptionError(f"{name} is an empty path")
    return model


def selection_of(selection: Selection | None) -> Selection:
    """Return the selection; without one, the default."""
    check_type("selection", selection, Selection | None, "a Selection or None")
    return selection or Selection()


def channel_of(channel: AnyChannel | None) -> Channel | None:
    """Return the channel that a user names; None for none."""
    return None if channel is None else _channels.resolve(channel)


def check_measured(
    measured: object, given: Mapping[str, Any], simulated: Mapping[str, tuple[Any, Any]] = MappingProxyType({})
) -> None:
    """Raise `OptionError` if arguments of a simulated array and of a measured one are mixed.

    Parameters
    ----------
    measured : object
        The reads; None of a simulated array.
    given : mapping
        Of unit, missing and time_s to what they are.
    simulated : mapping
        Of each argument of a simulated array to its value and its default.
    """
    if measured is None:
        name = next((name for name in OF_MEASURED if given[name] != getattr(DEFAULTS, name)), None)
        if name is not None:
            raise OptionError(f"{name} is given, and measured is not: it says how measured reads are taken")
        return
    name = next((name for name, (value, default) in simulated.items() if value != default), None)
    if name is not None:
        raise OptionError(f"{name} and measured exclude each other: an array that was measured is not simulated")
    if given["unit"] is None:
        raise OptionError(NO_UNIT)


# ---------------------------------------------------------------------------------------------------- plans


_NESTED = {"selection": Selection, "modifiers": Modifiers}  # arguments that hold settings, and the classes of them


def check_scheme_settings(settings: Mapping[str, Any]) -> None:
    """Raise `OptionError` if a scheme has no such setting."""
    for argument, cls in _NESTED.items():
        of_class = [*settings_of(cls), *(name.removesuffix("_s") for name in settings_of(cls))]
        for name in settings:
            if name in of_class:
                known = name if name in settings_of(cls) else f"{name}_s"
                raise OptionError(
                    f"{name} is a setting of {cls.__name__}: give {argument}=onnx_analog.{cls.__name__}({known}=...)"
                )
    check_names("there is no setting", settings, [*settings_of(Scheme), *settings_of(Paper)], synonyms_of(Scheme))


def stored_plan(plan: AnyPlan | None, integers: int | None, settings: Mapping[str, Any], modifiers: Modifiers) -> Plan:
    """Return how each tensor is stored, from what `onnx_analog.protect` takes; contradictions are refused."""
    check_scheme_settings(settings)
    changes = modified_channels(settings, modifiers)
    bases = {"plan": plan, "integers": integers}
    check_exclusive({*changes, *(name for name, value in bases.items() if value is not None)}, WHOLE)
    if plan is not None:
        written = plan_of(plan)
        stored = written.changed(**changes)
        warn_of_replaced(written, stored, changes)
    elif integers is not None:
        check_exclusive(changes)
        stored = Plan(default=Scheme.integers(integers, **changes))
    else:
        default = {} if "channel" in changes else modified_channels({"channel": _channels.DEFAULT}, modifiers)
        stored, changes = Plan(default=Paper.scheme_of({**default, **changes})), {**default, **changes}
    if settings.get("estimator") is not None:
        _check_estimator_used(stored)
    return modified(stored, modifiers, without=changes)


def defaults_of(settings: Mapping[str, Any], modifiers: Modifiers) -> dict[str, Any]:
    """Return the settings of the paper, and the channel, that `stored_plan` takes where they are not given.

    Those are left out that could not be given beside the others.
    """
    stored = stored_plan(None, None, settings, modifiers)
    paper = Paper(**{name: settings[name] for name in settings_of(Paper) if settings.get(name) is not None})
    defaults: dict[str, Any] = {"strategy": paper.strategy, "cells_small": paper.cells_small, "preset": paper.preset}
    if STRATEGIES[paper.strategy].adaptive:
        defaults["cells_large"] = paper.cells_of_large
    defaults["channel"] = _channels.DEFAULT
    found: dict[str, Any] = {}
    for name, value in defaults.items():
        with suppress(OptionError):
            alike = stored_plan(None, None, {**settings, **found, name: value}, modifiers) == stored
            if settings.get(name) is None and alike:
                found[name] = value
    return found


def warn_of_replaced(written: Plan, stored: Plan, names: Iterable[str]) -> None:
    """Log a warning for each setting that is given beside a plan and replaces another value in one of its schemes."""
    pairs = list(
        zip((scheme for _, scheme in written.entries()), (scheme for _, scheme in stored.entries()), strict=True)
    )
    for name in names:
        values = [(getattr(old, name), getattr(new, name)) for old, new in pairs if old is not None and _has(old, name)]
        replaced = list(dict.fromkeys(old for old, new in values if old != new))
        if replaced:
            new = next(new for old, new in values if old != new)
            shown = " or ".join(map(_setting_text, replaced[:_SHOWN])) + " or others" * (len(replaced) > _SHOWN)
            logger.warning("%s is %s for every tensor: it replaces the plan's %s", name, _setting_text(new), shown)


def _has(scheme: Scheme, name: str) -> bool:
    """Return whether a scheme makes use of a setting: one without analog cells has no use for a channel."""
    return name != "channel" or scheme.analog != "none"


def _setting_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_estimator_used(plan: Plan) -> None:
    """Raise `OptionError` if an estimator is given that has nothing to do: no level is read, and no gain is kept."""
    if not any(scheme.analog != "none" or estimator(scheme.estimator).keeps_gain for scheme in plan.schemes):
        raise OptionError("estimator is given, and no weight is stored in analog cells: leave it out")


def plan_of(plan: Any) -> Plan:
    """Return a plan from a plan, a scheme, a file, or a function that returns one."""
    if isinstance(plan, Plan | Scheme):
        return Plan.of(plan)
    if isinstance(plan, str) and is_function_name(plan):
        return _plan_of_function(plan)
    if isinstance(plan, str | os.PathLike):
        return Plan.read(Path(plan))
    raise OptionError(f"plan is {brief(plan)}; it must be a Plan, a Scheme, a path or module:function")


def warn_of_compensation(plans: Iterable[Plan], samples: int | None) -> None:
    """Log a warning if a plan was verified with other samples to compensate by; `samples` is None for none."""
    text = next((text for plan in plans for text in compensation_warnings(plan, samples)), None)
    if text is not None:
        logger.warning(text)


def marked_for(plan: Plan, *models: Any, pruned: float = 0.0) -> Plan:
    """Return a plan that is used with models; its record is marked where that does not hold.

    Parameters
    ----------
    plan : Plan
    models : model
        As users give them: of those that are no files, nothing is known.
    pruned : float
        Share of their weights that are pruned first.
    """
    for model in models:
        plan = marked_for_model(plan, _model_digests(model), pruned=bool(pruned))
    return plan


def warn_of_other_samples(plan: Plan | Selection | None, samples: int | None) -> None:
    """Log a warning if weights are compensated by other samples than where the plan, if there is one, was verified."""
    if isinstance(plan, Plan) and samples is not None:
        warn_of_compensation([plan], samples)


def _plan_of_function(spec: str) -> Plan:
    function = named_function(spec)
    try:
        plan = function()
    except AnalogError as error:  # it names arguments of the function's calls, and none of ours
        raise located(error, repr(spec)) from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's function raises
        raise FunctionError(f"{spec!r} failed with {type(error).__name__}: {error}") from error
    if not isinstance(plan, Plan | Scheme):
        raise OptionError(f"{spec!r} returned {brief(plan)}; it must return a Plan or a Scheme")
    return Plan.of(plan)


def modified_channels(settings: Mapping[str, Any], modifiers: Modifiers) -> dict[str, Any]:
    """Return settings without those that are None, their channels resolved and changed.

    They are changed before a scheme holds them, which keeps no measured residuals that it does not use.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if "channel" in given:
        given["channel"] = modifiers.apply(_channels.resolve(given["channel"]))
    if "side_channel" in given:
        given["side_channel"] = modifiers.apply_where_possible(_channels.resolve(given["side_channel"]))
    return given


def modified(plan: Plan, modifiers: Modifiers, *, without: Collection[str]) -> Plan:
    """Return the plan with the channels of its schemes changed, but for those settings in `without`."""

    def changed(scheme: Scheme) -> Scheme:
        changes: dict[str, Any] = {}
        if "channel" not in without:
            changes["channel"] = modifiers.apply(scheme.channel)
        if "side_channel" not in without and scheme.side_channel is not None:
            changes["side_channel"] = modifiers.apply_where_possible(scheme.side_channel)
        return scheme.changed(**changes)

    if modifiers == NONE:
        return plan
    return plan.mapped(changed)


# ----------------------------------------------------------------------------------------------------- data


def check_function(name: str, value: object) -> None:
    """Raise `OptionError` unless a function was given."""
    if not callable(value):
        raise OptionError(f"{name} is {brief(value)}; it must be a function")


def preprocessing_of(mean: Any, std: Any, function: str | None) -> Preprocessing:
    """Return how images become inputs."""
    from onnx_analog.run.data import Preprocessing

    arguments = checked(mean=mean, std=std, preprocess=function)
    given = next((name for name in ("mean", "std") if arguments[name] != getattr(DEFAULTS, name)), None)
    if function is not None and given is not None:
        raise OptionError(f"{given} and preprocess exclude each other: give one of them")
    return Preprocessing(mean=arguments["mean"], std=arguments["std"], function=arguments["preprocess"])


def check_data(data: Any) -> None:
    """Raise `DataError` if data are of a type that cannot be used."""
    from onnx_analog.run.data import Dataset

    pair = isinstance(data, tuple | list) and len(data) == 2
    if not (pair or isinstance(data, Dataset | Mapping | np.ndarray | str | os.PathLike)):
        raise DataError(
            f"data is {brief(data)}; it must be the path of an npz file, a mapping of names to arrays, (x, y), x, or a "
            "Dataset"
        )


def dataset_of(
    data: Any, inputs: Sequence[Input], preprocessing: Preprocessing, samples: int | None, *, name: str = ""
) -> Dataset:
    """Return data as a model with these inputs takes them; `name` is what messages call samples beside the data."""
    from onnx_analog.run.data import Dataset, from_arrays
    from onnx_analog.run.data import load as load_data

    check_data(data)
    if isinstance(data, Dataset):
        _check_normalised(replace(data, from_bytes=()), (), preprocessing, name)  # it is taken as it is
        found = data if samples is None else data.head(samples)
    else:
        if isinstance(data, str | os.PathLike):
            found = load_data(Path(data), inputs, preprocessing, samples=samples)
        else:
            found = from_arrays(_arrays(data), inputs, preprocessing, samples=samples)
        _check_normalised(found, inputs, preprocessing, name)
    if not name:
        _warn_of_fewer("samples", samples, found)
    return found


def _check_normalised(data: Dataset, inputs: Sequence[Input], preprocessing: Preprocessing, name: str) -> None:
    """Raise `OptionError` if images are to be normalised, and there are none; say what the model remembers instead.

    Samples that are named may be of another type than the data, for which the numbers may be meant.
    """
    given = {name: values for name, values in preprocessing.given.items() if values != _UNCHANGED[name]}
    if given and not data.from_bytes:
        if name:
            return logger.warning("%s: no uint8 images, so nothing is normalised", name)
        raise OptionError(
            f"{next(iter(given))} is given, and normalises uint8 images, of which the data have none: save the images "
            "as uint8, or normalise them yourself and leave it out"
        )
    for field in inputs:
        other = preprocessing.contradicted(field)
        if field.name in data.from_bytes and other is not None:
            logger.warning(
                "%sthe %s remembers %s: what is given is used instead",
                f"{name}: " * bool(name),
                field.remembered_by,
                other,
            )
    if not name and any(field.normalisation is None for field in inputs if field.name in data.from_bytes):
        _warn_of_missing(preprocessing, given)
    return None


def _warn_of_missing(preprocessing: Preprocessing, given: Collection[str]) -> None:
    """Log a warning if mean or std is missing of images of which the model remembers neither.

    `given` are those that change images. One that changes none says that they need no more.
    """
    if not preprocessing.given:
        logger.warning(
            "images are scaled to [0, 1] and not normalised, as mean and std are neither given nor remembered: "
            "give mean 0 if that is right"
        )
    elif len(preprocessing.given) == 1 and given:
        (only,) = given
        (missing,) = {*_UNCHANGED} - {only}
        used = f"{missing} {_UNCHANGED[missing][0]:g}"
        logger.warning(
            "%s is neither given nor remembered, and %s is given, so images are normalised with %s: give %s as in "
            "training, or give %s if that is right",
            missing, only, used, missing, used,
        )  # fmt: skip


def check_correct(correct: Any, correct_samples: int | None) -> None:
    """Raise an error if a model cannot be corrected with data of a type, or too few are asked for."""
    samples = checked(correct_samples=correct_samples)["correct_samples"]
    if not _has_samples(correct):
        if samples not in (None, CORRECTING):
            what = "no samples are given" if correct is None else f"correct is {GAIN!r}, which takes none"
            raise OptionError(f"correct_samples is {samples}, and {what}: leave it out")
        return
    try:
        check_data(correct)
    except DataError as error:
        raise DataError(f"correct: {error}, or the word {GAIN!r}") from error
    if isinstance(correct, str) and not os.path.exists(correct):  # noqa: PTH110 - `Path` fails for a long name
        raise DataError(f"correct is {correct!r}; it must be a file, or the word {GAIN!r}")


def _has_samples(correct: Any) -> bool:
    """Return whether a correction is by samples: not left out, and not by the law of the channel."""
    return correct is not None and not (isinstance(correct, str) and correct == GAIN)


def correcting(
    correct: Any, correct_samples: int | None, preprocessing: Preprocessing, plans: Iterable[Plan] = ()
) -> str | Callable[[Sequence[Input]], Dataset] | None:
    """Return the source of a correction: a word, a function that returns the samples for its inputs, or None.

    Where their number is not given, it is that by which the plans were verified, if they agree in it.
    """
    check_correct(correct, correct_samples)
    if not _has_samples(correct):
        return None if correct is None else GAIN

    agreed = _agreed((plan.verified.corrected_by for plan in plans if plan.verified is not None), CORRECTING)
    return _samples("correct", correct, correct_samples, agreed, preprocessing)


def model_digest(model: Any) -> str | None:
    """Return the SHA-256 of the files of a model, if it is given as one; see `onnx_analog.graph.files.model_digest`."""
    return next(iter(_model_digests(model)), None)


def _model_digests(model: Any) -> tuple[str, ...]:
    """Return the digests by which the files of a model may be known; none if it is not given as a file."""
    of_file = isinstance(model, str | os.PathLike) and Path(model).is_file()  # a pipe has been read, and is empty now
    return files.model_digests(model) if of_file else ()


def note_origin(model: ir.Model, source: ModelLike, command: str | None = None) -> None:
    """Note in a model its file, if it is of one, and the command, in place of those of an earlier run."""
    for key in (SOURCE_KEY, COMMAND_KEY, MANIFEST_KEY):
        model.metadata_props.pop(key, None)
    if isinstance(source, str | os.PathLike) and Path(source).is_file():  # a pipe has been read, and is empty now
        model.metadata_props[SOURCE_KEY] = files.own_digests(source)[0]
    if command is not None:
        model.metadata_props[COMMAND_KEY] = command


def compensating(
    compensate: Any, compensate_samples: int | None, preprocessing: Preprocessing, plans: Iterable[Plan] = ()
) -> Callable[[Sequence[Input]], Dataset] | None:
    """Return a function that returns the samples of a compensation for the inputs of a model, or None.

    Where their number is not given, it is that by which the plans were verified, if they agree in it.
    """
    count = checked(compensate_samples=compensate_samples)["compensate_samples"]
    if compensate is None:
        if count not in (None, COMPENSATING):
            raise OptionError(f"compensate_samples is {count}, and no samples are given: leave it out")
        return None
    agreed = _agreed((plan.compensated_by for plan in plans), COMPENSATING)
    return _samples("compensate", compensate, count, agreed, preprocessing)


def _agreed(numbers: Iterable[int | None], default: int) -> int:
    """Return the number in which all agree that have one; else the default."""
    known = {number for number in numbers if number is not None}
    return known.pop() if len(known) == 1 else default


def _samples(
    name: str, given: Any, asked: int | None, default: int, preprocessing: Preprocessing
) -> Callable[[Sequence[Input]], Dataset]:
    count = default if asked is None else asked

    def samples(inputs: Sequence[Input]) -> Dataset:
        try:
            found = dataset_of(given, inputs, preprocessing, count, name=name)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        _warn_of_fewer(f"{name}_samples", asked, found)
        _check_fills_a_call(found, inputs, name, count)
        return found

    return samples


def _warn_of_fewer(name: str, asked: int | None, found: Dataset) -> None:
    """Log a warning if more samples are asked for than there are."""
    if asked is not None and len(found) < asked:
        logger.warning("%s is %s, and there are %s: all of them are used", name, f"{asked:,}", f"{len(found):,}")


def _check_fills_a_call(data: Dataset, inputs: Sequence[Input], name: str, count: int) -> None:
    """Raise `OptionError` if fewer samples are asked for than one call of the model takes, whatever the data hold."""
    fixed = min((field.shape[0] for field in inputs if field.shape and isinstance(field.shape[0], int)), default=0)
    if count < fixed and not data.one_by_one:
        raise OptionError(f"{name}_samples is {count}, and the model takes {fixed:,} samples in each call: give more")


def reading_compensate(
    compensate: Any, compensate_samples: int | None, mean: Any, std: Any, preprocess: str | None, plan: Plan
) -> Callable[[Sequence[Input]], Dataset] | None:
    """Return the source of the compensation of a model that is protected, for which alone images are prepared."""
    _check_prepared("compensate", compensate, mean, std, preprocess)
    return compensating(compensate, compensate_samples, preprocessing_of(mean, std, preprocess), [plan])


def _check_prepared(name: str, given: Any, mean: Any, std: Any, preprocess: str | None) -> None:
    """Raise `OptionError` if images are to be prepared, and none are given."""
    prepared = checked(mean=mean, std=std, preprocess=preprocess)
    option = next((each for each, value in prepared.items() if value != getattr(DEFAULTS, each)), None)
    if given is None and option is not None:
        raise OptionError(f"{option} is given, and {name} is not, so no images are read: leave it out")


def reading_preprocessing(
    correct: Any, correct_samples: int | None, mean: Any, std: Any, preprocess: str | None
) -> Preprocessing:
    """Return how images become inputs that correct models which are read back."""
    _check_prepared("correct", correct, mean, std, preprocess)
    check_correct(correct, correct_samples)
    return preprocessing_of(mean, std, preprocess)


def corrected_towards(reference: AnyModel | None, correct: Any) -> ir.Model | None:
    """Return the original that models which are read back are corrected towards, by samples; None for none."""
    if reference is None:
        return None
    if not _has_samples(correct):
        raise OptionError("reference is given without samples that correct: give correct, or leave reference out")
    return original_of(reference)


def _arrays(data: Any) -> dict[str, Arrays]:
    """Return a mapping, a pair (x, y) or a single array as arrays by name."""
    if isinstance(data, Mapping):
        given = dict.fromkeys(data)  # an npz file reads an array each time that it is asked for it
        strange = next((name for name in given if not isinstance(name, str)), None)
        if strange is not None:
            raise DataError(f"data names an array {brief(strange)}; names must be text")
        return {name: _array(name, partial(data.__getitem__, name)) for name in given}
    x, y = (data, None) if isinstance(data, np.ndarray) else data
    pair = {"x": _array("x", lambda: x)}
    return pair if y is None else {**pair, "y": _array("y", lambda: y)}


def _array(name: str, get: Callable[[], Any]) -> Arrays:
    try:
        array = np.asarray(get())
    except (ValueError, TypeError, OSError) as error:
        raise DataError(f"{name!r} of the data is not an array: {error}") from error
    if array.dtype == object:
        raise DataError(f"{name!r} of the data is not an array of numbers or text")
    return array


def directed(metric: Any, *, lower_is_better: bool) -> Any:
    """Return a metric, of which lower values are better if that is said."""
    if not lower_is_better:
        return metric
    named = metric_of(metric)
    if named is None:
        raise OptionError("lower_is_better is given, and metric is not: name a function of your own")
    from onnx_analog.run import metrics

    known = metrics.described(named)
    if metrics.is_own(known) or known.higher_is_better:
        name = known.name
        raise OptionError(f"lower_is_better is given, and {name} says itself which values are better: leave it out")
    return metrics.LowerIsBetter(named[1], named[0])


def metric_of(metric: Any) -> metrics.Named | None:
    """Return the name and the function of a metric; None for none."""
    if metric is None:
        return None
    from onnx_analog.run import metrics

    if isinstance(metric, str):
        if ":" not in metric:
            if metric not in metrics.METRICS:
                known = (*metrics.NAMES, "module:function")
                raise OptionError(f"no metric is called {metric!r}: {suggestion(metric, known, metrics.OTHER_NAMES)}")
            return metric, metrics.METRICS[metric].function
        return metric, named_function(metric)
    if not callable(metric):
        raise OptionError(f"metric is {brief(metric)}; it must be a name, module:function or a function")
    return getattr(metric, "__name__", "metric"), metric
