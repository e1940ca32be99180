"""Declares the arguments that functions, commands and TOML files share, each once.

How a tensor is stored is declared in `onnx_analog.coding.scheme`; everything else that a user can set is declared here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_analog.errors import OptionError, brief
from onnx_analog.settings import check_values, setting

LARGEST_SEED = 2**63 - 1
MOST_TRIALS = 10**9
MOST_READBACKS = 10_000  # models that are read back at once: files of them have numbers of four digits
PART_KINDS = {  # what `sensitivity` reads with noise alone, and the headings of its tables
    "tensor": "tensor",
    "class": "class of all tensors",
    "stream": "stream of all tensors",
    "tensor-class": "class of one tensor",
    "tensor-stream": "stream of one tensor",
}
CORRECTING = COMPENSATING = 256  # samples, where no plan says how many verified it
LONGEST_S = 1e12  # from programming to read: 30,000 years


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments, with their defaults."""

    seed: int = setting(0, least=0, most=LARGEST_SEED, help="Seed of the noise; the same seed gives the same results.")
    trial: int = setting(0, least=0, most=LARGEST_SEED, help="Number of the trial.")
    trials: int = setting(25, least=0, most=MOST_TRIALS, help="How often the array is programmed and read.")
    sparsity: float = setting(0.0, least=0, below=1, help="Share of the weights to prune first.")
    prune_scope: str = setting(
        "model", choices=("tensor", "model"), help="Prune the smallest weights of each tensor, or of the whole model."
    )
    mean: tuple[float, ...] | None = setting(
        None,
        help="Per-channel mean of uint8 images scaled to [0, 1], e.g. 0.5 or r,g,b.  [default: what the model "
        "remembers, or 0]",
    )
    std: tuple[float, ...] | None = setting(
        None, help="Per-channel standard deviation of the same images.  [default: what the model remembers, or 1]"
    )
    preprocess: str | None = setting(None, help="Function that prepares the array of each input.")
    metric: Any = setting(
        None,
        help="top1, top5, agreement, exact_match, relative_error, sqnr_db, mse, "
        "token_accuracy, perplexity, r2; or module:function, "
        "f(outputs, labels=, clean=) -> number.  [default: chosen by the data and outputs]",
    )
    lower_is_better: bool = setting(
        False, help="Lower values of the metric are better: for module:function that does not say so itself."
    )
    output: str | None = setting(None, help="Output to measure.  [default: the first suitable one]")
    class_axis: int | None = setting(None, help="Axis of the classes in that output.  [default: the only possible one]")
    samples: int | None = setting(None, least=1, help="Number of samples to use, from the first on.  [default: all]")
    # A call costs little, and a new session soon has the memory for its activations.
    batch: int = setting(64, least=1, help="Samples per call of the model.")
    providers: tuple[str, ...] = setting(
        ("CPUExecutionProvider",), help="Execution providers of onnxruntime, comma-separated."
    )
    threads: int = setting(0, least=0, most=1024, help="Threads per operator; 0: chosen by onnxruntime.")
    correct: Any = setting(
        None,
        metavar="FILE",
        help="Correct each read array: npz file of a few unlabelled samples; or the word gain, for the factor of each "
        "tensor that follows from the law of the channel.",
    )
    correct_samples: int | None = setting(
        None,
        least=2,
        most=1_000_000,
        help="Samples that correct, from the first on; one call takes all of them.  [default: as many as when the plan "
        f"was verified, or {CORRECTING}]",
    )
    compensate: Any = setting(
        None,
        metavar="FILE",
        help="npz file of a few unlabelled samples, by which weights are rounded so that they make up for each other's "
        "errors. Weights with analog cells stay as they are.",
    )
    compensate_samples: int | None = setting(
        None,
        least=4,
        most=1_000_000,
        help="Samples that weights are compensated by, from the first on.  [default: as many as when the plan was "
        f"verified, or {COMPENSATING}]",
    )
    at_least: float | None = setting(
        None, help="Fail unless the lower end of the 95 % interval (or the value) is this high."
    )
    at_most: float | None = setting(
        None, help="Fail unless the upper end of the 95 % interval (or the value) is this low."
    )
    precision: float | None = setting(
        None,
        above=0,
        help="Add trials until the 95 % interval is this narrow, in percentage points or the metric's unit.",
    )
    max_trials: int = setting(
        1000, least=2, most=MOST_TRIALS, help="Maximum number of trials per point if the interval decides their number."
    )
    counting: str = setting(
        "memory",
        choices=("memory", "paper"),
        help="Cells by which points are marked and plotted: as the memory allows, or as the paper counts.",
    )
    limit: bool = setting(
        False, help="Also show the fewest cells that any code needs for these weights at the errors of their reads."
    )
    max_drop: float | None = setting(None, above=0, most=100, help="Largest loss allowed, in percentage points.")
    min_sqnr: float | None = setting(
        None,
        least=0,
        most=300,
        help="Smallest signal-to-noise ratio of the outputs allowed, in dB: for outputs without classes.",
    )
    budget: float | None = setting(None, above=0, help="Largest number of cells per original weight.")
    decoding: str = setting(
        "hard",
        synonyms=("decoder",),
        choices=("none", "table", "hard", "soft"),
        help="The most complex decoding allowed: thresholds, tables, a hard-decision code, or a soft one (assumed).",
    )
    correction: bool = setting(True, help="Correct what is read, using a few of the samples.")
    confidence: float = setting(0.95, least=0.5, below=1, help="Confidence of the verification.")
    tune_trials: int = setting(4, least=2, most=1000, help="Reads of each plan that is tried.")
    check_trials: int = setting(
        100, least=3, most=10_000, help="Trials after which the check gives up; it often stops after a few."
    )
    sensitivity_trials: int = setting(5, least=1, most=10_000, help="Reads of each part.")
    by: tuple[str, ...] = setting(
        ("tensor", "class", "stream"),
        choices=tuple(PART_KINDS),
        metavar="KINDS",
        help=f"Kinds of parts, comma-separated: {', '.join(PART_KINDS)}.",
    )
    all_but: int = setting(
        3,
        least=0,
        most=10_000,
        metavar="N",
        help="For each of the N worst parts of each kind, also show the loss that remains if it alone has no noise.",
    )
    decoded: bool = setting(False, help="Write ordinary float weights, for other tools.")
    unit: str | None = setting(
        None,
        choices=("scaled", "device"),
        help="Unit of the measured values: the scale of levels, or the unit of the device's reads.",
    )
    missing: str = setting(
        "refuse",
        choices=("refuse", "zero", "written"),
        help="What to do about weights that were not measured: refuse the reads, or take zero or what was written.",
    )
    time_s: float | None = setting(
        None, least=0, unit="s", help="Time of the measured reads to use, if there are several."
    )
    force: bool = setting(False, help="Replace existing files.")
    integers: int | None = setting(
        None,
        least=2,
        most=8,
        metavar="BITS",
        help="Quantise to integers of this many bits, without analog cells.",
    )
    command: str | None = setting(None, help="The command that made the model, for its manifest.")


DEFAULTS = Arguments()


@dataclass(frozen=True, kw_only=True)
class ModifierSettings:
    """The settings of `onnx_analog.channels.modifiers.Modifiers`; here they import nothing heavy."""

    residuals: str | None = setting(
        None,
        choices=("gaussian", "empirical"),
        help="Draw noise from a normal distribution, or from the measurements.",
    )
    cells_on: str | None = setting(
        None,
        choices=("different", "same"),
        help="Whether the cells of a weight are on different devices, or on the same device.",
    )
    cells_hold: str | None = setting(
        None,
        choices=("level", "residual"),
        help="Whether each cell of a weight holds its level, or the part of it that the cells before missed.",
    )
    read_after_s: float | None = setting(
        None, least=0, most=LONGEST_S, unit="s", help="Time from programming to read: 20s, 1h, 1d."
    )
    write_bits: int | None = setting(None, least=0, most=16, help="Bits of each write; 0: no limit.")
    read_bits: int | None = setting(None, least=0, most=16, help="Bits of each read of a cell; 0: no limit.")


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """The settings of `onnx_analog.graph.weights.Selection`; here they import nothing heavy."""

    include: tuple[str, ...] = setting(
        (), repeatable=True, metavar="REGEX", help="Select only tensors whose key matches; repeatable."
    )
    exclude: tuple[str, ...] = setting(
        (), repeatable=True, metavar="REGEX", help="Leave tensors whose key matches as they are; repeatable."
    )
    min_size: int = setting(256, least=1, help="Leave tensors with fewer weights as they are.")


def checked(**given: Any) -> dict[str, Any]:
    """Return arguments by name, each with the type that it is declared with.

    A single number or text stands for a list of one.

    Raises
    ------
    OptionError
        If a value is of another type or out of its range.
    """
    return check_values(Arguments, given)


def check_pruning(arguments: Mapping[str, Any]) -> None:
    """Raise `OptionError` if the scope of pruning is chosen, and nothing is pruned."""
    scope = arguments["prune_scope"]
    if scope != DEFAULTS.prune_scope and not arguments["sparsity"]:
        raise OptionError(f"prune_scope is {scope!r}, and sparsity is 0, so nothing is pruned: give a sparsity")


def check_stopping(arguments: Mapping[str, Any]) -> None:
    """Raise `OptionError` if the most trials are chosen, and nothing adds any."""
    most = arguments["max_trials"]
    if most != DEFAULTS.max_trials and arguments["precision"] is None:
        raise OptionError(f"max_trials is {most}, and precision is not given, so no trials are added: give a precision")


def check_type(name: str, value: Any, kind: Any, what: str) -> None:
    """Raise `OptionError` if an argument is of another type than `kind`, which `what` describes."""
    if not isinstance(value, kind):
        raise OptionError(f"{name} is {brief(value)}; it must be {what}")
