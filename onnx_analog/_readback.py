"""Reading a protected model back from a simulated array, or from one that was measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnx_analog._inputs import (
    AnyChannel,
    AnyModel,
    Data,
    channel_of,
    check_measured,
    corrected_towards,
    correcting,
    load_model,
    reading_preprocessing,
)
from onnx_analog.arguments import DEFAULTS, MOST_READBACKS, check_type, checked
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.coding.plan import reading_warnings
from onnx_analog.coding.verified import UNKNOWN
from onnx_analog.errors import OptionError
from onnx_analog.graph.protected import ProtectedModel, open_protected
from onnx_analog.graph.reads import Reads, reads_of
from onnx_analog.graph.stored import channels_of, read_with
from onnx_analog.passes import MeasuredPass, ReadbackPass, pipeline
from onnx_analog.results import Paths, Perturbed
from onnx_analog.settings import keywords

if TYPE_CHECKING:  # what runs models is imported when a model is run
    from onnx_analog.channels import Channel
    from onnx_analog.run.correcting import Corrections

logger = logging.getLogger(__name__)


@keywords
def readback(
    model: AnyModel,
    *,
    seed: int = DEFAULTS.seed,
    trial: int = DEFAULTS.trial,
    channel: AnyChannel | None = None,
    modifiers: Modifiers = NONE,
    correct: Data | None = None,
    correct_samples: int | None = None,
    reference: AnyModel | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    decoded: bool = DEFAULTS.decoded,
    measured: Paths | Mapping[str, Any] | Reads | None = None,
    unit: str | None = None,
    missing: str = DEFAULTS.missing,
    time_s: float | None = None,
) -> Perturbed:
    """Return a protected model as it reads from one programmed array; with `correct`, corrected after the read.

    With `measured`, the levels are those that an array outside this program returned, and no noise is added.

    Parameters
    ----------
    model : model
        A protected model; it is not changed. A model that was read back already is refused.
    seed, trial : int, >= 0
        `evaluate` with this seed uses exactly these weights in this trial.
    channel : channel, optional
        Replaces the stored channel, if its output range covers that of the stored one.
    modifiers : Modifiers
        Changes to that channel, or to the stored one.
    correct, correct_samples
        As in `evaluate`: the model then holds the corrections, as plain nodes.
    reference : model, optional
        The original, towards which samples correct; without it, that is the protected model, read without noise.
    mean, std, preprocess
        How uint8 images of `correct` become inputs.
    decoded : bool
        Return plain float weights, for any other tool, instead of levels and the functions that decode them.
    measured : path, mapping or Reads, optional
        Reads of an array to which the image of `write_image` was written: an npz or CSV file, or a mapping of columns.
        docs/real_array.md lists the columns. `array` of the result tells what was irregular.
    unit : {"scaled", "device"}, optional
        Unit of the measured values: the scale of levels, or the unit of the device's reads. Needed with `measured`.
    missing : {"refuse", "zero", "written"}
        What a weight that was not measured becomes; "refuse" refuses the reads.
    time_s : float, optional
        Which of the measured reads count, where they were made at several times.

    Raises
    ------
    ModelError
        If the model is not protected, is damaged, or was read back already.
    ChannelError
        If the channel cannot hold the levels.
    DataError
        If the measured reads are not of this model, or do not say what is needed.
    OptionError
        If seed or trial is not from 0 to 2^63 - 1, or a channel or modifiers are given and nothing is stored in cells;
        or an argument is given that only goes with `measured`, or does not go with it.
    """
    arguments = checked(seed=seed, trial=trial, decoded=decoded, unit=unit, missing=missing, time_s=time_s)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    resolved = channel_of(channel)
    preprocessing = reading_preprocessing(correct, correct_samples, mean, std, preprocess)
    original = corrected_towards(reference, correct)
    simulated = {
        "seed": (seed, DEFAULTS.seed),
        "trial": (trial, DEFAULTS.trial),
        "channel": (resolved, None),
        "modifiers": (modifiers, NONE),
    }
    check_measured(measured, arguments, simulated)
    protected = open_with_warnings(load_model(model))
    how = correcting(correct, correct_samples, preprocessing, [protected.plan])
    if measured is not None:
        measuring = MeasuredPass(
            reads=reads_of(measured), unit=arguments["unit"], missing=missing, time_s=arguments["time_s"]
        )
        return _measured(protected, measuring, decoded, _reader(protected, how, None, NONE, original))
    step = ReadbackPass(seed=arguments["seed"], trial=arguments["trial"], channel=resolved, modifiers=modifiers)
    return _perturbed(protected, step, decoded, _reader(protected, how, resolved, modifiers, original))


def _measured(
    protected: ProtectedModel, step: MeasuredPass, decoded: bool, corrections: Corrections | None
) -> Perturbed:
    array = step.array(protected)
    correct = None if corrections is None else corrections.of
    model = pipeline.read_back(lambda opened: step.put(opened, array), protected, decoded=decoded, correct=correct)
    return Perturbed(model, 0, 0, decoded, array=array, **_correction(corrections))


def _correction(corrections: Corrections | None) -> dict[str, Any]:
    """Return the fields that say how a model was corrected when it was read."""
    return {} if corrections is None else {"correction": corrections.cost, "corrected_by": corrections.by}


def open_with_warnings(model: ir.Model) -> ProtectedModel:
    """Return a protected model, opened; warn if nothing guards its planes, or its reads are optimistic."""
    protected = open_protected(model)
    protected.warn_unless_guarded()
    protected.warn_of_assumptions()
    return protected


def _perturbed(
    protected: ProtectedModel, step: ReadbackPass, decoded: bool, corrections: Corrections | None
) -> Perturbed:
    correct = None if corrections is None else corrections.of
    model = pipeline.read_back(step.read, protected, decoded=decoded, correct=correct)
    return Perturbed(model, step.seed, step.trial, decoded, **_correction(corrections))


def _reader(
    protected: ProtectedModel,
    correct: str | Callable[[Any], Any] | None,
    channel: Channel | None,
    modifiers: Modifiers,
    original: ir.Model | None,
) -> Corrections | None:
    """Return the corrections of the reads of a model, or None."""
    if correct is None:
        read_through = channels_of(read_with(protected.schemes, channel, modifiers).values())
        for text in reading_warnings(protected.plan, None, UNKNOWN, read_through, original=False):
            logger.warning(text)
        return None
    from onnx_analog.run.correcting import Corrections

    protected.check_readable()
    corrections = Corrections(protected, correct, read_with(protected.schemes, channel, modifiers), original)
    for text in corrections.warnings:
        logger.warning(text)
    return corrections


@keywords
def readbacks(
    model: AnyModel,
    *,
    seed: int = DEFAULTS.seed,
    trials: int,
    channel: AnyChannel | None = None,
    modifiers: Modifiers = NONE,
    correct: Data | None = None,
    correct_samples: int | None = None,
    reference: AnyModel | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
    decoded: bool = DEFAULTS.decoded,
) -> Iterator[Perturbed]:
    """Return the models of trials 0, 1, ..., each made when it is asked for.

    Parameters
    ----------
    model : model
        The protected model.
    trials : int, 0 to 10,000
        How many models.
    seed, channel, modifiers, correct, correct_samples, reference, mean, std, preprocess, decoded
        As in `readback`.
    """
    arguments = checked(seed=seed, trials=trials, decoded=decoded)
    if arguments["trials"] > MOST_READBACKS:
        raise OptionError(f"trials is {trials}; it must be from 0 to {MOST_READBACKS:,}")
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    resolved = channel_of(channel)
    preprocessing = reading_preprocessing(correct, correct_samples, mean, std, preprocess)
    original = corrected_towards(reference, correct)
    protected = open_with_warnings(load_model(model))
    how = correcting(correct, correct_samples, preprocessing, [protected.plan])
    protected.check_readable()  # fails here, before the first trial
    read_with(protected.schemes, resolved, modifiers)
    corrections = _reader(protected, how, resolved, modifiers, original)
    steps = (
        ReadbackPass(seed=arguments["seed"], trial=trial, channel=resolved, modifiers=modifiers)
        for trial in range(arguments["trials"])
    )
    return (_perturbed(protected, step, decoded, corrections) for step in steps)
