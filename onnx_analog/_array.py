"""What goes to a real array, and whether the simulation predicts it: `write_image`, `array_statistics`, `compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from onnx_analog._inputs import AnyChannel, AnyModel, Data, channel_of, check_function, load_model
from onnx_analog.api import evaluate, load, readback
from onnx_analog.arguments import DEFAULTS, check_type, checked
from onnx_analog.channels.modifiers import NONE, Modifiers
from onnx_analog.disk import writing
from onnx_analog.display import progress_of, silent
from onnx_analog.errors import DataError, OptionError, require_path
from onnx_analog.graph import files, image_files
from onnx_analog.graph.image import Image, digest_of, image_of
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.graph.reads import Reads
from onnx_analog.graph.stored import read_with
from onnx_analog.results import Paths
from onnx_analog.settings import keywords

if TYPE_CHECKING:
    from onnx_analog.run.array_comparison import Comparison
    from onnx_analog.run.array_statistics import ArrayStatistics
    from onnx_analog.run.evaluation import Evaluation

_MOST_ARRAYS = 1000  # whose errors are kept all at once


@keywords
def write_image(
    model: AnyModel, path: Paths, *, force: bool = DEFAULTS.force, progress: Callable[..., object] = silent
) -> Image:
    """Write what is to be programmed into each cell of an array, and return it.

    Parameters
    ----------
    model : model
        A protected model.
    path : path
        A file that ends with .npz or .csv. docs/real_array.md describes its columns.
    force : bool
        Replace a file that is there.
    progress : function
        Called with what is being written, and the share that is done.

    Raises
    ------
    OptionError
        If the path ends with something else.
    ModelError
        If the model is not protected, is damaged, was read back already, or has more than 2^26 cells.
    ChannelError
        If what single cells are programmed to is not known: where cells hold residuals, or several devices
        share a level.
    OutputError
        If the file is there and `force` is not given, or cannot be written.
    """
    target = require_path("path", path)
    arguments = checked(force=force)
    check_function("progress", progress)
    image_files.check_suffix(target)
    loaded = load_model(model)
    writing.check_outputs([target], files.source_files(loaded), force=arguments["force"])
    image = image_of(load(loaded))
    writer = partial(image_files.write, image, progress=progress_of(progress))
    writing.write_all({target: writer}, force=arguments["force"])
    return image


@keywords
def array_statistics(
    model: AnyModel,
    *,
    trials: int = DEFAULTS.trials,
    seed: int = DEFAULTS.seed,
    channel: AnyChannel | None = None,
    modifiers: Modifiers = NONE,
    measured: Paths | Mapping[str, Any] | Reads | None = None,
    unit: str | None = None,
    missing: str = DEFAULTS.missing,
    time_s: float | None = None,
    data: Data | None = None,
    correct: Data | None = None,
    correct_samples: int | None = None,
    reference: AnyModel | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    preprocess: str | None = None,
) -> ArrayStatistics:
    """Return how far the reads of an array are from its levels: of one that was measured, or of simulated ones.

    Parameters
    ----------
    model : model
        The protected model that was written.
    trials : int, 1 to 1,000
        Arrays that are simulated, unless one was measured.
    seed, channel, modifiers
        As in `evaluate`, of simulated arrays.
    measured, unit, missing, time_s
        As in `readback`.
    data : data, optional
        Samples with labels: then each array is scored.
    correct, correct_samples, reference, mean, std, preprocess
        As in `readback`, for scores.

    Raises
    ------
    OptionError
        If an argument is out of its range, or does not go with the others.
    ModelError
        If the model is not protected, is damaged, or was read back already.
    DataError
        If the measured reads are not of this model, or the data have no labels.
    """
    from onnx_analog.run.array_statistics import ArrayStatistics, grouped, raw_reads
    from onnx_analog.run.stream_statistics import counted_streams, expected_streams

    arguments = checked(trials=trials, seed=seed)
    check_type("modifiers", modifiers, Modifiers, "Modifiers")
    resolved = channel_of(channel)
    if not 1 <= arguments["trials"] <= _MOST_ARRAYS:
        raise OptionError(f"trials is {trials}; it must be from 1 to {_MOST_ARRAYS:,}")
    protected = load(model)
    images: dict[str, Any] = {"mean": mean, "std": std, "preprocess": preprocess}
    correction: dict[str, Any] = {"correct": correct, "correct_samples": correct_samples, "reference": reference}
    of_readback = {**correction, **images} if data is None or correct is not None else correction
    of_memory: dict[str, Any] = {"seed": seed, "channel": resolved, "modifiers": modifiers}
    if measured is not None:
        of_array: dict[str, Any] = {"measured": measured, "unit": unit, "missing": missing, "time_s": time_s}
        read = readback(protected, decoded=True, **of_array, **of_memory, **of_readback)
        assert read.array is not None
        groups = grouped(protected, [{key: tensor.raw for key, tensor in read.array.tensors.items()}])
        score = None if data is None else evaluate(read, data, **images)
        irregularities = tuple(asdict(each) for each in read.array.irregularities)
        return ArrayStatistics(
            kind="measured", image=_digest(protected), arrays=1, groups=groups, irregularities=irregularities,
            streams=counted_streams(read.array.streams), **_scored(score, measured=True),
        )  # fmt: skip
    readback(protected, unit=unit, missing=missing, time_s=time_s, **of_memory, **of_readback)  # or it refuses them
    schemes = read_with(protected.schemes, resolved, modifiers)
    reads = raw_reads(protected, schemes, seed=arguments["seed"], trials=arguments["trials"])
    groups = grouped(protected, reads)
    score = None
    if data is not None:
        score = evaluate(protected, data, trials=trials, **of_memory, **correction, **images)
    return ArrayStatistics(
        kind="simulated", image=_digest(protected), arrays=trials, groups=groups,
        streams=expected_streams(protected.through(resolved, modifiers)), **_scored(score, measured=False),
    )  # fmt: skip


def _digest(protected: ProtectedModel) -> str:
    return digest_of(protected.manifest)


def _scored(score: Evaluation | None, *, measured: bool) -> dict[str, Any]:
    """Return the metric of each array, and what it was measured with."""
    if score is None:
        return {}
    if score.compares:
        raise DataError("data have no labels, and what an array is worth is scored with labels: add y")
    values = score.values
    if measured:
        assert score.stored is not None
        values = (score.stored,)
    return {"metric": score.metric, "values": values, "samples": score.samples, "share": bool(score.share)}


def compare(measured: Paths | ArrayStatistics, simulated: Paths | ArrayStatistics) -> Comparison:
    """Return whether simulated arrays predict a measured one: level by level, and in what the network then scores.

    Parameters
    ----------
    measured, simulated : ArrayStatistics or path
        Of `array_statistics`, or JSON files of `readback --statistics`.

    Raises
    ------
    DataError
        If a file is no such statistics, or the two do not belong together.
    """
    from onnx_analog.run import array_comparison

    return array_comparison.compare(measured, simulated)
